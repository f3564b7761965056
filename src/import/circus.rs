//! circus.ini.

use super::document::{Document, Entry, Value, literal};
use super::ini::{self, Section};
use super::values::{span, words};
use std::collections::BTreeSet;

pub(super) fn import(text: &str) -> Document {
    let mut document = Document::default();
    let sections = ini::python(text, &[';'], str::to_owned);
    let mut sockets = Vec::new();
    for section in &sections {
        if let Some(name) = section.name.strip_prefix("socket:") {
            let listener = socket(name, section);
            sockets.push((name.to_ascii_lowercase(), listener.name.clone()));
            document.listeners.push(listener);
        }
    }
    for section in &sections {
        if let Some(name) = section.name.strip_prefix("watcher:") {
            document
                .workers
                .push(watcher(name, section, &sections, &sockets));
        } else if section.name == "circus" {
            for (key, value) in &section.keys {
                document.note(&format!("{key} = {value}"), "a setting of circusd itself");
            }
        } else if section.name.starts_with("plugin:") {
            document.note(&format!("[{}]", section.name), "listend has no plugins");
        } else if section.name.starts_with("env:") {
            let mut watchers = sections
                .iter()
                .filter_map(|other| other.name.strip_prefix("watcher:"));
            if !watchers.any(|name| is_environment_of(section, name)) {
                document.note(&format!("[{}]", section.name), "no watcher has such a name");
            }
        } else if section.name != "env" && !section.name.starts_with("socket:") {
            document.note(&format!("[{}]", section.name), "it is not known here");
        }
    }
    document
}

/// Whether `[env:NAMES]` is about this watcher: names and patterns, with commas.
fn is_environment_of(section: &Section, watcher: &str) -> bool {
    let patterns = section.name.strip_prefix("env:");
    patterns.is_some_and(|patterns| {
        let mut patterns = patterns.split(',').map(str::trim);
        patterns.any(|pattern| matches(pattern.as_bytes(), watcher.as_bytes()))
    })
}

/// Whether a name is like a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => matches(rest, name),
        (Some((b'*', rest)), Some((_, behind))) => matches(rest, name) || matches(pattern, behind),
        (Some((wanted, rest)), Some((letter, behind))) => {
            (*wanted == b'?' || wanted == letter) && matches(rest, behind)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn is_true(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "yes" | "1" | "on"
    )
}

fn socket(name: &str, section: &Section) -> Entry {
    let mut listener = Entry::new(name);
    let is_datagram = section.get("type") == Some("SOCK_DGRAM");
    let host = section.get("host").unwrap_or("127.0.0.1");
    let host = match host {
        "localhost" => "127.0.0.1".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let port = section.get("port").unwrap_or("0");
    let address = match (section.get("path"), is_datagram) {
        (Some(path), false) => format!("unix:{path}"),
        (Some(path), true) => format!("unix-dgram:{path}"),
        (None, false) => format!("{host}:{port}"),
        (None, true) => format!("udp://{host}:{port}"),
    };
    listener.set("address", address);
    for (key, value) in &section.keys {
        match key.as_str() {
            "host" | "port" | "path" | "type" | "family" | "proto" | "replace" => {}
            "backlog" => listener.set("backlog", value.as_str()),
            "interface" => listener.set("bind_to_device", value.as_str()),
            "so_reuseport" if is_true(value) => {
                listener.note("so_reuseport", "the workers share one socket");
            }
            // circusd reads it as a decimal number.
            "umask" => match value.parse::<u32>() {
                Ok(bits) => listener.set("mode", format!("{:04o}", 0o666 & !bits)),
                Err(_) => listener.note(&format!("{key} = {value}"), "it is no decimal number"),
            },
            _ => listener.note(&format!("{key} = {value}"), "there is no such setting"),
        }
    }
    if section.get("path").is_some() && section.get("umask").is_none() {
        // circusd's default is 8, which leaves all that connect(2) asks for; that of listend is 0600.
        listener.set("mode", "0666");
    }
    listener
}

/// Replaces `$(circus.sockets.NAME)` and others; the sockets that are named.
fn expanded(
    text: &str,
    sockets: &[(String, String)],
    worker: &mut Entry,
    named: &mut Vec<String>,
) -> String {
    let mut out = String::new();
    let mut rest = text;
    let starts = [("$(circus.", ")"), ("((circus.", "))")];
    loop {
        let lower = rest.to_ascii_lowercase();
        let found = starts.iter().filter_map(|(start, end)| {
            let at = lower.find(start)?;
            let length = lower[at..].find(end)?;
            Some((at, start.len(), at + length, at + length + end.len()))
        });
        let Some((at, start, end, behind)) = found.min() else {
            break;
        };
        out.push_str(&literal(&rest[..at]));
        let variable = &rest[at + start..end];
        let lower = variable.to_ascii_lowercase();
        let socket = lower.strip_prefix("sockets.").and_then(|name| {
            let mut all = sockets.iter();
            all.find(|(old, _)| old == name)
        });
        match (lower.as_str(), socket) {
            (_, Some((_, name))) => {
                named.push(name.clone());
                out.push_str(&format!("{{fd:{name}}}"));
            }
            ("wid", None) => {
                worker.note(&rest[at..behind], "{instance} counts from 0");
                out.push_str("{instance}");
            }
            _ => {
                worker.note(&rest[at..behind], "it has no placeholder");
                out.push_str(&literal(&rest[at..behind]));
            }
        }
        rest = &rest[behind..];
    }
    out.push_str(&literal(rest));
    out
}

fn watcher(name: &str, section: &Section, all: &[Section], sockets: &[(String, String)]) -> Entry {
    let mut worker = Entry::new(name);
    let mut named = Vec::new();
    let mut line = section.get("cmd").unwrap_or_default().to_owned();
    if let Some(arguments) = section.get("args") {
        line = format!("{line} {arguments}");
    }
    let mut command = Vec::new();
    if section.get("shell").is_some_and(is_true) {
        command.extend(["/bin/sh".to_owned(), "-c".to_owned()]);
        command.push(expanded(&line, sockets, &mut worker, &mut named));
    } else {
        for word in words(&line) {
            command.push(expanded(&word, sockets, &mut worker, &mut named));
        }
    }
    worker.set("command", command);
    // circusd gives it its default action.
    worker.set("ignore_sigpipe", "false");
    if section.get("use_sockets").is_some_and(is_true) {
        if named.is_empty() {
            named = sockets.iter().map(|(_, name)| name.clone()).collect();
        }
        let mut known = BTreeSet::new();
        named.retain(|name| known.insert(name.clone()));
        worker.set("listeners", named);
        // circusd's sockets are.
        worker.set("nonblocking", "true");
        if section.get("on_demand").is_some_and(is_true) {
            worker.set("activation", "on-demand");
        }
    }
    for (key, value) in &section.keys {
        setting(key, value, &mut worker);
    }
    let of_all = all.iter().filter(|other| other.name == "env");
    let environments = all.iter().filter(|other| is_environment_of(other, name));
    let environments = of_all.chain(environments);
    for (variable, value) in environments.flat_map(|section| &section.keys) {
        if value.contains('$') || value.contains("((circus.") {
            let why = "a value of `environment` refers to no other variable";
            worker.note(&format!("{variable} = {value}"), why);
            continue;
        }
        let pair = (variable.clone(), literal(value));
        worker.add("environment", Value::Map(vec![pair]));
    }
    worker
}

fn setting(key: &str, value: &str, worker: &mut Entry) {
    match key {
        "cmd" | "args" | "shell" | "use_sockets" | "on_demand" | "close_child_stdin" => {}
        "copy_env" | "copy_path" if is_true(value) => {}
        "copy_env" | "copy_path" => worker.note(
            &format!("{key} = {value}"),
            "a worker has the environment of listend",
        ),
        "warmup_delay" if value == "0" => {}
        "warmup_delay" => worker.note(&format!("{key} = {value}"), "instances start together"),
        "numprocesses" => worker.set("instances", value),
        "singleton" if is_true(value) => worker.set("instances", "1"),
        "working_dir" => worker.set("working_directory", literal(value)),
        "uid" => worker.set("user", value),
        "gid" => worker.set("group", value),
        "graceful_timeout" => match span(value) {
            Some(span) => worker.set("stop_timeout", span),
            None => worker.note(&format!("{key} = {value}"), "it is no number of seconds"),
        },
        "stop_signal" => worker.set(
            "stop_signal",
            format!("SIG{}", value.trim_start_matches("SIG")),
        ),
        "stop_children" if is_true(value) => worker.set("kill_mode", "group"),
        "respawn" if !is_true(value) => worker.set("restart", "never"),
        "stdout_stream.class" | "stderr_stream.class" if value.ends_with("StdoutStream") => {}
        "stdout_stream.class" if value.ends_with("FileStream") => {}
        "stdout_stream.filename" => worker.set("output", format!("file:{}", literal(value))),
        key if key.starts_with("rlimit_") => {
            let name = key.trim_start_matches("rlimit_").to_owned();
            let value = value.replace("-1", "unlimited");
            worker.add("limits", Value::Map(vec![(name, value)]));
        }
        key if key.starts_with("hooks.") => {
            worker.note(
                &format!("{key} = {value}"),
                "hooks are commands: see `before_start`",
            );
        }
        "singleton" | "stop_children" | "respawn" => {}
        "priority" => worker.note(&format!("{key} = {value}"), "workers start together"),
        "autostart" if is_true(value) => {}
        "autostart" => worker.note(
            &format!("{key} = {value}"),
            "take it out of the configuration",
        ),
        key if key.contains("_stream") => {
            worker.note(
                &format!("{key} = {value}"),
                "both outputs go where `output` says",
            );
        }
        _ => worker.note(
            &format!("{key} = {value}"),
            "there is no such setting of a worker",
        ),
    }
}
