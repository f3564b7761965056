//! The variables that tell a worker its descriptors and the ends of its connection. Pure: names in,
//! variables out.

pub mod connection;
mod dialect;
pub mod inetd;
pub mod notify;
mod scrub;
pub mod supervisor;
pub mod systemd;
mod table;

pub use dialect::{Descriptors, Dialect, FdLayout, PidfdInode, Socket, Stored};
pub use scrub::belongs_to_a_handoff;
pub use table::ALL;

/// The value of a handoff's variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Known before the process exists.
    Text(String),
    /// The worker's own process id.
    OwnPid,
    /// The inode of the worker's own pidfd.
    OwnPidfdInode,
}

/// The number of the first listener in a worker (SD_LISTEN_FDS_START, sd_listen_fds(3)).
pub const FIRST_FD: i32 = 3;
