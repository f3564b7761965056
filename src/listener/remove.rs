//! Removing what was made in the file system for a socket.

use super::bound::BoundSocket;
use super::identity::remove_if_ours;
use super::{mqueue, symlink};
use crate::config::Endpoint;
use std::io;
use std::path::PathBuf;

impl BoundSocket {
    /// Removes what was made in the file system for this socket, if it still is that: links and path. A
    /// path that another socket has taken over stays, and so does what is to stay at the end
    /// (`remove_on_stop: false`). Answers with what is ours and could not be removed (unlink(2)).
    pub fn remove_files(&self) -> Vec<(PathBuf, io::Error)> {
        if self.artifacts.stay {
            return self.remove_spare().into_iter().collect();
        }
        self.remove_path()
    }

    /// Removes the path of a socket that was never served, even if `remove_on_stop` is false.
    pub(super) fn remove_path(&self) -> Vec<(PathBuf, io::Error)> {
        let mut problems = Vec::new();
        if let Some(path) = self.address.path() {
            problems = symlink::remove(path, &self.artifacts.symlinks);
        }
        problems.extend(remove_file(self).err());
        problems.extend(self.remove_spare());
        problems
    }

    /// Removes the second name of its file.
    pub(super) fn remove_spare(&self) -> Option<(PathBuf, io::Error)> {
        let spare = self.artifacts.spare.as_ref()?;
        let removed = remove_if_ours(spare, self.identity?);
        removed.err().map(|error| (spare.clone(), error))
    }
}

/// Removes the file or queue that was made for this socket, if it still is that.
fn remove_file(socket: &BoundSocket) -> Result<(), (PathBuf, io::Error)> {
    let Some(identity) = socket.identity.filter(|_| socket.created) else {
        return Ok(());
    };
    if let Endpoint::MessageQueue { name } = &socket.address {
        return mqueue::remove(&socket.fd, name).map_err(|error| (PathBuf::from(name), error));
    }
    match socket.address.path() {
        Some(path) => remove_if_ours(path, identity).map_err(|error| (path.to_owned(), error)),
        None => Ok(()),
    }
}
