//! The rules about paths, by mounts.
//!
//! All by descriptors of places (O_PATH): what is mounted, and where, is looked up once, without following
//! links that others could have made. What stays usable inside of what is restricted is copied before
//! anything is restricted, and attached again after.

use super::outcome::{Notes, Outcome, failed, failure};
use super::spaces::Spaces;
use crate::sandbox::paths::{DEVICE_FOLDERS, DEVICES, Rule, View, around};
use crate::stage::Stage;
use crate::sys::{self, MountLimit};
use crate::walk::{self, Refused};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::FileStat;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Memory file systems of a worker have at most this part of the memory.
const SIZE: &str = "size=10%";

/// Carries the rules out, in their order.
pub(super) fn carry_out(rules: &[Rule], spaces: &Spaces, notes: &mut Notes) -> Outcome {
    let mut steps = Vec::with_capacity(rules.len());
    for rule in rules {
        let outside = around(rules, rule);
        let copy = match needs_copy(rule, outside) {
            true => copy_of(rule)?,
            false => None,
        };
        steps.push((rule, outside, copy));
    }
    let mut to_close = Vec::new();
    for (rule, outside, copy) in steps {
        let around = Around {
            outside,
            is_passed_through: is_passed_through(rules, rule),
        };
        step(rule, &around, copy, spaces, notes, &mut to_close)?;
    }
    // What was attached inside of them is by now.
    for (path, below) in to_close {
        let (place, _) = find(&path).map_err(refused(&path))?;
        let what = format!("cannot make {} read-only", path.display());
        sys::limit_mount(place, below, false).map_err(failed(Stage::Mounts, &what))?;
    }
    Ok(())
}

/// What else is said about the surroundings of a place.
struct Around<'r> {
    /// The rule of what it is in.
    outside: Option<&'r Rule>,
    /// Whether the worker gets to something through it.
    is_passed_through: bool,
}

fn is_passed_through(rules: &[Rule], rule: &Rule) -> bool {
    let is_below = |other: &&Rule| other.path != rule.path && other.path.starts_with(&rule.path);
    let mut below = rules.iter().filter(is_below);
    below.any(|other| matches!(other.view, View::Writable | View::ReadOnly))
}

/// Whether what is at the place now is not to be seen at it later, unless it is kept.
fn needs_copy(rule: &Rule, outside: Option<&Rule>) -> bool {
    let Some(outside) = outside else {
        return false;
    };
    let is_covered = matches!(
        outside.view,
        View::Hidden | View::Empty | View::Own | View::Devices
    );
    match rule.view {
        View::Writable => is_covered || outside.view == View::ReadOnly,
        View::ReadOnly => is_covered,
        View::Empty | View::Hidden | View::Own | View::Devices | View::Processes(_) => false,
    }
}

fn find(path: &Path) -> Result<(OwnedFd, FileStat), Refused> {
    walk::handle_on(path)
}

fn refused(path: &Path) -> impl Fn(Refused) -> crate::stage::LaunchFailure + '_ {
    move |refused| {
        failure(
            Stage::Mounts,
            refused.errno,
            format!("cannot find {}: {refused}", path.display()),
        )
    }
}

/// The mounts at the place; none if it is missing and may be.
fn copy_of(rule: &Rule) -> Outcome<Option<(OwnedFd, bool)>> {
    let path = &rule.path;
    let (place, file) = match find(path) {
        Ok(found) => found,
        Err(why) if rule.optional && is_missing(why.errno) => return Ok(None),
        Err(why) => return Err(missing(rule, &why)),
    };
    let what = format!("cannot copy the mount of {}", path.display());
    let copy = sys::copy_of_mounts(place).map_err(failed(Stage::Mounts, &what))?;
    Ok(Some((copy, is_folder(&file))))
}

fn missing(rule: &Rule, why: &Refused) -> crate::stage::LaunchFailure {
    let (key, path) = (&rule.key, rule.path.display());
    let hint = match is_missing(why.errno) {
        true => format!("; create it, or write `-{path}` if it may be missing"),
        false => String::new(),
    };
    failure(
        Stage::Mounts,
        why.errno,
        format!("`{key}`: {path}: {why}{hint}"),
    )
}

fn is_missing(errno: Errno) -> bool {
    // Without permission there is nothing to be protected from its user.
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)
}

fn is_folder(file: &FileStat) -> bool {
    file.st_mode & libc::S_IFMT == libc::S_IFDIR
}

fn step(
    rule: &Rule,
    &Around {
        outside,
        is_passed_through,
    }: &Around<'_>,
    copy: Option<(OwnedFd, bool)>,
    spaces: &Spaces,
    notes: &mut Notes,
    to_close: &mut Vec<(PathBuf, MountLimit)>,
) -> Outcome {
    let path = &rule.path;
    if path == Path::new("/") {
        return match rule.view {
            View::ReadOnly => {
                let (root, _) = find(path).map_err(refused(path))?;
                let what = "cannot make / read-only";
                let done = sys::limit_mount(root, MountLimit::ReadOnly, true);
                done.map_err(failed(Stage::Mounts, what))
            }
            _ => Ok(()),
        };
    }
    if let Some((copy, is_folder)) = copy {
        if rule.view == View::ReadOnly {
            let what = format!("cannot make {} read-only", path.display());
            let done = sys::limit_mount(&copy, MountLimit::ReadOnly, true);
            done.map_err(failed(Stage::Mounts, &what))?;
        }
        return attach(&copy, path, is_folder);
    }
    if rule.view == View::Writable || outside.is_some_and(|outside| outside.view == rule.view) {
        return Ok(());
    }
    let (place, file) = match find(path) {
        Ok(found) => found,
        Err(why) if rule.optional && is_missing(why.errno) => return Ok(()),
        // What is around it hides it as well.
        Err(why) if rule.view == View::Hidden && is_missing(why.errno) && outside.is_some() => {
            return Ok(());
        }
        Err(why) => return Err(missing(rule, &why)),
    };
    match rule.view {
        View::Writable => Ok(()),
        View::ReadOnly => {
            let what = format!("cannot make {} read-only", path.display());
            let failed = failed(Stage::Mounts, &what);
            let copy = sys::copy_of_mounts(&place).map_err(&failed)?;
            sys::limit_mount(&copy, MountLimit::ReadOnly, true).map_err(&failed)?;
            sys::attach_mount(&copy, &place).map_err(failed)
        }
        View::Hidden if !is_folder(&file) => hide_file(&place, path),
        View::Hidden => {
            // Programs may be in there.
            to_close.push((path.clone(), MountLimit::ReadOnly));
            let mode = if is_passed_through {
                "mode=0711"
            } else {
                "mode=0000"
            };
            memory(&place, path, mode)
        }
        View::Empty => {
            to_close.push((path.clone(), MountLimit::ReadOnly));
            memory(&place, path, "mode=0755")
        }
        View::Own => memory(&place, path, "mode=1777"),
        View::Devices => {
            to_close.push((path.clone(), MountLimit::ReadOnly));
            devices(&place, path)
        }
        View::Processes(number) => processes(&place, number, spaces, notes),
    }
}

fn at(place: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
}

/// A memory file system.
fn memory(place: &OwnedFd, path: &Path, mode: &str) -> Outcome {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("{mode},{SIZE}");
    let what = format!("cannot mount a tmpfs on {}", path.display());
    mount(
        Some("tmpfs"),
        at(place).as_str(),
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )
    .map_err(failed(Stage::Mounts, &what))
}

/// Nobody can open a device on a mount that has none.
fn hide_file(place: &OwnedFd, path: &Path) -> Outcome {
    let what = format!("cannot hide {}", path.display());
    let failed_with = failed(Stage::Mounts, &what);
    let null = Path::new("/dev/null");
    let (null, _) = find(null).map_err(refused(null))?;
    let copy = sys::copy_of_mounts(null).map_err(&failed_with)?;
    sys::limit_mount(&copy, MountLimit::Dead, false).map_err(&failed_with)?;
    sys::attach_mount(&copy, place).map_err(failed_with)
}

/// Puts a copy back where it was; what leads there is created in what is new.
fn attach(copy: &OwnedFd, path: &Path, is_folder: bool) -> Outcome {
    let what = format!("cannot mount {}", path.display());
    let place = match find(path) {
        Ok((place, _)) => place,
        Err(why) if why.errno == Errno::ENOENT => {
            make_place(path, is_folder).map_err(failed(Stage::Mounts, &what))?;
            find(path).map_err(refused(path))?.0
        }
        Err(why) => return Err(refused(path)(why)),
    };
    sys::attach_mount(copy, &place).map_err(failed(Stage::Mounts, &what))
}

/// In a memory file system of this process: nobody else is there.
fn make_place(path: &Path, is_folder: bool) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match is_folder {
        true => fs::create_dir(path),
        false => fs::File::create(path).map(drop),
    }
}

/// /dev with what every program may use.
fn devices(place: &OwnedFd, path: &Path) -> Outcome {
    let names = DEVICES.iter().chain(DEVICE_FOLDERS);
    let mut kept = Vec::new();
    for name in names {
        let Ok((place, file)) = find(&path.join(name)) else {
            continue;
        };
        let what = format!("cannot copy the mount of {}", path.join(name).display());
        let copy = sys::copy_of_mounts(place).map_err(failed(Stage::Mounts, &what))?;
        kept.push((name, copy, is_folder(&file)));
    }
    // Where programs log to is a socket or a link to one.
    let log = walk::handle_on(&path.join("log")).ok();
    let log = log.and_then(|(place, _)| sys::copy_of_mounts(place).ok());
    let what = "cannot make /dev".to_owned();
    // Unlike other memory it has devices, if only those that are mounted there.
    let flags = MsFlags::MS_NOSUID;
    mount(
        Some("tmpfs"),
        at(place).as_str(),
        Some("tmpfs"),
        flags,
        Some("mode=0755,size=1M"),
    )
    .map_err(failed(Stage::Mounts, &what))?;
    for (name, copy, is_folder) in kept {
        attach(&copy, &path.join(name), is_folder)?;
    }
    if let Some(log) = log {
        attach(&log, &path.join("log"), false)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, path.join(name)).map_err(failed(Stage::Mounts, &what))?;
    }
    let shared = path.join("shm");
    fs::create_dir(&shared).map_err(failed(Stage::Mounts, &what))?;
    let (place, _) = find(&shared).map_err(refused(&shared))?;
    memory(&place, &shared, "mode=1777")
}

/// A proc of its own, which shows fewer processes.
fn processes(place: &OwnedFd, number: u8, spaces: &Spaces, notes: &mut Notes) -> Outcome {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("hidepid={number}");
    let mounted = mount(
        Some("proc"),
        at(place).as_str(),
        Some("proc"),
        flags,
        Some(options.as_str()),
    );
    match mounted {
        Ok(()) => Ok(()),
        // In a user namespace there are no processes of other users that it could look into, and landlock keeps
        // those of its own user from it.
        Err(_) if spaces.is_own_user && sys::landlock_version() > 0 => {
            notes.instead(
                "`protect_proc`: no proc can be mounted; landlock keeps other processes from it",
            );
            Ok(())
        }
        Err(errno) => {
            let why = format!("cannot mount proc: {errno:?}");
            notes.missing(Stage::Mounts, "protect_proc", errno, &why)
        }
    }
}
