//! What outlives this process: what stands in the snapshot, who keeps the descriptors, and how another
//! listend goes on from there.
//!
//! With a keeper ([`Keeper`]) the snapshot is written at the end of each turn in which a fact has changed, and
//! the descriptors are sent as they come. Without one nothing is written until an upgrade writes everything
//! at once.

mod facts;
mod found;
mod history;
mod past;
mod readopt;
mod record;
mod resume;
mod take_over;
#[cfg(test)]
mod tests;

pub use past::{KnownSocket, Past};
pub use resume::{Resumed, Thawed};
pub use take_over::LeftWorker;

use super::clock;
use super::logs::Half;
use crate::core::{Mono, ProcessId};
use crate::diagnose::Orphan;
use crate::listener::{self, SocketTable};
use crate::plan::{Origin, SocketKey, WorkerId};
use crate::store::{Identity, Journal, Keeper, Name, Refused};
use crate::sys::Tell;
use facts::{Fact, HALF_LINE, HalfLine, STORED};
use nix::errno::Errno;
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The sockets of listend's own.
const OWN: [Name; 3] = [Name::Notify, Name::Acks, Name::Control];
/// So many sockets have one name at the keeper: as many as go in one message.
const SOCKETS_PER_NAME: usize = crate::store::MOST_PER_MESSAGE;
/// So long after it was accepted a connection is written down. Most are over by then, and one that is not
/// written is found again.
const CONNECTIONS: Duration = Duration::from_millis(250);
/// The same of one with a pipe that listend reads, which a listend that is killed before would take with it.
const PIPES: Duration = Duration::from_millis(50);
/// What a keeper had no room for is sent again after this time. Its socket has room for 11 messages
/// (/proc/sys/net/unix/max_dgram_qlen), so that ten thousand descriptors would take 18 seconds.
const AGAIN: Duration = Duration::from_millis(20);
/// The same while it reads what it gets.
const AGAIN_SOON: Duration = Duration::from_millis(1);
/// How long a start waits for a keeper that has no room. The loop never does.
const FIRST: Duration = Duration::from_secs(5);
/// How long an answer waits for what was given up to be closed.
const CLOSED: Duration = Duration::from_secs(2);
/// How often is it looked whether another process has reaped one that has ended, and how long.
const REAPED: Duration = Duration::from_millis(5);
const REAPED_AT_LAST: Duration = Duration::from_secs(2);
/// The same after an error that does not pass by itself.
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Why a worker is replaced whose pipe is lost.
const UNREAD: &str = "nobody reads any more what it writes";

/// Fields by the facts that had them.
type UnknownFields = BTreeMap<(&'static str, u64), Map<String, Value>>;

/// A process that serves a connection which is not known. The core is about to ask for it.
#[derive(Debug)]
pub(super) struct Found {
    orphan: Orphan,
    worker: WorkerId,
    index: u32,
    pidfd: OwnedFd,
}

/// What is written, and what was sent.
#[derive(Debug, Default)]
pub(super) struct Store {
    journal: Option<Journal>,
    keeper: Option<Keeper>,
    /// Something of the shell but a process may have changed.
    is_stale: Cell<bool>,
    /// What is kept under the names that may come to stand for something else: a socket of listend's own that is
    /// removed and made again, and a main process that another has become.
    identities: BTreeMap<Name, Option<Identity>>,
    /// What each fact of the shell was when it was written last.
    written: BTreeMap<(&'static str, u64), u64>,
    /// The texts from which definitions in use stem, by their keys.
    configurations: BTreeMap<u32, Arc<Origin>>,
    /// The facts of kinds that are not known here, as they came.
    unknown: Vec<String>,
    /// The fields that are not known here of facts that are.
    unknown_fields: UnknownFields,
    sockets: SocketNames,
    /// The names under which something is kept, but for sockets.
    names: BTreeSet<Name>,
    /// The journal has what another listend has written, and is to begin anew.
    is_to_begin: bool,
    /// The files of sockets, as they were listed last ([`left_files`]).
    files: Option<String>,
    /// What was asked for in this turn, or in the last of the listend before.
    requests: BTreeMap<u64, facts::Request>,
    /// The processes whose half lines are written.
    half_lines: BTreeSet<ProcessId>,
    /// When connections that have come or gone are written down.
    record_at: Option<Mono>,
    /// When the rest is sent.
    again_at: Option<Mono>,
    /// When the first fact was left unwritten.
    behind_since: Option<Mono>,
    /// How long the keeper is waited for that closes what was given up.
    closing_until: Option<Mono>,
    /// The sockets that were not kept and that only workers have. The next listend may take them.
    unheld: Vec<facts::Socket>,
    /// What it was said that there is no room for.
    told_refused: Refused,
    /// The processes that have ended and that another process is to reap, and since when that is waited for.
    unreaped: BTreeMap<ProcessId, Mono>,
}

/// Under which names held sockets are kept. A socket keeps its name whoever has it: to have it under another it
/// would have to be forgotten first, and who is killed in between would lose it.
#[derive(Debug, Default)]
struct SocketNames {
    named: HashMap<Identity, u32>,
    members: BTreeMap<u32, BTreeSet<Identity>>,
    next: u32,
    /// Where they are at the moment.
    places: HashMap<Identity, HeldPlace>,
}

/// Where a held socket is: in the table, or apart from it with who has it for itself (`flows: sticky`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeldPlace {
    key: SocketKey,
    lane: Option<u64>,
    /// Others come and go at its address: it has a name of its own, so that no other socket is forgotten with it.
    is_alone: bool,
}

impl SocketNames {
    fn known(sockets: impl IntoIterator<Item = (u32, Identity)>) -> SocketNames {
        let mut names = SocketNames::default();
        for (group, identity) in sockets {
            names.next = names.next.max(group + 1);
            let members = names.members.entry(group).or_default();
            members.insert(identity.clone());
            names.named.insert(identity, group);
        }
        names
    }
}

/// Where the files are listed that a listend with a keeper leaves behind (`LISTEND_LEFT`).
pub fn left_files() -> Option<PathBuf> {
    let list = std::env::var_os("LISTEND_LEFT").filter(|list| !list.is_empty());
    list.map(PathBuf::from)
}

impl Store {
    /// Whether somebody keeps descriptors: who started listend.
    pub(super) fn has_keeper(&self) -> bool {
        self.keeper.is_some()
    }

    /// Goes on with the snapshot of the listend before and with the names under which the keeper has its
    /// descriptors: it keeps nothing twice, and so nothing under a second name.
    pub(super) fn continued(
        keeper: Option<Keeper>,
        journal: Journal,
        named: impl IntoIterator<Item = (Name, Option<Identity>)>,
    ) -> Store {
        let mut store = Store {
            is_stale: Cell::new(true),
            ..Store::default()
        };
        let Some(mut keeper) = keeper else {
            return store;
        };
        store.journal = Some(journal);
        store.is_to_begin = true;
        let mut sockets = Vec::new();
        let mut broken = BTreeSet::new();
        let mut all = Vec::new();
        for (name, socket) in named {
            all.push(name);
            match (name, socket) {
                (Name::Sockets(group), Some(identity)) => sockets.push((group, identity)),
                // Nobody knows what it is.
                (Name::Sockets(group), None) => drop(broken.insert(group)),
                (_, identity) => {
                    let is_only = store.names.insert(name);
                    // Of two that have one name none is known.
                    if OWN.contains(&name) {
                        store.identities.insert(name, identity.filter(|_| is_only));
                    }
                }
            }
        }
        sockets.retain(|(group, _)| !broken.contains(group));
        store.sockets = SocketNames::known(sockets);
        keeper.has(all);
        for group in broken {
            keeper.remove(Name::Sockets(group));
            store.sockets.next = store.sockets.next.max(group + 1);
        }
        store.keeper = Some(keeper);
        store
    }

    /// With a keeper, if there is one, which has these sockets and nothing else.
    pub(super) fn new(
        keeper: Option<Keeper>,
        sockets: impl IntoIterator<Item = (u32, SocketKey, Identity)>,
    ) -> Store {
        let mut store = Store {
            is_stale: Cell::new(true),
            ..Store::default()
        };
        let Some(mut keeper) = keeper else {
            return store;
        };
        let _read_now = boot();
        match Journal::create() {
            Ok(journal) => {
                let sockets: Vec<_> = sockets.into_iter().collect();
                keeper.has(sockets.iter().map(|(group, ..)| Name::Sockets(*group)));
                store.journal = Some(journal);
                store.keeper = Some(keeper);
                let sockets = sockets.into_iter();
                let sockets = sockets.map(|(name, _, identity)| (name, identity));
                store.sockets = SocketNames::known(sockets);
                // First: without it, nothing that is kept means anything.
                store.keep(Name::Snapshot);
            }
            Err(error) => log::error!(
                "nothing outlives this listend: the snapshot cannot be written: {error}"
            ),
        }
        store
    }

    /// Writes down which files there are for sockets that the keeper has. Who comes when this listend has ended
    /// removes what nobody is to find.
    fn list_files(&mut self, sockets: &SocketTable) {
        let (Some(list), Some(_)) = (left_files(), &self.keeper) else {
            return;
        };
        let text = listener::list_files(sockets.iter());
        if self.files.as_ref() == Some(&text) {
            return;
        }
        self.files = match std::fs::write(&list, &text) {
            Ok(()) => Some(text),
            Err(error) => {
                log::warn!(
                    "cannot write {}: {error}; the paths of sockets are not kept over a restart",
                    list.display()
                );
                None
            }
        };
    }

    /// Whether somebody else removes the files of sockets.
    pub(super) fn leaves_files(&self) -> bool {
        self.keeper.is_some() && self.files.is_some()
    }

    /// How a child is launched of which it is written down that it exists: where nobody reads that, it need not
    /// wait for it.
    pub(super) fn tell(&self) -> Tell<'static> {
        match self.is_kept() {
            true => Tell::PipeWhenReleased,
            false => Tell::ByPipe,
        }
    }

    /// Whether everything has to be written as it happens.
    pub(super) fn is_kept(&self) -> bool {
        self.keeper.is_some()
    }

    /// Whether nothing was written or sent yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.written.is_empty() && !self.is_to_begin
    }

    /// Whether the keeper has not got all of it yet.
    pub(super) fn is_behind(&self) -> bool {
        self.again_at.is_some()
    }

    /// Whether the keeper still has sockets that were given up, whose addresses are taken until it closes them.
    fn is_closing(&mut self) -> bool {
        let Some(until) = self.closing_until else {
            return false;
        };
        let keeper = self.keeper.as_mut();
        let is_closing = keeper.is_some_and(|keeper| {
            if clock::now() >= until {
                keeper.stop_waiting();
            }
            keeper.is_closing()
        });
        if !is_closing {
            self.closing_until = None;
        }
        is_closing
    }

    /// Whether there is nothing to write or to send but what can wait.
    fn can_wait(&self) -> bool {
        let is_idle = self.keeper.as_ref().is_some_and(Keeper::is_idle);
        let is_written = !self.is_stale.get() && !self.is_to_begin && self.requests.is_empty();
        is_idle && is_written && self.again_at.is_none()
    }

    /// Whether what can wait has waited long enough; from the first time on that this is asked.
    fn is_time(&mut self) -> bool {
        let now = clock::now();
        now >= *self.record_at.get_or_insert(now + CONNECTIONS)
    }

    /// There is a pipe that is to be kept soon.
    fn has_new_pipe(&mut self) {
        let soon = clock::now() + PIPES;
        self.record_at = Some(self.record_at.map_or(soon, |at| at.min(soon)));
    }

    /// Whether to send. Room may come at any time; an error is not tried again with every turn.
    fn may_send(&self) -> bool {
        self.again_at.is_none_or(|at| at <= clock::now() + AGAIN)
    }

    /// Something but a process may have changed.
    pub(super) fn touch(&self) {
        self.is_stale.set(true);
    }

    /// When something is to be tried again.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let reaped = (!self.unreaped.is_empty()).then(|| clock::now() + REAPED);
        let others = self.record_at.into_iter().chain(reaped);
        let others = others.chain(self.closing_until);
        self.again_at.into_iter().chain(others).min()
    }

    /// A process has ended whose parent is another process, and how is known when that has reaped it. Whether
    /// that is waited for: not for ever.
    pub(super) fn waits_for_reaper(&mut self, process: ProcessId) -> bool {
        let now = clock::now();
        let since = *self.unreaped.entry(process).or_insert(now);
        let waits = now.since(since) < REAPED_AT_LAST;
        if !waits {
            self.unreaped.remove(&process);
        }
        waits
    }

    /// The processes that may have been reaped by now.
    pub(super) fn reaped_by_now(&self) -> Vec<ProcessId> {
        self.unreaped.keys().copied().collect()
    }

    /// Records that the exit status of a process is known.
    pub(super) fn is_reaped(&mut self, process: ProcessId) {
        self.unreaped.remove(&process);
    }

    /// The key of a configuration, under which it stands from now on.
    fn configuration(&mut self, origin: &Arc<Origin>) -> u32 {
        let mut known = self.configurations.iter();
        if let Some((key, _)) =
            known.find(|(_, known)| Arc::ptr_eq(known, origin) || *known == origin)
        {
            return *key;
        }
        let key = self
            .configurations
            .keys()
            .next_back()
            .map_or(0, |last| last + 1);
        self.configurations.insert(key, Arc::clone(origin));
        key
    }

    /// The line that tells a fact, with what another listend has told of it.
    fn text(&self, fact: &Fact) -> String {
        let mut text = fact.text();
        let Some(more) = self.unknown_fields.get(&fact.key()) else {
            return text;
        };
        if let Ok(Value::Object(mut whole)) = serde_json::from_str(&text) {
            for (field, value) in more {
                whole.entry(field).or_insert_with(|| value.clone());
            }
            text = Value::Object(whole).to_string();
        }
        text
    }

    /// The line that says that a fact is none any more.
    fn gone(&mut self, key: (&'static str, u64)) -> String {
        self.unknown_fields.remove(&key);
        facts::gone(key)
    }

    /// The lines that tell what is different in the facts that do not change with every process. `facts` are
    /// all of certain kinds.
    fn differences(&mut self, facts: &[Fact], is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let now: BTreeSet<_> = facts.iter().map(Fact::key).collect();
        let meant = self.written.keys().filter(|(kind, _)| is_meant(kind));
        let gone = meant.filter(|key| !now.contains(key));
        let gone: Vec<_> = gone.copied().collect();
        let mut lines = Vec::new();
        for key in gone {
            self.written.remove(&key);
            lines.push(self.gone(key));
            if let (STORED, id) = key {
                self.forget(Name::Stored(id));
            }
        }
        for fact in facts {
            let (key, text) = (fact.key(), self.text(fact));
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            let hash = hasher.finish();
            let before = self.written.insert(key, hash);
            if before == Some(hash) {
                continue;
            }
            if let Fact::Stored(one) = fact
                && before.is_none()
            {
                self.keep(Name::Stored(one.key));
            }
            lines.push(text);
        }
        lines
    }

    /// Gives sockets that are not kept yet a name, and has the keeper forget those that are gone.
    fn name_sockets(&mut self, held: Vec<(Identity, HeldPlace)>) {
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        let names = &mut self.sockets;
        let now: BTreeSet<&Identity> = held.iter().map(|(one, _)| one).collect();
        let mut broken = BTreeSet::new();
        names.named.retain(|identity, name| {
            let is_there = now.contains(identity);
            if !is_there {
                broken.insert(*name);
            }
            is_there
        });
        // A name is forgotten as a whole: what is left of it gets another.
        for name in broken {
            keeper.remove(Name::Sockets(name));
            for identity in names.members.remove(&name).into_iter().flatten() {
                names.named.remove(&identity);
            }
        }
        let unnamed = held
            .iter()
            .filter(|(one, _)| !names.named.contains_key(one));
        let (alone, shared): (Vec<_>, Vec<_>) = unnamed.partition(|(_, place)| place.is_alone);
        for some in shared.chunks(SOCKETS_PER_NAME).chain(alone.chunks(1)) {
            let name = names.next;
            names.next += 1;
            let members: BTreeSet<Identity> = some.iter().map(|(one, _)| one.clone()).collect();
            let named = members.iter().map(|one| (one.clone(), name));
            names.named.extend(named);
            names.members.insert(name, members);
            keeper.add(Name::Sockets(name));
        }
        names.places = held.into_iter().collect();
    }

    /// Has what is called this kept.
    fn keep(&mut self, name: Name) {
        if let Some(keeper) = &mut self.keeper
            && self.names.insert(name)
        {
            keeper.add(name);
        }
    }

    /// Has nothing kept under a name that was something else than this.
    fn keep_no_other(&mut self, name: Name, identity: Option<Identity>) {
        if self.identities.insert(name, identity.clone()) != Some(identity) {
            self.forget(name);
        }
    }

    /// Has nothing kept that is called this.
    fn forget(&mut self, name: Name) {
        if let Some(keeper) = &mut self.keeper
            && self.names.remove(&name)
        {
            keeper.remove(name);
        }
    }

    /// Writes down what was read of a line, if more of it may be written: before more is read, and before what was
    /// read is passed on. Otherwise the next listend would pass it on once more, or together with what does not
    /// follow it. Whether that is so.
    fn note_half_line(&mut self, process: ProcessId, half: Half<'_>) -> bool {
        if !self.half_lines.contains(&process) {
            return false;
        }
        let fact = match half {
            Half::Opens(splitter) => HalfLine::of(process, splitter).map(HalfLine::opened),
            Half::Is(splitter) => HalfLine::of(process, splitter),
            Half::Ended => None,
        };
        match fact {
            Some(fact) => self.append(&Fact::HalfLine(fact).text()),
            None => {
                self.half_lines.remove(&process);
                self.append(&facts::gone((HALF_LINE, process.0)));
            }
        }
        true
    }

    /// Writes one line. A failure is met again at the end of the turn.
    fn append(&mut self, line: &str) {
        if let Some(journal) = &mut self.journal {
            let _met_again = journal.append([line]);
        }
    }

    /// Writes lines; `everything` answers with all that is known, for a new base.
    fn write(&mut self, lines: &[String], everything: impl FnOnce(&mut Store) -> Vec<String>) {
        let Some(mut journal) = self.journal.take() else {
            return;
        };
        let begins = std::mem::take(&mut self.is_to_begin);
        let written = match begins || journal.wants_base() {
            true => journal.write_base(everything(self).iter().map(String::as_str)),
            false if lines.is_empty() => Ok(()),
            false => journal.append(lines.iter().map(String::as_str)),
        };
        match written {
            Ok(()) => self.journal = Some(journal),
            Err(error) => {
                // What is not complete is not to be believed: the sockets are, without it.
                journal.invalidate();
                log::error!(
                    "cannot write the snapshot: {error}; if this listend is killed, its successor keeps \
                     the sockets but not the workers"
                );
            }
        }
    }

    /// What is written next is everything.
    pub(super) fn begin_anew(&mut self) {
        self.is_to_begin = true;
    }

    /// Writes all that is known, whoever keeps it.
    pub(super) fn write_at_once(&mut self, lines: &[String]) -> std::io::Result<()> {
        let mut journal = match self.journal.take() {
            Some(journal) => journal,
            None => Journal::create()?,
        };
        let written = journal.write_base(lines.iter().map(String::as_str));
        self.journal = Some(journal);
        written
    }

    /// Says once of what there is more than the keeper keeps.
    fn tell_refused(&mut self, keeper: &Keeper) {
        let Refused { sockets, others } = keeper.refused();
        let told = &mut self.told_refused;
        let (is_news, most) = (
            sockets > 0 && told.sockets == 0 || others > 0 && told.others == 0,
            keeper.most(),
        );
        if is_news {
            let more = sockets + others;
            log::warn!(
                "only {most} descriptors are kept for the next listend, {more} too few: if listend dies, {}; {RAISE}",
                lost(sockets)
            );
        }
        told.sockets = told.sockets.max(sockets);
        told.others = told.others.max(others);
    }

    /// The same before there are any processes. `wanted` are `sockets`, and what is kept of processes.
    fn tell_needed(&mut self, wanted: usize, sockets: usize) {
        let Some(most) = self.keeper.as_ref().map(Keeper::most) else {
            return;
        };
        let unkept = sockets.saturating_sub(most);
        let more = wanted.saturating_sub(most);
        if more > 0 {
            log::warn!(
                "only {most} descriptors are kept for the next listend, and this configuration needs {wanted}: \
                 if listend dies, {}; {RAISE}",
                lost(unkept)
            );
            self.told_refused = Refused {
                sockets: unkept,
                others: more - unkept,
            };
        }
    }

    /// What came of sending to the keeper.
    fn sent(&mut self, keeper: Keeper, sent: Result<bool, Errno>) {
        self.again_at = None;
        if sent != Ok(false) {
            self.behind_since.get_or_insert_with(clock::now);
        }
        match sent {
            Ok(false) => {
                self.behind_since = None;
                self.tell_refused(&keeper);
            }
            Ok(true) => {
                let delay = if keeper.takes() { AGAIN_SOON } else { AGAIN };
                self.again_at = Some(clock::now() + delay);
            }
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => {
                log::warn!(
                    "the process that keeps the descriptors is gone: nothing outlives this listend any more"
                );
                self.journal = None;
                return;
            }
            Err(errno) => {
                log::warn!(
                    "cannot have descriptors kept: {}; trying again",
                    errno.desc()
                );
                self.again_at = Some(clock::now() + AFTER_ERROR);
            }
        }
        self.keeper = Some(keeper);
    }
}

/// What helps where not everything is kept.
const RAISE: &str = "raise FileDescriptorStoreMax= and LimitNOFILE= of the unit, or the limit on open files of \
                     `listend run --guard`";

/// What is lost with a listend for which not everything is kept.
fn lost(sockets: usize) -> String {
    let processes =
        "workers without a kept pipe are replaced, and how others ended meanwhile is not known";
    match sockets {
        0 => processes.to_owned(),
        sockets => format!(
            "sockets that only its workers have then: {sockets} (the next one takes them where it may); {processes}"
        ),
    }
}

/// What distinguishes this boot of the machine from others.
///
/// Read once: later there may be no descriptor for that.
fn boot() -> String {
    static BOOT: OnceLock<String> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    BOOT.get_or_init(|| read().map_or_else(|_| String::new(), |boot| boot.trim().to_owned()))
        .clone()
}
