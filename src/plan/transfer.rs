//! A plan on its way from the process that resolved it to the daemon that runs another one.
//!
//! Of the listeners that the daemon has already, there may be thousands, only where they stand in its plan
//! is said. Places are no part of a plan's JSON, because what only moved within its file has not changed
//! ([`super::fingerprint`]). Here those of what is new, or has moved, travel beside it, in the order in which
//! it stands in the plan.

use super::fingerprint::{Known, Position};
use super::model::{ListenerId, ListenerPlan, Plan, share};
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
    /// Which of the listeners have places beside them, by their numbers: those that are new, and those that
    /// have moved.
    placed: Vec<u32>,
    /// File, line, column and length of the sockets of those, then of the workers, then of the keys.
    places: Vec<(u16, u32, u32, u32)>,
    /// The keys, of each of those listeners, whose places are known.
    keys: Vec<Vec<Cow<'static, str>>>,
    origin: Arc<Origin>,
}

impl PlanTransfer {
    /// Packs a plan that was just resolved.
    pub fn pack(mut plan: Plan, known: &Known) -> PlanTransfer {
        let positions = plan.listeners.values().map(|one| known.position(one));
        let positions: Vec<Option<Position>> = positions.collect();
        let numbered = (0..).zip(plan.listeners.values()).zip(&positions);
        let placed = numbered.filter(|(_, position)| position.is_none_or(|known| known.has_moved));
        let placed: Vec<(u32, &ListenerPlan)> =
            placed.map(|((number, one), _)| (number, &**one)).collect();
        let sockets = placed.iter().flat_map(|(_, one)| &one.sockets);
        let workers = plan.workers.values().map(|worker| worker.place);
        let of_keys = placed.iter().flat_map(|(_, one)| &one.places);
        let places = sockets
            .map(|socket| socket.place)
            .chain(workers)
            .chain(of_keys.map(|(_, place)| *place));
        let places = places.map(parts).collect();
        let keys = |(_, one): &(u32, &ListenerPlan)| {
            let keys = one.places.iter();
            keys.map(|(key, _)| key.clone()).collect()
        };
        let keys = placed.iter().map(keys).collect();
        let placed = placed.into_iter().map(|(number, _)| number).collect();
        let mut is_new = positions.iter().map(Option::is_none);
        plan.listeners.retain(|_, _| is_new.next() == Some(true));
        let positions = positions.into_iter();
        PlanTransfer {
            listeners: positions.map(|known| known.map(|known| known.at)).collect(),
            placed,
            places,
            keys,
            origin: Arc::clone(&plan.origin),
            plan,
        }
    }

    /// The plan with its places, and what they point into. The listeners that `running` has are the same
    /// objects, with the keys that their sockets have there. `running` is the plan of which the other process
    /// was told; `None` if it was another one.
    pub fn unpack(mut self, running: &Plan) -> Option<(Plan, Sources)> {
        let mut new = std::mem::take(&mut self.plan.listeners);
        let made = new.values_mut().map(Arc::make_mut);
        share(made.map(|one| &mut one.settings));
        let mut new = new.into_values();
        let running: Vec<&Arc<ListenerPlan>> = running.listeners.values().collect();
        let listeners = self.listeners.into_iter().map(|known| match known {
            Some(at) => running.get(at as usize).map(|one| Arc::clone(one)),
            None => new.next(),
        });
        let mut listeners: Vec<Arc<ListenerPlan>> = listeners.collect::<Option<_>>()?;
        let mut from = self.places.into_iter().map(whole);
        for number in &self.placed {
            let listener = Arc::make_mut(listeners.get_mut(*number as usize)?);
            for (socket, place) in listener.sockets.iter_mut().zip(&mut from) {
                socket.place = place;
            }
        }
        for (worker, place) in self.plan.workers.values_mut().zip(&mut from) {
            // Just read, and nobody else has it.
            Arc::make_mut(worker).place = place;
        }
        for (number, keys) in self.placed.iter().zip(self.keys) {
            let listener = Arc::make_mut(listeners.get_mut(*number as usize)?);
            listener.places = keys.into_iter().zip(&mut from).collect();
        }
        self.plan.listeners = (0..)
            .map(ListenerId)
            .zip(listeners)
            .collect::<BTreeMap<_, _>>();
        let mut sources = Sources::default();
        for file in &self.origin.files {
            sources.add(&file.name, &file.text);
        }
        self.plan.origin = self.origin;
        Some((self.plan, sources))
    }
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
