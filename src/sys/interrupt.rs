//! System calls that may wait, cut short.
//!
//! accept(2) waits unless O_NONBLOCK is set, which belongs to all processes that have the listener: a worker can
//! clear it between our look and our call. There is no flag for one call, as MSG_DONTWAIT is for
//! recv(2). A signal ends every wait, though, and a timer that goes on sending one also ends a wait
//! that begins after the first.

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::unistd::gettid;
use std::cell::OnceCell;
use std::io;
use std::marker::PhantomData;
use std::ptr;
use std::rc::Rc;

/// The signal that interrupts a call. listend uses it for nothing else.
const SIGNAL: c_int = libc::SIGVTALRM;
/// The time that a call may wait, and the interval of further signals.
const AFTER: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};
const NEVER: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// While this is there, a system call of this thread that waits fails with EINTR after a millisecond.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Interrupted {
    timer: libc::timer_t,
    /// Keeps the timer in the thread whose calls it interrupts.
    _here: PhantomData<Rc<()>>,
}

thread_local! {
    static TIMER: OnceCell<Timer> = const { OnceCell::new() };
}

/// A timer of one thread (timer_create(2)); a child does not inherit it.
#[derive(Debug)]
struct Timer(libc::timer_t);

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: it was created, and is deleted once.
        let _deleted = unsafe { libc::timer_delete(self.0) };
    }
}

extern "C" fn do_nothing(_signal: c_int) {}

/// Makes the timer of this thread, if there is none. [`interrupt_soon`] would do so, but signal
/// handlers are to be there before anybody asks which there are.
///
/// # Errors
///
/// The errors of timer_create(2): EAGAIN if the user has too many signals pending.
pub fn prepare_to_interrupt() -> io::Result<()> {
    timer().map(|_timer| ())
}

/// Makes waiting calls of this thread fail from now on.
///
/// # Errors
///
/// As above.
pub fn interrupt_soon() -> io::Result<Interrupted> {
    let interrupted = Interrupted {
        timer: timer()?,
        _here: PhantomData,
    };
    set(interrupted.timer, AFTER)?;
    Ok(interrupted)
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        // It fails for no timer that exists.
        let _stopped = set(self.timer, NEVER);
    }
}

fn timer() -> io::Result<libc::timer_t> {
    TIMER.with(|known| match known.get() {
        Some(timer) => Ok(timer.0),
        None => {
            let timer = create()?;
            Ok(known.get_or_init(|| timer).0)
        }
    })
}

fn create() -> io::Result<Timer> {
    // SAFETY: all zeros are valid for these; the handler touches nothing. Without SA_RESTART, or the
    // call would go on waiting (signal(7)).
    let handled = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = do_nothing as extern "C" fn(c_int) as usize;
        libc::sigaction(SIGNAL, &action, ptr::null_mut())
    };
    Errno::result(handled)?;
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: as above; both pointers are valid for the call.
    let created = unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL;
        event.sigev_notify_thread_id = gettid().as_raw();
        libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer)
    };
    Errno::result(created)?;
    Ok(Timer(timer))
}

fn set(timer: libc::timer_t, time: libc::timespec) -> io::Result<()> {
    let wanted = libc::itimerspec {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the timer exists as long as its thread, and the pointer is valid for the call.
    let answer = unsafe { libc::timer_settime(timer, 0, &wanted, ptr::null_mut()) };
    Errno::result(answer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    #[test]
    fn a_call_that_would_wait_for_ever_ends() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..50 {
            let start = Instant::now();
            let interrupted = interrupt_soon().unwrap();
            let raw = socket2::SockRef::from(&listener);
            let error = raw.accept4(libc::SOCK_CLOEXEC).unwrap_err();
            drop(interrupted);
            assert_eq!(error.raw_os_error(), Some(libc::EINTR));
            // Far more than it takes, and far less than for ever.
            assert!(start.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn a_wait_that_begins_late_ends_as_well_and_later_ones_are_left_alone() {
        let interrupted = interrupt_soon().unwrap();
        // The first signals come before the wait.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(5) {
            std::hint::spin_loop();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let raw = socket2::SockRef::from(&listener);
        let error = raw.accept4(libc::SOCK_CLOEXEC).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINTR));
        drop(interrupted);
        // Not interrupted: it ends by its own timeout.
        raw.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let error = raw.accept4(libc::SOCK_CLOEXEC).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
    }
}
