//! The identity of a process that holds an address: command, user, unit or container; and whether it is
//! a listend of this configuration.

use super::machine::Machine;
use super::process_info::ProcessInfo;
use crate::host;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The process that others in the list come from, and how many others there are: a server's
/// workers share its sockets, and stopping one of them helps nobody.
pub(super) fn master(pids: &[i32], machine: &Machine) -> Option<(ProcessInfo, usize)> {
    let people = pids.iter().filter_map(|pid| machine.person(*pid));
    let first = people.min_by_key(|person| {
        let comes_from_another = pids.contains(&person.parent);
        (comes_from_another, person.holder.pid)
    })?;
    Some((first, pids.len() - 1))
}

/// Whether the process is a `listend run` of this very configuration file.
///
/// A process is a listend if its program is called `listend` or is the program that runs now, if `run` is
/// among its arguments, and if the configuration they name is the same file (device and inode).
/// `false` also where /proc does not let us see.
pub fn held_by_listend(pid: i32, config: &Path) -> bool {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let Ok(arguments) = std::fs::read(folder.join("cmdline")) else {
        return false;
    };
    let arguments: Vec<OsString> = arguments
        .split(|byte| *byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect();
    is_listend(&folder)
        && configurations(&arguments).is_some_and(|named| {
            named.iter().any(|path| {
                // Its own root and working directory count, not ours.
                let theirs = if path.is_absolute() {
                    folder
                        .join("root")
                        .join(path.strip_prefix("/").unwrap_or(path))
                } else {
                    folder.join("cwd").join(path)
                };
                same_file(&theirs, config)
            })
        })
}

fn is_listend(folder: &Path) -> bool {
    let link = folder.join("exe");
    let named = std::fs::read_link(&link).is_ok_and(|target| {
        // After an update the program is another file, and the link says so.
        let name = target.file_name().unwrap_or_default().as_bytes();
        name.strip_suffix(b" (deleted)").unwrap_or(name) == b"listend"
    });
    named || same_file(&link, Path::new("/proc/self/exe"))
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => one.dev() == other.dev() && one.ino() == other.ino(),
        _ => false,
    }
}

/// The files that the arguments of a listend may name as its configuration; `None` if they do
/// not say `run`.
fn configurations(arguments: &[OsString]) -> Option<Vec<PathBuf>> {
    let arguments = &without_control(arguments);
    let run = arguments.iter().skip(1).position(|word| word == "run")? + 1;
    let mut named = Vec::new();
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if word == "-c" || word == "--config" {
            named.extend(words.next().map(PathBuf::from));
        } else if let Some(value) = bytes
            .strip_prefix(b"--config=")
            .or_else(|| bytes.strip_prefix(b"-c"))
        {
            named.push(PathBuf::from(OsStr::from_bytes(value)));
        }
    }
    if !named.is_empty() {
        return Some(named);
    }
    let bare = |word: &&OsString| !word.is_empty() && !word.as_bytes().starts_with(b"-");
    named.extend(arguments[run + 1..].iter().filter(bare).map(PathBuf::from));
    // A bare word may also be the value of an option; then the default is what it runs.
    if !named.iter().any(|path| path.extension().is_some()) {
        named.push(host::default_config());
    }
    Some(named)
}

/// The arguments without those that say where the control socket is, which is a path as well.
fn without_control(arguments: &[OsString]) -> Vec<OsString> {
    let mut words = arguments.iter();
    let mut left = Vec::new();
    while let Some(word) = words.next() {
        if word == "--control" || word == "--control-group" {
            words.next();
        } else {
            left.push(word.clone());
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_found_among_the_arguments() {
        let of = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            configurations(&words)
        };
        let one = |path: &str| Some(vec![PathBuf::from(path)]);
        assert_eq!(of("listend run -c a.yaml"), one("a.yaml"));
        assert_eq!(of("listend -c a.yaml run"), one("a.yaml"));
        assert_eq!(of("listend run --config=/b.yaml"), one("/b.yaml"));
        assert_eq!(of("listend run --config /b.yaml"), one("/b.yaml"));
        assert_eq!(of("listend run b.yaml"), one("b.yaml"));
        assert_eq!(of("listend run"), Some(vec![host::default_config()]));
        let default = of("listend --control /x.sock run --control-group adm");
        assert_eq!(default, Some(vec![host::default_config()]));
        assert_eq!(of("listend check -c a.yaml"), None);
    }
}
