//! Why a bind failed on this machine, and advice about what works but may surprise.
//!
//! Reads the machine and changes nothing. [`Machine`] reads each thing at most once, and only if
//! a question needs it; everything that decides takes what was read as arguments.

mod adoption;
mod advice;
mod explain;
mod find;
mod holder;
mod machine;
mod ports;
mod services;
mod tables;
mod unix_causes;

pub use adoption::explain_adoption;
pub use advice::{Tried, advise, note};
pub use explain::{explain, explain_for_check};
pub use holder::held_by_listend;
pub use machine::{Interface, Machine, Process, Settings};
