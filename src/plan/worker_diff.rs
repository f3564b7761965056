//! What is different about a worker, sorted by what it takes to apply it.

use super::line::{Line, Verb};
use super::model::{Activation, HookTimes, Lifecycle, WorkerPlan};
use super::values::{self, changed, duration, or};
use crate::config::{Hooks, Restart, Rollout, Template, signal_name};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is different about a worker that stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerDiff {
    /// What a running instance cannot be given: it takes another generation. In the words of the
    /// configuration.
    pub program: Vec<String>,
    /// How many instances there were, and how many there are to be.
    pub instances: Option<(u32, u32)>,
    /// What only listend goes by: it counts from now on.
    pub lifecycle: Vec<String>,
}

impl WorkerDiff {
    /// `sockets` are those of its listeners that have other sockets than before.
    pub(super) fn between(before: &WorkerPlan, after: &WorkerPlan, sockets: &[&str]) -> WorkerDiff {
        let mut diff = WorkerDiff::default();
        diff.compare_program(before, after);
        let sockets = sockets.iter().map(|name| format!("sockets of `{name}`"));
        diff.program.extend(sockets);
        diff.compare_lifecycle(&before.lifecycle, &after.lifecycle);
        if hook_times_only(&before.hooks, &after.hooks) {
            diff.lifecycle.push("hook timeouts".to_owned());
        }
        if before.reload_command != after.reload_command
            && before.lifecycle.reload == after.lifecycle.reload
        {
            diff.lifecycle.push("reload".to_owned());
        }
        diff
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty() && self.instances.is_none() && self.lifecycle.is_empty()
    }

    /// Whether it takes another generation.
    pub fn rolls(&self) -> bool {
        !self.program.is_empty()
    }

    /// A line for each kind of difference.
    pub(super) fn lines(&self, title: &str, after: &WorkerPlan) -> Vec<Line> {
        let mut lines = Vec::new();
        let list = self.program.join(", ");
        match after.lifecycle.activation {
            _ if list.is_empty() => {}
            Activation::Eager | Activation::OnDemand { .. } => {
                lines.push(Line::new(title, "", Verb::ROLLS, format!("({list})")));
            }
            Activation::PerConnection(_) => {
                let rest = format!("for new connections ({list})");
                lines.push(Line::new(title, "", Verb::CHANGES, rest));
            }
        }
        if let Some((before, after)) = self.instances {
            let words = format!("instances {before} → {after}");
            lines.push(Line::plain(title, &words));
        }
        if !self.lifecycle.is_empty() {
            let list = self.lifecycle.join(", ");
            let apply = match self.lifecycle.len() {
                1 => Verb::APPLIES,
                _ => Verb::APPLY,
            };
            lines.push(Line::new(title, &list, apply, "without a roll"));
        }
        lines
    }

    fn compare_program(&mut self, before: &WorkerPlan, after: &WorkerPlan) {
        // Taken apart, so that nobody forgets to compare what is added.
        let WorkerPlan {
            name: _,
            place: _,
            command,
            argv0,
            listeners,
            handoff,
            environment,
            working_directory,
            runtime_directory,
            credentials,
            umask,
            limits,
            nice,
            oom_score_adjust,
            ignore_sigpipe,
            output,
            notify_access,
            fd_store,
            hooks,
            reload_command: _,
            lifecycle: _,
        } = after;
        for (is_other, what) in [
            (before.command != *command, "command"),
            (before.argv0 != *argv0, "argv0"),
            (before.listeners != *listeners, "listeners"),
            (before.handoff != *handoff, "handoff"),
        ] {
            self.note_program(is_other, what);
        }
        self.program
            .extend(environment_diff(&before.environment, environment));
        let other_hooks = before.hooks != *hooks && !hook_times_only(&before.hooks, hooks);
        for (is_other, what) in [
            (
                before.working_directory != *working_directory,
                "working_directory",
            ),
            (
                before.runtime_directory != *runtime_directory,
                "runtime_directory",
            ),
            (before.credentials != *credentials, "user or groups"),
            (before.limits != *limits, "limits"),
            (before.output != *output, "output"),
            (before.notify_access != *notify_access, "notify_access"),
            (other_hooks, "hooks"),
        ] {
            self.note_program(is_other, what);
        }
        let octal = |mask: &u32| format!("{mask:04o}");
        let number = or("the default", i32::to_string);
        let short = [
            changed("umask", &before.umask, umask, or("the default", octal)),
            changed("nice", &before.nice, nice, &number),
            changed(
                "oom_score_adjust",
                &before.oom_score_adjust,
                oom_score_adjust,
                &number,
            ),
            changed(
                "ignore_sigpipe",
                &before.ignore_sigpipe,
                ignore_sigpipe,
                bool::to_string,
            ),
            changed("fd_store", &before.fd_store, fd_store, u32::to_string),
        ];
        self.program.extend(short.into_iter().flatten());
    }

    fn note_program(&mut self, is_other: bool, what: &str) {
        if is_other {
            self.program.push(what.to_owned());
        }
    }

    fn compare_lifecycle(&mut self, before: &Lifecycle, after: &Lifecycle) {
        let Lifecycle {
            activation,
            instances,
            restart,
            stop_signal,
            kill_mode,
            nonblocking,
            stop_timeout,
            ready,
            start_timeout,
            watchdog,
            rollout,
            reload,
            on_failure,
            // Which there are, the commands tell.
            hooks:
                HookTimes {
                    before_start: _,
                    after_ready: _,
                    after_stop: _,
                },
        } = after;
        if before.instances != *instances {
            self.instances = Some((before.instances, *instances));
        }
        let other = changed(
            "nonblocking",
            &before.nonblocking,
            nonblocking,
            bool::to_string,
        );
        self.program.extend(other);
        self.note_program(before.ready != *ready, "ready");
        match activation_diff(&before.activation, activation) {
            Some(what) if what == "activation" => self.program.push(what),
            Some(what) => self.lifecycle.push(what),
            None => {}
        }
        // An instance is told at its start how often it has to give a sign of life.
        let other = changed("watchdog", &before.watchdog, watchdog, or("none", duration));
        match is_stricter(before.watchdog, *watchdog) {
            true => self.program.extend(other),
            false => self.lifecycle.extend(other),
        }
        self.lifecycle
            .extend(restart_diff(&before.restart, restart));
        let time = or("infinity", duration);
        let signal = |number: &i32| signal_name(*number);
        let short = [
            changed("stop_signal", &before.stop_signal, stop_signal, signal),
            changed("kill_mode", &before.kill_mode, kill_mode, values::kill_mode),
            changed("stop_timeout", &before.stop_timeout, stop_timeout, &time),
            changed("start_timeout", &before.start_timeout, start_timeout, &time),
        ];
        self.lifecycle.extend(short.into_iter().flatten());
        self.lifecycle
            .extend(rollout_diff(&before.rollout, rollout));
        let other = (before.reload != *reload).then(|| "reload".to_owned());
        self.lifecycle.extend(other);
        let other = changed(
            "on_failure",
            &before.on_failure,
            on_failure,
            values::on_failure,
        );
        self.lifecycle.extend(other);
    }
}

fn restart_diff(before: &Restart, after: &Restart) -> impl Iterator<Item = String> {
    let Restart {
        policy,
        backoff_min,
        backoff_max,
        limit,
        cool_down,
        success,
    } = after;
    let backoff =
        |(min, max): &(Duration, Duration)| format!("{}..{}", duration(min), duration(max));
    let other_success = before.success != *success;
    let parts = [
        changed("restart.policy", &before.policy, policy, values::policy),
        changed(
            "restart.backoff",
            &(before.backoff_min, before.backoff_max),
            &(*backoff_min, *backoff_max),
            backoff,
        ),
        changed(
            "restart.limit",
            &before.limit,
            limit,
            or("none", values::rate),
        ),
        changed(
            "restart.cool_down",
            &before.cool_down,
            cool_down,
            or("never", duration),
        ),
        other_success.then(|| "restart.success_exit_status".to_owned()),
    ];
    parts.into_iter().flatten()
}

fn rollout_diff(before: &Rollout, after: &Rollout) -> impl Iterator<Item = String> {
    let Rollout {
        order,
        parallel,
        min_ready,
        watch,
    } = after;
    let parts = [
        changed("rollout.order", &before.order, order, values::order),
        changed(
            "rollout.parallel",
            &before.parallel,
            parallel,
            u32::to_string,
        ),
        changed("rollout.min_ready", &before.min_ready, min_ready, duration),
        changed("rollout.watch", &before.watch, watch, duration),
    ];
    parts.into_iter().flatten()
}

/// Whether an instance that keeps to the old time may break the new one.
fn is_stricter(before: Option<Duration>, after: Option<Duration>) -> bool {
    match (before, after) {
        (None, Some(_)) => true,
        (Some(before), Some(after)) => after < before,
        (_, None) => false,
    }
}

/// `activation` where it is of another kind; otherwise what its limits are called.
fn activation_diff(before: &Activation, after: &Activation) -> Option<String> {
    match (before, after) {
        (Activation::Eager, Activation::Eager) => None,
        (Activation::OnDemand { limit: one }, Activation::OnDemand { limit: other }) => {
            changed("trigger_limit", one, other, or("none", values::rate))
        }
        (Activation::PerConnection(one), Activation::PerConnection(other)) => {
            (one != other).then(|| "limits of connections".to_owned())
        }
        (
            Activation::Eager | Activation::OnDemand { .. } | Activation::PerConnection(_),
            Activation::Eager | Activation::OnDemand { .. } | Activation::PerConnection(_),
        ) => Some("activation".to_owned()),
    }
}

/// Whether the commands are the same, and how long they may take is not.
fn hook_times_only(before: &Hooks, after: &Hooks) -> bool {
    fn commands(hooks: &Hooks) -> [Option<&[Template]>; 3] {
        [&hooks.before_start, &hooks.after_ready, &hooks.after_stop]
            .map(|hook| hook.as_ref().map(|hook| hook.command.as_slice()))
    }
    before != after && commands(before) == commands(after)
}

/// The names of the variables that differ. Their values may be secrets.
fn environment_diff(before: &[(String, Template)], after: &[(String, Template)]) -> Option<String> {
    if before == after {
        return None;
    }
    let map = |list: &'_ [(String, Template)]| -> BTreeMap<String, Template> {
        list.iter().cloned().collect()
    };
    let (before, after) = (map(before), map(after));
    let names = before.keys().chain(after.keys());
    let mut names: Vec<&str> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names.dedup();
    // Only their order: no program can tell.
    let first = names.first()?;
    Some(match names.len() {
        1..=3 => format!("environment {}", names.join(" ")),
        more => format!("environment {first} and {} more", more - 1),
    })
}
