//! The verbs that change something: `start`, `stop`, `restart`, `scale`, `signal`, `reset`, `reload`.

use super::args::{Control, ForWorkers, Instances, Reload, Signal, WorkerArguments};
use super::check::finish;
use super::client::{Client, Denied, Failure, Wait};
use super::exit::Exit;
use super::output::{print, shown};
use crate::control::{Status, Worker, WorkerState};
use crate::verb::{RELOAD, RESTART, Verb};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{self, IsTerminal};

/// So many workers at a time are asked for: each needs a connection, of which the daemon takes only
/// so many.
const AT_A_TIME: usize = 32;

/// A verb and the worker that it is for.
struct Order {
    method: &'static str,
    /// The subject, in front of every line about it.
    what: String,
    parameters: Value,
    /// The last line when all is done: `restarted`.
    done: &'static str,
    no_wait: bool,
}

/// The answer of the daemon to any verb: a [`crate::control::Progress`], or nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Step {
    done: u64,
    of: u64,
    message: Option<String>,
    changes: Option<Vec<String>>,
}

/// Carries out one of the verbs for workers.
pub fn act(asked: &ForWorkers) -> Exit {
    let verb = asked.verb;
    match &asked.arguments {
        WorkerArguments::Act(behind) => {
            let all = match behind.all {
                true => all_workers(verb, &behind.control),
                false => Ok(behind.workers.clone()),
            };
            match all {
                Ok(workers) => give(&each(verb, &workers, behind.no_wait), &behind.control),
                Err(failure) => failure.tell(None),
            }
        }
        WorkerArguments::Reset(behind) => {
            let orders = each(verb, &behind.workers, false);
            give(&orders, &behind.control)
        }
        WorkerArguments::Scale(behind) => {
            let mut order = Order::of(verb, &behind.worker, behind.no_wait);
            order.parameters["instances"] = match behind.instances {
                Instances::Auto => serde_json::Value::Null,
                Instances::Number(count) => count.into(),
            };
            give(&[order], &behind.control)
        }
        WorkerArguments::Signal(behind) => give(&[signal(verb, behind)], &behind.control),
    }
}

impl Order {
    fn of(verb: &Verb, worker: &str, no_wait: bool) -> Order {
        let mut parameters = json!({ "worker": worker });
        if verb.waits {
            parameters["no_wait"] = no_wait.into();
        }
        Order {
            method: verb.method,
            what: worker.to_owned(),
            parameters,
            done: verb.done,
            no_wait,
        }
    }
}

/// The names of all workers of the configuration. What was stopped is not meant to be started by a restart.
fn all_workers(verb: &Verb, control: &Control) -> Result<Vec<String>, Failure> {
    let mut client = Client::connect(control.control.as_deref(), Wait::Patiently)?;
    let status: Status = client.ask("Status", &json!({}))?;
    let starts = *verb == RESTART;
    let is_meant = |one: &Worker| {
        let is_built_in = one.name.contains(':');
        let stays_stopped = starts && one.state == WorkerState::Stopped;
        !is_built_in && !stays_stopped
    };
    let workers = status.workers.into_iter().filter(is_meant);
    Ok(workers.map(|one| one.name).collect())
}

fn each(verb: &Verb, workers: &[String], no_wait: bool) -> Vec<Order> {
    let workers = unique(workers);
    workers
        .map(|worker| Order::of(verb, worker, no_wait))
        .collect()
}

fn signal(verb: &Verb, behind: &Signal) -> Order {
    match (&behind.worker, &behind.signal) {
        (Some(worker), Some(signal)) => {
            let mut order = Order::of(verb, worker, false);
            order.parameters["signal"] = signal.as_str().into();
            order
        }
        // The command line lets nothing else through but `--reopen`.
        (None, _) | (_, None) => Order {
            method: "Reopen",
            what: "log files".to_owned(),
            parameters: json!({}),
            done: "reopened",
            no_wait: false,
        },
    }
}

/// Carries out `listend reload`.
pub fn reload(arguments: &Reload) -> Exit {
    let (dry_run, no_wait) = (arguments.dry_run, arguments.no_wait);
    if !arguments.workers.is_empty() {
        let orders = each(&RELOAD, &arguments.workers, no_wait);
        return give(&orders, &arguments.control);
    }
    let order = Order {
        method: RELOAD.method,
        what: "configuration".to_owned(),
        parameters: json!({ "dry_run": dry_run, "no_wait": no_wait }),
        done: match dry_run {
            true => "nothing was changed",
            false => "in use",
        },
        no_wait,
    };
    give(&[order], &arguments.control)
}

/// A name given twice is one order.
fn unique(names: &[String]) -> impl Iterator<Item = &String> {
    let first =
        |(index, name): &(usize, &String)| !names.iter().take(*index).any(|one| one == *name);
    names.iter().enumerate().filter(first).map(|(_, name)| name)
}

/// Gives the orders at the same time, then waits for one after the other. What became of one has no
/// influence on the others.
fn give(orders: &[Order], control: &Control) -> Exit {
    let several = orders.len() > 1;
    if several && let Some(exit) = lacks_one(orders, control) {
        return exit;
    }
    let mut exit = Exit::Done;
    for some in orders.chunks(AT_A_TIME) {
        let mut asked = Vec::new();
        for order in some {
            let path = control.control.as_deref();
            let client = Client::connect(path, Wait::Patiently).and_then(|mut client| {
                client.send(order.method, &order.parameters, !order.no_wait)?;
                if !order.no_wait {
                    client.wait(Wait::ForEver)?;
                }
                Ok(client)
            });
            match client {
                Ok(client) => asked.push((order, client)),
                // It is the same for all of them: no daemon, or none that can be reached.
                Err(failure) => return failure.tell(None),
            }
        }
        for (order, client) in asked {
            let mut screen = StepPrinter::new();
            match follow(order, client, &mut screen) {
                Ok(printed) => exit = worse(exit, finish(printed, Exit::Done)),
                Err(failure) => {
                    // Only a line on a terminal is left unfinished.
                    let _closed = screen.end();
                    let what = several.then_some(order.what.as_str());
                    exit = worse(exit, failure.tell(what));
                }
            }
        }
    }
    exit
}

/// The exit code if one of several workers does not exist: then nothing is requested.
fn lacks_one(orders: &[Order], control: &Control) -> Option<Exit> {
    let mut client = match Client::connect(control.control.as_deref(), Wait::Patiently) {
        Ok(client) => client,
        Err(failure) => return Some(failure.tell(None)),
    };
    let mut lacking = None;
    for order in orders {
        // A listener may have the name.
        let found = client.ask::<Status>("Status", &json!({ "name": order.what }));
        let found = found.and_then(|status| match is_worker(&status, &order.what) {
            true => Ok(()),
            false => Err(Failure::Denied(Denied::no_worker(&order.what))),
        });
        match found {
            Ok(()) => {}
            Err(failure @ Failure::Denied(_)) => {
                let exit = failure.tell(None);
                lacking.get_or_insert(exit);
            }
            Err(failure) => return Some(failure.tell(None)),
        }
    }
    if lacking.is_some() {
        super::output::hint("nothing was done");
    }
    lacking
}

/// Whether a worker is called so, or an instance of one.
fn is_worker(status: &Status, name: &str) -> bool {
    status.workers.iter().any(|worker| {
        let mut instances = worker.instances.iter();
        worker.name == name || instances.any(|one| one.name == name)
    })
}

/// The first thing that went wrong counts.
fn worse(exit: Exit, other: Exit) -> Exit {
    match exit {
        Exit::Done => other,
        Exit::Refused
        | Exit::Usage
        | Exit::Unavailable
        | Exit::Internal
        | Exit::NotPermitted
        | Exit::Configuration
        | Exit::Code(_) => exit,
    }
}

/// Shows each step, and the end. Answers whether standard output took it.
fn follow(
    order: &Order,
    mut client: Client,
    screen: &mut StepPrinter,
) -> Result<io::Result<()>, Failure> {
    let mut told = false;
    loop {
        let answer = client.next::<Step>()?;
        let progress = &answer.of;
        let changes = progress.changes.as_deref().filter(|_| !told);
        if let Some(changes) = changes {
            told = true;
            if let printed @ Err(_) = self::changes(changes, screen) {
                return Ok(printed);
            }
        }
        let text = match answer.is_last {
            true => last(order, progress),
            false => step(order, progress),
        };
        // A reader that went away does not stop what was ordered, but there is nothing left to do.
        let printed = match answer.is_last {
            true => screen.line(&text),
            false => screen.passing(&text),
        };
        if answer.is_last || printed.is_err() {
            return Ok(printed);
        }
    }
}

/// `app: 2 of 4: app.1 runs`.
fn step(order: &Order, progress: &Step) -> String {
    let (done, of) = (progress.done, progress.of);
    let message = message(order, progress);
    let message = message.map_or(String::new(), |words| format!(": {words}"));
    shown(&format!("{}: {done} of {of}{message}", order.what))
}

/// The message of the daemon, without the name that is in front of it anyway.
fn message<'a>(order: &Order, progress: &'a Step) -> Option<&'a str> {
    let message = progress.message.as_deref()?;
    let rest = message.strip_prefix(&order.what);
    Some(
        rest.and_then(|rest| rest.strip_prefix(": "))
            .unwrap_or(message),
    )
}

/// Prints the changes of a reload, made or only planned.
fn changes(changes: &[String], screen: &mut StepPrinter) -> io::Result<()> {
    if changes.is_empty() {
        return screen.line("no changes");
    }
    let lines: Vec<_> = changes.iter().map(|change| shown(change)).collect();
    screen.line(&lines.join("\n"))
}

/// The last line, when all is done.
fn last(order: &Order, progress: &Step) -> String {
    let end = match (message(order, progress), order.no_wait) {
        (Some(message), _) => message.to_owned(),
        (None, true) => "requested; see `listend status`".to_owned(),
        (None, false) if progress.of > 1 => {
            format!("{}, {} of {}", order.done, progress.done, progress.of)
        }
        (None, false) => order.done.to_owned(),
    };
    shown(&format!("{}: {end}", order.what))
}

/// Standard output: on a terminal each step replaces the one before.
struct StepPrinter {
    rewrites: bool,
    is_open: bool,
}

impl StepPrinter {
    fn new() -> StepPrinter {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        StepPrinter {
            rewrites: io::stdout().is_terminal() && !dumb,
            is_open: false,
        }
    }

    fn passing(&mut self, text: &str) -> io::Result<()> {
        if !self.rewrites {
            return self.line(text);
        }
        self.is_open = true;
        // A line that wraps could not be taken back.
        let fitting: String = text.chars().take(super::output::columns() - 1).collect();
        print(&format!("\r{fitting}\x1b[K"))
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        let before = if self.is_open { "\r\x1b[K" } else { "" };
        self.is_open = false;
        print(&format!("{before}{text}\n"))
    }

    fn end(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.is_open) {
            true => print("\n"),
            false => Ok(()),
        }
    }
}
