//! Processes of connections of which the listend before had not written anything when it was killed.
//!
//! A client is not to notice that. They are children of whoever is our parent, a guard or systemd, and have marks
//! in their environment ([`Orphan`]).

use super::Found;
use crate::cgroup;
use crate::connection::{Ends, Source};
use crate::core::{Input, InstanceId, ProcessId};
use crate::diagnose::Orphan;
use crate::plan::{Activation, WorkerId};
use crate::shell::clock;
use crate::shell::event_text;
use crate::shell::notify::WorkerStatus;
use crate::shell::process::{Process, SpawnRequest};
use crate::shell::token::Token;
use crate::shell::turn::Shell;
use crate::store::LIMITS;
use crate::sys;
use nix::poll::poll;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::unistd::getppid;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long a start waits for what has not reached its program. What takes longer is not found.
const LAUNCH: Duration = Duration::from_secs(2);

/// How often children are listed at most.
const MOST_LISTS: usize = 10;

/// The workers for which connections are accepted, by name, and the numbers that they had not given out.
type Numbers = HashMap<String, (WorkerId, u32)>;

/// What a child of our parent is.
enum Child {
    /// The process has not executed its program yet: its environment is still listend's.
    Launching,
    Marked(Orphan, OwnedFd),
    Other,
}

impl Shell {
    /// Takes over what serves a client and is not known.
    ///
    /// Not every child with marks is meant, since processes of connections may have left some behind; but a number
    /// that was not given out is that of a connection which is not known, and that of one whose process was not
    /// written with it is its. `written` are the others.
    pub(super) fn adopt_connections(&mut self, written: &BTreeSet<ProcessId>) {
        let workers = self.plan.workers();
        let accepting = workers.filter(|(_, worker)| {
            matches!(worker.lifecycle.activation, Activation::PerConnection(_))
        });
        let next: Numbers = accepting
            .map(|(id, worker)| (worker.name.clone(), (id, self.core.next_connection(id))))
            .collect();
        if next.is_empty() {
            return;
        }
        let until = clock::now() + LAUNCH;
        let mut seen = HashSet::from([std::process::id().cast_signed()]);
        loop {
            let mut are_launching = false;
            for pid in siblings() {
                if seen.contains(&pid) || self.processes.by_pid(pid).is_some() {
                    continue;
                }
                match look(pid) {
                    Child::Launching => are_launching = true,
                    Child::Other => drop(seen.insert(pid)),
                    Child::Marked(orphan, pidfd) => {
                        seen.insert(pid);
                        self.adopt_connection(orphan, pidfd, (&next, written));
                    }
                }
            }
            if !are_launching || clock::now() >= until {
                return;
            }
            let _slept = poll(&mut [], 1_u8);
        }
    }

    fn adopt_connection(
        &mut self,
        orphan: Orphan,
        pidfd: OwnedFd,
        (next, written): (&Numbers, &BTreeSet<ProcessId>),
    ) {
        let place = orphan.place();
        let known = place.and_then(|(name, index)| Some((*next.get(name)?, index)));
        let Some(((worker, next), index)) = known.filter(|_| orphan.is_main) else {
            return;
        };
        let found = Found {
            worker,
            index,
            pidfd,
            orphan,
        };
        let is_it = |instance: &InstanceId| instance.worker == worker && instance.index == index;
        let known = self.core.instances().find(|(one, _)| is_it(one));
        match known.map(|(instance, state)| (instance, state.process())) {
            Some((instance, Some(process))) if !written.contains(&process) => {
                let revision = self.core.latest(worker);
                if let Some(revision) = revision {
                    let wanted = SpawnRequest {
                        process,
                        instance,
                        revision,
                        task: crate::core::Task::Program,
                        connection: None,
                        // Of no run: it has the sockets of the table.
                        lane: crate::core::Lane(u64::MAX),
                    };
                    self.insert_found(wanted, found);
                }
            }
            Some(_) => {}
            // The numbers go round.
            None if index.wrapping_sub(next) < u32::MAX / 2 => {
                let ends = found.orphan.ends.as_ref();
                let source = ends.map_or(Source::Unknown, Ends::source);
                self.found = Some(found);
                self.feed(Input::ConnectionFound {
                    worker,
                    index,
                    source,
                });
                self.found = None;
            }
            None => {}
        }
    }

    /// What the core has asked for, if it is there already.
    pub(in crate::shell) fn take_found(&mut self, instance: InstanceId) -> Option<Found> {
        let is_it =
            |found: &mut Found| found.worker == instance.worker && found.index == instance.index;
        self.found.take_if(is_it)
    }

    /// Supervises it.
    pub(in crate::shell) fn supervise_found(&mut self, wanted: SpawnRequest, found: Found) {
        let process = wanted.process;
        self.insert_found(wanted, found);
        self.feed(Input::Spawned { process });
        self.feed(Input::ExecSucceeded { process });
    }

    fn insert_found(&mut self, wanted: SpawnRequest, found: Found) {
        let Found { orphan, pidfd, .. } = found;
        let (id, pid): (ProcessId, i32) = (wanted.process, orphan.pid);
        let name = event_text::instance_name(&self.definitions, wanted.instance);
        log::info!("{name}: going on with pid {pid}, which had just been started for a client");
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Exit(id).pack());
        if let Err(errno) = self.epoll.add(&pidfd, event) {
            log::error!("cannot watch process {pid}: {}", errno.desc());
        }
        let plan = &self.definition(wanted.instance, wanted.revision).plan;
        let process = Process {
            pid,
            session: orphan.session,
            instance: wanted.instance,
            revision: wanted.revision,
            task: wanted.task,
            lane: None,
            client: orphan.ends.map(|ends| ends.remote),
            connection: wanted.connection,
            lent: None,
            pidfd: Some(pidfd),
            launching: None,
            access: plan.notify_access,
            uid: orphan.uid,
            started: clock::at_ticks(orphan.started),
            told: WorkerStatus::default(),
            replaced: None,
            rest: None,
            killed: false,
        };
        self.processes.insert(id, process);
    }
}

/// The children of our parent. Where one ends while they are listed, another may be left out
/// (proc_pid_task(5)): they are listed until it is the same twice.
fn siblings() -> Vec<i32> {
    let parent = getppid();
    let list = || {
        let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        text.unwrap_or_default()
    };
    let mut text = list();
    for _ in 0..MOST_LISTS {
        let again = list();
        if std::mem::replace(&mut text, again) == text {
            break;
        }
    }
    let pids = text.split_ascii_whitespace();
    pids.filter_map(|pid| pid.parse().ok()).collect()
}

fn look(pid: i32) -> Child {
    let of = |pid: &str, file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
    let number = pid.to_string();
    // Of systemd every service is a child.
    let group = |pid: &str| of(pid, "cgroup").map(|text| cgroup::without_own(&text));
    if group(&number) != group("self") {
        return Child::Other;
    }
    let Ok(pidfd) = sys::open_pidfd(pid) else {
        return Child::Other;
    };
    // Whose environment this is has the number, so that it is the one with this pidfd.
    if let Some(orphan) = Orphan::of(pid) {
        return Child::Marked(orphan, pidfd);
    }
    let variable = |environment: &[u8], name: &str| {
        let mut all = environment.split(|byte| *byte == 0);
        all.find(|one| one.starts_with(name.as_bytes()))
            .map(<[u8]>::to_vec)
    };
    let (Some(its), Some(own)) = (of(&number, "environ"), of("self", "environ")) else {
        return Child::Other;
    };
    // No worker has these from its listend.
    let is_same = |name: &str| variable(&its, name) == variable(&own, name);
    let mut limits = LIMITS.iter().map(|name| format!("{name}="));
    let has_keeper = variable(&own, "NOTIFY_SOCKET=").is_some();
    match has_keeper && is_same("NOTIFY_SOCKET=") && limits.all(|name| is_same(&name)) {
        true => Child::Launching,
        false => Child::Other,
    }
}
