//! What was replaced goes on with its flows.

use super::crew::*;
use super::demand::listening;
use super::pictures::{Random, any_life};
use super::*;
use crate::config::{Order, Ready};
use crate::plan::{Activation, HookTimes};

const CRASH: ExitStatus = ExitStatus::Code(1);

fn sticky(change: impl Fn(&mut Lifecycle)) -> Crew {
    Crew::new(|life| {
        life.keeps_flows = true;
        life.rollout.min_ready = Duration::ZERO;
        change(life);
    })
}

/// The sockets of each process that was started, in order.
fn lanes(crew: &Crew) -> Vec<Lane> {
    let lane = |effect: &Effect| match effect {
        Effect::Spawn { lane, .. } => Some(*lane),
        _ => None,
    };
    crew.effects.iter().filter_map(lane).collect()
}

fn quiet(crew: &mut Crew, lane: Lane) {
    crew.give(Input::FlowsQuiet { worker: APP, lane });
}

fn worker_and(lane: Lane) -> [Effect; 3] {
    let worker = APP;
    [
        Effect::TakeFlows { worker, lane },
        Effect::WatchFlows { worker, lane },
        Effect::EndFlows { worker, lane },
    ]
}

#[test]
fn what_was_replaced_is_asked_to_stop_when_its_flows_are_quiet() {
    let mut crew = sticky(|_| {});
    crew.ask(Command::Restart);
    let (old, new) = (crew.program(app(0, 1)), crew.program(app(0, 2)));
    let [first, second] = lanes(&crew)[..] else {
        panic!("two are started");
    };
    assert_ne!(first, second);
    let order = [&worker_and(second)[0], &worker_and(first)[1]];
    let asked: Vec<&Effect> = crew
        .effects
        .iter()
        .filter(|one| order.contains(one))
        .collect();
    assert_eq!(asked, order, "new flows go to the new one first");
    assert!(!crew.core.is_rolling(APP), "nothing waits for it");
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
    crew.pass(seconds(29));
    quiet(&mut crew, second);
    assert_eq!((crew.signals(old), crew.signals(new)), (vec![], vec![]));
    quiet(&mut crew, first);
    assert_eq!(crew.signals(old)[0], SIGTERM);
    quiet(&mut crew, first);
    assert_eq!(
        crew.count(|one| matches!(
            one,
            Effect::Signal {
                signal: SIGTERM,
                ..
            }
        )),
        1
    );
    crew.exits(old, killed_by(SIGTERM));
    assert!(crew.effects.contains(&worker_and(first)[2]));
    assert_eq!(crew.programs(), Crew::first(&[app(0, 2)]));
}

#[test]
fn it_is_asked_to_stop_in_any_case_when_its_time_is_over_and_killed_after_that_time_again() {
    let mut crew = sticky(|_| {});
    crew.ask(Command::Restart);
    let old = crew.program(app(0, 1));
    crew.pass(seconds(30) - Duration::from_nanos(1));
    assert_eq!(crew.signals(old), NONE);
    crew.pass(Duration::from_nanos(1));
    assert_eq!(crew.signals(old)[0], SIGTERM);
    crew.pass(seconds(30));
    assert_eq!(crew.signals(old).last(), Some(&9));
    let timed_out = |event: &ProcessEvent| matches!(event, ProcessEvent::ConnectionTimedOut { .. });
    let told = crew.count(
        |effect| matches!(effect, Effect::Emit(Event::Process(_, _, event)) if timed_out(event)),
    );
    assert_eq!(told, 0);
}

#[test]
fn many_go_on_beside_each_other_and_a_stop_ends_all() {
    let mut crew = sticky(|life| life.stop_timeout = None);
    for _ in 0..10 {
        crew.ask(Command::Restart);
    }
    let all: Vec<InstanceId> = (1..12).map(|generation| app(0, generation)).collect();
    assert_eq!(crew.programs(), Crew::first(&all));
    crew.pass(seconds(3600));
    crew.forget();
    crew.ask(Command::Stop);
    for instance in all {
        assert_eq!(crew.signals(crew.program(instance))[0], SIGTERM);
    }
}

#[test]
fn a_crash_of_what_was_replaced_starts_nothing() {
    for activation in [Activation::Eager, Activation::OnDemand { limit: None }] {
        let mut crew = sticky(|life| life.activation = activation.clone());
        crew.ask(Command::Start);
        crew.give(Input::ClientWaits {
            listener: ListenerId(0),
            socket: SocketKey(0),
        });
        if crew.programs().is_empty() {
            continue;
        }
        crew.ask(Command::Restart);
        crew.exits(crew.program(app(0, 1)), CRASH);
        crew.pass(seconds(60));
        assert_eq!(crew.programs(), Crew::first(&[app(0, 2)]));
        assert!(!crew.core.is_degraded(APP));
    }
}

#[test]
fn a_new_instance_that_fails_leaves_new_flows_where_they_were() {
    let mut crew = sticky(|life| life.rollout.min_ready = seconds(2));
    crew.ask(Command::Restart);
    let [first, second] = lanes(&crew)[..] else {
        panic!("two are started");
    };
    crew.exits(crew.program(app(0, 2)), CRASH);
    assert!(crew.effects.contains(&worker_and(second)[2]));
    for unwanted in [&worker_and(second)[0], &worker_and(first)[1]] {
        assert!(!crew.effects.contains(unwanted), "{unwanted:?}");
    }
    assert_eq!(crew.signals(crew.program(app(0, 1))), NONE);
}

#[test]
fn with_stop_first_or_without_sticky_flows_the_old_one_is_asked_at_once() {
    for (before, after, order) in [
        (true, false, Order::StartFirst),
        (false, true, Order::StartFirst),
        (true, true, Order::StopFirst),
    ] {
        let mut crew = sticky(|life| life.keeps_flows = before);
        let life = life(|life| {
            life.keeps_flows = after;
            life.rollout.order = order;
            life.rollout.min_ready = Duration::ZERO;
        });
        crew.reload(WorkerUpdate::Definition { life: life.into() });
        assert_eq!(crew.signals(crew.program(app(0, 1)))[0], SIGTERM);
    }
}

#[test]
fn a_worker_with_sticky_flows_has_one_instance() {
    let mut crew = sticky(|_| {});
    crew.ask(Command::Scale(2));
    assert_eq!(crew.answers(), [Answer::Refused(Refused::OneInstance)]);
}

/// Whatever is asked, ends, is quiet or due, in any order.
#[test]
fn nobody_who_has_flows_is_asked_before_its_time() {
    let mut kept = 0;
    for seed in 0..500 {
        let random = &mut Random(seed);
        let mut any = any_life(random);
        any.keeps_flows = true;
        any.activation = Activation::Eager;
        any.instances = 1;
        any.ready = Ready::Started;
        any.hooks = HookTimes::default();
        any.watchdog = None;
        let mut crew = Crew::new(|life| *life = any.clone());
        let mut stopped = false;
        for _ in 0..60 {
            let before = crew.core.clone();
            crew.forget();
            let all: Vec<ProcessId> = crew.processes.keys().copied().collect();
            let mut quiet = None;
            let mut asked = false;
            match random.below(10) {
                0..=2 => crew.ask(Command::Restart),
                3 => {
                    asked = true;
                    crew.ask(random.one_of(&[Command::Start, Command::Stop, Command::Reset]));
                }
                4 => {
                    let life = any.clone();
                    crew.reload(WorkerUpdate::Definition { life: life.into() });
                }
                5 | 6 => {
                    let lane = Lane(random.below(20) as u64);
                    quiet = Some(lane);
                    crew.give(Input::FlowsQuiet { worker: APP, lane });
                }
                7 if !all.is_empty() => {
                    let process = random.one_of(&all);
                    crew.exits(process, random.one_of(&[CRASH, ExitStatus::Code(0)]));
                }
                8 if random.below(20) == 0 => {
                    stopped = true;
                    crew.give(Input::Stop);
                }
                _ => crew.pass(Duration::from_millis(500)),
            }
            // Who keeps its flows, by the core before: its lane, and when its time is over.
            let worker = &before.workers[&APP];
            for run in worker.runs.leaving() {
                let State::Running { process, until, .. } = run.state else {
                    continue;
                };
                kept += 1;
                let signals = crew.signals(process);
                let is_due = until.is_some_and(|until| until <= crew.now);
                let may = is_due || asked || stopped || quiet == Some(run.id.lane());
                assert!(may || signals.is_empty(), "{run:?} got {signals:?}");
                let is_there = crew.processes.contains_key(&process);
                if is_there && (is_due || quiet == Some(run.id.lane())) {
                    assert!(!signals.is_empty(), "{run:?} goes on");
                }
            }
        }
        // Everything ends.
        crew.give(Input::Stop);
        crew.give(Input::Stop);
        for process in crew.processes.keys().copied().collect::<Vec<_>>() {
            crew.exits(process, killed_by(9));
        }
        assert!(crew.count(|one| matches!(one, Effect::Exit { .. })) > 0 || stopped);
    }
    assert!(kept > 200, "only {kept} were seen");
}

// (whether the worker takes the listener, whether its instance has a socket there) and whether it has them.
#[test]
fn new_flows_go_to_who_takes_the_listener_or_has_it_although_nobody_does() {
    let crew = listening(|_| ());
    let (web, nobodys) = (ListenerId(0), ListenerId(9));
    for (listener, worker, has_socket, takes) in [
        (web, APP, false, true),
        (web, APP, true, true),
        (web, WorkerId(9), true, false),
        (nobodys, APP, false, false),
        (nobodys, APP, true, true),
    ] {
        let found = crew.core.takes_flows(listener, worker, has_socket);
        assert_eq!(found, takes, "{listener:?} {worker:?} {has_socket}");
    }
}

#[test]
fn what_has_its_place_has_the_flows_of_another_worker_at_once() {
    let mut crew = listening(|_| ());
    crew.ask(Command::Restart);
    let own = lanes(&crew);
    let others = Lane(99);
    let web = ListenerId(0);
    let at_once =
        |crew: &Crew, instance, present| crew.core.takes_flows_at_once(web, instance, present);
    assert!(at_once(&crew, app(0, 1), others));
    assert!(!at_once(&crew, app(0, 2), others), "it is on trial");
    assert!(!own.iter().any(|lane| at_once(&crew, app(0, 1), *lane)));
    crew.pass(seconds(2));
    crew.exits(crew.program(app(0, 1)), ExitStatus::Code(0));
    assert!(at_once(&crew, app(0, 2), others));
    assert!(at_once(&crew, app(0, 2), own[0]), "that is nobody's now");
    assert!(!at_once(&crew, app(0, 2), own[1]));
}

#[test]
fn flows_of_nobody_go_to_what_has_its_place_and_runs() {
    let mut crew = listening(|_| ());
    let web = ListenerId(0);
    let first = lanes(&crew)[0];
    assert_eq!(crew.core.heir_of_flows(web), Some(first));
    assert_eq!(crew.core.heir_of_flows(ListenerId(9)), None);
    crew.ask(Command::Restart);
    let second = lanes(&crew)[1];
    assert_eq!(
        crew.core.heir_of_flows(web),
        Some(first),
        "until it is promoted"
    );
    crew.pass(seconds(2));
    assert_eq!(crew.core.heir_of_flows(web), Some(second));
    crew.ask(Command::Stop);
    crew.exits(crew.program(app(0, 2)), killed_by(SIGTERM));
    assert_eq!(crew.core.heir_of_flows(web), None);
}
