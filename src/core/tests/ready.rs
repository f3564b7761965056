//! The rules of readiness and of signs of life.

use super::crew::*;
use super::*;
use crate::config::{Every, Ready};
use crate::plan::SocketKey;

const SIGABRT: i32 = 6;

fn is_ready(crew: &Crew) -> bool {
    matches!(crew.state(APP_0), State::Running { .. })
}

#[test]
fn who_is_to_say_so_is_ready_when_it_says_so() {
    for ready in [Ready::Notify, Ready::Fd(3)] {
        let mut crew = Crew::new(|life| life.ready = ready);
        assert!(matches!(crew.state(APP_0), State::Activating { .. }));
        assert!(!crew.told(Event::Daemon(DaemonEvent::Up { failed: 0 })));
        crew.now = crew.now + seconds(3);
        crew.says(APP_0, Notice::Ready);
        assert!(is_ready(&crew) && crew.told(Event::Daemon(DaemonEvent::Up { failed: 0 })));
        let process = crew.program(APP_0);
        let after = seconds(3);
        assert!(crew.told(Event::Process(
            APP_0,
            process,
            ProcessEvent::Ready { after }
        )));
    }
}

#[test]
fn what_a_worker_of_einhorn_acknowledges_counts_for_itself_alone() {
    for ready in [
        Ready::Notify,
        Ready::Fd(3),
        Ready::Accepting(Every::All),
        Ready::Einhorn,
    ] {
        let mut crew = Crew::new(|life| life.ready = ready);
        if ready == Ready::Einhorn {
            crew.says(APP_0, Notice::Ready);
            assert!(!is_ready(&crew), "that is another protocol");
        }
        crew.says(APP_0, Notice::Acknowledged);
        assert_eq!(is_ready(&crew), ready == Ready::Einhorn, "{ready}");
    }
    // Where nobody waits for it, it is not the end of a reload either.
    let mut crew = Crew::new(|life| life.ready = Ready::Notify);
    crew.says(APP_0, Notice::Ready);
    crew.says(APP_0, Notice::Reloading);
    let process = crew.program(APP_0);
    crew.says(APP_0, Notice::Acknowledged);
    let reloaded = ProcessEvent::Reloaded { untold: 0 };
    assert!(!crew.told(Event::Process(APP_0, process, reloaded)));
}

#[test]
fn who_is_to_take_clients_is_looked_at_ever_more_rarely() {
    let accepting = Ready::Accepting(Every::All);
    let mut crew = Crew::new(|life| life.ready = accepting);
    crew.says(APP_0, Notice::Ready);
    assert!(!is_ready(&crew), "its word does not count");
    let process = crew.program(APP_0);
    let mut pauses = Vec::new();
    for _ in 0..30 {
        let before = crew.now;
        crew.now = crew.core.deadline().unwrap();
        pauses.push(crew.now.since(before));
        crew.forget();
        crew.give(Input::Tick);
        assert_eq!(crew.effects, [Effect::LookForEvidence { process }]);
        crew.give(Input::Evidence {
            process,
            evidence: Evidence::NotYet,
        });
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!((pauses[0], *pauses.last().unwrap()), (LOOK_MIN, LOOK_MAX));
    crew.pass(LOOK_MAX);
    crew.give(Input::Evidence {
        process,
        evidence: Evidence::Seen,
    });
    assert!(is_ready(&crew));
}

#[test]
fn what_cannot_be_seen_counts_as_ready_and_is_told() {
    let mut crew = Crew::new(|life| life.ready = Ready::Accepting(Every::All));
    let (process, instance) = (crew.program(APP_0), APP_0);
    let evidence = Evidence::Hidden;
    // Once or twice may be an accident: of a process that is just ending nothing can be read.
    for look in 1..=3 {
        assert!(!is_ready(&crew));
        let at = crew.core.deadline().expect("a look");
        crew.now = at;
        crew.give(Input::Tick);
        crew.give(Input::Evidence { process, evidence });
        assert_eq!(is_ready(&crew), look == 3);
    }
    assert!(crew.told(Event::Process(
        instance,
        process,
        ProcessEvent::ReadinessHidden
    )));
}

#[test]
fn who_is_not_ready_in_time_is_ended_and_that_is_a_crash() {
    let mut crew = Crew::new(|life| {
        life.ready = Ready::Notify;
        life.start_timeout = Some(seconds(5));
        life.restart = strict();
    });
    let process = crew.program(APP_0);
    crew.pass(seconds(5) - Duration::from_nanos(1));
    assert_eq!(crew.signals(process), NONE);
    crew.pass(Duration::from_nanos(1));
    assert_eq!(crew.signals(process), [SIGTERM, 18]);
    crew.pass(seconds(30));
    assert_eq!(crew.signals(process), [SIGTERM, 18, SIGKILL]);
    for _ in 0..5 {
        // However it takes that.
        crew.exits(crew.program(APP_0), ExitStatus::Code(0));
        assert!(matches!(crew.state(APP_0), State::Backoff { .. }));
        crew.pass(seconds(7));
    }
    crew.exits(crew.program(APP_0), ExitStatus::Code(0));
    assert!(matches!(crew.state(APP_0), State::Failed { .. }));
}

#[test]
fn it_can_ask_for_more_time() {
    let mut crew = Crew::new(|life| {
        life.ready = Ready::Notify;
        life.start_timeout = Some(seconds(5));
    });
    crew.pass(seconds(4));
    crew.says(APP_0, Notice::ExtendTimeout(seconds(3)));
    crew.pass(seconds(2));
    let process = crew.program(APP_0);
    assert_eq!(crew.signals(process), NONE);
    crew.pass(seconds(1));
    assert_eq!(crew.signals(process), [SIGTERM, 18]);
}

#[test]
fn who_gives_no_sign_of_life_is_aborted_and_started_again() {
    let mut crew = Crew::new(|life| life.watchdog = Some(seconds(3)));
    let process = crew.program(APP_0);
    for _ in 0..5 {
        crew.pass(seconds(2));
        crew.says(APP_0, Notice::Alive);
    }
    crew.pass(seconds(3) - Duration::from_nanos(1));
    assert_eq!(crew.signals(process), NONE);
    crew.pass(Duration::from_nanos(1));
    assert_eq!(crew.signals(process), [SIGABRT, 18]);
    crew.pass(seconds(30));
    assert_eq!(crew.signals(process), [SIGABRT, 18, SIGKILL]);
    crew.exits(process, killed_by(SIGKILL));
    crew.pass(seconds(1));
    assert!(is_ready(&crew));
}

#[test]
fn who_says_that_it_is_not_well_is_aborted_at_once() {
    let mut crew = Crew::new(|life| life.watchdog = Some(seconds(3)));
    crew.says(APP_0, Notice::Trigger);
    assert_eq!(crew.signals(crew.program(APP_0)), [SIGABRT, 18]);
}

#[test]
fn the_watchdog_has_no_business_with_who_is_not_ready_yet() {
    let mut crew = Crew::new(|life| {
        life.watchdog = Some(seconds(3));
        life.ready = Ready::Notify;
    });
    crew.pass(seconds(50));
    assert_eq!(crew.signals(crew.program(APP_0)), NONE);
    crew.says(APP_0, Notice::Ready);
    crew.pass(seconds(3));
    assert_eq!(crew.signals(crew.program(APP_0)), [SIGABRT, 18]);
}

// A connection that was given away with its process has nothing to start again for.
#[test]
fn the_process_of_a_connection_is_not_started_again_after_the_watchdog() {
    use crate::config::{ConnectionLimits, Presence};
    use crate::plan::{Activation, ListenerId};
    let per_connection = life(|life| {
        life.activation = Activation::PerConnection(ConnectionLimits::default());
        life.instances = 0;
        life.watchdog = Some(seconds(3));
    });
    let listener = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let core = Core::new(vec![per_connection], WhenDone::Hold).with_listeners(vec![listener]);
    let mut crew = Crew::of(core);
    let (listener, socket) = (ListenerId(0), 0);
    crew.give(Input::ClientWaits {
        listener,
        socket: SocketKey(socket),
    });
    let (connection, source) = (ConnectionId(0), crate::connection::Source::Unknown);
    crew.give(Input::Accepted { connection, source });
    crew.pass(seconds(3));
    let process = crew.program(APP_0);
    assert_eq!(crew.signals(process), [SIGABRT, 18]);
    crew.exits(process, killed_by(SIGABRT));
    crew.pass(seconds(100));
    assert_eq!(crew.programs(), []);
    assert_eq!(crew.core.connections(APP).live, 0);
}

// It may say so without end, and nobody reads as much.
#[test]
fn one_that_reloads_all_the_time_is_told_of_now_and_then() {
    let mut crew = Crew::new(|life| life.ready = Ready::Notify);
    crew.says(APP_0, Notice::Ready);
    let told = |crew: &Crew| {
        let of_reloads = crew.effects.iter().filter_map(|effect| match effect {
            Effect::Emit(Event::Process(_, _, ProcessEvent::Reloaded { untold, .. })) => {
                Some(*untold)
            }
            _ => None,
        });
        of_reloads.collect::<Vec<u32>>()
    };
    let reload = |crew: &mut Crew| {
        crew.says(APP_0, Notice::Reloading);
        crew.says(APP_0, Notice::Ready);
    };
    crew.forget();
    (0..1000).for_each(|_| reload(&mut crew));
    assert_eq!(told(&crew), [0; 5]);
    crew.pass(seconds(11));
    reload(&mut crew);
    reload(&mut crew);
    assert_eq!(told(&crew), [0, 0, 0, 0, 0, 995, 0]);
}

// listend.yaml(5): the limits of connections count from a reload on, also for what is served.
#[test]
fn another_connection_timeout_counts_for_the_connections_that_there_are() {
    use crate::config::{ConnectionLimits, Presence};
    use crate::plan::{Activation, ListenerId};
    let with = |timeout: Option<Duration>| {
        life(|life| {
            let limits = ConnectionLimits {
                timeout,
                ..ConnectionLimits::default()
            };
            life.activation = Activation::PerConnection(limits);
            life.instances = 0;
        })
    };
    let listener = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let core = Core::new(vec![with(None)], WhenDone::Hold).with_listeners(vec![listener]);
    let mut crew = Crew::of(core);
    let (listener, socket) = (ListenerId(0), 0);
    crew.give(Input::ClientWaits {
        listener,
        socket: SocketKey(socket),
    });
    let (connection, source) = (ConnectionId(0), crate::connection::Source::Unknown);
    crew.give(Input::Accepted { connection, source });
    let process = crew.program(APP_0);
    crew.pass(seconds(10));
    crew.reload(WorkerUpdate::Settings {
        life: with(Some(seconds(30))).into(),
    });
    crew.pass(seconds(19));
    assert_eq!(crew.signals(process), NONE);
    // Since it was accepted, and not since the reload.
    crew.pass(seconds(2));
    assert_eq!(crew.signals(process)[0], SIGTERM);
}

#[test]
fn another_watchdog_is_in_force_at_once_and_the_same_is_none_sooner() {
    let settings = |watchdog| WorkerUpdate::Settings {
        life: life(|life| life.watchdog = Some(watchdog)).into(),
    };
    let mut crew = Crew::new(|life| life.watchdog = Some(seconds(10)));
    let process = crew.program(APP_0);
    crew.pass(seconds(9));
    crew.reload(settings(seconds(30)));
    crew.pass(seconds(29));
    assert_eq!(crew.signals(process), NONE);
    // The time goes on where the interval is the same.
    crew.reload(settings(seconds(30)));
    crew.pass(seconds(1));
    assert_ne!(crew.signals(process), NONE);
}

#[test]
fn the_second_look_comes_after_half_the_time_that_it_has_taken() {
    let mut crew = Crew::new(|life| life.ready = Ready::Accepting(Every::All));
    let process = crew.program(APP_0);
    let looks = |effect: &Effect| matches!(effect, Effect::LookForEvidence { .. });
    crew.pass(LOOK_MIN);
    assert_eq!(crew.count(looks), 1);
    crew.pass(Duration::from_millis(90));
    crew.give(Input::Evidence {
        process,
        evidence: Evidence::NotYet,
    });
    crew.forget();
    crew.pass(Duration::from_millis(49));
    assert_eq!(crew.count(looks), 0);
    crew.pass(Duration::from_millis(1));
    assert_eq!(crew.count(looks), 1);
}
