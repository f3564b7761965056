//! The YAML: what it says, and what is wrong with it.

mod activation;
mod defaults;
mod editor;
mod errors;
mod lifecycle;
mod reading;
mod schema;
mod shards;
mod tables;

use crate::harness::TempDir;
use listend::config;
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a script of `tests/apps` finds, by name: it gets these arguments, the path of the schema, and these lines.
fn found_by(
    (python, script): (&Path, &str),
    arguments: &[&Path],
    lines: &str,
) -> HashMap<String, Vec<String>> {
    let dir = TempDir::new();
    let schema = dir.path().join("listend.schema.json");
    std::fs::write(&schema, config::schema().to_string()).expect("it is ours");
    let input = dir.path().join("lines");
    std::fs::write(&input, lines).expect("it is ours");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps");
    let run = Command::new(python)
        .arg(scripts.join(script))
        .args(arguments)
        .arg(&schema)
        .stdin(std::fs::File::open(&input).expect("just written"))
        .stderr(Stdio::inherit())
        .output()
        .expect("python3 runs");
    assert!(run.status.success());
    let text = String::from_utf8(run.stdout).expect("JSON");
    let found = text.lines().map(|line| {
        let (name, found): (String, Vec<String>) = serde_json::from_str(line).expect("a pair");
        (name, found)
    });
    found.collect()
}
