//! The protocol of inetd(8): the socket is standard input and, for a connection, standard output too.
//!
//! No variable says so, because nothing has to be told.

use super::dialect::{Descriptors, Dialect, FdLayout};

/// Standard input for a socket without connections, or whose connections the program accepts itself
/// (inetd's `wait`); standard output and error stay the log. Both for a connection, where standard
/// error stays the log: what a program writes there must not reach its client.
pub static DIALECT: Dialect = Dialect {
    keyword: "inetd",
    synonyms: &["stdin", "stdio", "tcpserver", "ucspi", "xinetd"],
    first_fd: 0,
    default_nonblocking: false,
    one_socket: true,
    layout,
};

fn layout(inputs: &Descriptors<'_>) -> FdLayout {
    let fds = match inputs.connection {
        Some(fd) => vec![fd; 2],
        // There is no socket at all while an optional listener is missing: 0 stays /dev/null.
        None => inputs
            .sockets
            .iter()
            .take(1)
            .map(|socket| socket.fd)
            .collect(),
    };
    FdLayout {
        targets: (DIALECT.first_fd..).take(fds.len()).collect(),
        fds,
        numbers: vec![DIALECT.first_fd; inputs.sockets.len()],
        variables: Vec::new(),
    }
}
