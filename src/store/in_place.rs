//! This process as its own keeper: it executes another binary, and its children, its pid and its
//! descriptors stay.
//!
//! The descriptors keep their numbers, so that nothing has changed where the exec fails. Which is which stands
//! in a memory file whose descriptor is named in [`VARIABLE`]: LISTEN_FDS would have them moved, and 20,000
//! names are more than a variable can have.

use super::name::Name;
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::execve;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

/// `PID:DESCRIPTOR`, of the process that executes and of the list.
const VARIABLE: &str = "LISTEND_STORE";

/// A descriptor that is back.
#[derive(Debug)]
pub struct Kept {
    /// What it is for.
    pub name: Name,
    /// The descriptor, CLOEXEC from now on.
    pub fd: OwnedFd,
}

/// Why nothing was executed. Everything is as it was.
#[derive(Debug)]
pub enum NotHandedOver {
    /// The list of descriptors cannot be written.
    NoList(io::Error),
    /// execve(2) failed.
    NotExecuted(Errno),
}

impl fmt::Display for NotHandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotHandedOver::NoList(error) => {
                write!(f, "the list of descriptors cannot be written: {error}")
            }
            NotHandedOver::NotExecuted(errno) => write!(f, "execve: {}", errno.desc()),
        }
    }
}

impl std::error::Error for NotHandedOver {}

/// Executes `binary` in this process with the arguments and the environment that it has, and leaves it these
/// descriptors. All signals are blocked from here until [`take_back`]'s caller has its handlers: none is lost,
/// and none ends the process meanwhile.
///
/// Returns only where that failed.
pub fn hand_over(binary: &CString, kept: &[(Name, BorrowedFd<'_>)]) -> NotHandedOver {
    let list = match write_list(kept) {
        Ok(list) => list,
        Err(error) => return NotHandedOver::NoList(error),
    };
    let arguments: Vec<CString> = std::env::args_os()
        .filter_map(|one| c_string(&one))
        .collect();
    let own = format!("{VARIABLE}={}:{}", std::process::id(), list.as_raw_fd());
    let inherited = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
    let environment = inherited.filter_map(|(name, value)| {
        let mut line = name;
        line.push("=");
        line.push(value);
        c_string(&line)
    });
    let environment: Vec<CString> = environment.chain(c_string(OsStr::new(&own))).collect();
    let fds = || kept.iter().map(|(_, fd)| *fd).chain([list.as_fd()]);
    let mut before = SigSet::empty();
    let everything = SigSet::all();
    let _cannot_fail = sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&everything),
        Some(&mut before),
    );
    let marked: Result<(), Errno> = fds().try_for_each(|fd| keep_at_exec(fd, true));
    let errno = match marked {
        Ok(()) => match execve(binary, &arguments, &environment) {
            Err(errno) => errno,
            Ok(never) => match never {},
        },
        Err(errno) => errno,
    };
    for fd in fds() {
        let _open = keep_at_exec(fd, false);
    }
    let _cannot_fail = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    NotHandedOver::NotExecuted(errno)
}

/// What the binary before has left to this one; `None` where there was none. To be called first of all, as
/// [`crate::listener::take_inherited`].
///
/// # Errors
///
/// The list cannot be read: whatever is open besides is not known.
pub fn take_back() -> io::Result<Option<Vec<Kept>>> {
    let value = std::env::var(VARIABLE).ok();
    sys::forget_variable(VARIABLE);
    let Some(value) = value else {
        return Ok(None);
    };
    let place = value.split_once(':').and_then(|(pid, fd)| {
        let is_ours = pid.parse() == Ok(std::process::id());
        is_ours.then(|| fd.parse::<i32>().ok()).flatten()
    });
    // A child of listend has inherited the variable and nothing else.
    let Some(number) = place else {
        return Ok(None);
    };
    let list = File::from(sys::take_descriptor(number)?);
    let mut text = vec![0; list.metadata()?.len() as usize];
    list.read_exact_at(&mut text, 0)?;
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    let kept = text.lines().map(|line| {
        let entry = line.split_once(' ').and_then(|(name, number)| {
            let name = name.parse().ok()?;
            Some((name, number.parse().ok()?))
        });
        let (name, number) =
            entry.ok_or_else(|| io::Error::other(format!("`{line}` is no entry")))?;
        let fd = sys::take_descriptor(number)?;
        Ok(Kept { name, fd })
    });
    kept.collect::<io::Result<Vec<Kept>>>().map(Some)
}

fn write_list(kept: &[(Name, BorrowedFd<'_>)]) -> io::Result<File> {
    let file = File::from(memfd_create(c"listend-store", MFdFlags::MFD_CLOEXEC)?);
    let lines = kept
        .iter()
        .map(|(name, fd)| format!("{name} {}\n", fd.as_raw_fd()));
    file.write_all_at(lines.collect::<String>().as_bytes(), 0)?;
    Ok(file)
}

fn keep_at_exec(fd: BorrowedFd<'_>, keep: bool) -> Result<(), Errno> {
    let flag = if keep {
        FdFlag::empty()
    } else {
        FdFlag::FD_CLOEXEC
    };
    fcntl(fd, FcntlArg::F_SETFD(flag)).map(drop)
}

/// `None` for what no argument or variable of a process can be.
fn c_string(text: &OsStr) -> Option<CString> {
    CString::new(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_exec_fails_everything_is_as_it_was() {
        let file = File::open("/dev/null").expect("open");
        let failed = hand_over(
            &c"/dev/null/nothing".to_owned(),
            &[(Name::Notify, file.as_fd())],
        );
        assert_eq!(failed.to_string(), "execve: Not a directory");
        let flags = fcntl(&file, FcntlArg::F_GETFD).expect("open");
        assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
        let mut mask = SigSet::all();
        sigprocmask(SigmaskHow::SIG_SETMASK, None, Some(&mut mask)).expect("a mask");
        assert_eq!(mask, SigSet::empty());
    }
}
