//! fork(2) of a prepared worker, and the pipe that tells how its exec went.

use super::child::{self, FdAction, STATUS_LENGTH};
use crate::stage::{LaunchFailure, Stage};
use nix::libc::{self, c_char, c_int};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

/// Everything the child needs, laid out before the fork; it owns every byte.
#[derive(Debug)]
pub struct Prepared {
    /// The path that execve(2) gets.
    pub program: CString,
    /// argv.
    pub argv: CStrings,
    /// The whole environment.
    pub environment: CStrings,
    /// The descriptors that [`FdAction`]s speak of; [`launch`] appends the status pipe.
    pub fds: Vec<RawFd>,
    /// How they get to their places.
    pub fd_actions: Vec<FdAction>,
    /// The first number above the listeners: from here on everything is closed at exec.
    pub first_unused: RawFd,
    /// Standard output and error.
    pub output: Stdio,
    /// (resource, soft, hard), for setrlimit(2).
    pub limits: Vec<(u32, u64, u64)>,
    /// For setpriority(2).
    pub nice: Option<i32>,
    /// What is written to /proc/self/oom_score_adj.
    pub oom_score_adjust: Option<Vec<u8>>,
    /// For setgroups(2).
    pub groups: Option<Vec<u32>>,
    /// For setresgid(2).
    pub gid: Option<u32>,
    /// For setresuid(2).
    pub uid: Option<u32>,
    /// For chdir(2).
    pub working_directory: Option<CString>,
    /// For umask(2).
    pub umask: Option<u32>,
}

impl Prepared {
    /// The write end of the status pipe: the last slot, wherever it has been moved to.
    pub(super) fn status_fd(&self) -> c_int {
        self.fds.last().copied().unwrap_or(-1)
    }
}

/// Where standard output and error go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stdio {
    /// They stay listend's own.
    Inherit,
    /// To /dev/null.
    Null,
    /// Appended to this file.
    File(CString),
}

/// A value that only the child knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvSlot {
    /// getpid(2), in decimal.
    OwnPid,
    /// The inode of its own pidfd, in decimal. Has to be the last of the environment, because the
    /// child drops the last where it cannot find out.
    OwnPidfdInode,
}

/// Digits of the longest u64, and a NUL.
const SLOT_LENGTH: usize = 21;

/// An array of C strings with a NULL at its end, as execve(2) wants it.
#[derive(Debug, Default)]
pub struct CStrings {
    strings: Vec<Vec<u8>>,
    pointers: Vec<*const c_char>,
    slots: Vec<(EnvSlot, usize, usize)>,
}

impl CStrings {
    /// Takes over the strings.
    pub fn new(strings: impl IntoIterator<Item = CString>) -> CStrings {
        let mut array = CStrings {
            strings: strings
                .into_iter()
                .map(CString::into_bytes_with_nul)
                .collect(),
            ..CStrings::default()
        };
        array.point();
        array
    }

    /// Appends `NAME=` with room for a value that the child writes.
    pub fn push_slot(&mut self, name: &str, slot: EnvSlot) {
        let mut bytes = Vec::with_capacity(name.len() + 1 + SLOT_LENGTH);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'=');
        let start = bytes.len();
        bytes.resize(start + SLOT_LENGTH, 0);
        self.slots.push((slot, self.strings.len(), start));
        self.strings.push(bytes);
        self.point();
    }

    fn point(&mut self) {
        self.pointers = self
            .strings
            .iter()
            .map(|bytes| bytes.as_ptr().cast())
            .chain([ptr::null()])
            .collect();
    }

    pub(super) fn pointers(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }

    /// The space for a slot's digits. The heap buffers do not move, so the pointers stay right.
    pub(super) fn slot_mut(&mut self, wanted: EnvSlot) -> Option<&mut [u8]> {
        let &(_, string, start) = self.slots.iter().find(|(slot, ..)| *slot == wanted)?;
        self.strings.get_mut(string)?.get_mut(start..)
    }

    pub(super) fn drop_last(&mut self) {
        if let [.., last, _null] = self.pointers.as_mut_slice() {
            *last = ptr::null();
        }
    }
}

/// A child that has been forked; whether its exec succeeds is still to be read.
#[derive(Debug)]
pub struct Launched {
    /// Its process id, also its session and process group once it has called setsid(2).
    pub pid: i32,
    /// Becomes readable when it exits.
    pub pidfd: OwnedFd,
    /// The read end of the status pipe, non-blocking; see [`read_status`].
    pub status: OwnedFd,
}

/// Forks and lets the child become the worker. Returns at once: the exec may still take its time
/// (a path on a network file system) and must not hold up anybody.
///
/// `plan` says how the descriptors get to their places, given the number of the status pipe.
///
/// # Errors
///
/// pipe2(2), fork(2) or pidfd_open(2) failed (EAGAIN: RLIMIT_NPROC or the cgroup's limit; EMFILE;
/// ENOMEM). No child is left in that case.
pub fn launch(
    prepared: &mut Prepared,
    plan: impl FnOnce(&[RawFd], RawFd) -> Vec<FdAction>,
) -> io::Result<Launched> {
    let (status, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(
        &status,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )?;
    prepared.fd_actions = plan(&prepared.fds, writer.as_raw_fd());
    prepared.fds.push(writer.as_raw_fd());
    let forked = fork_blocked(prepared);
    prepared.fds.pop();
    let pid = forked?;
    match super::pidfd::open(pid) {
        Ok(pidfd) => Ok(Launched { pid, pidfd, status }),
        Err(error) => {
            kill_and_reap(pid);
            Err(error)
        }
    }
}

/// Ends a child that cannot be supervised after all.
pub fn discard(launched: &Launched) {
    kill_and_reap(launched.pid);
}

fn kill_and_reap(pid: c_int) {
    // SAFETY: pid is our child and has not been waited for, so it cannot be anybody else.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, ptr::null_mut(), 0);
    }
}

/// fork(2) with all signals blocked, so that none reaches the child while it still has the
/// parent's handlers.
fn fork_blocked(prepared: &mut Prepared) -> io::Result<c_int> {
    // SAFETY: the sets are initialised by sigfillset/pthread_sigmask before use. The process has
    // one thread (the crate starts none), so the child may run `become_worker`, which keeps to
    // async-signal-safe calls anyway.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let pid = libc::fork();
        if pid == 0 {
            child::become_worker(prepared);
        }
        let result = if pid == -1 {
            Err(io::Error::last_os_error())
        } else {
            Ok(pid)
        };
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        result
    }
}

/// Reads the status pipe once it is readable: `Ok(None)` is an exec that succeeded (the pipe was
/// closed by it), or a child that died before it could say anything; its exit status tells which.
///
/// # Errors
///
/// `WouldBlock` while the child is still on its way to exec.
pub fn read_status(status: &OwnedFd) -> io::Result<Option<LaunchFailure>> {
    let mut message = [0u8; STATUS_LENGTH];
    match nix::unistd::read(status, &mut message)? {
        0 => Ok(None),
        _ => Ok(Some(LaunchFailure {
            stage: Stage::from_number(message[0]).unwrap_or(Stage::Exec),
            detail: u16::from_ne_bytes([message[2], message[3]]),
            errno: i32::from_ne_bytes([message[4], message[5], message[6], message[7]]),
        })),
    }
}
