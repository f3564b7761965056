//! Finding the program that a command names.

use std::os::unix::fs::PermissionsExt;
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
        }
    }
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
            Err(Missing::NoSuchFile | Missing::NotInPath(_)) => {}
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
    }
}
