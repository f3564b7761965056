//! Datagrams of sd_notify(3).
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::notify::{LONGEST_NAME, LONGEST_STATUS, parse};

fuzz_target!(|bytes: &[u8]| {
    let message = parse(bytes);
    let text = format!("{message:?}");
    assert!(text.len() <= 4096 + 4 * (LONGEST_NAME + LONGEST_STATUS + bytes.len()) * 2);
});
