//! How much of a processor instances use now: the difference between two looks.

use crate::control::Status;
use crate::usage;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A look that is older says nothing about now.
const OLD: Duration = Duration::from_secs(60);

/// What an instance uses, with what it has started.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in a thousandth of one processor; `None` until there are two looks at it.
    pub cpu: Option<u64>,
    /// Memory in KiB: of a control group what counts there, else what is resident.
    pub memory: u64,
    /// The most of it, of one with a control group.
    pub peak: Option<u64>,
    /// How many processes were killed for want of memory, of one with a control group.
    pub oom_kills: Option<u64>,
}

/// Looks at instances again and again.
#[derive(Debug, Default)]
pub struct Meter {
    /// When it looked last, and the milliseconds that each instance had used then, by pid.
    last: Option<(Instant, BTreeMap<u32, u64>)>,
}

impl Meter {
    /// What the instances of a status use now, by pid. What cannot be seen is left out.
    pub fn read(&mut self, status: &mut Status) -> BTreeMap<u32, Usage> {
        usage::note(status);
        self.compare(status, Instant::now())
    }

    fn compare(&mut self, status: &Status, now: Instant) -> BTreeMap<u32, Usage> {
        let age = |then: Instant| now.saturating_duration_since(then);
        let last = self.last.take().filter(|(then, _)| age(*then) < OLD);
        let mut spent = BTreeMap::new();
        let mut used = BTreeMap::new();
        for instance in status.workers.iter().flat_map(|worker| &worker.instances) {
            let (Some(pid), Some(usage)) = (instance.pid, instance.usage) else {
                continue;
            };
            spent.insert(pid, usage.cpu_milliseconds);
            let cpu = last.as_ref().and_then(|(then, last)| {
                // What has ended without being waited for takes its time with it.
                let since = usage.cpu_milliseconds.saturating_sub(*last.get(&pid)?);
                let elapsed = u64::try_from(age(*then).as_millis()).unwrap_or(u64::MAX);
                since.saturating_mul(1000).checked_div(elapsed)
            });
            let seen = Usage {
                cpu,
                memory: usage.memory_bytes / 1024,
                peak: usage.memory_peak_bytes.map(|bytes| bytes / 1024),
                oom_kills: usage.oom_kills,
            };
            used.insert(pid, seen);
        }
        self.last = Some((now, spent));
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_share_is_known_from_the_second_look_on() {
        let status = |pid: u32, cpu: u64| -> Status {
            let usage = json!({"processes": 1, "cpu_milliseconds": cpu, "memory_bytes": 4096});
            let hidden = json!({"name": "app.1", "pid": 5, "state": "running", "since": "",
                "restarts": 0, "last_exit": null});
            let mut seen = hidden.clone();
            seen["pid"] = json!(pid);
            seen["usage"] = usage;
            let worker = json!({"name": "app", "activation": "eager", "generation": 1,
                "state": "running", "instances": [seen, hidden], "listeners": []});
            serde_json::from_value(json!({"listeners": [], "workers": [worker]})).unwrap()
        };
        let mut meter = Meter::default();
        let start = Instant::now();
        let mut look = |pid, cpu, seconds| {
            let used = meter.compare(&status(pid, cpu), start + Duration::from_secs(seconds));
            used.into_iter().collect::<Vec<_>>()
        };
        let of = |cpu| Usage {
            cpu,
            memory: 4,
            ..Usage::default()
        };
        assert_eq!(look(4, 100, 0), [(4, of(None))]);
        assert_eq!(look(4, 600, 2), [(4, of(Some(250)))]);
        assert_eq!(look(4, 500, 3), [(4, of(Some(0)))]);
        // Another process.
        assert_eq!(look(6, 9000, 4), [(6, of(None))]);
        // Nobody looked for long.
        assert_eq!(look(6, 9000, 99), [(6, of(None))]);
    }
}
