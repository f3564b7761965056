//! From a call to its answer.

use super::client::{Gone, UnderWay, WaitsFor};
use super::confined::Origin;
use super::helper::Question;
use super::status::{ended, word_for};
use super::{Control, NAMES_COMPARED, SLICE};
use crate::config::{signal_name, signal_number};
use crate::control::{
    Access, Argument, Call, DescriptionReply, Error, MetricsReply, Progress, Reply, Request,
    description, info,
};
use crate::core::{Answer, Bad, Facts, Input, InstanceId, Refused, State, Ticket};
use crate::plan::{ListenerId, Plan, WorkerId};
use crate::shell::metrics::Job;
use crate::shell::token::{ClientId, ControlPart};
use crate::shell::turn::Shell;
use crate::shell::{clock, event_text};
use crate::verb::{Command, Verb};
use nix::sys::epoll::EpollFlags;
use nix::unistd::getppid;
use std::path::PathBuf;
use std::time::Duration;

/// More instances are no worker's.
const MOST_INSTANCES: u32 = 10_000;

/// Where more have failed, the others are named without a reason, which `status` has: an answer has its limit
/// (`MAX_WAITING`).
const REASONS: usize = 20;

impl Shell {
    /// With a control socket.
    #[must_use]
    pub fn with_control(mut self, mut control: Control) -> Shell {
        control.open(&self.epoll);
        // What has happened before there were clients.
        control.past = std::mem::take(&mut self.control.past);
        self.control = control;
        self
    }

    /// The kernel tells something about the control socket.
    pub(in crate::shell) fn control_event(&mut self, part: ControlPart, flags: EpollFlags) {
        match part {
            ControlPart::Accept => {
                let mut all = self.definitions.all();
                let has_sandboxes = all.any(|(_, _, one)| one.plan.sandbox.is_some());
                let of_sandboxes = has_sandboxes.then(|| Origin {
                    processes: &self.processes,
                    keeper: self.store.has_keeper().then(|| getppid().as_raw()),
                });
                self.control.accept(&self.epoll, self.reserve, of_sandboxes);
            }
            ControlPart::Client(id) => self.control.client_event(&self.epoll, id, flags),
            ControlPart::QueryOutput(id) => self.query_output(id),
            ControlPart::QueryEnd(id) => self.query_end(id),
        }
    }

    /// Serves the clients of the control socket for a while.
    pub(in crate::shell) fn control_turn(&mut self) {
        self.control.resume(&self.epoll);
        if !self.control.has_work() {
            return;
        }
        let end = clock::now() + SLICE;
        while self.control.has_work() && clock::now() < end {
            self.take_call();
            self.advance_status();
            self.advance_page();
            self.advance_take();
        }
    }

    /// Takes the next call of the client whose turn it is.
    fn take_call(&mut self) {
        let Some(id) = self.control.queue.pop_front() else {
            return;
        };
        let owner = self.control.owner();
        let Some(client) = self.control.clients.get_mut(&id) else {
            return;
        };
        client.is_queued = false;
        let access = client.peer.access(owner);
        let frame = match client.next_frame(clock::now()) {
            // Whatever a stranger says.
            _ if access == Access::Nothing => Vec::new(),
            Ok(Some(frame)) => frame,
            Ok(None) => return self.control.settle_partial(&self.epoll, id),
            Err(gone) => return self.control.drop_client(&self.epoll, id, &gone),
        };
        if access == Access::Nothing {
            return self.turn_away(id);
        }
        let call = match Call::read(&frame) {
            Ok(call) => call,
            Err(reject) => {
                log::debug!("control socket: closed {}: {reject}", client.peer.words());
                return self.control.drop_client(&self.epoll, id, &Gone::Closed);
            }
        };
        client.call = Some(UnderWay {
            expects: call.expects,
            waits_for: WaitsFor::Nothing,
        });
        match client.peer.request(call, access) {
            Ok(request) => self.carry_out(id, request),
            Err(error) => self.fail(id, &error),
        }
    }

    /// Says that there is nothing here for this client.
    fn turn_away(&mut self, id: ClientId) {
        if let Some(client) = self.control.clients.get_mut(&id) {
            client.is_leaving = true;
            client.call = Some(UnderWay {
                expects: crate::control::Expects::One,
                waits_for: WaitsFor::Nothing,
            });
        }
        self.fail(id, &Error::PermissionDenied);
    }

    pub(super) fn succeed(&mut self, id: ClientId, reply: &Reply) {
        self.control.reply(&self.epoll, id, reply);
    }

    pub(super) fn fail(&mut self, id: ClientId, error: &Error) {
        self.control.reply(&self.epoll, id, &Reply::error(error));
    }

    fn carry_out(&mut self, id: ClientId, request: Request) {
        match request {
            Request::GetInfo => self.succeed(id, &Reply::last(&info())),
            Request::GetInterfaceDescription { interface } => match description(&interface) {
                Ok(description) => {
                    let description = description.to_owned();
                    self.succeed(id, &Reply::last(&DescriptionReply { description }));
                }
                Err(error) => self.fail(id, &error),
            },
            Request::Status { name } => self.status(id, name),
            Request::Watch { last, no_follow } => self.watch_events(id, last, no_follow),
            Request::Operate {
                verb,
                argument,
                worker,
                no_wait,
            } => self.operate(id, verb, argument, &worker, no_wait),
            Request::Upgrade { binary, now } => {
                self.log_request(id, "upgrade");
                self.control.waits(id, WaitsFor::HelperQuery);
                self.request_upgrade(Some(id), binary.map(PathBuf::from), now);
            }
            Request::Reload { dry_run, no_wait } => self.reload(id, dry_run, no_wait),
            Request::Metrics => {
                self.control.waits(id, WaitsFor::Metrics);
                self.control.pages.push_back((id, Job::new()));
            }
            Request::TakeListener { names } => self.take_listeners(id, &names),
            Request::GiveListener { name } => self.give_listener(id, &name),
            Request::Check => self.ask(id, Question::Check, ""),
            Request::Explain { listener } => self.explain(id, &listener),
            Request::Logs {
                worker,
                lines,
                follow,
            } => self.logs(id, worker.as_deref(), lines, follow),
            Request::Reopen => {
                self.log_request(id, "reopen the log files");
                self.control.waits(id, WaitsFor::Files);
                self.logs.reopen(&self.epoll, id);
                // There may be none, or none that answers.
                self.tell_reopened();
            }
        }
    }

    /// Who does what, for whoever reads the log later.
    pub(super) fn log_request(&self, id: ClientId, what: &str) {
        if let Some(client) = self.control.clients.get(&id) {
            log::info!("{}: {what}", client.peer.words());
        }
    }

    fn status(&mut self, id: ClientId, name: Option<String>) {
        if self.control.takes_no_reply(id) {
            return self.succeed(id, &Reply::done());
        }
        self.control.waits(id, WaitsFor::Status);
        let wanted = name.clone().unwrap_or_default();
        let is_known = self.begin_status(id, name);
        let shown = (!is_known).then(|| self.shown_as(&wanted)).flatten();
        let shown = shown.map(|id| self.definitions.worker(id).name.clone());
        if !is_known && !shown.is_some_and(|name| self.begin_status(id, Some(name))) {
            let listeners = self.plan.listeners();
            let listeners = listeners.map(|(_, one)| one.name.as_str());
            let workers = self.plan.workers();
            let workers = workers.map(|(_, one)| one.name.as_str());
            let known = workers
                .take(NAMES_COMPARED)
                .chain(listeners.take(NAMES_COMPARED));
            let error = Error::no_such_thing(&wanted, known);
            self.fail(id, &error);
        }
    }

    /// The worker of the instance that is shown by this name.
    fn shown_as(&self, name: &str) -> Option<WorkerId> {
        let (worker, _) = name.rsplit_once('.')?;
        let mut all = self.plan.workers();
        let (id, _) = all.find(|(_, one)| one.name == worker)?;
        let mut instances = self.core.instances_of(id);
        let is_it = |instance| event_text::instance_name(&self.definitions, instance) == name;
        instances.any(is_it).then_some(id)
    }

    pub(super) fn worker_named(&self, name: &str) -> Result<WorkerId, Error> {
        match self.named(name)? {
            (id, None) => Ok(id),
            (_, Some(_)) => Err(self.no_such_worker(name)),
        }
    }

    /// A worker by its name, or an instance by its own. The only one that a worker is meant to have is the
    /// worker.
    fn named(&self, name: &str) -> Result<(WorkerId, Option<u32>), Error> {
        let mut all = self.plan.workers();
        if let Some((id, _)) = all.find(|(_, worker)| worker.name == name) {
            return Ok((id, None));
        }
        let shown = self.shown_as(name);
        let index = name
            .rsplit_once('.')
            .and_then(|(_, index)| index.parse().ok());
        shown.zip(index).map_or_else(
            || Err(self.no_such_worker(name)),
            |(id, index)| {
                let is_alone = self.core.instances_of(id).count() == 1;
                Ok((id, (!is_alone).then_some(index)))
            },
        )
    }

    /// Who names a listener, or an instance that is not there, means the worker.
    fn no_such_worker(&self, name: &str) -> Error {
        let mut workers = self.plan.workers().map(|(_, one)| one);
        let mut listeners = self.plan.listeners();
        let listener = listeners.find(|(_, one)| one.name == name);
        let of_instance = name.rsplit_once('.').map(|(worker, _)| worker);
        let meant = workers.find(|worker| match listener {
            Some((id, _)) => worker.listeners.contains(&id),
            None => of_instance == Some(&worker.name),
        });
        if let Some(worker) = meant {
            return Error::NoSuchThing {
                name: name.to_owned(),
                suggestion: Some(worker.name.clone()),
            };
        }
        let known = self.plan.workers();
        let known = known.map(|(_, one)| one.name.as_str());
        Error::no_such_thing(name, known.take(NAMES_COMPARED))
    }

    /// Hands a command for a worker to the core.
    fn operate(
        &mut self,
        id: ClientId,
        verb: &Verb,
        argument: Argument,
        name: &str,
        no_wait: bool,
    ) {
        let Order {
            command,
            what,
            done,
        } = match order(verb, argument, name) {
            Ok(order) => order,
            Err(error) => return self.fail(id, &error),
        };
        let (worker, index) = match self.named(name) {
            Ok(named) => named,
            Err(error) => return self.fail(id, &error),
        };
        self.log_request(id, &what);
        self.rollback_reasons.forget_reload(worker);
        let ticket = Ticket(self.control.new_id());
        self.control.tickets.insert(ticket, id);
        self.control.waits(
            id,
            WaitsFor::Operation {
                ticket,
                done,
                progress: (0, 0),
            },
        );
        self.feed_request(Input::Operate {
            ticket,
            worker,
            index,
            command,
        });
        // What is refused has been refused by now, also to those who do not wait.
        let still_waits = self.control.tickets.contains_key(&ticket);
        if still_waits && (no_wait || self.control.takes_no_reply(id)) {
            let progress = self.control.progress_of(id);
            let message = Some(format!("{name}: in progress"));
            self.succeed(
                id,
                &Reply::last(&Progress {
                    message,
                    ..progress
                }),
            );
        }
    }

    /// The core answers.
    pub(in crate::shell) fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let Some(id) = self.control.tickets.get(&ticket).copied() else {
            // Whoever asked has gone, or did not want to wait.
            return;
        };
        let Some(done) = self.control.done_words(id) else {
            return;
        };
        match answer {
            Answer::Progress { done, of } => {
                let limit = self.core.at_most(ticket).filter(|_| done == 0);
                // Never less than it is.
                let limit = limit.map(|time| Duration::from_secs(time.as_secs_f64().ceil() as u64));
                let progress = Progress {
                    message: limit.map(|time| format!("at most {}", event_text::duration(time))),
                    // The first step follows the changes; and the end, if it is a failure, has none.
                    changes: self
                        .control
                        .changes
                        .get(&ticket)
                        .filter(|_| done == 0)
                        .cloned(),
                    ..self.control.note_progress(id, done, of)
                };
                self.succeed(id, &Reply::continues(&progress));
            }
            Answer::Done if done.is_empty() => self.succeed(id, &Reply::done()),
            Answer::Done => {
                let message = Some(done);
                let progress = self.control.progress_of(id);
                let changes = self.control.changes.remove(&ticket);
                self.succeed(
                    id,
                    &Reply::last(&Progress {
                        message,
                        changes,
                        ..progress
                    }),
                );
            }
            Answer::Failed { bad } => {
                let reason = self.why_all(&bad);
                self.fail(id, &Error::Failed { reason });
            }
            Answer::NotBound { listener, again_in } => {
                self.tell_not_bound(ticket, listener, again_in);
            }
            Answer::Refused(why) => {
                let reason = refusal(why).to_owned();
                self.fail(id, &Error::Refused { reason });
            }
        }
    }

    /// A start has to do without a listener, for this reason if it is known.
    pub(in crate::shell) fn fail_start(
        &mut self,
        ticket: Ticket,
        listener: ListenerId,
        again_in: Option<Duration>,
        why: Option<&String>,
    ) {
        let Some(id) = self.control.tickets.get(&ticket).copied() else {
            return;
        };
        let why = why.cloned().unwrap_or_else(|| {
            let name = self.plan.listener_name(listener);
            format!("listener `{name}` could not be bound")
        });
        let again = again_in.map_or_else(
            || "it is retried when its address appears".to_owned(),
            |time| format!("it is retried in {}", event_text::duration(time)),
        );
        let reason = format!("{why}; {again}, and the worker starts then");
        self.fail(id, &Error::Failed { reason });
    }

    /// A line for each.
    fn why_all(&self, bad: &[Bad]) -> String {
        let why = bad.iter().take(REASONS).map(|bad| match *bad {
            Bad::WentBack(instance) => self.why_rolled_back(instance),
            Bad::NotUp(instance) => self.why_failed(instance),
        });
        let mut lines: Vec<String> = why.collect();
        let others = bad.iter().skip(REASONS);
        let others =
            others.map(|bad| event_text::with_generation(&self.definitions, bad.instance()));
        let others: Vec<String> = others.collect();
        if !others.is_empty() {
            lines.push(format!("failed as well: {}", others.join(", ")));
        }
        lines.join("\n")
    }

    fn why_failed(&self, instance: InstanceId) -> String {
        if let Some(why) = self.rollback_reasons.of_reload(instance) {
            return format!("{why}; the instance continues as before");
        }
        if let Some(why) = self.rollback_reasons.end_of(instance) {
            return format!("{why}; the rest is left as it is");
        }
        let name = event_text::instance_name(&self.definitions, instance);
        let facts = self.core.facts(instance);
        let rereads =
            |facts: &Facts| facts.reloading && matches!(facts.state, State::Running { .. });
        if facts.as_ref().is_some_and(rereads) {
            return format!(
                "{name} has sent RELOADING=1, but no READY=1 within `start_timeout`; it continues"
            );
        }
        let state = facts.as_ref().map_or_else(
            || "is gone".to_owned(),
            |facts| format!("is in the state `{}`", word_for(facts.health).word()),
        );
        let end = facts.and_then(|facts| facts.last_end);
        let why = end.map_or_else(String::new, |end| format!(": {}", ended(&end)));
        format!("{name} {state}{why}; the rest is left as it is")
    }

    fn reload(&mut self, id: ClientId, dry_run: bool, no_wait: bool) {
        if dry_run {
            return self.ask(id, Question::DryRun, "");
        }
        self.log_request(id, "reload");
        self.control.waits(id, WaitsFor::HelperQuery);
        if no_wait {
            self.control.no_wait.insert(id);
        }
        self.request_reload(Some(id));
    }

    fn explain(&mut self, id: ClientId, name: &str) {
        let is_known = |plan: &Plan| plan.listeners().any(|(_, one)| one.name == name);
        if is_known(&self.plan) {
            return self.ask(id, Question::Explain, name);
        }
        let error = {
            let known = self.plan.listeners();
            let known = known.map(|(_, one)| one.name.as_str());
            Error::no_such_thing(name, known.take(NAMES_COMPARED))
        };
        self.fail(id, &error);
    }

    fn ask(&mut self, id: ClientId, question: Question, about: &str) {
        if self.control.takes_no_reply(id) {
            return self.succeed(id, &Reply::done());
        }
        self.control.waits(id, WaitsFor::HelperQuery);
        let _told_if_not = self.send_out(Some(id), question, about);
    }

    /// Tells who has asked for the files to be opened again that workers log to.
    pub(in crate::shell) fn tell_reopened(&mut self) {
        while let Some((id, result)) = self.logs.reopened() {
            match result {
                Ok(count) => {
                    log::info!("reopened {count} of the workers' output files");
                    self.succeed(id, &Reply::done());
                }
                Err(reason) => self.fail(id, &Error::Failed { reason }),
            }
        }
    }

    /// Collects a little more of the metrics that somebody asked for.
    fn advance_page(&mut self) {
        let Some((id, mut job)) = self.control.pages.pop_front() else {
            return;
        };
        match self.advance_sample(&mut job) {
            Some(text) => self.succeed(id, &Reply::last(&MetricsReply { text })),
            None if self.control.waits_for(id).is_some() => {
                self.control.pages.push_front((id, job));
            }
            None => {}
        }
    }
}

/// A command, and what is said about it.
struct Order {
    command: Command,
    /// In the log.
    what: String,
    /// At the end; nothing for a method that has nothing to tell.
    done: String,
}

fn order(verb: &Verb, argument: Argument, worker: &str) -> Result<Order, Error> {
    let what = format!("{} {worker}", verb.name);
    let done = match verb.waits {
        true => format!("{worker}: {}", verb.done),
        false => String::new(),
    };
    match argument {
        Argument::Nothing(command) => Ok(Order {
            command,
            what,
            done,
        }),
        Argument::Instances(None) => Ok(Order {
            command: Command::Follow,
            what: format!("{what} to what the queues need"),
            done: format!("{worker}: the number of instances follows the queues"),
        }),
        Argument::Instances(Some(count @ 1..=MOST_INSTANCES)) => Ok(Order {
            command: Command::Scale(count),
            what: format!("{what} to {count}"),
            done: match count {
                1 => format!("{worker}: 1 instance"),
                more => format!("{worker}: {more} instances"),
            },
        }),
        Argument::Instances(Some(_)) => Err(Error::InvalidParameter {
            parameter: "instances".to_owned(),
        }),
        Argument::Signal(signal) => {
            let number = signal_number(&signal).map_err(|reason| Error::Refused { reason })?;
            Ok(Order {
                command: Command::Signal(number),
                what: format!("{what} with {}", signal_name(number)),
                done,
            })
        }
    }
}

impl Control {
    /// What the client's call waits for from now on.
    pub(super) fn waits(&mut self, id: ClientId, waits_for: WaitsFor) {
        let client = self.clients.get_mut(&id);
        if let Some(call) = client.and_then(|client| client.call.as_mut()) {
            call.waits_for = waits_for;
        }
    }

    /// What the client's call waits for; `None` if it has none, or is gone.
    pub(super) fn waits_for(&self, id: ClientId) -> Option<WaitsFor> {
        let call = self.clients.get(&id)?.call.as_ref()?;
        Some(call.waits_for.clone())
    }

    /// Whether the client does not want to hear what comes of its call.
    pub(super) fn takes_no_reply(&self, id: ClientId) -> bool {
        let call = self
            .clients
            .get(&id)
            .and_then(|client| client.call.as_ref());
        call.is_none_or(|call| call.expects == crate::control::Expects::Nothing)
    }

    /// What is to be said when its operation is done.
    fn done_words(&self, id: ClientId) -> Option<String> {
        match &self.clients.get(&id)?.call.as_ref()?.waits_for {
            WaitsFor::Operation { done, .. } => Some(done.clone()),
            WaitsFor::Nothing
            | WaitsFor::Status
            | WaitsFor::Metrics
            | WaitsFor::Events
            | WaitsFor::Lines(_)
            | WaitsFor::Sockets(_)
            | WaitsFor::Files
            | WaitsFor::HelperQuery => None,
        }
    }

    /// How far its operation is.
    fn progress_of(&self, id: ClientId) -> Progress {
        let call = self
            .clients
            .get(&id)
            .and_then(|client| client.call.as_ref());
        let (done, of) = match call.map(|call| &call.waits_for) {
            Some(WaitsFor::Operation { progress, .. }) => *progress,
            Some(
                WaitsFor::Nothing
                | WaitsFor::Status
                | WaitsFor::Metrics
                | WaitsFor::Events
                | WaitsFor::Lines(_)
                | WaitsFor::Sockets(_)
                | WaitsFor::Files
                | WaitsFor::HelperQuery,
            )
            | None => (0, 0),
        };
        Progress {
            done: done.into(),
            of: of.into(),
            ..Progress::default()
        }
    }

    fn note_progress(&mut self, id: ClientId, done: u32, of: u32) -> Progress {
        let client = self.clients.get_mut(&id);
        let call = client.and_then(|client| client.call.as_mut());
        if let Some(call) = call
            && let WaitsFor::Operation { progress, .. } = &mut call.waits_for
        {
            *progress = (done, of);
        }
        self.progress_of(id)
    }
}

pub(super) fn refusal(why: Refused) -> &'static str {
    match why {
        Refused::NoSuchWorker => "there is no such worker",
        Refused::NotRunning => "listend is starting or stopping",
        Refused::Busy => {
            "a rollout of this worker is in progress; wait for its end (`listend start` does), or \
             stop the worker"
        }
        Refused::Superseded => "superseded by a later command or reload",
        Refused::NoInstances => {
            "the worker runs one process for each connection; `max_connections` in the \
             configuration limits them"
        }
        Refused::OneInstance => {
            "a listener of the worker has `flows: sticky`, and its flows are those of one instance"
        }
        Refused::NoSuchInstance => {
            "there is no such instance, or this is for a whole worker; `listend status` shows what \
             there is"
        }
        Refused::WorkerStopped => {
            "the worker is stopped with all its instances; `listend start` starts it"
        }
        Refused::NoScaling => {
            "the number of instances does not follow the queues: `instances` in the \
             configuration has no `max`"
        }
        Refused::NoProcess => "the worker has no process to signal",
        Refused::NotReloadable => {
            "the worker has neither `reload_signal` nor `reload_command` in the configuration; \
             `listend restart` replaces its instances"
        }
        Refused::WaitsForListener => {
            "the worker waits for a listener that is missing, and starts when that is bound \
             (`listend status` shows which)"
        }
    }
}
