//! The event loop: does what the core decides, and decides nothing.
//!
//! One thread, one level-triggered epoll. No tick and no sleep: with nothing to do it stays in
//! epoll_wait(2) until something happens or the core's next deadline comes.

mod clients;
pub mod clock;
mod control;
mod definitions;
mod ending;
mod event_text;
mod fd_store;
mod files;
mod flows;
mod folders;
mod groups;
mod listeners;
pub mod logging;
mod logs;
mod looks;
mod manager;
mod memory_events;
mod metrics;
mod notify;
mod outflow;
mod own_socket;
mod pipes;
mod problem_line;
mod process;
mod queues;
mod reap;
mod reload;
mod repair_own;
mod reserve;
mod rollback_reasons;
mod shards;
mod signals;
mod spawn;
mod stdout;
mod store;
mod strays;
mod token;
mod turn;
mod watch;
mod writer;

pub use control::{Control, ControlSocket, NoControl};
pub use manager::{Manager, ReadyWhen, Summary};
pub use notify::{NotifyCounters, WorkerStatus};
pub(crate) use problem_line::one_line;
pub use reserve::is_room_left;
pub use signals::Signals;
pub use store::{KnownSocket, LeftWorker, Past, Resumed, Thawed, left_files};
pub use turn::Shell;
