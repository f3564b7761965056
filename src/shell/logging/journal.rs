//! The journal by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): entries with fields, and
//! messages with line ends.

use super::entry::{Entry, IDENTIFIER};
use crate::sys;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::poll::{PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg, setsockopt, sockopt};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Where the journal takes entries.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// As much as sd_journal_send(3) asks for: how many entries may wait for the journal.
const SEND_BUFFER: usize = 8 << 20;
/// The longest wait for a journal that hangs, where listend may wait: before and after its loop.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often, in milliseconds, and how many times at most it is looked at whether the journal has
/// read everything.
const LOOKS: (u8, usize) = (1, 500);

/// The fixed ids of what somebody may want to be woken for (MESSAGE_ID in
/// systemd.journal-fields(7)). They are in listend(8) and never change.
const WORKER_FAILED: &str = "d85203c3c9724d359d1b6d878f44220b";
const ROLLED_BACK: &str = "06bfea9332f749a588a383f5eb26670f";
const BIND_FAILED: &str = "6d87d1becdd5495992a19fbd3923bde0";

/// A way to the journal. There is no connection that could break: each entry goes to whoever has
/// the path by then.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// For the loop: an entry for which there is no room is an error at once.
    pub(super) fn open() -> io::Result<Journal> {
        let journal = Journal(UnixDatagram::unbound()?);
        journal.0.set_nonblocking(true)?;
        // It works with a smaller one.
        let _smaller = setsockopt(&journal.0, sockopt::SndBuf, &SEND_BUFFER);
        Ok(journal)
    }

    /// For those who have time: waits a little for room.
    pub(super) fn open_patient() -> io::Result<Journal> {
        let journal = Journal(UnixDatagram::unbound()?);
        journal.0.set_write_timeout(Some(PATIENCE))?;
        Ok(journal)
    }

    /// Whether there is a journal.
    pub(super) fn probe() -> io::Result<()> {
        UnixDatagram::unbound()?.connect(SOCKET)
    }

    /// Sends an entry.
    pub(super) fn send(&self, entry: &Entry) -> io::Result<()> {
        let bytes = encode(entry);
        match self.0.send_to(&bytes, SOCKET) {
            Ok(_) => Ok(()),
            Err(error) if is_too_long(&error) => self.send_file(&bytes),
            Err(error) => Err(error),
        }
    }

    /// What is too long for a datagram goes as a file in memory that nobody can change any more.
    fn send_file(&self, bytes: &[u8]) -> io::Result<()> {
        let flags = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC;
        let mut file = File::from(memfd_create(c"listend-log", flags)?);
        file.write_all(bytes)?;
        let seals = SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let file = [file.as_raw_fd()];
        sendmsg(
            self.0.as_raw_fd(),
            &[],
            &[ControlMessage::ScmRights(&file)],
            MsgFlags::MSG_NOSIGNAL,
            Some(&UnixAddr::new(SOCKET)?),
        )?;
        Ok(())
    }

    /// Waits until the journal has handled everything that this process has sent.
    ///
    /// The journal finds the unit of an entry by the process that sent it, and cannot once that has
    /// ended: `journalctl -u` would not show why a start failed. It handles one entry after the
    /// other, so that what was sent before has been handled when it reads this one, which is empty
    /// and leaves no trace.
    pub(super) fn settle(&self) {
        if self.0.send_to(b"\n", SOCKET).is_err() {
            return;
        }
        let (every, at_most) = LOOKS;
        let mut looks = 0..at_most;
        while looks.next().is_some()
            && sys::bytes_not_received(self.0.as_fd()).is_ok_and(|bytes| bytes > 0)
        {
            // There is no event for it.
            let _waited = poll(&mut [], PollTimeout::from(every));
        }
    }
}

/// sd_journal_send(3) takes the same two for it.
fn is_too_long(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS))
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    put(&mut out, "MESSAGE", &entry.message);
    put(&mut out, "PRIORITY", &entry.priority.to_string());
    put(&mut out, "SYSLOG_IDENTIFIER", IDENTIFIER);
    if let Some(id) = message_id(entry) {
        put(&mut out, "MESSAGE_ID", id);
    }
    for (key, value) in &entry.fields {
        put(&mut out, &field_name(key), value);
    }
    out
}

/// A field without line ends as text, any other with its length before it.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// `worker` is LISTEND_WORKER. The journal drops an entry's field that has any other characters.
fn field_name(key: &str) -> String {
    let upper = key.chars().map(|c| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    });
    "LISTEND_".chars().chain(upper).collect()
}

fn message_id(entry: &Entry) -> Option<&'static str> {
    match entry.field("event") {
        Some("worker-failed") => return Some(WORKER_FAILED),
        Some("rolled-back") => return Some(ROLLED_BACK),
        Some(_) | None => {}
    }
    let is_errno = |code: &str| !code.contains(char::is_lowercase);
    let failed = entry.field("listener").and(entry.field("problem"));
    failed.filter(|code| is_errno(code)).map(|_| BIND_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    // systemd.io/JOURNAL_NATIVE_PROTOCOL: "each field is serialized as the field name, followed by
    // "=", followed by field data"; with a newline in it, "the field name is written, followed by a
    // newline, followed by the data size as 64-bit little endian".
    #[test]
    fn line_ends_need_a_length_and_nothing_else_does() {
        let mut out = Vec::new();
        put(&mut out, "A", "x=y");
        put(&mut out, "B", "two\nlines");
        assert_eq!(out, b"A=x=y\nB\n\x09\0\0\0\0\0\0\0two\nlines\n");
        assert_eq!(field_name("min-ready"), "LISTEND_MIN_READY");
    }

    #[test]
    fn what_matters_has_an_id() {
        let entry = |fields: &[(&str, &str)]| Entry {
            priority: 3,
            message: String::new(),
            fields: fields
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let id = |fields: &[(&str, &str)]| message_id(&entry(fields));
        assert_eq!(id(&[("event", "worker-failed")]), Some(WORKER_FAILED));
        assert_eq!(id(&[("event", "rolled-back")]), Some(ROLLED_BACK));
        assert_eq!(id(&[("event", "up")]), None);
        let bind = [("problem", "EADDRINUSE"), ("listener", "web")];
        assert_eq!(id(&bind), Some(BIND_FAILED));
        assert_eq!(id(&bind[..1]), None);
        assert_eq!(id(&[("problem", "bad-address"), ("listener", "web")]), None);
        for id in [WORKER_FAILED, ROLLED_BACK, BIND_FAILED] {
            // sd_id128_from_string(3): 32 hexadecimal digits.
            assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()));
        }
    }
}
