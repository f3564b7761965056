//! The variables that tell a worker its descriptors and the ends of its connection. Pure: names in,
//! variables out.

mod combined;
pub mod connection;
mod dialect;
mod einhorn;
mod fd0;
pub mod inetd;
mod nginx;
mod none;
pub mod notify;
mod php_fpm;
mod puma;
mod scrub;
mod server_starter;
pub mod supervisor;
pub mod systemd;
mod table;

pub use combined::{CONNECTION, Handoff};
pub use dialect::{
    Descriptors, Dialect, FdLayout, Name, Passed, PidfdInode, Recipient, Socket, Stored, Variable,
};
pub use scrub::{OF_ONE_PROCESS, belongs_to_a_handoff};
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
