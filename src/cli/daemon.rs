//! What every way to start a daemon has in common.

use super::exit::Exit;
use super::kept::Leftover;
use crate::control::Binary;
use crate::core::WhenDone;
use crate::handoff::PidfdInode;
use crate::listener::SocketRecord;
use crate::shell::{Control, ControlSocket, ReadyWhen};
use crate::store::Keeper;
use crate::sys;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The differences between the verbs that start a daemon.
pub(super) struct After {
    /// The control socket, if there is one.
    pub control: Option<ControlPath>,
    /// The condition on which the daemon ends.
    pub when_done: WhenDone,
    /// The condition on which the daemon reports readiness to its service manager.
    pub ready_when: ReadyWhen,
    /// The process that keeps the descriptors for the next listend, if there is one.
    pub keeper: Option<Keeper>,
    /// What the listend before has left there.
    pub left: Leftover,
    /// Whether what a listend has left behind is taken.
    pub takes_over: bool,
}

/// The control socket: its path, and whether it was chosen.
pub(super) struct ControlPath {
    /// `None` is nowhere.
    pub path: Option<PathBuf>,
    pub group: Option<u32>,
    /// Whether the path was named on the command line, so that listend must not start without it.
    pub is_asked_for: bool,
    pub config: PathBuf,
}

/// Makes the control socket, if there is to be one. Nobody has to be able to ask a daemon, unless
/// somebody has said so.
pub(super) fn open_control(
    wanted: Option<ControlPath>,
    files: Vec<String>,
    kept: Option<(OwnedFd, SocketRecord)>,
) -> Result<Control, Exit> {
    let Some(wanted) = wanted else {
        return Ok(Control::default());
    };
    let Some(path) = wanted.path else {
        return Ok(Control::silent(wanted.config, files));
    };
    let socket = match kept {
        Some(kept) => ControlSocket::restore(&path, wanted.group, kept),
        None => ControlSocket::bind(&path, wanted.group),
    };
    match socket {
        Ok(socket) => {
            let control = Control::new(socket, wanted.config, files);
            Ok(control.executed_from(own_binary()))
        }
        Err(why) if wanted.is_asked_for => {
            log::error!("nothing was started: no control socket: {why}");
            Err(Exit::Refused)
        }
        Err(why) => {
            log::warn!(
                "running without a control socket: {why}; give another --control PATH, or none"
            );
            Ok(Control::silent(wanted.config, files))
        }
    }
}

pub(super) fn internal(what: &str, error: &std::io::Error) -> Exit {
    log::error!("{what}: {error}");
    Exit::Internal
}

/// The path of the running binary, for `{listend}`.
pub(super) fn own_path() -> String {
    let path = std::env::current_exe();
    path.map_or_else(
        |_| "/proc/self/exe".to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}

/// The file that runs here. Its metadata are at hand: the kernel executes it.
pub(super) fn own_binary() -> Option<Binary> {
    binary(Path::new("/proc/self/exe"), own_path())
}

/// A file as it is now.
pub(super) fn binary(file: &Path, path: String) -> Option<Binary> {
    let found = file.metadata().ok()?;
    let nanoseconds = found.mtime().checked_mul(1_000_000_000)?;
    Some(Binary {
        path,
        device: found.dev(),
        inode: found.ino(),
        modified: nanoseconds.checked_add(found.mtime_nsec())?,
    })
}

/// Whether LISTEN_PIDFDID can be told: the kernel has to give each pidfd an inode of its own.
pub(super) fn pidfd_inode() -> PidfdInode {
    if sys::has_pidfs() {
        PidfdInode::Tell
    } else {
        PidfdInode::Leave
    }
}
