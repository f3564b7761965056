//! The CPU time and the memory that instances use, as /proc shows it, and the control groups of those that have one.
//!
//! Read by the commands that show it and by `listend web`, never by the daemon: its loop has nothing to wait for
//! there. What an instance has started counts as its own: everything in its session, and the children of
//! that in sessions of their own.

use crate::cgroup::{Figures, Groups};
use crate::control::{Daemon, Status, Usage};
use crate::sys::read_proc_file;
use procfs::FromRead;
use procfs::process::Stat;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// A process, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Process {
    parent: i32,
    session: i32,
    usage: Usage,
}

/// Notes in a status what each of its instances uses. Nothing is noted for one that cannot be seen: it is in
/// another PID namespace, or /proc hides it.
pub fn note(status: &mut Status) {
    if !leaders(status).is_empty() {
        Processes::read().note(status);
    }
}

/// The processes of the instances.
fn leaders(status: &Status) -> HashSet<i32> {
    let instances = status.workers.iter().flat_map(|one| &one.instances);
    let pids = instances.filter_map(|one| i32::try_from(one.pid?).ok());
    pids.collect()
}

/// All processes that /proc shows, which can be read before it is known which of them are instances.
pub struct Processes(HashMap<i32, Process>);

impl Processes {
    /// Those that end meanwhile are left out.
    pub fn read() -> Processes {
        let entries = fs::read_dir("/proc").into_iter().flatten();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let all = pids.filter_map(|pid: i32| Some((pid, process(pid)?)));
        Processes(all.collect())
    }

    /// As [`note()`], with what was read.
    pub fn note(mut self, status: &mut Status) {
        let is_here = status.daemon.as_ref().is_none_or(is_here);
        let leaders = leaders(status);
        if !is_here || leaders.is_empty() {
            return;
        }
        // Some may have been started since.
        for pid in &leaders {
            if !self.0.contains_key(pid) {
                self.0.extend(process(*pid).map(|one| (*pid, one)));
            }
        }
        let sums = sums(&self.0, &leaders);
        let daemon = status.daemon.as_ref();
        let daemon = daemon.and_then(|daemon| i32::try_from(daemon.pid).ok());
        let groups = daemon.and_then(Groups::of_daemon).unwrap_or_default();
        for worker in &mut status.workers {
            for one in &mut worker.instances {
                let pid = one.pid.and_then(|pid| i32::try_from(pid).ok());
                let index = index(&worker.name, &one.name).parse().ok();
                one.usage = pid.and_then(|pid| {
                    let usage = sums.get(&pid).copied()?;
                    let figures = groups.figures(&worker.name, index?, pid);
                    Some(counted(usage, figures.unwrap_or_default()))
                });
            }
        }
    }
}

/// The index of an instance, which is in its name.
fn index<'a>(worker: &str, instance: &'a str) -> &'a str {
    let index = instance.strip_prefix(worker).unwrap_or_default();
    index.strip_prefix('.').unwrap_or("0")
}

/// What the kernel counts for a group is right whatever has ended, and wherever it went.
fn counted(mut usage: Usage, figures: Figures) -> Usage {
    if let Some(cpu) = figures.cpu_milliseconds {
        usage.cpu_milliseconds = cpu;
    }
    if let Some(memory) = figures.memory_bytes {
        usage.memory_bytes = memory;
    }
    usage.memory_peak_bytes = figures.memory_peak_bytes;
    usage.oom_kills = figures.oom_kills;
    usage
}

/// Whether the process ids that a daemon tells are those of this PID namespace: its own is that of a process
/// which was executed from a file of the same name.
pub fn is_here(daemon: &Daemon) -> bool {
    let Ok(name) = fs::read(format!("/proc/{}/comm", daemon.pid)) else {
        return false;
    };
    let name = name.trim_ascii_end();
    let binary = daemon.binary.as_ref().map(|binary| Path::new(&binary.path));
    let wanted = binary.and_then(Path::file_name);
    // The kernel keeps so many bytes of it.
    wanted.is_none_or(|wanted| {
        let wanted = wanted.as_encoded_bytes();
        wanted.get(..15).unwrap_or(wanted) == name
    })
}

fn process(pid: i32) -> Option<Process> {
    // Unlike its other files this one waits for nothing that the process may be stuck in.
    let stat = read_proc_file(pid, "stat").ok()?;
    let stat = Stat::from_read(stat.as_slice()).ok()?;
    // Of children that it has waited for it has the time as well.
    let waited = u64::try_from(stat.cutime.saturating_add(stat.cstime)).unwrap_or(0);
    let ticks = stat.utime + stat.stime + waited;
    Some(Process {
        parent: stat.ppid,
        session: stat.session,
        usage: Usage {
            processes: 1,
            cpu_milliseconds: ticks.saturating_mul(1000) / procfs::ticks_per_second(),
            memory_bytes: stat.rss.saturating_mul(procfs::page_size()),
            ..Usage::default()
        },
    })
}

/// What each of these processes uses, with all that belongs to it. An instance leads its session, unless it has
/// named a child of its own as its main process (`MAINPID=` of sd_notify(3)).
fn sums(all: &HashMap<i32, Process>, leaders: &HashSet<i32>) -> HashMap<i32, Usage> {
    let mut sums: HashMap<i32, Usage> = HashMap::new();
    for (pid, process) in all {
        let mut at = *pid;
        // Processes may have come and gone while they were read: their chain need not end.
        for _ in 0..all.len() {
            let Some(one) = all.get(&at) else { break };
            let mut owner = [at, one.session].into_iter();
            if let Some(owner) = owner.find(|pid| leaders.contains(pid)) {
                sums.entry(owner).or_default().add(process.usage);
                break;
            }
            at = one.parent;
        }
    }
    sums
}

/// A family of metrics: its name, its type, its help, and its value.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Usage) -> Option<String>,
);

/// The metrics of it, for each place of a worker: two generations share one for a while.
const FAMILIES: [Family; 5] = [
    (
        "listend_instance_cpu_seconds",
        "counter",
        "CPU time of the processes of an instance.",
        |usage| Some(seconds(usage.cpu_milliseconds)),
    ),
    (
        "listend_instance_memory_bytes",
        "gauge",
        "Memory of the processes of an instance: of its control group, or resident.",
        |usage| Some(usage.memory_bytes.to_string()),
    ),
    (
        "listend_instance_processes",
        "gauge",
        "Processes of an instance.",
        |usage| Some(usage.processes.to_string()),
    ),
    (
        "listend_instance_memory_peak_bytes",
        "gauge",
        "The most memory that the control group of an instance has had.",
        |usage| usage.memory_peak_bytes.map(|bytes| bytes.to_string()),
    ),
    (
        "listend_instance_oom_kills",
        "counter",
        "Processes of an instance that were killed for want of memory.",
        |usage| usage.oom_kills.map(|kills| kills.to_string()),
    ),
];

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

/// Adds what instances use to the metrics of a daemon, which are OpenMetrics text.
pub fn add_to_metrics(text: &mut String, status: &Status) {
    const END: &str = "# EOF\n";
    let mut places: Vec<(String, Usage)> = Vec::new();
    for worker in &status.workers {
        for (one, usage) in worker
            .instances
            .iter()
            .filter_map(|one| Some((one, one.usage?)))
        {
            let index = index(&worker.name, &one.name);
            let labels = format!("{{worker=\"{}\",index=\"{index}\"}}", escaped(&worker.name));
            match places.iter_mut().find(|(known, _)| *known == labels) {
                Some((_, sum)) => sum.add(usage),
                None => places.push((labels, usage)),
            }
        }
    }
    if places.is_empty() || !text.ends_with(END) {
        return;
    }
    text.truncate(text.len() - END.len());
    for (name, kind, help, value) in FAMILIES {
        let values = places.iter();
        let values = values.filter_map(|(labels, usage)| Some((labels, value(usage)?)));
        let values: Vec<(&String, String)> = values.collect();
        if values.is_empty() {
            continue;
        }
        let suffix = if kind == "counter" { "_total" } else { "" };
        // Writing to a String does not fail.
        let _written = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        if let Some((_, unit @ ("seconds" | "bytes"))) = name.rsplit_once('_') {
            let _written = writeln!(text, "# UNIT {name} {unit}");
        }
        for (labels, value) in values {
            let _written = writeln!(text, "{name}{suffix}{labels} {value}");
        }
    }
    text.push_str(END);
}

fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::process::{Command, Stdio};

    fn process(parent: i32, session: i32, cpu: u64) -> Process {
        Process {
            parent,
            session,
            usage: Usage {
                processes: 1,
                cpu_milliseconds: cpu,
                memory_bytes: 1,
                ..Usage::default()
            },
        }
    }

    #[test]
    fn what_an_instance_has_started_counts_as_its_own() {
        let all = HashMap::from([
            (1, process(0, 1, 1)),
            (10, process(1, 10, 2)),
            (11, process(10, 10, 4)),
            // In a session of its own.
            (12, process(11, 12, 8)),
            // Orphaned.
            (13, process(1, 10, 16)),
            (20, process(10, 20, 32)),
            (21, process(20, 20, 64)),
            // A loop, as pids that are used again could show it.
            (30, process(31, 30, 128)),
            (31, process(30, 30, 128)),
            // The main process of an instance in the session of its parent, and its child.
            (39, process(1, 39, 256)),
            (40, process(39, 39, 512)),
            (41, process(40, 39, 1024)),
        ]);
        let leaders = HashSet::from([10, 20, 40, 50]);
        let sums = sums(&all, &leaders);
        let found = |pid| {
            sums.get(&pid)
                .map(|sum| (sum.processes, sum.cpu_milliseconds))
        };
        assert_eq!(found(10), Some((4, 30)));
        assert_eq!(
            found(20),
            Some((2, 96)),
            "an instance that another has started"
        );
        assert_eq!((found(40), found(50)), (Some((2, 1536)), None));
    }

    #[test]
    fn a_process_that_works_uses_time_and_memory() {
        // It is in the process group of the test, and so becomes the leader itself.
        let mut child = Command::new("setsid")
            .args(["sh", "-c", "while :; do :; done & wait"])
            .stdin(Stdio::null())
            .spawn()
            .expect("setsid");
        let leader = i32::try_from(child.id()).expect("a pid");
        let used = loop {
            let sums = sums(&Processes::read().0, &HashSet::from([leader]));
            match sums.get(&leader) {
                Some(sum) if sum.processes >= 2 && sum.cpu_milliseconds >= 50 => break *sum,
                Some(_) | None => std::thread::yield_now(),
            }
        };
        nix::sys::signal::killpg(
            nix::unistd::Pid::from_raw(leader),
            nix::sys::signal::SIGKILL,
        )
        .expect("its process group");
        child.wait().expect("a child");
        assert!(used.memory_bytes > 10_000, "{used:?}");
    }

    #[test]
    fn the_metrics_have_what_is_known_of_each_place() {
        let mut text = "# TYPE a gauge\na 1\n# EOF\n".to_owned();
        let usage = json!({"processes": 2, "cpu_milliseconds": 1234, "memory_bytes": 4096});
        let instance = |name: &str, usage: &Value| {
            json!({"name": name, "pid": 1, "state": "running", "since": "", "restarts": 0,
                "last_exit": null, "usage": usage})
        };
        let none = Value::Null;
        let instances = json!([
            instance("app.0", &usage),
            instance("app.0", &usage),
            instance("app.1", &none)
        ]);
        let worker = json!({"name": "app", "activation": "eager", "generation": 1, "state": "running",
            "instances": instances, "listeners": []});
        let status = json!({"listeners": [], "workers": [worker]});
        let status: Status = serde_json::from_value(status).expect("a status");
        add_to_metrics(&mut text, &status);
        let place = "{worker=\"app\",index=\"0\"}";
        assert!(
            text.starts_with("# TYPE a gauge\na 1\n# HELP listend_instance_cpu"),
            "{text}"
        );
        for line in [
            format!("listend_instance_cpu_seconds_total{place} 2.468\n"),
            format!("listend_instance_memory_bytes{place} 8192\n"),
            format!("listend_instance_processes{place} 4\n# EOF\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(!text.contains("index=\"1\""), "{text}");
        assert!(
            !text.contains("oom_kills"),
            "it has no control group: {text}"
        );
    }

    #[test]
    fn what_the_kernel_counts_for_a_group_wins() {
        let seen = process(1, 1, 7).usage;
        assert_eq!(counted(seen, Figures::default()), seen);
        let figures = Figures {
            cpu_milliseconds: Some(9),
            memory_bytes: Some(4096),
            memory_peak_bytes: Some(8192),
            oom_kills: Some(2),
        };
        let usage = json!({"processes": 1, "cpu_milliseconds": 9, "memory_bytes": 4096,
            "memory_peak_bytes": 8192, "oom_kills": 2});
        let counted = counted(seen, figures);
        assert_eq!(json!(counted), usage);
        let mut text = "# EOF\n".to_owned();
        let instance = json!({"name": "app.3", "pid": 1, "state": "running", "since": "", "restarts": 0,
            "last_exit": null, "usage": usage});
        let worker = json!({"name": "app", "activation": "eager", "generation": 1, "state": "running",
            "instances": [instance], "listeners": []});
        let status = json!({"listeners": [], "workers": [worker]});
        let status: Status = serde_json::from_value(status).expect("a status");
        add_to_metrics(&mut text, &status);
        let place = "{worker=\"app\",index=\"3\"}";
        for line in [
            format!(
                "# UNIT listend_instance_memory_peak_bytes bytes\nlistend_instance_memory_peak_bytes{place} 8192\n"
            ),
            format!("listend_instance_oom_kills_total{place} 2\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
