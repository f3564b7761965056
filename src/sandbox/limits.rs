//! What the processes of a worker may use together (systemd.resource-control(5)), and what the kernel is told
//! about it (Documentation/admin-guide/cgroup-v2.rst). Pure.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A hundredth of a percent.
pub type Permyriad = u32;

/// All of it.
pub const WHOLE: Permyriad = 10_000;

/// The limits of one control group. A key that is not written is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max: Option<Most>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks_max: Option<Most>,
    /// The time of processors, in hundredths of a percent of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<Quota>,
    /// The share of the time of disks, 1 to 10000, among groups that want it at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u16>,
}

/// How much of something there may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Most {
    /// No limit.
    Infinity,
    /// A number.
    Count(u64),
    /// A part of what the machine has.
    Part(Permyriad),
}

/// How much time of processors there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// No limit.
    Infinity,
    /// A part of one processor; more than [`WHOLE`] is more than one.
    Part(Permyriad),
}

/// What the machine, or the container, has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of memory.
    pub memory: u64,
    /// Processes and threads.
    pub tasks: u64,
}

/// One key, as it is enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key of the configuration.
    pub key: &'static str,
    /// The controller that enforces it; `None` if it is no limit.
    pub controller: Option<&'static str>,
    /// The files of the group of which the first that exists is written, and what is written to it.
    pub files: Vec<(&'static str, String)>,
}

/// The keys, in the order of the manual.
pub const KEYS: [&str; 4] = ["memory_max", "tasks_max", "cpu_quota", "io_weight"];

impl Limits {
    /// Whether no key is written, so that no control group is needed.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// The value of a key, as it would be written.
    pub fn value(&self, key: &str) -> Option<String> {
        match key {
            "memory_max" => self.memory_max.map(|most| most.text(size)),
            "tasks_max" => self
                .tasks_max
                .map(|most| most.text(|count| count.to_string())),
            "cpu_quota" => self.cpu_quota.map(|quota| match quota {
                Quota::Infinity => INFINITY.to_owned(),
                Quota::Part(part) => percent(part),
            }),
            "io_weight" => self.io_weight.map(|weight| weight.to_string()),
            _ => None,
        }
    }

    /// What is to be written where, for each key.
    pub fn settings(&self, totals: Totals) -> Vec<Setting> {
        let mut all = Vec::new();
        let mut most = |key, controller, file, most: Option<Most>, total: u64| {
            let Some(most) = most else { return };
            let count = match most {
                Most::Infinity => None,
                Most::Count(count) => Some(count),
                Most::Part(part) => Some(part_of(total, part)),
            };
            all.push(Setting {
                key,
                controller: count.map(|_| controller),
                files: vec![(
                    file,
                    count.map_or("max".to_owned(), |count| count.to_string()),
                )],
            });
        };
        most(
            "memory_max",
            "memory",
            "memory.max",
            self.memory_max,
            totals.memory,
        );
        most(
            "tasks_max",
            "pids",
            "pids.max",
            self.tasks_max,
            totals.tasks,
        );
        if let Some(quota) = self.cpu_quota {
            let (controller, text) = match quota {
                Quota::Infinity => (None, "max".to_owned()),
                Quota::Part(part) => (Some("cpu"), bandwidth(part)),
            };
            all.push(Setting {
                key: "cpu_quota",
                controller,
                files: vec![("cpu.max", text)],
            });
        }
        if let Some(weight) = self.io_weight {
            all.push(Setting {
                key: "io_weight",
                controller: Some("io"),
                // The first needs the cost model of the kernel, the second the BFQ scheduler.
                files: vec![
                    ("io.weight", format!("default {weight}")),
                    ("io.bfq.weight", bfq(weight).to_string()),
                ],
            });
        }
        all
    }
}

const INFINITY: &str = "infinity";

impl Most {
    fn text(self, count: impl FnOnce(u64) -> String) -> String {
        match self {
            Most::Infinity => INFINITY.to_owned(),
            Most::Count(number) => count(number),
            Most::Part(part) => percent(part),
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = KEYS
            .iter()
            .filter_map(|key| Some(format!("{key}: {}", self.value(key)?)));
        to.write_str(&written.collect::<Vec<_>>().join(", "))
    }
}

/// At least 1: a part of something is something.
fn part_of(total: u64, part: Permyriad) -> u64 {
    let part = u128::from(total) * u128::from(part) / u128::from(WHOLE);
    u64::try_from(part).unwrap_or(u64::MAX).max(1)
}

/// `512M`, with the largest unit that leaves a whole number.
fn size(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let unit = units
        .iter()
        .find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

fn percent(part: Permyriad) -> String {
    let (whole, rest) = (part / 100, part % 100);
    let rest = match rest {
        0 => String::new(),
        rest => format!(".{rest:02}").trim_end_matches('0').to_owned(),
    };
    format!("{whole}{rest}%")
}

/// `QUOTA PERIOD`, in microseconds. The kernel takes a quota from 1 ms on, in a period of at most 1 s.
fn bandwidth(part: Permyriad) -> String {
    const LEAST: u64 = 1_000;
    const USUAL: u64 = 100_000;
    const LONGEST: u64 = 1_000_000;
    let part = u64::from(part.max(1));
    let quota = |period: u64| period * part / u64::from(WHOLE);
    let period = match quota(USUAL) {
        0..LEAST => (LEAST * u64::from(WHOLE)).div_ceil(part).min(LONGEST),
        _ => USUAL,
    };
    format!("{} {period}", quota(period).max(LEAST))
}

/// The scale of BFQ: 1 is 1, 100 is 100, 10000 is 1000.
fn bfq(weight: u16) -> u16 {
    match weight {
        0..=100 => weight.max(1),
        more => 100 + ((u32::from(more) - 100) * 900 / 9_900).min(900) as u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTALS: Totals = Totals {
        memory: 8 << 30,
        tasks: 1000,
    };

    fn written(limits: Limits) -> Vec<(&'static str, Option<&'static str>, String)> {
        let all = limits.settings(TOTALS).into_iter();
        all.map(|one| {
            let files: Vec<_> = one
                .files
                .iter()
                .map(|(file, text)| format!("{file}={text}"))
                .collect();
            (one.key, one.controller, files.join("|"))
        })
        .collect()
    }

    #[test]
    fn each_key_has_its_file_and_its_controller() {
        let limits = Limits {
            memory_max: Some(Most::Count(512 << 20)),
            tasks_max: Some(Most::Count(100)),
            cpu_quota: Some(Quota::Part(15_000)),
            io_weight: Some(200),
        };
        let expected = [
            ("memory_max", Some("memory"), "memory.max=536870912"),
            ("tasks_max", Some("pids"), "pids.max=100"),
            ("cpu_quota", Some("cpu"), "cpu.max=150000 100000"),
            (
                "io_weight",
                Some("io"),
                "io.weight=default 200|io.bfq.weight=109",
            ),
        ];
        let expected = expected.map(|(key, controller, text)| (key, controller, text.to_owned()));
        assert_eq!(written(limits), expected);
        assert_eq!(
            limits.to_string(),
            "memory_max: 512M, tasks_max: 100, cpu_quota: 150%, io_weight: 200"
        );
        assert!(!limits.is_empty() && Limits::default().is_empty());
    }

    #[test]
    fn no_limit_needs_no_controller() {
        let limits = Limits {
            memory_max: Some(Most::Infinity),
            tasks_max: Some(Most::Infinity),
            cpu_quota: Some(Quota::Infinity),
            io_weight: None,
        };
        let controllers = written(limits)
            .into_iter()
            .map(|(_, controller, _)| controller);
        assert_eq!(controllers.collect::<Vec<_>>(), [None, None, None]);
        assert!(!limits.is_empty(), "it has a group nevertheless");
    }

    #[test]
    fn parts_are_of_the_machine() {
        let limits = Limits {
            memory_max: Some(Most::Part(3_333)),
            tasks_max: Some(Most::Part(1)),
            ..Limits::default()
        };
        let texts = written(limits).into_iter().map(|(_, _, text)| text);
        assert_eq!(
            texts.collect::<Vec<_>>(),
            ["memory.max=2863025199", "pids.max=1"]
        );
        assert_eq!(limits.to_string(), "memory_max: 33.33%, tasks_max: 0.01%");
    }

    #[test]
    fn a_small_quota_gets_a_longer_period() {
        assert_eq!(bandwidth(100), "1000 100000");
        assert_eq!(bandwidth(50), "1000 200000");
        assert_eq!(bandwidth(1), "1000 1000000");
        assert_eq!(bandwidth(WHOLE * 64), "6400000 100000");
    }

    #[test]
    fn sizes_and_weights_have_their_scale() {
        assert_eq!(size(1 << 30), "1G");
        assert_eq!(size(1025), "1025");
        assert_eq!((bfq(1), bfq(100), bfq(10_000)), (1, 100, 1000));
    }
}
