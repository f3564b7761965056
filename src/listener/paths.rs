//! How the kernel is told a unix path, and the folders that lead to it.

use super::bind::{BindStep, Failure};
use super::bound::PathIdentity;
use crate::plan::Access;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat, stat, umask};
use nix::unistd::{AccessFlags, Gid, Uid, eaccess, fchown, geteuid, mkdir};
use socket2::SockAddr;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The bytes of a path that fit into a `sockaddr_un` with the NUL behind them (unix(7)).
pub(super) const MAX_PATH: usize = 107;

/// A path as bind(2) and connect(2) take it.
///
/// A path of at most [`MAX_PATH`] bytes is taken as it is. A longer one is reached through its
/// folder: `/proc/self/fd/N/NAME` names the same file as long as descriptor N is open here. That
/// text, and not the path, is what getsockname(2) then shows to workers and accept(2) to clients,
/// and it means nothing to them; the path that they are to see is in the plan and in
/// [`super::BoundSocket::address`].
#[derive(Debug)]
pub(super) struct Reach {
    /// What to give to bind(2) or connect(2).
    pub(super) address: SockAddr,
    /// Holds the descriptor open that the address leads through.
    _folder: Option<OwnedFd>,
}

impl Reach {
    /// Opens the folder of a path that is too long.
    ///
    /// # Errors
    ///
    /// Those of open(2), and ENAMETOOLONG when the last part alone is too long.
    pub(super) fn to(path: &Path) -> io::Result<Reach> {
        let too_long = |_| io::Error::from(Errno::ENAMETOOLONG);
        if !is_long(path) {
            return Ok(Reach {
                address: SockAddr::unix(path).map_err(too_long)?,
                _folder: None,
            });
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let parent = path.parent().unwrap_or(path);
        let folder = open(parent, flags, Mode::empty())?;
        Ok(Reach {
            address: through(folder.as_raw_fd(), path)?,
            _folder: Some(folder),
        })
    }

    /// Whether a path can be told to the kernel in either way, also if its folder is not there yet.
    pub(super) fn fits(path: &Path) -> io::Result<()> {
        if is_long(path) {
            // The number of a descriptor that is yet to be opened is not known; it is short.
            through(0, path)?;
        }
        Ok(())
    }
}

/// The address of a path by the descriptor of its folder.
fn through(folder: RawFd, path: &Path) -> io::Result<SockAddr> {
    let too_long = || io::Error::from(Errno::ENAMETOOLONG);
    let mut text = OsString::from(format!("/proc/self/fd/{folder}/"));
    text.push(path.file_name().ok_or_else(too_long)?);
    SockAddr::unix(text).map_err(|_| too_long())
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
/// and remembers them.
pub(super) fn create_parents(
    path: &Path,
    access: &Access,
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
        let made = if access.directory_owner.is_some() || access.directory_group.is_some() {
            create_for_another(folder, access, created)
        } else {
            create(folder, access.directory_mode, created)
        };
        made.map_err(|(step, errno)| Failure::new(step, errno).about(folder))?;
    }
    Ok(())
}

/// Where a path that is only tried would be made: the innermost folder that is there, and the rest.
pub(super) type TriedAt = (PathIdentity, PathBuf);

/// Says whether a socket or FIFO could be made there, as far as that can be seen without making
/// anything that has a name.
pub(super) fn try_create(path: &Path, access: &Access) -> Result<TriedAt, Failure> {
    let mut missing = path;
    let mut folder = path.parent().unwrap_or(path);
    let holds = loop {
        match stat(folder) {
            Ok(found) => break found,
            Err(Errno::ENOENT) => {
                missing = folder;
                folder = folder.parent().unwrap_or(folder);
            }
            Err(errno) => return Err(Failure::new(BindStep::CreateFolder, errno).about(folder)),
        }
    };
    let rest = path.strip_prefix(folder).unwrap_or(path);
    let place = (PathIdentity::of(&holds), rest.to_owned());
    let step = if missing == path {
        BindStep::Bind
    } else {
        BindStep::CreateFolder
    };
    let failed = |step, errno| Failure::new(step, errno).about(missing);
    Reach::fits(path).map_err(|error| Failure::new(BindStep::Bind, error).about(path))?;
    eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| failed(step, errno))?;
    // A file without a name shows what else may be in the way: no room, or an owner that is not ours
    // to give.
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = match open(folder, flags, Mode::empty()) {
        Ok(file) => file,
        Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS)) => {
            return Err(failed(step, errno));
        }
        // A file system that has none (open(2)).
        Err(_) => return Ok(place),
    };
    let give = |owner: Option<u32>, group: Option<u32>| {
        fchown(&file, owner.map(Uid::from_raw), group.map(Gid::from_raw))
    };
    if missing != path {
        give(access.directory_owner, access.directory_group)
            .map_err(|errno| failed(BindStep::SetOwner, errno))?;
    }
    give(access.owner, access.group)
        .map_err(|errno| Failure::new(BindStep::SetOwner, errno).about(path))?;
    Ok(place)
}

/// Says whether the file at the path could be removed, and another be made in its place.
pub(super) fn try_replace(path: &Path, found: &FileStat) -> Result<TriedAt, Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let refused = |errno| Failure::new(BindStep::RemoveStale, errno).about(path);
    let holds = stat(folder).map_err(refused)?;
    let we = geteuid().as_raw();
    // In a sticky folder such as /tmp only the owner of file or folder may unlink (unlink(2)).
    let sticky = holds.st_mode & Mode::S_ISVTX.bits() != 0;
    if sticky && we != 0 && we != found.st_uid && we != holds.st_uid {
        return Err(refused(Errno::EPERM));
    }
    eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(refused)?;
    let name = path.file_name().unwrap_or_default();
    Ok((PathIdentity::of(&holds), PathBuf::from(name)))
}

type Step = (BindStep, Errno);

/// A folder of ours.
fn create(folder: &Path, mode: u32, created: &mut Vec<PathBuf>) -> Result<(), Step> {
    let made = {
        // With an empty umask the mode is right at birth, neither wider nor narrower.
        let _mask = Umask::without(0);
        mkdir(folder, permissions(mode))
    };
    match made {
        Ok(()) => created.push(folder.to_owned()),
        Err(Errno::EEXIST) => return Ok(()),
        Err(errno) => return Err((BindStep::CreateFolder, errno)),
    }
    // mkdir(2) ignores the set-id bits; adding them later gives nobody access.
    if mode & 0o6000 != 0 {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder, permissions)
            .map_err(|error| (BindStep::SetMode, errno_of(&error)))?;
    }
    Ok(())
}

/// A folder that is given away: nobody else's until owner and group are right, and everything
/// through a handle, so that what is given away is what was created.
fn create_for_another(
    folder: &Path,
    access: &Access,
    created: &mut Vec<PathBuf>,
) -> Result<(), Step> {
    let failed = |errno| (BindStep::CreateFolder, errno);
    {
        let _mask = Umask::without(0);
        match mkdirat(nix::fcntl::AT_FDCWD, folder, Mode::S_IRWXU) {
            Ok(()) => created.push(folder.to_owned()),
            Err(Errno::EEXIST) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let handle = open(folder, flags, Mode::empty()).map_err(failed)?;
    let found = fstat(&handle).map_err(failed)?;
    // A folder whose parent has the set-group-id bit inherits it, and the group.
    let expected = found.st_mode & 0o5777 == 0o700
        && found.st_uid == geteuid().as_raw()
        && found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    if !expected {
        return Err(failed(Errno::EEXIST));
    }
    let owner = access.directory_owner.map(Uid::from_raw);
    let group = access.directory_group.map(Gid::from_raw);
    fchown(&handle, owner, group).map_err(|errno| (BindStep::SetOwner, errno))?;
    let mode = Mode::from_bits_retain(access.directory_mode as nix::libc::mode_t & 0o7777);
    fchmod(&handle, mode).map_err(|errno| (BindStep::SetMode, errno))
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_path_is_taken_as_it_is_and_a_long_one_through_its_folder() {
        let short = Path::new("/").join("x".repeat(MAX_PATH - 1));
        let reach = Reach::to(&short).unwrap();
        assert_eq!(reach.address.as_pathname(), Some(short.as_path()));
        let dots = "./".repeat(MAX_PATH);
        let reach = Reach::to(&Path::new("/tmp").join(dots).join("name")).unwrap();
        let text = reach.address.as_pathname().unwrap().to_str().unwrap();
        assert!(text.starts_with("/proc/self/fd/") && text.ends_with("/name"));
        let name = "x".repeat(MAX_PATH + 1);
        let error = Reach::to(&Path::new("/tmp").join(name)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENAMETOOLONG));
    }
}
