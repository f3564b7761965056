//! Closing what others have had: a process of its own does it, because close(2) may wait.
//!
//! The last close(2) of a socket with SO_LINGER waits for the peer, that of a unix socket closes what
//! was sent to it and never taken (SCM_RIGHTS), and a file on FUSE or NFS asks its server at each close.
//! Every process that has had the open file decides about all of that.
//!
//! A TCP connection waits for nothing but SO_LINGER, and a signal ends that wait: one without the option is
//! closed here, under the timer of [`super::interrupt_soon`], since its worker may set the option meanwhile.
//!
//! Any other number is taken out of the table by a child that shares the table (CLONE_FILES), and whatever
//! waits then is the child. One that takes long is killed, which ends the wait for SO_LINGER, and what
//! it had not come to is left to another. No number is closed twice: each is claimed first.
//!
//! What came with a message may be a file whose server never answers: nothing ends such a close(2), and
//! a child that had a copy would wait at its exec as well. It is out of the table before the message is
//! done with ([`close_foreign`]), so that no child ever has a copy.

use super::arrivals::forget_arrivals;
use super::interrupt::interrupt_soon;
use super::launch::STACK_SIZE;
use super::raw::{self, BARE, call};
use super::sockopt;
use nix::libc::{self, c_int, c_void};
use socket2::SockRef;
use std::cell::RefCell;
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Times are in nanoseconds here, on the caller's clock.
const MILLISECOND: u64 = 1_000_000;
/// The time after which a closer is killed, in nanoseconds.
const PATIENCE: u64 = 100 * MILLISECOND;
/// The largest number of closers at a time, without those that were killed. More than one only while
/// one waits.
const MOST_CLOSERS: usize = 16;
/// The largest number of closers with those that were killed and do not end.
const MOST_LOST: usize = 64;
/// The time that a killed closer may take to end, before it counts as lost, in nanoseconds.
const LOST: u64 = 200 * MILLISECOND;
/// The number of checks, a millisecond apart, for descriptors to leave the table of a closer before it
/// is left to itself.
const MOST_LOOKS: u32 = 1000;
/// The interval of looks at a closer that was killed and does not end, in nanoseconds.
const RARELY: u64 = 1000 * MILLISECOND;

/// A descriptor of an open file that others have, or have had. Dropped, it is closed by a process of
/// its own once [`close_apart`] has been called, and before that as any other.
#[derive(Debug)]
pub struct SharedFd {
    fd: ManuallyDrop<OwnedFd>,
    what: What,
    /// What [`SharedFd::cookie`] has found out.
    cookie: OnceLock<Option<u64>>,
}

/// What decides how it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A process of its own closes it.
    Any,
    /// A connection that listend has accepted: closed at once, if nothing lingers.
    Tcp,
    /// Came with a message: it may be anything, and is closed by [`close_foreign`].
    Foreign,
}

impl From<OwnedFd> for SharedFd {
    fn from(fd: OwnedFd) -> SharedFd {
        SharedFd::closed_as(fd, What::Any)
    }
}

impl SharedFd {
    fn closed_as(fd: OwnedFd, what: What) -> SharedFd {
        SharedFd {
            fd: ManuallyDrop::new(fd),
            what,
            cookie: OnceLock::new(),
        }
    }

    /// The cookie of a socket (SO_COOKIE), which it keeps; asked for once. `None` for what is none.
    pub fn cookie(&self) -> Option<u64> {
        let ask = || sockopt::get_u64(self.as_fd(), libc::SOL_SOCKET, libc::SO_COOKIE).ok();
        *self.cookie.get_or_init(ask)
    }

    /// A descriptor that came with a message.
    pub(super) fn foreign(fd: OwnedFd) -> SharedFd {
        SharedFd::closed_as(fd, What::Foreign)
    }

    /// A TCP connection that listend itself has accepted. Dropped, it is closed at once, unless its
    /// process has set SO_LINGER.
    pub fn tcp_connection(fd: OwnedFd) -> SharedFd {
        SharedFd::closed_as(fd, What::Tcp)
    }

    /// Converts into a descriptor that is closed like any other.
    pub fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        forget_arrivals(this.fd.as_raw_fd());
        // SAFETY: `this` is never dropped, and nothing uses it after this.
        unsafe { ManuallyDrop::take(&mut this.fd) }
    }
}

impl Deref for SharedFd {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.fd
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for SharedFd {
    fn drop(&mut self) {
        forget_arrivals(self.fd.as_raw_fd());
        // SAFETY: nothing uses it after this.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        CLOSERS.with_borrow_mut(|closers| {
            if !closers.are_on {
                return;
            }
            let pending = match self.what {
                What::Tcp if !lingers(&fd) => return close_soon(fd),
                What::Tcp | What::Any => &mut closers.pending,
                What::Foreign => &mut closers.foreign,
            };
            pending.push(fd.into_raw_fd());
        });
    }
}

/// Whether SO_LINGER is set, by whichever process has the connection.
fn lingers(connection: &OwnedFd) -> bool {
    let linger = SockRef::from(connection).linger();
    !matches!(linger, Ok(None))
}

/// Closes a connection, and waits for a millisecond at most if its process has begun to linger just
/// now.
fn close_soon(connection: OwnedFd) {
    // Without a timer there is no limit, but then whoever set the option also ended in between.
    let limit = interrupt_soon();
    drop(connection);
    drop(limit);
}

thread_local! {
    /// Never dropped: when the thread ends, those that wait still use what is theirs.
    static CLOSERS: RefCell<ManuallyDrop<Closers>> = RefCell::default();
}

#[derive(Default)]
struct Closers {
    /// Whether [`close_apart`] has been called, so that descriptors may be queued.
    are_on: bool,
    /// The current time of the last call.
    now: u64,
    /// Descriptors to close. Those left when listend ends are closed by the kernel, which does not wait
    /// then.
    pending: Vec<RawFd>,
    /// The descriptors of the last message that are not kept.
    foreign: Vec<RawFd>,
    at_work: Vec<Closer>,
    /// The closers of descriptors that came with messages.
    at_foreign: Vec<Closer>,
    /// Whether no process could be created.
    has_failed: bool,
    /// Whether there may be closers of the program that was executed in this process before.
    has_former: bool,
}

/// Descriptors to be closed, each by the process that claims it.
struct Batch {
    numbers: Vec<RawFd>,
    next: AtomicUsize,
    parent: i32,
}

impl Batch {
    fn new(numbers: Vec<RawFd>) -> Arc<Batch> {
        Arc::new(Batch {
            numbers,
            next: AtomicUsize::new(0),
            parent: std::process::id() as i32,
        })
    }

    /// Takes the descriptors that no closer has claimed, so that none can from now on.
    fn take_back(&self) -> impl Iterator<Item = RawFd> {
        let from = self.next.swap(usize::MAX / 2, Ordering::AcqRel);
        self.numbers.iter().skip(from).copied()
    }

    fn is_claimed(&self) -> bool {
        self.next.load(Ordering::Acquire) >= self.numbers.len()
    }
}

struct Closer {
    batch: Arc<Batch>,
    /// The stack of the closer, until it is reaped.
    _stack: Box<[MaybeUninit<u8>]>,
    /// The kernel writes 0 when it is done with this memory, and wakes those that wait (futex(2)).
    running: Box<AtomicU32>,
    pid: c_int,
    since: u64,
    is_killed: bool,
}

/// Closes what was dropped since the last call, and looks after those that do it; never waits.
/// Answers when to call again. From the first call on, [`SharedFd`] relies on the next.
pub fn close_apart(now: u64) -> Option<u64> {
    CLOSERS.with_borrow_mut(|closers| {
        closers.has_former |= !std::mem::replace(&mut closers.are_on, true);
        closers.turn(now)
    })
}

/// Ends what closes descriptors, before another program is executed in this process: what is still open then is
/// closed by execve(2), and nobody would end a closer that waits, with copies of all that is handed over.
pub fn end_closers() {
    CLOSERS.with_borrow_mut(|closers| {
        let closers = &mut **closers;
        let all = closers.at_work.iter_mut().chain(&mut closers.at_foreign);
        all.filter(|one| !one.is_killed).for_each(Closer::kill);
    });
}

/// Whether something that was dropped is still open and about to be closed: an address is taken until then. What is
/// killed because its close(2) waits does not count.
pub fn is_closing() -> bool {
    CLOSERS.with_borrow(|closers| {
        let is_at_it = |one: &Closer| !one.is_killed && !one.is_done();
        !closers.pending.is_empty() || closers.at_work.iter().any(is_at_it)
    })
}

/// As [`close_apart`], and waits up to so many milliseconds until all is closed, because an address is
/// wanted again. Answers whether all is closed.
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

/// Closes what came with messages and was dropped since the last call, at once or after it was kept,
/// and comes back when it is out of the table: a child that had a copy could be the last that has it.
/// close(2) takes a number out before all else, so that this does not wait for what the close waits
/// for, but for processes to run.
pub fn close_foreign() {
    CLOSERS.with_borrow_mut(|closers| closers.close_foreign());
}

/// Whether a child is one that closes descriptors. It is reaped here, and by nobody else.
pub fn is_closer(pid: i32) -> bool {
    CLOSERS.with_borrow(|closers| {
        let mut all = closers.at_work.iter().chain(&closers.at_foreign);
        all.any(|one| one.pid == pid)
    })
}

/// Whether descriptors can be taken from messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is a place for a closer.
    Free,
    /// Every place is taken, and some will be free soon.
    Soon,
    /// Every place is taken by a closer that does not end.
    None,
}

/// Whether what comes with a message can be closed apart.
pub fn room_for_foreign(now: u64) -> Room {
    CLOSERS.with_borrow_mut(|closers| {
        let at_foreign = &mut closers.at_foreign;
        if at_foreign.len() < MOST_LOST {
            return Room::Free;
        }
        at_foreign.retain(|one| !one.is_reaped());
        let is_lost = |one: &&Closer| now.saturating_sub(one.since) >= LOST;
        match at_foreign.len() < MOST_LOST {
            true => Room::Free,
            false if at_foreign.iter().filter(is_lost).count() < MOST_LOST => Room::Soon,
            false => Room::None,
        }
    })
}

impl Closers {
    fn turn(&mut self, now: u64) -> Option<u64> {
        self.now = now;
        self.has_former = self.has_former && reap_former();
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
        self.at_foreign.retain(|one| !one.is_reaped());
        for batch in left {
            self.pending.extend(batch.take_back());
        }
        self.close_foreign();
        let alive = self.at_work.iter().filter(|one| !one.is_killed).count();
        if !self.pending.is_empty() && alive < MOST_CLOSERS && self.at_work.len() < MOST_LOST {
            let some = if BARE { self.pending.len() } else { 1 };
            let batch = Batch::new(self.pending.drain(..some).collect());
            match self.start(&batch) {
                Some(closer) => self.at_work.push(closer),
                None => self.pending.extend(batch.take_back()),
            }
        }
        let closers = self.at_work.iter().chain(&self.at_foreign);
        let looks = closers.map(|one| one.look_again(now));
        let more = !self.pending.is_empty() || !self.foreign.is_empty();
        let more = more.then(|| now + PATIENCE);
        let former = self.has_former.then(|| now + RARELY);
        looks.chain(more).chain(former).min()
    }

    fn start(&mut self, batch: &Arc<Batch>) -> Option<Closer> {
        match start(batch, self.now) {
            Ok(closer) => {
                self.has_failed = false;
                Some(closer)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    log::warn!("cannot start a process to close descriptors, retrying: {error}");
                }
                None
            }
        }
    }

    fn close_foreign(&mut self) {
        let numbers = std::mem::take(&mut self.foreign);
        let together = if BARE { numbers.len().max(1) } else { 1 };
        for numbers in numbers.chunks(together) {
            self.take_out(&Batch::new(numbers.to_vec()));
        }
    }

    /// Four times as many processes each time: all at once may be too many for what is closed at once,
    /// as nearly everything is.
    fn take_out(&mut self, batch: &Arc<Batch>) {
        let before = self.at_foreign.len();
        let mut wanted = 1;
        for _ in 0..MOST_LOOKS {
            let missing = wanted - (self.at_foreign.len() - before).min(wanted);
            for _ in 0..missing {
                if batch.is_claimed() {
                    break;
                }
                match self.start(batch) {
                    Some(closer) => self.at_foreign.push(closer),
                    None => {
                        self.foreign.extend(batch.take_back());
                        break;
                    }
                }
            }
            // Nothing in here opens one meanwhile, so that no number is another's already.
            let is_left = |number: &&RawFd| is_open(**number) && !self.foreign.contains(number);
            if !batch.numbers.iter().any(|number| is_left(&number)) {
                break;
            }
            let mut mine = self.at_foreign.iter().skip(before);
            match mine.rfind(|one| !one.is_done()) {
                Some(one) => one.wait_a_millisecond(),
                None if batch.is_claimed() => break,
                None => {}
            }
            wanted = (wanted * 4).min(batch.numbers.len());
        }
        // It ends what waits for SO_LINGER; of what ended by itself nothing is left to be killed.
        for one in self.at_foreign.iter_mut().skip(before) {
            if !one.is_done() {
                one.kill();
            }
        }
        self.at_foreign
            .retain(|one| !one.is_done() || !one.is_reaped());
    }
}

/// Reaps closers that have ended, whoever has started them: the only children without a signal at their end (__WCLONE,
/// waitpid(2)). Whether there are others.
fn reap_former() -> bool {
    loop {
        // SAFETY: waitid fills the zeroed buffer. A closer that is known here counts as reaped when it is gone.
        let (answer, pid) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::__WCLONE;
            let answer = libc::waitid(libc::P_ALL, 0, &raw mut info, flags);
            (answer, info.si_pid())
        };
        match (answer, pid) {
            (0, 0) => return true,
            (0, _) => {}
            _ => return false,
        }
    }
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: asks for flags only.
    unsafe { libc::fcntl(number, libc::F_GETFD) != -1 }
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
        let work = Arc::as_ptr(batch).cast_mut().cast();
        let (word, no_pidfd) = (running.as_ptr(), ptr::null_mut());
        let answer = raw::clone(flags, top, no_pidfd, word, close_all, work);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        match answer {
            0.. => answer as c_int,
            _ => return Err(io::Error::from_raw_os_error(-answer as i32)),
        }
    };
    if !BARE {
        // It has a copy, and what it claims there is not seen here.
        batch.next.store(batch.numbers.len(), Ordering::Release);
    }
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
    use std::os::unix::net::UnixStream;
    use std::path::Path;
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
        // One that was killed is reaped by one of the next calls.
        let at_work = || CLOSERS.with_borrow(|closers| closers.at_work.len());
        while at_work() > 1 {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "{} are at work",
                at_work()
            );
            close_apart_within(10);
        }
    }

    #[test]
    fn what_another_program_in_this_process_has_started_is_reaped() {
        close_apart(0);
        drop(high(UnixStream::pair().unwrap().0.into(), 770));
        close_apart(0);
        let pids: Vec<c_int> = CLOSERS.with_borrow_mut(|closers| {
            for one in &closers.at_work {
                while !one.is_done() {
                    one.wait_a_millisecond();
                }
            }
            // As if this program were executed now.
            closers.are_on = false;
            closers.at_work.drain(..).map(|one| one.pid).collect()
        });
        assert!(!pids.is_empty());
        close_apart(0);
        for pid in pids {
            assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid}");
        }
    }

    #[test]
    fn a_connection_is_closed_at_once_unless_it_lingers() {
        close_apart(0);
        let (lingering, _peer) = lingering();
        let plain = lingering.try_clone().unwrap();
        let waits = SharedFd::tcp_connection(high(lingering, 760).into_owned());
        let number = waits.as_raw_fd();
        drop(waits);
        assert!(is_open(number), "left to a process of its own");

        socket2::SockRef::from(&plain).set_linger(None).unwrap();
        while !close_apart_within(10) {}
        let quick = SharedFd::tcp_connection(high(plain, 761).into_owned());
        let number = quick.as_raw_fd();
        drop(quick);
        assert!(!is_open(number));
    }

    #[test]
    fn a_process_that_begins_to_linger_delays_nobody() {
        let start = Instant::now();
        let (lingering, _peer) = lingering();
        close_soon(lingering);
        // An hour without the timer; a busy machine has time enough.
        assert!(start.elapsed() < Duration::from_secs(30));
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
