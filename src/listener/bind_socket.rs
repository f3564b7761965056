//! Binds one socket, or opens another descriptor, of any kind.

use super::backlog::as_backlog;
use super::bind::Binder;
use super::bind_error::{BindStep, Failure, Note, NoteKind, Purpose};
use super::bound::{Artifacts, BoundSocket, FsArtifacts, KnownFlag, Slot};
use super::identity::remove_if_ours;
use super::inet::{self, Wanted};
use super::option::{Act, Options};
use super::paths::TriedAt;
use super::read_back::Effective;
use super::ready::Ready;
use super::special::Opened;
use super::unix_path::File;
use super::{inherited, mqueue, netlink, spare, special, symlink, unix_path, vsock};
use crate::config::options::Phase;
use crate::config::{Endpoint, UnixKind, UnixName};
use crate::plan::{ListenerId, ListenerPlan, SocketPlan};
use nix::errno::Errno;
use socket2::Socket;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

impl Binder {
    /// Binds one socket; `None` is one that this machine lacks and the plan can do without, or that
    /// could be tried only from outside.
    pub(super) fn socket(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        index: usize,
        endpoint: &Endpoint,
    ) -> Result<Option<BoundSocket>, Failure> {
        let folders = &mut self.outcome.bound.created_folders;
        let ready = match endpoint {
            Endpoint::Inet { .. } => self.inet(id, listener, index, endpoint)?,
            Endpoint::Unix { kind, name } => {
                let (kind, name) = (*kind, name);
                self.unix((id, index), listener, endpoint, (kind, name))?
            }
            Endpoint::Fifo { path } => {
                match special::fifo(endpoint, path, listener, self.purpose, folders)? {
                    Opened::Ready(ready) => Some(ready),
                    Opened::Tried(place) => {
                        self.only_once(place, path)?;
                        None
                    }
                }
            }
            Endpoint::Special { path, writable } => {
                special::special(endpoint, (path, *writable), self.purpose)?
            }
            Endpoint::MessageQueue { name } => {
                mqueue::open(endpoint, name, listener, self.purpose)?
            }
            Endpoint::Netlink {
                protocol,
                group,
                mask,
                ..
            } => {
                let groups = (*group, *mask);
                let (raw, effective) = netlink::bind(endpoint, *protocol, groups, listener)?;
                Some(Ready::new(raw, endpoint, effective))
            }
            Endpoint::Vsock { kind, cid, port } => {
                let (raw, effective) = vsock::bind(endpoint, (*kind, *cid, *port), listener)?;
                let mut ready = Ready::new(raw, endpoint, effective);
                if *port == vsock::ANY_PORT {
                    ready.address = inherited::bound_to(&ready.fd, endpoint)?;
                }
                Some(ready)
            }
        };
        self.with_links((id, index), listener, endpoint, ready)
    }

    /// Makes the links to a path. Behind listen(2): a client that follows a link is to be served.
    fn with_links(
        &mut self,
        (id, index): (ListenerId, usize),
        listener: &ListenerPlan,
        endpoint: &Endpoint,
        ready: Option<Ready>,
    ) -> Result<Option<BoundSocket>, Failure> {
        let links = links_of(listener, index);
        let Some(ready) = ready else {
            if let Some(path) = endpoint.path() {
                symlink::check(path, links)?;
            }
            return Ok(None);
        };
        let mut bound = self.bound(id, listener, index, ready);
        if let Some(path) = endpoint.path() {
            let folders = &mut self.outcome.bound.created_folders;
            let made = match self.purpose {
                Purpose::Keep => symlink::make(path, links, &listener.settings.access, folders),
                Purpose::Try => symlink::check(path, links),
            };
            if let Err(failure) = made {
                let _this_failure_is_told = bound.remove_path();
                return Err(failure);
            }
            if self.purpose == Purpose::Keep {
                bound.artifacts.symlinks = links.to_vec();
                bound.note_rights();
                bound.artifacts.spare = match (endpoint, bound.identity) {
                    (Endpoint::Unix { kind, .. }, Some(file)) => spare::make(*kind, path, file),
                    _ => None,
                };
            }
        }
        Ok(Some(bound))
    }

    pub(super) fn bound(
        &self,
        id: ListenerId,
        listener: &ListenerPlan,
        index: usize,
        ready: Ready,
    ) -> BoundSocket {
        let planned = &listener.sockets[index];
        let accepts = planned.endpoint.accepts();
        BoundSocket {
            fd: ready.fd.into(),
            key: planned.key,
            shard: planned.shard,
            slot: Slot::unknown(),
            nonblocking: match accepts && !ready.is_adopted {
                true => KnownFlag::clear(),
                false => KnownFlag::unknown(),
            },
            listener: id,
            backlog: self
                .somaxconn
                .filter(|_| accepts)
                .map(|limit| listener.settings.backlog.min(limit)),
            address: ready.address,
            port_chosen: planned.endpoint.port() == Some(0),
            identity: ready.identity,
            created: ready.created,
            is_adopted: ready.is_adopted,
            effective: ready.effective,
            artifacts: Artifacts::from(FsArtifacts {
                stay: !listener.settings.remove_on_stop,
                ..FsArtifacts::default()
            }),
        }
    }

    fn inet(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        socket: usize,
        endpoint: &Endpoint,
    ) -> Result<Option<Ready>, Failure> {
        let Endpoint::Inet {
            transport,
            address,
            v6_only,
            optional,
            scope,
        } = endpoint
        else {
            return Ok(None);
        };
        let wanted = Wanted {
            transport: *transport,
            address: inet::with_scope(*address, scope.as_deref())?,
            v6_only: *v6_only,
        };
        let ahead = self.ahead.take(id, socket).map(Ok);
        let bound = ahead.unwrap_or_else(|| inet::bind(endpoint, wanted, listener));
        let failure = match bound {
            Ok((raw, effective)) => {
                let mut ready = Ready::new(raw, endpoint, effective);
                if let Endpoint::Inet { address, .. } = &mut ready.address {
                    *address = wanted.address;
                }
                return with_port_read_back(ready).map(Some);
            }
            Err(failure) if *optional && lacks_family(&failure) => failure,
            Err(failure) => return Err(failure),
        };
        let instead = inet::without_ipv6(*transport, *address, *v6_only);
        let ready = match instead {
            Some(instead) => {
                let endpoint = instead.endpoint();
                let (raw, effective) = inet::bind(&endpoint, instead, listener)?;
                Some(with_port_read_back(Ready::new(raw, &endpoint, effective))?)
            }
            None => None,
        };
        let kind = NoteKind::FamilyMissing {
            errno: failure.errno,
            instead: instead.map(Wanted::endpoint),
        };
        let note = Note {
            listener: id,
            socket,
            kind,
        };
        self.outcome.notes.push(note);
        Ok(ready)
    }

    /// Two sockets of one plan cannot have one file, by whatever names.
    pub(super) fn only_once(&mut self, place: TriedAt, path: &Path) -> Result<(), Failure> {
        if self.tried.insert(place) {
            return Ok(());
        }
        Err(Failure::new(BindStep::Bind, Errno::EADDRINUSE).about(path))
    }

    fn unix(
        &mut self,
        (id, socket): (ListenerId, usize),
        listener: &ListenerPlan,
        endpoint: &Endpoint,
        (kind, name): (UnixKind, &UnixName),
    ) -> Result<Option<Ready>, Failure> {
        let mut identity = None;
        let raw = match name {
            UnixName::Path(path) => {
                let folders = &mut self.outcome.bound.created_folders;
                let done =
                    unix_path::bind(kind, path, &listener.settings.access, self.purpose, folders)?;
                if done.stale {
                    let kind = match self.purpose {
                        Purpose::Keep => NoteKind::StaleReplaced,
                        Purpose::Try => NoteKind::StaleWouldBeReplaced,
                    };
                    let note = Note {
                        listener: id,
                        socket,
                        kind,
                    };
                    self.outcome.notes.push(note);
                }
                match done.file {
                    File::Made(file) => identity = Some(file),
                    File::Tried(place) => self.only_once(place, path)?,
                }
                done.socket
            }
            UnixName::Abstract(name) => unix_path::bind_abstract(kind, name)?,
        };
        // A path is not bound if it is only to be tried.
        let is_bound = identity.is_some() || matches!(name, UnixName::Abstract(_));
        match finish_unix(&raw, endpoint, listener, is_bound) {
            Ok(effective) => Ok(Some(Ready {
                identity,
                created: identity.is_some(),
                ..Ready::new(raw, endpoint, effective)
            })),
            Err(failure) => {
                if let (Some(path), Some(identity)) = (endpoint.path(), identity) {
                    let _this_failure_is_told = remove_if_ours(path, identity);
                }
                Err(failure)
            }
        }
    }
}

/// The links that lead to this socket: those of the listener lead to its first path.
pub(super) fn links_of(listener: &ListenerPlan, index: usize) -> &[PathBuf] {
    let is_path = |socket: &SocketPlan| socket.endpoint.path().is_some();
    if listener.sockets.iter().position(is_path) == Some(index) {
        &listener.settings.symlinks
    } else {
        &[]
    }
}

/// Options, then listen(2). No option of a unix socket decides about its bind(2).
fn finish_unix(
    raw: &Socket,
    endpoint: &Endpoint,
    listener: &ListenerPlan,
    is_bound: bool,
) -> Result<Vec<Effective>, Failure> {
    let options = Options::new(&listener.settings.options, endpoint);
    let mut effective = Vec::new();
    for phase in [Phase::BeforeBind, Phase::BeforeListen] {
        options.apply(raw.as_fd(), phase, Act::Set, &mut effective)?;
    }
    if endpoint.accepts() && is_bound {
        raw.listen(as_backlog(listener.settings.backlog))
            .map_err(|error| Failure::new(BindStep::Listen, error))?;
    }
    Ok(effective)
}

/// Only the kernel knows the port it chose; every other address is what was asked for, and
/// asking again would cost a system call for each of thousands of sockets.
fn with_port_read_back(mut ready: Ready) -> Result<Ready, Failure> {
    if ready.address.port() == Some(0) {
        ready.address = inherited::bound_to(&ready.fd, &ready.address)?;
    }
    Ok(ready)
}

fn lacks_family(failure: &Failure) -> bool {
    matches!(
        failure.errno,
        nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL
    )
}
