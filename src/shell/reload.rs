//! Putting a configuration that was read again into effect: all of it, or nothing.
//!
//! What can fail comes first. The file was read, checked and resolved by another process
//! ([`super::control`]); here its plan gets the numbers of the running one, and everything that is
//! new is bound beside what there is. If that fails it is undone, and whoever asked gets the same
//! diagnosis as at the start. Then the new plan takes the place of the old one, which cannot fail,
//! and the core is told, which has the workers follow.

use super::clients::{self, Role};
use super::clock;
use super::definitions::listener_lives;
use super::listeners::{CLOSING, missing_listeners};
use super::looks::Tell;
use super::turn::Shell;
use crate::core::{Configuration, Input, ListenerLife, Ticket, WorkerUpdate};
use crate::listener::{self, BindError, BoundSocket, Damage, PreparedReload};
use crate::plan::{self, Changes, Line, ListenerId, Merge, Plan, SocketKey, Tense, Verb, WorkerId};
use crate::report::Sources;
use crate::sys;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// What a reload came to.
pub(super) enum Reloaded {
    /// The configuration is in force; rollouts may still be under way.
    InForce,
    /// Listeners could not be bound; nothing has changed.
    NotBound(Rc<Plan>, Vec<BindError>),
    /// listend ends, and changes nothing any more.
    Ending,
}

/// Who takes which listener.
type Lives = BTreeMap<ListenerId, ListenerLife>;

/// The listeners that a reload changes something about.
struct Touched {
    /// Listeners whose sockets were replaced: what was known of the old ones is void.
    replaced: BTreeSet<ListenerId>,
    /// Listeners that got the sockets they had lacked.
    found: BTreeSet<ListenerId>,
    /// Listeners to watch anew: those, and the ones whose clients start another worker now.
    watched: BTreeSet<ListenerId>,
}

impl Shell {
    /// Puts a plan that was just resolved into effect. `ticket` is told when the workers have followed.
    pub(super) fn apply_plan(
        &mut self,
        wanted: Plan,
        sources: &Sources,
        ticket: Option<Ticket>,
    ) -> Reloaded {
        if self.core.is_stopping() {
            return Reloaded::Ending;
        }
        // An address that was given up may be wanted again.
        sys::close_apart_within(CLOSING);
        let running = Rc::clone(&self.plan);
        let Merge { plan, changes } = plan::merge(&running, &self.sound_former(), wanted);
        let plan = Rc::new(plan);
        let prepared = match listener::prepare_reload(&self.sockets, &running, &plan, &changes) {
            Ok(prepared) => prepared,
            Err(errors) => return Reloaded::NotBound(plan, errors),
        };
        let bound = |key| prepared.socket(key).or_else(|| self.sockets.get(key));
        let bound = |key| Some(&bound(key)?.address);
        let mut lines: Vec<String> = changes.lines(Tense::Present, bound).collect();
        self.warn_of(&prepared, &running, &plan);
        let (before, lives) = (listener_lives(&running), listener_lives(&plan));
        let roles = clients::roles(&plan);
        let mut touched = self.touched(&changes, (&before, &lives), &roles, &prepared.bound_anew());
        touched.watched.extend(prepared.with_more_shards());
        self.stop_watching(&touched.watched);
        lines.extend(self.tried_again(&changes, Tense::Present));
        lines.extend(self.bound_again(&plan, Tense::Present));
        let missing = missing_listeners(&prepared.missing);
        self.definitions
            .keep(&running, &self.sockets, &changes, &self.core);
        prepared.commit(&mut self.sockets);
        self.plan = Rc::clone(&plan);
        let mut new = self.configuration(ticket, &changes, (&before, lives), &touched);
        new.missing = missing;
        // What the core wants done is done when the shell has followed, too.
        self.core
            .handle(clock::now(), Input::Configure(Box::new(new)));
        self.definitions.follow(&plan, &self.core);
        self.close_what_nobody_has();
        self.follow_plan(sources);
        self.watch_again(roles, &touched.watched);
        self.steer_all_again();
        self.follow_flows();
        for line in &lines {
            log::info!("reload: {line}");
        }
        if let Some(ticket) = ticket {
            self.control.changes.insert(ticket, lines);
        }
        let found = touched.found.into_iter();
        self.feed_all(found.map(|listener| Input::ListenerBound { listener }));
        self.look_at_all(&touched.watched);
        self.look_at_paths();
        self.look_at_namespaces();
        Reloaded::InForce
    }

    /// Logs what went otherwise than one could think.
    fn warn_of(&mut self, prepared: &PreparedReload<'_>, running: &Plan, plan: &Rc<Plan>) {
        for key in &prepared.lost {
            let held = self.sockets.get(*key);
            let listener = held.and_then(|held| running.listeners.get(&held.listener));
            log::warn!(
                "listener {}: the clients in its queue are lost: its new address overlaps the old \
                 one, which had to be closed first",
                listener.map_or("", |listener| &listener.name)
            );
        }
        if !prepared.missing.is_empty() {
            self.diagnose(plan, prepared.missing.clone(), Tell::Log);
        }
    }

    /// Lines about workers of which nothing is said that rolls them, and that roll all the same.
    pub(super) fn tried_again(&self, changes: &Changes, tense: Tense) -> Vec<String> {
        let name = |worker: WorkerId| &self.definitions.worker(worker).name;
        let again = self.core.rolled_back();
        let again = again.filter(|worker| !changes.replaces(*worker));
        let lines = again.map(|worker| {
            let title = format!("worker `{}`", name(worker));
            let rest = "(retrying what was rolled back last time)";
            Line::new(&title, "", Verb::ROLLS, rest).told(tense)
        });
        lines.collect()
    }

    /// Lines about sockets that are in another network namespace than the one at the path of their listener.
    pub(super) fn bound_again(&self, plan: &Plan, tense: Tense) -> Vec<String> {
        let mut lines = Vec::new();
        for listener in plan.listeners.values() {
            let Some(path) = &listener.settings.network_namespace else {
                continue;
            };
            let elsewhere = self.sockets.of(listener).filter(|held| {
                held.shard == 0
                    && listener::inspect_of(listener, held) == Some(Damage::NamespaceReplaced)
            });
            for held in elsewhere {
                let title = format!("listener `{}`", listener.name);
                let rest = format!(
                    "bound again: another network namespace is at {} now",
                    path.display()
                );
                let line = Line::new(&title, &held.address.to_string(), Verb::IS, rest);
                lines.push(line.told(tense));
            }
        }
        lines
    }

    /// `before` and `lives` say who took which listener until now and who does from now on, and
    /// `bound_anew` are those that have a socket that was just bound.
    fn touched(
        &self,
        changes: &Changes,
        (before, lives): (&Lives, &Lives),
        roles: &BTreeMap<ListenerId, Role>,
        bound_anew: &BTreeSet<ListenerId>,
    ) -> Touched {
        let other_sockets = changes.listeners.keys().copied();
        let other_sockets = other_sockets.filter(|id| changes.has_other_sockets(*id));
        let replaced: BTreeSet<ListenerId> = other_sockets.collect();
        let found: BTreeSet<ListenerId> = bound_anew.difference(&replaced).copied().collect();
        let mean_something_else = lives.iter().filter(|(id, life)| {
            let role = roles.get(id).copied().unwrap_or(Role::Held);
            // Of several workers that clients start, the one that is gone may have been the one to
            // watch again.
            let users = before.get(id).map(|life| &life.users);
            let other_users = users.is_some_and(|users| *users != life.users);
            self.watch.role(**id) != role || (other_users && role != Role::Held)
        });
        let watched = mean_something_else.map(|(id, _)| *id);
        let watched = watched.chain(replaced.iter().copied());
        Touched {
            watched: watched.chain(found.iter().copied()).collect(),
            replaced,
            found,
        }
    }

    /// A socket that was damaged before may tell nothing of it any more.
    fn look_at_all(&mut self, listeners: &BTreeSet<ListenerId>) {
        for key in keys_of(&self.plan, listeners) {
            self.look_at(key);
        }
    }

    fn stop_watching(&mut self, touched: &BTreeSet<ListenerId>) {
        let keys = keys_of(&self.plan, touched);
        let sockets = keys.iter().filter_map(|key| self.sockets.get(*key));
        let sockets: Vec<&BoundSocket> = sockets.collect();
        self.watch.forget(&self.epoll, &sockets);
    }

    fn watch_again(&mut self, roles: BTreeMap<ListenerId, Role>, touched: &BTreeSet<ListenerId>) {
        self.watch.set_roles(roles);
        if self.watch.watches_addresses() {
            self.watch_addresses(true);
        }
        for key in keys_of(&self.plan, touched) {
            if let Some(socket) = self.sockets.get(key) {
                self.watch.socket(&self.epoll, socket);
            }
        }
    }

    /// Has everything that is made after a plan follow the new one.
    fn follow_plan(&mut self, sources: &Sources) {
        self.clients.follow(&self.plan);
        self.control.files = sources.names();
        self.logs.follow(&self.plan);
    }

    fn configuration(
        &self,
        ticket: Option<Ticket>,
        changes: &Changes,
        (before, mut lives): (&Lives, Lives),
        touched: &Touched,
    ) -> Configuration {
        let workers = changes.workers.iter().map(|(id, change)| {
            let life = || Arc::clone(&self.plan.worker(*id).lifecycle);
            let change = match change {
                plan::WorkerChange::Added => WorkerUpdate::Added { life: life() },
                plan::WorkerChange::Removed => WorkerUpdate::Removed,
                plan::WorkerChange::Changed(diff) if diff.rolls() => {
                    WorkerUpdate::Definition { life: life() }
                }
                plan::WorkerChange::Changed(_) => WorkerUpdate::Settings { life: life() },
            };
            (*id, change)
        });
        for gone in before.keys() {
            lives.entry(*gone).or_insert_with(ListenerLife::nobody);
        }
        let lives = lives.into_iter();
        let other = |id: &ListenerId, life: &ListenerLife| {
            touched.watched.contains(id) || before.get(id) != Some(life)
        };
        Configuration {
            ticket,
            workers: workers.collect(),
            listeners: lives.filter(|(id, life)| other(id, life)).collect(),
            former: self.definitions.former_takers(&self.sockets),
            touched: touched.replaced.iter().copied().collect(),
            missing: Vec::new(),
            final_for: self.definitions.without_all_sockets(&self.sockets),
        }
    }

    /// Closes a listener whose workers have failed, so that clients are refused.
    pub(super) fn unbind(&mut self, listener: ListenerId) {
        self.store.touch();
        let keys: Vec<SocketKey> = self.plan.listener(listener).keys().collect();
        // To remove a path takes some.
        let _lent = self.reserve.lend();
        for key in keys {
            let Some(socket) = self.sockets.take(key) else {
                continue;
            };
            self.watch.forget(&self.epoll, &[&socket]);
            self.close_socket(socket);
        }
        self.follow_flows();
    }
}

fn keys_of(plan: &Plan, listeners: &BTreeSet<ListenerId>) -> Vec<SocketKey> {
    let listeners = listeners.iter().filter_map(|id| plan.listeners.get(id));
    listeners.flat_map(|listener| listener.keys()).collect()
}
