//! Reads `idle_timeout` and `idle_unless`, and checks them against the listeners.

use super::decode::{Fields, text};
use super::draft::{DraftWorker, Taken};
use super::keys;
use super::model::Activation;
use super::scalar;
use super::socket_kind::SocketKind;
use super::value_error::{Diagnostics, ValueError};
use super::yaml::Node;
use crate::report::{Kind, Report};
use std::path::PathBuf;
use std::time::Duration;

const IDLE_TIMEOUT: &str = "idle_timeout";

/// Each look costs a process.
const SHORTEST: Duration = Duration::from_secs(1);

pub(super) fn decode(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    let worker = &mut draft.worker;
    let timeout = fields.set(IDLE_TIMEOUT, &mut worker.idle_timeout, out, idle_timeout);
    draft.of_demand.extend(timeout);
    let Some(node) = fields.take("idle_unless") else {
        return;
    };
    worker.idle_unless = unless(node, out);
    draft.of_demand.push(("idle_unless", node.place));
    if timeout.is_none() {
        let value_error = ValueError::bad("`idle_unless` without an `idle_timeout`");
        let value_error = value_error.hint("add `idle_timeout: 5m`, or delete it");
        out.add(value_error.at(node.place));
    }
}

pub(super) fn idle_timeout(key: &str, text: &str) -> Result<Option<Duration>, ValueError> {
    match scalar::duration_or_infinity(key, text)? {
        Some(timeout) if timeout < SHORTEST => Err(ValueError::bad(format!(
            "`{key}`: {text} is too short: the kernel is asked once in that time"
        ))
        .hint("write at least `1s`, or `infinity`")),
        timeout => Ok(timeout),
    }
}

fn unless(node: &Node, out: &mut Diagnostics) -> Option<PathBuf> {
    let mut fields = Fields::open(node, keys::IDLE_UNLESS, "`idle_unless`", &[], out)?;
    let path = fields.take("path");
    fields.finish();
    let Some(path) = path else {
        let value_error = ValueError::new(Kind::MissingKey, "`idle_unless` has no `path`");
        out.add(
            value_error
                .hint("write `idle_unless: {path: /run/app/busy}`")
                .at(node.place),
        );
        return None;
    };
    let text = text(path, "path", out)?;
    let folder = text.starts_with('/') && !text.contains('\0');
    if !folder {
        let value_error = ValueError::bad(format!("`path`: `{text}` is not an absolute path"));
        out.add(value_error.hint("begin it with `/`").at(path.place));
        return None;
    }
    Some(PathBuf::from(text))
}

/// Files the listeners of which the kernel does not show who uses them.
pub(super) fn fits(draft: &DraftWorker, listeners: &[Taken<'_>], report: &mut Report) {
    let worker = &draft.worker;
    let mut written = draft.of_demand.iter();
    let Some((_, place)) = written.find(|(key, _)| *key == IDLE_TIMEOUT) else {
        return;
    };
    if worker.activation.value != Activation::OnDemand || worker.idle_timeout.is_none() {
        return;
    }
    for (wanted, listener) in listeners {
        let addresses = listener.listener.addresses.iter();
        let mut endpoints = addresses.flat_map(|address| &address.value.endpoints);
        let hidden = endpoints.find_map(|one| Some((one, hidden(one.kind())?)));
        let elsewhere = listener.listener.network_namespace.is_some();
        let why = match hidden {
            Some((endpoint, why)) => format!("is {}, {why}", endpoint.kind().word()),
            None if elsewhere => {
                "is in another network namespace, whose connections listend does not see".to_owned()
            }
            None => continue,
        };
        let name = &wanted.value;
        let value_error = ValueError::bad(format!(
            "`idle_timeout`: whether a client uses `{name}` cannot be detected: it {why}"
        ));
        let value_error = value_error.hint("delete `idle_timeout`, or let the program exit itself");
        let problem = value_error.at(*place).of_worker(&worker.name.value);
        report.add(problem.with_related(wanted.place, "the listener"));
    }
}

/// Why nothing shows who uses such a socket.
fn hidden(kind: SocketKind) -> Option<&'static str> {
    match kind {
        SocketKind::Tcp
        | SocketKind::Mptcp
        | SocketKind::UnixStream
        | SocketKind::UnixSeqPacket
        | SocketKind::Udp
        | SocketKind::UdpLite
        | SocketKind::UnixDatagram
        | SocketKind::Netlink => None,
        SocketKind::Sctp
        | SocketKind::VsockStream
        | SocketKind::VsockSeqPacket
        | SocketKind::VsockDatagram => Some("whose connections are in no table that listend reads"),
        SocketKind::Fifo => Some("and the kernel does not tell when something is written to it"),
        SocketKind::MessageQueue => Some("and the kernel wakes its reader and tells nobody else"),
        SocketKind::Special => Some("and what becomes of it is its driver's matter"),
    }
}
