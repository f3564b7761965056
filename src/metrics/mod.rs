//! The metrics of listend, in the format of Prometheus.
//!
//! Pure: [`Counters`] are fed with what the core tells, a [`Page`] is what was found at one scrape,
//! and a [`Rendering`] turns it into text piece by piece, since ten thousand listeners are
//! megabytes. Nothing here opens, reads or waits.
//!
//! Every label comes from the configuration, or from a fixed set: however long the daemon runs and
//! whatever clients do, only a reload makes more series.

mod counters;
mod family;
mod page;
mod text;

pub use counters::{Counters, Exits, WorkerCounters};
pub use page::{DaemonRow, ListenerRow, Notices, Page, SocketRow, States, WorkerRow};
pub use text::{Rendering, plain};
