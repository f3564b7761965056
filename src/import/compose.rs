//! A file of docker compose: what is about ports, commands, users, the environment and restarts.

use super::document::{Document, Entry, Value, literal};
use super::values::words;
use serde_json::{Map, Value as Json};

pub(super) fn import(tree: &Json) -> Document {
    let mut document = Document::default();
    let tree = &merged(tree);
    for (name, service) in tree["services"].as_object().into_iter().flatten() {
        add(name, service, &mut document);
    }
    let others = tree.as_object().into_iter().flatten();
    // What `x-` begins is nothing but a place for anchors, which are resolved.
    let is_known =
        |key: &str| matches!(key, "services" | "version" | "name") || key.starts_with("x-");
    for (key, _) in others.filter(|(key, _)| !is_known(key)) {
        document.note(
            key,
            "listend runs programs of this machine, without containers",
        );
    }
    document
}

/// Without `<<`: with the pairs of what it names, unless they are written.
fn merged(value: &Json) -> Json {
    let Json::Object(pairs) = value else {
        return match value {
            Json::Array(items) => items.iter().map(merged).collect(),
            scalar => scalar.clone(),
        };
    };
    let mut all = Map::new();
    for (key, value) in pairs {
        if key != "<<" {
            all.insert(key.clone(), merged(value));
            continue;
        }
        let others = match value {
            Json::Array(others) => others.as_slice(),
            one => std::slice::from_ref(one),
        };
        for (key, value) in others.iter().filter_map(Json::as_object).flatten() {
            if !all.contains_key(key) {
                all.insert(key.clone(), merged(value));
            }
        }
    }
    Json::Object(all)
}

fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// Texts of a list, or the only one.
fn texts(value: &Json) -> Vec<String> {
    match value {
        Json::Array(items) => items.iter().map(text).collect(),
        Json::Null => Vec::new(),
        one => vec![text(one)],
    }
}

const UNKNOWN: &str = "the file's own variables are not known";

/// Whether it refers to variables. A dollar sign is written twice.
fn has_variables(text: &str) -> bool {
    text.replace("$$", "").contains('$')
}

/// With one dollar sign for two, and `${NAME:-DEFAULT}` as its default.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        let default = behind
            .strip_prefix('{')
            .and_then(|inside| inside.split_once('}'))
            .and_then(|(inside, after)| Some((inside.split_once('-')?, after)));
        match default {
            _ if behind.starts_with('$') => {
                out.push('$');
                rest = &behind[1..];
            }
            Some(((name, default), after))
                if !default.contains('$') && is_name(name.trim_end_matches(':')) =>
            {
                out.push_str(default);
                rest = after;
            }
            _ => {
                out.push('$');
                rest = behind;
            }
        }
    }
    out + rest
}

fn is_name(text: &str) -> bool {
    text.chars()
        .all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// A command: a list, or text that is split as a shell would.
fn command(value: &Json) -> Vec<String> {
    match value {
        Json::String(line) => words(line),
        other => texts(other),
    }
}

fn add(name: &str, service: &Json, document: &mut Document) {
    let mut worker = Entry::new(name);
    let mut listeners = Vec::new();
    for port in service["ports"].as_array().into_iter().flatten() {
        if has_variables(&text(port)) {
            worker.note(&format!("ports: {}", text(port)), UNKNOWN);
        }
        match address(port) {
            Some((address, target)) => {
                if address.rsplit(':').next() != Some(&target) {
                    worker.note(
                        &format!("port {target} of the container"),
                        &format!("the program takes {address} in its place"),
                    );
                }
                let number = listeners.len() + 1;
                let own = if number == 1 {
                    name.to_owned()
                } else {
                    format!("{name}-{number}")
                };
                let mut listener = Entry::new(&own);
                listener.set("address", address);
                listeners.push(listener.name.clone());
                document.listeners.push(listener);
            }
            None => worker.note(
                &format!("ports: {}", text(port)),
                "it has no port of the host",
            ),
        }
    }
    let mut line = command(&service["entrypoint"]);
    line.extend(command(&service["command"]));
    if line.is_empty() {
        worker.remark("The command is in the image: write the program of this machine.");
        line.push(format!("/path/to/{name}"));
    }
    for word in line.iter().filter(|word| has_variables(word)) {
        worker.note(word, UNKNOWN);
    }
    worker.set(
        "command",
        line.iter()
            .map(|word| literal(&plain(word)))
            .collect::<Vec<String>>(),
    );
    if !listeners.is_empty() {
        worker.remark(
            "The program has to take its listeners: see `preset`, `handoff` and `forward`.",
        );
        worker.set("listeners", listeners);
    }
    for (key, value) in service.as_object().into_iter().flatten() {
        setting(key, value, &mut worker);
    }
    restart(service, &mut worker);
    resources(service, &mut worker);
    document.workers.push(worker);
}

/// The address at the host, and the port in the container: `[HOST:]PUBLISHED:TARGET[/PROTOCOL]`, or a mapping.
fn address(port: &Json) -> Option<(String, String)> {
    let (host, published, target, protocol) = if port.is_object() {
        (
            plain(&text(&port["host_ip"])),
            plain(&text(&port["published"])),
            plain(&text(&port["target"])),
            plain(&text(&port["protocol"])),
        )
    } else {
        let text = plain(&text(port));
        let (text, protocol) = text.rsplit_once('/').unwrap_or((&text, ""));
        let (rest, target) = text.rsplit_once(':')?;
        let (host, published) = rest.rsplit_once(':').unwrap_or(("", rest));
        let protocol = protocol.to_owned();
        (
            host.to_owned(),
            published.to_owned(),
            target.to_owned(),
            protocol,
        )
    };
    if published.is_empty() {
        return None;
    }
    let scheme = match protocol.as_str() {
        "" | "tcp" => "",
        "udp" => "udp://",
        "sctp" => "sctp://",
        _ => return None,
    };
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host
    };
    Some((format!("{scheme}{host}:{published}"), target))
}

fn setting(key: &str, value: &Json, worker: &mut Entry) {
    let written = text(value);
    match key {
        "ports" | "command" | "entrypoint" | "restart" => {}
        "mem_limit" | "cpus" | "pids_limit" => {}
        "environment" => {
            let pairs: Vec<(String, String)> = match value {
                // Without a value it is the one that listend has.
                Json::Object(map) => map
                    .iter()
                    .filter(|(_, value)| !value.is_null())
                    .map(|(name, value)| (name.clone(), text(value)))
                    .collect(),
                other => texts(other)
                    .iter()
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
            };
            for (name, value) in pairs {
                if has_variables(&value) {
                    worker.note(&format!("{name}={value}"), UNKNOWN);
                }
                let value = literal(&plain(&value));
                worker.add("environment", Value::Map(vec![(name, value)]));
            }
        }
        "env_file" => {
            let files = match value {
                Json::Array(files) => files.as_slice(),
                one => std::slice::from_ref(one),
            };
            for file in files {
                let dash = match text(&file["required"]).as_str() {
                    "false" => "-",
                    _ => "",
                };
                let path = if file.is_object() {
                    &file["path"]
                } else {
                    file
                };
                let path = format!("{dash}{}", text(path));
                worker.add("environment_file", Value::List(vec![path]));
            }
        }
        "user" => match written.split_once(':') {
            Some((user, group)) => {
                worker.set("user", user);
                worker.set("group", group);
            }
            None => worker.set("user", written),
        },
        // It is the first of its PIDs, which SIGPIPE does not end (pid_namespaces(7)), unless it is behind an init.
        "init" if written == "false" => {}
        "init" => worker.set("ignore_sigpipe", "false"),
        "working_dir" => worker.set("working_directory", literal(&written)),
        "stop_signal" => worker.set("stop_signal", written),
        "stop_grace_period" => worker.set("stop_timeout", written),
        "scale" => worker.set("instances", written),
        "deploy" => deploy(value, worker),
        "oom_score_adj" => worker.set("oom_score_adjust", written),
        "group_add" => worker.set("supplementary_groups", texts(value)),
        "ulimits" => {
            for (name, limit) in value.as_object().into_iter().flatten() {
                let limit = match limit {
                    Json::Object(both) => {
                        let one = |key: &str| both.get(key).map(text).unwrap_or_default();
                        format!("{}:{}", one("soft"), one("hard"))
                    }
                    one => text(one),
                };
                let pair = (name.clone(), limit.replace("-1", "unlimited"));
                worker.add("limits", Value::Map(vec![pair]));
            }
        }
        "image" | "build" | "container_name" => {
            worker.note(
                &format!("{key}: {written}"),
                "listend runs a program of this machine",
            );
        }
        "expose" => worker.note(
            &format!("{key}: {written}"),
            "there is no network of containers",
        ),
        "depends_on" => worker.note(
            &format!("{key}: {written}"),
            "listend does not order its workers: their listeners are there before them",
        ),
        "healthcheck" => worker.note(key, "see `ready` and `watchdog`"),
        _ => worker.note(
            &format!("{key}: {written}"),
            "listend runs programs without containers",
        ),
    }
}

fn deploy(deploy: &Json, worker: &mut Entry) {
    for (key, value) in deploy.as_object().into_iter().flatten() {
        match key.as_str() {
            "replicas" => worker.set("instances", text(value)),
            "restart_policy" => {}
            "resources" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if key != "limits" {
                        lost(&format!("deploy.resources.{key}"), value, worker);
                    }
                }
            }
            key => lost(&format!("deploy.{key}"), value, worker),
        }
    }
}

fn lost(key: &str, value: &Json, worker: &mut Entry) {
    worker.note(
        &format!("{key}: {}", text(value)),
        "listend runs programs without containers",
    );
}

/// How often docker restarts a container counts for as long as it is there.
const FOR_GOOD: &str = "365d";

/// `restart`, which `deploy.restart_policy` replaces.
fn restart(service: &Json, worker: &mut Entry) {
    let policy = &service["deploy"]["restart_policy"];
    let short = text(&service["restart"]);
    let (name, most) = match (policy.is_object(), short.split_once(':')) {
        (true, _) => (text(&policy["condition"]), text(&policy["max_attempts"])),
        (false, Some((name, most))) => (name.to_owned(), most.to_owned()),
        (false, None) if short.is_empty() => ("no".to_owned(), String::new()),
        (false, None) => (short, String::new()),
    };
    let name = match name.as_str() {
        "no" | "none" | "false" => "never",
        "on-failure" => "on-failure",
        _ => "always",
    };
    let mut mapping = vec![("policy".to_owned(), name.to_owned())];
    let mut add = |key: &str, value: String| mapping.push((key.to_owned(), value));
    let delay = text(&policy["delay"]);
    if !delay.is_empty() && delay != "0s" {
        add("backoff", delay);
    }
    if !most.is_empty() && most != "0" {
        let window = match text(&policy["window"]) {
            window if window.is_empty() => FOR_GOOD.to_owned(),
            window => window,
        };
        add("limit", format!("{most} in {window}"));
        add("cool_down", "never".to_owned());
    }
    match mapping.as_slice() {
        [_] => worker.set("restart", name),
        _ => worker.set("restart", Value::Map(mapping)),
    }
}

/// The limits of resources, those of `deploy` in place of the older keys.
fn resources(service: &Json, worker: &mut Entry) {
    let limits = &service["deploy"]["resources"]["limits"];
    let mut sandbox = Vec::new();
    for (key, new, old) in [
        ("memory_max", "memory", "mem_limit"),
        ("cpu_quota", "cpus", "cpus"),
        ("tasks_max", "pids", "pids_limit"),
    ] {
        let (name, value) = match text(&limits[new]) {
            value if value.is_empty() => (old.to_owned(), text(&service[old])),
            value => (format!("deploy.resources.limits.{new}"), value),
        };
        let unlimited = ["", "0", "-1"].contains(&value.as_str());
        let translated = match key {
            _ if unlimited => continue,
            "memory_max" => Some(memory(&value)),
            "cpu_quota" => value
                .parse::<f64>()
                .ok()
                .map(|cpus| format!("{:.0}%", cpus * 100.0)),
            _ => Some(value.clone()),
        };
        match translated {
            Some(translated) => sandbox.push((key.to_owned(), translated.into())),
            None => worker.note(&format!("{name}: {value}"), "it is no number"),
        }
    }
    if !sandbox.is_empty() {
        worker.set("sandbox", Value::Block(sandbox));
    }
}

/// A size: docker has small letters, a `b` behind them, and fractions.
fn memory(value: &str) -> String {
    let size = value.to_ascii_uppercase();
    let size = size.trim_end_matches('B');
    let Some(unit) = size.contains('.').then(|| size.chars().last()).flatten() else {
        return size.to_owned();
    };
    let smaller = match unit {
        'T' => "G",
        'G' => "M",
        'M' => "K",
        'K' => "",
        _ => return size.to_owned(),
    };
    match size.trim_end_matches(unit).parse::<f64>() {
        Ok(number) => format!("{:.0}{smaller}", number * 1024.0),
        Err(_) => size.to_owned(),
    }
}
