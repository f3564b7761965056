//! The runtime directories of workers: made before a process of the worker starts, removed when the
//! worker has come to rest.
//!
//! They are in a folder that only root, or the user that listend runs as, can write to, so that nobody
//! can put a link in the way. What is in them is their worker's, and may be much: a copy of this
//! process removes it, after the folder has been moved aside in one step.

use crate::core::{Core, State};
use crate::plan::{Activation, Plan, RuntimeDirectory, WorkerId, WorkerPlan};
use crate::report::describe;
use crate::stage::{LaunchFailure, Stage};
use crate::sys::{self, Wait};
use crate::worker;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::libc::{dev_t, ino_t};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The runtime directories that listend created and removes.
#[derive(Debug, Default)]
pub(super) struct Folders {
    made: Vec<Made>,
    /// How many have been moved aside.
    moved: u64,
    /// The number of the one that is made next.
    next: u64,
    /// Those that were made or removed since they were written down.
    changed: BTreeSet<u64>,
}

/// One of them, as the next listend is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) key: u64,
    worker: WorkerId,
    #[serde(flatten)]
    directory: RuntimeDirectory,
    /// The identity of the folder.
    inode: (dev_t, ino_t),
}

/// How long removing may take when listend ends, in milliseconds: a worker may have put into it a file
/// system that does not answer.
const LONGEST: i32 = 10_000;

const FOLDER: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

impl Folders {
    /// Makes the runtime directory of a worker that is about to start, if it is to have one.
    pub(super) fn make_for(
        &mut self,
        worker: WorkerId,
        plan: &WorkerPlan,
    ) -> Result<(), LaunchFailure> {
        let Some(directory) = &plan.runtime_directory else {
            return Ok(());
        };
        let credentials = plan.launch.credentials.as_ref();
        let uid = credentials.and_then(|credentials| credentials.uid);
        let gid = credentials.and_then(|credentials| credentials.gid);
        let made = make(directory, uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match made {
            Ok(Some(inode)) if !directory.preserve => {
                self.changed.insert(self.next);
                self.made.push(Made {
                    key: self.next,
                    worker,
                    directory: directory.clone(),
                    inode,
                });
                self.next += 1;
            }
            Ok(_) => {}
            Err((errno, why)) => {
                let reason = format!("{}: {why}", directory.path().display());
                let stage = Stage::RuntimeDirectory;
                return Err(LaunchFailure::new(stage, errno as i32, reason));
            }
        }
        Ok(())
    }

    /// Those that the listend before has made.
    pub(super) fn again(made: Vec<Made>) -> Folders {
        let next = made.iter().map(|made| made.key + 1).max().unwrap_or(0);
        Folders {
            made,
            next,
            ..Folders::default()
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Made> {
        self.made.iter()
    }

    /// Whether something is not written down yet.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What is not written down yet: the number of each, and what is there now.
    pub(super) fn take_changed(&mut self) -> Vec<(u64, Option<Made>)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        let now = |key| self.made.iter().find(|made| made.key == key).cloned();
        changed.map(|key| (key, now(key))).collect()
    }

    /// Removes those of workers that have come to rest. While everything is being stopped they wait
    /// for the end, which does not come before they are gone.
    pub(super) fn tidy(&mut self, core: &Core, plan: &Plan) {
        if self.made.is_empty() || core.is_stopping() {
            return;
        }
        let made = std::mem::take(&mut self.made);
        let (rest, kept) = made
            .into_iter()
            .partition(|made| is_at_rest(core, plan, made.worker));
        self.made = kept;
        self.remove(rest, Wait::No);
    }

    /// Removes all that are left.
    pub(super) fn remove_all(&mut self) {
        let made = std::mem::take(&mut self.made);
        self.remove(made, Wait::ForIt(LONGEST));
    }

    fn remove(&mut self, made: Vec<Made>, wait: Wait) {
        let mut aside = Vec::with_capacity(made.len());
        for made in made {
            self.moved += 1;
            self.changed.insert(made.key);
            let name = format!(".listend-{}-{}", std::process::id(), self.moved);
            match made.move_aside(OsStr::new(&name)) {
                Ok(path) => aside.extend(path),
                Err(errno) => {
                    let path = made.directory.path();
                    let why = describe(errno as i32);
                    log::warn!("cannot remove {}: {why}", path.display());
                }
            }
        }
        if aside.is_empty() {
            return;
        }
        let removed = sys::do_in_a_copy(wait, || {
            for path in &aside {
                // Does not follow a link that is in there, at any depth.
                let _what_is_left_stays = std::fs::remove_dir_all(path);
            }
        });
        if let Err(error) = removed {
            let why = worker::explain_fork(&error);
            log::warn!("cannot remove {}: {why}", aside[0].display());
        }
    }
}

fn is_at_rest(core: &Core, plan: &Plan, worker: WorkerId) -> bool {
    // The process of each connection would make it again.
    let wanted = plan.workers.get(&worker);
    let activation = wanted.map(|worker| &worker.lifecycle.activation);
    if matches!(activation, Some(Activation::PerConnection(_))) {
        return false;
    }
    let mut states = core.instances_of(worker);
    states.all(|instance| {
        let state = core.state(instance);
        matches!(
            state,
            None | Some(State::Stopped | State::Failed { .. } | State::Waiting)
        )
    })
}

impl Made {
    /// Gives it another name in its folder; where it is then, if it is still the one that was made.
    fn move_aside(&self, name: &OsStr) -> nix::Result<Option<PathBuf>> {
        let (parent, own) = match reach(&self.directory) {
            Ok(place) => place,
            Err((Errno::ENOENT, _)) => return Ok(None),
            Err((errno, _)) => return Err(errno),
        };
        match open_folder(&parent, own).and_then(|folder| fstat(&folder)) {
            Ok(found) if (found.st_dev, found.st_ino) == self.inode => {}
            Ok(_) | Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(errno),
        }
        sys::rename_if_free(&parent, own, name)?;
        Ok(Some(self.directory.path().with_file_name(name)))
    }
}

type FolderError = (Errno, String);

fn refused(errno: Errno) -> FolderError {
    (errno, describe(errno as i32))
}

/// The folder in which it is, which is made if it is missing, and its name there.
fn reach(directory: &RuntimeDirectory) -> Result<(OwnedFd, &OsStr), FolderError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut folder = open(&directory.base, flags, Mode::empty()).map_err(refused)?;
    let mut names = directory.name.iter().peekable();
    while let Some(name) = names.next() {
        is_private(&folder)?;
        if names.peek().is_none() {
            return Ok((folder, name));
        }
        match mkdirat(&folder, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(refused(errno)),
        }
        folder = openat(&folder, name, FOLDER, Mode::empty()).map_err(refused)?;
    }
    // The configuration sees to it that there is a name.
    Err(refused(Errno::EINVAL))
}

/// Whether nobody else can change what is in the folder.
fn is_private(folder: &OwnedFd) -> Result<(), FolderError> {
    let found = fstat(folder).map_err(refused)?;
    let ours = found.st_uid == 0 || found.st_uid == geteuid().as_raw();
    // Of a folder with an access control list it is the mask, and whom the list names may write.
    let group = found.st_mode & 0o020 != 0 && (found.st_gid != 0 || sys::may_have_acl(folder));
    let others = found.st_mode & 0o002 != 0;
    if !ours || group || others {
        let why = format!(
            "other users can change the directory that it is in (mode {:04o}, owner uid {})",
            found.st_mode & 0o7777,
            found.st_uid
        );
        return Err((Errno::EPERM, why));
    }
    Ok(())
}

/// Makes it; which folder it is, if it was not there before.
fn make(
    directory: &RuntimeDirectory,
    uid: Option<Uid>,
    gid: Option<Gid>,
) -> Result<Option<(dev_t, ino_t)>, FolderError> {
    let (parent, name) = reach(directory)?;
    let folder = match open_folder(&parent, name) {
        Ok(folder) => folder,
        Err(Errno::ENOENT) => return make_new(&parent, directory, name, uid, gid).map(Some),
        Err(errno @ Errno::EXDEV) => {
            let why = "a file system is mounted there, which its user may have done; unmount it";
            return Err((errno, why.to_owned()));
        }
        Err(errno) => return Err(refused(errno)),
    };
    let found = fstat(&folder).map_err(refused)?;
    let wanted = uid.unwrap_or(geteuid()).as_raw();
    if found.st_uid != wanted {
        let why = format!(
            "it exists and belongs to uid {}, not to the worker's uid, {wanted}",
            found.st_uid
        );
        return Err((Errno::EEXIST, why));
    }
    if found.st_mode & 0o7777 != directory.mode {
        set_mode_apart(directory, wanted, Mode::from_bits_truncate(directory.mode));
    }
    Ok(None)
}

/// Gets its name only when its owner and mode are right: one that a failure or a kill has left half made
/// would keep its worker from starting.
fn make_new(
    parent: &OwnedFd,
    directory: &RuntimeDirectory,
    name: &OsStr,
    uid: Option<Uid>,
    gid: Option<Gid>,
) -> Result<(dev_t, ino_t), FolderError> {
    let draft = format!(".listend-{}-new", std::process::id());
    let draft = OsStr::new(&draft);
    let remove = || unlinkat(parent, draft, UnlinkatFlags::RemoveDir);
    let create = || mkdirat(parent, draft, Mode::from_bits_truncate(0o700));
    match create() {
        // Left by a listend that had this process id and was killed.
        Err(Errno::EEXIST) => remove().and_then(|()| create()).map_err(refused)?,
        created => created.map_err(refused)?,
    }
    let finish = || -> nix::Result<(dev_t, ino_t)> {
        let folder = open_folder(parent, draft)?;
        // As long as it is listend's own, which takes no CAP_FOWNER.
        fchmod(&folder, Mode::from_bits_truncate(directory.mode))?;
        fchown(&folder, uid, gid)?;
        let made = fstat(&folder)?;
        sys::rename_if_free(parent, draft, name)?;
        Ok((made.st_dev, made.st_ino))
    };
    finish().map_err(|errno| {
        let _empty = remove();
        refused(errno)
    })
}

/// Of a folder that belongs to a worker already, which may have it locked for as long as it likes
/// (getdents(2) into memory that does not answer): chmod(2) waits for that lock.
fn set_mode_apart(directory: &RuntimeDirectory, owner: u32, mode: Mode) {
    let started = sys::do_in_a_copy(Wait::No, || {
        let Ok((parent, name)) = reach(directory) else {
            return;
        };
        let Ok(folder) = open_folder(&parent, name) else {
            return;
        };
        if fstat(&folder).is_ok_and(|found| found.st_uid == owner) {
            let _or_it_stays = fchmod(&folder, mode);
        }
    });
    if let Err(error) = started {
        let path = directory.path();
        let why = worker::explain_fork(&error);
        log::warn!("cannot set the mode of {}: {why}", path.display());
    }
}

/// The folder itself, and not what a worker may have mounted on its own: that may not answer.
fn open_folder(parent: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(FOLDER)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV);
    match openat2(parent, name, how) {
        // Before Linux 5.6, or where a sandbox does not know it.
        Err(Errno::ENOSYS) => openat(parent, name, FOLDER, Mode::empty()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    #[test]
    #[expect(clippy::print_stderr, reason = "says why the test was skipped")]
    fn a_folder_whose_list_lets_others_write_is_not_private() {
        if !geteuid().is_root() {
            return;
        }
        let path = std::env::temp_dir().join(format!("listend-private-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o775)).unwrap();
        let folder = open(&path, FOLDER, Mode::empty()).unwrap();
        let before = is_private(&folder);
        let mut setfacl = Command::new("setfacl");
        let set = setfacl.args(["-m", "u:4711:rwx"]).arg(&path).output();
        let after = is_private(&folder);
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(before, Ok(()));
        match set {
            Ok(output) if output.status.success() => {
                assert_eq!(after.unwrap_err().0, Errno::EPERM);
            }
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).into_owned();
                eprintln!("skipped: no access control lists here: {why}");
            }
            Err(error) => eprintln!("skipped: no setfacl (package acl): {error}"),
        }
    }
}
