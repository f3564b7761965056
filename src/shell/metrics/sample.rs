//! Sampling everything that the metrics show.

use super::{Job, Sampling};
use crate::core::{ListenerCondition, State};
use crate::listener::{BoundSocket, Depth, Unit};
use crate::metrics::{
    DaemonRow, ListenerRow, Notices, Page, Rendering, SocketRow, States, WorkerRow,
};
use crate::plan::{Activation, ListenerId, WorkerId};
use crate::shell::clock;
use crate::shell::turn::Shell;
use nix::sys::resource::{Resource, getrlimit};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How many listeners are sampled in one turn, each at the cost of a few system calls.
const LISTENERS_AT_ONCE: usize = 256;

impl Shell {
    /// Does the next part of a page of metrics; the text after the last one.
    pub(in crate::shell) fn advance_sample(&mut self, job: &mut Job) -> Option<String> {
        match job {
            Job::Sampling(sampling) => {
                let from = ListenerId(sampling.next);
                let ids = self.plan.listeners.range(from..).map(|(id, _)| *id);
                let ids: Vec<ListenerId> = ids.take(LISTENERS_AT_ONCE).collect();
                for id in &ids {
                    self.sample_listener(*id, sampling);
                    sampling.next = id.0.saturating_add(1);
                }
                if ids.len() < LISTENERS_AT_ONCE {
                    self.sample_before(sampling);
                    let mut page = std::mem::take(&mut sampling.page);
                    self.sample_workers(&mut page);
                    page.daemon = self.sample_daemon();
                    *job = Job::Rendering(Rendering::new(page));
                }
                None
            }
            Job::Rendering(rendering) => rendering.step(),
        }
    }

    fn sample_listener(&mut self, id: ListenerId, sampling: &mut Sampling) {
        let plan = self.plan.listener(id);
        let name: Arc<str> = Arc::from(plan.name.as_str());
        let now = clock::now();
        let takers = self.takers_of(id);
        let mut is_held = false;
        for (socket, held) in (0..).zip(self.sockets.of(plan)) {
            is_held = true;
            let depth = sampling.queues.depth(held);
            if let Some(depth) = &depth {
                // Where only Prometheus looks, a full queue is to be in the log as well.
                let log = &mut self.control.queue_log;
                log.look(now, &name, held, depth, takers);
            }
            let row = socket_row(&name, socket, held, depth);
            sampling.page.sockets.push(row);
        }
        sampling.page.listeners.push(ListenerRow {
            is_up: is_held && self.core.listener_state(id) == ListenerCondition::Listening,
            name,
        });
    }

    /// What a reload has left over, under the names that `status` has for it.
    fn sample_before(&self, sampling: &mut Sampling) {
        for before in self.definitions.before(&self.sockets) {
            let name: Arc<str> = Arc::from(before.name());
            for (socket, held) in (0..).zip(before.sockets) {
                let depth = sampling.queues.depth(held);
                let row = socket_row(&name, socket, held, depth);
                sampling.page.sockets.push(row);
            }
            sampling
                .page
                .listeners
                .push(ListenerRow { is_up: true, name });
        }
    }

    fn sample_workers(&self, page: &mut Page) {
        let now = clock::now();
        let mut found: BTreeMap<WorkerId, (States, Duration)> = BTreeMap::new();
        for (instance, state) in self.core.instances() {
            let (states, backoff) = found.entry(instance.worker).or_default();
            states.add(&state);
            if let State::Backoff { until } = state {
                *backoff = until.since(now).max(*backoff);
            }
        }
        let workers = self.plan.workers();
        page.workers = workers
            // Who asks is no news to who asks.
            .filter(|(_, worker)| !worker.is_built_in())
            .map(|(id, worker)| (id, worker, found.remove(&id).unwrap_or_default()))
            .map(|(id, worker, (states, backoff))| WorkerRow {
                name: worker.name.clone(),
                states,
                backoff,
                counters: self.metrics.counters.worker(id),
                is_degraded: self.core.is_degraded(id),
                connections: match worker.lifecycle.activation {
                    Activation::PerConnection(_) => Some(self.core.connections(id)),
                    Activation::Eager | Activation::OnDemand { .. } => None,
                },
            })
            .collect();
    }

    fn sample_notices(&self) -> Notices {
        let counted = self.notify_counters();
        let others = [counted.malformed, counted.foreign, counted.truncated];
        let taken = others
            .into_iter()
            .fold(counted.received, u64::saturating_sub);
        Notices {
            taken,
            malformed: counted.malformed,
            foreign: counted.foreign,
            truncated: counted.truncated,
        }
    }

    fn sample_daemon(&self) -> DaemonRow {
        let stat = procfs::process::Process::myself()
            .and_then(|own| own.stat())
            .ok();
        let ticks = procfs::ticks_per_second();
        let stat = stat.as_ref();
        DaemonRow {
            started: self.metrics.started,
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE)
                .ok()
                .map(|(soft, _)| soft),
            resident: stat.map(|stat| stat.rss * procfs::page_size()),
            virtual_memory: stat.map(|stat| stat.vsize),
            cpu: stat.map(|stat| (stat.utime + stat.stime) as f64 / ticks as f64),
            reloads: self.metrics.counters.reloads,
            notices: self.sample_notices(),
        }
    }
}

/// What the kernel tells of a socket.
fn socket_row(
    listener: &Arc<str>,
    socket: u32,
    held: &BoundSocket,
    known: Option<Depth>,
) -> SocketRow {
    let is_bytes = known.is_some_and(|known| known.unit == Unit::Bytes);
    let (depth, limit) = known.map_or((None, None), |known| (known.depth, known.limit));
    SocketRow {
        listener: Arc::clone(listener),
        socket,
        address: held.address.to_string(),
        depth: depth.filter(|_| !is_bytes),
        limit: limit.filter(|_| !is_bytes),
        bytes: depth.filter(|_| is_bytes),
        bytes_limit: limit.filter(|_| is_bytes),
        drops: known.and_then(|known| known.drops),
    }
}

/// Since Linux 6.2 the size of the folder is their number; before, they have to be counted.
fn open_fds() -> Option<u64> {
    let folder = std::path::Path::new("/proc/self/fd");
    match folder.metadata() {
        Ok(metadata) if metadata.len() > 0 => Some(metadata.len()),
        // One of them is the folder's own.
        Ok(_) => Some((folder.read_dir().ok()?.count() as u64).saturating_sub(1)),
        Err(_) => None,
    }
}
