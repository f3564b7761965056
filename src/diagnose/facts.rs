//! The facts about one address on this machine, as data, for `listend explain`.

use super::find::{Occupant, standing};
use super::machine::Machine;
use super::path_facts::{PathFacts, path_facts};
use super::process_info::Started;
use super::reach::{Reach, reach};
use super::registry::{Registration, registrations};
use super::tables::State;
use crate::config::{Endpoint, SocketKind};
use crate::listener::{Note, NoteKind, Outcome};
use crate::plan::ListenerPlan;
use crate::report::Holder;
use jiff::Timestamp;
use serde::Serialize;

/// Whether the address can be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bind {
    /// The address was bound, and released at once.
    Possible,
    /// Binding the address failed; the errors say why.
    Impossible,
    /// The listend that runs this configuration has it.
    HeldByListend,
    /// The machine lacks the address family, and the address is optional.
    LeftOut,
}

/// The facts about the address of one socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The bare address.
    pub address: String,
    /// `tcp`, `unix-stream`, `fifo` …
    pub kind: &'static str,
    /// `ipv4` or `ipv6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'static str>,
    /// Whether an IPv6 socket takes IPv4 as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_stack: Option<bool>,
    /// The interface of a link-local address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Whether the address can be bound.
    pub bind: Bind,
    /// The sockets that have it, or a part of it; `None` where the kernel does not tell.
    pub holders: Option<Vec<HolderFacts>>,
    /// Whether this user may see every process.
    pub all_visible: bool,
    /// The networks from which the socket can be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
    /// The facts about the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortFacts>,
    /// The limits of the accept queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueFacts>,
    /// The file at the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathFacts>,
}

/// A socket that holds the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HolderFacts {
    /// Listening (or bound), part of a connection, or a connection that has ended.
    pub state: State,
    /// The address that the socket is bound to.
    pub local: String,
    /// The address of the peer, if the socket is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The user who created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_user: Option<String>,
    /// The process to talk to; `None` where it may not be seen.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub process: Option<Holder>,
    /// The start time of the process: `2026-11-22T10:00:03Z`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The time since the start of the process, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// Every process that has it.
    pub pids: Vec<i32>,
    /// Connections that wait to be accepted, or bytes of datagrams that wait to be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
}

/// The facts about a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PortFacts {
    /// The port number.
    pub number: u16,
    /// Whether the port is below `net.ipv4.ip_unprivileged_port_start`.
    pub privileged: bool,
    /// The value of `net.ipv4.ip_unprivileged_port_start`.
    pub unprivileged_start: u16,
    /// Whether outgoing connections may get the port.
    pub ephemeral: bool,
    /// The range of `net.ipv4.ip_local_port_range`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_range: Option<(u16, u16)>,
    /// Whether the port is in `net.ipv4.ip_local_reserved_ports`.
    pub reserved: bool,
    /// The entries of the port in IANA's registry, on any transport.
    pub registered: Vec<Registration>,
}

/// The limits of an accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QueueFacts {
    /// The backlog for listen(2).
    pub backlog: u32,
    /// The value of `net.core.somaxconn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub somaxconn: Option<u32>,
    /// The lower of the two, which is what counts.
    pub limit: u32,
}

/// Gathers what is known about one socket of the only listener of a plan, after binding it was
/// tried; `held` if the listend that runs this configuration has it.
pub fn facts(
    listener: &ListenerPlan,
    index: usize,
    outcome: &Outcome,
    held: bool,
    machine: &Machine,
) -> Facts {
    let machine = machine.of(listener);
    let endpoint = &listener.sockets[index].endpoint;
    let bind = bind(index, outcome, held);
    let inet = match endpoint {
        Endpoint::Inet {
            address,
            v6_only,
            scope,
            ..
        } => Some((*address, *v6_only, scope)),
        _ => None,
    };
    let holders = standing(endpoint, machine).map(|all| {
        // A socket that may or may not be in the way is not, if binding worked.
        let real = all
            .iter()
            .filter(|one| one.certain || bind != Bind::Possible);
        real.map(HolderFacts::of).collect()
    });
    Facts {
        address: endpoint.to_string(),
        kind: kind(endpoint.kind()),
        family: inet.map(|(address, ..)| if address.is_ipv4() { "ipv4" } else { "ipv6" }),
        dual_stack: inet.map(|(_, v6_only, _)| !v6_only),
        scope: inet.and_then(|(.., scope)| scope.clone()),
        bind,
        holders,
        all_visible: machine.process().uid == 0,
        reach: inet.map(|(address, v6_only, _)| reach(address, v6_only, machine.interfaces())),
        port: inet
            .filter(|(address, ..)| address.port() != 0)
            .map(|(address, ..)| PortFacts::of(address.port(), machine)),
        queue: endpoint
            .accepts()
            .then(|| QueueFacts::of(listener.settings.backlog, machine)),
        path: path_facts(endpoint, index, &listener.settings.access, outcome, machine),
    }
}

fn bind(index: usize, outcome: &Outcome, held: bool) -> Bind {
    let left_out = |note: &Note| {
        let is_missing = matches!(note.kind, NoteKind::FamilyMissing { instead: None, .. });
        note.socket == index && is_missing
    };
    if outcome.errors.iter().any(|error| error.socket == index) {
        if held {
            Bind::HeldByListend
        } else {
            Bind::Impossible
        }
    } else if outcome.notes.iter().any(left_out) {
        Bind::LeftOut
    } else {
        Bind::Possible
    }
}

impl HolderFacts {
    fn of(occupant: &Occupant) -> HolderFacts {
        let started = occupant.person.as_ref().and_then(|person| person.started);
        HolderFacts {
            state: occupant.state,
            local: occupant.local.clone(),
            remote: occupant.remote.map(|remote| remote.to_string()),
            socket_user: occupant.user.clone(),
            process: occupant.person.as_ref().map(|person| person.holder.clone()),
            since: started.and_then(Started::date),
            age: started.map(|started| started.ago),
            pids: occupant.pids.clone(),
            waiting: occupant.waiting,
        }
    }
}

impl PortFacts {
    fn of(port: u16, machine: &Machine) -> PortFacts {
        let settings = machine.settings();
        PortFacts {
            number: port,
            privileged: settings.is_privileged(port),
            unprivileged_start: settings.unprivileged_start,
            ephemeral: settings.is_ephemeral(port),
            ephemeral_range: settings.local_ports,
            reserved: settings.reserved().contains(port),
            registered: registrations(port),
        }
    }
}

impl QueueFacts {
    fn of(backlog: u32, machine: &Machine) -> QueueFacts {
        let somaxconn = machine.settings().somaxconn;
        QueueFacts {
            backlog,
            somaxconn,
            limit: somaxconn.map_or(backlog, |limit| limit.min(backlog)),
        }
    }
}

impl Started {
    /// The time as `2026-11-22T10:00:03Z`; `None` beyond the calendar.
    pub(super) fn date(self) -> Option<String> {
        let time = Timestamp::from_second(i64::try_from(self.at).ok()?);
        time.ok().map(|time| time.to_string())
    }
}

fn kind(kind: SocketKind) -> &'static str {
    match kind {
        SocketKind::Tcp => "tcp",
        SocketKind::Udp => "udp",
        SocketKind::Mptcp => "mptcp",
        SocketKind::Sctp => "sctp",
        SocketKind::UdpLite => "udplite",
        SocketKind::UnixStream => "unix-stream",
        SocketKind::UnixDatagram => "unix-dgram",
        SocketKind::UnixSeqPacket => "unix-seqpacket",
        SocketKind::VsockStream => "vsock-stream",
        SocketKind::VsockDatagram => "vsock-dgram",
        SocketKind::VsockSeqPacket => "vsock-seqpacket",
        SocketKind::Netlink => "netlink",
        SocketKind::Fifo => "fifo",
        SocketKind::MessageQueue => "mqueue",
        SocketKind::Special => "special",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Process, Settings};

    #[test]
    fn a_port_is_measured_by_the_settings() {
        let settings = Settings {
            local_ports: Some((32768, 60999)),
            reserved_ports: "40000".to_owned(),
            unprivileged_start: 1024,
            somaxconn: Some(128),
        };
        let process = Process {
            uid: 1000,
            may_bind_low_ports: false,
        };
        let machine = Machine::with(settings, Vec::new(), process);
        let ssh = PortFacts::of(22, &machine);
        assert!(ssh.privileged && !ssh.ephemeral && !ssh.reserved);
        assert_eq!(ssh.registered[0].name, "ssh");
        let high = PortFacts::of(40000, &machine);
        assert!(!high.privileged && high.ephemeral && high.reserved);
        assert_eq!(QueueFacts::of(4096, &machine).limit, 128);
        assert_eq!(QueueFacts::of(5, &machine).limit, 5);
    }
}
