//! Workers, listeners and clients of one life.

use crate::sim::random::{Rng, lifecycle};
use listend::config::{ConnectionLimits, Overflow, Presence, Rate};
use listend::connection::Source;
use listend::core::{ConnectionId, InstanceId, ListenerLife, Mono, ProcessId, Use};
use listend::plan::{Activation, Lifecycle, ListenerId, SocketKey, WorkerId};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Somebody who waits: for a connection, or as a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) source: Source,
}

/// One socket and its queue.
#[derive(Debug, Clone)]
pub(crate) struct Socket {
    pub(crate) listener: ListenerId,
    pub(crate) key: SocketKey,
    pub(crate) users: Vec<WorkerId>,
    /// Whether who waits may go away: a datagram does not.
    pub(crate) vanish: bool,
    pub(crate) queue: VecDeque<Client>,
}

impl Socket {
    pub(crate) fn id(&self) -> (ListenerId, SocketKey) {
        (self.listener, self.key)
    }
}

/// What the kernel and the shell know about a connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) worker: WorkerId,
    pub(crate) socket: usize,
    /// When the core asked for it.
    pub(crate) asked_at: Mono,
    pub(crate) stage: Stage,
    pub(crate) source: Option<Source>,
    /// listend's own descriptor is open.
    pub(crate) open: bool,
}

/// How far a connection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The accept is not answered.
    Accepting,
    /// Accepted, without a process: before its first, or held.
    Held { before: bool },
    /// It has a process.
    Served { process: ProcessId, started: bool },
    /// Refused, never accepted, or its process is over.
    Over,
}

/// What has to be remembered about a worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    /// When it was activated, or when accepts that succeeded were asked for.
    pub(crate) starts: Vec<Mono>,
    /// Who waited when it was looked before.
    pub(crate) waited: BTreeSet<u64>,
    /// When anybody was seen at its sockets last, and whether anybody has come since it was looked.
    pub(crate) used_at: Mono,
    pub(crate) has_come: bool,
    /// The last look who uses it: when it was, and what was seen.
    pub(crate) looked_at: Option<Mono>,
    pub(crate) was_used_at: Mono,
    pub(crate) seen: Option<Use>,
    /// It is being stopped because nobody uses it.
    pub(crate) is_unused: bool,
    /// When it was found to have taken none of its clients.
    pub(crate) idle_ends: Vec<Mono>,
    /// Crashes and failed launches.
    pub(crate) crashes: Vec<(Mono, InstanceId)>,
    /// An instance of it has failed since it was last activated.
    pub(crate) has_failed: bool,
}

pub(crate) struct World {
    pub(crate) workers: Vec<Lifecycle>,
    pub(crate) listeners: Vec<ListenerLife>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) shared: bool,
}

fn maybe<T>(rng: &mut Rng, some: T) -> Option<T> {
    (!rng.one_in(3)).then_some(some)
}

fn rate(rng: &mut Rng) -> Rate {
    Rate {
        count: 1 + rng.below(4) as u32,
        interval: Duration::from_secs(1 + rng.below(10)),
    }
}

fn worker(rng: &mut Rng) -> Lifecycle {
    let mut lifecycle = lifecycle(rng);
    lifecycle.restart.backoff_min = Duration::from_millis(rng.pick(&[1, 100, 1000]));
    let rate = rate(rng);
    let rate = maybe(rng, rate);
    if rng.one_in(2) {
        lifecycle.activation = Activation::OnDemand { limit: rate };
        lifecycle.instances = rng.pick(&[1, 1, 2, 3, 4]);
        let timeout = Duration::from_millis(rng.pick(&[1, 50, 500, 3000]));
        lifecycle.idle_timeout = maybe(rng, timeout);
        return lifecycle;
    }
    let max = 1 + rng.below(5) as u32;
    let max_per_source = 1 + rng.below(3) as u32;
    let timeout = Duration::from_secs(rng.pick(&[0, 1, 10]));
    lifecycle.instances = 0;
    lifecycle.activation = Activation::PerConnection(ConnectionLimits {
        max: maybe(rng, max),
        max_per_source: maybe(rng, max_per_source),
        overflow: rng.pick(&[Overflow::Wait, Overflow::Close]),
        rate,
        timeout: maybe(rng, timeout),
    });
    lifecycle
}

impl World {
    pub(crate) fn new(rng: &mut Rng) -> World {
        let workers: Vec<_> = (0..1 + rng.below(3)).map(|_| worker(rng)).collect();
        let mut users_of: Vec<Vec<WorkerId>> = Vec::new();
        let mut shared = false;
        for (id, lifecycle) in (0..).map(WorkerId).zip(&workers) {
            let demand = matches!(lifecycle.activation, Activation::OnDemand { .. });
            for _ in 0..1 + rng.below(3) {
                users_of.push(vec![id]);
            }
            let others: Vec<usize> = (0..users_of.len())
                .filter(|index| {
                    let user = users_of[*index][0];
                    let life = &workers[user.0 as usize];
                    user != id && matches!(life.activation, Activation::OnDemand { .. })
                })
                .collect();
            if demand && !others.is_empty() && rng.one_in(2) {
                users_of[rng.pick(&others)].push(id);
                shared = true;
            }
        }
        let mut sockets = Vec::new();
        let mut listeners = Vec::new();
        for (listener, users) in (0..).map(ListenerId).zip(users_of) {
            for index in 0..1 + rng.below(2) as u32 {
                sockets.push(Socket {
                    listener,
                    key: SocketKey(index),
                    users: users.clone(),
                    vanish: !rng.one_in(3),
                    queue: VecDeque::new(),
                });
            }
            listeners.push(ListenerLife {
                presence: Presence::Required,
                users,
            });
        }
        World {
            workers,
            listeners,
            sockets,
            shared,
        }
    }
}

/// Whether the id was never given before; they count upwards.
pub(crate) fn is_fresh(last: Option<ConnectionId>, id: ConnectionId) -> bool {
    last.is_none_or(|last| last < id)
}
