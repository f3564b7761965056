//! One generation after another.

mod instance;
mod links;
mod reload;
mod restart;
mod servers;
