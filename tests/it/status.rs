//! What `Status`, `listend status` and the metrics tell of what instances say, of generations that
//! overlap, and of one that was given up.

use crate::harness::reloading::{self, good_or_bad};
use crate::harness::rollout;
use crate::harness::varlink::{self, Varlink};
use crate::harness::{Daemon, Puppet, Start, World, client, eventually, free_port};
use serde_json::{Value, json};

const YAML: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    ready: notify
    watchdog: 30s
    fd_store: 4
    rollout: { order: start-first, min_ready: 1ms }
";

/// A daemon whose worker is ready.
fn ready(world: &World) -> (Daemon, Puppet, Varlink) {
    ready_with(world, YAML)
}

fn ready_with(world: &World, yaml: &str) -> (Daemon, Puppet, Varlink) {
    let daemon = varlink::run(world, yaml);
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    daemon.line(&["app.0: ready after"]);
    (daemon, puppet, Varlink::connect(world))
}

fn app(client: &mut Varlink, parameters: Value) -> Value {
    client.ask("Status", parameters)["workers"][0].take()
}

/// What `listend status` prints, whatever it finds.
fn printed(world: &World, words: &[&str]) -> crate::harness::Finished {
    let control = varlink::words(world);
    let control = control.iter().map(String::as_str);
    world.finish(
        ["status"]
            .into_iter()
            .chain(words.iter().copied())
            .chain(control),
    )
}

/// The value of a series.
fn value(client: &mut Varlink, series: &str) -> f64 {
    let text = client.ask("Metrics", json!({}));
    let text = text["text"].as_str().expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    line.trim().parse().expect("a number")
}

#[test]
fn what_an_instance_says_about_itself_is_shown() {
    let world = World::new();
    let (daemon, mut puppet, mut client) = ready(&world);
    let instance = app(&mut client, json!({}))["instances"][0].take();
    assert_eq!(instance["status"], Value::Null);
    assert_eq!(instance["reloading"], false);
    assert_eq!(instance["generation"], 1);

    puppet.ask("notify STATUS=serving\u{1b}[2J 3 clients|RELOADING=1");
    eventually("it has been heard", || {
        app(&mut client, json!({}))["instances"][0]["reloading"] == true
    });
    let instance = app(&mut client, json!({}))["instances"][0].take();
    assert_eq!(instance["status"], "serving^[[2J 3 clients");
    assert_eq!(instance["state"], "running");
    let finished = printed(&world, &[]).expect_code(0);
    let line = |words: &str| finished.stdout.lines().find(|line| line.contains(words));
    assert!(line("reloading").is_some(), "{finished:?}");
    assert_eq!(line("status"), Some("  status: serving^[[2J 3 clients"));

    puppet.ask("notify READY=1|STATUS=");
    eventually("it has read its configuration", || {
        app(&mut client, json!({}))["instances"][0]["reloading"] == false
    });
    assert_eq!(
        app(&mut client, json!({}))["instances"][0]["status"],
        Value::Null
    );
    assert!(value(&mut client, "listend_notifications_total{result=\"ok\"}") >= 3.0);
    daemon.stop();
}

#[test]
fn how_a_worker_lives_is_told_in_full() {
    let world = World::new();
    let (daemon, mut puppet, mut client) = ready(&world);
    puppet.ask("store thing");
    let named = || json!({ "name": "app" });
    eventually("it is kept", || {
        app(&mut client, named())["detail"]["life"]["stored"] == 1
    });
    let rollout = json!({
        "order": "start-first",
        "parallel": 1,
        "min_ready": "1 ms",
        "under_way": false,
    });
    let life = json!({
        "ready": "notify",
        "rollout": rollout,
        "watchdog": "30 s",
        "stored": 1,
        "fd_store": 4,
    });
    assert_eq!(app(&mut client, named())["detail"]["life"], life);
    let finished = printed(&world, &["app"]).expect_code(0);
    for line in [
        "\nweb       127.0.0.1:",
        "  ready       notify",
        "  rollout     start-first, 1 at a time, each ready for 1 ms",
        "  watchdog    30 s",
        "  fd_store    1 stored, at most 4 each",
    ] {
        assert!(finished.stdout.contains(line), "{finished:?}");
    }
    let listener = client.ask("Status", json!({ "name": "web" }))["listeners"][0].take();
    assert_eq!(listener["detail"]["life"], Value::Null);
    daemon.stop();
}

#[test]
fn generations_that_overlap_are_told_apart_and_one_that_was_given_up_is_explained() {
    let world = World::new();
    let (daemon, _first, mut client) = ready(&world);
    let mut orders = Varlink::connect(&world);
    let restart = |orders: &mut Varlink| {
        orders.call_with("Restart", json!({ "worker": "app" }), json!({}));
    };

    restart(&mut orders);
    let mut second = world.puppet();
    daemon.lines(&["app.0: started"], 2);
    let both = app(&mut client, json!({ "name": "app" }));
    let told = |key: &str| -> Vec<Value> {
        let instances = both["instances"].as_array().expect("instances").iter();
        instances.map(|one| one[key].clone()).collect()
    };
    assert_eq!(told("generation"), [1, 2]);
    assert_eq!(told("state"), ["running", "starting"]);
    assert_eq!(told("name"), ["app.0", "app.0"]);
    assert_eq!(both["detail"]["life"]["rollout"]["under_way"], true);
    assert_eq!(both["setback"], Value::Null);

    second.tell("exit 3");
    let reply = orders.next().expect("an end");
    assert_eq!(reply["error"], "io.listend.Manager.Failed");
    let back = app(&mut client, json!({}));
    assert_eq!(back["state"], "degraded");
    let setback = back["setback"].as_str().expect("words");
    assert!(
        setback.starts_with("app.0: exited with exit status 3"),
        "{setback}"
    );
    assert!(!setback.contains("rolling back"), "{setback}");
    assert_eq!(back["instances"].as_array().map(Vec::len), Some(1));
    assert_eq!(back["instances"][0]["state"], "running");
    let finished = printed(&world, &[]).expect_code(1);
    let note = format!("  rolled back: {setback}");
    assert!(finished.stdout.contains(&note), "{finished:?}");
    assert!(finished.stderr.contains(setback), "{finished:?}");
    assert_eq!(
        value(&mut client, "listend_worker_degraded{worker=\"app\"}"),
        1.0
    );
    let rollbacks = "listend_worker_rollbacks_total{worker=\"app\"}";
    assert_eq!(value(&mut client, rollbacks), 1.0);

    restart(&mut orders);
    let mut third = world.puppet();
    third.ask("notify READY=1");
    let reply = orders.next().expect("an end");
    assert!(reply["error"].is_null(), "{reply}");
    let well = app(&mut client, json!({}));
    assert_eq!(well["state"], "running");
    assert_eq!(well["setback"], Value::Null);
    assert_eq!(
        value(&mut client, "listend_worker_degraded{worker=\"app\"}"),
        0.0
    );
    let rollouts = "listend_worker_rollouts_total{worker=\"app\"}";
    assert_eq!(value(&mut client, rollouts), 1.0);
    printed(&world, &[]).expect_code(0);
    daemon.stop();
}

/// What status says of each listener: its name, its addresses, its state and who takes it.
fn listeners(client: &mut Varlink) -> Vec<(String, Vec<String>, String, Vec<String>)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all = client.ask("Status", json!({}))["listeners"].take();
    let all = all.as_array().expect("a list").iter().map(|one| {
        let sockets = one["sockets"].as_array().expect("a list").iter();
        let workers = one["workers"].as_array().expect("a list").iter();
        (
            text(&one["name"]),
            sockets.map(|socket| text(&socket["address"])).collect(),
            text(&one["state"]),
            workers.map(text).collect(),
        )
    });
    all.collect()
}

// After a reload that moved an address and went back three things are true: what the configuration
// says, what runs, and what is held for it.
#[test]
fn what_is_held_for_a_definition_that_was_gone_back_to_is_shown() {
    let world = World::new();
    let (old, new) = (free_port(), free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let row = |name: &str, port: u16, state: &str| {
        let workers = vec!["app".to_owned()];
        (name.to_owned(), vec![at(port)], state.to_owned(), workers)
    };
    let daemon = reloading::run(&world, &good_or_bad(&at(old), true));
    let first = world.puppet();
    daemon.line(&["app.0", "started"]);
    let mut client = Varlink::connect(&world);
    assert_eq!(listeners(&mut client), [row("web", old, "listening")]);

    reloading::rewrite(&world, &good_or_bad(&at(new), false));
    reloading::ask(&world, "reload").expect_code(1);
    let both = [
        row("web", new, "unserved"),
        row("web (before)", old, "former"),
    ];
    assert_eq!(listeners(&mut client), both);
    let worker = app(&mut client, json!({ "name": "app" }));
    assert_eq!(worker["instances"][0]["pid"], first.pid());
    let text = client.ask("Metrics", json!({}))["text"].to_string();
    assert!(text.contains(&at(old)) && text.contains(&at(new)), "{text}");
    assert_eq!(
        value(
            &mut client,
            "listend_listener_up{listener=\"web (before)\"}"
        ),
        1.0
    );
    for words in [&[][..], &["web"]] {
        let told = printed(&world, words).expect_code(1);
        for part in [&at(new), "unserved", &at(old), "former"] {
            assert!(told.stdout.contains(part), "{}", told.stdout);
        }
        assert!(told.stderr.contains("`web` is unserved"), "{}", told.stderr);
    }

    reloading::reload(&world, &good_or_bad(&at(new), true));
    let _second = world.puppet();
    eventually("only what the configuration says is held", || {
        listeners(&mut client) == [row("web", new, "listening")]
    });
    let text = client.ask("Metrics", json!({}))["text"].to_string();
    assert!(!text.contains(&at(old)), "{text}");
    daemon.stop();
}

// listend-control(7): listeners and workers are in the order of the configuration.
#[test]
fn what_a_reload_adds_stands_where_the_configuration_has_it() {
    let world = World::new();
    let yaml = |names: &[&str]| {
        let mut yaml = "listeners:\n".to_owned();
        for name in names {
            yaml += &format!("  {name}: '127.0.0.1:0'\n");
        }
        yaml += "workers:\n";
        for name in names {
            yaml += &format!("  w-{name}: {{ command: [sleep, '1000'], listeners: {name} }}\n");
        }
        yaml
    };
    let daemon = reloading::run(&world, &yaml(&["m", "z"]));
    let mut client = Varlink::connect(&world);
    let mut names = |part: &str| {
        let all = client.ask("Status", json!({}))[part].take();
        let all = all.as_array().expect("a list").iter();
        let names = all.map(|one| one["name"].as_str().expect("a name").to_owned());
        names.collect::<Vec<String>>()
    };
    for order in [["a", "m", "b", "z"], ["z", "b", "a", "m"]] {
        reloading::reload(&world, &yaml(&order));
        assert_eq!(names("listeners"), order);
        assert_eq!(names("workers"), order.map(|name| format!("w-{name}")));
    }
    daemon.stop();
}

/// The only listener, as `listend status` has it.
fn listener(client: &mut Varlink) -> Value {
    client.ask("Status", json!({}))["listeners"][0].take()
}

#[test]
fn a_worker_that_accepts_nobody_is_told_and_shown() {
    let world = World::new();
    let (daemon, mut puppet, mut client) = ready(&world);
    assert_eq!(listener(&mut client)["state"], "listening");
    let mut waits = crate::harness::client::tcp(daemon.address("web")).expect("connect");
    // Nobody has asked for it.
    daemon.line(&[
        "listener web",
        "the worker is running but has accepted none of its clients for 10 seconds",
        "clients waiting: 1",
    ]);
    assert_eq!(listener(&mut client)["state"], "unserved");
    let finished = printed(&world, &[]).expect_code(1);
    assert!(finished.stdout.contains(" unserved"), "{finished:?}");
    let why = "listener `web` is unserved: no worker accepts its clients";
    assert!(finished.stderr.contains(why), "{finished:?}");

    std::io::Write::write_all(&mut waits, b"at last").expect("write");
    assert_eq!(puppet.ask("read 3"), "at last");
    assert_eq!(listener(&mut client)["state"], "listening");
    printed(&world, &[]).expect_code(0);
    daemon.stop();
}

#[test]
fn a_client_that_waits_when_the_worker_has_ended_for_good_is_told_and_shown() {
    let world = World::new();
    let daemon = varlink::run(&world, &YAML.replace("ready: notify", "restart: never"));
    let mut client = Varlink::connect(&world);
    world.puppet().tell("exit 0");
    daemon.line(&["app.0: exited with exit status 0"]);
    assert_eq!(listener(&mut client)["state"], "listening");
    printed(&world, &[]).expect_code(0);
    let waits = crate::harness::client::tcp(daemon.address("web")).expect("connect");
    eventually("it is seen", || {
        listener(&mut client)["state"] == "unserved"
    });
    daemon.line(&[
        "listener web",
        "no worker is running that accepts its clients",
        "clients waiting: 1",
    ]);
    let finished = printed(&world, &[]).expect_code(1);
    let why = "listener `web` is unserved: no worker accepts its clients";
    assert!(finished.stderr.contains(why), "{finished:?}");
    // Who has stopped it knows.
    let mut orders = Varlink::connect(&world);
    orders.call("Stop", json!({ "worker": "app" }));
    assert_eq!(listener(&mut client)["state"], "listening");
    drop(waits);
    daemon.stop();
}

#[test]
fn a_listener_that_drops_datagrams_is_not_well() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "
listeners: { logs: 'udp://127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [logs] } }
",
    );
    let mut puppet = world.puppet();
    let mut client = Varlink::connect(&world);
    assert_eq!(listener(&mut client)["state"], "listening");
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let address = daemon.address("logs");
    let dropped = |client: &mut Varlink| listener(client)["sockets"][0]["queue"]["drops"].take();
    // As long as it takes to fill the receive buffer of this machine.
    eventually("some were dropped", || {
        for _ in 0..200 {
            sender.send_to(&[b'x'; 1000], address).expect("send");
        }
        dropped(&mut client).as_u64() > Some(0)
    });
    daemon.line(&["listener logs", "dropped"]);
    for _ in 0..20 {
        assert_eq!(puppet.ask("read 3").len(), 1000);
    }
    // There is room now, and what was lost is not forgotten at once.
    assert_eq!(listener(&mut client)["state"], "dropping");
    let finished = printed(&world, &[]).expect_code(1);
    let why = "listener `logs` is dropping: the kernel has dropped some of what clients sent";
    assert!(finished.stderr.contains(why), "{finished:?}");
    daemon.stop();
}

#[test]
fn a_listener_that_defers_its_clients_drops_none_of_them() {
    let world = World::new();
    let yaml = YAML.replace(
        "'127.0.0.1:0'",
        "{ address: '127.0.0.1:0', defer_accept: 5s }",
    );
    let (daemon, mut puppet, mut client) = ready_with(&world, &yaml);
    // The kernel counts the end of each handshake as dropped.
    for text in ["one", "two"] {
        let mut stream = crate::harness::client::tcp(daemon.address("web")).expect("connect");
        std::io::Write::write_all(&mut stream, text.as_bytes()).expect("write");
        assert_eq!(puppet.ask("read 3"), text);
    }
    let web = listener(&mut client);
    assert_eq!(web["state"], "listening");
    assert!(web["sockets"][0]["queue"]["drops"].is_null(), "{web}");
    printed(&world, &[]).expect_code(0);
    daemon.stop();
}

#[test]
fn a_worker_whose_connections_all_fail_is_degraded() {
    let world = World::new();
    let program = world.write("app", "#!/bin/sh\nexit 3\n");
    let executable = || {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("chmod");
    };
    executable();
    let daemon = varlink::run(
        &world,
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$DIR/app]
    listeners: [web]
    activation: per-connection
    handoff: inetd
",
    );
    let mut client = Varlink::connect(&world);
    let connect = || crate::harness::client::tcp(daemon.address("web")).expect("connect");
    let fail = |times: usize| {
        for _ in 0..times {
            crate::harness::client::sees_the_end(connect());
        }
    };
    fail(2);
    eventually("both are over", || {
        app(&mut client, json!({}))["connections"]["failures"] == 2
    });
    assert_eq!(app(&mut client, json!({}))["state"], "waiting");
    fail(1);
    daemon.line(&[
        "worker app: the processes of the last 3 connections have failed",
        "exit status 3",
    ]);
    assert_eq!(app(&mut client, json!({}))["state"], "degraded");
    let finished = printed(&world, &[]).expect_code(1);
    let why = "worker `app`: degraded: the processes of the last 3 connections failed: app.";
    assert!(finished.stderr.contains(why), "{finished:?}");
    let last = "exited with exit status 3";
    assert!(finished.stderr.contains(last), "{finished:?}");
    let why = "connections fail: app.";
    assert!(finished.stdout.contains(why), "{finished:?}");
    let degraded = "listend_worker_degraded{worker=\"app\"}";
    assert_eq!(value(&mut client, degraded), 1.0);

    client.call("Reset", json!({ "worker": "app" }));
    assert_eq!(app(&mut client, json!({}))["state"], "waiting");

    // A program that cannot be executed is not well from the first client on.
    std::fs::remove_file(&program).expect("remove");
    let waits = connect();
    daemon.line(&["app.", "app"]);
    eventually("it is told", || {
        app(&mut client, json!({}))["state"] == "degraded"
    });
    let finished = printed(&world, &[]).expect_code(1);
    for why in ["failed while", "/app"] {
        assert!(finished.stderr.contains(why), "{finished:?}");
    }
    world.write("app", "#!/bin/sh\nexit 0\n");
    executable();
    crate::harness::client::sees_the_end(waits);
    eventually("it is well", || {
        app(&mut client, json!({}))["state"] == "waiting"
    });
    printed(&world, &[]).expect_code(0);
    daemon.stop();
}

// `restart: never` says that nobody starts it again, not that nothing is wrong.
#[test]
fn what_ended_badly_and_is_left_so_has_failed() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "
listeners: { web: '127.0.0.1:0', other: '127.0.0.1:0' }
workers:
  bad: { command: [sh, -c, 'exit 3'], listeners: [web], restart: never }
  good: { command: [sh, -c, 'exit 0'], listeners: [other], restart: never }
",
    );
    daemon.line(&["bad.0: exited with exit status 3"]);
    daemon.line(&["good.0: exited with exit status 0"]);
    let mut client = Varlink::connect(&world);
    let workers = client.ask("Status", json!({}))["workers"].take();
    assert_eq!(workers[0]["state"], "failed");
    assert_eq!(workers[0]["instances"][0]["exit_status"], 3);
    assert_eq!(workers[1]["state"], "stopped");
    let finished = printed(&world, &[]).expect_code(1);
    assert!(
        finished
            .stderr
            .contains("of worker `bad`: failed: exit status 3"),
        "{finished:?}"
    );
    assert!(!finished.stderr.contains("good"), "{finished:?}");
    client.call("Stop", json!({ "worker": "bad" }));
    assert_eq!(app(&mut client, json!({}))["state"], "stopped");
    printed(&world, &[]).expect_code(0);
    daemon.stop();
}

// One that never becomes ready is starting for most of the time.
#[test]
fn what_starts_again_after_a_crash_is_not_well_until_it_is_ready() {
    let world = World::new();
    let yaml = rollout::with(rollout::PUPPET, "restart: { backoff: 1ms }");
    let daemon = varlink::run(&world, &yaml);
    let mut puppet = world.puppet();
    let mut client = Varlink::connect(&world);
    let instance = app(&mut client, json!({}))["instances"][0].take();
    assert_eq!(instance["state"], "starting");
    assert_eq!(instance["retrying"], false);
    printed(&world, &[]).expect_code(0);
    puppet.tell("exit 3");

    let mut puppet = world.puppet();
    let instance = app(&mut client, json!({}))["instances"][0].take();
    assert_eq!(instance["state"], "starting");
    assert_eq!(instance["retrying"], true);
    let finished = printed(&world, &[]).expect_code(1);
    let words = "of worker `app`: retrying: exit status 3 after";
    assert!(finished.stderr.contains(words), "{finished:?}");
    assert!(finished.stdout.contains(" retrying "), "{finished:?}");
    puppet.ask("notify READY=1");
    daemon.line(&["app.0: ready after"]);
    printed(&world, &[]).expect_code(0);
    daemon.stop();
}

#[test]
fn how_a_process_ended_and_when_the_next_begins_is_told_to_programs_and_people() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    restart: { backoff: 1h..2h }
",
    );
    let puppet = world.puppet();
    daemon.line(&["app.0: started"]);
    let mut watch = Varlink::connect(&world);
    watch.call_with("Watch", json!({}), json!({ "more": true }));
    assert_eq!(
        watch.next().expect("the first")["parameters"]["event"],
        Value::Null
    );
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(puppet.pid()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("kill");
    let event = watch.next().expect("an event")["parameters"]["event"].take();
    assert_eq!(event["kind"], "instance-exited");
    assert_eq!(event["exit_signal"], "SIGKILL");
    assert_eq!(event["exit_status"], Value::Null);

    // By the name that is shown as well as by that of the worker.
    let mut client = Varlink::connect(&world);
    let instance = app(&mut client, json!({ "name": "app.0" }))["instances"][0].take();
    assert_eq!(instance["state"], "backoff");
    assert_eq!(instance["exit_signal"], "SIGKILL");
    assert!(instance["next_try"].is_string(), "{instance}");
    let finished = printed(&world, &["app.0"]).expect_code(1);
    assert!(finished.stdout.contains("\n  retry in "), "{finished:?}");
    let (error, _) = client.error("Status", json!({ "name": "app.1" }));
    assert_eq!(error, "NoSuchThing");
    client.call("Stop", json!({ "worker": "app.0" }));
    assert_eq!(
        app(&mut client, json!({}))["instances"][0]["next_try"],
        Value::Null
    );
    daemon.stop();
}

#[test]
fn what_instances_use_is_shown_and_measured() {
    let world = World::new();
    // What the instance has started counts as well, also in a session of its own.
    // It ends with its file, whatever becomes of the test.
    let script = "#!/bin/sh\nwhile [ -e $DIR/loop ]; do :; done\n";
    world.write_script("loop", script);
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [sh, -c, 'setsid $DIR/loop & exec $PROBE puppet $EVENTS']
    listeners: [web]
";
    let daemon = varlink::run(&world, yaml);
    let _puppet = world.puppet();
    let mut usage = Value::Null;
    eventually("it has used some time", || {
        let status = printed(&world, &["--json"]).expect_code(0).json();
        usage = status["workers"][0]["instances"][0]["usage"].clone();
        usage["processes"] == 2 && usage["cpu_milliseconds"].as_u64() >= Some(100)
    });
    assert!(usage["memory_bytes"].as_u64() > Some(100_000), "{usage}");
    let finished = printed(&world, &[]).expect_code(0);
    let head = finished.stdout.lines().next().expect("a line");
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        head.starts_with(&format!("listend {version}, up ")),
        "{head}"
    );
    assert!(head.ends_with(": no problems"), "{head}");
    let row = finished.stdout.lines().find(|line| line.starts_with("app"));
    let cells: Vec<&str> = row.expect("a line").split_whitespace().collect();
    assert!(
        cells[4].ends_with(['s', 'm']) && cells[5].ends_with(['K', 'M']),
        "{cells:?}"
    );
    let control = varlink::words(&world);
    let words = ["metrics"]
        .into_iter()
        .chain(control.iter().map(String::as_str));
    let metrics = world.finish(words).expect_code(0).stdout;
    let series = "listend_instance_cpu_seconds_total{worker=\"app\",index=\"0\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    let value: f64 = value.expect("a series").parse().expect("a number");
    assert!(value >= 0.1, "{value}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    daemon.stop();
}

#[test]
fn a_watched_status_follows_the_daemon_to_its_end() {
    let world = World::new();
    let (daemon, mut puppet, _client) = ready(&world);
    let control = varlink::words(&world);
    let words = ["status", "--watch"].into_iter();
    let words = words.chain(control.iter().map(String::as_str));
    let mut start = Start::new(words);
    let file = world.path("shown");
    let redirect = format!("exec \"$@\" >{}", file.display());
    start.through(["sh", "-c", &redirect, "sh"]);
    let watcher = Daemon::start(start);
    let count = |words: &str| {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.matches(words).count()
    };
    eventually("it has been shown", || count("WORKER  GEN") >= 1);
    puppet.ask("notify STATUS=serving 3 clients");
    eventually("what is new is shown", || {
        count("status: serving 3 clients") >= 1
    });
    // It asks once in a second: nothing of all that is the same is printed again.
    puppet.ask("notify STATUS=serving 4 clients");
    eventually("what is new is shown", || {
        count("status: serving 4 clients") >= 1
    });
    assert!(watcher.is_running());
    assert_eq!(count("WORKER  GEN"), 3);
    daemon.stop();
    let finished = watcher.finish();
    // Where the kernel does not tell how it ended, it is gone.
    assert!([Some(0), Some(69)].contains(&finished.code), "{finished:?}");
}

// Rule: an answer is put together over several turns, and a reload may come between two of them.
#[test]
fn more_instances_than_are_looked_at_at_once_are_each_shown_once() {
    const INSTANCES: usize = 300;
    let world = World::new();
    let yaml = format!(
        "listeners: {{ web: '127.0.0.1:0' }}\nworkers:\n  few: {{ command: [sleep, '1000'], listeners: [web] }}\n  \
         many: {{ command: [sleep, '1000'], listeners: [web], instances: {INSTANCES} }}\n"
    );
    let daemon = varlink::run(&world, &yaml);
    daemon.line(&["every eager worker has started"]);
    let mut client = Varlink::connect(&world);
    for name in [None, Some("many")] {
        let answer = client.ask("Status", json!({ "name": name }));
        let workers = answer["workers"].as_array().expect("workers");
        let many = workers.last().expect("a worker")["instances"].as_array();
        let names = many.expect("instances").iter().map(|one| {
            assert_eq!(one["state"], "running");
            one["name"].as_str().expect("a name").to_owned()
        });
        let expected = (0..INSTANCES).map(|number| format!("many.{number}"));
        assert_eq!(names.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
    daemon.stop();
}

#[test]
fn a_reload_may_overtake_an_answer() {
    let world = World::new();
    let yaml = |count: usize| -> String {
        let listeners = (0..count).map(|at| format!("  l{at}: 'unix:$DIR/{at}'\n"));
        let listeners: String = listeners.collect();
        format!("listeners:\n{listeners}")
    };
    let daemon = varlink::run(&world, &yaml(300));
    let mut clients: Vec<Varlink> = (0..10).map(|_| Varlink::connect(&world)).collect();
    world.write("listend.yaml", &yaml(10));
    let reload = reloading::begin(&world);
    // Somebody is being answered all the time.
    while reload.is_running() {
        for client in &mut clients {
            client.call_with("Status", json!({}), json!({}));
        }
        for client in &mut clients {
            let reply = client.next().expect("an answer");
            assert!(reply["error"].is_null(), "{reply}");
        }
    }
    reload.finish().expect_code(0);
    let status = clients[0].ask("Status", json!({}));
    assert_eq!(status["listeners"].as_array().map(Vec::len), Some(10));
    daemon.stop();
}

// Rule: clients wait at a listener that a reload has removed, and that a process still has.
#[test]
fn the_queue_of_a_listener_that_was_removed_is_looked_at_no_more() {
    let world = World::new();
    let one = "
listeners: { a: 'unix:$DIR/a' }
workers:
  a: { command: [$PROBE, puppet, $EVENTS], listeners: [a] }
";
    let two = "
listeners: { a: 'unix:$DIR/a', b: 'unix:$DIR/b' }
workers:
  a: { command: [$PROBE, puppet, $EVENTS], listeners: [a] }
  b: { command: [$PROBE, puppet, $EVENTS], listeners: [b] }
";
    let daemon = varlink::run(&world, two);
    let mut puppets = world.puppets(2);
    for puppet in &mut puppets {
        puppet.ask("deaf");
    }
    let waits = client::unix(&world.path("b")).expect("connect");
    let mut asks = Varlink::connect(&world);
    asks.ask("Status", json!({}));
    world.write("listend.yaml", one);
    asks.ask("Reload", json!({ "no_wait": true }));
    daemon.line(&["b.0: stopping"]);
    // Ten seconds after it came, listend looks whether the client still waits.
    std::thread::sleep(std::time::Duration::from_secs(11));
    let status = asks.ask("Status", json!({}));
    assert_eq!(status["listeners"][1]["state"], "former", "{status}");
    drop((waits, puppets));
    daemon.stop();
}
