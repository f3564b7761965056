//! Reads the keys about hooks, reload, restart, rollout and stop of a worker.

use super::command;
use super::decode::{Fields, Words, choice, default, text, texts, words, wrong_type};
use super::draft::{DraftWorker, Field};
use super::keys;
use super::life::{
    Hook, KillMode, OnFailure, Order, Reload, Resolve, Restart, RestartPolicy, Rollout, Success,
    cool_down_for, limit_for,
};
use super::scalar;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use super::yaml::{Content, Node};
use crate::report::{Kind, Place};
use nix::libc;
use std::time::Duration;

const ORDERS: &Words<Order> = words! {
    "start-first" = Order::StartFirst, "blue-green", "rolling", "start", "start_first";
    "stop-first" = Order::StopFirst, "recreate", "stop", "stop_first";
};

const FAILURES: &Words<OnFailure> = words! {
    "hold" = OnFailure::Hold, "keep", "queue", "wait";
    "refuse" = OnFailure::Refuse, "close", "reject", "unlisten";
};

const RESOLVES: &Words<Resolve> = words! {
    "at-start" = Resolve::AtStart, "start", "at_start";
    "at-reload" = Resolve::AtReload, "reload", "at_reload", "at-rollout";
};

/// The kill modes, with the words of systemd. `mixed` sends the signal to the main process alone, too.
const KILL_MODES: &Words<KillMode> = words! {
    "process" = KillMode::Process, "mixed", "main";
    "group" = KillMode::Group, "control-group", "control_group", "cgroup", "all";
};

const POLICIES: &Words<RestartPolicy> = words! {
    "always" = RestartPolicy::Always, "yes", "true", "unless-stopped";
    "on-failure" = RestartPolicy::OnFailure;
    "never" = RestartPolicy::Never, "no", "none", "false";
};

/// Reads the commands around an instance, `reload_signal`, `reload_command`, `restart`, `rollout`,
/// `on_failure`, `stop_signal`, `kill_mode` and `stop_timeout`.
pub(super) fn decode(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    draft.worker.hooks.before_start = hook(fields, "before_start", draft, out);
    draft.worker.hooks.after_ready = hook(fields, "after_ready", draft, out);
    draft.worker.hooks.after_stop = hook(fields, "after_stop", draft, out);
    let signal = reload(fields, draft, out);
    if let Some(node) = fields.take("restart") {
        restart(node, &mut draft.worker.restart, out);
    }
    let DraftWorker {
        worker,
        of_instances: found,
        ..
    } = draft;
    if let Some(node) = fields.take("rollout") {
        found.push(("rollout", node.place));
        rollout(node, &mut worker.rollout, out);
    }
    found.extend(fields.set("on_failure", &mut worker.on_failure, out, on_failure));
    let stop = fields.read("stop_signal", out, |_, text| scalar::signal(text));
    if let Field::Set(stop) = &stop {
        worker.stop_signal = stop.value;
    }
    if let Some(signal) = signal.filter(|_| !stop.is_broken()) {
        differs_from_stop(&signal, worker.stop_signal, stop.as_set(), out);
    }
    fields.set("kill_mode", &mut worker.kill_mode, out, kill_mode);
    fields.set(
        "stop_timeout",
        &mut worker.stop_timeout,
        out,
        scalar::duration_or_infinity,
    );
}

pub(super) fn on_failure(key: &str, text: &str) -> Result<OnFailure, ValueError> {
    choice(key, text, FAILURES)
}

pub(super) fn resolve(key: &str, text: &str) -> Result<Resolve, ValueError> {
    choice(key, text, RESOLVES)
}

pub(super) fn kill_mode(key: &str, text: &str) -> Result<KillMode, ValueError> {
    choice(key, text, KILL_MODES)
}

fn order(key: &str, text: &str) -> Result<Order, ValueError> {
    choice(key, text, ORDERS)
}

fn policy(key: &str, text: &str) -> Result<RestartPolicy, ValueError> {
    choice(key, text, POLICIES)
}

fn parallel(key: &str, text: &str) -> Result<u32, ValueError> {
    scalar::integer(key, text, 1, 10_000)
}

impl Default for Rollout {
    fn default() -> Self {
        let time = |key| default(keys::ROLLOUT, key, scalar::duration);
        Rollout {
            order: default(keys::ROLLOUT, "order", order),
            parallel: default(keys::ROLLOUT, "parallel", parallel),
            min_ready: time("min_ready"),
            watch: time("watch"),
        }
    }
}

impl Default for Restart {
    fn default() -> Self {
        let (backoff_min, backoff_max) = default(keys::RESTART, "backoff", scalar::backoff);
        Restart {
            policy: default(keys::RESTART, "policy", policy),
            backoff_min,
            backoff_max,
            limit: Some(limit_for(backoff_min, backoff_max)),
            cool_down: Some(cool_down_for(backoff_max)),
            success: Vec::new(),
        }
    }
}

fn hook(
    fields: &mut Fields,
    key: &'static str,
    draft: &mut DraftWorker,
    out: &mut Diagnostics,
) -> Option<Hook> {
    let node = fields.take(key)?;
    draft.of_instances.push((key, node.place));
    let dollar = command::dollar(draft.worker.expand_environment);
    command::hook(node, key, dollar, &mut draft.mentions, out)
}

/// Reads `reload_signal` and `reload_command`; the signal, for what else is to be said about it.
fn reload(
    fields: &mut Fields,
    draft: &mut DraftWorker,
    out: &mut Diagnostics,
) -> Option<Located<i32>> {
    let node = fields.take("reload_signal");
    let signal = node.and_then(|node| {
        draft.of_instances.push(("reload_signal", node.place));
        let text = text(node, "reload_signal", out)?;
        let value = out.check(node.place, reload_signal(text))?;
        let place = node.place;
        Some(Located { value, place })
    });
    let other = fields.take("reload_command");
    let command = other.and_then(|node| {
        let key = "reload_command";
        draft.of_instances.push((key, node.place));
        let dollar = command::dollar(draft.worker.expand_environment);
        command::hook(node, key, dollar, &mut draft.mentions, out)
    });
    if let (Some(signal), Some(command)) = (node, other) {
        let value_error = ValueError::bad(
            "`reload_signal` and `reload_command` both say how the worker is reloaded",
        );
        let problem = value_error.hint("delete one of them").at(command.place);
        out.add(problem.with_related(signal.place, "the other"));
    }
    draft.worker.reload = match (&signal, command) {
        (Some(signal), _) => Some(Reload::Signal(signal.value)),
        (None, Some(command)) => Some(Reload::Command(command)),
        (None, None) => None,
    };
    signal
}

fn reload_signal(text: &str) -> Result<i32, ValueError> {
    match scalar::signal(text)? {
        // signal(7): these cannot be caught.
        libc::SIGKILL | libc::SIGSTOP => Err(ValueError::bad(format!(
            "`reload_signal`: no program can handle `{text}`"
        ))
        .hint("write the signal that it reads its configuration on, like `SIGHUP`")),
        signal => Ok(signal),
    }
}

/// Refuses a reload signal that is the stop signal, too.
fn differs_from_stop(
    reload: &Located<i32>,
    stop_signal: i32,
    stop: Option<&Located<i32>>,
    out: &mut Diagnostics,
) {
    if reload.value != stop_signal {
        return;
    }
    let value_error = ValueError::bad(match stop {
        Some(_) => "`reload_signal` is the worker's `stop_signal`, too",
        None => "`reload_signal` is what stops the worker: the default of `stop_signal`",
    });
    let problem = value_error
        .hint("write two that differ, like `SIGHUP` to reload and `SIGTERM` to stop")
        .at(reload.place);
    out.add(match stop {
        Some(stop) => problem.with_related(stop.place, "the other"),
        None => problem,
    });
}

fn rollout(node: &Node, rollout: &mut Rollout, out: &mut Diagnostics) {
    if let Content::Scalar(scalar) = &node.content {
        let value_error = wrong_type("`rollout`", "a mapping", node);
        let is_order = ORDERS.iter().any(|(word, ..)| *word == scalar.text);
        let value_error = match is_order {
            true => value_error.hint(format!("write `{{order: {}}}`", scalar.text)),
            false => value_error.hint("write it like `{order: stop-first, parallel: 2}`"),
        };
        return out.add(value_error.at(node.place));
    }
    let Some(mut fields) = Fields::open(node, keys::ROLLOUT, "`rollout`", &[], out) else {
        return;
    };
    fields.set("order", &mut rollout.order, out, order);
    fields.set("parallel", &mut rollout.parallel, out, parallel);
    fields.set("min_ready", &mut rollout.min_ready, out, scalar::duration);
    fields.set("watch", &mut rollout.watch, out, scalar::duration);
    fields.finish();
}

fn restart(node: &Node, restart: &mut Restart, out: &mut Diagnostics) {
    match &node.content {
        Content::Scalar(_) => {
            if let Some(text) = text(node, "restart", out)
                && let Some(policy) = out.check(node.place, policy("restart", text))
            {
                restart.policy = policy;
            }
        }
        Content::Map(_) => {
            let Some(mut fields) = Fields::open(node, keys::RESTART, "`restart`", &[], out) else {
                return;
            };
            fields.set("policy", &mut restart.policy, out, policy);
            if let Field::Set(backoff) = fields.read("backoff", out, scalar::backoff) {
                (restart.backoff_min, restart.backoff_max) = backoff.value;
            }
            let (min, max) = (restart.backoff_min, restart.backoff_max);
            let limit = fields.read("limit", out, scalar::rate);
            restart.limit = limit.value_or(Some(limit_for(min, max)));
            let cool_down = fields.read("cool_down", out, cool_down);
            restart.cool_down = cool_down.value_or(Some(cool_down_for(max)));
            if let Some(node) = fields.take("success_exit_status") {
                restart.success = successes(node, out);
            }
            fields.finish();
        }
        _ => out.add(wrong_type("`restart`", "a policy or a mapping", node).at(node.place)),
    }
}

fn cool_down(key: &str, text: &str) -> Result<Option<Duration>, ValueError> {
    match text {
        "never" => return Ok(None),
        "infinity" | "inf" | "none" | "off" | "false" | "no" | "unlimited" | "forever" => {
            let value_error = ValueError::bad(format!("`{key}`: `{text}` is not a duration"));
            return Err(value_error.hint("write `never`"));
        }
        _ => {}
    }
    match scalar::duration(key, text)? {
        Duration::ZERO => Err(ValueError::bad(
            "a `cool_down` of 0 would act as if there were no `limit`",
        )
        .hint("write `limit: none` for no limit, or a duration, like `10m`")),
        time => Ok(Some(time)),
    }
}

/// `success_exit_status:`, each end once.
fn successes(node: &Node, out: &mut Diagnostics) -> Vec<Success> {
    let mut ends: Vec<(Success, Place)> = Vec::new();
    for Located { value, place } in texts(node, "success_exit_status", out) {
        let Some(end) = out.check(place, success(&value)) else {
            continue;
        };
        if let Some((_, first)) = ends.iter().find(|(other, _)| *other == end) {
            let message = format!("`{value}` occurs twice in `success_exit_status`");
            let problem = ValueError::bad(message)
                .hint("delete one of them")
                .at(place);
            out.add(problem.with_related(*first, "first written here"));
            continue;
        }
        ends.push((end, place));
    }
    ends.into_iter().map(|(end, _)| end).collect()
}

/// A number is an exit status, whereas elsewhere it may be that of a signal.
fn success(text: &str) -> Result<Success, ValueError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if scalar::is_digits(digits) {
        return scalar::integer("success_exit_status", text, 0, 255).map(Success::Code);
    }
    match scalar::signal(text) {
        Ok(signal) => Ok(Success::Signal(signal)),
        Err(value_error) => Err(ValueError::new(
            Kind::UnknownSignal,
            format!(
                "`success_exit_status`: `{text}` is neither a signal nor a number from 0 to \
                     255"
            ),
        )
        .hint(
            value_error
                .hint
                .filter(|hint| hint.starts_with("did you mean"))
                .unwrap_or_else(|| {
                    "write the number of an exit status, or a signal, like `SIGTERM`".to_owned()
                }),
        )),
    }
}
