//! O_NONBLOCK of a socket that several processes have.
//!
//! It belongs to the open file description, and so to all of them: one value at a time for whoever has
//! the socket *now*, decided here and nowhere else, before each start and after each end.

/// What a worker needs (`nonblocking:`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The worker needs O_NONBLOCK clear: its accept(2) waits. A program may still set it.
    Blocking,
    /// The worker needs O_NONBLOCK set: its accept(2) returns EAGAIN.
    NonBlocking,
}

impl Needs {
    /// From what `nonblocking:` says.
    pub const fn from_nonblocking(nonblocking: bool) -> Needs {
        if nonblocking {
            Needs::NonBlocking
        } else {
            Needs::Blocking
        }
    }
}

/// What to do about the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// Set O_NONBLOCK.
    Set,
    /// Clear O_NONBLOCK.
    Clear,
    /// It is as somebody who has the socket wants it.
    Leave,
}

/// Decides the flag of a socket: who is about to be started with it, and who has it and runs.
/// `accepted_here` says whether listend takes the clients.
///
/// The flag is not cleared under a process that runs and may have set it: its next accept(2) would wait,
/// and all that it serves with it. Nor is it set under one that needs it clear. listend itself accepts
/// with either, but does not have to wait a moment for a client that another has taken if it is set.
pub fn flag(
    accepted_here: bool,
    starting: Option<Needs>,
    running: impl IntoIterator<Item = Needs>,
) -> Flag {
    let mut is_had = false;
    let mut needs_it = starting == Some(Needs::NonBlocking);
    for needs in running {
        is_had = true;
        needs_it |= needs == Needs::NonBlocking;
    }
    match starting {
        _ if needs_it => Flag::Set,
        _ if is_had => Flag::Leave,
        _ if accepted_here => Flag::Set,
        Some(_) => Flag::Clear,
        None => Flag::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_what_those_need_who_have_the_socket() {
        use Needs::{Blocking, NonBlocking};
        for (accepted_here, starting, running, wanted) in [
            (false, Some(Blocking), &[][..], Flag::Clear),
            (false, Some(NonBlocking), &[], Flag::Set),
            // One of a pool is started beside others, which may have set it.
            (false, Some(Blocking), &[Blocking], Flag::Leave),
            (false, Some(NonBlocking), &[NonBlocking], Flag::Set),
            // Somebody who needs it is not blocked by who comes.
            (false, Some(Blocking), &[NonBlocking], Flag::Set),
            // After an end: of the last, of one of several.
            (false, None, &[], Flag::Leave),
            (false, None, &[Blocking], Flag::Leave),
            (false, None, &[Blocking, NonBlocking], Flag::Set),
            // Where listend accepts, with nobody else and while former workers drain.
            (true, None, &[], Flag::Set),
            (true, Some(Blocking), &[], Flag::Set),
            (true, None, &[Blocking], Flag::Leave),
            (true, None, &[NonBlocking], Flag::Set),
        ] {
            let running = running.iter().copied();
            assert_eq!(flag(accepted_here, starting, running), wanted);
        }
    }
}
