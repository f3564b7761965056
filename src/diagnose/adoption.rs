//! Inherited sockets that no listener can be given, in words.

use super::address_text::address_text;
use crate::config::{Endpoint, families};
use crate::listener::AdoptProblem;
use crate::plan::{ListenerPlan, Plan};
use crate::report::{Kind, Problem};
use std::net::{Ipv6Addr, SocketAddr};

/// Addresses beyond these are counted, not listed.
const ADDRESSES_SHOWN: usize = 4;

/// The words for an IPv6 wildcard that accepts IPv4 as well.
const BOTH: &str = families(Ipv6Addr::UNSPECIFIED, false);

/// Turns it into a problem, with what to do about it.
pub fn explain_adoption(problem: &AdoptProblem, plan: &Plan) -> Problem {
    match problem {
        AdoptProblem::Mismatch { listener, found } => {
            let listener = plan.listener(*listener);
            let message = format!(
                "listener `{}` cannot use the inherited socket of its name: that is {found}, and \
                 the listener needs {}",
                listener.name,
                addresses_beside(found, listener)
            );
            mismatch(listener, message, hint(listener))
        }
        AdoptProblem::Surplus { listener, found } => {
            let listener = plan.listener(*listener);
            let message = format!(
                "listener `{}` cannot use an inherited socket of its name: that is {found}, and \
                 the listener has been given one for this address already",
                listener.name
            );
            let hint = "leave all but one out in the .socket unit or the command that started listend, \
                        or give each the name of a listener of its own";
            mismatch(listener, message, hint.to_owned())
        }
        AdoptProblem::Unwanted { name, found } => Problem::new(
            Kind::AdoptionUnwanted,
            format!("the inherited socket `{name}`, {found}, matches no listener: it is closed"),
        )
        .with_hint(wants_ipv6_only(plan, found).unwrap_or_else(|| {
            "add a listener with this name and address, or remove the socket from the .socket \
             unit or the command that started listend"
                .to_owned()
        })),
    }
}

fn mismatch(listener: &ListenerPlan, message: String, hint: String) -> Problem {
    let problem = Problem::new(Kind::AdoptionMismatch, message)
        .of_listener(&listener.name)
        .with_hint(hint);
    match listener.sockets.first() {
        Some(socket) => problem
            .at(socket.place)
            .with_address(socket.endpoint.to_string()),
        None => problem,
    }
}

/// The addresses of a listener, so that they can be told from the one of a socket that was found.
pub fn addresses_beside(found: &str, listener: &ListenerPlan) -> String {
    let addresses = listener.addresses().iter();
    let wanted: Vec<String> = addresses
        .map(|socket| wanted_words(&socket.endpoint, found))
        .collect();
    let shown = wanted.len().min(ADDRESSES_SHOWN);
    let list = wanted[..shown].join(", ");
    match wanted.len() - shown {
        0 => list,
        more => format!("{list} or {more} more"),
    }
}

/// The address of the endpoint, with what the address alone does not show: the families of an IPv6 wildcard,
/// and the kind where the socket that was found has the same address.
fn wanted_words(endpoint: &Endpoint, found: &str) -> String {
    let words = address_text(endpoint);
    let families = v6_only(endpoint).and_then(|_| endpoint.detail());
    let with = |what: &str| format!("{words} ({what})");
    let needed = families.map_or_else(|| words.clone(), with);
    let (_, at) = found.split_once(" on ").unwrap_or_default();
    match (at.split(", ").next() == Some(needed.as_str()), families) {
        (false, _) => needed,
        (true, None) => with(endpoint.kind().word()),
        (true, Some(families)) => with(&format!("{}, {families}", endpoint.kind().word())),
    }
}

/// Whether an IPv6 wildcard leaves IPv4 out; `None` for other addresses.
fn v6_only(endpoint: &Endpoint) -> Option<bool> {
    match endpoint {
        Endpoint::Inet {
            address: SocketAddr::V6(address),
            v6_only,
            ..
        } if address.ip().is_unspecified() => Some(*v6_only),
        _ => None,
    }
}

fn hint(listener: &ListenerPlan) -> String {
    let general = "make both the same: the address here, and in the .socket unit or the command that \
                   started listend; a name is given only once for each address";
    let mut only = listener.addresses().iter().map(|socket| &socket.endpoint);
    match only.find(|endpoint| v6_only(endpoint) == Some(true)) {
        Some(endpoint) => format!("{general}; {}", both_families(endpoint)),
        None => general.to_owned(),
    }
}

/// The hint for an inherited socket that accepts IPv4 as well, which was decided at its bind(2).
fn both_families(endpoint: &Endpoint) -> String {
    let port = match endpoint {
        Endpoint::Inet { address, .. } => address.port(),
        _ => 0,
    };
    format!(
        "`:{port}` is one socket for IPv6 and IPv4, as ListenStream={port} makes it, and so is \
         `{endpoint}` with `ipv6_only: false`; BindIPv6Only=ipv6-only in the .socket unit makes one \
         for IPv6 only"
    )
}

/// The hint for an inherited dual-stack socket that bears no listener's name.
fn wants_ipv6_only(plan: &Plan, found: &str) -> Option<String> {
    let sockets = plan.listeners().flat_map(|(_, one)| one.addresses());
    let mut endpoints = sockets.map(|socket| &socket.endpoint);
    let endpoint = endpoints.find(|endpoint| {
        v6_only(endpoint) == Some(true) && found.contains(&format!(" {endpoint} ({BOTH})"))
    })?;
    Some(both_families(endpoint))
}
