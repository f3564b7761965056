//! A plan on its way from the process that resolved it to the daemon that runs it.
//!
//! Places are no part of a plan's JSON, because what only moved within its file has not changed
//! ([`super::fingerprint`]). Here they travel beside it, in the order in which they stand in the plan,
//! with the lines that they are on.

use super::model::{ListenerPlan, Plan};
use super::origin::Origin;
use crate::report::{Excerpts, FileId, Place, Sources};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// A plan, and all that it takes to show where something in it was written.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanTransfer {
    plan: Plan,
    /// File, line, column and length of the sockets, then of the workers, then of the keys.
    places: Vec<(u16, u32, u32, u32)>,
    /// The keys of each listener whose places are known.
    keys: Vec<Vec<Cow<'static, str>>>,
    sources: Excerpts,
    origin: Arc<Origin>,
}

impl PlanTransfer {
    /// Packs a plan that was just resolved.
    pub fn pack(plan: Plan, sources: &Sources) -> PlanTransfer {
        let places = places(&plan).copied();
        let keys = |listener: &ListenerPlan| {
            let keys = listener.places.iter();
            keys.map(|(key, _)| key.clone()).collect()
        };
        PlanTransfer {
            keys: plan.listeners.values().map(keys).collect(),
            places: places.clone().map(parts).collect(),
            sources: sources.excerpts(places),
            origin: Arc::clone(&plan.origin),
            plan,
        }
    }

    /// The plan with its places, and what they point into.
    pub fn unpack(mut self) -> (Plan, Sources) {
        self.plan.number_sockets();
        for (listener, keys) in self.plan.listeners.values_mut().zip(self.keys) {
            let keys = keys.into_iter();
            listener.places = keys.map(|key| (key, Place::default())).collect();
        }
        let mut from = self.places.into_iter().map(whole);
        let listeners = self.plan.listeners.values_mut();
        let sockets = listeners.flat_map(|listener| &mut listener.sockets);
        for (socket, place) in sockets.zip(&mut from) {
            socket.place = place;
        }
        for (worker, place) in self.plan.workers.values_mut().zip(&mut from) {
            // Just read, and nobody else has it.
            Arc::make_mut(worker).place = place;
        }
        let listeners = self.plan.listeners.values_mut();
        for (key, place) in listeners.flat_map(|one| &mut one.places).zip(&mut from) {
            key.1 = place;
        }
        self.plan.origin = self.origin;
        (self.plan, self.sources.into())
    }
}

fn places(plan: &Plan) -> impl Iterator<Item = &Place> + Clone {
    let sockets = plan
        .listeners
        .values()
        .flat_map(|listener| &listener.sockets);
    let workers = plan.workers.values().map(|worker| &worker.place);
    let keys = plan
        .listeners
        .values()
        .flat_map(|listener| &listener.places);
    sockets
        .map(|socket| &socket.place)
        .chain(workers)
        .chain(keys.map(|(_, place)| place))
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
