//! A queue in trouble, in the log: one line when a look finds it full or newly dropping, and not more
//! than one a minute for each socket.

use crate::core::Mono;
use crate::listener::{BoundSocket, Depth, Unit};
use crate::plan::{ListenerPlan, SocketKey};
use std::collections::BTreeMap;
use std::time::Duration;

/// The least time between two lines about one socket; so long it counts as dropping, too.
const MINUTE: Duration = Duration::from_secs(60);

/// What the looks at queues have found.
#[derive(Debug, Default)]
pub(super) struct QueueLog {
    seen: BTreeMap<SocketKey, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The kernel's count of what it dropped, at the last look.
    drops: u64,
    /// When that had grown.
    dropped: Option<Mono>,
    /// When a line was written.
    told: Option<Mono>,
}

impl QueueLog {
    /// One more look at a socket of a listener, which may be worth a line.
    pub(super) fn look(
        &mut self,
        now: Mono,
        listener: &str,
        socket: &BoundSocket,
        depth: &Depth,
        is_abandoned: bool,
    ) {
        if let Some(words) = self.news(now, socket.key, depth, is_abandoned) {
            log::warn!("listener {listener} ({}): {words}", socket.address);
        }
    }

    /// `is_abandoned` is a listener that nobody takes clients of any more.
    fn news(
        &mut self,
        now: Mono,
        key: SocketKey,
        depth: &Depth,
        is_abandoned: bool,
    ) -> Option<String> {
        let drops = depth.drops.unwrap_or(0);
        let is_unserved = is_abandoned && depth.has_clients();
        if drops == 0 && !depth.is_full() && !is_unserved {
            return None;
        }
        let seen = self.seen.entry(key).or_default();
        let dropped = drops.saturating_sub(seen.drops);
        seen.drops = drops;
        if dropped > 0 {
            seen.dropped = Some(now);
        }
        let is_recent = seen.told.is_some_and(|at| now.since(at) < MINUTE);
        if is_recent || (dropped == 0 && !depth.is_full() && !is_unserved) {
            return None;
        }
        seen.told = Some(now);
        let what = match depth.is_full() {
            _ if is_unserved => "no worker is running that accepts its clients",
            true => "the queue is full",
            false => "the kernel dropped what clients sent",
        };
        let lost = match dropped {
            0 => String::new(),
            dropped => format!(", {dropped} dropped"),
        };
        Some(format!("{what}: {}{lost}", waiting(depth)))
    }

    /// Whether a look has found within the last minute that something was dropped at a listener.
    pub(super) fn is_dropping(&self, now: Mono, listener: &ListenerPlan) -> bool {
        let mut dropped = listener
            .keys()
            .filter_map(|key| self.seen.get(&key)?.dropped);
        dropped.any(|at| now.since(at) < MINUTE)
    }

    /// A socket is closed.
    pub(super) fn forget(&mut self, key: SocketKey) {
        self.seen.remove(&key);
    }
}

/// `clients waiting: 5, limit 4`.
fn waiting(depth: &Depth) -> String {
    let what = match depth.unit {
        Unit::Connections => "clients",
        Unit::Messages => "messages",
        Unit::Bytes => "bytes",
    };
    let number = |number: Option<u64>| number.map_or("unknown".to_owned(), |one| one.to_string());
    let limit = depth.limit.map(|limit| format!(", limit {limit}"));
    format!(
        "{what} waiting: {}{}",
        number(depth.depth),
        limit.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_in_trouble_is_told_once_a_minute() {
        let mut log = QueueLog::default();
        let mut look = |second: u64, waits, drops| {
            let depth = Depth {
                unit: Unit::Connections,
                depth: Some(waits),
                limit: Some(4),
                drops: Some(drops),
            };
            let now = Mono(second * 1_000_000_000);
            let words = log.news(now, SocketKey(0), &depth, second >= 200);
            let dropped = log.seen.get(&SocketKey(0)).and_then(|seen| seen.dropped);
            (words, dropped.is_some_and(|at| now.since(at) < MINUTE))
        };
        let told = |words: &str| Some(words.to_owned());
        assert_eq!(look(0, 4, 0), (None, false));
        let full = told("the queue is full: clients waiting: 5, limit 4");
        assert_eq!(look(1, 5, 0), (full, false));
        assert_eq!(look(60, 5, 7), (None, true));
        let full = told("the queue is full: clients waiting: 5, limit 4, 2 dropped");
        assert_eq!(look(61, 5, 9), (full, true));
        assert_eq!(look(120, 0, 9), (None, true));
        assert_eq!(look(121, 0, 9), (None, false));
        let lost =
            told("the kernel dropped what clients sent: clients waiting: 0, limit 4, 1 dropped");
        assert_eq!(look(122, 0, 10), (lost, true));
        assert_eq!(look(200, 0, 10), (None, false));
        let unserved = told(
            "no worker is running that accepts its clients: clients waiting: 1, \
                             limit 4",
        );
        assert_eq!(look(201, 1, 10), (unserved, false));
        assert_eq!(look(202, 1, 10), (None, false));
    }
}
