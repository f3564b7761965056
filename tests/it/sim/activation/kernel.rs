//! The made-up kernel: what happens to processes, and in which order the core hears of it.

use crate::sim::activation::life::{Life, Misery, Mood};
use crate::sim::activation::world::{Connection, Stage};
use crate::sim::random::{is_rest_asked, signal};
use listend::core::Waiting;
use listend::core::{ConnectionId, ExitStatus, Input, InstanceId, Mono, NotAccepted, ProcessId};
use listend::plan::{ListenerId, WorkerId};
use listend::stage::{LaunchFailure, Stage as LaunchStage};

const ENOENT: i32 = 2;

/// What the kernel, and the core through its inputs, know of one process.
#[derive(Debug, Clone)]
pub(crate) struct Proc {
    pub(crate) instance: InstanceId,
    pub(crate) connection: Option<ConnectionId>,
    /// `Spawned` was handed in.
    pub(crate) known: bool,
    pub(crate) spawned_at: Mono,
    /// It does not care about the stop signal.
    pub(crate) deaf: bool,
    /// It takes no clients.
    pub(crate) lazy: bool,
    /// What the exec came to, once it did.
    pub(crate) exec: Option<Result<(), LaunchFailure>>,
    pub(crate) exec_told: bool,
    pub(crate) exec_told_at: Mono,
    pub(crate) exit: Option<ExitStatus>,
    pub(crate) exit_told: bool,
    /// When it was told that it has ended, and others of its process group go on.
    pub(crate) main_told: Option<Mono>,
    /// Those have to be sent the stop signal.
    pub(crate) rest_due: bool,
    /// When the stop signal was sent.
    pub(crate) asked: Option<Mono>,
    pub(crate) killed: bool,
}

impl Proc {
    pub(crate) fn new(
        instance: InstanceId,
        connection: Option<ConnectionId>,
        deaf: bool,
        lazy: bool,
        now: Mono,
    ) -> Proc {
        Proc {
            instance,
            connection,
            known: false,
            spawned_at: now,
            deaf,
            lazy,
            exec: None,
            exec_told: false,
            exec_told_at: now,
            exit: None,
            exit_told: false,
            main_told: None,
            rest_due: false,
            asked: None,
            killed: false,
        }
    }
}

impl Life {
    /// One thing happens to one process.
    pub(crate) fn kernel(&mut self) {
        let known = self.processes.iter().filter(|(_, p)| p.known);
        let ids: Vec<_> = known.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return self.answer();
        }
        let process = self.rng.pick(&ids);
        self.move_on(process);
    }

    /// The next thing happens to this process.
    pub(crate) fn move_on(&mut self, process: ProcessId) {
        let status = self.any_status();
        let calm = self.mood != Mood::Wild;
        let fate = match self.mood {
            Mood::Wild => self.rng.below(8),
            Mood::Useless => self.rng.pick(&[0, 0, 0, 4]),
            Mood::Good => 0,
        };
        let failure = self.failure();
        let proc = self.processes.get_mut(&process).expect("it is there");
        match (proc.exec, proc.exit) {
            (None, None) if fate < 5 => proc.exec = Some(Ok(())),
            (None, None) if fate < 7 => {
                proc.exec = Some(Err(failure));
                proc.exit = Some(ExitStatus::Code(127));
            }
            // Killed from outside before its exec: the pipe closes without a word.
            (None, None) => {
                proc.exec = Some(Ok(()));
                proc.exit = Some(status);
            }
            (Some(Ok(())), None) if !proc.exec_told && fate < 5 => self.tell_exec(process),
            (Some(_), None) => self.run(process, fate, status),
            (Some(_), Some(status)) => {
                // The two descriptors become readable in any order.
                if !proc.exec_told && (fate < 4 || proc.exit_told) {
                    self.tell_exec(process);
                } else if !proc.exit_told
                    && (proc.main_told.is_none() || proc.killed || calm || fate < 3 && !proc.deaf)
                {
                    self.tell_exit(process, status);
                }
            }
            (None, Some(_)) => unreachable!("the pipe closes with the process"),
        }
    }

    /// A running program takes clients, or ends.
    fn run(&mut self, process: ProcessId, fate: u64, status: ExitStatus) {
        let proc = self.processes.get_mut(&process).expect("it is there");
        let asked = proc.asked.is_some();
        if self.mood == Mood::Good {
            let worker = proc.instance.worker;
            let alone = proc.connection.is_some();
            proc.exit = Some(ExitStatus::Code(0));
            if !alone {
                self.take_clients(worker, u64::MAX);
            }
        } else if self.mood == Mood::Useless {
            let end = match self.misery {
                Misery::Ends(status) => status,
                Misery::Launches | Misery::Accepts => ExitStatus::Code(0),
            };
            self.end_process(process, end);
        } else if asked && !proc.deaf {
            let status = [ExitStatus::Code(0), signal(15)][usize::from(fate > 3)];
            proc.exit = Some(status);
        } else if fate < 2 {
            if !proc.deaf || !asked {
                proc.exit = Some(status);
            }
        } else if fate < 4 {
            // Nobody is left to serve.
            let lazy = proc.lazy;
            let worker = proc.instance.worker;
            if lazy || !self.somebody_waits(worker) {
                self.end_process(process, ExitStatus::Code(0));
            }
        } else if !proc.lazy && proc.connection.is_none() {
            let worker = proc.instance.worker;
            let some = 1 + self.rng.below(4);
            self.take_clients(worker, some);
        }
    }

    fn end_process(&mut self, process: ProcessId, status: ExitStatus) {
        let proc = self.processes.get_mut(&process).expect("it is there");
        proc.exit = Some(status);
    }

    pub(crate) fn somebody_waits(&self, worker: WorkerId) -> bool {
        let mut sockets = self.sockets.iter();
        sockets.any(|socket| socket.users.contains(&worker) && !socket.queue.is_empty())
    }

    /// A worker accepts so many clients from each of its sockets.
    fn take_clients(&mut self, worker: WorkerId, at_most: u64) {
        for socket in &mut self.sockets {
            if socket.users.contains(&worker) {
                let take = (socket.queue.len() as u64).min(at_most) as usize;
                socket.queue.drain(..take);
            }
        }
    }

    fn tell_exec(&mut self, process: ProcessId) {
        let now = self.now;
        let proc = self.processes.get_mut(&process).expect("it is there");
        proc.exec_told = true;
        proc.exec_told_at = now;
        let id = proc.connection;
        let input = match proc.exec.expect("decided before") {
            Ok(()) => {
                if let Some(connection) = id.and_then(|id| self.connections.get_mut(&id)) {
                    let started = true;
                    connection.stage = Stage::Served { process, started };
                }
                Input::ExecSucceeded { process }
            }
            Err(failure) => Input::LaunchFailed { process, failure },
        };
        self.over(process);
        self.give(input);
    }

    fn tell_exit(&mut self, process: ProcessId, status: ExitStatus) {
        let leaves_others = self.mood == Mood::Wild && self.rng.one_in(5);
        let now = self.now;
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
            return self.give(Input::MainExited { process, status });
        }
        proc.exit_told = true;
        self.seen.exit_first += u64::from(!proc.exec_told);
        self.over(process);
        self.give(Input::Exited { process, status });
    }

    /// If all is told about a process, notes what follows.
    fn over(&mut self, process: ProcessId) {
        let proc = self.processes[&process].clone();
        if !(proc.exec_told && proc.exit_told) {
            return;
        }
        self.processes.remove(&process);
        self.gone.push(process);
        if let Some(Err(_)) = proc.exec {
            return self.launch_failed(&proc);
        }
        match proc.connection.and_then(|id| self.connections.get_mut(&id)) {
            Some(connection) => connection.stage = Stage::Over,
            None => {
                let well = match proc.exit.expect("told") {
                    ExitStatus::Code(code) => code == 0,
                    ExitStatus::Signal { number, .. } => [1, 2, 13, 15].contains(&number),
                };
                if !well {
                    let past = &mut self.past[proc.instance.worker.0 as usize];
                    past.crashes.push((self.now, proc.instance));
                }
            }
        }
    }

    /// What follows from a launch that failed: a connection is held.
    pub(crate) fn launch_failed(&mut self, proc: &Proc) {
        let stopped = self.stop_at.is_some();
        match proc.connection.and_then(|id| self.connections.get_mut(&id)) {
            Some(Connection { stage, open, .. }) => {
                *stage = if *open && !stopped {
                    self.seen.held += 1;
                    Stage::Held { before: true }
                } else {
                    Stage::Over
                };
            }
            None => {
                let past = &mut self.past[proc.instance.worker.0 as usize];
                past.crashes.push((self.now, proc.instance));
            }
        }
    }

    fn failure(&mut self) -> LaunchFailure {
        let child_side = &LaunchStage::ALL[3..];
        LaunchFailure {
            stage: self.rng.pick(child_side),
            errno: ENOENT,
            detail: 0,
        }
    }

    fn any_status(&mut self) -> ExitStatus {
        match self.rng.below(3) {
            0 => ExitStatus::Code(0),
            1 => ExitStatus::Code(1 + self.rng.below(254) as i32),
            _ => signal(self.rng.pick(&[1, 2, 3, 6, 9, 11, 13, 15, 34])),
        }
    }

    /// News of what is gone, never was, or was said already.
    pub(crate) fn nonsense(&mut self) {
        const NEVER: u64 = 1_000_000;
        self.seen.nonsense += 1;
        let before = self.core.ignored_inputs();
        let process = match self.gone.as_slice() {
            [] => ProcessId(NEVER),
            gone => self.rng.pick(gone),
        };
        let status = ExitStatus::Code(1);
        let over = self
            .connections
            .iter()
            .filter(|(_, c)| c.stage == Stage::Over);
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        let connection = match over.as_slice() {
            [] => ConnectionId(NEVER),
            over => self.rng.pick(over),
        };
        let source = crate::sim::activation::world::source(&mut self.rng);
        let why = self
            .rng
            .pick(&[NotAccepted::Gone, NotAccepted::Exhausted { errno: ENOENT }]);
        let input = match self.rng.below(6) {
            0 => Input::Exited { process, status },
            1 => Input::ExecSucceeded { process },
            2 => Input::Accepted { connection, source },
            3 => Input::NotAccepted { connection, why },
            4 => Input::Looked {
                worker: WorkerId(99),
                waiting: Waiting::TheSame,
            },
            _ => Input::ClientWaits {
                listener: ListenerId(99),
                socket: listend::plan::SocketKey(0),
            },
        };
        self.give(input.clone());
        assert_eq!(self.core.ignored_inputs(), before + 1, "{input:?} counts");
    }
}
