//! Advice about what a sandbox keeps from a worker that needs it.

use super::program;
use crate::config::Template;
use crate::plan::WorkerPlan;
use crate::report::{Kind, Problem};
use crate::sandbox::paths::{self, Implied};
use crate::sandbox::{Flag, Sandbox};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A script behind its interpreter, a configuration.
const A_FILE: &str = "a file of its `command`";

/// What a sandbox hides although the worker needs it, and servers that it could not reach.
pub(super) fn advise(worker: &WorkerPlan) -> Vec<Problem> {
    let Some(sandbox) = &worker.sandbox else {
        return Vec::new();
    };
    let hidden = hidden(worker, sandbox).into_iter();
    hidden.chain(unreachable(worker, sandbox)).collect()
}

/// Whether what is at a path can be had by this worker only if it was given to it at its start.
pub fn is_hidden_from(worker: &WorkerPlan, path: &Path) -> bool {
    worker.sandbox.as_ref().is_some_and(|sandbox| {
        let rules = paths::rules(sandbox, &Implied::default());
        paths::hiding(&rules, path).is_some()
    })
}

fn hidden(worker: &WorkerPlan, sandbox: &Sandbox) -> Option<Problem> {
    let implied = Implied {
        own: worker
            .runtime_directory
            .iter()
            .map(|one| one.path())
            .collect(),
        hidden: Vec::new(),
    };
    let rules = paths::rules(sandbox, &implied);
    let needed = needed(worker).into_iter();
    let hidden = needed.filter_map(|(what, path)| {
        let rule = paths::hiding(&rules, &path)?;
        Some((what, path, rule.key.as_str()))
    });
    let hidden: Vec<(&str, PathBuf, &str)> = hidden.collect();
    let (what, path, key) = hidden.first()?;
    let mut shown: Vec<PathBuf> = Vec::new();
    for place in hidden.iter().map(|(_, path, _)| installed_in(path)) {
        if !shown.iter().any(|other| place.starts_with(other)) {
            shown.retain(|other| !other.starts_with(&place));
            shown.push(place);
        }
    }
    let shown: Vec<String> = shown
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let (name, path) = (&worker.name, path.display());
    let message = format!("worker `{name}`: `{key}` of its sandbox hides {what}, {path}");
    let failure = match *what {
        A_FILE => "it could not open it",
        _ => "each start would fail",
    };
    let hint = format!(
        "{failure}; add `read_only_paths: [{}]`, or directories above",
        shown.join(", ")
    );
    let problem = Problem::new(Kind::SandboxHides, message).at(worker.place);
    Some(problem.of_worker(name).with_hint(hint))
}

/// What a start of the worker needs, as far as it is known.
fn needed(worker: &WorkerPlan) -> Vec<(&'static str, PathBuf)> {
    let variable = worker.environment.iter().find(|(name, _)| name == "PATH");
    let variable = variable.and_then(|(_, value)| value.as_literal());
    let find = |word: &str| program::find(word, || variable).ok();
    let is_listend = program::is_listend(&worker.command);
    let itself = std::env::current_exe().ok().filter(|_| is_listend);
    let command = program::served_by(&worker.command);
    let word = command.first().and_then(Template::as_literal);
    let program = word.and_then(find);
    let programs = program.map_or(Vec::new(), |path| executed(&path, &find));
    let programs = itself.into_iter().chain(programs);
    let programs = programs.map(|path| ("its program", path));
    let folder = worker.launch.working_directory.as_ref();
    let folder = folder.and_then(Template::as_literal);
    let folder = folder.map(|path| ("`working_directory`", PathBuf::from(path)));
    let words = command.iter().skip(1).filter_map(Template::as_literal);
    let files = words
        .map(PathBuf::from)
        .filter(|path| path.is_absolute() && path.is_file());
    let files = files.map(|path| (A_FILE, path));
    programs.chain(folder).chain(files).collect()
}

/// The program, and what executing it needs as well: the targets of links, and an interpreter, which `find` finds if
/// it is behind env(1).
fn executed(program: &Path, find: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let mut files = links_of(program);
    let mut start = [0_u8; 256];
    let is_file = fs::metadata(program).is_ok_and(|file| file.is_file());
    let read = |start: &mut [u8]| File::open(program)?.read(start);
    if !is_file || read(&mut start).is_err() {
        return files;
    }
    let line = start.split(|byte| *byte == b'\n').next();
    let Some(line) = line.and_then(|line| line.strip_prefix(b"#!")) else {
        return files;
    };
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else {
        return files;
    };
    files.append(&mut links_of(Path::new(interpreter)));
    if Path::new(interpreter).ends_with("env") {
        let named = words.find(|word| !word.starts_with('-') && !word.contains('='));
        if let Some(found) = named.and_then(find) {
            files.append(&mut links_of(&found));
        }
    }
    files
}

/// A path, and where the links at its end lead.
fn links_of(path: &Path) -> Vec<PathBuf> {
    // As many as the kernel follows (path_resolution(7)).
    let step = |path: &PathBuf| Some(path.parent()?.join(fs::read_link(path).ok()?));
    let mut all: Vec<PathBuf> = std::iter::successors(Some(path.to_owned()), step)
        .take(40)
        .collect();
    all.extend(fs::canonicalize(path));
    all
}

/// The directory that a program is installed in, where it brings its libraries or is the shim of a version manager
/// (pyenv, rbenv, asdf, a virtual environment); else the file.
fn installed_in(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|_| !path.is_dir());
    let prefix = folder.and_then(Path::parent);
    let (Some(folder), Some(prefix)) = (folder, prefix) else {
        return path.to_owned();
    };
    let brings = folder.ends_with("shims")
        || folder.ends_with("bin")
            && ["lib", "pyvenv.cfg"]
                .iter()
                .any(|name| prefix.join(name).exists());
    match brings && prefix.parent().is_some() {
        true => prefix.to_owned(),
        false => path.to_owned(),
    }
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
