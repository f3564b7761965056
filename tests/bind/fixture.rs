//! Plans without YAML, folders of one's own, and short words for both.

use listend::config::options::{OptionSetting, OptionValue, by_key};
use listend::config::{Endpoint, Transport, UnixKind, UnixName};
use listend::diagnose::Machine;
use listend::listener::{
    Adopted, BindError, BoundSocket, Obstacle, Outcome, Purpose, SocketTable, bind_all,
};
use listend::plan::{Access, ListenerId, ListenerPlan, Plan, SocketKey, SocketPlan};
use listend::report::{FileId, Place};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

static FILES: Mutex<()> = Mutex::new(());

/// A folder of its own, and the right to touch files while it lives.
pub struct Folder {
    pub path: PathBuf,
    _lock: MutexGuard<'static, ()>,
}

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let lock = FILES
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("listend-bind-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder { path, _lock: lock }
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let all = std::fs::read_dir(&self.path).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

pub fn inet(transport: Transport, address: &str) -> Endpoint {
    Endpoint::Inet {
        transport,
        address: address.parse().unwrap(),
        v6_only: true,
        optional: false,
        scope: None,
    }
}

pub fn tcp(address: &str) -> Endpoint {
    inet(Transport::Tcp, address)
}

pub fn udp(address: &str) -> Endpoint {
    inet(Transport::Udp, address)
}

pub fn flags(endpoint: Endpoint, only_six: bool, may_lack: bool) -> Endpoint {
    match endpoint {
        Endpoint::Inet {
            transport, address, ..
        } => Endpoint::Inet {
            transport,
            address,
            v6_only: only_six,
            optional: may_lack,
            scope: None,
        },
        other => other,
    }
}

pub fn unix(kind: UnixKind, path: &Path) -> Endpoint {
    Endpoint::Unix {
        kind,
        name: UnixName::Path(path.to_owned()),
    }
}

pub fn stream(path: &Path) -> Endpoint {
    unix(UnixKind::Stream, path)
}

pub const ACCESS: Access = Access::PRIVATE;

pub fn place(line: u32) -> Place {
    Place {
        file: FileId(0),
        line,
        column: 8,
        length: 9,
    }
}

/// One listener for each list of endpoints: `l0`, `l1` …
pub fn plan(listeners: &[&[Endpoint]], access: Access) -> Plan {
    let listener = |(index, endpoints): (usize, &&[Endpoint])| {
        let sockets = endpoints.iter().map(|endpoint| SocketPlan {
            key: SocketKey::default(),
            endpoint: endpoint.clone(),
            shard: 0,
            place: place(index as u32 + 1),
        });
        ListenerPlan::new(format!("l{index}"), sockets.collect(), 16, access)
    };
    Plan::new(listeners.iter().enumerate().map(listener), [])
}

/// The listener of a plan with this number.
pub fn listener(plan: &mut Plan, number: u32) -> &mut ListenerPlan {
    Arc::make_mut(plan.listeners.get_mut(&ListenerId(number)).unwrap())
}

/// What is held of the listener with this number, in the order of its keys.
pub trait HeldOf {
    fn at(&self, listener: u32) -> Vec<&BoundSocket>;
}

impl HeldOf for SocketTable {
    fn at(&self, listener: u32) -> Vec<&BoundSocket> {
        let of_it = |socket: &&BoundSocket| socket.listener == ListenerId(listener);
        self.iter().filter(of_it).collect()
    }
}

pub fn single(endpoint: Endpoint) -> Plan {
    plan(&[&[endpoint]], ACCESS)
}

pub fn keep(plan: &Plan) -> Outcome {
    bind_all(plan, Purpose::Keep, Adopted::default())
}

pub fn bound(plan: &Plan) -> Outcome {
    let outcome = keep(plan);
    assert_eq!(outcome.errors, []);
    outcome
}

pub fn first(outcome: &Outcome) -> &BoundSocket {
    outcome.bound.at(0)[0]
}

pub fn port(socket: &BoundSocket) -> u16 {
    match &socket.address {
        Endpoint::Inet { address, .. } => address.port(),
        _ => 0,
    }
}

pub fn only_error(outcome: &Outcome) -> &BindError {
    assert_eq!(outcome.errors.len(), 1, "{:?}", outcome.errors);
    &outcome.errors[0]
}

/// Whether somebody has the path, of whom the kernel has told.
pub fn is_live(error: &BindError) -> bool {
    matches!(
        error.obstacle,
        Some(Obstacle::LiveServer { socket: Some(_) })
    )
}

pub fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// A socket that nobody listens on any more.
pub fn leave_stale(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
}

pub fn user() -> String {
    Machine::new().user(nix::unistd::geteuid().as_raw())
}

/// The plan of one listener with these options.
pub fn with_options(endpoint: Endpoint, options: &[(&str, OptionValue)]) -> Plan {
    let mut plan = single(endpoint);
    listener(&mut plan, 0).settings_mut().options = options
        .iter()
        .map(|(key, value)| OptionSetting {
            spec: by_key(key).unwrap(),
            value: value.clone(),
        })
        .collect();
    plan
}

pub fn abstract_name(name: &str) -> Endpoint {
    Endpoint::Unix {
        kind: UnixKind::Stream,
        name: UnixName::Abstract(name.to_owned()),
    }
}

/// A name of this process's own.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("listend-{what}-{}-{number}", std::process::id())
}

/// Says that a part of the test cannot be done here, and why, as the other tests do.
pub fn skip(reason: &str) {
    use std::io::Write as _;
    let current = std::thread::current();
    let test = current.name().unwrap_or("?");
    tell(&format!("SKIPPED: {test}: {reason}"));
    if let Some(path) = std::env::var_os("LISTEND_TEST_SKIPS") {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        writeln!(file.unwrap(), "{test}: {reason}").unwrap();
    }
}

/// For who reads the output of a test.
#[expect(clippy::print_stdout, reason = "a test speaks to whoever runs it")]
pub fn tell(words: &str) {
    println!("{words}");
}
