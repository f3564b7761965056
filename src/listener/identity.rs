//! The identity and the rights of a file, and its removal while it is still ours.

use crate::walk::Place;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use std::io;
use std::path::{Path, PathBuf};

/// The owner, group and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// The owner's user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The bits of chmod(2).
    pub mode: u32,
}

impl Rights {
    /// The rights of a file, from stat(2).
    pub(super) fn of(stat: &FileStat) -> Rights {
        Rights {
            uid: stat.st_uid,
            gid: stat.st_gid,
            // The type differs between systems; the conversion loses nothing.
            #[allow(clippy::unnecessary_cast)]
            mode: stat.st_mode as u32 & 0o7777,
        }
    }
}

/// The identity of the file at a path when it was bound. The bound socket keeps the inode in use, so
/// that no other file can get its number as long as the socket is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PathIdentity {
    /// The device, as in stat(2).
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
}

impl PathIdentity {
    /// The identity of a file, from stat(2).
    pub fn of(stat: &FileStat) -> PathIdentity {
        // The types differ between architectures; the conversions lose nothing.
        #[allow(clippy::unnecessary_cast)]
        PathIdentity {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
        }
    }
}

/// Unlinks the path if it still is that socket or FIFO. A path that has gone or has become another
/// file is no error.
pub(super) fn remove_if_ours(path: &Path, identity: PathIdentity) -> io::Result<()> {
    match Place::of(path) {
        Ok(place) => remove_ours(&place, identity),
        Err(refused) if matches!(refused.errno, Errno::EMFILE | Errno::ENFILE) => {
            Err(refused.errno.into())
        }
        Err(_) => Ok(()),
    }
}

/// Removes the file at this place if it is still the one that was bound.
pub(super) fn remove_ours(place: &Place, identity: PathIdentity) -> io::Result<()> {
    remove_if(place, |stat| {
        (is_socket(stat.st_mode) || is_fifo(stat.st_mode)) && PathIdentity::of(stat) == identity
    })
}

/// Removes the file at this place if it is known by that.
pub(super) fn remove_if(place: &Place, is_ours: impl FnOnce(&FileStat) -> bool) -> io::Result<()> {
    match place.look() {
        Ok(stat) if is_ours(&stat) => place.remove().map_err(io::Error::from),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// After a restart nothing keeps the inode in use, and its number may be that of any file.
    #[test]
    fn only_what_can_have_been_bound_is_removed() {
        let name = format!("listend-identity-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("create a folder");
        let [file, fifo, socket] = ["file", "fifo", "socket"].map(|name| folder.join(name));
        std::fs::write(&file, "").expect("write");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("make a FIFO");
        let _socket = UnixListener::bind(&socket).expect("bind");
        for (path, stays) in [(file, true), (fifo, false), (socket, false)] {
            let identity = PathIdentity::of(&nix::sys::stat::lstat(&path).expect("a file"));
            remove_if_ours(&path, identity).expect("no error");
            assert_eq!(path.exists(), stays, "{path:?}");
        }
        std::fs::remove_dir_all(folder).expect("remove the folder");
    }
}
