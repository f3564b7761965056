//! The verbs that print what comes: `logs`, `events`, `metrics`.

use super::args::{Events, Logs, Metrics};
use super::check::finish;
use super::client::{Client, Failure, Wait};
use super::exit::Exit;
use super::output::{complain, hint, print, shown, style};
use crate::control::{Event, LogLine, MetricsReply, Status, Worker};
use crate::report::Style;
use crate::report::reason;
use crate::usage;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The colours that tell instances apart.
const COLOURS: [&str; 6] = ["36", "33", "32", "35", "34", "31"];

/// Carries out `listend logs`.
pub fn logs(arguments: &Logs) -> Exit {
    let workers = Client::connect(arguments.control.control.as_deref(), Wait::Patiently).and_then(
        |mut client| {
            let parameters = match &arguments.worker {
                Some(worker) => json!({ "name": worker }),
                None => json!({}),
            };
            client.ask::<Status>("Status", &parameters)
        },
    );
    // What is wrong with the daemon or the name is said below.
    let workers = workers.map_or_else(|_| Vec::new(), |status| status.workers);
    match workers.as_slice() {
        [worker] if arguments.worker.is_some() && is_in_journal(worker) => {
            return journal(worker, arguments);
        }
        workers => {
            // The default for all is to keep nothing, which is worth a word only to who names one.
            let named = arguments.worker.is_some();
            let others = workers.iter().filter(|one| named || is_in_journal(one));
            for where_to in others.filter_map(not_kept) {
                hint(&shown(&where_to));
            }
        }
    }
    let mut parameters = Map::new();
    if let Some(worker) = &arguments.worker {
        parameters.insert("worker".to_owned(), json!(worker));
    }
    if let Some(lines) = arguments.lines {
        parameters.insert("lines".to_owned(), json!(lines));
    }
    parameters.insert("follow".to_owned(), json!(arguments.follow));
    let style = style();
    let wait = match arguments.follow {
        true => Wait::ForEver,
        false => Wait::Patiently,
    };
    let client = Client::connect(arguments.control.control.as_deref(), Wait::Patiently);
    let text = |line: LogLine| log_line(&line, style);
    each(client, ("Logs", &parameters.into()), wait, |reply| {
        as_text(&reply, "line", arguments.json, text)
    })
}

fn is_in_journal(worker: &Worker) -> bool {
    worker.output.as_deref() == Some("journal")
}

/// The names that its lines have in the journal.
fn identifiers(worker: &Worker) -> Vec<&str> {
    let mut names: Vec<&str> = worker
        .instances
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    names.dedup();
    if names.is_empty() {
        names.push(&worker.name);
    }
    names
}

/// Where to find the lines of a worker, of which the daemon keeps none; `None` if it does.
pub fn not_kept(worker: &Worker) -> Option<String> {
    let name = &worker.name;
    match worker.output.as_deref() {
        Some("journal") => {
            let identifiers = identifiers(worker);
            let identifiers: Vec<_> = identifiers
                .iter()
                .map(|name| format!("-t {name}"))
                .collect();
            let identifiers = identifiers.join(" ");
            Some(format!(
                "`{name}` writes to the journal: journalctl {identifiers}"
            ))
        }
        Some("inherit") => Some(format!(
            "the output of `{name}` is that of the daemon; with `output: tag` its last lines are kept"
        )),
        Some("null") => Some(format!(
            "the output of `{name}` goes nowhere: `output: null`"
        )),
        Some(_) | None => None,
    }
}

/// Has journalctl(1) show the lines of a worker.
fn journal(worker: &Worker, arguments: &Logs) -> Exit {
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "--quiet"]);
    command.args(
        identifiers(worker)
            .iter()
            .map(|name| format!("--identifier={name}")),
    );
    let lines = arguments
        .lines
        .map_or("100".to_owned(), |lines| lines.to_string());
    command.args(["-n", &lines]);
    command.args(["-o", if arguments.json { "json" } else { "short-iso" }]);
    if arguments.follow {
        command.arg("-f");
    }
    let error = command.exec();
    complain(&format!("cannot execute journalctl: {}", reason(&error)));
    if let Some(where_to) = not_kept(worker) {
        hint(&shown(&where_to));
    }
    Exit::Refused
}

/// Carries out `listend events`.
pub fn events(arguments: &Events) -> Exit {
    // Nothing that was not asked for: an older daemon refuses parameters that it does not know.
    let mut parameters = Map::new();
    if let Some(last) = arguments.last {
        parameters.insert("last".to_owned(), json!(last));
    }
    if arguments.no_follow {
        parameters.insert("no_follow".to_owned(), json!(true));
    }
    let wait = match arguments.no_follow {
        true => Wait::Patiently,
        false => Wait::ForEver,
    };
    let client = Client::connect(arguments.control.control.as_deref(), Wait::Patiently);
    each(client, ("Watch", &parameters.into()), wait, |reply| {
        as_text(&reply, "event", arguments.json, event_line)
    })
}

/// The member of a reply as text, or as JSON: as it came, since a newer daemon may say more than is
/// known here.
fn as_text<T: DeserializeOwned>(
    reply: &Value,
    member: &str,
    json: bool,
    text: impl Fn(T) -> String,
) -> Result<String, serde_json::Error> {
    match reply.get(member) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(value) if json => Ok(format!("{value}\n")),
        Some(value) => Ok(text(serde_json::from_value(value.clone())?)),
    }
}

/// Carries out `listend metrics`.
pub fn metrics(arguments: &Metrics) -> Exit {
    let control = arguments.control.control.as_deref();
    let client = Client::connect(control, Wait::Patiently);
    let text = client.and_then(|mut client| {
        let mut text = client.ask::<MetricsReply>("Metrics", &json!({}))?.text;
        let mut status = client.ask::<Status>("Status", &json!({}))?;
        usage::note(&mut status);
        usage::add_to_metrics(&mut text, &status);
        Ok(text)
    });
    match text {
        Ok(text) => finish(print(&text), Exit::Done),
        Err(failure) => failure.tell(None),
    }
}

/// Prints every reply, each at once: a reader that follows wants to see it now.
fn each(
    client: Result<Client, Failure>,
    (method, parameters): (&str, &Value),
    wait: Wait,
    text: impl Fn(Value) -> Result<String, serde_json::Error>,
) -> Exit {
    let run = || -> Result<Exit, Failure> {
        let mut client = client?;
        client.send(method, parameters, true)?;
        let follows = wait == Wait::ForEver;
        client.wait(wait)?;
        loop {
            let answer = client.next();
            let answer = answer.map_err(|failure| match follows {
                true => failure.of_followed(),
                false => failure,
            })?;
            let text = match text(answer.of) {
                Ok(text) => text,
                Err(error) => return Err(client.misunderstood(&error)),
            };
            let printed = print(&text);
            if answer.is_last || printed.is_err() {
                return Ok(finish(printed, Exit::Done));
            }
        }
    };
    run().unwrap_or_else(|failure| failure.tell(None))
}

/// `2026-01-31T12:00:00Z app.1 text`.
fn log_line(line: &LogLine, style: Style) -> String {
    let who = line.instance.as_deref().or(line.worker.as_deref());
    let who = shown(who.unwrap_or("listend"));
    // What a worker wrote is for a program as it is, and must not move the cursor of a person.
    let text = match io::stdout().is_terminal() {
        true => shown(&line.text),
        false => line.text.clone(),
    };
    let time = &line.time;
    match style {
        Style::Colour => {
            let colour = colour(&who);
            format!("\x1b[2m{time}\x1b[0m \x1b[{colour}m{who}\x1b[0m {text}\n")
        }
        Style::Plain => format!("{time} {who} {text}\n"),
    }
}

/// The colour of a name: always the same for the same name.
fn colour(name: &str) -> &'static str {
    let sum = name.bytes().fold(0_usize, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(usize::from(byte))
    });
    COLOURS[sum % COLOURS.len()]
}

/// `2026-01-31T12:00:00Z instance-started: app.1: started, pid 4711`.
fn event_line(event: Event) -> String {
    let (time, kind) = (shown(&event.time), shown(&event.kind));
    format!("{time} {kind}: {}\n", shown(&event.message))
}
