//! The made-up kernel: what happens to processes, and in which order the core hears of it.

use crate::sim::random::{is_rest_asked, signal};
use crate::sim::workers::life::Life;
use listend::core::{ExitStatus, Input, InstanceId, Launch, Mono, ProcessId, State};
use listend::stage::{LaunchFailure, Stage};

/// What the kernel, and the core through its inputs, know of one process.
#[derive(Debug, Clone)]
pub(crate) struct Proc {
    pub(crate) instance: InstanceId,
    /// `Spawned` was handed in.
    pub(crate) known: bool,
    pub(crate) spawned_at: Mono,
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
    pub(crate) asked: bool,
    pub(crate) killed: bool,
}

impl Proc {
    pub(crate) fn new(instance: InstanceId, deaf: bool, now: Mono) -> Proc {
        Proc {
            instance,
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
            asked: false,
            killed: false,
        }
    }
}

impl Life {
    /// One thing happens to one process.
    pub(crate) fn kernel(&mut self) {
        let ids: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, p)| p.known)
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() {
            return self.answer();
        }
        let process = self.rng.pick(&ids);
        let status = self.any_status();
        let fate = self.rng.below(8);
        let failure = self.failure();
        let proc = self.processes.get_mut(&process).expect("just listed");
        match (proc.exec, proc.exit) {
            (None, None) if fate < 4 => proc.exec = Some(Ok(())),
            (None, None) if fate < 6 => {
                proc.exec = Some(Err(failure));
                proc.exit = Some(ExitStatus::Code(127));
            }
            // Killed from outside before its exec: the pipe closes without a word.
            (None, None) => {
                proc.exec = Some(Ok(()));
                proc.exit = Some(status);
            }
            (Some(Ok(())), None) if !proc.exec_told && fate < 4 => self.tell_exec(process),
            (Some(_), None) => {
                if proc.asked && !proc.deaf {
                    proc.exit = Some(if fate < 4 {
                        ExitStatus::Code(0)
                    } else {
                        signal(15)
                    });
                } else if fate < 3 && !proc.deaf {
                    proc.exit = Some(status);
                }
            }
            (Some(_), Some(status)) => {
                // The two descriptors become readable in any order.
                if !proc.exec_told && (fate < 4 || proc.exit_told) {
                    self.tell_exec(process);
                } else if !proc.exit_told
                    && (proc.main_told.is_none() || proc.killed || fate < 3 && !proc.deaf)
                {
                    self.tell_exit(process, status);
                }
            }
            (None, Some(_)) => unreachable!("the pipe closes with the process"),
        }
    }

    fn tell_exec(&mut self, process: ProcessId) {
        let now = self.now;
        let proc = self.processes.get_mut(&process).expect("it is there");
        proc.exec_told = true;
        proc.exec_told_at = now;
        let input = match proc.exec.expect("decided before") {
            Ok(()) => Input::ExecSucceeded { process },
            Err(failure) => Input::LaunchFailed { process, failure },
        };
        self.over(process);
        self.give(input);
    }

    fn tell_exit(&mut self, process: ProcessId, status: ExitStatus) {
        let now = self.now;
        let leaves_others = self.rng.one_in(5);
        let proc = self.processes.get_mut(&process).expect("it is there");
        let ran = proc.exec_told && proc.exec == Some(Ok(()));
        if leaves_others && ran && !proc.killed && proc.main_told.is_none() {
            let was_asked = self
                .core
                .state(proc.instance)
                .is_some_and(|state| state.ending().is_some());
            let life = &self.workers[proc.instance.worker.0 as usize];
            proc.main_told = Some(now);
            proc.rest_due = is_rest_asked(life, was_asked, status);
            self.seen.rests += 1;
            self.give(Input::MainExited { process, status });
            self.take_effects(u64::MAX);
            let left = self.processes.get(&process);
            let left = left.is_some_and(|proc| proc.rest_due);
            assert!(!left, "nobody has asked what is left of {process:?}");
            return;
        }
        proc.exit_told = true;
        proc.exit_told_at = proc.main_told.unwrap_or(now);
        if !proc.exec_told {
            self.seen.exit_first += 1;
        }
        self.over(process);
        self.give(Input::Exited { process, status });
    }

    /// If all is told about a process, works out what must become of its instance.
    fn over(&mut self, process: ProcessId) {
        let proc = self.processes[&process].clone();
        if !(proc.exec_told && proc.exit_told) {
            return;
        }
        self.processes.remove(&process);
        self.gone.push(process);
        match proc.exec.expect("told") {
            Err(failure) => self.ended(proc.instance, Err(failure), 0),
            Ok(()) => {
                let from = if proc.exec_told_at > proc.exit_told_at || self.late_exec(&proc) {
                    proc.spawned_at
                } else {
                    proc.exec_told_at
                };
                let uptime = proc.exit_told_at.0.saturating_sub(from.0);
                self.ended(proc.instance, Ok(proc.exit.expect("told")), uptime);
            }
        }
    }

    /// Whether the exit was told first, although at the same time.
    fn late_exec(&self, proc: &Proc) -> bool {
        matches!(
            self.core.state(proc.instance),
            Some(State::Starting {
                launch: Launch::Exited { .. },
                ..
            })
        )
    }

    pub(crate) fn failure(&mut self) -> LaunchFailure {
        self.stage += 1;
        let child_side = &Stage::ALL[3..];
        let stage = child_side[self.stage % child_side.len()];
        LaunchFailure {
            stage,
            errno: 1 + (self.stage % 100) as i32,
            detail: 0,
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

    /// News of processes that are gone, never were, or already said so.
    pub(crate) fn nonsense(&mut self) {
        let live: Vec<_> = self
            .processes
            .iter()
            .map(|(id, p)| (*id, p.clone()))
            .collect();
        let choice = self.rng.below(3);
        let status = self.any_status();
        if choice == 0 && !live.is_empty() {
            let (process, proc) = live[self.rng.below(live.len() as u64) as usize].clone();
            if proc.known {
                self.give(Input::Spawned { process });
            }
            if proc.exec_told {
                self.give(Input::ExecSucceeded { process });
                let failure = self.failure();
                self.give(Input::LaunchFailed { process, failure });
            }
            if proc.exit_told {
                self.give(Input::Exited { process, status });
            }
            return;
        }
        let process = match self.gone.as_slice() {
            gone if choice == 1 && !gone.is_empty() => self.rng.pick(gone),
            _ => ProcessId(1_000_000 + self.rng.below(1000)),
        };
        let failure = self.failure();
        let before = self.core.ignored_inputs();
        self.give(Input::Exited { process, status });
        self.give(Input::LaunchFailed { process, failure });
        self.give(Input::ExecSucceeded { process });
        self.give(Input::Spawned { process });
        assert_eq!(
            self.core.ignored_inputs(),
            before + 4,
            "stale news had an effect"
        );
    }

    pub(crate) fn answer(&mut self) {
        let Some(input) = self.answers.pop_front() else {
            return;
        };
        match input {
            Input::Spawned { process } => {
                let proc = self.processes.get_mut(&process).expect("answered once");
                proc.known = true;
                proc.spawned_at = self.now;
            }
            Input::LaunchFailed { process, failure } => {
                let proc = self.processes.remove(&process).expect("answered once");
                self.gone.push(process);
                self.ended(proc.instance, Err(failure), 0);
            }
            other => unreachable!("{other:?} is no answer"),
        }
        self.give(input);
    }

    /// Tells the shadow that a process ended.
    pub(crate) fn ended(
        &mut self,
        instance: InstanceId,
        end: Result<ExitStatus, LaunchFailure>,
        uptime: u64,
    ) {
        if let Err(failure) = end {
            self.seen.stages[failure.stage as usize] += 1;
        }
        let restart = &self.workers[instance.worker.0 as usize].restart;
        let shadow = self.shadows.entry(instance).or_default();
        shadow.ended(self.now, restart, end, uptime);
    }
}
