//! A file of docker compose: what is about ports, commands, users, the environment and restarts.

use super::document::{Document, Entry, Value, literal};
use super::values::words;
use serde_json::Value as Json;

pub(super) fn import(tree: &Json) -> Document {
    let mut document = Document::default();
    for (name, service) in tree["services"].as_object().into_iter().flatten() {
        add(name, service, &mut document);
    }
    let others = tree.as_object().into_iter().flatten();
    for (key, _) in
        others.filter(|(key, _)| !matches!(key.as_str(), "services" | "version" | "name"))
    {
        document.note(
            key,
            "listend runs programs of this machine, without containers",
        );
    }
    document
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

fn plain(text: &str) -> String {
    text.replace("$$", "$")
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
        match address(port) {
            Some(address) => {
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
    document.workers.push(worker);
}

/// The address at the host: `[HOST:]PUBLISHED:TARGET[/PROTOCOL]`, or a mapping.
fn address(port: &Json) -> Option<String> {
    let (host, published, protocol) = if port.is_object() {
        (
            text(&port["host_ip"]),
            text(&port["published"]),
            text(&port["protocol"]),
        )
    } else {
        let text = text(port);
        let (text, protocol) = text.rsplit_once('/').unwrap_or((&text, ""));
        let (rest, _target) = text.rsplit_once(':')?;
        let (host, published) = rest.rsplit_once(':').unwrap_or(("", rest));
        (host.to_owned(), published.to_owned(), protocol.to_owned())
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
    Some(format!("{scheme}{host}:{published}"))
}

fn setting(key: &str, value: &Json, worker: &mut Entry) {
    let written = text(value);
    match key {
        "ports" | "command" | "entrypoint" => {}
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
        "env_file" => worker.set("environment_file", texts(value)),
        "user" => match written.split_once(':') {
            Some((user, group)) => {
                worker.set("user", user);
                worker.set("group", group);
            }
            None => worker.set("user", written),
        },
        "working_dir" => worker.set("working_directory", literal(&written)),
        "stop_signal" => worker.set("stop_signal", written),
        "stop_grace_period" => worker.set("stop_timeout", written),
        "scale" => worker.set("instances", written),
        "deploy" if !value["replicas"].is_null() => {
            worker.set("instances", text(&value["replicas"]))
        }
        "restart" => match written.split(':').next().unwrap_or_default() {
            "no" | "false" => worker.set("restart", "never"),
            "on-failure" => worker.set("restart", "on-failure"),
            _ => worker.set("restart", "always"),
        },
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
