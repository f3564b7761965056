//! What the kernel tells about the listeners themselves: that one was shut down, that a path was
//! removed, that the machine has other addresses.
//!
//! Listeners are watched for EPOLLHUP, which is reported without being asked for and says that a
//! worker has called shutdown(2); unix ones for EPOLLRDHUP as well. Clients are the workers' business and wake nobody here, but where
//! a worker is yet to be started for them, or they are accepted here ([`Role`]).

use super::clients::Role;
use super::turn::Token;
use crate::config::Endpoint;
use crate::listener::{Bound, BoundSocket, in_network_namespace};
use crate::plan::ListenerId;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR (rtnetlink(7)).
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

/// A socket, as the core names it.
pub(super) type SocketId = (ListenerId, u32);

/// What is being watched.
pub(super) struct Watch {
    /// The folders of unix paths, and which sockets are in which.
    inotify: Option<Inotify>,
    folders: HashMap<PathBuf, WatchDescriptor>,
    sockets: HashMap<WatchDescriptor, BTreeSet<SocketId>>,
    /// What clients mean at each listener.
    roles: Vec<Role>,
    /// Routing sockets, while somebody waits for an address: one in each network namespace where that
    /// may come.
    addresses: Vec<OwnedFd>,
}

impl Watch {
    /// Nothing is watched yet.
    pub(super) fn new(roles: Vec<Role>) -> Watch {
        Watch {
            inotify: None,
            folders: HashMap::new(),
            sockets: HashMap::new(),
            roles,
            addresses: Vec::new(),
        }
    }

    /// What clients mean at a listener.
    pub(super) fn role(&self, listener: ListenerId) -> Role {
        let role = self.roles.get(listener.0 as usize);
        role.copied().unwrap_or(Role::Held)
    }

    /// Clients mean something else from now on.
    pub(super) fn set_roles(&mut self, roles: Vec<Role>) {
        self.roles = roles;
    }

    /// Forgets which folders a listener's paths are in.
    pub(super) fn forget(&mut self, listener: ListenerId) {
        let of_it = |id: &SocketId| id.0 == listener;
        self.sockets.retain(|descriptor, sockets| {
            sockets.retain(|id| !of_it(id));
            if sockets.is_empty()
                && let Some(inotify) = &self.inotify
            {
                let _is_gone_with_the_folder = inotify.rm_watch(*descriptor);
                self.folders.retain(|_, known| known != descriptor);
            }
            !sockets.is_empty()
        });
    }

    /// Starts or stops telling about clients at a socket. It is still watched for its end, if it is
    /// one that can be shut down.
    pub(super) fn clients(&self, epoll: &Epoll, id: SocketId, socket: &BoundSocket, wanted: bool) {
        let flags = if wanted {
            EpollFlags::EPOLLIN | end_of(socket)
        } else {
            end_of(socket)
        };
        let mut event = EpollEvent::new(flags, Token::Listener(id).pack());
        // What has no accept queue could go on to report errors that nobody here can take.
        let done = match (wanted, socket.endpoint.accepts()) {
            (false, false) => epoll.delete(&socket.fd),
            (true, false) => epoll.add(&socket.fd, event),
            (true | false, true) => epoll.modify(&socket.fd, &mut event),
        };
        match done {
            // Not there, because it was damaged: it is watched again when it is repaired.
            Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => {}
            Err(errno) => log::warn!("cannot watch {}: {}", socket.address, errno.desc()),
        }
    }

    /// Watches every socket. What cannot be watched is logged: it works, but does not heal.
    pub(super) fn everything(&mut self, epoll: &Epoll, bound: &Bound) {
        for (id, listener) in (0..).map(ListenerId).zip(&bound.listeners) {
            for (index, socket) in (0..).zip(&listener.sockets) {
                self.socket(epoll, (id, index), socket);
            }
        }
    }

    /// Watches one socket, new or repaired.
    pub(super) fn socket(&mut self, epoll: &Epoll, id: SocketId, socket: &BoundSocket) {
        let role = self.role(id.0);
        if socket.endpoint.accepts() || role != Role::Held {
            let flags = match role {
                Role::Held => end_of(socket),
                Role::Watched | Role::Accepted { .. } => EpollFlags::EPOLLIN | end_of(socket),
            };
            let event = EpollEvent::new(flags, Token::Listener(id).pack());
            match epoll.add(&socket.fd, event) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => log::warn!("cannot watch {}: {}", socket.address, errno.desc()),
            }
        }
        if socket.identity.is_some()
            && let Some(folder) = socket.address.path().and_then(Path::parent)
            && let Err(errno) = self.folder(epoll, folder, id)
        {
            log::warn!("cannot watch {}: {}", folder.display(), errno.desc());
        }
    }

    /// Stops watching a socket until it has been repaired: its event would come for ever.
    pub(super) fn not(&self, epoll: &Epoll, socket: &BoundSocket) {
        let _not_watched = epoll.delete(&socket.fd);
    }

    fn folder(&mut self, epoll: &Epoll, folder: &Path, id: SocketId) -> nix::Result<()> {
        let inotify = match &self.inotify {
            Some(inotify) => inotify,
            None => {
                let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Paths.pack());
                epoll.add(&inotify, event)?;
                self.inotify.insert(inotify)
            }
        };
        let descriptor = match self.folders.get(folder) {
            Some(descriptor) => *descriptor,
            None => {
                let flags = AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_MOVED_FROM
                    | AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_MOVE_SELF
                    | AddWatchFlags::IN_DELETE_SELF
                    | AddWatchFlags::IN_ONLYDIR;
                let descriptor = inotify.add_watch(folder, flags)?;
                self.folders.insert(folder.to_owned(), descriptor);
                descriptor
            }
        };
        self.sockets.entry(descriptor).or_default().insert(id);
        Ok(())
    }

    /// The sockets in whose folders something was removed or renamed, or whose folder was.
    pub(super) fn sockets_to_look_at(&mut self) -> BTreeSet<SocketId> {
        let mut events = Vec::new();
        if let Some(inotify) = &self.inotify {
            while let Ok(more) = inotify.read_events() {
                events.extend(more);
            }
        }
        let mut found = BTreeSet::new();
        for event in events {
            // An overflow (a negative descriptor) may have swallowed anything.
            match self.sockets.get(&event.wd) {
                Some(sockets) => found.extend(sockets),
                None => found.extend(self.sockets.values().flatten()),
            }
            let gone = AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
            if event.mask.intersects(gone) {
                // A folder that is made anew at the same place is another one.
                self.folders.retain(|_, descriptor| *descriptor != event.wd);
                self.sockets.remove(&event.wd);
                if let Some(inotify) = &self.inotify {
                    let _is_gone_with_the_folder = inotify.rm_watch(event.wd);
                }
            }
        }
        found
    }

    /// Watches the addresses of these network namespaces, and of no others.
    pub(super) fn addresses(&mut self, epoll: &Epoll, namespaces: &BTreeSet<Option<&Path>>) {
        for routing in self.addresses.drain(..) {
            // Nobody else has it open, so that closing it removes it from the epoll set; by hand
            // all the same, for a child on its way to exec has a copy for a moment.
            let _not_watched = epoll.delete(&routing);
        }
        for namespace in namespaces {
            let routing = in_network_namespace(*namespace, routing_socket).unwrap_or_else(|| {
                // It may be made later; binding is tried again at intervals, too.
                Err(Errno::ENOENT)
            });
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Addresses.pack());
            match routing.and_then(|routing| epoll.add(&routing, event).map(|()| routing)) {
                Ok(routing) => self.addresses.push(routing),
                Err(errno) => {
                    let place = namespace.map_or_else(String::new, |path| {
                        format!(" in network namespace {}", path.display())
                    });
                    log::warn!("cannot watch for addresses{place}: {}", errno.desc());
                }
            }
        }
    }

    /// Whether some are watched.
    pub(super) fn watches_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Takes the news about addresses. What they say does not matter: binding is tried, and knows.
    pub(super) fn drain_addresses(&self) {
        let mut buffer = [0u8; 8192];
        for routing in &self.addresses {
            // ENOBUFS says that some were lost, which is news as well.
            while matches!(
                recv(routing.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT),
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR)
            ) {}
        }
    }
}

/// What has to be asked for to hear that a socket is no listener any more: of a unix socket, on which
/// SHUT_RD is enough to keep clients out, and is no EPOLLHUP; of an internet socket that a worker has
/// connected to somebody, which can be written to then. A listener never can.
fn end_of(socket: &BoundSocket) -> EpollFlags {
    match socket.endpoint {
        Endpoint::Unix { .. } if socket.endpoint.accepts() => EpollFlags::EPOLLRDHUP,
        Endpoint::Inet { .. } if socket.endpoint.accepts() => {
            EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLOUT
        }
        Endpoint::Unix { .. }
        | Endpoint::Inet { .. }
        | Endpoint::Vsock { .. }
        | Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Netlink { .. } => EpollFlags::empty(),
    }
}

fn routing_socket() -> nix::Result<OwnedFd> {
    let routing = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::NetlinkRoute,
    )?;
    bind(
        routing.as_fd().as_raw_fd(),
        &NetlinkAddr::new(0, ADDRESS_GROUPS),
    )?;
    Ok(routing)
}
