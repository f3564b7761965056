//! The control socket as a file: made like any other unix listener, so that a stale one is replaced
//! and a live one is not, and its mode is right from its birth.

use crate::config::{Endpoint, Presence, UnixKind, UnixName};
use crate::control::Owner;
use crate::diagnose::{self, Machine};
use crate::listener::{self, Adopted, BindError, Bound, BoundSocket, IoMode, Obstacle, Purpose};
use crate::plan::{Access, ListenerId, ListenerPlan, Plan, SocketPlan};
use crate::report::{FileId, Place};
use crate::shell::one_line;
use crate::sys;
use nix::sys::stat::lstat;
use nix::unistd::geteuid;
use std::fmt;
use std::path::{Path, PathBuf};

/// How many clients may wait to be accepted.
const BACKLOG: u32 = 128;

/// The bound control socket. Dropped, it is closed and its path removed.
#[derive(Debug)]
pub struct ControlSocket {
    bound: Bound,
    owner: Owner,
}

/// Why there is no control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoControl {
    /// Why, and what to do about it.
    reason: String,
}

impl fmt::Display for NoControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl ControlSocket {
    /// Binds to an absolute path, for a group if there is one. Folders that are missing are made,
    /// for root with mode 0755 and otherwise with 0700.
    ///
    /// # Errors
    ///
    /// Another listend is asked there, or what keeps any unix listener from being bound.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<ControlSocket, NoControl> {
        let plan = plan(path, group);
        let outcome = listener::bind_all(&plan, Purpose::Keep, Adopted::default());
        let reason = match outcome.errors.first() {
            None => match file_owner(&outcome.bound, path) {
                Ok(owner) => {
                    let bound = outcome.bound;
                    return Ok(ControlSocket { bound, owner });
                }
                Err(reason) => reason,
            },
            Some(error) => why_not(error, path, &plan),
        };
        outcome.bound.withdraw();
        Err(NoControl { reason })
    }

    /// Whose it is.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> Option<&BoundSocket> {
        self.bound.sockets(ListenerId(0)).first()
    }

    /// Where it is.
    pub fn path(&self) -> Option<&Path> {
        self.socket()?.address.path()
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        for (path, error) in self.bound.remove_paths() {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// The group is read back: a folder with the set-group-id bit gives its own.
fn file_owner(bound: &Bound, path: &Path) -> Result<Owner, String> {
    let cannot = |what: &dyn fmt::Display| format!("{}: cannot be set up: {what}", path.display());
    if let Some(socket) = bound.sockets(ListenerId(0)).first() {
        listener::set_mode(socket, IoMode::NonBlocking).map_err(|error| cannot(&error))?;
        // Nobody has anything to hand over here.
        sys::refuse_descriptors(&socket.fd);
    }
    let file = lstat(path).map_err(|errno| cannot(&errno))?;
    Ok(Owner {
        uid: geteuid().as_raw(),
        gid: file.st_gid,
    })
}

fn why_not(error: &BindError, path: &Path, plan: &Plan) -> String {
    let path = path.display();
    match error.obstacle {
        Some(Obstacle::LiveServer { .. }) => {
            let holder = diagnose::explain(error, plan, &Machine::new()).holder;
            let pid = holder.map_or_else(String::new, |holder| format!(", pid {}", holder.pid));
            format!("{path}: another listend is running there{pid}")
        }
        Some(
            Obstacle::NotASocket(_)
            | Obstacle::Unprobed
            | Obstacle::Interference
            | Obstacle::OtherHands(_),
        )
        | None => one_line(&diagnose::explain(error, plan, &Machine::new())),
    }
}

/// A plan of nothing but this socket.
fn plan(path: &Path, group: Option<u32>) -> Plan {
    let nowhere = Place {
        file: FileId(0),
        line: 1,
        column: 1,
        length: 1,
    };
    let name = UnixName::Path(PathBuf::from(path));
    let kind = UnixKind::Stream;
    Plan {
        listeners: vec![ListenerPlan {
            name: "control socket".to_owned(),
            sockets: vec![SocketPlan {
                endpoint: Endpoint::Unix { kind, name },
                place: nowhere,
            }],
            backlog: BACKLOG,
            access: Access {
                owner: None,
                group,
                mode: if group.is_some() { 0o660 } else { 0o600 },
                directory_mode: if geteuid().is_root() { 0o755 } else { 0o700 },
                directory_owner: None,
                directory_group: None,
            },
            options: Vec::new(),
            multicast: Vec::new(),
            network_namespace: None,
            symlinks: Vec::new(),
            remove_on_stop: true,
            presence: Presence::Required,
        }],
        workers: Vec::new(),
        ..Plan::default()
    }
}
