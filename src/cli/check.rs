//! `listend check`: everything that can be known without starting anything.

use super::args::{Check, Dump};
use super::exit::Exit;
use super::load::{self, Planned};
use super::open_files::raise_open_files;
use super::output::{count, print, print_report};
use crate::cgroup::Whose;
use crate::control::{Cell, Column, Fit, Sheet};
use crate::diagnose::{self, Machine, Tried};
use crate::listener::{self, Adopted, BindError, BindStep, Effective, Obstacle, Outcome, Purpose};
use crate::plan::fingerprint::Known;
use crate::plan::{Plan, PlanTransfer};
use crate::report::{Kind, Problem, Report, Sources, Style, readable, reason, render, to_json};
use crate::shell::logging::Sink;
use crate::{config, worker};
use std::io::Read;
use std::path::Path;

/// The number of listeners whose reach is printed.
const REACH_SHOWN: usize = 20;

/// Checks and prints.
pub fn check(arguments: &Check, sink: Sink) -> Exit {
    if arguments.for_daemon {
        // It takes a multiple of what the file takes. Where memory runs out, the daemon is to stay.
        let _without_proc = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
    let path = &arguments.config.path();
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
    let mut options = Vec::new();
    if report.is_ok() {
        let mut findings = on_this_machine(&plan, arguments, path, &mut options);
        exit = if findings.is_ok() {
            Exit::Done
        } else {
            Exit::Unavailable
        };
        silence.apply(&mut findings);
        report.extend(findings);
    } else if !arguments.no_bind && !arguments.for_daemon {
        add_taken_addresses(&mut report, &plan, path);
    }
    report.sort();
    if arguments.json {
        let mut json = to_json(&report, &sources);
        if arguments.for_daemon {
            let plan = arguments.with_plan.then_some(plan);
            return match for_daemon(&json, plan, report, &sources) {
                Ok(text) => finish(print(&text), exit),
                Err(error) => {
                    log::error!("cannot pass on the plan: {error}");
                    Exit::Internal
                }
            };
        }
        if !options.is_empty() {
            json["options"] = options.iter().map(OptionReport::to_json).collect();
        }
        return finish(print(&format!("{json:#}\n")), exit);
    }
    print_report(&report, &sources, sink);
    if !report.is_ok() {
        log_summary(&report);
        return exit;
    }
    let dumped = match arguments.dump {
        Some(Dump::Config) => understood,
        Some(Dump::Plan) => config::to_yaml(&plan),
        None if !options.is_empty() => Ok(format!(
            "{}\n{}",
            option_table(&options),
            summary(path, &plan, &report)
        )),
        None => Ok(summary(path, &plan, &report)),
    };
    match dumped {
        Ok(text) => finish(print(&text), exit),
        Err(error) => {
            log::error!("cannot print the configuration: {error}");
            Exit::Internal
        }
    }
}

/// Prints the answer to `Check`; for a reload with the plan or, if there are errors, with their text. A
/// plan with errors is not whole, and is of no use.
fn for_daemon(
    json: &serde_json::Value,
    plan: Option<Plan>,
    report: Report,
    sources: &Sources,
) -> serde_json::Result<String> {
    let mut out = json.to_string();
    let Some(plan) = plan else {
        return Ok(out);
    };
    // By hand, because the plan as a tree of values would take several times its room.
    out.pop();
    if report.is_ok() {
        let mut told = Vec::new();
        // What it does not hear of is written out.
        let _heard = std::io::stdin().read_to_end(&mut told);
        let transfer = PlanTransfer::pack(plan, &Known::heard(&told));
        out.push_str(",\"plan\":");
        out.push_str(&serde_json::to_string(&transfer)?);
    } else {
        let errors = Report {
            advice: Vec::new(),
            ..report
        };
        let text = render(&errors, sources, Style::Plain);
        out.push_str(",\"rendered\":");
        out.push_str(&serde_json::to_string(&text)?);
    }
    out.push('}');
    Ok(out)
}

/// The text of a check without errors: all is well, and who reaches each listener.
fn summary(path: &Path, plan: &Plan, report: &Report) -> String {
    let advice = match report.advice.len() {
        0 => String::new(),
        more => format!(" ({} of advice)", count(more, "piece")),
    };
    let mut text = format!(
        "{}: {} and {} are fine{advice}\n",
        readable(path.display().to_string()),
        count(plan.listeners.len(), "listener"),
        count(
            plan.workers
                .values()
                .filter(|one| !one.is_built_in())
                .count(),
            "worker"
        ),
    );
    let machine = Machine::new();
    for listener in plan.listeners.values().take(REACH_SHOWN) {
        if let Some(who) = diagnose::who_reaches(listener, &machine) {
            text.push_str(&readable(format!("  {}: {who}", listener.name)));
            text.push('\n');
        }
    }
    let more = plan.listeners.len().saturating_sub(REACH_SHOWN);
    if more > 0 {
        text.push_str(&format!("  and {} more\n", count(more, "listener")));
    }
    text
}

/// A reader of standard output that went away (`| head`) got what it wanted.
pub(super) fn finish(printed: std::io::Result<()>, exit: Exit) -> Exit {
    match printed {
        Ok(()) => exit,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit,
        Err(error) => {
            log::error!("cannot write to standard output: {}", reason(&error));
            Exit::Internal
        }
    }
}

fn log_summary(report: &Report) {
    log::error!("{} found", count(report.error_count(), "error"));
}

/// Tries to bind everything, and releases it at once.
pub(super) fn try_all(plan: &Plan) -> Outcome {
    listener::bind_all(plan, Purpose::Try, Adopted::default())
}

/// Adds which addresses cannot be bound to the mistakes of a configuration, so that both are seen in
/// one run. Only what is so whatever is corrected: of listeners without a mistake, and about the
/// address itself.
pub(super) fn add_taken_addresses(report: &mut Report, plan: &Plan, config: &Path) {
    let machine = Machine::new();
    let is_about_address = |error: &&BindError| {
        matches!(error.obstacle, Some(Obstacle::LiveServer { .. }))
            || matches!(error.step, BindStep::Bind | BindStep::Listen)
    };
    let outcome = try_all(plan);
    let errors = outcome.errors.iter().filter(is_about_address);
    for error in errors.filter(|error| !error.is_tolerated(plan)) {
        let problem = diagnose::explain_for_check(error, plan, &machine, config);
        let is_known =
            |one: &Problem| one.listener == problem.listener || one.address == problem.address;
        if problem.is_error() && !report.errors.iter().any(is_known) {
            report.add(problem);
        }
    }
}

/// A socket option as it was asked for and as the kernel has it.
struct OptionReport {
    listener: String,
    address: String,
    option: Effective,
}

impl OptionReport {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "listener": self.listener,
            "address": self.address,
            "option": self.option.key,
            "asked": self.option.asked,
            "effective": self.option.effective,
        })
    }
}

/// The address, which may be long, is not cut: the table is for files and programs as well.
const OPTION_COLUMNS: [Column; 5] = [
    Column::new("listener", Fit::Left),
    Column::new("address", Fit::Left),
    Column::new("option", Fit::Left),
    Column::new("asked", Fit::Left),
    Column::new("effective", Fit::Left),
];

/// A table with a line for each option of each socket.
fn option_table(options: &[OptionReport]) -> String {
    let mut sheet = Sheet::new(&OPTION_COLUMNS);
    for one in options {
        let OptionReport {
            listener,
            address,
            option,
        } = one;
        let Effective {
            key,
            asked,
            effective,
            ..
        } = option;
        let cells = [listener.as_str(), address, key, asked, effective];
        sheet.row(cells.map(Cell::text));
    }
    let mut table = String::new();
    sheet.print(&mut table, usize::MAX, Style::Plain);
    table
}

fn on_this_machine(
    plan: &Plan,
    arguments: &Check,
    path: &Path,
    options: &mut Vec<OptionReport>,
) -> Report {
    let machine = Machine::new();
    let mut findings = Report::default();
    let mode = if arguments.no_bind {
        Tried::No
    } else {
        raise_open_files();
        let outcome = try_all(plan);
        options.extend(outcome.tried.into_iter().map(|(listener, socket, option)| {
            let listener = plan.listener(listener);
            OptionReport {
                listener: listener.name.clone(),
                address: listener.sockets[socket].endpoint.to_string(),
                option,
            }
        }));
        for error in &outcome.errors {
            let mut problem = diagnose::explain_for_check(error, plan, &machine, path);
            if problem.is_error() && error.is_tolerated(plan) {
                problem.kind = Kind::NotBoundYet;
            }
            let is_held = problem.kind == Kind::HeldByListend;
            findings.add(problem);
            // A reload sets the options of what is held, and is refused with one that cannot be set.
            if is_held
                && let Some(refused) = listener::refused_option(plan, error.listener, error.socket)
            {
                findings.add(diagnose::explain(&refused, plan, &machine));
            }
        }
        for note in &outcome.notes {
            findings.add(diagnose::note(note, plan));
        }
        Tried::Yes
    };
    findings.extend(diagnose::advise(plan, &machine, mode));
    if mode == Tried::Yes {
        findings.extend(diagnose::advise_flows(plan));
    }
    for advice in diagnose::shared_addresses(plan, &machine, path) {
        findings.add(advice);
    }
    for advice in worker::advise(plan)
        .into_iter()
        .chain(diagnose::servers(plan))
    {
        findings.add(advice);
    }
    let whose = match arguments.for_daemon {
        true => Whose::Own,
        false => Whose::Another,
    };
    for problem in worker::limits(plan, whose) {
        findings.add(problem);
    }
    if !arguments.for_daemon {
        for advice in diagnose::unit_limits(plan, path, Path::new("/")) {
            findings.add(advice);
        }
    }
    findings
}
