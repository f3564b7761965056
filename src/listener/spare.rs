//! A second name for the file of a unix socket, with which its path comes back.
//!
//! Many servers unlink the path of a listener that they have inherited when they end. To bind anew
//! gives clients another socket than the one that the other workers have, so that these would have to
//! be restarted, and would unlink it again. With a hard link beside it the file outlives its path, and
//! is linked back: it is the same socket, nobody is restarted, and who waits in its queue goes on
//! waiting.
//!
//! Where there can be no such link (the file system has none, something else has the name, the name
//! is too long), the listener does without.

use super::bound::BoundSocket;
use super::identity::PathIdentity;
use super::unix_path;
use crate::config::{Endpoint, UnixKind};
use crate::walk::{Place, spare_name};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FileStat, lstat};
use nix::unistd::linkat;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes it, for the file that was just bound. One that another listend left behind is replaced, as a
/// stale path is.
pub(super) fn make(kind: UnixKind, path: &Path, identity: PathIdentity) -> Option<PathBuf> {
    let (place, spare) = places(path)?;
    unix_path::remove_if_stale(kind, &spare).ok()?;
    link(&place, &spare, identity).ok()?;
    Some(path.with_file_name(spare.name()))
}

/// The existing second name of a socket's file, if there is one.
pub(super) fn of(path: &Path, identity: PathIdentity) -> Option<PathBuf> {
    let (_, spare) = places(path)?;
    handle_on(&spare, identity).ok()?;
    Some(path.with_file_name(spare.name()))
}

/// Makes it again, if it was removed meanwhile, as by what cleans up /tmp.
pub(super) fn renew(socket: &BoundSocket) {
    if let (Endpoint::Unix { kind, .. }, Some(path), Some(identity), Some(spare)) = (
        &socket.address,
        socket.address.path(),
        socket.identity,
        &socket.artifacts.spare,
    ) && lstat(spare).is_err()
    {
        let _does_without = make(*kind, path, identity);
    }
}

/// Brings the path back, where nothing is or nobody serves. Answers whether it could.
pub(super) fn put_back(kind: UnixKind, path: &Path, identity: PathIdentity) -> bool {
    let Some((place, spare)) = places(path) else {
        return false;
    };
    // Before anything is removed for it.
    handle_on(&spare, identity).is_ok()
        && unix_path::remove_if_stale(kind, &place).is_ok()
        && link(&spare, &place, identity).is_ok()
}

/// The path, and `.NAME.listend` beside it.
fn places(path: &Path) -> Option<(Place, Place)> {
    let place = Place::of(path).ok()?;
    let spare = place.beside(spare_name(place.name())).ok()?;
    Some((place, spare))
}

/// Gives the file another name, if it is the one that is meant: by its handle, so that nothing that is
/// put in its place meanwhile gets it.
fn link(from: &Place, to: &Place, identity: PathIdentity) -> nix::Result<()> {
    let (handle, _) = handle_on(from, identity)?;
    // linkat(2): a handle takes CAP_DAC_READ_SEARCH, its link in /proc does not.
    let of_handle = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    linkat(AT_FDCWD, &of_handle, to.folder(), to.name(), follow)
}

/// The file at a place, if it is the one that is meant.
pub(super) fn handle_on(place: &Place, identity: PathIdentity) -> nix::Result<(OwnedFd, FileStat)> {
    let (handle, file) = place.handle()?;
    if PathIdentity::of(&file) != identity {
        return Err(Errno::ENOENT);
    }
    Ok((handle, file))
}
