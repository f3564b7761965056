//! Reloads one after the other and at once: definitions that were given up, what is left over, and what
//! comes in between.

use crate::harness::reloading::{
    TWO, address, ask, begin, files, filled, good_or_bad, reload, rewrite, run, serves, state_of,
};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Daemon, Start, World, alone, children, client, descriptors, descriptors_become, eventually,
    exists, free_port, kill, resident_kib, servers, settled, settled_descriptors,
};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::json;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;

// They said `127.0.0.2:0 is bound` and `127.0.0.1:0 is closed`.
#[test]
fn the_lines_of_a_reload_name_the_ports_that_the_kernel_chose() {
    let world = World::new();
    let yaml = |ip: &str| format!("listeners: {{ web: '{ip}:0' }}\n");
    let daemon = run(&world, &yaml("127.0.0.1"));
    let old = daemon.address("web");
    rewrite(&world, &yaml("127.0.0.2"));
    let would = ask(&world, "reload --dry-run").expect_code(0).stdout;
    let closed = format!("listener `web`: {old} would be closed");
    assert!(would.contains(&closed), "{would}");
    let told = ask(&world, "reload").expect_code(0).stdout;
    let closed = format!("listener `web`: {old} is closed");
    assert!(told.contains(&closed), "{told}");
    let bound = told.lines().find_map(|line| line.strip_suffix(" is bound"));
    let bound = bound.and_then(|line| line.strip_prefix("listener `web`: "));
    let new: SocketAddr = bound.expect("it is told").parse().expect("an address");
    client::tcp(new).expect("connect");
    daemon.stop();
}

// "a fifo is there, not a socket": the dry run and `check` refused what the reload carries out.
#[test]
fn what_listend_itself_has_at_a_path_is_in_nobodys_way() {
    let world = World::new();
    let yaml = |listener: &str| format!("listeners: {{ it: {{ {listener} }} }}\n");
    let daemon = run(&world, &yaml("address: 'unix:$DIR/it'"));
    daemon.line(&["listener it: listening"]);
    for listener in [
        "address: 'fifo:$DIR/it'",
        "address: 'fifo:$DIR/it', mode: '0666'",
        "address: 'unix:$DIR/it'",
        "address: 'unix:$DIR/other', symlinks: ['$DIR/it']",
        "address: 'unix-dgram:$DIR/it'",
    ] {
        let check = world.check(&yaml(listener), &["--json"]).expect_code(0);
        let json = check.json();
        assert_eq!(json["errors"], json!([]), "{listener}");
        let mut advice = json["advice"].as_array().into_iter().flatten();
        let is_held = advice.any(|one| one["kind"] == "held-by-listend");
        assert!(is_held, "{listener}: {json}");
        ask(&world, "reload --dry-run").expect_code(0);
        ask(&world, "reload").expect_code(0);
    }
    // What is somebody else's is in the way of both.
    fs::write(world.path("file"), "").expect("write");
    rewrite(&world, &yaml("address: 'unix:$DIR/file'"));
    ask(&world, "reload --dry-run").expect_code(1);
    ask(&world, "reload").expect_code(1);
    daemon.stop();
}

// Only the first was named.
#[test]
fn a_reload_names_every_worker_that_went_back() {
    let world = World::new();
    let yaml = |program: &str| {
        let worker = format!("command: {program}, rollout: {{ min_ready: 200ms }}");
        format!(
            "workers: {{ one: {{ {worker} }}, other: {{ {worker} }}, same: {{ command: [sleep, '600'] }} }}\n"
        )
    };
    let daemon = run(&world, &yaml("[sleep, '600']"));
    daemon.line(&["every eager worker"]);
    rewrite(&world, &yaml("[sh, -c, 'exit 3']"));
    let told = ask(&world, "reload").expect_code(1);
    let line = daemon.line(&["the reload is complete, except for"]);
    for name in ["one.0 of generation 2", "other.0 of generation 2"] {
        assert!(told.stderr.contains(&format!("{name} failed")), "{told:?}");
        assert!(line.contains(name), "{line}");
    }
    assert!(!line.contains("same"), "{line}");
    // A program is answered the same, and finds it in the events.
    let mut client = Varlink::connect(&world);
    client.call_with("Reload", json!({}), json!({}));
    let reply = client.next().expect("it is over");
    let reason = reply["parameters"]["reason"].as_str().expect("a reason");
    let lines: Vec<&str> = reason.lines().collect();
    let names = |name| lines.iter().any(|line| line.starts_with(name));
    assert!(
        lines.len() == 2 && names("one.0") && names("other.0"),
        "{reply}"
    );
    let told = ask(&world, "events --no-follow --json").expect_code(0);
    let mut lines = told.stdout.lines().rev();
    let done = lines.find(|line| line.contains("reload-done"));
    let done = done.expect("it is told");
    assert!(done.contains("one.0") && done.contains("other.0"), "{done}");
    daemon.stop();
}

#[test]
fn a_definition_that_was_given_up_is_tried_again_and_can_be_taken_back() {
    let world = World::new();
    let (old, new) = (free_port(), free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let daemon = run(&world, &good_or_bad(&at(old), true));
    let first = world.puppet();
    daemon.line(&["app.0", "started"]);
    for _ in 0..2 {
        // The same once more is tried again.
        rewrite(&world, &good_or_bad(&at(new), false));
        let told = ask(&world, "reload").expect_code(1);
        assert!(told.stderr.contains("app.0"), "{}", told.stderr);
        assert_eq!(state_of(&world, "workers", "app"), "degraded");
        assert!(exists(first.pid()) && world.no_puppet_is_waiting());
        // The old one serves where it always did.
        client::tcp(address(old)).expect("somebody listens");
    }
    let told = ask(&world, "reload --dry-run").expect_code(0);
    assert!(told.stdout.contains("retrying"), "{}", told.stdout);
    // So does a restart: it is about what the configuration says.
    let told = ask(&world, "restart app").expect_code(1);
    assert!(told.stderr.contains("app.0"), "{}", told.stderr);
    assert_eq!(state_of(&world, "workers", "app"), "degraded");
    assert!(exists(first.pid()) && world.no_puppet_is_waiting());
    // If it crashes, it is started again with the sockets that it had.
    kill(first.pid(), Signal::SIGKILL);
    let again = world.puppet();
    let has = again.report.fds.iter().find(|fd| fd.number == 3);
    let has = has.and_then(|fd| fd.socket.clone()).expect("a socket");
    assert_eq!(has.name, at(old));
    // Back to what there was: the address is ours already.
    let told = reload(&world, &good_or_bad(&at(old), true));
    assert!(!told.stdout.contains("removed"), "{}", told.stdout);
    let mut back = world.puppet();
    assert_eq!(state_of(&world, "workers", "app"), "running");
    while client::tcp(address(new)).is_ok() {}
    serves(&mut back, address(old));
    daemon.stop();
}

#[test]
fn a_third_definition_after_one_that_was_given_up_closes_what_nobody_has() {
    let world = World::new();
    let yaml = |name: &str, is_good| good_or_bad(&format!("unix:$DIR/{name}.sock"), is_good);
    let daemon = run(&world, &yaml("one", true));
    let _first = world.puppet();
    daemon.line(&["app.0", "started"]);
    let open = settled_descriptors(daemon.pid());
    rewrite(&world, &yaml("two", false));
    ask(&world, "reload").expect_code(1);
    assert!(world.path("one.sock").exists() && world.path("two.sock").exists());
    reload(&world, &yaml("three", true));
    let mut third = world.puppet();
    eventually("the others are removed", || {
        !world.path("one.sock").exists() && !world.path("two.sock").exists()
    });
    third.tell("serve");
    assert_eq!(client::ask_unix(&world.path("three.sock")).pid, third.pid());
    descriptors_become(daemon.pid(), open);
    let left = files(&world);
    assert!(
        !left
            .iter()
            .any(|name| name.starts_with("one") || name.starts_with("two")),
        "{left:?}"
    );
    daemon.stop();
}

#[test]
fn an_address_is_changed_back_while_the_old_generation_still_drains() {
    let world = World::new();
    let (old, new) = (free_port(), free_port());
    let yaml = |port: u16| {
        format!(
            "listeners: {{ web: '127.0.0.1:{port}' }}\nworkers:\n  app:\n    $APP\n    listeners: [web]\n"
        )
    };
    let daemon = run(&world, &yaml(old));
    let mut first = world.puppet();
    first.ask("drain");
    daemon.line(&["app.0", "started"]);
    rewrite(&world, &yaml(new));
    let reloading = begin(&world);
    let second = world.puppet();
    assert_eq!(first.listen().as_deref(), Some("term"));
    let waits = client::tcp(address(old)).expect("somebody drains");
    rewrite(&world, &yaml(old));
    let back = begin(&world);
    // The former is told that another has taken its place.
    reloading.finish().expect_code(1);
    let mut third = world.puppet();
    kill(first.pid(), Signal::SIGKILL);
    back.finish().expect_code(0);
    eventually("the second is gone", || !exists(second.pid()));
    third.tell("serve");
    // Nobody has served it, and it has waited in the one queue that there is.
    assert_eq!(client::read_report(waits).expect("served").pid, third.pid());
    // A child closes it, in its own time.
    eventually("the other address is closed", || {
        client::tcp(address(new)).is_err()
    });
    daemon.stop();
}

#[test]
fn signals_without_end_and_clients_that_go_leave_nothing_behind() {
    let world = World::new();
    let daemon = run(&world, TWO);
    let puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let open = settled_descriptors(daemon.pid());
    for _ in 0..20 {
        daemon.signal(Signal::SIGHUP);
    }
    let asked: Vec<Daemon> = (0..6).map(|_| begin(&world)).collect();
    for one in &asked[..3] {
        one.signal(Signal::SIGKILL);
    }
    for one in &asked[3..] {
        one.finish().expect_code(0);
    }
    // Whatever was killed on its way, the next is served.
    ask(&world, "reload").expect_code(0);
    settled(daemon.pid());
    eventually("nothing is left open", || descriptors(daemon.pid()) == open);
    eventually("no process is left", || {
        crate::harness::children(daemon.pid()) == [puppet.pid()]
    });
    assert!(world.no_puppet_is_waiting());
    daemon.stop();
}

#[test]
fn listend_stops_during_a_reload() {
    let world = World::new();
    let daemon = run(&world, TWO);
    let mut puppet = world.puppet();
    puppet.ask("drain");
    daemon.line(&["app.0", "started"]);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    rewrite(&world, &TWO.replace("two.sock", "other.sock"));
    daemon.signal(Signal::SIGHUP);
    let told = ask(&world, "reload").expect_code(1);
    assert!(told.stderr.contains("stopping"), "{}", told.stderr);
    assert!(!world.path("other.sock").exists());
    puppet.tell("exit 0");
    assert_eq!(daemon.finish().code, Some(0));
    assert!(!world.path("two.sock").exists());
}

#[test]
fn a_worker_waits_for_the_address_of_a_listener_that_a_reload_brings() {
    let world = World::new();
    let yaml = |address: &str| {
        format!(
            "listeners: {{ web: {{ address: '{address}', wait_for_address: 60s }} }}\nworkers:\n  app:\n    $APP\n    listeners: [web]\n"
        )
    };
    let daemon = run(
        &world,
        "listeners: { a: '127.0.0.1:0' }\nworkers:\n  other:\n    $APP\n    listeners: [a]\n",
    );
    let _other = world.puppet();
    daemon.line(&["other.0", "started"]);
    // 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
    let port = free_port();
    rewrite(&world, &yaml(&format!("192.0.2.1:{port}")));
    ask(&world, "reload --no-wait").expect_code(0);
    daemon.line(&["web", "192.0.2.1"]);
    eventually("it is missing", || {
        state_of(&world, "listeners", "web") == "missing"
    });
    assert!(world.no_puppet_is_waiting());
    assert_eq!(daemon.lines_so_far(&["app.0", "started"]).len(), 0);
    // Only the backlog: it is waited for as before.
    let longer = yaml(&format!("192.0.2.1:{port}")).replace("wait_for", "backlog: 4, wait_for");
    rewrite(&world, &longer);
    ask(&world, "reload --no-wait").expect_code(0);
    assert_eq!(state_of(&world, "listeners", "web"), "missing");
    reload(&world, &yaml(&format!("127.0.0.1:{port}")));
    let mut puppet = world.puppet();
    serves(&mut puppet, address(port));
    assert_eq!(state_of(&world, "listeners", "web"), "listening");
    let metrics = ask(&world, "metrics").expect_code(0).stdout;
    assert!(
        metrics.contains("listend_listener_up{listener=\"web\"} 1"),
        "{metrics}"
    );
    daemon.stop();
}

#[test]
fn a_listener_that_was_closed_because_its_worker_failed_stays_so_until_that_is_mended() {
    let world = World::new();
    let port = free_port();
    let yaml = |backlog: u32, command: &str| {
        format!(
            "listeners: {{ web: {{ address: '127.0.0.1:{port}', backlog: {backlog} }} }}\nworkers:\n  app:\n    command: {command}\n    listeners: [web]\n    on_failure: refuse\n    restart: {{ backoff: 1ms..1ms, limit: 1 in 60s }}\n    rollout: {{ min_ready: 0s }}\n"
        )
    };
    let bad = "[$PROBE, exit, '3']";
    let daemon = run(&world, &yaml(5, bad));
    daemon.line(&["web", "closed, so that clients are refused"]);
    eventually("it is", || client::tcp(address(port)).is_err());
    reload(&world, &yaml(6, bad));
    assert!(client::tcp(address(port)).is_err());
    rewrite(&world, &yaml(6, "[$PROBE, puppet, $EVENTS]"));
    ask(&world, "reload").expect_code(0);
    let mut puppet = world.puppet();
    serves(&mut puppet, address(port));
    daemon.stop();
}

#[test]
fn a_damaged_listener_gets_another_name_and_is_repaired() {
    let world = World::new();
    let yaml = |name: &str| {
        format!(
            "listeners: {{ {name}: 'unix:$DIR/web.sock' }}\nworkers:\n  app:\n    $APP\n    listeners: [{name}]\n"
        )
    };
    let daemon = run(&world, &yaml("one"));
    let _first = world.puppet();
    daemon.line(&["app.0", "started"]);
    let path = world.path("web.sock");
    for _ in 0..2 {
        fs::remove_file(&path).expect("remove");
        eventually("it is there again", || path.exists());
    }
    // The second repair may still be put off; in any case it is there in the end.
    reload(&world, &yaml("two"));
    eventually("it is there", || {
        path.exists() && state_of(&world, "listeners", "two") == "listening"
    });
    daemon.stop();
}

#[test]
fn workers_with_ever_new_names_take_no_more_room_and_are_not_mixed_up() {
    let world = World::new();
    let yaml = |number: u32| {
        format!(
            "listeners: {{ l{number}: 'unix:$DIR/l{number}.sock' }}\nworkers:\n  w{number}:\n    command: [sh, -c, 'echo words of w{number}']\n    output: tag\n    listeners: [l{number}]\n    restart: {{ policy: never }}\n"
        )
    };
    let daemon = run(&world, &yaml(0));
    daemon.line(&["w0.0", "exited"]);
    let mut before = None;
    for number in 1..=100 {
        rewrite(&world, &yaml(number));
        ask(&world, "reload --no-wait").expect_code(0);
        daemon.line(&[&format!("w{number}.0"), "exited"]);
        if number == 20 {
            before = Some((
                settled_descriptors(daemon.pid()),
                resident_kib(daemon.pid()),
            ));
        }
    }
    let (open, memory) = before.expect("there were more than 20");
    descriptors_become(daemon.pid(), open);
    let grown = resident_kib(daemon.pid()).saturating_sub(memory);
    assert!(grown < 8 << 10, "{grown} KiB more");
    let logs = ask(&world, "logs w100").expect_code(0).stdout;
    assert!(logs.contains("words of w100"), "{logs}");
    assert_eq!(
        logs.lines()
            .filter(|line| line.contains("words of"))
            .count(),
        1,
        "{logs}"
    );
    let metrics = ask(&world, "metrics").expect_code(0).stdout;
    assert!(
        metrics.contains("worker=\"w100\"") && !metrics.contains("worker=\"w99\""),
        "{metrics}"
    );
    let status = ask(&world, "status").text();
    assert!(
        status.contains("w100") && !status.contains("w99"),
        "{status}"
    );
    let left = files(&world);
    assert_eq!(
        left.iter()
            .filter(|name| name.ends_with(".sock") && name.starts_with('l'))
            .count(),
        1,
        "{left:?}"
    );
    daemon.stop();
}

#[test]
fn a_worker_that_crashes_again_and_again_is_removed() {
    let world = World::new();
    let daemon = run(
        &world,
        "listeners: { a: '127.0.0.1:0', b: '127.0.0.1:0' }\nworkers:\n  calm:\n    $APP\n    listeners: [a]\n  mad:\n    command: [$PROBE, exit, '1']\n    listeners: [b]\n    restart: { backoff: 1ms..2ms, limit: none }\n",
    );
    let calm = world.puppet();
    daemon.lines(&["mad.0", "exited"], 3);
    reload(
        &world,
        "listeners: { a: '127.0.0.1:0' }\nworkers:\n  calm:\n    $APP\n    listeners: [a]\n",
    );
    let count = daemon.lines_so_far(&["mad.0", "exited"]).len();
    settled(daemon.pid());
    assert!(daemon.lines_so_far(&["mad.0", "exited"]).len() <= count + 1);
    let status = ask(&world, "status").text();
    assert!(
        !status.contains("mad") && status.contains("calm"),
        "{status}"
    );
    assert!(exists(calm.pid()));
    daemon.stop();
}

#[test]
fn the_metrics_listener_comes_moves_and_goes() {
    let world = World::new();
    let (one, two) = (free_port(), free_port());
    let plain = "listeners:\n  web: 'unix:$DIR/web.sock'\nworkers:\n  app:\n    $APP\n    listeners: [web]\n";
    let with = |port: u16| format!("{plain}metrics: '127.0.0.1:{port}'\n");
    let daemon = run(&world, plain);
    let puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let scrape = |port| client::http(client::tcp(address(port)).expect("connect"), "/metrics");
    for port in [one, two, one] {
        reload(&world, &with(port));
        assert!(scrape(port).expect("scraped").contains("listend_"));
    }
    let is_closed = |port| client::tcp(address(port)).is_err();
    eventually("the other is closed", || is_closed(two));
    reload(&world, plain);
    eventually("it is closed", || is_closed(one));
    assert!(exists(puppet.pid()) && world.no_puppet_is_waiting());
    daemon.stop();
}

#[test]
fn listend_exec_has_nothing_to_read_again_and_a_signal_needs_no_control_socket() {
    let world = World::new();
    let words = [
        "exec",
        "--listen",
        "127.0.0.1:0",
        "--",
        "$PROBE",
        "puppet",
        "$EVENTS",
    ];
    let daemon = world.start(Start::new(words));
    let puppet = world.puppet();
    daemon.signal(Signal::SIGHUP);
    daemon.line(&["nothing changes"]);
    assert!(exists(puppet.pid()));
    daemon.stop();
    // Without a control socket, only the signal is left.
    let daemon = world.run(&filled(TWO));
    let _first = world.puppet();
    daemon.line(&["app.0", "started"]);
    rewrite(&world, &TWO.replace("two.sock", "other.sock"));
    daemon.signal(Signal::SIGHUP);
    let _second = world.puppet();
    daemon.line(&["the reload is complete"]);
    assert!(world.path("other.sock").exists() && !world.path("two.sock").exists());
    rewrite(&world, "listeners: [");
    daemon.signal(Signal::SIGHUP);
    daemon.line(&["nothing has changed"]);
    assert!(daemon.is_running());
    daemon.stop();
}

#[test]
fn a_path_is_taken_over_by_another_kind_of_socket() {
    let world = World::new();
    let path = world.path("one.sock");
    let yaml = |kind: &str| {
        format!(
            "listeners: {{ web: {{ address: '{kind}:$DIR/one.sock' }} }}\nworkers:\n  app:\n    $APP\n    listeners: [web]\n"
        )
    };
    let daemon = run(&world, &yaml("unix"));
    let _first = world.puppet();
    daemon.line(&["app.0", "started"]);
    let names = files(&world);
    let inode = fs::metadata(&path).expect("it is there").ino();
    reload(&world, &yaml("unix-dgram"));
    let _second = world.puppet();
    assert_ne!(fs::metadata(&path).expect("it is there").ino(), inode);
    reload(&world, &yaml("unix"));
    let mut third = world.puppet();
    third.tell("serve");
    assert_eq!(client::ask_unix(&path).pid, third.pid());
    assert_eq!(files(&world), names);
    // From a path to a port and back.
    let port = free_port();
    reload(&world, &good_or_bad(&format!("127.0.0.1:{port}"), true));
    let mut fourth = world.puppet();
    assert!(!path.exists());
    serves(&mut fourth, address(port));
    daemon.stop();
}

#[test]
fn an_address_of_datagrams_becomes_more_special_and_less() {
    let world = World::new();
    let port = free_port();
    let yaml = |ip: &str| {
        format!(
            "listeners: {{ dns: 'udp://{ip}:{port}' }}\nworkers:\n  app:\n    $APP\n    listeners: [dns]\n"
        )
    };
    let daemon = run(&world, &yaml("0.0.0.0"));
    let _first = world.puppet();
    daemon.line(&["app.0", "started"]);
    // A puppet that is dropped ends, and another would start.
    let mut puppets = Vec::new();
    for ip in ["127.0.0.1", "0.0.0.0"] {
        reload(&world, &yaml(ip));
        let next = world.puppet();
        let name = format!("{ip}:{port}");
        let has = |fd: &crate::harness::report::Fd| {
            fd.socket.as_ref().is_some_and(|one| one.name == name)
        };
        assert!(next.report.fds.iter().any(has), "{:?}", next.report.fds);
        puppets.push(next);
    }
    // Nobody else can have it.
    assert!(UdpSocket::bind(address(port)).is_err());
    daemon.stop();
}

#[test]
fn reload_of_a_worker_by_name_is_its_own_affair() {
    let world = World::new();
    let yaml = "
listeners: { web: 'unix:$DIR/web.sock' }
workers:
  app:
    $APP
    listeners: [web]
    reload_command: [sh, -c, 'echo $MAINPID > $DIR/told']
";
    let daemon = run(&world, yaml);
    let puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    ask(&world, "reload app").expect_code(0);
    let told = world.path("told");
    eventually("it was told", || {
        fs::read_to_string(&told).is_ok_and(|text| text.trim() == puppet.pid().to_string())
    });
    // After a reload of the configuration it is the command of that.
    reload(&world, &yaml.replace("/told", "/other"));
    assert!(exists(puppet.pid()) && world.no_puppet_is_waiting());
    ask(&world, "reload app").expect_code(0);
    eventually("it was told otherwise", || world.path("other").exists());
    daemon.stop();
}

#[test]
fn a_reload_waits_for_what_the_one_before_has_begun() {
    let world = World::new();
    let yaml = |version: u32| {
        format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    $APP
    environment: {{ VERSION: '{version}' }}
    listeners: [web]
    ready: notify
"
        )
    };
    let daemon = run(&world, &yaml(1));
    let mut first = world.puppet();
    first.ask("notify READY=1");
    daemon.line(&["every eager worker"]);
    rewrite(&world, &yaml(2));
    let former = begin(&world);
    let second = world.puppet();
    rewrite(&world, &yaml(3));
    let latter = begin(&world);
    former.finish().expect_code(1);
    let mut third = world.puppet();
    eventually("the second is given up", || !exists(second.pid()));
    assert_eq!(daemon.lines_so_far(&["the reload is complete"]).len(), 0);
    third.ask("notify READY=1");
    latter.finish().expect_code(0);
    assert!(!exists(first.pid()) && exists(third.pid()));
    // The same with a worker that is new, and a reload that changes nothing else.
    let with_another = yaml(3)
        + "  new: { command: [$PROBE, puppet, $EVENTS], listeners: [web], ready: notify }\n";
    rewrite(&world, &with_another);
    let former = begin(&world);
    let mut new = world.puppet();
    let latter = begin(&world);
    former.finish().expect_code(1);
    assert_eq!(daemon.lines_so_far(&["the reload is complete"]).len(), 1);
    new.ask("notify READY=1");
    latter.finish().expect_code(0);
    daemon.stop();
}

// Who holds an address is looked up with the names of users, which a name server may have.
#[test]
fn a_name_server_that_does_not_answer_does_not_hold_up_a_reload() {
    let Some((words, command)) = servers::silent("users") else {
        return;
    };
    let world = World::new();
    let control = varlink::words(&world);
    let port = free_port();
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers: {{ app: {{ command: {command}, '{port}'], listeners: [web], restart: never }} }}
"
    );
    let daemon = world.run_with(&yaml, |start| {
        start.through(words);
        start.words_behind(control.iter().map(String::as_str));
    });
    daemon.line(&["the page is gone"]);
    let mut client = Varlink::connect(&world);
    let more = yaml.replace("web: '127.0.0.1:0'", &format!("web: '127.0.0.1:{port}'"));
    world.write("listend.yaml", &more);
    client.call_with("Reload", json!({}), json!({}));
    assert_eq!(state_of(&world, "workers", "app"), "running");
    let reply = client.next().expect("a reply");
    assert_eq!(reply["error"], "io.listend.Manager.NotReloaded");
    let text = reply["parameters"]["rendered"].as_str().expect("a text");
    assert!(text.contains("address already in use"), "{text}");
    assert!(text.contains("did not return"), "{text}");
    daemon.stop();
}

/// Sockets are closed by a process beside listend, which may be slow.
#[test]
fn a_reload_is_answered_when_what_it_gives_up_is_free() {
    const MANY: u16 = 1000;
    if !alone() {
        return;
    }
    // All on one processor, so that whoever closes has not done so by chance.
    let mut one = CpuSet::new();
    one.set(0).expect("a processor");
    sched_setaffinity(Pid::this(), &one).expect("sched_setaffinity");
    let world = World::new();
    let held = |address: &str| -> String {
        let of = |index: u16| format!("  l{index}: '{address}:{}'\n", 20_000 + index);
        (0..MANY).map(of).collect()
    };
    let yaml = |listeners: &str| format!("listeners:\n  own: 127.0.0.1:{{port}}\n{listeners}");
    let port = free_port().to_string();
    let [few, many] = ["", &held("127.31.7.1")].map(|more| yaml(more).replace("{port}", &port));
    let daemon = run(&world, &few);
    daemon.line(&["every eager worker is ready"]);
    for _ in 0..5 {
        reload(&world, &many);
        // Another in between, of which nobody waits for the answer.
        rewrite(&world, &few);
        kill(daemon.pid(), Signal::SIGHUP);
        reload(&world, &many);
        reload(&world, &few);
        for index in 0..MANY {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let address: SocketAddr = format!("127.31.7.1:{}", 20_000 + index)
                .parse()
                .expect("IP");
            // Without SO_REUSEADDR.
            let bound = socket.expect("a socket").bind(&address.into());
            bound.unwrap_or_else(|error| panic!("{address}: {error}"));
        }
    }
    daemon.stop();
}

/// A daemon whose configuration is a FIFO by now, of which somebody who writes does not come to an end.
fn with_an_endless_configuration(world: &World) -> (Daemon, fs::File) {
    let daemon = run(world, "listeners: { one: '127.0.0.1:0' }\nworkers: {}\n");
    daemon.line(&["listen", "bound"]);
    let file = world.path("listend.yaml");
    fs::remove_file(&file).expect("remove");
    mkfifo(&file, Mode::S_IRWXU).expect("mkfifo");
    let both = fs::OpenOptions::new().read(true).write(true).open(&file);
    (daemon, both.expect("a FIFO"))
}

#[test]
fn who_reads_a_configuration_ends_with_a_daemon_that_is_killed() {
    let world = World::new();
    let (daemon, _writer) = with_an_endless_configuration(&world);
    daemon.signal(Signal::SIGHUP);
    let mut readers = Vec::new();
    eventually("somebody reads the configuration", || {
        readers = children(daemon.pid());
        let words =
            |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        readers.len() == 1 && readers.iter().all(|one| words(*one).contains("check\0"))
    });
    daemon.signal(Signal::SIGKILL);
    let _killed = daemon.status();
    eventually("the reader is gone", || {
        !readers.iter().any(|one| exists(*one))
    });
}

#[test]
fn a_reload_that_nobody_waits_for_any_more_is_given_up() {
    let world = World::new();
    let (daemon, _writer) = with_an_endless_configuration(&world);
    let mut client = Varlink::connect(&world);
    client.call_with("Reload", json!({}), json!({ "more": true }));
    eventually("somebody reads the configuration", || {
        !children(daemon.pid()).is_empty()
    });
    drop(client);
    daemon.line(&["cannot reload the configuration: whoever asked for it has gone"]);
    daemon.stop();
}

// The address is held, so nothing was tried: check and a dry run found nothing wrong, and the reload was refused.
#[test]
fn an_option_that_a_reload_refuses_is_told_before_it() {
    let world = World::new();
    let port = free_port();
    let with = |option: &str| {
        format!(
            "
listeners:
  web: {{ address: '127.0.0.1:{port}'{option} }}
  local: {{ address: 'unix:$DIR/local.sock', receive_buffer: 64K }}
workers:
  app:
    $APP
    listeners: [web, local]
"
        )
    };
    let daemon = run(&world, &with(""));
    world.puppet();
    rewrite(&world, &with(", keep_alive: true, tcp_congestion: no_such"));
    let file = world.path("listend.yaml");
    let check = ["check", "-c", file.to_str().expect("UTF-8")];
    let checked = world.finish(check).expect_code(69);
    let dry = ask(&world, "reload --dry-run").expect_code(1);
    let refused = ask(&world, "reload").expect_code(1);
    for told in [checked, dry, refused] {
        assert!(told.stderr.contains("listend.yaml:3:"), "{}", told.stderr);
        assert!(
            told.stderr.contains("cannot set TCP_CONGESTION"),
            "{}",
            told.stderr
        );
    }
    rewrite(&world, &with(", keep_alive: true"));
    world.finish(check).expect_code(0);
    ask(&world, "reload --dry-run").expect_code(0);
    ask(&world, "reload").expect_code(0);
    daemon.stop();
}
