//! Symbolic links that lead to a unix path.
//!
//! A link appears at once and whole: a new one by symlink(2), which never replaces anything, one
//! that takes another's place by rename(2). Only a link that leads nowhere, or to our path
//! already, is replaced; everything else may be somebody's.

use super::bind_error::{BindStep, Failure};
use super::paths::create_parents;
use crate::plan::Access;
use crate::walk::{Hand, Place};
use nix::errno::Errno;
use nix::sys::stat::stat;
use nix::unistd::symlinkat;
use std::io;
use std::path::{Path, PathBuf};

/// The state of the place of a link.
enum LinkState {
    Nothing,
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
        let made =
            create_parents(link, access, folders).and_then(|place| make_link(path, link, &place));
        if let Err(failure) = made {
            let _what_is_left = remove(path, &links[..done]);
            return Err(failure);
        }
    }
    Ok(())
}

/// Says whether they could be made, as far as that can be seen without making them.
pub(super) fn check(path: &Path, links: &[PathBuf]) -> Result<(), Failure> {
    links.iter().try_for_each(|link| {
        let (place, missing) = Place::reach(link)
            .map_err(|refused| Failure::on_the_way(BindStep::Symlink, refused))?;
        if missing.is_empty() {
            look(path, link, &place)?;
        }
        Ok(())
    })
}

/// Removes the links that still lead to the path. Answers with those that are left against our
/// will (unlink(2)).
pub(super) fn remove(path: &Path, links: &[PathBuf]) -> Vec<(PathBuf, io::Error)> {
    let places = links
        .iter()
        .filter_map(|link| Some((link, Place::of(link).ok()?)));
    let ours = places.filter(|(_, place)| place.target().is_ok_and(|target| target == path));
    let removed = ours.map(|(link, place)| (link.clone(), place.remove()));
    removed
        .filter_map(|(link, result)| Some((link, result.err()?.into())))
        .collect()
}

/// Whether none of them is missing or leads elsewhere.
pub(super) fn all_lead_to(path: &Path, links: &[PathBuf]) -> bool {
    let target = |link: &PathBuf| Place::of(link).ok()?.target().ok();
    links
        .iter()
        .all(|link| target(link).as_deref() == Some(path))
}

fn make_link(path: &Path, link: &Path, place: &Place) -> Result<(), Failure> {
    let failed = |errno| Failure::new(BindStep::Symlink, errno).about(link);
    match look(path, link, place)? {
        LinkState::Ours => Ok(()),
        LinkState::Nothing => symlinkat(path, place.folder(), place.name()).map_err(failed),
        LinkState::Dangling => {
            let mut name = place.name().to_owned();
            name.push(format!(".listend-{}", std::process::id()));
            let beside = place.beside(name).map_err(failed)?;
            symlinkat(path, beside.folder(), beside.name()).map_err(failed)?;
            beside.replace(place.name()).map_err(|errno| {
                let _what_failed_is_told = beside.remove();
                failed(errno)
            })
        }
    }
}

fn look(path: &Path, link: &Path, place: &Place) -> Result<LinkState, Failure> {
    match place.target() {
        Ok(target) if target == path => Ok(LinkState::Ours),
        // Where others could turn it, it is theirs.
        Ok(_) if is_ours(place) && stat(link) == Err(Errno::ENOENT) => Ok(LinkState::Dangling),
        Err(Errno::ENOENT) => Ok(LinkState::Nothing),
        // readlinkat(2): "EINVAL The named file is not a symbolic link".
        Ok(_) | Err(Errno::EINVAL) => {
            Err(Failure::new(BindStep::Symlink, Errno::EEXIST).about(link))
        }
        Err(errno) => Err(Failure::new(BindStep::Symlink, errno).about(link)),
    }
}

fn is_ours(place: &Place) -> bool {
    place
        .look()
        .is_ok_and(|link| place.hand(Some(&link)) == Hand::Ours)
}
