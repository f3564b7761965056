//! fork(2) without exec, for what may not answer: a process that looks at something and says what it
//! saw.

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc::{self, c_int, c_uint};
use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::ptr;

/// A child that looks at something.
#[derive(Debug)]
pub struct Forked {
    /// The process id, which stays the child's own until it is waited for.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// The output of the child; with O_NONBLOCK.
    pub output: OwnedFd,
}

/// The child's end of its output.
const OUTPUT: RawFd = 3;

/// Starts a child that does this with a copy of the memory, and says what comes of it. It has no
/// descriptor but its output, none of the signal handlers, and ends with its parent. What it holds
/// until it ends is memory alone, so that it can be left to itself where it does not end.
///
/// # Errors
///
/// pipe2(2), fork(2) or pidfd_open(2) failed. No child is left in that case.
pub fn fork(act: impl FnOnce() -> Vec<u8>) -> io::Result<Forked> {
    let (output, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let parent = std::process::id() as i32;
    // SAFETY: the sets are initialised by sigfillset and pthread_sigmask before use. There is one
    // thread, so that the child has every lock free, and may go on in Rust. Signals are blocked until it
    // has no handlers any more: one would write to a pipe that it shares with its parent.
    let pid = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let pid = libc::fork();
        if pid == 0 {
            match become_alone(theirs.as_raw_fd(), parent) {
                Err(_) => libc::_exit(1),
                Ok(()) => say(act),
            }
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        if pid == -1 {
            return Err(error);
        }
        pid
    };
    match super::pidfd::open(pid) {
        Ok(pidfd) => Ok(Forked { pid, pidfd, output }),
        Err(error) => {
            // SAFETY: it is our child and has not been waited for. It has hardly begun, and SIGKILL
            // ends it.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, ptr::null_mut(), 0);
            }
            Err(error)
        }
    }
}

/// The exit status of a child that could not execute its program, and says why.
pub const NOT_EXECUTED: i32 = 126;

/// Starts a child that executes a program. Unlike [`Command::spawn`], this does not wait until it is executed: its
/// file may be on a file system that does not answer. What it writes is the output.
///
/// # Errors
///
/// As for [`fork`]. That the program cannot be executed is told by the child.
pub fn fork_and_execute(command: impl FnOnce() -> io::Result<Command>) -> io::Result<Forked> {
    fork(|| {
        // SAFETY: `become_alone` has put it there, and `say` takes it over only when this has returned.
        let output = unsafe { BorrowedFd::borrow_raw(OUTPUT) };
        let error = match execute(command, output) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let _told = nix::unistd::write(output, error.to_string().as_bytes());
        // SAFETY: ends the process, without the parent's exit handlers.
        unsafe { libc::_exit(NOT_EXECUTED) }
    })
}

fn execute(
    command: impl FnOnce() -> io::Result<Command>,
    output: BorrowedFd<'_>,
) -> io::Result<Infallible> {
    let mut command = command()?;
    // These are CLOEXEC, but for the streams that they become.
    command.stdout(output.try_clone_to_owned()?);
    command.stderr(output.try_clone_to_owned()?);
    fcntl(output, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Err(command.exec())
}

/// Runs in the child: gives up everything of the parent's.
fn become_alone(output: RawFd, parent: i32) -> io::Result<()> {
    let done = |answer: c_int| match answer {
        -1 => Err(io::Error::last_os_error()),
        number => Ok(number),
    };
    // SAFETY: bare system calls on the child's own table of descriptors, signals and attributes. Each
    // owner of a descriptor that is closed here lives in the parent's memory; in this copy none is
    // dropped, since the child ends by _exit(2).
    unsafe {
        for number in 1..=libc::SIGRTMAX() {
            libc::signal(number, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        done(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid() != parent {
            libc::_exit(1);
        }
        libc::prctl(libc::PR_SET_NAME, c"listend: look".as_ptr());
        done(libc::dup2(output, OUTPUT))?;
        let first = OUTPUT + 1;
        if libc::syscall(libc::SYS_close_range, first, c_uint::MAX, 0) != 0 {
            // Before Linux 5.9.
            let most = libc::sysconf(libc::_SC_OPEN_MAX).clamp(0, 1 << 20);
            (first..most as c_int).for_each(|number| _ = libc::close(number));
        }
        let null = done(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR))?;
        for stream in 0..OUTPUT {
            done(libc::dup2(null, stream))?;
        }
        libc::close(null);
    }
    Ok(())
}

/// Runs in the child: acts, writes the result and ends.
fn say(act: impl FnOnce() -> Vec<u8>) -> ! {
    // A panic must not run on into what the parent does.
    let said = catch_unwind(AssertUnwindSafe(act));
    let told = said.map(|said| {
        // SAFETY: `become_alone` has put it there, and nobody else has it.
        let output = unsafe { OwnedFd::from_raw_fd(OUTPUT) };
        std::fs::File::from(output).write_all(&said)
    });
    let is_told = matches!(told, Ok(Ok(())));
    // SAFETY: ends the process, without the parent's exit handlers.
    unsafe { libc::_exit(i32::from(!is_told)) }
}
