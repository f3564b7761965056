//! Reloads of the configuration.

mod again;
mod applied;
mod plan;
