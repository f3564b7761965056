//! The processes that this listend started and has not reaped.

use super::notify::WorkerStatus;
use crate::config::NotifyAccess;
use crate::connection::End;
use crate::core::{
    ConnectionId, ExitStatus, InstanceId, Lane, Lent, Mono, ProcessId, Revision, Task,
};
use crate::plan::WorkerId;
use crate::sys::{self, How, Launching, Then, Whom};
use crate::worker::Numbers;
use foldhash::HashMap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgid, getpgrp, getsid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What the core wants started.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpawnRequest {
    pub(super) process: ProcessId,
    pub(super) instance: InstanceId,
    pub(super) revision: Revision,
    pub(super) task: Task,
    pub(super) connection: Option<ConnectionId>,
    pub(super) lane: Lane,
}

impl SpawnRequest {
    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            instance: self.instance.index,
            generation: self.instance.generation,
        }
    }
}

/// One child; or, once it has named another process as its main one (`MAINPID=`, sd_notify(3)), that.
#[derive(Debug)]
pub struct Process {
    /// Its process id; pinned until it is reaped.
    pub pid: i32,
    /// The session that it leads, or has led; pinned as long as any process is in it.
    pub session: i32,
    /// Whose instance it is.
    pub instance: InstanceId,
    /// By which definition of the worker it was started.
    pub revision: Revision,
    /// What it is for.
    pub task: Task,
    /// Becomes readable when it exits; `None` for one whose end is told by SIGCHLD alone.
    pub pidfd: Option<OwnedFd>,
    /// The sockets that it has for itself, if it has some.
    pub lane: Option<Lane>,
    /// Whom it serves, if that is one connection.
    pub client: Option<End>,
    /// The id of that connection.
    pub connection: Option<ConnectionId>,
    /// The connection that was closed here because the process has it, if it may yet come back.
    pub lent: Option<ConnectionId>,
    /// How its exec goes, until it has succeeded.
    pub launching: Option<Launching>,
    /// Who may tell about it; `None` is nobody.
    pub access: Option<NotifyAccess>,
    /// The user that it was started as.
    pub uid: u32,
    /// When it was started.
    pub started: Mono,
    /// What it has told for people to read.
    pub told: WorkerStatus,
    /// What is left of the process that was started here, if another is the main one.
    pub replaced: Option<First>,
    /// How it ended, if others of its process group go on.
    pub rest: Option<Rest>,
    /// SIGKILL went to its process group: whoever is still in it is about to end, or has.
    pub killed: bool,
}

/// What goes on of an instance whose main process has ended and is reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// How the main process ended.
    pub status: ExitStatus,
    /// The process groups that still have members. Their numbers are no others' until the last member
    /// is reaped, which happens here, because it has no parent but listend any more.
    pub groups: Vec<i32>,
}

/// The process that was started here, after it has named another as the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// Not reaped: the number of its process group cannot be reused.
    Unreaped,
    /// Reaped.
    Reaped,
}

impl Process {
    /// Whether it has the listeners of its worker: who serves one connection has that alone.
    pub fn has_listeners(&self) -> bool {
        self.task == Task::Program && self.client.is_none()
    }

    /// Signals the process alone.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        if self.rest.is_some() {
            return Ok(());
        }
        match &self.pidfd {
            Some(pidfd) => sys::send_signal(pidfd, number),
            // It has not been reaped, so that its number is no other's.
            None => sys::send_signal_to_child(self.pid, number),
        }
    }

    /// Signals the process and its whole process group, or what is left of that. A child that has
    /// not called setsid(2) yet has no group, and a main process may be in another: what no group has
    /// is signalled by itself. SIGKILL goes to it first in any case.
    pub fn signal_group(&mut self, number: i32) {
        let kills = number == Signal::SIGKILL as i32;
        self.killed |= kills;
        if self.rest.is_none() && kills {
            let _gone_already = self.signal(number);
        }
        let groups = self.groups();
        for group in &groups {
            let _none_left = sys::send_signal_to_group(*group, number);
        }
        if self.rest.is_none() && !kills {
            let own = getpgid(Some(Pid::from_raw(self.pid))).map(Pid::as_raw);
            if !own.is_ok_and(|own| groups.contains(&own)) {
                let _gone_already = self.signal(number);
            }
        }
    }

    /// The process groups that are its, and whose numbers cannot be anybody else's: their leader has
    /// not been reaped, or a member of them has not.
    fn groups(&self) -> Vec<i32> {
        if let Some(rest) = &self.rest {
            return rest.groups.clone();
        }
        let Some(first) = self.replaced else {
            return vec![self.pid];
        };
        let mut groups = Vec::new();
        if first == First::Unreaped {
            groups.push(self.session);
        }
        // The main process may have made a group of its own. It is in it until it is reaped, which
        // happens here if it is our child; of another's nothing keeps the number.
        if self.is_our_child()
            && let Ok(group) = getpgid(Some(Pid::from_raw(self.pid)))
            && group != getpgrp()
            && !groups.contains(&group.as_raw())
        {
            groups.push(group.as_raw());
        }
        groups
    }

    fn is_our_child(&self) -> bool {
        let whom = self.whom();
        sys::wait(whom, Then::Leave).is_ok()
    }

    fn whom(&self) -> Whom<'_> {
        match &self.pidfd {
            Some(pidfd) => Whom::Process(pidfd.as_fd()),
            None => Whom::Pid(self.pid),
        }
    }

    /// Whether it has ended, of one of which that was told: the news may be of the process that was
    /// the main one before.
    pub fn has_ended(&self) -> bool {
        match (&self.pidfd, self.replaced) {
            (Some(pidfd), Some(_)) => {
                let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ended| ended > 0)
            }
            (None, _) | (_, None) => true,
        }
    }

    /// Reaps it, which has exited: its pidfd was readable, or waitid(2) showed it. `None` if it has not: the
    /// number that SIGCHLD named was that of a child before it. Others of its process group may go on: those
    /// are in [`Process::rest`] afterwards, unless it was a command around an instance, which leaves
    /// nothing behind.
    ///
    /// A main process that has another parent than listend is reaped by that. Where the kernel does not tell
    /// others how it ended (PIDFD_INFO_EXIT), one that was named by MAINPID= counts as a success, as systemd
    /// has it.
    pub fn reap(&mut self) -> Option<ExitStatus> {
        if let Task::Hook(_) = self.task {
            // While the leader keeps the number from being given to anybody else.
            self.signal_group(Signal::SIGKILL as i32);
        }
        let mut groups = self.groups();
        let status = self.collect()?;
        if self.task == Task::Program {
            groups.retain(|group| goes_on(*group, self.killed));
            if !groups.is_empty() {
                self.rest = Some(Rest { status, groups });
                self.pidfd = None;
                if let Some(launching) = &mut self.launching {
                    launching.reaped();
                }
            }
        }
        Some(status)
    }

    /// How its main process ended, if nothing is left of its process group any more either.
    pub fn poll_ended(&mut self) -> Option<ExitStatus> {
        let rest = self.rest.as_mut()?;
        rest.groups.retain(|group| goes_on(*group, self.killed));
        rest.groups.is_empty().then_some(rest.status)
    }

    fn collect(&self) -> Option<ExitStatus> {
        let status = match sys::wait(self.whom(), Then::Reap) {
            Ok(Some(ended)) => status_of(ended.how),
            Ok(None) if self.pidfd.is_none() => return None,
            // Somebody else has reaped it.
            Ok(None) | Err(_) => match self.pidfd.as_ref().and_then(sys::exit_info) {
                Some(how) => status_of(how),
                None if self.replaced.is_some() => ExitStatus::Code(0),
                None => ExitStatus::Unknown,
            },
        };
        Some(status)
    }

    /// Whether it has ended, and how is not known yet: it is another process's child, which has not reaped it.
    pub fn is_unreaped_elsewhere(&self) -> bool {
        let is_reaped = |pidfd: &OwnedFd| sys::exit_info(pidfd).is_some();
        !self.is_our_child() && !self.pidfd.as_ref().is_some_and(is_reaped)
    }
}

fn status_of(how: How) -> ExitStatus {
    match how {
        How::Exited(code) => ExitStatus::Code(code),
        How::Killed(number) => ExitStatus::Signal {
            number,
            core_dumped: false,
        },
        How::Dumped(number) => ExitStatus::Signal {
            number,
            core_dumped: true,
        },
    }
}

/// Whether anybody of a process group is waited for. Of one that was killed these are our children
/// alone: whoever has a parent elsewhere is that parent's to reap, and it may never do so.
fn goes_on(group: i32, killed: bool) -> bool {
    match killed {
        true => sys::has_children_in(group),
        // Zombies count, too: they keep the number of the group.
        false => sys::send_signal_to_group(group, 0)
            .err()
            .is_none_or(|error| error.raw_os_error() != Some(nix::libc::ESRCH)),
    }
}

/// A child that has ended and waits to be reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zombie {
    /// The main process of an instance, which is reaped by its own path.
    Ours(ProcessId),
    /// Anybody else: orphans, which come to PID 1 and to a subreaper, one that has named another as
    /// the main process, and children of whatever program executed listend.
    Other(i32),
}

/// All of them, by the core's id and by process id.
#[derive(Debug, Default)]
pub struct Processes {
    by_id: HashMap<ProcessId, Process>,
    by_pid: HashMap<i32, ProcessId>,
    /// Processes that were started here, are not reaped, and are no longer main processes.
    firsts: HashMap<i32, ProcessId>,
    /// The process groups that go on although the main process has ended and is reaped.
    with_rest: HashMap<i32, ProcessId>,
    /// How many of each definition of a worker have its listeners.
    with_listeners: HashMap<(WorkerId, Revision), usize>,
    /// How many of those of which all processes may tell were started as a user.
    told_by_all: HashMap<u32, usize>,
    /// Of which something may have changed, and which are in the snapshot.
    changed: Lent<ProcessId>,
    /// Whether one is among them that does not serve a connection.
    is_urgent: bool,
}

impl Processes {
    /// Registers a child.
    pub fn insert(&mut self, id: ProcessId, process: Process) {
        self.by_pid.insert(process.pid, id);
        if process.access == Some(NotifyAccess::All) {
            *self.told_by_all.entry(process.uid).or_default() += 1;
        }
        if process.has_listeners() {
            let definition = (process.instance.worker, process.revision);
            *self.with_listeners.entry(definition).or_default() += 1;
        }
        self.changed.note(id);
        self.is_urgent |= process.connection.is_none();
        self.by_id.insert(id, process);
    }

    /// Registers one that another listend has started.
    pub fn restore(&mut self, id: ProcessId, process: Process) {
        let (pid, session) = (process.pid, process.session);
        let groups = process.rest.as_ref().map(|rest| rest.groups.clone());
        let first = process.replaced;
        self.insert(id, process);
        // The keeper has its descriptors from the listend before: it is to hear of an end that comes before all else.
        self.changed.tell(id);
        if let Some(groups) = groups {
            self.forget_number(pid, id);
            self.with_rest
                .extend(groups.into_iter().map(|group| (group, id)));
        }
        if first == Some(First::Unreaped) {
            self.firsts.insert(session, id);
        }
    }

    /// Has what changes noted from now on: everything that is there has.
    pub fn note_changes(&mut self) {
        self.changed.record([]);
        self.by_id.keys().for_each(|id| self.changed.note(*id));
        self.is_urgent = true;
    }

    /// Whether that is done.
    pub fn notes_changes(&self) -> bool {
        self.changed.is_on()
    }

    /// Whether something has changed, and whether that is to be written at once.
    pub fn has_changed(&self) -> (bool, bool) {
        (self.changed.has_any(), self.is_urgent)
    }

    /// Those of which something may have changed since this was asked last, to be written down now.
    pub fn take_changed(&mut self) -> Vec<ProcessId> {
        self.is_urgent = false;
        let ids = self.changed.take();
        let gone = ids.iter().filter(|id| !self.by_id.contains_key(id));
        gone.for_each(|id| self.changed.forget(*id));
        ids
    }

    /// One is written down before the others.
    pub fn is_written(&mut self, id: ProcessId) {
        self.changed.tell(id);
    }

    /// Whether any is on its way to its program.
    pub fn are_launching(&self) -> bool {
        let mut all = self.by_id.values();
        all.any(|process| process.launching.is_some())
    }

    /// Those of whose process groups nobody that goes on is our child, so that nobody tells when the last of
    /// them ends: the listend that started them was killed.
    pub fn with_rest_elsewhere(&self) -> Vec<ProcessId> {
        let groups = self.with_rest.iter();
        let elsewhere = groups.filter(|(group, _)| !sys::has_children_in(**group));
        elsewhere.map(|(_, id)| *id).collect()
    }

    /// Every process.
    pub fn iter(&self) -> impl Iterator<Item = (ProcessId, &Process)> {
        self.by_id.iter().map(|(id, process)| (*id, process))
    }

    /// Whether any process has the listeners of this definition of the worker.
    pub fn has_any(&self, worker: WorkerId, revision: Revision) -> bool {
        self.with_listeners.contains_key(&(worker, revision))
    }

    /// Whose they are.
    pub fn instances(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.by_id.values().map(|process| process.instance)
    }

    /// Whether a process of this user may be one of those that may tell something beside the main
    /// ones: only root's can have become any user.
    pub fn may_tell_as(&self, uid: u32) -> bool {
        let users = &self.told_by_all;
        !users.is_empty() && (uid == 0 || users.contains_key(&0) || users.contains_key(&uid))
    }

    /// Looks one up.
    pub fn get(&self, id: ProcessId) -> Option<&Process> {
        self.by_id.get(&id)
    }

    /// Looks one up to change it.
    pub fn get_mut(&mut self, id: ProcessId) -> Option<&mut Process> {
        let process = self.by_id.get_mut(&id)?;
        self.changed.note(id);
        self.is_urgent |= process.connection.is_none();
        Some(process)
    }

    /// Forgets one that has been reaped, and closes its descriptors.
    pub fn remove(&mut self, id: ProcessId) -> Option<Process> {
        let mut process = self.by_id.remove(&id)?;
        self.changed.over(id);
        self.is_urgent |= process.connection.is_none();
        match &process.rest {
            None => self.forget_number(process.pid, id),
            Some(_) => self.with_rest.retain(|_, of| *of != id),
        }
        if process.access == Some(NotifyAccess::All)
            && let Some(count) = self.told_by_all.get_mut(&process.uid)
        {
            *count -= 1;
            if *count == 0 {
                self.told_by_all.remove(&process.uid);
            }
        }
        let definition = (process.instance.worker, process.revision);
        if process.has_listeners()
            && let Some(count) = self.with_listeners.get_mut(&definition)
        {
            *count -= 1;
            if *count == 0 {
                self.with_listeners.remove(&definition);
            }
        }
        if let Some(launching) = &mut process.launching {
            launching.reaped();
        }
        Some(process)
    }

    /// The number is not this process's any more. Of one that was another's child, a child of listend may have it
    /// since it was reaped there, and is known by it alone.
    fn forget_number(&mut self, pid: i32, id: ProcessId) {
        if self.by_pid(pid) == Some(id) {
            self.by_pid.remove(&pid);
        }
    }

    /// Whose main process has this number.
    pub fn by_pid(&self, pid: i32) -> Option<ProcessId> {
        self.by_pid.get(&pid).copied()
    }

    /// Whose processes are in this session.
    pub fn by_session(&self, session: i32) -> Option<ProcessId> {
        if let Some(leader) = self.by_pid.get(&session).or(self.firsts.get(&session)) {
            return Some(*leader);
        }
        let mut all = self.by_id.iter();
        let in_it = |(_, process): &(_, &Process)| process.session == session;
        all.find(in_it).map(|(id, _)| *id)
    }

    /// Makes another process the main one. Answers with the pidfd of the one that was it before.
    pub fn replace_main(&mut self, id: ProcessId, pid: i32, pidfd: OwnedFd) -> Option<OwnedFd> {
        let process = self.get_mut(id)?;
        let before = std::mem::replace(&mut process.pid, pid);
        let is_first = process.replaced.is_none();
        process.replaced.get_or_insert(First::Unreaped);
        let old = process.pidfd.replace(pidfd);
        self.forget_number(before, id);
        self.by_pid.insert(pid, id);
        if is_first {
            self.firsts.insert(before, id);
        }
        old
    }

    /// A child that has ended, if there is one. The same is answered until it is reaped.
    pub fn zombie(&self) -> Option<Zombie> {
        let ended = sys::wait(Whom::Anybody, Then::Leave).ok()??;
        Some(match self.by_pid.get(&ended.pid) {
            Some(ours) => Zombie::Ours(*ours),
            None => Zombie::Other(ended.pid),
        })
    }

    /// Reaps a main process; how it ended. What is left of its process group is in
    /// [`Process::rest`]: it is forgotten only when that is over.
    pub fn reap(&mut self, id: ProcessId) -> Option<ExitStatus> {
        let process = self.get_mut(id)?;
        let (status, pid) = (process.reap()?, process.pid);
        let groups = process.rest.as_ref().map(|rest| rest.groups.clone());
        if let Some(groups) = groups {
            // The number may be another's from now on.
            self.forget_number(pid, id);
            let groups = groups.into_iter();
            self.with_rest.extend(groups.map(|group| (group, id)));
        }
        Some(status)
    }

    /// Reaps one of the others; `None` if it is not there. Answers whose process group it was in, if
    /// the main process of that has ended before.
    pub fn reap_other(&mut self, pid: i32) -> Option<Option<ProcessId>> {
        let child = Pid::from_raw(pid);
        let group = match self.with_rest.is_empty() {
            true => None,
            false => getpgid(Some(child)).ok().map(Pid::as_raw),
        };
        if nix::sys::wait::waitpid(child, None).is_err_and(|e| e == Errno::ECHILD) {
            return None;
        }
        match self.firsts.remove(&pid) {
            Some(id) => {
                log::debug!("reaped pid {pid}, which had named another as the main process");
                if let Some(process) = self.by_id.get_mut(&id) {
                    process.replaced = Some(First::Reaped);
                    // The number of its session stays its own only while somebody is in it.
                    let session = getsid(Some(Pid::from_raw(process.pid)));
                    process.session = session.map_or(process.pid, Pid::as_raw);
                }
            }
            None => log::debug!("reaped the orphan with pid {pid}"),
        }
        Some(group.and_then(|group| self.with_rest.get(&group).copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32) -> Process {
        Process {
            pid,
            session: pid,
            instance: InstanceId {
                worker: WorkerId(0),
                index: 0,
                generation: 0,
            },
            revision: Revision(0),
            task: Task::Program,
            pidfd: None,
            lane: None,
            client: None,
            connection: None,
            lent: None,
            launching: None,
            access: None,
            uid: 0,
            started: Mono(0),
            told: WorkerStatus::default(),
            replaced: None,
            rest: None,
            killed: false,
        }
    }

    #[test]
    fn the_end_of_what_another_listend_has_told_of_is_told() {
        let mut all = Processes::default();
        let (before, after) = (ProcessId(1), ProcessId(2));
        all.note_changes();
        all.restore(before, process(1 << 30));
        all.remove(before);
        assert_eq!(all.take_changed(), [before]);
        // Of what came and went since there is nothing to tell.
        all.insert(after, process(1 << 30));
        all.remove(after);
        assert_eq!(all.take_changed(), []);
    }

    #[test]
    fn a_child_with_the_number_of_a_process_that_another_has_reaped_keeps_it() {
        let mut all = Processes::default();
        let (before, child) = (ProcessId(1), ProcessId(2));
        all.insert(before, process(1 << 30));
        all.insert(child, process(1 << 30));
        all.remove(before);
        assert_eq!(all.by_pid(1 << 30), Some(child));
        all.remove(child);
        assert_eq!(all.by_pid(1 << 30), None);
    }
}
