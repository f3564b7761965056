//! Forwards connections to a server that cannot inherit a socket: `listend forward`, the main process of a
//! worker with `forward:`.
//!
//! One process, one loop over epoll, any number of connections. [`flow`] decides what happens to a
//! connection and has no socket; `link` carries that out; `forwarder` accepts, connects, and lives as
//! long as its server does. Bytes are passed with splice(2) through pipes (`pipes`), and never read.

mod connect;
pub mod flow;
mod forwarder;
mod link;
mod options;
mod pipes;
pub mod proxy;
mod server;
mod setup;
mod timers;

pub use forwarder::serve;
pub use options::{Ended, Forwarding};
pub use server::Program;
