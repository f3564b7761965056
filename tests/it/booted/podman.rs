//! The examples for containers as podman runs them: what serves in them loses nobody but at the kill of a process
//! that has a request in hand, and ends cleanly.

use crate::harness::load::{Load, Target};
use crate::harness::podman::Podman;
use crate::harness::{children, eventually, kill, listend_path};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

const CONTROL: [&str; 2] = ["--control", "/run/listend/control.sock"];

/// The address of both examples.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// Clients of the listener, wherever in the namespaces.
fn clients(podman: &Podman) -> Load {
    let target = Target::from(SocketAddr::from(ADDRESS)).in_namespace_of(podman.network());
    Load::start(target, 4)
}

/// Connects so many clients, which send half of their request, and the rest when they are told so.
struct InFlight {
    clients: Child,
    says: BufReader<ChildStdout>,
}

const IN_FLIGHT: &str = "
import socket, sys
all = [socket.create_connection(('127.0.0.1', 8080), 60) for _ in range(8)]
for one in all:
    one.sendall(b'GET / HTTP/1.0\\r\\n')
print('sent', flush=True)
sys.stdin.readline()
answered = 0
for one in all:
    one.sendall(b'\\r\\n')
    answer = b''
    while piece := one.recv(65536):
        answer += piece
    answered += answer.startswith(b'HTTP/1.') and b'hello from pid' in answer
print(answered, flush=True)
";

impl InFlight {
    fn start(podman: &Podman) -> InFlight {
        let mut command = podman.inside("python3");
        command
            .args(["-c", IN_FLIGHT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut clients = command.spawn().expect("start nsenter");
        let says = clients.stdout.take().expect("a pipe");
        let mut in_flight = InFlight {
            clients,
            says: BufReader::new(says),
        };
        assert_eq!(in_flight.line(), "sent");
        eventually("all of them were accepted", || {
            let mut sockets = podman.inside("ss");
            sockets.args([
                "--no-header",
                "--listening",
                "--tcp",
                "--numeric",
                "sport = :8080",
            ]);
            let said = sockets.output().expect("start nsenter").stdout;
            let said = String::from_utf8_lossy(&said).into_owned();
            said.split_whitespace().nth(1) == Some("0")
        });
        in_flight
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says
            .read_line(&mut line)
            .expect("read from the clients");
        line.trim().to_owned()
    }

    /// Sends the rest; how many were answered.
    fn finish(mut self) -> String {
        let stdin = self.clients.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"\n").expect("write to the clients");
        let answered = self.line();
        let _status = self.clients.wait();
        answered
    }
}

/// A verb of listend in the container.
#[track_caller]
fn listend(podman: &Podman, container: &str, words: &[&str]) -> String {
    podman.run(&[&["exec", container, "listend"], words, &CONTROL].concat())
}

/// Kills a worker, and then listend below its guard, with clients: none is refused.
#[track_caller]
fn kills_refuse_nobody(podman: &Podman, container: &str) {
    let load = clients(podman);
    load.wait_for_answers(50);
    listend(podman, container, &["restart", "app"]);
    load.wait_for_answers(50);
    assert_eq!(
        load.counts().failed(),
        0,
        "a restart loses nobody: {:?}",
        load.counts()
    );
    listend(podman, container, &["signal", "app", "KILL"]);
    load.wait_for_answers(50);
    // The guard is PID 1, and listend was its first child.
    podman.run(&[
        "exec",
        container,
        "sh",
        "-c",
        "kill -9 $(pgrep --oldest --parent 1 listend)",
    ]);
    load.wait_for_answers(50);
    eventually("the guard has started it again", || {
        let logs = podman.output(&["logs", container]);
        let logs = [logs.stdout, logs.stderr].concat();
        String::from_utf8_lossy(&logs)
            .matches("guard: started listend")
            .count()
            == 2
    });
    eventually("it is well again", || {
        let words = [&["exec", container, "listend", "status"][..], &CONTROL].concat();
        podman.output(&words).status.success()
    });
    load.wait_for_answers(50);
    let counts = load.stop().counts;
    assert_eq!((counts.refused, counts.timed_out), (0, 0), "{counts:?}");
}

/// Stops it with these words, with requests in hand: all are answered, and it ends with 0.
#[track_caller]
fn a_stop_finishes_requests(podman: &Podman, container: &str, words: &[&str]) {
    let in_flight = InFlight::start(podman);
    let mut stop = podman.command(words);
    let stop = stop.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut stop = stop.expect("start nsenter");
    eventually("it stops", || {
        let logs = podman.output(&["logs", container]);
        let logs = [logs.stdout, logs.stderr].concat();
        String::from_utf8_lossy(&logs).contains("stopping: waiting for")
    });
    assert_eq!(in_flight.finish(), "8");
    assert!(stop.wait().expect("wait for podman").success());
    let status = podman.run(&["inspect", "--format", "{{.State.ExitCode}}", container]);
    assert_eq!(status.trim(), "0");
}

#[test]
fn the_image_serves_is_healthy_and_survives_kills() {
    let Some(podman) = Podman::with_base_images() else {
        return;
    };
    podman.build_listend("listend");
    let conf = podman.dir().join("conf");
    fs::create_dir(&conf).expect("create a directory");
    let yaml = "listeners: { web: '0.0.0.0:8080' }\n\
                workers:\n  app: { command: ['{listend}', hello-worker], listeners: [web], instances: 2, \
                rollout: { min_ready: 10ms } }\n";
    fs::write(conf.join("listend.yaml"), yaml).expect("write");
    let volume = format!("{}:/etc/listend:ro", conf.display());
    let words = [
        "run",
        "--detach",
        "--name=app",
        "--network=host",
        "--stop-timeout=45",
        "--volume",
    ];
    podman.run(&[&words[..], &[&volume, "listend"]].concat());
    eventually("it is healthy", || {
        podman
            .output(&["healthcheck", "run", "app"])
            .status
            .success()
    });
    assert_eq!(podman.run(&["exec", "app", "id", "--user"]).trim(), "999");
    kills_refuse_nobody(&podman, "app");
    a_stop_finishes_requests(&podman, "app", &["stop", "app"]);
    podman.run(&["rm", "app"]);
    a_container_inherits_a_socket(&podman);
}

/// The recipe of docs/recipes.md: podman as a worker.
fn a_container_inherits_a_socket(podman: &Podman) {
    let folder = podman.dir().join("app");
    fs::create_dir(&folder).expect("create a directory");
    let text = "FROM listend\nENTRYPOINT [\"listend\", \"hello-worker\"]\n";
    fs::write(folder.join("Containerfile"), text).expect("write");
    let folder = folder.to_str().expect("UTF-8");
    podman.run(&[
        "build",
        "--quiet",
        "--layers=false",
        "--network=none",
        "--tag=app",
        folder,
    ]);
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/recipes.md");
    let recipes = fs::read_to_string(recipes).expect("read the recipes");
    let recipe = recipes
        .split("## A container that inherits a socket")
        .nth(1);
    let yaml = recipe.and_then(|recipe| recipe.split("```yaml\n").nth(1));
    let (yaml, _) = yaml
        .and_then(|yaml| yaml.split_once("```"))
        .expect("a block of YAML");
    assert!(yaml.contains("[podman, run"), "{yaml}");
    let words = podman.words().join(", ");
    let file = podman.dir().join("inherits.yaml");
    fs::write(
        &file,
        yaml.replace("[podman, run", &format!("[{words}, run")),
    )
    .expect("write");
    let mut daemon = podman.inside(listend_path().to_str().expect("UTF-8"));
    let control = podman.dir().join("control.sock");
    daemon
        .arg("run")
        .arg("-c")
        .arg(&file)
        .arg("--control")
        .arg(&control);
    let mut daemon = daemon.stderr(Stdio::null()).spawn().expect("start nsenter");
    let tell = |words: &[&str]| {
        let mut client = podman.inside(listend_path().to_str().expect("UTF-8"));
        client.args(words).arg("--control").arg(&control);
        client.output().expect("start nsenter")
    };
    eventually("it holds the port", || tell(&["status"]).status.success());
    let load = clients(podman);
    load.wait_for_answers(50);
    let restarted = tell(&["restart", "app"]);
    assert!(restarted.status.success(), "{restarted:?}");
    load.wait_for_answers(50);
    let counts = load.stop().counts;
    assert_eq!(counts.failed(), 0, "{counts:?}");
    // nsenter has a child in the other namespace of processes, to which it passes no signal on.
    let pids = children(daemon.id() as i32);
    let [pid] = pids[..] else {
        panic!("not one child: {pids:?}");
    };
    kill(pid, Signal::SIGTERM);
    assert!(daemon.wait().expect("wait for nsenter").success());
    assert_eq!(podman.run(&["ps", "--quiet"]), "");
}

/// The command of a probe or hook in the manifest.
#[track_caller]
fn command(manifest: &str, key: &str) -> Vec<String> {
    let behind = manifest.split(&format!("{key}:")).nth(1).expect("the key");
    let line = behind.lines().find(|line| line.trim().starts_with("exec:"));
    let line = line.expect("a command");
    let words = line
        .split_once("command: [")
        .and_then(|(_, rest)| rest.split_once(']'));
    let (words, _) = words.expect("a list");
    words
        .split(',')
        .map(|word| word.trim().trim_matches('"').to_owned())
        .collect()
}

#[test]
fn the_manifest_for_kubernetes_is_played() {
    let Some(podman) = Podman::with_base_images() else {
        return;
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/kubernetes/listend.yaml");
    let manifest = fs::read_to_string(path).expect("read the manifest");
    let image = format!("listend:{}", env!("CARGO_PKG_VERSION"));
    podman.build_listend(&image);
    // Two pods would share podman's volumes. Ports of the host are not published without a network of the host's.
    let (before, rest) = manifest
        .split_once("          ports:\n")
        .expect("the ports");
    let rest: Vec<&str> = rest
        .lines()
        .skip_while(|line| line.trim_start().starts_with("- {"))
        .collect();
    let played = format!("{before}{}\n", rest.join("\n")).replace("replicas: 2", "replicas: 1");
    assert!(played.contains("readinessProbe") && played.contains("readOnlyRootFilesystem: true"));
    let file = podman.dir().join("manifest.yaml");
    fs::write(&file, played).expect("write");
    podman.run(&[
        "play",
        "kube",
        "--network=host",
        file.to_str().expect("UTF-8"),
    ]);
    let container = "app-pod-0-listend";
    let probe = |key: &str| {
        let words = command(&manifest, key);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        podman.output(&[&["exec", container], words.as_slice()].concat())
    };
    // The port of the probe is that of the listener.
    assert!(manifest.contains("httpGet: { path: /, port: web }"));
    let ready = || {
        let url = "http://127.0.0.1:8080/";
        podman.output(&[
            "exec",
            container,
            "curl",
            "-sS",
            "--fail",
            "--max-time",
            "5",
            url,
        ])
    };
    eventually("it is ready", || ready().status.success());
    let alive = probe("livenessProbe");
    assert!(alive.status.success(), "{alive:?}");

    // As the kubelet changes it: another file in one step, and nobody is told.
    let load = clients(&podman);
    let volume = podman.run(&["volume", "inspect", "--format", "{{.Mountpoint}}", "app"]);
    let config = Path::new(volume.trim()).join("listend.yaml");
    let yaml = fs::read_to_string(&config).expect("read the configuration");
    let more = yaml.replace(
        "instances: 2",
        "instances: 3\n    environment: { RELEASE: next }",
    );
    fs::write(config.with_extension("new"), more).expect("write");
    fs::rename(config.with_extension("new"), &config).expect("rename");
    let said = listend(&podman, container, &["reload"]);
    assert!(said.contains("configuration: in effect"), "{said}");
    let status = listend(&podman, container, &["status"]);
    assert!(status.contains("app.2"), "{status}");
    load.wait_for_answers(50);
    let counts = load.stop().counts;
    assert_eq!(counts.failed(), 0, "{counts:?}");

    kills_refuse_nobody(&podman, container);
    // Not ready, and still alive.
    listend(&podman, container, &["stop", "app"]);
    assert!(
        !ready().status.success(),
        "a port that is open is not enough"
    );
    assert!(probe("livenessProbe").status.success());
    listend(&podman, container, &["start", "app"]);
    eventually("it is ready", || ready().status.success());

    let grace = manifest
        .split("terminationGracePeriodSeconds: ")
        .nth(1)
        .expect("the grace period");
    let grace = format!("--time={}", grace.lines().next().expect("a number"));
    a_stop_finishes_requests(&podman, container, &["stop", &grace, container]);
}
