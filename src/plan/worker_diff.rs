//! The differences of a worker, sorted by what it takes to apply them.

use super::line::{Line, Verb};
use super::model::ReloadBy;
use super::model::{Activation, HookTimes, Lifecycle, WorkerPlan};
use super::values::{self, changed, changed_text, duration, or};
use crate::config::{
    ConnectionLimits, Hook, Hooks, Ready, Restart, Rollout, Scaling, Template, signal_name,
};
use crate::handoff::Handoff;
use crate::launch_spec::LaunchSpec;
use crate::sandbox::Sandbox;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// The differences of a worker that both plans have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerDiff {
    /// Differences that a running instance cannot take over, so that a new generation is needed; in the
    /// words of the configuration.
    pub program: Vec<String>,
    /// The number of instances before and after.
    pub instances: Option<(u32, u32)>,
    /// Differences that only listend goes by, and which apply at once.
    pub lifecycle: Vec<String>,
}

impl WorkerDiff {
    /// `listeners` says that it takes others, and `sockets` are those of them that have other sockets
    /// than before.
    pub(super) fn between(
        before: &WorkerPlan,
        after: &WorkerPlan,
        listeners: Option<String>,
        sockets: &[&str],
    ) -> WorkerDiff {
        let mut diff = WorkerDiff::default();
        diff.program.extend(listeners);
        diff.compare_program(before, after);
        let sockets = sockets.iter().map(|name| format!("sockets of `{name}`"));
        diff.program.extend(sockets);
        diff.compare_lifecycle(&before.lifecycle, &after.lifecycle);
        diff.compare_hooks(&before.hooks, &after.hooks);
        let signal = |life: &Lifecycle| match life.reload {
            Some(ReloadBy::Signal(number)) => Some(number),
            Some(ReloadBy::Command(_)) | None => None,
        };
        let (old, new) = (signal(&before.lifecycle), signal(&after.lifecycle));
        let name = or("none", |number: &i32| signal_name(*number));
        let other = changed("reload_signal", &old, &new, name);
        diff.lifecycle.extend(other);
        let (old, new) = (&before.reload_command, &after.reload_command);
        let other = hook_diff("reload_command", old.as_ref(), new.as_ref());
        diff.lifecycle.extend(other.into_iter().flatten());
        diff
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.program.is_empty() && self.instances.is_none() && self.lifecycle.is_empty()
    }

    /// Whether the difference needs a rollout of a new generation.
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
            lines.push(Line::new(title, &list, apply, "without a rollout"));
        }
        lines
    }

    fn compare_program(&mut self, before: &WorkerPlan, after: &WorkerPlan) {
        // Taken apart, so that nobody forgets to compare what is added.
        let WorkerPlan {
            name: _,
            place: _,
            preset: _,
            command,
            argv0,
            // Their names are in the plan.
            listeners: _,
            handoff,
            listen_pid,
            environment,
            launch,
            sandbox,
            // That follows from its command.
            forwards: _,
            runtime_directory,
            output,
            notify_access,
            fd_store,
            idle_unless,
            hooks: _,
            reload_command: _,
            lifecycle: _,
        } = after;
        let first = [
            changed_text("command", &before.command, command, |words| {
                values::command(words)
            }),
            changed_text(
                "argv0",
                &before.argv0,
                argv0,
                or("the command", Template::to_string),
            ),
            changed("handoff", &before.handoff, handoff, Handoff::to_string),
            changed(
                "listen_pid",
                &before.listen_pid,
                listen_pid,
                bool::to_string,
            ),
        ];
        self.program.extend(first.into_iter().flatten());
        self.program
            .extend(environment_diff(&before.environment, environment));
        self.program.extend(launch_diff(&before.launch, launch));
        let other = changed_text(
            "sandbox",
            &before.sandbox.as_deref(),
            &sandbox.as_deref(),
            or("none", |sandbox: &&Sandbox| sandbox.to_string()),
        );
        self.program.extend(other);
        let other = changed(
            "runtime_directory",
            &before.runtime_directory,
            runtime_directory,
            or("none", values::runtime_directory),
        );
        self.program.extend(other);
        let other = changed_text("output", &before.output, output, values::output);
        self.program.extend(other);
        let other = changed(
            "notify_access",
            &before.notify_access,
            notify_access,
            or("none", values::word),
        );
        self.program.extend(other);
        let other = changed("fd_store", &before.fd_store, fd_store, u32::to_string);
        self.program.extend(other);
        // It is looked at beside the program.
        let path = |path: &PathBuf| path.display().to_string();
        let path = or("none", path);
        let other = changed("idle_unless", &before.idle_unless, idle_unless, path);
        self.lifecycle.extend(other);
    }

    /// Compares hooks: the commands belong to the program, their timeouts to the lifecycle.
    fn compare_hooks(&mut self, before: &Hooks, after: &Hooks) {
        let Hooks {
            before_start,
            after_ready,
            after_stop,
        } = after;
        for (key, before, after) in [
            ("before_start", &before.before_start, before_start),
            ("after_ready", &before.after_ready, after_ready),
            ("after_stop", &before.after_stop, after_stop),
        ] {
            let [command, timeout] = hook_diff(key, before.as_ref(), after.as_ref());
            self.program.extend(command);
            self.lifecycle.extend(timeout);
        }
    }

    fn compare_lifecycle(&mut self, before: &Lifecycle, after: &Lifecycle) {
        let Lifecycle {
            activation,
            instances,
            distribute,
            scaling,
            idle_timeout,
            restart,
            stop_signal,
            kill_mode,
            nonblocking,
            stop_timeout,
            ready,
            start_timeout,
            watchdog,
            rollout,
            // With its command.
            reload: _,
            on_failure,
            // Which there are, the commands tell.
            hooks:
                HookTimes {
                    before_start: _,
                    after_ready: _,
                    after_stop: _,
                },
            keeps_flows,
            // As the name has it, by which both were found.
            ends_with_listend: _,
        } = after;
        if before.instances != *instances {
            self.instances = Some((before.instances, *instances));
        }
        let (old, new) = (&before.distribute, distribute);
        let other = changed("distribute", old, new, values::word);
        self.program.extend(other);
        let follows = |scaling: &Scaling| {
            let Scaling { max, scale_up_at } = scaling;
            format!("{{max: {max}, scale_up_at: {scale_up_at}}}")
        };
        let follows = or("fixed", follows);
        let other = changed("instances", &before.scaling, scaling, follows);
        self.lifecycle.extend(other);
        let other = changed(
            "nonblocking",
            &before.nonblocking,
            nonblocking,
            bool::to_string,
        );
        self.program.extend(other);
        let other = changed("ready", &before.ready, ready, Ready::to_string);
        self.program.extend(other);
        match (&before.activation, activation) {
            (Activation::OnDemand { limit: old }, Activation::OnDemand { limit }) => {
                let other = changed("trigger_limit", old, limit, or("none", values::rate));
                self.lifecycle.extend(other);
            }
            (Activation::PerConnection(old), Activation::PerConnection(limits)) => {
                self.lifecycle.extend(connections_diff(old, limits));
            }
            (old, new) => {
                let (old, new) = (kind(old), kind(new));
                let other = changed("activation", &old, &new, |kind| (*kind).to_owned());
                self.program.extend(other);
            }
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
            changed("kill_mode", &before.kill_mode, kill_mode, values::word),
            changed("stop_timeout", &before.stop_timeout, stop_timeout, &time),
            changed("start_timeout", &before.start_timeout, start_timeout, &time),
            changed("idle_timeout", &before.idle_timeout, idle_timeout, &time),
        ];
        self.lifecycle.extend(short.into_iter().flatten());
        self.lifecycle
            .extend(rollout_diff(&before.rollout, rollout));
        let word = |keeps: &bool| if *keeps { "sticky" } else { "shared" }.to_owned();
        let other = changed("flows", &before.keeps_flows, keeps_flows, word);
        self.lifecycle.extend(other);
        let other = changed("on_failure", &before.on_failure, on_failure, values::word);
        self.lifecycle.extend(other);
    }
}

fn launch_diff(
    before: &LaunchSpec<Template>,
    after: &LaunchSpec<Template>,
) -> impl Iterator<Item = String> {
    let LaunchSpec {
        credentials,
        limits,
        umask,
        nice,
        oom_score_adjust,
        ignore_sigpipe,
        working_directory,
    } = after;
    let octal = |mask: &u32| format!("{mask:04o}");
    let number = or("the default", i32::to_string);
    let folder = or("listend's own", Template::to_string);
    let parts = [
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
        changed_text(
            "working_directory",
            &before.working_directory,
            working_directory,
            folder,
        ),
    ];
    values::credentials(before.credentials.as_ref(), credentials.as_ref())
        .chain(values::limits(&before.limits, limits))
        .chain(parts.into_iter().flatten())
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
    let ends = |ends: &Vec<_>| values::success(ends);
    let parts = [
        changed("restart.policy", &before.policy, policy, values::word),
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
        changed(
            "restart.success_exit_status",
            &before.success,
            success,
            ends,
        ),
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
        changed("rollout.order", &before.order, order, values::word),
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

fn kind(activation: &Activation) -> &'static str {
    match activation {
        Activation::Eager => "eager",
        Activation::OnDemand { .. } => "on-demand",
        Activation::PerConnection(_) => "per-connection",
    }
}

fn connections_diff(
    before: &ConnectionLimits,
    after: &ConnectionLimits,
) -> impl Iterator<Item = String> {
    let ConnectionLimits {
        max,
        max_per_source,
        overflow,
        rate,
        timeout,
    } = after;
    let number = or("none", u32::to_string);
    let parts = [
        changed("max_connections", &before.max, max, &number),
        changed(
            "max_connections_per_source",
            &before.max_per_source,
            max_per_source,
            &number,
        ),
        changed("overflow", &before.overflow, overflow, values::word),
        changed("accept_rate", &before.rate, rate, or("none", values::rate)),
        changed(
            "connection_timeout",
            &before.timeout,
            timeout,
            or("infinity", duration),
        ),
    ];
    parts.into_iter().flatten()
}

/// The difference of a command, and of its timeout.
fn hook_diff(key: &str, before: Option<&Hook>, after: Option<&Hook>) -> [Option<String>; 2] {
    let command = |hook: Option<&'_ Hook>| hook.map(|hook| hook.command.clone());
    let timeout = match (before, after) {
        (Some(before), Some(after)) => {
            let key = format!("{key}.timeout");
            changed(&key, &before.timeout, &after.timeout, duration)
        }
        (Some(_), None) | (None, _) => None,
    };
    [
        changed_text(
            key,
            &command(before),
            &command(after),
            or("none", |words: &Vec<Template>| values::command(words)),
        ),
        timeout,
    ]
}

/// So many variables are named one by one.
const NAMED: usize = 3;

/// The names of the variables that differ. Their values may be secrets.
fn environment_diff(before: &[(String, Template)], after: &[(String, Template)]) -> Option<String> {
    if before == after {
        return None;
    }
    let map = |list: &'_ [(String, Template)]| -> BTreeMap<String, Template> {
        list.iter().cloned().collect()
    };
    let (before, after) = (map(before), map(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut differ = names.into_iter().filter_map(|name| {
        let what = match (before.get(name), after.get(name)) {
            (None, _) => "added",
            (Some(_), None) => "removed",
            (Some(old), Some(new)) if old != new => "changed",
            (Some(_), Some(_)) => return None,
        };
        Some(format!("{name} {what}"))
    });
    let named: Vec<String> = differ.by_ref().take(NAMED).collect();
    let more = match differ.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    // Only their order: no program can tell.
    (!named.is_empty()).then(|| format!("environment {}{more}", named.join(" ")))
}
