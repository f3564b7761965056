//! What the core wants done.

use super::event::Event;
use super::types::{Answer, ConnectionId, Edition, InstanceId, ProcessId, Scope, Task, Ticket};
use crate::plan::{ListenerId, WorkerId};

/// Something to do, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Start a process; answered by [`super::Input::Spawned`] or [`super::Input::LaunchFailed`].
    Spawn {
        /// What to call it from now on.
        process: ProcessId,
        /// What it is to be.
        instance: InstanceId,
        /// By which definition of the worker.
        edition: Edition,
        /// What it is for.
        task: Task,
        /// What it serves instead of listeners.
        connection: Option<ConnectionId>,
    },
    /// Send a signal. The process is one that was [`super::Input::Spawned`] and has not been
    /// [`super::Input::Exited`]; that it may be gone by now is no error.
    Signal {
        /// To which.
        process: ProcessId,
        /// The signal's number.
        signal: i32,
        /// To it alone or to more.
        scope: Scope,
    },
    /// Look whether a process takes clients; answered by [`super::Input::Evidence`].
    LookForEvidence {
        /// Which.
        process: ProcessId,
    },
    /// Bind a listener that is missing; answered by [`super::Input::ListenerBound`] or
    /// [`super::Input::ListenerMissing`].
    Bind {
        /// Which.
        listener: ListenerId,
    },
    /// Close a listener, so that its clients are refused; [`Effect::Bind`] binds it again.
    Unbind {
        /// Which.
        listener: ListenerId,
    },
    /// Of all definitions of the worker only this one is needed any more.
    Retire {
        /// Which worker.
        worker: WorkerId,
        /// Which definition.
        edition: Edition,
    },
    /// Nothing is left of a worker that was removed: its number may be given to another.
    Gone {
        /// Which.
        worker: WorkerId,
    },
    /// Make a socket take clients again; answered by [`super::Input::ListenerRepaired`] or
    /// [`super::Input::RepairFailed`].
    Repair {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
    },
    /// Tell [`super::Input::ClientWaits`] of this socket. Every socket of a worker that clients
    /// start is watched from when it is bound or repaired.
    Watch {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
    },
    /// Do not tell it any more.
    Unwatch {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
    },
    /// Accept one client; answered by [`super::Input::Accepted`] or [`super::Input::NotAccepted`].
    Accept {
        /// At which listener.
        listener: ListenerId,
        /// At which of its sockets.
        socket: u32,
        /// What to call the connection from now on.
        connection: ConnectionId,
    },
    /// Close listend's own descriptor of a connection: its process has it, or nobody will.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Look who waits for a worker that has just ended; answered by [`super::Input::Looked`].
    LookForClients {
        /// Which.
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
