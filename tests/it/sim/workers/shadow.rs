//! The rules of restarting, told a second time and independently.

use crate::sim::random::SECOND;
use listend::config::{Restart, RestartPolicy};
use listend::core::{ExitStatus, Mono};
use listend::stage::LaunchFailure;

/// The rules, told a second time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shadow {
    crashes: Vec<Mono>,
    in_a_row: u32,
    /// What the instance must be doing after its process ended.
    pub(crate) expected: Option<Expected>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Expected {
    /// A restart that is jittered.
    Backoff {
        from: Mono,
        to: Mono,
    },
    Failed,
    Stopped,
}

impl Shadow {
    /// Works out what must become of an instance whose process ended, having run for `uptime`
    /// nanoseconds if it got to its program.
    pub(crate) fn ended(
        &mut self,
        now: Mono,
        restart: &Restart,
        end: Result<ExitStatus, LaunchFailure>,
        uptime: u64,
    ) {
        let (again, crash) = match (restart.policy, &end) {
            (RestartPolicy::Never, Ok(_)) => (false, false),
            (_, Err(_)) => (true, true),
            (policy, Ok(ExitStatus::Code(code))) => {
                (policy == RestartPolicy::Always || *code != 0, true)
            }
            (_, Ok(ExitStatus::Unknown)) => (true, true),
            (policy, Ok(ExitStatus::Signal { number, .. })) => (
                policy == RestartPolicy::Always || ![1, 2, 13, 15].contains(number),
                [4, 5, 6, 7, 8, 11, 24, 25, 31].contains(number),
            ),
        };
        if !again {
            self.expected = Some(Expected::Stopped);
            return;
        }
        // EAGAIN, ENOMEM, ENFILE, EMFILE: the daemon's, which lets only the delay grow.
        let is_short = end
            .as_ref()
            .is_err_and(|failure| [11, 12, 23, 24].contains(&failure.errno));
        if restart.policy == RestartPolicy::Never && !is_short {
            self.expected = Some(Expected::Failed);
            return;
        }
        let well = (10 * SECOND).min(restart.backoff_max.as_nanos() as u64);
        if end.is_ok() && uptime >= well {
            self.in_a_row = 0;
        }
        let min = restart.backoff_min.as_nanos();
        let mut delay = min;
        let mut too_many = false;
        if crash {
            if !is_short {
                self.crashes.push(now);
            }
            too_many = !is_short
                && restart.limit.is_some_and(|limit| {
                    let interval = limit.interval.as_nanos() as u64;
                    let inside = |at: &&Mono| now.0 - at.0 <= interval;
                    self.crashes.iter().rev().take_while(inside).count() > limit.count as usize
                });
            for _ in 0..self.in_a_row {
                delay = (delay * 2).min(restart.backoff_max.as_nanos().max(min));
            }
            self.in_a_row += 1;
        }
        self.expected = Some(if too_many {
            Expected::Failed
        } else {
            // Up to a quarter is taken off, but never below the minimum: never off the first.
            let delay = delay as u64;
            let least = if crash { delay - delay / 4 } else { delay };
            Expected::Backoff {
                from: Mono(now.0 + least.max(min as u64)),
                to: Mono(now.0 + delay),
            }
        });
    }
}
