//! A sandbox as a table: what is on, what enforces it, what a worker could do without it; and a score.
//!
//! The score is a count of what is left open, as `systemd-analyze security` has one of its own kind: from 0.0,
//! where everything of the table is closed, to 10.0, where nothing is.

use super::families::Families;
use super::flag::Flag;
use super::model::{ProtectHome, ProtectProc, ProtectSystem, Sandbox};
use super::text::{capabilities_text, list};

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The key of the configuration.
    pub key: &'static str,
    /// Its value, as it would be written.
    pub value: String,
    /// How much of it is closed, from 0 to 100; a limit is, if it is set.
    pub closed: u32,
    /// How much it counts; nothing for limits, of which nobody can say how low they should be.
    pub weight: u32,
    /// What enforces it; behind `or` what does where that is missing.
    pub enforced_by: &'static str,
    /// What a worker that was taken over can do as long as it is not closed.
    pub without: &'static str,
}

/// How much is left open, in tenths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score(pub u32);

impl std::fmt::Display for Score {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// The table, in the order of the manual. `None` is a worker without a sandbox.
pub fn lines(sandbox: Option<&Sandbox>) -> Vec<Line> {
    let nothing = Sandbox::default();
    let of = sandbox.unwrap_or(&nothing);
    let flags = Flag::ALL.iter().filter(|flag| flag.weight() > 0);
    let flags = flags.map(|flag| Line {
        key: flag.key(),
        value: of.has(*flag).to_string(),
        closed: if of.has(*flag) { 100 } else { 0 },
        weight: flag.weight(),
        enforced_by: flag.enforced_by(),
        without: flag.without(),
    });
    let others = [
        Line {
            key: "capabilities",
            value: capabilities_text(of.capabilities.as_ref()),
            closed: match &of.capabilities {
                None => 0,
                Some(kept) if kept.is_empty() => 100,
                Some(_) => 70,
            },
            weight: 8,
            enforced_by: "the bounding set",
            without: "it has the rights of root if it runs as root",
        },
        Line {
            key: "protect_system",
            value: of.protect_system.word().to_owned(),
            closed: match of.protect_system {
                ProtectSystem::No => 0,
                ProtectSystem::Usr => 30,
                ProtectSystem::Full => 60,
                ProtectSystem::Strict => 100,
            },
            weight: 8,
            enforced_by: "mount namespace, or landlock",
            without: "it can change files of the system, if its user may",
        },
        Line {
            key: "protect_home",
            value: of.protect_home.word().to_owned(),
            closed: match of.protect_home {
                ProtectHome::No => 0,
                ProtectHome::ReadOnly => 40,
                ProtectHome::Tmpfs | ProtectHome::Hidden => 100,
            },
            weight: 5,
            enforced_by: "mount namespace, or landlock",
            without: "it can read the home directories, if its user may",
        },
        Line {
            key: "protect_proc",
            value: of.protect_proc.word().to_owned(),
            closed: match of.protect_proc {
                ProtectProc::Default => 0,
                ProtectProc::NoAccess => 70,
                ProtectProc::Invisible | ProtectProc::Ptraceable => 100,
            },
            weight: 3,
            enforced_by: "a mount of proc, or landlock",
            without: "it sees the processes of other users",
        },
        Line {
            key: "restrict_address_families",
            value: families(of.families.as_ref()),
            closed: match &of.families {
                None => 0,
                Some(Families::AllBut(_)) => 50,
                Some(Families::Only(_)) => 100,
            },
            weight: 5,
            enforced_by: "seccomp",
            without: "it can make sockets of every kind, raw and netlink sockets included",
        },
        Line {
            key: "system_calls",
            value: match of.system_calls.as_slice() {
                [] => "all".to_owned(),
                terms => list(terms),
            },
            closed: match of.system_calls.first() {
                None => 0,
                Some(first) if first.is_denied => 50,
                Some(_) => 100,
            },
            weight: 10,
            enforced_by: "seccomp",
            without: "it can use every call of the kernel, and what is wrong with it",
        },
    ];
    let limits = LIMITS.iter().map(|(key, enforced_by, without)| {
        let value = of.limits.value(key);
        Line {
            key,
            closed: if value.is_some() { 100 } else { 0 },
            value: value.unwrap_or("none".to_owned()),
            weight: 0,
            enforced_by,
            without,
        }
    });
    flags.chain(others).chain(limits).collect()
}

const LIMITS: [(&str, &str, &str); 4] = [
    (
        "memory_max",
        "cgroup, controller memory",
        "it can take all memory that listend has",
    ),
    (
        "tasks_max",
        "cgroup, controller pids",
        "it can take all processes that listend has",
    ),
    (
        "cpu_quota",
        "cgroup, controller cpu",
        "it can take all processors that listend has",
    ),
    (
        "io_weight",
        "cgroup, controller io",
        "it gets as much of the disks as any other",
    ),
];

fn families(families: Option<&Families>) -> String {
    families.map_or("any".to_owned(), Families::to_string)
}

/// How much is left open.
pub fn score(lines: &[Line]) -> Score {
    let weights: u32 = lines.iter().map(|line| line.weight).sum();
    let open = lines.iter().map(|line| line.weight * (100 - line.closed));
    let open: u32 = open.sum();
    Score(open.checked_div(weights).unwrap_or(0))
}

/// What would help most of what is open: the key, and what it stops.
pub fn next_step(lines: &[Line]) -> Option<&Line> {
    let open = |line: &&Line| line.weight * (100 - line.closed);
    lines.iter().filter(|line| open(line) > 0).max_by_key(open)
}
