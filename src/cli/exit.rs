//! Exit codes, after sysexits.h; documented in listend(8) and used in the unit file.

use std::process::ExitCode;

/// The exit code of `listend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// The request was refused or failed.
    Refused,
    /// The command line is invalid.
    Usage,
    /// A listener could not be bound, or no daemon answers.
    Unavailable,
    /// An internal error.
    Internal,
    /// The daemon does not permit the request.
    NotPermitted,
    /// The configuration is invalid.
    Configuration,
    /// The exit status of the event loop, or of the one worker of `exec --restart never`.
    Code(u8),
}

impl Exit {
    /// As the shell sees it.
    pub fn number(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Refused => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::NotPermitted => 77,
            Exit::Configuration => 78,
            Exit::Code(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.number())
    }
}
