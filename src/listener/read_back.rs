//! Effective values of socket options.

use crate::config::options::{How, OptionSpec, ValueKind};
use nix::libc;

/// The effective value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The key of the option in the YAML.
    pub key: &'static str,
    /// The value asked for, in the unit that the kernel takes: `30s`, `500ms`, bytes.
    pub asked: String,
    /// The value read back, in the same form. Buffers count double (socket(7)).
    pub effective: String,
    /// Whether `effective` is what was asked for, or the kernel's way of rounding it up.
    pub is_as_asked: bool,
}

impl Effective {
    /// The word for a value that can be set and not be read.
    pub const UNKNOWN: &'static str = "unknown";

    /// The effective value of an option that is a number to the kernel; `got` is `None` if the kernel
    /// does not tell.
    pub(super) fn of_number(spec: &'static OptionSpec, asked: i64, got: Option<i64>) -> Effective {
        Effective {
            key: spec.key,
            asked: text(spec.value, asked),
            effective: got.map_or(Self::UNKNOWN.to_owned(), |got| text(spec.value, got)),
            is_as_asked: got.is_some_and(|got| is_as_asked(spec.how, asked, got)),
        }
    }
}

/// Whether the kernel does what was asked. What it always rounds up is no surprise to anybody.
fn is_as_asked(how: How, asked: i64, got: i64) -> bool {
    match how {
        How::Buffer { .. } => got == asked * 2,
        // Up to whole pages, and to a power of two of them (pipe(7)).
        How::PipeSize => got >= asked,
        // Up to the moment of a retransmission of the SYN+ACK.
        How::Int(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT) => got >= asked,
        _ => got == asked,
    }
}

fn text(kind: ValueKind, number: i64) -> String {
    match kind {
        ValueKind::Flag => (number != 0).to_string(),
        ValueKind::Seconds(..) => format!("{number}s"),
        ValueKind::Milliseconds(..) => format!("{number}ms"),
        ValueKind::Choice(choices) => {
            let word = choices.iter().find(|(_, value)| *value == number);
            word.map_or_else(|| number.to_string(), |(word, _)| (*word).to_owned())
        }
        ValueKind::Number(..) | ValueKind::Size(..) | ValueKind::Text(_) => number.to_string(),
    }
}
