//! A process that writes files ([`crate::writer`]): what it is to do, and what it has not done yet.

use super::clock;
use super::pipes::Pipes;
use super::token::{ClientId, Token};
use crate::core::{Mono, ProcessId};
use crate::output::{Answer, LONGEST_ANSWER, LONGEST_TEXT, Order};
use crate::sys::{self, Ended, Then, Whom};
use crate::worker;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long one may take for an order before nobody waits for it any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is told that lines are being lost.
const REMIND: Duration = Duration::from_secs(60);
/// How long after a start one that has ended is started again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many orders it has in its hands at most.
const MOST_IN_FLIGHT: usize = 16;

/// The id of a file; never reused.
pub(super) type FileId = u64;

/// What an order is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// A process that starts when the file is open.
    Start(ProcessId),
    /// Files were renamed, and are to be reopened.
    Reopen(ClientId),
    /// The process before it had the file open.
    Again,
    /// So many bytes of workers.
    Text(usize),
    /// Nothing that anybody waits for.
    Nothing,
}

/// An order that has not been answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileRequest {
    pub(super) file: FileId,
    pub(super) about: About,
}

/// The writer does not answer, and the output of workers is dropped.
#[derive(Debug)]
pub(super) struct Silence {
    /// Of the order that it has not answered.
    pub(super) file: FileId,
    pub(super) lost: u64,
    /// When that was told last.
    told: Mono,
}

struct WriterProcess {
    socket: OwnedFd,
    pid: i32,
    /// Not reaped as long as this is here.
    pidfd: OwnedFd,
}

/// What is to be done by the process that writes the files of one user's workers, and what it has in its
/// hands. The process is started when there is something to do.
pub(super) struct Writer {
    user: u32,
    /// The pipes of which the writer writes the output.
    pub(super) pipes: Pipes,
    process: Option<WriterProcess>,
    started: Option<Mono>,
    waiting: VecDeque<(FileRequest, Vec<u8>)>,
    in_flight: VecDeque<FileRequest>,
    /// When the writer began the oldest of them.
    since: Mono,
    silence: Option<Silence>,
}

impl Writer {
    pub(super) fn new(user: u32) -> Writer {
        Writer {
            user,
            pipes: Pipes::default(),
            process: None,
            started: None,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            since: Mono(0),
            silence: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn silence(&self) -> Option<&Silence> {
        self.silence.as_ref()
    }

    /// Whether nothing is to be read of what leads there, because it would have to wait in here, where it is lost
    /// if listend is killed. What is dropped is read all the same.
    pub(super) fn is_full(&self) -> bool {
        self.silence.is_none() && !(self.waiting.is_empty() && self.takes_more())
    }

    /// Whether the process can be handed a text at once. If it has nothing in its hands, nothing is on its way.
    fn takes_more(&self) -> bool {
        let Some(process) = &self.process else {
            return false;
        };
        let mut room = [PollFd::new(process.socket.as_fd(), PollFlags::POLLOUT)];
        self.in_flight.is_empty()
            || self.in_flight.len() < MOST_IN_FLIGHT
                && poll(&mut room, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    pub(super) fn ask(&mut self, order: Order<'_>, about: About) {
        let (Order::Open { file, .. } | Order::Write { file, .. } | Order::Close { file }) = order;
        self.begins();
        self.queue(FileRequest { file, about }, order.encode());
    }

    /// Text to be written, behind what waits already; or it is dropped.
    pub(super) fn write(&mut self, file: FileId, text: &[u8]) {
        if let Some(silence) = &mut self.silence {
            silence.lost += text.len() as u64;
            return;
        }
        self.begins();
        for text in text.chunks(LONGEST_TEXT) {
            match self.waiting.back_mut() {
                Some((asked, order)) if asked.takes(file, text.len()) => {
                    asked.about = asked.about.and(text.len());
                    order.extend_from_slice(text);
                }
                _ => {
                    let about = About::Text(text.len());
                    let order = Order::Write { file, text }.encode();
                    self.queue(FileRequest { file, about }, order);
                }
            }
        }
    }

    fn begins(&mut self) {
        if self.is_idle() {
            self.since = clock::now();
        }
    }

    fn queue(&mut self, asked: FileRequest, order: Vec<u8>) {
        self.waiting.push_back((asked, order));
    }

    /// Hands over what it can take, starts the process if it is not there, and has pipes read or not.
    pub(super) fn flush(&mut self, epoll: &Epoll) {
        if self.process.is_none() && !self.waiting.is_empty() {
            self.start(epoll);
        }
        while let Some(process) = &self.process
            && self.in_flight.len() < MOST_IN_FLIGHT
            && let Some((asked, order)) = self.waiting.front()
        {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            // Where there is no room an answer is to come, and where there is nobody, news of the end.
            if send(process.socket.as_raw_fd(), order, flags).is_err() {
                break;
            }
            self.in_flight.push_back(*asked);
            self.waiting.pop_front();
        }
        let is_full = self.is_full();
        if is_full != self.pipes.is_paused
            && let Err(errno) = self.pipes.pause(epoll, is_full)
        {
            log::debug!("cannot watch the pipes of workers: {}", errno.desc());
        }
    }

    fn start(&mut self, epoll: &Epoll) {
        let now = clock::now();
        if self.started.is_some_and(|last| now < last + PAUSE) {
            return;
        }
        self.started = Some(now);
        match start(epoll, self.user) {
            Ok(process) => self.process = Some(process),
            Err(error) if self.silence.is_none() => {
                let why = worker::explain_fork(&error);
                log::warn!("cannot start the process that writes files, retrying: {why}");
            }
            Err(_) => {}
        }
    }

    /// What has become of the oldest order; `None` where there is no news. Another is there where one
    /// was, unless the process has gone.
    pub(super) fn answer(
        &mut self,
        epoll: &Epoll,
    ) -> Option<(FileRequest, Answer, Option<OwnedFd>)> {
        let process = self.process.as_ref()?;
        let mut bytes = [0; LONGEST_ANSWER];
        let flags = MsgFlags::MSG_DONTWAIT;
        let received = sys::receive_with_descriptor(&process.socket, &mut bytes, flags);
        let answer = match received {
            Ok((length, handle)) if length > 0 => bytes
                .get(..length)
                .and_then(Answer::decode)
                .map(|answer| (answer, handle)),
            Err(Errno::EAGAIN | Errno::EINTR) => return None,
            // The news of its end comes by itself.
            Ok(_) | Err(_) => None,
        };
        match answer.and_then(|answer| Some((self.in_flight.pop_front()?, answer))) {
            Some((asked, (answer, handle))) => {
                self.since = clock::now();
                Some((asked, answer, handle))
            }
            None => {
                let _not_watched = epoll.delete(&process.socket);
                None
            }
        }
    }

    /// Ends the silence: the writer answered.
    pub(super) fn break_silence(&mut self) -> Option<Silence> {
        self.silence.take()
    }

    /// From now on what workers write is dropped. Answers with what nobody can wait for any more.
    pub(super) fn fall_silent(&mut self, now: Mono) -> Vec<FileRequest> {
        let oldest = self.in_flight.front();
        let oldest = oldest.or_else(|| self.waiting.front().map(|(asked, _)| asked));
        self.silence = oldest.map(|asked| Silence {
            file: asked.file,
            lost: 0,
            told: now,
        });
        let mut given_up = Vec::new();
        for asked in &mut self.in_flight {
            if asked.about.is_waited_for() {
                given_up.push(*asked);
                asked.about = About::Nothing;
            }
        }
        self.waiting.retain(|(asked, _)| {
            let is_waited_for = asked.about.is_waited_for();
            if is_waited_for {
                given_up.push(*asked);
            }
            !is_waited_for
        });
        given_up
    }

    /// Whether it has just failed to answer in time.
    pub(super) fn is_overdue(&self, now: Mono) -> bool {
        self.silence.is_none() && !self.is_idle() && now >= self.since + PATIENCE
    }

    /// How much is lost, if it is time to say so again.
    pub(super) fn remind(&mut self, now: Mono) -> Option<&Silence> {
        let silence = self.silence.as_mut()?;
        if now < silence.told + REMIND {
            return None;
        }
        silence.told = now;
        Some(silence)
    }

    /// When something is to be done even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let due = match &self.silence {
            Some(silence) => Some(silence.told + REMIND),
            None => (!self.is_idle()).then(|| self.since + PATIENCE),
        };
        let to_start = self.process.is_none() && !self.waiting.is_empty();
        let start = self.started.filter(|_| to_start).map(|last| last + PAUSE);
        due.into_iter().chain(start).min()
    }

    /// How the process has ended, if it has, and what it had in its hands.
    pub(super) fn end(&mut self) -> Option<(Option<Ended>, Vec<FileRequest>)> {
        let process = self.process.as_ref()?;
        let ended = match sys::wait(Whom::Process(process.pidfd.as_fd()), Then::Reap) {
            Ok(None) => return None,
            Ok(ended) => ended,
            // Somebody else has reaped it.
            Err(_) => None,
        };
        self.process = None;
        self.silence = None;
        self.since = clock::now();
        Some((ended, self.in_flight.drain(..).collect()))
    }

    /// What comes before all that waits: another process has to do it first.
    pub(super) fn ask_first(&mut self, order: Order<'_>, about: About) {
        self.ask(order, about);
        self.waiting.rotate_right(1);
    }

    /// Has the process end when it has done all.
    pub(super) fn dismiss(&self) {
        if let Some(process) = &self.process {
            let _gone = shutdown(process.socket.as_raw_fd(), Shutdown::Write);
        }
    }

    pub(super) fn kill(&self) {
        if let Some(process) = &self.process {
            let _gone = sys::send_signal(&process.pidfd, Signal::SIGKILL as i32);
        }
    }

    pub(super) fn is(&self, pid: i32) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.pid == pid)
    }

    /// Readable when there is an answer.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.socket.as_fd())
    }

    /// Readable when the process has ended.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(|process| process.pidfd.as_fd())
    }

    /// How many bytes of workers are not written.
    pub(super) fn unwritten(&self) -> u64 {
        let waiting = self.waiting.iter().map(|(asked, _)| asked);
        let texts = self.in_flight.iter().chain(waiting);
        let texts = texts.map(|asked| asked.about.length() as u64);
        texts.sum::<u64>() + self.silence.as_ref().map_or(0, |silence| silence.lost)
    }
}

impl About {
    fn is_waited_for(self) -> bool {
        matches!(self, About::Start(_) | About::Reopen(_))
    }

    /// How many bytes of workers.
    pub(super) fn length(self) -> usize {
        match self {
            About::Text(length) => length,
            About::Start(_) | About::Reopen(_) | About::Again | About::Nothing => 0,
        }
    }

    fn and(self, more: usize) -> About {
        About::Text(self.length() + more)
    }
}

impl FileRequest {
    /// Whether so much more can be appended to its text.
    fn takes(&self, file: FileId, more: usize) -> bool {
        let is_text = matches!(self.about, About::Text(_));
        is_text && self.file == file && self.about.length() + more <= LONGEST_TEXT / 2
    }
}

fn start(epoll: &Epoll, user: u32) -> io::Result<WriterProcess> {
    let (socket, theirs) = sys::passing_pair()?;
    // This very program, also when another has been installed in its place.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("listend")
        .args(["--log-level", "off", "__write"])
        .env_clear()
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A terminal stops listend, and not this.
        .process_group(0);
    let child = command.spawn()?;
    let pid = child.id() as i32;
    let process = WriterProcess {
        socket,
        pid,
        // It has not been waited for, so the number is its own.
        pidfd: sys::open_pidfd(pid)?,
    };
    let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Writer(user).pack());
    epoll.add(&process.socket, event)?;
    epoll.add(&process.pidfd, event)?;
    Ok(process)
}
