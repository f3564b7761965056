//! /proc/PID/mountinfo and /proc/PID/cgroup, in which a container has its say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::cgroup::{Tree, name, without_own};

fuzz_target!(|input: (&[u8], &[u8], &str, u32, i32)| {
    let (mounts, groups, worker, index, pid) = input;
    if let Ok(tree) = Tree::find(mounts, groups) {
        assert!(tree.base.starts_with(&tree.mount) || tree.mount.starts_with(&tree.base));
    }
    let less = without_own(groups);
    assert!(less.len() <= groups.len());
    // Names of workers are ASCII without slashes and not empty, and the numbers of processes begin with 1.
    let worker: String = worker.chars().filter(char::is_ascii_alphanumeric).collect();
    if worker.is_empty() {
        return;
    }
    let pid = (pid & i32::MAX).max(1);
    let own = name(&worker, index, pid);
    assert!(own.len() <= 255, "{own}: {pid}");
    assert_eq!(without_own(format!("0::/a/{own}").as_bytes()), b"0::/a");
    assert_eq!(without_own(format!("0::/{own}").as_bytes()), b"0::/");
});
