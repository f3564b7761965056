//! seccomp(2): the calls that are forbidden, and those that are permitted.

use super::by_number::{self, Answer, Condition, Refusal};
use super::order::Order;
use super::outcome::{Outcome, failure};
use super::spaces::Spaces;
use crate::sandbox::{
    Calls, Families, Family, Flag, Sandbox, numbers_of, permits_by_name, resolve_calls,
};
use crate::stage::Stage;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use seccompiler::{BpfProgram, TargetArch, apply_filter};
use std::collections::{BTreeMap, BTreeSet};

const EPERM: u16 = libc::EPERM.unsigned_abs() as u16;
const EAFNOSUPPORT: u16 = libc::EAFNOSUPPORT.unsigned_abs() as u16;
const ENOSYS: u16 = libc::ENOSYS.unsigned_abs() as u16;

/// fchmodat2(2), Linux 6.6; the crate libc does not have it for aarch64. It is the same for all that have filters.
const FCHMODAT2: c_long = 452;

type Refusals = BTreeMap<i64, Vec<Refusal>>;

/// Installs the filter. What comes after it is execve(2).
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
    match program(&order.sandbox, spaces, target) {
        Some(program) => apply_filter(&program).map_err(|error| failed(&error)),
        None => Ok(()),
    }
}

/// One filter for all: each would be translated at every start, and asked at every call. None if nothing is refused.
fn program(sandbox: &Sandbox, spaces: &Spaces, target: TargetArch) -> Option<BpfProgram> {
    let (mut answers, others) = by_number(sandbox, spaces);
    let mut refusals = by_arguments(sandbox);
    by_family(sandbox, spaces, &mut refusals);
    for (call, refusals) in refusals {
        // What is refused whatever the arguments needs no look at them.
        if *answers.get(&call).unwrap_or(&others) == Answer::Pass {
            answers.insert(call, Answer::Unless(refusals));
        }
    }
    let mut all = answers.values().chain([&others]);
    let refuses = all.any(|answer| *answer != Answer::Pass);
    refuses.then(|| by_number::program(&answers, &others, target))
}

/// The answers that depend on nothing but the call, and the one to all others.
fn by_number(sandbox: &Sandbox, spaces: &Spaces) -> (BTreeMap<i64, Answer>, Answer) {
    let refused = Answer::Errno(EPERM);
    let (named, of_named, others) = match resolve_calls(&sandbox.system_calls) {
        None => (BTreeSet::new(), Answer::Pass, Answer::Pass),
        Some(Calls::Only(named)) => (named, Answer::Pass, refused.clone()),
        Some(Calls::AllBut(named)) => (named, refused.clone(), Answer::Pass),
    };
    let named = named.into_iter();
    let mut answers: BTreeMap<i64, Answer> = named.map(|call| (call, of_named.clone())).collect();
    let whole = whole(sandbox, spaces).into_iter();
    answers.extend(whole.map(|call| (call, refused.clone())));
    let unknown = unknown(sandbox).into_iter();
    answers.extend(unknown.map(|call| (call, Answer::Errno(ENOSYS))));
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

/// Refuses calls whose arguments are all like that.
fn when(refusals: &mut Refusals, call: c_long, conditions: &[(u8, Condition)], errno: u16) {
    refusals.entry(call).or_default().push(Refusal {
        when: conditions.to_vec(),
        errno,
    });
}

/// Which arguments are refused.
fn by_arguments(sandbox: &Sandbox) -> Refusals {
    use Condition::{Any, Exactly, NoneOf};
    let mut refusals = Refusals::new();
    let mut refuse = |call, conditions: &[_]| when(&mut refusals, call, conditions, EPERM);
    let all_of = |bits: c_int| {
        let bits = bits.cast_unsigned();
        Exactly { of: bits, bits }
    };
    if sandbox.has(Flag::RestrictRealtime) {
        // All policies but those of the time-sharing scheduler, with and without SCHED_RESET_ON_FORK.
        for policy in [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE] {
            let of = !libc::SCHED_RESET_ON_FORK.cast_unsigned();
            let bits = policy.cast_unsigned();
            refuse(libc::SYS_sched_setscheduler, &[(1, Exactly { of, bits })]);
        }
    }
    if sandbox.has(Flag::RestrictSuidSgid) {
        let has = Any(libc::S_ISUID | libc::S_ISGID);
        for (call, mode) in modes() {
            refuse(*call, &[(*mode, has.clone())]);
        }
        for (call, flags, mode) in opens() {
            for create in [libc::O_CREAT, libc::O_TMPFILE] {
                refuse(*call, &[(*flags, all_of(create)), (*mode, has.clone())]);
            }
        }
    }
    if sandbox.has(Flag::RestrictNamespaces) {
        let kinds = libc::CLONE_NEWNS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET;
        let kinds = kinds.cast_unsigned();
        refuse(libc::SYS_clone, &[(0, Any(kinds))]);
        // Time namespaces have a bit that clone(2) uses for the signal.
        refuse(libc::SYS_unshare, &[(0, Any(kinds | 0x80))]);
    }
    if sandbox.has(Flag::ProtectProcesses) {
        // Of the caller itself; the limits of another can stop it as a signal does.
        refuse(libc::SYS_prlimit64, &[(0, NoneOf(vec![0]))]);
    }
    if sandbox.has(Flag::LockPersonality) {
        // PER_LINUX, and what only asks.
        let other = NoneOf(vec![0, 0xffff_ffff]);
        refuse(libc::SYS_personality, &[(0, other)]);
    }
    if sandbox.has(Flag::MemoryDenyWriteExecute) {
        // It makes everything that can be read executable; all bits only ask.
        let implies = Any(libc::READ_IMPLIES_EXEC.cast_unsigned());
        let sets = NoneOf(vec![u32::MAX]);
        refuse(libc::SYS_personality, &[(0, implies), (0, sets)]);
        let both = all_of(libc::PROT_EXEC | libc::PROT_WRITE);
        refuse(libc::SYS_mmap, &[(2, both)]);
        for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            refuse(call, &[(2, all_of(libc::PROT_EXEC))]);
        }
        refuse(libc::SYS_shmat, &[(2, all_of(libc::SHM_EXEC))]);
    }
    refusals
}

/// Which families of socket(2) are refused. Programs go on without what the machine has not.
fn by_family(sandbox: &Sandbox, spaces: &Spaces, refusals: &mut Refusals) {
    let mut refuse = |condition| {
        let call = libc::SYS_socket;
        when(refusals, call, &[(0, condition)], EAFNOSUPPORT);
    };
    match of_sockets(sandbox, spaces) {
        None => {}
        Some(Families::Only(named)) => refuse(Condition::NoneOf(numbers(&named).collect())),
        Some(Families::AllBut(named)) => {
            for bits in numbers(&named) {
                refuse(Condition::Exactly { of: u32::MAX, bits });
            }
        }
    }
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
    if is_passed_by_rings(sandbox, spaces) {
        calls.push(libc::SYS_io_uring_setup);
    }
    calls
}

/// Whether io_uring(7) would do what is refused: its operations are calls that no filter sees. Among them are
/// socket(2), and openat(2) with a mode. Other processes cannot pass a ring on (unix(7), Linux 6.7).
fn is_passed_by_rings(sandbox: &Sandbox, spaces: &Spaces) -> bool {
    let filters = of_sockets(sandbox, spaces).is_some()
        || sandbox.has(Flag::RestrictSuidSgid)
        || !sandbox.system_calls.is_empty();
    filters && !permits_by_name(&sandbox.system_calls, "io_uring_setup")
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

fn numbers(families: &BTreeSet<Family>) -> impl Iterator<Item = u32> {
    families.iter().filter_map(|family| match family {
        Family::Number(number) => u32::try_from(*number).ok(),
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
        (FCHMODAT2, 2),
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
        (FCHMODAT2, 2),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is answered to this call, with this as its first argument.
    fn answer(sandbox: &Sandbox, call: c_long, first: u32) -> u32 {
        match program(sandbox, &Spaces::default(), TargetArch::x86_64) {
            Some(program) => by_number::tests::answer(&program, call, [first, 0, 0, 0, 0, 0]),
            None => libc::SECCOMP_RET_ALLOW,
        }
    }

    const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | EPERM as u32;
    const PASSED: u32 = libc::SECCOMP_RET_ALLOW;

    // It did: READ_IMPLIES_EXEC makes what is mapped to be written executable, too.
    #[test]
    fn a_personality_does_not_make_written_memory_executable() {
        let sandbox = Sandbox {
            flags: BTreeSet::from([Flag::MemoryDenyWriteExecute]),
            ..Sandbox::default()
        };
        for (personality, expected) in [
            (0x0040_0000, REFUSED),
            (0x0044_0000, REFUSED),
            (0x0004_0000, PASSED),
            (0, PASSED),
            (u32::MAX, PASSED),
        ] {
            let said = answer(&sandbox, libc::SYS_personality, personality);
            assert_eq!(said, expected, "{personality:#x}");
        }
    }

    // Its operations make sockets and files as the calls do that are refused.
    #[test]
    fn io_uring_is_refused_where_it_would_pass_by_the_filter() {
        let call = |words: &[&str]| Sandbox {
            system_calls: words
                .iter()
                .map(|word| crate::sandbox::Term::read(word).expect("a word"))
                .collect(),
            ..Sandbox::default()
        };
        let flag = |flag| Sandbox {
            flags: BTreeSet::from([flag]),
            ..Sandbox::default()
        };
        let families = Sandbox {
            families: Some(Families::AllBut(BTreeSet::from([Family::of("AF_INET")]))),
            ..Sandbox::default()
        };
        for (sandbox, expected) in [
            (Sandbox::default(), PASSED),
            (families, REFUSED),
            (flag(Flag::RestrictSuidSgid), REFUSED),
            // Without a network namespace a filter does it.
            (flag(Flag::PrivateNetwork), REFUSED),
            (flag(Flag::ProtectClock), PASSED),
            (call(&["@system-service"]), REFUSED),
            (call(&["@system-service", "io_uring_setup"]), PASSED),
            (call(&["~@clock"]), REFUSED),
            (call(&["~@clock", "io_uring_setup"]), PASSED),
            (
                call(&["~@clock", "io_uring_setup", "~io_uring_setup"]),
                REFUSED,
            ),
        ] {
            let said = answer(&sandbox, libc::SYS_io_uring_setup, 1);
            assert_eq!(said, expected, "{sandbox:?}");
        }
    }

    /// What is answered to socket(2) of the families that most programs use.
    fn sockets(families: Families) -> [u32; 3] {
        let sandbox = Sandbox {
            families: Some(families),
            ..Sandbox::default()
        };
        [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6]
            .map(|family| answer(&sandbox, libc::SYS_socket, family.cast_unsigned()))
    }

    #[test]
    fn no_families_are_none() {
        let refused = libc::SECCOMP_RET_ERRNO | u32::from(EAFNOSUPPORT);
        let passed = libc::SECCOMP_RET_ALLOW;
        let unix = || BTreeSet::from([Family::Number(libc::AF_UNIX)]);
        assert_eq!(sockets(Families::Only(BTreeSet::new())), [refused; 3]);
        assert_eq!(sockets(Families::Only(unix())), [passed, refused, refused]);
        assert_eq!(sockets(Families::AllBut(unix())), [refused, passed, passed]);
    }
}
