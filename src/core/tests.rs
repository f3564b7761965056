//! One test for each rule, named after it.

mod commands;
mod crew;
mod demand;
mod facts;
mod flows;
mod hooks;
mod idle;
mod listeners;
mod operate;
mod pictures;
mod ready;
mod replan;
mod resume;
mod rollback;
mod rollout;
mod shards;
mod snapshot;
mod stopping;
mod watch;

use super::*;
use crate::config::{KillMode, Rate, Restart, RestartPolicy};
use crate::plan::{Lifecycle, ListenerId, SocketKey, WorkerId};
use crate::stage::{LaunchFailure, Stage};
use std::time::Duration;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const APP_0: InstanceId = InstanceId {
    worker: WorkerId(0),
    index: 0,
    generation: 1,
};

fn progress(done: u32, of: u32) -> Answer {
    Answer::Progress { done, of }
}

impl Answer {
    /// The last one, where this new instance failed.
    fn went_back(instance: InstanceId) -> Answer {
        Answer::of(vec![Bad::WentBack(instance)])
    }

    /// The last one, where this instance is not as requested.
    fn not_up(instance: InstanceId) -> Answer {
        Answer::of(vec![Bad::NotUp(instance)])
    }
}

/// A core with one worker, and what it wanted so far.
struct Rig {
    core: Core,
    now: Mono,
    effects: Vec<Effect>,
}

/// Five crashes in a minute, and that is it.
fn strict() -> Restart {
    Restart {
        limit: Some(Rate {
            count: 5,
            interval: Duration::from_secs(60),
        }),
        cool_down: None,
        ..Restart::default()
    }
}

impl Rig {
    fn new(policy: RestartPolicy) -> Rig {
        Rig::with(1, |lifecycle| lifecycle.restart.policy = policy)
    }

    fn with(instances: u32, change: impl Fn(&mut Lifecycle)) -> Rig {
        let mut lifecycle = Lifecycle {
            activation: crate::plan::Activation::Eager,
            instances,
            restart: strict(),
            stop_signal: SIGTERM,
            stop_timeout: Some(Duration::from_secs(30)),
            ..Lifecycle::default()
        };
        change(&mut lifecycle);
        Rig {
            core: Core::new(vec![lifecycle], WhenDone::Hold),
            now: Mono(0),
            effects: Vec::new(),
        }
    }

    fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.core.check_invariants().unwrap();
        self.effects.clear();
        while let Some(effect) = self.core.next_effect() {
            self.effects.push(effect);
        }
    }

    /// Lets time pass, and does what is due on the way; [`Rig::effects`] are what comes of the last.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.deadline().filter(|at| *at < end) {
            self.now = at;
            self.give(Input::Tick);
        }
        self.now = end;
        self.give(Input::Tick);
    }

    fn process(&self) -> ProcessId {
        self.state().process().unwrap()
    }

    fn state(&self) -> State {
        self.core.state(APP_0).unwrap()
    }

    fn spawned(&mut self) {
        let process = self.process();
        self.give(Input::Spawned { process });
    }

    fn exec_succeeded(&mut self) {
        let process = self.process();
        self.give(Input::ExecSucceeded { process });
    }

    fn running(&mut self) {
        self.spawned();
        self.exec_succeeded();
    }

    fn exited(&mut self, status: ExitStatus) {
        let process = self.process();
        self.give(Input::Exited { process, status });
    }

    fn main_exited(&mut self, status: ExitStatus) {
        let process = self.process();
        self.give(Input::MainExited { process, status });
    }

    fn says(&mut self, notice: Notice) {
        let process = self.process();
        self.give(Input::Notified { process, notice });
    }

    fn launch_failed(&mut self, stage: Stage) {
        let process = self.process();
        let failure = failure(stage);
        self.give(Input::LaunchFailed { process, failure });
    }

    /// The delay before the restart that the last input led to.
    fn delay(&self) -> Option<Duration> {
        match self.state() {
            State::Backoff { until } => Some(until.since(self.now)),
            _ => None,
        }
    }

    /// Waits for the restart and has it run.
    fn again(&mut self) {
        self.pass(self.delay().unwrap());
        self.running();
    }

    fn signals(&self) -> Vec<(i32, Scope)> {
        let signal = |effect: &Effect| match effect {
            Effect::Signal { signal, scope, .. } => Some((*signal, *scope)),
            _ => None,
        };
        self.effects.iter().filter_map(signal).collect()
    }

    fn ends(&self) -> bool {
        let end = [
            Effect::CloseListeners,
            Effect::Emit(Event::Daemon(DaemonEvent::AllStopped)),
            Effect::Exit { code: 0 },
        ];
        self.effects.ends_with(&end)
    }
}

fn damaged(listener: ListenerId, socket: SocketKey) -> Input {
    let what = format!("socket {} was shut down", socket.0);
    Input::ListenerDamaged {
        listener,
        socket,
        what,
        of_rights: false,
    }
}

fn failure(stage: Stage) -> LaunchFailure {
    LaunchFailure {
        stage,
        errno: 2,
        detail: 0,
        reason: None,
    }
}

fn killed_by(number: i32) -> ExitStatus {
    ExitStatus::Signal {
        number,
        core_dumped: false,
    }
}

fn started(policy: RestartPolicy) -> Rig {
    let mut rig = Rig::new(policy);
    rig.give(Input::Start);
    rig.running();
    rig
}

/// From the second delay on up to a quarter is taken off, but never so much that it is shorter than
/// the first.
fn is_jittered(delay: Option<Duration>, whole: u64) -> bool {
    let least = (whole - whole / 4).max(100);
    delay >= millis(least) && delay <= millis(whole)
}

fn millis(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

#[test]
fn nothing_starts_before_start_and_everything_starts_once() {
    let mut rig = Rig::with(3, |_| {});
    rig.give(Input::Tick);
    assert_eq!(rig.effects, []);
    rig.give(Input::Start);
    assert_eq!(rig.effects.len(), 3);
    rig.give(Input::Start);
    assert_eq!(rig.effects, []);
}

#[test]
fn always_restarts_after_exit_status_0() {
    let mut rig = started(RestartPolicy::Always);
    rig.exited(ExitStatus::Code(0));
    assert_eq!(rig.delay(), millis(100));
}

#[test]
fn on_failure_takes_0_and_the_clean_signals_for_success() {
    for status in [0]
        .map(ExitStatus::Code)
        .into_iter()
        .chain([1, 2, 13, 15].map(killed_by))
    {
        let mut rig = started(RestartPolicy::OnFailure);
        rig.exited(status);
        assert_eq!(rig.state(), State::Stopped, "{status:?}");
    }
    for status in [1, 127]
        .map(ExitStatus::Code)
        .into_iter()
        .chain([9, 11, 3].map(killed_by))
    {
        let mut rig = started(RestartPolicy::OnFailure);
        rig.exited(status);
        assert_eq!(rig.delay(), millis(100), "{status:?}");
    }
}

#[test]
fn a_crash_counts_until_the_interval_is_over() {
    for (more, fails) in [(0, true), (1, false)] {
        let mut rig = Rig::with(1, |life| {
            life.restart.limit = Some(Rate {
                count: 1,
                interval: Duration::from_secs(60),
            });
        });
        rig.give(Input::Start);
        rig.running();
        rig.exited(ExitStatus::Code(1));
        let delay = rig.delay().unwrap();
        rig.again();
        rig.pass(Duration::from_nanos(60_000_000_000 + more) - delay);
        rig.exited(ExitStatus::Code(1));
        let has_failed = matches!(rig.state(), State::Failed { .. });
        assert_eq!(has_failed, fails, "{more} ns later");
    }
}

#[test]
fn on_failure_restarts_after_a_launch_failure() {
    let mut rig = Rig::new(RestartPolicy::OnFailure);
    rig.give(Input::Start);
    rig.launch_failed(Stage::Fork);
    assert_eq!(rig.delay(), millis(100));
}

#[test]
fn what_listend_is_short_of_is_no_crash_of_the_worker() {
    for policy in [RestartPolicy::Always, RestartPolicy::Never] {
        let mut rig = Rig::new(policy);
        rig.give(Input::Start);
        for _ in 0..20 {
            let process = rig.process();
            let failure = LaunchFailure {
                errno: 24,
                ..failure(Stage::Fork)
            };
            rig.give(Input::LaunchFailed { process, failure });
            rig.pass(rig.delay().expect("it is tried again"));
        }
        // What went before does not count now.
        rig.launch_failed(Stage::Fork);
        let is_tried_again = rig.delay().is_some();
        assert_eq!(is_tried_again, policy == RestartPolicy::Always);
    }
}

#[test]
fn never_stays_stopped_after_an_exit_and_fails_after_a_launch_failure() {
    let mut rig = started(RestartPolicy::Never);
    rig.exited(ExitStatus::Code(1));
    assert_eq!(rig.state(), State::Stopped);

    let mut rig = Rig::new(RestartPolicy::Never);
    rig.give(Input::Start);
    rig.launch_failed(Stage::Prepare);
    let reason = FailureReason::NeverLaunched;
    assert_eq!(
        rig.state(),
        State::Failed {
            reason,
            until: None
        }
    );
}

#[test]
fn the_delay_doubles_with_each_crash_up_to_the_maximum() {
    let mut rig = Rig::with(1, |lifecycle| lifecycle.restart.limit = None);
    rig.give(Input::Start);
    rig.running();
    for expected in [
        100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000,
    ] {
        rig.exited(ExitStatus::Code(1));
        assert!(is_jittered(rig.delay(), expected), "{:?}", rig.delay());
        rig.again();
    }
}

#[test]
fn what_crashes_together_does_not_come_back_together() {
    let mut rig = Rig::with(20, |_| {});
    rig.give(Input::Start);
    let instances: Vec<InstanceId> = rig.core.instances().map(|(id, _)| id).collect();
    for crash in 0..2 {
        for instance in instances.iter().copied() {
            let process = rig.core.state(instance).unwrap().process().unwrap();
            rig.give(Input::Spawned { process });
            rig.give(Input::ExecSucceeded { process });
            let status = ExitStatus::Code(1);
            rig.give(Input::Exited { process, status });
        }
        let times = rig.core.instances().map(|(_, state)| match state {
            State::Backoff { until } => until,
            state => panic!("{state:?}"),
        });
        let times: std::collections::BTreeSet<Mono> = times.collect();
        assert_eq!(times.len() > 10, crash > 0, "{times:?}");
        rig.pass(Duration::from_millis(100));
    }
}

#[test]
fn the_delay_starts_over_after_a_run_of_ten_seconds() {
    let mut rig = started(RestartPolicy::Always);
    rig.exited(ExitStatus::Code(1));
    rig.again();
    rig.pass(STABLE_AFTER - Duration::from_nanos(1));
    rig.exited(ExitStatus::Code(1));
    assert!(is_jittered(rig.delay(), 200));
    rig.again();
    rig.pass(STABLE_AFTER);
    rig.exited(ExitStatus::Code(1));
    assert_eq!(rig.delay(), millis(100));
}

#[test]
fn one_crash_more_than_the_limit_fails_the_instance_and_touches_no_listener() {
    let mut rig = started(RestartPolicy::Always);
    for _ in 0..5 {
        rig.exited(killed_by(SIGSEGV));
        rig.again();
    }
    rig.exited(killed_by(SIGSEGV));
    let reason = FailureReason::CrashLoop {
        crashes: 6,
        interval: Duration::from_secs(60),
    };
    assert_eq!(
        rig.state(),
        State::Failed {
            reason,
            until: None
        }
    );
    assert!(
        rig.effects
            .iter()
            .all(|effect| matches!(effect, Effect::Emit(_)))
    );
    let worker = WorkerId(0);
    assert!(
        rig.effects
            .contains(&Effect::Emit(Event::Worker(worker, WorkerEvent::Failed)))
    );
    assert_eq!(rig.core.deadline(), None);
}

// Six crashes in three seconds, and it was failed for ever.
#[test]
fn by_default_an_outage_of_minutes_is_over_by_itself() {
    for outage in [60, 200] {
        let mut crew = crew::Crew::new(|_| {});
        let crash = ExitStatus::Code(1);
        let mut told = 0;
        while crew.now < Mono(0) + Duration::from_secs(outage) {
            match crew.core.state(APP_0).unwrap().process() {
                Some(process) => crew.exits(process, crash),
                None => crew.pass(Duration::from_millis(50)),
            }
            let failed = |effect: &Effect| {
                matches!(
                    effect,
                    Effect::Emit(Event::Instance(
                        _,
                        InstanceEvent::Failed {
                            cool_down: Some(_),
                            ..
                        }
                    ))
                )
            };
            told += crew.count(failed);
            crew.forget();
        }
        assert_eq!(told, u32::from(outage > 100) as usize);
        // The longest of its delays, and of its pauses.
        crew.pass(Duration::from_secs(60));
        assert!(
            matches!(crew.state(APP_0), State::Running { .. }),
            "{outage} s"
        );
    }
}

#[test]
fn crashes_further_apart_than_the_interval_never_fail_it() {
    let mut rig = Rig::with(1, |lifecycle| {
        lifecycle.restart.limit = Some(Rate {
            count: 1,
            interval: Duration::from_secs(5),
        });
    });
    rig.give(Input::Start);
    rig.running();
    for _ in 0..100 {
        rig.exited(ExitStatus::Code(1));
        rig.again();
        rig.pass(Duration::from_secs(5));
    }
}

#[test]
fn death_by_a_sent_signal_neither_counts_nor_makes_the_delay_grow() {
    for number in [1, 2, 3, 9, 10, 12, 13, 14, 15, 34] {
        let mut rig = started(RestartPolicy::Always);
        for _ in 0..100 {
            rig.exited(killed_by(number));
            assert_eq!(rig.delay(), millis(100), "signal {number}");
            rig.again();
        }
    }
}

#[test]
fn a_fork_that_fails_is_followed_by_no_exit() {
    let mut rig = Rig::new(RestartPolicy::Always);
    rig.give(Input::Start);
    rig.launch_failed(Stage::Fork);
    assert_eq!(rig.delay(), millis(100));
}

#[test]
fn a_child_that_failed_to_launch_keeps_its_place_until_it_is_gone() {
    let mut rig = Rig::new(RestartPolicy::Always);
    rig.give(Input::Start);
    rig.spawned();
    rig.launch_failed(Stage::Exec);
    assert_eq!((rig.effects.as_slice(), rig.delay()), (&[][..], None));
    rig.exited(ExitStatus::Code(127));
    assert_eq!(rig.delay(), millis(100));
    assert!(matches!(
        rig.effects[..],
        [
            Effect::Emit(Event::Process(_, _, ProcessEvent::LaunchFailed { .. })),
            Effect::Emit(Event::Daemon(DaemonEvent::Up { failed: 1 }))
        ]
    ));
}

#[test]
fn an_exit_before_the_exec_status_waits_for_it_and_a_launch_failure_wins() {
    let mut rig = Rig::new(RestartPolicy::Always);
    rig.give(Input::Start);
    rig.spawned();
    rig.exited(ExitStatus::Code(127));
    assert_eq!((rig.effects.as_slice(), rig.delay()), (&[][..], None));
    rig.launch_failed(Stage::User);
    assert!(matches!(
        rig.effects[..],
        [
            Effect::Emit(Event::Process(_, _, ProcessEvent::LaunchFailed { .. })),
            Effect::Emit(Event::Daemon(DaemonEvent::Up { failed: 1 }))
        ]
    ));
    assert_eq!(rig.delay(), millis(100));

    rig.pass(rig.delay().unwrap());
    rig.spawned();
    rig.exited(ExitStatus::Code(3));
    rig.exec_succeeded();
    assert!(matches!(
        rig.effects[..],
        [
            Effect::Emit(Event::Process(_, _, ProcessEvent::Started)),
            Effect::Emit(Event::Process(
                _,
                _,
                ProcessEvent::Exited {
                    status: ExitStatus::Code(3),
                    next: Next::RestartIn(_),
                    ..
                }
            ))
        ]
    ));
    assert!(is_jittered(rig.delay(), 200));
}

#[test]
fn news_of_a_process_that_is_gone_or_said_so_already_is_counted_and_ignored() {
    let mut rig = started(RestartPolicy::Always);
    let process = rig.process();
    rig.exec_succeeded();
    rig.launch_failed(Stage::Exec);
    assert_eq!(rig.core.ignored_inputs(), 2);
    rig.exited(ExitStatus::Code(1));
    rig.again();
    let status = ExitStatus::Code(1);
    rig.give(Input::Exited { process, status });
    assert_eq!(rig.core.ignored_inputs(), 3);
    assert_ne!(rig.process(), process);
}

#[test]
fn an_early_tick_does_nothing() {
    let mut rig = started(RestartPolicy::Always);
    rig.exited(ExitStatus::Code(1));
    rig.pass(Duration::from_millis(99));
    assert_eq!(rig.effects, []);
    rig.pass(Duration::from_millis(1));
    assert!(matches!(rig.effects[..], [Effect::Spawn { .. }]));
}

#[test]
fn time_saturates_and_never_runs_backwards() {
    assert_eq!(Mono(u64::MAX) + Duration::MAX, Mono(u64::MAX));
    assert_eq!(Mono(1).since(Mono(2)), Duration::ZERO);
}
