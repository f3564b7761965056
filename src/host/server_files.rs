//! The files that configure servers, as far as they may be read.

use crate::walk;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// No file is longer, in bytes: dpkg's list of all packages is the longest.
const LONGEST: u64 = 16 << 20;
/// No folder has more entries that count.
const MOST_ENTRIES: usize = 1000;

/// A way to files; they are only read. What others can change is read with their rights.
pub trait ServerFiles {
    /// The text of a file; `None` if it cannot be read, or is no text.
    fn text(&self, path: &Path) -> Option<String>;
    /// The entries of a folder, sorted; `None` if it cannot be read, or if others could exchange it.
    fn entries(&self, folder: &Path) -> Option<Vec<PathBuf>>;
}

/// The files of this machine.
#[derive(Debug, Clone, Copy)]
pub struct OnThisMachine;

impl ServerFiles for OnThisMachine {
    fn text(&self, path: &Path) -> Option<String> {
        let mut text = String::new();
        let mut file = walk::open_to_read(path).ok()?.take(LONGEST + 1);
        file.read_to_string(&mut text).ok()?;
        (text.len() as u64 <= LONGEST).then_some(text)
    }

    fn entries(&self, folder: &Path) -> Option<Vec<PathBuf>> {
        let (handle, _) = walk::find(folder).ok()?;
        let entries = fs::read_dir(format!("/proc/self/fd/{}", handle.as_raw_fd())).ok()?;
        let names = entries
            .take(MOST_ENTRIES + 1)
            .map(|entry| entry.map(|one| one.file_name()));
        let mut names = names.collect::<Result<Vec<_>, _>>().ok()?;
        names.sort();
        let paths = names.iter().map(|name| folder.join(name));
        (names.len() <= MOST_ENTRIES).then(|| paths.collect())
    }
}
