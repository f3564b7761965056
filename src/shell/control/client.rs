//! One client of the control socket: bytes in, bytes out, and who it is. Never waits.

use crate::control::{
    self, Access, Call, Error, Expects, FrameTooLong, Inbox, Outbox, Owner, Reply, Request, Unread,
};
use crate::core::{Mono, Ticket};
use crate::plan::{Grant, SocketKey, WorkerId};
use crate::shell::logging;
use crate::sys::{self, MOST_DESCRIPTORS, SharedFd};
use crate::verb::RESTART;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{
    ControlMessage, MsgFlags, UnixAddr, getsockopt, send, sendmsg, sockopt::PeerCredentials,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// How much is read at a time; the rest is there in the next turn.
const READ: usize = 16 << 10;

/// How much is written in a turn, at most.
const WRITE: usize = 1 << 20;

/// Who it is, as the kernel has it since it connected.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    gid: u32,
    groups: Vec<u32>,
    pub(super) pid: i32,
    /// Whether it is a worker of listend's own, which was given its connection: it may look.
    pub(super) built_in: bool,
    /// The worker that one of those may restart, and ask about, and do nothing else.
    restarts: Option<String>,
    /// Whether it is in the sandbox of a worker, from which the socket is hidden: nothing that it asks is done.
    pub(super) is_confined: bool,
}

impl Peer {
    fn of(socket: BorrowedFd<'_>) -> io::Result<Peer> {
        let credentials = getsockopt(&socket, PeerCredentials)?;
        Ok(Peer {
            uid: credentials.uid(),
            gid: credentials.gid(),
            // Without them it may do less, which is the safe side.
            groups: sys::peer_groups(socket).unwrap_or_default(),
            pid: credentials.pid(),
            built_in: false,
            restarts: None,
            is_confined: false,
        })
    }

    /// Whether a listener is granted to it.
    pub(super) fn is_granted(&self, grant: &Grant) -> bool {
        let groups = self.groups.iter().copied();
        !self.built_in && grant.permits(self.uid, groups.chain([self.gid]))
    }

    /// What it asks for, if it may.
    ///
    /// # Errors
    ///
    /// As [`Request::of`].
    pub(super) fn request(&self, call: Call, access: Access) -> Result<Request, Error> {
        let request = Request::of(call, access)?;
        match self.may(&request) {
            true => Ok(request),
            false => Err(Error::PermissionDenied),
        }
    }

    /// Whether a request is one of those that it was given its connection for, if it was given one for some.
    fn may(&self, request: &Request) -> bool {
        let Some(restarts) = &self.restarts else {
            return true;
        };
        match request {
            Request::Operate { verb, worker, .. } => **verb == RESTART && worker == restarts,
            Request::Status { name } => name.as_ref() == Some(restarts),
            _ => false,
        }
    }

    /// What it may do at a socket of this owner; without one there is no way in but to be given a
    /// connection.
    pub(super) fn access(&self, owner: Option<Owner>) -> Access {
        if self.built_in {
            return match self.restarts {
                Some(_) => Access::Act,
                None => Access::Look,
            };
        }
        let Some(owner) = owner.filter(|_| !self.is_confined) else {
            return Access::Nothing;
        };
        let peer = control::Peer {
            uid: self.uid,
            gid: self.gid,
            groups: &self.groups,
        };
        Access::of(peer, owner)
    }

    /// `uid 0, pid 4711 (listend)`, for the log.
    pub(super) fn words(&self) -> String {
        let (uid, pid) = (self.uid, self.pid);
        match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(command) => {
                let command = command.trim_end().replace(char::is_control, "?");
                format!("uid {uid}, pid {pid} ({command})")
            }
            Err(_) => format!("uid {uid}, pid {pid}"),
        }
    }
}

/// A call that is being answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnderWay {
    /// How many replies it takes.
    pub(super) expects: Expects,
    /// What it waits for.
    pub(super) waits_for: WaitsFor,
}

/// What a call waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// Nothing: it is answered as soon as it is taken.
    Nothing,
    /// Its turn to be told the status.
    Status,
    /// Events, for as long as it is there.
    Events,
    /// Metrics, which are being collected.
    Metrics,
    /// Lines of a worker, or of all, from a point on.
    Lines(LineRange),
    /// The core.
    Operation {
        /// The operation.
        ticket: Ticket,
        /// What is said when it is done.
        done: String,
        /// How far it got.
        progress: (u32, u32),
    },
    /// Its turn to be passed these sockets.
    Sockets(VecDeque<SocketKey>),
    /// Output files that are opened again.
    Files,
    /// A process that finds out.
    HelperQuery,
}

impl WaitsFor {
    /// Whether an answer may say that something is otherwise from now on.
    pub(super) fn changes_something(&self) -> bool {
        match self {
            WaitsFor::Nothing | WaitsFor::Operation { .. } | WaitsFor::HelperQuery => true,
            WaitsFor::Status
            | WaitsFor::Events
            | WaitsFor::Metrics
            | WaitsFor::Lines(_)
            | WaitsFor::Sockets(_)
            | WaitsFor::Files => false,
        }
    }
}

/// The lines that a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineRange {
    /// Whose.
    pub(super) worker: Option<WorkerId>,
    /// Behind the last line that was told.
    pub(super) next: u64,
    /// Up to which line; `None` for those who follow.
    pub(super) end: Option<u64>,
    /// The client has been told that lines up to this number are lost.
    pub(super) lost: u64,
}

/// Why a client is closed.
#[derive(Debug)]
pub(super) enum Gone {
    /// The client closed its end, or the connection broke.
    Closed,
    /// The client sent something that is not a call.
    TooLong(FrameTooLong),
    /// The client does not read.
    Unread(Unread),
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// send(2), with descriptors if there are any.
fn send_with(
    socket: &SharedFd,
    part: &[u8],
    attached: &[SharedFd],
    flags: MsgFlags,
) -> nix::Result<usize> {
    if attached.is_empty() {
        return send(socket.as_raw_fd(), part, flags);
    }
    let numbers: Vec<RawFd> = attached.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let part = [IoSlice::new(part)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &part, &rights, flags, None)
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    socket: SharedFd,
    pub(super) peer: Peer,
    inbox: Inbox,
    outbox: Outbox,
    /// What has come with its calls, as long as it may send descriptors.
    given: Option<Vec<SharedFd>>,
    /// What goes with the next byte that is written.
    attached: Vec<SharedFd>,
    pub(super) call: Option<UnderWay>,
    /// The connection is closed when everything is written.
    pub(super) is_leaving: bool,
    /// Nothing more will come from it.
    has_ended: bool,
    /// What it is watched for.
    pub(super) watched: EpollFlags,
    /// Whether it is in the queue of those whose calls are to be looked at.
    pub(super) is_queued: bool,
    /// Whether it has sent a part of a call, and nothing since that was looked at.
    pub(super) is_waited_for: bool,
    /// Whether what it is told is not true yet: nothing is sent until then.
    pub(super) is_withheld: bool,
    /// How many bytes it was last known to hold.
    pub(super) counted: usize,
    /// When it last took a reply or sent a whole call.
    pub(super) moved: Mono,
}

impl Client {
    /// A connection that has just been accepted.
    ///
    /// # Errors
    ///
    /// The errors of getsockopt(2): it has gone again.
    pub(super) fn new(socket: SharedFd, now: Mono) -> io::Result<Client> {
        Ok(Client {
            peer: Peer::of(socket.as_fd())?,
            socket,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            attached: Vec::new(),
            given: None,
            call: None,
            is_leaving: false,
            has_ended: false,
            watched: EpollFlags::empty(),
            is_queued: false,
            is_waited_for: false,
            is_withheld: false,
            counted: 0,
            moved: now,
        })
    }

    /// The daemon's end of a connection that a worker of its own was given.
    ///
    /// # Errors
    ///
    /// See [`Client::new`].
    pub(super) fn built_in(
        socket: SharedFd,
        now: Mono,
        restarts: Option<String>,
    ) -> io::Result<Client> {
        let mut client = Client::new(socket, now)?;
        client.peer.built_in = true;
        client.peer.restarts = restarts;
        Ok(client)
    }

    /// Its socket.
    pub(super) fn socket(&self) -> &SharedFd {
        &self.socket
    }

    /// Takes some of what it has sent.
    pub(super) fn receive(&mut self) -> Result<(), Gone> {
        let mut bytes = [0; READ];
        let received = match &mut self.given {
            None => sys::receive_bytes(&self.socket, &mut bytes),
            Some(given) => {
                let received = sys::receive_datagram(&self.socket, &mut bytes, true);
                let received = received.map(|mut received| {
                    received
                        .descriptors
                        .truncate(MOST_DESCRIPTORS - given.len());
                    given.extend(received.descriptors);
                    received.length
                });
                sys::close_foreign();
                received
            }
        };
        match received {
            Ok(0) => self.has_ended = true,
            Ok(count) => {
                self.is_waited_for = false;
                self.inbox.receive(bytes.get(..count).unwrap_or_default());
            }
            Err(error) if is_momentary(&error) => {}
            Err(_) => return Err(Gone::Closed),
        }
        Ok(())
    }

    /// Lets it send descriptors with its next calls.
    pub(super) fn let_give(&mut self) {
        sys::take_descriptors(&self.socket, true);
        self.given.get_or_insert_default();
    }

    /// The descriptors that it has sent, after which it may send no more.
    pub(super) fn take_given(&mut self) -> Vec<SharedFd> {
        let given = self.given.as_mut().map(std::mem::take).unwrap_or_default();
        if !given.is_empty() {
            sys::refuse_descriptors(&self.socket);
            self.given = None;
        }
        given
    }

    /// The next whole call; `None` if there is none yet.
    pub(super) fn next_frame(&mut self, now: Mono) -> Result<Option<Vec<u8>>, Gone> {
        let frame = self.inbox.next_frame().map_err(Gone::TooLong)?;
        if frame.is_some() {
            self.moved = now;
        }
        Ok(frame)
    }

    /// Queues a reply, if the call that is under way takes it. The last one ends the call.
    pub(super) fn reply(&mut self, reply: &Reply) -> Result<(), Gone> {
        let Some(call) = &self.call else {
            return Ok(());
        };
        let queued = match call.expects.frame(reply) {
            Some(frame) => self.outbox.push(frame).map_err(Gone::Unread),
            None => Ok(()),
        };
        if reply.is_last() {
            self.call = None;
        }
        queued
    }

    /// Queues a part of the last reply, if the call that is under way takes it.
    pub(super) fn reply_in_part(&mut self, part: &[u8]) {
        if self
            .call
            .as_ref()
            .is_some_and(|call| call.expects != Expects::Nothing)
        {
            self.outbox.push_part(part);
        }
    }

    /// Queues a reply that descriptors go with. Everything before it has to be read.
    pub(super) fn reply_with(
        &mut self,
        reply: &Reply,
        descriptors: Vec<SharedFd>,
    ) -> Result<(), Gone> {
        self.attached = descriptors;
        self.reply(reply)
    }

    /// Writes as much as the socket takes, within limits.
    pub(super) fn flush(&mut self, now: Mono) -> Result<(), Gone> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let mut left = match self.is_withheld {
            true => 0,
            false => WRITE,
        };
        if !self.outbox.is_empty() && left > 0 {
            // Whoever is told of something finds it in the log.
            logging::flush();
        }
        while !self.outbox.is_empty() && left > 0 {
            let pending = self.outbox.pending();
            let part = &pending[..pending.len().min(left)];
            match send_with(&self.socket, part, &self.attached, flags) {
                Ok(count) => {
                    self.attached.clear();
                    self.outbox.written(count);
                    left -= count.min(left);
                    self.moved = now;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(_) => return Err(Gone::Closed),
            }
        }
        Ok(())
    }

    /// How many bytes are kept for it.
    pub(super) fn held(&self) -> usize {
        self.inbox.held() + self.outbox.pending().len()
    }

    /// Whether it has taken everything that it was told.
    pub(super) fn has_read_all(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Whether the next sockets can be passed to it.
    pub(super) fn waits_for_sockets(&self) -> bool {
        let call = self.call.as_ref().map(|call| &call.waits_for);
        self.outbox.is_empty() && matches!(call, Some(WaitsFor::Sockets(_)))
    }

    /// Whether its next call may be looked at: those before it are answered, and it has read that.
    pub(super) fn is_free(&self) -> bool {
        self.call.is_none() && self.outbox.is_empty() && !self.is_leaving
    }

    /// Whether nothing will come of it any more.
    pub(super) fn is_over(&self) -> bool {
        let silent = self.call.is_none() && self.outbox.is_empty();
        silent && (self.is_leaving || (self.has_ended && !self.is_queued))
    }

    /// What to be told about.
    pub(super) fn wants(&self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        let listens = self.is_free() && !self.has_ended && self.inbox.has_room();
        flags.set(EpollFlags::EPOLLIN, listens);
        let writes = !self.outbox.is_empty() && !self.is_withheld;
        flags.set(EpollFlags::EPOLLOUT, writes);
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    // The credentials of the connection are the daemon's own, which may act.
    #[test]
    fn a_worker_of_our_own_may_only_look() {
        let owner = Owner {
            uid: nix::unistd::geteuid().as_raw(),
            gid: 0,
        };
        let ours = || {
            let (ours, _theirs) = UnixStream::pair().expect("a pair");
            SharedFd::from(OwnedFd::from(ours))
        };
        let other = Client::new(ours(), Mono(0)).expect("a client");
        assert_eq!(other.peer.access(Some(owner)), Access::Act);
        assert_eq!(other.peer.access(None), Access::Nothing);
        let watches = Client::built_in(ours(), Mono(0), Some("app".to_owned())).expect("a client");
        assert_eq!(watches.peer.access(None), Access::Act);
        let asks = |method: &str, worker: &str| {
            let frame =
                format!("{{\"method\":\"io.listend.Manager.{method}\",\"parameters\":{worker}}}");
            let call = Call::read(frame.as_bytes()).expect("a call");
            watches.peer.request(call, Access::Act).is_ok()
        };
        let of = |worker: &str| format!("{{\"worker\":\"{worker}\"}}");
        assert!(asks("Restart", &of("app")));
        assert!(asks("Status", "{\"name\":\"app\"}"));
        for (method, parameters) in [
            ("Restart", of("other")),
            ("Restart", of("app.0")),
            ("Stop", of("app")),
            ("Status", "{}".to_owned()),
            ("Status", "{\"name\":\"other\"}".to_owned()),
            ("Reload", "{}".to_owned()),
        ] {
            assert!(!asks(method, &parameters), "{method}");
        }
        let built_in = Client::built_in(ours(), Mono(0), None).expect("a client");
        for owner in [Some(owner), None] {
            assert_eq!(built_in.peer.access(owner), Access::Look);
        }
    }
}
