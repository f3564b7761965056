//! Taking a socket option back: what the kernel would have, had it never been set.
//!
//! Most defaults are settings of the machine or of the network namespace, so a socket that has just
//! been made is asked for them.

use super::bind_error::{BindStep, Failure};
use super::option::{Act, Options, names};
use crate::config::Endpoint;
use crate::config::options::{How, OptionSetting, OptionSpec, OptionValue};
use crate::sys::sockopt;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int};
use socket2::{SockRef, Socket};
use std::io;
use std::os::fd::BorrowedFd;

/// Linux 5.14. Says which buffers have a size of their own, and are not sized by the kernel.
const SO_BUF_LOCK: c_int = 72;

/// Takes an option back that was set on a live socket. In the network namespace of the socket.
///
/// The limits of a message queue stay: they were settled when it was made.
pub(super) fn take_back(
    fd: BorrowedFd<'_>,
    endpoint: &Endpoint,
    spec: &'static OptionSpec,
) -> Result<(), Failure> {
    let done = match spec.how {
        How::QueueMaxMessages | How::QueueMessageSize => Ok(()),
        How::PipeSize => pipe_size(fd),
        How::Text(level, name) => text(fd, spec, (level, name)),
        How::Buffer { force, plain } => buffer(fd, force, plain),
        How::OneOf(_) => return timestamps_off(fd, endpoint, spec),
        How::Int(..) | How::IntByFamily { .. } | How::IntByFamilyOrNetlink { .. } => {
            ints(fd, endpoint, spec)
        }
    };
    done.map_err(|error| Failure::new(BindStep::SetOption(spec.call), error))
}

/// A socket of the same kind on which nothing was ever set.
fn like(fd: BorrowedFd<'_>) -> io::Result<Socket> {
    let raw = SockRef::from(&fd);
    Socket::new(raw.domain()?, raw.r#type()?, raw.protocol()?)
}

fn ints(fd: BorrowedFd<'_>, endpoint: &Endpoint, spec: &'static OptionSpec) -> io::Result<()> {
    let fresh = like(fd)?;
    for ((level, name), _) in names(spec, Options::new(&[], endpoint).family()) {
        let default = match spec.key {
            // What is read is what it comes to for now; -1 leaves it to the routes again (ip(7)).
            "ip_ttl" => -1,
            // Read, it is the segment size of no connection; 0 is none of our own (tcp(7)).
            "tcp_max_segment" => 0,
            _ => sockopt::get_int(&fresh, level, name)?,
        };
        sockopt::set_int(fd, level, name, default)?;
    }
    Ok(())
}

fn buffer(fd: BorrowedFd<'_>, force: c_int, plain: c_int) -> io::Result<()> {
    let level = libc::SOL_SOCKET;
    // It reads back twice what is set (socket(7)).
    let default = sockopt::get_int(like(fd)?, level, plain)? / 2;
    if sockopt::set_int(fd, level, force, default).is_err() {
        sockopt::set_int(fd, level, plain, default)?;
    }
    // The kernel may size it again. Before Linux 5.14 it may not, and that cannot be helped.
    let bit = if plain == libc::SO_SNDBUF { 1 } else { 2 };
    if let Ok(locks) = sockopt::get_int(fd, level, SO_BUF_LOCK) {
        sockopt::set_int(fd, level, SO_BUF_LOCK, locks & !bit)?;
    }
    Ok(())
}

fn text(
    fd: BorrowedFd<'_>,
    spec: &'static OptionSpec,
    (level, name): (c_int, c_int),
) -> io::Result<()> {
    let default = match spec.key {
        // An empty name is no interface (socket(7)).
        "bind_to_device" => Vec::new(),
        _ => sockopt::get_bytes(like(fd)?, level, name)?,
    };
    sockopt::set_bytes(fd, level, name, &default)
}

fn pipe_size(fd: BorrowedFd<'_>) -> io::Result<()> {
    let (fresh, _writer) = io::pipe()?;
    let default = fcntl(&fresh, FcntlArg::F_GETPIPE_SZ)?;
    fcntl(fd, FcntlArg::F_SETPIPE_SZ(default))?;
    Ok(())
}

/// The one choice there is, whose default is `off`.
fn timestamps_off(
    fd: BorrowedFd<'_>,
    endpoint: &Endpoint,
    spec: &'static OptionSpec,
) -> Result<(), Failure> {
    let off = [OptionSetting {
        spec,
        value: OptionValue::Number(0),
    }];
    let mut effective = Vec::new();
    Options::new(&off, endpoint).apply(fd, spec.phase, Act::Set, &mut effective)
}
