//! Definitions of workers that a reload has replaced, for as long as something may be started by
//! them; and the sockets that are left over with them.
//!
//! The plan always says what is wanted. While a rollout is under way, and after one that went back,
//! instances run by an earlier definition, and are started again by it when they crash: with the
//! sockets that it had. A socket that is in the plan no more is closed when the last definition that
//! has it is given up.

use crate::core::Edition;
use crate::listener::{Bound, BoundSocket, Retired};
use crate::plan::{Changes, Origin, Plan, SocketAt, WorkerChange, WorkerId, WorkerPlan};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The first definition of every worker.
const FIRST: Edition = Edition(1);

/// What is known of the definitions that are not those of the plan.
#[derive(Debug, Default)]
pub(super) struct Editions {
    /// Which one the plan has, of the workers of which that is not the first.
    latest: HashMap<WorkerId, Edition>,
    former: BTreeMap<(WorkerId, Edition), Former>,
    /// One socket each.
    retired: BTreeMap<u64, Retired>,
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

/// Where a socket is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Held(SocketAt),
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
                At::Retired(number) => self.retired.get(&number)?.sockets.first(),
            };
            Some(Named {
                listener: &socket.listener,
                backlog: socket.backlog,
                held: held?,
            })
        });
        Definition::Former(&former.plan, sockets.collect())
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

    /// Follows the sockets to where a reload has put them. `held` are those that were bound, of what
    /// the running plan had and the merged one has no more; `left` is what became of them.
    pub(super) fn follow(&mut self, changes: &Changes, held: &[SocketAt], left: Retired) {
        let mut now: HashMap<SocketAt, At> = HashMap::new();
        if !self.former.is_empty() {
            for (listener, origins) in (0..).zip(&changes.origins) {
                for (socket, origin) in origins.iter().enumerate() {
                    if let Origin::Held(from) = origin {
                        let listener = crate::plan::ListenerId(listener);
                        now.insert(*from, At::Held(SocketAt { listener, socket }));
                    }
                }
            }
        }
        for (from, socket) in held.iter().zip(left.sockets) {
            let number = self.next_retired;
            self.next_retired += 1;
            let sockets = vec![socket];
            self.retired.insert(number, Retired { sockets });
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
        for (number, retired) in all {
            if needed.contains(&number) {
                self.retired.insert(number, retired);
            } else {
                close(retired);
            }
        }
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

fn close(retired: Retired) {
    for socket in &retired.sockets {
        log::info!("closed {}, where nobody serves any more", socket.address);
    }
    for (path, error) in retired.close() {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}
