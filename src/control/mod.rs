//! The control socket as far as it needs no socket: varlink, and what listend has to say in it.
//!
//! Pure: bytes in, bytes out. [`Inbox`] cuts what a client sends into frames, [`Call::read`] takes a
//! frame apart, [`Request::of`] makes sense of it within what [`Access`] permits, a [`Reply`] goes
//! into the [`Outbox`]. `docs/io.listend.Manager.varlink` is the interface. The other end is here as
//! well: [`Status`] is read as it is written, and [`table`](fn@table) shows it.

mod access;
mod answer;
mod call;
mod columns;
mod interface;
mod status;
mod table;
mod time;
mod width;
mod wire;

pub use access::{Access, Owner, Peer};
pub use answer::{
    CheckReply, DescriptionReply, Event, ExplainReply, GiveReply, LogLine, LogsReply, MetricsReply,
    Progress, TakeReply, TakenSocket, WatchReply,
};
pub use call::{BEFORE_PARAMETERS, Call, Error, Expects, Reject, Reply};
pub use columns::{Cell, Column, Fit, Severity, Sheet, fitted};
pub use interface::{Argument, INTERFACE, Info, Request, SERVICE, description, info, methods};
pub use status::{
    Binary, Connections, Daemon, Detail, Flows, Instance, Life, Listener, ListenerState, Queue,
    Rollout, Scaling, Socket, SocketOption, Status, Usage, Worker, WorkerState, all_is_well,
    troubles,
};
pub use table::{WORKER_COLUMNS, WorkerRow, listener_severity, or_dash, table};
pub use time::{age, rfc3339, short};
pub use width::{clean, cut_end, cut_middle, width};
pub use wire::{FrameTooLong, Inbox, MAX_FRAME, MAX_WAITING, Outbox, Unread};
