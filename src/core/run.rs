//! What a worker runs: its instances, those on their way out, and its connections.
//!
//! The three are collections of types of their own. What they have in common, a process that is
//! started, runs and ends, is a [`Run`]. Its [`RunId`] stays the same when an instance leaves, and is
//! never used twice. What is over is taken out at the end of the input ([`Runs::sweep`]), so that the
//! number is good for as long as the input is dealt with.

use super::backoff::History;
use super::snapshot::record::Lent;
use super::state::State;
use super::time::Mono;
use super::types::{ConnectionId, Fault, InstanceId, LastEnd, Revision, RunId};
use super::window::Window;
use crate::connection::Source;
use crate::plan::Lifecycle;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

/// The signs of life that an instance gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watchdog {
    /// The longest time between two.
    pub(super) interval: Duration,
    /// When the next is due.
    pub(super) due: Mono,
}

/// An instance that runs until the queue of its shard is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drain {
    /// When it is stopped even if clients wait; `None`: never.
    pub(super) limit: Option<Mono>,
    /// When to look next; `None` while an answer is awaited.
    pub(super) look_at: Option<Mono>,
    /// How long after that the next look is.
    pub(super) pause: Duration,
    /// When the queue was first found empty.
    pub(super) empty_since: Option<Mono>,
}

impl Drain {
    /// Of which nothing is known but that it is one.
    pub(super) const UNTOLD: Drain = Drain {
        limit: None,
        look_at: None,
        pause: Duration::ZERO,
        empty_since: None,
    };
}

/// A caller waits for an instance to report the end of its reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rereading {
    /// The deadline; `None`: no limit.
    pub(super) until: Option<Mono>,
}

/// One process after another that runs as the same: where it is in its life, and what it has said.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) id: RunId,
    /// The instance.
    pub(super) instance: InstanceId,
    pub(super) state: State,
    /// By which definition of the worker it runs.
    pub(super) revision: Revision,
    /// The life cycle, by that definition.
    pub(super) life: Arc<Lifecycle>,
    /// Why it is being ended, if nobody has asked for that.
    pub(super) fault: Option<Fault>,
    /// The process ends by itself: it announced that, or its main process ended unasked.
    pub(super) by_itself: bool,
    /// When its main process ended, while others of its process group go on.
    pub(super) main_ended: Option<Mono>,
    /// The time that it had to end is over.
    pub(super) overdue: bool,
    /// How often in a row it could not be seen whether it takes clients.
    pub(super) hidden: u32,
    /// It is on its way out, and goes on until nobody waits in its shard: started again if it has to be.
    pub(super) drain: Option<Drain>,
    /// While it is ready.
    pub(super) watchdog: Option<Watchdog>,
    /// The longest time between two signs of life that it has chosen itself. Also before it is
    /// ready, when there is no watchdog yet.
    pub(super) told_interval: Option<Duration>,
    /// The worker reported work that is not visible in connections (`X_LISTEND_BUSY=1`).
    pub(super) busy: bool,
    /// The worker reported that it is reloading (`RELOADING=1`), and not yet that it is ready again.
    pub(super) reloading: bool,
    /// A caller waits for that.
    pub(super) rereading: Option<Rereading>,
    /// When it was told lately that it has done so, and how often it was not told since.
    pub(super) reloads_told: Window,
    pub(super) reloads_untold: u32,
    /// When it entered its state.
    pub(super) since: Mono,
    /// How often it was started.
    pub(super) starts: u64,
    /// What has to be cleaned up after this start: the command before it has run, or the program.
    pub(super) to_clean: bool,
    /// How this start ended, if it has.
    pub(super) this_end: Option<LastEnd>,
    /// How its last process ended.
    pub(super) last_end: Option<LastEnd>,
    /// The deadline that is noted for it.
    pub(super) due: Option<Mono>,
}

impl Run {
    /// One that nothing has happened to.
    pub(super) fn new(
        id: RunId,
        instance: InstanceId,
        revision: Revision,
        life: Arc<Lifecycle>,
        now: Mono,
    ) -> Run {
        Run {
            id,
            instance,
            state: State::Stopped,
            revision,
            life,
            fault: None,
            by_itself: false,
            main_ended: None,
            overdue: false,
            hidden: 0,
            drain: None,
            watchdog: None,
            told_interval: None,
            busy: false,
            reloading: false,
            rereading: None,
            reloads_told: Window::default(),
            reloads_untold: 0,
            since: now,
            starts: 0,
            to_clean: false,
            this_end: None,
            last_end: None,
            due: None,
        }
    }

    /// A start has come to its end.
    pub(super) fn ended(&mut self, end: LastEnd) {
        self.this_end = Some(end.clone());
        self.last_end = Some(end);
    }

    /// How long it is waited for while it reads its configuration again.
    pub(super) fn rereads_until(&self) -> Option<Mono> {
        self.rereading.and_then(|rereading| rereading.until)
    }

    /// Whether it goes on until nobody waits in its shard.
    pub(super) fn is_to_drain(&self) -> bool {
        self.drain.is_some()
    }

    /// When it is looked whether anybody waits in its shard.
    pub(super) fn drains_until(&self) -> Option<Mono> {
        let runs = self.state.process().is_some() && self.state.ending().is_none();
        self.drain.filter(|_| runs)?.look_at
    }

    /// When something is to happen by itself.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let watchdog = match self.state {
            State::Running { .. } => self.watchdog.map(|watchdog| watchdog.due),
            State::Waiting
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Activating { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => None,
        };
        [
            self.state.deadline(),
            watchdog,
            self.rereads_until(),
            self.drains_until(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// One of the instances that a worker is to have, or one that is to replace it.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) run: Run,
    /// The crashes of the instance.
    pub(super) history: History,
    /// Stopped only to be started again.
    pub(super) again: bool,
}

/// What was an instance, and is on its way out.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    pub(super) run: Run,
    /// Its crashes: it comes back while somebody waits in its shard.
    history: History,
}

/// A connection that listend has accepted, and the process that serves it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) run: Run,
    pub(super) id: ConnectionId,
    pub(super) source: Source,
    /// Whether listend still has a descriptor of it.
    pub(super) open: bool,
    /// Whether it is over, and only not taken out yet.
    pub(super) over: bool,
}

/// All that a worker runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    /// The instances that the worker is to have, by their numbers.
    places: Vec<RunId>,
    /// The instances, and the candidates that are to replace them.
    instances: BTreeMap<RunId, Box<Instance>>,
    /// The candidates.
    candidates: BTreeSet<RunId>,
    leaving: BTreeMap<RunId, Leaving>,
    connections: BTreeMap<RunId, Connection>,
    /// What is to be taken out.
    over: Vec<RunId>,
    /// What may have changed.
    lent: Lent<RunId>,
}

impl Runs {
    pub(super) fn get(&self, id: RunId) -> Option<&Run> {
        let instance = self.instances.get(&id).map(|one| &one.run);
        let leaving = || self.leaving.get(&id).map(|one| &one.run);
        let connection = || self.connections.get(&id).map(|one| &one.run);
        instance.or_else(leaving).or_else(connection)
    }

    pub(super) fn get_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.lent.note(id);
        self.quiet_mut(id)
    }

    /// The same, to change only what follows from the rest, and is not told of.
    pub(super) fn quiet_mut(&mut self, id: RunId) -> Option<&mut Run> {
        if let Some(instance) = self.instances.get_mut(&id) {
            Some(&mut instance.run)
        } else if let Some(leaving) = self.leaving.get_mut(&id) {
            Some(&mut leaving.run)
        } else {
            self.connections.get_mut(&id).map(|one| &mut one.run)
        }
    }

    pub(super) fn instance(&self, id: RunId) -> Option<&Instance> {
        self.instances.get(&id).map(Box::as_ref)
    }

    pub(super) fn instance_mut(&mut self, id: RunId) -> Option<&mut Instance> {
        self.lent.note(id);
        self.instances.get_mut(&id).map(Box::as_mut)
    }

    /// The crashes of what may be started again.
    pub(super) fn history(&self, id: RunId) -> Option<&History> {
        let instance = self.instances.get(&id).map(|one| &one.history);
        instance.or_else(|| self.leaving.get(&id).map(|one| &one.history))
    }

    /// The same, with what it is of.
    pub(super) fn history_mut(&mut self, id: RunId) -> Option<(&Run, &mut History)> {
        self.lent.note(id);
        if let Some(one) = self.instances.get_mut(&id) {
            return Some((&one.run, &mut one.history));
        }
        let leaving = self.leaving.get_mut(&id)?;
        Some((&leaving.run, &mut leaving.history))
    }

    /// A connection that is not over.
    pub(super) fn connection(&self, id: RunId) -> Option<&Connection> {
        self.connections.get(&id).filter(|one| !one.over)
    }

    pub(super) fn connection_mut(&mut self, id: RunId) -> Option<&mut Connection> {
        self.lent.note(id);
        self.connections.get_mut(&id).filter(|one| !one.over)
    }

    pub(super) fn is_connection(&self, id: RunId) -> bool {
        self.connection(id).is_some()
    }

    /// Whether it is an instance or a candidate for the place of one.
    pub(super) fn is_instance(&self, id: RunId) -> bool {
        self.instances.contains_key(&id)
    }

    pub(super) fn is_leaving(&self, id: RunId) -> bool {
        self.leaving.contains_key(&id)
    }

    /// Whether it is one of the instances that the worker is to have.
    pub(super) fn is_placed(&self, id: RunId) -> bool {
        self.instances.contains_key(&id) && !self.candidates.contains(&id)
    }

    /// The instance with this number.
    pub(super) fn at(&self, number: u32) -> Option<RunId> {
        self.places.get(number as usize).copied()
    }

    /// The instances that the worker is to have.
    pub(super) fn placed(&self) -> Vec<RunId> {
        self.places.clone()
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Run> {
        self.places.iter().map(|id| &self[*id])
    }

    /// How many instances the worker is to have.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The candidates for places, and then what is on its way out.
    pub(super) fn others(&self) -> impl Iterator<Item = &Run> {
        let candidates = self.candidates.iter().map(|id| &self[*id]);
        candidates.chain(self.leaving.values().map(|one| &one.run))
    }

    /// The instances, and the candidates for their places.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Run> {
        self.instances.values().map(|one| &one.run)
    }

    /// What has or gets the listeners: everything but connections.
    pub(super) fn holders(&self) -> impl Iterator<Item = &Run> {
        self.instances().chain(self.leaving())
    }

    pub(super) fn leaving(&self) -> impl Iterator<Item = &Run> {
        self.leaving.values().map(|one| &one.run)
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.values().filter(|one| !one.over)
    }

    /// Everything, connections last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Run> {
        let others = self.others().chain(self.connections().map(|one| &one.run));
        self.places().chain(others)
    }

    /// The numbers of everything.
    pub(super) fn ids(&self) -> Vec<RunId> {
        self.all().map(|run| run.id).collect()
    }

    /// What is of this definition lives on other terms from now on; connections keep theirs.
    pub(super) fn settings_changed(&mut self, revision: Revision, life: &Arc<Lifecycle>) {
        let instances = self.instances.values_mut().map(|one| &mut one.run);
        let leaving = self.leaving.values_mut().map(|one| &mut one.run);
        for run in instances.chain(leaving) {
            if run.revision == revision {
                run.life = Arc::clone(life);
            }
        }
    }

    /// Adds an instance, that is a candidate until it gets a place.
    pub(super) fn add(&mut self, run: Run) {
        let instance = Instance {
            run,
            history: History::default(),
            again: false,
        };
        self.lent.note(instance.run.id);
        self.candidates.insert(instance.run.id);
        self.instances.insert(instance.run.id, Box::new(instance));
    }

    /// Gives an instance a place behind the last.
    pub(super) fn append(&mut self, id: RunId) {
        self.lent.note(id);
        self.candidates.remove(&id);
        self.places.push(id);
    }

    /// Gives an instance the place with its number. Answers what had it.
    pub(super) fn promote(&mut self, id: RunId) -> Option<RunId> {
        let number = self.get(id)?.instance.index;
        let place = self.places.get_mut(number as usize)?;
        let old = std::mem::replace(place, id);
        self.lent.note(id);
        self.lent.note(old);
        self.candidates.remove(&id);
        self.candidates.insert(old);
        Some(old)
    }

    /// Takes the places from this number on away.
    pub(super) fn cut(&mut self, from: usize) -> Vec<RunId> {
        let cut = self.places.split_off(from.min(self.places.len()));
        for id in &cut {
            self.lent.note(*id);
        }
        self.candidates.extend(&cut);
        cut
    }

    pub(super) fn connect(&mut self, connection: Connection) {
        self.lent.note(connection.run.id);
        self.connections.insert(connection.run.id, connection);
    }

    /// An instance without a place is on its way out from now on.
    pub(super) fn send_off(&mut self, id: RunId) {
        self.lent.note(id);
        self.candidates.remove(&id);
        if let Some(instance) = self.instances.remove(&id) {
            let Instance { run, history, .. } = *instance;
            self.leaving.insert(id, Leaving { run, history });
        }
    }

    /// Marks a run to be removed at the end of the input.
    pub(super) fn finish(&mut self, id: RunId) {
        self.over.push(id);
    }

    /// Takes out what is over.
    pub(super) fn sweep(&mut self) {
        for id in std::mem::take(&mut self.over) {
            self.lent.over(id);
            self.leaving.remove(&id);
            self.connections.remove(&id);
        }
    }

    /// Notes what may have changed, from now on.
    pub(super) fn record(&mut self) {
        let known = self.ids();
        self.lent.record(known);
    }

    /// Records that the snapshot was told that this run is gone.
    pub(super) fn told_gone(&mut self, id: RunId) {
        self.lent.forget(id);
    }

    pub(super) fn take_lent(&mut self) -> Vec<RunId> {
        self.lent.take()
    }

    /// Whether nothing is left but connections.
    pub(super) fn has_no_instance(&self) -> bool {
        let gone = |one: &Leaving| self.over.contains(&one.run.id);
        self.instances.is_empty() && self.leaving.values().all(gone)
    }
}

/// Panics without such a run: none is taken out while an input is dealt with, and what outlives one is
/// asked for with [`Runs::get`].
impl Index<RunId> for Runs {
    type Output = Run;

    fn index(&self, id: RunId) -> &Run {
        match self.get(id) {
            Some(run) => run,
            None => unreachable!("{id:?} is taken out"),
        }
    }
}

impl IndexMut<RunId> for Runs {
    fn index_mut(&mut self, id: RunId) -> &mut Run {
        match self.get_mut(id) {
            Some(run) => run,
            None => unreachable!("{id:?} is taken out"),
        }
    }
}
