//! How the kernel is told a unix path, and the folders that lead to it.

use super::bind::{BindStep, Failure};
use crate::plan::Access;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat, stat, umask};
use nix::unistd::{Gid, Uid, fchown, geteuid, mkdir};
use socket2::SockAddr;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
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
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ENAMETOOLONG.into());
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = open(parent, flags, Mode::empty())?;
        let mut text = OsString::from(format!("/proc/self/fd/{}/", folder.as_raw_fd()));
        text.push(name);
        Ok(Reach {
            address: SockAddr::unix(text).map_err(too_long)?,
            _folder: Some(folder),
        })
    }
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
