//! The plan: a configuration with nothing left to look up.
//!
//! Users are numbers, environment files are read, defaults are filled in. What remains open is
//! only what binding decides: descriptors, and ports the kernel chooses.

mod environment_file;
pub mod fingerprint;
mod model;
mod resolve;

pub use model::*;
pub use resolve::resolve;
