//! The socket on which the daemon tells what is to be kept.
//!
//! What comes with a message may be any file, and closing it may wait for others (close(2) of a socket
//! with SO_LINGER, of a file on FUSE). So nobody else is to reach this socket: it has no name in the
//! file system, and the way to it leads through /proc/PID/fd, which other users cannot enter.

use nix::fcntl::{OFlag, open};
use nix::sys::prctl::get_dumpable;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::Mode;
use nix::unistd::mkdtemp;
use std::collections::hash_map::RandomState;
use std::fs::{self, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// The receiving end, with its address.
#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: UnixDatagram,
    /// The handle (O_PATH) that the address leads through.
    _handle: Option<OwnedFd>,
    address: String,
}

impl NotifySocket {
    /// Makes it. Where no folder can be written to, and where a process has no access to
    /// /proc/PID/fd of its own user's processes because one of them got capabilities from its file,
    /// it has an abstract name (unix(7)), of which a part is random.
    ///
    /// # Errors
    ///
    /// No descriptors are left.
    pub(super) fn new() -> io::Result<NotifySocket> {
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let shared = ["/run", "/dev/shm"].map(PathBuf::from);
        let folders = own.into_iter().chain(shared).chain([std::env::temp_dir()]);
        let is_open = get_dumpable().unwrap_or(false);
        let mut made = folders
            .filter(|_| is_open)
            .filter_map(|folder| without_name(&folder));
        let made = match made.next() {
            Some(made) => made,
            None => with_name()?,
        };
        made.socket.set_nonblocking(true)?;
        setsockopt(&made.socket, sockopt::PassCred, &true)?;
        Ok(made)
    }

    /// The value of NOTIFY_SOCKET.
    pub(super) fn address(&self) -> &str {
        &self.address
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn without_name(folder: &Path) -> Option<NotifySocket> {
    // Nobody else can enter it.
    let folder = mkdtemp(&folder.join("listend-guard-XXXXXX")).ok()?;
    let path = folder.join("notify");
    let made = at_path(&path);
    let _may_be_missing = fs::remove_file(&path);
    let removed = fs::remove_dir(&folder);
    if let Err(error) = removed {
        log::warn!("guard: cannot remove {}: {error}", folder.display());
    }
    made.ok()
}

fn at_path(path: &Path) -> io::Result<NotifySocket> {
    let socket = UnixDatagram::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    // Not by OpenOptions, which leaves out what is in the C library's O_ACCMODE: with musl that is O_PATH.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let handle = open(path, flags, Mode::empty())?;
    let address = format!("/proc/{}/fd/{}", std::process::id(), handle.as_raw_fd());
    // Not everywhere is /proc mounted, and does what Linux does.
    socket.set_nonblocking(true)?;
    UnixDatagram::unbound()?.send_to(b"X", &address)?;
    socket.recv(&mut [0])?;
    Ok(NotifySocket {
        socket,
        address,
        _handle: Some(handle),
    })
}

fn with_name() -> io::Result<NotifySocket> {
    let random = RandomState::new().build_hasher().finish();
    let name = format!("listend/guard/{}-{random:016x}", std::process::id());
    Ok(NotifySocket {
        socket: UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?,
        address: format!("@{name}"),
        _handle: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_without_a_name_leaves_nothing_behind_and_can_be_reached() {
        let folder = std::env::temp_dir().join(format!("listend-guard-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let made = without_name(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir(&folder).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1", made.address()).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(made.socket.recv(&mut buffer).unwrap(), 7);
    }

    #[test]
    fn where_nothing_can_be_written_it_has_a_name() {
        assert!(without_name(Path::new("/proc")).is_none());
        let made = with_name().unwrap();
        let name = made.address().strip_prefix('@').unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        sender.send_to_addr(b"READY=1", &address).unwrap();
        assert_eq!(made.socket.recv(&mut [0; 16]).unwrap(), 7);
    }
}
