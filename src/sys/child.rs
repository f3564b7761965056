//! What runs in the child between fork and exec.
//!
//! Only async-signal-safe calls: no allocation, no lock, no formatting, no drop, nothing that can
//! panic. All bytes were laid out by the parent in [`super::Prepared`]; the child works on its own
//! copy-on-write copy of them. It leaves by `execve` or `_exit`, never by returning.

use super::launch::{Prepared, Stdio};
use crate::stage::Stage;
use nix::libc::{self, c_int, c_uint};
use std::ptr;

/// Index into the table of descriptors that [`FdAction`]s work on. The listeners come first, in
/// the order of their targets; the status pipe is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdSlot(pub u16);

/// One step of putting the descriptors in place. Decided in the parent (`worker::fdmap`), so that
/// the child follows a list and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FdAction {
    /// Duplicate the slot to a free number not below `above`, with FD_CLOEXEC, and go on with that.
    Relocate {
        /// What to move.
        slot: FdSlot,
        /// The lowest number it may get.
        above: c_int,
    },
    /// dup2(2) the slot to `target`, which clears FD_CLOEXEC.
    Place {
        /// What to place.
        slot: FdSlot,
        /// Where.
        target: c_int,
    },
    /// The slot is where it belongs: only clear FD_CLOEXEC. dup2(2) onto itself would not.
    Keep {
        /// What to keep.
        slot: FdSlot,
    },
}

/// The size of a message on the status pipe: stage, padding, detail, errno.
pub(super) const STATUS_LENGTH: usize = 8;

/// Becomes the worker.
///
/// # Safety
///
/// Only in a child of fork(2), with all signals blocked, in a process that had one thread.
/// `prepared` must be complete: pointer arrays end with NULL and point into live memory.
pub(super) unsafe fn become_worker(prepared: &mut Prepared) -> ! {
    // SAFETY: the caller's contract is passed on; `steps` returns only on failure.
    unsafe {
        let (stage, detail) = steps(prepared);
        report(prepared.status_fd(), stage, detail, errno());
        libc::_exit(127)
    }
}

fn errno() -> c_int {
    // SAFETY: points to this thread's errno, always valid.
    unsafe { *libc::__errno_location() }
}

/// Tells the parent where it ended. A parent that has gone cannot be told; nothing to do then.
unsafe fn report(pipe: c_int, stage: Stage, detail: u16, errno: c_int) {
    let mut message = [0u8; STATUS_LENGTH];
    message[0] = stage as u8;
    let [low, high] = detail.to_ne_bytes();
    message[2] = low;
    message[3] = high;
    let [a, b, c, d] = errno.to_ne_bytes();
    message[4] = a;
    message[5] = b;
    message[6] = c;
    message[7] = d;
    // SAFETY: the buffer is valid for its length. Eight bytes into an empty pipe are atomic.
    unsafe {
        libc::write(pipe, message.as_ptr().cast(), STATUS_LENGTH);
    }
}

/// All steps, in order. Returns the one that failed; errno is that of its last call.
unsafe fn steps(prepared: &mut Prepared) -> (Stage, u16) {
    // SAFETY: every call below is async-signal-safe (signal-safety(7)) or a bare system call, and
    // every pointer comes from `prepared`, which the caller vouches for.
    unsafe {
        // Dispositions first, while all signals are blocked: a handler of the parent that ran here
        // would write into the parent's pipe.
        default_dispositions();
        if libc::setsid() == -1 {
            return (Stage::Session, 0);
        }
        if !standard_streams(prepared) {
            return (Stage::Output, 0);
        }
        if !place_descriptors(prepared) {
            return (Stage::Descriptors, 0);
        }
        if let Some(score) = &prepared.oom_score_adjust
            && !write_file(c"/proc/self/oom_score_adj".as_ptr(), score)
        {
            return (Stage::OomScore, 0);
        }
        fill_slots(prepared);
        // Nothing is opened below here: the child still has every descriptor of the parent, which
        // may be more than the worker's RLIMIT_NOFILE allows.
        for (index, limit) in prepared.limits.iter().enumerate() {
            let value = libc::rlimit {
                rlim_cur: limit.1,
                rlim_max: limit.2,
            };
            // The resource's type differs between C libraries (glibc: unsigned, musl: int).
            if libc::setrlimit(limit.0 as _, &value) == -1 {
                return (Stage::Limits, index as u16);
            }
        }
        if let Some(nice) = prepared.nice
            && libc::setpriority(libc::PRIO_PROCESS, 0, nice) == -1
        {
            return (Stage::Nice, 0);
        }
        if let Some(groups) = &prepared.groups
            && libc::setgroups(groups.len(), groups.as_ptr()) == -1
        {
            return (Stage::Groups, 0);
        }
        if let Some(gid) = prepared.gid
            && libc::setresgid(gid, gid, gid) == -1
        {
            return (Stage::Group, 0);
        }
        if let Some(uid) = prepared.uid
            && libc::setresuid(uid, uid, uid) == -1
        {
            return (Stage::User, 0);
        }
        // After the user is set, so that a folder which that user may not enter is an error here
        // and not a surprise later.
        if let Some(folder) = &prepared.working_directory
            && libc::chdir(folder.as_ptr()) == -1
        {
            return (Stage::WorkingDirectory, 0);
        }
        if let Some(mask) = prepared.umask {
            libc::umask(mask as libc::mode_t);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) == -1 {
            return (Stage::Signals, 0);
        }
        libc::execve(
            prepared.program.as_ptr(),
            prepared.argv.pointers(),
            prepared.environment.pointers(),
        );
        (Stage::Exec, 0)
    }
}

unsafe fn default_dispositions() {
    /// Larger than the kernel's struct sigaction of any architecture; zeroed, it means SIG_DFL
    /// without flags.
    const DEFAULT: [u64; 8] = [0; 8];
    /// The size of the kernel's signal set.
    const SET_SIZE: usize = 8;
    // SAFETY: rt_sigaction(2) reads `DEFAULT` and writes nothing. The bare call and not the C
    // library's, which refuses the two signals that it keeps for itself: they may have been
    // inherited as ignored, and would be handed on. KILL and STOP answer EINVAL.
    unsafe {
        for number in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                DEFAULT.as_ptr(),
                ptr::null_mut::<u64>(),
                SET_SIZE,
            );
        }
    }
}

/// 0 is /dev/null; 1 and 2 are as the plan says.
unsafe fn standard_streams(prepared: &Prepared) -> bool {
    // SAFETY: open and dup2 are async-signal-safe; the paths are NUL-terminated.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if null == -1 || !onto(null, 0) {
            return false;
        }
        let done = match &prepared.output {
            Stdio::Inherit => true,
            Stdio::Null => onto(null, 1) && onto(null, 2),
            Stdio::File(path) => {
                let flags = libc::O_WRONLY
                    | libc::O_CREAT
                    | libc::O_APPEND
                    | libc::O_NOCTTY
                    | libc::O_CLOEXEC;
                let file = libc::open(path.as_ptr(), flags, 0o640 as c_uint);
                let done = file != -1 && onto(file, 1) && onto(file, 2);
                if file > 2 {
                    libc::close(file);
                }
                done
            }
        };
        if null > 2 {
            libc::close(null);
        }
        done
    }
}

unsafe fn onto(fd: c_int, target: c_int) -> bool {
    // SAFETY: plain descriptor calls.
    unsafe {
        if fd == target {
            // dup2 onto itself does nothing, so FD_CLOEXEC has to be cleared by hand.
            libc::fcntl(fd, libc::F_SETFD, 0) != -1
        } else {
            libc::dup2(fd, target) != -1
        }
    }
}

unsafe fn place_descriptors(prepared: &mut Prepared) -> bool {
    // SAFETY: plain descriptor calls; slots were numbered by the parent against this very table,
    // and `get`/`get_mut` make a wrong number an error instead of a wild access.
    unsafe {
        for action in &prepared.fd_actions {
            let (FdAction::Relocate { slot, .. }
            | FdAction::Place { slot, .. }
            | FdAction::Keep { slot }) = *action;
            let Some(fd) = prepared.fds.get_mut(usize::from(slot.0)) else {
                return false;
            };
            let done = match *action {
                FdAction::Relocate { above, .. } => {
                    *fd = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, above);
                    *fd != -1
                }
                FdAction::Place { target, .. } => onto(*fd, target),
                FdAction::Keep { .. } => libc::fcntl(*fd, libc::F_SETFD, 0) != -1,
            };
            if !done {
                return false;
            }
        }
        // Everything above the listeners goes at exec, whatever this process inherited. The status
        // pipe stays until then. Older kernels (< 5.11) lack the flag: every descriptor of ours
        // has FD_CLOEXEC anyway.
        libc::syscall(
            libc::SYS_close_range,
            prepared.first_unused as c_uint,
            c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        true
    }
}

unsafe fn write_file(path: *const libc::c_char, bytes: &[u8]) -> bool {
    // SAFETY: the path is NUL-terminated and the buffer valid for its length.
    unsafe {
        let file = libc::open(path, libc::O_WRONLY | libc::O_CLOEXEC);
        if file == -1 {
            return false;
        }
        let written = libc::write(file, bytes.as_ptr().cast(), bytes.len());
        let failed_with = errno();
        libc::close(file);
        *libc::__errno_location() = failed_with;
        written == bytes.len() as isize
    }
}

/// Writes what only the child knows into the space that the parent reserved: its process id, and
/// the inode of its own pidfd.
unsafe fn fill_slots(prepared: &mut Prepared) {
    // SAFETY: getpid, pidfd_open, fstat and close are bare system calls.
    unsafe {
        let pid = libc::getpid();
        if let Some(digits) = prepared.environment.slot_mut(super::EnvSlot::OwnPid) {
            write_decimal(digits, pid as u64);
        }
        if prepared
            .environment
            .slot_mut(super::EnvSlot::OwnPidfdInode)
            .is_none()
        {
            return;
        }
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as c_int;
        let mut stat: libc::stat = std::mem::zeroed();
        if pidfd != -1 && libc::fstat(pidfd, &mut stat) == 0 {
            if let Some(digits) = prepared.environment.slot_mut(super::EnvSlot::OwnPidfdInode) {
                write_decimal(digits, stat.st_ino as u64);
            }
        } else {
            // Better none than a wrong one: libsystemd refuses all descriptors then.
            prepared.environment.drop_last();
        }
        if pidfd != -1 {
            libc::close(pidfd);
        }
    }
}

/// Decimal digits without allocation. The slot has room for the longest u64 and its NUL.
pub(super) fn write_decimal(slot: &mut [u8], mut value: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let length = digits.len() - start;
    if let Some(space) = slot.get_mut(..length) {
        space.copy_from_slice(&digits[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_digits_are_those_of_the_formatter() {
        for value in [0, 7, 10, 4_294_967_295, u64::MAX] {
            let mut slot = [0u8; 21];
            write_decimal(&mut slot, value);
            let text = value.to_string();
            assert_eq!(&slot[..text.len()], text.as_bytes());
            assert!(slot[text.len()..].iter().all(|byte| *byte == 0));
        }
    }
}
