//! Definitions of workers that a reload has replaced, for as long as something may be started by
//! them; and the sockets that are left over with them.
//!
//! The plan always says what is wanted. While a rollout is under way, and after one that went back,
//! instances run by an earlier definition, and are started again by it when they crash: with the
//! sockets that it had. A socket that is in the plan no more is closed when the last definition that
//! has it is given up.

use crate::core::{Edition, FormerTaker};
use crate::listener::{self, Bound, BoundListener, BoundSocket, Retired};
use crate::plan::{Changes, ListenerId, ListenerPlan, Origin, Plan, SocketAt};
use crate::plan::{WorkerChange, WorkerId, WorkerPlan};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The first definition of every worker.
const FIRST: Edition = Edition(1);

/// What is known of the definitions that are not those of the plan.
#[derive(Debug, Default)]
pub(super) struct Editions {
    /// Which one the plan has, of the workers of which that is not the first.
    latest: HashMap<WorkerId, Edition>,
    former: BTreeMap<(WorkerId, Edition), Former>,
    retired: BTreeMap<u64, LeftOver>,
    next_retired: u64,
    /// Workers that were removed and of which nothing is left.
    pub(super) gone: BTreeSet<WorkerId>,
}

/// A definition that the plan has no more.
#[derive(Debug)]
struct Former {
    plan: WorkerPlan,
    sockets: Vec<FormerSocket>,
}

/// A socket of such a definition.
#[derive(Debug)]
struct FormerSocket {
    /// What its listener was called.
    listener: String,
    /// What listen(2) was given.
    backlog: u32,
    at: At,
}

/// A socket that the plan has no more.
#[derive(Debug)]
struct LeftOver {
    /// Its listener, as it was, with this socket alone.
    listener: ListenerPlan,
    socket: BoundSocket,
}

/// Left over sockets that are among those of the plan while a reload looks for what it wants: where
/// they are, and what they are known by.
#[derive(Debug, Default)]
#[must_use = "they are neither followed nor put back"]
pub(super) struct BroughtBack {
    places: Vec<(ListenerId, u64)>,
    listeners: Vec<ListenerPlan>,
}

/// Sockets of one listener that are left over.
pub(super) struct Before<'a> {
    /// What the listener was called.
    pub(super) listener: &'a str,
    pub(super) sockets: Vec<&'a BoundSocket>,
    /// The workers of which a definition before has them.
    pub(super) workers: BTreeSet<WorkerId>,
}

/// What a listener is called of which a socket is left over. No listener of a configuration has a space
/// in its name.
pub(super) fn name_before(name: &str) -> String {
    format!("{name} (before)")
}

/// Where a socket is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// In the plan.
    Held(SocketAt),
    /// Left over, by its number.
    Retired(u64),
}

/// How a worker is started: by the plan, or by what was before.
pub(super) enum Definition<'a> {
    Latest(&'a WorkerPlan),
    Former(&'a WorkerPlan, Vec<Named<'a>>),
}

/// A socket of a definition.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    /// What its listener is called.
    pub(super) listener: &'a str,
    /// What listen(2) is given.
    pub(super) backlog: u32,
    /// What it is to be; `None` for a socket that a reload has left over.
    pub(super) plan: Option<&'a ListenerPlan>,
    pub(super) at: At,
    pub(super) held: &'a BoundSocket,
}

impl<'a> Definition<'a> {
    pub(super) fn plan(&self) -> &'a WorkerPlan {
        match self {
            Definition::Latest(plan) | Definition::Former(plan, _) => plan,
        }
    }
}

impl Editions {
    /// Which definition of a worker the plan has.
    pub(super) fn latest(&self, worker: WorkerId) -> Edition {
        self.latest.get(&worker).copied().unwrap_or(FIRST)
    }

    /// A definition of a worker.
    pub(super) fn definition<'a>(
        &'a self,
        plan: &'a Plan,
        bound: Option<&'a Bound>,
        worker: WorkerId,
        edition: Edition,
    ) -> Definition<'a> {
        let Some(former) = self.former.get(&(worker, edition)) else {
            return Definition::Latest(plan.worker(worker));
        };
        let sockets = former.sockets.iter().filter_map(|socket| {
            let held = match socket.at {
                At::Held(at) => find(bound?, at),
                At::Retired(number) => self.retired.get(&number).map(|left| &left.socket),
            };
            // As many may wait as the plan says now: another definition has the socket as well.
            let plan = match socket.at {
                At::Held(at) => Some(plan.listener(at.listener)),
                At::Retired(_) => None,
            };
            Some(Named {
                listener: &socket.listener,
                backlog: plan.map_or(socket.backlog, |plan| plan.backlog),
                plan,
                at: socket.at,
                held: held?,
            })
        });
        Definition::Former(&former.plan, sockets.collect())
    }

    /// The definitions that the plan has no more and that have this socket.
    pub(super) fn former_with(
        &self,
        at: At,
    ) -> impl Iterator<Item = (WorkerId, Edition, &WorkerPlan)> {
        let has_it = move |former: &Former| former.sockets.iter().any(|socket| socket.at == at);
        let all = self.former.iter();
        let with_it = all.filter(move |(_, former)| has_it(former));
        with_it.map(|((worker, edition), former)| (*worker, *edition, &former.plan))
    }

    /// Who has a listener of the plan by a definition that the plan has no more.
    pub(super) fn former_takers(&self, plan: &Plan) -> Vec<FormerTaker> {
        let mut all = BTreeSet::new();
        for (listener, planned) in plan.live_listeners() {
            for socket in 0..planned.sockets.len() {
                let at = At::Held(SocketAt { listener, socket });
                let with_it = self.former_with(at);
                all.extend(with_it.map(|(worker, edition, _)| (listener, worker, edition)));
            }
        }
        all.into_iter().collect()
    }

    /// What is held that the plan has no more, by the names that the listeners had.
    pub(super) fn before(&self) -> Vec<Before<'_>> {
        let mut all: BTreeMap<&str, Before<'_>> = BTreeMap::new();
        for (number, left) in &self.retired {
            let listener = left.listener.name.as_str();
            let one = all.entry(listener).or_insert_with(|| Before {
                listener,
                sockets: Vec::new(),
                workers: BTreeSet::new(),
            });
            one.sockets.push(&left.socket);
            let users = self.former_with(At::Retired(*number));
            one.workers.extend(users.map(|(worker, _, _)| worker));
        }
        all.into_values().collect()
    }

    /// Keeps the definitions that a reload replaces. To be called before its sockets are taken over.
    pub(super) fn keep(&mut self, plan: &Plan, bound: &Bound, changes: &Changes) {
        for (worker, change) in &changes.workers {
            let is_replaced = match change {
                WorkerChange::Added => false,
                WorkerChange::Removed => true,
                WorkerChange::Changed(diff) => diff.rolls(),
            };
            if is_replaced {
                self.keep_one(plan, bound, *worker);
            }
        }
    }

    /// Keeps the definition that the plan has of a worker, and numbers the one that follows.
    pub(super) fn keep_one(&mut self, plan: &Plan, bound: &Bound, worker: WorkerId) {
        let wanted = plan.worker(worker);
        let sockets = wanted.listeners.iter().flat_map(|id| {
            let listener = plan.listener(*id);
            bound.sockets(*id).iter().map(move |socket| FormerSocket {
                listener: listener.name.clone(),
                backlog: listener.backlog,
                at: At::Held(SocketAt {
                    listener: *id,
                    socket: socket.planned,
                }),
            })
        });
        let former = Former {
            plan: wanted.clone(),
            sockets: sockets.collect(),
        };
        let edition = self.latest(worker);
        self.former.insert((worker, edition), former);
        self.latest.insert(worker, Edition(edition.0 + 1));
    }

    /// Puts the sockets that are left over behind those of the plan, each as a listener of its own:
    /// what a reload wants may be among them, or overlap with one. Answers with the plan that has
    /// them, for as long as the reload is being prepared.
    pub(super) fn bring_back(&mut self, plan: &Plan, bound: &mut Bound) -> (Plan, BroughtBack) {
        let mut plan = plan.clone();
        let mut brought = BroughtBack::default();
        bound
            .listeners
            .resize_with(plan.listeners.len(), BoundListener::default);
        for (number, left) in std::mem::take(&mut self.retired) {
            if listener::inspect(&left.socket).is_some() {
                // Something else is at its path. Whoever has it can serve who waits, and no more.
                self.retired.insert(number, left);
                continue;
            }
            // There are fewer than 2³² listeners.
            let id = ListenerId(u32::try_from(plan.listeners.len()).unwrap_or(u32::MAX));
            let LeftOver {
                listener,
                mut socket,
            } = left;
            socket.planned = 0;
            bound.listeners.push(BoundListener {
                sockets: vec![socket],
            });
            let mut as_another = listener.clone();
            as_another.name = name_before(&listener.name);
            plan.listeners.push(as_another);
            brought.places.push((id, number));
            brought.listeners.push(listener);
        }
        for (listener, number) in &brought.places {
            let at = At::Held(SocketAt {
                listener: *listener,
                socket: 0,
            });
            self.is_now(At::Retired(*number), at);
        }
        (plan, brought)
    }

    /// Takes them away again: nothing has come of the reload.
    pub(super) fn put_back(&mut self, brought: BroughtBack, bound: &mut Bound) {
        for ((id, number), listener) in brought.places.into_iter().zip(brought.listeners) {
            let place = bound.listeners.get_mut(id.0 as usize);
            let socket = place.and_then(|place| place.sockets.pop());
            if let Some(socket) = socket {
                self.retired.insert(number, LeftOver { listener, socket });
            }
            let at = At::Held(SocketAt {
                listener: id,
                socket: 0,
            });
            self.is_now(at, At::Retired(number));
        }
    }

    fn is_now(&mut self, before: At, at: At) {
        for socket in self.former.values_mut().flat_map(|one| &mut one.sockets) {
            if socket.at == before {
                socket.at = at;
            }
        }
    }

    /// Follows the sockets to where a reload has put them. `held` are those that were bound, of what
    /// the running plan had and the merged one has no more; `left` is what became of them.
    pub(super) fn follow(
        &mut self,
        running: &Plan,
        changes: &Changes,
        held: &[SocketAt],
        left: Retired,
    ) {
        let mut now: HashMap<SocketAt, At> = HashMap::new();
        if !self.former.is_empty() {
            for (listener, origins) in (0..).zip(&changes.origins) {
                for (socket, origin) in origins.iter().enumerate() {
                    if let Origin::Held(from) = origin {
                        let listener = ListenerId(listener);
                        now.insert(*from, At::Held(SocketAt { listener, socket }));
                    }
                }
            }
        }
        for (from, socket) in held.iter().zip(left.sockets) {
            let number = self.next_retired;
            self.next_retired += 1;
            let listener = alone(running.listener(from.listener), from.socket, &socket);
            self.retired.insert(number, LeftOver { listener, socket });
            now.insert(*from, At::Retired(number));
        }
        for socket in self.former.values_mut().flat_map(|one| &mut one.sockets) {
            if let At::Held(before) = socket.at
                && let Some(at) = now.get(&before)
            {
                socket.at = *at;
            }
        }
        self.sweep();
    }

    /// Whether the plan has every socket of the definitions that are kept of a worker.
    pub(super) fn has_all_sockets(&self, worker: WorkerId) -> bool {
        let of_it = self.former.iter().filter(|((id, _), _)| *id == worker);
        let mut sockets = of_it.flat_map(|(_, former)| &former.sockets);
        sockets.all(|socket| matches!(socket.at, At::Held(_)))
    }

    /// Of all definitions of a worker only this one is needed any more.
    pub(super) fn retire(&mut self, worker: WorkerId, needed: Edition) {
        self.former
            .retain(|(id, edition), _| *id != worker || *edition == needed);
        self.sweep();
    }

    /// Nothing is left of a worker that was removed.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.former.retain(|(id, _), _| *id != worker);
        self.latest.remove(&worker);
        self.gone.insert(worker);
        self.sweep();
    }

    /// Closes the sockets that no definition has any more.
    fn sweep(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        let sockets = self.former.values().flat_map(|former| &former.sockets);
        let needed: BTreeSet<u64> = sockets
            .filter_map(|socket| match socket.at {
                At::Retired(number) => Some(number),
                At::Held(_) => None,
            })
            .collect();
        let all = std::mem::take(&mut self.retired);
        for (number, left) in all {
            if needed.contains(&number) {
                self.retired.insert(number, left);
            } else {
                close(left.socket);
            }
        }
    }

    /// Whether a line about a reload is for people: not what it says of sockets that were left over
    /// and still are.
    pub(super) fn is_for_people(brought: &BroughtBack, line: &str) -> bool {
        let mut names = brought.listeners.iter().map(|one| name_before(&one.name));
        !names.any(|name| line.starts_with(&format!("listener `{name}`")))
    }

    /// Closes everything: listend ends.
    pub(super) fn close_all(&mut self) {
        self.former.clear();
        self.sweep();
    }
}

fn find(bound: &Bound, at: SocketAt) -> Option<&BoundSocket> {
    let mut sockets = bound.sockets(at.listener).iter();
    sockets.find(|socket| socket.planned == at.socket)
}

/// A listener with one of its sockets alone.
fn alone(listener: &ListenerPlan, index: usize, socket: &BoundSocket) -> ListenerPlan {
    let name = listener
        .name
        .strip_suffix(&name_before(""))
        .unwrap_or(&listener.name);
    ListenerPlan {
        name: name.to_owned(),
        sockets: listener.sockets.get(index).cloned().into_iter().collect(),
        symlinks: socket.traces.symlinks.clone(),
        ..listener.clone()
    }
}

fn close(socket: BoundSocket) {
    log::info!("closed {}, where nobody serves any more", socket.address);
    let sockets = vec![socket];
    for (path, error) in (Retired { sockets }).close() {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}
