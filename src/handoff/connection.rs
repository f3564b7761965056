//! The variables that tell a process who is at the two ends of its connection.
//!
//! Two families, and both are always set. CGI's, as systemd has it (systemd.socket(5), Accept=):
//! REMOTE_ADDR and REMOTE_PORT. And those of UCSPI: PROTO, and the ends under the protocol's name, as
//! s6-networking (IPv6 too is TCP) and ucspi-unix have it. No name is ever looked up, so there is no
//! TCPREMOTEHOST, TCPLOCALHOST or TCPREMOTEINFO.

use crate::connection::{Credentials, End, Ends, Protocol};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// Takes the name of a variable, and what appends its value: a path is any bytes. No NUL is among them.
/// Nothing is collected, because there is one for each connection.
pub type Put<'a> = dyn FnMut(&'static str, &dyn Fn(&mut Vec<u8>)) + 'a;

/// The names under one protocol.
struct Names {
    proto: &'static str,
    local: (&'static str, &'static str),
    remote: (&'static str, &'static str),
}

const TCP: Names = Names {
    proto: "TCP",
    local: ("TCPLOCALIP", "TCPLOCALPORT"),
    remote: ("TCPREMOTEIP", "TCPREMOTEPORT"),
};

const SCTP: Names = Names {
    proto: "SCTP",
    local: ("SCTPLOCALIP", "SCTPLOCALPORT"),
    remote: ("SCTPREMOTEIP", "SCTPREMOTEPORT"),
};

const VSOCK: Names = Names {
    proto: "VSOCK",
    local: ("VSOCKLOCALCID", "VSOCKLOCALPORT"),
    remote: ("VSOCKREMOTECID", "VSOCKREMOTEPORT"),
};

/// A unix socket's end has no port; the second name is never used.
const UNIX: Names = Names {
    proto: "UNIX",
    local: ("UNIXLOCALPATH", ""),
    remote: ("UNIXREMOTEPATH", ""),
};

/// No connection has more variables: two of CGI, PROTO, two for each end; on a unix socket three for who
/// the client is.
pub const MOST_VARIABLES: usize = 8;

/// Tells all variables of a connection.
pub fn tell(ends: &Ends, put: &mut Put<'_>) {
    cgi(&ends.remote, put);
    let names = match ends.protocol {
        Protocol::Tcp => TCP,
        Protocol::Sctp => SCTP,
        Protocol::Unix => UNIX,
        Protocol::Vsock => VSOCK,
    };
    put("PROTO", &|out| {
        out.extend_from_slice(names.proto.as_bytes())
    });
    ucspi(&ends.local, names.local, put);
    ucspi(&ends.remote, names.remote, put);
    if let Some(Credentials { pid, uid, gid }) = ends.credentials {
        put("UNIXREMOTEEUID", &|out| decimal(uid, out));
        put("UNIXREMOTEEGID", &|out| decimal(gid, out));
        put("UNIXREMOTEPID", &|out| {
            out.extend_from_slice(pid.to_string().as_bytes());
        });
    }
}

/// The ends of the connection of a process that has these variables, as far as they say it: the inverse of
/// [`tell`].
pub fn ends<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<Ends> {
    let number = |name: &str| value(name)?.parse::<u32>().ok();
    let proto = value("PROTO")?;
    let all = [
        (Protocol::Tcp, TCP),
        (Protocol::Sctp, SCTP),
        (Protocol::Unix, UNIX),
        (Protocol::Vsock, VSOCK),
    ];
    let (protocol, names) = all.into_iter().find(|(_, names)| names.proto == proto)?;
    let end = |(address, port): (&str, &str)| match protocol {
        Protocol::Tcp | Protocol::Sctp => {
            let ip = value(address)?.parse().ok()?;
            Some(End::Inet(SocketAddr::new(ip, value(port)?.parse().ok()?)))
        }
        Protocol::Vsock => Some(End::Vsock {
            cid: number(address)?,
            port: number(port)?,
        }),
        Protocol::Unix => Some(match value(address) {
            None => End::Unnamed,
            Some(name) => match name.strip_prefix('@') {
                Some(name) => End::Abstract(name.into()),
                None => End::Path(name.into()),
            },
        }),
    };
    let credentials = || {
        Some(Credentials {
            pid: number("UNIXREMOTEPID")?.cast_signed(),
            uid: number("UNIXREMOTEEUID")?,
            gid: number("UNIXREMOTEEGID")?,
        })
    };
    Some(Ends {
        protocol,
        local: end(names.local)?,
        remote: end(names.remote)?,
        credentials: credentials(),
    })
}

/// REMOTE_ADDR and REMOTE_PORT, by the rules of systemd: an address without brackets, `vsock:CID`, a
/// path or `@name`; neither for who has no name.
fn cgi(remote: &End, put: &mut Put<'_>) {
    match remote {
        End::Inet(address) => {
            put("REMOTE_ADDR", &|out| with_scope(address, out));
            put("REMOTE_PORT", &|out| decimal(address.port().into(), out));
        }
        End::Vsock { cid, port } => {
            put("REMOTE_ADDR", &|out| {
                out.extend_from_slice(b"vsock:");
                decimal(*cid, out);
            });
            put("REMOTE_PORT", &|out| decimal(*port, out));
        }
        End::Path(_) | End::Abstract(_) => put("REMOTE_ADDR", &|out| unix_name(remote, out)),
        End::Unnamed => {}
    }
}

fn ucspi(end: &End, (address_name, port_name): (&'static str, &'static str), put: &mut Put<'_>) {
    match end {
        End::Inet(address) => {
            put(address_name, &|out| ip(address.ip(), out));
            put(port_name, &|out| decimal(address.port().into(), out));
        }
        End::Vsock { cid, port } => {
            put(address_name, &|out| decimal(*cid, out));
            put(port_name, &|out| decimal(*port, out));
        }
        End::Path(_) | End::Abstract(_) => put(address_name, &|out| unix_name(end, out)),
        End::Unnamed => {}
    }
}

/// A link-local address means nothing without its interface, which is known by its index here.
fn with_scope(address: &SocketAddr, out: &mut Vec<u8>) {
    ip(address.ip(), out);
    if let SocketAddr::V6(six) = address
        && six.scope_id() != 0
    {
        out.push(b'%');
        decimal(six.scope_id(), out);
    }
}

/// An address as text. Of IPv4 it is written here: `Display` takes 1,300 instructions, and there are three
/// for each connection.
fn ip(address: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(four) = address else {
        return out.extend_from_slice(address.to_string().as_bytes());
    };
    for (index, octet) in four.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        decimal(octet.into(), out);
    }
}

pub(super) fn decimal(number: u32, out: &mut Vec<u8>) {
    let start = out.len();
    let mut rest = number;
    loop {
        // A digit, so that nothing is cut off.
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

/// `@` stands for every NUL of an abstract name, the leading one included, as in ss(8) and
/// /proc/net/unix: an environment cannot hold one. All other bytes stay as they are.
fn unix_name(end: &End, out: &mut Vec<u8>) {
    match end {
        End::Path(path) => out.extend_from_slice(path.as_os_str().as_bytes()),
        End::Abstract(name) => {
            let bytes = [0].iter().chain(name);
            out.extend(bytes.map(|byte| if *byte == 0 { b'@' } else { *byte }));
        }
        End::Inet(_) | End::Vsock { .. } | End::Unnamed => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::belongs_to_a_handoff;

    fn variables(ends: &Ends) -> Vec<(&'static str, Vec<u8>)> {
        let mut all = Vec::new();
        tell(ends, &mut |name, write| {
            let mut value = Vec::new();
            write(&mut value);
            all.push((name, value));
        });
        assert!(all.len() <= MOST_VARIABLES);
        all
    }

    fn of(protocol: Protocol, local: End, remote: End, credentials: Option<Credentials>) -> String {
        let ends = Ends {
            protocol,
            local,
            remote,
            credentials,
        };
        let mut lines = Vec::new();
        for (name, value) in variables(&ends) {
            assert!(belongs_to_a_handoff(name), "{name} is not scrubbed");
            assert!(!value.contains(&0), "{name}");
            lines.push(format!("{name}={}", value.escape_ascii()));
        }
        lines.join(" ")
    }

    fn inet(address: &str) -> End {
        End::Inet(address.parse().unwrap())
    }

    #[test]
    fn every_octet_is_written_as_display_has_it() {
        for octet in 0..=255_u8 {
            for four in [[octet, 0, 10, 100], [255, octet, octet, octet]] {
                let address = IpAddr::from(four);
                let mut text = Vec::new();
                ip(address, &mut text);
                assert_eq!(text, address.to_string().into_bytes());
            }
        }
        for number in [0, 9, 10, 65_535, u32::MAX] {
            let mut text = b"x".to_vec();
            decimal(number, &mut text);
            assert_eq!(text, format!("x{number}").into_bytes());
        }
    }

    #[test]
    fn what_is_told_can_be_read_again() {
        let vsock = |cid, port| End::Vsock { cid, port };
        let credentials = Some(Credentials {
            pid: 7,
            uid: 8,
            gid: 9,
        });
        for (protocol, local, remote, credentials) in [
            (
                Protocol::Tcp,
                inet("192.0.2.1:80"),
                inet("192.0.2.2:4711"),
                None,
            ),
            (
                Protocol::Sctp,
                inet("[2001:db8::1]:80"),
                inet("[2001:db8::2]:7"),
                None,
            ),
            (Protocol::Vsock, vsock(2, 80), vsock(3, 4711), None),
            (
                Protocol::Unix,
                End::Path("/run/a".into()),
                End::Unnamed,
                credentials,
            ),
            (
                Protocol::Unix,
                End::Abstract(b"a".to_vec()),
                End::Path("/c".into()),
                None,
            ),
        ] {
            let told = Ends {
                protocol,
                local,
                remote,
                credentials,
            };
            let variables = variables(&told);
            let read = ends(|name| {
                let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
                std::str::from_utf8(value).ok()
            });
            assert_eq!(read, Some(told));
        }
        assert_eq!(ends(|_| None), None);
    }

    #[test]
    fn addresses_have_no_brackets_and_ipv6_is_tcp_too() {
        assert_eq!(
            of(
                Protocol::Tcp,
                inet("192.0.2.1:80"),
                inet("192.0.2.2:4711"),
                None
            ),
            "REMOTE_ADDR=192.0.2.2 REMOTE_PORT=4711 PROTO=TCP TCPLOCALIP=192.0.2.1 \
             TCPLOCALPORT=80 TCPREMOTEIP=192.0.2.2 TCPREMOTEPORT=4711"
        );
        assert_eq!(
            of(
                Protocol::Tcp,
                inet("[2001:db8::1]:80"),
                inet("[fe80::2%3]:4711"),
                None
            ),
            "REMOTE_ADDR=fe80::2%3 REMOTE_PORT=4711 PROTO=TCP TCPLOCALIP=2001:db8::1 \
             TCPLOCALPORT=80 TCPREMOTEIP=fe80::2 TCPREMOTEPORT=4711"
        );
    }

    #[test]
    fn sctp_and_vsock_have_names_of_their_own() {
        assert_eq!(
            of(
                Protocol::Sctp,
                inet("192.0.2.1:80"),
                inet("192.0.2.2:4711"),
                None
            ),
            "REMOTE_ADDR=192.0.2.2 REMOTE_PORT=4711 PROTO=SCTP SCTPLOCALIP=192.0.2.1 \
             SCTPLOCALPORT=80 SCTPREMOTEIP=192.0.2.2 SCTPREMOTEPORT=4711"
        );
        let end = |cid, port| End::Vsock { cid, port };
        assert_eq!(
            of(Protocol::Vsock, end(2, 80), end(3, 4711), None),
            "REMOTE_ADDR=vsock:3 REMOTE_PORT=4711 PROTO=VSOCK VSOCKLOCALCID=2 \
             VSOCKLOCALPORT=80 VSOCKREMOTECID=3 VSOCKREMOTEPORT=4711"
        );
    }

    #[test]
    fn a_unix_peer_is_named_only_if_it_has_a_name() {
        let local = End::Path("/run/app.sock".into());
        let credentials = Some(Credentials {
            pid: 7,
            uid: 8,
            gid: 9,
        });
        assert_eq!(
            of(Protocol::Unix, local.clone(), End::Unnamed, credentials),
            "PROTO=UNIX UNIXLOCALPATH=/run/app.sock UNIXREMOTEEUID=8 UNIXREMOTEEGID=9 \
             UNIXREMOTEPID=7"
        );
        assert_eq!(
            of(Protocol::Unix, local, End::Path("/run/c".into()), None),
            "REMOTE_ADDR=/run/c PROTO=UNIX UNIXLOCALPATH=/run/app.sock UNIXREMOTEPATH=/run/c"
        );
    }

    #[test]
    fn no_name_of_a_peer_can_break_the_environment() {
        assert_eq!(
            of(
                Protocol::Unix,
                End::Abstract(b"app".to_vec()),
                End::Abstract(b"a\0b\xff\0".to_vec()),
                None
            ),
            "REMOTE_ADDR=@a@b\\xff@ PROTO=UNIX UNIXLOCALPATH=@app UNIXREMOTEPATH=@a@b\\xff@"
        );
    }
}
