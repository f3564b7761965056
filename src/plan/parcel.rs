//! A plan on its way from the process that resolved it to the daemon that runs it.
//!
//! Places are no part of a plan's JSON, because what only moved within its file has not changed
//! ([`super::fingerprint`]). Here they travel beside it, in the order in which they stand in the plan,
//! with the lines that they are on.

use super::model::Plan;
use crate::report::{Excerpts, FileId, Place, Sources};
use serde::{Deserialize, Serialize};

/// A plan, and all that it takes to show where something in it was written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parcel {
    plan: Plan,
    /// File, line, column and length of the sockets, then of the workers.
    places: Vec<(u16, u32, u32, u32)>,
    sources: Excerpts,
}

impl Parcel {
    /// Packs a plan that was just resolved.
    pub fn pack(plan: Plan, sources: &Sources) -> Parcel {
        let places = places(&plan).copied();
        Parcel {
            places: places.clone().map(parts).collect(),
            sources: sources.excerpts(places),
            plan,
        }
    }

    /// The plan with its places, and what they point into.
    pub fn unpack(mut self) -> (Plan, Sources) {
        let sockets = self.plan.listeners.iter_mut();
        let sockets = sockets.flat_map(|listener| &mut listener.sockets);
        let sockets = sockets.map(|socket| &mut socket.place);
        let workers = self.plan.workers.iter_mut().map(|worker| &mut worker.place);
        for (place, from) in sockets.chain(workers).zip(self.places) {
            *place = whole(from);
        }
        (self.plan, self.sources.into())
    }
}

fn places(plan: &Plan) -> impl Iterator<Item = &Place> + Clone {
    let sockets = plan.listeners.iter().flat_map(|listener| &listener.sockets);
    let workers = plan.workers.iter().map(|worker| &worker.place);
    sockets.map(|socket| &socket.place).chain(workers)
}

fn parts(place: Place) -> (u16, u32, u32, u32) {
    (place.file.0, place.line, place.column, place.length)
}

fn whole((file, line, column, length): (u16, u32, u32, u32)) -> Place {
    Place {
        file: FileId(file),
        line,
        column,
        length,
    }
}
