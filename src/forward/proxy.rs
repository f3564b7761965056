//! The header of the PROXY protocol, which tells the server who the client is
//! (haproxy.org/download/3.0/doc/proxy-protocol.txt).

use socket2::SockAddr;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and a connection that is forwarded for somebody (PROXY).
const FORWARDED: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_V4: u8 = 0x11;
const TCP_V6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
/// The room for each name of a unix socket.
const UNIX_NAME: usize = 108;

/// The header for a connection from `client` to `listener`; at most 232 bytes.
pub fn header(version: Version, client: &SockAddr, listener: &SockAddr) -> Vec<u8> {
    let mut out = Vec::with_capacity(SIGNATURE.len() + 4 + 2 * UNIX_NAME);
    let pair = inet(client).zip(inet(listener));
    match version {
        Version::V1 => {
            // Writing to memory cannot fail.
            let _written = match pair {
                Some((from, to)) if from.is_ipv4() && to.is_ipv4() => {
                    v1(&mut out, "TCP4", from, to)
                }
                Some((from, to)) if from.is_ipv6() && to.is_ipv6() => {
                    v1(&mut out, "TCP6", from, to)
                }
                _ => out.write_all(b"PROXY UNKNOWN\r\n"),
            };
        }
        Version::V2 => {
            out.extend_from_slice(SIGNATURE);
            out.push(FORWARDED);
            match pair {
                Some((SocketAddr::V4(from), SocketAddr::V4(to))) => {
                    start(&mut out, TCP_V4, 12);
                    out.extend_from_slice(&from.ip().octets());
                    out.extend_from_slice(&to.ip().octets());
                    ports(&mut out, from.port(), to.port());
                }
                Some((SocketAddr::V6(from), SocketAddr::V6(to))) => {
                    start(&mut out, TCP_V6, 36);
                    out.extend_from_slice(&from.ip().octets());
                    out.extend_from_slice(&to.ip().octets());
                    ports(&mut out, from.port(), to.port());
                }
                _ if listener.is_unix() => {
                    start(&mut out, UNIX_STREAM, 2 * UNIX_NAME);
                    unix_name(&mut out, client);
                    unix_name(&mut out, listener);
                }
                _ => start(&mut out, UNSPECIFIED, 0),
            }
        }
    }
    out
}

fn v1(out: &mut Vec<u8>, family: &str, from: SocketAddr, to: SocketAddr) -> std::io::Result<()> {
    write!(
        out,
        "PROXY {family} {} {} {} {}\r\n",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    )
}

fn start(out: &mut Vec<u8>, family: u8, length: usize) {
    out.push(family);
    // 216 at most.
    out.extend_from_slice(&(length as u16).to_be_bytes());
}

fn ports(out: &mut Vec<u8>, from: u16, to: u16) {
    out.extend_from_slice(&from.to_be_bytes());
    out.extend_from_slice(&to.to_be_bytes());
}

/// An address of the internet; what came over IPv4 to an IPv6 socket is an IPv4 one.
fn inet(address: &SockAddr) -> Option<SocketAddr> {
    let address = address.as_socket()?;
    let mapped = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    Some(match mapped {
        Some(ip) => SocketAddr::new(ip.into(), address.port()),
        None => address,
    })
}

/// As in `sun_path`, padded with NUL: most clients have no name, which is all NUL.
fn unix_name(out: &mut Vec<u8>, address: &SockAddr) {
    let end = out.len() + UNIX_NAME;
    if let Some(path) = address.as_pathname() {
        out.extend_from_slice(path.as_os_str().as_bytes());
    } else if let Some(name) = address.as_abstract_namespace() {
        out.push(0);
        out.extend_from_slice(name);
    }
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> SockAddr {
        text.parse::<SocketAddr>().expect("an address").into()
    }

    fn unix(path: &str) -> SockAddr {
        SockAddr::unix(path).expect("a path")
    }

    #[test]
    fn version_1_byte_by_byte() {
        for (client, listener, text) in [
            (
                ip("192.0.2.7:56324"),
                ip("198.51.100.1:443"),
                "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n",
            ),
            (
                ip("[2001:db8::7]:1"),
                ip("[::1]:65535"),
                "PROXY TCP6 2001:db8::7 ::1 1 65535\r\n",
            ),
            // A client of IPv4 at a listener for both.
            (
                ip("[::ffff:192.0.2.7]:5"),
                ip("[::ffff:127.0.0.1]:80"),
                "PROXY TCP4 192.0.2.7 127.0.0.1 5 80\r\n",
            ),
            (unix(""), unix("/run/a.sock"), "PROXY UNKNOWN\r\n"),
        ] {
            let got = header(Version::V1, &client, &listener);
            assert_eq!(String::from_utf8_lossy(&got), text);
        }
    }

    #[test]
    fn version_2_byte_by_byte() {
        let start = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21";
        let mut want = start.to_vec();
        want.extend(b"\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x01\xbb");
        let got = header(Version::V2, &ip("192.0.2.7:56324"), &ip("198.51.100.1:443"));
        assert_eq!(got, want);

        let mut want = start.to_vec();
        want.extend(b"\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07");
        want.extend(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x01\xff\xff");
        let got = header(Version::V2, &ip("[2001:db8::7]:1"), &ip("[::1]:65535"));
        assert_eq!(got, want);

        let mut want = start.to_vec();
        want.extend(b"\x31\x00\xd8");
        want.resize(want.len() + 108, 0);
        want.extend(b"/run/a.sock");
        want.resize(start.len() + 3 + 216, 0);
        assert_eq!(header(Version::V2, &unix(""), &unix("/run/a.sock")), want);

        let mut want = start.to_vec();
        want.extend(b"\x31\x00\xd8/tmp/c");
        want.resize(start.len() + 3 + 108, 0);
        want.extend(b"\0name");
        want.resize(start.len() + 3 + 216, 0);
        let abstract_name = SockAddr::unix("\0name").expect("a name");
        assert_eq!(header(Version::V2, &unix("/tmp/c"), &abstract_name), want);

        let vsock = SockAddr::vsock(2, 80);
        let mut want = start.to_vec();
        want.extend(b"\x00\x00\x00");
        assert_eq!(header(Version::V2, &vsock, &vsock), want);
    }
}
