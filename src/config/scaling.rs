//! Reads `instances`: a number, or how it follows the queues.

use super::decode::{Fields, default, wrong_type};
use super::draft::{DraftWorker, Taken};
use super::keys;
use super::life::Scaling;
use super::model::{Activation, Worker};
use super::scalar;
use super::socket_kind::SocketKind;
use super::value_error::{Diagnostics, ValueError};
use super::yaml::Content;
use crate::report::{Kind, Place, Report};

const MOST: i64 = 10_000;

impl Worker {
    /// How many instances it may have by itself.
    pub(super) fn most_instances(&self) -> u32 {
        self.scaling.map_or(self.instances, |scaling| scaling.max)
    }
}

/// The place of the key, if it is written and could be read.
pub(super) fn instances(
    fields: &mut Fields,
    worker: &mut Worker,
    out: &mut Diagnostics,
) -> Option<Place> {
    let node = fields.take("instances")?;
    match &node.content {
        Content::Map(_) => {}
        Content::Scalar(_) => {
            let text = super::decode::text(node, "instances", out)?;
            let count =
                number("instances", text).map_err(|value_error| match text.split_once('-') {
                    Some((min, max)) if !min.is_empty() => {
                        value_error.hint(format!("write `{{ min: {min}, max: {max} }}`"))
                    }
                    _ => value_error,
                });
            worker.instances = out.check(node.place, count)?;
            return Some(node.place);
        }
        Content::Null { .. } | Content::List(_) => {
            out.add(wrong_type("`instances`", "a number or a mapping", node).at(node.place));
            return None;
        }
    }
    let mut range = Fields::open(node, keys::INSTANCES, "`instances`", &[], out)?;
    let mut max = None;
    let mut scale_up_at = default(keys::INSTANCES, "scale_up_at", waiting);
    range.set("min", &mut worker.instances, out, number);
    range.set("max", &mut max, out, |key, text| {
        number(key, text).map(Some)
    });
    range.set("scale_up_at", &mut scale_up_at, out, waiting);
    range.finish();
    let Some(max) = max else {
        let value_error = ValueError::new(Kind::MissingKey, "`instances` has no `max`");
        out.add(
            value_error
                .hint("write `instances: {min: 1, max: 8}`")
                .at(node.place),
        );
        return None;
    };
    if max < worker.instances {
        let value_error = ValueError::bad(format!(
            "`instances`: `max` is {max}, less than `min`, {}",
            worker.instances
        ));
        out.add(value_error.hint("write a larger `max`").at(node.place));
        return None;
    }
    worker.scaling = Some(Scaling { max, scale_up_at });
    Some(node.place)
}

fn number(key: &str, text: &str) -> Result<u32, ValueError> {
    scalar::integer(key, text, 1, MOST)
}

fn waiting(key: &str, text: &str) -> Result<u32, ValueError> {
    scalar::integer(key, text, 0, 1_000_000)
}

/// Files a worker whose queues tell nothing, so that the number would always be the least.
pub(super) fn fits(draft: &DraftWorker, listeners: &[Taken<'_>], report: &mut Report) {
    let worker = &draft.worker;
    let Some(place) = draft.scaling else { return };
    if worker.activation.value == Activation::PerConnection {
        // That was said.
        return;
    }
    let elsewhere = |(_, listener): &&Taken| listener.listener.network_namespace.is_some();
    let known = listeners.iter().filter(|taken| !elsewhere(taken));
    let mut endpoints = known.flat_map(|(_, listener)| {
        let addresses = listener.listener.addresses.iter();
        addresses.flat_map(|address| &address.value.endpoints)
    });
    if endpoints.any(|endpoint| tells_who_waits(endpoint.kind())) {
        return;
    }
    let name = &worker.name.value;
    let why = match listeners {
        [] => "no listeners".to_owned(),
        [(wanted, _), ..] => format!(
            "no listener whose waiting clients listend can count (`{}` is none)",
            wanted.value
        ),
    };
    let value_error = ValueError::bad(format!(
        "`instances` with a `max` follows the accept queues, and worker `{name}` has {why}"
    ))
    .hint("write a number");
    report.add(value_error.at(place).of_worker(name));
}

/// Whether the kernel tells how many clients wait at such a socket.
pub fn tells_who_waits(kind: SocketKind) -> bool {
    match kind {
        SocketKind::Tcp
        | SocketKind::Mptcp
        | SocketKind::UnixStream
        | SocketKind::UnixSeqPacket => true,
        SocketKind::Sctp
        | SocketKind::VsockStream
        | SocketKind::VsockSeqPacket
        | SocketKind::VsockDatagram
        | SocketKind::Udp
        | SocketKind::UdpLite
        | SocketKind::UnixDatagram
        | SocketKind::Netlink
        | SocketKind::Fifo
        | SocketKind::MessageQueue
        | SocketKind::Special => false,
    }
}
