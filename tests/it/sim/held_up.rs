//! A loop that is held up at random, and instances that give signs of life through a socket with little room.

use crate::sim::random::{Rng, SECOND};
use crate::sim::seeds::{every, seen};
use listend::core::{Core, Effect, Input, Mono, Notice, ProcessId, WhenDone};
use listend::plan::Lifecycle;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const WATCHDOG: u64 = 3 * SECOND;
/// So many messages have room in the socket; who has another waits for it.
const ROOM: usize = 10;
/// So many are read in one turn.
const READ: usize = 4;
const TURN: u64 = SECOND / 1000;
const TURNS: u32 = 2000;

seen! {
    held_up: "turns that came more than an interval late",
    hung: "instances that hung, and were ended",
}

struct Rig {
    rng: Rng,
    core: Core,
    now: Mono,
    /// When whom sends its next sign of life, or none any more.
    sends: BTreeMap<ProcessId, Option<Mono>>,
    /// What was sent, or waits for room, and is not read.
    socket: VecDeque<ProcessId>,
    seen: Seen,
}

impl Rig {
    fn new(seed: u64) -> Rig {
        let mut rng = Rng::from_seed(seed);
        let life = Lifecycle {
            instances: 1 + rng.below(30) as u32,
            watchdog: Some(Duration::from_nanos(WATCHDOG)),
            stop_timeout: None,
            ..Lifecycle::default()
        };
        let mut rig = Rig {
            rng,
            core: Core::new(vec![life], WhenDone::Hold),
            now: Mono(SECOND),
            sends: BTreeMap::new(),
            socket: VecDeque::new(),
            seen: Seen::default(),
        };
        rig.give(Input::Start);
        rig
    }

    fn give(&mut self, input: Input) {
        self.core.handle(self.now, input);
        self.core.check_invariants().expect("it holds");
        while let Some(effect) = self.core.next_effect() {
            match effect {
                Effect::Spawn { process, .. } => {
                    self.sends.insert(process, Some(self.now));
                    self.give(Input::Spawned { process });
                    self.give(Input::ExecSucceeded { process });
                }
                Effect::Signal { process, .. } => self.ends(process),
                Effect::Emit(_) | Effect::TakeFlows { .. } | Effect::EndFlows { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// It is sent a signal, and continued for it.
    fn ends(&mut self, process: ProcessId) {
        let sends = self.sends.get(&process);
        assert!(
            !matches!(sends, Some(Some(_))),
            "{process:?} has sent in time"
        );
        self.seen.hung += u64::from(self.sends.remove(&process).is_some());
    }

    /// Everybody sends until now. One that waits for room sends its next only after that.
    fn others_run(&mut self) {
        let waiting: BTreeSet<ProcessId> = self.socket.iter().skip(ROOM).copied().collect();
        for (process, next) in &mut self.sends {
            while let Some(at) = next.filter(|at| *at <= self.now)
                && !waiting.contains(process)
            {
                self.socket.push_back(*process);
                let pause = self.rng.below(WATCHDOG - SECOND / 10);
                *next = Some(at + Duration::from_nanos(pause));
                if self.socket.len() > ROOM {
                    break;
                }
            }
        }
    }

    fn turn(&mut self) {
        for _ in 0..READ {
            if let Some(process) = self.socket.pop_front() {
                let notice = Notice::Alive;
                self.give(Input::Notified { process, notice });
            }
        }
        if self.core.deadline().is_some_and(|at| at <= self.now) {
            self.give(Input::Tick);
        }
    }

    /// The loop waits until there is something, and may be held up for some time.
    fn wait(&mut self, held_up: u64) {
        let sends = self.sends.values().flatten().copied();
        let next = sends.chain(self.core.deadline()).min();
        let rest = match next {
            Some(at) if self.socket.is_empty() => at.since(self.now),
            _ => Duration::ZERO,
        };
        self.now = self.now + rest + Duration::from_nanos(TURN + held_up);
        // Less than that is not noticed, whatever was held up before; nor is it where a deadline passes only
        // while the messages are read.
        let noticed = Duration::from_millis(50);
        let reading = Duration::from_nanos(100 * TURN);
        if held_up > 0
            && let Some(at) = self.core.deadline()
            && self.now.since(at) <= noticed
            && at.since(self.now) <= reading
        {
            self.now = at + noticed + Duration::from_nanos(1);
        }
        self.others_run();
    }
}

#[test]
fn nobody_is_ended_whose_sign_of_life_came_in_time() {
    every(|seed, _| {
        let mut rig = Rig::new(seed);
        let mut again = rig.now;
        for _ in 0..TURNS {
            let is_held_up = rig.now > again && rig.rng.one_in(20);
            let held_up = match is_held_up {
                true => rig.rng.below(3 * WATCHDOG),
                false => 0,
            };
            rig.wait(held_up);
            if is_held_up {
                again = rig.now + Duration::from_secs(2);
            }
            rig.seen.held_up += u64::from(held_up > WATCHDOG);
            rig.turn();
            if rig.rng.one_in(400)
                && let Some(one) = rig.sends.values_mut().next()
            {
                *one = None;
            }
        }
        // And who hangs is ended, once the loop is held up no more.
        let end = rig.now + Duration::from_nanos(2 * WATCHDOG);
        for _ in 0..100_000 {
            if rig.now > end {
                break;
            }
            rig.wait(0);
            rig.turn();
        }
        let hangs = rig.sends.values().filter(|next| next.is_none()).count();
        assert_eq!(hangs, 0, "they live on");
        rig.seen
    });
}
