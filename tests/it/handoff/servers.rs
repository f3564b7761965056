//! Real workers: each answers real requests on inherited TCP and unix listeners, is killed and
//! replaced, and finishes the request in hand when it is asked to stop.

use crate::harness::servers::{apps, server};
use crate::harness::{Daemon, World, client, require_tool};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Where the applications wait in the middle of a request for `/wait`: they connect, and go on at
/// end of file.
struct Gate(UnixListener);

impl Gate {
    fn new(world: &World) -> Gate {
        Gate(UnixListener::bind(world.path("gate")).expect("bind the gate"))
    }

    /// Waits until a request is in hand; it stays so until what is returned is dropped.
    fn request(&self) -> UnixStream {
        let timeout = PollTimeout::try_from(crate::harness::DEADLINE).expect("a timeout");
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        assert_eq!(
            poll(&mut fds, timeout),
            Ok(1),
            "no request came to the gate"
        );
        self.0.accept().expect("accept").0
    }
}

/// The pid in an answer.
fn pid(answer: &str) -> i32 {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    let (_, rest) = answer
        .split_once("pid ")
        .unwrap_or_else(|| panic!("no pid in {answer:?}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn get_tcp(address: SocketAddr) -> i32 {
    let stream = client::tcp(address).expect("connect");
    pid(&client::http(stream, "/").expect("an answer"))
}

fn get_unix(path: &Path) -> i32 {
    let stream = client::unix(path).expect("connect");
    pid(&client::http(stream, "/").expect("an answer"))
}

/// Kills every worker; the next answer comes from another process, and nobody was refused.
fn survives_a_kill(daemon: &Daemon, address: SocketAddr) {
    let before = get_tcp(address);
    for child in crate::harness::children(daemon.pid()) {
        crate::harness::kill(child, Signal::SIGKILL);
    }
    // The killed worker's own children may take a client with them while they notice.
    crate::harness::eventually("another process answers", || {
        let stream = client::tcp(address).expect("nobody is refused");
        let answer = client::http(stream, "/").unwrap_or_default();
        answer.contains("pid ") && pid(&answer) != before
    });
}

/// Stops listend while a request is in hand; it is answered in full.
fn drains(daemon: Daemon, gate: &Gate, request: impl FnOnce() -> String + Send, path: &Path) {
    std::thread::scope(|scope| {
        let client = scope.spawn(request);
        let in_hand = gate.request();
        daemon.signal(Signal::SIGTERM);
        daemon.line(&["stopping"]);
        drop(in_hand);
        pid(&client.join().expect("the client"));
    });
    assert_eq!(daemon.status().code(), Some(0));
    assert!(!path.exists(), "{}", path.display());
}

/// Everything, for a server with a TCP listener `web` and a unix one at `app.sock`.
fn serves_survives_and_drains(world: &World, gate: &Gate, yaml: &str) {
    let daemon = world.run(yaml);
    let address = daemon.address("web");
    let path = world.path("app.sock");
    get_tcp(address);
    get_unix(&path);
    survives_a_kill(&daemon, address);
    // One of the killed server's own children may have answered, and be killed while it does again.
    crate::harness::eventually("the other listener answers", || {
        let stream = client::unix(&path).expect("nobody is refused");
        client::http(stream, "/").is_ok_and(|answer| answer.contains("pid "))
    });
    let request = || {
        let stream = client::tcp(address).expect("connect");
        client::http(stream, "/wait").expect("an answer")
    };
    drains(daemon, gate, request, &path);
}

#[test]
fn gunicorn_takes_its_listeners_from_listen_fds() {
    let Some(gunicorn) = server("gunicorn") else {
        return;
    };
    let world = World::new();
    let gate = Gate::new(&world);
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0', app: 'unix:$DIR/app.sock' }}
workers:
  app:
    command: [{}, --chdir, {}, --workers, '2', --log-level, warning, 'wsgi:app']
    listeners: [web, app]
    environment: {{ GATE: $DIR/gate, HOME: $DIR, PYTHONDONTWRITEBYTECODE: '1' }}
    restart: {{ backoff: 10ms..50ms, limit: none }}
",
        gunicorn.display(),
        apps()
    );
    serves_survives_and_drains(&world, &gate, &yaml);
}

// uvicorn takes one descriptor; so there are two workers, and the second has a listener besides, so
// that the number is not always 3.
#[test]
fn uvicorn_takes_its_listener_by_number() {
    let Some(uvicorn) = server("uvicorn") else {
        return;
    };
    let world = World::new();
    let gate = Gate::new(&world);
    let worker = |name: &str, listeners: &str, fd: &str| {
        format!(
            "
  {name}:
    command: [{}, --app-dir, {}, --log-level, warning, --fd, '{fd}', 'asgi:app']
    listeners: [{listeners}]
    environment: {{ GATE: $DIR/gate, HOME: $DIR, PYTHONDONTWRITEBYTECODE: '1' }}
    restart: {{ backoff: 10ms..50ms, limit: none }}
",
            uvicorn.display(),
            apps()
        )
    };
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0', app: 'unix:$DIR/app.sock' }}
workers:{}{}",
        worker("tcp", "web", "{fd:web}"),
        worker("unix", "web, app", "{fd:app}")
    );
    serves_survives_and_drains(&world, &gate, &yaml);
}

#[test]
fn node_listens_on_inherited_descriptors() {
    let Some(node) = server("node") else {
        return;
    };
    let world = World::new();
    let gate = Gate::new(&world);
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0', app: 'unix:$DIR/app.sock' }}
workers:
  app:
    command: [{}, {}/server.js, '{{fd:web}}', '{{fd:app}}']
    listeners: [web, app]
    environment: {{ GATE: $DIR/gate }}
    restart: {{ backoff: 10ms..50ms, limit: none }}
",
        node.display(),
        apps()
    );
    serves_survives_and_drains(&world, &gate, &yaml);
}

// The sample worker of the README: nothing else has to be installed to try listend.
#[test]
fn the_sample_worker_serves_every_inherited_stream_listener() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0', app: 'unix:$DIR/app.sock' }
workers:
  hello:
    command: ['{listend}', hello-worker]
    listeners: [web, app]
    instances: 2
    restart: { backoff: 1ms..5ms, limit: none }
",
    );
    let address = daemon.address("web");
    let path = world.path("app.sock");
    get_tcp(address);
    get_unix(&path);
    survives_a_kill(&daemon, address);
    // Rule: "kill a worker with -9 while `curl` loops: no request is refused".
    for round in 0..100 {
        let stream = client::tcp(address).expect("nobody is refused");
        let answer = client::http(stream, "/").unwrap_or_default();
        if round % 10 == 0 && answer.contains("pid ") {
            // It may have been killed by an earlier round and not be answering any more.
            let pid = nix::unistd::Pid::from_raw(pid(&answer));
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
    }
    get_unix(&path);
    daemon.stop();
    assert!(!path.exists());
}

#[test]
fn curl_gets_an_answer_from_the_sample_worker() {
    let Some(curl) = require_tool("curl") else {
        return;
    };
    let world = World::new();
    let words = [
        "exec",
        "-l",
        "web=127.0.0.1:0",
        "-l",
        "app=unix:$DIR/app.sock",
        "--",
        "$LISTEND",
        "hello-worker",
    ];
    let daemon = world.start(crate::harness::Start::new(words));
    let address = daemon.address("web");
    let path = world.path("app.sock");
    let runs: [Vec<String>; 2] = [
        vec![format!("http://{address}/")],
        vec![
            "--unix-socket".to_owned(),
            path.to_str().expect("UTF-8").to_owned(),
            "http://localhost/".to_owned(),
        ],
    ];
    for words in runs {
        let mut command = std::process::Command::new(&curl);
        command.args(["--silent", "--show-error", "--fail", "--max-time", "10"]);
        let output = command.args(&words).output().expect("start curl");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("pid "),
            "{words:?}: {output:?}"
        );
    }
    daemon.stop();
}

// Many clients keep their connection open and send nothing for a while; the end of listend must not
// wait for them for ever, nor the sample worker serve one client at a time.
#[test]
fn the_sample_worker_serves_others_while_a_client_says_nothing() {
    let world = World::new();
    let words = [
        "exec",
        "-l",
        "web=127.0.0.1:0",
        "--",
        "$LISTEND",
        "hello-worker",
    ];
    let daemon = world.start(crate::harness::Start::new(words));
    let address = daemon.address("web");
    let silent = client::tcp(address).expect("connect");
    let mut half = client::tcp(address).expect("connect");
    half.write_all(b"GET / HT").expect("write");
    get_tcp(address);
    // It would drain them until they are timed out.
    drop((silent, half));
    daemon.stop();
}
