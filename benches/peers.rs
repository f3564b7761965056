//! Other programs that give each connection a process, with their limits and look-ups switched off.

use crate::machine::{self, Result};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Should the benchmark be killed, its peers end by themselves after this many seconds.
const LIFETIME: &str = "300";

/// A name, and what makes its command for a listener and a worker.
pub struct Peer {
    /// What it is called in the table.
    pub name: &'static str,
    program: &'static str,
    arguments: fn(SocketAddrV4, &Path) -> Result<Vec<String>>,
    environment: &'static str,
}

/// Those that run in the foreground and take a literal address.
pub const PEERS: [Peer; 5] = [
    Peer {
        name: "tcpserver",
        program: "tcpserver",
        arguments: tcpserver,
        environment: "",
    },
    Peer {
        name: "xinetd",
        program: "xinetd",
        arguments: xinetd,
        environment: "",
    },
    Peer {
        name: "openbsd-inetd",
        program: "inetd",
        arguments: inetd,
        environment: "",
    },
    Peer {
        name: "systemd-socket-activate",
        program: "systemd-socket-activate",
        arguments: socket_activate,
        // It would write four lines for each connection.
        environment: "SYSTEMD_LOG_LEVEL=err",
    },
    Peer {
        name: "socat",
        program: "socat",
        arguments: socat,
        environment: "",
    },
];

impl Peer {
    /// The command that listens on this address and starts this worker; `None` where the program
    /// is not installed.
    pub fn command(&self, address: SocketAddrV4, worker: &Path) -> Result<Option<Command>> {
        let Some(program) = find(self.program) else {
            return Ok(None);
        };
        let mut command = Command::new("timeout");
        command.arg("--foreground").arg(LIFETIME).arg("env");
        if !self.environment.is_empty() {
            command.arg(self.environment);
        }
        command
            .arg(program)
            .args((self.arguments)(address, worker)?);
        Ok(Some(command))
    }
}

/// Looks in PATH, where daemons are, and where `scripts/test-setup` unpacks what cannot be installed
/// beside others.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = machine::target_dir().join("peers");
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), unpacked.join("usr/sbin")])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// No look-up of names (-H, -R, -l) and as many at a time as listend's default.
fn tcpserver(address: SocketAddrV4, worker: &Path) -> Result<Vec<String>> {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let options = ["-H", "-R", "-l0", "-c64", &ip, &port, text(worker)?];
    Ok(options.map(str::to_owned).to_vec())
}

fn xinetd(address: SocketAddrV4, worker: &Path) -> Result<Vec<String>> {
    let config = format!(
        "defaults\n{{\n    instances = UNLIMITED\n    per_source = UNLIMITED\n    cps = 1000000 1\n}}\n\
         service bench\n{{\n    type = UNLISTED\n    socket_type = stream\n    protocol = tcp\n    \
         bind = {}\n    port = {}\n    wait = no\n    user = {}\n    server = {}\n}}\n",
        address.ip(),
        address.port(),
        user()?,
        text(worker)?
    );
    let file = machine::write_file("connections", "xinetd.conf", &config)?;
    let pid_file = file.with_extension("pid");
    let options = [
        "-dontfork",
        "-f",
        text(&file)?,
        "-pidfile",
        text(&pid_file)?,
    ];
    Ok(options.map(str::to_owned).to_vec())
}

/// In the foreground (-i), with a limit of starts in a minute (-R) that is never reached; 0 would
/// stand for the default of 256.
fn inetd(address: SocketAddrV4, worker: &Path) -> Result<Vec<String>> {
    let worker = text(worker)?;
    let line = format!(
        "{}:{} stream tcp nowait {} {worker} {worker}\n",
        address.ip(),
        address.port(),
        user()?
    );
    let file = machine::write_file("connections", "inetd.conf", &line)?;
    let options = ["-i", "-R", "1000000000", text(&file)?];
    Ok(options.map(str::to_owned).to_vec())
}

fn socket_activate(address: SocketAddrV4, worker: &Path) -> Result<Vec<String>> {
    let listen = format!("--listen={address}");
    let options = [&listen, "--accept", "--inetd", text(worker)?];
    Ok(options.map(str::to_owned).to_vec())
}

/// `nofork`: the child becomes the worker, with the connection itself instead of a pipe to it.
fn socat(address: SocketAddrV4, worker: &Path) -> Result<Vec<String>> {
    let (ip, port) = (address.ip(), address.port());
    Ok(vec![
        format!("TCP4-LISTEN:{port},bind={ip},reuseaddr,fork,backlog=4096"),
        format!("EXEC:{},nofork", text(worker)?),
    ])
}

fn user() -> Result<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())?;
    Ok(user.ok_or("this user has no name")?.name)
}

fn text(path: &Path) -> Result<&str> {
    Ok(path.to_str().ok_or("the target folder is not UTF-8")?)
}
