//! The ends of children: whose they were, and what follows.

use super::clock;
use super::process::{Process, Zombie};
use super::turn::{SLICE, Shell};
use crate::core::{ExitStatus, Input, ProcessId};
use std::collections::BTreeSet;

impl Shell {
    /// Reaps the child that SIGCHLD has named, if it serves a connection and has ended: most often that is all.
    pub(super) fn reap_named(&mut self, pid: i32) {
        let serves = |id: &ProcessId| {
            let process = self.processes.get(*id);
            process.is_some_and(|process| process.connection.is_some() && process.pidfd.is_none())
        };
        if let Some(id) = self.processes.by_pid(pid).filter(serves) {
            self.exited(id);
        }
    }

    /// Reaps who has ended, for so long: whoever forks without end leaves orphans faster than they can be reaped.
    pub(super) fn reap_children(&mut self) {
        let mut shrunk = BTreeSet::new();
        self.more_have_ended = self.reap_some(&mut shrunk);
        // Once for all of them: to ask takes as long as the group is large.
        for id in shrunk {
            self.check_rest_ended(id);
        }
    }

    /// Whether there are more. The processes whose groups have lost somebody are added to `shrunk`.
    fn reap_some(&mut self, shrunk: &mut BTreeSet<ProcessId>) -> bool {
        let end = clock::now() + SLICE;
        while let Some(zombie) = self.processes.zombie() {
            if clock::now() >= end {
                return true;
            }
            match zombie {
                Zombie::Ours(id) => self.exited(id),
                Zombie::Other(pid) => {
                    // Reaped here, its status would be lost to whoever waits for its answer.
                    if let Some(query) = self.control.query_of(pid) {
                        self.query_end(query);
                        continue;
                    }
                    if self.logs.writer_ended(&self.epoll, pid) {
                        continue;
                    }
                    // Whose it was can be looked up only as long as it is a zombie.
                    self.take_notices();
                    match self.processes.reap_other(pid) {
                        None => return false,
                        Some(None) => {}
                        Some(Some(id)) => {
                            shrunk.insert(id);
                        }
                    }
                }
            }
        }
        false
    }

    pub(super) fn exited(&mut self, id: ProcessId) {
        // The child is dead, so its end of the status pipe is closed: this does not wait. What
        // follows from it is told while the process still has its pid.
        self.exec_status(id);
        self.drain_notifications(id);
        let Some(process) = self.processes.get(id) else {
            return;
        };
        if process.rest.is_some() {
            return;
        }
        if !process.has_ended() {
            // It has named another as its main process, and is reaped as anybody.
            return self.reap_children();
        }
        // One without a pidfd is a child of listend.
        let may_be_early = process.pidfd.is_some() && process.is_unreaped_elsewhere();
        let is_early = may_be_early && self.store.waits_for_reaper(id);
        // By hand, as in `exec_status`.
        let _not_watched = process.pidfd.as_ref().map(|pidfd| self.epoll.delete(pidfd));
        if is_early {
            return;
        }
        let Some(status) = self.processes.reap(id) else {
            return;
        };
        self.store.is_reaped(id);
        self.catch_up(id);
        let rest = self.processes.get(id).and_then(|left| left.rest.as_ref());
        match rest {
            Some(_) => self.feed(Input::MainExited {
                process: id,
                status,
            }),
            None => self.process_ended(id, status),
        }
    }

    /// Handles the end of a process whose process group has outlived its main process.
    pub(super) fn check_rest_ended(&mut self, id: ProcessId) {
        let process = self.processes.get_mut(id);
        if let Some(status) = process.and_then(Process::poll_ended) {
            self.process_ended(id, status);
        }
    }

    /// Nothing is left of a process and its process group.
    pub(super) fn process_ended(&mut self, id: ProcessId, status: ExitStatus) {
        let Some(process) = self.processes.remove(id) else {
            return;
        };
        let (definitions, reserve) = (&self.definitions, self.reserve);
        self.groups
            .ended(definitions, (id, &process), status, reserve);
        let (instance, revision) = (process.instance, process.revision);
        let had_listeners = process.has_listeners();
        self.notify.forget_process(&self.epoll, id);
        let has_others = self.processes.has_any(instance.worker, revision);
        // At once, and not only before the next start: clients are to find the queue meanwhile.
        if had_listeners
            && !self.core.leaves_listeners_to_others(id, has_others)
            && !self.put_in_order(instance, revision, Some(instance))
        {
            self.look_at_all_of(instance.worker);
        }
        self.feed(Input::Exited {
            process: id,
            status,
        });
    }
}
