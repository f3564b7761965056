//! `listend upgrade`: another binary goes on in the same process, and nothing else changes.

use crate::harness::load::Load;
use crate::harness::reloading::{ask, begin, reload, rewrite, run, state_of};
use crate::harness::varlink::Varlink;
use crate::harness::{
    Start, World, children, client, descriptors_become, eventually, exists, free_port, kill,
    listend_path, require_root, require_tool, resident_kib, settled_descriptors,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const APP: &str = "
listeners: { web: { address: ['127.0.0.1:0', 'unix:$DIR/web'] } }
workers:
  app:
    command: [$PROBE, serve-app, --version, one]
    listeners: [web]
    nonblocking: true
    instances: 2
    restart: { backoff: 1ms, limit: none }
";

const PUPPET: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    output: tag
    ready: notify
    notify_access: all
    fd_store: 4
    restart: { policy: on-failure, backoff: 1ms..2ms, limit: none }
";

fn upgrade(world: &World) {
    let done = ask(world, "upgrade").expect_code(0);
    assert!(done.stdout.contains(" upgraded to "), "{}", done.stdout);
}

/// A program that is to be tried in the place of listend.
fn program(world: &World, script: &str) -> PathBuf {
    let path = world.write("other", &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    path
}

// Rule: pid, workers, listeners and descriptors stay, and no client notices.
#[test]
fn upgrades_under_load_lose_nobody_and_leave_nothing() {
    let rounds = match std::env::var_os("LISTEND_TEST_LONG") {
        Some(_) => 1000,
        None => 20,
    };
    let world = World::new();
    let daemon = run(&world, APP);
    let address = daemon.address("web");
    daemon.lines(&["app.", "started"], 2);
    let workers = children(daemon.pid());
    upgrade(&world);
    let before = settled_descriptors(daemon.pid());
    let memory = resident_kib(daemon.pid());
    let by_port = Load::start(address, 2);
    let by_path = Load::start(world.path("web").as_path(), 2);
    for _ in 0..rounds {
        by_port.wait_for_answers(20);
        by_path.wait_for_answers(20);
        upgrade(&world);
    }
    for load in [by_port, by_path] {
        load.wait_for_answers(20);
        let summary = load.stop();
        assert_eq!(summary.counts.failed(), 0, "{summary}");
    }
    eventually("there is no other process", || {
        children(daemon.pid()) == workers
    });
    descriptors_become(daemon.pid(), before);
    let grown = resident_kib(daemon.pid()).saturating_sub(memory);
    assert!(grown < 1024, "{grown} KiB more than before");
    kill(workers[0], Signal::SIGKILL);
    let again = || children(daemon.pid()).len() == 2 && !exists(workers[0]);
    eventually("it is started again", again);
    daemon.stop();
    assert!(!world.path("web").exists(), "what listend made, it removes");
}

// Rule: clients that wait in an accept queue, and datagrams that nobody has read, are not lost.
#[test]
fn what_waits_in_queues_is_served_afterwards() {
    let world = World::new();
    let yaml = "
listeners:
  web: '127.0.0.1:0'
  local: 'unix:$DIR/local'
  packets: 'udp://127.0.0.1:0'
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web, local, packets] }
";
    let daemon = run(&world, yaml);
    let (web, packets) = (daemon.address("web"), daemon.address("packets"));
    let mut puppet = world.puppet();
    let mut tcp = client::tcp(web).expect("connect");
    tcp.write_all(b"tcp").expect("write");
    let mut unix = UnixStream::connect(world.path("local")).expect("connect");
    unix.write_all(b"unix").expect("write");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    udp.send_to(b"udp", packets).expect("send");
    upgrade(&world);
    for (fd, text) in [(3, "tcp"), (4, "unix"), (5, "udp")] {
        assert!(puppet.ask(&format!("read {fd}")).contains(text), "{fd}");
    }
    daemon.stop();
}

// Rule: what a worker says and writes, how it ends, and what it leaves, is heard as before.
#[test]
fn a_worker_is_supervised_as_before() {
    let world = World::new();
    let daemon = run(&world, PUPPET);
    let mut puppet = world.puppet();
    upgrade(&world);
    assert_eq!(state_of(&world, "workers", "app"), "starting");
    puppet.ask("notify READY=1|STATUS=well");
    eventually("it is ready", || {
        state_of(&world, "workers", "app") == "running"
    });
    upgrade(&world);
    assert!(ask(&world, "status app").stdout.contains("well"));
    puppet.ask("line 1 a line after it");
    eventually("its line comes", || {
        ask(&world, "logs app").stdout.contains("a line after it")
    });
    puppet.ask("store left");
    puppet.ask("barrier");
    upgrade(&world);
    puppet.tell("exit 3");
    daemon.line(&["app.0", "exit status 3"]);
    let next = world.puppet();
    let stored = next.report.fds.iter().filter(|fd| fd.number == 4).count();
    assert_eq!(stored, 1, "the descriptor that was stored");
    upgrade(&world);
    kill(next.pid(), Signal::SIGTERM);
    // Asked by nobody here: it is ready for another start by its policy or not at all.
    daemon.line(&["app.0", "SIGTERM"]);
    daemon.stop();
}

/// What is told of what has been: lines, events, counters.
fn history(world: &World) -> Vec<String> {
    let logs = ask(world, "logs").expect_code(0).stdout;
    let events = ask(world, "events --no-follow").expect_code(0).stdout;
    let metrics = ask(world, "metrics").expect_code(0).stdout;
    let is_counted = |line: &&str| {
        line.starts_with("listend_") && (line.contains("_total") || line.contains("start_time"))
    };
    let counted = metrics.lines().filter(is_counted);
    let counted = counted.map(str::to_owned);
    [logs, events].into_iter().chain(counted).collect()
}

// Rule: whoever asks what has been is told the same as before, however many upgrades there were.
#[test]
fn what_has_been_is_told_afterwards() {
    let world = World::new();
    let daemon = run(&world, PUPPET);
    let mut first = world.puppet();
    first.ask("notify READY=1");
    first.ask("line 1 a line before it");
    first.tell("exit 3");
    let mut second = world.puppet();
    second.ask("notify READY=1");
    daemon.lines(&["app.0: ready after"], 2);
    let before = history(&world);
    assert!(before[0].contains("a line before it"), "{before:#?}");
    assert!(before[1].contains("instance-exited"), "{before:#?}");
    let exits = r#"listend_worker_exits_total{worker="app",reason="exit",result="error"} 1"#;
    assert!(before.iter().any(|line| line == exits), "{before:#?}");
    upgrade(&world);
    upgrade(&world);
    assert_eq!(history(&world), before);
    second.ask("line 1 a line after it");
    eventually("its line comes", || {
        ask(&world, "logs").stdout.contains("a line after it")
    });
    daemon.stop();
}

// Rule: why a worker is degraded is told as long as it is.
#[test]
fn why_a_rollout_went_back_is_told_afterwards() {
    let world = World::new();
    let daemon = run(&world, PUPPET);
    let mut old = world.puppet();
    old.ask("notify READY=1");
    daemon.line(&["app.0: ready after"]);
    let words = ["restart", "app", "--control", "$DIR/control.sock"];
    let restart = world.start(Start::new(words));
    world.puppet().tell("exit 3");
    assert_eq!(restart.status().code(), Some(1));
    let why = || ask(&world, "status --json").json()["workers"][0]["setback"].take();
    let before = why();
    let is_told = before
        .as_str()
        .is_some_and(|why| why.contains("exit status 3"));
    assert!(is_told, "{before}");
    upgrade(&world);
    assert_eq!(why(), before);
    daemon.stop();
}

// Rule: the start stays the start, and a program on disk that is another than the one that runs is told of.
#[test]
fn status_tells_which_program_runs_and_since_when() {
    let world = World::new();
    let daemon = run(&world, APP);
    daemon.lines(&["app.", "started"], 2);
    let told = || ask(&world, "status --json").json()["daemon"].take();
    let first = told();
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["pid"], daemon.pid());
    assert_eq!(first["since"], first["version_since"]);
    let configuration = first["configuration"].as_str().expect("a path");
    assert!(fs::exists(configuration).expect("stat"), "{configuration}");
    let status = || ask(&world, "status").stdout;
    let head = format!("listend {}, up ", env!("CARGO_PKG_VERSION"));
    assert!(status().starts_with(&head), "{}", status());

    let copy = world.path("listend");
    // By another process, so that no fork here has it open for writing when it is executed.
    let copied = Command::new("cp").arg(listend_path()).arg(&copy).status();
    assert!(copied.expect("cp").success());
    let words = format!("upgrade {}", copy.display());
    ask(&world, &words).expect_code(0);
    eventually("the start stays the start", || {
        told()["since"] == first["since"]
    });
    let binary = told()["binary"].take();
    assert_eq!(binary["path"].as_str(), copy.to_str());
    let has_changed = || status().contains("listend has changed since; `listend upgrade`");
    assert!(!has_changed());
    let touched = Command::new("touch").args(["-d", "@1"]).arg(&copy).status();
    assert!(touched.expect("touch").success());
    assert!(has_changed(), "{}", status());
    upgrade(&world);
    assert!(!has_changed());
    daemon.stop();
}

// Rule: an upgrade reads no file of the configuration: a reload does.
#[test]
fn what_has_changed_on_disk_waits_for_a_reload() {
    let world = World::new();
    let (old, new) = (free_port(), free_port());
    let yaml = |port: u16, more: &str| {
        format!(
            "listeners: {{ web: '127.0.0.1:{port}' }}
workers:
  app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [web]{more} }}
"
        )
    };
    let daemon = run(&world, &yaml(old, ""));
    let puppet = world.puppet();
    rewrite(&world, &yaml(new, ", environment: { NEW: '1' }"));
    upgrade(&world);
    assert!(exists(puppet.pid()) && client::tcp(([127, 0, 0, 1], new).into()).is_err());
    kill(puppet.pid(), Signal::SIGKILL);
    let again = world.puppet();
    assert_eq!(again.report.env.get("NEW"), None);
    reload(&world, &yaml(new, ", environment: { NEW: '1' }"));
    let next = world.puppet();
    assert_eq!(next.report.env.get("NEW").map(String::as_str), Some("1"));
    client::tcp(([127, 0, 0, 1], new).into()).expect("the new address");
    assert!(client::tcp(([127, 0, 0, 1], old).into()).is_err());
    daemon.stop();
}

// Rule: what is not a listend that understands, in time, changes nothing, and the reason is told.
#[test]
fn a_binary_that_cannot_go_on_changes_nothing() {
    let world = World::new();
    let daemon = run(&world, APP);
    daemon.lines(&["app.", "started"], 2);
    let workers = children(daemon.pid());
    let cases = [
        ("echo hello", "not a listend"),
        ("exit 7", "status 7"),
        ("kill -SEGV $$", "signal"),
        ("echo '{\"version\":1}'", "not a listend"),
    ];
    for (script, reason) in cases {
        let path = program(&world, script);
        let words = format!("upgrade {}", path.display());
        let refused = ask(&world, &words).expect_code(1);
        assert!(
            refused.stderr.contains(reason),
            "{script}: {}",
            refused.stderr
        );
    }
    let refused = ask(&world, "upgrade /nonexistent/listend").expect_code(1);
    assert!(
        refused
            .stderr
            .contains("cannot start /nonexistent/listend: No such file"),
        "{}",
        refused.stderr
    );
    // What was tried, or could not be started, is reaped a moment later.
    eventually("the workers are left", || children(daemon.pid()) == workers);
    // The preflight succeeds, and the exec fails.
    let path = program(
        &world,
        &format!("rm -f \"$0\"; exec {} \"$@\"", listend_path().display()),
    );
    let refused = ask(&world, &format!("upgrade {}", path.display())).expect_code(1);
    assert!(refused.stderr.contains("execve"), "{}", refused.stderr);
    // What was tried, or could not be started, is reaped a moment later.
    eventually("the workers are left", || children(daemon.pid()) == workers);
    upgrade(&world);
    daemon.stop();
}

// Rule: one that hangs is given up after half a minute, and holds nobody up until then.
#[test]
fn a_binary_that_hangs_changes_nothing() {
    let world = World::new();
    let daemon = run(&world, APP);
    daemon.lines(&["app.", "started"], 2);
    let workers = children(daemon.pid());
    let path = program(&world, "exec sleep 600");
    let words = format!("upgrade {}", path.display());
    let words = words.split(' ').chain(["--control", "$DIR/control.sock"]);
    let asks = world.start(Start::new(words));
    daemon.line(&["upgrade: trying"]);
    // Half of its time, so that the rest is less than a test waits for anything.
    let half = Instant::now() + Duration::from_secs(15);
    while Instant::now() < half {
        assert_eq!(state_of(&world, "workers", "app"), "running");
        std::thread::sleep(Duration::from_millis(100));
    }
    let refused = asks.finish().expect_code(1);
    let why = "took longer than 30 seconds";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    eventually("only the workers are left", || {
        children(daemon.pid()) == workers
    });
    upgrade(&world);
    daemon.stop();
}

#[test]
fn an_upgrade_that_nobody_waits_for_any_more_is_given_up() {
    let world = World::new();
    let daemon = run(&world, APP);
    daemon.lines(&["app.", "started"], 2);
    let path = program(&world, "exec sleep 600");
    let mut client = Varlink::connect(&world);
    client.call_with(
        "Upgrade",
        json!({ "binary": path }),
        json!({ "more": true }),
    );
    daemon.line(&["upgrade: trying"]);
    drop(client);
    daemon.line(&["upgrade: whoever asked for it has gone; nothing has changed"]);
    upgrade(&world);
    daemon.stop();
}

// Rule: it is not the loop that waits for the file system of the binary.
#[test]
fn a_binary_whose_file_does_not_answer_holds_nobody_up() {
    let Some(python) = require_tool("python3") else {
        return;
    };
    let world = World::new();
    let daemon = run(&world, APP);
    daemon.lines(&["app.", "started"], 2);
    let path = program(&world, "echo too late; exit 3");
    // execve(2) waits until the lease is given up.
    let lease = "import fcntl,os,signal,sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()";
    let mut holder = Command::new(python)
        .args(["-c", lease])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start python3");
    let mut said = [0; 5];
    let output = holder.stdout.as_mut().expect("it is a pipe");
    output.read_exact(&mut said).expect("it has the lease");
    let words = format!("upgrade {}", path.display());
    let words = words.split(' ').chain(["--control", "$DIR/control.sock"]);
    let asks = world.start(Start::new(words));
    daemon.line(&["upgrade: trying"]);
    let trial = || {
        let all = children(daemon.pid()).into_iter();
        let mut all = all.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/wchan")).ok());
        all.any(|call| call.contains("lease"))
    };
    eventually("it waits", trial);
    assert_eq!(state_of(&world, "workers", "app"), "running");
    drop(holder.stdin.take());
    holder.wait().expect("wait for python3");
    let refused = asks.finish().expect_code(1);
    assert!(refused.stderr.contains("too late"), "{}", refused.stderr);
    daemon.stop();
}

// Rule: nothing that has begun while the binary is tried is cut off.
#[test]
fn an_upgrade_waits_for_a_reload() {
    let world = World::new();
    let daemon = run(&world, APP);
    daemon.lines(&["app.", "started"], 2);
    let go = world.path("go");
    let waits = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let real = listend_path();
    let path = program(&world, &format!("{waits}; exec {} \"$@\"", real.display()));
    let path = path.to_str().expect("UTF-8");
    let words = ["upgrade", path, "--control", "$DIR/control.sock"];
    let upgrade = world.start(Start::new(words));
    daemon.line(&["upgrade: trying"]);
    // What reads the configuration waits for it.
    let file = world.path("listend.yaml");
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::remove_file(&file).expect("remove");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let reload = begin(&world);
    let mut pipe = fs::File::options().write(true).open(&file).expect("open");
    fs::write(&go, "").expect("write");
    daemon.line(&["understands the snapshot"]);
    pipe.write_all(text.as_bytes()).expect("write");
    drop(pipe);
    reload.finish().expect_code(0);
    upgrade.finish().expect_code(0);
    daemon.stop();
}

// Rule: SIGUSR2 is an upgrade to what is on disk.
#[test]
fn sigusr2_upgrades() {
    let world = World::new();
    let daemon = run(&world, APP);
    daemon.lines(&["app.", "started"], 2);
    let workers = children(daemon.pid());
    daemon.signal(Signal::SIGUSR2);
    daemon.line(&["going on where listend"]);
    eventually("it answers", || ask(&world, "status").code == Some(0));
    // What it has tried, and what closes the connection of the client, ends in a moment.
    eventually("only the workers are left", || {
        children(daemon.pid()) == workers
    });
    daemon.stop();
}

// Rule: under a rollout an upgrade is refused, and with --now the rollout goes on afterwards.
#[test]
fn a_rollout_goes_on_under_the_next_listend() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    instances: 2
    ready: notify
    rollout: { min_ready: 0s }
";
    let daemon = run(&world, yaml);
    let mut old = world.puppets(2);
    for one in &mut old {
        one.ask("notify READY=1");
    }
    eventually("it is ready", || {
        state_of(&world, "workers", "app") == "running"
    });
    let restart = world.start(Start::new([
        "restart",
        "app",
        "--control",
        "$DIR/control.sock",
    ]));
    let mut new = world.puppet();
    let refused = ask(&world, "upgrade").expect_code(1);
    assert!(refused.stderr.contains("rollout"), "{}", refused.stderr);
    let done = ask(&world, "upgrade --now").expect_code(0);
    assert!(done.stdout.contains(" upgraded to "), "{}", done.stdout);
    // Who waited for the rollout is told that the connection has ended.
    let _ended = restart.status();
    new.ask("notify READY=1");
    let mut last = world.puppet();
    last.ask("notify READY=1");
    eventually("all are replaced", || {
        old.iter().all(|one| !exists(one.pid())) && state_of(&world, "workers", "app") == "running"
    });
    daemon.stop();
}

// Rule: connections that are served count against the limits of the next listend as well.
#[test]
fn connections_that_go_on_count_as_before() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [/bin/cat]
    listeners: [web]
    activation: per-connection
    handoff: inetd
    max_connections: 1
";
    let daemon = run(&world, yaml);
    let address = daemon.address("web");
    let mut first = client::tcp(address).expect("connect");
    client::converse(&first, "one", "one");
    let mut second = client::tcp(address).expect("connect");
    second.write_all(b"two").expect("write");
    upgrade(&world);
    client::converse(&first, "again", "again");
    assert!(ask(&world, "status app").stdout.contains("1 open"));
    first.shutdown(std::net::Shutdown::Write).expect("shutdown");
    let mut rest = Vec::new();
    first.read_to_end(&mut rest).expect("the end");
    let mut answer = [0; 3];
    second.read_exact(&mut answer).expect("its turn");
    assert_eq!(&answer, b"two");
    drop((first, second));
    eventually("all are over", || {
        let told = ask(&world, "status app").stdout;
        told.contains("0 open, 2 accepted")
    });
    daemon.stop();
}

// The kernel forgets a SIGCHLD that is pending when its action is set to the default, as each listend does when it starts.
#[test]
fn a_connection_that_ends_while_listend_executes_another_program_is_over() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [/bin/cat]
    listeners: [web]
    activation: per-connection
    handoff: inetd
";
    let daemon = run(&world, yaml);
    let client = client::tcp(daemon.address("web")).expect("connect");
    client::converse(&client, "one", "one");
    let served_by = children(daemon.pid());
    let [cat] = served_by[..] else {
        panic!("{served_by:?}");
    };
    let script = format!(
        "case \"$*\" in
*--preflight*) ;;
*) kill -9 {cat}
    until read -r _ _ state _ </proc/{cat}/stat && [ \"$state\" = Z ]; do :; done;;
esac
exec {} \"$@\"",
        listend_path().display()
    );
    let path = program(&world, &script);
    let done = ask(&world, &format!("upgrade {}", path.display())).expect_code(0);
    assert!(done.stdout.contains(" upgraded to "), "{}", done.stdout);
    eventually("it is reaped", || !exists(cat));
    eventually("it is over", || {
        ask(&world, "status app").stdout.contains("0 open")
    });
    daemon.stop();
}

// Rule: what waits for a client, for a delay, or for somebody to start it, waits on.
#[test]
fn what_waits_waits_on() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0', late: '127.0.0.1:0' }
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web], activation: on-demand }
  slow: { command: [/bin/false], restart: { backoff: 1h, limit: none } }
  late: { command: [$PROBE, puppet, $EVENTS], listeners: [late] }
";
    let daemon = run(&world, yaml);
    let late = world.puppet();
    ask(&world, "stop late").expect_code(0);
    assert!(!exists(late.pid()));
    eventually("it waits", || {
        state_of(&world, "workers", "slow") == "backoff"
    });
    upgrade(&world);
    assert_eq!(state_of(&world, "workers", "slow"), "backoff");
    assert_eq!(state_of(&world, "workers", "late"), "stopped");
    assert_eq!(state_of(&world, "workers", "app"), "waiting");
    let client = client::tcp(daemon.address("web")).expect("connect");
    let on_demand = world.puppet();
    assert!(exists(on_demand.pid()));
    drop(client);
    daemon.stop();
}

// Rule: as many descriptors as before, whatever was under way.
#[test]
fn an_upgrade_leaks_no_descriptor_to_workers() {
    let world = World::new();
    let daemon = run(&world, PUPPET);
    let first = world.puppet();
    let before = settled_descriptors(first.pid());
    upgrade(&world);
    kill(first.pid(), Signal::SIGKILL);
    let second = world.puppet();
    descriptors_become(second.pid(), before);
    daemon.stop();
}

// An upgrade for which no process could be created was refused without a word about the limits on processes, and so
// was a reload.
#[test]
fn where_no_process_can_be_created_the_limits_are_named() {
    if !require_root() {
        return;
    }
    let (Some(setpriv), Some(prlimit)) = (require_tool("setpriv"), require_tool("prlimit")) else {
        return;
    };
    let world = World::new();
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let listend = world.path("listend");
    fs::copy(listend_path(), &listend).expect("copy");
    world.write("listend.yaml", "listeners: { web: '127.0.0.1:0' }\n");
    let mut start = Start::of(&listend, ["run", "-c", "$DIR/listend.yaml"]);
    start.words_behind(["--control", "$DIR/control.sock"]);
    let utf8 = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    // A user who has no other process.
    let user = format!("--reuid={}", 30_000 + std::process::id() % 30_000);
    let (prlimit, setpriv) = (utf8(prlimit), utf8(setpriv));
    let alone = [&setpriv, &user, "--regid=65534", "--clear-groups"];
    start.through([&[&prlimit, "--nproc=1"], &alone[..]].concat());
    let daemon = world.start(start);
    daemon.line(&["listening", "web"]);
    for verb in ["upgrade", "reload"] {
        let refused = ask(&world, verb);
        for words in ["EAGAIN", "ulimit -u", "TasksMax=", "pids.max"] {
            assert!(refused.stderr.contains(words), "{verb}: {}", refused.stderr);
        }
    }
    daemon.stop();
}
