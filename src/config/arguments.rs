//! The configuration of `listend exec -l [NAME=]ADDRESS … -- CMD…`, made from its arguments.

use super::address;
use super::address_parsed::V6;
use super::decode::read_template;
use super::draft::{Draft, DraftListener, DraftWorker};
use super::listener;
use super::model::Address;
use super::read::{Loaded, finish};
use super::scalar;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use super::worker;
use crate::report::{FileId, Kind, Place, Report, Sources};

/// Makes a configuration with one listener for each `-l` and one worker.
///
/// An address without a name is called `socket-` and its position from 1; a name that is given
/// again adds an address to its listener. Places point into sources named `-l` (one argument a
/// line) and `command` (one line). Never panics.
pub fn from_arguments(listen: &[String], command: &[String]) -> Loaded {
    let mut sources = Sources::default();
    let mut report = Report::default();
    let mut draft = Draft::default();
    let lines: Vec<String> = listen.iter().map(|argument| one_line(argument)).collect();
    let file = sources.add("-l", lines.join("\n") + "\n");
    for (index, argument) in listen.iter().enumerate() {
        add_listener(index, argument, file, &mut draft.listeners, &mut report);
    }
    let words: Vec<String> = command.iter().map(|word| one_line(word)).collect();
    let file = sources.add("command", words.join(" "));
    let listeners: Vec<Located<String>> = draft
        .listeners
        .iter()
        .map(|draft| draft.listener.name.clone())
        .collect();
    draft
        .workers
        .push(only_worker(command, file, listeners, &mut report));
    finish(draft, report, sources)
}

/// The sources have lines only where the arguments part.
fn one_line(argument: &str) -> String {
    argument.replace(['\n', '\r'], " ")
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// `NAME=ADDRESS`, unless the `=` belongs to the address, as in `unix:/tmp/a=b`.
fn split(argument: &str) -> (Option<&str>, &str) {
    match argument.split_once('=') {
        Some((name, address)) if !name.contains([':', '/', '@', '[']) => (Some(name), address),
        _ => (None, argument),
    }
}

/// `web:8080`, where a colon stands for the `=` behind a name.
fn name_and_port(argument: &str) -> Option<(&str, &str)> {
    let (name, port) = argument.split_once(':')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.contains('.')
        && !name.eq_ignore_ascii_case("localhost");
    let is_address = address::is_scheme(name) || address::parse(argument, V6::Only).is_ok();
    let is_port = scalar::is_digits(port);
    (is_name && is_port && !is_address && scalar::name(name).is_ok()).then_some((name, port))
}

fn add_listener(
    index: usize,
    argument: &str,
    file: FileId,
    listeners: &mut Vec<DraftListener>,
    report: &mut Report,
) {
    let place = |start: usize, text: &str| Place {
        file,
        line: number(index + 1),
        column: number(start + 1),
        length: number(text.chars().count()).max(1),
    };
    let (given, text) = split(argument);
    let name = given.map_or_else(|| format!("socket-{}", index + 1), str::to_owned);
    let start = given.map_or(0, |name| name.chars().count() + 1);
    let mut out = Diagnostics {
        report,
        listener: Some(&name),
        worker: None,
    };
    let address_place = place(start, text);
    if let Some(given) = given {
        out.check(place(0, given), scalar::name(given));
    }
    let endpoints = if text.contains('\0') {
        out.add(
            ValueError::new(Kind::BadAddress, "the address contains a NUL character")
                .at(address_place),
        );
        None
    } else {
        // Whoever writes a port alone tries something out on this machine.
        let is_port = scalar::is_digits(text);
        let local = is_port.then(|| format!("127.0.0.1:{text}"));
        let text = local.as_deref().unwrap_or(text);
        match name_and_port(text).filter(|_| given.is_none()) {
            Some((name, port)) => {
                let value_error = ValueError::new(
                    Kind::BadAddress,
                    format!("`{text}`: host names are not resolved"),
                );
                let hint = format!(
                    "write `{name}=127.0.0.1:{port}` for a listener `{name}`, or the address of the host `{name}`"
                );
                out.add(value_error.hint(hint).at(address_place));
                None
            }
            None => listener::checked(address_place, text, V6::Only, &mut out),
        }
    };
    let position = listeners
        .iter()
        .position(|draft| draft.listener.name.value == name);
    let position = position.unwrap_or_else(|| {
        let name_place = given.map_or(address_place, |given| place(0, given));
        listeners.push(DraftListener {
            listener: listener::plain(&name, name_place),
            broken: false,
            duplicate: false,
        });
        listeners.len() - 1
    });
    let draft = &mut listeners[position];
    match endpoints {
        Some(endpoints) => draft.listener.addresses.push(Located {
            value: Address {
                text: text.to_owned(),
                endpoints,
            },
            place: address_place,
        }),
        None => draft.broken = true,
    }
}

fn only_worker(
    command: &[String],
    file: FileId,
    listeners: Vec<Located<String>>,
    report: &mut Report,
) -> DraftWorker {
    let mut column = 1;
    let mut places = Vec::with_capacity(command.len());
    for word in command {
        let length = number(word.chars().count());
        places.push(Place {
            file,
            line: 1,
            column,
            length: length.max(1),
        });
        column = column.saturating_add(length).saturating_add(1);
    }
    let first = Place {
        file,
        line: 1,
        column: 1,
        length: 1,
    };
    let place = places.first().copied().unwrap_or(first);
    let name = worker_name(command);
    let mut draft = worker::plain(&name, place);
    draft.worker.listeners = listeners;
    let mut out = Diagnostics {
        report,
        listener: None,
        worker: Some(&name),
    };
    if command.first().is_none_or(String::is_empty) {
        let value_error = ValueError::new(Kind::EmptyCommand, "there is no command");
        out.add(
            value_error
                .hint("write it after `--`, like `-- /usr/bin/app --serve`")
                .at(place),
        );
    }
    for (word, place) in command.iter().zip(places) {
        if word.contains('\0') {
            out.add(ValueError::bad("the word contains a NUL character").at(place));
        }
        let value = read_template(word, place, &mut draft.mentions, &mut out);
        draft.worker.command.push(Located { value, place });
    }
    draft
}

/// The program's base name, with `-` for what a name may not have.
fn worker_name(command: &[String]) -> String {
    let program = command.first().map_or("", String::as_str);
    let base = program.rsplit('/').next().unwrap_or("");
    let legal: String = base
        .chars()
        .take(255)
        .map(|c| {
            if scalar::name(c.encode_utf8(&mut [0; 4])).is_ok() {
                c
            } else {
                '-'
            }
        })
        .collect();
    if legal.chars().any(|c| c.is_ascii_alphanumeric()) {
        legal
    } else {
        "command".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_behind_a_name_is_told_from_a_host() {
        let hint = |argument: &str| {
            let loaded = load(&[argument], &["x"]);
            let hint = loaded
                .report
                .errors
                .iter()
                .find_map(|error| error.hint.clone());
            hint.unwrap_or_default()
        };
        let web = hint("web:8080");
        assert!(web.starts_with("write `web=127.0.0.1:8080`"), "{web}");
        for other in ["example.com:80", "udp:53", "LOCALHOST:80"] {
            assert!(!hint(other).contains('='), "{other}");
        }
        assert_eq!(hint("localhost:80"), "");
    }

    fn load(listen: &[&str], command: &[&str]) -> Loaded {
        let own = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        from_arguments(&own(listen), &own(command))
    }

    #[test]
    fn names_addresses_and_the_command() {
        let loaded = load(
            &["web=127.0.0.1:80", "unix:/tmp/a=b", "web=[::1]:80"],
            &["/usr/bin/my app", "--fd={fd:web:1}"],
        );
        assert!(loaded.report.errors.is_empty(), "{:?}", loaded.report);
        let names: Vec<&str> = loaded
            .config
            .listeners
            .iter()
            .map(|listener| listener.name.value.as_str())
            .collect();
        assert_eq!(names, ["web", "socket-2"]);
        assert_eq!(loaded.config.listeners[0].addresses.len(), 2);
        assert_eq!(loaded.config.workers[0].name.value, "my-app");
        assert_eq!(loaded.config.workers[0].listeners.len(), 2);
    }

    #[test]
    fn mistakes_have_places_in_the_arguments() {
        let loaded = load(&["web=nohost:80", "a b=1.2.3.4:5"], &["", "{fd:wbe}"]);
        let places: Vec<String> = loaded
            .report
            .errors
            .iter()
            .map(|problem| loaded.sources.position(problem.place.unwrap()))
            .collect();
        assert_eq!(places, ["-l:1:5", "-l:2:1", "command:1:1", "command:1:2"]);
        assert_eq!(load(&[], &[]).report.errors[0].kind, Kind::EmptyCommand);
    }
}
