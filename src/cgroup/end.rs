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
            let lines = text
                .get(..read)
                .unwrap_or_default()
                .split(|byte| *byte == b'\n');
            if !lines.into_iter().any(|line| line == b"populated 1") {
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
    let names = fs::read_dir(base).into_iter().flatten().flatten();
    for name in names.map(|entry| entry.file_name()) {
        let pid = name.to_str().and_then(layout::pid_in);
        let is_over = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if is_over {
            // The kernel refuses that while anybody is in it, or in a group below.
            let _or_later = unlinkat(&folder, name.as_os_str(), UnlinkatFlags::RemoveDir);
        }
    }
}
