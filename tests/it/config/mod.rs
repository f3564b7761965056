//! The YAML: what it says, and what is wrong with it.

mod activation;
mod defaults;
mod editor;
mod errors;
mod lifecycle;
mod reading;
mod schema;
mod shards;
mod tables;
