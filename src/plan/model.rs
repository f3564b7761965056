//! The types of a plan.

use super::origin::Origin;
use crate::config::options::OptionSetting;
use crate::config::preset::Preset;
use crate::config::{
    ConnectionLimits, Distribute, Endpoint, Flows, Hook, Hooks, KillMode, Located, METRICS,
    Multicast, NotifyAccess, OnFailure, Output, Piece, Presence, Rate, Ready, Restart, Rollout,
    Scaling, Template, WATCH, WEB,
};
use crate::handoff::Handoff;
use crate::launch_spec::LaunchSpec;
use crate::report::Place;
use crate::sandbox::Sandbox;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Names a listener. Of the plans that follow each other in one daemon none gives the id of a listener
/// to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerId(pub u32);

/// Names a worker, as [`ListenerId`] does a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u32);

/// Names a socket of a listener, bound or not: the same address keeps its key, whichever listener it
/// belongs to, and no other socket ever gets it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketKey(pub u32);

/// The ids that have been given out: each number is the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) listener: u32,
    pub(super) worker: u32,
    pub(super) socket: u32,
}

/// The listeners to bind and the workers to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The listeners; in a plan that was just resolved, in the order of the configuration. Shared with the
    /// plans before and after it that have the same.
    #[serde(with = "as_list")]
    pub listeners: BTreeMap<ListenerId, Arc<ListenerPlan>>,
    /// The workers; in a plan that was just resolved, in the order of the configuration.
    #[serde(with = "as_list")]
    pub workers: BTreeMap<WorkerId, Arc<WorkerPlan>>,
    /// What it was resolved from.
    #[serde(skip)]
    pub origin: Arc<Origin>,
    #[serde(skip)]
    pub(super) ids: Ids,
}

/// Writes a plan that was just resolved as lists: its ids count their elements.
mod as_list {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub(super) fn serialize<K, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.values())
    }

    pub(super) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: From<u32> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let list: Vec<V> = Vec::deserialize(deserializer)?;
        Ok((0..).map(K::from).zip(list).collect())
    }
}

impl From<u32> for ListenerId {
    fn from(number: u32) -> ListenerId {
        ListenerId(number)
    }
}

impl From<u32> for WorkerId {
    fn from(number: u32) -> WorkerId {
        WorkerId(number)
    }
}

impl Plan {
    /// A plan of these, with ids from 0 on.
    pub fn new(
        listeners: impl IntoIterator<Item = ListenerPlan>,
        workers: impl IntoIterator<Item = WorkerPlan>,
    ) -> Plan {
        let mut listeners: Vec<ListenerPlan> = listeners.into_iter().collect();
        share(listeners.iter_mut().map(|one| &mut one.settings));
        let mut workers: Vec<WorkerPlan> = workers.into_iter().collect();
        share(workers.iter_mut().map(|one| &mut one.lifecycle));
        share(workers.iter_mut().map(|one| &mut one.environment));
        let listeners = listeners.into_iter().map(Arc::new);
        let workers = workers.into_iter().map(Arc::new);
        let mut plan = Plan {
            listeners: (0..).map(ListenerId).zip(listeners).collect(),
            workers: (0..).map(WorkerId).zip(workers).collect(),
            ..Plan::default()
        };
        plan.number_sockets();
        plan
    }

    /// A plan of nothing but these listeners, with the ids and keys that they have.
    pub fn of_listeners(listeners: BTreeMap<ListenerId, Arc<ListenerPlan>>) -> Plan {
        Plan {
            listeners,
            ..Plan::default()
        }
    }

    /// Gives keys to the sockets of a plan that was just made.
    pub(super) fn number_sockets(&mut self) {
        let listeners = self.listeners.values_mut();
        let sockets = listeners.flat_map(|one| &mut Arc::make_mut(one).sockets);
        for (key, socket) in (0..).map(SocketKey).zip(sockets) {
            socket.key = key;
        }
    }

    /// The listeners of which each instance of their worker has a socket of its own.
    pub(super) fn sharded(&self) -> BTreeSet<ListenerId> {
        let workers = self.workers.values();
        let workers = workers.filter(|one| one.lifecycle.distribute == Distribute::Shards);
        workers
            .flat_map(|one| one.listeners.iter().copied())
            .collect()
    }

    /// Every listener with its id.
    pub fn listeners(&self) -> impl Iterator<Item = (ListenerId, &ListenerPlan)> + Clone {
        self.listeners
            .iter()
            .map(|(id, listener)| (*id, &**listener))
    }

    /// Every worker with its id.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, &WorkerPlan)> + Clone {
        self.workers.iter().map(|(id, worker)| (*id, &**worker))
    }

    /// The listener with this id. Ids come from the same plan, so they always resolve.
    pub fn listener(&self, id: ListenerId) -> &ListenerPlan {
        &self.listeners[&id]
    }

    /// The listener with this id, if it is one of this plan.
    pub fn find_listener(&self, id: ListenerId) -> Option<&ListenerPlan> {
        self.listeners.get(&id).map(Arc::as_ref)
    }

    /// The name of a listener. A worker that a rollback has left by its old definition may have one that the
    /// plan has no more: `(removed)`.
    pub fn listener_name(&self, id: ListenerId) -> &str {
        let listener = self.find_listener(id);
        listener.map_or("(removed)", |listener| &listener.name)
    }

    /// The listeners of a worker that its templates name: what has to be known of them to fill those
    /// in.
    pub fn named_listeners(&self, worker: &WorkerPlan) -> Vec<ListenerId> {
        let output = match &worker.output {
            Output::File(path) => Some(path),
            Output::Inherit | Output::Null | Output::Tag | Output::TagJson | Output::Journal => {
                None
            }
        };
        let environment = worker.environment.iter().map(|(_, value)| value);
        let templates = worker.command.iter().chain(environment);
        let templates = templates
            .chain(&worker.argv0)
            .chain(&worker.launch.working_directory);
        let templates = templates.chain(output);
        let pieces = templates.flat_map(|template| &template.pieces);
        if pieces.clone().any(Piece::names_every_listener) {
            return worker.listeners.clone();
        }
        let names: BTreeSet<&str> = pieces.filter_map(Piece::listener).collect();
        let is_named = |id: &ListenerId| names.contains(self.listener(*id).name.as_str());
        worker.listeners.iter().copied().filter(is_named).collect()
    }

    /// The worker with this id. Ids come from the same plan, so they always resolve.
    pub fn worker(&self, id: WorkerId) -> &WorkerPlan {
        &self.workers[&id]
    }
}

/// A listener as resolved on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerPlan {
    /// The name in the configuration.
    pub name: String,
    /// The sockets to bind, in order.
    pub sockets: Vec<SocketPlan>,
    /// Everything else that is configured. Thousands of listeners differ in nothing but name and address:
    /// they share this.
    pub settings: Arc<ListenerSettings>,
    /// The places of the keys that messages point at.
    #[serde(skip)]
    pub places: Vec<(Cow<'static, str>, Place)>,
}

/// Lets what is the same be the same object, where it stands next to each other.
pub(super) fn share<'a, T: Eq + 'a>(all: impl IntoIterator<Item = &'a mut Arc<T>>) {
    let mut last: Option<Arc<T>> = None;
    for one in all {
        if let Some(same) = last.filter(|last| last == one) {
            *one = same;
        }
        last = Some(Arc::clone(one));
    }
}

/// What is configured for a listener beside its name and its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ListenerSettings {
    /// The backlog for listen(2).
    pub backlog: u32,
    /// The owner, group and mode of a path.
    pub access: Access,
    /// Socket options, in the order of [`crate::config::options::OPTIONS`].
    pub options: Vec<OptionSetting>,
    /// Multicast groups to join.
    pub multicast: Vec<Multicast>,
    /// The network namespace to bind in; `None` is listend's own.
    pub network_namespace: Option<PathBuf>,
    /// Symbolic links to make that lead to the path.
    pub symlinks: Vec<PathBuf>,
    /// Whether what was made in the file system is removed at the end.
    pub remove_on_stop: bool,
    /// Who may take it over the control socket, beside root and listend's own user.
    #[serde(default, skip_serializing_if = "Grant::is_nobody")]
    pub grant: Grant,
    /// The reaction to a failure to bind the listener.
    pub presence: Presence,
    /// Keep each flow with the generation of the worker that it was seen by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<Flows>,
}

impl ListenerPlan {
    /// A listener with these values, and the default for everything else.
    pub fn new(
        name: String,
        sockets: Vec<SocketPlan>,
        backlog: u32,
        access: Access,
    ) -> ListenerPlan {
        ListenerPlan {
            name,
            sockets,
            settings: Arc::new(ListenerSettings {
                backlog,
                access,
                options: Vec::new(),
                multicast: Vec::new(),
                network_namespace: None,
                symlinks: Vec::new(),
                remove_on_stop: true,
                grant: Grant::default(),
                presence: Presence::default(),
                flows: None,
            }),
            places: Vec::new(),
        }
    }

    /// The settings, to change those of this listener alone.
    pub fn settings_mut(&mut self) -> &mut ListenerSettings {
        Arc::make_mut(&mut self.settings)
    }

    /// How many sockets it has at each address: 1 unless each instance has one of its own.
    pub fn shards(&self) -> u32 {
        let last = self.sockets.last().map_or(0, |socket| socket.shard);
        last.saturating_add(1)
    }

    /// The first socket at each of its addresses.
    pub fn addresses(&self) -> &[SocketPlan] {
        &self.sockets[..self.sockets.len() / self.shards() as usize]
    }

    /// The index of the first shard's socket at the address of this one.
    pub fn first_of(&self, index: usize) -> usize {
        index % self.addresses().len().max(1)
    }

    /// Has at least so many sockets at each address, those that are new with the default key. All sockets
    /// of one shard stand together, so that what is added comes last.
    pub fn add_shards(&mut self, shards: u32) {
        let of_first = self.addresses().to_vec();
        for shard in self.shards()..shards {
            let more = of_first.iter().cloned();
            self.sockets.extend(more.map(|socket| SocketPlan {
                key: SocketKey::default(),
                shard,
                ..socket
            }));
        }
    }

    /// The same, so that it has this number of sockets, if it can.
    pub(super) fn add_shards_for(&mut self, sockets: usize) {
        let addresses = self.addresses().len().max(1);
        self.add_shards(u32::try_from(sockets / addresses).unwrap_or(0));
    }

    /// The keys of its sockets, in order.
    pub fn keys(&self) -> impl Iterator<Item = SocketKey> + '_ {
        self.sockets.iter().map(|socket| socket.key)
    }

    /// The index, from 0, of the socket with this key.
    pub fn position(&self, key: SocketKey) -> Option<usize> {
        self.keys().position(|one| one == key)
    }

    /// The place of a key, if it was written.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        let mut places = self.places.iter();
        places
            .find(|(name, _)| *name == key)
            .map(|(_, place)| *place)
    }
}

/// Who may take a listener, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The users.
    pub users: Vec<u32>,
    /// The groups.
    pub groups: Vec<u32>,
}

impl Grant {
    /// Whether nobody may.
    pub fn is_nobody(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Whether a process of this user, with these groups, may.
    pub fn permits(&self, uid: u32, mut groups: impl Iterator<Item = u32>) -> bool {
        self.users.contains(&uid) || groups.any(|group| self.groups.contains(&group))
    }
}

/// A socket to bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketPlan {
    /// The key of the socket in the table of held sockets; not from the configuration.
    #[serde(skip)]
    pub key: SocketKey,
    /// The address to bind.
    pub endpoint: Endpoint,
    /// Which of the sockets at this address, from 0 on: the shard of the instance with this number. There
    /// is only one unless the worker has `distribute: shards`.
    #[serde(default, skip_serializing_if = "is_first")]
    pub shard: u32,
    /// The place of the address in the configuration.
    #[serde(skip)]
    pub place: Place,
}

/// The identity of a socket: namespace and address. A socket of the running plan and one of the wanted
/// plan with the same identity are one socket. Whether the address is `optional` is no part of it.
pub(super) type Address = (Option<PathBuf>, Endpoint);

pub(super) fn address(listener: &ListenerPlan, socket: &SocketPlan) -> Address {
    let mut endpoint = socket.endpoint.clone();
    if let Endpoint::Inet { optional, .. } = &mut endpoint {
        *optional = false;
    }
    let namespace = listener.settings.network_namespace.clone();
    let namespace = namespace.filter(|_| endpoint.is_in_network_namespace());
    (namespace, endpoint)
}

/// What serde asks for a field that is left out where it says nothing.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_first(shard: &u32) -> bool {
    *shard == 0
}

/// The owner, group and mode of a unix path, FIFO or message queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Access {
    /// uid to own it; `None` leaves listend's own.
    pub owner: Option<u32>,
    /// gid of it; `None` leaves listend's own.
    pub group: Option<u32>,
    /// The permission bits.
    pub mode: u32,
    /// Permission bits of parent folders that have to be created.
    pub directory_mode: u32,
    /// uid to own those folders; `None` leaves listend's own.
    pub directory_owner: Option<u32>,
    /// gid of those folders; `None` leaves listend's own.
    pub directory_group: Option<u32>,
}

impl Access {
    /// For nobody but listend's own user, with folders that everybody may enter.
    pub const PRIVATE: Access = Access {
        owner: None,
        group: None,
        mode: 0o600,
        directory_mode: 0o755,
        directory_owner: None,
        directory_group: None,
    };
}

/// What serde asks for a field that is left out where it says nothing.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Plans of versions that could not leave LISTEN_PID out say nothing of it.
fn as_always_before() -> bool {
    true
}

/// A worker as resolved on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPlan {
    /// The name in the configuration.
    pub name: String,
    /// The place of the worker's name in the configuration.
    #[serde(skip)]
    pub place: Place,
    /// The server that it runs, for advice; its settings are those of the other fields.
    #[serde(skip)]
    pub preset: Option<Located<&'static Preset>>,
    /// The words of the command; never empty.
    pub command: Vec<Template>,
    /// `argv[0]`; `None` is the first word of the command.
    pub argv0: Option<Template>,
    /// The listeners it gets, in the order of their descriptors.
    pub listeners: Vec<ListenerId>,
    /// The protocols by which the descriptors are passed to it.
    pub handoff: Handoff,
    /// Whether LISTEN_PID is set.
    #[serde(default = "as_always_before")]
    pub listen_pid: bool,
    /// The whole environment but for the handoff's variables, in order, each name once. Shared with workers
    /// that have the same.
    pub environment: Arc<Vec<(String, Template)>>,
    /// A folder of its own.
    pub runtime_directory: Option<RuntimeDirectory>,
    /// The settings of its process.
    pub launch: LaunchSpec<Template>,
    /// What it is kept from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Box<Sandbox>>,
    /// Whether its program is `listend forward`, which connects to a server.
    #[serde(default, skip_serializing_if = "is_false")]
    pub forwards: bool,
    /// The destination of standard output and error.
    pub output: crate::config::Output,
    /// The processes that may send notifications (sd_notify(3)); `None` is no process.
    pub notify_access: Option<NotifyAccess>,
    /// The number of descriptors that an instance may store for its successor.
    pub fd_store: u32,
    /// A file that keeps it running while it exists, whether clients use it or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_unless: Option<PathBuf>,
    /// Commands around an instance's life.
    pub hooks: Hooks,
    /// Makes an instance read its own configuration again.
    pub reload_command: Option<Hook>,
    /// The part of the plan that the core decides by; shared with it, and with workers that have the same.
    pub lifecycle: Arc<Lifecycle>,
}

impl WorkerPlan {
    /// Whether this is a worker of listend's own, which is not in the configuration by name.
    pub fn is_built_in(&self) -> bool {
        is_built_in(&self.name)
    }

    /// The worker that this one restarts when files change.
    pub fn restarts(&self) -> Option<&str> {
        restarts(&self.name)
    }
}

/// See [`WorkerPlan::is_built_in`].
pub(super) fn is_built_in(name: &str) -> bool {
    name == WEB || name == METRICS || restarts(name).is_some()
}

fn restarts(name: &str) -> Option<&str> {
    name.strip_prefix(WATCH)
}

/// A folder that is made for a worker (systemd.exec(5), RuntimeDirectory=).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeDirectory {
    /// /run, or $XDG_RUNTIME_DIR of another user than root.
    pub base: PathBuf,
    /// The path below the base folder; never empty, and all its parts are names.
    pub name: PathBuf,
    /// The permission bits of the folder.
    pub mode: u32,
    /// Whether the directory is kept when the worker stops.
    pub preserve: bool,
}

impl RuntimeDirectory {
    /// The path of the folder.
    pub fn path(&self) -> PathBuf {
        self.base.join(&self.name)
    }
}

/// The settings of a worker that the core decides by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// The event that starts the worker.
    pub activation: Activation,
    /// The number of instances; 0 with [`Activation::PerConnection`], where each connection is one.
    pub instances: u32,
    /// How the number of instances follows the queues, from [`Lifecycle::instances`] on; `None` if it does
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// How clients reach them.
    #[serde(default)]
    pub distribute: Distribute,
    /// How long nobody may use an on-demand worker before it is stopped; `None` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// The settings for restarts.
    pub restart: Restart,
    /// Asks an instance to stop.
    pub stop_signal: i32,
    /// The processes that get the stop signal.
    pub kill_mode: KillMode,
    /// Whether the listeners, or with [`Activation::PerConnection`] the connections, are to have
    /// O_NONBLOCK.
    pub nonblocking: bool,
    /// The time between the stop signal and SIGKILL; `None` waits for ever.
    pub stop_timeout: Option<Duration>,
    /// The condition for an instance to count as ready.
    pub ready: Ready,
    /// The longest time from the start until the instance is ready; `None` waits for ever.
    pub start_timeout: Option<Duration>,
    /// The longest time between two signs of life; `None` does not ask for any.
    pub watchdog: Option<Duration>,
    /// The settings of a rollout.
    pub rollout: Rollout,
    /// The means that makes an instance read its own configuration again.
    pub reload: Option<ReloadBy>,
    /// The treatment of the listeners when all instances have failed.
    pub on_failure: OnFailure,
    /// The hooks of an instance, with their timeouts.
    pub hooks: HookTimes,
    /// Whether an instance that was replaced goes on with its flows (`flows: sticky`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_flows: bool,
    /// Whether its processes end with the listend that has started them, since they ask it over a connection
    /// that ends then: see [`WorkerPlan::is_built_in`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_with_listend: bool,
}

impl Default for Lifecycle {
    /// One eager instance, and the default for everything else.
    fn default() -> Self {
        Lifecycle {
            activation: Activation::Eager,
            instances: 1,
            scaling: None,
            distribute: Distribute::Shared,
            idle_timeout: None,
            restart: Restart::default(),
            stop_signal: nix::libc::SIGTERM,
            kill_mode: KillMode::Process,
            nonblocking: false,
            stop_timeout: Some(Duration::from_secs(30)),
            ready: Ready::Started,
            start_timeout: Some(Duration::from_secs(90)),
            watchdog: None,
            rollout: Rollout::default(),
            reload: None,
            on_failure: OnFailure::Hold,
            hooks: HookTimes::default(),
            keeps_flows: false,
            ends_with_listend: false,
        }
    }
}

/// The means that makes an instance read its own configuration again, as far as the core decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadBy {
    /// A signal.
    Signal(i32),
    /// A command, with its timeout.
    Command(Duration),
}

/// The hooks of an instance, with their timeouts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookTimes {
    /// The timeout of the command before each start.
    pub before_start: Option<Duration>,
    /// The timeout of the command that runs when the instance is ready.
    pub after_ready: Option<Duration>,
    /// The timeout of the command after the instance has ended.
    pub after_stop: Option<Duration>,
}

/// The event that starts a worker, with its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The start of listend.
    Eager,
    /// The first client. All instances start at once.
    OnDemand {
        /// The limit of such starts; `None` is unlimited.
        limit: Option<Rate>,
    },
    /// listend accepts, and starts a process for each connection. All listeners of the worker have
    /// connections.
    PerConnection(ConnectionLimits),
}
