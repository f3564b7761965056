//! What could stand on the command line next: `listend __names`, which the completions call.
//!
//! Names come from the running daemon, and else from the configuration. A key was pressed and
//! somebody waits: nothing is said about what goes wrong, and the daemon has a second.

use super::args::{Arguments, Names};
use super::check::finish;
use super::client::{Client, Wait};
use super::exit::Exit;
use super::load;
use super::output::print;
use crate::config;
use crate::control::Status;
use crate::host;
use crate::verb::{self, Takes};
use clap::{Arg, Command, CommandFactory};
use nix::sys::signal::Signal;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest time that a completion takes.
const A_MOMENT: Duration = Duration::from_secs(1);

/// The kind of name that can complete a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Workers,
    /// And the instances of those that have several.
    Instances,
    Listeners,
    Both,
    Signals,
}

/// The command line before the word to complete.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    /// `None` for what no name belongs to.
    wanted: Option<Wanted>,
    control: Option<PathBuf>,
    config: Option<PathBuf>,
    /// The words that stand where the wanted one will, and are not wanted again.
    given: Vec<String>,
}

/// Prints a name on each line.
pub fn names(arguments: &Names) -> Exit {
    let line = read(&arguments.words);
    let found = match line.wanted {
        None => Vec::new(),
        Some(Wanted::Signals) => Signal::iterator()
            .map(|signal| signal.as_str().trim_start_matches("SIG").to_owned())
            .collect(),
        Some(wanted) => things(&line, wanted),
    };
    let text: String = found
        .into_iter()
        .filter(|name| !line.given.contains(name))
        .map(|name| name + "\n")
        .collect();
    finish(print(&text), Exit::Done)
}

fn things(line: &Line, wanted: Wanted) -> Vec<String> {
    let mut instances = Vec::new();
    let (listeners, workers) = match ask(line.control.as_deref()) {
        Some(status) => {
            let several = status
                .workers
                .iter()
                .filter(|one| one.only_instance().is_none());
            let several = several.flat_map(|worker| &worker.instances);
            instances.extend(several.map(|one| one.name.clone()));
            let listeners = status.listeners.into_iter().map(|one| one.name);
            let workers = status.workers.into_iter().map(|one| one.name);
            (listeners.collect(), workers.collect())
        }
        None => configured(line.config.as_deref()),
    };
    let mut names: Vec<String> = match wanted {
        Wanted::Workers => workers,
        Wanted::Instances => [workers, instances].concat(),
        Wanted::Listeners => listeners,
        Wanted::Both => [listeners, workers].concat(),
        Wanted::Signals => Vec::new(),
    };
    names.sort();
    names.dedup();
    names
}

fn ask(control: Option<&Path>) -> Option<Status> {
    let mut client = Client::connect(control, Wait::AtMost(A_MOMENT)).ok()?;
    client.ask("Status", &json!({})).ok()
}

/// Listeners and workers of the configuration, as far as it can be read. Nothing is bound or looked
/// up.
fn configured(path: Option<&Path>) -> (Vec<String>, Vec<String>) {
    let config::Config {
        listeners, workers, ..
    } = load::read_files(&path.map_or_else(host::default_config, Path::to_owned)).config;
    let listeners = listeners.into_iter().map(|one| one.name.value);
    let workers = workers.into_iter().map(|one| one.name.value);
    (listeners.collect(), workers.collect())
}

/// Makes sense of the words, which need not be a whole command.
fn read(words: &[String]) -> Line {
    let command = Arguments::command();
    let mut line = Line::default();
    let mut verb: Option<&Command> = None;
    // Bash takes `--control=PATH` apart into three words.
    let mut words = words.iter().filter(|word| *word != "=");
    while let Some(word) = words.next() {
        if let Some(flag) = flag(verb, &command, word) {
            let takes_value = flag.get_action().takes_values();
            let value = match word.split_once('=') {
                Some((_, value)) => Some(value.to_owned()),
                None if takes_value => match words.next() {
                    Some(value) => Some(value.clone()),
                    // What is to be completed is the value of a flag.
                    None => return Line::default(),
                },
                None => None,
            };
            match flag.get_id().as_str() {
                "control" => line.control = value.map(PathBuf::from),
                "config" => line.config = value.map(PathBuf::from),
                _ => {}
            }
        } else if verb.is_some() {
            line.given.push(word.clone());
        } else {
            verb = command.find_subcommand(word);
            if verb.is_none() {
                return Line::default();
            }
        }
    }
    line.wanted = verb.and_then(|verb| wanted(verb.get_name(), line.given.len()));
    line
}

/// The flag that is meant by `-c`, `--config` or `--config=FILE`.
fn flag<'a>(verb: Option<&'a Command>, command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or(word);
    let everywhere = command.get_arguments();
    let mut all = verb
        .into_iter()
        .flat_map(Command::get_arguments)
        .chain(everywhere);
    all.find(|arg| {
        let long = arg
            .get_long()
            .is_some_and(|long| name.strip_prefix("--") == Some(long));
        let short = arg.get_short().map(|short| format!("-{short}"));
        long || short.as_deref() == Some(name)
    })
}

/// The kind of the next word behind a verb that has so many words already.
fn wanted(verb: &str, given: usize) -> Option<Wanted> {
    if let Some(verb) = verb::named(verb) {
        return match (verb.takes, given) {
            (Takes::Instances, 0) => Some(Wanted::Workers),
            (Takes::Nothing(_), _) | (Takes::Signal, 0) => Some(Wanted::Instances),
            (Takes::Signal, 1) => Some(Wanted::Signals),
            (Takes::Instances | Takes::Signal, _) => None,
        };
    }
    match (verb, given) {
        ("reload", _) => Some(Wanted::Instances),
        ("logs", 0) => Some(Wanted::Workers),
        ("give", 0) | ("take", _) => Some(Wanted::Listeners),
        ("status", 0) => Some(Wanted::Both),
        ("explain", 0) => Some(Wanted::Listeners),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Line {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        read(&words)
    }

    #[test]
    fn names_are_wanted_where_names_stand() {
        for (words, wanted) in [
            ("", None),
            ("run", None),
            ("restart", Some(Wanted::Instances)),
            ("restart app", Some(Wanted::Instances)),
            ("--log-level debug stop --no-wait", Some(Wanted::Instances)),
            ("reload app", Some(Wanted::Instances)),
            ("scale", Some(Wanted::Workers)),
            ("scale app", None),
            ("signal app", Some(Wanted::Signals)),
            ("signal app HUP", None),
            ("logs -n 5 -f", Some(Wanted::Workers)),
            ("logs -n", None),
            ("status", Some(Wanted::Both)),
            ("explain", Some(Wanted::Listeners)),
            ("take --handoff inetd web", Some(Wanted::Listeners)),
            ("status --control", None),
            ("--log-level", None),
            ("nonsense", None),
            ("metrics", None),
        ] {
            assert_eq!(of(words).wanted, wanted, "{words}");
        }
    }

    #[test]
    fn the_daemon_and_the_file_are_those_of_the_command_line() {
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(of("stop --control /x").control, path("/x"));
        assert_eq!(of("stop --control=/x a").control, path("/x"));
        assert_eq!(of("stop --control = /x a").control, path("/x"));
        assert_eq!(of("explain -c f").config, path("f"));
        assert_eq!(of("stop a --no-wait b").given, ["a", "b"]);
    }
}
