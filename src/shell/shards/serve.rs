//! Carrying out what the core decides about shards (`distribute: shards`): holding as many as there are
//! instances, having the kernel send clients to those that are served, and looking who waits in one.

use crate::config::Distribute;
use crate::core::{Input, ProcessId};
use crate::listener;
use crate::plan::{ListenerId, Plan, WorkerId};
use crate::shell::listeners::CLOSING;
use crate::shell::looks::Tell;
use crate::shell::turn::Shell;
use crate::sys;
use std::collections::BTreeSet;
use std::rc::Rc;

impl Shell {
    /// Holds at least so many sockets at each address of a worker. If one cannot be bound, instances share
    /// those that there are.
    pub(in crate::shell) fn hold_shards(&mut self, worker: WorkerId, shards: u32) {
        let latest = self.definitions.worker(worker);
        if latest.lifecycle.distribute != Distribute::Shards {
            // It starts by a definition before, whose sockets are all held.
            return;
        }
        let known = latest.listeners.iter().copied();
        let lacking: Vec<ListenerId> = known
            .filter(|id| {
                let listener = self.plan.listeners.get(id);
                listener.is_some_and(|one| one.shards() < shards)
            })
            .collect();
        if !lacking.is_empty() {
            // An address that overlaps may have been given up in this very turn.
            sys::close_apart_within(CLOSING);
        }
        for listener in lacking {
            let before = Rc::clone(&self.plan);
            let plan = Rc::new(with_shards(&before, listener, shards));
            self.store.touch();
            if self.sockets.of(before.listener(listener)).next().is_none() {
                // It is missing, or closed: all of it is bound when its time comes.
                self.plan = plan;
                continue;
            }
            let (errors, _notes) = listener::bind_missing(&plan, listener, &mut self.sockets);
            let name = &plan.listener(listener).name;
            let held = before.listener(listener);
            if !errors.is_empty() {
                log::error!(
                    "listener {name}: cannot bind {shards} shards; instances share the {} that there are",
                    held.shards()
                );
                self.diagnose(&plan, errors, Tell::Log);
                continue;
            }
            for socket in self.sockets.of(plan.listener(listener)) {
                if held.position(socket.key).is_none() {
                    self.watch.socket(&self.epoll, socket);
                }
            }
            self.definitions.add_shards(worker, plan.listener(listener));
            log::info!("listener {name}: {shards} shards");
            self.plan = plan;
        }
        self.steer_again(worker);
    }

    /// Has new clients sent to these shards of a worker.
    pub(in crate::shell) fn steer(&mut self, worker: WorkerId, shards: BTreeSet<u32>) {
        self.steering.0.insert(worker, shards);
        self.steer_again(worker);
    }

    /// The same once more: the sockets may be others, or known to the kernel by other numbers.
    pub(in crate::shell) fn steer_again(&self, worker: WorkerId) {
        let Some(shards) = self.steering.0.get(&worker) else {
            return;
        };
        for listener in &self.definitions.worker(worker).listeners {
            if let Err(error) = self.sockets.steer(*listener, shards) {
                let name = self.plan.listeners.get(listener).map(|one| &*one.name);
                log::warn!(
                    "listener {}: cannot send clients to the shards that are served: {error}; those in \
                     others wait for their instance",
                    name.unwrap_or_default()
                );
            }
        }
    }

    /// The same for all workers.
    pub(in crate::shell) fn steer_all_again(&self) {
        for worker in self.steering.0.keys() {
            self.steer_again(*worker);
        }
    }

    /// Nothing is left of a worker.
    pub(in crate::shell) fn forget_steering(&mut self, worker: WorkerId) {
        self.steering.0.remove(&worker);
    }

    /// A listener has other sockets than before.
    pub(in crate::shell) fn steer_listener(&self, listener: ListenerId) {
        for worker in self.core.takers(listener) {
            self.steer_again(*worker);
        }
    }

    pub(in crate::shell) fn look_at_shard(&mut self, process: ProcessId) {
        let Some(known) = self.processes.get(process) else {
            // It is not there yet, or not any more, which the core knows.
            let clients = true;
            return self.feed(Input::ShardLooked { process, clients });
        };
        let definition = self.definition(known.instance, known.revision);
        let index = known.instance.index;
        let sockets = definition.sockets_of(index, &self.plan, &self.sockets);
        let depths = listener::depths(sockets.iter().map(|socket| socket.held));
        let clients = depths.iter().flatten().any(|depth| depth.has_clients());
        self.feed(Input::ShardLooked { process, clients });
    }
}

fn with_shards(plan: &Plan, listener: ListenerId, shards: u32) -> Plan {
    let mut plan = plan.clone();
    plan.add_shards(listener, shards);
    plan
}
