//! A worker's plan and the bound sockets → everything the child needs, laid out in memory.

use super::{expand, fdmap, program};
use crate::config::{Endpoint, Handoff, Hook, Output, Piece, Ready, Resource, SocketRef, Template};
use crate::connection::Ends;
use crate::handoff::{FIRST_FD, Value, connection, inetd, notify, systemd};
use crate::plan::WorkerPlan;
use crate::stage::Stage;
use crate::sys::{CStrings, ContainsNul, EnvSlot, Launched, Prepared, Stdio, Tell};
use std::ffi::{CString, OsString};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A bound socket, as one instance gets it.
#[derive(Debug, Clone, Copy)]
pub struct Inherited<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// Its number in listend.
    pub fd: i32,
    /// What it is really bound to.
    pub address: &'a Endpoint,
}

/// A descriptor that an instance has left for its successor (`FDSTORE=1`, sd_notify(3)).
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its number in listend.
    pub fd: i32,
}

/// What a process is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// Every socket of the worker's listeners: what it inherits, or, where it is given a connection
    /// instead, what the placeholders may name.
    pub sockets: &'a [Inherited<'a>],
    /// The connection that it is for.
    pub connection: Option<Served<'a>>,
    /// Where its output goes, if listend has opened that already.
    pub output: Option<Outlet<'a>>,
    /// What follows its sockets.
    pub stored: &'a [Stored<'a>],
    /// NOTIFY_SOCKET, if it may tell anything.
    pub notify: Option<&'a str>,
    /// With [`Ready::Fd`]: the end that it writes its newline to, by its number in listend.
    pub ready: Option<i32>,
}

/// What listend has opened for the standard output and error of a process.
#[derive(Debug, Clone, Copy)]
pub struct Outlet<'a> {
    /// Its number in listend.
    pub fd: i32,
    /// With a path: only a handle on it (O_PATH), which the process opens itself.
    pub handle_on: Option<&'a Path>,
    /// The value of JOURNAL_STREAM, if it is a connection to the journal (systemd.exec(5)).
    pub journal_stream: Option<&'a str>,
}

impl Outlet<'_> {
    fn as_stdio(&self) -> Result<Stdio, PrepareError> {
        let Some(path) = self.handle_on else {
            return Ok(Stdio::Descriptor(self.fd));
        };
        Ok(Stdio::File {
            handle: self.fd,
            link: c_string(format!("/proc/self/fd/{}", self.fd), OUTPUT_PATH)?,
            path: path.to_owned(),
        })
    }
}

/// A connection, as its process gets it.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// Its number in listend.
    pub fd: i32,
    /// Who is at its ends.
    pub ends: &'a Ends,
}

/// What every worker of this listend has around it.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The path of the running listend, for `{listend}`.
    pub listend: String,
    /// Its process id, for `{supervisor_pid}`.
    pub pid: u32,
    /// Whether LISTEN_PIDFDID can be told.
    pub inode: systemd::PidfdInode,
    /// The signals whose disposition listend has changed ([`crate::sys::changed_signals`]).
    pub signals: u64,
    /// The open-files limit that listend was started with, soft and hard. It raises its own soft
    /// limit; programs that use select(2) break when they inherit a high one.
    pub open_files: (u64, u64),
}

/// Why a worker could not even be forked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareError {
    /// No program to execute.
    Missing {
        /// As the command names it.
        program: String,
        /// What was found instead.
        reason: program::Missing,
    },
    /// A NUL byte where the system takes none.
    Nul(&'static str),
    /// `ready: fd N` has the number of something that the worker is given.
    Occupied(i32),
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrepareError::Missing { program, reason } => {
                write!(f, "`{program}`: {reason}")
            }
            PrepareError::Nul(what) => write!(f, "{what} contains a NUL byte"),
            PrepareError::Occupied(fd) => write!(
                f,
                "`ready: fd {fd}`: the worker gets a listener at {fd}; take a higher number"
            ),
        }
    }
}

impl PrepareError {
    /// The errno that comes nearest, for [`crate::stage::LaunchFailure`].
    pub fn errno(&self) -> i32 {
        use nix::libc;
        match self {
            PrepareError::Missing { reason, .. } => match reason {
                program::Missing::NoSuchFile | program::Missing::NotInPath(_) => libc::ENOENT,
                program::Missing::NotExecutable(_) | program::Missing::NotAFile(_) => libc::EACCES,
            },
            PrepareError::Nul(_) | PrepareError::Occupied(_) => libc::EINVAL,
        }
    }

    /// The stage it belongs to.
    pub fn stage(&self) -> Stage {
        Stage::Prepare
    }
}

/// Which instance is being prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// From 0.
    pub instance: u32,
    /// From 1.
    pub generation: u32,
}

/// Lays everything out. Looks the program up, which is the only thing it asks the system.
///
/// # Errors
///
/// See [`PrepareError`].
pub fn prepare(
    worker: &WorkerPlan,
    given: Given<'_>,
    numbers: Numbers,
    around: &Surroundings,
) -> Result<Prepared, PrepareError> {
    let handed = handed_over(worker, given)?;
    let filling = Filling::new(worker, given, handed.first, numbers, around);
    let environment = environment(worker, given, &handed, &filling)?;
    lay_out(
        worker,
        (&worker.command, worker.argv0.as_ref()),
        handed,
        environment,
        given,
        &filling,
    )
}

/// Lays out a command that runs beside an instance: in the worker's surroundings, but without
/// listeners and without a way to tell anything. Of what is given the sockets are those that its
/// templates may name, and the output is where it writes to. `main_pid` is the instance's main
/// process, for MAINPID, if there is one.
///
/// # Errors
///
/// See [`PrepareError`].
pub fn prepare_hook(
    worker: &WorkerPlan,
    hook: &Hook,
    given: Given<'_>,
    numbers: Numbers,
    told: Vec<(&'static str, String)>,
    around: &Surroundings,
) -> Result<Prepared, PrepareError> {
    let handed = HandedOver::nothing();
    let filling = Filling::new(worker, given, handed.first, numbers, around);
    let told = told.into_iter();
    let told: Vec<Variable> = told.map(|(name, text)| (name, Value::Text(text))).collect();
    let environment = environment_with(worker, given, &[], told, &filling)?;
    let command = (hook.command.as_slice(), None);
    lay_out(worker, command, handed, environment, given, &filling)
}

fn lay_out(
    worker: &WorkerPlan,
    (command, argv0): (&[Template], Option<&Template>),
    handed: HandedOver<'_>,
    environment: CStrings,
    given: Given<'_>,
    filling: &Filling<'_>,
) -> Result<Prepared, PrepareError> {
    let mut argv = CStrings::with_room_for(command.len());
    for (index, word) in command.iter().enumerate() {
        let word = argv0.filter(|_| index == 0).unwrap_or(word);
        let pushed = match word.pieces.as_slice() {
            [Piece::Words(name)] => {
                let words = expand::split(environment.value(name).unwrap_or_default());
                let mut words = words.iter();
                words.try_for_each(|word| argv.push(|bytes| bytes.extend_from_slice(word)))
            }
            _ => argv.push(|bytes| filling.write_with(word, &environment, bytes)),
        };
        pushed.map_err(|ContainsNul| PrepareError::Nul("the command"))?;
    }
    let around = filling.around;
    let credentials = worker.credentials.as_ref();
    Ok(Prepared {
        program: find_program(worker, command, filling)?,
        argv,
        environment,
        unused: fdmap::unused(&handed.targets),
        fd_actions: Vec::new(),
        fds: handed.fds,
        targets: handed.targets,
        output: match (given.output, &worker.output) {
            (Some(outlet), _) => outlet.as_stdio()?,
            (None, Output::Null) => Stdio::Null,
            (
                None,
                Output::Inherit | Output::Tag | Output::TagJson | Output::Journal | Output::File(_),
            ) => Stdio::Inherit,
        },
        limits: limits(worker, around),
        nice: worker.nice,
        oom_score_adjust: worker
            .oom_score_adjust
            .map(|score| score.to_string().into_bytes()),
        groups: credentials.and_then(|credentials| credentials.groups.clone()),
        gid: credentials.and_then(|credentials| credentials.gid),
        uid: credentials.and_then(|credentials| credentials.uid),
        working_directory: worker
            .working_directory
            .as_ref()
            .map(|folder| c_string(filling.text(folder), "the working directory"))
            .transpose()?,
        umask: worker.umask,
        signals: around.signals,
        ignore_sigpipe: worker.ignore_sigpipe,
    })
}

/// The file that the process is to write its output to, if it is to be one.
///
/// # Errors
///
/// See [`PrepareError`].
pub fn output_file(
    worker: &WorkerPlan,
    given: Given<'_>,
    numbers: Numbers,
    around: &Surroundings,
) -> Result<Option<PathBuf>, PrepareError> {
    let Output::File(path) = &worker.output else {
        return Ok(None);
    };
    let first = first_of(worker.handoff);
    let filling = Filling::new(worker, given, first, numbers, around);
    let path = c_string(filling.text(path), OUTPUT_PATH)?;
    Ok(Some(PathBuf::from(OsString::from_vec(path.into_bytes()))))
}

const OUTPUT_PATH: &str = "the output file's path";

/// Starts the prepared worker; see [`crate::sys::launch`].
///
/// # Errors
///
/// As there: no child is left.
pub fn launch(prepared: Prepared, tell: Tell<'_>) -> std::io::Result<Launched> {
    crate::sys::launch(prepared, tell, fdmap::plan)
}

fn c_string(text: String, what: &'static str) -> Result<CString, PrepareError> {
    CString::new(text).map_err(|_| PrepareError::Nul(what))
}

/// The descriptors that a process gets beside its standard streams, or in their place.
struct HandedOver<'a> {
    /// Their numbers in listend.
    fds: Vec<i32>,
    /// Where each goes.
    targets: Vec<i32>,
    /// The number of the first in the process.
    first: i32,
    /// Those that an instance left: not all of them may fit.
    stored: &'a [Stored<'a>],
}

impl HandedOver<'_> {
    fn nothing() -> HandedOver<'static> {
        HandedOver {
            fds: Vec::new(),
            targets: Vec::new(),
            first: FIRST_FD,
            stored: &[],
        }
    }
}

fn first_of(handoff: Handoff) -> i32 {
    match handoff {
        Handoff::Systemd => FIRST_FD,
        Handoff::Inetd => inetd::FIRST_FD,
    }
}

fn handed_over<'a>(worker: &WorkerPlan, given: Given<'a>) -> Result<HandedOver<'a>, PrepareError> {
    let connection = given.connection.map(|served| served.fd);
    let mut fds: Vec<i32> = match worker.handoff {
        Handoff::Systemd => match connection {
            Some(fd) => vec![fd],
            None => given.sockets.iter().map(|socket| socket.fd).collect(),
        },
        Handoff::Inetd => {
            let (fd, kind) = match connection {
                Some(fd) => (Some(fd), inetd::Kind::Connection),
                // The configuration sees to it that there is no second one; there is none at all
                // while an optional listener is missing, and 0 stays /dev/null.
                None => {
                    let socket = given.sockets.first();
                    (socket.map(|socket| socket.fd), inetd::Kind::Socket)
                }
            };
            fd.map_or(Vec::new(), |fd| vec![fd; kind.count()])
        }
    };
    let first = first_of(worker.handoff);
    // inetd has no way to tell of them, and a connection is nobody's successor.
    let mut stored = match (worker.handoff, connection) {
        (Handoff::Systemd, None) => given.stored,
        (Handoff::Systemd, Some(_)) | (Handoff::Inetd, _) => &[],
    };
    let ready = match (worker.lifecycle.ready, given.ready) {
        (Ready::Fd(target), Some(fd)) => Some((fd, target)),
        (Ready::Fd(_) | Ready::Started | Ready::Notify | Ready::Accepting(_), _) => None,
    };
    let end = first + fds.len() as i32;
    if let Some((_, target)) = ready
        && target >= first
    {
        // LISTEN_FDS counts from the first without a gap: what would be in the way stays behind.
        let room = usize::try_from(target - end).map_err(|_| PrepareError::Occupied(target))?;
        stored = stored.get(..room).unwrap_or(stored);
    }
    fds.extend(stored.iter().map(|stored| stored.fd));
    let mut targets: Vec<i32> = (first..).take(fds.len()).collect();
    if let Some((fd, target)) = ready {
        fds.push(fd);
        targets.push(target);
    }
    Ok(HandedOver {
        fds,
        targets,
        first,
        stored,
    })
}

fn find_program(
    worker: &WorkerPlan,
    command: &[Template],
    filling: &Filling<'_>,
) -> Result<CString, PrepareError> {
    let named = |(name, _): &&(String, Template)| name == "PATH";
    let path = worker.environment.iter().rfind(named);
    let path = path.map(|(_, value)| filling.text(value));
    let program = command.first();
    let program = program.map_or(String::new(), |word| filling.text(word));
    match program::find(&program, path.as_deref()) {
        Ok(found) => CString::new(found.into_os_string().into_vec())
            .map_err(|_| PrepareError::Nul("the program's path")),
        Err(reason) => Err(PrepareError::Missing { program, reason }),
    }
}

/// A variable of a handoff.
type Variable = (&'static str, Value);

/// The worker's own variables, and those of the handoff, which win.
fn environment(
    worker: &WorkerPlan,
    given: Given<'_>,
    handed: &HandedOver<'_>,
    filling: &Filling<'_>,
) -> Result<CStrings, PrepareError> {
    let inode = filling.around.inode;
    let listen = match (worker.handoff, given.connection) {
        (Handoff::Inetd, _) => Vec::new(),
        (Handoff::Systemd, Some(_)) => systemd::variables(&[systemd::CONNECTION], inode),
        (Handoff::Systemd, None) => {
            let stored = handed.stored.iter().map(|stored| stored.name);
            let names = given.sockets.iter().map(|socket| socket.listener);
            let names: Vec<&str> = names.chain(stored).collect();
            systemd::variables(&names, inode)
        }
    };
    let ends = given.connection.map(|served| served.ends);
    let ends = ends.map_or(Vec::new(), connection::variables);
    let told = given.notify.map(|socket| notify::Asked {
        socket,
        watchdog: worker.lifecycle.watchdog,
        store: worker.fd_store,
    });
    let mut variables = told.map_or(Vec::new(), notify::variables);
    // LISTEN_PIDFDID comes last, and has to (see [`EnvSlot`]).
    variables.extend(listen);
    environment_with(worker, given, &ends, variables, filling)
}

/// The worker's own variables, and these, which win and come last.
fn environment_with(
    worker: &WorkerPlan,
    given: Given<'_>,
    ends: &[(&'static str, Vec<u8>)],
    told: Vec<Variable>,
    filling: &Filling<'_>,
) -> Result<CStrings, PrepareError> {
    let journal = given.output.and_then(|outlet| outlet.journal_stream);
    let is_given = |name: &str| {
        (name == JOURNAL_STREAM && journal.is_some())
            || told.iter().any(|(given, _)| *given == name)
            || ends.iter().any(|(given, _)| *given == name)
    };
    let strings = worker.environment.len() + ends.len() + told.len() + 1;
    let mut block = CStrings::with_room_for(strings);
    let nul = |ContainsNul| PrepareError::Nul("the environment");
    for (name, value) in &worker.environment {
        if !is_given(name) {
            let write = |bytes: &mut Vec<u8>| {
                start(bytes, name);
                filling.write(value, bytes);
            };
            block.push(write).map_err(nul)?;
        }
    }
    for (name, value) in ends {
        push(&mut block, name, value)?;
    }
    if let Some(stream) = journal {
        push(&mut block, JOURNAL_STREAM, stream.as_bytes())?;
    }
    for (name, value) in told {
        match value {
            Value::Text(text) => push(&mut block, name, text.as_bytes())?,
            Value::OwnPid => block.push_slot(name, EnvSlot::OwnPid),
            Value::OwnPidfdInode => block.push_slot(name, EnvSlot::OwnPidfdInode),
        }
    }
    Ok(block)
}

const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

fn start(bytes: &mut Vec<u8>, name: &str) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'=');
}

fn push(block: &mut CStrings, name: &str, value: &[u8]) -> Result<(), PrepareError> {
    let write = |bytes: &mut Vec<u8>| {
        start(bytes, name);
        bytes.extend_from_slice(value);
    };
    block
        .push(write)
        .map_err(|ContainsNul| PrepareError::Nul("the environment"))
}

fn limits(worker: &WorkerPlan, around: &Surroundings) -> Vec<(u32, u64, u64)> {
    let number = |value: Option<u64>| value.unwrap_or(nix::libc::RLIM_INFINITY);
    let mut limits: Vec<(u32, u64, u64)> = worker
        .limits
        .iter()
        .map(|limit| {
            (
                limit.resource.number(),
                number(limit.soft),
                number(limit.hard),
            )
        })
        .collect();
    let own = |limit: &crate::config::Limit| limit.resource == Resource::Nofile;
    if !worker.limits.iter().any(own) {
        let (soft, hard) = around.open_files;
        limits.push((Resource::Nofile.number(), soft, hard));
    }
    limits
}

/// What the placeholders stand for. Those that name no socket were refused when the configuration
/// was read; should one get here all the same, it becomes an empty text.
struct Filling<'a> {
    sockets: &'a [Inherited<'a>],
    /// Whether every `{fd:…}` is the first: the connection, or the only socket.
    is_one: bool,
    /// The number of the first in the process.
    first: i32,
    numbers: Numbers,
    around: &'a Surroundings,
    /// For `{runtime_dir}`.
    runtime_dir: String,
}

impl<'a> Filling<'a> {
    fn new(
        worker: &WorkerPlan,
        given: Given<'a>,
        first: i32,
        numbers: Numbers,
        around: &'a Surroundings,
    ) -> Filling<'a> {
        Filling {
            sockets: given.sockets,
            is_one: given.connection.is_some() || worker.handoff == Handoff::Inetd,
            first,
            numbers,
            around,
            runtime_dir: worker
                .runtime_directory
                .as_ref()
                .map_or(String::new(), |directory| {
                    directory.path().to_string_lossy().into_owned()
                }),
        }
    }

    fn text(&self, template: &Template) -> String {
        let mut bytes = Vec::new();
        self.write(template, &mut bytes);
        // Nothing is lost: all that is written is text.
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn write(&self, template: &Template, out: &mut Vec<u8>) {
        self.write_with(template, &CStrings::default(), out);
    }

    /// With these variables, for a command.
    fn write_with(&self, template: &Template, variables: &CStrings, out: &mut Vec<u8>) {
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        for piece in &template.pieces {
            match piece {
                Piece::Text(text) => put(text),
                Piece::Fd(reference) => {
                    if let Some((position, _)) = lookup(reference, self.sockets) {
                        let position = if self.is_one { 0 } else { position as i32 };
                        put(&(self.first + position).to_string());
                    }
                }
                Piece::Address(reference) => {
                    if let Some((_, socket)) = lookup(reference, self.sockets) {
                        put(&socket.address.to_string());
                    }
                }
                Piece::Port(reference) => {
                    if let Some((_, socket)) = lookup(reference, self.sockets)
                        && let Endpoint::Inet { address, .. } = socket.address
                    {
                        put(&address.port().to_string());
                    }
                }
                Piece::Host(reference) => {
                    if let Some((_, socket)) = lookup(reference, self.sockets)
                        && let Endpoint::Inet { address, scope, .. } = socket.address
                    {
                        put(&address.ip().to_string());
                        if let Some(scope) = scope {
                            put("%");
                            put(scope);
                        }
                    }
                }
                Piece::Instance => put(&self.numbers.instance.to_string()),
                Piece::Generation => put(&self.numbers.generation.to_string()),
                Piece::Listend => put(&self.around.listend),
                Piece::RuntimeDir => put(&self.runtime_dir),
                Piece::SupervisorPid => put(&self.around.pid.to_string()),
                Piece::Variable(name) | Piece::Words(name) => {
                    let value = variables.value(name).unwrap_or_default();
                    put(&String::from_utf8_lossy(value));
                }
            }
        }
    }
}

fn lookup<'a, 'b>(
    reference: &SocketRef,
    sockets: &'a [Inherited<'b>],
) -> Option<(usize, &'a Inherited<'b>)> {
    sockets
        .iter()
        .enumerate()
        .filter(|(_, socket)| socket.listener == reference.listener)
        .nth(reference.index.unwrap_or(0) as usize)
}
