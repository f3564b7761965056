//! Socket options by number, whatever their number is.
//!
//! For options whose value is plain data. The buffers that getsockopt(2) is given are zeroed, so that
//! an option that reads addresses out of them finds none.

use nix::libc::{self, c_int, c_void, socklen_t};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The longest text that an option here has: an interface's name (IFNAMSIZ) or that of a congestion
/// control (TCP_CA_NAME_MAX), both 16 bytes with their NUL; and some more.
const LONGEST: usize = 64;

/// setsockopt(2) with an int.
///
/// # Errors
///
/// The errors of setsockopt(2).
pub fn set_int(socket: impl AsFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    set_bytes(socket, level, name, &value.to_ne_bytes())
}

/// getsockopt(2) of an int.
///
/// # Errors
///
/// The errors of getsockopt(2).
pub fn get_int(socket: impl AsFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut bytes = [0; size_of::<c_int>()];
    get(socket, level, name, &mut bytes)?;
    Ok(c_int::from_ne_bytes(bytes))
}

/// getsockopt(2) of a 64-bit number. Some options take a buffer of exactly that size.
///
/// # Errors
///
/// The errors of getsockopt(2).
pub fn get_u64(socket: impl AsFd, level: c_int, name: c_int) -> io::Result<u64> {
    let mut bytes = [0; size_of::<u64>()];
    get(socket, level, name, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// setsockopt(2) with bytes, such as those of a name.
///
/// # Errors
///
/// The errors of setsockopt(2).
pub fn set_bytes(socket: impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length =
        socklen_t::try_from(value.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the descriptor is borrowed and open; the kernel reads `length` bytes, which are there.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast::<c_void>(),
            length,
        )
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// getsockopt(2) of bytes, as many as there are.
///
/// # Errors
///
/// The errors of getsockopt(2).
pub fn get_bytes(socket: impl AsFd, level: c_int, name: c_int) -> io::Result<Vec<u8>> {
    let mut bytes = [0; LONGEST];
    let length = get(socket, level, name, &mut bytes)?;
    Ok(bytes[..length].to_vec())
}

fn get(socket: impl AsFd, level: c_int, name: c_int, into: &mut [u8]) -> io::Result<usize> {
    // All callers have a few bytes.
    let mut length = into.len() as socklen_t;
    // SAFETY: the descriptor is borrowed and open; the kernel writes at most `length` bytes, which
    // is what `into` has, and then says in `length` how many.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            into.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(into.len().min(length as usize))
}
