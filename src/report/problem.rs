//! Problems as data.

use super::Place;
use super::words::readable;
use serde::Serialize;

/// Whether listend goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The problem prevents the start.
    Error,
    /// The configuration works, but may surprise.
    Advice,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $severity:ident;)*) => {
        /// The stable code of a problem: what scripts match on and what `silence:` names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
            /// A system call failed; the code is the errno's name, such as `EADDRINUSE`.
            Errno(i32),
        }

        impl Kind {
            /// Every kind but the errnos.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The code, as in JSON, in brackets behind a message, and in the man page.
            pub fn code(self) -> String {
                match self {
                    $(Kind::$name => $code.to_owned(),)*
                    Kind::Errno(errno) => super::errno_name(errno),
                }
            }

            /// Whether this kind stops the start.
            pub fn severity(self) -> Severity {
                match self {
                    $(Kind::$name => Severity::$severity,)*
                    Kind::Errno(_) => Severity::Error,
                }
            }
        }
    };
}

kinds! {
    /// The file cannot be read.
    Unreadable = "unreadable", Error;
    /// The file is not YAML.
    YamlSyntax = "yaml-syntax", Error;
    /// A key that means nothing here.
    UnknownKey = "unknown-key", Error;
    /// A key that must be there is not.
    MissingKey = "missing-key", Error;
    /// A key stands twice in one mapping.
    DuplicateKey = "duplicate-key", Error;
    /// A list where a number is expected, and the like.
    WrongType = "wrong-type", Error;
    /// The right type, but not a value that is allowed.
    BadValue = "bad-value", Error;
    /// A value that a later version of listend will take.
    Unsupported = "unsupported", Error;
    /// An address that cannot be understood.
    BadAddress = "bad-address", Error;
    /// A listener's or worker's name that breaks the rules of LISTEN_FDNAMES.
    BadName = "bad-name", Error;
    /// A name that two files define.
    DuplicateName = "duplicate-name", Error;
    /// Two sockets that the kernel would not let stand side by side.
    DuplicateAddress = "duplicate-address", Error;
    /// A worker names a listener that does not exist.
    UnknownListener = "unknown-listener", Error;
    /// No such user on this machine.
    UnknownUser = "unknown-user", Error;
    /// No such group on this machine.
    UnknownGroup = "unknown-group", Error;
    /// No such signal.
    UnknownSignal = "unknown-signal", Error;
    /// A command with no words in it.
    EmptyCommand = "empty-command", Error;
    /// A `{placeholder}` that means nothing.
    BadTemplate = "bad-template", Error;
    /// An environment file that cannot be read or understood.
    EnvironmentFile = "environment-file", Error;
    /// Two workers want one listener with opposite O_NONBLOCK.
    NonblockingConflict = "nonblocking-conflict", Error;
    /// A listener of a per-connection worker that another worker takes as well.
    SharedPerConnection = "shared-per-connection", Error;
    /// A live server answers at the unix path.
    LiveSocket = "live-socket", Error;
    /// The address is held by workers of a listend that has ended without them.
    OrphanedWorkers = "orphaned-workers", Error;
    /// The unix path is taken by something that is no socket.
    NotASocket = "not-a-socket", Error;
    /// An inherited socket bears a listener's name and is not what the listener wants.
    AdoptionMismatch = "adoption-mismatch", Error;
    /// A limit of a sandbox that nothing enforces here.
    LimitNotEnforced = "limit-not-enforced", Error;

    /// A port below `net.ipv4.ip_unprivileged_port_start`.
    PrivilegedPort = "privileged-port", Advice;
    /// A port the kernel may give to an outgoing connection.
    EphemeralPort = "ephemeral-port", Advice;
    /// A port that IANA registers for another well-known service.
    RegisteredPort = "registered-port", Advice;
    /// An address on every interface.
    WildcardAddress = "wildcard-address", Advice;
    /// A backlog that the kernel cuts to `net.core.somaxconn`.
    BacklogOverSomaxconn = "backlog-over-somaxconn", Advice;
    /// Flows that are to stay with their generation, and a kernel that does not let this process steer them.
    FlowsNotKept = "flows-not-kept", Advice;
    /// An address that no interface of this machine has.
    AddressNotHere = "address-not-here", Advice;
    /// Neither a listener nor a worker.
    NothingConfigured = "nothing-configured", Advice;
    /// A listener that no worker takes.
    UnusedListener = "unused-listener", Advice;
    /// A worker without listeners.
    NoListeners = "no-listeners", Advice;
    /// An on-demand worker and one that always runs take the same listener.
    SharedOnDemand = "shared-on-demand", Advice;
    /// A worker with one instance is to have a socket for each.
    OneShard = "one-shard", Advice;
    /// A placeholder for one socket of a listener that has several.
    SeveralSockets = "several-sockets", Advice;
    /// The program is not there, or may not be executed.
    CommandNotFound = "command-not-found", Advice;
    /// A sandbox hides what the worker needs at its start.
    SandboxHides = "sandbox-hides", Advice;
    /// A sandbox without a network, and a server that the worker is told of.
    SandboxNetwork = "sandbox-network", Advice;
    /// A command that holds what only a shell would understand.
    NoShell = "no-shell", Advice;
    /// A server that does not take the listeners, as it is configured.
    ServerConfiguration = "server-configuration", Advice;
    /// A server that cannot take listeners, as it is installed.
    ServerSupport = "server-support", Advice;
    /// A variable in a command that nothing sets.
    UnsetVariable = "unset-variable", Advice;
    /// A folder or file that a worker needs at its start is not there.
    PathMissing = "path-missing", Advice;
    /// A drop-in whose name does not end in `.yaml`.
    IgnoredFile = "ignored-file", Advice;
    /// A worker is to write to the journal, and none runs.
    NoJournal = "no-journal", Advice;
    /// listend, as it runs now, may not do what the worker asks for.
    NeedsPrivilege = "needs-privilege", Advice;
    /// A stale unix socket that a start would replace.
    StaleSocket = "stale-socket", Advice;
    /// The address is held by the listend that runs this very configuration.
    HeldByListend = "held-by-listend", Advice;
    /// A listener that could not be bound, and whose configuration allows that.
    NotBoundYet = "not-bound-yet", Advice;
    /// A loopback of `localhost`, or the IPv6 half of `:PORT`, that this machine lacks.
    FamilyMissing = "family-missing", Advice;
    /// The kernel took a socket option, and made something else of it.
    OptionChanged = "option-changed", Advice;
    /// Another process has a socket on the same address, and the kernel gives it clients, too.
    SharedAddress = "shared-address", Advice;
    /// A unit kills listend before a worker's `stop_timeout` has passed.
    UnitTimeout = "unit-timeout", Advice;
    /// An inherited socket that no listener wants.
    AdoptionUnwanted = "adoption-unwanted", Advice;
}

impl Kind {
    /// The kinds that `silence:` may name.
    pub fn silenceable() -> impl Iterator<Item = Kind> + Clone {
        Kind::ALL
            .iter()
            .copied()
            .filter(|kind| kind.severity() == Severity::Advice)
    }

    /// The kind of advice with this code.
    pub fn advice_from_code(code: &str) -> Option<Kind> {
        Kind::silenceable().find(|kind| kind.code() == code)
    }
}

/// The process that holds an address, as far as this process may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The process id.
    pub pid: i32,
    /// The program's name.
    pub command: String,
    /// The user's name, or the number where it has none.
    pub user: String,
    /// The systemd unit or container, where the cgroup tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Whether the unit is one of a user's manager: `systemctl --user` knows it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub user_unit: bool,
}

/// An error, or a piece of advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The code, which decides whether the problem is an error.
    pub kind: Kind,
    /// The message: a sentence in lower case without a full stop.
    pub message: String,
    /// The place in the configuration.
    pub place: Option<Place>,
    /// Other places that matter, each with a few words ("first defined here").
    pub related: Vec<(Place, String)>,
    /// The findings on this machine that explain the problem; one line each.
    pub causes: Vec<String>,
    /// The hint: what to do about the problem.
    pub hint: Option<String>,
    /// The listener concerned.
    pub listener: Option<String>,
    /// The worker concerned.
    pub worker: Option<String>,
    /// The address concerned.
    pub address: Option<String>,
    /// The process that holds the address.
    pub holder: Option<Holder>,
}

impl Problem {
    /// A problem with just its kind and message; the `with_` methods add the rest. All of them escape and shorten
    /// what the words quote: values may have a megabyte, and line ends in them.
    pub fn new(kind: Kind, message: impl Into<String>) -> Problem {
        Problem {
            kind,
            message: readable(message.into()),
            place: None,
            related: Vec::new(),
            causes: Vec::new(),
            hint: None,
            listener: None,
            worker: None,
            address: None,
            holder: None,
        }
    }

    /// Sets the place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Problem {
        self.place = Some(place);
        self
    }

    /// Adds another place that matters.
    #[must_use]
    pub fn with_related(mut self, place: Place, words: impl Into<String>) -> Problem {
        self.related.push((place, readable(words.into())));
        self
    }

    /// Adds a finding that explains the problem.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<String>) -> Problem {
        self.causes.push(readable(cause.into()));
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(readable(hint.into()));
        self
    }

    /// Says what to do, if that is known.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Problem {
        self.hint = hint.map(readable);
        self
    }

    /// Names the listener.
    #[must_use]
    pub fn of_listener(mut self, name: impl Into<String>) -> Problem {
        self.listener = Some(name.into());
        self
    }

    /// Names the worker.
    #[must_use]
    pub fn of_worker(mut self, name: impl Into<String>) -> Problem {
        self.worker = Some(name.into());
        self
    }

    /// Names the address.
    #[must_use]
    pub fn with_address(mut self, address: impl Into<String>) -> Problem {
        self.address = Some(address.into());
        self
    }

    /// The length of all texts, in bytes.
    fn length(&self) -> usize {
        let related = self.related.iter().map(|(_, words)| words);
        let words = self.causes.iter().chain(&self.hint).chain(related);
        let names = [&self.listener, &self.worker, &self.address];
        let words = words.chain(names.into_iter().flatten());
        self.message.len() + words.map(String::len).sum::<usize>()
    }

    /// Whether the problem prevents the start.
    pub fn is_error(&self) -> bool {
        self.kind.severity() == Severity::Error
    }
}

/// All problems found, errors apart from advice, each in the order of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The errors, which prevent the start; at most [`ERRORS_PER_KIND`] of each kind.
    pub errors: Vec<Problem>,
    /// The advice; at most [`ADVICE_PER_KIND`] of each kind.
    pub advice: Vec<Problem>,
    /// The number of problems left out, by kind.
    pub omitted: Vec<(Kind, usize)>,
}

/// The largest number of pieces of advice of one kind. Thousands of equal lines are not read, and would
/// take most of the memory of a start with thousands of listeners.
pub const ADVICE_PER_KIND: usize = 50;
/// The largest number of errors of one kind; the rest shows after these are fixed. Without a limit, a
/// large file with a mistake in each line would take gigabytes, in the daemon as well, which passes
/// them to the client that asked for a reload.
pub const ERRORS_PER_KIND: usize = 500;
/// So many bytes of words: they quote what the file says, which may be long.
const LONGEST: usize = 512 << 10;

impl Report {
    /// Files the problem under errors or advice, as its kind says. What several workers have from one
    /// place (`defaults`, a merge key) is reported once.
    pub fn add(&mut self, problem: Problem) {
        if !problem.is_error() && self.omits(problem.kind) {
            return self.omit(problem.kind, 1);
        }
        let same = |other: &&Problem| other.kind == problem.kind;
        let is_known = problem.place.is_some()
            && [&self.errors, &self.advice]
                .into_iter()
                .flatten()
                .filter(same)
                .any(|other| other.place == problem.place && other.message == problem.message);
        if is_known {
            return;
        }
        if !problem.is_error() {
            if self.advice.iter().filter(same).count() < ADVICE_PER_KIND {
                self.advice.push(problem);
            } else {
                self.omit(problem.kind, 1);
            }
            return;
        }
        let is_full = || {
            let length: usize = self.errors.iter().map(Problem::length).sum();
            let count = self.errors.iter().filter(same).count();
            count >= ERRORS_PER_KIND || length > LONGEST
        };
        if self.omits(problem.kind) || is_full() {
            self.omit(problem.kind, 1);
        } else {
            self.errors.push(problem);
        }
    }

    /// The same with advice that is worded only if it is kept: there may be one for each of thousands of
    /// listeners.
    pub fn advise(&mut self, kind: Kind, problem: impl FnOnce() -> Problem) {
        match self.omits(kind) {
            true => self.omit(kind, 1),
            false => self.add(problem()),
        }
    }

    /// The number of errors, with those that were left out.
    pub fn error_count(&self) -> usize {
        let omitted = self.omitted.iter();
        let omitted = omitted.filter(|(kind, _)| kind.severity() == Severity::Error);
        self.errors.len() + omitted.map(|(_, count)| count).sum::<usize>()
    }

    fn omits(&self, kind: Kind) -> bool {
        self.omitted.iter().any(|(known, _)| *known == kind)
    }

    fn omit(&mut self, kind: Kind, count: usize) {
        match self.omitted.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, sum)) => *sum += count,
            None => self.omitted.push((kind, count)),
        }
    }

    /// Takes over all of another report.
    pub fn extend(&mut self, other: Report) {
        for problem in other.errors.into_iter().chain(other.advice) {
            self.add(problem);
        }
        for (kind, count) in other.omitted {
            self.omit(kind, count);
        }
    }

    /// Whether nothing stops the start.
    pub fn is_ok(&self) -> bool {
        self.error_count() == 0
    }

    /// Puts both lists into the order of the files, lines and columns.
    pub fn sort(&mut self) {
        self.errors.sort_by_key(|problem| problem.place);
        self.advice.sort_by_key(|problem| problem.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_advice_is_found_by_code() {
        let codes: HashSet<String> = Kind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), Kind::ALL.len());
        assert_eq!(
            Kind::advice_from_code("ephemeral-port"),
            Some(Kind::EphemeralPort)
        );
        assert_eq!(Kind::advice_from_code("unknown-key"), None);
        assert_eq!(Kind::Errno(nix::libc::EADDRINUSE).code(), "EADDRINUSE");
    }
}
