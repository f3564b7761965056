//! Files of `environment_file:`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::config::{SourceFile, read};
use listend::host::Facts;
use listend::plan::resolve;
use std::path::PathBuf;

const YAML: &str = "workers: {a: {command: [/bin/cat], environment_file: /e}}\n";

fuzz_target!(|text: &str| {
    let file = SourceFile {
        name: "fuzz".to_owned(),
        bytes: YAML.as_bytes().to_vec(),
        folder: PathBuf::from("/"),
    };
    let mut loaded = read(vec![file]);
    assert!(loaded.report.is_ok(), "{:?}", loaded.report);
    let mut facts = Facts::default();
    facts
        .environment_files
        .insert(PathBuf::from("/e"), Ok(text.to_owned()));
    let (_, report) = resolve(loaded.config, &facts, &mut loaded.sources);
    for problem in report.errors.iter().chain(&report.advice) {
        assert!(!problem.message.is_empty());
    }
});
