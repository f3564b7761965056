//! A worker with a sandbox starts, ends, is upgraded and fails as one without.

use crate::harness::app::{PUPPET, yaml};
use crate::harness::reloading::ask;
use crate::harness::{
    Daemon, Puppet, World, client, eventually, is_root, probe_path, public_probe, require_root,
    skip,
};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{chown, symlink};

/// Whether a sandbox with mounts can be had: as root, or in a user namespace. With `private_tmp` the
/// programs of a checkout below /tmp are not there for the worker.
pub(crate) fn can_mount() -> bool {
    if ["/tmp", "/var/tmp"]
        .iter()
        .any(|tmp| probe_path().starts_with(tmp))
    {
        skip("the checkout is below /tmp");
        return false;
    }
    let words = ["--user", "--map-root-user", "--mount", "true"];
    let done = std::process::Command::new("unshare").args(words).output();
    let can = is_root() || done.is_ok_and(|done| done.status.success());
    if !can {
        skip("no namespaces to be had");
    }
    can
}

/// The puppet of a worker in this sandbox, which can reach the test.
fn puppet_in(world: &World, sandbox: &str, lines: &str) -> (Daemon, Puppet) {
    let sandbox = format!("sandbox: {{ {sandbox}, read_write_paths: [$DIR] }}");
    let daemon = world.run(&yaml(PUPPET, &format!("{sandbox}\n{lines}")));
    (daemon, world.puppet())
}

// The pid stays over the second exec, so the variables are right; nothing else is inherited.
#[test]
fn a_worker_in_a_sandbox_has_its_listeners_variables_and_pid() {
    if !can_mount() {
        return;
    }
    for preset in ["basic", "strict", "sealed"] {
        let world = World::new();
        let lines = "environment: { A: b }\nready: fd 9";
        let (daemon, puppet) = puppet_in(&world, &format!("preset: {preset}"), lines);
        let report = &puppet.report;
        assert_eq!(report.env["LISTEN_PID"], report.pid.to_string(), "{preset}");
        assert_eq!(report.env["LISTEN_FDS"], "1");
        assert_eq!(report.env["A"], "b");
        let inode = report.env.get("LISTEN_PIDFDID").map(String::as_str);
        assert_eq!(
            inode.map(str::to_owned),
            report.pidfd_inode.map(|one| one.to_string())
        );
        let open: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
        assert_eq!(open, [0, 1, 2, 3, 9], "{preset}");
        assert_eq!(report.ppid, daemon.pid());
        assert_eq!(report.status["NoNewPrivs"], "1");
        assert_eq!(report.status["CapBnd"], "0000000000000000");
        // As without a sandbox: only SIGPIPE, and that by its own key.
        assert_eq!(report.ignored, [Signal::SIGPIPE as i32]);
        assert!(report.blocked.is_empty());
        assert_eq!(
            report.cwd,
            std::env::current_dir().unwrap().to_str().unwrap()
        );
        daemon.stop();
    }
}

#[test]
fn its_user_umask_and_limits_are_those_of_its_keys() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let command = format!("[{}, puppet, $EVENTS]", probe.display());
    fs::create_dir(world.path("home")).expect("create a folder");
    let lines = "user: 12345\ngroup: daemon\nsupplementary_groups: [4242]\numask: 0027\nnice: 7\n\
                 oom_score_adjust: 500\nlimits: { nofile: 99 }\nignore_sigpipe: false\n\
                 working_directory: $DIR/home\n\
                 sandbox: { preset: strict, read_write_paths: [$DIR] }";
    let daemon = world.run(&yaml(&command, lines));
    let report = world.puppet().report;
    let group = nix::unistd::Group::from_name("daemon")
        .unwrap()
        .expect("daemon");
    assert_eq!(report.uids, [12345; 4]);
    assert_eq!(report.gids, [group.gid.as_raw(); 4]);
    assert_eq!(report.groups, [4242]);
    assert_eq!(
        (report.umask, report.nice, report.oom_score_adj),
        (0o027, 7, 500)
    );
    assert_eq!(report.limits["nofile"], [Some(99); 2]);
    assert!(report.ignored.is_empty());
    assert_eq!(report.cwd, world.path("home").to_str().unwrap());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(report.status[set], "0000000000000000", "{set}");
    }
    daemon.stop();
}

// It had all but that one: the bounding set was left as it was, and root has that with every program.
#[test]
fn a_worker_of_root_has_no_capability_that_listend_cannot_take_from_the_bounding_set() {
    if !require_root() {
        return;
    }
    for (capabilities, expected) in [("[]", "0"), ("[CAP_CHOWN]", "1")] {
        let world = World::new();
        let lines = format!("sandbox: {{ capabilities: {capabilities} }}");
        let daemon = world.run_with(&yaml(PUPPET, &lines), |start| {
            start.through(["setpriv", "--bounding-set", "-setpcap"]);
        });
        let status = world.puppet().report.status;
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(
                status[set].trim_start_matches('0'),
                expected.trim_start_matches('0'),
                "{set}"
            );
        }
        assert_eq!(status["CapInh"], "0000000000000000");
        daemon.stop();
    }
}

// What sets the sandbox up needs more of both.
#[test]
fn limits_that_are_enough_for_the_worker_are_enough() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let limits = "limits: { nofile: 13, as: 12M, data: 4M }";
    let command = "[sh, -c, 'exec >&2; ulimit -n; ulimit -v; ulimit -d; exit 3']";
    let lines = format!("output: tag\nsandbox: strict\n{limits}");
    let daemon = world.run(&yaml(command, &lines));
    daemon.line(&["app.0: exited with exit status 3"]);
    daemon.signal(Signal::SIGTERM);
    let said = daemon.finish().expect_code(0).stdout;
    for wanted in ["app.0 | 13", "app.0 | 12288", "app.0 | 4096"] {
        assert!(said.contains(wanted), "{said}");
    }
}

// LD_PRELOAD of a file that the worker's user can write would run as root otherwise.
#[test]
fn nothing_of_the_environment_reaches_what_sets_the_sandbox_up() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let lines = "environment: { LD_DEBUG: statistics, LD_DEBUG_OUTPUT: '$DIR/loader' }";
    let (daemon, puppet) = puppet_in(&world, "preset: basic", lines);
    let pid = puppet.report.pid.to_string();
    // The loader writes for each program of that pid: the worker's own, and no other.
    let loader =
        fs::read_to_string(world.path(&format!("loader.{pid}"))).expect("what the loader wrote");
    assert_eq!(loader.matches("total startup time").count(), 1, "{loader}");
    daemon.stop();
}

#[test]
fn each_process_of_a_connection_and_each_hook_is_in_the_sandbox() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [grep, NoNewPrivs, /proc/self/status]
    listeners: [web]
    activation: per-connection
    handoff: inetd
    sandbox: strict
  eager:
    command: [$PROBE, puppet, $EVENTS]
    before_start: [sh, -c, 'grep NoNewPrivs /proc/self/status > $DIR/hook']
    sandbox: { preset: strict, read_write_paths: [$DIR] }
",
    );
    let _puppet = world.puppet();
    let hook = fs::read_to_string(world.path("hook")).expect("what the hook wrote");
    assert_eq!(hook, "NoNewPrivs:\t1\n");
    for _ in 0..3 {
        let mut text = String::new();
        let mut stream = client::tcp(daemon.address("web")).expect("connect");
        stream.read_to_string(&mut text).expect("read");
        assert_eq!(text, "NoNewPrivs:\t1\n");
    }
    daemon.stop();
}

#[test]
fn the_sandbox_outlives_an_upgrade() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let file = yaml(
        PUPPET,
        "sandbox: { preset: strict, read_write_paths: [$DIR] }\nrestart: { backoff: 1ms }",
    );
    let control = world
        .path("control.sock")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let daemon = world.run_with(&file, |start| {
        start.words_behind(["--control", &control]);
    });
    let puppet = world.puppet();
    assert_eq!(puppet.report.status["NoNewPrivs"], "1");
    ask(&world, "upgrade").expect_code(0);
    drop(puppet);
    let next = world.puppet();
    assert_eq!(next.report.status["NoNewPrivs"], "1");
    assert_eq!(next.report.status["Seccomp"], "2");
    daemon.stop();
}

// --- Failures ----------------------------------------------------------------------------------

#[test]
fn a_start_that_fails_says_which_key_and_why() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    // A link that somebody else can turn elsewhere.
    if is_root() {
        fs::create_dir(world.path("theirs")).expect("create a folder");
        symlink("/etc", world.path("theirs/link")).expect("link");
        chown(world.path("theirs"), Some(12345), None).expect("chown");
        let lines = "sandbox: { read_only_paths: [$DIR/theirs/link] }\nrestart: never";
        let daemon = world.run(&yaml("[sleep, '60']", lines));
        daemon.line(&[
            "failed while mounting the sandbox",
            "can change, and is not followed",
        ]);
        daemon.stop();
    }
    let missing = "read_only_paths: [/nothing/here]";
    let hidden = "inaccessible_paths: [$DIR]";
    for (sandbox, words) in [
        (
            missing,
            [
                "failed while mounting the sandbox",
                "`read_only_paths`: /nothing/here",
            ],
        ),
        (
            hidden,
            [
                "failed while executing the program",
                "`inaccessible_paths` of `sandbox` hides",
            ],
        ),
    ] {
        let script = world.write_script("script", "#!/bin/sh\nexec sleep 60\n");
        let command = format!("[{}]", script.display());
        let lines = format!("sandbox: {{ {sandbox} }}\nrestart: never");
        let daemon = world.run(&yaml(&command, &lines));
        daemon.line(&words);
        daemon.stop();
    }
}

#[test]
fn where_namespaces_are_forbidden_landlock_is_used_and_what_it_cannot_do_is_an_error() {
    let world = World::new();
    let without = |lines: &str| {
        let file = yaml(PUPPET, lines);
        world.run_with(&file, |start| {
            start.through([
                crate::harness::probe_path().to_str().expect("UTF-8"),
                "without-namespaces",
            ]);
        })
    };
    let daemon = without("sandbox: { preset: basic }\nrestart: never");
    daemon.line(&["cannot enforce `private_tmp`", "best_effort"]);
    daemon.stop();
    let daemon = without(
        "sandbox: { preset: strict, private_tmp: false, read_write_paths: [$DIR] }\nrestart: never",
    );
    let puppet = world.puppet();
    assert_eq!(puppet.report.status["Seccomp"], "2");
    daemon.line(&["no namespaces", "landlock restricts the file system"]);
    drop(puppet);
    daemon.stop();
    // A file that others may write to, and may not in there.
    let command =
        "[sh, -c, 'echo x > /var/tmp/listend-test-$$ && echo written; echo over; exec sleep 60']";
    let file = yaml(command, "sandbox: { preset: strict, best_effort: true }");
    let daemon = world.run_with(&file, |start| {
        start.through([
            crate::harness::probe_path().to_str().expect("UTF-8"),
            "without-namespaces",
        ]);
    });
    daemon.line(&["`private_tmp` is not enforced"]);
    eventually("the worker has tried", || {
        daemon.stderr().contains("annot create")
    });
    daemon.stop();
}
