//! What events are about: the 64 bits that epoll keeps for each descriptor.

use crate::core::ProcessId;
use crate::plan::SocketKey;

/// The id of a client; never reused.
pub(super) type ClientId = u64;

/// The id of a helper query; never reused.
pub(super) type QueryId = u64;

/// What an epoll event is about; packed into the 64 bits that epoll keeps for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Signals,
    /// Children ended of which no other descriptor tells.
    Children,
    Status(ProcessId),
    Exit(ProcessId),
    /// A listener: that it was shut down, or that a client waits.
    Socket(SocketKey),
    /// Something was removed beside a unix path.
    Paths,
    /// The machine's addresses changed.
    Addresses,
    /// Something was mounted or unmounted.
    Mounts,
    /// The control socket.
    Control(ControlPart),
    /// Workers have written something, or standard output takes more of it.
    Output,
    /// The process that writes the files of this user's workers has answered, or ended.
    Writer(u32),
    /// A worker tells something (sd_notify(3)).
    Notify(NotifyPart),
    /// Standard error takes more of the log.
    Log,
    /// The keeper has closed what it was told to give up.
    Keeper,
}

impl Token {
    pub(super) fn pack(self) -> u64 {
        match self {
            Token::Signals => 0,
            Token::Status(process) => process.0 << 4 | 1,
            Token::Exit(process) => process.0 << 4 | 2,
            Token::Socket(key) => u64::from(key.0) << 4 | 3,
            Token::Paths => 4,
            Token::Addresses => 5,
            Token::Children => 6,
            Token::Writer(user) => u64::from(user) << 4 | 7,
            Token::Control(part) => part.pack() << 4 | 8,
            Token::Output => 9,
            Token::Notify(part) => part.pack() << 4 | 10,
            Token::Log => 11,
            Token::Keeper => 12,
            Token::Mounts => 13,
        }
    }

    pub(super) fn unpack(data: u64) -> Token {
        match data & 15 {
            1 => Token::Status(ProcessId(data >> 4)),
            2 => Token::Exit(ProcessId(data >> 4)),
            3 => Token::Socket(SocketKey((data >> 4) as u32)),
            4 => Token::Paths,
            5 => Token::Addresses,
            6 => Token::Children,
            7 => Token::Writer((data >> 4) as u32),
            8 => Token::Control(ControlPart::unpack(data >> 4)),
            9 => Token::Output,
            10 => Token::Notify(NotifyPart::unpack(data >> 4)),
            11 => Token::Log,
            12 => Token::Keeper,
            13 => Token::Mounts,
            _ => Token::Signals,
        }
    }
}

/// What an epoll event of the control socket is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ControlPart {
    /// A client connects.
    Accept,
    /// A client.
    Client(ClientId),
    /// The output of a process that finds something out.
    QueryOutput(QueryId),
    /// Its end.
    QueryEnd(QueryId),
}

impl ControlPart {
    pub(super) fn pack(self) -> u64 {
        match self {
            ControlPart::Accept => 0,
            ControlPart::Client(id) => id << 2 | 1,
            ControlPart::QueryOutput(id) => id << 2 | 2,
            ControlPart::QueryEnd(id) => id << 2 | 3,
        }
    }

    pub(super) fn unpack(data: u64) -> ControlPart {
        match data & 3 {
            1 => ControlPart::Client(data >> 2),
            2 => ControlPart::QueryOutput(data >> 2),
            3 => ControlPart::QueryEnd(data >> 2),
            _ => ControlPart::Accept,
        }
    }
}

/// What an event about what workers tell is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotifyPart {
    /// Messages wait.
    Socket,
    /// A process has written to the descriptor of `ready: fd N`, or has closed it.
    Newline(ProcessId),
    /// The other end of a stored descriptor was closed.
    Stored(u64),
    /// Somebody connects to the socket of einhorn.
    Acks,
    /// Somebody who has connected there says something, or has gone.
    AckClient(u64),
}

impl NotifyPart {
    pub(super) fn pack(self) -> u64 {
        match self {
            NotifyPart::Socket => 0,
            NotifyPart::Newline(process) => process.0 << 3 | 1,
            NotifyPart::Stored(id) => id << 3 | 2,
            NotifyPart::Acks => 3,
            NotifyPart::AckClient(id) => id << 3 | 4,
        }
    }

    pub(super) fn unpack(data: u64) -> NotifyPart {
        match data & 7 {
            1 => NotifyPart::Newline(ProcessId(data >> 3)),
            2 => NotifyPart::Stored(data >> 3),
            3 => NotifyPart::Acks,
            4 => NotifyPart::AckClient(data >> 3),
            _ => NotifyPart::Socket,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_from_their_numbers() {
        let control = [
            ControlPart::Accept,
            ControlPart::Client(7),
            ControlPart::QueryOutput(1 << 40),
            ControlPart::QueryEnd(u64::MAX >> 6),
        ];
        let notify = [
            NotifyPart::Socket,
            NotifyPart::Newline(ProcessId(0)),
            NotifyPart::Newline(ProcessId(u64::MAX >> 7)),
            NotifyPart::Stored(7),
            NotifyPart::Acks,
            NotifyPart::AckClient(7),
        ];
        let control = control.map(Token::Control).into_iter();
        let others = [
            Token::Writer(0),
            Token::Writer(u32::MAX),
            Token::Output,
            Token::Mounts,
        ];
        let tokens = control.chain(notify.map(Token::Notify)).chain(others);
        for token in tokens {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
