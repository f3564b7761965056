//! How a process ended that is not our child.

use super::wait::How;
use nix::libc::{self, c_int};
use std::os::fd::{AsFd, AsRawFd};

/// PIDFD_INFO_EXIT of linux/pidfd.h (Linux 6.15).
const EXIT: u64 = 1 << 3;
/// _IOWR(0xFF, 11, struct pidfd_info), of its first size (PIDFD_INFO_SIZE_VER0).
const GET_INFO: u64 = 0xC040_FF0B;

/// The first version of struct pidfd_info (ioctl_pidfd(2)).
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, and the real, effective, saved and file system ids of user and group.
    ids: [u32; 11],
    exit_code: i32,
}

/// How the process behind a pidfd ended, also when another process has reaped it: the pidfd was open
/// when that happened. `None` while it has not been reaped, and before Linux 6.15.
pub fn exit_info(pidfd: impl AsFd) -> Option<How> {
    let mut info = Info {
        mask: EXIT,
        ..Info::default()
    };
    // SAFETY: the descriptor is open; the kernel fills at most the size that is a part of the number.
    let done = unsafe {
        libc::ioctl(
            pidfd.as_fd().as_raw_fd(),
            GET_INFO as libc::Ioctl,
            &mut info,
        )
    };
    if done == -1 || info.mask & EXIT == 0 {
        return None;
    }
    Some(from_status(info.exit_code))
}

/// From the status of waitpid(2).
fn from_status(status: c_int) -> How {
    if libc::WIFEXITED(status) {
        How::Exited(libc::WEXITSTATUS(status))
    } else if libc::WCOREDUMP(status) {
        How::Dumped(libc::WTERMSIG(status))
    } else {
        How::Killed(libc::WTERMSIG(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn how_a_process_ended_is_known_after_another_has_reaped_it() {
        for (script, how) in [
            ("exit 3", How::Exited(3)),
            ("kill -TERM $$", How::Killed(libc::SIGTERM)),
        ] {
            let mut child = Command::new("sh")
                .args(["-c", &format!("read line; {script}")])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("sh");
            let pidfd = super::super::pidfd::open(child.id() as i32).expect("a child");
            assert_eq!(exit_info(&pidfd), None);
            // Closes its standard input, and reaps it.
            child.wait().expect("a child");
            assert_eq!(exit_info(&pidfd), Some(how));
        }
    }
}
