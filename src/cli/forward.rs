//! `listend forward`: the main process of a worker with `forward:`.

use super::args::{Forward, ProxyProtocol};
use super::exit::Exit;
use crate::config::{self, Endpoint, SERVER_PORT, UnixName};
use crate::forward::proxy::Version;
use crate::forward::{self, Ended, Forwarding, Program};
use crate::notify::ManagerAddress;
use crate::report::reason;
use crate::sys;
use listenfd::ListenFd;
use nix::net::if_::if_nametoindex;
use socket2::{SockAddr, Socket};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// Forwards until it is asked to stop, or the server ends; then as the server did.
pub fn forward(arguments: Forward) -> Exit {
    let to = match target(&arguments.to) {
        Ok(to) => to,
        Err(why) => {
            log::error!("forward: {why}");
            return Exit::Usage;
        }
    };
    let manager = manager();
    let mut tell = |message: &str| {
        let sent = manager
            .as_ref()
            .map(|manager| manager.send(message.as_bytes()));
        if let Some(Err(error)) = sent {
            log::warn!("cannot tell the service manager {message}: {error}");
        }
    };
    let forwarding = inherited().map(|listeners| Forwarding {
        listeners,
        to,
        program: (!arguments.command.is_empty()).then_some(Program {
            command: arguments.command,
            argv0: arguments.argv0,
            port_word: SERVER_PORT,
            port_variables: arguments.port_variable,
            ignore_sigpipe: arguments.ignore_sigpipe,
            stop_signal: arguments.stop_signal,
        }),
        connect_timeout: arguments.connect_timeout,
        idle: arguments.idle,
        keep_alive: arguments.keep_alive,
        proxy: arguments.proxy_protocol.map(|version| match version {
            ProxyProtocol::V1 => Version::V1,
            ProxyProtocol::V2 => Version::V2,
        }),
        drain: arguments.drain,
        stop_signal: arguments.stop_signal,
        watchdog: watchdog(),
    });
    match forwarding.and_then(|forwarding| forward::serve(forwarding, &mut tell)) {
        Ok(Ended::Stopped) => Exit::Done,
        Ok(Ended::Server(status)) => {
            if let Some(signal) = status.signal() {
                sys::end_by_signal(signal);
            }
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            code.map_or(Exit::Internal, Exit::Code)
        }
        Err(error) => {
            log::error!("forward: {}", reason(&error));
            Exit::Unavailable
        }
    }
}

/// The listeners. Whether they have O_NONBLOCK is shared with all who have them: a client that another one
/// takes first must not be waited for.
fn inherited() -> io::Result<Vec<Socket>> {
    let mut inherited = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..inherited.len() {
        let number = inherited.take_raw_fd(index)?.unwrap_or(-1);
        let listener = Socket::from(sys::take_descriptor(number)?);
        listener.set_nonblocking(true)?;
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err(io::Error::other(
            "no listener was inherited (LISTEN_FDS); the daemon starts this for `forward`",
        ));
    }
    Ok(listeners)
}

/// The addresses of the server.
fn target(text: &str) -> Result<Vec<SockAddr>, String> {
    let endpoints = config::target(text)?;
    let addresses = endpoints.iter().map(|endpoint| match endpoint {
        Endpoint::Inet { address, scope, .. } => {
            let mut address = *address;
            if let (SocketAddr::V6(v6), Some(scope)) = (&mut address, scope) {
                let index = scope.parse().or_else(|_| if_nametoindex(scope.as_str()));
                let index = index.map_err(|errno| format!("`{scope}`: {}", errno.desc()))?;
                v6.set_scope_id(index);
            }
            Ok(SockAddr::from(address))
        }
        Endpoint::Unix { name, .. } => {
            let address = match name {
                UnixName::Path(path) => SockAddr::unix(path),
                UnixName::Abstract(name) => SockAddr::unix(format!("\0{name}")),
            };
            address.map_err(|_| format!("`{text}`: connect(2) takes at most 107 bytes of a path"))
        }
        _ => Err(format!("`{text}` is no TCP or unix stream address")),
    });
    addresses.collect()
}

/// Whom to tell, if anybody.
fn manager() -> Option<ManagerAddress> {
    let value = std::env::var_os("NOTIFY_SOCKET")?;
    match ManagerAddress::to(&value) {
        Ok(manager) => Some(manager),
        Err(why) => {
            log::warn!("NOTIFY_SOCKET: {why}");
            None
        }
    }
}

/// The interval of the service manager's watchdog (sd_watchdog_enabled(3)).
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let interval = number("WATCHDOG_USEC").filter(|interval| *interval > 0 && is_ours);
    interval.map(Duration::from_micros)
}
