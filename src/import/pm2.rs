//! ecosystem.config.json of pm2.

use super::document::{Document, Entry, Value, forwarded, literal};
use super::values::words;
use serde_json::Value as Json;

pub(super) fn import(tree: &Json) -> Document {
    let mut document = Document::default();
    let apps = match (&tree["apps"], tree) {
        (Json::Array(apps), _) | (_, Json::Array(apps)) => apps.as_slice(),
        (Json::Object(_), _) => std::slice::from_ref(&tree["apps"]),
        _ => std::slice::from_ref(tree),
    };
    for app in apps {
        add(app, &mut document);
    }
    let others = tree.as_object().into_iter().flatten();
    for (key, _) in others.filter(|(key, _)| !tree["apps"].is_null() && *key != "apps") {
        let why = match key.as_str() {
            "deploy" => "listend does not deploy",
            _ => "it is not known here",
        };
        document.note(key, why);
    }
    document
}

fn text(value: &Json) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn texts(value: &Json) -> Vec<String> {
    match value {
        Json::Array(items) => items.iter().map(text).collect(),
        Json::String(line) => words(line),
        Json::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

fn add(app: &Json, document: &mut Document) {
    let script = app["script"].as_str().unwrap_or_default();
    let base = script.rsplit('/').next().unwrap_or_default();
    let name = app["name"]
        .as_str()
        .unwrap_or(base.split('.').next().unwrap_or_default());
    let mut worker = Entry::new(name);
    let mut command = Vec::new();
    let interpreter = match (
        app["interpreter"]
            .as_str()
            .or(app["exec_interpreter"].as_str()),
        base.rsplit_once('.'),
    ) {
        (Some("none"), _) => None,
        (Some(interpreter), _) => Some(interpreter),
        (None, Some((_, "js" | "cjs" | "mjs" | "ts"))) => Some("node"),
        (None, Some((_, "py"))) => Some("python3"),
        (None, Some((_, "rb"))) => Some("ruby"),
        (None, Some((_, "php"))) => Some("php"),
        (None, Some((_, "pl"))) => Some("perl"),
        (None, Some((_, "sh"))) => Some("bash"),
        (None, _) => None,
    };
    if let Some(interpreter) = interpreter {
        command.push(interpreter.to_owned());
        for key in ["node_args", "interpreter_args"] {
            command.extend(texts(&app[key]));
        }
    }
    command.push(script.to_owned());
    command.extend(texts(&app["args"]));
    worker.set(
        "command",
        command
            .iter()
            .map(|word| literal(word))
            .collect::<Vec<String>>(),
    );
    // pm2 gives it its default action.
    worker.set("ignore_sigpipe", "false");
    // The defaults of pm2, which tells all that descend from the process.
    worker.set("stop_signal", "SIGINT");
    if app["treekill"] != false {
        worker.set("kill_mode", "group");
    }
    for (key, value) in app.as_object().into_iter().flatten() {
        setting(key, value, &mut worker);
    }
    for key in ["log_file", "log"] {
        let Some(file) = app[key].as_str() else {
            continue;
        };
        if worker.get("output").is_some() {
            worker.note(&format!("{key}: {file}"), "`output` is one file");
        } else {
            worker.set("output", format!("file:{}", literal(file)));
        }
    }
    if let Some(port) = app["env"].get("PORT").map(text) {
        let mut listener = Entry::new(name);
        listener.set("address", format!(":{port}"));
        forwarded(&mut worker, &listener);
        document.listeners.push(listener);
    }
    document.workers.push(worker);
}

fn setting(key: &str, value: &Json, worker: &mut Entry) {
    let written = format!("{key}: {}", text(value));
    match key {
        "name" | "script" | "args" | "node_args" | "interpreter" | "interpreter_args"
        | "exec_interpreter" => {}
        "instances" => match value
            .as_i64()
            .or_else(|| value.as_str().and_then(|text| text.parse().ok()))
        {
            Some(count) if count > 0 => worker.set("instances", count.to_string()),
            _ => worker.note(&written, "write the number of instances"),
        },
        "exec_mode" => {
            if value
                .as_str()
                .is_some_and(|mode| mode.starts_with("cluster"))
            {
                worker.note(&written, "give the instances a listener that they share");
            }
        }
        "cwd" => worker.set("working_directory", literal(&text(value))),
        "env" => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let pair = (name.clone(), literal(&text(value)));
                worker.add("environment", Value::Map(vec![pair]));
            }
        }
        "uid" | "user" => worker.set("user", text(value)),
        "gid" => worker.set("group", text(value)),
        "autorestart" if value == false => worker.set("restart", "never"),
        "autorestart" => {}
        "kill_timeout" => match value.as_u64() {
            Some(millis) => worker.set("stop_timeout", format!("{millis}ms")),
            None => worker.note(&written, "it is no number of milliseconds"),
        },
        "listen_timeout" => match value.as_u64() {
            Some(millis) => worker.set("start_timeout", format!("{millis}ms")),
            None => worker.note(&written, "it is no number of milliseconds"),
        },
        "restart_delay" if worker.get("restart") == Some(&"never".into()) => {}
        "restart_delay" => {
            if let Some(millis) = value.as_u64().filter(|millis| *millis > 0) {
                let backoff = ("backoff".to_owned(), format!("{millis}ms"));
                worker.add("restart", Value::Map(vec![backoff]));
            }
        }
        "wait_ready" if value == true => {
            worker.note(&written, "see `ready: accepting` and `ready: notify`");
        }
        "treekill" | "log_file" | "log" => {}
        "out_file" | "output" => {
            worker.set("output", format!("file:{}", literal(&text(value))));
        }
        "error_file" | "error" | "err_file" | "merge_logs" | "combine_logs" => {
            worker.note(&written, "both outputs go where `output` says");
        }
        "max_memory_restart" => worker.note(&written, "see `limits`"),
        "watch" if value == false => {}
        "watch" | "ignore_watch" => worker.note(&written, "see `watch`, a list of paths"),
        "max_restarts" | "min_uptime" | "exp_backoff_restart_delay" => {
            worker.note(&written, "see `limit` and `backoff` of `restart`");
        }
        "wait_ready" => {}
        key if key.starts_with("env_") => worker.note(key, "write another file for it"),
        _ => worker.note(&written, "there is no such setting of a worker"),
    }
}
