//! The schema in an editor: yaml-language-server, asked over its standard streams as an editor does.

use crate::harness::{cache, require_tool, skip, tool};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Where scripts/test-setup puts it.
fn server() -> Option<PathBuf> {
    require_tool("node")?;
    let installed = cache().join("servers/npm/node_modules/.bin/yaml-language-server");
    let found = Some(installed).filter(|path| path.exists());
    let found = found.or_else(|| tool("yaml-language-server"));
    if found.is_none() {
        skip("yaml-language-server is not installed; see scripts/test-setup");
    }
    found
}

/// What the server answers to each request: name, text with `|` for the cursor, and what is asked.
fn answers(requests: &[(&str, String, &str)]) -> Option<HashMap<String, Vec<String>>> {
    let python = require_tool("python3")?;
    let server = server()?;
    let mut lines = String::new();
    for request in requests {
        writeln!(lines, "{}", json!(request)).expect("a string");
    }
    Some(super::found_by((&python, "lsp.py"), &[&server], &lines))
}

fn worker(keys: &str) -> String {
    format!("workers:\n  app:\n    command: [x]\n    {keys}\n")
}

#[test]
fn an_editor_completes_describes_and_checks() {
    // Completed with: label, and what is inserted.
    let completed = [
        ("a file", "|\n".to_owned(), "workers", "workers:\n  "),
        ("defaults", "|\n".to_owned(), "defaults", "defaults:\n  "),
        (
            "a worker",
            worker("|"),
            "stop_timeout",
            "stop_timeout: ${1:30s}",
        ),
        ("a number", worker("|"), "nice", "nice: "),
        ("a mapping", worker("|"), "rollout", "rollout:\n  "),
        ("a word", worker("activation: |"), "on-demand", "on-demand"),
        (
            "a short form",
            worker("restart: |"),
            "on-failure",
            "on-failure",
        ),
        ("a preset", worker("sandbox: |"), "strict", "strict"),
        (
            "below",
            worker("sandbox:\n      |"),
            "private_tmp",
            "private_tmp: ${1:false}",
        ),
        ("a duration", worker("stop_timeout: |"), "30s", "30s"),
        (
            "a listener",
            "listeners:\n  web:\n    |\n".to_owned(),
            "mode",
            "mode: ${1:\"0600\"}",
        ),
    ];
    let described = [
        ("key", worker("stop_ti|meout: 5s"), "`infinity` is no limit"),
        (
            "top",
            "list|eners:\n  web: ':80'\n".to_owned(),
            "the sockets to bind",
        ),
        (
            "inner",
            worker("rollout: { ord|er: stop-first }"),
            "`stop-first` for programs",
        ),
        (
            "named",
            "workers:\n  a|pp:\n    command: [x]\n".to_owned(),
            "a program, and",
        ),
    ];
    let wrong = [
        (
            "unknown",
            worker("comand: [x]"),
            "Property comand is not allowed.",
        ),
        (
            "foreign",
            worker("replicas: 3"),
            "did you mean `instances`?",
        ),
        (
            "elsewhere",
            "listeners:\n  web: { address: ':1', max_connections: 3 }\n".to_owned(),
            "it is a key of a worker",
        ),
        (
            "below it",
            worker("cool_down: 3s"),
            "write it inside `restart:`",
        ),
        (
            "inside",
            worker("sandbox: { private_tmpp: true }"),
            "Property private_tmpp is not allowed.",
        ),
        (
            "listener key",
            "listeners:\n  web: { adress: ':80' }\n".to_owned(),
            "Property adress is not allowed.",
        ),
        (
            "word",
            worker("activation: lazy"),
            "Valid values: \"eager\"",
        ),
        (
            "no preset",
            worker("sandbox: strikt"),
            "Valid values: \"basic\"",
        ),
        (
            "no unit",
            worker("stop_timeout: 5"),
            "a duration with its unit",
        ),
        (
            "no number",
            worker("instances: many"),
            "a number from 1 to 10000",
        ),
        ("no flag", worker("nonblocking: maybe"), "`true` or `false`"),
        (
            "no signal",
            worker("stop_signal: SIGFOO"),
            "the name of a signal",
        ),
        (
            "nothing to run",
            "workers:\n  app: { listeners: [web] }\n".to_owned(),
            "Missing property \"command\".",
        ),
    ];
    let right =
        worker("stop_timeout: 0\n    sandbox: { preset: strict }\n    restart: { policy: never }");
    let mut requests = vec![("right", right, "errors")];
    requests.extend(
        completed
            .iter()
            .map(|(name, text, ..)| (*name, text.clone(), "complete")),
    );
    requests.extend(
        described
            .iter()
            .map(|(name, text, _)| (*name, text.clone(), "hover")),
    );
    requests.extend(
        wrong
            .iter()
            .map(|(name, text, _)| (*name, text.clone(), "errors")),
    );
    let Some(answers) = answers(&requests) else {
        return;
    };
    assert_eq!(answers["right"], Vec::<String>::new());
    for (name, _, label, insert) in &completed {
        let items: Vec<Value> = answers[*name]
            .iter()
            .map(|one| serde_json::from_str(one).expect("JSON"))
            .collect();
        let item = items.iter().find(|item| item[0] == *label);
        let item = item.unwrap_or_else(|| panic!("{name}: no {label} in {items:?}"));
        assert_eq!(item[1], *insert, "{name}");
        // Of a key that is not ours there is a hint, and no offer.
        assert!(!items.iter().any(|item| item[0] == "replicas"), "{name}");
    }
    for (name, _, words) in described.iter().chain(&wrong) {
        let found = answers[*name].join("\n");
        assert!(
            found.contains(words),
            "{name}: `{words}` is not in `{found}`"
        );
    }
}
