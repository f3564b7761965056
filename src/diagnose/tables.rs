//! The kernel's socket tables, as far as an address is concerned.

use crate::config::Coverage;
use procfs::FromBufReadSI;
use procfs::net::{TcpState, UdpNetEntries, UdpNetEntry, UdpState};
use serde::Serialize;
use std::fs::File;
use std::io::BufReader;
use std::net::{IpAddr, SocketAddr};

/// A row of /proc/net/{tcp,tcp6,udp,udp6}.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InetRow {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: State,
    /// The user who created the socket.
    pub(super) uid: u32,
    /// Links the row to /proc/PID/fd; 0 for one that no process has any more.
    pub(super) inode: u64,
    /// The connections that wait at a listening socket, or the bytes at a datagram socket; `None` where
    /// the table does not tell.
    pub(super) waiting: Option<u32>,
}

/// The state of a socket, as far as it matters for its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Listening, or a datagram socket without a peer.
    #[serde(rename = "listening")]
    Server,
    /// Part of a connection.
    Connection,
    /// A connection that no process has any more, and whose peer has not closed it yet.
    Closing,
    /// A connection that has ended and is remembered for a minute.
    TimeWait,
}

impl State {
    fn of_tcp(state: &TcpState, inode: u64) -> State {
        match state {
            TcpState::Listen => State::Server,
            TcpState::TimeWait => State::TimeWait,
            TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing | TcpState::LastAck
                if inode == 0 =>
            {
                State::Closing
            }
            _ => State::Connection,
        }
    }
}

/// The table of TCP sockets of this network namespace; empty where it cannot be read.
pub(super) fn tcp() -> Vec<InetRow> {
    let tables = [procfs::net::tcp(), procfs::net::tcp6()];
    let rows = tables.into_iter().flatten().flatten();
    rows.map(|row| InetRow {
        local: row.local_address,
        remote: row.remote_address,
        state: State::of_tcp(&row.state, row.inode),
        uid: row.uid,
        inode: row.inode,
        // For a listening socket the kernel shows its accept queue here (tcp_diag.c).
        waiting: (row.state == TcpState::Listen).then_some(row.rx_queue),
    })
    .collect()
}

/// The rows of UDP sockets.
pub(super) fn udp() -> Vec<InetRow> {
    let tables = [procfs::net::udp(), procfs::net::udp6()];
    datagrams(tables.into_iter().flatten())
}

/// The rows of UDP-Lite sockets, which have ports of their own.
pub(super) fn udplite() -> Vec<InetRow> {
    let table = |path: &str| {
        let file = BufReader::new(File::open(path).ok()?);
        let rows = UdpNetEntries::from_buf_read(file, procfs::current_system_info()).ok()?;
        Some(rows.0)
    };
    let tables = [table("/proc/net/udplite"), table("/proc/net/udplite6")];
    datagrams(tables.into_iter().flatten())
}

fn datagrams(tables: impl Iterator<Item = Vec<UdpNetEntry>>) -> Vec<InetRow> {
    let row = |row: UdpNetEntry| InetRow {
        local: row.local_address,
        remote: row.remote_address,
        state: match row.state {
            UdpState::Established => State::Connection,
            _ => State::Server,
        },
        uid: row.uid,
        inode: row.inode,
        waiting: Some(row.rx_queue),
    };
    tables.flatten().map(row).collect()
}

/// The endpoints of SCTP; empty where its module is not loaded.
pub(super) fn sctp() -> Vec<InetRow> {
    parse_sctp(&std::fs::read_to_string("/proc/net/sctp/eps").unwrap_or_default())
}

/// `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS`, one row for each address.
fn parse_sctp(text: &str) -> Vec<InetRow> {
    let row = |line: &str| -> Option<Vec<InetRow>> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = fields.get(5)?.parse().ok()?;
        let uid = fields.get(6)?.parse().ok()?;
        let inode = fields.get(7)?.parse().ok()?;
        let addresses = fields[8..]
            .iter()
            .filter_map(|text| text.parse::<IpAddr>().ok());
        let of_address = |ip: IpAddr| InetRow {
            local: SocketAddr::new(ip, port),
            remote: SocketAddr::new(ip, 0),
            state: State::Server,
            uid,
            inode,
            waiting: None,
        };
        Some(addresses.map(of_address).collect())
    };
    text.lines().skip(1).filter_map(row).flatten().collect()
}

/// The certainty that one socket keeps another from being bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Conflict {
    /// The addresses are the same, or one of them is the wildcard of the same family.
    Certain,
    /// A conflict only if an IPv6 socket accepts IPv4 as well, which the tables do not tell.
    IfDualStack,
}

/// Whether a socket bound to `held` is in the way of `asked`.
pub(super) fn conflict(asked: SocketAddr, v6_only: bool, held: SocketAddr) -> Option<Conflict> {
    if asked.port() != held.port() {
        return None;
    }
    let held = |v6_only| Coverage::of(held.ip(), v6_only);
    let asked = |v6_only| Coverage::of(asked.ip(), v6_only);
    if asked(true).overlaps(held(true)) {
        Some(Conflict::Certain)
    } else if asked(v6_only).overlaps(held(false)) {
        Some(Conflict::IfDualStack)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_dual_stack_sockets_are_in_the_way() {
        let check = |asked: &str, v6_only, held: &str| {
            conflict(asked.parse().unwrap(), v6_only, held.parse().unwrap())
        };
        for (asked, v6_only, held, expected) in [
            (
                "127.0.0.1:80",
                true,
                "127.0.0.1:80",
                Some(Conflict::Certain),
            ),
            ("127.0.0.1:80", true, "0.0.0.0:80", Some(Conflict::Certain)),
            ("0.0.0.0:80", true, "127.0.0.1:80", Some(Conflict::Certain)),
            ("127.0.0.1:80", true, "127.0.0.2:80", None),
            ("127.0.0.1:80", true, "127.0.0.1:81", None),
            ("127.0.0.1:80", true, "[::]:80", Some(Conflict::IfDualStack)),
            ("127.0.0.1:80", true, "[::1]:80", None),
            (
                "127.0.0.1:80",
                true,
                "[::ffff:127.0.0.1]:80",
                Some(Conflict::Certain),
            ),
            ("[::]:80", true, "0.0.0.0:80", None),
            (
                "[::]:80",
                false,
                "127.0.0.1:80",
                Some(Conflict::IfDualStack),
            ),
            ("[::1]:80", true, "[::]:80", Some(Conflict::Certain)),
        ] {
            assert_eq!(check(asked, v6_only, held), expected, "{asked} {held}");
        }
    }

    #[test]
    fn endpoints_of_sctp_are_read_with_each_address() {
        let text = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n\
            00000000 00000000 2   10  29   5000      33 4711 127.0.0.1 ::1 \n";
        let rows = parse_sctp(text);
        let locals: Vec<String> = rows.iter().map(|row| row.local.to_string()).collect();
        assert_eq!(locals, ["127.0.0.1:5000", "[::1]:5000"]);
        assert_eq!((rows[0].uid, rows[0].inode), (33, 4711));
    }
}
