//! The control socket, and who may use it.

use crate::config::UnixKind;
use crate::control::Owner;
use crate::diagnose::{self, Machine};
use crate::listener::{self, BindError, BoundSocket, IoMode, Obstacle, SocketRecord};
use crate::plan::Plan;
use crate::shell::one_line;
use crate::shell::own_socket::{NotBound, OwnRepair, OwnSocket};
use crate::sys;
use nix::unistd::{getegid, geteuid};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What messages call it.
const NAME: &str = "control socket";

/// The bound control socket. Dropped, it is closed and its path removed.
#[derive(Debug)]
pub struct ControlSocket {
    own: OwnSocket,
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
        ControlSocket::with(
            OwnSocket::bind(NAME, UnixKind::Stream, path, (group, mode(group))),
            path,
        )
    }

    /// Goes on with the socket that another listend had there, even if its file is gone by now.
    ///
    /// # Errors
    ///
    /// As for [`ControlSocket::bind`].
    pub fn restore(
        path: &Path,
        group: Option<u32>,
        kept: (OwnedFd, SocketRecord),
    ) -> Result<ControlSocket, NoControl> {
        let own = OwnSocket::restore(NAME, UnixKind::Stream, path, (group, mode(group)), kept);
        ControlSocket::with(own, path)
    }

    fn with(bound: Result<OwnSocket, NotBound>, path: &Path) -> Result<ControlSocket, NoControl> {
        let own = bound.map_err(|failed| {
            let (error, plan) = *failed;
            NoControl {
                reason: why_not(&error, path, &plan),
            }
        })?;
        if let Some(Err(error)) = own.socket().map(set_up) {
            own.withdraw();
            let reason = format!("{}: cannot be set up: {error}", path.display());
            return Err(NoControl { reason });
        }
        Ok(ControlSocket { own })
    }

    /// Whose it is. The group was read back: a folder with the set-group-id bit gives its own.
    pub(super) fn owner(&self) -> Owner {
        let rights = self.socket().and_then(|socket| socket.artifacts.rights);
        Owner {
            uid: geteuid().as_raw(),
            gid: rights.map_or_else(|| getegid().as_raw(), |rights| rights.gid),
        }
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> Option<&BoundSocket> {
        self.own.socket()
    }

    /// Puts it right, if something is wrong with it.
    pub(super) fn repair(&mut self) -> Option<OwnRepair> {
        self.own.repair(set_up)
    }

    /// Where it is.
    pub fn path(&self) -> Option<&Path> {
        self.socket()?.address.path()
    }
}

/// For whom it is open.
fn mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o660 } else { 0o600 }
}

fn set_up(socket: &BoundSocket) -> io::Result<()> {
    listener::set_mode(socket, IoMode::NonBlocking)?;
    // Nobody has anything to hand over here.
    sys::refuse_descriptors(&socket.fd);
    Ok(())
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
