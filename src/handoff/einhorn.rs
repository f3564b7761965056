//! The protocol of einhorn(1).

use super::dialect::{Dialect, Name, Passed, Socket, Variable};
use super::{FIRST_FD, Value};
use std::borrow::Cow;

/// Blocking, unless einhorn is told otherwise.
pub static DIALECT: Dialect = Dialect {
    keyword: "einhorn",
    synonyms: &["stripe"],
    first_fd: FIRST_FD,
    default_nonblocking: false,
    connections: false,
    stores: false,
    acknowledges: true,
    combines: true,
    check,
    variables,
};

/// The family of a socket, as its workers look it up in the `socket` module of their language.
fn family(socket: &Socket<'_>) -> &'static str {
    match socket.name {
        Name::Inet(address) if address.is_ipv6() => "AF_INET6",
        Name::Inet(_) => "AF_INET",
        Name::Path(_) | Name::Abstract(_) | Name::Other => "AF_UNIX",
    }
}

fn check(socket: &Socket<'_>) -> Result<(), Cow<'static, str>> {
    match socket.scheme {
        "tcp" | "mptcp" | "unix" => Ok(()),
        other => {
            Err(format!("its workers take listening TCP and unix sockets, not {other}").into())
        }
    }
}

/// A worker compares EINHORN_MASTER_PID with its parent. EINHORN_FDS is the old form of the numbers. Some
/// libraries fail without EINHORN_SOCK_PATH, be it waited for what they say there or not.
fn variables(passed: &Passed<'_>) -> Vec<Variable> {
    let numbers = passed.sockets.iter().map(|(_, number)| number.to_string());
    let numbers: Vec<String> = numbers.collect();
    let mut all: Vec<(Cow<'static, str>, String)> = vec![
        ("EINHORN_MASTER_PID".into(), passed.to.listend.to_string()),
        ("EINHORN_CHILD_INDEX".into(), passed.to.instance.to_string()),
        ("EINHORN_FD_COUNT".into(), numbers.len().to_string()),
        ("EINHORN_FDS".into(), numbers.join(" ")),
    ];
    let at = passed.to.acknowledge_at.map(str::to_owned);
    all.extend(at.map(|path| ("EINHORN_SOCK_PATH".into(), path)));
    for (index, (socket, number)) in passed.sockets.iter().enumerate() {
        let family = family(socket).to_owned();
        all.push((format!("EINHORN_FD_{index}").into(), number.to_string()));
        all.push((format!("EINHORN_FD_FAMILY_{index}").into(), family));
    }
    let all = all.into_iter();
    all.map(|(name, text)| (name, Value::Text(text))).collect()
}
