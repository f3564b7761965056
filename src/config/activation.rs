//! Reads the keys about activation, handoff, instances and connection limits of a worker.

use super::decode::{Fields, Words, choice, default, list, text, unknown, words};
use super::draft::{DraftWorker, Field};
use super::fitting::listed;
use super::idle;
use super::keys;
use super::model::{Activation, ConnectionLimits, Distribute, Overflow};
use super::scalar;
use super::scaling;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use crate::handoff::{self, Dialect, Handoff};
use crate::report::Place;
use std::time::Duration;

/// More processes than this no machine has room for.
const MOST_CONNECTIONS: i64 = 1_000_000;

const ACTIVATIONS: &Words<Activation> = words! {
    "eager" = Activation::Eager, "always", "boot", "immediate", "start", "false";
    "on-demand" = Activation::OnDemand, "demand", "lazy", "on_demand", "ondemand", "socket", "true", "wait";
    "per-connection" = Activation::PerConnection, "accept", "connection", "inetd", "nowait", "per_connection", "perconnection";
};

const DISTRIBUTIONS: &Words<Distribute> = words! {
    "shared" = Distribute::Shared, "share", "shared-socket", "false";
    "shards" = Distribute::Shards, "reuseport", "reuse_port", "shard", "sharded", "true";
};

const OVERFLOWS: &Words<Overflow> = words! {
    "wait" = Overflow::Wait, "block", "hold", "queue";
    "close" = Overflow::Close, "deny", "drop", "refuse", "reject", "reset";
};

/// Reads `handoff`, `activation`, `instances`, `distribute` and every limit of clients and connections.
pub(super) fn decode(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    let worker = &mut draft.worker;
    let instances = scaling::instances(fields, worker, out);
    draft.scaling = instances.filter(|_| worker.scaling.is_some());
    if let Field::Set(distribute) = fields.read("distribute", out, distribute) {
        worker.distribute = distribute;
    }
    draft.handoff = handoffs(fields, out);
    if let Field::Set(Located { value, place }) = &draft.handoff {
        let dialects = value.iter().map(|dialect| dialect.value).collect();
        worker.handoff = Located {
            value: Handoff::of(dialects),
            place: *place,
        };
        if !combine(value, &draft.nonblocking, out) {
            draft.handoff = Field::Broken(*place);
        }
    }
    let listen_pid = fields.set("listen_pid", &mut worker.listen_pid, out, scalar::boolean);
    if let Some((key, place)) = listen_pid
        && !draft.handoff.is_broken()
        && !worker.handoff.value.tells_the_pid()
    {
        let value_error = ValueError::bad(format!(
            "`{key}` is for `handoff: systemd`; no variable of {} has the process id of the worker",
            worker.handoff.value
        ));
        out.add(value_error.hint("delete the key").at(place));
    }
    draft.activation = fields.read("activation", out, activation);
    if let Field::Set(value) = &draft.activation {
        worker.activation = value.clone();
    }
    limits(fields, draft, out);
    idle::decode(fields, draft, out);
    if !draft.activation.is_broken() {
        fits(draft, instances, out);
    }
}

pub(super) fn activation(key: &str, text: &str) -> Result<Activation, ValueError> {
    choice(key, text, ACTIVATIONS)
}

pub(super) fn distribute(key: &str, text: &str) -> Result<Distribute, ValueError> {
    choice(key, text, DISTRIBUTIONS)
}

fn overflow(key: &str, text: &str) -> Result<Overflow, ValueError> {
    choice(key, text, OVERFLOWS)
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        let most = |key| default(keys::WORKER, key, most);
        ConnectionLimits {
            max: most("max_connections"),
            max_per_source: most("max_connections_per_source"),
            overflow: default(keys::WORKER, "overflow", overflow),
            rate: default(keys::WORKER, "accept_rate", scalar::rate),
            timeout: default(keys::WORKER, "connection_timeout", timeout),
        }
    }
}

fn limits(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    let limits = &mut draft.worker.connections;
    let found = &mut draft.of_connections;
    found.extend(fields.set("max_connections", &mut limits.max, out, most));
    let key = "max_connections_per_source";
    found.extend(fields.set(key, &mut limits.max_per_source, out, most));
    found.extend(fields.set("overflow", &mut limits.overflow, out, overflow));
    found.extend(fields.set("accept_rate", &mut limits.rate, out, scalar::rate));
    draft.trigger_limit = fields.read("trigger_limit", out, scalar::rate);
    if let Field::Set(limit) = &draft.trigger_limit {
        draft.worker.trigger_limit = limit.value;
    }
    found.extend(fields.set("connection_timeout", &mut limits.timeout, out, timeout));
}

fn most(key: &str, text: &str) -> Result<Option<u32>, ValueError> {
    match text {
        "none" => Ok(None),
        "unlimited" | "infinity" | "inf" | "0" | "-1" => Err(ValueError::bad(format!(
            "`{key}` takes a whole number from 1 to {MOST_CONNECTIONS}, or `none`, not `{text}`"
        ))
        .hint("write `none` for no limit")),
        _ => scalar::integer(key, text, 1, MOST_CONNECTIONS).map(Some),
    }
}

fn timeout(key: &str, text: &str) -> Result<Option<Duration>, ValueError> {
    match scalar::duration_or_infinity(key, text)? {
        Some(Duration::ZERO) => Err(ValueError::bad(format!(
            "a `{key}` of 0 would end every connection at once"
        ))
        .hint("write `infinity` for no limit")),
        timeout => Ok(timeout),
    }
}

/// Reads `handoff:`, a word or a list of them.
fn handoffs(fields: &mut Fields, out: &mut Diagnostics) -> Field<Vec<Located<&'static Dialect>>> {
    let key = "handoff";
    let Some(node) = fields.take(key) else {
        return Field::Absent;
    };
    let items = list(node);
    if items.is_empty() {
        let value_error = ValueError::bad("`handoff`: the list names no protocol");
        out.add(
            value_error
                .hint("write `none` for no variables")
                .at(node.place),
        );
        return Field::Broken(node.place);
    }
    let mut dialects = Vec::with_capacity(items.len());
    for item in items {
        let place = item.place;
        let value = text(item, key, out).and_then(|text| out.check(place, handoff(key, text)));
        dialects.extend(value.map(|value| Located { value, place }));
    }
    if dialects.len() < items.len() {
        return Field::Broken(node.place);
    }
    Field::Set(Located {
        value: dialects,
        place: node.place,
    })
}

/// Files protocols that exclude each other; whether there are none.
fn combine(
    dialects: &[Located<&'static Dialect>],
    nonblocking: &Field<bool>,
    out: &mut Diagnostics,
) -> bool {
    let Some((first, others)) = dialects.split_first() else {
        return true;
    };
    for other in others {
        let (one, two) = (first.value, other.value);
        let alone = [one, two].into_iter().find(|dialect| !dialect.combines);
        let value_error = if let Some(alone) = alone {
            let why = match alone.first_fd {
                handoff::FIRST_FD => "it means that no variable is set",
                _ => "its socket is standard input, and the others have theirs from 3 on",
            };
            ValueError::bad(format!("`handoff: {}` stands alone: {why}", alone.keyword))
                .hint("delete one of them")
        } else if dialects
            .iter()
            .filter(|dialect| dialect.value == two)
            .count()
            > 1
        {
            ValueError::bad(format!(
                "`handoff`: `{}` occurs twice in the list",
                two.keyword
            ))
            .hint("delete one of them")
        } else if one.default_nonblocking != two.default_nonblocking
            && matches!(nonblocking, Field::Absent)
        {
            let needs = |set| if set { "non-blocking" } else { "blocking" };
            ValueError::bad(format!(
                "`handoff`: by default `{}` has {} listeners and `{}` {} ones",
                one.keyword,
                needs(one.default_nonblocking),
                two.keyword,
                needs(two.default_nonblocking)
            ))
            .hint("write `nonblocking: true` or `false`, as the program needs it")
        } else {
            continue;
        };
        let problem = value_error.at(other.place);
        out.add(problem.with_related(first.place, "the first protocol"));
        return false;
    }
    true
}

pub(super) fn handoff(key: &str, text: &str) -> Result<&'static Dialect, ValueError> {
    // inetd.conf(5) says both in one word.
    if let "inetd-wait" | "inetd_wait" | "inetd-nowait" | "inetd_nowait" = text {
        let activation = if text.ends_with("nowait") {
            "per-connection"
        } else {
            "on-demand"
        };
        return Err(unknown(key, text).hint(format!(
            "did you mean `inetd`? write `activation: {activation}` beside it"
        )));
    }
    let dialects = handoff::ALL.iter().copied();
    let words = dialects.map(|dialect| (dialect.keyword, dialect, dialect.synonyms));
    choice(key, text, &words.collect::<Vec<_>>())
}

/// Files the keys that mean nothing for the activation, whatever the listeners are.
fn fits(draft: &DraftWorker, instances: Option<Place>, out: &mut Diagnostics) {
    let is = match draft.worker.activation.value {
        Activation::Eager => Some("eager"),
        Activation::OnDemand => None,
        Activation::PerConnection => Some("per-connection"),
    };
    for (key, place) in is.map_or(&[][..], |_| &draft.of_demand) {
        out.add(only_for(key, &["on-demand"], is.unwrap_or_default()).at(*place));
    }
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
            let many = draft.worker.instances > 1 || draft.worker.scaling.is_some();
            if let Some(place) = instances.filter(|_| many) {
                let value_error = ValueError::bad(
                    "`instances`: with `activation: per-connection` every connection is an instance",
                )
                .hint("delete the key; `max_connections` limits how many there are");
                out.add(value_error.at(place));
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
        "idle_timeout" | "idle_unless" if is == "eager" => "no client would start it again",
        "idle_timeout" | "idle_unless" => "each process ends with its connection",
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
