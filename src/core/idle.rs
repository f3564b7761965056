//! What is known of the use that clients make of a worker.

use super::time::Mono;

/// What is known of the use that clients make of a worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle {
    /// When it is looked at next, while it runs. Stays until an answer is there.
    pub(super) look_at: Option<Mono>,
    /// The look under way.
    pub(super) look: Option<Look>,
    /// Since when nobody has used it: a look then found nobody, and no later one found anybody.
    pub(super) unused_since: Option<Mono>,
    /// When it was stopped because nobody used it, until it is started again.
    pub(super) stopped_at: Option<Mono>,
}

/// A look under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) since: Mono,
    /// The worker has ended or is another since.
    pub(super) is_void: bool,
}
