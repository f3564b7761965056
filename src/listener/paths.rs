//! Unix paths for bind(2), and the folders that lead to them.

use super::bind_error::{BindStep, Failure, Obstacle};
use super::identity::PathIdentity;
use crate::plan::Access;
use crate::walk::Place;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat, umask};
use nix::unistd::{AccessFlags, Gid, Uid, eaccess, fchown, geteuid};
use socket2::{SockAddr, SockRef};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The bytes of a path that fit into a `sockaddr_un` with the NUL behind them (unix(7)).
pub(super) const MAX_PATH: usize = 107;

/// A path as bind(2) and connect(2) take it: as it is, or through its folder.
///
/// `/proc/self/fd/N/NAME` names the same file as long as descriptor N is open here, whatever others
/// make of the path meanwhile. That text, and not the path, is what getsockname(2) then shows to
/// workers and accept(2) to clients, and it means nothing to them; the path that they are to see is in
/// the plan and in [`super::BoundSocket::address`].
///
/// # Errors
///
/// ENAMETOOLONG: [`MAX_PATH`].
pub(super) fn plain(path: &Path) -> io::Result<SockAddr> {
    SockAddr::unix(path).map_err(|_| Errno::ENAMETOOLONG.into())
}

/// The address of a place by the descriptor of its folder.
///
/// # Errors
///
/// ENAMETOOLONG when the name alone is too long.
pub(super) fn through(place: &Place) -> io::Result<SockAddr> {
    by_descriptor(place.folder().as_raw_fd(), place.name())
}

fn by_descriptor(folder: RawFd, name: &OsStr) -> io::Result<SockAddr> {
    let mut text = OsString::from(format!("/proc/self/fd/{folder}/"));
    text.push(name);
    SockAddr::unix(text).map_err(|_| Errno::ENAMETOOLONG.into())
}

/// Connects (connect(2)) to the unix socket at a path, however long the path is.
///
/// # Errors
///
/// Those of open(2) for the folder of a long path, and of connect(2); ENAMETOOLONG when the name alone is
/// too long.
pub fn connect_to(socket: &impl AsFd, path: &Path) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let (true, Some(folder), Some(name)) = (is_long(path), path.parent(), path.file_name()) else {
        return socket.connect(&plain(path)?);
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = open(folder, flags, Mode::empty())?;
    socket.connect(&by_descriptor(folder.as_raw_fd(), name)?)
}

/// Whether a path can be told to the kernel in either way, also if its folder is not there yet.
fn fits(path: &Path) -> io::Result<()> {
    if is_long(path) {
        // The number of a descriptor that is yet to be opened is not known; it is short.
        by_descriptor(0, path.file_name().unwrap_or_default())?;
    }
    Ok(())
}

/// Whether the path does not fit into a `sockaddr_un`.
pub(super) fn is_long(path: &Path) -> bool {
    path.as_os_str().as_bytes().len() > MAX_PATH
}

/// Sets the umask (umask(2)) and puts the old one back when it goes out of scope.
pub(super) struct Umask(Mode);

impl Umask {
    /// Takes these permission bits away from what is created meanwhile.
    pub(super) fn without(bits: u32) -> Umask {
        Umask(umask(permissions(bits)))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

pub(super) fn permissions(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits as nix::libc::mode_t)
}

/// Creates the folders that are missing, each with exactly the mode, owner and group asked for,
/// and remembers them. Answers with the place of the path.
pub(super) fn create_parents(
    path: &Path,
    access: &Access,
    created: &mut Vec<PathBuf>,
) -> Result<Place, Failure> {
    // Once for each that may be missing, and once more.
    for _ in path.ancestors() {
        let (place, missing) = reach(path)?;
        if missing.is_empty() {
            return Ok(place);
        }
        let folder = place.path();
        match create(&place, access) {
            Ok(()) => created.push(folder),
            // Somebody else was faster, and what is there is looked at like any other.
            Err((BindStep::CreateFolder, Errno::EEXIST)) => {}
            Err((step, errno)) => {
                if step != BindStep::CreateFolder {
                    created.push(folder.clone());
                }
                return Err(Failure::new(step, errno).about(folder));
            }
        }
    }
    Err(Failure::new(BindStep::CreateFolder, Errno::EEXIST)
        .about(path)
        .because(Obstacle::Interference))
}

/// The way to a path, as far as its folders are there.
pub(super) fn reach(path: &Path) -> Result<(Place, Vec<OsString>), Failure> {
    Place::reach(path).map_err(|refused| Failure::on_the_way(BindStep::CreateFolder, refused))
}

type Step = (BindStep, Errno);

/// A folder that is nobody else's until owner and group are right, and everything through a handle, so
/// that what is given away is what was created.
fn create(place: &Place, access: &Access) -> Result<(), Step> {
    let failed = |errno| (BindStep::CreateFolder, errno);
    let owner = access.directory_owner.map(Uid::from_raw);
    let group = access.directory_group.map(Gid::from_raw);
    let is_given_away = owner.is_some() || group.is_some();
    let born = if is_given_away {
        0o700
    } else {
        access.directory_mode & 0o1777
    };
    {
        // With an empty umask the mode is right at birth, neither wider nor narrower.
        let _mask = Umask::without(0);
        mkdirat(place.folder(), place.name(), permissions(born)).map_err(failed)?;
    }
    // mkdir(2) ignores the set-id bits; adding them later gives nobody access.
    if !is_given_away && born == access.directory_mode {
        return Ok(());
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let handle = openat(place.folder(), place.name(), flags, Mode::empty()).map_err(failed)?;
    if !is_as_born(&handle, born).map_err(failed)? {
        return Err(failed(Errno::ENOTDIR));
    }
    if is_given_away {
        fchown(&handle, owner, group).map_err(|errno| (BindStep::SetOwner, errno))?;
    }
    let mode = Mode::from_bits_retain(access.directory_mode as nix::libc::mode_t & 0o7777);
    fchmod(&handle, mode).map_err(|errno| (BindStep::SetMode, errno))
}

/// Whether a folder can be the one just made. One whose parent has the set-group-id bit inherits it, and
/// the group. Others who may write to the parent could have put another folder of ours there, but none
/// that is as new as this.
fn is_as_born(folder: &OwnedFd, mode: u32) -> nix::Result<bool> {
    let found = fstat(folder)?;
    let is_ours = found.st_uid == geteuid().as_raw();
    Ok(found.st_mode & 0o5777 == permissions(mode).bits() && is_ours && is_empty(folder))
}

fn is_empty(folder: &OwnedFd) -> bool {
    let folder = format!("/proc/self/fd/{}", folder.as_raw_fd());
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// The place of a path that is only tried: the innermost folder that exists, and the rest.
pub(super) type TriedAt = (PathIdentity, PathBuf);

/// Says whether a socket or FIFO could be made there, as far as that can be seen without making
/// anything that has a name.
pub(super) fn try_create(path: &Path, access: &Access) -> Result<TriedAt, Failure> {
    let (place, below) = reach(path)?;
    let missing = place.path();
    let rest = std::iter::once(place.name().to_owned()).chain(below.iter().cloned());
    let tried_at = (PathIdentity::of(place.holds()), rest.collect());
    let is_there = below.is_empty();
    let step = if is_there {
        BindStep::Bind
    } else {
        BindStep::CreateFolder
    };
    let failed = |step, errno| Failure::new(step, errno).about(missing.as_path());
    fits(path).map_err(|error| Failure::new(BindStep::Bind, error).about(path))?;
    may_write(&place).map_err(|errno| failed(step, errno))?;
    // A file without a name shows what else may be in the way: no room, or an owner that is not ours
    // to give.
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = match openat(place.folder(), ".", flags, Mode::empty()) {
        Ok(file) => file,
        Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS)) => {
            return Err(failed(step, errno));
        }
        // A file system that has none (open(2)).
        Err(_) => return Ok(tried_at),
    };
    let give = |owner: Option<u32>, group: Option<u32>| {
        fchown(&file, owner.map(Uid::from_raw), group.map(Gid::from_raw))
    };
    if !is_there {
        give(access.directory_owner, access.directory_group)
            .map_err(|errno| failed(BindStep::SetOwner, errno))?;
    }
    give(access.owner, access.group)
        .map_err(|errno| Failure::new(BindStep::SetOwner, errno).about(path))?;
    Ok(tried_at)
}

/// Whether something could be made in the folder, or be removed from it.
fn may_write(place: &Place) -> nix::Result<()> {
    let folder = format!("/proc/self/fd/{}", place.folder().as_raw_fd());
    eaccess(folder.as_str(), AccessFlags::W_OK | AccessFlags::X_OK)
}

/// Says whether the file at the path could be removed, and another be made in its place.
pub(super) fn try_replace(
    path: &Path,
    place: &Place,
    found: &FileStat,
) -> Result<TriedAt, Failure> {
    let refused = |errno| Failure::new(BindStep::RemoveStale, errno).about(path);
    let holds = place.holds();
    if !may_unlink(geteuid().as_raw(), holds, found) {
        return Err(refused(Errno::EPERM));
    }
    may_write(place).map_err(refused)?;
    Ok((PathIdentity::of(holds), PathBuf::from(place.name())))
}

/// In a sticky folder such as /tmp only root and the owner of file or folder may unlink (unlink(2)).
fn may_unlink(user: u32, folder: &FileStat, file: &FileStat) -> bool {
    let sticky = folder.st_mode & Mode::S_ISVTX.bits() != 0;
    !sticky || [0, folder.st_uid, file.st_uid].contains(&user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_long_path_is_told_through_its_folder() {
        let short = Path::new("/").join("x".repeat(MAX_PATH - 1));
        assert_eq!(plain(&short).unwrap().as_pathname(), Some(short.as_path()));
        assert!(!is_long(&short) && plain(&short.join("x")).is_err());
        let dots = "./".repeat(MAX_PATH);
        let place = Place::of(&Path::new("/tmp").join(dots).join("name")).unwrap();
        let address = through(&place).unwrap();
        let text = address.as_pathname().unwrap().to_str().unwrap();
        assert!(text.starts_with("/proc/self/fd/") && text.ends_with("/name"));
        let place = place.beside("x".repeat(MAX_PATH)).unwrap();
        let error = through(&place).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENAMETOOLONG));
        assert!(fits(&place.path()).is_err());
    }

    #[test]
    fn in_a_sticky_folder_one_unlinks_what_is_one_s_own() {
        let stat = |mode, uid| {
            let mut stat = nix::sys::stat::stat("/").expect("a folder");
            (stat.st_mode, stat.st_uid) = (mode, uid);
            stat
        };
        let file = stat(0o140_600, 2);
        for (user, mode, expected) in [
            (0, 0o41777, true),
            (1, 0o41777, true),
            (2, 0o41777, true),
            (3, 0o41777, false),
            (3, 0o40777, true),
        ] {
            assert_eq!(may_unlink(user, &stat(mode, 1), &file), expected, "{user}");
        }
    }

    #[test]
    fn a_folder_just_made_has_its_mode_and_owner_and_nothing_in_it() {
        let name = format!("listend-born-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("create a folder");
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        set(0o2750).expect("chmod");
        let handle = open(&path, OFlag::O_DIRECTORY, Mode::empty()).expect("open");
        assert_eq!(is_as_born(&handle, 0o750), Ok(true));
        assert_eq!(is_as_born(&handle, 0o700), Ok(false));
        std::fs::write(path.join("file"), "").expect("write");
        assert_eq!(is_as_born(&handle, 0o750), Ok(false));
        std::fs::remove_file(path.join("file")).expect("remove");
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), None).expect("chown");
            set(0o2750).expect("chmod");
            assert_eq!(is_as_born(&handle, 0o750), Ok(false));
        }
        std::fs::remove_dir(&path).expect("remove");
    }
}
