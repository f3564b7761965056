//! What was replaced and keeps its flows: everything that can happen around its end, in every order, beside a
//! made-up kernel that knows which instance has which flows.

use crate::sim::orders;
use crate::sim::survive::thawed;
use listend::config::{Presence, Ready};
use listend::core::{
    Command, Configuration, Core, Effect, ExitStatus, Input, Lane, ListenerLife, Mono, Notice,
    ProcessId, Ticket, WhenDone, WorkerUpdate,
};
use listend::plan::{Lifecycle, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const APP: WorkerId = WorkerId(0);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The sockets of one address.
#[derive(Debug, Clone, Default)]
struct Group {
    /// Whose socket gets new flows.
    present: Option<Lane>,
    /// Who has one.
    members: BTreeSet<Lane>,
    /// Nobody gets one any more.
    is_ending: bool,
}

#[derive(Debug, Clone)]
struct Process {
    lane: Lane,
    is_ready: bool,
    is_asked: bool,
}

/// A daemon with one worker, and a shell that does everything at once.
#[derive(Clone)]
struct Rig {
    core: Core,
    now: Mono,
    life: Lifecycle,
    group: Option<Group>,
    processes: BTreeMap<ProcessId, Process>,
    /// Those whose last flow is waited for, and since when.
    watched: BTreeMap<Lane, Mono>,
    /// Why a process may be asked to stop now that keeps its flows: everything ends, or these flows have.
    all_end: bool,
    quiet: BTreeSet<Lane>,
    tickets: u64,
    exited: bool,
}

fn life() -> Lifecycle {
    let mut life = Lifecycle {
        keeps_flows: true,
        ready: Ready::Notify,
        stop_timeout: Some(STOP_TIMEOUT),
        start_timeout: Some(Duration::from_secs(10)),
        ..Lifecycle::default()
    };
    life.rollout.min_ready = Duration::ZERO;
    life
}

impl Rig {
    fn new() -> Rig {
        let life = life();
        let listener = ListenerLife {
            presence: Presence::Required,
            users: vec![APP],
        };
        let core = Core::new(vec![life.clone()], WhenDone::Hold);
        let mut rig = Rig {
            core: core.with_listeners(vec![listener]),
            now: Mono(1_000_000_000),
            life,
            group: Some(Group::default()),
            processes: BTreeMap::new(),
            watched: BTreeMap::new(),
            all_end: false,
            quiet: BTreeSet::new(),
            tickets: 0,
            exited: false,
        };
        rig.give(Input::Start);
        rig.ready();
        rig
    }

    fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.perform();
    }

    fn perform(&mut self) {
        self.core.check_invariants().expect("it holds");
        while let Some(effect) = self.core.next_effect() {
            match effect {
                Effect::Spawn { process, lane, .. } => {
                    if let Some(group) = &mut self.group {
                        group.present.get_or_insert(lane);
                        if !group.is_ending || group.present == Some(lane) {
                            group.members.insert(lane);
                        }
                    }
                    let started = Process {
                        lane,
                        is_ready: false,
                        is_asked: false,
                    };
                    self.processes.insert(process, started);
                    self.give(Input::Spawned { process });
                    self.give(Input::ExecSucceeded { process });
                }
                Effect::Signal { process, .. } => self.asked(process),
                Effect::TakeFlows { worker, lane } => {
                    assert_eq!(worker, APP);
                    if let Some(group) = &mut self.group {
                        // It has the socket that they share if it has none for itself.
                        if !group.members.contains(&lane) && !group.is_ending {
                            let shared = group.present.take();
                            shared.map(|shared| group.members.remove(&shared));
                            group.members.insert(lane);
                        }
                        if group.members.contains(&lane) {
                            group.present = Some(lane);
                        }
                    }
                }
                Effect::WatchFlows { worker, lane } => {
                    assert_eq!(worker, APP);
                    match self.is_apart(lane) {
                        true => drop(self.watched.insert(lane, self.now)),
                        false => self.is_quiet(lane),
                    }
                }
                Effect::EndFlows { lane, .. } => {
                    self.watched.remove(&lane);
                    if let Some(group) = &mut self.group {
                        group.members.remove(&lane);
                        group.present = group.present.filter(|present| *present != lane);
                    }
                    self.dissolve();
                }
                Effect::Exit { .. } => self.exited = true,
                Effect::Watch { .. }
                | Effect::Unwatch { .. }
                | Effect::Emit(_)
                | Effect::Answer { .. }
                | Effect::Retire { .. }
                | Effect::CloseListeners => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether these have their flows for themselves, and no new ones.
    fn is_apart(&self, lane: Lane) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(|group| group.members.contains(&lane) && group.present != Some(lane))
    }

    fn asked(&mut self, process: ProcessId) {
        let Some(lane) = self.processes.get(&process).map(|one| one.lane) else {
            return;
        };
        if let Some(since) = self.watched.get(&lane) {
            let is_over = self.now.since(*since) >= STOP_TIMEOUT;
            let may = self.all_end || is_over || self.quiet.contains(&lane);
            assert!(may, "{process:?} still has flows: {:#?}", self.core);
        }
        if let Some(one) = self.processes.get_mut(&process) {
            one.is_asked = true;
        }
    }

    fn is_quiet(&mut self, lane: Lane) {
        self.watched.remove(&lane);
        self.quiet.insert(lane);
        self.give(Input::FlowsQuiet { worker: APP, lane });
    }

    /// A group that ends is none any more when all but the present one have gone.
    fn dissolve(&mut self) {
        let is_over = |group: &Group| {
            let mut others = group.members.iter();
            group.is_ending && others.all(|lane| Some(*lane) == group.present)
        };
        if self.group.as_ref().is_some_and(is_over) {
            self.group = None;
            self.follow();
        }
    }

    /// A socket without a group gets one if it is to have one, and who serves it is in it.
    fn follow(&mut self) {
        if self.group.is_some() || !self.life.keeps_flows {
            return;
        }
        let serves = self
            .processes
            .values()
            .find(|one| one.is_ready && !one.is_asked);
        let present = serves.map(|one| one.lane);
        self.group = Some(Group {
            present,
            members: present.into_iter().collect(),
            is_ending: false,
        });
    }

    fn reload(&mut self, keeps_flows: bool) {
        self.life.keeps_flows = keeps_flows;
        let life = self.life.clone();
        let configuration = Configuration {
            workers: vec![(APP, WorkerUpdate::Settings { life: life.into() })],
            ..Configuration::default()
        };
        // The shell follows before it does what the core wants.
        self.core
            .handle(self.now, Input::Configure(Box::new(configuration)));
        let mut quiet = Vec::new();
        if !keeps_flows && let Some(group) = &mut self.group {
            group.is_ending = true;
            quiet.extend(self.watched.keys().copied());
        }
        self.dissolve();
        self.follow();
        for lane in quiet {
            self.is_quiet(lane);
        }
        self.perform();
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

    /// What has started says that it is ready.
    fn ready(&mut self) {
        let mut all = self.processes.iter_mut();
        if let Some((process, one)) = all.find(|(_, one)| !one.is_ready && !one.is_asked) {
            one.is_ready = true;
            let (process, notice) = (*process, Notice::Ready);
            self.give(Input::Notified { process, notice });
        }
    }

    fn exits(&mut self, which: impl Fn(&Rig, &Process) -> bool, status: ExitStatus) {
        let found = self.processes.iter().find(|(_, one)| which(self, one));
        if let Some(process) = found.map(|(process, _)| *process) {
            self.processes.remove(&process);
            self.give(Input::Exited { process, status });
        }
    }

    /// Another listend goes on: what the kernel has is as it was.
    fn dies(&mut self) {
        self.core = thawed(&self.core.freeze(), &self.core);
        let before = std::mem::take(&mut self.watched);
        self.give(Input::Resumed);
        for (lane, since) in &mut self.watched {
            // Its time goes on.
            *since = before[lane];
        }
        let mut unasked = self.processes.values().filter(|one| !one.is_asked);
        let is_forgotten =
            |one: &Process| before.contains_key(&one.lane) && !self.watched.contains_key(&one.lane);
        let forgotten = unasked.find(|one| is_forgotten(one));
        assert!(forgotten.is_none(), "{forgotten:?}: {:#?}", self.core);
    }

    /// Sleeps until the core wants to be woken; whether it does.
    fn sleeps(&mut self) -> bool {
        let Some(at) = self.core.deadline() else {
            return false;
        };
        self.now = self.now.max(at);
        self.give(Input::Tick);
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    Restart,
    Ready,
    /// The last flow of the one that was replaced first is over.
    Quiet,
    /// Whatever is due comes: also the end of a drain.
    Time,
    /// One that was asked to stop has.
    Exit,
    NewCrashes,
    PresentCrashes,
    OldCrashes,
    Off,
    On,
    StopIt,
    StartIt,
    Dies,
    Stop,
}

impl Rig {
    fn happens(&mut self, what: Happens) {
        let crash = ExitStatus::Code(1);
        self.all_end |= matches!(what, Happens::StopIt | Happens::Stop);
        match what {
            Happens::Restart => self.operate(Command::Restart),
            Happens::Ready => self.ready(),
            Happens::Quiet => {
                if let Some(lane) = self.watched.keys().next().copied() {
                    self.is_quiet(lane);
                }
            }
            Happens::Time => drop(self.sleeps()),
            Happens::Exit => self.exits(|_, one| one.is_asked, ExitStatus::Code(0)),
            Happens::NewCrashes => self.exits(|_, one| !one.is_ready, crash),
            Happens::PresentCrashes => {
                let is_present =
                    |rig: &Rig, one: &Process| one.is_ready && !rig.watched.contains_key(&one.lane);
                self.exits(is_present, crash);
            }
            Happens::OldCrashes => {
                self.exits(|rig, one| rig.watched.contains_key(&one.lane), crash);
            }
            Happens::Off => self.reload(false),
            Happens::On => self.reload(true),
            Happens::StopIt => self.operate(Command::Stop),
            Happens::StartIt => self.operate(Command::Start),
            Happens::Dies if self.exited => {}
            Happens::Dies => self.dies(),
            Happens::Stop => self.give(Input::Stop),
        }
    }

    /// Everything that is under way comes to its end, and all flows are over.
    fn comes_to_rest(&mut self) {
        for _ in 0..100 {
            let quiet: Vec<Lane> = self.watched.keys().copied().collect();
            for lane in quiet {
                self.is_quiet(lane);
            }
            self.ready();
            while self.processes.values().any(|one| one.is_asked) {
                self.happens(Happens::Exit);
            }
            if !self.sleeps() && self.processes.values().all(|one| one.is_ready) {
                return;
            }
        }
        panic!("it never rests: {:#?}", self.core);
    }
}

/// Each order of three of these, from states in which something is under way.
#[test]
fn whatever_happens_flows_are_kept_as_long_as_they_may_and_somebody_gets_the_new_ones() {
    use Happens::*;
    let all = [
        Restart,
        Ready,
        Quiet,
        Time,
        Exit,
        NewCrashes,
        PresentCrashes,
        OldCrashes,
        Off,
        On,
        StopIt,
        StartIt,
        Dies,
        Stop,
    ];
    let mut rolling = Rig::new();
    rolling.happens(Restart);
    assert_eq!((rolling.processes.len(), rolling.watched.len()), (2, 0));
    let mut keeping = rolling.clone();
    for what in [Ready, Restart, Ready] {
        keeping.happens(what);
    }
    assert_eq!((keeping.processes.len(), keeping.watched.len()), (3, 2));
    let (mut kept, mut bad) = (0, Vec::new());
    // Also with another rollout under way, and with sockets that are to be shared again.
    let begun = [
        (rolling.clone(), vec![]),
        (rolling, vec![Off]),
        (keeping.clone(), vec![Restart]),
        (keeping, vec![Off, On]),
    ];
    let count = begun.len();
    let begun = begun.into_iter().map(|(mut rig, before)| {
        before.iter().for_each(|what| rig.happens(*what));
        (rig, before)
    });
    let orders = orders::of_three(
        begun.collect(),
        &all,
        |rig, what, _| rig.happens(what),
        |rig, done| {
            kept += usize::from(!rig.watched.is_empty());
            let found = wrong(rig, done);
            bad.extend(found.map(|what| (what, done.to_vec())));
        },
    );
    let some: Vec<_> = bad.iter().take(10).collect();
    assert!(some.is_empty(), "{} of {orders}: {some:#?}", bad.len());
    assert_eq!(orders, count * all.len().pow(3));
    assert!(kept > orders / 8, "{kept} of {orders}");
}

/// What is wrong in the end: there is one instance, that has all flows, or none if that is what was asked for.
fn wrong(mut rig: Rig, done: &[Happens]) -> Option<&'static str> {
    rig.comes_to_rest();
    if done.contains(&Happens::Stop) {
        let is_over = rig.exited && rig.processes.is_empty();
        return (!is_over).then_some("it has not ended");
    }
    let is_ask =
        |what: &&Happens| matches!(what, Happens::StopIt | Happens::StartIt | Happens::Restart);
    let is_stopped = done.iter().rev().find(is_ask) == Some(&Happens::StopIt);
    if is_stopped && !rig.processes.is_empty() {
        return Some("it runs, and was stopped");
    }
    // What did not run and crashes at a restart is left alone.
    if rig.processes.is_empty() {
        rig.happens(Happens::StartIt);
        rig.comes_to_rest();
    }
    let lanes: BTreeSet<Lane> = rig.processes.values().map(|one| one.lane).collect();
    if rig.processes.len() != 1 {
        return Some("not one process is left");
    }
    if rig.group.is_some() != rig.life.keeps_flows {
        return Some("the sockets are not as the configuration has it");
    }
    let group = rig.group?;
    if group.present.as_ref() != lanes.first() {
        return Some("new flows go to nobody");
    }
    (group.members != lanes || group.is_ending).then_some("sockets are left")
}
