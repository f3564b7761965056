//! One listener as standard input: FastCGI's FCGI_LISTENSOCK_FILENO, inetd's `wait`,
//! java.lang.System.inheritedChannel().

use super::dialect::{Dialect, any};

/// FastCGI programs end at EAGAIN, so the socket is blocking.
pub static DIALECT: Dialect = Dialect {
    keyword: "fd0",
    synonyms: &["fastcgi", "fcgi", "spawn-fcgi", "inherited-channel"],
    first_fd: 0,
    default_nonblocking: false,
    connections: false,
    stores: false,
    acknowledges: false,
    combines: false,
    check: any,
    variables: |_| Vec::new(),
};
