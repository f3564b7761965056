//! Listen queues that are in trouble: full, dropping clients, or growing although somebody is there
//! to empty them.
//!
//! Nothing is looked at here, and nobody is asked to look: whoever has read a queue because somebody
//! wanted to know passes on what was found, and hears whether it is worth a line in the log. What
//! happens between two looks is known by the drops alone, which the kernel counts.
//!
//! One trouble is told once. It is over when nothing was wrong for [`CALM_FOR`], so that a queue that
//! is now full and now not does not fill the log.

use super::time::Mono;
use crate::plan::ListenerId;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a queue has to be full at every look to be told about, unless something was dropped.
pub const FULL_FOR: Duration = Duration::from_secs(1);
/// How long a queue has to grow, without ever becoming shorter, to be told about.
pub const GROWING_FOR: Duration = Duration::from_secs(5);
/// In how many looks at least.
pub const GROWING_LOOKS: u32 = 3;
/// How long nothing has to be wrong until a trouble is over.
pub const CALM_FOR: Duration = Duration::from_secs(10);
/// How long the clients that wait have to be the same, none of them taken, to be told about.
pub const UNSERVED_AFTER: Duration = Duration::from_secs(10);
/// How long a listener counts as dropping after something was found to be dropped.
pub const DROPPING_FOR: Duration = Duration::from_secs(60);
/// Two looks that are further apart do not say that a queue has only grown between them.
pub const LONGEST_GAP: Duration = Duration::from_secs(120);

/// What was found at one look at a socket's queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueSample {
    /// How much waits; `None` where that is not known.
    pub depth: Option<u64>,
    /// How much may wait; `None` where that is not known.
    pub limit: Option<u64>,
    /// How much was dropped since the socket is there; `None` where it is not counted.
    pub drops: Option<u64>,
    /// Whether there is no room for more.
    pub is_full: bool,
    /// For how long the same clients have been seen to wait, and none of them was taken; `None` where
    /// that is not so or not known.
    pub unserved: Option<Duration>,
}

/// What can be wrong with a queue. The later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QueueTrouble {
    /// It grows, and an instance that should empty it runs.
    Growing,
    /// It is not full now, and something was dropped since the look before.
    Dropping,
    /// It is full.
    Full,
    /// Clients wait, and nobody takes any of them.
    Unserved,
}

/// Something worth telling about the queue of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueEvent {
    /// Of which listener.
    pub listener: ListenerId,
    /// Which of its sockets.
    pub socket: u32,
    /// What was found.
    pub sample: QueueSample,
    /// What it means.
    pub news: QueueNews,
}

/// What has become of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueNews {
    /// It was full at every look.
    Full {
        /// For so long.
        time: Duration,
        /// Dropped in this time, and since the look before.
        dropped: u64,
    },
    /// It is not full, and something was dropped all the same.
    Dropping {
        /// So much.
        dropped: u64,
        /// Since the look before, so long ago.
        time: Duration,
    },
    /// It grew and never became shorter while an instance ran.
    Growing {
        /// What waited at first.
        from: u64,
        /// So long ago.
        time: Duration,
    },
    /// The clients that wait are the same as before.
    Unserved {
        /// For so long.
        time: Duration,
    },
    /// Nothing has been wrong for [`CALM_FOR`].
    Recovered {
        /// The worst of what was told.
        from: QueueTrouble,
        /// How long it was wrong.
        time: Duration,
        /// Dropped in all.
        dropped: u64,
    },
}

/// What is remembered of all sockets that were looked at.
#[derive(Debug, Clone, Default)]
pub struct QueueWatch {
    seen: BTreeMap<(ListenerId, u32), Seen>,
}

/// Of one socket.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Mono,
    depth: Option<u64>,
    drops: Option<u64>,
    /// All drops since the first look, however often the counter started again.
    lost: u64,
    /// Since it is full at every look.
    full: Option<Since>,
    rise: Option<Rise>,
    /// What the last look found.
    trouble: Option<QueueTrouble>,
    /// When something was found to be dropped.
    dropped_at: Option<Mono>,
    /// What was told.
    told: Option<Told>,
}

#[derive(Debug, Clone, Copy)]
struct Since {
    at: Mono,
    /// `lost` at the look before.
    lost: u64,
}

#[derive(Debug, Clone, Copy)]
struct Rise {
    since: Mono,
    from: u64,
    looks: u32,
    /// How often there was more than at the look before.
    steps: u32,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    worst: QueueTrouble,
    since: Since,
    /// Since when nothing is wrong.
    calm: Option<Mono>,
}

impl QueueWatch {
    /// One more look at the queue of a socket. `is_running` says whether an instance runs that should
    /// empty it. Answers with what is worth telling now.
    pub fn sample(
        &mut self,
        now: Mono,
        listener: ListenerId,
        socket: u32,
        sample: QueueSample,
        is_running: bool,
    ) -> Option<QueueEvent> {
        let first = Seen::first(now, sample);
        let seen = self.seen.entry((listener, socket)).or_insert(first);
        let news = seen.look(now, sample, is_running)?;
        Some(QueueEvent {
            listener,
            socket,
            sample,
            news,
        })
    }

    /// What the last look at a socket's queue found, told or not.
    pub fn trouble(&self, listener: ListenerId, socket: u32) -> Option<QueueTrouble> {
        self.seen.get(&(listener, socket))?.trouble
    }

    /// The worst of the listener's sockets: what the last looks found, and what was dropped lately.
    pub fn worst(&self, now: Mono, listener: ListenerId) -> Option<QueueTrouble> {
        let sockets = self.seen.range((listener, 0)..=(listener, u32::MAX));
        let found = sockets.filter_map(|(_, seen)| {
            let lately = |at: Mono| now.since(at) < DROPPING_FOR;
            let dropping = seen.dropped_at.is_some_and(lately);
            seen.trouble.max(dropping.then_some(QueueTrouble::Dropping))
        });
        found.max()
    }

    /// Whether a socket was looked at before.
    pub fn knows(&self, listener: ListenerId, socket: u32) -> bool {
        self.seen.contains_key(&(listener, socket))
    }

    /// Whether trouble was told that is not over.
    pub fn is_told(&self, listener: ListenerId, socket: u32) -> bool {
        let seen = self.seen.get(&(listener, socket));
        seen.is_some_and(|seen| seen.told.is_some())
    }

    /// Forgets a listener whose sockets are not there any more.
    pub fn forget(&mut self, listener: ListenerId) {
        self.seen.retain(|(of, _), _| *of != listener);
    }
}

impl Seen {
    fn first(now: Mono, sample: QueueSample) -> Seen {
        Seen {
            at: now,
            depth: None,
            drops: sample.drops,
            lost: 0,
            full: None,
            rise: None,
            trouble: None,
            dropped_at: None,
            told: None,
        }
    }

    fn look(&mut self, now: Mono, sample: QueueSample, is_running: bool) -> Option<QueueNews> {
        // Fewer than before are those of another socket, which nobody has looked at yet.
        let dropped = match (self.drops, sample.drops) {
            (Some(before), Some(drops)) => drops.checked_sub(before).unwrap_or(drops),
            (None, _) | (_, None) => 0,
        };
        let before = Since {
            at: self.at,
            lost: self.lost,
        };
        self.lost = self.lost.saturating_add(dropped);
        if dropped > 0 {
            self.dropped_at = Some(now);
        }
        self.full = match self.full {
            _ if !sample.is_full => None,
            None => Some(Since { at: now, ..before }),
            since => since,
        };
        self.rise = match sample.depth {
            Some(depth) if depth > 0 && is_running => Some(self.rise(now, depth)),
            Some(_) | None => None,
        };
        self.at = now;
        self.depth = sample.depth;
        self.drops = sample.drops.or(self.drops);

        let unserved = sample.unserved.filter(|time| *time >= UNSERVED_AFTER);
        let found = match unserved {
            Some(time) => Some((QueueTrouble::Unserved, QueueNews::Unserved { time })),
            None => self.find(now, dropped, before),
        };
        self.trouble = match found {
            Some((QueueTrouble::Unserved, _)) => Some(QueueTrouble::Unserved),
            _ if sample.is_full => Some(QueueTrouble::Full),
            found => found.map(|(trouble, _)| trouble),
        };
        match found {
            Some((trouble, news)) => {
                let nanoseconds = unserved.map_or(0, |time| time.as_nanos());
                let start = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
                let start = unserved.map(|_| Mono(now.0.saturating_sub(start)));
                self.tell(trouble, before, start).then_some(news)
            }
            None => self.recover(now),
        }
    }

    /// The queue as a run of looks at which it never became shorter.
    fn rise(&self, now: Mono, depth: u64) -> Rise {
        let goes_on = now.since(self.at) <= LONGEST_GAP;
        match (self.rise, self.depth) {
            (Some(rise), Some(before)) if goes_on && depth >= before => Rise {
                looks: rise.looks.saturating_add(1),
                steps: rise.steps.saturating_add(u32::from(depth > before)),
                ..rise
            },
            _ => Rise {
                since: now,
                from: depth,
                looks: 1,
                steps: 0,
            },
        }
    }

    /// The worst that can be told now.
    fn find(&self, now: Mono, dropped: u64, before: Since) -> Option<(QueueTrouble, QueueNews)> {
        if let Some(full) = self.full {
            let time = now.since(full.at);
            if dropped > 0 || time >= FULL_FOR {
                let dropped = self.lost.saturating_sub(full.lost);
                return Some((QueueTrouble::Full, QueueNews::Full { time, dropped }));
            }
        } else if dropped > 0 {
            let time = now.since(before.at);
            let news = QueueNews::Dropping { dropped, time };
            return Some((QueueTrouble::Dropping, news));
        }
        let rise = self.rise?;
        let time = now.since(rise.since);
        // One step is one client who came a moment ago.
        let grows = rise.looks >= GROWING_LOOKS && rise.steps >= 2 && time >= GROWING_FOR;
        let from = rise.from;
        grows.then_some((QueueTrouble::Growing, QueueNews::Growing { from, time }))
    }

    /// Whether this is worse than what was told.
    fn tell(&mut self, trouble: QueueTrouble, before: Since, unserved: Option<Mono>) -> bool {
        let Some(told) = &mut self.told else {
            let start = match (trouble, self.full, self.rise) {
                (QueueTrouble::Unserved, ..) => unserved.unwrap_or(before.at),
                (QueueTrouble::Full, Some(full), _) => full.at,
                (QueueTrouble::Growing, _, Some(rise)) => rise.since,
                // Between the look before and this one.
                _ => before.at,
            };
            let lost = self.full.map_or(before.lost, |full| full.lost);
            let since = Since { at: start, lost };
            self.told = Some(Told {
                worst: trouble,
                since,
                calm: None,
            });
            return true;
        };
        told.calm = None;
        let is_worse = trouble > told.worst;
        told.worst = told.worst.max(trouble);
        is_worse
    }

    fn recover(&mut self, now: Mono) -> Option<QueueNews> {
        let told = self.told.as_mut()?;
        if self.full.is_some() || self.depth.is_none() {
            told.calm = None;
            return None;
        }
        let calm = *told.calm.get_or_insert(now);
        if now.since(calm) < CALM_FOR {
            return None;
        }
        let news = QueueNews::Recovered {
            from: told.worst,
            time: calm.since(told.since.at),
            dropped: self.lost.saturating_sub(told.since.lost),
        };
        self.told = None;
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 4;

    /// One socket, looked at again and again.
    #[derive(Default)]
    struct One {
        watch: QueueWatch,
        is_idle: bool,
        unserved: Option<Duration>,
    }

    impl One {
        fn look(&mut self, seconds: u64, depth: u64, drops: u64) -> Option<QueueNews> {
            let sample = QueueSample {
                depth: Some(depth),
                limit: Some(LIMIT),
                drops: Some(drops),
                is_full: depth > LIMIT,
                unserved: self.unserved,
            };
            let (now, is_running) = (Mono(seconds * 1_000_000_000), !self.is_idle);
            let event = self
                .watch
                .sample(now, ListenerId(3), 1, sample, is_running)?;
            assert_eq!((event.listener, event.socket), (ListenerId(3), 1));
            assert_eq!(event.sample, sample);
            Some(event.news)
        }

        fn trouble(&self) -> Option<QueueTrouble> {
            self.watch.trouble(ListenerId(3), 1)
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_queue_that_stays_full_is_told_once() {
        let mut one = One::default();
        assert_eq!(one.look(1, 5, 0), None);
        assert_eq!(one.trouble(), Some(QueueTrouble::Full), "it is, now");
        let full = QueueNews::Full {
            time: seconds(2),
            dropped: 0,
        };
        assert_eq!(one.look(3, 5, 0), Some(full));
        for second in 4..400 {
            assert_eq!(one.look(second, 5, second), None);
        }
        // Now full and now not is the same trouble.
        assert_eq!(one.look(400, 4, 399), None);
        assert_eq!(one.trouble(), None);
        assert_eq!(one.look(405, 5, 399), None);
        assert_eq!(one.look(407, 5, 399), None);
        assert_eq!(one.look(408, 4, 399), None);
        assert_eq!(one.look(417, 0, 399), None);
        let recovered = QueueNews::Recovered {
            from: QueueTrouble::Full,
            time: seconds(407),
            dropped: 399,
        };
        assert_eq!(one.look(418, 0, 399), Some(recovered));
        assert_eq!(one.look(500, 0, 399), None);
    }

    #[test]
    fn a_queue_that_is_full_for_a_moment_is_not_told() {
        let mut one = One::default();
        for second in 1..100 {
            assert_eq!(one.look(second, second % 2 * 5, 0), None);
        }
    }

    #[test]
    fn drops_are_told_with_their_number() {
        let mut one = One::default();
        assert_eq!(one.look(1, 0, 50), None, "nobody knows since when");
        let dropping = QueueNews::Dropping {
            dropped: 7,
            time: seconds(9),
        };
        assert_eq!(one.look(10, 0, 57), Some(dropping));
        assert_eq!(one.trouble(), Some(QueueTrouble::Dropping));
        assert_eq!(one.look(11, 0, 58), None);
        // Worse is told again; what came before is in it.
        let full = QueueNews::Full {
            time: seconds(0),
            dropped: 2,
        };
        assert_eq!(one.look(12, 5, 60), Some(full));
        assert_eq!(one.look(13, 0, 60), None);
        let recovered = QueueNews::Recovered {
            from: QueueTrouble::Full,
            time: seconds(12),
            dropped: 10,
        };
        assert_eq!(one.look(30, 0, 60), Some(recovered));
    }

    // A repaired listener is another socket.
    #[test]
    fn the_drops_of_another_socket_begin_again() {
        let mut one = One::default();
        assert_eq!(one.look(1, 0, 50), None);
        assert_eq!(one.look(2, 0, 0), None);
        let dropping = QueueNews::Dropping {
            dropped: 3,
            time: seconds(1),
        };
        assert_eq!(one.look(3, 0, 3), Some(dropping));
    }

    #[test]
    fn clients_that_nobody_takes_are_told_whatever_else_is_wrong() {
        let mut one = One {
            unserved: Some(seconds(9)),
            ..One::default()
        };
        assert_eq!(one.look(10, 2, 0), None);
        one.unserved = Some(seconds(10));
        let news = QueueNews::Unserved { time: seconds(10) };
        assert_eq!(one.look(11, 2, 0), Some(news));
        one.unserved = Some(seconds(40));
        assert_eq!(one.look(41, 5, 7), None, "told once");
        assert_eq!(one.trouble(), Some(QueueTrouble::Unserved));
        one.unserved = None;
        assert_eq!(one.look(50, 0, 7), None);
        let recovered = QueueNews::Recovered {
            from: QueueTrouble::Unserved,
            time: seconds(49),
            dropped: 7,
        };
        assert_eq!(one.look(61, 0, 7), Some(recovered));
    }

    // Who looks once an hour is to see what was dropped, and who looks twice to see it twice.
    #[test]
    fn a_listener_counts_as_dropping_for_a_while() {
        let mut one = One::default();
        let worst = |one: &One, at: u64| one.watch.worst(Mono(at * 1_000_000_000), ListenerId(3));
        one.look(1, 0, 0);
        one.look(3600, 0, 5);
        one.look(3601, 0, 5);
        assert_eq!(one.trouble(), None);
        assert_eq!(worst(&one, 3601), Some(QueueTrouble::Dropping));
        assert_eq!(worst(&one, 3659), Some(QueueTrouble::Dropping));
        assert_eq!(worst(&one, 3660), None);
    }

    #[test]
    fn a_queue_that_grows_is_told_if_somebody_should_empty_it() {
        for is_idle in [false, true] {
            let mut one = One {
                is_idle,
                ..One::default()
            };
            let growing = QueueNews::Growing {
                from: 1,
                time: seconds(6),
            };
            assert_eq!(one.look(1, 1, 0), None);
            assert_eq!(one.look(3, 2, 0), None);
            assert_eq!(one.look(5, 3, 0), None);
            assert_eq!(one.look(7, 3, 0), (!is_idle).then_some(growing));
            let trouble = (!is_idle).then_some(QueueTrouble::Growing);
            assert_eq!(one.trouble(), trouble);
            assert_eq!(one.look(8, 4, 0), None);
            assert_eq!(one.look(9, 3, 0), None, "shorter");
            assert_eq!(one.trouble(), None);
        }
    }

    #[test]
    fn a_queue_that_does_not_grow_is_not_told() {
        for depths in [
            [1, 2, 1, 2, 3, 1],
            [0, 0, 0, 0, 0, 4],
            [4, 4, 4, 4, 4, 4],
            [4, 3, 2, 1, 0, 0],
            [1, 2, 0, 2, 3, 1],
        ] {
            let mut one = One::default();
            for (second, depth) in (0..).zip(depths) {
                assert_eq!(one.look(second * 2, depth, 0), None, "{depths:?}");
            }
        }
        let mut rare = One::default();
        for hour in 1..5 {
            assert_eq!(rare.look(hour * 3600, hour, 0), None);
        }
        let mut quick = One::default();
        for depth in 1..5 {
            assert_eq!(quick.look(depth, depth, 0), None);
        }
    }

    #[test]
    fn of_what_is_not_known_nothing_is_told() {
        let mut watch = QueueWatch::default();
        for second in 0..100 {
            let now = Mono(second * 1_000_000_000);
            let unknown = QueueSample::default();
            assert_eq!(watch.sample(now, ListenerId(0), 0, unknown, true), None);
        }
        assert_eq!(watch.worst(Mono(0), ListenerId(0)), None);
    }

    #[test]
    fn the_worst_is_that_of_the_listener() {
        let mut watch = QueueWatch::default();
        let full = QueueSample {
            depth: Some(5),
            is_full: true,
            ..QueueSample::default()
        };
        for listener in [1, 2, 3].map(ListenerId) {
            let calm = QueueSample::default();
            assert_eq!(watch.sample(Mono(1), listener, 0, calm, true), None);
        }
        assert_eq!(watch.sample(Mono(1), ListenerId(2), 9, full, true), None);
        let worst = [1, 2, 3].map(|listener| watch.worst(Mono(0), ListenerId(listener)));
        assert_eq!(worst, [None, Some(QueueTrouble::Full), None]);
        watch.forget(ListenerId(2));
        assert_eq!(watch.worst(Mono(0), ListenerId(2)), None);
    }

    /// What may be told after this, if anything was.
    fn check(told: &mut Option<(QueueTrouble, u64)>, at: u64, news: QueueNews) {
        let trouble = match news {
            QueueNews::Full { .. } => QueueTrouble::Full,
            QueueNews::Dropping { .. } => QueueTrouble::Dropping,
            QueueNews::Growing { .. } => QueueTrouble::Growing,
            QueueNews::Unserved { .. } => QueueTrouble::Unserved,
            QueueNews::Recovered { from, .. } => {
                let (worst, since) = told.take().expect("something was told before");
                assert_eq!(from, worst);
                assert!(at >= since + CALM_FOR.as_secs());
                return;
            }
        };
        assert!(told.is_none_or(|(worst, _)| trouble > worst), "{told:?}");
        *told = Some((trouble, at));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_trouble_is_told_once_until_it_is_over(
            looks in prop::collection::vec((0..8_u64, 0..7_u64, 0..3_u64), 1..200)
        ) {
            let mut one = One::default();
            let mut told = None;
            let (mut at, mut drops) = (0, 0);
            let mut sum = 0;
            for (pause, depth, more) in looks {
                at += pause;
                drops += more / 2;
                // The first look only says where the counter stands.
                sum += if one.watch.seen.is_empty() { 0 } else { more / 2 };
                let news = one.look(at, depth, drops);
                let is_bad = depth > LIMIT || sum > 0;
                match news {
                    Some(QueueNews::Full { .. }) => prop_assert!(depth > LIMIT),
                    Some(QueueNews::Dropping { dropped, .. }) => prop_assert_eq!(dropped, more / 2),
                    Some(QueueNews::Growing { from, .. }) => prop_assert!(from < depth),
                    Some(QueueNews::Unserved { .. }) => prop_assert!(false, "never looked for"),
                    Some(QueueNews::Recovered { dropped, .. }) => prop_assert!(dropped <= sum),
                    None => prop_assert!(!is_bad || told.is_some() || depth > LIMIT),
                }
                if let Some(news) = news {
                    check(&mut told, at, news);
                }
                if told.is_none() {
                    sum = 0;
                }
            }
            // And it ends.
            one.look(at + 1000, 0, drops).into_iter().for_each(|news| check(&mut told, at + 1000, news));
            one.look(at + 2000, 0, drops).into_iter().for_each(|news| check(&mut told, at + 2000, news));
            prop_assert_eq!(told, None);
        }
    }
}
