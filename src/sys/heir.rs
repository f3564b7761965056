//! fork(2) and exec of a program that gets what others before it have left, by the protocol of
//! sd_listen_fds(3).
//!
//! Not [`super::launch()`], which makes a worker: that one gives up capabilities and keyring, and
//! shares the memory of a daemon that has much of it. This is for a process that has little.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc::{self, rlim_t};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use std::ffi::{CStr, CString};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// SD_LISTEN_FDS_START of sd_listen_fds(3).
const FIRST: RawFd = 3;

/// A program to be started, with all that it gets.
#[derive(Debug)]
pub struct Heir<'a> {
    /// The paths of the program: the next is tried where one cannot be executed.
    pub programs: &'a [CString],
    /// argv.
    pub words: &'a [CString],
    /// The whole environment but for LISTEN_PID, which only the child knows.
    pub environment: Vec<CString>,
    /// What it gets from 3 on, ordered by their present numbers.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// RLIMIT_NOFILE, soft and hard.
    pub open_files: (rlim_t, rlim_t),
    /// The signals that it starts with blocked.
    pub blocked: SigSet,
}

/// A process that is on its way to its program, or there.
#[derive(Debug)]
pub struct Started {
    /// Its process id, also its session.
    pub pid: i32,
    /// The pipe on which it says why it does not get there.
    failure: OwnedFd,
}

impl Started {
    /// Why it did not get to its program, if that is so. To be asked once it has ended: nobody else
    /// can write then, and there is an end to be read.
    pub fn failure(self) -> Option<Errno> {
        let mut errno = [0; 4];
        let mut failure = std::fs::File::from(self.failure);
        let is_told = failure.read_exact(&mut errno).is_ok();
        is_told.then(|| Errno::from_raw(i32::from_ne_bytes(errno)))
    }
}

impl Heir<'_> {
    /// Starts it, in a session of its own.
    ///
    /// # Errors
    ///
    /// pipe2(2) or fork(2) failed. No child is left in that case.
    pub fn start(self) -> io::Result<Started> {
        let (failure, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        // SAFETY: there is one thread, so that the child has every lock free, and may go on in Rust;
        // no signal has a handler that could run there. It ends by exec or _exit(2).
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // A panic must not run on into what the parent does.
                let told = catch_unwind(AssertUnwindSafe(|| self.execute(theirs)));
                // SAFETY: ends the process, without the parent's exit handlers.
                unsafe { libc::_exit(if told.is_ok() { 127 } else { 70 }) }
            }
            pid => Ok(Started { pid, failure }),
        }
    }

    /// In the child. Returns only on failure, which it has told.
    fn execute(self, failure: OwnedFd) {
        // Above all numbers that something is placed at.
        let above = FIRST + self.descriptors.len() as RawFd;
        let Ok(number) = fcntl(&failure, FcntlArg::F_DUPFD_CLOEXEC(above)) else {
            return;
        };
        // SAFETY: the number is new, and nobody else's.
        let mut failure = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(number) });
        let errno = match self.become_it() {
            Ok(never) => match never {},
            Err(errno) => errno as i32,
        };
        // The parent is there, or nobody cares.
        let _told = failure.write_all(&errno.to_ne_bytes());
    }

    fn become_it(self) -> nix::Result<std::convert::Infallible> {
        nix::unistd::setsid()?;
        for (target, fd) in (FIRST..).zip(self.descriptors) {
            place(fd, target)?;
        }
        let (soft, hard) = self.open_files;
        // Not before all have their places: there may be more than the daemon's own limit.
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        let mut environment = self.environment;
        if !self.descriptors.is_empty() {
            let pid = format!("LISTEN_PID={}", std::process::id());
            environment.extend(CString::new(pid).ok());
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.blocked), None)?;
        let execute = |program: &CStr| nix::unistd::execve(program, self.words, &environment);
        let mut first = None;
        for program in self.programs {
            let Err(errno) = execute(program);
            first.get_or_insert(errno);
        }
        Err(first.unwrap_or(Errno::ENOENT))
    }
}

/// Duplicates it to a number that is not above its own, without FD_CLOEXEC. What is there is not
/// needed any more: those before it have been placed, and those behind it have higher numbers.
fn place(fd: &BorrowedFd<'_>, target: RawFd) -> nix::Result<()> {
    if fd.as_raw_fd() == target {
        // dup2 onto itself does nothing, so FD_CLOEXEC has to be cleared by hand.
        return fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop);
    }
    // SAFETY: plain numbers. Whoever owned what was at the target is in the parent's memory; in this
    // copy none is dropped, since the child ends by exec or _exit(2).
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), target) }).map(drop)
}
