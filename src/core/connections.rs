//! The connections of a worker that listend accepts, as numbers.

use super::backoff::History;
use super::time::Mono;
use crate::connection::Source;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first pause after an accept4(2) for which there was no room; it doubles up to
/// [`PAUSE_MAX`].
pub const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest such pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);

/// So many connections in a row whose processes fail are more than a client's fault.
pub const FAILING_AFTER: u64 = 3;

/// The connections of one worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections {
    /// How many there are.
    pub(super) live: u32,
    /// How many are being accepted.
    pub(super) under_way: u32,
    /// How many there are, by source; none is counted with 0.
    pub(super) sources: BTreeMap<Source, u32>,
    /// What the past launches say about the next.
    pub(super) launches: History,
    /// How long connections that could not be launched are held.
    pub(super) held_until: Option<Mono>,
    /// Accepts in a row for which there was no room.
    pub(super) exhausted: u32,
    /// The number of the next instance.
    pub(super) next_index: u32,
    pub(super) totals: ConnectionCounts,
}

/// How many connections a worker has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionCounts {
    /// The number of open connections.
    pub live: u32,
    /// Taken out of the accept queue since the start.
    pub accepted: u64,
    /// Of those, closed unserved because of `max_connections` or `max_connections_per_source`.
    pub refused: u64,
    /// How many in a row have had a process that failed.
    pub failures: u64,
    /// Whether something is wrong with the worker: the last process could not be launched, or
    /// `FAILING_AFTER` in a row have failed.
    pub is_failing: bool,
}
