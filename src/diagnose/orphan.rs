//! A process that a listend has left behind which has ended, as /proc shows it.

use crate::connection::Ends;
use crate::handoff::{connection, supervisor};
use procfs::process::{ProcState, Process, Stat};
use std::os::unix::fs::MetadataExt;

/// A process that a listend has started that has ended, or a child of such a one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its process id.
    pub pid: i32,
    /// The instance: `app.0`.
    pub instance: String,
    /// The process id of the listend that started it.
    pub listend: i32,
    /// Its session.
    pub session: i32,
    /// The user that it runs as.
    pub uid: u32,
    /// When it was started, in clock ticks since the boot (proc_pid_stat(5)).
    pub started: u64,
    /// NOTIFY_SOCKET.
    pub notify: Option<String>,
    /// Whether it is what was started, and no child of that.
    pub is_main: bool,
    /// Of what serves a connection: who is at the ends of that.
    pub ends: Option<Ends>,
}

impl Orphan {
    /// The process, if it is one.
    pub fn of(pid: i32) -> Option<Orphan> {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = |name: &str| {
            let mut all = environment.split(|byte| *byte == 0);
            let value = all.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            let value = value.and_then(|value| std::str::from_utf8(value).ok());
            // It goes to somebody's terminal, and a process says of itself what it likes.
            value.filter(|value| !value.contains(char::is_control))
        };
        let instance = value(supervisor::INSTANCE)?.to_owned();
        let listend = value(supervisor::LISTEND_PID)?.parse().ok()?;
        let process = Process::new(pid).ok()?;
        let stat = process.stat().ok()?;
        // Of another namespace the number would mean another process.
        if is_dead(&stat) || !is_in_our_namespace(pid) || was_alive_before(listend, &stat) {
            return None;
        }
        // What it is told of its descriptors is for itself alone.
        let is_told = value("LISTEN_PID").is_none_or(|told| told == pid.to_string());
        Some(Orphan {
            pid,
            instance,
            listend,
            session: stat.session,
            uid: process.status().ok()?.ruid,
            started: stat.starttime,
            notify: value("NOTIFY_SOCKET").map(str::to_owned),
            is_main: stat.session == pid && is_told,
            ends: connection::ends(value),
        })
    }

    /// The worker, and the number of the instance.
    pub fn place(&self) -> Option<(&str, u32)> {
        let (worker, index) = self.instance.rsplit_once('.')?;
        Some((worker, index.parse().ok()?))
    }
}

fn is_dead(stat: &Stat) -> bool {
    matches!(stat.state(), Ok(ProcState::Zombie | ProcState::Dead))
}

/// Whether the listend with this number is there that can have started the process: one that is younger has
/// only got its number.
fn was_alive_before(listend: i32, process: &Stat) -> bool {
    let stat = Process::new(listend).and_then(|listend| listend.stat());
    stat.is_ok_and(|stat| !is_dead(&stat) && stat.starttime <= process.starttime)
}

fn is_in_our_namespace(pid: i32) -> bool {
    let of = |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/pid")).map(|file| file.ino());
    matches!((of(&pid.to_string()), of("self")), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_init_are_no_orphans() {
        assert_eq!(Orphan::of(std::process::id().cast_signed()), None);
        assert_eq!(Orphan::of(1), None);
    }

    #[test]
    fn the_name_of_a_worker_may_have_a_dot() {
        let orphan = Orphan {
            pid: 7,
            instance: "app.v2.13".to_owned(),
            listend: 1,
            session: 7,
            uid: 0,
            started: 0,
            notify: None,
            is_main: true,
            ends: None,
        };
        assert_eq!(orphan.place(), Some(("app.v2", 13)));
    }
}
