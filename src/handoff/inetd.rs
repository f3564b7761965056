//! The protocol of inetd(8): the socket is standard input and, for a connection, standard output too.
//!
//! No variable says so, because nothing has to be told.

use super::dialect::{Dialect, any};

/// Standard input for a socket without connections, or whose connections the program accepts itself
/// (inetd's `wait`); standard output and error stay the log. Both for a connection.
pub static DIALECT: Dialect = Dialect {
    keyword: "inetd",
    synonyms: &["stdin", "stdio", "tcpserver", "ucspi", "xinetd"],
    first_fd: 0,
    default_nonblocking: false,
    connections: true,
    stores: false,
    acknowledges: false,
    combines: false,
    check: any,
    variables: |_| Vec::new(),
};
