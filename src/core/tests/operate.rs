//! What people ask for, against a kernel that obeys.

use super::*;
use crate::config::Rollout;
use crate::plan::Activation;
use std::collections::BTreeMap;

const APP: WorkerId = WorkerId(0);

/// A core whose processes start when they are spawned and end when they are asked to.
struct Obedient {
    core: Core,
    now: Mono,
    /// Every answer, by ticket.
    answers: BTreeMap<Ticket, Vec<Answer>>,
    spawned: u32,
    /// The fewest instances that were ready at a time since the last request.
    fewest: usize,
    next: u64,
    launches: bool,
}

impl Obedient {
    fn new(instances: u32, activation: Activation) -> Obedient {
        let lifecycle = Lifecycle {
            activation,
            instances,
            restart: strict(),
            stop_signal: SIGTERM,
            stop_timeout: Some(Duration::from_secs(30)),
            rollout: Rollout {
                min_ready: Duration::ZERO,
                ..Rollout::default()
            },
            ..Lifecycle::default()
        };
        let mut this = Obedient {
            core: Core::new(vec![lifecycle], WhenDone::Hold),
            now: Mono(0),
            answers: BTreeMap::new(),
            spawned: 0,
            fewest: 0,
            next: 0,
            launches: true,
        };
        this.give(Input::Start);
        this
    }

    fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.core.check_invariants().unwrap();
        while let Some(effect) = self.core.next_effect() {
            self.fewest = self.fewest.min(self.running());
            match effect {
                Effect::Spawn { process, .. } => {
                    self.spawned += 1;
                    self.core.handle(self.now, Input::Spawned { process });
                    let failure = failure(Stage::Exec);
                    if self.launches {
                        self.core.handle(self.now, Input::ExecSucceeded { process });
                    } else {
                        let failed = Input::LaunchFailed { process, failure };
                        self.core.handle(self.now, failed);
                        let status = ExitStatus::Code(127);
                        self.core
                            .handle(self.now, Input::Exited { process, status });
                    }
                }
                Effect::Signal {
                    process, signal, ..
                } if signal == SIGTERM || signal == SIGKILL => {
                    let status = ExitStatus::Code(0);
                    self.core
                        .handle(self.now, Input::Exited { process, status });
                }
                Effect::Answer { ticket, answer } => {
                    self.answers.entry(ticket).or_default().push(answer);
                }
                _ => {}
            }
            self.core.check_invariants().unwrap();
        }
        // What is due at once.
        if self.core.deadline().is_some_and(|at| at <= self.now) {
            self.give(Input::Tick);
        }
    }

    fn ask(&mut self, command: Command) -> Vec<Answer> {
        self.ask_of(None, command)
    }

    fn ask_of(&mut self, index: Option<u32>, command: Command) -> Vec<Answer> {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.fewest = usize::MAX;
        let worker = APP;
        self.give(Input::Operate {
            ticket,
            worker,
            index,
            command,
        });
        self.answers.get(&ticket).cloned().unwrap_or_default()
    }

    fn running(&self) -> usize {
        let states = self.core.instances().map(|(_, state)| state);
        states
            .filter(|state| matches!(state, State::Running { .. }))
            .count()
    }
}

#[test]
fn what_is_stopped_stays_so_until_it_is_started() {
    let mut app = Obedient::new(2, Activation::Eager);
    let answers = app.ask(Command::Stop);
    assert_eq!(
        answers,
        [progress(0, 2), progress(1, 2), progress(2, 2), Answer::Done]
    );
    assert_eq!(app.running(), 0);
    assert!(app.core.is_stopped(APP));
    app.now = app.now + Duration::from_secs(1000);
    app.give(Input::Tick);
    assert_eq!(app.running(), 0);
    assert_eq!(app.ask(Command::Stop), [Answer::Done]);
    let answers = app.ask(Command::Start);
    assert_eq!(
        answers,
        [progress(0, 2), progress(1, 2), progress(2, 2), Answer::Done]
    );
    assert_eq!(app.running(), 2);
    assert_eq!(app.ask(Command::Start), [Answer::Done], "it runs already");
}

#[test]
fn a_restart_replaces_one_after_the_other() {
    let mut app = Obedient::new(3, Activation::Eager);
    let answers = app.ask(Command::Restart);
    let steps = (0..=3).map(|done| progress(done, 3));
    let expected: Vec<Answer> = steps.chain([Answer::Done]).collect();
    assert_eq!(answers, expected);
    assert_eq!(app.spawned, 6);
    assert_eq!(app.fewest, 3, "each is replaced by one that is ready");
}

#[test]
fn a_restart_goes_back_at_the_first_that_does_not_come_up() {
    let mut app = Obedient::new(3, Activation::Eager);
    app.launches = false;
    let answers = app.ask(Command::Restart);
    let instance = InstanceId {
        generation: 2,
        ..APP_0
    };
    assert_eq!(answers, [progress(0, 3), Answer::went_back(instance)]);
    assert_eq!((app.running(), app.fewest), (3, 3));
    assert_eq!(app.spawned, 4);
}

#[test]
fn scaling_adds_and_takes_away_at_the_end() {
    let mut app = Obedient::new(2, Activation::Eager);
    let answers = app.ask(Command::Scale(4));
    assert_eq!(
        answers,
        [progress(0, 2), progress(1, 2), progress(2, 2), Answer::Done]
    );
    assert_eq!(app.running(), 4);
    let answers = app.ask(Command::Scale(1));
    assert_eq!(answers.last(), Some(&Answer::Done));
    assert_eq!(app.running(), 1);
    assert_eq!(app.core.instances_of(APP).collect::<Vec<_>>(), [APP_0]);
    app.ask(Command::Scale(3));
    assert_eq!(app.core.instances().count(), 3, "places are used again");
}

#[test]
fn what_has_failed_is_started_again_by_a_reset() {
    let mut app = Obedient::new(1, Activation::Eager);
    app.launches = false;
    for _ in 0..20 {
        app.ask(Command::Signal(SIGKILL));
        app.now = app.now + Duration::from_secs(1);
        app.give(Input::Tick);
    }
    let is_failed = |app: &Obedient| matches!(app.core.state(APP_0), Some(State::Failed { .. }));
    assert!(is_failed(&app));
    app.launches = true;
    assert_eq!(app.ask(Command::Reset), [Answer::Done]);
    assert_eq!(app.running(), 1);
}

#[test]
fn a_stopped_worker_takes_no_clients() {
    let limit = None;
    let mut app = Obedient::new(1, Activation::OnDemand { limit });
    assert_eq!(app.ask(Command::Stop), [Answer::Done]);
    assert!(!app.core.takes_clients(APP));
    assert_eq!(app.ask(Command::Start), [Answer::Done]);
    assert!(app.core.takes_clients(APP));
    assert_eq!(app.running(), 0, "until there is one");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let limits = crate::config::ConnectionLimits::default();
    let mut app = Obedient::new(0, Activation::PerConnection(limits));
    let refused = |why| [Answer::Refused(why)];
    assert_eq!(app.ask(Command::Scale(2)), refused(Refused::NoInstances));
    assert_eq!(app.ask(Command::Signal(1)), refused(Refused::NoProcess));
    app.give(Input::Stop);
    assert_eq!(app.ask(Command::Start), refused(Refused::NotRunning));
}

fn places(app: &Obedient) -> Vec<(u32, u32, bool)> {
    let all = app.core.instances_of(APP);
    let all = all.map(|one| {
        let runs = matches!(app.core.state(one), Some(State::Running { .. }));
        (one.index, one.generation, runs)
    });
    all.collect()
}

#[test]
fn one_instance_is_stopped_and_stays_so() {
    let mut app = Obedient::new(3, Activation::Eager);
    let one = [progress(0, 1), progress(1, 1), Answer::Done];
    assert_eq!(app.ask_of(Some(1), Command::Stop), one);
    let without = [(0, 1, true), (1, 1, false), (2, 1, true)];
    assert_eq!(places(&app), without);
    app.now = app.now + Duration::from_secs(1000);
    app.give(Input::Tick);
    app.ask(Command::Reset);
    assert_eq!(places(&app), without);
    assert!(!app.core.is_stopped(APP));
    assert_eq!(app.ask_of(Some(1), Command::Start), one);
    assert_eq!(app.running(), 3);
    // All that were stopped are started with the worker.
    app.ask_of(Some(0), Command::Stop);
    app.ask_of(Some(2), Command::Stop);
    app.ask(Command::Start);
    assert_eq!(app.running(), 3);
}

#[test]
fn one_instance_is_replaced_and_the_others_go_on() {
    let mut app = Obedient::new(3, Activation::Eager);
    let answers = app.ask_of(Some(1), Command::Restart);
    assert_eq!(answers, [progress(0, 1), progress(1, 1), Answer::Done]);
    assert_eq!(places(&app), [(0, 1, true), (1, 2, true), (2, 1, true)]);
    assert_eq!((app.spawned, app.fewest), (4, 3));
    app.launches = false;
    let instance = InstanceId {
        index: 2,
        generation: 3,
        ..APP_0
    };
    let answers = app.ask_of(Some(2), Command::Restart);
    assert_eq!(answers, [progress(0, 1), Answer::went_back(instance)]);
    assert_eq!(app.running(), 3);
    assert!(app.core.is_degraded(APP));
    app.launches = true;
    app.ask_of(Some(2), Command::Restart);
    assert!(!app.core.is_degraded(APP));
}

#[test]
fn a_client_starts_what_was_not_stopped() {
    let mut app = Obedient::new(2, Activation::OnDemand { limit: None });
    assert_eq!(app.ask_of(Some(0), Command::Stop), [Answer::Done]);
    assert!(app.core.takes_clients(APP));
    assert_eq!(app.ask_of(Some(1), Command::Stop), [Answer::Done]);
    assert!(!app.core.takes_clients(APP), "nobody would take them");
    assert_eq!(app.ask_of(Some(1), Command::Start), [Answer::Done]);
    assert!(app.core.takes_clients(APP));
}

#[test]
fn a_command_for_an_instance_that_cannot_have_it_is_refused() {
    let mut app = Obedient::new(2, Activation::Eager);
    let refused = |why| [Answer::Refused(why)];
    let none = refused(Refused::NoSuchInstance);
    assert_eq!(app.ask_of(Some(2), Command::Restart), none);
    assert_eq!(app.ask_of(Some(0), Command::Scale(1)), none);
    app.ask(Command::Stop);
    for command in [Command::Start, Command::Restart] {
        assert_eq!(
            app.ask_of(Some(0), command),
            refused(Refused::WorkerStopped)
        );
    }
    let limits = crate::config::ConnectionLimits::default();
    let mut app = Obedient::new(0, Activation::PerConnection(limits));
    assert_eq!(
        app.ask_of(Some(0), Command::Stop),
        refused(Refused::NoInstances)
    );
}

// Any commands in any order: each gets exactly one last answer, and places are not lost.
#[test]
fn every_command_is_answered_once() {
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for activation in [Activation::Eager, Activation::OnDemand { limit: None }] {
        let mut app = Obedient::new(3, activation);
        for _ in 0..3000 {
            app.launches = random(4) > 0;
            let command = match random(7) {
                0 => Command::Start,
                1 => Command::Stop,
                2 => Command::Restart,
                3 | 4 => Command::Scale(1 + random(6) as u32),
                5 => Command::Signal(SIGTERM),
                _ => Command::Reset,
            };
            let index = (random(3) == 0).then(|| random(4) as u32);
            app.ask_of(index, command);
            app.now = app.now + Duration::from_millis(random(3000));
            app.give(Input::Tick);
        }
        app.launches = true;
        app.give(Input::Stop);
        assert_eq!(app.answers.len() as u64, app.next);
        for answers in app.answers.values() {
            let last = |answer: &&Answer| !matches!(answer, Answer::Progress { .. });
            assert_eq!(answers.iter().filter(last).count(), 1, "{answers:?}");
            assert!(last(&answers.last().unwrap()), "{answers:?}");
        }
        assert!(app.core.instances().count() <= 6);
    }
}
