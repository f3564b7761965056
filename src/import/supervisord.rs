//! supervisord.conf.

use super::document::{Document, Entry, Value, literal};
use super::ini::{self, Section};
use super::values::{octal, seconds_text, words};

pub(super) fn import(text: &str) -> Document {
    let mut document = Document::default();
    for section in ini::python(text) {
        let (kind, name) = section.name.split_once(':').unwrap_or((&section.name, ""));
        match kind {
            "program" => {
                let mut worker = Entry::new(name);
                program(name, &section, &mut worker);
                document.workers.push(worker);
            }
            "fcgi-program" => {
                let mut worker = Entry::new(name);
                let listener = socket(name, &section, &mut worker);
                program(name, &section, &mut worker);
                worker.set("listeners", vec![listener.name.clone()]);
                // The listener is standard input.
                worker.set("handoff", "fd0");
                document.listeners.push(listener);
                document.workers.push(worker);
            }
            "supervisord" | "unix_http_server" | "inet_http_server" | "supervisorctl" => {
                document.note(
                    &format!("[{}]", section.name),
                    "a setting of supervisord itself",
                );
            }
            "rpcinterface" => {}
            "include" => {
                let files = section.get("files").unwrap_or_default();
                document.note(
                    &format!("files = {files}"),
                    "give these files to `listend import`, too",
                );
            }
            "group" => document.note(
                &format!("[{}]", section.name),
                "listend has no groups of workers",
            ),
            _ => document.note(&format!("[{}]", section.name), "it has no equivalent"),
        }
    }
    document
}

fn socket(name: &str, section: &Section, worker: &mut Entry) -> Entry {
    let mut listener = Entry::new(name);
    let socket = section.get("socket").unwrap_or_default();
    let socket = expanded(socket, name, worker)
        .replace("{{", "{")
        .replace("}}", "}");
    let address = match (
        socket.strip_prefix("unix://"),
        socket.strip_prefix("tcp://"),
    ) {
        (Some(path), _) => format!("unix:{path}"),
        (None, Some(address)) => address.to_owned(),
        (None, None) => socket.clone(),
    };
    listener.set("address", address);
    for (key, value) in &section.keys {
        match key.as_str() {
            "socket_mode" => listener.set("mode", octal(value)),
            "socket_backlog" => listener.set("backlog", value.as_str()),
            "socket_owner" => match value.split_once(':') {
                Some((user, group)) => {
                    listener.set("owner", user);
                    listener.set("group", group);
                }
                None => listener.set("owner", value.as_str()),
            },
            _ => {}
        }
    }
    if socket.starts_with("unix:") && section.get("socket_mode").is_none() {
        listener.set("mode", "0700");
    }
    listener
}

/// Replaces `%(program_name)s` and the like.
fn expanded(text: &str, name: &str, worker: &mut Entry) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&literal(&rest[..at]));
        let tail = &rest[at..];
        if let Some(behind) = tail.strip_prefix("%%") {
            out.push('%');
            rest = behind;
            continue;
        }
        let inside = tail
            .strip_prefix("%(")
            .and_then(|tail| tail.split_once(')'));
        let Some((variable, behind)) = inside else {
            out.push('%');
            rest = &tail[1..];
            continue;
        };
        // `s`, `d` or `02d`.
        let format = behind.find(|letter: char| letter.is_ascii_alphabetic());
        let behind = format.map_or("", |end| &behind[end + 1..]);
        match variable {
            "program_name" | "group_name" => out.push_str(&literal(name)),
            "process_num" => out.push_str("{instance}"),
            variable => match variable.strip_prefix("ENV_") {
                Some(variable) => {
                    worker.set("expand_environment", "true");
                    out.push_str(&format!("${{{variable}}}"));
                }
                None => {
                    worker.note(&format!("%({variable})s"), "it has no placeholder");
                    out.push_str(variable);
                }
            },
        }
        rest = behind;
    }
    out.push_str(&literal(rest));
    out
}

/// `A="b",C='d'`.
fn pairs(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while let Some((name, tail)) = rest.split_once('=') {
        let (value, behind) = match tail.chars().next() {
            Some(quote @ ('"' | '\'')) => tail[1..].split_once(quote).unwrap_or((&tail[1..], "")),
            _ => tail
                .split_once(',')
                .map_or((tail, ""), |(value, rest)| (value, rest)),
        };
        found.push((name.trim().to_owned(), value.trim().to_owned()));
        rest = behind.trim_start_matches([',', ' ', '\t']);
    }
    found
}

fn program(name: &str, section: &Section, worker: &mut Entry) {
    let line = section.get("command").unwrap_or_default();
    let command = words(line);
    let command: Vec<String> = command
        .iter()
        .map(|word| expanded(word, name, worker))
        .collect();
    worker.set("command", command);
    if section.get("autorestart").is_none() {
        worker.set("restart", "on-failure");
    }
    for (key, value) in &section.keys {
        setting(key, value, name, worker);
    }
    if worker.get("restart") == Some(&"on-failure".into())
        && let Some(codes) = section.get("exitcodes").filter(|codes| *codes != "0")
    {
        let codes: Vec<&str> = codes.split(',').map(str::trim).collect();
        let mapping = [
            ("policy", "on-failure".to_owned()),
            ("success_exit_status", format!("[ {} ]", codes.join(", "))),
        ];
        worker.set(
            "restart",
            Value::Map(mapping.map(|(key, value)| (key.to_owned(), value)).to_vec()),
        );
    }
}

fn setting(key: &str, value: &str, name: &str, worker: &mut Entry) {
    let written = format!("{key}={value}");
    let is_true = value.eq_ignore_ascii_case("true");
    match key {
        "command" | "process_name" | "socket" | "socket_mode" | "socket_owner"
        | "socket_backlog" | "exitcodes" | "redirect_stderr" | "numprocs_start" => {}
        "numprocs" => worker.set("instances", value),
        "directory" => {
            let path = expanded(value, name, worker);
            worker.set("working_directory", path);
        }
        "umask" => worker.set("umask", octal(value)),
        "user" => worker.set("user", value),
        "autorestart" => match value.to_ascii_lowercase().as_str() {
            "true" => worker.set("restart", "always"),
            "false" => worker.set("restart", "never"),
            _ => worker.set("restart", "on-failure"),
        },
        "stopsignal" => worker.set(
            "stop_signal",
            format!("SIG{}", value.trim_start_matches("SIG")),
        ),
        "stopwaitsecs" => match value.parse() {
            Ok(seconds) => worker.set("stop_timeout", seconds_text(seconds)),
            Err(_) => worker.note(&written, "it is no number of seconds"),
        },
        "stopasgroup" if is_true => worker.set("kill_mode", "group"),
        "stopasgroup" | "killasgroup" => {}
        "environment" => {
            for (variable, text) in pairs(value) {
                let text = expanded(&text, name, worker);
                worker.add("environment", Value::Map(vec![(variable, text)]));
            }
        }
        "stdout_logfile" if value.starts_with('/') => {
            let path = expanded(value, name, worker);
            worker.set("output", format!("file:{path}"));
        }
        "stdout_logfile" if value == "NONE" => worker.set("output", "null"),
        "stderr_logfile" | "stdout_logfile" if matches!(value, "NONE" | "AUTO" | "/dev/stderr") => {
        }
        "stderr_logfile" => worker.note(&written, "both outputs go where `output` says"),
        "autostart" if is_true => {}
        "autostart" => worker.note(&written, "take it out of the configuration"),
        "priority" => worker.note(&written, "workers start together"),
        "startsecs" | "startretries" => {
            worker.note(&written, "see `limit` and `backoff` of `restart`");
        }
        key if key.contains("_maxbytes") || key.contains("_backups") => {
            worker.note(&written, "use logrotate with `listend signal --reopen`");
        }
        _ => worker.note(&written, "there is no such setting of a worker"),
    }
}
