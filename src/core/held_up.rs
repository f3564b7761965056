//! What is done late because the loop was held up: by a stop of the process (SIGSTOP, a debugger), by a machine
//! that swaps, or by a log on a file system that does not answer.
//!
//! Deadlines of workers have passed meanwhile, although what would have kept them may only wait to be read, or
//! to be sent, since a full socket makes its senders wait (unix(7)). So it is read first, in as many turns as
//! it takes. Where the first deadline had only just passed ([`LATE`]), or passes only then, nothing shows that it
//! was so.

use super::time::Mono;
use std::time::Duration;

/// A deadline that is met this late has been held up.
const LATE: Duration = Duration::from_millis(50);
/// How long others have, at most, to tell what they could not. Otherwise it is as long as the loop was held up.
const MOST: Duration = Duration::from_secs(1);

/// Until when nothing is done that is due; it has passed unless the loop was held up just before.
#[derive(Debug, Clone, Default)]
pub(super) struct HeldUp(Mono);

impl HeldUp {
    /// To be told of the first deadline before anything that is heard moves it. Each is put off once, however late
    /// it is then.
    pub(super) fn look(&mut self, first: Mono, now: Mono) {
        let late = now.since(first);
        if first > self.0 && late > LATE {
            self.0 = now + late.min(MOST);
        }
    }

    /// When that is to be done which has its time at `at`.
    pub(super) fn put_off(&self, at: Mono) -> Mono {
        at.max(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Mono {
        Mono(milliseconds * 1_000_000)
    }

    #[test]
    fn what_is_late_waits_as_long_again_and_once() {
        let mut held_up = HeldUp::default();
        for (now, until) in [
            (999, 1000),
            (1050, 1000),
            (1300, 1600),
            (1599, 1600),
            (9000, 1600),
        ] {
            held_up.look(at(1000), at(now));
            assert_eq!(held_up.put_off(at(1000)), at(until), "at {now}");
        }
    }

    #[test]
    fn at_most_a_second() {
        let mut held_up = HeldUp::default();
        held_up.look(at(1000), at(60_000));
        assert_eq!(held_up.put_off(at(1000)), at(61_000));
    }

    #[test]
    fn what_comes_later_is_another_matter() {
        let mut held_up = HeldUp::default();
        held_up.look(at(1000), at(1300));
        assert_eq!(held_up.put_off(at(1700)), at(1700));
        held_up.look(at(1700), at(1800));
        assert_eq!(held_up.put_off(at(1700)), at(1900));
    }
}
