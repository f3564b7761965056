//! Reloads that have workers replaced: under load, by a signal, and one after the other.

use crate::harness::load::Load;
use crate::harness::rollout::{
    APP, NEVER, PUPPET, instances, nobody_is_lost, release, run, running, status, tell, three, with,
};
use crate::harness::varlink::Varlink;
use crate::harness::{World, eventually, exists, free_port};
use nix::sys::signal::Signal;
use serde_json::json;
use std::net::{SocketAddr, TcpStream};

/// A listener beside, to have another plan each time.
fn two_listeners(version: &str, port: u16) -> String {
    format!(
        "{}    environment: {{ APP_VERSION: {version} }}\n    rollout: {{ min_ready: 10ms }}\n\
         \x20 beside: {{ command: [$PROBE, serve-app, --version, beside], listeners: [beside], nonblocking: true }}\n",
        APP.replace(
            "listeners: { web: '127.0.0.1:0' }",
            &format!("listeners: {{ web: '127.0.0.1:0', beside: '127.0.0.1:{port}' }}")
        )
    )
}

#[test]
fn a_reload_under_load_replaces_what_has_changed() {
    let world = World::new();
    release(&world, "");
    let (first, second) = (free_port(), free_port());
    let daemon = run(&world, &two_listeners("one", first));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 50);
    world.write("listend.yaml", &two_listeners("two", second));
    tell(&world, &["reload"]).expect_code(0);
    load.wait_for_version("two", 50);
    let beside = Load::start(SocketAddr::from(([127, 0, 0, 1], second)), 2);
    beside.wait_for_version("beside", 20);
    nobody_is_lost(beside);
    // Sockets are closed by a process of its own.
    eventually("nobody listens at the former address", || {
        TcpStream::connect(("127.0.0.1", first)).is_err()
    });
    // By a signal as well; the whole has gone by when it is told.
    world.write("listend.yaml", &two_listeners("three", second));
    daemon.signal(Signal::SIGHUP);
    load.wait_for_version("three", 50);
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn a_later_reload_takes_the_place_of_one_that_is_under_way() {
    let world = World::new();
    let slow = |version: &str, min_ready: &str| {
        three(version).replace("min_ready: 20ms", &format!("min_ready: {min_ready}"))
    };
    let daemon = run(&world, &slow("one", "20ms"));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 50);
    let mut client = Varlink::connect(&world);
    let old = running(&mut client, 1, 3);
    world.write("listend.yaml", &slow("stuck", NEVER));
    let mut waits = Varlink::connect(&world);
    waits.call_with("Reload", json!({}), json!({}));
    load.wait_for_version("stuck", 20);
    world.write("listend.yaml", &slow("three", "20ms"));
    tell(&world, &["reload"]).expect_code(0);
    let reply = waits.next().expect("an answer");
    assert_eq!(reply["error"], "io.listend.Manager.Refused", "{reply}");
    let now = instances(&status(&mut client));
    assert_eq!(now.len(), 3, "{now:?}");
    assert!(
        now.iter().all(|one| one.1 == 3 && one.2 == "running"),
        "{now:?}"
    );
    assert!(old.iter().all(|pid| !exists(*pid)));
    load.wait_for_version("three", 50);
    nobody_is_lost(load);
    daemon.stop();
}

/// Two workers on strings, or only the first; with another time to stop each time.
fn perhaps_late(is_there: bool, stop_timeout: &str) -> String {
    let app = with(PUPPET, &format!("stop_timeout: {stop_timeout}"));
    let late = "  late: { command: [$PROBE, puppet, $EVENTS], ready: notify }\n";
    format!("{app}{}", if is_there { late } else { "" })
}

// The first reload is answered, and the second waits for what it has begun.
#[test]
fn a_reload_waits_for_what_an_earlier_one_has_added() {
    let world = World::new();
    let daemon = run(&world, &perhaps_late(false, "10s"));
    let mut app = world.puppet();
    app.ask("notify READY=1");
    let mut client = Varlink::connect(&world);
    running(&mut client, 1, 1);
    world.write("listend.yaml", &perhaps_late(true, "10s"));
    client.ask("Reload", json!({ "no_wait": true }));
    let mut late = world.puppet();
    world.write("listend.yaml", &perhaps_late(true, "11s"));
    let mut waits = Varlink::connect(&world);
    waits.call_with("Reload", json!({}), json!({ "more": true }));
    assert_eq!(
        waits.next().expect("what there is to do")["continues"],
        true
    );
    daemon.lines(&["in effect"], 2);
    assert!(daemon.lines_so_far(&["reload is complete"]).is_empty());
    late.ask("notify READY=1");
    daemon.line(&["the reload is complete"]);
    let mut last = waits.next().expect("an answer");
    while last["continues"] == true {
        last = waits.next().expect("an answer");
    }
    assert!(last["error"].is_null(), "{last}");
    daemon.stop();
}

// It went on until the last old one was gone, and three new ones had crashed by then.
#[test]
fn a_release_that_crashes_later_is_rolled_back_during_the_rollout_and_soon_after_it() {
    for (instances, waits) in [(3, true), (1, false)] {
        let world = World::new();
        let yaml = |version: &str| {
            let lines = format!("instances: {instances}\nrollout: {{ min_ready: 10ms }}");
            let named = format!("N: '{{instance}}', APP_VERSION: {version} }}");
            with(PUPPET, &lines).replace("N: '{instance}' }", &named)
        };
        let daemon = run(&world, &yaml("one"));
        let mut old = world.puppets(instances);
        old.iter_mut().for_each(|one| _ = one.ask("notify READY=1"));
        let mut client = Varlink::connect(&world);
        running(&mut client, 1, instances);
        world.write("listend.yaml", &yaml("two"));
        let mut reload = Varlink::connect(&world);
        reload.call_with("Reload", json!({}), json!({}));
        let mut new = world.puppet();
        new.ask("notify READY=1");
        if !waits {
            let reply = reload.next().expect("it is over");
            assert!(reply["error"].is_null(), "{reply}");
        } else {
            // The next is on its way.
            let _trial = world.puppet();
        }
        new.tell("exit 1");
        let mut back = world.puppet();
        back.ask("notify READY=1");
        assert_eq!(
            back.report.env.get("APP_VERSION").map(String::as_str),
            Some("one")
        );
        daemon.line(&["app: rolled back, because app.", "of generation 2"]);
        if waits {
            let reply = reload.next().expect("it is over");
            assert_eq!(reply["error"], "io.listend.Manager.Failed", "{reply}");
            assert_eq!(old.iter().filter(|one| exists(one.pid())).count(), 2);
        }
        let now = status(&mut client);
        assert_eq!(now["state"], "degraded", "{now}");
        daemon.stop();
    }
}

// It returned before anything had happened.
#[test]
fn a_reload_of_the_number_of_instances_waits_for_them() {
    let world = World::new();
    let yaml = |instances: usize| with(PUPPET, &format!("instances: {instances}"));
    let daemon = run(&world, &yaml(1));
    let mut first = world.puppet();
    first.ask("notify READY=1");
    let mut client = Varlink::connect(&world);
    running(&mut client, 1, 1);
    let mut reload = Varlink::connect(&world);
    world.write("listend.yaml", &yaml(2));
    reload.call_with("Reload", json!({}), json!({}));
    let mut second = world.puppet();
    second.ask("notify READY=1");
    let reply = reload.next().expect("it is over");
    assert!(reply["error"].is_null(), "{reply}");
    assert_eq!(running(&mut client, 1, 2), [first.pid(), second.pid()]);
    // One that is not there is told.
    world.write("listend.yaml", &yaml(3));
    reload.call_with("Reload", json!({}), json!({}));
    world.puppet().tell("exit 3");
    let reply = reload.next().expect("it is over");
    assert_eq!(reply["error"], "io.listend.Manager.Failed", "{reply}");
    let reason = reply["parameters"]["reason"].as_str().expect("words");
    assert!(
        reason.contains("app.2") && reason.contains("exit status 3"),
        "{reason}"
    );
    world.write("listend.yaml", &yaml(1));
    reload.call_with("Reload", json!({}), json!({}));
    let reply = reload.next().expect("it is over");
    assert!(reply["error"].is_null(), "{reply}");
    assert!(!exists(second.pid()), "it has gone by then");
    daemon.stop();
}

// It said no more than `killed by SIGKILL`, with the advice for what cannot run twice.
#[test]
fn of_a_new_instance_that_was_killed_it_is_said_by_whom() {
    for (hangs, reason) in [
        (false, "by another process or the kernel"),
        (true, "did not stop in time"),
    ] {
        let world = World::new();
        let lines = "stop_timeout: 300ms\nrollout: { min_ready: 1h }";
        let daemon = run(&world, &with(PUPPET, lines));
        let mut first = world.puppet();
        first.ask("notify READY=1");
        daemon.line(&["app.0: ready after"]);
        let mut restart = Varlink::connect(&world);
        restart.call_with("Restart", json!({ "worker": "app" }), json!({}));
        let mut second = world.puppet();
        second.ask("notify READY=1");
        match hangs {
            true => {
                second.ask("notify STOPPING=1");
            }
            false => {
                let pid = nix::unistd::Pid::from_raw(second.pid());
                nix::sys::signal::kill(pid, Signal::SIGKILL).expect("kill");
            }
        }
        let reply = restart.next().expect("it is over");
        let told = reply.to_string();
        assert!(told.contains("killed by SIGKILL"), "{told}");
        assert!(told.contains(reason), "{told}");
        assert!(!told.contains("stop-first"), "{told}");
        daemon.stop();
    }
}

// It said no more than `exit status 1 after 5 ms`.
#[test]
fn a_program_that_cannot_run_twice_is_rolled_back_with_the_reason_and_what_to_do() {
    for (output, reason) in [("tag", "the lock is held"), ("inherit", "`output: tag`")] {
        let world = World::new();
        let alone = |version: &str| {
            format!(
                "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [sh, -c, 'exec 9>$DIR/lock; if ! flock -n 9; then echo the lock is held >&2; exit 7; fi; exec sleep 1000']
    listeners: [web]
    output: {output}
    environment: {{ APP_VERSION: {version} }}
"
            )
        };
        let daemon = run(&world, &alone("one"));
        daemon.line(&["app.0", "started"]);
        world.write("listend.yaml", &alone("two"));
        let told = tell(&world, &["reload"]).expect_code(1);
        for part in ["exit status 7", reason, "rollout: { order: stop-first }"] {
            assert!(told.stderr.contains(part), "{part}: {}", told.stderr);
        }
        daemon.line(&["app: rolled back", "rollout: { order: stop-first }"]);
        let mut client = Varlink::connect(&world);
        let setback = status(&mut client)["setback"].clone();
        let setback = setback.as_str().expect("why");
        assert!(!setback.contains("rolling back"), "{setback}");
        // As told.
        let text = alone("two") + "    rollout: { order: stop-first, min_ready: 10ms }\n";
        world.write("listend.yaml", &text);
        tell(&world, &["reload"]).expect_code(0);
        daemon.stop();
    }
}

#[test]
fn what_there_is_is_told_in_the_order_of_the_configuration_also_after_a_reload() {
    let world = World::new();
    let entry = |name: &str| {
        (
            format!("  {name}: 'unix:$DIR/{name}.sock'\n"),
            format!("  {name}: {{ command: [sleep, '1000'], listeners: [{name}] }}\n"),
        )
    };
    let yaml = |names: &[&str]| {
        let all = names.iter().map(|name| entry(name));
        let (listeners, workers): (String, String) = all.unzip();
        format!("listeners:\n{listeners}workers:\n{workers}")
    };
    let daemon = run(&world, &yaml(&["b", "d"]));
    daemon.line(&["every eager worker"]);
    for names in [&["a", "b", "c", "d"][..], &["d", "a"]] {
        world.write("listend.yaml", &yaml(names));
        tell(&world, &["reload"]).expect_code(0);
        let mut client = Varlink::connect(&world);
        let status = client.ask("Status", json!({}));
        for kind in ["listeners", "workers"] {
            let all = status[kind].as_array().expect("a list").iter();
            let told: Vec<&str> = all.filter_map(|one| one["name"].as_str()).collect();
            assert_eq!(told, names, "{kind}");
        }
    }
    daemon.stop();
}

// Two were restarted before the third was found not to be there.
#[test]
fn of_several_workers_all_have_to_be_there_before_anything_is_done() {
    let world = World::new();
    let daemon = run(&world, &perhaps_late(true, "1s"));
    let mut both = world.puppets(2);
    both.iter_mut()
        .for_each(|one| _ = one.ask("notify READY=1"));
    for verb in ["restart", "stop", "reset"] {
        let told = tell(&world, &[verb, "app", "late", "nope", "nix"]).expect_code(1);
        for part in ["`nope`", "`nix`", "nothing was done"] {
            assert!(told.stderr.contains(part), "{verb}: {}", told.stderr);
        }
        // Nor is a listener a worker.
        let told = tell(&world, &[verb, "app", "web"]).expect_code(1);
        for part in ["no worker is called `web`", "nothing was done"] {
            assert!(told.stderr.contains(part), "{verb}: {}", told.stderr);
        }
    }
    assert!(world.no_puppet_is_waiting());
    assert!(both.iter().all(|one| exists(one.pid())));
    daemon.stop();
}
