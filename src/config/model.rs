//! A valid configuration, before anything is looked up on this machine.

use super::life::{
    Hook, Hooks, KillMode, NotifyAccess, OnFailure, Ready, Reload, Resolve, Restart, Rollout,
    Scaling,
};
use super::options::OptionSetting;
use super::preset::Preset;
use super::socket_kind::SocketKind;
use super::values::{Located, Rate, Template};
use crate::handoff::{self, Handoff};
use crate::launch_spec::LaunchSpec;
use crate::sandbox::Sandbox;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The configuration that all YAML files make together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The listeners, in the order of the files.
    pub listeners: Vec<Listener>,
    /// The workers, in the order of the files.
    pub workers: Vec<Worker>,
    /// The listener on which the page and the metrics are served. Listener and worker are listend's own,
    /// both called [`WEB`], or [`METRICS`] where only the metrics are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web: Option<Listener>,
    /// Codes of advice not to give, for the whole configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silence: Vec<String>,
}

/// The name of the listener of `web:`, and of its worker. It has a colon in it, which the names of
/// others cannot have.
pub const WEB: &str = "listend:web";
/// The name where `metrics:` is written.
pub const METRICS: &str = "listend:metrics";

/// What the name of the worker begins with that watches files for another, whose name follows.
pub const WATCH: &str = "listend:watch:";

impl Config {
    /// Every listener that is to be bound, listend's own last.
    pub fn every_listener(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().chain(&self.web)
    }
}

/// A named entry under `listeners:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Obeys the rules of LISTEN_FDNAMES (see sd_listen_fds(3)).
    pub name: Located<String>,
    /// The addresses under `address:`, in order; each may stand for several sockets.
    pub addresses: Vec<Located<Address>>,
    /// The length of the accept queue; `None` is the kernel's `net.core.somaxconn`.
    pub backlog: Option<Located<u32>>,
    /// `false` lets a specific or wildcard IPv6 socket take IPv4 as well.
    pub ipv6_only: bool,
    /// User that owns the unix path, FIFO or message queue.
    pub owner: Option<Box<Located<String>>>,
    /// Group of the unix path, FIFO or message queue.
    pub group: Option<Box<Located<String>>>,
    /// Permission bits of the unix path, FIFO or message queue; 0600 unless given.
    pub mode: u32,
    /// Permission bits of parent folders that are created; 0755 unless given.
    pub directory_mode: u32,
    /// User that owns parent folders that are created.
    pub directory_owner: Option<Box<Located<String>>>,
    /// Group of parent folders that are created.
    pub directory_group: Option<Box<Located<String>>>,
    /// Symbolic links to make that lead to the path.
    pub symlinks: Vec<Located<PathBuf>>,
    /// Whether what was made in the file system is removed at the end; `true` unless given.
    pub remove_on_stop: bool,
    /// Socket options, in the order of [`super::options::OPTIONS`].
    pub options: Vec<Located<OptionSetting>>,
    /// Multicast groups to join.
    pub multicast: Vec<Located<Multicast>>,
    /// The network namespace to bind in (ip-netns(8)); `None` is listend's own.
    pub network_namespace: Option<Box<Located<PathBuf>>>,
    /// Who may take it over the control socket, beside root and listend's own user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grant: Vec<Located<Grantee>>,
    /// The reaction to a failure to bind the listener.
    pub presence: Presence,
    /// Keep each flow with the generation of the worker that it was seen by (`flows: sticky`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<Box<Located<Flows>>>,
    /// Codes of advice not to give about this listener.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silence: Vec<String>,
}

/// How flows are told apart that stay with their generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flows {
    /// What a flow is known by.
    pub key: FlowKey,
    /// How long after its last packet it is over.
    pub timeout: Duration,
    /// How many are known at a time.
    pub max: u32,
}

/// What a flow is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowKey {
    /// Addresses and ports.
    Tuple,
    /// The connection id of QUIC, of so many bytes.
    Quic(u8),
}

/// Who may take a listener: `deploy`, `group:web`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Grantee {
    /// A user, by name or number.
    User(String),
    /// The members of a group, by name or number.
    Group(String),
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grantee::User(name) => f.write_str(name),
            Grantee::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl Serialize for Grantee {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The reaction to a failure to bind a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// The listener is required: without it nothing starts.
    #[default]
    Required,
    /// `optional: true`: everything else starts; it is tried again with growing delays.
    Optional,
    /// `wait_for_address:`: an address that is not there yet (EADDRNOTAVAIL) is waited for, and
    /// only the workers that take the listener wait with it. After this time it is an error, but
    /// it is still waited for.
    WaitFor(Duration),
}

/// A multicast group: `239.1.2.3` or `ff02::1%eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Multicast {
    /// The group (ip(7) IP_ADD_MEMBERSHIP, ipv6(7) IPV6_ADD_MEMBERSHIP).
    pub group: std::net::IpAddr,
    /// The interface to join on; `None` is for the kernel to choose.
    pub interface: Option<String>,
}

/// An address as written, and the sockets it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Address {
    /// The text as written in the YAML.
    pub text: String,
    /// `:80` is one dual-stack socket, `localhost:80` is two, a range of ports is one for
    /// each; everything else is one.
    pub endpoints: Vec<Endpoint>,
}

/// The address of one socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// TCP, UDP and their kin.
    Inet {
        /// The transport protocol of the socket.
        transport: Transport,
        /// Address and port; port 0 lets the kernel choose.
        address: SocketAddr,
        /// Whether an IPv6 socket takes IPv6 only (IPV6_V6ONLY, ipv6(7)); `true` for IPv4.
        v6_only: bool,
        /// Whether the machine may lack this one: the IPv6 half of `localhost:` and `:PORT`.
        optional: bool,
        /// The interface of a link-local address, as written behind `%`: a name or an index. Its
        /// index becomes the scope id when the socket is bound.
        scope: Option<String>,
    },
    /// A unix socket.
    Unix {
        /// Stream, datagram or seqpacket.
        kind: UnixKind,
        /// Path or abstract name.
        name: UnixName,
    },
    /// A FIFO, `fifo:/path` (fifo(7)).
    Fifo {
        /// An absolute path.
        path: PathBuf,
    },
    /// A POSIX message queue, `mqueue:/name` (mq_overview(7)).
    MessageQueue {
        /// The name of the queue, with the leading slash.
        name: String,
    },
    /// A device or another special file, `special:/dev/…`.
    Special {
        /// An absolute path.
        path: PathBuf,
        /// Opened for reading and writing (`writable: true`) and not only for reading.
        writable: bool,
    },
    /// A netlink socket, `netlink:kobject-uevent 1` (netlink(7)).
    Netlink {
        /// The family's name, as systemd has it.
        family: String,
        /// The protocol number for socket(2), NETLINK_….
        protocol: i32,
        /// The multicast group to join; 0 is none.
        group: u32,
        /// Or several of the first 32, a bit for each (`nl_groups`, netlink(7)); 0 is none.
        mask: u32,
    },
    /// A vsock, `vsock:CID:PORT` (vsock(7)).
    Vsock {
        /// Stream, or seqpacket (`vsock-seqpacket:`), or datagram (`vsock-dgram:`).
        kind: UnixKind,
        /// The context id; `u32::MAX` is any (VMADDR_CID_ANY).
        cid: u32,
        /// The port; `u32::MAX` lets the kernel choose.
        port: u32,
    },
}

/// The transport of an inet socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP, a stream socket.
    Tcp,
    /// UDP, a datagram socket.
    Udp,
    /// TCP over several paths, `mptcp://` (Linux 5.6).
    Mptcp,
    /// `sctp://` (sctp(7)), one-to-one style.
    Sctp,
    /// UDP with partial checksums, `udplite://` (udplite(7)).
    UdpLite,
}

/// The type of a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnixKind {
    /// A stream socket (`unix:`).
    Stream,
    /// A datagram socket (`unix-dgram:`).
    Datagram,
    /// A sequential-packet socket (`unix-seqpacket:`).
    SeqPacket,
}

/// The name of a unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnixName {
    /// An absolute path. One of more than 107 bytes (unix(7)) is bound through the descriptor of
    /// its folder.
    Path(PathBuf),
    /// A name in the abstract namespace, without the leading NUL; at most 107 bytes.
    Abstract(String),
}

impl Endpoint {
    /// Whether clients wait in an accept queue: everything but datagrams.
    pub fn accepts(&self) -> bool {
        use SocketKind::{
            Mptcp, Sctp, Tcp, UnixSeqPacket, UnixStream, VsockSeqPacket, VsockStream,
        };
        matches!(
            self.kind(),
            Tcp | Mptcp | Sctp | UnixStream | UnixSeqPacket | VsockStream | VsockSeqPacket
        )
    }

    /// Whether the address belongs to a network namespace; a path or a message queue does not.
    pub fn is_in_network_namespace(&self) -> bool {
        match self {
            Endpoint::Inet { .. } | Endpoint::Netlink { .. } => true,
            Endpoint::Unix { name, .. } => matches!(name, UnixName::Abstract(_)),
            Endpoint::Fifo { .. }
            | Endpoint::MessageQueue { .. }
            | Endpoint::Special { .. }
            | Endpoint::Vsock { .. } => false,
        }
    }

    /// The address family of a socket (address_families(7)).
    pub fn family(&self) -> Option<i32> {
        use nix::libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, AF_VSOCK};
        match self {
            Endpoint::Inet { address, .. } if address.is_ipv4() => Some(AF_INET),
            Endpoint::Inet { .. } => Some(AF_INET6),
            Endpoint::Unix { .. } => Some(AF_UNIX),
            Endpoint::Vsock { .. } => Some(AF_VSOCK),
            Endpoint::Netlink { .. } => Some(AF_NETLINK),
            Endpoint::Fifo { .. } | Endpoint::MessageQueue { .. } | Endpoint::Special { .. } => {
                None
            }
        }
    }

    /// The kind of socket, or other descriptor.
    pub fn kind(&self) -> SocketKind {
        match self {
            Endpoint::Inet { transport, .. } => match transport {
                Transport::Tcp => SocketKind::Tcp,
                Transport::Udp => SocketKind::Udp,
                Transport::Mptcp => SocketKind::Mptcp,
                Transport::Sctp => SocketKind::Sctp,
                Transport::UdpLite => SocketKind::UdpLite,
            },
            Endpoint::Unix { kind, .. } => match kind {
                UnixKind::Stream => SocketKind::UnixStream,
                UnixKind::Datagram => SocketKind::UnixDatagram,
                UnixKind::SeqPacket => SocketKind::UnixSeqPacket,
            },
            Endpoint::Vsock { kind, .. } => match kind {
                UnixKind::Stream => SocketKind::VsockStream,
                UnixKind::Datagram => SocketKind::VsockDatagram,
                UnixKind::SeqPacket => SocketKind::VsockSeqPacket,
            },
            Endpoint::Fifo { .. } => SocketKind::Fifo,
            Endpoint::MessageQueue { .. } => SocketKind::MessageQueue,
            Endpoint::Special { .. } => SocketKind::Special,
            Endpoint::Netlink { .. } => SocketKind::Netlink,
        }
    }

    /// What the address as it is written does not show, beside the kind: the families of an IPv6 socket, and
    /// whether a special file is written to.
    pub fn detail(&self) -> Option<&'static str> {
        match self {
            Endpoint::Inet {
                address: SocketAddr::V6(address),
                v6_only,
                ..
            } => Some(families(*address.ip(), *v6_only)),
            Endpoint::Special { writable: true, .. } => Some("writable"),
            Endpoint::Special { .. } => Some("read-only"),
            _ => None,
        }
    }

    /// The socket as a handoff sees it; `fd` is its number in listend.
    pub fn as_socket<'a>(&'a self, listener: &'a str, fd: i32) -> handoff::Socket<'a> {
        handoff::Socket {
            listener,
            fd,
            scheme: self.kind().word(),
            name: match self {
                Endpoint::Inet { address, .. } => handoff::Name::Inet(*address),
                Endpoint::Unix {
                    name: UnixName::Path(path),
                    ..
                } => handoff::Name::Path(path),
                Endpoint::Unix {
                    name: UnixName::Abstract(name),
                    ..
                } => handoff::Name::Abstract(name),
                Endpoint::Fifo { .. }
                | Endpoint::MessageQueue { .. }
                | Endpoint::Special { .. }
                | Endpoint::Netlink { .. }
                | Endpoint::Vsock { .. } => handoff::Name::Other,
            },
        }
    }

    /// The port, of an address of the internet.
    pub fn port(&self) -> Option<u16> {
        match self {
            Endpoint::Inet { address, .. } => Some(address.port()),
            _ => None,
        }
    }

    /// The path that listend makes in the file system: a unix socket's or a FIFO's.
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Endpoint::Unix {
                name: UnixName::Path(path),
                ..
            }
            | Endpoint::Fifo { path } => Some(path),
            Endpoint::Unix { .. }
            | Endpoint::Inet { .. }
            | Endpoint::MessageQueue { .. }
            | Endpoint::Special { .. }
            | Endpoint::Netlink { .. }
            | Endpoint::Vsock { .. } => None,
        }
    }
}

/// The words for the families that an IPv6 socket accepts (IPV6_V6ONLY, ipv6(7)).
pub const fn families(address: Ipv6Addr, v6_only: bool) -> &'static str {
    match v6_only {
        true => "IPv6 only",
        false if address.is_unspecified() => "IPv6 and IPv4",
        false => "not IPv6 only",
    }
}

/// The bare address, as `{address:…}` gives it: `127.0.0.1:80`, `[::1]:80`, `/run/x.sock`, `@name`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As written: the scope id is known only when the socket is bound.
            Endpoint::Inet {
                address: SocketAddr::V6(address),
                scope: Some(scope),
                ..
            } => write!(f, "[{}%{scope}]:{}", address.ip(), address.port()),
            Endpoint::Inet { address, .. } => write!(f, "{address}"),
            Endpoint::Fifo { path } | Endpoint::Special { path, .. } => {
                write!(f, "{}", path.display())
            }
            Endpoint::MessageQueue { name } => write!(f, "{name}"),
            Endpoint::Netlink { family, mask, .. } if *mask != 0 => write!(f, "{family} {mask:#x}"),
            Endpoint::Netlink { family, group, .. } => write!(f, "{family} {group}"),
            Endpoint::Vsock { cid, port, .. } => match *cid {
                u32::MAX => write!(f, "vsock::{port}"),
                cid => write!(f, "vsock:{cid}:{port}"),
            },
            Endpoint::Unix {
                name: UnixName::Path(path),
                ..
            } => write!(f, "{}", path.display()),
            Endpoint::Unix {
                name: UnixName::Abstract(name),
                ..
            } => write!(f, "@{name}"),
        }
    }
}

/// A named entry under `workers:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Worker {
    /// The name of the worker; the rules are those of a listener's.
    pub name: Located<String>,
    /// The server that it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Located<&'static Preset>>,
    /// The words of the command; empty only with `forward`.
    pub command: Vec<Located<Template>>,
    /// The `argv[0]` of the program; the first word of the command unless given.
    pub argv0: Option<Located<Template>>,
    /// Whether `$NAME` and `${NAME}` in commands stand for variables.
    pub expand_environment: bool,
    /// The server that connections are passed on to; the command is its command then, and may be empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<Forward>,
    /// The listeners it gets, by name, in the order of their descriptors.
    pub listeners: Vec<Located<String>>,
    /// The number of instances.
    pub instances: u32,
    /// How that number follows the queues; then it is the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// How clients reach its instances; the place is that of the key.
    pub distribute: Located<Distribute>,
    /// The protocols by which the descriptors are passed to it, `handoff:`.
    pub handoff: Located<Handoff>,
    /// Whether LISTEN_PID is set.
    pub listen_pid: bool,
    /// The event that starts the worker.
    pub activation: Located<Activation>,
    /// `activation: on-demand`: how often it may be started; `None` is as often as need be.
    pub trigger_limit: Option<Rate>,
    /// `activation: on-demand`: how long nobody may use it before it is stopped; `None` is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// A file that keeps it running while it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_unless: Option<PathBuf>,
    /// `activation: per-connection`: how many, and how fast.
    pub connections: ConnectionLimits,
    /// O_NONBLOCK on its listeners; `None` is what the handoff has by default.
    pub nonblocking: Option<Located<bool>>,
    /// User to run as.
    pub user: Option<Located<String>>,
    /// Group to run as; the user's own unless given.
    pub group: Option<Located<String>>,
    /// Supplementary groups; the user's own unless given.
    pub supplementary_groups: Option<Vec<Located<String>>>,
    /// A folder of its own below /run, relative to that.
    pub runtime_directory: Option<Located<PathBuf>>,
    /// The permission bits of the runtime directory.
    pub runtime_directory_mode: u32,
    /// Whether the runtime directory is kept when the worker stops.
    pub runtime_directory_preserve: bool,
    /// Variables to set, in order.
    pub environment: Vec<(String, Located<Template>)>,
    /// Files of variables, in order; `environment` wins over them.
    pub environment_files: Vec<EnvironmentFile>,
    /// The settings of its process, but for whom it runs as.
    #[serde(flatten)]
    pub launch: LaunchSpec<Located<Template>>,
    /// When symbolic links to its files are followed.
    pub resolve: Resolve,
    /// What it is kept from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Located<Sandbox>>,
    /// The destination of standard output and error.
    pub output: Output,
    /// The settings for restarts.
    pub restart: Restart,
    /// The number of the signal that asks the worker to stop.
    pub stop_signal: i32,
    /// The processes that get the stop signal.
    pub kill_mode: KillMode,
    /// The time between the stop signal and SIGKILL; `None` waits for ever.
    pub stop_timeout: Option<Duration>,
    /// The condition for an instance to count as ready.
    pub ready: Located<Ready>,
    /// The longest time from the start until the instance is ready; `None` waits for ever.
    pub start_timeout: Option<Duration>,
    /// The longest time between two signs of life (`WATCHDOG=1`); `None` does not ask for any.
    pub watchdog: Option<Duration>,
    /// The processes that may send notifications (sd_notify(3)); `None` is [`NotifyAccess::Main`]
    /// for a worker that uses notifications at all.
    pub notify_access: Option<NotifyAccess>,
    /// The number of descriptors that an instance may store for its successor (`FDSTORE=1`).
    pub fd_store: u32,
    /// The settings of a rollout.
    pub rollout: Rollout,
    /// The means that makes an instance read its own configuration again.
    pub reload: Option<Reload>,
    /// Files and directories: when one changes, the worker is restarted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<Located<PathBuf>>,
    /// The treatment of the listeners when all instances have failed.
    pub on_failure: OnFailure,
    /// Commands around an instance's life.
    pub hooks: Hooks,
    /// Codes of advice not to give about this worker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silence: Vec<String>,
}

impl Worker {
    /// The commands that run beside the program: hooks, and the command of a reload.
    pub fn commands(&self) -> impl Iterator<Item = &Hook> {
        let Hooks {
            before_start,
            after_ready,
            after_stop,
        } = &self.hooks;
        let reload = match &self.reload {
            Some(Reload::Command(hook)) => Some(hook),
            Some(Reload::Signal(_)) | None => None,
        };
        let hooks = [before_start, after_ready, after_stop]
            .into_iter()
            .flatten();
        hooks.chain(reload)
    }
}

/// The server of a worker that cannot inherit a socket, `forward:`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forward {
    /// The address of the server.
    pub to: Located<Template>,
    /// The longest time that a client waits for a server that cannot be reached.
    pub connect_timeout: Duration,
    /// The longest time that a connection may be silent in both directions; `None` is unlimited.
    pub idle: Option<Duration>,
    /// The silence after which TCP checks whether the other end still exists; `None` is never.
    pub keep_alive: Option<Duration>,
    /// How the server is told who the client is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The longest time that connections may take to end before the server is told to stop.
    pub drain: Duration,
}

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The event that starts a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The start of listend.
    Eager,
    /// The first client, and after its end the next.
    OnDemand,
    /// `per-connection`: listend accepts, and starts a process for each connection.
    PerConnection,
}

/// How clients reach the instances of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribute {
    /// All instances accept from one queue.
    #[default]
    Shared,
    /// Each instance has a queue of its own, the shard with its number (SO_REUSEPORT).
    Shards,
}

/// The treatment of clients beyond `max_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// Further clients wait in the accept queue.
    Wait,
    /// Further connections are accepted and closed at once.
    Close,
}

/// The limits of a per-connection worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionLimits {
    /// The number of connections at a time; `None` is unlimited.
    pub max: Option<u32>,
    /// The number of connections at a time of one address or user; `None` is unlimited.
    pub max_per_source: Option<u32>,
    /// The treatment of clients beyond `max`.
    pub overflow: Overflow,
    /// The number of connections accepted in an interval; `None` is unlimited.
    pub rate: Option<Rate>,
    /// The longest time for one connection; `None` is unlimited.
    pub timeout: Option<Duration>,
}

impl ConnectionLimits {
    /// No limit at all.
    pub const NONE: ConnectionLimits = ConnectionLimits {
        max: None,
        max_per_source: None,
        overflow: Overflow::Wait,
        rate: None,
        timeout: None,
    };
}

/// A file of variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvironmentFile {
    /// The path of the file, absolute, or relative to the directory of the YAML file.
    pub path: Located<PathBuf>,
    /// Written with a leading `-`: no error when it does not exist.
    pub optional: bool,
}

/// The destination of standard output and error of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Output {
    /// The standard output and error of listend.
    #[default]
    Inherit,
    /// No destination: the output is discarded.
    Null,
    /// A file, appended to, and created with mode 0640 where it does not exist.
    File(Template),
    /// The standard output of listend, each line with the name of its instance in front.
    Tag,
    /// The standard output of listend, each line as a JSON object.
    TagJson,
    /// The journal, over a connection of its own (sd_journal_stream_fd(3)).
    Journal,
}

impl Output {
    /// Whether listend reads it, from a pipe.
    pub fn is_read(&self) -> bool {
        match self {
            Output::Tag | Output::TagJson | Output::File(_) => true,
            Output::Inherit | Output::Null | Output::Journal => false,
        }
    }
}
