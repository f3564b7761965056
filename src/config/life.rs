//! The life of instances in the configuration: readiness, rollout, reload, hooks and restart.

use super::values::{Rate, Template};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The condition for an instance to count as ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// The instance runs its program.
    Started,
    /// The instance sends `READY=1` (sd_notify(3)).
    Notify,
    /// The kernel shows that the instance accepts clients.
    Accepting(Every),
    /// The instance writes a newline to this descriptor, as in s6.
    Fd(i32),
    /// The instance says so at the socket of einhorn (`worker:ack`).
    Einhorn,
}

/// The condition in the notation of the configuration.
impl fmt::Display for Ready {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ready::Started => to.write_str("started"),
            Ready::Notify => to.write_str("notify"),
            Ready::Accepting(Every::All) => to.write_str("accepting all"),
            Ready::Accepting(Every::First) => to.write_str("accepting first"),
            Ready::Fd(number) => write!(to, "fd {number}"),
            Ready::Einhorn => to.write_str("einhorn"),
        }
    }
}

/// The listeners on which an instance must be seen to accept clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Every {
    /// Every listener of the worker.
    All,
    /// The first listener in the list of the worker.
    First,
}

/// The processes that may send notifications for a worker (sd_notify(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotifyAccess {
    /// The main process of an instance.
    Main,
    /// Every process of an instance.
    All,
}

/// The settings of a rollout, in which a new generation replaces an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Rollout {
    /// Whether the start or the stop comes first.
    pub order: Order,
    /// The number of instances replaced at a time; at least 1.
    pub parallel: u32,
    /// The time for which a new instance has to stay ready before the rollout goes on.
    pub min_ready: Duration,
    /// The time after the last replacement in which a crash of a new instance still fails the rollout.
    pub watch: Duration,
}

/// The order of start and stop when an instance is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The new one starts beside the old one.
    StartFirst,
    /// The old one stops; for programs that cannot run twice.
    StopFirst,
}

/// The processes that get the stop signal of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillMode {
    /// The main process, which ends its others itself.
    Process,
    /// The main process and everything in its process group.
    Group,
}

/// The means that makes an instance read its own configuration again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reload {
    /// A signal.
    Signal(i32),
    /// A command.
    Command(Hook),
}

/// When symbolic links on the way to the files of a worker are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolve {
    /// At each start of a process, by the kernel.
    AtStart,
    /// When the configuration is loaded: what follows is part of the definition, which a rollback takes back.
    AtReload,
}

/// How the number of instances follows the queues, `instances: {…}`; the least is [`super::Worker::instances`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// The largest number.
    pub max: u32,
    /// With more clients than that in the queues, one is added.
    pub scale_up_at: u32,
}

/// The treatment of the listeners of a worker whose instances have all failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// The listeners stay bound: clients wait in the accept queues.
    Hold,
    /// The listeners are closed, so that clients are refused and load balancers notice.
    Refuse,
}

/// Commands around an instance's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Hooks {
    /// Run before each start, which waits for the command; its failure counts as a failure of the
    /// start.
    pub before_start: Option<Hook>,
    /// Run when the instance is ready; a failure is logged and has no other consequence.
    pub after_ready: Option<Hook>,
    /// Run after the instance has ended; the next start waits for the command.
    pub after_stop: Option<Hook>,
}

/// A command that runs beside an instance, as its user and in its surroundings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Hook {
    /// The words of the command; never empty.
    pub command: Vec<Template>,
    /// The time after which the command is killed.
    pub timeout: Duration,
}

/// The settings for restarting an instance that has exited.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Restart {
    /// The exits after which an instance is restarted.
    pub policy: RestartPolicy,
    /// The delay before the first restart; each further crash doubles it.
    pub backoff_min: Duration,
    /// The longest delay.
    pub backoff_max: Duration,
    /// The crash-loop limit: more than this many crashes in the interval fail the instance.
    pub limit: Option<Rate>,
    /// After which time a failed instance is started again; `None` is never, and for a worker that
    /// clients start the interval of the limit.
    pub cool_down: Option<Duration>,
    /// Ends that are no failures, beside those that never are.
    pub success: Vec<Success>,
}

/// An end that is no failure (`success_exit_status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Success {
    /// An exit status.
    Code(i32),
    /// Death by a signal.
    Signal(i32),
}

/// The limit that goes with a backoff, unless another is chosen: as many crashes as it takes until
/// the longest delay was waited for, but at least 5, in twice the time of all those delays. Fewer
/// would end before the delay has grown; in less time it would never be reached.
pub(super) fn limit_for(min: Duration, max: Duration) -> Rate {
    let (mut delay, mut whole, mut count) = (Duration::ZERO, Duration::ZERO, 0_u32);
    while count < 5 || delay < max {
        delay = delay
            .saturating_mul(2)
            .max(min)
            .max(Duration::from_millis(1))
            .min(max);
        whole = whole.saturating_add(delay);
        count += 1;
    }
    let minutes = whole.saturating_mul(2).as_secs().div_ceil(60).max(1);
    Rate {
        count,
        interval: Duration::from_secs(minutes.saturating_mul(60)),
    }
}

/// The default time for which a failed instance is not restarted: longer than any delay before.
pub(super) fn cool_down_for(max: Duration) -> Duration {
    max.saturating_mul(2).max(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_lets_the_delay_grow_to_its_longest() {
        let millis = Duration::from_millis;
        for (min, max, count, minutes) in [
            (100, 30_000, 10, 3),
            (1, 2, 5, 1),
            (10, 10, 5, 1),
            (1_000, 30_000, 6, 3),
            (30_000, 3_600_000, 8, 247),
            (30_000, 30_000, 5, 5),
        ] {
            let limit = limit_for(millis(min), millis(max));
            assert_eq!(limit.count, count, "{min}..{max}");
            assert_eq!(limit.interval.as_secs(), minutes * 60, "{min}..{max}");
        }
        assert!(limit_for(millis(1), Duration::MAX).count < 100);
        assert_eq!(cool_down_for(millis(5)), Duration::from_secs(60));
        assert_eq!(
            cool_down_for(Duration::from_secs(600)),
            Duration::from_secs(1200)
        );
    }
}

/// The exits after which an instance is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Every exit.
    Always,
    /// Any but exit status 0 and death by SIGHUP, SIGINT, SIGPIPE or SIGTERM, as systemd has it.
    OnFailure,
    /// No exit: only a command starts the instance again.
    Never,
}
