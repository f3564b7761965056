//! The protocol by which puma hands its listeners to its successor.

use super::dialect::{Dialect, Name, Passed, Variable, named_stream};
use super::{FIRST_FD, Value};

/// puma sets O_NONBLOCK itself.
pub static DIALECT: Dialect = Dialect {
    keyword: "puma",
    synonyms: &["puma_inherit"],
    first_fd: FIRST_FD,
    default_nonblocking: false,
    connections: false,
    stores: false,
    acknowledges: false,
    combines: true,
    check: named_stream,
    variables,
};

/// What follows the number is the text of the `bind` that takes it.
fn variables(passed: &Passed<'_>) -> Vec<Variable> {
    let sockets = passed.sockets.iter().enumerate();
    sockets
        .map(|(index, (socket, number))| {
            let bind = match socket.name {
                Name::Inet(address) => format!("tcp://{address}"),
                Name::Path(path) => format!("unix://{}", path.display()),
                // Refused by the check.
                Name::Abstract(_) | Name::Other => socket.listener.to_owned(),
            };
            let name = format!("PUMA_INHERIT_{index}").into();
            (name, Value::Text(format!("{number}:{bind}")))
        })
        .collect()
}
