//! `sandbox:`: what a worker is kept from, and that it is still started as any other.

mod advice;
pub(crate) mod groups;
mod lives;
mod matrix;
mod servers;
mod starts;

pub(crate) use starts::can_mount;
