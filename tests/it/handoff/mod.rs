//! What a process is given at its start, and what it must not have.

mod dialects;
mod inherited;
mod languages;
mod launch;
mod protocols;
mod servers;
mod worker;
