//! Where a signal came from, and a disposition that must not be inherited.

use nix::libc;
use std::ptr;

/// Who sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A process, by kill(2) and its kin.
    Process {
        /// Its process id; 0 when it is outside this pid namespace.
        pid: i32,
        /// Its user id.
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
