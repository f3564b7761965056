//! Lines of einhorn's libraries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::notify::einhorn::{ACK, command};

fuzz_target!(|line: &[u8]| {
    let found = command(line);
    assert!(found.is_none_or(|found| found.len() <= line.len()));
    // What the library for Python writes is understood, whatever else a worker has it say.
    let more = String::from_utf8_lossy(line);
    let text = serde_json::json!({ "more": more, "command": ACK }).to_string();
    let encoded = text.replace('%', "%25").replace('\n', "%0A");
    assert_eq!(command(encoded.as_bytes()).as_deref(), Some(ACK));
});
