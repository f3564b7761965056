//! The control socket: its language, its answers, its bad clients.

mod flood;
mod language;
mod paths;
mod socket;
