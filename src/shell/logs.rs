//! What workers write: read from their pipes and passed on, or sent to the journal by themselves.
//!
//! The rest of the loop comes first, and what one worker writes never holds up another: each turn
//! reads a little from a few of the pipes that have something, in turn. While standard output takes
//! no more, no pipe that leads there is read: they fill up, and their workers wait.

use super::stdout::Stdout;
use super::token::Token;
use super::{clock, logging};
use crate::config::Output;
use crate::control::{cut_middle, rfc3339};
use crate::core::{InstanceId, ProcessId};
use crate::output::{Kept, Piece, Splitter, Style, Tagger, visible};
use crate::plan::{Plan, WorkerId, WorkerPlan};
use crate::report::describe;
use crate::stage::{LaunchFailure, Stage};
use crate::walk::{self, Refused};
use crate::worker::{self, JOURNAL};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, connect, send, setsockopt,
    shutdown, socket, sockopt,
};
use nix::unistd::pipe2;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many pipes a turn reads.
const PIPES_PER_TURN: usize = 16;
/// How much it reads of each, in bytes.
const READ: usize = 8 * 1024;
/// How many reads it takes to empty a pipe of the usual size (pipe(7)).
const READS_PER_PIPE: usize = 8;
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
    /// Pipes that lead to files: those are read whoever looks at standard output.
    filed: Pipes,
    stdout: Option<Stdout>,
    style: Style,
    files: HashMap<PathBuf, OutputFile>,
}

/// Pipes with an epoll set of their own, which is one descriptor in that of the loop: so they come
/// last, and can all be left alone at once. The kernel hands out those that are ready in turn.
#[derive(Default)]
struct Pipes {
    /// Made with the first pipe.
    ready: Option<Epoll>,
    is_paused: bool,
}

/// The reading end of what one process and its children write to.
struct Source {
    pipe: OwnedFd,
    instance: InstanceId,
    splitter: Splitter,
    sink: OutputSink,
}

enum OutputSink {
    Tagged(Tagger),
    File(PathBuf),
}

struct OutputFile {
    file: File,
    /// How many pipes lead to it.
    users: usize,
    /// The user who writes to it, if it is not listend's own.
    user: Option<u32>,
    /// How many bytes could not be written since it was last possible.
    lost: u64,
}

/// What a process gets as standard output and error.
pub(super) struct OutputTarget {
    fd: OwnedFd,
    /// What it is a handle on, if the process has to open it.
    handle_on: Option<PathBuf>,
    journal_stream: Option<String>,
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
    /// Which instance of it.
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
        Logs {
            kept: Kept::new(plan.workers.len()),
            sources: HashMap::new(),
            tagged: Pipes::default(),
            filed: Pipes::default(),
            stdout: outputs().any(is_tagged).then(Stdout::new),
            style: match stream {
                logging::Stream::Journal => Style::Journal,
                logging::Stream::Terminal => Style::Terminal {
                    colours: logging::wants_colour(),
                },
                logging::Stream::Plain => Style::Plain,
            },
            files: HashMap::new(),
        }
    }

    /// Makes room for the workers that a reload has brought.
    pub(super) fn follow(&mut self, plan: &Plan) {
        self.kept.add(plan.workers.keys().copied().map(place));
        let is_tagged = |output: &Output| matches!(output, Output::Tag | Output::TagJson);
        if self.stdout.is_none() && plan.workers().any(|(_, one)| is_tagged(&one.output)) {
            self.stdout = Some(Stdout::new());
        }
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

    /// Makes what a process is to write to. `None`: whatever its plan says, and listend has no part
    /// in it. `file` is the path behind `file:`.
    pub(super) fn open(
        &mut self,
        epoll: &Epoll,
        worker: &WorkerPlan,
        name: &str,
        process: ProcessId,
        instance: InstanceId,
        file: Option<PathBuf>,
    ) -> Result<Option<OutputTarget>, (LaunchFailure, String)> {
        let style = match &worker.output {
            Output::Inherit | Output::Null => return Ok(None),
            Output::Journal => return Ok(to_journal(name)),
            Output::File(_) => {
                let Some(path) = file else {
                    return Ok(None);
                };
                let user = worker.launch.credentials.as_ref().and_then(|one| one.uid);
                return match self.open_file(&path, user) {
                    Ok(None) => self.pipe(epoll, process, instance, OutputSink::File(path)),
                    Ok(Some(handle)) => Ok(Some(OutputTarget {
                        fd: handle,
                        handle_on: Some(path),
                        journal_stream: None,
                    })),
                    Err(refused) => {
                        let (errno, words) = cannot_open(&path, &refused);
                        Err(failure(Stage::Output, errno, words))
                    }
                };
            }
            Output::Tag => self.style,
            Output::TagJson => Style::Json,
        };
        let colour = instance.worker.0.wrapping_add(instance.index);
        let tagger = Tagger::new(&worker.name, name, colour, style);
        self.pipe(epoll, process, instance, OutputSink::Tagged(tagger))
    }

    fn pipe(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        instance: InstanceId,
        sink: OutputSink,
    ) -> Result<Option<OutputTarget>, (LaunchFailure, String)> {
        let source = |pipe| Source {
            pipe,
            instance,
            splitter: Splitter::default(),
            sink,
        };
        let fail = |errno: Errno| {
            failure(
                Stage::Prepare,
                errno,
                format!("no pipe: {}", describe(errno as i32)),
            )
        };
        let (reading, writing) = pipe2(OFlag::O_CLOEXEC).map_err(fail)?;
        let source = source(reading);
        let pipes = match source.sink {
            OutputSink::Tagged(_) => &mut self.tagged,
            OutputSink::File(_) => &mut self.filed,
        };
        let watched = set_nonblocking(&source.pipe, true)
            .and_then(|()| pipes.add(epoll, &source.pipe, process));
        if let Err(errno) = watched {
            self.release(&source);
            return Err(fail(errno));
        }
        self.sources.insert(process, source);
        Ok(Some(OutputTarget {
            fd: writing,
            handle_on: None,
            journal_stream: None,
        }))
    }

    /// Opens a file of its own accord anew, so that a process that starts after it was renamed
    /// writes to the one that has the name now. A user more.
    ///
    /// Only a file that is renamed or removed has to be opened again. A FIFO, a terminal and so on are
    /// opened by the process itself, which may have to wait for them: of those it is a handle.
    fn open_file(&mut self, path: &Path, user: Option<u32>) -> Result<Option<OwnedFd>, Refused> {
        let file = match walk::open_to_append(path, user)? {
            walk::Output::File(file) => file,
            walk::Output::Special(handle) => return Ok(Some(handle)),
        };
        match self.files.get_mut(path) {
            Some(known) => {
                known.file = file;
                known.users += 1;
            }
            None => {
                let known = OutputFile {
                    file,
                    user,
                    users: 1,
                    lost: 0,
                };
                self.files.insert(path.to_owned(), known);
            }
        }
        Ok(None)
    }

    /// Opens every file again, after somebody renamed them. Those that cannot be opened are written
    /// to as before, wherever they are now.
    ///
    /// # Errors
    ///
    /// What could not be opened, in words.
    pub(super) fn reopen(&mut self) -> Result<usize, Vec<String>> {
        let mut failed = Vec::new();
        for (path, known) in &mut self.files {
            match walk::open_to_append(path, known.user) {
                Ok(walk::Output::File(file)) => known.file = file,
                Ok(walk::Output::Special(_)) => {
                    let path = path.display();
                    failed.push(format!("cannot reopen {path}: it is no longer a file"));
                }
                Err(refused) => failed.push(cannot_open(path, &refused).1),
            }
        }
        failed.sort_unstable();
        if failed.is_empty() {
            Ok(self.files.len())
        } else {
            Err(failed)
        }
    }

    /// Something is to be read, or standard output takes more.
    pub(super) fn turn(&mut self, epoll: &Epoll) {
        for process in self.filed.ready() {
            self.read(process);
        }
        if self.flush_or_pause(epoll) {
            return;
        }
        for process in self.tagged.ready() {
            self.read(process);
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
    pub(super) fn catch_up(&mut self, epoll: &Epoll, process: ProcessId) {
        for _ in 0..READS_PER_PIPE {
            let is_full = self.stdout.as_ref().is_some_and(|out| out.left() > FULL);
            if is_full || !self.read(process) {
                break;
            }
        }
        self.flush_or_pause(epoll);
    }

    /// Reads all that is there, and writes what somebody takes of it: listend ends.
    pub(super) fn finish(&mut self) {
        let all: Vec<ProcessId> = self.sources.keys().copied().collect();
        for process in all {
            for _ in 0..READS_PER_PIPE {
                let is_full = self.stdout.as_ref().is_some_and(|out| out.left() > FULL);
                if is_full || !self.read(process) {
                    break;
                }
            }
            self.end(process);
        }
        if let Some(stdout) = &mut self.stdout {
            stdout.farewell();
        }
    }

    /// Reads once from a pipe. Whether there may be more.
    fn read(&mut self, process: ProcessId) -> bool {
        let Some(source) = self.sources.get(&process) else {
            return false;
        };
        let mut buffer = [0u8; READ];
        match nix::unistd::read(&source.pipe, &mut buffer) {
            Ok(length) if length > 0 => {
                let bytes = buffer.get(..length).unwrap_or_default();
                self.take(process, |splitter, take| splitter.feed(bytes, take));
                length == READ
            }
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            // Nobody has the writing end any more: neither the process nor any child of it.
            Ok(_) | Err(_) => {
                self.end(process);
                false
            }
        }
    }

    fn end(&mut self, process: ProcessId) {
        self.take(process, |splitter, take| splitter.finish(take));
        if let Some(source) = self.sources.remove(&process) {
            // By hand: a child on its way to exec has a copy, which would keep the event coming.
            match source.sink {
                OutputSink::Tagged(_) => self.tagged.remove(&source.pipe),
                OutputSink::File(_) => self.filed.remove(&source.pipe),
            }
            self.release(&source);
        }
    }

    /// One user less of a file.
    fn release(&mut self, source: &Source) {
        if let OutputSink::File(path) = &source.sink
            && let Some(known) = self.files.get_mut(path)
        {
            known.users -= 1;
            if known.users == 0 {
                self.files.remove(path);
            }
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
        split(&mut source.splitter, &mut |piece| {
            kept.push(place(worker), index, process.0, now, piece);
            match sink {
                OutputSink::Tagged(tagger) => tagger.write(piece, &time, out),
                OutputSink::File(_) => piece.write_raw(&mut text),
            }
        });
        if let OutputSink::File(path) = sink
            && let Some(known) = self.files.get_mut(path)
        {
            known.write(path, &text);
        }
    }
}

impl OutputFile {
    fn write(&mut self, path: &Path, text: &[u8]) {
        match self.file.write_all(text) {
            Ok(()) if self.lost > 0 && !text.is_empty() => {
                let lost = std::mem::take(&mut self.lost);
                let path = path.display();
                log::warn!("{path} is writable again; {lost} bytes of workers were lost");
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    let path = path.display();
                    log::error!("cannot write to {path}: {error}; what workers write is lost");
                }
                self.lost += text.len() as u64;
            }
        }
    }
}

impl Pipes {
    fn add(&mut self, epoll: &Epoll, pipe: &OwnedFd, process: ProcessId) -> nix::Result<()> {
        let ready = match &self.ready {
            Some(ready) => ready,
            None => {
                let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Output.pack());
                epoll.add(&ready.0, event)?;
                self.ready.insert(ready)
            }
        };
        ready.add(pipe, EpollEvent::new(EpollFlags::EPOLLIN, process.0))
    }

    fn remove(&self, pipe: &OwnedFd) {
        if let Some(ready) = &self.ready {
            let _not_watched = ready.delete(pipe);
        }
    }

    /// Some that have something to be read.
    fn ready(&self) -> Vec<ProcessId> {
        let mut events = [EpollEvent::empty(); PIPES_PER_TURN];
        let ready = self.ready.as_ref();
        let count = ready.map(|ready| ready.wait(&mut events, EpollTimeout::ZERO));
        let events = events.iter().take(count.and_then(Result::ok).unwrap_or(0));
        events.map(|event| ProcessId(event.data())).collect()
    }

    fn pause(&mut self, epoll: &Epoll, is_paused: bool) -> nix::Result<()> {
        self.is_paused = is_paused;
        let Some(ready) = &self.ready else {
            return Ok(());
        };
        let flags = match is_paused {
            true => EpollFlags::empty(),
            false => EpollFlags::EPOLLIN,
        };
        epoll.modify(&ready.0, &mut EpollEvent::new(flags, Token::Output.pack()))
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

fn failure(stage: Stage, errno: Errno, words: String) -> (LaunchFailure, String) {
    let failure = LaunchFailure {
        stage,
        errno: errno as i32,
        detail: 0,
    };
    (failure, words)
}

fn set_nonblocking(fd: &OwnedFd, wanted: bool) -> nix::Result<()> {
    let flags = match wanted {
        true => OFlag::O_NONBLOCK,
        false => OFlag::empty(),
    };
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(|_| ())
}

fn cannot_open(path: &Path, refused: &Refused) -> (Errno, String) {
    let words = match refused.why {
        None if refused.path == path => describe(refused.errno as i32),
        None => format!(
            "{}: {}",
            refused.path.display(),
            describe(refused.errno as i32)
        ),
        Some(_) => refused.to_string(),
    };
    (
        refused.errno,
        format!("cannot open {}: {words}", path.display()),
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_opened_again_on_request_and_kept_where_that_fails() {
        let folder = std::env::temp_dir().join(format!("listend-reopen.{}", std::process::id()));
        let path = folder.join("log");
        fs::create_dir(&folder).unwrap();
        let mut logs = Logs::new(&Plan::default());
        logs.open_file(&path, None).unwrap();
        let write = |logs: &mut Logs, text: &str| {
            let known = logs.files.get_mut(&path).unwrap();
            known.write(&path, text.as_bytes());
        };
        write(&mut logs, "one\n");
        fs::rename(&path, folder.join("log.1")).unwrap();
        write(&mut logs, "two\n");
        assert_eq!(logs.reopen(), Ok(1));
        write(&mut logs, "three\n");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(
            (read("log.1").as_str(), read("log").as_str()),
            ("one\ntwo\n", "three\n")
        );
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let failed = logs.reopen().unwrap_err();
        assert!(failed[0].contains("EISDIR"), "{failed:?}");
        write(&mut logs, "four\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
