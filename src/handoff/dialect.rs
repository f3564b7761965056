//! A dialect of socket passing, as one value.

use super::Value;
use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

/// A dialect of socket passing: all that configuration and launch need to know of it.
pub struct Dialect {
    /// The word of `handoff:` in the configuration.
    pub keyword: &'static str,
    /// The names in other programs, for the hint at a misspelt word.
    pub synonyms: &'static [&'static str],
    /// The number of its first descriptor in the worker. Where it is that of standard input, one socket
    /// is passed, and nothing beside it; else they follow each other from [`super::FIRST_FD`] on.
    pub first_fd: i32,
    /// O_NONBLOCK on its listeners, where `nonblocking:` is not written.
    pub default_nonblocking: bool,
    /// Whether it can pass an accepted connection in place of the sockets. What it tells is the same for every
    /// connection then, whatever the instance (`worker::Pattern`).
    pub connections: bool,
    /// Whether it names stored descriptors (`fd_store:`), too.
    pub stores: bool,
    /// Whether its workers say at a socket of the supervisor that they are up (`ready: einhorn`).
    pub acknowledges: bool,
    /// Whether others may be beside it in a list.
    pub combines: bool,
    /// The reason for which a socket cannot be passed by it.
    pub check: fn(&Socket<'_>) -> Result<(), Cow<'static, str>>,
    /// The variables that name what is passed; what [`Value::OwnPidfdInode`] stands for comes last (see
    /// [`crate::sys::EnvSlot`]).
    pub variables: fn(&Passed<'_>) -> Vec<Variable>,
}

/// A variable of a handoff.
pub type Variable = (Cow<'static, str>, Value);

/// The name of a socket, as far as a dialect can write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// IP address and port.
    Inet(SocketAddr),
    /// The path of a unix socket.
    Path(&'a Path),
    /// A unix socket's name in the abstract namespace.
    Abstract(&'a str),
    /// Any other.
    Other,
}

/// A bound socket, as one instance gets it.
#[derive(Debug, Clone, Copy)]
pub struct Socket<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The number of the descriptor in listend.
    pub fd: i32,
    /// The scheme of its address: `tcp`, `unix-dgram`.
    pub scheme: &'static str,
    /// Its address.
    pub name: Name<'a>,
}

/// What is passed, with its numbers in the worker.
#[derive(Debug, Clone, Copy)]
pub struct Passed<'a> {
    /// The sockets, each with its number; none where a connection is passed.
    pub sockets: &'a [(Socket<'a>, i32)],
    /// The names of all descriptors from the first on, those of a connection and of stored ones, too.
    pub names: &'a [&'a str],
    /// The instance that they are passed to.
    pub to: Recipient<'a>,
}

/// The instance that is started.
#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// The index of the instance, from 0.
    pub instance: u32,
    /// The generation, from 1.
    pub generation: u32,
    /// The process id of listend, which is its parent.
    pub listend: u32,
    /// Whether variables tell who the recipient is (`listen_pid:`).
    pub listen_pid: bool,
    /// Whether the worker's pidfd inode can be told.
    pub inode: PidfdInode,
    /// The path of the socket at which it says that it is up; `None` where there is none.
    pub acknowledge_at: Option<&'a str>,
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
    /// The instance that they are passed to.
    pub to: Recipient<'a>,
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
    pub variables: Vec<Variable>,
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

/// Any socket at all: it is told by its number alone.
pub(super) fn any(_: &Socket<'_>) -> Result<(), Cow<'static, str>> {
    Ok(())
}

/// A listener of streams that has an address to write down.
pub(super) fn named_stream(socket: &Socket<'_>) -> Result<(), Cow<'static, str>> {
    if !matches!(socket.scheme, "tcp" | "mptcp" | "unix") {
        return Err(format!(
            "it passes listening TCP and unix sockets, not {}",
            socket.scheme
        )
        .into());
    }
    match socket.name {
        Name::Abstract(_) => Err("it has no notation for an abstract name".into()),
        Name::Path(path) if path.as_os_str().len() > LONGEST_PATH => Err(format!(
            "its servers know a path by the address of the socket, which holds {LONGEST_PATH} bytes"
        )
        .into()),
        Name::Inet(_) | Name::Path(_) | Name::Other => Ok(()),
    }
}

/// The longest path in an address (unix(7)).
const LONGEST_PATH: usize = 107;

/// A named stream, without any of these letters in its path: the dialect separates by them.
pub(super) fn separable(socket: &Socket<'_>, letters: &[char]) -> Result<(), Cow<'static, str>> {
    named_stream(socket)?;
    let Name::Path(path) = socket.name else {
        return Ok(());
    };
    let path = path.to_string_lossy();
    match path.chars().find(|letter| letters.contains(letter)) {
        Some(letter) => Err(format!("`{letter}` in a path separates its entries").into()),
        None => Ok(()),
    }
}
