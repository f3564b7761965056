//! Bound sockets.

use super::identity::{PathIdentity, Rights};
use super::read_back::Effective;
use crate::config::Endpoint;
use crate::plan::{ListenerId, SocketKey};
use crate::sys::SharedFd;
use nix::sys::stat::lstat;
use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// A number that may not be known, in a socket that threads share.
#[derive(Debug)]
pub(super) struct Slot(AtomicU32);

impl Slot {
    /// No group has so many sockets.
    const UNKNOWN: u32 = u32::MAX;

    pub fn unknown() -> Slot {
        Slot(AtomicU32::new(Self::UNKNOWN))
    }

    pub fn get(&self) -> Option<u32> {
        let number = self.0.load(Ordering::Relaxed);
        (number != Self::UNKNOWN).then_some(number)
    }

    pub fn set(&self, number: Option<u32>) {
        self.0
            .store(number.unwrap_or(Self::UNKNOWN), Ordering::Relaxed);
    }
}

/// O_NONBLOCK of an open file, as long as it is known. It belongs to all processes that have the file, and
/// each of them can change it at any time.
#[derive(Debug)]
pub(super) struct KnownFlag(AtomicU8);

impl KnownFlag {
    const CLEAR: u8 = 0;
    // 1 is set.
    const UNKNOWN: u8 = 2;

    /// The flag of a file that another process has, or may have had.
    pub fn unknown() -> KnownFlag {
        KnownFlag(AtomicU8::new(Self::UNKNOWN))
    }

    /// The flag of a file that was opened here, and is clear.
    pub fn clear() -> KnownFlag {
        KnownFlag(AtomicU8::new(Self::CLEAR))
    }

    /// Whether the flag is known to be so.
    pub fn is(&self, set: bool) -> bool {
        self.0.load(Ordering::Relaxed) == u8::from(set)
    }

    /// Records that the flag was set to `set`. Means nothing if other processes have the file.
    pub fn note(&self, set: bool) {
        if self.0.load(Ordering::Relaxed) != Self::UNKNOWN {
            self.0.store(u8::from(set), Ordering::Relaxed);
        }
    }

    /// Another process gets the file.
    pub fn forget(&self) {
        self.0.store(Self::UNKNOWN, Ordering::Relaxed);
    }
}

/// A bound socket, or an open FIFO, message queue or special file.
#[derive(Debug)]
pub struct BoundSocket {
    /// The descriptor itself: CLOEXEC. Sockets that were bound here are blocking until
    /// [`super::prepare_for_spawn`] says otherwise.
    pub fd: SharedFd,
    /// The key of the socket in the table.
    pub key: SocketKey,
    /// The index of the socket among those at its address, from 0.
    pub shard: u32,
    /// The number by which the kernel knows it among those, as far as that is known ([`super::shards`]).
    pub(super) slot: Slot,
    /// O_NONBLOCK, while no other process has had the socket.
    pub(super) nonblocking: KnownFlag,
    /// The listener of the socket, or the one that had it last.
    pub listener: ListenerId,
    /// The address as configured, with the port that the kernel chose for port 0.
    pub address: Endpoint,
    /// Whether the kernel chose the port, as far as is known: the configuration had port 0.
    pub(super) port_chosen: bool,
    /// The backlog, cut to `net.core.somaxconn` as listen(2) does. `None` for datagrams, and where the
    /// limit cannot be read.
    pub backlog: Option<u32>,
    /// The file of a unix socket that has a path, of a FIFO or of a message queue.
    pub identity: Option<PathIdentity>,
    /// Whether that file was made here, and so is to be removed. A FIFO or queue that was there, and
    /// a socket that was inherited, belong to somebody else.
    pub created: bool,
    /// Whether the socket was inherited ([`super::Adopted`]).
    pub is_adopted: bool,
    /// The effective values of the options.
    pub effective: Vec<Effective>,
    /// The other files created for the socket.
    pub artifacts: Artifacts,
}

/// What was created in the file system for a socket. Most have nothing, and may be thousands: one that was
/// not written to takes eight bytes.
#[derive(Debug, Default)]
pub struct Artifacts(Option<Box<FsArtifacts>>);

impl From<FsArtifacts> for Artifacts {
    fn from(artifacts: FsArtifacts) -> Artifacts {
        Artifacts((artifacts != NOTHING).then(|| artifacts.into()))
    }
}

impl Deref for Artifacts {
    type Target = FsArtifacts;

    fn deref(&self) -> &FsArtifacts {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Artifacts {
    fn deref_mut(&mut self) -> &mut FsArtifacts {
        self.0.get_or_insert_default()
    }
}

static NOTHING: FsArtifacts = FsArtifacts {
    symlinks: Vec::new(),
    spare: None,
    rights: None,
    stay: false,
};

/// The links and the second name created for a path, and its rights.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FsArtifacts {
    /// The symbolic links that lead to the path.
    pub symlinks: Vec<PathBuf>,
    /// The second name of a unix path's file, with which the path can be brought back.
    pub spare: Option<PathBuf>,
    /// The owner, group and mode that path or FIFO was given; `None` where they are not listend's to
    /// give.
    pub rights: Option<Rights>,
    /// Whether path and links stay when listend stops (`remove_on_stop: false`).
    pub stay: bool,
}

impl BoundSocket {
    /// The path of the socket, and the links that lead there.
    pub fn files(&self) -> Vec<Cow<'_, Path>> {
        if let Endpoint::MessageQueue { name } = &self.address {
            // mq_overview(7): where the file system is usually mounted.
            let file = Path::new("/dev/mqueue").join(name.trim_start_matches('/'));
            return vec![file.into()];
        }
        let path = self.address.path().filter(|_| self.identity.is_some());
        let links = self.artifacts.symlinks.iter().map(PathBuf::as_path);
        path.into_iter().chain(links).map(Cow::from).collect()
    }

    /// Another process gets a copy of the descriptor, and may change from now on what belongs to the open
    /// file.
    pub fn share(&self) {
        self.nonblocking.forget();
    }

    /// Notes the rights that its file has just been given.
    pub(super) fn note_rights(&mut self) {
        let (Some(path), Some(identity)) = (self.address.path(), self.identity) else {
            return;
        };
        let found = lstat(path).ok().filter(|_| self.created);
        let ours = found.filter(|found| PathIdentity::of(found) == identity);
        self.artifacts.rights = ours.map(|found| Rights::of(&found));
    }
}
