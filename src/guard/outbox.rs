//! What the daemon says, passed on to whoever has started the guard (sd_notify(3)).

use crate::notify::{ManagerAddress, is_full};
use std::collections::VecDeque;
use std::time::Duration;

/// What could not be sent, because too much is waiting for the manager already, is tried again after
/// this time.
const AGAIN: Duration = Duration::from_millis(100);
/// So many messages wait for a manager that does not read. The oldest goes first.
const WAITING_MAX: usize = 64;

/// What is between the daemon and the guard: the manager has no part in the store, and its main process
/// stays the guard.
const OWN: [&[u8]; 6] = [
    b"FDSTORE=",
    b"FDSTOREREMOVE=",
    b"FDNAME=",
    b"FDPOLL=",
    b"MAINPID=",
    b"BARRIER=",
];

/// The line to the manager, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    to: Option<ManagerAddress>,
    /// Half of the time in which the manager wants a sign of life.
    every: Option<Duration>,
    /// When the next is due, while there is no daemon that gives one.
    next: Option<Duration>,
    waiting: VecDeque<Box<[u8]>>,
    again_at: Option<Duration>,
    has_complained: bool,
}

impl Outbox {
    /// Without an address nothing is kept and nothing comes due.
    pub(super) fn new(to: Option<ManagerAddress>, watchdog: Option<Duration>) -> Outbox {
        Outbox {
            every: watchdog.filter(|_| to.is_some()).map(|limit| limit / 2),
            to,
            ..Outbox::default()
        }
    }

    /// Passes on what of a message is for the manager.
    pub(super) fn pass(&mut self, message: &mut [u8], now: Duration) {
        let length = keep_foreign_lines(message);
        self.post(&message[..length], now);
    }

    /// Tells how it is, in one line.
    pub(super) fn status(&mut self, text: &str, now: Duration) {
        if self.to.is_some() {
            self.post(format!("STATUS={text}\n").as_bytes(), now);
        }
    }

    /// There is no daemon that could give a sign of life: it is given here from now on, until
    /// [`Outbox::is_relieved`].
    pub(super) fn stand_in(&mut self, now: Duration) {
        if let Some(every) = self.every {
            self.next = Some(now + every);
            self.post(b"WATCHDOG=1\n", now);
        }
    }

    pub(super) fn is_relieved(&mut self) {
        self.next = None;
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.again_at.into_iter().chain(self.next).min()
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, now: Duration) {
        if self.next.is_some_and(|at| at <= now) {
            self.stand_in(now);
        }
        if self.again_at.is_some_and(|at| at <= now) {
            self.send_waiting(now);
        }
    }

    fn post(&mut self, message: &[u8], now: Duration) {
        let Some(to) = self.to.as_ref().filter(|_| !message.is_empty()) else {
            return;
        };
        if self.waiting.is_empty() {
            match to.send(message) {
                Err(error) if is_full(&error) => self.again_at = Some(now + AGAIN),
                Err(error) => return self.complain(&error),
                Ok(()) => return,
            }
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        // One sign of life is as good as several.
        if !self.waiting.iter().any(|one| **one == *message) {
            self.waiting.push_back(message.into());
        }
    }

    fn send_waiting(&mut self, now: Duration) {
        self.again_at = None;
        while let (Some(to), Some(message)) = (&self.to, self.waiting.front()) {
            match to.send(message) {
                Err(error) if is_full(&error) => {
                    self.again_at = Some(now + AGAIN);
                    return;
                }
                Err(error) => self.complain(&error),
                Ok(()) => {}
            }
            self.waiting.pop_front();
        }
    }

    fn complain(&mut self, error: &std::io::Error) {
        if !std::mem::replace(&mut self.has_complained, true) {
            let name = self.to.as_ref().map_or("", ManagerAddress::name);
            log::warn!(
                "guard: cannot notify the service manager at {name}: {error}; listend continues, but \
                 may count as not started, or dead"
            );
        }
    }
}

/// Moves the lines that are for the manager to the front; how long they are.
fn keep_foreign_lines(message: &mut [u8]) -> usize {
    let (mut from, mut length) = (0, 0);
    while let Some(rest) = message.get(from..).filter(|rest| !rest.is_empty()) {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = from..from + end.map_or(rest.len(), |end| end + 1);
        from = line.end;
        let is_own = OWN.iter().any(|key| message[line.clone()].starts_with(key));
        if !is_own && message[line.clone()] != *b"\n" {
            message.copy_within(line.clone(), length);
            length += line.len();
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn what_is_between_daemon_and_guard_is_not_passed_on() {
        for (said, wanted) in [
            ("READY=1\nSTATUS=well\n", "READY=1\nSTATUS=well\n"),
            ("FDSTORE=1\nFDNAME=a\nFDPOLL=0\n", ""),
            ("FDSTOREREMOVE=1\nFDNAME=a", ""),
            ("MAINPID=7\nSTATUS=well", "STATUS=well"),
            (
                "STATUS=FDSTORE=1\nFDNAME=a\nX_MINE=1\n",
                "STATUS=FDSTORE=1\nX_MINE=1\n",
            ),
            (
                "RELOADING=1\n\n\nMONOTONIC_USEC=5",
                "RELOADING=1\nMONOTONIC_USEC=5",
            ),
            ("BARRIER=1", ""),
            ("", ""),
        ] {
            let mut message = said.as_bytes().to_vec();
            let length = keep_foreign_lines(&mut message);
            assert_eq!(
                String::from_utf8_lossy(&message[..length]),
                wanted,
                "{said:?}"
            );
        }
    }

    fn peer(name: &str) -> (UnixDatagram, Outbox) {
        let name = format!("listend-outbox-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let to = ManagerAddress::to(OsStr::new(&format!("@{name}"))).unwrap();
        (socket, Outbox::new(Some(to), Some(Duration::from_secs(10))))
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| {
            let length = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
        .collect()
    }

    #[test]
    fn what_a_manager_does_not_read_is_sent_again_in_order() {
        let (socket, mut outbox) = peer("order");
        let now = Duration::ZERO;
        let all: Vec<String> = (0..40).map(|number| format!("X={number}\n")).collect();
        for message in &all {
            outbox.pass(&mut message.clone().into_bytes(), now);
        }
        assert!(
            outbox.deadline().is_some(),
            "net.unix.max_dgram_qlen is small"
        );
        let mut found = Vec::new();
        for round in 1..100 {
            found.extend(heard(&socket));
            if found.len() == all.len() {
                break;
            }
            outbox.turn(AGAIN * round);
        }
        assert_eq!(found, all);
        outbox.turn(AGAIN * 100);
        assert_eq!(outbox.deadline(), None);
    }

    #[test]
    fn a_sign_of_life_is_given_while_there_is_no_daemon_and_no_longer() {
        let (socket, mut outbox) = peer("life");
        let seconds = Duration::from_secs;
        assert_eq!(outbox.deadline(), None);
        outbox.stand_in(seconds(1));
        outbox.turn(seconds(5));
        outbox.turn(seconds(6));
        assert_eq!(heard(&socket), ["WATCHDOG=1\n"; 2]);
        assert_eq!(outbox.deadline(), Some(seconds(11)));
        outbox.is_relieved();
        assert_eq!(outbox.deadline(), None);
        let mut nobody = Outbox::new(None, Some(seconds(10)));
        nobody.stand_in(seconds(1));
        nobody.pass(&mut b"READY=1".to_vec(), seconds(1));
        assert_eq!(nobody.deadline(), None);
    }
}
