//! The command line: parse it, run the verb, answer with an exit code.

mod act;
mod args;
mod check;
mod client;
mod completions;
mod daemon;
mod exec;
mod exit;
mod explain;
mod export;
mod forward;
mod give;
mod guard;
mod import;
mod kept;
mod load;
mod names;
mod open_files;
mod output;
mod pretty;
mod resume;
mod run;
mod sandbox_exec;
mod schema;
mod socket;
mod status;
mod stop_post;
mod stream;
mod take;
mod take_over;
mod top;
mod upgrade;
mod usage_tip;
mod watch_files;
mod web;

use crate::shell::logging::{self, Sink};
use crate::sys;
use args::{Arguments, LogTo, Verb};
use clap::Parser;
use clap::error::ErrorKind;
use exit::Exit;
use std::os::fd::AsFd;
use std::process::ExitCode;

/// Runs `listend` with the process's arguments.
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if sandbox_exec::is_meant(&words) {
        return sandbox_exec::sandbox_exec(&words).into();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(mut error) => {
            usage_tip::add(&mut error, &words);
            // --help and --version arrive here too, and go to standard output.
            let _closed = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done.into(),
                _ => Exit::Usage.into(),
            };
        }
    };
    if let Some(Err(why)) = arguments.depend_on.map(sys::depend_on) {
        output::complain(&format!("cannot depend on the daemon: {why}"));
        return Exit::Internal.into();
    }
    let sink = match sink(&arguments) {
        Ok(sink) => sink,
        Err(why) => {
            output::complain(&why);
            return Exit::Unavailable.into();
        }
    };
    logging::init(arguments.log_level, sink);
    let exit = act_on(arguments.verb, sink);
    logging::settle(sink);
    exit.into()
}

/// Chooses the destination of the log.
fn sink(arguments: &Arguments) -> Result<Sink, String> {
    let wanted = match arguments.log_to {
        LogTo::Auto => logging::LogTarget::Auto,
        LogTo::Journal => logging::LogTarget::Journal,
        LogTo::Syslog => logging::LogTarget::Syslog,
        LogTo::Stderr => logging::LogTarget::Stderr,
    };
    let is_daemon = matches!(arguments.verb, Verb::Run(_) | Verb::Exec(_));
    Sink::choose(wanted, is_daemon)
}

fn act_on(verb: Verb, sink: Sink) -> Exit {
    match verb {
        Verb::Run(arguments) if arguments.guard => guard::guard(),
        Verb::Run(arguments) => run::run(&arguments, sink),
        Verb::Check(arguments) => check::check(&arguments, sink),
        Verb::Exec(arguments) => exec::exec(&arguments, sink),
        Verb::Explain(arguments) => explain::explain(&arguments, sink),
        Verb::Status(arguments) => status::status(&arguments),
        Verb::Top(arguments) => top::top(&arguments),
        Verb::ForWorkers(asked) => act::act(&asked),
        Verb::Reload(arguments) => act::reload(&arguments),
        Verb::Upgrade(arguments) => upgrade::upgrade(&arguments),
        Verb::Give(arguments) => give::give(&arguments),
        Verb::Adopt(arguments) => give::adopt(&arguments),
        Verb::Take(arguments) => take::take(&arguments),
        Verb::Logs(arguments) => stream::logs(&arguments),
        Verb::Events(arguments) => stream::events(&arguments),
        Verb::Metrics(arguments) => stream::metrics(&arguments),
        Verb::Completions(arguments) => completions::completions(&arguments),
        Verb::Import(arguments) => import::import(&arguments),
        Verb::Export(arguments) => export::export(&arguments, sink),
        Verb::Schema => schema::schema(),
        Verb::Names(arguments) => names::names(&arguments),
        Verb::StopPost(arguments) => stop_post::stop_post(&arguments),
        Verb::WatchFiles(arguments) => watch_files::watch_files(arguments),
        Verb::Write => write(),
        Verb::Forward(arguments) => forward::forward(arguments),
        Verb::Web(arguments) => web::web(&arguments),
        Verb::HelloWorker => match crate::sample::run() {
            Ok(()) => Exit::Done,
            Err(error) => {
                log::error!("hello-worker: {error}");
                Exit::Refused
            }
        },
    }
}

/// Standard input is the daemon's socket.
fn write() -> Exit {
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    match socket.and_then(|socket| crate::writer::serve(&socket)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::error!("cannot read what to write: {error}");
            Exit::Unavailable
        }
    }
}
