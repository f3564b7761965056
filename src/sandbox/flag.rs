//! The table of what a sandbox has on or off.

use serde::{Deserialize, Serialize};

macro_rules! flags {
    ($($name:ident = $key:literal, $directive:literal, $weight:literal, $by:literal, $without:literal;)*) => {
        /// A key of `sandbox:` that is `true` or `false`; with the name and the meaning that systemd.exec(5)
        /// has, where it has one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub enum Flag { $($name,)* }

        impl Flag {
            /// Every flag, in the order of the manual.
            pub const ALL: &'static [Flag] = &[$(Flag::$name,)*];

            /// The key in the configuration.
            pub const fn key(self) -> &'static str {
                match self { $(Flag::$name => $key,)* }
            }

            /// The directive of systemd.exec(5) with this meaning; empty if it has none.
            pub const fn directive(self) -> &'static str {
                match self { $(Flag::$name => $directive,)* }
            }

            /// How much it counts for the score; 0 is no protection.
            pub const fn weight(self) -> u32 {
                match self { $(Flag::$name => $weight,)* }
            }

            /// What enforces it; behind `or` what does where that is missing.
            pub const fn enforced_by(self) -> &'static str {
                match self { $(Flag::$name => $by,)* }
            }

            /// What a worker that was taken over can do without it.
            pub const fn without(self) -> &'static str {
                match self { $(Flag::$name => $without,)* }
            }
        }
    };
}

flags! {
    NoNewPrivileges = "no_new_privileges", "NoNewPrivileges", 8, "prctl(2)",
        "it can gain privileges by setuid programs";
    PrivateNetwork = "private_network", "PrivateNetwork", 10, "network namespace, or seccomp and landlock",
        "it can open connections";
    PrivateTmp = "private_tmp", "PrivateTmp", 5, "mount namespace",
        "it can read and change the temporary files of others";
    PrivateDevices = "private_devices", "PrivateDevices", 4, "mount namespace, or landlock",
        "it can use the devices that its user may";
    PrivateIpc = "private_ipc", "PrivateIPC", 3, "IPC namespace",
        "it can use the shared memory, semaphores and message queues of others";
    ProtectProcesses = "protect_processes", "", 6, "landlock",
        "it can trace and signal other processes of its user";
    ProtectKernelTunables = "protect_kernel_tunables", "ProtectKernelTunables", 4, "mount namespace, or landlock",
        "it can change kernel settings, if its user may";
    ProtectKernelModules = "protect_kernel_modules", "ProtectKernelModules", 3, "seccomp",
        "it can load kernel modules, if its user may";
    ProtectKernelLogs = "protect_kernel_logs", "ProtectKernelLogs", 2, "seccomp, and mount namespace or landlock",
        "it can read the log of the kernel, if its user may";
    ProtectClock = "protect_clock", "ProtectClock", 1, "seccomp",
        "it can set the clock, if its user may";
    ProtectControlGroups = "protect_control_groups", "ProtectControlGroups", 2, "mount namespace, or landlock",
        "it can change control groups, if its user may";
    ProtectHostname = "protect_hostname", "ProtectHostname", 1, "seccomp and UTS namespace",
        "it can change the host name, if its user may";
    RestrictNamespaces = "restrict_namespaces", "RestrictNamespaces", 5, "seccomp",
        "it can make user namespaces, in which more of the kernel can be attacked";
    RestrictRealtime = "restrict_realtime", "RestrictRealtime", 1, "seccomp",
        "it can take the processors for itself, if its user may";
    RestrictSuidSgid = "restrict_suid_sgid", "RestrictSUIDSGID", 2, "seccomp",
        "it can leave setuid files for others";
    LockPersonality = "lock_personality", "LockPersonality", 1, "seccomp",
        "it can switch off the randomisation of addresses";
    MemoryDenyWriteExecute = "memory_deny_write_execute", "MemoryDenyWriteExecute", 3, "seccomp",
        "it can execute what it has written to memory";
    BestEffort = "best_effort", "", 0, "",
        "";
}

impl Flag {
    /// The numbers of the capabilities that are taken away with it (capabilities(7)), as systemd does.
    pub const fn capabilities(self) -> &'static [u8] {
        const SYS_MODULE: u8 = 16;
        const SYS_RAWIO: u8 = 17;
        const SYS_TIME: u8 = 25;
        const MKNOD: u8 = 27;
        const SYSLOG: u8 = 34;
        const WAKE_ALARM: u8 = 35;
        match self {
            Flag::PrivateDevices => &[MKNOD, SYS_RAWIO],
            Flag::ProtectKernelModules => &[SYS_MODULE],
            Flag::ProtectKernelLogs => &[SYSLOG],
            Flag::ProtectClock => &[SYS_TIME, WAKE_ALARM],
            _ => &[],
        }
    }
}
