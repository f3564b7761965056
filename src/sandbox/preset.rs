//! What the presets of `sandbox:` stand for.

use super::calls::Term;
use super::families::{Families, Family};
use super::flag::Flag;
use super::model::{Preset, ProtectHome, ProtectProc, ProtectSystem, Sandbox};
use std::collections::BTreeSet;

impl Preset {
    /// What it stands for.
    pub fn sandbox(self) -> Sandbox {
        let mut all = Sandbox {
            preset: Some(self),
            capabilities: Some(BTreeSet::new()),
            protect_system: ProtectSystem::Full,
            ..Sandbox::default()
        };
        all.flags.extend([
            Flag::NoNewPrivileges,
            Flag::PrivateTmp,
            Flag::PrivateIpc,
            Flag::ProtectKernelTunables,
            Flag::ProtectKernelModules,
            Flag::ProtectKernelLogs,
            Flag::ProtectClock,
            Flag::ProtectControlGroups,
            Flag::ProtectHostname,
            Flag::RestrictSuidSgid,
            Flag::LockPersonality,
        ]);
        if self >= Preset::Strict {
            all.flags.extend([
                Flag::PrivateDevices,
                Flag::ProtectProcesses,
                Flag::RestrictNamespaces,
                Flag::RestrictRealtime,
            ]);
            all.protect_system = ProtectSystem::Strict;
            all.protect_home = ProtectHome::Hidden;
            all.protect_proc = ProtectProc::Invisible;
            let families = [Family::Inherited, Family::of("AF_UNIX")];
            all.families = Some(Families::Only(families.into_iter().collect()));
            // What servers use, without what of it attacks on the kernel use.
            all.system_calls = vec![
                Term::only("@system-service"),
                Term::without("@keyring"),
                Term::without("io_uring_setup"),
                Term::without("io_uring_enter"),
                Term::without("io_uring_register"),
                Term::without("userfaultfd"),
            ];
        }
        if self >= Preset::Sealed {
            all.flags.insert(Flag::PrivateNetwork);
            all.families = Some(Families::Only([Family::of("AF_UNIX")].into()));
        }
        all
    }
}
