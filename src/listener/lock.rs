//! The lock that keeps two listends apart on one unix path.
//!
//! Between looking at a path and binding to it, another listend could do the same: both would see
//! a stale socket, and the later would remove what the earlier has just bound. So whoever binds
//! holds an exclusive flock(2) on `PATH.lock` first, for as long as the listener is there.
//!
//! The file is removed only by whoever holds the lock. A lock that outlives its process does not
//! exist: the kernel drops it with the last descriptor, and the empty file that SIGKILL leaves
//! behind is in nobody's way.

use super::bind::{BindStep, Failure, Obstacle};
use super::bound::PathIdentity;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, lstat, major, minor};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often a lock file that was removed under our hands is opened again.
const ATTEMPTS: u32 = 16;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct PathLock {
    path: PathBuf,
    file: Flock<OwnedFd>,
}

impl PathLock {
    /// Takes the lock of a unix path; `None` where no lock file can be made, because the folder is
    /// not writable (bind(2) will fail for the same reason) or the name would be too long.
    pub(super) fn take(path: &Path) -> Result<Option<PathLock>, Failure> {
        let path = lock_path(path);
        let failed = |errno| Failure::new(BindStep::Lock, errno).about(path.as_path());
        for _ in 0..ATTEMPTS {
            // Not followed: in a folder like /tmp anybody may have put a link there.
            let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = match open(&path, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
                Ok(file) => file,
                Err(errno) => {
                    // With a file there that is not ours, somebody else may rely on it.
                    let is_there = lstat(&path).is_ok();
                    return if is_there {
                        Err(failed(errno))
                    } else {
                        Ok(None)
                    };
                }
            };
            let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((file, Errno::EWOULDBLOCK)) => {
                    let pid = fstat(&file).ok().and_then(|stat| holder(&stat));
                    return Err(failed(Errno::EADDRINUSE).because(Obstacle::Locked { pid }));
                }
                // A file system without locks (flock(2)).
                Err((_, Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS)) => return Ok(None),
                Err((_, errno)) => return Err(failed(errno)),
            };
            let ours = fstat(&*file).map_err(failed)?;
            // Its holder may have removed it between our open(2) and flock(2); the lock of a file
            // that nobody finds is worth nothing.
            if lstat(&path).is_ok_and(|now| PathIdentity::of(&now) == PathIdentity::of(&ours)) {
                return Ok(Some(PathLock { path, file }));
            }
        }
        Err(failed(Errno::EADDRINUSE).because(Obstacle::Interference))
    }

    /// Removes the lock file, if it still is the one that is locked. The lock itself is held until
    /// this is dropped.
    ///
    /// # Errors
    ///
    /// Those of unlink(2).
    pub(super) fn remove_file(&self) -> io::Result<()> {
        let ours = fstat(&*self.file)?;
        match lstat(&self.path) {
            Ok(now) if PathIdentity::of(&now) == PathIdentity::of(&ours) => {
                std::fs::remove_file(&self.path)
            }
            _ => Ok(()),
        }
    }

    /// Where the lock file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Says who holds the lock of a unix path, without taking it or making its file: an error if it is
/// somebody else. Only where /proc/locks shows the holder, or the file may be opened.
pub(super) fn refuse_locked(path: &Path) -> Result<(), Failure> {
    let path = lock_path(path);
    let Ok(file) = lstat(&path) else {
        return Ok(());
    };
    let pid = holder(&file);
    // Our own is that of another listener, which has the same path by another name.
    let is_own =
        pid.is_some_and(|pid| u32::try_from(pid).is_ok_and(|pid| pid == std::process::id()));
    if is_own || (pid.is_none() && !is_locked(&path)) {
        return Ok(());
    }
    Err(Failure::new(BindStep::Lock, Errno::EADDRINUSE)
        .about(path)
        .because(Obstacle::Locked { pid }))
}

/// Whether somebody holds a lock, in this process id namespace or another. A shared lock is in the
/// way of nobody who only asks, and is dropped at once.
fn is_locked(path: &Path) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let Ok(file) = open(path, flags, Mode::empty()) else {
        return false;
    };
    let taken = Flock::lock(file, FlockArg::LockSharedNonblock);
    matches!(taken, Err((_, Errno::EWOULDBLOCK)))
}

/// Leaves no lock file behind after a failure, unless a socket that is there still needs it.
pub(super) fn give_up(lock: &Arc<PathLock>) {
    if Arc::strong_count(lock) == 1 {
        // Where it cannot be removed it is in nobody's way.
        let _harmless = lock.remove_file();
    }
}

/// `PATH.lock`.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    PathBuf::from(name)
}

/// Who holds a flock(2) on this file, as far as this process id namespace shows.
fn holder(file: &FileStat) -> Option<i32> {
    let table = std::fs::read_to_string("/proc/locks").ok()?;
    let id = format!(
        "{:02x}:{:02x}:{}",
        major(file.st_dev),
        minor(file.st_dev),
        file.st_ino
    );
    holder_in(&table, &id)
}

/// The process with a flock on the file with this `MAJOR:MINOR:INODE` (proc_locks(5)).
fn holder_in(table: &str, id: &str) -> Option<i32> {
    table.lines().find_map(|line| {
        // 1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = columns.as_slice() else {
            return None;
        };
        let pid = pid.parse().ok().filter(|pid| *pid > 0);
        pid.filter(|_| *file == id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_locks_of_other_kinds() {
        let table = "1: POSIX  ADVISORY  WRITE 11 fd:01:5678 0 EOF\n\
            2: -> FLOCK  ADVISORY  WRITE 12 fd:01:5678 0 EOF\n\
            3: FLOCK  ADVISORY  WRITE 0 fd:01:5678 0 EOF\n\
            4: FLOCK  ADVISORY  WRITE 13 fd:01:567 0 EOF\n\
            5: FLOCK  ADVISORY  WRITE 14 fd:01:5678 0 EOF\n";
        assert_eq!(holder_in(table, "fd:01:5678"), Some(14));
        assert_eq!(holder_in(table, "fd:02:5678"), None);
    }

    #[test]
    fn a_lock_keeps_others_out_and_is_gone_after_it_was_removed() {
        let name = format!("listend-lock-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let lock = PathLock::take(&path).unwrap().unwrap();
        let refused = PathLock::take(&path).unwrap_err();
        let Some(Obstacle::Locked { pid }) = refused.obstacle else {
            panic!("{refused:?}");
        };
        assert!(pid.is_none_or(|pid| pid == std::process::id() as i32));
        lock.remove_file().unwrap();
        // Another one may have it now, and ours does not remove theirs.
        let theirs = PathLock::take(&path).unwrap().unwrap();
        lock.remove_file().unwrap();
        assert!(theirs.path().exists());
        drop(lock);
        theirs.remove_file().unwrap();
        assert!(!theirs.path().exists());
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let name = format!("listend-lock-link-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let link = lock_path(&path);
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let refused = PathLock::take(&path).unwrap_err();
        std::fs::remove_file(&link).unwrap();
        assert_eq!(
            (refused.step, refused.errno),
            (BindStep::Lock, nix::libc::ELOOP)
        );
        let nowhere = Path::new("/proc/self/no-such-folder/path");
        assert!(PathLock::take(nowhere).unwrap().is_none());
    }
}
