//! Unix sockets: what may be at the path, and who may use it.
//!
//! The invariants: a path is removed only if it is a socket on which nobody listens; there is no
//! moment in which a path or folder has more rights than asked for; the umask is restored on
//! every way out. Sockets are bound at their final path, never renamed into place, because
//! getsockname(2) would show workers the other name.
//!
//! Nothing is kept beside a path to say whose it is. A path is ours while the file there is the one
//! that our socket is bound to ([`PathIdentity`]): the open socket keeps that inode in use, so no
//! other file can get its number. Whether another process has it, the kernel is asked
//! ([`Diag::unix_bound_to`]), and where it cannot tell, connect(2) does.

use super::bind_error::{BindStep, Failure, Obstacle, Purpose};
use super::diag::Diag;
use super::identity::{PathIdentity, is_socket, remove_if, remove_ours};
use super::paths::{
    TriedAt, Umask, create_parents, is_long, plain, reach, through, try_create, try_replace,
};
use crate::config::UnixKind;
use crate::plan::Access;
use crate::walk::{Hand, Place};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat};
use nix::poll::poll;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::{Gid, Uid, fchownat, getegid, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The number of names tried for a stale path that is moved aside.
const ATTEMPTS: u32 = 16;

/// The number of tries to lock a folder that another process has locked, `LOCK_PAUSE` milliseconds
/// apart.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: u8 = 5;

/// The result of binding to a path.
#[derive(Debug)]
pub(super) struct Done {
    /// Bound, unless the path was only to be tried.
    pub(super) socket: Socket,
    pub(super) file: File,
    /// Whether a stale socket is, or was, in the way.
    pub(super) stale: bool,
}

/// The file of a path.
#[derive(Debug)]
pub(super) enum File {
    Made(PathIdentity),
    /// The path would be created here; it was only tried.
    Tried(TriedAt),
}

/// A socket at the path that nobody is bound to. The handle keeps the inode in use, so that no other
/// file can be taken for it.
struct Stale {
    file: FileStat,
    _handle: OwnedFd,
}

/// Binds to a path, in this order: what is there, folders, bind, owner, mode. To try it makes and
/// removes nothing.
pub(super) fn bind(
    kind: UnixKind,
    path: &Path,
    access: &Access,
    purpose: Purpose,
    folders: &mut Vec<PathBuf>,
) -> Result<Done, Failure> {
    let (place, missing) = reach(path)?;
    let stale = match missing.as_slice() {
        [] => look(kind, path, &place)?,
        _ => None,
    };
    let is_stale = stale.is_some();
    let (socket, file) = match purpose {
        Purpose::Try => {
            let place = match &stale {
                Some(found) => try_replace(path, &place, &found.file)?,
                None => try_create(path, access)?,
            };
            (new_socket(socket_type(kind))?, File::Tried(place))
        }
        Purpose::Keep => {
            let place = match stale {
                Some(_) => {
                    remove_if_stale(kind, &place)?;
                    place
                }
                None => create_parents(path, access, folders)?,
            };
            let (socket, identity) = bind_here(kind, path, &place, access)?;
            (socket, File::Made(identity))
        }
    };
    Ok(Done {
        socket,
        file,
        stale: is_stale,
    })
}

/// Removes what is there, if it is a socket that nobody is bound to. Everything else is an error.
///
/// While one process looks and removes, no other one of listend does so in the same folder: it could
/// move aside what the first has bound meanwhile, and a third bind where that was.
pub(super) fn remove_if_stale(kind: UnixKind, place: &Place) -> Result<(), Failure> {
    let _alone = lock(place);
    let path = place.path();
    match look(kind, &path, place)? {
        Some(stale) => remove_stale(&path, place, &stale),
        None => Ok(()),
    }
}

/// Locks the folder (flock(2)) against others that replace stale sockets in it. A user who may read a
/// folder may lock it for ever: after a tenth of a second binding goes on without the lock.
fn lock(place: &Place) -> Option<Flock<OwnedFd>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut folder = openat(place.folder(), ".", flags, Mode::empty()).ok()?;
    for _ in 0..LOCK_TRIES {
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((unlocked, Errno::EWOULDBLOCK)) => folder = unlocked,
            Err(_) => return None,
        }
        let _pause = poll(&mut [], LOCK_PAUSE);
    }
    None
}

/// Looks at the path: nothing, or a stale socket. Everything else is an error.
fn look(kind: UnixKind, path: &Path, place: &Place) -> Result<Option<Stale>, Failure> {
    match place.handle() {
        Ok((handle, file)) => {
            probe(kind, path, place, &file)?;
            Ok(Some(Stale {
                file,
                _handle: handle,
            }))
        }
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

pub(super) fn socket_type(kind: UnixKind) -> Type {
    match kind {
        UnixKind::Stream => Type::STREAM,
        UnixKind::Datagram => Type::DGRAM,
        UnixKind::SeqPacket => Type::SEQPACKET,
    }
}

pub(super) fn new_socket(kind: Type) -> Result<Socket, Failure> {
    Socket::new(Domain::UNIX, kind, None).map_err(|error| Failure::new(BindStep::Socket, error))
}

/// Answers `Ok` only for a socket that nobody is bound to any more. A server that the kernel shows is
/// not connected to: that would be the client that an on-demand worker waits for.
fn probe(kind: UnixKind, path: &Path, place: &Place, found: &FileStat) -> Result<(), Failure> {
    if let Some(words) = not_a_socket(found) {
        return Err(Failure::new(BindStep::Probe, Errno::EEXIST)
            .about(path)
            .because(Obstacle::NotASocket(words)));
    }
    let live = |socket| {
        Failure::new(BindStep::Probe, Errno::EADDRINUSE)
            .about(path)
            .because(Obstacle::LiveServer { socket })
    };
    // It shows a server between its bind(2) and its listen(2), too, which would refuse connect(2).
    let bound = Diag::new().and_then(|diag| diag.unix_bound_to(PathIdentity::of(found)));
    if let Ok(Some(socket)) = bound {
        return Err(live(Some(socket)));
    }
    // It may be in another network namespace, or the kernel may lack unix_diag. Non-blocking: a
    // server with a full queue would keep us waiting.
    let socket = new_socket(socket_type(kind).nonblocking())?;
    let address = if is_long(path) || place.hand_on_folder() != Hand::Ours {
        through(place)
    } else {
        plain(path)
    };
    let answer = address.and_then(|address| socket.connect(&address));
    let errno = match answer {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(nix::libc::ENAMETOOLONG),
    };
    match Errno::from_raw(errno) {
        Errno::ECONNREFUSED => Ok(()),
        // EPROTOTYPE: bound by a socket of another type. EPERM: a datagram socket that takes
        // from one peer only. Somebody has it open in every case.
        Errno::UnknownErrno
        | Errno::EAGAIN
        | Errno::EINPROGRESS
        | Errno::EPROTOTYPE
        | Errno::EPERM => Err(live(None)),
        // It went away between open(2) and connect(2); bind(2) will tell.
        Errno::ENOENT => Ok(()),
        other => Err(Failure::new(BindStep::Probe, other)
            .about(path)
            .because(Obstacle::Unprobed)),
    }
}

/// The kind of a file, with its article; `None` for a socket.
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

/// Removes the socket that was probed, and only that one. Another process may have put its own in its
/// place meanwhile, so it is moved aside first, which is one step, and looked at again: what is not
/// the one that was probed goes back.
fn remove_stale(path: &Path, place: &Place, probed: &Stale) -> Result<(), Failure> {
    let failed = |errno: Errno| Failure::new(BindStep::RemoveStale, errno).about(path);
    let interference = || failed(Errno::EADDRINUSE).because(Obstacle::Interference);
    for attempt in 0..ATTEMPTS {
        let name = format!(".listend-{}-{attempt}", std::process::id());
        let aside = place.beside(name).map_err(failed)?;
        match place.rename(aside.name()) {
            Ok(()) => {
                let identity = PathIdentity::of(&probed.file);
                let moved = aside.look().map_err(failed)?;
                if PathIdentity::of(&moved) == identity {
                    return aside.remove().map_err(failed);
                }
                // If there is something again, the one that was moved has been given up by its owner
                // or replaced by it: its name is not ours to decide.
                let _other_in_place = aside.rename(place.name());
                return Err(interference());
            }
            Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(interference())
}

/// Binds at a path where nothing is, and gives the file its owner and mode.
fn bind_here(
    kind: UnixKind,
    path: &Path,
    place: &Place,
    access: &Access,
) -> Result<(Socket, PathIdentity), Failure> {
    let socket = new_socket(socket_type(kind))?;
    // With an owner to set, the file is born without any rights: neither the old nor the new
    // owner's class has more than asked at any time. Otherwise it is born with its mode.
    let changes_owner = access.owner.is_some() || access.group.is_some();
    let steered = place.hand_on_folder();
    let born = if changes_owner || steered != Hand::Ours {
        0
    } else {
        access.mode & 0o777
    };
    let maker = {
        let _mask = Umask::without(!born & 0o777);
        bind_at(&socket, path, place)
            .map_err(|error| Failure::new(BindStep::Bind, error).about(path))?
    };
    let is_shared = changes_owner || steered != Hand::Ours;
    let opened = open_ours(path, place, is_shared.then_some((born, maker)));
    if opened.as_ref().is_err_and(|why| why.obstacle.is_none()) {
        // No descriptor is left. The socket is closed now, and its file would stay behind.
        let _removed = remove_if(place, |file| {
            is_socket(file.st_mode) && is_as_born(file, born, maker)
        });
    }
    let (handle, file) = opened?;
    let identity = PathIdentity::of(&file);
    let given = if maker == geteuid().as_raw() {
        *access
    } else {
        // As it would be if it had been made here.
        Access {
            owner: access.owner.or(Some(geteuid().as_raw())),
            group: access.group.or(Some(getegid().as_raw())),
            ..*access
        }
    };
    match give_rights(path, &given, &handle, &file) {
        Ok(()) => Ok((socket, identity)),
        Err(failure) => {
            // A path without its rights is of no use to anybody.
            let _ = remove_ours(place, identity);
            Err(failure)
        }
    }
}

/// Binds to the path itself, because that is the name that workers see. Answers with the user who
/// made the file.
///
/// bind(2) follows every link on the way. So where others can change it, it is done with their rights,
/// and where those are not enough, through the folder.
fn bind_at(socket: &Socket, path: &Path, place: &Place) -> io::Result<u32> {
    let us = geteuid().as_raw();
    if is_long(path) {
        return socket.bind(&through(place)?).map(|()| us);
    }
    let address = plain(path)?;
    let Hand::Theirs { uid, .. } = place.hand_on_folder() else {
        return socket.bind(&address).map(|()| us);
    };
    match place.hand_on_folder().act(|| socket.bind(&address)) {
        Some(Ok(())) => return Ok(uid),
        Some(Err(error)) if error.raw_os_error() == Some(nix::libc::EADDRINUSE) => {
            return Err(error);
        }
        Some(Err(_)) | None => {}
    }
    socket.bind(&through(place)?).map(|()| us)
}

/// A handle on the file just bound. A user who may write to the folder could have exchanged it, so
/// what is handed to another owner must look exactly like what was `born`: a socket of its maker's
/// with those rights and one name.
fn open_ours(
    path: &Path,
    place: &Place,
    born: Option<(u32, u32)>,
) -> Result<(OwnedFd, FileStat), Failure> {
    let failed = |errno| Failure::new(BindStep::ReadBack, errno).about(path);
    let (handle, file) = place.handle().map_err(failed)?;
    let is_ours = born.is_none_or(|(mode, maker)| is_as_born(&file, mode, maker));
    if is_socket(file.st_mode) && is_ours {
        Ok((handle, file))
    } else {
        Err(failed(Errno::EADDRINUSE).because(Obstacle::Interference))
    }
}

/// Whether a file belongs to its maker, has no more than these rights, and no other name.
fn is_as_born(file: &FileStat, mode: u32, maker: u32) -> bool {
    let wider = file.st_mode & 0o7777 & !(mode as nix::libc::mode_t) != 0;
    file.st_uid == maker && !wider && file.st_nlink == 1
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::{UnixListener, UnixStream};

    /// A folder with a path at which a socket was that nobody has open, and that socket as it was probed.
    fn with_stale(test: &str) -> (PathBuf, Place, Stale) {
        let name = format!("listend-stale-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("create a folder");
        let path = folder.join("sock");
        drop(UnixListener::bind(&path).expect("bind"));
        let place = Place::of(&path).expect("a place");
        let stale = look(UnixKind::Stream, &path, &place).expect("stale");
        (path, place, stale.expect("a socket"))
    }

    fn names(path: &Path) -> Vec<OsString> {
        let all = fs::read_dir(path.parent().expect("a folder")).expect("read");
        let mut names: Vec<_> = all.map(|one| one.expect("an entry").file_name()).collect();
        names.sort();
        names
    }

    fn clean(path: &Path) {
        fs::remove_dir_all(path.parent().expect("a folder")).expect("remove");
    }

    #[test]
    fn a_server_that_has_replaced_what_was_probed_gets_its_path_back() {
        let (path, place, stale) = with_stale("replaced");
        fs::remove_file(&path).expect("remove");
        let server = UnixListener::bind(&path).expect("bind");
        let failure = remove_stale(&path, &place, &stale).expect_err("it is another one");
        assert!(matches!(failure.obstacle, Some(Obstacle::Interference)));
        assert_eq!(names(&path), ["sock"]);
        UnixStream::connect(&path).expect("connect");
        drop(server);
        clean(&path);
    }

    #[test]
    fn what_was_probed_is_removed_whatever_has_the_name_it_is_moved_to() {
        let (path, place, stale) = with_stale("aside");
        let aside = |attempt: u32| format!(".listend-{}-{attempt}", std::process::id());
        fs::write(path.with_file_name(aside(0)), "").expect("write");
        remove_stale(&path, &place, &stale).expect("remove");
        assert_eq!(names(&path), [OsString::from(aside(0))]);
        // Gone meanwhile: nothing is to be removed.
        remove_stale(&path, &place, &stale).expect("nothing is there");
        // With all of the names in use it gives up.
        drop(UnixListener::bind(&path).expect("bind"));
        for attempt in 1..ATTEMPTS {
            fs::write(path.with_file_name(aside(attempt)), "").expect("write");
        }
        remove_stale(&path, &place, &stale).expect_err("no name is left");
        assert!(path.exists());
        clean(&path);
    }

    #[test]
    fn one_at_a_time_replaces_stale_sockets_in_a_folder() {
        let (path, place, _stale) = with_stale("lock");
        let first = lock(&place);
        assert!(first.is_some());
        assert!(lock(&place).is_none());
        drop(first);
        assert!(lock(&place).is_some());
        clean(&path);
    }

    #[test]
    fn who_can_move_the_folder_does_not_choose_which_server_is_asked() {
        let (path, _, _stale) = with_stale("moved");
        let folder = path.parent().expect("a folder").to_owned();
        if std::os::unix::fs::chown(&folder, Some(4_711), None).is_err() {
            return clean(&path);
        }
        let place = Place::of(&path).expect("a place");
        let found = place.look().expect("a socket");
        let away = folder.with_extension("away");
        fs::rename(&folder, &away).expect("move");
        fs::create_dir(&folder).expect("create a folder");
        let _other = UnixListener::bind(&path).expect("bind");
        probe(UnixKind::Stream, &path, &place, &found).expect("nobody is bound to what was found");
        clean(&path);
        clean(&away.join("sock"));
    }

    #[test]
    fn what_is_at_the_path_after_bind_has_to_look_as_it_was_born() {
        let (path, place, _stale) = with_stale("born");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let us = geteuid().as_raw();
        let is_taken = |born| open_ours(&path, &place, born).is_ok();
        assert!(is_taken(None) && is_taken(Some((0o600, us))));
        assert!(
            is_taken(Some((0o640, us))),
            "a default ACL has taken a right"
        );
        assert!(!is_taken(Some((0o400, us))), "wider");
        assert!(!is_taken(Some((0o600, us + 1))), "somebody else's");
        fs::hard_link(&path, path.with_file_name("twice")).expect("link");
        assert!(!is_taken(Some((0o600, us))), "two names");
        fs::remove_file(&path).expect("remove");
        fs::write(&path, "").expect("write");
        assert!(!is_taken(None), "no socket");
        clean(&path);
    }
}
