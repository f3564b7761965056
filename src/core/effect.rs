//! What the core wants done.

use super::event::Event;
use super::types::{
    Answer, ConnectionId, InstanceId, Lane, ProcessId, Revision, Scope, Task, Ticket,
};
use crate::plan::{ListenerId, SocketKey, WorkerId};
use std::collections::BTreeSet;

/// Something to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start a process; answered by [`super::Input::Spawned`] or [`super::Input::LaunchFailed`].
    Spawn {
        /// The number of the new process.
        process: ProcessId,
        /// The instance to start.
        instance: InstanceId,
        /// The definition of the worker to start.
        revision: Revision,
        /// The task of the process: the program of the worker, or a hook.
        task: Task,
        /// The connection to serve, instead of the listeners.
        connection: Option<ConnectionId>,
        /// The sockets that it has for itself, where it has some.
        lane: Lane,
    },
    /// New flows of the worker go to the sockets of this instance from now on, if it has some for itself.
    TakeFlows {
        /// The worker.
        worker: WorkerId,
        /// The sockets.
        lane: Lane,
    },
    /// Tell [`super::Input::FlowsQuiet`] when no flow of these sockets was seen for its time, or at once if
    /// it does not have its flows for itself.
    WatchFlows {
        /// The worker.
        worker: WorkerId,
        /// The sockets.
        lane: Lane,
    },
    /// Nothing is started with these sockets any more.
    EndFlows {
        /// The worker.
        worker: WorkerId,
        /// The sockets.
        lane: Lane,
    },
    /// Send a signal. The process is one that was [`super::Input::Spawned`] and has not been
    /// [`super::Input::Exited`]; that it may be gone by now is no error.
    Signal {
        /// The process that gets the signal.
        process: ProcessId,
        /// The signal's number.
        signal: i32,
        /// To it alone or to more.
        scope: Scope,
    },
    /// Look whether a process takes clients; answered by [`super::Input::Evidence`].
    LookForEvidence {
        /// The process.
        process: ProcessId,
    },
    /// Read the configuration again, for the reload of [`super::Input::ReloadBlocked`].
    ReadAgain,
    /// Bind a listener that is missing; answered by [`super::Input::ListenerBound`] or
    /// [`super::Input::ListenerMissing`].
    Bind {
        /// The listener.
        listener: ListenerId,
    },
    /// Close a listener, so that its clients are refused; [`Effect::Bind`] binds it again.
    Unbind {
        /// The listener.
        listener: ListenerId,
    },
    /// Definitions of the worker are needed no longer: nothing will be started by them.
    Retire {
        /// The worker.
        worker: WorkerId,
        /// The only one that is still needed, besides the latest ([`super::Core::latest`]). `None` of
        /// a worker that was removed and of which nothing is left; its number is given to nobody
        /// any more.
        needed: Option<Revision>,
    },
    /// Make a socket take clients again; answered by [`super::Input::ListenerRepaired`] or
    /// [`super::Input::RepairFailed`].
    Repair {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// Tell [`super::Input::ClientWaits`] of this socket. Every socket of a worker that clients
    /// start is watched from when it is bound or repaired.
    Watch {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// Do not tell it any more.
    Unwatch {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// Accept one client; answered by [`super::Input::Accepted`] or [`super::Input::NotAccepted`].
    Accept {
        /// At which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
        /// What to call the connection from now on.
        connection: ConnectionId,
    },
    /// Close listend's own descriptor of a connection: its process has it, or nobody will.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
    /// Look who waits for a worker that has just ended; answered by [`super::Input::Looked`].
    LookForClients {
        /// The worker.
        worker: WorkerId,
    },
    /// Hold at least so many sockets at each address of a worker that has one for each instance.
    HoldShards {
        /// The worker.
        worker: WorkerId,
        /// How many.
        shards: u32,
    },
    /// Have the new clients of a worker sent to these shards. Whoever waits stays where it is.
    Steer {
        /// The worker.
        worker: WorkerId,
        /// The numbers of the shards; never empty.
        shards: BTreeSet<u32>,
    },
    /// Look whether clients wait in the shard of an instance; answered by [`super::Input::ShardLooked`].
    LookAtShard {
        /// The process of the instance.
        process: ProcessId,
    },
    /// Look how many clients wait for a worker; answered by [`super::Input::QueuesSeen`].
    LookAtQueues {
        /// The worker.
        worker: WorkerId,
    },
    /// Look who uses a worker, and notice whoever comes from now on; answered by
    /// [`super::Input::UseSeen`].
    LookForUse {
        /// The worker.
        worker: WorkerId,
    },
    /// Start or stop telling about [`super::Input::AddressesChanged`].
    WatchAddresses {
        /// Whether somebody waits for an address.
        wanted: bool,
    },
    /// Tell whoever asked.
    Answer {
        /// What was asked.
        ticket: Ticket,
        /// What has come of it.
        answer: Answer,
    },
    /// Close every listener and remove the unix paths that were made. No process is left.
    CloseListeners,
    /// End listend. Comes once, and nothing after it.
    Exit {
        /// The exit status.
        code: u8,
    },
    /// Tell whoever listens: the log, later the metrics and the control socket.
    Emit(Event),
}
