//! What comes of a step: failures in words, and what is enforced in another way or not at all.

use crate::stage::{LaunchFailure, Stage};
use nix::errno::Errno;
use std::io;

/// What is not enforced, if the sandbox permits that, or is enforced in another way than by the first choice.
pub(super) struct Notes {
    pub(super) is_best_effort: bool,
    pub(super) lines: Vec<String>,
}

impl Notes {
    /// Nothing enforces this.
    pub(super) fn missing(&mut self, stage: Stage, key: &str, errno: Errno, why: &str) -> Outcome {
        if self.is_best_effort {
            self.lines.push(format!("`{key}` is not enforced: {why}"));
            return Ok(());
        }
        let reason =
            format!("cannot enforce `{key}`: {why}; `best_effort: true` starts without it");
        Err(failure(stage, errno, reason))
    }

    /// The next choice enforces it.
    pub(super) fn instead(&mut self, what: &str) {
        self.lines.push(what.to_owned());
    }
}

pub(super) type Outcome<T = ()> = Result<T, LaunchFailure>;

pub(super) fn failure(stage: Stage, errno: Errno, reason: String) -> LaunchFailure {
    LaunchFailure::new(stage, errno as i32, reason)
}

/// "what: why (ERRNO)".
pub(super) fn failed<E: Into<io::Error>>(stage: Stage, what: &str) -> impl Fn(E) -> LaunchFailure {
    move |error| {
        let error: io::Error = error.into();
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO));
        failure(
            stage,
            errno,
            format!("{what}: {}: {}", errno.desc(), name_of(errno)),
        )
    }
}

fn name_of(errno: Errno) -> String {
    format!("{errno:?}")
}
