//! Listeners as the daemon opens, keeps and repairs them.

mod adopted;
mod errors;
mod heal;
mod in_the_way;
mod kinds;
mod network;
mod served;
