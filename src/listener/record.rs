//! What is known of a held socket that the kernel does not say: for another listend, which gets it.

use super::bind_socket::links_of;
use super::bound::{BoundSocket, FsArtifacts};
use super::diag::Diag;
use super::identity::{PathIdentity, Rights};
use super::{spare, symlink};
use crate::config::Endpoint;
use crate::plan::ListenerPlan;
use crate::report::describe;
use crate::walk::Place;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat, lstat};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// What stands behind the descriptor of a held socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketRecord {
    /// Device and inode of its file, if it has a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<(u64, u64)>,
    /// Whether listend made that file, and removes it.
    #[serde(default)]
    pub created: bool,
    /// Whether listend inherited the socket from who started it.
    #[serde(default)]
    pub inherited: bool,
    /// The symbolic links that lead to the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symlinks: Vec<PathBuf>,
    /// The second name of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare: Option<PathBuf>,
    /// Owner, group and mode that the file was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<(u32, u32, u32)>,
    /// Whether path and links stay when listend stops.
    #[serde(default)]
    pub stays: bool,
    /// Its number among the sockets that share its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

impl BoundSocket {
    /// What is to be known of it beside the descriptor.
    pub fn record(&self) -> SocketRecord {
        let FsArtifacts {
            symlinks,
            spare,
            rights,
            stay,
        } = &*self.artifacts;
        SocketRecord {
            file: self.identity.map(|file| (file.dev, file.ino)),
            created: self.created,
            inherited: self.is_adopted,
            symlinks: symlinks.clone(),
            spare: spare.clone(),
            rights: rights.map(|rights| (rights.uid, rights.gid, rights.mode)),
            stays: *stay,
            slot: self.slot.get(),
        }
    }

    /// Makes it listend's own, of one that was adopted and that another listend had bound, with its file and
    /// the links to that, if the path still leads to it.
    ///
    /// # Errors
    ///
    /// The links cannot be made again.
    pub fn make_own(&mut self, listener: &ListenerPlan) -> Result<(), String> {
        self.is_adopted = false;
        let (Endpoint::Unix { kind, .. }, Some(path)) = (&self.address, self.address.path()) else {
            return Ok(());
        };
        let Some(identity) = bound_file(&self.fd, path) else {
            return Ok(());
        };
        let (kind, path) = (*kind, path.to_owned());
        self.identity = Some(identity);
        self.created = true;
        self.note_rights();
        self.artifacts.spare =
            spare::of(&path, identity).or_else(|| spare::make(kind, &path, identity));
        let index = listener.keys().position(|key| key == self.key);
        let links = index.map_or(&[][..], |index| links_of(listener, index));
        symlink::make(&path, links, &listener.settings.access, &mut Vec::new())
            .map_err(|failure| describe(failure.errno))?;
        self.artifacts.symlinks = links.to_vec();
        Ok(())
    }

    /// Takes over what was known of it before. To be called when it was adopted.
    pub fn restore(&mut self, record: SocketRecord) {
        self.identity = record.identity();
        self.created = record.created;
        self.is_adopted = record.inherited;
        self.slot.set(record.slot);
        self.artifacts = record.into_artifacts().into();
    }
}

impl SocketRecord {
    /// The file that the socket is bound to.
    pub fn identity(&self) -> Option<PathIdentity> {
        self.file.map(|(dev, ino)| PathIdentity { dev, ino })
    }

    /// Whether the socket, kept while listend was restarted, has the rights and the links that its listener has
    /// in the configuration of now. What the kernel keeps can be set anew, but for that it has to be bound anew.
    pub fn fits(&self, listener: &ListenerPlan, socket: usize) -> bool {
        let is_path = listener.sockets[socket].endpoint.path().is_some();
        let access = &listener.settings.access;
        let same_rights = self.rights.is_none_or(|(uid, gid, mode)| {
            access.owner.is_none_or(|owner| owner == uid)
                && access.group.is_none_or(|group| group == gid)
                // A FIFO that listend has made is marked by the sticky bit.
                && (access.mode ^ mode) & 0o6777 == 0
        });
        let same_links = !is_path || self.symlinks == links_of(listener, socket);
        !self.created || same_rights && same_links
    }

    pub(super) fn into_artifacts(self) -> FsArtifacts {
        FsArtifacts {
            symlinks: self.symlinks,
            spare: self.spare,
            rights: self
                .rights
                .map(|(uid, gid, mode)| Rights { uid, gid, mode }),
            stay: self.stays,
        }
    }
}

/// Whether clients cannot find a socket, as far as the kernel tells: nothing is at its path, or something else.
pub fn is_lost(socket: impl AsFd, address: &Endpoint) -> bool {
    let Some(path) = address.path() else {
        return false;
    };
    let found = match lstat(path) {
        Ok(found) => found,
        Err(errno) => return matches!(errno, Errno::ENOENT | Errno::ENOTDIR),
    };
    let is_socket = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK;
    let bound = Diag::new().and_then(|diag| diag.unix_bound_to(PathIdentity::of(&found)));
    let own = fstat(socket).map(|own| own.st_ino as u32);
    let is_others = matches!((bound, own), (Ok(Some(bound)), Ok(own)) if bound != own);
    !is_socket || is_others
}

/// The file at a path, if it is the one that a socket is bound to.
pub(super) fn bound_file(socket: impl AsFd, path: &Path) -> Option<PathIdentity> {
    let file = PathIdentity::of(&Place::of(path).ok()?.look().ok()?);
    let bound = Diag::new().ok()?.unix_bound_to(file).ok()??;
    // The kernel tells the lower half of the number.
    let own = fstat(socket).ok()?.st_ino as u32;
    (bound == own).then_some(file)
}
