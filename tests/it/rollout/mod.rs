//! One generation after another.

mod links;
mod reload;
mod restart;
mod servers;
