//! listend from outside: one program, so that it is linked once, with a module for each subject.
//!
//! `cargo test` runs the tests as threads of one process: see [`harness::alone`].

mod adopt;
mod arch;
mod booted;
mod client;
mod config;
mod conformance;
mod control;
mod docs;
mod exec;
mod explain;
mod flows;
mod forward;
mod guard;
mod handoff;
mod harness;
mod hooks;
mod idle;
mod import;
mod listeners;
mod load;
mod manager;
mod metrics;
mod on_demand;
mod output;
mod packaging;
mod per_connection;
mod pid1;
mod readiness;
mod regressions;
mod reload;
mod rollout;
mod servers;
mod shards;
mod sim;
mod snapshot;
mod soak;
mod status;
mod survival;
mod take;
mod take_over;
mod threats;
mod top;
mod upgrade;
mod workers;
