//! The result of reading an address.

use super::value_error::ValueError;
use crate::report::Kind;

/// Whether the IPv6 sockets of a listener take IPv6 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum V6 {
    Only,
    AndV4,
}

pub(super) type AddressResult<T> = Result<T, ValueError>;

pub(super) fn bad(message: impl Into<String>) -> ValueError {
    ValueError::new(Kind::BadAddress, message)
}
