//! Going on with what processes write that another listend has started.

use super::{Logs, OutputSink, Source, Unattached, place};
use crate::config::Output;
use crate::core::ProcessId;
use crate::output::{Line, Splitter, Style, Tagger};
use crate::plan::{WorkerId, WorkerPlan};
use crate::shell::files::Opened;
use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

impl Logs {
    /// Every line that is kept, with the number of its worker, the oldest first.
    pub(in crate::shell) fn all(&self) -> Vec<(usize, &Line)> {
        self.kept.since(None, 0, usize::MAX).lines
    }

    /// Keeps a line that another listend has read, after those before it.
    pub(in crate::shell) fn keep(&mut self, worker: WorkerId, line: Line) {
        self.kept.restore(place(worker), line);
    }

    /// The pipe that a process writes to.
    pub(in crate::shell) fn pipe_of(&self, process: ProcessId) -> Option<BorrowedFd<'_>> {
        let source = self.sources.get(&process).map(|source| &source.pipe);
        let unattached = || self.unattached.get(&process).map(|source| &source.pipe);
        source.or_else(unattached).map(AsFd::as_fd)
    }

    /// Goes on with the pipe of a process. `file` is the path behind `file:`.
    pub(in crate::shell) fn restore(
        &mut self,
        epoll: &Epoll,
        worker: &WorkerPlan,
        (name, process): (&str, ProcessId),
        source: Unattached,
        file: Option<PathBuf>,
    ) -> nix::Result<()> {
        if let Some(path) = file {
            let user = worker.launch.credentials.as_ref().and_then(|one| one.uid);
            self.unattached.insert(process, source);
            self.files.open(process, &path, user);
            self.files.flush(epoll);
            return Ok(());
        }
        let style = match &worker.output {
            Output::TagJson => Style::Json,
            _ => self.style,
        };
        let instance = source.instance;
        let colour = instance.worker.0.wrapping_add(instance.index);
        let tagger = Tagger::new(&worker.name, name, colour, style);
        self.attach(epoll, process, source, OutputSink::Tagged(tagger))
    }

    /// Attaches the pipes whose files are open now. Answers with the other processes.
    pub(super) fn attach_opened(
        &mut self,
        epoll: &Epoll,
        opened: Vec<ProcessId>,
    ) -> Vec<ProcessId> {
        let (restored, others): (Vec<_>, Vec<_>) = opened
            .into_iter()
            .partition(|process| self.unattached.contains_key(process));
        for process in restored {
            let Some(source) = self.unattached.remove(&process) else {
                continue;
            };
            let attached = match self.files.opened(process) {
                Some(Opened::File(file)) => {
                    self.attach(epoll, process, source, OutputSink::File(file))
                }
                Some(Opened::Special(path, _)) => {
                    log::error!("{}: it is no longer a file", path.display());
                    Ok(())
                }
                Some(Opened::Failed(_, words)) => {
                    log::error!("{words}; what a worker writes is lost");
                    Ok(())
                }
                None => Ok(()),
            };
            if let Err(errno) = attached {
                log::error!("cannot read what a worker writes: {}", errno.desc());
            }
        }
        others
    }

    fn attach(
        &mut self,
        epoll: &Epoll,
        process: ProcessId,
        source: Unattached,
        sink: OutputSink,
    ) -> nix::Result<()> {
        let pipes = self.pipes(&sink).ok_or(Errno::EBADF)?;
        pipes.add(epoll, &source.pipe, process)?;
        let Unattached {
            pipe,
            instance,
            splitter,
        } = source;
        let source = Source {
            pipe,
            instance,
            splitter,
            sink,
        };
        self.sources.insert(process, source);
        Ok(())
    }

    /// Passes on what standard output has no room for: another listend goes on with the pipes, and with what is
    /// only half a line.
    pub(in crate::shell) fn hand_over(&mut self, epoll: &Epoll) {
        self.files.flush(epoll);
        if let Some(stdout) = &mut self.stdout {
            stdout.farewell();
        }
    }

    /// What was read of a line of a process.
    pub(in crate::shell) fn splitter_of(&self, process: ProcessId) -> Option<&Splitter> {
        let source = self.sources.get(&process).map(|source| &source.splitter);
        let unattached = || Some(&self.unattached.get(&process)?.splitter);
        source.or_else(unattached)
    }

    /// The processes that the next call of [`Logs::take_half_lines`] returns.
    pub(in crate::shell) fn changed_half_lines(&self) -> impl Iterator<Item = &ProcessId> {
        self.half_lines.iter()
    }

    /// The processes whose half lines may be others since this was asked last.
    pub(in crate::shell) fn take_half_lines(&mut self) -> BTreeSet<ProcessId> {
        std::mem::take(&mut self.half_lines)
    }

    /// Every process that may have one.
    pub(in crate::shell) fn half_lines(&self) -> impl Iterator<Item = ProcessId> {
        let all = self.sources.keys().chain(self.unattached.keys());
        all.copied()
    }

    /// Whether all that was read for files is written.
    pub(in crate::shell) fn is_written(&self) -> bool {
        self.files.is_idle()
    }
}
