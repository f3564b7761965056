//! Binding everything a plan names, and collecting every failure.

use super::bound::{Bound, BoundListener, BoundSocket, Traces, as_backlog};
use super::lock::PathLock;
use super::{inet, symlink, unix_path};
use crate::config::{Endpoint, Transport, UnixName};
use crate::plan::{ListenerId, ListenerPlan, Plan, SocketPlan};
use socket2::Socket;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// How often `localhost:0` looks for a port that is free on both loopbacks.
const PORT_ATTEMPTS: u32 = 16;

/// What binding is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve.
    Keep,
    /// To see whether it would work: leaves no socket, no path and no folder behind, and does
    /// not touch a stale path.
    Try,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was bound, also if there are errors; empty listeners when only tried.
    pub bound: Bound,
    /// Every failure, in the order of the plan.
    pub errors: Vec<BindError>,
    /// What went well, but not in the way that was written.
    pub notes: Vec<Note>,
}

/// The steps of binding one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindStep {
    /// mkdir(2) of a parent folder of a unix path, or reaching it.
    CreateFolder,
    /// lstat(2) and connect(2), to see what is at a unix path.
    Probe,
    /// unlink(2) of a stale unix socket.
    RemoveStale,
    /// socket(2).
    Socket,
    /// setsockopt(2) of the named option.
    SetOption(&'static str),
    /// bind(2).
    Bind,
    /// chown(2) of a unix path.
    SetOwner,
    /// chmod(2) of a unix path.
    SetMode,
    /// listen(2).
    Listen,
    /// open(2) or flock(2) of the lock file of a unix path.
    Lock,
    /// symlink(2) or rename(2) of a link to a unix path.
    Symlink,
    /// Reading back what was bound: getsockname(2), or stat(2) of a unix path.
    ReadBack,
}

/// What stands in the way, where an errno alone would not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A server is bound to the unix path and answers.
    LiveServer,
    /// The unix path is taken by something that is no socket; in words, with its article.
    NotASocket(&'static str),
    /// There is a socket at the path, and connect(2) may not say whether it is alive.
    Unprobed,
    /// Somebody else changed the path in the middle of it.
    Interference,
    /// Another listend holds the lock of the path.
    Locked {
        /// Who, where that can be seen (proc_locks(5)).
        pid: Option<i32>,
    },
}

/// One socket that could not be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindError {
    /// Of which listener.
    pub listener: ListenerId,
    /// Index into [`ListenerPlan::sockets`].
    pub socket: usize,
    /// What failed.
    pub step: BindStep,
    /// What the system call answered; EADDRINUSE or EEXIST where there was an obstacle instead.
    pub errno: i32,
    /// What was in the way, if it is known.
    pub obstacle: Option<Obstacle>,
    /// The path the step was about: a folder, or the unix path.
    pub path: Option<PathBuf>,
}

/// Something that went well, but not in the way that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A unix socket nobody listened on was replaced.
    StaleReplaced {
        /// Of which listener.
        listener: ListenerId,
        /// Index into [`ListenerPlan::sockets`].
        socket: usize,
    },
    /// The same, were it not only tried.
    StaleWouldBeReplaced {
        /// Of which listener.
        listener: ListenerId,
        /// Index into [`ListenerPlan::sockets`].
        socket: usize,
    },
    /// This machine has no IPv6, or no ::1, and the address can do without.
    FamilyMissing {
        /// Of which listener.
        listener: ListenerId,
        /// Index into [`ListenerPlan::sockets`].
        socket: usize,
        /// EAFNOSUPPORT or EADDRNOTAVAIL.
        errno: i32,
        /// What was bound in its place; `None` where it was left out.
        instead: Option<Endpoint>,
    },
}

/// A failure before it is known whose it is.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: BindStep,
    pub(super) errno: i32,
    pub(super) obstacle: Option<Obstacle>,
    pub(super) path: Option<PathBuf>,
}

impl Failure {
    pub(super) fn new(step: BindStep, error: impl Into<io::Error>) -> Failure {
        Failure {
            step,
            // socket2 refuses a path that is too long before the kernel sees it.
            errno: error
                .into()
                .raw_os_error()
                .unwrap_or(nix::libc::ENAMETOOLONG),
            obstacle: None,
            path: None,
        }
    }

    pub(super) fn about(mut self, path: impl Into<PathBuf>) -> Failure {
        self.path = Some(path.into());
        self
    }

    pub(super) fn because(mut self, obstacle: Obstacle) -> Failure {
        self.obstacle = Some(obstacle);
        self
    }

    /// Says whose it is.
    pub(super) fn of(self, listener: ListenerId, socket: usize) -> BindError {
        BindError {
            listener,
            socket,
            step: self.step,
            errno: self.errno,
            obstacle: self.obstacle,
            path: self.path,
        }
    }
}

/// Binds every socket of the plan and listens on those where clients queue. Goes on after a
/// failure, so that one run shows them all.
///
/// The sockets that could be bound are in the outcome also if others failed; a caller that gives
/// up calls [`Bound::remove_paths`] and drops them.
///
/// What is among `adopted` (see [`super::match_up`]) is bound already, and taken as it is.
pub fn bind_all(
    plan: &Plan,
    purpose: Purpose,
    adopted: HashMap<(ListenerId, usize), OwnedFd>,
) -> Outcome {
    let mut binder = Binder {
        purpose,
        somaxconn: read_somaxconn(),
        adopted,
        held: None,
        outcome: Outcome::default(),
    };
    binder.outcome.bound.listeners.reserve(plan.listeners.len());
    for (number, listener) in plan.listeners.iter().enumerate() {
        // A plan comes from YAML text that fits into memory; it has fewer than 2³² listeners.
        let id = ListenerId(u32::try_from(number).unwrap_or(u32::MAX));
        let bound = binder.listener(id, listener);
        binder.outcome.bound.listeners.push(bound);
    }
    let mut outcome = binder.outcome;
    if purpose == Purpose::Try {
        // Held until here, so that two sockets of one plan are seen to collide. What cannot be
        // removed again is something that somebody else put there meanwhile.
        let _ = outcome.bound.remove_everything();
        for folder in outcome.bound.created_folders.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
        outcome.bound = Bound {
            listeners: plan
                .listeners
                .iter()
                .map(|_| BoundListener::default())
                .collect(),
            created_folders: Vec::new(),
        };
    }
    outcome
}

fn read_somaxconn() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    text.trim().parse().ok()
}

/// Binds one socket of the plan once more, for one that is damaged beyond repair. `held` is the
/// lock of its path; `endpoint` is the planned one, or has the port that it had.
pub(super) fn bind_again(
    plan: &Plan,
    listener: ListenerId,
    socket: usize,
    endpoint: &Endpoint,
    held: Option<Arc<PathLock>>,
) -> Result<BoundSocket, BindError> {
    let mut binder = Binder {
        purpose: Purpose::Keep,
        somaxconn: read_somaxconn(),
        adopted: HashMap::new(),
        held,
        outcome: Outcome::default(),
    };
    let result = binder.socket(listener, plan.listener(listener), socket, endpoint);
    let missing = Failure::new(BindStep::Bind, nix::errno::Errno::EADDRNOTAVAIL);
    let result = result.and_then(|bound| bound.ok_or(missing));
    result.map_err(|failure| failure.of(listener, socket))
}

struct Binder {
    purpose: Purpose,
    somaxconn: Option<u32>,
    /// What need not be bound.
    adopted: HashMap<(ListenerId, usize), OwnedFd>,
    /// The lock of the path that is bound again.
    held: Option<Arc<PathLock>>,
    outcome: Outcome,
}

impl Binder {
    fn listener(&mut self, id: ListenerId, plan: &ListenerPlan) -> BoundListener {
        let mut sockets = Vec::with_capacity(plan.sockets.len());
        let mut index = 0;
        while index < plan.sockets.len() {
            let adopted = |at| self.adopted.contains_key(&(id, at));
            let taken = if is_localhost_pair(plan, index) && !adopted(index) && !adopted(index + 1)
            {
                self.loopback_pair(id, plan, index, &mut sockets);
                2
            } else {
                self.one(id, plan, index, &mut sockets);
                1
            };
            index += taken;
        }
        BoundListener { sockets }
    }

    fn one(
        &mut self,
        id: ListenerId,
        plan: &ListenerPlan,
        index: usize,
        sockets: &mut Vec<BoundSocket>,
    ) {
        let result = self.socket(id, plan, index, &plan.sockets[index].endpoint);
        self.file(id, index, result, sockets);
    }

    /// `localhost:0`: both loopbacks get one and the same port.
    fn loopback_pair(
        &mut self,
        id: ListenerId,
        plan: &ListenerPlan,
        index: usize,
        sockets: &mut Vec<BoundSocket>,
    ) {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let first = self.socket(id, plan, index, &plan.sockets[index].endpoint);
            let port = match &first {
                Ok(Some(socket)) => port_of(&socket.address),
                _ => None,
            };
            let Some(port) = port else {
                // The first is missing or failed: the second stands alone.
                self.file(id, index, first, sockets);
                return self.one(id, plan, index + 1, sockets);
            };
            let wanted = with_port(&plan.sockets[index + 1].endpoint, port);
            let second = self.socket(id, plan, index + 1, &wanted);
            if matches!(&second, Err(failure) if failure.errno == nix::libc::EADDRINUSE)
                && attempts < PORT_ATTEMPTS
            {
                // Dropping `first` frees its port; the kernel chooses ports at random.
                continue;
            }
            self.file(id, index, first, sockets);
            self.file(id, index + 1, second, sockets);
            return;
        }
    }

    fn file(
        &mut self,
        listener: ListenerId,
        socket: usize,
        result: Result<Option<BoundSocket>, Failure>,
        sockets: &mut Vec<BoundSocket>,
    ) {
        match result {
            Ok(Some(bound)) => sockets.push(bound),
            Ok(None) => {}
            Err(failure) => self.outcome.errors.push(failure.of(listener, socket)),
        }
    }

    /// Binds one socket; `None` is an optional one that this machine lacks.
    fn socket(
        &mut self,
        listener: ListenerId,
        plan: &ListenerPlan,
        index: usize,
        endpoint: &Endpoint,
    ) -> Result<Option<BoundSocket>, Failure> {
        let planned = &plan.sockets[index].endpoint;
        if let Some(fd) = self.adopted.remove(&(listener, index)) {
            return adopt(fd, plan, index, self.somaxconn).map(Some);
        }
        let mut identity = None;
        let mut traces = Traces::default();
        let mut address = endpoint.clone();
        let raw = match endpoint {
            Endpoint::Inet {
                transport,
                address: wanted,
                v6_only,
                optional,
                ..
            } => match inet::bind(*transport, *wanted, *v6_only, plan.backlog) {
                Err(failure) if *optional && lacks_family(&failure) => {
                    let fallback = inet::without_ipv6(*transport, *wanted, *v6_only);
                    let errno = failure.errno;
                    let instead = fallback.clone();
                    let raw = match fallback {
                        Some(Endpoint::Inet {
                            transport,
                            address,
                            v6_only,
                            ..
                        }) => Some(inet::bind(transport, address, v6_only, plan.backlog)?),
                        _ => None,
                    };
                    self.outcome.notes.push(Note::FamilyMissing {
                        listener,
                        socket: index,
                        errno,
                        instead: instead.clone(),
                    });
                    match (raw, instead) {
                        (Some(raw), Some(instead)) => {
                            address = instead;
                            raw
                        }
                        _ => return Ok(None),
                    }
                }
                result => result?,
            },
            Endpoint::Unix { kind, name } => {
                let raw = match name {
                    UnixName::Path(path) => {
                        let folders = &mut self.outcome.bound.created_folders;
                        let held = self.held.take();
                        let done = unix_path::bind(
                            *kind,
                            path,
                            &plan.access,
                            self.purpose,
                            folders,
                            held,
                        )?;
                        if done.stale {
                            self.outcome.notes.push(match self.purpose {
                                Purpose::Keep => Note::StaleReplaced {
                                    listener,
                                    socket: index,
                                },
                                Purpose::Try => Note::StaleWouldBeReplaced {
                                    listener,
                                    socket: index,
                                },
                            });
                        }
                        let Some((raw, file)) = done.bound else {
                            return symlink::check(path, links_of(plan, index)).map(|()| None);
                        };
                        identity = Some(file);
                        traces.lock = done.lock;
                        raw
                    }
                    UnixName::Abstract(name) => unix_path::bind_abstract(*kind, name)?,
                };
                if endpoint.accepts()
                    && let Err(error) = raw.listen(as_backlog(plan.backlog))
                {
                    traces.take_back(endpoint.path(), identity);
                    return Err(Failure::new(BindStep::Listen, error));
                }
                // Behind listen(2): whoever follows a link is to be served.
                if let Some(path) = endpoint.path() {
                    let links = links_of(plan, index);
                    let folders = &mut self.outcome.bound.created_folders;
                    let made = match self.purpose {
                        Purpose::Keep => symlink::make(path, links, &plan.access, folders),
                        Purpose::Try => symlink::check(path, links),
                    };
                    if let Err(failure) = made {
                        traces.take_back(Some(path), identity);
                        return Err(failure);
                    }
                    if self.purpose == Purpose::Keep {
                        traces.symlinks = links.to_vec();
                        traces.stay = !plan.remove_on_stop;
                    }
                }
                raw
            }
            _ => {
                return Err(Failure::new(
                    BindStep::Socket,
                    nix::errno::Errno::EPROTONOSUPPORT,
                ));
            }
        };
        read_back_port(&raw, &mut address)?;
        Ok(Some(BoundSocket {
            fd: raw.into(),
            planned: index,
            endpoint: planned.clone(),
            address,
            backlog: self
                .somaxconn
                .filter(|_| endpoint.accepts())
                .map(|limit| plan.backlog.min(limit)),
            identity,
            traces,
        }))
    }
}

/// The links that lead to this socket: those of the listener lead to its first path.
fn links_of(plan: &ListenerPlan, index: usize) -> &[PathBuf] {
    let is_path = |socket: &SocketPlan| socket.endpoint.path().is_some();
    if plan.sockets.iter().position(is_path) == Some(index) {
        &plan.symlinks
    } else {
        &[]
    }
}

/// Takes over a socket that somebody else has bound: it is listened on with our backlog, and its
/// path, which is theirs, is never removed.
fn adopt(
    fd: OwnedFd,
    plan: &ListenerPlan,
    index: usize,
    somaxconn: Option<u32>,
) -> Result<BoundSocket, Failure> {
    let endpoint = &plan.sockets[index].endpoint;
    let raw = Socket::from(fd);
    if endpoint.accepts() {
        raw.listen(as_backlog(plan.backlog))
            .map_err(|error| Failure::new(BindStep::Listen, error))?;
    }
    let mut address = endpoint.clone();
    read_back_port(&raw, &mut address)?;
    Ok(BoundSocket {
        fd: raw.into(),
        planned: index,
        endpoint: endpoint.clone(),
        address,
        backlog: somaxconn
            .filter(|_| endpoint.accepts())
            .map(|limit| plan.backlog.min(limit)),
        identity: None,
        traces: Traces::default(),
    })
}

/// Only the kernel knows the port it chose; every other address is what was asked for, and
/// asking again would cost a system call for each of thousands of sockets.
fn read_back_port(raw: &Socket, endpoint: &mut Endpoint) -> Result<(), Failure> {
    if let Endpoint::Inet { address, .. } = endpoint
        && address.port() == 0
    {
        let real = raw
            .local_addr()
            .map_err(|error| Failure::new(BindStep::ReadBack, error))?;
        if let Some(real) = real.as_socket() {
            address.set_port(real.port());
        }
    }
    Ok(())
}

fn lacks_family(failure: &Failure) -> bool {
    matches!(
        failure.errno,
        nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL
    )
}

/// Whether the sockets at `index` and behind it are the two halves of `localhost:0`. Only the
/// IPv6 half of `localhost` is both optional and V6ONLY.
fn is_localhost_pair(plan: &ListenerPlan, index: usize) -> bool {
    let half = |index: usize| -> Option<(Transport, SocketAddr, bool)> {
        match &plan.sockets.get(index)?.endpoint {
            Endpoint::Inet {
                transport,
                address,
                v6_only,
                optional,
                ..
            } => Some((
                *transport,
                *address,
                address.is_ipv6() && *optional && *v6_only,
            )),
            _ => None,
        }
    };
    let (Some(first), Some(second)) = (half(index), half(index + 1)) else {
        return false;
    };
    let loopback_zero = |address: SocketAddr| address.ip().is_loopback() && address.port() == 0;
    first.0 == second.0
        && first.1.is_ipv4() != second.1.is_ipv4()
        && loopback_zero(first.1)
        && loopback_zero(second.1)
        && (first.2 || second.2)
}

fn port_of(endpoint: &Endpoint) -> Option<u16> {
    match endpoint {
        Endpoint::Inet { address, .. } => Some(address.port()),
        _ => None,
    }
}

fn with_port(endpoint: &Endpoint, port: u16) -> Endpoint {
    let mut endpoint = endpoint.clone();
    if let Endpoint::Inet { address, .. } = &mut endpoint {
        address.set_port(port);
    }
    endpoint
}
