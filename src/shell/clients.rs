//! Clients that listend itself has to do with: those it watches for, and those it accepts.

mod serve;

use crate::connection::Ends;
use crate::core::ConnectionId;
use crate::listener::{SocketTable, Waiters};
use crate::plan::{Activation, ListenerId, Plan, WorkerId, WorkerPlan};
use crate::sys::{self, SharedFd, Tell};
use crate::worker::Served;
use foldhash::{HashMap, HashMapExt};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What is known of clients at the moment.
pub(super) struct Clients {
    /// The connections that are not over as far as the core knows.
    connections: HashMap<ConnectionId, Connection>,
    /// The listeners that the templates of workers name whose connections are accepted here.
    named: HashMap<WorkerId, Vec<ListenerId>>,
    /// Who waited when that was asked last.
    waiters: HashMap<WorkerId, Waiters>,
    /// The ends of the socket over which children that could not be launched give connections back:
    /// for reading, and theirs.
    back: (OwnedFd, OwnedFd),
    /// The process id of listend.
    pid: i32,
}

/// An accepted connection.
pub(super) struct Connection {
    /// `None` while a process has it that may not have reached its program.
    fd: Option<SharedFd>,
    /// Who is at its ends.
    pub ends: Ends,
}

impl Clients {
    /// No client yet.
    pub(super) fn new(named: HashMap<WorkerId, Vec<ListenerId>>) -> io::Result<Clients> {
        Ok(Clients {
            connections: HashMap::new(),
            named,
            waiters: HashMap::new(),
            back: sys::passing_pair()?,
            pid: std::process::id().cast_signed(),
        })
    }

    /// Follows a plan that a reload has brought.
    pub(super) fn follow(&mut self, plan: &Plan) {
        self.named = named(plan);
        self.waiters.clear();
    }

    /// The listeners that the templates of a worker name.
    pub(super) fn named_by(&self, worker: WorkerId) -> &[ListenerId] {
        self.named.get(&worker).map_or(&[], Vec::as_slice)
    }

    /// A connection that is known here.
    pub(super) fn get(&self, connection: ConnectionId) -> Option<&Connection> {
        self.connections.get(&connection)
    }

    /// A connection that another listend has accepted.
    pub(super) fn restore(&mut self, connection: ConnectionId, fd: Option<OwnedFd>, ends: Ends) {
        let fd = fd.map(SharedFd::from);
        self.connections.insert(connection, Connection { fd, ends });
    }

    /// Whether the descriptor of a connection is open here.
    pub(super) fn has_fd(&self, connection: ConnectionId) -> bool {
        self.fd(connection).is_some()
    }

    /// The descriptor of a connection, while it is open here.
    pub(super) fn fd(&self, connection: ConnectionId) -> Option<BorrowedFd<'_>> {
        let known = self.connections.get(&connection)?;
        known.fd.as_ref().map(|fd| fd.as_fd())
    }

    /// Every connection, with its ends.
    pub(super) fn connections(&self) -> impl Iterator<Item = (ConnectionId, &Ends)> {
        self.connections
            .iter()
            .map(|(id, known)| (*id, &known.ends))
    }

    /// Forgets a connection, and closes it if it is open here.
    pub(super) fn close(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// How the child for a connection tells that it failed.
    pub(super) fn tell(&self, connection: ConnectionId) -> Tell<'_> {
        let known = self.connections.get(&connection);
        match known.and_then(|known| known.fd.as_ref()) {
            Some(fd) => Tell::ByMemory {
                back: self.back.1.as_fd(),
                number: connection.0,
                connection: fd.as_raw_fd(),
                parent: self.pid,
            },
            None => Tell::ByPipe,
        }
    }

    /// The child has its own descriptor: the connection is to be over when the child closes it. It has not
    /// executed anything yet, and what it has keeps this close(2) from being the last one, which may wait.
    pub(super) fn lend(&mut self, connection: ConnectionId) {
        let known = self.connections.get_mut(&connection);
        let lent = known.and_then(|known| known.fd.take());
        drop(lent.map(SharedFd::into_owned));
    }

    /// Takes back the connection of a child that could not be launched. Whether there is one now.
    pub(super) fn take_back(&mut self, connection: ConnectionId) -> bool {
        // Of several children each has sent its own.
        while let Some((number, fd)) = sys::receive_descriptor(&self.back.0) {
            match self.connections.get_mut(&ConnectionId(number)) {
                Some(known) if fd.is_some() => known.fd = fd.map(SharedFd::from),
                Some(known) => log::warn!(
                    "lost the connection from {}: no descriptor is left to hold it",
                    known.ends.remote
                ),
                None => {}
            }
        }
        let known = self.connections.get(&connection);
        known.is_some_and(|known| known.fd.is_some())
    }
}

impl Connection {
    /// The connection as its process gets it.
    pub(super) fn served(&self) -> Option<Served<'_>> {
        let fd = self.fd.as_ref()?.as_raw_fd();
        let ends = &self.ends;
        Some(Served { fd, ends })
    }
}

/// What a client at a listener means to listend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing: it is the workers' business.
    Held,
    /// A client starts a worker.
    Watched,
    /// listend accepts the connection.
    Accepted {
        /// Whether the connection is to be non-blocking.
        nonblocking: bool,
    },
}

/// The role of every listener to whose clients listend has something to do, by the activation of the
/// workers that take it.
pub(super) fn roles(plan: &Plan) -> BTreeMap<ListenerId, Role> {
    let mut roles = BTreeMap::new();
    for (_, worker) in plan.workers() {
        let role = match worker.lifecycle.activation {
            Activation::Eager => continue,
            Activation::OnDemand { .. } => Role::Watched,
            Activation::PerConnection(_) => Role::Accepted {
                nonblocking: worker.lifecycle.nonblocking,
            },
        };
        roles.extend(worker.listeners.iter().map(|listener| (*listener, role)));
    }
    roles
}

/// The listeners that the templates of each worker name whose connections are accepted here.
pub(super) fn named(plan: &Plan) -> HashMap<WorkerId, Vec<ListenerId>> {
    let accepting = plan
        .workers()
        .filter(|(_, worker)| is_per_connection(worker));
    accepting
        .map(|(id, worker)| (id, plan.named_listeners(worker)))
        .collect()
}

fn is_per_connection(worker: &WorkerPlan) -> bool {
    matches!(worker.lifecycle.activation, Activation::PerConnection(_))
}

/// Whether connections are accepted here.
pub(super) fn accepts(plan: &Plan) -> bool {
    plan.workers().any(|(_, worker)| is_per_connection(worker))
}

/// So many sockets are no burden to a child that copies them.
const FEW_SOCKETS: usize = 500;

/// Moves the sockets out of the way, if they are so many that they would slow down each launch.
pub(super) fn make_room(sockets: &mut SocketTable) {
    if sockets.iter().count() <= FEW_SOCKETS {
        return;
    }
    for socket in sockets.iter_mut() {
        match sys::copy_out_of_the_way(&*socket.fd) {
            Some(copy) => socket.fd = copy.into(),
            // Not as many are allowed. It works with them where they are, but slowly.
            None => return,
        }
    }
}
