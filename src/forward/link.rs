//! The two sockets of a connection: carries out what [`super::flow`] decides.

use super::flow::{Connection, Outcome, Side, Step, Verdict};
use super::pipes::{Pipe, Pipes};
use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::Socket;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// The most steps for one connection before others have their turn.
const STEPS_MAX: usize = 32;

/// What is shared by all connections.
#[derive(Debug)]
pub(super) struct Means {
    pub pipes: Pipes,
    /// For what is copied, where there is no pipe.
    pub buffer: Box<[u8]>,
}

/// A connection whose two sides are connected.
#[derive(Debug)]
pub(super) struct Link {
    /// By the index of the side.
    sockets: [Socket; 2],
    connection: Connection,
    /// By the index of the side that the bytes come from.
    pipes: [Option<Pipe>; 2],
    /// Whether the kernel cannot splice these kinds of sockets.
    copies: bool,
    /// When bytes were moved last.
    pub last: Instant,
    /// Whether its next turn comes without an event.
    pub is_queued: bool,
}

/// Where a turn has left a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is more to do.
    Busy,
    /// The kernel tells when there is.
    Waits,
    /// Over.
    Over,
}

/// What has come of taking bytes of a side.
fn taken(result: nix::Result<usize>) -> Outcome {
    match result {
        Ok(0) => Outcome::End,
        Ok(count) => Outcome::Moved(count),
        Err(Errno::EINTR) => Outcome::Moved(0),
        Err(Errno::EAGAIN) => Outcome::Blocked,
        Err(_) => Outcome::Broken,
    }
}

impl Link {
    pub fn new(client: Socket, server: Socket, now: Instant) -> Link {
        Link {
            sockets: [client, server],
            connection: Connection::new(),
            pipes: [None, None],
            copies: false,
            last: now,
            is_queued: false,
        }
    }

    /// Notes what the kernel tells of a side.
    pub fn note(&mut self, side: Side, readable: bool, writable: bool, broken: bool) {
        if readable {
            self.connection.readable(side);
        }
        if writable {
            self.connection.writable(side);
        }
        if broken {
            self.connection.broken(side);
        }
    }

    /// Does what can be done now.
    pub fn turn(&mut self, means: &mut Means, now: Instant) -> Turn {
        for _ in 0..STEPS_MAX {
            let Some(step) = self.connection.next() else {
                break;
            };
            match step {
                Step::Pull(from) => self.pull(from, means, now),
                Step::Push(from) => self.push(from, means, now),
                Step::PassEnd(from) => {
                    let to = &self.sockets[from.other().index()];
                    let outcome = match to.shutdown(Shutdown::Write) {
                        Ok(()) => Outcome::Moved(0),
                        Err(_) => Outcome::Broken,
                    };
                    self.connection.done(step, outcome);
                }
                Step::Drop(from) => {
                    let source = self.sockets[from.index()].as_raw_fd();
                    let result = recv(source, &mut means.buffer, MsgFlags::MSG_DONTWAIT);
                    self.connection.done(step, taken(result));
                }
            }
        }
        if self.connection.verdict() != Verdict::Open {
            Turn::Over
        } else if self.connection.next().is_some() {
            Turn::Busy
        } else {
            Turn::Waits
        }
    }

    fn pull(&mut self, from: Side, means: &mut Means, now: Instant) {
        let pipe = if self.copies {
            None
        } else {
            means.pipes.take()
        };
        let Some(pipe) = pipe else {
            return self.copy(from, &mut means.buffer, now);
        };
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let socket = &self.sockets[from.index()];
        let outcome = match splice(socket, None, &pipe.write, None, pipe.size, flags) {
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                self.copies = true;
                Outcome::Moved(0)
            }
            result => taken(result),
        };
        self.connection.done(Step::Pull(from), outcome);
        if self.connection.holds(from) {
            self.last = now;
            self.pipes[from.index()] = Some(pipe);
        } else {
            means.pipes.give(pipe);
        }
    }

    fn push(&mut self, from: Side, means: &mut Means, now: Instant) {
        let held = self.connection.held(from);
        let to = &self.sockets[from.other().index()];
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let outcome = match &self.pipes[from.index()] {
            // What is held is in the pipe.
            None => Outcome::Broken,
            Some(pipe) => match splice(&pipe.read, None, to, None, held, flags) {
                Ok(0) => Outcome::Broken,
                Ok(count) => Outcome::Moved(count),
                Err(Errno::EAGAIN) => Outcome::Blocked,
                Err(Errno::EINTR) => Outcome::Moved(0),
                Err(_) => Outcome::Broken,
            },
        };
        if let Outcome::Moved(_) = outcome {
            self.last = now;
        }
        self.connection.done(Step::Push(from), outcome);
        // What was not given when the destination broke is still in there.
        if !self.connection.holds(from)
            && let Some(pipe) = self.pipes[from.index()].take()
        {
            match outcome {
                Outcome::Moved(_) => means.pipes.give(pipe),
                Outcome::End | Outcome::Blocked | Outcome::Broken => means.pipes.discard(pipe),
            }
        }
    }

    /// Passes on without a pipe. Bytes are taken off the source only once the destination has them, so that
    /// nothing is held.
    fn copy(&mut self, from: Side, buffer: &mut [u8], now: Instant) {
        let step = Step::Pull(from);
        let (source, to) = (
            self.sockets[from.index()].as_raw_fd(),
            self.sockets[from.other().index()].as_raw_fd(),
        );
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let count = match recv(source, buffer, peek) {
            Ok(0) => return self.connection.done(step, Outcome::End),
            Ok(count) => count,
            Err(Errno::EINTR) => return,
            Err(Errno::EAGAIN) => return self.connection.done(step, Outcome::Blocked),
            Err(_) => return self.connection.done(step, Outcome::Broken),
        };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let mut left = match send(to, &buffer[..count], flags) {
            Ok(count) => count,
            Err(Errno::EINTR) => return,
            Err(Errno::EAGAIN) => {
                return self.connection.done(Step::Push(from), Outcome::Blocked);
            }
            Err(_) => return self.connection.done(Step::Push(from), Outcome::Broken),
        };
        self.last = now;
        while left > 0 {
            match recv(source, &mut buffer[..left], MsgFlags::MSG_DONTWAIT) {
                Ok(0) => break,
                Ok(count) => left -= count,
                Err(Errno::EINTR) => {}
                // They were there.
                Err(_) => return self.connection.done(step, Outcome::Broken),
            }
        }
        self.connection.passed(from);
    }

    /// Closes both sides, of which nothing is on its way.
    pub fn close_idle(self, pipes: &mut Pipes) {
        for pipe in self.pipes.into_iter().flatten() {
            pipes.discard(pipe);
        }
    }

    /// Ends the connection as it has come to its end, or in the middle with a reset.
    pub fn close(self, pipes: &mut Pipes) {
        let Link {
            sockets,
            connection,
            pipes: held,
            ..
        } = self;
        for pipe in held.into_iter().flatten() {
            pipes.discard(pipe);
        }
        if connection.verdict() != Verdict::Finished {
            sockets.iter().for_each(reset);
        }
    }
}

/// Has the coming close(2) reset a connection of TCP. What is no TCP has no reset.
pub(super) fn reset(socket: &Socket) {
    let _no_tcp = socket.set_linger(Some(Duration::ZERO));
}
