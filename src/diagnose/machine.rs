//! The state of this machine, read lazily and at most once.

use super::kernel::Kernel;
use super::orphan::Orphan;
use super::ports::PortSet;
use super::process_info::{ProcessInfo, process_info};
use super::tables::{self, InetRow};
use crate::config::{Transport, UnixName};
use crate::host::somaxconn;
use crate::listener::{UnixSocket, in_network_namespace, unix_sockets};
use crate::plan::{ListenerPlan, Plan};
use nix::unistd::{Gid, Group, Uid, User};
use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// CAP_NET_BIND_SERVICE of capabilities(7).
const CAP_NET_BIND_SERVICE: u32 = 10;

/// A snapshot of the machine. Facts that were read stay as they were: make a new one for a new run.
#[derive(Debug, Default)]
pub struct Machine {
    /// The network namespace whose settings, addresses and sockets these are; `None` is listend's own.
    namespace: Option<PathBuf>,
    /// The view of another namespace. That has the next, and so on: there are few.
    other: OnceCell<Box<Machine>>,
    settings: OnceCell<Settings>,
    interfaces: OnceCell<Vec<Interface>>,
    process: OnceCell<Process>,
    tcp: OnceCell<HashMap<u16, Vec<InetRow>>>,
    udp: OnceCell<HashMap<u16, Vec<InetRow>>>,
    udplite: OnceCell<HashMap<u16, Vec<InetRow>>>,
    sctp: OnceCell<HashMap<u16, Vec<InetRow>>>,
    kernel: OnceCell<Kernel>,
    unix: OnceCell<HashMap<Vec<u8>, Vec<UnixSocket>>>,
    sockets: OnceCell<HashMap<u64, Vec<i32>>>,
    /// A second look at the tables of sockets, after the processes were looked through.
    later: OnceCell<Box<Machine>>,
    planned: OnceCell<usize>,
    users: RefCell<HashMap<u32, String>>,
    people: RefCell<HashMap<i32, Option<ProcessInfo>>>,
    orphans: RefCell<HashMap<i32, Option<Orphan>>>,
}

/// The kernel settings that matter to binding; `None` or empty where they cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `net.ipv4.ip_local_port_range`: what outgoing connections get, both ends included.
    pub local_ports: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`, as the kernel writes it.
    pub reserved_ports: String,
    /// `net.ipv4.ip_unprivileged_port_start`: ports below it need a privilege.
    pub unprivileged_start: u16,
    /// `net.core.somaxconn`: the longest accept queue.
    pub somaxconn: Option<u32>,
}

impl Settings {
    fn read() -> Settings {
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap_or_default()
        };
        let range = read("ipv4/ip_local_port_range");
        let mut ends = range.split_whitespace().map(str::parse);
        Settings {
            local_ports: match (ends.next(), ends.next()) {
                (Some(Ok(low)), Some(Ok(high))) => Some((low, high)),
                _ => None,
            },
            reserved_ports: read("ipv4/ip_local_reserved_ports").trim().to_owned(),
            // 1024 where the kernel is older than the setting (4.11).
            unprivileged_start: read("ipv4/ip_unprivileged_port_start")
                .trim()
                .parse()
                .unwrap_or(1024),
            somaxconn: somaxconn(),
        }
    }

    /// Whether binding the port needs a privilege.
    pub(super) fn is_privileged(&self, port: u16) -> bool {
        port != 0 && port < self.unprivileged_start
    }

    /// Whether the kernel may give the port to an outgoing connection.
    pub(super) fn is_ephemeral(&self, port: u16) -> bool {
        self.local_ports
            .is_some_and(|(low, high)| (low..=high).contains(&port))
    }

    /// The reserved ports as a set.
    pub(super) fn reserved(&self) -> PortSet {
        PortSet::parse(&self.reserved_ports)
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The name, such as `eth0`.
    pub name: String,
    /// An address of the interface.
    pub address: IpAddr,
    /// The length of the network prefix, in bits.
    pub prefix: u8,
}

impl Interface {
    /// The network it is in: `192.0.2.0/24`.
    pub(super) fn network(&self) -> String {
        let prefix = u32::from(self.prefix);
        let network: IpAddr = match self.address {
            IpAddr::V4(four) => {
                let mask = u32::MAX
                    .checked_shl(32_u32.saturating_sub(prefix))
                    .unwrap_or(0);
                Ipv4Addr::from_bits(four.to_bits() & mask).into()
            }
            IpAddr::V6(six) => {
                let mask = u128::MAX
                    .checked_shl(128_u32.saturating_sub(prefix))
                    .unwrap_or(0);
                Ipv6Addr::from_bits(six.to_bits() & mask).into()
            }
        };
        format!("{network}/{prefix}")
    }
}

/// The number of bits set in a netmask.
fn prefix(mask: Option<nix::sys::socket::SockaddrStorage>) -> Option<u8> {
    let mask = mask?;
    let bits = match (mask.as_sockaddr_in(), mask.as_sockaddr_in6()) {
        (Some(four), _) => four.ip().to_bits().count_ones(),
        (_, Some(six)) => six.ip().to_bits().count_ones(),
        _ => return None,
    };
    u8::try_from(bits).ok()
}

/// The privileges of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// The effective user id.
    pub uid: u32,
    /// Whether the process may bind privileged ports (CAP_NET_BIND_SERVICE, capabilities(7)).
    pub may_bind_low_ports: bool,
}

impl Process {
    fn read() -> Process {
        let effective = procfs::process::Process::myself()
            .and_then(|me| me.status())
            .map_or(0, |status| status.capeff);
        Process {
            uid: Uid::effective().as_raw(),
            may_bind_low_ports: effective >> CAP_NET_BIND_SERVICE & 1 == 1,
        }
    }
}

impl Machine {
    /// A snapshot in which nothing is read yet.
    pub fn new() -> Machine {
        Machine::default()
    }

    /// The machine as a listener has it, which may be in another network namespace. One that cannot be
    /// entered has no addresses and no sockets.
    pub fn of(&self, listener: &ListenerPlan) -> &Machine {
        let Some(path) = &listener.settings.network_namespace else {
            return self;
        };
        let mut machine = self;
        while machine.namespace.as_ref() != Some(path) {
            machine = machine.other.get_or_init(|| {
                Box::new(Machine {
                    namespace: Some(path.clone()),
                    ..Machine::default()
                })
            });
        }
        machine
    }

    /// The sockets of the plan that is bound here, counted once however many cannot be.
    pub(super) fn planned_sockets(&self, plan: &Plan) -> usize {
        let sockets = || plan.listeners().map(|(_, one)| one.sockets.len()).sum();
        *self.planned.get_or_init(sockets)
    }

    /// The words for the place of this snapshot: `this machine`, or the namespace.
    pub(super) fn place(&self) -> String {
        match &self.namespace {
            None => "this machine".to_owned(),
            Some(path) => format!("network namespace {}", path.display()),
        }
    }

    /// The command that sets one of the kernel's network settings there.
    pub(super) fn sysctl(&self) -> String {
        match &self.namespace {
            None => "sysctl -w".to_owned(),
            Some(path) => format!("nsenter --net={} sysctl -w", path.display()),
        }
    }

    /// Reads something that each network namespace has.
    fn read<T: Default>(&self, read: impl FnOnce() -> T) -> T {
        in_network_namespace(self.namespace.as_deref(), read).unwrap_or_default()
    }

    /// A machine of which these facts are given instead of read, for tests.
    pub fn with(settings: Settings, interfaces: Vec<Interface>, process: Process) -> Machine {
        Machine {
            settings: OnceCell::from(settings),
            interfaces: OnceCell::from(interfaces),
            process: OnceCell::from(process),
            ..Machine::default()
        }
    }

    /// The kernel settings.
    pub fn settings(&self) -> &Settings {
        self.settings.get_or_init(|| self.read(Settings::read))
    }

    /// The addresses of all interfaces (getifaddrs(3)); empty where they cannot be read.
    pub fn interfaces(&self) -> &[Interface] {
        self.interfaces.get_or_init(|| self.read(read_interfaces))
    }

    /// The privileges of this process.
    pub fn process(&self) -> &Process {
        self.process.get_or_init(Process::read)
    }

    /// The kernel that runs.
    pub(super) fn kernel(&self) -> &Kernel {
        self.kernel.get_or_init(|| self.read(Kernel::read))
    }

    /// The name of a user, or the number where it has none.
    pub fn user(&self, uid: u32) -> String {
        self.users
            .borrow_mut()
            .entry(uid)
            .or_insert_with(|| match User::from_uid(Uid::from_raw(uid)) {
                Ok(Some(user)) => user.name,
                _ => uid.to_string(),
            })
            .clone()
    }

    /// The name of a group, or the number where it has none.
    pub(super) fn group(&self, gid: u32) -> String {
        match Group::from_gid(Gid::from_raw(gid)) {
            Ok(Some(group)) => group.name,
            _ => gid.to_string(),
        }
    }

    /// Owner and mode of a file in words: `belongs to root:root with mode 0755`.
    pub(super) fn owner(&self, file: &Metadata) -> String {
        format!(
            "belongs to {}:{} with mode {:04o}",
            self.user(file.uid()),
            self.group(file.gid()),
            file.mode() & 0o7777
        )
    }

    /// The sockets of a transport whose local port is this one: of 10,000 listeners that are
    /// all in use, each looks at its own rows only.
    pub(super) fn sockets_on(&self, transport: Transport, port: u16) -> &[InetRow] {
        let by_port = match transport {
            // MPTCP's ports are TCP's.
            Transport::Tcp | Transport::Mptcp => {
                self.tcp.get_or_init(|| by_port(self.read(tables::tcp)))
            }
            Transport::Udp => self.udp.get_or_init(|| by_port(self.read(tables::udp))),
            Transport::UdpLite => self
                .udplite
                .get_or_init(|| by_port(self.read(tables::udplite))),
            Transport::Sctp => self.sctp.get_or_init(|| by_port(self.read(tables::sctp))),
        };
        by_port.get(&port).map_or(&[], Vec::as_slice)
    }

    /// Whether a socket of this port was closed while the processes were looked through, so that none of
    /// them was seen to have it.
    pub(super) fn has_closed(&self, transport: Transport, port: u16, inode: u64) -> bool {
        if !self.processes_of(inode).is_empty() {
            return false;
        }
        let later = self.later.get_or_init(|| {
            Box::new(Machine {
                namespace: self.namespace.clone(),
                ..Machine::default()
            })
        });
        let mut rows = later.sockets_on(transport, port).iter();
        rows.all(|row| row.inode != inode)
    }

    /// The addresses of this port where MPTCP sockets listen.
    pub(super) fn mptcp_listeners(&self, port: u16) -> Vec<IpAddr> {
        self.read(|| crate::listener::mptcp_listeners(port))
    }

    /// The identity of a process; `None` if it has ended.
    pub(super) fn person(&self, pid: i32) -> Option<ProcessInfo> {
        if let Some(known) = self.people.borrow().get(&pid) {
            return known.clone();
        }
        let person = process_info(pid, |uid| self.user(uid));
        self.people.borrow_mut().insert(pid, person.clone());
        person
    }

    /// The process, if it was left behind by a listend that has ended.
    pub(super) fn orphan(&self, pid: i32) -> Option<Orphan> {
        let mut known = self.orphans.borrow_mut();
        known.entry(pid).or_insert_with(|| Orphan::of(pid)).clone()
    }

    /// The unix sockets that bear this name.
    pub(super) fn unix_named(&self, name: &UnixName) -> &[UnixSocket] {
        let name = match name {
            UnixName::Path(path) => path.as_os_str().as_bytes().to_vec(),
            UnixName::Abstract(name) => [b"\0", name.as_bytes()].concat(),
        };
        self.unix().get(&name).map_or(&[], Vec::as_slice)
    }

    /// All unix sockets by name.
    pub(super) fn unix(&self) -> &HashMap<Vec<u8>, Vec<UnixSocket>> {
        self.unix.get_or_init(|| {
            let mut by_name: HashMap<Vec<u8>, Vec<UnixSocket>> = HashMap::new();
            for socket in self.read(unix_sockets) {
                by_name.entry(socket.name.clone()).or_default().push(socket);
            }
            by_name
        })
    }

    /// The processes that have a socket open, of those this process may look into.
    pub(super) fn processes_of(&self, inode: u64) -> &[i32] {
        self.sockets
            .get_or_init(read_sockets)
            .get(&inode)
            .map_or(&[], Vec::as_slice)
    }
}

fn read_interfaces() -> Vec<Interface> {
    let Ok(all) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    all.filter_map(|entry| {
        let address = entry.address?;
        let address = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(four), _) => IpAddr::V4(four.ip()),
            (_, Some(six)) => IpAddr::V6(six.ip()),
            _ => return None,
        };
        let whole = if address.is_ipv4() { 32 } else { 128 };
        Some(Interface {
            name: entry.interface_name,
            address,
            prefix: prefix(entry.netmask).unwrap_or(whole),
        })
    })
    .collect()
}

fn by_port(rows: Vec<InetRow>) -> HashMap<u16, Vec<InetRow>> {
    let mut by_port: HashMap<u16, Vec<InetRow>> = HashMap::new();
    for row in rows {
        by_port.entry(row.local.port()).or_default().push(row);
    }
    by_port
}

/// Socket inode → processes.
fn read_sockets() -> HashMap<u64, Vec<i32>> {
    let mut owners: HashMap<u64, Vec<i32>> = HashMap::new();
    let mut seen = HashSet::new();
    for (pid, links) in descriptors() {
        seen.clear();
        for inode in links.filter_map(|target| socket_inode(&target)) {
            if seen.insert(inode) {
                owners.entry(inode).or_default().push(pid);
            }
        }
    }
    owners
}

/// The processes that have the file at a path open, of those this process may look into.
pub(super) fn processes_with(path: &Path) -> Vec<i32> {
    let with_it = descriptors().filter_map(|(pid, mut links)| {
        let has_it = links.any(|target| target == path);
        has_it.then_some(pid)
    });
    with_it.collect()
}

/// The processes, and what their descriptors are, by the links in /proc/PID/fd. Only the link's text is read:
/// going through procfs would open each descriptor of each process.
fn descriptors() -> impl Iterator<Item = (i32, impl Iterator<Item = PathBuf>)> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse::<i32>().ok()?;
        // Not ours to look into, or gone: others may still be.
        let links = std::fs::read_dir(process.path().join("fd")).ok()?;
        let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        Some((pid, targets))
    })
}

/// The inode in the target of a descriptor's link: `socket:[1234]` → 1234.
fn socket_inode(target: &Path) -> Option<u64> {
    let inside = target.to_str()?.strip_prefix("socket:[")?;
    inside.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // It was said to be "in another container or namespace".
    #[test]
    fn a_socket_that_has_been_closed_meanwhile_is_told_from_one_that_is_hidden() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = server.local_addr().expect("an address").port();
        let machine = || {
            let machine = Machine::new();
            let rows = machine.sockets_on(Transport::Tcp, port);
            let inode = rows.first().expect("it listens").inode;
            (machine, inode)
        };
        let (seen, inode) = machine();
        assert!(!seen.has_closed(Transport::Tcp, port, inode));
        let (hidden, _) = machine();
        hidden.sockets.set(HashMap::new()).expect("not read yet");
        assert!(!hidden.has_closed(Transport::Tcp, port, inode));
        let (closed, _) = machine();
        drop(server);
        assert!(closed.has_closed(Transport::Tcp, port, inode));
    }

    #[test]
    fn only_links_to_sockets_count() {
        assert_eq!(socket_inode(Path::new("socket:[77]")), Some(77));
        assert_eq!(socket_inode(Path::new("pipe:[77]")), None);
        assert_eq!(socket_inode(Path::new("/tmp/socket:[77]")), None);
    }
}
