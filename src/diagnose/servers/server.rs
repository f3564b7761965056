//! A worker that runs a server, as what is read is compared with it.

use crate::config::Piece;
use crate::config::preset::Preset;
use crate::host::ServerFiles;
use crate::plan::{Plan, WorkerPlan};
use crate::report::{Kind, Place, Problem};

/// A worker that runs a server.
pub(super) struct Server<'a> {
    pub files: &'a dyn ServerFiles,
    pub plan: &'a Plan,
    pub worker: &'a WorkerPlan,
    pub preset: &'static Preset,
    /// The place of the preset in the configuration.
    pub place: Place,
    /// The command, placeholders as they are written.
    pub words: Vec<String>,
}

impl<'a> Server<'a> {
    /// The name of the server, for messages.
    pub fn name(&self) -> &'static str {
        self.preset.name
    }

    /// About how the server is configured.
    pub fn configuration(&self, message: String, hint: impl Into<String>) -> Problem {
        self.problem(Kind::ServerConfiguration, message, hint)
    }

    pub fn problem(&self, kind: Kind, message: String, hint: impl Into<String>) -> Problem {
        let message = format!("worker `{}`: {message}", self.worker.name);
        let problem = Problem::new(kind, message).at(self.place);
        problem.of_worker(&self.worker.name).with_hint(hint)
    }

    /// The value of an option: the word behind it, or the rest of its own word.
    pub fn option(&self, names: &[&str]) -> Option<&str> {
        let words = self.words.get(1..)?;
        let of = |(index, word): (usize, &'_ String)| {
            let name = names.iter().find(|name| word.starts_with(**name))?;
            let rest = &word[name.len()..];
            match rest.strip_prefix('=') {
                _ if rest.is_empty() => words.get(index + 1).map(|_| (index + 1, 0)),
                Some(_) if name.starts_with("--") => Some((index, name.len() + 1)),
                // `-cFILE`, and not `--config-something`.
                _ if !name.starts_with("--") && !word.starts_with("--") => {
                    Some((index, name.len()))
                }
                _ => None,
            }
        };
        let (index, start) = words.iter().enumerate().find_map(of)?;
        words[index].get(start..)
    }

    /// Whether a word of the command is one of these, or begins with it and `=`.
    pub fn has(&self, options: &[&str]) -> bool {
        let is = |word: &String| {
            let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
            options.contains(&name)
        };
        self.words.iter().any(is)
    }

    /// The name of the first listener, to show how something is written.
    pub fn first_listener(&self) -> Option<&'a str> {
        let first = self.worker.listeners.first()?;
        Some(&self.plan.listener(*first).name)
    }

    /// Whether a number of a descriptor is in the command or a variable.
    pub fn tells_a_number(&self) -> bool {
        let environment = self.worker.environment.iter().map(|(_, value)| value);
        let templates = self.worker.command.iter().chain(environment);
        let mut pieces = templates.flat_map(|template| &template.pieces);
        pieces.any(|piece| matches!(piece, Piece::Fd(_)))
            || self.words.iter().any(|word| word.contains("{fds"))
    }

    /// The literal directory that it runs in.
    pub fn folder(&self) -> Option<&str> {
        self.worker.launch.working_directory.as_ref()?.as_literal()
    }
}
