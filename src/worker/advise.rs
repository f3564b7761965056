//! Advice about workers before they are started.

use super::{program, sandbox_advice};
use crate::config::{Output, Piece, Template};
use crate::plan::{Plan, WorkerPlan};
use crate::report::{Kind, Problem};
use std::io::ErrorKind;
use std::path::Path;

/// The socket of the journal (systemd-journald.service(8)).
pub const JOURNAL: &str = "/run/systemd/journal/stdout";

/// Programs, folders and a journal that are not there. Advice and no error: a port is better held without its
/// program than not at all, and the program may come later.
pub fn advise(plan: &Plan) -> Vec<Problem> {
    let mut advice = Vec::new();
    let has_journal = Path::new(JOURNAL).exists();
    for (_, worker) in plan.workers() {
        if worker.output == Output::Journal && !has_journal {
            let message = format!(
                "worker `{}` is configured to write to the journal, but none is running: there is \
                 no {JOURNAL}",
                worker.name
            );
            let problem = Problem::new(Kind::NoJournal, message).at(worker.place);
            let hint = "it would be started nevertheless, and write where listend does; without a \
                        journal, `output: tag` tells the instances apart";
            advice.push(problem.of_worker(&worker.name).with_hint(hint));
        }
        advice.extend(missing_folders(worker));
        advice.extend(output_is_a_directory(worker));
        advice.extend(sandbox_advice::advise(worker));
        let hooks = [
            ("before_start", worker.hooks.before_start.as_ref()),
            ("after_ready", worker.hooks.after_ready.as_ref()),
            ("after_stop", worker.hooks.after_stop.as_ref()),
            ("reload_command", worker.reload_command.as_ref()),
        ];
        let hooks = hooks.into_iter().filter_map(|(key, hook)| {
            let reason = missing_program(worker, &hook?.command)?;
            Some((
                format!("worker `{}`: `{key}` cannot execute {reason}", worker.name),
                "each run of it would fail",
            ))
        });
        let own = missing_program(worker, program::served_by(&worker.command)).map(|reason| {
            (
                format!("worker `{}` cannot execute {reason}", worker.name),
                what_to_write(worker).unwrap_or(
                    "it would be retried with growing delays; its listeners would be held",
                ),
            )
        });
        for (message, hint) in own.into_iter().chain(hooks) {
            let problem = Problem::new(Kind::CommandNotFound, message).at(worker.place);
            advice.push(problem.of_worker(&worker.name).with_hint(hint));
        }
    }
    advice
}

/// What to write in place of a first word that is no program: what a shell or systemd would take from it.
fn what_to_write(worker: &WorkerPlan) -> Option<&'static str> {
    let word = program::served_by(&worker.command).first()?.as_literal()?;
    let variable = word.split_once('=').map(|(name, _)| name);
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    match word {
        _ if variable.is_some_and(is_name) => Some(
            "no shell runs this: write a variable as `environment: { NAME: VALUE }`, and the command \
             without it",
        ),
        _ if word.starts_with("~/") => {
            Some("no shell runs this: write the path of the home directory")
        }
        _ if word.starts_with(['-', '@', '+', '!', ':']) && word[1..].starts_with('/') => {
            Some("the sign before the path has a meaning only in units of systemd: delete it")
        }
        _ => None,
    }
}

/// The program of a command that cannot be executed, and why; `None` if it can, or cannot be known.
fn missing_program(worker: &WorkerPlan, command: &[Template]) -> Option<String> {
    let word = command.first()?.as_literal()?;
    let path = worker.environment.iter().find(|(name, _)| name == "PATH");
    let path = path.and_then(|(_, value)| value.as_literal());
    let folder = match &worker.launch.working_directory {
        None => "",
        Some(folder) => match folder.as_literal() {
            Some(folder) => folder,
            // Which folder a relative path starts from is known only at the spawn.
            None if word.contains('/') && !word.starts_with('/') => return None,
            None => "",
        },
    };
    let found = program::find(word, || path).map(|file| Path::new(folder).join(file));
    let reason = match found.and_then(|file| program::look(&file).map(|_| file)) {
        Ok(file) => program::obstacle(&file)?,
        Err(missing) => missing.to_string(),
    };
    Some(format!("`{word}`: {reason}"))
}

/// The folders that have to be there when the worker starts, as far as their paths are known.
fn missing_folders(worker: &WorkerPlan) -> Vec<Problem> {
    let mut folders = Vec::new();
    if let Some(folder) = worker
        .launch
        .working_directory
        .as_ref()
        .and_then(Template::as_literal)
    {
        folders.push(("`working_directory`", Path::new(folder)));
    }
    if let Output::File(file) = &worker.output
        && let Some(Piece::Text(start)) = file.pieces.first()
        // Up to the first placeholder at most.
        && let Some((folder, _)) = start.rsplit_once('/')
    {
        let folder = if folder.is_empty() { "/" } else { folder };
        folders.push(("the directory of `output`", Path::new(folder)));
    }
    let missing = folders.into_iter().filter_map(|(what, folder)| {
        let reason = match std::fs::metadata(folder) {
            Ok(found) if found.is_dir() => return None,
            Ok(_) => "is not a directory",
            Err(error) if error.kind() == ErrorKind::NotFound => "does not exist",
            // What listend may not look at the worker's user may well enter.
            Err(_) => return None,
        };
        let folder = folder.display();
        let message = format!("worker `{}`: {what}, {folder}, {reason}", worker.name);
        let problem = Problem::new(Kind::PathMissing, message).at(worker.place);
        let hint = "each start would fail; create the directory, with the permissions that the \
                    worker needs";
        Some(problem.of_worker(&worker.name).with_hint(hint))
    });
    missing.collect()
}

/// A directory where the output is to be written, which open(2) refuses (EISDIR).
fn output_is_a_directory(worker: &WorkerPlan) -> Option<Problem> {
    let Output::File(file) = &worker.output else {
        return None;
    };
    let path = Path::new(file.as_literal()?);
    if !path.is_dir() {
        return None;
    }
    let message = format!(
        "worker `{}`: `output`, {}, is a directory",
        worker.name,
        path.display()
    );
    let problem = Problem::new(Kind::PathMissing, message).at(worker.place);
    let hint = "each start would fail; name a file in it";
    Some(problem.of_worker(&worker.name).with_hint(hint))
}
