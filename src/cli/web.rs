//! `listend web`: the worker that the daemon starts for `metrics:`.

use super::client::{Client, Failure, Wait};
use super::exit::Exit;
use super::output::reason;
use crate::control::{MetricsReply, Status};
use crate::{sys, usage, web};
use listenfd::ListenFd;
use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use serde_json::json;
use socket2::Socket;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The longest time that the daemon may take for its metrics.
const PATIENCE: Wait = Wait::AtMost(Duration::from_secs(10));
/// The user without rights, which needs no entry in /etc/passwd (`overflowuid`, proc_sys_kernel(5)).
const NOBODY: u32 = 65534;

/// Serves until the daemon, whose connection is the last of the inherited descriptors, has gone.
pub fn web() -> Exit {
    if let Err(errno) = give_up_rights() {
        log::warn!(
            "cannot become uid {NOBODY}: {}; continuing as before",
            errno.desc()
        );
    }
    let served = inherited().and_then(|(listeners, control)| {
        let daemon = Socket::from(control.try_clone()?);
        let client = Client::inherited(control, PATIENCE);
        let mut client = client.map_err(|failure| io::Error::other(failure.words().0))?;
        web::serve(&listeners, &daemon, move || {
            let text = client.ask::<MetricsReply>("Metrics", &json!({}));
            let text = text.and_then(|MetricsReply { mut text }| {
                let mut status = client.ask::<Status>("Status", &json!({}))?;
                usage::note(&mut status);
                usage::add_to_metrics(&mut text, &status);
                Ok(text)
            });
            text.map_err(|failure| {
                let why = match failure {
                    Failure::Broken(_, error) => reason(&error),
                    other => other.words().0,
                };
                io::Error::other(format!("the daemon did not answer: {why}"))
            })
        })
    });
    match served {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::error!("web: {}", reason(&error));
            Exit::Unavailable
        }
    }
}

/// The listeners, and the connection to the daemon.
fn inherited() -> io::Result<(Vec<Socket>, OwnedFd)> {
    let mut inherited = ListenFd::from_env();
    let mut all = Vec::new();
    for index in 0..inherited.len() {
        all.push(sys::take_descriptor(
            inherited.take_raw_fd(index)?.unwrap_or(-1),
        )?);
    }
    let control = all.pop().filter(|_| !all.is_empty());
    let listeners = all.into_iter().map(Socket::from).collect();
    let control = control.ok_or_else(|| {
        io::Error::other("nothing was inherited; the daemon starts this for `metrics`")
    })?;
    Ok((listeners, control))
}

/// Root becomes nobody once the program runs, which nobody may not be able to reach. In a user
/// namespace there may be no such user; root has no rights outside of it there.
fn give_up_rights() -> Result<(), Errno> {
    set_no_new_privs()?;
    if geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[])?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
    }
    Ok(())
}
