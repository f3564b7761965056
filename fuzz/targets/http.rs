//! Heads of HTTP requests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use listend::web::http::{HEAD_MAX, Site, parse};

fuzz_target!(|bytes: &[u8]| {
    let site = Site {
        has_page: bytes.len() % 2 == 0,
        called: Some("host.example"),
    };
    let whole = parse(bytes, site);
    assert!(whole.is_some() || bytes.len() < HEAD_MAX);
    // What is complete stays what it is, however much follows.
    if whole.is_some() && bytes.len() < HEAD_MAX / 2 {
        assert!(parse(&[bytes, b"more"].concat(), site).is_some());
    }
});
