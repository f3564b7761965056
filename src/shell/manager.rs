//! What listend tells whoever started it: that it is ready, how it is, that it lives (sd_notify(3)).
//!
//! Nothing here waits: a manager that does not read holds nobody up, and what it has not taken is
//! offered again. Without a manager nothing is kept and nothing comes due.

mod manager_status;

use super::clock;
use super::logging;
use crate::core::Mono;
use crate::notify::{ManagerAddress, is_full, watchdog_interval};
use crate::plan::ListenerId;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

/// A status is told so long after the one before, at the earliest.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// What could not be sent, because too much is waiting for the manager already, is tried again after
/// this time.
const AGAIN: Duration = Duration::from_millis(100);
/// So many messages wait for a manager that does not read. The oldest goes first.
const WAITING_MAX: usize = 64;
/// systemd reads PIPE_BUF bytes of a message (NOTIFY_BUFFER_MAX), and a status is one line of it.
const STATUS_MAX: usize = 1024;
/// While something moves, the manager is asked for so much time again and again. Not above the unit's
/// `WatchdogSec=`, which systemd extends as well.
const EXTENSION: Duration = Duration::from_secs(30);
/// How often that is: two messages may be lost or late.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
/// So many names are in one status.
const NAMES_MAX: usize = 5;

/// The end of the line to the service manager.
#[derive(Debug, Default)]
pub struct Manager {
    line: Option<ManagerAddress>,
    watchdog: Option<Watchdog>,
    /// What was not sent yet, in order.
    waiting: VecDeque<Message>,
    /// When it is tried again.
    again_at: Option<Mono>,
    /// The status that was told last, and the earliest time for the next.
    told: String,
    next_status: Mono,
    /// One that came before that time.
    held_back: Option<String>,
    /// When more time is asked for, while something moves.
    extend_at: Option<Mono>,
    /// A reload has been told, and its end has not.
    is_reloading: bool,
    /// Something has happened that the status may be about.
    is_stale: bool,
    has_complained: bool,
    /// When it is told that listend is ready, and how far listend is.
    ready_when: ReadyWhen,
    phase: Phase,
    /// Listeners that listend does not wait for: it was ready with them, and their workers serve.
    unheld: BTreeSet<ListenerId>,
}

/// What has to be there before listend says that it is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadyWhen {
    /// Every listener but the optional ones, and every instance that runs from the start on, or has
    /// failed once: one that never gets ready must not hold up the others for ever.
    #[default]
    Ready,
    /// The listeners: clients can connect, and wait for the workers.
    Bound,
}

/// How far listend is, as its manager sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Ready,
    Stopping,
}

#[derive(Debug)]
struct Watchdog {
    every: Duration,
    next: Mono,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    text: String,
    /// A later one of the same kind makes it worthless.
    kind: MessageKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    /// Something that happened.
    News,
    Status,
    Alive,
    Extension,
}

impl Manager {
    /// What `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` say. They are left in the
    /// environment, out of which no worker gets them.
    pub fn from_environment() -> Manager {
        let line =
            std::env::var_os("NOTIFY_SOCKET").and_then(|name| match ManagerAddress::to(&name) {
                Ok(line) => Some(line),
                Err(why) => {
                    log::warn!(
                        "NOTIFY_SOCKET={}: {why}; the service manager is not notified",
                        name.display()
                    );
                    None
                }
            });
        let text = |name| std::env::var(name).ok();
        let every = watchdog_interval(
            text("WATCHDOG_USEC").as_deref(),
            text("WATCHDOG_PID").as_deref(),
            std::process::id(),
        );
        Manager::new(line, every, clock::now())
    }

    fn new(line: Option<ManagerAddress>, every: Option<Duration>, now: Mono) -> Manager {
        // sd_watchdog_enabled(3): "every half of the time returned here".
        let every = every.filter(|_| line.is_some()).map(|limit| limit / 2);
        let watchdog = every.map(|every| Watchdog {
            every,
            next: now + every,
        });
        Manager {
            line,
            watchdog,
            ..Manager::default()
        }
    }

    /// Whether only workers have the sockets of a listener, which was said.
    pub(super) fn knows_unheld(&self, listener: ListenerId) -> bool {
        self.unheld.contains(&listener)
    }

    /// Records that listend holds the listener again.
    pub(super) fn holds(&mut self, listener: ListenerId) {
        self.unheld.remove(&listener);
    }

    /// Whether there is anybody to tell anything.
    pub fn is_there(&self) -> bool {
        self.line.is_some()
    }

    /// When [`Manager::turn`] has something to do; `None` is never.
    pub fn deadline(&self) -> Option<Mono> {
        self.line.as_ref()?;
        let has_status = self.is_stale || self.held_back.is_some();
        let status = has_status.then_some(self.next_status);
        let watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.next);
        status
            .into_iter()
            .chain(watchdog)
            .chain(self.again_at)
            .chain(self.extend_at)
            .min()
    }

    /// Does what is due: tells a status that was held back, sends what waits, shows that listend
    /// lives.
    pub fn turn(&mut self, now: Mono) {
        if self.next_status <= now
            && let Some(text) = self.held_back.take()
        {
            self.tell_status(text, now);
        }
        if self.watchdog.as_ref().is_some_and(|dog| dog.next <= now) {
            self.alive(now);
        }
        if self.extend_at.is_some_and(|at| at <= now) {
            self.extend_timeout(now);
        }
        if self.again_at.is_some_and(|at| at <= now) {
            self.send(now);
        }
    }

    /// Everything that has to be there is there.
    pub fn ready(&mut self, status: &str, now: Mono) {
        self.news("READY=1", Some(status), now);
    }

    /// Tells how it is, if that is another text than the last, and not sooner than a second after
    /// it.
    pub fn status(&mut self, text: &str, now: Mono) {
        self.is_stale = false;
        if self.line.is_none() {
            return;
        }
        let text = one_line(text);
        if text == self.told {
            // It has changed and changed back in between.
            self.held_back = None;
        } else if self.next_status <= now {
            self.tell_status(text, now);
        } else {
            self.held_back = Some(text);
        }
    }

    /// The status may be another by now. It is asked for by [`Manager::wants_status`] as soon as it
    /// may be told, so that nobody has to make a text for each of thousands of events.
    pub fn something_changed(&mut self) {
        self.is_stale = self.line.is_some();
    }

    /// Whether it is time for [`Manager::status`].
    pub fn wants_status(&self, now: Mono) -> bool {
        self.is_stale && self.next_status <= now
    }

    /// The configuration is being read again. Ends with [`Manager::reloaded`], however it went:
    /// under `Type=notify-reload` systemd waits for that.
    pub fn reloading(&mut self, now: Mono) {
        self.is_reloading = true;
        self.extend_at = None;
        // By which systemd knows whether this is the reload that it has asked for.
        let text = format!("RELOADING=1\nMONOTONIC_USEC={}", now.0 / 1000);
        self.news(&text, None, now);
    }

    /// Reports the end of a reload.
    pub fn reloaded(&mut self, status: &str, now: Mono) {
        self.is_reloading = false;
        self.news("READY=1", Some(status), now);
    }

    /// listend was asked to stop.
    pub fn stopping(&mut self, status: &str, now: Mono) {
        // The manager counts anew, by another limit.
        self.extend_at = None;
        self.news("STOPPING=1", Some(status), now);
    }

    /// Shows that listend lives. [`Manager::turn`] does it in time.
    pub fn alive(&mut self, now: Mono) {
        let Some(watchdog) = &mut self.watchdog else {
            return;
        };
        watchdog.next = now + watchdog.every;
        self.post(MessageKind::Alive, "WATCHDOG=1\n".to_owned(), now);
    }

    /// Whether a start, a reload, a rollout or a stop is under way. While one is, the manager's own
    /// limit for it (`TimeoutStartSec=`, `TimeoutStopSec=` of systemd.service(5)) is extended: every
    /// step has a limit of its own here, and listend enforces those.
    pub fn set_moving(&mut self, moving: bool, now: Mono) {
        match (moving, self.extend_at) {
            (true, None) => self.extend_timeout(now),
            (false, Some(_)) => self.extend_at = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn extend_timeout(&mut self, now: Mono) {
        self.extend_at = Some(now + EXTEND_EVERY);
        let text = format!("EXTEND_TIMEOUT_USEC={}\n", EXTENSION.as_micros());
        self.post(MessageKind::Extension, text, now);
    }

    fn news(&mut self, text: &str, status: Option<&str>, now: Mono) {
        if self.line.is_none() {
            return;
        }
        let mut text = format!("{text}\n");
        if let Some(status) = status {
            self.told = one_line(status);
            self.next_status = now + STATUS_PAUSE;
            self.held_back = None;
            text = format!("{text}STATUS={}\n", self.told);
        }
        self.post(MessageKind::News, text, now);
    }

    fn tell_status(&mut self, text: String, now: Mono) {
        let message = format!("STATUS={text}\n");
        self.told = text;
        self.next_status = now + STATUS_PAUSE;
        self.post(MessageKind::Status, message, now);
    }

    fn post(&mut self, kind: MessageKind, text: String, now: Mono) {
        if kind != MessageKind::News {
            self.waiting.retain(|message| message.kind != kind);
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Message { text, kind });
        self.send(now);
    }

    /// Sends what waits, as far as it is taken.
    fn send(&mut self, now: Mono) {
        self.again_at = None;
        let Some(line) = &self.line else {
            return;
        };
        if !self.waiting.is_empty() {
            // What it is told of is in the log by then.
            logging::flush();
        }
        while let Some(message) = self.waiting.front() {
            match line.send(message.text.as_bytes()) {
                Ok(()) => {}
                Err(error) if is_full(&error) => {
                    self.again_at = Some(now + AGAIN);
                    return;
                }
                Err(error) if self.has_complained => {
                    log::debug!("cannot notify the service manager: {error}");
                }
                Err(error) => {
                    self.has_complained = true;
                    log::warn!(
                        "cannot notify the service manager at {}: {error}; listend continues, but \
                         may count as not started, or dead",
                        line.name()
                    );
                }
            }
            self.waiting.pop_front();
        }
    }
}

/// A line ends a variable, so that a status is one; and no longer than is read of it.
fn one_line(text: &str) -> String {
    let mut line = text.replace(char::is_control, " ");
    if line.len() > STATUS_MAX {
        let starts = line.char_indices().map(|(at, _)| at);
        let end = starts.take_while(|at| *at <= STATUS_MAX - 3).last();
        line.truncate(end.unwrap_or(0));
        line.push('…');
    }
    line
}

/// How all of it is, in one line: `3 listeners, 2 of 2 workers ready, 5 instances`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary<'a> {
    /// How many listeners are bound.
    pub listeners: usize,
    /// How many workers there are, without those that somebody has stopped.
    pub workers: usize,
    /// How many of them are ready: those that clients start always are.
    pub ready: usize,
    /// How many processes run, those of connections included.
    pub instances: usize,
    /// The names of listeners and workers that are not as they should be.
    pub degraded: Vec<&'a str>,
}

/// What is wrong stands in front: whoever shows the line may cut it.
impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.degraded.is_empty() {
            let shown = self.degraded.len().min(NAMES_MAX);
            write!(f, "degraded: {}", self.degraded[..shown].join(", "))?;
            if self.degraded.len() > shown {
                write!(f, " and {} more", self.degraded.len() - shown)?;
            }
            f.write_str("; ")?;
        }
        let plural = |number: usize| if number == 1 { "" } else { "s" };
        write!(
            f,
            "{} listener{}, {} of {} worker{} ready, {} instance{}",
            self.listeners,
            plural(self.listeners),
            self.ready,
            self.workers,
            plural(self.workers),
            self.instances,
            plural(self.instances)
        )
    }
}

#[cfg(test)]
mod tests;
