//! Units of systemd that run a configuration, and the times of its workers that they cut short.

use crate::plan::Plan;
use crate::report::{Kind, Problem};
use crate::sandbox::DROP_INS;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folders of units, the most important first (systemd.unit(5)).
pub(super) const UNIT_FOLDERS: &[&str] = &[
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The default of DefaultTimeoutStopSec= (systemd-system.conf(5)).
const DEFAULT_STOP: Duration = Duration::from_secs(90);

/// The configuration that listend reads without `-c`.
const DEFAULT_CONFIG: &str = "/etc/listend/listend.yaml";

/// What is wrong with units below `root` that run `config`: they give listend no control groups, which limits of a
/// worker need; or they kill it before a worker's `stop_timeout` has passed. listend extends the timeouts of a unit
/// of Type=notify; of any other it cannot.
pub fn unit_limits(plan: &Plan, config: &Path, root: &Path) -> Vec<Problem> {
    let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    let mut advice = Vec::new();
    for name in names(root) {
        let settings = ServiceSection::read(root, &name);
        if !settings.runs(&config) {
            continue;
        }
        advice.extend(undelegated(plan, &name, &settings));
        let Some(limit) = settings.stops_within() else {
            continue;
        };
        let cut = plan.workers().find(|(_, worker)| {
            let longest = worker.lifecycle.stop_timeout;
            longest.is_none_or(|longest| longest >= limit)
        });
        if let Some((_, worker)) = cut {
            let message = format!(
                "{name} kills listend {} s after it is told to stop, but worker `{}` may take longer",
                limit.as_secs(),
                worker.name
            );
            let hint = "write `Type=notify` in the unit, so that listend can extend the timeout, or a \
                        `TimeoutStopSec=` above the longest `stop_timeout`";
            let problem = Problem::new(Kind::UnitTimeout, message).at(worker.place);
            advice.push(problem.of_worker(&worker.name).with_hint(hint));
        }
    }
    advice
}

/// A worker with limits in a unit that keeps its control groups for itself.
fn undelegated(plan: &Plan, unit: &str, settings: &ServiceSection) -> Option<Problem> {
    if !matches!(settings.get("Delegate"), "" | "no" | "false" | "off" | "0") {
        return None;
    }
    let (worker, limits) = plan.workers().find_map(|(_, worker)| {
        let sandbox = worker.sandbox.as_ref()?;
        let limits =
            (!sandbox.is_best_effort() && !sandbox.limits.is_empty()).then_some(sandbox.limits);
        Some((worker, limits?))
    })?;
    let message = format!(
        "worker `{}`: `{limits}` of its sandbox cannot be enforced: {unit} gives listend no control groups",
        worker.name
    );
    let hint = format!(
        "copy delegate.conf, which is in {DROP_INS}, to /etc/systemd/system/{unit}.d/; \
         `best_effort: true` starts without"
    );
    let problem = Problem::new(Kind::LimitNotEnforced, message).at(worker.place);
    Some(problem.of_worker(&worker.name).with_hint(hint))
}

/// The services that are defined there.
fn names(root: &Path) -> BTreeSet<String> {
    let entries = UNIT_FOLDERS
        .iter()
        .filter_map(|directory| fs::read_dir(root.join(directory)).ok());
    let names = entries.flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.ends_with(".service")).collect()
}

/// The `[Service]` section: the last value of each key.
struct ServiceSection(BTreeMap<String, String>);

impl ServiceSection {
    fn read(root: &Path, name: &str) -> ServiceSection {
        let mut all = BTreeMap::new();
        let places = UNIT_FOLDERS.iter().map(|directory| root.join(directory));
        let unit = places
            .clone()
            .find_map(|place| fs::read_to_string(place.join(name)).ok());
        // Most units are not listend's, and have no further files of interest.
        let Some(unit) = unit.filter(|text| text.contains("listend")) else {
            return ServiceSection(all);
        };
        let mut drop_ins: BTreeMap<_, PathBuf> = BTreeMap::new();
        for place in places {
            let entries = fs::read_dir(place.join(format!("{name}.d"))).ok();
            for entry in entries.into_iter().flatten().flatten() {
                // One of an important directory hides those of its name.
                drop_ins
                    .entry(entry.file_name())
                    .or_insert_with(|| entry.path());
            }
        }
        let drop_ins = drop_ins.into_values();
        let drop_ins = drop_ins.filter(|path| path.extension().is_some_and(|end| end == "conf"));
        let texts = drop_ins.filter_map(|path| fs::read_to_string(path).ok());
        for text in std::iter::once(unit).chain(texts) {
            let mut in_service = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with('[') {
                    in_service = line == "[Service]";
                } else if let Some((key, value)) = line.split_once('=').filter(|_| in_service) {
                    all.insert(key.trim().to_owned(), value.trim().to_owned());
                }
            }
        }
        ServiceSection(all)
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Whether the unit starts `listend run` with this configuration. Specifiers are not expanded.
    fn runs(&self, config: &Path) -> bool {
        let mut words = self.get("ExecStart").split_ascii_whitespace();
        let program = words
            .next()
            .unwrap_or_default()
            .trim_start_matches(['@', '-', ':', '+', '!']);
        if Path::new(program)
            .file_name()
            .is_none_or(|name| name != "listend")
        {
            return false;
        }
        let words: Vec<&str> = words.collect();
        let named = words
            .iter()
            .enumerate()
            .find_map(|(index, word)| match *word {
                "-c" | "--config" => words.get(index + 1).copied(),
                word => word
                    .strip_prefix("--config=")
                    .or_else(|| word.strip_prefix("-c")),
            });
        words.contains(&"run") && Path::new(named.unwrap_or(DEFAULT_CONFIG)) == config
    }

    /// The time before the manager kills the unit, if nothing can extend it and it is finite.
    fn stops_within(&self) -> Option<Duration> {
        let can_extend = matches!(self.get("Type"), "notify" | "notify-reload")
            && self.get("NotifyAccess") != "none";
        if can_extend {
            return None;
        }
        match [self.get("TimeoutStopSec"), self.get("TimeoutSec")]
            .into_iter()
            .find(|text| !text.is_empty())
        {
            None => Some(DEFAULT_STOP),
            Some(text) => time_span(text).filter(|limit| !limit.is_zero()),
        }
    }
}

/// `45`, `1min 30s` (systemd.time(7)); `None` is for ever, or nothing that is known here.
fn time_span(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let span: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(span).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> ServiceSection {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        ServiceSection(
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    #[test]
    fn time_spans_are_those_of_systemd() {
        for (text, seconds) in [("45", 45), ("1min 30s", 90), ("2 h", 7200), ("5m", 300)] {
            assert_eq!(
                time_span(text),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["infinity", "1 fortnight", "s"] {
            assert_eq!(time_span(text), None, "{text}");
        }
    }

    #[test]
    fn only_a_unit_that_cannot_be_extended_limits() {
        for (text, limit) in [
            ("Type=notify", None),
            ("Type=notify\nNotifyAccess=none", Some(90)),
            ("Type=exec\nTimeoutStopSec=10", Some(10)),
            ("TimeoutSec=20", Some(20)),
            ("TimeoutStopSec=infinity", None),
            ("TimeoutStopSec=0", None),
        ] {
            let limit = limit.map(Duration::from_secs);
            assert_eq!(settings(text).stops_within(), limit, "{text}");
        }
    }

    #[test]
    fn a_unit_is_known_by_what_it_starts() {
        let config = Path::new(DEFAULT_CONFIG);
        for (text, runs) in [
            ("/usr/bin/listend run", true),
            ("!/usr/bin/listend run -c /etc/listend/listend.yaml", true),
            ("/usr/bin/listend run --config=/srv/other.yaml", false),
            ("/usr/bin/listend run -c /etc/listend/%i.yaml", false),
            ("/usr/bin/listend check", false),
            ("/usr/bin/other run", false),
        ] {
            assert_eq!(
                settings(&format!("ExecStart={text}")).runs(config),
                runs,
                "{text}"
            );
        }
    }
}
