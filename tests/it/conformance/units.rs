//! Socket options as a booted systemd sets them from `.socket` units, and as listend does.
//!
//! systemd-socket-activate has no options, so the reference is the real thing, in a container: for
//! every option of the table with a directive in systemd.socket(5), on every kind of socket that
//! has it, a unit and a listener ask for the same value; a worker of each reports what the kernel
//! has, and that is compared.

use crate::harness::container::{self, Container};
use crate::harness::report::Setting;
use crate::harness::{DEADLINE, Report, eventually, listend_path};
use listend::config::SocketKind;
use listend::config::options::{How, OPTIONS, OptionSpec, ValueKind};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Stdio;

/// What one socket of the test is: a kind, and for inet one of both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    kind: SocketKind,
    v6: bool,
}

/// One option on one kind of socket.
struct Case {
    /// Of the socket unit, the listener, and the descriptor.
    name: String,
    option: &'static OptionSpec,
    place: Place,
    sample: Sample,
    number: usize,
}

/// A value to ask for.
struct Sample {
    /// As listend's YAML has it.
    yaml: String,
    /// As the unit has it.
    unit: String,
    /// As the kernel is to have it.
    kernel: Setting,
}

/// What Linux 6.18 does not do: MPTCP has neither IP_TTL nor any option of level IPPROTO_IPV6 but
/// those for binding.
const KERNEL_LACKS: &[(&str, Place)] = &[
    ("ip_ttl", Place::v4(SocketKind::Mptcp)),
    ("ip_ttl", Place::v6(SocketKind::Mptcp)),
    ("ip_tos", Place::v6(SocketKind::Mptcp)),
];

/// Where systemd 257 does another thing: IPTOS= leaves IPV6_TCLASS alone. listend is held to what
/// was asked.
const SYSTEMD_DIFFERS: &[(&str, Place)] = &[
    ("ip_tos", Place::v6(SocketKind::Tcp)),
    ("ip_tos", Place::v6(SocketKind::Udp)),
    ("ip_tos", Place::v6(SocketKind::UdpLite)),
];

fn samples(option: &OptionSpec) -> Vec<Sample> {
    let of = |yaml: String, unit: String, kernel: Setting| Sample { yaml, unit, kernel };
    match option.value {
        ValueKind::Flag => {
            // Not what it is anyway.
            let value = option.key != "accept_file_descriptors";
            let unit = if value { "yes" } else { "no" };
            vec![of(
                value.to_string(),
                unit.to_owned(),
                Setting::Number(value.into()),
            )]
        }
        ValueKind::Number(low, high) => {
            // 0x48 has no bit of ECN, which TCP keeps to itself. fs.mqueue.msg_max is 10.
            let wanted = if option.how == How::QueueMaxMessages {
                7
            } else {
                72
            };
            let value = i64::clamp(wanted, low, high);
            vec![of(
                value.to_string(),
                value.to_string(),
                Setting::Number(value),
            )]
        }
        ValueKind::Size(low, high) => {
            // fs.mqueue.msgsize_max is 8192; 128K is not the size of any buffer.
            let wanted = if option.how == How::QueueMessageSize {
                4
            } else {
                128
            };
            let bytes = i64::clamp(wanted * 1024, low, high);
            // socket(7): "The kernel doubles this value".
            let twice = matches!(option.how, How::Buffer { .. });
            let kernel = if twice { 2 * bytes } else { bytes };
            vec![of(
                format!("{wanted}K"),
                // MessageQueueMessageSize= takes no suffix.
                bytes.to_string(),
                Setting::Number(kernel),
            )]
        }
        ValueKind::Seconds(low, high) => {
            let value = i64::clamp(63, low, high);
            vec![of(
                format!("{value}s"),
                format!("{value}s"),
                Setting::Number(value),
            )]
        }
        ValueKind::Milliseconds(low, high) => {
            let value = i64::clamp(72, low, high);
            vec![of(
                format!("{value}ms"),
                format!("{value}ms"),
                Setting::Number(value),
            )]
        }
        ValueKind::Text(_) => {
            let value = match option.key {
                "bind_to_device" => "lo",
                "tcp_congestion" => "reno",
                other => panic!("{other}: no sample"),
            };
            vec![of(
                value.to_owned(),
                value.to_owned(),
                Setting::Text(value.to_owned()),
            )]
        }
        ValueKind::Choice(words) => words
            .iter()
            .map(|(word, value)| {
                of(
                    format!("'{word}'"),
                    (*word).to_owned(),
                    Setting::Number(*value),
                )
            })
            .collect(),
    }
}

impl Place {
    const fn v4(kind: SocketKind) -> Place {
        Place { kind, v6: false }
    }

    const fn v6(kind: SocketKind) -> Place {
        Place { kind, v6: true }
    }

    /// Every place for sockets of a kind; none for what systemd 257 or this kernel has not.
    fn of(kind: SocketKind) -> Vec<Place> {
        use SocketKind::*;
        let families: &[bool] = match kind {
            Tcp | Udp | Mptcp | UdpLite => &[false, true],
            UnixStream | UnixDatagram | UnixSeqPacket | Netlink | Fifo | MessageQueue => &[false],
            VsockStream => &[false],
            // systemd takes SOCK_SEQPACKET for AF_UNIX only; the kernels of the tests have no SCTP
            // and no datagrams on vsock; nothing of a special file is an option.
            VsockSeqPacket | VsockDatagram | Sctp | Special => &[],
        };
        families.iter().map(|v6| Place { kind, v6: *v6 }).collect()
    }

    /// The address without a scheme, the same for both.
    fn address(self, number: usize) -> String {
        use SocketKind::*;
        let port = 20_000 + number;
        match self.kind {
            Tcp | Udp | Mptcp | UdpLite | Sctp if self.v6 => format!("[::1]:{port}"),
            Tcp | Udp | Mptcp | UdpLite | Sctp => format!("127.0.0.1:{port}"),
            UnixStream | UnixDatagram | UnixSeqPacket | Fifo | Special => {
                format!("/run/t/{number}")
            }
            // Not in a namespace: the port is this process's.
            VsockStream | VsockSeqPacket | VsockDatagram => {
                // Of any CID: that of this machine itself, 1, takes a module.
                format!(":{}", u64::from(std::process::id()) * 1000 + number as u64)
            }
            Netlink => "kobject-uevent 1".to_owned(),
            MessageQueue => format!("/t-{number}"),
        }
    }

    /// As a unit has it.
    fn unit(self, number: usize) -> String {
        use SocketKind::*;
        let address = self.address(number);
        match self.kind {
            Tcp | UnixStream => format!("ListenStream={address}"),
            Udp | UnixDatagram => format!("ListenDatagram={address}"),
            Mptcp => format!("ListenStream={address}\nSocketProtocol=mptcp"),
            UdpLite => format!("ListenDatagram={address}\nSocketProtocol=udplite"),
            UnixSeqPacket => format!("ListenSequentialPacket={address}"),
            VsockStream => format!("ListenStream=vsock-stream:{address}"),
            Netlink => format!("ListenNetlink={address}"),
            Fifo => format!("ListenFIFO={address}"),
            MessageQueue => format!("ListenMessageQueue={address}"),
            VsockSeqPacket | VsockDatagram | Sctp | Special => unreachable!("no place"),
        }
    }

    /// As listend has it.
    fn yaml(self, number: usize) -> String {
        use SocketKind::*;
        let scheme = match self.kind {
            Tcp => "tcp://",
            Udp => "udp://",
            Mptcp => "mptcp://",
            UdpLite => "udplite://",
            Sctp => "sctp://",
            UnixStream => "unix:",
            UnixDatagram => "unix-dgram:",
            UnixSeqPacket => "unix-seqpacket:",
            VsockStream => "vsock:",
            VsockDatagram => "vsock-dgram:",
            VsockSeqPacket => "vsock-seqpacket:",
            Netlink => "netlink:",
            Fifo => "fifo:",
            MessageQueue => "mqueue:",
            Special => "special:",
        };
        format!("{scheme}{}", self.address(number))
    }
}

/// Every option with a directive, on every kind that has it.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for option in OPTIONS.iter().filter(|option| option.systemd.is_some()) {
        let places = option.kinds.iter().copied().flat_map(Place::of);
        for place in places.filter(|place| !KERNEL_LACKS.contains(&(option.key, *place))) {
            for sample in samples(option) {
                let number = cases.len();
                cases.push(Case {
                    name: format!("c{number}"),
                    option,
                    place,
                    sample,
                    number,
                });
            }
        }
    }
    cases
}

impl Case {
    fn unit(&self) -> String {
        let directive = self.option.systemd.expect("filtered");
        // systemd uses an attribute of a queue only where both are given; these are the defaults
        // of mq_overview(7).
        let other = match self.option.how {
            How::QueueMaxMessages => "MessageQueueMessageSize=8192",
            How::QueueMessageSize => "MessageQueueMaxMessages=10",
            _ => "",
        };
        format!(
            "[Unit]\nDescription={key} on {place:?}\n[Socket]\n{listen}\n{directive}{value}\n{other}\n\
             FileDescriptorName={name}\nService=app.service\nRemoveOnStop=yes\n",
            key = self.option.key,
            place = self.place,
            listen = self.place.unit(self.number),
            value = self.sample.unit,
            name = self.name,
        )
    }

    fn yaml(&self) -> String {
        format!(
            "  {}: {{ address: '{}', {}: {} }}\n",
            self.name,
            self.place.yaml(self.number),
            self.option.key,
            self.sample.yaml
        )
    }

    fn words(&self) -> String {
        let family = if self.place.v6 { " (IPv6)" } else { "" };
        let Case { option, place, .. } = self;
        format!(
            "{} = {} on {:?}{family}",
            option.key, self.sample.unit, place.kind
        )
    }
}

/// What a worker found in its descriptors, by name.
type Found = BTreeMap<String, BTreeMap<String, Setting>>;

fn by_name(report: &Report) -> Found {
    let names = report.env["LISTEN_FDNAMES"].split(':');
    let fds = report.fds.iter().filter(|fd| fd.number > 2);
    names
        .zip(fds)
        .map(|(name, fd)| (name.to_owned(), fd.options.clone()))
        .collect()
}

/// Waits for the report that a worker of a unit writes.
#[track_caller]
fn report(container: &Container, path: &str, unit: &str) -> Report {
    let deadline = std::time::Instant::now() + DEADLINE;
    loop {
        if let Some(text) = container.read(path) {
            return serde_json::from_str(&text).expect("a report");
        }
        let late = std::time::Instant::now() > deadline;
        let failed = || {
            !container
                .output(["systemctl", "is-failed", unit])
                .status
                .success()
        };
        assert!(!late && failed(), "{unit}: {}", container.journal(unit));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// systemd binds them all, and starts the worker when a client comes. Also the directives that this
/// version does not know.
fn with_systemd(container: &Container, cases: &[Case]) -> (Found, Vec<String>) {
    let mut sockets: Vec<String> = Vec::new();
    for case in cases {
        let unit = format!("{}.socket", case.name);
        container.write(&format!("/run/systemd/system/{unit}"), &case.unit());
        sockets.push(unit);
    }
    container.write(
        "/run/systemd/system/app.service",
        "[Service]\nExecStart=/opt/probe report /run/systemd.json\n",
    );
    container.run(["systemctl", "daemon-reload"]);
    let start = ["systemctl", "start"].into_iter();
    let started = container.output(start.chain(sockets.iter().map(String::as_str)));
    let log = container.journal("c*.socket");
    assert!(started.status.success(), "{started:?}\n{log}");
    let unknown = log.split("Unknown key '").skip(1);
    let unknown = unknown.filter_map(|rest| Some(format!("{}=", rest.split_once('\'')?.0)));
    let unknown = unknown.collect();
    let first = cases
        .iter()
        .find(|case| case.place.kind == SocketKind::UnixStream);
    let address = first
        .expect("there is one")
        .place
        .address(first.unwrap().number);
    // The worker reports and serves nobody, so there is no answer to wait for.
    let words = ["/opt/probe", "send", "unix", &address, "hello", "1"];
    let mut command = container.command(words);
    let mut client = command.stderr(Stdio::null()).spawn().expect("nsenter");
    let found = report(container, "/run/systemd.json", "app.service");
    // The sockets first: the client that still waits would have the service started again.
    let stop = ["systemctl", "stop"].into_iter();
    container.run(stop.chain(sockets.iter().map(String::as_str)));
    container.run(["systemctl", "stop", "app.service"]);
    // Not killed: its child would be a zombie in the container, whose shutdown waits for it.
    client.wait().expect("wait for nsenter");
    (by_name(&found), unknown)
}

/// listend binds the same, and starts its worker at once.
fn with_listend(container: &Container, cases: &[Case]) -> Found {
    let mut yaml = "silence: []\nlisteners:\n".to_owned();
    for case in cases {
        yaml += &case.yaml();
    }
    yaml +=
        "workers:\n  app:\n    command: [/opt/probe, report, /run/listend.json]\n    listeners: [";
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let _ = writeln!(yaml, "{}]", names.join(", "));
    container.write("/run/test/listend.yaml", &yaml);
    container.write(
        "/run/systemd/system/listend.service",
        "[Service]\nExecStart=/opt/listend run -c /run/test/listend.yaml\n",
    );
    container.run(["systemctl", "daemon-reload"]);
    container.run(["systemctl", "start", "listend.service"]);
    let found = by_name(&report(container, "/run/listend.json", "listend.service"));
    container.run(["systemctl", "stop", "listend.service"]);
    found
}

/// What is not as it was asked for.
fn wrong<'a>(
    found: &'a Found,
    cases: impl Iterator<Item = &'a Case>,
    wanted: impl Fn(&Case) -> Option<Setting>,
) -> Vec<String> {
    let compare = |case: &Case| {
        let has = found
            .get(&case.name)
            .and_then(|options| options.get(case.option.key));
        let wanted = wanted(case);
        (has != wanted.as_ref()).then(|| format!("{}: {has:?} instead of {wanted:?}", case.words()))
    };
    cases.filter_map(compare).collect()
}

/// What the kernel makes of a value that it does not take as it is.
fn as_asked(case: &Case) -> Option<Setting> {
    Some(case.sample.kernel.clone())
}

// systemd.socket(5): every directive of the table.
#[test]
fn options_read_back_the_same_from_a_systemd_unit_and_from_listend() {
    let Some(container) = container::boot_with_listend() else {
        return;
    };
    let cases = cases();
    let (systemd, unknown) = with_systemd(&container, &cases);
    // The reference first: where it does not do what it is told, that is known.
    let usual = || {
        let of_systemd = |case: &&Case| {
            let directive = case.option.systemd.expect("filtered");
            !unknown.iter().any(|unknown| unknown == directive)
                && !SYSTEMD_DIFFERS.contains(&(case.option.key, case.place))
        };
        cases.iter().filter(of_systemd)
    };
    assert!(usual().count() > 100, "systemd does not know {unknown:?}");
    let wrong_there = wrong(&systemd, usual(), as_asked);
    assert!(wrong_there.is_empty(), "systemd: {wrong_there:#?}");

    let listend = with_listend(&container, &cases);
    let wrong_here = wrong(&listend, cases.iter(), as_asked);
    assert!(wrong_here.is_empty(), "listend: {wrong_here:#?}");
    let reference = |case: &Case| systemd.get(&case.name)?.get(case.option.key).cloned();
    let different = wrong(&listend, usual(), reference);
    assert!(different.is_empty(), "listend: {different:#?}");
}

// A unit of listend in a real systemd, from start to stop.
#[test]
fn it_runs_as_a_unit_of_a_booted_systemd() {
    let Some(container) = container::boot_with_listend() else {
        return;
    };
    container.start_unit("");
    eventually("the worker answers", || {
        let words = ["/opt/probe", "send", "tcp", "127.0.0.1:20000", "?", "5"];
        container.output(words).status.success()
    });
    container.run(["systemctl", "stop", "listend.service"]);
    let words = ["systemctl", "show", "-P", "Result", "listend.service"];
    let result = container.run(words);
    assert_eq!(
        result.trim(),
        "success",
        "{}",
        container.journal("listend.service")
    );
}

/// Variables, and the words of a command that name them, as both write them.
const VALUES: &[(&str, &str)] = &[
    ("OPTS", "-a 'b c' \"d 'e'\" f\\ g ${PORT} $PORT"),
    ("NONE", ""),
    ("PORT", "80"),
    ("QUOTED", "x'y z'w '' \"\" \\' '\\'' end\\"),
    ("OPEN", " open\t'to  the end"),
];
const WORDS: &[&str] = &[
    "$OPTS",
    "${OPTS}",
    "$NONE",
    "${NONE}",
    "x${PORT}y",
    "x$PORT",
    "$$PORT",
    "u${UNKNOWN}",
    "$UNKNOWN",
    "a$$b",
    "$QUOTED",
    "${QUOTED}",
    "$OPEN",
    "end$",
    "${PORT}${PORT}",
    "$$$PORT",
    "$$${PORT}",
    "$${PORT",
    "$PORT",
];

#[test]
fn variables_in_a_command_are_what_a_booted_systemd_makes_of_them() {
    let Some(container) = container::boot() else {
        return;
    };
    let mut unit = "[Service]\nType=oneshot\nStandardOutput=file:/argv\n".to_owned();
    for (name, value) in VALUES {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(
            unit,
            "Environment=\"{name}={}\"",
            value.replace('\t', "\\t")
        );
    }
    let _ = writeln!(
        unit,
        "ExecStart=/usr/bin/printf <%%s>\\n {}",
        WORDS.join(" ")
    );
    container.write(
        "/run/systemd/system/argv.service",
        &unit.replace("s>\\n", "s>\\\\n"),
    );
    container.run(["systemctl", "start", "argv.service"]);
    let theirs = container.read("/argv").expect("it has written");

    let world = crate::harness::World::new();
    let map: serde_json::Map<String, serde_json::Value> = VALUES
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    let map = serde_json::Value::Object(map).to_string();
    // Behind `$$` it would begin a placeholder.
    let brace = |word: &&str| match *word {
        "$${PORT" => "$${{PORT".to_owned(),
        word => word.to_owned(),
    };
    let words: Vec<String> = WORDS.iter().map(brace).collect();
    let mut command = vec!["/usr/bin/printf".to_owned(), "<%s>\\n".to_owned()];
    command.extend(words);
    let command = serde_json::to_string(&command).expect("JSON");
    let map = map.replace("${PORT}", "${{PORT}}");
    let yaml = format!(
        "workers:\n  app:\n    command: {command}\n    expand_environment: true\n    environment: \
         {map}\n    output: file:$DIR/argv\n    restart: never\n"
    );
    let daemon = world.run(&yaml);
    daemon.line(&["app.0", "exited"]);
    daemon.stop();
    let ours = std::fs::read_to_string(world.path("argv")).expect("it has written");
    assert_eq!(ours, theirs);
}

// systemd.exec(5), "Environment variables in spawned processes", with all that a unit can have.
#[test]
fn nothing_that_systemd_tells_its_unit_reaches_a_worker() {
    const UNIT: &str = "[Service]
Type=notify
User=nobody
ExecStart=/usr/bin/listend run --control none -c /etc/listend-env.yaml
ExecStartPost=/bin/sh -c 'env >/run/env/unit'
RuntimeDirectory=env
StateDirectory=env
CacheDirectory=env
LogsDirectory=env
ConfigurationDirectory=env
SetCredential=key:secret
WatchdogSec=60
FileDescriptorStoreMax=8
MemoryPressureWatch=on
Environment=OWN=kept
";
    // Of the machine and the user, and true of every process of theirs; the last is about standard
    // error, which the worker shares.
    const KEPT: &[&str] = &[
        "PATH",
        "LANG",
        "HOME",
        "LOGNAME",
        "USER",
        "SHELL",
        "OWN",
        "LISTEND_INSTANCE",
        "LISTEND_PID",
        "JOURNAL_STREAM",
        "PWD",
        "SHLVL",
        "_",
    ];
    let Some(container) = container::boot() else {
        return;
    };
    container.install(listend_path(), "/usr/bin/listend");
    container.write(
        "/etc/listend-env.yaml",
        "workers:\n  app: { command: [/bin/sh, -c, 'env >/run/env/worker; exec sleep infinity'] }\n",
    );
    container.write("/run/systemd/system/env.service", UNIT);
    container.run(["systemctl", "start", "env.service"]);
    let names = |path: &str| {
        let mut text = String::new();
        eventually(path, || {
            text = container.read(path).unwrap_or_default();
            text.contains("OWN=kept")
        });
        let names = text.lines().filter_map(|line| line.split_once('='));
        names.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    let unit = names("/run/env/unit");
    let of_unit = |name: &str| unit.iter().any(|one| one == name);
    // What is looked for is there.
    for name in [
        "RUNTIME_DIRECTORY",
        "INVOCATION_ID",
        "SYSTEMD_EXEC_PID",
        "CREDENTIALS_DIRECTORY",
    ] {
        assert!(of_unit(name), "{name}: {unit:?}");
    }
    for name in names("/run/env/worker") {
        assert!(KEPT.contains(&name.as_str()), "{name} reaches a worker");
    }
}
