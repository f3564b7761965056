//! `Plan` → bound sockets, all of them or a list of every failure.
//!
//! Binds, listens and does nothing else: no worker is known here, nothing is logged. Every
//! descriptor is CLOEXEC from birth and blocking. The umask changes for the length of one call;
//! the process has one thread, so nobody else can create a file under it.

mod adopt;
mod bind;
mod bound;
mod found;
mod inet;
mod lock;
mod paths;
mod repair;
mod symlink;
mod unix_path;

pub use adopt::{AdoptError, AdoptProblem, Inherited, match_up, take_inherited};
pub use bind::{BindError, BindStep, Note, Obstacle, Outcome, Purpose, bind_all};
pub use bound::{
    Bound, BoundListener, BoundSocket, Disturbed, IoMode, PathIdentity, Traces, prepare_for_spawn,
};
pub use lock::PathLock;
pub use repair::{Damage, Repair, inspect, repair};
