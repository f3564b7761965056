//! The pictures of the transitions are what happens: everything that they show, and nothing else.

use super::*;
use crate::config::{Order, Ready};
use crate::core::picture::Picture;
use crate::core::rollout::{Course, StepStage};
use crate::core::state::Kind;
use crate::plan::Activation;
use crate::plan::SocketKey;
use std::collections::BTreeSet;

const KINDS: [Kind; 10] = [
    Kind::Waiting,
    Kind::Preparing,
    Kind::Starting,
    Kind::Activating,
    Kind::Running,
    Kind::Stopping,
    Kind::Cleaning,
    Kind::Backoff,
    Kind::Failed,
    Kind::Stopped,
];
const COURSES: [Course; 4] = [Course::Forward, Course::Watched, Course::Back, Course::Over];
const STAGES: [StepStage; 7] = [
    StepStage::MakingRoom,
    StepStage::Starting,
    StepStage::Settling,
    StepStage::Draining,
    StepStage::Done,
    StepStage::Failed,
    StepStage::GivenUp,
];

fn shown<T: Picture>(all: &[T]) -> BTreeSet<String> {
    let of = |from: &T| {
        let from = *from;
        let all = from.next().iter();
        all.map(move |to| format!("{}: {from:?} → {to:?}", T::NAME))
    };
    all.iter().flat_map(of).collect()
}

/// The lines `/// From → To, To` in front of a type in a source file.
fn drawn<T: Picture>(source: &str) -> BTreeSet<String> {
    let end = source.find(&format!("enum {} ", T::NAME)).unwrap();
    let docs = source[..end].rsplit("\n\n").next().unwrap();
    let lines = docs.lines().filter_map(|line| line.strip_prefix("/// "));
    let lines = lines.filter_map(|line| line.split_once('→'));
    lines
        .filter(|(from, _)| from.trim().chars().all(char::is_alphanumeric))
        .flat_map(|(from, to)| {
            let from = from.trim();
            to.split(',')
                .map(move |to| format!("{}: {from} → {}", T::NAME, to.trim()))
        })
        .collect()
}

#[test]
fn the_pictures_in_the_source_are_the_tables() {
    let rollout = include_str!("../rollout.rs");
    assert_eq!(drawn::<Kind>(include_str!("../state.rs")), shown(&KINDS));
    assert_eq!(drawn::<Course>(rollout), shown(&COURSES));
    assert_eq!(drawn::<StepStage>(rollout), shown(&STAGES));
}

/// The finalizer of splitmix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    pub(super) fn yes(&mut self) -> bool {
        self.below(2) == 0
    }
}

pub(super) fn any_life(random: &mut Random) -> Lifecycle {
    let accepts = Activation::PerConnection(crate::config::ConnectionLimits::NONE);
    let on_demand = Activation::OnDemand { limit: None };
    let activation = match random.below(4) {
        0 => accepts,
        1 => on_demand,
        _ => Activation::Eager,
    };
    let second = Duration::from_secs(1);
    let mut life = Lifecycle {
        instances: match activation {
            Activation::PerConnection(_) => 0,
            Activation::Eager | Activation::OnDemand { .. } => 1 + random.below(2) as u32,
        },
        activation,
        ready: random.one_of(&[Ready::Started, Ready::Notify]),
        restart: Restart {
            policy: random.one_of(&[
                RestartPolicy::Always,
                RestartPolicy::OnFailure,
                RestartPolicy::Never,
            ]),
            limit: Some(Rate {
                count: random.one_of(&[0, 2]),
                interval: Duration::from_secs(60),
            }),
            cool_down: random.yes().then_some(second),
            ..Restart::default()
        },
        kill_mode: random.one_of(&[KillMode::Process, KillMode::Group]),
        stop_timeout: random.yes().then_some(second),
        start_timeout: Some(second),
        watchdog: random.yes().then_some(second),
        ..Lifecycle::default()
    };
    life.hooks.before_start = random.yes().then_some(second);
    life.hooks.after_ready = random.yes().then_some(second);
    life.hooks.after_stop = random.yes().then_some(second);
    life.rollout.order = random.one_of(&[Order::StartFirst, Order::StopFirst]);
    life.rollout.min_ready = random.one_of(&[Duration::ZERO, second]);
    life.keeps_flows = random.below(3) == 0;
    life
}

fn any_status(random: &mut Random) -> ExitStatus {
    match random.below(3) {
        0 => ExitStatus::Code(0),
        1 => ExitStatus::Code(1),
        _ => killed_by(random.one_of(&[SIGTERM, SIGSEGV])),
    }
}

pub(super) const WEB: crate::plan::ListenerId = crate::plan::ListenerId(0);
const APP: WorkerId = WorkerId(0);

/// What comes next of a process, if nothing goes wrong.
fn proper_input(core: &Core, process: ProcessId, status: ExitStatus) -> Input {
    let run = core.ctx.processes.get(&process);
    let run = run.and_then(|id| core.workers[&id.worker].runs.get(*id));
    match run.map(|run| run.state.clone()) {
        Some(State::Starting {
            launch: Launch::Execing,
            ..
        }) => Input::ExecSucceeded { process },
        Some(State::Activating { .. }) => Input::Notified {
            process,
            notice: Notice::Ready,
        },
        Some(State::Running { .. } | State::Stopping { .. }) => Input::Exited { process, status },
        Some(_) | None => Input::Spawned { process },
    }
}

/// An input that may come now. What names a process names one that the core knows.
pub(super) fn any_input(random: &mut Random, core: &Core, accepts: &[ConnectionId]) -> Input {
    let ctx = &core.ctx;
    let all = ctx.processes.keys().chain(ctx.hooks.keys()).copied();
    let all: Vec<ProcessId> = all.collect();
    if !accepts.is_empty() && random.yes() {
        let connection = random.one_of(accepts);
        let source = crate::connection::Source::Unknown;
        return Input::Accepted { connection, source };
    }
    if all.is_empty() || random.below(8) == 0 {
        let (listener, socket, worker) = (WEB, 0, APP);
        let command = match random.below(8) {
            0 => Command::Start,
            1 => Command::Stop,
            2 => Command::Scale(random.below(3) as u32),
            3 => Command::Reset,
            4 | 5 => Command::Restart,
            _ => {
                return Input::ClientWaits {
                    listener,
                    socket: SocketKey(socket),
                };
            }
        };
        let ticket = Ticket(1);
        return Input::Operate {
            ticket,
            worker,
            index: None,
            command,
        };
    }
    let process = random.one_of(&all);
    let status = any_status(random);
    if random.yes() {
        return proper_input(core, process, status);
    }
    match random.below(17) {
        16 => {
            let leaving = core.workers.get(&APP).into_iter();
            let leaving = leaving.flat_map(|worker| worker.runs.leaving());
            let lane = leaving.map(|run| run.id.lane()).next();
            let lane = lane.unwrap_or(Lane(u64::MAX));
            Input::FlowsQuiet { worker: APP, lane }
        }
        0..=2 => Input::Spawned { process },
        3..=5 => Input::ExecSucceeded { process },
        6 => Input::LaunchFailed {
            process,
            failure: failure(crate::stage::Stage::Exec),
        },
        7 => Input::MainExited { process, status },
        8..=10 => Input::Exited { process, status },
        11 | 12 => Input::Notified {
            process,
            notice: Notice::Ready,
        },
        13 => Input::Notified {
            process,
            notice: Notice::Stopping,
        },
        _ => Input::Tick,
    }
}

#[test]
fn what_happens_is_what_the_pictures_show() {
    let mut seen = BTreeSet::new();
    for seed in 0..3000 {
        let random = &mut Random(seed);
        let lives = vec![ListenerLife {
            presence: crate::config::Presence::Required,
            users: vec![APP],
        }];
        let life = any_life(random);
        let core = Core::new(vec![life.clone()], WhenDone::Hold);
        let mut core = core.with_listeners(lives);
        let (mut now, mut accepts) = (Mono(0), Vec::new());
        core.handle(now, Input::Start);
        for _ in 0..80 {
            match random.below(200) {
                0 => core.handle(now, Input::Stop),
                1..=6 => {
                    let life = match random.yes() {
                        true => any_life(random),
                        false => life.clone(),
                    };
                    let is_final = random.yes();
                    let change = WorkerUpdate::Definition { life: life.into() };
                    let workers = vec![(APP, change)];
                    let configuration = Configuration {
                        workers,
                        final_for: is_final.then_some(APP).into_iter().collect(),
                        ..Configuration::default()
                    };
                    core.handle(now, Input::Configure(Box::new(configuration)));
                }
                7..=12 => {
                    let (listener, socket) = (WEB, 0);
                    core.handle(now, damaged(listener, SocketKey(socket)));
                    core.handle(
                        now,
                        Input::SocketHeld {
                            listener,
                            socket: SocketKey(socket),
                        },
                    );
                }
                // Asked once the last instance of a pool has ended cleanly.
                21..=30 => core.handle(
                    now,
                    Input::Looked {
                        worker: APP,
                        waiting: Waiting::TheSame,
                    },
                ),
                13..=20 => core.handle(now, Input::ListenerBound { listener: WEB }),
                31..=70 => {
                    now = core.deadline().unwrap_or(now).max(now);
                    core.handle(now, Input::Tick);
                }
                _ => {
                    let input = any_input(random, &core, &accepts);
                    core.handle(now, input);
                }
            }
            core.check_invariants().unwrap();
            accepts.clear();
            while let Some(effect) = core.next_effect() {
                if let Effect::Accept { connection, .. } = effect {
                    accepts.push(connection);
                }
            }
        }
        seen.append(&mut core.ctx.drawn.seen);
    }
    let mut pictures = shown(&KINDS);
    pictures.extend(shown(&COURSES));
    pictures.extend(shown(&STAGES));
    let unseen: Vec<&String> = pictures.difference(&seen).collect();
    assert!(unseen.is_empty(), "shown, and never seen: {unseen:#?}");
}
