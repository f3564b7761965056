//! Reads the keys about flows that stay with their generation, and checks the workers that take them.

use super::decode::{Fields, Words, choice, words};
use super::draft::{DraftListener, DraftWorker, Field};
use super::life::Order;
use super::model::{FlowKey, Flows, Listener};
use super::scalar;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use crate::report::Report;
use foldhash::{HashMap, HashMapExt};
use std::time::Duration;

const SHARED_OR_STICKY: &Words<bool> = words! {
    "shared" = false, "false", "none", "off", "no";
    "sticky" = true, "true", "affinity", "on", "yes", "keep";
};

const KEYS: &Words<bool> = words! {
    "tuple" = false, "address", "addresses", "4-tuple", "four-tuple", "udp", "hash";
    "quic" = true, "connection-id", "connection_id", "cid", "dcid", "http3";
};

/// Reads `flows` and what belongs to it.
pub(super) fn decode(fields: &mut Fields, listener: &mut Listener, out: &mut Diagnostics) {
    let is_sticky = fields.read("flows", out, |key, text| {
        choice(key, text, SHARED_OR_STICKY)
    });
    let by_id = fields.read("flow_key", out, |key, text| choice(key, text, KEYS));
    let timeout = fields.read("flow_timeout", out, |key, text| {
        match scalar::duration(key, text)? {
            time if time < Duration::from_secs(1) => Err(ValueError::bad(format!(
                "`{key}` is at least 1s: what was seen is noted about once a second"
            ))),
            time => Ok(time),
        }
    });
    let length = fields.read("connection_id_length", out, |key, text| {
        scalar::integer(key, text, 1, 20)
    });
    let max = fields.read("max_flows", out, |key, text| {
        scalar::integer(key, text, 1 << 10, 1 << 24)
    });
    let of_quic = length.place();
    let others = [
        ("flow_key", by_id.place()),
        ("flow_timeout", timeout.place()),
        ("connection_id_length", of_quic),
        ("max_flows", max.place()),
    ];
    match is_sticky {
        Field::Set(Located { value: true, place }) => {
            let is_quic = by_id.as_set().is_some_and(|by_id| by_id.value);
            if let Some(place) = of_quic.filter(|_| !is_quic && !by_id.is_broken()) {
                let value_error =
                    ValueError::bad("`connection_id_length` means something for `flow_key: quic`");
                out.add(
                    value_error
                        .hint("add `flow_key: quic`, or delete the key")
                        .at(place),
                );
            }
            let value = Flows {
                key: match is_quic {
                    true => FlowKey::Quic(length.value_or(8)),
                    false => FlowKey::Tuple,
                },
                timeout: timeout.value_or(Duration::from_secs(30)),
                max: max.value_or(1 << 16),
            };
            listener.flows = Some(Box::new(Located { value, place }));
        }
        Field::Broken(_) => {}
        Field::Absent | Field::Set(_) => {
            for (key, place) in others {
                let Some(place) = place else { continue };
                let value_error =
                    ValueError::bad(format!("`{key}` means something for `flows: sticky`"));
                out.add(
                    value_error
                        .hint("add `flows: sticky`, or delete the key")
                        .at(place),
                );
            }
        }
    }
}

/// Files what is wrong with the workers that take such listeners: a flow is that of one process.
pub(super) fn check(
    workers: &[DraftWorker],
    by_name: &HashMap<&str, &DraftListener>,
    report: &mut Report,
) {
    let mut taken: HashMap<&str, &Located<String>> = HashMap::new();
    for draft in workers.iter().filter(|draft| !draft.duplicate) {
        let worker = &draft.worker;
        for wanted in &worker.listeners {
            let listener = by_name.get(wanted.value.as_str());
            let flows = listener.and_then(|draft| draft.listener.flows.as_ref());
            let Some(flows) = flows else { continue };
            let name = &wanted.value;
            let wrong = if let Some(other) = taken.get(name.as_str()) {
                let value_error = ValueError::bad(format!(
                    "`flows: sticky` of `{name}`: a flow stays with one worker, and two take it"
                ));
                let value_error = value_error.hint("give each worker its own listener");
                Some(
                    value_error
                        .at(wanted.place)
                        .with_related(other.place, "the other worker"),
                )
            } else if worker.most_instances() > 1 {
                let value_error = ValueError::bad(format!(
                    "`flows: sticky` of `{name}`: the {} instances of worker `{}` read from one socket, \
                     so that any of them gets a packet of a flow",
                    worker.most_instances(),
                    worker.name.value
                ));
                Some(value_error.hint("write `instances: 1`").at(wanted.place))
            } else if worker.rollout.order == Order::StopFirst {
                let value_error = ValueError::bad(format!(
                    "`flows: sticky` of `{name}`: with `order: stop-first` the old instance of worker `{}` \
                     has ended, and its flows with it, before the new one starts",
                    worker.name.value
                ));
                Some(
                    value_error
                        .hint("write `order: start-first`, or delete `flows`")
                        .at(wanted.place),
                )
            } else {
                None
            };
            if let Some(problem) = wrong {
                let problem = problem.of_worker(&worker.name.value);
                report.add(problem.with_related(flows.place, "the flows"));
            }
            taken.entry(name).or_insert(wanted);
        }
    }
}
