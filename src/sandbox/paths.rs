//! What a sandbox says about the file system → one list of places, each with what the worker may do there.

use super::flag::Flag;
use super::model::{Named, ProtectHome, ProtectProc, ProtectSystem, Sandbox};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What the worker finds at a place, and below it as far as no other rule has that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// What is there, as its user may use it.
    Writable,
    /// What is there, and nobody can change it.
    ReadOnly,
    /// An empty directory that cannot be changed.
    Empty,
    /// Nothing that it could open or enter.
    Hidden,
    /// An empty directory of its own for temporary files.
    Own,
    /// The devices that every program may use, and no other.
    Devices,
    /// The processes that `hidepid=` with this number shows.
    Processes(u8),
}

impl View {
    /// Whether nothing of what is there is to be seen.
    pub fn hides(self) -> bool {
        matches!(self, View::Hidden | View::Empty | View::Own | View::Devices)
    }
}

/// A place, and what the worker finds there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// An absolute path.
    pub path: PathBuf,
    /// What is there.
    pub view: View,
    /// Whether the rest holds without it where there is no such path.
    pub optional: bool,
    /// The key that wants it.
    pub key: String,
}

/// The places that a worker needs, or must not have, whatever its sandbox says.
#[derive(Debug, Clone, Default)]
pub struct Implied {
    /// Paths of its own: its runtime directory, the notify socket.
    pub own: Vec<PathBuf>,
    /// The control socket of listend, by each of its names: who may use it can start any program without a sandbox.
    pub hidden: Vec<PathBuf>,
}

/// The devices of [`View::Devices`].
pub const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// The directories of devices that stay.
pub const DEVICE_FOLDERS: &[&str] = &["pts", "mqueue", "hugepages"];

/// The list, so that a place comes behind those that it is in. Of rules about one path the last counts:
/// what was written by name wins over what a key implies.
pub fn rules(sandbox: &Sandbox, implied: &Implied) -> Vec<Rule> {
    let mut all = List::default();
    all.system(sandbox);
    all.home(sandbox);
    all.kernel(sandbox);
    if sandbox.has(Flag::PrivateTmp) {
        all.add(Flag::PrivateTmp.key(), View::Own, &["/tmp", "/var/tmp"]);
    }
    if sandbox.has(Flag::PrivateDevices) {
        all.add(Flag::PrivateDevices.key(), View::Devices, &["/dev"]);
    }
    for (key, view, named) in [
        ("read_only_paths", View::ReadOnly, &sandbox.read_only_paths),
        (
            "read_write_paths",
            View::Writable,
            &sandbox.read_write_paths,
        ),
        (
            "inaccessible_paths",
            View::Hidden,
            &sandbox.inaccessible_paths,
        ),
    ] {
        named.iter().for_each(|one| all.name(key, view, one));
    }
    if !all.0.is_empty() {
        for (view, paths) in [
            (View::Writable, &implied.own),
            (View::Hidden, &implied.hidden),
        ] {
            let names = paths.iter().map(|path| Named {
                path: path.clone(),
                optional: true,
            });
            names.for_each(|one| all.name("sandbox", view, &one));
        }
    }
    outer_first(&mut all.0);
    all.0
}

/// Puts what is in a place behind that.
pub fn outer_first(rules: &mut [Rule]) {
    rules.sort_by_key(|rule| rule.path.components().count());
}

#[derive(Default)]
struct List(Vec<Rule>);

impl List {
    fn add(&mut self, key: &str, view: View, paths: &[&str]) {
        for path in paths {
            let named = Named {
                path: PathBuf::from(path),
                optional: true,
            };
            self.name(key, view, &named);
        }
    }

    fn name(&mut self, key: &str, view: View, named: &Named) {
        self.0.retain(|rule| rule.path != named.path);
        self.0.push(Rule {
            path: named.path.clone(),
            view,
            optional: named.optional,
            key: key.to_owned(),
        });
    }

    fn system(&mut self, sandbox: &Sandbox) {
        let level = sandbox.protect_system;
        let key = "protect_system";
        match level {
            ProtectSystem::No => {}
            ProtectSystem::Usr | ProtectSystem::Full => {
                let usr = ["/usr", "/boot", "/efi", "/bin", "/sbin", "/lib", "/lib64"];
                self.add(key, View::ReadOnly, &usr);
                if level == ProtectSystem::Full {
                    self.add(key, View::ReadOnly, &["/etc"]);
                }
            }
            ProtectSystem::Strict => {
                self.add(key, View::ReadOnly, &["/"]);
                self.add(key, View::Writable, &["/dev", "/proc", "/sys"]);
            }
        }
    }

    fn home(&mut self, sandbox: &Sandbox) {
        let view = match sandbox.protect_home {
            ProtectHome::No => return,
            ProtectHome::ReadOnly => View::ReadOnly,
            ProtectHome::Tmpfs => View::Empty,
            ProtectHome::Hidden => View::Hidden,
        };
        self.add("protect_home", view, &["/home", "/root", "/run/user"]);
    }

    fn kernel(&mut self, sandbox: &Sandbox) {
        let shown = match sandbox.protect_proc {
            ProtectProc::Default => None,
            ProtectProc::NoAccess => Some(1),
            ProtectProc::Invisible => Some(2),
            ProtectProc::Ptraceable => Some(4),
        };
        if let Some(number) = shown {
            self.add("protect_proc", View::Processes(number), &["/proc"]);
        }
        if sandbox.has(Flag::ProtectKernelTunables) {
            let key = Flag::ProtectKernelTunables.key();
            let tunable = [
                "/proc/acpi",
                "/proc/apm",
                "/proc/asound",
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/latency_stats",
                "/proc/mtrr",
                "/proc/scsi",
                "/proc/sys",
                "/proc/sysrq-trigger",
                "/proc/timer_stats",
                "/sys",
            ];
            self.add(key, View::ReadOnly, &tunable);
            self.add(key, View::Hidden, &["/proc/kallsyms", "/proc/kcore"]);
        }
        if sandbox.has(Flag::ProtectKernelModules) {
            let key = Flag::ProtectKernelModules.key();
            self.add(key, View::Hidden, &["/usr/lib/modules"]);
        }
        if sandbox.has(Flag::ProtectKernelLogs) {
            let key = Flag::ProtectKernelLogs.key();
            self.add(key, View::Hidden, &["/proc/kmsg", "/dev/kmsg"]);
        }
        if sandbox.has(Flag::ProtectControlGroups) {
            let key = Flag::ProtectControlGroups.key();
            self.add(key, View::ReadOnly, &["/sys/fs/cgroup"]);
        }
    }
}

/// The rule that holds for a path: that of the nearest place it is in.
pub fn rule_for<'r>(rules: &'r [Rule], path: &Path) -> Option<&'r Rule> {
    rules.iter().rev().find(|rule| path.starts_with(&rule.path))
}

/// The rule by which a sandbox hides a path, if it does.
pub fn hiding<'r>(rules: &'r [Rule], path: &Path) -> Option<&'r Rule> {
    rule_for(rules, path).filter(|rule| rule.view.hides())
}

/// The rule of the nearest place that this place is in.
pub fn around<'r>(rules: &'r [Rule], rule: &Rule) -> Option<&'r Rule> {
    rule_for(rules, rule.path.parent()?)
}
