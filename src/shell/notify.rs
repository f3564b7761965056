//! What workers say about themselves (sd_notify(3), or as einhorn's workers): the sockets, the pipes and what is
//! kept of it.

mod ack;
mod ack_serve;
mod serve;
mod socket;
mod who;
mod worker_status;

pub use worker_status::WorkerStatus;

use super::clock;
use super::fd_store::FdStore;
use super::own_socket::OwnRepair;
use super::token::{NotifyPart, Token};
use crate::core::{Mono, ProcessId};
use crate::listener::SocketRecord;
use crate::plan::WorkerId;
use crate::sys::{self, Sender, SharedFd};
pub(super) use ack::AckSocket;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use serde::{Deserialize, Serialize};
pub(super) use socket::NotifySocket;
use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long nothing is said again about who sends what counts for nothing.
const QUIET: Duration = Duration::from_secs(60);

/// How many messages there were since listend was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotifyCounters {
    /// All of them.
    pub received: u64,
    /// Messages with a line that was not understood; their other lines took effect.
    pub malformed: u64,
    /// Messages of processes that may send none. Dropped.
    pub foreign: u64,
    /// Messages that were too long, or whose descriptors found no room. Dropped.
    pub truncated: u64,
}

/// By what a new process can tell something.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// NOTIFY_SOCKET.
    pub(super) socket: Option<String>,
    /// EINHORN_SOCK_PATH.
    pub(super) acknowledge_at: Option<String>,
    /// The reading and the writing end of the pipe for its newline.
    newline: Option<(OwnedFd, OwnedFd)>,
}

impl Ways {
    /// The number of the end that it gets.
    pub(super) fn their_end(&self) -> Option<i32> {
        self.newline.as_ref().map(|(_, theirs)| theirs.as_raw_fd())
    }
}

/// What counts for nothing, and is said once in a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Complaint {
    Foreign,
    ForeignAck,
    Malformed,
    NoAck,
    Truncated,
    NoRoom,
    MayWait,
    NoNumbers,
    Main,
}

/// Whom a complaint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ComplaintSubject {
    Worker(WorkerId),
    User(u32),
    Nobody,
}

impl ComplaintSubject {
    /// The user that the kernel names as the sender.
    fn sender(sender: Option<Sender>) -> ComplaintSubject {
        sender.map_or(ComplaintSubject::Nobody, |sender| {
            ComplaintSubject::User(sender.uid)
        })
    }
}

fn watch_socket(epoll: &Epoll, socket: &NotifySocket) -> io::Result<()> {
    let Some(fd) = socket.fd() else { return Ok(()) };
    let token = Token::Notify(NotifyPart::Socket).pack();
    match epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Everything about it.
#[derive(Debug, Default)]
pub(super) struct Notify {
    socket: Option<NotifySocket>,
    /// Where workers of einhorn say that they are up.
    acks: Option<AckSocket>,
    /// The pipes on which a newline is waited for.
    newlines: HashMap<ProcessId, OwnedFd>,
    /// What instances have left.
    pub(super) store: FdStore,
    pub(super) counters: NotifyCounters,
    /// What came with BARRIER=1, until all that was sent before it is written down.
    pub(super) barriers: Vec<SharedFd>,
    /// Processes that may tell nothing, by the inodes of their pidfds, which are never used again.
    strangers: HashSet<u64>,
    /// When it was said last.
    said: HashMap<(Complaint, ComplaintSubject), Mono>,
}

impl Notify {
    /// Tells whoever waits at a barrier that all it has sent before is written down.
    pub(super) fn end_barriers(&mut self) {
        if !self.barriers.is_empty() {
            self.barriers.clear();
            sys::close_foreign();
        }
    }

    /// Where the notify socket is in the file system.
    pub(super) fn files(&self) -> Vec<Cow<'_, Path>> {
        let socket = self.socket.as_ref();
        socket.map(NotifySocket::files).unwrap_or_default()
    }

    /// Waits for the newline of a process that exists now. Its end is closed here.
    pub(super) fn listen_for_newline(&mut self, epoll: &Epoll, process: ProcessId, ways: Ways) {
        if let Some((ours, _theirs)) = ways.newline {
            self.continue_newline(epoll, process, ours);
        }
    }

    /// Waits for the newline of a process.
    pub(super) fn continue_newline(&mut self, epoll: &Epoll, process: ProcessId, ours: OwnedFd) {
        let token = Token::Notify(NotifyPart::Newline(process)).pack();
        match epoll.add(&ours, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
            Ok(()) => {
                self.newlines.insert(process, ours);
            }
            Err(errno) => log::warn!(
                "cannot watch the readiness pipe of a worker, which will not count as ready: {}",
                errno.desc()
            ),
        }
    }

    /// The pipe on which a newline of a process is waited for.
    pub(super) fn newline_of(&self, process: ProcessId) -> Option<BorrowedFd<'_>> {
        self.newlines.get(&process).map(AsFd::as_fd)
    }

    /// The notify socket.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().and_then(NotifySocket::fd)
    }

    /// The value of NOTIFY_SOCKET, and what is known of its file.
    pub(super) fn place(&self) -> Option<(&str, Option<SocketRecord>)> {
        let socket = self.socket.as_ref()?;
        Some((socket.address(), socket.record()))
    }

    /// Goes on with the notify socket of another listend.
    pub(super) fn continue_with(&mut self, epoll: &Epoll, socket: NotifySocket) -> io::Result<()> {
        watch_socket(epoll, &socket)?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Puts the notify socket right, if something is wrong with it.
    pub(super) fn repair(&mut self, epoll: &Epoll) -> Option<OwnRepair> {
        let socket = self.socket.as_mut()?;
        let found = socket.repair()?;
        // It may be another one.
        if let Err(error) = watch_socket(epoll, socket) {
            log::error!("cannot watch the notify socket: {error}");
        }
        Some(found)
    }

    /// Puts the socket of einhorn right, if something is wrong with it.
    pub(super) fn repair_acks(&mut self, epoll: &Epoll) -> Option<OwnRepair> {
        let socket = self.acks.as_mut()?;
        let found = socket.repair()?;
        // It may be another one.
        if let Err(error) = socket.watch(epoll) {
            log::error!("cannot watch the einhorn socket: {error}");
        }
        Some(found)
    }

    /// Where the socket of einhorn is in the file system.
    pub(super) fn ack_files(&self) -> Vec<Cow<'_, Path>> {
        let acks = self.acks.as_ref();
        acks.map(AckSocket::files).unwrap_or_default()
    }

    /// The socket of einhorn.
    pub(super) fn ack_fd(&self) -> Option<BorrowedFd<'_>> {
        self.acks.as_ref().and_then(AckSocket::fd)
    }

    /// The value of EINHORN_SOCK_PATH, and what is known of its file.
    pub(super) fn ack_place(&self) -> Option<(&str, Option<SocketRecord>)> {
        let acks = self.acks.as_ref()?;
        Some((acks.address(), acks.record()))
    }

    /// Goes on with the socket of einhorn of another listend.
    pub(super) fn continue_acks(&mut self, epoll: &Epoll, mut acks: AckSocket) -> io::Result<()> {
        acks.watch(epoll)?;
        self.acks = Some(acks);
        Ok(())
    }

    /// When to look again, if nothing else happens before.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.acks.as_ref().and_then(AckSocket::deadline)
    }

    /// Nothing more is heard of a process.
    pub(super) fn forget_process(&mut self, epoll: &Epoll, process: ProcessId) {
        if let Some(pipe) = self.newlines.remove(&process) {
            // By hand: a child that is still on its way to exec has a copy of it (epoll(7)).
            let _not_watched = epoll.delete(&pipe);
        }
    }

    /// Says something is wrong, unless it was said of them lately.
    fn complain(
        &mut self,
        complaint: Complaint,
        about: ComplaintSubject,
        words: &dyn Fn() -> String,
    ) {
        self.say(log::Level::Warn, complaint, about, words);
    }

    fn say(
        &mut self,
        level: log::Level,
        complaint: Complaint,
        about: ComplaintSubject,
        words: &dyn Fn() -> String,
    ) {
        let now = clock::now();
        self.said.retain(|_, at| now.since(*at) < QUIET);
        let level = match self.said.entry((complaint, about)) {
            Entry::Occupied(_) => log::Level::Debug,
            Entry::Vacant(unsaid) => {
                unsaid.insert(now);
                level
            }
        };
        if log::log_enabled!(level) {
            log::log!(level, "{}", words());
        }
    }
}
