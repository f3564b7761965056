//! Workers, their definitions and their listeners.

use crate::sim::random::{Rng, lifecycle};
use listend::config::{ConnectionLimits, Every, OnFailure, Order, Presence, Ready, Rollout};
use listend::core::{InstanceId, ListenerLife, Mono, Revision};
use listend::plan::{Activation, HookTimes, Lifecycle, ListenerId, ReloadBy, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// More workers than this there never are at a time.
pub(crate) const WORKERS: u32 = 5;
/// The listener that several workers take; every other belongs to the worker of its number.
pub(crate) const SHARED: ListenerId = ListenerId(WORKERS);

/// How the programs of a definition are as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Good,
    NeverReady,
    DiesEarly,
    Flips,
    Mixed,
}

/// One definition of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) life: Lifecycle,
    pub(crate) temper: Temper,
}

/// What is known of a worker from what was told and asked.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    pub(crate) definitions: BTreeMap<Revision, Definition>,
    /// What it is to run by.
    pub(crate) current: Revision,
    /// What a rollout under way goes back to.
    pub(crate) from: Option<Revision>,
    /// Which definitions may be started now.
    pub(crate) allowed: BTreeSet<Revision>,
    /// Which ones were not retired.
    pub(crate) kept: BTreeSet<Revision>,
    /// The generation that is on trial, while a rollout goes forward.
    pub(crate) trial: Option<u32>,
    /// What is watched: what it goes back to, from which generation on, and until when.
    pub(crate) watch: Option<(Revision, u32, Mono)>,
    /// What a rollout that went back has given up; the configuration says it.
    pub(crate) given_up: Option<Revision>,
    /// A rollout goes back.
    pub(crate) back: bool,
    /// The most instances that may be replaced at a time since the rollout began.
    pub(crate) parallel: u32,
    /// The shortest time that had to be waited for since the rollout began.
    pub(crate) min_ready: Duration,
    /// And the longest.
    pub(crate) longest: Duration,
    /// The generation that was on trial before the last input.
    pub(crate) was_on_trial: Option<u32>,
    /// On the way back an instance has ended for good: what it was to replace goes on.
    pub(crate) gave_up: bool,
    pub(crate) degraded: bool,
    /// A reload has defined it in another way, and waits for the rollout.
    pub(crate) is_reloaded: bool,
    /// What that has brought is watched.
    pub(crate) is_reload_watched: bool,
    /// The rollout went back for this one, which the reload is to name.
    pub(crate) went_back: Option<InstanceId>,
    pub(crate) removed: bool,
    pub(crate) gone: bool,
    /// When somebody last asked for fewer instances of it, or for none.
    pub(crate) lessened: Option<Mono>,
    pub(crate) shares: bool,
}

impl Worker {
    pub(crate) fn new(definition: Definition, shares: bool) -> Worker {
        let first = Revision(1);
        Worker {
            parallel: definition.life.rollout.parallel,
            definitions: BTreeMap::from([(first, definition)]),
            current: first,
            from: None,
            allowed: BTreeSet::from([first]),
            kept: BTreeSet::from([first]),
            trial: None,
            watch: None,
            given_up: None,
            back: false,
            min_ready: Duration::ZERO,
            longest: Duration::ZERO,
            was_on_trial: None,
            gave_up: false,
            degraded: false,
            is_reloaded: false,
            is_reload_watched: false,
            went_back: None,
            removed: false,
            gone: false,
            lessened: None,
            shares,
        }
    }

    /// Whether a definition can be gone back from when it has taken over: one in four has taken the
    /// last one's sockets away.
    pub(crate) fn can_go_back(revision: Revision) -> bool {
        !revision.0.is_multiple_of(4)
    }

    /// What the configuration says, which may have been rolled back.
    /// Nobody waits for what a reload has brought any more.
    pub(crate) fn forget_reload(&mut self) {
        (self.is_reloaded, self.is_reload_watched) = (false, false);
        self.went_back = None;
    }

    pub(crate) fn latest(&self) -> Revision {
        let last = self.definitions.keys().next_back();
        *last.expect("one at least")
    }

    pub(crate) fn life(&self) -> &Lifecycle {
        &self.definitions[&self.current].life
    }

    pub(crate) fn serves_connections(&self) -> bool {
        matches!(self.life().activation, Activation::PerConnection(_))
    }

    pub(crate) fn is_eager(&self) -> bool {
        self.life().activation == Activation::Eager
    }
}

fn maybe<T>(rng: &mut Rng, some: T) -> Option<T> {
    rng.one_in(3).then_some(some)
}

pub(crate) fn activation(rng: &mut Rng) -> Activation {
    match rng.below(8) {
        0 | 1 => Activation::OnDemand { limit: None },
        2 => Activation::PerConnection(ConnectionLimits::default()),
        _ => Activation::Eager,
    }
}

/// The terms on which instances live.
pub(crate) fn settings(rng: &mut Rng, life: &mut Lifecycle) {
    let fresh = lifecycle(rng);
    let secs = Duration::from_secs;
    life.restart = fresh.restart;
    life.restart.backoff_min = Duration::from_millis(rng.pick(&[1, 100, 1000]));
    life.restart.cool_down = maybe(rng, secs(30));
    life.stop_timeout = rng.pick(&[Some(0), Some(1), Some(30)]).map(secs);
    life.start_timeout = rng.pick(&[Some(1), Some(5), Some(90)]).map(secs);
    life.watchdog = maybe(rng, secs(3));
    life.rollout = Rollout {
        order: rng.pick(&[Order::StartFirst, Order::StartFirst, Order::StopFirst]),
        parallel: rng.pick(&[1, 1, 2, 3]),
        min_ready: Duration::from_millis(rng.pick(&[0, 500, 2000])),
        watch: secs(rng.pick(&[0, 5, 30])),
    };
    life.on_failure = rng.pick(&[OnFailure::Hold, OnFailure::Refuse]);
    life.instances = match life.activation {
        Activation::PerConnection(_) => 0,
        Activation::Eager | Activation::OnDemand { .. } => fresh.instances,
    };
}

pub(crate) fn definition(rng: &mut Rng) -> Definition {
    let secs = Duration::from_secs;
    let mut life = lifecycle(rng);
    life.activation = activation(rng);
    settings(rng, &mut life);
    if !matches!(life.activation, Activation::PerConnection(_)) {
        life.ready = rng.pick(&[
            Ready::Started,
            Ready::Notify,
            Ready::Notify,
            Ready::Accepting(Every::All),
            Ready::Accepting(Every::First),
            Ready::Fd(3),
            Ready::Einhorn,
        ]);
        life.hooks = HookTimes {
            before_start: maybe(rng, secs(2)),
            after_ready: maybe(rng, secs(2)),
            after_stop: maybe(rng, secs(2)),
        };
    }
    life.reload = rng.pick(&[
        None,
        Some(ReloadBy::Signal(1)),
        Some(ReloadBy::Command(secs(3))),
    ]);
    let temper = rng.pick(&[
        Temper::Good,
        Temper::Good,
        Temper::Mixed,
        Temper::NeverReady,
        Temper::DiesEarly,
        Temper::Flips,
    ]);
    Definition { life, temper }
}

pub(crate) fn presence(rng: &mut Rng) -> Presence {
    rng.pick(&[
        Presence::Required,
        Presence::Optional,
        Presence::WaitFor(Duration::from_secs(5)),
    ])
}

/// Who takes which listener, now.
pub(crate) fn lives(rng: &mut Rng, workers: &[Worker]) -> Vec<(ListenerId, ListenerLife)> {
    let mut all = Vec::new();
    let there = |worker: &&(WorkerId, &Worker)| !worker.1.removed;
    let numbered: Vec<(WorkerId, &Worker)> = (0..).map(WorkerId).zip(workers).collect();
    for number in 0..WORKERS {
        let users = numbered.iter().filter(there).map(|(id, _)| *id);
        all.push(ListenerLife {
            presence: presence(rng),
            users: users.filter(|id| id.0 == number).collect(),
        });
    }
    let sharing = numbered.iter().filter(there).filter(|(_, worker)| {
        worker.shares && !matches!(worker.life().activation, Activation::PerConnection(_))
    });
    all.push(ListenerLife {
        presence: presence(rng),
        users: sharing.map(|(id, _)| *id).collect(),
    });
    (0..).map(ListenerId).zip(all).collect()
}
