//! A process of one connection, brief.

use crate::report::Report;
use nix::sys::socket::{MsgFlags, send};
use nix::time::{ClockId, clock_gettime};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::RawFd;

/// Tells the client what its process found.
pub fn answer(report: &Report, connection: RawFd) {
    let json = serde_json::to_vec(report).expect("JSON");
    let mut rest = json.as_slice();
    while !rest.is_empty() {
        // A client that has gone away is its own affair.
        match send(connection, rest, MsgFlags::MSG_NOSIGNAL) {
            Ok(length) => rest = &rest[length..],
            Err(_) => return,
        }
    }
}

/// Adds a line to a file with the time of CLOCK_MONOTONIC in nanoseconds.
pub fn stamp(path: &str) {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("clock_gettime");
    let now = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    let file = OpenOptions::new().create(true).append(true).open(path);
    // One write each, so that lines of several processes do not mix.
    let line = format!("{now}\n");
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("write the time");
}
