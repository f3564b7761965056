//! What workers write: read from their pipes and passed on, or sent to the journal by themselves.
//!
//! The rest of the loop comes first, and what one worker writes never holds up another: each turn
//! reads a little from a few of the pipes that have something, in turn. While standard output takes
//! no more, no pipe that leads there is read: they fill up, and their workers wait. The same holds for
//! files ([`Files`]).

mod restore;

use super::files::{Files, Opened};
use super::pipes::Pipes;
use super::stdout::Stdout;
use super::token::{ClientId, Token};
use super::writer::{FileId, Writer};
use super::{clock, logging};
use crate::config::Output;
use crate::control::{cut_middle, rfc3339};
use crate::core::{InstanceId, Mono, ProcessId};
use crate::output::{Kept, Piece, Splitter, Style, Tagger, visible};
use crate::plan::{Plan, WorkerId, WorkerPlan};
use crate::report::describe;
use crate::stage::{LaunchFailure, Stage};
use crate::sys;
use crate::worker::{self, JOURNAL};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, connect, send, setsockopt,
    shutdown, socket, sockopt,
};
use nix::unistd::pipe2;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// How much a turn reads of each pipe, in bytes.
const READ: usize = 8 * 1024;
/// How many reads it takes to empty a pipe of the usual size (pipe(7)).
const READS_PER_PIPE: usize = 8;
/// How long the end of listend waits until all is read and written.
const FAREWELL: Duration = Duration::from_secs(5);
/// With so many bytes unwritten, nothing is read ahead, not even the last words of a process.
const FULL: usize = 256 * 1024;
/// How many lines are told of a process that ended badly, and how many characters of each.
const LAST_WORDS: (usize, usize) = (3, 200);
/// As large as sd_journal_stream_fd(3) wants the buffer, so that a worker waits less often.
const JOURNAL_BUFFER: usize = 8 * 1024 * 1024;

/// Everything about what workers write.
pub(super) struct Logs {
    kept: Kept,
    sources: HashMap<ProcessId, Source>,
    /// Pipes that lead to standard output.
    tagged: Pipes,
    stdout: Option<Stdout>,
    style: Style,
    /// With the pipes that lead there: those are read whoever looks at standard output.
    files: Files,
    /// Pipes of processes that another listend has started, until their files are open.
    unattached: HashMap<ProcessId, Unattached>,
    /// Whose half line may be another.
    half_lines: BTreeSet<ProcessId>,
}

/// The reading end of what one process and its children write to.
struct Source {
    pipe: OwnedFd,
    instance: InstanceId,
    splitter: Splitter,
    sink: OutputSink,
}

/// What there is of a line of a process.
pub(super) enum Half<'a> {
    /// More is about to be read.
    Opens(&'a Splitter),
    /// The lines were read, and are about to be passed on.
    Is(&'a Splitter),
    /// Nothing more comes.
    Ended,
}

/// Writes that down, or is not to; whether it has.
pub(super) type Note<'a> = dyn FnMut(ProcessId, Half<'_>) -> bool + 'a;

/// The pipe of a process that another listend has started.
pub(super) struct Unattached {
    pub(super) pipe: OwnedFd,
    pub(super) instance: InstanceId,
    /// With what was read of a line that has not ended.
    pub(super) splitter: Splitter,
}

enum OutputSink {
    Tagged(Tagger),
    File(FileId),
}

/// What a process gets as standard output and error.
pub(super) struct OutputTarget {
    fd: OwnedFd,
    /// What it is a handle on, if the process has to open it.
    handle_on: Option<PathBuf>,
    journal_stream: Option<String>,
}

/// The output of a process that is to be started.
pub(super) enum Target {
    /// `None`: whatever its plan says, and listend has no part in it.
    Ready(Option<OutputTarget>),
    /// Its file is being opened: [`Logs::startable`] tells when that is done.
    Later,
}

impl OutputTarget {
    /// As the layout of a process wants it.
    pub(super) fn as_given(&self) -> worker::OutputTarget<'_> {
        worker::OutputTarget {
            fd: self.fd.as_raw_fd(),
            handle_on: self.handle_on.as_deref(),
            journal_stream: self.journal_stream.as_deref(),
        }
    }
}

/// A line of a worker, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Counts the lines of all workers.
    pub number: u64,
    /// When it was read, since 1970.
    pub time: Duration,
    /// Who wrote it.
    pub worker: WorkerId,
    /// The instance.
    pub instance: InstanceId,
    /// Without the newline; what is no UTF-8 became U+FFFD. May hold control characters.
    pub text: String,
    /// Whether it goes on with the line before, which was too long for one piece.
    pub is_continued: bool,
}

/// The first lines after a point in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLines {
    /// The oldest first.
    pub lines: Vec<LogLine>,
    /// The last line that nobody has any more.
    pub gone: u64,
    /// The point behind the last of them.
    pub next: u64,
}

impl Logs {
    pub(super) fn new(plan: &Plan) -> Logs {
        let outputs = || plan.workers().map(|(_, worker)| &worker.output);
        let is_tagged = |output: &Output| matches!(output, Output::Tag | Output::TagJson);
        let stream = logging::Stream::of(&std::io::stdout());
        let mut kept = Kept::default();
        kept.add(plan.workers.keys().copied().map(place));
        Logs {
            kept,
            sources: HashMap::new(),
            tagged: Pipes::default(),
            stdout: outputs().any(is_tagged).then(Stdout::new),
            style: match stream {
                logging::Stream::Journal => Style::Journal,
                logging::Stream::Terminal => Style::Terminal {
                    colours: logging::wants_colour(),
                },
                logging::Stream::Plain => Style::Plain,
            },
            files: Files::default(),
            unattached: HashMap::new(),
            half_lines: BTreeSet::new(),
        }
    }

    /// Makes room for the workers that a reload has brought.
    pub(super) fn follow(&mut self, plan: &Plan) {
        self.kept.add(plan.workers.keys().copied().map(place));
        let is_tagged = |output: &Output| matches!(output, Output::Tag | Output::TagJson);
        if self.stdout.is_none() && plan.workers().any(|(_, one)| is_tagged(&one.output)) {
            self.stdout = Some(Stdout::new());
        }
        self.files.follow(plan);
    }

    /// Nothing is left of a worker.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.kept.forget(place(worker));
    }

    /// The point in the log behind which the last lines of one worker or of all are, at most so many.
    pub(super) fn before_last(&self, worker: Option<WorkerId>, count: usize) -> u64 {
        let lines = self.kept.last(worker.map(place), count);
        let first = lines.first().map(|(_, line)| line.number - 1);
        first.unwrap_or(self.kept.newest())
    }

    /// What came after a point in the log, at most so many lines.
    pub(super) fn since(&self, worker: Option<WorkerId>, point: u64, at_most: usize) -> LogLines {
        let since = self.kept.since(worker.map(place), point, at_most);
        LogLines {
            lines: since.lines.into_iter().map(shown).collect(),
            gone: since.gone,
            next: since.next,
        }
    }

    /// The point behind the last line: as long as it stays the same, nobody has written anything.
    pub(super) fn newest(&self) -> u64 {
        self.kept.newest()
    }

    /// The last lines that a process wrote, for the report about its end; `None` if there are none,
    /// or its output goes past listend.
    pub(super) fn last_words(&self, worker: WorkerId, process: ProcessId) -> Option<String> {
        let (count, length) = LAST_WORDS;
        let lines = self.kept.of_process(place(worker), process.0, count);
        let texts = lines.iter().map(|line| line.text.as_slice());
        let rest = self.sources.get(&process);
        let rest = rest.map(|source| source.splitter.rest());
        let texts = texts.chain(rest.filter(|rest| !rest.is_empty()));
        let texts: Vec<&[u8]> = texts.filter(|text| !text.trim_ascii().is_empty()).collect();
        let last = texts.iter().skip(texts.len().saturating_sub(count));
        let quoted = last.map(|text| {
            let text = visible(text.trim_ascii_end());
            // What went wrong stands last, as a rule.
            let cut = cut_middle(&text, length);
            format!("\"{cut}\"")
        });
        let quoted: Vec<String> = quoted.collect();
        (!quoted.is_empty()).then(|| quoted.join(", "))
    }

    /// Makes what a process is to write to. `file` is the path behind `file:`.
    pub(super) fn open(
        &mut self,
        epoll: &Epoll,
        worker: &WorkerPlan,
        name: impl FnOnce() -> String,
        process: ProcessId,
        instance: InstanceId,
        file: Option<PathBuf>,
    ) -> Result<Target, LaunchFailure> {
        let style = match &worker.output {
            Output::Inherit | Output::Null => return Ok(Target::Ready(None)),
            Output::Journal => return Ok(Target::Ready(to_journal(&name()))),
            Output::File(_) => {
                let Some(path) = file else {
                    return Ok(Target::Ready(None));
                };
                let opened = self.files.opened(process).or_else(|| {
                    let user = worker.launch.credentials.as_ref().and_then(|one| one.uid);
                    self.files.open(process, &path, user);
                    self.files.flush(epoll);
                    // Where others do not answer, that is told at once.
                    self.files.opened(process)
                });
                return match opened {
                    None => Ok(Target::Later),
                    Some(Opened::File(file)) => {
                        self.pipe(epoll, process, instance, OutputSink::File(file))
                    }
                    Some(Opened::Special(path, handle)) => Ok(Target::Ready(Some(OutputTarget {
                        fd: handle,
                        handle_on: Some(path),
                        journal_stream: None,
                    }))),
                    Some(Opened::Failed(errno, words)) => Err(failure(Stage::Output, errno, words)),
                };
            }
            Output::Tag => self.style,
            Output::TagJson => Style::Json,
        };
        let colour = instance.worker.0.wrapping_add(instance.index);
        let tagger = Tagger::new(&worker.name, &name(), colour, style);
        self.pipe(epoll, process, instance, OutputSink::Tagged(tagger))
    }

    /// The processes whose files are open now, or cannot be opened.
    pub(super) fn startable(&mut self, epoll: &Epoll) -> Vec<ProcessId> {
        let opened = self.files.news();
        self.attach_opened(epoll, opened)
    }

    /// What was opened for a process that does not start after all is of no use.
    pub(super) fn forget_file(&mut self, process: ProcessId) {
        self.files.forget(process);
    }

    fn pipe(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        instance: InstanceId,
        sink: OutputSink,
    ) -> Result<Target, LaunchFailure> {
        let fail = |errno: Errno| {
            failure(
                Stage::Prepare,
                errno,
                format!("no pipe: {}", describe(errno as i32)),
            )
        };
        let made = pipe2(OFlag::O_CLOEXEC).and_then(|(reading, writing)| {
            set_nonblocking(&reading, true)?;
            let reading = sys::out_of_the_way(reading);
            match self.pipes(&sink) {
                Some(pipes) => pipes.add(epoll, &reading, process)?,
                None => return Err(Errno::EBADF),
            }
            Ok((reading, writing))
        });
        let (reading, writing) = match made {
            Ok(made) => made,
            Err(errno) => {
                self.release(&sink);
                return Err(fail(errno));
            }
        };
        let source = Source {
            pipe: reading,
            instance,
            splitter: Splitter::default(),
            sink,
        };
        self.sources.insert(process, source);
        Ok(Target::Ready(Some(OutputTarget {
            fd: writing,
            handle_on: None,
            journal_stream: None,
        })))
    }

    /// The pipes of which this sink gets the output.
    fn pipes(&mut self, sink: &OutputSink) -> Option<&mut Pipes> {
        match sink {
            OutputSink::Tagged(_) => Some(&mut self.tagged),
            OutputSink::File(file) => Some(&mut self.files.writer_of(*file)?.pipes),
        }
    }

    /// Asks for every file to be opened again, after somebody renamed them.
    pub(super) fn reopen(&mut self, epoll: &Epoll, client: ClientId) {
        self.files.reopen(client);
        self.files.flush(epoll);
    }

    /// Who has asked for that, and what came of it.
    pub(super) fn reopened(&mut self) -> Option<(ClientId, Result<usize, String>)> {
        self.files.reopened()
    }

    /// The process that writes the files of this user's workers has done something.
    pub(super) fn writer_event(&mut self, epoll: &Epoll, user: u32) {
        self.files.event(epoll, user);
    }

    /// The same of a child that has ended, if it is one of those; whether it is.
    pub(super) fn writer_ended(&mut self, epoll: &Epoll, pid: i32) -> bool {
        let user = self.files.user_of(pid);
        if let Some(user) = user {
            self.files.event(epoll, user);
        }
        user.is_some()
    }

    /// Looks whether files have not answered in time.
    pub(super) fn look(&mut self, epoll: &Epoll, now: Mono) {
        self.files.look(epoll, now);
    }

    /// When to do that.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.files.deadline()
    }

    /// Something is to be read, or standard output takes more.
    pub(super) fn turn(&mut self, epoll: &Epoll, note: &mut Note<'_>) {
        for process in self.files.ready() {
            if !self.is_full(process) {
                self.read(epoll, process, note);
            }
        }
        self.files.flush(epoll);
        if self.flush_or_pause(epoll) {
            return;
        }
        for process in self.tagged.ready() {
            self.read(epoll, process, note);
            if self.flush_or_pause(epoll) {
                return;
            }
        }
    }

    /// Writes what there is to write. Whether standard output takes no more; then nothing is read
    /// until it does.
    fn flush_or_pause(&mut self, epoll: &Epoll) -> bool {
        let Some(stdout) = &mut self.stdout else {
            return false;
        };
        let is_stuck = !stdout.flush();
        if is_stuck != self.tagged.is_paused {
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, Token::Output.pack());
            let watched = stdout.watched();
            let told = match is_stuck {
                true => epoll.add(watched, event),
                false => epoll.delete(watched),
            };
            let told = told.and_then(|()| self.tagged.pause(epoll, is_stuck));
            if let Err(errno) = told {
                log::debug!("cannot watch standard output: {}", errno.desc());
            }
        }
        is_stuck
    }

    /// Reads what a process that has ended wrote last, so that it is told before the end.
    pub(super) fn catch_up(&mut self, epoll: &Epoll, process: ProcessId, note: &mut Note<'_>) {
        self.read_ahead(epoll, process, note);
        self.flush_or_pause(epoll);
    }

    /// Reads as much as a pipe holds.
    fn read_ahead(&mut self, epoll: &Epoll, process: ProcessId, note: &mut Note<'_>) {
        for _ in 0..READS_PER_PIPE {
            if self.is_full(process) || !self.read(epoll, process, note) {
                return;
            }
        }
    }

    /// Whether nobody takes at the moment what would be read from a pipe. It is kept there: what is in here is
    /// lost if listend is killed.
    fn is_full(&self, process: ProcessId) -> bool {
        match self.sources.get(&process).map(|source| &source.sink) {
            Some(OutputSink::Tagged(_)) => {
                self.stdout.as_ref().is_some_and(|out| out.left() > FULL)
            }
            Some(OutputSink::File(file)) => {
                let writer = self.files.the_writer_of(*file);
                writer.is_some_and(Writer::is_full)
            }
            None => true,
        }
    }

    /// Reads all that is there, and writes what somebody takes of it: listend ends.
    pub(super) fn finish(&mut self, epoll: &Epoll) {
        let end = clock::now() + FAREWELL;
        // Nobody goes on from here.
        let note = &mut |_: ProcessId, _: Half<'_>| false;
        loop {
            let opened = self.files.news();
            self.attach_opened(epoll, opened);
            let all: Vec<ProcessId> = self.sources.keys().copied().collect();
            for process in all {
                self.read_ahead(epoll, process, note);
                if !self.waits_for_file(process) {
                    self.end(process, note);
                }
            }
            let is_read = self.sources.is_empty() && self.unattached.is_empty();
            if is_read || !self.files.wait(epoll, end) {
                break;
            }
        }
        self.files.finish(epoll, end);
        if let Some(stdout) = &mut self.stdout {
            stdout.farewell();
        }
    }

    /// Whether there may be more in a pipe, for which its file has no room yet.
    fn waits_for_file(&self, process: ProcessId) -> bool {
        let source = self.sources.get(&process);
        let is_file = source.is_some_and(|source| matches!(source.sink, OutputSink::File(_)));
        is_file && self.is_full(process)
    }

    /// Reads once from a pipe. Whether there may be more.
    fn read(&mut self, epoll: &Epoll, process: ProcessId, note: &mut Note<'_>) -> bool {
        let Some(source) = self.sources.get(&process) else {
            return false;
        };
        note(process, Half::Opens(&source.splitter));
        let mut buffer = [0u8; READ];
        match nix::unistd::read(&source.pipe, &mut buffer) {
            Ok(length) if length > 0 => {
                let bytes = buffer.get(..length).unwrap_or_default();
                self.take(process, |splitter, take| splitter.feed(bytes, take));
                self.note(process, note);
                self.hand_to_writer(epoll, process);
                length == READ
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {
                self.note(process, note);
                false
            }
            // Nobody has the writing end any more: neither the process nor any child of it.
            Ok(_) | Err(_) => {
                self.end(process, note);
                false
            }
        }
    }

    fn note(&mut self, process: ProcessId, note: &mut Note<'_>) {
        let source = self.sources.get(&process);
        if source.is_some_and(|source| note(process, Half::Is(&source.splitter))) {
            self.half_lines.remove(&process);
        }
    }

    fn end(&mut self, process: ProcessId, note: &mut Note<'_>) {
        self.take(process, |splitter, take| splitter.finish(take));
        if note(process, Half::Ended) {
            self.half_lines.remove(&process);
        }
        if let Some(source) = self.sources.remove(&process) {
            // By hand: a child on its way to exec has a copy, which would keep the event coming.
            if let Some(pipes) = self.pipes(&source.sink) {
                pipes.remove(&source.pipe);
            }
            self.release(&source.sink);
        }
    }

    /// Passes on at once what was read.
    fn hand_to_writer(&mut self, epoll: &Epoll, process: ProcessId) {
        let source = self.sources.get(&process);
        if let Some(OutputSink::File(file)) = source.map(|source| &source.sink)
            && let Some(writer) = self.files.writer_of(*file)
        {
            writer.flush(epoll);
        }
    }

    /// One user less of a file.
    fn release(&mut self, sink: &OutputSink) {
        if let OutputSink::File(file) = sink {
            self.files.release(*file);
        }
    }

    /// Keeps and passes on the lines that `split` finds.
    fn take(
        &mut self,
        process: ProcessId,
        split: impl FnOnce(&mut Splitter, &mut dyn FnMut(Piece<'_>)),
    ) {
        let Some(source) = self.sources.get_mut(&process) else {
            return;
        };
        let now = clock::wall();
        let time = precise(now);
        let InstanceId { worker, index, .. } = source.instance;
        let (kept, sink) = (&mut self.kept, &source.sink);
        let mut text = Vec::new();
        let mut nowhere = Vec::new();
        let pending = self.stdout.as_mut().map(Stdout::pending);
        let out = pending.unwrap_or(&mut nowhere);
        let had_half = !source.splitter.rest().is_empty();
        split(&mut source.splitter, &mut |piece| {
            kept.push(place(worker), index, process.0, now, piece);
            match sink {
                OutputSink::Tagged(tagger) => tagger.write(piece, &time, out),
                OutputSink::File(_) => piece.write_raw(&mut text),
            }
        });
        if had_half || source.splitter.is_cut() || !source.splitter.rest().is_empty() {
            self.half_lines.insert(process);
        }
        if let OutputSink::File(file) = sink {
            self.files.write(*file, &text);
        }
    }
}

/// The place of a worker in the configuration.
fn place(worker: WorkerId) -> usize {
    worker.0 as usize
}

fn shown((worker, line): (usize, &crate::output::Line)) -> LogLine {
    // Workers were counted by their ids.
    let worker = WorkerId(u32::try_from(worker).unwrap_or(u32::MAX));
    LogLine {
        number: line.number,
        time: line.time,
        worker,
        instance: InstanceId {
            worker,
            index: line.instance,
            generation: 1,
        },
        text: String::from_utf8_lossy(&line.text).into_owned(),
        is_continued: !line.is_start,
    }
}

/// `2026-01-31T12:00:00.123Z`.
fn precise(time: Duration) -> String {
    let seconds = rfc3339(time.as_secs());
    let seconds = seconds.trim_end_matches('Z');
    format!("{seconds}.{:03}Z", time.subsec_millis())
}

fn failure(stage: Stage, errno: Errno, words: String) -> LaunchFailure {
    LaunchFailure::new(stage, errno as i32, words)
}

fn set_nonblocking(fd: &OwnedFd, wanted: bool) -> nix::Result<()> {
    let flags = match wanted {
        true => OFlag::O_NONBLOCK,
        false => OFlag::empty(),
    };
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(|_| ())
}

/// A connection to the journal for one process. Where there is no journal, it writes where listend
/// does: a worker is worth more than its log.
fn to_journal(identifier: &str) -> Option<OutputTarget> {
    match journal_stream(identifier) {
        Ok(target) => Some(target),
        Err(errno) => {
            let why = describe(errno as i32);
            log::warn!(
                "{identifier}: cannot connect to the journal at {JOURNAL}: {why}; it writes where \
                 listend does"
            );
            None
        }
    }
}

fn journal_stream(identifier: &str) -> nix::Result<OutputTarget> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // A journal that hangs has a full queue, which is EAGAIN then.
    connect(stream.as_raw_fd(), &UnixAddr::new(JOURNAL)?)?;
    shutdown(stream.as_raw_fd(), Shutdown::Read)?;
    // It works with a smaller one.
    let _smaller = setsockopt(&stream, sockopt::SndBuf, &JOURNAL_BUFFER);
    // What the journal wants to know first, as sd_journal_stream_fd(3) sends it: the identifier, no
    // unit, the priority of lines that do not tell (6, info), whether lines may tell (`<N>`), and
    // whether to forward them to syslog, the kernel's log and the console.
    let header = format!("{identifier}\n\n6\n1\n0\n0\n0\n");
    let sent = send(
        stream.as_raw_fd(),
        header.as_bytes(),
        MsgFlags::MSG_NOSIGNAL,
    )?;
    if sent < header.len() {
        return Err(Errno::EAGAIN);
    }
    set_nonblocking(&stream, false)?;
    Ok(OutputTarget {
        handle_on: None,
        journal_stream: logging::stream_of(&stream.as_fd()),
        fd: stream,
    })
}
