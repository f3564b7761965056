//! What people ask for, against processes that do what a test says.

use super::crew::*;
use super::demand::{client, listening, on_demand};
use super::*;
use crate::config::{OnFailure, Presence, Ready};
use crate::plan::Activation;

const WEB: ListenerId = ListenerId(0);
const FINE: ExitStatus = ExitStatus::Code(0);
const BAD: ExitStatus = ExitStatus::Code(1);

fn refused(why: Refused) -> Answer {
    Answer::Refused(why)
}

/// Asks for one instance. What everybody is told.
fn ask_one(crew: &mut Crew, number: u64, index: u32, command: Command) -> Vec<(u64, Answer)> {
    crew.forget();
    crew.give(Input::Operate {
        ticket: Ticket(number),
        worker: APP,
        index: Some(index),
        command,
    });
    let answer = |effect: &Effect| match effect {
        Effect::Answer { ticket, answer } => Some((ticket.0, answer.clone())),
        _ => None,
    };
    crew.effects.iter().filter_map(answer).collect()
}

/// Asks for the worker as a whole. What is answered.
fn ask(crew: &mut Crew, command: Command) -> Vec<Answer> {
    crew.forget();
    crew.ask(command);
    crew.answers()
}

fn ready_later(instances: u32) -> Crew {
    let mut crew = Crew::new(|life| {
        life.instances = instances;
        life.ready = Ready::Notify;
        life.rollout.min_ready = Duration::ZERO;
    });
    for index in 0..instances {
        crew.says(app(index, 1), Notice::Ready);
    }
    crew
}

fn rollouts(crew: &Crew) -> usize {
    crew.count(|effect| matches!(effect, Effect::Emit(Event::Rollout(..))))
}

fn binds(crew: &Crew) -> usize {
    crew.count(|effect| matches!(effect, Effect::Bind { .. }))
}

#[test]
fn a_signal_for_one_instance_goes_to_it_alone() {
    let mut crew = ready_later(2);
    let told = ask_one(&mut crew, 1, 1, Command::Signal(10));
    assert_eq!(told, [(1, Answer::Done)]);
    assert_eq!(crew.signals(crew.program(app(0, 1))), NONE);
    assert_eq!(crew.signals(crew.program(app(1, 1))), [10]);
}

#[test]
fn restarts_of_several_instances_are_one_rollout() {
    let mut crew = ready_later(3);
    let told = ask_one(&mut crew, 1, 0, Command::Restart);
    assert_eq!(told, [(1, progress(0, 1))]);
    for number in [2, 3] {
        let told = ask_one(&mut crew, number, 1, Command::Restart);
        assert_eq!(told, [(number, progress(0, 2))]);
    }
    let busy = |number| [(number, refused(Refused::Busy))];
    let told = ask_one(&mut crew, 4, 0, Command::Restart);
    assert_eq!(told, busy(4), "it is under way");
    for command in [Command::Start, Command::Stop, Command::Reset] {
        assert_eq!(ask_one(&mut crew, 5, 2, command), busy(5), "{command:?}");
    }
    crew.says(app(0, 2), Notice::Ready);
    crew.exits(crew.program(app(0, 1)), FINE);
    let told = ask_one(&mut crew, 6, 0, Command::Restart);
    assert_eq!(told, busy(6), "it is done");
    crew.forget();
    crew.says(app(1, 2), Notice::Ready);
    crew.exits(crew.program(app(1, 1)), FINE);
    assert_eq!(crew.answers()[3..], [const { Answer::Done }; 3]);
    assert!(crew.find(app(2, 1), Task::Program).is_some());
}

#[test]
fn one_instance_is_not_restarted_while_a_rollout_goes_back_or_to_another_definition() {
    let mut crew = ready_later(3);
    crew.ask(Command::Restart);
    crew.says(app(0, 2), Notice::Ready);
    crew.exits(crew.program(app(0, 1)), FINE);
    crew.exits(crew.program(app(1, 2)), BAD);
    assert!(crew.core.is_degraded(APP));
    if crew.core.is_rolling(APP) {
        let told = ask_one(&mut crew, 2, 2, Command::Restart);
        assert_eq!(told, [(2, refused(Refused::Busy))]);
    }
    let mut crew = ready_later(3);
    crew.reload(WorkerUpdate::Definition {
        life: life(|life| {
            life.instances = 3;
            life.ready = Ready::Notify;
        })
        .into(),
    });
    let told = ask_one(&mut crew, 2, 2, Command::Restart);
    assert_eq!(told, [(2, refused(Refused::Busy))]);
}

#[test]
fn an_instance_that_was_stopped_is_started_by_a_restart_and_not_by_a_reset() {
    let mut crew = ready_later(2);
    ask_one(&mut crew, 1, 1, Command::Stop);
    crew.exits(crew.program(app(1, 1)), FINE);
    let told = ask_one(&mut crew, 2, 1, Command::Reset);
    assert_eq!(told, [(2, Answer::Done)]);
    assert_eq!(crew.state(app(1, 1)), State::Stopped);
    let told = ask_one(&mut crew, 3, 1, Command::Restart);
    assert_eq!(told, [(3, progress(0, 1))]);
    assert_eq!((rollouts(&crew), crew.programs().len()), (0, 2));
    // Whoever waits for it is told if somebody wants something else.
    let told = ask_one(&mut crew, 4, 1, Command::Stop);
    let superseded = refused(Refused::Superseded);
    assert_eq!(told, [(3, superseded), (4, progress(0, 1))]);
    let told = ask_one(&mut crew, 5, 0, Command::Stop);
    assert_eq!(told, [(5, progress(0, 1))]);
}

#[test]
fn an_instance_that_clients_start_joins_the_others_if_they_run() {
    let mut crew = listening(|life| {
        on_demand(life);
        life.instances = 2;
        life.ready = Ready::Notify;
        life.restart.policy = RestartPolicy::Never;
    });
    let told = ask_one(&mut crew, 1, 1, Command::Start);
    assert_eq!((told, crew.programs().len()), (vec![(1, Answer::Done)], 0));
    client(&mut crew);
    crew.exits(crew.program(app(1, 1)), FINE);
    let told = ask_one(&mut crew, 2, 1, Command::Start);
    assert_eq!(told, [(2, progress(0, 1))]);
    assert_eq!(crew.programs().len(), 2);
    // It waits for the next client then, as it should.
    crew.forget();
    crew.exits(crew.program(app(1, 1)), FINE);
    assert_eq!(crew.answers(), [progress(1, 1), Answer::Done]);
}

#[test]
fn nothing_is_started_for_want_of_a_listener_that_is_waited_for() {
    let wait = Presence::WaitFor(seconds(30));
    let web = |presence| ListenerLife {
        presence,
        users: vec![APP],
    };
    let core = Core::new(vec![life(|_| ())], WhenDone::Hold);
    // It has one of two.
    let core = core.with_listeners(vec![web(wait), web(Presence::Required)]);
    let mut crew = Crew::of(core);
    crew.exits(crew.program(app(0, 1)), BAD);
    crew.give(Input::ListenerMissing {
        listener: WEB,
        why: Missing::Other,
    });
    crew.pass(seconds(1));
    assert_eq!(crew.programs(), []);
    for command in [Command::Start, Command::Restart] {
        let told = ask_one(&mut crew, 1, 0, command);
        assert_eq!(told, [(1, refused(Refused::WaitsForListener))]);
        assert_eq!(
            ask(&mut crew, command),
            [refused(Refused::WaitsForListener)]
        );
    }
    crew.give(Input::ListenerBound { listener: WEB });
    assert_eq!(crew.programs().len(), 1);
}

#[test]
fn a_start_that_joins_a_rollout_hears_how_far_it_is() {
    let mut crew = ready_later(2);
    crew.ask(Command::Restart);
    assert_eq!(ask(&mut crew, Command::Start), [progress(0, 2)]);
    crew.says(app(0, 2), Notice::Ready);
    crew.exits(crew.program(app(0, 1)), FINE);
    assert_eq!(ask(&mut crew, Command::Start), [progress(1, 2)]);
}

#[test]
fn a_restart_of_nothing_has_no_steps() {
    let mut crew = listening(on_demand);
    assert_eq!(ask(&mut crew, Command::Restart), [Answer::Done]);
}

#[test]
fn a_start_does_not_forget_the_crashes_of_what_waits() {
    let mut crew = listening(on_demand);
    let crashes = |crew: &mut Crew| {
        client(crew);
        crew.exits(crew.program(app(0, 1)), BAD);
        let until = crew.core.deadline().expect("it is put off");
        let delay = until.since(crew.now);
        crew.pass(delay);
        delay
    };
    let first = crashes(&mut crew);
    assert_eq!(crew.state(app(0, 1)), State::Waiting);
    assert_eq!(ask(&mut crew, Command::Start), [Answer::Done]);
    assert!(crashes(&mut crew) > first);
}

#[test]
fn what_comes_back_from_a_stop_is_on_its_way() {
    let mut crew = Crew::new(|_| ());
    crew.ask(Command::Stop);
    assert_eq!(ask(&mut crew, Command::Start), [progress(0, 1)]);
    crew.forget();
    crew.exits(crew.program(app(0, 1)), FINE);
    let done = [progress(1, 1), Answer::Done];
    assert_eq!(crew.answers(), done, "who asked for the stop");
    crew.forget();
    crew.pass(Duration::ZERO);
    assert_eq!(crew.answers(), done, "and who asked for the start");
}

#[test]
fn the_same_number_again_waits_for_what_is_on_its_way() {
    let mut crew = Crew::new(|life| life.hooks.before_start = Some(seconds(5)));
    for _ in 0..2 {
        let told = ask(&mut crew, Command::Scale(1));
        assert_eq!(told.last(), Some(&progress(0, 1)));
    }
    crew.forget();
    crew.exits(crew.hook(app(0, 1), HookKind::BeforeStart), FINE);
    assert_eq!(crew.answers(), [progress(1, 1), Answer::Done]);
}

#[test]
fn a_worker_that_keeps_flows_may_be_told_that_it_has_one_instance() {
    let mut crew = Crew::new(|life| life.keeps_flows = true);
    assert_eq!(ask(&mut crew, Command::Scale(1)), [Answer::Done]);
    let told = ask(&mut crew, Command::Scale(2));
    assert_eq!(told, [refused(Refused::OneInstance)]);
}

fn refuses(life: &mut Lifecycle) {
    life.instances = 2;
    life.on_failure = OnFailure::Refuse;
    life.restart = Restart {
        limit: Some(Rate {
            count: 0,
            interval: seconds(60),
        }),
        ..strict()
    };
}

/// Two instances that have failed, and whose listener was closed for that.
fn refusing(failed: u32) -> Crew {
    let mut crew = listening(refuses);
    for index in 0..failed {
        crew.exits(crew.program(app(index, 1)), BAD);
    }
    crew
}

#[test]
fn only_more_instances_bind_what_was_closed() {
    let mut crew = refusing(2);
    assert_eq!(crew.core.listener_state(WEB), ListenerCondition::Missing);
    for (instances, bound) in [(1, 0), (1, 0), (2, 1)] {
        ask(&mut crew, Command::Scale(instances));
        assert_eq!(binds(&crew), bound, "{instances}");
    }
}

// It was closed, and stayed so until the next reload, which bound it.
#[test]
fn a_worker_that_is_stopped_has_not_failed_and_has_its_listener_bound() {
    let mut crew = refusing(2);
    assert_eq!(ask(&mut crew, Command::Stop), [Answer::Done]);
    assert_eq!(binds(&crew), 1);
    let mut crew = refusing(2);
    ask_one(&mut crew, 1, 0, Command::Stop);
    assert_eq!(binds(&crew), 1);
}

// A reload said that it applied, and the listener stayed as it was.
#[test]
fn a_change_of_what_happens_at_a_failure_applies_to_what_has_failed() {
    let mut crew = refusing(2);
    crew.forget();
    let mut wanted = life(refuses);
    wanted.on_failure = OnFailure::Hold;
    crew.reload(WorkerUpdate::Settings {
        life: wanted.clone().into(),
    });
    assert_eq!(binds(&crew), 1);
    crew.give(Input::ListenerBound { listener: WEB });
    crew.forget();
    wanted.on_failure = OnFailure::Refuse;
    crew.reload(WorkerUpdate::Settings {
        life: wanted.into(),
    });
    assert!(crew.effects.contains(&Effect::Unbind { listener: WEB }));
    assert_eq!(crew.core.listener_state(WEB), ListenerCondition::Missing);
}

#[test]
fn whoever_waits_for_an_end_is_not_told_of_listeners() {
    let mut crew = refusing(0);
    crew.ask(Command::Scale(1));
    crew.exits(crew.program(app(0, 1)), BAD);
    assert_eq!(crew.core.listener_state(WEB), ListenerCondition::Missing);
    ask(&mut crew, Command::Reset);
    assert_eq!(binds(&crew), 1);
    crew.forget();
    let missing = |crew: &mut Crew| {
        crew.give(Input::ListenerMissing {
            listener: WEB,
            why: Missing::Other,
        });
    };
    missing(&mut crew);
    assert_eq!(crew.answers(), []);
    crew.exits(crew.program(app(1, 1)), FINE);
    assert_eq!(crew.answers(), [progress(1, 1), Answer::Done]);
}

#[test]
fn a_reset_of_what_clients_start_waits_for_them() {
    let mut crew = listening(|life| {
        on_demand(life);
        life.restart = Restart {
            limit: Some(Rate {
                count: 0,
                interval: seconds(60),
            }),
            ..strict()
        };
    });
    client(&mut crew);
    crew.exits(crew.program(app(0, 1)), BAD);
    assert!(matches!(crew.state(app(0, 1)), State::Failed { .. }));
    assert_eq!(ask(&mut crew, Command::Reset), [Answer::Done]);
    assert_eq!(crew.state(app(0, 1)), State::Waiting);
}

#[test]
fn what_needs_the_flag_otherwise_waits_for_all_that_leaves() {
    let mut crew = listening(|_| ());
    let other = life(|life| {
        life.activation = Activation::OnDemand { limit: None };
        life.nonblocking = !life.nonblocking;
    });
    crew.reload(WorkerUpdate::Definition { life: other.into() });
    client(&mut crew);
    assert_eq!(crew.programs().len(), 1, "the old one has not ended");
    crew.exits(crew.program(app(0, 1)), FINE);
    client(&mut crew);
    assert_eq!(crew.programs(), [(app(0, 2), Revision(2))]);
}

#[test]
fn a_worker_without_instances_has_not_failed() {
    let refusing = |instances| {
        life(|life| {
            life.instances = instances;
            life.on_failure = OnFailure::Refuse;
            life.restart.limit = Some(Rate {
                count: 0,
                interval: seconds(60),
            });
        })
    };
    let web = ListenerLife {
        presence: Presence::Required,
        users: vec![APP, WorkerId(1)],
    };
    let core = Core::new(vec![refusing(1), refusing(0)], WhenDone::Hold);
    let mut crew = Crew::of(core.with_listeners(vec![web]));
    crew.exits(crew.program(app(0, 1)), BAD);
    assert!(matches!(crew.state(app(0, 1)), State::Failed { .. }));
    assert_eq!(crew.core.listener_state(WEB), ListenerCondition::Listening);
}

#[test]
fn a_restart_of_what_clients_start_binds_what_was_closed_and_waits_for_them() {
    let mut crew = listening(|life| {
        on_demand(life);
        life.on_failure = OnFailure::Refuse;
        life.restart.limit = Some(Rate {
            count: 0,
            interval: seconds(60),
        });
    });
    client(&mut crew);
    crew.exits(crew.program(app(0, 1)), BAD);
    assert_eq!(crew.core.listener_state(WEB), ListenerCondition::Missing);
    assert_eq!(ask(&mut crew, Command::Restart), [Answer::Done]);
    assert_eq!(binds(&crew), 1);
    let waiting: Vec<_> = crew.core.instances().map(|(_, state)| state).collect();
    assert_eq!(waiting, [State::Waiting]);
    // What somebody has stopped stays so.
    ask(&mut crew, Command::Stop);
    let life = life(on_demand);
    crew.reload(WorkerUpdate::Definition { life: life.into() });
    let stopped: Vec<_> = crew.core.instances().map(|(_, state)| state).collect();
    assert_eq!(stopped, [State::Stopped]);
}

#[test]
fn what_was_closed_is_bound_if_a_reload_gives_it_to_somebody_who_is_well() {
    for (instances, bound) in [(1, 1), (0, 1)] {
        let mut crew = refusing(2);
        crew.forget();
        // Nobody else takes it.
        crew.give(Input::Configure(Box::default()));
        assert_eq!(binds(&crew), 0);
        let web = ListenerLife {
            presence: Presence::Required,
            users: vec![APP, WorkerId(1)],
        };
        let life = life(|life| life.instances = instances);
        let configuration = Configuration {
            workers: vec![(WorkerId(1), WorkerUpdate::Added { life: life.into() })],
            listeners: vec![(WEB, web)],
            ..Configuration::default()
        };
        crew.give(Input::Configure(Box::new(configuration)));
        assert_eq!(binds(&crew), bound);
    }
}

#[test]
fn a_reload_has_what_it_has_changed_watched_anew_and_nothing_else() {
    let other = ListenerId(1);
    let web = || ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let core = Core::new(vec![life(on_demand)], WhenDone::Hold);
    let mut crew = Crew::of(core.with_listeners(vec![web(), web()]));
    for listener in [WEB, other] {
        crew.give(Input::ClientWaits {
            listener,
            socket: SocketKey(0),
        });
    }
    let configuration = Configuration {
        listeners: vec![(WEB, web())],
        ..Configuration::default()
    };
    crew.give(Input::Configure(Box::new(configuration)));
    crew.forget();
    // It ends, and takes clients again.
    crew.exits(crew.program(app(0, 1)), FINE);
    crew.give(Input::Looked {
        worker: APP,
        waiting: Waiting::Nobody,
    });
    let watched = |effect: &Effect| match effect {
        Effect::Watch { listener, .. } => Some(*listener),
        _ => None,
    };
    let watched: Vec<_> = crew.effects.iter().filter_map(watched).collect();
    assert_eq!(watched, [other]);
}

#[test]
fn who_starts_without_an_optional_listener_is_not_told_that_it_is_missing() {
    let optional = ListenerLife {
        presence: Presence::Optional,
        users: vec![APP],
    };
    let core = Core::new(
        vec![life(|life| life.ready = Ready::Notify)],
        WhenDone::Hold,
    );
    let mut crew = Crew::of(core.with_listeners(vec![optional]));
    crew.ask(Command::Stop);
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    crew.ask(Command::Start);
    let (listener, why) = (WEB, Missing::Other);
    crew.give(Input::ListenerMissing { listener, why });
    let instance = crew.programs()[0].0;
    crew.says(instance, Notice::Ready);
    let is_told = |answer: &Answer| matches!(answer, Answer::NotBound { .. });
    assert!(!crew.answers().iter().any(is_told), "{:?}", crew.answers());
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}
