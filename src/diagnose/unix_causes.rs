//! Why a unix path could not be bound: the folder, its owner and mode, and who we are.

use super::machine::Machine;
use crate::listener::{BindError, BindStep};
use crate::report::Problem;
use crate::walk::closed_to_us;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess};
use std::path::Path;

/// Adds cause and hint for an errno that a path or folder caused.
pub(super) fn explain(
    problem: Problem,
    error: &BindError,
    path: &Path,
    machine: &Machine,
) -> Problem {
    let us = machine.user(machine.process().uid);
    let folder = nearest(path.parent().unwrap_or(path));
    let about_folder = format!("{}; listend runs as {us}", folder_in_words(folder, machine));
    match (Errno::from_raw(error.errno), error.step) {
        (Errno::EPERM | Errno::EACCES, BindStep::SetOwner) => problem
            .with_cause(format!(
                "listend runs as {us}, and only root may change the owner of a file"
            ))
            .with_hint(
                "run listend as root (or with CAP_CHOWN), or leave out `owner:`; `group:` may be \
                 any group that listend's user is in",
            ),
        // chown(2): an id that the user namespace does not map.
        (Errno::EINVAL, BindStep::SetOwner) => problem
            .with_cause(
                "the user or group has no id in the user namespace that listend runs in, as in a \
                 container that maps only some"
                    .to_owned(),
            )
            .with_hint("map it into the namespace (subuid(5), subgid(5)), or leave out `owner` and `group`"),
        (Errno::EACCES, BindStep::Probe) => problem.with_cause(about_folder).with_hint(format!(
            "run listend as the user who owns {}, or stop who uses it and remove it",
            path.display()
        )),
        // unlink(2): "EPERM The directory containing pathname has the sticky bit set", and neither
        // it nor the file is ours.
        (Errno::EPERM, BindStep::RemoveStale) => {
            problem.with_cause(about_folder).with_hint(format!(
                "remove {} as its owner or as root, or choose a path in a directory that belongs \
                 to {us}",
                path.display()
            ))
        }
        (Errno::EEXIST, BindStep::Symlink) => {
            let what = match path.read_link() {
                Ok(target) => format!("it leads to {}", target.display()),
                Err(_) => "something else is there, not a link".to_owned(),
            };
            let hint = "listend removes no file that it has not made: remove it, or choose another path";
            problem.with_cause(what).with_hint(hint)
        }
        // The file systems of the kernel, for example: in sysfs(5) nobody creates a file.
        (Errno::EACCES | Errno::EPERM, _)
            if closed_to_us(path).is_none()
                && path.symlink_metadata().is_err()
                && eaccess(folder, AccessFlags::W_OK).is_ok() =>
        {
            problem
                .with_cause(format!(
                    "listend runs as {us}, who may write to {}: its file system, or a security \
                     module, does not permit this",
                    folder.display()
                ))
                .with_hint("choose a path under /run")
        }
        (errno @ (Errno::EACCES | Errno::EPERM), _) => {
            let closed = closed_to_us(path).filter(|_| errno == Errno::EACCES);
            let (cause, verb, folder) = match closed {
                Some(closed) => {
                    let folder = folder_in_words(closed, machine);
                    let cause = format!("{folder}; listend runs as {us}");
                    (cause, "search", closed)
                }
                None => (about_folder, "write to", folder),
            };
            problem.with_cause(cause).with_hint(format!(
                "let {us} {verb} {}, or choose a directory such as /run/NAME created by \
                 RuntimeDirectory=NAME in the systemd unit",
                folder.display()
            ))
        }
        (Errno::EROFS, _) => problem
            .with_cause(format!(
                "{} is on a read-only file system",
                folder.display()
            ))
            .with_hint(
                "choose a path under /run, or allow it with ReadWritePaths= or \
                 RuntimeDirectory= in the systemd unit",
            ),
        (Errno::ENOTDIR, _) => problem
            .with_cause(format!("{} is not a directory", culprit(path).display()))
            .with_hint("choose another path"),
        (Errno::ENOENT, _) => problem
            .with_cause(format!("the path goes only as far as {}", folder.display()))
            .with_hint("check the spelling, or choose another path"),
        (Errno::ENAMETOOLONG, _) => problem.with_hint(
            "the path of a unix socket has at most 107 bytes, and a name in it at most 255",
        ),
        (Errno::ENOSPC | Errno::EDQUOT, _) => problem
            .with_cause(format!(
                "no space left on the file system of {}",
                folder.display()
            ))
            .with_hint("choose a path under /run, or free some space"),
        _ => problem,
    }
}

/// The innermost part of the path that exists.
fn nearest(path: &Path) -> &Path {
    let mut all = path.ancestors();
    all.find(|folder| folder.metadata().is_ok())
        .unwrap_or(Path::new("/"))
}

/// The outermost part of the path that is there and is no folder.
fn culprit(path: &Path) -> &Path {
    let mut found = path;
    for part in path.ancestors() {
        if part.symlink_metadata().is_ok() && !part.is_dir() {
            found = part;
        }
    }
    found
}

fn folder_in_words(folder: &Path, machine: &Machine) -> String {
    match folder.metadata() {
        Ok(stat) => format!("{} {}", folder.display(), machine.owner(&stat)),
        Err(_) => format!("{} cannot be examined", folder.display()),
    }
}
