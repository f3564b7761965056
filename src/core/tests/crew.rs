//! A worker whose processes start at once, and do further only what a test says.

use super::*;
use std::collections::BTreeMap;

/// No signals.
pub(super) const NONE: [i32; 0] = [];
pub(super) const APP: WorkerId = WorkerId(0);
const FIRST: Revision = Revision(1);

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) instance: InstanceId,
    pub(super) revision: Revision,
    pub(super) task: Task,
}

pub(super) struct Crew {
    pub(super) core: Core,
    pub(super) now: Mono,
    pub(super) processes: BTreeMap<ProcessId, Process>,
    /// Everything that the core wanted since the last [`Crew::forget`].
    pub(super) effects: Vec<Effect>,
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An instance of the only worker.
pub(super) fn app(index: u32, generation: u32) -> InstanceId {
    InstanceId {
        worker: APP,
        index,
        generation,
    }
}

/// A lifecycle with something changed about it.
pub(super) fn life(change: impl Fn(&mut Lifecycle)) -> Lifecycle {
    let mut life = Lifecycle::default();
    change(&mut life);
    life
}

impl Crew {
    pub(super) fn new(change: impl Fn(&mut Lifecycle)) -> Crew {
        Crew::of(Core::new(vec![life(change)], WhenDone::Hold))
    }

    pub(super) fn of(core: Core) -> Crew {
        let mut crew = Crew {
            core,
            now: Mono(0),
            processes: BTreeMap::new(),
            effects: Vec::new(),
        };
        crew.give(Input::Start);
        crew
    }

    pub(super) fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.take();
    }

    pub(super) fn take(&mut self) {
        self.core.check_invariants().unwrap();
        while let Some(effect) = self.core.next_effect() {
            self.effects.push(effect.clone());
            if let Effect::Spawn {
                process,
                instance,
                revision,
                task,
                ..
            } = effect
            {
                let new = Process {
                    instance,
                    revision,
                    task,
                };
                self.processes.insert(process, new);
                self.core.handle(self.now, Input::Spawned { process });
                self.core.handle(self.now, Input::ExecSucceeded { process });
                self.core.check_invariants().unwrap();
            }
        }
    }

    pub(super) fn forget(&mut self) {
        self.effects.clear();
    }

    /// Lets time pass, and does what is due on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.give(Input::Tick);
        }
        self.now = end;
    }

    pub(super) fn ask(&mut self, command: Command) {
        let (ticket, worker) = (Ticket(1), APP);
        self.give(Input::Operate {
            ticket,
            worker,
            index: None,
            command,
        });
    }

    pub(super) fn reload(&mut self, change: WorkerUpdate) {
        let configuration = Configuration {
            ticket: Some(Ticket(2)),
            workers: vec![(APP, change)],
            ..Configuration::default()
        };
        self.give(Input::Configure(Box::new(configuration)));
    }

    /// The process that runs for an instance.
    pub(super) fn find(&self, instance: InstanceId, task: Task) -> Option<ProcessId> {
        let mut all = self.processes.iter();
        let found = all.find(|(_, one)| one.instance == instance && one.task == task);
        found.map(|(process, _)| *process)
    }

    pub(super) fn program(&self, instance: InstanceId) -> ProcessId {
        self.find(instance, Task::Program).expect("it runs")
    }

    pub(super) fn hook(&self, instance: InstanceId, kind: HookKind) -> ProcessId {
        self.find(instance, Task::Hook(kind)).expect("it runs")
    }

    pub(super) fn exits(&mut self, process: ProcessId, status: ExitStatus) {
        self.processes.remove(&process).expect("it runs");
        self.give(Input::Exited { process, status });
    }

    pub(super) fn says(&mut self, instance: InstanceId, notice: Notice) {
        let process = self.program(instance);
        self.give(Input::Notified { process, notice });
    }

    /// The signals that went to a process.
    pub(super) fn signals(&self, process: ProcessId) -> Vec<i32> {
        let signal = |effect: &Effect| match effect {
            Effect::Signal {
                process: to,
                signal,
                ..
            } if *to == process => Some(*signal),
            _ => None,
        };
        self.effects.iter().filter_map(signal).collect()
    }

    /// The instances whose programs run, with what they run by.
    pub(super) fn programs(&self) -> Vec<(InstanceId, Revision)> {
        let all = self.processes.values();
        let programs = all.filter(|one| one.task == Task::Program);
        let mut programs: Vec<_> = programs.map(|one| (one.instance, one.revision)).collect();
        programs.sort();
        programs
    }

    /// Those of the first definition.
    pub(super) fn first(instances: &[InstanceId]) -> Vec<(InstanceId, Revision)> {
        instances.iter().map(|one| (*one, FIRST)).collect()
    }

    pub(super) fn answers(&self) -> Vec<Answer> {
        let answer = |effect: &Effect| match effect {
            Effect::Answer { answer, .. } => Some(answer.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(answer).collect()
    }

    pub(super) fn told(&self, event: Event) -> bool {
        self.effects.contains(&Effect::Emit(event))
    }

    pub(super) fn count(&self, wanted: impl Fn(&Effect) -> bool) -> usize {
        self.effects.iter().filter(|effect| wanted(effect)).count()
    }

    pub(super) fn state(&self, instance: InstanceId) -> State {
        self.core.state(instance).expect("it is there")
    }
}
