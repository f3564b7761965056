//! The command line: parse it, run the verb, answer with an exit code.

mod args;
mod check;
mod exec;
mod exit;
mod explain;
mod explain_text;
mod load;
mod output;
mod run;
mod socket;

use crate::shell::logging::{self, Sink};
use args::{Arguments, Verb};
use clap::Parser;
use clap::error::ErrorKind;
use exit::Exit;
use std::process::ExitCode;

/// Runs `listend` with the process's arguments.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // --help and --version arrive here too, and go to standard output.
            let _closed = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    let sink = Sink::detect();
    logging::init(arguments.log_level, sink);
    let exit = match arguments.verb {
        Verb::Run(arguments) => run::run(&arguments, sink),
        Verb::Check(arguments) => check::check(&arguments, sink),
        Verb::Exec(arguments) => exec::exec(&arguments, sink),
        Verb::Explain(arguments) => explain::explain(&arguments, sink),
        Verb::HelloWorker => match crate::sample::run() {
            Ok(()) => Exit::Done,
            Err(error) => {
                log::error!("hello-worker: {error}");
                Exit::Refused
            }
        },
    };
    exit.into()
}
