//! Sockets to the server, and what came of connect(2).

use super::link::reset;
use nix::libc;
use socket2::{SockAddr, Socket, Type};
use std::io;

/// What came of connect(2).
pub(super) enum Connecting {
    Done,
    UnderWay,
    Failed,
}

pub(super) fn new_socket(address: &SockAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new_raw(address.domain(), kind, None)
}

pub(super) fn connect(socket: &Socket, address: &SockAddr) -> Connecting {
    match socket.connect(address) {
        Ok(()) => Connecting::Done,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Connecting::UnderWay,
        Err(_) => Connecting::Failed,
    }
}

/// Whether a connect that was under way has led to the server. At a port that nobody listens on, the kernel may
/// have chosen the same port for this end: then the socket is connected to itself.
pub(super) fn is_connected(socket: &Socket, address: &SockAddr) -> bool {
    if !matches!(socket.take_error(), Ok(None)) {
        return false;
    }
    let is_itself = socket.local_addr().is_ok_and(|local| local == *address);
    if is_itself {
        // So that the port is free at once.
        reset(socket);
    }
    !is_itself
}

/// accept(2): descriptors or memory are missing. All other errors belong to one client.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let errno = error.raw_os_error();
    errno.is_some_and(|errno| [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(&errno))
}
