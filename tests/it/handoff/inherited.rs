//! What a worker has of the process that listend was: every field of its status, its limits, keyring
//! and descriptors, and why each is as it is; and the folder that is made for it.

use crate::harness::reloading::{ask, reload, run};
use crate::harness::{Report, World, client, eventually};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// What a field of a worker's /proc/PID/status has to be (proc_pid_status(5)).
enum Field {
    /// This.
    Is(&'static str),
    /// What listend has: it is part of the surroundings that listend was given, and what limits them
    /// is meant for all that runs in there.
    Inherited,
    /// A number or a measure of this very process.
    Own,
    /// By what the test asked for.
    Asked(String),
}

/// Every field, and why it is as it is. A kernel with another one asks somebody to decide.
fn field(name: &str, user: Option<u32>) -> Option<Field> {
    use Field::{Asked, Inherited, Is, Own};
    let ids = |user: u32| Asked(format!("{user}\t{user}\t{user}\t{user}"));
    Some(match name {
        // Of the process itself.
        "Name"
        | "State"
        | "Tgid"
        | "Ngid"
        | "Pid"
        | "PPid"
        | "NStgid"
        | "NSpid"
        | "NSpgid"
        | "NSsid"
        | "FDSize"
        | "VmPeak"
        | "VmSize"
        | "VmLck"
        | "VmPin"
        | "VmHWM"
        | "VmRSS"
        | "RssAnon"
        | "RssFile"
        | "RssShmem"
        | "VmData"
        | "VmStk"
        | "VmExe"
        | "VmLib"
        | "VmPTE"
        | "VmSwap"
        | "HugetlbPages"
        | "SigQ"
        | "voluntary_ctxt_switches"
        | "nonvoluntary_ctxt_switches" => Own,
        "Threads" => Is("1"),
        "Kthread" | "TracerPid" | "CoreDumping" => Is("0"),
        // `user`, `group`, `supplementary_groups`.
        "Uid" | "Gid" => user.map_or(Inherited, ids),
        "Groups" => match user {
            Some(user) => Asked(user.to_string()),
            None => Inherited,
        },
        // `umask`, unless it is written.
        "Umask" => Inherited,
        // Nothing blocked, nothing caught, and what systemd ignores in a service.
        "SigPnd" | "ShdPnd" | "SigBlk" | "SigCgt" => Is("0000000000000000"),
        "SigIgn" => Is("0000000000001000"),
        // No capability but those that root has by being root.
        "CapInh" | "CapAmb" => Is("0000000000000000"),
        "CapPrm" | "CapEff" => match user {
            None if crate::harness::is_root() => Inherited,
            _ => Is("0000000000000000"),
        },
        // Sandboxes: whoever shut listend in meant its workers, too.
        "CapBnd"
        | "NoNewPrivs"
        | "Seccomp"
        | "Seccomp_filters"
        | "Speculation_Store_Bypass"
        | "SpeculationIndirectBranch"
        | "Cpus_allowed"
        | "Cpus_allowed_list"
        | "Mems_allowed"
        | "Mems_allowed_list"
        | "THP_enabled"
        | "untag_mask"
        | "x86_Thread_features"
        | "x86_Thread_features_locked" => Inherited,
        _ => return None,
    })
}

/// Checks every field of the worker's status against the daemon's; `user` is whom it is to run as.
#[track_caller]
fn check_status(report: &Report, daemon: i32, user: Option<u32>) {
    let text = fs::read_to_string(format!("/proc/{daemon}/status")).expect("listend runs");
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let daemons: BTreeMap<&str, &str> = fields.map(|(name, value)| (name, value.trim())).collect();
    for (name, value) in &report.status {
        let Some(field) = field(name, user) else {
            panic!("{name} is new: say in `field` what a worker is to have there");
        };
        let expected = match &field {
            Field::Own => continue,
            Field::Is(text) => text,
            Field::Inherited => daemons[name.as_str()],
            Field::Asked(text) => text.as_str(),
        };
        assert_eq!(value, expected, "{name}");
    }
}

/// What a worker must not have is put into listend's own process, by `setpriv` and the probe; the
/// worker is looked at as a whole.
#[track_caller]
fn nothing_of_listend_reaches_a_worker(privileges: &[&str], user: Option<u32>, lines: &str) {
    let Some(setpriv) = crate::harness::require_tool("setpriv") else {
        return;
    };
    let world = World::new();
    let probe = crate::harness::public_probe(&world);
    let probe = probe.to_str().expect("UTF-8");
    // listend may run as somebody who cannot enter the folder of the build.
    let listend = world.path("listend");
    let copied = std::process::Command::new("cp")
        .arg(crate::harness::listend_path())
        .arg(&listend)
        .status();
    assert!(copied.expect("start cp").success());
    let number = (Signal::SIGUSR1 as i32).to_string();
    let mut through = vec![setpriv.to_str().expect("UTF-8")];
    through.extend(privileges);
    through.extend([probe, "launch", "--key", "secret", "--block", &number]);
    through.extend(["--ignore", &number, "--leak", "60", "--"]);
    through.extend(["/bin/sh", "-c", "exec $DIR/listend \"$@\""]);
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [{probe}, puppet, $EVENTS]
    listeners: [web]
{lines}"
    );
    chown(world.dir(), Some(65_534), None).expect("chown");
    let daemon = world.run_with(&yaml, |start| {
        start.through(through);
    });
    let _client = client::tcp(daemon.address("web")).expect("connect");
    let report = world.puppet().report;
    check_status(&report, daemon.pid(), user);
    let fds: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
    assert_eq!(fds, [0, 1, 2, 3]);
    let nofile = report.limits["nofile"];
    assert_eq!(nofile, own_open_files(), "listend raises its own");
    if let Some(keyring) = &report.session_keyring {
        let owner = user.unwrap_or(report.uids[0]);
        let start = format!("keyring;{owner};");
        assert!(keyring.description.starts_with(&start), "{keyring:?}");
        assert_eq!(keyring.keys, 0, "{keyring:?}");
    }
    daemon.stop();
}

// systemd has to start listend with more, for what it keeps.
#[test]
fn the_soft_limit_on_open_files_of_workers_is_not_that_of_listend_where_the_unit_says_so() {
    for (told, own, wanted) in [
        ("256", "512", 256),
        ("1024", "512", 512),
        ("many", "512", 512),
    ] {
        let world = World::new();
        let yaml = "workers:\n  app:\n    command: [$PROBE, puppet, $EVENTS]\n  \
                    own: { command: [$PROBE, puppet, $EVENTS], limits: { nofile: 300 } }\n";
        let daemon = world.run_with(yaml, |start| {
            start.env("LISTEND_WORKER_NOFILE", told);
            let limit = format!("ulimit -Sn {own}; exec \"$0\" \"$@\"");
            start.through(["sh", "-c", &limit]);
        });
        let hard = own_open_files()[1];
        for puppet in world.puppets(2) {
            let expected = match puppet.report.env["LISTEND_INSTANCE"].as_str() {
                "own.0" => [Some(300), Some(300)],
                _ => [Some(wanted), hard],
            };
            assert_eq!(puppet.report.limits["nofile"], expected, "{told}");
            assert!(!puppet.report.env.contains_key("LISTEND_WORKER_NOFILE"));
        }
        let said = daemon.lines_so_far(&["LISTEND_WORKER_NOFILE=many is not a number"]);
        assert_eq!(said.len(), usize::from(told == "many"));
        daemon.stop();
    }
}

/// The limit that listend was started with.
fn own_open_files() -> [Option<u64>; 2] {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    [Some(soft), Some(hard)]
}

const NOBODY: u32 = 65_534;

#[test]
fn a_worker_of_another_user_has_nothing_of_root_s() {
    if crate::harness::require_root() {
        nothing_of_listend_reaches_a_worker(&[], Some(NOBODY), "    user: 65534");
    }
}

// systemd.exec(5), AmbientCapabilities=: listend may have been given some for itself.
#[test]
fn what_an_unprivileged_listend_may_do_its_worker_may_not() {
    if crate::harness::require_root() {
        let privileges = [
            "--reuid=65534",
            "--regid=65534",
            "--groups=65534",
            "--inh-caps=+net_bind_service",
            "--ambient-caps=+net_bind_service",
            "--no-new-privs",
        ];
        nothing_of_listend_reaches_a_worker(&privileges, Some(NOBODY), "");
        // These share listend's memory until they execute their program.
        let lines = "    activation: per-connection";
        nothing_of_listend_reaches_a_worker(&privileges, Some(NOBODY), lines);
    }
}

// capabilities(7): with SECBIT_NO_SETUID_FIXUP a change of user leaves the capabilities alone.
#[test]
fn a_change_of_user_clears_capabilities_where_the_kernel_would_not() {
    if crate::harness::require_root() {
        let privileges = [
            "--securebits=+no_setuid_fixup",
            "--inh-caps=+net_bind_service,+sys_ptrace",
            "--ambient-caps=+net_bind_service,+sys_ptrace",
        ];
        nothing_of_listend_reaches_a_worker(&privileges, Some(NOBODY), "    user: 65534");
    }
}

#[test]
fn a_worker_as_root_has_a_keyring_of_its_own_and_no_inheritable_capability() {
    if crate::harness::require_root() {
        let privileges = ["--inh-caps=+net_bind_service"];
        nothing_of_listend_reaches_a_worker(&privileges, None, "");
        let lines = "    activation: per-connection";
        nothing_of_listend_reaches_a_worker(&privileges, None, lines);
    }
}

// --- `runtime_directory` -----------------------------------------------------------------------

/// A folder in /run that no other test has; what is left of it goes at the end.
struct Run(PathBuf);

impl Run {
    fn new(name: &str) -> Run {
        Run(PathBuf::from(format!(
            "/run/listend-test-{}-{name}",
            std::process::id()
        )))
    }

    fn name(&self) -> &str {
        self.0
            .file_name()
            .and_then(|name| name.to_str())
            .expect("UTF-8")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Its owner, group and permission bits.
fn rights(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

/// Nothing is left in a folder, under whatever name.
fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}

#[test]
fn a_runtime_directory_is_there_while_its_worker_is_and_no_longer() {
    if !crate::harness::require_root() {
        return;
    }
    let outer = Run::new("life");
    let folder = outer.0.join("app");
    let world = World::new();
    let probe = crate::harness::public_probe(&world);
    let daemon = run(
        &world,
        &format!(
            "
workers:
  app:
    command: [{}, puppet, $EVENTS, '{{runtime_dir}}/x']
    working_directory: '{{runtime_dir}}'
    user: 65534
    runtime_directory: {}/app
    restart: {{ backoff: 1ms..1ms }}
    before_start: [/bin/sh, -c, 'touch \"$RUNTIME_DIRECTORY/prepared\"']
    silence: no-listeners
",
            probe.display(),
            outer.name()
        ),
    );
    let mut puppet = world.puppet();
    let path = folder.to_str().expect("UTF-8");
    assert_eq!(puppet.report.env["RUNTIME_DIRECTORY"], path);
    assert_eq!(puppet.report.argv[3], format!("{path}/x"));
    assert_eq!(puppet.report.cwd, path);
    assert_eq!(rights(&folder), (NOBODY, NOBODY, 0o755));
    assert_eq!(rights(&outer.0), (0, 0, 0o755));
    assert_eq!(rights(&folder.join("prepared")).0, NOBODY);

    // What a link leads to is not the worker's.
    fs::create_dir(world.path("precious")).expect("mkdir");
    world.write("precious/file", "precious");
    fs::create_dir_all(folder.join("a/b/c")).expect("mkdir");
    symlink(world.path("precious"), folder.join("a/link")).expect("symlink");
    let inode = fs::metadata(&folder).expect("stat").ino();
    puppet.tell("exit 3");
    let _again = world.puppet();
    assert_eq!(fs::metadata(&folder).expect("stat").ino(), inode);
    assert!(folder.join("a/link").exists());

    ask(&world, "stop app").expect_code(0);
    eventually("it is gone", || is_empty(&outer.0));
    ask(&world, "start app").expect_code(0);
    let _third = world.puppet();
    assert_eq!(rights(&folder), (NOBODY, NOBODY, 0o755));
    assert!(!folder.join("a").exists());

    // At the end it goes before listend does.
    symlink(world.path("precious"), folder.join("link")).expect("symlink");
    daemon.stop();
    assert!(is_empty(&outer.0));
    assert!(world.path("precious/file").exists());
}

#[test]
fn a_worker_that_a_reload_takes_away_takes_its_runtime_directory_along() {
    if !crate::harness::require_root() {
        return;
    }
    let outer = Run::new("reload");
    let world = World::new();
    let line = |name: &str| {
        format!(
            "  {name}: {{ command: [$PROBE, puppet, $EVENTS], runtime_directory: {}/{name}, \
             activation: eager, instances: 2 }}\n",
            outer.name()
        )
    };
    let both = format!("workers:\n{}{}", line("one"), line("two"));
    let daemon = run(&world, &both);
    let _puppets = world.puppets(4);
    assert!(outer.0.join("one").is_dir() && outer.0.join("two").is_dir());
    reload(&world, &format!("workers:\n{}", line("one")));
    eventually("that of the other is gone", || {
        !outer.0.join("two").exists()
    });
    assert!(outer.0.join("one").is_dir());
    daemon.stop();
    assert!(is_empty(&outer.0));
}

/// Runs `app` by a listend without privileges whose XDG_RUNTIME_DIR is `$DIR/run`, until `see` has seen
/// enough. The path of its runtime directory, which is what `prepare` is given, too.
fn unprivileged(
    world: &World,
    lines: &str,
    prepare: impl FnOnce(&Path),
    see: impl FnOnce(&Path),
) -> PathBuf {
    let probe = crate::harness::public_probe(world);
    let yaml = format!(
        "
workers:
  app:
    command: [{}, puppet, $EVENTS]
    runtime_directory: app
    silence: no-listeners
{lines}",
        probe.display()
    );
    let folder = world.path("run");
    fs::create_dir(&folder).expect("mkdir");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("chmod");
    let app = folder.join("app");
    prepare(&app);
    let listend = world.path("listend");
    let copied = std::process::Command::new("cp")
        .arg(crate::harness::listend_path())
        .arg(&listend)
        .status();
    assert!(copied.expect("start cp").success());
    let daemon = world.run_with(&yaml, |start| {
        start.env("XDG_RUNTIME_DIR", "$DIR/run");
        if crate::harness::is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY)).expect("chown");
            let words = "setpriv --reuid=65534 --regid=65534 --clear-groups /bin/sh -c";
            let exec = "exec $DIR/listend \"$@\"";
            start.through(words.split(' ').chain([exec]));
        }
    });
    see(&app);
    daemon.stop();
    app
}

#[test]
fn without_root_a_runtime_directory_is_in_that_of_the_user() {
    let world = World::new();
    let lines = "    runtime_directory_mode: 0700";
    let app = unprivileged(
        &world,
        lines,
        |_| {},
        |app| {
            let report = world.puppet().report;
            assert_eq!(
                report.env["RUNTIME_DIRECTORY"],
                app.to_str().expect("UTF-8")
            );
            assert_eq!(rights(app).2, 0o700);
        },
    );
    assert!(!app.exists());
}

#[test]
fn a_runtime_directory_that_is_preserved_stays() {
    let world = World::new();
    let lines = "    runtime_directory_preserve: true";
    let app = unprivileged(&world, lines, |_| {}, |_| drop(world.puppet()));
    assert!(app.is_dir());
}

#[test]
fn a_runtime_directory_that_was_there_before_stays_with_all_that_is_in_it() {
    let world = World::new();
    let make = |app: &Path| {
        fs::create_dir(app).expect("mkdir");
        fs::write(app.join("file"), "").expect("write");
        if crate::harness::is_root() {
            chown(app, Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    };
    let app = unprivileged(&world, "", make, |_| drop(world.puppet()));
    assert!(app.join("file").exists());
}

#[test]
fn what_is_not_the_workers_own_is_never_its_runtime_directory() {
    if !crate::harness::require_root() {
        return;
    }
    let outer = Run::new("foreign");
    let world = World::new();
    fs::create_dir_all(outer.0.join("others")).expect("mkdir");
    fs::create_dir(outer.0.join("open")).expect("mkdir");
    let everybody = fs::Permissions::from_mode(0o777);
    fs::set_permissions(outer.0.join("open"), everybody).expect("chmod");
    fs::create_dir(world.path("precious")).expect("mkdir");
    symlink(world.path("precious"), outer.0.join("link")).expect("symlink");
    symlink(world.path("precious"), outer.0.join("other-link")).expect("symlink");
    fs::write(outer.0.join("file"), "").expect("write");
    let mut yaml = "workers:\n".to_owned();
    let cases = [
        ("others", "others", "belongs to uid 0"),
        ("in-open", "open/app", "other users can change"),
        ("link", "link", "ENOTDIR"),
        ("through-link", "other-link/app", "ENOTDIR"),
        ("file", "file", "ENOTDIR"),
    ];
    for (name, path, _) in cases {
        yaml += &format!(
            "  {name}: {{ command: [/bin/true], user: 65534, runtime_directory: {}/{path}, \
             restart: never, silence: no-listeners }}\n",
            outer.name()
        );
    }
    let daemon = world.run(&yaml);
    for (name, _, why) in cases {
        let line = daemon.line(&[&format!("{name}.0"), "creating the runtime directory"]);
        assert!(line.contains(why), "{line}");
    }
    daemon.stop();
    assert_eq!(rights(&outer.0.join("others")).0, 0);
    assert_eq!(rights(&world.path("precious")).0, rights(world.dir()).0);
    assert!(is_empty(&outer.0.join("open")) && is_empty(&world.path("precious")));
}

#[test]
fn a_runtime_directory_is_a_name_below_run_and_one_workers_own() {
    let world = World::new();
    let errors = |lines: &str| {
        let yaml = format!("workers:\n{lines}\n");
        let json = world
            .check(&yaml, &["--json", "--no-bind"])
            .expect_code(78)
            .json();
        let errors = json["errors"].as_array().expect("a list").clone();
        assert_eq!(errors.len(), 1, "{json:#}");
        errors[0]["message"].as_str().expect("text").to_owned()
    };
    for path in ["''", "/run/app", "..", "a/../b", "../a", "."] {
        let line = format!("  a: {{ command: [x], runtime_directory: {path} }}");
        assert!(errors(&line).contains("is not a path below /run"), "{path}");
    }
    for line in [
        "command: [x, '{runtime_dir}']",
        "command: [x], argv0: '{runtime_dir}'",
        "command: [x], output: 'file:{runtime_dir}/log'",
        "command: [x], environment: { A: '{runtime_dir}' }",
        "command: [x], before_start: [x, '{runtime_dir}']",
    ] {
        let message = errors(&format!("  a: {{ {line} }}"));
        assert!(message.contains("`{runtime_dir}`"), "{line}: {message}");
    }
    let line = "  a: { command: [x], runtime_directory_mode: 0700 }";
    assert!(errors(line).contains("`runtime_directory_mode` without"));
    for (one, other) in [("x", "x"), ("x", "x/y"), ("x/y/z", "x")] {
        let lines = format!(
            "  a: {{ command: [x], runtime_directory: {one} }}\n  \
             b: {{ command: [x], runtime_directory: {other} }}\n  \
             c: {{ command: [x], runtime_directory: x-y }}"
        );
        assert!(errors(&lines).contains("or is in it"), "{lines}");
    }
}
