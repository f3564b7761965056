//! Which groups there are, and what they are called. Pure.

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, FsType};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The group of listend and of all that has none of its own. No worker's is called that: theirs end in numbers.
pub const DAEMON: &str = "listend.daemon";

/// What the name of each group of a worker begins with, so that it is no file of the kernel's.
const PREFIX: &str = "listend.";

/// No part of a name is longer, so that the whole is no longer than a file name may be. The number behind it keeps
/// names apart.
const LONGEST: usize = 200;

/// The groups of one listend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where the file system of the groups is mounted.
    pub mount: PathBuf,
    /// The group that has those of listend and its workers below it.
    pub base: PathBuf,
    /// What the file system has to be; another in tests.
    pub(super) kind: FsType,
}

/// Why there is no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTree {
    /// The file system is not mounted.
    Unmounted,
    /// The process is in no group of version 2.
    NoGroup,
    /// No mount shows the group of the process.
    Hidden,
}

impl Tree {
    /// From /proc/PID/mountinfo and /proc/PID/cgroup of listend, or of a process that it has just started.
    ///
    /// # Errors
    ///
    /// `NoTree`.
    pub fn find(mounts: &[u8], groups: &[u8]) -> Result<Tree, NoTree> {
        let own = group(groups).ok_or(NoTree::NoGroup)?;
        let mut is_mounted = false;
        for (root, mount) in mounts.split(|byte| *byte == b'\n').filter_map(mounted) {
            is_mounted = true;
            if let Ok(rest) = own.strip_prefix(&root) {
                let here = if rest.as_os_str().is_empty() {
                    mount.clone()
                } else {
                    mount.join(rest)
                };
                let is_daemon =
                    here.file_name().is_some_and(|name| name == DAEMON) && here != mount;
                let base = match here.parent() {
                    Some(above) if is_daemon => above.to_owned(),
                    _ => here,
                };
                let kind = CGROUP2_SUPER_MAGIC;
                return Ok(Tree { mount, base, kind });
            }
        }
        Err(match is_mounted {
            true => NoTree::Hidden,
            false => NoTree::Unmounted,
        })
    }

    /// Whether there is nothing above that could belong to anybody else, as in a container.
    pub(super) fn is_whole(&self) -> bool {
        self.base == self.mount
    }
}

/// The root within the file system and the mount point, of a line of mountinfo that is about version 2.
fn mounted(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut words = line.split(|byte| *byte == b' ');
    let (root, mount) = (words.nth(3)?, words.next()?);
    let kind = words.skip_while(|word| *word != b"-").nth(1)?;
    (kind == b"cgroup2").then(|| (path(root), path(mount)))
}

/// Blanks and backslashes are written in octal there (proc_pid_mountinfo(5)).
fn path(escaped: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The group of version 2 in a /proc/PID/cgroup.
pub(super) fn group(groups: &[u8]) -> Option<PathBuf> {
    let mut lines = groups.split(|byte| *byte == b'\n');
    let path = lines.find_map(|line| line.strip_prefix(b"0::"))?;
    Some(PathBuf::from(OsString::from_vec(path.to_vec())))
}

/// A /proc/PID/cgroup without what listend has added to it: that of a worker is the one of its listend then.
pub fn without_own(groups: &[u8]) -> Vec<u8> {
    let lines = groups.split(|byte| *byte == b'\n').map(|line| {
        let Some(end) = line.iter().rposition(|byte| *byte == b'/') else {
            return line;
        };
        let (above, name) = (&line[..end], &line[end + 1..]);
        let name = std::str::from_utf8(name).unwrap_or_default();
        let is_own = line.starts_with(b"0::") && (name == DAEMON || pid_in(name).is_some());
        match above {
            // The root is written with its slash.
            b"0::" if is_own => &line[..=end],
            above if is_own => above,
            _ => line,
        }
    });
    lines.collect::<Vec<_>>().join(&b'\n')
}

/// The name of the group of a process: that of the instance, and the process id that listend started it with. As
/// long as that process is there no other has the number, and so no other group the name.
pub fn name(worker: &str, index: u32, pid: i32) -> String {
    format!("{}{pid}", start(worker, index))
}

fn start(worker: &str, index: u32) -> String {
    // Names of workers are ASCII.
    let worker = worker.get(..worker.len().min(LONGEST)).unwrap_or_default();
    format!("{PREFIX}{worker}.{index}.")
}

/// Whether a group is one of this instance.
pub fn is_of(group: &Path, worker: &str, index: u32) -> bool {
    let name = group.file_name().and_then(|name| name.to_str());
    let rest = name.and_then(|name| name.strip_prefix(&start(worker, index)));
    rest.and_then(number::<i32>).is_some()
}

/// Whether a group with this name is one of this worker.
pub fn is_of_worker(name: &str, worker: &str) -> bool {
    let index = name.split('.').nth_back(1).and_then(number);
    index.is_some_and(|index| is_of(Path::new(name), worker, index))
}

/// The process id in the name of a group of some worker.
pub(super) fn pid_in(name: &str) -> Option<i32> {
    let (worker, pid) = name.strip_prefix(PREFIX)?.rsplit_once('.')?;
    let (_, index) = worker.rsplit_once('.')?;
    number::<u32>(index)?;
    number(pid)
}

fn number<T: FromStr>(digits: &str) -> Option<T> {
    let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain)
}
