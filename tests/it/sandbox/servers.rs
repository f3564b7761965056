//! Real servers serve under `strict`, and under `sealed`, where they have no network but their listeners.

use super::starts::can_mount;
use crate::harness::servers::{apps, fastcgi, server, server_that_says};
use crate::harness::{World, client, eventually, free_port, is_root};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts a server in both presets, and asks it over HTTP.
fn serves(preset: &str, address: &str, command: &str, prepare: impl Fn(&World), wanted: &str) {
    serves_with(
        &format!("preset: {preset}"),
        address,
        command,
        prepare,
        wanted,
    );
}

/// The same, with other lines of a worker.
fn serves_with(lines: &str, address: &str, command: &str, prepare: impl Fn(&World), wanted: &str) {
    answers(lines, address, command, prepare, |at| {
        let stream = client::tcp(at).expect("the port is held");
        client::http(stream, "/").is_ok_and(|answer| answer.contains(wanted))
    });
}

/// Starts a server in both presets, and asks it.
fn answers(
    lines: &str,
    address: &str,
    command: &str,
    prepare: impl Fn(&World),
    is_answered: impl Fn(SocketAddr) -> bool,
) {
    if !can_mount() {
        return;
    }
    for sandbox in ["strict", "sealed"] {
        let world = World::new();
        prepare(&world);
        // Root without capabilities is a user like others, but owns what is root's. Interpreters may be in
        // a home directory.
        let yaml = format!(
            "
listeners: {{ web: '{address}' }}
workers:
  app:
    {lines}
    listeners: [web]
    command: {command}
    environment: {{ HOME: /tmp, PYTHONDONTWRITEBYTECODE: '1' }}
    sandbox: {{ preset: {sandbox}, protect_home: read-only, read_only_paths: [$DIR] }}
"
        );
        let daemon = world.run(&yaml);
        let address = daemon.address("web");
        eventually("the server answers", || {
            assert!(daemon.is_running(), "{}", daemon.stderr());
            is_answered(address)
        });
        daemon.stop();
    }
}

#[test]
fn gunicorn_serves_in_a_sandbox() {
    if let Some(gunicorn) = server("gunicorn") {
        let (gunicorn, apps) = (gunicorn.display(), apps());
        let command = format!("[{gunicorn}, --chdir, {apps}, --workers, '2', 'wsgi:app']");
        serves("gunicorn", "127.0.0.1:0", &command, |_| {}, "200 OK");
    }
}

#[test]
fn uvicorn_serves_in_a_sandbox() {
    if let Some(uvicorn) = server("uvicorn") {
        let (uvicorn, apps) = (uvicorn.display(), apps());
        let command = format!("[{uvicorn}, --fd, '{{fd:web}}', --app-dir, {apps}, 'asgi:app']");
        serves("uvicorn", "127.0.0.1:0", &command, |_| {}, "200 OK");
    }
}

#[test]
fn node_serves_in_a_sandbox() {
    if let Some(node) = server("node") {
        let command = format!("[{}, {}/server.js, '{{fd:web}}']", node.display(), apps());
        serves("node", "127.0.0.1:0", &command, |_| {}, "200 OK");
    }
}

#[test]
fn nginx_serves_in_a_sandbox() {
    let Some(nginx) = server_that_says("nginx", "-v") else {
        return;
    };
    let address = format!("127.0.0.1:{}", free_port());
    // As root it would give its folders to another user, which takes a capability.
    let user = if is_root() { "user root;" } else { "" };
    let configuration = format!(
        "daemon off; pid /tmp/nginx.pid; error_log stderr; worker_processes 2; {user}
events {{ }}
http {{
    access_log off;
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
    uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
    server {{ listen {address}; location / {{ return 200 'here'; }} }}
}}
"
    );
    let prepare = |world: &World| {
        let path = world.write("nginx.conf", &configuration);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("chmod");
    };
    let command = format!("[{}, -e, stderr, -c, $DIR/nginx.conf]", nginx.display());
    serves("nginx", &address, &command, prepare, "here");
}

/// Compiles a file of the project in a folder of its own; the file that is to be there then.
fn compile(words: &[&str], source: &str, made: &str) -> (World, PathBuf) {
    let world = World::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let (program, words) = words.split_first().expect("a program");
    let mut command = Command::new(program);
    let output = command
        .args(words)
        .arg(source)
        .current_dir(world.dir())
        .output();
    let output = output.expect("start the compiler");
    assert!(output.status.success(), "{output:?}");
    let made = world.path(made);
    (world, made)
}

#[test]
fn a_go_program_serves_in_a_sandbox() {
    let Some(go) = server_that_says("go", "version") else {
        return;
    };
    let go = go.to_str().expect("UTF-8");
    let (_kept, made) = compile(
        &[go, "build", "-o", "server"],
        "tests/apps/server.go",
        "server",
    );
    let prepare = |world: &World| fs::hard_link(&made, world.path("server")).expect("link");
    let command = "[$DIR/server]";
    serves_with(
        "nonblocking: true",
        "127.0.0.1:0",
        command,
        prepare,
        "hello",
    );
}

#[test]
fn a_java_program_serves_in_a_sandbox() {
    let (Some(_), Some(javac)) = (server("java"), server("javac")) else {
        return;
    };
    let javac = javac.to_str().expect("UTF-8");
    let (_kept, made) = compile(
        &[javac, "-d", "."],
        "tests/apps/Listener.java",
        "Listener.class",
    );
    let prepare = |world: &World| _ = fs::copy(&made, world.path("Listener.class")).expect("copy");
    // As short as a start of it gets.
    let command = "[java, -XX:TieredStopAtLevel=1, -XX:+UseSerialGC, -cp, $DIR, Listener]";
    serves_with("handoff: fd0", "127.0.0.1:0", command, prepare, "pid ");
}

#[test]
fn php_fpm_serves_in_a_sandbox() {
    let names = ["php-fpm", "php-fpm8.4", "php-fpm8.2"];
    let Some(fpm) = names.iter().find_map(|name| server_that_says(name, "-v")) else {
        return;
    };
    let address = format!("127.0.0.1:{}", free_port());
    // As root it would become another user, which takes a capability.
    let user = if is_root() { "user: nobody\n    " } else { "" };
    let configuration = format!(
        "[global]\npid = /tmp/fpm.pid\nerror_log = /tmp/fpm.log\n\
         [www]\nlisten = {address}\nuser = nobody\npm = static\npm.max_children = 2\n"
    );
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    let script = std::cell::RefCell::new(Vec::new());
    let prepare = |world: &World| {
        open(world.dir(), 0o755);
        open(&world.write("fpm.conf", &configuration), 0o644);
        let path = world.write("pid.php", "pid <?php echo getmypid();");
        open(&path, 0o644);
        *script.borrow_mut() = fastcgi(path.to_str().expect("UTF-8"));
    };
    let command = format!(
        "[{}, --nodaemonize, --fpm-config, $DIR/fpm.conf]",
        fpm.display()
    );
    let lines = format!("{user}preset: php-fpm");
    answers(&lines, &address, &command, prepare, |at| {
        let mut stream = client::tcp(at).expect("the port is held");
        let mut answer = Vec::new();
        let asked = stream.write_all(&script.borrow());
        let answered = asked.and_then(|()| stream.read_to_end(&mut answer));
        answered.is_ok() && String::from_utf8_lossy(&answer).contains("pid ")
    });
}
