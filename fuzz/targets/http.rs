//! Heads of HTTP requests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::web::http::{HEAD_MAX, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    assert!(whole.is_some() || bytes.len() < HEAD_MAX);
    // What is complete stays what it is, however much follows.
    if whole.is_some() && bytes.len() < HEAD_MAX / 2 {
        assert!(parse(&[bytes, b"more"].concat()).is_some());
    }
});
