//! The sockets that hold an address, and their processes.

use super::holder;
use super::machine::{Machine, processes_with};
use super::process_info::ProcessInfo;
use super::tables::{Conflict, InetRow, State, conflict};
use crate::config::{Endpoint, UnixName};
use crate::listener::UnixSocket;
use crate::report::Holder;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Listing more holders than this explains nothing more.
const SHOWN: usize = 4;

/// The holders of an address that is in use.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// The main process of each server, without its workers.
    pub(super) holders: Vec<Holder>,
    /// Every process that has one of the sockets in the way.
    pub(super) pids: Vec<i32>,
    /// The address of each of those sockets, and the processes that have it.
    pub(super) sockets: Vec<(String, Vec<i32>)>,
    /// The causes, a line for each holder.
    pub(super) causes: Vec<String>,
    /// Whether only connections are in the way.
    pub(super) only_connections: bool,
    /// The hint where what is in the way goes away by itself.
    pub(super) again: Option<&'static str>,
}

impl Finding {
    /// The listend among the holders that runs this configuration, other than this process.
    pub(super) fn daemon_of(&self, config: &Path, own: i32) -> Option<i32> {
        let mut pids = self.pids.iter().copied().filter(|pid| *pid != own);
        pids.find(|pid| holder::held_by_listend(*pid, config))
    }
}

/// A socket that has the address or stands in its way, or the several of one unix name.
#[derive(Debug, Clone)]
pub(super) struct Occupant {
    pub(super) state: State,
    /// `false` if it is in the way only should it take IPv4 as well, which the tables do not tell.
    pub(super) certain: bool,
    /// The address that the socket is bound to.
    pub(super) local: String,
    /// The address of the peer, if the socket is connected.
    pub(super) remote: Option<SocketAddr>,
    /// The user who created it; `None` for unix sockets.
    pub(super) user: Option<String>,
    /// The process to talk to.
    pub(super) person: Option<ProcessInfo>,
    /// Every process that has it.
    pub(super) pids: Vec<i32>,
    /// The connections or bytes that wait in the socket.
    pub(super) waiting: Option<u32>,
    /// Whether it has been closed since it was found in the way.
    pub(super) has_closed: bool,
}

/// The sockets in the way of this one, servers first; `None` for kinds of which the kernel has no
/// table of who has them.
pub(super) fn occupants(endpoint: &Endpoint, machine: &Machine) -> Option<Vec<Occupant>> {
    match endpoint {
        Endpoint::Inet {
            transport,
            address,
            v6_only,
            ..
        } => {
            let rows = machine.sockets_on(*transport, address.port());
            let rows = in_the_way(rows, *address, *v6_only);
            let occupant = |(row, certainty): (&InetRow, Conflict)| {
                let pids = machine.processes_of(row.inode);
                Occupant {
                    state: row.state,
                    certain: certainty == Conflict::Certain,
                    local: row.local.to_string(),
                    remote: (row.state != State::Server).then_some(row.remote),
                    user: Some(machine.user(row.uid)),
                    person: holder::master(pids, machine).map(|(person, _)| person),
                    pids: pids.to_vec(),
                    waiting: row.waiting,
                    has_closed: matches!(row.state, State::Server | State::Connection)
                        && machine.has_closed(*transport, address.port(), row.inode),
                }
            };
            Some(rows.into_iter().map(occupant).collect())
        }
        Endpoint::Unix { name, .. } => Some(unix(name, machine).into_iter().collect()),
        Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Netlink { .. }
        | Endpoint::Vsock { .. } => None,
    }
}

/// As [`occupants`], without those that have been closed since: for what is so now, where nothing failed.
pub(super) fn standing(endpoint: &Endpoint, machine: &Machine) -> Option<Vec<Occupant>> {
    let mut occupants = occupants(endpoint, machine)?;
    occupants.retain(|occupant| !occupant.has_closed);
    Some(occupants)
}

/// The servers that are bound to this very address, as /proc/PID/fd names them.
pub(super) fn servers_at(endpoint: &Endpoint, machine: &Machine) -> Vec<u64> {
    match endpoint {
        Endpoint::Inet {
            transport, address, ..
        } => {
            let rows = machine.sockets_on(*transport, address.port()).iter();
            let servers = rows.filter(|row| row.state == State::Server && row.local == *address);
            servers.map(|row| row.inode).collect()
        }
        Endpoint::Unix { name, .. } => {
            let named = machine.unix_named(name).iter();
            let servers = named.filter(|socket| !socket.is_connected);
            servers.map(|socket| socket.inode).collect()
        }
        Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Netlink { .. }
        | Endpoint::Vsock { .. } => Vec::new(),
    }
}

/// Says who stands in the way of this socket.
pub(super) fn find(endpoint: &Endpoint, machine: &Machine) -> Finding {
    let occupants = occupants(endpoint, machine).unwrap_or_default();
    found(occupants, endpoint, machine)
}

/// As [`find`], without the sockets of this process, unless there are no others.
pub(super) fn find_others(endpoint: &Endpoint, machine: &Machine, own: i32) -> Finding {
    let mut occupants = occupants(endpoint, machine).unwrap_or_default();
    let is_other = |occupant: &Occupant| !occupant.pids.contains(&own);
    if occupants.iter().any(is_other) {
        occupants.retain(is_other);
    }
    found(occupants, endpoint, machine)
}

/// The servers that share an address with listend by SO_REUSEPORT, apart from this process and from
/// the listend that runs this configuration.
pub(super) fn sharers(
    endpoint: &Endpoint,
    machine: &Machine,
    own: i32,
    config: &Path,
) -> Vec<String> {
    let mut occupants = standing(endpoint, machine).unwrap_or_default();
    let is_ours = |pid: &i32| *pid == own || holder::held_by_listend(*pid, config);
    occupants.retain(|occupant| {
        let shares = occupant.state == State::Server && occupant.local == endpoint.to_string();
        shares && !occupant.pids.iter().any(is_ours)
    });
    let mut all: Vec<String> = Vec::new();
    for who in occupants.iter().filter_map(|one| one.who(machine)) {
        if !all.contains(&who) && all.len() < SHOWN {
            all.push(who);
        }
    }
    all
}

/// Says who has the unix socket with this inode.
pub(super) fn find_socket(endpoint: &Endpoint, inode: u32, machine: &Machine) -> Finding {
    let pids = machine.processes_of(u64::from(inode)).to_vec();
    let local = endpoint.to_string();
    found(
        vec![unix_occupant(State::Server, local, pids, machine)],
        endpoint,
        machine,
    )
}

/// Says who has the socket or FIFO at a path, or where a link there leads.
pub(super) fn find_file(endpoint: &Endpoint, path: &Path, machine: &Machine) -> Finding {
    // The target of a link counts from the folder of the link. What leads nowhere may still be somebody's name.
    let target = path.canonicalize().or_else(|_| {
        let target = std::fs::read_link(path)?;
        Ok::<_, std::io::Error>(path.parent().unwrap_or(path).join(target))
    });
    let path = target.as_deref().unwrap_or(path);
    let is_fifo = path.metadata().is_ok_and(|file| file.file_type().is_fifo());
    let occupant = unix(&UnixName::Path(path.to_owned()), machine).or_else(|| {
        let pids = if is_fifo {
            processes_with(path)
        } else {
            Vec::new()
        };
        let local = path.display().to_string();
        (!pids.is_empty()).then(|| unix_occupant(State::Server, local, pids, machine))
    });
    found(occupant.into_iter().collect(), endpoint, machine)
}

fn found(occupants: Vec<Occupant>, endpoint: &Endpoint, machine: &Machine) -> Finding {
    let mut finding = Finding::default();
    for occupant in occupants {
        finding.pids.extend_from_slice(&occupant.pids);
        let local = occupant.local.clone();
        finding.sockets.push((local, occupant.pids.clone()));
        // All are of one state: what matters most.
        finding.only_connections = occupant.state != State::Server && occupant.remote.is_some();
        finding.again = match occupant.state {
            _ if occupant.has_closed => Some("try again"),
            State::Server | State::Connection => None,
            State::Closing => Some("try again in a minute or two"),
            State::TimeWait => Some("try again in a minute"),
        };
        if let Some(cause) = cause(&occupant, endpoint, machine)
            && finding.causes.len() < SHOWN
            && !finding.causes.contains(&cause)
        {
            finding.causes.push(cause);
        }
        if let Some(person) = occupant.person
            && finding
                .holders
                .iter()
                .all(|one| one.pid != person.holder.pid)
        {
            finding.holders.push(person.holder);
        }
    }
    settle(finding, machine)
}

/// The line about an occupant; `None` where nothing is known about it.
fn cause(occupant: &Occupant, endpoint: &Endpoint, machine: &Machine) -> Option<String> {
    let who = occupant.who(machine)?;
    let local = &occupant.local;
    let line = match (occupant.state, occupant.remote) {
        _ if occupant.has_closed => format!("{local} was held by {who}"),
        _ if matches!(endpoint, Endpoint::Unix { .. }) => format!("held by {who}"),
        (State::Server, _) => format!("held by {who}, {} {local}", doing(endpoint)),
        (State::Connection, remote) => {
            let port = local.rsplit(':').next().and_then(|port| port.parse().ok());
            let outgoing = port.is_some_and(|port| machine.settings().is_ephemeral(port));
            let kind = if outgoing { "an outgoing" } else { "a" };
            let remote = shown(remote);
            if endpoint.accepts() {
                format!(
                    "{kind} connection of {who} to {remote} uses this port as its source for as \
                     long as it is open"
                )
            } else {
                format!("held by {who}, bound to {local} and connected to {remote}")
            }
        }
        (State::Closing, remote) => format!(
            "a connection to {} that its process has closed keeps the port until the peer closes it \
             too, or a minute or two at most",
            shown(remote)
        ),
        (State::TimeWait, remote) => format!(
            "a connection to {} that has ended keeps the port for a minute (TIME_WAIT)",
            shown(remote)
        ),
    };
    Some(line)
}

fn shown(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(String::new, |remote| remote.to_string())
}

/// The verb for a server at this kind of address.
pub(super) fn doing(endpoint: &Endpoint) -> &'static str {
    if endpoint.accepts() {
        "listening on"
    } else {
        "bound to"
    }
}

impl Occupant {
    /// The process, or whose it is where it cannot be seen; `None` if not even that is known.
    pub(super) fn who(&self, machine: &Machine) -> Option<String> {
        match (&self.person, &self.user) {
            (Some(person), _) => Some(named(&person.holder, self.pids.len().saturating_sub(1))),
            (None, Some(user)) if self.has_closed => {
                Some(format!("a process of user {user} that has closed it since"))
            }
            (None, Some(user)) => Some(hidden(user, machine)),
            (None, None) => None,
        }
    }
}

/// The rows that conflict: the surest only, and no connections where there is a server.
fn in_the_way(rows: &[InetRow], asked: SocketAddr, v6_only: bool) -> Vec<(&InetRow, Conflict)> {
    let rank = |row: &InetRow| -> Option<(State, Conflict)> {
        Some((row.state, conflict(asked, v6_only, row.local)?))
    };
    const ORDER: [(State, Conflict); 8] = [
        (State::Server, Conflict::Certain),
        (State::Server, Conflict::IfDualStack),
        (State::Connection, Conflict::Certain),
        (State::Closing, Conflict::Certain),
        (State::TimeWait, Conflict::Certain),
        (State::Connection, Conflict::IfDualStack),
        (State::Closing, Conflict::IfDualStack),
        (State::TimeWait, Conflict::IfDualStack),
    ];
    let conflicting: Vec<(&InetRow, (State, Conflict))> = rows
        .iter()
        .filter_map(|row| Some((row, rank(row)?)))
        .collect();
    for wanted in ORDER {
        let found: Vec<(&InetRow, Conflict)> = conflicting
            .iter()
            .filter(|(_, rank)| *rank == wanted)
            .map(|(row, (_, certainty))| (*row, *certainty))
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// The sockets that bear the name, taken together.
fn unix(name: &UnixName, machine: &Machine) -> Option<Occupant> {
    let mut rows: Vec<&UnixSocket> = machine.unix_named(name).iter().collect();
    if rows.is_empty()
        && let UnixName::Path(path) = name
    {
        // The same file under another name: a link among the folders, say.
        let alike = |row: &&UnixSocket| {
            let other = Path::new(OsStr::from_bytes(&row.name));
            other.file_name() == path.file_name() && same_file(other, path)
        };
        rows = machine.unix().values().flatten().filter(alike).collect();
    }
    // Accepted connections bear the name too, and may be another process's.
    if rows.iter().any(|row| !row.is_connected) {
        rows.retain(|row| !row.is_connected);
    }
    let connected = rows.first()?.is_connected;
    let mut pids: Vec<i32> = Vec::new();
    for row in rows {
        pids.extend_from_slice(machine.processes_of(row.inode));
    }
    pids.sort_unstable();
    pids.dedup();
    let state = if connected {
        State::Connection
    } else {
        State::Server
    };
    Some(unix_occupant(
        state,
        match name {
            UnixName::Path(path) => path.display().to_string(),
            UnixName::Abstract(name) => format!("@{name}"),
        },
        pids,
        machine,
    ))
}

fn unix_occupant(state: State, local: String, pids: Vec<i32>, machine: &Machine) -> Occupant {
    Occupant {
        state,
        certain: true,
        local,
        remote: None,
        user: None,
        person: holder::master(&pids, machine).map(|(person, _)| person),
        pids,
        waiting: None,
        has_closed: false,
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| {
        let file = std::fs::symlink_metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    };
    one.is_absolute() && of(one).is_some() && of(one) == of(other)
}

fn settle(mut finding: Finding, machine: &Machine) -> Finding {
    finding.pids.sort_unstable();
    finding.pids.dedup();
    if finding.causes.is_empty() {
        finding.causes.push(format!(
            "no process visible: {}it is in another network or process namespace, or its socket \
             is bound without listening",
            as_root(machine)
        ));
    }
    finding
}

/// `nginx (pid 123, user root, unit nginx.service) and 4 more processes`.
fn named(holder: &Holder, others: usize) -> String {
    let unit = match &holder.unit {
        Some(unit) if unit.contains("container ") => format!(", {unit}"),
        Some(unit) => format!(", unit {unit}"),
        None => String::new(),
    };
    let more = match others {
        0 => String::new(),
        1 => " and 1 more process".to_owned(),
        more => format!(" and {more} more processes"),
    };
    format!(
        "{} (pid {}, user {}{unit}){more}",
        holder.command, holder.pid, holder.user
    )
}

fn hidden(user: &str, machine: &Machine) -> String {
    let root = as_root(machine);
    format!("a process of user {user} ({root}it is {})", unseen(user))
}

/// Why not even root sees who has a socket of this user. The kernel's own sockets are root's.
pub fn unseen(user: &str) -> &'static str {
    match user {
        "root" | "0" => {
            "in another container or namespace, or the kernel itself: NFS, WireGuard or VXLAN"
        }
        _ => "in another container or namespace",
    }
}

/// Root is not told to be root.
fn as_root(machine: &Machine) -> &'static str {
    match machine.process().uid {
        0 => "",
        _ => "run as root to see it, or ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transport;

    fn row(local: &str, state: State) -> InetRow {
        InetRow {
            local: local.parse().unwrap(),
            remote: "10.0.0.1:443".parse().unwrap(),
            state,
            uid: 0,
            inode: 0,
            waiting: None,
        }
    }

    #[test]
    fn a_server_explains_more_than_its_connections() {
        let rows = [
            row("127.0.0.1:80", State::Connection),
            row("[::]:80", State::Server),
            row("127.0.0.1:80", State::Server),
            row("127.0.0.1:81", State::Server),
        ];
        let asked = "127.0.0.1:80".parse().unwrap();
        let found = |rows| in_the_way(rows, asked, true);
        assert_eq!(found(&rows), [(&rows[2], Conflict::Certain)]);
        assert_eq!(found(&rows[..2]), [(&rows[1], Conflict::IfDualStack)]);
        assert_eq!(found(&rows[..1]), [(&rows[0], Conflict::Certain)]);
    }

    // "shared with a process of user root that has closed it since".
    #[test]
    fn who_has_closed_a_socket_does_not_share_it() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let endpoint = Endpoint::Inet {
            transport: Transport::Tcp,
            address,
            v6_only: true,
            optional: false,
            scope: None,
        };
        let shared_by = |machine: &Machine| sharers(&endpoint, machine, 0, Path::new("/"));
        assert_eq!(shared_by(&Machine::new()).len(), 1);
        let machine = Machine::new();
        assert!(
            !machine
                .sockets_on(Transport::Tcp, address.port())
                .is_empty()
        );
        drop(server);
        assert_eq!(shared_by(&machine), [""; 0]);
    }

    // A relative target was looked for where listend runs, and a FIFO only under the name that was asked for.
    #[test]
    fn a_link_is_followed_from_where_it_is() {
        use std::os::unix::fs::symlink;
        let folder = std::env::temp_dir().join(format!("listend-find-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let at = |name: &str| folder.join(name);
        let _server = std::os::unix::net::UnixListener::bind(at("real.sock")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let both = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(at("fifo"))
            .unwrap();
        symlink("real.sock", at("to-socket")).unwrap();
        symlink("fifo", at("to-fifo")).unwrap();
        symlink(
            "../".to_owned() + &folder.file_name().unwrap().to_string_lossy(),
            at("here"),
        )
        .unwrap();
        let endpoint = Endpoint::Fifo { path: at("x") };
        for name in ["to-socket", "to-fifo", "here/fifo", "here/real.sock"] {
            let found = find_file(&endpoint, &at(name), &Machine::new());
            let own = std::process::id() as i32;
            assert_eq!(found.pids, [own], "{name}");
        }
        drop(both);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_socket_of_root_may_be_the_kernels_own() {
        assert!(unseen("root").contains("the kernel itself"));
        assert!(!unseen("alice").contains("kernel"));
    }

    #[test]
    fn a_holder_is_named_with_its_unit_and_its_workers() {
        let holder = Holder {
            pid: 123,
            command: "nginx".into(),
            user: "root".into(),
            unit: Some("nginx.service".into()),
            user_unit: false,
        };
        assert_eq!(
            named(&holder, 2),
            "nginx (pid 123, user root, unit nginx.service) and 2 more processes"
        );
    }
}
