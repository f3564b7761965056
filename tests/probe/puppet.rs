//! A worker on strings: it connects to the test, sends its report, and does as it is told.
//!
//! The test so learns of every start (a connection) and every end (end of file) as an event, and
//! decides when and how the worker ends. One command a line:
//!
//! | command | does | answers |
//! |---|---|---|
//! | `exit N` | exits | |
//! | `raise N` | does of signal N what a program does that knows nothing of it | |
//! | `deaf` | ignores SIGTERM | `deaf` |
//! | `drain` | says `term` at SIGTERM and lives on | `drain` |
//! | `fork` | leaves a child in its process group that ignores SIGTERM | the child's pid |
//! | `neglect` | leaves a child in its process group to a parent outside of it that reaps nobody | the parent's pid |
//! | `orphan` | leaves a process in a session of its own, soon to exit, to PID 1 | its pid |
//! | `disturb` | leaves the listeners in disorder, see [`crate::serve::disturb`] | `disturb` |
//! | `shutdown` | shuts every listener down | `shutdown` |
//! | `half FD` | shuts one listener down for reading only | `half` |
//! | `connect FD ADDRESS` | connects a datagram socket to one client | `connect` |
//! | `complain FD` | leaves an error in a UDP socket's error queue | `complain` |
//! | `flip` | turns O_NONBLOCK of every listener round | `flip` |
//! | `option FD LEVEL NAME VALUE` | sets a socket option, all numbers | `option` |
//! | `unlink PATH` | removes a file, as a worker does that takes the path for its own | `unlink` |
//! | `read FD` | waits for one client or message, see [`crate::talk::read`] | what it read |
//! | `write FD TEXT` | writes | how many bytes |
//! | `links FD` | asks a NETLINK_ROUTE socket for the interfaces | the type of the first answer |
//! | `notify TEXT` | sends it to NOTIFY_SOCKET, each `|` as a newline | `notify` |
//! | `crate STATUS` | says it by the crate `sd-notify`, and leaves a file | `crate` |
//! | `barrier` | waits until all it has sent is taken | `barrier` |
//! | `store NAME` | leaves a file in memory of this name (FDSTORE=1) | `store` |
//! | `store-socket TEXT` | leaves one end of a socket with this message | `store-socket` |
//! | `store-bomb ADDRESS` | leaves a connection whose last close(2) waits for an hour | `store-bomb` |
//! | `keep COUNT NAME` | leaves so many files in memory with one message | `keep` |
//! | `bind SCHEME:ADDRESS NAME` | binds to it and leaves the socket (tcp, unix, udp) | the address and its number |
//! | `again FD NAME` | leaves what it was given, by another name | `again` |
//! | `signals` | says `signal N` at each that listend or the guard knows, and lives on | `signals` |
//! | `child TEXT` | lets a child send it that stays | the child's pid |
//! | `heir WHERE` | starts another puppet that outlives it, `detached` in a session of its own | its pid |
//! | `close FD` | closes a descriptor | `close` |
//! | `serve` | serves for ever | |

use crate::report::Report;
use crate::{children, notify, serve, talk};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};

static STRINGS: AtomicI32 = AtomicI32::new(-1);

/// Connects to the socket at `path` and obeys until the other side closes.
pub fn run(report: &Report, path: &str) -> i32 {
    let mut stream = UnixStream::connect(path).expect("connect to the test");
    STRINGS.store(stream.as_raw_fd(), Ordering::Relaxed);
    serde_json::to_writer(&stream, report).expect("send the report");
    stream.write_all(b"\n").expect("send the report");
    let commands = BufReader::new(stream.try_clone().expect("dup"));
    for command in commands.lines().map_while(Result::ok) {
        let (verb, rest) = command.split_once(' ').unwrap_or((&command, ""));
        let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let number: i32 = number.parse().unwrap_or_default();
        let answer = match verb {
            "exit" => return number,
            "raise" => {
                children::raise(Signal::try_from(number).expect("a signal"));
                continue;
            }
            "deaf" => {
                children::ignore(Signal::SIGTERM);
                "deaf".to_owned()
            }
            "drain" => {
                speak_at_sigterm();
                "drain".to_owned()
            }
            "fork" => children::stubborn(&stream).to_string(),
            "neglect" => children::neglected(&stream).to_string(),
            "orphan" => children::orphan(&stream).to_string(),
            "disturb" => {
                serve::disturb(&serve::inherited()).expect("disturb the listeners");
                "disturb".to_owned()
            }
            "shutdown" => {
                serve::shut_down(&serve::inherited()).expect("shut the listeners down");
                "shutdown".to_owned()
            }
            "half" => talk::answer(talk::shut_for_reading(number)),
            "connect" => talk::answer(talk::connect(number, text)),
            "complain" => talk::answer(talk::complain(number)),
            "flip" => {
                serve::flip(&serve::inherited()).expect("turn O_NONBLOCK round");
                "flip".to_owned()
            }
            "option" => talk::answer(talk::set_option(number, text)),
            "unlink" => {
                std::fs::remove_file(rest).expect("remove the file");
                "unlink".to_owned()
            }
            "read" => talk::answer(talk::read(number)),
            "write" => talk::answer(talk::write(number, text)),
            "line" => talk::answer(talk::write(number, &format!("{text}\n"))),
            "links" => talk::answer(talk::links(number)),
            "notify" => talk::answer(notify::send(rest, &[])),
            "crate" => talk::answer(notify::by_crate(rest)),
            "ack" => talk::answer(notify::acknowledge(rest)),
            "barrier" => talk::answer(notify::barrier()),
            "store" => talk::answer(notify::store(rest)),
            "keep" => talk::answer(notify::keep(number, text)),
            "bind" => talk::answer(notify::bind(rest)),
            "again" => talk::answer(notify::again(number, text)),
            "signals" => {
                speak_at_every_signal();
                "signals".to_owned()
            }
            "store-socket" => talk::answer(notify::store_socket(rest)),
            "store-bomb" => talk::answer(notify::store_bomb(rest)),
            "child" => notify::child(rest, &stream).to_string(),
            "heir" => notify::heir(path, rest == "detached").to_string(),
            "hold" => talk::answer(talk::hold(number)),
            "close" => talk::answer(notify::close(number)),
            "serve" => {
                serve::serve(report, &serve::inherited(), None);
                continue;
            }
            other => panic!("{other}: no such command"),
        };
        writeln!(stream, "{answer}").expect("answer");
    }
    0
}

extern "C" fn say_term(_: i32) {
    let word = b"term\n";
    // SAFETY: write(2) is async-signal-safe, and the pointer and length are those of `word`.
    unsafe {
        nix::libc::write(
            STRINGS.load(Ordering::Relaxed),
            word.as_ptr().cast(),
            word.len(),
        )
    };
}

fn speak_at_sigterm() {
    let action = SigAction::new(
        SigHandler::Handler(say_term),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler only calls write(2).
    unsafe { sigaction(Signal::SIGTERM, &action) }.expect("sigaction");
}

extern "C" fn say_signal(number: i32) {
    let mut text = *b"signal 00\n";
    text[7] += (number / 10) as u8;
    text[8] += (number % 10) as u8;
    // SAFETY: write(2) is async-signal-safe, and the pointer and length are those of `text`.
    unsafe {
        nix::libc::write(
            STRINGS.load(Ordering::Relaxed),
            text.as_ptr().cast(),
            text.len(),
        )
    };
}

fn speak_at_every_signal() {
    let mut all = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGWINCH,
    ] {
        all.add(signal);
        let handler = SigHandler::Handler(say_signal);
        let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::all());
        // SAFETY: the handler only calls write(2).
        unsafe { sigaction(signal, &action) }.expect("sigaction");
    }
    all.thread_unblock().expect("sigprocmask");
}
