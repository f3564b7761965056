//! The variables that tell a process who is at the two ends of its connection.
//!
//! Two families, and both are always set. CGI's, as systemd has it (systemd.socket(5), Accept=):
//! REMOTE_ADDR and REMOTE_PORT. And those of UCSPI: PROTO, and the ends under the protocol's name, as
//! s6-networking (IPv6 too is TCP) and ucspi-unix have it. No name is ever looked up, so there is no
//! TCPREMOTEHOST, TCPLOCALHOST or TCPREMOTEINFO.

use crate::connection::{Credentials, End, Ends, Protocol};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// A variable's name, and its value: a path is any bytes. No NUL is among them.
pub type Variable = (&'static str, Vec<u8>);

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

/// All variables of a connection.
pub fn variables(ends: &Ends) -> Vec<Variable> {
    // Two of CGI, PROTO, two for each end; on a unix socket three for who the client is.
    let mut variables = Vec::with_capacity(8);
    cgi(&ends.remote, &mut variables);
    let names = match ends.protocol {
        Protocol::Tcp => TCP,
        Protocol::Sctp => SCTP,
        Protocol::Unix => UNIX,
        Protocol::Vsock => VSOCK,
    };
    variables.push(("PROTO", names.proto.into()));
    ucspi(&ends.local, names.local, &mut variables);
    ucspi(&ends.remote, names.remote, &mut variables);
    if let Some(Credentials { pid, uid, gid }) = ends.credentials {
        variables.push(("UNIXREMOTEEUID", decimal(uid)));
        variables.push(("UNIXREMOTEEGID", decimal(gid)));
        variables.push(("UNIXREMOTEPID", decimal(pid)));
    }
    variables
}

/// The ends of the connection of a process that has these variables, as far as they say it: the inverse of
/// [`variables`].
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
fn cgi(remote: &End, variables: &mut Vec<Variable>) {
    match remote {
        End::Inet(address) => {
            variables.push(("REMOTE_ADDR", with_scope(address)));
            variables.push(("REMOTE_PORT", decimal(address.port())));
        }
        End::Vsock { cid, port } => {
            variables.push(("REMOTE_ADDR", format!("vsock:{cid}").into_bytes()));
            variables.push(("REMOTE_PORT", decimal(port)));
        }
        End::Path(_) | End::Abstract(_) | End::Unnamed => {
            variables.extend(unix_name(remote).map(|name| ("REMOTE_ADDR", name)));
        }
    }
}

fn ucspi(
    end: &End,
    (address_name, port_name): (&'static str, &'static str),
    variables: &mut Vec<Variable>,
) {
    match end {
        End::Inet(address) => {
            variables.push((address_name, ip(address.ip())));
            variables.push((port_name, decimal(address.port())));
        }
        End::Vsock { cid, port } => {
            variables.push((address_name, decimal(cid)));
            variables.push((port_name, decimal(port)));
        }
        End::Path(_) | End::Abstract(_) | End::Unnamed => {
            variables.extend(unix_name(end).map(|name| (address_name, name)));
        }
    }
}

/// A link-local address means nothing without its interface, which is known by its index here.
fn with_scope(address: &SocketAddr) -> Vec<u8> {
    match address {
        SocketAddr::V6(six) if six.scope_id() != 0 => {
            format!("{}%{}", six.ip(), six.scope_id()).into_bytes()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => ip(address.ip()),
    }
}

/// An address as text. Of IPv4 it is written here: `Display` takes 1,300 instructions, and there are three
/// for each connection.
fn ip(address: IpAddr) -> Vec<u8> {
    let IpAddr::V4(four) = address else {
        return address.to_string().into_bytes();
    };
    let mut text = Vec::with_capacity("255.255.255.255".len());
    for (index, octet) in four.octets().into_iter().enumerate() {
        if index > 0 {
            text.push(b'.');
        }
        for unit in [100, 10, 1] {
            if octet >= unit || unit == 1 {
                text.push(b'0' + octet / unit % 10);
            }
        }
    }
    text
}

/// `@` stands for every NUL of an abstract name, the leading one included, as in ss(8) and
/// /proc/net/unix: an environment cannot hold one. All other bytes stay as they are.
fn unix_name(end: &End) -> Option<Vec<u8>> {
    match end {
        End::Path(path) => Some(path.as_os_str().as_bytes().to_owned()),
        End::Abstract(name) => {
            let bytes = [0].iter().chain(name);
            Some(
                bytes
                    .map(|byte| if *byte == 0 { b'@' } else { *byte })
                    .collect(),
            )
        }
        End::Inet(_) | End::Vsock { .. } | End::Unnamed => None,
    }
}

fn decimal(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::belongs_to_a_handoff;

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
                assert_eq!(ip(address), address.to_string().into_bytes());
            }
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
