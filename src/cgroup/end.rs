//! Ends what is left in a group, and removes it.

use super::enter::put;
use super::layout::{self, Tree};
use super::look::FOLDER;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::libc::ino_t;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat, lstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A group that is known: one that was removed and made again with the same name is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    path: PathBuf,
    inode: ino_t,
}

/// How long those who were killed are waited for, in milliseconds.
const LONGEST: u16 = 5_000;

impl Tree {
    /// The group with this name; `None` if there is none. It only looks a path up.
    pub fn known(&self, name: &str) -> Option<Known> {
        let path = self.base.join(name);
        let inode = lstat(&path).ok()?.st_ino;
        Some(Known { path, inode })
    }

    /// The groups of workers whose process is gone, if this says so of their name. May take its time.
    pub fn left(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Known> {
        let names = names(&self.base).filter_map(|name| name.into_string().ok());
        let left = names.filter(|name| is_over(name) && is_wanted(name));
        left.filter_map(|name| self.known(&name)).collect()
    }
}

impl Known {
    fn open(&self) -> nix::Result<OwnedFd> {
        let group = open(&self.path, FOLDER, Mode::empty())?;
        match fstat(&group)?.st_ino == self.inode {
            true => Ok(group),
            false => Err(Errno::ENOENT),
        }
    }

    /// Kills every process in it and below it. May take its time.
    ///
    /// # Errors
    ///
    /// It is gone, or the kernel cannot: before Linux 5.14.
    pub fn kill(&self) -> nix::Result<()> {
        put(&self.open()?, "cgroup.kill", "1")
    }

    /// Waits until nobody is left. May take its time, which has an end.
    pub fn wait_until_empty(&self) {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let events = self.open();
        let events = events.and_then(|group| openat(&group, "cgroup.events", flags, Mode::empty()));
        let Ok(events) = events else {
            return;
        };
        let mut text = [0_u8; 256];
        loop {
            let read = nix::sys::uio::pread(&events, &mut text, 0).unwrap_or(0);
            if !is_populated(text.get(..read).unwrap_or_default()) {
                return;
            }
            let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut polled, PollTimeout::from(LONGEST)) {
                Ok(0) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// Removes the groups of workers below this one that nobody is in any more. May take its time. One whose process is
/// there may be about to be entered.
pub fn remove_empty(base: &Path) {
    let Ok(folder) = open(base, FOLDER, Mode::empty()) else {
        return;
    };
    for name in names(base).filter(|name| name.to_str().is_some_and(is_over)) {
        // The kernel refuses that while anybody is in it, or while there is a group below.
        let removed = unlinkat(&folder, name.as_os_str(), UnlinkatFlags::RemoveDir);
        if removed == Err(Errno::EBUSY) {
            remove_with_those_below(&base.join(name));
        }
    }
}

/// Removes a group with those that its processes have made below it, unless somebody is in one of them.
fn remove_with_those_below(group: &Path) {
    let events = fs::read(group.join("cgroup.events")).unwrap_or_default();
    if events.is_empty() || is_populated(&events) {
        return;
    }
    let mut all = vec![group.to_owned()];
    let mut looked_at = 0;
    while let Some(above) = all.get(looked_at) {
        let entries = fs::read_dir(above).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
        all.extend(below);
        looked_at += 1;
    }
    for path in all.iter().rev() {
        let _or_later = fs::remove_dir(path);
    }
}

fn names(base: &Path) -> impl Iterator<Item = OsString> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name())
}

/// Whether a group has the name of one of a worker, and the process that it was made for is gone.
fn is_over(name: &str) -> bool {
    layout::pid_in(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Whether somebody is in a group or below it, by its cgroup.events.
fn is_populated(events: &[u8]) -> bool {
    let mut lines = events.split(|byte| *byte == b'\n');
    lines.any(|line| line == b"populated 1")
}
