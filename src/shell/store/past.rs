//! What the listend before has left.

use super::facts::{self, Fact};
use super::history::{History, is_history};
use super::{UnknownFields, boot};
use crate::core::{Mono, Reading, Snapshot};
use crate::listener::SocketRecord;
use crate::plan::{KnownIds, ListenerId, Origin, SocketKey, WorkerId};
use crate::shell::folders::Made;
use crate::store::{Identity, Journal, Kept, Name};
use crate::sys::pidfd_inode;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};

/// What a snapshot says of a socket.
#[derive(Debug)]
pub struct KnownSocket {
    /// What the kernel calls it.
    pub identity: Identity,
    /// The name of its listener.
    pub listener: Option<String>,
    /// What is known of its path.
    pub record: SocketRecord,
}

/// The facts and the descriptors of the listend before.
#[derive(Debug)]
pub struct Past {
    pub(super) head: facts::Head,
    pub(super) snapshot: Snapshot,
    pub(super) configurations: BTreeMap<u32, Origin>,
    pub(super) ids: KnownIds,
    pub(super) definitions: Vec<facts::DefinitionFact>,
    pub(super) sockets: Vec<facts::Socket>,
    pub(super) flows: Vec<facts::FlowsFact>,
    pub(super) processes: Vec<facts::ProcessFact>,
    pub(super) connections: Vec<facts::ConnectionFact>,
    pub(super) folders: Vec<Made>,
    pub(super) stored: Vec<facts::Stored>,
    pub(super) requests: BTreeMap<u64, facts::Request>,
    pub(super) half_lines: HashMap<u64, facts::HalfLine>,
    /// Facts of kinds that are not known here.
    pub(super) unknown: Vec<String>,
    /// Fields that are not known here of facts that are.
    pub(super) unknown_fields: UnknownFields,
    pub(super) history: History,
    pub(super) fds: Vec<Kept>,
    /// The names of those that were taken.
    pub(super) taken: Vec<(Name, Option<Identity>)>,
    pub(super) journal: Journal,
}

impl Past {
    /// Reads the snapshot among the descriptors.
    ///
    /// # Errors
    ///
    /// Why it cannot be used, in words, and the descriptors: the sockets are among them.
    pub fn read(mut fds: Vec<Kept>) -> Result<Past, (String, Vec<Kept>)> {
        let Some(at) = fds.iter().position(|kept| kept.name == Name::Snapshot) else {
            return Err(("there is none".to_owned(), fds));
        };
        let snapshot = fds.swap_remove(at).fd;
        match Past::of(snapshot) {
            Ok(past) => Ok(Past { fds, ..past }),
            Err(why) => Err((why, fds)),
        }
    }

    /// Reads a snapshot, without the descriptors that it is about.
    ///
    /// # Errors
    ///
    /// Why it cannot be used, in words.
    pub fn of(snapshot: OwnedFd) -> Result<Past, String> {
        let (journal, lines) = Journal::read(snapshot).map_err(|why| why.to_string())?;
        let lines = lines.iter().map(String::as_str);
        let Reading { snapshot, others } = Snapshot::read(lines).map_err(|why| why.to_string())?;
        let (mut head, mut ids) = (None, None);
        let (mut configurations, mut definitions) = (BTreeMap::new(), Vec::new());
        let (mut sockets, mut processes) = (Vec::new(), Vec::new());
        let mut flows = Vec::new();
        let (mut connections, mut stored) = (Vec::new(), Vec::new());
        let mut folders = Vec::new();
        let (mut requests, mut half_lines) = (BTreeMap::new(), HashMap::new());
        let (mut unknown, mut unknown_fields) = (Vec::new(), UnknownFields::new());
        let mut history = History::default();
        for (kind, line) in others {
            if !is_known(&kind) {
                unknown.push(line);
                continue;
            }
            let is_history = is_history(&kind);
            let fact: Fact = match serde_json::from_str(&line) {
                Ok(fact) => fact,
                // Nothing depends on it.
                Err(_) if is_history => continue,
                Err(error) => return Err(format!("{}: {error}", words(&kind, &line))),
            };
            // What this version has written says nothing else.
            if !is_history && fact.text() != line {
                let fields = fact.unknown_fields(&line);
                if !fields.is_empty() {
                    unknown_fields.insert(fact.key(), fields);
                }
            }
            let Some(fact) = history.add(fact) else {
                continue;
            };
            match fact {
                Fact::Snapshot(fact) => head = Some(*fact),
                Fact::Ids(fact) => ids = Some(known_ids(fact)),
                Fact::Configuration(fact) => drop(configurations.insert(fact.key, fact.origin)),
                Fact::Definition(fact) => definitions.push(fact),
                Fact::Socket(fact) => sockets.push(fact),
                Fact::Flows(fact) => flows.push(fact),
                Fact::Process(fact) => processes.push(*fact),
                Fact::Connection(fact) => connections.push(fact),
                Fact::Folder(fact) => folders.push(fact),
                Fact::Stored(fact) => stored.push(fact),
                Fact::HalfLine(fact) => drop(half_lines.insert(fact.key, fact)),
                Fact::Request(fact) => drop(requests.insert(fact.key, fact)),
                Fact::Reason(_)
                | Fact::End(_)
                | Fact::Line(_)
                | Fact::Event(_)
                | Fact::Counters(_)
                | Fact::Totals(_) => {}
            }
        }
        let head = head.ok_or("it has no fact `snapshot`")?;
        let ids = ids.ok_or("it has no fact `ids`")?;
        if head.boot != boot() {
            return Err("it is of another boot of this machine".to_owned());
        }
        if !configurations.contains_key(&head.configuration) {
            return Err("it does not have the configuration in force".to_owned());
        }
        Ok(Past {
            head,
            snapshot,
            configurations,
            ids,
            definitions,
            sockets,
            flows,
            processes,
            connections,
            folders,
            stored,
            requests,
            half_lines,
            unknown,
            unknown_fields,
            history,
            fds: Vec::new(),
            taken: Vec::new(),
            journal,
        })
    }

    /// The texts of each configuration from which something in use stems.
    pub fn configurations(&self) -> impl Iterator<Item = (u32, &Origin)> {
        self.configurations
            .iter()
            .map(|(key, origin)| (*key, origin))
    }

    /// The key of the configuration in force.
    pub fn in_force(&self) -> u32 {
        self.head.configuration
    }

    /// The version of listend that has written it.
    pub fn written_by(&self) -> &str {
        &self.head.written_by
    }

    /// When the first listend was started of which it tells.
    pub fn since(&self) -> Mono {
        Mono(self.head.since)
    }

    /// How many processes it knows.
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    /// How many sockets it knows.
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// RLIMIT_NOFILE that the first listend was started with, soft and hard.
    pub fn open_files(&self) -> (Option<u64>, Option<u64>) {
        self.head.open_files
    }

    /// What is of use where listend cannot go on: the descriptors, and what is known of the sockets.
    pub fn into_left(self) -> (Vec<Kept>, Vec<KnownSocket>) {
        let names = self.ids.listeners.iter();
        let names: HashMap<u32, &String> = names.map(|(name, (id, _))| (id.0, name)).collect();
        let known = self.sockets.into_iter().map(|fact| KnownSocket {
            identity: Identity::read(&fact.identity),
            listener: match fact.former {
                None => names.get(&fact.listener).map(|name| (*name).clone()),
                Some(former) => Some(former.listener),
            },
            record: fact.record,
        });
        (self.fds, known.collect())
    }

    /// Whether it has ended as it was asked to, or was killed while it was stopping and nothing is left to be
    /// stopped: who killed it has had the rest of it ended too.
    pub fn is_over(&self) -> bool {
        let mut processes = self.fds.iter().filter_map(|kept| match kept.name {
            Name::Process(_) => Some(&kept.fd),
            _ => None,
        });
        let mut is_left = || processes.any(|fd| pidfd_inode(fd).is_some() && !has_ended(fd));
        let is_asked = |request: &facts::Request| request.is_for_listend();
        let is_stopping = self.snapshot.is_stopping() || self.requests.values().any(is_asked);
        self.snapshot.is_over() || is_stopping && !is_left()
    }

    /// Takes the control socket, with what is known of its file.
    pub fn take_control(&mut self) -> Option<(OwnedFd, SocketRecord)> {
        let fd = self.take(Name::Control).pop()?;
        let record = self.head.control.as_ref()?.record_of(&fd)?;
        Some((fd, record))
    }

    /// The names of the files of the configuration in force.
    pub fn names(&self) -> Vec<String> {
        let origin = self.configurations.get(&self.in_force());
        let files = origin.map_or(&[][..], |origin| &origin.files);
        files.iter().map(|file| file.name.clone()).collect()
    }

    /// Takes the descriptors with a name.
    fn take(&mut self, name: Name) -> Vec<OwnedFd> {
        let (taken, left) = std::mem::take(&mut self.fds)
            .into_iter()
            .partition(|kept| kept.name == name);
        self.fds = left;
        let taken: Vec<Kept> = taken;
        let identified = taken.iter().map(|kept| (kept.name, Identity::of(&kept.fd)));
        self.taken.extend(identified);
        taken.into_iter().map(|kept| kept.fd).collect()
    }
}

/// Whether a pidfd is of a process that has ended.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut ended, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Whether a kind is one of the shell's.
fn is_known(kind: &str) -> bool {
    let is_needed = matches!(
        kind,
        "snapshot"
            | "configuration"
            | "ids"
            | "definition"
            | "socket"
            | "flows"
            | "process"
            | "connection"
            | "folder"
            | "stored"
            | "request"
            | "half_line"
    );
    is_needed || is_history(kind)
}

/// `socket 7`.
fn words(kind: &str, line: &str) -> String {
    let fact: Value = serde_json::from_str(line).unwrap_or_default();
    match fact.get("key") {
        Some(key) => format!("{kind} {key}"),
        None => kind.to_owned(),
    }
}

fn known_ids(fact: facts::Ids) -> KnownIds {
    let listeners = fact.listeners.into_iter().map(|(name, (id, keys))| {
        let keys = keys.into_iter().map(SocketKey).collect();
        (name, (ListenerId(id), keys))
    });
    let workers = fact.workers.into_iter();
    KnownIds {
        listeners: listeners.collect(),
        workers: workers.map(|(name, id)| (name, WorkerId(id))).collect(),
        next: fact.next,
    }
}
