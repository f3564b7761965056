//! What is forwarded, and how it has ended.

use super::proxy;
use super::server::Program;
use socket2::{SockAddr, Socket};
use std::process::ExitStatus;
use std::time::Duration;

/// What is forwarded, and how.
#[derive(Debug)]
pub struct Forwarding {
    /// Where clients come from; without O_NONBLOCK others could take a client away in between.
    pub listeners: Vec<Socket>,
    /// Where the server is: tried in this order. A port of 0 is chosen here.
    pub to: Vec<SockAddr>,
    /// The server to start; `None` where it runs elsewhere.
    pub program: Option<Program>,
    /// How long a client waits for a server that cannot be reached.
    pub connect_timeout: Duration,
    /// How long a connection may be silent in both directions.
    pub idle: Option<Duration>,
    /// After how much silence TCP asks whether the other end is still there.
    pub keep_alive: Option<Duration>,
    /// Whether the server is told who the client is.
    pub proxy: Option<proxy::Version>,
    /// How long connections have for their end before the server is asked to stop.
    pub drain: Duration,
    /// The signal that ends it, beside SIGTERM.
    pub stop_signal: i32,
    /// The interval of the service manager's watchdog.
    pub watchdog: Option<Duration>,
}

/// How it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Stopped on request.
    Stopped,
    /// The server has ended by itself.
    Server(ExitStatus),
}
