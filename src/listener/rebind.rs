//! From the sockets of one plan to those of another, whole or not at all.
//!
//! First everything that may fail is done beside what runs: new sockets are bound, paths that are in
//! the way are moved aside, kept sockets are changed. Then [`Prepared::commit`] only moves things
//! about, or [`Prepared::undo`] puts everything back. A socket of which nothing is different is not
//! touched at all.

use super::bind::{Adopted, Binder, port_of, read_somaxconn};
use super::bound::{Bound, BoundListener, BoundSocket, PathIdentity, remove_folders};
use super::live::{Changed, Live};
use super::namespace::{Inside, Namespaces};
use super::outcome::{BindError, BindStep, Failure, Note, Purpose};
use super::retired::Retired;
use super::{overlap, repair};
use crate::plan::{Changes, ListenerChange, ListenerId, ListenerPlan, Origin, Plan, SocketAt};
use crate::walk::Place;
use nix::libc;
use nix::sys::stat::FileStat;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A reload of the listeners of which only what cannot fail is left to do.
#[derive(Debug)]
#[must_use = "it is neither committed nor undone"]
pub struct Prepared<'p> {
    /// Sockets that could not be bound and that the plan can do without, in the numbers of the merged
    /// plan.
    pub missing: Vec<BindError>,
    /// What went well, but not in the way that was written.
    pub notes: Vec<Note>,
    /// Sockets of the running plan whose port could only be had by shutting them down: the clients
    /// in their queues are lost.
    pub lost: Vec<SocketAt>,
    plans: Plans<'p>,
    fresh: HashMap<SocketAt, BoundSocket>,
    folders: Vec<PathBuf>,
    asides: Vec<Aside>,
    /// Kept sockets that were changed, by where they are in the merged plan.
    changed: HashMap<SocketAt, (SocketAt, Changed, Option<u32>)>,
}

#[derive(Debug, Clone, Copy)]
struct Plans<'p> {
    running: &'p Plan,
    merged: &'p Plan,
    changes: &'p Changes,
}

/// A path that was moved out of the way of another.
#[derive(Debug)]
struct Aside {
    /// Where it is meanwhile, beside where it was.
    place: Place,
    /// What it was called.
    name: OsString,
    identity: PathIdentity,
}

/// What the merged plan has no more: a socket's path, or a link to it.
#[derive(Debug, Clone, Copy)]
struct Leaving<'b> {
    socket: &'b BoundSocket,
    is_link: bool,
}

impl Leaving<'_> {
    /// Whether it still is what was made.
    fn is(&self, place: &Place, found: &FileStat) -> bool {
        if self.is_link {
            let target = place.target().ok();
            return target.is_some() && target.as_deref() == self.socket.address.path();
        }
        self.socket.identity == Some(PathIdentity::of(found))
    }
}

/// Binds what is new in a merged plan ([`crate::plan::merge()`]) and changes what is kept, so that
/// only what cannot fail is left. Listeners that the plan can do without are told as missing.
///
/// # Errors
///
/// Every failure, in the numbers of the merged plan, after everything was put back as it was. After
/// one at [`BindStep::LeaveNamespace`] the process is in a network namespace that is not its own; it
/// should end.
pub fn prepare<'p>(
    bound: &Bound,
    running: &'p Plan,
    merged: &'p Plan,
    changes: &'p Changes,
) -> Result<Prepared<'p>, Vec<BindError>> {
    let plans = Plans {
        running,
        merged,
        changes,
    };
    let mut work = Work::new(bound, plans);
    for (id, change) in &changes.listeners {
        match change {
            // It is tried again when its time has come, or stays closed until its workers start.
            ListenerChange::Changed { sockets: false } if work.is_as_missing_as_before(*id) => {}
            ListenerChange::Added | ListenerChange::Changed { .. } => work.bind(*id),
            ListenerChange::Removed => {}
        }
    }
    if work.errors.is_empty() {
        for (id, change) in &changes.listeners {
            match change {
                ListenerChange::Added | ListenerChange::Changed { .. } => work.change(*id),
                ListenerChange::Removed => {}
            }
        }
    }
    work.displace();
    work.finish()
}

fn held_at(bound: &Bound, at: SocketAt) -> Option<&BoundSocket> {
    let mut sockets = bound.sockets(at.listener).iter();
    sockets.find(|socket| socket.planned == at.socket)
}

struct Work<'b, 'p> {
    bound: &'b Bound,
    binder: Binder,
    namespaces: Namespaces,
    /// Paths and links of the running plan that the merged one has no more.
    leaving: HashMap<PathBuf, Leaving<'b>>,
    /// Internet sockets that go away, by port.
    retired: HashMap<u16, Vec<SocketAt>>,
    /// Those that can be bound only when what goes away has been shut down.
    crowded: Vec<Crowded>,
    errors: Vec<BindError>,
    prepared: Prepared<'p>,
}

/// A listener whose new sockets the kernel refuses beside those that go away.
#[derive(Debug)]
struct Crowded {
    listener: ListenerId,
    /// The sockets that go away and with which it overlaps.
    rivals: Vec<SocketAt>,
    /// What is bound, or held, of its sockets.
    done: Vec<bool>,
    errors: Vec<BindError>,
}

impl<'b, 'p> Work<'b, 'p> {
    fn new(bound: &'b Bound, plans: Plans<'p>) -> Work<'b, 'p> {
        Work {
            bound,
            binder: Binder::new(Purpose::Keep, Adopted::default()),
            namespaces: Namespaces::default(),
            leaving: leaving(bound, plans),
            retired: retired_ports(bound, plans.changes),
            crowded: Vec::new(),
            errors: Vec::new(),
            prepared: Prepared {
                missing: Vec::new(),
                notes: Vec::new(),
                lost: Vec::new(),
                plans,
                fresh: HashMap::new(),
                folders: Vec::new(),
                asides: Vec::new(),
                changed: HashMap::new(),
            },
        }
    }

    /// Whether a listener that stays where it was is not bound, and may go on so.
    fn is_as_missing_as_before(&self, id: ListenerId) -> bool {
        let plans = self.prepared.plans;
        let presence = |plan: &Plan| plan.listener(id).presence;
        self.bound.sockets(id).is_empty() && presence(plans.running) == presence(plans.merged)
    }

    /// Binds the sockets of a listener that are new.
    fn bind(&mut self, id: ListenerId) {
        let plans = self.prepared.plans;
        let (plan, origins) = (plans.merged.listener(id), plans.changes.origins_of(id));
        let held = |origin: &Origin| match origin {
            Origin::Held(at) => held_at(self.bound, *at).is_some(),
            Origin::New => false,
        };
        // What this machine lacks of a listener that is bound is not looked for again: its workers
        // have what there is.
        let is_bound = origins.iter().any(held);
        let done: Vec<bool> = origins
            .iter()
            .map(|origin| match origin {
                Origin::New => false,
                Origin::Held(_) => is_bound || held(origin),
            })
            .collect();
        if let Err(failure) = self.make_way(plan, &done) {
            return self.errors.push(failure.of(id, 0));
        }
        if done.iter().all(|done| *done) {
            return;
        }
        let rivals = self.rivals(plan, &done);
        let sockets = match rivals.as_slice() {
            [] => self.add(id, plan, &done),
            rivals => self.add_beside(id, plan, &done, rivals),
        };
        if !rivals.is_empty() && self.is_in_use() {
            let mut done = done;
            sockets
                .iter()
                .for_each(|socket| done[socket.planned] = true);
            self.crowded.push(Crowded {
                listener: id,
                rivals,
                done,
                errors: std::mem::take(&mut self.binder.outcome.errors),
            });
        }
        self.keep(id, sockets);
        let errors = std::mem::take(&mut self.binder.outcome.errors);
        self.file(errors);
    }

    fn keep(&mut self, listener: ListenerId, sockets: Vec<BoundSocket>) {
        let fresh = sockets.into_iter().map(|socket| {
            let at = SocketAt {
                listener,
                socket: socket.planned,
            };
            (at, socket)
        });
        self.prepared.fresh.extend(fresh);
    }

    fn file(&mut self, errors: Vec<BindError>) {
        for error in errors {
            if error.is_tolerated(self.prepared.plans.merged) {
                self.prepared.missing.push(error);
            } else {
                self.errors.push(error);
            }
        }
    }

    /// Binds in the place of sockets that go away what cannot stand beside them. They are shut down
    /// for that, which resets who waits in their queues and cannot be undone: so it comes when all
    /// else has succeeded, and not where the address is taken by somebody who stays.
    fn displace(&mut self) {
        let crowded = std::mem::take(&mut self.crowded);
        let (free, taken): (Vec<Crowded>, Vec<Crowded>) = crowded
            .into_iter()
            .partition(|one| self.errors.is_empty() && self.is_free_without(one));
        for one in taken {
            self.file(one.errors);
        }
        for one in free {
            if !self.errors.is_empty() {
                self.file(one.errors);
                continue;
            }
            let plan = self.prepared.plans.merged.listener(one.listener);
            for at in &one.rivals {
                let held = held_at(self.bound, *at);
                if held.is_some_and(|held| overlap::stop_listening(held).is_ok()) {
                    self.prepared.lost.push(*at);
                }
            }
            let sockets = self.add_beside(one.listener, plan, &one.done, &one.rivals);
            self.keep(one.listener, sockets);
            let errors = std::mem::take(&mut self.binder.outcome.errors);
            self.file(errors);
        }
    }

    /// Whether nobody but those that go away is in the way. What cannot be seen counts as taken.
    fn is_free_without(&mut self, one: &Crowded) -> bool {
        let plan = self.prepared.plans.merged.listener(one.listener);
        let rivals = one.rivals.iter();
        let rivals: Vec<&BoundSocket> = rivals.filter_map(|at| held_at(self.bound, *at)).collect();
        let inside = self.inside(plan);
        let sockets = plan.sockets.iter().zip(&one.done);
        let mut wanted = sockets
            .filter(|(_, done)| !**done)
            .map(|(one, _)| &one.endpoint);
        let is_free = wanted.all(|wanted| {
            wanted.accepts() && matches!(overlap::is_taken_by_others(wanted, &rivals), Ok(false))
        });
        drop(inside);
        is_free
    }

    fn add(&mut self, id: ListenerId, plan: &ListenerPlan, done: &[bool]) -> Vec<BoundSocket> {
        let is_held = |index: usize| done.get(index).is_some_and(|done| *done);
        self.binder.add(id, plan, is_held)
    }

    /// The sockets that go away and with which the new ones overlap.
    fn rivals(&self, plan: &ListenerPlan, done: &[bool]) -> Vec<SocketAt> {
        let plans = self.prepared.plans;
        let new = plan.sockets.iter().zip(done).filter(|(_, done)| !**done);
        let mut rivals = Vec::new();
        for (socket, _) in new {
            let endpoint = &socket.endpoint;
            let same_port = port_of(endpoint).and_then(|port| self.retired.get(&port));
            for at in same_port.into_iter().flatten() {
                let namespace = &plans.running.listener(at.listener).network_namespace;
                let held = held_at(self.bound, *at);
                if *namespace == plan.network_namespace
                    && held.is_some_and(|held| overlap::overlap(endpoint, &held.address))
                    && !rivals.contains(at)
                {
                    rivals.push(*at);
                }
            }
        }
        rivals
    }

    /// Binds beside sockets that overlap and go away, so that nobody in their queues is lost.
    fn add_beside(
        &mut self,
        id: ListenerId,
        plan: &ListenerPlan,
        done: &[bool],
        rivals: &[SocketAt],
    ) -> Vec<BoundSocket> {
        let bound = self.bound;
        let old = || {
            rivals
                .iter()
                .filter_map(move |at| Some((*at, held_at(bound, *at)?)))
        };
        for (_, socket) in old() {
            // If it cannot be set, bind(2) says EADDRINUSE.
            let _bind_tells = overlap::set(socket, true);
        }
        let shared = overlap::shared(plan);
        let mut sockets = self.add(id, shared.as_ref().unwrap_or(plan), done);
        for (at, socket) in old() {
            let plan = self.prepared.plans.running.listener(at.listener);
            let _it_goes_away = overlap::set(socket, overlap::asks_for_it(plan));
        }
        if shared.is_some() {
            let inside = self.inside(plan);
            for socket in &mut sockets {
                if let Err(error) = overlap::end(socket, plan) {
                    log::warn!("cannot clear SO_REUSEPORT on {}: {error}", socket.address);
                }
                overlap::forget(socket);
            }
            drop(inside);
        }
        sockets
    }

    /// Whether there are errors, all of them that an address is in use.
    fn is_in_use(&self) -> bool {
        let errors = &self.binder.outcome.errors;
        let in_use = |error: &BindError| {
            error.errno == libc::EADDRINUSE
                && matches!(error.step, BindStep::Bind | BindStep::Listen)
        };
        !errors.is_empty() && errors.iter().all(in_use)
    }

    /// In the namespace of a listener; where it cannot be entered, binding has said so.
    fn inside(&mut self, plan: &ListenerPlan) -> Option<Inside> {
        let path = plan.network_namespace.as_ref()?;
        self.namespaces.enter(path).ok()
    }

    /// Moves paths and links aside that go away and that something of this listener takes the place
    /// of. What is moved can be moved back; a socket whose path was unlinked could not.
    fn make_way(&mut self, plan: &ListenerPlan, done: &[bool]) -> Result<(), Failure> {
        let sockets = plan.sockets.iter().zip(done);
        let paths = sockets.filter_map(|(socket, done)| {
            let path = socket.endpoint.path()?;
            (!done).then_some(path)
        });
        for path in paths.chain(plan.symlinks.iter().map(PathBuf::as_path)) {
            let Some(leaving) = self.leaving.remove(path) else {
                continue;
            };
            let failed = |errno| Failure::new(BindStep::RemoveStale, errno).about(path);
            // What is not ours or has gone: binding says what it is.
            let Ok(place) = Place::of(path) else { continue };
            let Ok(found) = place.look() else { continue };
            if !leaving.is(&place, &found) {
                continue;
            }
            let mut aside = place.name().to_owned();
            aside.push(format!(".listend-{}", std::process::id()));
            place.rename(&aside).map_err(failed)?;
            self.prepared.asides.push(Aside {
                name: place.name().to_owned(),
                place: place.beside(aside).map_err(failed)?,
                identity: PathIdentity::of(&found),
            });
        }
        Ok(())
    }

    /// Changes the kept sockets of a listener.
    fn change(&mut self, id: ListenerId) {
        let plans = self.prepared.plans;
        let after = plans.merged.listener(id);
        let origins = plans.changes.origins_of(id).iter().enumerate();
        for (index, origin) in origins {
            let Origin::Held(from) = *origin else {
                continue;
            };
            let Some(live) = live(self.bound, plans, id, index, from) else {
                continue;
            };
            if !live.is_touched() {
                continue;
            }
            let at = SocketAt {
                listener: id,
                socket: index,
            };
            let inside = self.inside(after);
            let limit = read_somaxconn().map(|limit| after.backlog.min(limit));
            let applied = live.apply(&mut self.binder.outcome.bound.created_folders);
            if applied.is_err() {
                live.undo();
            }
            drop(inside);
            match applied {
                Ok(changed) => {
                    self.note(at, &live, &changed);
                    let limit = limit.filter(|_| live.socket.endpoint.accepts());
                    self.prepared.changed.insert(at, (from, changed, limit));
                }
                Err(failure) => self.errors.push(failure.of(id, index)),
            }
        }
    }

    /// What the kernel made something else of, unless that was so before.
    fn note(&mut self, at: SocketAt, live: &Live, changed: &Changed) {
        let known = &live.socket.effective;
        let news = changed.effective.iter();
        for one in news.filter(|one| !one.is_as_asked && !known.contains(one)) {
            self.prepared.notes.push(Note::OptionChanged {
                listener: at.listener,
                socket: at.socket,
                key: one.key,
                asked: one.asked.clone(),
                effective: one.effective.clone(),
            });
        }
    }

    fn finish(mut self) -> Result<Prepared<'p>, Vec<BindError>> {
        let mut outcome = self.binder.outcome;
        self.prepared.folders = std::mem::take(&mut outcome.bound.created_folders);
        self.prepared.notes.append(&mut outcome.notes);
        if let Err(failure) = self.namespaces.at_home() {
            self.errors.push(failure.of(ListenerId(0), 0));
        }
        if self.errors.is_empty() {
            return Ok(self.prepared);
        }
        self.prepared.undo(self.bound);
        self.errors
            .sort_by_key(|error| (error.listener, error.socket));
        Err(self.errors)
    }
}

fn live<'a>(
    bound: &'a Bound,
    plans: Plans<'a>,
    listener: ListenerId,
    index: usize,
    from: SocketAt,
) -> Option<Live<'a>> {
    Some(Live {
        socket: held_at(bound, from)?,
        before: plans.running.listener(from.listener),
        after: plans.merged.listener(listener),
        index,
    })
}

fn retired_ports(bound: &Bound, changes: &Changes) -> HashMap<u16, Vec<SocketAt>> {
    let mut ports: HashMap<u16, Vec<SocketAt>> = HashMap::new();
    for at in &changes.retired {
        if let Some(port) = held_at(bound, *at).and_then(|held| port_of(&held.address)) {
            ports.entry(port).or_default().push(*at);
        }
    }
    ports
}

/// The paths of sockets that go away, with the socket, and the links that do.
fn leaving<'b>(bound: &'b Bound, plans: Plans) -> HashMap<PathBuf, Leaving<'b>> {
    let mut leaving = HashMap::new();
    for at in &plans.changes.retired {
        let Some(socket) = held_at(bound, *at) else {
            continue;
        };
        let links = socket.traces.symlinks.iter();
        let of = |is_link| Leaving { socket, is_link };
        leaving.extend(links.map(|link| (link.clone(), of(true))));
        if let Some(path) = socket.address.path().filter(|_| socket.created) {
            leaving.insert(path.to_owned(), of(false));
        }
    }
    for id in plans.changes.listeners.keys() {
        for (index, origin) in plans.changes.origins_of(*id).iter().enumerate() {
            let Origin::Held(from) = *origin else {
                continue;
            };
            if let Some(live) = live(bound, plans, *id, index, from)
                && let Some(socket) = held_at(bound, from)
            {
                let link = Leaving {
                    socket,
                    is_link: true,
                };
                let links = live.gone_links();
                leaving.extend(links.into_iter().map(|path| (path, link)));
            }
        }
    }
    leaving
}

impl Prepared<'_> {
    /// The listeners of the merged plan that have a socket which was just bound.
    pub fn bound_anew(&self) -> BTreeSet<ListenerId> {
        self.fresh.keys().map(|at| at.listener).collect()
    }

    /// Makes it so: `bound` has the numbers of the merged plan from now on. What is left over still
    /// listens; the caller closes it when nobody is served at it any more.
    pub fn commit(mut self, bound: &mut Bound) -> Retired {
        let Plans {
            merged, changes, ..
        } = self.plans;
        for (at, (from, _, _)) in &self.changed {
            if let Some(live) = live(bound, self.plans, at.listener, at.socket, *from) {
                let namespace = live.after.network_namespace.as_ref();
                let mut namespaces = Namespaces::default();
                let _inside = namespace.map(|path| namespaces.enter(path));
                live.finish();
            }
        }
        for aside in &self.asides {
            if let Err(error) = aside.remove() {
                log::warn!("cannot remove {}: {error}", aside.place.path().display());
            }
        }
        let mut old = std::mem::take(&mut bound.listeners);
        let mut listeners = Vec::with_capacity(merged.listeners.len());
        listeners.resize_with(merged.listeners.len(), BoundListener::default);
        // Those of which nothing is different keep what they have.
        for (id, _) in merged.live_listeners() {
            let number = id.0 as usize;
            if !changes.listeners.contains_key(&id)
                && let Some(same) = old.get_mut(number)
            {
                listeners[number] = std::mem::take(same);
            }
        }
        for id in changes.listeners.keys() {
            let plan = merged.listener(*id);
            for (index, origin) in changes.origins_of(*id).iter().enumerate() {
                let socket = self.socket(&mut old, plan, (*id, index), *origin);
                listeners[id.0 as usize].sockets.extend(socket);
            }
        }
        bound.listeners = listeners;
        bound.created_folders.append(&mut self.folders);
        renumber(&mut bound.set_aside, merged, changes);
        let sockets = bound.listeners.iter().flat_map(|one| &one.sockets);
        let links = sockets.flat_map(|socket| &socket.traces.symlinks);
        let wanted: HashSet<&Path> = links.map(PathBuf::as_path).collect();
        let left = old.into_iter().flat_map(|one| one.sockets);
        Retired::new(left.collect(), &wanted)
    }

    /// A socket of the merged plan, from where it was.
    fn socket(
        &mut self,
        old: &mut [BoundListener],
        plan: &ListenerPlan,
        (listener, index): (ListenerId, usize),
        origin: Origin,
    ) -> Option<BoundSocket> {
        let at = SocketAt {
            listener,
            socket: index,
        };
        if let Some(fresh) = self.fresh.remove(&at) {
            return Some(fresh);
        }
        let Origin::Held(from) = origin else {
            return None;
        };
        let sockets = &mut old.get_mut(from.listener.0 as usize)?.sockets;
        let place = sockets.iter().position(|one| one.planned == from.socket)?;
        let mut socket = sockets.remove(place);
        socket.planned = index;
        socket.endpoint = plan.sockets[index].endpoint.clone();
        socket.traces.stay = !plan.remove_on_stop;
        if let Some((_, changed, backlog)) = self.changed.remove(&at) {
            socket.effective = changed.effective;
            socket.traces.symlinks = changed.links;
            socket.note_rights();
            socket.backlog = backlog;
        }
        Some(socket)
    }

    /// Puts everything back as it was: closes the new sockets, removes what was made for them, and
    /// takes back what was changed. `bound` is what it was prepared with.
    pub fn undo(self, bound: &Bound) {
        for (at, (from, _, _)) in &self.changed {
            if let Some(live) = live(bound, self.plans, at.listener, at.socket, *from) {
                let namespace = live.before.network_namespace.as_ref();
                let mut namespaces = Namespaces::default();
                let _inside = namespace.map(|path| namespaces.enter(path));
                live.undo();
            }
        }
        for socket in self.fresh.values() {
            for (path, error) in socket.remove_path() {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
        drop(self.fresh);
        for aside in self.asides.iter().rev() {
            if let Err(error) = aside.put_back() {
                log::warn!("cannot put {} back: {error}", aside.place.path().display());
            }
        }
        for at in &self.lost {
            let plan = self.plans.running.listener(at.listener);
            let held = held_at(bound, *at);
            let again = held.map(|held| (held, repair::listen_again(held, plan.backlog)));
            if let Some((held, Err(error))) = again {
                log::error!("cannot listen again on {}: {error}", held.address);
            }
        }
        remove_folders(&self.folders);
    }
}

impl Aside {
    /// Unless it has become something else.
    fn remove(&self) -> nix::Result<()> {
        match self.place.look() {
            Ok(now) if PathIdentity::of(&now) == self.identity => self.place.remove(),
            _ => Ok(()),
        }
    }

    /// Unless somebody else has put something there.
    fn put_back(&self) -> nix::Result<()> {
        self.place.rename(&self.name)
    }
}

/// Adopted sockets that wait for the rest of their listener go with it.
fn renumber(set_aside: &mut Adopted, merged: &Plan, changes: &Changes) {
    let mut before = std::mem::take(set_aside);
    if before.is_empty() {
        return;
    }
    for (listener, _) in merged.live_listeners() {
        for (index, origin) in changes.origins_of(listener).iter().enumerate() {
            if let Origin::Held(from) = origin
                && let Some(fd) = before.remove(&(from.listener, from.socket))
            {
                set_aside.insert((listener, index), fd);
            }
        }
    }
}
