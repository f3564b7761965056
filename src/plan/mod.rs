//! The plan: a configuration with nothing left to look up.
//!
//! Users are numbers, environment files are read, defaults are filled in. What remains open is
//! only what binding decides: descriptors, and ports the kernel chooses.

mod changes;
mod environment_file;
pub mod fingerprint;
mod known_ids;
mod line;
mod merge;
mod model;
mod origin;
mod resolve;
mod transfer;
mod values;
mod worker_diff;

pub use changes::{Changes, ListenerChange, OptionChange, WorkerChange, option_changes};
pub use known_ids::KnownIds;
pub use line::{Line, Tense, Verb};
pub use merge::{Merge, merge};
pub use model::*;
pub use origin::{Origin, OriginFile};
pub use resolve::resolve;
pub use transfer::PlanTransfer;
pub use worker_diff::WorkerDiff;
