//! Mounts by descriptors (Linux 5.2 and 5.12), which nothing else wraps: no path is looked up twice.

use nix::libc::{self, c_char, c_int, c_uint};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const EMPTY: *const c_char = c"".as_ptr();
const OPEN_TREE_CLONE: c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// What a mount is restricted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountLimit {
    /// Read-only.
    ReadOnly,
    /// Read-only, without devices and without programs.
    Dead,
}

impl MountLimit {
    fn bits(self) -> u64 {
        match self {
            MountLimit::ReadOnly => MOUNT_ATTR_RDONLY,
            MountLimit::Dead => {
                MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
            }
        }
    }
}

/// A copy of what is mounted at and below an open place, attached nowhere (open_tree(2)).
///
/// # Errors
///
/// EPERM without CAP_SYS_ADMIN; ENOSYS before Linux 5.2.
pub fn copy_of_mounts(place: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE
        | libc::O_CLOEXEC as c_uint
        | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as c_uint;
    // SAFETY: the path is a constant, and a new descriptor is nobody else's.
    unsafe {
        let place = place.as_fd().as_raw_fd();
        let new = libc::syscall(libc::SYS_open_tree, place, EMPTY, flags);
        if new == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(new as c_int))
    }
}

/// Attaches a copy at an open place (move_mount(2)).
///
/// # Errors
///
/// The errors of the call.
pub fn attach_mount(copy: impl AsFd, place: impl AsFd) -> io::Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both descriptors are borrowed and open, the paths are constants.
    let done = unsafe {
        let (copy, place) = (copy.as_fd().as_raw_fd(), place.as_fd().as_raw_fd());
        libc::syscall(libc::SYS_move_mount, copy, EMPTY, place, EMPTY, flags)
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Restricts the mount that is open here, and with `below` those that are on it (mount_setattr(2)).
///
/// # Errors
///
/// ENOSYS before Linux 5.12; EINVAL for what is no mount.
pub fn limit_mount(mount: impl AsFd, limit: MountLimit, below: bool) -> io::Result<()> {
    let attr = MountAttr {
        set: limit.bits(),
        clear: 0,
        propagation: 0,
        userns: 0,
    };
    let recursive = if below { libc::AT_RECURSIVE } else { 0 };
    let flags = (libc::AT_EMPTY_PATH | recursive) as c_uint;
    // SAFETY: the structure has the layout of its size, and outlives the call.
    let done = unsafe {
        let mount = mount.as_fd().as_raw_fd();
        let size = size_of::<MountAttr>();
        let attr = &raw const attr;
        libc::syscall(libc::SYS_mount_setattr, mount, EMPTY, flags, attr, size)
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Switches the loopback interface of the network namespace on, which is new (netdevice(7)).
///
/// # Errors
///
/// The errors of the calls.
pub fn switch_loopback_on() -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
    // SAFETY: an ifreq of zeroes is a valid one; the kernel reads the name and the flags of it, and the name
    // ends within it.
    let done = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, byte) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *byte as c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        // The type differs between C libraries.
        let change = libc::SIOCSIFFLAGS as libc::Ioctl;
        libc::ioctl(socket.as_raw_fd(), change, &raw const request)
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Joins a new session keyring, which is empty (keyctl(2)). Where there is no room for another, the one of
/// before stays.
pub fn join_new_session_keyring() {
    let join = libc::KEYCTL_JOIN_SESSION_KEYRING;
    // SAFETY: without a name, which is a null pointer, no memory is read.
    let _joined = unsafe { libc::syscall(libc::SYS_keyctl, join, std::ptr::null::<c_char>()) };
}

/// The version of landlock that the kernel has (landlock(7)); 0 is none.
pub fn landlock_version() -> i32 {
    const VERSION: c_uint = 1;
    // SAFETY: with this flag the kernel reads no memory, and makes nothing.
    let version = unsafe {
        let none = std::ptr::null::<u8>();
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION)
    };
    i32::try_from(version).unwrap_or(0).max(0)
}
