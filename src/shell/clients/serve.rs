//! What a client, or the end of a socket, has the shell do.

use super::{Connection, Role};
use crate::core::{ConnectionId, Input, NotAccepted, Waiting};
use crate::listener::{self, BoundSocket};
use crate::plan::{SocketKey, WorkerId};
use crate::shell::turn::Shell;
use nix::sys::epoll::EpollFlags;

impl Shell {
    /// Something happened at a socket: a client came, or the socket went.
    pub(in crate::shell) fn socket_event(&mut self, key: SocketKey, flags: EpollFlags) {
        let ended = EpollFlags::EPOLLHUP
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLERR
            | EpollFlags::EPOLLOUT;
        let is_error_alone = flags == EpollFlags::EPOLLERR;
        let Some(held) = self.sockets.get(key) else {
            return;
        };
        if held.address.accepts() && flags.intersects(ended) {
            self.look_at(key);
        } else if self.watch.is_parked(key) {
            // An event comes once from what is not watched for clients now.
            log::debug!("{flags:?} at a socket that its worker serves");
        } else if is_error_alone && listener::forget_errors(held) {
            log::debug!("cleared an error that a worker left on a socket");
        } else if self.watch.role(held.listener) == Role::Held {
            self.first_client(key);
        } else {
            let (listener, socket) = (held.listener, key);
            self.feed(Input::ClientWaits { listener, socket });
        }
    }

    pub(in crate::shell) fn watch_clients(&mut self, key: SocketKey, wanted: bool) {
        if let Some(held) = self.sockets.get(key) {
            self.watch.clients(&self.epoll, held, wanted);
        }
    }

    pub(in crate::shell) fn accept(&mut self, key: SocketKey, connection: ConnectionId) {
        self.prepare_to_accept(key);
        let accepted = match self.sockets.get(key) {
            Some(held) => {
                let role = self.watch.role(held.listener);
                listener::accept(held, role == Role::Accepted { nonblocking: true })
            }
            None => Err(listener::NotAccepted::Gone),
        };
        let input = match accepted {
            Ok(accepted) => {
                let source = accepted.ends.source();
                let known = Connection {
                    fd: Some(accepted.fd),
                    ends: accepted.ends,
                };
                self.clients.connections.insert(connection, known);
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

    pub(in crate::shell) fn look_for_clients(&mut self, worker: WorkerId) {
        let listeners = self.definitions.worker(worker).listeners.iter();
        let listeners = listeners.filter_map(|id| self.plan.listeners.get(id));
        let sockets = listeners.flat_map(|listener| self.sockets.of(listener));
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
