//! What must outlive the process: descriptors, each with a name, and a memory file with facts about them.
//!
//! A keeper holds copies of the descriptors and hands them to the next listend: the process itself when
//! it executes a new binary ([`hand_over`]), systemd (`FDSTORE=1`, sd_pid_notify_with_fds(3)) or
//! `listend run --guard`. The next one finds them by [`Name`], and recognises each by what the kernel says
//! of it ([`Identity`]). What the facts are about is not known here: [`Journal`] has lines of text.

mod holder;
mod identity;
mod in_place;
mod journal;
mod keeper;
mod name;

pub use holder::{Holder, not_taken};
pub use identity::Identity;
pub use in_place::{Kept, NotHandedOver, hand_over, take_back};
pub use journal::{Damaged, Journal};
pub use keeper::{HANGS_UP, Keeper, LIMITS, MOST_PER_MESSAGE, Refused};
pub use name::Name;
