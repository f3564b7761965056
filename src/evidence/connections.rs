//! The connections that a process has accepted, as /proc/PID/net shows them (proc_pid_net(5)).
//!
//! Who has accepted one takes clients, though it may be too busy to be seen waiting for the next.

use super::sight::SocketInode;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// No more of a table is read.
const MOST_BYTES: u64 = 4 * 1024 * 1024;
/// TCP_LISTEN, as the tables have it (net/tcp_states.h).
const LISTEN: &str = "0A";
/// A unix socket that listens (`__SO_ACCEPTCON`), and SS_CONNECTED.
const ACCEPTS: &str = "00010000";
const CONNECTED: &str = "03";

/// A row of a table: an end that listens, or that of a connection.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    listens: bool,
    /// Address and port in hexadecimal digits, or a path.
    local: String,
    inode: u64,
}

/// Those of the listeners that have accepted one of these sockets, in the network namespace of a process.
pub fn accepted(pid: i32, listeners: &[SocketInode], sockets: &HashSet<u64>) -> Vec<SocketInode> {
    let is_asked_for = |row: &Row| match row.listens {
        true => listeners
            .iter()
            .any(|one| one.is_socket && one.number == row.inode),
        false => sockets.contains(&row.inode),
    };
    let mut found = Vec::new();
    for (table, read) in [
        ("tcp", tcp as fn(&str) -> Option<Row>),
        ("tcp6", tcp),
        ("unix", unix),
    ] {
        // One that is not there or cannot be read shows nothing.
        let rows = rows(&format!("/proc/{pid}/net/{table}"), read, is_asked_for);
        let rows = rows.unwrap_or_default();
        for listener in rows.iter().filter(|row| row.listens) {
            let is_of_it = |row: &&Row| !row.listens && is_at(&row.local, &listener.local);
            if rows.iter().any(|row| is_of_it(&row)) {
                let of_it = listeners.iter().filter(|one| one.number == listener.inode);
                found.extend(of_it);
            }
        }
    }
    found
}

fn rows(
    path: &str,
    read: fn(&str) -> Option<Row>,
    is_asked_for: impl Fn(&Row) -> bool,
) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut table = BufReader::new(File::open(path)?.take(MOST_BYTES));
    let mut line = Vec::new();
    while table.read_until(b'\n', &mut line)? > 0 {
        let row = std::str::from_utf8(&line).ok().and_then(read);
        rows.extend(row.filter(&is_asked_for));
        line.clear();
    }
    Ok(rows)
}

/// Whether an end of a connection belongs to a listener: it has the same port, and the same address or the
/// listener any. A unix socket that was accepted has the path of its listener.
fn is_at(end: &str, listener: &str) -> bool {
    let any = |(address, port): (&str, &str)| {
        address.bytes().all(|digit| digit == b'0') && end.ends_with(&format!(":{port}"))
    };
    end == listener
        || (!listener.starts_with(['/', '@']) && listener.rsplit_once(':').is_some_and(any))
}

/// `sl: LOCAL REMOTE STATE TX:RX TR:WHEN RETRNSMT UID TIMEOUT INODE …`.
fn tcp(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
    Some(Row {
        // A connection may be closed on either side already; that a process has it is what counts.
        listens: state == LISTEN,
        local: local.to_owned(),
        inode: words.nth(5)?.parse().ok()?,
    })
}

/// `NUMBER: REFERENCES PROTOCOL FLAGS TYPE STATE INODE PATH`.
fn unix(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace().skip(3);
    let (flags, _kind, state) = (words.next()?, words.next()?, words.next()?);
    let inode = words.next()?;
    let (_, path) = line
        .trim_end_matches('\n')
        .split_once(&format!(" {inode} "))?;
    let listens = flags == ACCEPTS;
    (listens || state == CONNECTED).then(|| Row {
        listens,
        local: path.to_owned(),
        inode: inode.parse().unwrap_or_default(),
    })
}
