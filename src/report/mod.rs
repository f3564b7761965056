//! Problems, their place in the YAML, and how they are shown.
//!
//! Everything that can be wrong with a configuration or a bind becomes a [`Problem`]: one value
//! that is rendered as text for people and as JSON for programs. Pure: no system calls.

mod errno;
mod json;
mod problem;
mod source;
mod suggest;
mod text;
mod words;

pub use errno::{describe, name as errno_name, reason};
pub use json::to_json;
pub use problem::{ADVICE_PER_KIND, ERRORS_PER_KIND, Holder, Kind, Problem, Report, Severity};
pub use source::{FileId, Place, Sources};
pub use suggest::{did_you_mean, nearest};
pub use text::{Style, render};
pub use words::{is_hidden, readable, shortened};
