//! What follows from the end of the daemon. Pure.

use crate::sys::How;
use nix::libc::{SIGALRM, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::time::Duration;

/// The delay after the second failure; it doubles with each.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// From so many failures in a row on it does.
const LOOP: u32 = 9;
/// How long then passes between two attempts.
const LOOP_DELAY: Duration = Duration::from_secs(60);
/// A daemon that has run for so long has recovered: its failure is the first again.
const RECOVERED: Duration = Duration::from_secs(60);
/// One that was ready and that somebody kills does not fail. But whoever kills it each time, such as
/// the kernel for want of memory, gets a pause.
const SOON: Duration = Duration::from_millis(200);

/// Exit codes of listend(8) that another start would only repeat: 1 (no control socket), 64 (the
/// command line), 69 (an address), 77 (a permission) and 78 (the configuration).
const LASTING: [i32; 5] = [1, 64, 69, 77, 78];

/// The end of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The process has ended in this way.
    Of(How),
    /// There was no process to be had, or it could not execute its program.
    NotStarted,
}

/// The answer to the end of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// End, with this exit code.
    End(u8),
    /// Start it after this time.
    Start(Duration),
    /// The same, but there is little hope.
    Loop(Duration),
}

/// The memory of the daemons so far, and the rules.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// Somebody has asked for a stop.
    stops: bool,
    /// A daemon was ready once, or has left something: there is something to be kept.
    has_served: bool,
    /// The present one was ready.
    is_ready: bool,
    failures: u32,
}

impl Policy {
    pub(super) fn starts(&mut self) {
        self.is_ready = false;
    }

    pub(super) fn is_ready(&mut self) {
        self.is_ready = true;
        self.has_served = true;
    }

    pub(super) fn has_left_something(&mut self) {
        self.has_served = true;
    }

    pub(super) fn stops(&mut self) {
        self.stops = true;
    }

    /// How many failures in a row there were.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// A daemon has ended that had run for so long.
    pub(super) fn ended(&mut self, end: End, ran: Duration) -> Next {
        match end {
            End::Of(How::Exited(0)) => return Next::End(0),
            // One that has no handlers yet ends by the signal itself.
            End::Of(How::Killed(SIGTERM | SIGINT)) | End::NotStarted if self.stops => {
                return Next::End(0);
            }
            End::Of(how) if self.stops => return Next::End(exit_code(how)),
            End::Of(How::Exited(code)) if !self.has_served && LASTING.contains(&code) => {
                return Next::End(exit_code(How::Exited(code)));
            }
            End::Of(How::Killed(signal)) if self.is_ready && is_sent(signal) => {
                return Next::Start(if ran < SOON {
                    FIRST_DELAY
                } else {
                    Duration::ZERO
                });
            }
            End::Of(_) | End::NotStarted => {}
        }
        if ran >= RECOVERED {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Next::Start(Duration::ZERO),
            LOOP.. => Next::Loop(LOOP_DELAY),
            failures => {
                // Less than LOOP.
                Next::Start(FIRST_DELAY * (1 << (failures - 2)))
            }
        }
    }
}

/// As a shell reports it.
fn exit_code(how: How) -> u8 {
    match how {
        How::Exited(code) => code as u8,
        How::Killed(signal) | How::Dumped(signal) => 128_u8.saturating_add(signal as u8),
    }
}

/// Whether it is a signal that somebody sends, rather than one that the kernel raises because of what
/// the program did.
fn is_sent(signal: i32) -> bool {
    const SENT: [i32; 9] = [
        SIGALRM, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2,
    ];
    SENT.contains(&signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc::{SIGABRT, SIGSEGV};

    const ABORTED: End = End::Of(How::Dumped(SIGABRT));
    const KILLED: End = End::Of(How::Killed(SIGKILL));
    const MOMENT: Duration = Duration::from_millis(500);

    fn code(code: i32) -> End {
        End::Of(How::Exited(code))
    }

    fn ready() -> Policy {
        let mut policy = Policy::default();
        policy.is_ready();
        policy
    }

    #[test]
    fn a_crash_is_followed_by_a_start_after_growing_delays_and_then_each_minute() {
        let mut policy = ready();
        let wanted = [0, 100, 200, 400, 800, 1600, 3200, 6400];
        for milliseconds in wanted {
            let delay = Duration::from_millis(milliseconds);
            assert_eq!(policy.ended(ABORTED, MOMENT), Next::Start(delay));
            policy.starts();
        }
        for _ in 0..1000 {
            let minute = Next::Loop(Duration::from_secs(60));
            assert_eq!(policy.ended(code(69), MOMENT), minute);
            assert_eq!(policy.ended(End::NotStarted, Duration::ZERO), minute);
        }
        // One that has run well begins anew.
        assert_eq!(
            policy.ended(ABORTED, RECOVERED),
            Next::Start(Duration::ZERO)
        );
        assert_eq!(policy.ended(ABORTED, MOMENT), Next::Start(FIRST_DELAY));
    }

    #[test]
    fn what_another_start_would_repeat_ends_it_until_there_is_something_to_keep() {
        for lasting in LASTING {
            let mut policy = Policy::default();
            assert_eq!(
                policy.ended(code(lasting), MOMENT),
                Next::End(lasting as u8)
            );
            let mut policy = ready();
            policy.starts();
            assert_eq!(
                policy.ended(code(lasting), MOMENT),
                Next::Start(Duration::ZERO)
            );
            let mut policy = Policy::default();
            policy.has_left_something();
            assert_eq!(
                policy.ended(code(lasting), MOMENT),
                Next::Start(Duration::ZERO)
            );
        }
        // But not a crash, nor what may pass.
        for passing in [ABORTED, code(70), code(101), End::NotStarted] {
            let next = Policy::default().ended(passing, MOMENT);
            assert_eq!(next, Next::Start(Duration::ZERO), "{passing:?}");
        }
    }

    #[test]
    fn an_orderly_end_or_one_that_was_asked_for_is_the_end() {
        assert_eq!(ready().ended(code(0), MOMENT), Next::End(0));
        assert_eq!(Policy::default().ended(code(0), MOMENT), Next::End(0));
        let terminated = End::Of(How::Killed(SIGTERM));
        for (end, wanted) in [
            (code(3), 3),
            (KILLED, 137),
            (ABORTED, 134),
            (terminated, 0),
            (End::NotStarted, 0),
        ] {
            let mut policy = ready();
            policy.stops();
            assert_eq!(policy.ended(end, MOMENT), Next::End(wanted));
        }
    }

    #[test]
    fn killing_a_daemon_that_is_well_is_no_failure_of_it() {
        let mut policy = ready();
        for _ in 0..1000 {
            assert_eq!(policy.ended(KILLED, MOMENT), Next::Start(Duration::ZERO));
            policy.starts();
            policy.is_ready();
        }
        // At once again: there is a pause.
        assert_eq!(
            policy.ended(KILLED, Duration::ZERO),
            Next::Start(FIRST_DELAY)
        );
        policy.starts();
        // Before it was ready, and by its own fault, it is one.
        assert_eq!(policy.ended(KILLED, MOMENT), Next::Start(Duration::ZERO));
        policy.is_ready();
        let fault = End::Of(How::Killed(SIGSEGV));
        assert_eq!(policy.ended(fault, MOMENT), Next::Start(FIRST_DELAY));
    }
}
