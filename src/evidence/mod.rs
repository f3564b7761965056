//! Whether a process takes clients, as /proc shows it (proc(5)).
//!
//! A connection proves nothing while the supervisor holds the listener: the kernel queues it. What
//! counts is that the process, or one that it started, waits for clients: an epoll instance of it
//! watches the listener, or one of its threads sleeps in accept(2), poll(2), select(2) or the like
//! on it; or it has a connection that was accepted. docs/readiness.md has what real servers show, and what nobody can see.
//!
//! One look costs a bounded number of reads in /proc. It may wait without end for what the process
//! has mapped or polls, and so is made where nobody minds.

mod calls;
mod connections;
mod epoll;
mod memory;
mod ring;
mod search;
mod sight;
mod tree;

use crate::config::Every;
use search::Search;

pub use sight::{Sight, SocketInode, Why};

/// Looks once whether a process, with all that it started, takes clients of its listeners.
///
/// Each listener is given with all of its sockets that the process has; it counts as served when
/// each of them is seen, by whichever of the processes. Without any listener there is nothing to
/// miss, and the answer is [`Sight::Seen`]. The process is a child that has run its program and has
/// not been waited for: its pid cannot be another's by now.
pub fn look(main_pid: i32, listeners: &[impl AsRef<[SocketInode]>], wanted: Every) -> Sight {
    let wanted = match wanted {
        Every::All => listeners,
        Every::First => listeners.get(..1).unwrap_or_default(),
    };
    let sockets = wanted.iter().flat_map(|listener| listener.as_ref());
    let mut search = Search::new(sockets.copied().collect());
    search.tree(main_pid, tree::lists_children());
    search.sight()
}
