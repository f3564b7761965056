//! What the processes of a group use, as the kernel counts it.

use super::layout::{Tree, is_of, name, pid_in};
use super::look::group_of;
use std::collections::HashSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The figures of a group; `None` of what the kernel does not count there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// CPU time of everybody who is or was in it, in milliseconds.
    pub cpu_milliseconds: Option<u64>,
    /// Memory in bytes, the page cache included.
    pub memory_bytes: Option<u64>,
    /// The most of it that there was.
    pub memory_peak_bytes: Option<u64>,
    /// How many processes were killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// The groups of the instances of a daemon, for a process that only looks.
#[derive(Debug, Default)]
pub struct Groups {
    base: PathBuf,
    names: HashSet<String>,
}

impl Groups {
    /// Those that there are now; `None` if the group of the daemon cannot be seen.
    pub fn of_daemon(pid: i32) -> Option<Groups> {
        let mounts = fs::read("/proc/self/mountinfo").ok()?;
        let line = [b"0::", group_of(pid)?.as_os_str().as_bytes()].concat();
        let base = Tree::find(&mounts, &line).ok()?.base;
        let names = fs::read_dir(&base).ok()?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names = names.filter(|name| pid_in(name).is_some()).collect();
        Some(Groups { base, names })
    }

    /// The figures of an instance with this main process, if it has a group of its own.
    pub fn figures(&self, worker: &str, index: u32, pid: i32) -> Option<Figures> {
        if self.names.is_empty() {
            return None;
        }
        // It may have named another process as its main one than the one that its group is called after.
        let name = Some(name(worker, index, pid)).filter(|name| self.names.contains(name));
        let name = name.or_else(|| name_of_process(worker, index, pid))?;
        Some(read(&self.base.join(name)))
    }
}

/// The name of the group that a process of this instance is in, if it is one of the instance's own.
pub fn name_of_process(worker: &str, index: u32, pid: i32) -> Option<String> {
    let group = group_of(pid)?;
    let name = group.file_name()?.to_str()?.to_owned();
    is_of(&group, worker, index).then_some(name)
}

/// How many processes were killed for want of memory in the group with this name.
pub fn oom_kills(tree: &Tree, name: &str) -> u64 {
    read_oom_kills(&tree.base.join(name)).unwrap_or(0)
}

pub(super) fn read(group: &Path) -> Figures {
    let text = |file: &str| fs::read_to_string(group.join(file)).ok();
    let number = |file: &str| text(file)?.trim().parse().ok();
    let time = text("cpu.stat").and_then(|text| of_line(&text, "usage_usec"));
    Figures {
        cpu_milliseconds: time.map(|microseconds| microseconds / 1000),
        memory_bytes: number("memory.current"),
        memory_peak_bytes: number("memory.peak"),
        oom_kills: read_oom_kills(group),
    }
}

fn read_oom_kills(group: &Path) -> Option<u64> {
    let file: PathBuf = group.join("memory.events");
    of_line(&fs::read_to_string(file).ok()?, "oom_kill")
}

fn of_line(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = lines.find(|(found, _)| *found == name)?;
    number.trim().parse().ok()
}
