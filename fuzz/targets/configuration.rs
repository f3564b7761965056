//! YAML → configuration → plan: no text is too odd, and a plan survives the way to the daemon.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use listend::config::{SourceFile, read};
use listend::host::Facts;
use listend::plan::{Plan, PlanTransfer, fingerprint::Known, resolve};
use listend::report::Report;
use std::path::PathBuf;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    // A second file is a drop-in.
    let files = bytes
        .split(|byte| *byte == 0)
        .take(3)
        .map(|bytes| SourceFile {
            name: "fuzz".to_owned(),
            bytes: bytes.to_vec(),
            folder: PathBuf::from("/"),
        });
    let mut loaded = read(files.collect());
    let told = |report: &Report| {
        for problem in report.errors.iter().chain(&report.advice) {
            assert!(!problem.message.is_empty());
        }
    };
    told(&loaded.report);
    if !loaded.report.is_ok() {
        return Corpus::Keep;
    }
    let facts = Facts {
        somaxconn: 4096,
        ..Facts::default()
    };
    let (plan, report) = resolve(loaded.config, &facts, &mut loaded.sources);
    told(&report);
    if report.is_ok() {
        let before = serde_json::to_string(&plan).expect("a plan is JSON");
        // Of a daemon that runs nothing, and of one that runs the same.
        for running in [Plan::default(), plan.clone()] {
            let known = Known::heard(&Known::told(&running));
            let packed = PlanTransfer::pack(plan.clone(), &known);
            let packed = serde_json::to_vec(&packed).expect("JSON");
            let packed: PlanTransfer = serde_json::from_slice(&packed).expect("what was packed");
            let (after, _) = packed.unpack(&running).expect("what is known");
            let after = serde_json::to_string(&after).expect("a plan is JSON");
            assert_eq!(before, after);
        }
    }
    Corpus::Keep
});
