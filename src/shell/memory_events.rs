//! Whether the kernel kills for want of memory where the workers run.
//!
//! A process cannot see who sent its child a SIGKILL. The memory cgroup counts the processes of it that
//! the kernel has killed, for whichever limit (Documentation/admin-guide/cgroup-v2.rst, memory.events).

use std::fs;
use std::path::PathBuf;

/// What the memory cgroup of listend, in which its workers are started, has counted.
#[derive(Debug, Default)]
pub(super) struct MemoryEvents {
    /// `None` where there is no such file: without cgroup v2, and in the root cgroup.
    file: Option<PathBuf>,
    killed: u64,
}

impl MemoryEvents {
    pub(super) fn new() -> MemoryEvents {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let file = group.map(|group| {
            let root = PathBuf::from("/sys/fs/cgroup");
            root.join(group).join("memory.events")
        });
        let mut events = MemoryEvents { file, killed: 0 };
        events.has_killed();
        events
    }

    /// Whether the kernel has killed since this was asked last.
    pub(super) fn has_killed(&mut self) -> bool {
        let file = self.file.as_ref();
        let text = file.and_then(|file| fs::read_to_string(file).ok());
        let Some(killed) = text.as_deref().and_then(killed) else {
            return false;
        };
        killed > std::mem::replace(&mut self.killed, killed)
    }
}

fn killed(events: &str) -> Option<u64> {
    let mut lines = events.lines();
    lines
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_killed_since_the_last_look_counts_once() {
        let file = std::env::temp_dir().join(format!("listend-memory-{}", std::process::id()));
        let write = |count: u64| {
            let text = format!("low 0\nhigh 0\nmax 9\noom 4\noom_kill {count}\noom_group_kill 0\n");
            fs::write(&file, text).unwrap();
        };
        let mut events = MemoryEvents {
            file: Some(file.clone()),
            killed: 0,
        };
        write(2);
        assert!(events.has_killed());
        assert!(!events.has_killed());
        write(3);
        assert!(events.has_killed());
        fs::remove_file(&file).unwrap();
        assert!(!events.has_killed());
    }
}
