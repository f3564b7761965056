//! Clients that listend itself has to do with: those it watches for, and those it accepts.

use super::turn::Shell;
use super::watch::SocketId;
use crate::core::{ConnectionId, Input, NotAccepted, Waiting};
use crate::listener::{self, Accepted, BoundSocket, Waiters};
use crate::plan::{Activation, Plan, WorkerId};
use nix::sys::epoll::EpollFlags;
use std::collections::HashMap;

/// What is known of clients at the moment.
#[derive(Default)]
pub(super) struct Clients {
    /// The connections that listend has a descriptor of.
    connections: HashMap<ConnectionId, Accepted>,
    /// Who waited when that was asked last.
    waiters: HashMap<WorkerId, Waiters>,
}

impl Clients {
    /// A connection that is open here.
    pub(super) fn get(&self, connection: ConnectionId) -> Option<&Accepted> {
        self.connections.get(&connection)
    }

    /// Closes a connection, if it is open here.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }
}

/// What a client at a listener means to listend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing: it is the workers' business.
    Held,
    /// It starts a worker.
    Watched,
    /// It is accepted here.
    Accepted {
        /// Whether the connection is to be non-blocking.
        nonblocking: bool,
    },
}

/// The role of every listener, by the activation of those who take it.
pub(super) fn roles(plan: &Plan) -> Vec<Role> {
    let mut roles = vec![Role::Held; plan.listeners.len()];
    for worker in &plan.workers {
        let role = match worker.lifecycle.activation {
            Activation::Eager => continue,
            Activation::OnDemand { .. } => Role::Watched,
            Activation::PerConnection(_) => Role::Accepted {
                nonblocking: worker.nonblocking,
            },
        };
        for listener in &worker.listeners {
            roles[listener.0 as usize] = role;
        }
    }
    roles
}

impl Shell {
    /// Something happened at a socket: a client came, or the socket went.
    pub(super) fn socket_event(&mut self, (listener, socket): SocketId, flags: EpollFlags) {
        let ended = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        let held = self.held((listener, socket));
        if held.is_some_and(|held| held.endpoint.accepts()) && flags.intersects(ended) {
            self.look_at(listener, socket);
        } else {
            self.feed(Input::ClientWaits { listener, socket });
        }
    }

    pub(super) fn held(&self, (listener, socket): SocketId) -> Option<&BoundSocket> {
        let sockets = self.bound.as_ref()?.sockets(listener);
        sockets.get(socket as usize)
    }

    pub(super) fn watch_clients(&mut self, id: SocketId, wanted: bool) {
        let bound = self.bound.as_ref();
        let held = bound.and_then(|bound| bound.sockets(id.0).get(id.1 as usize));
        if let Some(held) = held {
            self.watch.clients(&self.epoll, id, held, wanted);
        }
    }

    pub(super) fn accept(&mut self, id: SocketId, connection: ConnectionId) {
        let nonblocking = self.watch.role(id.0) == Role::Accepted { nonblocking: true };
        let accepted = match self.held(id) {
            Some(held) => listener::accept(held, nonblocking),
            None => Err(listener::NotAccepted::Gone),
        };
        let input = match accepted {
            Ok(accepted) => {
                let source = accepted.ends.source();
                self.clients.connections.insert(connection, accepted);
                Input::Accepted { connection, source }
            }
            Err(listener::NotAccepted::Gone) => Input::NotAccepted {
                connection,
                why: NotAccepted::Gone,
            },
            Err(listener::NotAccepted::Exhausted(errno)) => Input::NotAccepted {
                connection,
                why: NotAccepted::Exhausted { errno },
            },
        };
        self.feed(input);
    }

    pub(super) fn look_for_clients(&mut self, worker: WorkerId) {
        let listeners = self.plan.worker(worker).listeners.iter();
        let sockets = listeners.flat_map(|listener| {
            let bound = self.bound.iter();
            bound.flat_map(|bound| bound.sockets(*listener))
        });
        let sockets: Vec<&BoundSocket> = sockets.collect();
        let now = listener::waiters(&sockets);
        let before = self.clients.waiters.get(&worker);
        let waiting = match before {
            _ if now.is_empty() => Waiting::Nobody,
            Some(before) if now.none_was_taken(before) => Waiting::TheSame,
            Some(_) | None => Waiting::Others,
        };
        self.clients.waiters.insert(worker, now);
        self.feed(Input::Looked { worker, waiting });
    }
}
