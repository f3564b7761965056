//! A worker that runs a server, as what is read is compared with it.

use crate::config::preset::Preset;
use crate::config::{Endpoint, Piece, Transport, UnixName};
use crate::host::ServerFiles;
use crate::plan::{Plan, WorkerPlan};
use crate::report::{Kind, Place, Problem};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A worker that runs a server.
pub(super) struct Server<'a> {
    /// Whether its processes start as root.
    pub is_root: bool,
    pub files: &'a dyn ServerFiles,
    pub plan: &'a Plan,
    pub worker: &'a WorkerPlan,
    pub preset: &'static Preset,
    /// The place of the preset in the configuration.
    pub place: Place,
    /// The command, placeholders as they are written.
    pub words: Vec<String>,
}

impl<'a> Server<'a> {
    /// The name of the server, for messages.
    pub fn name(&self) -> &'static str {
        self.preset.name
    }

    /// About how the server is configured.
    pub fn configuration(&self, message: String, hint: impl Into<String>) -> Problem {
        self.problem(Kind::ServerConfiguration, message, hint)
    }

    pub fn problem(&self, kind: Kind, message: String, hint: impl Into<String>) -> Problem {
        let message = format!("worker `{}`: {message}", self.worker.name);
        let problem = Problem::new(kind, message).at(self.place);
        problem.of_worker(&self.worker.name).with_hint(hint)
    }

    /// About a configuration that has processes of root become another user, from which the sandbox keeps them.
    /// `ends` says what becomes of them, and `instead` what keeps the user.
    pub fn cannot_become(&self, user: &str, ends: &str, instead: &str) -> Option<Problem> {
        if !self.stays_root() || matches!(user, "root" | "0") {
            return None;
        }
        let message = format!(
            "{} starts as root and changes to {user}, for which its sandbox leaves no capability: {ends}",
            self.name()
        );
        let hint = format!(
            "write `user:` in the worker, with folders and a pid file that this user may write; or {instead}"
        );
        Some(self.configuration(message, hint))
    }

    /// Whether its sandbox keeps root from becoming another user.
    fn stays_root(&self) -> bool {
        /// CAP_SETGID and CAP_SETUID of linux/capability.h.
        const TO_CHANGE: [u8; 2] = [6, 7];
        let sandbox = self.worker.sandbox.as_deref();
        let left = sandbox.and_then(|sandbox| sandbox.capabilities.as_ref());
        self.is_root && left.is_some_and(|left| TO_CHANGE.iter().any(|one| !left.contains(one)))
    }

    /// The value of an option: the word behind it, or the rest of its own word.
    pub fn option(&self, names: &[&str]) -> Option<&str> {
        let words = self.words.get(1..)?;
        let of = |(index, word): (usize, &'_ String)| {
            let name = names.iter().find(|name| word.starts_with(**name))?;
            let rest = &word[name.len()..];
            match rest.strip_prefix('=') {
                _ if rest.is_empty() => words.get(index + 1).map(|_| (index + 1, 0)),
                Some(_) if name.starts_with("--") => Some((index, name.len() + 1)),
                // `-cFILE`, and not `--config-something`.
                _ if !name.starts_with("--") && !word.starts_with("--") => {
                    Some((index, name.len()))
                }
                _ => None,
            }
        };
        let (index, start) = words.iter().enumerate().find_map(of)?;
        words[index].get(start..)
    }

    /// Whether a word of the command is one of these, or begins with it and `=`.
    pub fn has(&self, options: &[&str]) -> bool {
        let is = |word: &String| {
            let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
            options.contains(&name)
        };
        self.words.iter().any(is)
    }

    /// The stream sockets of its listeners, with the listeners' names.
    pub fn sockets(&self) -> Vec<(&'a str, Address)> {
        let plan = self.plan;
        let listeners = self
            .worker
            .listeners
            .iter()
            .map(move |id| plan.listener(*id));
        let sockets = listeners.flat_map(|listener| {
            let endpoints = listener.sockets.iter().map(|socket| &socket.endpoint);
            endpoints.filter_map(|endpoint| Some((listener.name.as_str(), Address::of(endpoint)?)))
        });
        sockets.collect()
    }

    /// The name of the first listener, to show how something is written.
    pub fn first_listener(&self) -> Option<&'a str> {
        let first = self.worker.listeners.first()?;
        Some(&self.plan.listener(*first).name)
    }

    /// Whether a number of a descriptor is in the command or a variable.
    pub fn tells_a_number(&self) -> bool {
        let environment = self.worker.environment.iter().map(|(_, value)| value);
        let templates = self.worker.command.iter().chain(environment);
        let mut pieces = templates.flat_map(|template| &template.pieces);
        pieces.any(|piece| matches!(piece, Piece::Fd(_) | Piece::Fds(_)))
    }

    /// The literal directory that it runs in.
    pub fn folder(&self) -> Option<&str> {
        self.worker.launch.working_directory.as_ref()?.as_literal()
    }
}

/// The address of a stream socket, as servers compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Inet(SocketAddr),
    Path(String),
    /// A datagram socket.
    Datagram(SocketAddr),
}

impl Address {
    fn of(endpoint: &Endpoint) -> Option<Address> {
        match endpoint {
            Endpoint::Inet {
                transport, address, ..
            } => match transport {
                Transport::Tcp | Transport::Mptcp => Some(Address::Inet(*address)),
                Transport::Udp => Some(Address::Datagram(*address)),
                Transport::Sctp | Transport::UdpLite => None,
            },
            Endpoint::Unix {
                name: UnixName::Path(path),
                ..
            } if endpoint.accepts() => Some(Address::Path(path.to_str()?.to_owned())),
            _ => None,
        }
    }

    /// The port, and whether it is one of UDP.
    pub fn port(&self) -> Option<(u16, bool)> {
        match self {
            Address::Inet(address) => Some((address.port(), false)),
            Address::Datagram(address) => Some((address.port(), true)),
            Address::Path(_) => None,
        }
    }

    /// Every address of the family, at the same port.
    pub fn wildcard(&self) -> Option<Address> {
        let every = |address: &SocketAddr| {
            let ip: IpAddr = match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            SocketAddr::new(ip, address.port())
        };
        match self {
            Address::Inet(address) => Some(Address::Inet(every(address))),
            Address::Datagram(address) => Some(Address::Datagram(every(address))),
            Address::Path(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) | Address::Datagram(address) => write!(f, "{address}"),
            Address::Path(path) => write!(f, "unix:{path}"),
        }
    }
}
