//! Samples and renders the metrics for who asks at the control socket, a little in each turn.
//!
//! Who asks with HTTP, at the address of `metrics:`, is answered by a worker of listend's own
//! ([`crate::web`]), which asks here.

mod sample;

use super::clock;
use crate::listener::DepthReader;
use crate::metrics::{Counters, Page, Rendering};
use std::time::Duration;

/// What the metrics need to keep.
pub(super) struct Metrics {
    pub(super) counters: Counters,
    /// When listend started, since the epoch.
    pub(super) started: Duration,
}

/// The text of one scrape in the making. Each step takes a small part of a turn.
pub(super) enum Job {
    Sampling(Box<Sampling>),
    Rendering(Rendering),
}

/// A page that is being filled.
#[derive(Default)]
pub(super) struct Sampling {
    page: Page,
    /// The listeners from this one on are to be looked at.
    next: u32,
    queues: DepthReader,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        Metrics {
            counters: Counters::default(),
            started: clock::wall(),
        }
    }
}

impl Job {
    /// Nothing is made yet.
    pub(super) fn new() -> Job {
        Job::Sampling(Box::default())
    }
}
