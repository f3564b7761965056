//! seccomp(2): the calls that are forbidden, and those that are permitted.

use super::by_number::{self, Answer};
use super::order::Order;
use super::outcome::{Outcome, failure};
use super::spaces::Spaces;
use crate::sandbox::{Calls, Families, Family, Flag, Sandbox, numbers_of, resolve_calls};
use crate::stage::Stage;
use nix::errno::Errno;
use nix::libc::{self, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use std::collections::{BTreeMap, BTreeSet};

const EPERM: u16 = libc::EPERM.unsigned_abs() as u16;
const EAFNOSUPPORT: u16 = libc::EAFNOSUPPORT.unsigned_abs() as u16;
const ENOSYS: u16 = libc::ENOSYS.unsigned_abs() as u16;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters, the one that may forbid seccomp(2) as the last: what comes after it is execve(2).
pub(super) fn install(order: &Order, spaces: &Spaces) -> Outcome {
    let failed = |error: &dyn std::fmt::Display| {
        failure(
            Stage::Restrictions,
            Errno::EINVAL,
            format!("seccomp: {error}"),
        )
    };
    if order.sandbox.has(Flag::NoNewPrivileges) {
        nix::sys::prctl::set_no_new_privs().map_err(|errno| failed(&errno.desc()))?;
    }
    let target = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| failed(&error))?;
    let programs = programs(&order.sandbox, spaces, target).map_err(|error| failed(&error))?;
    for program in programs {
        apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(())
}

fn programs(
    sandbox: &Sandbox,
    spaces: &Spaces,
    target: TargetArch,
) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let (answers, others) = by_number(sandbox, spaces);
    // What is refused whatever the arguments needs no look at them.
    let passes = |call: &i64| answers.get(call).copied().unwrap_or(others).is_none();
    let mut programs = Vec::new();
    for (mut rules, errno) in [
        (by_arguments(sandbox)?, EPERM),
        // Programs go on without what the machine has not.
        (by_family(sandbox, spaces)?, EAFNOSUPPORT),
    ] {
        rules.retain(|call, _| passes(call));
        if !rules.is_empty() {
            let refuse = SeccompAction::Errno(errno.into());
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, target)?;
            programs.push(BpfProgram::try_from(filter)?);
        }
    }
    if programs.is_empty() && others.is_none() && answers.values().all(Option::is_none) {
        return Ok(programs);
    }
    programs.push(by_number::program(&answers, others, target));
    Ok(programs)
}

/// The answers that depend on nothing but the call, and the one to all others.
fn by_number(sandbox: &Sandbox, spaces: &Spaces) -> (BTreeMap<i64, Answer>, Answer) {
    let (named, of_named, others) = match resolve_calls(&sandbox.system_calls) {
        None => (BTreeSet::new(), None, None),
        Some(Calls::Only(named)) => (named, None, Some(EPERM)),
        Some(Calls::AllBut(named)) => (named, Some(EPERM), None),
    };
    let mut answers: BTreeMap<i64, Answer> =
        named.into_iter().map(|call| (call, of_named)).collect();
    let whole = whole(sandbox, spaces).into_iter();
    answers.extend(whole.map(|call| (call, Some(EPERM))));
    answers.extend(
        unknown(sandbox)
            .into_iter()
            .map(|call| (call, Some(ENOSYS))),
    );
    (answers, others)
}

/// The calls that are told to be missing. What they are told to do is in memory, where a filter cannot look: C
/// libraries use the former call.
fn unknown(sandbox: &Sandbox) -> Vec<i64> {
    let calls = [
        (Flag::RestrictNamespaces, libc::SYS_clone3),
        (Flag::RestrictSuidSgid, libc::SYS_openat2),
    ];
    let calls = calls.into_iter().filter(|(flag, _)| sandbox.has(*flag));
    calls.map(|(_, call)| call).collect()
}

/// A condition on an argument of 32 bits.
fn argument(
    index: u8,
    how: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, how, value)
}

/// Adds a rule for calls whose arguments are all like that.
fn when(
    rules: &mut Rules,
    call: c_long,
    conditions: Vec<SeccompCondition>,
) -> Result<(), seccompiler::BackendError> {
    rules
        .entry(call)
        .or_default()
        .push(SeccompRule::new(conditions)?);
    Ok(())
}

/// Which arguments are refused.
fn by_arguments(sandbox: &Sandbox) -> Result<Rules, seccompiler::BackendError> {
    use SeccompCmpOp::{MaskedEq, Ne};
    let mut rules = Rules::new();
    if sandbox.has(Flag::RestrictRealtime) {
        // All policies but those of the time-sharing scheduler, with and without SCHED_RESET_ON_FORK.
        for policy in [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE] {
            let policy = policy.unsigned_abs().into();
            let mask = MaskedEq(0xffff_ffff & !u64::from(libc::SCHED_RESET_ON_FORK.unsigned_abs()));
            when(
                &mut rules,
                libc::SYS_sched_setscheduler,
                vec![argument(1, mask, policy)?],
            )?;
        }
    }
    if sandbox.has(Flag::RestrictSuidSgid) {
        for bit in [libc::S_ISUID, libc::S_ISGID] {
            let bit = u64::from(bit);
            let has = |index: u8| argument(index, MaskedEq(bit), bit);
            for (call, mode) in modes() {
                when(&mut rules, *call, vec![has(*mode)?])?;
            }
            for (call, flags, mode) in opens() {
                for create in [libc::O_CREAT, libc::O_TMPFILE] {
                    let create = u64::from(create.unsigned_abs());
                    let creates = argument(*flags, MaskedEq(create), create)?;
                    when(&mut rules, *call, vec![creates, has(*mode)?])?;
                }
            }
        }
    }
    if sandbox.has(Flag::RestrictNamespaces) {
        let kinds = [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWCGROUP,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
        ];
        for kind in kinds {
            let kind = u64::from(kind.unsigned_abs());
            for call in [libc::SYS_clone, libc::SYS_unshare] {
                when(&mut rules, call, vec![argument(0, MaskedEq(kind), kind)?])?;
            }
        }
        // Time namespaces have a bit that clone(2) uses for the signal.
        let time = vec![argument(0, MaskedEq(0x80), 0x80)?];
        when(&mut rules, libc::SYS_unshare, time)?;
    }
    if sandbox.has(Flag::LockPersonality) {
        // PER_LINUX, and what only asks.
        let other = vec![argument(0, Ne, 0)?, argument(0, Ne, 0xffff_ffff)?];
        when(&mut rules, libc::SYS_personality, other)?;
    }
    if sandbox.has(Flag::MemoryDenyWriteExecute) {
        let execute = libc::PROT_EXEC.unsigned_abs().into();
        let both = (libc::PROT_EXEC | libc::PROT_WRITE).unsigned_abs().into();
        when(
            &mut rules,
            libc::SYS_mmap,
            vec![argument(2, MaskedEq(both), both)?],
        )?;
        for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            when(
                &mut rules,
                call,
                vec![argument(2, MaskedEq(execute), execute)?],
            )?;
        }
        let shared = libc::SHM_EXEC.unsigned_abs().into();
        when(
            &mut rules,
            libc::SYS_shmat,
            vec![argument(2, MaskedEq(shared), shared)?],
        )?;
    }
    Ok(rules)
}

/// Which families of socket(2) are refused.
fn by_family(sandbox: &Sandbox, spaces: &Spaces) -> Result<Rules, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, Ne};
    let mut rules = Rules::new();
    if let Some(families) = of_sockets(sandbox, spaces) {
        match families {
            // That is all of them.
            Families::Only(named) if named.is_empty() => {}
            Families::Only(named) => {
                let others = numbers(&named).map(|family| argument(0, Ne, family));
                when(
                    &mut rules,
                    libc::SYS_socket,
                    others.collect::<Result<_, _>>()?,
                )?;
            }
            Families::AllBut(named) => {
                for family in numbers(&named) {
                    when(&mut rules, libc::SYS_socket, vec![argument(0, Eq, family)?])?;
                }
            }
        }
    }
    Ok(rules)
}

/// The calls that are forbidden whatever their arguments.
fn whole(sandbox: &Sandbox, spaces: &Spaces) -> Vec<i64> {
    let mut calls: Vec<i64> = Vec::new();
    let sets = [
        (Flag::ProtectKernelModules, "@module"),
        (Flag::ProtectClock, "@clock"),
        (Flag::PrivateDevices, "@raw-io"),
    ];
    for (_, set) in sets.iter().filter(|(flag, _)| sandbox.has(*flag)) {
        calls.extend(numbers_of(set));
    }
    if sandbox.has(Flag::ProtectKernelLogs) {
        calls.push(libc::SYS_syslog);
    }
    if sandbox.has(Flag::ProtectHostname) {
        calls.extend([libc::SYS_sethostname, libc::SYS_setdomainname]);
    }
    if sandbox.has(Flag::RestrictRealtime) {
        // Its policy is in memory.
        calls.push(libc::SYS_sched_setattr);
    }
    if sandbox.has(Flag::RestrictNamespaces) {
        calls.push(libc::SYS_setns);
    }
    if sandbox.has(Flag::PrivateIpc) && !spaces.ipc {
        calls.extend([
            libc::SYS_shmget,
            libc::SYS_semget,
            libc::SYS_msgget,
            libc::SYS_mq_open,
        ]);
    }
    calls
}

/// What restricts socket(2): the families of the configuration, and those that a network namespace would have
/// made useless, where there is none.
fn of_sockets(sandbox: &Sandbox, spaces: &Spaces) -> Option<Families> {
    if sandbox.has(Flag::PrivateNetwork) && !spaces.network {
        let unix = Family::Number(libc::AF_UNIX);
        let permits_unix = sandbox
            .families
            .as_ref()
            .is_none_or(|one| one.permits(libc::AF_UNIX));
        return Some(Families::Only(
            permits_unix.then_some(unix).into_iter().collect(),
        ));
    }
    sandbox.families.clone()
}

fn numbers(families: &BTreeSet<Family>) -> impl Iterator<Item = u64> {
    families.iter().filter_map(|family| match family {
        Family::Number(number) => u64::try_from(*number).ok(),
        Family::Inherited => None,
    })
}

/// The calls that set a mode, and which argument it is.
#[cfg(target_arch = "x86_64")]
fn modes() -> &'static [(c_long, u8)] {
    &[
        (libc::SYS_chmod, 1),
        (libc::SYS_creat, 1),
        (libc::SYS_mkdir, 1),
        (libc::SYS_mknod, 1),
        (libc::SYS_fchmod, 1),
        (libc::SYS_fchmodat, 2),
        (libc::SYS_fchmodat2, 2),
        (libc::SYS_mkdirat, 2),
        (libc::SYS_mknodat, 2),
    ]
}

/// The same, where only the newer ones exist.
#[cfg(not(target_arch = "x86_64"))]
fn modes() -> &'static [(c_long, u8)] {
    &[
        (libc::SYS_fchmod, 1),
        (libc::SYS_fchmodat, 2),
        (libc::SYS_fchmodat2, 2),
        (libc::SYS_mkdirat, 2),
        (libc::SYS_mknodat, 2),
    ]
}

/// The calls that may create a file, and which arguments are the flags and the mode.
#[cfg(target_arch = "x86_64")]
fn opens() -> &'static [(c_long, u8, u8)] {
    &[(libc::SYS_open, 1, 2), (libc::SYS_openat, 2, 3)]
}

/// The same, where only the newer ones exist.
#[cfg(not(target_arch = "x86_64"))]
fn opens() -> &'static [(c_long, u8, u8)] {
    &[(libc::SYS_openat, 2, 3)]
}
