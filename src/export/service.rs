//! A worker as a .service unit (systemd.service(5), systemd.exec(5)).

use super::names::{accepts, listeners_of, socket_unit};
use super::sandbox::sandbox;
use super::unit::{SERVICE, Unit, plain, quoted, span, yes};
use crate::config::{
    Activation, Distribute, Endpoint, Hook, KillMode, Listener, NotifyAccess, OnFailure, Output,
    Piece, Ready, Reload, Resolve, RestartPolicy, SocketRef, Success, Template, Worker,
    signal_name,
};
use crate::launch_spec::{LaunchSpec, Limit};
use std::net::SocketAddr;

/// How texts with placeholders become ones of systemd.
struct Texts<'a> {
    worker: &'a Worker,
    listeners: Vec<&'a Listener>,
}

/// The unit with this name.
pub(super) fn unit(worker: &Worker, all: &[Listener], name: String) -> Unit {
    let mut unit = Unit::new(name + ".service");
    let description = format!("Worker {}", worker.name.value);
    unit.set("Unit", "Description", description);
    let texts = Texts {
        worker,
        listeners: listeners_of(worker, all),
    };
    if !accepts(worker) {
        sockets(&mut unit, worker, &texts);
    }
    kind(&mut unit, worker);
    command(&mut unit, worker, &texts);
    hooks(&mut unit, worker, &texts);
    user(&mut unit, worker);
    environment(&mut unit, worker, &texts);
    process(&mut unit, &worker.launch, &texts);
    sandbox(&mut unit, worker, &texts.listeners);
    output(&mut unit, worker, &texts);
    ending(&mut unit, worker);
    restart(&mut unit, worker);
    what_is_left(&mut unit, worker);
    if worker.activation.value == Activation::Eager {
        unit.set("Install", "WantedBy", "multi-user.target");
    }
    unit
}

fn sockets(unit: &mut Unit, worker: &Worker, texts: &Texts<'_>) {
    let units: Vec<String> = texts
        .listeners
        .iter()
        .map(|one| socket_unit(worker, &one.name.value))
        .collect();
    if units.is_empty() {
        return;
    }
    unit.set(SERVICE, "Sockets", units.join(" "));
    if units.len() > 1 {
        unit.remark(
            "The order of the descriptors of several socket units is not that of `listeners`; \
             their names are in LISTEN_FDNAMES.",
        );
    }
}

fn kind(unit: &mut Unit, worker: &Worker) {
    match worker.ready.value {
        Ready::Notify => unit.set(SERVICE, "Type", "notify"),
        Ready::Started => unit.set(SERVICE, "Type", "exec"),
        Ready::Accepting(_) | Ready::Fd(_) | Ready::Einhorn => {
            unit.set(SERVICE, "Type", "exec");
            let ready = worker.ready.value;
            unit.lacks(
                &format!("ready: {ready}"),
                "systemd is told (Type=notify), or does not ask",
            );
        }
    }
    match worker.notify_access {
        None => {}
        Some(NotifyAccess::Main) => unit.set(SERVICE, "NotifyAccess", "main"),
        Some(NotifyAccess::All) => unit.set(SERVICE, "NotifyAccess", "all"),
    }
    unit.set(SERVICE, "TimeoutStartSec", span(worker.start_timeout));
    if let Some(watchdog) = worker.watchdog {
        unit.set(SERVICE, "WatchdogSec", span(Some(watchdog)));
    }
    if worker.fd_store > 0 {
        unit.set(
            SERVICE,
            "FileDescriptorStoreMax",
            worker.fd_store.to_string(),
        );
    }
    let handoff = worker.handoff.value.to_string();
    match handoff.as_str() {
        "systemd" | "none" => {}
        "inetd" | "fd0" => unit.set(SERVICE, "StandardInput", "socket"),
        _ => unit.lacks(
            &format!("handoff: {handoff}"),
            "systemd has LISTEN_FDS and standard input",
        ),
    }
    if worker.nonblocking.as_ref().is_some_and(|one| one.value) {
        unit.set(SERVICE, "NonBlocking", "yes");
    }
}

fn command(unit: &mut Unit, worker: &Worker, texts: &Texts<'_>) {
    if let Some(forward) = &worker.forward {
        unit.lacks(
            &format!("forward: {}", texts.plain(&forward.to.value).0),
            "see systemd-socket-proxyd(8)",
        );
    }
    let words: Vec<&Template> = worker.command.iter().map(|one| &one.value).collect();
    match words.is_empty() {
        true => unit.set(SERVICE, "ExecStart", "/bin/false"),
        false => {
            let argv0 = worker.argv0.as_ref().map(|one| &one.value);
            let line = texts.line(unit, "command", argv0, &words);
            unit.set(SERVICE, "ExecStart", line);
        }
    }
    if words.is_empty() {
        unit.lacks(
            "a worker without a command",
            "write the command of the service",
        );
    }
}

fn hooks(unit: &mut Unit, worker: &Worker, texts: &Texts<'_>) {
    let hooks = &worker.hooks;
    let all: [(&str, &str, &Option<Hook>); 3] = [
        ("ExecStartPre", "before_start", &hooks.before_start),
        ("ExecStartPost", "after_ready", &hooks.after_ready),
        ("ExecStopPost", "after_stop", &hooks.after_stop),
    ];
    for (key, name, hook) in all {
        if let Some(hook) = hook {
            let words: Vec<&Template> = hook.command.iter().collect();
            let line = texts.line(unit, name, None, &words);
            unit.set(SERVICE, key, line);
            timeout(unit, name, hook);
        }
    }
    match &worker.reload {
        None => {}
        Some(Reload::Signal(signal)) => {
            let name = signal_name(*signal);
            let name = name.trim_start_matches("SIG");
            unit.set(SERVICE, "ExecReload", format!("/bin/kill -{name} $MAINPID"));
        }
        Some(Reload::Command(hook)) => {
            let words: Vec<&Template> = hook.command.iter().collect();
            let line = texts.line(unit, "reload_command", None, &words);
            unit.set(SERVICE, "ExecReload", line);
            timeout(unit, "reload_command", hook);
        }
    }
}

fn timeout(unit: &mut Unit, name: &str, hook: &Hook) {
    if !hook.has_default_timeout() {
        unit.lacks(
            &format!("timeout of {name}"),
            "TimeoutStartSec= and TimeoutStopSec= are for all commands together",
        );
    }
}

fn user(unit: &mut Unit, worker: &Worker) {
    if let Some(user) = &worker.user {
        unit.set(SERVICE, "User", plain(&user.value));
    }
    if let Some(group) = &worker.group {
        unit.set(SERVICE, "Group", plain(&group.value));
    }
    if let Some(groups) = &worker.supplementary_groups {
        let groups: Vec<String> = groups.iter().map(|one| plain(&one.value)).collect();
        unit.set(SERVICE, "SupplementaryGroups", groups.join(" "));
        unit.lacks(
            "supplementary_groups",
            "systemd adds them to the user's own groups",
        );
    }
    if let Some(folder) = &worker.runtime_directory {
        unit.set(
            SERVICE,
            "RuntimeDirectory",
            quoted(&folder.value.to_string_lossy()),
        );
        let mode = worker.runtime_directory_mode;
        unit.set(SERVICE, "RuntimeDirectoryMode", format!("{mode:04o}"));
        let preserve = yes(worker.runtime_directory_preserve);
        unit.set(SERVICE, "RuntimeDirectoryPreserve", preserve);
    }
}

fn environment(unit: &mut Unit, worker: &Worker, texts: &Texts<'_>) {
    for (name, value) in &worker.environment {
        let (value, lacks) = texts.plain(&value.value);
        unit.set(SERVICE, "Environment", quoted(&format!("{name}={value}")));
        for what in lacks {
            unit.lacks(&format!("{what} in environment {name}"), NO_PLACEHOLDER);
        }
    }
    for file in &worker.environment_files {
        let dash = if file.optional { "-" } else { "" };
        let path = plain(&file.path.value.to_string_lossy());
        unit.set(SERVICE, "EnvironmentFile", format!("{dash}{path}"));
    }
    if !worker.environment.is_empty() && !worker.environment_files.is_empty() {
        unit.remark(
            "Variables of EnvironmentFile= win over those of Environment=; in listend it is the other way round.",
        );
    }
}

fn process(
    unit: &mut Unit,
    launch: &LaunchSpec<crate::config::Located<Template>>,
    texts: &Texts<'_>,
) {
    for limit in &launch.limits {
        let key = format!("Limit{}", limit.resource.key().to_uppercase());
        unit.set(SERVICE, &key, limit_text(limit));
    }
    if let Some(umask) = launch.umask {
        unit.set(SERVICE, "UMask", format!("{umask:04o}"));
    }
    if let Some(nice) = launch.nice {
        unit.set(SERVICE, "Nice", nice.to_string());
    }
    if let Some(score) = launch.oom_score_adjust {
        unit.set(SERVICE, "OOMScoreAdjust", score.to_string());
    }
    // The default of systemd is the other one.
    unit.set(SERVICE, "IgnoreSIGPIPE", yes(launch.ignore_sigpipe));
    if let Some(folder) = &launch.working_directory {
        let (path, lacks) = texts.plain(&folder.value);
        unit.set(SERVICE, "WorkingDirectory", plain(&path));
        for what in lacks {
            unit.lacks(&format!("{what} in working_directory"), NO_PLACEHOLDER);
        }
    }
}

fn limit_text(limit: &Limit) -> String {
    let text = |value: Option<u64>| value.map_or("infinity".to_owned(), |value| value.to_string());
    match limit.soft == limit.hard {
        true => text(limit.soft),
        false => format!("{}:{}", text(limit.soft), text(limit.hard)),
    }
}

fn output(unit: &mut Unit, worker: &Worker, texts: &Texts<'_>) {
    let to = match &worker.output {
        // What a worker inherits of listend under systemd is the journal.
        Output::Inherit | Output::Journal => "journal".to_owned(),
        Output::Null => "null".to_owned(),
        Output::Tag | Output::TagJson => {
            unit.lacks(
                "output: tag",
                "the journal has the name of the unit with each line",
            );
            "journal".to_owned()
        }
        Output::File(path) => {
            let (path, lacks) = texts.plain(path);
            for what in lacks {
                unit.lacks(&format!("{what} in output"), NO_PLACEHOLDER);
            }
            format!("append:{}", plain(&path))
        }
    };
    // A connection is standard output as well.
    let is_socket = accepts(worker) && worker.handoff.value.to_string() == "inetd";
    unit.set(
        SERVICE,
        "StandardOutput",
        if is_socket { "socket" } else { &to },
    );
    unit.set(SERVICE, "StandardError", to);
}

fn ending(unit: &mut Unit, worker: &Worker) {
    unit.set(SERVICE, "KillSignal", signal_name(worker.stop_signal));
    unit.set(SERVICE, "TimeoutStopSec", span(worker.stop_timeout));
    let mode = match worker.kill_mode {
        KillMode::Process => "mixed",
        KillMode::Group => "control-group",
    };
    unit.set(SERVICE, "KillMode", mode);
    if worker.connections.timeout.is_some() {
        let most = span(worker.connections.timeout);
        unit.set(SERVICE, "RuntimeMaxSec", most);
    }
}

fn restart(unit: &mut Unit, worker: &Worker) {
    if accepts(worker) {
        return unit.set(SERVICE, "Restart", "no");
    }
    let restart = &worker.restart;
    let on_demand = worker.activation.value == Activation::OnDemand;
    let policy = match restart.policy {
        // The next client starts it in any case.
        RestartPolicy::Always if on_demand => "no",
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "no",
    };
    unit.set(SERVICE, "Restart", policy);
    if restart.policy != RestartPolicy::Never {
        unit.set(SERVICE, "RestartSec", span(Some(restart.backoff_min)));
        if restart.backoff_max > restart.backoff_min {
            let doubled =
                restart.backoff_max.as_secs_f64() / restart.backoff_min.as_secs_f64().max(0.001);
            // As many steps as it takes to double it.
            let steps = doubled.log2().ceil().clamp(1.0, 100.0);
            unit.set(SERVICE, "RestartSteps", format!("{steps:.0}"));
            unit.set(
                SERVICE,
                "RestartMaxDelaySec",
                span(Some(restart.backoff_max)),
            );
        }
    }
    match restart.limit {
        None => unit.set("Unit", "StartLimitIntervalSec", "0"),
        Some(limit) => {
            unit.set("Unit", "StartLimitIntervalSec", span(Some(limit.interval)));
            unit.set("Unit", "StartLimitBurst", limit.count.to_string());
            unit.remark("Beyond StartLimitBurst= the unit fails until `systemctl reset-failed`.");
        }
    }
    let success: Vec<String> = restart
        .success
        .iter()
        .map(|end| match end {
            Success::Code(code) => code.to_string(),
            Success::Signal(signal) => signal_name(*signal),
        })
        .collect();
    if !success.is_empty() {
        unit.set(SERVICE, "SuccessExitStatus", success.join(" "));
    }
}

fn what_is_left(unit: &mut Unit, worker: &Worker) {
    let cases = [
        (
            worker.instances > 1 || worker.scaling.is_some(),
            format!("instances: {}", worker.instances),
            "a service is one process; a template (NAME@.service) cannot share a socket unit",
        ),
        (
            worker.distribute.value == Distribute::Shards,
            "distribute: shards".to_owned(),
            "see ReusePort=; who waits at a closed socket is lost",
        ),
        (
            !worker.watch.is_empty(),
            "watch".to_owned(),
            "a .path unit starts a service, and does not restart it",
        ),
        (
            worker.idle_timeout.is_some(),
            "idle_timeout".to_owned(),
            "the program has to end by itself",
        ),
        (
            worker.on_failure == OnFailure::Refuse,
            "on_failure: refuse".to_owned(),
            "a socket unit that has hit its limit fails, and closes its sockets",
        ),
        (
            !accepts(worker) && !worker.listeners.is_empty(),
            "rollout".to_owned(),
            "`systemctl restart` stops the process before it starts another; clients wait meanwhile",
        ),
        (
            !worker.listen_pid,
            "listen_pid: false".to_owned(),
            "systemd always sets LISTEN_PID",
        ),
        (
            worker.resolve == Resolve::AtReload,
            "resolve: at-reload".to_owned(),
            "links are followed at each start",
        ),
        (
            worker.idle_unless.is_some(),
            "idle_unless".to_owned(),
            "the program has to look itself",
        ),
    ];
    for (is_set, what, why) in cases {
        if is_set {
            unit.lacks(&what, why);
        }
    }
}

const NO_PLACEHOLDER: &str = "it is known only when listend starts the process";

impl Texts<'_> {
    /// A command, as a line of a unit.
    fn line(
        &self,
        unit: &mut Unit,
        key: &str,
        argv0: Option<&Template>,
        words: &[&Template],
    ) -> String {
        let mut line = Vec::new();
        let mut has_dollar = false;
        for word in words {
            let (text, lacks) = self.text(word);
            has_dollar |= text.contains('$');
            line.push(quoted(&text));
            for what in lacks {
                unit.lacks(&format!("{what} in {key}"), NO_PLACEHOLDER);
            }
        }
        let mut prefixes = String::new();
        if let Some(argv0) = argv0 {
            let (text, _) = self.text(argv0);
            line.insert(1.min(line.len()), quoted(&text));
            prefixes.push('@');
        }
        // Nothing is expanded in it.
        if has_dollar && !self.worker.expand_environment {
            prefixes.push(':');
        }
        if let Some(first) = line.first_mut() {
            first.insert_str(0, &prefixes);
        }
        let program = words.first().and_then(|word| word.as_literal());
        if program.is_some_and(|path| path.contains('/') && !path.starts_with('/')) {
            unit.remark(&format!(
                "The program of `{key}` needs an absolute path, or a name in PATH."
            ));
        }
        line.join(" ")
    }

    /// A text that nothing is expanded in.
    fn plain(&self, template: &Template) -> (String, Vec<String>) {
        let mut lacks = Vec::new();
        let text = template.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            piece => self.piece(piece, &mut lacks),
        });
        (text.collect(), lacks)
    }

    /// A text of a command, where `$` has a meaning.
    fn text(&self, template: &Template) -> (String, Vec<String>) {
        let mut lacks = Vec::new();
        let expands = self.worker.expand_environment;
        let text = template.pieces.iter().map(|piece| match piece {
            Piece::Text(text) if expands => text.replace('$', "$$"),
            Piece::Text(text) => text.clone(),
            Piece::Variable(name) if expands => format!("${{{name}}}"),
            Piece::Words(name) if expands => format!("${name}"),
            piece => self.piece(piece, &mut lacks),
        });
        (text.collect(), lacks)
    }

    /// A placeholder: what is the same at each start is written.
    fn piece(&self, piece: &Piece, lacks: &mut Vec<String>) -> String {
        let known = match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Fd(socket) => self.number(socket).map(|number| number.to_string()),
            Piece::Address(socket) => self.inet(socket).map(|address| address.to_string()),
            Piece::Host(socket) => self.inet(socket).map(|address| address.ip().to_string()),
            Piece::Port(socket) => self.inet(socket).map(|address| address.port().to_string()),
            Piece::Fds(list) => {
                let numbers = self.numbers(list.listener.as_deref());
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                Some(numbers.join(&list.separator))
            }
            Piece::RuntimeDir => {
                let folder = self.worker.runtime_directory.as_ref();
                folder.map(|one| format!("/run/{}", one.value.display()))
            }
            Piece::Instance
            | Piece::Generation
            | Piece::Listend
            | Piece::SupervisorPid
            | Piece::ServerPort
            | Piece::Variable(_)
            | Piece::Words(_) => None,
        };
        known.unwrap_or_else(|| {
            let name = match piece {
                Piece::Fd(one) => format!("{{fd:{}}}", one.listener),
                Piece::Address(one) => format!("{{address:{}}}", one.listener),
                Piece::Host(one) => format!("{{host:{}}}", one.listener),
                Piece::Port(one) => format!("{{port:{}}}", one.listener),
                Piece::Instance => "{instance}".to_owned(),
                Piece::Generation => "{generation}".to_owned(),
                Piece::Listend => "{listend}".to_owned(),
                Piece::SupervisorPid => "{supervisor_pid}".to_owned(),
                Piece::RuntimeDir => "{runtime_dir}".to_owned(),
                Piece::ServerPort => "{port}".to_owned(),
                Piece::Variable(name) | Piece::Words(name) => format!("${name}"),
                Piece::Fds(_) => "{fds}".to_owned(),
                Piece::Text(text) => text.clone(),
            };
            lacks.push(name.clone());
            name
        })
    }

    fn sockets(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.listeners.iter().flat_map(|one| {
            let addresses = one.addresses.iter();
            let endpoints = addresses.flat_map(|address| &address.value.endpoints);
            endpoints.map(|endpoint| (one.name.value.as_str(), endpoint))
        })
    }

    /// The descriptors of a listener, or of all.
    fn numbers(&self, listener: Option<&str>) -> Vec<usize> {
        let first = match self.worker.handoff.value.to_string().as_str() {
            "inetd" => 0,
            _ => 3,
        };
        let all = self.sockets().enumerate();
        let wanted = all.filter(|(_, (name, _))| listener.is_none_or(|one| one == *name));
        wanted.map(|(index, _)| first + index).collect()
    }

    fn number(&self, socket: &SocketRef) -> Option<usize> {
        let index = usize::try_from(socket.index.unwrap_or(0)).ok()?;
        self.numbers(Some(&socket.listener)).get(index).copied()
    }

    fn inet(&self, socket: &SocketRef) -> Option<SocketAddr> {
        let index = usize::try_from(socket.index.unwrap_or(0)).ok()?;
        let mut sockets = self.sockets().filter(|(name, _)| *name == socket.listener);
        match sockets.nth(index)?.1 {
            Endpoint::Inet { address, .. } if address.port() != 0 => Some(*address),
            _ => None,
        }
    }
}
