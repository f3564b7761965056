//! The sockets of another process, and copies of them (pidfd_getfd(2)).

use crate::sys;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// A process, and under which number it has which socket.
pub struct Holder {
    pidfd: OwnedFd,
    numbers: HashMap<u64, RawFd>,
}

impl Holder {
    /// Looks at a process.
    ///
    /// # Errors
    ///
    /// The process has ended, or its descriptors cannot be read.
    pub fn of(pid: i32) -> io::Result<Holder> {
        let pidfd = sys::open_pidfd(pid)?;
        let mut numbers = HashMap::new();
        for link in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            let to = match fs::read_link(link.path()) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                to => to.unwrap_or_default(),
            };
            let inode = to.to_str().and_then(|to| to.strip_prefix("socket:["));
            let inode: Option<u64> = inode.and_then(|inode| inode.strip_suffix(']')?.parse().ok());
            let name = link.file_name();
            let number = name.to_str().and_then(|text| text.parse().ok());
            numbers.extend(inode.zip(number));
        }
        Ok(Holder { pidfd, numbers })
    }

    /// The inodes of its sockets, by the lowest of their numbers.
    pub fn sockets(&self) -> Vec<u64> {
        let mut all: Vec<(RawFd, u64)> = self.numbers.iter().map(|(i, n)| (*n, *i)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, inode)| inode).collect()
    }

    /// A copy of a socket; `None` if the process does not have it any more.
    ///
    /// # Errors
    ///
    /// The errors of pidfd_getfd(2).
    pub fn take(&self, inode: u64) -> io::Result<Option<OwnedFd>> {
        let Some(number) = self.numbers.get(&inode) else {
            return Ok(None);
        };
        let fd = sys::take_descriptor_of(&self.pidfd, *number)?;
        // The process may have made something else of the number meanwhile.
        let is_it = fstat(&fd).is_ok_and(|file| file.st_ino == inode);
        Ok(is_it.then_some(fd))
    }
}

/// Why nothing can be taken from a process, and what helps. `command` is what was tried.
pub fn not_taken(pid: i32, error: &io::Error, command: &str) -> String {
    let how = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) if !geteuid().is_root() => format!(
            ": the process is of another user, or kernel.yama.ptrace_scope forbids it; run \
             `{command}` as root if it ran as root, or set kernel.yama.ptrace_scope=0 meanwhile"
        ),
        Some(Errno::EPERM | Errno::EACCES) => {
            ": CAP_SYS_PTRACE is missing, or a system call filter or a security module forbids it"
                .to_owned()
        }
        _ => String::new(),
    };
    format!("pidfd_getfd(2) from process {pid}: {error}{how}")
}
