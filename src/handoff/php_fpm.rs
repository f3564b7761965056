//! The protocol by which php-fpm hands its listeners to its successor (sapi/fpm/fpm/fpm_sockets.c).

use super::dialect::{Dialect, Name, Passed, Socket, Variable, separable};
use super::{FIRST_FD, Value};
use std::borrow::Cow;

/// Blocking: with O_NONBLOCK every idle child of php-fpm exits at once.
pub static DIALECT: Dialect = Dialect {
    keyword: "php-fpm",
    synonyms: &["fpm", "php_fpm", "phpfpm", "php"],
    first_fd: FIRST_FD,
    default_nonblocking: false,
    connections: false,
    stores: false,
    acknowledges: false,
    combines: true,
    check,
    variables,
};

/// So many sockets are in one variable (FPM_ENV_SOCKET_SET_SIZE).
const IN_ONE: usize = 128;

/// A path with a colon in it is an address to php-fpm.
fn check(socket: &Socket<'_>) -> Result<(), Cow<'static, str>> {
    separable(socket, &[',', '=', ':'])
}

/// The names are compared letter by letter with what php-fpm makes of its own `listen`: no brackets
/// around an IPv6 address.
fn variables(passed: &Passed<'_>) -> Vec<Variable> {
    let entry = |(socket, number): &(Socket<'_>, i32)| match socket.name {
        Name::Inet(address) => format!("{}:{}={number}", address.ip(), address.port()),
        Name::Path(path) => format!("{}={number}", path.display()),
        // Refused by the check.
        Name::Abstract(_) | Name::Other => format!("{}={number}", socket.listener),
    };
    let sets = passed.sockets.chunks(IN_ONE).enumerate();
    sets.map(|(index, set)| {
        let name = match index {
            0 => Cow::Borrowed("FPM_SOCKETS"),
            _ => format!("FPM_SOCKETS_{index}").into(),
        };
        let entries: Vec<String> = set.iter().map(entry).collect();
        (name, Value::Text(entries.join(",")))
    })
    .collect()
}
