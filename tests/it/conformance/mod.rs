//! The same as systemd does.

mod activation;
mod handoff;
mod sandbox;
mod units;
