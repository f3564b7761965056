//! A loop that was held up: by a stop of the process (SIGSTOP, a debugger), by a machine that swaps, or by a log
//! on a file system that does not answer.
//!
//! Deadlines of workers have passed meanwhile, although what would have kept them may only wait to be read, or
//! to be sent, since a full socket makes its senders wait (unix(7)). So it is read first, in as many turns as
//! it takes.

use crate::core::Mono;
use std::time::Duration;

/// A deadline that is met this late has been held up.
const LATE: Duration = Duration::from_millis(50);
/// How long others have, at most, to tell what they could not. Otherwise it is as long as the loop was held up.
const MOST: Duration = Duration::from_secs(1);

/// Until when the deadlines that have passed are left alone.
#[derive(Debug, Default)]
pub(super) struct HeldUp(Option<Mono>);

impl HeldUp {
    /// Whether a deadline is to be acted on. To be asked in every turn.
    pub(super) fn is_due(&mut self, deadline: Option<Mono>, now: Mono) -> bool {
        let Some(deadline) = deadline.filter(|deadline| *deadline <= now) else {
            self.0 = None;
            return false;
        };
        match self.0 {
            Some(until) if now < until => return false,
            Some(_) => self.0 = None,
            None => {
                let late = now.since(deadline);
                if late > LATE {
                    self.0 = Some(now + late.min(MOST));
                    return false;
                }
            }
        }
        true
    }

    /// When to ask next.
    pub(super) fn put_off(&self, deadline: Option<Mono>) -> Option<Mono> {
        deadline.map(|deadline| self.0.map_or(deadline, |until| until.max(deadline)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Mono {
        Mono(milliseconds * 1_000_000)
    }

    #[test]
    fn a_deadline_that_was_met_late_waits_as_long_as_it_was_late() {
        let mut held_up = HeldUp::default();
        let deadline = Some(at(1000));
        assert!(!held_up.is_due(deadline, at(999)));
        assert!(held_up.is_due(deadline, at(1050)));
        assert!(!held_up.is_due(deadline, at(1300)));
        assert_eq!(held_up.put_off(deadline), Some(at(1600)));
        assert!(!held_up.is_due(deadline, at(1599)));
        assert!(held_up.is_due(deadline, at(1600)));
        assert_eq!(held_up.put_off(deadline), deadline);
    }

    #[test]
    fn at_most_a_second() {
        let mut held_up = HeldUp::default();
        assert!(!held_up.is_due(Some(at(1000)), at(60_000)));
        assert!(held_up.is_due(Some(at(1000)), at(61_000)));
    }

    #[test]
    fn what_has_been_told_meanwhile_counts() {
        let mut held_up = HeldUp::default();
        assert!(!held_up.is_due(Some(at(1000)), at(1300)));
        assert!(!held_up.is_due(Some(at(3000)), at(1400)));
        assert!(!held_up.is_due(None, at(1400)));
        assert_eq!(held_up.put_off(Some(at(3000))), Some(at(3000)));
        assert!(held_up.is_due(Some(at(3000)), at(3010)));
    }
}
