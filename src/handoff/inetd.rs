//! The protocol of inetd(8): the socket is standard input and, for a connection, standard output too.
//!
//! No variable says so, because nothing has to be told.

/// The number of the first descriptor.
pub const FIRST_FD: i32 = 0;

/// How many numbers, from [`FIRST_FD`] on, one socket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What has no connections, or whose connections the program accepts itself (inetd's `wait`):
    /// standard input alone. Standard output and error stay the log.
    Socket,
    /// Standard input and output. Standard error stays the log: what a program writes there must not
    /// reach its client.
    Connection,
}

impl Kind {
    /// That number.
    pub const fn count(self) -> usize {
        match self {
            Kind::Socket => 1,
            Kind::Connection => 2,
        }
    }
}
