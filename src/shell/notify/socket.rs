//! The socket that workers send their messages to.

use crate::plan::Plan;
use crate::sys;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt,
};
use nix::sys::stat::{SFlag, lstat};
use std::collections::hash_map::RandomState;
use std::fs::{self, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Room for messages that have not been read, in bytes, as systemd has it.
const BUFFER: usize = 8 * 1024 * 1024;
/// The longest path that an address can hold (unix(7)): one byte is the NUL.
const LONGEST_PATH: usize = 107;
/// No more messages are read before a child is reaped, whatever the system allows.
const MOST_WAITING: usize = 10_000;

/// One for all workers: the kernel vouches for who sent what. Dropped, its path is removed.
#[derive(Debug)]
pub(super) struct NotifySocket {
    fd: OwnedFd,
    address: String,
    /// Its path, and which file that was when it was made.
    file: Option<(PathBuf, (u64, u64))>,
    most_waiting: usize,
}

impl NotifySocket {
    /// Makes it beside the control socket, if there is one that every worker can get at, and with an
    /// abstract name (unix(7)) otherwise. A socket that is there already is nobody's: the control
    /// socket is ours alone.
    ///
    /// # Errors
    ///
    /// No descriptors or no memory are left.
    pub(super) fn new(control: Option<&Path>, plan: &Plan) -> io::Result<NotifySocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        sys::ask_for_senders(&fd)?;
        if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).is_err() {
            // Without CAP_NET_ADMIN it is as much as net.core.rmem_max allows.
            let _as_it_is = setsockopt(&fd, sockopt::RcvBuf, &BUFFER);
        }
        let bound = control.and_then(|control| beside(control, plan));
        let file = bound.and_then(|path| match bind_to_path(&fd, &path) {
            Ok(file) => Some((path, file)),
            Err(error) => {
                log::warn!(
                    "cannot take messages of workers at {}: {error}; they are told an abstract name",
                    path.display()
                );
                None
            }
        });
        let address = match &file {
            // It was made of text.
            Some((path, _)) => path.to_string_lossy().into_owned(),
            None => bind_to_name(&fd)?,
        };
        Ok(NotifySocket {
            fd,
            address,
            file,
            most_waiting: most_waiting(),
        })
    }

    /// The value of NOTIFY_SOCKET.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// No more messages than this were sent before a moment and have not been read: the kernel makes
    /// senders wait (net.unix.max_dgram_qlen, unix(7)).
    pub(super) fn most_waiting(&self) -> usize {
        self.most_waiting
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let Some((path, made)) = &self.file else {
            return;
        };
        if identity(path).is_ok_and(|now| now == *made)
            && let Err(error) = fs::remove_file(path)
        {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}

/// The path beside the control socket's; `None` if not every worker could use it.
fn beside(control: &Path, plan: &Plan) -> Option<PathBuf> {
    let path = control.with_extension("notify");
    let is_text = path.to_str().is_some();
    if !is_text || path.as_os_str().len() > LONGEST_PATH || path == control {
        return None;
    }
    let has_user = |credentials: &crate::plan::Credentials| credentials.uid.is_some();
    let others = plan
        .workers
        .iter()
        .any(|worker| worker.credentials.as_ref().is_some_and(has_user));
    (!others || can_be_entered(&path)).then_some(path)
}

/// Whether everybody can get to what is in the folder of a path. Access control lists are not seen.
fn can_be_entered(path: &Path) -> bool {
    let mut folders = path.ancestors().skip(1);
    folders.all(|folder| {
        let mode = fs::metadata(folder).map(|metadata| metadata.mode());
        mode.is_ok_and(|mode| mode & 0o001 != 0)
    })
}

fn bind_to_path(fd: &OwnedFd, path: &Path) -> io::Result<(u64, u64)> {
    if lstat(path).is_ok_and(|found| {
        SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
    }) {
        fs::remove_file(path)?;
    }
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Whoever a worker runs as has to get through; who may tell what is decided by the credentials.
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    identity(path)
}

/// Which file is there.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Nobody else may have the name first, so that a part of it is random.
fn bind_to_name(fd: &OwnedFd) -> io::Result<String> {
    let random = RandomState::new().build_hasher().finish();
    let name = format!("listend/notify/{}-{random:016x}", std::process::id());
    bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    Ok(format!("@{name}"))
}

/// The setting was in force when the socket was made a moment ago.
fn most_waiting() -> usize {
    let text = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen");
    let length = text.ok().and_then(|text| text.trim().parse::<usize>().ok());
    // The queue is full when it is longer than that.
    length.map_or(MOST_WAITING, |length| {
        length.saturating_add(2).min(MOST_WAITING)
    })
}
