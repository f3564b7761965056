//! Workers that get one connection each.

mod clients;
mod limits;
mod servers;
