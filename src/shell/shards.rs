//! Which shards get the clients of workers that have a socket for each instance (`distribute: shards`).

mod serve;

use crate::plan::WorkerId;
use std::collections::{BTreeMap, BTreeSet};

/// The shards of each worker that new clients are sent to.
#[derive(Debug, Default)]
pub(super) struct Steering(pub(super) BTreeMap<WorkerId, BTreeSet<u32>>);
