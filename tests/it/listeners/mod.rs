//! Listeners as the daemon opens, keeps and repairs them.

mod adopted;
mod connections;
mod errors;
mod heal;
mod kinds;
mod network;
mod served;
