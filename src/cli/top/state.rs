//! The state of `listend top`, and the effect of its keys. No terminal, no socket, no clock.

use crate::control::{Event, Listener, Progress, Status, Worker};
use crate::verb::{RESTART, START, STOP, Verb};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// So many samples of each queue are kept, a second apart: two minutes.
const SAMPLES: usize = 120;
/// So many events are kept, more than any screen has lines.
const EVENTS: usize = 200;
/// The lines that Page Up and Page Down go.
const PAGE: usize = 10;

/// A key, as far as it means anything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The arrow up.
    Up,
    /// The arrow down.
    Down,
    /// Several lines up.
    PageUp,
    /// Several lines down.
    PageDown,
    /// The key for the first line.
    Home,
    /// The key for the last line.
    End,
    /// The key for the other list.
    Tab,
    /// Away from what was asked.
    Escape,
    /// The end of what is typed.
    Enter,
    /// Takes back the last letter.
    Backspace,
    /// The way out of every program.
    Interrupt,
    /// The key of a letter.
    Letter(char),
}

/// The request of a key that the state cannot carry out itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// No request.
    Nothing,
    /// End the program.
    Quit,
    /// Carry out this verb on the worker with this name.
    Act(&'static Verb, String),
}

/// The list that the keys move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// The list of the listeners.
    Listeners,
    /// The list of the workers.
    Workers,
}

/// The dialog over the lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialog {
    /// No dialog.
    None,
    /// The help with the keys.
    Help,
    /// The question whether to carry out this verb on the worker with this name.
    Confirm(&'static Verb, String),
    /// What the lists are to have is being typed.
    Filter,
}

/// The state that the screen shows.
#[derive(Debug)]
pub struct TopState {
    /// The daemon, for the title.
    pub daemon: String,
    /// The last answer.
    pub all: Status,
    /// What the lists show of it: what is wrong stands first.
    pub status: Status,
    /// Only what has this in its name, its state or its address is in the lists.
    pub filter: String,
    /// The part of a CPU that instances have used between the last two answers, in percent, by pid.
    pub shares: HashMap<u32, u64>,
    /// Whether the lines of the chosen worker are shown in place of the events.
    pub shows_lines: bool,
    /// The lines, with the name of the worker; the newest last.
    pub lines: (String, VecDeque<String>),
    /// Why there is no newer one.
    pub lost: Option<String>,
    /// The newest first.
    pub events: VecDeque<Event>,
    /// The result of the last action.
    pub notice: Option<String>,
    /// The list that the keys move in.
    pub pane: Pane,
    /// The dialog over the lists.
    pub dialog: Dialog,
    /// The name of the chosen worker: an index would move when the list changes.
    worker: Option<String>,
    listener: Option<String>,
    /// The queue depths by listener and address; the newest last.
    depths: HashMap<(String, String), VecDeque<u64>>,
}

impl TopState {
    /// The state with the first answer of the daemon.
    pub fn new(daemon: String, status: Status) -> TopState {
        let mut top = TopState {
            daemon,
            all: Status::default(),
            status: Status::default(),
            filter: String::new(),
            shares: HashMap::new(),
            shows_lines: false,
            lines: (String::new(), VecDeque::new()),
            lost: None,
            events: VecDeque::new(),
            notice: None,
            pane: Pane::Workers,
            dialog: Dialog::None,
            worker: None,
            listener: None,
            depths: HashMap::new(),
        };
        top.took(status);
        top
    }

    /// The daemon answered.
    pub fn took(&mut self, status: Status) {
        let mut depths = HashMap::new();
        for listener in &status.listeners {
            for socket in &listener.sockets {
                let key = (listener.name.clone(), socket.name());
                // What is not taken over here was of a socket that is no longer there.
                let mut samples = self.depths.remove(&key).unwrap_or_default();
                samples.extend(socket.queue.and_then(|queue| queue.depth));
                while samples.len() > SAMPLES {
                    samples.pop_front();
                }
                depths.insert(key, samples);
            }
        }
        self.depths = depths;
        self.all = status;
        self.select();
        self.lost = None;
    }

    /// Notes what instances have used since the answer before.
    pub fn measured(&mut self, status: &Status, elapsed: Duration) {
        let used = |status: &Status| -> HashMap<u32, u64> {
            let all = status.workers.iter().flat_map(|worker| &worker.instances);
            all.filter_map(|one| Some((one.pid?, one.usage?.cpu_milliseconds)))
                .collect()
        };
        let (before, now) = (used(&self.all), used(status));
        let elapsed = u64::try_from(elapsed.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let share = |(pid, now): (u32, u64)| {
            let used = now.saturating_sub(*before.get(&pid)?);
            Some((pid, used.saturating_mul(100) / elapsed))
        };
        self.shares = now.into_iter().filter_map(share).collect();
    }

    /// Puts into the lists what belongs there: what is wrong first, the rest as in the configuration.
    fn select(&mut self) {
        let mut status = self.all.clone();
        let wanted = self.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        status.listeners.retain(|one| {
            let mut sockets = one.sockets.iter();
            has(&one.name) || has(one.state.word()) || sockets.any(|one| has(&one.address))
        });
        status.workers.retain(|one| {
            let mut instances = one.instances.iter();
            let any = instances.any(|one| has(&one.name) || has(one.word()));
            has(&one.name) || has(one.state.word()) || any
        });
        status.listeners.sort_by_key(Listener::is_well);
        status.workers.sort_by_key(Worker::is_well);
        self.status = status;
    }

    /// The worker whose lines are to be shown.
    pub fn wants_lines_of(&self) -> Option<&Worker> {
        self.worker().filter(|_| self.shows_lines)
    }

    /// A worker has written a line.
    pub fn wrote(&mut self, worker: &str, line: String) {
        let (of, lines) = &mut self.lines;
        if of != worker {
            worker.clone_into(of);
            lines.clear();
        }
        lines.push_back(line);
        while lines.len() > EVENTS {
            lines.pop_front();
        }
    }

    /// Takes in an event.
    pub fn happened(&mut self, event: Event) {
        self.events.push_front(event);
        self.events.truncate(EVENTS);
    }

    /// The daemon told how far an action is.
    pub fn acted(&mut self, verb: &Verb, worker: &str, progress: &Progress, is_last: bool) {
        let (done, of) = (progress.done, progress.of);
        let verb = verb.name;
        let message = progress.message.as_deref().map(|words| {
            // The name stands in front of it already.
            let rest = words.strip_prefix(worker);
            rest.and_then(|rest| rest.strip_prefix(": "))
                .unwrap_or(words)
        });
        let words = match (message, is_last) {
            (Some(message), true) => format!("{verb} {worker}: {message}"),
            (Some(message), false) => format!("{verb} {worker}: {done} of {of}: {message}"),
            (None, false) => format!("{verb} {worker}: {done} of {of}"),
            (None, true) => format!("{verb} {worker}: done"),
        };
        self.notice = Some(words);
    }

    /// The number of clients that waited at a socket, second by second; the newest last.
    pub fn samples(&self, listener: &str, address: &str) -> impl DoubleEndedIterator<Item = u64> {
        let key = (listener.to_owned(), address.to_owned());
        self.depths.get(&key).into_iter().flatten().copied()
    }

    /// The worker that the keys act on.
    pub fn worker(&self) -> Option<&Worker> {
        self.status.workers.get(self.worker_index())
    }

    /// The index of the chosen worker in the list.
    pub fn worker_index(&self) -> usize {
        let name = |one: &Worker| Some(&one.name) == self.worker.as_ref();
        self.status.workers.iter().position(name).unwrap_or(0)
    }

    /// The index of the chosen listener in the list.
    pub fn listener_index(&self) -> usize {
        let name = |one: &Listener| Some(&one.name) == self.listener.as_ref();
        self.status.listeners.iter().position(name).unwrap_or(0)
    }

    /// Takes in a key.
    pub fn key(&mut self, key: Key) -> Wish {
        if key == Key::Interrupt {
            return Wish::Quit;
        }
        match std::mem::replace(&mut self.dialog, Dialog::None) {
            Dialog::None => self.command(key),
            // Any key closes it.
            Dialog::Help => Wish::Nothing,
            Dialog::Filter => {
                self.type_filter(key);
                Wish::Nothing
            }
            Dialog::Confirm(verb, worker) => match key {
                Key::Letter('y' | 'Y') => {
                    self.notice = Some(format!("{} {worker} …", verb.name));
                    Wish::Act(verb, worker)
                }
                Key::Letter('n' | 'N' | 'q') | Key::Escape => Wish::Nothing,
                _ => {
                    // Neither yes nor no.
                    self.dialog = Dialog::Confirm(verb, worker);
                    Wish::Nothing
                }
            },
        }
    }

    fn command(&mut self, key: Key) -> Wish {
        match key {
            Key::Letter('q') | Key::Interrupt => return Wish::Quit,
            Key::Letter('?' | 'h') => self.dialog = Dialog::Help,
            Key::Letter('/') => self.dialog = Dialog::Filter,
            Key::Letter('l') => self.shows_lines = !self.shows_lines,
            Key::Letter('r') => self.confirm(&RESTART),
            Key::Letter('s') => self.confirm(&STOP),
            Key::Letter('S') => self.confirm(&START),
            Key::Up | Key::Letter('k') => self.go(|at, _| at.saturating_sub(1)),
            Key::Down | Key::Letter('j') => self.go(|at, _| at + 1),
            Key::PageUp => self.go(|at, _| at.saturating_sub(PAGE)),
            Key::PageDown => self.go(|at, _| at + PAGE),
            Key::Home | Key::Letter('g') => self.go(|_, _| 0),
            Key::End | Key::Letter('G') => self.go(|_, last| last),
            Key::Tab => {
                self.pane = match self.pane {
                    Pane::Listeners => Pane::Workers,
                    Pane::Workers => Pane::Listeners,
                }
            }
            Key::Escape => {
                self.notice = None;
                self.filter.clear();
                self.select();
            }
            Key::Letter(_) | Key::Enter | Key::Backspace => {}
        }
        Wish::Nothing
    }

    /// The lists follow while it is typed.
    fn type_filter(&mut self, key: Key) {
        self.dialog = Dialog::Filter;
        match key {
            Key::Letter(letter) => self.filter.push(letter),
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Escape => {
                self.filter.clear();
                self.dialog = Dialog::None;
            }
            _ => self.dialog = Dialog::None,
        }
        self.select();
    }

    fn confirm(&mut self, verb: &'static Verb) {
        match (self.pane, self.worker()) {
            (Pane::Workers, Some(worker)) => {
                self.dialog = Dialog::Confirm(verb, worker.name.clone());
            }
            (Pane::Workers, None) => self.notice = Some("there is no worker".to_owned()),
            (Pane::Listeners, _) => {
                let verb = verb.name;
                self.notice = Some(format!("select a worker to {verb}: Tab switches to them"));
            }
        }
    }

    /// Moves to the line that is told from this one and the last one.
    fn go(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        match self.pane {
            Pane::Listeners => {
                let last = self.status.listeners.len().saturating_sub(1);
                let at = to(self.listener_index(), last).min(last);
                self.listener = self.status.listeners.get(at).map(|one| one.name.clone());
            }
            Pane::Workers => {
                let last = self.status.workers.len().saturating_sub(1);
                let at = to(self.worker_index(), last).min(last);
                self.worker = self.status.workers.get(at).map(|one| one.name.clone());
            }
        }
    }
}
