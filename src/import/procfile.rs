//! A Procfile, and the `PORT` of its processes.

use super::document::{Document, Entry, forwarded, literal};

/// The first `PORT`, and how far apart those of two process types are (foreman).
const FIRST_PORT: usize = 5000;
const STEP: usize = 100;
/// What no program does, and begins a line of more than one command.
const BUILTIN: [&str; 10] = [
    ".", "case", "cd", "eval", "exec", "export", "for", "if", "until", "while",
];

pub(super) fn import(text: &str) -> Document {
    let mut document = Document::default();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, command)) = line.split_once(':') else {
            document.note(line, "it is no NAME: COMMAND");
            continue;
        };
        let mut worker = Entry::new(name.trim());
        let script = script(command.trim(), &mut worker);
        worker.set(
            "command",
            ["/bin/sh", "-c", &literal(&script)]
                .map(str::to_owned)
                .to_vec(),
        );
        // foreman and its kin give it its default action.
        worker.set("ignore_sigpipe", "false");
        if name.trim() == "release" {
            worker.remark(
                "It runs once, with the others; Heroku runs it once for each release, before them.",
            );
            worker.set("restart", "never");
        }
        // `$PORT`, `process.env.PORT` and others.
        let mut words =
            command.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        if words.any(|word| word == "PORT") || name.trim() == "web" {
            let port = FIRST_PORT + STEP * document.workers.len();
            let mut listener = Entry::new(name.trim());
            listener.set("address", format!("127.0.0.1:{port}"));
            forwarded(&mut worker, &listener);
            document.listeners.push(listener);
        }
        document.workers.push(worker);
    }
    document
}

/// What the shell executes: variables are its own. It gives its place to the command, if that is a single one.
fn script(command: &str, worker: &mut Entry) -> String {
    let first = command.split_whitespace().next().unwrap_or_default();
    if command.contains(['|', '&', ';', '(', '`']) || BUILTIN.contains(&first) {
        worker.remark("The shell stays: its children are told to stop as well.");
        worker.set("kill_mode", "group");
        return command.to_owned();
    }
    // exec(1p) takes no variables in front of the command.
    let assigns = first.split_once('=').is_some_and(|(name, _)| {
        let mut letters = name.chars();
        letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    });
    match assigns {
        true => format!("exec env {command}"),
        false => format!("exec {command}"),
    }
}
