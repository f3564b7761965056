//! Keys of `sandbox:`, and the settings of a unit that have their names: the same probe in both, which tries what
//! they are about.

use crate::harness::container::{self, Container};
use crate::harness::eventually;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A name, lines of `[Service]`, and keys of `sandbox:`.
type Case = (&'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    ("nothing", "", ""),
    (
        "no-new-privileges",
        "NoNewPrivileges=yes",
        "no_new_privileges: true",
    ),
    ("network", "PrivateNetwork=yes", "private_network: true"),
    ("tmp", "PrivateTmp=yes", "private_tmp: true"),
    ("devices", "PrivateDevices=yes", "private_devices: true"),
    ("ipc", "PrivateIPC=yes", "private_ipc: true"),
    ("system", "ProtectSystem=yes", "protect_system: true"),
    ("system-full", "ProtectSystem=full", "protect_system: full"),
    (
        "system-strict",
        "ProtectSystem=strict",
        "protect_system: strict",
    ),
    (
        "system-but",
        "ProtectSystem=strict\nReadWritePaths=/srv/one -/srv/none",
        "protect_system: strict, read_write_paths: [/srv/one, -/srv/none]",
    ),
    ("home", "ProtectHome=yes", "protect_home: true"),
    (
        "home-read",
        "ProtectHome=read-only",
        "protect_home: read-only",
    ),
    ("home-tmpfs", "ProtectHome=tmpfs", "protect_home: tmpfs"),
    (
        "tunables",
        "ProtectKernelTunables=yes",
        "protect_kernel_tunables: true",
    ),
    (
        "modules",
        "ProtectKernelModules=yes",
        "protect_kernel_modules: true",
    ),
    ("logs", "ProtectKernelLogs=yes", "protect_kernel_logs: true"),
    ("clock", "ProtectClock=yes", "protect_clock: true"),
    (
        "cgroups",
        "ProtectControlGroups=yes",
        "protect_control_groups: true",
    ),
    ("hostname", "ProtectHostname=yes", "protect_hostname: true"),
    (
        "proc-noaccess",
        "ProtectProc=noaccess",
        "protect_proc: noaccess",
    ),
    (
        "proc-invisible",
        "ProtectProc=invisible",
        "protect_proc: invisible",
    ),
    (
        "proc-ptraceable",
        "ProtectProc=ptraceable",
        "protect_proc: ptraceable",
    ),
    (
        "namespaces",
        "RestrictNamespaces=yes",
        "restrict_namespaces: true",
    ),
    (
        "realtime",
        "RestrictRealtime=yes",
        "restrict_realtime: true",
    ),
    ("suid", "RestrictSUIDSGID=yes", "restrict_suid_sgid: true"),
    (
        "personality",
        "LockPersonality=yes",
        "lock_personality: true",
    ),
    (
        "execute",
        "MemoryDenyWriteExecute=yes",
        "memory_deny_write_execute: true",
    ),
    (
        "capabilities",
        "CapabilityBoundingSet=CAP_CHOWN CAP_KILL",
        "capabilities: [CAP_CHOWN, CAP_KILL]",
    ),
    (
        "no-capabilities",
        "CapabilityBoundingSet=",
        "capabilities: []",
    ),
    (
        "read-only",
        "ReadOnlyPaths=/srv/one",
        "read_only_paths: [/srv/one]",
    ),
    (
        "nested",
        "ReadOnlyPaths=/srv\nReadWritePaths=/srv/one\nInaccessiblePaths=/srv/two /etc/passwd",
        "read_only_paths: [/srv], read_write_paths: [/srv/one], inaccessible_paths: [/srv/two, /etc/passwd]",
    ),
    (
        "families",
        "RestrictAddressFamilies=AF_UNIX AF_INET",
        "restrict_address_families: [AF_UNIX, AF_INET]",
    ),
    (
        "other-families",
        "RestrictAddressFamilies=~AF_INET6 AF_PACKET",
        "restrict_address_families: [~AF_INET6, ~AF_PACKET]",
    ),
    (
        "calls",
        "SystemCallFilter=@system-service\nSystemCallFilter=~@keyring @resources\nSystemCallErrorNumber=EPERM",
        "system_calls: ['@system-service', '~@keyring', '~@resources']",
    ),
    (
        "other-calls",
        "SystemCallFilter=~@mount @clock @ipc\nSystemCallErrorNumber=EPERM",
        "system_calls: ['~@mount', '~@clock', '~@ipc']",
    ),
];

/// Where listend does another thing, and docs/sandbox.md says so: a case, the beginning of an attempt, what becomes of
/// it below systemd and below listend. `*` is any.
const DIFFERENT: &[(&str, &str, &str, &str)] = &[
    // Who installs the filter is the worker's user.
    ("*", "NoNewPrivs", "0", "1"),
    // As systemd.exec(5) has it.
    ("system-strict", "write in /home", "*", "EROFS"),
    ("system-strict", "write in /root", "*", "EROFS"),
    ("system-strict", "write in /run/user", "*", "EROFS"),
    ("system-but", "write in /home", "*", "EROFS"),
    ("system-but", "write in /root", "*", "EROFS"),
    ("system-but", "write in /run/user", "*", "EROFS"),
    // Landlock, where the kernel has it, refuses before anything is sent.
    ("network", "connect to a server", "ECONNREFUSED", "EACCES"),
    // An empty file that root may open, and a device that nobody may.
    ("tunables", "open /proc/k", "*", "EACCES"),
    ("nested", "open /etc/passwd", "*", "EACCES"),
    // What it is told is in memory, where a filter cannot look.
    ("realtime", "sched_setattr", "yes", "EPERM"),
    // No filter sees what it is told to do.
    ("suid", "use io_uring", "yes", "EPERM"),
    ("families", "use io_uring", "yes", "EPERM"),
    ("other-families", "use io_uring", "yes", "EPERM"),
    ("calls", "use io_uring", "yes", "EPERM"),
    ("other-calls", "use io_uring", "yes", "EPERM"),
    // Refused by the filter, and not by prctl(2) with PR_SET_MDWE.
    ("execute", "make memory executable", "EACCES", "EPERM"),
    ("execute", "map memory to write", "EACCES", "EPERM"),
];

/// What a process could do, by attempt.
type Found = BTreeMap<String, String>;

const USERS: [(&str, &str, &str); 2] = [
    ("root", "", ""),
    (
        "nobody",
        "User=nobody\nGroup=nogroup\n",
        "user: nobody, group: nogroup, ",
    ),
];

/// Namespaces of all that have none of their own, and folders of the test.
fn words(container: &Container) -> Vec<String> {
    let kinds = ["ipc", "net", "uts", "user"];
    let spaces = kinds.map(|kind| {
        let space = std::fs::read_link(format!("/proc/{}/ns/{kind}", container.leader()));
        space
            .expect("a namespace")
            .to_str()
            .expect("UTF-8")
            .to_owned()
    });
    let folders = ["/srv/one", "/srv/two"].map(str::to_owned);
    spaces.into_iter().chain(folders).collect()
}

fn prepare(container: &Container) {
    for folder in [
        "/srv/one",
        "/srv/two",
        "/home",
        "/root",
        "/tmp",
        "/var/tmp",
        "/run/user",
    ] {
        container.write(&format!("{folder}/mark"), "mark");
    }
    container.run(["chmod", "0777", "/srv/one", "/srv/two", "/srv"]);
    container.run(["mkdir", "/run/out"]);
}

fn name((case, _, _): &Case, user: &str) -> String {
    format!("{user}-{case}")
}

fn start_units(container: &Container, words: &str) {
    let mut units = Vec::new();
    for case in CASES {
        for (user, lines, _) in USERS {
            let name = name(case, user);
            let service = format!(
                "[Service]\n{lines}{}\nExecStart=/opt/probe limits {words}\n\
                 StandardOutput=truncate:/run/out/systemd-{name}\n",
                case.1
            );
            container.write(
                &format!("/run/systemd/system/limits-{name}.service"),
                &service,
            );
            units.push(format!("limits-{name}"));
        }
    }
    container.run(["systemctl", "daemon-reload"]);
    let start = ["systemctl", "start"].into_iter();
    container.run(start.chain(units.iter().map(String::as_str)));
}

fn start_workers(container: &Container, words: &str) {
    let mut yaml = "silence: [no-listeners]\n\
        listeners: { web: '127.0.0.1:20099', name: 'unix:@limits' }\n\
        workers:\n  app: { command: [/opt/probe, serve], listeners: [web, name] }\n"
        .to_owned();
    for case in CASES {
        for (user, _, keys) in USERS {
            let name = name(case, user);
            let sandbox = match case.2 {
                "" => String::new(),
                sandbox => format!(", sandbox: {{ {sandbox} }}"),
            };
            let _ = writeln!(
                yaml,
                "  {name}: {{ command: [/opt/probe, limits, {words}], {keys}restart: never, \
                 output: 'file:/run/out/listend-{name}'{sandbox} }}"
            );
        }
    }
    container.write("/run/test/listend.yaml", &yaml);
    container.write(
        "/run/systemd/system/listend.service",
        "[Service]\nType=notify\nExecStart=/opt/listend run -c /run/test/listend.yaml\n",
    );
    container.run(["systemctl", "daemon-reload"]);
    let started = container.output(["systemctl", "start", "listend.service"]);
    assert!(
        started.status.success(),
        "{}",
        container.journal("listend.service")
    );
}

/// Waits for what a process says.
#[track_caller]
fn found(container: &Container, name: &str, unit: &str) -> Found {
    let path = format!("/run/out/{name}");
    eventually("it has tried everything", || {
        let text = container.read(&path);
        let is_done = text.is_some_and(|text| text.ends_with("done\n"));
        if !is_done {
            let journal = container.journal(unit);
            assert!(!journal.contains("failed while"), "{name}: {journal}");
        }
        is_done
    });
    let text = container.read(&path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .map(|(what, outcome)| (what.to_owned(), outcome.to_owned()))
        .collect()
}

fn is_known(case: &str, what: &str, systemd: &str, listend: &str) -> bool {
    let fits = |pattern: &str, text: &str| pattern == "*" || pattern == text;
    DIFFERENT.iter().any(|(of, attempt, theirs, ours)| {
        fits(of, case) && what.starts_with(attempt) && fits(theirs, systemd) && fits(ours, listend)
    })
}

#[test]
fn each_key_of_a_sandbox_stops_what_its_setting_of_systemd_stops() {
    let Some(container) = container::boot_with_listend() else {
        return;
    };
    prepare(&container);
    let words = words(&container);
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    start_workers(&container, &quoted.join(", "));
    start_units(&container, &words.join(" "));
    let mut different = String::new();
    for case in CASES {
        for (user, _, _) in USERS {
            let name = name(case, user);
            let systemd = found(
                &container,
                &format!("systemd-{name}"),
                &format!("limits-{name}"),
            );
            let listend = found(&container, &format!("listend-{name}"), "listend.service");
            assert!(systemd.len() > 100, "{name}: {systemd:?}");
            assert!(
                systemd.keys().eq(listend.keys()),
                "{name}: {systemd:?} {listend:?}"
            );
            for ((what, theirs), ours) in systemd.iter().zip(listend.values()) {
                if theirs != ours && !is_known(case.0, what, theirs, ours) {
                    let _ = writeln!(
                        different,
                        "{name}: {what}: systemd {theirs}, listend {ours}"
                    );
                }
            }
        }
    }
    assert!(different.is_empty(), "\n{different}");
}
