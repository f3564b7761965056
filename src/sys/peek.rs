//! What lies in a descriptor to be read, without reading it.

use nix::libc::{self, c_int, socklen_t};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The first message in a socket, as it was peeked at.
#[derive(Debug, Clone)]
pub struct Message {
    /// How long it is, however much of it there was room for.
    pub length: usize,
    /// Its sender's address, as the kernel has it; empty for who has none.
    pub sender: Vec<u8>,
}

/// Copies the beginning of the first message, which stays in the queue. Never waits.
///
/// # Errors
///
/// Those of recvfrom(2); `WouldBlock` when there is none.
pub fn peek_message(socket: impl AsFd, into: &mut [u8]) -> io::Result<Message> {
    const LONGEST_ADDRESS: usize = size_of::<libc::sockaddr_storage>();
    let mut address = [0_u64; LONGEST_ADDRESS / 8];
    let mut address_length = LONGEST_ADDRESS as socklen_t;
    // SAFETY: both buffers are valid for the lengths that are given with them, and the second is
    // aligned as any address is.
    let length = unsafe {
        libc::recvfrom(
            socket.as_fd().as_raw_fd(),
            into.as_mut_ptr().cast(),
            into.len(),
            libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_TRUNC,
            address.as_mut_ptr().cast(),
            &raw mut address_length,
        )
    };
    // Negative is only -1, an error.
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let sender = address.iter().flat_map(|part| part.to_ne_bytes());
    Ok(Message {
        length,
        sender: sender.take(address_length as usize).collect(),
    })
}

/// How many bytes a FIFO holds (FIONREAD, ioctl(2)).
///
/// # Errors
///
/// Those of ioctl(2); ENOTTY where there is no such number.
pub fn bytes_to_read(fd: impl AsFd) -> io::Result<u64> {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD stores an int where it is told to.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    // It is never negative.
    Ok(u64::try_from(count).unwrap_or(0))
}
