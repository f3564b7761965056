//! The workers of examples/workers, started as their configurations say: each takes two listeners by
//! name, and loses nobody when it is replaced, or told to stop. When it is killed, only those are cut
//! whom it had accepted.

use crate::harness::load::{Counts, Load};
use crate::harness::servers::{server, server_that_says};
use crate::harness::varlink::Varlink;
use crate::harness::{
    Daemon, World, client, eventually, example, exists, kill, queued, skip, state,
};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";

/// How hard a worker is tried.
#[derive(Clone, Copy)]
struct Effort {
    /// Of each listener.
    clients: usize,
    /// So often it is replaced, and so often killed.
    rounds: usize,
    /// Of the second listener.
    sockets: usize,
}

const USUAL: Effort = Effort {
    clients: 2,
    rounds: 3,
    sockets: 2,
};

/// For Java, which takes one socket, and long to start: clients without end would keep it from the
/// processor.
const SLOW: Effort = Effort {
    clients: 1,
    rounds: 1,
    sockets: 1,
};

/// A worker, as a user would run it.
struct Example {
    world: World,
    daemon: Daemon,
    control: Varlink,
    /// As in the configuration.
    workers: Vec<String>,
    effort: Effort,
}

impl Example {
    /// With `examples/workers/NAME.yaml`, in which some texts are replaced: paths, say.
    fn start(world: World, name: &str, effort: Effort, replaced: &[(&str, &str)]) -> Example {
        let rounds = match std::env::var_os("LISTEND_TEST_LONG") {
            Some(_) => 10 * effort.rounds,
            None => effort.rounds,
        };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workers");
        let path = folder.join(format!("{name}.yaml"));
        let mut yaml = fs::read_to_string(&path).expect("the configuration");
        for (from, to) in replaced {
            assert!(yaml.contains(from), "no {from} in {}", path.display());
            yaml = yaml.replace(from, to);
        }
        let folder = folder.to_str().expect("UTF-8");
        let quick = "rollout: { min_ready: 0, parallel: 2 }
    restart: { backoff: 1ms..5ms, limit: none }
    nonblocking:";
        // Its name comes twice, but where a worker can take one socket only.
        let admin = match effort.sockets {
            1 => "unix:$DIR/admin.sock",
            _ => "[ 'unix:$DIR/admin.sock', 'unix:$DIR/other.sock' ]",
        };
        let yaml = yaml
            .replace("examples/workers/", &format!("{folder}/"))
            .replace("127.0.0.1:8080", "127.0.0.1:0")
            .replace("127.0.0.1:8081", admin)
            .replace("nonblocking:", quick);
        let daemon = world.run_with(&yaml, |start| {
            start.words_behind(["--control", "$DIR/control.sock", "--log-level", "debug"]);
        });
        daemon.line(&["listening on", "web"]);
        let mut control = Varlink::connect(&world);
        let status = control.ask("Status", json!({}));
        let workers = array(&status["workers"]).iter();
        let workers = workers.map(|worker| worker["name"].as_str().expect("a name").to_owned());
        Example {
            workers: workers.collect(),
            world,
            daemon,
            control,
            effort: Effort { rounds, ..effort },
        }
    }

    fn web(&self) -> SocketAddr {
        self.daemon.address("web")
    }

    fn admin(&self) -> PathBuf {
        self.world.path("admin.sock")
    }

    /// The processes that are ready.
    fn instances(&mut self) -> Vec<i32> {
        let status = self.control.ask("Status", json!({}));
        let workers = array(&status["workers"]).iter();
        let instances = workers.flat_map(|worker| array(&worker["instances"]));
        let running = instances.filter(|one| one["state"] == "running");
        let pids = running.map(|one| one["pid"].as_i64().expect("a pid"));
        pids.map(|pid| i32::try_from(pid).expect("a pid")).collect()
    }

    /// Waits until all of them are ready.
    fn settled(&mut self) -> Vec<i32> {
        let wanted = if self.workers.len() == 1 { 2 } else { 3 };
        let mut pids = Vec::new();
        eventually("every instance is ready", || {
            pids = self.instances();
            pids.len() == wanted
        });
        pids
    }

    fn restart(&self) {
        for worker in &self.workers {
            let words = ["restart", worker, "--control", "$DIR/control.sock"];
            self.world.finish(words).expect_code(0);
        }
    }

    /// Clients of both listeners during something; how they have fared.
    fn under_load(&mut self, mut round: impl FnMut(&mut Example, usize)) -> Counts {
        let Effort {
            clients, rounds, ..
        } = self.effort;
        let loads = [
            ("web:", Load::start(self.web(), clients)),
            ("admin:", Load::start(self.admin().as_path(), clients)),
        ];
        let some_more = || loads.iter().for_each(|(_, load)| load.wait_for_answers(10));
        some_more();
        for number in 0..rounds {
            round(self, number);
            some_more();
        }
        let mut total = Counts::default();
        for (name, load) in loads {
            let summary = load.stop();
            // Each listener was recognised by its name.
            let names: Vec<_> = summary.versions.keys().collect();
            assert_eq!(names, [name], "{summary}");
            let Counts { reset, short, .. } = summary.counts;
            let cut = reset + short;
            // Nobody was refused, or is still waiting.
            assert_eq!(summary.counts.failed(), cut, "{summary}");
            total.reset += reset;
            total.short += short;
        }
        total
    }

    /// Clients connect while no instance can accept; then all get this signal.
    fn queue_outlives(&mut self, signal: Signal) {
        let pids = self.settled();
        for pid in &pids {
            kill(*pid, Signal::SIGSTOP);
        }
        eventually("no thread of them runs", || {
            pids.iter().all(|pid| is_stopped(*pid))
        });
        let mut web: Vec<_> = (0..5)
            .map(|_| client::tcp(self.web()).expect("nobody is refused"))
            .collect();
        let mut admin = client::unix(&self.admin()).expect("nobody is refused");
        web.iter_mut()
            .for_each(|client| client.write_all(REQUEST).expect("write"));
        admin.write_all(REQUEST).expect("write");
        eventually("they wait", || queued(self.web()) == 5);
        for pid in &pids {
            kill(*pid, signal);
            // Killed, it may be gone.
            let _ = nix::sys::signal::kill(Pid::from_raw(*pid), Signal::SIGCONT);
        }
        for client in web {
            answer(client, "web");
        }
        answer(admin, "admin");
        if self.effort.sockets == 2 {
            let mut other = client::unix(&self.world.path("other.sock")).expect("connect");
            other.write_all(REQUEST).expect("write");
            answer(other, "admin");
        }
        have_ended(&pids);
    }

    /// Tells all to stop while they have accepted clients, which have said nothing yet, or half of it.
    fn finishes_what_it_has_accepted(&mut self) {
        let (old, answers) = in_time(|| self.stops_with_clients());
        let [silent, half, admin] = answers.map(|text| text.expect("an answer"));
        for text in [silent, half] {
            let pid = answer(text.as_bytes(), "web");
            assert!(old.contains(&pid), "{pid} is none of {old:?}");
        }
        // Of a unix listener nobody can tell how many wait, so another may have accepted it.
        answer(admin.as_bytes(), "admin");
    }

    /// The processes that were told to stop, and what the clients were answered: one that had said nothing, one
    /// that had said half of it, and one of the other listener.
    fn stops_with_clients(&mut self) -> (Vec<i32>, [io::Result<String>; 3]) {
        let old = self.settled();
        let mut silent = client::tcp(self.web()).expect("connect");
        let mut half = client::tcp(self.web()).expect("connect");
        let mut admin = client::unix(&self.admin()).expect("connect");
        half.write_all(&REQUEST[..9]).expect("write");
        admin.write_all(&REQUEST[..9]).expect("write");
        eventually("they are accepted", || queued(self.web()) == 0);
        for worker in &self.workers {
            let request = json!({ "worker": worker, "no_wait": true });
            self.control.ask("Restart", request);
        }
        for pid in &old {
            self.daemon
                .line(&["stopping with SIGTERM", &format!("pid {pid};")]);
        }
        // Who was cut off has no answer either.
        let _ = silent.write_all(REQUEST);
        let _ = half.write_all(&REQUEST[9..]);
        let _ = admin.write_all(&REQUEST[9..]);
        let answers = [whole(silent), whole(half), whole(admin)];
        have_ended(&old);
        (old, answers)
    }

    /// All that is asked of a worker.
    fn loses_nobody(mut self) {
        self.settled();
        self.finishes_what_it_has_accepted();
        let counts = self.under_load(|example, _| example.restart());
        assert_eq!(counts.failed(), 0, "{counts:?}");
        self.exits_were_clean();
        self.queue_outlives(Signal::SIGTERM);
        self.queue_outlives(Signal::SIGKILL);
        self.settled();
        let counts = self.under_load(|example, number| {
            let pids = example.settled();
            let victim = pids[number % pids.len()];
            kill(victim, Signal::SIGKILL);
            have_ended(&[victim]);
        });
        // No client has more than one request that can be in hand when a process is killed.
        let Effort {
            clients, rounds, ..
        } = self.effort;
        assert!(counts.failed() <= 2 * clients * rounds, "{counts:?}");
        self.settled();
        self.stops();
    }

    fn stops(self) {
        let path = self.admin();
        let ends = || {
            let said = ["exited with", "killed by"].map(|words| self.daemon.lines_so_far(&[words]));
            said.concat()
        };
        let before = ends();
        self.daemon.stop();
        let mut ours = ends();
        ours.retain(|line| !before.contains(line));
        let clean = ours.iter().all(|line| line.contains("exit status 0"));
        assert!(clean, "{ours:?}");
        assert!(!path.exists());
    }

    /// Every process that was told to stop has exited by itself, and with 0.
    fn exits_were_clean(&self) {
        assert_eq!(self.daemon.lines_so_far(&["killed by"]), [""; 0]);
        let exits = self.daemon.lines_so_far(&["exited with"]);
        assert!(exits.len() > 2 * self.effort.rounds, "{exits:?}");
        for exit in exits {
            assert!(exit.contains("exit status 0"), "{exit}");
        }
    }
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

/// Waits until they have. Before that, listend may take them for instances that run.
fn have_ended(pids: &[i32]) {
    eventually("they have ended", || !pids.iter().any(|pid| exists(*pid)));
}

/// Whether every thread of it is stopped.
fn is_stopped(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it exists");
    let mut ids = threads.map(|entry| entry.expect("an entry").file_name());
    ids.all(|id| state(id.to_string_lossy().parse().expect("a number")) == Some('T'))
}

/// Does it until it has taken less time than every worker has patience with a client that it has accepted: 10
/// seconds as a rule, and after SIGTERM 5 in Go, whose `Shutdown` closes what has not made a request by then.
#[track_caller]
fn in_time<T>(mut what: impl FnMut() -> T) -> T {
    for _ in 0..20 {
        let since = Instant::now();
        let done = what();
        if since.elapsed() < Duration::from_secs(5) {
            return done;
        }
    }
    panic!("it took too long, again and again");
}

/// What a client is told until the end.
fn whole(mut client: impl Read) -> io::Result<String> {
    let mut text = String::new();
    client.read_to_string(&mut text).map(|_| text)
}

/// Reads the answer of this listener; the pid in it.
#[track_caller]
fn answer(client: impl Read, listener: &str) -> i32 {
    let text = whole(client).expect("an answer");
    assert!(
        text.starts_with("HTTP/1.") && text.contains(" 200 OK\r\n"),
        "{text:?}"
    );
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    let pid = body.strip_prefix(&format!("{listener}: hello from pid "));
    pid.expect(body).trim().parse().expect("a number")
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/workers")
        .join(name)
}

/// Runs a compiler.
fn compile(command: &mut Command) {
    let output = command.output().expect("start the compiler");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// One that is interpreted.
fn interpreted(name: &str, program: &str) {
    if server(program).is_some() {
        Example::start(World::new(), name, USUAL, &[]).loses_nobody();
    }
}

#[test]
fn the_worker_in_rust_loses_nobody() {
    let path = example("worker");
    let path = path.to_str().expect("UTF-8");
    let replaced = [("target/release/examples/worker", path)];
    Example::start(World::new(), "rust", USUAL, &replaced).loses_nobody();
}

#[test]
fn the_worker_in_c_loses_nobody() {
    let Some(cc) = server("cc") else { return };
    let world = World::new();
    let mut command = Command::new(cc);
    command.args(["-std=c11", "-Wall", "-Wextra", "-O2", "-o"]);
    compile(command.arg(world.path("worker-c")).arg(source("worker.c")));
    let replaced = [("target/worker-c", "$DIR/worker-c")];
    Example::start(world, "c", USUAL, &replaced).loses_nobody();
}

#[test]
fn the_worker_in_go_loses_nobody() {
    let Some(go) = server_that_says("go", "version") else {
        return;
    };
    let world = World::new();
    let mut command = Command::new(go);
    command.args(["build", "-o"]);
    compile(
        command
            .arg(world.path("worker-go"))
            .arg(source("worker.go")),
    );
    let replaced = [("target/worker-go", "$DIR/worker-go")];
    Example::start(world, "go", USUAL, &replaced).loses_nobody();
}

// Compiled beforehand, and with less optimisation: a start would otherwise take two seconds of a
// processor.
#[test]
fn the_worker_in_java_loses_nobody() {
    if server("java").is_none() {
        return;
    }
    let Some(javac) = server("javac") else { return };
    let world = World::new();
    let mut command = Command::new(javac);
    command.args(["-Xlint", "-d"]);
    compile(command.arg(world.dir()).arg(source("Worker.java")));
    let replaced = [(
        "examples/workers/Worker.java",
        "-XX:TieredStopAtLevel=1, -XX:+UseSerialGC, -cp, $DIR, Worker",
    )];
    Example::start(world, "java", SLOW, &replaced).loses_nobody();
}

#[test]
fn the_worker_in_python_loses_nobody() {
    interpreted("python", "python3");
}

#[test]
fn the_worker_in_node_loses_nobody() {
    interpreted("node", "node");
}

#[test]
fn the_worker_in_ruby_loses_nobody() {
    interpreted("ruby", "ruby");
}

#[test]
fn the_worker_in_perl_loses_nobody() {
    interpreted("perl", "perl");
}

#[test]
fn the_worker_in_php_loses_nobody() {
    let Some(php) = server("php") else { return };
    let asks = "exit(extension_loaded('pcntl') ? 0 : 1);";
    let status = Command::new(php).args(["-r", asks]).status();
    if !status.expect("start php").success() {
        return skip("php has no extension pcntl");
    }
    interpreted("php", "php");
}

// It is started for each connection: there is nothing to replace, and nobody to kill but those who
// serve a client.
#[test]
fn the_worker_in_shell_loses_nobody() {
    let mut example = Example::start(World::new(), "shell", USUAL, &[]);
    let counts = example.under_load(|example, _| example.restart());
    assert_eq!(counts.failed(), 0, "{counts:?}");
    example.stops();
    let (example, text) = in_time(|| {
        let example = Example::start(World::new(), "shell", USUAL, &[]);
        let mut half = client::tcp(example.web()).expect("connect");
        half.write_all(&REQUEST[..9]).expect("write");
        eventually("it is accepted", || queued(example.web()) == 0);
        example.daemon.signal(Signal::SIGTERM);
        example.daemon.line(&["stopping with SIGURG"]);
        let _ = half.write_all(&REQUEST[9..]);
        (example, whole(half))
    });
    answer(text.expect("an answer").as_bytes(), "web");
    example.stops();
}
