//! supervisord.conf.

use super::document::{Document, Entry, Value, literal};
use super::ini::{self, Section};
use super::values::{octal, seconds_text, words};

pub(super) fn import(text: &str) -> Document {
    let mut document = Document::default();
    let sections = ini::python(text, &[';', '#'], str::to_ascii_lowercase);
    for section in &sections {
        let (kind, name) = section.name.split_once(':').unwrap_or((&section.name, ""));
        match kind {
            "program" => {
                let mut worker = Entry::new(name);
                of_all(&sections, &mut worker);
                program(name, section, &mut worker);
                document.workers.push(worker);
            }
            "fcgi-program" => {
                let mut worker = Entry::new(name);
                of_all(&sections, &mut worker);
                let listener = socket(name, section, &mut worker);
                program(name, section, &mut worker);
                worker.set("listeners", vec![listener.name.clone()]);
                // The listener is standard input.
                worker.set("handoff", "fd0");
                document.listeners.push(listener);
                document.workers.push(worker);
            }
            "supervisord" => {
                for (key, value) in &section.keys {
                    if !["environment", "umask"].contains(&key.as_str()) {
                        document.note(&format!("{key}={value}"), "a setting of supervisord itself");
                    }
                }
            }
            "unix_http_server" | "inet_http_server" | "supervisorctl" => {
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

/// What programs inherit of supervisord.
fn of_all(sections: &[Section], worker: &mut Entry) {
    for section in sections.iter().filter(|one| one.name == "supervisord") {
        for (key, value) in &section.keys {
            if ["environment", "umask"].contains(&key.as_str()) {
                setting(key, value, "supervisord", worker);
            }
        }
    }
}

fn socket(name: &str, section: &Section, worker: &mut Entry) -> Entry {
    let mut listener = Entry::new(name);
    let written = section.get("socket").unwrap_or_default();
    let socket = text_of("socket=", written, name, worker).unwrap_or_default();
    let socket = socket.replace("{{", "{").replace("}}", "}");
    let address = match (
        socket.strip_prefix("unix://"),
        socket.strip_prefix("tcp://"),
    ) {
        (Some(path), _) => format!("unix:{path}"),
        (None, Some(address)) => match address.rsplit_once(':') {
            Some(("localhost", port)) => format!("127.0.0.1:{port}"),
            Some(("", port)) => format!("0.0.0.0:{port}"),
            _ => address.to_owned(),
        },
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
    if socket.starts_with("unix:") {
        if section.get("socket_mode").is_none() {
            listener.set("mode", "0700");
        }
        if let (None, Some(user)) = (section.get("socket_owner"), section.get("user")) {
            listener.set("owner", user);
        }
    }
    listener
}

/// A text in which `%(program_name)s` and the like are replaced. `environment` has what stands for `%(ENV_X)s`, and
/// what has no placeholder stays as it is.
fn expanded(
    text: &str,
    name: &str,
    worker: &mut Entry,
    mut environment: impl FnMut(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    let mut unknown = None;
    while let Some((before, behind)) = rest.split_once('%') {
        out.push_str(&literal(before));
        let inside = behind
            .strip_prefix('(')
            .and_then(|tail| tail.split_once(')'));
        let Some((variable, behind)) = inside else {
            out.push('%');
            rest = behind.strip_prefix('%').unwrap_or(behind);
            continue;
        };
        // `s`, `d` or `02d`.
        let end = behind.find(|letter: char| letter.is_ascii_alphabetic());
        let (format, behind) = behind.split_at(end.map_or(behind.len(), |end| end + 1));
        let written = format!("%({variable}){format}");
        match (
            variable,
            variable.strip_prefix("ENV_").and_then(&mut environment),
        ) {
            (_, Some(value)) => out.push_str(&value),
            ("program_name" | "group_name", _) => out.push_str(&literal(name)),
            ("process_num", _) => {
                if !["d", "s", "i"].contains(&format) {
                    worker.note(&written, "{instance} counts from 0, without zeros in front");
                }
                out.push_str("{instance}");
            }
            _ => {
                out.push_str(&literal(&written));
                unknown = Some(written);
            }
        }
        rest = behind;
    }
    out.push_str(&literal(rest));
    match unknown {
        None => Ok(out),
        Some(_) => Err(out),
    }
}

/// A value that is not of a command: without what is not known, it is another one.
fn text_of(key: &str, text: &str, name: &str, worker: &mut Entry) -> Option<String> {
    let expanded = expanded(text, name, worker, |_| None);
    if expanded.is_err() {
        let why = "there is no placeholder for it; variables are expanded in commands only";
        worker.note(&format!("{key}{text}"), why);
    }
    expanded.ok()
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

/// With a dollar sign before the names of variables that stand between blanks: the value is split into words.
fn marked(line: &str) -> String {
    let words = line.split(' ').map(|word| {
        let name = word.strip_prefix("%(ENV_");
        match name.and_then(|name| name.strip_suffix(")s")) {
            Some(name) => format!("%(ENV_${name})s"),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<String>>().join(" ")
}

fn program(name: &str, section: &Section, worker: &mut Entry) {
    let line = section.get("command").unwrap_or_default();
    let expands = line.contains("%(ENV_");
    if expands {
        worker.set("expand_environment", "true");
    }
    // A dollar sign means nothing to supervisord.
    let line = match expands {
        true => marked(&line.replace('$', "$$")),
        false => line.to_owned(),
    };
    let mut command = Vec::new();
    for word in words(&line) {
        let variable = |variable: &str| match variable.strip_prefix('$') {
            Some(name) if word == format!("%(ENV_${name})s") => Some(format!("${name}")),
            name => Some(format!("${{{}}}", name.unwrap_or(variable))),
        };
        command.push(match expanded(&word, name, worker, variable) {
            Ok(word) => word,
            Err(word) => {
                worker.note(&word, "there is no placeholder for it");
                word
            }
        });
    }
    if command
        .first()
        .is_some_and(|program| program.contains("${"))
    {
        worker.note("a variable in the program", "write its path");
    }
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
        | "socket_backlog" | "exitcodes" | "redirect_stderr" => {}
        "numprocs_start" if value == "0" => {}
        "numprocs_start" => worker.note(&written, "{instance} counts from 0"),
        "numprocs" => worker.set("instances", value),
        "directory" => {
            if let Some(path) = text_of("directory=", value, name, worker) {
                worker.set("working_directory", path);
            }
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
                let key = format!("environment {variable}=");
                if let Some(text) = text_of(&key, &text, name, worker) {
                    worker.add("environment", Value::Map(vec![(variable, text)]));
                }
            }
        }
        // Where listend's own output goes.
        "stdout_logfile" if matches!(value, "/dev/stdout" | "/dev/fd/1") => {}
        "stdout_logfile" if value.starts_with('/') => {
            if let Some(path) = text_of("stdout_logfile=", value, name, worker) {
                worker.set("output", format!("file:{path}"));
            }
        }
        "stdout_logfile" if value == "NONE" => worker.set("output", "null"),
        "stderr_logfile" | "stdout_logfile"
            if matches!(value, "NONE" | "AUTO" | "/dev/stderr" | "/dev/fd/2") => {}
        "stderr_logfile" => worker.note(&written, "both outputs go where `output` says"),
        "autostart" if is_true => {}
        "autostart" => worker.note(&written, "take it out of the configuration"),
        "priority" => worker.note(&written, "workers start together"),
        "startsecs" | "startretries" => {
            worker.note(&written, "see `limit` and `backoff` of `restart`");
        }
        key if key.contains("_maxbytes") && value == "0" => {}
        key if key.contains("_maxbytes") || key.contains("_backups") => {
            worker.note(&written, "use logrotate with `listend signal --reopen`");
        }
        _ => worker.note(&written, "there is no such setting of a worker"),
    }
}
