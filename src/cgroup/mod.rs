//! Control groups of workers (cgroups(7), version 2): limits, figures, and an end for all that a worker has started.
//!
//! listend has a subtree where the service manager gives it one (`Delegate=yes`), in a container, or as the owner
//! of one. Each process that listend starts for a worker with limits has a group of its own there, and what it
//! starts is in it, too. It enters the group itself, in the process that sets up its sandbox
//! (`Tree::enter`): the daemon waits for none of that.
//!
//! The kernel permits processes only in groups without groups below that have limits. So whoever comes first moves
//! listend into a group beside those of the workers, [`layout::DAEMON`].
//!
//! `layout` decides which group, and `words` why not; both are pure. The others carry out.

mod end;
mod enter;
mod figures;
mod layout;
mod look;
mod words;

pub use end::{Known, remove_empty};
pub use enter::Entrance;
pub use figures::{Figures, Groups, name_of_process, oom_kills};
pub use layout::{DAEMON, Tree, is_of, is_of_worker, name, without_own};
pub use look::{Whose, obstacles};
pub use words::Obstacle;

#[cfg(test)]
mod tests;
