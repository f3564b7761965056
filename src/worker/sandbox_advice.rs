//! Advice about what a sandbox keeps from a worker that needs it.

use super::program;
use crate::config::Template;
use crate::plan::WorkerPlan;
use crate::report::{Kind, Problem};
use crate::sandbox::paths::{self, Implied, View};
use crate::sandbox::{Flag, Sandbox};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a sandbox hides although the worker needs it, and servers that it could not reach.
pub(super) fn advise(worker: &WorkerPlan) -> Vec<Problem> {
    let Some(sandbox) = &worker.sandbox else {
        return Vec::new();
    };
    let mut advice = hidden(worker, sandbox);
    advice.extend(unreachable(worker, sandbox));
    advice
}

fn hidden(worker: &WorkerPlan, sandbox: &Sandbox) -> Vec<Problem> {
    let implied = Implied {
        own: worker
            .runtime_directory
            .iter()
            .map(|one| one.path())
            .collect(),
        hidden: Vec::new(),
    };
    let rules = paths::rules(sandbox, &implied);
    let word = worker.command.first().and_then(Template::as_literal);
    let variable = worker.environment.iter().find(|(name, _)| name == "PATH");
    let variable = variable.and_then(|(_, value)| value.as_literal());
    let program = word.and_then(|word| program::find(word, || variable).ok());
    let programs = program.map_or(Vec::new(), |path| executed(&path));
    let programs = programs.into_iter().map(|path| ("its program", path));
    let folder = worker.launch.working_directory.as_ref();
    let folder = folder.and_then(Template::as_literal);
    let folder = folder.map(|path| ("`working_directory`", PathBuf::from(path)));
    let needed = programs.chain(folder);
    let hidden = needed.filter_map(|(what, path)| {
        let rule = paths::rule_for(&rules, &path)?;
        let is_gone = matches!(
            rule.view,
            View::Hidden | View::Empty | View::Own | View::Devices
        );
        let (name, path) = (&worker.name, path.display());
        let message = format!(
            "worker `{name}`: `{}` of its sandbox hides {what}, {path}",
            rule.key
        );
        let problem = Problem::new(Kind::SandboxHides, message).at(worker.place);
        let hint = format!(
            "each start would fail; add `read_only_paths: [{path}]`, or a directory above it"
        );
        is_gone.then(|| problem.of_worker(name).with_hint(hint))
    });
    // The first says it: the others are links to the same place, or what it leads to.
    hidden.take(1).collect()
}

/// The program, and what executing it needs as well: the target of a link, and an interpreter.
fn executed(program: &Path) -> Vec<PathBuf> {
    let mut files = vec![program.to_owned()];
    files.extend(fs::canonicalize(program));
    let mut start = [0_u8; 256];
    let is_file = fs::metadata(program).is_ok_and(|file| file.is_file());
    let read = |start: &mut [u8]| File::open(program)?.read(start);
    if is_file && read(&mut start).is_ok() {
        let line = start.split(|byte| *byte == b'\n').next();
        let line = line.and_then(|line| line.strip_prefix(b"#!"));
        let line = line.map(|line| String::from_utf8_lossy(line).into_owned());
        let interpreter = line
            .as_deref()
            .and_then(|line| line.split_whitespace().next());
        if let Some(interpreter) = interpreter {
            files.push(interpreter.into());
            files.extend(fs::canonicalize(interpreter));
        }
    }
    files
}

/// Schemes of servers that workers talk to.
const SCHEMES: &[&str] = &[
    "amqp",
    "amqps",
    "http",
    "https",
    "memcached",
    "mongodb",
    "mysql",
    "nats",
    "postgres",
    "postgresql",
    "redis",
    "rediss",
];

/// A server that the worker seems to be told of, and cannot reach from a network of its own.
fn unreachable(worker: &WorkerPlan, sandbox: &Sandbox) -> Option<Problem> {
    if !sandbox.has(Flag::PrivateNetwork) {
        return None;
    }
    let variables = worker.environment.iter();
    let variables = variables.map(|(name, value)| (format!("variable `{name}`"), value));
    let words = worker
        .command
        .iter()
        .map(|word| ("`command`".to_owned(), word));
    let mut named = variables.chain(words).filter_map(|(what, text)| {
        let text = text.as_literal()?;
        Some((what, server_in(text)?))
    });
    let (what, server) = named.next()?;
    let name = &worker.name;
    let message = format!(
        "worker `{name}` has no network (`private_network` of its sandbox), but its {what} names \
         {server}"
    );
    let hint = "it could not connect to it; use `sandbox: strict`, or a unix socket of that server";
    let problem = Problem::new(Kind::SandboxNetwork, message).at(worker.place);
    Some(problem.of_worker(name).with_hint(hint))
}

/// The server of a URL, without what may be secret.
fn server_in(text: &str) -> Option<String> {
    let (before, rest) = text.split_once("://")?;
    let scheme = before
        .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '+')
        .next()?;
    let scheme = scheme.split('+').next()?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next()?;
    (SCHEMES.contains(&scheme) && !host.is_empty()).then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_without_its_password() {
        for (text, server) in [
            (
                "postgres://app:secret@db.example:5432/app",
                Some("postgres://db.example:5432"),
            ),
            ("--url=redis://cache/0", Some("redis://cache")),
            ("postgresql+psycopg://db/x", Some("postgresql://db")),
            ("postgres:///app?host=/run/postgresql", None),
            ("file:///x", None),
            ("plain", None),
        ] {
            assert_eq!(server_in(text).as_deref(), server, "{text}");
        }
    }
}
