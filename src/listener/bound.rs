//! What is held once everything is bound.

use super::bind::Adopted;
use super::option::Effective;
use super::queue;
use crate::config::Endpoint;
use crate::plan::ListenerId;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, lstat};
use socket2::SockRef;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// All bound sockets. Dropping it closes them; it removes no path.
#[derive(Debug, Default)]
pub struct Bound {
    /// Indexed by [`crate::plan::ListenerId`].
    pub listeners: Vec<BoundListener>,
    /// The folders that were created for unix paths, outermost first.
    pub created_folders: Vec<PathBuf>,
    /// Adopted sockets of listeners that are not bound, because another of their sockets failed:
    /// they could not be had again, and wait for [`super::bind_missing`].
    pub(super) set_aside: Adopted,
}

/// The sockets of one listener.
#[derive(Debug, Default)]
pub struct BoundListener {
    /// In the order of the plan; fewer than planned where an optional one is missing.
    pub sockets: Vec<BoundSocket>,
}

/// One bound socket, or open FIFO, message queue or special file.
#[derive(Debug)]
pub struct BoundSocket {
    /// The descriptor itself: CLOEXEC. Sockets that were bound here are blocking until [`prepare_for_spawn`] says otherwise.
    pub fd: OwnedFd,
    /// Index into [`crate::plan::ListenerPlan::sockets`].
    pub planned: usize,
    /// What was asked for.
    pub endpoint: Endpoint,
    /// What it is bound to: as asked, with the port the kernel chose for port 0.
    pub address: Endpoint,
    /// How many clients may wait: the backlog cut to `net.core.somaxconn` as listen(2) does.
    /// `None` for datagrams, and where the limit cannot be read.
    pub backlog: Option<u32>,
    /// The file of a unix socket that has a path, of a FIFO or of a message queue.
    pub identity: Option<PathIdentity>,
    /// Whether that file was made here, and so is to be removed. A FIFO or queue that was there, and
    /// a socket that was inherited, belong to somebody else.
    pub created: bool,
    /// Whether it was bound by whoever started us ([`super::Adopted`]).
    pub is_adopted: bool,
    /// What became of the options that were asked for.
    pub effective: Vec<Effective>,
}

/// Which file a path was when it was bound. The bound socket keeps the inode in use, so that
/// no other file can get its number as long as the socket is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathIdentity {
    /// The device, as in stat(2).
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
}

impl PathIdentity {
    /// The identity of a file, from stat(2).
    pub fn of(stat: &nix::sys::stat::FileStat) -> PathIdentity {
        // The types differ between architectures; the conversions lose nothing.
        #[allow(clippy::unnecessary_cast)]
        PathIdentity {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
        }
    }
}

impl Bound {
    /// The sockets of one listener, in the order of the plan.
    pub fn sockets(&self, listener: ListenerId) -> &[BoundSocket] {
        let listener = self.listeners.get(listener.0 as usize);
        listener.map_or(&[], |listener| listener.sockets.as_slice())
    }

    /// Removes the unix paths, FIFOs and message queues that are still the files that were made here,
    /// and nothing else.
    ///
    /// To be called while the sockets are open, so that inode numbers mean something. Answers
    /// with the paths that are ours and could not be removed (unlink(2), mq_unlink(3)).
    pub fn remove_paths(&self) -> Vec<(PathBuf, io::Error)> {
        let sockets = self.listeners.iter().flat_map(|l| &l.sockets);
        sockets
            .filter_map(|socket| remove_file(socket).err())
            .collect()
    }

    /// Takes everything back after a start that failed: the sockets, their paths, and the folders
    /// that were created for them.
    pub fn withdraw(self) {
        // What cannot be removed has nobody to tell but the error that is shown anyway.
        let _left_behind = self.remove_paths();
        for folder in self.created_folders.iter().rev() {
            let _in_use_by_others = std::fs::remove_dir(folder);
        }
    }
}

/// Removes what was made in the file system for this socket, if it still is that.
pub(super) fn remove_file(socket: &BoundSocket) -> Result<(), (PathBuf, io::Error)> {
    let Some(identity) = socket.identity.filter(|_| socket.created) else {
        return Ok(());
    };
    if let Endpoint::MessageQueue { name } = &socket.address {
        return queue::remove(&socket.fd, name).map_err(|error| (PathBuf::from(name), error));
    }
    match socket.address.path() {
        Some(path) => remove_if_ours(path, identity).map_err(|error| (path.to_owned(), error)),
        None => Ok(()),
    }
}

/// Unlinks the path if it still is that socket or FIFO. A path that has gone or has become another
/// file is no error.
pub(super) fn remove_if_ours(path: &Path, identity: PathIdentity) -> io::Result<()> {
    match lstat(path) {
        Ok(stat)
            if (is_socket(stat.st_mode) || is_fifo(stat.st_mode))
                && PathIdentity::of(&stat) == identity =>
        {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

fn is_fifo(mode: nix::libc::mode_t) -> bool {
    mode & SFlag::S_IFMT.bits() == SFlag::S_IFIFO.bits()
}

/// Whether a mode of stat(2) is that of a socket.
pub(super) fn is_socket(mode: nix::libc::mode_t) -> bool {
    mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits()
}

/// O_NONBLOCK or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// accept(2) waits.
    Blocking,
    /// accept(2) answers EAGAIN.
    NonBlocking,
}

impl IoMode {
    /// From what a worker's `nonblocking:` says.
    pub const fn from_nonblocking(nonblocking: bool) -> IoMode {
        if nonblocking {
            IoMode::NonBlocking
        } else {
            IoMode::Blocking
        }
    }
}

/// Puts a socket back in order before a spawn: the open file description is shared with every
/// worker that ran before, and those may have changed O_NONBLOCK and the backlog, or have shut
/// the listener down. Sets O_NONBLOCK and, where clients queue, repeats listen(2).
///
/// Errors are those of fcntl(2), bind(2) and listen(2).
pub fn prepare_for_spawn(socket: &BoundSocket, backlog: u32, mode: IoMode) -> io::Result<()> {
    set_mode(&socket.fd, mode)?;
    if socket.endpoint.accepts() {
        let raw = SockRef::from(&socket.fd);
        if let Endpoint::Inet { address: asked, .. } = socket.endpoint
            && let Endpoint::Inet { address, .. } = socket.address
            && asked.port() == 0
            && !raw.is_listener()?
        {
            // shutdown(2) took the port away, because the kernel had chosen it; without this,
            // listen(2) would take another. If it did not, bind(2) answers EINVAL.
            match raw.bind(&address.into()) {
                Err(error) if error.raw_os_error() != Some(nix::libc::EINVAL) => return Err(error),
                _ => {}
            }
        }
        raw.listen(as_backlog(backlog))?;
    }
    Ok(())
}

/// Of any descriptor: a socket, a FIFO, a message queue, a device.
fn set_mode(fd: &OwnedFd, mode: IoMode) -> io::Result<()> {
    let before = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let mut after = before;
    after.set(OFlag::O_NONBLOCK, mode == IoMode::NonBlocking);
    if after != before {
        fcntl(fd, FcntlArg::F_SETFL(after))?;
    }
    Ok(())
}

/// The backlog as listen(2) takes it; what is more than it can say is "as much as possible".
pub(super) fn as_backlog(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}
