//! The value of `handoff:`: one dialect, or several at once, whose variables name the same descriptors.

use super::dialect::{
    Descriptors, Dialect, FdLayout, Name, Passed, PidfdInode, Recipient, Socket, Variable,
};
use super::{FIRST_FD, Value, systemd};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// The name of an accepted connection in LISTEN_FDNAMES (systemd.socket(5), FileDescriptorName=).
pub const CONNECTION: &str = "connection";

/// The dialects of a worker; never none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff(Vec<&'static Dialect>);

impl Handoff {
    /// One dialect.
    pub fn one(dialect: &'static Dialect) -> Handoff {
        Handoff(vec![dialect])
    }

    /// The dialects of a list; the default without any.
    pub fn of(dialects: Vec<&'static Dialect>) -> Handoff {
        if dialects.is_empty() {
            return Handoff::default();
        }
        Handoff(dialects)
    }

    /// Each of them.
    pub fn dialects(&self) -> &[&'static Dialect] {
        &self.0
    }

    /// The number of the first descriptor.
    pub fn first_fd(&self) -> i32 {
        self.0.first().map_or(FIRST_FD, |dialect| dialect.first_fd)
    }

    /// O_NONBLOCK on its listeners, where `nonblocking:` is not written.
    pub fn default_nonblocking(&self) -> bool {
        self.0.iter().any(|dialect| dialect.default_nonblocking)
    }

    /// Whether one socket is passed, and nothing beside it.
    pub fn is_one_socket(&self) -> bool {
        self.first_fd() < FIRST_FD
    }

    /// Whether stored descriptors are passed, too.
    pub fn stores(&self) -> bool {
        self.0.iter().any(|dialect| dialect.stores)
    }

    /// Whether its workers say at a socket of the supervisor that they are up.
    pub fn acknowledges(&self) -> bool {
        self.0.iter().any(|dialect| dialect.acknowledges)
    }

    /// Whether variables tell the process id of the worker.
    pub fn tells_the_pid(&self) -> bool {
        self.0.contains(&&systemd::DIALECT)
    }

    /// The dialect that sets this variable where it passes so many sockets. Those of systemd are
    /// refused for every worker.
    pub fn that_sets(&self, variable: &str, sockets: usize) -> Option<&'static Dialect> {
        let socket = Socket {
            listener: "",
            fd: -1,
            scheme: "tcp",
            name: Name::Other,
        };
        let passed = Passed {
            sockets: &(FIRST_FD..)
                .take(sockets)
                .map(|number| (socket, number))
                .collect::<Vec<_>>(),
            names: &[],
            to: Recipient {
                instance: 0,
                generation: 1,
                listend: 1,
                listen_pid: true,
                inode: PidfdInode::Leave,
                acknowledge_at: Some(""),
            },
        };
        let sets = |dialect: &&&'static Dialect| {
            let variables = (dialect.variables)(&passed);
            variables.iter().any(|(name, _)| name == variable)
        };
        self.0.iter().find(sets).copied()
    }

    /// Assigns a number to each descriptor, and names them in the variables of every dialect.
    ///
    /// A connection stands in place of the sockets, and is standard output, too, where it is standard
    /// input; standard error stays the log, for what a program writes there must not reach its client.
    pub fn layout(&self, inputs: &Descriptors<'_>) -> FdLayout {
        let first = self.first_fd();
        let mut passed: Vec<(&str, i32)> = match inputs.connection {
            Some(fd) => vec![(CONNECTION, fd)],
            None => {
                let sockets = inputs.sockets.iter();
                sockets.map(|socket| (socket.listener, socket.fd)).collect()
            }
        };
        if self.is_one_socket() {
            // There is no socket at all while an optional listener is missing: 0 stays /dev/null.
            passed.truncate(1);
            passed.extend(inputs.connection.map(|fd| (CONNECTION, fd)));
        }
        let count = inputs.sockets.len();
        let numbers: Vec<i32> = match inputs.connection.is_some() || self.is_one_socket() {
            true => vec![first; count],
            false => (first..).take(count).collect(),
        };
        let sockets: Vec<_> = match inputs.connection {
            Some(_) => Vec::new(),
            None => {
                let sockets = inputs.sockets.iter().copied();
                sockets.zip(numbers.iter().copied()).collect()
            }
        };
        // A connection is nobody's successor. LISTEN_FDS counts without a gap: stored descriptors that
        // do not fit below what is taken otherwise stay behind.
        if inputs.connection.is_none() && self.stores() {
            let end = first + passed.len() as i32;
            let room = inputs.below.map_or(i32::MAX, |below| below - end);
            let room = usize::try_from(room).unwrap_or(0);
            let stored = inputs.stored.iter().take(room);
            passed.extend(stored.map(|stored| (stored.name, stored.fd)));
        }
        let (names, fds): (Vec<&str>, Vec<i32>) = passed.into_iter().unzip();
        let told = Passed {
            sockets: &sockets,
            names: &names,
            to: inputs.to,
        };
        let dialects = self.0.iter();
        let mut variables: Vec<Variable> = dialects
            .flat_map(|dialect| (dialect.variables)(&told))
            .collect();
        variables.sort_by_key(|(_, value)| *value == Value::OwnPidfdInode);
        FdLayout {
            targets: (first..).take(fds.len()).collect(),
            fds,
            numbers,
            variables,
        }
    }
}

impl Default for Handoff {
    fn default() -> Self {
        Handoff::one(&systemd::DIALECT)
    }
}

impl From<&'static Dialect> for Handoff {
    fn from(dialect: &'static Dialect) -> Handoff {
        Handoff::one(dialect)
    }
}

/// The keywords, as they are written.
impl fmt::Display for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keywords: Vec<&str> = self.0.iter().map(|dialect| dialect.keyword).collect();
        f.write_str(&keywords.join(", "))
    }
}

/// One word where it is one, else a list.
impl Serialize for Handoff {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => serializer.serialize_str(only.keyword),
            many => serializer.collect_seq(many.iter().map(|dialect| dialect.keyword)),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Several(Vec<String>),
}

impl<'de> Deserialize<'de> for Handoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = match Written::deserialize(deserializer)? {
            Written::One(word) => vec![word],
            Written::Several(words) => words,
        };
        let find = |word: &String| {
            Dialect::find(word).ok_or_else(|| D::Error::custom(format!("no handoff `{word}`")))
        };
        words
            .iter()
            .map(find)
            .collect::<Result<_, _>>()
            .map(Handoff::of)
    }
}
