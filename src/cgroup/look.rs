//! What can be known about limits without changing anything.

use super::layout::{self, NoTree, Tree};
use super::words::Obstacle;
use crate::sandbox::{Limits, Setting, Totals};
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{AccessFlags, eaccess, geteuid};
use procfs::FromRead;
use procfs::process::Stat;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;

/// How a group is opened, which may be no link.
pub(super) const FOLDER: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Whose group this process is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// That of the listend which is to run.
    Own,
    /// That of a shell, in which somebody only looks.
    Another,
}

/// The keys that cannot be enforced, each with the reason.
pub fn obstacles(limits: &Limits, whose: Whose) -> Vec<(&'static str, Obstacle)> {
    let settings = limits.settings(totals(Path::new("/")));
    let found: Vec<(&str, Obstacle)> = match Tree::own() {
        Ok(tree) => match (tree.check(), whose) {
            (Err(obstacle), Whose::Own) => for_all(&settings, &obstacle),
            // What is wrong with a controller may be so wherever listend runs.
            (_, Whose::Another) | (Ok(()), Whose::Own) => tree.lacking(&settings),
        },
        Err(obstacle) => for_all(&settings, &obstacle),
    };
    let counts = |found: &Obstacle| whose == Whose::Own || found.is_of_the_machine();
    found
        .into_iter()
        .filter(|(_, found)| counts(found))
        .collect()
}

/// The same for every key.
pub(super) fn for_all(settings: &[Setting], obstacle: &Obstacle) -> Vec<(&'static str, Obstacle)> {
    let keys = settings.iter().map(|setting| setting.key);
    keys.map(|key| (key, obstacle.clone())).collect()
}

/// What the machine has, or the container: `root` is where its /proc and /sys are.
pub(super) fn totals(root: &Path) -> Totals {
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let memory = read("proc/meminfo").and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        kilobytes.checked_mul(1024)
    });
    let of_container = number("sys/fs/cgroup/memory.max");
    let pids = number("proc/sys/kernel/pid_max").map(|most| most.saturating_sub(1));
    let threads = number("proc/sys/kernel/threads-max");
    let of_group = number("sys/fs/cgroup/pids.max");
    let least = |numbers: &[Option<u64>]| numbers.iter().flatten().min().copied();
    Totals {
        memory: least(&[memory, of_container]).unwrap_or(u64::MAX),
        tasks: least(&[pids, threads, of_group]).unwrap_or(u64::MAX),
    }
}

impl Tree {
    /// The tree of this process.
    ///
    /// # Errors
    ///
    /// `Obstacle::NoTree`; or it cannot be known at this moment.
    pub fn own() -> Result<Tree, Obstacle> {
        let read = |path: &str| match fs::read(path) {
            // No /proc, and so nothing in it.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            answer => answer.map_err(|error| {
                let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
                Obstacle::Failed(format!("read {path}"), errno)
            }),
        };
        let found = Tree::find(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        found.map_err(Obstacle::NoTree)
    }

    /// Whether groups can be made below the base.
    pub(super) fn check(&self) -> Result<(), Obstacle> {
        let base = self.open_base()?;
        self.is_given(&base)?;
        let files = ["cgroup.procs", "cgroup.subtree_control"].map(|name| self.base.join(name));
        for path in [self.base.clone()].into_iter().chain(files) {
            if let Err(errno) = eaccess(&path, AccessFlags::W_OK) {
                return Err(Obstacle::NotWritable(path, errno));
            }
        }
        self.has_no_strangers(&base)
    }

    /// Whether all processes that would have to leave the base are listend's.
    pub(super) fn has_no_strangers(&self, base: &OwnedFd) -> Result<(), Obstacle> {
        match self.stranger(base) {
            Some((pid, name)) => Err(Obstacle::Shared(self.base.clone(), pid, name)),
            None => Ok(()),
        }
    }

    /// Whether processes may be in the base whatever is below: it is the root of all groups.
    pub(super) fn is_bare(&self) -> bool {
        !is_below(&self.base)
    }

    /// The base, which must be a group, and one that only root and the user of listend can change.
    pub(super) fn open_base(&self) -> Result<OwnedFd, Obstacle> {
        let failed = |errno| Obstacle::Failed(format!("open {}", self.base.display()), errno);
        let base = open(&self.base, FOLDER, Mode::empty()).map_err(failed)?;
        let kind = fstatfs(&base).map_err(failed)?.filesystem_type();
        if kind != self.kind {
            return Err(Obstacle::NoTree(NoTree::Unmounted));
        }
        let found = fstat(&base).map_err(failed)?;
        let is_ours = found.st_uid == 0 || found.st_uid == geteuid().as_raw();
        let group_writes = found.st_mode & 0o020 != 0 && found.st_gid != 0;
        if !is_ours || group_writes || found.st_mode & 0o002 != 0 {
            return Err(Obstacle::Foreign(self.base.clone(), found.st_uid));
        }
        Ok(base)
    }

    /// Whether the base may be divided: a unit of a service manager only if that has said so.
    pub(super) fn is_given(&self, base: &OwnedFd) -> Result<(), Obstacle> {
        let is_unit = self
            .base
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| {
                [".service", ".scope", ".slice"]
                    .iter()
                    .any(|end| name.ends_with(end))
            });
        if self.is_whole() || !is_unit || is_delegated(base) != Some(false) {
            return Ok(());
        }
        Err(Obstacle::NotDelegated(self.base.clone()))
    }

    /// Why a controller cannot be had.
    pub(super) fn lacks(&self, controller: &'static str) -> Option<Obstacle> {
        if self.has(controller) {
            return None;
        }
        let table = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        Some(match is_version1(&table, controller) {
            true => Obstacle::IsVersion1(controller),
            // Only the root of all groups has every controller that there is.
            false if !is_in(&self.mount, controller) && !is_below(&self.mount) => {
                Obstacle::NoController(controller)
            }
            false => Obstacle::NotPassedOn(controller, self.base.clone()),
        })
    }

    /// The keys whose controller cannot be had.
    pub(super) fn lacking(&self, settings: &[Setting]) -> Vec<(&'static str, Obstacle)> {
        let lacks = |one: &Setting| Some((one.key, self.lacks(one.controller?)?));
        settings.iter().filter_map(lacks).collect()
    }

    /// Whether the base can pass a controller on.
    pub(super) fn has(&self, controller: &str) -> bool {
        is_in(&self.base, controller)
    }

    /// A process in the base that is neither listend nor anything that it has started, if there is one.
    fn stranger(&self, base: &OwnedFd) -> Option<(i32, String)> {
        if self.is_bare() || self.is_whole() || is_delegated(base) == Some(true) {
            return None;
        }
        let pids = fs::read_to_string(self.base.join("cgroup.procs")).unwrap_or_default();
        let own = program(std::process::id().cast_signed());
        let mut known = BTreeSet::new();
        let mut others = pids.lines().filter_map(|pid| pid.parse().ok());
        let stranger = others.find(|pid| !is_listends(*pid, own, &mut known))?;
        let name = fs::read_to_string(format!("/proc/{stranger}/comm")).unwrap_or_default();
        Some((stranger, name.trim_end().to_owned()))
    }
}

fn is_in(group: &Path, controller: &str) -> bool {
    let text = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().any(|one| one == controller)
}

/// Whether a group is below another: the root of all has no type.
fn is_below(group: &Path) -> bool {
    group.join("cgroup.type").exists()
}

/// Whether a controller is version 1's (proc_cgroups(5): its hierarchy has a number then).
pub(super) fn is_version1(table: &str, controller: &str) -> bool {
    let mut lines = table.lines().map(|line| {
        let mut words = line.split_whitespace();
        (words.next(), words.next())
    });
    lines.any(|(name, hierarchy)| {
        name == Some(controller) && hierarchy.is_some_and(|one| one != "0")
    })
}

/// Whether the service manager has given the group away (systemd.resource-control(5), Delegate=); `None` if that
/// cannot be known. Only root can read the older one of both marks.
fn is_delegated(group: &OwnedFd) -> Option<bool> {
    let marks = [c"user.delegate", c"trusted.delegate"];
    let marks = marks.map(|mark| sys::extended_attribute(group, mark));
    if marks.iter().flatten().any(|mark| mark == b"1") {
        return Some(true);
    }
    // A user can read only the mark that older managers do not make.
    let [user, _] = &marks;
    let is_known = matches!(user, Ok(_) | Err(Errno::ENODATA)) && geteuid().is_root();
    is_known.then_some(false)
}

/// Whether a process executes listend, or has an ancestor that does.
fn is_listends(pid: i32, own: Option<(u64, u64)>, known: &mut BTreeSet<i32>) -> bool {
    const DEEPEST: usize = 256;
    let mut seen = Vec::new();
    let mut at = pid;
    for _ in 0..DEEPEST {
        let is_ours = known.contains(&at) || own.is_some() && program(at) == own;
        if is_ours {
            known.extend(seen);
            return true;
        }
        seen.push(at);
        match parent(at) {
            Some(above) if above > 0 => at = above,
            // It has ended meanwhile.
            None if at == pid => return true,
            _ => return false,
        }
    }
    false
}

/// The file that a process executes.
fn program(pid: i32) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    Some((file.dev(), file.ino()))
}

fn parent(pid: i32) -> Option<i32> {
    let stat = sys::read_proc_file(pid, "stat").ok()?;
    Some(Stat::from_read(stat.as_slice()).ok()?.ppid)
}

/// The group of a process.
pub(super) fn group_of(pid: i32) -> Option<std::path::PathBuf> {
    layout::group(&sys::read_proc_file(pid, "cgroup").ok()?)
}
