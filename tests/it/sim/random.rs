//! Random numbers, statuses and workers, all from one seed.

use listend::config::{KillMode, Rate, Restart, RestartPolicy};
use listend::connection::Source;
use listend::core::{ExitStatus, Scope};
use listend::plan::Lifecycle;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// One second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Numbers from a tape as long as it lasts, then splitmix64.
#[derive(Clone)]
pub(crate) struct Rng {
    state: u64,
    tape: std::vec::IntoIter<u8>,
}

impl Rng {
    pub(crate) fn from_seed(state: u64) -> Rng {
        Rng {
            state,
            tape: Vec::new().into_iter(),
        }
    }

    /// A byte is a number: what changes one decision leaves the others as they are.
    pub(crate) fn from_tape(bytes: &[u8]) -> Rng {
        Rng {
            state: bytes.len() as u64,
            tape: Vec::from(bytes).into_iter(),
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        if let Some(byte) = self.tape.next() {
            return u64::from(byte);
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

pub(crate) fn signal(number: i32) -> ExitStatus {
    ExitStatus::Signal {
        number,
        core_dumped: false,
    }
}

/// The rules of what is left of a process group whose main process has ended, told again: whether it
/// is sent the stop signal. `was_asked` is that the instance was to end already.
pub(crate) fn is_rest_asked(life: &Lifecycle, was_asked: bool, status: ExitStatus) -> bool {
    let well = match status {
        ExitStatus::Code(code) => code == 0,
        ExitStatus::Signal { number, .. } => [1, 2, 13, 15].contains(&number),
        ExitStatus::Unknown => false,
    };
    !was_asked && (life.kill_mode == KillMode::Group || !well)
}

/// Whom the stop signal is sent to.
pub(crate) fn stop_scope(life: &Lifecycle, main_has_ended: bool) -> Scope {
    match life.kill_mode {
        KillMode::Process if !main_has_ended => Scope::Process,
        KillMode::Process | KillMode::Group => Scope::Group,
    }
}

pub(crate) fn lifecycle(rng: &mut Rng) -> Lifecycle {
    let policies = [
        RestartPolicy::Always,
        RestartPolicy::Always,
        RestartPolicy::OnFailure,
        RestartPolicy::Never,
    ];
    let limit = Rate {
        count: rng.below(6) as u32,
        interval: Duration::from_secs(1 + rng.below(60)),
    };
    Lifecycle {
        activation: listend::plan::Activation::Eager,
        instances: 1 + rng.below(3) as u32,
        restart: Restart {
            policy: rng.pick(&policies),
            backoff_min: Duration::from_millis(rng.pick(&[0, 1, 100, 1000])),
            backoff_max: Duration::from_millis(rng.pick(&[1000, 5000, 30_000])),
            limit: (!rng.one_in(2)).then_some(limit),
            cool_down: None,
            ..Restart::default()
        },
        stop_signal: rng.pick(&[15, 2, 3]),
        kill_mode: rng.pick(&[KillMode::Process, KillMode::Process, KillMode::Group]),
        stop_timeout: rng
            .pick(&[Some(0), Some(1), Some(30), None])
            .map(Duration::from_secs),
        ..Lifecycle::default()
    }
}

/// Where a client comes from.
pub(crate) fn source(rng: &mut Rng) -> Source {
    match rng.below(8) {
        0 => Source::User(1000),
        1 => Source::Cid(3),
        2 => Source::Unknown,
        3 => Source::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        n => Source::Ip(IpAddr::V4(Ipv4Addr::new(192, 0, 2, n as u8))),
    }
}
