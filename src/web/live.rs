//! One look at the daemon for all who watch, and what each of them is still to be told.
//!
//! Who watches waits here for something that is new to it, and takes it when it can: there is no queue for
//! anybody, so one that is slow gets the sum of what it missed.

use super::state::{News, State, Tail};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// So many watch at a time.
pub const WATCHERS_MAX: usize = 32;
/// The pause between two looks at the daemon.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause while something happens to workers.
const SHORT_PAUSE: Duration = Duration::from_millis(300);
/// A look may take this share of the time: of a daemon with thousands of listeners it takes long.
const SHARE: u32 = 10;
/// Who watches hears something at least so often.
const ALIVE: Duration = Duration::from_secs(5);
/// In which time somebody who has gone is noticed.
const NOTICE: Duration = Duration::from_secs(1);

/// The last lines of a worker, or why there are none.
pub type Lines = Result<Vec<Box<RawValue>>, String>;

/// What all threads share.
#[derive(Debug)]
pub struct Live {
    shared: Mutex<Shared>,
    /// There is something new.
    news: Condvar,
    /// Signalled when a watcher wants something new.
    wish: Condvar,
    /// Tells versions of this process from those of another one.
    epoch: String,
}

#[derive(Debug, Default)]
struct Shared {
    state: State,
    /// When the state was found to be this one; `None` while nobody watches.
    found: Option<Instant>,
    /// When the request to the daemon began.
    asked: Option<Instant>,
    watchers: usize,
    /// The workers whose lines are wanted.
    wanted: BTreeMap<String, Wanted>,
    /// Whether to look at once.
    is_urgent: bool,
}

#[derive(Debug, Default)]
struct Wanted {
    by: usize,
    lines: Tail,
    /// Why there are none.
    refused: Option<String>,
    /// The version in which that came up, or the first lines came.
    since: u64,
}

/// One who watches.
#[derive(Debug)]
pub struct Watcher<'a> {
    live: &'a Live,
    worker: Option<String>,
    /// The last version that was sent to this watcher.
    version: u64,
    has_lines: bool,
    told: Instant,
}

impl Live {
    /// Nothing is known yet.
    pub fn new() -> Live {
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.unwrap_or_default().as_nanos();
        Live {
            shared: Mutex::default(),
            news: Condvar::new(),
            wish: Condvar::new(),
            epoch: format!("{:x}-{time:x}", std::process::id()),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the daemon for as long as anybody watches, and waits otherwise.
    ///
    /// # Errors
    ///
    /// What `look` fails with, and a status that is none.
    pub fn look_for_all(
        &self,
        mut look: impl FnMut(&[String]) -> io::Result<(News, Vec<Lines>)>,
    ) -> io::Error {
        loop {
            let wanted: Vec<String> = {
                let mut shared = self.shared();
                while shared.watchers == 0 {
                    shared.found = None;
                    shared = self
                        .wish
                        .wait(shared)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                shared.is_urgent = false;
                shared.asked = Some(Instant::now());
                shared.wanted.keys().cloned().collect()
            };
            let began = Instant::now();
            let looked = look(&wanted);
            let took = began.elapsed();
            let mut shared = self.shared();
            let moves = match looked.and_then(|(news, lines)| shared.take(news, &wanted, lines)) {
                Ok(moves) => moves,
                Err(error) => return error,
            };
            self.news.notify_all();
            let least = SHORT_PAUSE.max(took * SHARE);
            let pause = if moves { least } else { PAUSE.max(least) };
            // A wish cuts the pause, but not below what the daemon can bear.
            for (pause, cut) in [(least, false), (pause.saturating_sub(least), true)] {
                let goes_on = |shared: &mut Shared| !cut || !shared.is_urgent;
                let waited = self.wish.wait_timeout_while(shared, pause, goes_on);
                shared = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Adds a watcher; `None` if there are too many.
    pub fn enter(&self, since: Option<&str>, worker: Option<String>) -> Option<Watcher<'_>> {
        let mut shared = self.shared();
        if shared.watchers >= WATCHERS_MAX {
            return None;
        }
        shared.watchers += 1;
        if let Some(worker) = &worker {
            let wanted = shared.wanted.entry(worker.clone()).or_default();
            wanted.by += 1;
            shared.is_urgent |= wanted.by == 1;
        }
        self.wish.notify_all();
        // What another process has told is of no use here.
        let version = since.and_then(|since| since.rsplit_once(':'));
        let version = version.filter(|(epoch, _)| *epoch == self.epoch);
        let version = version.and_then(|(_, version)| version.parse().ok());
        Some(Watcher {
            live: self,
            worker,
            version: version
                .filter(|version| *version <= shared.state.version())
                .unwrap_or(0),
            has_lines: false,
            told: Instant::now(),
        })
    }
}

impl Shared {
    /// Whether anything of the workers has changed.
    fn take(&mut self, news: News, wanted: &[String], lines: Vec<Lines>) -> io::Result<bool> {
        let moves = self.state.set(news)?;
        self.found = Some(Instant::now());
        self.asked = None;
        for (worker, lines) in wanted.iter().zip(lines) {
            let version = self.state.next_version();
            // Nobody may want it any more.
            let Some(wanted) = self.wanted.get_mut(worker) else {
                continue;
            };
            let refused = match lines {
                Ok(lines) => {
                    wanted.lines.set(&lines, version);
                    None
                }
                Err(why) => {
                    wanted.lines = Tail::default();
                    Some(why)
                }
            };
            if wanted.since == 0 || wanted.refused != refused {
                wanted.refused = refused;
                wanted.since = version;
            }
        }
        Ok(moves)
    }
}

impl Watcher<'_> {
    /// The next message, or what shows that there is none; `None` if only a moment has passed.
    pub fn next(&mut self) -> Option<String> {
        let shared = self.live.shared();
        let mut message = None;
        let nothing_new = |shared: &mut Shared| {
            message = self.news(shared);
            message.is_none()
        };
        let waited = self
            .live
            .news
            .wait_timeout_while(shared, NOTICE, nothing_new);
        let shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        if let Some(message) = message {
            self.version = shared.state.version();
            self.has_lines |= message.has_lines;
            self.told = Instant::now();
            let epoch = &self.live.epoch;
            return Some(format!(
                "id: {epoch}:{}\nevent: state\ndata: {}\n\n",
                self.version, message.text
            ));
        }
        // It has got all there is, even if that was nothing.
        if shared.found.is_some() {
            self.version = shared.state.version();
        }
        if self.told.elapsed() < ALIVE {
            return None;
        }
        self.told = Instant::now();
        let since = |time: Option<Instant>| match time {
            Some(time) => time.elapsed().as_millis().to_string(),
            None => "null".to_owned(),
        };
        let (now, found, asked) = (now(), since(shared.found), since(shared.asked));
        Some(format!(
            "event: alive\ndata: {{\"now\":{now},\"found\":{found},\"asked\":{asked}}}\n\n"
        ))
    }

    /// What is new to it.
    fn news(&self, shared: &Shared) -> Option<Message> {
        // What was found when somebody else watched may be old.
        shared.found?;
        let whole = self.version == 0;
        let mut text = format!("{{\"now\":{}", now());
        let empty = text.len();
        if whole {
            text.push_str(r#","whole":true"#);
        }
        shared.state.tell(self.version, &mut text);
        let has_lines = self.lines(shared, &mut text);
        if text.len() == empty {
            return None;
        }
        text.push('}');
        // White space between tokens may have ends of lines in it, strings cannot.
        let text = text.replace(['\n', '\r'], " ");
        Some(Message { text, has_lines })
    }

    /// Appends the lines of the worker that are new. Whether it knows them now.
    fn lines(&self, shared: &Shared, text: &mut String) -> bool {
        let Some(worker) = &self.worker else {
            return false;
        };
        let wanted = shared.wanted.get(worker).filter(|wanted| wanted.since > 0);
        let Some(wanted) = wanted else {
            return false;
        };
        let since = match self.has_lines && wanted.since <= self.version {
            true => self.version,
            false => 0,
        };
        let mut lines = String::new();
        wanted.lines.tell(since, &mut lines);
        if since > 0 && lines == "[]" {
            return true;
        }
        // Texts: that cannot fail.
        let as_json = |text: &Option<String>| serde_json::to_string(text).unwrap_or_default();
        let (name, refused) = (as_json(&self.worker), as_json(&wanted.refused));
        let whole = since == 0;
        let _always = write!(
            text,
            r#","lines":{{"worker":{name},"whole":{whole},"refused":{refused},"is":{lines}}}"#
        );
        true
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        let mut shared = self.live.shared();
        shared.watchers = shared.watchers.saturating_sub(1);
        if let Some(worker) = &self.worker
            && let Some(wanted) = shared.wanted.get_mut(worker)
        {
            wanted.by = wanted.by.saturating_sub(1);
            if wanted.by == 0 {
                shared.wanted.remove(worker);
            }
        }
    }
}

struct Message {
    text: String,
    has_lines: bool,
}

/// The time of this machine, which those of the daemon are in.
fn now() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    fn news(pid: u32) -> News {
        let status = json!({"daemon": {"version": "1", "pid": pid, "since": "", "version_since": "",
            "configuration": null, "binary": null}, "listeners": [], "workers": []});
        News {
            status: raw(&status),
            rolling: BTreeMap::new(),
            events: None,
            usage: BTreeMap::new(),
        }
    }

    fn take(live: &Live, pid: u32, lines: Vec<(&str, Lines)>) {
        let (wanted, lines): (Vec<_>, Vec<_>) = lines
            .into_iter()
            .map(|(worker, lines)| (worker.to_owned(), lines))
            .unzip();
        live.shared().take(news(pid), &wanted, lines).unwrap();
    }

    /// The number and the data of a message.
    fn told(message: &str) -> (String, Value) {
        let (id, rest) = message.split_once("\nevent: state\ndata: ").unwrap();
        let data = rest.strip_suffix("\n\n").unwrap();
        assert!(!data.contains('\n'));
        (
            id.strip_prefix("id: ").unwrap().to_owned(),
            serde_json::from_str(data).unwrap(),
        )
    }

    #[test]
    fn each_gets_what_is_new_to_it_however_late_it_asks() {
        let live = Live::new();
        let mut first = live.enter(None, None).unwrap();
        take(&live, 1, vec![]);
        let (id, data) = told(&first.next().unwrap());
        assert_eq!(
            (&data["whole"], &data["daemon"]["pid"]),
            (&json!(true), &json!(1))
        );
        for pid in [2, 3] {
            take(&live, pid, vec![]);
        }
        // It missed one; it gets the sum.
        let (_, data) = told(&first.next().unwrap());
        assert_eq!(
            (&data["whole"], &data["daemon"]["pid"]),
            (&Value::Null, &json!(3))
        );
        assert_eq!(data["listeners"], Value::Null);
        let mut again = live.enter(Some(&id), None).unwrap();
        let (_, data) = told(&again.next().unwrap());
        assert_eq!(
            (&data["whole"], &data["daemon"]["pid"]),
            (&Value::Null, &json!(3))
        );
        let ahead = format!("{}:999", live.epoch);
        for other in ["", "x", "1-2:3", &ahead] {
            let mut other = live.enter(Some(other), None).unwrap();
            assert_eq!(told(&other.next().unwrap()).1["whole"], true);
        }
    }

    #[test]
    fn lines_are_told_from_the_first_and_then_as_they_come() {
        let live = Live::new();
        let line = |text: &str| raw(&json!({ "text": text }));
        let mut watcher = live.enter(None, Some("app".to_owned())).unwrap();
        take(&live, 1, vec![]);
        let (id, data) = told(&watcher.next().unwrap());
        assert_eq!(data["lines"], Value::Null);
        take(&live, 1, vec![("app", Ok(vec![line("a"), line("b")]))]);
        let lines = told(&watcher.next().unwrap()).1["lines"].clone();
        assert_eq!(lines["whole"], true);
        assert_eq!(lines["is"], json!([{"text": "a"}, {"text": "b"}]));
        take(&live, 1, vec![("app", Ok(vec![line("b"), line("c")]))]);
        let lines = told(&watcher.next().unwrap()).1["lines"].clone();
        assert_eq!(
            (&lines["whole"], &lines["is"]),
            (&json!(false), &json!([{"text": "c"}]))
        );
        // Who comes back has forgotten them.
        let mut again = live.enter(Some(&id), Some("app".to_owned())).unwrap();
        let lines = told(&again.next().unwrap()).1["lines"].clone();
        assert_eq!(lines["is"].as_array().map(Vec::len), Some(3));
        take(&live, 1, vec![("app", Err("gone".to_owned()))]);
        for watcher in [&mut watcher, &mut again] {
            let lines = told(&watcher.next().unwrap()).1["lines"].clone();
            assert_eq!(
                (&lines["whole"], &lines["refused"]),
                (&json!(true), &json!("gone"))
            );
        }
        drop((watcher, again));
        assert!(live.shared().wanted.is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_and_again_when_one_goes() {
        let live = Live::new();
        let mut all: Vec<_> = (0..WATCHERS_MAX).map(|_| live.enter(None, None)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(live.enter(None, None).is_none());
        all.pop();
        assert!(live.enter(None, None).is_some());
    }
}
