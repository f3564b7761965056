//! Log lines: for people on a terminal, with priorities under journald, plain elsewhere.

use env_logger::{Builder, Env, Target, WriteStyle};
use log::{Level, LevelFilter};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;

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
        if std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_standard_error(&stream)) {
            Sink::Journal
        } else if std::io::stderr().is_terminal() {
            Sink::Terminal
        } else {
            Sink::Plain
        }
    }
}

fn is_standard_error(stream: &str) -> bool {
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    // The metadata of the open descriptor: following the link in /proc leads to it, whatever it is.
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|metadata| {
        device.parse() == Ok(metadata.dev()) && inode.parse() == Ok(metadata.ino())
    })
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
    builder.target(Target::Stderr);
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
