//! Whole snapshots, with the facts of the shell: a binary says whether it could go on from one.

use crate::harness::listend_path;
use listend::store::Journal;
use std::fs;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

const FORMAT_1: &str = include_str!("format-1-whole.jsonl");

/// What `upgrade --preflight` says of a snapshot with these lines, and its exit status.
fn preflight(lines: &str) -> (Option<i32>, String) {
    let mut journal = Journal::create().expect("a journal");
    journal.write_base(lines.lines()).expect("a base");
    let output = Command::new(listend_path())
        .args(["upgrade", "--preflight"])
        .stdin(Stdio::from(OwnedFd::from(journal)))
        .output()
        .expect("listend");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    (output.status.code(), said)
}

/// As if it had been written since this machine was started.
fn of_this_boot(lines: &str) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot");
    lines.replace("BOOT", boot.trim())
}

#[test]
fn a_whole_snapshot_of_format_1_is_read() {
    let (code, said) = preflight(&of_this_boot(FORMAT_1));
    assert_eq!(code, Some(0), "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["written_by"], "0.9.0");
    assert_eq!(
        (&said["sockets"], &said["processes"]),
        (&3.into(), &2.into())
    );
    // Nothing depends on what has been.
    for (was, is) in [
        (r#""text":"hello""#, r#""text":7"#),
        (r#""kind":"event","key":0,"#, r#""kind":"event","#),
        (r#""starts":2"#, r#""starts":"two""#),
    ] {
        assert!(FORMAT_1.contains(was), "{was}");
        let (code, said) = preflight(&of_this_boot(&FORMAT_1.replace(was, is)));
        assert_eq!(code, Some(0), "{is}: {said}");
    }
}

#[test]
fn a_whole_snapshot_that_cannot_be_true_is_refused_with_the_reason() {
    let without = |what: &str| -> String {
        let left = FORMAT_1.lines().filter(|line| !line.contains(what));
        left.map(|line| format!("{line}\n")).collect()
    };
    let with = |was: &str, is: &str| {
        assert!(FORMAT_1.contains(was), "{was}");
        FORMAT_1.replacen(was, is, 1)
    };
    let definition = r#""kind":"definition","key":1,"#;
    for (lines, reason) in [
        (String::new(), "format"),
        (with(r#""format":1"#, r#""format":2"#), "formats up to 1"),
        (with("BOOT", "another"), "another boot"),
        (without(r#""kind":"ids""#), "`ids`"),
        (
            without(r#""kind":"configuration""#),
            "configuration in force",
        ),
        (without(definition), "definition 1 of worker 0"),
        (
            with(r#""session":1169,"#, ""),
            "process 1: missing field `session`",
        ),
        (
            with("instances: 2", "instanzes: 2"),
            "not valid for this version",
        ),
        (
            with(
                r#""revision":1,"name":"bad""#,
                r#""revision":1,"name":"worse""#,
            ),
            "worker `worse`",
        ),
    ] {
        let (code, said) = preflight(&of_this_boot(&lines));
        assert_eq!(code, Some(69), "{reason}: {said}");
        assert!(said.contains(reason), "{reason}: {said}");
    }
}
