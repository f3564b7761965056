//! Reads the keys about readiness and notifications of a worker.

use super::decode::{Fields, Words, choice, unknown, words};
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

/// The values of `ready`, each with what other programs call it.
const FORMS: [(&str, &[&str]); 6] = [
    ("started", &["exec", "simple"]),
    (
        "notify",
        &["sd_notify", "sd-notify", "notify-reload", "systemd"],
    ),
    ("accepting", &["accept", "listen", "listening"]),
    ("accepting first", &[]),
    ("fd 3", &["newline", "notification-fd", "s6"]),
    ("einhorn", &["ack", "worker:ack", "manual"]),
];

const ACCESSES: &Words<NotifyAccess> = words! {
    "main" = NotifyAccess::Main, "exec";
    "all" = NotifyAccess::All, "any", "everybody";
};

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
    found.extend(fields.set(
        "start_timeout",
        &mut worker.start_timeout,
        out,
        start_timeout,
    ));
    found.extend(fields.set("watchdog", &mut worker.watchdog, out, watchdog));
    found.extend(fields.set(
        "notify_access",
        &mut worker.notify_access,
        out,
        notify_access,
    ));
    found.extend(
        fields.set("fd_store", &mut worker.fd_store, out, |key, text| {
            scalar::integer(key, text, 0, MOST_STORED)
        }),
    );
}

pub(super) fn ready(_: &str, text: &str) -> Result<Ready, ValueError> {
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
        ["einhorn"] => Ok(Ready::Einhorn),
        _ => Err(no_readiness(text)),
    }
}

fn descriptor(number: &str) -> Result<Ready, ValueError> {
    match number {
        "0" | "1" | "2" => Err(ValueError::bad(format!(
            "`ready: fd {number}`: 0, 1 and 2 are standard input, output and error"
        ))
        .hint("write a number from 3 on")),
        _ => scalar::integer("ready: fd", number, FIRST_FD, LAST_FD).map(Ready::Fd),
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
    let forms = FORMS.map(|(form, _)| form);
    let mut all = FORMS.iter();
    let meant = all.find(|(_, synonyms)| synonyms.contains(&text));
    match meant
        .map(|(form, _)| *form)
        .or_else(|| nearest(text, forms))
    {
        Some(form) => value_error.hint(format!("did you mean `{form}`?")),
        None => value_error.maybe_hint(did_you_mean(text, forms)),
    }
}

pub(super) fn start_timeout(key: &str, text: &str) -> Result<Option<Duration>, ValueError> {
    match scalar::duration_or_infinity(key, text)? {
        Some(Duration::ZERO) => Err(ValueError::bad(
            "a `start_timeout` of 0 would end every start at once",
        )
        .hint("write `infinity` for no limit; the default is `90s`")),
        timeout => Ok(timeout),
    }
}

pub(super) fn watchdog(key: &str, text: &str) -> Result<Option<Duration>, ValueError> {
    match text {
        "off" => return Ok(None),
        "0" | "none" | "never" | "false" | "no" | "infinity" | "inf" => {
            let value_error = ValueError::bad(format!("`{key}`: `{text}` is not a duration"));
            return Err(value_error.hint("write `off` for none, or delete the key"));
        }
        _ => {}
    }
    let interval = scalar::duration(key, text)?;
    if interval < SHORTEST_WATCHDOG {
        return Err(ValueError::bad(format!(
            "`watchdog`: {text} is too short: a busy machine alone would exceed it"
        ))
        .hint("write at least `100ms`, or `off`"));
    }
    Ok(Some(interval))
}

fn notify_access(key: &str, text: &str) -> Result<Option<NotifyAccess>, ValueError> {
    if text == "none" {
        return Err(unknown(key, text).hint(
            "delete the key: without it no process may, unless `ready: notify`, `watchdog` or \
             `fd_store` needs it",
        ));
    }
    choice(key, text, ACCESSES).map(Some)
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
    let handoff = &worker.handoff.value;
    if handoff.stores() || draft.handoff.is_broken() {
        return;
    }
    let value_error = ValueError::bad(format!(
        "`fd_store` is for `handoff: systemd`; {handoff} has no name for what was stored"
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
