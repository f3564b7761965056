//! Putting a socket back in order before a worker gets it.

use super::bound::BoundSocket;
use super::{repair, spare};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;

/// O_NONBLOCK or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// O_NONBLOCK is clear: accept(2) waits.
    Blocking,
    /// accept(2) answers EAGAIN.
    NonBlocking,
    /// As the processes that have the socket left it.
    AsItIs,
}

/// The changes that [`prepare_for_spawn`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disturbed {
    /// O_NONBLOCK was not as asked for. Also true before the first spawn of a worker that wants
    /// its sockets non-blocking.
    pub nonblocking: bool,
    /// The listener was shut down. TCP listens again; a unix socket cannot, and needs
    /// [`super::repair()`].
    pub shut_down: bool,
    /// A datagram socket was connected to one peer, and heard nobody else.
    pub connected: bool,
}

/// Puts a socket back in order before a spawn: the open file description is shared with every
/// worker that ran before, and those may have changed O_NONBLOCK and the backlog, or have shut
/// the listener down, or have connected a datagram socket. Sets O_NONBLOCK and, where clients queue,
/// repeats listen(2). Answers with what it had to put right.
///
/// Errors are those of fcntl(2), connect(2), bind(2) and listen(2): [`super::repair()`] can do more.
pub fn prepare_for_spawn(
    socket: &BoundSocket,
    backlog: u32,
    mode: IoMode,
) -> io::Result<Disturbed> {
    socket.share();
    let mut disturbed = Disturbed {
        nonblocking: set_mode(socket, mode)?,
        shut_down: false,
        connected: repair::disconnect(socket)?,
    };
    spare::renew(socket);
    if socket.address.accepts() {
        disturbed.shut_down = repair::listen_again(socket, backlog)?;
    }
    Ok(disturbed)
}

/// Sets or clears O_NONBLOCK, of anything: a socket, a FIFO, a message queue, a device. Answers whether
/// it was otherwise. Nothing is asked of the kernel where nobody else can have changed it.
///
/// # Errors
///
/// The errors of fcntl(2).
pub fn set_mode(socket: &BoundSocket, mode: IoMode) -> io::Result<bool> {
    let is_known = match mode {
        IoMode::Blocking => socket.nonblocking.is(false),
        IoMode::NonBlocking => socket.nonblocking.is(true),
        IoMode::AsItIs => false,
    };
    if is_known {
        return Ok(false);
    }
    let fd = &socket.fd;
    let before = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let mut after = before;
    match mode {
        IoMode::Blocking => after.remove(OFlag::O_NONBLOCK),
        IoMode::NonBlocking => after.insert(OFlag::O_NONBLOCK),
        IoMode::AsItIs => {}
    }
    if after != before {
        fcntl(fd, FcntlArg::F_SETFL(after))?;
    }
    socket.nonblocking.note(after.contains(OFlag::O_NONBLOCK));
    Ok(after != before)
}
