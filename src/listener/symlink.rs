//! Symbolic links that lead to a unix path.
//!
//! A link appears at once and whole: a new one by symlink(2), which never replaces anything, one
//! that takes another's place by rename(2). Only a link that leads nowhere, or to our path
//! already, is replaced; everything else may be somebody's.

use super::bind::{BindStep, Failure};
use super::paths::create_parents;
use crate::plan::Access;
use nix::errno::Errno;
use nix::sys::stat::stat;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What is at the place of a link.
enum Place {
    /// Nothing.
    Free,
    /// A link that leads to our path.
    Ours,
    /// A link that leads nowhere.
    Dangling,
}

/// Makes the links to a path that has just been bound. After a failure those that were made are
/// removed again.
pub(super) fn make(
    path: &Path,
    links: &[PathBuf],
    access: &Access,
    folders: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    for (done, link) in links.iter().enumerate() {
        let made = create_parents(link, access, folders).and_then(|()| one(path, link));
        if let Err(failure) = made {
            let _what_is_left = remove(path, &links[..done]);
            return Err(failure);
        }
    }
    Ok(())
}

/// Says whether they could be made, as far as that can be seen without making them.
pub(super) fn check(path: &Path, links: &[PathBuf]) -> Result<(), Failure> {
    links.iter().try_for_each(|link| look(path, link).map(drop))
}

/// Removes the links that still lead to the path. Answers with those that are left against our
/// will (unlink(2)).
pub(super) fn remove(path: &Path, links: &[PathBuf]) -> Vec<(PathBuf, io::Error)> {
    let ours = links.iter().filter(|link| leads_to(link, path));
    let removed = ours.map(|link| (link.clone(), std::fs::remove_file(link)));
    removed
        .filter_map(|(link, result)| Some((link, result.err()?)))
        .collect()
}

fn leads_to(link: &Path, path: &Path) -> bool {
    std::fs::read_link(link).is_ok_and(|target| target == path)
}

fn one(path: &Path, link: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(BindStep::Symlink, error).about(link);
    match look(path, link)? {
        Place::Ours => Ok(()),
        Place::Free => symlink(path, link).map_err(failed),
        Place::Dangling => {
            let mut beside = link.as_os_str().to_owned();
            beside.push(format!(".listend-{}", std::process::id()));
            symlink(path, &beside).map_err(failed)?;
            std::fs::rename(&beside, link).map_err(|error| {
                let _what_failed_is_told = std::fs::remove_file(&beside);
                failed(error)
            })
        }
    }
}

fn look(path: &Path, link: &Path) -> Result<Place, Failure> {
    match std::fs::read_link(link) {
        Ok(target) if target == path => Ok(Place::Ours),
        Ok(_) if stat(link) == Err(Errno::ENOENT) => Ok(Place::Dangling),
        Ok(_) => Err(Failure::new(BindStep::Symlink, Errno::EEXIST).about(link)),
        Err(error) => match error.raw_os_error() {
            Some(nix::libc::ENOENT) => Ok(Place::Free),
            // readlink(2): "EINVAL The named file is not a symbolic link".
            Some(nix::libc::EINVAL) => {
                Err(Failure::new(BindStep::Symlink, Errno::EEXIST).about(link))
            }
            _ => Err(Failure::new(BindStep::Symlink, error).about(link)),
        },
    }
}
