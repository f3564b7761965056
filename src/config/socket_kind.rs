//! The kinds of descriptors that a listener can be.

use serde::Serialize;

/// Every kind of descriptor that a listener can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[allow(missing_docs)]
pub enum SocketKind {
    Tcp,
    Udp,
    Mptcp,
    Sctp,
    UdpLite,
    UnixStream,
    UnixDatagram,
    UnixSeqPacket,
    VsockStream,
    VsockDatagram,
    VsockSeqPacket,
    Netlink,
    Fifo,
    MessageQueue,
    Special,
}

use SocketKind::{
    Mptcp, Netlink, Sctp, Tcp, Udp, UdpLite, UnixDatagram, UnixSeqPacket, UnixStream,
    VsockDatagram, VsockSeqPacket, VsockStream,
};

/// Datagrams of the internet.
pub(super) const DATAGRAM: &[SocketKind] = &[Udp, UdpLite];
/// The kinds with an inet address.
pub(super) const INET: &[SocketKind] = &[Tcp, Mptcp, Sctp, Udp, UdpLite];
/// Sockets, all of which live in a network namespace.
pub(super) const SOCKETS: &[SocketKind] = &[
    Tcp,
    Mptcp,
    Sctp,
    Udp,
    UdpLite,
    UnixStream,
    UnixDatagram,
    UnixSeqPacket,
    VsockStream,
    VsockDatagram,
    VsockSeqPacket,
    Netlink,
];

impl SocketKind {
    /// The scheme of the kind in an address: `tcp`, `unix-dgram`.
    pub const fn word(self) -> &'static str {
        match self {
            SocketKind::Tcp => "tcp",
            SocketKind::Udp => "udp",
            SocketKind::Mptcp => "mptcp",
            SocketKind::Sctp => "sctp",
            SocketKind::UdpLite => "udplite",
            SocketKind::UnixStream => "unix",
            SocketKind::UnixDatagram => "unix-dgram",
            SocketKind::UnixSeqPacket => "unix-seqpacket",
            SocketKind::VsockStream => "vsock",
            SocketKind::VsockDatagram => "vsock-dgram",
            SocketKind::VsockSeqPacket => "vsock-seqpacket",
            SocketKind::Netlink => "netlink",
            SocketKind::Fifo => "fifo",
            SocketKind::MessageQueue => "mqueue",
            SocketKind::Special => "special",
        }
    }
}
