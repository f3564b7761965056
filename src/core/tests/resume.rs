//! What half-done things become when another core goes on.

use super::crew::*;
use super::*;
use crate::config::{ConnectionLimits, Every, Presence, Ready};
use crate::connection::Source;
use crate::core::snapshot::{Known, Snapshot};
use crate::plan::{Activation, ListenerId, SocketKey};

const WEB: ListenerId = ListenerId(0);
const SOCKET: SocketKey = SocketKey(0);

/// The same core in another process: nothing is told yet.
fn thaw(core: &Core) -> Core {
    let text: Vec<String> = core.freeze().changes().map(|one| one.text()).collect();
    thaw_text(&text, core.known())
}

fn thaw_text(text: &[String], known: Known) -> Core {
    let head = r#"{"kind":"snapshot","format":1}"#;
    let lines = [head].into_iter().chain(text.iter().map(String::as_str));
    let read = Snapshot::read(lines).unwrap();
    Core::thaw(&read.snapshot, known).unwrap()
}

impl Crew {
    /// Another process goes on, that finds what there is.
    fn survive(&mut self, tell: impl FnOnce(&mut Crew)) {
        self.core = thaw(&self.core);
        self.forget();
        tell(self);
        self.give(Input::Resumed);
    }

    fn dies_unseen(&mut self, process: ProcessId) {
        self.exits(process, ExitStatus::Unknown);
    }
}

/// A core that was started, and of which nothing is done.
fn started(change: impl Fn(&mut Lifecycle)) -> Core {
    let mut core = Core::new(vec![life(change)], WhenDone::Hold);
    core.handle(Mono(1), Input::Start);
    while core.next_effect().is_some() {}
    core
}

fn spawned(core: &mut Core) -> Vec<ProcessId> {
    let effects = std::iter::from_fn(|| core.next_effect());
    let spawn = |effect| match effect {
        Effect::Spawn { process, .. } => Some(process),
        _ => None,
    };
    effects.filter_map(spawn).collect()
}

#[test]
fn a_launch_that_no_process_came_of_is_made_again_and_not_counted() {
    let mut core = thaw(&started(|_| {}));
    assert_eq!(core.processes().count(), 0);
    core.handle(Mono(2), Input::Resumed);
    core.handle(Mono(2), Input::Tick);
    assert_eq!(spawned(&mut core), [ProcessId(1)], "a number of its own");
    let facts = core.facts(APP_0).unwrap();
    assert_eq!((facts.restarts, facts.last_end), (0, None));
}

#[test]
fn a_launch_that_no_process_came_of_is_not_made_again_if_it_was_to_be_stopped() {
    let mut core = started(|_| {});
    core.handle(Mono(2), Input::Stop);
    while core.next_effect().is_some() {}
    let mut core = thaw(&core);
    core.handle(Mono(3), Input::Resumed);
    let wanted: Vec<Effect> = std::iter::from_fn(|| core.next_effect()).collect();
    assert!(wanted.contains(&Effect::Exit { code: 0 }), "{wanted:?}");
}

#[test]
fn what_ended_before_its_exec_was_told_of_has_run() {
    let mut core = started(|_| {});
    let process = ProcessId(0);
    core.handle(Mono(2), Input::Spawned { process });
    while core.next_effect().is_some() {}
    let mut core = thaw(&core);
    assert_eq!(core.processes().collect::<Vec<_>>(), [process]);
    let status = ExitStatus::Unknown;
    core.handle(Mono(9), Input::Exited { process, status });
    core.handle(Mono(9), Input::Resumed);
    let end = core.facts(APP_0).unwrap().last_end;
    assert!(matches!(end, Some(LastEnd::Exited { status, .. }) if status == ExitStatus::Unknown));
    assert!(matches!(core.state(APP_0), Some(State::Backoff { .. })));
}

#[test]
fn an_unknown_end_is_a_crash() {
    let limit = Rate {
        count: 1,
        interval: seconds(60),
    };
    let mut crew = Crew::new(|life| life.restart.limit = Some(limit));
    let crash = |crew: &mut Crew| {
        let process = crew.program(APP_0);
        crew.survive(|crew| crew.dies_unseen(process));
    };
    crash(&mut crew);
    assert!(matches!(crew.state(APP_0), State::Backoff { .. }));
    crew.pass(seconds(5));
    crash(&mut crew);
    assert!(matches!(crew.state(APP_0), State::Failed { .. }));
}

// What asks listend ends with it, before the next one looks or later: that is no crash of it.
#[test]
fn what_ends_with_listend_is_started_again_at_once() {
    let limit = Rate {
        count: 1,
        interval: seconds(60),
    };
    let ends = [
        Some(ExitStatus::Code(0)),
        Some(ExitStatus::Code(69)),
        Some(ExitStatus::Unknown),
        None,
    ];
    for end in ends {
        let mut crew = Crew::new(|life| {
            life.restart.limit = Some(limit);
            life.ends_with_listend = true;
        });
        for _ in 0..4 {
            let process = crew.program(APP_0);
            crew.survive(|crew| end.into_iter().for_each(|end| crew.exits(process, end)));
            if end.is_none() {
                assert_eq!(crew.signals(process), NONE, "it ends by itself");
                crew.pass(seconds(30));
                assert_eq!(crew.signals(process), [SIGKILL], "it hung");
                crew.exits(process, killed_by(SIGKILL));
            }
            crew.pass(Duration::ZERO);
            assert_eq!(crew.programs().len(), 1, "{end:?}");
        }
        // Later ends of its own count.
        crew.exits(crew.program(APP_0), ExitStatus::Code(69));
        assert!(matches!(crew.state(APP_0), State::Backoff { .. }));
        crew.pass(seconds(5));
        crew.exits(crew.program(APP_0), ExitStatus::Code(69));
        assert!(matches!(crew.state(APP_0), State::Failed { .. }));
    }
}

#[test]
fn a_sign_of_life_is_due_one_interval_after_it_goes_on() {
    let mut crew = Crew::new(|life| life.watchdog = Some(seconds(10)));
    crew.pass(seconds(9));
    crew.survive(|crew| crew.now = crew.now + seconds(60));
    crew.pass(seconds(9));
    assert!(matches!(crew.state(APP_0), State::Running { .. }));
    crew.pass(seconds(1));
    assert!(matches!(crew.state(APP_0), State::Stopping { .. }));
}

#[test]
fn a_stop_goes_on_with_the_time_that_it_had() {
    let mut crew = Crew::new(|life| life.stop_timeout = Some(seconds(30)));
    let process = crew.program(APP_0);
    crew.ask(Command::Stop);
    crew.pass(seconds(20));
    crew.survive(|_| {});
    crew.pass(seconds(9));
    assert_eq!(crew.signals(process), NONE, "it was asked before");
    crew.pass(seconds(1));
    assert_eq!(crew.signals(process), [SIGKILL]);
}

#[test]
fn a_command_that_was_lost_has_failed() {
    let mut crew = Crew::new(|life| life.hooks.before_start = Some(seconds(5)));
    let hook = crew.hook(APP_0, HookKind::BeforeStart);
    crew.survive(|crew| crew.dies_unseen(hook));
    let end = HookEnd::Exited {
        status: ExitStatus::Unknown,
    };
    let facts = crew.core.facts(APP_0).unwrap();
    assert_eq!(facts.last_end, Some(LastEnd::NotPrepared { end }));
    // One that goes on has the time that it had.
    crew.pass(seconds(1));
    let hook = crew.hook(APP_0, HookKind::BeforeStart);
    crew.pass(seconds(3));
    crew.survive(|_| {});
    crew.pass(seconds(2));
    assert_eq!(crew.signals(hook), [SIGKILL]);
}

#[test]
fn a_command_that_was_never_started_has_failed() {
    let core = started(|life| life.hooks.before_start = Some(seconds(5)));
    let mut core = thaw(&core);
    assert_eq!(core.processes().count(), 0);
    core.handle(Mono(2), Input::Resumed);
    assert!(matches!(core.state(APP_0), Some(State::Backoff { .. })));
}

#[test]
fn it_is_looked_again_whether_an_instance_takes_clients() {
    let mut crew = Crew::new(|life| life.ready = Ready::Accepting(Every::All));
    crew.pass(seconds(1));
    let process = crew.program(APP_0);
    crew.survive(|_| {});
    assert!(crew.effects.contains(&Effect::LookForEvidence { process }));
    let evidence = Evidence::Seen;
    crew.give(Input::Evidence { process, evidence });
    assert!(matches!(crew.state(APP_0), State::Running { .. }));
}

#[test]
fn a_rollout_goes_on_where_it_was() {
    let mut crew = Crew::new(|life| {
        life.instances = 2;
        life.ready = Ready::Notify;
    });
    for index in 0..2 {
        crew.says(app(index, 1), Notice::Ready);
    }
    crew.reload(WorkerUpdate::Definition {
        life: life(|life| {
            life.instances = 2;
            life.ready = Ready::Notify;
        })
        .into(),
    });
    for index in 0..2 {
        crew.survive(|_| {});
        assert!(crew.core.is_rolling(APP));
        crew.says(app(index, 2), Notice::Ready);
        crew.survive(|_| {});
        crew.pass(seconds(5));
        crew.survive(|_| {});
        let old = crew.program(app(index, 1));
        crew.survive(|crew| crew.dies_unseen(old));
    }
    assert!(!crew.core.is_rolling(APP));
    let second = [app(0, 2), app(1, 2)].map(|one| (one, Revision(2)));
    assert_eq!(crew.programs(), second);
    assert!(!crew.core.is_degraded(APP));
}

#[test]
fn a_rollout_whose_new_instance_was_lost_goes_back() {
    let mut crew = Crew::new(|life| life.ready = Ready::Notify);
    crew.says(APP_0, Notice::Ready);
    crew.reload(WorkerUpdate::Definition {
        life: life(|life| life.ready = Ready::Notify).into(),
    });
    let new = crew.program(app(0, 2));
    crew.survive(|crew| crew.dies_unseen(new));
    assert!(crew.core.is_degraded(APP));
    assert_eq!(crew.programs(), Crew::first(&[APP_0]));
    // What was given up is tried again on request, in another process still.
    crew.survive(|_| {});
    crew.ask(Command::Restart);
    assert!(crew.programs().contains(&(app(0, 3), Revision(2))));
}

fn accepting() -> Crew {
    let mut accepts = life(|life| life.instances = 0);
    let limits = ConnectionLimits {
        max: Some(2),
        ..ConnectionLimits::NONE
    };
    accepts.activation = Activation::PerConnection(limits);
    let web = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    Crew::of(Core::new(vec![accepts], WhenDone::Hold).with_listeners(vec![web]))
}

impl Crew {
    fn client(&mut self) {
        let (listener, socket) = (WEB, SOCKET);
        self.give(Input::ClientWaits { listener, socket });
        let accept = |effect: &Effect| match effect {
            Effect::Accept { connection, .. } => Some(*connection),
            _ => None,
        };
        if let Some(connection) = self.effects.iter().filter_map(accept).next_back() {
            let source = Source::User(1000);
            self.give(Input::Accepted { connection, source });
        }
        self.effects.retain(|effect| accept(effect).is_none());
    }
}

#[test]
fn connections_whose_processes_live_count_against_the_limit() {
    let mut crew = accepting();
    crew.client();
    crew.client();
    crew.survive(|_| {});
    crew.client();
    assert_eq!(crew.core.connections(APP).live, 2, "there is room for two");
    let process = crew.program(app(0, 1));
    crew.dies_unseen(process);
    crew.client();
    let counts = crew.core.connections(APP);
    assert_eq!((counts.live, counts.accepted), (2, 3));
    assert!(crew.core.state(app(2, 1)).is_some(), "no name comes twice");
}

fn found(index: u32) -> Input {
    Input::ConnectionFound {
        worker: APP,
        index,
        source: Source::Unknown,
    }
}

#[test]
fn a_process_of_a_connection_that_is_not_known_counts_and_keeps_its_number() {
    let mut crew = accepting();
    crew.survive(|crew| {
        crew.give(found(6));
        crew.give(found(4));
    });
    let counts = crew.core.connections(APP);
    assert_eq!((counts.live, counts.accepted), (2, 2));
    crew.client();
    assert_eq!(crew.core.connections(APP).live, 2, "there is room for two");
    let process = crew.program(app(6, 1));
    crew.exits(process, ExitStatus::Code(0));
    crew.client();
    assert_eq!(crew.core.connections(APP).live, 2);
    assert!(crew.core.state(app(7, 1)).is_some(), "no name comes twice");
}

#[test]
fn a_process_of_a_connection_that_is_not_known_is_stopped_with_the_others() {
    let mut crew = accepting();
    crew.client();
    let process = crew.program(app(0, 1));
    crew.give(Input::Stop);
    crew.survive(|crew| crew.give(found(1)));
    crew.dies_unseen(process);
    let state = crew.core.state(app(1, 1));
    let Some(State::Stopping { process, .. }) = state else {
        panic!("it is {state:?}");
    };
    assert!(
        !crew
            .effects
            .iter()
            .any(|one| matches!(one, Effect::Exit { .. }))
    );
    crew.exits(process, ExitStatus::Code(0));
    assert!(
        crew.effects
            .iter()
            .any(|one| matches!(one, Effect::Exit { .. }))
    );
}

/// What only connections have changed can wait, and there is nothing to tell of those that are over by then.
#[test]
fn of_connections_that_came_and_went_nothing_is_told() {
    let runs = |core: &mut Core| {
        let changes = core.take_changes();
        let of_runs = changes.iter().filter(|one| one.key().kind() == "run");
        of_runs.map(|one| one.text()).collect::<Vec<_>>()
    };
    let mut crew = accepting();
    assert!(!crew.core.changes_can_wait(), "nothing was told yet");
    crew.core.take_changes();
    assert!(!crew.core.has_changes());
    crew.client();
    assert!(crew.core.has_changes() && crew.core.changes_can_wait());
    let process = crew.program(app(0, 1));
    crew.exits(process, ExitStatus::Code(0));
    assert!(crew.core.has_changes() && crew.core.changes_can_wait());
    assert_eq!(runs(&mut crew.core), Vec::<String>::new());
    crew.client();
    assert_eq!(runs(&mut crew.core).len(), 1);
    let process = crew.program(app(1, 1));
    crew.exits(process, ExitStatus::Code(0));
    let gone = r#"{"kind":"run","key":1,"gone":true}"#;
    assert_eq!(runs(&mut crew.core), [gone]);
    crew.ask(Command::Stop);
    assert!(!crew.core.changes_can_wait(), "somebody has asked for it");
}

#[test]
fn a_connection_without_a_process_is_held_or_lost() {
    let held = || {
        let mut core = accepting().core;
        let (listener, socket) = (WEB, SOCKET);
        let now = Mono(1);
        core.handle(now, Input::ClientWaits { listener, socket });
        let connection = ConnectionId(0);
        let source = Source::Unknown;
        core.handle(now, Input::Accepted { connection, source });
        let process = ProcessId(0);
        let failure = failure(Stage::Fork);
        core.handle(now, Input::LaunchFailed { process, failure });
        while core.next_effect().is_some() {}
        thaw(&core)
    };
    let connection = ConnectionId(0);
    let mut core = held();
    assert_eq!(core.open_connections().collect::<Vec<_>>(), [connection]);
    core.handle(Mono(1), Input::Resumed);
    let due = core.deadline().unwrap();
    core.handle(due, Input::Tick);
    assert_eq!(spawned(&mut core), [ProcessId(1)]);

    let mut core = held();
    core.handle(Mono(1), Input::ConnectionLost { connection });
    core.handle(Mono(1), Input::Resumed);
    assert_eq!(core.connections(APP).live, 0);
    assert_eq!(core.deadline(), None);
}

#[test]
fn a_held_connection_waits_for_no_listener() {
    let mut core = accepting().core;
    let (listener, socket, now) = (WEB, SOCKET, Mono(1));
    core.handle(now, Input::ClientWaits { listener, socket });
    let connection = ConnectionId(0);
    let source = Source::Unknown;
    core.handle(now, Input::Accepted { connection, source });
    let process = ProcessId(0);
    let failure = failure(Stage::Fork);
    core.handle(now, Input::LaunchFailed { process, failure });
    let why = Missing::Other;
    core.handle(now, Input::ListenerMissing { listener, why });
    while core.next_effect().is_some() {}
    // Beside the listener, which is tried again.
    for _ in 0..100 {
        let Some(due) = core.deadline() else { break };
        core.handle(due, Input::Tick);
        if let [again] = spawned(&mut core)[..] {
            assert_eq!(again, ProcessId(1));
            return;
        }
    }
    panic!("it waits: {core:#?}");
}

#[test]
fn nothing_is_due_of_a_removed_worker_whose_last_accept_failed() {
    let mut crew = accepting();
    let (listener, socket) = (WEB, SOCKET);
    crew.give(Input::ClientWaits { listener, socket });
    crew.reload(WorkerUpdate::Removed);
    let why = NotAccepted::Exhausted { errno: 24 };
    let connection = ConnectionId(0);
    crew.give(Input::NotAccepted { connection, why });
    assert_eq!(crew.core.deadline(), None);
}

#[test]
fn what_is_missing_is_bound_again_and_what_is_damaged_repaired() {
    let lives = [Presence::Optional, Presence::WaitFor(seconds(30))];
    let lives = lives.map(|presence| ListenerLife {
        presence,
        users: vec![APP],
    });
    let mut crew =
        Crew::of(Core::new(vec![life(|_| {})], WhenDone::Hold).with_listeners(lives.into()));
    let [listener, other] = [WEB, ListenerId(1)];
    let why = Missing::Other;
    crew.give(Input::ListenerMissing { listener, why });
    let why = Missing::Address;
    crew.give(Input::ListenerMissing {
        listener: other,
        why,
    });
    let socket = SOCKET;
    crew.pass(seconds(1));
    crew.survive(|_| {});
    assert!(crew.effects.contains(&Effect::Bind { listener }));
    assert!(
        crew.effects
            .contains(&Effect::WatchAddresses { wanted: true })
    );
    crew.give(Input::ListenerBound { listener });
    crew.give(damaged(listener, socket));
    crew.survive(|_| {});
    assert!(crew.effects.contains(&Effect::Repair { listener, socket }));
    // What is found to be otherwise is told before.
    crew.survive(|crew| crew.give(Input::ListenerBound { listener: other }));
    assert_eq!(
        crew.core.listener_state(other),
        ListenerCondition::Listening
    );
}

fn taken() -> ListenerLife {
    ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    }
}

/// What is told of sockets, with what was done to them.
fn told_of_sockets(crew: &Crew) -> Vec<(SocketEvent, Option<&str>)> {
    let events = crew.effects.iter().filter_map(|effect| match effect {
        Effect::Emit(Event::Socket { damage, event, .. }) => Some((*event, damage.as_deref())),
        _ => None,
    });
    events.collect()
}

#[test]
fn a_removed_worker_with_instances_is_refused() {
    let core = started(|_| {});
    let snapshot = core.freeze();
    let text = snapshot.changes().map(|one| one.text());
    let text = text.map(|line| line.replace(r#""removed":false"#, r#""removed":true"#));
    let text: Vec<String> = text.collect();
    let head = r#"{"kind":"snapshot","format":1}"#;
    let lines = [head].into_iter().chain(text.iter().map(String::as_str));
    let read = Snapshot::read(lines).unwrap();
    let refused = Core::thaw(&read.snapshot, core.known()).unwrap_err();
    assert!(refused.to_string().contains("was removed"), "{refused}");
}

/// A launch failed, and another core goes on before the exit is known; what that tells of it.
fn why_a_launch_failed(core: &mut Core, change: impl Fn(String) -> String) -> Vec<Effect> {
    let process = spawned(core)[0];
    core.handle(Mono(2), Input::Spawned { process });
    let failure = LaunchFailure::new(Stage::Exec, 2, "there is no /srv".to_owned());
    core.handle(Mono(3), Input::LaunchFailed { process, failure });
    let text: Vec<String> = core.freeze().changes().map(|one| one.text()).collect();
    assert!(text.iter().any(|line| line.contains("there is no /srv")));
    let text: Vec<String> = text.into_iter().map(change).collect();
    let mut core = thaw_text(&text, core.known());
    core.handle(Mono(4), Input::Resumed);
    let status = ExitStatus::Code(1);
    core.handle(Mono(5), Input::Exited { process, status });
    std::iter::from_fn(|| core.next_effect()).collect()
}

#[test]
fn why_a_launch_failed_is_said_by_the_next() {
    let reason = |effects: &[Effect]| {
        let mut told = effects.iter().filter_map(|effect| match effect {
            Effect::Emit(Event::Process(_, _, ProcessEvent::LaunchFailed { failure, .. })) => {
                Some(failure.reason.clone())
            }
            Effect::Emit(Event::Process(_, _, ProcessEvent::HookFailed { end, .. })) => match end {
                HookEnd::NotLaunched { failure } => Some(failure.reason.clone()),
                HookEnd::Exited { .. } | HookEnd::TimedOut { .. } => None,
            },
            _ => None,
        });
        told.next().expect("it is told")
    };
    let start = |change: fn(&mut Lifecycle)| {
        let mut core = Core::new(vec![life(change)], WhenDone::Hold);
        core.handle(Mono(1), Input::Start);
        core
    };
    let with_hook = |life: &mut Lifecycle| life.hooks.before_start = Some(seconds(9));
    for change in [(|_| {}) as fn(&mut Lifecycle), with_hook] {
        let told = why_a_launch_failed(&mut start(change), |line| line);
        assert_eq!(reason(&told).as_deref(), Some("there is no /srv"));
    }
    // An earlier listend has not written it down.
    let without = |line: String| line.replace(r#","reason":"there is no /srv""#, "");
    let told = why_a_launch_failed(&mut start(|_| {}), without);
    assert_eq!(reason(&told), None);
}

#[test]
fn what_was_done_to_a_socket_is_said_until_it_is_closed() {
    let core = started(|_| {}).with_listeners(vec![taken()]);
    let mut crew = Crew::of(core);
    let (listener, socket) = (WEB, SOCKET);
    crew.give(damaged(listener, socket));
    let what = format!("socket {} was shut down", socket.0);
    let what = Some(what.as_str());
    assert_eq!(told_of_sockets(&crew), [(SocketEvent::Damaged, what)]);
    crew.survive(|_| {});
    crew.forget();
    crew.give(Input::RepairFailed { listener, socket });
    let again_in = seconds(1);
    let failed = SocketEvent::RepairFailed { again_in };
    assert_eq!(told_of_sockets(&crew), [(failed, what)]);
    crew.survive(|_| {});
    crew.give(Input::SocketHeld { listener, socket });
    assert_eq!(told_of_sockets(&crew), [(SocketEvent::Vacated, what)]);
}

#[test]
fn a_snapshot_need_not_say_what_was_done_to_a_socket() {
    let mut core = started(|_| {}).with_listeners(vec![taken()]);
    core.handle(Mono(1), damaged(WEB, SOCKET));
    let snapshot = core.freeze();
    let text = snapshot.changes().map(|one| one.text());
    let text: Vec<String> = text
        .map(|line| line.replace(r#""what":"socket 0 was shut down","#, ""))
        .collect();
    assert!(!text.iter().any(|line| line.contains("shut down")));
    let mut crew = Crew::of(thaw_text(&text, core.known()));
    crew.give(Input::Resumed);
    let (listener, socket) = (WEB, SOCKET);
    crew.give(Input::RepairFailed { listener, socket });
    assert!(matches!(
        told_of_sockets(&crew)[..],
        [(SocketEvent::RepairFailed { .. }, None)]
    ));
}

#[test]
fn clients_that_wait_are_told_of_again() {
    let mut crew = Crew::of(
        Core::new(
            vec![life(|life| {
                life.activation = Activation::OnDemand { limit: None };
            })],
            WhenDone::Hold,
        )
        .with_listeners(vec![ListenerLife {
            presence: Presence::Required,
            users: vec![APP],
        }]),
    );
    let (listener, socket) = (WEB, SOCKET);
    crew.ask(Command::Stop);
    crew.give(Input::ClientWaits { listener, socket });
    crew.survive(|_| {});
    crew.give(Input::ClientWaits { listener, socket });
    assert!(crew.effects.contains(&Effect::Unwatch { listener, socket }));
    crew.ask(Command::Start);
    assert!(crew.effects.contains(&Effect::Watch { listener, socket }));
    crew.give(Input::ClientWaits { listener, socket });
    assert_eq!(crew.programs(), Crew::first(&[APP_0]));
}

#[test]
fn nothing_is_noted_for_whoever_does_not_ask() {
    let mut crew = Crew::new(|life| life.hooks.after_ready = Some(seconds(5)));
    let noted = |core: &Core| {
        let record = &core.ctx.record;
        !record.workers.is_empty() || !record.handed_out.is_empty() || !record.gone.is_empty()
    };
    assert!(!noted(&crew.core));
    let first = crew.core.take_changes();
    assert_eq!(first.len(), crew.core.freeze().changes().count());
    assert_eq!(crew.core.take_changes(), [], "nothing has changed");
    crew.says(APP_0, Notice::Alive);
    assert_eq!(crew.core.take_changes(), [], "a sign of life is no news");
    let hook = crew.hook(APP_0, HookKind::AfterReady);
    crew.exits(hook, ExitStatus::Code(0));
    let changes = crew.core.take_changes();
    let keys: Vec<_> = changes.iter().map(|one| one.text()).collect();
    assert_eq!(keys, [r#"{"kind":"hook","key":1,"gone":true}"#]);
}

#[test]
fn what_was_replaced_and_keeps_its_flows_goes_on_until_they_are_quiet_or_its_time_is_over() {
    let sticky = |life: &mut Lifecycle| {
        life.keeps_flows = true;
        life.rollout.min_ready = Duration::ZERO;
    };
    for quiet in [true, false] {
        let mut crew = Crew::new(sticky);
        crew.ask(Command::Restart);
        let old = crew.program(app(0, 1));
        let watched = |effect: &Effect| match effect {
            Effect::WatchFlows { lane, .. } => Some(*lane),
            _ => None,
        };
        let lane = crew.effects.iter().find_map(watched).unwrap();
        for _ in 0..3 {
            crew.pass(seconds(5));
            crew.survive(|_| {});
            let again: Vec<Lane> = crew.effects.iter().filter_map(watched).collect();
            assert_eq!(again, [lane], "it is waited for again");
            assert_eq!(crew.signals(old), NONE);
        }
        if quiet {
            crew.give(Input::FlowsQuiet { worker: APP, lane });
        } else {
            crew.pass(seconds(15));
        }
        assert_eq!(crew.signals(old)[0], SIGTERM);
        crew.exits(old, killed_by(SIGTERM));
        assert_eq!(crew.programs(), Crew::first(&[app(0, 2)]));
    }
}

#[test]
fn what_keeps_its_flows_is_asked_to_stop_if_its_worker_is_gone() {
    let mut crew = Crew::new(|life| {
        life.keeps_flows = true;
        life.rollout.min_ready = Duration::ZERO;
    });
    crew.ask(Command::Restart);
    let old = crew.program(app(0, 1));
    crew.reload(WorkerUpdate::Removed);
    assert_eq!(crew.signals(old)[0], SIGTERM);
}

#[test]
fn looks_and_steering_begin_anew() {
    let mut crew = super::demand::listening(|life| {
        super::demand::on_demand(life);
        life.idle_timeout = Some(seconds(10));
        life.distribute = crate::config::Distribute::Shards;
    });
    super::demand::client(&mut crew);
    crew.survive(|_| ());
    assert_eq!(
        crew.core.deadline(),
        Some(crew.now),
        "who uses it is not known"
    );
    let steers = crew.count(|effect| matches!(effect, Effect::Steer { .. }));
    assert_eq!(steers, 1, "the kernel has no program");
}

#[test]
fn what_could_not_be_repaired_is_tried_again_in_its_time_only() {
    let mut crew =
        Crew::of(Core::new(vec![life(|_| {})], WhenDone::Hold).with_listeners(vec![taken()]));
    let (listener, socket) = (WEB, SOCKET);
    crew.give(damaged(listener, socket));
    crew.give(Input::RepairFailed { listener, socket });
    crew.survive(|_| {});
    let repair = Effect::Repair { listener, socket };
    assert!(!crew.effects.contains(&repair));
    crew.pass(seconds(60));
    assert!(crew.effects.contains(&repair));
}

#[test]
fn only_the_connection_that_is_lost_is_over() {
    let mut core = accepting().core;
    let (listener, socket, now) = (WEB, SOCKET, Mono(1));
    for connection in [0, 1].map(ConnectionId) {
        core.handle(now, Input::ClientWaits { listener, socket });
        let source = Source::Unknown;
        core.handle(now, Input::Accepted { connection, source });
    }
    while core.next_effect().is_some() {}
    let mut core = thaw(&core);
    assert_eq!(core.open_connections().count(), 2);
    let connection = ConnectionId(1);
    core.handle(now, Input::ConnectionLost { connection });
    let open: Vec<ConnectionId> = core.open_connections().collect();
    assert_eq!(open, [ConnectionId(0)]);
}

#[test]
fn a_process_that_is_found_is_no_input_in_vain() {
    let mut crew = accepting();
    crew.survive(|crew| crew.give(found(7)));
    assert_eq!(crew.core.ignored_inputs(), 0);
}

#[test]
fn all_is_new_to_whoever_has_not_asked_yet() {
    assert!(Core::new(Vec::<Lifecycle>::new(), WhenDone::Hold).has_changes());
}
