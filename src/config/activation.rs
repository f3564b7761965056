//! When a worker runs, how it is given its sockets, and the limits that belong to that.

use super::decode::{Fields, Words, choice, default, unknown};
use super::draft::{DraftWorker, Field};
use super::fitting::listed;
use super::keys;
use super::model::{Activation, ConnectionLimits, Overflow};
use super::scalar;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use crate::handoff::{self, Dialect};
use crate::report::{Kind, Place};
use std::time::Duration;

/// More processes than this no machine has room for.
const MOST_CONNECTIONS: i64 = 1_000_000;

const ACTIVATIONS: &Words<Activation> = &[
    ("eager", Activation::Eager),
    ("on-demand", Activation::OnDemand),
    ("per-connection", Activation::PerConnection),
];

/// What other programs call it.
const LIKE_ACTIVATIONS: &Words<&str> = &[
    ("always", "eager"),
    ("boot", "eager"),
    ("immediate", "eager"),
    ("start", "eager"),
    ("false", "eager"),
    ("demand", "on-demand"),
    ("lazy", "on-demand"),
    ("on_demand", "on-demand"),
    ("ondemand", "on-demand"),
    ("socket", "on-demand"),
    ("true", "on-demand"),
    ("wait", "on-demand"),
    ("accept", "per-connection"),
    ("connection", "per-connection"),
    ("inetd", "per-connection"),
    ("nowait", "per-connection"),
    ("per_connection", "per-connection"),
    ("perconnection", "per-connection"),
];

/// Handoffs of later versions.
const LATER_HANDOFFS: &[&str] = &["nginx", "fastcgi"];

const OVERFLOWS: &Words<Overflow> = &[("wait", Overflow::Wait), ("close", Overflow::Close)];

const LIKE_OVERFLOWS: &Words<&str> = &[
    ("block", "wait"),
    ("hold", "wait"),
    ("queue", "wait"),
    ("deny", "close"),
    ("drop", "close"),
    ("refuse", "close"),
    ("reject", "close"),
    ("reset", "close"),
];

/// Reads `handoff`, `activation`, `instances` and every limit of clients and connections.
pub(super) fn decode(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    let worker = &mut draft.worker;
    let instances = fields.read("instances", out, |text| {
        scalar::integer("instances", text, 1, 10_000)
    });
    if let Field::Set(instances) = &instances {
        worker.instances = u32::try_from(instances.value).unwrap_or(1); // The bounds are u32.
    }
    draft.handoff = fields.read("handoff", out, handoff);
    if let Field::Set(value) = &draft.handoff {
        worker.handoff = value.clone();
    }
    draft.activation = fields.read("activation", out, activation);
    if let Field::Set(value) = &draft.activation {
        worker.activation = value.clone();
    }
    limits(fields, draft, out);
    if !draft.activation.is_broken() {
        fits(draft, instances.as_set(), out);
    }
}

pub(super) fn activation(text: &str) -> Result<Activation, ValueError> {
    choice("activation", text, ACTIVATIONS, LIKE_ACTIVATIONS)
}

fn overflow(text: &str) -> Result<Overflow, ValueError> {
    choice("overflow", text, OVERFLOWS, LIKE_OVERFLOWS)
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        let most = |key| default(keys::WORKER, key, |text| most(key, text));
        ConnectionLimits {
            max: most("max_connections"),
            max_per_source: most("max_connections_per_source"),
            overflow: default(keys::WORKER, "overflow", overflow),
            rate: default(keys::WORKER, "accept_rate", |text| scalar::rate("", text)),
            timeout: default(keys::WORKER, "connection_timeout", timeout),
        }
    }
}

fn limits(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    let limits = &mut draft.worker.connections;
    let found = &mut draft.of_connections;
    if let Some(most) = number(fields, "max_connections", found, out) {
        limits.max = most;
    }
    if let Some(most) = number(fields, "max_connections_per_source", found, out) {
        limits.max_per_source = most;
    }
    if let Field::Set(overflow) = fields.read("overflow", out, overflow) {
        found.push(("overflow", overflow.place));
        limits.overflow = overflow.value;
    }
    let rate = fields.read("accept_rate", out, |text| scalar::rate("accept_rate", text));
    if let Field::Set(rate) = rate {
        found.push(("accept_rate", rate.place));
        limits.rate = rate.value;
    }
    draft.trigger_limit = fields.read("trigger_limit", out, |text| {
        scalar::rate("trigger_limit", text)
    });
    if let Field::Set(limit) = &draft.trigger_limit {
        draft.worker.trigger_limit = limit.value;
    }
    if let Field::Set(timeout) = fields.read("connection_timeout", out, timeout) {
        found.push(("connection_timeout", timeout.place));
        limits.timeout = timeout.value;
    }
}

/// A number of connections, or `none` as `Some(None)`.
fn number(
    fields: &mut Fields,
    key: &'static str,
    found: &mut Vec<(&'static str, Place)>,
    out: &mut Diagnostics,
) -> Option<Option<u32>> {
    let number = fields.read(key, out, |text| most(key, text)).into_set()?;
    found.push((key, number.place));
    Some(number.value)
}

fn most(key: &str, text: &str) -> Result<Option<u32>, ValueError> {
    match text {
        "none" => Ok(None),
        "unlimited" | "infinity" | "inf" | "0" | "-1" => Err(ValueError::bad(format!(
            "`{key}` takes a whole number from 1 to {MOST_CONNECTIONS}, or `none`, not `{text}`"
        ))
        .hint("write `none` for no limit")),
        // The bounds are u32.
        _ => scalar::integer(key, text, 1, MOST_CONNECTIONS).map(|most| u32::try_from(most).ok()),
    }
}

fn timeout(text: &str) -> Result<Option<Duration>, ValueError> {
    let key = "connection_timeout";
    match scalar::duration_or_infinity(key, text)? {
        Some(Duration::ZERO) => Err(ValueError::bad(format!(
            "a `{key}` of 0 would end every connection at once"
        ))
        .hint("write `infinity` for no limit")),
        timeout => Ok(timeout),
    }
}

pub(super) fn handoff(text: &str) -> Result<&'static Dialect, ValueError> {
    if LATER_HANDOFFS.contains(&text) {
        return Err(ValueError::new(
            Kind::Unsupported,
            format!("`handoff`: this version does not support `{text}`"),
        )
        .hint("it supports `systemd`, the default, and `inetd`"));
    }
    // inetd.conf(5) says both in one word.
    if let "inetd-wait" | "inetd_wait" | "inetd-nowait" | "inetd_nowait" = text {
        let activation = if text.ends_with("nowait") {
            "per-connection"
        } else {
            "on-demand"
        };
        return Err(unknown("handoff", text).hint(format!(
            "did you mean `inetd`? write `activation: {activation}` beside it"
        )));
    }
    let dialects = handoff::ALL.iter().copied();
    let words: Vec<_> = dialects
        .clone()
        .map(|dialect| (dialect.keyword, dialect))
        .collect();
    let synonyms = dialects.flat_map(|dialect| {
        let synonyms = dialect.synonyms.iter();
        synonyms.map(|synonym| (*synonym, dialect.keyword))
    });
    choice("handoff", text, &words, &synonyms.collect::<Vec<_>>())
}

/// Files the keys that mean nothing for the activation, whatever the listeners are.
fn fits(draft: &DraftWorker, instances: Option<&Located<i64>>, out: &mut Diagnostics) {
    match draft.worker.activation.value {
        Activation::Eager => {
            for (key, place) in &draft.of_connections {
                out.add(only_for(key, &["per-connection"], "eager").at(*place));
            }
            if let Some(place) = draft.trigger_limit.place() {
                let needed = ["on-demand", "per-connection"];
                out.add(only_for("trigger_limit", &needed, "eager").at(place));
            }
        }
        Activation::OnDemand => {
            for (key, place) in &draft.of_connections {
                out.add(only_for(key, &["per-connection"], "on-demand").at(*place));
            }
        }
        Activation::PerConnection => {
            if let Some(instances) = instances.filter(|instances| instances.value > 1) {
                let value_error = ValueError::bad(
                    "`instances`: with `activation: per-connection` every connection is an instance",
                )
                .hint("delete the key; `max_connections` limits how many there are");
                out.add(value_error.at(instances.place));
            }
        }
    }
}

/// Files the keys that mean nothing for processes of which each has its connection.
pub(super) fn instances_fit(draft: &DraftWorker, out: &mut Diagnostics) {
    let per_connection = draft.worker.activation.value == Activation::PerConnection;
    if per_connection && !draft.activation.is_broken() {
        for (key, place) in &draft.of_instances {
            out.add(only_for(key, &["eager", "on-demand"], "per-connection").at(*place));
        }
    }
}

fn only_for(key: &str, activations: &[&str], is: &str) -> ValueError {
    let needed: Vec<String> = activations
        .iter()
        .map(|word| format!("`activation: {word}`"))
        .collect();
    let why = match key {
        "trigger_limit" => "no client starts it",
        "ready" | "start_timeout" => "its processes serve at once",
        "watchdog" => "`connection_timeout` is what limits its processes",
        "notify_access" => "its processes cannot send notifications",
        "fd_store" => "its processes have no successors",
        "rollout" | "reload_signal" | "reload_command" => {
            "the next connection gets a new process anyway"
        }
        "on_failure" => "it never fails permanently",
        "before_start" | "after_ready" | "after_stop" => "it would run for every connection",
        _ => "listend accepts no connections for it",
    };
    ValueError::bad(format!(
        "`{key}` is for {}; the worker is {is}, so {why}",
        listed(&needed, "or")
    ))
    .hint(format!(
        "delete the key, or write {}",
        listed(&needed, "or")
    ))
}
