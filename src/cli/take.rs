//! `listend take`: a program that listend does not start gets its listeners.

use super::args::Take;
use super::client::{Client, Failure, Wait};
use super::exit::Exit;
use super::open_files::{raise_open_files, restore_open_files};
use super::output::{complain, hint};
use crate::config::Endpoint;
use crate::control::TakeReply;
use crate::handoff::{
    Descriptors, Dialect, Handoff, Name, PidfdInode, Recipient, Socket, Value, belongs_to_a_handoff,
};
use crate::launch_spec::Limit;
use crate::listener;
use crate::report::reason;
use crate::sys;
use serde_json::json;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A socket for the program, with the name of its listener.
pub(super) type Named = (String, OwnedFd);

/// Takes the listeners, and becomes the command.
pub fn take(arguments: &Take) -> Exit {
    let handoff = match dialect(&arguments.handoff) {
        Ok(handoff) => handoff,
        Err(exit) => return exit,
    };
    // As many descriptors come as the daemon has sockets.
    let limit = raise_open_files();
    let sockets = match ask(arguments) {
        Ok(sockets) => sockets,
        Err(failure) => {
            let exit = failure.tell(None);
            if exit == Exit::NotPermitted {
                hint("others need `grant:` in the configuration of each listener that they take");
            }
            return exit;
        }
    };
    become_command(&arguments.command, sockets, handoff, &limit)
}

/// The dialect of the command line.
pub(super) fn dialect(keyword: &str) -> Result<&'static Dialect, Exit> {
    Dialect::find(keyword).ok_or_else(|| {
        complain(&format!("--handoff: there is no handoff `{keyword}`"));
        let all: Vec<&str> = crate::handoff::ALL.iter().map(|one| one.keyword).collect();
        hint(&format!("write one of {}", all.join(", ")));
        Exit::Usage
    })
}

fn ask(arguments: &Take) -> Result<Vec<Named>, Failure> {
    let control = arguments.control.control.as_deref();
    let mut client = Client::connect(control, Wait::Patiently)?;
    let names = json!({ "listeners": arguments.listeners });
    client.send("TakeListener", &names, true)?;
    let (mut descriptors, mut names) = (Vec::new(), Vec::new());
    loop {
        let answer = client.next_with::<TakeReply>(&mut descriptors)?;
        names.extend(answer.of.sockets.into_iter().map(|one| one.listener));
        if answer.is_last {
            break;
        }
    }
    if names.len() != descriptors.len() {
        return Err(client.lost_descriptors(names.len(), descriptors.len()));
    }
    Ok(names.into_iter().zip(descriptors).collect())
}

/// Executes the command in this process, with these sockets.
pub(super) fn become_command(
    command: &[String],
    sockets: Vec<Named>,
    dialect: &'static Dialect,
    limit: &Limit,
) -> Exit {
    let Some((program, words)) = command.split_first() else {
        return Exit::Usage;
    };
    let keyword = dialect.keyword;
    let handoff = Handoff::one(dialect);
    if handoff.is_one_socket() && sockets.len() != 1 {
        let count = sockets.len();
        complain(&format!(
            "handoff `{keyword}` passes one socket, and these are {count}"
        ));
        return Exit::Usage;
    }
    let endpoints = sockets.iter().map(|(_, fd)| listener::endpoint_of(fd));
    let endpoints: Vec<Option<Endpoint>> = endpoints.collect();
    let described = sockets.iter().zip(&endpoints);
    let described: Vec<Socket<'_>> = described
        .map(|((listener, fd), endpoint)| match endpoint {
            Some(endpoint) => endpoint.as_socket(listener, fd.as_raw_fd()),
            None => Socket {
                listener,
                fd: fd.as_raw_fd(),
                scheme: "another kind of descriptor",
                name: Name::Other,
            },
        })
        .collect();
    for socket in &described {
        if let Err(reason) = (dialect.check)(socket) {
            let listener = socket.listener;
            complain(&format!(
                "handoff `{keyword}` cannot pass `{listener}`: {reason}"
            ));
            return Exit::Usage;
        }
    }
    let inode = sys::own_pidfd_inode();
    let layout = handoff.layout(&Descriptors {
        sockets: &described,
        connection: None,
        stored: &[],
        below: None,
        to: Recipient {
            instance: 0,
            generation: 1,
            // The parent stays the same over execve(2).
            listend: std::os::unix::process::parent_id(),
            listen_pid: true,
            inode: match inode {
                Some(_) => PidfdInode::Tell,
                None => PidfdInode::Leave,
            },
            acknowledge_at: None,
        },
    });
    let targets: Vec<(i32, i32)> = layout.fds.into_iter().zip(layout.targets).collect();
    let mut places = Vec::new();
    for (number, target) in targets {
        let copy = sockets.iter().find(|(_, fd)| fd.as_raw_fd() == number);
        match copy.map(|(_, fd)| fd.try_clone()) {
            Some(Ok(copy)) => places.push((copy, target)),
            Some(Err(error)) => return cannot("copy a descriptor", &error),
            None => {}
        }
    }
    let mut process = Command::new(program);
    process.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(belongs_to_a_handoff) {
            process.env_remove(name);
        }
    }
    for (name, value) in &layout.variables {
        let text = match value {
            Value::Text(text) => text.clone(),
            // It stays the same over execve(2).
            Value::OwnPid => std::process::id().to_string(),
            Value::OwnPidfdInode => match inode {
                Some(inode) => inode.to_string(),
                None => continue,
            },
        };
        process.env(&**name, text);
    }
    if let Err(error) = sys::place_descriptors(&places) {
        return cannot("put the descriptors in place", &error);
    }
    restore_open_files(limit.for_descriptors(places.len()));
    let error = process.exec();
    cannot(&format!("execute {program}"), &error)
}

fn cannot(what: &str, error: &io::Error) -> Exit {
    complain(&format!("cannot {what}: {}", reason(error)));
    Exit::Refused
}
