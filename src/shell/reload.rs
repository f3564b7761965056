//! Taking over a configuration that was read again: all of it, or nothing.
//!
//! What can fail comes first. The file was read, checked and resolved by another process
//! ([`super::control`]); here its plan gets the numbers of the running one, and everything that is
//! new is bound beside what there is. If that fails it is undone, and whoever asked gets the same
//! diagnosis as at the start. Then the new plan takes the place of the old one, which cannot fail,
//! and the core is told, which has the workers follow.

use super::clients::{self, Role};
use super::editions::Editions;
use super::listeners::missing_listeners;
use super::looks::Tell;
use super::turn::{Shell, listener_lives};
use crate::core::{Input, ListenerLife, Replan, Ticket, WorkerChange};
use crate::listener::{self, BindError, Prepared};
use crate::plan::{
    self, Changes, Free, Line, ListenerId, Merge, Plan, SocketAt, Tense, Verb, WorkerId,
};
use crate::report::Sources;
use std::collections::BTreeSet;
use std::rc::Rc;

/// What a reload came to.
pub(super) enum Reloaded {
    /// It is in force; workers may be rolling. The changes, a line each.
    InForce(Vec<String>),
    /// Listeners could not be bound; nothing has changed.
    NotBound(Rc<Plan>, Vec<BindError>),
    /// listend ends, and takes over nothing any more.
    Ending,
}

/// The listeners that a reload changes something about.
struct Touched {
    /// They have other sockets than before: what was known of these means nothing any more.
    replaced: BTreeSet<ListenerId>,
    /// They have the sockets that they had lacked until now.
    found: BTreeSet<ListenerId>,
    /// They are watched anew: those, and the ones whose clients mean something else now.
    watched: BTreeSet<ListenerId>,
}

impl Shell {
    /// Takes over a plan that was just resolved. `ticket` is told when the workers have followed.
    pub(super) fn take_over(
        &mut self,
        wanted: Plan,
        sources: &Sources,
        ticket: Option<Ticket>,
    ) -> Reloaded {
        // What was decided by the numbers of the running plan is done by them.
        self.perform_effects();
        let Some(bound) = self.bound.as_mut().filter(|_| !self.core.is_stopping()) else {
            return Reloaded::Ending;
        };
        let free = Free {
            listeners: self.plan.removed_listeners.clone(),
            workers: self.editions.gone.clone(),
        };
        let (running, brought) = self.editions.bring_back(&self.plan, bound);
        let Merge { plan, changes } = plan::merge(&running, wanted, &free);
        let plan = Rc::new(plan);
        let prepared = match listener::prepare(bound, &running, &plan, &changes) {
            Ok(prepared) => prepared,
            Err(errors) => {
                self.editions.put_back(brought, bound);
                return Reloaded::NotBound(plan, errors);
            }
        };
        let lines = changes.lines(Tense::Present);
        let lines = lines.filter(|line| Editions::is_for_people(&brought, line));
        let mut lines: Vec<String> = lines.collect();
        self.warn_of(&prepared, &running, &plan);
        let before = listener_lives(&self.plan);
        let touched = self.touched(&plan, &changes, &before, &prepared.bound_anew());
        self.stop_watching(&touched.watched);
        let rolled_back = self.rolled_back(&changes);
        lines.extend(self.tried_again(&rolled_back, Tense::Present));
        let missing = missing_listeners(&prepared.missing);
        let Some(bound) = &mut self.bound else {
            return Reloaded::Ending;
        };
        let held: Vec<SocketAt> = changes
            .retired
            .iter()
            .copied()
            .filter(|at| {
                let mut sockets = bound.sockets(at.listener).iter();
                sockets.any(|socket| socket.planned == at.socket)
            })
            .collect();
        self.editions.keep(&running, bound, &changes);
        for worker in &rolled_back {
            // What runs is not what the plan had: that was no good, and is given up now.
            self.editions.keep_one(&running, bound, *worker);
        }
        let left = prepared.commit(bound);
        self.editions.follow(&running, &changes, &held, left);
        self.plan = Rc::clone(&plan);
        self.follow_plan(&changes, sources);
        self.forget_sockets(&touched);
        self.watch_again(&touched.watched);
        let replan = self.replan(ticket, &changes, &rolled_back, &before, &touched);
        for line in &lines {
            log::info!("reload: {line}");
        }
        self.core
            .replan_without(super::clock::now(), replan, &missing);
        for listener in touched.found {
            self.feed(Input::ListenerBound { listener });
        }
        self.look_at_all(&touched.watched);
        Reloaded::InForce(lines)
    }

    /// Logs what went otherwise than one could think.
    fn warn_of(&mut self, prepared: &Prepared<'_>, running: &Plan, plan: &Rc<Plan>) {
        for at in &prepared.lost {
            log::warn!(
                "listener {}: the clients in its queue are lost: its new address overlaps the old \
                 one, which had to be closed first",
                running.listener(at.listener).name
            );
        }
        if !prepared.missing.is_empty() {
            self.diagnose(plan, prepared.missing.clone(), Tell::Log);
        }
    }

    /// Lines about workers that nothing else is said about, and that roll all the same.
    pub(super) fn tried_again(&self, rolled_back: &[WorkerId], tense: Tense) -> Vec<String> {
        let name = |worker: &WorkerId| &self.plan.worker(*worker).name;
        let lines = rolled_back.iter().map(|worker| {
            let title = format!("worker `{}`", name(worker));
            let rest = "(what was given up last time is tried again)";
            Line::new(&title, "", Verb::ROLLS, rest).told(tense)
        });
        lines.collect()
    }

    /// The workers whose last definition went back, and is to be tried again.
    pub(super) fn rolled_back(&self, changes: &Changes) -> Vec<WorkerId> {
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

    /// `before` says who took which listener until now, and `bound_anew` are those that have a socket
    /// that was just bound.
    fn touched(
        &self,
        plan: &Plan,
        changes: &Changes,
        before: &[ListenerLife],
        bound_anew: &BTreeSet<ListenerId>,
    ) -> Touched {
        let other_sockets = changes.listeners.keys().copied();
        let other_sockets = other_sockets.filter(|id| changes.has_other_sockets(*id));
        let replaced: BTreeSet<ListenerId> = other_sockets.collect();
        let found: BTreeSet<ListenerId> = bound_anew.difference(&replaced).copied().collect();
        let lives = listener_lives(plan);
        let all = (0..).map(ListenerId).zip(clients::roles(plan)).zip(&lives);
        let mean_something_else = all.filter(|((id, role), life)| {
            // Of several workers that clients start, the one that is gone may have been the one to
            // watch again.
            let users = before.get(id.0 as usize).map(|life| &life.users);
            let other_users = users.is_some_and(|users| *users != life.users);
            self.watch.role(*id) != *role || (other_users && *role != Role::Held)
        });
        let watched = mean_something_else.map(|((id, _), _)| id);
        let watched = watched.chain(replaced.iter().copied());
        Touched {
            watched: watched.chain(found.iter().copied()).collect(),
            replaced,
            found,
        }
    }

    /// Nothing that was found out about former sockets is true of those that are there now.
    fn forget_sockets(&mut self, touched: &Touched) {
        for listener in &touched.replaced {
            self.control.queue_log.forget(*listener);
        }
        self.damages
            .retain(|(listener, _), _| !touched.replaced.contains(listener));
    }

    /// A socket that was damaged before may tell nothing of it any more.
    fn look_at_all(&mut self, listeners: &BTreeSet<ListenerId>) {
        for listener in listeners {
            let count = self
                .bound
                .as_ref()
                .map(|bound| bound.sockets(*listener).len());
            let count = u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX);
            (0..count).for_each(|socket| self.look_at(*listener, socket));
        }
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
        if self.watch.watches_addresses() {
            self.watch_addresses(true);
        }
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
                self.setbacks.forget(*worker);
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
        touched: &Touched,
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
                plan::WorkerChange::Changed(diff) if diff.rolls() || rolled_back.contains(id) => {
                    WorkerChange::Definition {
                        edition,
                        life: life(),
                        can_go_back: self.editions.has_all_sockets(*id),
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
                can_go_back: self.editions.has_all_sockets(*id),
            };
            (*id, change)
        });
        let lives = listener_lives(&self.plan).into_iter();
        let lives = (0..).map(ListenerId).zip(lives);
        let other = |id: &ListenerId, life: &ListenerLife| {
            touched.watched.contains(id) || before.get(id.0 as usize) != Some(life)
        };
        Replan {
            ticket,
            workers: workers.chain(again).collect(),
            listeners: lives.filter(|(id, life)| other(id, life)).collect(),
            former: self.editions.former_takers(&self.plan),
            touched: touched.replaced.iter().copied().collect(),
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
