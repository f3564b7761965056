//! What the kernel tells about the listeners themselves: that one was shut down, that a path was
//! removed, that the machine has other addresses. Whatever was made in the file system is watched, and
//! every folder that leads there.
//!
//! Listeners are watched for EPOLLHUP, which is reported without being asked for and says that a worker
//! has called shutdown(2); unix ones for EPOLLRDHUP as well. Clients are the workers' business and wake
//! nobody here, but where a worker is yet to be started for them, or they are accepted here ([`Role`]).

use super::clients::Role;
use super::token::Token;
use crate::config::Endpoint;
use crate::core::{Mono, retry_delay};
use crate::listener::{BoundSocket, SocketTable, in_network_namespace, leads_elsewhere};
use crate::plan::{ListenerId, SocketKey};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR (rtnetlink(7)).
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

/// What is asked about a folder that has files of ours.
const FILES: AddWatchFlags = AddWatchFlags::IN_DELETE
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(ITSELF);
/// What is asked about one that leads there.
const ITSELF: AddWatchFlags = AddWatchFlags::IN_MOVE_SELF.union(AddWatchFlags::IN_DELETE_SELF);

/// What the process sees mounted; a change is told as EPOLLPRI, once (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

/// So many sockets are watched in one turn, of those that may wait.
const AT_ONCE: usize = 500;

/// How long files are not watched when listend begins to stop.
const REST: Duration = Duration::from_secs(1);

/// Whose files are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Socket(SocketKey),
    /// The socket that `listend status` and its like ask.
    Control,
    /// The socket that workers send their messages to.
    Notify,
    /// The socket at which workers of einhorn say that they are up.
    Acks,
}

/// What is being watched.
pub(super) struct Watch {
    inotify: Option<Inotify>,
    folders: HashMap<WatchDescriptor, Folder>,
    /// What clients mean at a listener, where that is something.
    roles: BTreeMap<ListenerId, Role>,
    /// Routing sockets, while somebody waits for an address: one in each network namespace where that
    /// may come, with its path.
    addresses: Vec<(Option<PathBuf>, OwnedFd)>,
    /// The table of mounts, while a listener is in a network namespace that has a path: one that is made anew is
    /// mounted there (ip-netns(8)), of which inotify(7) does not tell.
    mounts: Option<File>,
    /// Sockets without an accept queue that clients mean nothing at for now: their errors are the
    /// worker's.
    parked: BTreeSet<SocketKey>,
    /// Sockets that nobody is waited for at, and whose end is watched as soon as there is time for it.
    pending: BTreeSet<SocketKey>,
    /// Sockets of listend's own that could not be repaired: how often, and when they are looked at again.
    damaged: BTreeMap<Owner, (u32, Mono)>,
    rest: FileRest,
}

/// Whether files are watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileRest {
    /// They are.
    NotYet,
    /// Not until then.
    Until(Mono),
    /// They are again.
    Over,
}

/// A folder that is watched.
#[derive(Default)]
struct Folder {
    /// Whose files have which names in it.
    names: HashMap<OsString, BTreeSet<Owner>>,
    /// Whose files are further below: they go when it is moved or removed.
    below: BTreeSet<Owner>,
}

impl Folder {
    fn owners(&self) -> impl Iterator<Item = Owner> {
        let named = self.names.values().flatten();
        named.chain(&self.below).copied()
    }
}

impl Watch {
    /// Nothing is watched yet.
    pub(super) fn new(roles: BTreeMap<ListenerId, Role>) -> Watch {
        Watch {
            inotify: None,
            folders: HashMap::new(),
            roles,
            addresses: Vec::new(),
            mounts: None,
            parked: BTreeSet::new(),
            pending: BTreeSet::new(),
            damaged: BTreeMap::new(),
            rest: FileRest::NotYet,
        }
    }

    /// How long a socket of listend's own is left alone that cannot be repaired now.
    pub(super) fn repair_delay(&self, owner: Owner) -> Duration {
        retry_delay(self.damaged.get(&owner).map_or(0, |(times, _)| *times))
    }

    /// Notes whether such a socket is in order now.
    pub(super) fn note_own(&mut self, owner: Owner, is_sound: bool, now: Mono) {
        let again = now + self.repair_delay(owner);
        if is_sound {
            self.damaged.remove(&owner);
        } else {
            let (times, at) = self.damaged.entry(owner).or_insert((0, again));
            (*times, *at) = (times.saturating_add(1), again);
        }
    }

    /// Which of them are to be looked at again.
    pub(super) fn damaged_own(&self, now: Mono) -> Vec<Owner> {
        let due = self.damaged.iter().filter(|(_, (_, at))| *at <= now);
        due.map(|(owner, _)| *owner).collect()
    }

    /// When [`Watch::damaged_own`] has the next one, or [`Watch::has_rested`] is to be asked.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let damaged = self.damaged.values().map(|(_, at)| *at);
        damaged.chain(self.rests_until()).min()
    }

    /// Whether clients mean nothing at a socket for now.
    pub(super) fn is_parked(&self, key: SocketKey) -> bool {
        self.parked.contains(&key)
    }

    /// What clients mean at a listener.
    pub(super) fn role(&self, listener: ListenerId) -> Role {
        let role = self.roles.get(&listener);
        role.copied().unwrap_or(Role::Held)
    }

    /// Clients mean something else from now on.
    pub(super) fn set_roles(&mut self, roles: BTreeMap<ListenerId, Role>) {
        self.roles = roles;
    }

    /// Stops watching these sockets, and their files.
    pub(super) fn forget(&mut self, epoll: &Epoll, sockets: &[&BoundSocket]) {
        let keys: BTreeSet<SocketKey> = sockets.iter().map(|socket| socket.key).collect();
        for socket in sockets {
            self.unwatch(epoll, socket);
            self.parked.remove(&socket.key);
        }
        let stays = |owner: &Owner| !matches!(owner, Owner::Socket(key) if keys.contains(key));
        self.folders.retain(|descriptor, folder| {
            folder.names.retain(|_, owners| {
                owners.retain(stays);
                !owners.is_empty()
            });
            folder.below.retain(stays);
            let is_needed = folder.owners().next().is_some();
            if !is_needed && let Some(inotify) = &self.inotify {
                let _is_gone_with_the_folder = inotify.rm_watch(*descriptor);
            }
            is_needed
        });
    }

    /// Starts or stops telling about clients at a socket. It is still watched for its end, if it is
    /// one that can be shut down.
    ///
    /// The socket stays in the set: to add one that is also in a worker's set takes a lock that the whole machine
    /// shares (`epnested_mutex`), and that any process can hold.
    pub(super) fn clients(&mut self, epoll: &Epoll, socket: &BoundSocket, wanted: bool) {
        if self.pending.contains(&socket.key) {
            self.end(epoll, socket);
        }
        let flags = match (wanted, socket.address.accepts()) {
            (true, _) => EpollFlags::EPOLLIN | end_of(socket),
            (false, true) => end_of(socket),
            // What has no accept queue could go on to report errors that nobody here can take.
            (false, false) => EpollFlags::EPOLLONESHOT,
        };
        match flags == EpollFlags::EPOLLONESHOT {
            true => self.parked.insert(socket.key),
            false => self.parked.remove(&socket.key),
        };
        let mut event = EpollEvent::new(flags, Token::Socket(socket.key).pack());
        match epoll.modify(&socket.fd, &mut event) {
            // Not there, because it was damaged: it is watched again when it is repaired.
            Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => {}
            Err(errno) => log::warn!("cannot watch {}: {}", socket.address, errno.desc()),
        }
    }

    /// Watches every socket. What cannot be watched is logged: it works, but does not heal. Thousands that are
    /// only held wait for the next turns ([`Watch::more`]): whoever asks listend comes before them.
    pub(super) fn everything(&mut self, epoll: &Epoll, sockets: &SocketTable) {
        for socket in sockets.iter() {
            if self.role(socket.listener) == Role::Held && socket.address.accepts() {
                self.pending.insert(socket.key);
                self.files(epoll, Owner::Socket(socket.key), &socket.files());
            } else {
                self.socket(epoll, socket);
            }
        }
    }

    /// Whether there are more to watch.
    pub(super) fn is_to_go_on(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Watches some of those that wait for that. One that has ended meanwhile is told of all the same.
    pub(super) fn more(&mut self, epoll: &Epoll, sockets: &SocketTable) {
        for _ in 0..AT_ONCE {
            let Some(key) = self.pending.pop_first() else {
                return;
            };
            if let Some(socket) = sockets.get(key) {
                self.end(epoll, socket);
            }
        }
    }

    /// Watches one socket, new or repaired.
    pub(super) fn socket(&mut self, epoll: &Epoll, socket: &BoundSocket) {
        self.end(epoll, socket);
        self.files(epoll, Owner::Socket(socket.key), &socket.files());
    }

    /// Watches for the end of a socket, and for clients where they mean something.
    fn end(&mut self, epoll: &Epoll, socket: &BoundSocket) {
        self.pending.remove(&socket.key);
        let role = self.role(socket.listener);
        if socket.address.accepts() || role != Role::Held {
            let flags = match role {
                Role::Held => end_of(socket),
                Role::Watched | Role::Accepted { .. } => EpollFlags::EPOLLIN | end_of(socket),
            };
            self.parked.remove(&socket.key);
            let event = EpollEvent::new(flags, Token::Socket(socket.key).pack());
            match epoll.add(&socket.fd, event) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => log::warn!("cannot watch {}: {}", socket.address, errno.desc()),
            }
        }
    }

    /// Watches files, and every folder that leads to one: what is not watched does not heal.
    pub(super) fn files(&mut self, epoll: &Epoll, owner: Owner, files: &[Cow<'_, Path>]) {
        for file in files {
            let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
                continue;
            };
            let note = |folder: &mut Folder| {
                let names = &mut folder.names;
                names.entry(name.to_owned()).or_default().insert(owner);
            };
            match self.folder(epoll, folder, FILES, note) {
                // One that is not there is watched when it has been made again.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => log::warn!("cannot watch {}: {}", folder.display(), errno.desc()),
            }
            for above in folder.ancestors().skip(1) {
                // It may be one that may not be read (inotify(7)): then its end is not told.
                let _without = self.folder(epoll, above, ITSELF, |folder| {
                    folder.below.insert(owner);
                });
            }
        }
    }

    /// Stops watching a socket until it has been repaired: its event would come for ever.
    pub(super) fn unwatch(&mut self, epoll: &Epoll, socket: &BoundSocket) {
        self.pending.remove(&socket.key);
        let _not_watched = epoll.delete(&socket.fd);
    }

    /// Watches no files for a moment, once, if they are those of listend's own sockets. Before the kernel closes what
    /// watches files, it waits for milliseconds until nobody looks at what was watched (`fsnotify_destroy_group`),
    /// and a process that ends waits for that; what was given up some time before is not waited for.
    pub(super) fn rest(&mut self, now: Mono) {
        let is_of_socket = |owner: Owner| matches!(owner, Owner::Socket(_));
        let mut folders = self.folders.values();
        let has_others = folders.any(|folder| folder.owners().any(is_of_socket));
        if self.rest != FileRest::NotYet || has_others {
            return;
        }
        for descriptor in std::mem::take(&mut self.folders).into_keys() {
            if let Some(inotify) = &self.inotify {
                let _is_gone_with_the_folder = inotify.rm_watch(descriptor);
            }
        }
        self.rest = FileRest::Until(now + REST);
    }

    /// When files are to be watched again.
    fn rests_until(&self) -> Option<Mono> {
        match self.rest {
            FileRest::Until(at) => Some(at),
            FileRest::NotYet | FileRest::Over => None,
        }
    }

    /// Whether files are to be watched again now. That is answered once.
    pub(super) fn has_rested(&mut self, now: Mono) -> bool {
        let has_rested = self.rests_until().is_some_and(|at| at <= now);
        if has_rested {
            self.rest = FileRest::Over;
        }
        has_rested
    }

    /// A folder is asked for each time: one that is made anew at the same place is another one, even if
    /// nothing was told of the end of the former, which lasts as long as anybody has a socket in it.
    fn folder(
        &mut self,
        epoll: &Epoll,
        path: &Path,
        news: AddWatchFlags,
        note: impl FnOnce(&mut Folder),
    ) -> nix::Result<()> {
        let inotify = match &self.inotify {
            Some(inotify) => inotify,
            None => {
                let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Paths.pack());
                epoll.add(&inotify, event)?;
                self.inotify.insert(inotify)
            }
        };
        // One folder may be asked about for two reasons.
        let add = AddWatchFlags::from_bits_retain(nix::libc::IN_MASK_ADD);
        let flags = news | AddWatchFlags::IN_ONLYDIR | add;
        let descriptor = inotify.add_watch(path, flags)?;
        note(self.folders.entry(descriptor).or_default());
        Ok(())
    }

    /// Whose files were removed, renamed or given other rights, or whose folder was; and who is to be
    /// watched anew, because a folder has gone from its place.
    pub(super) fn changes(&mut self) -> (BTreeSet<Owner>, BTreeSet<Owner>) {
        let mut events = Vec::new();
        if let Some(inotify) = &self.inotify {
            while let Ok(more) = inotify.read_events() {
                events.extend(more);
            }
        }
        let (mut changed, mut moved) = (BTreeSet::new(), BTreeSet::new());
        for event in events {
            let gone = AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_UNMOUNT
                | AddWatchFlags::IN_IGNORED;
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                // It may have swallowed anything.
                moved.extend(self.folders.values().flat_map(Folder::owners));
            } else if event.mask.intersects(gone) {
                let folder = self.folders.remove(&event.wd);
                moved.extend(folder.iter().flat_map(Folder::owners));
                if let Some(inotify) = &self.inotify {
                    let _is_gone_with_the_folder = inotify.rm_watch(event.wd);
                }
            } else if let Some(name) = &event.name
                && let Some(folder) = self.folders.get(&event.wd)
            {
                changed.extend(folder.names.get(name).into_iter().flatten());
            }
        }
        changed.extend(&moved);
        (changed, moved)
    }

    /// Watches the addresses of these network namespaces, and of no others.
    pub(super) fn addresses(&mut self, epoll: &Epoll, namespaces: &BTreeSet<Option<&Path>>) {
        for (_, routing) in self.addresses.drain(..) {
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
                Ok(routing) => {
                    let path = namespace.map(Path::to_owned);
                    self.addresses.push((path, routing));
                }
                Err(errno) => {
                    let place = namespace.map_or_else(String::new, |path| {
                        format!(" in network namespace {}", path.display())
                    });
                    log::warn!("cannot watch for addresses{place}: {}", errno.desc());
                }
            }
        }
    }

    /// Whether some are watched in a network namespace that its path does not lead to any more.
    pub(super) fn watches_former_addresses(&self) -> bool {
        let mut inside = self.addresses.iter();
        inside.any(|(path, routing)| {
            let path = path.as_deref();
            path.is_some_and(|path| leads_elsewhere(path, routing))
        })
    }

    /// Watches what is mounted, or not any more.
    pub(super) fn mounts(&mut self, epoll: &Epoll, wanted: bool) {
        if wanted == self.mounts.is_some() {
            return;
        }
        if let Some(mounts) = self.mounts.take() {
            // By hand, as above.
            let _not_watched = epoll.delete(&mounts);
            return;
        }
        let watched = File::open(MOUNTS).and_then(|mounts| {
            let event = EpollEvent::new(EpollFlags::EPOLLPRI, Token::Mounts.pack());
            epoll.add(&mounts, event)?;
            Ok(mounts)
        });
        match watched {
            Ok(mounts) => self.mounts = Some(mounts),
            Err(error) => log::warn!("cannot watch network namespaces: {MOUNTS}: {error}"),
        }
    }

    /// Whether some are watched.
    pub(super) fn watches_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Takes the news about addresses. What they say does not matter: binding is tried, and knows.
    pub(super) fn drain_addresses(&self) {
        let mut buffer = [0u8; 8192];
        for (_, routing) in &self.addresses {
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
    match socket.address {
        Endpoint::Unix { .. } if socket.address.accepts() => EpollFlags::EPOLLRDHUP,
        Endpoint::Inet { .. } if socket.address.accepts() => {
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
