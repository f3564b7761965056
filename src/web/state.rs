//! What the pages show, with when each part of it last changed: any number of pages, however slow, are told
//! what is new to them and nothing else. Pure.

use super::trouble::{self, Trouble};
use super::usage::Usage;
use crate::control::Status;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

/// So many events, and lines of a worker, are shown.
pub const SHOWN: usize = 100;

/// What the daemon was found to be.
#[derive(Debug)]
pub struct News {
    /// The answer of `Status`.
    pub status: Box<RawValue>,
    /// The rows of workers that are being rolled out, with details, by their place.
    pub rolling: BTreeMap<usize, Box<RawValue>>,
    /// The last events; `None` from a daemon that does not keep them.
    pub events: Option<Vec<Box<RawValue>>>,
    /// What the instances use, by pid.
    pub usage: BTreeMap<u32, Usage>,
}

/// What is shown.
#[derive(Debug, Default)]
pub struct State {
    /// Grows with each change.
    version: u64,
    /// The answer that the rest is made of.
    status: Option<Box<RawValue>>,
    rolling: BTreeMap<usize, Box<RawValue>>,
    daemon: Dated<Option<Box<str>>>,
    listeners: Rows,
    workers: Rows,
    troubles: Dated<Vec<Trouble>>,
    usage: BTreeMap<u32, Dated<Usage>>,
    has_events: Dated<bool>,
    events: Tail,
}

/// With the version in which it last changed.
#[derive(Debug, Default, Clone)]
struct Dated<T> {
    value: T,
    changed: u64,
}

impl<T: PartialEq> Dated<T> {
    fn set(&mut self, value: T, version: u64) {
        if self.value != value {
            *self = Dated {
                value,
                changed: version,
            };
        }
    }
}

/// Listeners or workers, by their place in the list: only a reload changes that.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Dated<Box<str>>>,
    counted: u64,
}

impl Rows {
    fn set(&mut self, rows: &[&RawValue], version: u64) {
        if self.rows.len() != rows.len() {
            self.counted = version;
            self.rows.truncate(rows.len());
        }
        for (at, row) in rows.iter().enumerate() {
            match self.rows.get_mut(at) {
                Some(old) if *old.value == *row.get() => {}
                Some(old) => old.set(row.get().into(), version),
                None => self.rows.push(Dated {
                    value: row.get().into(),
                    changed: version,
                }),
            }
        }
    }

    /// `{"n":3,"at":[1],"is":[{…}]}`: their number, and those that are new.
    fn tell(&self, name: &str, since: u64, json: &mut String) {
        let new = |row: &&Dated<Box<str>>| row.changed > since;
        if self.counted <= since && !self.rows.iter().any(|row| new(&row)) {
            return;
        }
        let (mut at, mut is) = (String::new(), String::new());
        for (place, row) in self.rows.iter().enumerate() {
            if row.changed > since {
                let comma = if at.is_empty() { "" } else { "," };
                // Writing into a string cannot fail.
                let _always = write!(at, "{comma}{place}");
                let _always = write!(is, "{comma}{}", row.value);
            }
        }
        let count = self.rows.len();
        let _always = write!(json, r#","{name}":{{"n":{count},"at":[{at}],"is":[{is}]}}"#);
    }
}

/// The last of what comes one after the other.
#[derive(Debug, Default)]
pub struct Tail {
    items: VecDeque<Dated<Box<str>>>,
}

impl Tail {
    /// Takes the last ones as they are now, in order. Whether there is anything new.
    ///
    /// Events have no numbers: the new list is matched where its beginning overlaps the end of
    /// the old one.
    pub fn set(&mut self, last: &[Box<RawValue>], version: u64) -> bool {
        let start = last.len().saturating_sub(SHOWN);
        let last = last.get(start..).unwrap_or_default();
        let known = (0..=self.items.len()).find_map(|skip| {
            let rest = self.items.len() - skip;
            let old = self.items.iter().skip(skip);
            let mut both = old.zip(last);
            let is_it = rest <= last.len() && both.all(|(old, new)| *old.value == *new.get());
            is_it.then_some(rest)
        });
        let new = last.get(known.unwrap_or(0)..).unwrap_or_default();
        self.items.extend(new.iter().map(|one| Dated {
            value: one.get().into(),
            changed: version,
        }));
        let over = self.items.len().saturating_sub(SHOWN);
        self.items.drain(..over);
        !new.is_empty()
    }

    /// `[…]`: those that are newer.
    pub fn tell(&self, since: u64, json: &mut String) {
        json.push('[');
        let new = self.items.iter().filter(|one| one.changed > since);
        for (at, one) in new.enumerate() {
            json.push_str(if at == 0 { "" } else { "," });
            json.push_str(&one.value);
        }
        json.push(']');
    }

    fn has_new(&self, since: u64) -> bool {
        self.items.back().is_some_and(|one| one.changed > since)
    }
}

/// A status in its parts, as they came: a newer daemon may say more than is known here.
#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow, default)]
    daemon: Option<&'a RawValue>,
    #[serde(borrow)]
    listeners: Vec<&'a RawValue>,
    #[serde(borrow)]
    workers: Vec<&'a RawValue>,
}

impl State {
    /// Takes what is new. Whether anything of the workers has changed.
    ///
    /// # Errors
    ///
    /// The status is none.
    pub fn set(&mut self, news: News) -> Result<bool, serde_json::Error> {
        let version = self.version + 1;
        let details = |rolling: &BTreeMap<usize, Box<RawValue>>| -> Vec<(usize, String)> {
            let rows = rolling.iter();
            rows.map(|(at, row)| (*at, row.get().to_owned())).collect()
        };
        let goes_on = details(&self.rolling) == details(&news.rolling);
        if !goes_on || self.status.as_ref().map(|old| old.get()) != Some(news.status.get()) {
            let mut parts: Parts = serde_json::from_str(news.status.get())?;
            for (at, row) in &news.rolling {
                if let Some(place) = parts.workers.get_mut(*at) {
                    *place = row;
                }
            }
            let status: Status = serde_json::from_str(news.status.get())?;
            let daemon = parts.daemon.map(|daemon| daemon.get().into());
            self.daemon.set(daemon, version);
            self.listeners.set(&parts.listeners, version);
            self.workers.set(&parts.workers, version);
            self.troubles.set(trouble::of(&status), version);
            self.status = Some(news.status);
            self.rolling = news.rolling;
        }
        self.usage.retain(|pid, _| news.usage.contains_key(pid));
        for (pid, usage) in news.usage {
            self.usage.entry(pid).or_default().set(usage, version);
        }
        self.has_events.set(news.events.is_some(), version);
        self.events.set(&news.events.unwrap_or_default(), version);
        // Versions that say nothing do no harm.
        self.version = version;
        let mut workers = self.workers.rows.iter();
        Ok(workers.any(|row| row.changed == version))
    }

    /// The number of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A number for something that has changed beside this.
    pub fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// What has changed since, as members of an object, each with a comma before it.
    pub fn tell(&self, since: u64, json: &mut String) {
        if self.daemon.changed > since {
            let daemon = self.daemon.value.as_deref().unwrap_or("null");
            let _always = write!(json, r#","daemon":{daemon}"#);
        }
        self.listeners.tell("listeners", since, json);
        self.workers.tell("workers", since, json);
        if self.troubles.changed > since {
            // Texts and numbers: that cannot fail.
            let troubles = serde_json::to_string(&self.troubles.value).unwrap_or_default();
            let _always = write!(json, r#","troubles":{troubles}"#);
        }
        let mut usage = String::new();
        for (pid, used) in &self.usage {
            if used.changed > since {
                let comma = if usage.is_empty() { "" } else { "," };
                let Usage {
                    cpu,
                    memory,
                    peak,
                    oom_kills,
                } = used.value;
                let or_null =
                    |value: Option<u64>| value.map_or("null".to_owned(), |value| value.to_string());
                let cpu = or_null(cpu);
                let _always = write!(usage, r#"{comma}"{pid}":[{cpu},{memory}"#);
                if peak.is_some() || oom_kills.is_some() {
                    let _always = write!(usage, ",{},{}", or_null(peak), or_null(oom_kills));
                }
                usage.push(']');
            }
        }
        if !usage.is_empty() {
            let _always = write!(json, r#","usage":{{{usage}}}"#);
        }
        if since == 0 || self.has_events.changed > since {
            let _always = write!(json, r#","has_events":{}"#, self.has_events.value);
        }
        if self.events.has_new(since) {
            json.push_str(r#","events":"#);
            self.events.tell(since, json);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    fn listener(name: &str, drops: u64) -> Value {
        let queue = json!({"depth": 0, "limit": 8, "drops": drops});
        let socket = json!({"address": "127.0.0.1:80", "kind": "tcp", "queue": queue});
        json!({"name": name, "sockets": [socket], "state": "listening", "workers": [], "new": 1})
    }

    fn status(listeners: &[Value]) -> News {
        News {
            status: raw(&json!({"daemon": null, "listeners": listeners, "workers": []})),
            rolling: BTreeMap::new(),
            events: Some(Vec::new()),
            usage: BTreeMap::new(),
        }
    }

    fn told(state: &State, since: u64) -> Value {
        let mut json = "{\"v\":0".to_owned();
        state.tell(since, &mut json);
        json.push('}');
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn only_what_has_changed_is_told_and_all_of_it() {
        let mut state = State::default();
        let all: Vec<Value> = (0..1000)
            .map(|number| listener(&format!("l{number}"), 0))
            .collect();
        state.set(status(&all)).unwrap();
        let first = state.version();
        let whole = told(&state, 0);
        assert_eq!(whole["listeners"]["n"], 1000);
        // Members that this version does not know are passed on.
        assert_eq!(whole["listeners"]["is"], json!(all));
        assert_eq!(told(&state, first), json!({"v": 0}));

        state.set(status(&all)).unwrap();
        assert_eq!(told(&state, first), json!({"v": 0}));

        let mut later = all.clone();
        later[7] = listener("l7", 3);
        state.set(status(&later)).unwrap();
        let second = state.version();
        later[900] = listener("l900", 1);
        state.set(status(&later)).unwrap();
        let changes = |since| told(&state, since)["listeners"]["at"].clone();
        assert_eq!(changes(first), json!([7, 900]));
        assert_eq!(changes(second), json!([900]));

        later.truncate(2);
        let before = state.version();
        state.set(status(&later)).unwrap();
        assert_eq!(
            told(&state, before)["listeners"],
            json!({"n": 2, "at": [], "is": []})
        );
    }

    #[test]
    fn what_is_known_of_a_control_group_comes_behind_the_rest() {
        let mut state = State::default();
        let mut news = status(&[]);
        let without = Usage {
            memory: 4,
            ..Usage::default()
        };
        let with = Usage {
            cpu: Some(10),
            memory: 8,
            peak: Some(16),
            oom_kills: Some(2),
        };
        // An older kernel does not tell the peak.
        let half = Usage {
            oom_kills: Some(0),
            ..without
        };
        news.usage = BTreeMap::from([(1, without), (2, with), (3, half)]);
        state.set(news).unwrap();
        let usage = json!({"1": [null, 4], "2": [10, 8, 16, 2], "3": [null, 4, null, 0]});
        assert_eq!(told(&state, 0)["usage"], usage);
    }

    #[test]
    fn a_status_that_is_none_is_an_error_and_old_ones_are_not() {
        let mut state = State::default();
        let mut news = status(&[]);
        news.status = raw(&json!({"listeners": []}));
        assert!(state.set(news).is_err());
        let mut news = status(&[]);
        news.status = raw(&json!({"listeners": [], "workers": []}));
        news.events = None;
        state.set(news).unwrap();
        assert_eq!(told(&state, 0)["listeners"], Value::Null);
        // A page takes it that there are events until it is told otherwise.
        assert_eq!(told(&state, 0)["has_events"], false);
    }

    #[test]
    fn each_event_is_told_once() {
        let list = |range: std::ops::Range<u64>| -> Vec<Box<RawValue>> {
            range.map(|number| raw(&json!(number))).collect()
        };
        let since = |tail: &Tail, version| {
            let mut json = String::new();
            tail.tell(version, &mut json);
            serde_json::from_str::<Vec<u64>>(&json).unwrap()
        };
        let mut tail = Tail::default();
        assert!(tail.set(&list(0..3), 1));
        assert!(!tail.set(&list(0..3), 2));
        assert!(tail.set(&list(0..5), 3));
        assert_eq!(since(&tail, 1), [3, 4]);
        assert_eq!(since(&tail, 0), [0, 1, 2, 3, 4]);
        // The daemon keeps the last hundred.
        assert!(tail.set(&list(3..103), 4));
        assert_eq!(since(&tail, 3), (5..103).collect::<Vec<_>>());
        // More came than are kept.
        assert!(tail.set(&list(300..400), 5));
        assert_eq!(since(&tail, 0), (300..400).collect::<Vec<_>>());
        // Another daemon.
        assert!(tail.set(&list(1000..1001), 6));
        assert_eq!(since(&tail, 5), [1000]);
        assert!(!tail.set(&[], 7));
        // Alike, as lines of a log often are.
        let alike = |count| -> Vec<Box<RawValue>> { (0..count).map(|_| raw(&json!(1))).collect() };
        let mut tail = Tail::default();
        assert!(tail.set(&alike(3), 1));
        assert!(tail.set(&alike(4), 2));
        assert_eq!(since(&tail, 1), [1]);
    }
}
