//! No variables: the command or the environment tells the numbers by placeholders.

use super::FIRST_FD;
use super::dialect::{Dialect, any};

/// As little as there can be.
pub static DIALECT: Dialect = Dialect {
    keyword: "none",
    synonyms: &["placeholders", "argv", "off"],
    first_fd: FIRST_FD,
    default_nonblocking: false,
    connections: true,
    stores: false,
    acknowledges: false,
    combines: false,
    check: any,
    variables: |_| Vec::new(),
};
