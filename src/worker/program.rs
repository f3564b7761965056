//! Finding the program that a command names.

use crate::config::{Piece, Template};
use nix::libc;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The folders that execvp(3) searches when there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why there is nothing to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// A path, and nothing is there.
    NoSuchFile,
    /// A bare name that is in no folder of this PATH.
    NotInPath(String),
    /// The file exists, but has no execute permission for anybody.
    NotExecutable(PathBuf),
    /// The path is a folder, a device, …
    NotAFile(PathBuf),
    /// A part of the path is a file.
    NotAFolder,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Missing::NoSuchFile => write!(f, "no such file"),
            Missing::NotInPath(path) => write!(f, "not found in PATH ({path})"),
            Missing::NotExecutable(path) => {
                write!(f, "{} is not executable (chmod +x?)", path.display())
            }
            Missing::NotAFile(path) => write!(f, "{} is not a file", path.display()),
            Missing::NotAFolder => write!(f, "a part of its path is a file, not a directory"),
        }
    }
}

/// The command of the server: behind `listend forward`, where there is one.
pub(super) fn served_by(command: &[Template]) -> &[Template] {
    let is = |index: usize, text| {
        let word = command.get(index).and_then(Template::as_literal);
        word == Some(text)
    };
    if !is_listend(command) || !is(1, "forward") {
        return command;
    }
    let at = (2..command.len()).find(|index| is(*index, "--"));
    at.map_or(&[], |at| &command[at + 1..])
}

/// Whether the program is listend itself.
pub(super) fn is_listend(command: &[Template]) -> bool {
    let program = command.first().map(|word| word.pieces.as_slice());
    program.is_some_and(|pieces| pieces == [Piece::Listend])
}

/// The path to execute: as it stands if it has a slash, else the first executable of that name
/// in `path`, which is the worker's own PATH, not listend's.
///
/// # Errors
///
/// A bare name that is nowhere in `path`. Whether a path can be executed, and by the worker's user,
/// is for execve(2) to say.
pub fn find<Text: AsRef<str>>(
    program: &str,
    path: impl FnOnce() -> Option<Text>,
) -> Result<PathBuf, Missing> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let path = path();
    let path = path.as_ref().map_or(DEFAULT_PATH, AsRef::as_ref);
    let mut nearly = None;
    let mut unseen = None;
    // An empty item means the current folder to execvp(3): an old trap, not followed here.
    for folder in path.split(':').filter(|folder| folder.starts_with('/')) {
        let file = Path::new(folder).join(program);
        match look(&file) {
            Ok(Seen::Yes) => return Ok(file),
            // exec(3): the search goes on behind a folder that may not be entered, and ends with
            // EACCES if nothing else is found. The worker's user may enter what listend may not.
            Ok(Seen::No) => unseen = unseen.or(Some(file)),
            Err(Missing::NoSuchFile | Missing::NotAFolder | Missing::NotInPath(_)) => {}
            Err(other) => nearly = nearly.or(Some(other)),
        }
    }
    let missing = || nearly.unwrap_or_else(|| Missing::NotInPath(path.to_owned()));
    unseen.ok_or_else(missing)
}

/// Whether listend itself may look at a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The file exists, and somebody may execute it.
    Yes,
    /// A folder on the way cannot be entered. The worker's user may be able to: execve(2) will say.
    No,
}

/// Whether there is something at this path that somebody may execute.
///
/// # Errors
///
/// There is not, and why.
pub fn look(file: &Path) -> Result<Seen, Missing> {
    let metadata = match std::fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Missing::NoSuchFile);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(Missing::NotAFolder);
        }
        Err(_) => return Ok(Seen::No),
    };
    if !metadata.is_file() {
        return Err(Missing::NotAFile(file.to_owned()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Missing::NotExecutable(file.to_owned()));
    }
    Ok(Seen::Yes)
}

/// The interpreter that a script names behind `#!`, as the kernel reads it (execve(2)): up to a blank or
/// the end of the line, with a carriage return that is there. `None` if the file is no script, or
/// cannot be read.
pub(super) fn interpreter(file: &Path) -> Option<PathBuf> {
    let start = start_of(file);
    let line = start
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let name = words.find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// Why what is there cannot be executed; `None` if nothing speaks against it. From where a relative path of an
/// interpreter counts is known only at the spawn.
pub(super) fn obstacle(file: &Path) -> Option<String> {
    if is_on_noexec_mount(file) {
        return Some("its file system is mounted noexec".to_owned());
    }
    let Some(name) = interpreter(file) else {
        return is_plain_text(file).then(|| NO_PROGRAM.to_owned());
    };
    if !name.is_absolute() {
        return None;
    }
    let reason = match look(&name) {
        Err(Missing::NoSuchFile) => return Some(no_interpreter(&name)),
        Err(other) => other.to_string(),
        Ok(_) if is_on_noexec_mount(&name) => "its file system is mounted noexec".to_owned(),
        Ok(_) => return None,
    };
    Some(format!("its interpreter `{}`: {reason}", name.display()))
}

/// What execve(2) answers ENOEXEC to.
pub(super) const NO_PROGRAM: &str =
    "it is neither a program for this machine nor a script with a #! line";

/// Whether the file is text without a `#!`, or empty. Other contents may have an interpreter of their own
/// (binfmt_misc).
fn is_plain_text(file: &Path) -> bool {
    let start = start_of(file);
    if start.is_empty() {
        // Otherwise it cannot be read.
        return file.metadata().is_ok_and(|found| found.len() == 0);
    }
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    !start.starts_with(b"#!") && start.iter().all(is_text)
}

/// Whether nothing can be executed from the file system of `path`.
fn is_on_noexec_mount(path: &Path) -> bool {
    nix::sys::statvfs::statvfs(path).is_ok_and(|found| {
        found
            .flags()
            .contains(nix::sys::statvfs::FsFlags::ST_NOEXEC)
    })
}

/// The words for an interpreter that does not exist.
pub(super) fn no_interpreter(name: &Path) -> String {
    match name.as_os_str().as_bytes().ends_with(b"\r") {
        true => {
            "its #! line ends with a carriage return: the file has Windows line ends".to_owned()
        }
        false => format!("its interpreter `{}` does not exist", name.display()),
    }
}

/// The first bytes of a regular file, none of anything else. Never waits: opening a fifo to read
/// it would, for somebody who writes (fifo(7)).
fn start_of(path: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    if let Ok(file) = file
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
    {
        // What cannot be read explains nothing.
        let _unreadable = file.take(256).read_to_end(&mut start);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_and_a_path_is_taken_as_it_stands() {
        assert_eq!(
            find("sh", || Some("/nowhere:/bin")),
            Ok(PathBuf::from("/bin/sh"))
        );
        assert_eq!(
            find("/bin/sh", || None::<&str>),
            Ok(PathBuf::from("/bin/sh"))
        );
        assert_eq!(
            find("no-such", || Some("/bin")),
            Err(Missing::NotInPath("/bin".to_owned()))
        );
        let look = |path: &str| look(Path::new(path));
        assert_eq!(look("/bin/no-such"), Err(Missing::NoSuchFile));
        assert_eq!(
            look("/etc/passwd"),
            Err(Missing::NotExecutable("/etc/passwd".into()))
        );
        assert_eq!(look("/etc"), Err(Missing::NotAFile("/etc".into())));
        assert_eq!(look("/etc/passwd/x"), Err(Missing::NotAFolder));
    }

    #[test]
    fn what_execve_would_refuse_is_seen_before() {
        let folder = std::env::temp_dir().join(format!("listend-obstacle-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let seen = |text: &[u8]| {
            let file = folder.join("file");
            std::fs::write(&file, text).unwrap();
            obstacle(&file)
        };
        let no_program = Some(NO_PROGRAM.to_owned());
        assert_eq!(seen(b"#!/bin/sh\n"), None);
        assert_eq!(seen(b"#!/usr/bin/env no-such\n"), None);
        assert_eq!(seen(b"\x7fELF\x02\x01\x01\0"), None);
        assert_eq!(seen(b"echo hello\n"), no_program);
        assert_eq!(seen(b"\n#!/bin/sh\n"), no_program);
        assert_eq!(seen(b""), no_program);
        let words = |text| seen(text).unwrap_or_default();
        assert!(words(b"#!/bin/sh\r\n").contains("carriage return"));
        assert!(words(b"#!/no/such\n").contains("`/no/such` does not exist"));
        assert!(words(b"#!/etc\n").contains("`/etc`: /etc is not a file"));
        assert!(words(b"#!/etc/passwd\n").contains("is not executable"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
