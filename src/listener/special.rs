//! FIFOs (fifo(7)) and special files.
//!
//! A FIFO is born without any rights and gets owner and mode through a handle, never by name, so
//! that there is no moment in which it has more than was asked for. Nothing is opened before it is
//! known what it is: to open a device may do something already.

use super::bind_error::{BindStep, Failure, Obstacle, Purpose};
use super::identity::{PathIdentity, remove_if, remove_ours};
use super::option::{Act, Options};
use super::paths::{TriedAt, create_parents, reach, try_create, try_replace};
use super::ready::Ready;
use super::unix_path::{give_rights, not_a_socket};
use crate::config::Endpoint;
use crate::config::options::Phase;
use crate::plan::{Access, ListenerPlan};
use crate::walk;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::statfs::{
    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC,
    TRACEFS_MAGIC, fstatfs,
};
use nix::unistd::{AccessFlags, eaccess, geteuid, mkfifoat};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The result of opening a FIFO.
#[derive(Debug)]
pub(super) enum Opened {
    Ready(Ready),
    /// The FIFO exists or would be created here; it was only tried.
    Tried(TriedAt),
}

/// Makes a FIFO, or takes the one that is there if it is as the listener asks for. Open for reading
/// and writing, so that there is always a writer and a reader never sees the end (fifo(7)).
///
/// If it was only to be tried, nothing is made or opened: that would wake a process that waits in open(2) for
/// the other side.
pub(super) fn fifo(
    endpoint: &Endpoint,
    path: &Path,
    listener: &ListenerPlan,
    purpose: Purpose,
    folders: &mut Vec<PathBuf>,
) -> Result<Opened, Failure> {
    let failed = |errno| Failure::new(BindStep::Open, errno).about(path);
    let access = &listener.settings.access;
    let (place, missing) = reach(path)?;
    let found = match missing.as_slice() {
        [] => place.handle(),
        _ => Err(Errno::ENOENT),
    };
    let (place, origin) = match found {
        Ok((handle, file)) => {
            if purpose == Purpose::Try {
                fits(path, &file, access)?;
                let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
                let rights = AccessFlags::R_OK | AccessFlags::W_OK;
                eaccess(link.as_str(), rights).map_err(failed)?;
                return Ok(Opened::Tried(try_replace(path, &place, &file)?));
            }
            let origin = origin(path, &handle, &file, access)?;
            (place, origin)
        }
        Err(Errno::ENOENT) if purpose == Purpose::Try => {
            return Ok(Opened::Tried(try_create(path, access)?));
        }
        Err(Errno::ENOENT) => {
            let place = create_parents(path, access, folders)?;
            mkfifoat(place.folder(), place.name(), Mode::S_ISVTX).map_err(failed)?;
            (place, Origin::New)
        }
        Err(errno) => {
            let folder = path.parent().unwrap_or(path);
            return Err(Failure::new(BindStep::CreateFolder, errno).about(folder));
        }
    };
    let opened = place.handle();
    if origin == Origin::New && opened.is_err() {
        // No descriptor is left. Nobody else makes one with this mark.
        let _removed = remove_if(&place, |file| born_here(path, file).is_ok());
    }
    let (handle, file) = opened.map_err(failed)?;
    if origin == Origin::New {
        born_here(path, &file)?;
    } else {
        fits(path, &file, access)?;
    }
    let identity = PathIdentity::of(&file);
    match open_fifo(endpoint, path, listener, (&handle, &file), origin) {
        Ok(ready) => Ok(Opened::Ready(Ready {
            identity: Some(identity),
            created: origin != Origin::Foreign,
            ..ready
        })),
        Err(failure) => {
            if origin != Origin::Foreign {
                let _ = remove_ours(&place, identity);
            }
            Err(failure)
        }
    }
}

/// The origin of a FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Made just now, or by a listend that was killed before it could give it its rights.
    New,
    /// Left behind by a listend that was killed: it is removed in the end, as if it were new.
    LeftBehind,
    /// Created by another program: the FIFO stays.
    Foreign,
}

/// The sticky bit means nothing for a FIFO (inode(7)), and nobody else sets it: it marks what listend
/// has made, also after kill -9.
const MARK: libc::mode_t = libc::S_ISVTX;

/// The mode that a FIFO of this listener's has.
pub(super) fn marked(mode: u32) -> u32 {
    mode | 0o1000
}

fn origin(
    path: &Path,
    handle: &OwnedFd,
    found: &FileStat,
    access: &Access,
) -> Result<Origin, Failure> {
    if is_half_made(found) {
        return Ok(Origin::New);
    }
    fits(path, found, access)?;
    if found.st_mode & MARK == 0 || access.mode & 0o1000 != 0 {
        return Ok(Origin::Foreign);
    }
    // fifo(7): to open it for writing fails where nobody has it open for reading.
    Ok(
        match walk::reopen(handle, OFlag::O_WRONLY | OFlag::O_NONBLOCK) {
            Err(Errno::ENXIO) => Origin::LeftBehind,
            _ => Origin::Foreign,
        },
    )
}

/// Rights, if it is new; then the descriptor itself.
fn open_fifo(
    endpoint: &Endpoint,
    path: &Path,
    listener: &ListenerPlan,
    (handle, file): (&OwnedFd, &FileStat),
    origin: Origin,
) -> Result<Ready, Failure> {
    if origin == Origin::New {
        let access = Access {
            mode: marked(listener.settings.access.mode),
            ..listener.settings.access
        };
        give_rights(path, &access, handle, file)?;
    }
    let fd = reopen(handle, path, OFlag::O_RDWR)?;
    let mut effective = Vec::new();
    Options::new(&listener.settings.options, endpoint).apply(
        fd.as_fd(),
        Phase::AtOpen,
        Act::Set,
        &mut effective,
    )?;
    Ok(Ready::new(fd, endpoint, effective))
}

fn is_a(file: &FileStat, format: SFlag) -> bool {
    file.st_mode & SFlag::S_IFMT.bits() == format.bits()
}

/// Whether what is there may be used as it is: a FIFO with the owner, group and mode that one made
/// now would have. Nothing is repaired, because others may have it open already.
fn fits(path: &Path, found: &FileStat, access: &Access) -> Result<(), Failure> {
    let taken = |words| {
        Failure::new(BindStep::Open, Errno::EEXIST)
            .about(path)
            .because(Obstacle::NotASocket(words))
    };
    if !is_a(found, SFlag::S_IFIFO) {
        return Err(taken(not_a_socket(found).unwrap_or("a socket")));
    }
    if is_half_made(found) {
        return Ok(());
    }
    let owner = access.owner.unwrap_or(geteuid().as_raw());
    let group = access.group.unwrap_or(found.st_gid);
    let mode = access.mode as libc::mode_t & 0o7777 | MARK;
    if (found.st_uid, found.st_gid, found.st_mode & 0o7777 | MARK) != (owner, group, mode) {
        return Err(taken("a fifo with another owner or mode"));
    }
    Ok(())
}

/// Refuses a file that is not exactly the FIFO just created, one of ours without rights: users who may
/// write to the folder could have exchanged it, and it is to get another owner.
fn born_here(path: &Path, file: &FileStat) -> Result<(), Failure> {
    if is_half_made(file) {
        return Ok(());
    }
    Err(Failure::new(BindStep::Open, Errno::EEXIST)
        .about(path)
        .because(Obstacle::Interference))
}

fn is_half_made(file: &FileStat) -> bool {
    is_a(file, SFlag::S_IFIFO)
        && file.st_uid == geteuid().as_raw()
        && file.st_nlink == 1
        && file.st_mode & 0o7777 == MARK
}

/// Opens a device, or a file that is none but the kernel's: those of /proc, /sys and their kin.
/// Never creates anything.
///
/// `None` if it was only to be tried: a watchdog, say, starts to run when it is opened.
pub(super) fn special(
    endpoint: &Endpoint,
    (path, writable): (&Path, bool),
    purpose: Purpose,
) -> Result<Option<Ready>, Failure> {
    let failed = |errno| Failure::new(BindStep::Open, errno).about(path);
    let (handle, file) =
        walk::find(path).map_err(|refused| Failure::on_the_way(BindStep::Open, refused))?;
    let is_special = is_a(&file, SFlag::S_IFCHR)
        || (is_a(&file, SFlag::S_IFREG) && is_the_kernels(&handle).map_err(failed)?);
    if !is_special {
        let words = not_a_socket(&file).unwrap_or("a socket");
        return Err(failed(Errno::EEXIST).because(Obstacle::NotASocket(words)));
    }
    let (mode, rights) = if writable {
        (OFlag::O_RDWR, AccessFlags::R_OK | AccessFlags::W_OK)
    } else {
        (OFlag::O_RDONLY, AccessFlags::R_OK)
    };
    if purpose == Purpose::Try {
        eaccess(path, rights).map_err(failed)?;
        return Ok(None);
    }
    let fd = reopen(&handle, path, mode)?;
    Ok(Some(Ready::new(fd, endpoint, Vec::new())))
}

/// Whether the file is in a file system without a disk, whose files are calls into the kernel.
fn is_the_kernels(handle: &OwnedFd) -> nix::Result<bool> {
    let kind = fstatfs(handle)?.filesystem_type();
    Ok([
        PROC_SUPER_MAGIC,
        SYSFS_MAGIC,
        DEBUGFS_MAGIC,
        TRACEFS_MAGIC,
        CGROUP_SUPER_MAGIC,
        CGROUP2_SUPER_MAGIC,
    ]
    .contains(&kind))
}

/// Opens the very file that the handle is for.
fn reopen(handle: &OwnedFd, path: &Path, mode: OFlag) -> Result<OwnedFd, Failure> {
    walk::reopen(handle, mode | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .map_err(|errno| Failure::new(BindStep::Open, errno).about(path))
}
