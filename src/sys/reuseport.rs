//! The program by which the kernel chooses among sockets that share an address (SO_REUSEPORT, socket(7)).

use nix::libc::{self, sock_filter};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Attaches a classic BPF program to the group that a socket is in, in place of one that is there.
///
/// # Errors
///
/// The errors of setsockopt(2): EINVAL where the socket is in no group or the program is none.
pub fn attach_to_group(socket: impl AsFd, program: &mut [sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len());
    let program = libc::sock_fprog {
        len: length.map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the descriptor is borrowed and open; the kernel reads a `sock_fprog`, which is one, and through
    // it `len` instructions, which the slice has; it copies them and writes nothing.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
