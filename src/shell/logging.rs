//! Log lines: for people on a terminal, with priorities under journald, plain elsewhere.

use env_logger::{Builder, Env, Target, WriteStyle};
use log::{Level, LevelFilter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

/// What standard error is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// The journal, which reads `<N>` in front of a line as its priority (sd-daemon(3)).
    Journal,
    /// A person.
    Terminal,
    /// A file or a pipe.
    Plain,
}

impl Sink {
    /// Finds out. JOURNAL_STREAM counts only if it names the very stream that standard error is:
    /// a redirected listend inside a service does not write to the journal.
    pub fn detect() -> Sink {
        Sink::of(&std::io::stderr())
    }

    /// The same for another descriptor.
    pub fn of(out: &(impl AsFd + IsTerminal)) -> Sink {
        if std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, out)) {
            Sink::Journal
        } else if out.is_terminal() {
            Sink::Terminal
        } else {
            Sink::Plain
        }
    }
}

fn is_stream(stream: &str, out: &impl AsFd) -> bool {
    stream_of(out).is_some_and(|own| own == stream)
}

/// What JOURNAL_STREAM says of a descriptor that is a connection to the journal: its device and
/// inode (systemd.exec(5)).
pub(super) fn stream_of(fd: &impl AsFd) -> Option<String> {
    let stat = nix::sys::stat::fstat(fd).ok()?;
    Some(format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The syslog priority of a level (sd-daemon(3)).
pub fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Whether the person at the terminal has not asked for plain text (no-color.org).
pub fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Sets up the logger: `--log-level` wins over RUST_LOG, and without either it is `info`.
pub fn init(level: Option<LevelFilter>, sink: Sink) {
    let mut builder = Builder::new();
    builder.filter_level(LevelFilter::Info);
    match level {
        Some(level) => {
            builder.filter_level(level);
        }
        None => {
            builder.parse_env(Env::default());
        }
    }
    builder.target(Target::Pipe(Box::new(Patient { dropped: 0 })));
    match sink {
        Sink::Journal => {
            builder.write_style(WriteStyle::Never);
            builder.format(|out, record| {
                // The journal cuts at line ends; each line of a message needs its priority.
                let priority = priority(record.level());
                for line in record.args().to_string().lines() {
                    writeln!(out, "<{priority}>{line}")?;
                }
                Ok(())
            });
        }
        Sink::Terminal | Sink::Plain => {
            builder.write_style(match sink {
                Sink::Terminal if wants_colour() => WriteStyle::Always,
                Sink::Terminal | Sink::Journal | Sink::Plain => WriteStyle::Never,
            });
            builder.format(|out, record| {
                let style = out.default_level_style(record.level());
                writeln!(
                    out,
                    "{} {style}{:<5}{style:#} {}",
                    out.timestamp_millis(),
                    record.level(),
                    record.args()
                )
            });
        }
    }
    // A second call (tests) keeps the first logger; nothing is lost by that.
    let _already_set = builder.try_init();
}

/// Standard error, for as long as somebody reads it.
///
/// A pipe that nobody empties would stop the daemon in the middle of a line, and with it every
/// worker's restart. A line that does not fit is dropped, and counted.
struct Patient {
    dropped: u64,
}

impl Write for Patient {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut out = io::stderr();
        if !has_room(&out) {
            self.dropped += 1;
            return Ok(line.len());
        }
        if self.dropped > 0 {
            let lines = std::mem::take(&mut self.dropped);
            writeln!(
                out,
                "listend: {lines} log lines were lost here: nobody read them"
            )?;
        }
        out.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a line can be written without waiting: a pipe is writable while it has room for
/// PIPE_BUF bytes (pipe(7)), which is more than a line has. O_NONBLOCK would say so too, but it
/// belongs to the open file description, and that one is shared with the workers.
fn has_room(out: &io::Stderr) -> bool {
    let mut wanted = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
    // Where poll(2) itself fails, the write decides.
    poll(&mut wanted, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
}
