use super::*;
use crate::config::Presence;
use crate::core::listeners::{FIGHT, FREE_REPAIRS, FUTILE, QUIET};
use crate::plan::ListenerId;
use crate::plan::SocketKey;

const WEB: ListenerId = ListenerId(0);
const LATE: ListenerId = ListenerId(1);
const WAIT: Presence = Presence::WaitFor(Duration::from_secs(30));

/// Two workers: the first takes `WEB`, the second `LATE`, which is as given.
fn rig(presence: Presence) -> Rig {
    let mut rig = Rig::new(RestartPolicy::Always);
    let lifecycle = || Lifecycle {
        activation: crate::plan::Activation::Eager,
        instances: 1,
        restart: Restart::default(),
        stop_signal: SIGTERM,
        stop_timeout: Some(Duration::from_secs(30)),
        ..Lifecycle::default()
    };
    let life = |presence, worker| ListenerLife {
        presence,
        users: vec![WorkerId(worker)],
    };
    rig.core = Core::new(vec![lifecycle(), lifecycle()], WhenDone::Hold)
        .with_listeners(vec![life(Presence::Required, 0), life(presence, 1)]);
    rig
}

/// The same, but the second worker takes `WEB` as well.
fn sharing_rig(presence: Presence) -> Rig {
    let mut rig = rig(presence);
    let lives = vec![
        ListenerLife {
            presence: Presence::Required,
            users: vec![WorkerId(0), WorkerId(1)],
        },
        ListenerLife {
            presence,
            users: vec![WorkerId(1)],
        },
    ];
    rig.core = rig.core.with_listeners(lives);
    rig
}

#[test]
fn a_worker_waits_while_it_has_no_listener_at_all() {
    let mut rig = rig(Presence::Optional);
    rig.give(missing(Missing::Other));
    rig.give(Input::Start);
    assert_eq!(spawned_workers(&rig), [0]);
    rig.give(Input::ListenerBound { listener: LATE });
    assert_eq!(spawned_workers(&rig), [1]);
}

fn missing(why: Missing) -> Input {
    Input::ListenerMissing {
        listener: LATE,
        why,
    }
}

fn spawned_workers(rig: &Rig) -> Vec<u32> {
    let spawn = |effect: &Effect| match effect {
        Effect::Spawn { instance, .. } => Some(instance.worker.0),
        _ => None,
    };
    rig.effects.iter().filter_map(spawn).collect()
}

fn wants_bind(rig: &Rig) -> bool {
    rig.effects.contains(&Effect::Bind { listener: LATE })
}

#[test]
fn only_the_workers_of_a_listener_that_is_waited_for_wait() {
    let mut rig = rig(WAIT);
    rig.give(missing(Missing::Address));
    assert!(
        rig.effects
            .contains(&Effect::WatchAddresses { wanted: true })
    );
    rig.give(Input::Start);
    assert_eq!(spawned_workers(&rig), [0]);
    rig.give(Input::AddressesChanged);
    assert!(wants_bind(&rig));
    // Not twice at once; what happens meanwhile is not lost.
    rig.give(Input::AddressesChanged);
    assert!(!wants_bind(&rig));
    rig.give(missing(Missing::Address));
    assert!(wants_bind(&rig), "the addresses changed while it was tried");
    rig.give(Input::ListenerBound { listener: LATE });
    assert_eq!(spawned_workers(&rig), [1]);
    assert!(
        rig.effects
            .contains(&Effect::WatchAddresses { wanted: false })
    );
    assert_eq!(rig.core.deadline(), None);
}

#[test]
fn a_reload_that_meets_an_address_is_tried_again_after_a_pause_and_when_all_is_stopped() {
    let mut rig = rig(WAIT);
    rig.give(Input::Start);
    let reads = |rig: &Rig| rig.effects.contains(&Effect::ReadAgain);
    for _ in 0..2 {
        rig.give(Input::ReloadBlocked);
        assert!(!reads(&rig));
        rig.pass(Duration::from_millis(49));
        assert!(!reads(&rig));
        rig.pass(Duration::from_millis(1));
        assert!(reads(&rig));
        rig.pass(Duration::from_secs(1));
        assert!(!reads(&rig), "once");
    }
    rig.give(Input::ReloadBlocked);
    rig.give(Input::Stop);
    assert!(reads(&rig));
    rig.give(Input::ReloadBlocked);
    assert!(reads(&rig));
}

#[test]
fn a_wait_that_is_over_is_told_once_and_goes_on() {
    let mut rig = rig(WAIT);
    rig.give(missing(Missing::Address));
    rig.give(Input::Start);
    rig.pass(Duration::from_secs(29));
    assert_eq!(rig.effects, []);
    rig.pass(Duration::from_secs(1));
    let after = Duration::from_secs(30);
    let overdue = Event::Listener(LATE, ListenerEvent::Overdue { after });
    assert_eq!(rig.effects, [Effect::Emit(overdue)]);
    assert_eq!(rig.core.deadline(), None, "and not a tick more");
    rig.give(Input::AddressesChanged);
    assert!(wants_bind(&rig));
}

#[test]
fn an_optional_listener_is_done_without_and_tried_again_with_growing_delays() {
    let mut rig = sharing_rig(Presence::Optional);
    rig.give(missing(Missing::Other));
    rig.give(Input::Start);
    assert_eq!(spawned_workers(&rig), [0, 1]);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        rig.pass(Duration::from_secs(seconds) - Duration::from_millis(1));
        assert!(!wants_bind(&rig), "{seconds}");
        rig.pass(Duration::from_millis(1));
        assert!(wants_bind(&rig), "{seconds}");
        rig.give(missing(Missing::Other));
    }
}

#[test]
fn the_workers_of_an_optional_listener_are_restarted_when_it_has_come() {
    let mut rig = sharing_rig(Presence::Optional);
    rig.give(missing(Missing::Other));
    rig.give(Input::Start);
    let app = InstanceId {
        worker: WorkerId(1),
        index: 0,
        generation: 1,
    };
    let process = rig.core.state(app).unwrap().process().unwrap();
    rig.give(Input::Spawned { process });
    rig.give(Input::ExecSucceeded { process });
    rig.give(Input::ListenerBound { listener: LATE });
    let event = Event::Instance(app, InstanceEvent::Refreshed);
    assert!(rig.effects.contains(&Effect::Emit(event)));
    assert_eq!(rig.signals()[0], (SIGTERM, Scope::Process));
    let status = ExitStatus::Code(1);
    rig.give(Input::Exited { process, status });
    rig.pass(Duration::ZERO);
    assert_eq!(
        spawned_workers(&rig),
        [1],
        "at once, and not as after a crash"
    );
    // A stop is a stop: it does not come back a second time.
    let process = rig.core.state(app).unwrap().process().unwrap();
    rig.give(Input::Spawned { process });
    rig.give(Input::ExecSucceeded { process });
    rig.give(Input::Stop);
    rig.give(Input::Exited { process, status });
    assert_eq!(rig.core.state(app), Some(State::Stopped));
}

#[test]
fn a_damaged_listener_is_repaired_at_once_but_not_in_a_loop() {
    let mut rig = rig(Presence::Required);
    rig.give(Input::Start);
    let (damaged, repaired, failed, repair) = (
        damaged(WEB, SocketKey(0)),
        Input::ListenerRepaired {
            listener: WEB,
            socket: SocketKey(0),
            by: Repaired::SameSocket,
        },
        Input::RepairFailed {
            listener: WEB,
            socket: SocketKey(0),
        },
        Effect::Repair {
            listener: WEB,
            socket: SocketKey(0),
        },
    );
    // Each of several instances may damage it when it ends.
    for _ in 0..FREE_REPAIRS {
        rig.give(damaged.clone());
        assert!(rig.effects.contains(&repair));
        rig.give(repaired.clone());
    }
    rig.give(damaged);
    assert!(!rig.effects.contains(&repair), "again within a second");
    rig.pass(REPAIR_PAUSE);
    assert!(rig.effects.contains(&repair));
    for seconds in [1, 2, 4] {
        rig.give(failed.clone());
        rig.pass(Duration::from_secs(seconds) - Duration::from_millis(1));
        assert!(!rig.effects.contains(&repair));
        rig.pass(Duration::from_millis(1));
        assert!(rig.effects.contains(&repair));
    }
    rig.give(repaired);
    assert_eq!(rig.core.deadline(), None);
}

// Two listends that declare one path with different modes restored them in turn, once a second for ever.
#[test]
fn rights_that_somebody_else_wants_otherwise_are_restored_less_and_less_often() {
    let mut rig = rig(Presence::Required);
    rig.give(Input::Start);
    let (listener, socket) = (WEB, SocketKey(0));
    let changed = Input::ListenerDamaged {
        listener,
        socket,
        what: "given other permissions".to_owned(),
        of_rights: true,
    };
    let repair = Effect::Repair { listener, socket };
    let is_restored = |rig: &Rig| rig.effects.contains(&repair);
    let restored = Input::ListenerRepaired {
        listener,
        socket,
        by: Repaired::PutBack,
    };
    for _ in 0..FREE_REPAIRS {
        rig.give(changed.clone());
        assert!(is_restored(&rig));
        rig.give(restored.clone());
    }
    for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
        rig.give(changed.clone());
        assert!(!is_restored(&rig));
        // Something else happens in the folder.
        rig.give(changed.clone());
        rig.pass(Duration::from_secs(seconds) - Duration::from_millis(1));
        assert!(!is_restored(&rig), "{seconds}");
        rig.pass(Duration::from_millis(1));
        assert!(is_restored(&rig), "{seconds}");
        rig.give(restored.clone());
    }
    rig.pass(QUIET);
    rig.give(changed);
    assert!(is_restored(&rig), "it was left alone for so long");
}

// As in a rolling restart of many instances, each of which removes the path when it ends.
#[test]
fn repairs_with_pauses_in_between_come_at_once() {
    let mut rig = rig(Presence::Required);
    rig.give(Input::Start);
    let (listener, socket) = (WEB, SocketKey(0));
    let repair = Effect::Repair { listener, socket };
    let mut repairs = |count: u32| {
        for _ in 0..count {
            rig.give(damaged(WEB, SocketKey(0)));
            assert!(rig.effects.contains(&repair));
            rig.give(Input::ListenerRepaired {
                listener,
                socket,
                by: Repaired::PutBack,
            });
        }
        rig.pass(4 * REPAIR_PAUSE);
    };
    repairs(FREE_REPAIRS);
    for _ in 0..3 * FREE_REPAIRS {
        repairs(4);
    }
}

fn rebound() -> [Input; 2] {
    let (listener, socket) = (WEB, 0);
    let by = Repaired::AnotherSocket;
    [
        damaged(listener, SocketKey(socket)),
        Input::ListenerRepaired {
            listener,
            socket: SocketKey(socket),
            by,
        },
    ]
}

// A worker that removes the path whenever it ends removes that of the new socket as well.
#[test]
fn a_listener_that_is_damaged_by_every_restart_is_bound_when_all_have_ended() {
    let mut rig = rig(Presence::Required);
    let bind = Effect::Bind { listener: WEB };
    let unbind = Effect::Unbind { listener: WEB };
    rig.give(Input::Start);
    rig.running();
    for _ in 1..FIGHT {
        rebound().into_iter().for_each(|input| rig.give(input));
        assert!(!rig.effects.contains(&unbind));
        assert!(rig.signals().contains(&(SIGTERM, Scope::Process)));
        rig.exited(ExitStatus::Code(0));
        rig.pass(Duration::ZERO);
        assert_eq!(spawned_workers(&rig), [0]);
        rig.running();
    }
    rebound().into_iter().for_each(|input| rig.give(input));
    assert!(rig.effects.contains(&unbind) && !rig.effects.contains(&bind));
    assert!(rig.signals().contains(&(SIGTERM, Scope::Process)));
    rig.exited(ExitStatus::Code(0));
    assert!(rig.effects.contains(&bind));
    rig.pass(Duration::ZERO);
    assert_eq!(rig.state(), State::Waiting);
    rig.give(Input::ListenerBound { listener: WEB });
    assert_eq!(spawned_workers(&rig), [0]);
}

#[test]
fn what_no_new_socket_helps_is_tried_later_each_time_and_told() {
    let mut rig = rig(Presence::Required);
    let bind = Effect::Bind { listener: WEB };
    rig.give(Input::Start);
    rig.running();
    for times in 1..=FUTILE + 1 {
        let (listener, socket) = (WEB, 0);
        rig.give(damaged(listener, SocketKey(socket)));
        rig.give(Input::SocketHeld {
            listener,
            socket: SocketKey(socket),
        });
        let futile = rig.effects.iter().find_map(|effect| match effect {
            Effect::Emit(Event::Socket {
                event: SocketEvent::RepairFutile { again_in, .. },
                ..
            }) => Some(*again_in),
            _ => None,
        });
        assert_eq!(futile.is_some(), times >= FUTILE, "{times}");
        rig.exited(ExitStatus::Code(0));
        if let Some(again_in) = futile {
            assert!(!rig.effects.contains(&bind));
            rig.pass(again_in - Duration::from_millis(1));
            assert!(!rig.effects.contains(&bind));
            rig.pass(Duration::from_millis(1));
        }
        assert!(rig.effects.contains(&bind));
        rig.pass(Duration::ZERO);
        rig.give(Input::ListenerBound { listener });
        assert_eq!(spawned_workers(&rig), [0], "{times} {:?}", rig.effects);
        rig.running();
    }
    // When it was left alone for long enough, nothing is held against it.
    rig.pass(QUIET);
    rebound().into_iter().for_each(|input| rig.give(input));
    assert!(!rig.effects.contains(&Effect::Unbind { listener: WEB }));
}

#[test]
fn nothing_is_bound_or_repaired_after_a_stop() {
    let mut rig = rig(Presence::Optional);
    rig.give(missing(Missing::Other));
    rig.give(Input::Start);
    rig.give(Input::Stop);
    rig.give(damaged(WEB, SocketKey(0)));
    assert_eq!(rig.effects, []);
    rig.give(missing(Missing::Other));
    rig.pass(Duration::from_secs(60));
    assert!(!wants_bind(&rig));
}

#[test]
fn workers_get_the_socket_that_took_a_damaged_ones_place() {
    for (by, restarted) in [
        (Repaired::SameSocket, false),
        (Repaired::AnotherSocket, true),
        (Repaired::AnotherNamespace, true),
    ] {
        let mut rig = rig(Presence::Required);
        rig.give(Input::Start);
        rig.running();
        rig.give(damaged(WEB, SocketKey(0)));
        rig.give(Input::ListenerRepaired {
            listener: WEB,
            socket: SocketKey(0),
            by,
        });
        assert_eq!(
            rig.signals().contains(&(SIGTERM, Scope::Process)),
            restarted
        );
    }
}

// It was started again, although it had been stopped.
#[test]
fn what_was_told_to_stop_is_not_started_again_for_a_socket() {
    use super::crew::{APP, Crew};
    let taken = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let core = Core::new(vec![crew::life(|_| {})], WhenDone::Hold).with_listeners(vec![taken]);
    let mut crew = Crew::of(core);
    crew.ask(Command::Stop);
    let (listener, socket) = (WEB, 0);
    crew.give(damaged(listener, SocketKey(socket)));
    crew.give(Input::SocketHeld {
        listener,
        socket: SocketKey(socket),
    });
    crew.exits(crew.program(APP_0), killed_by(SIGTERM));
    assert!(crew.effects.contains(&Effect::Bind { listener }));
    crew.give(Input::ListenerBound { listener });
    crew.pass(Duration::from_secs(100));
    assert_eq!(crew.programs(), []);
    assert_eq!(crew.state(APP_0), State::Stopped);
}

// Each of its sockets counted, so that one with many was given up after the first time.
#[test]
fn a_listener_is_vacated_once_however_many_of_its_sockets_are_held() {
    let mut rig = rig(Presence::Required);
    rig.give(Input::Start);
    rig.running();
    let listener = WEB;
    for socket in 0..FUTILE {
        rig.give(damaged(listener, SocketKey(socket)));
    }
    for socket in 0..FUTILE {
        rig.give(Input::SocketHeld {
            listener,
            socket: SocketKey(socket),
        });
        let unbind = Effect::Unbind { listener };
        assert_eq!(rig.effects.contains(&unbind), socket == 0, "{socket}");
        let futile = |effect: &Effect| {
            matches!(
                effect,
                Effect::Emit(Event::Socket {
                    event: SocketEvent::RepairFutile { .. },
                    ..
                })
            )
        };
        assert!(!rig.effects.iter().any(futile), "{socket}");
    }
    rig.exited(ExitStatus::Code(0));
    assert!(rig.effects.contains(&Effect::Bind { listener }));
}

fn another_socket(rig: &mut Rig, socket: SocketKey) -> bool {
    let (listener, by) = (WEB, Repaired::AnotherSocket);
    rig.give(damaged(listener, socket));
    rig.give(Input::ListenerRepaired {
        listener,
        socket,
        by,
    });
    rig.effects.contains(&Effect::Unbind { listener })
}

// Each of its sockets counted, so that one with several was closed at the first damage to all of them.
#[test]
fn damage_to_all_sockets_of_a_listener_at_once_counts_once() {
    let mut rig = rig(Presence::Required);
    rig.give(Input::Start);
    rig.running();
    for round in 1..=FIGHT {
        for socket in 0..FIGHT {
            let is_closed = another_socket(&mut rig, SocketKey(socket));
            assert_eq!(is_closed, round == FIGHT, "{round}, {socket}");
            if is_closed {
                return;
            }
        }
    }
}

// It counted as failed, and the rollout went back.
#[test]
fn a_listener_that_is_bound_anew_during_a_rollout_fails_nobody_on_trial() {
    use super::crew::{APP, Crew, app, seconds};
    for settles in [false, true] {
        let taken = ListenerLife {
            presence: Presence::Required,
            users: vec![APP],
        };
        let core = Core::new(vec![crew::life(|_| {})], WhenDone::Hold).with_listeners(vec![taken]);
        let mut crew = Crew::of(core);
        crew.ask(Command::Restart);
        if settles {
            crew.pass(seconds(1));
        }
        let (listener, socket) = (WEB, 0);
        crew.give(damaged(listener, SocketKey(socket)));
        crew.give(Input::SocketHeld {
            listener,
            socket: SocketKey(socket),
        });
        for instance in [app(0, 1), app(0, 2)] {
            crew.exits(crew.program(instance), killed_by(SIGTERM));
        }
        crew.pass(seconds(1));
        assert!(crew.effects.contains(&Effect::Bind { listener }));
        assert!(crew.core.is_rolling(APP), "{:?}", crew.answers());
        crew.give(Input::ListenerBound { listener });
        crew.pass(seconds(2));
        crew.exits(crew.program(app(0, 1)), killed_by(SIGTERM));
        assert_eq!(crew.answers().last(), Some(&Answer::Done));
        assert_eq!(crew.programs(), Crew::first(&[app(0, 2)]));
    }
}

// The step went from one stage to the other and back for ever.
#[test]
fn a_worker_that_clients_start_waits_in_a_rollout_for_its_listener() {
    use super::crew::{APP, Crew, app};
    let taken = ListenerLife {
        presence: Presence::Required,
        users: vec![APP],
    };
    let limit = None;
    let life = crew::life(|life| life.activation = crate::plan::Activation::OnDemand { limit });
    let core = Core::new(vec![life], WhenDone::Hold).with_listeners(vec![taken]);
    let mut crew = Crew::of(core);
    let (listener, socket) = (WEB, 0);
    crew.give(Input::ClientWaits {
        listener,
        socket: SocketKey(socket),
    });
    crew.ask(Command::Restart);
    crew.give(damaged(listener, SocketKey(socket)));
    crew.give(Input::SocketHeld {
        listener,
        socket: SocketKey(socket),
    });
    for instance in [app(0, 1), app(0, 2)] {
        crew.exits(crew.program(instance), killed_by(SIGTERM));
    }
    assert!(crew.core.is_rolling(APP));
    crew.give(Input::ListenerBound { listener });
    assert_eq!(crew.answers().last(), Some(&Answer::Done));
}

#[test]
fn nothing_that_was_still_to_be_repaired_is_after_a_stop() {
    let mut rig = rig(WAIT);
    rig.give(Input::Start);
    rig.core.handle(rig.now, damaged(WEB, SocketKey(0)));
    rig.core.handle(rig.now, missing(Missing::Other));
    rig.core.handle(rig.now, Input::Stop);
    let effects: Vec<Effect> = std::iter::from_fn(|| rig.core.next_effect()).collect();
    let is_one = |effect: &Effect| matches!(effect, Effect::Bind { .. } | Effect::Repair { .. });
    assert!(!effects.iter().any(is_one), "{effects:?}");
}

/// What a reload says about listeners, and nothing else.
fn reload(rig: &mut Rig, change: impl Fn(&mut Configuration)) {
    let mut configuration = Configuration::default();
    change(&mut configuration);
    rig.give(Input::Configure(Box::new(configuration)));
}

#[test]
fn a_reload_forgets_what_is_wrong_with_the_sockets_that_it_has_replaced_alone() {
    let condition = |rig: &Rig, listener| rig.core.listener_state(listener);
    let (wrong, well) = (ListenerCondition::Damaged, ListenerCondition::Listening);
    let mut rig = rig(Presence::Required);
    rig.give(Input::Start);
    for listener in [WEB, LATE] {
        rig.give(damaged(listener, SocketKey(0)));
    }
    reload(&mut rig, |new| new.touched = vec![WEB]);
    assert_eq!((condition(&rig, WEB), condition(&rig, LATE)), (well, wrong));

    for listener in [WEB, LATE] {
        let socket = SocketKey(0);
        rig.give(Input::SocketHeld { listener, socket });
    }
    let wrong = ListenerCondition::Missing;
    reload(&mut rig, |new| new.touched = vec![WEB]);
    assert_eq!((condition(&rig, WEB), condition(&rig, LATE)), (well, wrong));
    // It is bound as soon as nobody has it any more.
    let late = InstanceId {
        worker: WorkerId(1),
        index: 0,
        generation: 1,
    };
    if let Some(process) = rig.core.state(late).and_then(|state| state.process()) {
        rig.give(Input::Spawned { process });
        rig.give(Input::ExecSucceeded { process });
        let status = killed_by(SIGTERM);
        rig.give(Input::Exited { process, status });
    }
    assert!(wants_bind(&rig));
}

#[test]
fn what_a_reload_has_left_to_nobody_is_not_known_any_more() {
    let mut rig = rig(Presence::Required);
    rig.give(Input::Start);
    reload(&mut rig, |new| {
        new.listeners = vec![(LATE, ListenerLife::nobody())];
    });
    rig.give(missing(Missing::Other));
    assert_eq!(rig.core.ignored_inputs(), 1);
    assert_eq!(rig.core.listener_state(LATE), ListenerCondition::Listening);
}

#[test]
fn damage_that_comes_slowly_is_forgotten_slowly() {
    let mut rig = rig(Presence::Required);
    rig.give(Input::Start);
    let repairs = |rig: &Rig| {
        let is_one = |effect: &&Effect| matches!(effect, Effect::Repair { .. });
        rig.effects.iter().filter(is_one).count()
    };
    let mut at_once = 0;
    // Two each second, of which one is forgotten.
    for number in 0..4 * FREE_REPAIRS {
        rig.give(damaged(WEB, SocketKey(0)));
        at_once += repairs(&rig);
        rig.give(Input::ListenerRepaired {
            listener: WEB,
            socket: SocketKey(0),
            by: Repaired::SameSocket,
        });
        if number % 2 == 1 {
            rig.pass(Duration::from_millis(1001));
        }
    }
    let all = 4 * FREE_REPAIRS as usize;
    assert!(
        at_once > FREE_REPAIRS as usize && at_once < all,
        "{at_once}"
    );
}

#[test]
fn what_was_vacated_and_has_no_address_is_bound_when_it_has_one() {
    let mut rig = rig(WAIT);
    rig.give(missing(Missing::Address));
    rig.give(Input::Start);
    rig.give(Input::AddressesChanged);
    rig.give(Input::ListenerBound { listener: LATE });
    let late = InstanceId {
        worker: WorkerId(1),
        index: 0,
        generation: 1,
    };
    let process = rig.core.state(late).and_then(|state| state.process());
    let process = process.expect("it is started");
    rig.give(Input::Spawned { process });
    rig.give(Input::ExecSucceeded { process });
    let socket = SocketKey(0);
    let listener = LATE;
    rig.give(Input::SocketHeld { listener, socket });
    let status = killed_by(SIGTERM);
    rig.give(Input::Exited { process, status });
    assert!(wants_bind(&rig));
    rig.give(Input::Tick);
    assert!(!wants_bind(&rig));
    rig.give(missing(Missing::Address));
    assert!(!wants_bind(&rig), "nothing has changed");
    rig.give(Input::Tick);
    assert!(!wants_bind(&rig));
    rig.give(Input::AddressesChanged);
    assert!(wants_bind(&rig));
}
