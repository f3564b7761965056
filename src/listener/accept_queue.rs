//! The queue of a socket: its depth, its limit and the packets dropped because it was full.
//!
//! Read from the held descriptor wherever it tells, so that a listener in another network namespace
//! is as well known as one here, and never mistaken for another that has the same address. sock_diag(7) shows
//! this namespace alone: unix listeners need it, and of many TCP listeners those that it shows are read from it,
//! where each is known by its cookie.
//!
//! Nothing is remembered and nothing is looked at unless somebody asks.

use super::bound::BoundSocket;
use super::diag::{Diag, TcpQueue, UnixQueue};
use crate::config::{Endpoint, SocketKind, Transport};
use crate::sys::{self, sockopt};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

/// SO_NETNS_COOKIE of asm-generic/socket.h (Linux 5.14).
const SO_NETNS_COOKIE: i32 = 71;
/// SO_MEMINFO of the same (Linux 4.12).
const SO_MEMINFO: i32 = 55;
/// TCP_LISTEN of net/tcp_states.h.
const TCP_LISTEN: u8 = 10;
/// So many queues are in one part of an answer about all of them.
const A_READ: usize = 200;

/// The queue of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// The unit of depth and limit.
    pub unit: Unit,
    /// The number of connections, messages or bytes that wait; `None` where the kernel does not tell.
    pub depth: Option<u64>,
    /// The largest depth. The kernel takes one connection more than that (`sk_acceptq_is_full` in
    /// include/net/sock.h). Where it does not tell, this is what listen(2) was called with; `None`
    /// where there is no such call either.
    pub limit: Option<u64>,
    /// The number of packets of clients that the kernel has dropped at this socket since it was
    /// created: a TCP client that tries again counts each time. `None` where nothing is counted: a full
    /// unix socket, FIFO or message queue makes its clients wait and drops nothing; and where more is
    /// counted than what is lost (`tcp_drops`).
    pub drops: Option<u64>,
}

/// The unit of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Clients that nobody has accepted yet.
    Connections,
    /// Messages that nobody has read yet.
    Messages,
    /// Bytes that nobody has read yet. Those of datagrams are the memory that they take (more than
    /// their length), because that is what is compared with the receive buffer (socket(7),
    /// SO_RCVBUF); `ss -u` shows the same.
    Bytes,
}

impl Unit {
    /// The unit of the queue of such a socket; `None` for kinds without a queue.
    pub const fn of(kind: SocketKind) -> Option<Unit> {
        match kind {
            SocketKind::Tcp
            | SocketKind::Mptcp
            | SocketKind::Sctp
            | SocketKind::UnixStream
            | SocketKind::UnixSeqPacket
            | SocketKind::VsockStream
            | SocketKind::VsockSeqPacket => Some(Unit::Connections),
            SocketKind::UnixDatagram | SocketKind::MessageQueue => Some(Unit::Messages),
            SocketKind::Udp
            | SocketKind::UdpLite
            | SocketKind::VsockDatagram
            | SocketKind::Netlink
            | SocketKind::Fifo => Some(Unit::Bytes),
            SocketKind::Special => None,
        }
    }
}

impl Depth {
    /// Whether the next client is turned away or made to wait. Datagrams have different sizes, so
    /// that one may be dropped while there is room for a smaller one: there `drops` tells more.
    pub fn is_full(&self) -> bool {
        let (Some(depth), Some(limit)) = (self.depth, self.limit) else {
            return false;
        };
        match self.unit {
            Unit::Connections => depth > limit,
            Unit::Messages | Unit::Bytes => depth >= limit,
        }
    }

    /// Whether anybody waits, or anything that was sent.
    pub fn has_clients(&self) -> bool {
        self.depth.is_some_and(|depth| depth > 0)
    }
}

/// Reads the depths of many sockets one by one, so that the caller can do something else in between.
/// Unix listeners are all read at once, at the first of them: to be dropped and made anew for each
/// round.
#[derive(Default)]
pub struct DepthReader {
    diag: Option<Diag>,
    unix: Option<HashMap<u32, UnixQueue>>,
    /// The queues of TCP listeners that were read ahead, by the cookies of their sockets.
    tcp: foldhash::HashMap<u64, TcpQueue>,
    ahead: Option<ReadAhead>,
}

/// What is being read ahead.
struct ReadAhead {
    diag: Diag,
    /// So many reads more are worth it.
    reads: usize,
    /// The family that comes then, and how many of its sockets are meant.
    then: Option<(IpAddr, usize)>,
}

impl DepthReader {
    /// Costs nothing yet.
    pub fn new() -> DepthReader {
        DepthReader::default()
    }

    /// For the sockets at these addresses. Of many TCP listeners the kernel tells in one answer in half of the time
    /// that two questions about each take, so that these are read ahead.
    pub fn of<'a>(addresses: impl Iterator<Item = &'a Endpoint>) -> DepthReader {
        let (mut v4, mut v6) = (0, 0);
        for address in addresses {
            match address {
                Endpoint::Inet {
                    transport: Transport::Tcp,
                    address,
                    ..
                } if address.is_ipv4() => v4 += 1,
                Endpoint::Inet {
                    transport: Transport::Tcp,
                    ..
                } => v6 += 1,
                _ => {}
            }
        }
        let families = [
            (Ipv4Addr::UNSPECIFIED.into(), v4),
            (Ipv6Addr::UNSPECIFIED.into(), v6),
        ];
        let mut many = families.into_iter().filter(|(_, count)| *count >= A_READ);
        let first = many.next();
        DepthReader {
            ahead: first.and_then(|first| ReadAhead::of(first, many.next()).ok()),
            ..DepthReader::default()
        }
    }

    /// Reads some of it; whether there is more to be read before [`DepthReader::depth`] is asked.
    pub fn read_ahead(&mut self) -> bool {
        let tcp = &mut self.tcp;
        self.ahead = self.ahead.take().and_then(|mut ahead| {
            let noted = |cookie, queue| {
                tcp.insert(cookie, queue);
            };
            let has_ended = ahead.diag.more_tcp_queues(noted).ok()?;
            ahead.reads = ahead.reads.checked_sub(1)?;
            match has_ended {
                true => ReadAhead::of(ahead.then?, None).ok(),
                false => Some(ahead),
            }
        });
        self.ahead.is_some()
    }

    /// The queue of this socket; `None` for devices and other special files, which have none.
    pub fn depth(&mut self, socket: &BoundSocket) -> Option<Depth> {
        if !self.tcp.is_empty()
            && socket.address.kind() == SocketKind::Tcp
            && let Some(queue) = socket.fd.cookie().and_then(|cookie| self.tcp.get(&cookie))
        {
            return Some(Depth {
                unit: Unit::Connections,
                depth: Some(queue.depth.into()),
                limit: Some(queue.limit.into()),
                drops: tcp_drops(socket, queue.drops),
            });
        }
        read(socket, |inode| {
            let Some(diag) = diag_for(socket, &mut self.diag)? else {
                return Ok(None);
            };
            if self.unix.is_none() {
                self.unix = Some(diag.unix_queues()?);
            }
            let known = self.unix.as_ref().and_then(|all| all.get(&inode));
            match known {
                Some(queue) => Ok(Some(*queue)),
                // Made since, or missed because others came and went meanwhile.
                None => diag.unix_queue(inode).map(Some),
            }
        })
    }
}

impl ReadAhead {
    fn of(
        (family, count): (IpAddr, usize),
        then: Option<(IpAddr, usize)>,
    ) -> io::Result<ReadAhead> {
        let diag = Diag::new()?;
        diag.ask_for_tcp_queues(family)?;
        Ok(ReadAhead {
            diag,
            // Others may have many more listeners here.
            reads: 2 * count / A_READ + 2,
            then,
        })
    }
}

/// The queue of one socket; `None` if it has none.
pub fn depth(socket: &BoundSocket) -> Option<Depth> {
    read(socket, |inode| {
        let mut diag = None;
        match diag_for(socket, &mut diag)? {
            Some(diag) => diag.unix_queue(inode).map(Some),
            None => Ok(None),
        }
    })
}

/// The queues of these sockets, in their order.
pub fn depths<'a>(sockets: impl Iterator<Item = &'a BoundSocket>) -> Vec<Option<Depth>> {
    let mut reader = DepthReader::new();
    sockets.map(|socket| reader.depth(socket)).collect()
}

/// `unix` is asked for the queue of the unix listener with an inode.
fn read(
    socket: &BoundSocket,
    unix: impl FnOnce(u32) -> io::Result<Option<UnixQueue>>,
) -> Option<Depth> {
    let kind = socket.address.kind();
    let unit = Unit::of(kind)?;
    let numbers = match kind {
        SocketKind::Tcp | SocketKind::Mptcp => accept_queue(socket, kind),
        SocketKind::UnixStream | SocketKind::UnixSeqPacket => unix_queue(socket, unix),
        SocketKind::Udp | SocketKind::UdpLite | SocketKind::VsockDatagram | SocketKind::Netlink => {
            receive_buffer(socket)
        }
        SocketKind::Fifo => pipe(socket),
        SocketKind::MessageQueue => message_queue(socket),
        // That of a unix datagram socket is in nobody's numbers: its messages are charged to the
        // senders, and sock_diag shows the length of the first one only.
        SocketKind::UnixDatagram
        | SocketKind::Sctp
        | SocketKind::VsockStream
        | SocketKind::VsockSeqPacket
        | SocketKind::Special => Ok(Numbers::default()),
    };
    let numbers = numbers.unwrap_or_default();
    Some(Depth {
        unit,
        depth: numbers.depth.or_else(|| is_empty(socket).then_some(0)),
        limit: numbers.limit.or(socket.backlog.map(u64::from)),
        drops: numbers.drops,
    })
}

#[derive(Default)]
struct Numbers {
    depth: Option<u64>,
    limit: Option<u64>,
    drops: Option<u64>,
}

/// The accept queue of a TCP listener.
fn accept_queue(socket: &BoundSocket, kind: SocketKind) -> io::Result<Numbers> {
    let queue = tcp_queue(socket)?;
    let drops = match kind {
        // An MPTCP listener's drops are counted at a TCP socket that is inside it.
        SocketKind::Mptcp => None,
        _ => tcp_drops(socket, Memory::of(socket)?.drops),
    };
    Ok(Numbers {
        depth: queue.map(|(depth, _)| depth.into()),
        limit: queue.map(|(_, limit)| limit.into()),
        drops,
    })
}

/// What a TCP listener's count of drops says. With TCP_DEFER_ACCEPT, which a worker can have set too, it
/// says nothing: the ACK without data with which each client ends its handshake is counted, and no
/// client is lost (tcp_check_req in net/ipv4/tcp_minisocks.c).
fn tcp_drops(socket: &BoundSocket, counted: u32) -> Option<u64> {
    let deferred = || {
        let time = sockopt::get_int(&socket.fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
        time.is_ok_and(|time| time > 0)
    };
    (counted == 0 || !deferred()).then_some(counted.into())
}

/// Depth and limit of a TCP listener's accept queue: tcpi_unacked and tcpi_sacked of TCP_INFO
/// (tcp_get_info in net/ipv4/tcp.c). `None` for a socket that does not listen, where these mean
/// something else.
pub(super) fn tcp_queue(socket: &BoundSocket) -> io::Result<Option<(u32, u32)>> {
    const UNACKED: usize = 24;
    const SACKED: usize = 28;
    let info = sockopt::get_bytes(&socket.fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    if info.first() != Some(&TCP_LISTEN) {
        return Ok(None);
    }
    match (u32_at(&info, UNACKED), u32_at(&info, SACKED)) {
        (Some(depth), Some(limit)) => Ok(Some((depth, limit))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn unix_queue(
    socket: &BoundSocket,
    ask: impl FnOnce(u32) -> io::Result<Option<UnixQueue>>,
) -> io::Result<Numbers> {
    // The type differs between architectures; the conversion loses nothing.
    #[allow(clippy::unnecessary_cast)]
    let inode = fstat(&socket.fd)?.st_ino as u64;
    let inode = u32::try_from(inode).map_err(|_| io::ErrorKind::InvalidData)?;
    let queue = ask(inode)?;
    Ok(Numbers {
        depth: queue.map(|queue| queue.depth.into()),
        limit: queue.map(|queue| queue.limit.into()),
        drops: None,
    })
}

fn receive_buffer(socket: &BoundSocket) -> io::Result<Numbers> {
    let memory = Memory::of(socket)?;
    Ok(Numbers {
        depth: Some(memory.received.into()),
        limit: Some(memory.receive_buffer.into()),
        drops: Some(memory.drops.into()),
    })
}

/// A pipe's capacity is F_GETPIPE_SZ (fcntl(2)).
fn pipe(socket: &BoundSocket) -> io::Result<Numbers> {
    let capacity = fcntl(&socket.fd, FcntlArg::F_GETPIPE_SZ)?;
    Ok(Numbers {
        depth: Some(sys::bytes_to_read(&socket.fd)?),
        limit: u64::try_from(capacity).ok(),
        drops: None,
    })
}

fn message_queue(socket: &BoundSocket) -> io::Result<Numbers> {
    Ok(Numbers {
        depth: Some(sys::queue_length(&socket.fd)?),
        limit: u64::try_from(sys::queue_limits(&socket.fd)?.messages).ok(),
        drops: None,
    })
}

/// The numbers of SO_MEMINFO that are used (linux/sock_diag.h, SK_MEMINFO_RMEM_ALLOC and following).
struct Memory {
    /// The bytes received and not read.
    received: u32,
    receive_buffer: u32,
    drops: u32,
}

impl Memory {
    fn of(socket: &BoundSocket) -> io::Result<Memory> {
        let bytes = sockopt::get_bytes(&socket.fd, libc::SOL_SOCKET, SO_MEMINFO)?;
        let number = |index: usize| u32_at(&bytes, index * 4).ok_or(io::ErrorKind::InvalidData);
        Ok(Memory {
            received: number(0)?,
            receive_buffer: number(1)?,
            drops: number(8)?,
        })
    }
}

/// Opens the socket for questions at the first one. `None` for a listener in another network
/// namespace, of which it knows nothing, or where the kernel is too old to tell.
pub(super) fn diag_for<'d>(
    listener: &BoundSocket,
    diag: &'d mut Option<Diag>,
) -> io::Result<Option<&'d Diag>> {
    let diag = match diag {
        Some(diag) => diag,
        None => diag.insert(Diag::new()?),
    };
    let here = sockopt::get_u64(diag.socket(), libc::SOL_SOCKET, SO_NETNS_COOKIE);
    let there = sockopt::get_u64(&listener.fd, libc::SOL_SOCKET, SO_NETNS_COOKIE);
    Ok((here? == there?).then_some(diag))
}

/// Whether nothing waits, which poll(2) knows of everything.
fn is_empty(socket: &BoundSocket) -> bool {
    let mut asked = [PollFd::new(socket.fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, PollTimeout::ZERO) == Ok(0)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk().copied();
    bytes.map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_full(unit: Unit, depth: Option<u64>, limit: Option<u64>) -> bool {
        let drops = Some(1000);
        Depth {
            unit,
            depth,
            limit,
            drops,
        }
        .is_full()
    }

    #[test]
    fn a_queue_of_connections_takes_one_more_than_its_limit() {
        assert!(!is_full(Unit::Connections, Some(4), Some(4)));
        assert!(is_full(Unit::Connections, Some(5), Some(4)));
        for unit in [Unit::Messages, Unit::Bytes] {
            assert!(!is_full(unit, Some(3), Some(4)));
            assert!(is_full(unit, Some(4), Some(4)));
        }
    }

    #[test]
    fn what_is_not_known_is_not_full() {
        assert!(!is_full(Unit::Messages, None, Some(0)));
        assert!(!is_full(Unit::Messages, Some(9), None));
    }
}
