//! When an instance is ready, and what it may tell listend about itself.

use super::decode::{Fields, Words, choice, unknown};
use super::draft::{DraftWorker, Field};
use super::life::{Every, NotifyAccess, Ready};
use super::scalar;
use super::value_error::{Diagnostics, ValueError};
use crate::report::{did_you_mean, nearest};
use std::time::Duration;

/// The number of the first descriptor that is no standard stream.
const FIRST_FD: i64 = 3;

/// The highest number that a descriptor can have, unless fs.nr_open has been raised.
const LAST_FD: i64 = 1_048_575;

/// More descriptors than this nobody keeps for a successor.
const MOST_STORED: i64 = 1024;

/// A shorter watchdog would hit programs that are only not scheduled for a moment.
const SHORTEST_WATCHDOG: Duration = Duration::from_millis(100);

const FORMS: [&str; 5] = ["started", "notify", "accepting", "accepting first", "fd 3"];

/// What other programs call it.
const LIKE_FORMS: &Words<&str> = &[
    ("exec", "started"),
    ("simple", "started"),
    ("sd_notify", "notify"),
    ("sd-notify", "notify"),
    ("notify-reload", "notify"),
    ("systemd", "notify"),
    ("accept", "accepting"),
    ("listen", "accepting"),
    ("listening", "accepting"),
    ("newline", "fd 3"),
    ("notification-fd", "fd 3"),
    ("s6", "fd 3"),
];

const ACCESSES: &Words<NotifyAccess> = &[("main", NotifyAccess::Main), ("all", NotifyAccess::All)];

const LIKE_ACCESSES: &Words<&str> = &[("exec", "main"), ("any", "all"), ("everybody", "all")];

/// Reads `ready`, `start_timeout`, `watchdog`, `notify_access` and `fd_store`.
pub(super) fn decode(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    let DraftWorker {
        worker,
        of_instances: found,
        ..
    } = draft;
    if let Field::Set(value) = fields.read("ready", out, ready) {
        if value.value != Ready::Started {
            found.push(("ready", value.place));
        }
        worker.ready = value;
    }
    if let Field::Set(timeout) = fields.read("start_timeout", out, start_timeout) {
        found.push(("start_timeout", timeout.place));
        worker.start_timeout = timeout.value;
    }
    if let Field::Set(interval) = fields.read("watchdog", out, watchdog) {
        found.push(("watchdog", interval.place));
        worker.watchdog = interval.value;
    }
    if let Field::Set(access) = fields.read("notify_access", out, notify_access) {
        found.push(("notify_access", access.place));
        worker.notify_access = Some(access.value);
    }
    let count = fields.read("fd_store", out, |text| {
        scalar::integer("fd_store", text, 0, MOST_STORED)
    });
    if let Field::Set(count) = count {
        found.push(("fd_store", count.place));
        worker.fd_store = u32::try_from(count.value).unwrap_or(0); // The bounds are u32.
    }
}

pub(super) fn ready(text: &str) -> Result<Ready, ValueError> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match words.as_slice() {
        ["started"] => Ok(Ready::Started),
        ["notify"] => Ok(Ready::Notify),
        ["accepting"] | ["accepting", "all"] => Ok(Ready::Accepting(Every::All)),
        ["accepting", "first"] => Ok(Ready::Accepting(Every::First)),
        ["accepting", ..] => {
            let which = text.trim_start().trim_start_matches("accepting").trim();
            let value_error =
                ValueError::bad(format!("`ready: accepting`: unknown value `{which}`"));
            Err(value_error.maybe_hint(did_you_mean(which, ["all", "first"])))
        }
        ["fd"] => Err(ValueError::bad("`ready: fd` does not say which descriptor")
            .hint("write its number, like `fd 3`, or the first after the worker's own sockets")),
        ["fd", number] => descriptor(number),
        _ => Err(no_readiness(text)),
    }
}

fn descriptor(number: &str) -> Result<Ready, ValueError> {
    match number {
        "0" | "1" | "2" => Err(ValueError::bad(format!(
            "`ready: fd {number}`: 0, 1 and 2 are standard input, output and error"
        ))
        .hint("write a number from 3 on")),
        _ => {
            let number = scalar::integer("ready: fd", number, FIRST_FD, LAST_FD)?;
            // The bounds are i32.
            Ok(Ready::Fd(i32::try_from(number).unwrap_or(i32::MAX)))
        }
    }
}

fn no_readiness(text: &str) -> ValueError {
    let value_error = unknown("ready", text);
    let number = text
        .strip_prefix("fd")
        .map(|rest| rest.trim_start_matches([':', '=', ' ', '-']));
    if let Some(number) = number
        && !number.is_empty()
        && number.bytes().all(|b| b.is_ascii_digit())
    {
        return value_error.hint(format!("did you mean `fd {number}`?"));
    }
    if let "forking" | "fork" | "daemon" = text {
        return value_error.hint("make the program stay in the foreground, and write `started`");
    }
    let like = LIKE_FORMS.iter().find(|(word, _)| *word == text);
    let meant = like.map(|(_, form)| *form);
    match meant.or_else(|| nearest(text, FORMS)) {
        Some(form) => value_error.hint(format!("did you mean `{form}`?")),
        None => value_error.maybe_hint(did_you_mean(text, FORMS)),
    }
}

pub(super) fn start_timeout(text: &str) -> Result<Option<Duration>, ValueError> {
    match scalar::duration_or_infinity("start_timeout", text)? {
        Some(Duration::ZERO) => Err(ValueError::bad(
            "a `start_timeout` of 0 would end every start at once",
        )
        .hint("write `infinity` for no limit; the default is `90s`")),
        timeout => Ok(timeout),
    }
}

pub(super) fn watchdog(text: &str) -> Result<Option<Duration>, ValueError> {
    match text {
        "off" => return Ok(None),
        "0" | "none" | "never" | "false" | "no" | "infinity" | "inf" => {
            let value_error = ValueError::bad(format!("`watchdog`: `{text}` is not a duration"));
            return Err(value_error.hint("write `off` for none, or delete the key"));
        }
        _ => {}
    }
    let interval = scalar::duration("watchdog", text)?;
    if interval < SHORTEST_WATCHDOG {
        return Err(ValueError::bad(format!(
            "`watchdog`: {text} is too short: a busy machine alone would exceed it"
        ))
        .hint("write at least `100ms`, or `off`"));
    }
    Ok(Some(interval))
}

fn notify_access(text: &str) -> Result<NotifyAccess, ValueError> {
    if text == "none" {
        return Err(unknown("notify_access", text).hint(
            "delete the key: without it no process may, unless `ready: notify`, `watchdog` or \
             `fd_store` needs it",
        ));
    }
    choice("notify_access", text, ACCESSES, LIKE_ACCESSES)
}

/// Files `fd_store` where the handoff has no place for what was stored.
pub(super) fn handoff_fits(draft: &DraftWorker, out: &mut Diagnostics) {
    let DraftWorker {
        worker,
        of_instances,
        ..
    } = draft;
    let mut keys = of_instances.iter();
    let Some((_, place)) = keys.find(|(key, _)| *key == "fd_store") else {
        return;
    };
    let dialect = worker.handoff.value;
    if !dialect.one_socket {
        return;
    }
    let value_error = ValueError::bad(format!(
        "`fd_store` is for `handoff: systemd`; {} has one descriptor, the socket",
        dialect.keyword
    ))
    .hint("delete the key, or write `handoff: systemd`");
    let problem = value_error.at(*place);
    out.add(problem.with_related(worker.handoff.place, "the handoff"));
}

/// Files variables that listend itself has to set for what the worker may tell.
pub(super) fn variables_fit(draft: &DraftWorker, out: &mut Diagnostics) {
    let worker = &draft.worker;
    let tells = worker.ready.value == Ready::Notify
        || worker.watchdog.is_some()
        || worker.notify_access.is_some()
        || worker.fd_store > 0;
    for (name, value) in &worker.environment {
        let why = match name.as_str() {
            "NOTIFY_SOCKET" if tells => "for notifications",
            "WATCHDOG_USEC" | "WATCHDOG_PID" if worker.watchdog.is_some() => "for the `watchdog`",
            _ => continue,
        };
        let value_error = ValueError::bad(format!("`{name}` is set by listend {why}"));
        out.add(value_error.hint("delete it").at(value.place));
    }
}
