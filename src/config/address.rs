//! Addresses: what stands behind `address:` → the sockets it means.

use super::address_parsed::{AddressResult, V6, bad};
use super::model::{Endpoint, Transport, UnixKind};
use super::scalar;
use super::value_error::ValueError;
use super::{address_inet, address_local};
use crate::report::nearest;

const SCHEMES: &[&str] = &[
    "tcp",
    "udp",
    "mptcp",
    "sctp",
    "udplite",
    "unix",
    "unix-dgram",
    "unix-seqpacket",
    "fifo",
    "mqueue",
    "special",
    "netlink",
    "vsock",
    "vsock-dgram",
    "vsock-seqpacket",
];

/// Reads one address; the result is never empty.
pub(super) fn parse(text: &str, v6: V6) -> AddressResult<Vec<Endpoint>> {
    if let Some(endpoint) = address_inet::plain(text) {
        return Ok(vec![endpoint]);
    }
    if text.is_empty() {
        return Err(bad("the address is empty").hint("write it like `127.0.0.1:8080`"));
    }
    let word = text
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'_'))
        .count();
    let (scheme, rest) = text.split_at(word);
    if let Some(rest) = rest.strip_prefix(':')
        && let Some(endpoint) = local(text, scheme, rest)
    {
        return endpoint.map(|endpoint| vec![endpoint]);
    }
    if text.starts_with('/') || text.starts_with('@') {
        return Err(bad(format!("`{text}` is not an address")).hint(format!("write `unix:{text}`")));
    }
    if text.starts_with("./") || text.starts_with("~/") {
        return Err(bad(format!("`{text}` is not an address"))
            .hint("write `unix:` and the absolute path of the socket"));
    }
    let separates = |c: &char| c.is_whitespace() || c.is_control() || *c == ',';
    if let Some(found) = text.chars().find(separates) {
        let what = if found == ',' { "comma" } else { "space" };
        let mut words = text.split(|c| separates(&c)).filter(|w| !w.is_empty());
        let hint = if found == ',' || words.all(|word| parse(word, v6).is_ok()) {
            "write one address, or a list: [\"127.0.0.1:8080\", \"[::1]:8080\"]"
        } else {
            "write only the address, like `127.0.0.1:8080`; options are keys beside it: `{ address: \
             127.0.0.1:8080, backlog: 511 }`"
        };
        return Err(bad(format!("`{text}` contains a {what}")).hint(hint));
    }
    if text.contains('$') {
        return Err(bad(format!("`{text}`: variables are not expanded here"))
            .hint("write the address itself, like `127.0.0.1:8080`"));
    }
    if let Some(host) = rest.strip_prefix("://") {
        return match transport(scheme) {
            Some(transport) => address_inet::parse(text, &text[..word + 3], transport, host, v6),
            None => Err(other_scheme(text, scheme, host)),
        };
    }
    if let Some(rest) = rest.strip_prefix(':')
        && !scheme.is_empty()
        && is_scheme_mistake(scheme, rest)
    {
        return Err(other_scheme(text, scheme, rest));
    }
    // `:53/udp`, as docker has it.
    if let Some((rest, scheme)) = text.rsplit_once('/')
        && transport(scheme).is_some()
    {
        return Err(other_scheme(text, scheme, rest));
    }
    address_inet::parse(text, "", Transport::Tcp, text, v6)
}

/// Addresses that are not of the internet; `None` is another scheme.
fn local(text: &str, scheme: &str, rest: &str) -> Option<AddressResult<Endpoint>> {
    use UnixKind::{Datagram, SeqPacket, Stream};
    Some(match scheme {
        "unix" => address_local::unix(text, scheme, Stream, rest),
        "unix-dgram" => address_local::unix(text, scheme, Datagram, rest),
        "unix-seqpacket" => address_local::unix(text, scheme, SeqPacket, rest),
        "fifo" => address_local::fifo(text, rest),
        "mqueue" => address_local::message_queue(text, rest),
        "special" => address_local::special(text, rest),
        "netlink" => address_local::netlink(text, rest),
        "vsock" => address_local::vsock(text, scheme, Stream, rest),
        "vsock-dgram" => address_local::vsock(text, scheme, Datagram, rest),
        "vsock-seqpacket" => address_local::vsock(text, scheme, SeqPacket, rest),
        _ => return None,
    })
}

fn transport(scheme: &str) -> Option<Transport> {
    Some(match scheme {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "mptcp" => Transport::Mptcp,
        "sctp" => Transport::Sctp,
        "udplite" => Transport::UdpLite,
        _ => return None,
    })
}

/// What goes over TCP, and is the worker's business.
const OVER_TCP: &[&str] = &["http", "https", "ssl", "tls"];

/// Whether a word stands before the address for a kind of socket.
pub(super) fn is_scheme(word: &str) -> bool {
    SCHEMES.contains(&word) || OVER_TCP.contains(&word)
}

/// Whether `word:rest` was meant as a scheme rather than as host and port.
fn is_scheme_mistake(word: &str, rest: &str) -> bool {
    if rest.starts_with(['/', '@']) || SCHEMES.contains(&word) {
        return true;
    }
    // `fd:1` may be an IPv6 address without brackets, and `host:80` a host.
    let hexadecimal = word.len() <= 4 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let port = rest.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if OVER_TCP.contains(&word) {
        return !port;
    }
    !hexadecimal && !port && nearest(word, SCHEMES.iter().copied()).is_some()
}

fn other_scheme(text: &str, scheme: &str, rest: &str) -> ValueError {
    let rest = rest.trim_start_matches('/');
    match scheme {
        _ if transport(scheme).is_some() => {
            // A port alone is one of every interface.
            let is_port = scalar::is_digits(rest);
            let host = if is_port { ":" } else { "" };
            let meant = format!("{scheme}://{host}{rest}");
            let wrong = match parse(&meant, V6::Only) {
                Ok(_) => format!("write `{meant}`"),
                Err(ValueError {
                    hint: Some(hint), ..
                }) => hint,
                Err(_) => format!("write `{scheme}://HOST:PORT`"),
            };
            bad(format!("`{text}` is not an address")).hint(wrong)
        }
        _ if OVER_TCP.contains(&scheme) => {
            bad(format!("`{scheme}` is not a kind of socket")).hint(format!(
                "listend passes plain TCP sockets; write `{}`",
                rest.trim_end_matches('/')
            ))
        }
        "tcp4" | "tcp6" | "udp4" | "udp6" => bad(format!("`{scheme}` is not a kind of socket"))
            .hint(format!(
                "write `{}://`; the address tells IPv4 from IPv6",
                &scheme[..3]
            )),
        _ => bad(format!("`{scheme}` is not a kind of socket")).hint(
            match nearest(scheme, SCHEMES.iter().copied()) {
                Some(scheme) => format!("did you mean `{scheme}`?"),
                None => known(),
            },
        ),
    }
}

fn known() -> String {
    let words = SCHEMES.iter().map(|scheme| match transport(scheme) {
        Some(_) => format!("`{scheme}://`"),
        None => format!("`{scheme}:`"),
    });
    format!("known here: {}", words.collect::<Vec<_>>().join(", "))
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
            Err(value_error) => format!(
                "{:?}: {}",
                value_error.kind,
                value_error.hint.unwrap_or_default()
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
            ("[fe80::1%eth0]:80", "Tcp [fe80::1%eth0]:80"),
            ("udp://[fe80::1%2]:53", "Udp [fe80::1%2]:53"),
            ("udp://[ff02::1%eth0]:53", "Udp [ff02::1%eth0]:53"),
            ("127.0.0.1:80-81", "Tcp 127.0.0.1:80, Tcp 127.0.0.1:81"),
            ("[::1]:80-80", "Tcp [::1]:80"),
            (
                ":80-81",
                "Tcp [::]:80 dual optional, Tcp [::]:81 dual optional",
            ),
            (
                "udp://localhost:1-2",
                "Udp 127.0.0.1:1, Udp [::1]:1 optional, Udp 127.0.0.1:2, Udp [::1]:2 optional",
            ),
            ("mptcp://127.0.0.1:80", "Mptcp 127.0.0.1:80"),
            ("sctp://:80", "Sctp [::]:80 dual optional"),
            ("udplite://[::1]:80", "UdpLite [::1]:80"),
            ("fifo:/run//a b", "Fifo /run/a b"),
            ("mqueue:/a.b-c", "MessageQueue /a.b-c"),
            ("special:/dev/input/event0", "Special /dev/input/event0"),
            ("netlink:kobject-uevent 1", "Netlink kobject-uevent 1"),
            ("netlink:route", "Netlink route 0"),
            ("netlink:16 7", "Netlink generic 7"),
            ("netlink:route 0x551", "Netlink route 0x551"),
            ("netlink:31", "Netlink 31 0"),
            ("vsock:2:80", "VsockStream vsock:2:80"),
            ("vsock::4294967295", "VsockStream vsock::4294967295"),
            ("vsock:any:80", "VsockStream vsock::80"),
            ("vsock-dgram:host:80", "VsockDatagram vsock:2:80"),
            ("vsock-seqpacket:local:80", "VsockSeqPacket vsock:1:80"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
        for text in ["1.2.3.4:0", "0.0.0.0:80", "255.255.255.255:65535"] {
            assert_eq!(shown(text), format!("Tcp {text}"));
            assert_eq!(shown(&format!("tcp://{text}")), shown(text));
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
            ("8080:80", "`:8080`"),
            ("127.0.0.1:8080:80", "`127.0.0.1:8080`"),
            ("127.0.0.1:53:53/udp", "`udp://127.0.0.1:53`"),
            ("53:53/udp", "`udp://:53`"),
            ("fe80::1%eth0:80", "`[fe80::1%eth0]:80`"),
            ("127.0.0.1:${PORT:-8080}", "the address itself"),
            (":$PORT", "the address itself"),
            ("127.0.0.1:80, [::1]:80", "or a list"),
            ("443 ssl", "keys beside it"),
            ("[::]:80 ipv6only=on", "keys beside it"),
            ("[::ffff:1.2.3.4]:80", "`1.2.3.4:80`"),
            ("[fe80::1]:80", "`[fe80::1%IFACE]:80`"),
            ("udp://[ff02::1]:80", "`udp://[ff02::1%IFACE]:80`"),
            ("[2001:db8::1%eth0]:80", "`[2001:db8::1]:80`"),
            ("[fe80::1%]:80", "`[fe80::1%eth0]:80`"),
            ("[fe80::1%0]:80", "`[fe80::1%eth0]:80`"),
            ("[fe80::1%sixteen-letters-]:80", "`[fe80::1%eth0]:80`"),
            ("127.0.0.1:81-80", "`80-81`"),
            ("127.0.0.1:0-80", "start at 1"),
            ("127.0.0.1:80-", "`9000-9003`"),
            ("127.0.0.1:-80", "`9000-9003`"),
            ("127.0.0.1:1-2-3", "as a number"),
            ("127.0.0.1:1-65536", "0 to 65535"),
            ("127.0.0.1:1-4097", "at most 4096"),
            ("9000-9003", "`:9000-9003` for every interface"),
            ("mptcp:127.0.0.1:80", "`mptcp://127.0.0.1:80`"),
            ("udp:53", "`udp://:53`"),
            (":53/udp", "`udp://:53`"),
            ("53/udp", "`udp://:53`"),
            ("127.0.0.1:53/tcp", "`tcp://127.0.0.1:53`"),
            ("mtpcp://127.0.0.1:80", "`mptcp`"),
            ("ftp://127.0.0.1:80", "known here: `tcp://`"),
            ("fifo:x", "`fifo:/path`"),
            ("fifo:/run/", "`fifo:/run/listend.fifo`"),
            ("special:@x", "`special:/path`"),
            ("mqueue:x", "`mqueue:/x`"),
            ("mqueue://x", "`mqueue:/x`"),
            ("mqueue:/", "`mqueue:/jobs`|`mqueue:/name`"),
            ("mqueue:/a/b", "`mqueue:/jobs`"),
            (&format!("mqueue:/{}", "x".repeat(256)), "1 to 255"),
            ("netlink:", "`netlink:kobject-uevent 1`"),
            ("netlink:kobject-event 1", "`kobject-uevent`"),
            ("netlink:32", "known here: `audit`"),
            ("netlink:route one", "0 to 4294967295"),
            ("netlink:route 0x100000000", "0x551"),
            ("netlink:route 1 2", "`netlink:kobject-uevent 1`"),
            ("vsock:80", "`vsock::80`"),
            ("vsock:", "`vsock:CID:PORT`"),
            ("vsock://2:80", "`vsock:2:80`"),
            ("vsock:hots:80", "`host`"),
            ("vsock:-1:80", "0 to 4294967295"),
            ("vsock:2:4294967296", "0 to 4294967295"),
            ("vsock:2:080", "0 to 4294967295"),
            ("tpc://:80", "`tcp`"),
            ("unxi:/x", "`unix`"),
            ("tcp:127.0.0.1:80", "`tcp://127.0.0.1:80`"),
            ("http://127.0.0.1:80/", "`127.0.0.1:80`"),
            ("ssl:127.0.0.1:443", "`127.0.0.1:443`"),
            ("tls://[::1]:443", "`[::1]:443`"),
            ("127.0.0.1:80,127.0.0.1:81", "a list"),
            ("127.0.0.1:80,81", "a list"),
            ("unix:x.sock", "`unix:/path`"),
            ("unix:/run/", "`unix:/run/listend.sock`"),
            ("unix:@", "`unix:@name`"),
            ("", "`127.0.0.1:8080`"),
            ("127.0.0.1:80 ", "a list"),
            (&format!("unix:@{}", "x".repeat(108)), "at most 107"),
            (&format!("unix:/{}", "x".repeat(107)), "at most 82"),
            (&format!("unix:/{}x", "x/".repeat(2048)), "at most 4095"),
            (&format!("fifo:/{}x", "x/".repeat(2048)), "at most 4095"),
        ] {
            let got = shown(text);
            let fits = want.split('|').any(|want| got.contains(want));
            assert!(fits && parse(text, V6::Only).is_err(), "{text}: {got}");
        }
    }

    #[test]
    fn long_paths_end_in_short_names() {
        let folder = "x".repeat(200);
        let last = |length| format!("unix-dgram:/{folder}/{}", "y".repeat(length));
        assert!(parse(&last(82), V6::Only).is_ok());
        assert!(parse(&last(83), V6::Only).is_err());
        // What fits into the kernel's structure needs no folder.
        assert!(parse(&format!("unix:/{}", "y".repeat(106)), V6::Only).is_ok());
        let range = parse("127.0.0.1:1-4096", V6::Only).unwrap();
        assert_eq!(range.len(), 4096);
    }
}
