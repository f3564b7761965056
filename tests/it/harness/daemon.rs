//! The program under test, with what it says and how it ends as events.

use super::{DEADLINE, children, is_root, kill, listend_path};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How to start it.
pub struct Start {
    program: PathBuf,
    words: Vec<String>,
    through: Vec<String>,
    environment: BTreeMap<String, String>,
    directory: Option<PathBuf>,
}

impl Start {
    /// With these words behind `listend`.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Start {
        Start::of(listend_path(), words)
    }

    /// Another program, to be compared with it.
    pub fn of<'a>(program: &Path, words: impl IntoIterator<Item = &'a str>) -> Start {
        Start {
            program: program.to_owned(),
            words: words.into_iter().map(str::to_owned).collect(),
            through: Vec::new(),
            environment: BTreeMap::new(),
            directory: None,
        }
    }

    /// With these words at the end.
    pub fn words_behind<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) -> &mut Start {
        self.words.extend(words.into_iter().map(str::to_owned));
        self
    }

    /// Whether this word is there.
    pub fn has_word(&self, word: &str) -> bool {
        self.words.iter().any(|one| one == word)
    }

    /// Put behind the words of a command that ends in executing it.
    pub fn through<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) -> &mut Start {
        self.through = words.into_iter().map(str::to_owned).collect();
        self
    }

    /// With this variable. Nothing else but PATH and HOME is in the environment, and the `XDG_RUNTIME_DIR` that every
    /// user but root has.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Start {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// In this folder.
    pub fn directory(&mut self, path: impl Into<PathBuf>) -> &mut Start {
        self.directory = Some(path.into());
        self
    }

    /// With placeholders filled in.
    pub(super) fn filled(mut self, fill: impl Fn(&str) -> String) -> Start {
        if !is_root() {
            let runtime = self.environment.entry("XDG_RUNTIME_DIR".to_owned());
            runtime.or_insert_with(|| "$DIR".to_owned());
        }
        for word in self.words.iter_mut().chain(&mut self.through) {
            *word = fill(word);
        }
        for value in self.environment.values_mut() {
            *value = fill(value);
        }
        self
    }

    fn command(&self) -> Command {
        let program = self.program.to_str().expect("UTF-8").to_owned();
        let mut words = self.through.iter().chain([&program]).chain(&self.words);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).env_clear();
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(&self.environment);
        if let Some(path) = &self.directory {
            command.current_dir(path);
        }
        command
    }
}

/// How it ended, and all it said.
#[derive(Debug)]
pub struct Finished {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}) in {self:#?}"))
    }

    /// Everything it said, for people or machines.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Checks the exit code; shows everything if it is another.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Finished {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    stdout: String,
    readers: u32,
    exited: bool,
    status: Option<ExitStatus>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves the state whole: it only grows.
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }
}

/// Whether it still runs, for those who do not own it.
pub struct Watch(Arc<Shared>);

impl Watch {
    /// Whether it has ended.
    pub fn has_exited(&self) -> bool {
        self.0.lock().exited
    }
}

/// The running program. Dropped, it is asked to stop, then made to; with its children.
pub struct Daemon {
    pid: i32,
    shared: Arc<Shared>,
}

impl Daemon {
    /// Starts it.
    pub fn start(start: Start) -> Daemon {
        let mut child = start
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start listend");
        let shared = Arc::new(Shared::default());
        shared.lock().readers = 2;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (pid, ours) = (child.id() as i32, &shared);
        let shared = Arc::clone(ours);
        std::thread::spawn(move || read_lines(&shared, stderr.expect("a pipe")));
        let shared = Arc::clone(ours);
        std::thread::spawn(move || read_output(&shared, stdout.expect("a pipe")));
        let shared = Arc::clone(ours);
        std::thread::spawn(move || await_exit(&shared, child));
        Daemon {
            pid,
            shared: Arc::clone(ours),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Somebody else to know whether it runs.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }

    /// Stops the daemon, so that it takes part in nothing until [`Daemon::resume`].
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        super::eventually("it is stopped", || super::state(self.pid) == Some('T'));
    }

    /// Lets a stopped daemon go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        // Under the lock: it is reaped only after `exited` is set, so the pid is still its own.
        if !self.shared.lock().exited {
            kill(self.pid, signal);
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        !self.shared.lock().exited
    }

    /// Waits until `ask` has an answer.
    #[track_caller]
    fn wait<T>(&self, what: &str, mut ask: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.shared.lock();
        loop {
            if let Some(answer) = ask(&state) {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let nothing_will_come = state.status.is_some() && state.readers == 0;
            assert!(
                !left.is_zero() && !nothing_will_come,
                "waited in vain for {what}; {}",
                if state.exited {
                    "it has ended"
                } else {
                    "it runs"
                }
            );
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|error| error.into_inner()).0;
        }
    }

    /// Waits for a line of standard error with all of these words in it, and returns it.
    #[track_caller]
    pub fn line(&self, words: &[&str]) -> String {
        self.lines(words, 1).remove(0)
    }

    /// Waits for so many lines with all of these words in them.
    #[track_caller]
    pub fn lines(&self, words: &[&str], count: usize) -> Vec<String> {
        self.wait(&format!("{count} lines with {words:?}"), |state| {
            let found = matching(&state.lines, words);
            (found.len() >= count).then_some(found)
        })
    }

    /// The process ids of the daemons that this guard has started, once they are so many; in a pid
    /// namespace, those in there.
    #[track_caller]
    pub fn guarded(&self, count: usize) -> Vec<i32> {
        const STARTED: &str = "guard: started listend (pid ";
        let pid = |line: String| {
            let (_, rest) = line.split_once(STARTED).expect("found by it");
            rest.split_once(')')?.0.parse().ok()
        };
        let lines = self.lines(&[STARTED], count).into_iter();
        lines.map(|line| pid(line).expect("a pid")).collect()
    }

    /// The lines so far with all of these words in them.
    pub fn lines_so_far(&self, words: &[&str]) -> Vec<String> {
        matching(&self.shared.lock().lines, words)
    }

    /// Everything on standard error so far.
    pub fn stderr(&self) -> String {
        self.shared.lock().lines.join("\n")
    }

    /// Waits until a listener is bound, and returns the addresses it got.
    #[track_caller]
    pub fn addresses(&self, listener: &str, count: usize) -> Vec<SocketAddr> {
        let what = format!("{count} addresses of listener {listener}");
        self.wait(&what, |state| {
            let lines = matching(&state.lines, &["listening on"]);
            let ours = lines.iter().filter(|line| names(line, listener));
            let words = ours.flat_map(|line| line.split_whitespace());
            let found: Vec<SocketAddr> = words
                .filter_map(|word| word.trim_matches([',', ';', '`', '(', ')']).parse().ok())
                .collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Waits until a listener is bound to one address, and returns it.
    #[track_caller]
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.addresses(listener, 1)[0]
    }

    /// Waits for its end, and returns how it ended.
    #[track_caller]
    pub fn status(&self) -> ExitStatus {
        self.wait("its end", |state| state.status)
    }

    /// Waits for its end and for the last of what it and its workers said.
    #[track_caller]
    pub fn finish(&self) -> Finished {
        let status = self.status();
        self.wait("the end of its output", |state| {
            (state.readers == 0).then(|| Finished {
                code: status.code(),
                stdout: state.stdout.clone(),
                stderr: state.lines.join("\n"),
            })
        })
    }

    /// SIGTERM, and exit code 0.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::SIGTERM);
        let status = self.status();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }

    /// Waits a little for the end; whether it came.
    fn ends_within(&self, time: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, time, |state| !state.exited);
        waited.unwrap_or_else(|error| error.into_inner()).0.exited
    }
}

/// The words of a line name a listener in more than one way: `web`, `` `web` ``, `web:`.
fn names(line: &str, listener: &str) -> bool {
    line.split_whitespace()
        .any(|word| word.trim_matches(['`', ':', ',', '"', '[', ']']) == listener)
}

fn matching(lines: &[String], words: &[&str]) -> Vec<String> {
    let all = |line: &&String| words.iter().all(|word| line.contains(word));
    lines.iter().filter(all).cloned().collect()
}

fn read_lines(shared: &Shared, pipe: impl Read) {
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        shared.lock().lines.push(line);
        shared.changed.notify_all();
    }
    shared.lock().readers -= 1;
    shared.changed.notify_all();
}

fn read_output(shared: &Shared, mut pipe: impl Read) {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    let mut state = shared.lock();
    state.stdout = String::from_utf8_lossy(&bytes).into_owned();
    state.readers -= 1;
    drop(state);
    shared.changed.notify_all();
}

fn await_exit(shared: &Shared, mut child: Child) {
    let pid = Pid::from_raw(child.id() as i32);
    // Not reaped before `exited` is set, so that nobody signals a stranger with the same pid.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(pid), flags) == Err(nix::errno::Errno::EINTR) {}
    shared.lock().exited = true;
    let status = child.wait().expect("wait for listend");
    shared.lock().status = Some(status);
    shared.changed.notify_all();
}

impl Drop for Daemon {
    #[expect(clippy::print_stderr, reason = "shown by cargo test for a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- standard error of listend:\n{}\n---", self.stderr());
        }
        // Twice: the second SIGTERM hurries.
        for _ in 0..2 {
            self.signal(Signal::SIGTERM);
            if self.ends_within(Duration::from_secs(2)) {
                return;
            }
        }
        // Each is a child that its parent has not reaped, since the parent is stopped.
        self.signal(Signal::SIGSTOP);
        for child in children(self.pid) {
            kill(child, Signal::SIGKILL);
        }
        self.signal(Signal::SIGKILL);
        self.ends_within(DEADLINE);
    }
}
