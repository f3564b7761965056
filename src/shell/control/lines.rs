//! The lines of workers, told to each who asks as fast as it reads.
//!
//! A line is taken from those that are kept only when the client has read the one before, so that
//! whoever does not read costs one line. What was thrown away meanwhile is told as lost.

use super::client::{Client, LineRange, WaitsFor};
use super::{Control, SLICE};
use crate::control::{LogLine, LogsReply, Reply, rfc3339};
use crate::shell::logs;
use crate::shell::token::ClientId;
use crate::shell::turn::Shell;
use crate::shell::{clock, event_text};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use std::os::fd::AsFd;
use std::time::Duration;

/// So many lines are told when nobody says how many.
const LINES: u32 = 50;

/// So many lines are told to a client before it is the turn of the next.
const LINES_AT_ONCE: usize = 64;

/// How long the end of listend may take for those who follow.
const FAREWELL: Duration = Duration::from_millis(500);

impl Shell {
    /// Tells the last lines, and those to come as long as somebody wants to hear them.
    pub(super) fn logs(
        &mut self,
        id: ClientId,
        worker: Option<&str>,
        lines: Option<u32>,
        follow: bool,
    ) {
        let worker = match worker.map(|name| self.worker_named(name)).transpose() {
            Ok(worker) => worker,
            Err(error) => return self.fail(id, &error),
        };
        let count = usize::try_from(lines.unwrap_or(LINES)).unwrap_or(usize::MAX);
        let newest = self.logs.newest();
        let wanted = LineRange {
            worker,
            next: self.logs.before_last(worker, count),
            end: (!follow).then_some(newest),
            lost: newest,
        };
        // They are told at the end of this turn.
        self.control.waits(id, WaitsFor::Lines(wanted));
        self.control.followers.insert(id);
    }

    /// Tells lines to those who are owed some, and in the next turn to those for whom there was no
    /// time.
    pub(in crate::shell) fn feed_followers(&mut self) {
        self.control.owes_lines = false;
        if self.control.followers.is_empty() {
            return;
        }
        let end = clock::now() + SLICE;
        let after = self.control.told_last.saturating_add(1);
        let followers = &self.control.followers;
        let in_turn = followers.range(after..).chain(followers.range(..after));
        for id in in_turn.copied().collect::<Vec<_>>() {
            if clock::now() >= end {
                self.control.owes_lines = true;
                return;
            }
            self.control.told_last = id;
            self.control.owes_lines |= self.tell_lines(id);
        }
    }

    /// Tells the rest to all who read: listend ends, and says the most important last.
    pub(in crate::shell) fn feed_followers_last(&mut self) {
        let end = clock::now() + FAREWELL;
        while clock::now() < end {
            self.feed_followers();
            if self.control.owes_lines {
                continue;
            }
            let followers = self.control.followers.iter().copied();
            let slow: Vec<_> = followers
                .filter(|id| !self.control.has_read_all(*id))
                .collect();
            let clients = slow.iter().filter_map(|id| self.control.clients.get(id));
            let mut wanted: Vec<_> = clients
                .map(|client| PollFd::new(client.socket().as_fd(), PollFlags::POLLOUT))
                .collect();
            let left = end.since(clock::now()).as_millis();
            let left = u16::try_from(left).unwrap_or(u16::MAX);
            if wanted.is_empty() || poll(&mut wanted, PollTimeout::from(left)).is_err() {
                return;
            }
            for id in slow {
                self.control
                    .client_event(&self.epoll, id, EpollFlags::EPOLLOUT);
            }
        }
    }

    /// Tells a client some lines, as long as it takes them. Whether it would take more that are
    /// there: nothing else would wake the loop for them.
    fn tell_lines(&mut self, id: ClientId) -> bool {
        let Some(WaitsFor::Lines(mut wanted)) = self.control.waits_for(id) else {
            self.control.followers.remove(&id);
            return false;
        };
        let is_told_all = wanted.end.is_none() && wanted.next == self.logs.newest();
        if is_told_all || !self.control.has_read_all(id) {
            return false;
        }
        let found = self.logs.since(wanted.worker, wanted.next, LINES_AT_ONCE);
        let is_lost = found.gone > wanted.next.max(wanted.lost);
        if is_lost && wanted.end.is_none() {
            self.succeed(id, &Reply::continues(&lost()));
        }
        wanted.lost = wanted.lost.max(found.gone);
        let is_end = wanted.end.is_some_and(|end| found.next >= end);
        let is_wanted = |line: &&logs::LogLine| wanted.end.is_none_or(|end| line.number <= end);
        let mut lines = found.lines.iter().filter(is_wanted).peekable();
        if is_end && lines.peek().is_none() {
            self.succeed(id, &Reply::last(&LogsReply::default()));
            return false;
        }
        while let Some(line) = lines.next() {
            if !self.control.has_read_all(id) {
                self.control.waits(id, WaitsFor::Lines(wanted));
                return false;
            }
            wanted.next = line.number;
            let reply = self.as_reply(line);
            if is_end && lines.peek().is_none() {
                self.succeed(id, &Reply::last(&reply));
                return false;
            }
            self.succeed(id, &Reply::continues(&reply));
        }
        wanted.next = found.next;
        self.control.waits(id, WaitsFor::Lines(wanted));
        let is_behind = wanted.end.is_some() || wanted.next < self.logs.newest();
        is_behind && self.control.has_read_all(id)
    }

    fn as_reply(&self, line: &logs::LogLine) -> LogsReply {
        LogsReply {
            line: Some(LogLine {
                time: rfc3339(line.time.as_secs()),
                worker: Some(self.definitions.worker(line.worker).name.clone()),
                instance: Some(event_text::instance_name(&self.definitions, line.instance)),
                text: line.text.clone(),
            }),
        }
    }
}

/// What listend itself has to say about lines.
fn lost() -> LogsReply {
    LogsReply {
        line: Some(LogLine {
            time: rfc3339(clock::wall().as_secs()),
            worker: None,
            instance: None,
            text: "lines were lost here: they came faster than they were read".to_owned(),
        }),
    }
}

impl Control {
    /// Whether the client is there and has taken everything that it was told.
    fn has_read_all(&self, id: ClientId) -> bool {
        self.clients.get(&id).is_some_and(Client::has_read_all)
    }
}
