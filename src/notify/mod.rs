//! The messages of sd_notify(3): bytes in, fields out. Pure.

mod parse;

pub use parse::{LONGEST_NAME, LONGEST_STATUS, Message, STORED, Watchdog, parse};
