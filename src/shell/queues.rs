//! A queue in trouble, in the log: one line when a look finds it full, newly dropping or not served, and
//! not more than one a minute for each socket.
//!
//! A look comes with a status or a scrape, and once by itself: the first client after the start of a
//! worker is looked for again ten seconds later, so that a worker that never accepts does not go unseen.

mod look;

use crate::core::Mono;
use crate::listener::{self, BoundSocket, Depth, Unit, Waiters};
use crate::plan::{ListenerPlan, SocketKey};
use std::collections::BTreeMap;
use std::time::Duration;

/// The least time between two lines about one socket; so long it counts as dropping, too.
const MINUTE: Duration = Duration::from_secs(60);

/// A queue is not served when the same clients have waited for so long.
const UNSERVED_AFTER: Duration = Duration::from_secs(10);

/// What the looks at queues have found.
#[derive(Debug, Default)]
pub(super) struct QueueLog {
    seen: BTreeMap<SocketKey, Seen>,
    /// Who waits at a socket, and since when none of them was accepted.
    waiting: BTreeMap<SocketKey, (Mono, Waiters)>,
    /// When a socket is looked at although nobody asks.
    due: BTreeMap<SocketKey, Mono>,
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

/// Who is there to accept the clients of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takers {
    /// A worker runs that has it.
    Run,
    /// None does at the moment.
    Wait,
    /// All have ended for good.
    Ended,
}

impl QueueLog {
    /// One more look at a socket of a listener, which may be worth a line. Whether clients wait that
    /// nobody accepts.
    pub(super) fn look(
        &mut self,
        now: Mono,
        listener: &str,
        socket: &BoundSocket,
        depth: &Depth,
        takers: Takers,
    ) -> bool {
        let waited = self.waited(now, socket, depth);
        let unserved = match takers {
            Takers::Ended if depth.has_clients() => Some(takers),
            _ if waited >= UNSERVED_AFTER => Some(takers),
            _ => None,
        };
        if let Some(words) = self.news(now, socket.key, depth, unserved) {
            log::warn!("listener {listener} ({}): {words}", socket.address);
        }
        unserved.is_some()
    }

    /// For how long none of those who wait was accepted.
    fn waited(&mut self, now: Mono, socket: &BoundSocket, depth: &Depth) -> Duration {
        if depth.unit != Unit::Connections || !depth.has_clients() {
            self.waiting.remove(&socket.key);
            return Duration::ZERO;
        }
        let here = listener::waiters(&[socket]);
        match self.waiting.get(&socket.key) {
            Some((since, before)) if here.none_was_taken(before) => now.since(*since),
            Some(_) | None => {
                self.waiting.insert(socket.key, (now, here));
                Duration::ZERO
            }
        }
    }

    fn news(
        &mut self,
        now: Mono,
        key: SocketKey,
        depth: &Depth,
        unserved: Option<Takers>,
    ) -> Option<String> {
        let drops = depth.drops.unwrap_or(0);
        if drops == 0 && !depth.is_full() && unserved.is_none() {
            return None;
        }
        let seen = self.seen.entry(key).or_default();
        let dropped = drops.saturating_sub(seen.drops);
        seen.drops = drops;
        if dropped > 0 {
            seen.dropped = Some(now);
        }
        let is_recent = seen.told.is_some_and(|at| now.since(at) < MINUTE);
        if is_recent || (dropped == 0 && !depth.is_full() && unserved.is_none()) {
            return None;
        }
        seen.told = Some(now);
        let what = match unserved {
            Some(Takers::Run) => {
                "the worker is running but has accepted none of its clients for 10 seconds"
            }
            Some(Takers::Wait) => "no instance has run for 10 seconds to accept its clients",
            Some(Takers::Ended) => "no worker is running that accepts its clients",
            None if depth.is_full() => "the queue is full",
            None => "the kernel dropped what clients sent",
        };
        let lost = match dropped {
            0 => String::new(),
            dropped => format!(", {dropped} dropped"),
        };
        Some(format!("{what}: {}{lost}", waiting(depth)))
    }

    /// When a socket is to be looked at although nobody asks.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.due.values().copied().min()
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
        self.waiting.remove(&key);
        self.due.remove(&key);
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
            let unserved = (second >= 200 && waits > 0).then_some(Takers::Ended);
            let words = log.news(now, SocketKey(0), &depth, unserved);
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
