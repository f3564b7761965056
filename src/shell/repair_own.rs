//! Repairing listend's own sockets, whose files others may have removed or changed.

use super::clock;
use super::event_text;
use super::own_socket::OwnRepair;
use super::turn::Shell;
use super::watch::Owner;
use crate::listener::Repair;
use crate::plan::{Plan, WorkerPlan};
use crate::worker;
use std::path::Path;

/// How often a socket is repaired in a row.
const REPAIRS: u32 = 3;

impl Shell {
    /// Repairs a socket of listend's own, which is watched anew then; until what is watched is sound.
    pub(super) fn repair_own(&mut self, owner: Owner) {
        let mut is_sound = false;
        for _ in 0..REPAIRS {
            let found = match owner {
                Owner::Control => self.control.repair(&self.epoll),
                Owner::Notify => self.notify.repair(&self.epoll),
                Owner::Acks => self.notify.repair_acks(&self.epoll),
                Owner::Socket(_) => None,
            };
            let Some(found) = found else {
                is_sound = true;
                break;
            };
            self.log_own_repair(owner, &found);
            // It may be another one.
            self.store.touch();
            self.watch_files_of(owner);
            if found.done.is_err() {
                break;
            }
        }
        self.watch.note_own(owner, is_sound, clock::now());
    }

    fn log_own_repair(&self, owner: Owner, found: &OwnRepair) {
        let (name, who_has_it, meanwhile): (_, fn(&WorkerPlan) -> bool, _) = match owner {
            Owner::Control | Owner::Socket(_) => {
                ("control socket", |_| false, "no client can connect")
            }
            Owner::Notify => (
                "notify socket",
                |worker| worker.notify_access.is_some(),
                "workers cannot send notifications",
            ),
            Owner::Acks => (
                "einhorn socket",
                |worker| worker.handoff.acknowledges(),
                "workers cannot tell that they are up",
            ),
        };
        let (what, path) = (event_text::damage(found.damage), &found.path);
        match &found.done {
            Ok(Repair::PutBack | Repair::ListenedAgain) => {
                log::warn!("{name}: {path} was {what}; restored");
            }
            Ok(Repair::Rebound | Repair::Followed) => {
                let cut_off = cut_off(&self.plan, path, who_has_it);
                log::warn!("{name}: {path} was {what}; restored{cut_off}");
            }
            Err(why) => {
                let again_in = event_text::duration(self.watch.repair_delay(owner));
                log::error!(
                    "{name}: {path} was {what}, and cannot be restored: {why}; until then \
                     {meanwhile}; retrying in {again_in}"
                );
            }
        }
    }

    /// Looks again at what could not be repaired. Nothing tells when it can be: when a disk has room, for one.
    pub(super) fn repair_own_again(&mut self) {
        for owner in self.watch.damaged_own(clock::now()) {
            self.repair_own(owner);
        }
    }

    /// While listend stops, its own files are not watched for a moment, which most stops need no longer than.
    /// Without a keeper they go with it.
    pub(super) fn rest_from_files(&mut self) {
        if !self.core.is_stopping() {
            return;
        }
        let now = clock::now();
        if !self.store.leaves_files() {
            self.watch.rest(now);
        }
        if self.watch.has_rested(now) {
            self.begin_watching_own();
        }
    }

    /// Watches the files of listend's own sockets, and repairs what happened to them before.
    pub(super) fn begin_watching_own(&mut self) {
        for owner in [Owner::Control, Owner::Notify, Owner::Acks] {
            self.watch_files_of(owner);
            self.repair_own(owner);
        }
    }
}

/// Says which of the workers that have a socket have the one of before: where their sandbox hides what is around it,
/// they were given that alone.
fn cut_off(plan: &Plan, address: &str, has_one: impl Fn(&WorkerPlan) -> bool) -> String {
    let workers = plan.workers().map(|(_, worker)| worker);
    let workers = workers
        .filter(|worker| has_one(worker) && worker::is_hidden_from(worker, Path::new(address)));
    let names: Vec<String> = workers.map(|worker| format!("`{}`", worker.name)).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(
            " as another socket; what runs in a sandbox that hides the folder cannot reach it until it is \
             restarted: {}",
            names.join(", ")
        ),
    }
}
