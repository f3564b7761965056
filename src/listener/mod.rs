//! `Plan` → bound sockets, all of them or a list of every failure.
//!
//! Binds, listens and does nothing else: no worker is known here, nothing is logged. Every
//! descriptor is CLOEXEC from birth, and every socket blocking. The umask changes for the length of one call;
//! the process has one thread, so nobody else can create a file under it.

mod bind;
mod bound;
mod inet;
mod inherited;
mod namespace;
mod netlink;
mod one;
mod option;
mod outcome;
mod queue;
mod special;
mod temp;
mod unix_path;
mod vsock;

pub use bind::{
    Adopted, BindError, BindStep, Note, Obstacle, Outcome, Purpose, bind_all, bind_missing,
};
pub use bound::{Bound, BoundListener, BoundSocket, IoMode, PathIdentity, prepare_for_spawn};
pub use option::Effective;
pub use temp::{Damage, Repair, inspect, repair};
