//! `Config` × facts about this machine → `Plan`. Pure.

use super::environment_file;
use super::model::{
    Access, Activation, Grant, HookTimes, Lifecycle, ListenerId, ListenerPlan, ListenerSettings,
    Plan, ReloadBy, RuntimeDirectory, SocketKey, SocketPlan, WorkerPlan,
};
use crate::config::{
    self, Config, Distribute, Grantee, Hook, Hooks, Located, NotifyAccess, Output, Ready, Template,
};
use crate::handoff::belongs_to_a_handoff;
use crate::host::{ExecveLimits, Facts, UserFacts};
use crate::launch_spec::{Credentials, LaunchSpec, Resource};
use crate::report::{Kind, Place, Problem, Report, Sources, describe, nearest};
use crate::sandbox::{Families, Family, Sandbox};
use foldhash::{HashMap, HashSet};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

/// Resolves everything that the configuration leaves to this machine. All that is missing is
/// reported at once; the plan is to be used only if the report has no errors.
///
/// `sources` gets the environment files, so that their mistakes can be shown.
pub fn resolve(config: Config, facts: &Facts, sources: &mut Sources) -> (Plan, Report) {
    let mut resolver = Resolver {
        facts,
        sources,
        report: Report::default(),
    };
    let Config {
        listeners,
        workers,
        web,
        ..
    } = config;
    // Taken apart piece by piece: with many thousands of listeners, two whole copies would be the
    // most memory that listend ever needs.
    let mut listeners: Vec<ListenerPlan> = listeners
        .into_iter()
        .map(|listener| resolver.listener(listener))
        .collect();
    let web = web.map(|listener| {
        let worker = config::web_worker(&listener);
        listeners.push(resolver.listener(listener));
        worker
    });
    let ids: HashMap<&str, ListenerId> = listeners
        .iter()
        .zip((0..).map(ListenerId))
        .map(|(listener, id)| (listener.name.as_str(), id))
        .collect();
    let watchers: Vec<config::Worker> = workers.iter().filter_map(config::watch_worker).collect();
    let workers = workers.iter().chain(&web).chain(&watchers);
    let workers = workers.map(|worker| resolver.worker(worker, &listeners, &ids));
    let workers: Vec<WorkerPlan> = workers.collect();
    for worker in &workers {
        let life = &worker.lifecycle;
        if life.distribute == Distribute::Shards {
            for id in &worker.listeners {
                let listener = listeners.get_mut(id.0 as usize);
                listener
                    .into_iter()
                    .for_each(|one| one.add_shards(life.instances));
            }
        }
    }
    let plan = Plan::new(listeners, workers);
    (plan, resolver.report)
}

struct Resolver<'a> {
    facts: &'a Facts,
    sources: &'a mut Sources,
    report: Report,
}

impl Resolver<'_> {
    fn listener(&mut self, listener: config::Listener) -> ListenerPlan {
        let owner = listener.owner.as_ref().and_then(|name| {
            let user = self.user(name)?;
            Some(user.uid)
        });
        let group = listener.group.as_ref().and_then(|name| self.group(name));
        let directory_owner = listener.directory_owner.as_ref();
        let directory_owner = directory_owner.and_then(|name| Some(self.user(name)?.uid));
        let directory_group = listener.directory_group.as_ref();
        let directory_group = directory_group.and_then(|name| self.group(name));
        let mut grant = Grant::default();
        for one in listener.grant {
            let place = one.place;
            let named = |value| Located { value, place };
            match one.value {
                Grantee::User(name) => {
                    grant
                        .users
                        .extend(self.user(&named(name)).map(|user| user.uid));
                }
                Grantee::Group(name) => grant.groups.extend(self.group(&named(name))),
            }
        }
        let bare = |options: Vec<Located<_>>| options.into_iter().map(|one| one.value).collect();
        let endpoints = listener.addresses.iter().map(|one| &one.value.endpoints);
        let mut sockets = Vec::with_capacity(endpoints.map(Vec::len).sum());
        for Located { value, place } in listener.addresses {
            sockets.extend(value.endpoints.into_iter().map(|endpoint| SocketPlan {
                key: SocketKey::default(),
                endpoint,
                shard: 0,
                place,
            }));
        }
        let mut places: Vec<(Cow<'static, str>, Place)> = listener
            .options
            .iter()
            .map(|option| (option.value.spec.key.into(), option.place))
            .collect();
        let written = [
            ("backlog", listener.backlog.as_ref().map(|one| one.place)),
            ("owner", listener.owner.as_ref().map(|one| one.place)),
            ("group", listener.group.as_ref().map(|one| one.place)),
            ("multicast", listener.multicast.first().map(|one| one.place)),
            ("symlinks", listener.symlinks.first().map(|one| one.place)),
            (
                "network_namespace",
                listener.network_namespace.as_ref().map(|one| one.place),
            ),
            ("flows", listener.flows.as_ref().map(|one| one.place)),
        ];
        places.extend(
            written
                .into_iter()
                .filter_map(|(key, place)| Some((key.into(), place?))),
        );
        let settings = ListenerSettings {
            options: bare(listener.options),
            multicast: listener
                .multicast
                .into_iter()
                .map(|one| one.value)
                .collect(),
            network_namespace: listener.network_namespace.map(|path| path.value),
            symlinks: listener.symlinks.into_iter().map(|one| one.value).collect(),
            remove_on_stop: listener.remove_on_stop,
            grant,
            presence: listener.presence,
            flows: listener.flows.map(|flows| flows.value),
            backlog: listener
                .backlog
                .as_ref()
                .map_or(self.facts.somaxconn, |backlog| backlog.value),
            access: Access {
                owner,
                group,
                mode: listener.mode,
                directory_mode: listener.directory_mode,
                directory_owner,
                directory_group,
            },
        };
        ListenerPlan {
            name: listener.name.value,
            sockets,
            settings: Arc::new(settings),
            places,
        }
    }

    fn worker(
        &mut self,
        worker: &config::Worker,
        known: &[ListenerPlan],
        ids: &HashMap<&str, ListenerId>,
    ) -> WorkerPlan {
        let worker = &*config::pinned(worker, &self.facts.links);
        let worker = &*config::forwarded(worker);
        let credentials = self.credentials(worker);
        let runtime_directory = self.runtime_directory(worker);
        let environment = self.environment(worker, runtime_directory.as_ref());
        self.variables_are_set(worker, &environment);
        self.fits_into_execve(worker, &environment);
        // Names were checked when the file was read; one that is missing is an error already.
        let listeners: Vec<ListenerId> = worker
            .listeners
            .iter()
            .filter_map(|name| ids.get(name.value.as_str()).copied())
            .collect();
        let taken = listeners.iter().filter_map(|id| known.get(id.0 as usize));
        let keeps_flows = taken
            .clone()
            .any(|listener| listener.settings.flows.is_some());
        let families = families(taken.clone(), worker.forward.is_some());
        let (activation, instances) = activation(worker, taken);
        let bare = |text: &Located<Template>| Ok::<_, Infallible>(text.value.clone());
        let Ok(launch) = worker.launch.try_map(bare);
        WorkerPlan {
            name: worker.name.value.clone(),
            place: worker.name.place,
            preset: worker.preset.clone(),
            command: worker
                .command
                .iter()
                .map(|word| word.value.clone())
                .collect(),
            argv0: worker.argv0.as_ref().map(|name| name.value.clone()),
            listeners,
            handoff: worker.handoff.value.clone(),
            listen_pid: worker.listen_pid,
            environment: Arc::new(environment),
            runtime_directory,
            launch: LaunchSpec {
                credentials,
                ..launch
            },
            sandbox: sandbox(worker, &families).map(Box::new),
            forwards: worker.sandbox.is_some() && worker.forward.is_some(),
            output: worker.output.clone(),
            notify_access: notify_access(worker),
            fd_store: worker.fd_store,
            idle_unless: worker.idle_unless.clone(),
            hooks: worker.hooks.clone(),
            reload_command: match &worker.reload {
                Some(config::Reload::Command(hook)) => Some(hook.clone()),
                Some(config::Reload::Signal(_)) | None => None,
            },
            lifecycle: Arc::new(Lifecycle {
                nonblocking: worker
                    .nonblocking
                    .as_ref()
                    .map_or(worker.handoff.value.default_nonblocking(), |wish| {
                        wish.value
                    }),
                activation,
                instances,
                distribute: worker.distribute.value,
                scaling: worker.scaling,
                idle_timeout: worker.idle_timeout,
                restart: worker.restart.clone(),
                stop_signal: worker.stop_signal,
                kill_mode: worker.kill_mode,
                stop_timeout: worker.stop_timeout,
                ready: worker.ready.value,
                start_timeout: worker.start_timeout,
                watchdog: worker.watchdog,
                rollout: worker.rollout,
                reload: worker.reload.as_ref().map(|reload| match reload {
                    config::Reload::Signal(number) => ReloadBy::Signal(*number),
                    config::Reload::Command(hook) => ReloadBy::Command(hook.timeout),
                }),
                on_failure: worker.on_failure,
                hooks: hook_times(&worker.hooks),
                keeps_flows,
                ends_with_listend: super::model::is_built_in(&worker.name.value),
            }),
        }
    }

    fn user(&mut self, name: &Located<String>) -> Option<UserFacts> {
        let found = self.facts.users.get(&name.value).cloned();
        if found.is_none() {
            let known = &self.facts.known_users;
            self.unknown((Kind::UnknownUser, "user"), name, known);
        }
        found
    }

    fn group(&mut self, name: &Located<String>) -> Option<u32> {
        let found = self.facts.groups.get(&name.value).copied();
        if found.is_none() {
            let known = &self.facts.known_groups;
            self.unknown((Kind::UnknownGroup, "group"), name, known);
        }
        found
    }

    fn unknown(&mut self, (kind, what): (Kind, &str), name: &Located<String>, known: &[String]) {
        let message = format!("there is no {what} `{}` on this machine", name.value);
        let hint = match nearest(&name.value, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("create the {what}, or correct the name"),
        };
        let problem = Problem::new(kind, message);
        self.report.add(problem.at(name.place).with_hint(hint));
    }

    fn credentials(&mut self, worker: &config::Worker) -> Option<Credentials> {
        let user = worker.user.as_ref().and_then(|name| self.user(name));
        let group = worker.group.as_ref().and_then(|name| self.group(name));
        let supplementary = worker.supplementary_groups.as_ref().map(|names| {
            names
                .iter()
                .filter_map(|name| self.group(name))
                .collect::<Vec<u32>>()
        });
        let named = [&worker.user, &worker.group];
        let first = named.into_iter().flatten().next();
        let first = first.or(worker.supplementary_groups.as_ref().and_then(|v| v.first()));
        let uid = user.as_ref().map(|user| user.uid);
        if let Some(first) = first
            && self.facts.uid != 0
            && uid != Some(self.facts.uid)
        {
            self.report.add(
                Problem::new(
                    Kind::NeedsPrivilege,
                    format!(
                        "worker `{}` is to run as `{}`, but listend runs as uid {} here and may \
                         not change users",
                        worker.name.value, first.value, self.facts.uid
                    ),
                )
                .at(first.place)
                .of_worker(&worker.name.value)
                .with_hint("run listend as root, or leave `user` and the groups out"),
            );
        }
        if user.is_none() && group.is_none() && supplementary.is_none() {
            return None;
        }
        // An unprivileged listend that is asked to run a worker as its own user has nothing to
        // change, and would not be allowed to call setgroups(2).
        if self.facts.uid != 0
            && uid == Some(self.facts.uid)
            && group.is_none()
            && supplementary.is_none()
        {
            return None;
        }
        let gid = group.or_else(|| user.as_ref().and_then(|user| user.gid));
        // As initgroups(3) has it with the group that counts: with `group` the user's primary group
        // is given up.
        let groups = supplementary.or_else(|| {
            let user = user.as_ref()?;
            Some(gid.into_iter().chain(user.groups.iter().copied()).collect())
        });
        Some(Credentials {
            uid,
            gid,
            groups,
            user: first.map_or_else(String::new, |name| name.value.clone()),
        })
    }

    fn runtime_directory(&mut self, worker: &config::Worker) -> Option<RuntimeDirectory> {
        let name = worker.runtime_directory.as_ref()?;
        let base = if self.facts.uid == 0 {
            Some("/run")
        } else {
            let mut variables = self.facts.environment.iter();
            let found = variables.find(|(name, _)| name == "XDG_RUNTIME_DIR");
            let found = found.map(|(_, value)| value.as_str());
            found.filter(|path| path.starts_with('/'))
        };
        if base.is_none() {
            let message = "`runtime_directory` is below $XDG_RUNTIME_DIR, which is not set";
            let problem = Problem::new(Kind::BadValue, message).at(name.place);
            let problem = problem.of_worker(&worker.name.value);
            let hint = "start listend in a session of its user, or as a user's service of systemd";
            self.report.add(problem.with_hint(hint));
        }
        Some(RuntimeDirectory {
            base: base?.into(),
            name: name.value.clone(),
            mode: worker.runtime_directory_mode,
            preserve: worker.runtime_directory_preserve,
        })
    }

    /// listend's own environment without any handoff's variables; then who the user is, and its
    /// runtime directory; then the files; then `environment:`. The last word on a name counts, and
    /// each name is there once.
    fn environment(
        &mut self,
        worker: &config::Worker,
        runtime_directory: Option<&RuntimeDirectory>,
    ) -> Vec<(String, Template)> {
        let mut variables = Variables::default();
        for (name, value) in &self.facts.environment {
            // JOURNAL_STREAM stays true only for a worker that writes to the same stream.
            let stale = name == "JOURNAL_STREAM" && worker.output != Output::Inherit;
            if !belongs_to_a_handoff(name) && !stale {
                variables.set(name, Template::literal(value.as_str()));
            }
        }
        let user = worker.user.as_ref();
        if let Some(user) = user.and_then(|name| self.facts.users.get(&name.value)) {
            for (name, value) in [
                ("USER", &user.name),
                ("LOGNAME", &user.name),
                ("HOME", &user.home),
                ("SHELL", &user.shell),
            ] {
                variables.set(name, Template::literal(value.as_str()));
            }
        }
        if let Some(directory) = runtime_directory {
            let path = directory.path().to_string_lossy().into_owned();
            variables.set("RUNTIME_DIRECTORY", Template::literal(path));
        }
        for file in &worker.environment_files {
            for (name, value) in self.environment_file(file) {
                variables.set(&name, Template::literal(value));
            }
        }
        for (name, value) in &worker.environment {
            variables.set(name, value.value.clone());
        }
        variables.list
    }

    /// Refuses what execve(2) would answer with E2BIG to, as far as lengths are known: what placeholders
    /// stand for is not counted.
    fn fits_into_execve(&mut self, worker: &config::Worker, variables: &[(String, Template)]) {
        let Some(limits) = self.facts.execve else {
            return;
        };
        let mut add = |message: String, place| {
            let problem = Problem::new(Kind::BadValue, message).at(place);
            let problem = problem.of_worker(&worker.name.value);
            let hint = "have the program read it from a file";
            self.report.add(problem.with_hint(hint));
        };
        let mut total = 0;
        // Each has a NUL at its end, and a pointer to it.
        let pointer = size_of::<usize>() as u64;
        for word in &worker.command {
            let length = literal_length(&word.value) + 1;
            total += length + pointer;
            if length > limits.string {
                let message = format!(
                    "an argument of {length} bytes: execve(2) takes at most {} in one",
                    limits.string
                );
                add(message, word.place);
            }
        }
        for (name, value) in variables {
            let length = name.len() as u64 + 1 + literal_length(value) + 1;
            total += length + pointer;
            if length > limits.string {
                let written = worker.environment.iter().rfind(|(known, _)| known == name);
                let file = worker.environment_files.last();
                let place = written.map(|(_, value)| value.place);
                let place = place.or(file.map(|file| file.path.place));
                let message = format!(
                    "variable `{name}` has {length} bytes: execve(2) takes at most {} in one",
                    limits.string
                );
                add(message, place.unwrap_or(worker.name.place));
            }
        }
        let stack = worker.launch.limits.iter();
        let mut stack = stack.filter(|limit| limit.resource == Resource::Stack);
        let stack = stack
            .next_back()
            .map_or(limits.stack, |limit| limit.soft.unwrap_or(u64::MAX));
        let most = ExecveLimits::total(stack);
        if total > most {
            let message = format!(
                "the command and environment of worker `{}` have {total} bytes: execve(2) takes at \
                 most {most} with this limit on the stack",
                worker.name.value
            );
            add(message, worker.name.place);
        }
    }

    /// Advises on variables in commands that nothing sets: systemd warns of them, too.
    fn variables_are_set(&mut self, worker: &config::Worker, known: &[(String, Template)]) {
        let own = worker.command.iter().map(|word| (&word.value, word.place));
        let of_hooks = worker.commands().flat_map(|hook| &hook.command);
        let of_hooks = of_hooks.map(|word| (word, worker.name.place));
        let known: HashSet<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        for (word, place) in own.chain(of_hooks) {
            for name in word.pieces.iter().filter_map(config::Piece::variable) {
                // What a handoff sets is known at the start.
                if belongs_to_a_handoff(name) || known.contains(name) {
                    continue;
                }
                let message = format!("nothing sets `${name}`: it would be empty");
                let problem = Problem::new(Kind::UnsetVariable, message).at(place);
                let hint = "add it to `environment`, or to a file of `environment_file`";
                let problem = problem.of_worker(&worker.name.value);
                self.report.add(problem.with_hint(hint));
            }
        }
    }

    fn environment_file(&mut self, file: &config::EnvironmentFile) -> Vec<(String, String)> {
        let path = &file.path.value;
        match self.facts.environment_files.get(path) {
            Some(Ok(text)) => {
                let (variables, report) =
                    environment_file::parse(&path.to_string_lossy(), text, self.sources);
                self.report.extend(report);
                variables
            }
            Some(Err(unread)) if file.optional && unread.errno == nix::libc::ENOENT => Vec::new(),
            Some(Err(unread)) => {
                let path = path.display();
                let why = unread.refused.clone();
                let why = why.unwrap_or_else(|| describe(unread.errno));
                let hint = match (&unread.refused, unread.errno) {
                    (Some(_), _) => {
                        "let the file and the directories above it belong to root, or name the \
                         file itself and let its owner be able to read it"
                    }
                    (None, nix::libc::ENOENT) => {
                        "a leading `-` makes the file optional: `-/path/to/file`"
                    }
                    (None, nix::libc::EACCES) => {
                        "listend itself reads it, and not the worker: let its user read the file, \
                         and enter the directories above it"
                    }
                    _ => "name a file of lines like `NAME=VALUE`",
                };
                let message = format!("cannot read environment file {path}: {why}");
                self.report.add(
                    Problem::new(Kind::EnvironmentFile, message)
                        .at(file.path.place)
                        .with_hint(hint),
                );
                Vec::new()
            }
            None => Vec::new(),
        }
    }
}

fn literal_length(template: &Template) -> u64 {
    let texts = template.pieces.iter().map(|piece| match piece {
        config::Piece::Text(text) => text.len() as u64,
        _ => 0,
    });
    texts.sum()
}

/// The processes that may send notifications; `None` if the worker uses none.
fn notify_access(worker: &config::Worker) -> Option<NotifyAccess> {
    let tells =
        worker.ready.value == Ready::Notify || worker.watchdog.is_some() || worker.fd_store > 0;
    worker
        .notify_access
        .or_else(|| tells.then_some(NotifyAccess::Main))
}

fn hook_times(hooks: &Hooks) -> HookTimes {
    let time = |hook: &Option<Hook>| hook.as_ref().map(|hook| hook.timeout);
    HookTimes {
        before_start: time(&hooks.before_start),
        after_ready: time(&hooks.after_ready),
        after_stop: time(&hooks.after_stop),
    }
}

/// Activation and number of instances of a worker. A socket without connections is passed on itself, as
/// inetd's `wait` does it: to one process at a time, which the first datagram starts.
fn activation<'p>(
    worker: &config::Worker,
    listeners: impl Iterator<Item = &'p ListenerPlan>,
) -> (Activation, u32) {
    let limit = worker.trigger_limit;
    match worker.activation.value {
        config::Activation::Eager => (Activation::Eager, worker.instances),
        config::Activation::OnDemand => (Activation::OnDemand { limit }, worker.instances),
        config::Activation::PerConnection => {
            let mut sockets = listeners.flat_map(|listener| &listener.sockets);
            // Those of one worker either all have connections, or none has.
            if sockets.all(|socket| socket.endpoint.accepts()) {
                (Activation::PerConnection(worker.connections.clone()), 0)
            } else {
                (Activation::OnDemand { limit }, 1)
            }
        }
    }
}

/// The sandbox, with the families of its listeners.
fn sandbox(worker: &config::Worker, inherited: &BTreeSet<i32>) -> Option<Sandbox> {
    let mut sandbox = worker.sandbox.as_ref()?.value.clone();
    if let Some(families) = &mut sandbox.families {
        families.settle(inherited);
        if let (Some(_), Families::Only(named)) = (&worker.forward, families) {
            named.extend(inherited.iter().copied().map(Family::Number));
        }
    }
    Some(sandbox)
}

/// The address families of listeners, and those in which `listend forward` connects.
fn families<'p>(
    listeners: impl Iterator<Item = &'p ListenerPlan>,
    forwards: bool,
) -> BTreeSet<i32> {
    use nix::libc::{AF_INET, AF_INET6, AF_UNIX};
    let sockets = listeners.flat_map(|listener| &listener.sockets);
    let families = sockets.filter_map(|socket| socket.endpoint.family());
    let of_servers = if forwards {
        &[AF_INET, AF_INET6, AF_UNIX][..]
    } else {
        &[]
    };
    families.chain(of_servers.iter().copied()).collect()
}

/// Variables in the order in which they first appeared.
#[derive(Default)]
struct Variables {
    list: Vec<(String, Template)>,
    index: HashMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: &str, value: Template) {
        match self.index.get(name) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.index.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }
}
