//! Addresses of the internet: host, port or range of ports, and interface.

use super::address_parsed::{AddressResult, V6, bad};
use super::model::{Endpoint, Transport};
use super::scalar;
use super::value_error::ValueError;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

/// So many sockets may one address stand for, so that a slip of the pen does not ask for 65,535.
const RANGE_MAX: usize = 4096;

/// A host part, resolved to addresses, before its ports are known.
struct Host {
    ip: IpAddr,
    scope: Option<String>,
    v6: V6,
    /// Whether the machine may lack it.
    optional: bool,
}

impl Host {
    fn new(ip: impl Into<IpAddr>) -> Host {
        Host {
            ip: ip.into(),
            scope: None,
            v6: V6::Only,
            optional: false,
        }
    }
}

/// Reads what most addresses are, an IPv4 address and a port, without looking for anything else that it might be.
pub(super) fn plain(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let has_leading_zero = port.len() > 1 && port.starts_with('0');
    let is_number = !has_leading_zero && port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| is_number)?;
    let ip: Ipv4Addr = host.parse().ok()?;
    Some(Endpoint::Inet {
        transport: Transport::Tcp,
        address: SocketAddr::from((ip, port)),
        v6_only: true,
        optional: false,
        scope: None,
    })
}

/// Reads `HOST:PORT` or `HOST:FROM-TO`; `scheme` is what stood in front, for the hints.
pub(super) fn parse(
    text: &str,
    scheme: &str,
    transport: Transport,
    rest: &str,
    v6: V6,
) -> AddressResult<Vec<Endpoint>> {
    let (host, port) = host_and_port(text, scheme, rest)?;
    let ports = ports(text, port)?;
    let hosts = hosts(text, scheme, host, port, v6)?;
    let mut endpoints = Vec::with_capacity(ports.len() * hosts.len());
    for port in ports {
        endpoints.extend(hosts.iter().map(|host| Endpoint::Inet {
            transport,
            address: SocketAddr::new(host.ip, port),
            v6_only: host.v6 == V6::Only || host.ip.is_ipv4(),
            optional: host.optional,
            scope: host.scope.clone(),
        }));
    }
    Ok(endpoints)
}

fn hosts(text: &str, scheme: &str, host: &str, port: &str, v6: V6) -> AddressResult<Vec<Host>> {
    Ok(match host {
        "" | "*" => vec![Host {
            v6: V6::AndV4,
            optional: true,
            ..Host::new(Ipv6Addr::UNSPECIFIED)
        }],
        "localhost" => vec![
            Host::new(Ipv4Addr::LOCALHOST),
            Host {
                optional: true,
                ..Host::new(Ipv6Addr::LOCALHOST)
            },
        ],
        _ if host.starts_with('[') => {
            let (ip, scope) = ipv6(text, scheme, &host[1..host.len() - 1], port, v6)?;
            vec![Host {
                scope,
                v6,
                ..Host::new(ip)
            }]
        }
        _ => match host.parse::<Ipv4Addr>() {
            Ok(ip) => vec![Host::new(ip)],
            Err(_) => return Err(no_host(text, scheme, host, port)),
        },
    })
}

/// Splits at the last colon; a host with brackets keeps them.
fn host_and_port<'a>(text: &str, scheme: &str, rest: &'a str) -> AddressResult<(&'a str, &'a str)> {
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
    if rest.starts_with(|c: char| c.is_ascii_digit())
        && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-')
    {
        // What is wrong with the port itself comes first.
        ports(text, rest)?;
        return Err(bad(format!("`{text}` is only a port")).hint(format!(
            "write `{scheme}:{rest}` for every interface, `{scheme}127.0.0.1:{rest}` for this machine only"
        )));
    }
    let Some((host, port)) = rest.rsplit_once(':') else {
        return Err(if rest.is_empty() || rest.parse::<Ipv4Addr>().is_ok() {
            no_port(rest)
        } else {
            bad(format!("`{text}` is not an address"))
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
        } else if let Some((host, outer)) = host.rsplit_once(':')
            && scalar::is_digits(outer)
            && scalar::is_digits(port)
            && host.parse::<Ipv4Addr>().is_ok()
        {
            mapped(text, scheme, host, outer)
        } else if host
            .split_once('%')
            .is_some_and(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok())
        {
            bad(format!(
                "`{text}`: an IPv6 address with a port needs brackets"
            ))
            .hint(format!("write `{scheme}[{host}]:{port}`"))
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

/// `80`, or `9000-9003`.
fn ports(text: &str, port: &str) -> AddressResult<RangeInclusive<u16>> {
    let Some((from, to)) = port.split_once('-') else {
        let port = port_number(text, port)?;
        return Ok(port..=port);
    };
    if from.is_empty() || to.is_empty() {
        return Err(bad(format!("`{text}`: `{port}` is not a range of ports"))
            .hint("write the first and the last port, like `9000-9003`"));
    }
    let (first, last) = (port_number(text, from)?, port_number(text, to)?);
    if first == 0 {
        return Err(bad(format!("`{text}`: a range cannot start at port 0"))
            .hint("0 lets the kernel choose a port; write it alone, or start at 1"));
    }
    if first > last {
        return Err(
            bad(format!("`{text}`: the range of ports ends below its start"))
                .hint(format!("write `{to}-{from}`")),
        );
    }
    let count = usize::from(last - first) + 1;
    if count > RANGE_MAX {
        return Err(bad(format!("`{text}` has {count} ports"))
            .hint(format!("an address has at most {RANGE_MAX}; write several")));
    }
    Ok(first..=last)
}

fn port_number(text: &str, port: &str) -> AddressResult<u16> {
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

/// The address between the brackets, and the interface behind its `%`.
fn ipv6(
    text: &str,
    scheme: &str,
    inner: &str,
    port: &str,
    v6: V6,
) -> AddressResult<(Ipv6Addr, Option<String>)> {
    let (address, scope) = match inner.split_once('%') {
        Some((address, scope)) => (address, Some(scope)),
        None => (inner, None),
    };
    let Ok(ip) = address.parse::<Ipv6Addr>() else {
        let value_error = bad(format!("`{text}`: `{inner}` is not an IPv6 address"));
        return Err(if inner.is_empty() {
            value_error.hint(format!(
                "write `{scheme}[::]:{port}` for every IPv6 interface"
            ))
        } else if inner.parse::<Ipv4Addr>().is_ok() {
            value_error.hint(format!("write `{scheme}{inner}:{port}`"))
        } else {
            value_error
        });
    };
    // bind(2) refuses a v4-mapped address on a socket that takes IPv6 only.
    if let (Some(v4), V6::Only) = (ip.to_ipv4_mapped(), v6) {
        return Err(bad(format!("`{text}` is an IPv4-mapped address"))
            .hint(format!("write `{scheme}{v4}:{port}`")));
    }
    match scope {
        None if is_link_local(ip) => Err(bad(format!(
            "`{text}`: a link-local address needs an interface"
        ))
        .hint(format!(
            "write `{scheme}[{address}%IFACE]:{port}` with the name of the interface"
        ))),
        None => Ok((ip, None)),
        Some(_) if !is_link_local(ip) => Err(bad(format!(
            "`{text}`: only a link-local address has an interface"
        ))
        .hint(format!(
            "write `{scheme}[{address}]:{port}`; the key `bind_to_device` ties a listener to an interface"
        ))),
        Some(scope) => match scalar::interface(scope) {
            Ok(()) => Ok((ip, Some(scope.to_owned()))),
            Err(why) => Err(bad(format!("`{text}`: `{scope}` is not an interface: {why}"))
                .hint(format!("write it like `{scheme}[{address}%eth0]:{port}`"))),
        },
    }
}

/// Whether bind(2) wants a scope id: unicast in fe80::/10, and the multicast groups of a link.
fn is_link_local(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    first & 0xffc0 == 0xfe80 || matches!(first & 0xff0f, 0xff01 | 0xff02)
}

/// `8080:80`, as docker has it: a port of the host, and one of the container.
fn mapped(text: &str, scheme: &str, host: &str, port: &str) -> ValueError {
    bad(format!("`{text}` has two ports, and listend maps none"))
        .hint(format!("write `{scheme}{host}:{port}`"))
}

fn no_host(text: &str, scheme: &str, host: &str, port: &str) -> ValueError {
    if scalar::is_digits(host) && scalar::is_digits(port) {
        return mapped(text, scheme, "", host);
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let value_error = bad(format!("`{text}`: `{host}` is not an IPv4 address"));
        let decimal: Vec<&str> = host
            .split('.')
            .map(|part| match part.trim_start_matches('0') {
                "" if !part.is_empty() => "0",
                plain => plain,
            })
            .collect();
        let decimal = decimal.join(".");
        return if decimal != host && decimal.parse::<Ipv4Addr>().is_ok() {
            value_error.hint(format!(
                "write `{scheme}{decimal}:{port}`; some programs read leading zeros as octal"
            ))
        } else {
            value_error.hint("an IPv4 address is four numbers from 0 to 255, like `127.0.0.1`")
        };
    }
    if host.eq_ignore_ascii_case("localhost") {
        return bad(format!("`{text}` is not an address"))
            .hint(format!("write `{scheme}localhost:{port}`"));
    }
    bad(format!("`{text}`: host names are not resolved")).hint(format!(
        "write the address of `{host}` itself, `{scheme}:{port}` for every interface, or `{scheme}localhost:{port}`"
    ))
}
