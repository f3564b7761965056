//! The answer of `Status`. The keys and words are stable: more may come, none goes.
//!
//! `docs/io.listend.Manager.varlink` describes the same shape; a test compares them.

use serde::{Deserialize, Serialize};

/// Listeners and workers, in the order of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// listend itself; a daemon of an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon: Option<Daemon>,
    /// All listeners, or the one that was asked for.
    pub listeners: Vec<Listener>,
    /// All workers, or the one that was asked for.
    pub workers: Vec<Worker>,
}

/// listend itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// The version of the program that runs.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// When listend started ([`super::rfc3339`]). An upgrade does not change it, nor does a
    /// start that continues from the snapshot of a daemon that was killed.
    pub since: String,
    /// When the present program was executed: at the start, the last upgrade, or the start after the previous daemon was
    /// killed.
    pub version_since: String,
    /// The path of the configuration; `None` if there is none.
    pub configuration: Option<String>,
    /// The file that the program was executed from, as it was then; `None` if it cannot be found.
    pub binary: Option<Binary>,
}

/// A file, by what stays the same until it is replaced or written to (stat(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binary {
    /// The path that an upgrade without a path executes.
    pub path: String,
    /// The device that the file is on.
    pub device: u64,
    /// The inode number.
    pub inode: u64,
    /// When it was last written to, in nanoseconds since 1970.
    pub modified: i64,
}

/// A listener, with its sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The name in the configuration.
    pub name: String,
    /// The sockets, in the order in which workers get them.
    pub sockets: Vec<Socket>,
    /// The state of the listener.
    pub state: ListenerState,
    /// The names of the workers that take it.
    pub workers: Vec<String>,
    /// The details, only in the answer to a request with a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
}

/// One socket of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The address as in the configuration: `127.0.0.1:8080`, `unix:/run/app.sock`.
    pub address: String,
    /// The kind of the address: `tcp`, `unix`, `fifo` and so on.
    pub kind: String,
    /// `None` for what has no queue.
    pub queue: Option<Queue>,
    /// The number of the instance that has it, where each has one of its own at this address.
    #[serde(default)]
    pub shard: Option<u64>,
    /// The flows that each instance has, where they stay with their generation; `None` elsewhere, and where
    /// the kernel does not let listend steer them.
    #[serde(default)]
    pub flows: Option<Vec<Flows>>,
}

impl Socket {
    /// The address, with the number of the shard.
    pub fn name(&self) -> String {
        match self.shard {
            Some(shard) => format!("{} #{shard}", self.address),
            None => self.address.clone(),
        }
    }
}

/// The flows of one instance at one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// The instance: `app.0`; `None` if it has no process at the moment.
    pub instance: Option<String>,
    /// The generation of the instance; `None` without a process.
    pub generation: Option<u32>,
    /// Whether new flows go there.
    pub present: bool,
    /// How many it has; `None` if the kernel does not tell.
    pub count: Option<u64>,
}

/// The queue of a socket. Where clients connect depth and limit count connections, in a POSIX
/// message queue messages, and bytes everywhere else: at datagram sockets (the memory that the
/// datagrams take, which is more than their length, out of SO_RCVBUF), netlink and FIFOs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The connections, messages or bytes that wait; `None` where the kernel does not tell.
    pub depth: Option<u64>,
    /// The largest depth; `None` where the kernel does not tell.
    pub limit: Option<u64>,
    /// Connections or datagrams, never bytes, that the kernel dropped; `None` where it does not
    /// count them.
    pub drops: Option<u64>,
}

/// The state of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerState {
    /// Every socket is bound and accepts clients.
    Listening,
    /// A socket is not bound; binding is retried.
    Missing,
    /// Shut down or without its path; about to be repaired.
    Damaged,
    /// The queue is full: clients are turned away.
    Full,
    /// Clients wait and none was accepted for 10 seconds, or what runs of its workers runs by a
    /// definition that does not have it.
    Unserved,
    /// The kernel has dropped clients or messages of late.
    Dropping,
    /// Removed from the configuration, and held for processes of a former definition.
    Former,
    /// Given by another process, and held until the configuration has its address.
    Given,
    /// A word of a newer listend.
    #[serde(untagged)]
    Other(String),
}

/// A worker, with its instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The name in the configuration.
    pub name: String,
    /// `eager`, `on-demand` or `per-connection`.
    pub activation: String,
    /// The number of times that the set of instances was replaced.
    pub generation: u32,
    /// All in all.
    pub state: WorkerState,
    /// The reason for the last rollback, or why the processes of connections fail; `None` without such
    /// a failure.
    #[serde(default)]
    pub setback: Option<String>,
    /// How the number of instances follows the queues; `None` if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// When the worker was stopped because no client used it ([`super::rfc3339`]); `None`
    /// for any other worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<String>,
    /// The instances; during a rollout those of both generations.
    pub instances: Vec<Instance>,
    /// The names of its listeners.
    pub listeners: Vec<String>,
    /// Where its output goes, as in the configuration; a daemon of an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// `None` for a worker that accepts its connections itself.
    #[serde(default)]
    pub connections: Option<Connections>,
    /// The details, only in the answer to a request with a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Box<Detail>>,
}

impl Listener {
    /// Whether there is nothing to worry about.
    pub fn is_well(&self) -> bool {
        self.state.is_well()
    }
}

impl Worker {
    /// The word for the kind of the setback.
    pub fn setback_word(&self) -> &'static str {
        match self.connections {
            None => "rolled back",
            Some(_) => "connections fail",
        }
    }

    /// Whether there is nothing to worry about with it and its instances.
    pub fn is_well(&self) -> bool {
        self.state.is_well() && self.instances.iter().all(Instance::is_well)
    }

    /// The instance of a worker that has one, and is meant to have no more: the two are shown as
    /// one.
    pub fn only_instance(&self) -> Option<&Instance> {
        let [only] = self.instances.as_slice() else {
            return None;
        };
        let rest = only.name.strip_prefix(&self.name)?;
        matches!(rest, "" | ".0").then_some(only)
    }
}

/// An instance of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The name in the configuration.
    pub name: String,
    /// The generation of the instance; two generations overlap during a rollout.
    #[serde(default)]
    pub generation: u32,
    /// `None` where there is no process.
    pub pid: Option<u32>,
    /// The state of the instance; never [`WorkerState::Degraded`].
    pub state: WorkerState,
    /// Whether it is starting because its last process crashed; a daemon of an earlier version does not say.
    #[serde(default)]
    pub retrying: bool,
    /// Whether the instance has reported that it reads its own configuration again.
    #[serde(default)]
    pub reloading: bool,
    /// The status that the process reports about itself (`STATUS=` of sd_notify(3)), for people.
    #[serde(default)]
    pub status: Option<String>,
    /// When it entered its state ([`super::rfc3339`]).
    pub since: String,
    /// The number of restarts.
    pub restarts: u64,
    /// The end of the last process, in words; `None` if none has ended.
    pub last_exit: Option<String>,
    /// The exit status of that process; `None` where it has none.
    #[serde(default)]
    pub exit_status: Option<i32>,
    /// The signal that killed that process, by name; `None` where none did.
    #[serde(default)]
    pub exit_signal: Option<String>,
    /// The time of the next start, or of the end of `cool_down`, as [`super::rfc3339`] has it; `None`
    /// if there is none.
    #[serde(default)]
    pub next_try: Option<String>,
    /// What its processes use. The daemon does not look: whoever asks may, see [`crate::usage`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What the processes of an instance use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The number of processes.
    pub processes: u64,
    /// The CPU time since they were started, and that of processes of theirs that have ended.
    pub cpu_milliseconds: u64,
    /// Of one with a control group the memory that counts there, caches of files included; else what is
    /// resident: what they share counts for each.
    pub memory_bytes: u64,
    /// The most of it that there was, of one with a control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// How many of them were killed for want of memory, of one with a control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
}

impl Usage {
    /// Adds what others use.
    pub fn add(&mut self, other: Usage) {
        self.processes += other.processes;
        self.cpu_milliseconds += other.cpu_milliseconds;
        self.memory_bytes += other.memory_bytes;
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one + other),
            (known, None) | (None, known) => known,
        };
        self.memory_peak_bytes = sum(self.memory_peak_bytes, other.memory_peak_bytes);
        self.oom_kills = sum(self.oom_kills, other.oom_kills);
    }

    /// The CPU time for people: `0.35s`, `12s`, `5m`, `3.2h`.
    pub fn cpu(&self) -> String {
        let seconds = self.cpu_milliseconds / 1000;
        match seconds {
            0..10 => format!("{}.{:02}s", seconds, self.cpu_milliseconds % 1000 / 10),
            10..600 => format!("{seconds}s"),
            600..36_000 => format!("{}m", seconds / 60),
            _ => format!("{}h", seconds / 3600),
        }
    }

    /// The most memory for people, if it is known.
    pub fn peak(&self) -> Option<String> {
        self.memory_peak_bytes.map(memory)
    }

    /// The memory for people.
    pub fn memory(&self) -> String {
        memory(self.memory_bytes)
    }
}

/// Bytes for people: `812K`, `3.4M`, `1.2G`.
fn memory(bytes: u64) -> String {
    let mut tenths = bytes.saturating_mul(10) / 1024;
    for unit in ["K", "M", "G"] {
        match tenths {
            0..100 if unit != "K" => return format!("{}.{}{unit}", tenths / 10, tenths % 10),
            0..10_240 => return format!("{}{unit}", tenths / 10),
            _ => tenths /= 1024,
        }
    }
    format!("{}T", tenths / 10)
}

impl Scaling {
    /// In a line below the worker, which has so many instances.
    pub fn words(&self, now: usize) -> String {
        let Scaling {
            min,
            max,
            scale_up_at,
            overridden,
        } = self;
        let how = match overridden {
            true => "set by hand; `listend scale WORKER auto` ends that".to_owned(),
            false => format!("one more when over {scale_up_at} wait"),
        };
        format!("instances: {now} of {min} to {max}, {how}")
    }
}

impl Queue {
    /// `3/4096`, and `-` for what is unknown.
    pub fn fill(self) -> String {
        match (self.depth, self.limit) {
            (None, None) => "-".to_owned(),
            (Some(depth), None) => depth.to_string(),
            (Some(depth), Some(limit)) => format!("{depth}/{limit}"),
            (None, Some(limit)) => format!("-/{limit}"),
        }
    }
}

impl Instance {
    /// Whether there is nothing to worry about.
    pub fn is_well(&self) -> bool {
        self.state.is_well() && !self.retrying
    }

    /// The state for people: an instance that reads its configuration again runs, and is shown as
    /// reloading.
    pub fn word(&self) -> &str {
        match &self.state {
            WorkerState::Running if self.reloading => "reloading",
            WorkerState::Starting if self.retrying => "retrying",
            state => state.word(),
        }
    }
}

/// The state of a worker or an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// The program runs.
    Running,
    /// The process is on its way to the program.
    Starting,
    /// Waiting for a client that starts it, or for a listener.
    Waiting,
    /// Crashed; started again soon.
    Backoff,
    /// Failed and not restarted.
    Failed,
    /// Asked to stop.
    Stopping,
    /// Stopped on request.
    Stopped,
    /// Some instances of the worker have failed, others have not; or its last rollout went back.
    Degraded,
    /// A word of a newer listend.
    #[serde(untagged)]
    Other(String),
}

/// How the number of instances follows the queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// The least number.
    pub min: u64,
    /// The largest.
    pub max: u64,
    /// With more clients than that in the queues, one is added.
    pub scale_up_at: u64,
    /// Whether `listend scale` has set the number, so that it follows nothing.
    pub overridden: bool,
}

/// The connections of a per-connection worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// The connections that are open now.
    pub live: u64,
    /// Accepted since listend started.
    pub accepted: u64,
    /// Closed without a process, because a limit was reached.
    pub refused: u64,
    /// The number of last connections in a row whose process failed.
    #[serde(default)]
    pub failures: u64,
}

/// More about a listener or a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// The place in the configuration, `file:line`; `None` for what came from the command line.
    pub place: Option<String>,
    /// The socket options that were asked for or are worth knowing; none for a worker.
    #[serde(default)]
    pub options: Vec<SocketOption>,
    /// The lifecycle of a worker; `None` for a listener.
    #[serde(default)]
    pub life: Option<Life>,
    /// Who may take a listener, beside root and the daemon's own user: `uid 1000`, `gid 33`.
    #[serde(default)]
    pub grant: Vec<String>,
    /// When and by whom a listener was last taken, as far as events are kept.
    #[serde(default)]
    pub taken: Option<String>,
}

/// The lifecycle of a worker, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The condition for readiness: `started`, `notify`, `accepting all`, `fd 3`.
    pub ready: String,
    /// The settings of a rollout, and whether one is under way.
    pub rollout: Rollout,
    /// The longest time between two signs of life; `None` asks for none.
    pub watchdog: Option<String>,
    /// The number of descriptors that all instances have stored for their successors.
    pub stored: u64,
    /// The number of descriptors that each instance may store.
    pub fd_store: u64,
}

/// The settings of a rollout, and whether one is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// `start-first` or `stop-first`.
    pub order: String,
    /// The number of instances replaced at a time.
    pub parallel: u64,
    /// The time for which a new instance has to stay ready before the rollout goes on.
    pub min_ready: String,
    /// Whether a rollout is under way.
    pub under_way: bool,
}

/// A socket option.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOption {
    /// The address of the socket that has the option.
    pub address: String,
    /// The key of the configuration.
    pub name: String,
    /// `None` where the configuration does not have it.
    pub asked: Option<String>,
    /// The value that the kernel reports; `None` where it does not.
    pub effective: Option<String>,
}

impl ListenerState {
    /// The word on the wire.
    pub fn word(&self) -> &str {
        match self {
            ListenerState::Listening => "listening",
            ListenerState::Missing => "missing",
            ListenerState::Damaged => "damaged",
            ListenerState::Full => "full",
            ListenerState::Unserved => "unserved",
            ListenerState::Dropping => "dropping",
            ListenerState::Former => "former",
            ListenerState::Given => "given",
            ListenerState::Other(word) => word,
        }
    }

    /// The explanation of the word, for people.
    fn meaning(&self) -> &'static str {
        match self {
            ListenerState::Unserved => ": no worker accepts its clients",
            ListenerState::Dropping => ": the kernel has dropped some of what clients sent",
            ListenerState::Listening
            | ListenerState::Missing
            | ListenerState::Damaged
            | ListenerState::Full
            | ListenerState::Former
            | ListenerState::Given
            | ListenerState::Other(_) => "",
        }
    }

    fn is_well(&self) -> bool {
        match self {
            ListenerState::Listening | ListenerState::Former | ListenerState::Given => true,
            ListenerState::Missing
            | ListenerState::Damaged
            | ListenerState::Full
            | ListenerState::Unserved
            | ListenerState::Dropping
            | ListenerState::Other(_) => false,
        }
    }
}

impl WorkerState {
    /// The word on the wire.
    pub fn word(&self) -> &str {
        match self {
            WorkerState::Running => "running",
            WorkerState::Starting => "starting",
            WorkerState::Waiting => "waiting",
            WorkerState::Backoff => "backoff",
            WorkerState::Failed => "failed",
            WorkerState::Stopping => "stopping",
            WorkerState::Stopped => "stopped",
            WorkerState::Degraded => "degraded",
            WorkerState::Other(word) => word,
        }
    }

    /// Stopped is well: somebody wanted it.
    fn is_well(&self) -> bool {
        match self {
            WorkerState::Running
            | WorkerState::Starting
            | WorkerState::Waiting
            | WorkerState::Stopping
            | WorkerState::Stopped => true,
            WorkerState::Backoff
            | WorkerState::Failed
            | WorkerState::Degraded
            | WorkerState::Other(_) => false,
        }
    }
}

/// Whether there is nothing to worry about. A state that this version does not know is something to
/// worry about.
pub fn all_is_well(status: &Status) -> bool {
    status.listeners.iter().all(Listener::is_well) && status.workers.iter().all(Worker::is_well)
}

/// The failures of a status, a line each: ``listener `web` is missing``.
pub fn troubles(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    for listener in status.listeners.iter().filter(|one| !one.is_well()) {
        let (name, word) = (&listener.name, listener.state.word());
        let why = listener.state.meaning();
        lines.push(format!("listener `{name}` is {word}{why}"));
    }
    for worker in status.workers.iter().filter(|one| !one.is_well()) {
        let setback = worker.setback.as_ref();
        let accepts = worker.connections.is_some();
        if let Some(setback) = setback.filter(|_| !accepts) {
            let (name, what) = (&worker.name, worker.setback_word());
            lines.push(format!("worker `{name}`: {what}: {setback}"));
        }
        let ill = worker.instances.iter().filter(|one| !one.is_well());
        let before = lines.len();
        for instance in ill {
            let whose = match instance.name == worker.name {
                true => format!("worker `{}`", worker.name),
                false => format!("instance `{}` of worker `{}`", instance.name, worker.name),
            };
            let why = instance.last_exit.as_deref();
            let why = why.map_or(String::new(), |words| format!(": {words}"));
            lines.push(format!("{whose}: {}{why}", instance.word()));
        }
        if lines.len() == before && (setback.is_none() || accepts) {
            let why = worker.connections.map_or(0, |some| some.failures);
            let why = match why {
                0 => String::new(),
                many => format!(": the processes of the last {many} connections failed"),
            };
            let last = setback.map_or(String::new(), |words| format!(": {words}"));
            let (name, word) = (&worker.name, worker.state.word());
            lines.push(format!("worker `{name}`: {word}{why}{last}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_short() {
        let of = |cpu_milliseconds, memory_bytes| {
            let usage = Usage {
                processes: 1,
                cpu_milliseconds,
                memory_bytes,
                ..Usage::default()
            };
            (usage.cpu(), usage.memory())
        };
        for (cpu, memory, words) in [
            (0, 0, ("0.00s", "0K")),
            (9_999, 812 << 10, ("9.99s", "812K")),
            (10_000, 1 << 20, ("10s", "1.0M")),
            (599_999, 35 << 20, ("599s", "35M")),
            (600_000, 1023 << 20, ("10m", "1023M")),
            (36_000_000, 5 << 40, ("10h", "5T")),
        ] {
            let words = (words.0.to_owned(), words.1.to_owned());
            assert_eq!(of(cpu, memory), words);
        }
    }

    fn instance(name: &str, state: WorkerState, last_exit: Option<&str>) -> Instance {
        Instance {
            name: name.to_owned(),
            generation: 1,
            pid: None,
            state,
            retrying: false,
            reloading: false,
            status: None,
            since: super::super::rfc3339(0),
            restarts: 0,
            last_exit: last_exit.map(str::to_owned),
            exit_status: None,
            exit_signal: None,
            next_try: None,
            usage: None,
        }
    }

    fn worker(state: WorkerState, instances: Vec<Instance>) -> Worker {
        Worker {
            name: "app".to_owned(),
            activation: "eager".to_owned(),
            generation: 1,
            state,
            setback: None,
            instances,
            scaling: None,
            listeners: Vec::new(),
            output: None,
            connections: None,
            unused_since: None,
            detail: None,
        }
    }

    fn listener(state: ListenerState) -> Listener {
        Listener {
            name: "web".to_owned(),
            sockets: Vec::new(),
            state,
            workers: Vec::new(),
            detail: None,
        }
    }

    fn with(listener: Listener, worker: Worker) -> Status {
        Status {
            daemon: None,
            listeners: vec![listener],
            workers: vec![worker],
        }
    }

    #[test]
    fn the_words_are_those_on_the_wire() {
        for word in [
            "listening",
            "missing",
            "damaged",
            "full",
            "unserved",
            "dropping",
            "melted",
        ] {
            let state: ListenerState = serde_json::from_value(json!(word)).unwrap();
            assert_eq!(state.word(), word);
            assert_eq!(matches!(state, ListenerState::Other(_)), word == "melted");
            assert_eq!(serde_json::to_value(&state).unwrap(), json!(word));
        }
        for word in [
            "running", "starting", "waiting", "backoff", "failed", "stopping", "stopped",
            "degraded", "asleep",
        ] {
            let state: WorkerState = serde_json::from_value(json!(word)).unwrap();
            assert_eq!(state.word(), word);
            assert_eq!(matches!(state, WorkerState::Other(_)), word == "asleep");
            assert_eq!(serde_json::to_value(&state).unwrap(), json!(word));
        }
    }

    #[test]
    fn what_is_wanted_is_well() {
        for state in [
            WorkerState::Running,
            WorkerState::Waiting,
            WorkerState::Stopped,
        ] {
            let one = instance("app", state.clone(), None);
            let status = with(listener(ListenerState::Listening), worker(state, vec![one]));
            assert!(all_is_well(&status));
            assert_eq!(troubles(&status), Vec::<String>::new());
        }
    }

    #[test]
    fn trouble_is_told_once_where_it_is() {
        let two = vec![
            instance("app-1", WorkerState::Running, Some("exit status 0")),
            instance("app-2", WorkerState::Failed, Some("exit status 3")),
        ];
        let status = with(
            listener(ListenerState::Missing),
            worker(WorkerState::Degraded, two),
        );
        assert!(!all_is_well(&status));
        assert_eq!(
            troubles(&status),
            [
                "listener `web` is missing",
                "instance `app-2` of worker `app`: failed: exit status 3"
            ]
        );
        let one = instance("app", WorkerState::Running, None);
        let mut rolled_back = worker(WorkerState::Degraded, vec![one]);
        rolled_back.setback = Some("app: exited with status 3".to_owned());
        let status = with(listener(ListenerState::Listening), rolled_back);
        assert!(!all_is_well(&status));
        assert_eq!(
            troubles(&status),
            ["worker `app`: rolled back: app: exited with status 3"]
        );
        let one = instance("app", WorkerState::Backoff, None);
        let status = with(
            listener(ListenerState::Listening),
            worker(WorkerState::Backoff, vec![one]),
        );
        assert_eq!(troubles(&status), ["worker `app`: backoff"]);
        let first = instance("app", WorkerState::Starting, None);
        let mut again = instance("app", WorkerState::Starting, Some("exit status 3"));
        again.retrying = true;
        for (one, said) in [
            (first, &[][..]),
            (again, &["worker `app`: retrying: exit status 3"]),
        ] {
            let one = worker(WorkerState::Starting, vec![one]);
            let status = with(listener(ListenerState::Listening), one);
            assert_eq!(troubles(&status), said);
            assert_eq!(all_is_well(&status), said.is_empty());
        }
        let unknown = WorkerState::Other("asleep".to_owned());
        let status = with(
            listener(ListenerState::Listening),
            worker(unknown, Vec::new()),
        );
        assert_eq!(troubles(&status), ["worker `app`: asleep"]);
    }
}
