//! The other ways in which systemd runs listend: several of them, of a user, with sockets from
//! systemd, and with less and less that it may do.

use crate::harness::container::Container;
use crate::harness::package::{answers, installed, property};
use crate::harness::{Report, eventually};
use std::process::Output;

const UNIT: &str = "listend.service";
const CONFIG: &str = "/etc/listend/listend.yaml";
/// Where the package has what somebody may want to copy.
const EXAMPLES: &str = "/usr/share/listend";

#[track_caller]
fn restart(container: &Container, unit: &str) {
    let restarted = container.output(["systemctl", "restart", unit]);
    assert!(restarted.status.success(), "{}", container.journal(unit));
}

/// The report of a worker at an address.
#[track_caller]
fn report(container: &Container, address: &str) -> Report {
    serde_json::from_str(&answers(container, address)).expect("a report")
}

/// The number of a user inside.
fn uid(container: &Container, user: &str) -> u32 {
    let said = container.run(["id", "--user", user]);
    said.trim().parse().expect("a number")
}

/// The control group of a process inside.
#[track_caller]
fn group_of(container: &Container, pid: &str) -> String {
    let groups = container.run(["cat", &format!("/proc/{pid}/cgroup")]);
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    own.expect("a group of version 2").to_owned()
}

/// Changes a unit.
fn drop_in(container: &Container, unit: &str, text: &str) {
    container.write(&format!("/etc/systemd/system/{unit}.d/test.conf"), text);
    container.run(["systemctl", "daemon-reload"]);
}

/// Copies some of the drop-ins that the package has, as they say.
fn install_drop_ins(container: &Container, names: &[&str]) {
    for name in names {
        let to = format!("/etc/systemd/system/{UNIT}.d/{name}");
        container.run(["install", "-D", &format!("{EXAMPLES}/{name}"), &to]);
    }
    container.run(["systemctl", "daemon-reload"]);
}

/// Fails above these tenths of systemd-analyze(1).
#[track_caller]
fn is_exposed_at_most(container: &Container, most: &str) {
    let words = ["systemd-analyze", "security", "--no-pager", UNIT];
    let threshold = format!("--threshold={most}");
    container.run(words.into_iter().chain([threshold.as_str()]));
}

/// The same with a worker that does not die with its parent, as a probe does.
fn serves_and_sleeps_at(address: &str, more: &str) -> String {
    let sleeper = "workers: { sleeper: { command: [sleep, '1000'] },";
    serves_at(address, more).replace("workers: {", sleeper)
}

fn serves_at(address: &str, more: &str) -> String {
    format!(
        "listeners: {{ web: '{address}' }}\n\
         workers: {{ app: {{ command: [/opt/probe, serve], listeners: [web]{more} }} }}\n"
    )
}

#[test]
fn instances_are_daemons_of_their_own() {
    let Some(container) = installed() else {
        return;
    };
    let places = [("one", "127.0.0.1:20001"), ("two", "127.0.0.1:20002")];
    for (name, address) in places {
        container.write(
            &format!("/etc/listend/{name}.yaml"),
            &serves_at(address, ""),
        );
        restart(&container, &format!("listend@{name}"));
        answers(&container, address);
        let control = format!("/run/listend@{name}/control.sock");
        let status = container.run(["listend", "status", "--control", &control]);
        assert!(status.contains(address), "{status}");
    }
    let (one, two) = ("listend@one.service", "listend@two.service");
    let before = property(&container, two, "MainPID");
    container.run(["systemctl", "stop", one]);
    assert_eq!(container.read("/run/listend@one/control.sock"), None);
    assert!(!container.path("/run/listend@one").exists());
    answers(&container, "127.0.0.1:20002");
    container.run([
        "listend",
        "status",
        "--control",
        "/run/listend@two/control.sock",
    ]);
    assert_eq!(property(&container, two, "MainPID"), before);
    // Neither is the system's own.
    container.run(["listend", "status"]);
}

/// A user with a service manager of their own, which runs the unit for users.
struct User<'c> {
    container: &'c Container,
    number: u32,
}

impl<'c> User<'c> {
    /// They have this configuration, and linger: their manager runs though they are not logged in.
    fn with(container: &'c Container, yaml: &str) -> User<'c> {
        container.run(["useradd", "--create-home", "somebody"]);
        let number = uid(container, "somebody");
        let user = User { container, number };
        user.write(".config/listend/listend.yaml", yaml);
        // What pam_systemd does where it is installed.
        drop_in(
            container,
            "user@.service",
            "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n",
        );
        // Of its clients, logind knows only those in the tree of groups of the container.
        let words = [
            "systemd-run",
            "--wait",
            "--quiet",
            "loginctl",
            "enable-linger",
            "somebody",
        ];
        container.run(words);
        container.run(["systemctl", "start", &user.manager()]);
        user
    }

    fn manager(&self) -> String {
        format!("user@{}.service", self.number)
    }

    /// Writes a file in their home.
    fn write(&self, path: &str, text: &str) {
        let home = "/home/somebody";
        self.container.write(&format!("{home}/{path}"), text);
        self.container
            .run(["chown", "--recursive", "somebody:", home]);
    }

    /// Runs a command as they do.
    #[track_caller]
    fn output(&self, words: &[&str]) -> Output {
        let runtime = format!("XDG_RUNTIME_DIR=/run/user/{}", self.number);
        let user = ["setpriv", "--reuid", "somebody", "--regid", "somebody"];
        let env = ["--clear-groups", "env", &runtime, "HOME=/home/somebody"];
        let words = user.into_iter().chain(env).chain(words.iter().copied());
        self.container.output(words)
    }

    /// The same with one that has to succeed; what it says.
    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        let output = self.output(words);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let journal = || self.container.journal(&self.manager());
        assert!(output.status.success(), "{output:?} {}", journal());
        said
    }

    /// A property of their listend's unit.
    #[track_caller]
    fn property(&self, name: &str) -> String {
        let said = self.run(&["systemctl", "--user", "show", "-P", name, UNIT]);
        said.trim().to_owned()
    }
}

#[test]
fn a_user_has_one_of_their_own() {
    let Some(container) = installed() else {
        return;
    };
    let user = User::with(&container, &serves_and_sleeps_at("127.0.0.1:20000", ""));
    user.run(&["systemctl", "--user", "enable", "--now", UNIT]);
    assert_eq!(report(&container, "127.0.0.1:20000").uids[0], user.number);
    let survivor = container.run(["pgrep", "--exact", "sleep"]);
    let main = user.property("MainPID");
    container.run(["kill", "-KILL", &main]);
    eventually("another listend goes on", || {
        user.property("MainPID") != main && user.property("ActiveState") == "active"
    });
    assert_eq!(container.run(["pgrep", "--exact", "sleep"]), survivor);
    // The probe has died with its parent, and is started again.
    answers(&container, "127.0.0.1:20000");
    // Where a user's clients look anyway.
    let status = user.run(&["listend", "status"]);
    assert!(status.contains("127.0.0.1:20000"), "{status}");
    user.run(&["systemctl", "--user", "stop", UNIT]);
    assert_eq!(user.property("Result"), "success");
}

// As delegate.conf says, in the tree that a user's manager has been given.
#[test]
fn each_process_of_a_user_has_a_group_below_that_of_their_unit() {
    let Some(container) = installed() else {
        return;
    };
    let address = "127.0.0.1:20000";
    // One of its processes leaves the session of its instance.
    let escapes = |limits: &str| {
        let script = "command: [sh, -c, 'setsid sleep 1000 & exec /opt/probe serve']";
        let yaml = serves_at(address, &format!(", sandbox: {{ {limits} }}"));
        yaml.replace("command: [/opt/probe, serve]", script)
    };
    let user = User::with(
        &container,
        &escapes("tasks_max: infinity, memory_max: infinity"),
    );
    let drop_in = container.read(&format!("{EXAMPLES}/delegate.conf"));
    let to = format!(".config/systemd/user/{UNIT}.d/delegate.conf");
    user.write(&to, &drop_in.expect("the drop-in"));
    user.run(&["systemctl", "--user", "daemon-reload"]);
    user.run(&["systemctl", "--user", "start", UNIT]);

    let below = user.property("ControlGroup");
    let is_theirs = below.contains(&format!("/{}/", user.manager()));
    assert!(is_theirs && below.ends_with(UNIT), "{below}");
    // Version 2, alone or beside version 1.
    let mut mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter();
    let unit = mounts.find_map(|mount| {
        let unit = container.path(&format!("{mount}{below}"));
        unit.is_dir().then_some(unit)
    });
    let unit = unit.expect("the group of their unit");
    let is_in = |pid: &str, name: &str| {
        let group = group_of(&container, pid);
        assert!(group.ends_with(&format!("{below}/{name}")), "{group}");
    };
    // It may still be on its way to its program.
    let until_it_is_there = "until pgrep --exact sleep; do :; done";
    let sleeper = || container.run(["timeout", "30", "sh", "-c", until_it_is_there]);
    let is_in_its_own = || {
        let pid = report(&container, address).pid.to_string();
        let name = format!("listend.app.0.{pid}");
        is_in(&pid, &name);
        is_in(sleeper().trim(), &name);
        is_in(&user.property("MainPID"), "listend.daemon");
        (pid, unit.join(name))
    };
    let (pid, group) = is_in_its_own();
    // What is left of an instance is killed with its group, and that is removed.
    let left = sleeper();
    container.run(["kill", "-KILL", &pid]);
    let is_gone = |pid: &str| !container.path(&format!("/proc/{}", pid.trim())).exists();
    eventually("nothing is left of it", || {
        !group.exists() && is_gone(&left)
    });
    let (_, group) = is_in_its_own();
    let left = sleeper();
    user.run(&["systemctl", "--user", "stop", UNIT]);
    assert_eq!(user.property("Result"), "success");
    assert!(!group.exists() && is_gone(&left));

    // A limit holds, or it is said which controller is missing, and why.
    user.write(".config/listend/listend.yaml", &escapes("memory_max: 100M"));
    let above = unit.parent().expect("the tree that they were given");
    let controllers = std::fs::read_to_string(above.join("cgroup.controllers"));
    let controllers = controllers.expect("those of their tree");
    let start = ["systemctl", "--user", "start", UNIT];
    if controllers.split_whitespace().any(|one| one == "memory") {
        user.run(&start);
        let (_, group) = is_in_its_own();
        let most = std::fs::read_to_string(group.join("memory.max"));
        assert_eq!(most.expect("its limit"), "104857600\n");
        return;
    }
    assert!(!user.output(&start).status.success());
    let of_unit = format!("_SYSTEMD_USER_UNIT={UNIT}");
    let journal = container.run(["journalctl", "--no-pager", "-o", "cat", &of_unit]);
    let wanted = "`memory_max` of its sandbox cannot be enforced: ";
    let why = journal.lines().find_map(|line| line.split_once(wanted));
    let (_, why) = why.unwrap_or_else(|| panic!("{journal}"));
    assert!(why.contains("controller `memory`"), "{why}");
    user.write(
        ".config/listend/listend.yaml",
        &escapes("memory_max: 100M, best_effort: true"),
    );
    user.run(&start);
    is_in_its_own();
}

// The example, as its comments say.
#[test]
fn privileged_ports_come_from_systemd_and_stay_open_over_a_restart() {
    let Some(container) = installed() else {
        return;
    };
    container.run(["systemctl", "stop", UNIT]);
    let units = "/etc/systemd/system";
    for (from, to) in [
        ("listend.socket", "listend.socket"),
        ("listend.service.conf", "listend.service.d/socket.conf"),
    ] {
        container.run([
            "install",
            "-D",
            &format!("{EXAMPLES}/{from}"),
            &format!("{units}/{to}"),
        ]);
    }
    let yaml = "
listeners: { web: '0.0.0.0:80', secure: '0.0.0.0:443' }
workers: { app: { command: [/opt/probe, serve], listeners: [web, secure] } }
";
    container.write(CONFIG, yaml);
    container.run(["systemctl", "daemon-reload"]);
    container.run(["systemctl", "enable", "--now", "listend.socket", UNIT]);
    let first = report(&container, "127.0.0.1:80");
    assert_eq!(first.uids[0], uid(&container, "listend"));
    assert_eq!(report(&container, "127.0.0.1:443").pid, first.pid);
    let journal = container.journal(UNIT);
    assert!(
        journal.contains("listener web: adopted 0.0.0.0:80"),
        "{journal}"
    );

    // The queue is systemd's as well, so that a client who comes meanwhile is served afterwards.
    container.run(["systemctl", "stop", UNIT]);
    let mut early = container.command(["/opt/probe", "send", "tcp", "127.0.0.1:80", "?", "15"]);
    let early = early.output().expect("start nsenter");
    assert!(early.status.success(), "{}", container.journal(UNIT));
    // It is this client who had systemd start it.
    assert_ne!(property(&container, UNIT, "ActiveState"), "inactive");
    assert_ne!(report(&container, "127.0.0.1:80").pid, first.pid);
}

#[test]
fn a_worker_of_another_user_lives_in_the_sandbox_of_the_unit() {
    let Some(container) = installed() else {
        return;
    };
    container.run(["useradd", "somebody"]);
    let limits = ", user: somebody, nice: -5, oom_score_adjust: 100, limits: { nofile: 4096 }";
    let yaml = serves_at("127.0.0.1:80", limits).replace(
        "listeners: { web:",
        "listeners: { local: { address: 'unix:/run/app/sock', owner: somebody, mode: 0600 }, web:",
    );
    container.write(
        CONFIG,
        &yaml.replace("listeners: [web]", "listeners: [web, local]"),
    );
    restart(&container, UNIT);
    let report = report(&container, "127.0.0.1:80");
    assert_eq!(report.uids[0], uid(&container, "somebody"));
    let unix = ["/opt/probe", "send", "unix", "/run/app/sock", "?", "5"];
    // It may have been answered and closed before it has sent anything.
    let answers_at_the_path = || container.output(unix).status.success();
    eventually("it answers at the path", answers_at_the_path);
    // What it could do otherwise.
    let status = container
        .read(&format!("/proc/{}/status", report.pid))
        .expect("it lives");
    assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
    container.run(["listend", "restart", "app"]);
    // A holder that is another user's process is still named.
    let explained = container.output(["listend", "explain", "127.0.0.1:80"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("listend"), "{explained}");
    eventually("its successor answers", answers_at_the_path);
}

#[test]
fn a_network_namespace_can_be_entered_in_the_sandbox_of_the_unit() {
    let Some(container) = installed() else {
        return;
    };
    container.run(["ip", "netns", "add", "blue"]);
    container.run(["ip", "-n", "blue", "link", "set", "lo", "up"]);
    let yaml = serves_at("127.0.0.1:20000", "").replace(
        "web: '127.0.0.1:20000'",
        "web: { address: '127.0.0.1:20000', network_namespace: /run/netns/blue }",
    );
    container.write(CONFIG, &yaml);
    restart(&container, UNIT);
    let words = [
        "ip",
        "netns",
        "exec",
        "blue",
        "/opt/probe",
        "send",
        "tcp",
        "127.0.0.1:20000",
        "?",
        "5",
    ];
    eventually("it answers there", || {
        container.output(words).status.success()
    });
}

#[test]
fn hardened_it_serves_on_a_privileged_port_as_nobody_in_particular() {
    let Some(container) = installed() else {
        return;
    };
    install_drop_ins(&container, &["hardened.conf"]);
    is_exposed_at_most(&container, "17");
    let yaml = serves_and_sleeps_at(
        "0.0.0.0:80",
        ", output: file:/var/log/listend/app.log, nice: 15",
    );
    container.write(CONFIG, &yaml);
    restart(&container, UNIT);
    let found = report(&container, "127.0.0.1:80");
    assert_eq!(found.uids[0], uid(&container, "listend"));
    let survivor = container.run(["pgrep", "--exact", "sleep"]);
    let main = property(&container, UNIT, "MainPID");
    another_goes_on(&container, &main, &survivor);
    // The probe has died with its parent, and is started again.
    answers(&container, "127.0.0.1:80");
    // Also who may do everything, over the socket that is where it always is.
    container.run(["listend", "restart", "app"]);
    let status = container.run(["listend", "status"]);
    assert!(status.contains("0.0.0.0:80"), "{status}");
    assert!(container.path("/var/log/listend/app.log").exists());
    // From the package's own again.
    container.run(["rm", &format!("/etc/systemd/system/{UNIT}.d/hardened.conf")]);
    container.run(["systemctl", "daemon-reload"]);
    restart(&container, UNIT);
    assert_eq!(report(&container, "127.0.0.1:80").uids[0], 0);
}

/// Kills listend; the next one goes on, with the process that sleeps.
#[track_caller]
fn another_goes_on(container: &Container, main: &str, survivor: &str) {
    container.run(["kill", "-KILL", main]);
    eventually("another listend goes on", || {
        let now = property(container, UNIT, "MainPID");
        now != main && now != "0" && property(container, UNIT, "ActiveState") == "active"
    });
    assert_eq!(container.run(["pgrep", "--exact", "sleep"]), survivor);
}

// As /usr/share/listend/locked.conf says.
#[test]
fn locked_it_serves_on_a_privileged_port_without_any_privilege() {
    let Some(container) = installed() else {
        return;
    };
    container.run(["systemctl", "stop", UNIT]);
    install_drop_ins(&container, &["hardened.conf", "locked.conf"]);
    let socket = "[Socket]\nListenStream=0.0.0.0:80\n";
    container.write("/etc/systemd/system/listend.socket", socket);
    container.run(["systemctl", "daemon-reload"]);
    let yaml = "
listeners: { web: '0.0.0.0:80', own: 'unix:/run/listend/app.sock' }
workers:
  app: { command: [/opt/probe, serve], listeners: [web, own], limits: { nofile: 2000 } }
  sleeper: { command: [sleep, '1000'] }
";
    container.write(CONFIG, yaml);
    container.run(["systemctl", "start", "listend.socket"]);
    restart(&container, UNIT);
    let found = report(&container, "127.0.0.1:80");
    assert_eq!(found.uids[0], uid(&container, "listend"));
    let survivor = container.run(["pgrep", "--exact", "sleep"]);
    let main = property(&container, UNIT, "MainPID");
    for pid in [main.as_str(), survivor.trim()] {
        let status = container.run(["cat", &format!("/proc/{pid}/status")]);
        let none = ["CapPrm", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t0000000000000000"));
        assert!(none.iter().all(|set| status.contains(set)), "{status}");
    }
    another_goes_on(&container, &main, &survivor);
    answers(&container, "127.0.0.1:80");
    // Whom else listend knows: root, and its own user.
    container.run(["listend", "restart", "app"]);
    container.run(["useradd", "stranger"]);
    let control = "/run/listend/control.sock";
    let look = ["--", "listend", "status", "--control", control];
    let look = |user| container.output(["runuser", "--user", user].into_iter().chain(look));
    assert!(look("listend").status.success(), "{:?}", look("listend"));
    assert!(!look("stranger").status.success());
    is_exposed_at_most(&container, "11");
}

// As /usr/share/listend/sandbox.conf says: as root, and below the stricter sandbox of the unit, as its user.
#[test]
fn a_worker_has_a_sandbox_of_its_own_within_that_of_the_unit() {
    let Some(container) = installed() else {
        return;
    };
    // The tenths that systemd-analyze(1) has for the whole.
    for (drop_ins, most) in [
        (&["sandbox.conf"][..], "54"),
        (&["hardened.conf", "sandbox.conf"], "25"),
        (&["hardened.conf", "locked.conf", "sandbox.conf"], "19"),
    ] {
        install_drop_ins(&container, drop_ins);
        let sandbox = ", ready: notify, sandbox: sealed";
        let yaml = serves_at("0.0.0.0:20000", sandbox).replace("serve]", "serve-app]");
        container.write(CONFIG, &yaml);
        restart(&container, UNIT);
        let answer = answers(&container, "127.0.0.1:20000");
        let inside = container.run(["pgrep", "--oldest", "--full", "^/opt/probe"]);
        let pid = inside.trim();
        let status = container.run(["cat", &format!("/proc/{pid}/status")]);
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line), "{drop_ins:?}: {answer} {status}");
        }
        let space =
            |pid: &str, kind: &str| container.run(["readlink", &format!("/proc/{pid}/ns/{kind}")]);
        let main = property(&container, UNIT, "MainPID");
        for kind in ["mnt", "net", "ipc"] {
            assert_ne!(space(pid, kind), space(&main, kind), "{drop_ins:?}: {kind}");
        }
        // Its own, without the files of others.
        let tmp = container.run(["ls", "-A", &format!("/proc/{pid}/root/tmp")]);
        assert_eq!(tmp, "", "{drop_ins:?}");
        let journal = container.journal(UNIT);
        assert!(!journal.contains("no namespaces"), "{journal}");
        is_exposed_at_most(&container, most);
    }
}

// As /usr/share/listend/delegate.conf says, whether there are controllers for the groups or not.
#[test]
fn each_process_has_a_group_below_that_of_the_unit() {
    let Some(container) = installed() else {
        return;
    };
    install_drop_ins(&container, &["delegate.conf"]);
    let limits = ", sandbox: { tasks_max: infinity }";
    container.write(CONFIG, &serves_at("127.0.0.1:80", limits));
    restart(&container, UNIT);
    let group_of = |pid: &str| group_of(&container, pid);
    let is_in_its_own = || {
        answers(&container, "127.0.0.1:80");
        let pid = container.run(["pgrep", "--oldest", "--full", "^/opt/probe"]);
        let group = group_of(pid.trim());
        let is_its = format!("{UNIT}/listend.app.0.{}", pid.trim());
        assert!(group.ends_with(&is_its), "{group}");
        let main = group_of(&property(&container, UNIT, "MainPID"));
        assert!(main.ends_with(&format!("{UNIT}/listend.daemon")), "{main}");
    };
    is_in_its_own();
    let main = property(&container, UNIT, "MainPID");
    container.run(["kill", "-KILL", &main]);
    eventually("another one is there", || {
        let next = property(&container, UNIT, "MainPID");
        next != main && next != "0"
    });
    is_in_its_own();
    restart(&container, UNIT);
    is_in_its_own();
}

// OOMPolicy=continue.
#[test]
fn a_worker_that_takes_too_much_memory_takes_nobody_with_it() {
    let Some(container) = installed() else {
        return;
    };
    if !container
        .path("/sys/fs/cgroup/system.slice/memory.max")
        .exists()
    {
        crate::harness::skip("no memory controller in the container");
        return;
    }
    drop_in(
        &container,
        UNIT,
        "[Service]\nMemoryMax=100M\nMemorySwapMax=0\n",
    );
    let eats = "import os, time\nif not os.path.exists('/run/eaten'):\n open('/run/eaten', 'w').close()\n x = bytearray(10**9)\n\
                time.sleep(3600)";
    let yaml = serves_at("127.0.0.1:20000", "").replace(
        "workers: {",
        &format!(
            "workers: {{ eater: {{ command: [python3, -c, {eats:?}], oom_score_adjust: 1000 }},"
        ),
    );
    container.write(CONFIG, &yaml);
    restart(&container, UNIT);
    let pid = property(&container, UNIT, "MainPID");
    eventually("the eater was killed", || {
        container.journal(UNIT).contains("eater: killed by SIGKILL")
            || container.journal(UNIT).contains("SIGKILL")
    });
    answers(&container, "127.0.0.1:20000");
    assert_eq!(property(&container, UNIT, "MainPID"), pid);
    assert_eq!(property(&container, UNIT, "ActiveState"), "active");
}
