//! The worker that the tests start: it reports what it inherited.
//!
//! Without std's own `main`, which would open missing standard descriptors and ignore SIGPIPE
//! before anything could be looked at.

#![no_main]
#![allow(
    unsafe_code,
    reason = "looks at its own process below what crates offer"
)]

mod app;
mod attack;
mod backend;
mod children;
mod connection;
mod launch;
mod limits;
mod notify;
mod options;
mod puppet;
mod report;
mod send;
mod serve;
mod snapshot;
mod talk;
mod wait;

use nix::sys::signal::Signal;
use report::Report;
use std::ffi::{CStr, c_char, c_int};
use std::fs;

/// sysexits.h: "an internal software error has been detected".
const EX_SOFTWARE: c_int = 70;

/// Called by the C library.
///
/// # Safety
///
/// `argv` holds `argc` strings, as the C library guarantees.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let words = (0..argc as usize).map(|index| {
        // SAFETY: the C library guarantees argc strings, each ended by NUL.
        let word = unsafe { CStr::from_ptr(*argv.add(index)) };
        word.to_string_lossy().into_owned()
    });
    let words: Vec<String> = words.collect();
    // A panic has printed its message; it must not unwind into C.
    std::panic::catch_unwind(|| probe(words)).unwrap_or(EX_SOFTWARE)
}

fn probe(words: Vec<String>) -> c_int {
    if words.get(1).is_some_and(|verb| verb == "launch") {
        return launch::run(&words[2..]);
    }
    match words.get(1).map(String::as_str) {
        Some("attack") => return attack::run(&words[2..]),
        Some("limits") => return limits::run(&words[2..]),
        Some("victim") => return attack::victim(),
        Some("without-namespaces") => return attack::without_namespaces(&words[2..]),
        _ => {}
    }
    if words.get(1).is_some_and(|verb| verb == "send") {
        return send::run(&words[2..]);
    }
    if words.get(1).is_some_and(|verb| verb == "hear") {
        return send::hear(&words[2..]);
    }
    if words.get(1).is_some_and(|verb| verb == "wait") {
        return wait::run(&words[2..]);
    }
    if words.get(1).is_some_and(|verb| verb == "serve-app") {
        return app::run(&words[2..]);
    }
    if words.get(1).is_some_and(|verb| verb == "backend") {
        children::die_with_parent();
        children::ignore(Signal::SIGPIPE);
        return backend::run(&words[2..]);
    }
    // These are timed, so they look at nothing.
    match (words.get(1).map(String::as_str), words.get(2)) {
        (Some("idle"), Some(patience)) => {
            children::die_with_parent();
            children::ignore(Signal::SIGPIPE);
            let patience = patience.parse().expect("microseconds");
            serve::serve_until_idle(&serve::inherited(), patience);
            return 0;
        }
        (Some("stamp"), Some(path)) => {
            connection::stamp(path);
            return 0;
        }
        _ => {}
    }
    let report = snapshot::take(words);
    let outlives = ["heir", "endure"];
    let verb = report.argv.get(1);
    if !verb.is_some_and(|verb| outlives.contains(&verb.as_str())) {
        children::die_with_parent();
    }
    children::ignore(Signal::SIGPIPE);
    run(&report)
}

fn run(report: &Report) -> c_int {
    let word = |index: usize| report.argv.get(index).map(String::as_str);
    match (word(1), word(2)) {
        (Some("serve" | "endure"), None) => serve::serve(report, &serve::inherited(), None),
        (Some("serve"), Some(fds)) => {
            let fds = fds.split(',').map(|fd| fd.parse().expect("a number"));
            serve::serve(report, &fds.collect::<Vec<_>>(), None);
        }
        (Some("deaf"), _) => {
            children::ignore(Signal::SIGTERM);
            serve::serve(report, &serve::inherited(), None);
        }
        (Some("flip"), _) => {
            serve::serve(report, &serve::inherited(), Some(1));
            serve::disturb(&serve::inherited()).expect("disturb the listeners");
        }
        (Some("report"), Some(path)) => {
            write(report, path);
            loop {
                nix::unistd::pause();
            }
        }
        (Some("touch"), Some(path)) => drop(fs::File::create(path).expect("create the file")),
        (Some("puppet"), Some(path)) => return puppet::run(report, path),
        (Some("heir"), Some(path)) => {
            children::outlive_its_parent(word(3));
            return puppet::run(report, path);
        }
        (Some("litter"), Some(threads)) => children::litter(threads.parse().expect("a number")),
        (Some("exit"), Some(code)) => return code.parse().expect("a number"),
        (Some("answer"), Some(fd)) => {
            connection::answer(report, fd.parse().expect("a number"));
        }
        (Some("abort"), _) => std::process::abort(),
        (Some("say"), Some(_)) => {
            use std::io::Write;
            let text = report.argv[2..].join(" ");
            // In one write each: listend logs on the same standard error.
            let _ = writeln!(std::io::stdout(), "{text} on stdout");
            let _ = std::io::stderr().write_all(format!("{text} on stderr\n").as_bytes());
            loop {
                nix::unistd::pause();
            }
        }
        other => panic!("{other:?}: no such command"),
    }
    0
}

/// The whole report or none of it, for whoever waits for the file.
fn write(report: &Report, path: &str) {
    let new = format!("{path}.new");
    fs::write(&new, serde_json::to_vec_pretty(report).expect("JSON")).expect("write");
    fs::rename(new, path).expect("rename");
}
