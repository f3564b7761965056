//! What must hold after each input.

use crate::sim::kernel::Proc;
use crate::sim::life::{Grammar, Life, Spawn};
use crate::sim::rollout::world::Worker;
use crate::sim::rollout::{Role, Rollouts};
use listend::config::Order;
use listend::core::{
    Answer, DaemonEvent, Effect, Event, ExitStatus, HookEnd, HookKind, InstanceEvent, InstanceId,
    Mono, Next, ProcessEvent, ProcessId, Refused, RolloutEvent, RunRole, State, Task, Ticket,
};
use listend::plan::{Activation, Lifecycle, ReloadBy, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Life<Rollouts> {
    pub(crate) fn check_effect(&mut self, effect: &Effect) {
        match *effect {
            Effect::Signal { process, .. } => {
                self.seen.hook_ended += u64::from(
                    self.processes
                        .get(&process)
                        .is_some_and(|proc| self.hook_has_ended(proc)),
                )
            }
            Effect::Answer { ticket, ref answer } => self.check_answer(ticket, answer),
            Effect::Retire {
                worker,
                needed: Some(revision),
            } => {
                let known = &mut self.own.workers[worker.0 as usize];
                assert_eq!(revision, known.current, "{worker:?} runs another");
                self.seen.retired += u64::from(known.kept.len() > 1);
                known.kept = known.given_up.into_iter().chain([revision]).collect();
            }
            Effect::Retire {
                worker,
                needed: None,
            } => self.check_gone(worker),
            Effect::Emit(ref event) => {
                self.count(event);
                self.check_event(event.clone());
            }
            Effect::Exit { .. } => {
                let uncleaned = !self.hurried && !self.own.uncleaned.is_empty();
                assert!(!uncleaned, "not cleaned up: {:?}", self.own.uncleaned);
            }
            _ => {}
        }
    }

    /// Notes who is ready now; and who was before.
    pub(crate) fn note_ready(&mut self) {
        let mut ready = BTreeMap::new();
        for (instance, state) in self.core.instances() {
            if let State::Running { .. } = state {
                let since = self.own.ready.get(&instance).copied().unwrap_or(self.now);
                ready.insert(instance, since);
            }
        }
        let arrived = |instance: &InstanceId| {
            !matches!(
                self.core.state(*instance),
                // It can be replaced as soon as it runs.
                None | Some(
                    State::Running { .. }
                        | State::Stopping { .. }
                        | State::Backoff { .. }
                        | State::Failed { .. }
                        | State::Stopped
                )
            )
        };
        self.own.awaited.retain(arrived);
        self.own.was_ready = std::mem::replace(&mut self.own.ready, ready);
    }

    pub(crate) fn note_awaited(&mut self, wanted: &[Effect]) {
        for effect in wanted {
            if let Effect::Spawn { instance, .. } = *effect
                && self.own.workers[instance.worker.0 as usize].is_eager()
            {
                self.own.awaited.insert(instance);
            }
        }
    }

    pub(crate) fn check_spawn(&mut self, spawn: &Spawn) {
        let Spawn {
            instance,
            revision,
            task,
            ..
        } = *spawn;
        self.seen.connections += u64::from(spawn.connection.is_some());
        let known = &self.own.workers[instance.worker.0 as usize];
        assert!(!known.gone, "{instance:?} of a worker that is gone");
        assert!(known.kept.contains(&revision), "{revision:?} was retired");
        let only_after = task == Task::Hook(HookKind::AfterStop);
        let stops = self.stop_at.is_some();
        assert!(
            !stops || only_after && !self.hurried,
            "{task:?} after a stop"
        );
        assert!(!known.removed || only_after, "{task:?} of a removed worker");
        let mut others = self
            .processes
            .values()
            .filter(|p| p.instance == instance && !p.exit_told);
        if let Task::Program | Task::Hook(HookKind::BeforeStart | HookKind::AfterStop) = task {
            let beside = |proc: &&Proc<Role>| {
                matches!(proc.hook(), Some(HookKind::AfterReady | HookKind::Reload))
            };
            let left = others.clone().find(beside);
            assert!(left.is_none(), "{task:?} of {instance:?} with {left:?}");
            let uncleaned = self.own.uncleaned.get(&instance).copied();
            let prepares = known.definitions[&revision].life.hooks.before_start;
            match task {
                Task::Hook(HookKind::AfterStop) => {
                    // One that is gone may be given up before its exec is told.
                    let gone = |(_, proc): &(&ProcessId, &Proc<Role>)| {
                        let is_it = proc.instance == instance && proc.task == Task::Program;
                        is_it && proc.exit_told && !proc.exec_told
                    };
                    let gone = self.processes.iter().find(gone);
                    let known = uncleaned.is_some() || gone.is_some();
                    assert!(known, "nothing to clean up of {instance:?}");
                    self.own.cleaned.extend(gone.map(|(process, _)| *process));
                    self.own.uncleaned.remove(&instance);
                    self.seen.cleaned += u64::from(uncleaned == Some(false));
                }
                // The command before it has just run.
                Task::Program if prepares.is_some() => assert_ne!(uncleaned, Some(true)),
                Task::Program | Task::Hook(_) => assert_eq!(uncleaned, None, "{instance:?}"),
            }
        }
        match task {
            Task::Program => {
                let busy = |proc: &Proc<Role>| {
                    proc.task == Task::Program || proc.hook() == Some(HookKind::BeforeStart)
                };
                let other = others.find(|proc| busy(proc));
                assert!(other.is_none(), "{instance:?} is started beside {other:?}");
                assert!(
                    known.allowed.contains(&revision),
                    "{revision:?} is started, and only {:?} may be",
                    known.allowed
                );
                let prepares = known.definitions[&revision].life.hooks.before_start;
                let prepared = self.own.prepared.remove(&instance);
                assert!(prepared || prepares.is_none(), "{instance:?} unprepared");
            }
            Task::Hook(_) => {
                let twice = others.find(|proc| {
                    proc.task == task
                        && task != Task::Hook(HookKind::Reload)
                        && task != Task::Hook(HookKind::AfterReady)
                });
                assert!(twice.is_none(), "{task:?} runs beside {twice:?}");
                let program = |proc: &Proc<Role>| proc.task == Task::Program;
                let runs = self
                    .processes
                    .values()
                    .any(|p| p.instance == instance && !p.exit_told && program(p));
                let beside = matches!(task, Task::Hook(HookKind::AfterReady | HookKind::Reload));
                assert_eq!(runs, beside, "{task:?} of {instance:?}");
            }
        }
    }

    /// Whether it is a hook beside an instance that does not run: none outlives its instance.
    fn hook_has_ended(&self, proc: &Proc<Role>) -> bool {
        let beside = matches!(proc.hook(), Some(HookKind::AfterReady | HookKind::Reload));
        let state = self.core.state(proc.instance);
        beside && !matches!(state, Some(State::Running { .. }))
    }

    pub(crate) fn may_kill_now(&self, proc: &Proc<Role>) -> bool {
        let Some(kind) = proc.hook() else {
            return proc.role.kill_at.flatten().is_some_and(|at| self.now >= at);
        };
        let cancelled = matches!(
            self.core.state(proc.instance),
            None | Some(
                State::Preparing {
                    cancelled: true,
                    ..
                } | State::Stopped
            )
        );
        let life = self.own.lifecycle(proc);
        self.hook_has_ended(proc)
            || kind == HookKind::BeforeStart && cancelled
            || self.now >= proc.wanted_at + hook_time(life, kind)
    }

    pub(crate) fn is_told(&self, is_it: impl Fn(&Event) -> bool) -> bool {
        self.own.told.iter().any(is_it)
    }

    fn check_answer(&mut self, ticket: Ticket, answer: &Answer) {
        let asked = self.own.asked.get_mut(&ticket).expect("it was asked");
        assert!(!asked.is_over, "{ticket:?} is answered again: {answer:?}");
        match *answer {
            Answer::Progress { done, of } => {
                assert!(
                    done >= asked.done && done <= of,
                    "{ticket:?}: {answer:?} after {asked:?}"
                );
                assert!(
                    // More instances may have joined a restart.
                    asked.of <= of,
                    "{ticket:?}: {answer:?} after {asked:?}"
                );
                (asked.done, asked.of) = (done, of);
                return;
            }
            Answer::Refused(Refused::Superseded) => self.seen.superseded += 1,
            Answer::Refused(_) => self.seen.refused += 1,
            // What a signal comes to nobody hears.
            Answer::Done => assert!(asked.done == asked.of || asked.done == 0, "{ticket:?}"),
            Answer::NotBound { .. } => {}
            Answer::Failed { ref bad } => assert!(!bad.is_empty(), "{ticket:?}"),
        }
        asked.is_over = true;
    }

    fn check_gone(&mut self, worker: WorkerId) {
        let known = &mut self.own.workers[worker.0 as usize];
        assert!(known.removed && !known.gone, "{worker:?} is gone");
        known.gone = true;
        self.seen.gone += 1;
        let left = self
            .processes
            .values()
            .find(|p| p.instance.worker == worker && !p.exit_told);
        assert!(left.is_none(), "{worker:?} is gone, but {left:?}");
    }

    fn check_event(&mut self, event: Event) {
        let now = self.now;
        // It may be started again before anybody looks at its state.
        if let Event::Process(
            instance,
            _,
            ProcessEvent::Exited { .. } | ProcessEvent::LaunchFailed { .. },
        ) = event
        {
            self.own.awaited.remove(&instance);
        }
        match event {
            Event::Process(instance, process, ProcessEvent::Stopping { timeout, .. }) => {
                self.will_be_killed(process, timeout);
                self.check_stop(instance);
            }
            Event::Process(_, process, ProcessEvent::StartTimedOut { timeout, .. }) => {
                let proc = &self.processes[&process];
                assert!(
                    proc.asked.is_none()
                        && now >= proc.exec_told_at + timeout.min(Duration::from_secs(1))
                );
                self.is_unwell(process);
            }
            Event::Process(_, process, ProcessEvent::WatchdogTimedOut { timeout, .. }) => {
                let proc = &self.processes[&process];
                let is_over = |interval| now >= proc.role.alive_at + interval;
                assert!(
                    proc.role.alive_at == Mono(0) || timeout.is_some_and(is_over),
                    "it is alive: {proc:?}"
                );
                self.is_unwell(process);
            }
            Event::Process(
                _,
                process,
                ProcessEvent::SaysStopping { .. } | ProcessEvent::MainExited { .. },
            ) => {
                let proc = &self.processes[&process];
                assert!(proc.ends || proc.main_told.is_some(), "{proc:?}");
                if proc.role.kill_at.is_none() {
                    self.will_be_killed(process, None);
                }
            }
            Event::Process(instance, process, ProcessEvent::Exited { status, next, .. }) => {
                self.check_crash(instance, process, status, next);
                let known = &mut self.own.workers[instance.worker.0 as usize];
                known.gave_up |= known.back;
            }
            Event::Instance(instance, InstanceEvent::Failed { .. })
            | Event::Process(instance, _, ProcessEvent::LaunchFailed { .. }) => {
                let known = &mut self.own.workers[instance.worker.0 as usize];
                known.gave_up |= known.back;
            }
            Event::Process(instance, _, ProcessEvent::HookFailed { end, .. }) => {
                let known = &mut self.own.workers[instance.worker.0 as usize];
                known.gave_up |= known.back;
                self.seen.hook_failed += 1;
                self.seen.hook_timed_out += u64::from(matches!(end, HookEnd::TimedOut { .. }));
            }
            Event::Rollout(
                worker,
                RolloutEvent::Started {
                    generation, only, ..
                },
            ) => {
                self.seen.rollouts += 1;
                let known = &mut self.own.workers[worker.0 as usize];
                let from = *known.from.get_or_insert(known.current);
                // One instance alone is restarted by what serves.
                let given_up = known.given_up.take_if(|_| only.is_none());
                if let Some(given_up) = given_up {
                    self.seen.tried_again += 1;
                    known.current = given_up;
                    known.allowed.insert(given_up);
                }
                known.watch = None;
                known.is_reload_watched = false;
                known.trial = Some(generation);
                known.back = false;
                known.went_back = None;
                known.gave_up = false;
                let parallel = |revision| known.definitions[revision].life.rollout.parallel;
                known.parallel = parallel(&from).max(parallel(&known.current));
                known.min_ready = known.life().rollout.min_ready;
                known.longest = known.min_ready;
            }
            Event::Rollout(worker, RolloutEvent::Done { generation, .. }) => {
                self.seen.rolled_out += 1;
                let known = &mut self.own.workers[worker.0 as usize];
                assert_eq!(known.trial, Some(generation));
                self.seen.recovered += u64::from(known.degraded);
                let was_reloaded = std::mem::take(&mut known.is_reloaded);
                known.degraded = known.given_up.is_some();
                known.trial = None;
                let from = known.from.take().expect("it was rolling");
                let watch = known.life().rollout.watch;
                if from != known.current
                    && !watch.is_zero()
                    && !known.serves_connections()
                    && !self.core.is_stopped(worker)
                    && Worker::can_go_back(known.current)
                {
                    known.watch = Some((from, generation, now + watch));
                    known.is_reload_watched = was_reloaded;
                }
                known.allowed = BTreeSet::from([known.current]);
            }
            Event::Rollout(worker, RolloutEvent::RolledBack { instance, again }) => {
                self.check_rolled_back(worker, instance, again);
            }
            Event::Daemon(DaemonEvent::Replanned) => self.own.replanning = true,
            Event::Daemon(DaemonEvent::ReplanDone { bad }) => {
                assert!(self.own.replanning);
                self.own.replanning = false;
                self.check_named(&bad);
            }
            Event::Daemon(DaemonEvent::Up { .. }) => {
                assert!(!self.own.is_up, "it is told again");
                assert!(
                    self.own.awaited.is_empty(),
                    "not up: {:?}",
                    self.own.awaited
                );
                self.own.is_up = true;
                self.seen.up += 1;
            }
            _ => {}
        }
    }

    fn is_unwell(&mut self, process: ProcessId) {
        if let Some(proc) = self.processes.get_mut(&process) {
            proc.unwell = true;
        }
        self.will_be_killed(process, None);
    }

    /// What has crashed, and was put there by a rollout that is not over for long, is not started
    /// again: the rollout goes back.
    fn check_crash(
        &self,
        instance: InstanceId,
        process: ProcessId,
        status: ExitStatus,
        next: Next,
    ) {
        let known = &self.own.workers[instance.worker.0 as usize];
        let Some((_, proc)) = self.own.ended.as_ref().filter(|(id, _)| *id == process) else {
            return;
        };
        let trial = known.trial.map(|generation| (generation, Mono(u64::MAX)));
        let watch = known
            .watch
            .map(|(_, generation, until)| (generation, until));
        let of_it = |(generation, until): (u32, Mono)| {
            instance.generation >= generation && self.now < until && proc.revision == known.current
        };
        let crashed = matches!(status, ExitStatus::Code(code) if code != 0) || proc.unwell;
        if crashed && trial.or(watch).is_some_and(of_it) && (proc.unwell || proc.asked.is_none()) {
            assert!(
                matches!(next, Next::RolledBack | Next::Stopping | Next::Done),
                "{instance:?} has crashed, and the rollout goes on: {next:?}"
            );
        }
    }

    /// An instance is being ended. What a fault does to one may be told only with the life that it
    /// has, which the settings of a reload can change at any time.
    fn will_be_killed(&mut self, process: ProcessId, timeout: Option<Duration>) {
        let now = self.now;
        let Some(proc) = self.processes.get_mut(&process) else {
            return;
        };
        let life =
            &self.own.workers[proc.instance.worker.0 as usize].definitions[&proc.revision].life;
        // A connection goes on by the settings that it began with.
        let began = match life.activation {
            Activation::PerConnection(_) => Some(Duration::ZERO),
            Activation::Eager | Activation::OnDemand { .. } => life.stop_timeout,
        };
        let timeout = timeout.or(began);
        proc.role.kill_at = Some(timeout.map(|timeout| now + timeout.min(Duration::from_secs(1))));
    }

    /// Whether there is a reason to stop an instance that is ready.
    fn check_stop(&mut self, instance: InstanceId) {
        let known = &self.own.workers[instance.worker.0 as usize];
        let life = known.life();
        let asked = self.stop_at.is_some() || known.lessened == Some(self.now) || known.removed;
        if asked || !self.own.was_ready.contains_key(&instance) {
            return;
        }
        let for_a_listener = |event: &Event| matches!(event, Event::Instance(one, InstanceEvent::Refreshed) if *one == instance);
        let shrunk = |event: &Event| matches!(event, Event::Rollout(worker, RolloutEvent::Done { .. }) if *worker == instance.worker);
        let given_up = |event: &Event| matches!(event, Event::Rollout(worker, RolloutEvent::RolledBack { .. } | RolloutEvent::Started { .. }) if *worker == instance.worker);
        if self.is_told(for_a_listener)
            || self.is_told(shrunk) && instance.index >= life.instances
            || known.was_on_trial == Some(instance.generation) && self.is_told(given_up)
        {
            return;
        }
        assert!(
            known.trial.is_some() || known.back,
            "{instance:?} is stopped without a reason"
        );
        if life.rollout.order == Order::StopFirst {
            return;
        }
        let is_heir = |one: &InstanceId| {
            one.worker == instance.worker
                && one.index == instance.index
                && one.generation != instance.generation
                && (known.back || known.trial == Some(one.generation))
        };
        let (ready, now) = (&self.own.ready, self.now);
        let settled = ready
            .iter()
            .filter(|(one, _)| is_heir(one))
            .any(|(_, since)| known.back || now >= *since + known.min_ready);
        let waits = matches!(life.activation, Activation::OnDemand { .. })
            && self
                .core
                .instances()
                .any(|(one, state)| is_heir(&one) && state == State::Waiting);
        assert!(
            settled || waits,
            "{instance:?} is stopped, and nobody has taken its place: {ready:?}"
        );
        self.seen.promoted += 1;
    }

    /// Every worker whose rollout for the reload went back is named.
    fn check_named(&mut self, bad: &[InstanceId]) {
        let named: BTreeSet<WorkerId> = bad.iter().map(|bad| bad.worker).collect();
        assert_eq!(named.len(), bad.len(), "one of each worker: {bad:?}");
        for known in &mut self.own.workers {
            known.is_reload_watched = false;
            let unnamed = known.went_back.take().filter(|one| !bad.contains(one));
            assert_eq!(unnamed, None, "it is not in {bad:?}");
        }
        self.seen.several_bad += u64::from(bad.len() > 1);
    }

    fn check_rolled_back(&mut self, worker: WorkerId, instance: InstanceId, again: u32) {
        self.seen.rolled_back += 1;
        self.seen.back_again += u64::from(again > 0);
        // Of one that was relied on only a crash has it go back.
        let crashed = self.is_told(|event| match *event {
            Event::Process(
                of,
                process,
                ProcessEvent::Exited {
                    status,
                    next: Next::RolledBack,
                    ..
                },
            ) if of == instance => {
                let it = self.own.ended.as_ref().filter(|(id, _)| *id == process);
                let never_ended =
                    |proc: &Proc<Role>| proc.ends && proc.killed && proc.main_told.is_none();
                status != ExitStatus::Code(0)
                    || it.is_some_and(|(_, proc)| proc.unwell || never_ended(proc))
            }
            Event::Process(
                of,
                _,
                ProcessEvent::LaunchFailed {
                    next: Next::RolledBack,
                    ..
                }
                | ProcessEvent::HookFailed {
                    next: Some(Next::RolledBack),
                    ..
                },
            ) => of == instance,
            _ => false,
        });
        let known = &mut self.own.workers[worker.0 as usize];
        let (from, generation, until) = match known.trial.take() {
            Some(generation) => (known.from.take(), generation, None),
            None => {
                let (from, generation, until) = known.watch.expect("it is watched");
                (Some(from), generation, Some(until))
            }
        };
        known.watch = None;
        let is_watched = std::mem::take(&mut known.is_reload_watched) && until.is_some();
        if std::mem::take(&mut known.is_reloaded) && until.is_none() || is_watched {
            known.went_back = Some(instance);
            self.seen.reload_watched += u64::from(is_watched);
        }
        self.seen.watched += u64::from(until.is_some());
        assert!(
            instance.generation >= generation,
            "{instance:?}: {generation}"
        );
        assert!(
            until.is_none_or(|until| crashed && self.now < until),
            "{instance:?}: {until:?}"
        );
        // Whoever was ready long enough is relied on; when exactly, is only known after a tick.
        let settled = self.own.was_ready.get(&instance).copied();
        let relied_on = settled.is_some_and(|since| self.last_tick >= since + known.longest);
        self.seen.crashed_later += u64::from(relied_on);
        assert!(
            crashed || !relied_on,
            "{instance:?} was ready since {settled:?}"
        );
        let from = from.expect("it was rolling");
        if from != known.current {
            known.given_up = Some(known.current);
        }
        known.current = from;
        known.allowed = BTreeSet::from([known.current]);
        known.back = true;
        known.degraded = true;
    }

    pub(crate) fn check_rollouts(&mut self) {
        for id in (0..self.own.workers.len() as u32).map(WorkerId) {
            let known = &mut self.own.workers[id.0 as usize];
            if known.gone {
                continue;
            }
            assert_eq!(self.core.latest(id), Some(known.latest()));
            let is_rolling = self.core.is_rolling(id);
            if known.back && !is_rolling {
                known.back = false;
            }
            if !is_rolling && self.stop_at.is_none() {
                assert_eq!(known.trial, None, "{id:?} forgot its rollout");
            }
            known.was_on_trial = known.trial;
            let known = &self.own.workers[id.0 as usize];
            let candidates = self.core.instances().filter(|(one, state)| {
                let is_candidate =
                    |one| self.core.facts(one).map(|facts| facts.role) == Some(RunRole::Candidate);
                one.worker == id && state.process().is_some() && is_candidate(*one)
            });
            let many = candidates.count();
            assert!(
                many <= known.parallel as usize,
                "{many} candidates of {id:?}"
            );
            if known.back {
                assert!(self.core.degraded(id).is_some(), "{id:?} went back");
            }
        }
    }
}

fn hook_time(life: &Lifecycle, kind: HookKind) -> Duration {
    let time = match kind {
        HookKind::BeforeStart => life.hooks.before_start,
        HookKind::AfterReady => life.hooks.after_ready,
        HookKind::AfterStop => life.hooks.after_stop,
        HookKind::Reload => match life.reload {
            Some(ReloadBy::Command(time)) => Some(time),
            Some(ReloadBy::Signal(_)) | None => None,
        },
    };
    time.expect("there is such a command")
}
