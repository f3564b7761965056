//! Removing what was made in the file system for a socket.

use super::bound::{BoundSocket, FsArtifacts};
use super::identity::{PathIdentity, remove_if_ours};
use super::{mqueue, symlink};
use crate::config::Endpoint;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

impl BoundSocket {
    /// Removes what was made in the file system for this socket, if it still is that: links and path. A
    /// path that another socket has taken over stays, and so does what is to stay at the end
    /// (`remove_on_stop: false`). Answers with what is ours and could not be removed (unlink(2)).
    pub fn remove_files(&self) -> Vec<(PathBuf, io::Error)> {
        self.remove(self.artifacts.stay)
    }

    /// Removes the path of a socket that was never served, even if `remove_on_stop` is false.
    pub(super) fn remove_path(&self) -> Vec<(PathBuf, io::Error)> {
        self.remove(false)
    }

    fn remove(&self, stays: bool) -> Vec<(PathBuf, io::Error)> {
        let file = self.identity.filter(|_| self.created);
        let (artifacts, fd) = (&self.artifacts, Some(self.fd.as_fd()));
        remove_files(&self.address, file, self.identity, artifacts, stays, fd)
    }

    /// Removes the second name of its file.
    pub(super) fn remove_spare(&self) -> Option<(PathBuf, io::Error)> {
        remove_spare(&self.artifacts, self.identity)
    }
}

/// `file` is the one that was made for the socket. `fd` is the socket itself, where it is at hand.
pub(super) fn remove_files(
    address: &Endpoint,
    file: Option<PathIdentity>,
    identity: Option<PathIdentity>,
    artifacts: &FsArtifacts,
    stays: bool,
    fd: Option<BorrowedFd<'_>>,
) -> Vec<(PathBuf, io::Error)> {
    let mut problems = Vec::new();
    if !stays {
        if let Some(path) = address.path() {
            problems = symlink::remove(path, &artifacts.symlinks);
        }
        problems.extend(file.and_then(|file| remove_file(address, file, fd).err()));
    }
    problems.extend(remove_spare(artifacts, identity));
    problems
}

/// Removes the file or queue that was made for a socket, if it still is that.
fn remove_file(
    address: &Endpoint,
    file: PathIdentity,
    fd: Option<BorrowedFd<'_>>,
) -> Result<(), (PathBuf, io::Error)> {
    if let Endpoint::MessageQueue { name } = address {
        let removed = match fd {
            Some(fd) => mqueue::remove(fd, name),
            None => mqueue::remove_if_ours(name, file),
        };
        return removed.map_err(|error| (PathBuf::from(name), error));
    }
    match address.path() {
        Some(path) => remove_if_ours(path, file).map_err(|error| (path.to_owned(), error)),
        None => Ok(()),
    }
}

fn remove_spare(
    artifacts: &FsArtifacts,
    identity: Option<PathIdentity>,
) -> Option<(PathBuf, io::Error)> {
    let spare = artifacts.spare.as_ref()?;
    let removed = remove_if_ours(spare, identity?);
    removed.err().map(|error| (spare.clone(), error))
}
