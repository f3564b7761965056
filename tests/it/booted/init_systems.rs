//! listend where there is no systemd: as a service of OpenRC, which has booted the machine, of runit
//! and of s6, which have not, by the scripts that `make install-openrc` and its kind install.

use crate::harness::container::{Container, boot_openrc, start_without_init};
use crate::harness::eventually;
use crate::harness::package::{answers, installed_without_systemd};
use std::process::Stdio;

const CONFIG: &str = "/etc/listend/listend.yaml";
const ADDRESS: &str = "127.0.0.1:20000";

const SERVES: &str = "
listeners: { web: '127.0.0.1:20000' }
workers: { app: { command: [/opt/probe, serve], listeners: [web], instances: 2 } }
";
/// Nobody has this address.
const CANNOT_BIND: &str = "
listeners: { web: '192.0.2.7:20000', other: '192.0.2.8:20000' }
workers: { app: { command: [/opt/probe, serve], listeners: [web, other] } }
";

/// What a command says, on both outputs, and whether it succeeded.
fn ask<'a>(container: &Container, words: impl IntoIterator<Item = &'a str>) -> (bool, String) {
    let output = container.output(words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (output.status.success(), said)
}

/// How many processes of listend and its workers there are.
fn running(container: &Container) -> usize {
    let found = container.output(["pgrep", "--exact", "listend|probe"]);
    String::from_utf8_lossy(&found.stdout).lines().count()
}

/// A supervisor that goes on in the container, and ends with it.
fn supervise(container: &Container, words: &[&str]) {
    let mut command = container.command(words.iter().copied());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let supervisor = command.spawn().expect("start nsenter");
    // It is killed with its PID namespace, and reaped by whoever gets it then.
    drop(supervisor);
}

#[test]
fn openrc_starts_checks_and_stops_it() {
    let Some(container) = installed_without_systemd(boot_openrc) else {
        return;
    };
    container.write(CONFIG, SERVES);
    container.run(["rc-update", "add", "listend", "default"]);
    // As a boot does it: what is in the runlevel and not started is started.
    container.run(["openrc", "default"]);
    answers(&container, ADDRESS);
    container.run(["rc-service", "listend", "status"]);
    container.run(["rc-service", "listend", "checkconfig"]);
    let status = container.run(["listend", "status"]);
    assert!(status.contains(ADDRESS), "{status}");
    // The guard, the daemon and both instances, and no process that was forked for a moment.
    eventually("two workers run", || running(&container) == 4);

    // A mistake is told before anything is stopped or started.
    container.write(
        CONFIG,
        &SERVES.replace("listeners: [web]", "listeners: [wep]"),
    );
    let (is_good, said) = ask(&container, ["rc-service", "listend", "checkconfig"]);
    assert!(!is_good && said.contains("wep"), "{said}");

    container.run(["rc-service", "listend", "stop"]);
    assert_eq!(running(&container), 0, "workers are stopped too");

    container.write(CONFIG, CANNOT_BIND);
    let (has_started, said) = ask(&container, ["rc-service", "listend", "start"]);
    assert!(!has_started);
    for address in ["192.0.2.7:20000", "192.0.2.8:20000"] {
        let wanted = format!("to {address}: cannot assign requested address");
        assert!(said.contains(&wanted), "{said}");
    }
    assert_eq!(running(&container), 0);
}

#[test]
fn openrc_reloads_it() {
    let Some(container) = installed_without_systemd(boot_openrc) else {
        return;
    };
    container.write(CONFIG, SERVES);
    container.run(["rc-service", "listend", "start"]);
    answers(&container, ADDRESS);
    let more = SERVES.replace(
        "'127.0.0.1:20000'",
        "['127.0.0.1:20000', '127.0.0.1:20001']",
    );
    container.write(CONFIG, &more);
    let (has_reloaded, said) = ask(&container, ["rc-service", "listend", "reload"]);
    assert!(has_reloaded, "{said}");
    answers(&container, "127.0.0.1:20001");
    container.write(
        CONFIG,
        &SERVES.replace("listeners: [web]", "listeners: [wep]"),
    );
    let (has_reloaded, said) = ask(&container, ["rc-service", "listend", "reload"]);
    assert!(!has_reloaded && said.contains("wep"), "{said}");
    answers(&container, "127.0.0.1:20001");
}

#[test]
fn openrc_runs_a_second_one_by_another_name() {
    let Some(container) = installed_without_systemd(boot_openrc) else {
        return;
    };
    container.run(["ln", "-s", "listend", "/etc/init.d/listend.web"]);
    container.write("/etc/listend/web.yaml", SERVES);
    container.run(["rc-service", "listend", "start"]);
    container.run(["rc-service", "listend.web", "start"]);
    answers(&container, ADDRESS);
    container.run([
        "listend",
        "status",
        "--control",
        "/run/listend@web/control.sock",
    ]);
    container.run(["rc-service", "listend", "stop"]);
    answers(&container, ADDRESS);
}

#[test]
fn runit_restarts_it_but_not_where_that_is_no_use() {
    let Some(container) = installed_without_systemd(start_without_init) else {
        return;
    };
    container.write(CONFIG, SERVES);
    supervise(&container, &["runsv", "/etc/sv/listend"]);
    answers(&container, ADDRESS);
    let sv = |word: &'static str| ask(&container, ["sv", word, "/etc/sv/listend"]).1;
    assert!(sv("status").starts_with("run:"), "{}", sv("status"));
    // It stops its workers itself.
    sv("down");
    eventually("it is down", || sv("status").starts_with("down:"));
    assert_eq!(running(&container), 0);

    container.write(CONFIG, "workers: nonsense\n");
    sv("up");
    // Once, and then it is to stay down until somebody says otherwise.
    eventually("it has given up", || {
        let status = sv("status");
        status.starts_with("down:") && !status.contains("want up")
    });
    container.write(CONFIG, SERVES);
    sv("up");
    answers(&container, ADDRESS);
}

#[test]
fn s6_restarts_it_but_not_where_that_is_no_use() {
    let Some(container) = installed_without_systemd(start_without_init) else {
        return;
    };
    let service = "/etc/s6/sv/listend";
    container.write(CONFIG, SERVES);
    supervise(&container, &["s6-supervise", service]);
    answers(&container, ADDRESS);
    let svc = |flag: &'static str| container.run(["s6-svc", flag, service]);
    let status = || container.run(["s6-svstat", service]);
    // s6-svwait is told of it; -D is down, and ./finish done.
    svc("-d");
    container.run(["s6-svwait", "-D", "-t", "15000", service]);
    assert_eq!(running(&container), 0);

    container.write(CONFIG, "workers: nonsense\n");
    svc("-u");
    eventually("it has given up", || {
        let status = status();
        status.starts_with("down (exitcode 78)") && !status.contains("want up")
    });
    container.write(CONFIG, SERVES);
    svc("-u");
    answers(&container, ADDRESS);
}
