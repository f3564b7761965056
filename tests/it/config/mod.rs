//! The YAML: what it says, and what is wrong with it.

mod activation;
mod errors;
mod lifecycle;
mod reading;
mod shards;
mod tables;
