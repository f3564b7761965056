//! The sender of a signal, and a disposition that must not be inherited.

use nix::libc;
use std::ptr;

/// The sender of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A process, by kill(2) and its kin.
    Process {
        /// The process id of the sender; 0 if it is outside this pid namespace.
        pid: i32,
        /// The user id of the sender.
        uid: u32,
    },
    /// The kernel: Ctrl-C at the terminal, or the terminal's hangup.
    Kernel,
}

/// Reads the origin of a signal that a handler received.
pub fn origin(info: &libc::siginfo_t) -> Origin {
    match info.si_code {
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => {
            // SAFETY: for these codes the kernel fills in the sender's pid and uid (sigaction(2)).
            unsafe {
                Origin::Process {
                    pid: info.si_pid(),
                    uid: info.si_uid(),
                }
            }
        }
        _ => Origin::Kernel,
    }
}

/// Whether the signal is ignored, as nohup(1) and shells leave it to what they start.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: without a new action sigaction only fills in the zeroed old one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Sets SIGCHLD to its default. A parent that ignored it would have handed that down, and the
/// kernel would then throw away the exit status of every worker.
pub fn reset_child_signal() {
    // SAFETY: sigaction with SIG_DFL installs no handler of ours.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGCHLD, &action, ptr::null_mut());
    }
}

/// Sets SIGPIPE to its default, which the start of a Rust program ignores.
pub fn default_broken_pipe() {
    // SAFETY: sigaction with SIG_DFL installs no handler of ours.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGPIPE, &action, ptr::null_mut());
    }
}

/// Has a write beyond RLIMIT_FSIZE fail with EFBIG, as others fail, instead of ending the process (setrlimit(2)).
pub fn ignore_file_size_signal() {
    // SAFETY: sigaction with SIG_IGN installs no handler of ours.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_IGN;
        libc::sigaction(libc::SIGXFSZ, &action, ptr::null_mut());
    }
}

/// The signals that are not at their default, as sets of bits: bit 0 is signal 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChangedSignals {
    /// Those that a handler takes, which would run in the parent's memory.
    pub(super) handled: u64,
    /// Those that are ignored, and stay so over an exec.
    pub(super) ignored: u64,
}

impl ChangedSignals {
    /// Those that a child sets to their default. `ignores_sigpipe` says whether it is to ignore that one, which
    /// it does already if its parent does.
    pub(super) fn to_default(self, has_handlers: bool, ignores_sigpipe: bool) -> u64 {
        let stays = match ignores_sigpipe {
            true => self.ignored & (1 << (libc::SIGPIPE - 1)),
            false => 0,
        };
        let handled = if has_handlers { self.handled } else { 0 };
        (handled | self.ignored) & !stays
    }

    /// Whether it is ignored.
    pub(super) fn ignores(self, signal: i32) -> bool {
        self.ignored & (1 << (signal - 1)) != 0
    }
}

/// Those that a child must put back before its exec. To be asked once all handlers are installed. All 64 are
/// asked about, also the two that the C library keeps for itself: they may have been inherited as ignored.
pub fn changed_signals() -> ChangedSignals {
    // The size of the kernel's signal set, and more than its struct sigaction of any architecture.
    const SIGNAL_SET: usize = 8;
    let mut changed = ChangedSignals::default();
    for number in 1..=64_u32 {
        let mut action = [0_u64; 8];
        // SAFETY: without a new action the call only fills in the old one, which is large enough. By
        // the bare call, because the C library denies that two of them exist.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                libc::c_long::from(number),
                ptr::null::<u64>(),
                action.as_mut_ptr(),
                SIGNAL_SET,
            )
        };
        // The handler is the first member everywhere but on MIPS.
        let is_ignored = answer != 0 || action[0] == libc::SIG_IGN as u64;
        let is_default = action[0] == libc::SIG_DFL as u64;
        let bit = 1 << (number - 1);
        if is_ignored {
            changed.ignored |= bit;
        } else if !is_default {
            changed.handled |= bit;
        }
    }
    changed
}
