//! Namespaces and capabilities.

use super::order::Order;
use super::outcome::{Outcome, failure};
use super::user::switch_user;
use crate::sandbox::paths::{self, Rule};
use crate::sandbox::{DROP_INS, Flag};
use crate::stage::Stage;
use crate::walk;
use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::os::fd::AsRawFd;

/// The namespaces that the process has got.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    pub(super) mounts: bool,
    pub(super) network: bool,
    pub(super) ipc: bool,
    /// In a user namespace of its own, in which it has every capability until it gives them up.
    pub(super) is_own_user: bool,
    /// Whether it runs as the user of the worker by now.
    pub(super) has_switched: bool,
    /// Its bounding set has what it is not to have.
    pub(super) is_unbounded: bool,
    /// Why it has none, if it wanted some.
    pub(super) refused: Option<String>,
}

/// Makes the namespaces that the sandbox needs, with the rights of listend, or else in a user namespace.
pub(super) fn enter(order: &Order, rules: &mut [Rule]) -> Outcome<Spaces> {
    let sandbox = &order.sandbox;
    let wanted = [
        (!rules.is_empty(), CloneFlags::CLONE_NEWNS),
        (sandbox.has(Flag::PrivateNetwork), CloneFlags::CLONE_NEWNET),
        (sandbox.has(Flag::PrivateIpc), CloneFlags::CLONE_NEWIPC),
        (sandbox.has(Flag::ProtectHostname), CloneFlags::CLONE_NEWUTS),
    ];
    let wanted = wanted.iter().filter(|(is_wanted, _)| *is_wanted);
    let flags = wanted.fold(CloneFlags::empty(), |all, (_, flag)| all | *flag);
    let mut spaces = Spaces::default();
    if flags.is_empty() {
        return Ok(spaces);
    }
    let got = |mut spaces: Spaces| {
        spaces.mounts = flags.contains(CloneFlags::CLONE_NEWNS);
        spaces.network = flags.contains(CloneFlags::CLONE_NEWNET);
        spaces.ipc = flags.contains(CloneFlags::CLONE_NEWIPC);
        spaces
    };
    let mut why = match may(Capability::CAP_SYS_ADMIN) {
        false => "listend runs without CAP_SYS_ADMIN".to_owned(),
        true => match unshare(flags).and_then(|()| keep_mounts_here(flags)) {
            Ok(()) => return Ok(got(spaces)),
            // A seccomp filter answers that to who has every capability.
            Err(errno) => format!(
                "{errno:?}, although listend has CAP_SYS_ADMIN: RestrictNamespaces= of its unit? \
                 sandbox.conf in {DROP_INS} permits it"
            ),
        },
    };
    switch_user(order)?;
    spaces.has_switched = true;
    follow_links(rules);
    match own_user(flags) {
        Ok(()) => {
            spaces.is_own_user = true;
            return Ok(got(spaces));
        }
        Err(errno) => why.push_str(&format!(
            ", and its user may make no user namespace: {errno:?}"
        )),
    }
    spaces.refused = Some(why);
    Ok(spaces)
}

/// Has rules name their places without links, as far as these may be followed. In a user namespace of its own nobody can
/// tell: the files of root are those of the same nobody there as the files of others.
fn follow_links(rules: &mut [Rule]) {
    for rule in &mut *rules {
        let found = walk::handle_on(&rule.path).map(|(place, _)| place);
        let path = found.map(|place| fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())));
        if let Ok(Ok(path)) = path {
            rule.path = path;
        }
    }
    paths::outer_first(rules);
}

/// A user namespace, in which this process has its own user and group and no others.
fn own_user(flags: CloneFlags) -> nix::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | flags)?;
    // Who has changed its user owns nothing in /proc (prctl(2), PR_SET_DUMPABLE) until it executes a program.
    nix::sys::prctl::set_dumpable(true)?;
    let write = |path: &str, text: String| match fs::write(path, text) {
        Ok(()) => Ok(()),
        Err(error) => Err(Errno::from_raw(
            error.raw_os_error().unwrap_or(nix::libc::EIO),
        )),
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    // A security module may make the namespace worthless (apparmor_restrict_unprivileged_userns).
    keep_mounts_here(flags)
}

/// What is mounted here stays here; what the machine mounts later comes here, too.
fn keep_mounts_here(flags: CloneFlags) -> nix::Result<()> {
    if !flags.contains(CloneFlags::CLONE_NEWNS) {
        return Ok(());
    }
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)
}

fn may(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Clears the inheritable set, and with it the ambient one, which is a subset of it (capabilities(7)). Nothing is called
/// where it is empty: a unit that gives listend no capabilities may forbid capset(2).
pub(super) fn pass_no_capabilities_on() -> Outcome {
    let failed = |_| failure(Stage::Capabilities, Errno::last(), String::new());
    match caps::read(None, CapSet::Inheritable).map_err(failed)? {
        none if none.is_empty() => Ok(()),
        _ => caps::clear(None, CapSet::Inheritable).map_err(failed),
    }
}

/// Takes from the bounding set what the worker is not to have: nothing can give it that again. In a user namespace of
/// its own that is everything, or it could undo the mounts.
pub(super) fn give_up_capabilities(order: &Order, spaces: &mut Spaces) -> Outcome {
    let sandbox = &order.sandbox;
    let takes = sandbox.capabilities.is_some()
        || sandbox
            .flags
            .iter()
            .any(|flag| !flag.capabilities().is_empty());
    if !takes && !spaces.is_own_user {
        return Ok(());
    }
    if !may(Capability::CAP_SETPCAP) {
        spaces.is_unbounded = true;
        return Ok(());
    }
    let failed = |error: caps::errors::CapsError| {
        failure(
            Stage::Capabilities,
            Errno::EPERM,
            format!("the bounding set: {error}"),
        )
    };
    for one in caps::read(None, CapSet::Bounding).map_err(failed)? {
        if !is_left(order, spaces, one) {
            caps::drop(None, CapSet::Bounding, one).map_err(failed)?;
        }
    }
    Ok(())
}

/// Whether the sandbox leaves this one to the worker.
fn is_left(order: &Order, spaces: &Spaces, one: Capability) -> bool {
    let sandbox = &order.sandbox;
    let of_list = sandbox.capabilities.as_ref();
    let mut taken = sandbox.flags.iter().flat_map(|flag| flag.capabilities());
    !spaces.is_own_user
        && of_list.is_none_or(|kept| kept.contains(&one.index()))
        && !taken.any(|taken| *taken == one.index())
}

/// Does without the bounding set where that cannot be changed. A program that is executed by root has the whole
/// bounding set, but with no_new_privs nothing that the caller has not (capabilities(7)).
pub(super) fn keep_no_other_capabilities(order: &Order, spaces: &Spaces) -> Outcome {
    if !spaces.is_unbounded {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| {
        let what = format!("without CAP_SETPCAP: {error}");
        failure(Stage::Capabilities, Errno::EPERM, what)
    };
    nix::sys::prctl::set_no_new_privs().map_err(|errno| failed(&errno.desc()))?;
    // What is effective is permitted, too.
    for set in [CapSet::Effective, CapSet::Permitted] {
        let has = caps::read(None, set).map_err(|error| failed(&error))?;
        let left: caps::CapsHashSet = has
            .iter()
            .copied()
            .filter(|one| is_left(order, spaces, *one))
            .collect();
        if left != has {
            caps::set(None, set, &left).map_err(|error| failed(&error))?;
        }
    }
    Ok(())
}
