//! Instances that follow the queues: bursts, waves, a worker that takes nobody, slow starts, and people who
//! ask for something in between.

use crate::sim::orders;
use crate::sim::random::Rng;
use crate::sim::survive::thawed;
use listend::config::{Distribute, Presence, Ready, Scaling};
use listend::core::{
    Command, Configuration, Core, DOWN_AFTER, DOWN_AFTER_MAX, Effect, Event, ExitStatus, Input,
    InstanceId, ListenerLife, MISSED_WITHIN, Mono, Notice, ProcessId, RunRole, Ticket, UP_AFTER,
    WhenDone, WorkerEvent, WorkerUpdate,
};
use listend::plan::{Lifecycle, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const APP: WorkerId = WorkerId(0);
const SECOND: Duration = Duration::from_secs(1);

/// A worker, and clients that come at some rate and are taken at another.
#[derive(Clone)]
struct Rig {
    core: Core,
    now: Mono,
    life: Lifecycle,
    /// Clients that wait: in one queue, or in that of each shard.
    queues: Vec<f64>,
    /// The shards that clients are sent to.
    steered: BTreeSet<u32>,
    /// How many an instance takes in a second.
    takes: f64,
    /// The instances with these numbers take nobody.
    stuck: BTreeSet<u32>,
    /// How long a start takes.
    start: Duration,
    procs: BTreeMap<ProcessId, Proc>,
    scaled: Vec<Scaled>,
    tickets: u64,
}

#[derive(Clone)]
struct Proc {
    index: u32,
    /// When it will serve.
    serves: Mono,
    ready: bool,
    asked: bool,
}

/// A decision.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scaled {
    at: Mono,
    before: u32,
    instances: u32,
    waiting: u64,
}

impl Scaled {
    fn adds(&self) -> bool {
        self.instances > self.before
    }
}

const UP_AT: u32 = 10;

fn up_to(max: u32) -> Option<Scaling> {
    Some(Scaling {
        max,
        scale_up_at: UP_AT,
    })
}

impl Rig {
    fn new(min: u32, max: u32) -> Rig {
        Rig::with(min, max, Distribute::Shared)
    }

    fn with(min: u32, max: u32, distribute: Distribute) -> Rig {
        let life = Lifecycle {
            instances: min,
            scaling: up_to(max),
            distribute,
            ready: Ready::Notify,
            start_timeout: None,
            ..Lifecycle::default()
        };
        let listener = ListenerLife {
            presence: Presence::Required,
            users: vec![APP],
        };
        let core = Core::new(vec![life.clone()], WhenDone::Hold);
        let queues = match distribute {
            Distribute::Shared => 1,
            Distribute::Shards => min,
        };
        let mut rig = Rig {
            core: core.with_listeners(vec![listener]),
            now: Mono(1_000_000_000),
            life,
            queues: vec![0.0; queues as usize],
            steered: (0..queues).collect(),
            takes: 100.0,
            stuck: BTreeSet::new(),
            start: SECOND / 10,
            procs: BTreeMap::new(),
            scaled: Vec::new(),
            tickets: 0,
        };
        rig.give(Input::Start);
        rig.time(SECOND, 0.0);
        rig
    }

    fn queue(&self) -> f64 {
        self.queues.iter().sum()
    }

    fn queue_of(&self, index: u32) -> usize {
        match self.life.distribute {
            Distribute::Shared => 0,
            Distribute::Shards => index as usize,
        }
    }

    fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.core.check_invariants().expect("it holds");
        while let Some(effect) = self.core.next_effect() {
            match effect {
                Effect::Spawn {
                    process, instance, ..
                } => {
                    let index = instance.index;
                    let proc = Proc {
                        index,
                        serves: self.now + self.start,
                        ready: false,
                        asked: false,
                    };
                    assert!(self.queue_of(index) < self.queues.len(), "no shard");
                    self.procs.insert(process, proc);
                    self.give(Input::Spawned { process });
                    self.give(Input::ExecSucceeded { process });
                }
                Effect::Signal { process, .. } => {
                    if let Some(proc) = self.procs.get_mut(&process) {
                        proc.asked = true;
                    }
                }
                Effect::HoldShards { shards, .. } => {
                    let held = self.queues.len().max(shards as usize);
                    self.queues.resize(held, 0.0);
                }
                Effect::Steer { shards, .. } => self.steered = shards,
                Effect::LookAtShard { process } => {
                    let queue = self.queue_of(self.procs[&process].index);
                    let clients = self.queues[queue] >= 1.0;
                    self.give(Input::ShardLooked { process, clients });
                }
                Effect::LookAtQueues { worker } => {
                    let waiting = self.queues.iter().map(|queue| *queue as u64);
                    let waiting = Some(waiting.collect());
                    self.give(Input::QueuesSeen { worker, waiting });
                }
                Effect::Emit(Event::Worker(
                    _,
                    WorkerEvent::Scaled {
                        before,
                        instances,
                        waiting,
                        limit,
                        lasting,
                    },
                )) => {
                    let at = self.now;
                    let scaled = Scaled {
                        at,
                        before,
                        instances,
                        waiting,
                    };
                    match scaled.adds() {
                        true => assert!(waiting > limit && lasting >= UP_AFTER),
                        false => assert!(waiting <= limit && lasting >= DOWN_AFTER),
                    }
                    self.scaled.push(scaled);
                }
                _ => {}
            }
        }
    }

    /// So much time goes by, while so many clients come in a second.
    fn time(&mut self, time: Duration, come: f64) {
        let end = self.now + time;
        while self.now < end {
            // Where nothing moves, only the looks count.
            let is_calm = come == 0.0 && self.queue() < 1.0;
            let step = match is_calm && self.procs.values().all(|one| one.ready && !one.asked) {
                true => SECOND,
                false => SECOND / 10,
            };
            self.now = self.now + step;
            for shard in &self.steered {
                let come = come / 10.0 / self.steered.len() as f64;
                // One that is not held yet stands for one that is.
                let shard = *shard as usize % self.queues.len();
                self.queues[shard] += come;
            }
            let all: Vec<ProcessId> = self.procs.keys().copied().collect();
            for process in all {
                self.goes_on(process);
            }
            if self.core.deadline().is_some_and(|at| at <= self.now) {
                self.give(Input::Tick);
            }
        }
    }

    fn goes_on(&mut self, process: ProcessId) {
        let Proc {
            index,
            serves,
            ready,
            asked,
        } = self.procs[&process];
        if asked {
            return self.ends(process, 0);
        }
        if serves > self.now {
            return;
        }
        if !self.stuck.contains(&index) {
            let queue = self.queue_of(index);
            let left = self.queues[queue] - self.takes / 10.0;
            self.queues[queue] = left.max(0.0);
        }
        if !ready {
            self.procs.get_mut(&process).expect("just seen").ready = true;
            let notice = Notice::Ready;
            self.give(Input::Notified { process, notice });
        }
    }

    fn ends(&mut self, process: ProcessId, code: i32) {
        if self.procs.remove(&process).is_some() {
            let status = ExitStatus::Code(code);
            self.give(Input::Exited { process, status });
        }
    }

    fn survive(&mut self) {
        self.core = thawed(&self.core.freeze(), &self.core);
        self.give(Input::Resumed);
    }

    /// Holds all that was decided against the pace that is promised, by an account of its own.
    fn check_pace(&self) {
        let mut pause = DOWN_AFTER;
        let mut removed: Option<Mono> = None;
        let mut before: Option<Mono> = None;
        for one in &self.scaled {
            let least = match one.adds() {
                true => UP_AFTER,
                false => pause,
            };
            let time = before.map(|before| one.at.since(before));
            assert!(
                time.is_none_or(|time| time >= least),
                "{one:?} after {time:?}, not {least:?}: {:?}",
                self.scaled
            );
            if !one.adds() {
                removed = Some(one.at);
            } else if let Some(at) = removed.take() {
                let is_missed = one.at.since(at) < MISSED_WITHIN;
                pause = match is_missed {
                    true => pause * 2,
                    // Half of what it is without the bound.
                    false if pause >= DOWN_AFTER_MAX => DOWN_AFTER * 16,
                    false => pause / 2,
                };
                pause = pause.clamp(DOWN_AFTER, DOWN_AFTER_MAX);
            }
            before = Some(one.at);
        }
    }

    fn operate(&mut self, command: Command) {
        self.tickets += 1;
        let (ticket, worker) = (Ticket(self.tickets), APP);
        self.give(Input::Operate {
            ticket,
            worker,
            index: None,
            command,
        });
    }

    fn reload(&mut self, min: u32, scaling: Option<Scaling>) {
        self.life.instances = min;
        self.life.scaling = scaling;
        let life = self.life.clone();
        if life.distribute == Distribute::Shards {
            let held = self.queues.len().max(min as usize);
            self.queues.resize(held, 0.0);
        }
        self.give(Input::Configure(Box::new(Configuration {
            workers: vec![(APP, WorkerUpdate::Settings { life: life.into() })],
            ..Configuration::default()
        })));
    }

    fn instances(&self) -> usize {
        self.procs.len()
    }
}

#[test]
fn a_load_that_lasts_gets_what_it_needs_and_no_more() {
    let mut rig = Rig::new(1, 8);
    rig.time(SECOND * 120, 350.0);
    // Four serve it; another helps with those who have waited meanwhile.
    assert!((4..=5).contains(&rig.instances()), "{:?}", rig.scaled);
    assert!(rig.queue() < 1.0);
    // And gives it back, one after the other.
    rig.time(DOWN_AFTER * 5, 0.0);
    assert_eq!(rig.instances(), 1, "{:?}", rig.scaled);
    let apart = rig.scaled.windows(2);
    assert!(
        apart
            .into_iter()
            .all(|two| two[1].at.since(two[0].at) >= UP_AFTER)
    );
    assert_eq!(rig.core.is_overridden(APP), Some(false));
}

#[test]
fn a_burst_that_is_over_soon_changes_nothing() {
    let mut rig = Rig::new(1, 8);
    for _ in 0..100 {
        rig.queues[0] += 150.0;
        rig.time(SECOND * 20, 10.0);
    }
    assert_eq!(rig.scaled, []);
}

// A short queue does not say whether fewer would do: one is removed to find out, and added again if it was
// missed. So the number changes as long as waves last, and what can be held is how seldom. At most three
// instances can be removed one after the other, from 4 to 1, before one is added, which is missed, because the
// next wave comes within two minutes. That happens at pauses of 1, 2, 4, 8 and 16 minutes: at most 15
// removals in the first hour and a half. From then on a removal takes half an hour without a change, so that an
// hour has at most two, and one at its beginning. What is added was removed before, but for three at first.
#[test]
fn waves_do_not_start_and_stop_instances_without_end() {
    const HOURS: u32 = 6;
    for distribute in [Distribute::Shared, Distribute::Shards] {
        let mut rig = Rig::with(1, 4, distribute);
        let begun = rig.now;
        // Two minutes of load, two of none.
        for _ in 0..HOURS * 15 {
            rig.time(SECOND * 120, 180.0);
            rig.time(SECOND * 120, 0.0);
        }
        rig.check_pace();
        let removed = |from: u32, to: u32| {
            let hours = |at: Mono| at.since(begun).as_secs() / 3600;
            let span = u64::from(from)..u64::from(to);
            let removed = rig.scaled.iter().filter(|one| !one.adds());
            removed.filter(|one| span.contains(&hours(one.at))).count()
        };
        assert!(removed(0, 2) <= 15 + 2, "{:?}", rig.scaled);
        for hour in 2..HOURS {
            assert!(removed(hour, hour + 1) <= 3, "{hour}: {:?}", rig.scaled);
        }
        let all = removed(0, HOURS);
        assert!(all > 0 && rig.scaled.len() <= 2 * all + 3);
    }
}

// Whatever comes: the pace is kept, the number stays in its range, and is the least again in the end.
#[test]
fn no_load_changes_the_number_more_often_than_the_pauses_say() {
    let mut decisions = 0;
    for seed in 0..12 {
        let mut rng = Rng::from_seed(seed);
        let distribute = rng.pick(&[Distribute::Shared, Distribute::Shards]);
        let mut rig = Rig::with(1, 6, distribute);
        rig.start = SECOND * rng.pick(&[0, 1, 20]);
        let pace = rng.pick(&[5, 30, 300]);
        for _ in 0..60 {
            let time = SECOND * (1 + rng.below(2 * pace) as u32);
            let come = rng.pick(&[0, 20, 90, 110, 250, 500, 2000]);
            rig.time(time, come as f64);
            if rng.one_in(10) {
                rig.queues[0] += rng.below(1000) as f64;
            }
            assert!((1..=7).contains(&rig.instances()), "{:?}", rig.scaled);
        }
        rig.check_pace();
        decisions += rig.scaled.len();
        rig.time(DOWN_AFTER_MAX * 7, 0.0);
        assert_eq!(rig.instances(), 1, "{:?}", rig.scaled);
        rig.check_pace();
    }
    assert!(decisions > 50, "{decisions}");
}

// With shards, who is in the queue of an instance that takes nobody is served by nobody else.
#[test]
fn an_instance_in_whose_shard_somebody_waits_is_not_removed() {
    let mut rig = Rig::with(1, 3, Distribute::Shards);
    rig.time(SECOND * 60, 350.0);
    assert_eq!(rig.instances(), 3);
    rig.stuck.insert(2);
    rig.time(SECOND, 60.0);
    let left = rig.queues[2];
    assert!(left > 1.0);
    rig.queues[2] = 2.0;
    let before = rig.scaled.len();
    rig.time(SECOND * 3600, 0.0);
    assert_eq!((rig.instances(), rig.scaled.len()), (3, before));
    rig.stuck.clear();
    rig.time(DOWN_AFTER * 3, 0.0);
    assert_eq!(rig.instances(), 1, "{:?}", rig.scaled);
}

// One of several takes nobody. With shards somebody always waits then, so that none is removed. With one queue
// the others take all, and one is removed to find out whether it is needed: at pauses of 1, 2, 4, 8, 16 and 30
// minutes, which is six times an hour.
#[test]
fn an_instance_that_takes_nobody_does_not_make_the_number_flap() {
    for (distribute, most) in [(Distribute::Shared, 6), (Distribute::Shards, 0)] {
        let mut rig = Rig::with(2, 5, distribute);
        rig.stuck.insert(1);
        rig.time(SECOND * 3600, 150.0);
        let removed = rig.scaled.iter().filter(|one| !one.adds()).count();
        assert!(removed <= most, "{:?}", rig.scaled);
        assert!(rig.scaled.len() <= 2 * most + 3, "{:?}", rig.scaled);
        rig.check_pace();
    }
}

#[test]
fn a_worker_that_takes_nobody_gets_the_most_and_keeps_it() {
    let mut rig = Rig::new(1, 5);
    rig.takes = 0.0;
    rig.queues[0] = 50.0;
    rig.time(SECOND * 3600, 0.0);
    assert_eq!(rig.instances(), 5);
    assert_eq!(rig.scaled.len(), 4, "{:?}", rig.scaled);
}

#[test]
fn what_starts_slowly_is_waited_for() {
    let mut rig = Rig::new(1, 8);
    rig.start = SECOND * 60;
    rig.time(SECOND * 50, 180.0);
    assert_eq!(rig.scaled.len(), 1, "{:?}", rig.scaled);
    rig.time(SECOND * 600, 180.0);
    assert!(rig.instances() <= 4, "{:?}", rig.scaled);
}

#[test]
fn what_does_not_start_is_not_started_more_often() {
    let mut rig = Rig::new(2, 8);
    rig.takes = 0.0;
    rig.queues[0] = 100.0;
    // One of the two crashes as soon as it is there.
    for _ in 0..100 {
        if let Some(process) = rig.procs.keys().next_back() {
            rig.ends(*process, 1);
        }
        rig.time(SECOND, 0.0);
    }
    assert!(rig.instances() <= 3, "{:?}", rig.scaled);
}

#[test]
fn who_says_how_many_is_obeyed_until_it_is_to_follow_again() {
    let mut rig = Rig::new(1, 8);
    rig.operate(Command::Scale(3));
    rig.time(SECOND * 600, 1000.0);
    assert_eq!((rig.instances(), rig.scaled.len()), (3, 0));
    assert_eq!(rig.core.is_overridden(APP), Some(true));
    rig.operate(Command::Follow);
    assert_eq!(rig.core.is_overridden(APP), Some(false));
    rig.time(SECOND * 30, 1000.0);
    assert!(rig.instances() > 3, "{:?}", rig.scaled);
    // A number outside of the range is brought into it.
    rig.operate(Command::Scale(20));
    rig.time(SECOND * 5, 0.0);
    assert_eq!(rig.instances(), 20);
    rig.operate(Command::Follow);
    rig.time(SECOND * 5, 0.0);
    assert_eq!(rig.instances(), 8);
}

#[test]
fn a_reload_of_the_range_takes_effect_and_forgets_who_said_otherwise() {
    let mut rig = Rig::new(1, 8);
    rig.time(SECOND * 120, 350.0);
    assert!(rig.instances() >= 4);
    rig.reload(1, up_to(2));
    rig.time(SECOND, 0.0);
    assert_eq!(rig.instances(), 2);
    rig.operate(Command::Scale(6));
    rig.time(SECOND, 0.0);
    assert_eq!(rig.instances(), 6);
    rig.reload(3, up_to(4));
    rig.time(SECOND, 0.0);
    assert_eq!(
        (rig.instances(), rig.core.is_overridden(APP)),
        (4, Some(false))
    );
    rig.reload(5, None);
    rig.time(SECOND, 0.0);
    assert_eq!((rig.instances(), rig.core.is_overridden(APP)), (5, None));
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn a_rollout_ends_with_the_number_that_it_began_with_and_nothing_follows_meanwhile() {
    let mut rig = Rig::new(1, 8);
    rig.time(SECOND * 120, 350.0);
    let before = rig.scaled.len();
    rig.start = SECOND * 20;
    rig.operate(Command::Restart);
    rig.time(SECOND * 60, 5000.0);
    assert_eq!(rig.scaled.len(), before);
    rig.time(SECOND * 600, 0.0);
    assert!((1..=8).contains(&rig.instances()), "{}", rig.instances());
}

#[test]
fn a_stop_ends_the_looks() {
    let mut rig = Rig::new(2, 8);
    rig.operate(Command::Stop);
    rig.time(SECOND * 5, 0.0);
    assert_eq!((rig.instances(), rig.core.deadline()), (0, None));
    rig.operate(Command::Start);
    rig.time(SECOND * 5, 0.0);
    assert_eq!(rig.instances(), 2);
    rig.give(Input::Stop);
    rig.time(SECOND * 5, 5000.0);
    assert_eq!((rig.instances(), rig.scaled.len()), (0, 0));
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Load,
    Quiet,
    Crash,
    Stuck,
    Scale(u32),
    Follow,
    Range(u32, u32),
    Fixed(u32),
    Restart,
    Stop,
    Start,
    Upgrade,
}

impl Rig {
    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Load => self.time(SECOND * 20, 500.0),
            Happens::Quiet => self.time(SECOND * 70, 0.0),
            Happens::Crash => {
                if let Some(process) = self.procs.keys().next_back() {
                    self.ends(*process, 1);
                }
            }
            Happens::Stuck => drop(self.stuck.insert(1)),
            Happens::Scale(count) => self.operate(Command::Scale(count)),
            Happens::Follow => self.operate(Command::Follow),
            Happens::Range(min, max) => self.reload(min, up_to(max)),
            Happens::Fixed(count) => self.reload(count, None),
            Happens::Restart => self.operate(Command::Restart),
            Happens::Stop => self.operate(Command::Stop),
            Happens::Start => self.operate(Command::Start),
            Happens::Upgrade => self.survive(),
        }
        self.in_range(what);
    }

    /// The number is what was asked for, or in the range.
    fn in_range(&self, after: Happens) {
        if self.core.is_rolling(APP) || self.core.is_stopped(APP) {
            // Its end, or the start, has the right number.
            return;
        }
        let places = self.core.instances_of(APP);
        let role = |one: &InstanceId| self.core.facts(*one).map(|facts| facts.role);
        let places = places.filter(|one| role(one) == Some(RunRole::Instance));
        let count = places.count() as u32;
        if let (Some(scaling), Some(false)) = (self.life.scaling, self.core.is_overridden(APP)) {
            let range = self.life.instances..=scaling.max;
            assert!(range.contains(&count), "{after:?}: {count}, not {range:?}");
        }
    }

    /// All is well again, and nobody comes.
    fn ends_well(mut self, done: &[Happens]) {
        self.stuck.clear();
        self.operate(Command::Start);
        self.time(SECOND * 40, 0.0);
        self.operate(Command::Follow);
        let wanted = self.life.instances;
        // Who is in the shard of an instance that was stopped by hand, or that crashed while it was to go, waits
        // for one with its number.
        let is_lost = |one: &Happens| matches!(one, Happens::Stop | Happens::Crash);
        let served = match done.iter().any(is_lost) {
            true => wanted as usize,
            false => usize::MAX,
        };
        let waits = |rig: &Rig| rig.queues.iter().take(served).sum::<f64>() >= 1.0;
        // Each was missed less often than this.
        for _ in 0..50 {
            if self.instances() as u32 > wanted || waits(&self) {
                self.time(DOWN_AFTER, 0.0);
            }
        }
        if self.life.scaling.is_some() {
            assert_eq!(self.instances() as u32, wanted, "{done:?}");
        }
        assert!(!waits(&self), "{done:?}: {:?}", self.queues);
        self.check_pace_of_one();
    }

    /// No decision follows another at once, whoever has asked for what in between.
    fn check_pace_of_one(&self) {
        for two in self.scaled.windows(2) {
            let least = match two[1].adds() {
                true => UP_AFTER,
                false => DOWN_AFTER,
            };
            assert!(two[1].at.since(two[0].at) >= least, "{two:?}");
        }
    }
}

#[test]
fn every_order_of_what_happens_ends_with_the_number_that_is_needed() {
    use Happens::*;
    let all = [
        Load,
        Quiet,
        Crash,
        Stuck,
        Scale(3),
        Follow,
        Range(2, 3),
        Fixed(2),
        Restart,
        Stop,
        Start,
        Upgrade,
    ];
    let mut decisions = 0;
    let kinds = [Distribute::Shared, Distribute::Shards];
    let begun = kinds.map(|kind| (Rig::with(1, 4, kind), vec![]));
    let orders = orders::of_three(
        begun.into(),
        &all,
        |rig, what, _| rig.happens(what),
        |rig, done| {
            decisions += rig.scaled.len();
            rig.ends_well(done);
        },
    );
    assert_eq!(orders, 2 * all.len().pow(3));
    assert!(decisions > orders / 2, "{decisions} in {orders}");
}
