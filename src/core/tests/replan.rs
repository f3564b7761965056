//! The rules of a reload.

use super::crew::*;
use super::*;
use crate::config::{ConnectionLimits, OnFailure, Presence};
use crate::connection::Source;
use crate::plan::{Activation, ListenerId};

const OTHER: WorkerId = WorkerId(1);

fn gone(crew: &Crew, worker: WorkerId) -> usize {
    crew.count(|effect| {
        *effect
            == Effect::Retire {
                worker,
                needed: None,
            }
    })
}

#[test]
fn a_worker_that_was_removed_is_gone_when_its_last_process_is() {
    let mut crew = Crew::new(|life| life.hooks.after_stop = Some(seconds(5)));
    crew.reload(WorkerUpdate::Removed);
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    assert_eq!(gone(&crew, APP), 0, "its last command runs");
    crew.exits(crew.hook(APP_0, HookKind::AfterStop), ExitStatus::Code(0));
    assert_eq!(gone(&crew, APP), 1);
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

// It was told twice.
#[test]
fn one_without_a_process_is_gone_at_once_and_once() {
    let limit = None;
    let mut crew = Crew::new(|life| life.activation = Activation::OnDemand { limit });
    crew.reload(WorkerUpdate::Removed);
    assert_eq!(gone(&crew, APP), 1);
}

// It was gone, and a command of it still ran.
#[test]
fn one_whose_command_runs_is_not_gone() {
    let mut crew = Crew::new(|life| life.hooks.after_ready = Some(seconds(5)));
    crew.reload(WorkerUpdate::Removed);
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    assert_eq!(gone(&crew, APP), 0);
    crew.exits(crew.hook(APP_0, HookKind::AfterReady), ExitStatus::Code(0));
    assert_eq!(gone(&crew, APP), 1);
}

#[test]
fn settings_are_in_force_without_a_restart() {
    let mut crew = Crew::new(|_| {});
    let life = life(|life| {
        life.stop_timeout = Some(seconds(1));
        life.instances = 2;
    });
    crew.reload(WorkerUpdate::Settings { life: life.into() });
    assert_eq!(crew.programs(), Crew::first(&[app(0, 1), app(1, 1)]));
    crew.ask(Command::Stop);
    let process = crew.program(APP_0);
    crew.pass(seconds(1));
    assert_eq!(crew.signals(process).last(), Some(&SIGKILL));
}

#[test]
fn another_definition_is_rolled_out_and_the_old_one_retired() {
    let mut crew = Crew::new(|_| {});
    let revision = Revision(2);
    let life = life(|_| {});
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    assert_eq!(
        crew.programs(),
        [(app(0, 1), Revision(1)), (app(0, 2), revision)]
    );
    crew.pass(seconds(2));
    let worker = APP;
    let retire = |crew: &Crew| {
        crew.count(|e| {
            *e == Effect::Retire {
                worker,
                needed: Some(revision),
            }
        })
    };
    assert_eq!(retire(&crew), 0);
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    assert!(crew.told(Event::Daemon(DaemonEvent::ReplanDone { bad: Vec::new() })));
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    // It can be gone back to as long as the new one is watched.
    crew.pass(seconds(30) - Duration::from_nanos(1));
    assert_eq!(retire(&crew), 0);
    crew.pass(Duration::from_nanos(1));
    assert_eq!(retire(&crew), 1);
}

// Retired was what a command had still to be run by.
#[test]
fn a_definition_is_not_retired_while_a_command_of_it_is_to_run() {
    let mut crew = Crew::new(|life| life.hooks.after_stop = Some(seconds(5)));
    let limit = None;
    let life = life(|life| life.activation = Activation::OnDemand { limit });
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    let retire = |effect: &Effect| matches!(effect, Effect::Retire { .. });
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    assert_eq!(crew.count(retire), 0);
    crew.exits(crew.hook(APP_0, HookKind::AfterStop), ExitStatus::Code(0));
    assert_eq!(crew.count(retire), 1);
}

// It was started again, because it was still on its way out.
#[test]
fn what_was_stopped_is_not_started_by_a_reload() {
    for activation in [Activation::Eager, Activation::OnDemand { limit: None }] {
        let mut crew = Crew::new(|_| {});
        crew.ask(Command::Stop);
        let life = life(|life| life.activation = activation.clone());
        crew.reload(WorkerUpdate::Definition { life: life.into() });
        crew.exits(crew.program(APP_0), killed_by(SIGTERM));
        crew.pass(seconds(100));
        assert_eq!(crew.programs(), []);
        assert!(crew.core.is_stopped(APP));
    }
}

// The second reload forgot what the first had added, and was never over.
#[test]
fn a_reload_takes_over_what_another_has_begun() {
    let mut crew = Crew::new(|_| {});
    let added = life(|life| life.ready = crate::config::Ready::Notify);
    let change = WorkerUpdate::Added { life: added.into() };
    let first = Configuration {
        ticket: Some(Ticket(1)),
        workers: vec![(OTHER, change)],
        ..Configuration::default()
    };
    crew.give(Input::Configure(Box::new(first)));
    let second = Configuration {
        ticket: Some(Ticket(2)),
        ..Configuration::default()
    };
    crew.give(Input::Configure(Box::new(second)));
    assert!(
        crew.answers()
            .contains(&Answer::Refused(Refused::Superseded))
    );
    let instance = InstanceId {
        worker: OTHER,
        ..APP_0
    };
    assert!(!crew.told(Event::Daemon(DaemonEvent::ReplanDone { bad: Vec::new() })));
    crew.says(instance, Notice::Ready);
    assert!(crew.told(Event::Daemon(DaemonEvent::ReplanDone { bad: Vec::new() })));
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

fn refusing() -> Crew {
    let failing = life(|life| {
        life.on_failure = OnFailure::Refuse;
        life.restart.policy = RestartPolicy::OnFailure;
        life.restart.limit = Some(Rate {
            count: 0,
            interval: seconds(60),
        });
    });
    let listener = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let core = Core::new(vec![failing], WhenDone::Hold).with_listeners(vec![listener]);
    let mut crew = Crew::of(core);
    crew.exits(crew.program(APP_0), ExitStatus::Code(1));
    let listener = ListenerId(0);
    assert!(crew.effects.contains(&Effect::Unbind { listener }));
    crew.forget();
    crew
}

// All of these waited for the listener, and nobody bound it.
#[test]
fn a_listener_that_was_closed_is_bound_by_whatever_starts_its_worker() {
    for command in [
        Command::Start,
        Command::Restart,
        Command::Reset,
        Command::Scale(2),
    ] {
        let mut crew = refusing();
        crew.ask(command);
        let listener = ListenerId(0);
        assert!(
            crew.effects.contains(&Effect::Bind { listener }),
            "{command:?}"
        );
        assert_eq!(crew.programs(), []);
        crew.give(Input::ListenerBound { listener });
        assert!(!crew.programs().is_empty(), "{command:?}");
        crew.pass(seconds(2));
        assert_eq!(crew.answers().last(), Some(&Answer::Done), "{command:?}");
    }
}

// It had waited for a listener, and went on doing so.
#[test]
fn what_a_worker_does_not_wait_for_any_more_does_not_keep_it_waiting() {
    let waits = ListenerLife {
        presence: Presence::WaitFor(seconds(5)),
        users: vec![APP],
    };
    let listener = ListenerId(0);
    let core = Core::new(vec![life(|_| {})], WhenDone::Hold).with_listeners(vec![waits.clone()]);
    let mut crew = Crew::of({
        let mut core = core;
        let why = Missing::Address;
        core.handle(Mono(0), Input::ListenerMissing { listener, why });
        core
    });
    assert_eq!(crew.programs(), []);
    let nobody = ListenerLife {
        users: Vec::new(),
        ..waits
    };
    let configuration = Configuration {
        listeners: vec![(listener, nobody)],
        ..Configuration::default()
    };
    crew.give(Input::Configure(Box::new(configuration)));
    assert_eq!(crew.programs(), Crew::first(&[APP_0]));
}

// It was closed, and stayed so when the new instance took the place of the one that had failed.
#[test]
fn a_listener_is_not_closed_while_somebody_is_to_take_its_clients_in_a_moment() {
    let mut crew = refusing();
    crew.ask(Command::Start);
    let listener = ListenerId(0);
    crew.give(Input::ListenerBound { listener });
    crew.ask(Command::Restart);
    crew.forget();
    let first = crew.programs()[0].0;
    let unbind = Effect::Unbind { listener };
    crew.exits(crew.program(first), ExitStatus::Code(1));
    assert!(!crew.effects.contains(&unbind));
    // But when that one is no good either.
    let second = crew.programs()[0].0;
    crew.exits(crew.program(second), ExitStatus::Code(1));
    assert!(crew.effects.contains(&unbind));
}

// The second reload was over before what the first had begun.
#[test]
fn a_reload_that_changes_settings_is_over_when_the_rollout_under_way_is() {
    let mut crew = Crew::new(|_| {});
    let other = life(|_| {});
    crew.reload(WorkerUpdate::Definition {
        life: other.clone().into(),
    });
    crew.forget();
    crew.reload(WorkerUpdate::Settings { life: other.into() });
    assert!(!crew.told(Event::Daemon(DaemonEvent::ReplanDone { bad: Vec::new() })));
    let instance = app(0, 2);
    crew.exits(crew.program(instance), ExitStatus::Code(1));
    assert!(crew.told(Event::Daemon(DaemonEvent::ReplanDone {
        bad: vec![instance]
    })));
    assert_eq!(crew.answers().last(), Some(&Answer::went_back(instance)));
}

// Only the first was named.
#[test]
fn a_reload_names_every_worker_that_went_back_or_did_not_start() {
    let lives = vec![life(|_| {}), life(|_| {})];
    let mut crew = Crew::of(Core::new(lives, WhenDone::Hold));
    let third = WorkerId(2);
    let definition = || WorkerUpdate::Definition {
        life: life(|_| {}).into(),
    };
    let added = WorkerUpdate::Added {
        life: life(|life| life.ready = crate::config::Ready::Notify).into(),
    };
    crew.forget();
    crew.give(Input::Configure(Box::new(Configuration {
        ticket: Some(Ticket(2)),
        workers: vec![(APP, definition()), (OTHER, definition()), (third, added)],
        ..Configuration::default()
    })));
    let first_of = |worker, generation| InstanceId {
        worker,
        index: 0,
        generation,
    };
    let bad = [first_of(OTHER, 2), app(0, 2), first_of(third, 1)];
    for instance in bad {
        crew.exits(crew.program(instance), ExitStatus::Code(1));
    }
    assert!(crew.told(Event::Daemon(DaemonEvent::ReplanDone { bad: bad.to_vec() })));
    let [back, other, new] = bad;
    let bad = vec![Bad::WentBack(back), Bad::WentBack(other), Bad::NotUp(new)];
    assert_eq!(crew.answers().last(), Some(&Answer::Failed { bad }));
}

// Its rollout was over, and that of the other goes on.
#[test]
fn a_reload_names_a_worker_that_goes_back_while_another_is_waited_for() {
    let lives = vec![life(|_| {}), life(|_| {})];
    let mut crew = Crew::of(Core::new(lives, WhenDone::Hold));
    let slow = life(|life| life.ready = crate::config::Ready::Notify);
    let quick = life(|_| {});
    let definition = |life: Lifecycle| WorkerUpdate::Definition { life: life.into() };
    crew.forget();
    crew.give(Input::Configure(Box::new(Configuration {
        ticket: Some(Ticket(2)),
        workers: vec![(APP, definition(quick)), (OTHER, definition(slow))],
        ..Configuration::default()
    })));
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
    assert!(!crew.core.is_rolling(APP) && crew.core.is_rolling(OTHER));
    let (bad, other) = (
        app(0, 2),
        InstanceId {
            worker: OTHER,
            ..app(0, 2)
        },
    );
    crew.exits(crew.program(bad), ExitStatus::Code(1));
    crew.says(other, Notice::Ready);
    crew.pass(seconds(2));
    let old = InstanceId {
        generation: 1,
        ..other
    };
    crew.exits(crew.program(old), killed_by(SIGTERM));
    assert!(crew.told(Event::Daemon(DaemonEvent::ReplanDone { bad: vec![bad] })));
    assert_eq!(crew.answers().last(), Some(&Answer::went_back(bad)));
}

#[test]
fn a_reload_names_a_worker_that_is_stopped_on_its_way_back() {
    let change = |life: &mut Lifecycle| life.ready = crate::config::Ready::Notify;
    let mut crew = Crew::new(change);
    crew.says(APP_0, Notice::Ready);
    crew.reload(WorkerUpdate::Definition {
        life: life(|life| {
            change(life);
            life.rollout.order = crate::config::Order::StopFirst;
        })
        .into(),
    });
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    crew.exits(crew.program(app(0, 2)), ExitStatus::Code(1));
    assert!(crew.core.degraded(APP).is_some() && crew.core.is_rolling(APP));
    crew.ask(Command::Stop);
    let bad = vec![app(0, 2)];
    assert!(crew.told(Event::Daemon(DaemonEvent::ReplanDone { bad })));
}

// It was told that the instance had failed; and the place that it waited for may be another's by
// then.
#[test]
fn who_waits_for_a_worker_that_is_removed_is_told_at_once() {
    let mut crew = Crew::new(|life| life.ready = crate::config::Ready::Notify);
    crew.says(APP_0, Notice::Ready);
    crew.ask(Command::Scale(2));
    crew.forget();
    crew.reload(WorkerUpdate::Removed);
    let refused = Answer::Refused(Refused::Superseded);
    assert!(crew.answers().contains(&refused));
    for (instance, _) in crew.programs() {
        crew.exits(crew.program(instance), killed_by(SIGTERM));
    }
    let superseded = crew.answers().iter().filter(|one| **one == refused).count();
    let has_failed = |answer: &Answer| matches!(answer, Answer::Failed { .. });
    assert_eq!(
        (superseded, crew.answers().iter().any(has_failed)),
        (1, false)
    );
    assert_eq!(gone(&crew, APP), 1);
}

/// A worker with O_NONBLOCK, whose only listener another takes in the same reload, which needs it clear.
fn taken_over_from(before: WorkerUpdate, by: WorkerUpdate) -> Crew {
    let listener = ListenerId(0);
    let taken_by = |worker: WorkerId| ListenerLife {
        presence: Presence::Required,
        users: vec![worker],
    };
    let lives = vec![life(|life| life.nonblocking = true), life(|_| {})];
    let core = Core::new(lives, WhenDone::Hold).with_listeners(vec![taken_by(APP)]);
    let mut crew = Crew::of(core);
    let configuration = Configuration {
        ticket: Some(Ticket(2)),
        workers: vec![(OTHER, by), (APP, before)],
        listeners: vec![(listener, taken_by(OTHER))],
        former: vec![(listener, APP, Revision(1))],
        ..Configuration::default()
    };
    crew.give(Input::Configure(Box::new(configuration)));
    crew
}

fn runs_of(crew: &Crew, worker: WorkerId) -> Vec<Revision> {
    let all = crew.programs().into_iter();
    let of_it = all.filter(|(instance, _)| instance.worker == worker);
    of_it.map(|(_, revision)| revision).collect()
}

fn other_definition(of: impl Fn(&mut Lifecycle)) -> WorkerUpdate {
    WorkerUpdate::Definition {
        life: life(of).into(),
    }
}

// It was started beside what drained, with O_NONBLOCK as that needs it, and died of it.
#[test]
fn who_needs_the_flag_otherwise_starts_when_those_that_leave_have_ended() {
    let mut crew = taken_over_from(WorkerUpdate::Removed, other_definition(|_| {}));
    // What it ran before goes on until then, and is replaced as usual.
    assert_eq!(runs_of(&crew, OTHER), [Revision(1)]);
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    assert_eq!(runs_of(&crew, OTHER), [Revision(1), Revision(2)]);

    let limit = None;
    for before in [
        WorkerUpdate::Removed,
        other_definition(|life| life.activation = crate::plan::Activation::OnDemand { limit }),
        other_definition(|life| life.nonblocking = true),
    ] {
        let is_rolled =
            matches!(&before, WorkerUpdate::Definition { life, .. } if life.nonblocking);
        let mut crew = taken_over_from(before, other_definition(|_| {}));
        let old = crew.program(APP_0);
        if is_rolled {
            // It may have to wait in turn, so who opposes it ends first.
            let ours = crew.program(InstanceId {
                worker: OTHER,
                ..APP_0
            });
            assert_eq!(crew.signals(ours)[0], SIGTERM);
            crew.exits(ours, killed_by(SIGTERM));
            assert_eq!(runs_of(&crew, OTHER), []);
            crew.pass(seconds(2));
        }
        crew.exits(old, killed_by(SIGTERM));
        assert!(runs_of(&crew, OTHER).contains(&Revision(2)));
        crew.pass(seconds(2));
        let ours = InstanceId {
            worker: OTHER,
            ..APP_0
        };
        if let Some(drains) = crew.find(ours, Task::Program) {
            crew.exits(drains, killed_by(SIGTERM));
        }
        assert_eq!(crew.answers().last(), Some(&Answer::Done));
    }
}

#[test]
fn one_that_is_new_waits_for_it_too_and_so_does_the_reload() {
    let lives = vec![life(|life| life.nonblocking = true)];
    let listener = ListenerId(0);
    let taken_by = |worker: WorkerId| ListenerLife {
        presence: Presence::Required,
        users: vec![worker],
    };
    for before in [
        WorkerUpdate::Removed,
        other_definition(|life| life.nonblocking = true),
    ] {
        let core = Core::new(lives.clone(), WhenDone::Hold).with_listeners(vec![taken_by(APP)]);
        let mut crew = Crew::of(core);
        let revision = Revision(1);
        let added = WorkerUpdate::Added {
            life: life(|_| {}).into(),
        };
        let configuration = Configuration {
            ticket: Some(Ticket(2)),
            workers: vec![(APP, before), (OTHER, added)],
            listeners: vec![(listener, taken_by(OTHER))],
            former: vec![(listener, APP, revision)],
            ..Configuration::default()
        };
        crew.give(Input::Configure(Box::new(configuration)));
        crew.pass(seconds(2));
        assert_eq!(runs_of(&crew, OTHER), []);
        assert!(!crew.answers().contains(&Answer::Done));
        crew.exits(crew.program(APP_0), killed_by(SIGTERM));
        assert_eq!(runs_of(&crew, OTHER), [revision]);
        assert_eq!(crew.answers().last(), Some(&Answer::Done));
    }
}

// The listener is taken by an old definition again, for as long as that is so.
#[test]
fn nobody_waits_for_what_a_rollback_keeps() {
    let lives = vec![life(|life| life.nonblocking = true)];
    let listener = ListenerId(0);
    let taken_by = |worker: WorkerId| ListenerLife {
        presence: Presence::Required,
        users: vec![worker],
    };
    let core = Core::new(lives, WhenDone::Hold).with_listeners(vec![taken_by(APP)]);
    let mut crew = Crew::of(core);
    let revision = Revision(1);
    let added = WorkerUpdate::Added {
        life: life(|_| {}).into(),
    };
    let configuration = Configuration {
        ticket: Some(Ticket(2)),
        workers: vec![
            (APP, other_definition(|life| life.nonblocking = true)),
            (OTHER, added),
        ],
        listeners: vec![(listener, taken_by(OTHER))],
        former: vec![(listener, APP, revision)],
        ..Configuration::default()
    };
    crew.give(Input::Configure(Box::new(configuration)));
    assert_eq!(runs_of(&crew, OTHER), []);
    crew.exits(crew.program(app(0, 2)), ExitStatus::Code(1));
    assert_eq!(runs_of(&crew, OTHER), [revision]);
    let instance = app(0, 2);
    assert_eq!(crew.answers().last(), Some(&Answer::went_back(instance)));
}

/// A worker whose rollout was rolled back.
fn went_back() -> Crew {
    let mut crew = Crew::new(|_| {});
    crew.reload(other_definition(|_| {}));
    crew.exits(crew.program(app(0, 2)), ExitStatus::Code(1));
    assert_eq!(crew.programs(), Crew::first(&[APP_0]));
    assert_eq!(crew.core.latest(APP), Some(Revision(2)));
    crew.forget();
    crew
}

#[test]
fn a_reload_tries_what_was_rolled_back_again_unless_it_changes_it() {
    let again = Configuration {
        ticket: Some(Ticket(3)),
        ..Configuration::default()
    };
    let settings = WorkerUpdate::Settings {
        life: life(|life| life.instances = 2).into(),
    };
    let new = Revision(3);
    for (change, instances) in [
        (None, 1),
        (Some(settings), 2),
        (Some(other_definition(|_| {})), 1),
    ] {
        let mut crew = went_back();
        assert_eq!(crew.core.rolled_back().collect::<Vec<_>>(), [APP]);
        let mut configuration = again.clone();
        configuration.workers = change.map(|change| (APP, change)).into_iter().collect();
        crew.give(Input::Configure(Box::new(configuration)));
        assert_eq!(crew.core.latest(APP), Some(new));
        assert_eq!(runs_of(&crew, APP), [Revision(1), new]);
        assert_eq!(crew.core.rolled_back().count(), 0);
        crew.pass(seconds(2));
        crew.exits(crew.program(APP_0), killed_by(SIGTERM));
        assert_eq!(runs_of(&crew, APP), vec![new; instances]);
        crew.pass(seconds(30));
        let (worker, needed) = (APP, Some(new));
        assert_eq!(crew.count(|e| *e == Effect::Retire { worker, needed }), 1);
        assert_eq!(crew.answers().last(), Some(&Answer::Done));
    }
}

#[test]
fn what_was_rolled_back_is_not_tried_again_when_it_is_removed() {
    let mut crew = went_back();
    crew.reload(WorkerUpdate::Removed);
    crew.give(Input::Configure(Box::default()));
    assert_eq!(crew.core.rolled_back().count(), 0);
    assert_eq!(crew.programs(), Crew::first(&[APP_0]));
}

#[test]
fn a_reload_says_how_many_workers_have_followed() {
    let mut core = Core::new(vec![life(|_| ()); 3], WhenDone::Hold);
    core.handle(Mono(0), Input::Start);
    let mut crew = Crew::of(Core::new([] as [Lifecycle; 0], WhenDone::Hold));
    crew.core = core;
    crew.take();
    let change = |worker| {
        let change = WorkerUpdate::Definition {
            life: life(|life| life.rollout.min_ready = Duration::ZERO).into(),
        };
        (WorkerId(worker), change)
    };
    crew.forget();
    let configuration = Configuration {
        ticket: Some(Ticket(2)),
        workers: vec![change(0), change(1), change(2)],
        ..Configuration::default()
    };
    crew.give(Input::Configure(Box::new(configuration)));
    for (process, _) in crew.processes.clone() {
        if crew.processes[&process].revision == Revision(1) {
            crew.exits(process, ExitStatus::Code(0));
        }
    }
    let progress = |done| Answer::Progress { done, of: 3 };
    let told = [
        progress(0),
        progress(1),
        progress(2),
        progress(3),
        Answer::Done,
    ];
    assert_eq!(crew.answers(), told);
    // One of nothing has no steps.
    crew.forget();
    let configuration = Configuration {
        ticket: Some(Ticket(2)),
        ..Configuration::default()
    };
    crew.give(Input::Configure(Box::new(configuration)));
    assert_eq!(crew.answers(), [Answer::Done]);
}

#[test]
fn looks_for_use_begin_again_if_a_reload_has_changed_their_time() {
    for (timeout, due) in [(10, 10), (20, 6 + 20)] {
        let on_demand = |life: &mut Lifecycle| {
            life.activation = Activation::OnDemand { limit: None };
            life.idle_timeout = Some(seconds(10));
        };
        let mut crew = super::demand::listening(on_demand);
        super::demand::client(&mut crew);
        crew.pass(seconds(6));
        let life = life(|life| {
            on_demand(life);
            life.idle_timeout = Some(seconds(timeout));
            life.stop_timeout = Some(seconds(7));
        });
        crew.reload(WorkerUpdate::Settings { life: life.into() });
        assert_eq!(crew.core.deadline(), Some(Mono(0) + seconds(due)));
    }
}

#[test]
fn a_reload_that_leaves_a_worker_as_it_is_forgets_what_went_wrong_with_it() {
    let mut crew = Crew::new(|life| life.rollout.min_ready = seconds(1));
    crew.ask(Command::Restart);
    crew.exits(crew.program(app(0, 2)), ExitStatus::Code(1));
    assert!(crew.core.degraded(APP).is_some());
    crew.give(Input::Configure(Box::default()));
    assert_eq!(crew.core.degraded(APP), None);
}

/// A worker that serves one connection by this limit of time.
fn serving(timeout: Option<Duration>) -> (Crew, ProcessId) {
    let web = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let life = life(|life| {
        life.activation = Activation::PerConnection(ConnectionLimits {
            timeout,
            ..ConnectionLimits::NONE
        });
        life.instances = 0;
    });
    let mut crew = Crew::of(Core::new(vec![life], WhenDone::Hold).with_listeners(vec![web]));
    comes(&mut crew);
    let accept = |effect: &Effect| match effect {
        Effect::Accept { connection, .. } => Some(*connection),
        _ => None,
    };
    let connection = crew.effects.iter().find_map(accept).expect("it is taken");
    crew.give(Input::Accepted {
        connection,
        source: Source::Unknown,
    });
    let process = crew.program(app(0, 1));
    (crew, process)
}

fn comes(crew: &mut Crew) {
    crew.give(Input::ClientWaits {
        listener: ListenerId(0),
        socket: SocketKey(0),
    });
}

fn to(crew: &mut Crew, activation: &Activation) {
    let life = life(|life| life.activation = activation.clone());
    crew.reload(WorkerUpdate::Definition { life: life.into() });
}

// They were stopped, though they do not have the listener, and with them clients that were served.
#[test]
fn who_is_served_is_served_to_the_end_whatever_the_activation_is_by_then() {
    for activation in [Activation::Eager, Activation::OnDemand { limit: None }] {
        let (mut crew, served) = serving(None);
        to(&mut crew, &activation);
        assert_eq!(crew.signals(served), NONE);
        // Nor do others wait for its end.
        comes(&mut crew);
        let next = crew.program(app(0, 2));
        assert_ne!(served, next);
        assert!(matches!(crew.state(app(0, 2)), State::Running { .. }));
        crew.exits(served, ExitStatus::Code(0));
        assert_eq!(crew.core.connections(APP).live, 0);
        assert_eq!(crew.programs().len(), 1);
        crew.ask(Command::Stop);
        assert_eq!(crew.signals(next)[0], SIGTERM);
    }
}

#[test]
fn what_it_was_accepted_under_limits_the_time_of_who_is_still_served() {
    let (mut crew, served) = serving(Some(seconds(5)));
    to(&mut crew, &Activation::Eager);
    crew.pass(seconds(4));
    assert_eq!(crew.signals(served), NONE);
    crew.pass(seconds(2));
    assert_eq!(crew.signals(served)[0], SIGTERM);
}

#[test]
fn who_is_still_served_is_stopped_with_the_worker() {
    let (mut crew, served) = serving(None);
    to(&mut crew, &Activation::Eager);
    crew.reload(WorkerUpdate::Removed);
    assert_eq!(crew.signals(served)[0], SIGTERM);
    crew.exits(crew.program(app(0, 2)), killed_by(SIGTERM));
    assert_eq!(gone(&crew, APP), 0);
    crew.exits(served, killed_by(SIGTERM));
    assert_eq!(gone(&crew, APP), 1);
    let (mut crew, served) = serving(None);
    to(&mut crew, &Activation::Eager);
    crew.ask(Command::Stop);
    assert_eq!(crew.signals(served)[0], SIGTERM);
}

// It does not start by itself: a reload that waited for it would never be over.
#[test]
fn what_was_added_and_waits_for_its_listener_is_not_waited_for() {
    let mut crew = Crew::new(|_| {});
    let added = life(|life| life.ready = crate::config::Ready::Notify);
    let listener = ListenerId(0);
    let taken = ListenerLife {
        presence: Presence::WaitFor(seconds(30)),
        users: vec![OTHER],
    };
    crew.give(Input::Configure(Box::new(Configuration {
        ticket: Some(Ticket(2)),
        workers: vec![(OTHER, WorkerUpdate::Added { life: added.into() })],
        listeners: vec![(listener, taken)],
        ..Configuration::default()
    })));
    let instance = InstanceId {
        worker: OTHER,
        index: 0,
        generation: 1,
    };
    let process = crew.program(instance);
    let why = Missing::Address;
    crew.give(Input::ListenerMissing { listener, why });
    crew.exits(process, killed_by(SIGTERM));
    assert_eq!(
        crew.answers().last(),
        Some(&Answer::not_up(instance)),
        "{:?}",
        crew.state(instance)
    );
}
