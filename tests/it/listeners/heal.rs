//! Listeners that a worker damages are repaired while it runs, and the log says who did it.

use crate::harness::reloading::ask;
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Daemon, Puppet, World, client, context_switches, eventually, free_port, network, require_root,
    require_tool,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::time::Duration;

/// Two workers that hold the same listeners.
fn two(world: &World, listeners: &str, names: &str) -> (Daemon, Vec<Puppet>) {
    let daemon = world.run(&format!(
        "
listeners: {listeners}
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [{names}]
    instances: 2
    restart: {{ backoff: 10ms..50ms, limit: none }}
"
    ));
    let puppets = world.puppets(2);
    (daemon, puppets)
}

// FIELD §3.2: shutdown(2) of a shared listener ends it for everybody.
#[test]
fn a_tcp_listener_that_was_shut_down_listens_again_while_its_workers_run() {
    let world = World::new();
    let port = free_port();
    let listeners = format!("{{ web: '127.0.0.1:{port}', other: '127.0.0.1:0' }}");
    let (daemon, mut puppets) = two(&world, &listeners, "web, other");
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    for round in 1..=3 {
        puppets[0].ask("shutdown");
        let line = daemon.lines(&["web", "listening again"], round).pop();
        let line = line.expect("so many");
        // shutdown(2) leaves no trace of who called it: it was one of those who had it.
        assert!(line.contains("shut down"), "{line}");
        assert!(line.contains("app.0") && line.contains("app.1"), "{line}");
        daemon.lines(&["other", "listening again"], round);
        client::tcp(address).expect("it listens");
    }
    // The workers are those of before, and their descriptors work.
    let answer = std::thread::scope(|scope| {
        let puppet = &mut puppets[1];
        // The three clients of above came first, and left.
        let client = scope.spawn(|| network::send("tcp", &address.to_string(), "hello"));
        while puppet.ask("read 3") != "hello" {}
        client.join().expect("the client")
    });
    assert_eq!(answer.as_deref(), Ok("HELLO"));
    assert!(daemon.lines_so_far(&["app", "exited"]).is_empty());
    daemon.stop();
}

// The second shutdown(2) leaves a mark that outlives listen(2): the kernel closes every client then.
#[test]
fn a_listener_that_was_shut_down_twice_serves_the_next_clients() {
    let world = World::new();
    let (daemon, mut puppets) = two(&world, "{ web: '127.0.0.1:0' }", "web");
    let address = daemon.address("web");
    // As two processes do that each wake up their accept(2) at their end.
    daemon.pause();
    puppets[0].ask("shutdown");
    puppets[1].ask("shutdown");
    daemon.resume();
    daemon.line(&["web", "shut down", "listening again"]);
    assert_eq!(exchange(&mut puppets[1], address).as_deref(), Ok("HELLO"));
    daemon.stop();
}

/// What a client gets that says hello, while the puppet serves one.
fn exchange(puppet: &mut Puppet, address: SocketAddr) -> Result<String, String> {
    std::thread::scope(|scope| {
        let client = scope.spawn(|| network::send("tcp", &address.to_string(), "hello"));
        assert_eq!(puppet.ask("read 3"), "hello");
        client.join().expect("the client")
    })
}

// connect(2) between shutdown(2) and the repair: listen(2) is EINVAL then, for ever. Nobody has to
// restart anything, and the daemon says what became of it.
#[test]
fn a_listener_that_a_worker_has_connected_takes_clients_again_while_the_worker_runs() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web] } }
",
    );
    let address = daemon.address("web");
    let mut puppet = world.puppet();
    let peer = TcpListener::bind("127.0.0.1:0").expect("bind");
    let theirs = peer.local_addr().expect("its address");
    daemon.pause();
    puppet.ask("shutdown");
    assert_eq!(puppet.ask(&format!("connect 3 {theirs}")), "connect");
    let (_connection, _) = peer.accept().expect("the listener as a client");
    daemon.resume();
    daemon.line(&["web", "again"]);
    assert_eq!(exchange(&mut puppet, address).as_deref(), Ok("HELLO"));
    daemon.stop();
}

#[test]
fn the_only_worker_that_had_it_is_named() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0', other: '127.0.0.1:0' }
workers:
  bad: { command: [$PROBE, puppet, $EVENTS], listeners: [web] }
  good: { command: [$PROBE, serve], listeners: [other] }
",
    );
    let mut bad = world.puppet();
    bad.ask("shutdown");
    let line = daemon.line(&["web", "shut down", "listening again"]);
    assert!(line.contains("bad.0") && !line.contains("good.0"), "{line}");
    client::tcp(daemon.address("web")).expect("it listens");
    daemon.stop();
}

/// A queue of the repaired listener is as long as it was.
#[test]
fn the_backlog_survives_the_repair() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: { address: '127.0.0.1:0', backlog: 7 } }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    restart: { backoff: 10ms..50ms, limit: none }
",
    );
    let mut puppet = world.puppet();
    puppet.ask("shutdown");
    daemon.line(&["web", "listening again"]);
    // The next worker is asked, not the one after whose start it was repaired anyway.
    let info = fs::read_to_string("/proc/net/tcp").expect("the table");
    let port = format!(":{:04X} ", daemon.address("web").port());
    let listens = |line: &str| line.contains(&port) && line.contains(" 0A ");
    assert!(info.lines().any(listens), "{info}");
    puppet.tell("exit 1");
    let report = world.puppet().report;
    assert_eq!(report.fds[3].socket.as_ref().unwrap().backlog, Some(7));
    daemon.stop();
}

// unix(7): what is shut down refuses clients; listen(2) does not undo it, so it is bound anew.
#[test]
fn a_unix_listener_that_was_shut_down_is_there_again() {
    for scheme in ["unix", "unix-seqpacket"] {
        let world = World::new();
        let listeners = format!("{{ app: {{ address: '{scheme}:$DIR/app.sock', mode: 0620 }} }}");
        let (daemon, mut puppets) = two(&world, &listeners, "app");
        // It may be restarted before it could answer.
        puppets[0].tell("shutdown");
        let line = daemon.line(&["listener app", "shut down", "again"]);
        assert!(line.contains("app.0") && line.contains("app.1"), "{line}");
        let path = world.path("app.sock");
        let mode = fs::metadata(&path)
            .expect("the socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o620);
        eventually("clients connect", || connects(scheme, &path));
        daemon.stop();
        assert!(!path.exists());
    }
}

fn connects(scheme: &str, path: &std::path::Path) -> bool {
    let kind = match scheme {
        "unix" => socket2::Type::STREAM,
        "unix-dgram" => socket2::Type::DGRAM,
        _ => socket2::Type::SEQPACKET,
    };
    let socket = socket2::Socket::new(socket2::Domain::UNIX, kind, None).expect("socket");
    let address = socket2::SockAddr::unix(path).expect("an address");
    socket.connect(&address).is_ok()
}

// FIELD §3.2, gunicorn#965: a worker unlinks the path that the holder owns.
#[test]
fn a_path_that_a_worker_unlinked_comes_back_as_the_same_socket() {
    for (scheme, mode) in [
        ("unix", 0o660),
        ("unix-dgram", 0o622),
        ("unix-seqpacket", 0o600),
    ] {
        let world = World::new();
        let listener = format!("{{ address: '{scheme}:$DIR/app.sock', mode: 0{mode:o} }}");
        let (daemon, mut puppets) = two(&world, &format!("{{ app: {listener} }}"), "app");
        let path = world.path("app.sock");
        let before = fs::metadata(&path).expect("the socket").ino();
        puppets[0].ask(&format!("unlink {}", path.display()));
        let line = daemon.line(&["listener app", "app.sock", "removed", "same socket"]);
        assert!(line.contains("app.0") && line.contains("app.1"), "{line}");
        let metadata = fs::metadata(&path).expect("it is there again");
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.ino(), before);
        // Nobody was restarted for it.
        for puppet in &mut puppets {
            puppet.ask("flip");
        }
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{scheme}");
        assert!(connects(scheme, &path), "{scheme}, was {before}");
        daemon.stop();
        assert!(!path.exists(), "{scheme}: removed at the end");
    }
}

// As php-fpm and some gunicorn settings do it: whoever ends removes the path.
#[test]
fn a_worker_that_removes_its_path_whenever_it_ends_is_not_restarted_for_it() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { app: 'unix:$DIR/app.sock' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [app]
    instances: 2
    restart: { backoff: 1ms..1ms, limit: none }
",
    );
    let path = world.path("app.sock");
    let mut puppets = world.puppets(2);
    let before = fs::metadata(&path).expect("the socket").ino();
    for round in 1..=4 {
        let mut ends = puppets.remove(0);
        ends.ask(&format!("unlink {}", path.display()));
        ends.tell("exit 0");
        ends.wait_for_its_end();
        daemon.lines(&["listener app", "removed", "same socket"], round);
        assert_eq!(fs::metadata(&path).expect("the socket").ino(), before);
        puppets.push(world.puppet());
    }
    assert!(world.no_puppet_is_waiting());
    assert!(daemon.lines_so_far(&["restarting it"]).is_empty());
    // Any of them serves who comes there.
    let early = client::unix(&path).expect("it listens");
    puppets[1].tell("serve");
    client::read_report(early).expect("a report");
    daemon.stop();
    assert!(!path.exists());
}

// Its file and its folder are gone, so that there is nothing to put back. The workers that run have the
// old socket, which no client finds any more: they are restarted to get the new one.
#[test]
fn clients_of_a_path_bound_again_reach_the_next_worker() {
    let world = World::new();
    let (daemon, mut puppets) = two(&world, "{ app: 'unix:$DIR/deep/app.sock' }", "app");
    let path = world.path("deep/app.sock");
    daemon.pause();
    fs::remove_dir_all(world.path("deep")).expect("remove the folder");
    daemon.resume();
    daemon.line(&["listener app", "bound again"]);
    let early = client::unix(&path).expect("it waits in the queue");
    for puppet in &mut puppets {
        puppet.wait_for_its_end();
    }
    let mut next = world.puppet();
    next.tell("serve");
    let report = client::read_report(early).expect("a report");
    assert_eq!(
        report.fds[3].socket.as_ref().unwrap().name,
        path.to_str().unwrap()
    );
    daemon.stop();
}

// The workers' old sockets keep the former folder alive, so that nothing is told of its end.
#[test]
fn a_folder_that_is_removed_over_and_over_comes_back_each_time() {
    let world = World::new();
    let (daemon, puppets) = two(&world, "{ app: 'unix:$DIR/upper/deep/app.sock' }", "app");
    let path = world.path("upper/deep/app.sock");
    for round in 1..=4 {
        daemon.pause();
        fs::remove_dir_all(world.path("upper")).expect("remove the folder");
        daemon.resume();
        let again = if round < 3 {
            "bound again"
        } else {
            "bound after"
        };
        daemon.line(&["listener app", again]);
        eventually("clients connect", || client::unix(&path).is_ok());
    }
    // A folder above that is moved takes it along.
    fs::rename(world.path("upper"), world.path("elsewhere")).expect("move it");
    eventually("clients connect", || client::unix(&path).is_ok());
    drop(puppets);
    daemon.stop();
}

// Its name is free only when the last of those that have it has ended.
#[test]
fn an_abstract_listener_that_was_shut_down_is_bound_when_its_workers_have_ended() {
    let world = World::new();
    let name = format!("listend-heal-{}", std::process::id());
    let (daemon, mut puppets) = two(&world, &format!("{{ app: 'unix:@{name}' }}"), "app");
    puppets[0].tell("shutdown");
    let line = daemon.line(&[
        "listener app",
        "shut down",
        "stopping all instances that have it",
    ]);
    assert!(line.contains("app.0") && line.contains("app.1"), "{line}");
    for puppet in &mut puppets {
        puppet.wait_for_its_end();
    }
    daemon.line(&["listener app", "bound after"]);
    let early = client::abstract_unix(&name).expect("it listens");
    world.puppet().tell("serve");
    client::read_report(early).expect("a report");
    daemon.stop();
}

#[test]
fn rights_and_links_of_a_path_are_put_back() {
    let world = World::new();
    let listener = "{ address: 'unix:$DIR/app.sock', mode: 0600, symlinks: [$DIR/link] }";
    let (daemon, mut puppets) = two(&world, &format!("{{ app: {listener} }}"), "app");
    let (path, link) = (world.path("app.sock"), world.path("link"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
    daemon.line(&["listener app", "other permissions", "restored"]);
    let mode = fs::metadata(&path)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(&link).expect("remove the link");
    // Whoever may write to the folder can do that, and none of those that have the socket has.
    let line = daemon.line(&["listener app", "stripped of a symbolic link", "restored"]);
    assert!(line.contains("or another process"), "{line}");
    assert_eq!(fs::read_link(&link).expect("the link"), path);
    for puppet in &mut puppets {
        puppet.ask("flip");
    }
    daemon.stop();
    assert!(fs::symlink_metadata(&link).is_err());
}

// What cleans up /run does not ask whose it is.
#[test]
fn the_sockets_of_listend_itself_come_back() {
    let world = World::new();
    let words = ["--control", "$DIR/own/control.sock"].map(|word| world.fill(word));
    let daemon = world.run_with(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web], ready: notify, watchdog: 60s }
",
        |start| {
            start.words_behind(words.iter().map(String::as_str));
        },
    );
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    daemon.line(&["app.0", "ready after"]);
    let (control, notify) = (
        world.path("own/control.sock"),
        world.path("own/control.notify"),
    );
    let asked = |status: &str| {
        puppet.ask(&format!("notify STATUS={status}"));
        eventually("it is told", || {
            let mut client = Varlink::to(&control);
            let all = client.ask("Status", json!({})).to_string();
            all.contains(status)
        });
    };
    let mut asked = asked;
    asked("first");
    fs::remove_file(&control).expect("remove the path");
    daemon.line(&["control socket", "removed", "restored"]);
    fs::remove_file(&notify).expect("remove the path");
    daemon.line(&["notify socket", "removed", "restored"]);
    asked("second");
    for round in 2..=3 {
        daemon.pause();
        fs::remove_dir_all(world.path("own")).expect("remove the folder");
        daemon.resume();
        daemon.lines(&["control socket", "removed", "restored"], round);
        daemon.lines(&["notify socket", "removed", "restored"], round);
        asked(&format!("round {round}"));
    }
    // As long as they cannot be there they are tried again: nothing tells when that ends.
    daemon.pause();
    fs::remove_dir_all(world.path("own")).expect("remove the folder");
    fs::write(world.path("own"), "in the way").expect("take its place");
    daemon.resume();
    for socket in ["control socket", "notify socket"] {
        daemon.line(&[socket, "cannot be restored", "retrying in 2 s"]);
    }
    fs::remove_file(world.path("own")).expect("make room");
    daemon.lines(&["control socket", "removed; restored"], 4);
    daemon.lines(&["notify socket", "removed; restored"], 4);
    asked("there again");
    daemon.stop();
    assert!(!control.exists() && !notify.exists());
}

#[test]
fn the_sockets_of_listend_itself_come_back_while_it_stops() {
    let world = World::new();
    let words = ["--control", "$DIR/own/control.sock"].map(|word| world.fill(word));
    let daemon = world.run_with(
        "workers: { app: { command: [/bin/sleep, '600'], stop_signal: SIGWINCH, stop_timeout: 60s } }",
        |start| {
            start.words_behind(words.iter().map(String::as_str));
        },
    );
    daemon.line(&["app.0", "started"]);
    daemon.signal(Signal::SIGTERM);
    daemon.line(&["app.0", "stopping with SIGWINCH"]);
    let control = world.path("own/control.sock");
    // The first may go while nobody watches it.
    for times in 1..=2 {
        fs::remove_file(&control).expect("remove the path");
        daemon.lines(&["control socket", "removed", "restored"], times);
    }
    daemon.stop();
    assert!(!control.exists());
}

#[test]
fn a_folder_that_was_removed_with_the_path_in_it_comes_back() {
    let world = World::new();
    let (daemon, puppets) = two(&world, "{ app: 'unix:$DIR/deep/app.sock' }", "app");
    // It would put the path back between the removal of the path and that of its folder.
    daemon.pause();
    fs::remove_dir_all(world.path("deep")).expect("remove the folder");
    daemon.resume();
    daemon.line(&["listener app", "removed", "bound again"]);
    client::unix(&world.path("deep/app.sock")).expect("it is there again");
    drop(puppets);
    daemon.stop();
}

// inotify(7) does not tell of a mount over a folder, and the reload found no changes.
#[test]
fn a_path_over_which_something_was_mounted_is_bound_there_by_a_reload() {
    if !require_root() || require_tool("unshare").is_none() || require_tool("nsenter").is_none() {
        return;
    }
    let world = World::new();
    let yaml = "
listeners: { app: 'unix:$DIR/run/app.sock' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [app] } }
";
    let daemon = world.run_with(yaml, |start| {
        start.words_behind(["--control", "$DIR/control.sock"]);
        start.through(["unshare", "--mount", "--propagation=private", "--"]);
    });
    let _puppet = world.puppet();
    let pid = daemon.pid();
    let run = world.path("run");
    let inside = |words: &[&str]| {
        let mut command = std::process::Command::new("nsenter");
        command.args(["--mount", "--target", &pid.to_string()]);
        let status = command.args(words).arg(&run).status();
        assert!(status.expect("start nsenter").success());
    };
    let path = format!("/proc/{pid}/root{}", world.path("run/app.sock").display());
    let connects = || client::unix(std::path::Path::new(&path)).is_ok();
    inside(&["mount", "-t", "tmpfs", "none"]);
    assert!(!connects());
    ask(&world, "reload").expect_code(0);
    daemon.line(&["listener app", "bound again"]);
    assert!(connects());
    // What was there before is of no use any more.
    inside(&["umount", "--lazy"]);
    ask(&world, "reload").expect_code(0);
    eventually("the path is bound once more", connects);
    daemon.stop();
    assert!(!world.path("run/app.sock").exists());
}

#[test]
fn a_path_that_somebody_else_took_is_left_to_them() {
    let world = World::new();
    let (daemon, mut puppets) = two(&world, "{ app: 'unix:$DIR/app.sock' }", "app");
    let path = world.path("app.sock");
    let theirs = world.path("theirs.sock");
    let listener = std::os::unix::net::UnixListener::bind(&theirs).expect("bind");
    let before = fs::metadata(&theirs).expect("theirs").ino();
    fs::rename(&theirs, &path).expect("rename");
    daemon.line(&["app.sock", "retrying"]);
    assert_eq!(fs::metadata(&path).expect("theirs").ino(), before);
    // When they leave, it is ours again.
    drop(listener);
    fs::remove_file(&path).expect("remove");
    daemon.line(&["listener app", "restored", "same socket"]);
    client::unix(&path).expect("it is there again");
    puppets.clear();
    daemon.stop();
}

// Rule: "flips O_NONBLOCK … (flags checked at each spawn)". Servers do that to their listeners, so that
// it is not worth a line.
#[test]
fn a_flipped_o_nonblock_is_corrected_without_a_word() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    restart: { backoff: 10ms..50ms, limit: none }
",
    );
    let mut first = world.puppet();
    assert!(!first.report.fds[3].nonblocking);
    first.ask("flip");
    first.tell("exit 1");
    let second = world.puppet();
    assert!(!second.report.fds[3].nonblocking, "put in order again");
    let lines = daemon.lines_so_far(&["O_NONBLOCK"]);
    assert!(lines.is_empty(), "{lines:#?}");
    daemon.stop();
}

// What a worker changes is changed for everybody: `status` shows it, and the next one finds it as it
// was asked for.
#[test]
fn an_option_that_a_worker_changed_is_shown_and_put_back() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "
listeners: { web: { address: '127.0.0.1:0', keep_alive: true, receive_buffer: 100K } }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    restart: { backoff: 10ms..50ms, limit: none }
",
    );
    let mut first = world.puppet();
    let (level, name) = (nix::libc::SOL_SOCKET, nix::libc::SO_KEEPALIVE);
    assert_eq!(first.ask(&format!("option 3 {level} {name} 0")), "option");
    let shown = || {
        let mut client = Varlink::connect(&world);
        let status = client.ask("Status", json!({ "name": "web" }));
        let options = &status["listeners"][0]["detail"]["options"];
        let mut options = options.as_array().expect("a list").iter();
        let found = options.find(|one| one["name"] == "keep_alive");
        let effective = &found.expect("the option")["effective"];
        effective.as_str().expect("text").to_owned()
    };
    assert_eq!(shown(), "false");
    first.tell("exit 1");
    let line = daemon.line(&["web", "keep_alive", "restored"]);
    assert!(line.contains("app.0") && line.contains("false"), "{line}");
    let second = world.puppet();
    assert_eq!(shown(), "true");
    drop(second);
    daemon.stop();
}

/// Holds a port as soon as it is free. It spins: the moment is short.
fn take(address: SocketAddr) -> TcpListener {
    loop {
        if let Ok(listener) = TcpListener::bind(address) {
            return listener;
        }
    }
}

// A repair that cannot succeed is reported, and retried with growing delays.
#[test]
fn a_repair_that_fails_is_reported_and_tried_again_without_a_busy_loop() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { app: 'unix:$DIR/deep/app.sock' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [app] } }
",
    );
    let puppet = world.puppet();
    // A file where the folder was: nothing can be bound there, root or not. At one stroke, because
    // the daemon would make the folder anew in between.
    fs::write(world.path("away"), "in the way").expect("write");
    nix::fcntl::renameat2(
        nix::fcntl::AT_FDCWD,
        &world.path("deep"),
        nix::fcntl::AT_FDCWD,
        &world.path("away"),
        nix::fcntl::RenameFlags::RENAME_EXCHANGE,
    )
    .expect("exchange the two");
    daemon.line(&["listener app", "retrying"]);
    let before = context_switches(daemon.pid());
    // No event shows that nothing happens.
    std::thread::sleep(Duration::from_millis(500));
    let after = context_switches(daemon.pid());
    assert!(after - before < 50, "{before} {after}");
    let said = daemon.lines_so_far(&["retrying"]).len();
    assert!(said <= 4, "{said} times: {}", daemon.stderr());
    assert!(daemon.is_running());
    fs::remove_file(world.path("deep")).expect("remove");
    daemon.line(&["listener app", "again"]);
    eventually("clients connect", || {
        client::unix(&world.path("deep/app.sock")).is_ok()
    });
    drop(puppet);
    daemon.stop();
}

// tcp(7): a listener that is shut down keeps its port until it is closed, except from others with
// SO_REUSEADDR; whoever was faster has it.
#[test]
fn a_port_that_another_process_took_meanwhile_is_tried_again() {
    let world = World::new();
    let port = free_port();
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    let daemon = world.run(&format!(
        "
listeners: {{ web: '{address}' }}
workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [web] }} }}
"
    ));
    let mut puppet = world.puppet();
    // Stopped, it cannot be faster.
    daemon.pause();
    puppet.ask("shutdown");
    let thief = take(address);
    let before = context_switches(daemon.pid());
    daemon.resume();
    daemon.line(&["web", "shut down", "retrying"]);
    std::thread::sleep(Duration::from_millis(500));
    let after = context_switches(daemon.pid());
    assert!(after - before < 50, "{before} {after}");
    drop(thief);
    daemon.line(&["web", "listening again"]);
    eventually("clients connect", || client::tcp(address).is_ok());
    daemon.stop();
}
