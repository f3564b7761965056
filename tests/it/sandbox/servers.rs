//! Real servers serve under `strict`, and under `sealed`, where they have no network but their listeners.

use super::starts::can_mount;
use crate::harness::servers::{apps, server, server_that_says};
use crate::harness::{World, client, eventually, free_port, is_root};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Starts a server in both presets, and asks it.
fn serves(preset: &str, address: &str, command: &str, prepare: impl Fn(&World), wanted: &str) {
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
    preset: {preset}
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
            let stream = client::tcp(address).expect("the port is held");
            client::http(stream, "/").is_ok_and(|answer| answer.contains(wanted))
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
