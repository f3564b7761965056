//! Which folder on the way to a path is closed to us.

use nix::unistd::{AccessFlags, eaccess, geteuid};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The outermost folder on the way to the path that we may not search (path_resolution(7)).
pub fn closed_to_us(path: &Path) -> Option<&Path> {
    let folders: Vec<&Path> = path.ancestors().filter(|part| part.is_dir()).collect();
    let closed = |folder: &&Path| eaccess(*folder, AccessFlags::X_OK).is_err();
    folders.into_iter().rev().find(closed)
}

/// What denies us a file that we were to write to, or to make: a folder on the way, that in which it would be, or
/// the file. `None` if it is none of these.
pub fn denied(path: &Path) -> Option<String> {
    let (verb, part) = if let Some(closed) = closed_to_us(path) {
        ("enter", closed)
    } else {
        let written = if path.exists() { path } else { path.parent()? };
        let is_denied = eaccess(written, AccessFlags::W_OK).is_err();
        is_denied.then_some(("write to", written))?
    };
    let about = part.metadata().ok()?;
    Some(format!(
        "user {} may not {verb} {} (mode {:04o}, owner uid {})",
        geteuid(),
        part.display(),
        about.mode() & 0o7777,
        about.uid()
    ))
}
