//! The core against made-up kernels.

mod activation;
mod random;
mod rollout;
mod workers;
