//! What `Status` answers, put together piece by piece: with thousands of listeners it takes longer
//! than the loop can wait.

use super::status_reply::{Runs, StatusReply, WorkerPiece};
use crate::config::{Endpoint, Order, Output, SocketKind};
use crate::control::{
    BEFORE_PARAMETERS, Connections, Daemon, Detail, Instance, Life, Listener, ListenerState, Queue,
    Reply, Rollout, Scaling, Socket, SocketOption, Worker, WorkerState, rfc3339,
};
use crate::core::{Health, InstanceId, LastEnd, ListenerCondition, Mono, State};
use crate::listener::{self, BoundSocket, Depth, DepthReader, Effective};
use crate::plan::{Activation, Grant, ListenerId, ListenerPlan, WorkerId};
use crate::report::Place;
use crate::shell::notify::WorkerStatus;
use crate::shell::queues::Takers;
use crate::shell::token::ClientId;
use crate::shell::turn::Shell;
use crate::shell::{clock, event_text};
use std::collections::HashMap;

/// So many pieces at a time.
const PIECES: usize = 16;
/// So many instances are as much work as one piece.
const INSTANCES_A_PIECE: usize = 8;
/// So many instances of one worker are shown as they are at one moment; there may be thousands.
const INSTANCES: usize = PIECES * INSTANCES_A_PIECE;

impl Shell {
    /// Begins to answer `Status`. Whether there is anything with that name.
    pub(super) fn begin_status(&mut self, client: ClientId, name: Option<String>) -> bool {
        let is_meant = |other: &String| name.as_ref().is_none_or(|name| name == other);
        let listeners = self.plan.listeners();
        let listeners = listeners.filter(|(_, one)| is_meant(&one.name));
        let mut listeners: Vec<_> = listeners.collect();
        let workers = self.plan.workers();
        let mut meant: Vec<_> = workers
            .filter(|(_, one)| is_meant(&one.name))
            // One that nobody has configured is shown to who asks for it, or when it fails.
            .filter(|(id, one)| !one.is_built_in() || name.is_some() || self.is_ill(*id))
            .collect();
        // Their numbers are in the order in which they came.
        listeners.sort_by_key(|(_, one)| one.sockets.first().map(|socket| socket.place));
        meant.sort_by_key(|(_, one)| one.place);
        let listeners: Vec<_> = listeners.into_iter().map(|(id, _)| id).collect();
        let meant: Vec<_> = meant.into_iter().map(|(id, _)| id).collect();
        let before = self.definitions.before(&self.sockets).into_iter();
        let before = before.map(|one| one.listener.to_owned()).filter(is_meant);
        let before: Vec<String> = before.collect();
        let planned = listeners
            .iter()
            .filter_map(|id| self.plan.listeners.get(id));
        let addresses = planned.flat_map(|one| one.sockets.iter().map(|socket| &socket.endpoint));
        if before.is_empty() && name.is_some() && listeners.is_empty() && meant.is_empty() {
            return false;
        }
        let queues = DepthReader::of(addresses);
        self.control.status_replies.push_back(StatusReply {
            client,
            name,
            json: begun(&self.daemon()),
            listeners: listeners.into_iter(),
            before: before.into_iter(),
            workers: meant.into_iter(),
            worker: None,
            queues,
            running: HashMap::new(),
            is_at_workers: false,
        });
        true
    }

    /// What listend is.
    fn daemon(&self) -> Daemon {
        let (now, wall) = (clock::now(), clock::wall());
        let ago = |at: Mono| rfc3339(wall.saturating_sub(now.since(at)).as_secs());
        let configuration = &self.control.config;
        let has_one = !configuration.as_os_str().is_empty();
        let configuration = has_one.then(|| std::path::absolute(configuration));
        Daemon {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: self.daemon_context.pid,
            since: ago(self.control.since),
            version_since: ago(self.control.executed),
            configuration: configuration
                .and_then(Result::ok)
                .map(|path| path.to_string_lossy().into_owned()),
            binary: self.control.binary.clone(),
        }
    }

    /// Whether an instance of a worker has failed or waits after a crash, or its rollout went back.
    fn is_ill(&self, worker: WorkerId) -> bool {
        let mut instances = self.core.instances_of(worker);
        let is_ill = |state| matches!(state, State::Backoff { .. } | State::Failed { .. });
        self.core.degraded(worker).is_some()
            || instances.any(|instance| self.core.state(instance).is_some_and(is_ill))
    }

    /// Goes on with the oldest answer to `Status`.
    pub(super) fn advance_status(&mut self) {
        let Some(mut reply) = self.control.status_replies.pop_front() else {
            return;
        };
        let mut pieces = 0;
        while pieces < PIECES {
            pieces += 1;
            if reply.queues.read_ahead() {
                // One read takes as long as a few listeners do.
                pieces = PIECES;
                continue;
            }
            if !reply.is_at_workers {
                match reply.listeners.next() {
                    Some(id) => {
                        if let Some(piece) = self.render_listener(id, &mut reply) {
                            reply.add(&piece);
                        }
                    }
                    None => match reply.before.next() {
                        Some(name) => {
                            if let Some(piece) = self.render_before(&name, &mut reply) {
                                reply.add(&piece);
                            }
                        }
                        None => {
                            reply.json.extend_from_slice(br#"],"workers":["#);
                            reply.is_at_workers = true;
                        }
                    },
                }
                continue;
            }
            let begun = reply.worker.take();
            let worker = begun.or_else(|| Some(self.begin_worker(reply.workers.next()?)));
            let Some(mut worker) = worker else {
                reply.json.extend_from_slice(b"]}}");
                let rest = Reply::rest(reply.json);
                return self.control.reply(&self.epoll, reply.client, &rest);
            };
            let next = worker.left.by_ref().take(INSTANCES);
            let before = worker.done.len();
            let next = next.filter_map(|instance| self.portray_instance(instance));
            worker.done.extend(next);
            pieces += (worker.done.len() - before) / INSTANCES_A_PIECE;
            if worker.left.len() > 0 {
                reply.worker = Some(worker);
            } else if self.plan.workers.contains_key(&worker.id) {
                let piece = self.render_worker(worker, reply.name.is_some());
                reply.add(&piece);
            } // A reload has removed it meanwhile.
        }
        let (client, part) = (reply.client, reply.take_part());
        // First, so that it is forgotten if the client has gone.
        self.control.status_replies.push_front(reply);
        if let Some(part) = part {
            self.control.reply_in_part(&self.epoll, client, &part);
        }
    }

    /// A listener; `None` if a reload has removed it since the answer was begun.
    fn render_listener(&mut self, id: ListenerId, reply: &mut StatusReply) -> Option<Listener> {
        let plan = self.plan.listeners.get(&id)?;
        let now = clock::now();
        let takers = self.core.takers(id);
        let mut runs = |worker: &WorkerId| {
            *reply.running.entry(*worker).or_insert_with(|| {
                let mut instances = self.core.instances_of(*worker);
                let latest = self.definitions.latest(*worker);
                Runs {
                    at_all: instances.any(|instance| {
                        let state = self.core.state(instance);
                        matches!(state, Some(State::Running { .. }))
                    }),
                    by_the_plan: self.processes.has_any(*worker, latest),
                }
            })
        };
        let is_running = takers.iter().any(|taker| runs(taker).at_all);
        let is_served = takers.iter().any(|taker| runs(taker).by_the_plan);
        let is_unserved = is_running && !is_served && self.is_unserved(id);
        let served = match is_running {
            true => Takers::Run,
            false if self.is_abandoned(id) => Takers::Ended,
            false => Takers::Wait,
        };
        let (mut is_full, mut nobody_accepts) = (false, false);
        let mut sockets: Vec<Socket> = Vec::with_capacity(plan.sockets.len());
        for planned in &plan.sockets {
            let held = self.sockets.get(planned.key);
            let depth = held.and_then(|held| {
                let depth = reply.queues.depth(held)?;
                let log = &mut self.control.queue_log;
                nobody_accepts |= log.look(now, &plan.name, held, &depth, served);
                Some(depth)
            });
            is_full |= depth.as_ref().is_some_and(Depth::is_full);
            let endpoint = held.map_or(&planned.endpoint, |held| &held.address);
            let flows = self.flow_status(planned.key);
            sockets.push(Socket {
                shard: (plan.shards() > 1).then_some(planned.shard.into()),
                flows,
                ..socket(endpoint, depth)
            });
        }
        let state = match self.core.listener_state(id) {
            ListenerCondition::Missing => ListenerState::Missing,
            ListenerCondition::Damaged => ListenerState::Damaged,
            ListenerCondition::Listening if nobody_accepts => ListenerState::Unserved,
            ListenerCondition::Listening if is_full => ListenerState::Full,
            ListenerCondition::Listening if is_unserved => ListenerState::Unserved,
            ListenerCondition::Listening if self.control.queue_log.is_dropping(now, plan) => {
                ListenerState::Dropping
            }
            ListenerCondition::Listening => ListenerState::Listening,
        };
        let detail = || Detail {
            place: plan
                .sockets
                .first()
                .and_then(|socket| self.position(socket.place)),
            options: self
                .sockets
                .of(plan)
                .filter(|held| held.shard == 0)
                .flat_map(|held| options(plan, held))
                .collect(),
            life: None,
            grant: granted(&plan.settings.grant),
            taken: self.control.last_taken(&plan.name),
        };
        Some(Listener {
            name: plan.name.clone(),
            sockets,
            state,
            workers: takers
                .iter()
                .filter_map(|id| self.plan.workers.get(id))
                .filter(|worker| !worker.is_built_in())
                .map(|worker| worker.name.clone())
                .collect(),
            detail: reply.name.is_some().then(|| Box::new(detail())),
        })
    }

    /// Sockets that a reload has left over; `None` if they have been closed meanwhile.
    fn render_before(&self, name: &str, reply: &mut StatusReply) -> Option<Listener> {
        let mut all = self.definitions.before(&self.sockets).into_iter();
        let before = all.find(|one| one.listener == name)?;
        let sockets = before.sockets.iter();
        let sockets = sockets.map(|held| Socket {
            shard: (held.shard > 0).then_some(held.shard.into()),
            ..socket(&held.address, reply.queues.depth(held))
        });
        let workers = before.workers.iter();
        let state = match before.is_given {
            true => ListenerState::Given,
            false => ListenerState::Former,
        };
        Some(Listener {
            name: before.name(),
            sockets: sockets.collect(),
            state,
            workers: workers
                .map(|id| self.definitions.worker(*id).name.clone())
                .collect(),
            detail: None,
        })
    }

    fn begin_worker(&self, id: WorkerId) -> WorkerPiece {
        let left: Vec<InstanceId> = self.core.instances_of(id).collect();
        let (left, done) = (left.into_iter(), Vec::new());
        WorkerPiece { id, left, done }
    }

    fn render_worker(&self, piece: WorkerPiece, in_full: bool) -> Worker {
        let (id, instances) = (piece.id, piece.done);
        let plan = self.definitions.worker(id);
        let (now, wall) = (clock::now(), clock::wall());
        let counts = self.core.connections(id);
        let activation = match plan.lifecycle.activation {
            Activation::Eager => "eager",
            Activation::OnDemand { .. } => "on-demand",
            Activation::PerConnection(_) => "per-connection",
        };
        // With another activation, those accepted before a reload has changed it.
        let has_connections = activation == "per-connection" || counts.live > 0;
        let connections = has_connections.then(|| Connections {
            live: counts.live.into(),
            accepted: counts.accepted,
            refused: counts.refused,
            failures: counts.failures,
        });
        let listeners = plan.listeners.iter();
        let detail = || Detail {
            place: self.position(plan.place),
            options: Vec::new(),
            life: Some(self.life(id)),
            grant: Vec::new(),
            taken: None,
        };
        Worker {
            name: plan.name.clone(),
            activation: activation.to_owned(),
            generation: self.core.generation(id),
            state: word_for(self.core.health(id)),
            setback: self.rollback_reason(id, counts.is_failing),
            scaling: self.core.is_overridden(id).and_then(|overridden| {
                let scaling = plan.lifecycle.scaling?;
                Some(Scaling {
                    min: plan.lifecycle.instances.into(),
                    max: scaling.max.into(),
                    scale_up_at: scaling.scale_up_at.into(),
                    overridden,
                })
            }),
            unused_since: self
                .core
                .unused_since(id)
                .map(|at| rfc3339(wall.saturating_sub(now.since(at)).as_secs())),
            instances,
            listeners: listeners
                .filter_map(|id| Some(self.plan.listeners.get(id)?.name.clone()))
                .collect(),
            output: Some(output_word(&plan.output).to_owned()),
            connections,
            detail: in_full.then(|| Box::new(detail())),
        }
    }

    /// Why a worker is degraded: a rollout of it went back, or the processes of its connections fail.
    fn rollback_reason(&self, id: WorkerId, is_failing: bool) -> Option<String> {
        if is_failing {
            return self.rollback_reasons.of_connections(id).map(str::to_owned);
        }
        let degraded = self.core.degraded(id)?;
        self.rollback_reasons
            .of(degraded.instance)
            .map(str::to_owned)
    }

    fn life(&self, id: WorkerId) -> Life {
        let plan = self.definitions.worker(id);
        let life = &plan.lifecycle;
        Life {
            ready: life.ready.to_string(),
            rollout: Rollout {
                order: match life.rollout.order {
                    Order::StartFirst => "start-first".to_owned(),
                    Order::StopFirst => "stop-first".to_owned(),
                },
                parallel: life.rollout.parallel.into(),
                min_ready: event_text::duration(life.rollout.min_ready),
                under_way: self.core.is_rolling(id),
            },
            watchdog: life.watchdog.map(event_text::duration),
            stored: self.notify.store.count(id) as u64,
            fd_store: plan.fd_store.into(),
        }
    }

    fn portray_instance(&self, id: InstanceId) -> Option<Instance> {
        let facts = self.core.facts(id)?;
        let (now, wall) = (clock::now(), clock::wall());
        // One that has always waited does so since the start.
        let since = facts.since.max(self.control.since);
        let process = facts.state.process();
        let told = process.and_then(|process| self.told(process));
        let status = match facts.last_end {
            Some(LastEnd::Exited { status, .. }) => Some(status),
            Some(LastEnd::NotLaunched { .. } | LastEnd::NotPrepared { .. }) | None => None,
        };
        let next_try = match facts.state {
            State::Backoff { until } => Some(until),
            State::Failed { until, .. } => until,
            _ => None,
        };
        Some(Instance {
            name: event_text::instance_name(&self.definitions, id),
            generation: id.generation,
            pid: process.and_then(|process| self.main_pid_of(process)),
            state: word_for(facts.health),
            retrying: facts.health == Health::Retrying,
            reloading: facts.reloading,
            status: told.and_then(WorkerStatus::words),
            // Not of rounded numbers: two answers about the same moment are the same.
            since: rfc3339(wall.saturating_sub(now.since(since)).as_secs()),
            restarts: facts.restarts,
            last_exit: facts.last_end.map(|end| ended(&end)),
            exit_status: status.and_then(event_text::exit_code),
            exit_signal: status.and_then(event_text::exit_signal),
            next_try: next_try.map(|at| {
                let then = wall
                    .saturating_add(at.since(now))
                    .as_millis()
                    .div_ceil(1000);
                rfc3339(u64::try_from(then).unwrap_or(u64::MAX))
            }),
            usage: None,
        })
    }

    /// `file:line`.
    fn position(&self, place: Place) -> Option<String> {
        let file = self.control.files.get(usize::from(place.file.0))?;
        Some(format!("{file}:{}", place.line))
    }
}

/// The first piece of an answer.
fn begun(daemon: &Daemon) -> Vec<u8> {
    let mut json = [BEFORE_PARAMETERS, br#"{"daemon":"#].concat();
    // As for [`StatusReply::add`].
    let _always = serde_json::to_writer(&mut json, daemon);
    json.extend_from_slice(br#","listeners":["#);
    json
}

fn socket(endpoint: &Endpoint, depth: Option<Depth>) -> Socket {
    Socket {
        address: spelled(endpoint),
        kind: endpoint.kind().word().to_owned(),
        queue: depth.map(|depth| Queue {
            depth: depth.depth,
            limit: depth.limit,
            drops: depth.drops,
        }),
        shard: None,
        flows: None,
    }
}

/// How a process ended, in words.
pub(super) fn ended(end: &LastEnd) -> String {
    match end {
        LastEnd::Exited {
            status,
            uptime,
            cause,
        } => {
            let (status, uptime) = (
                event_text::status_words(*status),
                event_text::duration(*uptime),
            );
            // Half of a narrow table is not for these words.
            let status = status.strip_prefix("exited with ").unwrap_or(&status);
            format!("{status} after {uptime}{}", event_text::fault(*cause))
        }
        LastEnd::NotLaunched { failure } => format!(
            "failed while {}: {}",
            failure.stage.phrase(),
            crate::report::describe(failure.errno)
        ),
        LastEnd::NotPrepared { .. } => "failed in before_start".to_owned(),
    }
}

/// How an instance or a worker is.
pub(super) fn word_for(health: Health) -> WorkerState {
    match health {
        Health::Stopped => WorkerState::Stopped,
        Health::Waiting => WorkerState::Waiting,
        Health::Running => WorkerState::Running,
        Health::Starting | Health::Retrying => WorkerState::Starting,
        Health::Stopping => WorkerState::Stopping,
        Health::Backoff => WorkerState::Backoff,
        Health::Degraded => WorkerState::Degraded,
        Health::Failed => WorkerState::Failed,
    }
}

/// Who may take a listener.
fn granted(grant: &Grant) -> Vec<String> {
    let users = grant.users.iter().map(|uid| format!("uid {uid}"));
    let groups = grant.groups.iter().map(|gid| format!("gid {gid}"));
    users.chain(groups).collect()
}

/// As the kernel has them now: a worker can change them.
fn options(plan: &ListenerPlan, socket: &BoundSocket) -> impl Iterator<Item = SocketOption> {
    let address = spelled(&socket.address);
    let options = listener::effective(plan, socket).into_iter();
    options.map(move |option| SocketOption {
        address: address.clone(),
        name: option.key.to_owned(),
        asked: Some(option.asked),
        effective: Some(option.effective).filter(|known| known != Effective::UNKNOWN),
    })
}

/// An address as it could stand in a configuration.
pub(super) fn spelled(endpoint: &Endpoint) -> String {
    let kind = endpoint.kind();
    match kind {
        SocketKind::Tcp | SocketKind::VsockStream => endpoint.to_string(),
        SocketKind::Udp | SocketKind::Mptcp | SocketKind::Sctp | SocketKind::UdpLite => {
            format!("{}://{endpoint}", kind.word())
        }
        SocketKind::VsockDatagram | SocketKind::VsockSeqPacket => {
            let address = endpoint.to_string();
            let rest = address.strip_prefix("vsock").unwrap_or(&address);
            format!("{}{rest}", kind.word())
        }
        SocketKind::UnixStream
        | SocketKind::UnixDatagram
        | SocketKind::UnixSeqPacket
        | SocketKind::Netlink
        | SocketKind::Fifo
        | SocketKind::MessageQueue
        | SocketKind::Special => format!("{}:{endpoint}", kind.word()),
    }
}

/// Where the output of a worker goes.
fn output_word(output: &Output) -> &'static str {
    match output {
        Output::Inherit => "inherit",
        Output::Null => "null",
        Output::Tag => "tag",
        Output::TagJson => "tag-json",
        Output::Journal => "journal",
        Output::File(_) => "file",
    }
}
