//! A new name that replaces nobody.

use nix::errno::Errno;
use nix::libc;
use nix::{NixPath, Result};
use std::os::fd::{AsFd, AsRawFd};

/// Renames a file of a folder, unless the new name is taken: renameat2(2) with RENAME_NOREPLACE. The C library is
/// not asked, since musl has no function for it.
///
/// # Errors
///
/// EEXIST if it is taken; EINVAL from a file system that cannot do that; the others of rename(2).
pub fn rename_if_free<Old, New>(folder: impl AsFd, old: &Old, new: &New) -> Result<()>
where
    Old: NixPath + ?Sized,
    New: NixPath + ?Sized,
{
    let folder = folder.as_fd().as_raw_fd();
    let done = old.with_nix_path(|old| {
        new.with_nix_path(|new| {
            let (old, new, flag) = (old.as_ptr(), new.as_ptr(), libc::RENAME_NOREPLACE);
            // SAFETY: the descriptor is borrowed and open, and both names end with a NUL.
            unsafe { libc::syscall(libc::SYS_renameat2, folder, old, folder, new, flag) }
        })
    })??;
    Errno::result(done).map(drop)
}
