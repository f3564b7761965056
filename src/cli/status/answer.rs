//! An answer to `listend status`, as text or JSON.

use crate::cli::args::Status as Arguments;
use crate::cli::check::finish;
use crate::cli::client::{Client, Failure};
use crate::cli::daemon::binary as binary_at;
use crate::cli::exit::Exit;
use crate::cli::output::{columns, complain, count, print, shown, style};
use crate::cli::pretty::{Layout, parameters};
use crate::control::{
    Binary, Cell, Column, Daemon, Detail, Fit, Life, Listener, ListenerState, Rollout, Sheet,
    SocketOption, Status, Worker, age, all_is_well, or_dash, table, troubles,
};
use crate::report::Style;
use crate::shell::clock;
use crate::usage;
use serde::Deserialize;
use serde_json::json;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

/// An answer, as it came and as it is understood.
pub struct StatusAnswer {
    reply: String,
    /// With what its instances use.
    pub status: Status,
}

/// What is needed of a status beside its text. There may be thousands of listeners.
#[derive(Deserialize)]
struct Brief {
    daemon: Option<Daemon>,
    listeners: Vec<BriefListener>,
    workers: Vec<Worker>,
}

#[derive(Deserialize)]
struct BriefListener {
    name: String,
    state: ListenerState,
}

impl From<Brief> for Status {
    /// With the listeners that there is something to say about.
    fn from(brief: Brief) -> Status {
        let listeners = brief.listeners.into_iter();
        let listeners = listeners.map(|BriefListener { name, state }| Listener {
            name,
            state,
            sockets: Vec::new(),
            workers: Vec::new(),
            detail: None,
        });
        Status {
            daemon: brief.daemon,
            listeners: listeners.filter(|one| !one.is_well()).collect(),
            workers: brief.workers,
        }
    }
}

/// Asks for the status.
///
/// # Errors
///
/// [`Failure`].
pub fn ask(client: &mut Client, arguments: &Arguments) -> Result<StatusAnswer, Failure> {
    let which = match &arguments.name {
        Some(name) => json!({ "name": name }),
        None => json!({}),
    };
    client.send("Status", &which, false)?;
    // The daemon takes its time meanwhile.
    let processes = usage::Processes::read();
    // What is printed as it came is not read in full; changes are looked for in all of it.
    let (mut status, reply) = match arguments.json && !arguments.watch {
        true => {
            let (brief, reply): (Brief, String) = client.next_with_text()?;
            (brief.into(), reply)
        }
        false => client.next_with_text()?,
    };
    processes.note(&mut status);
    Ok(StatusAnswer { reply, status })
}

/// The listeners of the workers in this answer that are not in it themselves. One more question,
/// however many they are.
fn listeners_of_workers(client: &mut Client, answer: &Status) -> Result<Vec<Listener>, Failure> {
    let there: HashSet<&String> = answer.listeners.iter().map(|one| &one.name).collect();
    let taken = answer.workers.iter().flat_map(|one| &one.listeners);
    let lacking: HashSet<&String> = taken.filter(|name| !there.contains(name)).collect();
    if lacking.is_empty() {
        return Ok(Vec::new());
    }
    let all: Status = client.ask("Status", &json!({}))?;
    let listeners = all.listeners.into_iter();
    Ok(listeners
        .filter(|one| lacking.contains(&one.name))
        .collect())
}

/// Prints an answer.
pub fn show(client: &mut Client, answer: &StatusAnswer, arguments: &Arguments) -> Exit {
    let exit = match all_is_well(&answer.status) {
        true => Exit::Done,
        false => Exit::Refused,
    };
    let printed = match arguments.json {
        true => print_json(answer, Layout::Lines, &mut io::stdout().lock()),
        false => match as_text(client, &answer.status, arguments) {
            Ok(text) => print(&text),
            Err(failure) => return failure.tell(None),
        },
    };
    let exit = finish(printed, exit);
    for trouble in troubles(&answer.status) {
        complain(&shown(&trouble));
    }
    exit
}

/// Prints an answer as it came, since a newer daemon may say more than is known here; with what instances use.
///
/// # Errors
///
/// Those of `out`.
pub fn print_json(answer: &StatusAnswer, layout: Layout, out: &mut impl Write) -> io::Result<()> {
    let workers = answer.status.workers.iter();
    let mut instances = workers.flat_map(|one| &one.instances);
    let usage = || instances.next()?.usage;
    parameters(&answer.reply, layout, usage, out)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The tables, with a line about the daemon above them.
///
/// # Errors
///
/// The listeners of a worker that was named could not be asked for.
pub fn as_text(
    client: &mut Client,
    status: &Status,
    arguments: &Arguments,
) -> Result<String, Failure> {
    let mut status = Cow::Borrowed(status);
    if arguments.name.is_some() {
        let listeners = listeners_of_workers(client, &status)?;
        if !listeners.is_empty() {
            status.to_mut().listeners.extend(listeners);
        }
    }
    let now = clock::wall().as_secs();
    let mut text = status.daemon.as_ref().map_or_else(String::new, |daemon| {
        let binary = daemon.binary.as_ref();
        let on_disk = binary.and_then(|one| binary_at(Path::new(&one.path), one.path.clone()));
        head(daemon, on_disk.as_ref(), troubles(&status).len(), now)
    });
    let table = table(&status, columns(), style(), now);
    text.push_str(match table.as_str() {
        "" => "no listeners, no workers\n",
        table => table,
    });
    details(&mut text, &status);
    Ok(text)
}

/// A line about listend itself, and another if it can be upgraded.
fn head(daemon: &Daemon, on_disk: Option<&Binary>, troubles: usize, now: u64) -> String {
    let binary = daemon.binary.as_ref();
    // On another device it may be another system's: that of a container, or of its host.
    let is_replaced = binary
        .zip(on_disk)
        .is_some_and(|(runs, there)| there.device == runs.device && there != runs);
    let up = |since: &str| age(since, now).unwrap_or_else(|| "?".to_owned());
    let mut words = format!("listend {}, up {}", daemon.version, up(&daemon.since));
    if daemon.since != daemon.version_since {
        words.push_str(&format!(", this program for {}", up(&daemon.version_since)));
    }
    if let Some(path) = &daemon.configuration {
        words.push_str(&format!(", {path}"));
    }
    words.push_str(": ");
    words.push_str(&match troubles {
        0 => "no problems".to_owned(),
        many => count(many, "problem"),
    });
    words.push('\n');
    if let Some(binary) = binary.filter(|_| is_replaced) {
        words.push_str(&format!(
            "{} has changed since; `listend upgrade` continues as the new one\n",
            binary.path
        ));
    }
    let shown: String = words.lines().map(|line| shown(line) + "\n").collect();
    shown + "\n"
}

/// Writes the details of a listener or worker that was asked for by name.
fn details(out: &mut String, status: &Status) {
    let listeners = status.listeners.iter();
    for (one, detail) in listeners.filter_map(|one| Some((one, one.detail.as_ref()?))) {
        let mut others = vec![("workers", one.workers.join(", "))];
        if !detail.grant.is_empty() {
            others.push(("granted to", detail.grant.join(", ")));
        }
        others.extend(detail.taken.iter().map(|taken| ("taken", taken.clone())));
        section(out, &format!("listener {}", one.name), detail, &others);
    }
    let workers = status.workers.iter();
    for (one, detail) in workers.filter_map(|one| Some((one, one.detail.as_ref()?))) {
        let mut others = vec![
            ("activation", one.activation.clone()),
            ("listeners", one.listeners.join(", ")),
        ];
        if let Some(life) = &detail.life {
            others.extend(life_lines(life));
        }
        section(out, &format!("worker {}", one.name), detail, &others);
    }
}

fn life_lines(life: &Life) -> [(&'static str, String); 4] {
    let Rollout {
        order,
        parallel,
        min_ready,
        under_way,
    } = &life.rollout;
    let now = match under_way {
        true => "; in progress",
        false => "",
    };
    let watchdog = life.watchdog.as_deref().unwrap_or("none");
    [
        ("ready", life.ready.clone()),
        (
            "rollout",
            format!("{order}, {parallel} at a time, each ready for {min_ready}{now}"),
        ),
        ("watchdog", watchdog.to_owned()),
        (
            "fd_store",
            format!("{} stored, at most {} each", life.stored, life.fd_store),
        ),
    ]
}

fn section(out: &mut String, title: &str, detail: &Detail, others: &[(&str, String)]) {
    let mut line = |words: &str| {
        // Writing to a String does not fail.
        let _written = writeln!(out, "{}", shown(words));
    };
    line("");
    line(title);
    let place = detail.place.as_deref().unwrap_or("the command line");
    line(&format!("  {:<12}{place}", "written in"));
    for (name, value) in others {
        let value = if value.is_empty() { "-" } else { value };
        line(&format!("  {name:<12}{value}"));
    }
    if !detail.options.is_empty() {
        line("");
        for row in options(&detail.options).lines() {
            line(&format!("  {row}"));
        }
    }
}

/// The address, which may be long, stands last.
const OPTION_COLUMNS: [Column; 4] = [
    Column::new("OPTION", Fit::Left),
    Column::new("ASKED", Fit::Left),
    Column::new("EFFECTIVE", Fit::Left),
    Column::new("SOCKET", Fit::Left),
];

/// A line for each option.
fn options(options: &[SocketOption]) -> String {
    let mut sheet = Sheet::new(&OPTION_COLUMNS);
    for one in options {
        sheet.row([
            Cell::text(&one.name),
            Cell::text(&or_dash(one.asked.as_deref())),
            Cell::text(&or_dash(one.effective.as_deref())),
            Cell::text(&one.address),
        ]);
    }
    let mut out = String::new();
    sheet.print(&mut out, usize::MAX, Style::Plain);
    out
}
