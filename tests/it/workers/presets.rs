//! Presets with the real servers: with nothing but `preset`, command and listeners, each is killed,
//! restarted and stopped under load.

use crate::harness::load::Load;
use crate::harness::rollout::{nobody_is_lost, running, tell};
use crate::harness::servers::{apps, server, server_that_says};
use crate::harness::varlink::Varlink;
use crate::harness::{World, kill};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// A worker of nothing but these.
fn yaml(preset: &str, address: &str, command: &[&str]) -> String {
    let mut yaml = format!(
        "
listeners: {{ web: '{address}' }}
workers:
  app:
    preset: {preset}
    listeners: [web]
    command:
"
    );
    for word in command {
        let _ = writeln!(yaml, "    - '{word}'");
    }
    yaml
}

/// What a server does with the connections that it has when it stops.
#[derive(PartialEq)]
enum Drains {
    All,
    /// It may drop one that it has just accepted, at each stop.
    NotTheLast,
}

/// Kills the server under load, restarts it, and stops and starts it. A kill may cut who is served;
/// otherwise nobody is lost, and nobody is ever refused.
fn survives(world: &World, yaml: &str, load: impl Fn(SocketAddr) -> Load) {
    survives_and(Drains::All, world, yaml, load);
}

fn survives_and(drains: Drains, world: &World, yaml: &str, load: impl Fn(SocketAddr) -> Load) {
    let check = world.check(yaml, &["--json"]).json();
    let advice = check["advice"].as_array().expect("a list").iter();
    let mut kinds = advice.filter_map(|one| one["kind"].as_str());
    assert_eq!(
        kinds.find(|kind| kind.starts_with("server-")),
        None,
        "{check}"
    );
    let daemon = world.run_with(yaml, |start| {
        start.words_behind(["--control", "$DIR/control.sock"]);
        // Servers leave files in both places.
        start
            .env("HOME", "$DIR")
            .env("PYTHONDONTWRITEBYTECODE", "1");
    });
    let address = daemon.address("web");
    let mut client = Varlink::connect(world);
    let [pid] = running(&mut client, 1, 1)[..] else {
        panic!("one instance runs");
    };

    let killed = load(address);
    killed.wait_for_answers(20);
    kill(pid, Signal::SIGKILL);
    daemon.line(&["app", "SIGKILL"]);
    killed.wait_for_answers(100);
    nobody_is_refused(killed);
    let ends = |load| match drains {
        Drains::All => drop(nobody_is_lost(load)),
        Drains::NotTheLast => nobody_is_refused(load),
    };

    let restarted = load(address);
    restarted.wait_for_answers(20);
    tell(world, &["restart", "app"]).expect_code(0);
    restarted.wait_for_answers(100);
    ends(restarted);

    let stopped = load(address);
    stopped.wait_for_answers(20);
    tell(world, &["stop", "app"]).expect_code(0);
    tell(world, &["start", "app"]).expect_code(0);
    stopped.wait_for_answers(100);
    ends(stopped);
    daemon.stop();
}

/// Of each client one connection may have been cut, and nothing else was lost.
#[track_caller]
fn nobody_is_refused(load: Load) {
    let summary = load.stop();
    let counts = &summary.counts;
    assert!(counts.reset + counts.short <= CLIENTS, "{summary}");
    assert_eq!(counts.failed(), counts.reset + counts.short, "{summary}");
}

/// So many clients keep a server busy.
const CLIENTS: usize = 4;

fn http(address: SocketAddr) -> Load {
    Load::start(address, CLIENTS)
}

#[test]
fn gunicorn() {
    let Some(gunicorn) = server("gunicorn") else {
        return;
    };
    let world = World::new();
    let gunicorn = gunicorn.to_str().expect("UTF-8");
    let apps = apps();
    let command = [gunicorn, "--chdir", &apps, "--workers", "2", "wsgi:app"];
    survives(&world, &yaml("gunicorn", "127.0.0.1:0", &command), http);
}

#[test]
fn uvicorn() {
    let Some(uvicorn) = server("uvicorn") else {
        return;
    };
    let world = World::new();
    let uvicorn = uvicorn.to_str().expect("UTF-8");
    let apps = apps();
    let command = [uvicorn, "--fd", "{fd:web}", "--app-dir", &apps, "asgi:app"];
    let yaml = yaml("uvicorn", "127.0.0.1:0", &command);
    survives_and(Drains::NotTheLast, &world, &yaml, http);
}

#[test]
fn puma() {
    let Some(puma) = server("puma") else {
        return;
    };
    let world = World::new();
    let puma = puma.to_str().expect("UTF-8");
    let rackup = format!("{}/config.ru", apps());
    let command = [puma, "--bind-to-activated-sockets", "only", &rackup];
    survives(&world, &yaml("puma", "127.0.0.1:0", &command), http);
}

#[test]
fn unicorn() {
    let Some(unicorn) = server("unicorn") else {
        return;
    };
    let world = World::new();
    let unicorn = unicorn.to_str().expect("UTF-8");
    let rackup = format!("{}/config.ru", apps());
    // Its one process is seen when it sleeps, which more clients keep it from.
    let yaml = yaml("unicorn", "127.0.0.1:0", &[unicorn, &rackup]);
    survives(&world, &yaml, |address| Load::start(address, 1));
}

#[test]
fn node() {
    let Some(node) = server("node") else {
        return;
    };
    let world = World::new();
    let node = node.to_str().expect("UTF-8");
    let script = format!("{}/server.js", apps());
    let command = [node, &script, "{fd:web}"];
    survives(&world, &yaml("node", "127.0.0.1:0", &command), http);
}

#[test]
fn haproxy() {
    let Some(haproxy) = server_that_says("haproxy", "-v") else {
        return;
    };
    let world = World::new();
    let configuration = "defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend web
    bind fd@${FD}
    http-request return status 200 content-type text/plain string pid
";
    world.write("haproxy.cfg", configuration);
    let haproxy = haproxy.to_str().expect("UTF-8");
    let command = [haproxy, "-Ws", "-f", "$DIR/haproxy.cfg"];
    let yaml = yaml("haproxy", "127.0.0.1:0", &command) + "    environment: { FD: '{fd:web}' }\n";
    survives(&world, &yaml, http);
}

#[test]
fn lighttpd() {
    let Some(lighttpd) = server_that_says("lighttpd", "-v") else {
        return;
    };
    let world = World::new();
    let configuration = "server.systemd-socket-activation = \"enable\"
server.document-root = \"$DIR\"
index-file.names = ( \"index.txt\" )
";
    world.write("lighttpd.conf", configuration);
    world.write("index.txt", "pid 0\n");
    let lighttpd = lighttpd.to_str().expect("UTF-8");
    let command = [lighttpd, "-D", "-f", "$DIR/lighttpd.conf"];
    survives(&world, &yaml("lighttpd", "127.0.0.1:0", &command), http);
}

#[test]
fn hypercorn() {
    let Some(hypercorn) = server("hypercorn") else {
        return;
    };
    let world = World::new();
    let hypercorn = hypercorn.to_str().expect("UTF-8");
    let app = format!("file:{}/asgi.py:app", apps());
    let command = [hypercorn, "--bind", "fd://{fd:web}", &app];
    survives(&world, &yaml("hypercorn", "127.0.0.1:0", &command), http);
}
