//! Taking over a configuration that was read again: all of it, or nothing.
//!
//! What can fail comes first. The file was read, checked and resolved by another process
//! ([`super::control`]); here its plan gets the numbers of the running one, and everything that is
//! new is bound beside what there is. If that fails it is undone, and whoever asked gets the same
//! diagnosis as at the start. Then the new plan takes the place of the old one, which cannot fail,
//! and the core is told, which has the workers follow.

use super::clients;
use super::listeners::{missing_listeners, one_line};
use super::turn::{Shell, listener_lives};
use crate::core::{Input, ListenerLife, Replan, Ticket, WorkerChange};
use crate::diagnose::{self, Machine};
use crate::listener::{self, BindError};
use crate::plan::{self, Changes, Free, ListenerId, Merge, Plan, SocketAt, WorkerId};
use crate::report::{Problem, Report, Sources};
use std::collections::BTreeSet;
use std::rc::Rc;

/// What a reload came to.
pub(super) enum Reloaded {
    /// It is in force; workers may be rolling. The changes, a line each.
    InForce(Vec<String>),
    /// Listeners could not be bound; nothing has changed.
    NotBound(Report),
}

impl Shell {
    /// Takes over a plan that was just resolved. `ticket` is told when the workers have followed.
    pub(super) fn take_over(
        &mut self,
        wanted: Plan,
        sources: &Sources,
        ticket: Option<Ticket>,
    ) -> Reloaded {
        let free = Free {
            listeners: self.plan.removed_listeners.clone(),
            workers: self.editions.gone.clone(),
        };
        let running = Rc::clone(&self.plan);
        let Merge { plan, changes } = plan::merge(&running, wanted, &free);
        let plan = Rc::new(plan);
        let Some(bound) = &self.bound else {
            return Reloaded::InForce(Vec::new());
        };
        let prepared = match listener::prepare(bound, &running, &plan, &changes) {
            Ok(prepared) => prepared,
            Err(errors) => return Reloaded::NotBound(explain(&errors, &plan)),
        };
        for at in &prepared.lost {
            log::warn!(
                "listener {}: the clients in its queue are lost: its new address overlaps the old \
                 one, which had to be closed first",
                self.plan.listener(at.listener).name
            );
        }
        for error in &prepared.missing {
            let problem = diagnose::explain(error, &plan, &Machine::new());
            log::warn!("{}", one_line(&problem));
        }
        let lives = listener_lives(&self.plan);
        let held: Vec<SocketAt> = changes
            .retired
            .iter()
            .copied()
            .filter(|at| {
                let mut sockets = bound.sockets(at.listener).iter();
                sockets.any(|socket| socket.planned == at.socket)
            })
            .collect();
        let touched = self.touched(&plan, &changes);
        self.stop_watching(&touched);
        let rolled_back = self.rolled_back(&changes);
        let Some(bound) = &mut self.bound else {
            return Reloaded::InForce(Vec::new());
        };
        self.editions.keep(&running, bound, &changes);
        for worker in &rolled_back {
            // What runs is not what the plan had: that was no good, and is given up now.
            self.editions.keep_one(&running, bound, *worker);
        }
        let missing = missing_listeners(&prepared.missing);
        let left = prepared.commit(bound);
        self.editions.follow(&changes, &held, left);
        self.plan = Rc::clone(&plan);
        self.follow_plan(&changes, sources);
        self.watch_again(&touched);
        let replan = self.replan(ticket, &changes, &rolled_back, &lives, &touched);
        for line in changes.lines() {
            log::info!("reload: {line}");
        }
        self.core.replan(super::clock::now(), replan);
        for (listener, why) in missing {
            self.feed(Input::ListenerMissing { listener, why });
        }
        Reloaded::InForce(changes.lines().to_vec())
    }

    /// The workers whose last definition went back, and is to be tried again.
    fn rolled_back(&self, changes: &Changes) -> Vec<WorkerId> {
        let workers = self.plan.live_workers().map(|(id, _)| id);
        let stale = workers.filter(|id| {
            let edition = self.core.edition(*id);
            edition.is_some_and(|edition| edition != self.editions.latest(*id))
        });
        let is_replaced = |id: &WorkerId| match changes.workers.get(id) {
            Some(plan::WorkerChange::Added | plan::WorkerChange::Removed) => true,
            Some(plan::WorkerChange::Changed(diff)) => diff.rolls(),
            None => false,
        };
        stale.filter(|id| !is_replaced(id)).collect()
    }

    /// The listeners that have other sockets than before, or whose clients mean something else now.
    fn touched(&self, plan: &Plan, changes: &Changes) -> BTreeSet<ListenerId> {
        let roles = clients::roles(plan);
        let all = (0..).map(ListenerId).zip(roles);
        let other_role = all.filter(|(id, role)| self.watch.role(*id) != *role);
        let other_sockets = changes.listeners.keys().copied();
        let other_sockets = other_sockets.filter(|id| changes.has_other_sockets(*id));
        other_role.map(|(id, _)| id).chain(other_sockets).collect()
    }

    fn stop_watching(&mut self, touched: &BTreeSet<ListenerId>) {
        for listener in touched {
            for socket in self.bound.iter().flat_map(|bound| bound.sockets(*listener)) {
                self.watch.not(&self.epoll, socket);
            }
            self.watch.forget(*listener);
        }
    }

    fn watch_again(&mut self, touched: &BTreeSet<ListenerId>) {
        self.watch.set_roles(clients::roles(&self.plan));
        for listener in touched {
            let sockets = self.bound.iter().flat_map(|bound| bound.sockets(*listener));
            for (index, socket) in (0..).zip(sockets) {
                self.watch.socket(&self.epoll, (*listener, index), socket);
            }
        }
    }

    /// Has everything that is made after a plan follow the new one.
    fn follow_plan(&mut self, changes: &Changes, sources: &Sources) {
        self.clients.follow(&self.plan);
        if let Err(error) = self.watch_children() {
            log::warn!("cannot watch for children that end: {error}");
        }
        self.control.files = sources.names();
        for (worker, change) in &changes.workers {
            if *change == plan::WorkerChange::Added {
                self.metrics.counters.forget(*worker);
                self.logs.forget(*worker);
                self.setbacks.remove(worker);
                self.editions.gone.remove(worker);
            }
        }
        self.metrics.counters.resize(self.plan.workers.len());
        self.logs.follow(&self.plan);
    }

    fn replan(
        &self,
        ticket: Option<Ticket>,
        changes: &Changes,
        rolled_back: &[WorkerId],
        before: &[ListenerLife],
        touched: &BTreeSet<ListenerId>,
    ) -> Replan {
        let workers = changes.workers.iter().map(|(id, change)| {
            let life = || self.plan.worker(*id).lifecycle.clone();
            let edition = self.editions.latest(*id);
            let change = match change {
                plan::WorkerChange::Added => WorkerChange::Added {
                    edition,
                    life: life(),
                },
                plan::WorkerChange::Removed => WorkerChange::Removed,
                plan::WorkerChange::Changed(diff) if diff.rolls() => WorkerChange::Definition {
                    edition,
                    life: life(),
                },
                plan::WorkerChange::Changed(_) if rolled_back.contains(id) => {
                    WorkerChange::Definition {
                        edition,
                        life: life(),
                    }
                }
                plan::WorkerChange::Changed(_) => WorkerChange::Settings { life: life() },
            };
            (*id, change)
        });
        let again = rolled_back
            .iter()
            .filter(|id| !changes.workers.contains_key(id));
        let again = again.map(|id| {
            let change = WorkerChange::Definition {
                edition: self.editions.latest(*id),
                life: self.plan.worker(*id).lifecycle.clone(),
            };
            (*id, change)
        });
        let lives = listener_lives(&self.plan).into_iter();
        let lives = (0..).map(ListenerId).zip(lives);
        let other = |id: &ListenerId, life: &ListenerLife| {
            touched.contains(id) || before.get(id.0 as usize) != Some(life)
        };
        Replan {
            ticket,
            workers: workers.chain(again).collect(),
            listeners: lives.filter(|(id, life)| other(id, life)).collect(),
            touched: touched.iter().copied().collect(),
        }
    }

    /// Closes a listener whose workers have failed, so that clients are refused.
    pub(super) fn unbind(&mut self, listener: ListenerId) {
        let Some(bound) = &mut self.bound else { return };
        let Some(place) = bound.listeners.get_mut(listener.0 as usize) else {
            return;
        };
        let sockets = std::mem::take(&mut place.sockets);
        for socket in &sockets {
            self.watch.not(&self.epoll, socket);
        }
        self.watch.forget(listener);
        for (path, error) in (listener::Retired { sockets }).close() {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// The whole diagnosis, as at the start.
fn explain(errors: &[BindError], plan: &Plan) -> Report {
    let machine = Machine::new();
    let mut report = Report::default();
    let problems = errors.iter();
    let problems = problems.map(|error| diagnose::explain(error, plan, &machine));
    problems.for_each(|problem: Problem| report.add(problem));
    report.sort();
    report
}
