//! When an instance counts as ready.

mod evidence;
mod instances;
mod notify;
mod servers;
