//! A worker's plan and the bound sockets → everything the child needs, laid out in memory.

use super::{expand, fdmap, program, second};
use crate::config::{Endpoint, Hook, Output, Piece, Ready, SERVER_PORT, SocketRef, Template};
use crate::connection::Ends;
use crate::handoff::{self, FdLayout, PidfdInode, Stored, Value, connection, notify, supervisor};
use crate::launch_spec::{Limit, Resource};
use crate::plan::WorkerPlan;
use crate::stage::Stage;
use crate::sys::{
    CStrings, ChangedSignals, Common, ContainsNul, EnvSlot, Launched, Prepared, Stdio, Tell,
};
use std::ffi::{CString, OsString};
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A bound socket, as one instance gets it.
#[derive(Debug, Clone, Copy)]
pub struct InheritedSocket<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The number of the descriptor in listend.
    pub fd: i32,
    /// The address that the socket is really bound to.
    pub address: &'a Endpoint,
}

/// The descriptors and numbers that a process is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpawnInputs<'a> {
    /// Every socket of the worker's listeners: what it inherits, or, where it is given a connection
    /// instead, what the placeholders may name.
    pub sockets: &'a [InheritedSocket<'a>],
    /// The connection that it is for.
    pub connection: Option<Served<'a>>,
    /// The stored descriptors, which follow the sockets.
    pub stored: &'a [Stored<'a>],
    /// NOTIFY_SOCKET, if it may tell anything.
    pub notify: Option<&'a str>,
    /// EINHORN_SOCK_PATH, if its handoff has that.
    pub acknowledge_at: Option<&'a str>,
    /// The path of the control socket, which no sandbox shows.
    pub control: Option<&'a Path>,
    /// With [`Ready::Fd`], the number in listend of the pipe end that the process writes its newline
    /// to.
    pub ready: Option<i32>,
}

/// The pipe or socket that listend has opened for the standard output and error of a process.
#[derive(Debug, Clone, Copy)]
pub struct OutputTarget<'a> {
    /// The number of the descriptor in listend.
    pub fd: i32,
    /// The path, if the descriptor is only a handle on it (O_PATH), which the process opens itself.
    pub handle_on: Option<&'a Path>,
    /// The value of JOURNAL_STREAM, if it is a connection to the journal (systemd.exec(5)).
    pub journal_stream: Option<&'a str>,
}

impl OutputTarget<'_> {
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
    /// The number of the descriptor in listend.
    pub fd: i32,
    /// The ends of the connection.
    pub ends: &'a Ends,
}

/// The context that all workers of this listend share.
#[derive(Debug, Clone)]
pub struct DaemonContext {
    /// The path of the running listend, for `{listend}`.
    pub listend: String,
    /// The process id of listend, for `{supervisor_pid}`.
    pub pid: u32,
    /// Whether LISTEN_PIDFDID can be told.
    pub inode: PidfdInode,
    /// The signals whose disposition listend has changed ([`crate::sys::changed_signals`]).
    pub signals: ChangedSignals,
    /// The open-files limit that listend was started with. It raises its own soft limit; programs
    /// that use select(2) break when they inherit a high one.
    pub open_files: Limit,
}

/// The reasons for which a worker could not even be cloned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareError {
    /// No program to execute.
    Missing {
        /// The program as the command names it.
        program: String,
        /// The reason.
        reason: program::Missing,
    },
    /// A NUL byte where the system takes none.
    Nul(&'static str),
    /// `ready: fd N` has the number of something that the worker is given.
    Occupied(i32),
    /// There is no memory file to be had for the sandbox: the errno.
    Order(i32),
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
                "`ready: fd {fd}`: the worker gets a listener at {fd}; use a higher number"
            ),
            PrepareError::Order(errno) => write!(
                f,
                "cannot make a memory file for the sandbox: {}",
                crate::report::describe(*errno)
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
                program::Missing::NotAFolder => libc::ENOTDIR,
            },
            PrepareError::Nul(_) | PrepareError::Occupied(_) => libc::EINVAL,
            PrepareError::Order(errno) => *errno,
        }
    }

    /// The stage it belongs to.
    pub fn stage(&self) -> Stage {
        Stage::Prepare
    }
}

/// The numbers of the instance that is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// The index of the instance, from 0.
    pub instance: u32,
    /// The generation, from 1.
    pub generation: u32,
}

/// A process whose descriptors have their numbers, and whose output is not opened yet.
pub struct Preparation<'a> {
    worker: &'a WorkerPlan,
    given: SpawnInputs<'a>,
    context: TemplateContext<'a>,
}

impl<'a> Preparation<'a> {
    /// Assigns the numbers.
    ///
    /// # Errors
    ///
    /// See [`PrepareError`].
    pub fn new(
        worker: &'a WorkerPlan,
        given: SpawnInputs<'a>,
        numbers: Numbers,
        around: &'a DaemonContext,
    ) -> Result<Preparation<'a>, PrepareError> {
        let directory = worker.runtime_directory.as_ref();
        let runtime_dir = directory.map(|one| one.path().to_string_lossy().into_owned());
        let context = TemplateContext {
            sockets: given.sockets,
            layout: layout(worker, given, numbers, around)?,
            numbers,
            around,
            runtime_dir: runtime_dir.unwrap_or_default(),
        };
        Ok(Preparation {
            worker,
            given,
            context,
        })
    }

    /// The file that the process is to write its output to, if it is to be one.
    ///
    /// # Errors
    ///
    /// See [`PrepareError`].
    pub fn output_file(&self) -> Result<Option<PathBuf>, PrepareError> {
        let Output::File(path) = &self.worker.output else {
            return Ok(None);
        };
        let path = c_string(self.context.text(path), OUTPUT_PATH)?;
        Ok(Some(PathBuf::from(OsString::from_vec(path.into_bytes()))))
    }

    /// Lays the program of the worker out. Looks it up, which is the only thing asked of the system.
    ///
    /// # Errors
    ///
    /// See [`PrepareError`].
    pub fn program(self, output: Option<OutputTarget<'_>>) -> Result<Prepared, PrepareError> {
        let environment = environment(self.worker, self.given, output, &self.context)?;
        let command = (self.worker.command.as_slice(), self.worker.argv0.as_ref());
        lay_out(
            self.worker,
            command,
            environment,
            output,
            self.context,
            &self.given,
        )
    }

    /// Lays out what the process has in common with others, without the variables of [`push_of_one`].
    pub(super) fn of_all(self) -> Result<LaidOut, PrepareError> {
        let environment = environment_of_all(
            self.worker,
            self.given,
            None,
            CStrings::default(),
            &self.context,
        )?;
        let command = (self.worker.command.as_slice(), self.worker.argv0.as_ref());
        lay_out_common(self.worker, command, environment, None, self.context)
    }

    /// Lays out a command that runs beside an instance: in the worker's surroundings, but without
    /// listeners and without a way to tell anything. Of what is given the sockets are those that its
    /// templates may name. `told` are variables for it alone.
    ///
    /// # Errors
    ///
    /// See [`PrepareError`].
    pub fn hook(
        mut self,
        hook: &Hook,
        told: Vec<(&'static str, String)>,
        output: Option<OutputTarget<'_>>,
    ) -> Result<Prepared, PrepareError> {
        self.context.layout = FdLayout::default();
        let told = told.into_iter();
        let told = told.map(|(name, text)| (name, Value::Text(text)));
        let told: Vec<(&str, Value)> = told.collect();
        let block = CStrings::with_room_for(self.worker.environment.len() + told.len() + 1);
        let told = told.iter().map(|(name, value)| (*name, value));
        let environment = environment_with(self.worker, output, block, told, &self.context)?;
        let command = (hook.command.as_slice(), None);
        lay_out(
            self.worker,
            command,
            environment,
            output,
            self.context,
            &self.given,
        )
    }
}

/// A launch before anything comes in between: its environment and its descriptors apart.
pub(super) type LaidOut = (Common, CStrings, Vec<RawFd>);

fn lay_out(
    worker: &WorkerPlan,
    command: (&[Template], Option<&Template>),
    environment: CStrings,
    output: Option<OutputTarget<'_>>,
    context: TemplateContext<'_>,
    given: &SpawnInputs<'_>,
) -> Result<Prepared, PrepareError> {
    let index = context.numbers.instance;
    let laid_out = lay_out_common(worker, command, environment, output, context)?;
    let Some(sandbox) = &worker.sandbox else {
        let (common, environment, fds) = laid_out;
        return Ok(of_common(Rc::new(common), environment, fds));
    };
    let told = [given.notify, given.acknowledge_at];
    let around_it = (told, given.control);
    let prepared = second::in_between(laid_out, worker, sandbox, index, around_it);
    prepared.map_err(|error| PrepareError::Order(error.raw_os_error().unwrap_or(0)))
}

fn lay_out_common(
    worker: &WorkerPlan,
    (command, argv0): (&[Template], Option<&Template>),
    environment: CStrings,
    output: Option<OutputTarget<'_>>,
    context: TemplateContext<'_>,
) -> Result<LaidOut, PrepareError> {
    let mut argv = CStrings::with_room_for(command.len());
    for (index, word) in command.iter().enumerate() {
        let word = argv0.filter(|_| index == 0).unwrap_or(word);
        let pushed = match word.pieces.as_slice() {
            [Piece::Words(name)] => {
                let words = expand::split(environment.value(name).unwrap_or_default());
                let mut words = words.iter();
                words.try_for_each(|word| argv.push(|bytes| bytes.extend_from_slice(word)))
            }
            _ => argv.push(|bytes| context.write_with(word, &environment, bytes)),
        };
        pushed.map_err(|ContainsNul| PrepareError::Nul("the command"))?;
    }
    let around = context.around;
    let folder = |folder: &Template| c_string(context.text(folder), "the working directory");
    let mut spec = worker.launch.try_map(folder)?;
    let is_nofile = |limit: &Limit| limit.resource == Resource::Nofile;
    if !spec.limits.iter().any(is_nofile) {
        let count = context.layout.targets.len();
        spec.limits.push(around.open_files.for_descriptors(count));
    }
    argv.seal();
    let common = Common {
        program: find_program(worker, command, &context)?,
        argv,
        unused: fdmap::unused(&context.layout.targets),
        targets: context.layout.targets,
        output: match (output, &worker.output) {
            (Some(target), _) => target.as_stdio()?,
            (None, Output::Null) => Stdio::Null,
            (
                None,
                Output::Inherit | Output::Tag | Output::TagJson | Output::Journal | Output::File(_),
            ) => Stdio::Inherit,
        },
        spec,
        signals: around.signals,
    };
    Ok((common, environment, context.layout.fds))
}

/// A launch without a sandbox.
pub(super) fn of_common(common: Rc<Common>, environment: CStrings, fds: Vec<RawFd>) -> Prepared {
    Prepared {
        common,
        environment,
        fds,
        fd_actions: Vec::new(),
        open_files: None,
        second: None,
    }
}

const OUTPUT_PATH: &str = "the output file's path";

/// Starts the prepared worker; see [`crate::sys::launch`].
///
/// # Errors
///
/// As there: no child is left.
pub fn launch(prepared: Prepared, tell: Tell<'_>) -> std::io::Result<Launched> {
    crate::sys::launch(prepared, tell, fdmap::fd_actions)
}

fn c_string(text: String, what: &'static str) -> Result<CString, PrepareError> {
    CString::new(text).map_err(|_| PrepareError::Nul(what))
}

/// Assigns numbers to the descriptors of a process beside its standard streams, or in their place.
fn layout(
    worker: &WorkerPlan,
    given: SpawnInputs<'_>,
    numbers: Numbers,
    around: &DaemonContext,
) -> Result<FdLayout, PrepareError> {
    let sockets = given.sockets.iter();
    let sockets = sockets.map(|socket| socket.address.as_socket(socket.listener, socket.fd));
    let ready = match (worker.lifecycle.ready, given.ready) {
        (Ready::Fd(target), Some(fd)) => Some((fd, target)),
        (
            Ready::Fd(_) | Ready::Started | Ready::Notify | Ready::Accepting(_) | Ready::Einhorn,
            _,
        ) => None,
    };
    let mut layout = worker.handoff.layout(&handoff::Descriptors {
        sockets: &sockets.collect::<Vec<_>>(),
        connection: given.connection.map(|served| served.fd),
        stored: given.stored,
        below: ready.map(|(_, target)| target),
        to: handoff::Recipient {
            instance: numbers.instance,
            generation: numbers.generation,
            listend: around.pid,
            listen_pid: worker.listen_pid,
            inode: around.inode,
            acknowledge_at: given.acknowledge_at,
        },
    });
    if let Some((fd, target)) = ready {
        if layout.targets.contains(&target) {
            return Err(PrepareError::Occupied(target));
        }
        layout.fds.push(fd);
        layout.targets.push(target);
    }
    Ok(layout)
}

fn find_program(
    worker: &WorkerPlan,
    command: &[Template],
    context: &TemplateContext<'_>,
) -> Result<CString, PrepareError> {
    let path = || {
        let named = |(name, _): &&(String, Template)| name == "PATH";
        let path = worker.environment.iter().rfind(named);
        path.map(|(_, value)| context.text(value))
    };
    let program = command.first();
    let program = program.map_or(String::new(), |word| context.text(word));
    match program::find(&program, path) {
        Ok(found) => CString::new(found.into_os_string().into_vec())
            .map_err(|_| PrepareError::Nul("the program's path")),
        Err(reason) => Err(PrepareError::Missing { program, reason }),
    }
}

/// The worker's own variables, and those of the handoff, which win.
fn environment(
    worker: &WorkerPlan,
    given: SpawnInputs<'_>,
    output: Option<OutputTarget<'_>>,
    context: &TemplateContext<'_>,
) -> Result<CStrings, PrepareError> {
    let most = MOST_OF_ONE + worker.environment.len() + MOST_OF_HANDOFF;
    let mut block = CStrings::with_room_for(most);
    let ends = given.connection.map(|served| served.ends);
    let listend = context.around.pid;
    push_of_one(&mut block, ends, (&worker.name, context.numbers, listend))?;
    environment_of_all(worker, given, output, block, context)
}

/// So many variables beside these a process has mostly: three of systemd's dialect, two of notifications.
const MOST_OF_HANDOFF: usize = 5;

/// The same with a block that has what [`push_of_one`] appends, or has not.
fn environment_of_all(
    worker: &WorkerPlan,
    given: SpawnInputs<'_>,
    output: Option<OutputTarget<'_>>,
    block: CStrings,
    context: &TemplateContext<'_>,
) -> Result<CStrings, PrepareError> {
    let told = given.notify.map(|socket| notify::Asked {
        socket,
        watchdog: worker.lifecycle.watchdog,
        store: worker.fd_store,
    });
    let told = told.map_or(Vec::new(), notify::variables);
    let handoff = &context.layout.variables;
    // LISTEN_PIDFDID comes last, and has to (see [`EnvSlot`]).
    let told = told.iter().map(|(name, value)| (*name, value));
    let told = told.chain(handoff.iter().map(|(name, value)| (&**name, value)));
    environment_with(worker, output, block, told, context)
}

/// So many variables [`push_of_one`] appends at most.
pub(super) const MOST_OF_ONE: usize = connection::MOST_VARIABLES + 2;

/// Appends the variables that differ between the processes of connections: the ends, and which process it is.
pub(super) fn push_of_one(
    block: &mut CStrings,
    ends: Option<&Ends>,
    (worker, numbers, listend): (&str, Numbers, u32),
) -> Result<(), PrepareError> {
    let mut result = Ok(());
    let mut put = |name: &'static str, write: &dyn Fn(&mut Vec<u8>)| {
        let pushed = block.push(|bytes| {
            start(bytes, name);
            write(bytes);
        });
        if let Err(ContainsNul) = pushed {
            result = Err(PrepareError::Nul("the environment"));
        }
    };
    if let Some(ends) = ends {
        connection::tell(ends, &mut put);
    }
    supervisor::tell(worker, numbers.instance, listend, &mut put);
    result
}

/// The worker's own variables, but for those that the block has already, and these, which win and come last.
fn environment_with<'a>(
    worker: &WorkerPlan,
    output: Option<OutputTarget<'_>>,
    mut block: CStrings,
    told: impl Iterator<Item = (&'a str, &'a Value)> + Clone,
    context: &TemplateContext<'_>,
) -> Result<CStrings, PrepareError> {
    let journal = output.and_then(|target| target.journal_stream);
    let nul = |ContainsNul| PrepareError::Nul("the environment");
    let given = block.count();
    for (name, value) in worker.environment.iter() {
        let is_given = (name == JOURNAL_STREAM && journal.is_some())
            || told.clone().any(|(given, _)| given == name)
            || block.has(name, given);
        if !is_given {
            let write = |bytes: &mut Vec<u8>| {
                start(bytes, name);
                context.write(value, bytes);
            };
            block.push(write).map_err(nul)?;
        }
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

/// The values of the placeholders. Placeholders that name no socket were refused when the configuration
/// was read; one that gets here all the same becomes an empty text.
struct TemplateContext<'a> {
    sockets: &'a [InheritedSocket<'a>],
    layout: FdLayout,
    numbers: Numbers,
    around: &'a DaemonContext,
    /// The value of `{runtime_dir}`.
    runtime_dir: String,
}

impl TemplateContext<'_> {
    fn text(&self, template: &Template) -> String {
        let mut bytes = Vec::new();
        self.write(template, &mut bytes);
        // Nothing is lost: all that is written is text.
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn write(&self, template: &Template, out: &mut Vec<u8>) {
        self.write_with(template, &CStrings::default(), out);
    }

    /// Writes a template of a command, with these variables.
    fn write_with(&self, template: &Template, variables: &CStrings, out: &mut Vec<u8>) {
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        for piece in &template.pieces {
            match piece {
                Piece::Text(text) => put(text),
                Piece::Fd(reference) => {
                    let socket = lookup(reference, self.sockets);
                    let number = socket.and_then(|(at, _)| self.layout.numbers.get(at));
                    put(&number.map_or(String::new(), i32::to_string));
                }
                Piece::Fds(list) => {
                    let of_list =
                        |name: &str| list.listener.as_deref().is_none_or(|one| one == name);
                    let sockets = self.sockets.iter().zip(&self.layout.numbers);
                    let numbers = sockets.filter(|(socket, _)| of_list(socket.listener));
                    let mut numbers: Vec<String> =
                        numbers.map(|(_, number)| number.to_string()).collect();
                    // All name the one connection of a process that is for one.
                    numbers.dedup();
                    put(&numbers.join(&list.separator));
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
                // For the forwarder, which puts the port there.
                Piece::ServerPort => put(SERVER_PORT),
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
    sockets: &'a [InheritedSocket<'b>],
) -> Option<(usize, &'a InheritedSocket<'b>)> {
    sockets
        .iter()
        .enumerate()
        .filter(|(_, socket)| socket.listener == reference.listener)
        .nth(reference.index.unwrap_or(0) as usize)
}
