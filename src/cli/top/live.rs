//! The loop of `listend top`: keys, signals and what the daemon says.

use super::draw::draw;
use super::screen::{self, Screen};
use super::state::{TopState, Wish};
use super::style::Theme;
use crate::cli::client::{Client, Failure, Wait};
use crate::control::{LogsReply, Progress, Status, WatchReply};
use crate::core::Mono;
use crate::shell::clock;
use crate::usage;
use crate::verb::Verb;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The time from one answer of the daemon to the next request.
const PERIOD: Duration = Duration::from_secs(1);

/// So long a daemon may be silent before that is shown.
const SILENCE: Duration = Duration::from_secs(5);

/// An action on a worker that is under way.
struct PendingAction {
    verb: &'static Verb,
    worker: String,
    client: Client,
}

/// The state, and the connections that feed it.
pub struct Live {
    top: TopState,
    control: Option<PathBuf>,
    status: Option<Client>,
    watch: Option<Client>,
    act: Option<PendingAction>,
    /// The worker whose lines come, and what they come over; nothing if that has ended.
    lines: Option<(String, Option<Client>)>,
    /// When the last answer came.
    answered: Option<Mono>,
    /// The time of the next request, or of the one that has no answer yet.
    asked: Option<Mono>,
    next: Mono,
}

impl Live {
    /// The connection to the daemon at the path, made when the loop runs.
    pub fn new(control: Option<PathBuf>, top: TopState) -> Live {
        Live {
            top,
            control,
            status: None,
            watch: None,
            act: None,
            lines: None,
            answered: None,
            asked: None,
            next: clock::now(),
        }
    }

    /// Runs until the user quits; returns the signal that ended it, if one did.
    ///
    /// # Errors
    ///
    /// The terminal, or the system.
    pub fn run(mut self, screen: &mut Screen, theme: Theme) -> io::Result<Option<i32>> {
        let mut signals = Vec::new();
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGWINCH] {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, theirs)?;
            signals.push((signal, ours));
        }
        loop {
            self.ask();
            self.follow_lines();
            let now = clock::wall().as_secs();
            screen.draw(|frame| draw(frame, &self.top, now, theme))?;
            self.pause(&signals)?;
            for (signal, pipe) in &mut signals {
                let came = matches!(pipe.read(&mut [0; 64]), Ok(1..));
                if came && *signal != SIGWINCH {
                    return Ok(Some(*signal));
                }
            }
            for key in screen::keys()? {
                match self.top.key(key) {
                    Wish::Nothing => {}
                    Wish::Quit => return Ok(None),
                    Wish::Act(verb, worker) => self.start(verb, worker),
                }
            }
            self.hear();
        }
    }

    /// Waits for a key, a signal, the daemon, or the next request.
    fn pause(&self, signals: &[(i32, UnixStream)]) -> io::Result<()> {
        let stdin = io::stdin();
        let clients = [&self.status, &self.watch].into_iter().flatten();
        let acting = self.act.iter().map(|act| &act.client);
        let lines = self.lines.iter().filter_map(|(_, client)| client.as_ref());
        let mut wanted: Vec<PollFd> = clients
            .chain(acting)
            .chain(lines)
            .map(AsFd::as_fd)
            .chain(signals.iter().map(|(_, pipe)| pipe.as_fd()))
            .chain([stdin.as_fd()])
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let until = match self.asked {
            Some(since) => since + SILENCE,
            None => self.next,
        };
        // Rounded up, so that it is over when it is over; and the clock on the screen goes on.
        let left = until.since(clock::now()).min(PERIOD) + Duration::from_millis(1);
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(&mut wanted, left) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Connects if it has to, and asks if it is time.
    fn ask(&mut self) {
        let now = clock::now();
        if let Some(since) = self.asked {
            let silence = now.since(since);
            if silence >= SILENCE {
                let seconds = silence.as_secs();
                self.top.lost = Some(format!("the daemon has been silent for {seconds} s"));
            }
            return;
        }
        if now < self.next {
            return;
        }
        if let Err(failure) = self.ask_now() {
            self.lose(&failure);
        }
    }

    fn ask_now(&mut self) -> Result<(), Failure> {
        let mut client = match self.status.take() {
            Some(client) => client,
            None => {
                // The events between two connections are lost, and so would be those before the
                // first answer if this came second.
                let mut watch = self.connect()?;
                watch.send("Watch", &json!({}), true)?;
                self.watch = Some(watch);
                self.connect()?
            }
        };
        client.send("Status", &json!({}), false)?;
        self.status = Some(client);
        self.asked = Some(clock::now());
        Ok(())
    }

    fn connect(&self) -> Result<Client, Failure> {
        Client::connect(self.control.as_deref(), Wait::Never)
    }

    /// Keeps what is shown, with the reason why it is not updated.
    fn lose(&mut self, failure: &Failure) {
        let (words, _) = failure.words();
        self.top.lost = Some(words);
        self.status = None;
        self.watch = None;
        self.lines = None;
        self.asked = None;
        self.next = clock::now() + PERIOD;
    }

    /// Has the lines come of the worker that is chosen, if they are shown.
    fn follow_lines(&mut self) {
        let wanted = self.top.wants_lines_of().map(|worker| &worker.name);
        if wanted == self.lines.as_ref().map(|(worker, _)| worker) {
            return;
        }
        let Some(worker) = wanted.cloned() else {
            self.lines = None;
            return;
        };
        let client = self.connect().and_then(|mut client| {
            let parameters = json!({ "worker": worker, "follow": true });
            client.send("Logs", &parameters, true)?;
            Ok(client)
        });
        if let Err(failure) = &client {
            self.top.notice = Some(failure.words().0);
        }
        self.lines = Some((worker, client.ok()));
    }

    fn hear_lines(&mut self) {
        while let Some((worker, Some(client))) = &mut self.lines {
            match client.poll::<LogsReply>() {
                Ok(Some(answer)) => {
                    if let Some(line) = answer.of.line {
                        let instance = line.instance.unwrap_or_default();
                        self.top.wrote(worker, format!("{instance} {}", line.text));
                    }
                }
                Ok(None) => break,
                // With the daemon, which is said elsewhere.
                Err(_) => self.lines = Some((std::mem::take(worker), None)),
            }
        }
    }

    fn start(&mut self, verb: &'static Verb, worker: String) {
        let client = self.connect().and_then(|mut client| {
            let parameters = json!({ "worker": worker });
            client.send(verb.method, &parameters, true)?;
            Ok(client)
        });
        match client {
            Ok(client) => {
                self.act = Some(PendingAction {
                    verb,
                    worker,
                    client,
                });
            }
            Err(failure) => self.top.notice = Some(failure.words().0),
        }
    }

    /// Takes whatever the daemon has said.
    fn hear(&mut self) {
        self.hear_lines();
        let mut failed = self.hear_status().err();
        while let (None, Some(watch)) = (&failed, &mut self.watch) {
            match watch.poll::<WatchReply>() {
                Ok(Some(answer)) => {
                    if let Some(event) = answer.of.event {
                        self.top.happened(event);
                    }
                }
                Ok(None) => break,
                Err(failure) => failed = Some(failure),
            }
        }
        if let Some(failure) = failed {
            self.lose(&failure);
        }
        while let Some(mut act) = self.act.take() {
            match act.client.poll::<Progress>() {
                Ok(Some(answer)) => {
                    let (verb, is_last) = (act.verb, answer.is_last);
                    self.top.acted(verb, &act.worker, &answer.of, is_last);
                    if is_last {
                        break;
                    }
                }
                Ok(None) => {
                    self.act = Some(act);
                    break;
                }
                Err(failure) => {
                    let (words, hint) = failure.words();
                    let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
                    self.top.notice = Some(format!("{}: {words}{hint}", act.worker));
                    break;
                }
            }
            self.act = Some(act);
        }
    }

    fn hear_status(&mut self) -> Result<(), Failure> {
        let Some(client) = &mut self.status else {
            return Ok(());
        };
        if let Some(mut answer) = client.poll::<Status>()? {
            usage::note(&mut answer.of);
            let now = clock::now();
            if let Some(before) = self.answered.replace(now) {
                self.top.measured(&answer.of, now.since(before));
            }
            self.top.took(answer.of);
            self.asked = None;
            self.next = clock::now() + PERIOD;
        }
        Ok(())
    }
}
