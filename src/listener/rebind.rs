//! From the sockets of one plan to those of another, whole or not at all.
//!
//! First everything that may fail is done beside what runs: new sockets are bound, paths that are in
//! the way are moved aside, kept sockets are changed. Then [`PreparedReload::commit`] only moves things
//! about, or [`PreparedReload::undo`] puts everything back. A socket of which nothing is different is not
//! touched at all.

use super::bind::Binder;
use super::bind_error::{BindError, BindStep, Failure, Note, NoteKind, Purpose};
use super::bound::BoundSocket;
use super::identity::{PathIdentity, remove_folders};
use super::namespace::{Inside, Namespaces};
use super::reconfigure::{Live, Reconfigured};
use super::table::{Adopted, SocketTable};
use super::{overlap, repair, shards};
use crate::host::somaxconn;
use crate::plan::{Changes, ListenerChange, ListenerId, ListenerPlan, Plan, SocketKey};
use crate::walk::Place;
use foldhash::{HashMap, HashMapExt};
use nix::libc;
use nix::sys::stat::FileStat;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A reload of the listeners of which only what cannot fail is left to do.
#[derive(Debug)]
#[must_use = "it is neither committed nor undone"]
pub struct PreparedReload<'p> {
    /// Sockets that could not be bound and that the plan can do without, in the numbers of the merged
    /// plan.
    pub missing: Vec<BindError>,
    /// Successes that differ from the configuration.
    pub notes: Vec<Note>,
    /// Sockets that go away and whose port could only be had by shutting them down: the clients in
    /// their queues are lost.
    pub lost: Vec<SocketKey>,
    plans: Plans<'p>,
    /// The held sockets that the merged plan does not have.
    going: Vec<SocketKey>,
    fresh: BTreeMap<SocketKey, BoundSocket>,
    folders: Vec<PathBuf>,
    moved_paths: Vec<MovedPath>,
    /// Kept sockets that were changed, and how many may wait at each now.
    changed: BTreeMap<SocketKey, (Reconfigured, Option<u32>)>,
}

#[derive(Debug, Clone, Copy)]
struct Plans<'p> {
    running: &'p Plan,
    merged: &'p Plan,
    changes: &'p Changes,
}

/// A path that was moved out of the way of another.
#[derive(Debug)]
struct MovedPath {
    /// The path to which it was moved, beside the old one.
    place: Place,
    /// The old name.
    name: OsString,
    identity: PathIdentity,
}

/// A file that the merged plan no longer has: the path of a socket, or a link to it.
#[derive(Debug, Clone, Copy)]
struct Leaving<'b> {
    socket: &'b BoundSocket,
    is_link: bool,
}

impl Leaving<'_> {
    /// Whether the file is still the one that listend created.
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
pub fn prepare_reload<'p>(
    bound: &SocketTable,
    running: &'p Plan,
    merged: &'p Plan,
    changes: &'p Changes,
) -> Result<PreparedReload<'p>, Vec<BindError>> {
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

struct Work<'b, 'p> {
    bound: &'b SocketTable,
    binder: Binder,
    namespaces: Namespaces,
    /// Paths and links of the running plan that the merged one has no more.
    leaving: HashMap<PathBuf, Leaving<'b>>,
    /// Internet sockets that go away, by port.
    retired: HashMap<u16, Vec<&'b BoundSocket>>,
    /// The sockets that can be bound only when sockets that go away have been shut down.
    crowded: Vec<Crowded<'b>>,
    errors: Vec<BindError>,
    prepared: PreparedReload<'p>,
}

/// A listener whose new sockets the kernel refuses beside those that go away.
#[derive(Debug)]
struct Crowded<'b> {
    listener: ListenerId,
    /// The sockets that go away and with which it overlaps.
    rivals: Vec<&'b BoundSocket>,
    /// Whether each of its sockets is bound, or held.
    done: Vec<bool>,
    errors: Vec<BindError>,
}

impl<'b, 'p> Work<'b, 'p> {
    fn new(bound: &'b SocketTable, plans: Plans<'p>) -> Work<'b, 'p>
    where
        'p: 'b,
    {
        let going = going(bound, plans.merged);
        // Whoever has bound a socket that was given may still serve it.
        let retired = going.iter().copied();
        let retired = retired.filter(|socket| !bound.is_given(socket.key));
        Work {
            bound,
            binder: Binder::new(Purpose::Keep, Adopted::default()),
            namespaces: Namespaces::default(),
            leaving: leaving(bound, &going, plans),
            retired: ports(retired),
            crowded: Vec::new(),
            errors: Vec::new(),
            prepared: PreparedReload {
                missing: Vec::new(),
                notes: Vec::new(),
                lost: Vec::new(),
                plans,
                going: going.iter().map(|socket| socket.key).collect(),
                fresh: BTreeMap::new(),
                folders: Vec::new(),
                moved_paths: Vec::new(),
                changed: BTreeMap::new(),
            },
        }
    }

    /// Whether a listener that stays where it was is not bound, and may go on so.
    fn is_as_missing_as_before(&self, id: ListenerId) -> bool {
        let plans = self.prepared.plans;
        let after = plans.merged.listener(id);
        let before = plans.running.listeners.get(&id);
        self.bound.of(after).next().is_none()
            && before.is_some_and(|before| before.settings.presence == after.settings.presence)
    }

    /// Binds the sockets of a listener that are new.
    fn bind(&mut self, id: ListenerId) {
        let plans = self.prepared.plans;
        let plan = plans.merged.listener(id);
        let was_planned = |key| {
            let mut before = plans.running.listeners.values();
            before.any(|before| before.position(key).is_some())
        };
        // What this machine lacks of a listener that is bound is not looked for again: its workers
        // have what there is.
        let is_bound = self.bound.of(plan).next().is_some();
        let is_done = |key| self.bound.get(key).is_some() || (is_bound && was_planned(key));
        let done: Vec<bool> = plan.keys().map(is_done).collect();
        if let Err(failure) = self.make_way(plan, &done) {
            return self.errors.push(failure.of(id, 0));
        }
        if done.iter().all(|done| *done) {
            return;
        }
        for (first, held) in plan
            .sockets
            .iter()
            .zip(plan.keys().map(|key| self.bound.get(key)))
        {
            if let Some(held) = held.filter(|_| first.shard == 0 && plan.shards() > 1) {
                shards::share(held);
            }
        }
        let rivals = self.rivals(plan, &done);
        let sockets = match rivals.as_slice() {
            [] => self.add(id, plan, &done),
            rivals => self.add_beside(id, plan, &done, rivals),
        };
        if !rivals.is_empty() && self.is_in_use() {
            let mut done = done;
            for (done, key) in done.iter_mut().zip(plan.keys()) {
                *done |= sockets.iter().any(|socket| socket.key == key);
            }
            self.crowded.push(Crowded {
                listener: id,
                rivals,
                done,
                errors: std::mem::take(&mut self.binder.outcome.errors),
            });
        }
        self.keep(sockets);
        let errors = std::mem::take(&mut self.binder.outcome.errors);
        self.file(errors);
    }

    fn keep(&mut self, sockets: Vec<BoundSocket>) {
        let fresh = sockets.into_iter().map(|socket| (socket.key, socket));
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
        let (free, taken): (Vec<Crowded<'b>>, Vec<Crowded<'b>>) = crowded
            .into_iter()
            .partition(|one| self.errors.is_empty() && self.check_free_without(one));
        for one in taken {
            self.file(one.errors);
        }
        for one in free {
            if !self.errors.is_empty() {
                self.file(one.errors);
                continue;
            }
            let plan = self.prepared.plans.merged.listener(one.listener);
            for held in &one.rivals {
                if overlap::stop_listening(held).is_ok() {
                    self.prepared.lost.push(held.key);
                }
            }
            let sockets = self.add_beside(one.listener, plan, &one.done, &one.rivals);
            self.keep(sockets);
            let errors = std::mem::take(&mut self.binder.outcome.errors);
            self.file(errors);
        }
    }

    /// Whether nobody but those that go away is in the way. What cannot be seen counts as taken.
    fn check_free_without(&mut self, one: &Crowded) -> bool {
        let plan = self.prepared.plans.merged.listener(one.listener);
        let inside = self.inside(plan);
        let sockets = plan.sockets.iter().zip(&one.done);
        let mut wanted = sockets
            .filter(|(_, done)| !**done)
            .map(|(one, _)| &one.endpoint);
        let is_free = wanted.all(|wanted| {
            wanted.accepts()
                && matches!(overlap::is_taken_by_others(wanted, &one.rivals), Ok(false))
        });
        drop(inside);
        is_free
    }

    fn add(&mut self, id: ListenerId, listener: &ListenerPlan, done: &[bool]) -> Vec<BoundSocket> {
        let is_held = |index: usize| done.get(index).is_some_and(|done| *done);
        let held = listener.keys().map(|key| self.bound.get(key));
        let ports = held.map(|held| held.and_then(|held| held.address.port()));
        self.binder.held_ports = ports.collect();
        self.binder.add(id, listener, is_held)
    }

    /// The sockets that go away and with which the new ones overlap.
    fn rivals(&self, listener: &ListenerPlan, done: &[bool]) -> Vec<&'b BoundSocket> {
        let running = self.prepared.plans.running;
        let new = listener
            .sockets
            .iter()
            .zip(done)
            .filter(|(_, done)| !**done);
        let mut rivals: Vec<&BoundSocket> = Vec::new();
        for (socket, _) in new {
            let endpoint = &socket.endpoint;
            let same_port = endpoint.port().and_then(|port| self.retired.get(&port));
            for held in same_port.into_iter().flatten() {
                let configured = self.bound.configured(running, held);
                if configured.is_some_and(|one| {
                    one.settings.network_namespace == listener.settings.network_namespace
                }) && endpoint.overlaps(&held.address)
                    && !rivals.iter().any(|rival| rival.key == held.key)
                {
                    rivals.push(held);
                }
            }
        }
        rivals
    }

    /// Binds beside sockets that overlap and go away, so that nobody in their queues is lost.
    fn add_beside(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        done: &[bool],
        rivals: &[&BoundSocket],
    ) -> Vec<BoundSocket> {
        for socket in rivals {
            // If it cannot be set, bind(2) says EADDRINUSE.
            let _bind_tells = overlap::set(socket, true);
        }
        let shared = overlap::shared(listener);
        let mut sockets = self.add(id, shared.as_ref().unwrap_or(listener), done);
        for socket in rivals {
            let configured = self.bound.configured(self.prepared.plans.running, socket);
            let _it_goes_away = overlap::give_back(socket, configured);
        }
        if shared.is_some() && listener.shards() < 2 {
            let inside = self.inside(listener);
            for socket in &mut sockets {
                if let Err(error) = overlap::end(socket, listener) {
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

    /// Enters the namespace of a listener; where that fails, binding has reported it.
    fn inside(&mut self, listener: &ListenerPlan) -> Option<Inside> {
        let path = listener.settings.network_namespace.as_ref()?;
        self.namespaces.enter(path).ok()
    }

    /// Moves paths and links aside that go away and that something of this listener takes the place
    /// of. What is moved can be moved back; a socket whose path was unlinked could not.
    fn make_way(&mut self, listener: &ListenerPlan, done: &[bool]) -> Result<(), Failure> {
        let sockets = listener.sockets.iter().zip(done);
        let paths = sockets.filter_map(|(socket, done)| {
            let path = socket.endpoint.path()?;
            (!done).then_some(path)
        });
        for path in paths.chain(listener.settings.symlinks.iter().map(PathBuf::as_path)) {
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
            self.move_aside(&place, &found).map_err(failed)?;
            // Its second name as well: that of the new file is the same.
            let spare = leaving.socket.artifacts.spare.as_deref();
            if let Some(spare) = spare.filter(|_| !leaving.is_link)
                && let Ok(place) = Place::of(spare)
                && let Ok(found) = place.look()
                && leaving.is(&place, &found)
            {
                let _new_one_does_without = self.move_aside(&place, &found);
            }
        }
        Ok(())
    }

    fn move_aside(&mut self, place: &Place, found: &FileStat) -> nix::Result<()> {
        let mut aside = place.name().to_owned();
        aside.push(format!(".listend-{}", std::process::id()));
        place.rename(&aside)?;
        self.prepared.moved_paths.push(MovedPath {
            name: place.name().to_owned(),
            place: place.beside(aside)?,
            identity: PathIdentity::of(found),
        });
        Ok(())
    }

    /// Changes the kept sockets of a listener.
    fn change(&mut self, id: ListenerId) {
        let plans = self.prepared.plans;
        let after = plans.merged.listener(id);
        for (index, key) in after.keys().enumerate() {
            let Some(live) = live(self.bound, plans, id, index) else {
                continue;
            };
            if !live.is_touched() {
                continue;
            }
            let inside = self.inside(after);
            let limit = somaxconn().map(|limit| after.settings.backlog.min(limit));
            let applied = live.apply(&mut self.binder.outcome.bound.created_folders);
            if applied.is_err() {
                live.undo();
            }
            drop(inside);
            match applied {
                Ok(changed) => {
                    self.note((id, index), &live, &changed);
                    let limit = limit.filter(|_| live.socket.address.accepts());
                    self.prepared.changed.insert(key, (changed, limit));
                }
                Err(failure) => self.errors.push(failure.of(id, index)),
            }
        }
    }

    /// Notes the options that the kernel changed, unless it did so before.
    fn note(
        &mut self,
        (listener, socket): (ListenerId, usize),
        live: &Live,
        changed: &Reconfigured,
    ) {
        let known = &live.socket.effective;
        let news = changed.effective.iter();
        for one in news.filter(|one| !one.is_as_asked && !known.contains(one)) {
            self.prepared.notes.push(Note {
                listener,
                socket,
                kind: NoteKind::OptionChanged(one.clone()),
            });
        }
    }

    fn finish(mut self) -> Result<PreparedReload<'p>, Vec<BindError>> {
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

/// A socket of the merged plan that is held, as it was and as it is to be.
fn live<'a>(
    bound: &'a SocketTable,
    plans: Plans<'a>,
    listener: ListenerId,
    index: usize,
) -> Option<Live<'a>> {
    let after = plans.merged.listener(listener);
    let socket = bound.get(after.sockets.get(index)?.key)?;
    Some(Live {
        socket,
        before: bound.configured(plans.running, socket)?,
        after,
        index,
    })
}

fn has_shards(plan: &Plan, listener: ListenerId) -> bool {
    let listener = plan.listeners.get(&listener);
    listener.is_some_and(|one| one.shards() > 1)
}

/// The held sockets that the merged plan does not have.
fn going<'b>(bound: &'b SocketTable, merged: &Plan) -> Vec<&'b BoundSocket> {
    let wanted = merged.listeners.values().flat_map(|one| one.keys());
    let mut wanted: Vec<SocketKey> = wanted.collect();
    wanted.sort_unstable();
    let mut wanted = wanted.into_iter().peekable();
    let is_going = |socket: &&BoundSocket| {
        while wanted.next_if(|key| *key < socket.key).is_some() {}
        wanted.peek() != Some(&socket.key)
    };
    bound.iter().filter(is_going).collect()
}

fn ports<'b>(sockets: impl Iterator<Item = &'b BoundSocket>) -> HashMap<u16, Vec<&'b BoundSocket>> {
    let mut ports: HashMap<u16, Vec<&BoundSocket>> = HashMap::new();
    for socket in sockets {
        if let Some(port) = socket.address.port() {
            ports.entry(port).or_default().push(socket);
        }
    }
    ports
}

/// The paths of sockets that go away, with the socket, and the links that do.
fn leaving<'b>(
    bound: &'b SocketTable,
    going: &[&'b BoundSocket],
    plans: Plans<'b>,
) -> HashMap<PathBuf, Leaving<'b>> {
    let mut leaving = HashMap::new();
    for &socket in going {
        let links = socket.artifacts.symlinks.iter();
        let of = |is_link| Leaving { socket, is_link };
        leaving.extend(links.map(|link| (link.clone(), of(true))));
        if let Some(path) = socket.address.path().filter(|_| socket.created) {
            leaving.insert(path.to_owned(), of(false));
        }
    }
    for live in kept(bound, plans) {
        let link = Leaving {
            socket: live.socket,
            is_link: true,
        };
        let links = live.gone_links();
        leaving.extend(links.into_iter().map(|path| (path, link)));
    }
    leaving
}

/// The held sockets of the listeners of which anything is different.
fn kept<'b>(bound: &'b SocketTable, plans: Plans<'b>) -> impl Iterator<Item = Live<'b>> {
    let ids = plans.changes.listeners.keys();
    let wanted = ids.filter_map(move |id| Some((*id, plans.merged.listeners.get(id)?)));
    let all = wanted.flat_map(|(id, plan)| (0..plan.sockets.len()).map(move |index| (id, index)));
    all.filter_map(move |(id, index)| live(bound, plans, id, index))
}

impl PreparedReload<'_> {
    /// A socket that was just bound.
    pub fn socket(&self, key: SocketKey) -> Option<&BoundSocket> {
        self.fresh.get(&key)
    }

    /// The listeners of the merged plan that have a socket which was just bound.
    pub fn bound_anew(&self) -> BTreeSet<ListenerId> {
        self.fresh(|shard| shard == 0)
    }

    /// The listeners that got a further shard at an address they already had.
    pub fn with_more_shards(&self) -> BTreeSet<ListenerId> {
        self.fresh(|shard| shard > 0)
    }

    fn fresh(&self, is_meant: impl Fn(u32) -> bool) -> BTreeSet<ListenerId> {
        let fresh = self.fresh.values().filter(|one| is_meant(one.shard));
        fresh.map(|socket| socket.listener).collect()
    }

    /// Makes it so: what the merged plan has no more is held as a former socket from now on, until the
    /// caller takes it out because nothing can be started with it any more.
    pub fn commit(mut self, bound: &mut SocketTable) {
        for live in kept(bound, self.plans) {
            if self.changed.contains_key(&live.socket.key) {
                let namespace = live.after.settings.network_namespace.as_ref();
                let mut namespaces = Namespaces::default();
                let _inside = namespace.map(|path| namespaces.enter(path));
                live.finish();
            }
        }
        for aside in &self.moved_paths {
            if let Err(error) = aside.remove() {
                log::warn!("cannot remove {}: {error}", aside.place.path().display());
            }
        }
        let Plans {
            running,
            merged,
            changes,
        } = self.plans;
        bound.extend(std::mem::take(&mut self.fresh).into_values());
        for id in changes.listeners.keys() {
            let Some(plan) = merged.listeners.get(id) else {
                continue;
            };
            for planned in &plan.sockets {
                bound.former.remove(&planned.key);
                if let Some(socket) = bound.sockets.get_mut(&planned.key) {
                    socket.listener = *id;
                    socket.shard = planned.shard;
                    let stay = !plan.settings.remove_on_stop;
                    // Not written to for nothing: most sockets have none.
                    if socket.artifacts.stay != stay {
                        socket.artifacts.stay = stay;
                    }
                    if let Some((changed, backlog)) = self.changed.remove(&planned.key) {
                        socket.effective = changed.effective;
                        socket.artifacts.symlinks = changed.links;
                        socket.artifacts.rights = changed.rights.or(socket.artifacts.rights);
                        socket.backlog = backlog;
                    }
                }
            }
        }
        bound.created_folders.append(&mut self.folders);
        let wanted = merged.listeners.values();
        let links = wanted.flat_map(|one| one.settings.symlinks.iter().map(PathBuf::as_path));
        let links: std::collections::HashSet<&Path> = links.collect();
        for key in self.going {
            bound.leave_over(key, running, &links);
        }
        for id in changes.listeners.keys() {
            bound.note_slots(merged, *id);
            if has_shards(running, *id)
                && let Some(plan) = merged.listeners.get(id).filter(|one| one.shards() < 2)
            {
                bound.unshare(plan);
            }
        }
    }

    /// Puts everything back as it was: closes the new sockets, removes what was made for them, and
    /// takes back what was changed. `bound` is what it was prepared with.
    pub fn undo(self, bound: &SocketTable) {
        for live in kept(bound, self.plans) {
            if self.changed.contains_key(&live.socket.key) {
                let namespace = live.before.settings.network_namespace.as_ref();
                let mut namespaces = Namespaces::default();
                let _inside = namespace.map(|path| namespaces.enter(path));
                live.undo();
            }
        }
        let changed = self.plans.changes.listeners.keys();
        let changed = changed.filter(|id| has_shards(self.plans.merged, **id));
        let before = changed.filter_map(|id| self.plans.running.listeners.get(id));
        for listener in before.filter(|one| one.shards() < 2) {
            bound.unshare(listener);
        }
        for socket in self.fresh.values() {
            for (path, error) in socket.remove_path() {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
        drop(self.fresh);
        for aside in self.moved_paths.iter().rev() {
            if let Err(error) = aside.put_back() {
                log::warn!("cannot restore {}: {error}", aside.place.path().display());
            }
        }
        for socket in self.lost.iter().filter_map(|key| bound.get(*key)) {
            let configured = bound.configured(self.plans.running, socket);
            let backlog = configured.map_or(0, |listener| listener.settings.backlog);
            if let Err(error) = repair::listen_again(socket, backlog) {
                log::error!("cannot listen again on {}: {error}", socket.address);
            }
        }
        remove_folders(&self.folders);
    }
}

impl MovedPath {
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
