//! Addresses: what stands behind `address:` → the sockets it means.

use super::complaint::Complaint;
use super::model::{Endpoint, Transport, UnixKind, UnixName};
use crate::report::{Kind, nearest};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// sun_path has 108 bytes, one of them for the NUL (unix(7)).
const UNIX_NAME_MAX: usize = 107;

/// Schemes that a later version will take.
const LATER: &[&str] = &[
    "fifo",
    "vsock",
    "mptcp",
    "sctp",
    "netlink",
    "special",
    "mqueue",
    "vsock-dgram",
];
const SCHEMES: &[&str] = &["tcp", "udp", "unix", "unix-dgram", "unix-seqpacket"];

/// Whether the IPv6 sockets of a listener take IPv6 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum V6 {
    Only,
    AndV4,
}

type Parsed<T> = Result<T, Complaint>;

fn bad(message: impl Into<String>) -> Complaint {
    Complaint::new(Kind::BadAddress, message)
}

/// Reads one address; the result is never empty.
pub(super) fn parse(text: &str, v6: V6) -> Parsed<Vec<Endpoint>> {
    if text.is_empty() {
        return Err(bad("the address is empty").hint("write it like `127.0.0.1:8080`"));
    }
    let word = text
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'_'))
        .count();
    let (scheme, rest) = text.split_at(word);
    if let Some(rest) = rest.strip_prefix(':')
        && let Some(kind) = match scheme {
            "unix" => Some(UnixKind::Stream),
            "unix-dgram" => Some(UnixKind::Datagram),
            "unix-seqpacket" => Some(UnixKind::SeqPacket),
            _ => None,
        }
    {
        return unix(text, scheme, kind, rest).map(|endpoint| vec![endpoint]);
    }
    if text.starts_with('/') || text.starts_with('@') {
        return Err(bad(format!("`{text}` is no address")).hint(format!("write `unix:{text}`")));
    }
    if text.starts_with("./") || text.starts_with("~/") {
        return Err(bad(format!("`{text}` is no address"))
            .hint("write `unix:` and the absolute path of the socket"));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(bad(format!("`{text}` has a space in it"))
            .hint("write one address, or a list: [\"127.0.0.1:8080\", \"[::1]:8080\"]"));
    }
    if let Some(rest) = rest.strip_prefix("://") {
        return match scheme {
            "tcp" => inet(text, "tcp://", Transport::Tcp, rest, v6),
            "udp" => inet(text, "udp://", Transport::Udp, rest, v6),
            _ => Err(other_scheme(text, scheme, rest)),
        };
    }
    if let Some(rest) = rest.strip_prefix(':')
        && (LATER.contains(&scheme) || (!scheme.is_empty() && is_scheme_mistake(scheme, rest)))
    {
        return Err(other_scheme(text, scheme, rest));
    }
    inet(text, "", Transport::Tcp, text, v6)
}

/// Whether `word:rest` was meant as a scheme rather than as host and port.
fn is_scheme_mistake(word: &str, rest: &str) -> bool {
    if rest.starts_with(['/', '@']) || SCHEMES.contains(&word) {
        return true;
    }
    // `fd:1` may be an IPv6 address without brackets, and `host:80` a host.
    let hexadecimal = word.len() <= 4 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let port = rest.bytes().all(|b| b.is_ascii_digit());
    !hexadecimal && !port && nearest(word, SCHEMES.iter().copied()).is_some()
}

fn other_scheme(text: &str, scheme: &str, rest: &str) -> Complaint {
    if LATER.contains(&scheme) {
        return Complaint::new(
            Kind::Unsupported,
            format!("this version has no `{scheme}` listeners"),
        )
        .hint("it has TCP, UDP and unix sockets");
    }
    let rest = rest.trim_start_matches('/');
    match scheme {
        "tcp" | "udp" => {
            bad(format!("`{text}` is no address")).hint(format!("write `{scheme}://{rest}`"))
        }
        "http" | "https" => bad(format!("`{scheme}` is not a kind of socket")).hint(format!(
            "listend hands over bare TCP sockets; write `{}`",
            rest.trim_end_matches('/')
        )),
        "tcp4" | "tcp6" | "udp4" | "udp6" => bad(format!("`{scheme}` is not a kind of socket"))
            .hint(format!(
                "write `{}://`; the address tells IPv4 from IPv6",
                &scheme[..3]
            )),
        _ => bad(format!("`{scheme}` is not a kind of socket")).hint(
            match nearest(scheme, SCHEMES.iter().copied()) {
                Some(scheme) => format!("did you mean `{scheme}`?"),
                None => "known here: `tcp://`, `udp://`, `unix:`, `unix-dgram:`, `unix-seqpacket:`"
                    .to_owned(),
            },
        ),
    }
}

fn unix(text: &str, scheme: &str, kind: UnixKind, rest: &str) -> Parsed<Endpoint> {
    if rest.contains('\0') {
        return Err(bad("a unix socket's name may not have a NUL in it"));
    }
    if let Some(name) = rest.strip_prefix('@') {
        return match name.len() {
            0 => Err(bad(format!("`{text}` has no name")).hint(format!("write `{scheme}:@name`"))),
            1..=UNIX_NAME_MAX => Ok(Endpoint::Unix {
                kind,
                name: UnixName::Abstract(name.to_owned()),
            }),
            long => Err(too_long(text, "name", long)),
        };
    }
    if !rest.starts_with('/') {
        return Err(bad(format!("`{text}`: the path is not absolute")).hint(format!(
            "write `{scheme}:/path` for a socket in the file system or `{scheme}:@name` for an abstract one"
        )));
    }
    if rest.ends_with('/') || rest.ends_with("/.") || rest.ends_with("/..") {
        return Err(
            bad(format!("`{text}` is a folder, not a socket")).hint(format!(
                "add the name of the socket, like `{scheme}:{}/listend.sock`",
                { rest.trim_end_matches(['/', '.']) }
            )),
        );
    }
    let path = normalise(rest);
    if path.len() > UNIX_NAME_MAX {
        return Err(too_long(text, "path", path.len()));
    }
    Ok(Endpoint::Unix {
        kind,
        name: UnixName::Path(PathBuf::from(path)),
    })
}

fn too_long(text: &str, what: &str, length: usize) -> Complaint {
    let shown: String = text.chars().take(200).collect();
    bad(format!("`{shown}`: the {what} has {length} bytes")).hint(format!(
        "the kernel takes at most {UNIX_NAME_MAX} (unix(7))"
    ))
}

/// Without `//` and `/./`. `..` stays: what it means depends on symbolic links.
fn normalise(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for part in path.split('/') {
        if !part.is_empty() && part != "." {
            out.push('/');
            out.push_str(part);
        }
    }
    out
}

fn inet(
    text: &str,
    scheme: &str,
    transport: Transport,
    rest: &str,
    v6: V6,
) -> Parsed<Vec<Endpoint>> {
    let (host, port) = host_and_port(text, scheme, rest)?;
    let port = port_number(text, port)?;
    let one = |ip: IpAddr, v6: V6, presence: Presence| Endpoint::Inet {
        scope: None,
        transport,
        address: SocketAddr::new(ip, port),
        v6_only: v6 == V6::Only || ip.is_ipv4(),
        optional: presence == Presence::Optional,
    };
    match host {
        "" | "*" => Ok(vec![one(
            Ipv6Addr::UNSPECIFIED.into(),
            V6::AndV4,
            Presence::Optional,
        )]),
        "localhost" => Ok(vec![
            one(Ipv4Addr::LOCALHOST.into(), V6::Only, Presence::Required),
            one(Ipv6Addr::LOCALHOST.into(), V6::Only, Presence::Optional),
        ]),
        _ if host.starts_with('[') => {
            let ip = ipv6(text, scheme, &host[1..host.len() - 1], port, v6)?;
            Ok(vec![one(ip.into(), v6, Presence::Required)])
        }
        _ => match host.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(vec![one(ip.into(), V6::Only, Presence::Required)]),
            Err(_) => Err(no_host(text, scheme, host, port)),
        },
    }
}

#[derive(PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

/// Splits at the last colon; a host with brackets keeps them.
fn host_and_port<'a>(text: &str, scheme: &str, rest: &'a str) -> Parsed<(&'a str, &'a str)> {
    let no_port = |host: &str| {
        bad(format!("`{text}` has no port")).hint(format!("write `{scheme}{host}:8080`"))
    };
    if rest.starts_with('[') {
        let Some(close) = rest.find(']') else {
            return Err(bad(format!("`{text}` has no closing bracket"))
                .hint(format!("write `{scheme}[::1]:8080`")));
        };
        let (host, tail) = rest.split_at(close + 1);
        return match tail.strip_prefix(':') {
            Some("") | None if tail.len() <= 1 => Err(no_port(host)),
            Some(port) => Ok((host, port)),
            None => Err(bad(format!(
                "`{text}`: only `:PORT` may follow the bracket"
            ))),
        };
    }
    if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad(format!("`{text}` is only a port")).hint(format!(
            "write `{scheme}:{rest}` for every interface, `{scheme}127.0.0.1:{rest}` for this machine only"
        )));
    }
    let Some((host, port)) = rest.rsplit_once(':') else {
        return Err(if rest.is_empty() || rest.parse::<Ipv4Addr>().is_ok() {
            no_port(rest)
        } else {
            bad(format!("`{text}` is no address"))
                .hint("write `HOST:PORT` with the address of the host, `:PORT`, or `unix:/path`")
        });
    };
    if host.contains(':') {
        // `::1:80` is an IPv6 address in whole, too; brackets tell where it ends.
        return Err(if host.parse::<Ipv6Addr>().is_ok() {
            bad(format!(
                "`{text}`: an IPv6 address with a port needs brackets"
            ))
            .hint(format!("write `{scheme}[{host}]:{port}`"))
        } else if rest.parse::<Ipv6Addr>().is_ok() {
            no_port(&format!("[{rest}]"))
        } else {
            bad(format!("`{text}` has too many colons")).hint(format!(
                "write an IPv6 address in brackets, like `{scheme}[::1]:8080`"
            ))
        });
    }
    if port.is_empty() {
        return Err(no_port(host));
    }
    Ok((host, port))
}

fn port_number(text: &str, port: &str) -> Parsed<u16> {
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad(format!("`{text}`: `{port}` is not a port"))
            .hint("write the port as a number from 0 to 65535"));
    }
    if port.len() > 1 && port.starts_with('0') {
        let plain = port.trim_start_matches('0');
        let plain = if plain.is_empty() { "0" } else { plain };
        return Err(
            bad(format!("`{text}`: the port has a leading zero")).hint(format!("write `{plain}`"))
        );
    }
    port.parse().map_err(|_| {
        bad(format!("`{text}`: port {port} is above 65535"))
            .hint("ports are 0 to 65535; 0 lets the kernel choose")
    })
}

fn ipv6(text: &str, scheme: &str, inner: &str, port: u16, v6: V6) -> Parsed<Ipv6Addr> {
    if let Some((address, _)) = inner.split_once('%') {
        return Err(Complaint::new(
            Kind::Unsupported,
            format!("`{text}`: this version has no scope ids (`%…`)"),
        )
        .hint(format!(
            "use an address that is not link-local; `{address}` alone is not enough to bind to"
        )));
    }
    let Ok(ip) = inner.parse::<Ipv6Addr>() else {
        let complaint = bad(format!("`{text}`: `{inner}` is not an IPv6 address"));
        return Err(if inner.is_empty() {
            complaint.hint(format!(
                "write `{scheme}[::]:{port}` for every IPv6 interface"
            ))
        } else if inner.parse::<Ipv4Addr>().is_ok() {
            complaint.hint(format!("write `{scheme}{inner}:{port}`"))
        } else {
            complaint
        });
    };
    // bind(2) refuses a v4-mapped address on a socket that takes IPv6 only.
    if let (Some(v4), V6::Only) = (ip.to_ipv4_mapped(), v6) {
        return Err(bad(format!("`{text}` is an IPv4 address in IPv6 dress"))
            .hint(format!("write `{scheme}{v4}:{port}`")));
    }
    Ok(ip)
}

fn no_host(text: &str, scheme: &str, host: &str, port: u16) -> Complaint {
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let complaint = bad(format!("`{text}`: `{host}` is not an IPv4 address"));
        let decimal: Vec<&str> = host
            .split('.')
            .map(|part| match part.trim_start_matches('0') {
                "" if !part.is_empty() => "0",
                plain => plain,
            })
            .collect();
        let decimal = decimal.join(".");
        return if decimal != host && decimal.parse::<Ipv4Addr>().is_ok() {
            complaint.hint(format!(
                "write `{scheme}{decimal}:{port}`; some programs read leading zeros as octal"
            ))
        } else {
            complaint.hint("an IPv4 address is four numbers from 0 to 255, like `127.0.0.1`")
        };
    }
    if host.eq_ignore_ascii_case("localhost") {
        return bad(format!("`{text}` is no address"))
            .hint(format!("write `{scheme}localhost:{port}`"));
    }
    bad(format!("`{text}`: host names are not resolved")).hint(format!(
        "write the address of `{host}` itself, `{scheme}:{port}` for every interface, or `{scheme}localhost:{port}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text, V6::Only) {
            Ok(endpoints) => {
                let words: Vec<String> = endpoints
                    .iter()
                    .map(|endpoint| match endpoint {
                        Endpoint::Inet {
                            transport,
                            v6_only,
                            optional,
                            ..
                        } => format!(
                            "{transport:?} {endpoint}{}{}",
                            if *v6_only { "" } else { " dual" },
                            if *optional { " optional" } else { "" }
                        ),
                        Endpoint::Unix { kind, .. } => format!("{kind:?} {endpoint}"),
                        other => format!("{:?} {other}", other.kind()),
                    })
                    .collect();
                words.join(", ")
            }
            Err(complaint) => format!(
                "{:?}: {}",
                complaint.kind,
                complaint.hint.unwrap_or_default()
            ),
        }
    }

    #[test]
    fn good_addresses() {
        for (text, want) in [
            ("127.0.0.1:8080", "Tcp 127.0.0.1:8080"),
            ("tcp://127.0.0.1:0", "Tcp 127.0.0.1:0"),
            ("udp://[::1]:53", "Udp [::1]:53"),
            ("[::]:80", "Tcp [::]:80"),
            (":80", "Tcp [::]:80 dual optional"),
            ("*:80", "Tcp [::]:80 dual optional"),
            ("udp://:53", "Udp [::]:53 dual optional"),
            ("localhost:1", "Tcp 127.0.0.1:1, Tcp [::1]:1 optional"),
            ("unix:/run/a b.sock", "Stream /run/a b.sock"),
            ("unix:///run//./x", "Stream /run/x"),
            ("unix-dgram:/x", "Datagram /x"),
            ("unix-seqpacket:@x", "SeqPacket @x"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
        let mapped = parse("[::ffff:1.2.3.4]:80", V6::AndV4).unwrap();
        assert_eq!(mapped.len(), 1);
    }

    #[test]
    fn bad_addresses_say_what_to_write() {
        for (text, want) in [
            ("8080", "`:8080` for every interface, `127.0.0.1:8080` for"),
            ("tcp://8080", "`tcp://:8080` for every interface"),
            ("/run/x.sock", "`unix:/run/x.sock`"),
            ("@x", "`unix:@x`"),
            ("::1:80", "`[::1]:80`"),
            ("::1", "`[::1]:8080`"),
            ("fe80::1", "`[fe80::1]:8080`"),
            ("[::1]", "`[::1]:8080`"),
            ("[::1", "closing bracket|`[::1]:8080`"),
            ("[127.0.0.1]:80", "`127.0.0.1:80`"),
            ("example.com:80", "address of `example.com` itself"),
            ("127.0.0.1", "`127.0.0.1:8080`"),
            ("127.0.0.1:65536", "0 to 65535"),
            ("127.0.0.1:http", "as a number"),
            ("127.0.0.1:080", "`80`"),
            ("127.0.0.01:80", "`127.0.0.1:80`"),
            ("127.1:80", "four numbers"),
            ("[::ffff:1.2.3.4]:80", "`1.2.3.4:80`"),
            ("[fe80::1%eth0]:80", "Unsupported"),
            ("vsock:2:80", "Unsupported"),
            ("mptcp://:80", "Unsupported"),
            ("fifo:/x", "Unsupported"),
            ("tpc://:80", "`tcp`"),
            ("unxi:/x", "`unix`"),
            ("tcp:127.0.0.1:80", "`tcp://127.0.0.1:80`"),
            ("http://127.0.0.1:80/", "`127.0.0.1:80`"),
            ("unix:x.sock", "`unix:/path`"),
            ("unix:/run/", "`unix:/run/listend.sock`"),
            ("unix:@", "`unix:@name`"),
            ("", "`127.0.0.1:8080`"),
            ("127.0.0.1:80 ", "a list"),
            (&format!("unix:/{}", "x".repeat(107)), "at most 107"),
        ] {
            let got = shown(text);
            let fits = want.split('|').any(|want| got.contains(want));
            assert!(fits && parse(text, V6::Only).is_err(), "{text}: {got}");
        }
    }
}
