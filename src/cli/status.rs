//! Prints the status of a daemon: `listend status`.

use super::args::Status as Arguments;
use super::check::finish;
use super::client::{Client, Failure, Wait};
use super::daemon::binary as binary_at;
use super::exit::Exit;
use super::output::{columns, complain, print, shown, style};
use super::pretty::pretty;
use crate::control::{
    Binary, Cell, Column, Daemon, Detail, Fit, Life, Listener, Rollout, Sheet, SocketOption,
    Status, age, all_is_well, or_dash, table, troubles,
};
use crate::report::Style;
use crate::shell::clock;

use serde_json::json;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

/// Asks and prints.
pub fn status(arguments: &Arguments) -> Exit {
    match ask(arguments) {
        Ok((mut client, answer)) => show(&mut client, &answer, arguments),
        Err(failure) => failure.tell(None),
    }
}

fn ask(arguments: &Arguments) -> Result<(Client, Box<RawValue>), Failure> {
    let control = arguments.control.control.as_deref();
    let mut client = Client::connect(control, Wait::Patiently)?;
    let parameters = match &arguments.name {
        Some(name) => json!({ "name": name }),
        None => json!({}),
    };
    let answer = client.ask("Status", &parameters)?;
    Ok((client, answer))
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

fn show(client: &mut Client, answer: &RawValue, arguments: &Arguments) -> Exit {
    let mut status: Status = match serde_json::from_str(answer.get()) {
        Ok(status) => status,
        Err(error) => {
            complain(&format!("cannot parse the daemon's reply: {error}"));
            return Exit::Internal;
        }
    };
    let exit = match all_is_well(&status) {
        true => Exit::Done,
        false => Exit::Refused,
    };
    let troubles = troubles(&status);
    let text = if arguments.json {
        // As it came: a newer daemon may say more than is known here.
        pretty(answer.get()) + "\n"
    } else {
        if arguments.name.is_some() {
            match listeners_of_workers(client, &status) {
                Ok(listeners) => status.listeners.extend(listeners),
                Err(failure) => return failure.tell(None),
            }
        }
        let now = clock::wall().as_secs();
        let mut text = status.daemon.as_ref().map_or_else(String::new, |daemon| {
            let binary = daemon.binary.as_ref();
            let on_disk = binary.and_then(|one| binary_at(Path::new(&one.path), one.path.clone()));
            head(daemon, on_disk.as_ref(), now)
        });
        let table = table(&status, columns(), style(), now);
        text.push_str(match table.as_str() {
            "" => "no listeners, no workers\n",
            table => table,
        });
        details(&mut text, &status);
        text
    };
    let exit = finish(print(&text), exit);
    for trouble in troubles {
        complain(&shown(&trouble));
    }
    exit
}

/// What there is to say about listend itself: that it was upgraded, or can be. Nothing about one that runs
/// as it was started.
fn head(daemon: &Daemon, on_disk: Option<&Binary>, now: u64) -> String {
    let binary = daemon.binary.as_ref();
    // On another device it may be another system's: that of a container, or of its host.
    let is_replaced = binary
        .zip(on_disk)
        .is_some_and(|(runs, there)| there.device == runs.device && there != runs);
    let is_first = daemon.since == daemon.version_since;
    if is_first && !is_replaced {
        return String::new();
    }
    let up = |since: &str| age(since, now).unwrap_or_else(|| "?".to_owned());
    let mut words = format!("listend {}, up {}", daemon.version, up(&daemon.since));
    if !is_first {
        words.push_str(&format!(", this program for {}", up(&daemon.version_since)));
    }
    if let Some(path) = &daemon.configuration {
        words.push_str(&format!(", {path}"));
    }
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
