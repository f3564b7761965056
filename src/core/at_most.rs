//! How long a command takes at most, by the worker's own times.
//!
//! Each step of a command has a limit that the core enforces; here they are summed. A worker that asks
//! for more time (`EXTEND_TIMEOUT_USEC`), a listener that has to be bound again, and a process that
//! the kernel does not end are not foreseen.

use super::job::{Goal, Waiter};
use super::machine::Core;
use super::reload::SAYS_WITHIN;
use super::shards::has_shards;
use super::types::Ticket;
use super::worker::Worker;
use crate::config::Ready;
use crate::plan::{Lifecycle, ReloadBy};
use std::time::Duration;

/// `None` is for ever.
type Limit = Option<Duration>;

fn sum(one: Limit, other: Limit) -> Limit {
    Some(one?.saturating_add(other?))
}

/// The longest of all; what there is none of takes no time.
fn longest(limits: impl IntoIterator<Item = Limit>) -> Limit {
    let mut all = limits.into_iter();
    all.try_fold(Duration::ZERO, |longest, limit| Some(longest.max(limit?)))
}

/// The longest time until an instance is ready, or has failed.
fn up(life: &Lifecycle) -> Limit {
    let ready = match life.ready {
        Ready::Started => Some(Duration::ZERO),
        Ready::Notify | Ready::Accepting(_) | Ready::Fd(_) | Ready::Einhorn => life.start_timeout,
    };
    sum(Some(life.hooks.before_start.unwrap_or_default()), ready)
}

/// The longest time until nothing of an instance runs.
fn down(life: &Lifecycle) -> Limit {
    let after = life.hooks.after_stop.unwrap_or_default();
    let drain = match has_shards(life) {
        true => life.stop_timeout,
        false => Some(Duration::ZERO),
    };
    sum(drain, sum(life.stop_timeout, Some(after)))
}

/// The longest time until an instance has reloaded its own configuration.
fn reload(life: &Lifecycle) -> Limit {
    let command = match life.reload {
        Some(ReloadBy::Command(timeout)) => timeout,
        Some(ReloadBy::Signal(_)) | None => SAYS_WITHIN,
    };
    match life.ready {
        Ready::Notify => sum(Some(command), life.start_timeout),
        Ready::Started | Ready::Accepting(_) | Ready::Fd(_) | Ready::Einhorn => Some(command),
    }
}

impl Core {
    /// How long whoever asked has to wait at most, from now on; `None` is without a limit.
    pub fn at_most(&self, ticket: Ticket) -> Option<Duration> {
        let replanning = self.ctx.replanning.as_ref();
        if let Some(reload) = replanning.filter(|reload| reload.ticket == Some(ticket)) {
            let workers = reload.pending.iter();
            let workers = workers.filter_map(|worker| self.workers.get(worker));
            // After a rollout its size may change.
            return longest(workers.map(|worker| sum(worker.whole(), worker.bring_up())));
        }
        self.workers
            .values()
            .find_map(|worker| worker.at_most(ticket))?
    }
}

impl Worker {
    /// The same, if one waits for this worker.
    fn at_most(&self, ticket: Ticket) -> Option<Limit> {
        let rollout = self.rollout.as_ref();
        if rollout.is_some_and(|rollout| rollout.tickets.contains(&ticket)) {
            return Some(self.whole());
        }
        let mut jobs = self.jobs.iter();
        if let Some(job) = jobs.find(|job| job.waiter == Waiter::Asked(ticket)) {
            return Some(match job.goal {
                Goal::Up => self.bring_up(),
                Goal::Down => longest(self.lives().map(down)),
            });
        }
        let mut reloads = self.reloads.iter();
        let waits = reloads.any(|reload| reload.ticket == ticket);
        waits.then(|| longest(self.lives().map(reload)))
    }

    /// By what its instances and connections live, or are to live.
    fn lives(&self) -> impl Iterator<Item = &Lifecycle> {
        let before = self.rollout.as_ref().map(|rollout| &*rollout.from.life);
        let lives = self.runs.all().map(|run| &*run.life);
        lives.chain([&*self.lifecycle]).chain(before)
    }

    /// The longest time until every instance that was still stopping runs again, or has failed and is cleaned up.
    fn bring_up(&self) -> Limit {
        let down = longest(self.lives().map(down));
        sum(sum(down, longest(self.lives().map(up))), down)
    }

    /// The longest time until every instance is replaced, `parallel` at a time, and at the worst the
    /// last one fails and every one is brought back.
    fn whole(&self) -> Limit {
        let start = self.bring_up();
        let Some(rollout) = &self.rollout else {
            return start;
        };
        let terms = &self.lifecycle.rollout;
        let rounds = rollout.of.div_ceil(terms.parallel.max(1));
        let step = start?.saturating_add(terms.min_ready);
        let back = start?.saturating_mul(rounds);
        Some(step.saturating_mul(rounds).saturating_add(back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Command, Configuration, Effect, Input, Mono, WhenDone, WorkerUpdate};
    use crate::plan::{HookTimes, WorkerId};

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// How long a command takes whose worker has started everything.
    fn limit(life: &Lifecycle, command: Command) -> Limit {
        let (now, ticket) = (Mono(0), Ticket(1));
        let mut core = Core::new(vec![life.clone()], WhenDone::Hold);
        core.handle(now, Input::Start);
        while let Some(effect) = core.next_effect() {
            if let Effect::Spawn { process, .. } = effect {
                core.handle(now, Input::Spawned { process });
                core.handle(now, Input::ExecSucceeded { process });
            }
        }
        let worker = WorkerId(0);
        core.handle(
            now,
            Input::Operate {
                ticket,
                worker,
                index: None,
                command,
            },
        );
        core.at_most(ticket)
    }

    #[test]
    fn a_command_has_the_sum_of_the_times_of_its_steps() {
        let life = Lifecycle::default();
        assert_eq!(limit(&life, Command::Stop), Some(seconds(30)));
        // 30 to stop what fails; 2 to be ready; and the same on the way back.
        let restart = |life: &Lifecycle| limit(life, Command::Restart);
        assert_eq!(restart(&life), Some(seconds(62 + 60)));
        let mut four = Lifecycle {
            instances: 4,
            ..Lifecycle::default()
        };
        four.rollout.parallel = 2;
        assert_eq!(restart(&four), Some(seconds(2 * (62 + 60))));
        let notify = Lifecycle {
            ready: Ready::Notify,
            ..Lifecycle::default()
        };
        assert_eq!(restart(&notify), Some(seconds(152 + 150)));
        let hooks = Lifecycle {
            hooks: HookTimes {
                before_start: Some(seconds(3)),
                after_ready: None,
                after_stop: Some(seconds(5)),
            },
            ..Lifecycle::default()
        };
        assert_eq!(limit(&hooks, Command::Stop), Some(seconds(35)));
        let rereads = Lifecycle {
            reload: Some(ReloadBy::Command(seconds(7))),
            ..Lifecycle::default()
        };
        assert_eq!(limit(&rereads, Command::Reload), Some(seconds(7)));
    }

    #[test]
    fn a_reload_takes_as_long_as_the_slowest_of_the_workers_it_waits_for() {
        let mut core = Core::new(vec![Lifecycle::default(); 2], WhenDone::Hold);
        core.handle(Mono(0), Input::Start);
        let slow = Lifecycle {
            stop_timeout: Some(seconds(40)),
            ..Lifecycle::default()
        };
        let change = |worker, life| (WorkerId(worker), WorkerUpdate::Definition { life });
        let configuration = Configuration {
            ticket: Some(Ticket(1)),
            workers: vec![
                change(0, slow.into()),
                change(1, Lifecycle::default().into()),
            ],
            ..Configuration::default()
        };
        core.handle(Mono(0), Input::Configure(Box::new(configuration)));
        // To be replaced and to get another size.
        assert_eq!(core.at_most(Ticket(1)), Some(seconds(82 + 80 + 80)));
        assert_eq!(core.at_most(Ticket(2)), None);
    }

    #[test]
    fn what_may_take_for_ever_has_no_limit() {
        let life = Lifecycle {
            stop_timeout: None,
            ..Lifecycle::default()
        };
        assert_eq!(limit(&life, Command::Stop), None);
        let life = Lifecycle {
            ready: Ready::Notify,
            start_timeout: None,
            ..Lifecycle::default()
        };
        assert_eq!(limit(&life, Command::Restart), None);
        assert_eq!(limit(&life, Command::Stop), Some(seconds(30)));
    }
}
