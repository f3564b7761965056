//! What was meant by a command line that is invalid: words that other programs have for what listend does.

use clap::Error;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

const BACKGROUND: &str =
    "listend stays in the foreground; to have it in the background, let a service manager start it";
const ENDS: &str = "to stop the daemon with its workers, send it SIGTERM, or stop its service";

/// Commands that others have, and what to do.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &["test", "configtest", "validate", "verify", "lint", "config"],
        "did you mean `listend check`?",
    ),
    (
        &["daemon", "serve", "server", "up", "supervise"],
        "did you mean `listend run`?",
    ),
    (
        &["quit", "shutdown", "exit", "kill", "down", "terminate"],
        ENDS,
    ),
    (
        &["ps", "list", "ls", "show"],
        "did you mean `listend status`?",
    ),
    (&["log", "tail", "journal"], "did you mean `listend logs`?"),
];

/// Options that others have, and what to do.
const OPTIONS: &[(&[&str], &str)] = &[
    (
        &[
            "-d",
            "-D",
            "--daemon",
            "--daemonize",
            "--background",
            "--detach",
        ],
        BACKGROUND,
    ),
    (&["-t", "-T", "--test"], "did you mean `listend check`?"),
    (
        &["-c", "-f", "--config", "--file"],
        "write it behind the command: `listend run FILE`",
    ),
    (
        &["-v", "--verbose", "--debug"],
        "write `--log-level debug` for more in the log",
    ),
];

/// Replaces clap's tip, which knows only the words of listend, where a better one is known.
pub fn add(error: &mut Error, words: &[OsString]) {
    if let Some(tip) = tip(error, words) {
        let tip = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, tip);
    }
}

fn tip(error: &Error, words: &[OsString]) -> Option<String> {
    let command = words.get(1)?.to_str()?;
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let of = |table: &[(&[&str], &str)], word: &str| {
        let found = table.iter().find(|(words, _)| words.contains(&word));
        found.map(|(_, tip)| (*tip).to_owned())
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            let is_file = word.ends_with(".yaml") || word.ends_with(".yml");
            if is_file {
                return Some(format!("to run it: `listend run {word}`"));
            }
            of(COMMANDS, word)
        }
        ErrorKind::UnknownArgument => {
            let word = text(ContextKind::InvalidArg)?;
            let is_command = !word.starts_with('-') && matches!(command, "exec" | "take");
            if is_command {
                return Some(format!("write `--` before the command: `-- {word} …`"));
            }
            of(OPTIONS, word)
                .filter(|_| command.starts_with('-') || matches!(command, "run" | "exec" | "check"))
        }
        ErrorKind::MissingRequiredArgument if command == "stop" => Some(ENDS.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Arguments;
    use super::*;
    use clap::Parser;

    fn said(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut error = Arguments::try_parse_from(&words).expect_err(line);
        add(&mut error, &words);
        error.to_string()
    }

    #[test]
    fn a_word_of_another_program_is_told_what_does_it_here() {
        for (line, tip) in [
            ("listend app.yaml", "tip: to run it: `listend run app.yaml`"),
            ("listend test", "tip: did you mean `listend check`?"),
            ("listend quit", "tip: to stop the daemon"),
            ("listend stop", "tip: to stop the daemon"),
            (
                "listend run --daemon",
                "tip: listend stays in the foreground",
            ),
            ("listend -d", "tip: listend stays in the foreground"),
            ("listend -t", "tip: did you mean `listend check`?"),
            ("listend -f app.yaml", "tip: write it behind the command"),
            ("listend -v status", "tip: write `--log-level debug`"),
            (
                "listend exec -l 80 python3 -m http.server",
                "tip: write `--` before the command: `-- python3 …`",
            ),
            ("listend --log-level loud run", "write off, error, warn"),
        ] {
            let said = said(line);
            assert!(said.contains(tip), "{line}: {said}");
            assert!(!said.contains("as a value"), "{line}: {said}");
        }
        // What has nothing to do with these keeps clap's own.
        assert!(said("listend statsu").contains("'status'"));
        assert!(!said("listend logs --tail").contains("foreground"));
    }
}
