//! What was found at a listen queue, passed on to the rule and put into words.
//!
//! There is one call for whoever has read a queue because somebody asked: [`QueueLog::look`].

use super::clients::Role;
use super::clock;
use super::turn::Shell;
use super::watch::SocketId;
use super::words::duration;
use crate::config::Endpoint;
use crate::core::{
    Mono, QueueEvent, QueueNews, QueueSample, QueueTrouble, QueueWatch, State, UNSERVED_AFTER,
};
use crate::listener::{self, BoundSocket, Depth, Unit, Waiters};
use crate::plan::{ListenerId, Plan, SocketAt};
use log::Level;
use std::collections::BTreeMap;
use std::time::Duration;

/// When a socket with trouble is looked at again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Remembers what was found, and logs what is worth it.
#[derive(Debug, Clone, Default)]
pub struct QueueLog {
    watch: QueueWatch,
    /// Who waits at a socket, and since when none of them was taken.
    waiting: BTreeMap<SocketId, (Mono, Waiters)>,
    /// When a socket is looked at although nobody asks.
    due: BTreeMap<SocketId, Mono>,
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
        let (_, index) = key(listener, socket);
        let mut sample = sample(depth);
        sample.unserved = self.unserved(now, (listener, index), socket, depth);
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
        self.waiting.retain(|(of, _), _| *of != listener);
        self.due.retain(|(of, _), _| *of != listener);
    }

    /// The worst of the listener's sockets: what the last looks found, and what was dropped lately.
    pub fn worst(&self, now: Mono, listener: ListenerId) -> Option<QueueTrouble> {
        self.watch.worst(now, listener)
    }

    /// When a socket is to be looked at although nobody asks.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.due.values().copied().min()
    }

    /// For how long none of those who wait was taken.
    fn unserved(
        &mut self,
        now: Mono,
        id: SocketId,
        socket: &BoundSocket,
        depth: &Depth,
    ) -> Option<Duration> {
        if depth.unit != Unit::Connections || depth.depth.is_none_or(|depth| depth == 0) {
            self.waiting.remove(&id);
            return None;
        }
        let here = listener::waiters(&[socket]);
        match self.waiting.get(&id) {
            Some((since, before)) if here.none_was_taken(before) => Some(now.since(*since)),
            Some(_) | None => {
                self.waiting.insert(id, (now, here));
                None
            }
        }
    }
}

impl Shell {
    /// A worker was started: what is dropped from now on is known, and the first client of each
    /// listener wakes the loop, once, to see whether it is taken. Later ones wake nobody.
    pub(super) fn expect_clients(&mut self, sockets: &[SocketAt]) {
        let now = clock::now();
        for at in sockets {
            let held = self.bound.as_ref().map(|bound| bound.sockets(at.listener));
            let mut held = (0..).zip(held.into_iter().flatten());
            let Some((index, held)) = held.find(|(_, held)| held.planned == at.socket) else {
                continue;
            };
            let id = &(at.listener, index);
            let is_inet = matches!(held.endpoint, Endpoint::Inet { .. });
            if !(held.endpoint.accepts() || is_inet) || self.watch.role(id.0) != Role::Held {
                continue;
            }
            let key = key(id.0, held);
            if is_inet && !self.control.queue_log.watch.knows(key.0, key.1) {
                self.look_at_queue(now, *id);
            }
            self.watch_clients(*id, true);
        }
    }

    /// The first client since the start of a worker.
    pub(super) fn first_client(&mut self, id: SocketId) {
        self.watch_clients(id, false);
        let now = clock::now();
        self.look_at_queue(now, id);
        self.control.queue_log.due.insert(id, now + UNSERVED_AFTER);
    }

    /// Looks at the sockets that are due, until their clients are taken and what was told is over.
    pub(super) fn look_at_queues(&mut self) {
        let now = clock::now();
        let due = &self.control.queue_log.due;
        let due = due.iter().filter(|(_, at)| **at <= now);
        let due: Vec<SocketId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let Some(key) = self.held(id).map(|held| key(id.0, held)) else {
                self.control.queue_log.due.remove(&id);
                continue;
            };
            let before = self.control.queue_log.waiting.get(&key);
            let before = before.map(|(since, _)| *since);
            let depth = self.look_at_queue(now, id);
            let log = &mut self.control.queue_log;
            let is_told = log.watch.is_told(key.0, key.1);
            let after = log.waiting.get(&key).map(|(since, _)| *since);
            let is_same = after.is_some() && before == after;
            let is_unread = depth.is_some_and(|depth| {
                depth.unit != Unit::Connections && depth.depth.is_some_and(|depth| depth > 0)
            });
            match is_told || is_same || is_unread {
                true => log.due.insert(id, now + AGAIN_AFTER),
                false => log.due.remove(&id),
            };
        }
    }

    fn look_at_queue(&mut self, now: Mono, id: SocketId) -> Option<Depth> {
        let sockets = self.bound.as_ref()?.sockets(id.0);
        let held = sockets.get(id.1 as usize)?;
        let depth = listener::depth(held)?;
        let mut instances = self.core.instances();
        let takers = self.core.takers(id.0);
        let is_running = instances.any(|(instance, state)| {
            takers.contains(&instance.worker) && matches!(state, State::Running { .. })
        });
        let log = &mut self.control.queue_log;
        log.look(now, &self.plan, id.0, held, &depth, is_running);
        Some(depth)
    }
}

/// By what it is remembered.
fn key(listener: ListenerId, socket: &BoundSocket) -> SocketId {
    // No list of addresses is that long.
    let index = u32::try_from(socket.planned).unwrap_or(u32::MAX);
    (listener, index)
}

fn sample(depth: &Depth) -> QueueSample {
    QueueSample {
        depth: depth.depth,
        limit: depth.limit,
        drops: depth.drops,
        is_full: depth.is_full(),
        unserved: None,
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
        QueueNews::Unserved { time } => {
            let time = duration(time);
            let who = match is_running {
                true => "the worker runs and has not accepted any of them",
                false => "no instance runs to accept them",
            };
            format!("the same clients have waited for {time}: {waits}; {who}")
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
            unserved: None,
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
            unserved: None,
        };
        assert_eq!(sample(&depth), expected);
    }
}
