//! All there is to print about one address, listener or worker.

use crate::config::Setting;
use crate::diagnose::Facts;
use crate::report::{Place, Problem, Report};
use crate::sandbox::Sandbox;

/// The listener of the configuration that is explained, or that has the address.
pub(super) struct Configured {
    pub(super) name: String,
    /// The place of the first address.
    pub(super) place: Option<Place>,
    /// The workers that take it.
    pub(super) workers: Vec<String>,
}

/// The worker of the configuration that is explained.
pub(super) struct ConfiguredWorker {
    pub(super) name: String,
    pub(super) place: Place,
    /// The name of its preset.
    pub(super) preset: Option<&'static str>,
    pub(super) settings: Vec<Setting>,
    /// What it is kept from.
    pub(super) sandbox: Option<Sandbox>,
    /// Advice about it.
    pub(super) advice: Vec<Problem>,
}

/// All there is to print.
pub(super) struct Explanation {
    pub(super) target: String,
    pub(super) configured: Option<Configured>,
    pub(super) worker: Option<ConfiguredWorker>,
    /// The facts about each socket.
    pub(super) sockets: Vec<Facts>,
    /// Why it cannot be bound, and advice.
    pub(super) findings: Report,
}
