//! Keys that mean nothing for the addresses of their listener.

use super::draft::ListenerKeys;
use super::model::{Address, Endpoint, Listener, UnixName};
use super::socket_kind::{DATAGRAM, INET, SOCKETS, SocketKind};
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use crate::report::Place;
use SocketKind::{MessageQueue, Special, UnixDatagram, VsockDatagram};
use std::net::SocketAddr;

const SPECIAL: &[SocketKind] = &[Special];

/// Files keys that mean nothing for the listener's addresses.
pub(super) fn check(listener: &Listener, written: &ListenerKeys, out: &mut Diagnostics) {
    files_only(listener, written, out);
    if let Some(only) = written.v6_only.as_set() {
        v6_only_fits(listener, only, out);
    }
    if let Some(backlog) = &listener.backlog
        && endpoints(listener).all(|(_, endpoint)| !endpoint.accepts())
    {
        let datagrams = endpoints(listener).all(|(_, endpoint)| {
            let kind = endpoint.kind();
            DATAGRAM.contains(&kind) || matches!(kind, UnixDatagram | VsockDatagram)
        });
        let value_error = if datagrams {
            ValueError::bad("`backlog`: datagram sockets have no accept queue")
        } else {
            ValueError::bad("`backlog`: nothing here has an accept queue")
        };
        out.add(value_error.hint("delete the key").at(backlog.place));
    }
    if let Some(place) = written.writable.place() {
        all_are("writable", SPECIAL, place, listener, out);
    }
    if let Some(path) = &listener.network_namespace {
        all_are("network_namespace", SOCKETS, path.place, listener, out);
    }
    for option in &listener.options {
        let spec = option.value.spec;
        all_are(spec.key, spec.kinds, option.place, listener, out);
    }
    multicast_fits(listener, out);
    if let Some(flows) = &listener.flows {
        flows_fit(listener, flows.place, out);
    }
    symlinks_fit(listener, out);
    if let Some(place) = written.wait_for_address
        && all_are("wait_for_address", INET, place, listener, out)
    {
        all_are_specific(listener, place, out);
    }
}

/// The sockets of a listener, each with its address.
fn endpoints(listener: &Listener) -> impl Iterator<Item = (&Located<Address>, &Endpoint)> {
    listener.addresses.iter().flat_map(|address| {
        let endpoints = address.value.endpoints.iter();
        endpoints.map(move |endpoint| (address, endpoint))
    })
}

/// Files a key that one of the sockets is of the wrong kind for; whether it fits all.
fn all_are(
    key: &str,
    kinds: &[SocketKind],
    place: Place,
    listener: &Listener,
    out: &mut Diagnostics,
) -> bool {
    let fits = |endpoint: &Endpoint| kinds.contains(&endpoint.kind());
    let Some((address, endpoint)) = endpoints(listener).find(|(_, endpoint)| !fits(endpoint))
    else {
        return true;
    };
    let name = &listener.name.value;
    let word = endpoint.kind().word();
    let words: Vec<String> = kinds.iter().map(|kind| kind.word().to_owned()).collect();
    let words = listed(&words, "and");
    let value_error = if endpoints(listener).any(|(_, endpoint)| fits(endpoint)) {
        let text = &address.value.text;
        ValueError::bad(format!(
            "`{key}` is for {words}; `{text}` of `{name}` is {word}"
        ))
        .hint(format!("give `{text}` its own listener, or delete the key"))
    } else {
        ValueError::bad(format!("`{key}` is for {words}; `{name}` is {word}"))
            .hint("delete the key")
    };
    out.add(
        value_error
            .at(place)
            .with_related(address.place, "the address"),
    );
    false
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(words: &[String], and: &str) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} {and} {last}", rest.join(", ")),
    }
}

/// Owner, group, mode and the like want something in the file system.
fn files_only(listener: &Listener, written: &ListenerKeys, out: &mut Diagnostics) {
    let of = |value: &Option<Box<Located<String>>>| value.as_ref().map(|value| value.place);
    let has_path = endpoints(listener).any(|(_, endpoint)| endpoint.path().is_some());
    let has_queue = endpoints(listener).any(|(_, endpoint)| endpoint.kind() == MessageQueue);
    let file = "unix path, FIFO or message queue";
    let folder = "unix path or FIFO";
    let find = |wanted| {
        let mut keys = written.of_files.iter();
        keys.find(|(key, _)| *key == wanted)
            .map(|(_, place)| *place)
    };
    for (key, place, noun, what) in [
        ("owner", of(&listener.owner), "an owner", file),
        ("group", of(&listener.group), "a group", file),
        ("mode", find("mode"), "a mode", file),
        ("directory_mode", find("directory_mode"), "a folder", folder),
        (
            "directory_owner",
            of(&listener.directory_owner),
            "a folder",
            folder,
        ),
        (
            "directory_group",
            of(&listener.directory_group),
            "a folder",
            folder,
        ),
        ("remove_on_stop", find("remove_on_stop"), "a file", file),
    ] {
        let Some(place) = place else { continue };
        if has_path || (has_queue && what == file) {
            continue;
        }
        let value_error = ValueError::bad(format!("`{key}`: only a {what} has {noun}"));
        out.add(value_error.hint(no_file(listener)).at(place));
    }
}

fn no_file(listener: &Listener) -> &'static str {
    let is_abstract = |endpoint: &Endpoint| {
        matches!(
            endpoint,
            Endpoint::Unix {
                name: UnixName::Abstract(_),
                ..
            }
        )
    };
    if endpoints(listener).any(|(_, endpoint)| is_abstract(endpoint)) {
        "an abstract name is open to every process in the network namespace; delete the key, or use a path"
    } else if endpoints(listener).any(|(_, endpoint)| INET.contains(&endpoint.kind())) {
        "delete the key; the firewall and the worker decide who may connect to a port"
    } else {
        "delete the key"
    }
}

/// Symbolic links lead to one path.
fn symlinks_fit(listener: &Listener, out: &mut Diagnostics) {
    let Some(first) = listener.symlinks.first() else {
        return;
    };
    let mut paths = endpoints(listener).filter_map(|(_, endpoint)| endpoint.path());
    let value_error = match (paths.next(), paths.next()) {
        (Some(path), None) => {
            if let Some(link) = listener.symlinks.iter().find(|link| link.value == path) {
                let value_error = ValueError::bad("`symlinks`: the link is the path itself");
                out.add(value_error.hint("delete it").at(link.place));
            }
            return;
        }
        (None, _) => ValueError::bad("`symlinks`: the listener has no path to link to")
            .hint("delete the key; only a unix path and a FIFO have links"),
        (Some(_), Some(_)) => ValueError::bad("`symlinks`: the listener has several paths")
            .hint("give the path with the links its own listener"),
    };
    out.add(value_error.at(first.place));
}

/// Flows are those of UDP, and a datagram to a group goes to every socket.
fn flows_fit(listener: &Listener, place: Place, out: &mut Diagnostics) {
    if !all_are("flows", DATAGRAM, place, listener, out) {
        return;
    }
    if let Some(group) = listener.multicast.first() {
        let value_error = ValueError::bad(
            "`flows: sticky`: a datagram to a multicast group goes to every socket that has joined it",
        );
        let problem = value_error.hint("delete one of the two keys").at(place);
        out.add(problem.with_related(group.place, "the group"));
    }
}

/// A group is joined by the sockets of its family.
fn multicast_fits(listener: &Listener, out: &mut Diagnostics) {
    let Some(first) = listener.multicast.first() else {
        return;
    };
    if !all_are("multicast", DATAGRAM, first.place, listener, out) {
        return;
    }
    let takes = [false, true].map(|v4| {
        endpoints(listener).any(|(_, endpoint)| match endpoint {
            Endpoint::Inet {
                address, v6_only, ..
            } => address.is_ipv4() == v4 || (v4 && !v6_only),
            _ => false,
        })
    });
    for group in &listener.multicast {
        let is_v4 = group.value.group.is_ipv4();
        if takes[usize::from(is_v4)] {
            continue;
        }
        let (family, example) = if is_v4 {
            ("IPv4", "0.0.0.0")
        } else {
            ("IPv6", "[::]")
        };
        let value_error = ValueError::bad(format!(
            "`multicast`: the listener has no {family} socket to join `{}` with",
            group.value.group
        ));
        let value_error = value_error.hint(format!("add an address like `udp://{example}:PORT`"));
        out.add(value_error.at(group.place));
    }
}

/// `0.0.0.0` and `[::]` are there always, so nothing can be waited for.
fn all_are_specific(listener: &Listener, place: Place, out: &mut Diagnostics) {
    let wildcard = endpoints(listener).find(|(_, endpoint)| {
        matches!(endpoint, Endpoint::Inet { address, .. } if address.ip().is_unspecified())
    });
    if let Some((address, _)) = wildcard {
        let value_error = ValueError::bad(format!(
            "`wait_for_address`: `{}` is every interface, which is always there",
            address.value.text
        ));
        let problem = value_error
            .hint("delete the key, or write the address of the interface")
            .at(place);
        out.add(problem.with_related(address.place, "the address"));
    }
}

fn v6_only_fits(listener: &Listener, only: &Located<bool>, out: &mut Diagnostics) {
    let mut explicit = false;
    let mut dual = None;
    for address in &listener.addresses {
        for endpoint in &address.value.endpoints {
            match endpoint {
                Endpoint::Inet {
                    v6_only: false,
                    optional: true,
                    ..
                } => dual = Some(address),
                Endpoint::Inet {
                    address: SocketAddr::V6(_),
                    ..
                } => explicit = true,
                _ => {}
            }
        }
    }
    match dual {
        Some(address) if only.value => {
            let port = address.value.text.rsplit(':').next().unwrap_or("");
            let value_error = ValueError::bad(format!(
                "`ipv6_only: true`, but `{}` accepts IPv4 as well",
                address.value.text
            ));
            let value_error = value_error.hint(format!("write the address as \"[::]:{port}\""));
            out.add(
                value_error
                    .at(only.place)
                    .with_related(address.place, "the address"),
            );
        }
        None if !explicit => {
            let value_error = ValueError::bad("`ipv6_only`: the listener has no IPv6 address");
            out.add(value_error.hint("delete the key").at(only.place));
        }
        _ => {}
    }
}
