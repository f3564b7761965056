//! landlock(7): what keeps a process from others, and the rules about paths where there are no mounts.

use super::order::Order;
use super::outcome::{Notes, Outcome, failure};
use super::spaces::Spaces;
use crate::sandbox::paths::{DEVICE_FOLDERS, DEVICES, Rule, View};
use crate::sandbox::{Flag, ProtectProc};
use crate::stage::Stage;
use crate::sys;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use nix::errno::Errno;
use nix::unistd::geteuid;
use std::fs;
use std::path::{Path, PathBuf};

/// The first version that restricts TCP connections.
const NETWORK: i32 = 4;
/// The first version that restricts signals and abstract names.
const SCOPES: i32 = 6;

/// Enforces what is left to landlock.
pub(super) fn restrict(
    order: &Order,
    rules: &[Rule],
    spaces: &Spaces,
    notes: &mut Notes,
) -> Outcome {
    let sandbox = &order.sandbox;
    let by_paths = !rules.is_empty() && !spaces.mounts;
    let stays_in_proc = sandbox.protect_proc != ProtectProc::Default
        && (spaces.is_own_user || spaces.refused.is_some());
    let by_scope = sandbox.has(Flag::ProtectProcesses) || stays_in_proc;
    let by_network = sandbox.has(Flag::PrivateNetwork) && !order.connects;
    if !by_paths && !by_scope && !by_network {
        return Ok(());
    }
    let version = sys::landlock_version();
    let why = spaces.refused.as_deref().unwrap_or("");
    if version == 0 {
        let missing = format!("this kernel has no landlock; {why}");
        let missing = missing.trim_end_matches("; ");
        if by_paths {
            let key = rules.first().map_or("sandbox", |rule| rule.key.as_str());
            notes.missing(Stage::Restrictions, key, Errno::ENOSYS, missing)?;
        }
        if sandbox.has(Flag::ProtectProcesses) {
            let key = Flag::ProtectProcesses.key();
            notes.missing(Stage::Restrictions, key, Errno::ENOSYS, missing)?;
        }
        return Ok(());
    }
    if by_paths {
        for rule in rules.iter().filter(|rule| rule.view == View::Own) {
            let what = format!(
                "{} of its own needs a mount namespace: {why}",
                rule.path.display()
            );
            notes.missing(Stage::Restrictions, &rule.key, Errno::EPERM, &what)?;
        }
    }
    if by_paths && let Some(control) = &order.control {
        let families = order.sandbox.families.as_ref();
        let uid = geteuid();
        // The daemon takes orders from its own user and from root.
        let is_heard = uid.is_root()
            || order
                .credentials
                .as_ref()
                .is_none_or(|own| own.uid.is_none());
        if is_heard && families.is_none_or(|families| families.permits(nix::libc::AF_UNIX)) {
            let what = format!(
                "nothing keeps it from {}, where it could have listend start any program: forbid \
                 AF_UNIX by `restrict_address_families`, or give the worker a `user`",
                control.display()
            );
            notes.missing(
                Stage::Restrictions,
                "inaccessible_paths",
                Errno::EPERM,
                &what,
            )?;
        }
    }
    if by_scope && version < SCOPES {
        let what = "landlock of this kernel does not restrict signals: that needs Linux 6.12";
        let key = Flag::ProtectProcesses.key();
        notes.missing(Stage::Restrictions, key, Errno::ENOSYS, what)?;
    }
    let wanted = Wanted {
        by_paths,
        by_scope,
        by_network: by_network && version >= NETWORK,
        is_alone: spaces.network,
    };
    let enforced = enforce(order, rules, version, &wanted);
    enforced.map_err(|error| {
        failure(
            Stage::Restrictions,
            Errno::EPERM,
            format!("landlock: {error}"),
        )
    })?;
    Ok(())
}

struct Wanted {
    by_paths: bool,
    by_scope: bool,
    by_network: bool,
    /// In a network of its own, where it may bind what it likes.
    is_alone: bool,
}

fn enforce(
    order: &Order,
    rules: &[Rule],
    version: i32,
    wanted: &Wanted,
) -> Result<(), RulesetError> {
    let abi = match version {
        1 => ABI::V1,
        2 => ABI::V2,
        _ => ABI::V3,
    };
    let hides = rules.iter().any(|rule| level(rule.view) == Level::Nothing);
    let handled = match hides {
        true => AccessFs::from_all(abi),
        false => AccessFs::from_write(abi),
    };
    let mut ruleset = Ruleset::default();
    if wanted.by_paths {
        ruleset = ruleset.handle_access(handled)?;
    }
    if wanted.by_network {
        let mut ways = BitFlags::from(AccessNet::ConnectTcp);
        if !wanted.is_alone {
            ways |= AccessNet::BindTcp;
        }
        ruleset = ruleset.handle_access(ways)?;
    }
    if wanted.by_scope && version >= SCOPES {
        ruleset = ruleset.scope(Scope::Signal)?;
        if !order.notifies_abstract() {
            ruleset = ruleset.scope(Scope::AbstractUnixSocket)?;
        }
    } else if wanted.by_scope && !wanted.by_paths {
        // Any restriction makes a domain, whose processes can trace no others.
        ruleset = ruleset.handle_access(AccessFs::MakeBlock)?;
    }
    let mut ruleset = ruleset.create()?;
    if wanted.by_paths {
        let mut granted = Vec::new();
        grant(Path::new("/"), start(rules), rules, &mut granted);
        for (path, level) in granted {
            let rights = match level {
                Level::Nothing => continue,
                Level::Read => AccessFs::from_read(abi) & handled,
                Level::All => handled,
            };
            // Another may have removed it meanwhile.
            let Ok(place) = PathFd::new(&path) else {
                continue;
            };
            let rights = match path.is_dir() {
                true => rights,
                false => rights & AccessFs::from_file(abi),
            };
            if !rights.is_empty() {
                ruleset = ruleset.add_rule(PathBeneath::new(place, rights))?;
            }
        }
    }
    ruleset.restrict_self()?;
    Ok(())
}

/// What may be done at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Nothing,
    Read,
    All,
}

fn level(view: View) -> Level {
    match view {
        View::Hidden | View::Empty | View::Own | View::Devices => Level::Nothing,
        View::ReadOnly => Level::Read,
        View::Writable | View::Processes(_) => Level::All,
    }
}

fn start(rules: &[Rule]) -> Level {
    let root = rules.iter().find(|rule| rule.path == Path::new("/"));
    root.map_or(Level::All, |rule| level(rule.view))
}

/// Landlock only ever gives more below a place. Where there is to be less, everything else in the folder gets its
/// own rule, and what is created there later gets none.
fn grant(path: &Path, level: Level, rules: &[Rule], granted: &mut Vec<(PathBuf, Level)>) {
    let view = rules
        .iter()
        .find(|rule| rule.path == path)
        .map(|rule| rule.view);
    if view == Some(View::Devices) {
        let names = DEVICES.iter().chain(DEVICE_FOLDERS).chain(&["shm", "log"]);
        granted.extend(names.map(|name| (path.join(name), Level::All)));
        return;
    }
    let below = |rule: &&Rule| rule.path != path && rule.path.starts_with(path);
    let below: Vec<&Rule> = rules.iter().filter(below).collect();
    // Processes come and go: there it is all or nothing.
    if path == Path::new("/proc") || path == Path::new("/sys") {
        let is_less = below.iter().any(|rule| self::level(rule.view) < level);
        granted.push((path.to_owned(), if is_less { Level::Read } else { level }));
        return;
    }
    if below.iter().all(|rule| self::level(rule.view) >= level) {
        granted.push((path.to_owned(), level));
        for rule in below {
            granted.push((rule.path.clone(), self::level(rule.view)));
        }
        return;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        let path = entry.path();
        let own = rules.iter().find(|rule| rule.path == path);
        grant(
            &path,
            own.map_or(level, |rule| self::level(rule.view)),
            rules,
            granted,
        );
    }
}
