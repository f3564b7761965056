//! The verbs that talk to a running daemon, against one that says what the test wants.

use crate::harness::standin::{StandIn, Talk};
use crate::harness::{Finished, Start, World, is_root, listend_path, require_tool, skip};
use listend::control::{
    Argument, Connections, Detail, Error, Event, Instance, Life, Listener, ListenerState, LogLine,
    LogsReply, MetricsReply, Progress, Queue, Request, Rollout, Socket, SocketOption, Status,
    WatchReply, Worker, WorkerState, rfc3339,
};
use listend::verb::{self, RESTART};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

fn listener(name: &str, state: ListenerState) -> Listener {
    Listener {
        name: name.to_owned(),
        sockets: vec![Socket {
            address: "127.0.0.1:8080".to_owned(),
            kind: "tcp".to_owned(),
            queue: Some(Queue {
                depth: Some(3),
                limit: Some(4096),
                drops: Some(0),
            }),
            shard: None,
            flows: None,
        }],
        state,
        workers: vec!["app".to_owned()],
        detail: None,
    }
}

fn instance(name: &str, state: WorkerState, last_exit: Option<&str>) -> Instance {
    Instance {
        name: name.to_owned(),
        generation: 1,
        pid: None,
        state,
        retrying: false,
        reloading: false,
        status: None,
        since: rfc3339(0),
        restarts: 0,
        last_exit: last_exit.map(str::to_owned),
        exit_status: None,
        exit_signal: None,
        next_try: None,
        usage: None,
    }
}

fn worker(name: &str, state: WorkerState, last_exit: Option<&str>) -> Worker {
    Worker {
        name: name.to_owned(),
        activation: "eager".to_owned(),
        generation: 1,
        state: state.clone(),
        setback: None,
        scaling: None,
        unused_since: None,
        instances: vec![instance(name, state, last_exit)],
        listeners: vec!["web".to_owned()],
        output: None,
        connections: None,
        detail: None,
    }
}

fn well() -> Status {
    Status {
        daemon: None,
        listeners: vec![listener("web", ListenerState::Listening)],
        workers: vec![worker("app", WorkerState::Waiting, None)],
    }
}

fn unwell() -> Status {
    Status {
        daemon: None,
        listeners: vec![listener("web", ListenerState::Full)],
        workers: vec![worker("app", WorkerState::Failed, Some("exit status 3"))],
    }
}

/// A daemon that answers in this way.
fn daemon(world: &World, answer: impl Fn(&Request, &mut Talk) + Send + Sync + 'static) -> StandIn {
    StandIn::listen(&world.path("control.sock"), answer)
}

/// The verb, with the daemon's socket.
fn client(world: &World, daemon: &StandIn, words: &str) -> Finished {
    let words = words.split_whitespace();
    world.finish(words.chain(["--control", daemon.path()]))
}

#[test]
fn status_is_a_table_and_says_by_its_exit_code_whether_all_is_well() {
    let world = World::new();
    let good = daemon(&world, |_, talk| talk.last(&well()));
    let finished = client(&world, &good, "status").expect_code(0);
    assert_eq!(
        finished.stdout,
        "\
LISTENER  ADDRESS          QUEUE  DROPS  STATE
web       127.0.0.1:8080  3/4096      0  listening

WORKER  GEN  STATE    PID  CPU  MEM  UPTIME  RESTARTS  LAST EXIT
app       1  waiting    -    -    -       -         0  -
"
    );
    assert_eq!(finished.stderr, "");
    assert_eq!(good.requests(), [Request::Status { name: None }]);

    let bad = StandIn::listen(&world.path("bad.sock"), |_, talk| talk.last(&unwell()));
    let finished = client(&world, &bad, "status").expect_code(1);
    assert_eq!(
        finished.stderr,
        "listend: listener `web` is full\nlistend: worker `app`: failed: exit status 3"
    );
}

#[test]
fn status_in_json_is_what_the_daemon_said_even_if_it_is_newer() {
    let world = World::new();
    let said = json!({ "listeners": [], "workers": [], "weather": { "sun": true } });
    let answer = said.clone();
    let daemon = daemon(&world, move |_, talk| talk.last(&answer));
    let finished = client(&world, &daemon, "status --json").expect_code(0);
    assert_eq!(finished.json(), said);
    let finished = client(&world, &daemon, "status").expect_code(0);
    assert_eq!(finished.stdout, "no listeners, no workers\n");
}

#[test]
fn status_of_a_worker_shows_the_queues_of_its_listeners() {
    let world = World::new();
    let daemon = daemon(&world, |request, talk| {
        let mut status = well();
        status.listeners[0].state = ListenerState::Full;
        let mut other = listener("other", ListenerState::Listening);
        other.workers = vec!["another".to_owned()];
        status.listeners.push(other);
        // As the daemon answers: only what has this name.
        if let Request::Status { name: Some(name) } = request {
            status.listeners.retain(|one| one.name == *name);
            status.workers.retain(|one| one.name == *name);
        }
        talk.last(&status);
    });
    let finished = client(&world, &daemon, "status app").expect_code(0);
    assert_eq!(
        finished.stdout,
        "\
LISTENER  ADDRESS          QUEUE  DROPS  STATE
web       127.0.0.1:8080  3/4096      0  full

WORKER  GEN  STATE    PID  CPU  MEM  UPTIME  RESTARTS  LAST EXIT
app       1  waiting    -    -    -       -         0  -
"
    );
    // The exit status is that of what was asked for.
    assert_eq!(finished.stderr, "");
    let finished = client(&world, &daemon, "status app --json").expect_code(0);
    assert_eq!(finished.json()["listeners"], json!([]));
    let finished = client(&world, &daemon, "status web").expect_code(1);
    assert!(!finished.stdout.contains("WORKER"), "{finished:?}");
}

#[test]
fn status_of_a_name_tells_all() {
    let world = World::new();
    let daemon = daemon(&world, |_, talk| {
        let option = |name: &str, asked: Option<&str>, effective: Option<&str>| SocketOption {
            address: "127.0.0.1:8080".to_owned(),
            name: name.to_owned(),
            asked: asked.map(str::to_owned),
            effective: effective.map(str::to_owned),
        };
        let mut status = well();
        status.listeners[0].detail = Some(Box::new(Detail {
            place: Some("/etc/listend/listend.yaml:3".to_owned()),
            options: vec![
                option("backlog", None, Some("4096")),
                option("receive_buffer", Some("1M"), Some("425984")),
                option("fast_open", Some("5"), None),
            ],
            ..Detail::default()
        }));
        status.workers[0].detail = Some(Box::new(Detail {
            life: Some(Life {
                ready: "notify".to_owned(),
                rollout: Rollout {
                    order: "start-first".to_owned(),
                    parallel: 2,
                    min_ready: "5 s".to_owned(),
                    under_way: true,
                },
                watchdog: Some("10 s".to_owned()),
                stored: 3,
                fd_store: 16,
            }),
            ..Detail::default()
        }));
        status.workers[0].connections = Some(Connections::default());
        talk.last(&status);
    });
    let finished = client(&world, &daemon, "status web").expect_code(0);
    let (_, details) = finished.stdout.split_once("refused\n").expect("the table");
    assert_eq!(
        details,
        "
listener web
  written in  /etc/listend/listend.yaml:3
  workers     app

  OPTION          ASKED  EFFECTIVE  SOCKET
  backlog         -      4096       127.0.0.1:8080
  receive_buffer  1M     425984     127.0.0.1:8080
  fast_open       5      -          127.0.0.1:8080

worker app
  written in  the command line
  activation  eager
  listeners   web
  ready       notify
  rollout     start-first, 2 at a time, each ready for 5 s; in progress
  watchdog    10 s
  fd_store    3 stored, at most 16 each
"
    );
    let name = Some("web".to_owned());
    assert_eq!(daemon.requests(), [Request::Status { name }]);
}

#[test]
fn a_name_that_is_wrong_is_put_right() {
    let world = World::new();
    let daemon = daemon(&world, |request, talk| match request {
        Request::Status { name: Some(name) } => {
            talk.error(&Error::no_such_thing(name, ["app", "web"]));
        }
        other => panic!("{other:?}"),
    });
    let finished = client(&world, &daemon, "status wbe").expect_code(1);
    assert_eq!(
        finished.stderr,
        "listend: no worker or listener is called `wbe` here\n  hint: did you mean `web`?"
    );
    let finished = client(&world, &daemon, "status zebra").expect_code(1);
    assert!(
        finished.stderr.contains("`listend status` lists"),
        "{finished:?}"
    );
}

#[test]
fn without_a_daemon_it_is_said_where_one_was_looked_for() {
    let world = World::new();
    let path = world.path("none.sock");
    let path = path.to_str().expect("UTF-8");
    let finished = world
        .finish(["restart", "app", "--control", path])
        .expect_code(69);
    assert_eq!(
        finished.stderr,
        format!(
            "listend: no daemon answers at {path}: there is no such socket\n  hint: start one \
             with `listend run`, or name another socket with `--control PATH`"
        )
    );
    drop(UnixListener::bind(path).expect("bind"));
    let finished = world.finish(["status", "--control", path]).expect_code(69);
    assert!(
        finished
            .stderr
            .contains("it is stale: nothing listens on it"),
        "{finished:?}"
    );
    let finished = world.finish(["status", "--control", "/x/".repeat(99).as_str()]);
    assert!(
        finished
            .expect_code(69)
            .stderr
            .starts_with("listend: no daemon answers at /x/")
    );
}

#[test]
fn who_may_not_connect_is_told_who_may() {
    if !is_root() {
        return skip("needs root");
    }
    let Some(setpriv) = require_tool("setpriv") else {
        return;
    };
    let world = World::new();
    let daemon = daemon(&world, |_, talk| talk.error(&Error::PermissionDenied));
    fs::set_permissions(daemon.path(), fs::Permissions::from_mode(0o600)).expect("chmod");
    // The build may be in a folder of root's.
    let copy = world.path("listend");
    let copied = Command::new("cp").arg(listend_path()).arg(&copy).status();
    assert!(copied.expect("start cp").success());
    let words = ["status", "--control", daemon.path()];
    let mut start = Start::of(&copy, words);
    let setpriv = setpriv.to_str().expect("UTF-8");
    start.through([setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]);
    let finished = world.start(start).finish().expect_code(77);
    assert!(
        finished.stderr.contains("not permitted to connect to"),
        "{finished:?}"
    );
    assert_eq!(daemon.requests(), []);
    let mut start = Start::of(&copy, ["status"]);
    start.through([setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]);
    let finished = world.start(start).finish().expect_code(69);
    assert!(
        finished.stderr.contains("/tmp/listend-65534/control.sock"),
        "{finished:?}"
    );
    // The daemon itself decides as well, by who asks.
    let finished = client(&world, &daemon, "status").expect_code(77);
    assert!(
        finished.stderr.contains("the daemon does not permit this"),
        "{finished:?}"
    );
}

#[test]
fn the_default_socket_of_a_user_is_in_their_runtime_folder() {
    let world = World::new();
    fs::create_dir(world.path("listend")).expect("create a folder");
    if is_root() {
        return skip("root has another default");
    }
    let path = world.path("listend/control.sock");
    let _daemon = StandIn::listen(&path, |_, talk| talk.last(&well()));
    let mut start = Start::new(["status"]);
    start.env("XDG_RUNTIME_DIR", "$DIR");
    world.start(start).finish().expect_code(0);
}

#[test]
fn what_speaks_something_else_is_not_believed() {
    let world = World::new();
    for (answer, code, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n\0"[..],
            70,
            "is not listend",
        ),
        (
            b"{\"parameters\":{\"listeners\":1}}\0",
            70,
            "is not listend",
        ),
        (
            b"{\"parameters\":",
            69,
            "closed the connection before answering",
        ),
        (b"", 69, "closed the connection before answering"),
        (
            b"{\"error\":\"org.example.Odd\",\"parameters\":{\"x\":1}}\0",
            1,
            "org.example.Odd {\"x\":1}",
        ),
        (
            b"{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":\"instances\"}}\0",
            1,
            "the daemon does not accept this value of `instances`",
        ),
        (
            b"{\"error\":\"org.varlink.service.MethodNotFound\"}\0",
            1,
            "its version may differ",
        ),
    ] {
        let path = world.path("other.sock");
        let listener = UnixListener::bind(&path).expect("bind");
        let answerer = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().expect("accept");
            let mut call = [0; 1024];
            while !call.contains(&0) || stream.read(&mut call).expect("read") == 0 {}
            stream.write_all(answer).expect("write");
        });
        let path = path.to_str().expect("UTF-8");
        let finished = world
            .finish(["status", "--control", path])
            .expect_code(code);
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
        answerer.join().expect("no panic");
        fs::remove_file(path).expect("remove the socket");
    }
}

fn progress(done: u64, of: u64, message: Option<&str>) -> Progress {
    Progress {
        done,
        of,
        message: message.map(str::to_owned),
        changes: None,
    }
}

#[test]
fn several_workers_are_acted_on_at_once_and_each_step_is_told() {
    let world = World::new();
    let daemon = daemon(&world, |request, talk| match request {
        Request::Operate {
            verb,
            worker,
            no_wait,
            ..
        } if *verb == &RESTART && worker == "app" => {
            assert!(!no_wait);
            talk.step(&progress(0, 2, None));
            talk.step(&progress(1, 2, Some("app.0 runs, pid 4711")));
            talk.last(&progress(2, 2, None));
        }
        Request::Operate { verb, worker, .. } if *verb == &RESTART && worker == "one" => {
            talk.last(&progress(1, 1, Some("one: restarted")));
        }
        Request::Status { name: Some(name) } if name == "ap" => {
            talk.error(&Error::no_such_thing(name, ["app", "one"]));
        }
        Request::Status { name: Some(name) } => {
            let workers = json!([{ "name": name, "activation": "eager", "generation": 1,
                "state": "running", "instances": [], "listeners": [] }]);
            talk.last(&json!({ "listeners": [], "workers": workers }));
        }
        other => panic!("{other:?}"),
    });
    let finished = client(&world, &daemon, "restart app one app").expect_code(0);
    assert_eq!(
        finished.stdout,
        "\
app: 0 of 2
app: 1 of 2: app.0 runs, pid 4711
app: restarted, 2 of 2
one: restarted
"
    );
    // A name given twice is one order, and all have to be there.
    assert_eq!(daemon.requests().len(), 4);
    let finished = client(&world, &daemon, "restart app ap one app").expect_code(1);
    assert_eq!(finished.stdout, "");
    assert_eq!(
        finished.stderr,
        "listend: no worker or listener is called `ap` here\n  hint: did you mean `app`?\n  hint: nothing was done"
    );
    let restarts = daemon.requests().into_iter();
    let restarts =
        restarts.filter(|one| matches!(one, Request::Operate { verb, .. } if *verb == &RESTART));
    assert_eq!(restarts.count(), 2);
}

/// What is to be done with the worker `app`.
fn operate(name: &str, argument: Argument, no_wait: bool) -> Request {
    Request::Operate {
        verb: verb::named(name).expect("a verb for workers"),
        argument,
        worker: "app".to_owned(),
        no_wait,
    }
}

#[test]
fn every_verb_asks_for_what_it_says() {
    let world = World::new();
    let daemon = daemon(&world, |request, talk| match request {
        Request::Operate { verb, .. } if !verb.waits => talk.last(&json!({})),
        Request::Reopen => talk.last(&json!({})),
        _ => talk.last(&progress(1, 1, None)),
    });
    let no_wait = true;
    let plain = Argument::Nothing;
    for (words, wanted, said) in [
        (
            "start app",
            operate("start", plain(verb::Command::Start), false),
            "app: started\n",
        ),
        (
            "stop --no-wait app",
            operate("stop", plain(verb::Command::Stop), no_wait),
            "app: requested; see `listend status`\n",
        ),
        (
            "scale app 4",
            operate("scale", Argument::Instances(Some(4)), false),
            "app: scaled\n",
        ),
        (
            "signal app HUP",
            operate("signal", Argument::Signal("HUP".to_owned()), false),
            "app: signalled\n",
        ),
        ("signal --reopen", Request::Reopen, "log files: reopened\n"),
        (
            "reset app",
            operate("reset", plain(verb::Command::Reset), false),
            "app: its failures are cleared\n",
        ),
        (
            "reload --no-wait",
            Request::Reload {
                dry_run: false,
                no_wait,
            },
            "configuration: requested; see `listend status`\n",
        ),
    ] {
        let finished = client(&world, &daemon, words).expect_code(0);
        assert_eq!(finished.stdout, said, "{words}");
        assert_eq!(daemon.requests().pop(), Some(wanted), "{words}");
    }
    for words in [
        "start",
        "scale app",
        "scale app many",
        "scale app 0",
        "signal app",
        "signal app HUP --reopen",
        "reload --dry-run --no-wait",
    ] {
        client(&world, &daemon, words).expect_code(64);
    }
}

#[test]
fn a_reload_tells_what_it_changes_or_why_it_does_not() {
    let world = World::new();
    let daemon = daemon(&world, |request, talk| match request {
        Request::Reload { dry_run: true, .. } => talk.last(&Progress {
            changes: Some(vec![
                "listener web: added".to_owned(),
                "worker app: restarted".to_owned(),
            ]),
            ..Progress::default()
        }),
        _ => talk.error(&Error::Refused {
            reason: "the configuration has 2 errors".to_owned(),
        }),
    });
    let finished = client(&world, &daemon, "reload --dry-run").expect_code(0);
    assert_eq!(
        finished.stdout,
        "listener web: added\nworker app: restarted\nconfiguration: nothing was changed\n"
    );
    let finished = client(&world, &daemon, "reload").expect_code(1);
    assert_eq!(finished.stderr, "listend: the configuration has 2 errors");
}

#[test]
fn logs_and_events_are_printed_line_by_line() {
    let world = World::new();
    let line = |instance: Option<&str>, text: &str| LogLine {
        time: rfc3339(60),
        worker: instance.map(|_| "app".to_owned()),
        instance: instance.map(str::to_owned),
        text: text.to_owned(),
    };
    let lines = [
        line(Some("app.0"), "hello\x1b[31m"),
        line(None, "listening"),
    ];
    let daemon = daemon(&world, move |request, talk| match request {
        Request::Status { .. } => talk.last(&well()),
        Request::Logs { lines: Some(0), .. } => talk.last(&LogsReply { line: None }),
        Request::Logs { .. } => {
            let [first, last] = lines.clone().map(|line| LogsReply { line: Some(line) });
            talk.step(&first);
            talk.last(&last);
        }
        Request::Watch { .. } => {
            talk.step(&WatchReply { event: None });
            let event = Event {
                time: rfc3339(0),
                kind: "instance-started".to_owned(),
                message: "app.0: started, pid 4711".to_owned(),
                ..Event::default()
            };
            talk.last(&WatchReply { event: Some(event) });
        }
        Request::Metrics => talk.last(&MetricsReply {
            text: "listend_up 1\n# EOF\n".to_owned(),
        }),
        other => panic!("{other:?}"),
    });
    let finished = client(&world, &daemon, "logs app -n 5 -f").expect_code(0);
    assert_eq!(
        finished.stdout,
        "1970-01-01T00:01:00Z app.0 hello\x1b[31m\n1970-01-01T00:01:00Z listend listening\n"
    );
    let wanted = Request::Logs {
        worker: Some("app".to_owned()),
        lines: Some(5),
        follow: true,
    };
    assert_eq!(daemon.requests().pop(), Some(wanted));
    let finished = client(&world, &daemon, "logs --json").expect_code(0);
    let first: Value =
        serde_json::from_str(finished.stdout.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["text"], "hello\u{1b}[31m");
    assert_eq!(
        client(&world, &daemon, "logs -n 0").expect_code(0).stdout,
        ""
    );
    let finished = client(&world, &daemon, "events").expect_code(0);
    assert_eq!(
        finished.stdout,
        "1970-01-01T00:00:00Z instance-started: app.0: started, pid 4711\n"
    );
    let watch = |last, no_follow| Some(Request::Watch { last, no_follow });
    assert_eq!(daemon.requests().pop(), watch(None, false));
    client(&world, &daemon, "events --last 5 --no-follow").expect_code(0);
    assert_eq!(daemon.requests().pop(), watch(Some(5), true));
    let finished = client(&world, &daemon, "events --json").expect_code(0);
    assert_eq!(finished.json()["kind"], "instance-started");
    let finished = client(&world, &daemon, "metrics").expect_code(0);
    assert_eq!(finished.stdout, "listend_up 1\n# EOF\n");
}

// Rule: the end of a daemon that is watched, or its upgrade, is no missing answer.
#[test]
fn the_end_of_what_is_followed_is_told_as_such() {
    let world = World::new();
    let daemon = StandIn::listen(&world.path("control.sock"), |request, talk| {
        if let Request::Watch { .. } = request {
            talk.step(&WatchReply::default());
        }
        talk.end();
    });
    for (words, told) in [
        (
            "events",
            "closed the connection\n  hint: it has ended or was upgraded",
        ),
        (
            "logs -f",
            "closed the connection\n  hint: it has ended or was upgraded",
        ),
        (
            "events --no-follow",
            "closed the connection before answering",
        ),
    ] {
        let finished = client(&world, &daemon, words).expect_code(69);
        assert!(finished.stderr.contains(told), "{words}: {finished:#?}");
    }
}

/// What bash offers at the end of this line.
fn bash(world: &World, bash: &std::path::Path, line: &str) -> Vec<String> {
    let script = format!(
        "PATH=$DIR/bin:$PATH\nsource <(listend completions bash)\n\
         COMP_WORDS=({line})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
         how=$(complete -p listend) || exit\nhow=${{how#*-F }}\n\
         ${{how%% *}} listend \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    );
    let file = world.write("complete.bash", &script);
    let output = Command::new(bash).arg("--norc").arg(file).output();
    let output = output.expect("start bash");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{line}: {said}");
    let found = String::from_utf8(output.stdout).expect("UTF-8");
    found
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_names_from_the_daemon_and_without_one_from_the_configuration() {
    let Some(shell) = require_tool("bash") else {
        return;
    };
    let world = World::new();
    fs::create_dir(world.path("bin")).expect("create a folder");
    std::os::unix::fs::symlink(listend_path(), world.path("bin/listend")).expect("link listend");
    let daemon = daemon(&world, |_, talk| {
        let mut status = well();
        status
            .workers
            .push(worker("api", WorkerState::Running, None));
        talk.last(&status);
    });
    let complete = |line: &str| bash(&world, &shell, line);
    let with = format!("--control {}", daemon.path());
    let found = complete(&format!("listend restart {with} ''"));
    let names = found.iter().filter(|word| !word.starts_with('-'));
    assert_eq!(names.collect::<Vec<_>>(), ["api", "app"]);
    assert_eq!(
        complete(&format!("listend restart {with} ap")),
        ["api", "app"]
    );
    assert_eq!(complete(&format!("listend restart {with} api ap")), ["app"]);
    assert_eq!(complete(&format!("listend status {with} w")), ["web"]);
    assert_eq!(
        complete(&format!("listend signal {with} app TER")),
        ["TERM"]
    );
    assert_eq!(complete("listend rest"), ["restart"]);
    assert_eq!(complete("listend restart --no-w"), ["--no-wait"]);
    // Nobody answers here; the file says what there is.
    world.write(
        "listend.yaml",
        "listeners: {front: '127.0.0.1:80'}\nworkers: {app: {command: x, listeners: front}}\n",
    );
    let found = complete("listend explain -c $DIR/listend.yaml f");
    assert_eq!(found, ["front"]);
}

#[test]
fn the_python_of_the_manual_works() {
    let Some(python) = require_tool("python3") else {
        return;
    };
    let page = include_str!("../../man/listend-control.7");
    let mut displays = page.split(".Bd -literal -offset indent\n");
    let program = displays.find(|text| text.starts_with("import json"));
    let program = program.and_then(|text| text.split(".Ed").next());
    let program = program.expect("the example").replace("\\e", "\\");
    let world = World::new();
    let daemon = daemon(&world, |request, talk| match request {
        Request::Status { .. } => talk.last(&well()),
        _ => {
            talk.step(&progress(1, 2, None));
            talk.last(&progress(2, 2, None));
        }
    });
    let program = program.replace("/run/listend/control.sock", daemon.path());
    let output = Command::new(python).args(["-c", &program]).output();
    let output = output.expect("start python3");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "web listening\n1 of 2\n2 of 2\n", "{output:?}");
}

#[test]
fn what_is_no_terminal_has_no_top() {
    let world = World::new();
    let daemon = daemon(&world, |_, talk| talk.last(&well()));
    let finished = client(&world, &daemon, "top").expect_code(1);
    assert_eq!(
        finished.stderr,
        "listend: top needs a terminal for input and output\n  hint: `listend status` \
         needs none"
    );
}

#[test]
fn fish_and_zsh_complete_names() {
    let world = World::new();
    fs::create_dir(world.path("bin")).expect("create a folder");
    std::os::unix::fs::symlink(listend_path(), world.path("bin/listend")).expect("link listend");
    let daemon = daemon(&world, |_, talk| talk.last(&well()));
    let path = world.fill("$DIR/bin:") + &std::env::var("PATH").unwrap_or_default();
    let run = |shell: &std::path::Path, words: &[&str], script: &str| {
        // A shell that waits for what never comes is ended.
        let mut run = Command::new("timeout");
        run.arg("60")
            .arg(shell)
            .args(words)
            .arg(script)
            .env("PATH", &path);
        let output = run.env("TERM", "xterm").output().expect("start the shell");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    if let Some(fish) = require_tool("fish") {
        let line = format!("listend restart --control {} a", daemon.path());
        let script = format!("listend completions fish | source; complete -C '{line}'");
        assert_eq!(run(&fish, &["--no-config", "-c"], &script), "app\n");
    }
    if let Some(zsh) = require_tool("zsh") {
        // A completion function runs only while a line is edited, so another zsh edits one.
        let script = world.fill(
            "zmodload zsh/zpty; zpty z zsh -f -i
            zpty -w z 'fpath=($DIR $fpath); autoload -U compinit; compinit -u -d $DIR/dump'
            zpty -w z 'bindkey \"^I\" complete-word; show() { print -r -- \"<$BUFFER>\" }'
            zpty -w z 'zle -N show; bindkey \"^T\" show; print re\"\"ady'
            zpty -r -m z out '*ready*'
            zpty -w -n z $'listend restart --control $DIR/control.sock ap\\t\\t^T'
            zpty -r -m z out '*<listend*>*'; print -r -- ${(V)out}; zpty -d z",
        );
        let script = script.replace("^T'\n", "\u{14}'\n");
        world.write(
            "_listend",
            &run(&zsh, &["-f", "-c"], "listend completions zsh"),
        );
        let out = run(&zsh, &["-f", "-c"], &script);
        assert!(out.contains("control.sock app >"), "{out}");
    }
}
