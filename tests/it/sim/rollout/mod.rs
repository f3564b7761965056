//! Rollouts, readiness, hooks and reloads: random lives with made-up definitions and operators.
//!
//! What must hold is told here a second time, without a look at how the core does it: whom a new
//! instance may replace and when, what a rollback leaves behind, what is never started again, and
//! that everything comes to rest once the programs behave.

mod ask;
mod check;
mod scenarios;
mod works;
mod world;

use crate::sim::kernel::Proc;
use crate::sim::life::{Due, Grammar, Heard, Life, Spawn, every_seed, one};
use crate::sim::perform::SIGABRT;
use crate::sim::random::Rng;
use crate::sim::seeds::seen;
use listend::config::Presence;
use listend::core::{
    Core, Effect, Event, ExitStatus, HookKind, Input, InstanceId, ListenerLife, Missing, Mono,
    Notice, ProcessEvent, ProcessId, Task, Ticket, WhenDone,
};
use listend::plan::{Lifecycle, ListenerId, SocketKey, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use world::{Temper, Worker, definition, lives};

/// What operators send, and what makes a program read its configuration again.
const HARMLESS: [i32; 2] = [10, 1];

pub(crate) fn one_life(tape: &[u8]) {
    one::<Rollouts>(tape);
}

#[test]
fn nothing_is_lost_in_a_rollout_and_everything_comes_to_rest() {
    every_seed::<Rollouts>();
}

seen! {
    ready: "instances that became ready later than they started",
    start_timed_out: "instances that were not ready in time",
    watchdog: "instances that gave no sign of life",
    hook_failed: "hooks that failed",
    hook_ended: "hooks that ended with their instance",
    cleaned: "starts that were cleaned up after without a program",
    hook_timed_out: "hooks that took too long",
    hidden: "instances whose readiness cannot be seen",
    rollouts: "rollouts",
    rolled_out: "rollouts that went well",
    rolled_back: "rollouts that went back",
    crashed_later: "rollbacks for what had been promoted",
    watched: "rollbacks after the rollout was over",
    reload_watched: "rollbacks after the part of a reload was done, which was not over",
    tried_again: "rollouts to what had been given up",
    back_again: "rollbacks in which instances had to be replaced again",
    recovered: "workers that were degraded and are not any more",
    promoted: "old instances stopped for a successor",
    superseded: "requests that another took the place of",
    refused: "requests that were refused",
    failed: "instances that crashed too often",
    refusing: "listeners closed because their workers have failed",
    bound_again: "listeners bound again",
    refreshed: "instances restarted for a listener",
    reloaded: "instances reloaded in place",
    replans: "reloads",
    several_bad: "reloads that named several",
    replans_at_once: "reloads while another was under way",
    activation_changed: "workers that got another kind of activation",
    removed: "workers removed with a process running",
    gone: "workers of which nothing is left",
    retired: "times that definitions were retired",
    activated: "workers started by a client",
    connections: "connections with a process",
    stop_rolling: "stops with a rollout under way",
    stop_hooks: "stops with a hook running",
    up: "times when everything was up",
}

/// Workers with hooks, readiness and listeners, whose definitions change.
struct Rollouts {
    workers: Vec<Worker>,
    listeners: BTreeMap<ListenerId, ListenerLife>,
    /// The process of which the end was told last.
    ended: Option<(ProcessId, Proc<Role>)>,
    /// Since when who is ready, as seen from here; and before the last input.
    ready: BTreeMap<InstanceId, Mono>,
    was_ready: BTreeMap<InstanceId, Mono>,
    /// The events that the last input led to.
    told: Vec<Event>,
    /// Whose command before the start went well.
    prepared: BTreeSet<InstanceId>,
    /// Who is to be cleaned up after; whether its program has run.
    uncleaned: BTreeMap<InstanceId, bool>,
    /// What was cleaned up after before all of it was told.
    cleaned: BTreeSet<ProcessId>,
    /// Who has to get somewhere before everything is up.
    awaited: BTreeSet<InstanceId>,
    asked: BTreeMap<Ticket, Asked>,
    next_ticket: u64,
    replanning: bool,
    start_noted: bool,
    is_up: bool,
}

/// What was answered to a request so far.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    done: u32,
    of: u32,
    is_over: bool,
}

/// How a process behaves, and what it has said.
#[derive(Debug, Clone)]
struct Role {
    temper: Temper,
    /// It has said that it is ready, or takes clients.
    serves: bool,
    /// It said so last; or triggers the watchdog.
    alive_at: Mono,
    /// When SIGKILL is due, once it was asked to stop; a second `None` is never.
    kill_at: Option<Option<Mono>>,
}

impl Grammar for Rollouts {
    type Role = Role;
    type Seen = Seen;
    const LIFE: u32 = 250;
    const LAUNCHES: [u64; 2] = [9, 10];
    const ERRORS: &'static [i32] = &[2];
    const TOLD: u64 = 10;
    const AT_ONCE: bool = true;
    const TICKS: u32 = 5;

    fn new(rng: &mut Rng) -> (Rollouts, Core) {
        let workers: Vec<Worker> = (0..1 + rng.below(3))
            .map(|_| Worker::new(definition(rng), rng.one_in(3)))
            .collect();
        let all = lives(rng, &workers);
        let lifecycles = workers.iter().map(|worker| worker.life().clone());
        let core = Core::new(lifecycles, WhenDone::Hold)
            .with_listeners(all.iter().map(|(_, life)| life.clone()).collect());
        let own = Rollouts {
            workers,
            listeners: all.into_iter().collect(),
            ended: None,
            ready: BTreeMap::new(),
            was_ready: BTreeMap::new(),
            told: Vec::new(),
            prepared: BTreeSet::new(),
            uncleaned: BTreeMap::new(),
            cleaned: BTreeSet::new(),
            awaited: BTreeSet::new(),
            asked: BTreeMap::new(),
            next_ticket: 0,
            replanning: false,
            start_noted: false,
            is_up: false,
        };
        (own, core)
    }

    /// Some listeners are missing.
    fn begin(life: &mut Life<Rollouts>) {
        life.bound = life.own.listeners.keys().copied().collect();
        life.watched = life.bound.iter().map(|id| (*id, SocketKey(0))).collect();
        for listener in life.bound.clone() {
            let presence = life.own.listeners[&listener].presence;
            if presence != Presence::Required && life.rng.one_in(3) {
                life.bound.remove(&listener);
                let why = life.rng.pick(&[Missing::Address, Missing::Other]);
                life.give(Input::ListenerMissing { listener, why });
            }
        }
        life.give(Input::Start);
    }

    fn step(life: &mut Life<Rollouts>, which: u64) {
        match which {
            // Nobody is there to ask.
            _ if life.exited => {}
            ..72 => life.client(),
            72..79 => life.operate(),
            79..82 => life.reload(),
            82..84 => life.trouble(),
            _ => life.kernel(),
        }
    }

    fn is_over(life: &Life<Rollouts>) -> bool {
        life.exited
    }

    /// Sometimes it comes before what is to be done was done.
    fn before_stop(life: &mut Life<Rollouts>) {
        let mut ids = (0..life.own.workers.len() as u32).map(WorkerId);
        let rolls = ids.any(|id| life.core.is_rolling(id));
        life.seen.stop_rolling += u64::from(rolls);
        let hooks = life.processes.values().any(|proc| proc.hook().is_some());
        life.seen.stop_hooks += u64::from(hooks);
        if life.rng.one_in(2) {
            let ticket = life.ticket();
            life.lazily(ticket);
        }
    }

    fn rests(life: &Life<Rollouts>) -> bool {
        life.is_at_rest()
    }

    fn check_rest(life: &Life<Rollouts>) {
        life.check_at_rest();
    }

    /// Everybody who can gives a sign of life, and every address is there by now.
    fn next_moment(life: &mut Life<Rollouts>) {
        let lives = |proc: &Proc<Role>| {
            proc.task == Task::Program && proc.exec_told && proc.exit.is_none() && proc.known
        };
        let alive = life.processes.iter().filter(|(_, proc)| lives(proc));
        for process in alive.map(|(id, _)| *id).collect::<Vec<_>>() {
            if life.processes.contains_key(&process) {
                life.tell(process, Notice::Alive);
            }
        }
        life.give(Input::AddressesChanged);
    }

    fn check_end(life: &Life<Rollouts>) {
        for (ticket, asked) in &life.own.asked {
            assert!(asked.is_over, "{ticket:?} was never answered: {asked:?}");
        }
    }

    fn check(life: &mut Life<Rollouts>, heard: &Heard<'_>) {
        let told = heard.all.iter().filter_map(|effect| match effect {
            Effect::Emit(event) => Some(event.clone()),
            _ => None,
        });
        life.own.told = told.collect();
        life.note_ready();
        if life.started && !std::mem::replace(&mut life.own.start_noted, life.started) {
            life.note_awaited(heard.all);
        }
    }

    fn check_done(life: &mut Life<Rollouts>) {
        life.check_rollouts();
    }

    fn wants(life: &mut Life<Rollouts>, effect: &Effect, _at: Mono) {
        life.check_effect(effect);
    }

    fn spawn(life: &mut Life<Rollouts>, spawn: &Spawn) -> Role {
        life.check_spawn(spawn);
        let known = &life.own.workers[spawn.instance.worker.0 as usize];
        Role {
            temper: match known.definitions[&spawn.revision].temper {
                Temper::Mixed if life.rng.one_in(2) => Temper::Good,
                temper => temper,
            },
            serves: false,
            alive_at: life.now,
            kill_at: None,
        }
    }

    fn may_stop(life: &Life<Rollouts>, id: ProcessId, proc: &Proc<Role>, _: Mono) -> bool {
        let stops = |event: &Event| matches!(event, Event::Process(_, process, ProcessEvent::Stopping { .. }) if *process == id);
        proc.role.kill_at.is_some() || life.is_told(stops)
    }

    fn may_kill(life: &Life<Rollouts>, proc: &Proc<Role>, _: Mono) -> bool {
        life.may_kill_now(proc)
    }

    fn signal(life: &mut Life<Rollouts>, id: ProcessId, signal: i32) {
        if signal == SIGABRT {
            let silent = |event: &Event| matches!(event, Event::Process(_, process, ProcessEvent::WatchdogTimedOut { .. }) if *process == id);
            assert!(life.is_told(silent), "SIGABRT for {id:?}");
            let proc = life.processes.get_mut(&id).expect("just seen");
            proc.asked = Some(life.now);
        } else {
            assert!(HARMLESS.contains(&signal), "{signal} for {id:?}");
        }
    }

    fn answer(life: &mut Life<Rollouts>, due: Due) {
        life.answer_due(due);
    }

    fn lifecycle(&self, proc: &Proc<Role>) -> &Lifecycle {
        &self.workers[proc.instance.worker.0 as usize].definitions[&proc.revision].life
    }

    fn works(life: &mut Life<Rollouts>, process: ProcessId, fate: u64) -> bool {
        life.does(process, fate)
    }

    fn runs(life: &mut Life<Rollouts>, process: ProcessId) {
        let proc = life.processes.get_mut(&process).expect("it is there");
        proc.role.alive_at = life.now;
    }

    /// Nobody waits any more, every socket is watched again, and signs of life are due anew.
    fn survived(life: &mut Life<Rollouts>) {
        life.watched = life.bound.iter().map(|id| (*id, SocketKey(0))).collect();
        for asked in life.own.asked.values_mut() {
            asked.is_over = true;
        }
        life.own.replanning = false;
        for proc in life.processes.values_mut() {
            proc.role.alive_at = life.now;
        }
    }

    fn ended(life: &mut Life<Rollouts>, process: ProcessId, proc: &Proc<Role>) {
        if !proc.known {
            return;
        }
        let launched = !matches!(proc.exec, Some(Err(_)));
        let went_well = proc.exit == Some(ExitStatus::Code(0)) && launched;
        let cleans = life.own.lifecycle(proc).hooks.after_stop.is_some();
        let has_run = launched || !proc.exec_told;
        let prepares = proc.task == Task::Hook(HookKind::BeforeStart);
        let ran = proc.task == Task::Program;
        if prepares && went_well {
            life.own.prepared.insert(proc.instance);
        }
        if has_run && cleans && (prepares || ran) && !life.own.cleaned.contains(&process) {
            life.own.uncleaned.insert(proc.instance, ran);
        }
        life.own.ended = Some((process, proc.clone()));
    }
}
