//! `listend run`, and what `exec` shares with it: bind everything, then hand over to the loop.

use super::args::{self, Run};
use super::check::add_taken_addresses;
use super::daemon::{After, ControlPath, internal, open_control, own_path, pidfd_inode};
use super::exit::Exit;
use super::kept::{self, Kept, Leftover};
use super::load::{self, Planned};
use super::open_files::{for_workers, raise_open_files};
use super::output::{count, print_report};
use super::resume::{Left, resume, take_left};
use super::socket;
use super::take_over::{self, Taken};
use crate::cgroup::Whose;
use crate::core::{Mono, WhenDone};
use crate::diagnose::{self, Machine};
use crate::host;
use crate::listener::{self, AdoptError, Adopted, BindError, Inherited, Outcome, UnknownPorts};
use crate::plan::{Plan, SocketKey};
use crate::report::{Kind, Problem, Report, Sources, reason};
use crate::shell::logging::Sink;
use crate::shell::{
    Control, LeftWorker, Manager, ReadyWhen, Shell, Signals, clock, is_room_left, one_line,
};
use crate::store::{Identity, Keeper};
use crate::sys;
use crate::worker::{self, DaemonContext};
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// Up to this many listeners are logged one by one; more are summed up.
const LISTENERS_LOGGED: usize = 100;

/// Runs the daemon until it is asked to stop.
pub fn run(arguments: &Run, sink: Sink) -> Exit {
    let started = clock::now();
    let Left { kept, inherited } = take_left(inherit());
    let control = match control(arguments) {
        Ok(control) => control,
        Err(exit) => return exit,
    };
    let mut after = After {
        control,
        when_done: WhenDone::Hold,
        ready_when: match arguments.ready_when {
            args::ReadyWhen::Ready => ReadyWhen::Ready,
            args::ReadyWhen::Bound => ReadyWhen::Bound,
        },
        keeper: Keeper::from_environment().unwrap_or_else(|errno| {
            log::warn!(
                "nothing outlives this listend: NOTIFY_SOCKET: {}",
                errno.desc()
            );
            None
        }),
        left: Leftover::default(),
        takes_over: arguments.take_over,
    };
    if !kept.is_empty() {
        match resume(kept, after) {
            Ok(exit) => return exit,
            Err(unused) => {
                let left;
                (after, left) = *unused;
                after.left = left;
            }
        }
    }
    let planned = load::resolve(load::read_files(&arguments.config.path()));
    start(planned, inherited, after, sink, started)
}

/// The control socket of the command line, or the default.
fn control(arguments: &Run) -> Result<Option<ControlPath>, Exit> {
    let group = match &arguments.control_group {
        None => None,
        Some(name) => match host::group_id(name) {
            Some(group) => Some(group),
            None => {
                log::error!("--control-group: there is no group `{name}`");
                return Err(Exit::Usage);
            }
        },
    };
    let path = match &arguments.control {
        Some(none) if none.as_os_str() == "none" => None,
        Some(path) => match std::path::absolute(path) {
            Ok(path) => Some(path),
            Err(error) => {
                log::error!("--control {}: {}", path.display(), reason(&error));
                return Err(Exit::Usage);
            }
        },
        None => default_control(),
    };
    Ok(Some(ControlPath {
        path,
        group,
        is_asked_for: arguments.control.is_some(),
        config: arguments.config.path(),
    }))
}

/// The default path, in a folder that is there. Without one the daemon runs all the same.
fn default_control() -> Option<PathBuf> {
    let found = socket::default_path().and_then(|path| {
        let made = socket::make_folder(&path);
        made.map_err(|error| format!("{}: {}", path.display(), reason(&error)))?;
        Ok(path)
    });
    if let Err(why) = &found {
        log::warn!(
            "no control socket, so status, reload and the other verbs cannot reach this daemon: \
             {why}; use --control PATH"
        );
    }
    found.ok()
}

/// Takes the sockets that listend was started with. Before anything else is opened.
pub(super) fn inherit() -> Result<Vec<Inherited>, AdoptError> {
    let promised = std::env::var_os("LISTEN_FDS").is_some();
    let inherited = listener::take_inherited();
    if promised && matches!(&inherited, Ok(none) if none.is_empty()) {
        log::info!("LISTEN_FDS is not for this process: no socket is adopted");
    }
    inherited
}

/// Binds every listener of the plan, then starts its workers and supervises them.
pub fn start(
    planned: Planned,
    inherited: Result<Vec<Inherited>, AdoptError>,
    after: After,
    sink: Sink,
    started: Mono,
) -> Exit {
    let Planned {
        plan,
        mut report,
        sources,
        silence,
    } = planned;
    // The first file is the one that the command line names; `exec` has none.
    let config = sources.names().into_iter().next().unwrap_or_default();
    if !report.is_ok() {
        // What was inherited is bound already.
        if matches!(&inherited, Ok(none) if none.is_empty()) {
            raise_open_files();
            add_taken_addresses(&mut report, &plan, Path::new(&config));
        }
        return give_up(report, &sources, sink, Exit::Configuration);
    }
    let inherited = match inherited {
        Ok(inherited) => inherited,
        Err(error) => {
            log::error!("nothing was started: {error}");
            return Exit::Unavailable;
        }
    };
    // What a worker leaves behind in its process group, and whom it names as its main process
    // (`MAINPID=`, sd_notify(3)), becomes our child when its parent ends, so that its end and its
    // status are told here.
    if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
        log::warn!("cannot become a child subreaper: {errno}");
    }
    let open_files = for_workers(raise_open_files());
    if let Err(error) = sys::close_on_exec_from(3) {
        log::debug!("cannot mark inherited descriptors: {error}");
    }
    // Before anything is bound: a signal during start-up is acted on as soon as the loop runs.
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return internal("cannot install the signal handlers", &error),
    };
    let machine = Machine::new();
    let mut findings = Report::default();
    for problem in worker::limits(&plan, Whose::Own) {
        findings.add(problem);
    }
    let (mut adopted, names) = adopt(&plan, inherited, &mut findings);
    let (mut keeper, left) = (after.keeper, after.left);
    let Kept {
        sockets,
        names: kept_as,
        records,
        going,
    } = kept::adopt(&plan, left, keeper.as_mut());
    adopted.extend(sockets);
    let taken = match after.takes_over {
        true => {
            let changed = take_over::last_change(&sources.names());
            let control = after
                .control
                .as_ref()
                .and_then(|control| control.path.as_deref());
            match take_over::take(&plan, &machine, changed, control) {
                Ok(Taken {
                    adopted: taken,
                    workers,
                }) => {
                    let keys: Vec<SocketKey> = taken.keys().copied().collect();
                    adopted.extend(taken);
                    Some((keys, workers))
                }
                Err(why) => {
                    log::error!("nothing was started: {why}");
                    return Exit::Unavailable;
                }
            }
        }
        false => None,
    };
    let Outcome {
        mut bound,
        mut errors,
        notes,
        tried: _,
    } = kept::bind_all(&plan, adopted, &going);
    for (key, record) in records {
        if let Some(socket) = bound.get_mut(key) {
            socket.restore(record);
        }
    }
    // Whose socket was the wrong one could not be bound while somebody else has the right one.
    errors.retain(|error| {
        let name = &plan.listener(error.listener).name;
        !findings
            .errors
            .iter()
            .any(|of| of.listener.as_ref() == Some(name))
    });
    let (missing, fatal): (Vec<_>, Vec<_>) = errors
        .into_iter()
        .partition(|error| error.is_tolerated(&plan));
    for error in &fatal {
        let problem = diagnose::explain_for_run(error, &plan, &machine, Path::new(&config));
        findings.add(problem);
    }
    if findings.is_ok() && !is_room_left() {
        findings.add(diagnose::no_room_left(&plan, &machine));
    }
    if !findings.is_ok() {
        bound.withdraw();
        report.extend(findings);
        return give_up(report, &sources, sink, Exit::Unavailable);
    }
    let control = match open_control(after.control, sources.names(), None) {
        Ok(control) => control,
        Err(exit) => {
            bound.withdraw();
            return exit;
        }
    };
    for error in &missing {
        let problem = diagnose::explain(error, &plan, &machine);
        log::warn!("{}", one_line(&problem));
    }
    let taken = taken.map(|(taken, workers)| {
        take_over::make_own(&plan, &mut bound, &taken);
        workers
    });
    for note in &notes {
        findings.add(diagnose::note(note, &plan));
    }
    findings.extend(diagnose::advise(&plan, &machine, diagnose::Tried::Yes));
    for advice in diagnose::shared_addresses(&plan, &machine, Path::new(&config)) {
        findings.add(advice);
    }
    // Root has bound it, and `check` has told what would be with less.
    findings
        .advice
        .retain(|one| one.kind != Kind::PrivilegedPort);
    silence.apply(&mut findings);
    report.extend(findings);
    log_advice(&report, &sources);
    log_adopted(&plan, &bound, &names);
    log_bound(&plan, &bound, started);
    let daemon_context = DaemonContext {
        listend: own_path(),
        pid: std::process::id(),
        inode: pidfd_inode(),
        signals: sys::changed_signals(),
        open_files,
    };
    // What start-up needed is a multiple of what the loop needs, and the loop may run for years.
    drop((silence, report, sources, machine, fatal, notes));
    sys::return_free_memory();
    let given = (signals, daemon_context);
    if let Some(left) = taken.filter(|left| !left.is_empty()) {
        let after = (after.when_done, (keeper, kept_as), after.ready_when);
        return go_on(plan, bound, given, (left, missing), control, after);
    }
    let shell = Shell::new(plan, bound, given, after.when_done);
    let manager = Manager::from_environment();
    let run = |shell: Shell| {
        let shell = shell.with_control(control).with_keeper(keeper, kept_as);
        shell.with_manager(manager, after.ready_when).run(&missing)
    };
    match shell.and_then(run) {
        Ok(0) => Exit::Done,
        Ok(code) => Exit::Code(code),
        Err(error) => internal("the event loop failed", &error),
    }
}

/// Who keeps descriptors, and what it has by which names.
type KeptAs = (Option<Keeper>, Vec<(u32, SocketKey, Identity)>);

/// Supervises what another listend has left behind.
fn go_on(
    plan: Plan,
    bound: listener::SocketTable,
    given: (Signals, DaemonContext),
    left: (Vec<LeftWorker>, Vec<BindError>),
    control: Control,
    (when_done, (keeper, kept_as), ready_when): (WhenDone, KeptAs, ReadyWhen),
) -> Exit {
    let resumed = match Shell::take_over(plan, bound, given, when_done, left) {
        Ok(resumed) => resumed.with_keeper(keeper, kept_as),
        Err(why) => {
            log::error!("cannot take over: {why}");
            return Exit::Internal;
        }
    };
    match resumed.run(control, Manager::from_environment(), ready_when) {
        Ok(0) => Exit::Done,
        Ok(code) => Exit::Code(code),
        Err(error) => internal("the event loop failed", &error),
    }
}

/// The names of adopted sockets.
type SocketNames = HashMap<SocketKey, String>;

/// Gives the inherited sockets to their listeners.
fn adopt(plan: &Plan, inherited: Vec<Inherited>, findings: &mut Report) -> (Adopted, SocketNames) {
    let called: HashMap<RawFd, String> = inherited
        .iter()
        .map(|one| (one.fd.as_raw_fd(), one.name.clone()))
        .collect();
    let (adopted, problems) = listener::match_up(plan, inherited, UnknownPorts::NeedAName);
    for problem in &problems {
        findings.add(diagnose::explain_adoption(problem, plan));
    }
    let name = |fd: &OwnedFd| called.get(&fd.as_raw_fd()).cloned().unwrap_or_default();
    let names = adopted.iter().map(|(place, fd)| (*place, name(fd)));
    let names = names.collect();
    (adopted, names)
}

fn log_adopted(plan: &Plan, bound: &listener::SocketTable, names: &SocketNames) {
    if names.is_empty() {
        return;
    }
    for listener in plan.listeners.values() {
        for socket in bound.of(listener) {
            if let Some(name) = names.get(&socket.key) {
                log::info!(
                    "listener {}: adopted {} (inherited as `{name}`)",
                    listener.name,
                    socket.address
                );
            }
        }
    }
}

fn give_up(mut report: Report, sources: &Sources, sink: Sink, exit: Exit) -> Exit {
    let errors = report.error_count();
    // Where something is wrong, what merely may surprise would hide it.
    report.advice.clear();
    report.sort();
    print_report(&report, sources, sink);
    let is_limit = |one: &Problem| one.kind == Kind::LimitNotEnforced;
    let what = match exit {
        Exit::Unavailable if report.errors.iter().all(is_limit) => {
            "nothing was started: limits of workers cannot be enforced"
        }
        Exit::Unavailable => "nothing was started: not every listener could be bound",
        _ => "nothing was started: the configuration is invalid",
    };
    log::error!("{what} ({})", count(errors, "error"));
    exit
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

fn log_bound(plan: &Plan, bound: &listener::SocketTable, started: Mono) {
    let one_by_one = plan.listeners.len() <= LISTENERS_LOGGED;
    let mut sockets = 0;
    for listener in plan.listeners.values() {
        for planned in &listener.sockets {
            let Some(socket) = bound.get(planned.key) else {
                continue;
            };
            sockets += 1;
            if socket.shard > 0 {
                continue;
            }
            // A port that the kernel chose is known nowhere else.
            let level = match one_by_one || socket.address != planned.endpoint {
                true => log::Level::Info,
                false => log::Level::Debug,
            };
            let (name, address) = (&listener.name, &socket.address);
            let shards = match listener.shards() {
                1 => String::new(),
                shards => format!(" ({shards} shards)"),
            };
            log::log!(level, "listener {name}: listening on {address}{shards}");
        }
    }
    log::info!(
        "{} ({}) bound in {} ms",
        count(plan.listeners.len(), "listener"),
        count(sockets, "socket"),
        clock::now().since(started).as_millis()
    );
}
