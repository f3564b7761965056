//! Sockets that a reload has left over, until nobody is served at them any more.

use super::bound::BoundSocket;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// Sockets that the running plan has no more. They still listen: clients that wait in their queues
/// can be accepted by whoever has them. Dropping it closes them; it removes no path.
#[derive(Debug, Default)]
#[must_use = "their paths are removed by `close`"]
pub struct Retired {
    /// In the order of the former plan.
    pub sockets: Vec<BoundSocket>,
}

impl Retired {
    /// Forgets the links that a socket of the new plan has taken over.
    pub(super) fn new(mut sockets: Vec<BoundSocket>, wanted: &HashSet<&Path>) -> Retired {
        for socket in &mut sockets {
            let links = &mut socket.traces.symlinks;
            links.retain(|link| !wanted.contains(link.as_path()));
        }
        Retired { sockets }
    }

    /// Whether there is nothing to close.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Closes the sockets and removes what was made for them in the file system, if it still is that:
    /// a path that another socket has taken over stays, and what is to stay (`remove_on_stop:
    /// false`) stays. Answers with the paths that are ours and could not be removed (unlink(2)).
    pub fn close(self) -> Vec<(PathBuf, io::Error)> {
        let sockets = self.sockets.iter();
        sockets.flat_map(BoundSocket::remove_files).collect()
    }
}
