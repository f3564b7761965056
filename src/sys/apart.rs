//! Closing what others have had: a process of its own does it, because close(2) may wait.
//!
//! The last close(2) of a socket with SO_LINGER waits for whoever is at the other end, that of a unix
//! socket closes what was sent to it and never taken (SCM_RIGHTS), and a file on FUSE or NFS asks its
//! server at each close. Whoever has had the open file decides about all of that.
//!
//! So a number is taken out of the table by a child that shares the table (CLONE_FILES), and whatever
//! waits then is the child. One that takes long is killed, which ends the wait for SO_LINGER, and what
//! it had not come to is left to another. No number is closed twice: each is claimed first.

use super::launch::STACK_SIZE;
use super::raw::{BARE, call};
use nix::libc::{self, c_int, c_void};
use std::cell::RefCell;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Times are in nanoseconds here, on the caller's clock.
const MILLISECOND: u64 = 1_000_000;
/// How long one may take before it is killed.
const PATIENCE: u64 = 100 * MILLISECOND;
/// How many there are at a time. More than one only while one waits.
const MOST_CLOSERS: usize = 16;
/// One that is killed and does not end is looked at this often.
const RARELY: u64 = 1000 * MILLISECOND;

/// A descriptor of an open file that others have, or have had. Dropped, it is closed by a process of
/// its own once [`close_apart`] has been called, and before that as any other.
#[derive(Debug)]
pub struct SharedFd(ManuallyDrop<OwnedFd>);

impl From<OwnedFd> for SharedFd {
    fn from(fd: OwnedFd) -> SharedFd {
        SharedFd(ManuallyDrop::new(fd))
    }
}

impl SharedFd {
    /// As a descriptor that is closed as any other.
    pub fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, and nothing uses it after this.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl Deref for SharedFd {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.0
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for SharedFd {
    fn drop(&mut self) {
        // SAFETY: nothing uses it after this.
        let fd = unsafe { ManuallyDrop::take(&mut self.0) };
        // While the thread ends there is nobody to do it, and it is closed here.
        let _at_the_end = CLOSERS.try_with(|closers| {
            let mut closers = closers.borrow_mut();
            if closers.are_on {
                closers.pending.push(fd.into_raw_fd());
            }
        });
    }
}

thread_local! {
    static CLOSERS: RefCell<Closers> = RefCell::default();
}

#[derive(Default)]
struct Closers {
    /// Whether somebody comes by to start them.
    are_on: bool,
    /// When it was asked last.
    now: u64,
    /// What listend has not come to when it ends is closed by the kernel, which does not wait then.
    pending: Vec<RawFd>,
    at_work: Vec<Closer>,
    /// When there was no process to be had.
    has_failed: bool,
}

/// Numbers to be closed, each by whoever claims it.
struct Batch {
    numbers: Vec<RawFd>,
    next: AtomicUsize,
    parent: i32,
}

impl Batch {
    fn is_claimed(&self) -> bool {
        self.next.load(Ordering::Acquire) >= self.numbers.len()
    }
}

struct Closer {
    batch: Arc<Batch>,
    /// Its stack, until it is reaped.
    _stack: Box<[MaybeUninit<u8>]>,
    /// The kernel writes 0 when it is done with this memory, and wakes whoever waits (futex(2)).
    running: Box<AtomicU32>,
    pid: c_int,
    since: u64,
    is_killed: bool,
}

/// Closes what was dropped since the last call, and looks after those that do it; never waits.
/// Answers when to call again. From the first call on, [`SharedFd`] relies on the next.
pub fn close_apart(now: u64) -> Option<u64> {
    CLOSERS.with_borrow_mut(|closers| {
        closers.are_on = true;
        closers.turn(now)
    })
}

/// The same, and waits until all is closed, if only for so many milliseconds: an address is wanted
/// again. Whether it is.
pub fn close_apart_within(milliseconds: u32) -> bool {
    CLOSERS.with_borrow_mut(|closers| {
        let now = closers.now;
        for waited in 0..=u64::from(milliseconds) {
            if !closers.are_on || closers.turn(now + waited * MILLISECOND).is_none() {
                return true;
            }
            match closers.at_work.iter().find(|one| !one.is_done()) {
                Some(one) => one.wait_a_millisecond(),
                None if closers.pending.is_empty() => return true,
                None => {}
            }
        }
        false
    })
}

impl Closers {
    fn turn(&mut self, now: u64) -> Option<u64> {
        self.now = now;
        let mut left = Vec::new();
        self.at_work.retain_mut(|one| {
            if one.is_reaped() {
                left.push(Arc::clone(&one.batch));
                return false;
            }
            if !one.is_killed && now.saturating_sub(one.since) >= PATIENCE {
                one.kill();
                left.push(Arc::clone(&one.batch));
            }
            true
        });
        left.retain(|batch| !batch.is_claimed());
        for batch in left {
            self.start(batch, now);
        }
        if !self.pending.is_empty() && self.at_work.len() < MOST_CLOSERS {
            let some = if BARE { self.pending.len() } else { 1 };
            let numbers = self.pending.drain(..some);
            let batch = Batch {
                numbers: numbers.collect(),
                next: AtomicUsize::new(0),
                parent: std::process::id() as i32,
            };
            self.start(Arc::new(batch), now);
        }
        let looks = self.at_work.iter().map(|one| one.look_again(now));
        let more = (!self.pending.is_empty()).then(|| now + PATIENCE);
        looks.chain(more).min()
    }

    fn start(&mut self, batch: Arc<Batch>, now: u64) {
        match start(&batch, now) {
            Ok(closer) => {
                self.has_failed = false;
                self.at_work.push(closer);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    log::warn!(
                        "cannot start a process to close descriptors, and try again: {error}"
                    );
                }
                // Nobody has claimed these, and nobody else can: they are ours again.
                let from = batch.next.swap(usize::MAX / 2, Ordering::AcqRel);
                self.pending.extend(batch.numbers.iter().skip(from));
            }
        }
    }
}

impl Closer {
    fn is_done(&self) -> bool {
        self.running.load(Ordering::Acquire) == 0
    }

    fn is_reaped(&self) -> bool {
        // SAFETY: the child is ours and has not been reaped; waitid fills the zeroed buffer. It gives
        // no signal when it ends, which is what __WALL is for (waitpid(2)).
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::__WALL;
            let answer = libc::waitid(libc::P_PID, self.pid as libc::id_t, &raw mut info, flags);
            answer == -1 || info.si_pid() == self.pid
        }
    }

    fn kill(&mut self) {
        self.is_killed = true;
        log::debug!("pid {} waits in close(2); killed", self.pid);
        // SAFETY: it has not been reaped, so that the number is its own.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
        }
    }

    fn look_again(&self, now: u64) -> u64 {
        let waited = now.saturating_sub(self.since).max(MILLISECOND);
        now + waited.min(if self.is_killed { RARELY } else { PATIENCE })
    }

    fn wait_a_millisecond(&self) {
        let limit = libc::timespec {
            tv_sec: 0,
            tv_nsec: MILLISECOND as _,
        };
        let running = &raw const *self.running;
        // SAFETY: the word lives as long as `self`; futex(2) only compares it. One that has ended
        // meanwhile has made it 0.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                running,
                libc::FUTEX_WAIT,
                1,
                &raw const limit,
            );
        }
    }
}

fn start(batch: &Arc<Batch>, now: u64) -> io::Result<Closer> {
    let mut stack = Box::new_uninit_slice(STACK_SIZE);
    let top = stack.as_mut_ptr_range().end;
    let top = top.wrapping_sub(top as usize % 16).cast();
    let running = Box::new(AtomicU32::new(1));
    let memory = if BARE { libc::CLONE_VM } else { 0 };
    // No signal when it ends: it is none of the children that anybody else waits for.
    let flags = libc::CLONE_FILES | memory | libc::CLONE_CHILD_CLEARTID;
    // SAFETY: the sets are initialised before use. The child runs on a stack of its own, with all
    // signals blocked, and uses nothing but the batch: `Closer` keeps all three until it is reaped.
    let pid = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let pid = libc::clone(
            close_all,
            top,
            flags,
            Arc::as_ptr(batch).cast_mut().cast::<c_void>(),
            ptr::null_mut::<c_void>(),
            ptr::null_mut::<c_void>(),
            running.as_ptr(),
        );
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        if pid == -1 {
            return Err(error);
        }
        pid
    };
    Ok(Closer {
        batch: Arc::clone(batch),
        _stack: stack,
        running,
        pid,
        since: now,
        is_killed: false,
    })
}

/// The child: it makes bare system calls only, and allocates nothing.
extern "C" fn close_all(batch: *mut c_void) -> c_int {
    // SAFETY: the parent keeps the batch until this process is reaped; it is only read, but for a
    // number that is atomic. The calls take no pointers.
    unsafe {
        let batch = &*batch.cast::<Batch>();
        // One that waits would keep everything open that listend has, should that end.
        let option = libc::PR_SET_PDEATHSIG as usize;
        call(libc::SYS_prctl, option, libc::SIGKILL as usize, 0, 0);
        if call(libc::SYS_getppid, 0, 0, 0, 0) != batch.parent as isize {
            return 0;
        }
        loop {
            let claimed = batch.next.fetch_add(1, Ordering::AcqRel);
            let Some(number) = batch.numbers.get(claimed) else {
                return 0;
            };
            call(libc::SYS_close, *number as usize, 0, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// A connection whose last close(2) waits for an hour, and its other end.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[b'x'; 65_536]).is_ok() {}
        let linger = Some(Duration::from_secs(3600));
        socket2::SockRef::from(&ours).set_linger(linger).unwrap();
        (ours.into(), theirs)
    }

    fn is_open(number: RawFd) -> bool {
        // SAFETY: asks for flags only.
        unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
    }

    /// A number that no other test is given while this one looks whether it is open.
    fn high(fd: OwnedFd, number: RawFd) -> SharedFd {
        let high = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(number)).unwrap();
        super::super::take_descriptor(high).unwrap().into()
    }

    #[test]
    fn what_waits_does_so_elsewhere_and_the_rest_is_closed() {
        close_apart(0);
        let (bombs, _peers): (Vec<_>, Vec<_>) = (0..3).map(|_| lingering()).unzip();
        let mut numbers = Vec::new();
        for (index, bomb) in (0..).zip(bombs) {
            let bomb = high(bomb, 700 + index);
            numbers.push(bomb.as_raw_fd());
            drop(bomb);
        }
        let null = std::fs::File::open("/dev/null").unwrap();
        let last = high(null.into(), 720);
        numbers.push(last.as_raw_fd());
        drop(last);
        let start = Instant::now();
        assert!(close_apart(0).is_some());
        // A kill for each that waits, and none of that here: a busy machine has time enough.
        assert!(start.elapsed() < Duration::from_secs(30));
        while !close_apart_within(10) {}
        assert!(!numbers.iter().any(|number| is_open(*number)));
        let at_work = CLOSERS.with_borrow(|closers| closers.at_work.len());
        assert!(at_work <= 1, "{at_work} are at work");
    }

    #[test]
    fn before_anybody_comes_by_it_is_closed_as_any_other() {
        let fd: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let shared = high(fd, 740);
        let number = shared.as_raw_fd();
        drop(shared);
        assert!(!is_open(number));
    }
}
