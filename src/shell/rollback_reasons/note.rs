//! Which events are reasons for a rollback or a failure, and the words for them.

use super::RollbackReason;
use crate::config::{Order, Output};
use crate::core::{
    Event, ExitStatus, HookKind, InstanceId, Next, ProcessEvent, RolloutEvent, WorkerEvent,
};
use crate::shell::event_text;
use crate::shell::turn::Shell;
use std::time::Duration;

/// A program that cannot get what it needs for itself ends within this time.
const AT_ONCE: Duration = Duration::from_secs(10);

impl Shell {
    /// Keeps what was wrong with an instance.
    pub(in crate::shell) fn note_rollback_reason(&mut self, event: &Event, words: &str) {
        let (instance, event) = match *event {
            Event::Worker(
                worker,
                WorkerEvent::ConnectionsFailing {
                    instance, status, ..
                },
            ) => {
                let name = event_text::instance_name(&self.definitions, instance);
                let why = format!("{name}: {}", event_text::status_words(status));
                self.rollback_reasons.connections_fail(worker, why);
                return;
            }
            Event::Rollout(worker, RolloutEvent::Done { .. }) => {
                return self.rollback_reasons.forget(worker);
            }
            Event::Process(instance, _, ref event) => (instance, event),
            _ => return,
        };
        let goes_back = match event {
            ProcessEvent::HookFailed {
                kind: HookKind::Reload,
                ..
            } => {
                // The first is the one that is answered.
                let first = self.rollback_reasons.reloads.entry(instance);
                first.or_insert_with(|| words.to_owned());
                return;
            }
            ProcessEvent::Started => {
                self.rollback_reasons.ends.remove(&instance);
                return;
            }
            ProcessEvent::StartTimedOut { .. } | ProcessEvent::WatchdogTimedOut { .. } => {
                self.core.is_watched(instance.worker)
            }
            ProcessEvent::Exited { next, .. }
            | ProcessEvent::LaunchFailed { next, .. }
            | ProcessEvent::HookFailed {
                next: Some(next), ..
            } => match next {
                Next::RolledBack => true,
                Next::RestartIn(Duration::ZERO)
                | Next::AtNextClient { .. }
                | Next::Done
                | Next::Stopping => return,
                Next::RestartIn(_) | Next::Failed(_) | Next::StaysStopped => false,
            },
            _ => return,
        };
        if event_text::serves_connections(&self.definitions, instance.worker) {
            // Nobody waits for a connection.
            if matches!(event, ProcessEvent::LaunchFailed { .. }) {
                let why = words.to_owned();
                self.rollback_reasons.connections_fail(instance.worker, why);
            }
            return;
        }
        let by_itself = matches!(event, ProcessEvent::Exited { .. });
        // Of one that was ended, why it was says more than how it took that.
        if goes_back && self.rollback_reasons.of(instance).is_none() {
            let words = words.replacen("; rolling back", "", 1);
            let rollback_reason = RollbackReason {
                index: instance.index,
                generation: instance.generation,
                words,
                by_itself,
                is_exclusive: ended_at_once(event) && self.runs_beside(instance),
            };
            self.rollback_reasons.rolled_back(instance, rollback_reason);
        }
        let was_ended = by_itself && self.rollback_reasons.ends.contains_key(&instance);
        if !was_ended {
            let words = words.to_owned();
            self.rollback_reasons.ends.insert(instance, words);
        }
    }

    /// Whether an older instance of this number runs.
    fn runs_beside(&self, instance: InstanceId) -> bool {
        let mut all = self.core.instances_of(instance.worker);
        all.any(|one| {
            let is_older = one.index == instance.index && one.generation < instance.generation;
            let state = self.core.state(one);
            is_older && state.is_some_and(|state| state.process().is_some())
        })
    }

    /// What to look at, and to try, after a rollout that went back for this instance.
    pub(in crate::shell) fn after_rollback(&self, instance: InstanceId) -> String {
        let mut hints = String::new();
        let rollback_reason = self.rollback_reasons.rollouts.get(&instance.worker);
        let Some(rollback_reason) =
            rollback_reason.filter(|one| one.is_of(instance) && one.by_itself)
        else {
            return hints;
        };
        let plan = self.definitions.worker(instance.worker);
        if matches!(plan.output, Output::Inherit) {
            hints.push_str(
                "; what it wrote is in listend's own output (`output: tag` puts its last lines here)",
            );
        }
        if rollback_reason.is_exclusive && plan.lifecycle.rollout.order == Order::StartFirst {
            hints.push_str(
                "; if it cannot run beside the one it replaces (a lock, a pid file, its own \
                 port): `rollout: { order: stop-first }`",
            );
        }
        hints
    }

    /// What was wrong with a new instance, with the last that it has written.
    pub(in crate::shell) fn why_rolled_back(&self, instance: InstanceId) -> String {
        let name = event_text::with_generation(&self.definitions, instance);
        let why = self
            .rollback_reasons
            .of(instance)
            .unwrap_or("it exited too soon");
        format!(
            "{name} failed; the old generation keeps serving: {why}{}",
            self.after_rollback(instance)
        )
    }
}

/// Whether a process has found by itself that it cannot run, as one does that finds a lock taken.
fn ended_at_once(event: &ProcessEvent) -> bool {
    match event {
        ProcessEvent::Exited {
            status: ExitStatus::Code(1..),
            cause: None,
            uptime,
            ..
        } => *uptime < AT_ONCE,
        _ => false,
    }
}
