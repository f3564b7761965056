//! The other end of sd_notify(3): whom messages go to, and how.
//!
//! By hand, because the crates for it know only paths, open a socket for each message, and wait.

use nix::errno::Errno;
use nix::libc;
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// How long a virtual machine's host may take to accept a connection. It is on the same machine.
const HOST_TIME: Duration = Duration::from_secs(1);

/// Where messages go.
#[derive(Debug)]
pub struct ManagerAddress {
    /// As the variable has it, for the log.
    name: String,
    way: ManagerTransport,
}

#[derive(Debug)]
enum ManagerTransport {
    /// A datagram each. The socket is made once, so that a watchdog does not need a descriptor when
    /// there is none left.
    Datagrams { socket: Socket, to: SockAddr },
    /// To the host of a virtual machine: a connection for each message, of the first of these kinds
    /// that there is.
    Host {
        to: SockAddr,
        kinds: &'static [Type],
    },
}

impl ManagerAddress {
    /// From a value of `NOTIFY_SOCKET`, as sd_notify(3) has them.
    ///
    /// # Errors
    ///
    /// In words: it is no address, or there is no socket to be had.
    pub fn to(value: &OsStr) -> Result<ManagerAddress, String> {
        let name = value.to_string_lossy().into_owned();
        let bytes = value.as_bytes();
        let way = match bytes {
            [b'/', _, ..] => ManagerTransport::datagrams(bytes.to_vec()),
            [b'@', rest @ .., _] if !rest.contains(&0) => {
                let mut abstract_name = bytes.to_vec();
                abstract_name[0] = 0;
                ManagerTransport::datagrams(abstract_name)
            }
            _ => ManagerTransport::host(&name),
        }?;
        Ok(ManagerAddress { name, way })
    }

    /// As the variable has it, for the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends one message; never waits.
    ///
    /// # Errors
    ///
    /// The errors of sendmsg(2) and connect(2).
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        match &self.way {
            // A datagram goes as a whole or not at all (unix(7)).
            ManagerTransport::Datagrams { socket, to } => {
                socket.send_to_with_flags(bytes, to, flags).map(drop)
            }
            ManagerTransport::Host { to, kinds } => {
                let socket = first_of(kinds)?;
                socket.connect_timeout(to, HOST_TIME)?;
                // Far less than the buffer of a new connection.
                socket.send_with_flags(bytes, flags).map(drop)
            }
        }
    }
}

impl ManagerTransport {
    fn datagrams(path: Vec<u8>) -> Result<ManagerTransport, String> {
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        let to = SockAddr::unix(path).map_err(|error| error.to_string())?;
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None);
        let socket = socket.map_err(|error| error.to_string())?;
        Ok(ManagerTransport::Datagrams { socket, to })
    }

    fn host(name: &str) -> Result<ManagerTransport, String> {
        let (kind, rest) = name.split_once(':').unwrap_or((name, ""));
        let kinds: &[Type] = match kind {
            // As libsystemd has it: not every kind of host has datagrams.
            "vsock" => &[Type::DGRAM, Type::SEQPACKET],
            "vsock-stream" => &[Type::STREAM],
            "vsock-dgram" => &[Type::DGRAM],
            "vsock-seqpacket" => &[Type::SEQPACKET],
            _ => return Err("neither an absolute path nor @NAME nor vsock:CID:PORT".to_owned()),
        };
        let numbers = rest.split_once(':');
        let numbers = numbers.and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
        let (cid, port) = numbers.ok_or("CID and PORT have to be numbers")?;
        let to = SockAddr::vsock(cid, port);
        Ok(ManagerTransport::Host { to, kinds })
    }
}

/// A vsock of the first kind that there is.
fn first_of(kinds: &[Type]) -> io::Result<Socket> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for kind in kinds {
        match Socket::new(Domain::VSOCK, *kind, None) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the manager has not read what came before, or there is no memory for the moment.
pub fn is_full(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR)
    )
}

/// The interval of sd_watchdog_enabled(3), if it is meant for this process.
pub fn watchdog_interval(limit: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_meant = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let micros: u64 = limit?.parse().ok()?;
    let is_limit = micros != 0 && micros != u64::MAX;
    (is_meant && is_limit).then(|| Duration::from_micros(micros))
}
