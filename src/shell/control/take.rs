//! Passing copies of listeners to a process that listend did not start (`TakeListener`).
//!
//! The daemon has no part in what that process does with them: it shares the open file description with
//! the workers, as they do with each other.

use super::client::WaitsFor;
use super::events::TAKEN;
use super::status::spelled;
use super::{Control, NAMES_COMPARED};
use crate::control::{Access, Error, Event, Expects, Reply, TakeReply, TakenSocket};
use crate::diagnose::unit_of;
use crate::plan::{ListenerPlan, SocketKey};
use crate::shell::token::ClientId;
use crate::shell::turn::Shell;
use crate::sys::{MOST_DESCRIPTORS, SharedFd};
use std::collections::VecDeque;
use std::io;

impl Control {
    /// Who a client is, with its unit, and its process.
    pub(super) fn who(&self, id: ClientId) -> Option<(String, i32)> {
        let peer = &self.clients.get(&id)?.peer;
        let unit = unit_of(peer.pid).map_or_else(String::new, |unit| format!(", {unit}"));
        Some((peer.words() + &unit, peer.pid))
    }

    /// When and by whom a listener was taken last.
    pub(super) fn last_taken(&self, listener: &str) -> Option<String> {
        let is_it =
            |event: &&Event| event.kind == TAKEN && event.listener.as_deref() == Some(listener);
        let last = self.past.iter().rev().find(is_it)?;
        let (_, by) = last.message.split_once("taken ")?;
        Some(format!("{}, {by}", last.time))
    }
}

impl Shell {
    /// Begins to pass the sockets of these listeners, if the client may have all of them.
    pub(super) fn take_listeners(&mut self, id: ClientId, names: &[String]) {
        match self.sockets_to_take(id, names) {
            Ok(_) if self.control.takes_no_reply(id) => self.succeed(id, &Reply::done()),
            Ok(keys) => {
                self.note_taken(id, names);
                self.control.waits(id, WaitsFor::Sockets(keys));
                self.control.takers.push_back(id);
            }
            Err(error) => self.fail(id, &error),
        }
    }

    /// Tells the log and those who watch who has got what.
    fn note_taken(&mut self, id: ClientId, names: &[String]) {
        let Some((who, pid)) = self.control.who(id) else {
            return;
        };
        for name in names {
            self.note_about(TAKEN, name, pid, format!("taken by {who}"));
        }
    }

    fn sockets_to_take(
        &self,
        id: ClientId,
        names: &[String],
    ) -> Result<VecDeque<SocketKey>, Error> {
        let Some(client) = self.control.clients.get(&id) else {
            return Ok(VecDeque::new());
        };
        let may_act = client.peer.access(self.control.owner()) == Access::Act;
        let mut keys = VecDeque::new();
        for name in names {
            let listener = self.listener_named(name).map_err(|error| {
                let given = may_act.then(|| self.given_under(name)).flatten();
                given.unwrap_or(error)
            })?;
            if !may_act && !client.peer.is_granted(&listener.settings.grant) {
                log::warn!("{}: may not take {name}", client.peer.words());
                return Err(Error::PermissionDenied);
            }
            let before = keys.len();
            keys.extend(self.sockets.of(listener).map(|held| held.key));
            if keys.len() == before {
                let reason = format!(
                    "listener `{name}` is not bound at the moment; `listend explain {name}`"
                );
                return Err(Error::Refused { reason });
            }
        }
        let call = client.call.as_ref();
        if keys.len() > MOST_DESCRIPTORS && call.is_some_and(|one| one.expects == Expects::One) {
            let reason = format!(
                "{} sockets take several replies, since one has {MOST_DESCRIPTORS} at most: call it \
                 with `more`",
                keys.len()
            );
            return Err(Error::Refused { reason });
        }
        Ok(keys)
    }

    /// Why a listener is not there that `status` shows as given.
    fn given_under(&self, name: &str) -> Option<Error> {
        let all = self.definitions.before(&self.sockets);
        let mut given = all.iter().filter(|one| one.is_given);
        given.any(|one| one.listener == name).then(|| {
            let reason = format!(
                "listener `{name}` was given, and the configuration does not have it yet: add it, and reload"
            );
            Error::Refused { reason }
        })
    }

    pub(super) fn listener_named(&self, name: &str) -> Result<&ListenerPlan, Error> {
        let mut all = self.plan.listeners().map(|(_, listener)| listener);
        all.find(|listener| listener.name == name).ok_or_else(|| {
            let known = self.plan.listeners().map(|(_, one)| one.name.as_str());
            Error::no_such_thing(name, known.take(NAMES_COMPARED))
        })
    }

    /// Passes as many sockets as one message can have.
    pub(super) fn advance_take(&mut self) {
        let Some(id) = self.control.takers.pop_front() else {
            return;
        };
        let Some(WaitsFor::Sockets(mut keys)) = self.control.waits_for(id) else {
            return;
        };
        let (mut passed, mut sockets) = (Vec::new(), Vec::new());
        while let Some(key) = keys.pop_front() {
            let Some(held) = self.sockets.get(key) else {
                let reason = "a reload has just closed one of the sockets; retry".to_owned();
                return self.fail(id, &Error::Failed { reason });
            };
            held.share();
            let copy: io::Result<SharedFd> = held.fd.try_clone().map(SharedFd::from);
            match copy {
                Ok(copy) => passed.push(copy),
                Err(error) => {
                    let reason = format!("cannot copy a descriptor: {error}");
                    return self.fail(id, &Error::Failed { reason });
                }
            }
            let listener = self.plan.listeners.get(&held.listener);
            sockets.push(TakenSocket {
                listener: listener.map_or_else(String::new, |one| one.name.clone()),
                address: spelled(&held.address),
            });
            if passed.len() == MOST_DESCRIPTORS {
                break;
            }
        }
        let reply = TakeReply { sockets };
        let reply = match keys.is_empty() {
            true => Reply::last(&reply),
            false => Reply::continues(&reply),
        };
        self.control.waits(id, WaitsFor::Sockets(keys));
        self.control.reply_with(&self.epoll, id, &reply, passed);
    }
}
