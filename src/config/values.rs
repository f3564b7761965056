//! Values that several parts of a configuration are made of.

use crate::report::Place;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Located<T> {
    /// The value as read.
    pub value: T,
    /// The place in the YAML.
    #[serde(skip)]
    pub place: Place,
}

/// A number of events in a time: `5 in 60s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The number of events.
    pub count: u32,
    /// The interval.
    pub interval: Duration,
}

/// Text with placeholders, filled in when the sockets are bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The pieces in order; `{{` and `}}` are undone in literal ones.
    pub pieces: Vec<Piece>,
}

/// What `{port}` is for `listend forward`, which puts the port in its place.
pub const SERVER_PORT: &str = "{port}";

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Piece {
    /// Literal text.
    Text(String),
    /// `{fd:web}`: the descriptor's number in the worker. `{fd:web:1}` is the second socket.
    Fd(SocketRef),
    /// `{fds}`, `{fds:web}`: the numbers of all sockets, or of those of one listener.
    Fds(FdList),
    /// `{address:web}`: the address that was really bound.
    Address(SocketRef),
    /// `{port:web}`: the port that was really bound.
    Port(SocketRef),
    /// `{host:web}`: the IP address that was really bound, without port and brackets.
    Host(SocketRef),
    /// `{instance}`: the number of the instance, from 0.
    Instance,
    /// `{generation}`: the number of the generation, from 1.
    Generation,
    /// `{listend}`: the path of the running listend.
    Listend,
    /// `{supervisor_pid}`: its process id.
    SupervisorPid,
    /// `{runtime_dir}`: the path of the worker's runtime directory.
    RuntimeDir,
    /// `{port}`: the port of the server of `forward`, which is chosen when it starts.
    #[serde(rename = "server_port")]
    ServerPort,
    /// `${NAME}`: the value of a variable, with `expand_environment`.
    Variable(String),
    /// `$NAME`, which is a word by itself: the value of a variable, split into words.
    Words(String),
}

impl Piece {
    /// The listener that it names.
    pub fn listener(&self) -> Option<&str> {
        match self {
            Piece::Fd(socket)
            | Piece::Address(socket)
            | Piece::Port(socket)
            | Piece::Host(socket) => Some(&socket.listener),
            Piece::Fds(list) => list.listener.as_deref(),
            Piece::Text(_)
            | Piece::Instance
            | Piece::Generation
            | Piece::Listend
            | Piece::SupervisorPid
            | Piece::RuntimeDir
            | Piece::ServerPort
            | Piece::Variable(_)
            | Piece::Words(_) => None,
        }
    }

    /// Whether it stands for sockets of every listener.
    pub fn names_every_listener(&self) -> bool {
        matches!(self, Piece::Fds(list) if list.listener.is_none())
    }

    /// The variable that it names.
    pub fn variable(&self) -> Option<&str> {
        match self {
            Piece::Variable(name) | Piece::Words(name) => Some(name),
            _ => None,
        }
    }
}

/// A socket of a listener, as a template names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketRef {
    /// The listener's name.
    pub listener: String,
    /// The index of the socket in the listener, from 0; `None` is the first.
    pub index: Option<u32>,
}

/// Numbers of descriptors, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdList {
    /// The listener whose sockets they are; `None` is every listener of the worker.
    pub listener: Option<String>,
    /// The text between two of them.
    pub separator: String,
}

impl Template {
    /// A template without placeholders.
    pub fn literal(text: impl Into<String>) -> Template {
        Template {
            pieces: vec![Piece::Text(text.into())],
        }
    }

    /// The text, if there is no placeholder in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}
