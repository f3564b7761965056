//! The variables of sd_listen_fds(3), with descriptors 3 to 6 behind them: two sockets, a pipe, and a file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::config::{SourceFile, read};
use listend::host::Facts;
use listend::listener::{UnknownPorts, match_up, take_inherited};
use listend::plan::{Plan, resolve};
use std::cell::LazyCell;
use std::env;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

const YAML: &str = "listeners: {a: '127.0.0.1:0', b: 'udp://127.0.0.1:0'}\nworkers: {w: {command: [/bin/cat], listeners: [a, b]}}\n";

const VARIABLES: [&str; 5] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_FDS_FIRST_FD",
    "LISTEN_PIDFDID",
];

thread_local! {
    static PLAN: LazyCell<Plan> = LazyCell::new(|| {
        let file = SourceFile {
            name: "fuzz".to_owned(),
            bytes: YAML.as_bytes().to_vec(),
            folder: PathBuf::from("/"),
        };
        let mut loaded = read(vec![file]);
        assert!(loaded.report.is_ok(), "{:?}", loaded.report);
        resolve(loaded.config, &Facts::default(), &mut loaded.sources).0
    });
    static GIVEN: LazyCell<[OwnedFd; 4]> = LazyCell::new(|| {
        [
            TcpListener::bind("127.0.0.1:0").expect("a listener").into(),
            UdpSocket::bind("127.0.0.1:0").expect("a socket").into(),
            std::io::pipe().expect("a pipe").0.into(),
            File::open("/dev/null").expect("a file").into(),
        ]
        .map(|fd: OwnedFd| above(&fd))
    });
}

/// A duplicate that is none of the numbers that are given away.
fn above(fd: &OwnedFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: fcntl(2) has no memory to touch, and the number is new.
    unsafe {
        let high = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 64);
        assert!(high >= 64);
        OwnedFd::from_raw_fd(high)
    }
}

/// Whether these descriptors are given away, or so many that it is an error.
fn is_given(values: &[Option<String>; 5]) -> bool {
    let number = |value: &Option<String>| value.as_ref()?.parse::<u64>().ok();
    let count = number(&values[0]);
    let first = number(&values[3]);
    count.is_none_or(|count| count <= 4 || count > 1 << 32) && first.is_none_or(|first| first <= 3)
}

fuzz_target!(|values: [Option<&str>; 5]| {
    // No variable has a NUL.
    let values = values.map(|value| value.map(|text| text.replace('\0', "")));
    if !is_given(&values) {
        return;
    }
    GIVEN.with(|given| {
        for (fd, number) in given.iter().zip(3..) {
            // SAFETY: the numbers are nobody's, or what the last run has left.
            assert_eq!(unsafe { libc::dup2(fd.as_raw_fd(), number) }, number);
        }
    });
    for (name, value) in VARIABLES.into_iter().zip(values) {
        let value = value.map(|value| match name {
            // What has no more descriptors than that behind it is an error at once.
            "LISTEN_PID" if value.len() % 2 == 0 => std::process::id().to_string(),
            _ => value,
        });
        // SAFETY: there is no other thread.
        match value {
            Some(value) => unsafe { env::set_var(name, value) },
            None => unsafe { env::remove_var(name) },
        }
    }
    match take_inherited() {
        Ok(inherited) => {
            let count = inherited.len();
            let unknown_ports = match count % 2 {
                0 => UnknownPorts::NeedAName,
                _ => UnknownPorts::ByElimination,
            };
            let (adopted, problems) = PLAN.with(|plan| match_up(plan, inherited, unknown_ports));
            assert_eq!(adopted.len() + problems.len(), count);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert!(VARIABLES.iter().all(|name| env::var_os(name).is_none()));
});
