//! A plan on its way from the process that resolved it to the daemon that runs another one.
//!
//! Of the listeners that the daemon has already, there may be thousands, only where they stand in its plan
//! is said. Places are no part of a plan's JSON, because what only moved within its file has not changed
//! ([`super::fingerprint`]). Here they travel beside it, in the order in which they stand in the plan.

use super::fingerprint::Known;
use super::model::{ListenerId, ListenerPlan, Plan};
use super::origin::Origin;
use crate::report::{FileId, Place, Sources};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A plan, and all that it takes to show where something in it was written.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlanTransfer {
    /// With those listeners that the daemon does not have.
    plan: Plan,
    /// Each listener: where it stands in the plan of the daemon, or that it is the next one of this plan.
    listeners: Vec<Option<u32>>,
    /// File, line, column and length of the sockets, then of the workers, then of the keys.
    places: Vec<(u16, u32, u32, u32)>,
    /// The keys of each listener whose places are known.
    keys: Vec<Vec<Cow<'static, str>>>,
    origin: Arc<Origin>,
}

impl PlanTransfer {
    /// Packs a plan that was just resolved.
    pub fn pack(mut plan: Plan, known: &Known) -> PlanTransfer {
        let places = places(&plan).copied().map(parts).collect();
        let keys = |listener: &ListenerPlan| {
            let keys = listener.places.iter();
            keys.map(|(key, _)| key.clone()).collect()
        };
        let keys = plan.listeners.values().map(keys).collect();
        let positions = plan.listeners.values().map(|one| known.position(one));
        let listeners: Vec<Option<u32>> = positions.collect();
        let mut is_new = listeners.iter().map(Option::is_none);
        plan.listeners.retain(|_, _| is_new.next() == Some(true));
        PlanTransfer {
            listeners,
            places,
            keys,
            origin: Arc::clone(&plan.origin),
            plan,
        }
    }

    /// The plan with its places, and what they point into. `running` is the plan of which the other process
    /// was told; `None` if it was another one.
    pub fn unpack(mut self, running: &Plan) -> Option<(Plan, Sources)> {
        let mut new = std::mem::take(&mut self.plan.listeners).into_values();
        let running: Vec<&ListenerPlan> = running.listeners.values().collect();
        let listeners = self.listeners.into_iter().map(|known| match known {
            Some(at) => running.get(at as usize).map(|one| (*one).clone()),
            None => new.next(),
        });
        let numbered = (0..).map(ListenerId).zip(listeners);
        let numbered = numbered.map(|(id, listener)| Some((id, listener?)));
        self.plan.listeners = numbered.collect::<Option<BTreeMap<_, _>>>()?;
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
        let mut sources = Sources::default();
        for file in &self.origin.files {
            sources.add(&file.name, &file.text);
        }
        self.plan.origin = self.origin;
        Some((self.plan, sources))
    }
}

fn places(plan: &Plan) -> impl Iterator<Item = &Place> {
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
