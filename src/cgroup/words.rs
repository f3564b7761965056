//! Why a limit cannot be enforced here, and what to do about it. Pure.

use super::layout::NoTree;
use crate::sandbox::DROP_INS;
use nix::errno::Errno;
use std::fmt;
use std::path::PathBuf;

/// What is in the way of a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// There are no groups of version 2, or none of ours.
    NoTree(NoTree),
    /// The kernel has given the controller to version 1.
    IsVersion1(&'static str),
    /// The kernel has no such controller.
    NoController(&'static str),
    /// The groups above do not pass the controller on.
    NotPassedOn(&'static str, PathBuf),
    /// The group belongs to somebody else, or others can change it.
    Foreign(PathBuf, u32),
    /// The service manager has not given it away.
    NotDelegated(PathBuf),
    /// It cannot be written to.
    NotWritable(PathBuf, Errno),
    /// Processes that are not listend's are in the group that is to be divided.
    Shared(PathBuf, i32, String),
    /// A call of the kernel has failed: what was tried.
    Failed(String, Errno),
}

fn delegate() -> String {
    format!("`Delegate=yes` in the unit of listend (delegate.conf in {DROP_INS})")
}

const AS_USER: &str =
    "`systemd-run --user -p Delegate=yes -p DelegateSubgroup=listend.daemon listend run`";

impl Obstacle {
    /// What of the kernel's it comes nearest to.
    pub fn errno(&self) -> Errno {
        match self {
            Obstacle::NoTree(_)
            | Obstacle::IsVersion1(_)
            | Obstacle::NoController(_)
            | Obstacle::NotPassedOn(..) => Errno::ENOENT,
            Obstacle::Foreign(..) | Obstacle::NotDelegated(_) => Errno::EPERM,
            Obstacle::Shared(..) => Errno::EBUSY,
            Obstacle::NotWritable(_, errno) | Obstacle::Failed(_, errno) => *errno,
        }
    }

    /// Whether it is so for every listend of this machine, and not only where this process is.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(
            self,
            Obstacle::NoTree(NoTree::Unmounted)
                | Obstacle::IsVersion1(_)
                | Obstacle::NoController(_)
        )
    }

    /// What to do.
    pub fn remedy(&self) -> String {
        match self {
            Obstacle::NoTree(NoTree::Unmounted) | Obstacle::IsVersion1(_) => {
                "boot with `systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all`".to_owned()
            }
            Obstacle::NoController(controller) => {
                format!("boot without `cgroup_disable={controller}`, or with a kernel that has it")
            }
            Obstacle::NoTree(_) => "mount cgroup2 on /sys/fs/cgroup".to_owned(),
            Obstacle::NotPassedOn(..) | Obstacle::NotDelegated(_) => delegate(),
            Obstacle::NotWritable(_, Errno::EROFS) => format!(
                "mount it read-write: {} with `ProtectControlGroups=no`, or in a container \
                 `--security-opt unmask=/sys/fs/cgroup`",
                delegate()
            ),
            Obstacle::NotWritable(..) | Obstacle::Foreign(..) => {
                format!("{}; of a user: {AS_USER}", delegate())
            }
            Obstacle::Shared(..) => {
                format!(
                    "run listend in a group of its own: {}; of a user: {AS_USER}",
                    delegate()
                )
            }
            Obstacle::Failed(_, Errno::EOPNOTSUPP) => {
                "groups of threads have no limits: run listend in another group".to_owned()
            }
            Obstacle::Failed(_, Errno::EAGAIN) => {
                "see cgroup.max.descendants and cgroup.max.depth of the groups above".to_owned()
            }
            Obstacle::Failed(..) => delegate(),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NoTree(NoTree::Unmounted) => to.write_str("cgroup2 is not mounted"),
            Obstacle::NoTree(NoTree::NoGroup) => {
                to.write_str("listend is in no group of cgroup version 2")
            }
            Obstacle::NoTree(NoTree::Hidden) => {
                to.write_str("no mount of cgroup2 shows the group that listend is in")
            }
            Obstacle::IsVersion1(controller) => write!(
                to,
                "the controller `{controller}` is in use by cgroup version 1"
            ),
            Obstacle::NoController(controller) => {
                write!(to, "this kernel has no controller `{controller}`")
            }
            Obstacle::NotPassedOn(controller, base) => write!(
                to,
                "the groups above {} do not pass the controller `{controller}` on",
                base.display()
            ),
            Obstacle::Foreign(base, uid) => write!(
                to,
                "{} can be changed by others (owner uid {uid})",
                base.display()
            ),
            Obstacle::NotDelegated(base) => {
                write!(to, "{} is the service manager's", base.display())
            }
            Obstacle::NotWritable(path, errno) => {
                write!(to, "{} cannot be written to: {errno:?}", path.display())
            }
            Obstacle::Shared(base, pid, name) => write!(
                to,
                "{} has processes that are not listend's (pid {pid}, {name})",
                base.display()
            ),
            Obstacle::Failed(what, errno) => write!(to, "{what}: {errno:?}"),
        }
    }
}
