//! Every kind of listener, bound as the YAML says and served through a worker.

use crate::harness::{Report, Start, World, client, free_port, require_ipv6, require_root, sysctl};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    metadata.permissions().mode() & 0o7777
}

/// The backlog of the socket behind descriptor 3.
fn backlog(report: &Report) -> Option<u32> {
    report.fds[3].socket.as_ref().expect("a socket").backlog
}

// Rule: "TCP v4 and v6 …, UDP, unix stream, dgram, seqpacket and abstract".
#[test]
fn every_kind_of_listener_is_served_by_the_worker_that_inherits_it() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    let name = format!("listend-test-{}", std::process::id());
    let daemon = world.run(
        &"
listeners:
  v4: 127.0.0.1:0
  scheme: tcp://127.0.0.1:0
  v6: '[::1]:0'
  udp: udp://127.0.0.1:0
  udp6: 'udp://[::1]:0'
  stream: unix:$DIR/stream.sock
  dgram: unix-dgram:$DIR/dgram.sock
  seqpacket: unix-seqpacket:$DIR/seqpacket.sock
  abstract: unix:@NAME
workers:
  app:
    command: [$PROBE, serve]
    listeners: [v4, scheme, v6, udp, udp6, stream, dgram, seqpacket, abstract]
"
        .replace("NAME", &name),
    );
    let mut pids = vec![
        client::ask_tcp(daemon.address("v4")).pid,
        client::ask_tcp(daemon.address("scheme")).pid,
        client::ask_tcp(daemon.address("v6")).pid,
        client::ask_udp(daemon.address("udp")).pid,
        client::ask_udp(daemon.address("udp6")).pid,
        client::ask_unix(&world.path("stream.sock")).pid,
        client::ask_unix_datagram(&world.path("dgram.sock"), &world.path("here.sock")).pid,
        client::ask_seqpacket(&world.path("seqpacket.sock")).pid,
    ];
    let stream = client::abstract_unix(&name).expect("connect");
    pids.push(client::read_report(stream).expect("a report").pid);
    pids.dedup();
    assert_eq!(pids.len(), 1, "one worker serves all");
    daemon.stop();
}

// Rule: "v6only unless told otherwise; `:PORT` is one dual-stack socket; `localhost:` both
// loopbacks". ipv6(7): IPV6_V6ONLY.
#[test]
fn ipv6_takes_ipv4_only_where_the_yaml_says_so() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    let (both, local, wild) = (free_port(), free_port(), free_port());
    let yaml = format!(
        "
listeners:
  only: '[::]:{wild}'
  four: 0.0.0.0:{wild}
  both: :{both}
  local: localhost:{local}
  mapped: {{ address: '[::]:0', ipv6_only: false }}
workers:
  app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [only, four, both, local, mapped] }}
"
    );
    let daemon = world.run(&yaml);
    let report = world.puppet().report;
    let found: Vec<_> = report.fds[3..]
        .iter()
        .map(|fd| fd.socket.as_ref().expect("a socket"))
        .map(|socket| (socket.name.clone(), socket.v6_only, socket.reuse_address))
        .collect();
    // socket(7): SO_REUSEADDR lets a listener be bound again at once after a restart.
    assert_eq!(
        found[..5],
        [
            (format!("[::]:{wild}"), Some(true), true),
            (format!("0.0.0.0:{wild}"), None, true),
            (format!("[::]:{both}"), Some(false), true),
            (format!("127.0.0.1:{local}"), None, true),
            (format!("[::1]:{local}"), Some(true), true),
        ]
    );
    assert_eq!(found[5].1, Some(false));
    assert_eq!(found.len(), 6);
    let v4: SocketAddr = format!("127.0.0.1:{both}").parse().unwrap();
    client::tcp(v4).expect("a dual-stack socket takes IPv4");
    daemon.stop();
}

// Rule: "port 0 allowed and reported".
#[test]
fn the_port_that_the_kernel_chose_is_reported_and_stays_over_restarts() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, flip]
    listeners: [web]
    restart: { backoff: 10ms..50ms, limit: none }
",
    );
    let address = daemon.address("web");
    assert_ne!(address.port(), 0);
    let name = |report: &Report| report.fds[3].socket.as_ref().unwrap().name.clone();
    assert_eq!(name(&client::ask_tcp(address)), address.to_string());
    assert_eq!(name(&client::ask_tcp(address)), address.to_string());
    daemon.stop();
}

// Rule: "Backlog default = somaxconn". listen(2): "If the backlog argument is greater than the
// value in /proc/sys/net/core/somaxconn, then it is silently capped to that value."
#[test]
fn the_backlog_is_somaxconn_unless_given() {
    let world = World::new();
    let daemon = world.run(
        "
listeners:
  default: 127.0.0.1:0
  given: { address: '127.0.0.1:0', backlog: 7 }
workers:
  default: { command: [$PROBE, serve], listeners: [default] }
  given: { command: [$PROBE, serve], listeners: [given] }
",
    );
    let default = client::ask_tcp(daemon.address("default"));
    assert_eq!(backlog(&default), Some(sysctl("net/core/somaxconn")));
    assert_eq!(backlog(&client::ask_tcp(daemon.address("given"))), Some(7));
    daemon.stop();
}

// Rule: "mode: 0660 # default 0600; there is never a moment with more".
#[test]
fn unix_paths_have_the_mode_asked_for_whatever_the_umask() {
    let world = World::new();
    let yaml = "
listeners:
  default: unix:$DIR/default.sock
  wide: { address: 'unix:$DIR/wide.sock', mode: 0666 }
  group: { address: 'unix-dgram:$DIR/group.sock', mode: '0620' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [default, wide, group] } }
";
    for umask in ["000", "077"] {
        let daemon = world.run_with(yaml, |start| {
            start.through(["$PROBE", "launch", "--umask", umask, "--"]);
        });
        let report = world.puppet().report;
        assert_eq!(mode(&world.path("default.sock")), 0o600, "umask {umask}");
        assert_eq!(mode(&world.path("wide.sock")), 0o666, "umask {umask}");
        assert_eq!(mode(&world.path("group.sock")), 0o620, "umask {umask}");
        // Binding borrows the umask; the worker's is listend's own.
        assert_eq!(format!("{:03o}", report.umask), umask);
        daemon.stop();
    }
}

// Rule: "there is never a moment with more". A reader looks as often as it can while many
// sockets are made; it cannot prove the rule, but it sees a chmod that comes after bind.
#[test]
fn there_is_no_moment_in_which_a_unix_path_is_open_to_others() {
    const COUNT: usize = 200;
    let world = World::new();
    let mut yaml = "listeners:\n".to_owned();
    for number in 0..COUNT {
        yaml += &format!("  s{number}: unix:$DIR/sockets/{number}\n");
    }
    yaml += "  last: unix:$DIR/last\n";
    yaml += "workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [last] } }\n";
    let folder = world.path("sockets");
    fs::create_dir(&folder).expect("create a folder");
    let done = AtomicBool::new(false);
    let widest = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut widest = 0;
            while !done.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&folder).expect("list").flatten() {
                    widest |= entry.metadata().map_or(0, |m| m.permissions().mode());
                }
            }
            widest
        });
        let daemon = world.run_with(&yaml, |start| {
            start.through(["$PROBE", "launch", "--umask", "0", "--"]);
        });
        world.puppet();
        done.store(true, Ordering::Relaxed);
        daemon.stop();
        watcher.join().expect("the watcher")
    });
    assert_eq!(widest & 0o7177, 0, "{widest:o}");
}

// Rule: "parent folders created with `directory_mode`".
#[test]
fn parent_folders_are_created_with_their_mode() {
    let world = World::new();
    let yaml = "
listeners:
  default: unix:$DIR/a/b/default.sock
  narrow: { address: 'unix:$DIR/c/d/narrow.sock', directory_mode: 0710 }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [default, narrow] } }
";
    let daemon = world.run_with(yaml, |start| {
        start.through(["$PROBE", "launch", "--umask", "077", "--"]);
    });
    world.puppet();
    for (path, wanted) in [("a", 0o755), ("a/b", 0o755), ("c", 0o710), ("c/d", 0o710)] {
        assert_eq!(mode(&world.path(path)), wanted, "{path}");
    }
    daemon.stop();
}

// Rule: "with owner, group, mode".
#[test]
fn unix_paths_belong_to_the_owner_and_group_asked_for() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let daemon = world.run(
        "
listeners:
  named: { address: 'unix:$DIR/named.sock', owner: nobody, group: daemon, mode: 0660 }
  numbers: { address: 'unix:$DIR/numbers.sock', owner: 1234, group: 4321 }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [named, numbers] } }
",
    );
    world.puppet();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let group = nix::unistd::Group::from_name("daemon").unwrap().unwrap();
    let owner = |name: &str| {
        let metadata = fs::metadata(world.path(name)).expect("the socket");
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(
        owner("named.sock"),
        (nobody.uid.as_raw(), group.gid.as_raw())
    );
    assert_eq!(owner("numbers.sock"), (1234, 4321));
    assert_eq!(mode(&world.path("named.sock")), 0o660);
    daemon.stop();
}

// Rule: "A stale unix socket is replaced only after a probe shows that nobody listens; a live
// one is an error; anything that is not a socket is never removed."
#[test]
fn a_stale_unix_socket_is_replaced() {
    let world = World::new();
    for (scheme, name) in [("unix", "s"), ("unix-dgram", "d"), ("unix-seqpacket", "q")] {
        let path = world.path(name);
        match scheme {
            "unix" => drop(std::os::unix::net::UnixListener::bind(&path).expect("bind")),
            "unix-dgram" => drop(std::os::unix::net::UnixDatagram::bind(&path).expect("bind")),
            _ => {
                let kind = socket2::Type::SEQPACKET;
                let socket = socket2::Socket::new(socket2::Domain::UNIX, kind, None).unwrap();
                socket
                    .bind(&socket2::SockAddr::unix(&path).unwrap())
                    .unwrap();
            }
        }
        let stale = fs::metadata(&path).expect("the stale socket").ino();
        let daemon = world.run(&format!(
            "
listeners: {{ app: '{scheme}:$DIR/{name}' }}
workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [app] }} }}
"
        ));
        world.puppet();
        let metadata = fs::metadata(&path).expect("the new socket");
        assert!(metadata.file_type().is_socket());
        assert_ne!((metadata.ino(), metadata.mode() & 0o777), (stale, 0o755));
        daemon.stop();
    }
}

#[test]
fn a_live_unix_socket_is_kept_and_still_answers() {
    let world = World::new();
    let yaml = "
listeners: { app: 'unix:$DIR/app.sock' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [app] } }
";
    let first = world.run(yaml);
    let mut puppet = world.puppet();
    puppet.tell("serve");
    let before = fs::metadata(world.path("app.sock"))
        .expect("the socket")
        .ino();
    let file = world.path("listend.yaml");
    let second = world.start(Start::new(["run", "-c", file.to_str().unwrap()]));
    second.finish().expect_code(69);
    let after = fs::metadata(world.path("app.sock"))
        .expect("the socket")
        .ino();
    assert_eq!(before, after);
    assert_eq!(client::ask_unix(&world.path("app.sock")).pid, puppet.pid());
    assert!(world.no_puppet_is_waiting());
    first.stop();
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let world = World::new();
    fs::write(world.path("file"), "precious").expect("write");
    fs::create_dir(world.path("folder")).expect("create a folder");
    std::os::unix::fs::symlink(world.path("file"), world.path("link")).expect("symlink");
    std::os::unix::fs::symlink("/nowhere/at/all", world.path("dangling")).expect("symlink");
    nix::unistd::mkfifo(&world.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    for name in ["file", "folder", "link", "dangling", "fifo"] {
        let yaml = format!("listeners: {{ app: 'unix:$DIR/{name}' }}");
        let before = fs::symlink_metadata(world.path(name)).expect("it").ino();
        let finished = world.check(&yaml, &["--json"]).expect_code(69);
        let kind = finished.json()["errors"][0]["kind"].clone();
        assert_eq!(kind, "not-a-socket", "{name}: {finished:#?}");
        let file = world.path("listend.yaml");
        let run = ["run", "-c", file.to_str().unwrap()];
        world.finish(run).expect_code(69);
        let after = fs::symlink_metadata(world.path(name)).expect("it is still there");
        assert_eq!(after.ino(), before, "{name}");
    }
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "precious");
}
