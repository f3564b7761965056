//! The control socket: who asks, and what for. Part of the one loop, and never in its way.
//!
//! What comes from clients is read as it comes and carried out in slices: so much time in each turn
//! of the loop, and the workers' turn comes in between. A client that has a call under way, or has
//! not read the answer to the last, is not read from. Nothing here costs anything while nobody asks.

mod answer;
pub(super) mod client;
mod confined;
mod events;
mod give;
pub(super) mod helper;
pub(super) mod helper_query;
mod lines;
pub(super) mod pending_upgrade;
mod reload;
mod socket;
mod status;
mod status_reply;
mod take;
mod upgrade;

pub use socket::{ControlSocket, NoControl};

use super::metrics::Job;
use crate::config::Endpoint;
use crate::control::{Access, Binary, Event, Owner, Reply};
use crate::core::{Mono, Ticket};
use crate::listener::{BindError, BoundSocket, SocketRecord};
use crate::plan::Plan;
use crate::shell::clock;
use crate::shell::own_socket::OwnRepair;
use crate::shell::queues::QueueLog;
use crate::shell::reserve::Reserve;
use crate::shell::token::{ClientId, ControlPart, QueryId, Token};
use crate::sys::SharedFd;
use client::{Client, Gone, WaitsFor};
use confined::Origin;
use helper::HelperQuery;
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit};
use socket2::SockRef;
use status_reply::StatusReply;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an address that was given up may be taken by whoever had a copy of its socket.
const GIVEN_UP: Duration = Duration::from_secs(2);
/// So many clients are served at once, if descriptors allow it.
const MAX_CLIENTS: usize = 2048;
/// So many of those that may do nothing: they get as far as being told so.
const MAX_UNAUTHORIZED: usize = 64;
/// So much is kept for all clients together, in bytes. Beyond, those are closed that have not moved
/// for longest.
const MAX_HELD: usize = 64 << 20;
/// So many are accepted in a turn.
const ACCEPTS_PER_TURN: usize = 16;
/// So many of them find a descriptor in the reserve: somebody has to be able to ask what is wrong.
const RESERVED: usize = 4;
/// How long nobody is accepted after there was no descriptor left.
const PAUSE: Duration = Duration::from_secs(1);

/// Why nothing came of what a client had asked for.
const GONE: &str = "whoever asked for it has gone";

/// Names beyond these are not compared with one that is not known: that takes its time.
const NAMES_COMPARED: usize = 1_000;

/// So long clients are served in one turn of the loop; then it is the workers' turn again, and that of clients
/// who have asked since.
const SLICE: Duration = Duration::from_micros(500);

/// Whether clients are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AcceptState {
    Open,
    /// Full, until a client leaves.
    Full,
    /// Paused until then, for lack of descriptors.
    Paused(Mono),
}

/// Everything about the control socket and its clients. The default is that there is none.
pub struct Control {
    socket: Option<ControlSocket>,
    accept_state: AcceptState,
    max_clients: usize,
    clients: HashMap<ClientId, Client>,
    next_id: u64,
    /// The clients whose next call is due.
    queue: VecDeque<ClientId>,
    /// Who is to be told the status, one after the other.
    status_replies: VecDeque<StatusReply>,
    /// Who is to be told the metrics.
    pages: VecDeque<(ClientId, Job)>,
    /// Who is to be passed sockets.
    takers: VecDeque<ClientId>,
    /// Who is to be told every event.
    watchers: BTreeSet<ClientId>,
    /// The last events, for those who come later.
    past: VecDeque<Event>,
    /// Who is to be told lines of workers.
    followers: BTreeSet<ClientId>,
    /// Who of them was told lines last.
    told_last: ClientId,
    /// Whether there are lines for somebody who would take them at once.
    owes_lines: bool,
    /// Who waits for which answer of the core.
    tickets: HashMap<Ticket, ClientId>,
    /// What reloads have changed, until they are over.
    pub(super) changes: HashMap<Ticket, Vec<String>>,
    /// Who does not want to wait for the end of a reload.
    no_wait: BTreeSet<ClientId>,
    pub(super) queries: HashMap<QueryId, HelperQuery>,
    /// What was found at queues when somebody asked.
    pub(super) queue_log: QueueLog,
    /// Who is told something when that is done.
    withheld: BTreeSet<ClientId>,
    /// Since when somebody is.
    withheld_since: Option<Mono>,
    /// How many bytes are kept for all clients.
    held: usize,
    /// When the first listend was started of which this one goes on: nothing that is told here is older.
    since: Mono,
    /// When this program was executed.
    executed: Mono,
    /// The file that it was executed from.
    binary: Option<Binary>,
    /// The configuration, for processes that read it again.
    config: PathBuf,
    /// The names of the files that places are in.
    pub(super) files: Vec<String>,
}

/// The reload that is being read, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    under_way: bool,
    /// Whose reload waits for an address, if one does.
    blocked: Option<Option<ClientId>>,
    /// `None` is a signal.
    waiting: VecDeque<Option<ClientId>>,
    /// The addresses of the sockets that were closed, and when. Whoever has a copy of one, such as the keeper or
    /// a child before its exec, closes that a moment later.
    given_up: VecDeque<(Endpoint, Mono)>,
}

impl Reloads {
    /// A socket was closed.
    pub(in crate::shell) fn gave_up(&mut self, address: Endpoint) {
        self.forget_what_is_free();
        self.given_up.push_back((address, clock::now()));
    }

    fn forget_what_is_free(&mut self) {
        let now = clock::now();
        let is_over = |(_, at): &(Endpoint, Mono)| now >= *at + GIVEN_UP;
        while self.given_up.front().is_some_and(is_over) {
            self.given_up.pop_front();
        }
    }

    /// Whether an address is taken only for a moment, as far as is known.
    fn is_free_soon(&mut self, plan: &Plan, errors: &[BindError]) -> bool {
        self.forget_what_is_free();
        let lately = self.given_up.iter().map(|(address, _)| address);
        let lately: HashSet<&Endpoint> = lately.collect();
        let mut all = errors.iter();
        !errors.is_empty()
            && all.all(|error| {
                let wanted = &plan.listener(error.listener).sockets[error.socket].endpoint;
                error.errno == libc::EADDRINUSE
                    && (lately.contains(wanted) || lately.iter().any(|one| one.overlaps(wanted)))
            })
    }

    /// Whether a configuration is being read, or its listeners bound.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }
}

impl Default for Control {
    fn default() -> Control {
        let now = clock::now();
        Control {
            socket: None,
            accept_state: AcceptState::Open,
            max_clients: 0,
            clients: HashMap::new(),
            next_id: 0,
            queue: VecDeque::new(),
            status_replies: VecDeque::new(),
            pages: VecDeque::new(),
            takers: VecDeque::new(),
            watchers: BTreeSet::new(),
            past: VecDeque::new(),
            followers: BTreeSet::new(),
            told_last: 0,
            owes_lines: false,
            tickets: HashMap::new(),
            changes: HashMap::new(),
            no_wait: BTreeSet::new(),
            queries: HashMap::new(),
            queue_log: QueueLog::default(),
            withheld: BTreeSet::new(),
            withheld_since: None,
            held: 0,
            since: now,
            executed: now,
            binary: None,
            config: PathBuf::new(),
            files: Vec::new(),
        }
    }
}

impl Control {
    /// A daemon without a control socket. SIGHUP still reloads it.
    pub fn silent(config: PathBuf, files: Vec<String>) -> Control {
        Control {
            config,
            files,
            ..Control::default()
        }
    }

    /// Serves this socket. `config` is the configuration that runs, and `files` are the names of
    /// the files it is made of, by [`crate::report::FileId`].
    pub fn new(socket: ControlSocket, config: PathBuf, files: Vec<String>) -> Control {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        // Most descriptors are for listeners and workers.
        let allowed = usize::try_from(descriptors / 4).unwrap_or(MAX_CLIENTS);
        Control {
            socket: Some(socket),
            max_clients: allowed.clamp(1, MAX_CLIENTS),
            config,
            files,
            ..Control::default()
        }
    }

    /// Begins to listen to clients.
    pub(super) fn open(&mut self, epoll: &Epoll) {
        let Some(socket) = self.socket.as_ref().and_then(ControlSocket::socket) else {
            return;
        };
        let token = Token::Control(ControlPart::Accept).pack();
        match epoll.add(&socket.fd, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
            Ok(()) | Err(Errno::EEXIST) => self.accept_state = AcceptState::Open,
            Err(errno) => log::warn!("cannot watch the control socket: {}", errno.desc()),
        }
    }

    fn stop_accepting(&mut self, epoll: &Epoll, how: AcceptState) {
        if let Some(socket) = self.socket.as_ref().and_then(ControlSocket::socket) {
            let _not_watched = epoll.delete(&socket.fd);
        }
        self.accept_state = how;
    }

    /// Puts the control socket right, if something is wrong with it.
    pub(super) fn repair(&mut self, epoll: &Epoll) -> Option<OwnRepair> {
        let socket = self.socket.as_mut()?;
        let found = socket.repair()?;
        // It may be another one.
        self.open(epoll);
        Some(found)
    }

    /// Where it is in the file system.
    pub(super) fn files(&self) -> Vec<Cow<'_, Path>> {
        let socket = self.socket.as_ref().and_then(ControlSocket::socket);
        socket.map(BoundSocket::files).unwrap_or_default()
    }

    /// The socket that clients connect to.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        let socket = self.socket.as_ref().and_then(ControlSocket::socket);
        socket.map(|socket| socket.fd.as_fd())
    }

    /// Where that is, and what is known of its file.
    pub(super) fn place(&self) -> Option<(&Path, SocketRecord)> {
        let socket = self.socket.as_ref().and_then(ControlSocket::socket)?;
        Some((self.path()?, socket.record()))
    }

    /// When the first listend was started of which this one goes on.
    pub(super) fn since(&self) -> Mono {
        self.since
    }

    /// Goes on with what another listend has begun at this time.
    #[must_use]
    pub fn begun_at(mut self, since: Mono) -> Control {
        self.since = since;
        self
    }

    /// Says which file this program was executed from.
    #[must_use]
    pub fn executed_from(mut self, binary: Option<Binary>) -> Control {
        self.binary = binary;
        self
    }

    /// Where it can be asked.
    pub(super) fn path(&self) -> Option<&Path> {
        self.socket.as_ref()?.path()
    }

    fn owner(&self) -> Option<Owner> {
        self.socket.as_ref().map(ControlSocket::owner)
    }

    /// A number that nothing else here has.
    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// Whether there is something to do without being told by the kernel.
    pub(super) fn has_work(&self) -> bool {
        let is_idle = self.queue.is_empty() && self.status_replies.is_empty();
        !(is_idle && self.pages.is_empty() && self.takers.is_empty())
    }

    /// Whether there are lines for somebody who would take them at once.
    pub(super) fn owes_lines(&self) -> bool {
        self.owes_lines
    }

    /// When to look again, if nothing else happens before.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let accept_state = self.accepts_again().into_iter();
        accept_state.chain(self.query_due()).min()
    }

    fn accepts_again(&self) -> Option<Mono> {
        match self.accept_state {
            AcceptState::Paused(until) => Some(until),
            AcceptState::Open | AcceptState::Full => None,
        }
    }

    /// Listens to clients again if that was put off until now.
    fn resume(&mut self, epoll: &Epoll) {
        let is_due = self
            .accepts_again()
            .is_some_and(|until| until <= clock::now());
        if is_due {
            self.open(epoll);
        }
    }

    /// Takes some of those who wait; `of_sandboxes` if any worker has one.
    fn accept(&mut self, epoll: &Epoll, reserve: Reserve, of_sandboxes: Option<Origin<'_>>) {
        for _ in 0..ACCEPTS_PER_TURN {
            if self.clients.len() >= self.max_clients {
                log::warn!(
                    "control socket: {} clients, and no more until one disconnects",
                    self.max_clients
                );
                return self.stop_accepting(epoll, AcceptState::Full);
            }
            let Some(socket) = self.socket.as_ref().and_then(ControlSocket::socket) else {
                return;
            };
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let lent = (self.clients.len() < RESERVED).then(|| reserve.lend());
            let accepted = SockRef::from(&socket.fd).accept4(flags);
            drop(lent);
            let accepted = match accepted {
                Ok((accepted, _)) => accepted,
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS) => {
                        log::warn!("control socket: cannot accept a client: {error}");
                        let until = clock::now() + PAUSE;
                        return self.stop_accepting(epoll, AcceptState::Paused(until));
                    }
                    // Gone again, or nobody is left.
                    _ => return,
                },
            };
            if let Ok(mut client) = Client::new(OwnedFd::from(accepted).into(), clock::now()) {
                let pid = client.peer.pid;
                client.peer.is_confined = of_sandboxes.is_some_and(|origin| origin.is_of(pid));
                self.admit(epoll, client);
            }
        }
    }

    /// The other end of a connection over which a worker of listend's own may ask, and may not act; or may
    /// restart this worker, and do nothing else.
    pub(super) fn connect(
        &mut self,
        epoll: &Epoll,
        restarts: Option<String>,
    ) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        let client = Client::built_in(OwnedFd::from(ours).into(), clock::now(), restarts)?;
        self.admit(epoll, client);
        Ok(theirs.into())
    }

    fn admit(&mut self, epoll: &Epoll, mut client: Client) {
        let owner = self.owner();
        let access = client.peer.access(owner);
        let like_it = |one: &&Client| one.peer.access(owner) == access;
        let places = places(access, self.max_clients).filter(|_| !client.peer.built_in);
        if places.is_some_and(|places| self.clients.values().filter(like_it).count() >= places) {
            log::debug!(
                "control socket: too many clients like {}",
                client.peer.words()
            );
            return;
        }
        let id = self.new_id();
        client.watched = client.wants();
        let token = Token::Control(ControlPart::Client(id)).pack();
        match epoll.add(client.socket(), EpollEvent::new(client.watched, token)) {
            Ok(()) => {
                self.clients.insert(id, client);
            }
            Err(errno) => log::warn!("cannot watch a client: {}", errno.desc()),
        }
    }

    /// The kernel tells something about a client.
    fn client_event(&mut self, epoll: &Epoll, id: ClientId, flags: EpollFlags) {
        let now = clock::now();
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let mut outcome = Ok(());
        if flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR) {
            outcome = client.flush(now);
        }
        if outcome.is_ok() && flags.contains(EpollFlags::EPOLLIN) {
            outcome = client.receive();
        } else if flags.contains(EpollFlags::EPOLLHUP) && !client.is_queued {
            // Nobody is there to be told, and all that was sent has been read.
            outcome = Err(Gone::Closed);
        }
        match outcome {
            Ok(()) => self.settle(epoll, id),
            Err(gone) => self.drop_client(epoll, id, &gone),
        }
    }

    /// Sends a reply, and goes on with the client.
    fn reply(&mut self, epoll: &Epoll, id: ClientId, reply: &Reply) {
        self.reply_with(epoll, id, reply, Vec::new());
    }

    /// The same with descriptors, to a client that has read everything.
    fn reply_with(
        &mut self,
        epoll: &Epoll,
        id: ClientId,
        reply: &Reply,
        descriptors: Vec<SharedFd>,
    ) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let before = client.call.take();
        client.call.clone_from(&before);
        let waits = before
            .as_ref()
            .is_some_and(|call| call.waits_for.changes_something())
            && descriptors.is_empty();
        let sent = match descriptors.is_empty() {
            true => client.reply(reply),
            false => client.reply_with(reply, descriptors),
        };
        if waits {
            client.is_withheld = true;
            self.withheld.insert(id);
            self.withheld_since.get_or_insert_with(clock::now);
        }
        let sent = sent.and_then(|()| client.flush(clock::now()));
        if client.call.is_none()
            && let Some(call) = before
        {
            self.forget(id, &call.waits_for);
        }
        match sent {
            Ok(()) => self.settle(epoll, id),
            Err(gone) => self.drop_client(epoll, id, &gone),
        }
    }

    /// Sends a part of the last reply, whose rest comes by [`Control::reply`].
    fn reply_in_part(&mut self, epoll: &Epoll, id: ClientId, part: &[u8]) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        client.reply_in_part(part);
        self.flush(epoll, id);
    }

    /// Sends what is queued for a client, and goes on with it.
    fn flush(&mut self, epoll: &Epoll, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        match client.flush(clock::now()) {
            Ok(()) => self.settle(epoll, id),
            Err(gone) => self.drop_client(epoll, id, &gone),
        }
    }

    /// Whether somebody waits to be told something, and no longer than that.
    pub(super) fn withholds_up_to(&self, limit: Duration) -> bool {
        let is_soon = |since| clock::now() < since + limit;
        self.withheld_since.is_some_and(is_soon)
    }

    /// Sends what was said since, which is true now.
    pub(super) fn send_withheld(&mut self, epoll: &Epoll) {
        self.withheld_since = None;
        for id in std::mem::take(&mut self.withheld) {
            if let Some(client) = self.clients.get_mut(&id) {
                client.is_withheld = false;
            }
            self.flush(epoll, id);
        }
    }

    /// Takes a client out of the list of those that wait for something.
    fn forget(&mut self, id: ClientId, waited_for: &WaitsFor) {
        match waited_for {
            // Files are opened whoever waits for it.
            WaitsFor::Nothing | WaitsFor::Files => {}
            WaitsFor::Status => {
                self.status_replies.retain(|reply| reply.client() != id);
            }
            WaitsFor::Events => {
                self.watchers.remove(&id);
            }
            WaitsFor::Metrics => self.pages.retain(|(client, _)| *client != id),
            WaitsFor::Sockets(_) => self.takers.retain(|client| *client != id),
            WaitsFor::Lines(_) => {
                self.followers.remove(&id);
            }
            WaitsFor::Operation { ticket, .. } => {
                self.tickets.remove(ticket);
                self.changes.remove(ticket);
            }
            // Those whose answer has come are not there any more.
            WaitsFor::HelperQuery => {
                self.no_wait.remove(&id);
                for query in self.queries.values_mut() {
                    query.abandon(id);
                }
            }
        }
    }

    /// There was no whole call: the client is looked at again when it has sent more.
    fn settle_partial(&mut self, epoll: &Epoll, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.is_waited_for = true;
        }
        self.settle(epoll, id);
    }

    /// After anything has happened to a client: what it is to be watched for, whether its next call
    /// can be looked at, and whether it is over.
    fn settle(&mut self, epoll: &Epoll, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let held = client.held();
        self.held = (self.held + held).saturating_sub(client.counted);
        client.counted = held;
        if client.is_free() && held > 0 && !client.is_queued && !client.is_waited_for {
            client.is_queued = true;
            self.queue.push_back(id);
        }
        if client.waits_for_sockets() && !self.takers.contains(&id) {
            self.takers.push_back(id);
        }
        if client.is_over() {
            return self.drop_client(epoll, id, &Gone::Closed);
        }
        let wanted = client.wants();
        if wanted != client.watched {
            let token = Token::Control(ControlPart::Client(id)).pack();
            let mut event = EpollEvent::new(wanted, token);
            match epoll.modify(client.socket(), &mut event) {
                Ok(()) => client.watched = wanted,
                Err(errno) => log::warn!("cannot watch a client: {}", errno.desc()),
            }
        }
        if self.held > MAX_HELD {
            self.make_room(epoll);
        }
    }

    /// Closes the client that has not moved for longest, of those for which something is kept.
    fn make_room(&mut self, epoll: &Epoll) {
        let holding = self.clients.iter().filter(|(_, client)| client.counted > 0);
        let slowest = holding.min_by_key(|(_, client)| client.moved);
        if let Some((id, client)) = slowest.map(|(id, client)| (*id, client)) {
            log::warn!(
                "control socket: too much is buffered for clients; closed that of {}",
                client.peer.words()
            );
            self.drop_client(epoll, id, &Gone::Closed);
        }
    }

    /// Whether a client has asked that is not there any more.
    fn has_gone(&self, client: Option<ClientId>) -> bool {
        client.is_some_and(|client| !self.clients.contains_key(&client))
    }

    fn drop_client(&mut self, epoll: &Epoll, id: ClientId, why: &Gone) {
        let Some(client) = self.clients.remove(&id) else {
            return;
        };
        // By hand: a child that is still on its way to exec has a copy of it (epoll(7)).
        let _not_watched = epoll.delete(client.socket());
        self.held = self.held.saturating_sub(client.counted);
        match why {
            Gone::Closed => {}
            Gone::TooLong(what) => {
                log::debug!("control socket: closed {}: {what}", client.peer.words());
            }
            Gone::Unread(what) => {
                log::warn!("control socket: closed {}: {what}", client.peer.words());
            }
        }
        if let Some(call) = &client.call {
            self.forget(id, &call.waits_for);
        }
        drop(client);
        // What it has sent and nobody has taken.
        crate::sys::close_foreign();
        if self.accept_state != AcceptState::Open {
            self.open(epoll);
        }
    }
}

/// How many clients with these rights are served, of so many in all; `None` for root, who finds a place however
/// many others have come.
fn places(access: Access, all: usize) -> Option<usize> {
    match access {
        Access::Act => None,
        Access::Look => Some(all / 2),
        Access::Nothing => Some(MAX_UNAUTHORIZED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transport;
    use crate::listener::BindStep;
    use crate::plan::{ListenerId, ListenerPlan, SocketKey, SocketPlan};
    use crate::report::{FileId, Place};

    #[test]
    fn who_may_look_leaves_half_of_the_places_to_others() {
        assert_eq!(places(Access::Act, 2048), None);
        assert_eq!(places(Access::Look, 2048), Some(1024));
        assert_eq!(places(Access::Nothing, 2048), Some(MAX_UNAUTHORIZED));
    }

    #[test]
    fn an_address_given_up_lately_is_free_soon_and_no_other() {
        let tcp = |port: u16| Endpoint::Inet {
            transport: Transport::Tcp,
            address: ([127, 0, 0, 1], port).into(),
            v6_only: false,
            optional: false,
            scope: None,
        };
        let place = Place {
            file: FileId(0),
            line: 1,
            column: 1,
            length: 1,
        };
        let sockets = [(0, 80), (1, 81)].map(|(key, port)| SocketPlan {
            key: SocketKey(key),
            endpoint: tcp(port),
            shard: 0,
            place,
        });
        let web = ListenerPlan::new(
            "web".to_owned(),
            sockets.into(),
            16,
            crate::plan::Access::PRIVATE,
        );
        let plan = Plan::new([web], []);
        let error = |socket, errno| BindError {
            listener: ListenerId(0),
            socket,
            step: BindStep::Bind,
            errno,
            obstacle: None,
            path: None,
        };
        let (taken, other) = (error(0, libc::EADDRINUSE), error(1, libc::EADDRINUSE));
        let mut reloads = Reloads::default();
        assert!(!reloads.is_free_soon(&plan, std::slice::from_ref(&taken)));
        reloads.gave_up(tcp(80));
        assert!(reloads.is_free_soon(&plan, std::slice::from_ref(&taken)));
        assert!(!reloads.is_free_soon(&plan, &[]));
        assert!(!reloads.is_free_soon(&plan, std::slice::from_ref(&other)));
        assert!(!reloads.is_free_soon(&plan, &[taken.clone(), other]));
        assert!(!reloads.is_free_soon(&plan, &[error(0, libc::EACCES)]));
        // It was long enough ago.
        let past = reloads.given_up.front_mut().expect("one");
        past.1 = Mono(0);
        assert!(!reloads.is_free_soon(&plan, &[taken]));
    }
}
