//! `listend give` and `listend adopt`: a socket that somebody else has bound becomes one that listend holds.

use super::args::{Adopt, Control, Give};
use super::check::finish;
use super::client::{Client, Failure, Wait};
use super::exit::Exit;
use super::open_files::raise_open_files;
use super::output::{complain, hint, print};
use super::take::{Named, become_command, dialect};
use crate::config::{self, Endpoint};
use crate::control::GiveReply;
use crate::listener::{self, Unfit};
use crate::report::reason;
use crate::store::{Holder, not_taken};
use crate::sys;
use nix::errno::Errno;
use serde_json::json;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

/// A name that no listener has (sd_listen_fds_with_names(3)): the address decides.
const NAMELESS: &str = "unknown";

/// Gives sockets of this process to the daemon. To be called before anything is opened.
pub fn give(arguments: &Give) -> Exit {
    let mut sockets = Vec::new();
    for number in &arguments.fd {
        match sys::take_descriptor(*number) {
            Ok(fd) => sockets.push(fd),
            Err(error) => {
                complain(&format!("--fd {number}: {}", reason(&error)));
                return Exit::Usage;
            }
        }
    }
    if sockets.is_empty() {
        match listener::take_inherited() {
            Ok(inherited) => sockets.extend(inherited.into_iter().map(|one| one.fd)),
            Err(error) => {
                complain(&error.to_string());
                return Exit::Refused;
            }
        }
    }
    if sockets.is_empty() {
        complain("there is nothing to give: neither `--fd` nor LISTEN_FDS names a socket");
        hint(
            "`systemd-socket-activate -l ADDRESS listend give NAME`, or `listend give NAME --fd 3 3<&N`",
        );
        return Exit::Usage;
    }
    hand_over(&arguments.listener, &sockets, &arguments.control)
}

fn hand_over(name: &str, sockets: &[OwnedFd], control: &Control) -> Exit {
    let ask = || -> Result<GiveReply, Failure> {
        let mut client = Client::connect(control.control.as_deref(), Wait::Patiently)?;
        let parameters = json!({ "listener": name });
        let _permitted: GiveReply = client.ask("GiveListener", &parameters)?;
        client.send_with("GiveListener", &parameters, sockets)?;
        Ok(client.next()?.of)
    };
    match ask() {
        Ok(given) => {
            let message = given.message.unwrap_or_default();
            finish(print(&format!("{name}: {message}\n")), Exit::Done)
        }
        Err(failure) => failure.tell(None),
    }
}

/// Takes listeners of another process, and gives them to the daemon or to a command.
pub fn adopt(arguments: &Adopt) -> Exit {
    let handoff = match dialect(&arguments.handoff) {
        Ok(handoff) => handoff,
        Err(exit) => return exit,
    };
    let limit = raise_open_files();
    let sockets = match sockets_of(arguments) {
        Ok(sockets) => sockets,
        Err(exit) => return exit,
    };
    let name = arguments.name.as_deref();
    if !arguments.command.is_empty() {
        let name = name.unwrap_or(NAMELESS).to_owned();
        let sockets: Vec<Named> = sockets.into_iter().map(|fd| (name.clone(), fd)).collect();
        return become_command(&arguments.command, sockets, handoff, &limit);
    }
    let Some(name) = name else {
        complain("`--as NAME` is missing: the listener that the sockets are for");
        return Exit::Usage;
    };
    hand_over(name, &sockets, &arguments.control)
}

/// Copies of the listeners that are meant.
fn sockets_of(arguments: &Adopt) -> Result<Vec<OwnedFd>, Exit> {
    let pid = arguments.pid;
    let failed = |error: &io::Error| {
        let why = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ESRCH | Errno::ENOENT) => format!("there is no process {pid}"),
            _ => not_taken(pid, error, "listend adopt"),
        };
        complain(&why);
        Exit::Refused
    };
    let holder = Holder::of(pid).map_err(|error| failed(&error))?;
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for inode in holder.sockets() {
        let Some(fd) = holder.take(inode).map_err(|error| failed(&error))? else {
            continue;
        };
        match listener::examine(&fd) {
            Ok(endpoint) => found.push((endpoint, fd)),
            Err(Unfit::NoListener(_)) => {}
            Err(Unfit::Refused(why)) => refused.push(why),
        }
    }
    let mut wanted = Vec::new();
    for address in &arguments.address {
        let endpoints = endpoints(address).ok_or_else(|| {
            complain(&format!("--address: `{address}` is not an address"));
            Exit::Usage
        })?;
        wanted.push((address, endpoints));
    }
    let there: Vec<String> = found
        .iter()
        .map(|(endpoint, _)| endpoint.to_string())
        .collect();
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let what = format!(
        "process {pid} ({})",
        command.trim_end().replace(char::is_control, "?")
    );
    let listing = match there.is_empty() {
        true => format!("{what} has no listener that can be taken"),
        false => format!("{what} listens on {}", there.join(", ")),
    };
    let is_meant = |endpoint: &Endpoint| {
        let mut all = wanted.iter().flat_map(|(_, endpoints)| endpoints);
        wanted.is_empty() || all.any(|wanted| is_same(wanted, endpoint))
    };
    let lacking = wanted.iter().find(|(_, endpoints)| {
        let is_there = |wanted: &Endpoint| found.iter().any(|(one, _)| is_same(wanted, one));
        !endpoints.iter().any(is_there)
    });
    if let Some((address, _)) = lacking {
        complain(&format!("{address} cannot be taken: {listing}"));
        refused.iter().for_each(|why| hint(why));
        return Err(Exit::Refused);
    }
    if found.is_empty() || (wanted.is_empty() && !refused.is_empty()) {
        complain(&listing);
        refused.iter().for_each(|why| hint(why));
        return Err(Exit::Refused);
    }
    if wanted.is_empty() && found.len() > 1 && arguments.command.is_empty() {
        complain(&listing);
        hint("name those that are one listener with `--address ADDRESS`, once for each");
        return Err(Exit::Usage);
    }
    let meant = found.into_iter().filter(|(endpoint, _)| is_meant(endpoint));
    Ok(meant.map(|(_, fd)| fd).collect())
}

/// The sockets that an address of a configuration stands for.
fn endpoints(address: &str) -> Option<Vec<Endpoint>> {
    let command = ["true".to_owned()];
    let loaded = config::from_arguments(&[format!("adopted={address}")], &command);
    let listener = loaded.config.listeners.into_iter().next()?;
    let addresses = listener.addresses.into_iter();
    let all: Vec<Endpoint> = addresses.flat_map(|one| one.value.endpoints).collect();
    (loaded.report.is_ok() && !all.is_empty()).then_some(all)
}

/// Whether a socket has this address; that of one socket does not say whether it takes IPv4 as well.
fn is_same(wanted: &Endpoint, found: &Endpoint) -> bool {
    match (wanted, found) {
        (
            Endpoint::Inet {
                transport, address, ..
            },
            Endpoint::Inet {
                transport: of,
                address: at,
                ..
            },
        ) => transport == of && address.ip() == at.ip() && address.port() == at.port(),
        _ => wanted == found,
    }
}
