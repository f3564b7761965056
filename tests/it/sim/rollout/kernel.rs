//! The made-up kernel: what happens to processes, and in which order the core hears of it.

use crate::sim::random::{is_rest_asked, signal};
use crate::sim::rollout::life::Life;
use crate::sim::rollout::world::Temper;
use listend::config::Ready;
use listend::core::{
    Evidence, ExitStatus, HookKind, Input, InstanceId, Mono, Notice, ProcessId, Revision, Task,
};
use listend::stage::{LaunchFailure, Stage};
use std::time::Duration;

/// What the kernel, and the core through its inputs, know of one process.
#[derive(Debug, Clone)]
pub(crate) struct Proc {
    pub(crate) instance: InstanceId,
    pub(crate) revision: Revision,
    pub(crate) task: Task,
    pub(crate) temper: Temper,
    pub(crate) wanted_at: Mono,
    /// `Spawned` was handed in.
    pub(crate) known: bool,
    /// Does nothing of what it is asked.
    pub(crate) deaf: bool,
    pub(crate) exec: Option<Result<(), LaunchFailure>>,
    pub(crate) exec_told: bool,
    pub(crate) exec_told_at: Mono,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) exit_told: bool,
    /// When it was told that it has ended, and others of its process group go on.
    pub(crate) main_told: Option<Mono>,
    /// Those have to be sent the stop signal.
    pub(crate) rest_due: bool,
    /// It has said that it ends by itself.
    pub(crate) ends: bool,
    /// It was not ready in time, or gave no sign of life.
    pub(crate) unwell: bool,
    /// It has said that it is ready, or takes clients.
    pub(crate) serves: bool,
    /// It said so last; or triggers the watchdog.
    pub(crate) alive_at: Mono,
    /// When SIGKILL is due, once it was asked to stop; a second `None` is never.
    pub(crate) kill_at: Option<Option<Mono>>,
    pub(crate) asked: bool,
    pub(crate) killed: bool,
}

impl Proc {
    pub(crate) fn hook(&self) -> Option<HookKind> {
        match self.task {
            Task::Program => None,
            Task::Hook(kind) => Some(kind),
        }
    }
}

impl Life {
    /// One thing happens to one process.
    pub(crate) fn kernel(&mut self) {
        let ids: Vec<_> = self.processes.keys().copied().collect();
        if ids.is_empty() {
            return self.answer();
        }
        let process = self.rng.pick(&ids);
        self.happens(process);
    }

    /// The next thing happens to a process; whether there was any.
    pub(crate) fn happens(&mut self, process: ProcessId) -> bool {
        let fate = if self.calm { 0 } else { self.rng.below(10) };
        let failure = LaunchFailure {
            stage: Stage::Exec,
            errno: 2,
            detail: 0,
        };
        let calm = self.calm;
        let Some(proc) = self.processes.get_mut(&process) else {
            return false;
        };
        match (proc.known, proc.exec, proc.exit) {
            (false, _, _) => {
                if fate == 9 {
                    self.processes.remove(&process);
                    let stage = Stage::Fork;
                    let failure = LaunchFailure { stage, ..failure };
                    self.give(Input::LaunchFailed { process, failure });
                } else {
                    proc.known = true;
                    proc.exit = proc.killed.then_some(signal(9));
                    self.give(Input::Spawned { process });
                }
                true
            }
            (_, None, None) => {
                proc.exec = Some(match fate {
                    9 => Err(failure),
                    _ => Ok(()),
                });
                if fate == 9 {
                    proc.exit = Some(ExitStatus::Code(127));
                }
                true
            }
            // Killed before its exec: the pipe closes without a word.
            (_, None, Some(_)) => {
                proc.exec = Some(Ok(()));
                true
            }
            (_, Some(Ok(())), None) if !proc.exec_told => self.tell_exec(process),
            (_, Some(Err(_)), None) => unreachable!("it has exited"),
            (_, Some(_), None) if proc.hook().is_some() => {
                proc.exit = match fate {
                    0..6 => Some(ExitStatus::Code(0)),
                    6..8 => Some(ExitStatus::Code(1)),
                    // It hangs.
                    _ => None,
                };
                true
            }
            (_, Some(_), None) if (proc.asked || proc.ends) && (calm || !proc.deaf) => {
                proc.exit = Some(match fate {
                    0..5 => ExitStatus::Code(0),
                    _ => signal(15),
                });
                true
            }
            (_, Some(_), None) => self.works(process, fate),
            (_, Some(_), Some(status)) => {
                // The two descriptors become readable in any order.
                if !proc.exec_told && (fate < 5 || proc.exit_told) {
                    self.tell_exec(process)
                } else if !proc.exit_told
                    && (proc.main_told.is_none() || proc.killed || calm || fate < 3 && !proc.deaf)
                {
                    self.tell_exit(process, status)
                } else {
                    false
                }
            }
        }
    }

    /// A program does what it is there for, or not.
    fn works(&mut self, process: ProcessId, fate: u64) -> bool {
        let calm = self.calm;
        let proc = self.processes.get_mut(&process).expect("just seen");
        let temper = if calm { Temper::Good } else { proc.temper };
        if !proc.serves {
            match (temper, fate) {
                (Temper::NeverReady, _) => return false,
                (Temper::DiesEarly, _) | (Temper::Mixed, 9) => {
                    proc.exit = Some(ExitStatus::Code(1));
                    return true;
                }
                (Temper::Mixed, 7..9) => return false,
                (Temper::Good | Temper::Mixed | Temper::Flips, _) => {}
            }
            proc.serves = true;
            let worker = &self.workers[proc.instance.worker.0 as usize];
            let ready = worker.definitions[&proc.revision].life.ready;
            if let Ready::Notify | Ready::Fd(_) = ready {
                let notice = Notice::Ready;
                self.give(Input::Notified { process, notice });
            }
            return true;
        }
        if temper == Temper::Flips && fate > 4 || temper == Temper::Mixed && fate == 9 {
            proc.exit = Some(match fate % 3 {
                0 => ExitStatus::Code(1),
                1 => signal(11),
                _ => ExitStatus::Code(0),
            });
            return true;
        }
        if calm {
            return false;
        }
        let notice = match fate {
            0..6 => Notice::Alive,
            6 => Notice::Reloading,
            7 => Notice::Ready,
            8 => self.rng.pick(&[Notice::Trigger, Notice::Stopping]),
            _ => Notice::ExtendTimeout(Duration::from_secs(3)),
        };
        self.tell(process, notice);
        true
    }

    /// A program says something about itself.
    pub(crate) fn tell(&mut self, process: ProcessId, notice: Notice) {
        let now = self.now;
        let proc = self.processes.get_mut(&process).expect("just seen");
        match notice {
            Notice::Alive => proc.alive_at = now,
            Notice::Trigger => proc.alive_at = Mono(0),
            Notice::Stopping => proc.ends = true,
            Notice::Ready
            | Notice::Reloading
            | Notice::WatchdogInterval(_)
            | Notice::ExtendTimeout(_) => {}
        }
        self.give(Input::Notified { process, notice });
    }

    fn tell_exec(&mut self, process: ProcessId) -> bool {
        let now = self.now;
        let proc = self.processes.get_mut(&process).expect("it is there");
        proc.exec_told = true;
        proc.exec_told_at = now;
        proc.alive_at = now;
        let is_over = proc.exit_told;
        let input = match proc.exec.expect("decided before") {
            Ok(()) => Input::ExecSucceeded { process },
            Err(failure) => Input::LaunchFailed { process, failure },
        };
        self.is_over(process, is_over);
        self.give(input);
        true
    }

    fn tell_exit(&mut self, process: ProcessId, status: ExitStatus) -> bool {
        let leaves_others = !self.calm && self.rng.one_in(5);
        let now = self.now;
        let proc = self.processes.get_mut(&process).expect("it is there");
        let ran = proc.exec_told && proc.exec == Some(Ok(())) && proc.hook().is_none();
        if leaves_others && ran && !proc.killed && proc.main_told.is_none() {
            let state = self.core.state(proc.instance);
            let was_asked = state.is_some_and(|state| state.ending().is_some());
            let known = &self.workers[proc.instance.worker.0 as usize];
            let life = &known.definitions[&proc.revision].life;
            proc.main_told = Some(now);
            // What ends by itself, or was not well, may have been asked to stop after that.
            proc.rest_due = proc.ends || proc.unwell || is_rest_asked(life, was_asked, status);
            self.seen.rests += 1;
            self.give(Input::MainExited { process, status });
            return true;
        }
        proc.exit_told = true;
        // The core waits for the exit of a hook only.
        let is_over = proc.exec_told || proc.hook().is_some();
        self.is_over(process, is_over);
        self.give(Input::Exited { process, status });
        true
    }

    fn is_over(&mut self, process: ProcessId, is_over: bool) {
        if !is_over {
            return;
        }
        let proc = self.processes.remove(&process).expect("it is there");
        let went_well =
            proc.exit == Some(ExitStatus::Code(0)) && !matches!(proc.exec, Some(Err(_)));
        let known = &self.workers[proc.instance.worker.0 as usize];
        let cleans = known.definitions[&proc.revision].life.hooks.after_stop;
        let has_run = !(proc.exec_told && matches!(proc.exec, Some(Err(_))));
        let prepares = proc.task == Task::Hook(HookKind::BeforeStart);
        if prepares && went_well {
            self.prepared.insert(proc.instance);
        }
        if has_run
            && cleans.is_some()
            && (prepares || proc.task == Task::Program)
            && !self.cleaned.contains(&process)
        {
            let ran = proc.task == Task::Program;
            self.uncleaned.insert(proc.instance, ran);
        }
        self.ended = Some((process, proc));
    }

    pub(crate) fn answer_evidence(&mut self, process: ProcessId) {
        let serves = self.processes.get(&process).map(|proc| proc.serves);
        let evidence = match serves {
            // It takes more than one look, and of two in three nothing is ever seen.
            Some(_) if !self.calm && !process.0.is_multiple_of(3) => Evidence::Hidden,
            Some(true) => Evidence::Seen,
            Some(false) if !self.calm && self.rng.one_in(50) => Evidence::Hidden,
            Some(false) | None => Evidence::NotYet,
        };
        self.give(Input::Evidence { process, evidence });
    }

    /// News that make no sense.
    pub(crate) fn nonsense(&mut self) {
        let process = ProcessId(1_000_000 + self.rng.below(1000));
        let before = self.core.ignored_inputs();
        let (status, notice) = (ExitStatus::Code(1), Notice::Ready);
        let evidence = Evidence::Seen;
        self.give(Input::Exited { process, status });
        self.give(Input::ExecSucceeded { process });
        self.give(Input::Notified { process, notice });
        self.give(Input::Evidence { process, evidence });
        assert_eq!(self.core.ignored_inputs(), before + 4);
    }
}
