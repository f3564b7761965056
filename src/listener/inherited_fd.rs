//! Inspects an inherited descriptor, and compares it with the endpoint of a listener.

use super::unix_path::socket_type;
use crate::config::{Endpoint, Transport, UnixKind, UnixName, families};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{NetlinkAddr, getsockname};
use nix::sys::stat::{SFlag, fstat, stat};
use nix::sys::statfs::{FsType, fstatfs};
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use std::fmt;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// MQUEUE_MAGIC of statfs(2).
const MQUEUE: FsType = FsType(0x1980_0202);

/// The reason for comparing a descriptor with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The descriptor bears the listener's name: what the configuration leaves open may be anything.
    Name,
    /// The descriptor has only the listener's address: the match must then be beyond doubt.
    Address,
}

/// The kind of a descriptor.
#[derive(Debug)]
pub(super) enum Found {
    Socket(Box<FoundSocket>),
    /// Anything with an inode of its own.
    File {
        dev: u64,
        ino: u64,
        kind: SFlag,
        writable: bool,
    },
    MessageQueue(PathBuf),
    /// The descriptor cannot be examined.
    Unknown,
}

#[derive(Debug)]
pub(super) struct FoundSocket {
    domain: Domain,
    kind: Type,
    protocol: Option<Protocol>,
    address: Option<SockAddr>,
    netlink_groups: Option<u32>,
    listening: bool,
    v6_only: Option<bool>,
    /// The other end, of a connection.
    peer: Option<SockAddr>,
}

/// Looks at a descriptor.
pub(super) fn look(fd: &OwnedFd) -> Found {
    let Ok(file) = fstat(fd) else {
        return Found::Unknown;
    };
    let kind = SFlag::from_bits_truncate(file.st_mode & SFlag::S_IFMT.bits());
    if kind == SFlag::S_IFSOCK {
        return socket(fd).map_or(Found::Unknown, |found| Found::Socket(Box::new(found)));
    }
    if fstatfs(fd).is_ok_and(|system| system.filesystem_type() == MQUEUE)
        && let Ok(name) = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
    {
        return Found::MessageQueue(name);
    }
    let flags = fcntl(fd, FcntlArg::F_GETFL).unwrap_or(0);
    let (dev, ino) = identity(&file);
    Found::File {
        dev,
        ino,
        kind,
        writable: OFlag::from_bits_retain(flags).contains(OFlag::O_RDWR),
    }
}

fn socket(fd: &OwnedFd) -> Option<FoundSocket> {
    let raw = SockRef::from(fd);
    let domain = raw.domain().ok()?;
    Some(FoundSocket {
        domain,
        kind: raw.r#type().ok()?,
        protocol: raw.protocol().ok().flatten(),
        address: raw.local_addr().ok(),
        netlink_groups: getsockname::<NetlinkAddr>(fd.as_raw_fd())
            .ok()
            .map(|address| address.groups()),
        listening: raw.is_listener().unwrap_or(false),
        v6_only: (domain == Domain::IPV6)
            .then(|| raw.only_v6().ok())
            .flatten(),
        // Of a netlink socket it always answers: with the kernel (netlink(7)).
        peer: raw
            .peer_addr()
            .ok()
            .filter(|_| domain != Domain::from(nix::libc::AF_NETLINK)),
    })
}

fn identity(file: &nix::sys::stat::FileStat) -> (u64, u64) {
    let identity = super::identity::PathIdentity::of(file);
    (identity.dev, identity.ino)
}

impl Found {
    /// Whether the descriptor is what binding this endpoint would give.
    pub(super) fn fits(&self, endpoint: &Endpoint, by: By) -> bool {
        match (self, endpoint) {
            (Found::Socket(socket), _) => socket.fits(endpoint, by),
            (Found::MessageQueue(found), Endpoint::MessageQueue { name }) => {
                found.as_os_str().as_bytes() == name.as_bytes()
            }
            (Found::File { kind, .. }, Endpoint::Fifo { path }) => {
                *kind == SFlag::S_IFIFO && self.is_at(path)
            }
            (
                Found::File { writable, .. },
                Endpoint::Special {
                    path,
                    writable: wanted,
                },
            ) => writable == wanted && self.is_at(path),
            _ => false,
        }
    }

    fn is_at(&self, path: &Path) -> bool {
        let Found::File { dev, ino, .. } = self else {
            return false;
        };
        stat(path).is_ok_and(|file| identity(&file) == (*dev, *ino))
    }
}

impl FoundSocket {
    fn fits(&self, endpoint: &Endpoint, by: By) -> bool {
        // Somebody's connection is no listener, whatever its address.
        if self.peer.is_some() {
            return false;
        }
        match endpoint {
            Endpoint::Inet {
                transport,
                address,
                v6_only,
                scope,
                ..
            } => {
                let (kind, protocol) = parameters(*transport);
                self.kind == kind
                    && self.protocol == Some(protocol)
                    && self.domain == Domain::for_address(*address)
                    && self.v6_only.is_none_or(|only| only == *v6_only)
                    && self.inet().is_some_and(|found| {
                        same_address(found, *address, scope.as_deref())
                            && match address.port() {
                                0 => by == By::Name,
                                port => found.port() == port,
                            }
                    })
            }
            Endpoint::Unix { kind, name } => {
                self.domain == Domain::UNIX
                    && self.kind == socket_type(*kind)
                    && self.has_name(name, by)
            }
            Endpoint::Vsock { kind, cid, port } => {
                let address = self.address.as_ref().and_then(SockAddr::as_vsock_address);
                self.domain == Domain::VSOCK
                    && self.kind == socket_type(*kind)
                    && address.is_some_and(|(found, at)| {
                        found == *cid && (at == *port || (*port == u32::MAX && by == By::Name))
                    })
            }
            Endpoint::Netlink {
                protocol,
                group,
                mask,
                ..
            } => {
                let wanted = super::netlink::bits(*group, *mask);
                // Groups beyond 32 are not in the address (netlink(7)).
                let joined = self
                    .netlink_groups
                    .is_some_and(|all| all & wanted == wanted);
                self.domain == Domain::from(nix::libc::AF_NETLINK)
                    && self.protocol == Some(Protocol::from(*protocol))
                    && joined
            }
            _ => false,
        }
    }

    /// Whether clients reach it: it listens, or it is a bound datagram socket.
    pub(super) fn is_served(&self) -> bool {
        self.peer.is_none() && (self.listening || self.kind == Type::DGRAM)
    }

    /// The address that it has, as a listener of a configuration has it; `None` for what listend is not given.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        let address = self.address.as_ref()?;
        if self.domain == Domain::UNIX {
            let name = match address.as_pathname() {
                Some(path) if path.is_absolute() => UnixName::Path(path.to_owned()),
                Some(_) => return None,
                None => {
                    let name = address.as_abstract_namespace()?.to_owned();
                    UnixName::Abstract(String::from_utf8(name).ok()?)
                }
            };
            let kinds = [UnixKind::Stream, UnixKind::Datagram, UnixKind::SeqPacket];
            let kind = kinds
                .into_iter()
                .find(|kind| socket_type(*kind) == self.kind)?;
            return Some(Endpoint::Unix { kind, name });
        }
        let address = address.as_socket().filter(|address| address.port() != 0)?;
        let transports = [
            Transport::Tcp,
            Transport::Udp,
            Transport::Mptcp,
            Transport::Sctp,
            Transport::UdpLite,
        ];
        let transport = transports.into_iter().find(|transport| {
            let (kind, protocol) = parameters(*transport);
            self.kind == kind && self.protocol == Some(protocol)
        })?;
        let scope = match address {
            SocketAddr::V6(address) if address.scope_id() != 0 => {
                let name = nix::net::if_::if_indextoname(address.scope_id()).ok()?;
                Some(name.into_string().ok()?)
            }
            SocketAddr::V6(_) | SocketAddr::V4(_) => None,
        };
        Some(Endpoint::Inet {
            transport,
            address: SocketAddr::new(address.ip(), address.port()),
            v6_only: self.v6_only.unwrap_or(true),
            optional: false,
            scope,
        })
    }

    fn inet(&self) -> Option<SocketAddr> {
        self.address.as_ref()?.as_socket()
    }

    fn has_name(&self, wanted: &UnixName, by: By) -> bool {
        let Some(address) = &self.address else {
            return false;
        };
        match wanted {
            UnixName::Abstract(name) => address.as_abstract_namespace() == Some(name.as_bytes()),
            UnixName::Path(path) => address.as_pathname().is_some_and(|found| {
                // Another listend has bound a long path through its folder, and how that is
                // called here cannot be known.
                let through_folder = super::paths::is_long(path)
                    && found.starts_with("/proc/self/fd")
                    && found.file_name() == path.file_name();
                found == path || (through_folder && by == By::Name)
            }),
        }
    }
}

fn same_address(found: SocketAddr, wanted: SocketAddr, scope: Option<&str>) -> bool {
    let same_scope = match (found, scope) {
        (SocketAddr::V6(found), Some(scope)) => scope
            .parse()
            .or_else(|_| if_nametoindex(scope))
            .is_ok_and(|index: u32| index == found.scope_id()),
        _ => true,
    };
    found.ip() == wanted.ip() && same_scope
}

fn parameters(transport: Transport) -> (Type, Protocol) {
    match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Mptcp => (Type::STREAM, Protocol::MPTCP),
        Transport::Sctp => (Type::STREAM, Protocol::SCTP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::UdpLite => (Type::DGRAM, Protocol::UDPLITE),
    }
}

/// The descriptor in words, with an article: `a TCP socket on 127.0.0.1:80`.
impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Socket(socket) => socket.fmt(f),
            Found::MessageQueue(name) => write!(f, "the message queue {}", name.display()),
            Found::Unknown => f.write_str("a descriptor that cannot be examined"),
            Found::File { kind, .. } => f.write_str(match *kind {
                SFlag::S_IFIFO => "a pipe or FIFO",
                SFlag::S_IFREG => "a regular file",
                SFlag::S_IFDIR => "a folder",
                SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
                _ => "no socket",
            }),
        }
    }
}

impl fmt::Display for FoundSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())?;
        match &self.address {
            Some(address) => {
                if let Some(address) = address.as_socket() {
                    write!(f, " on {address}")?;
                } else if let Some(path) = address.as_pathname() {
                    write!(f, " on {}", path.display())?;
                } else if let Some(name) = address.as_abstract_namespace() {
                    write!(f, " on @{}", String::from_utf8_lossy(name))?;
                } else if let Some((cid, port)) = address.as_vsock_address() {
                    write!(f, " on vsock:{cid}:{port}")?;
                }
            }
            None => f.write_str(" without an address")?,
        }
        match (self.v6_only, self.inet()) {
            (Some(v6_only), Some(SocketAddr::V6(address))) if address.ip().is_unspecified() => {
                write!(f, " ({})", families(*address.ip(), v6_only))?;
            }
            (Some(false), _) => f.write_str(" (not IPv6 only)")?,
            _ => {}
        }
        if self.peer.is_some() {
            f.write_str(", connected")?;
        } else if self.listening {
            f.write_str(", listening")?;
        }
        Ok(())
    }
}

impl FoundSocket {
    fn words(&self) -> &'static str {
        match (self.domain, self.kind) {
            (Domain::IPV4 | Domain::IPV6, _) => match (self.protocol, self.kind) {
                (Some(Protocol::TCP), _) => "a TCP socket",
                (Some(Protocol::UDP), _) => "a UDP socket",
                (Some(Protocol::MPTCP), _) => "an MPTCP socket",
                (Some(Protocol::SCTP), _) => "an SCTP socket",
                (Some(Protocol::UDPLITE), _) => "a UDP-Lite socket",
                _ => "an internet socket of another protocol",
            },
            (Domain::UNIX, Type::STREAM) => "a unix stream socket",
            (Domain::UNIX, Type::DGRAM) => "a unix datagram socket",
            (Domain::UNIX, Type::SEQPACKET) => "a unix seqpacket socket",
            (Domain::VSOCK, _) => "a vsock",
            (domain, _) if domain == Domain::from(nix::libc::AF_NETLINK) => "a netlink socket",
            _ => "a socket of another family",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(domain: Domain, kind: Type, address: SockAddr) -> Found {
        Found::Socket(Box::new(FoundSocket {
            domain,
            kind,
            protocol: Some(Protocol::TCP),
            address: Some(address),
            netlink_groups: None,
            listening: true,
            v6_only: None,
            peer: None,
        }))
    }

    #[test]
    fn a_vsock_is_that_of_the_listener_by_kind_cid_and_port() {
        let found = socket(Domain::VSOCK, Type::STREAM, SockAddr::vsock(2, 80));
        let vsock = |kind, cid, port| Endpoint::Vsock { kind, cid, port };
        let stream = UnixKind::Stream;
        for by in [By::Name, By::Address] {
            assert!(found.fits(&vsock(stream, 2, 80), by));
            assert!(!found.fits(&vsock(UnixKind::SeqPacket, 2, 80), by));
            assert!(!found.fits(&vsock(stream, 3, 80), by));
            assert!(!found.fits(&vsock(stream, 2, 81), by));
            assert!(!found.fits(&vsock(stream, 3, u32::MAX), by));
        }
        // A port that the kernel was to choose is known by the name alone.
        assert!(found.fits(&vsock(stream, 2, u32::MAX), By::Name));
        assert!(!found.fits(&vsock(stream, 2, u32::MAX), By::Address));
        let other = socket(Domain::UNIX, Type::STREAM, SockAddr::vsock(2, 80));
        assert!(!other.fits(&vsock(stream, 2, 80), By::Name));
    }

    #[test]
    fn a_link_local_address_is_one_on_its_interface() {
        let at = |scope| SocketAddr::V6(std::net::SocketAddrV6::new(LINK_LOCAL, 80, 0, scope));
        let found = socket(Domain::IPV6, Type::STREAM, at(7).into());
        let wanted = |scope: &str| Endpoint::Inet {
            transport: Transport::Tcp,
            address: at(0),
            v6_only: true,
            optional: false,
            scope: Some(scope.to_owned()),
        };
        assert!(found.fits(&wanted("7"), By::Address));
        assert!(!found.fits(&wanted("8"), By::Address));
        assert!(!found.fits(&wanted("no-interface"), By::Address));
    }

    const LINK_LOCAL: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    #[test]
    fn a_queue_is_the_one_of_the_listener_by_its_name() {
        let found = Found::MessageQueue("/one".into());
        let queue = |name: &str| Endpoint::MessageQueue { name: name.into() };
        assert!(found.fits(&queue("/one"), By::Address));
        assert!(!found.fits(&queue("/other"), By::Name));
    }

    /// Another listend has bound it through a folder that had that number there.
    #[test]
    fn a_long_path_is_known_by_the_name_of_the_listener_and_its_own_last_part() {
        let address = SockAddr::unix("/proc/self/fd/9/sock").expect("an address");
        let found = socket(Domain::UNIX, Type::STREAM, address);
        let unix = |path: PathBuf| Endpoint::Unix {
            kind: UnixKind::Stream,
            name: UnixName::Path(path),
        };
        let folder = PathBuf::from(format!("/{}", "x".repeat(107)));
        assert!(found.fits(&unix(folder.join("sock")), By::Name));
        assert!(!found.fits(&unix(folder.join("sock")), By::Address));
        assert!(!found.fits(&unix(folder.join("other")), By::Name));
        assert!(!found.fits(&unix("/run/sock".into()), By::Name));
    }
}
