//! A listener as a .socket unit (systemd.socket(5)).

use super::names::{accepts, socket_unit};
use super::unit::{Unit, plain, quoted, rate, span, yes};
use crate::config::options::{OptionSetting, OptionValue, ValueKind};
use crate::config::{
    Activation, Endpoint, Listener, Overflow, Presence, Transport, UnixKind, UnixName, Worker,
};
use std::time::Duration;

const SOCKET: &str = "Socket";

/// A listener of a worker.
pub(super) fn unit(listener: &Listener, worker: &Worker) -> Unit {
    let service = &worker.name.value;
    let mut unit = base(listener, &socket_unit(worker, &listener.name.value));
    if accepts(worker) {
        if worker.listeners.len() > 1 {
            unit.remark("The limits of connections are for this listener alone.");
        }
        unit.set(SOCKET, "Accept", "yes");
        let limits = &worker.connections;
        // The default of systemd is 64.
        let most = limits.max.unwrap_or(u32::MAX);
        unit.set(SOCKET, "MaxConnections", most.to_string());
        if let Some(most) = limits.max_per_source {
            unit.set(SOCKET, "MaxConnectionsPerSource", most.to_string());
        }
        if limits.max.is_some() && limits.overflow == Overflow::Wait {
            unit.lacks(
                "overflow: wait",
                "systemd closes connections beyond MaxConnections=",
            );
        }
        let [interval, burst] = rate(limits.rate);
        unit.set(SOCKET, "TriggerLimitIntervalSec", interval);
        unit.set(SOCKET, "TriggerLimitBurst", burst);
        if limits.rate.is_some() {
            unit.remark(
                "Beyond TriggerLimitBurst= the unit fails; with `accept_rate` clients wait.",
            );
        }
    } else {
        // The unit of a service of another name has to say which.
        if *service != listener.name.value {
            unit.set(SOCKET, "Service", format!("{service}.service"));
        }
        if worker.activation.value == Activation::OnDemand {
            let [interval, burst] = rate(worker.trigger_limit);
            unit.set(SOCKET, "TriggerLimitIntervalSec", interval);
            unit.set(SOCKET, "TriggerLimitBurst", burst);
        }
    }
    unit.set("Install", "WantedBy", "sockets.target");
    unit
}

/// A listener that no worker takes.
pub(super) fn held(listener: &Listener) -> Unit {
    let mut unit = base(listener, &format!("{}.socket", listener.name.value));
    unit.lacks(
        "a listener that no worker takes",
        "a socket unit needs a service: write the one that is to get it",
    );
    unit.set("Install", "WantedBy", "sockets.target");
    unit
}

fn base(listener: &Listener, name: &str) -> Unit {
    let mut unit = Unit::new(name.to_owned());
    unit.set(
        "Unit",
        "Description",
        format!("Listener {}", listener.name.value),
    );
    let endpoints: Vec<&Endpoint> = listener
        .addresses
        .iter()
        .flat_map(|one| &one.value.endpoints)
        .collect();
    let mut protocol = None;
    let mut v6_only = None;
    let mut has_path = false;
    for endpoint in &endpoints {
        has_path |= endpoint.path().is_some() || matches!(endpoint, Endpoint::MessageQueue { .. });
        match address(endpoint) {
            Ok((key, value)) => unit.set(SOCKET, key, value),
            Err(why) => unit.lacks(&format!("address {endpoint}"), why),
        }
        if let Endpoint::Inet {
            transport,
            address,
            v6_only: only,
            optional,
            ..
        } = endpoint
        {
            let wanted = match transport {
                Transport::Sctp => Some("sctp"),
                Transport::UdpLite => Some("udplite"),
                Transport::Mptcp => Some("mptcp"),
                Transport::Tcp | Transport::Udp => None,
            };
            if protocol.get_or_insert(wanted) != &wanted {
                unit.lacks(
                    &format!("address {endpoint}"),
                    "a unit has one SocketProtocol=",
                );
            }
            if is_every_interface(endpoint) {
                continue;
            }
            if address.is_ipv6() && v6_only.get_or_insert(*only) != only {
                unit.lacks(
                    &format!("address {endpoint}"),
                    "a unit has one BindIPv6Only=, and its addresses differ",
                );
            }
            if *optional && endpoints.len() > 1 {
                unit.remark(&format!(
                    "Where this machine lacks {endpoint}, the unit fails; listend goes on without it."
                ));
            }
        }
    }
    if let Some(Some(protocol)) = protocol {
        unit.set(SOCKET, "SocketProtocol", protocol);
    }
    if let Some(only) = v6_only {
        let both = if only { "ipv6-only" } else { "both" };
        unit.set(SOCKET, "BindIPv6Only", both);
    }
    unit.set(SOCKET, "FileDescriptorName", listener.name.value.as_str());
    if let Some(backlog) = &listener.backlog {
        unit.set(SOCKET, "Backlog", backlog.value.to_string());
    }
    if has_path {
        for (key, value) in [
            ("SocketUser", &listener.owner),
            ("SocketGroup", &listener.group),
        ] {
            if let Some(value) = value {
                unit.set(SOCKET, key, plain(&value.value));
            }
        }
        unit.set(SOCKET, "SocketMode", format!("{:04o}", listener.mode));
        unit.set(
            SOCKET,
            "DirectoryMode",
            format!("{:04o}", listener.directory_mode),
        );
        unit.set(SOCKET, "RemoveOnStop", yes(listener.remove_on_stop));
        for link in &listener.symlinks {
            unit.set(SOCKET, "Symlinks", quoted(&link.value.to_string_lossy()));
        }
        if listener.directory_owner.is_some() || listener.directory_group.is_some() {
            unit.lacks(
                "directory_owner, directory_group",
                "create it with tmpfiles.d(5)",
            );
        }
    }
    if endpoints
        .iter()
        .any(|one| matches!(one, Endpoint::Special { writable: true, .. }))
    {
        unit.set(SOCKET, "Writable", "yes");
    }
    for setting in &listener.options {
        option(&mut unit, &setting.value);
    }
    let more = [
        (
            !listener.multicast.is_empty(),
            "multicast",
            "systemd joins no groups; the program has to",
        ),
        (
            listener.network_namespace.is_some(),
            "network_namespace",
            "a socket unit is bound in the namespace of systemd, or in one that a unit has made (PrivateNetwork=)",
        ),
        (
            listener.flows.is_some(),
            "flows",
            "systemd has one socket for all generations",
        ),
        (
            !listener.grant.is_empty(),
            "grant",
            "systemd passes a socket to its service only",
        ),
        (
            listener.presence != Presence::Required,
            "optional, wait_for_address",
            "a unit whose address is missing fails; see FreeBind=",
        ),
    ];
    for (is_set, what, why) in more {
        if is_set {
            unit.lacks(what, why);
        }
    }
    unit
}

/// The directive of an address, and its value.
fn address(endpoint: &Endpoint) -> Result<(&'static str, String), &'static str> {
    Ok(match endpoint {
        Endpoint::Inet {
            transport, address, ..
        } => {
            let key = match transport {
                Transport::Udp | Transport::UdpLite => "ListenDatagram",
                Transport::Tcp | Transport::Mptcp | Transport::Sctp => "ListenStream",
            };
            match is_every_interface(endpoint) {
                true => (key, address.port().to_string()),
                false => (key, endpoint.to_string()),
            }
        }
        Endpoint::Unix { kind, name } => {
            let name = match name {
                UnixName::Path(path) => path.to_string_lossy().into_owned(),
                UnixName::Abstract(name) => format!("@{name}"),
            };
            (of_kind(*kind), plain(&name))
        }
        Endpoint::Fifo { path } => ("ListenFIFO", plain(&path.to_string_lossy())),
        Endpoint::Special { path, .. } => ("ListenSpecial", plain(&path.to_string_lossy())),
        Endpoint::MessageQueue { name } => ("ListenMessageQueue", plain(name)),
        Endpoint::Netlink {
            family,
            group,
            mask,
            ..
        } => {
            // systemd passes the number as the mask of groups (nl_groups, netlink(7)).
            let groups = match (*mask, *group) {
                (0, 0) => 0,
                (0, group @ 1..=32) => 1 << (group - 1),
                (0, _) => return Err("systemd knows the first 32 groups only"),
                (mask, _) => mask,
            };
            ("ListenNetlink", format!("{family} {groups}"))
        }
        Endpoint::Vsock { kind, cid, port } => {
            let cid = match *cid {
                u32::MAX => String::new(),
                cid => cid.to_string(),
            };
            (of_kind(*kind), format!("vsock:{cid}:{port}"))
        }
    })
}

/// Whether it is `:PORT`: a port alone in systemd, too, which also does without IPv6 where there is none.
fn is_every_interface(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Inet {
            address,
            v6_only,
            optional,
            ..
        } => address.ip().is_unspecified() && address.is_ipv6() && !v6_only && *optional,
        _ => false,
    }
}

fn of_kind(kind: UnixKind) -> &'static str {
    match kind {
        UnixKind::Stream => "ListenStream",
        UnixKind::Datagram => "ListenDatagram",
        UnixKind::SeqPacket => "ListenSequentialPacket",
    }
}

fn option(unit: &mut Unit, setting: &OptionSetting) {
    let spec = setting.spec;
    let Some(key) = spec.systemd else {
        return unit.lacks(
            spec.key,
            "systemd has no directive for it; the program can set it",
        );
    };
    let key = key.trim_end_matches('=');
    let value = match (&setting.value, spec.value) {
        (OptionValue::Flag(is), _) => yes(*is).to_owned(),
        (OptionValue::Text(text), _) => plain(text),
        (OptionValue::Number(number), ValueKind::Choice(words)) => {
            let word = words.iter().find(|(_, value)| value == number);
            word.map_or_else(|| number.to_string(), |(word, _)| (*word).to_owned())
        }
        (OptionValue::Number(number), ValueKind::Milliseconds(..)) => span(Some(
            Duration::from_millis(u64::try_from(*number).unwrap_or(0)),
        )),
        (OptionValue::Number(number), _) => number.to_string(),
    };
    unit.set(SOCKET, key, value);
}
