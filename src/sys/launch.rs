//! clone(2) of a prepared worker, and how it tells how its exec went.

use super::child;
use super::high;
use super::prepared::{
    FdAction, Gate, HELD, Prepared, RELEASED, RUNNING, SHARING, STATUS_LENGTH, STATUS_MOST, Stack,
    Stdio, WAITING, Work,
};
use super::raw::{self, CloneArguments};
use crate::stage::{LaunchFailure, Stage};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The way in which a child reports that it did not get to its program.
#[derive(Debug, Clone, Copy)]
pub enum Tell<'a> {
    /// A pipe of its own, which can be watched: the daemon is told at once. That it has ended is told by
    /// SIGCHLD alone.
    ByPipe,
    /// The same with a pidfd; and the child does nothing before [`Launching::release`]. It ends if the daemon
    /// has ended before that.
    PipeWhenReleased,
    /// By the memory that it shares, which costs no system call: the daemon looks when it has a reason
    /// to. That it has ended is told by SIGCHLD alone. The connection that the child is for is closed
    /// here as soon as the child exists, so that it is over when the child ends it; the child executes
    /// nothing before [`Launching::release`], so that nobody has done anything to the connection that this
    /// close(2) could wait for. Of a child that fails it comes back over this socket, with this number.
    /// Where memory is not shared, a pipe is used all the same.
    ByMemory {
        /// The writing end.
        back: BorrowedFd<'a>,
        /// The number of the connection.
        number: u64,
        /// The descriptor of the connection.
        connection: RawFd,
        /// The process id of the daemon.
        parent: c_int,
    },
}

/// A child on its way to its program, or already there.
#[derive(Debug)]
pub struct Launched {
    /// The process id, also the session and process group once the child has called setsid(2).
    pub pid: i32,
    /// Becomes readable when it exits; with [`Tell::PipeWhenReleased`] alone.
    pub pidfd: Option<OwnedFd>,
    /// The exec under way.
    pub launching: Launching,
}

/// A child before its exec: the memory that it works with, and the status pipe.
#[derive(Debug)]
pub struct Launching {
    /// The read end of the status pipe, until it has said everything.
    status: Option<OwnedFd>,
    /// The child reads and writes this while we run, so it is no `Box` of ours before it is done.
    work: NonNull<Work>,
    /// What the child waits for: a byte, or the end.
    release: Option<OwnedFd>,
    done: bool,
}

thread_local! {
    /// Stacks that were used before: they are warm, and cost nothing to get.
    static STACKS: RefCell<Vec<Stack>> = const { RefCell::new(Vec::new()) };
}

/// The number of stacks kept: as many as there are children between clone and exec at a time.
const STACKS_KEPT: usize = 16;

/// Enough for the few small frames of [`child::become_worker`], debug builds included.
pub(super) const STACK_SIZE: usize = 32 * 1024;

impl Launching {
    /// The status pipe to watch; `None` once the outcome is known.
    pub fn status(&self) -> Option<BorrowedFd<'_>> {
        self.status.as_ref().map(OwnedFd::as_fd)
    }

    /// Lets a child go on that waits for that ([`Tell::PipeWhenReleased`], [`Tell::ByMemory`]).
    pub fn release(&mut self) {
        // SAFETY: `work` came from a Box and is freed only by drop; the child changes nothing of this but the
        // word, which is atomic, and futex(2) only takes its address.
        unsafe {
            if let Some(gate) = &(*self.work.as_ptr()).gate
                && gate.word.swap(RELEASED, Ordering::AcqRel) == WAITING
            {
                let word = &raw const gate.word;
                libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, 1);
            }
        }
        if let Some(pipe) = self.release.take() {
            // It is empty, and has room. A child that has been killed cannot be told.
            let _gone = nix::unistd::write(&pipe, &[0]);
        }
    }

    /// Reads the outcome once [`Launching::status`] is readable, or, where there is none, at any
    /// time: `Ok(None)` is an exec that succeeded (the pipe was closed by it), or a child that died
    /// before it could say anything; its exit status tells which. The pipe, of no further use, comes
    /// with it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` while the child is still on its way to exec; nothing has changed then.
    pub fn outcome(&mut self) -> io::Result<(Option<LaunchFailure>, Option<OwnedFd>)> {
        let mut message = [0u8; STATUS_MOST];
        let Some(status) = self.status.take() else {
            return self.outcome_by_memory().map(|failure| (failure, None));
        };
        let length = match nix::unistd::read(&status, &mut message) {
            Ok(length) => length,
            Err(errno) => {
                self.status = Some(status);
                return Err(errno.into());
            }
        };
        if length == 0 {
            // The kernel gives up the old memory of a process before it closes its descriptors, in
            // exec as in exit: the end of the pipe says that the child does not need it any more.
            self.done = true;
            return Ok((None, Some(status)));
        }
        let (told, reason) = message.split_at(STATUS_LENGTH);
        let mut told_failure = failure(told.try_into().unwrap_or_default());
        let reason = reason
            .get(..length.saturating_sub(STATUS_LENGTH))
            .unwrap_or_default();
        if !reason.is_empty() {
            told_failure.reason = Some(String::from_utf8_lossy(reason).into_owned());
        }
        Ok((Some(told_failure), Some(status)))
    }

    fn outcome_by_memory(&mut self) -> io::Result<Option<LaunchFailure>> {
        if self.done {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: `work` came from a Box and is freed only by drop; the child does not change `gate`, and the
        // others are atomic, and the child and the kernel change them as such.
        let (by_memory, running, failed) = unsafe {
            let work = self.work.as_ptr();
            let running = (*work).running.load(Ordering::Acquire);
            let failed = (*work).failure.load(Ordering::Acquire);
            ((*work).gate.is_some(), running != 0, failed)
        };
        // One with a pipe has told its failure there.
        if running || !by_memory {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.done = true;
        Ok((failed != 0).then(|| failure(failed.to_ne_bytes())))
    }

    /// Says that the process has been reaped, so that nothing uses the memory any more.
    pub fn reaped(&mut self) {
        self.done = true;
    }

    /// The prepared launch. To be called once the outcome is known.
    pub fn prepared(&self) -> &Prepared {
        // SAFETY: `work` came from a Box and is freed only by drop. The child writes into it only
        // before it reports, which `outcome` has seen.
        unsafe { &self.work.as_ref().prepared }
    }
}

fn failure(message: [u8; STATUS_LENGTH]) -> LaunchFailure {
    LaunchFailure {
        stage: Stage::from_number(message[0]).unwrap_or(Stage::Exec),
        detail: u16::from_ne_bytes([message[2], message[3]]),
        errno: i32::from_ne_bytes([message[4], message[5], message[6], message[7]]),
        reason: None,
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        // Of a child that may still be running on it the memory is leaked: that happens only when
        // listend itself ends.
        if self.done {
            // SAFETY: `work` came from Box::into_raw, and the child is done with it.
            let work = unsafe { Box::from_raw(self.work.as_ptr()) };
            STACKS.with_borrow_mut(|stacks| {
                if stacks.len() < STACKS_KEPT {
                    stacks.push(work.stack);
                }
            });
        }
    }
}

/// Creates a process that becomes the worker. Returns at once: the exec may still take its time
/// (a path on a network file system, a FIFO as output file) and must not hold up anybody.
///
/// Where it can, the child shares the memory of its parent until its exec (CLONE_VM): nothing is
/// copied and nothing has to be copied back on write, which is most of what fork(2) costs. Unlike
/// with vfork(2) the parent runs on. So the child has a stack of its own, makes bare system calls
/// only, and what it works with is kept until it is done. It does not share where that would reach
/// beyond it: a process that gives up privileges must not share memory with one that has them, and
/// the OOM score adjustment belongs to the memory (proc_pid_oom_score_adj(5)).
///
/// `plan` says how the descriptors get to their places: given what they are here, where each goes, and
/// the number of the status pipe.
///
/// # Errors
///
/// pipe2(2) or clone(2) failed (EAGAIN: RLIMIT_NPROC or the cgroup's limit; EMFILE; ENOMEM). No
/// child is left in that case.
pub fn launch(
    mut prepared: Prepared,
    tell: Tell<'_>,
    plan: impl FnOnce(&[RawFd], &[RawFd], RawFd) -> Vec<FdAction>,
) -> io::Result<Launched> {
    let shares = raw::BARE
        && prepared.common.spec.credentials.is_none()
        && prepared.common.spec.oom_score_adjust.is_none();
    let (held, release) = match tell {
        Tell::PipeWhenReleased => {
            let (held, release) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
            (Some(held), Some(release))
        }
        Tell::ByPipe | Tell::ByMemory { .. } => (None, None),
    };
    let (status, writer, gate) = match tell {
        Tell::ByMemory {
            back,
            number,
            connection,
            parent,
        } if shares && prepared.second.is_none() => {
            let gate = Gate {
                word: AtomicU32::new(HELD),
                parent,
                back: (connection, number),
            };
            (None, Writer::Shared(back), Some(gate))
        }
        Tell::ByMemory { .. } | Tell::ByPipe | Tell::PipeWhenReleased => {
            let (status, writer) = status_pipe()?;
            (
                Some(high::out_of_the_way(status)),
                Writer::Own(writer),
                None,
            )
        }
    };
    let writer_fd = writer.number();
    if prepared.second.is_some() {
        prepared.fds.push(writer_fd);
    }
    prepared.fd_actions = plan(&prepared.fds, &prepared.common.targets, writer_fd);
    prepared.fds.push(writer_fd);
    prepared.environment.seal();
    let output = match prepared.common.output {
        Stdio::Descriptor(fd) | Stdio::File { handle: fd, .. } => fd,
        Stdio::Inherit | Stdio::Null => writer_fd,
    };
    let held_fd = held.as_ref().map_or(writer_fd, AsRawFd::as_raw_fd);
    let needed = prepared
        .fds
        .iter()
        .chain([&writer_fd, &output, &held_fd])
        .max();
    let many_from = high::begins_at().filter(|_| shares);
    let unshare_from = many_from.filter(|from| needed.is_some_and(|needed| needed < from));
    let used = STACKS.with_borrow_mut(Vec::pop);
    let stack = used.unwrap_or_else(|| Box::new_uninit_slice(STACK_SIZE));
    let work = Box::new(Work {
        prepared,
        to_default: 0,
        held: held
            .as_ref()
            .zip(release.as_ref())
            .map(|(held, release)| (held.as_raw_fd(), release.as_raw_fd())),
        gate,
        failure: AtomicU64::new(0),
        unshare_from,
        running: AtomicU32::new(match unshare_from {
            Some(_) => SHARING,
            None => RUNNING,
        }),
        stack,
    });
    // SAFETY: Box::into_raw is never null.
    let work = unsafe { NonNull::new_unchecked(Box::into_raw(work)) };
    let asks_for = |flags: c_int, is_wanted: bool| if is_wanted { flags } else { 0 };
    let clears = libc::CLONE_CHILD_CLEARTID;
    let flags = asks_for(libc::CLONE_VM, shares)
        | asks_for(libc::CLONE_PIDFD, release.is_some())
        | asks_for(clears, status.is_none() || unshare_from.is_some())
        | asks_for(libc::CLONE_FILES, unshare_from.is_some());
    match clone(work, flags) {
        Ok((pid, pidfd)) => {
            if unshare_from.is_some() {
                wait_for_own_descriptors(work);
            }
            Ok(Launched {
                pid,
                pidfd: pidfd.map(high::out_of_the_way),
                launching: Launching {
                    status,
                    work,
                    release,
                    done: false,
                },
            })
        }
        Err(error) => {
            // SAFETY: there is no child, so the memory is ours alone.
            drop(unsafe { Box::from_raw(work.as_ptr()) });
            Err(error)
        }
    }
}

/// The writer for a child that fails.
enum Writer<'a> {
    Own(OwnedFd),
    Shared(BorrowedFd<'a>),
}

impl Writer<'_> {
    fn number(&self) -> RawFd {
        match self {
            Writer::Own(fd) => fd.as_raw_fd(),
            Writer::Shared(fd) => fd.as_raw_fd(),
        }
    }
}

/// Neither end waits: what is written is less than an empty pipe takes.
fn status_pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)
}

/// The first function of the child.
extern "C" fn enter(work: *mut c_void) -> c_int {
    // SAFETY: `work` is the pointer that `clone` was given; the parent leaves it alone until the child
    // is done. No handler runs here, as `become_worker` wants it.
    unsafe { child::become_worker(&mut *work.cast::<Work>()) }
}

/// Whether the kernel has refused CLONE_CLEAR_SIGHAND (Linux 5.5), or a sandbox around listend clone3(2).
static HANDLERS_STAY: AtomicBool = AtomicBool::new(false);

/// Creates the child. It has no handlers of its parent, which would write into the parent's pipe: where they
/// cannot be left out, none of them runs. None may end a child that its parent waits for, either: of one that
/// dumps core, older kernels do not clear the word (CLONE_CHILD_CLEARTID).
fn clone(work: NonNull<Work>, flags: c_int) -> io::Result<(c_int, Option<OwnedFd>)> {
    let mut pidfd: c_int = -1;
    let is_waited_for = flags & libc::CLONE_FILES != 0;
    let pid = match is_waited_for || HANDLERS_STAY.load(Ordering::Relaxed) {
        true => clone_blocked(work, flags, &mut pidfd)?,
        false => match clone_without_handlers(work, flags, &mut pidfd) {
            Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {
                HANDLERS_STAY.store(true, Ordering::Relaxed);
                clone_blocked(work, flags, &mut pidfd)?
            }
            cloned => cloned?,
        },
    };
    let is_there = flags & libc::CLONE_PIDFD != 0;
    // SAFETY: with CLONE_PIDFD the kernel has stored a new descriptor there, with FD_CLOEXEC.
    Ok((
        pid,
        is_there.then(|| unsafe { OwnedFd::from_raw_fd(pidfd) }),
    ))
}

/// CLONE_CLEAR_SIGHAND, which the crate libc has in a type that is too short for it.
const CLEAR_HANDLERS: u64 = 1 << 32;

/// clone3(2) with CLONE_CLEAR_SIGHAND. A signal that reaches the child before its exec does what it would do
/// after that.
fn clone_without_handlers(
    work: NonNull<Work>,
    flags: c_int,
    pidfd: &mut c_int,
) -> Result<c_int, Errno> {
    // SAFETY: there is no child yet, so that the memory is ours alone. The child runs `enter`, which does not
    // return, on a stack of its own; the kernel stores a descriptor at `pidfd` before this returns, and
    // with CLONE_CHILD_CLEARTID clears the word at `running` when the child leaves the memory, which is
    // kept until then.
    unsafe {
        let own = &mut *work.as_ptr();
        own.choose_signals(false);
        let (stack, stack_size) = own.stack_range();
        let arguments = CloneArguments {
            flags: u64::from(flags.cast_unsigned()) | CLEAR_HANDLERS,
            pidfd: ptr::from_mut(pidfd) as u64,
            child_tid: (&raw mut own.running) as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: stack as u64,
            stack_size: stack_size as u64,
            ..CloneArguments::default()
        };
        let answer = raw::clone3(&arguments, enter, work.as_ptr().cast());
        match answer {
            0.. => Ok(answer as c_int),
            _ => Err(Errno::from_raw(-answer as c_int)),
        }
    }
}

/// clone(2) with all signals blocked, so that none reaches the child while it still has the parent's
/// handlers.
fn clone_blocked(work: NonNull<Work>, flags: c_int, pidfd: &mut c_int) -> io::Result<c_int> {
    let flags = flags | libc::SIGCHLD;
    // SAFETY: the sets are initialised by sigfillset/pthread_sigmask before use. For the rest see
    // `clone_without_handlers`.
    unsafe {
        let own = &mut *work.as_ptr();
        own.choose_signals(true);
        let (stack, stack_size) = own.stack_range();
        let top = stack.wrapping_add(stack_size).cast();
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let running = own.running.as_ptr();
        let answer = raw::clone(flags, top, pidfd, running, enter, work.as_ptr().cast());
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        match answer {
            0.. => Ok(answer as c_int),
            _ => Err(io::Error::from_raw_os_error(-answer as i32)),
        }
    }
}

/// Waits until the child has descriptors of its own: until then what is closed here is closed there.
/// That is the first thing it does, with all signals blocked, or it is gone.
fn wait_for_own_descriptors(work: NonNull<Work>) {
    // SAFETY: the child is not reaped, so the memory is there; the word is atomic, and futex(2) only
    // compares it. An interrupted wait, or one that came too late, looks again.
    unsafe {
        let running = &raw const (*work.as_ptr()).running;
        while (*running).load(Ordering::Acquire) == SHARING {
            let none = ptr::null::<libc::timespec>();
            libc::syscall(libc::SYS_futex, running, libc::FUTEX_WAIT, SHARING, none);
        }
    }
}

/// Tells on the status pipe that the second of two programs was not reached, and why.
///
/// # Errors
///
/// The reading end is closed.
pub fn tell_failure(status: &OwnedFd, failure: &LaunchFailure) -> io::Result<()> {
    let [low, high] = failure.detail.to_ne_bytes();
    let [a, b, c, d] = failure.errno.to_ne_bytes();
    let mut message = vec![failure.stage as u8, 0, low, high, a, b, c, d];
    message.extend(failure.reason.iter().flat_map(|reason| reason.bytes()));
    message.truncate(STATUS_MOST);
    nix::unistd::write(status, &message)?;
    Ok(())
}

/// Ends a child that cannot be supervised after all.
pub fn discard(mut launched: Launched) {
    // SAFETY: the pid is that of our child and has not been waited for, so it cannot be anybody
    // else's.
    unsafe {
        libc::kill(launched.pid, libc::SIGKILL);
        libc::waitpid(launched.pid, ptr::null_mut(), 0);
    }
    launched.launching.reaped();
}
