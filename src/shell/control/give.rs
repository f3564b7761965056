//! Holding sockets that somebody else has bound (`GiveListener`).
//!
//! The first call permits descriptors on the connection, and the second brings them: until then the kernel
//! refuses them, whoever the client is (SO_PASSRIGHTS).

use super::events::GIVEN;
use super::status::spelled;
use crate::config::{self, Endpoint};
use crate::control::{Error, GiveReply, Reply};
use crate::diagnose;
use crate::listener::{self, AdoptProblem, Inherited, UnknownPorts};
use crate::plan::{ListenerId, Plan, SocketKey};
use crate::shell::token::ClientId;
use crate::shell::turn::Shell;
use crate::store::Identity;
use crate::sys::{self, SharedFd};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

impl Shell {
    pub(super) fn give_listener(&mut self, id: ClientId, name: &str) {
        let Some(client) = self.control.clients.get_mut(&id) else {
            return;
        };
        let given = client.take_given();
        if given.is_empty() {
            client.let_give();
            return self.succeed(id, &Reply::last(&GiveReply::default()));
        }
        let who = self.control.who(id);
        let given = self.hold(name, given);
        // What is not held.
        sys::close_foreign();
        match given {
            Ok(message) => {
                if let Some((who, pid)) = who {
                    self.note_about(GIVEN, name, pid, format!("given by {who}: {message}"));
                }
                let message = Some(message);
                self.succeed(id, &Reply::last(&GiveReply { message }));
            }
            Err(reason) => {
                if let Some((who, _)) = who {
                    log::warn!("{who}: give {name}: {reason}");
                }
                self.fail(id, &Error::Refused { reason });
            }
        }
    }

    /// Holds sockets that were given, all or none. Answers with what became of them.
    fn hold(&mut self, name: &str, given: Vec<SharedFd>) -> Result<String, String> {
        if self.core.is_stopping() {
            return Err("listend is stopping".to_owned());
        }
        config::check_name(name)?;
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for fd in &given {
            let endpoint =
                listener::examine(fd).map_err(|why| format!("a socket is refused: {why}"))?;
            let is_same = Identity::of(fd);
            let mut held = self.sockets.iter();
            if held.any(|held| is_same.is_some() && Identity::of_shared(&held.fd) == is_same)
                || endpoints.contains(&endpoint)
            {
                return Err(format!("listend holds the socket at {endpoint} already"));
            }
            if listener::is_lost(fd, &endpoint) {
                return Err(format!(
                    "the path of the socket at {endpoint} leads to another one, or is gone: no client would find it"
                ));
            }
            endpoints.push(endpoint);
        }
        let declared = self.plan.listeners().find(|(_, one)| one.name == name);
        match declared.map(|(id, _)| id) {
            Some(id) => self.bind_given(id, given),
            None => Ok(self.hold_for_later(name, given.into_iter().zip(endpoints).collect())),
        }
    }

    /// Gives a listener that is not bound its sockets.
    fn bind_given(&mut self, id: ListenerId, given: Vec<SharedFd>) -> Result<String, String> {
        let plan = Rc::clone(&self.plan);
        let listener = plan.listener(id);
        let name = &listener.name;
        if self.sockets.of(listener).next().is_some() {
            return Err(format!(
                "listener `{name}` is bound already; give the socket another name, and write a listener of \
                 that name and address before the next reload"
            ));
        }
        let only = Plan::of_listeners(BTreeMap::from([(id, Arc::new(listener.clone()))]));
        // Copies: what came is closed apart.
        let mut inherited = Vec::new();
        for fd in &given {
            let fd = fd.try_clone().map_err(|error| error.to_string())?;
            let name = name.clone();
            inherited.push(Inherited { fd, name });
        }
        let (adopted, problems) = listener::match_up(&only, inherited, UnknownPorts::NeedAName);
        if let Some(
            AdoptProblem::Mismatch { found, .. }
            | AdoptProblem::Surplus { found, .. }
            | AdoptProblem::Unwanted { found, .. },
        ) = problems.first()
        {
            return Err(format!(
                "it is {found}, and listener `{name}` has {}",
                diagnose::addresses_beside(found, listener)
            ));
        }
        let keys: Vec<SocketKey> = adopted.keys().copied().collect();
        for (key, fd) in adopted {
            self.sockets.set_aside(key, fd);
        }
        self.bind(id);
        if self.sockets.of(listener).next().is_none() {
            for key in keys {
                drop(self.sockets.take_aside(key).map(SharedFd::from));
            }
            return Err(format!(
                "listener `{name}` has another socket that cannot be bound; give all of them at once"
            ));
        }
        for key in keys {
            if let Some(socket) = self.sockets.get_mut(key)
                && let Err(why) = socket.make_own(listener)
            {
                log::warn!("listener {name}: symbolic links: {why}");
            }
        }
        self.store.touch();
        Ok("it is bound".to_owned())
    }

    /// Holds sockets until a reload has their addresses.
    fn hold_for_later(&mut self, name: &str, given: Vec<(SharedFd, Endpoint)>) -> String {
        let mut addresses = Vec::new();
        for (fd, endpoint) in given {
            let key = Rc::make_mut(&mut self.plan).new_socket_key();
            let address = spelled(&endpoint);
            self.sockets
                .hold_given((key, name), fd.into_owned(), endpoint, &address);
            addresses.push(address);
        }
        self.store.touch();
        format!(
            "{} held until a reload has a listener there",
            addresses.join(", ")
        )
    }
}
