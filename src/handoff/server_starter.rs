//! The protocol of Server::Starter (start_server(1)).

use super::dialect::{Dialect, Name, Passed, Socket, Variable, separable};
use super::{FIRST_FD, Value};
use std::borrow::Cow;

/// Blocking, as start_server(1) passes them.
pub static DIALECT: Dialect = Dialect {
    keyword: "server-starter",
    synonyms: &[
        "start_server",
        "server_starter",
        "starlet",
        "starman",
        "h2o",
    ],
    first_fd: FIRST_FD,
    default_nonblocking: false,
    connections: false,
    stores: false,
    acknowledges: false,
    combines: true,
    check,
    variables,
};

fn check(socket: &Socket<'_>) -> Result<(), Cow<'static, str>> {
    separable(socket, &[';', '='])
}

fn variables(passed: &Passed<'_>) -> Vec<Variable> {
    if passed.sockets.is_empty() {
        return Vec::new();
    }
    let entries = passed
        .sockets
        .iter()
        .map(|(socket, number)| match socket.name {
            Name::Inet(address) => format!("{address}={number}"),
            Name::Path(path) => format!("{}={number}", path.display()),
            // Refused by the check.
            Name::Abstract(_) | Name::Other => format!("{}={number}", socket.listener),
        });
    let entries: Vec<String> = entries.collect();
    let generation = passed.to.generation.to_string();
    vec![
        ("SERVER_STARTER_PORT".into(), Value::Text(entries.join(";"))),
        ("SERVER_STARTER_GENERATION".into(), Value::Text(generation)),
    ]
}
