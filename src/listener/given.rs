//! Sockets that somebody else has bound and gives to a listend that runs.

use super::bound::{Artifacts, BoundSocket, KnownFlag, Slot};
use super::inherited_fd::{Found, look};
use super::table::{Former, SocketTable};
use super::{diag::Diag, overlap};
use crate::config::{Endpoint, UnixName};
use crate::plan::{Access, ListenerId, ListenerPlan, Origin, OriginFile, SocketKey, SocketPlan};
use crate::report::Place;
use crate::sys::{self, sockopt};
use nix::libc;
use nix::sys::stat::fstat;
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// What the configuration of a socket is called that was given, and that no configuration has.
const ORIGIN: &str = "listend give";

/// Why a descriptor cannot be a listener, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// The socket does not listen.
    NoListener(String),
    /// A listener that listend cannot hold.
    Refused(String),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NoListener(why) | Unfit::Refused(why) => f.write_str(why),
        }
    }
}

/// The address of a socket that was given.
///
/// # Errors
///
/// [`Unfit`].
pub fn examine(fd: &OwnedFd) -> Result<Endpoint, Unfit> {
    // Of a file nothing else is asked: fstat(2) may wait for its server.
    if sockopt::get_int(fd, libc::SOL_SOCKET, libc::SO_DOMAIN).is_err() {
        return Err(Unfit::NoListener("it is no socket".to_owned()));
    }
    let found = look(fd);
    let Found::Socket(socket) = &found else {
        return Err(Unfit::NoListener("it is no socket".to_owned()));
    };
    if !socket.is_served() {
        let why = format!("it is {found}, on which nobody listens");
        return Err(Unfit::NoListener(why));
    }
    let Some(endpoint) = socket.endpoint() else {
        return Err(Unfit::NoListener(format!(
            "it is {found}; only internet and unix sockets that are bound can be given"
        )));
    };
    let is_path = matches!(
        endpoint,
        Endpoint::Unix {
            name: UnixName::Path(_),
            ..
        }
    );
    if !is_path && is_elsewhere(fd) {
        return Err(Unfit::Refused(format!(
            "it is {found} in another network namespace, where listend could not bind it again"
        )));
    }
    let shares = sockopt::get_int(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT).unwrap_or(0) != 0;
    if shares && let Some(more) = sharers(fd, &endpoint) {
        return Err(Unfit::Refused(format!(
            "it is {found}, one of {} that share the address (SO_REUSEPORT), each with a queue of its own: clients \
             in the others would be lost; have the server listen with one socket (nginx: without `reuseport`)",
            more + 1
        )));
    }
    Ok(endpoint)
}

/// The address of a socket, as a listener of a configuration has it; `None` for any other descriptor.
pub fn endpoint_of(fd: &OwnedFd) -> Option<Endpoint> {
    match look(fd) {
        Found::Socket(socket) => socket.endpoint(),
        _ => None,
    }
}

fn is_elsewhere(fd: &OwnedFd) -> bool {
    let ours = Socket::new(Domain::UNIX, Type::DGRAM, None).ok();
    let ours = ours.and_then(sys::network_namespace_of);
    let theirs = sys::network_namespace_of(fd);
    ours.is_some() && theirs.is_some() && ours != theirs
}

/// How many other sockets have the address; `None` where there are none, or where it cannot be known.
fn sharers(fd: &OwnedFd, endpoint: &Endpoint) -> Option<usize> {
    let ((transport, port), wanted) = endpoint.coverage()?;
    let inode = fstat(fd).ok()?.st_ino;
    let protocol = overlap::protocol(transport)?;
    let there = Diag::new().ok()?.inet_bound(protocol, port).ok()?;
    let others = there.into_iter().filter(|one| {
        #[allow(clippy::unnecessary_cast)]
        let is_other = one.inode != inode as u64;
        is_other && overlap::covers(one, wanted)
    });
    Some(others.count()).filter(|count| *count > 0)
}

impl SocketTable {
    /// Keeps a socket for the listener of a plan that it is, until [`super::bind_missing`] takes it.
    pub fn set_aside(&mut self, key: SocketKey, fd: OwnedFd) {
        self.set_aside.insert(key, fd);
    }

    /// Gives up what was kept for this socket.
    pub fn take_aside(&mut self, key: SocketKey) -> Option<OwnedFd> {
        self.set_aside.remove(&key)
    }

    /// Holds a socket that was given, under a name that no listener of the plan has, until a reload has that
    /// address. `address` is how it is written in a configuration: a later listend reads it from there.
    pub fn hold_given(
        &mut self,
        (key, name): (SocketKey, &str),
        fd: OwnedFd,
        endpoint: Endpoint,
        address: &str,
    ) {
        let mut socket = BoundSocket {
            fd: fd.into(),
            key,
            shard: 0,
            slot: Slot::unknown(),
            nonblocking: KnownFlag::unknown(),
            listener: ListenerId(u32::MAX),
            address: endpoint.clone(),
            port_chosen: false,
            backlog: None,
            identity: None,
            created: false,
            is_adopted: true,
            effective: Vec::new(),
            artifacts: Artifacts::default(),
        };
        let planned = SocketPlan {
            key,
            endpoint,
            shard: 0,
            place: Place::default(),
        };
        let mut listener = ListenerPlan::new(name.to_owned(), vec![planned], 0, Access::PRIVATE);
        // It has no links that could fail.
        let _always = socket.make_own(&listener);
        // Until it is in the plan, its path is that of the server which has bound it.
        socket.artifacts.stay = true;
        let settings = listener.settings_mut();
        settings.remove_on_stop = false;
        if let Some(rights) = socket.artifacts.rights {
            settings.access.mode = rights.mode;
        }
        let former = Former {
            origin: Arc::new(origin(&listener, address)),
            listener,
            index: 0,
        };
        self.add_former(socket, former);
    }

    /// Whether a socket was given, and no plan has had it yet.
    pub fn is_given(&self, key: SocketKey) -> bool {
        let files = self.former_of(key).map(|former| &former.origin.files);
        files.is_some_and(|files| files.iter().any(|file| file.name == ORIGIN))
    }
}

/// A configuration that has the socket.
fn origin(listener: &ListenerPlan, address: &str) -> Origin {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let endpoint = listener.sockets.first().map(|socket| &socket.endpoint);
    let mut more = String::new();
    match endpoint {
        Some(Endpoint::Inet {
            address, v6_only, ..
        }) if address.is_ipv6() => more = format!(", ipv6_only: {v6_only}"),
        Some(Endpoint::Unix {
            name: UnixName::Path(_),
            ..
        }) => {
            let mode = listener.settings.access.mode & 0o7777;
            more = format!(", mode: \"{mode:04o}\", remove_on_stop: false");
        }
        _ => {}
    }
    let (name, address) = (quoted(&listener.name), quoted(address));
    Origin {
        files: vec![OriginFile {
            name: ORIGIN.to_owned(),
            folder: PathBuf::from("/"),
            text: format!("listeners: {{ {name}: {{ address: {address}{more} }} }}\n"),
        }],
        ..Origin::default()
    }
}
