//! A start that goes on where another listend was.

use super::check::finish;
use super::daemon::{After, internal, open_control, own_path, pidfd_inode};
use super::exit::Exit;
use super::kept::Leftover;
use super::load::{self, Planned};
use super::output::{count, print};
use crate::core::WhenDone;
use crate::launch_spec::{self, Limit};
use crate::listener::{AdoptError, Inherited};
use crate::plan::Plan;
use crate::shell::{KnownSocket, Manager, Past, Shell, Signals, Thawed};
use crate::store::{self, Kept};
use crate::sys;
use crate::worker::DaemonContext;
use serde_json::json;
use std::collections::BTreeMap;
use std::os::fd::AsFd;

/// What this process was started with.
pub(super) struct Left {
    /// What the listend before has left.
    pub(super) kept: Vec<Kept>,
    /// Sockets of whoever else has started it.
    pub(super) inherited: Result<Vec<Inherited>, AdoptError>,
}

/// Takes the descriptors that this process was given. Before anything else is opened.
pub(super) fn take_left(inherited: Result<Vec<Inherited>, AdoptError>) -> Left {
    let mut kept = match store::take_back() {
        Ok(kept) => kept.unwrap_or_default(),
        Err(error) => {
            log::error!("what the listend before has left cannot be found: {error}");
            Vec::new()
        }
    };
    let inherited = inherited.map(|inherited| {
        let mut others = Vec::new();
        for one in inherited {
            match one.name.parse() {
                Ok(name) => kept.push(Kept { name, fd: one.fd }),
                Err(_) => others.push(one),
            }
        }
        others
    });
    Left { kept, inherited }
}

/// Resolves every configuration that a snapshot carries.
fn plans(past: &Past) -> Result<BTreeMap<u32, Plan>, String> {
    let plans = past.configurations().map(|(key, origin)| {
        let Planned { plan, report, .. } = load::resolve_again(origin);
        match report.errors.first() {
            None => Ok((key, plan)),
            Some(error) => Err(format!(
                "its configuration is not valid for this version: {}",
                error.message
            )),
        }
    });
    plans.collect()
}

/// `listend upgrade --preflight`: whether this version could go on from the snapshot on standard input.
pub(super) fn preflight() -> Exit {
    let understood = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| error.to_string())
        .and_then(Past::of)
        .and_then(|past| {
            past.thaw(plans(&past)?, WhenDone::Hold)?;
            Ok(past)
        });
    match understood {
        Ok(past) => {
            let said = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "written_by": past.written_by(),
                "sockets": past.sockets(),
                "processes": past.processes(),
            });
            finish(print(&format!("{said}\n")), Exit::Done)
        }
        Err(why) => {
            let said = format!("the snapshot cannot be used: {why}\n");
            finish(print(&said), Exit::Unavailable)
        }
    }
}

/// Goes on where the listend before was. `Err` has what is of use where that cannot be.
pub(super) fn resume(kept: Vec<Kept>, after: After) -> Result<Exit, Box<(After, Leftover)>> {
    let past = match Past::read(kept) {
        Ok(past) => past,
        Err((why, kept)) => return Err(Box::new((after, give_up(&why, kept, Vec::new())))),
    };
    if past.is_over() {
        let (kept, known) = past.into_left();
        return Err(Box::new((after, Leftover::of(kept, known))));
    }
    let thawed = plans(&past).and_then(|plans| past.thaw(plans, after.when_done));
    match thawed {
        Ok(thawed) => Ok(go_on(past, thawed, after)),
        Err(why) => {
            let (kept, known) = past.into_left();
            Err(Box::new((after, give_up(&why, kept, known))))
        }
    }
}

fn give_up(why: &str, kept: Vec<Kept>, known: Vec<KnownSocket>) -> Leftover {
    log::warn!(
        "not going on where the listend before was: its snapshot cannot be used: {why}; the sockets are kept"
    );
    Leftover::of(kept, known)
}

fn go_on(mut past: Past, thawed: Thawed, after: After) -> Exit {
    if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
        log::warn!("cannot become a child subreaper: {errno}");
    }
    if let Err(error) = sys::close_on_exec_from(3) {
        log::debug!("cannot mark inherited descriptors: {error}");
    }
    let (soft, hard) = past.open_files();
    super::open_files::raise_open_files();
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => return internal("cannot install the signal handlers", &error),
    };
    let daemon_context = DaemonContext {
        listend: own_path(),
        pid: std::process::id(),
        inode: pidfd_inode(),
        signals: sys::changed_signals(),
        open_files: Limit {
            resource: launch_spec::Resource::Nofile,
            soft,
            hard,
        },
    };
    let (version, processes, sockets) = (
        past.written_by().to_owned(),
        past.processes(),
        past.sockets(),
    );
    let control = past.take_control();
    let names = past.names();
    let control = match open_control(after.control, names, control) {
        Ok(control) => control.begun_at(past.since()),
        Err(exit) => return exit,
    };
    let given = (signals, daemon_context);
    let resumed = match Shell::resume(past, thawed, given, after.keeper) {
        Ok(resumed) => resumed,
        Err(error) => return internal("cannot go on where the listend before was", &error),
    };
    log::info!(
        "going on where listend {version} was, with {}; processes known: {processes}",
        count(sockets, "socket")
    );
    let manager = Manager::from_environment();
    match resumed.run(control, manager, after.ready_when) {
        Ok(0) => Exit::Done,
        Ok(code) => Exit::Code(code),
        Err(error) => internal("the event loop failed", &error),
    }
}
