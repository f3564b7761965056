//! `listend run --guard`: this process keeps what outlives the daemon, and a child is the daemon.

use super::exit::Exit;
use super::open_files::raise_open_files;
use super::run::inherit;
use crate::{guard, sys};
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const ITSELF: &str = "/proc/self/exe";
const FLAG: &str = "--guard";

/// Runs the daemon as a child, with the same arguments but for the flag.
pub fn guard() -> Exit {
    let inherited = match inherit() {
        Ok(inherited) => inherited,
        Err(error) => {
            log::error!("nothing was started: {error}");
            return Exit::Unavailable;
        }
    };
    let open_files = raise_open_files();
    if let Err(error) = sys::close_on_exec_from(3) {
        log::debug!("cannot mark inherited descriptors: {error}");
    }
    let mut words: Vec<OsString> = std::env::args_os().collect();
    // It takes no value and is given once, so that this is the flag.
    if let Some(at) = words.iter().position(|word| word == FLAG) {
        words.remove(at);
    }
    let command = guard::Command {
        programs: c_strings(programs(words.first())),
        words: c_strings(words),
        open_files: (
            open_files.soft.unwrap_or(u64::MAX),
            open_files.hard.unwrap_or(u64::MAX),
        ),
    };
    let given = inherited.into_iter().map(|one| (one.fd, one.name));
    match guard::run(command, given.collect()) {
        Ok(0) => Exit::Done,
        Ok(code) => Exit::Code(code),
        Err(error) => {
            log::error!("the guard failed: {error}");
            Exit::Internal
        }
    }
}

/// Where the daemon is to be found at each start: at the path by which this program was called, so that
/// it is the new one after an upgrade, also of a symbolic link; and while nothing can be executed there,
/// it is this program, whatever has become of its file.
fn programs(word: Option<&OsString>) -> Vec<OsString> {
    let called = word.and_then(|word| {
        let path = Path::new(word);
        if path.parent().is_some_and(|parent| parent != Path::new("")) {
            return std::path::absolute(path).ok();
        }
        let folders = std::env::var_os("PATH")?;
        let folders = std::env::split_paths(&folders).filter(|folder| folder.is_absolute());
        folders
            .map(|folder| folder.join(path))
            .find(|path| is_itself(path))
    });
    let called = called.filter(|path| is_itself(path));
    let path = called.or_else(|| std::env::current_exe().ok());
    let all = path.into_iter().chain([PathBuf::from(ITSELF)]);
    all.map(PathBuf::into_os_string).collect()
}

/// argv\[0\] may be any text.
fn is_itself(path: &Path) -> bool {
    let file = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    file(path).is_some_and(|found| file(Path::new(ITSELF)) == Some(found))
}

/// None of the kernel's strings holds a NUL.
fn c_strings(words: Vec<OsString>) -> Vec<CString> {
    let words = words.into_iter().map(OsString::into_vec);
    words.filter_map(|word| CString::new(word).ok()).collect()
}
