//! What a worker has of the process that listend was: every field of its status, its limits, keyring
//! and descriptors, and why each is as it is.

mod harness;

use harness::{Report, World, client};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;

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
            None if harness::is_root() => Inherited,
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
    let Some(setpriv) = harness::require_tool("setpriv") else {
        return;
    };
    let world = World::new();
    let probe = harness::public_probe(&world);
    let probe = probe.to_str().expect("UTF-8");
    // listend may run as somebody who cannot enter the folder of the build.
    let listend = world.path("listend");
    let copied = std::process::Command::new("cp")
        .arg(harness::listend_path())
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
    std::os::unix::fs::chown(world.dir(), Some(65_534), None).expect("chown");
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

/// The limit that listend was started with.
fn own_open_files() -> [Option<u64>; 2] {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    [Some(soft), Some(hard)]
}

const NOBODY: u32 = 65_534;

#[test]
fn a_worker_of_another_user_has_nothing_of_root_s() {
    if harness::require_root() {
        nothing_of_listend_reaches_a_worker(&[], Some(NOBODY), "    user: 65534");
    }
}

// systemd.exec(5), AmbientCapabilities=: listend may have been given some for itself.
#[test]
fn what_an_unprivileged_listend_may_do_its_worker_may_not() {
    if harness::require_root() {
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
    if harness::require_root() {
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
    if harness::require_root() {
        let privileges = ["--inh-caps=+net_bind_service"];
        nothing_of_listend_reaches_a_worker(&privileges, None, "");
        let lines = "    activation: per-connection";
        nothing_of_listend_reaches_a_worker(&privileges, None, lines);
    }
}
