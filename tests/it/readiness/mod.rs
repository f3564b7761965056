//! When an instance counts as ready.

mod einhorn;
mod evidence;
mod instances;
mod notify;
mod servers;
