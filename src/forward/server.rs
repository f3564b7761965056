//! The server that is forwarded to: a child, unless it runs elsewhere.

use crate::handoff::OF_ONE_PROCESS;
use crate::sys;
use nix::errno::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};

/// A server to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments; never empty.
    pub command: Vec<OsString>,
    /// Its `argv[0]`, if it is not the first word of the command.
    pub argv0: Option<OsString>,
    /// What stands for the port in its arguments and its environment.
    pub port_word: &'static str,
    /// The variables of the environment in which that stands for it.
    pub port_variables: Vec<OsString>,
    /// Whether it is to ignore SIGPIPE.
    pub ignore_sigpipe: bool,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
}

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    stop_signal: i32,
}

impl Server {
    /// Starts it. Its standard streams are those of this process; it gets no other descriptor.
    pub fn start(program: &Program, port: Option<u16>) -> io::Result<Server> {
        let port = port.map(|port| port.to_string());
        let fill = |word: &OsString| match (&port, word.to_str()) {
            (Some(port), Some(text)) => OsString::from(text.replace(program.port_word, port)),
            _ => word.clone(),
        };
        let words: Vec<OsString> = program.command.iter().map(fill).collect();
        let Some((first, arguments)) = words.split_first() else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let mut command = Command::new(first);
        command.args(arguments);
        if let Some(name) = &program.argv0 {
            command.arg0(fill(name));
        }
        // Others, which `environment` has, are for the server.
        for name in OF_ONE_PROCESS {
            command.env_remove(name);
        }
        for name in &program.port_variables {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, fill(&value));
            }
        }
        sys::end_with_parent(&mut command, program.stop_signal, program.ignore_sigpipe);
        let child = command.spawn().map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            let program = first.display();
            io::Error::other(format!(
                "cannot start the server `{program}`: {} ({errno:?})",
                errno.desc()
            ))
        })?;
        Ok(Server {
            child,
            stop_signal: program.stop_signal,
        })
    }

    /// Sends a signal. It has not been waited for, so that its number is its own.
    pub fn signal(&self, signal: i32) {
        let number = i32::try_from(self.child.id());
        let sent = number.map(|pid| sys::send_signal_to_child(pid, signal));
        if let Ok(Err(error)) = sent {
            log::warn!("cannot send signal {signal} to the server: {error}");
        }
    }

    /// Asks it to stop.
    pub fn stop(&self) {
        self.signal(self.stop_signal);
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

/// A port that nobody has at this address.
///
/// The port is free when this returns, and any process may take it until the server has bound it. That is unlikely: the
/// kernel gives ports out at random (net.ipv4.ip_local_port_range). The server fails then, and its successor
/// gets another.
pub(super) fn free_port(address: SocketAddr) -> io::Result<u16> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // So that a port whose last connections are in TIME_WAIT counts as free, as it does to a server.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::new(address.ip(), 0)))?;
    let bound = socket.local_addr()?.as_socket();
    bound
        .map(|bound| bound.port())
        .ok_or(io::ErrorKind::AddrNotAvailable.into())
}
