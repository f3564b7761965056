//! The file at the path of a listener, and who may use it.

use super::machine::Machine;
use crate::config::{Endpoint, UnixName};
use crate::listener::{Note, NoteKind, Obstacle, Outcome};
use crate::plan::Access;
use serde::Serialize;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The facts about the file at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathFacts {
    /// The path of the file.
    pub path: String,
    /// `nothing`, `a live socket`, `a stale socket`, `a socket`, `a FIFO`, `a file` …
    pub found: &'static str,
    /// The user it belongs to, or will.
    pub owner: String,
    /// The group, present or after binding.
    pub group: String,
    /// The permission bits, present or after binding: `0660`.
    pub mode: String,
    /// The users who may use the file, one line for each rule.
    pub who: Vec<String>,
}

/// Owner, group and mode of a file or folder.
struct Rights {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl From<&Metadata> for Rights {
    fn from(file: &Metadata) -> Rights {
        Rights {
            uid: file.uid(),
            gid: file.gid(),
            mode: file.mode() & 0o7777,
        }
    }
}

impl Rights {
    /// The rights of a file that listend creates.
    fn of_new(access: &Access, machine: &Machine) -> Rights {
        Rights {
            uid: access.owner.unwrap_or(machine.process().uid),
            gid: access
                .group
                .unwrap_or_else(|| nix::unistd::getegid().as_raw()),
            mode: access.mode,
        }
    }
}

/// The facts about the path of an endpoint that has one, after binding was tried.
pub(super) fn path_facts(
    endpoint: &Endpoint,
    index: usize,
    access: &Access,
    outcome: &Outcome,
    machine: &Machine,
) -> Option<PathFacts> {
    let path = path_of(endpoint)?;
    let file = path.symlink_metadata().ok();
    let rights = match &file {
        Some(file) => Rights::from(file),
        None => Rights::of_new(access, machine),
    };
    let mut who = vec![who(&rights, needed(endpoint), verb(endpoint), machine)];
    // Outermost first, as the kernel walks them.
    let folders: Vec<&Path> = path.ancestors().skip(1).collect();
    for folder in folders.into_iter().rev() {
        if let Ok(found) = folder.metadata()
            && found.mode() & 0o001 == 0
        {
            let rights = Rights::from(&found);
            let verb = format!("search the directory {}", folder.display());
            who.push(self::who(&rights, 0o1, &verb, machine));
        }
    }
    Some(PathFacts {
        path: path.display().to_string(),
        found: file
            .as_ref()
            .map_or("nothing", |file| found(file, index, outcome)),
        owner: machine.user(rights.uid),
        group: machine.group(rights.gid),
        mode: format!("{:04o}", rights.mode),
        who,
    })
}

/// The users who may use a path created with these rights: `only user root may connect to it`. `None` for
/// what has none, and for a special file that cannot be looked at.
pub(super) fn by_access(endpoint: &Endpoint, access: &Access, machine: &Machine) -> Option<String> {
    let path = path_of(endpoint)?;
    let rights = match endpoint {
        // It is there before, with rights of its own.
        Endpoint::Special { .. } => Rights::from(&path.metadata().ok()?),
        _ => Rights::of_new(access, machine),
    };
    Some(who(&rights, needed(endpoint), verb(endpoint), machine))
}

fn path_of(endpoint: &Endpoint) -> Option<PathBuf> {
    match endpoint {
        Endpoint::Unix {
            name: UnixName::Path(path),
            ..
        }
        | Endpoint::Fifo { path }
        | Endpoint::Special { path, .. } => Some(path.clone()),
        // Where mqueue is mounted by custom (mq_overview(7)).
        Endpoint::MessageQueue { name } => {
            Some(Path::new("/dev/mqueue").join(name.trim_start_matches('/')))
        }
        Endpoint::Unix { .. }
        | Endpoint::Inet { .. }
        | Endpoint::Netlink { .. }
        | Endpoint::Vsock { .. } => None,
    }
}

/// The right that a user of the file needs: connect(2) needs to write (unix(7)).
fn needed(endpoint: &Endpoint) -> u32 {
    match endpoint {
        Endpoint::Special { .. } => 0o4,
        _ => 0o2,
    }
}

fn verb(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Fifo { .. } | Endpoint::MessageQueue { .. } => "write to it",
        Endpoint::Special { .. } => "read it",
        _ if endpoint.accepts() => "connect to it",
        _ => "send to it",
    }
}

/// `only user root and group www-data may connect to it`.
fn who(rights: &Rights, needed: u32, verb: &str, machine: &Machine) -> String {
    let may = |shift: u32| rights.mode >> shift & needed == needed;
    let user = machine.user(rights.uid);
    let group = machine.group(rights.gid);
    let root = if rights.uid == 0 { "" } else { "root and " };
    if may(0) {
        format!("every user may {verb}")
    } else if may(3) {
        format!("only {root}user {user} and group {group} may {verb}")
    } else {
        format!("only {root}user {user} may {verb}")
    }
}

/// The words for the file that binding found; where binding did not look, by the kind of file.
fn found(file: &Metadata, index: usize, outcome: &Outcome) -> &'static str {
    let obstacle = outcome
        .errors
        .iter()
        .find(|error| error.socket == index)
        .and_then(|error| error.obstacle);
    let is_stale =
        |note: &Note| note.socket == index && note.kind == NoteKind::StaleWouldBeReplaced;
    let kind = file.file_type();
    match obstacle {
        Some(Obstacle::LiveServer { .. }) => "a live socket",
        Some(Obstacle::NotASocket(what)) => what,
        _ if outcome.notes.iter().any(is_stale) => "a stale socket",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_char_device() => "a character device",
        _ if kind.is_block_device() => "a block device",
        _ if kind.is_dir() => "a folder",
        _ if kind.is_symlink() => "a symbolic link",
        _ => "a file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_use_a_path_follows_from_its_mode() {
        let machine = Machine::new();
        let said = |mode, uid| {
            let rights = Rights { uid, gid: 0, mode };
            who(&rights, 0o2, "connect to it", &machine)
        };
        assert_eq!(said(0o666, 0), "every user may connect to it");
        assert_eq!(
            said(0o660, 0),
            "only user root and group root may connect to it"
        );
        assert_eq!(said(0o600, 0), "only user root may connect to it");
        assert!(said(0o644, 4_000_000).starts_with("only root and user 4000000 may"));
    }
}
