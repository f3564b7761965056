//! An accepted connection, as plain data: who is at its two ends.
//!
//! Made where it is accepted, told to the process that serves it, counted by the core.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// TCP and its kin. An IPv4 address that came in over a dual-stack socket is IPv4 here.
    Inet(SocketAddr),
    /// A unix socket's path.
    Path(PathBuf),
    /// A unix socket's abstract name, without the leading NUL; it may be any bytes.
    Abstract(Vec<u8>),
    /// vsock(7).
    Vsock {
        /// The context id.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// A unix socket that was not bound to a name, as most clients' are; or what kind of address it
    /// is is not known here.
    Unnamed,
}

/// As it is shown elsewhere: `127.0.0.1:4711`, `/run/x.sock`, `@name`. A client chooses its own name, and
/// cannot write lines of its own with it.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Inet(address) => address.fmt(f),
            End::Path(path) => {
                let path = path.to_string_lossy();
                f.write_str(&path.replace(char::is_control, "\u{fffd}"))
            }
            End::Abstract(name) => {
                let name = String::from_utf8_lossy(name);
                write!(f, "@{}", name.replace(char::is_control, "@"))
            }
            End::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            End::Unnamed => f.write_str("an unnamed client"),
        }
    }
}

/// What the name of a connection's protocol is, as UCSPI has it in PROTO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP, and MPTCP, which is TCP to whoever uses it.
    Tcp,
    /// sctp(7).
    Sctp,
    /// unix(7).
    Unix,
    /// vsock(7).
    Vsock,
}

/// Who is at the other end of a unix socket (SO_PEERCRED, unix(7)): as it was at connect(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Its process.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Both ends of an accepted connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// The protocol.
    pub protocol: Protocol,
    /// Our end.
    pub local: End,
    /// The client's.
    pub remote: End,
    /// Who the client is, on a unix socket.
    pub credentials: Option<Credentials>,
}

/// What connections are counted by for `max_connections_per_source`, as systemd does it: the
/// address without its port, the user of a unix socket's client, the context id of a vsock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An address.
    Ip(IpAddr),
    /// A user.
    User(u32),
    /// A virtual machine.
    Cid(u32),
    /// Nothing to tell it from others by: all of these are one source.
    Unknown,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Ip(address) => address.fmt(f),
            Source::User(uid) => write!(f, "uid {uid}"),
            Source::Cid(cid) => write!(f, "vsock cid {cid}"),
            Source::Unknown => f.write_str("unnamed clients"),
        }
    }
}

impl Ends {
    /// What to count the connection by.
    pub fn source(&self) -> Source {
        match (&self.remote, self.credentials) {
            (End::Inet(address), _) => Source::Ip(address.ip()),
            (End::Vsock { cid, .. }, _) => Source::Cid(*cid),
            (_, Some(credentials)) => Source::User(credentials.uid),
            (End::Path(_) | End::Abstract(_) | End::Unnamed, None) => Source::Unknown,
        }
    }
}
