//! Ports for the tests.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// A port of 127.0.0.1 that nobody has. Outside the ephemeral range, from which other tests that
/// ask for port 0 are served (ip(7), ip_local_port_range), and never given twice by this process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = (FIRST + offset) as u16;
        let udp = std::net::UdpSocket::bind(("127.0.0.1", port));
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && udp.is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
