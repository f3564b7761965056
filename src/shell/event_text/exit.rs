//! How processes ended.

use crate::config::signal_name;
use crate::core::ExitStatus;

/// `exited with exit status 3`, `killed by SIGSEGV (core dumped)`: behind a name and a colon.
pub(in crate::shell) fn status_words(status: ExitStatus) -> String {
    match status {
        ExitStatus::Unknown => "exited (its exit status is unknown)".to_owned(),
        ExitStatus::Code(code) => format!("exited with exit status {code}"),
        ExitStatus::Signal {
            number,
            core_dumped,
        } => {
            let core = if core_dumped { " (core dumped)" } else { "" };
            format!("killed by {}{core}", signal_name(number))
        }
    }
}

/// The same behind a subject: `was killed by SIGSEGV`.
pub(in crate::shell) fn predicate(status: ExitStatus) -> String {
    let words = status_words(status);
    match status {
        ExitStatus::Code(_) | ExitStatus::Unknown => words,
        ExitStatus::Signal { .. } => format!("was {words}"),
    }
}

/// The exit status, if there is one that is known.
pub(in crate::shell) fn exit_code(status: ExitStatus) -> Option<i32> {
    match status {
        ExitStatus::Unknown | ExitStatus::Signal { .. } => None,
        ExitStatus::Code(code) => Some(code),
    }
}

/// The signal that killed a process, by name.
pub(in crate::shell) fn exit_signal(status: ExitStatus) -> Option<String> {
    match status {
        ExitStatus::Code(_) | ExitStatus::Unknown => None,
        ExitStatus::Signal { number, .. } => Some(signal_name(number)),
    }
}
