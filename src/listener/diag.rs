//! Questions to sock_diag(7): who waits in an accept queue, how many do, who has a port, and whether
//! shutdown(2) was called on a listener.
//!
//! A small reader of the few answers that are needed, and nothing else. Every length comes from the
//! kernel and is checked all the same.

use super::identity::PathIdentity;
use nix::libc;
use nix::sys::socket::{NetlinkAddr, bind};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

/// From linux/netlink.h.
const NETLINK_SOCK_DIAG: i32 = 4;
/// From linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The groups that are told of sockets that are gone: TCP and UDP, over IPv4 and IPv6 (enum sknetlink_groups).
const CLOSED: [u32; 4] = [1, 2, 3, 4];
/// From linux/unix_diag.h.
const UDIAG_SHOW_NAME: u32 = 0x1;
const UDIAG_SHOW_VFS: u32 = 0x2;
const UDIAG_SHOW_PEER: u32 = 0x4;
const UDIAG_SHOW_ICONS: u32 = 0x8;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
/// From linux/inet_diag.h.
const INET_DIAG_SKMEMINFO: u8 = 7;
const INET_DIAG_SHUTDOWN: u16 = 8;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Comes with what INET_DIAG_INFO asks for.
const INET_DIAG_ULP_INFO: u16 = 19;
const INET_DIAG_INFO: u8 = 2;
const INET_ULP_INFO_NAME: u16 = 1;
/// The bit of TCP_LISTEN, a state that unix sockets have as well (net/tcp_states.h).
const LISTENING: u32 = 1 << 10;
/// Bits of the states that a connection can have while nobody has accepted it (net/tcp_states.h):
/// TCP_ESTABLISHED, and TCP_CLOSE_WAIT once the client has sent its last byte.
const WAITING_STATES: u32 = 1 << 1 | 1 << 8;
/// Bits of the states of a connection whose server has sent its last byte, while the client may send
/// more: TCP_FIN_WAIT1, TCP_FIN_WAIT2.
const HALF_CLOSED_STATES: u32 = 1 << 4 | 1 << 5;
/// TCP_ESTABLISHED: an accepted unix connection bears the file of its listener.
const CONNECTED: u8 = 1;
const ANY_STATE: u32 = u32::MAX;
/// Bits of the states of a socket that has an address and no peer (net/tcp_states.h): TCP_CLOSE,
/// TCP_LISTEN, and TCP_BOUND_INACTIVE, by which one is shown that was bound and nothing more (Linux
/// 6.8).
const BOUND_STATES: u32 = 1 << 7 | LISTENING | 1 << 13;

const HEADER: usize = 16;
/// The size of struct inet_diag_msg.
const INET_MESSAGE: usize = 72;
/// The size of struct unix_diag_msg.
const UNIX_MESSAGE: usize = 16;
/// The size of one read: the kernel fills messages up to this size.
const BUFFER: usize = 32 * 1024;
/// More than any accept queue fills.
const MAX_READS: usize = 1024;

/// A unix listener's accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnixQueue {
    /// The number of clients that wait.
    pub(super) depth: u32,
    /// The limit: the backlog of listen(2).
    pub(super) limit: u32,
}

/// A TCP listener's accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TcpQueue {
    /// The number of clients that wait.
    pub(super) depth: u32,
    /// The limit: the backlog of listen(2).
    pub(super) limit: u32,
    /// The number of packets of clients that were dropped.
    pub(super) drops: u32,
}

/// A unix socket that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixSocket {
    /// Links it to /proc/PID/fd.
    pub inode: u64,
    /// A path, as its owner wrote it in its own mount namespace; an abstract name begins with a NUL
    /// byte.
    pub name: Vec<u8>,
    /// Whether the socket is a connection: an accepted socket has its listener's address.
    pub is_connected: bool,
}

/// All unix sockets that have a name, in this network namespace; empty where the kernel does not tell.
/// Not from /proc/net/unix, where a name may hold the end of a line, and so forge the rows of others.
pub fn unix_sockets() -> Vec<UnixSocket> {
    let sockets = Diag::new().and_then(|diag| diag.unix_named());
    sockets.unwrap_or_default()
}

/// The addresses of this TCP port where MPTCP sockets listen, in this network namespace: to the table
/// of TCP each is a TCP socket as well. Empty where the kernel does not tell.
pub fn mptcp_listeners(port: u16) -> Vec<IpAddr> {
    let addresses = Diag::new().and_then(|diag| diag.mptcp_listeners(port));
    addresses.unwrap_or_default()
}

/// A socket that is bound to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InetBound {
    pub(super) inode: u64,
    pub(super) ip: IpAddr,
    pub(super) v6_only: bool,
}

/// A socket that questions are put to. It shows its own network namespace only.
#[derive(Debug)]
pub(super) struct Diag {
    socket: Socket,
}

impl Diag {
    pub(super) fn new() -> io::Result<Diag> {
        let family = Domain::from(libc::AF_NETLINK);
        let protocol = Some(Protocol::from(NETLINK_SOCK_DIAG));
        let socket = Socket::new(family, Type::RAW, protocol)?;
        // The kernel answers while it is asked, so there is nothing to wait for.
        socket.set_nonblocking(true)?;
        Ok(Diag { socket })
    }

    /// One that is told of TCP and UDP sockets that are gone, and is not for questions.
    pub(super) fn of_closed_sockets() -> io::Result<Diag> {
        let diag = Diag::new()?;
        let groups = CLOSED.into_iter().map(|group| 1 << (group - 1)).sum();
        bind(diag.socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(diag)
    }

    /// Reads what it was told. More than there is room for is an error, and news all the same.
    pub(super) fn forget_news(&self) {
        let mut buffer = [0; 512];
        while nix::unistd::read(&self.socket, &mut buffer).is_ok() {}
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The cookies of the TCP connections to this address that no process has: those that are still
    /// to be accepted. A connection that was accepted and closed has no process either, but
    /// another state.
    pub(super) fn tcp_not_accepted(&self, local: SocketAddr) -> io::Result<Vec<u64>> {
        let mut cookies = Vec::new();
        let request = inet_request(libc::IPPROTO_TCP, WAITING_STATES, local);
        self.ask(&request, |message| {
            let inode = u32_at(message, 68)?;
            let cookie = u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32;
            let is_of_listener = local.ip().is_unspecified() || address(message)? == local.ip();
            if inode == 0 && is_of_listener && port(message)? == local.port() {
                cookies.push(cookie);
            }
            Some(())
        })?;
        Ok(cookies)
    }

    /// Whether there is a TCP connection to this address, or to any at its port. One that was half-closed by the server
    /// counts while a process has it.
    pub(super) fn tcp_is_connected(self, local: SocketAddr, any_address: bool) -> io::Result<bool> {
        let states = WAITING_STATES | HALF_CLOSED_STATES;
        let request = inet_request(libc::IPPROTO_TCP, states, local);
        let mut is_connected = false;
        self.ask_until(&request, |message| {
            let state = 1 << u32::from(*message.get(1)?).min(31);
            let is_held = u32_at(message, 68)? != 0 || state & HALF_CLOSED_STATES == 0;
            let is_of_listener =
                any_address || local.ip().is_unspecified() || address(message)? == local.ip();
            is_connected = is_held && is_of_listener && port(message)? == local.port();
            Some(is_connected)
        })?;
        Ok(is_connected)
    }

    /// Whether a connection that one of these unix listeners has accepted has a client. It has the
    /// listener's type, and its file or, without one, its name.
    pub(super) fn unix_is_connected(self, listeners: &BTreeSet<u32>) -> io::Result<bool> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER;
        let bears = |message: &[u8]| {
            let attributes = message.get(UNIX_MESSAGE..)?;
            let file = attribute(attributes, UNIX_DIAG_VFS)?.to_vec();
            let name = match file.is_empty() {
                true => attribute(attributes, UNIX_DIAG_NAME)?.to_vec(),
                false => Vec::new(),
            };
            Some((*message.get(1)?, file, name))
        };
        let mut wanted = HashSet::new();
        let mut found = 0;
        self.ask(&unix_request(flags, LISTENING, 0, show), |message| {
            if listeners.contains(&u32_at(message, 4)?) {
                wanted.insert(bears(message)?);
                found += 1;
            }
            Some(())
        })?;
        if found < listeners.len() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut is_connected = false;
        let request = unix_request(flags, 1 << CONNECTED, 0, show);
        self.ask_until(&request, |message| {
            let peer = u32_at(attribute(message.get(UNIX_MESSAGE..)?, UNIX_DIAG_PEER)?, 0);
            let has_client = peer.is_some_and(|inode| inode != 0);
            is_connected = has_client && wanted.contains(&bears(message)?);
            Some(is_connected)
        })?;
        Ok(is_connected)
    }

    /// In which directions shutdown(2) was called on the TCP listener with this address and cookie
    /// (SO_COOKIE): the bits of `sk_shutdown`. `None` where the kernel shows another socket there, as
    /// it may where several share the port.
    pub(super) fn tcp_shutdown(&self, local: SocketAddr, cookie: u64) -> io::Result<Option<u8>> {
        let request = inet_lookup(libc::IPPROTO_TCP, local, cookie);
        let mut how = None;
        self.ask(&request, |message| {
            how = attribute(message.get(INET_MESSAGE..)?, INET_DIAG_SHUTDOWN)?
                .first()
                .copied();
            Some(())
        })
        .or_else(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESTALE) => Ok(()),
            _ => Err(error),
        })?;
        Ok(how)
    }

    /// The sockets of this protocol that are bound to a port, or listen there.
    pub(super) fn inet_bound(&self, protocol: i32, port_: u16) -> io::Result<Vec<InetBound>> {
        let mut found = Vec::new();
        for any in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            let request = inet_request(protocol, BOUND_STATES, SocketAddr::new(any, port_));
            self.ask(&request, |message| {
                if port(message)? == port_ {
                    let v6_only = attribute(message.get(INET_MESSAGE..)?, INET_DIAG_SKV6ONLY)?;
                    found.push(InetBound {
                        inode: u32_at(message, 68)?.into(),
                        ip: address(message)?,
                        v6_only: v6_only.first().is_some_and(|only| *only != 0),
                    });
                }
                Some(())
            })?;
        }
        Ok(found)
    }

    fn mptcp_listeners(&self, port_: u16) -> io::Result<Vec<IpAddr>> {
        let mut found = Vec::new();
        for any in [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()] {
            let local = SocketAddr::new(any, port_);
            let mut request = inet_request(libc::IPPROTO_TCP, LISTENING, local);
            request[EXTENSIONS] = 1 << (INET_DIAG_INFO - 1);
            self.ask(&request, |message| {
                if port(message)? == port_ {
                    let layer = attribute(message.get(INET_MESSAGE..)?, INET_DIAG_ULP_INFO)?;
                    if attribute(layer, INET_ULP_INFO_NAME)?.starts_with(b"mptcp") {
                        found.push(address(message)?);
                    }
                }
                Some(())
            })?;
        }
        Ok(found)
    }

    /// The inodes of the clients in a unix listener's accept queue; 0 stands for one that has gone.
    pub(super) fn unix_not_accepted(&self, inode: u64) -> io::Result<Vec<u32>> {
        let inode = u32::try_from(inode).map_err(|_| io::ErrorKind::InvalidInput)?;
        let request = unix_request(libc::NLM_F_REQUEST, ANY_STATE, inode, UDIAG_SHOW_ICONS);
        let mut clients = Vec::new();
        self.ask(&request, |message| {
            let icons = attribute(message.get(UNIX_MESSAGE..)?, UNIX_DIAG_ICONS)?;
            let numbers = icons.chunks_exact(4);
            clients.extend(numbers.filter_map(|number| u32_at(number, 0)));
            Some(())
        })?;
        Ok(clients)
    }

    /// The queue of the unix listener with this inode. The kernel looks at one unix socket after the
    /// other until it finds it: for many, [`Diag::unix_queues`] is the one to ask.
    pub(super) fn unix_queue(&self, inode: u32) -> io::Result<UnixQueue> {
        let request = unix_request(libc::NLM_F_REQUEST, ANY_STATE, inode, UDIAG_SHOW_RQLEN);
        let mut found = None;
        self.ask(&request, |message| {
            // Of a socket that does not listen these are other numbers.
            if u32::from(*message.get(2)?) == LISTENING.trailing_zeros() {
                found = Some(unix_queue(message)?);
            }
            Some(())
        })?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The queues of all unix listeners, by inode.
    pub(super) fn unix_queues(&self) -> io::Result<HashMap<u32, UnixQueue>> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let request = unix_request(flags, LISTENING, 0, UDIAG_SHOW_RQLEN);
        let mut queues = HashMap::new();
        self.ask(&request, |message| {
            queues.insert(u32_at(message, 4)?, unix_queue(message)?);
            Some(())
        })?;
        Ok(queues)
    }

    fn unix_named(&self) -> io::Result<Vec<UnixSocket>> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let request = unix_request(flags, ANY_STATE, 0, UDIAG_SHOW_NAME);
        let mut sockets = Vec::new();
        self.ask(&request, |message| {
            let name = attribute(message.get(UNIX_MESSAGE..)?, UNIX_DIAG_NAME)?;
            let name = match name {
                [] => return Some(()),
                [0, ..] => name,
                // A path ends with a NUL byte (unix(7)).
                path => path.strip_suffix(&[0]).unwrap_or(path),
            };
            sockets.push(UnixSocket {
                inode: u32_at(message, 4)?.into(),
                name: name.to_vec(),
                is_connected: *message.get(2)? == CONNECTED,
            });
            Some(())
        })?;
        Ok(sockets)
    }

    /// The inode of the socket that is bound to this file, whether it listens or not yet; of a server,
    /// not of the connections that it has accepted. The kernel names the file by its numbers (struct
    /// unix_diag_vfs), which nobody can forge, as a name can be in a mount namespace of one's own.
    /// Where a file system shows other numbers to stat(2) (btrfs, overlayfs) nothing is found.
    pub(super) fn unix_bound_to(&self, file: PathIdentity) -> io::Result<Option<u32>> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let request = unix_request(flags, ANY_STATE, 0, UDIAG_SHOW_VFS);
        // dev_t as it is in the kernel (linux/kdev_t.h), and the lower half of the inode's number.
        let device =
            (nix::sys::stat::major(file.dev) << 20 | nix::sys::stat::minor(file.dev)) as u32;
        let numbers = (file.ino as u32, device);
        let mut found = None;
        self.ask(&request, |message| {
            let is_connection =
                *message.get(1)? != libc::SOCK_DGRAM as u8 && *message.get(2)? == CONNECTED;
            let bound = attribute(message.get(UNIX_MESSAGE..)?, UNIX_DIAG_VFS)?;
            if !is_connection && u32_at(bound, 0).zip(u32_at(bound, 4)) == Some(numbers) {
                found = u32_at(message, 4);
            }
            Some(())
        })?;
        Ok(found)
    }

    /// Asks for the queues of all TCP listeners of this network namespace, of one family. The answer is read with
    /// [`Diag::more_tcp_queues`].
    pub(super) fn ask_for_tcp_queues(&self, any: IpAddr) -> io::Result<()> {
        let mut request = inet_request(libc::IPPROTO_TCP, LISTENING, SocketAddr::new(any, 0));
        request[EXTENSIONS] = 1 << (INET_DIAG_SKMEMINFO - 1);
        self.socket.send(&request).map(drop)
    }

    /// Reads a part of that answer, which are some 200 queues: each with its socket's cookie. Whether the answer
    /// has ended.
    pub(super) fn more_tcp_queues(&self, mut found: impl FnMut(u64, TcpQueue)) -> io::Result<bool> {
        self.read_part(true, &mut vec![0; BUFFER], &mut |message| {
            let cookie = u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32;
            let memory = attribute(message.get(INET_MESSAGE..)?, INET_DIAG_SKMEMINFO.into())?;
            let queue = TcpQueue {
                depth: u32_at(message, 56)?,
                limit: u32_at(message, 60)?,
                // SK_MEMINFO_DROPS of linux/sock_diag.h.
                drops: u32_at(memory, 8 * 4)?,
            };
            found(cookie, queue);
            Some(false)
        })
    }

    /// Sends the request, and shows what comes until it is answered. An answer that `read` cannot
    /// make sense of is an error.
    fn ask(&self, request: &[u8], mut read: impl FnMut(&[u8]) -> Option<()>) -> io::Result<()> {
        self.ask_until(request, |message| read(message).map(|()| false))
    }

    /// The same, until `read` has seen enough: then the rest is still to come, and nothing else can be asked.
    fn ask_until(
        &self,
        request: &[u8],
        mut read: impl FnMut(&[u8]) -> Option<bool>,
    ) -> io::Result<()> {
        self.socket.send(request)?;
        let is_dump = request.get(6..8) != Some(&(libc::NLM_F_REQUEST as u16).to_ne_bytes()[..]);
        let mut buffer = vec![0; BUFFER];
        for _ in 0..MAX_READS {
            if self.read_part(is_dump, &mut buffer, &mut read)? {
                return Ok(());
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }

    /// Shows what one read(2) brings. Whether the answer has ended, or `read` has seen enough.
    fn read_part(
        &self,
        is_dump: bool,
        buffer: &mut [u8],
        read: &mut impl FnMut(&[u8]) -> Option<bool>,
    ) -> io::Result<bool> {
        let length = nix::unistd::read(&self.socket, buffer)?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let Some(length) = u32_at(rest, 0) {
            let length = length as usize;
            let message = rest.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
            match i32::from(u16_at(rest, 4).unwrap_or_default()) {
                libc::NLMSG_DONE => return Ok(true),
                libc::NLMSG_ERROR => {
                    let errno = u32_at(message, 0).unwrap_or_default() as i32;
                    return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
                }
                _ if read(message).ok_or(io::ErrorKind::InvalidData)? => return Ok(true),
                _ => {}
            }
            if !is_dump {
                return Ok(true);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// The offset of the field for extensions in struct inet_diag_req_v2.
const EXTENSIONS: usize = HEADER + 2;

/// A request for all sockets of the family in one of these states that have the local port (struct
/// inet_diag_req_v2).
fn inet_request(protocol: i32, states: u32, local: SocketAddr) -> Vec<u8> {
    const LENGTH: usize = 56;
    let family = if local.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut request = Vec::with_capacity(HEADER + LENGTH);
    header(&mut request, LENGTH, libc::NLM_F_REQUEST | libc::NLM_F_DUMP);
    request.extend([family as u8, protocol as u8, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    // The other port, both addresses, the interface and the cookie: any.
    request.resize(HEADER + LENGTH, 0);
    request
}

/// A request for the one socket of the family that is bound to this address and has this cookie.
fn inet_lookup(protocol: i32, local: SocketAddr, cookie: u64) -> Vec<u8> {
    /// struct inet_diag_sockid begins here, behind the family, the protocol and the states.
    const ID: usize = HEADER + 8;
    let mut request = inet_request(protocol, ANY_STATE, local);
    // One answer, and no dump.
    request[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    match local.ip() {
        IpAddr::V4(ip) => request[ID + 4..ID + 8].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => request[ID + 4..ID + 20].copy_from_slice(&ip.octets()),
    }
    let interface = match local {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(local) => local.scope_id(),
    };
    request[ID + 36..ID + 40].copy_from_slice(&interface.to_ne_bytes());
    let low = (cookie as u32).to_ne_bytes();
    let high = ((cookie >> 32) as u32).to_ne_bytes();
    request[ID + 40..ID + 44].copy_from_slice(&low);
    request[ID + 44..ID + 48].copy_from_slice(&high);
    request
}

/// struct unix_diag_req: for the unix sockets in one of these states, or the one with this inode.
fn unix_request(flags: i32, states: u32, inode: u32, show: u32) -> Vec<u8> {
    const LENGTH: usize = 24;
    let mut request = Vec::with_capacity(HEADER + LENGTH);
    header(&mut request, LENGTH, flags);
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    request.extend(states.to_ne_bytes());
    request.extend(inode.to_ne_bytes());
    request.extend(show.to_ne_bytes());
    // Any cookie.
    request.resize(HEADER + LENGTH, 0xff);
    request
}

/// The queue out of a struct unix_diag_msg and what follows it (struct unix_diag_rqlen).
fn unix_queue(message: &[u8]) -> Option<UnixQueue> {
    let lengths = attribute(message.get(UNIX_MESSAGE..)?, UNIX_DIAG_RQLEN)?;
    Some(UnixQueue {
        depth: u32_at(lengths, 0)?,
        limit: u32_at(lengths, 4)?,
    })
}

/// struct nlmsghdr in front of so many bytes.
fn header(request: &mut Vec<u8>, length: usize, flags: i32) {
    request.extend(((HEADER + length) as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((flags as u16).to_ne_bytes());
    // A number of ours and the sender's port id: one question at a time needs neither.
    request.resize(HEADER, 0);
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

/// The local port in a struct inet_diag_msg.
fn port(message: &[u8]) -> Option<u16> {
    bytes_at(message, 4).map(u16::from_be_bytes)
}

/// The local address in it.
fn address(message: &[u8]) -> Option<IpAddr> {
    let message = message.get(..INET_MESSAGE)?;
    if i32::from(*message.first()?) == libc::AF_INET {
        bytes_at(message, 8).map(|bytes: [u8; 4]| Ipv4Addr::from(bytes).into())
    } else {
        bytes_at(message, 8).map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).into())
    }
}

/// The attribute of this type in a list of struct nlattr; an empty queue has none.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(length) = u16_at(rest, 0) {
        let length = usize::from(length);
        let value = rest.get(4..length)?;
        if u16_at(rest, 2)? == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_broken_ones_are_not_read() {
        let row = [5, 0, 0, 0, 7, 0, 0, 0, 8, 0, 3, 0, 1, 2, 3, 4].map(u8::from);
        // The lengths of the machine's own byte order.
        if cfg!(target_endian = "little") {
            assert_eq!(attribute(&row, 3), Some(&[1, 2, 3, 4][..]));
            assert_eq!(attribute(&row, 9), Some(&[][..]));
            assert_eq!(attribute(&row[..12], 3), None);
            assert_eq!(attribute(&[0, 0, 3, 0], 3), None);
        }
    }

    #[test]
    fn the_address_is_that_of_the_family() {
        let mut message = [0; INET_MESSAGE];
        message[0] = libc::AF_INET as u8;
        message[8..12].copy_from_slice(&[192, 0, 2, 1]);
        message[4..6].copy_from_slice(&[0, 80]);
        assert_eq!(address(&message), "192.0.2.1".parse().ok());
        assert_eq!(port(&message), Some(80));
        assert_eq!(address(&message[..20]), None);
    }
}
