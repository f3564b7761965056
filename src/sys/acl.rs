//! Access control lists (acl(5)), and other extended attributes.

use nix::libc;
use std::ffi::{CStr, CString};
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

/// The value of an extended attribute (xattr(7)).
///
/// # Errors
///
/// As getxattr(2): ENODATA if there is none, or it is not shown.
pub fn extended_attribute(fd: impl AsFd, name: &CStr) -> nix::Result<Vec<u8>> {
    const LONGEST: usize = 256;
    let mut value = vec![0_u8; LONGEST];
    // SAFETY: the name ends with a zero, the buffer is valid for its length, and both outlive the call.
    let size = unsafe {
        let fd = fd.as_fd().as_raw_fd();
        libc::fgetxattr(fd, name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let size = usize::try_from(size).map_err(|_| nix::errno::Errno::last())?;
    value.truncate(size);
    Ok(value)
}
