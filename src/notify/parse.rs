//! Lines of KEY=VALUE.
//!
//! What systemd's manager does with each is the measure (its `service_notify_message`), so that a
//! program does here what it does there. Of a key that comes twice the first counts.

use std::time::Duration;

/// The length to which a status text is cut, in bytes.
pub const LONGEST_STATUS: usize = 2048;

/// The longest name of a stored descriptor, in bytes (sd_pid_notify_with_fds(3)).
pub const LONGEST_NAME: usize = 255;

/// The name of a stored descriptor that was given none.
pub const STORED: &str = "stored";

/// The largest errno (MAX_ERRNO of Linux).
const LARGEST_ERRNO: i32 = 4095;

/// The value of `WATCHDOG=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// A keep-alive: `WATCHDOG=1`.
    Alive,
    /// A request to act as if the watchdog had expired: `WATCHDOG=trigger`.
    Trigger,
}

/// A message. Fields that it does not mention are `None` or `false`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Whether the process is ready: `READY=1`.
    pub ready: bool,
    /// `RELOADING=1`. Before the first `READY=1` it is nothing unusual.
    pub reloading: bool,
    /// `MONOTONIC_USEC=`: when the reload began, of CLOCK_MONOTONIC.
    pub monotonic: Option<Duration>,
    /// Whether the process is stopping: `STOPPING=1`.
    pub stopping: bool,
    /// `STATUS=`; an empty text takes back the one before. What was no UTF-8 became U+FFFD, what was
    /// longer than [`LONGEST_STATUS`] is cut. May hold control characters.
    pub status: Option<String>,
    /// The errno of a failure: `ERRNO=`.
    pub errno: Option<i32>,
    /// `BUSERROR=`, kept as the status is.
    pub bus_error: Option<String>,
    /// The exit status to report: `EXIT_STATUS=`.
    pub exit_status: Option<u8>,
    /// A keep-alive, or the request to act on the watchdog: `WATCHDOG=`.
    pub watchdog: Option<Watchdog>,
    /// `WATCHDOG_USEC=`; zero asks for no more signs of life.
    pub watchdog_interval: Option<Duration>,
    /// Whether the process has something to do that no client shows: `X_LISTEND_BUSY=`. Names that begin
    /// so are left to programs by sd_notify(3), and there is none for this.
    pub busy: Option<bool>,
    /// The time by which the current timeout is extended: `EXTEND_TIMEOUT_USEC=`.
    pub extend_timeout: Option<Duration>,
    /// The process id of the main process, positive: `MAINPID=`.
    pub main_pid: Option<i32>,
    /// Whether the message is `BARRIER=1`, which must stand alone: the sender waits until its
    /// descriptor is closed.
    pub barrier: bool,
    /// `FDSTORE=1`: the descriptors of the message are to be kept.
    pub store: bool,
    /// `FDSTOREREMOVE=1`: those called [`Message::name`] are to be given up.
    pub remove: bool,
    /// `FDNAME=`, if it is one that LISTEN_FDNAMES can hold.
    pub name: Option<String>,
    /// `FDPOLL=0`: stored descriptors are kept when their other end hangs up.
    pub unpolled: bool,
    /// The number of lines with a known key and a malformed value.
    pub malformed: u32,
    /// The first of them, cut to a sensible length.
    pub first_malformed: Option<String>,
}

/// Takes a message apart. Never fails: what cannot be understood is counted, and the rest counts.
pub fn parse(bytes: &[u8]) -> Message {
    let mut message = Message::default();
    // sd_notify(3) sends none, but one is allowed.
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let lines: Vec<&[u8]> = bytes
        .split(is_end)
        .filter(|line| !line.is_empty())
        .collect();
    // A sender that waits for everything before it would not know what became of the rest.
    if let Some(barrier) = lines.iter().find(|line| **line == b"BARRIER=1")
        && lines.len() > 1
    {
        message.reject(barrier);
        return message;
    }
    for line in lines {
        if message.take(line).is_none() {
            message.reject(line);
        }
    }
    message
}

impl Message {
    fn reject(&mut self, line: &[u8]) {
        const SHOWN: usize = 80;
        self.malformed += 1;
        let shown = line.get(..SHOWN).unwrap_or(line);
        self.first_malformed
            .get_or_insert_with(|| String::from_utf8_lossy(shown).into_owned());
    }

    /// Takes one line; `None` for one that cannot be understood.
    fn take(&mut self, line: &[u8]) -> Option<()> {
        let mut parts = line.splitn(2, |byte| *byte == b'=');
        let (key, value) = (parts.next()?, parts.next()?);
        match key {
            b"READY" => self.ready |= is_one(value)?,
            b"RELOADING" => self.reloading |= is_one(value)?,
            b"STOPPING" => self.stopping |= is_one(value)?,
            b"BARRIER" => self.barrier |= is_one(value)?,
            b"FDSTORE" => self.store |= is_one(value)?,
            b"FDSTOREREMOVE" => self.remove |= is_one(value)?,
            b"FDPOLL" => self.unpolled |= !is_yes_or_no(value)?,
            b"MONOTONIC_USEC" => first(&mut self.monotonic, microseconds(value)?),
            b"WATCHDOG_USEC" => first(&mut self.watchdog_interval, microseconds(value)?),
            b"X_LISTEND_BUSY" => first(&mut self.busy, is_yes_or_no(value)?),
            b"EXTEND_TIMEOUT_USEC" => first(&mut self.extend_timeout, microseconds(value)?),
            b"STATUS" => first(&mut self.status, text(value)?),
            b"BUSERROR" => first(&mut self.bus_error, text(value)?),
            b"ERRNO" => {
                let known = |errno: &i32| (0..=LARGEST_ERRNO).contains(errno);
                first(&mut self.errno, number(value).filter(known)?);
            }
            b"EXIT_STATUS" => first(&mut self.exit_status, number(value)?),
            b"MAINPID" => first(
                &mut self.main_pid,
                number(value).filter(|pid: &i32| *pid > 0)?,
            ),
            b"WATCHDOG" => first(
                &mut self.watchdog,
                match value {
                    b"1" => Watchdog::Alive,
                    b"trigger" => Watchdog::Trigger,
                    _ => return None,
                },
            ),
            b"FDNAME" => first(&mut self.name, name(value)?),
            // Those that came later than listend, and a program's own (other X_…), mean nothing here.
            _ => {}
        }
        Some(())
    }
}

fn first<T>(field: &mut Option<T>, value: T) {
    field.get_or_insert(value);
}

fn is_one(value: &[u8]) -> Option<bool> {
    (value == b"1").then_some(true)
}

fn is_yes_or_no(value: &[u8]) -> Option<bool> {
    match value {
        b"1" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

/// Digits and nothing else: `parse` alone would take a sign.
fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits)?;
    text.parse().ok()
}

fn microseconds(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_micros)
}

/// `None` for what holds a NUL.
fn text(value: &[u8]) -> Option<String> {
    if value.contains(&0) {
        return None;
    }
    let mut text = String::from_utf8_lossy(value).into_owned();
    if text.len() > LONGEST_STATUS {
        let mut ends = (0..=LONGEST_STATUS).rev();
        let end = ends.find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    Some(text)
}

/// Reads a name that LISTEN_FDNAMES can hold: printable ASCII without the `:` that separates names.
fn name(value: &[u8]) -> Option<String> {
    let fits = |byte: &u8| (b' '..=b'~').contains(byte) && *byte != b':';
    if value.len() > LONGEST_NAME || !value.iter().all(fits) {
        return None;
    }
    String::from_utf8(value.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn micros(count: u64) -> Option<Duration> {
        Some(Duration::from_micros(count))
    }

    #[test]
    fn a_descriptor_is_polled_unless_it_is_not_to_be() {
        for (value, unpolled) in [("1", false), ("0", true)] {
            let message = parse(format!("FDSTORE=1\nFDPOLL={value}\n").as_bytes());
            assert!(message.store && message.malformed == 0);
            assert_eq!(message.unpolled, unpolled, "{value}");
        }
    }

    #[test]
    fn every_field_is_understood() {
        let message = parse(
            b"RELOADING=1\nMONOTONIC_USEC=17\nREADY=1\nSTOPPING=1\nSTATUS=all is well = good\n\
              ERRNO=2\nBUSERROR=org.example.Failed\nEXIT_STATUS=3\nWATCHDOG=1\nWATCHDOG_USEC=20\n\
              EXTEND_TIMEOUT_USEC=30\nMAINPID=4\nFDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=db\nFDPOLL=0\n",
        );
        let expected = Message {
            ready: true,
            reloading: true,
            monotonic: micros(17),
            stopping: true,
            status: Some("all is well = good".to_owned()),
            errno: Some(2),
            bus_error: Some("org.example.Failed".to_owned()),
            exit_status: Some(3),
            watchdog: Some(Watchdog::Alive),
            watchdog_interval: micros(20),
            extend_timeout: micros(30),
            main_pid: Some(4),
            store: true,
            remove: true,
            name: Some("db".to_owned()),
            unpolled: true,
            ..Message::default()
        };
        assert_eq!(message, expected);
        let trigger = parse(b"WATCHDOG=trigger\0");
        assert_eq!(trigger.watchdog, Some(Watchdog::Trigger));
        assert_eq!(trigger.malformed, 0, "one NUL at the end is allowed");
    }

    #[test]
    fn what_cannot_be_understood_is_counted_and_the_rest_counts() {
        for bad in [
            "READY=0",
            "READY",
            "READY=",
            "STOPPING=yes",
            "WATCHDOG=0",
            "WATCHDOG_USEC=-1",
            "WATCHDOG_USEC=+1",
            "WATCHDOG_USEC=1s",
            "EXTEND_TIMEOUT_USEC=",
            "EXTEND_TIMEOUT_USEC=99999999999999999999",
            "MAINPID=0",
            "MAINPID=-1",
            "MAINPID=99999999999",
            "ERRNO=ENOENT",
            "ERRNO=4096",
            "EXIT_STATUS=256",
            "FDNAME=a:b",
            "FDNAME=\u{1b}",
            "FDNAME=\u{e4}",
            "FDPOLL=no",
            "STATUS=a\0b",
        ] {
            let message = parse(format!("{bad}\nMAINPID=7\nSTATUS=up").as_bytes());
            assert_eq!(message.malformed, 1, "{bad}");
            assert_eq!(message.first_malformed.as_deref(), Some(bad));
            assert_eq!(message.status.as_deref(), Some("up"), "{bad}");
            assert_eq!(message.main_pid, Some(7), "{bad}");
        }
        let long = parse(format!("FDNAME={}", "x".repeat(256)).as_bytes());
        assert_eq!((long.name, long.malformed), (None, 1));
        let fits = parse(format!("FDNAME={}", "x".repeat(255)).as_bytes());
        assert_eq!(fits.name.map(|name| name.len()), Some(255));
    }

    #[test]
    fn unknown_keys_are_nobody_s_fault() {
        let message = parse(b"X_MINE=1\nNOTIFYACCESS=all\n=\n\n\r\nREADY=1\r\n");
        assert!(message.ready);
        assert_eq!(message.malformed, 0);
        assert_eq!(parse(b"X_MINE=1"), Message::default());
        assert_eq!(parse(b""), Message::default());
    }

    #[test]
    fn a_barrier_is_alone_or_nothing_counts() {
        assert!(parse(b"BARRIER=1").barrier);
        assert!(parse(b"BARRIER=1\n").barrier);
        let both = parse(b"READY=1\nBARRIER=1");
        assert!(!both.ready && !both.barrier);
        assert_eq!(both.malformed, 1);
    }

    #[test]
    fn the_first_of_two_counts() {
        let message = parse(b"STATUS=one\nSTATUS=two\nWATCHDOG=trigger\nWATCHDOG=1");
        assert_eq!(message.status.as_deref(), Some("one"));
        assert_eq!(message.watchdog, Some(Watchdog::Trigger));
    }

    #[test]
    fn a_status_is_cut_between_characters() {
        let long = format!("STATUS={}", "ä".repeat(LONGEST_STATUS));
        let status = parse(long.as_bytes()).status.unwrap();
        assert_eq!(status, "ä".repeat(LONGEST_STATUS / 2));
        let broken = parse(b"STATUS=a\xffb").status;
        assert_eq!(broken.as_deref(), Some("a\u{fffd}b"));
        assert_eq!(parse(b"STATUS=").status.as_deref(), Some(""));
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let keys = prop::sample::select(vec![
            "READY",
            "STATUS",
            "ERRNO",
            "WATCHDOG",
            "WATCHDOG_USEC",
            "MAINPID",
            "BARRIER",
            "FDNAME",
            "FDPOLL",
            "EXIT_STATUS",
            "X",
        ]);
        let value = prop_oneof![
            Just(b"1".to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
            "[0-9]{1,24}".prop_map(String::into_bytes),
        ];
        (keys, value).prop_map(|(key, value)| [key.as_bytes(), b"=", &value].concat())
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_keep_too_much(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let message = parse(&bytes);
            prop_assert!(message.status.is_none_or(|text| text.len() <= LONGEST_STATUS));
        }

        #[test]
        fn nothing_that_looks_like_a_message_makes_it_panic(lines in prop::collection::vec(line(), 0..12)) {
            let message = parse(&lines.join(&b'\n'));
            let name = message.name.unwrap_or_default();
            prop_assert!(name.len() <= LONGEST_NAME && !name.contains([':', '\n', '\0']));
            prop_assert!(message.main_pid.is_none_or(|pid| pid > 0));
            prop_assert!(message.first_malformed.is_some() == (message.malformed > 0));
        }
    }
}
