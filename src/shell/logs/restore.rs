//! Going on with what processes write that another listend has started.

use super::{Logs, OutputSink, Source, place};
use crate::config::Output;
use crate::core::{InstanceId, ProcessId};
use crate::output::{Line, Splitter, Style, Tagger};
use crate::plan::{WorkerId, WorkerPlan};
use crate::shell::files::Opened;
use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
        let unattached = || self.unattached.get(&process).map(|(pipe, _)| pipe);
        source.or_else(unattached).map(AsFd::as_fd)
    }

    /// Goes on with the pipe of a process. `file` is the path behind `file:`.
    pub(in crate::shell) fn restore(
        &mut self,
        epoll: &Epoll,
        worker: &WorkerPlan,
        (name, process, instance): (&str, ProcessId, InstanceId),
        (pipe, file): (OwnedFd, Option<PathBuf>),
    ) -> nix::Result<()> {
        if let Some(path) = file {
            let user = worker.launch.credentials.as_ref().and_then(|one| one.uid);
            self.unattached.insert(process, (pipe, instance));
            self.files.open(process, &path, user);
            self.files.flush(epoll);
            return Ok(());
        }
        let style = match &worker.output {
            Output::TagJson => Style::Json,
            _ => self.style,
        };
        let colour = instance.worker.0.wrapping_add(instance.index);
        let tagger = Tagger::new(&worker.name, name, colour, style);
        self.attach(epoll, process, instance, (pipe, OutputSink::Tagged(tagger)))
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
            let Some((pipe, instance)) = self.unattached.remove(&process) else {
                continue;
            };
            let attached = match self.files.opened(process) {
                Some(Opened::File(file)) => {
                    self.attach(epoll, process, instance, (pipe, OutputSink::File(file)))
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
        instance: InstanceId,
        (pipe, sink): (OwnedFd, OutputSink),
    ) -> nix::Result<()> {
        let pipes = self.pipes(&sink).ok_or(Errno::EBADF)?;
        pipes.add(epoll, &pipe, process)?;
        let source = Source {
            pipe,
            instance,
            splitter: Splitter::default(),
            sink,
        };
        self.sources.insert(process, source);
        Ok(())
    }

    /// Passes on what is only half a line, and what standard output has no room for: another listend goes
    /// on with the pipes.
    pub(in crate::shell) fn hand_over(&mut self, epoll: &Epoll) {
        let all: Vec<ProcessId> = self.sources.keys().copied().collect();
        for process in all {
            self.take(process, |splitter, take| splitter.finish(take));
        }
        self.files.flush(epoll);
        if let Some(stdout) = &mut self.stdout {
            stdout.farewell();
        }
    }

    /// Whether all that was read for files is written.
    pub(in crate::shell) fn is_written(&self) -> bool {
        self.files.is_idle()
    }
}
