//! Presets with the real servers: with nothing but `preset`, command and listeners, each is killed,
//! restarted and stopped under load.

use crate::harness::load::{Answer, Load, Question};
use crate::harness::rollout::{nobody_is_lost, running, tell};
use crate::harness::servers::{apps, fastcgi, server, server_that_says};
use crate::harness::varlink::Varlink;
use crate::harness::{World, free_port, kill};
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
    /// Each of its processes may drop one that it has just accepted, and it may start others while it stops (a child
    /// of Net::Server::PreFork ends at SIGHUP between accept(2) and `connected`).
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
    nobody_is_refused(killed, CLIENTS);
    let ends = |load| match drains {
        Drains::All => drop(nobody_is_lost(load)),
        Drains::NotTheLast => nobody_is_refused(load, 3 * CLIENTS),
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

/// So many connections may have been cut at most, and nothing else was lost.
#[track_caller]
fn nobody_is_refused(load: Load, cut: usize) {
    let summary = load.stop();
    let counts = &summary.counts;
    assert!(counts.reset + counts.short <= cut, "{summary}");
    assert_eq!(counts.failed(), counts.reset + counts.short, "{summary}");
}

/// So many clients keep a server busy.
const CLIENTS: usize = 4;

fn http(address: SocketAddr) -> Load {
    Load::start(address, CLIENTS)
}

#[test]
fn nginx() {
    let Some(nginx) = server_that_says("nginx", "-v") else {
        return;
    };
    let world = World::new();
    let address = format!("127.0.0.1:{}", free_port());
    let configuration = format!(
        "pid $DIR/nginx.pid; error_log stderr; worker_processes 2;
events {{ }}
http {{
    access_log off;
    client_body_temp_path $DIR; proxy_temp_path $DIR; fastcgi_temp_path $DIR;
    uwsgi_temp_path $DIR; scgi_temp_path $DIR;
    server {{ listen {address}; location / {{ return 200 'pid 0'; }} }}
}}
"
    );
    world.write("nginx.conf", &configuration);
    let nginx = nginx.to_str().expect("UTF-8");
    let command = [nginx, "-e", "stderr", "-c", "$DIR/nginx.conf"];
    survives(&world, &yaml("nginx", &address, &command), http);
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
    let yaml = yaml("puma", "127.0.0.1:0", &command);
    survives_and(Drains::NotTheLast, &world, &yaml, http);
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
fn php_fpm() {
    let Some(fpm) = ["php-fpm", "php-fpm8.4", "php-fpm8.2"]
        .iter()
        .find_map(|name| server_that_says(name, "-v"))
    else {
        return;
    };
    let world = World::new();
    let address = format!("127.0.0.1:{}", free_port());
    // Not more children than clients: all of them are busy all the time on a slow machine, and the worker
    // is ready by the connections that it has accepted.
    let children = CLIENTS;
    let configuration = format!(
        "[global]
pid = $DIR/fpm.pid
error_log = /proc/self/fd/2
process_control_timeout = 20s
[www]
listen = {address}
user = nobody
pm = static
pm.max_children = {children}
"
    );
    world.write("fpm.conf", &configuration);
    world.write("pid.php", "pid <?php echo getmypid();");
    let script = world.path("pid.php");
    let script = script.to_str().expect("UTF-8");
    let fpm = fpm.to_str().expect("UTF-8");
    let command = [fpm, "--nodaemonize", "--fpm-config", "$DIR/fpm.conf"];
    let question = Question {
        send: fastcgi(script),
        answer: Answer::Bytes(b"pid ".to_vec()),
        ..Question::http()
    };
    survives(&world, &yaml("php-fpm", &address, &command), |address| {
        Load::asking(address, CLIENTS, question.clone())
    });
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

#[test]
fn starman_and_starlet() {
    for (preset, server) in [("starman", "Starman"), ("starlet", "Starlet")] {
        let Some(plackup) = server_that_says("plackup", "--version") else {
            return;
        };
        let world = World::new();
        world.write(
            "app.psgi",
            "sub { [200, ['Content-Length', 3], ['pid']] }\n",
        );
        let plackup = plackup.to_str().expect("UTF-8");
        let command = [
            plackup,
            "-s",
            server,
            "--max-workers",
            "2",
            "-a",
            "$DIR/app.psgi",
        ];
        let yaml = yaml(preset, "127.0.0.1:0", &command);
        // As with unicorn, more clients would keep its processes from sleeping.
        survives_and(Drains::NotTheLast, &world, &yaml, |address| {
            Load::start(address, 1)
        });
    }
}

#[test]
fn uwsgi() {
    let Some(uwsgi) = server("uwsgi") else {
        return;
    };
    let world = World::new();
    let app = format!("{}/wsgi.py", apps());
    let command = [
        uwsgi.to_str().expect("UTF-8"),
        "--plugin",
        "python3",
        "--http-socket",
        "fd://{fd:web}",
        "--master",
        "--processes",
        // Of two, the master forgets at times to stop the one that has answered nobody yet, and waits for it.
        "1",
        "--wsgi-file",
        &app,
        "--callable",
        "app",
        "--hook-master-start",
        "unix_signal:2 gracefully_kill_them_all",
    ];
    survives(&world, &yaml("uwsgi", "127.0.0.1:0", &command), http);
}

#[test]
fn h2o() {
    let Some(h2o) = server("h2o") else {
        return;
    };
    let world = World::new();
    let address = format!("127.0.0.1:{}", free_port());
    let (host, port) = address.split_once(':').expect("a port");
    let configuration = format!(
        "listen: {{ host: {host}, port: {port} }}
user: nobody
hosts:
  default:
    paths:
      /: {{ file.dir: $DIR/site }}
"
    );
    world.write("h2o.yaml", &configuration);
    std::fs::create_dir(world.path("site")).expect("create a folder");
    world.write("site/index.html", "pid 0\n");
    let h2o = h2o.to_str().expect("UTF-8");
    let command = [h2o, "-c", "$DIR/h2o.yaml"];
    survives(&world, &yaml("h2o", &address, &command), http);
}

#[test]
fn daphne() {
    let Some(daphne) = server("daphne") else {
        return;
    };
    let world = World::new();
    let daphne = daphne.to_str().expect("UTF-8");
    let command = [daphne, "--fd", "{fd:web}", "asgi:app"];
    let yaml = yaml("daphne", "127.0.0.1:0", &command);
    let yaml = format!("{yaml}    working_directory: {}\n", apps());
    survives_and(Drains::NotTheLast, &world, &yaml, http);
}

#[test]
fn waitress() {
    let Some(python) = server("waitress-serve").and(server("python3")) else {
        return;
    };
    let world = World::new();
    let script = "import socket, sys, waitress
sys.path.append(sys.argv[1])
import wsgi
waitress.serve(wsgi.app, sockets=[socket.socket(fileno=3)])
";
    world.write("serve.py", script);
    let python = python.to_str().expect("UTF-8");
    let command = [python, "$DIR/serve.py", &apps()];
    survives(&world, &yaml("waitress", "127.0.0.1:0", &command), http);
}
