//! `listend check`: everything that can be known without starting anything.

use super::args::{Check, Dump};
use super::exit::Exit;
use super::load::{self, Planned};
use super::output::{count, print, print_report};
use crate::diagnose::{self, Machine, Tried};
use crate::listener::{self, Purpose};
use crate::plan::Plan;
use crate::report::{Report, to_json};
use crate::shell::logging::Sink;
use crate::{config, worker};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::collections::HashMap;
use std::path::Path;

/// Checks and prints.
pub fn check(arguments: &Check, sink: Sink) -> Exit {
    let path = arguments.config.path();
    let loaded = load::read_files(path);
    let understood = match arguments.dump {
        Some(Dump::Config) => config::to_yaml(&loaded.config),
        Some(Dump::Plan) | None => Ok(String::new()),
    };
    let Planned {
        plan,
        mut report,
        sources,
        silence,
    } = load::resolve(loaded);
    let mut exit = Exit::Configuration;
    if report.is_ok() {
        let mut findings = on_this_machine(&plan, arguments, path);
        exit = if findings.is_ok() {
            Exit::Done
        } else {
            Exit::Unavailable
        };
        silence.apply(&mut findings);
        report.extend(findings);
    }
    report.sort();
    if arguments.json {
        return finish(print(&format!("{:#}\n", to_json(&report, &sources))), exit);
    }
    print_report(&report, &sources, sink);
    if !report.is_ok() {
        log_summary(&report);
        return exit;
    }
    let dumped = match arguments.dump {
        Some(Dump::Config) => understood,
        Some(Dump::Plan) => config::to_yaml(&plan),
        None => Ok(format!(
            "{}: {} and {} are fine{}\n",
            path.display(),
            count(plan.listeners.len(), "listener"),
            count(plan.workers.len(), "worker"),
            match report.advice.len() {
                0 => String::new(),
                more => format!(" ({} of advice)", count(more, "piece")),
            }
        )),
    };
    match dumped {
        Ok(text) => finish(print(&text), exit),
        Err(error) => {
            log::error!("cannot print the configuration: {error}");
            Exit::Internal
        }
    }
}

/// A reader of standard output that went away (`| head`) got what it wanted.
fn finish(printed: std::io::Result<()>, exit: Exit) -> Exit {
    match printed {
        Ok(()) => exit,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit,
        Err(error) => {
            log::error!("cannot write to standard output: {error}");
            Exit::Internal
        }
    }
}

fn log_summary(report: &Report) {
    log::error!("{} found", count(report.errors.len(), "error"));
}

fn on_this_machine(plan: &Plan, arguments: &Check, path: &Path) -> Report {
    let machine = Machine::new();
    let mut findings = Report::default();
    let mode = if arguments.no_bind {
        Tried::No
    } else {
        super::run::raise_open_files();
        // Ctrl-C in the middle would leave unix paths behind. It is acted on right afterwards.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let outcome = listener::bind_all(plan, Purpose::Try, HashMap::new());
        if let Ok(before) = before {
            // Fails only for a wrong `how` (pthread_sigmask(3)).
            let _valid = before.thread_set_mask();
        }
        for error in &outcome.errors {
            findings.add(diagnose::explain_for_check(error, plan, &machine, path));
        }
        for note in &outcome.notes {
            findings.add(diagnose::note(note, plan));
        }
        Tried::Yes
    };
    findings.extend(diagnose::advise(plan, &machine, mode));
    for advice in worker::advise(plan) {
        findings.add(advice);
    }
    findings
}
