//! Makes the group of a process and enters it. In that process, before it becomes its worker.

use super::layout::{self, DAEMON, Tree};
use super::look::{FOLDER, for_all, totals};
use super::words::Obstacle;
use crate::sandbox::{Limits, Setting};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::libc::{F_WRLCK, SEEK_SET, flock};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat, write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// How often processes are moved away that others start in the group meanwhile.
const ROUNDS: usize = 16;

/// Whom a group is for.
#[derive(Debug, Clone, Copy)]
pub struct Entrance<'a> {
    /// The worker.
    pub worker: &'a str,
    /// The index of the instance.
    pub index: u32,
    /// Its limits.
    pub limits: &'a Limits,
}

impl Entrance<'_> {
    /// Moves this process into a group of its own. Of each limit that cannot be enforced `missing` decides whether
    /// to go on without it.
    ///
    /// # Errors
    ///
    /// What `missing` answers.
    pub fn enter<E>(
        &self,
        mut missing: impl FnMut(&'static str, &Obstacle) -> Result<(), E>,
    ) -> Result<(), E> {
        let settings = self.limits.settings(totals(Path::new("/")));
        let pid = std::process::id().cast_signed();
        let name = layout::name(self.worker, self.index, pid);
        let left = match Tree::own().and_then(|tree| tree.enter(&name, &settings)) {
            Ok(left) => left,
            Err(obstacle) => for_all(&settings, &obstacle),
        };
        left.iter()
            .try_for_each(|(key, obstacle)| missing(key, obstacle))
    }
}

impl Tree {
    /// Makes a group with these limits and enters it; which limits it does not have, and why.
    fn enter(
        &self,
        name: &str,
        settings: &[Setting],
    ) -> Result<Vec<(&'static str, Obstacle)>, Obstacle> {
        let base = self.open_base()?;
        self.is_given(&base)?;
        let _until_it_is_entered = self.lock(&base)?;
        let mut missing = self.lacking(settings);
        let is_possible = |one: &&Setting| missing.iter().all(|(key, _)| *key != one.key);
        let possible: Vec<&Setting> = settings.iter().filter(is_possible).collect();
        let needed: Vec<&str> = possible.iter().filter_map(|one| one.controller).collect();
        self.divide(&base, &needed)?;
        let group = self.make(&base, name)?;
        missing.extend(limit(&group, &possible));
        if let Err(errno) = put(&group, PROCESSES, "0") {
            let _or_it_is_swept = unlinkat(&base, name, UnlinkatFlags::RemoveDir);
            return Err(self.failed(&format!("write {name}/{PROCESSES}"), errno));
        }
        Ok(missing)
    }

    /// Passes controllers on to the groups below, for which no process may be in the group itself.
    fn divide(&self, base: &OwnedFd, needed: &[&str]) -> Result<(), Obstacle> {
        let known = self.read(CONTROL)?;
        // Two for the figures alone.
        let wanted = needed.iter().copied().chain(["memory", "pids"]);
        let is_lacking = |one: &&str| known.split_whitespace().all(|other| other != *one);
        let wanted: Vec<&str> = wanted
            .filter(|one| self.has(one))
            .filter(is_lacking)
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let text: Vec<String> = wanted.iter().map(|one| format!("+{one}")).collect();
        let mut result = Err(Errno::EBUSY);
        // EBUSY: a process was started in it meanwhile.
        for _ in 0..ROUNDS {
            if !self.is_bare() {
                self.move_away(base)?;
            }
            result = put(base, CONTROL, &text.join(" "));
            if result != Err(Errno::EBUSY) {
                break;
            }
        }
        match result {
            Err(errno) if !needed.is_empty() => {
                Err(self.failed(&format!("write {CONTROL}"), errno))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Keeps other processes of listend from dividing the base meanwhile: who is in it may be moved by them, and would
    /// be even after it has entered a group of its own. Nobody else can open the file that is locked; before Linux 5.14
    /// there is none that only its owner can open.
    fn lock(&self, base: &OwnedFd) -> Result<Option<OwnedFd>, Obstacle> {
        if self.is_bare() {
            // Nobody has to leave it.
            return Ok(None);
        }
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let private = openat(base, "cgroup.kill", flags, Mode::empty());
        let file = private.or_else(|_| openat(base, PROCESSES, flags, Mode::empty()));
        let file = file.map_err(|errno| self.failed(&format!("open {PROCESSES}"), errno))?;
        let whole = flock {
            l_type: F_WRLCK as i16,
            l_whence: SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole)) {
            Ok(_) => Ok(Some(file)),
            Err(errno) => Err(self.failed("lock cgroup.kill", errno)),
        }
    }

    fn read(&self, file: &str) -> Result<String, Obstacle> {
        std::fs::read_to_string(self.base.join(file)).map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            self.failed(&format!("read {file}"), errno)
        })
    }

    /// Moves all processes of the base into listend's group.
    fn move_away(&self, base: &OwnedFd) -> Result<(), Obstacle> {
        let pids = self.read(PROCESSES)?;
        if pids.is_empty() {
            return Ok(());
        }
        self.has_no_strangers(base)?;
        match mkdirat(base, DAEMON, MODE) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(self.failed(&format!("mkdir {DAEMON}"), errno)),
        }
        let into = openat(base, DAEMON, FOLDER, Mode::empty())
            .map_err(|errno| self.failed(&format!("open {DAEMON}"), errno))?;
        for pid in pids.lines() {
            match put(&into, PROCESSES, pid) {
                // It has ended; 0 is one of another PID namespace.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => {
                    return Err(self.failed(&format!("move pid {pid} to {DAEMON}"), errno));
                }
            }
        }
        Ok(())
    }

    /// Makes a group that was not there, so that nobody else is in it.
    fn make(&self, base: &OwnedFd, name: &str) -> Result<OwnedFd, Obstacle> {
        let failed = |errno| self.failed(&format!("mkdir {name}"), errno);
        match mkdirat(base, name, MODE) {
            Ok(()) => {}
            // Of one that had the same number. If it has processes it cannot be removed.
            Err(Errno::EEXIST) => {
                unlinkat(base, name, UnlinkatFlags::RemoveDir).map_err(failed)?;
                mkdirat(base, name, MODE).map_err(failed)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        let group = openat(base, name, FOLDER, Mode::empty()).map_err(failed)?;
        let owner = fstat(&group).map_err(failed)?.st_uid;
        if owner != geteuid().as_raw() {
            return Err(Obstacle::Foreign(self.base.join(name), owner));
        }
        Ok(group)
    }

    fn failed(&self, what: &str, errno: Errno) -> Obstacle {
        if matches!(errno, Errno::EROFS | Errno::EACCES) {
            return Obstacle::NotWritable(self.base.clone(), errno);
        }
        Obstacle::Failed(format!("{what} in {}", self.base.display()), errno)
    }
}

const CONTROL: &str = "cgroup.subtree_control";
const PROCESSES: &str = "cgroup.procs";
const MODE: Mode = Mode::from_bits_truncate(0o755);

/// Sets the limits of a group; those that the kernel refuses, and why.
pub(super) fn limit(group: &OwnedFd, settings: &[&Setting]) -> Vec<(&'static str, Obstacle)> {
    let mut missing = Vec::new();
    for setting in settings {
        let mut result = Err(Errno::ENOENT);
        for (file, text) in &setting.files {
            result = put(group, file, text);
            if result != Err(Errno::ENOENT) {
                break;
            }
        }
        match result {
            Ok(()) => {}
            // No controller, and no limit either.
            Err(Errno::ENOENT) if setting.controller.is_none() => {}
            Err(errno) => {
                let files: Vec<&str> = setting.files.iter().map(|(file, _)| *file).collect();
                let what = format!("write {}", files.join(" or "));
                missing.push((setting.key, Obstacle::Failed(what, errno)));
            }
        }
    }
    missing
}

/// Writes to a file of a group, in one call.
pub(super) fn put(group: &OwnedFd, file: &str, text: &str) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(group, file, flags, Mode::empty())?;
    write(&file, text.as_bytes()).map(|_whole| ())
}
