//! The commands for a worker, a row for each: what it is called, what it is given, what it makes the
//! core do and what is said when it is done.
//!
//! The control interface, the answers of the daemon, the command line, the completions and
//! `listend top` read the table. A new command is a row here and a decision in the core.

/// What is to be done with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Start what does not run, also what has failed; a worker that clients start waits for them.
    Start,
    /// Stop everything, and start nothing until [`Command::Start`] or [`Command::Restart`].
    Stop,
    /// Replace the instances by ones of the configuration in force, as the worker's rollout says, and
    /// go back if the new ones fail.
    Restart,
    /// Run so many instances from now on.
    Scale(u32),
    /// Have the number of instances follow the queues again.
    Follow,
    /// Send every process this signal.
    Signal(i32),
    /// Forget crashes, and start again what has failed.
    Reset,
    /// Have every instance that is ready read its own configuration again.
    Reload,
}

/// What a verb is given besides the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: the command is known.
    Nothing(Command),
    /// The number of instances, for [`Command::Scale`], or none for [`Command::Follow`].
    Instances,
    /// The name of a signal, for [`Command::Signal`].
    Signal,
}

/// A row.
#[derive(Debug, PartialEq, Eq)]
pub struct Verb {
    /// The method of `io.listend.Manager`.
    pub method: &'static str,
    /// On the command line and in the log: `restart`.
    pub name: &'static str,
    /// What the help says about it.
    pub about: &'static str,
    /// What it is given.
    pub takes: Takes,
    /// Whether it takes time: it tells its progress, and can be told not to wait (`no_wait`).
    pub waits: bool,
    /// What was done: `restarted`.
    pub done: &'static str,
}

/// Starts a worker.
pub const START: Verb = Verb {
    method: "Start",
    name: "start",
    about: "Start workers that are stopped or have failed",
    takes: Takes::Nothing(Command::Start),
    waits: true,
    done: "started",
};

/// Stops a worker.
pub const STOP: Verb = Verb {
    method: "Stop",
    name: "stop",
    about: "Stop workers; their listeners stay bound",
    takes: Takes::Nothing(Command::Stop),
    waits: true,
    done: "stopped",
};

/// Replaces the processes of a worker.
pub const RESTART: Verb = Verb {
    method: "Restart",
    name: "restart",
    about: "Replace the processes of workers",
    takes: Takes::Nothing(Command::Restart),
    waits: true,
    done: "restarted",
};

/// All verbs that are for workers only, in the order of the help.
pub static VERBS: [Verb; 6] = [
    START,
    STOP,
    RESTART,
    Verb {
        method: "Scale",
        name: "scale",
        about: "Set the number of instances of a worker, until a reload changes its `instances`",
        takes: Takes::Instances,
        waits: true,
        done: "scaled",
    },
    Verb {
        method: "Signal",
        name: "signal",
        about: "Send a signal to the main processes of a worker, or reopen the log files",
        takes: Takes::Signal,
        waits: false,
        done: "signalled",
    },
    Verb {
        method: "Reset",
        name: "reset",
        about: "Clear the failures of workers, so that they can be started again",
        takes: Takes::Nothing(Command::Reset),
        waits: false,
        done: "its failures are cleared",
    },
];

/// Has a worker read its own configuration again. Without a worker the same method and the same verb
/// are about the configuration of listend.
pub static RELOAD: Verb = Verb {
    method: "Reload",
    name: "reload",
    about: "Make the daemon read its configuration again and apply the changes",
    takes: Takes::Nothing(Command::Reload),
    waits: true,
    done: "told to reload its configuration",
};

/// The verb for workers that the command line calls so.
pub fn named(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}
