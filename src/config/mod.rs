//! YAML text → [`Config`].
//!
//! Every mistake of every file is found in one pass and becomes a [`crate::report::Problem`] with
//! its place; nothing here panics, whatever the bytes. Pure: files are read by the caller.

mod model;

pub use model::*;
