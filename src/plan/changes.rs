//! What is different between two plans with the same numbers, in data and in words.
//!
//! Sockets are compared by what they are bound to, whichever listener they belong to: a listener
//! that got another name keeps its sockets, and its clients notice nothing.

use super::line::{Line, Tense, Verb};
use super::model::{ListenerId, ListenerPlan, Plan, SocketPlan, WorkerId, WorkerPlan};
use super::values::{self, changed, changed_text, or};
use super::worker_diff::WorkerDiff;
use crate::config::options::{OptionSetting, OptionSpec, OptionValue};
use crate::config::{Endpoint, Multicast, Presence, UnixName};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

/// What becomes of a socket that goes away: what still runs by the definition before keeps it.
const CLOSED: &str = "closed once nobody serves there";

/// A socket of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketAt {
    /// Its listener.
    pub listener: ListenerId,
    /// Index into [`ListenerPlan::sockets`].
    pub socket: usize,
}

/// Where a socket of the merged plan comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It is this one of the running plan.
    Held(SocketAt),
    /// It is to be bound.
    New,
}

/// What is different in the merged plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// By [`ListenerId`], one for each of its sockets; empty for one that was removed.
    pub origins: Vec<Vec<Origin>>,
    /// The sockets of the running plan that the merged one has no more.
    pub retired: Vec<SocketAt>,
    /// The listeners of which anything is different.
    pub listeners: BTreeMap<ListenerId, ListenerChange>,
    /// The workers of which anything is different.
    pub workers: BTreeMap<WorkerId, WorkerChange>,
    lines: Vec<Line>,
}

/// What is different about a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It stays, with other sockets or other attributes.
    Changed {
        /// Whether it has other sockets, or the same in another order.
        sockets: bool,
    },
}

/// What is different about a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It stays, and something about it is different.
    Changed(WorkerDiff),
}

/// An option that is set otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionChange<'p> {
    /// As it was; `None` was the kernel's default.
    pub before: Option<&'p OptionSetting>,
    /// As it is to be; `None` is the kernel's default.
    pub after: Option<&'p OptionSetting>,
}

impl OptionChange<'_> {
    /// Which option; `None` never, for one of the two is there.
    pub fn spec(&self) -> Option<&'static OptionSpec> {
        let setting = self.after.or(self.before)?;
        Some(setting.spec)
    }
}

/// The options that differ, those that are set first.
pub fn option_changes<'p>(
    before: &'p ListenerPlan,
    after: &'p ListenerPlan,
) -> Vec<OptionChange<'p>> {
    let named = |options: &'p [OptionSetting], key: &str| {
        options.iter().find(|setting| setting.spec.key == key)
    };
    let set = after.options.iter().map(|setting| OptionChange {
        before: named(&before.options, setting.spec.key),
        after: Some(setting),
    });
    let gone = before.options.iter().filter_map(|setting| {
        let is_gone = named(&after.options, setting.spec.key).is_none();
        is_gone.then_some(OptionChange {
            before: Some(setting),
            after: None,
        })
    });
    let all = set.chain(gone);
    all.filter(|change| change.before != change.after).collect()
}

/// What a socket is bound to: where two of the running and the wanted plan have it in common, they are
/// one and the same. That this machine may lack it (`optional`) is no part of it.
type Key<'p> = (Option<&'p Path>, Endpoint);

fn key<'p>(listener: &'p ListenerPlan, socket: &SocketPlan) -> Key<'p> {
    let mut endpoint = socket.endpoint.clone();
    if let Endpoint::Inet { optional, .. } = &mut endpoint {
        *optional = false;
    }
    let namespace = listener.network_namespace.as_deref();
    (namespace.filter(|_| is_in_namespace(&endpoint)), endpoint)
}

/// Whether it can be there once in each network namespace. A path or a message queue is the same in
/// all of them.
fn is_in_namespace(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Inet { .. } | Endpoint::Netlink { .. } => true,
        Endpoint::Unix { name, .. } => matches!(name, UnixName::Abstract(_)),
        Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Vsock { .. } => false,
    }
}

impl Changes {
    /// Compares a running plan with one that has its numbers ([`super::merge()`]).
    pub(super) fn between(running: &Plan, merged: &Plan) -> Changes {
        let mut changes = Changes::default();
        changes.follow_sockets(running, merged);
        for (id, before) in running.live_listeners() {
            if merged.removed_listeners.contains(&id) {
                changes.listeners.insert(id, ListenerChange::Removed);
                changes.say_removed(id, before);
            }
        }
        for (id, after) in merged.live_listeners() {
            let is_new = running.removed_listeners.contains(&id);
            let before = running.listeners.get(id.0 as usize);
            changes.listener(running, id, before.filter(|_| !is_new), after);
        }
        for (id, before) in running.live_workers() {
            if merged.removed_workers.contains(&id) {
                changes.workers.insert(id, WorkerChange::Removed);
                changes.say(&format!("worker `{}`", before.name), "removed");
            }
        }
        for (id, after) in merged.live_workers() {
            let is_new = running.removed_workers.contains(&id);
            let before = running.workers.get(id.0 as usize);
            changes.worker((running, merged), id, before.filter(|_| !is_new), after);
        }
        changes
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.workers.is_empty()
    }

    /// What is different, in words, a line for each: listeners before workers, and among them those
    /// that are gone first.
    pub fn lines(&self, tense: Tense) -> impl Iterator<Item = String> {
        self.lines.iter().map(move |line| line.told(tense))
    }

    /// Where the sockets of a listener of the merged plan come from.
    pub fn origins_of(&self, listener: ListenerId) -> &[Origin] {
        let origins = self.origins.get(listener.0 as usize);
        origins.map_or(&[], Vec::as_slice)
    }

    /// Whether a listener has other sockets than before.
    pub fn has_other_sockets(&self, listener: ListenerId) -> bool {
        match self.listeners.get(&listener) {
            Some(ListenerChange::Changed { sockets }) => *sockets,
            Some(ListenerChange::Added | ListenerChange::Removed) => true,
            None => false,
        }
    }

    /// First each listener finds its own sockets again, then those of others that are left.
    fn follow_sockets(&mut self, running: &Plan, merged: &Plan) {
        let mut left: HashMap<Key, VecDeque<SocketAt>> = HashMap::new();
        self.origins.resize(merged.listeners.len(), Vec::new());
        let mut open = Vec::new();
        for (id, after) in merged.live_listeners() {
            let before = running.listeners.get(id.0 as usize);
            let before = before.filter(|_| !running.removed_listeners.contains(&id));
            let origins = &mut self.origins[id.0 as usize];
            if before.is_some_and(|before| has_same_sockets(before, after)) {
                let same = |socket| {
                    Origin::Held(SocketAt {
                        listener: id,
                        socket,
                    })
                };
                *origins = (0..after.sockets.len()).map(same).collect();
            } else {
                *origins = vec![Origin::New; after.sockets.len()];
                open.push((id, after));
            }
        }
        for (listener, before) in running.live_listeners() {
            let is_settled = merged.listeners.get(listener.0 as usize);
            let is_settled = is_settled.is_some_and(|after| has_same_sockets(before, after));
            if is_settled && !merged.removed_listeners.contains(&listener) {
                continue;
            }
            for (socket, planned) in before.sockets.iter().enumerate() {
                let places = left.entry(key(before, planned)).or_default();
                places.push_back(SocketAt { listener, socket });
            }
        }
        for only_own in [true, false] {
            for (id, after) in &open {
                let origins = &mut self.origins[id.0 as usize];
                let planned = after.sockets.iter().zip(origins);
                for (planned, origin) in planned.filter(|(_, origin)| **origin == Origin::New) {
                    let Some(places) = left.get_mut(&key(after, planned)) else {
                        continue;
                    };
                    let is_meant = |at: &SocketAt| !only_own || at.listener == *id;
                    if let Some(at) = places.iter().position(is_meant)
                        && let Some(held) = places.remove(at)
                    {
                        *origin = Origin::Held(held);
                    }
                }
            }
        }
        self.retired = left.into_values().flatten().collect();
        self.retired.sort_unstable();
    }

    fn listener(
        &mut self,
        running: &Plan,
        id: ListenerId,
        before: Option<&ListenerPlan>,
        after: &ListenerPlan,
    ) {
        let title = format!("listener `{}`", after.name);
        let Some(before) = before else {
            self.listeners.insert(id, ListenerChange::Added);
            self.say(&title, "added");
            return self.say_sockets(running, id, &title, after);
        };
        let same = |(socket, origin): (usize, &Origin)| {
            *origin
                == Origin::Held(SocketAt {
                    listener: id,
                    socket,
                })
        };
        let sockets = before.sockets.len() != after.sockets.len()
            || !self.origins_of(id).iter().enumerate().all(same);
        let attributes = attributes(before, after);
        if !sockets && attributes.is_empty() {
            return;
        }
        let change = ListenerChange::Changed { sockets };
        self.listeners.insert(id, change);
        if sockets {
            self.say_sockets(running, id, &title, after);
            let closed = self.retired_of(id).iter();
            let closed = closed.map(|at| before.sockets[at.socket].endpoint.to_string());
            let closed: Vec<String> = closed.collect();
            self.say_list(&title, &closed, CLOSED);
        }
        for words in attributes {
            self.say(&title, &words);
        }
    }

    fn worker(
        &mut self,
        (running, merged): (&Plan, &Plan),
        id: WorkerId,
        before: Option<&WorkerPlan>,
        after: &WorkerPlan,
    ) {
        let title = format!("worker `{}`", after.name);
        let Some(before) = before else {
            self.workers.insert(id, WorkerChange::Added);
            return self.say(&title, "added");
        };
        let other = after.listeners.iter().copied();
        let other = other.filter(|listener| self.has_other_sockets(*listener));
        let other = other.map(|listener| merged.listener(listener).name.as_str());
        let other: Vec<&str> = other.collect();
        let names = |plan: &Plan, worker: &WorkerPlan| {
            let listeners = worker.listeners.iter();
            values::list(listeners.map(|id| plan.listener(*id).name.clone()))
        };
        // Two listeners may have traded their names.
        let is_other = before.listeners != after.listeners;
        let listeners = is_other.then(|| {
            let (old, new) = (names(running, before), names(merged, after));
            let told = changed_text("listeners", &old, &new, String::clone);
            told.unwrap_or_else(|| "listeners".to_owned())
        });
        let diff = WorkerDiff::between(before, after, listeners, &other);
        if diff.is_empty() {
            return;
        }
        self.lines.extend(diff.lines(&title, after));
        self.workers.insert(id, WorkerChange::Changed(diff));
    }

    /// The sockets of one listener that are left over.
    fn retired_of(&self, listener: ListenerId) -> &[SocketAt] {
        let start = self.retired.partition_point(|at| at.listener < listener);
        let end = self.retired.partition_point(|at| at.listener <= listener);
        &self.retired[start..end]
    }

    fn say(&mut self, title: &str, words: &str) {
        self.lines.push(Line::plain(title, words));
    }

    /// `A is bound`, `A, B and 3 more are bound`.
    fn say_list(&mut self, title: &str, items: &[String], done: &str) {
        if let Some((list, is)) = listed(items) {
            self.lines.push(Line::new(title, &list, is, done));
        }
    }

    fn say_removed(&mut self, id: ListenerId, before: &ListenerPlan) {
        let title = format!("listener `{}`", before.name);
        let is_retired = |socket: &usize| {
            let at = SocketAt {
                listener: id,
                socket: *socket,
            };
            self.retired.binary_search(&at).is_ok()
        };
        let closed = (0..before.sockets.len()).filter(is_retired);
        let closed = closed.map(|socket| before.sockets[socket].endpoint.to_string());
        let closed: Vec<String> = closed.collect();
        match listed(&closed) {
            Some((list, is)) => {
                let subject = format!("removed; {list}");
                self.lines.push(Line::new(&title, &subject, is, CLOSED));
            }
            None => self.say(&title, "removed"),
        }
    }

    fn say_sockets(&mut self, running: &Plan, id: ListenerId, title: &str, after: &ListenerPlan) {
        let mut bound = Vec::new();
        let mut moved: BTreeMap<ListenerId, Vec<String>> = BTreeMap::new();
        for (planned, origin) in after.sockets.iter().zip(self.origins_of(id)) {
            let address = planned.endpoint.to_string();
            match origin {
                Origin::New => bound.push(address),
                Origin::Held(at) if at.listener != id => {
                    moved.entry(at.listener).or_default().push(address);
                }
                Origin::Held(_) => {}
            }
        }
        for (from, addresses) in moved {
            let done = format!("moved here from listener `{}`", running.listener(from).name);
            self.say_list(title, &addresses, &done);
        }
        self.say_list(title, &bound, "bound");
    }
}

fn has_same_sockets(before: &ListenerPlan, after: &ListenerPlan) -> bool {
    let same = |(one, other): (&SocketPlan, &SocketPlan)| one.endpoint == other.endpoint;
    before.network_namespace == after.network_namespace
        && before.sockets.len() == after.sockets.len()
        && before.sockets.iter().zip(&after.sockets).all(same)
}

/// So many are named one by one.
const NAMED: usize = 4;

fn listed(items: &[String]) -> Option<(String, Verb)> {
    let named = &items[..items.len().min(NAMED)];
    match (items.len(), named) {
        (0, _) => None,
        (1, named) => Some((named.concat(), Verb::IS)),
        (all, named) if all > NAMED => {
            let more = all - NAMED;
            Some((format!("{} and {more} more", named.join(", ")), Verb::ARE))
        }
        (_, named) => Some((named.join(", "), Verb::ARE)),
    }
}

/// What is different beside the sockets, in words. Everything is changed without closing anything.
fn attributes(before: &ListenerPlan, after: &ListenerPlan) -> Vec<String> {
    // Taken apart, so that nobody forgets to compare what is added.
    let ListenerPlan {
        name: _,
        sockets: _,
        network_namespace: _,
        options: _,
        backlog,
        access,
        multicast,
        symlinks,
        remove_on_stop,
        presence,
        places: _,
    } = after;
    let mut words = Vec::new();
    if before.backlog != *backlog {
        words.push(format!("backlog {} → {backlog}, live", before.backlog));
    }
    for change in option_changes(before, after) {
        let Some(spec) = change.spec() else { continue };
        let value = |setting: Option<&OptionSetting>| {
            setting.map_or("the default".to_owned(), |setting| shown(&setting.value))
        };
        let (from, to) = (value(change.before), value(change.after));
        words.push(format!("{} {from} → {to}, live", spec.key));
    }
    let (old, new) = (&before.access, access);
    if old.mode != new.mode {
        words.push(format!("mode {:04o} → {:04o}, live", old.mode, new.mode));
    }
    let id = |id: &u32| id.to_string();
    for other in [
        changed("owner", &old.owner, &new.owner, or("listend's own", id)),
        changed("group", &old.group, &new.group, or("listend's own", id)),
    ] {
        words.extend(other.map(|other| format!("{other}, live")));
    }
    let mode = |mode: &u32| format!("{mode:04o}");
    let own = |id: &u32| id.to_string();
    words.extend(
        [
            changed(
                "directory_mode",
                &old.directory_mode,
                &new.directory_mode,
                mode,
            ),
            changed(
                "directory_owner",
                &old.directory_owner,
                &new.directory_owner,
                or("listend's own", own),
            ),
            changed(
                "directory_group",
                &old.directory_group,
                &new.directory_group,
                or("listend's own", own),
            ),
        ]
        .into_iter()
        .flatten()
        .map(|other| format!("{other}, for folders that are made from now on")),
    );
    let groups = |groups: &Vec<Multicast>| {
        values::list(groups.iter().map(|one| match &one.interface {
            Some(interface) => format!("{}%{interface}", one.group),
            None => one.group.to_string(),
        }))
    };
    let paths = |paths: &Vec<PathBuf>| values::list(paths.iter().map(|path| path.display()));
    for other in [
        changed_text("multicast", &before.multicast, multicast, groups),
        changed_text("symlinks", &before.symlinks, symlinks, paths),
    ] {
        words.extend(other.map(|other| format!("{other}, live")));
    }
    let if_missing = |presence: &Presence| match presence {
        Presence::Required => "required".to_owned(),
        Presence::Optional => "optional".to_owned(),
        Presence::WaitFor(time) => format!("wait_for_address {}", values::duration(time)),
    };
    words.extend(changed(
        "if missing:",
        &before.presence,
        presence,
        if_missing,
    ));
    words.extend(changed(
        "remove_on_stop",
        &before.remove_on_stop,
        remove_on_stop,
        bool::to_string,
    ));
    words
}

fn shown(value: &OptionValue) -> String {
    match value {
        OptionValue::Flag(on) => on.to_string(),
        OptionValue::Number(number) => number.to_string(),
        OptionValue::Text(text) => text.clone(),
    }
}
