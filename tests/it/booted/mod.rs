//! The package, and what it brings, in booted containers.

mod ansible;
mod init_systems;
mod install;
mod load;
mod podman;
mod store;
mod units;
