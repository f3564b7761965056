//! A worker's plan and the bound sockets → everything the child needs, laid out in memory.

use super::{fdmap, program};
use crate::config::{Endpoint, Output, Piece, Resource, SocketRef, Template};
use crate::connection::Ends;
use crate::handoff::{self, FIRST_FD, Value, systemd};
use crate::plan::WorkerPlan;
use crate::stage::Stage;
use crate::sys::{CStrings, EnvSlot, Launched, Prepared, Stdio};
use std::ffi::CString;
use std::fmt;

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

/// What a process is given.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// Every socket of the worker's listeners: what it inherits, or, where it is given a connection
    /// instead, what the placeholders may name.
    pub sockets: &'a [Inherited<'a>],
    /// The connection that it is for.
    pub connection: Option<Served<'a>>,
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
    /// Whether LISTEN_PIDFDID can be told.
    pub inode: systemd::PidfdInode,
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
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrepareError::Missing { program, reason } => {
                write!(f, "`{program}`: {reason}")
            }
            PrepareError::Nul(what) => write!(f, "{what} contains a NUL byte"),
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
            PrepareError::Nul(_) => libc::EINVAL,
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
    let sockets = given.sockets;
    let fill = |template: &Template| fill(template, sockets, numbers, around);
    let words: Vec<String> = worker.command.iter().map(fill).collect();
    let variables: Vec<(&str, String)> = worker
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), fill(value)))
        .collect();
    let path = variables
        .iter()
        .rev()
        .find(|(name, _)| *name == "PATH")
        .map(|(_, value)| value.as_str());
    let program = words.first().map_or("", String::as_str);
    let program = program::find(program, path).map_err(|reason| PrepareError::Missing {
        program: program.to_owned(),
        reason,
    })?;
    let sources: Vec<i32> = sockets.iter().map(|socket| socket.fd).collect();
    let credentials = worker.credentials.as_ref();
    Ok(Prepared {
        program: c_string(program.to_string_lossy().into_owned(), "the program's path")?,
        argv: CStrings::new(
            words
                .into_iter()
                .map(|word| c_string(word, "the command"))
                .collect::<Result<Vec<_>, _>>()?,
        ),
        environment: environment(&variables, sockets, around)?,
        first_unused: FIRST_FD + sources.len() as i32,
        fd_actions: Vec::new(),
        fds: sources,
        output: match &worker.output {
            Output::Inherit => Stdio::Inherit,
            Output::Null => Stdio::Null,
            Output::File(path) => Stdio::File(c_string(fill(path), "the output file's path")?),
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
            .map(|folder| c_string(fill(folder), "the working directory"))
            .transpose()?,
        umask: worker.umask,
    })
}

/// Starts the prepared worker; see [`crate::sys::launch`].
///
/// # Errors
///
/// As there: no child is left.
pub fn launch(prepared: Prepared) -> std::io::Result<Launched> {
    crate::sys::launch(prepared, |sources, pipe| {
        fdmap::plan(sources, pipe, FIRST_FD)
    })
}

fn c_string(text: String, what: &'static str) -> Result<CString, PrepareError> {
    CString::new(text).map_err(|_| PrepareError::Nul(what))
}

fn environment(
    variables: &[(&str, String)],
    sockets: &[Inherited<'_>],
    around: &Surroundings,
) -> Result<CStrings, PrepareError> {
    let own = systemd::variables(sockets.iter().map(|socket| socket.listener), around.inode);
    let mut strings = Vec::with_capacity(variables.len() + own.len());
    for (name, value) in variables {
        strings.push(c_string(format!("{name}={value}"), "the environment")?);
    }
    let mut slots = Vec::new();
    for (name, value) in own {
        match value {
            Value::Text(text) => {
                strings.push(c_string(format!("{name}={text}"), "the environment")?);
            }
            handoff::Value::OwnPid => slots.push((name, EnvSlot::OwnPid)),
            handoff::Value::OwnPidfdInode => slots.push((name, EnvSlot::OwnPidfdInode)),
        }
    }
    let mut block = CStrings::new(strings);
    for (name, slot) in slots {
        block.push_slot(name, slot);
    }
    Ok(block)
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

/// Fills in the placeholders. Those that name no socket were refused when the configuration was
/// read; should one get here all the same, it becomes an empty text.
fn fill(
    template: &Template,
    sockets: &[Inherited<'_>],
    numbers: Numbers,
    around: &Surroundings,
) -> String {
    let mut out = String::new();
    for piece in &template.pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Fd(reference) => {
                if let Some((position, _)) = lookup(reference, sockets) {
                    out.push_str(&(FIRST_FD as usize + position).to_string());
                }
            }
            Piece::Address(reference) => {
                if let Some((_, socket)) = lookup(reference, sockets) {
                    out.push_str(&socket.address.to_string());
                }
            }
            Piece::Port(reference) => {
                if let Some((_, socket)) = lookup(reference, sockets)
                    && let Endpoint::Inet { address, .. } = socket.address
                {
                    out.push_str(&address.port().to_string());
                }
            }
            Piece::Instance => out.push_str(&numbers.instance.to_string()),
            Piece::Generation => out.push_str(&numbers.generation.to_string()),
            Piece::Listend => out.push_str(&around.listend),
        }
    }
    out
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
