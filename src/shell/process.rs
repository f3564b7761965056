//! The processes that this listend started and has not reaped.

use crate::connection::End;
use crate::core::{ConnectionId, ExitStatus, InstanceId, ProcessId};
use crate::sys::{self, How, Launching, Then, Whom};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// One child.
#[derive(Debug)]
pub struct Process {
    /// Its process id; pinned until it is reaped.
    pub pid: i32,
    /// Whose instance it is.
    pub instance: InstanceId,
    /// Becomes readable when it exits; `None` for one whose end is told by SIGCHLD alone.
    pub pidfd: Option<OwnedFd>,
    /// Whom it serves, if that is one connection.
    pub client: Option<End>,
    /// The connection that was closed here because the process has it, if it may yet come back.
    pub lent: Option<ConnectionId>,
    /// How its exec goes, until it has succeeded.
    pub launching: Option<Launching>,
}

impl Process {
    /// Signals the process alone.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        match &self.pidfd {
            Some(pidfd) => sys::send_signal(pidfd, number),
            // It has not been reaped, so that its number is no other's.
            None => sys::send_signal_to_child(self.pid, number),
        }
    }

    /// Kills the process and its whole process group. The leader has not been reaped, so neither
    /// number can be anybody else's. A child that has not called setsid(2) yet has no group: that
    /// is why it is signalled by itself as well.
    pub fn kill_group(&self) {
        let _gone_already = self.signal(Signal::SIGKILL as i32);
        let _no_group = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
    }

    /// Reaps it, which has exited: its pidfd was readable, or waitid(2) showed it. What its process
    /// group has left is killed first, while the unreaped leader keeps the group's number from being
    /// given to anybody else.
    pub fn reap(&self) -> ExitStatus {
        let whom = match &self.pidfd {
            Some(pidfd) => Whom::Process(pidfd.as_fd()),
            None => Whom::Pid(self.pid),
        };
        let _none_left = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        match sys::wait(whom, Then::Reap) {
            Ok(Some(ended)) => match ended.how {
                How::Exited(code) => ExitStatus::Code(code),
                How::Killed(number) => ExitStatus::Signal {
                    number,
                    core_dumped: false,
                },
                How::Dumped(number) => ExitStatus::Signal {
                    number,
                    core_dumped: true,
                },
            },
            // Somebody else has reaped it: its status is lost, the fact is not.
            Ok(None) | Err(_) => ExitStatus::Code(-1),
        }
    }
}

/// All of them, by the core's id and by process id.
#[derive(Debug, Default)]
pub struct Processes {
    by_id: HashMap<ProcessId, Process>,
    by_pid: HashMap<i32, ProcessId>,
}

impl Processes {
    /// Registers a child.
    pub fn insert(&mut self, id: ProcessId, process: Process) {
        self.by_pid.insert(process.pid, id);
        self.by_id.insert(id, process);
    }

    /// Whose they are.
    pub fn instances(&self) -> impl Iterator<Item = InstanceId> + '_ {
        self.by_id.values().map(|process| process.instance)
    }

    /// Looks one up.
    pub fn get(&self, id: ProcessId) -> Option<&Process> {
        self.by_id.get(&id)
    }

    /// Looks one up to change it.
    pub fn get_mut(&mut self, id: ProcessId) -> Option<&mut Process> {
        self.by_id.get_mut(&id)
    }

    /// Forgets one that has been reaped, and closes its descriptors.
    pub fn remove(&mut self, id: ProcessId) -> Option<Process> {
        let mut process = self.by_id.remove(&id)?;
        self.by_pid.remove(&process.pid);
        if let Some(launching) = &mut process.launching {
            launching.reaped();
        }
        Some(process)
    }

    /// Reaps every zombie that is not ours: orphans, when listend is PID 1, and children of
    /// whatever program executed listend. Stops at one of ours: that one is reaped by its own path,
    /// and the caller comes back for the rest.
    pub fn reap_strangers(&self) -> Option<ProcessId> {
        while let Ok(Some(ended)) = sys::wait(Whom::Anybody, Then::Leave) {
            if let Some(ours) = self.by_pid.get(&ended.pid) {
                return Some(*ours);
            }
            log::debug!("reaped the orphan with pid {}", ended.pid);
            // The kernel shows the same zombie until it is reaped, so this comes to an end.
            let stranger = Pid::from_raw(ended.pid);
            if nix::sys::wait::waitpid(stranger, None).is_err_and(|e| e == Errno::ECHILD) {
                return None;
            }
        }
        None
    }
}
