//! The groups of sockets in which flows stay with their generation, and the generations whose end depends on
//! their flows.

mod serve;

use super::definitions::HeldSocket;
use crate::core::{Lane, Mono};
use crate::listener::FlowGroup;
use crate::plan::{SocketKey, WorkerId};
use std::collections::BTreeMap;

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// By the socket that the table has.
    pub(super) groups: BTreeMap<SocketKey, FlowGroup>,
    /// Why a socket that was to have one has none: it is shared.
    pub(super) refused: BTreeMap<SocketKey, String>,
    /// The generations of which the last flow is waited for, and when they are looked at.
    watched: BTreeMap<(WorkerId, Lane), Mono>,
    /// Others are to be kept than before.
    is_changed: bool,
    /// The groups that were made anew.
    made: Vec<SocketKey>,
}

impl Flows {
    /// Replaces those that these have for themselves.
    pub(super) fn put_own<'a>(
        &'a self,
        mut sockets: Vec<HeldSocket<'a>>,
        lane: Option<Lane>,
    ) -> Vec<HeldSocket<'a>> {
        for socket in &mut sockets {
            let group = self.groups.get(&socket.held.key);
            let own = group.zip(lane);
            if let Some(own) = own.and_then(|(group, lane)| group.own_socket(lane.0)) {
                socket.held = own;
            }
        }
        sockets
    }

    /// When a generation is looked at.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.watched.values().copied().min()
    }

    /// When the last of these flows is over; `None` if they are nowhere apart from others.
    fn quiet_at(&self, lane: Lane) -> Option<Mono> {
        let groups = self.groups.values();
        let apart = groups.filter(|group| group.present().0 != Some(lane.0));
        apart
            .filter_map(|group| group.quiet_at(lane.0))
            .max()
            .map(Mono)
    }

    /// The groups that were made anew since this was asked; `None` if nothing else is to be kept than then.
    pub(super) fn take_changed(&mut self) -> Option<Vec<SocketKey>> {
        let made = std::mem::take(&mut self.made);
        std::mem::take(&mut self.is_changed).then_some(made)
    }
}
