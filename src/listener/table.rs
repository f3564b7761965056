//! The one table of all held sockets.

use super::bound::BoundSocket;
use super::identity::remove_folders;
use crate::plan::{ListenerPlan, Origin, Plan, SocketKey};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sockets that are bound already, by the planned one that each is.
pub type Adopted = HashMap<SocketKey, OwnedFd>;

/// Where a socket was configured that the plan has no more.
#[derive(Debug)]
pub struct Former {
    /// The listener as it was, with this socket alone.
    pub listener: ListenerPlan,
    /// What the plan was resolved from that had it last.
    pub origin: Arc<Origin>,
    /// The index of the socket in that listener.
    pub index: usize,
}

/// All sockets that are held, by their keys. Dropping it closes them; it removes no path.
#[derive(Debug, Default)]
pub struct SocketTable {
    // Boxed, because a node of the tree has room for eleven, and is half empty.
    pub(super) sockets: BTreeMap<SocketKey, Box<BoundSocket>>,
    /// Of the sockets that the plan has no more: where it was configured.
    pub(super) former: BTreeMap<SocketKey, Former>,
    /// The folders that were created for unix paths, outermost first.
    pub created_folders: Vec<PathBuf>,
    /// Adopted sockets of listeners that are not bound, because another of their sockets failed:
    /// they could not be had again, and wait for [`super::bind_missing`].
    pub(super) set_aside: Adopted,
}

impl SocketTable {
    /// The socket with this key, if it is held.
    pub fn get(&self, key: SocketKey) -> Option<&BoundSocket> {
        self.sockets.get(&key).map(Box::as_ref)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: SocketKey) -> Option<&mut BoundSocket> {
        self.sockets.get_mut(&key).map(Box::as_mut)
    }

    /// Every socket that is held.
    pub fn iter(&self) -> impl Iterator<Item = &BoundSocket> {
        self.sockets.values().map(Box::as_ref)
    }

    /// The sockets, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut BoundSocket> {
        self.sockets.values_mut().map(Box::as_mut)
    }

    /// The held sockets of a listener, in the order of the plan; fewer than planned where an optional
    /// one is missing.
    pub fn of<'a>(&'a self, listener: &'a ListenerPlan) -> impl Iterator<Item = &'a BoundSocket> {
        listener.keys().filter_map(|key| self.get(key))
    }

    /// The sockets that the plan has no more, each with its listener as it was.
    pub fn former(&self) -> impl Iterator<Item = (&ListenerPlan, &BoundSocket)> {
        let all = self.former.iter();
        all.filter_map(|(key, former)| Some((&former.listener, self.get(*key)?)))
    }

    /// Where a socket was configured that the plan has no more.
    pub fn former_of(&self, key: SocketKey) -> Option<&Former> {
        self.former.get(&key)
    }

    /// Adds a socket that the plan has no more.
    pub fn add_former(&mut self, socket: BoundSocket, former: Former) {
        self.former.insert(socket.key, former);
        self.sockets.insert(socket.key, Box::new(socket));
    }

    /// Whether the plan has it no more.
    pub fn is_former(&self, key: SocketKey) -> bool {
        self.former.contains_key(&key)
    }

    /// The configuration of a socket at the moment.
    pub(super) fn configured<'a>(
        &'a self,
        running: &'a Plan,
        socket: &BoundSocket,
    ) -> Option<&'a ListenerPlan> {
        let former = self.former.get(&socket.key).map(|one| &one.listener);
        former.or_else(|| running.find_listener(socket.listener))
    }

    /// The plan has a socket no more. Links that a socket of the new plan has taken over are not its own.
    pub(super) fn leave_over(&mut self, key: SocketKey, running: &Plan, taken: &HashSet<&Path>) {
        let Some(socket) = self.sockets.get_mut(&key) else {
            return;
        };
        let links = &mut socket.artifacts.symlinks;
        links.retain(|link| !taken.contains(link.as_path()));
        let links = links.clone();
        if let Some(former) = self.former.get_mut(&key) {
            former.listener.settings_mut().symlinks = links;
        } else if let Some(listener) = running.listeners.get(&socket.listener) {
            let index = listener.sockets.iter().position(|one| one.key == key);
            let mut listener = ListenerPlan {
                sockets: index
                    .map(|index| listener.sockets[index].clone())
                    .into_iter()
                    .collect(),
                ..ListenerPlan::clone(listener)
            };
            listener.settings_mut().symlinks = links;
            let former = Former {
                listener,
                origin: Arc::clone(&running.origin),
                index: index.unwrap_or(0),
            };
            self.former.insert(key, former);
        }
    }

    /// Takes a socket out, to be closed. It still listens: clients in its queue can be accepted by the
    /// workers that have it.
    pub fn take(&mut self, key: SocketKey) -> Option<BoundSocket> {
        self.former.remove(&key);
        self.sockets.remove(&key).map(|socket| *socket)
    }

    /// Puts a socket in the place of the one with its key. Answers that.
    pub fn exchange(&mut self, socket: BoundSocket) -> Option<BoundSocket> {
        let before = self.sockets.insert(socket.key, Box::new(socket));
        before.map(|socket| *socket)
    }

    /// Removes the unix paths, FIFOs and message queues that are still the files that were made
    /// here, and the symbolic links that still lead there, and nothing else.
    ///
    /// To be called while the sockets are open, so that inode numbers mean something. Answers
    /// with the paths that are ours and could not be removed (unlink(2), mq_unlink(3)).
    pub fn remove_paths(&self) -> Vec<(PathBuf, io::Error)> {
        self.iter().flat_map(BoundSocket::remove_files).collect()
    }

    /// Removes the paths of sockets that were never served, even if `remove_on_stop` is false.
    pub(super) fn remove_everything(&self) -> Vec<(PathBuf, io::Error)> {
        self.iter().flat_map(BoundSocket::remove_path).collect()
    }

    /// Takes everything back after a start that failed: the sockets, their paths, and the folders
    /// that were created for them.
    pub fn withdraw(self) {
        // What cannot be removed has nobody to tell but the error that is shown anyway.
        let _left_behind = self.remove_everything();
        remove_folders(&self.created_folders);
    }

    pub(super) fn extend(&mut self, sockets: impl IntoIterator<Item = BoundSocket>) {
        let sockets = sockets
            .into_iter()
            .map(|socket| (socket.key, Box::new(socket)));
        self.sockets.extend(sockets);
    }
}
