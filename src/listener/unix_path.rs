//! Unix sockets: what may be at the path, and who may use it.
//!
//! The invariants: a path is removed only if it is a socket on which nobody listens; there is no
//! moment in which a path or folder has more rights than asked for; the umask is restored on
//! every way out. Sockets are bound at their final path, never renamed into place, because
//! getsockname(2) would show workers the other name.

use super::bind::{BindStep, Failure, Obstacle, Purpose};
use super::bound::{PathIdentity, is_socket, remove_if_ours};
use super::lock::{self, PathLock, give_up};
use super::paths::{Reach, Umask, create_parents};
use crate::config::UnixKind;
use crate::plan::Access;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, lstat, stat};
use nix::unistd::{AccessFlags, Gid, Uid, eaccess, fchownat, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What came of a path.
#[derive(Debug)]
pub(super) struct Done {
    /// The socket and its file; `None` if a stale path was only to be tried.
    pub(super) bound: Option<(Socket, PathIdentity)>,
    /// Whether a stale socket is, or was, in the way.
    pub(super) stale: bool,
    /// What keeps other listends away; `None` where there can be no lock file.
    pub(super) lock: Option<Arc<PathLock>>,
}

/// Binds to a path, in this order: what is there, folders, lock, bind, owner, mode. `held` is the
/// lock, if this path has been bound before and is to be bound anew.
pub(super) fn bind(
    kind: UnixKind,
    path: &Path,
    access: &Access,
    purpose: Purpose,
    folders: &mut Vec<PathBuf>,
    held: Option<Arc<PathLock>>,
) -> Result<Done, Failure> {
    // Before the lock is taken: who serves here says more than who has locked it.
    if held.is_none() {
        refuse_held(path)?;
    }
    let stale = look(kind, path)?.is_some();
    if !stale {
        create_parents(path, access, folders)?;
    }
    let lock = match held {
        Some(held) => Some(held),
        None => PathLock::take(path)?.map(Arc::new),
    };
    let bound = with_lock(kind, path, access, purpose);
    if let (Some(lock), true) = (&lock, !matches!(bound, Ok(Some(_)))) {
        give_up(lock);
    }
    Ok(Done {
        bound: bound?,
        stale,
        lock,
    })
}

fn with_lock(
    kind: UnixKind,
    path: &Path,
    access: &Access,
    purpose: Purpose,
) -> Result<Option<(Socket, PathIdentity)>, Failure> {
    // Again, because another listend may have bound here until the lock was ours.
    if let Some(found) = look(kind, path)? {
        if purpose == Purpose::Try {
            try_beside(kind, path, &found)?;
            return Ok(None);
        }
        remove_stale(path, PathIdentity::of(&found))?;
    }
    bind_here(kind, path, access).map(Some)
}

/// Refuses a path whose lock another listend holds. Its socket is not connected to: that would be
/// the client that an on-demand worker waits for.
fn refuse_held(path: &Path) -> Result<(), Failure> {
    lock::refuse_locked(path).map_err(|locked| {
        // A server whose path was removed is still in the table.
        let answers = lstat(path).is_ok() && !servers_at(path).is_empty();
        if answers { live(path) } else { locked }
    })
}

fn live(path: &Path) -> Failure {
    Failure::new(BindStep::Probe, Errno::EADDRINUSE)
        .about(path)
        .because(Obstacle::LiveServer)
}

/// What is at the path: nothing, or a stale socket. Everything else is an error.
fn look(kind: UnixKind, path: &Path) -> Result<Option<FileStat>, Failure> {
    match lstat(path) {
        Ok(found) => probe(kind, path, &found).map(|()| Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => {
            let folder = path.parent().unwrap_or(path);
            Err(Failure::new(BindStep::CreateFolder, errno).about(folder))
        }
    }
}

/// Binds to a name in the abstract namespace, which has neither file nor rights (unix(7)).
pub(super) fn bind_abstract(kind: UnixKind, name: &str) -> Result<Socket, Failure> {
    // A leading NUL is what makes the name abstract.
    let mut bytes = vec![0];
    bytes.extend_from_slice(name.as_bytes());
    let socket = new_socket(socket_type(kind))?;
    SockAddr::unix(OsString::from_vec(bytes))
        .and_then(|address| socket.bind(&address))
        .map_err(|error| Failure::new(BindStep::Bind, error))?;
    Ok(socket)
}

fn socket_type(kind: UnixKind) -> Type {
    match kind {
        UnixKind::Stream => Type::STREAM,
        UnixKind::Datagram => Type::DGRAM,
        UnixKind::SeqPacket => Type::SEQPACKET,
    }
}

fn new_socket(kind: Type) -> Result<Socket, Failure> {
    Socket::new(Domain::UNIX, kind, None).map_err(|error| Failure::new(BindStep::Socket, error))
}

/// Answers `Ok` only for a socket that nobody is bound to any more.
fn probe(kind: UnixKind, path: &Path, found: &FileStat) -> Result<(), Failure> {
    if let Some(words) = not_a_socket(found) {
        return Err(Failure::new(BindStep::Probe, Errno::EEXIST)
            .about(path)
            .because(Obstacle::NotASocket(words)));
    }
    // Non-blocking: a server with a full queue would keep us waiting.
    let socket = new_socket(socket_type(kind).nonblocking())?;
    let answer = Reach::to(path).and_then(|reach| socket.connect(&reach.address));
    let errno = match answer {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(nix::libc::ENAMETOOLONG),
    };
    match Errno::from_raw(errno) {
        // Also the answer of a server between its bind(2) and its listen(2).
        Errno::ECONNREFUSED if bound_without_listening(path) => Err(live(path)),
        Errno::ECONNREFUSED => Ok(()),
        // EPROTOTYPE: bound by a socket of another type. EPERM: a datagram socket that takes
        // from one peer only. Somebody has it open in every case.
        Errno::UnknownErrno
        | Errno::EAGAIN
        | Errno::EINPROGRESS
        | Errno::EPROTOTYPE
        | Errno::EPERM => Err(live(path)),
        // It went away between lstat(2) and connect(2); bind(2) will tell.
        Errno::ENOENT => Ok(()),
        other => Err(Failure::new(BindStep::Probe, other)
            .about(path)
            .because(Obstacle::Unprobed)),
    }
}

/// Whether a socket is bound to exactly this path and neither listens nor is connected.
fn bound_without_listening(path: &Path) -> bool {
    servers_at(path).contains(&false)
}

/// The sockets bound to exactly this path that are not connections, each with whether it listens,
/// as far as this network namespace shows (/proc/net/unix, unix(7)). What was bound through its
/// folder bears another name there, so that for a long path only the lock keeps two listends apart.
fn servers_at(path: &Path) -> Vec<bool> {
    /// __SO_ACCEPTCON, among the flags.
    const LISTENS: u32 = 0x1_0000;
    /// SS_UNCONNECTED.
    const UNCONNECTED: &[u8] = b"01";
    let table = std::fs::read("/proc/net/unix").unwrap_or_default();
    let rows = table.split(|byte| *byte == b'\n');
    let server = |row: &[u8]| {
        // Num RefCount Protocol Flags Type St Inode Path; the path may hold blanks itself.
        let front = row.strip_suffix(path.as_os_str().as_bytes())?;
        if !front.ends_with(b" ") {
            return None;
        }
        let mut columns = front
            .split(|byte| *byte == b' ')
            .filter(|one| !one.is_empty());
        let flags = str::from_utf8(columns.nth(3)?).ok()?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (columns.nth(1) == Some(UNCONNECTED)).then_some(flags & LISTENS != 0)
    };
    rows.filter_map(server).collect()
}

/// What it is, with its article; `None` for a socket.
pub(super) fn not_a_socket(found: &FileStat) -> Option<&'static str> {
    let format = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
    Some(match format {
        SFlag::S_IFSOCK => return None,
        SFlag::S_IFREG => "a regular file",
        SFlag::S_IFDIR => "a folder",
        // Not followed: what it points to may be anybody's.
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a fifo",
        SFlag::S_IFBLK | SFlag::S_IFCHR => "a device",
        _ => "a file of an unknown type",
    })
}

/// Removes the socket that was probed, and only that one.
fn remove_stale(path: &Path, probed: PathIdentity) -> Result<(), Failure> {
    match lstat(path) {
        Ok(now) if is_socket(now.st_mode) && PathIdentity::of(&now) == probed => {
            match std::fs::remove_file(path) {
                Err(error) if error.raw_os_error() != Some(nix::libc::ENOENT) => {
                    Err(Failure::new(BindStep::RemoveStale, error).about(path))
                }
                _ => Ok(()),
            }
        }
        Err(Errno::ENOENT) => Ok(()),
        _ => Err(Failure::new(BindStep::RemoveStale, Errno::EADDRINUSE)
            .about(path)
            .because(Obstacle::Interference)),
    }
}

/// Says whether a stale path could be replaced, without touching it: could we unlink it, and
/// does a bind in its folder work?
fn try_beside(kind: UnixKind, path: &Path, found: &FileStat) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let refused = |errno| Failure::new(BindStep::RemoveStale, errno).about(path);
    let holds = stat(folder).map_err(refused)?;
    let we = geteuid().as_raw();
    // In a sticky folder such as /tmp only the owner of file or folder may unlink (unlink(2)).
    let sticky = holds.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
        && holds.st_mode & Mode::S_ISVTX.bits() != 0;
    if sticky && we != 0 && we != found.st_uid && we != holds.st_uid {
        return Err(refused(Errno::EPERM));
    }
    eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(refused)?;
    let beside = folder.join(format!(".listend-check-{}", std::process::id()));
    let socket = new_socket(socket_type(kind))?;
    let bound = {
        let _mask = Umask::without(0o777);
        Reach::to(&beside).and_then(|reach| socket.bind(&reach.address))
    };
    match bound {
        Ok(()) => {
            if let Ok(ours) = lstat(&beside) {
                let _ = remove_if_ours(&beside, PathIdentity::of(&ours));
            }
            Ok(())
        }
        // Somebody has even that name; the folder has been shown to be writable.
        Err(error) if error.raw_os_error() == Some(nix::libc::EADDRINUSE) => Ok(()),
        Err(error) => Err(Failure::new(BindStep::Bind, error).about(path)),
    }
}

/// Binds at a path where nothing is, and gives the file its owner and mode.
fn bind_here(
    kind: UnixKind,
    path: &Path,
    access: &Access,
) -> Result<(Socket, PathIdentity), Failure> {
    let socket = new_socket(socket_type(kind))?;
    // With an owner to set, the file is born without any rights: neither the old nor the new
    // owner's class has more than asked at any time. Otherwise it is born with its mode.
    let changes_owner = access.owner.is_some() || access.group.is_some();
    let born = if changes_owner {
        0
    } else {
        access.mode & 0o777
    };
    {
        let _mask = Umask::without(!born & 0o777);
        Reach::to(path)
            .and_then(|reach| socket.bind(&reach.address))
            .map_err(|error| Failure::new(BindStep::Bind, error).about(path))?;
    }
    let (handle, file) = open_ours(path, born, changes_owner)?;
    let identity = PathIdentity::of(&file);
    match give_rights(path, access, &handle, &file) {
        Ok(()) => Ok((socket, identity)),
        Err(failure) => {
            // A path without its rights is of no use to anybody.
            let _ = remove_if_ours(path, identity);
            Err(failure)
        }
    }
}

/// A handle on the file just bound. Whoever may write to the folder could have exchanged it, so
/// what is handed to another owner must look exactly like what was created: a socket of ours
/// without rights.
fn open_ours(path: &Path, born: u32, changes_owner: bool) -> Result<(OwnedFd, FileStat), Failure> {
    let failed = |errno| Failure::new(BindStep::ReadBack, errno).about(path);
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let handle = open(path, flags, Mode::empty()).map_err(failed)?;
    let file = fstat(&handle).map_err(failed)?;
    let wider = file.st_mode & 0o7777 & !(born as nix::libc::mode_t) != 0;
    let ours = is_socket(file.st_mode)
        && (!changes_owner || (file.st_uid == geteuid().as_raw() && !wider));
    if ours {
        Ok((handle, file))
    } else {
        Err(failed(Errno::EADDRINUSE).because(Obstacle::Interference))
    }
}

/// Owner and group first, then the mode, both through the handle and never by name.
pub(super) fn give_rights(
    path: &Path,
    access: &Access,
    handle: &OwnedFd,
    file: &FileStat,
) -> Result<(), Failure> {
    if access.owner.is_some() || access.group.is_some() {
        let owner = access.owner.map(Uid::from_raw);
        let group = access.group.map(Gid::from_raw);
        fchownat(handle, "", owner, group, AtFlags::AT_EMPTY_PATH)
            .map_err(|errno| Failure::new(BindStep::SetOwner, errno).about(path))?;
    }
    // Equal already, unless there was an owner to set or the folder has default ACLs (acl(5)).
    if file.st_mode & 0o7777 != access.mode as nix::libc::mode_t & 0o7777 {
        // fchmod(2) refuses O_PATH handles; their link in /proc leads to the file itself.
        let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
        std::fs::set_permissions(link, std::fs::Permissions::from_mode(access.mode & 0o7777))
            .map_err(|error| Failure::new(BindStep::SetMode, error).about(path))?;
    }
    Ok(())
}
