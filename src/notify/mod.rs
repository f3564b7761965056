//! The messages of sd_notify(3), bytes in, fields out; and the address that they are sent to. And the lines of
//! einhorn.

mod address;
pub mod einhorn;
mod parse;

pub use address::{ManagerAddress, is_full, watchdog_interval};
pub use parse::{LONGEST_NAME, LONGEST_STATUS, Message, STORED, Watchdog, parse};
