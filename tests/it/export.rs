//! `listend export systemd`: units that say the same as the configuration, and come back as it.

use crate::harness::{TempDir, World, listend_path, tool};
use listend::config::{Config, SourceFile, read, to_yaml};
use listend::export::{Unit, systemd};
use listend::import::{self, Format, import};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn config(yaml: &str) -> Config {
    let file = SourceFile {
        name: "export".to_owned(),
        bytes: yaml.as_bytes().to_vec(),
        folder: PathBuf::from("/"),
    };
    let loaded = read(vec![file]);
    assert!(
        loaded.report.errors.is_empty(),
        "{:?}\n{yaml}",
        loaded.report.errors
    );
    loaded.config
}

/// As it is, without what is only how it was written.
fn meaning(config: &Config) -> String {
    let mut config = config.clone();
    config
        .listeners
        .sort_by(|one, other| one.name.value.cmp(&other.name.value));
    config
        .workers
        .sort_by(|one, other| one.name.value.cmp(&other.name.value));
    for listener in &mut config.listeners {
        // One address is written in more than one way, and stands where systemd has it.
        for address in &mut listener.addresses {
            address.value.text = String::new();
        }
        listener.options.sort_by_key(|option| option.value.spec.key);
    }
    for sandbox in config.workers.iter_mut().flat_map(|one| &mut one.sandbox) {
        // What it stands for is written out.
        sandbox.value.preset = None;
    }
    to_yaml(&config).expect("YAML")
}

fn back(units: &[Unit]) -> String {
    let all = units.iter().map(|unit| import::Unit {
        name: unit.name.clone(),
        text: unit.text(),
        drop_ins: Vec::new(),
    });
    import(Format::Systemd, &all.collect::<Vec<_>>()).expect("YAML")
}

/// Exports the YAML, which says nothing that units cannot say, and imports it again: what comes back is
/// read as the same configuration. The units.
pub fn round_trip(yaml: &str) -> Vec<Unit> {
    let first = config(yaml);
    let units = systemd(&first);
    let text = back(&units);
    let second = config(&text);
    assert_eq!(
        meaning(&second),
        meaning(&first),
        "\n{yaml}\n{text}\n{units:#?}"
    );
    units
}

/// Exports the YAML and imports it again: nothing is lost but what the first export has lost. The units.
pub fn settles(yaml: &str) -> Vec<Unit> {
    let units = systemd(&config(yaml));
    let once = config(&back(&units));
    let text = back(&systemd(&once));
    assert_eq!(
        meaning(&config(&text)),
        meaning(&once),
        "\n{yaml}\n{text}\n{units:#?}"
    );
    units
}

/// Has systemd look at the units, where it is there. Programs that they name need not be.
pub fn verify(units: &[Unit], _root: &Path) {
    let Some(analyze) = tool("systemd-analyze") else {
        return;
    };
    let dir = TempDir::new();
    let paths = units.iter().map(|unit| {
        let path = dir.path().join(&unit.name);
        fs::write(&path, unit.text()).expect("it is ours");
        path
    });
    let paths: Vec<PathBuf> = paths.collect();
    let mut command = Command::new(analyze);
    command
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(paths);
    command.env("SYSTEMD_LOG_LEVEL", "warning");
    let output = command.output().expect("systemd-analyze runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_ours = |line: &&str| units.iter().any(|unit| line.contains(&unit.name));
    let is_known = |line: &&str| {
        // Of another machine, or of a user's manager.
        [
            "is not executable",
            "No such file or directory",
            "Failed to create",
            "Unit configuration has fatal",
            "Unknown key 'Restart",
            // No worker takes it, which a comment says.
            "not loaded, socket cannot be started",
        ]
        .iter()
        .any(|known| line.contains(known))
    };
    let wrong: Vec<&str> = said
        .lines()
        .filter(is_ours)
        .filter(|line| !is_known(line))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}\n{units:#?}");
}

const WHOLE: &str = r#"
listeners:
  web:
    address: ["127.0.0.1:8080", "[::1]:8080"]
    backlog: 100
    no_delay: true
    keep_alive_time: 90s
    receive_buffer: 64K
  local: { address: "unix:/run/app/app.sock", owner: app, mode: "0660", symlinks: [/run/app.sock], remove_on_stop: false }
  echo: { address: "127.0.0.1:7" }
  log: { address: "unix-dgram:/run/log.sock" }
workers:
  app:
    command: [/usr/bin/app, --name, "50% of it", "$HOME", 'a "quoted" \ word', ""]
    argv0: app
    listeners: [web, local]
    user: app
    group: www
    environment: { A: "1 2", B: "%n $x" }
    environment_file: [/etc/default/app]
    limits: { nofile: "1024:4096", core: unlimited }
    umask: "0027"
    nice: 5
    nonblocking: true
    working_directory: /srv/app
    ready: notify
    watchdog: 10s
    stop_signal: SIGQUIT
    stop_timeout: 1m
    kill_mode: group
    reload_signal: SIGHUP
    before_start: [/usr/bin/check, now]
    restart: { policy: on-failure, backoff: 2s, limit: 3 in 1m, success_exit_status: [3] }
    sandbox:
      preset: strict
      protect_processes: false
      protect_home: tmpfs
      memory_deny_write_execute: true
      read_write_paths: [/var/lib/app, "-/var/cache/a b"]
      inaccessible_paths: [/srv/secrets]
      restrict_address_families: [AF_UNIX, AF_INET]
      system_calls: ["~@mount", ptrace]
      memory_max: 512M
      tasks_max: 12.5%
  echo:
    command: /bin/cat
    listeners: [echo]
    activation: per-connection
    handoff: inetd
    max_connections: 10
    overflow: close
  logger:
    command: [/usr/bin/logger]
    listeners: [log]
    activation: on-demand
    restart: on-failure
    sandbox: { capabilities: ["~CAP_SYS_ADMIN"], restrict_address_families: none, protect_system: true, tasks_max: 1, cpu_quota: 150%, io_weight: 200 }
"#;

#[test]
fn what_systemd_can_say_comes_back() {
    let units = round_trip(WHOLE);
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    let wanted = [
        "web.socket",
        "local.socket",
        "echo.socket",
        "log.socket",
        "app.service",
        "echo@.service",
        "logger.service",
    ];
    assert_eq!(names, wanted);
    let app = units[4].text();
    for line in [
        "ExecStart=@:/usr/bin/app app --name \"50%% of it\" $HOME \"a \\\"quoted\\\" \\\\ word\" \"\"\n",
        "Sockets=web.socket local.socket\n",
        "Environment=\"A=1 2\"\n",
        "WantedBy=multi-user.target\n",
        "\nProtectSystem=strict\n",
        "\nProtectHome=tmpfs\n",
        "\nPrivateIPC=yes\n",
        "\nRestrictSUIDSGID=yes\n",
        "\nCapabilityBoundingSet=\n",
        "\nReadWritePaths=\"-/var/cache/a b\"\n",
        "\nRestrictAddressFamilies=AF_UNIX AF_INET\n",
        "\nSystemCallFilter=@system-service\nSystemCallFilter=~@keyring ",
        " @mount\nSystemCallFilter=ptrace\nSystemCallErrorNumber=EPERM\n",
        "# not translated: rollout: ",
    ] {
        assert!(app.contains(line), "{line}{app}");
    }
    verify(&units, Path::new("/"));
}

#[test]
fn what_it_cannot_say_is_a_comment() {
    let yaml = "
listeners:
  web: { address: '127.0.0.1:8080', grant: [deploy], optional: true }
  held: '127.0.0.1:9'
workers:
  app:
    command: [/usr/bin/app, '{fd:web}', '{port:web}', '{instance}']
    listeners: [web]
    instances: 4
    handoff: nginx
    ready: accepting
    sandbox: { preset: sealed, protect_home: true, read_write_paths: [/home/app] }
    before_start: { command: [/bin/true], timeout: 9s }
    resolve: at-reload
  other: { listen_pid: false, command: [/usr/bin/other], listeners: [web], nonblocking: true }
metrics: 127.0.0.1:9464
";
    let all: String = systemd(&config(yaml)).iter().map(Unit::text).collect();
    for line in [
        "# not translated: grant: ",
        "# not translated: optional, wait_for_address: ",
        "# not translated: a listener that no worker takes: ",
        "# not translated: instances: 4: ",
        "# not translated: handoff: nginx: ",
        "# not translated: ready: accepting all: ",
        "# not translated: {instance} in command: ",
        "# not translated: web, metrics: ",
        "# not translated: protect_processes: ",
        "# not translated: timeout of before_start: ",
        "# not translated: resolve: at-reload: ",
        "# not translated: listen_pid: false: ",
        "# not translated: read_write_paths: /home/app in a hidden directory: ",
        "\nPrivateNetwork=yes\n",
        "\nRestrictAddressFamilies=AF_UNIX\n",
        "# `other` takes it as well; clients start `app` alone.\n",
        "ExecStart=/usr/bin/app 3 8080 {instance}\n",
    ] {
        assert!(all.contains(line), "{line}\n{all}");
    }
}

#[test]
fn every_example_becomes_units_that_systemd_reads() {
    for name in [
        "full",
        "hello",
        "inetd",
        "on-demand",
        "gunicorn",
        "nginx",
        "node",
        "shards",
        "forward",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.yaml"));
        let text = fs::read_to_string(path).expect("an example");
        let units = systemd(&config(&text));
        assert!(!units.is_empty());
        verify(&units, Path::new("/"));
    }
}

#[test]
fn the_units_are_printed_or_written_and_nothing_is_overwritten() {
    let world = World::new();
    world.write("app.yaml", WHOLE);
    let printed = world
        .finish(["export", "systemd", "$DIR/app.yaml"])
        .expect_code(0);
    assert!(
        printed.stdout.starts_with("# --- web.socket ---\n"),
        "{}",
        printed.stdout
    );
    let words = [
        "export",
        "systemd",
        "-c",
        "$DIR/app.yaml",
        "--directory",
        "$DIR/units",
    ];
    let told = world.finish(words).expect_code(0);
    assert!(told.stdout.contains("app.service"), "{told:?}");
    let text = fs::read_to_string(world.path("units/echo@.service")).expect("it is there");
    assert!(text.contains("StandardInput=socket\n"), "{text}");
    let told = world.finish(words).expect_code(1);
    assert!(told.stderr.contains("exists"), "{told:?}");
    world.write("bad.yaml", "workers: { app: { comand: x } }");
    world
        .finish(["export", "systemd", "-c", "$DIR/bad.yaml"])
        .expect_code(78);
    assert!(listend_path().is_file());
}

// Two units of one name were one, and a template belongs to the socket unit of its own name.
#[test]
fn a_worker_of_connections_has_a_template_for_each_of_its_listeners() {
    let yaml = "
listeners: { a: '127.0.0.1:9001', b: '127.0.0.1:9002', c: '127.0.0.1:9003' }
workers:
  each:
    command: [/bin/cat]
    listeners: [a, b]
    activation: per-connection
    handoff: inetd
    overflow: close
  one: { command: [/bin/cat], listeners: [c], activation: per-connection, overflow: close, connection_timeout: 9s }
";
    let units = settles(yaml);
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    let wanted = [
        "each-a.socket",
        "each-b.socket",
        "one.socket",
        "each-a@.service",
        "each-b@.service",
        "one@.service",
    ];
    assert_eq!(names, wanted);
    assert!(
        units[5].text().contains("\nRuntimeMaxSec=9\n"),
        "{units:#?}"
    );
    verify(&units, Path::new("/"));
    let one = yaml.replace("listeners: [a, b]", "listeners: [a]");
    let one = one.replace("b: '127.0.0.1:9002', ", "");
    round_trip(&one);
}

#[test]
fn what_has_another_meaning_in_systemd_is_said() {
    let yaml = "
listeners: { a: '127.0.0.1:9001' }
workers:
  app:
    command: [/usr/bin/app]
    listeners: [a]
    activation: on-demand
    idle_timeout: 10s
    idle_unless: { path: /run/busy }
    handoff: fd0
    supplementary_groups: []
    environment: { A: 1 }
    environment_file: [-/etc/default/app]
";
    let all: String = systemd(&config(yaml)).iter().map(Unit::text).collect();
    for line in [
        "# not translated: idle_unless: ",
        "# not translated: supplementary_groups: ",
        "# Variables of EnvironmentFile= win over those of Environment=; in listend it is the other way round.\n",
        "\nStandardInput=socket\n",
    ] {
        assert!(all.contains(line), "{line}\n{all}");
    }
}

// systemd refuses Accept=yes for what accepts no connections; there such a worker is one that is started.
#[test]
fn a_worker_of_datagrams_is_no_template() {
    let yaml = "
listeners: { a: 'udp://127.0.0.1:9001' }
workers:
  one: { command: [/bin/cat], listeners: [a], activation: per-connection, handoff: inetd }
";
    let units = settles(yaml);
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(names, ["a.socket", "one.service"]);
    let text = units[0].text();
    assert!(text.contains("\nService=one.service\n"), "{text}");
    assert!(!text.contains("Accept="), "{text}");
    verify(&units, Path::new("/"));
}
