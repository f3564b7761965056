//! What should be: the configuration, and what follows from it for whoever looks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The daemon is in a network namespace of its own, so these are nobody else's.
const WEB: u16 = 7001;
const UDP: u16 = 7002;
const SHARDED: u16 = 7003;
const FLOW: u16 = 7004;
const ELASTIC: u16 = 7005;
const DEMAND: u16 = 7006;
const EACH: u16 = 7007;
const FORWARDED: u16 = 7008;
const DOG: u16 = 7009;
const LATE: u16 = 7010;
const PAGE: u16 = 7011;
const WATCHED: u16 = 7012;
const EXTRA: u16 = 7013;
/// For whoever wants a port that listend is to be refused.
pub const TAKEN: u16 = 7014;
/// The address that comes and goes.
pub const LATE_ADDRESS: &str = "10.9.8.7";

/// How clients talk to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// HTTP, with the revision and the pid in the answer.
    Tcp(&'static str, u16),
    Unix(&'static str),
    Abstract(&'static str),
    Packets(&'static str),
    /// A datagram is answered with the same.
    Udp(u16),
    Datagrams(&'static str),
    /// All comes back as it was sent.
    Echo(u16),
    /// The page with the metrics.
    Page(u16),
}

/// Where clients come.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    pub name: &'static str,
    pub worker: &'static str,
    pub way: Way,
    pub clients: usize,
}

const LOOPBACK: &str = "127.0.0.1";

const fn endpoint(name: &'static str, worker: &'static str, clients: usize, way: Way) -> Endpoint {
    Endpoint {
        name,
        worker,
        way,
        clients,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    endpoint("web", "web", 2, Way::Tcp(LOOPBACK, WEB)),
    endpoint("web.sock", "web", 1, Way::Unix("web.sock")),
    endpoint("abstract", "kinds", 1, Way::Abstract("listend-soak")),
    endpoint("packets", "kinds", 1, Way::Packets("packets.sock")),
    endpoint("datagrams", "kinds", 1, Way::Datagrams("datagrams.sock")),
    endpoint("udp", "kinds", 1, Way::Udp(UDP)),
    endpoint("sharded", "sharded", 2, Way::Tcp(LOOPBACK, SHARDED)),
    endpoint("flow", "flow", 1, Way::Udp(FLOW)),
    endpoint("elastic", "elastic", 2, Way::Tcp(LOOPBACK, ELASTIC)),
    endpoint("demand", "demand", 1, Way::Tcp(LOOPBACK, DEMAND)),
    endpoint("each", "each", 1, Way::Echo(EACH)),
    endpoint("forwarded", "forwarded", 1, Way::Echo(FORWARDED)),
    endpoint("boxed.sock", "boxed", 1, Way::Unix("boxed.sock")),
    endpoint("dog", "dog", 1, Way::Tcp(LOOPBACK, DOG)),
    endpoint("watched", "watched", 1, Way::Tcp(LOOPBACK, WATCHED)),
    endpoint("late", "late", 1, Way::Tcp(LATE_ADDRESS, LATE)),
    endpoint("extra", "extra", 1, Way::Tcp(LOOPBACK, EXTRA)),
    endpoint("page", "listend:web", 1, Way::Page(PAGE)),
];

/// Workers that serve HTTP or datagrams by the probe, and can be restarted, killed and stopped.
pub const APPS: &[&str] = &[
    "web", "kinds", "sharded", "flow", "elastic", "demand", "boxed", "dog", "watched", "special",
];

/// A way in which a new generation fails.
pub const FAULTS: &[&str] = &[
    "--crash-at-start",
    "--hang-at-start",
    "--crash-after-ready, 5ms",
];

#[derive(Debug, Clone)]
pub struct Model {
    dir: PathBuf,
    vsock: Option<u32>,
    sticky_works: bool,
    has_groups: bool,
    /// What each worker tells its clients; changed, it is replaced.
    pub revisions: BTreeMap<&'static str, u32>,
    /// As configured, of those with a fixed number.
    pub configured: BTreeMap<&'static str, u32>,
    /// As they are, after `scale`.
    pub scaled: BTreeMap<&'static str, u32>,
    pub stopped: BTreeSet<&'static str>,
    pub is_sharded: bool,
    pub is_sticky: bool,
    pub has_extra: bool,
    pub backlog: u32,
    /// Whether the late address has been there since the listener is declared.
    pub is_late_bound: bool,
    /// A worker whose next generation fails, and how.
    pub fault: Option<(&'static str, &'static str)>,
    /// A listener at a port that somebody else has.
    pub wants_taken: bool,
}

impl Model {
    pub fn new(dir: &Path, vsock: Option<u32>, sticky_works: bool, has_groups: bool) -> Model {
        let fixed = BTreeMap::from([("web", 2), ("sharded", 3)]);
        Model {
            dir: dir.to_owned(),
            vsock,
            sticky_works,
            has_groups,
            revisions: APPS
                .iter()
                .chain(&["late", "extra"])
                .map(|name| (*name, 1))
                .collect(),
            scaled: fixed.clone(),
            configured: fixed,
            stopped: BTreeSet::new(),
            is_sharded: true,
            is_sticky: sticky_works,
            has_extra: false,
            backlog: 512,
            is_late_bound: false,
            fault: None,
            wants_taken: false,
        }
    }

    /// Whether flows can be sticky at all.
    pub fn can_be_sticky(&self) -> bool {
        self.sticky_works
    }

    /// The configuration.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        self.listeners(&mut text);
        self.workers(&mut text);
        let _ = writeln!(text, "web: '127.0.0.1:{PAGE}'");
        text
    }

    fn listeners(&self, text: &mut String) {
        let flows = match self.is_sticky {
            true => ", flows: sticky, flow_timeout: 1s",
            false => "",
        };
        let backlog = self.backlog;
        let _ = writeln!(
            text,
            "listeners:
  web: {{ address: ['127.0.0.1:{WEB}', 'unix:$DIR/web.sock'], backlog: {backlog} }}
  abstract: 'unix:@listend-soak'
  packets: 'unix-seqpacket:$DIR/packets.sock'
  datagrams: 'unix-dgram:$DIR/datagrams.sock'
  udp: 'udp://127.0.0.1:{UDP}'
  sharded: '127.0.0.1:{SHARDED}'
  flow: {{ address: 'udp://127.0.0.1:{FLOW}'{flows} }}
  elastic: '127.0.0.1:{ELASTIC}'
  demand: '127.0.0.1:{DEMAND}'
  each: '127.0.0.1:{EACH}'
  forwarded: '127.0.0.1:{FORWARDED}'
  boxed: {{ address: 'unix:$DIR/boxed.sock', symlinks: '$DIR/boxed.link' }}
  dog: '127.0.0.1:{DOG}'
  watched: '127.0.0.1:{WATCHED}'
  fifo: 'fifo:$DIR/fifo'
  queue: 'mqueue:/listend-soak'
  links: 'netlink:route 1'
  late: {{ address: '{LATE_ADDRESS}:{LATE}', optional: true }}"
        );
        if let Some(port) = self.vsock {
            let _ = writeln!(text, "  vsock: 'vsock::{port}'");
        }
        if self.has_extra {
            let _ = writeln!(
                text,
                "  extra: {{ address: ['127.0.0.1:{EXTRA}', 'unix:$DIR/extra.sock'] }}"
            );
        }
        if self.wants_taken {
            let _ = writeln!(text, "  taken: '127.0.0.1:{TAKEN}'");
        }
    }

    fn workers(&self, text: &mut String) {
        let distribute = if self.is_sharded { "shards" } else { "shared" };
        let instances = |name: &str| self.configured[name];
        let _ = writeln!(
            text,
            "defaults:
  stop_timeout: 60s
  restart: {{ backoff: 10ms..200ms, limit: none }}
workers:"
        );
        let vsock = if self.vsock.is_some() { ", vsock" } else { "" };
        self.app(
            text,
            "web",
            "[web]",
            &format!(
                "instances: {}\noutput: tag\nruntime_directory: soak-web\n\
                 before_start: [/bin/true]\nafter_ready: [/bin/true]\nafter_stop: [/bin/true]\n\
                 reload_signal: SIGWINCH",
                instances("web")
            ),
        );
        self.app(
            text,
            "kinds",
            "[abstract, packets, datagrams, udp]",
            "output: 'file:$DIR/disk/kinds.log'",
        );
        self.app(
            text,
            "sharded",
            "[sharded]",
            &format!(
                "instances: {}\ndistribute: {distribute}\noutput: tag-json",
                instances("sharded")
            ),
        );
        self.app(text, "flow", "[flow]", "stop_timeout: 3s");
        self.app(
            text,
            "elastic",
            "[elastic]",
            "instances: { min: 1, max: 4, scale_up_at: 3 }",
        );
        self.app(
            text,
            "demand",
            "[demand]",
            "activation: on-demand\nidle_timeout: 1s\ntrigger_limit: none",
        );
        self.app(
            text,
            "boxed",
            "[boxed]",
            match self.has_groups {
                true => "sandbox: { preset: strict, memory_max: infinity }\noutput: 'file:$DIR/disk/boxed.log'",
                false => "sandbox: strict\noutput: 'file:$DIR/disk/boxed.log'",
            },
        );
        // Stopped, it does not hear SIGABRT.
        self.app(text, "dog", "[dog]", "watchdog: 5s\nstop_timeout: 3s");
        self.app(text, "watched", "[watched]", "watch: $DIR/src");
        self.app(
            text,
            "special",
            &format!("[fifo, queue, links{vsock}]"),
            "rollout: { order: stop-first, watch: 0s }",
        );
        self.app(text, "late", "[late]", "");
        if self.has_extra {
            self.app(text, "extra", "[extra]", "");
        }
        let _ = writeln!(
            text,
            "  each: {{ command: [/bin/cat], listeners: [each], activation: per-connection, \
             handoff: inetd, accept_rate: none }}
  forwarded:
    command: [$PROBE, backend, '127.0.0.1:{{port}}']
    forward: '127.0.0.1:{{port}}'
    listeners: [forwarded]
    rollout: {{ min_ready: 20ms, watch: 0s }}"
        );
    }

    /// A worker by the probe.
    fn app(&self, text: &mut String, name: &str, listeners: &str, lines: &str) {
        // On a busy machine a process that wants to crash 5 ms later does so much later.
        let (fault, time, min_ready) = match self.fault {
            Some((of, fault)) if of == name => (format!(", {fault}"), "1s", "2s"),
            _ => (String::new(), "60s", "20ms"),
        };
        let more = match name {
            "dog" => ", --alive, 200ms",
            // So that a burst of clients waits.
            "elastic" => ", --answer-delay, 5ms",
            _ => "",
        };
        let rollout = match lines.contains("rollout:") {
            true => String::new(),
            false => format!("\n    rollout: {{ min_ready: {min_ready}, watch: 0s }}"),
        };
        let lines: String = lines.lines().map(|line| format!("\n    {line}")).collect();
        let _ = writeln!(
            text,
            "  {name}:
    command: [$PROBE, serve-app, --outlive, --lifetime, '20000', --log-every, '50', --sink, $DIR/sink{more}{fault}]
    listeners: {listeners}
    ready: notify
    nonblocking: true
    start_timeout: {time}
    environment: {{ APP_VERSION: r{} }}{rollout}{lines}",
            self.revisions[name]
        );
    }

    /// The workers that are declared.
    pub fn names(&self) -> Vec<&'static str> {
        let mut all = APPS.to_vec();
        all.extend(["late", "each", "forwarded"]);
        if self.has_extra {
            all.push("extra");
        }
        all
    }

    /// How many processes a worker has at rest, at least and at most.
    pub fn processes(&self, worker: &str) -> (usize, usize) {
        if self.stopped.contains(worker) {
            return (0, 0);
        }
        match worker {
            "elastic" => (1, 4),
            "demand" => (0, 1),
            "each" => (0, 0),
            "late" if !self.is_late_bound => (0, 0),
            _ => match self.scaled.get(worker) {
                Some(count) => (*count as usize, *count as usize),
                None => (1, 1),
            },
        }
    }

    /// The listeners of status, with the state in which each is at rest.
    pub fn listeners_of_status(&self) -> BTreeMap<String, &'static str> {
        let names = [
            "web",
            "abstract",
            "packets",
            "datagrams",
            "udp",
            "sharded",
            "flow",
            "elastic",
            "demand",
            "each",
            "forwarded",
            "boxed",
            "dog",
            "watched",
            "fifo",
            "queue",
            "links",
            "listend:web",
        ];
        let mut all: BTreeMap<String, &str> = names
            .iter()
            .map(|name| ((*name).to_owned(), "listening"))
            .collect();
        let late = if self.is_late_bound {
            "listening"
        } else {
            "missing"
        };
        all.insert("late".to_owned(), late);
        if self.vsock.is_some() {
            all.insert("vsock".to_owned(), "listening");
        }
        if self.has_extra {
            all.insert("extra".to_owned(), "listening");
        }
        all
    }

    /// What has to listen or be bound by the tables of the kernel, besides the shards and flows, of which there
    /// may be several at an address.
    pub fn sockets(&self) -> BTreeSet<String> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let served = ENDPOINTS.iter().filter(|one| self.is_served(one));
        let mut all: BTreeSet<String> = served.map(|one| self.socket(one.way)).collect();
        all.insert(format!("unix {} listens", path("control.sock")));
        all.insert(format!("unix {}", path("control.notify")));
        if self.has_extra {
            all.insert(self.extra_path());
        }
        all
    }

    /// Those of them that the processes of a worker have, one of each.
    pub fn sockets_of(&self, worker: &str) -> BTreeSet<String> {
        let of_worker = ENDPOINTS.iter().filter(|one| one.worker == worker);
        let named = of_worker.map(|one| self.socket(one.way));
        let all: BTreeSet<String> = named.collect();
        match worker {
            "extra" => all.into_iter().chain([self.extra_path()]).collect(),
            _ => all,
        }
    }

    fn extra_path(&self) -> String {
        format!("unix {} listens", self.dir.join("extra.sock").display())
    }

    /// As the kernel's tables have it.
    fn socket(&self, way: Way) -> String {
        let path = |name: &str| self.dir.join(name).display().to_string();
        match way {
            Way::Tcp(host, port) => format!("tcp {host}:{port} listens"),
            Way::Echo(port) | Way::Page(port) => format!("tcp {LOOPBACK}:{port} listens"),
            Way::Unix(name) | Way::Packets(name) => format!("unix {} listens", path(name)),
            Way::Abstract(name) => format!("unix @{name} listens"),
            Way::Udp(port) => format!("udp {LOOPBACK}:{port}"),
            Way::Datagrams(name) => format!("unix {}", path(name)),
        }
    }

    /// Those of them that may be there more than once.
    pub fn may_be_several(&self, socket: &str) -> bool {
        [SHARDED, FLOW]
            .iter()
            .any(|port| socket.contains(&format!("{LOOPBACK}:{port}")))
    }

    /// Whether clients may come: what is not there refuses them.
    pub fn is_served(&self, endpoint: &Endpoint) -> bool {
        match endpoint.name {
            "late" => self.is_late_bound,
            "extra" => self.has_extra,
            _ => true,
        }
    }

    /// The names in the folder that listend makes.
    pub fn files(&self) -> BTreeSet<String> {
        let mut sockets = vec![
            "web.sock",
            "packets.sock",
            "datagrams.sock",
            "boxed.sock",
            "control.sock",
            "control.notify",
        ];
        if self.has_extra {
            sockets.push("extra.sock");
        }
        let links = sockets.iter().map(|name| format!(".{name}.listend"));
        let plain = ["fifo", "boxed.link"].map(str::to_owned);
        let sockets = sockets.iter().map(|name| (*name).to_owned());
        links.chain(sockets).chain(plain).collect()
    }

    /// What a comparison of one rest with another depends on.
    pub fn shape(&self) -> String {
        format!(
            "{:?} stopped {:?} sharded {} sticky {} extra {} late {}",
            self.scaled,
            self.stopped,
            self.is_sharded,
            self.is_sticky,
            self.has_extra,
            self.is_late_bound
        )
    }
}
