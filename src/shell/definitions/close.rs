//! Closing the sockets that no definition has any more.

use crate::core::Revision;
use crate::listener::{self, BoundSocket};
use crate::plan::{ListenerPlan, SocketKey, WorkerId};
use crate::shell::turn::Shell;
use std::collections::BTreeMap;

impl Shell {
    /// Forgets the definitions of a worker that are needed no longer ([`Effect::Retire`]), with what only
    /// they needed.
    ///
    /// [`Effect::Retire`]: crate::core::Effect::Retire
    pub(in crate::shell) fn retire(&mut self, worker: WorkerId, needed: Option<Revision>) {
        if needed.is_none() {
            self.forget_store(worker);
            self.metrics.counters.forget(worker);
            self.logs.forget(worker);
            self.forget_steering(worker);
            self.rollback_reasons.forget(worker);
        }
        self.definitions.retire(worker, needed);
        self.close_what_nobody_has();
        if needed == Some(self.definitions.latest(worker)) {
            self.trim_store(worker);
        }
    }

    /// Closes the sockets that neither the plan nor a definition has any more.
    pub(in crate::shell) fn close_what_nobody_has(&mut self) {
        self.store.touch();
        let former = self.sockets.former().map(|(_, socket)| socket.key);
        let former = former.filter(|key| !self.sockets.is_given(*key) || self.is_replaced(*key));
        let is_needed = |key: &SocketKey| self.definitions.former_with(*key).next().is_some();
        let unneeded: Vec<SocketKey> = former.filter(|key| !is_needed(key)).collect();
        // To remove a path takes some descriptors.
        let _lent = (!unneeded.is_empty()).then(|| self.reserve.lend());
        for key in unneeded {
            let why = match self.sockets.is_given(key) {
                true => "it was given, and a listener has another socket at its path",
                false => "no process serves it any more",
            };
            let Some(socket) = self.sockets.take(key) else {
                continue;
            };
            let shard = match socket.shard {
                0 => String::new(),
                shard => format!(" (shard {shard})"),
            };
            let address = &socket.address;
            log::info!("closed {address}{shard}: {why}");
            self.close_socket(socket);
            self.forget_flows(key);
        }
    }

    /// Whether the plan has another socket at the path of one that was given: nobody finds that any more, and no
    /// reload can have it.
    fn is_replaced(&self, key: SocketKey) -> bool {
        let path = self.sockets.get(key).and_then(|held| held.address.path());
        let mut planned = self.plan.listeners.values().flat_map(|one| &one.sockets);
        path.is_some() && planned.any(|one| one.endpoint.path() == path)
    }

    /// Closes a socket, and removes what was made for it.
    pub(in crate::shell) fn close_socket(&mut self, socket: BoundSocket) {
        self.control.queue_log.forget(socket.key);
        self.reloads.gave_up(socket.address.clone());
        for (path, error) in socket.remove_files() {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }

    /// The sockets that are left over and that a reload may take up again. Where something else is at
    /// the path of one, it can serve the clients that wait, and no more.
    pub(in crate::shell) fn sound_former(&self) -> BTreeMap<SocketKey, &ListenerPlan> {
        let former = self.sockets.former();
        let sound = former.filter(|(of, socket)| listener::inspect_of(of, socket).is_none());
        sound
            .map(|(listener, socket)| (socket.key, listener))
            .collect()
    }
}
