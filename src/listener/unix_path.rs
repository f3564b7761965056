//! Unix sockets: what may be at the path, who may use it, and folders.
//!
//! The invariants: a path is removed only if it is a socket on which nobody listens; there is no
//! moment in which a path or folder has more rights than asked for; the umask is restored on
//! every way out. Sockets are bound at their final path, never renamed into place, because
//! getsockname(2) would show workers the other name.

use super::bind::{BindStep, Failure, Obstacle, Purpose};
use super::bound::{PathIdentity, is_socket, remove_if_ours};
use crate::config::UnixKind;
use crate::plan::Access;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, lstat, stat, umask};
use nix::unistd::{AccessFlags, Gid, Uid, eaccess, fchownat, geteuid, mkdir};
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The bytes of a path that fit into a `sockaddr_un` with the NUL behind them (unix(7)).
const MAX_PATH: usize = 107;

/// What came of a path.
#[derive(Debug)]
pub(super) struct Done {
    /// The socket and its file; `None` if a stale path was only to be tried.
    pub(super) bound: Option<(Socket, PathIdentity)>,
    /// Whether a stale socket is, or was, in the way.
    pub(super) stale: bool,
}

/// Sets the umask (umask(2)) and puts the old one back when it goes out of scope.
struct Umask(Mode);

impl Umask {
    /// Takes these permission bits away from what is created meanwhile.
    fn without(bits: u32) -> Umask {
        Umask(umask(permissions(bits)))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

fn permissions(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits as nix::libc::mode_t)
}

/// Binds to a path, in this order: what is there, folders, bind, owner, mode.
pub(super) fn bind(
    kind: UnixKind,
    path: &Path,
    access: &Access,
    purpose: Purpose,
    folders: &mut Vec<PathBuf>,
) -> Result<Done, Failure> {
    let stale = match lstat(path) {
        Ok(found) => {
            probe(kind, path, &found)?;
            if purpose == Purpose::Try {
                try_beside(kind, path, &found)?;
                return Ok(Done {
                    bound: None,
                    stale: true,
                });
            }
            remove_stale(path, PathIdentity::of(&found))?;
            true
        }
        Err(Errno::ENOENT) => {
            create_parents(path, access.directory_mode, folders)?;
            false
        }
        Err(errno) => {
            let folder = path.parent().unwrap_or(path);
            return Err(Failure::new(BindStep::CreateFolder, errno).about(folder));
        }
    };
    let bound = bind_here(kind, path, access)?;
    Ok(Done {
        bound: Some(bound),
        stale,
    })
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
    let answer = SockAddr::unix(path).and_then(|address| socket.connect(&address));
    let errno = match answer {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(nix::libc::ENAMETOOLONG),
    };
    match Errno::from_raw(errno) {
        // Also the answer of a server between its bind(2) and its listen(2).
        Errno::ECONNREFUSED if bound_without_listening(path) => {
            Err(Failure::new(BindStep::Probe, Errno::EADDRINUSE)
                .about(path)
                .because(Obstacle::LiveServer))
        }
        Errno::ECONNREFUSED => Ok(()),
        // EPROTOTYPE: bound by a socket of another type. EPERM: a datagram socket that takes
        // from one peer only. Somebody has it open in every case.
        Errno::UnknownErrno
        | Errno::EAGAIN
        | Errno::EINPROGRESS
        | Errno::EPROTOTYPE
        | Errno::EPERM => Err(Failure::new(BindStep::Probe, Errno::EADDRINUSE)
            .about(path)
            .because(Obstacle::LiveServer)),
        // It went away between lstat(2) and connect(2); bind(2) will tell.
        Errno::ENOENT => Ok(()),
        other => Err(Failure::new(BindStep::Probe, other)
            .about(path)
            .because(Obstacle::Unprobed)),
    }
}

/// Whether a socket is bound to exactly this path and neither listens nor is connected, as far as
/// this network namespace shows (/proc/net/unix, unix(7)).
fn bound_without_listening(path: &Path) -> bool {
    /// __SO_ACCEPTCON, among the flags.
    const LISTENS: u32 = 0x1_0000;
    /// SS_UNCONNECTED.
    const UNCONNECTED: &[u8] = b"01";
    let table = std::fs::read("/proc/net/unix").unwrap_or_default();
    table.split(|byte| *byte == b'\n').any(|row| {
        // Num RefCount Protocol Flags Type St Inode Path; the path may hold blanks itself.
        let mut columns = row
            .splitn(8, |byte| *byte == b' ')
            .filter(|one| !one.is_empty());
        let flags = columns.nth(3).and_then(|flags| str::from_utf8(flags).ok());
        let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok());
        let state = columns.nth(1);
        flags.is_some_and(|flags| flags & LISTENS == 0)
            && state == Some(UNCONNECTED)
            && row.ends_with(path.as_os_str().as_bytes())
            && row
                .get(..row.len() - path.as_os_str().len())
                .is_some_and(|front| front.ends_with(b" "))
    })
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
    if beside.as_os_str().len() > MAX_PATH {
        return Ok(());
    }
    let socket = new_socket(socket_type(kind))?;
    let bound = {
        let _mask = Umask::without(0o777);
        SockAddr::unix(&beside).and_then(|address| socket.bind(&address))
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

/// Creates the folders that are missing, each with exactly this mode, and remembers them.
pub(super) fn create_parents(
    path: &Path,
    mode: u32,
    created: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for folder in path.ancestors().skip(1) {
        match stat(folder) {
            Ok(_) => break,
            Err(Errno::ENOENT) => missing.push(folder),
            Err(errno) => return Err(Failure::new(BindStep::CreateFolder, errno).about(folder)),
        }
    }
    for folder in missing.into_iter().rev() {
        let made = {
            // With an empty umask the mode is right at birth, neither wider nor narrower.
            let _mask = Umask::without(0);
            mkdir(folder, permissions(mode))
        };
        match made {
            Ok(()) => created.push(folder.to_owned()),
            Err(Errno::EEXIST) => continue,
            Err(errno) => return Err(Failure::new(BindStep::CreateFolder, errno).about(folder)),
        }
        // mkdir(2) ignores the set-id bits; adding them later gives nobody access.
        if mode & 0o6000 != 0 {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(folder, permissions)
                .map_err(|error| Failure::new(BindStep::SetMode, error).about(folder))?;
        }
    }
    Ok(())
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
        SockAddr::unix(path)
            .and_then(|address| socket.bind(&address))
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
