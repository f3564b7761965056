//! The made-up kernel: what happens to processes, and in which order the core hears of it.

use crate::sim::life::{Grammar, Life, Misery, Mood, Spawn};
use crate::sim::random::{is_rest_asked, signal};
use listend::core::{
    ConnectionId, Evidence, ExitStatus, HookKind, Input, InstanceId, Mono, NotAccepted, Notice,
    ProcessId, Revision, Task, Waiting,
};
use listend::plan::{ListenerId, SocketKey, WorkerId};
use listend::stage::{LaunchFailure, Stage};

const EAGAIN: i32 = 11;

/// What the kernel, and the core through its inputs, know of one process.
#[derive(Debug, Clone)]
pub(crate) struct Proc<Role> {
    pub(crate) instance: InstanceId,
    pub(crate) revision: Revision,
    pub(crate) task: Task,
    pub(crate) role: Role,
    pub(crate) wanted_at: Mono,
    /// `Spawned` was handed in.
    pub(crate) known: bool,
    pub(crate) spawned_at: Mono,
    /// It does not care about the stop signal.
    pub(crate) deaf: bool,
    /// What the exec came to, once it did.
    pub(crate) exec: Option<Result<(), LaunchFailure>>,
    pub(crate) exec_told: bool,
    pub(crate) exec_told_at: Mono,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) exit_told: bool,
    pub(crate) exit_told_at: Mono,
    /// When it was told that it has ended, and others of its process group go on.
    pub(crate) main_told: Option<Mono>,
    /// Those have to be sent the stop signal.
    pub(crate) rest_due: bool,
    /// It has said that it ends by itself.
    pub(crate) ends: bool,
    /// It was not ready in time, or gave no sign of life.
    pub(crate) unwell: bool,
    /// When it was asked to end.
    pub(crate) asked: Option<Mono>,
    pub(crate) killed: bool,
}

impl<Role> Proc<Role> {
    pub(crate) fn new(spawn: Spawn, role: Role, deaf: bool, now: Mono) -> Proc<Role> {
        Proc {
            instance: spawn.instance,
            revision: spawn.revision,
            task: spawn.task,
            role,
            wanted_at: now,
            known: false,
            spawned_at: now,
            deaf,
            exec: None,
            exec_told: false,
            exec_told_at: now,
            exit: None,
            exit_told: false,
            exit_told_at: now,
            main_told: None,
            rest_due: false,
            ends: false,
            unwell: false,
            asked: None,
            killed: false,
        }
    }

    pub(crate) fn hook(&self) -> Option<HookKind> {
        match self.task {
            Task::Program => None,
            Task::Hook(kind) => Some(kind),
        }
    }
}

impl<G: Grammar> Life<G> {
    /// One thing happens to one process.
    pub(crate) fn kernel(&mut self) {
        let ids: Vec<_> = self.processes.keys().copied().collect();
        if !ids.is_empty() {
            let process = self.rng.pick(&ids);
            self.happens(process);
        }
    }

    /// The next thing happens to a process, or is told of it; whether there was anything.
    pub(crate) fn happens(&mut self, process: ProcessId) -> bool {
        let fate = match self.mood {
            Mood::Wild => self.rng.below(10),
            Mood::Useless(_) => self.rng.pick(&[0, 0, 0, 5]),
            Mood::Good => 0,
        };
        let Some(proc) = self.processes.get(&process) else {
            return false;
        };
        match (&proc.exec, proc.exit) {
            _ if !proc.known => self.tell_spawn(process),
            (None, _) => self.execs(process, fate),
            (Some(Ok(())), None) if !proc.exec_told && fate < G::TOLD => self.tell_exec(process),
            (Some(_), None) => self.runs(process, fate),
            // The two descriptors become readable in any order.
            (Some(_), Some(_)) if !proc.exec_told && (fate < 5 || proc.exit_told) => {
                self.tell_exec(process)
            }
            (Some(_), Some(status)) => {
                let all = proc.main_told.is_none() || proc.killed || self.mood != Mood::Wild;
                let ends = !proc.exit_told && (all || fate < 4 && !proc.deaf);
                ends && self.tell_exit(process, status)
            }
        }
    }

    /// A process gets to its program, or not.
    fn execs(&mut self, process: ProcessId, fate: u64) -> bool {
        let (failure, status) = (self.failure(), self.any_status());
        let proc = self.processes.get_mut(&process).expect("it is there");
        let [well, said] = G::LAUNCHES;
        (proc.exec, proc.exit) = if fate < well {
            (Some(Ok(())), None)
        } else if fate < said {
            (Some(Err(failure)), Some(ExitStatus::Code(127)))
        } else {
            // Killed from outside before its exec: the pipe closes without a word.
            (Some(Ok(())), Some(status))
        };
        true
    }

    /// A running program works, or ends.
    fn runs(&mut self, process: ProcessId, fate: u64) -> bool {
        let is_calm = self.mood == Mood::Good;
        let proc = self.processes.get_mut(&process).expect("it is there");
        if proc.hook().is_some() {
            proc.exit = match fate {
                0..6 => Some(ExitStatus::Code(0)),
                6..8 => Some(ExitStatus::Code(1)),
                // It hangs.
                _ => None,
            };
            return true;
        }
        if (proc.asked.is_some() || proc.ends) && (is_calm || !proc.deaf) {
            let status = [ExitStatus::Code(0), signal(15)][usize::from(fate >= 5)];
            proc.exit = Some(status);
            return true;
        }
        G::works(self, process, fate)
    }

    fn tell_spawn(&mut self, process: ProcessId) -> bool {
        let fails = match self.mood {
            Mood::Wild => self.rng.one_in(10),
            Mood::Useless(misery) => misery == Misery::Launches,
            Mood::Good => false,
        };
        if fails {
            let (stage, errno) = self.rng.pick(&[
                (Stage::Fork, EAGAIN),
                (Stage::Prepare, 2),
                (Stage::RuntimeDirectory, 13),
            ]);
            let detail = 0;
            let failure = LaunchFailure {
                stage,
                errno,
                detail,
                reason: None,
            };
            let mut proc = self.processes.remove(&process).expect("it is there");
            self.gone.push(process);
            proc.exec = Some(Err(failure.clone()));
            G::ended(self, process, &proc);
            self.give(Input::LaunchFailed { process, failure });
        } else {
            let proc = self.processes.get_mut(&process).expect("it is there");
            proc.known = true;
            proc.spawned_at = self.now;
            self.give(Input::Spawned { process });
        }
        true
    }

    fn tell_exec(&mut self, process: ProcessId) -> bool {
        let now = self.now;
        let proc = self.processes.get_mut(&process).expect("it is there");
        proc.exec_told = true;
        proc.exec_told_at = now;
        let input = match proc.exec.clone().expect("decided before") {
            Ok(()) => {
                G::runs(self, process);
                Input::ExecSucceeded { process }
            }
            Err(failure) => Input::LaunchFailed { process, failure },
        };
        self.over(process);
        self.give(input);
        true
    }

    fn tell_exit(&mut self, process: ProcessId, status: ExitStatus) -> bool {
        let leaves_others = self.mood == Mood::Wild && self.rng.one_in(5);
        let proc = &self.processes[&process];
        let ran = proc.exec_told && proc.exec == Some(Ok(())) && proc.hook().is_none();
        if leaves_others && ran && !proc.killed && proc.main_told.is_none() {
            return self.tell_main_exit(process, status);
        }
        let proc = self.processes.get_mut(&process).expect("just seen");
        proc.exit_told = true;
        proc.exit_told_at = proc.main_told.unwrap_or(self.now);
        self.counts.exit_first += u64::from(!proc.exec_told);
        self.over(process);
        self.give(Input::Exited { process, status });
        true
    }

    /// Others of its process group go on.
    fn tell_main_exit(&mut self, process: ProcessId, status: ExitStatus) -> bool {
        self.counts.rests += 1;
        let proc = &self.processes[&process];
        let was_asked = self.core.state(proc.instance);
        let was_asked = was_asked.is_some_and(|state| state.ending().is_some());
        // What ends by itself, or was not well, may have been asked to stop after that.
        let perhaps = proc.ends || proc.unwell;
        let rest_due = perhaps || is_rest_asked(self.own.lifecycle(proc), was_asked, status);
        let proc = self.processes.get_mut(&process).expect("just seen");
        proc.main_told = Some(self.now);
        proc.rest_due = rest_due;
        self.give(Input::MainExited { process, status });
        self.catch_up();
        let left = self.processes.get(&process).filter(|proc| proc.rest_due);
        assert!(
            perhaps || left.is_none(),
            "nobody has asked what is left of {left:?}"
        );
        true
    }

    /// Forgets a process if all is told about it. The core waits for the exit of a hook only.
    pub(crate) fn over(&mut self, process: ProcessId) {
        let proc = &self.processes[&process];
        if proc.exit_told && (proc.exec_told || proc.hook().is_some()) {
            let proc = self.processes.remove(&process).expect("just seen");
            self.gone.push(process);
            G::ended(self, process, &proc);
        }
    }

    /// A step after fork(2) that fails.
    fn failure(&mut self) -> LaunchFailure {
        let stage = self.rng.pick(&Stage::ALL[3..]);
        LaunchFailure {
            stage,
            errno: self.rng.pick(G::ERRORS),
            detail: 0,
            reason: Some(stage.phrase().to_owned()),
        }
    }

    pub(crate) fn any_status(&mut self) -> ExitStatus {
        match self.rng.below(3) {
            0 => ExitStatus::Code(0),
            1 => ExitStatus::Code(1 + self.rng.below(254) as i32),
            _ => signal(
                self.rng
                    .pick(&[1, 2, 3, 4, 6, 7, 9, 10, 11, 13, 14, 15, 24, 31, 34]),
            ),
        }
    }

    /// News of what is gone, never was, or was said already.
    pub(crate) fn nonsense(&mut self) {
        const NEVER: u64 = 1_000_000;
        let (status, failure) = (self.any_status(), self.failure());
        let programs = self.processes.iter().filter(|(_, p)| p.hook().is_none());
        let live: Vec<_> = programs.map(|(id, _)| *id).collect();
        let (notice, evidence) = (Notice::Ready, Evidence::Seen);
        let mut news = Vec::new();
        if self.rng.one_in(3) && !live.is_empty() {
            let process = self.rng.pick(&live);
            let proc = &self.processes[&process];
            if proc.known {
                news.push(Input::Spawned { process });
            }
            if proc.exec_told {
                news.push(Input::ExecSucceeded { process });
                news.push(Input::LaunchFailed { process, failure });
            }
            if proc.exit_told {
                news.push(Input::Exited { process, status });
            }
        } else {
            let process = match self.gone.as_slice() {
                gone if !gone.is_empty() && self.rng.one_in(2) => self.rng.pick(gone),
                _ => ProcessId(NEVER + self.rng.below(1000)),
            };
            let connection = G::stale(self).unwrap_or(ConnectionId(NEVER));
            let errno = 2;
            let why = self
                .rng
                .pick(&[NotAccepted::Gone, NotAccepted::Exhausted { errno }]);
            news.extend([
                Input::Exited { process, status },
                Input::LaunchFailed { process, failure },
                Input::ExecSucceeded { process },
                Input::Spawned { process },
                Input::MainExited { process, status },
                Input::Notified { process, notice },
                Input::Evidence { process, evidence },
                Input::Accepted {
                    connection,
                    source: crate::sim::random::source(&mut self.rng),
                },
                Input::NotAccepted { connection, why },
                Input::Looked {
                    worker: WorkerId(99),
                    waiting: Waiting::TheSame,
                },
                Input::ClientWaits {
                    listener: ListenerId(99),
                    socket: SocketKey(0),
                },
            ]);
        }
        for input in news {
            self.counts.nonsense += 1;
            let before = self.core.ignored_inputs();
            self.give(input.clone());
            let after = self.core.ignored_inputs();
            assert_eq!(after, before + 1, "{input:?} had an effect");
        }
    }
}
