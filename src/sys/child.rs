//! The code that runs in the child between clone and exec.
//!
//! Bare system calls only: no C library, no allocation, no lock, no drop, nothing that can panic.
//! The child may share its parent's memory (see [`super::launch()`]), and runs beside it: it reads
//! what the parent laid out in [`Prepared`], writes into the slots that are meant for it and onto
//! its own stack, and touches nothing else. It leaves by execve or exit, never by returning.

use super::prepared::{
    EnvSlot, FdAction, Gate, HELD, Prepared, RUNNING, STATUS_LENGTH, Stdio, WAITING, Work,
};
use super::raw::call;
use crate::stage::Stage;
use nix::libc::{self, c_int, c_long};
use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, Ordering};

/// A step that failed, and the errno of its last call.
struct Failure {
    stage: Stage,
    detail: u16,
    errno: i32,
}

/// Becomes the worker.
///
/// # Safety
///
/// Only in a new process in which no handler of a signal runs: all signals are blocked, or have none.
/// `work` must be complete (pointer arrays end with NULL and point into live memory), and nobody else may
/// use it until this process has executed its program or ended.
pub(super) unsafe fn become_worker(work: &mut Work) -> ! {
    // SAFETY: the caller's contract is passed on; `steps` returns only on failure.
    unsafe {
        let gate = work.gate.as_ref();
        let failure = match own_descriptors(work.unshare_from, &work.running) {
            Ok(()) => {
                if let Some((held, release)) = work.held
                    && !is_released(held, release)
                {
                    end();
                }
                steps(&mut work.prepared, work.to_default, gate)
            }
            Err(failure) => failure,
        };
        let message = failure.message();
        let told = work.prepared.status_fd();
        match gate {
            None => report(told, &message),
            Some(gate) => {
                // The parent may not have closed its copy yet.
                wait_at(gate);
                let (connection, number) = gate.back;
                give_back(told, connection, number);
                // Last, so that a reader that sees it finds the connection.
                let failure = u64::from_ne_bytes(message);
                work.failure.store(failure, Ordering::Release);
            }
        }
        end()
    }
}

unsafe fn end() -> ! {
    loop {
        // SAFETY: the call has no arguments but the exit status.
        unsafe {
            call(libc::SYS_exit_group, 127, 0, 0, 0);
        }
    }
}

/// Waits until the parent has written down that this process exists. `false` if it has ended before: nobody
/// would know of what was started.
unsafe fn is_released(held: c_int, release: c_int) -> bool {
    let mut byte = 0_u8;
    // SAFETY: plain descriptor calls; the buffer is a local that outlives them.
    unsafe {
        // Its own copy would keep the pipe from ending.
        call(libc::SYS_close, release as usize, 0, 0, 0);
        loop {
            let buffer = (&raw mut byte) as usize;
            match call(libc::SYS_read, held as usize, buffer, 1, 0) as c_int {
                interrupted if interrupted == -libc::EINTR => {}
                read => return read == 1,
            }
        }
    }
}

/// Takes a copy of the low descriptors where all are still the parent's, and tells the parent, which
/// waits for it.
unsafe fn own_descriptors(from: Option<c_int>, running: &AtomicU32) -> Result<(), Failure> {
    let Some(from) = from else {
        return Ok(());
    };
    // SAFETY: plain descriptor calls; the word that futex(2) wakes at is in memory that is kept.
    unsafe {
        let flags = libc::CLOSE_RANGE_UNSHARE as usize;
        let last = u32::MAX as usize;
        let answer = call(libc::SYS_close_range, from as usize, last, flags, 0);
        if answer < 0 {
            return Err(Failure {
                stage: Stage::Descriptors,
                detail: 0,
                errno: -answer as i32,
            });
        }
        running.store(RUNNING, Ordering::Release);
        let word = (&raw const *running) as usize;
        call(libc::SYS_futex, word, libc::FUTEX_WAKE as usize, 1, 0);
        Ok(())
    }
}

/// Waits until the parent has let the child go on, or has ended: its descriptors are closed then.
unsafe fn wait_at(gate: &Gate) {
    /// 10 ms, after which the parent is looked for: a struct timespec of a 64-bit machine, as all are
    /// where memory is shared.
    const SOME_TIME: [i64; 2] = [0, 10_000_000];
    let waits = gate
        .word
        .compare_exchange(HELD, WAITING, Ordering::AcqRel, Ordering::Acquire);
    // SAFETY: futex(2) compares the word, which is in memory that is kept, and reads the time.
    unsafe {
        while waits.is_ok() && gate.word.load(Ordering::Acquire) == WAITING {
            let word = (&raw const gate.word) as usize;
            let (wait, value) = (libc::FUTEX_WAIT as usize, WAITING as usize);
            let time = SOME_TIME.as_ptr() as usize;
            call(libc::SYS_futex, word, wait, value, time);
            if call(libc::SYS_getppid, 0, 0, 0, 0) != gate.parent as isize {
                return;
            }
        }
    }
}

impl Failure {
    /// Never all 0: a stage is not.
    fn message(&self) -> [u8; STATUS_LENGTH] {
        let [low, high] = self.detail.to_ne_bytes();
        let [a, b, c, d] = self.errno.to_ne_bytes();
        [self.stage as u8, 0, low, high, a, b, c, d]
    }
}

/// A message with one descriptor (sendmsg(2), cmsg(3)), as the kernel lays it out.
#[repr(C)]
struct Message {
    name: usize,
    name_length: c_int,
    data: *const Piece,
    pieces: usize,
    control: *const Control,
    control_length: usize,
    flags: c_int,
}

/// A struct iovec.
#[repr(C)]
struct Piece {
    start: *const u64,
    length: usize,
}

/// struct cmsghdr, and what follows it.
#[repr(C)]
struct Control {
    length: usize,
    level: c_int,
    kind: c_int,
    descriptor: c_int,
}

/// Sends the connection back to the parent. It never waits: should the parent have no room for it,
/// it is over.
unsafe fn give_back(socket: c_int, connection: c_int, number: u64) {
    let piece = Piece {
        start: &raw const number,
        length: size_of::<u64>(),
    };
    let control = Control {
        length: std::mem::offset_of!(Control, descriptor) + size_of::<c_int>(),
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        descriptor: connection,
    };
    let message = Message {
        name: 0,
        name_length: 0,
        data: &raw const piece,
        pieces: 1,
        control: &raw const control,
        control_length: size_of::<Control>(),
        flags: 0,
    };
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as usize;
    let start = (&raw const message) as usize;
    // SAFETY: the message and all it points to are locals that outlive the call.
    unsafe {
        call(libc::SYS_sendmsg, socket as usize, start, flags, 0);
    }
}

/// Tells the parent where it ended. A parent that has gone cannot be told; nothing to do then.
unsafe fn report(pipe: c_int, message: &[u8; STATUS_LENGTH]) {
    // SAFETY: the buffer is valid for its length. Eight bytes into an empty pipe are atomic.
    unsafe {
        call(
            libc::SYS_write,
            pipe as usize,
            message.as_ptr() as usize,
            STATUS_LENGTH,
            0,
        );
    }
}

/// Makes the call, and returns from [`steps`] with the stage if it fails.
macro_rules! attempt {
    ($stage:expr, $call:expr) => {
        attempt!($stage, 0, $call)
    };
    ($stage:expr, $detail:expr, $call:expr) => {{
        let answer: isize = $call;
        if answer < 0 {
            return Failure {
                stage: $stage,
                detail: $detail,
                errno: -answer as i32,
            };
        }
        answer
    }};
}

/// All steps, in order. Returns the one that failed.
unsafe fn steps(prepared: &mut Prepared, to_default: u64, gate: Option<&Gate>) -> Failure {
    // SAFETY: every pointer handed to the kernel comes from `prepared`, which the caller vouches
    // for, or from a local that outlives the call.
    unsafe {
        // Dispositions first, while no handler of the parent can run here, which would write into the
        // parent's pipe.
        default_dispositions(to_default);
        if prepared.common.spec.ignore_sigpipe && !prepared.common.signals.ignores(libc::SIGPIPE) {
            /// A struct sigaction that ignores, as in [`default_dispositions`]; the handler is the
            /// first member.
            const IGNORE: [u64; 8] = [libc::SIG_IGN as u64, 0, 0, 0, 0, 0, 0, 0];
            let (signal, ignore) = (libc::SIGPIPE as usize, IGNORE.as_ptr() as usize);
            attempt!(
                Stage::Signals,
                call(libc::SYS_rt_sigaction, signal, ignore, 0, SIGNAL_SET)
            );
        }
        if let Some((soft, hard)) = prepared.open_files {
            // Where it fails, the numbers that are free now have to do.
            let (value, resource) = ([soft, hard], libc::RLIMIT_NOFILE as usize);
            let value = value.as_ptr() as usize;
            call(libc::SYS_prlimit64, 0, resource, value, 0);
        }
        attempt!(Stage::Session, call(libc::SYS_setsid, 0, 0, 0, 0));
        attempt!(Stage::Output, standard_streams(prepared));
        attempt!(Stage::Descriptors, place_descriptors(prepared));
        if let Some(score) = prepared.common.spec.oom_score_adjust {
            let mut text = [b'-'; 21];
            let [_, digits @ ..] = &mut text;
            let length = write_decimal(digits, score.unsigned_abs().into());
            let sign = usize::from(score >= 0);
            attempt!(
                Stage::OomScore,
                write_file(
                    c"/proc/self/oom_score_adj",
                    text.get(sign..=length).unwrap_or_default()
                )
            );
        }
        fill_slots(prepared);
        // Nothing is opened below here: the child still has every descriptor of the parent, which
        // may be more than the worker's RLIMIT_NOFILE allows.
        for (index, limit) in prepared.common.spec.limits.iter().enumerate() {
            // The layout of prlimit64(2): two 64-bit numbers on every architecture.
            let value = [limit.soft, limit.hard].map(|value| value.unwrap_or(u64::MAX));
            let resource = limit.resource.number() as usize;
            let value = value.as_ptr() as usize;
            attempt!(
                Stage::Limits,
                index as u16,
                call(libc::SYS_prlimit64, 0, resource, value, 0)
            );
        }
        if let Some(nice) = prepared.common.spec.nice {
            let which = libc::PRIO_PROCESS as usize;
            attempt!(
                Stage::Nice,
                call(libc::SYS_setpriority, which, 0, nice as isize as usize, 0)
            );
        }
        let credentials = prepared.common.spec.credentials.as_ref();
        if let Some(groups) = credentials.and_then(|known| known.groups.as_ref()) {
            let (length, groups) = (groups.len(), groups.as_ptr() as usize);
            attempt!(Stage::Groups, call(SYS_SETGROUPS, length, groups, 0, 0));
        }
        let uid = credentials.and_then(|known| known.uid);
        let other_user = uid.is_some();
        attempt!(Stage::Keyring, own_session_keyring(other_user));
        if let Some(gid) = credentials.and_then(|known| known.gid) {
            let gid = gid as usize;
            attempt!(Stage::Group, call(SYS_SETRESGID, gid, gid, gid, 0));
        }
        if let Some(uid) = uid.map(|uid| uid as usize) {
            attempt!(Stage::User, call(SYS_SETRESUID, uid, uid, uid, 0));
            // Another one, which belongs to this user and counts as its. Where there is no room for it
            // (keyrings(7): 200 keys a user), the one of before will do: that is empty, too.
            join_session_keyring();
        }
        // What sets up a sandbox needs them, and gives them up itself.
        if prepared.second.is_none() {
            attempt!(Stage::Capabilities, give_up_capabilities());
        }
        // After the user is set, so that a folder which that user may not enter is an error here
        // and not a surprise later.
        if let Some(folder) = &prepared.common.spec.working_directory {
            let folder = folder.as_ptr() as usize;
            attempt!(
                Stage::WorkingDirectory,
                call(libc::SYS_chdir, folder, 0, 0, 0)
            );
        }
        if let Some(mask) = prepared.common.spec.umask {
            call(libc::SYS_umask, mask as usize, 0, 0, 0);
        }
        if let Some(gate) = gate {
            wait_at(gate);
        }
        attempt!(Stage::Signals, unblock_all_signals());
        let answer = call(
            libc::SYS_execve,
            prepared.common.program.as_ptr() as usize,
            prepared.common.argv.pointers() as usize,
            prepared.environment.pointers() as usize,
            0,
        );
        Failure {
            stage: Stage::Exec,
            detail: 0,
            errno: -answer as i32,
        }
    }
}

/// Replaces the session keyring of listend, whose keys the worker would possess whatever user it
/// runs as (session-keyring(7)). It is not linked to the user's keyring, as with systemd's
/// `KeyringMode=private`.
unsafe fn own_session_keyring(other_user: bool) -> isize {
    // SAFETY: the call's own contract.
    let answer = unsafe { join_session_keyring() };
    match -answer as c_int {
        // A kernel without keyrings, or a sandbox that forbids their use to the worker as well.
        libc::ENOSYS | libc::EPERM | libc::EACCES => 0,
        // Quota and memory: listend's own user may have what listend has.
        _ if answer < 0 && other_user => answer,
        _ => 0,
    }
}

unsafe fn join_session_keyring() -> isize {
    let join = libc::KEYCTL_JOIN_SESSION_KEYRING as usize;
    // SAFETY: without a name, which is a null pointer, no memory is read.
    unsafe { call(libc::SYS_keyctl, join, 0, 0, 0) }
}

/// struct __user_cap_data_struct of capset(2); there are two of them since Linux 2.6.26.
#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Clears the inheritable set, and with it the ambient one, which is a subset of it at all times
/// (capabilities(7)). What is left is dropped by exec, unless it is root that executes.
unsafe fn give_up_capabilities() -> isize {
    /// _LINUX_CAPABILITY_VERSION_3, and 0 for the calling process.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    const NONE: CapabilityHalf = CapabilityHalf {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    };
    let mut header = HEADER;
    let mut halves = [NONE; 2];
    let (version, sets) = (header.as_mut_ptr() as usize, halves.as_mut_ptr() as usize);
    // SAFETY: both are locals with the layout that the version says.
    unsafe {
        let answer = call(libc::SYS_capget, version, sets, 0, 0);
        if answer < 0 || halves.iter().all(|half| half.inheritable == 0) {
            return answer;
        }
        for half in &mut halves {
            half.inheritable = 0;
        }
        call(libc::SYS_capset, version, sets, 0, 0)
    }
}

// 32-bit machines kept calls with 16-bit ids under the plain names.
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
mod ids {
    pub(super) use nix::libc::{
        SYS_setgroups32 as SYS_SETGROUPS, SYS_setresgid32 as SYS_SETRESGID,
        SYS_setresuid32 as SYS_SETRESUID,
    };
}
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
mod ids {
    pub(super) use nix::libc::{
        SYS_setgroups as SYS_SETGROUPS, SYS_setresgid as SYS_SETRESGID,
        SYS_setresuid as SYS_SETRESUID,
    };
}
use ids::{SYS_SETGROUPS, SYS_SETRESGID, SYS_SETRESUID};

/// The size of the kernel's signal set, in bytes.
const SIGNAL_SET: usize = 8;

unsafe fn default_dispositions(to_default: u64) {
    /// Larger than the kernel's struct sigaction of any architecture; zeroed, it means SIG_DFL
    /// without flags.
    const DEFAULT: [u64; 8] = [0; 8];
    // SAFETY: rt_sigaction(2) reads `DEFAULT` and writes nothing.
    unsafe {
        let default = DEFAULT.as_ptr() as usize;
        let mut number = 1;
        while number <= 64 {
            if to_default & (1 << (number - 1)) != 0 {
                call(libc::SYS_rt_sigaction, number, default, 0, SIGNAL_SET);
            }
            number += 1;
        }
    }
}

unsafe fn unblock_all_signals() -> isize {
    let none = 0_u64;
    let set = (&raw const none) as usize;
    let how = libc::SIG_SETMASK as usize;
    // SAFETY: the set is valid for the size that is given with it.
    unsafe { call(libc::SYS_rt_sigprocmask, how, set, 0, SIGNAL_SET) }
}

/// 0 is /dev/null; 1 and 2 are as the plan says. Comes first: a descriptor that is handed over there
/// goes on top. What it would cover is left as it is.
unsafe fn standard_streams(prepared: &Prepared) -> isize {
    let is_covered = |number| prepared.common.targets.contains(&number);
    let discards = matches!(prepared.common.output, Stdio::Null);
    // SAFETY: plain descriptor calls.
    unsafe {
        let null = match discards || !is_covered(0) {
            true => open(c"/dev/null", libc::O_RDWR, 0),
            false => -1,
        };
        if null < 0 && (discards || !is_covered(0)) {
            return null;
        }
        let (output, answer) = match &prepared.common.output {
            Stdio::Inherit => (-1, 0),
            Stdio::Null => (-1, both(null, is_covered(1))),
            Stdio::File { link, .. } => {
                let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_NOCTTY;
                let file = open(link, flags, 0);
                let answer = if file < 0 {
                    file
                } else {
                    both(file, is_covered(1))
                };
                (file, answer)
            }
            Stdio::Descriptor(fd) => (-1, both(*fd as isize, is_covered(1))),
        };
        let answer = match answer {
            failed if failed < 0 => failed,
            _ if is_covered(0) => 0,
            _ => onto(null, 0),
        };
        // Those are the standard streams themselves where listend was started without some.
        for fd in [null, output] {
            if fd > 2 {
                call(libc::SYS_close, fd as usize, 0, 0, 0);
            }
        }
        answer
    }
}

/// Both outputs onto one descriptor, or standard error alone.
unsafe fn both(fd: isize, is_first_covered: bool) -> isize {
    // SAFETY: plain descriptor calls.
    unsafe {
        let answer = if is_first_covered { 0 } else { onto(fd, 1) };
        if answer < 0 { answer } else { onto(fd, 2) }
    }
}

unsafe fn open(path: &CStr, flags: c_int, mode: usize) -> isize {
    let flags = (flags | libc::O_CLOEXEC) as usize;
    let here = libc::AT_FDCWD as isize as usize;
    // SAFETY: the path ends with a NUL.
    unsafe { call(libc::SYS_openat, here, path.as_ptr() as usize, flags, mode) }
}

/// dup2(2), which every architecture has only as dup3(2).
unsafe fn onto(fd: isize, target: c_int) -> isize {
    // SAFETY: plain descriptor calls.
    unsafe {
        if fd == target as isize {
            // dup2 onto itself does nothing, so FD_CLOEXEC has to be cleared by hand.
            keep(fd)
        } else {
            call(libc::SYS_dup3, fd as usize, target as usize, 0, 0)
        }
    }
}

unsafe fn keep(fd: isize) -> isize {
    // SAFETY: changes a flag of a descriptor.
    unsafe { call(SYS_FCNTL, fd as usize, libc::F_SETFD as usize, 0, 0) }
}

#[cfg(any(target_arch = "x86", target_arch = "arm"))]
const SYS_FCNTL: c_long = libc::SYS_fcntl64;
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
const SYS_FCNTL: c_long = libc::SYS_fcntl;

unsafe fn place_descriptors(prepared: &mut Prepared) -> isize {
    // SAFETY: plain descriptor calls; slots were numbered by the parent against this very table,
    // and `get_mut` makes a wrong number an error instead of a wild access.
    unsafe {
        for action in &prepared.fd_actions {
            let (FdAction::Relocate { slot, .. }
            | FdAction::Place { slot, .. }
            | FdAction::Keep { slot }) = *action;
            let Some(fd) = prepared.fds.get_mut(slot.0 as usize) else {
                return -(libc::EBADF as isize);
            };
            let answer = match *action {
                FdAction::Relocate { above, .. } => {
                    let command = libc::F_DUPFD_CLOEXEC as usize;
                    let moved = call(SYS_FCNTL, *fd as usize, command, above as usize, 0);
                    if moved >= 0 {
                        *fd = moved as c_int;
                    }
                    moved
                }
                FdAction::Place { target, .. } => onto(*fd as isize, target),
                FdAction::Keep { .. } => keep(*fd as isize),
            };
            if answer < 0 {
                return answer;
            }
        }
        // Everything else goes at exec, whatever this process inherited. The status pipe stays until
        // then. Older kernels (< 5.11) lack the flag: every descriptor of ours has FD_CLOEXEC anyway.
        let flag = libc::CLOSE_RANGE_CLOEXEC as usize;
        for (first, last) in &prepared.common.unused {
            let (first, last) = (*first as usize, *last as usize);
            call(libc::SYS_close_range, first, last, flag, 0);
        }
        0
    }
}

unsafe fn write_file(path: &CStr, bytes: &[u8]) -> isize {
    // SAFETY: the buffer is valid for its length.
    unsafe {
        let file = open(path, libc::O_WRONLY, 0);
        if file < 0 {
            return file;
        }
        let (start, length) = (bytes.as_ptr() as usize, bytes.len());
        let answer = call(libc::SYS_write, file as usize, start, length, 0);
        call(libc::SYS_close, file as usize, 0, 0, 0);
        answer
    }
}

/// Writes what only the child knows into the space that the parent reserved: its process id, and
/// the inode of its own pidfd.
unsafe fn fill_slots(prepared: &mut Prepared) {
    if !prepared.environment.has_slots() {
        return;
    }
    // SAFETY: the buffer that statx fills is a local of the right type.
    unsafe {
        let pid = call(libc::SYS_getpid, 0, 0, 0, 0) as usize;
        let mut written = 0;
        while let Some(digits) = prepared.environment.slot_mut(EnvSlot::OwnPid, written) {
            _ = write_decimal(digits, pid as u64);
            written += 1;
        }
        let Some(digits) = prepared.environment.slot_mut(EnvSlot::OwnPidfdInode, 0) else {
            return;
        };
        let pidfd = call(libc::SYS_pidfd_open, pid, 0, 0, 0);
        let inode = if pidfd < 0 { None } else { inode(pidfd) };
        if pidfd >= 0 {
            call(libc::SYS_close, pidfd as usize, 0, 0, 0);
        }
        match inode {
            Some(inode) => _ = write_decimal(digits, inode),
            // Better none than a wrong one: libsystemd refuses all descriptors then.
            None => prepared.environment.drop_last(),
        }
    }
}

unsafe fn inode(fd: isize) -> Option<u64> {
    // SAFETY: fstat(2) fills the zeroed buffer, which is larger than the kernel's struct stat where
    // the two differ; where st_ino is the C library's layout is that of the kernel (64-bit).
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let buffer = (&raw mut stat) as usize;
        let answer = call(libc::SYS_fstat, fd as usize, buffer, 0, 0);
        (answer == 0).then_some(stat.st_ino as u64)
    }
}

/// Writes decimal digits without allocation; how many. The slot has room for the longest u64 and its NUL.
fn write_decimal(slot: &mut [u8], value: u64) -> usize {
    let mut length = 1;
    let mut rest = value / 10;
    while rest > 0 {
        length += 1;
        rest /= 10;
    }
    let mut value = value;
    // Without indexing, which could panic: this runs in the child.
    for digit in slot.iter_mut().take(length).rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_digits_are_those_of_the_formatter() {
        for value in [0, 7, 10, 99, 100, 4_294_967_295, u64::MAX] {
            let mut slot = [0u8; 21];
            write_decimal(&mut slot, value);
            let text = value.to_string();
            assert_eq!(&slot[..text.len()], text.as_bytes());
            assert!(slot[text.len()..].iter().all(|byte| *byte == 0));
        }
    }
}
