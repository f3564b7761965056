//! What a worker may do beside serving: `sandbox:` as data, from the configuration to the process that
//! carries it out.
//!
//! Pure. [`Flag`] is the table of what is on or off, [`paths`] turns what is said about the file system
//! into a list of places, [`lines`] shows the whole as a table with a score.

mod calls;
mod families;
mod flag;
mod limits;
mod model;
pub mod paths;
mod preset;
mod text;
mod view;

pub use calls::{Calls, Term, numbers_of, permits_by_name, resolve as resolve_calls};
pub use families::{Families, Family};
pub use flag::Flag;
pub use limits::{Limits, Most, Permyriad, Quota, Setting, Totals, WHOLE};
pub use model::{DIRECTIVES, Named, Preset, ProtectHome, ProtectProc, ProtectSystem, Sandbox};
pub use view::{Line, Score, lines, next_step, score};

/// Where an installation puts the drop-ins that let a unit of listend give its workers a sandbox: that of a
/// package, or that of `install.sh`.
pub const DROP_INS: &str = "/usr/share/listend or /usr/local/share/listend";

#[cfg(test)]
mod tests;
