//! `listend schema` against the reader of the configuration, judged by a validator of its own.

use super::reading;
use crate::harness::{skip, tool};
use listend::config::{SourceFile, keys, read};
use listend::report::Kind;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the validator finds in each document, or `None` where there is no validator.
fn errors_in(documents: &[(String, Value)]) -> Option<HashMap<String, Vec<String>>> {
    let python = tool("python3")?;
    let imports = |python: &Path| {
        let run = Command::new(python)
            .args(["-c", "import jsonschema"])
            .output();
        run.is_ok_and(|run| run.status.success())
    };
    let candidates = [PathBuf::from("/usr/bin/python3"), python];
    let Some(python) = candidates.iter().find(|python| imports(python)) else {
        skip("python3-jsonschema is not installed; see scripts/test-setup");
        return None;
    };
    let mut lines = String::new();
    for (name, document) in documents {
        writeln!(lines, "{name}\t{document}").expect("a string");
    }
    Some(super::found_by((python, "validate.py"), &[], &lines))
}

fn parsed(yaml: &str) -> Value {
    let value: serde_yaml::Value = serde_yaml::from_str(yaml).expect("YAML");
    serde_json::to_value(value).expect("keys are strings")
}

/// The kinds of the errors that the reader finds.
fn kinds(document: &Value) -> Vec<Kind> {
    let file = SourceFile {
        name: "listend.yaml".to_owned(),
        // JSON is YAML.
        bytes: document.to_string().into_bytes(),
        folder: PathBuf::from("/"),
    };
    let errors = read(vec![file]).report.errors;
    errors.iter().map(|problem| problem.kind).collect()
}

/// The entries of a file, each as a document of its own.
fn entries(name: &str, document: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for table in ["listeners", "workers"] {
        for (entry, value) in document[table].as_object().into_iter().flatten() {
            let mut only = Map::new();
            only.insert(entry.clone(), value.clone());
            found.push((format!("{name}: {table} {entry}"), json!({ table: only })));
        }
    }
    found
}

#[test]
fn what_check_accepts_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![
        ("empty".to_owned(), Value::Null),
        (
            "nulls".to_owned(),
            parsed("{listeners: , workers: , silence: }"),
        ),
        (
            "design".to_owned(),
            parsed(include_str!("../../golden/design.yaml")),
        ),
    ];
    for folder in ["examples", "examples/workers"] {
        for entry in root.join(folder).read_dir().expect("it is there").flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|end| end == "yaml") {
                let text = std::fs::read_to_string(&path).expect("an example");
                documents.push((path.display().to_string(), parsed(&text)));
            }
        }
    }
    // Scalars as text, and words with a meaning in other places.
    let forms = r#"
listeners:
  u: {address: "unix:/run/u", mode: "0660"}
  a: {address: [":1", ":2"], backlog: "5", keep_alive: "true", receive_buffer: 65536}
workers:
  w:
    command: [1, true, 1.5]
    user: 33
    nice: "-3"
    stop_timeout: 0
    stop_signal: 15
    output: null
    environment: {A: 1, B: true, C: }
    limits: {nofile: 5, core: "0:unlimited", as: 1G}
    restart: {policy: on-failure, success_exit_status: [75, SIGUSR1, RTMIN+3]}
    before_start: {command: x, timeout: 1m30s}
    rollout: {min_ready: 0}
    handoff: [systemd, server-starter]
  f: {listeners: [a], forward: {to: "127.0.0.1:1", keep_alive: 5s, idle: infinity}}
  g: {listeners: [a], forward: "unix:/run/x"}
"#;
    assert!(
        reading::load(forms).report.errors.is_empty(),
        "{}",
        reading::shown(&reading::load(forms))
    );
    documents.push(("forms".to_owned(), parsed(forms)));
    for (name, errors) in errors_in(&documents).into_iter().flatten() {
        assert_eq!(errors, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn what_a_schema_can_know_to_be_wrong_is_not_valid() {
    let mut documents = Vec::new();
    let files = [
        ("mistakes", include_str!("../../golden/mistakes.yaml")),
        ("lifecycle", include_str!("../../golden/lifecycle.yaml")),
        ("activation", include_str!("../../golden/activation.yaml")),
    ];
    for (name, text) in files {
        // The validator's own YAML knows no key twice.
        let Ok(value) = serde_yaml::from_str::<serde_yaml::Value>(text) else {
            continue;
        };
        let Ok(document) = serde_json::to_value(value) else {
            continue;
        };
        documents.extend(entries(name, &document));
    }
    // An unknown key in each mapping, and a list where each key takes none.
    let worker = |key: &str, value: Value| {
        let mut worker = json!({"command": "x"});
        worker[key] = value;
        json!({"workers": {"w": worker}})
    };
    for (key, table) in [
        ("restart", keys::RESTART),
        ("rollout", keys::ROLLOUT),
        ("sandbox", keys::SANDBOX),
        ("after_stop", keys::HOOK),
    ] {
        let unknown = worker(key, json!({"command": "x", "unknown": 1}));
        documents.push((format!("{key}.unknown"), unknown));
        for below in table.iter().filter(|below| below.name != "command") {
            let mapping = json!({"command": "x", below.name: {"a": 1}});
            documents.push((format!("{key}.{}", below.name), worker(key, mapping)));
        }
    }
    for key in keys::WORKER {
        documents.push((key.name.to_owned(), worker(key.name, json!([[["a"]]]))));
    }
    for key in keys::LISTENER {
        let mut listener = json!({"address": ":80"});
        listener[key.name] = json!([[["a"]]]);
        documents.push((
            format!("listener.{}", key.name),
            json!({"listeners": {"l": listener}}),
        ));
    }
    documents.push(("top".to_owned(), json!({"listner": {}})));
    let Some(mut found) = errors_in(&documents) else {
        return;
    };
    let mut known = 0;
    for (name, document) in &documents {
        let errors = found.remove(name).expect("each is judged");
        let structural = kinds(document).iter().any(|kind| {
            matches!(
                kind,
                Kind::UnknownKey | Kind::WrongType | Kind::MissingKey | Kind::UnknownSignal
            )
        });
        if structural {
            known += 1;
            assert_ne!(errors, Vec::<String>::new(), "{name}: {document}");
        }
    }
    assert!(known > 100, "only {known} have such an error");
}
