//! The server's start, its end, and how forwarders follow one another.

use super::{ask, ready, rest, say, yaml, yaml_at};
use crate::harness::load::{Answer, Load, Question};
use crate::harness::rollout::{nobody_is_lost, tell};
use crate::harness::servers::server_that_says;
use crate::harness::{
    World, children, client, eventually, exists, free_port, is_root, kill, require_tool,
};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

fn pid_question() -> Question {
    Question {
        send: b"pid\n".to_vec(),
        answer: Answer::Bytes(b"\n".to_vec()),
        ..Question::http()
    }
}

#[test]
fn the_first_client_starts_the_server() {
    let world = World::new();
    let daemon = world.run(&yaml("activation: on-demand"));
    let address = daemon.address("web");
    assert!(children(daemon.pid()).is_empty());
    let pid: i32 = ask(address, "pid").parse().expect("a pid");
    let forwarder = children(daemon.pid());
    assert_eq!(forwarder.len(), 1);
    assert_eq!(children(forwarder[0]), [pid]);
    daemon.stop();
    assert!(!exists(pid));
}

#[test]
fn clients_wait_for_a_server_that_starts_slowly() {
    let world = World::new();
    let yaml = yaml("").replace(
        "[$PROBE, backend, '127.0.0.1:{port}']",
        "[sh, -c, 'read x < $DIR/go; exec $PROBE backend 127.0.0.1:{port}']",
    );
    nix::unistd::mkfifo(&world.path("go"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let daemon = world.run(&yaml);
    let address = daemon.address("web");
    let clients: Vec<_> = (0..20).map(|_| say(address, "pid")).collect();
    assert!(daemon.lines_so_far(&["app.0", "ready"]).is_empty());
    fs::write(world.path("go"), "go\n").expect("let it go");
    for client in clients {
        rest(client).trim().parse::<i32>().expect("a pid");
    }
    daemon.line(&["every eager worker is ready"]);
    daemon.stop();
}

#[test]
fn a_server_gets_its_port_in_its_environment_and_no_listener() {
    let world = World::new();
    let yaml = yaml(
        "environment: { PORT: '{port}', SAID: 'is {port}.', OTHER: x, STATE_DIRECTORY: /srv }",
    )
    .replace(
        "[$PROBE, backend, '127.0.0.1:{port}']",
        "[sh, -c, 'exec $PROBE backend 127.0.0.1:$PORT']",
    );
    let daemon = ready(&world, &yaml);
    let address = daemon.address("web");
    let port = ask(address, "env SAID");
    let number = port
        .strip_prefix("is ")
        .and_then(|rest| rest.strip_suffix('.'));
    let number: u16 = number.expect("the text").parse().expect("a port");
    assert_ne!(number, address.port());
    for name in [
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "NOTIFY_SOCKET",
    ] {
        assert_eq!(ask(address, &format!("env {name}")), "", "{name}");
    }
    // What was written for it is its own, whoever else may set it.
    assert_eq!(ask(address, "env STATE_DIRECTORY"), "/srv");
    let fds = ask(address, "fds");
    // Its listener, and this connection with its clone.
    assert_eq!(fds.matches("socket:").count(), 3, "{fds}");
    assert!(
        !fds.contains("pipe:") || fds.matches("pipe:").count() <= 2,
        "{fds}"
    );
    daemon.stop();
}

#[test]
fn a_server_that_dies_ends_the_forwarder_as_it_ended() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let address = daemon.address("web");
    // What it had said arrives.
    assert_eq!(rest(say(address, "die")), "half an ans");
    daemon.line(&["app.0", "exit status 3"]);
    // Whoever comes then gets the next one.
    let pid: i32 = ask(address, "pid").parse().expect("a pid");
    kill(pid, Signal::SIGABRT);
    daemon.line(&["app.0", "SIGABRT"]);
    let next: i32 = ask(address, "pid").parse().expect("a pid");
    assert_ne!(next, pid);
    daemon.stop();
}

#[test]
fn a_server_that_ends_before_it_answers_is_a_failed_start() {
    let world = World::new();
    let yaml = yaml("").replace(
        "[$PROBE, backend, '127.0.0.1:{port}']",
        "[sh, -c, 'exit 7 # {port}']",
    );
    let daemon = world.run(&yaml);
    daemon.line(&["the server has ended before it answered", "7"]);
    daemon.line(&["app.0", "exit status 7"]);
    daemon.stop();
}

#[test]
fn a_missing_program_is_told() {
    let world = World::new();
    let yaml = yaml("").replace("$PROBE, backend", "/no/such/server");
    let checked = world.check(&yaml, &[]);
    assert!(
        checked.text().contains("`/no/such/server`: no such file"),
        "{}",
        checked.text()
    );
    let daemon = world.run(&yaml);
    daemon.line(&["/no/such/server", "ENOENT"]);
    daemon.stop();
}

#[test]
fn signals_reach_the_server() {
    let world = World::new();
    let command = "[sh, -c, 'trap \"echo hup >> $DIR/got\" HUP; $PROBE backend 127.0.0.1:{port} & while :; do wait; done']";
    let yaml = yaml("reload_signal: SIGHUP\nkill_mode: group")
        .replace("[$PROBE, backend, '127.0.0.1:{port}']", command);
    let daemon = ready(&world, &yaml);
    let done = tell(&world, &["reload", "app"]);
    assert_eq!(done.code, Some(0), "{}", done.text());
    eventually("it got the signal", || world.path("got").exists());
    daemon.stop();
}

#[test]
fn an_open_connection_has_time_to_end_at_a_stop() {
    let world = World::new();
    let daemon = ready(
        &world,
        &yaml("").replace(
            "forward: '127.0.0.1:{port}'",
            "forward: { to: '127.0.0.1:{port}', drain: 1h }\n    stop_timeout: infinity",
        ),
    );
    let address = daemon.address("web");
    let mut open = say(address, "echo");
    open.write_all(b"a\n").expect("write");
    client::hear(&mut open, "a\n");
    daemon.signal(Signal::SIGTERM);
    daemon.line(&["stopping; 1 connections are open"]);
    open.write_all(b"b\n").expect("write");
    client::hear(&mut open, "b\n");
    open.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert_eq!(rest(open), "");
    assert_eq!(daemon.status().code(), Some(0));
}

#[test]
fn a_connection_that_stays_open_does_not_keep_a_server_from_its_stop() {
    let world = World::new();
    let daemon = ready(
        &world,
        &yaml("").replace(
            "forward: '127.0.0.1:{port}'",
            "forward: { to: '127.0.0.1:{port}', drain: 10ms }\n    stop_timeout: infinity",
        ),
    );
    let mut open = say(daemon.address("web"), "echo");
    open.write_all(b"a\n").expect("write");
    client::hear(&mut open, "a\n");
    daemon.stop();
    client::sees_the_end(open);
}

#[test]
fn restarts_lose_nobody() {
    let world = World::new();
    let daemon = ready(&world, &yaml("rollout: { min_ready: 0s }"));
    let load = Load::asking(daemon.address("web"), 4, pid_question());
    load.wait_for_answers(100);
    for _ in 0..10 {
        let done = tell(&world, &["restart", "app"]);
        assert_eq!(done.code, Some(0), "{}", done.text());
        load.wait_for_answers(20);
    }
    nobody_is_lost(load);
    daemon.stop();
}

/// Two servers cannot have one address, so that the old one ends first.
#[test]
fn restarts_at_a_fixed_address_lose_nobody() {
    let world = World::new();
    let to = format!("127.0.0.1:{}", free_port());
    let daemon = ready(
        &world,
        &yaml_at("127.0.0.1:0", &to, "rollout: { min_ready: 0s }"),
    );
    let load = Load::asking(daemon.address("web"), 4, pid_question());
    load.wait_for_answers(100);
    for _ in 0..5 {
        let done = tell(&world, &["restart", "app"]);
        assert_eq!(done.code, Some(0), "{}", done.text());
        load.wait_for_answers(20);
    }
    nobody_is_lost(load);
    daemon.stop();
}

/// In a kill only those lose that were being served: whoever waits in the queue does not.
#[test]
fn kills_cost_only_what_was_under_way() {
    const CLIENTS: usize = 4;
    const KILLS: usize = 10;
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let load = Load::asking(daemon.address("web"), CLIENTS, pid_question());
    load.wait_for_answers(50);
    for round in 0..KILLS {
        let forwarder = children(daemon.pid())[0];
        let server = children(forwarder);
        let victim = match (round % 2, server.first()) {
            (1, Some(server)) => *server,
            _ => forwarder,
        };
        kill(victim, Signal::SIGKILL);
        eventually("it has gone", || !exists(forwarder));
        load.wait_for_answers(20);
    }
    let summary = load.stop();
    let counts = &summary.counts;
    assert_eq!(
        counts.refused + counts.timed_out + counts.wrong + counts.others,
        0,
        "{summary}"
    );
    assert!(counts.failed() <= CLIENTS * KILLS, "{summary}");
    daemon.stop();
}

#[test]
fn a_server_elsewhere_that_comes_late_is_waited_for() {
    let world = World::new();
    let port = free_port();
    let daemon = ready(
        &world,
        &format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers: {{ app: {{ listeners: [web], forward: '127.0.0.1:{port}' }} }}
"
        ),
    );
    let stream = say(daemon.address("web"), "hello");
    let server = TcpListener::bind(("127.0.0.1", port)).expect("bind");
    let (peer, _) = server.accept().expect("it is tried again");
    client::hear(peer, "hello\n");
    drop(stream);
    daemon.stop();
}

#[test]
fn a_server_elsewhere_that_never_comes_is_told_by_a_reset() {
    let world = World::new();
    let port = free_port();
    let daemon = ready(&world, &format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers: {{ app: {{ listeners: [web], forward: {{ to: '127.0.0.1:{port}', connect_timeout: 300ms }} }} }}
"
    ));
    let since = Instant::now();
    let mut stream = say(daemon.address("web"), "hello");
    let end = stream.read(&mut [0; 8]).expect_err("a reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(
        since.elapsed() >= Duration::from_millis(300),
        "{:?}",
        since.elapsed()
    );
    daemon.stop();
}

#[test]
fn pythons_server_is_started_by_its_first_client() {
    if require_tool("python3").is_none() {
        return;
    }
    let world = World::new();
    world.write("page", "hello\n");
    let daemon = world.run(
        &yaml("activation: on-demand\nworking_directory: $DIR").replace(
            "[$PROBE, backend, '127.0.0.1:{port}']",
            "[python3, -m, http.server, '{port}', --bind, 127.0.0.1]",
        ),
    );
    let answer = client::http(
        client::tcp(daemon.address("web")).expect("connect"),
        "/page",
    );
    assert!(answer.expect("an answer").ends_with("hello\n"));
    daemon.stop();
}

/// nginx as it comes: it reads the header of the PROXY protocol, and is replaced under load.
#[test]
fn nginx_is_replaced_under_load_and_knows_its_clients() {
    if server_that_says("nginx", "-v").is_none() {
        return;
    }
    let world = World::new();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path $DIR/{name};"));
    let user = if is_root() { "user root;" } else { "" };
    world.write(
        "nginx.conf",
        &world.fill(&format!(
            "daemon off; {user} pid $DIR/PORT.pid; error_log stderr error; worker_processes 1;
events {{ worker_connections 256; }}
http {{ access_log off; {}
  server {{ listen 127.0.0.1:PORT proxy_protocol; return 200 '$proxy_protocol_addr is here\n'; }}
}}
",
            temporary.join(" ")
        )),
    );
    let command = "[sh, -c, 'sed s/PORT/{port}/ $DIR/nginx.conf > $DIR/{port}.conf && exec nginx -c $DIR/{port}.conf']";
    for version in ["v1", "v2"] {
        let lines = "stop_signal: SIGQUIT\nrollout: { min_ready: 0s }";
        let forward = format!("{{ to: '127.0.0.1:{{port}}', proxy_protocol: {version} }}");
        let yaml = yaml(lines)
            .replace("[$PROBE, backend, '127.0.0.1:{port}']", command)
            .replace(
                "forward: '127.0.0.1:{port}'",
                &format!("forward: {forward}"),
            );
        let daemon = ready(&world, &yaml);
        let load = Load::start(daemon.address("web"), 4);
        load.wait_for_answers(50);
        for _ in 0..3 {
            let done = tell(&world, &["restart", "app"]);
            assert_eq!(done.code, Some(0), "{}", done.text());
            load.wait_for_answers(20);
        }
        let summary = nobody_is_lost(load);
        let versions: Vec<&str> = summary.versions.keys().map(String::as_str).collect();
        assert_eq!(versions, ["127.0.0.1"], "{version}");
        daemon.stop();
    }
}
