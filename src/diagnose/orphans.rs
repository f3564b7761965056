//! Workers that a listend has left behind: it was killed, and they go on with its sockets.
//!
//! Nobody is accused on less than this: the process was executed with the marks of a listend
//! ([`crate::handoff::supervisor`]) in this very pid namespace; that listend does not exist any more; and every process that
//! has the socket is such a one. While a listend runs it has its sockets itself.

use super::find;
use super::machine::Machine;
use super::orphan::Orphan;
use super::process_info::Started;
use crate::plan::Plan;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;

/// So many are named in a cause.
const NAMED: usize = 8;

/// A socket at an address of the configuration that only orphans have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrphanedSocket {
    /// As /proc/PID/fd has it.
    pub inode: u64,
    /// Everybody who has it.
    pub pids: Vec<i32>,
    /// The address that it is bound to.
    pub address: String,
}

/// What a listend of this configuration has left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftBehind {
    /// The sockets.
    pub sockets: Vec<OrphanedSocket>,
    /// Everything that the listend had started that had those sockets.
    pub orphans: Vec<Orphan>,
}

/// Looks for what a listend of this configuration has left behind.
pub fn left_behind(plan: &Plan, machine: &Machine) -> LeftBehind {
    let mut left = LeftBehind::default();
    let mut listends = BTreeSet::new();
    let mut known = BTreeSet::new();
    for listener in plan.listeners.values() {
        let there = machine.of(listener);
        for socket in listener.addresses() {
            for inode in find::servers_at(&socket.endpoint, there) {
                let pids = machine.processes_of(inode);
                let Some(orphans) = all_orphans(pids, machine) else {
                    continue;
                };
                if known.insert(inode) {
                    listends.extend(orphans.iter().map(|orphan| orphan.listend));
                    left.sockets.push(OrphanedSocket {
                        inode,
                        pids: pids.to_vec(),
                        address: socket.endpoint.to_string(),
                    });
                }
            }
        }
    }
    if listends.is_empty() {
        return left;
    }
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let pid = std::str::from_utf8(name.as_bytes()).ok();
        let orphan = pid.and_then(|pid| machine.orphan(pid.parse().ok()?));
        left.orphans
            .extend(orphan.filter(|orphan| listends.contains(&orphan.listend)));
    }
    // Of two for one place, one that is on its way out has closed its sockets, and the older one serves.
    let has_one: BTreeSet<i32> = left
        .sockets
        .iter()
        .flat_map(|one| one.pids.clone())
        .collect();
    left.orphans.sort_by_key(|orphan| {
        let has_none = !has_one.contains(&orphan.pid);
        (has_none, orphan.started, orphan.pid)
    });
    left
}

/// All of them, if none of the processes is anybody else.
fn all_orphans(pids: &[i32], machine: &Machine) -> Option<Vec<Orphan>> {
    let all: Option<Vec<Orphan>> = pids.iter().map(|pid| machine.orphan(*pid)).collect();
    all.filter(|all| !all.is_empty())
}

/// The causes and the hint where nobody but orphans has an address.
pub(super) fn explain(pids: &[i32], machine: &Machine) -> Option<(Vec<String>, String)> {
    let all = all_orphans(pids, machine)?;
    let mains: Vec<&Orphan> = all.iter().filter(|orphan| orphan.is_main).collect();
    let named = match mains.as_slice() {
        [] => all.iter().collect(),
        _ => mains,
    };
    let mut causes: Vec<String> = named
        .iter()
        .take(NAMED)
        .map(|orphan| {
            let started = machine.person(orphan.pid).and_then(|person| person.started);
            let since = started.and_then(Started::date);
            let since = since.map_or_else(String::new, |since| format!(", since {since}"));
            format!(
                "held by the worker {} (pid {}, user {}{since}) of a listend (pid {}) that has ended without \
                 stopping it",
                orphan.instance,
                orphan.pid,
                machine.user(orphan.uid),
                orphan.listend
            )
        })
        .collect();
    let more = named.len().saturating_sub(NAMED);
    if more > 0 {
        causes.push(format!("and by {more} more of its workers"));
    }
    let pids: Vec<String> = named.iter().map(|orphan| orphan.pid.to_string()).collect();
    let hint = format!(
        "`listend run --take-over` takes the sockets from its workers and supervises them again, without \
         downtime; to start anew instead, stop them first (kill {})",
        pids.join(" ")
    );
    Some((causes, hint))
}
