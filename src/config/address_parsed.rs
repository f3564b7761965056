//! What reading an address comes to.

use super::complaint::Complaint;
use crate::report::Kind;

/// Whether the IPv6 sockets of a listener take IPv6 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum V6 {
    Only,
    AndV4,
}

pub(super) type Parsed<T> = Result<T, Complaint>;

pub(super) fn bad(message: impl Into<String>) -> Complaint {
    Complaint::new(Kind::BadAddress, message)
}
