//! The names of what is kept.

use std::fmt;
use std::str::FromStr;

/// What a kept descriptor is for. As text it is FDNAME= of sd_notify(3).
///
/// The texts are short: those of 20,000 descriptors have to fit into LISTEN_FDNAMES, which may have 128 KiB
/// (MAX_ARG_STRLEN, execve(2)).
///
/// Where not all of it can be kept, what is less in this order is: without the facts nothing means anything, without
/// a socket its clients are refused, and a process is found by its number as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// The memory file with the facts.
    Snapshot,
    /// Some held sockets of listeners. Several have one name, so that a message to the keeper has many.
    Sockets(u32),
    /// The maps by which the packets of this socket are steered.
    Flows(u32),
    /// The socket at which workers notify.
    Notify,
    /// The socket at which workers of einhorn say that they are up.
    Acks,
    /// The control socket.
    Control,
    /// What belongs to a process: its pidfd, and the pipes that it writes to.
    Process(u64),
    /// A descriptor that a worker has stored.
    Stored(u64),
    /// A connection that no process has yet.
    Connection(u64),
}

/// The text is no name of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoName;

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Snapshot => f.write_str("listend-snapshot"),
            Name::Notify => f.write_str("listend-notify"),
            Name::Acks => f.write_str("listend-einhorn"),
            Name::Control => f.write_str("listend-control"),
            Name::Sockets(group) => write!(f, "l.{group:x}"),
            Name::Process(id) => write!(f, "p.{id:x}"),
            Name::Flows(key) => write!(f, "b.{key:x}"),
            Name::Connection(id) => write!(f, "c.{id:x}"),
            Name::Stored(id) => write!(f, "f.{id:x}"),
        }
    }
}

impl FromStr for Name {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Name, NoName> {
        match text {
            "listend-snapshot" => return Ok(Name::Snapshot),
            "listend-notify" => return Ok(Name::Notify),
            "listend-einhorn" => return Ok(Name::Acks),
            "listend-control" => return Ok(Name::Control),
            _ => {}
        }
        let (kind, number) = text.split_once('.').ok_or(NoName)?;
        let id = u64::from_str_radix(number, 16).map_err(|_| NoName)?;
        let name = match kind {
            "l" => Name::Sockets(u32::try_from(id).map_err(|_| NoName)?),
            "b" => Name::Flows(u32::try_from(id).map_err(|_| NoName)?),
            "p" => Name::Process(id),
            "c" => Name::Connection(id),
            "f" => Name::Stored(id),
            _ => return Err(NoName),
        };
        // One text each: `p.0A` and `p.+a` are none.
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(NoName)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let names = [
            Name::Snapshot,
            Name::Notify,
            Name::Acks,
            Name::Control,
            Name::Sockets(0),
            Name::Sockets(u32::MAX),
            Name::Flows(3),
            Name::Process(0),
            Name::Process(u64::MAX),
            Name::Connection(1),
            Name::Stored(10),
        ];
        for name in names {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    }

    #[test]
    fn the_name_of_a_listener_is_none() {
        for text in [
            "",
            "web",
            "l",
            "l.",
            "l.x",
            "p.-1",
            "p.0A",
            "p.+a",
            "p.00",
            "l.1ffffffff",
            "x.1",
        ] {
            assert_eq!(text.parse::<Name>(), Err(NoName), "{text}");
        }
    }
}
