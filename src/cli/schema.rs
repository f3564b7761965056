//! `listend schema`: the JSON Schema of the configuration.

use super::check::finish;
use super::exit::Exit;
use super::output::print;
use crate::config;

/// Prints the schema.
pub fn schema() -> Exit {
    finish(print(&format!("{:#}\n", config::schema())), Exit::Done)
}
