//! Errors and notes of binding, as data; `diagnose` puts them into words.

use super::read_back::Effective;
use crate::config::{Endpoint, Presence};
use crate::plan::{ListenerId, Plan};
use crate::walk::{Refused, Why};
use std::io;
use std::path::PathBuf;

/// The purpose of binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The sockets are kept, to serve.
    Keep,
    /// To see whether it would work: leaves no socket behind, and neither makes nor removes a path or
    /// a folder, not even for a moment.
    Try,
}

/// The steps of binding one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindStep {
    /// mkdir(2) of a parent folder of a unix path, or reaching it.
    CreateFolder,
    /// lstat(2) and connect(2), to see what is at a unix path.
    Probe,
    /// unlink(2) of a stale unix socket.
    RemoveStale,
    /// setns(2) into the listener's network namespace, or opening its path.
    EnterNamespace,
    /// setns(2) back. Whatever was to be bound afterwards has not been: it would have ended up in
    /// the wrong namespace. Nothing tolerates this.
    LeaveNamespace,
    /// socket(2), or any call that shows that the kernel lacks this kind (ENOSYS).
    Socket,
    /// mkfifo(3), open(2) or mq_open(3) of what is no socket.
    Open,
    /// setsockopt(2) of the named option; or `scope`: there is no such interface (ENODEV).
    SetOption(&'static str),
    /// Bind the address, bind(2).
    Bind,
    /// chown(2) of a unix path.
    SetOwner,
    /// chmod(2) of a unix path.
    SetMode,
    /// The call of listen(2).
    Listen,
    /// symlink(2) or rename(2) of a link to a unix path.
    Symlink,
    /// Reading back what was bound: getsockname(2), or stat(2) of a unix path.
    ReadBack,
}

/// An obstacle that an errno alone would not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A server is bound to the unix path.
    LiveServer {
        /// The inode of its socket, where the kernel shows it (sock_diag(7)).
        socket: Option<u32>,
    },
    /// The path is taken by something that is no socket, or is not what the listener asks for; in
    /// words, with its article.
    NotASocket(&'static str),
    /// A socket is at the path, and connect(2) may not tell whether a server has it.
    Unprobed,
    /// Another process changed the path during the attempt.
    Interference,
    /// A folder or link on the way can be replaced by other users.
    OtherHands(Why),
}

/// A socket that could not be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindError {
    /// Of which listener.
    pub listener: ListenerId,
    /// Index into [`crate::plan::ListenerPlan::sockets`].
    pub socket: usize,
    /// The step that failed.
    pub step: BindStep,
    /// The errno of the system call; EADDRINUSE or EEXIST where there was an obstacle instead.
    pub errno: i32,
    /// The obstacle, if it is known.
    pub obstacle: Option<Obstacle>,
    /// The path the step was about: a folder, or the unix path.
    pub path: Option<PathBuf>,
}

/// A success that differs from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The listener concerned.
    pub listener: ListenerId,
    /// Index into [`crate::plan::ListenerPlan::sockets`].
    pub socket: usize,
    /// The difference.
    pub kind: NoteKind,
}

/// A difference from the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteKind {
    /// A unix socket nobody listened on was replaced.
    StaleReplaced,
    /// A start would replace a stale socket; binding was only tried.
    StaleWouldBeReplaced,
    /// This machine has no IPv6, or no ::1, and the address is optional.
    FamilyMissing {
        /// EAFNOSUPPORT or EADDRNOTAVAIL.
        errno: i32,
        /// The address bound instead; `None` if there is none.
        instead: Option<Endpoint>,
    },
    /// The kernel accepted an option, and made something else of it.
    OptionChanged(Effective),
}

impl BindError {
    /// Whether the plan can do without this socket for now: its listener is `optional`, or it waits
    /// for an address and that is what is missing (or the interface that the address is on).
    pub fn is_tolerated(&self, plan: &Plan) -> bool {
        if self.step == BindStep::LeaveNamespace {
            return false;
        }
        match plan.listener(self.listener).settings.presence {
            Presence::Required => false,
            Presence::Optional => true,
            Presence::WaitFor(_) => match self.errno {
                nix::libc::EADDRNOTAVAIL => true,
                // Of an interface. From socket(2) it would be about the kind: nothing carries it.
                nix::libc::ENODEV => {
                    matches!(self.step, BindStep::Bind | BindStep::SetOption(_))
                }
                _ => false,
            },
        }
    }
}

/// A failure before it is known whose it is.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) step: BindStep,
    pub(super) errno: i32,
    pub(super) obstacle: Option<Obstacle>,
    pub(super) path: Option<PathBuf>,
}

impl Failure {
    pub(super) fn new(step: BindStep, error: impl Into<io::Error>) -> Failure {
        Failure {
            step,
            // socket2 refuses a path that is too long before the kernel sees it.
            errno: error
                .into()
                .raw_os_error()
                .unwrap_or(nix::libc::ENAMETOOLONG),
            obstacle: None,
            path: None,
        }
    }

    /// The failure for a folder on the way to a path that must not be followed.
    pub(super) fn on_the_way(step: BindStep, refused: Refused) -> Failure {
        Failure {
            obstacle: refused.why.map(Obstacle::OtherHands),
            ..Failure::new(step, refused.errno).about(refused.path)
        }
    }

    pub(super) fn of(self, listener: ListenerId, socket: usize) -> BindError {
        BindError {
            listener,
            socket,
            step: self.step,
            errno: self.errno,
            obstacle: self.obstacle,
            path: self.path,
        }
    }

    pub(super) fn about(mut self, path: impl Into<PathBuf>) -> Failure {
        self.path = Some(path.into());
        self
    }

    pub(super) fn because(mut self, obstacle: Obstacle) -> Failure {
        self.obstacle = Some(obstacle);
        self
    }
}
