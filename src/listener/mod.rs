//! `Plan` → bound sockets, all of them or a list of every failure.
//!
//! Binds, listens and does nothing else: no worker is known here, nothing is logged. Every
//! descriptor is CLOEXEC from birth and blocking. The umask changes for the length of one call;
//! the process has one thread, so nobody else can create a file under it.

mod bind;
mod bound;
mod inet;
mod temp;
mod unix_path;

pub use bind::{BindError, BindStep, Note, Obstacle, Outcome, Purpose, bind_all};
pub use bound::{Bound, BoundListener, BoundSocket, IoMode, PathIdentity, prepare_for_spawn};
pub use temp::{Damage, Repair, bind_missing, inspect, repair};
