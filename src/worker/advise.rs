//! What can be said about workers before they are started.

use super::program;
use crate::config::Output;
use crate::plan::Plan;
use crate::report::{Kind, Problem};

/// Where the journal listens (systemd-journald.service(8)).
pub const JOURNAL: &str = "/run/systemd/journal/stdout";

/// Programs and a journal that are not there. Advice and no error: a port is better held without its
/// program than not at all, and the program may come later.
pub fn advise(plan: &Plan) -> Vec<Problem> {
    let mut advice = Vec::new();
    let has_journal = std::path::Path::new(JOURNAL).exists();
    for (_, worker) in plan.live_workers() {
        if worker.output == Output::Journal && !has_journal {
            let message = format!(
                "worker `{}` is to write to the journal, and none runs: there is no {JOURNAL}",
                worker.name
            );
            let problem = Problem::new(Kind::NoJournal, message).at(worker.place);
            let hint = "it would be started all the same, and write where listend does; without a \
                        journal, `output: tag` tells the instances apart";
            advice.push(problem.of_worker(&worker.name).with_hint(hint.to_owned()));
        }
        let Some(word) = worker.command.first().and_then(|word| word.as_literal()) else {
            continue;
        };
        let path = worker.environment.iter().find(|(name, _)| name == "PATH");
        let path = path.and_then(|(_, value)| value.as_literal());
        let folder = match &worker.working_directory {
            None => "",
            Some(folder) => match folder.as_literal() {
                Some(folder) => folder,
                // Which folder a relative path starts from is known only at the spawn.
                None if word.contains('/') && !word.starts_with('/') => continue,
                None => "",
            },
        };
        let found = program::find(word, path)
            .and_then(|file| program::look(&std::path::Path::new(folder).join(file)));
        if let Err(reason) = found {
            advice.push(
                Problem::new(
                    Kind::CommandNotFound,
                    format!("worker `{}` cannot execute `{word}`: {reason}", worker.name),
                )
                .at(worker.place)
                .of_worker(&worker.name)
                .with_hint(
                    "it would be tried again with growing delays; its listeners would be held"
                        .to_owned(),
                ),
            );
        }
    }
    advice
}
