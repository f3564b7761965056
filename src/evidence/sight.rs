//! The subject and the result of a look.

use nix::sys::stat::{SFlag, fstat};
use std::fmt;
use std::io;
use std::os::fd::AsFd;

/// The inode of a listener's socket or other file: the same for each of its descriptors, in every
/// process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketInode {
    pub(super) device: u64,
    pub(super) number: u64,
    /// FIFOs, message queues and devices are listeners too.
    pub(super) is_socket: bool,
}

impl SocketInode {
    /// The inode of a held descriptor.
    ///
    /// # Errors
    ///
    /// The errors of fstat(2).
    pub fn of(socket: impl AsFd) -> io::Result<SocketInode> {
        let stat = fstat(socket)?;
        Ok(SocketInode {
            device: stat.st_dev,
            number: stat.st_ino,
            is_socket: stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits(),
        })
    }
}

/// The evidence that a process accepts clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The process accepts clients, or did during the look.
    Seen,
    /// The process does not accept clients yet, or was busy during the look; another look may see it.
    NotYet,
    /// The process may accept clients in a way that cannot be seen.
    Hidden(Why),
}

/// Why it cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A file in /proc cannot be read. EACCES and EPERM mean that the process has another user and
    /// listend no CAP_SYS_PTRACE (ptrace(2), "Ptrace access mode checking"), or that a security
    /// module refuses; ENOENT for the main process means that /proc is mounted with `hidepid`
    /// (proc(5)), or not at all.
    Unreadable {
        /// The process id.
        pid: i32,
        /// The name of the file in the process's folder.
        file: &'static str,
        /// The error of the system call.
        errno: i32,
    },
    /// The process waits through io_uring(7), and it cannot be seen for what.
    IoUring {
        /// The process id.
        pid: i32,
    },
    /// The instance has more of something than one look goes through.
    TooMany {
        /// The processes, threads or descriptors of which there are too many.
        what: &'static str,
    },
    /// The process runs a program of another architecture, such as 32-bit, whose system calls have
    /// other numbers.
    ForeignCalls {
        /// The process id.
        pid: i32,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Unreadable { pid, file, errno } => {
                let error = io::Error::from_raw_os_error(*errno);
                write!(f, "cannot read /proc/{pid}/{file}: {error}")
            }
            Why::IoUring { pid } => write!(
                f,
                "process {pid} waits for something through io_uring, and /proc does not show for what"
            ),
            Why::TooMany { what } => write!(f, "it has too many {what} to examine"),
            Why::ForeignCalls { pid } => write!(
                f,
                "process {pid} runs a program of another architecture, whose system calls have \
                 other numbers"
            ),
        }
    }
}
