//! `distribute: shards` with clients in the queues: crashes, rollouts, rollbacks, other numbers of
//! instances by whoever asks for them or by the queues, from a shared socket to shards and back, stops and
//! another process that goes on: at random, and in every order.
//!
//! The kernel here has a queue for each shard, and sends each client to one that the core has named last.

use crate::sim::orders;
use crate::sim::random::{Rng, SECOND, signal};
use crate::sim::seeds::{Trace, every, seen};
use crate::sim::survive::thawed;
use listend::config::{Distribute, Order, Ready, Restart, Rollout, Scaling};
use listend::core::{
    Command, Configuration, Core, Effect, Event, ExitStatus, Input, InstanceEvent, InstanceId,
    Mono, Notice, ProcessEvent, ProcessId, Revision, RolloutEvent, RunRole, Task, Ticket, WhenDone,
    WorkerUpdate,
};
use listend::plan::{Lifecycle, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const APP: WorkerId = WorkerId(0);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);
/// More than anything takes that can come up.
const ROUNDS: usize = 4000;

seen! {
    crashes: "crashes with clients in the queue",
    drained_later: "starts only to serve who waits in a shard",
    drained: "instances that were stopped when nobody waited any more",
    too_slow: "instances that were stopped although somebody waited",
    shrunk: "changes to fewer instances",
    to_shards: "changes to shards",
    to_shared: "changes to a shared socket",
    closed: "times that all shards but the first were closed",
    survived: "times that another process went on",
    served: "clients that were served",
    rested: "lives that came to rest",
    whole: "of them by one definition",
}

/// What the kernel knows of a process.
#[derive(Debug, Clone)]
struct Proc {
    instance: InstanceId,
    revision: Revision,
    ran: bool,
    ready: bool,
    asked: bool,
    /// When it began to drain.
    drains: Option<Mono>,
    /// It was ready by then.
    was_ready: bool,
    /// It accepts nobody.
    stuck: bool,
}

#[derive(Clone)]
struct Life {
    core: Core,
    rng: Rng,
    now: Mono,
    lives: BTreeMap<Revision, Lifecycle>,
    procs: BTreeMap<ProcessId, Proc>,
    looks: Vec<ProcessId>,
    /// The queues are to be looked at.
    counts: bool,
    /// Who waits in each shard that is held.
    queues: Vec<u64>,
    steered: BTreeSet<u32>,
    /// Shards in which somebody may be left: who was to serve them was too slow, was stopped by hand, or crashed,
    /// and what it was a trial of is given up.
    excused: BTreeSet<u32>,
    /// By which definition the last one was that crashed at each shard, or was asked to stop, if it was not started
    /// again since.
    down: BTreeMap<u32, Revision>,
    /// What the last rollout ended with that went well.
    proven: Revision,
    /// A rollout goes forward.
    rolls: bool,
    /// The last one has gone back.
    goes_back: bool,
    /// Who is to be started again to drain, since when it is to, and whether it was ready by then.
    owed: BTreeMap<InstanceId, (Mono, bool)>,
    calm: bool,
    trace: Trace,
    tickets: u64,
    seen: Seen,
}

fn life(rng: &mut Rng) -> Lifecycle {
    let distribute = match rng.one_in(4) {
        true => Distribute::Shared,
        false => Distribute::Shards,
    };
    let instances = 1 + rng.below(5) as u32;
    let scaling = rng.one_in(3).then(|| Scaling {
        max: instances + rng.below(4) as u32,
        scale_up_at: rng.below(3) as u32,
    });
    let order = rng.pick(&[Order::StartFirst, Order::StartFirst, Order::StopFirst]);
    let mut life = plain(distribute, instances, order);
    life.scaling = scaling;
    life.rollout.parallel = 1 + rng.below(3) as u32;
    life.rollout.min_ready = Duration::from_millis(rng.pick(&[0, 500]));
    life
}

fn plain(distribute: Distribute, instances: u32, order: Order) -> Lifecycle {
    Lifecycle {
        instances,
        distribute,
        ready: Ready::Notify,
        stop_timeout: Some(STOP_TIMEOUT),
        restart: Restart {
            limit: None,
            backoff_max: LONGEST_BACKOFF,
            ..Restart::default()
        },
        rollout: Rollout {
            order,
            min_ready: Duration::ZERO,
            ..Rollout::default()
        },
        ..Lifecycle::default()
    }
}

impl Life {
    fn new(rng: Rng, first: Lifecycle, trace: Trace) -> Life {
        let core = Core::new(vec![first.clone()], WhenDone::Hold);
        let shards = match first.distribute {
            Distribute::Shards => first.instances,
            Distribute::Shared => 1,
        };
        let mut life = Life {
            core,
            rng,
            now: Mono(SECOND),
            queues: vec![0; shards as usize],
            steered: (0..shards).collect(),
            lives: BTreeMap::from([(Revision(1), first)]),
            procs: BTreeMap::new(),
            looks: Vec::new(),
            counts: false,
            excused: BTreeSet::new(),
            down: BTreeMap::new(),
            proven: Revision(1),
            rolls: false,
            goes_back: false,
            owed: BTreeMap::new(),
            calm: false,
            trace,
            tickets: 0,
            seen: Seen::default(),
        };
        life.give(Input::Start);
        life
    }

    fn is_sharded(&self, revision: Revision) -> bool {
        self.lives[&revision].distribute == Distribute::Shards
    }

    /// What is given up is not started again for those who wait where it has ended, or was asked to.
    fn excuse_given_up(&mut self) {
        let (latest, _) = self.latest();
        let of_it = self.down.iter().filter(|(_, by)| **by == latest);
        self.excused.extend(of_it.map(|(shard, _)| *shard));
    }

    /// Whether the time is over for somebody to be started again to serve a shard.
    fn is_too_late(&self, shard: u32) -> bool {
        let mut owed = self.owed.iter().filter(|(of, _)| of.index == shard);
        owed.any(|(_, (since, _))| *since + STOP_TIMEOUT <= self.now)
    }

    fn shard_of(&self, proc: &Proc) -> usize {
        match self.is_sharded(proc.revision) {
            true => proc.instance.index as usize % self.queues.len(),
            false => 0,
        }
    }

    fn give(&mut self, input: Input) {
        if self.trace == Trace::Print {
            println!("{:>16} {input:?}", self.now.0);
        }
        self.core.handle(self.now, input);
        while let Some(effect) = self.core.next_effect() {
            if self.trace == Trace::Print {
                println!("{:>16}     {effect:?}", "");
            }
            self.perform(effect);
        }
        self.core.check_invariants().expect("the indices agree");
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn {
                process,
                instance,
                revision,
                task,
                ..
            } => {
                assert_eq!(task, Task::Program);
                if self.is_sharded(revision) {
                    let held = instance.index < self.queues.len() as u32;
                    assert!(held, "{instance:?} has no shard of its own");
                }
                let stuck = !self.calm && self.rng.one_in(6);
                let drains = self.owed.remove(&instance);
                self.seen.drained_later += u64::from(drains.is_some());
                let proc = Proc {
                    instance,
                    revision,
                    ran: false,
                    ready: false,
                    asked: false,
                    drains: drains.map(|(since, _)| since),
                    was_ready: drains.is_some_and(|(_, was_ready)| was_ready),
                    stuck,
                };
                self.down.remove(&(self.shard_of(&proc) as u32));
                self.procs.insert(process, proc);
                self.core.handle(self.now, Input::Spawned { process });
            }
            Effect::Signal {
                process, signal, ..
            } => self.signal(process, signal),
            Effect::HoldShards { shards, .. } => {
                let held = self.queues.len().max(shards as usize);
                self.queues.resize(held, 0);
            }
            Effect::Steer { shards, .. } => self.steer(shards),
            Effect::LookAtShard { process } => self.looks.push(process),
            Effect::LookAtQueues { .. } => self.counts = true,
            Effect::Emit(Event::Instance(instance, InstanceEvent::Draining { .. })) => {
                let now = self.now;
                let mut procs = self.procs.values_mut();
                let proc = procs.find(|proc| proc.instance == instance && !proc.asked);
                match proc {
                    Some(proc) => {
                        proc.drains = Some(now);
                        proc.was_ready = proc.ready;
                    }
                    // It comes back for that.
                    None => drop(self.owed.insert(instance, (now, false))),
                }
            }
            Effect::Emit(Event::Process(_, process, ProcessEvent::Stopping { .. })) => {
                if let Some(proc) = self.procs.get(&process) {
                    let shard = self.shard_of(proc) as u32;
                    self.down.insert(shard, proc.revision);
                }
            }
            Effect::Retire { needed, .. } => self.retire(needed),
            Effect::Emit(Event::Rollout(_, RolloutEvent::RolledBack { .. })) => {
                self.excuse_given_up();
                (self.rolls, self.goes_back) = (false, true);
            }
            Effect::Emit(Event::Rollout(_, event)) => {
                self.goes_back = false;
                self.rolls = matches!(event, RolloutEvent::Started { .. });
                if !self.rolls {
                    (self.proven, _) = self.latest();
                }
            }
            Effect::Emit(_) | Effect::Answer { .. } => {}
            // Each instance is told of, whatever its listeners are.
            Effect::TakeFlows { .. } | Effect::EndFlows { .. } => {}
            Effect::CloseListeners | Effect::Exit { .. } => {}
            other => panic!("{other:?}: there are no listeners"),
        }
    }

    /// Only one definition is needed any more: what only others have is closed, with whoever waits there.
    fn retire(&mut self, needed: Option<Revision>) {
        let needed = needed.expect("it is not removed");
        // What was given up is tried again with the shards that it had.
        let (latest, _) = self.latest();
        if self.is_sharded(needed) || self.is_sharded(latest) || self.queues.len() == 1 {
            return;
        }
        for (shard, waiting) in (0..).zip(&self.queues).skip(1) {
            let is_excused = self.excused.contains(&shard) || self.is_too_late(shard);
            let lost = *waiting > 0 && !is_excused;
            assert!(!lost, "{waiting} wait in {shard}, which is closed");
        }
        self.queues.truncate(1);
        self.seen.closed += 1;
    }

    /// Nobody is sent where nobody serves, unless nobody serves anywhere.
    fn steer(&mut self, shards: BTreeSet<u32>) {
        assert!(!shards.is_empty());
        let role = |core: &Core, one| core.facts(one).map(|facts| facts.role);
        for proc in self.procs.values_mut() {
            // It was to go, and stays after all.
            let is_placed = role(&self.core, proc.instance) == Some(RunRole::Instance);
            if is_placed && shards != BTreeSet::from([0]) {
                proc.drains = proc
                    .drains
                    .filter(|_| !shards.contains(&proc.instance.index));
            }
        }
        self.steered = shards;
        self.check_steered();
    }

    fn check_steered(&self) {
        let ready = self.procs.values().filter(|proc| proc.ready && !proc.asked);
        let staying = ready.filter(|proc| proc.drains.is_none());
        let served: BTreeSet<u32> = staying.map(|proc| self.shard_of(proc) as u32).collect();
        let shards = &self.steered;
        let is_shared = *shards == BTreeSet::from([0]);
        assert!(
            served.is_empty() || is_shared || shards.is_subset(&served),
            "{shards:?} are to get clients, {served:?} are served"
        );
    }

    fn signal(&mut self, process: ProcessId, number: i32) {
        let Some(proc) = self.procs.get(&process) else {
            return;
        };
        if number == 9 {
            return self.ends(process, signal(9));
        }
        if number != 15 {
            return;
        }
        let shard = self.shard_of(proc);
        if let Some(since) = proc.drains {
            let waits = self.queues[shard] > 0;
            let mut others = self.core.instances_of(APP);
            let heir = others.any(|one| one.index as usize == shard && one != proc.instance);
            let start = match proc.was_ready {
                true => Duration::ZERO,
                false => Lifecycle::default().start_timeout.unwrap_or_default(),
            };
            let is_over = self.now >= since + STOP_TIMEOUT + start;
            let gone = self.core.is_stopped(APP) || self.core.is_stopping();
            // All that has no shards is at the first.
            let is_shared = shard == 0 && self.steered == BTreeSet::from([0]);
            // One with shards takes its place after all.
            let role = self.core.facts(proc.instance).map(|facts| facts.role);
            let (latest, _) = self.latest();
            let next = match self.goes_back {
                true => self.proven,
                false => latest,
            };
            let is_placed = role == Some(RunRole::Instance) && self.is_sharded(next);
            let is_followed = heir || is_shared || is_placed;
            let reason = !waits || is_over || gone || is_followed || !proc.ready;
            assert!(reason, "{proc:?} is stopped, and clients wait");
            self.seen.drained += u64::from(!waits);
            self.seen.too_slow += u64::from(waits && is_over);
            if waits && (is_over || gone) {
                self.excused.insert(shard as u32);
            }
        }
        let proc = self.procs.get_mut(&process).expect("just seen");
        proc.asked = true;
    }

    /// A process ends, and who is in its shard waits for another.
    fn ends(&mut self, process: ProcessId, status: ExitStatus) {
        let Some(proc) = self.procs.remove(&process) else {
            return;
        };
        let shard = self.shard_of(&proc);
        if !proc.asked && self.queues[shard] > 0 {
            self.seen.crashes += 1;
        }
        self.down.insert(shard as u32, proc.revision);
        if !proc.asked && proc.revision != self.proven {
            // A trial, which may not be gone back to.
            self.excused.insert(shard as u32);
        }
        self.owed.extend(
            proc.drains
                .map(|since| (proc.instance, (since, proc.was_ready))),
        );
        self.looks.retain(|one| *one != process);
        // In the order in which the shell has things to tell.
        if !proc.ran {
            self.give(Input::ExecSucceeded { process });
        }
        self.give(Input::Exited { process, status });
        if self.core.facts(proc.instance).is_some() {
            return;
        }
        let since = self.owed.remove(&proc.instance);
        let in_time = |since| self.now + LONGEST_BACKOFF < since + STOP_TIMEOUT;
        if !proc.asked && since.is_some_and(|(since, _)| !in_time(since)) {
            self.excused.insert(shard as u32);
        }
    }

    /// Something happens to a process.
    fn goes_on(&mut self, process: ProcessId) {
        let crashes = !self.calm && self.rng.one_in(12);
        let Some(proc) = self.procs.get(&process) else {
            return;
        };
        let shard = self.shard_of(proc);
        if crashes {
            self.ends(process, signal(9));
        } else if !proc.ran {
            self.procs.get_mut(&process).expect("it is there").ran = true;
            self.give(Input::ExecSucceeded { process });
        } else if proc.asked {
            self.ends(process, ExitStatus::Code(0));
        } else if !proc.ready {
            self.procs.get_mut(&process).expect("it is there").ready = true;
            let notice = Notice::Ready;
            self.give(Input::Notified { process, notice });
        } else if (!proc.stuck || self.calm) && self.queues[shard] > 0 {
            self.queues[shard] -= 1;
            self.seen.served += 1;
        }
    }

    fn looked(&mut self) {
        if let Some(process) = self.looks.pop() {
            let proc = &self.procs[&process];
            let clients = self.queues[self.shard_of(proc)] > 0;
            self.give(Input::ShardLooked { process, clients });
        } else if std::mem::take(&mut self.counts) {
            let waiting = Some(self.queues.clone());
            let worker = APP;
            self.give(Input::QueuesSeen { worker, waiting });
        }
    }

    fn client(&mut self) {
        let shards: Vec<u32> = self.steered.iter().copied().collect();
        let shard = self.rng.pick(&shards) as usize % self.queues.len();
        self.queues[shard] += 1;
        if self.core.is_stopped(APP) {
            self.excused.insert(shard as u32);
        }
    }

    fn operate(&mut self, command: Command) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        if command == Command::Stop {
            // They wait for a start.
            self.excused.extend(0..self.queues.len() as u32);
        }
        self.give(Input::Operate {
            ticket,
            worker: APP,
            index: None,
            command,
        });
    }

    fn latest(&self) -> (Revision, Lifecycle) {
        let latest = self.core.latest(APP).expect("it is there");
        (latest, self.lives[&latest].clone())
    }

    fn reload(&mut self, after: Lifecycle) {
        let (latest, before) = self.latest();
        let same = before.distribute == after.distribute;
        let settings = same && after.rollout == before.rollout;
        match after.distribute {
            Distribute::Shards => {
                let held = self.queues.len().max(after.instances as usize);
                self.queues.resize(held, 0);
                self.seen.to_shards += u64::from(!same);
            }
            Distribute::Shared => {
                self.seen.to_shared += u64::from(!same);
            }
        }
        self.seen.shrunk += u64::from(after.instances < before.instances);
        let next = match settings {
            true => latest,
            false => Revision(latest.0 + 1),
        };
        if self.rolls && next != latest {
            // What was being tried and has crashed is not gone back to.
            self.excuse_given_up();
        }
        let life = after.clone();
        let update = match settings {
            true => WorkerUpdate::Settings { life: life.into() },
            false => WorkerUpdate::Definition { life: life.into() },
        };
        if settings {
            // What went back is tried again.
            self.lives.insert(Revision(latest.0 + 1), after.clone());
        }
        self.lives.insert(next, after);
        self.give(Input::Configure(Box::new(Configuration {
            workers: vec![(APP, update)],
            ..Configuration::default()
        })));
    }

    fn reload_at_random(&mut self) {
        let (_, before) = self.latest();
        let mut after = life(&mut self.rng);
        if self.rng.one_in(2) && before.distribute == after.distribute {
            after = Lifecycle {
                instances: after.instances,
                scaling: after.scaling,
                ..before
            };
        }
        self.reload(after);
    }

    /// Another process goes on.
    fn survive(&mut self) {
        self.core = thawed(&self.core.freeze(), &self.core);
        self.looks.clear();
        self.counts = false;
        for proc in self.procs.values_mut() {
            proc.drains = None;
        }
        self.seen.survived += 1;
        self.give(Input::Resumed);
    }

    fn time_goes_on(&mut self, most: u64) {
        let to = self.now + Duration::from_nanos(1 + self.rng.below(most));
        let due = self.core.deadline().filter(|due| *due <= to);
        self.now = due.map_or(to, |due| due.max(self.now));
        self.give(Input::Tick);
    }

    fn step(&mut self) {
        let procs: Vec<ProcessId> = self.procs.keys().copied().collect();
        match self.rng.below(62) {
            0..=24 if !procs.is_empty() => {
                let process = self.rng.pick(&procs);
                self.goes_on(process);
            }
            25..=39 => self.client(),
            40..=46 => self.looked(),
            47..=51 => self.time_goes_on(2 * SECOND),
            52 => self.operate(Command::Restart),
            53 | 54 => {
                let instances = self.rng.below(7) as u32;
                self.operate(Command::Scale(instances));
            }
            55 => self.reload_at_random(),
            56 => self.operate(Command::Start),
            57 if self.rng.one_in(4) => self.operate(Command::Stop),
            58 => self.survive(),
            59 | 60 => self.operate(Command::Follow),
            // So long that fewer may do.
            61 => self.time_goes_on(300 * SECOND),
            _ => {}
        }
    }

    /// Everything that is under way goes one step further.
    fn all_go_on(&mut self) {
        let procs: Vec<ProcessId> = self.procs.keys().copied().collect();
        for process in procs {
            self.goes_on(process);
        }
        while !self.looks.is_empty() || self.counts {
            self.looked();
        }
    }

    /// All goes well from now on, until nothing is left to do; what must hold then.
    fn rest(&mut self) {
        self.calm = true;
        self.operate(Command::Start);
        for _ in 0..ROUNDS {
            self.all_go_on();
            let busy = self.procs.values().any(|proc| !proc.ready || proc.asked);
            let served = self.procs.values();
            let waits = served
                .map(|proc| self.queues[self.shard_of(proc)])
                .sum::<u64>()
                > 0;
            if !busy && !waits && self.core.is_overridden(APP) == Some(false) {
                // Or the looks would never end.
                self.operate(Command::Scale(self.procs.len() as u32));
            }
            if !busy && !waits {
                match self.core.deadline() {
                    Some(due) => {
                        self.now = due.max(self.now);
                        self.give(Input::Tick);
                    }
                    None => return self.check_rest(),
                }
            }
        }
        panic!(
            "it never rests: {:?} {:?}",
            self.procs,
            self.core.deadline()
        );
    }

    fn check_rest(&mut self) {
        self.seen.rested += 1;
        let kinds: BTreeSet<bool> = self
            .procs
            .values()
            .map(|proc| self.is_sharded(proc.revision))
            .collect();
        if kinds.len() > 1 {
            // A rollback has left one by what it went back from: its shard is its own, and who shares the first
            // is served. Which of them that may be is the matter of `sim::rollout`.
            return;
        }
        self.seen.whole += 1;
        if self.procs.is_empty() {
            // Nobody serves: whoever waits does so until somebody does.
            return;
        }
        let numbers: BTreeSet<u32> = self.procs.values().map(|one| one.instance.index).collect();
        assert_eq!(numbers.len(), self.procs.len(), "{:?}", self.procs);
        let wanted = match kinds.contains(&true) {
            true => numbers,
            false => BTreeSet::from([0]),
        };
        if kinds.contains(&true) || self.queues.len() > 1 && self.seen.to_shared > 0 {
            assert_eq!(self.steered, wanted);
        }
        for (shard, waiting) in (0..).zip(&self.queues) {
            let is_excused = self.excused.contains(&shard) || self.is_too_late(shard);
            let may_be_left = !wanted.contains(&shard) && is_excused;
            assert!(
                *waiting == 0 || may_be_left,
                "{waiting} are left in {shard}"
            );
        }
    }
}

fn run(seed: u64, trace: Trace) -> Seen {
    let mut rng = Rng::from_seed(seed);
    let first = life(&mut rng);
    let mut life = Life::new(rng, first, trace);
    for _ in 0..4 {
        for _ in 0..150 {
            life.step();
        }
        life.rest();
        life.calm = false;
        life.excused.clear();
        life.down.clear();
        life.owed.clear();
        life.queues.iter_mut().for_each(|queue| *queue = 0);
    }
    life.seen
}

// Rule: whatever happens in whichever order, no client is sent where nobody serves while somebody does, and none is
// left in a shard but by who died, was stopped or took no clients.
#[test]
fn no_client_is_left_in_a_shard() {
    every(run);
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    /// The instance with this number dies, or the newest of several.
    Kill(u32),
    Restart,
    To(Distribute),
    Scale(u32),
    Follow,
    /// Another number in the configuration.
    Reload(u32),
    StopIt,
    StartIt,
    Upgrade,
    Time,
}

impl Life {
    fn happens(&mut self, what: Happens) {
        // Somebody comes in between, and all that is under way goes one step further.
        for _ in 0..self.steered.len() + 1 {
            self.client();
        }
        let (_, before) = self.latest();
        match what {
            Happens::Kill(index) => {
                let mut procs = self.procs.iter().rev();
                let found = procs.find(|(_, proc)| proc.instance.index == index);
                if let Some((process, _)) = found {
                    self.ends(*process, signal(9));
                }
            }
            Happens::Restart => self.operate(Command::Restart),
            Happens::To(distribute) => self.reload(Lifecycle {
                distribute,
                ..before
            }),
            Happens::Scale(instances) => self.operate(Command::Scale(instances)),
            Happens::Follow => self.operate(Command::Follow),
            Happens::Reload(instances) => self.reload(Lifecycle {
                instances,
                ..before
            }),
            Happens::StopIt => self.operate(Command::Stop),
            Happens::StartIt => self.operate(Command::Start),
            Happens::Upgrade => self.survive(),
            Happens::Time => {
                for _ in 0..3 {
                    self.now = self.now + Duration::from_secs(1);
                    self.give(Input::Tick);
                    self.all_go_on();
                }
            }
        }
        self.all_go_on();
    }
}

// Rule: the same for every order of three of these, from each kind of worker.
#[test]
fn every_order_of_what_happens_leaves_no_client() {
    use Happens::*;
    let all = [
        Kill(0),
        Kill(1),
        Restart,
        To(Distribute::Shared),
        To(Distribute::Shards),
        Scale(0),
        Scale(1),
        Scale(4),
        Follow,
        Reload(2),
        StopIt,
        StartIt,
        Upgrade,
        Time,
    ];
    let mut orders = 0;
    let mut served = 0;
    for distribute in [Distribute::Shards, Distribute::Shared] {
        for order in [Order::StartFirst, Order::StopFirst] {
            let mut first = plain(distribute, 3, order);
            first.scaling = Some(Scaling {
                max: 4,
                scale_up_at: 2,
            });
            let mut begun = Life::new(Rng::from_seed(7), first, Trace::Quiet);
            begun.calm = true;
            for _ in 0..4 {
                begun.all_go_on();
            }
            let told = |done: &[Happens]| Told(distribute, order, done.to_vec());
            orders += orders::of_three(
                vec![(begun, vec![])],
                &all,
                |life, what, done| {
                    let told = told(done);
                    life.happens(what);
                    std::mem::forget(told);
                },
                |mut life, done| {
                    let told = told(done);
                    life.rest();
                    served += life.seen.served;
                    std::mem::forget(told);
                },
            );
        }
    }
    assert_eq!(orders, 4 * all.len().pow(3));
    assert!(served > 5 * orders as u64, "{served} in {orders}");
}

/// Says what has happened when a check fails.
struct Told(Distribute, Order, Vec<Happens>);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("{:?}, {:?}: {:?}", self.0, self.1, self.2);
    }
}
