//! `listend web`: the worker that the daemon starts for `web:` and `metrics:`.

use super::args::Web;
use super::client::{Client, Failure, Wait};
use super::exit::Exit;
use crate::control::{MetricsReply, Status};
use crate::report::reason;
use crate::web::{Ask, Lines, Serve};
use crate::{sys, usage, web};
use listenfd::ListenFd;
use nix::errno::Errno;
use nix::sys::prctl::set_no_new_privs;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use signal_hook::consts::SIGTERM;
use socket2::Socket;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The longest time that the daemon may take for an answer.
const PATIENCE: Wait = Wait::AtMost(Duration::from_secs(10));
/// The user without rights, which needs no entry in /etc/passwd (`overflowuid`, proc_sys_kernel(5)).
const NOBODY: u32 = 65534;

/// Serves until the daemon, whose connection is the last of the inherited descriptors, has gone.
pub fn web(arguments: &Web) -> Exit {
    if let Err(errno) = give_up_rights() {
        log::warn!(
            "cannot become uid {NOBODY}: {}; continuing as before",
            errno.desc()
        );
    }
    let served = inherited().and_then(|(listeners, control)| {
        let (stop, told) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGTERM, told)?;
        let daemon = Socket::from(control.try_clone()?);
        let client = Client::inherited(control, PATIENCE);
        let client = client.map_err(|failure| io::Error::other(failure.words().0))?;
        let what = match arguments.page {
            true => Serve::Everything,
            false => Serve::Metrics,
        };
        web::serve(&listeners, &daemon, &stop, what, Daemon(client))
    });
    match served {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::error!("web: {}", reason(&error));
            Exit::Unavailable
        }
    }
}

/// The daemon, at the other end of the connection.
struct Daemon(Client);

impl Ask for Daemon {
    fn metrics(&mut self) -> io::Result<String> {
        let text = self.0.ask::<MetricsReply>("Metrics", &json!({}));
        let text = text.and_then(|MetricsReply { mut text }| {
            let mut status = self.0.ask::<Status>("Status", &json!({}))?;
            usage::note(&mut status);
            usage::add_to_metrics(&mut text, &status);
            Ok(text)
        });
        text.map_err(silent)
    }

    fn status(&mut self, name: Option<&str>) -> io::Result<Option<Box<RawValue>>> {
        let parameters = match name {
            Some(name) => json!({ "name": name }),
            None => json!({}),
        };
        match self.0.ask("Status", &parameters) {
            Ok(status) => Ok(Some(status)),
            // It has gone meanwhile.
            Err(Failure::Denied(_)) if name.is_some() => Ok(None),
            Err(failure) => Err(silent(failure)),
        }
    }

    fn events(&mut self) -> io::Result<Option<Vec<Box<RawValue>>>> {
        #[derive(Deserialize)]
        struct EventReply {
            event: Option<Box<RawValue>>,
        }
        let events = self.each(
            "Watch",
            &json!({ "no_follow": true }),
            |reply: EventReply| reply.event,
        );
        Ok(events?.ok())
    }

    fn lines(&mut self, worker: &str, count: usize) -> io::Result<Lines> {
        #[derive(Deserialize)]
        struct LineReply {
            line: Option<Box<RawValue>>,
        }
        let parameters = json!({ "worker": worker, "lines": count, "follow": false });
        let lines = self.each("Logs", &parameters, |reply: LineReply| reply.line);
        Ok(lines?.map_err(|failure| failure.words().0))
    }
}

impl Daemon {
    /// The members of all replies, or why the daemon refuses.
    fn each<T: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: &Value,
        member: impl Fn(T) -> Option<Box<RawValue>>,
    ) -> io::Result<Result<Vec<Box<RawValue>>, Failure>> {
        self.0.send(method, parameters, true).map_err(silent)?;
        let mut all = Vec::new();
        loop {
            match self.0.next() {
                Ok(answer) => {
                    all.extend(member(answer.of));
                    if answer.is_last {
                        return Ok(Ok(all));
                    }
                }
                Err(failure @ Failure::Denied(_)) => return Ok(Err(failure)),
                Err(failure) => return Err(silent(failure)),
            }
        }
    }
}

fn silent(failure: Failure) -> io::Error {
    let why = match failure {
        Failure::Broken(_, error) => reason(&error),
        other => other.words().0,
    };
    io::Error::other(format!("the daemon did not answer: {why}"))
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
        io::Error::other("nothing was inherited; the daemon starts this for `web`")
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
