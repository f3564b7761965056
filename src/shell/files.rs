//! The files of `output: file:`, which other processes write, one for the workers of each user.
//!
//! Nothing here waits: a process starts when its file is open, which is told later. While the files of a
//! user's workers take no more, their pipes are not read; when they do not answer at all, what is written
//! there is dropped, counted and told.

use super::clock;
use super::token::ClientId;
use super::writer::{About, FileId, FileRequest, PATIENCE, Writer};
use crate::config::{Output, signal_name};
use crate::core::{Mono, ProcessId};
use crate::output::{Answer, Order};
use crate::plan::Plan;
use crate::report::describe;
use crate::sys::How;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::Epoll;
use nix::unistd::geteuid;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The files, and who writes them.
#[derive(Default)]
pub(super) struct Files {
    /// By the user of the workers.
    writers: BTreeMap<u32, Writer>,
    known: BTreeMap<FileId, OutputFile>,
    next: FileId,
    /// What processes that have not been started yet are to write to.
    opened: HashMap<ProcessId, Opened>,
    /// The processes whose files are open and that have not been told yet.
    news: Vec<ProcessId>,
    reopening: BTreeMap<ClientId, Reopening>,
}

struct OutputFile {
    path: PathBuf,
    /// The user whose output it is, if that is not listend's own.
    user: Option<u32>,
    writer: u32,
    /// How many pipes lead to it, or will.
    users: usize,
    /// How many bytes could not be written since it was last possible.
    lost: u64,
}

/// What has become of a file that was to be opened.
pub(super) enum Opened {
    /// The file is open, and has one user more.
    File(FileId),
    /// A FIFO, a terminal and so on, which the process opens itself: it may have to wait for it.
    Special(PathBuf, OwnedFd),
    Failed(Errno, String),
}

#[derive(Default)]
struct Reopening {
    left: usize,
    count: usize,
    failed: Vec<String>,
}

impl Files {
    /// Asks for a file to be opened, of its own accord anew, so that a process that starts after it was
    /// renamed writes to the one that has the name now.
    pub(super) fn open(&mut self, process: ProcessId, path: &Path, user: Option<u32>) {
        let known = self.known.iter_mut().find(|(_, known)| known.path == path);
        let (file, known) = match known {
            Some((file, known)) => (*file, known),
            None => {
                self.next += 1;
                let known = OutputFile {
                    path: path.to_owned(),
                    user,
                    writer: user.unwrap_or_else(|| geteuid().as_raw()),
                    users: 0,
                    lost: 0,
                };
                (self.next, self.known.entry(self.next).or_insert(known))
            }
        };
        known.users += 1;
        known.user = user;
        let asked = FileRequest {
            file,
            about: About::Start(process),
        };
        self.ask_to_open(asked);
    }

    /// Of a process that was to be started: what came of its file.
    pub(super) fn opened(&mut self, process: ProcessId) -> Option<Opened> {
        self.opened.remove(&process)
    }

    /// Forgets a process that has its file, or that is not started after all.
    pub(super) fn forget(&mut self, process: ProcessId) {
        if let Some(Opened::File(file)) = self.opened.remove(&process) {
            self.release(file);
        }
    }

    /// The processes that can be started now.
    pub(super) fn news(&mut self) -> Vec<ProcessId> {
        std::mem::take(&mut self.news)
    }

    /// Asks for all files to be opened again, after somebody renamed them. Those that cannot be opened
    /// are written to as before, wherever they are now.
    pub(super) fn reopen(&mut self, client: ClientId) {
        let files: Vec<FileId> = self.known.keys().copied().collect();
        let reopening = Reopening {
            left: files.len(),
            count: files.len(),
            failed: Vec::new(),
        };
        self.reopening.insert(client, reopening);
        let about = About::Reopen(client);
        for file in files {
            self.ask_to_open(FileRequest { file, about });
        }
    }

    /// Who has asked for that, and how many were opened; or what could not be opened, in words.
    pub(super) fn reopened(&mut self) -> Option<(ClientId, Result<usize, String>)> {
        let done = self.reopening.iter().find(|(_, one)| one.left == 0);
        let client = *done?.0;
        let mut reopening = self.reopening.remove(&client)?;
        reopening.failed.sort_unstable();
        let result = match reopening.failed.is_empty() {
            true => Ok(reopening.count),
            false => Err(reopening.failed.join("; ")),
        };
        Some((client, result))
    }

    fn ask_to_open(&mut self, asked: FileRequest) {
        let Some(known) = self.known.get(&asked.file) else {
            return;
        };
        let user = known.writer;
        let writer = self.writers.entry(user);
        let writer = writer.or_insert_with(|| Writer::new(user));
        match writer.silence().map(|silence| silence.file) {
            None => writer.ask(known.order(asked.file), asked.about),
            Some(silent) => self.give_up(asked, silent),
        }
    }

    fn path(&self, file: FileId) -> String {
        let known = self.known.get(&file);
        known.map_or_else(
            || "a file".to_owned(),
            |known| known.path.display().to_string(),
        )
    }

    /// Gives up waiting for a file, because the writer does not answer.
    fn give_up(&mut self, asked: FileRequest, silent: FileId) {
        let words = match asked.file == silent {
            true => format!("cannot open {}: no answer", self.path(asked.file)),
            false => {
                let (path, silent) = (self.path(asked.file), self.path(silent));
                format!("cannot open {path}: waiting for {silent}, which does not answer")
            }
        };
        self.done(asked, Err((Errno::ETIMEDOUT, words)));
    }

    /// Words to be passed on.
    pub(super) fn write(&mut self, file: FileId, text: &[u8]) {
        if let Some(writer) = self.writer_of(file) {
            writer.write(file, text);
        }
    }

    /// The process that writes it.
    pub(super) fn writer_of(&mut self, file: FileId) -> Option<&mut Writer> {
        let known = self.known.get(&file)?;
        self.writers.get_mut(&known.writer)
    }

    /// The same, to be looked at.
    pub(super) fn the_writer_of(&self, file: FileId) -> Option<&Writer> {
        self.writers.get(&self.known.get(&file)?.writer)
    }

    /// One user less of a file.
    pub(super) fn release(&mut self, file: FileId) {
        let Some(known) = self.known.get_mut(&file) else {
            return;
        };
        known.users -= 1;
        if known.users == 0
            && let Some(known) = self.known.remove(&file)
            && let Some(writer) = self.writers.get_mut(&known.writer)
        {
            writer.ask(Order::Close { file }, About::Nothing);
        }
    }

    /// Processes that have written something for which there is room.
    pub(super) fn ready(&self) -> Vec<ProcessId> {
        let writers = self.writers.values().filter(|one| !one.pipes.is_paused);
        writers.flat_map(|one| one.pipes.ready()).collect()
    }

    /// Hands over all there is room for.
    pub(super) fn flush(&mut self, epoll: &Epoll) {
        for writer in self.writers.values_mut() {
            writer.flush(epoll);
        }
    }

    /// The user of the workers whose files this process writes.
    pub(super) fn user_of(&self, pid: i32) -> Option<u32> {
        let mut writers = self.writers.iter();
        writers.find_map(|(user, writer)| writer.is(pid).then_some(*user))
    }

    /// A writer has answered, or ended.
    pub(super) fn event(&mut self, epoll: &Epoll, user: u32) {
        self.listen(epoll, user);
        let ended = self.writers.get_mut(&user).and_then(Writer::end);
        if let Some((ended, in_hand)) = ended {
            self.ended(user, ended.map(|ended| ended.how), in_hand);
        }
        self.flush(epoll);
    }

    fn listen(&mut self, epoll: &Epoll, user: u32) {
        while let Some(writer) = self.writers.get_mut(&user)
            && let Some((asked, answer, handle)) = writer.answer(epoll)
        {
            if let Some(silence) = writer.break_silence() {
                let (path, lost) = (self.path(silence.file), silence.lost);
                log::warn!("{path} answers again; {lost} bytes of workers were lost");
            }
            self.answered(asked, answer, handle);
        }
    }

    fn answered(&mut self, asked: FileRequest, answer: Answer, handle: Option<OwnedFd>) {
        match asked.about {
            About::Text(length) => {
                if let Some(known) = self.known.get_mut(&asked.file) {
                    known.written(length, &answer);
                }
            }
            About::Start(_) | About::Reopen(_) => {
                let opened = match answer.errno {
                    0 => Ok(handle),
                    errno => Err((Errno::from_raw(errno), answer.words)),
                };
                self.done(asked, opened);
            }
            About::Again if answer.errno != 0 => log::error!("{}", answer.words),
            About::Again | About::Nothing => {}
        }
    }

    /// A file was opened, or not, for somebody who waits for it; or there is a handle on what is no file.
    fn done(&mut self, asked: FileRequest, opened: Result<Option<OwnedFd>, (Errno, String)>) {
        let known = self.known.get(&asked.file);
        let path = known.map(|known| known.path.clone());
        match asked.about {
            About::Start(process) => {
                let Some(path) = path else { return };
                let opened = match opened {
                    Ok(None) => Opened::File(asked.file),
                    Ok(Some(handle)) => Opened::Special(path, handle),
                    Err((errno, words)) => Opened::Failed(errno, words),
                };
                if !matches!(opened, Opened::File(_)) {
                    self.release(asked.file);
                }
                self.opened.insert(process, opened);
                self.news.push(process);
            }
            About::Reopen(client) => {
                if let Some(reopening) = self.reopening.get_mut(&client) {
                    reopening.left -= 1;
                    // Where nobody writes any more, nothing can have failed.
                    reopening.failed.extend(path.and_then(|path| match opened {
                        Ok(None) => None,
                        Ok(Some(_)) => {
                            let path = path.display();
                            Some(format!("cannot reopen {path}: it is no longer a file"))
                        }
                        Err((_, words)) => Some(words),
                    }));
                }
            }
            About::Again | About::Text(_) | About::Nothing => {}
        }
    }

    /// What the process had in its hands is lost; the next one opens its files again.
    fn ended(&mut self, user: u32, how: Option<How>, in_hand: Vec<FileRequest>) {
        let Some(writer) = self.writers.get_mut(&user) else {
            return;
        };
        let mut files = self.known.iter().filter(|(_, known)| known.writer == user);
        if writer.is_idle() && files.next().is_none() {
            self.writers.remove(&user);
            return;
        }
        let lost: usize = in_hand.iter().map(|asked| asked.about.length()).sum();
        let waited_for = in_hand
            .iter()
            .filter(|asked| matches!(asked.about, About::Start(_) | About::Reopen(_)));
        let (known, unknown): (Vec<FileRequest>, Vec<FileRequest>) = waited_for
            .copied()
            .partition(|asked| self.known.contains_key(&asked.file));
        for asked in known.iter().rev() {
            if let Some(known) = self.known.get(&asked.file) {
                writer.ask_first(known.order(asked.file), asked.about);
            }
        }
        for (file, known) in self.known.iter().filter(|(_, one)| one.writer == user) {
            writer.ask_first(known.order(*file), About::Again);
        }
        let how = match how {
            Some(How::Killed(number) | How::Dumped(number)) => {
                format!("was killed by {}", signal_name(number))
            }
            Some(How::Exited(code)) => format!("exited with exit status {code}"),
            None => "ended".to_owned(),
        };
        log::error!(
            "the process that writes the files of workers of uid {user} {how}; restarting it; up to \
             {lost} bytes of workers were lost"
        );
        for asked in unknown {
            self.done(asked, Ok(None));
        }
    }

    /// Looks who has not answered in time.
    pub(super) fn look(&mut self, epoll: &Epoll, now: Mono) {
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        let users: Vec<u32> = self.writers.keys().copied().collect();
        for user in users {
            self.look_at(user, now);
        }
        self.flush(epoll);
    }

    fn look_at(&mut self, user: u32, now: Mono) {
        let Some(writer) = self.writers.get_mut(&user) else {
            return;
        };
        if writer.is_overdue(now) {
            let given_up = writer.fall_silent(now);
            let Some(silent) = writer.silence().map(|silence| silence.file) else {
                return;
            };
            let (path, waited) = (self.path(silent), PATIENCE.as_secs());
            log::error!(
                "cannot write to {path}: no answer for {waited} s; what workers of uid {user} write \
                 to files is lost until there is one"
            );
            for asked in given_up {
                self.give_up(asked, silent);
            }
        } else if let Some((file, lost)) = writer.remind(now).map(|one| (one.file, one.lost)) {
            let path = self.path(file);
            log::error!("{path} still does not answer; {lost} bytes of workers were lost so far");
        }
    }

    /// Whether nothing is left to be done, but by those who do not answer.
    pub(super) fn is_idle(&self) -> bool {
        let is_done = |writer: &Writer| writer.is_idle() || writer.silence().is_some();
        self.writers.values().all(is_done)
    }

    /// When to look even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.writers.values().filter_map(Writer::deadline).min()
    }

    /// Ends the processes that have nothing to write any more.
    pub(super) fn follow(&mut self, plan: &Plan) {
        let workers = plan.workers().map(|(_, worker)| worker);
        let workers = workers.filter(|worker| matches!(worker.output, Output::File(_)));
        let users = workers.map(|worker| {
            let credentials = worker.launch.credentials.as_ref();
            let uid = credentials.and_then(|one| one.uid);
            uid.unwrap_or_else(|| geteuid().as_raw())
        });
        let in_use = self.known.values().map(|known| known.writer);
        let wanted: BTreeSet<u32> = users.chain(in_use).collect();
        let idle = |(user, writer): &(&u32, &Writer)| !wanted.contains(user) && writer.is_idle();
        for (_, writer) in self.writers.iter().filter(idle) {
            writer.dismiss();
        }
    }

    /// Hands over what there is room for, and waits until some of it is done, or something else is; whether that
    /// may go on.
    pub(super) fn wait(&mut self, epoll: &Epoll, end: Mono) -> bool {
        self.flush(epoll);
        let busy = |writer: &&Writer| !writer.is_idle() && writer.silence().is_none();
        let busy = self.writers.values().filter(busy);
        let can_wait = wait_for_any(busy.filter_map(Writer::socket), end);
        let users: Vec<u32> = self.writers.keys().copied().collect();
        for user in users {
            self.listen(epoll, user);
            if let Some(writer) = self.writers.get_mut(&user)
                && let Some((_, in_hand)) = writer.end()
            {
                self.ended(user, None, in_hand);
            }
        }
        self.flush(epoll);
        can_wait
    }

    /// Waits until all is written, if not for long: listend ends. A process that waits for something else
    /// is killed, and left behind where that does not end it.
    pub(super) fn finish(&mut self, epoll: &Epoll, end: Mono) {
        while self.wait(epoll, end) {}
        for (user, writer) in &self.writers {
            let lost = writer.unwritten();
            if lost > 0 {
                log::warn!(
                    "{lost} bytes of workers of uid {user} were lost: their files do not answer"
                );
            }
            match writer.is_idle() {
                true => writer.dismiss(),
                false => writer.kill(),
            }
        }
        while wait_for_any(self.writers.values().filter_map(idle_end), end) {
            self.writers.retain(|_, writer| writer.end().is_none());
        }
    }
}

fn idle_end(writer: &Writer) -> Option<BorrowedFd<'_>> {
    writer.pidfd().filter(|_| writer.is_idle())
}

/// Whether one of these is readable before that time; not if there is none.
fn wait_for_any<'fd>(wanted: impl Iterator<Item = BorrowedFd<'fd>>, end: Mono) -> bool {
    let wanted = wanted.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let mut wanted: Vec<PollFd<'_>> = wanted.collect();
    let left = end.since(clock::now());
    if wanted.is_empty() || left.is_zero() {
        return false;
    }
    let milliseconds = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
    let limit = PollTimeout::from(milliseconds.saturating_add(1));
    matches!(poll(&mut wanted, limit), Ok(1..) | Err(Errno::EINTR))
}

impl OutputFile {
    fn order(&self, file: FileId) -> Order<'_> {
        Order::Open {
            file,
            user: self.user,
            path: &self.path,
        }
    }

    fn written(&mut self, length: usize, answer: &Answer) {
        let path = self.path.display();
        if answer.errno != 0 {
            if self.lost == 0 {
                let why = describe(answer.errno);
                log::error!("cannot write to {path}: {why}; what workers write is lost");
            }
            self.lost += u64::from(answer.lost).min(length as u64);
        } else if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            log::warn!("{path} is writable again; {lost} bytes of workers were lost");
        }
    }
}
