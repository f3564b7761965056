//! The differences between two plans with the same ids, in data and in words.
//!
//! Sockets are compared by what they are bound to, whichever listener they belong to: a listener
//! that got another name keeps its sockets, and its clients notice nothing.

use super::line::{Line, Named, Tense};
use super::model::{
    Address, Grant, ListenerId, ListenerPlan, ListenerSettings, Plan, SocketKey, SocketPlan,
    WorkerId, WorkerPlan, address,
};
use super::values::{self, changed, changed_text, or};
use super::worker_diff::WorkerDiff;
use crate::config::options::{OptionSetting, OptionSpec, OptionValue};
use crate::config::{Endpoint, FlowKey, Flows, Multicast, Presence};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The words for a socket that goes away: processes of the former definition keep it.
const CLOSED: &str = "closed once no process, nor a rollback, can need it";

/// The differences of the merged plan from the running one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The listeners of which anything is different.
    pub listeners: BTreeMap<ListenerId, ListenerChange>,
    /// The workers of which anything is different.
    pub workers: BTreeMap<WorkerId, WorkerChange>,
    lines: Vec<Line>,
}

/// The change of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerChange {
    /// Only the new plan has it.
    Added,
    /// Only the old plan has it.
    Removed,
    /// Both plans have it, with different sockets or attributes.
    Changed {
        /// Whether the sockets, or their order, have changed.
        sockets: bool,
    },
}

/// The change of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerChange {
    /// Only the new plan has it.
    Added,
    /// Only the old plan has it.
    Removed,
    /// Both plans have it, with differences.
    Changed(WorkerDiff),
}

/// An option that is set otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionChange<'p> {
    /// The old setting; `None` is the kernel's default.
    pub before: Option<&'p OptionSetting>,
    /// The new setting; `None` is the kernel's default.
    pub after: Option<&'p OptionSetting>,
}

impl OptionChange<'_> {
    /// The option; never `None`, because one of the two settings exists.
    pub fn spec(&self) -> Option<&'static OptionSpec> {
        let setting = self.after.or(self.before)?;
        Some(setting.spec)
    }
}

/// The options that differ, those that are set first.
pub fn option_changes<'p>(
    before: &'p ListenerSettings,
    after: &'p ListenerSettings,
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

impl Changes {
    /// Compares a running plan with one that has its ids ([`super::merge()`]). `other` are the listeners of
    /// either that are not one object in both.
    pub(super) fn between(
        running: &Plan,
        former: &BTreeMap<SocketKey, &ListenerPlan>,
        merged: &Plan,
        other: &BTreeSet<ListenerId>,
    ) -> Changes {
        let mut changes = Changes::default();
        let pairs = other
            .iter()
            .map(|id| (*id, running.find_listener(*id), merged.find_listener(*id)));
        let sockets = Sockets::new(former, pairs.clone());
        for (id, before, after) in pairs.clone() {
            if let (Some(before), None) = (before, after) {
                changes.listeners.insert(id, ListenerChange::Removed);
                changes.say_removed(&sockets, before);
            }
        }
        for (id, before, after) in pairs {
            if let Some(after) = after {
                changes.listener(&sockets, id, before, after);
            }
        }
        for (id, before) in running.workers() {
            if !merged.workers.contains_key(&id) {
                changes.workers.insert(id, WorkerChange::Removed);
                // What its listener has to say is enough.
                if !before.is_built_in() {
                    changes.say(&format!("worker `{}`", before.name), "removed");
                }
            }
        }
        for (id, after) in merged.workers() {
            let before = running.workers.get(&id);
            changes.worker((running, merged), id, before.map(|before| &**before), after);
        }
        changes
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.workers.is_empty()
    }

    /// The differences in words, a line each: listeners before workers, and removed ones first. `bound` knows
    /// where a socket is bound, if it is: the kernel may have chosen its port.
    pub fn lines<'a>(
        &self,
        tense: Tense,
        bound: impl Fn(SocketKey) -> Option<&'a Endpoint>,
    ) -> impl Iterator<Item = String> {
        let lines = self.lines.iter();
        lines.map(move |line| line.told_with(tense, &bound))
    }

    /// Whether a worker that there was is another now, or is gone.
    pub fn replaces(&self, worker: WorkerId) -> bool {
        match self.workers.get(&worker) {
            Some(WorkerChange::Removed) => true,
            Some(WorkerChange::Changed(diff)) => diff.rolls(),
            Some(WorkerChange::Added) | None => false,
        }
    }

    /// Whether a listener has other sockets than before.
    pub fn has_other_sockets(&self, listener: ListenerId) -> bool {
        match self.listeners.get(&listener) {
            Some(ListenerChange::Changed { sockets }) => *sockets,
            Some(ListenerChange::Added | ListenerChange::Removed) => true,
            None => false,
        }
    }

    fn listener(
        &mut self,
        known: &Sockets,
        id: ListenerId,
        before: Option<&ListenerPlan>,
        after: &ListenerPlan,
    ) {
        let title = || format!("listener `{}`", after.name);
        let Some(before) = before else {
            let title = title();
            self.listeners.insert(id, ListenerChange::Added);
            self.say(&title, "added");
            return self.say_sockets(known, id, &title, after);
        };
        // How many there are at an address concerns only who is to have those that come or go.
        let sockets = !first_shards(before).eq(first_shards(after));
        let mut attributes = attributes(&before.settings, &after.settings);
        let (old, new) = (before.shards(), after.shards());
        attributes.extend(changed("shards", &old, &new, u32::to_string));
        if !sockets && attributes.is_empty() {
            return;
        }
        let title = title();
        let change = ListenerChange::Changed { sockets };
        self.listeners.insert(id, change);
        if sockets {
            self.say_sockets(known, id, &title, after);
            self.say_list(&title, "", known.left_of(before), CLOSED);
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
            if !after.is_built_in() {
                self.say(&title, "added");
            }
            return;
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
        if !after.is_built_in() {
            self.lines.extend(diff.lines(&title, after));
        }
        self.workers.insert(id, WorkerChange::Changed(diff));
    }

    fn say(&mut self, title: &str, words: &str) {
        self.lines.push(Line::plain(title, words));
    }

    fn say_list(&mut self, title: &str, before: &str, addresses: Vec<Named>, done: &str) {
        if !addresses.is_empty() {
            self.lines.push(Line::list(title, before, addresses, done));
        }
    }

    fn say_removed(&mut self, known: &Sockets, before: &ListenerPlan) {
        let title = format!("listener `{}`", before.name);
        let left = known.left_of(before);
        match left.is_empty() {
            true => self.say(&title, "removed"),
            false => self.say_list(&title, "removed;", left, CLOSED),
        }
    }

    fn say_sockets(&mut self, known: &Sockets, id: ListenerId, title: &str, after: &ListenerPlan) {
        let mut bound = Vec::new();
        let mut moved: BTreeMap<(ListenerId, String), Vec<Named>> = BTreeMap::new();
        for socket in after.addresses() {
            let address = known.named(after, socket);
            match known.before.get(&socket.key) {
                None => bound.push(address),
                Some((from, _)) if *from == Some(id) => {}
                Some((Some(from), name)) => {
                    let from = (*from, (*name).to_owned());
                    moved.entry(from).or_default().push(address);
                }
                Some((None, _)) => self.say_list(title, "", vec![address], "held already"),
            }
        }
        for ((_, name), addresses) in moved {
            let done = format!("moved here from listener `{name}`");
            self.say_list(title, "", addresses, &done);
        }
        self.say_list(title, "", bound, "bound");
    }
}

/// The owners, in both plans, of the sockets of listeners whose sockets have changed.
struct Sockets<'p> {
    /// The listener, if any, and the name of each socket before; a socket of former definitions only
    /// has no listener.
    before: HashMap<SocketKey, (Option<ListenerId>, &'p str)>,
    wanted: HashSet<SocketKey>,
    /// The different addresses that are written alike, by how they are written.
    alike: HashMap<String, Vec<Address>>,
}

impl<'p> Sockets<'p> {
    /// From the listeners that may be different, as they were and as they are to be.
    fn new(
        former: &BTreeMap<SocketKey, &'p ListenerPlan>,
        pairs: impl Iterator<
            Item = (
                ListenerId,
                Option<&'p ListenerPlan>,
                Option<&'p ListenerPlan>,
            ),
        >,
    ) -> Sockets<'p> {
        let mut sockets = Sockets {
            before: HashMap::new(),
            wanted: HashSet::new(),
            alike: HashMap::new(),
        };
        for (id, before, after) in pairs {
            let is_same =
                |(before, after): (&ListenerPlan, &ListenerPlan)| before.keys().eq(after.keys());
            if before.zip(after).is_some_and(is_same) {
                continue;
            }
            for listener in before.into_iter().chain(after) {
                for socket in listener.addresses() {
                    let alike = sockets.alike.entry(socket.endpoint.to_string());
                    let (alike, address) = (alike.or_default(), address(listener, socket));
                    if !alike.contains(&address) {
                        alike.push(address);
                    }
                }
            }
            if let Some(listener) = before {
                let of_it = (Some(id), listener.name.as_str());
                let keys = listener.keys().map(|key| (key, of_it));
                sockets.before.extend(keys);
            }
            let after = after.into_iter();
            sockets.wanted.extend(after.flat_map(ListenerPlan::keys));
        }
        for (key, listener) in former {
            let of_nobody = (None, listener.name.as_str());
            sockets.before.insert(*key, of_nobody);
        }
        sockets
    }

    /// The addresses of a listener that the merged plan has no more.
    fn left_of(&self, before: &ListenerPlan) -> Vec<Named> {
        let left = before.addresses().iter();
        let left = left.filter(|socket| !self.wanted.contains(&socket.key));
        left.map(|socket| self.named(before, socket)).collect()
    }

    /// The address of a socket of such a listener; with the kind, the families and the namespace if another
    /// socket that comes or goes has the same address, from which it differs by one of them:
    /// `[::]:80 (tcp, IPv6 only)`.
    fn named(&self, listener: &ListenerPlan, socket: &SocketPlan) -> Named {
        let endpoint = socket.endpoint.clone();
        let alike = self.alike.get(&endpoint.to_string());
        let detail = match alike.is_some_and(|alike| alike.len() > 1) {
            true => detail(listener, socket),
            false => String::new(),
        };
        Named {
            key: socket.key,
            endpoint,
            detail,
        }
    }
}

fn detail(listener: &ListenerPlan, socket: &SocketPlan) -> String {
    let (namespace, endpoint) = address(listener, socket);
    let kind = Some(endpoint.kind().word().to_owned());
    let detail = endpoint.detail().map(str::to_owned);
    let namespace = namespace.map(|path| path.display().to_string());
    let what = [kind, detail, namespace].into_iter().flatten();
    let what: Vec<String> = what.collect();
    format!(" ({})", what.join(", "))
}

/// The keys of its sockets but for those that only some instances have.
fn first_shards(listener: &ListenerPlan) -> impl Iterator<Item = SocketKey> + '_ {
    listener.addresses().iter().map(|one| one.key)
}

/// The differences of a listener beside its sockets, in words. Each is applied without closing a
/// socket.
fn attributes(before: &ListenerSettings, after: &ListenerSettings) -> Vec<String> {
    // Taken apart, so that nobody forgets to compare what is added.
    let ListenerSettings {
        network_namespace: _,
        options: _,
        backlog,
        access,
        multicast,
        symlinks,
        remove_on_stop,
        grant,
        presence,
        flows,
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
        .map(|other| format!("{other}, for directories created from now on")),
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
    let flow_words = |flows: &Flows| {
        let key = match flows.key {
            FlowKey::Tuple => "by tuple".to_owned(),
            FlowKey::Quic(length) => format!("by ids of {length} bytes"),
        };
        let timeout = values::duration(&flows.timeout);
        format!("sticky {key}, at most {}, for {timeout}", flows.max)
    };
    let flow_words = or("shared", flow_words);
    let other = changed("flows", &before.flows, flows, flow_words);
    words.extend(other.map(|other| format!("{other}, live")));
    let grantees = |grant: &Grant| {
        let users = grant.users.iter().map(u32::to_string);
        let groups = grant.groups.iter().map(|id| format!("group:{id}"));
        match grant.is_nobody() {
            true => "nobody".to_owned(),
            false => values::list(users.chain(groups)),
        }
    };
    words.extend(changed("grant", &before.grant, grant, grantees));
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
