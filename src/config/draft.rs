//! The configuration in the making: what the decoders read, and what the checks across the whole
//! configuration must know about it.

use super::model::{Activation, Endpoint, Listener, Worker};
use super::template::Mention;
use super::values::{Located, Rate};
use super::yaml::Node;
use crate::handoff::Dialect;
use crate::report::Place;

/// The result of reading the value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field<T> {
    /// The key is not written.
    Absent,
    /// The value is invalid; the error has been filed.
    Broken(Place),
    /// The value as written, with its place.
    Set(Located<T>),
}

impl<T> Field<T> {
    pub fn is_broken(&self) -> bool {
        matches!(self, Field::Broken(_))
    }

    pub fn as_set(&self) -> Option<&Located<T>> {
        match self {
            Field::Set(value) => Some(value),
            Field::Absent | Field::Broken(_) => None,
        }
    }

    pub fn into_set(self) -> Option<Located<T>> {
        match self {
            Field::Set(value) => Some(value),
            Field::Absent | Field::Broken(_) => None,
        }
    }

    /// The value for a place of its own: few of thousands have it.
    pub fn into_boxed(self) -> Option<Box<Located<T>>> {
        self.into_set().map(Box::new)
    }

    /// The value as written, or else `default`.
    pub fn value_or(self, default: T) -> T {
        self.into_set().map_or(default, |value| value.value)
    }

    /// The place of the value, if it was written and valid.
    pub fn place(&self) -> Option<Place> {
        self.as_set().map(|value| value.place)
    }
}

/// All files together.
#[derive(Default)]
pub(super) struct Draft {
    pub listeners: Vec<DraftListener>,
    pub workers: Vec<DraftWorker>,
    pub web: Option<DraftListener>,
    /// `defaults:`, a mapping of keys of workers.
    pub defaults: Option<Node>,
    pub silence: Vec<String>,
    /// Whether all of it is from one file, where no name stands twice ([`super::decode::entries`]).
    pub is_one_file: bool,
    /// A part of the files could not be read, so that a name may be missing for that reason.
    pub incomplete: bool,
}

/// A listener of the YAML, while it is checked.
pub(super) struct DraftListener {
    pub listener: Listener,
    /// An address is missing or wrong, so nothing can be said about its sockets.
    pub broken: bool,
    /// The name was taken before; it is left out of the configuration.
    pub duplicate: bool,
}

/// A key that is written, and the place of its value.
pub(super) type Written = (&'static str, Place);

/// Keys of which a listener does not tell whether they were written.
pub(super) struct ListenerKeys {
    pub v6_only: Field<bool>,
    /// `mode`, `directory_mode` and `remove_on_stop`, as far as they are written.
    pub of_files: Vec<Written>,
    pub writable: Field<bool>,
    pub wait_for_address: Option<Place>,
}

/// A worker of the YAML, while it is checked.
pub(super) struct DraftWorker {
    pub worker: Worker,
    /// The places where templates of the worker name listeners.
    pub mentions: Vec<(Place, Mention)>,
    /// Broken where it is not known which it takes, in part or at all.
    pub listeners: Field<()>,
    pub nonblocking: Field<bool>,
    pub handoff: Field<Vec<Located<&'static Dialect>>>,
    pub activation: Field<Activation>,
    pub trigger_limit: Field<Option<Rate>>,
    /// The place of `instances`, where the number follows the queues.
    pub scaling: Option<Place>,
    /// The keys that are written and mean something for connections alone.
    pub of_connections: Vec<Written>,
    /// The keys that are written and mean something for a worker alone that clients start.
    pub of_demand: Vec<Written>,
    /// The keys that are written and mean something for instances that stay, but not for the process
    /// of one connection.
    pub of_instances: Vec<Written>,
    /// The name was taken before; it is left out of the configuration.
    pub duplicate: bool,
}

/// A listener as a worker names it, and what it is.
pub(super) type Taken<'d> = (&'d Located<String>, &'d DraftListener);

/// The sockets of a worker.
#[derive(Default)]
pub(super) struct Sockets<'d> {
    pub count: usize,
    /// The first with connections.
    pub accepting: Option<(Taken<'d>, &'d Endpoint)>,
    /// The first without.
    pub others: Option<(Taken<'d>, &'d Endpoint)>,
}

impl<'d> Sockets<'d> {
    pub fn of(listeners: &[Taken<'d>]) -> Sockets<'d> {
        let mut sockets = Sockets::default();
        for taken in listeners.iter().copied() {
            let addresses = taken.1.listener.addresses.iter();
            for endpoint in addresses.flat_map(|address| &address.value.endpoints) {
                sockets.count += 1;
                let first = if endpoint.accepts() {
                    &mut sockets.accepting
                } else {
                    &mut sockets.others
                };
                first.get_or_insert((taken, endpoint));
            }
        }
        sockets
    }
}
