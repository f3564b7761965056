//! How often something happened in the last so many seconds.

use super::time::Mono;
use crate::config::Rate;
use std::collections::VecDeque;

/// The moments that still count towards a limit, oldest first. Never holds more than the limit.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    recent: VecDeque<Mono>,
}

impl Window {
    /// Whether one more is too many, `under_way` of them not being counted yet; `Some` says from
    /// when on it is not.
    pub(super) fn full(&mut self, now: Mono, limit: Rate, under_way: u32) -> Option<Mono> {
        while let Some(oldest) = self.recent.front()
            && now.since(*oldest) >= limit.interval
        {
            self.recent.pop_front();
        }
        let counted = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if counted.saturating_add(under_way) < limit.count {
            return None;
        }
        // With none counted and all under way, their news comes at once.
        let oldest = self.recent.front().copied().unwrap_or(now);
        Some(oldest + limit.interval)
    }

    /// One more. Without a limit nobody asks, and nothing would ever be forgotten.
    pub(super) fn count(&mut self, now: Mono, limit: Option<Rate>) {
        if limit.is_some() {
            self.recent.push_back(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_window_slides() {
        let limit = Rate {
            count: 2,
            interval: Duration::from_secs(10),
        };
        let second = |n: u64| Mono(n * 1_000_000_000);
        let mut window = Window::default();
        assert_eq!(window.full(second(1), limit, 0), None);
        window.count(second(1), Some(limit));
        assert_eq!(window.full(second(4), limit, 0), None);
        assert_eq!(window.full(second(4), limit, 1), Some(second(11)));
        window.count(second(4), Some(limit));
        assert_eq!(window.full(second(5), limit, 0), Some(second(11)));
        assert_eq!(window.full(second(11), limit, 0), None);
        window.count(second(11), Some(limit));
        assert_eq!(window.full(second(11), limit, 0), Some(second(14)));
    }

    // Connections that nobody limits were remembered for ever, each with its time.
    #[test]
    fn without_a_limit_nothing_is_remembered() {
        let mut window = Window::default();
        window.count(Mono(1), None);
        assert!(window.recent.is_empty());
    }
}
