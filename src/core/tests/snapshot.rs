//! What a snapshot holds, and what becomes of what was half done.

use super::pictures::{Random, any_input, any_life};
use super::*;
use crate::config::Presence;
use crate::core::snapshot::{Change, Snapshot};
use crate::core::types::Phase;
use crate::plan::{ListenerId, SocketKey};
use std::collections::BTreeSet;

const LISTENERS: u32 = 2;
const APP: WorkerId = WorkerId(0);

/// A core that lives at random.
struct Walk {
    random: Random,
    core: Core,
    now: Mono,
    /// The workers that there were.
    workers: u32,
    accepts: Vec<ConnectionId>,
}

impl Walk {
    fn new(seed: u64, life: impl Fn(&mut Random) -> Lifecycle) -> Walk {
        let mut random = Random(seed);
        let listeners = (0..LISTENERS).map(|_| any_listener(&mut random, &[APP]));
        let listeners = listeners.collect();
        let core = Core::new(vec![life(&mut random)], WhenDone::Hold).with_listeners(listeners);
        let mut walk = Walk {
            random,
            core,
            now: Mono(1),
            workers: 1,
            accepts: Vec::new(),
        };
        walk.handle(Input::Start);
        walk
    }

    fn handle(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.take();
    }

    fn take(&mut self) {
        self.core.check_invariants().unwrap();
        self.accepts.clear();
        while let Some(effect) = self.core.next_effect() {
            if let Effect::Accept { connection, .. } = effect {
                self.accepts.push(connection);
            }
        }
    }

    /// Something that happens.
    fn step(&mut self) -> Input {
        match self.random.below(100) {
            0 if self.random.below(4) == 0 => Input::Stop,
            1..=12 => self.of_a_listener(),
            13..=20 => Input::Looked {
                worker: APP,
                waiting: self.random.one_of(&[Waiting::TheSame, Waiting::Nobody]),
            },
            21..=35 => {
                self.now = self.core.deadline().unwrap_or(self.now).max(self.now);
                Input::Tick
            }
            _ => any_input(&mut self.random, &self.core, &self.accepts),
        }
    }

    fn of_a_listener(&mut self) -> Input {
        let listener = ListenerId(self.random.below(LISTENERS as usize) as u32);
        let socket = SocketKey(self.random.below(2) as u32);
        let by = self
            .random
            .one_of(&[Repaired::SameSocket, Repaired::AnotherSocket]);
        match self.random.below(9) {
            0 | 1 => damaged(listener, socket),
            2 => Input::SocketHeld { listener, socket },
            3 => Input::RepairFailed { listener, socket },
            4 => Input::AddressesChanged,
            5 => Input::ListenerRepaired {
                listener,
                socket,
                by,
            },
            6 => Input::ListenerMissing {
                listener,
                why: self.random.one_of(&[Missing::Address, Missing::Other]),
            },
            _ => Input::ListenerBound { listener },
        }
    }

    /// The configuration is read again.
    fn reload(&mut self, life: impl Fn(&mut Random) -> Lifecycle) {
        let life = life(&mut self.random);
        let worker = WorkerId(self.random.below(self.workers as usize) as u32);
        let change = match self.random.below(8) {
            0 => (worker, WorkerUpdate::Removed),
            1 => (worker, WorkerUpdate::Settings { life: life.into() }),
            2 => {
                self.workers += 1;
                (
                    WorkerId(self.workers - 1),
                    WorkerUpdate::Added { life: life.into() },
                )
            }
            _ => (worker, WorkerUpdate::Definition { life: life.into() }),
        };
        let mut configuration = Configuration {
            workers: vec![change],
            ..Configuration::default()
        };
        if self.random.yes() {
            configuration.final_for.insert(worker);
        }
        self.handle(Input::Configure(Box::new(configuration)));
    }

    /// One step, of whatever kind.
    fn live(&mut self, life: impl Fn(&mut Random) -> Lifecycle) {
        if self.random.below(25) == 0 {
            return self.reload(life);
        }
        let input = self.step();
        self.handle(input);
    }
}

fn any_listener(random: &mut Random, users: &[WorkerId]) -> ListenerLife {
    ListenerLife {
        presence: random.one_of(&[
            Presence::Required,
            Presence::Optional,
            Presence::WaitFor(Duration::from_secs(5)),
        ]),
        users: users.to_vec(),
    }
}

/// A snapshot as it is read in another process.
fn read(changes: &[Change]) -> Snapshot {
    let lines: Vec<String> = changes.iter().map(Change::text).collect();
    let head = r#"{"kind":"snapshot","format":1}"#;
    let lines = [head].into_iter().chain(lines.iter().map(String::as_str));
    Snapshot::read(lines).unwrap().snapshot
}

/// Fails with what is different.
#[track_caller]
fn expect_same(left: &Snapshot, right: &Snapshot, seed: u64) {
    let lines = |snapshot: &Snapshot| -> BTreeSet<String> {
        snapshot.changes().map(|change| change.text()).collect()
    };
    let (left, right) = (lines(left), lines(right));
    let different: Vec<&String> = left.symmetric_difference(&right).collect();
    assert!(different.is_empty(), "seed {seed}: {different:#?}");
}

fn thawed(core: &Core) -> Core {
    let written: Vec<Change> = core.freeze().changes().collect();
    let snapshot = read(&written);
    expect_same(&snapshot, &core.freeze(), 0);
    Core::thaw(&snapshot, core.known()).unwrap_or_else(|why| panic!("{why}\n{:#?}", core.workers))
}

#[test]
fn the_changes_add_up_to_the_snapshot_and_the_snapshot_to_the_core() {
    for seed in 0..100 {
        let mut walk = Walk::new(seed, any_life);
        let mut sum = Snapshot::default();
        for _ in 0..80 {
            walk.live(any_life);
            if walk.core.ctx.phase == Phase::Exited {
                break;
            }
            if walk.random.below(3) > 0 {
                let changes = walk.core.take_changes();
                for line in changes
                    .iter()
                    .map(|change| read(std::slice::from_ref(change)))
                {
                    assert!(line.facts.len() < 2);
                }
                changes.into_iter().for_each(|change| sum.apply(change));
                expect_same(&sum, &walk.core.freeze(), seed);
            }
            if walk.random.below(4) > 0 {
                continue;
            }
            let again = thawed(&walk.core);
            expect_same(&again.freeze(), &walk.core.freeze(), seed);
        }
    }
}

/// Whether nothing is under way whose rule changes it.
fn is_at_rest(core: &Core) -> bool {
    let asked_for = |run: &run::Run| match &run.state {
        State::Starting { launch, .. } => {
            !matches!(launch, Launch::Execing | Launch::Failed { .. })
        }
        _ => false,
    };
    let at_rest = |worker: &worker::Worker| {
        let mut hooks = worker.helpers.running();
        worker.gate.looking.is_none()
            && hooks.all(|(_, helper)| helper.exists)
            && !worker.runs.all().any(asked_for)
    };
    let mut missing = core.ctx.listeners.missing.values();
    core.ctx.accepting.is_empty()
        && !missing.any(|absence| absence.trying)
        && core.ctx.phase == Phase::Running
        && core.workers.values().all(at_rest)
}

#[test]
fn a_core_that_is_thawed_goes_on_as_the_one_before() {
    let life = |random: &mut Random| Lifecycle {
        watchdog: None,
        ..any_life(random)
    };
    let mut compared = 0;
    for seed in 0..300 {
        let mut walk = Walk::new(seed, life);
        for _ in 0..40 {
            walk.live(life);
        }
        if !is_at_rest(&walk.core) {
            continue;
        }
        let mut again = thawed(&walk.core);
        again.handle(walk.now, Input::Resumed);
        again.handle(walk.now, Input::Tick);
        while again.next_effect().is_some() {}
        walk.handle(Input::Tick);
        for _ in 0..40 {
            expect_same(&again.freeze(), &walk.core.freeze(), seed);
            assert_eq!(again.deadline(), walk.core.deadline(), "seed {seed}");
            compared += 1;
            let input = walk.step();
            walk.handle(input.clone());
            again.handle(walk.now, input);
            while again.next_effect().is_some() {}
        }
    }
    assert!(compared > 1000, "{compared}");
}

#[test]
fn after_a_crash_it_goes_on_with_what_was_written_last() {
    let mut thaws = 0;
    for seed in 0..300 {
        let mut walk = Walk::new(seed, any_life);
        for _ in 0..4 {
            for _ in 0..walk.random.below(30) {
                walk.live(any_life);
            }
            if walk.core.ctx.phase == Phase::Exited {
                break;
            }
            let (snapshot, known) = (walk.core.freeze(), walk.core.known());
            // What happened meanwhile was not written.
            let mut lost = walk.core.clone();
            for _ in 0..walk.random.below(3) {
                let input = any_input(&mut walk.random, &lost, &[]);
                lost.handle(walk.now, input);
            }
            let left: BTreeSet<ProcessId> = lost.processes().collect();
            walk.core = Core::thaw(&snapshot, known).unwrap();
            walk.accepts.clear();
            thaws += 1;
            let expected: Vec<ProcessId> = walk.core.processes().collect();
            for process in expected {
                if !left.contains(&process) || walk.random.below(4) == 0 {
                    let status = ExitStatus::Unknown;
                    walk.handle(Input::Exited { process, status });
                }
            }
            let open: Vec<ConnectionId> = walk.core.open_connections().collect();
            for connection in open {
                walk.handle(Input::ConnectionLost { connection });
            }
            walk.handle(Input::Resumed);
            let ignored = walk.core.ignored_inputs();
            walk.handle(Input::Resumed);
            assert_eq!(walk.core.ignored_inputs(), ignored + 1, "it comes once");
            assert_eq!(walk.core.open_connections().count(), 0);
            let waits = |run: &run::Run| run.state.is_asked_for();
            // Only what is asked for anew.
            let asked = walk.core.workers.values().flat_map(|one| one.runs.all());
            let asked = asked.filter(|run| waits(run));
            let first = snapshot_next_process(&snapshot);
            assert!(asked.into_iter().all(|run| run.state.process() >= first));
        }
        come_to_rest(&mut walk, seed);
    }
    assert!(thaws > 600, "{thaws}");
}

fn snapshot_next_process(snapshot: &Snapshot) -> Option<ProcessId> {
    let line = snapshot.changes().next().unwrap().text();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    value["next_process"].as_u64().map(ProcessId)
}

/// Whatever the state is, a stop leads to the end.
fn come_to_rest(walk: &mut Walk, seed: u64) {
    for _ in 0..2 {
        walk.handle(Input::Stop);
    }
    for _ in 0..200 {
        let ctx = &walk.core.ctx;
        if ctx.phase == Phase::Exited {
            return;
        }
        let all = ctx.processes.keys().chain(ctx.hooks.keys());
        let accepting: Vec<ConnectionId> = ctx.accepting.keys().copied().collect();
        for process in all.copied().collect::<Vec<_>>() {
            let status = killed_by(SIGKILL);
            walk.handle(Input::Spawned { process });
            walk.handle(Input::ExecSucceeded { process });
            walk.handle(Input::Exited { process, status });
        }
        for connection in accepting {
            let why = NotAccepted::Gone;
            walk.handle(Input::NotAccepted { connection, why });
        }
    }
    panic!("seed {seed}: it never ends: {:#?}", walk.core);
}

/// A number that is another, a fact that is not there, a word that is not known.
fn damage(random: &mut Random, line: &str) -> Option<String> {
    let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
    let mut at = &mut value;
    loop {
        let count = match at {
            serde_json::Value::Object(object) => object.len(),
            serde_json::Value::Array(array) => array.len(),
            _ => 0,
        };
        if count == 0 {
            break;
        }
        let which = random.below(count);
        at = match at {
            serde_json::Value::Object(object) => object.values_mut().nth(which).unwrap(),
            serde_json::Value::Array(array) => &mut array[which],
            _ => break,
        };
    }
    *at = match (&*at, random.below(6)) {
        (_, 0) => return None,
        (serde_json::Value::Bool(is), _) => (!is).into(),
        (serde_json::Value::Number(_), 1) => u64::MAX.into(),
        (serde_json::Value::Number(_), 2) => u32::MAX.into(),
        (serde_json::Value::Number(number), 3) => {
            number.as_u64().unwrap_or(0).wrapping_add(1).into()
        }
        (serde_json::Value::Number(_), _) => random.below(4).into(),
        (serde_json::Value::String(_), 1) => "stopped".into(),
        (serde_json::Value::String(_), 2) => "instance".into(),
        (serde_json::Value::String(_), 3) => "leaving".into(),
        _ => serde_json::Value::Null,
    };
    Some(value.to_string())
}

#[test]
fn a_damaged_snapshot_is_refused_or_does_no_harm() {
    let (mut refused, mut used) = (0, 0);
    for seed in 0..2000 {
        let mut walk = Walk::new(seed, any_life);
        for _ in 0..walk.random.below(60) {
            walk.live(any_life);
        }
        let mut lines: Vec<String> = walk.core.freeze().changes().map(|c| c.text()).collect();
        for _ in 0..1 + walk.random.below(2) {
            let at = walk.random.below(lines.len());
            match damage(&mut walk.random, &lines[at]) {
                Some(line) => lines[at] = line,
                None => drop(lines.remove(at)),
            }
            if lines.is_empty() {
                break;
            }
        }
        let head = r#"{"kind":"snapshot","format":1}"#;
        let lines = [head].into_iter().chain(lines.iter().map(String::as_str));
        let read = Snapshot::read(lines);
        let core = read.and_then(|read| Core::thaw(&read.snapshot, walk.core.known()));
        let Ok(core) = core else {
            refused += 1;
            continue;
        };
        used += 1;
        let last = core.ids().last().map_or(0, |id| id.0);
        walk.workers = last.saturating_add(1);
        walk.core = core;
        walk.handle(Input::Resumed);
        for _ in 0..40 {
            match last < 10 {
                true => walk.live(any_life),
                false => {
                    let input = walk.step();
                    walk.handle(input);
                }
            }
        }
    }
    assert!(
        refused > 200 && used > 200,
        "{refused} refused, {used} used"
    );
}

#[test]
fn a_snapshot_says_how_far_listend_was() {
    let mut crew = super::crew::Crew::new(|_| ());
    let phase = |core: &Core| {
        let snapshot = core.freeze();
        (snapshot.is_stopping(), snapshot.is_over())
    };
    assert_eq!(phase(&crew.core), (false, false));
    for _ in 0..2 {
        crew.give(Input::Stop);
        assert_eq!(phase(&crew.core), (true, false));
    }
    crew.exits(crew.program(APP_0), ExitStatus::Code(0));
    assert_eq!(phase(&crew.core), (false, true));
    let nothing = Snapshot::default();
    assert_eq!((nothing.is_stopping(), nothing.is_over()), (false, false));
}

#[test]
fn what_is_no_fact_is_told_from_what_is_no_json() {
    let why = |line| Snapshot::read([line]).unwrap_err().to_string();
    assert!(why("[1]").contains("a line is no fact"), "{}", why("[1]"));
    let half = r#"{"kind":"run""#;
    assert!(why(half).contains("is not JSON"), "{}", why(half));
}

#[test]
fn what_there_is_several_of_has_a_number() {
    use crate::core::snapshot::Key;
    for (key, number) in [
        (Key::Daemon, None),
        (Key::Worker(WorkerId(3)), Some(3)),
        (Key::Connections(WorkerId(4)), Some(4)),
        (Key::Run(5), Some(5)),
        (Key::Hook(ProcessId(6)), Some(6)),
        (Key::Listener(ListenerId(7)), Some(7)),
    ] {
        assert_eq!(key.number(), number, "{key:?}");
    }
}

/// Whether the facts of a core are refused after something was changed about those of a kind.
fn is_refused(core: &Core, kind: &str, change: impl Fn(&mut serde_json::Value)) -> bool {
    let snapshot = core.freeze();
    let lines = snapshot.changes().map(|one| {
        let mut fact: serde_json::Value = serde_json::from_str(&one.text()).unwrap();
        if fact["kind"] == kind {
            change(&mut fact);
        }
        fact.to_string()
    });
    let head = r#"{"kind":"snapshot","format":1}"#.to_owned();
    let lines: Vec<String> = std::iter::once(head).chain(lines).collect();
    let read = Snapshot::read(lines.iter().map(String::as_str)).unwrap();
    Core::thaw(&read.snapshot, core.known()).is_err()
}

#[test]
fn numbers_that_no_core_comes_to_are_refused() {
    const MANY: u32 = 1 << 31;
    let mut crew = super::crew::Crew::new(|life| life.rollout.min_ready = Duration::from_secs(5));
    crew.reload(WorkerUpdate::Definition {
        life: Lifecycle::default().into(),
    });
    let core = &crew.core;
    assert!(!is_refused(core, "worker", |_| {}));
    let latest = |fact: &mut serde_json::Value| fact["latest"] = MANY.into();
    assert!(is_refused(core, "worker", latest));
    let of_rollout = |key: &'static str, number: u32| {
        is_refused(core, "worker", |fact| {
            assert!(fact["rollout"][key].is_u64(), "{fact}");
            fact["rollout"][key] = number.into();
        })
    };
    assert!(of_rollout("done", MANY));
    assert!(of_rollout("of", MANY));
    assert!(of_rollout("from_generation", MANY));
    assert!(is_refused(core, "run", |fact| fact["generation"] = MANY.into()));
}

#[test]
fn what_was_closed_and_is_not_missing_is_refused() {
    let listener = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let core = Core::new(vec![Lifecycle::default()], WhenDone::Hold);
    let mut core = core.with_listeners(vec![listener]);
    core.handle(Mono(1), Input::Start);
    let (listener, why) = (ListenerId(0), Missing::Other);
    core.handle(Mono(1), Input::ListenerMissing { listener, why });
    assert!(!is_refused(&core, "listener", |_| {}));
    for key in ["refusing", "vacated"] {
        assert!(is_refused(&core, "listener", |fact| {
            fact[key] = true.into();
            fact.as_object_mut().unwrap().remove("missing");
        }));
    }
}

#[test]
fn how_often_one_was_missed_is_kept() {
    let mut core = Core::new(vec![Lifecycle::default()], WhenDone::Hold);
    core.workers.get_mut(&APP).unwrap().follows.missed = 3;
    assert_eq!(thawed(&core).workers[&APP].follows.missed, 3);
}
