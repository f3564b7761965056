//! Who has an address.

use super::holder;
use super::machine::Machine;
use super::tables::{Conflict, InetRow, State, UnixRow, conflict};
use crate::config::{Endpoint, Transport, UnixName};
use crate::report::Holder;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Listing more holders than this explains nothing more.
const SHOWN: usize = 4;

/// What was found out about an address that is in use.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// Who to talk to about it.
    pub(super) holder: Option<Holder>,
    /// Every process that has one of the sockets in the way.
    pub(super) pids: Vec<i32>,
    /// One line for each.
    pub(super) causes: Vec<String>,
    /// Whether only connections are in the way, which end by themselves.
    pub(super) only_connections: bool,
}

/// Looks for the sockets in the way of this one, servers first.
pub(super) fn find(endpoint: &Endpoint, machine: &Machine) -> Finding {
    match endpoint {
        Endpoint::Inet {
            transport,
            address,
            v6_only,
            ..
        } => {
            let rows = machine.sockets_on(*transport, address.port());
            inet(*transport, &in_the_way(rows, *address, *v6_only), machine)
        }
        Endpoint::Unix { name, .. } => unix(name, machine),
        _ => Finding::default(),
    }
}

/// The rows that conflict: the surest only, and no connections where there is a server.
fn in_the_way(rows: &[InetRow], asked: SocketAddr, v6_only: bool) -> Vec<&InetRow> {
    let rank = |row: &InetRow| -> Option<(State, Conflict)> {
        Some((row.state, conflict(asked, v6_only, row.local)?))
    };
    const ORDER: [(State, Conflict); 6] = [
        (State::Server, Conflict::Certain),
        (State::Server, Conflict::IfDualStack),
        (State::Connection, Conflict::Certain),
        (State::TimeWait, Conflict::Certain),
        (State::Connection, Conflict::IfDualStack),
        (State::TimeWait, Conflict::IfDualStack),
    ];
    let conflicting: Vec<(&InetRow, (State, Conflict))> = rows
        .iter()
        .filter_map(|row| Some((row, rank(row)?)))
        .collect();
    for wanted in ORDER {
        let found: Vec<&InetRow> = conflicting
            .iter()
            .filter(|(_, rank)| *rank == wanted)
            .map(|(row, _)| *row)
            .collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn inet(transport: Transport, rows: &[&InetRow], machine: &Machine) -> Finding {
    let mut finding = Finding::default();
    for row in rows {
        let pids = machine.processes_of(row.inode);
        finding.pids.extend_from_slice(pids);
        let person = holder::master(pids, machine);
        let who = match &person {
            Some((holder, others)) => named(holder, *others),
            None => hidden(&machine.user(row.uid)),
        };
        let cause = match row.state {
            State::Server => {
                let doing = match transport {
                    Transport::Tcp | Transport::Mptcp | Transport::Sctp => "listening on",
                    Transport::Udp | Transport::UdpLite => "bound to",
                };
                format!("held by {who}, {doing} {}", row.local)
            }
            State::Connection => {
                finding.only_connections = true;
                let outgoing = machine.settings().is_ephemeral(row.local.port());
                let kind = if outgoing { "an outgoing" } else { "a" };
                format!(
                    "{kind} connection of {who} to {} uses this port as its source; it ends by \
                     itself",
                    row.remote
                )
            }
            State::TimeWait => {
                finding.only_connections = true;
                format!(
                    "a connection to {} that has ended keeps the port for a minute (TIME_WAIT)",
                    row.remote
                )
            }
        };
        if finding.causes.len() < SHOWN && !finding.causes.contains(&cause) {
            finding.causes.push(cause);
        }
        if finding.holder.is_none() {
            finding.holder = person.map(|(holder, _)| holder);
        }
    }
    settle(finding)
}

fn unix(name: &UnixName, machine: &Machine) -> Finding {
    let text = match name {
        UnixName::Path(path) => path.clone(),
        UnixName::Abstract(name) => format!("@{name}").into(),
    };
    let mut rows: Vec<&UnixRow> = machine.unix_named(text.as_os_str()).iter().collect();
    if rows.is_empty()
        && let UnixName::Path(path) = name
    {
        // The same file under another name: a link among the folders, say.
        let alike =
            |row: &&UnixRow| row.name.file_name() == path.file_name() && same_file(&row.name, path);
        rows = machine.unix().values().flatten().filter(alike).collect();
    }
    // Accepted connections bear the name too, and may be another process's.
    if rows.iter().any(|row| !row.connected) {
        rows.retain(|row| !row.connected);
    }
    let mut finding = Finding::default();
    for row in rows {
        finding
            .pids
            .extend_from_slice(machine.processes_of(row.inode));
    }
    finding.pids.sort_unstable();
    finding.pids.dedup();
    if let Some((holder, others)) = holder::master(&finding.pids, machine) {
        finding
            .causes
            .push(format!("held by {}", named(&holder, others)));
        finding.holder = Some(holder);
    }
    settle(finding)
}

fn same_file(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| {
        let file = std::fs::symlink_metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    };
    one.is_absolute() && of(one).is_some() && of(one) == of(other)
}

fn settle(mut finding: Finding) -> Finding {
    finding.pids.sort_unstable();
    finding.pids.dedup();
    if finding.causes.is_empty() {
        finding.causes.push(
            "no process visible: run as root to see it, or it is in another network or process \
             namespace, or its socket is bound without listening"
                .to_owned(),
        );
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

fn hidden(user: &str) -> String {
    format!(
        "a process of user {user} (run as root to see it, or it is in another container or \
         namespace)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(local: &str, state: State) -> InetRow {
        InetRow {
            local: local.parse().unwrap(),
            remote: "10.0.0.1:443".parse().unwrap(),
            state,
            uid: 0,
            inode: 0,
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
        assert_eq!(in_the_way(&rows, asked, true), [&rows[2]]);
        assert_eq!(in_the_way(&rows[..2], asked, true), [&rows[1]]);
        assert_eq!(in_the_way(&rows[..1], asked, true), [&rows[0]]);
    }

    #[test]
    fn a_holder_is_named_with_its_unit_and_its_workers() {
        let holder = Holder {
            pid: 123,
            command: "nginx".into(),
            user: "root".into(),
            unit: Some("nginx.service".into()),
        };
        assert_eq!(
            named(&holder, 2),
            "nginx (pid 123, user root, unit nginx.service) and 2 more processes"
        );
    }
}
