//! Looking who uses a worker that may be stopped when nobody does.
//!
//! The queues are the loop's own matter. The tables of connections are long on a busy machine, and the file
//! of `idle_unless` may lie on a file system that does not answer: a copy of the process looks there.

use super::{Look, UseQuestion};
use crate::core::{Input, Use};
use crate::listener::{self, BoundSocket, Connections};
use crate::plan::WorkerId;
use crate::shell::turn::Shell;
use std::io;

const NOBODY: &str = "nobody";
const SOMEBODY: &str = "somebody";
const HIDDEN: &str = "hidden: ";

impl Shell {
    /// Has somebody look who uses a worker.
    pub(in crate::shell) fn look_for_use(&mut self, worker: WorkerId) {
        let plan = self.definitions.worker(worker);
        let listeners = plan.listeners.iter();
        let listeners = listeners.filter_map(|id| self.plan.listeners.get(id));
        let sockets = listeners.flat_map(|listener| self.sockets.of(listener));
        let sockets: Vec<&BoundSocket> = sockets.collect();
        let unless = plan.idle_unless.clone();
        let traffic = listener::traffic(&sockets);
        let seen = traffic.and_then(|traffic| Ok((traffic, Connections::of(&sockets)?)));
        match seen {
            Err(error) => self.use_is_hidden(worker, &error.to_string()),
            Ok((traffic, _)) if traffic.waits => {
                let seen = Use::Now;
                self.feed(Input::UseSeen { worker, seen });
            }
            Ok((traffic, connections)) => {
                let question = UseQuestion {
                    connections,
                    unless,
                    has_come: traffic.has_come,
                };
                self.look(Look::Use(worker, Box::new(question)));
            }
        }
    }

    /// What somebody has seen, or `None` of one that has not come back.
    pub(super) fn has_seen_use(
        &mut self,
        worker: WorkerId,
        question: &UseQuestion,
        said: Option<&[u8]>,
    ) {
        let said = said.and_then(|said| std::str::from_utf8(said).ok());
        let seen = match said {
            Some(NOBODY) if question.has_come => Use::Before,
            Some(NOBODY) => Use::None,
            Some(SOMEBODY) => Use::Now,
            said => {
                let why = said.and_then(|said| said.strip_prefix(HIDDEN));
                return self
                    .use_is_hidden(worker, why.unwrap_or("the helper process did not return"));
            }
        };
        self.looks.hidden.remove(&worker);
        self.feed(Input::UseSeen { worker, seen });
    }

    fn use_is_hidden(&mut self, worker: WorkerId, why: &str) {
        let name = &self.definitions.worker(worker).name;
        let line = format!(
            "{name}: cannot detect whether clients use it: {why}; it is not stopped by \
             `idle_timeout`, the next look is after that time"
        );
        match self.looks.hidden.insert(worker) {
            true => log::warn!("{line}"),
            false => log::debug!("{line}"),
        }
        let seen = Use::Unknown;
        self.feed(Input::UseSeen { worker, seen });
    }
}

impl UseQuestion {
    /// In a process of its own.
    pub(super) fn answer(&self) -> String {
        let kept = match self.unless.as_deref().map(std::fs::symlink_metadata) {
            None => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Some(Err(error)) => Err(error),
        };
        match kept.and_then(|kept| Ok(kept || self.connections.exist()?)) {
            Ok(true) => SOMEBODY.to_owned(),
            Ok(false) => NOBODY.to_owned(),
            Err(error) => format!("{HIDDEN}{error}"),
        }
    }
}
