//! The syslog daemon of this machine, where there is no journal (RFC 3164).

use super::entry::{Entry, IDENTIFIER};
use crate::shell::clock;
use crate::sys::{LocalTime, local_time};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where every syslog daemon listens.
pub(super) const SOCKET: &str = "/dev/log";
/// "system daemons" (RFC 3164, 4.1.1), in the place where a priority has it.
const DAEMON: u8 = 3 << 3;
/// A warning.
const WARNING: u8 = 4;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// How long somebody who has time waits for a daemon that hangs.
const PATIENCE: Duration = Duration::from_millis(500);

/// A way to the daemon. There is no connection that could break when it restarts: each line goes
/// to whoever has the path by then.
pub(super) struct Syslog {
    socket: UnixDatagram,
    lost: AtomicU64,
}

impl Syslog {
    /// For the loop: a line for which there is no room is an error at once.
    pub(super) fn open() -> io::Result<Syslog> {
        let syslog = Syslog::open_patient()?;
        syslog.socket.set_nonblocking(true)?;
        Ok(syslog)
    }

    /// For those who have time: waits a little for room.
    pub(super) fn open_patient() -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let lost = AtomicU64::new(0);
        Ok(Syslog { socket, lost })
    }

    /// Whether there is a daemon.
    pub(super) fn probe() -> io::Result<()> {
        UnixDatagram::unbound()?.connect(SOCKET)
    }

    /// Sends each line of an entry as one of its own: daemons cut or escape line ends.
    pub(super) fn send(&self, entry: &Entry) -> io::Result<()> {
        let mut sent = self.tell_lost();
        for line in entry.message.lines().filter(|line| !line.is_empty()) {
            sent = sent.and_then(|()| self.line(entry.priority, line));
        }
        if sent.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Says how many were lost, if any were.
    fn tell_lost(&self) -> io::Result<()> {
        match self.lost.load(Ordering::Relaxed) {
            0 => Ok(()),
            lost => {
                self.line(
                    WARNING,
                    &format!("{lost} log entries were lost here: not accepted"),
                )?;
                self.lost.store(0, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn line(&self, priority: u8, line: &str) -> io::Result<()> {
        let time = local_time(clock::wall().as_secs());
        let line = frame(priority, time, std::process::id(), line);
        self.socket.send_to(line.as_bytes(), SOCKET).map(|_| ())
    }
}

/// `<30>Jan  2 03:04:05 listend[6]: words`: as syslog(3) writes it, without a host.
fn frame(priority: u8, time: Option<LocalTime>, pid: u32, line: &str) -> String {
    let stamp = time.and_then(|time| {
        let month = MONTHS.get(time.month)?;
        let LocalTime {
            month: _,
            day,
            hour,
            minute,
            second,
        } = time;
        Some(format!(
            "{month} {day:>2} {hour:02}:{minute:02}:{second:02} "
        ))
    });
    let stamp = stamp.unwrap_or_default();
    format!("<{}>{stamp}{IDENTIFIER}[{pid}]: {line}", DAEMON | priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 3164, 4.1.2: "If the day of the month is less than 10, then it MUST be represented as a
    // space and then the number."
    #[test]
    fn a_line_has_priority_time_and_who_it_is_from() {
        let time = LocalTime {
            month: 0,
            day: 2,
            hour: 3,
            minute: 4,
            second: 5,
        };
        assert_eq!(
            frame(6, Some(time), 7, "words"),
            "<30>Jan  2 03:04:05 listend[7]: words"
        );
        assert_eq!(frame(3, None, 7, "words"), "<27>listend[7]: words");
    }
}
