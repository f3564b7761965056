//! All there is to print about one address or listener.

use crate::diagnose::Facts;
use crate::report::{Place, Report};

/// The listener of the configuration that is explained, or that has the address.
pub(super) struct Configured {
    pub(super) name: String,
    /// The place of the first address.
    pub(super) place: Option<Place>,
    /// The workers that take it.
    pub(super) workers: Vec<String>,
}

/// All there is to print.
pub(super) struct Explanation {
    pub(super) target: String,
    pub(super) configured: Option<Configured>,
    /// The facts about each socket.
    pub(super) sockets: Vec<Facts>,
    /// Why it cannot be bound, and advice.
    pub(super) findings: Report,
}
