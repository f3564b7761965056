//! A sandbox, as the configuration says it.

use super::calls::Term;
use super::families::Families;
use super::flag::Flag;
use super::limits::Limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// The sandbox of a worker, with everything that its preset says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The preset that the rest began with.
    pub preset: Option<Preset>,
    /// What is on.
    pub flags: BTreeSet<Flag>,
    /// The capabilities that are left, as numbers; `None` takes none away.
    pub capabilities: Option<BTreeSet<u8>>,
    /// What of the system is read-only.
    pub protect_system: ProtectSystem,
    /// What is left of the home directories.
    pub protect_home: ProtectHome,
    /// The processes that /proc shows.
    pub protect_proc: ProtectProc,
    /// Paths that are read-only.
    pub read_only_paths: Vec<Named>,
    /// Paths that are writable in what is read-only, and visible in what is hidden.
    pub read_write_paths: Vec<Named>,
    /// Paths that are hidden.
    pub inaccessible_paths: Vec<Named>,
    /// The kinds of sockets that may be made; `None` is every kind.
    pub families: Option<Families>,
    /// The system calls that are permitted, in the order in which they were named; empty is all.
    pub system_calls: Vec<Term>,
    /// What its processes may use together.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// The keys that are not on or off, with the directives of systemd.exec(5) that have their meaning.
pub const DIRECTIVES: &[(&str, &str)] = &[
    ("capabilities", "CapabilityBoundingSet"),
    ("protect_system", "ProtectSystem"),
    ("protect_home", "ProtectHome"),
    ("protect_proc", "ProtectProc"),
    ("read_only_paths", "ReadOnlyPaths"),
    ("read_write_paths", "ReadWritePaths"),
    ("inaccessible_paths", "InaccessiblePaths"),
    ("restrict_address_families", "RestrictAddressFamilies"),
    ("system_calls", "SystemCallFilter"),
    ("memory_max", "MemoryMax"),
    ("tasks_max", "TasksMax"),
    ("cpu_quota", "CPUQuota"),
    ("io_weight", "IOWeight"),
];

impl Sandbox {
    /// Whether this is on.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Whether what cannot be enforced is left out.
    pub fn is_best_effort(&self) -> bool {
        self.has(Flag::BestEffort)
    }
}

/// A path of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// An absolute path.
    pub path: PathBuf,
    /// Whether it may be missing (written with a leading `-`).
    pub optional: bool,
}

impl fmt::Display for Named {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dash = if self.optional { "-" } else { "" };
        write!(to, "{dash}{}", self.path.display())
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$of])* $word,)* }

        impl $name {
            /// Every value with its word.
            pub const ALL: &'static [(&'static str, $name)] = &[$(($text, $name::$word),)*];

            /// The word of the configuration.
            pub const fn word(self) -> &'static str {
                match self { $($name::$word => $text,)* }
            }
        }
    };
}

words! {
    /// What of the system is read-only (`ProtectSystem=` of systemd.exec(5)).
    ProtectSystem {
        /// Nothing.
        #[default]
        No = "false",
        /// /usr and the boot loader.
        Usr = "true",
        /// /etc, too.
        Full = "full",
        /// All but /dev, /proc, /sys and named paths.
        Strict = "strict",
    }
}

words! {
    /// What is left of /home, /root and /run/user (`ProtectHome=`).
    ProtectHome {
        /// All.
        #[default]
        No = "false",
        /// Readable, not writable.
        ReadOnly = "read-only",
        /// Empty.
        Tmpfs = "tmpfs",
        /// Not accessible.
        Hidden = "true",
    }
}

words! {
    /// The processes that /proc shows (`ProtectProc=`).
    ProtectProc {
        /// All.
        #[default]
        Default = "default",
        /// Processes of other users are visible, but their details are not.
        NoAccess = "noaccess",
        /// Only processes of the same user are visible.
        Invisible = "invisible",
        /// Only those that could be traced.
        Ptraceable = "ptraceable",
    }
}

/// A set of keys that go together. Each has what the one before has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// For every worker that does not administer the machine.
    Basic,
    /// For servers: they read the system, and write where they are told to.
    Strict,
    /// Without a network but for the sockets that are handed over.
    Sealed,
}

impl Preset {
    /// Every preset with its word.
    pub const ALL: &'static [(&'static str, Preset)] = &[
        ("basic", Preset::Basic),
        ("strict", Preset::Strict),
        ("sealed", Preset::Sealed),
    ];

    /// The word of the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Preset::Basic => "basic",
            Preset::Strict => "strict",
            Preset::Sealed => "sealed",
        }
    }

    /// The next stricter one.
    pub const fn next(self) -> Option<Preset> {
        match self {
            Preset::Basic => Some(Preset::Strict),
            Preset::Strict => Some(Preset::Sealed),
            Preset::Sealed => None,
        }
    }
}
