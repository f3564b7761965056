//! `listend top` on a real terminal, which is tmux, against a daemon that says what the test wants.

use crate::harness::standin::{StandIn, Talk};
use crate::harness::{DEADLINE, Start, World, eventually, listend_path, require_tool};
use listend::control::{
    Argument, Event, Instance, Listener, ListenerState, Progress, Queue, Request, Socket, Status,
    WatchReply, Worker, WorkerState, rfc3339,
};
use listend::verb::{self, RESTART};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A tmux server of its own, ended with the test.
struct Tmux {
    tmux: PathBuf,
    socket: PathBuf,
}

impl Tmux {
    /// A shell in a terminal of 80 columns and 24 lines.
    fn start(tmux: PathBuf, world: &World) -> Tmux {
        let tmux = Tmux {
            tmux,
            socket: world.path("tmux"),
        };
        let shell = "exec env PS1='$ ' LC_ALL=C.UTF-8 sh";
        tmux.run(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            shell,
        ]);
        // What is typed before its prompt would be shown twice, and shift the lines.
        tmux.shows(&["$"]);
        tmux
    }

    fn run(&self, words: &[&str]) -> String {
        let mut run = Command::new(&self.tmux);
        run.arg("-u").arg("-S").arg(&self.socket).args(words);
        // Whoever runs the tests may sit in a tmux.
        run.env_remove("TMUX").env("LC_ALL", "C.UTF-8");
        let output = run.output().expect("start tmux");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn keys(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits until the screen has all of these.
    #[track_caller]
    fn shows(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen = self.screen();
            if words.iter().all(|word| screen.contains(word)) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no {words:?} in\n{screen}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let mut end = Command::new(&self.tmux);
        let _ended = end.arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

fn status() -> Status {
    let queue = Queue {
        depth: Some(3),
        limit: Some(4),
        drops: Some(0),
    };
    let instance = |name: &str| Instance {
        name: name.to_owned(),
        retrying: false,
        generation: 1,
        pid: None,
        state: WorkerState::Waiting,
        reloading: false,
        status: None,
        since: rfc3339(0),
        restarts: 0,
        last_exit: None,
        exit_status: None,
        exit_signal: None,
        next_try: None,
        usage: None,
    };
    let worker = |name: &str| Worker {
        name: name.to_owned(),
        activation: "on-demand".to_owned(),
        generation: 1,
        state: WorkerState::Waiting,
        setback: None,
        scaling: None,
        unused_since: None,
        instances: vec![instance(name)],
        listeners: vec!["web".to_owned()],
        output: None,
        connections: None,
        detail: None,
    };
    Status {
        daemon: None,
        listeners: vec![Listener {
            name: "web".to_owned(),
            sockets: vec![Socket {
                address: "127.0.0.1:8080".to_owned(),
                kind: "tcp".to_owned(),
                queue: Some(queue),
                shard: None,
                flows: None,
            }],
            state: ListenerState::Listening,
            workers: vec!["app".to_owned()],
            detail: None,
        }],
        workers: vec![worker("app"), worker("batch")],
    }
}

fn answer(request: &Request, talk: &mut Talk) {
    match request {
        Request::Status { .. } => talk.last(&status()),
        Request::Watch { .. } => {
            talk.step(&WatchReply { event: None });
            let event = Event {
                time: rfc3339(0),
                message: "app.0: started, pid 4711".to_owned(),
                ..Event::default()
            };
            talk.step(&WatchReply { event: Some(event) });
        }
        Request::Operate { verb, .. } if *verb == &RESTART => {
            let progress = |done| Progress {
                done,
                of: 2,
                ..Progress::default()
            };
            talk.step(&progress(1));
            talk.last(&progress(2));
        }
        other => panic!("{other:?}"),
    }
}

fn command(daemon: &StandIn, before: &str) -> String {
    let listend = listend_path().to_str().expect("UTF-8");
    let control = daemon.path();
    // The code is in two parts, so that the line that is typed is not taken for what it prints.
    format!("{before} {listend} top --control {control}; echo ended with $?, 'and'' back'")
}

#[test]
fn a_person_sees_moves_acts_and_leaves() {
    let Some(tmux) = require_tool("tmux") else {
        return;
    };
    let world = World::new();
    let daemon = StandIn::listen(&world.path("control.sock"), answer);
    let tmux = Tmux::start(tmux, &world);
    tmux.keys(&[&command(&daemon, "NO_COLOR=1"), "Enter"]);
    let screen = tmux.shows(&["3/4", "started, pid 4711"]);
    let golden = include_str!("../golden/top-tmux.txt");
    // Path and time are other ones each time, and so is how much of the past there is.
    let of = |screen: &str| -> Vec<String> {
        let lines = screen.lines().enumerate();
        let shown = lines.filter(|(number, _)| ![0, 3].contains(number));
        shown.map(|(_, line)| line.to_owned()).collect()
    };
    assert_eq!(of(&screen), of(golden), "\n{screen}");

    tmux.keys(&["j", "r"]);
    tmux.shows(&["restart worker batch? y/n"]);
    tmux.keys(&["y"]);
    tmux.shows(&["restart batch: done"]);
    let wanted = Request::Operate {
        verb: &RESTART,
        argument: Argument::Nothing(verb::Command::Restart),
        worker: "batch".to_owned(),
        no_wait: false,
    };
    assert!(daemon.requests().contains(&wanted));
    tmux.keys(&["?"]);
    tmux.shows(&["start the worker"]);
    tmux.keys(&["Escape"]);
    tmux.run(&["resize-window", "-x", "100", "-y", "30"]);
    eventually("the footer is in the last line", || {
        let screen = tmux.screen();
        screen
            .lines()
            .nth(29)
            .is_some_and(|line| line.contains("q quit"))
    });
    tmux.keys(&["q"]);
    let screen = tmux.shows(&["ended with 0, and back"]);
    assert!(!screen.contains("LISTENER"), "{screen}");
}

/// The process that runs `listend top` with this socket.
fn process(control: &Path) -> Option<i32> {
    let entries = std::fs::read_dir("/proc").expect("list /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        let program = listend_path().to_str().expect("UTF-8");
        words.first() == Some(&program) && words.contains(&control.to_str().expect("UTF-8"))
    };
    pids.into_iter().find(is_it)
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let Some(tmux) = require_tool("tmux") else {
        return;
    };
    let world = World::new();
    let daemon = StandIn::listen(&world.path("control.sock"), answer);
    let tmux = Tmux::start(tmux, &world);
    tmux.keys(&[&command(&daemon, ""), "Enter"]);
    tmux.shows(&["3/4"]);
    let pid = process(Path::new(daemon.path())).expect("it runs");
    crate::harness::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let screen = tmux.shows(&["ended with 143, and back"]);
    assert!(!screen.contains("LISTENER"), "{screen}");
    // What is typed is shown again, and lines end where they should.
    tmux.keys(&[
        "stty -a | grep -o ' icanon\\| echo ' | tr -d '\\n'",
        "Enter",
    ]);
    tmux.shows(&[" icanon echo "]);
}

#[test]
fn a_terminal_without_a_cursor_is_refused() {
    let Some(tmux) = require_tool("tmux") else {
        return;
    };
    let world = World::new();
    let daemon = StandIn::listen(&world.path("control.sock"), answer);
    let tmux = Tmux::start(tmux, &world);
    tmux.keys(&[&command(&daemon, "TERM=dumb"), "Enter"]);
    tmux.shows(&["TERM is `dumb`", "ended with 1, and back"]);
    assert_eq!(daemon.requests(), []);
}

// Rule: a terminal is as large as it says (ioctl_tty(2)), up to what there is memory for.
#[test]
fn a_terminal_of_any_size_is_drawn_on() {
    let Some(python) = require_tool("python3") else {
        return;
    };
    let world = World::new();
    let daemon = StandIn::listen(&world.path("control.sock"), answer);
    let script = "import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 65535, 65535, 0, 0))
    os.environ['TERM'] = 'xterm'
    os.execv(sys.argv[1], ['listend', 'top', '--control', sys.argv[2]])
seen = b''
while b'3/4' not in seen:
    try:
        seen += os.read(terminal, 1 << 16)
    except OSError:
        break
else:
    os.write(terminal, b'q')
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:
        pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    world.write("terminal.py", script);
    let mut start = Start::of(&python, ["$DIR/terminal.py"]);
    start.words_behind([listend_path().to_str().expect("UTF-8"), daemon.path()]);
    world.start(start).finish().expect_code(0);
}
