//! Why a snapshot is refused.

use std::fmt;

/// Why a snapshot is refused, in words that can follow "the snapshot cannot be used:".
///
/// Nothing of it was used by then. Whoever has it goes on with the sockets alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThawError(String);

impl ThawError {
    pub(in crate::core) fn new(why: impl Into<String>) -> ThawError {
        ThawError(why.into())
    }
}

impl fmt::Display for ThawError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for ThawError {}
