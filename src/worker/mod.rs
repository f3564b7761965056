//! From a worker's plan to a process that is ready to be cloned, and from its failures to words.

mod advise;
pub mod expand;
mod fdmap;
mod limits;
mod outcome;
mod pattern;
mod prepare;
mod program;
mod sandbox_advice;
mod second;

pub use advise::{JOURNAL, advise};
pub use limits::limits;
pub use outcome::{explain, explain_fork, explain_inside, reason};
pub use pattern::Pattern;
pub use prepare::{
    DaemonContext, InheritedSocket, Numbers, OutputTarget, Preparation, PrepareError, Served,
    SpawnInputs, launch,
};
pub use program::{Missing, find};
pub use sandbox_advice::is_hidden_from;
pub use second::SANDBOX_EXEC;
