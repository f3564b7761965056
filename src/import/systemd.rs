//! Units of systemd: .socket and .service (systemd.service(5), systemd.exec(5)).

use super::document::{Document, Entry, Value, literal, with_variables};
use super::sandbox::sandbox;
use super::systemd_keys::{Meaning, meaning};
use super::systemd_socket::{Socket, is_served_by, socket};
use super::unit::{
    UNKNOWN, Unit, assignments, has_specifier, is_true, last, notes_of_unit, specifiers, stem,
    unresolved,
};
use super::values::{octal, span, unit_commands, unit_words};

const NO_TIME: &str = "its time is not understood";

/// The units as a configuration: a listener for each socket unit, a worker for each service.
pub(super) fn import(units: &[Unit]) -> Document {
    let mut document = Document::default();
    let mut sockets = Vec::new();
    for unit in units.iter().filter(|unit| unit.name.ends_with(".socket")) {
        sockets.push(socket(unit, &mut document));
    }
    for unit in units.iter().filter(|unit| unit.name.ends_with(".service")) {
        service(unit, &sockets, &mut document);
    }
    let is_known = |name: &str| name.ends_with(".socket") || name.ends_with(".service");
    for unit in units.iter().filter(|unit| !is_known(&unit.name)) {
        document.note(&unit.name, "only sockets and services are translated");
    }
    for socket in &sockets {
        let has_service = units.iter().any(|unit| is_served_by(socket, &unit.name));
        if !has_service {
            let name = socket.service_name();
            document.note(&socket.unit, &format!("its service, {name}, was not given"));
        }
    }
    document
}

/// The names of the socket units of a service.
pub(super) fn sockets_of(unit: &Unit, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let keys = assignments(unit, "Service");
    let mut names = unit_words(last(&keys, "Sockets").unwrap_or_default());
    let stem = stem(&unit.name);
    let own = format!("{stem}.socket");
    // A template has a socket unit that is one as well, or one that accepts.
    names.push(match is_there(&own) {
        true => own,
        false => format!("{}.socket", stem.trim_end_matches('@')),
    });
    names
}

/// The assignments, one for each command.
fn separated(keys: Vec<(String, String)>) -> Vec<(String, String)> {
    let separated = keys
        .into_iter()
        .flat_map(|(key, value)| match key.starts_with("Exec") {
            true => unit_commands(&value)
                .into_iter()
                .map(|command| (key.clone(), command))
                .collect(),
            false => vec![(key, value)],
        });
    separated.collect()
}

fn service(unit: &Unit, sockets: &[Socket], document: &mut Document) {
    let keys = separated(assignments(unit, "Service"));
    let mut worker = Entry::new(stem(&unit.name).trim_end_matches('@'));
    notes_of_unit(unit, &mut worker);
    let mine: Vec<&Socket> = sockets
        .iter()
        .filter(|socket| {
            let named = last(&keys, "Sockets").unwrap_or_default();
            is_served_by(socket, &unit.name) || unit_words(named).contains(&socket.unit)
        })
        .collect();
    for name in unit_words(last(&keys, "Sockets").unwrap_or_default()) {
        if !mine.iter().any(|socket| socket.unit == name) {
            worker.note(&format!("Sockets={name}"), "this unit was not given");
        }
    }
    let is_accept = mine.iter().any(|socket| socket.accept);
    let is_template = unit.name.contains("@.");
    commands(&keys, unit, &mut worker);
    let listeners: Vec<String> = mine
        .iter()
        .flat_map(|socket| socket.listeners.clone())
        .collect();
    if !listeners.is_empty() {
        worker.set("listeners", listeners);
        worker.set(
            "activation",
            match (is_accept, starts_at_boot(unit)) {
                (true, _) => "per-connection",
                (false, true) => "eager",
                (false, false) => "on-demand",
            },
        );
    }
    for (key, value) in mine.iter().flat_map(|socket| &socket.keys) {
        worker.set(key, value.clone());
    }
    if is_template && !is_accept {
        worker.remark("A template: {instance} counts instances here, it is not the name of one.");
    }
    // The defaults of systemd: every process is told to stop, and has longer than with listend.
    worker.set("kill_mode", "group");
    worker.set("stop_timeout", "90s");
    for (key, value) in &keys {
        apply(key, value, unit, &mut worker, is_accept);
    }
    if worker.get("environment").is_some() && worker.get("environment_file").is_some() {
        worker.remark(
            "Variables of `environment` win over those of `environment_file`; in systemd it is the other way round.",
        );
    }
    if worker.get("supplementary_groups").is_some() {
        worker.remark(
            "`supplementary_groups` are all that it has; systemd adds them to the user's own.",
        );
    }
    reload(&keys, unit, &mut worker);
    let on_demand = !mine.is_empty() && !starts_at_boot(unit);
    restart(&keys, unit, &mut worker, on_demand);
    output(&keys, unit, &mut worker);
    sandbox(&keys, unit, &mut worker);
    unresolved(&mut worker);
    document.workers.push(worker);
}

/// Whether the service is started without a client, where it is enabled.
fn starts_at_boot(unit: &Unit) -> bool {
    let install = assignments(unit, "Install");
    let mut targets = install.iter().filter(|(key, _)| key == "WantedBy");
    targets.any(|(_, value)| {
        let targets = ["multi-user.target", "default.target", "graphical.target"];
        unit_words(value)
            .iter()
            .any(|one| targets.contains(&one.as_str()))
    })
}

/// Sets what an assignment means.
fn apply(key: &str, value: &str, unit: &Unit, worker: &mut Entry, is_accept: bool) {
    let written = format!("{key}={value}");
    let plain = specifiers(value, unit);
    match meaning(key) {
        Meaning::Elsewhere => {}
        Meaning::Same(name) => worker.set(name, plain),
        Meaning::Flag(name) => worker.set(name, is_true(value).to_string()),
        Meaning::Mode(name) => worker.set(name, octal(value)),
        Meaning::Words(name) => worker.add(name, Value::List(unit_words(&plain))),
        Meaning::Span(name) => match span(value) {
            Some(span) => worker.set(name, timeout(span)),
            None => worker.note(&written, NO_TIME),
        },
        Meaning::Limit(name) => {
            let parts = value.split(':').map(|part| match span(part) {
                // In seconds.
                Some(time) if name == "cpu" => time.trim_end_matches('s').to_owned(),
                _ => part.to_owned(),
            });
            let value = parts.collect::<Vec<String>>().join(":");
            let value = value.replace("infinity", "unlimited");
            worker.add("limits", Value::Map(vec![(name.to_owned(), value)]));
        }
        Meaning::No(why) => worker.note(&written, why),
        Meaning::Special => special(key, value, unit, worker, is_accept),
    }
}

/// A timeout, which 0 turns off.
fn timeout(span: String) -> String {
    match span.as_str() {
        "0" => "infinity".to_owned(),
        _ => span,
    }
}

fn special(key: &str, value: &str, unit: &Unit, worker: &mut Entry, is_accept: bool) {
    let written = format!("{key}={value}");
    let plain = &specifiers(value, unit);
    match key {
        "Type" => match value {
            "notify" | "notify-reload" => worker.set("ready", "notify"),
            "forking" => worker.note(&written, "the program has to stay in the foreground"),
            "oneshot" => worker.note(&written, "listend supervises what goes on running"),
            "dbus" => worker.note(&written, "listend does not wait for a name on D-Bus"),
            _ => {}
        },
        "NotifyAccess" => match value {
            "main" | "all" => worker.set("notify_access", value),
            "exec" => worker.set("notify_access", "main"),
            _ => worker.note(&written, "it is told to listend in any case"),
        },
        "TimeoutSec" => {
            let Some(span) = span(value).map(timeout) else {
                return worker.note(&written, NO_TIME);
            };
            worker.set("start_timeout", span.as_str());
            worker.set("stop_timeout", span);
        }
        "WatchdogSec" => match span(value).as_deref() {
            None => worker.note(&written, NO_TIME),
            Some("0" | "infinity") => {}
            Some(span) => worker.set("watchdog", span),
        },
        "RuntimeMaxSec" if is_accept => match span(value).map(timeout) {
            Some(most) => worker.set("connection_timeout", most),
            None => worker.note(&written, NO_TIME),
        },
        "RuntimeMaxSec" => worker.note(&written, "a worker runs until it ends or is stopped"),
        "KillMode" => match value {
            "control-group" => worker.set("kill_mode", "group"),
            "process" => worker.note(&written, "what the main process leaves is ended, too"),
            "none" => worker.note(&written, "a worker is always stopped"),
            _ => worker.set("kill_mode", "process"),
        },
        "SendSIGHUP" if is_true(value) => worker.note(&written, "only `stop_signal` is sent"),
        "SendSIGKILL" if !is_true(value) => {
            worker.note(&written, "SIGKILL follows at `stop_timeout`")
        }
        "SendSIGHUP" | "SendSIGKILL" => {}
        "StandardInput" => match value {
            "socket" => worker.set("handoff", "inetd"),
            "null" => {}
            _ => worker.note(&written, "standard input is /dev/null, or the socket"),
        },
        "Environment" => {
            for word in unit_words(value) {
                if has_specifier(&word) {
                    worker.note(&format!("Environment={word}"), UNKNOWN);
                    continue;
                }
                match specifiers(&word, unit).split_once('=') {
                    Some((name, text)) => {
                        worker.add(
                            "environment",
                            Value::Map(vec![(name.to_owned(), literal(text))]),
                        );
                    }
                    None => worker.note(&format!("Environment={word}"), "it is no NAME=VALUE"),
                }
            }
        }
        "WorkingDirectory" => {
            let path = plain.trim_start_matches('-');
            if path.starts_with('/') {
                worker.set("working_directory", literal(path));
            } else {
                worker.note(&written, "write the path of the directory");
            }
            if value.starts_with('-') {
                worker.remark(
                    "The working directory has to exist: the `-` before it has no equivalent.",
                );
            }
        }
        "RuntimeDirectory" => {
            let mut folders = unit_words(plain).into_iter();
            if let Some(first) = folders.next() {
                worker.set("runtime_directory", first);
            }
            for more in folders {
                worker.note(
                    &format!("RuntimeDirectory={more}"),
                    "a worker has one at most",
                );
            }
        }
        "RuntimeDirectoryPreserve" => {
            worker.set("runtime_directory_preserve", (value != "no").to_string());
        }
        "SuccessExitStatus" => {
            let known = |word: &String| {
                word.starts_with("SIG") || word.bytes().all(|byte| byte.is_ascii_digit())
            };
            let (known, named): (Vec<String>, Vec<String>) =
                unit_words(value).into_iter().partition(known);
            worker.add("success_exit_status", Value::List(known));
            for name in named {
                worker.note(&format!("{key}={name}"), "write its number");
            }
        }
        "ExecStartPre" | "ExecStartPost" | "ExecStopPost" => {
            let name = match key {
                "ExecStartPre" => "before_start",
                "ExecStartPost" => "after_ready",
                _ => "after_stop",
            };
            let command = command(plain);
            if is_accept {
                worker.note(&written, "a process of a connection has no hooks");
            } else if worker.get(name).is_some() {
                worker.note(&written, "there is one such command; write a script");
            } else {
                if command.ignores_failure {
                    worker.remark(&format!(
                        "A failure of `{name}` is not ignored, as the `-` before it says."
                    ));
                }
                expand(&command, worker);
                worker.set(name, command.words);
            }
        }
        _ => {}
    }
}

/// A signal, where one of the commands sends it; otherwise the only command.
fn reload(keys: &[(String, String)], unit: &Unit, worker: &mut Entry) {
    let lines = keys.iter().filter(|(key, _)| key == "ExecReload");
    let mut commands: Vec<(&String, Command)> = lines
        .map(|(_, line)| (line, command(&specifiers(line, unit))))
        .collect();
    if let Some(at) = commands
        .iter()
        .position(|(_, command)| signal(command).is_some())
    {
        let (_, command) = commands.remove(at);
        let name = signal(&command).unwrap_or_default();
        worker.set(
            "reload_signal",
            format!("SIG{}", name.trim_start_matches("SIG")),
        );
    } else if !commands.is_empty() {
        let (_, command) = commands.remove(0);
        expand(&command, worker);
        worker.set("reload_command", command.words);
    }
    for (line, _) in commands {
        worker.note(
            &format!("ExecReload={line}"),
            "there is one such command; write a script",
        );
    }
}

/// The signal that the command sends to the main process.
fn signal(command: &Command) -> Option<&str> {
    let mut words = command.words.iter().map(String::as_str);
    let is_kill = words.next()?.rsplit('/').next() == Some("kill");
    let rest: Vec<&str> = words.collect();
    match rest.as_slice() {
        [signal, "$MAINPID"] if is_kill => signal.strip_prefix('-'),
        ["-s", signal, "$MAINPID"] if is_kill => Some(signal),
        _ => None,
    }
}

/// A command of a unit.
struct Command {
    words: Vec<String>,
    argv0: Option<String>,
    ignores_failure: bool,
    expands: bool,
    /// Prefixes without an equivalent.
    prefixes: String,
}

fn command(line: &str) -> Command {
    let program = line.trim_start_matches(|letter| "@-:+!|".contains(letter));
    let prefixes = &line[..line.len() - program.len()];
    let mut words = unit_words(program);
    let argv0 = (prefixes.contains('@') && words.len() > 1).then(|| words.remove(1));
    let expands = !prefixes.contains(':') && words.iter().any(|word| word.contains('$'));
    let escape = if expands { with_variables } else { literal };
    Command {
        words: words.iter().map(|word| escape(word)).collect(),
        argv0,
        ignores_failure: prefixes.contains('-'),
        expands,
        prefixes: prefixes.replace(['@', '-', ':'], ""),
    }
}

/// `$NAME` is expanded in every command of a worker, or in none.
fn expand(command: &Command, worker: &mut Entry) {
    if command.expands {
        worker.set("expand_environment", "true");
    }
}

fn commands(keys: &[(String, String)], unit: &Unit, worker: &mut Entry) {
    let mut starts = keys.iter().filter(|(key, _)| key == "ExecStart");
    let Some((_, line)) = starts.next() else {
        worker.note("ExecStart=", "it is missing");
        return;
    };
    let command = command(&specifiers(line, unit));
    if command.expands {
        worker.set("expand_environment", "true");
    }
    if !command.prefixes.is_empty() {
        worker.note(
            &format!("{} before the command", command.prefixes),
            "the worker runs as its `user`",
        );
    }
    if command.ignores_failure && last(keys, "Restart") == Some("on-failure") {
        worker.note("- before the command", "its failures are failures");
    }
    worker.set("command", command.words);
    if let Some(argv0) = command.argv0 {
        worker.set("argv0", literal(&argv0));
    }
    for (_, more) in starts {
        worker.note(&format!("ExecStart={more}"), "a worker is one program");
    }
}

fn restart(keys: &[(String, String)], unit: &Unit, worker: &mut Entry, on_demand: bool) {
    let policy = last(keys, "Restart").unwrap_or("no");
    let listend = match policy {
        // Clients start it again.
        "no" if on_demand => None,
        "no" => Some("never"),
        "always" => Some("always"),
        "on-failure" => Some("on-failure"),
        other => {
            worker.note(&format!("Restart={other}"), "the nearest policy is used");
            Some(if other == "on-success" {
                "always"
            } else {
                "on-failure"
            })
        }
    };
    let mut mapping = Vec::new();
    if let Some(listend) = listend {
        mapping.push(("policy".to_owned(), listend.to_owned()));
    }
    let delay = last(keys, "RestartSec");
    if let Some(written) = delay
        && span(written).is_none_or(|delay| delay == "0")
    {
        let why = "`backoff` begins with 100ms, and is at least 1ms";
        worker.note(&format!("RestartSec={written}"), why);
    } else if let Some(delay) = delay.and_then(span) {
        let most = last(keys, "RestartMaxDelaySec").and_then(span);
        let delays = match most.filter(|most| most != "infinity") {
            Some(most) => format!("{delay}..{most}"),
            None => delay,
        };
        mapping.push(("backoff".to_owned(), delays));
    }
    let of_unit = assignments(unit, "Unit");
    let find = |names: &[&str]| {
        let mut all = names.iter();
        all.find_map(|name| last(&of_unit, name).or(last(keys, name)))
    };
    let burst = find(&["StartLimitBurst"]);
    let interval = find(&["StartLimitIntervalSec", "StartLimitInterval"]);
    if burst.is_some() || interval.is_some() {
        let interval = interval.and_then(span).unwrap_or("10s".to_owned());
        let limit = match burst.unwrap_or("5") {
            _ if interval == "0" => "none".to_owned(),
            burst => format!("{burst} in {interval}"),
        };
        mapping.push(("limit".to_owned(), limit));
    }
    if let Some(Value::List(statuses)) = worker.get("success_exit_status").cloned() {
        worker.remove("success_exit_status");
        if !statuses.is_empty() {
            mapping.push((
                "success_exit_status".to_owned(),
                format!("[ {} ]", statuses.join(", ")),
            ));
        }
    }
    let is_per_connection = worker.get("activation") == Some(&"per-connection".into());
    match mapping.as_slice() {
        [] => {}
        _ if is_per_connection => {
            if policy != "no" {
                worker.note(
                    &format!("Restart={policy}"),
                    "each connection is served once",
                );
            }
        }
        [(key, policy)] if key == "policy" => worker.set("restart", policy.as_str()),
        _ => worker.set("restart", Value::Map(mapping)),
    }
}

fn output(keys: &[(String, String)], unit: &Unit, worker: &mut Entry) {
    let written = |key: &str| match last(keys, key) {
        // What is older than the journal goes there.
        Some("syslog") => Some("journal"),
        Some("inherit") | None => None,
        other => other,
    };
    let is_socket = last(keys, "StandardInput") == Some("socket");
    let out = written("StandardOutput").unwrap_or(if is_socket { "socket" } else { "journal" });
    let error = written("StandardError").unwrap_or(if is_socket { "journal" } else { out });
    let path = |value: &str| {
        let mut prefixes = ["file:", "append:", "truncate:"].iter();
        let path = prefixes.find_map(|prefix| value.strip_prefix(prefix));
        path.map(|path| format!("file:{}", literal(&specifiers(path, unit))))
    };
    // A connection is standard output as well, and what can be lost gives way.
    let one = if is_socket || out == "null" {
        error
    } else {
        out
    };
    let is_one =
        |value: &str| value == one || path(one).is_some_and(|file| path(value) == Some(file));
    let is_known = match (one, path(one)) {
        (_, Some(file)) => {
            worker.set("output", file);
            true
        }
        ("null", _) => {
            worker.set("output", "null");
            true
        }
        (other, _) => matches!(other, "journal" | "socket"),
    };
    let is_done = |value: &str| is_one(value) && is_known;
    for (key, value, is_done) in [
        (
            "StandardOutput",
            out,
            is_done(out) && !is_socket || out == "socket",
        ),
        ("StandardError", error, is_done(error)),
    ] {
        if !is_done && last(keys, key).is_some() {
            worker.note(
                &format!("{key}={value}"),
                "both outputs go where `output` says",
            );
        }
    }
}
