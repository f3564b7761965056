//! What was found at a listen queue, passed on to the rule and put into words.
//!
//! There is one call for whoever has read a queue because somebody asked: [`QueueLog::look`].

use super::words::duration;
use crate::core::{Mono, QueueEvent, QueueNews, QueueSample, QueueTrouble, QueueWatch};
use crate::listener::{BoundSocket, Depth, Unit};
use crate::plan::{ListenerId, Plan};
use log::Level;

/// Remembers what was found, and logs what is worth it.
#[derive(Debug, Clone, Default)]
pub struct QueueLog {
    watch: QueueWatch,
}

impl QueueLog {
    /// One more look at a socket of a listener. `is_running` says whether an instance runs that takes
    /// this listener. Logs what is worth a line, and answers with it.
    pub fn look(
        &mut self,
        now: Mono,
        plan: &Plan,
        listener: ListenerId,
        socket: &BoundSocket,
        depth: &Depth,
        is_running: bool,
    ) -> Option<QueueEvent> {
        // No list of addresses is that long.
        let index = u32::try_from(socket.planned).unwrap_or(u32::MAX);
        let sample = sample(depth);
        let event = self
            .watch
            .sample(now, listener, index, sample, is_running)?;
        let (level, words) = describe(&event, depth.unit, is_running);
        let name = &plan.listener(listener).name;
        log::log!(level, "listener {name} ({}): {words}", socket.address);
        Some(event)
    }

    /// Forgets what was found at a listener: it has other sockets now.
    pub fn forget(&mut self, listener: ListenerId) {
        self.watch.forget(listener);
    }

    /// The worst that the last looks at the listener's sockets found.
    pub fn worst(&self, listener: ListenerId) -> Option<QueueTrouble> {
        self.watch.worst(listener)
    }
}

fn sample(depth: &Depth) -> QueueSample {
    QueueSample {
        depth: depth.depth,
        limit: depth.limit,
        drops: depth.drops,
        is_full: depth.is_full(),
    }
}

fn describe(event: &QueueEvent, unit: Unit, is_running: bool) -> (Level, String) {
    let waits = waits(event.sample, unit);
    let words = match event.news {
        QueueNews::Full { time, dropped } => {
            let since = match time.is_zero() {
                true => String::new(),
                false => format!(" for {}", duration(time)),
            };
            let dropped = dropped_words(dropped);
            let who = match is_running {
                true => "the worker does not keep up",
                false => "no instance runs to empty it",
            };
            format!("the queue is full{since}: {waits}{dropped}; {who}, and nothing more gets in")
        }
        QueueNews::Dropping { dropped, time } => {
            let time = duration(time);
            format!("{dropped} dropped within {time}; there is room in the queue again: {waits}")
        }
        QueueNews::Growing { from, time } => {
            let time = duration(time);
            format!(
                "the queue has only grown for {time}, from {from}: {waits}; the worker runs and \
                 does not keep up"
            )
        }
        QueueNews::Recovered { time, dropped, .. } => {
            let (time, dropped) = (duration(time), dropped_words(dropped));
            return (
                Level::Info,
                format!("the queue is well again after {time}: {waits}{dropped}"),
            );
        }
    };
    (Level::Warn, words)
}

/// `clients waiting: 5, limit 4`.
fn waits(sample: QueueSample, unit: Unit) -> String {
    let word = match unit {
        Unit::Connections => "clients",
        Unit::Messages => "messages",
        Unit::Bytes => "bytes",
    };
    let depth = sample.depth;
    let depth = depth.map_or_else(|| "unknown".to_owned(), |depth| depth.to_string());
    let limit = sample.limit;
    let limit = limit.map_or_else(String::new, |limit| format!(", limit {limit}"));
    format!("{word} waiting: {depth}{limit}")
}

fn dropped_words(dropped: u64) -> String {
    match dropped {
        0 => String::new(),
        dropped => format!(", {dropped} dropped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn words(news: QueueNews, unit: Unit, is_running: bool) -> (Level, String) {
        let sample = QueueSample {
            depth: Some(5),
            limit: Some(4),
            drops: Some(99),
            is_full: true,
        };
        let event = QueueEvent {
            listener: ListenerId(0),
            socket: 0,
            sample,
            news,
        };
        describe(&event, unit, is_running)
    }

    #[test]
    fn trouble_is_told_with_its_numbers() {
        let full = |time, dropped| QueueNews::Full {
            time: Duration::from_secs(time),
            dropped,
        };
        let (level, text) = words(full(2, 7), Unit::Connections, true);
        assert_eq!(level, Level::Warn);
        assert_eq!(
            text,
            "the queue is full for 2 s: clients waiting: 5, limit 4, 7 dropped; the worker does \
             not keep up, and nothing more gets in"
        );
        let (_, text) = words(full(0, 0), Unit::Messages, false);
        assert_eq!(
            text,
            "the queue is full: messages waiting: 5, limit 4; no instance runs to empty it, and \
             nothing more gets in"
        );
        let time = Duration::from_secs(9);
        let (_, text) = words(QueueNews::Dropping { dropped: 3, time }, Unit::Bytes, true);
        assert_eq!(
            text,
            "3 dropped within 9 s; there is room in the queue again: bytes waiting: 5, limit 4"
        );
        let (_, text) = words(
            QueueNews::Growing { from: 1, time },
            Unit::Connections,
            true,
        );
        assert_eq!(
            text,
            "the queue has only grown for 9 s, from 1: clients waiting: 5, limit 4; the worker \
             runs and does not keep up"
        );
        let recovered = QueueNews::Recovered {
            from: QueueTrouble::Full,
            time,
            dropped: 8,
        };
        let (level, text) = words(recovered, Unit::Connections, true);
        assert_eq!(level, Level::Info);
        assert_eq!(
            text,
            "the queue is well again after 9 s: clients waiting: 5, limit 4, 8 dropped"
        );
    }

    #[test]
    fn a_depth_is_passed_on_as_it_is() {
        let depth = Depth {
            unit: Unit::Connections,
            depth: Some(5),
            limit: Some(4),
            drops: None,
        };
        let expected = QueueSample {
            depth: Some(5),
            limit: Some(4),
            drops: None,
            is_full: true,
        };
        assert_eq!(sample(&depth), expected);
    }
}
