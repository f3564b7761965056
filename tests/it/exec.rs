//! `listend exec`: the same without YAML.

use crate::harness::{Start, World, client, eventually, free_port, kill};
use nix::sys::signal::Signal;
use std::net::TcpListener;

// Rule: "`listend exec -l web=127.0.0.1:8080 -l unix:/tmp/x.sock -- CMD…`: the same without YAML."
#[test]
fn exec_binds_hands_over_and_supervises_one_command() {
    let world = World::new();
    let words = [
        "exec",
        "-l",
        "web=127.0.0.1:0",
        "-l",
        "unix:$DIR/x.sock",
        "--",
        "$PROBE",
        "serve",
    ];
    let daemon = world.start(Start::new(words));
    let tcp = client::ask_tcp(daemon.address("web"));
    let unix = client::ask_unix(&world.path("x.sock"));
    assert_eq!(tcp.pid, unix.pid);
    assert_eq!(tcp.ppid, daemon.pid());
    assert_eq!(tcp.env["LISTEN_FDS"], "2");
    assert_eq!(tcp.env["LISTEN_PID"], tcp.pid.to_string());
    let names: Vec<_> = tcp.env["LISTEN_FDNAMES"].split(':').collect();
    assert_eq!((names.len(), names[0]), (2, "web"));
    let open: Vec<_> = tcp.fds.iter().map(|fd| fd.number).collect();
    assert_eq!(open, [0, 1, 2, 3, 4]);
    daemon.stop();
    assert!(!world.path("x.sock").exists());
}

#[test]
fn exec_starts_its_command_again_and_keeps_the_port() {
    let world = World::new();
    let words = ["exec", "-l", "web=127.0.0.1:0", "--", "$PROBE", "serve"];
    let daemon = world.start(Start::new(words));
    let address = daemon.address("web");
    let first = client::ask_tcp(address).pid;
    kill(first, Signal::SIGKILL);
    let mut second = first;
    eventually("another process answers", || {
        // What the killed worker had accepted is cut.
        if let Ok(stream) = client::tcp(address) {
            second = client::read_report(stream).map_or(first, |report| report.pid);
        }
        second != first
    });
    daemon.stop();
}

#[test]
fn exec_fills_in_placeholders_and_passes_options_of_the_command_on() {
    let world = World::new();
    let words = [
        "exec",
        "-l",
        "web=127.0.0.1:0",
        "--",
        "$PROBE",
        "puppet",
        "$EVENTS",
        "--fd={fd:web}",
        "-l",
        "--help",
        "{{}}",
    ];
    let daemon = world.start(Start::new(words));
    let argv = world.puppet().report.argv;
    assert_eq!(argv[3..], ["--fd=3", "-l", "--help", "{}"]);
    daemon.stop();
}

#[test]
fn exec_reports_all_bind_errors_and_starts_nothing() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let held = holder.local_addr().expect("an address");
    let _live = std::os::unix::net::UnixListener::bind(world.path("live.sock")).expect("bind");
    let (one, good) = (format!("one={held}"), format!("127.0.0.1:{}", free_port()));
    let words = [
        "exec",
        "-l",
        &one,
        "-l",
        "unix:$DIR/live.sock",
        "-l",
        &good,
        "--",
        "$PROBE",
        "touch",
        "$DIR/marker",
    ];
    let finished = world.finish(words).expect_code(69);
    assert_eq!(
        finished.stderr.matches("error:").count(),
        2,
        "{finished:#?}"
    );
    let pid = std::process::id().to_string();
    assert!(finished.stderr.contains(&pid), "{finished:#?}");
    assert!(!world.path("marker").exists());
}

#[test]
fn exec_with_a_bad_address_is_a_mistake_of_whoever_wrote_it() {
    let world = World::new();
    let words = ["exec", "-l", "web=127.0.0.1:99999", "--", "$PROBE", "serve"];
    let finished = world.finish(words);
    assert!(matches!(finished.code, Some(64 | 78)), "{finished:#?}");
    assert!(finished.stderr.contains("99999"), "{finished:#?}");
}

// Where the command is not started again there is nothing left to supervise: in a container, or in
// a script, listend is then as good as the command itself.
#[test]
fn exec_ends_with_the_exit_status_of_a_command_that_is_not_restarted() {
    for (command, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let world = World::new();
        let words = [
            "exec",
            "-l",
            "web=127.0.0.1:0",
            "--restart",
            "never",
            "--",
            "sh",
            "-c",
            command,
        ];
        world.finish(words).expect_code(code);
    }
}

// It was said that the listeners stay bound, and that a command starts the worker again, which no
// control socket takes.
#[test]
fn exec_promises_nothing_of_a_command_that_has_failed() {
    let world = World::new();
    let words = ["exec", "-l", "web=127.0.0.1:0", "--restart", "never", "--"];
    let finished = world.finish(words.into_iter().chain(["/nonexistent"]));
    assert_eq!(finished.code, Some(127), "{finished:#?}");
    assert!(
        finished.stderr.contains("nonexistent.0: failed\n"),
        "{finished:#?}"
    );
    assert!(!finished.stderr.contains("stay bound"), "{finished:#?}");
    assert!(!finished.stderr.contains("listend start"), "{finished:#?}");
}
