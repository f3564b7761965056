//! A dialect of socket passing, as one value.

use super::Value;
use serde::ser::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A dialect of socket passing: all that configuration and launch need to know of it.
pub struct Dialect {
    /// The word of `handoff:` in the configuration.
    pub keyword: &'static str,
    /// The names in other programs, for the hint at a misspelt word.
    pub synonyms: &'static [&'static str],
    /// The number of its first descriptor in the worker.
    pub first_fd: i32,
    /// O_NONBLOCK on its listeners, where `nonblocking:` is not written.
    pub default_nonblocking: bool,
    /// Whether one socket is passed, and nothing beside it: neither further listeners nor stored
    /// descriptors (`fd_store:`).
    pub one_socket: bool,
    /// Assigns a number to each descriptor, and names them in variables.
    pub layout: fn(&Descriptors<'_>) -> FdLayout,
}

/// A bound socket, as one instance gets it.
#[derive(Debug, Clone, Copy)]
pub struct Socket<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The number of the descriptor in listend.
    pub fd: i32,
}

/// A descriptor that an instance has stored for its successor (`FDSTORE=1`, sd_notify(3)).
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The name of the descriptor (`FDNAME=`).
    pub name: &'a str,
    /// The number of the descriptor in listend.
    pub fd: i32,
}

/// Whether to tell the inode of the worker's pidfd (systemd 259; kernel 6.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidfdInode {
    /// LISTEN_PIDFDID is set.
    Tell,
    /// LISTEN_PIDFDID is left out; libsystemd then checks LISTEN_PID alone.
    Leave,
}

/// The descriptors that a dialect lays out.
#[derive(Debug, Clone, Copy)]
pub struct Descriptors<'a> {
    /// The sockets of the worker's listeners.
    pub sockets: &'a [Socket<'a>],
    /// The number in listend of the accepted connection that the process serves, in place of the
    /// sockets.
    pub connection: Option<i32>,
    /// The descriptors that earlier instances have stored.
    pub stored: &'a [Stored<'a>],
    /// The first number in the worker that is taken otherwise (`ready: fd N`).
    pub below: Option<i32>,
    /// Whether the worker's pidfd inode can be told.
    pub inode: PidfdInode,
}

/// The numbers of the descriptors in the worker, and the variables that name them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FdLayout {
    /// Numbers in listend.
    pub fds: Vec<i32>,
    /// The number in the worker of each of them.
    pub targets: Vec<i32>,
    /// The number in the worker of each socket, for `{fd:NAME}`; all name the connection if the
    /// process gets one.
    pub numbers: Vec<i32>,
    /// The variables; what [`Value::OwnPidfdInode`] stands for comes last (see
    /// [`crate::sys::EnvSlot`]).
    pub variables: Vec<(Cow<'static, str>, Value)>,
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Dialect) -> bool {
        self.keyword == other.keyword
    }
}

impl Eq for Dialect {}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.keyword)
    }
}

impl Serialize for Dialect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.keyword)
    }
}
