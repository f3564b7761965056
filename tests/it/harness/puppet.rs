//! The test's end of the strings that `probe puppet` hangs on.

use super::{DEADLINE, Report};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

/// Where puppets connect.
pub struct Puppets(UnixListener);

impl Puppets {
    /// Listens, for puppets of any user.
    pub fn listen(path: &Path) -> Puppets {
        let listener = UnixListener::bind(path).expect("bind the puppets' socket");
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("chmod");
        Puppets(listener)
    }

    fn waits(&self, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, timeout) {
                Ok(count) => return count > 0,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }

    /// The next puppet that starts; gives up when there is no hope of one.
    #[track_caller]
    pub fn next(&self, hopeless: impl Fn() -> bool) -> Puppet {
        let deadline = Instant::now() + DEADLINE;
        // In steps, so that a daemon that has ended fails its test at once.
        while !self.waits(PollTimeout::from(100u8)) {
            assert!(!hopeless(), "no puppet started: listend has ended");
            assert!(Instant::now() < deadline, "no puppet started");
        }
        let (stream, _) = self.0.accept().expect("accept");
        stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("read the report");
        let report = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("no report ({error}): {line:?}"));
        Puppet { report, reader }
    }

    /// Whether nobody has connected that was not asked for.
    pub fn nobody_waits(&self) -> bool {
        !self.waits(PollTimeout::ZERO)
    }
}

/// A worker that does as it is told. Dropped, it exits with 0.
pub struct Puppet {
    /// What it found when it started.
    pub report: Report,
    reader: BufReader<UnixStream>,
}

impl Puppet {
    /// Sends a command that has no answer.
    #[track_caller]
    pub fn tell(&mut self, command: &str) {
        writeln!(self.reader.get_ref(), "{command}").expect("tell the puppet");
    }

    /// Sends a command, and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.listen().expect("the puppet is gone")
    }

    /// The next thing it says; `None` when it has ended.
    #[track_caller]
    pub fn listen(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing from the puppet: {error}"),
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_for_its_end(&mut self) {
        while self.listen().is_some() {}
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.report.pid
    }
}
