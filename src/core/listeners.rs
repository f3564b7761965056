//! The listeners that are not there, or not whole; empty in an ordinary life.

use super::time::Mono;
use super::types::{FormerTaker, ListenerLife, Missing, Revision};
use crate::config::Presence;
use crate::plan::{ListenerId, SocketKey, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The first delay before a missing listener is tried again; it doubles up to [`RETRY_MAX`].
pub const RETRY_MIN: Duration = Duration::from_secs(1);

/// The longest delay before a missing listener, or a repair, is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// [`RETRY_MIN`] doubled for each time before, at most [`RETRY_MAX`].
pub fn retry_delay(times_before: u32) -> Duration {
    let factor = 1_u32.checked_shl(times_before).unwrap_or(u32::MAX);
    RETRY_MIN.saturating_mul(factor).min(RETRY_MAX)
}

/// The least time between two repairs of one socket, when there were `FREE_REPAIRS`; one of them is
/// forgotten in each such time.
pub const REPAIR_PAUSE: Duration = Duration::from_secs(1);

/// So many repairs of a socket come at once: each instance of a worker may damage it when it ends.
pub const FREE_REPAIRS: u32 = 8;

/// After this long without damage nothing is held against a socket any more.
pub const QUIET: Duration = Duration::from_secs(60);

/// So many new sockets within [`QUIET`] of each other are not made while workers run.
pub const FIGHT: u32 = 3;

/// After so many of them another one would not do better.
pub const FUTILE: u32 = 5;

/// The listeners that are not as they should be; empty in an ordinary life.
#[derive(Debug, Clone, Default)]
pub(super) struct Listeners {
    pub(super) lives: BTreeMap<ListenerId, ListenerLife>,
    /// Who has one by a definition that the configuration has no more.
    pub(super) former: Vec<FormerTaker>,
    /// The same for each worker that takes one of those listeners: the definitions of others.
    pub(super) rivals: BTreeMap<WorkerId, BTreeSet<(WorkerId, Revision)>>,
    pub(super) missing: BTreeMap<ListenerId, Absence>,
    pub(super) damaged: BTreeMap<(ListenerId, SocketKey), RepairState>,
    /// When to do what, besides the deadlines of the instances.
    pub(super) due: BTreeSet<(Mono, ListenerTimer)>,
    /// The missing listeners that were closed because their workers have failed.
    pub(super) refusing: BTreeSet<ListenerId>,
    /// The listeners that were bound anew because their sockets were damaged.
    pub(super) rebound: BTreeMap<ListenerId, Rebound>,
    /// The missing listeners that are bound anew once no worker has the old socket.
    pub(super) vacated: BTreeSet<ListenerId>,
    /// Whether the shell was asked to watch the machine's addresses.
    pub(super) watching: bool,
}

/// A listener that is not bound.
#[derive(Debug, Clone)]
pub(super) struct Absence {
    pub(super) why: Missing,
    pub(super) since: Mono,
    /// How often it was tried again.
    pub(super) tries: u32,
    /// A try is under way.
    pub(super) trying: bool,
    /// The addresses changed while it was; the answer may be out of date.
    pub(super) again: bool,
}

/// A socket that is being repaired, or was a moment ago.
#[derive(Debug, Clone)]
pub(super) struct RepairState {
    /// What was done to the socket the last time, in the shell's words.
    pub(super) what: Option<String>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Repairs that are not forgotten ([`REPAIR_PAUSE`]).
    pub(super) repairs: u32,
    /// When it was damaged last.
    pub(super) damaged: Mono,
    /// When the next attempt may be made.
    pub(super) not_before: Mono,
    /// Whether it is whole again, as far as is known.
    pub(super) whole: bool,
}

/// How often a listener was bound anew.
#[derive(Debug, Clone, Default)]
pub(super) struct Rebound {
    /// So many times. What happens to several of its sockets at once is one time.
    pub(super) times: u32,
    /// The sockets that were bound anew the last time.
    pub(super) sockets: BTreeSet<SocketKey>,
    /// When the last one was.
    pub(super) last: Mono,
}

/// Something to do at a certain time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ListenerTimer {
    Retry(ListenerId),
    Complain(ListenerId),
    Repair(ListenerId, SocketKey),
}

impl Listeners {
    pub(super) fn is_missing(&self, listener: ListenerId) -> bool {
        self.missing.contains_key(&listener)
    }

    pub(super) fn is_damaged(&self, listener: ListenerId) -> bool {
        let sockets = self
            .damaged
            .range((listener, SocketKey(0))..=(listener, SocketKey(u32::MAX)));
        sockets.into_iter().any(|(_, mending)| !mending.whole)
    }

    /// What was done to a socket that is being repaired.
    pub(super) fn damage(&self, listener: ListenerId, socket: SocketKey) -> Option<String> {
        self.damaged.get(&(listener, socket))?.what.clone()
    }

    /// Notes who has which listener by a definition that is no more. To be called when it is known who
    /// takes which by the present ones.
    pub(super) fn set_former(&mut self, former: Vec<FormerTaker>) {
        let mut rivals: BTreeMap<WorkerId, BTreeSet<(WorkerId, Revision)>> = BTreeMap::new();
        for (listener, other, revision) in &former {
            for taker in self
                .takers(*listener)
                .iter()
                .filter(|taker| *taker != other)
            {
                rivals
                    .entry(*taker)
                    .or_default()
                    .insert((*other, *revision));
            }
        }
        self.former = former;
        self.rivals = rivals;
    }

    /// The workers that use a listener.
    pub(super) fn takers(&self, listener: ListenerId) -> &[WorkerId] {
        let life = self.lives.get(&listener);
        life.map_or(&[], |life| life.users.as_slice())
    }

    /// Whether a worker has to wait for a socket: one that is waited for, or any where there is none
    /// at all, since a server without a socket can only fail.
    pub(super) fn lacks_or_has_closed(&self, worker: WorkerId) -> bool {
        let mut refusing = self.refusing.iter();
        refusing.any(|listener| self.takers(*listener).contains(&worker)) || self.lacks(worker)
    }

    /// The same, but for listeners that were closed on purpose: its start binds them again.
    pub(super) fn lacks(&self, worker: WorkerId) -> bool {
        let mut missing = 0;
        for listener in self.missing.keys() {
            let life = self.lives.get(listener);
            let is_refusing = self.refusing.contains(listener);
            let Some(life) = life.filter(|life| life.users.contains(&worker) && !is_refusing)
            else {
                continue;
            };
            let is_vacated = self.vacated.contains(listener);
            if is_vacated || matches!(life.presence, Presence::WaitFor(_)) {
                return true;
            }
            missing += 1;
        }
        let takes = || {
            let lives = self.lives.values();
            lives.filter(|life| life.users.contains(&worker)).count()
        };
        missing > 0 && missing == takes()
    }

    /// The listeners of a worker that were closed because it had failed.
    pub(super) fn refused_by(&self, worker: WorkerId) -> Vec<ListenerId> {
        let refusing = self.refusing.iter().copied();
        let of_it = refusing.filter(|listener| self.takers(*listener).contains(&worker));
        of_it.collect()
    }

    /// Whether a missing listener is to be bound, which is not being tried already.
    pub(super) fn begin_to_bind(&mut self, listener: ListenerId) -> bool {
        let Some(absence) = self.missing.get_mut(&listener) else {
            return false;
        };
        if absence.trying {
            absence.again = true;
            return false;
        }
        absence.trying = true;
        let retry =
            |timer: &ListenerTimer| matches!(timer, ListenerTimer::Retry(id) if *id == listener);
        self.due.retain(|(_, timer)| !retry(timer));
        true
    }
}
