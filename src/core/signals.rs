//! The signal numbers the core decides by.
//!
//! The numbers are Linux's (signal(7), the column of x86 and ARM): the core may not use libc.
//! Signals 1 to 15 but for SIGBUS, SIGUSR1 and SIGUSR2 have the same number everywhere.

/// The terminal went away, or somebody asks for a reload.
pub(super) const SIGHUP: i32 = 1;
/// Ctrl-C.
pub(super) const SIGINT: i32 = 2;
/// Ctrl-\.
pub(super) const SIGQUIT: i32 = 3;
/// abort(3): ends with a core dump, unless it is caught.
pub(super) const SIGABRT: i32 = 6;
/// Cannot be caught or ignored; an operator or the OOM killer sends it.
pub(super) const SIGKILL: i32 = 9;
/// For the program's own use.
pub(super) const SIGUSR1: i32 = 10;
/// For the program's own use.
pub(super) const SIGUSR2: i32 = 12;
/// Wrote to a pipe or a socket that nobody reads.
pub(super) const SIGPIPE: i32 = 13;
/// A timer (alarm(2)).
pub(super) const SIGALRM: i32 = 14;
/// The default stop signal.
pub(super) const SIGTERM: i32 = 15;
/// Continues a stopped process.
pub(super) const SIGCONT: i32 = 18;
/// A timer of CPU time (setitimer(2)).
pub(super) const SIGVTALRM: i32 = 26;
/// A profiling timer (setitimer(2)).
pub(super) const SIGPROF: i32 = 27;
/// A descriptor became ready (fcntl(2) F_SETOWN).
pub(super) const SIGIO: i32 = 29;
/// The power fails.
pub(super) const SIGPWR: i32 = 30;
/// The first that is free for any use; everything above is as well.
pub(super) const SIGRTMIN: i32 = 32;

/// Whether this signal is one that somebody sends, rather than one that the kernel raises because
/// of what the program did (SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGXCPU,
/// SIGXFSZ …).
///
/// A death by it is not a crash: an operator, a script or the OOM killer ended the process, which
/// says nothing about whether the program can run. Counting it would let `kill` in a loop take a
/// healthy worker out of service. The smallest delay still bounds what each restart costs.
pub(super) const fn is_sent(signal: i32) -> bool {
    matches!(
        signal,
        SIGHUP
            | SIGINT
            | SIGQUIT
            | SIGKILL
            | SIGUSR1
            | SIGUSR2
            | SIGPIPE
            | SIGALRM
            | SIGTERM
            | SIGVTALRM
            | SIGPROF
            | SIGIO
            | SIGPWR
    ) || signal >= SIGRTMIN
}

/// Whether a death by this signal is a clean end.
///
/// man systemd.service, `SuccessExitStatus=`: "By default, … exit code 0 and the signals SIGHUP,
/// SIGINT, SIGTERM, and SIGPIPE" are a clean termination.
pub(super) const fn is_clean(signal: i32) -> bool {
    matches!(signal, SIGHUP | SIGINT | SIGPIPE | SIGTERM)
}
