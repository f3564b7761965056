//! Access control lists (acl(5)).

use nix::libc;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd};

/// Whether more users than the mode names may have rights on what is open here, which may be a handle
/// (O_PATH) on it. Also where that cannot be told.
pub fn may_have_acl(fd: impl AsFd) -> bool {
    // fgetxattr(2) does not take a handle.
    let Ok(path) = CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())) else {
        return true;
    };
    let name = c"system.posix_acl_access";
    // SAFETY: both are strings that end with a zero and outlive the call, which stores nothing where
    // the size is zero.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    let errno = nix::errno::Errno::last_raw();
    size != -1 || !matches!(errno, libc::ENODATA | libc::EOPNOTSUPP)
}
