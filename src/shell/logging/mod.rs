//! Log lines: as entries with fields for the journal, to syslog where there is none and nobody
//! reads standard error, for people on a terminal, plain elsewhere.

mod entry;
mod journal;
mod stderr;
mod syslog;

pub use entry::Entry;
pub(super) use stderr::{flush, flush_and_watch, hold};

use crate::report::reason;
use entry::priority;
use env_logger::{Builder, Env, Target, WriteStyle};
use journal::Journal;
use log::{LevelFilter, Log, Metadata, Record};
use nix::sys::stat::fstat;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::OnceLock;
use syslog::Syslog;

/// Who is to get the log, as `--log-to` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// Chosen by where standard error leads.
    Auto,
    /// The journal.
    Journal,
    /// The syslog daemon.
    Syslog,
    /// Standard error.
    Stderr,
}

/// Who gets the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// The journal, as entries with fields.
    Journal,
    /// The syslog daemon.
    Syslog,
    /// Standard error.
    Stderr(Stream),
}

/// What a descriptor is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The journal, which reads `<N>` in front of a line as its priority (sd-daemon(3)).
    Journal,
    /// A person.
    Terminal,
    /// A file or a pipe.
    Plain,
}

impl Stream {
    /// Finds out. JOURNAL_STREAM counts only if it names the very stream that the descriptor is:
    /// a redirected listend inside a service does not write to the journal.
    pub fn of(out: &(impl AsFd + IsTerminal)) -> Stream {
        if std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, out)) {
            Stream::Journal
        } else if out.is_terminal() {
            Stream::Terminal
        } else {
            Stream::Plain
        }
    }
}

impl Sink {
    /// Who gets the log of this process. What a daemon writes where nobody reads it goes to syslog;
    /// who asks something and throws the errors away has said so.
    ///
    /// # Errors
    ///
    /// Who is wanted cannot be reached; says what to do.
    pub fn choose(wanted: LogTarget, is_daemon: bool) -> Result<Sink, String> {
        let stderr = io::stderr();
        let stream = Stream::of(&stderr);
        match wanted {
            LogTarget::Auto if stream == Stream::Journal => Ok(Sink::Journal),
            // A daemon that is started first may find its log later: it is looked for each time.
            LogTarget::Auto if is_daemon && leads_nowhere(&stderr) && !has_journal() => {
                Ok(Sink::Syslog)
            }
            LogTarget::Auto | LogTarget::Stderr => Ok(Sink::Stderr(stream)),
            LogTarget::Journal => match Journal::probe() {
                Ok(()) => Ok(Sink::Journal),
                Err(error) => Err(format!(
                    "--log-to journal: no journal can be reached at {}: {}; start \
                     systemd-journald, give the container that path, or choose auto",
                    journal::SOCKET,
                    reason(&error)
                )),
            },
            LogTarget::Syslog => match Syslog::probe() {
                Ok(()) => Ok(Sink::Syslog),
                Err(error) => Err(format!(
                    "--log-to syslog: no syslog daemon accepts datagrams at {}: {}; start one, \
                     give the container that path, or choose auto",
                    syslog::SOCKET,
                    reason(&error)
                )),
            },
        }
    }
}

fn has_journal() -> bool {
    Path::new(journal::SOCKET).exists()
}

/// Whether it is /dev/null. A standard error that was closed is it too: Rust's runtime sees to that
/// before main.
fn leads_nowhere(out: &impl AsFd) -> bool {
    let null = nix::sys::stat::stat("/dev/null");
    fstat(out).is_ok_and(|stat| {
        let is_device = stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFCHR;
        is_device && null.is_ok_and(|null| null.st_rdev == stat.st_rdev)
    })
}

fn is_stream(stream: &str, out: &impl AsFd) -> bool {
    stream_of(out).is_some_and(|own| own == stream)
}

/// What JOURNAL_STREAM says of a descriptor that is a connection to the journal: its device and
/// inode (systemd.exec(5)).
pub(super) fn stream_of(fd: &impl AsFd) -> Option<String> {
    let stat = fstat(fd).ok()?;
    Some(format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Whether the person at the terminal has not asked for plain text (no-color.org).
pub fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Sets up the logger, once: `--log-level` wins over RUST_LOG, and without either it is `info`.
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
    builder.target(Target::Pipe(Box::new(stderr::StderrWriter)));
    let stream = match sink {
        Sink::Journal | Sink::Syslog => Stream::of(&io::stderr()),
        Sink::Stderr(stream) => stream,
    };
    format_for(&mut builder, stream);
    let far = match sink {
        Sink::Journal => Far::Journal(OnceLock::new()),
        Sink::Syslog => Far::Syslog(OnceLock::new()),
        Sink::Stderr(_) => {
            // A second call (tests) keeps the first logger; nothing is lost by that.
            let _already_set = builder.try_init();
            return;
        }
    };
    let near = builder.build();
    let level = near.filter();
    if log::set_boxed_logger(Box::new(Logger { near, far })).is_ok() {
        log::set_max_level(level);
    }
}

/// How lines look on standard error.
fn format_for(builder: &mut Builder, stream: Stream) {
    match stream {
        Stream::Journal => {
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
        Stream::Terminal | Stream::Plain => {
            builder.write_style(match stream {
                Stream::Terminal if wants_colour() => WriteStyle::Always,
                Stream::Terminal | Stream::Journal | Stream::Plain => WriteStyle::Never,
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
}

/// Sends lines to a daemon, and writes to standard error those that it does not take: a journal
/// that is not there yet, or has no room.
struct Logger {
    /// The filter of lines, and their format on standard error.
    near: env_logger::Logger,
    far: Far,
}

/// Opened at the first line: a descriptor more at the start of the process could be taken for one
/// of those that LISTEN_FDS promises.
enum Far {
    Journal(OnceLock<Option<Journal>>),
    Syslog(OnceLock<Option<Syslog>>),
}

impl Far {
    /// Whether it has the line.
    fn takes(&self, record: &Record<'_>) -> bool {
        let entry = Entry::of(record);
        match self {
            Far::Journal(journal) => {
                let journal = journal.get_or_init(|| Journal::open().ok());
                journal.as_ref().is_some_and(|to| to.send(&entry).is_ok())
            }
            Far::Syslog(syslog) => {
                let syslog = syslog.get_or_init(|| Syslog::open().ok());
                syslog.as_ref().is_some_and(|to| to.send(&entry).is_ok())
            }
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.near.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.near.matches(record) && !self.far.takes(record) {
            self.near.log(record);
        }
    }

    fn flush(&self) {}
}

/// Logs an entry whatever `--log-level` says, and waits for room if it has to: for what is said
/// before the loop runs. Whether somebody has it; on standard error it is the caller's.
pub fn tell(sink: Sink, entry: &Entry) -> bool {
    let told = match sink {
        Sink::Journal => Journal::open_patient().and_then(|to| to.send(entry)),
        Sink::Syslog => Syslog::open_patient().and_then(|to| to.send(entry)),
        Sink::Stderr(_) => return false,
    };
    told.is_ok()
}

/// Waits, but not for long, until the log is where it belongs, before the process ends.
pub fn settle(sink: Sink) {
    stderr::farewell();
    match sink {
        Sink::Journal => {
            // Without a socket nothing was sent either.
            let _nothing_sent = Journal::open_patient().map(|journal| journal.settle());
        }
        // Whoever reads these needs nothing of the process any more.
        Sink::Syslog | Sink::Stderr(_) => {}
    }
}
