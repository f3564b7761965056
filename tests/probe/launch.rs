//! Starts a program in an untidy process: signals blocked and ignored, descriptors leaked; or in
//! one that was given sockets.

use crate::children;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

/// `[--block N] [--ignore N] [--leak FD] [--umask OCTAL] [--journal] [--key NAME] [--give FD,FD…] -- COMMAND…`
///
/// `--journal` sets JOURNAL_STREAM to standard error, as systemd.exec(5) has it: "device
/// and inode numbers of the connection file descriptor, formatted in decimal".
///
/// `--key` joins a new session keyring and puts a key of that name into it.
///
/// `--give` hands these open descriptors over as sd_listen_fds(3) has it; what is in LISTEN_FDS
/// and LISTEN_PID already stays.
pub fn run(words: &[String]) -> i32 {
    let mut words = words.iter();
    while let Some(option) = words.next().filter(|word| *word != "--") {
        if option == "--journal" {
            let stat = nix::sys::stat::fstat(std::io::stderr()).expect("fstat");
            let value = format!("{}:{}", stat.st_dev, stat.st_ino);
            // SAFETY: there is one thread.
            unsafe { std::env::set_var("JOURNAL_STREAM", value) };
            continue;
        }
        let text = words.next().expect("a value");
        if option == "--give" {
            give(text);
            continue;
        }
        if option == "--key" {
            key(text);
            continue;
        }
        let number = |radix| i32::from_str_radix(text, radix).expect("a number");
        match option.as_str() {
            "--block" => {
                let signal = Signal::try_from(number(10)).expect("a signal");
                let set = SigSet::from(signal);
                sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).expect("sigprocmask");
            }
            "--ignore" => children::ignore(Signal::try_from(number(10)).expect("a signal")),
            "--leak" => {
                let file = File::open("/dev/null").expect("open /dev/null");
                // SAFETY: the number is chosen by the test to be nobody's.
                let result = unsafe { libc::dup2(file.as_raw_fd(), number(10)) };
                assert!(result >= 0, "dup2");
            }
            "--umask" => {
                let mode = nix::sys::stat::Mode::from_bits_truncate(number(8) as u32);
                nix::sys::stat::umask(mode);
            }
            other => panic!("{other}: no such option"),
        }
    }
    let command: Vec<CString> = words
        .map(|word| CString::new(word.as_str()).expect("no NUL"))
        .collect();
    // Not std's exec, which would put the signal mask and SIGPIPE in order again.
    let error = nix::unistd::execvp(&command[0], &command).expect_err("exec returned");
    panic!("exec: {error}");
}

fn key(name: &str) {
    let name = CString::new(name).expect("no NUL");
    let nothing = std::ptr::null::<u8>();
    // SAFETY: the strings end with a NUL, and the key's content has the length that is said.
    let added = unsafe {
        let join = libc::KEYCTL_JOIN_SESSION_KEYRING;
        libc::syscall(libc::SYS_keyctl, join, nothing);
        let (kind, content, ring) = (c"user", c"secret", libc::KEY_SPEC_SESSION_KEYRING);
        let (kind, content) = (kind.as_ptr(), content.as_ptr());
        libc::syscall(libc::SYS_add_key, kind, name.as_ptr(), content, 6, ring)
    };
    // A kernel without keyrings has none to leak.
    let errno = nix::errno::Errno::last();
    assert!(
        added > 0 || errno == nix::errno::Errno::ENOSYS,
        "add_key: {errno}"
    );
}

fn give(list: &str) {
    let fds = list.split(',').map(|fd| fd.parse().expect("a number"));
    // Out of the way first: the places of some may be taken by others.
    let high = |fd: i32| {
        // SAFETY: moves a descriptor that the test has opened for this process; one thread.
        let moved = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 64) };
        assert!(moved >= 0, "F_DUPFD_CLOEXEC of {fd}");
        // SAFETY: as above, and nobody here uses it any more.
        unsafe { libc::close(fd) };
        moved
    };
    let moved: Vec<i32> = fds.map(high).collect();
    for (place, fd) in (3..).zip(&moved) {
        // SAFETY: nothing else in this process has a descriptor from 3 to 63.
        assert!(unsafe { libc::dup2(*fd, place) } >= 0, "dup2");
    }
    for (name, value) in [
        ("LISTEN_FDS", moved.len().to_string()),
        ("LISTEN_PID", std::process::id().to_string()),
    ] {
        if std::env::var_os(name).is_none() {
            // SAFETY: there is one thread.
            unsafe { std::env::set_var(name, value) };
        }
    }
}
