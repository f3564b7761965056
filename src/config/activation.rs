//! When a worker runs, how it is given its sockets, and the limits that belong to that.

use super::complaint::{Complaint, Out};
use super::decode::{Fields, Words, choice, unknown};
use super::fitting::listed;
use super::model::{Activation, Located, Overflow, Rate};
use super::scalar;
use super::worker::DraftWorker;
use crate::handoff::{self, Dialect};
use crate::report::{Kind, Place};
use std::time::Duration;

/// How often a worker may be started by clients, unless `trigger_limit` says otherwise; as systemd
/// has it for a socket without `Accept=`.
pub(super) const TRIGGER_LIMIT: Rate = Rate {
    count: 20,
    interval: Duration::from_secs(2),
};

/// More processes than this no machine has room for.
const MOST_CONNECTIONS: i64 = 1_000_000;

/// The keys that this part of a worker says, so far as others must know where they stand.
#[derive(Default)]
pub(super) struct Written {
    /// The keys that are about connections, in the order of [`super::keys::WORKER`].
    pub of_connections: Vec<(&'static str, Place)>,
    /// `trigger_limit:`.
    pub trigger_limit: Option<Place>,
    /// The keys that are about instances that stay, which the process of a connection does not.
    pub of_instances: Vec<(&'static str, Place)>,
    /// `activation:` could not be read, so that nothing can be said about what fits it.
    pub activation_broken: bool,
    /// `handoff:` could not be read.
    pub handoff_broken: bool,
}

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
pub(super) fn decode(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Out) {
    let worker = &mut draft.worker;
    let instances = fields.read("instances", out, |text| {
        scalar::integer("instances", text, 1, 10_000)
    });
    if let Some(instances) = &instances {
        worker.instances = u32::try_from(instances.value).unwrap_or(1); // The bounds are u32.
    }
    let errors = out.report.error_count();
    if let Some(value) = fields.read("handoff", out, handoff) {
        worker.handoff = value;
    }
    draft.written.handoff_broken = out.report.error_count() > errors;
    let errors = out.report.error_count();
    let choice = |text: &str| choice("activation", text, ACTIVATIONS, LIKE_ACTIVATIONS);
    if let Some(value) = fields.read("activation", out, choice) {
        worker.activation = value;
    }
    draft.written.activation_broken = out.report.error_count() > errors;
    limits(fields, draft, out);
    if !draft.written.activation_broken {
        fits(draft, instances.as_ref(), out);
    }
}

fn limits(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Out) {
    let DraftWorker {
        worker, written, ..
    } = draft;
    let limits = &mut worker.connections;
    let found = &mut written.of_connections;
    if let Some(most) = number(fields, "max_connections", found, out) {
        limits.max = most;
    }
    if let Some(most) = number(fields, "max_connections_per_source", found, out) {
        limits.max_per_source = most;
    }
    let choice = |text: &str| choice("overflow", text, OVERFLOWS, LIKE_OVERFLOWS);
    if let Some(overflow) = fields.read("overflow", out, choice) {
        found.push(("overflow", overflow.place));
        limits.overflow = overflow.value;
    }
    let rate = fields.read("accept_rate", out, |text| scalar::rate("accept_rate", text));
    if let Some(rate) = rate {
        found.push(("accept_rate", rate.place));
        limits.rate = rate.value;
    }
    let limit = fields.read("trigger_limit", out, |text| {
        scalar::rate("trigger_limit", text)
    });
    if let Some(limit) = limit {
        written.trigger_limit = Some(limit.place);
        worker.trigger_limit = limit.value;
    }
    if let Some(timeout) = fields.read("connection_timeout", out, timeout) {
        found.push(("connection_timeout", timeout.place));
        limits.timeout = timeout.value;
    }
}

/// A number of connections, or `none` as `Some(None)`.
fn number(
    fields: &mut Fields,
    key: &'static str,
    found: &mut Vec<(&'static str, Place)>,
    out: &mut Out,
) -> Option<Option<u32>> {
    let number = fields.read(key, out, |text| match text {
        "none" => Ok(None),
        "unlimited" | "infinity" | "inf" | "0" | "-1" => Err(Complaint::bad(format!(
            "`{key}` takes a whole number from 1 to {MOST_CONNECTIONS}, or `none`, not `{text}`"
        ))
        .hint("write `none` for no limit")),
        _ => scalar::integer(key, text, 1, MOST_CONNECTIONS).map(Some),
    })?;
    found.push((key, number.place));
    // The bounds are u32.
    Some(number.value.and_then(|number| u32::try_from(number).ok()))
}

fn timeout(text: &str) -> Result<Option<Duration>, Complaint> {
    let key = "connection_timeout";
    match scalar::duration_or_infinity(key, text)? {
        Some(Duration::ZERO) => Err(Complaint::bad(format!(
            "a `{key}` of 0 would end every connection at once"
        ))
        .hint("write `infinity` for no limit")),
        timeout => Ok(timeout),
    }
}

fn handoff(text: &str) -> Result<&'static Dialect, Complaint> {
    if LATER_HANDOFFS.contains(&text) {
        return Err(Complaint::new(
            Kind::Unsupported,
            format!("`handoff`: this version does not have `{text}`"),
        )
        .hint("it has `systemd`, which is the default, and `inetd`"));
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
fn fits(draft: &DraftWorker, instances: Option<&Located<i64>>, out: &mut Out) {
    let DraftWorker {
        worker, written, ..
    } = draft;
    match worker.activation.value {
        Activation::Eager => {
            for (key, place) in &written.of_connections {
                out.add(only_for(key, &["per-connection"], "eager").at(*place));
            }
            if let Some(place) = written.trigger_limit {
                let needed = ["on-demand", "per-connection"];
                out.add(only_for("trigger_limit", &needed, "eager").at(place));
            }
        }
        Activation::OnDemand => {
            for (key, place) in &written.of_connections {
                out.add(only_for(key, &["per-connection"], "on-demand").at(*place));
            }
        }
        Activation::PerConnection => {
            if let Some(instances) = instances.filter(|instances| instances.value > 1) {
                let complaint = Complaint::bad(
                    "`instances`: with `activation: per-connection` every connection is an instance",
                )
                .hint("delete the key; `max_connections` limits how many there are");
                out.add(complaint.at(instances.place));
            }
        }
    }
}

/// Files the keys that mean nothing for processes of which each has its connection.
pub(super) fn instances_fit(draft: &DraftWorker, out: &mut Out) {
    let DraftWorker {
        worker, written, ..
    } = draft;
    let per_connection = worker.activation.value == Activation::PerConnection;
    if per_connection && !written.activation_broken {
        for (key, place) in &written.of_instances {
            out.add(only_for(key, &["eager", "on-demand"], "per-connection").at(*place));
        }
    }
}

fn only_for(key: &str, activations: &[&str], is: &str) -> Complaint {
    let needed: Vec<String> = activations
        .iter()
        .map(|word| format!("`activation: {word}`"))
        .collect();
    let why = match key {
        "trigger_limit" => "no client starts it",
        "ready" | "start_timeout" => "its processes serve at once",
        "watchdog" => "`connection_timeout` is what limits its processes",
        "notify_access" => "nobody waits for what its processes tell",
        "fd_store" => "its processes have no successors",
        "rollout" | "reload_signal" | "reload_command" => {
            "the next connection gets a new process anyway"
        }
        "on_failure" => "it never fails for good",
        "before_start" | "after_ready" | "after_stop" => "it would run for every connection",
        _ => "listend accepts no connections for it",
    };
    Complaint::bad(format!(
        "`{key}` is for {}; the worker is {is}, so {why}",
        listed(&needed, "or")
    ))
    .hint(format!(
        "delete the key, or write {}",
        listed(&needed, "or")
    ))
}
