//! What was broken once.

mod activation;
mod operating;
mod workers;
