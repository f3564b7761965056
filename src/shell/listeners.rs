//! Carrying out what the core decides about listeners: binding one that was missing, repairing one
//! that was damaged; and telling it what the kernel tells.

use super::event_text;
use super::looks::Tell;
use super::turn::Shell;
use super::watch::Owner;
use crate::config::{Endpoint, Presence, UnixName};
use crate::core::{Input, Missing, Repaired};
use crate::listener::{self, BindError, BoundSocket, Damage, Repair};
use crate::plan::{ListenerId, SocketKey, WorkerId};
use crate::sys;
use nix::libc;
use std::rc::Rc;

/// How many milliseconds the loop waits for descriptors to be closed whose addresses are wanted again.
pub(super) const CLOSING: u32 = 50;

impl Shell {
    /// Watches every listener, and tells the core which are missing.
    pub(super) fn begin_watching(&mut self, missing: &[BindError]) {
        self.watch.everything(&self.epoll, &self.sockets);
        // They may have been damaged while no listend was there.
        self.begin_watching_own();
        for listener in self.plan.listeners.keys().copied().collect::<Vec<_>>() {
            self.look_at_paths_of(listener);
        }
        self.look_at_namespaces();
        for (listener, why) in missing_listeners(missing) {
            self.feed(Input::ListenerMissing { listener, why });
        }
    }

    pub(super) fn bind(&mut self, listener: ListenerId) {
        self.store.touch();
        sys::close_apart_within(CLOSING);
        let (errors, _notes) = listener::bind_missing(&self.plan, listener, &mut self.sockets);
        let missing = missing_listeners(&errors);
        if let Some((listener, why)) = missing.first().copied() {
            // An address that is still not there is no news; why it is waited for was said.
            if why == Missing::Other && !self.manager.knows_unheld(listener) {
                let plan = Rc::clone(&self.plan);
                self.diagnose(&plan, errors, Tell::Start(listener));
            }
            self.feed(Input::ListenerMissing { listener, why });
            return;
        }
        let plan = self.plan.listener(listener);
        for socket in self.sockets.of(plan) {
            if socket.shard == 0 {
                log::info!("listener {}: listening on {}", plan.name, socket.address);
            }
            self.watch.socket(&self.epoll, socket);
        }
        self.manager.holds(listener);
        self.steer_listener(listener);
        self.follow_flows();
        self.feed(Input::ListenerBound { listener });
        self.look_at_paths_of(listener);
    }

    pub(super) fn repair(&mut self, listener: ListenerId, key: SocketKey) {
        self.store.touch();
        let outcome = listener::repair(&self.plan, &mut self.sockets, key);
        // What cannot be repaired here, such as an adopted unix socket, is not watched again: its
        // event would come for ever.
        self.steer_listener(listener);
        let held = self.sockets.get(key);
        let of = self.plan.listener(listener);
        let whole = held.filter(|held| listener::inspect_of(of, held).is_none());
        if let Some(held) = whole {
            self.watch.socket(&self.epoll, held);
        }
        let socket = key;
        let is_whole = whole.is_some();
        if matches!(outcome, Ok(Some(Repair::Rebound | Repair::Followed))) {
            self.flows_of_another_socket(key);
        }
        let input = match outcome {
            // Whatever was done, it takes no clients.
            Ok(_) if !is_whole => Input::RepairFailed { listener, socket },
            Ok(repair) => Input::ListenerRepaired {
                listener,
                socket,
                by: match repair {
                    Some(Repair::Rebound) => Repaired::AnotherSocket,
                    Some(Repair::Followed) => Repaired::AnotherNamespace,
                    Some(Repair::PutBack) => Repaired::PutBack,
                    Some(Repair::ListenedAgain) | None => Repaired::SameSocket,
                },
            },
            // The workers have the name as well, and it is free when the last of them has ended.
            Err(error) if error.errno == libc::EADDRINUSE && self.is_abstract(&error) => {
                Input::SocketHeld { listener, socket }
            }
            Err(error) => {
                let plan = Rc::clone(&self.plan);
                self.diagnose(&plan, vec![error], Tell::Log);
                Input::RepairFailed { listener, socket }
            }
        };
        self.feed(input);
        if is_whole {
            self.look_at_paths_of(listener);
        }
    }

    /// Looks at what may have been removed between bind(2) and the beginning of the watch.
    fn look_at_paths_of(&mut self, listener: ListenerId) {
        let sockets = self.sockets.of(self.plan.listener(listener));
        let with_path = sockets.filter(|held| held.identity.is_some());
        for key in with_path.map(|held| held.key).collect::<Vec<_>>() {
            self.look_at(key);
        }
    }

    fn is_abstract(&self, error: &BindError) -> bool {
        let sockets = &self.plan.listener(error.listener).sockets;
        let endpoint = sockets.get(error.socket).map(|socket| &socket.endpoint);
        matches!(
            endpoint,
            Some(Endpoint::Unix {
                name: UnixName::Abstract(_),
                ..
            })
        )
    }

    /// Looks at all paths: something may have been mounted over their folders, of which inotify(7) does not
    /// tell.
    pub(super) fn look_at_paths(&mut self) {
        let listeners = self.plan.listeners().map(|(_, listener)| listener);
        let sockets = listeners.flat_map(|listener| self.sockets.of(listener));
        let with_path = sockets.filter(|held| held.identity.is_some());
        let news = with_path.filter(|held| !self.core.is_damaged(held.listener, held.key));
        for key in news.map(|held| held.key).collect::<Vec<_>>() {
            self.look_at(key);
        }
    }

    /// Looks at all sockets of a worker.
    pub(super) fn look_at_all_of(&mut self, worker: WorkerId) {
        let listeners = self.definitions.worker(worker).listeners.iter();
        let listeners = listeners.filter_map(|id| self.plan.listeners.get(id));
        let sockets = listeners.flat_map(|listener| self.sockets.of(listener));
        for key in sockets.map(|held| held.key).collect::<Vec<_>>() {
            self.look_at(key);
        }
    }

    /// Looks whether a socket of the plan still does what it is for.
    pub(super) fn look_at(&mut self, key: SocketKey) {
        let Some(held) = self.sockets.get(key) else {
            return;
        };
        let listener = held.listener;
        // One that is left over has no path that matters any more.
        let of = self.plan.listeners.get(&listener);
        let damage = match of.filter(|of| of.position(key).is_some()) {
            Some(of) => listener::inspect_of(of, held),
            None => listener::inspect(held),
        };
        if let Some(damage) = damage {
            // Until it is repaired its event would come for ever.
            self.watch.unwatch(&self.epoll, held);
            let what = event_text::damage(damage);
            // shutdown(2) takes the socket, the others only a right to the folder.
            let anybody = damage != Damage::ShutDown;
            let namespace = of.and_then(|of| of.settings.network_namespace.as_ref());
            let what = match namespace.filter(|_| damage == Damage::NamespaceReplaced) {
                Some(path) => {
                    let path = path.display();
                    format!("{} was {what}: another is at {path} now", held.address)
                }
                None => {
                    let by = self.suspects(listener, anybody);
                    format!("{} was {what} by {by}", held.address)
                }
            };
            self.feed(Input::ListenerDamaged {
                listener,
                socket: key,
                what,
                of_rights: damage == Damage::RightsChanged,
            });
        }
    }

    /// Who may have done something to a listener: the instances that have it, and `anybody` else.
    /// Neither shutdown(2) nor unlink(2) leaves a trace of who called it.
    fn suspects(&self, listener: ListenerId, anybody: bool) -> String {
        let has_it = |worker| {
            self.definitions
                .worker(worker)
                .listeners
                .contains(&listener)
        };
        let mut running: Vec<_> = self.processes.instances().collect();
        running.retain(|instance| has_it(instance.worker));
        running.sort_unstable();
        let names = running.into_iter();
        let mut names: Vec<String> = names
            .map(|instance| event_text::instance_name(&self.definitions, instance))
            .collect();
        // In a rollout there are two of one name.
        names.dedup();
        match (names.as_slice(), anybody) {
            ([], true) => "somebody".to_owned(),
            ([], false) => "an unknown process".to_owned(),
            (several, true) => format!("{} or another process", several.join(" or ")),
            (several, false) => several.join(" or "),
        }
    }

    /// Looks which sockets are in a network namespace that their path does not lead to any more, and has
    /// it told from now on when that may have changed.
    pub(super) fn look_at_namespaces(&mut self) {
        let listeners = self.plan.listeners().map(|(_, listener)| listener);
        let inside = listeners.filter(|one| one.settings.network_namespace.is_some());
        let mut inside = inside.peekable();
        self.watch.mounts(&self.epoll, inside.peek().is_some());
        let sockets = inside.flat_map(|listener| self.sockets.of(listener));
        let news = sockets.filter(|held| !self.core.is_damaged(held.listener, held.key));
        for key in news.map(|held| held.key).collect::<Vec<_>>() {
            self.look_at(key);
        }
        if self.watch.watches_former_addresses() {
            self.watch_addresses(true);
            self.feed(Input::AddressesChanged);
        }
    }

    /// Looks at everything whose files have changed.
    pub(super) fn paths_changed(&mut self) {
        let (changed, moved) = self.watch.changes();
        for owner in moved {
            self.watch_files_of(owner);
        }
        for owner in changed {
            match owner {
                Owner::Socket(key) => self.look_at(key),
                Owner::Control | Owner::Notify | Owner::Acks => self.repair_own(owner),
            }
        }
    }

    pub(super) fn watch_files_of(&mut self, owner: Owner) {
        let files = match owner {
            Owner::Socket(key) => {
                let held = self.sockets.get(key);
                held.map(BoundSocket::files).unwrap_or_default()
            }
            Owner::Control => self.control.files(),
            Owner::Notify => self.notify.files(),
            Owner::Acks => self.notify.ack_files(),
        };
        self.watch.files(&self.epoll, owner, &files);
    }

    /// Where a listener may be waiting for its address.
    pub(super) fn watch_addresses(&mut self, wanted: bool) {
        let listeners = self.plan.listeners().map(|(_, listener)| listener);
        let waiting = listeners.filter(|one| wanted && one.settings.presence != Presence::Required);
        let namespaces = waiting.map(|one| one.settings.network_namespace.as_deref());
        self.watch.addresses(&self.epoll, &namespaces.collect());
    }

    pub(super) fn addresses_changed(&mut self) {
        self.watch.drain_addresses();
        self.feed(Input::AddressesChanged);
    }
}

/// Each listener once, and whether it is its address that is missing.
pub(super) fn missing_listeners(errors: &[BindError]) -> Vec<(ListenerId, Missing)> {
    let mut missing: Vec<(ListenerId, Missing)> = Vec::new();
    for error in errors {
        let why = match error.errno {
            libc::EADDRNOTAVAIL | libc::ENODEV => Missing::Address,
            _ => Missing::Other,
        };
        match missing.iter_mut().find(|(id, _)| *id == error.listener) {
            Some((_, known)) if why == Missing::Other => *known = why,
            Some(_) => {}
            None => missing.push((error.listener, why)),
        }
    }
    missing
}
