//! `listend run`, and what `exec` shares with it: bind everything, then hand over to the loop.

use super::args::Run;
use super::exit::Exit;
use super::load::{self, Planned};
use super::output::{count, print_report};
use crate::core::{Mono, WhenDone};
use crate::diagnose::{self, Machine};
use crate::handoff::systemd::PidfdInode;
use crate::listener::{self, Adopted, Outcome, Purpose};
use crate::plan::Plan;
use crate::report::{Report, Sources};
use crate::shell::logging::Sink;
use crate::shell::{Shell, Signals, clock};
use crate::sys;
use crate::worker::Surroundings;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Up to this many listeners are logged one by one; more are summed up.
const LISTENERS_LOGGED: usize = 100;

/// Runs the daemon until it is asked to stop.
pub fn run(arguments: &Run, sink: Sink) -> Exit {
    let started = clock::now();
    let planned = load::resolve(load::read_files(arguments.config.path()));
    start(planned, WhenDone::Hold, sink, started)
}

/// Binds every listener of the plan, then starts its workers and supervises them.
pub fn start(planned: Planned, when_done: WhenDone, sink: Sink, started: Mono) -> Exit {
    let Planned {
        plan,
        mut report,
        sources,
        silence,
    } = planned;
    if !report.is_ok() {
        return give_up(report, &sources, sink, Exit::Configuration);
    }
    let open_files = raise_open_files();
    if let Err(error) = sys::close_on_exec_from(3) {
        log::debug!("cannot mark inherited descriptors: {error}");
    }
    // Before anything is bound: a signal during start-up is acted on as soon as the loop runs.
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return internal("cannot install the signal handlers", &error),
    };
    let machine = Machine::new();
    let Outcome {
        bound,
        errors,
        notes,
        tried: _,
    } = listener::bind_all(&plan, Purpose::Keep, Adopted::default());
    let mut findings = Report::default();
    for error in &errors {
        findings.add(diagnose::explain(error, &plan, &machine));
    }
    if !findings.is_ok() {
        bound.withdraw();
        report.extend(findings);
        return give_up(report, &sources, sink, Exit::Unavailable);
    }
    for note in &notes {
        findings.add(diagnose::note(note, &plan));
    }
    findings.extend(diagnose::advise(&plan, &machine, diagnose::Tried::Yes));
    silence.apply(&mut findings);
    report.extend(findings);
    log_advice(&report, &sources);
    log_bound(&plan, &bound, started);
    let surroundings = Surroundings {
        listend: own_path(),
        inode: pidfd_inode(),
        open_files,
    };
    // What start-up needed is a multiple of what the loop needs, and the loop may run for years.
    drop((silence, report, sources, machine, errors, notes));
    sys::return_free_memory();
    let shell = Shell::new(plan, bound, signals, surroundings, when_done);
    match shell.and_then(Shell::run) {
        Ok(0) => Exit::Done,
        Ok(code) => Exit::Code(code),
        Err(error) => internal("the event loop failed", &error),
    }
}

fn give_up(mut report: Report, sources: &Sources, sink: Sink, exit: Exit) -> Exit {
    let errors = report.errors.len();
    // Where something is wrong, what merely may surprise would hide it.
    report.advice.clear();
    report.sort();
    print_report(&report, sources, sink);
    let what = match exit {
        Exit::Unavailable => "nothing was started: not every listener could be bound",
        _ => "nothing was started: the configuration is bad",
    };
    log::error!("{what} ({})", count(errors, "error"));
    exit
}

fn internal(what: &str, error: &std::io::Error) -> Exit {
    log::error!("{what}: {error}");
    Exit::Internal
}

/// Advice is one line each here; `listend check` shows it in full.
fn log_advice(report: &Report, sources: &Sources) {
    for advice in &report.advice {
        let position = advice.place.map(|place| sources.position(place) + ": ");
        log::info!(
            "{}advice: {} [{}]",
            position.unwrap_or_default(),
            advice.message,
            advice.kind.code()
        );
    }
    for (kind, count) in &report.omitted {
        log::info!("advice: and {count} more of [{}]", kind.code());
    }
}

fn log_bound(plan: &Plan, bound: &listener::Bound, started: Mono) {
    let one_by_one = plan.listeners.len() <= LISTENERS_LOGGED;
    let mut sockets = 0;
    for (listener, held) in plan.listeners.iter().zip(&bound.listeners) {
        sockets += held.sockets.len();
        for socket in &held.sockets {
            // A port that the kernel chose is known nowhere else.
            if one_by_one || socket.address != socket.endpoint {
                log::info!(
                    "listener {}: listening on {}",
                    listener.name,
                    socket.address
                );
            } else {
                log::debug!(
                    "listener {}: listening on {}",
                    listener.name,
                    socket.address
                );
            }
        }
    }
    log::info!(
        "{} ({}) bound in {} ms",
        count(plan.listeners.len(), "listener"),
        count(sockets, "socket"),
        clock::now().since(started).as_millis()
    );
}

/// Raises the soft limit on open files to the hard one, and answers with both as they were: every
/// listener is a descriptor, and so is every instance.
pub(super) fn raise_open_files() -> (u64, u64) {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(_) => return (1024, 4096),
    };
    if let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        log::warn!("cannot raise the limit on open files from {soft} to {hard}: {errno}");
    }
    (soft, hard)
}

/// The path of the running binary, for `{listend}`.
fn own_path() -> String {
    let path = std::env::current_exe();
    path.map_or_else(
        |_| "/proc/self/exe".to_owned(),
        |path| path.to_string_lossy().into_owned(),
    )
}

/// Whether LISTEN_PIDFDID can be told: the kernel has to give each pidfd an inode of its own.
fn pidfd_inode() -> PidfdInode {
    if sys::has_pidfs() {
        PidfdInode::Tell
    } else {
        PidfdInode::Leave
    }
}
