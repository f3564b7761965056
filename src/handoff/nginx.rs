//! The protocol by which nginx hands its listeners to its successor, and Angie, which calls the variable
//! otherwise.

use super::dialect::{Dialect, Passed, Variable, named_stream};
use super::{FIRST_FD, Value};

/// nginx does not set O_NONBLOCK on what it inherits, and its workers get stuck in accept(2) without.
pub static DIALECT: Dialect = Dialect {
    keyword: "nginx",
    synonyms: &["angie", "freenginx", "tengine", "openresty"],
    first_fd: FIRST_FD,
    default_nonblocking: true,
    connections: false,
    stores: false,
    acknowledges: false,
    combines: true,
    check: named_stream,
    variables,
};

/// Each number with a separator behind it: nginx drops the last one without.
fn variables(passed: &Passed<'_>) -> Vec<Variable> {
    if passed.sockets.is_empty() {
        return Vec::new();
    }
    let numbers = passed
        .sockets
        .iter()
        .map(|(_, number)| format!("{number};"));
    let numbers: String = numbers.collect();
    ["NGINX", "ANGIE"]
        .map(|name| (name.into(), Value::Text(numbers.clone())))
        .into()
}
