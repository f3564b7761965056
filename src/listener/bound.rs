//! What is held once everything is bound.

use super::option::Effective;
use super::{queue, repair, spare, symlink};
use crate::config::Endpoint;
use crate::plan::{ListenerId, SocketKey};
use crate::sys::SharedFd;
use crate::walk::Place;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, lstat};
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

/// One bound socket, or open FIFO, message queue or special file.
#[derive(Debug)]
pub struct BoundSocket {
    /// The descriptor itself: CLOEXEC. Sockets that were bound here are blocking until [`prepare_for_spawn`] says otherwise.
    pub fd: SharedFd,
    /// Which socket it is.
    pub key: SocketKey,
    /// Its listener; of one that the plan has no more, the listener that had it last.
    pub listener: ListenerId,
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
    /// What else was made in the file system.
    pub traces: Traces,
}

/// What binding to a path has made beside the path itself.
#[derive(Debug, Default)]
pub struct Traces {
    /// The symbolic links that lead to the path.
    pub symlinks: Vec<PathBuf>,
    /// The second name of a unix path's file, with which the path can be brought back.
    pub spare: Option<PathBuf>,
    /// The owner, group and mode that path or FIFO was given; `None` where they are not listend's to
    /// give.
    pub rights: Option<Rights>,
    /// Whether path and links stay when listend stops (`remove_on_stop: false`).
    pub stay: bool,
}

/// Who may use a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The bits of chmod(2).
    pub mode: u32,
}

impl Rights {
    /// Those of a file, from stat(2).
    pub(super) fn of(stat: &nix::sys::stat::FileStat) -> Rights {
        Rights {
            uid: stat.st_uid,
            gid: stat.st_gid,
            // The type differs between systems; the conversion loses nothing.
            #[allow(clippy::unnecessary_cast)]
            mode: stat.st_mode as u32 & 0o7777,
        }
    }
}

impl BoundSocket {
    /// Removes what was made in the file system for this socket, if it still is that: links and path. A
    /// path that another socket has taken over stays, and so does what is to stay at the end
    /// (`remove_on_stop: false`). Answers with what is ours and could not be removed (unlink(2)).
    pub fn remove_files(&self) -> Vec<(PathBuf, io::Error)> {
        if self.traces.stay {
            return self.remove_spare().into_iter().collect();
        }
        self.remove_path()
    }

    /// Where it is in the file system: its path, and the links that lead there.
    pub fn files(&self) -> Vec<Cow<'_, Path>> {
        if let Endpoint::MessageQueue { name } = &self.address {
            // mq_overview(7): where the file system is usually mounted.
            let file = Path::new("/dev/mqueue").join(name.trim_start_matches('/'));
            return vec![file.into()];
        }
        let path = self.address.path().filter(|_| self.identity.is_some());
        let links = self.traces.symlinks.iter().map(PathBuf::as_path);
        path.into_iter().chain(links).map(Cow::from).collect()
    }

    /// Notes the rights that its file has just been given.
    pub(super) fn note_rights(&mut self) {
        let (Some(path), Some(identity)) = (self.address.path(), self.identity) else {
            return;
        };
        let found = lstat(path).ok().filter(|_| self.created);
        let ours = found.filter(|found| PathIdentity::of(found) == identity);
        self.traces.rights = ours.map(|found| Rights::of(&found));
    }

    pub(super) fn remove_spare(&self) -> Option<(PathBuf, io::Error)> {
        let spare = self.traces.spare.as_ref()?;
        let removed = remove_if_ours(spare, self.identity?);
        removed.err().map(|error| (spare.clone(), error))
    }

    /// The same, whatever is to stay at the end: for what was never served.
    pub(super) fn remove_path(&self) -> Vec<(PathBuf, io::Error)> {
        let mut problems = Vec::new();
        if let Some(path) = self.address.path() {
            problems = symlink::remove(path, &self.traces.symlinks);
        }
        problems.extend(remove_file(self).err());
        problems.extend(self.remove_spare());
        problems
    }
}

/// Which file a path was when it was bound. The bound socket keeps the inode in use, so that
/// no other file can get its number as long as the socket is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// Removes the file or queue that was made for this socket, if it still is that.
fn remove_file(socket: &BoundSocket) -> Result<(), (PathBuf, io::Error)> {
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
    match Place::of(path) {
        Ok(place) => remove_ours(&place, identity),
        Err(_) => Ok(()),
    }
}

/// The same of a place that is known.
pub(super) fn remove_ours(place: &Place, identity: PathIdentity) -> io::Result<()> {
    match place.look() {
        Ok(stat)
            if (is_socket(stat.st_mode) || is_fifo(stat.st_mode))
                && PathIdentity::of(&stat) == identity =>
        {
            place.remove().map_err(io::Error::from)
        }
        _ => Ok(()),
    }
}

/// Removes folders that were made and are empty, the innermost first.
pub(super) fn remove_folders(made: &[PathBuf]) {
    for folder in made.iter().rev() {
        if let Ok(place) = Place::of(folder) {
            let _in_use_by_others = place.remove_folder();
        }
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
    /// As whoever has the socket has made it.
    AsItIs,
}

/// What [`prepare_for_spawn`] found changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disturbed {
    /// O_NONBLOCK was not as asked for. Also true before the first spawn of a worker that wants
    /// its sockets non-blocking.
    pub nonblocking: bool,
    /// The listener was shut down. TCP listens again; a unix socket cannot, and needs
    /// [`super::repair()`].
    pub shut_down: bool,
    /// A datagram socket was connected to one peer, and heard nobody else.
    pub connected: bool,
}

/// Puts a socket back in order before a spawn: the open file description is shared with every
/// worker that ran before, and those may have changed O_NONBLOCK and the backlog, or have shut
/// the listener down, or have connected a datagram socket. Sets O_NONBLOCK and, where clients queue,
/// repeats listen(2). Answers with what it had to put right.
///
/// Errors are those of fcntl(2), connect(2), bind(2) and listen(2): [`super::repair()`] can do more.
pub fn prepare_for_spawn(
    socket: &BoundSocket,
    backlog: u32,
    mode: IoMode,
) -> io::Result<Disturbed> {
    let mut disturbed = Disturbed {
        nonblocking: set_mode(socket, mode)?,
        shut_down: false,
        connected: repair::disconnect(socket)?,
    };
    spare::renew(socket);
    if socket.endpoint.accepts() {
        disturbed.shut_down = repair::listen_again(socket, backlog)?;
    }
    Ok(disturbed)
}

/// Sets or clears O_NONBLOCK, of anything: a socket, a FIFO, a message queue, a device. Answers whether
/// it was otherwise.
///
/// # Errors
///
/// Those of fcntl(2).
pub fn set_mode(socket: &BoundSocket, mode: IoMode) -> io::Result<bool> {
    let fd = &socket.fd;
    let before = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let mut after = before;
    match mode {
        IoMode::Blocking => after.remove(OFlag::O_NONBLOCK),
        IoMode::NonBlocking => after.insert(OFlag::O_NONBLOCK),
        IoMode::AsItIs => {}
    }
    if after != before {
        fcntl(fd, FcntlArg::F_SETFL(after))?;
    }
    Ok(after != before)
}

/// The backlog as listen(2) takes it; what is more than it can say is "as much as possible".
pub(super) fn as_backlog(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}
