//! Pipes of workers, to be read in turn.

use super::token::Token;
use crate::core::ProcessId;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::OwnedFd;

/// How many pipes a turn reads.
const PIPES_PER_TURN: usize = 16;

/// Pipes with an epoll set of their own, which is one descriptor in that of the loop: so they come
/// last, and can all be left alone at once. The kernel hands out those that are ready in turn.
#[derive(Default)]
pub(super) struct Pipes {
    /// Made with the first pipe.
    ready: Option<Epoll>,
    pub(super) is_paused: bool,
}

impl Pipes {
    pub(super) fn add(
        &mut self,
        epoll: &Epoll,
        pipe: &OwnedFd,
        process: ProcessId,
    ) -> nix::Result<()> {
        let ready = match &self.ready {
            Some(ready) => ready,
            None => {
                let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                let event = EpollEvent::new(wanted(self.is_paused), Token::Output.pack());
                epoll.add(&ready.0, event)?;
                self.ready.insert(ready)
            }
        };
        ready.add(pipe, EpollEvent::new(EpollFlags::EPOLLIN, process.0))
    }

    pub(super) fn remove(&self, pipe: &OwnedFd) {
        if let Some(ready) = &self.ready {
            let _not_watched = ready.delete(pipe);
        }
    }

    /// Some that have something to be read.
    pub(super) fn ready(&self) -> Vec<ProcessId> {
        let mut events = [EpollEvent::empty(); PIPES_PER_TURN];
        let ready = self.ready.as_ref();
        let count = ready.map(|ready| ready.wait(&mut events, EpollTimeout::ZERO));
        let events = events.iter().take(count.and_then(Result::ok).unwrap_or(0));
        events.map(|event| ProcessId(event.data())).collect()
    }

    pub(super) fn pause(&mut self, epoll: &Epoll, is_paused: bool) -> nix::Result<()> {
        self.is_paused = is_paused;
        let Some(ready) = &self.ready else {
            return Ok(());
        };
        let mut event = EpollEvent::new(wanted(is_paused), Token::Output.pack());
        epoll.modify(&ready.0, &mut event)
    }
}

fn wanted(is_paused: bool) -> EpollFlags {
    match is_paused {
        true => EpollFlags::empty(),
        false => EpollFlags::EPOLLIN,
    }
}
