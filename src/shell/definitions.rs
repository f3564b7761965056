//! Every definition of a worker from which something may still be started: the one that the
//! configuration has, and those that it has replaced.
//!
//! While a rollout is under way, and after one that was rolled back, instances run by an earlier
//! definition, and are started again by it when they crash: with the sockets that it had. A socket that
//! is not in the plan any more is closed when the last definition that has it goes.

mod close;

use crate::config::Distribute;
use crate::core::{Core, FormerTaker, ListenerLife, Revision};
use crate::listener::{BoundSocket, SocketTable, shard_of};
use crate::plan::{
    Activation, Changes, Lifecycle, ListenerId, ListenerPlan, Origin, Plan, SocketKey, WorkerId,
    WorkerPlan,
};
use crate::worker::Pattern;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every definition, by worker and by which of the worker's it is.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    all: BTreeMap<(WorkerId, Revision), Definition>,
    /// The revision of the configuration, as numbered by the core; for a removed worker, the
    /// last. The worker runs by another only if a rollout to it was rolled back.
    latest: BTreeMap<WorkerId, Revision>,
    /// Workers of which nothing is left. They can still be named until the next reload.
    gone: BTreeSet<WorkerId>,
    /// What is known of a worker of which nothing is.
    nobody: Definition,
}

/// How a worker is started.
#[derive(Debug, Default)]
pub(super) struct Definition {
    pub(super) plan: Arc<WorkerPlan>,
    /// What it was resolved from.
    pub(super) origin: Arc<Origin>,
    /// What the processes of its connections have in common.
    pub(super) pattern: Pattern,
    /// `None` for the one that the configuration has: whatever its listeners have.
    sockets: Option<Vec<FormerSocket>>,
}

/// A socket as a definition that was replaced has it.
#[derive(Debug)]
struct FormerSocket {
    key: SocketKey,
    /// What its listener was called.
    listener: String,
    /// What listen(2) was given.
    backlog: u32,
}

/// Sockets of one listener that the configuration has no more.
pub(super) struct Before<'a> {
    /// What the listener was called.
    pub(super) listener: &'a str,
    pub(super) sockets: Vec<&'a BoundSocket>,
    /// Whether all were given over the control socket, and no configuration has had them yet.
    pub(super) is_given: bool,
    /// The workers of which a definition before has them.
    pub(super) workers: BTreeSet<WorkerId>,
}

impl Before<'_> {
    /// What they are called. No listener of a configuration has a space in its name.
    pub(super) fn name(&self) -> String {
        let what = if self.is_given { "given" } else { "before" };
        format!("{} ({what})", self.listener)
    }
}

/// A socket of a definition.
#[derive(Clone, Copy)]
pub(super) struct HeldSocket<'a> {
    /// What its listener is called.
    pub(super) listener: &'a str,
    /// What listen(2) is given.
    pub(super) backlog: u32,
    /// What it is to be; `None` for a socket that the configuration has no more.
    pub(super) plan: Option<&'a ListenerPlan>,
    pub(super) held: &'a BoundSocket,
}

impl Definitions {
    /// The first definition of every worker of a plan.
    pub(super) fn new(plan: &Plan, core: &Core) -> Definitions {
        let mut definitions = Definitions::default();
        definitions.follow(plan, core);
        definitions
    }

    /// The definitions of a previous listend.
    pub(super) fn restored(all: Vec<((WorkerId, Revision), Definition)>) -> Definitions {
        let mut definitions = Definitions::default();
        for ((worker, revision), definition) in all {
            let latest = definitions.latest.entry(worker).or_insert(revision);
            *latest = revision.max(*latest);
            definitions.all.insert((worker, revision), definition);
        }
        definitions
    }

    /// Every definition.
    pub(super) fn all(&self) -> impl Iterator<Item = (WorkerId, Revision, &Definition)> {
        self.all
            .iter()
            .map(|((worker, revision), one)| (*worker, *revision, one))
    }

    /// The life cycle of each.
    pub(super) fn lifecycles(&self) -> BTreeMap<(WorkerId, Revision), Arc<Lifecycle>> {
        let all = self.all.iter();
        all.map(|(key, one)| (*key, Arc::clone(&one.plan.lifecycle)))
            .collect()
    }

    /// The revision of a worker that the configuration has.
    pub(super) fn latest(&self, worker: WorkerId) -> Revision {
        self.latest.get(&worker).copied().unwrap_or(Revision(0))
    }

    /// A worker as the configuration has it, or had it last.
    pub(super) fn worker(&self, worker: WorkerId) -> &WorkerPlan {
        &self.get(worker, self.latest(worker)).plan
    }

    /// How a worker is started by one of its definitions. Where that was given up, the latest.
    pub(super) fn get(&self, worker: WorkerId, revision: Revision) -> &Definition {
        let known = self.all.get(&(worker, revision));
        let known = known.or_else(|| self.all.get(&(worker, self.latest(worker))));
        known.unwrap_or(&self.nobody)
    }

    /// The definitions that were replaced and that have this socket.
    pub(super) fn former_with(
        &self,
        key: SocketKey,
    ) -> impl Iterator<Item = (WorkerId, Revision, &WorkerPlan)> {
        let with_it = self.all.iter().filter(move |(_, one)| one.names(key));
        with_it.map(|((worker, revision), one)| (*worker, *revision, &*one.plan))
    }

    /// Who has a listener of the plan by a definition that was replaced.
    pub(super) fn former_takers(&self, table: &SocketTable) -> Vec<FormerTaker> {
        let mut all = BTreeSet::new();
        for ((worker, revision), definition) in &self.all {
            for socket in definition.sockets.iter().flatten() {
                let held = table
                    .get(socket.key)
                    .filter(|_| !table.is_former(socket.key));
                all.extend(held.map(|held| (held.listener, *worker, *revision)));
            }
        }
        all.into_iter().collect()
    }

    /// What is held that the configuration has no more, by the names that the listeners had.
    pub(super) fn before<'a>(&self, table: &'a SocketTable) -> Vec<Before<'a>> {
        let mut all: BTreeMap<&str, Before<'_>> = BTreeMap::new();
        for (listener, socket) in table.former() {
            let listener = listener.name.as_str();
            let one = all.entry(listener).or_insert_with(|| Before {
                listener,
                sockets: Vec::new(),
                is_given: true,
                workers: BTreeSet::new(),
            });
            one.is_given &= table.is_given(socket.key);
            one.sockets.push(socket);
            let users = self.former_with(socket.key);
            one.workers.extend(users.map(|(worker, _, _)| worker));
        }
        all.into_values().collect()
    }

    /// Keeps the definitions that a reload replaces, or that the core tries again, with the sockets that
    /// they have in `plan`.
    pub(super) fn keep(
        &mut self,
        plan: &Plan,
        table: &SocketTable,
        changes: &Changes,
        core: &Core,
    ) {
        for worker in std::mem::take(&mut self.gone) {
            self.all.retain(|(id, _), _| *id != worker);
            self.latest.remove(&worker);
        }
        let changed = changes.workers.keys().copied();
        let replaced = changed.filter(|worker| changes.replaces(*worker));
        for worker in replaced.chain(core.rolled_back()) {
            let revision = self.latest(worker);
            let Some(known) = self.all.get_mut(&(worker, revision)) else {
                continue;
            };
            let listeners = known.plan.listeners.iter().map(|id| plan.listener(*id));
            let sockets = listeners.flat_map(|listener| {
                table.of(listener).map(|socket| FormerSocket {
                    key: socket.key,
                    listener: listener.name.clone(),
                    backlog: listener.settings.backlog,
                })
            });
            // Whoever serves a connection needs no listener, and nobody accepts from a former one.
            let accepts = !matches!(
                known.plan.lifecycle.activation,
                Activation::PerConnection(_)
            );
            known.sockets = Some(sockets.filter(|_| accepts).collect());
        }
    }

    /// More sockets are held at the addresses of a listener: those of its definitions before that have one of
    /// them have all.
    pub(super) fn add_shards(&mut self, worker: WorkerId, listener: &ListenerPlan) {
        let keys: BTreeSet<SocketKey> = listener.keys().collect();
        let of_it = self
            .all
            .range_mut((worker, Revision(0))..=(worker, Revision(u32::MAX)));
        let sharded = of_it.filter(|(_, one)| one.plan.lifecycle.distribute == Distribute::Shards);
        for sockets in sharded.filter_map(|(_, one)| one.sockets.as_mut()) {
            let known: BTreeSet<SocketKey> = sockets.iter().map(|one| one.key).collect();
            if known.is_disjoint(&keys) {
                continue;
            }
            let more = keys.difference(&known).map(|key| FormerSocket {
                key: *key,
                listener: listener.name.clone(),
                backlog: listener.settings.backlog,
            });
            sockets.extend(more);
        }
    }

    /// Files the definitions that a plan has under the revisions that the core has given them.
    pub(super) fn follow(&mut self, plan: &Plan, core: &Core) {
        for (worker, one) in &plan.workers {
            let Some(latest) = core.latest(*worker) else {
                continue;
            };
            self.latest.insert(*worker, latest);
            let definition = Definition {
                plan: Arc::clone(one),
                origin: Arc::clone(&plan.origin),
                pattern: Pattern::default(),
                sockets: None,
            };
            self.all.insert((*worker, latest), definition);
        }
    }

    /// The workers of which a definition that was replaced has a socket that the plan has no more.
    pub(super) fn without_all_sockets(&self, table: &SocketTable) -> BTreeSet<WorkerId> {
        let lacks_one = |definition: &Definition| {
            let mut sockets = definition.sockets.iter().flatten();
            sockets.any(|socket| table.is_former(socket.key))
        };
        let all = self.all.iter().filter(|(_, one)| lacks_one(one));
        all.map(|((worker, _), _)| *worker).collect()
    }

    /// Of the definitions of a worker only this one and the latest are needed any more; if none is,
    /// nothing is left of the worker, which can still be named.
    pub(super) fn retire(&mut self, worker: WorkerId, needed: Option<Revision>) {
        let latest = self.latest(worker);
        self.all.retain(|(id, revision), _| {
            *id != worker || Some(*revision) == needed || *revision == latest
        });
        if needed.is_none() {
            if let Some(last) = self.all.get_mut(&(worker, latest)) {
                last.sockets = Some(Vec::new());
            }
            self.gone.insert(worker);
        }
    }
}

impl Definition {
    /// One of another listend: of one that was replaced, its sockets with the names of their listeners and
    /// their backlogs.
    pub(super) fn restored(
        plan: Arc<WorkerPlan>,
        origin: Arc<Origin>,
        sockets: Option<Vec<(u32, String, u32)>>,
    ) -> Definition {
        let former = |(key, listener, backlog)| FormerSocket {
            key: SocketKey(key),
            listener,
            backlog,
        };
        let sockets = sockets.map(|sockets| sockets.into_iter().map(former).collect());
        Definition {
            plan,
            origin,
            pattern: Pattern::default(),
            sockets,
        }
    }

    /// What [`Definition::restored`] takes.
    pub(super) fn former_sockets(&self) -> Option<Vec<(u32, String, u32)>> {
        let sockets = self.sockets.as_ref()?.iter();
        let plain = sockets.map(|one| (one.key.0, one.listener.clone(), one.backlog));
        Some(plain.collect())
    }

    /// Whether it was replaced and has this socket.
    fn names(&self, key: SocketKey) -> bool {
        let mut sockets = self.sockets.iter().flatten();
        sockets.any(|socket| socket.key == key)
    }

    /// The sockets of an instance with this number: all of them, or its shard at each address.
    pub(super) fn sockets_of<'a>(
        &'a self,
        index: u32,
        plan: &'a Plan,
        table: &'a SocketTable,
    ) -> Vec<HeldSocket<'a>> {
        let mut sockets = self.sockets(plan, table);
        if self.plan.lifecycle.distribute == Distribute::Shards {
            let mut shards: BTreeMap<&str, u32> = BTreeMap::new();
            for socket in &sockets {
                let shards = shards.entry(socket.listener).or_default();
                *shards = (*shards).max(socket.held.shard + 1);
            }
            sockets.retain(|socket| {
                let shards = shards.get(socket.listener).copied();
                socket.held.shard == shard_of(index, shards.unwrap_or(1))
            });
        }
        sockets
    }

    /// Its sockets, as far as they are held.
    pub(super) fn sockets<'a>(
        &'a self,
        plan: &'a Plan,
        table: &'a SocketTable,
    ) -> Vec<HeldSocket<'a>> {
        let Some(sockets) = &self.sockets else {
            let listeners = self.plan.listeners.iter();
            let listeners = listeners.map(|id| plan.listener(*id));
            return listeners.flat_map(|one| named(one, table)).collect();
        };
        let sockets = sockets.iter().filter_map(|socket| {
            let held = table.get(socket.key)?;
            // As many may wait as the plan says now: another definition has the socket as well.
            let plan = match table.is_former(socket.key) {
                true => None,
                false => plan.find_listener(held.listener),
            };
            Some(HeldSocket {
                listener: &socket.listener,
                backlog: plan.map_or(socket.backlog, |plan| plan.settings.backlog),
                plan,
                held,
            })
        });
        sockets.collect()
    }
}

/// What is held of a listener of the plan.
pub(super) fn named<'a>(
    listener: &'a ListenerPlan,
    table: &'a SocketTable,
) -> impl Iterator<Item = HeldSocket<'a>> {
    table.of(listener).map(|held| HeldSocket {
        listener: &listener.name,
        backlog: listener.settings.backlog,
        plan: Some(listener),
        held,
    })
}

/// What the core has to know about the listeners.
pub(super) fn listener_lives(plan: &Plan) -> BTreeMap<ListenerId, ListenerLife> {
    let lives = plan.listeners().map(|(id, listener)| {
        let life = ListenerLife {
            presence: listener.settings.presence,
            users: Vec::new(),
        };
        (id, life)
    });
    let mut lives: BTreeMap<ListenerId, ListenerLife> = lives.collect();
    for (id, worker) in plan.workers() {
        for listener in &worker.listeners {
            if let Some(life) = lives.get_mut(listener) {
                life.users.push(id);
            }
        }
    }
    lives
}
