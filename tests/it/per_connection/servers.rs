//! Real programs that serve one connection on their standard input and output, or one socket that
//! has no connections, as inetd(8) starts them.

use crate::harness::activation::has_started;
use crate::harness::{Daemon, World, children, client, eventually, require_tool, skip};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A worker with a process for each connection that runs this command.
fn yaml(address: &str, command: &str) -> String {
    format!(
        "
listeners: {{ it: '{address}' }}
workers:
  app:
    command: {command}
    listeners: [it]
    activation: per-connection
    handoff: inetd
    environment: {{ HOME: $DIR }}
"
    )
}

const TCP: &str = "127.0.0.1:0";

/// A program on this machine, also where only root looks for one.
fn server(name: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(name));
    let found = found.into_iter().find(|path| path.exists());
    let found = found.or_else(|| crate::harness::tool(name));
    if found.is_none() {
        skip(&format!("{name} is not installed; see scripts/test-setup"));
    }
    found
}

/// Runs a client until it ends; it has to succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output: Output = command.output().expect("start a client");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}{}",
        output.status,
        text(&output.stderr)
    );
    said
}

/// All processes of connections have ended, and listend stops.
#[track_caller]
fn is_over(daemon: &Daemon) {
    eventually("all have ended", || children(daemon.pid()).is_empty());
    daemon.stop();
}

/// git without anybody's settings.
fn git(world: &World) -> Command {
    let mut command = Command::new("git");
    command.env("HOME", world.dir());
    command.env("GIT_CONFIG_NOSYSTEM", "1");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]);
    command.args(["-c", "init.defaultBranch=main"]);
    command
}

// git-daemon(1), --inetd: "Have the server run as an inetd service."
#[test]
fn git_daemon_lists_and_clones_a_repository() {
    let Some(program) = require_tool("git") else {
        return;
    };
    let help = Command::new(&program).arg("--list-cmds=main").output();
    let help = help.expect("start git").stdout;
    if !String::from_utf8_lossy(&help)
        .lines()
        .any(|line| line == "daemon")
    {
        return skip("git has no daemon");
    }
    let world = World::new();
    let path = |name: &str| world.path(name).to_str().expect("UTF-8").to_owned();
    run(git(&world).args(["init", "--quiet", &path("base/work")]));
    fs::write(world.path("base/work/file"), "precious").expect("write");
    for words in [
        ["add", "file"].as_slice(),
        &["commit", "--quiet", "-m", "one"],
    ] {
        run(git(&world).current_dir(world.path("base/work")).args(words));
    }
    let command = format!(
        "[{}, daemon, --inetd, --export-all, --base-path=$DIR/base]",
        program.display()
    );
    let daemon = world.run(&yaml(TCP, &command));
    let url = format!("git://{}/work", daemon.address("it"));
    let listed = run(git(&world).args(["ls-remote", &url]));
    assert!(listed.contains("refs/heads/main"), "{listed}");
    run(git(&world).args(["clone", "--quiet", &url, &path("clone")]));
    let file = fs::read_to_string(world.path("clone/file")).expect("the clone");
    assert_eq!(file, "precious");
    is_over(&daemon);
}

/// What ssh-keyscan(1) is told at this address.
fn host_key(address: SocketAddr) -> String {
    run(Command::new("ssh-keyscan")
        .args(["-T", "10", "-t", "ed25519", "-p"])
        .arg(address.port().to_string())
        .arg(address.ip().to_string()))
}

// dropbear(8), -i: "Run as an inetd service".
#[test]
fn dropbear_shows_its_key() {
    let (Some(dropbear), Some(keygen), Some(_)) = (
        server("dropbear"),
        require_tool("dropbearkey"),
        require_tool("ssh-keyscan"),
    ) else {
        return;
    };
    let world = World::new();
    let key = world.path("key");
    run(Command::new(keygen).args(["-t", "ed25519", "-f"]).arg(&key));
    let command = format!("[{}, -i, -r, $DIR/key]", dropbear.display());
    let daemon = world.run(&yaml(TCP, &command));
    let found = host_key(daemon.address("it"));
    assert!(found.contains("ssh-ed25519 "), "{found}");
    is_over(&daemon);
}

// sshd(8), -i: "Specifies that sshd is being run from inetd(8)."
#[test]
fn sshd_shows_its_key() {
    if !crate::harness::require_root() {
        return;
    }
    let (Some(sshd), Some(keygen), Some(_)) = (
        server("sshd"),
        require_tool("ssh-keygen"),
        require_tool("ssh-keyscan"),
    ) else {
        return;
    };
    // Its folder for privilege separation, which its service makes.
    fs::create_dir_all("/run/sshd").expect("make /run/sshd");
    let world = World::new();
    let key = world.path("key");
    run(Command::new(keygen)
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key));
    let command = format!("[{}, -i, -e, -f, /dev/null, -h, $DIR/key]", sshd.display());
    let daemon = world.run(&yaml(TCP, &command));
    let found = host_key(daemon.address("it"));
    let public = fs::read_to_string(world.path("key.pub")).expect("the key");
    let public = public.split_whitespace().nth(1).expect("a key");
    assert!(found.contains(public), "{found}");
    is_over(&daemon);
}

// rsync(1), --daemon: "If standard input is a socket then rsync will assume that it is being run
// via inetd".
#[test]
fn rsync_lists_a_module_and_copies_a_file() {
    let Some(rsync) = require_tool("rsync") else {
        return;
    };
    let world = World::new();
    fs::create_dir(world.path("files")).expect("create a folder");
    fs::write(world.path("files/file"), "precious").expect("write");
    world.write(
        "rsyncd.conf",
        "use chroot = no\nlog file = $DIR/rsyncd.log\n[files]\n  path = $DIR/files\n  comment = ours\n",
    );
    let command = format!("[{}, --daemon, --config=$DIR/rsyncd.conf]", rsync.display());
    let daemon = world.run(&yaml(TCP, &command));
    let url = format!("rsync://{}/", daemon.address("it"));
    let listed = run(Command::new(&rsync).arg(&url));
    assert!(
        listed.contains("files") && listed.contains("ours"),
        "{listed}"
    );
    run(Command::new(&rsync)
        .arg(format!("{url}files/file"))
        .arg(world.path("copy")));
    assert_eq!(fs::read_to_string(world.path("copy")).unwrap(), "precious");
    is_over(&daemon);
}

/// An HTTP server that shows a folder.
fn shows_a_page(world: &World, command: &str) {
    fs::create_dir(world.path("www")).expect("create a folder");
    fs::write(world.path("www/index.html"), "<p>precious</p>").expect("write");
    let daemon = world.run(&yaml(TCP, command));
    for _ in 0..3 {
        let stream = client::tcp(daemon.address("it")).expect("connect");
        let answer = client::http(stream, "/index.html").expect("an answer");
        assert!(answer.contains("precious"), "{answer:?}");
    }
    is_over(&daemon);
}

#[test]
fn busybox_serves_a_page() {
    let Some(busybox) = require_tool("busybox") else {
        return;
    };
    let world = World::new();
    let command = format!("[{}, httpd, -i, -h, $DIR/www]", busybox.display());
    shows_a_page(&world, &command);
}

#[test]
fn micro_httpd_serves_a_page() {
    let Some(program) = server("micro-httpd") else {
        return;
    };
    let world = World::new();
    shows_a_page(&world, &format!("[{}, $DIR/www]", program.display()));
}

#[test]
fn a_shell_script_is_a_server() {
    let world = World::new();
    world.write_script(
        "script",
        "#!/bin/sh\necho \"hello $TCPREMOTEIP\"\nexec cat\n",
    );
    let daemon = world.run(&yaml(TCP, "[$DIR/script]"));
    let stream = client::tcp(daemon.address("it")).expect("connect");
    client::hear(&stream, "hello 127.0.0.1\n");
    client::converse(&stream, "echo", "echo");
    drop(stream);
    is_over(&daemon);
}

// tftpd(8): it takes the socket on descriptor 0, serves each client from another port, and ends when
// nobody has come for a while (--timeout).
#[test]
fn tftpd_takes_the_whole_socket() {
    if !crate::harness::require_root() {
        return;
    }
    let (Some(tftpd), Some(curl)) = (server("in.tftpd"), require_tool("curl")) else {
        return;
    };
    let has_tftp = run(Command::new(&curl).arg("--version"));
    if !has_tftp.contains("tftp") {
        return skip("this curl has no TFTP");
    }
    let world = World::new();
    fs::create_dir(world.path("files")).expect("create a folder");
    let file = world.path("files/file");
    fs::write(&file, "precious").expect("write");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
    let command = format!("[{}, -s, $DIR/files, -t, '1']", tftpd.display());
    let daemon = world.run(&yaml("udp://127.0.0.1:0", &command));
    let url = format!("tftp://{}/file", daemon.address("it"));
    for _ in 0..2 {
        let got =
            run(Command::new(&curl).args(["--silent", "--show-error", "--max-time", "10", &url]));
        assert_eq!(got, "precious");
        // By itself, after the second of -t; the next client starts the next one.
        eventually("it has ended", || children(daemon.pid()).is_empty());
    }
    has_started(&daemon, "app", 2);
    daemon.stop();
}
