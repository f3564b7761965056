//! Every socket option that a listener may have: one table.
//!
//! The reader of the YAML, binding, reading back, the documentation and the tests all go by it, so
//! that they cannot disagree. The numbers are the kernel's; the constants that the libc crate lacks
//! are from include/uapi/ of Linux, with the version that brought them.

use super::socket_kind::{DATAGRAM, INET, SOCKETS, SocketKind};
use nix::libc::{self, c_int};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::hash::{Hash, Hasher};

/// A socket option that a listener may have.
#[derive(Debug)]
pub struct OptionSpec {
    /// The name of the key in a listener.
    pub key: &'static str,
    /// The meaning, in one line.
    pub doc: &'static str,
    /// The directive of systemd.socket(5) with the same meaning.
    pub systemd: Option<&'static str>,
    /// The kernel's name for it.
    pub call: &'static str,
    /// The first version of Linux that has it.
    pub since: &'static str,
    /// The kinds of socket that have the option.
    pub kinds: &'static [SocketKind],
    /// The values that the option takes.
    pub value: ValueKind,
    /// The moment at which the option has to be set.
    pub phase: Phase,
    /// The call that sets the option and reads it back.
    pub how: How,
}

/// The values that an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// `true` or `false`.
    Flag,
    /// A number in this range.
    Number(i64, i64),
    /// A size in bytes, with a suffix, in this range.
    Size(i64, i64),
    /// A duration that the kernel takes in whole seconds, in this range.
    Seconds(i64, i64),
    /// A duration that the kernel takes in milliseconds, in this range.
    Milliseconds(i64, i64),
    /// A name of at most so many bytes.
    Text(usize),
    /// One of these words, each with its number.
    Choice(&'static [(&'static str, i64)]),
}

/// The moment at which an option has to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before bind(2): it decides whether and where the address can be bound.
    BeforeBind,
    /// Between bind(2) and listen(2), such as buffers, whose size decides the window scale (tcp(7)).
    BeforeListen,
    /// At opening of the descriptor, for what is no option of a socket.
    AtOpen,
}

/// The call that sets an option and reads it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// setsockopt(2) with an int: level and name.
    Int(c_int, c_int),
    /// setsockopt(2) with an int, by the socket's family; a dual-stack socket gets both.
    IntByFamily {
        /// Level and name for IPv4.
        v4: (c_int, c_int),
        /// Level and name for IPv6.
        v6: (c_int, c_int),
    },
    /// setsockopt(2) with an int, by the socket's family, with a third option for netlink.
    IntByFamilyOrNetlink {
        /// Level and name for IPv4.
        v4: (c_int, c_int),
        /// Level and name for IPv6.
        v6: (c_int, c_int),
        /// Level and name for netlink.
        netlink: (c_int, c_int),
    },
    /// With an int: first the name that may exceed the system's limit, which needs CAP_NET_ADMIN,
    /// then the other. Reads back twice what was set (socket(7)).
    Buffer {
        /// SO_RCVBUFFORCE or SO_SNDBUFFORCE.
        force: c_int,
        /// SO_RCVBUF or SO_SNDBUF.
        plain: c_int,
    },
    /// setsockopt(2) with a text: level and name.
    Text(c_int, c_int),
    /// Either of two flags, or none: the value is the name to set (SO_TIMESTAMP, SO_TIMESTAMPNS).
    OneOf(c_int),
    /// The capacity of a FIFO, fcntl(2) F_SETPIPE_SZ.
    PipeSize,
    /// An attribute for mq_open(3).
    QueueMaxMessages,
    /// An attribute for mq_open(3).
    QueueMessageSize,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// The value of a [`ValueKind::Flag`].
    Flag(bool),
    /// The value of a number, size, duration (in the unit the kernel takes) or choice.
    Number(i64),
    /// The value of a [`ValueKind::Text`].
    Text(String),
}

/// An option and what it is set to.
#[derive(Debug, Clone)]
pub struct OptionSetting {
    /// The option that is set.
    pub spec: &'static OptionSpec,
    /// The value it is set to.
    pub value: OptionValue,
}

impl PartialEq for OptionSetting {
    fn eq(&self, other: &Self) -> bool {
        self.spec.key == other.spec.key && self.value == other.value
    }
}

impl Eq for OptionSetting {}

impl Hash for OptionSetting {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.spec.key, &self.value).hash(hasher);
    }
}

/// A setting is serialised as a pair of key and value.
impl Serialize for OptionSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.spec.key, &self.value).serialize(serializer)
    }
}

/// A setting is deserialised from a pair of key and value.
impl<'de> Deserialize<'de> for OptionSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (key, value) = <(String, OptionValue)>::deserialize(deserializer)?;
        let unknown = || serde::de::Error::custom(format!("there is no option `{key}`"));
        let spec = by_key(&key).ok_or_else(unknown)?;
        Ok(OptionSetting { spec, value })
    }
}

/// The option with this key.
pub fn by_key(key: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.key == key)
}

use SocketKind::{
    Fifo, MessageQueue, Mptcp, Netlink, Sctp, Tcp, Udp, UdpLite, UnixDatagram, UnixSeqPacket,
    UnixStream,
};

const TCP: &[SocketKind] = &[Tcp, Mptcp];
const STREAM: &[SocketKind] = &[Tcp, Mptcp, Sctp];
/// TCP without MPTCP, which does not hand these options to its TCP connections (up to Linux 6.18).
const PLAIN_TCP: &[SocketKind] = &[Tcp];
const HOPS: &[SocketKind] = &[Tcp, Sctp, Udp, UdpLite];
const UNIX: &[SocketKind] = &[UnixStream, UnixDatagram, UnixSeqPacket];
const UNIX_OR_NETLINK: &[SocketKind] = &[UnixStream, UnixDatagram, UnixSeqPacket, Netlink];
const INET_OR_NETLINK: &[SocketKind] = &[Udp, UdpLite, Netlink];
const TIMESTAMPED: &[SocketKind] = &[Udp, UdpLite, UnixDatagram, Netlink];

/// SO_PASSPIDFD, since Linux 6.5.
const SO_PASSPIDFD: c_int = 76;
/// SO_PASSRIGHTS, since Linux 6.16.
const SO_PASSRIGHTS: c_int = 83;
const SOL_NETLINK: c_int = 270;
const NETLINK_PKTINFO: c_int = 3;

const MAX: i64 = i32::MAX as i64;
const DAY: i64 = 86_400;

/// One entry for each option: key and meaning; the directive of systemd, the kernel's name, the first
/// version of Linux, the kinds of socket, the values and the phase; and the call.
macro_rules! options {
    ($($key:ident: $doc:literal,
        $systemd:expr, $call:literal, $since:literal, $kinds:expr, $value:expr, $phase:ident,
        $how:expr;)*) => {
        &[$(OptionSpec {
            key: stringify!($key),
            doc: $doc,
            systemd: $systemd,
            call: $call,
            since: $since,
            kinds: $kinds,
            value: $value,
            phase: Phase::$phase,
            how: $how,
        },)*]
    };
}

const fn of_socket(name: c_int) -> How {
    How::Int(libc::SOL_SOCKET, name)
}

const fn of_tcp(name: c_int) -> How {
    How::Int(libc::IPPROTO_TCP, name)
}

const fn by_family(v4: c_int, v6: c_int) -> How {
    How::IntByFamily {
        v4: (libc::IPPROTO_IP, v4),
        v6: (libc::IPPROTO_IPV6, v6),
    }
}

use How::{Buffer, IntByFamilyOrNetlink, OneOf, Text};
use ValueKind::{Choice, Flag, Milliseconds, Number, Seconds, Size};

/// All options, in the order in which they are set within their phase.
pub static OPTIONS: &[OptionSpec] = options! {
    free_bind: "bind an address that this machine does not have, or not yet",
        Some("FreeBind="), "IP_FREEBIND, IPV6_FREEBIND", "2.4 (IPv6: 4.15)", INET, Flag, BeforeBind,
        by_family(libc::IP_FREEBIND, libc::IPV6_FREEBIND);
    transparent: "accept connections to addresses that are not this machine's (needs CAP_NET_ADMIN)",
        Some("Transparent="), "IP_TRANSPARENT, IPV6_TRANSPARENT", "2.6.24", INET, Flag, BeforeBind,
        by_family(libc::IP_TRANSPARENT, libc::IPV6_TRANSPARENT);
    reuse_port:
        "let other sockets of the same user bind the same address; the kernel spreads clients over them",
        Some("ReusePort="), "SO_REUSEPORT", "3.9", INET, Flag, BeforeBind,
        of_socket(libc::SO_REUSEPORT);
    bind_to_device: "accept only what arrives on this interface, or in this VRF",
        Some("BindToDevice="), "SO_BINDTODEVICE", "2.0", INET, ValueKind::Text(15), BeforeBind,
        Text(libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
    mark: "the firewall mark of outgoing packets (needs CAP_NET_ADMIN)",
        Some("Mark="), "SO_MARK", "2.6.25", SOCKETS, Number(0, u32::MAX as i64), BeforeBind,
        of_socket(libc::SO_MARK);
    priority: "the queueing priority of outgoing packets (above 6 needs CAP_NET_ADMIN)",
        Some("Priority="), "SO_PRIORITY", "2.0", SOCKETS, Number(0, MAX), BeforeListen,
        of_socket(libc::SO_PRIORITY);
    receive_buffer: "the receive buffer; above net.core.rmem_max needs CAP_NET_ADMIN",
        Some("ReceiveBuffer="), "SO_RCVBUF", "2.0", SOCKETS, Size(1, MAX / 2), BeforeListen,
        Buffer { force: libc::SO_RCVBUFFORCE, plain: libc::SO_RCVBUF };
    send_buffer: "the send buffer; above net.core.wmem_max needs CAP_NET_ADMIN",
        Some("SendBuffer="), "SO_SNDBUF", "2.0", SOCKETS, Size(1, MAX / 2), BeforeListen,
        Buffer { force: libc::SO_SNDBUFFORCE, plain: libc::SO_SNDBUF };
    keep_alive: "probe idle connections, so that a dead peer is noticed",
        Some("KeepAlive="), "SO_KEEPALIVE", "2.0", STREAM, Flag, BeforeListen,
        of_socket(libc::SO_KEEPALIVE);
    keep_alive_time: "how long a connection is idle before the first probe",
        Some("KeepAliveTimeSec="), "TCP_KEEPIDLE", "2.4", TCP, Seconds(1, 32_767), BeforeListen,
        of_tcp(libc::TCP_KEEPIDLE);
    keep_alive_interval: "the time between probes",
        Some("KeepAliveIntervalSec="), "TCP_KEEPINTVL", "2.4", TCP, Seconds(1, 32_767), BeforeListen,
        of_tcp(libc::TCP_KEEPINTVL);
    keep_alive_probes: "how many probes go unanswered before the connection is closed",
        Some("KeepAliveProbes="), "TCP_KEEPCNT", "2.4", TCP, Number(1, 127), BeforeListen,
        of_tcp(libc::TCP_KEEPCNT);
    no_delay: "send small segments at once (no Nagle); accepted connections inherit it",
        Some("NoDelay="), "TCP_NODELAY", "2.0", TCP, Flag, BeforeListen,
        of_tcp(libc::TCP_NODELAY);
    defer_accept: "wake the worker only when the client has sent something, or after this time",
        Some("DeferAcceptSec="), "TCP_DEFER_ACCEPT", "2.4", TCP, Seconds(0, DAY), BeforeListen,
        of_tcp(libc::TCP_DEFER_ACCEPT);
    tcp_congestion: "the congestion control algorithm (net.ipv4.tcp_available_congestion_control)",
        Some("TCPCongestion="), "TCP_CONGESTION", "2.6.13", TCP, ValueKind::Text(15), BeforeListen,
        Text(libc::IPPROTO_TCP, libc::TCP_CONGESTION);
    tcp_fast_open:
        "how many connections with data in their SYN may wait (net.ipv4.tcp_fastopen must have bit 2)",
        None, "TCP_FASTOPEN", "3.7", TCP, Number(0, MAX), BeforeListen,
        of_tcp(libc::TCP_FASTOPEN);
    tcp_user_timeout: "how long sent data may stay unacknowledged before the connection is closed",
        None, "TCP_USER_TIMEOUT", "2.6.37", PLAIN_TCP, Milliseconds(0, MAX), BeforeListen,
        of_tcp(libc::TCP_USER_TIMEOUT);
    tcp_max_segment: "the largest segment that is announced",
        None, "TCP_MAXSEG", "2.0", PLAIN_TCP, Number(88, 32_767), BeforeListen,
        of_tcp(libc::TCP_MAXSEG);
    ip_tos: "the type-of-service byte (DSCP and ECN) of outgoing packets",
        Some("IPTOS="), "IP_TOS, IPV6_TCLASS", "2.0", INET, Number(0, 255), BeforeListen,
        by_family(libc::IP_TOS, libc::IPV6_TCLASS);
    ip_ttl: "the time to live, or hop limit, of outgoing packets",
        Some("IPTTL="), "IP_TTL, IPV6_UNICAST_HOPS", "2.0", HOPS, Number(1, 255), BeforeListen,
        by_family(libc::IP_TTL, libc::IPV6_UNICAST_HOPS);
    broadcast: "allow datagrams to broadcast addresses",
        Some("Broadcast="), "SO_BROADCAST", "2.0", DATAGRAM, Flag, BeforeBind,
        of_socket(libc::SO_BROADCAST);
    pass_packet_info: "report with each datagram where it arrived",
        Some("PassPacketInfo="), "IP_PKTINFO, IPV6_RECVPKTINFO, NETLINK_PKTINFO", "2.2", INET_OR_NETLINK,
        Flag, BeforeListen,
        IntByFamilyOrNetlink {
            v4: (libc::IPPROTO_IP, libc::IP_PKTINFO),
            v6: (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            netlink: (SOL_NETLINK, NETLINK_PKTINFO),
        };
    timestamping: "report with each datagram when it arrived",
        Some("Timestamping="), "SO_TIMESTAMP, SO_TIMESTAMPNS", "2.6.22", TIMESTAMPED,
        Choice(&[("off", 0), ("us", libc::SO_TIMESTAMP as i64), ("ns", libc::SO_TIMESTAMPNS as i64)]),
        BeforeListen,
        OneOf(libc::SOL_SOCKET);
    pass_credentials: "report who sent a message",
        Some("PassCredentials="), "SO_PASSCRED", "2.2", UNIX_OR_NETLINK, Flag, BeforeListen,
        of_socket(libc::SO_PASSCRED);
    pass_pidfd: "pass a pidfd of the sender",
        Some("PassPIDFD="), "SO_PASSPIDFD", "6.5", UNIX, Flag, BeforeListen,
        of_socket(SO_PASSPIDFD);
    pass_security: "report the sender's security label",
        Some("PassSecurity="), "SO_PASSSEC", "2.6.18", UNIX_OR_NETLINK, Flag, BeforeListen,
        of_socket(libc::SO_PASSSEC);
    accept_file_descriptors:
        "let clients pass descriptors (SCM_RIGHTS); `false` makes the kernel refuse them",
        Some("AcceptFileDescriptors="), "SO_PASSRIGHTS", "6.16", UNIX, Flag, BeforeListen,
        of_socket(SO_PASSRIGHTS);
    pipe_size: "the capacity of a FIFO; the kernel rounds it up to pages",
        Some("PipeSize="), "F_SETPIPE_SZ", "2.6.35", &[Fifo], Size(1, MAX), AtOpen,
        How::PipeSize;
    message_queue_max_messages: "how many messages a queue holds (fs.mqueue.msg_max)",
        Some("MessageQueueMaxMessages="), "mq_attr.mq_maxmsg", "2.6.6", &[MessageQueue],
        Number(1, MAX), AtOpen,
        How::QueueMaxMessages;
    message_queue_message_size: "how long a message may be (fs.mqueue.msgsize_max)",
        Some("MessageQueueMessageSize="), "mq_attr.mq_msgsize", "2.6.6", &[MessageQueue],
        Size(1, MAX), AtOpen,
        How::QueueMessageSize;
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_found() {
        for (index, option) in OPTIONS.iter().enumerate() {
            assert!(std::ptr::eq(by_key(option.key).unwrap(), option));
            assert!(OPTIONS[..index].iter().all(|other| other.key != option.key));
            assert!(!option.kinds.is_empty());
        }
    }
}
