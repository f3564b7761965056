//! The control socket as far as it needs no socket: varlink, and what listend has to say in it.
//!
//! Pure: bytes in, bytes out. [`Inbox`] cuts what a client sends into frames, [`Call::read`] takes a
//! frame apart, a [`Reply`] goes into the [`Outbox`].

mod call;
mod wire;

pub use call::{Call, Error, Expects, Reject, Reply};
pub use wire::{FrameTooLong, Inbox, MAX_FRAME, MAX_WAITING, Outbox, Unread};
