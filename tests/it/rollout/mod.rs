//! One generation after another.

mod reload;
mod restart;
mod servers;
