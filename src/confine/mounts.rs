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
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{FileStat, Mode, fstat, mkdirat};
use nix::unistd::symlinkat;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Memory file systems of a worker have at most this part of the memory.
const SIZE: &str = "size=10%";
/// The flags of a descriptor that only says where.
const PLACE: OFlag = OFlag::O_PATH
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Carries the rules out, in their order.
pub(super) fn carry_out(rules: &[Rule], spaces: &Spaces, notes: &mut Notes) -> Outcome {
    let mut steps = Vec::with_capacity(rules.len());
    for rule in rules {
        let outside = around(rules, rule);
        let copy = match needs_copy(rule, outside) {
            true => copy_of(rule, outside)?,
            false => None,
        };
        steps.push((rule, outside, copy));
    }
    let mut work = Work {
        spaces,
        notes,
        to_close: Vec::new(),
        closed: None,
        null: None,
    };
    for (rule, outside, copy) in steps {
        work.step(rule, &Around { outside, rules }, copy)?;
    }
    // What was attached inside of them is by now.
    for (path, below) in work.to_close {
        let (place, _) = find(&path).map_err(refused(&path))?;
        let what = format!("cannot make {} read-only", path.display());
        sys::limit_mount(place, below, false).map_err(failed(Stage::Mounts, &what))?;
    }
    Ok(())
}

/// What the steps need and leave.
struct Work<'w> {
    spaces: &'w Spaces,
    notes: &'w mut Notes,
    /// What is to be read-only in the end.
    to_close: Vec<(PathBuf, MountLimit)>,
    /// A folder that nobody can enter. One is mounted wherever one is needed: to make a file system takes longer.
    closed: Option<OwnedFd>,
    /// A device that nobody can open, likewise.
    null: Option<OwnedFd>,
}

/// What else is said about the surroundings of a place.
struct Around<'r> {
    /// The rule of what it is in.
    outside: Option<&'r Rule>,
    /// All rules.
    rules: &'r [Rule],
}

impl Around<'_> {
    /// Whether the worker gets to something through the place of a rule.
    fn is_passed_through(&self, rule: &Rule) -> bool {
        let is_below =
            |other: &&Rule| other.path != rule.path && other.path.starts_with(&rule.path);
        let mut below = self.rules.iter().filter(is_below);
        below.any(|other| matches!(other.view, View::Writable | View::ReadOnly))
    }
}

/// Whether what is at the place now is not to be seen at it later, unless it is kept.
fn needs_copy(rule: &Rule, outside: Option<&Rule>) -> bool {
    let Some(outside) = outside else {
        return false;
    };
    let is_covered = outside.view.hides();
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

/// The mounts at the place; none if it is missing and may be, or is a socket that the worker gets at anyway. That it is
/// read-only is no matter to who sends to it (unix(7)), and listend may have to make it anew.
fn copy_of(rule: &Rule, outside: Option<&Rule>) -> Outcome<Option<(OwnedFd, bool)>> {
    let path = &rule.path;
    let (place, file) = match find(path) {
        Ok(found) => found,
        Err(why) if rule.optional && is_missing(why.errno) => return Ok(None),
        Err(why) => return Err(missing(rule, &why)),
    };
    let is_socket = file.st_mode & libc::S_IFMT == libc::S_IFSOCK;
    if is_socket && outside.is_some_and(|outside| outside.view == View::ReadOnly) {
        return Ok(None);
    }
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

impl Work<'_> {
    fn step(&mut self, rule: &Rule, around: &Around<'_>, copy: Option<(OwnedFd, bool)>) -> Outcome {
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
        let outside = around.outside;
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
        let read_only = MsFlags::MS_RDONLY;
        match rule.view {
            View::Writable => Ok(()),
            View::ReadOnly => {
                let what = format!("cannot make {} read-only", path.display());
                let failed = failed(Stage::Mounts, &what);
                let copy = sys::copy_of_mounts(&place).map_err(&failed)?;
                sys::limit_mount(&copy, MountLimit::ReadOnly, true).map_err(&failed)?;
                sys::attach_mount(&copy, &place).map_err(failed)
            }
            // Nothing can be mounted on a file that has been removed: systemd-nspawn(1) puts one over /proc/kmsg.
            View::Hidden if file.st_nlink == 0 && rule.optional => Ok(()),
            View::Hidden if !is_folder(&file) => self.hide_file(&place, path),
            // Programs may be in there.
            View::Hidden if around.is_passed_through(rule) => {
                self.to_close.push((path.clone(), MountLimit::ReadOnly));
                memory(&place, path, 0o711, MsFlags::empty())
            }
            View::Hidden => self.hide_folder(&place, path),
            View::Empty if around.is_passed_through(rule) => {
                self.to_close.push((path.clone(), MountLimit::ReadOnly));
                memory(&place, path, file.st_mode & 0o755, MsFlags::empty())
            }
            View::Empty => memory(&place, path, file.st_mode & 0o755, read_only),
            View::Own => memory(&place, path, 0o1777, MsFlags::empty()),
            View::Devices => {
                self.to_close.push((path.clone(), MountLimit::ReadOnly));
                devices(&place, path)
            }
            View::Processes(number) => processes(&place, number, self.spaces, self.notes),
        }
    }

    fn hide_folder(&mut self, place: &OwnedFd, path: &Path) -> Outcome {
        let Some(closed) = &self.closed else {
            memory(place, path, 0, MsFlags::MS_RDONLY)?;
            self.closed = Some(find(path).map_err(refused(path))?.0);
            return Ok(());
        };
        let what = format!("cannot hide {}", path.display());
        let copy = sys::copy_of_mounts(closed).map_err(failed(Stage::Mounts, &what))?;
        sys::attach_mount(&copy, place).map_err(failed(Stage::Mounts, &what))
    }

    /// Nobody can open a device on a mount that has none.
    fn hide_file(&mut self, place: &OwnedFd, path: &Path) -> Outcome {
        let what = format!("cannot hide {}", path.display());
        let failed_with = failed(Stage::Mounts, &what);
        if self.null.is_none() {
            let null = Path::new("/dev/null");
            self.null = Some(find(null).map_err(refused(null))?.0);
        }
        let Some(null) = &self.null else {
            return Ok(());
        };
        let copy = sys::copy_of_mounts(null).map_err(&failed_with)?;
        sys::limit_mount(&copy, MountLimit::Dead, false).map_err(&failed_with)?;
        sys::attach_mount(&copy, place).map_err(failed_with)
    }
}

fn at(place: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
}

/// A memory file system.
fn memory(place: &OwnedFd, path: &Path, mode: u32, also: MsFlags) -> Outcome {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | also;
    let options = format!("mode={mode:04o},{SIZE}");
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
        let Some((place, file)) = device(place, path, name) else {
            continue;
        };
        let what = format!("cannot copy the mount of {}", path.join(name).display());
        let copy = sys::copy_of_mounts(place).map_err(failed(Stage::Mounts, &what))?;
        kept.push((*name, copy, is_folder(&file)));
    }
    // Where programs log to is a socket or a link to one.
    let log = walk::handle_on(&path.join("log")).ok();
    let log = log.and_then(|(place, _)| sys::copy_of_mounts(place).ok());
    let kept = kept.into_iter();
    let log = log.map(|log| ("log", log, false));
    fill(place, path, kept.chain(log)).map_err(failed(Stage::Mounts, "cannot make /dev"))?;
    let shared = path.join("shm");
    let (place, _) = find(&shared).map_err(refused(&shared))?;
    memory(&place, &shared, 0o1777, MsFlags::empty())
}

/// Makes another /dev, of what is kept.
fn fill<'n>(
    place: &OwnedFd,
    path: &Path,
    kept: impl Iterator<Item = (&'n str, OwnedFd, bool)>,
) -> io::Result<()> {
    // Unlike other memory it has devices, if only those that are mounted there.
    let flags = MsFlags::MS_NOSUID;
    mount(
        Some("tmpfs"),
        at(place).as_str(),
        Some("tmpfs"),
        flags,
        Some("mode=0755,size=1M"),
    )?;
    let (new, _) = find(path).map_err(|refused| refused.errno)?;
    for (name, copy, is_folder) in kept {
        sys::attach_mount(copy, make_in(&new, name, is_folder)?)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlinkat(target, &new, name)?;
    }
    make_in(&new, "shm", true).map(drop)?;
    Ok(())
}

/// A device or folder of /dev. A link is followed as any other, by its path.
fn device(folder: &OwnedFd, path: &Path, name: &str) -> Option<(OwnedFd, FileStat)> {
    let place = openat(folder, name, PLACE, Mode::empty()).ok()?;
    let file = fstat(&place).ok()?;
    match file.st_mode & libc::S_IFMT {
        libc::S_IFLNK => find(&path.join(name)).ok(),
        _ => Some((place, file)),
    }
}

/// A place for a mount, in a memory file system of this process.
fn make_in(folder: &OwnedFd, name: &str, is_folder: bool) -> nix::Result<OwnedFd> {
    if is_folder {
        mkdirat(folder, name, Mode::from_bits_truncate(0o755))?;
        return openat(folder, name, PLACE, Mode::empty());
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    openat(folder, name, flags, Mode::from_bits_truncate(0o644))
}

/// A proc of its own, which shows fewer processes.
fn processes(place: &OwnedFd, number: u8, spaces: &Spaces, notes: &mut Notes) -> Outcome {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("hidepid={number}");
    // Whoever made the machine, or the unit of listend, has restricted some of it by mounts.
    let on_it =
        mounts_on_proc().map_err(failed(Stage::Mounts, "cannot copy the mounts on /proc"))?;
    let mounted = mount(
        Some("proc"),
        at(place).as_str(),
        Some("proc"),
        flags,
        Some(options.as_str()),
    );
    match mounted {
        Ok(()) => {
            for (path, copy) in on_it {
                let what = format!("cannot mount {}", path.display());
                let failed = failed(Stage::Mounts, &what);
                match openat(AT_FDCWD, &path, PLACE, Mode::empty()) {
                    // A setting that only the network of before has.
                    Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(failed(errno.into())),
                    Ok(place) => match sys::attach_mount(copy, place) {
                        // A file that has been removed, as that of systemd-nspawn(1) on /proc/kmsg: it is mounted nowhere
                        // again.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        done => done.map_err(failed)?,
                    },
                }
            }
            Ok(())
        }
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

/// Copies of what is mounted on /proc. It is the kernel's: nobody can have made a link there.
fn mounts_on_proc() -> io::Result<Vec<(PathBuf, OwnedFd)>> {
    let mut copies: Vec<(PathBuf, OwnedFd)> = Vec::new();
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        // The place is the fifth word, the kind the first behind a dash (proc_pid_mountinfo(5)).
        let place = line
            .split(' ')
            .nth(4)
            .filter(|place| place.starts_with("/proc/"));
        let Some(path) = place.map(PathBuf::from) else {
            continue;
        };
        let is_within = copies.iter().any(|(outer, _)| path.starts_with(outer));
        // Something that is only mounted when it is used is not to be used by this.
        if is_within || line.contains(" - autofs ") {
            continue;
        }
        match openat(AT_FDCWD, &path, PLACE, Mode::empty()) {
            Ok(place) => copies.push((path, sys::copy_of_mounts(place)?)),
            Err(Errno::ENOENT | Errno::EACCES) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(copies)
}
