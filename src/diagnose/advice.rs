//! Advice: settings that work, but may surprise.

use super::address_text::address_text;
use super::explain::addresses_here;
use super::machine::{Machine, Settings};
use super::option_causes::option_changed;
use super::ports::PortSet;
use super::reach::reach;
use super::{registry, services};
use crate::config::options::by_key;
use crate::config::{Endpoint, Piece, Template, Transport, WEB};
use crate::listener::{Effective, Note, NoteKind};
use crate::plan::{ListenerId, ListenerPlan, Plan, SocketPlan};
use crate::report::{Kind, Problem, Report, describe};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// A sysctl line longer than this is no help; it then names one port only.
const SYSCTL_LENGTH: usize = 400;

/// The range that IANA sets apart for outgoing connections (RFC 6335), which many know by heart.
const TEXTBOOK_RANGE: (u16, u16) = (49152, 65535);

/// Whether binding was tried before advice is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// Binding was tried; failures have been reported, and advice need not guess them.
    Yes,
    /// Binding was not tried (`check --no-bind`).
    No,
}

/// All advice about the listeners of a plan, in its order. Does not look at `silence:`.
pub fn advise(plan: &Plan, machine: &Machine, tried: Tried) -> Report {
    let mut advisers: BTreeMap<Option<&Path>, Adviser> = BTreeMap::new();
    let mut advice = Report::default();
    for (id, listener) in plan.listeners() {
        let namespace = listener.settings.network_namespace.as_deref();
        let adviser = advisers
            .entry(namespace)
            .or_insert_with(|| Adviser::new(plan, namespace, machine.of(listener), tried));
        adviser.backlog(listener, &mut advice);
        for (number, socket) in listener.addresses().iter().enumerate() {
            let Endpoint::Inet {
                transport,
                address,
                v6_only,
                optional,
                ..
            } = &socket.endpoint
            else {
                continue;
            };
            let asked = Asked {
                listener,
                socket,
                address: *address,
                transport: *transport,
            };
            // The two sockets of `localhost:PORT` are one address to the author of the configuration.
            let repeated = number > 0 && same_port(&listener.addresses()[number - 1], socket);
            if !repeated && address.port() != 0 {
                adviser.privileged(&asked, &mut advice);
                adviser.registered(&asked, id, &mut advice);
            }
            // A range of ports is one text, and one piece of advice.
            if number == 0 || listener.addresses()[number - 1].place != socket.place {
                adviser.ephemeral(&asked, &listener.addresses()[number..], &mut advice);
            }
            adviser.wildcard(&asked, *v6_only, &mut advice);
            if tried == Tried::No && !optional {
                adviser.not_here(&asked, &mut advice);
            }
        }
    }
    advice
}

/// Turns a note about binding into advice.
pub fn note(note: &Note, plan: &Plan) -> Problem {
    let listener = plan.listener(note.listener);
    let socket = &listener.sockets[note.socket];
    let (name, endpoint) = (&listener.name, &socket.endpoint);
    let (kind, message) = match &note.kind {
        NoteKind::StaleReplaced => (
            Kind::StaleSocket,
            format!(
                "listener `{name}`: replaced a stale socket at {endpoint} (no process had it open)"
            ),
        ),
        NoteKind::StaleWouldBeReplaced => (
            Kind::StaleSocket,
            format!(
                "listener `{name}`: a stale socket is at {endpoint} (no process has it open); a \
                 start replaces it"
            ),
        ),
        NoteKind::FamilyMissing { errno, instead } => {
            let outcome = match instead {
                Some(instead) => format!("{instead} is bound instead"),
                None => "it is left out".to_owned(),
            };
            let reason = describe(*errno);
            let message = format!(
                "listener `{name}`: this machine has no {endpoint}, so {outcome}: {reason}"
            );
            (Kind::FamilyMissing, message)
        }
        NoteKind::OptionChanged(option) => {
            let Effective {
                key,
                asked,
                effective,
                ..
            } = option;
            let place = Some(listener.place_of(key).unwrap_or(socket.place));
            // The key comes from the table, so it is found there.
            let problem = match by_key(key) {
                Some(spec) => option_changed(name, place, spec, asked, effective),
                None => Problem::new(Kind::OptionChanged, format!("{key} is {effective}")),
            };
            return problem.with_address(endpoint.to_string());
        }
    };
    Problem::new(kind, message)
        .at(socket.place)
        .of_listener(name)
        .with_address(endpoint.to_string())
}

/// An inet socket of the plan.
struct Asked<'p> {
    listener: &'p ListenerPlan,
    socket: &'p SocketPlan,
    address: SocketAddr,
    transport: Transport,
}

impl Asked<'_> {
    fn problem(&self, kind: Kind, message: String) -> Problem {
        Problem::new(kind, message)
            .at(self.socket.place)
            .of_listener(&self.listener.name)
            .with_address(self.address.to_string())
    }
}

/// The facts that are the same for every socket, worked out once: plans have 10,000 sockets.
struct Adviser<'p> {
    machine: &'p Machine,
    tried: Tried,
    settings: &'p Settings,
    reserved: PortSet,
    /// All ephemeral ports of the plan and those reserved already, if that is a short line.
    all_reserved: Option<String>,
    reach4: String,
    reach6: String,
    reach_both: String,
    /// For each listener, the workers that take it, as indices into `texts`.
    takers: HashMap<ListenerId, Vec<usize>>,
    /// For each worker, its name and command in lower case.
    texts: Vec<String>,
}

impl<'p> Adviser<'p> {
    /// The adviser for the listeners in the network namespace of `machine`.
    fn new(
        plan: &Plan,
        namespace: Option<&Path>,
        machine: &'p Machine,
        tried: Tried,
    ) -> Adviser<'p> {
        let settings = machine.settings();
        let reserved = settings.reserved();
        let ephemeral = ports(plan, namespace).filter(|port| settings.is_ephemeral(*port));
        let all_reserved = reserved.with(ephemeral).to_string();
        let wildcard = |ip: IpAddr, v6_only| {
            reach(SocketAddr::new(ip, 0), v6_only, machine.interfaces()).in_words()
        };
        let mut takers: HashMap<ListenerId, Vec<usize>> = HashMap::new();
        for (index, worker) in plan.workers.values().enumerate() {
            for listener in &worker.listeners {
                takers.entry(*listener).or_default().push(index);
            }
        }
        let text = |worker: &crate::plan::WorkerPlan| {
            let mut text = worker.name.to_lowercase();
            for word in &worker.command {
                text.push(' ');
                text.push_str(&literal(word));
            }
            text
        };
        Adviser {
            machine,
            tried,
            settings,
            reserved,
            all_reserved: (all_reserved.len() <= SYSCTL_LENGTH).then_some(all_reserved),
            reach4: wildcard(Ipv4Addr::UNSPECIFIED.into(), true),
            reach6: wildcard(Ipv6Addr::UNSPECIFIED.into(), true),
            reach_both: wildcard(Ipv6Addr::UNSPECIFIED.into(), false),
            takers,
            texts: plan.workers().map(|(_, worker)| text(worker)).collect(),
        }
    }

    fn privileged(&self, asked: &Asked, advice: &mut Report) {
        let start = self.settings.unprivileged_start;
        let port = asked.address.port();
        let may = self.machine.process().may_bind_low_ports;
        // Where it was tried without the privilege, the failure has said all this.
        if !self.settings.is_privileged(port) || (!may && self.tried == Tried::Yes) {
            return;
        }
        let message = if may {
            format!(
                "port {port} is privileged (below {start}): listend could not bind it without root"
            )
        } else {
            format!("port {port} is privileged (below {start}), and this user may not bind it")
        };
        advice.add(asked.problem(Kind::PrivilegedPort, message).with_hint(
            "AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit lets any user bind it",
        ));
    }

    /// About the ports of one address text: `sockets` begins with the first of it.
    fn ephemeral(&self, asked: &Asked, sockets: &[SocketPlan], advice: &mut Report) {
        let Some((low, high)) = self.settings.local_ports else {
            return;
        };
        let ports = sockets
            .iter()
            .take_while(|socket| socket.place == asked.socket.place)
            .filter_map(|socket| socket.endpoint.port())
            .filter(|port| self.settings.is_ephemeral(*port) && !self.reserved.contains(*port));
        let ports: BTreeSet<u16> = ports.collect();
        let Some(port) = ports.first().copied() else {
            return;
        };
        let line = match &self.all_reserved {
            Some(all) => all.clone(),
            None => self.reserved.with(ports.iter().copied()).to_string(),
        };
        let message = format!(
            "{} in the range {low}-{high} that outgoing connections take their ports from: one of \
             them may have {} when listend starts",
            match ports.len() {
                1 => format!("port {port} is"),
                _ => format!(
                    "ports {} are",
                    PortSet::default().with(ports.iter().copied())
                ),
            },
            if ports.len() == 1 { "it" } else { "one" }
        );
        let mut problem = asked.problem(Kind::EphemeralPort, message);
        if (low, high) != TEXTBOOK_RANGE {
            problem = problem.with_cause(format!(
                "the range is the setting net.ipv4.ip_local_port_range; Linux does not keep to the \
                 {}-{} of RFC 6335",
                TEXTBOOK_RANGE.0, TEXTBOOK_RANGE.1
            ));
        }
        advice.add(problem.with_hint(format!(
            "{} net.ipv4.ip_local_reserved_ports={line} (and the same in /etc/sysctl.d), or choose a \
             port outside the range",
            self.machine.sysctl()
        )));
    }

    fn registered(&self, asked: &Asked, id: ListenerId, advice: &mut Report) {
        let Some(service) = services::at(asked.address.port()) else {
            return;
        };
        let meant = service.is_meant_by(&asked.listener.name.to_lowercase())
            || self
                .takers
                .get(&id)
                .into_iter()
                .flatten()
                .any(|worker| service.is_meant_by(&self.texts[*worker]));
        if !meant {
            let description = registry::description(service.port, service.name)
                .map_or_else(String::new, |words| format!(" ({words})"));
            let message = format!(
                "port {} is the well-known port of {}{description}; clients, scanners and \
                 firewalls expect that there",
                service.port, service.name
            );
            let hint = "choose another port, unless that is what this listener is for";
            let problem = asked.problem(Kind::RegisteredPort, message);
            advice.add(problem.with_hint(hint));
        }
    }

    fn wildcard(&self, asked: &Asked, v6_only: bool, advice: &mut Report) {
        if !asked.address.ip().is_unspecified() {
            return;
        }
        let reach = match asked.address {
            SocketAddr::V4(_) => &self.reach4,
            SocketAddr::V6(_) if v6_only => &self.reach6,
            SocketAddr::V6(_) => &self.reach_both,
        };
        let message = format!(
            "{} is every address of {}: {reach}",
            address_text(&asked.socket.endpoint),
            self.machine.place()
        );
        let decides = match asked.listener.name == WEB {
            true => {
                "a firewall must decide who may: the page has no authentication, and shows the last \
                 lines of workers"
            }
            false => "a firewall or the worker must decide who may",
        };
        let port = asked.address.port();
        let scheme = match asked.transport {
            Transport::Tcp => "",
            Transport::Mptcp => "mptcp://",
            Transport::Sctp => "sctp://",
            Transport::UdpLite => "udplite://",
            Transport::Udp => "udp://",
        };
        advice.add(asked.problem(Kind::WildcardAddress, message).with_hint(format!(
            "if only this machine should reach it: {scheme}localhost:{port}; otherwise {decides}"
        )));
    }

    fn backlog(&self, listener: &ListenerPlan, advice: &mut Report) {
        let accepting = |socket: &&SocketPlan| socket.endpoint.accepts();
        let (Some(limit), Some(socket)) = (
            self.settings.somaxconn,
            listener.sockets.iter().find(accepting),
        ) else {
            return;
        };
        if listener.settings.backlog > limit {
            let asked = listener.settings.backlog;
            let message = format!(
                "the backlog of {asked} is cut to {limit} by the kernel (net.core.somaxconn)"
            );
            advice.add(
                Problem::new(Kind::BacklogOverSomaxconn, message)
                    .at(listener.place_of("backlog").unwrap_or(socket.place))
                    .of_listener(&listener.name)
                    .with_address(socket.endpoint.to_string())
                    .with_hint(format!(
                        "{} net.core.somaxconn={asked}",
                        self.machine.sysctl()
                    )),
            );
        }
    }

    fn not_here(&self, asked: &Asked, advice: &mut Report) {
        let ip = asked.address.ip();
        // All of 127.0.0.0/8 is here as soon as lo is up, although only one address is listed.
        let here = ip.is_unspecified()
            || ip.is_multicast()
            || (ip.is_ipv4() && ip.is_loopback())
            || self.machine.interfaces().iter().any(|i| i.address == ip);
        // Where the interfaces cannot be read, nothing can be said.
        if here || self.machine.interfaces().is_empty() {
            return;
        }
        let (cause, hint) = addresses_here(asked.address, self.machine);
        let message = format!(
            "no interface of {} has the address {ip}",
            self.machine.place()
        );
        let problem = asked.problem(Kind::AddressNotHere, message);
        advice.add(problem.with_cause(cause).with_hint(hint));
    }
}

/// The ports of the listeners in this network namespace.
fn ports(plan: &Plan, namespace: Option<&Path>) -> impl Iterator<Item = u16> {
    let listeners = plan.listeners().map(|(_, listener)| listener);
    let listeners =
        listeners.filter(move |one| one.settings.network_namespace.as_deref() == namespace);
    let sockets = listeners.flat_map(|listener| &listener.sockets);
    sockets.filter_map(|socket| socket.endpoint.port())
}

/// Whether both come from one address text: the same place, transport and port.
fn same_port(one: &SocketPlan, other: &SocketPlan) -> bool {
    match (&one.endpoint, &other.endpoint) {
        (
            Endpoint::Inet {
                transport, address, ..
            },
            Endpoint::Inet {
                transport: theirs,
                address: second,
                ..
            },
        ) => one.place == other.place && transport == theirs && address.port() == second.port(),
        _ => false,
    }
}

/// The literal text of a template, in lower case.
fn literal(template: &Template) -> String {
    let pieces = template.pieces.iter().map(|piece| match piece {
        Piece::Text(text) => text.to_lowercase(),
        _ => String::new(),
    });
    pieces.collect()
}
