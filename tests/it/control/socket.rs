//! Asking a running daemon, over its control socket.

use crate::harness::container::{self, Container};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    World, client, context_switches, descriptors, eventually, listend_path, require_root,
    require_tool, settled, skip,
};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

const YAML: &str = "
listeners:
  web: { address: '127.0.0.1:0', reuse_port: true }
  local: { address: 'unix:$DIR/local.sock' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    restart: { backoff: 10ms..50ms, limit: 3 in 60s }
  lazy:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [local]
    activation: on-demand
";

pub(super) fn names(list: &Value) -> Vec<&str> {
    let all = list.as_array().expect("a list").iter();
    all.map(|one| one["name"].as_str().expect("a name"))
        .collect()
}

#[test]
fn the_socket_is_for_its_owner_alone_and_goes_with_the_daemon() {
    let world = World::new();
    let path = world.path("run/listend/control.sock");
    let daemon = world.run_with(YAML, |start| {
        start.words_behind(["--control", "$DIR/run/listend/control.sock"]);
    });
    let puppet = world.puppet();
    let _client = Varlink::to(&path);
    let file = fs::metadata(&path).expect("it is there");
    assert_eq!(file.mode() & 0o7777, 0o600);
    let folder = fs::metadata(path.parent().expect("a folder")).expect("it is there");
    let wanted = if crate::harness::is_root() {
        0o755
    } else {
        0o700
    };
    assert_eq!(folder.mode() & 0o7777, wanted);
    // Neither the socket nor the client's is the worker's.
    assert_eq!(puppet.report.fds.len(), 4, "{:?}", puppet.report.fds);
    daemon.stop();
    assert!(!path.exists());
}

#[test]
fn who_it_is_and_what_it_can_do_is_told_as_every_varlink_service_does() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut client = Varlink::connect(&world);
    let info = client.ask("org.varlink.service.GetInfo", json!({}));
    assert_eq!(info["product"], "listend");
    let interfaces = info["interfaces"].as_array().expect("a list").clone();
    assert!(interfaces.contains(&json!("io.listend.Manager")));
    for interface in interfaces {
        let method = "org.varlink.service.GetInterfaceDescription";
        let told = client.ask(method, json!({ "interface": interface }));
        let text = told["description"].as_str().expect("text");
        assert!(text.contains(&format!(
            "interface {}",
            interface.as_str().expect("a name")
        )));
    }
    let (error, _) = client.error("io.listend.Manager.Fly", json!({}));
    assert_eq!(error, "MethodNotFound");
    let (error, _) = client.error("Status", json!({ "nme": "x" }));
    assert_eq!(error, "InvalidParameter");
    let (error, _) = client.error("Watch", json!({}));
    assert_eq!(error, "ExpectedMore");
    daemon.stop();
}

#[test]
fn the_status_is_that_of_the_processes_and_sockets() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let address = daemon.address("web");
    let puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let mut client = Varlink::connect(&world);
    let status = client.ask("Status", json!({}));
    assert_eq!(names(&status["listeners"]), ["web", "local"]);
    assert_eq!(names(&status["workers"]), ["app", "lazy"]);
    let web = &status["listeners"][0];
    assert_eq!(web["state"], "listening");
    assert_eq!(web["workers"], json!(["app"]));
    assert_eq!(web["sockets"][0]["address"], address.to_string());
    let local = format!("unix:{}", world.path("local.sock").display());
    assert_eq!(status["listeners"][1]["sockets"][0]["address"], local);
    assert_eq!(status["listeners"][1]["sockets"][0]["kind"], "unix");
    let app = &status["workers"][0];
    assert_eq!(
        (&app["state"], &app["activation"]),
        (&json!("running"), &json!("eager"))
    );
    assert_eq!(app["instances"][0]["pid"], puppet.pid());
    assert_eq!(app["instances"][0]["state"], "running");
    assert_eq!(app["instances"][0]["restarts"], 0);
    assert!(app["detail"].is_null() && web["detail"].is_null());
    let lazy = &status["workers"][1];
    assert_eq!(lazy["state"], "waiting");
    assert_eq!(lazy["instances"][0]["pid"], Value::Null);
    daemon.stop();
}

#[test]
fn what_waits_in_a_queue_is_counted_and_a_full_one_is_told() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "
listeners: { deaf: { address: 'unix:$DIR/deaf.sock', backlog: 2 } }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [deaf] } }
",
    );
    let _puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let mut client = Varlink::connect(&world);
    let mut look = || client.ask("Status", json!({}))["listeners"][0].take();
    let connect = || client::unix(&world.path("deaf.sock")).expect("connect");
    let queue = |depth| json!({ "depth": depth, "limit": 2, "drops": null });
    assert_eq!(look()["sockets"][0]["queue"], queue(0));
    let _two = [connect(), connect()];
    let listener = look();
    assert_eq!(listener["sockets"][0]["queue"], queue(2));
    assert_eq!(listener["state"], "listening");
    // The kernel takes one more than that (unix_recvq_full in net/unix/af_unix.c).
    let _third = connect();
    let listener = look();
    assert_eq!(listener["sockets"][0]["queue"], queue(3));
    assert_eq!(listener["state"], "full");
    daemon.stop();
}

// Of many the kernel tells in one answer (`DepthReader::read_ahead`).
#[test]
fn the_queues_of_many_listeners_are_as_well_known() {
    let world = World::new();
    let many: String = (0..250)
        .map(|number| format!("  l{number}: {{ address: '127.0.0.1:0', backlog: 2 }}\n"))
        .collect();
    let daemon = varlink::run(
        &world,
        &format!(
            "
listeners:
{many}
  local: unix:$DIR/local.sock
workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [l7, l200, local] }} }}
"
        ),
    );
    let _puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let mut client = Varlink::connect(&world);
    let mut all = || client.ask("Status", json!({}))["listeners"].take();
    let before = all();
    let connect = |number: usize| {
        let address = before[number]["sockets"][0]["address"].as_str();
        TcpStream::connect(address.expect("an address")).expect("connect")
    };
    let _three = [connect(200), connect(200), connect(200)];
    let _one = connect(7);
    let after = all();
    let mut client = Varlink::connect(&world);
    for (number, depth) in [(7, 1), (8, 0), (200, 3)] {
        let listener = &after[number];
        let queue = &listener["sockets"][0]["queue"];
        assert_eq!(
            (&queue["depth"], &queue["limit"]),
            (&json!(depth), &json!(2))
        );
        let is_full = listener["state"] == "full";
        assert_eq!(is_full, depth == 3, "{listener}");
        let alone = client.ask("Status", json!({ "name": listener["name"] }));
        assert_eq!(&alone["listeners"][0]["sockets"][0]["queue"], queue);
    }
    daemon.stop();
}

#[test]
fn one_thing_is_told_in_full() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut client = Varlink::connect(&world);
    let status = client.ask("Status", json!({ "name": "web" }));
    assert_eq!(names(&status["listeners"]), ["web"]);
    assert_eq!(names(&status["workers"]), Vec::<&str>::new());
    let detail = &status["listeners"][0]["detail"];
    let file = world.path("listend.yaml");
    assert_eq!(detail["place"], format!("{}:3", file.display()));
    assert_eq!(detail["options"][0]["name"], "reuse_port");
    assert_eq!(detail["options"][0]["asked"], "true");
    assert_eq!(detail["options"][0]["effective"], "true");
    let status = client.ask("Status", json!({ "name": "app" }));
    assert_eq!(names(&status["listeners"]), Vec::<&str>::new());
    let place = &status["workers"][0]["detail"]["place"];
    assert_eq!(*place, format!("{}:6", file.display()));
    let (error, about) = client.error("Status", json!({ "name": "wbe" }));
    assert_eq!(error, "NoSuchThing");
    assert_eq!(about, json!({ "name": "wbe", "suggestion": "web" }));
    daemon.stop();
}

#[test]
fn a_listener_that_is_missing_and_a_worker_that_has_failed_are_told() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("an address").port();
    let daemon = varlink::run(
        &world,
        &format!(
            "
listeners: {{ web: {{ address: '127.0.0.1:{port}', optional: true }}, good: '127.0.0.1:0' }}
workers:
  app:
    command: [$PROBE, exit, '3']
    listeners: [good]
    restart: {{ backoff: 1ms..1ms, limit: 2 in 60s }}
  other: {{ command: [$PROBE, puppet, $EVENTS], listeners: [web] }}
"
        ),
    );
    daemon.line(&["app.0", "failed;"]);
    let mut client = Varlink::connect(&world);
    let status = client.ask("Status", json!({}));
    assert_eq!(status["listeners"][0]["state"], "missing");
    assert_eq!(status["listeners"][0]["sockets"][0]["queue"], Value::Null);
    assert_eq!(status["listeners"][1]["state"], "listening");
    let app = &status["workers"][0];
    assert_eq!(app["state"], "failed");
    assert_eq!(app["instances"][0]["state"], "failed");
    let why = app["instances"][0]["last_exit"].as_str().expect("words");
    assert!(why.contains("exit status 3"), "{why}");
    assert_eq!(app["instances"][0]["pid"], Value::Null);
    daemon.stop();
}

#[test]
fn workers_are_started_stopped_and_replaced() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut first = world.puppet();
    daemon.line(&["app.0", "started"]);
    let mut client = Varlink::connect(&world);
    let app = json!({ "worker": "app" });
    let state = |client: &mut Varlink| {
        let status = client.ask("Status", json!({ "name": "app" }));
        status["workers"][0]["state"].clone()
    };
    let done = client.ask("Stop", app.clone());
    assert_eq!((&done["done"], &done["of"]), (&json!(1), &json!(1)));
    first.wait_for_its_end();
    assert_eq!(state(&mut client), "stopped");
    let pid = std::process::id();
    daemon.line(&[&format!("pid {pid} ("), "): stop app"]);

    client.ask("Start", app.clone());
    let mut second = world.puppet();
    assert_eq!(state(&mut client), "running");

    let replies = client.more("Restart", app.clone());
    second.wait_for_its_end();
    let third = world.puppet();
    let steps: Vec<_> = replies
        .iter()
        .map(|reply| &reply["parameters"]["done"])
        .collect();
    assert_eq!(steps, [0, 1, 1], "what there is to do, a step, and the end");
    assert_eq!(replies[0]["continues"], true);
    assert!(crate::harness::exists(third.pid()));

    let (error, about) = client.error("Restart", json!({ "worker": "ap" }));
    assert_eq!(
        (error.as_str(), &about["suggestion"]),
        ("NoSuchThing", &json!("app"))
    );
    // Who names what it serves, or one instance too many, means the worker.
    for name in ["web", "app.7"] {
        let (_, about) = client.error("Restart", json!({ "worker": name }));
        assert_eq!(about["suggestion"], "app", "{name}");
    }
    daemon.stop();
}

#[test]
fn who_does_not_wait_is_answered_at_once() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [sh, -c, 'trap : TERM; echo >&4; while :; do sleep 1; done'], listeners: [web], ready: fd 4, stop_timeout: 1h } }
",
    );
    daemon.line(&["app.0", "ready"]);
    let mut client = Varlink::connect(&world);
    let answer = client.ask("Stop", json!({ "worker": "app", "no_wait": true }));
    assert_eq!(answer["done"], 0);
    // It is still there, and asked to go.
    let status = client.ask("Status", json!({ "name": "app" }));
    assert_eq!(status["workers"][0]["state"], "stopping");
    // Whoever was interrupted asks again.
    let answer = client.ask("Stop", json!({ "worker": "app", "no_wait": true }));
    assert_eq!(answer["done"], 0);
    let pid = &status["workers"][0]["instances"][0]["pid"];
    crate::harness::kill(
        i32::try_from(pid.as_i64().expect("a pid")).expect("a pid"),
        nix::sys::signal::Signal::SIGKILL,
    );
    daemon.line(&["app.0", "stopped as requested"]);
    daemon.stop();
}

#[test]
fn a_worker_is_scaled_signalled_and_reset() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut first = world.puppet();
    daemon.line(&["app.0", "started"]);
    let mut client = Varlink::connect(&world);
    client.ask("Scale", json!({ "worker": "app", "instances": 3 }));
    let _more = world.puppets(2);
    let status = client.ask("Status", json!({ "name": "app" }));
    assert_eq!(
        names(&status["workers"][0]["instances"]),
        ["app.0", "app.1", "app.2"]
    );
    client.ask("Scale", json!({ "worker": "app", "instances": 1 }));
    let status = client.ask("Status", json!({ "name": "app" }));
    assert_eq!(names(&status["workers"][0]["instances"]), ["app.0"]);
    for instances in [0, 10_001] {
        let (error, _) = client.error("Scale", json!({ "worker": "app", "instances": instances }));
        assert_eq!(error, "InvalidParameter");
    }
    let (error, about) = client.error("Signal", json!({ "worker": "app", "signal": "TREM" }));
    assert_eq!(error, "Refused");
    assert!(
        about["reason"].as_str().expect("words").contains("SIGTERM"),
        "{about}"
    );
    // A crash each: the third is one too many.
    for life in 0..4 {
        if life > 0 {
            first = world.puppet();
        }
        daemon.lines(&["app.0", "started"], life + 1);
        client.ask("Signal", json!({ "worker": "app", "signal": "SEGV" }));
        first.wait_for_its_end();
    }
    daemon.line(&["app.0", "failed;"]);
    let status = client.ask("Status", json!({ "name": "app" }));
    assert_eq!(status["workers"][0]["state"], "failed");
    assert_eq!(client.ask("Reset", json!({ "worker": "app" })), json!({}));
    let _again = world.puppet();
    daemon.lines(&["app.0", "started"], 5);
    let status = client.ask("Status", json!({ "name": "app" }));
    assert_eq!(status["workers"][0]["state"], "running");
    daemon.stop();
}

#[test]
fn events_are_told_as_they_happen() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let mut watcher = Varlink::connect(&world);
    watcher.call_with("Watch", json!({}), json!({ "more": true }));
    let first = watcher.next().expect("a reply");
    assert_eq!(first["continues"], true);
    assert_eq!(first["parameters"]["event"], Value::Null);
    puppet.tell("exit 3");
    let event = watcher.next().expect("a reply")["parameters"]["event"].take();
    assert_eq!(event["kind"], "instance-exited");
    assert_eq!(
        (&event["worker"], &event["instance"]),
        (&json!("app"), &json!("app.0"))
    );
    let message = event["message"].as_str().expect("words");
    assert!(message.contains("exit status 3"), "{message}");
    let next = world.puppet();
    let event = watcher.next().expect("a reply")["parameters"]["event"].take();
    assert_eq!(event["kind"], "instance-started");
    assert_eq!(event["pid"], next.pid());
    // Nobody else is disturbed by one that goes in the middle of it.
    drop(watcher);
    let mut other = Varlink::connect(&world);
    other.ask("Restart", json!({ "worker": "app" }));
    daemon.stop();
}

#[test]
fn the_configuration_is_checked_and_compared_with_what_runs() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let _puppet = world.puppet();
    let mut client = Varlink::connect(&world);
    let same = client.ask("Reload", json!({ "dry_run": true }));
    assert_eq!(same["changes"], json!([]));
    let checked = client.ask("Check", json!({}));
    assert_eq!(checked["errors"], json!([]));

    let other = YAML
        .replace("  lazy:", "  eager:")
        .replace("limit: 3", "limit: 4");
    world.write("listend.yaml", &other);
    let told = client.ask("Reload", json!({ "dry_run": true }));
    let wanted = [
        "worker `lazy`: removed",
        "worker `app`: restart.limit 3 in 1m → 4 in 1m would apply without a rollout",
        "worker `eager`: added",
    ];
    assert_eq!(told["changes"], json!(wanted));

    world.write("listend.yaml", "listeners: { web: nonsense }");
    for dry_run in [true, false] {
        let (error, about) = client.error("Reload", json!({ "dry_run": dry_run }));
        assert_eq!(error, "NotReloaded");
        let rendered = about["rendered"].as_str().expect("words");
        assert!(rendered.contains("nonsense"), "{about}");
        assert_eq!(about["errors"][0]["listener"], "web", "{about}");
    }
    let checked = client.ask("Check", json!({}));
    assert_eq!(checked["errors"][0]["listener"], "web");

    world.write("listend.yaml", &other);
    let done = client.ask("Reload", json!({}));
    let wanted = wanted.map(|line| line.replace("would apply", "applies"));
    assert_eq!(done["changes"], json!(wanted));
    let same = client.ask("Reload", json!({ "dry_run": true }));
    assert_eq!(same["changes"], json!([]));
    let (error, _) = client.error("Status", json!({ "name": "lazy" }));
    assert_eq!(error, "NoSuchThing");
    daemon.stop();
}

#[test]
fn a_listener_is_explained_as_on_the_command_line() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut client = Varlink::connect(&world);
    let told = client.ask("Explain", json!({ "listener": "web" }));
    let file = world.path("listend.yaml");
    let file = file.to_str().expect("UTF-8");
    let printed = world.finish(["explain", "-c", file, "web"]).stdout;
    assert_eq!(told["text"], printed);
    let (error, _) = client.error("Explain", json!({ "listener": "wbe" }));
    assert_eq!(error, "NoSuchThing");
    eventually("what was found out by a process leaves none behind", || {
        crate::harness::children(daemon.pid()).len() == 1
    });
    daemon.stop();
}

#[test]
fn who_else_asks_is_told_that_it_may_not_and_a_member_of_the_group_may_look() {
    if !require_root() {
        return;
    }
    // One that every user may execute.
    let python = Path::new("/usr/bin/python3");
    if require_tool("setpriv").is_none() || !python.exists() {
        return skip("needs setpriv and /usr/bin/python3");
    }
    let world = World::new();
    let mut words = varlink::words(&world).to_vec();
    words.extend(["--control-group".to_owned(), "54321".to_owned()]);
    let daemon = world.run_with(YAML, |start| {
        start.words_behind(words.iter().map(String::as_str));
    });
    let path = varlink::path(&world);
    let _there = Varlink::connect(&world);
    let file = fs::metadata(&path).expect("it is there");
    assert_eq!((file.mode() & 0o7777, file.gid()), (0o660, 54321));
    let script = world.write(
        "ask.py",
        "import socket, sys\n\
         s = socket.socket(socket.AF_UNIX)\n\
         s.connect(sys.argv[1])\n\
         s.sendall(b'{\"method\":\"io.listend.Manager.' + sys.argv[2].encode() + b'\",\
         \"parameters\":' + sys.argv[3].encode() + b'}\\0')\n\
         print(s.makefile('rb').read(60))\n",
    );
    let ask = |groups: &[&str], method: &str, parameters: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid", "12345", "--regid", "12345"])
            .args(groups)
            .arg(python)
            .arg(&script)
            .arg(&path)
            .args([method, parameters])
            .output()
            .expect("start setpriv");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    // The mode of the path keeps strangers out, and is put back. This one passes it all the same.
    let stranger = [
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    ];
    let member = ["--groups", "1,54321"];
    let denied = "org.varlink.service.PermissionDenied";
    assert!(ask(&stranger, "Status", "{}").contains(denied));
    assert!(ask(&stranger, "Fly", "{}").contains(denied));
    let seen = ask(&member, "Status", "{}");
    // The beginning of the reply.
    assert!(seen.contains("daemon"), "{seen}");
    for method in ["Stop", "Restart", "Start", "Reset"] {
        let told = ask(&member, method, "{\"worker\":\"app\"}");
        assert!(told.contains(denied), "{method}: {told}");
    }
    assert!(daemon.lines_so_far(&["): stop"]).is_empty());
    daemon.stop();
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let world = World::new();
    let path = varlink::path(&world);
    drop(UnixListener::bind(&path).expect("bind"));
    let daemon = varlink::run(&world, YAML);
    Varlink::connect(&world).ask("Status", json!({}));

    let other = World::new();
    let file = other.write("listend.yaml", YAML);
    let words = ["run", "-c", file.to_str().expect("UTF-8"), "--control"];
    let words = words.into_iter().chain([path.to_str().expect("UTF-8")]);
    let finished = other.finish(words).expect_code(1);
    assert!(
        finished.stderr.contains("another listend is running"),
        "{finished:#?}"
    );
    assert!(!other.path("local.sock").exists(), "nothing stays bound");
    Varlink::connect(&world).ask("Status", json!({}));
    daemon.stop();
}

#[test]
fn clients_that_only_stay_wake_nobody() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let _puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let before = crate::harness::settled_descriptors(daemon.pid());
    let clients: Vec<Varlink> = (0..50).map(|_| Varlink::connect(&world)).collect();
    eventually("all are accepted", || {
        descriptors(daemon.pid()) == before + 50
    });
    let rests = settled(daemon.pid());
    assert_eq!(settled(daemon.pid()), rests);
    assert_eq!(context_switches(daemon.pid()), rests);
    drop(clients);
    eventually("all are gone", || descriptors(daemon.pid()) == before);
    daemon.stop();
}

#[test]
fn whoever_can_open_a_socket_and_read_json_can_ask() {
    let Some(python) = require_tool("python3") else {
        return;
    };
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let _there = Varlink::connect(&world);
    let script = "import socket, json, sys\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        s.sendall(json.dumps({'method': 'io.listend.Manager.Status'}).encode() + b'\\0')\n\
        f = b''\n\
        while not f.endswith(b'\\0'): f += s.recv(4096)\n\
        print(' '.join(w['name'] for w in json.loads(f[:-1])['parameters']['workers']))";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(varlink::path(&world))
        .output()
        .expect("start python3");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "app lazy\n",
        "{output:?}"
    );
    daemon.stop();
}

#[test]
fn calls_in_advance_are_answered_in_order_and_those_without_reply_are_carried_out() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let mut client = Varlink::connect(&world);
    for name in ["web", "app", "nobody"] {
        client.call_with("Status", json!({ "name": name }), json!({}));
    }
    assert_eq!(
        names(&client.next().expect("a reply")["parameters"]["listeners"]),
        ["web"]
    );
    assert_eq!(
        names(&client.next().expect("a reply")["parameters"]["workers"]),
        ["app"]
    );
    assert!(client.next().expect("a reply")["error"].is_string());
    // The one that does not take a reply does not wait for one either.
    client.call_with(
        "Stop",
        json!({ "worker": "app" }),
        json!({ "oneway": true }),
    );
    drop(client);
    puppet.wait_for_its_end();
    daemon.line(&["app.0", "stopped as requested"]);
    let address = daemon.address("web");
    drop(client::tcp(address).expect("its listeners stay bound"));
    daemon.stop();
}

/// A daemon that is a unit in the container, as systemd's own client sees it.
struct Inside(Container);

impl Inside {
    const PATH: &str = "/run/listend/control.sock";
    const INTERFACE: &str = "io.listend.Manager";

    fn start(container: Container, yaml: &str) -> Inside {
        container.install(listend_path(), "/usr/bin/listend");
        container.write("/etc/listend/listend.yaml", yaml);
        container.run(["systemd-run", "--unit=control", "/usr/bin/listend", "run"]);
        eventually("it can be asked", || container.path(Inside::PATH).exists());
        Inside(container)
    }

    fn introspect(&self, interface: &str) -> String {
        self.0
            .run(["varlinkctl", "introspect", Inside::PATH, interface])
    }

    /// The one reply to a call that succeeds.
    #[track_caller]
    fn call(&self, method: &str, parameters: &str) -> Value {
        let method = format!("{}.{method}", Inside::INTERFACE);
        let json = "--json=short";
        let words = [
            "varlinkctl",
            "call",
            json,
            Inside::PATH,
            &method,
            parameters,
        ];
        let said = self.0.run(words);
        serde_json::from_str(said.trim()).expect("JSON")
    }

    /// A call with `--more`.
    fn more(&self, method: &str, parameters: &str) -> Command {
        let method = format!("{}.{method}", Inside::INTERFACE);
        let json = "--json=short";
        let call = ["call", "--more", json, Inside::PATH, &method, parameters];
        // It ends by itself, or with the daemon; if not, the container would wait for it.
        let limit = ["timeout", "60", "varlinkctl"];
        self.0.command(limit.into_iter().chain(call))
    }
}

/// A reply as varlinkctl prints it with `--more`: JSON behind a record separator (RFC 7464).
fn reply(line: &str) -> Value {
    let text = line.trim_matches(|c: char| c == '\u{1e}' || c.is_whitespace());
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// The interface as systemd's own client has it, in the systemd of the container.
#[test]
fn varlinkctl_introspects_and_calls_every_method() {
    let Some(container) = container::boot() else {
        return;
    };
    let yaml = "
listeners: { web: '127.0.0.1:8080' }
workers: { app: { command: [/usr/bin/listend, hello-worker], listeners: [web], output: tag } }
";
    let inside = Inside::start(container, yaml);
    let told = inside.introspect(Inside::INTERFACE);
    let method = |line: &&str| line.trim_start().starts_with("method ");
    let ours = include_str!("../../../docs/io.listend.Manager.varlink");
    let methods = ours.lines().filter(method).count();
    assert_eq!(told.lines().filter(method).count(), methods, "{told}");
    let told = inside.introspect("org.varlink.service");
    assert!(told.contains("method GetInterfaceDescription"), "{told}");

    let call = |method: &str, parameters: &str| inside.call(method, parameters);
    eventually("the worker runs", || {
        call("Status", "{}")["workers"][0]["state"] == "running"
    });
    let mut watching = inside.more("Watch", "{}");
    let mut watching = watching.stdout(Stdio::piped()).spawn().expect("nsenter");
    let mut events = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    let mut event = || reply(&events.next().expect("an event").expect("read"));
    assert_eq!(event()["event"], Value::Null);
    for method in ["Restart", "Stop", "Start", "Reset"] {
        call(method, r#"{"worker":"app"}"#);
    }
    while event()["event"]["kind"] != "instance-started" {}
    call("Scale", r#"{"worker":"app","instances":2}"#);
    let status = call("Status", r#"{"name":"app"}"#);
    let instances = status["workers"][0]["instances"].as_array();
    assert_eq!(instances.map(Vec::len), Some(2), "{status}");
    call("Signal", r#"{"worker":"app","signal":"CONT"}"#);
    call("Reopen", "{}");
    assert_eq!(call("Check", "{}")["errors"], json!([]));
    assert_eq!(call("Reload", r#"{"dry_run":true}"#)["changes"], json!([]));
    let told = call("Explain", r#"{"listener":"web"}"#);
    assert!(text(&told).contains("127.0.0.1:8080"), "{told}");
    let told = call("Metrics", "{}");
    assert!(text(&told).ends_with("# EOF\n"), "{told}");
    let logs = inside.more("Logs", r#"{"lines":5}"#).output();
    let logs = logs.expect("nsenter");
    assert!(logs.status.success(), "{logs:?}");
    let logs = String::from_utf8(logs.stdout).expect("UTF-8");
    let lines: Vec<Value> = logs.lines().map(reply).collect();
    assert!(!lines.is_empty() && lines.len() <= 5, "{lines:?}");

    // Whoever watches is told of the end by the end of the connection.
    inside.0.run(["systemctl", "stop", "control"]);
    watching.wait().expect("wait for nsenter");
    let log = inside.0.journal("control");
    assert!(
        log.contains("uid 0, pid") && log.contains("restart app"),
        "{log}"
    );
}

fn text(reply: &Value) -> &str {
    reply["text"].as_str().expect("text")
}
