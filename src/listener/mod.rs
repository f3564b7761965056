//! `Plan` → bound sockets ([`SocketTable`]), all of them or a list of every failure.
//!
//! Binds and listens, and accepts who is asked for: no worker is known here, nothing is logged. Every
//! descriptor is CLOEXEC from birth, and every socket blocking. The umask changes for the length of one call;
//! the process has one thread, so nobody else can create a file under it.

mod accept;
mod adopt;
mod backlog;
mod before_spawn;
mod bind;
mod bound;
mod default;
mod depth;
mod diag;
mod found;
mod identity;
mod inet;
mod inherited;
mod live;
mod namespace;
mod netlink;
mod one;
mod option;
mod outcome;
mod overlap;
mod paths;
mod queue;
mod read_back;
mod ready;
mod rebind;
mod remove;
mod repair;
mod spare;
mod special;
mod symlink;
mod table;
mod unix_path;
mod vsock;
mod waiting;

pub use accept::{Accepted, NotAccepted, accept};
pub use adopt::{AdoptError, AdoptProblem, Inherited, match_up, take_inherited};
pub use before_spawn::{Disturbed, IoMode, prepare_for_spawn, set_mode};
pub use bind::{Outcome, bind_all, bind_missing};
pub use bound::{BoundSocket, FsArtifacts};
pub use depth::{Depth, DepthReader, Unit, depth, depths};
pub use diag::{UnixSocket, mptcp_listeners, unix_sockets};
pub use identity::PathIdentity;
pub use namespace::in_network_namespace;
pub use option::{Changed, effective, put_options_back};
pub use outcome::{BindError, BindStep, Note, Obstacle, Purpose};
pub use read_back::Effective;
pub use rebind::{Prepared, prepare};
pub use repair::{Damage, Repair, inspect, repair};
pub use table::{Adopted, SocketTable};
pub use waiting::{Waiters, forget_errors, waiters};
