//! `listend take`: a process that listend has not started gets what it holds.

use crate::harness::reloading::{ask, reload, run};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Finished, Start, World, client, free_port, listend_path, require_root, require_tool,
};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn taken<'a>(world: &World, words: impl IntoIterator<Item = &'a str>) -> Finished {
    let mut start = Start::new(["take", "--control", "$DIR/control.sock"]);
    start.words_behind(words);
    world.start(start).finish()
}

const SHOW: &str = "echo $LISTEN_FDS $LISTEN_FDNAMES; test $LISTEN_PID = $$ && echo right; \
                    readlink /proc/$$/fd/3 /proc/$$/fd/4 /proc/$$/fd/5; ls -l /proc/$$/fd | grep -c socket:";

// Rule: CMD has exactly the sockets that it names, in that order, as `handoff:` has them.
#[test]
fn a_command_gets_the_listeners_that_it_names() {
    let world = World::new();
    let (one, two, three) = (free_port(), free_port(), free_port());
    let daemon = run(
        &world,
        &format!(
            "listeners:
  web: {{ address: ['127.0.0.1:{one}', '127.0.0.1:{two}'] }}
  admin: 127.0.0.1:{three}
  other: 'unix:$DIR/other'
"
        ),
    );
    daemon.line(&["bound in"]);
    let done = taken(&world, ["admin", "web", "--", "sh", "-c", SHOW]).expect_code(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[0], "3 admin:web:web");
    assert_eq!(lines[1], "right", "{done:#?}");
    let sockets: std::collections::BTreeSet<&str> = lines[2..5].iter().copied().collect();
    assert_eq!(sockets.len(), 3, "{done:#?}");
    assert!(
        sockets.iter().all(|link| link.starts_with("socket:[")),
        "{done:#?}"
    );
    assert_eq!(lines[5], "3", "no other: {done:#?}");
    // One at standard input, as inetd has it.
    let words = [
        "--handoff",
        "inetd",
        "admin",
        "--",
        "sh",
        "-c",
        "readlink /proc/$$/fd/0",
    ];
    let done = taken(&world, words).expect_code(0);
    assert_eq!(done.stdout.trim(), lines[2]);
    for words in ["listener admin: taken by uid", "listener web: taken by uid"] {
        daemon.line(&[words]);
    }
    let status = ask(&world, "status admin").expect_code(0);
    assert!(status.stdout.contains("by uid "), "{}", status.stdout);
    daemon.stop();
}

// Rule: the two share one queue, and listend has no part in it from then on.
#[test]
fn a_command_serves_after_listend_has_gone() {
    if require_tool("python3").is_none() {
        return;
    }
    let world = World::new();
    let port = free_port();
    let daemon = run(&world, &format!("listeners: {{ web: '127.0.0.1:{port}' }}"));
    daemon.line(&["bound in"]);
    let script = "import socket\n\
                  s = socket.socket(fileno=3)\n\
                  s.setblocking(True)\n\
                  print('up', flush=True)\n\
                  while True:\n    c, _ = s.accept()\n    c.sendall(b'taken')\n    c.close()\n";
    world.write("serve.py", script);
    let mut start = Start::new(["take", "--control", "$DIR/control.sock", "web", "--"]);
    start.words_behind(["python3", "$DIR/serve.py"]);
    let command = world.start(start);
    daemon.line(&["listener web: taken by"]);
    daemon.stop();
    let address = crate::harness::reloading::address(port);
    let mut answer = String::new();
    let mut stream = client::tcp(address).expect("it listens");
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("it answers");
    assert_eq!(answer, "taken");
    command.signal(nix::sys::signal::Signal::SIGTERM);
    let _ended = command.status();
}

#[test]
fn what_cannot_be_taken_is_refused_with_the_reason() {
    let world = World::new();
    let (port, held) = (
        free_port(),
        std::net::TcpListener::bind("127.0.0.1:0").expect("bind"),
    );
    let other = held.local_addr().expect("an address");
    let yaml = format!(
        "listeners:
  web: {{ address: ['127.0.0.1:{port}', 'unix:$DIR/web'] }}
  lacking: {{ address: '{other}', optional: true }}
"
    );
    let daemon = run(&world, &yaml);
    daemon.line(&["bound in"]);
    let refused = |words: &[&str], code, why: &str| {
        let refused = taken(&world, words.iter().copied()).expect_code(code);
        assert!(
            refused.stderr.contains(why),
            "{words:?}: {}",
            refused.stderr
        );
    };
    refused(&["wep", "--", "true"], 1, "did you mean `web`?");
    refused(
        &["web", "lacking", "--", "true"],
        1,
        "`lacking` is not bound",
    );
    refused(
        &["web", "--handoff", "inetd", "--", "true"],
        64,
        "one socket",
    );
    refused(
        &["web", "--handoff", "fax", "--", "true"],
        64,
        "no handoff `fax`",
    );
    refused(&["web", "--", "/no/such/program"], 1, "/no/such/program");
    let pid = std::process::id();
    ask(
        &world,
        &format!("adopt --pid {pid} --address {other} --as later"),
    )
    .expect_code(0);
    refused(&["later", "--", "true"], 1, "`later` was given");
    daemon.stop();
}

// Rule: more than one message can carry come in several, each with as many as it lists.
#[test]
fn more_sockets_than_one_message_carries_all_come() {
    let world = World::new();
    let addresses: Vec<String> = (0..600)
        .map(|number| format!("'unix:@$DIR/{number}'"))
        .collect();
    let yaml = format!(
        "listeners: {{ many: {{ address: [{}] }} }}",
        addresses.join(", ")
    );
    let daemon = run(&world, &yaml);
    daemon.line(&["bound in"]);
    let count = "ls -l /proc/$$/fd | grep -c socket:; echo $LISTEN_FDS; readlink /proc/$$/fd/602";
    let done = taken(&world, ["many", "--", "sh", "-c", count]).expect_code(0);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines[..2], ["600", "600"], "{done:#?}");
    assert!(lines[2].starts_with("socket:"), "{done:#?}");
    // Who takes one reply only is told how to have all.
    let mut one = Varlink::connect(&world);
    one.call_with("TakeListener", json!({ "listeners": ["many"] }), json!({}));
    let refused = one.next().expect("a reply").to_string();
    assert!(refused.contains("call it with `more`"), "{refused}");
    daemon.stop();
}

// Rule: nobody but root and listend's user takes what is not granted; a reload changes that.
#[test]
fn only_who_is_granted_a_listener_takes_it() {
    if !require_root() {
        return;
    }
    let Some(setpriv) = require_tool("setpriv") else {
        return;
    };
    let setpriv = setpriv.to_str().expect("UTF-8");
    let world = World::new();
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let listend = world.path("listend");
    fs::copy(listend_path(), &listend).expect("copy");
    let (web, admin) = (free_port(), free_port());
    let yaml = |grant: &str| {
        format!(
            "listeners:
  web: {{ address: '127.0.0.1:{web}'{grant} }}
  admin: 127.0.0.1:{admin}
"
        )
    };
    let words = varlink::words(&world);
    let daemon = world.run_with(&yaml(""), |start| {
        start.words_behind(words.iter().map(String::as_str));
        start.words_behind(["--control-group", "54322"]);
    });
    daemon.line(&["bound in"]);
    let take = |uid: &str, gid: &str, groups: &str, name: &str| {
        let mut start = Start::of(&listend, ["take", "--control", "$DIR/control.sock", name]);
        start.words_behind(["--", "true"]);
        start.through([
            setpriv, "--reuid", uid, "--regid", gid, "--groups", groups, "--",
        ]);
        world.start(start).finish()
    };
    let denied = take("54321", "54321", "54322", "web").expect_code(77);
    assert!(denied.stderr.contains("grant:"), "{}", denied.stderr);
    daemon.line(&["uid 54321", "may not take web"]);
    let changed = reload(&world, &yaml(", grant: [54321, 'group:54399']"));
    let words = "grant nobody → 54321 group:54399";
    assert!(changed.stdout.contains(words), "{}", changed.stdout);
    take("54321", "54321", "54322", "web").expect_code(0);
    daemon.line(&["listener web: taken by uid 54321"]);
    take("54320", "54320", "54322,54399", "web").expect_code(0);
    take("54320", "54399", "54322", "web").expect_code(0);
    // The number of a group is no user's.
    take("54399", "54320", "54322", "web").expect_code(77);
    take("54321", "54321", "54322", "admin").expect_code(77);
    // And a grant is no way in to the control socket.
    take("54321", "54321", "54321", "web").expect_code(77);
    let status = ask(&world, "status web").expect_code(0);
    assert!(
        status.stdout.contains("uid 54321, gid 54399"),
        "{}",
        status.stdout
    );
    daemon.stop();
}

#[test]
fn a_grant_names_users_and_groups_that_there_are() {
    let world = World::new();
    let yaml = "listeners: { web: { address: '127.0.0.1:0', grant: [no-such-user-x, 'group:no-such-group-x', 'a:b'] } }";
    let checked = world.check(yaml, &["--no-bind"]).expect_code(78);
    assert!(checked.text().contains("a:b"), "{}", checked.text());
    let yaml = "listeners: { web: { address: '127.0.0.1:0', grant: [no-such-user-x, 'group:no-such-group-x'] } }";
    let checked = world.check(yaml, &["--no-bind"]).expect_code(78);
    for words in [
        "unknown-user",
        "no-such-user-x",
        "unknown-group",
        "no-such-group-x",
    ] {
        assert!(checked.text().contains(words), "{}", checked.text());
    }
}
