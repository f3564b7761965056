//! Workers that get one connection each.

mod calls;
mod clients;
mod limits;
mod servers;
