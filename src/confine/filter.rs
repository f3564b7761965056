//! seccomp(2): the calls that are forbidden, and those that are permitted.

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
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters, the one that permits least as the last: what comes after it is execve(2).
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
    let refuse = |errno: i32| SeccompAction::Errno(errno.unsigned_abs());
    let mut programs = Vec::new();
    let mut add = |rules: Rules, others: SeccompAction, these: SeccompAction| {
        if rules.is_empty() && others == SeccompAction::Allow {
            return Ok(());
        }
        let filter = SeccompFilter::new(rules, others, these, target)?;
        programs.push(BpfProgram::try_from(filter)?);
        Ok::<_, seccompiler::BackendError>(())
    };
    // What these programs are told is in memory, where a filter cannot look: C libraries use the former call.
    add(unknown(sandbox), SeccompAction::Allow, refuse(libc::ENOSYS))?;
    add(
        forbidden(sandbox, spaces)?,
        SeccompAction::Allow,
        refuse(libc::EPERM),
    )?;
    let always = |numbers: std::collections::BTreeSet<i64>| -> Rules {
        numbers
            .into_iter()
            .map(|number| (number, Vec::new()))
            .collect()
    };
    match resolve_calls(&sandbox.system_calls) {
        None => {}
        Some(Calls::Only(named)) => {
            add(always(named), refuse(libc::EPERM), SeccompAction::Allow)?;
        }
        Some(Calls::AllBut(named)) => {
            add(always(named), SeccompAction::Allow, refuse(libc::EPERM))?;
        }
    }
    if !programs.is_empty() && cfg!(target_arch = "x86_64") {
        programs.insert(0, without_x32());
    }
    Ok(programs)
}

/// The calls of the x32 ABI, which are the others with a bit in their number, and would pass by their filters.
fn without_x32() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let step = |code: u32, jt: u8, jf: u8, k: u32| seccompiler::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        // The number is the first word of struct seccomp_data.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refused),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn unknown(sandbox: &Sandbox) -> Rules {
    let mut rules = Rules::new();
    if sandbox.has(Flag::RestrictNamespaces) {
        rules.insert(libc::SYS_clone3, Vec::new());
    }
    if sandbox.has(Flag::RestrictSuidSgid) {
        rules.insert(libc::SYS_openat2, Vec::new());
    }
    rules
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

fn forbidden(sandbox: &Sandbox, spaces: &Spaces) -> Result<Rules, seccompiler::BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
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
    if let Some(families) = of_sockets(sandbox, spaces) {
        match families {
            Families::Only(named) if named.is_empty() => _ = rules.insert(libc::SYS_socket, vec![]),
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
    // Without arguments, and so after all that look at some.
    rules.extend(
        whole(sandbox, spaces)
            .into_iter()
            .map(|call| (call, Vec::new())),
    );
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

fn numbers(families: &std::collections::BTreeSet<Family>) -> impl Iterator<Item = u64> {
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
