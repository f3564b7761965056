//! `guard COMMAND…`: what `listend run --guard` is for the daemon, for any program.

use listend::{guard, listener, sys};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

fn main() -> ExitCode {
    let given = listener::take_inherited().expect("LISTEN_FDS");
    env_logger::builder()
        .filter_level(log::LevelFilter::Info)
        .init();
    sys::close_on_exec_from(3).expect("close_range");
    // As listend does it.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    let words = std::env::args_os().skip(1).map(OsStringExt::into_vec);
    let words: Vec<CString> = words
        .map(|word| CString::new(word).expect("no NUL"))
        .collect();
    let command = guard::Command {
        programs: vec![words.first().expect("COMMAND").clone()],
        words,
        open_files: (soft, hard),
    };
    let given = given.into_iter().map(|one| (one.fd, one.name)).collect();
    guard::run(command, given).expect("run").into()
}
