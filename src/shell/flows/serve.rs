//! Carrying out what the core decides about flows, and telling it what the kernel has seen of them.

use super::Flows;
use crate::control;
use crate::core::{Input, InstanceId, Lane, Revision};
use crate::diagnose;
use crate::listener::{self, FlowError, FlowGroup, IoMode, Member};
use crate::plan::{SocketKey, WorkerId};
use crate::shell::clock;
use crate::shell::definitions::HeldSocket;
use crate::shell::event_text;
use crate::shell::process::Process;
use crate::shell::turn::Shell;

impl Shell {
    /// Makes and dissolves groups as the plan has it, and takes over what else has changed of sockets.
    pub(in crate::shell) fn follow_flows(&mut self) {
        let now = clock::now();
        let mut flows = std::mem::take(&mut self.flows);
        let mut quiet = Vec::new();
        for (key, group) in std::mem::take(&mut flows.groups) {
            let held = self.sockets.get(key);
            let listener = held.and_then(|held| self.plan.find_listener(held.listener));
            let wanted = listener.and_then(|listener| listener.settings.flows);
            let mut group = group;
            let is_wanted = match wanted {
                // What the configuration has no more goes on as it is.
                None => held.is_some() && self.sockets.is_former(key),
                Some(wanted) => !group.is_ending() && group.set(&wanted),
            };
            if is_wanted {
                flows.groups.insert(key, group);
                continue;
            }
            let (present, ..) = group.present();
            let lanes = group.members().map(|(lane, _)| Lane(lane));
            quiet.extend(lanes.filter(|lane| Some(lane.0) != present));
            // Without its socket there is nothing to steer.
            if !group.begin_to_end() && held.is_some() {
                flows.groups.insert(key, group);
                continue;
            }
            group.dissolve(held.map(|held| (held, listener)));
            flows.refused.remove(&key);
            flows.is_changed = true;
        }
        for listener in self.plan.listeners.values() {
            let Some(wanted) = &listener.settings.flows else {
                continue;
            };
            for held in self.sockets.of(listener) {
                if flows.groups.contains_key(&held.key) {
                    continue;
                }
                let named = format!("listener {} ({})", listener.name, held.address);
                match FlowGroup::new(listener, held, wanted, now.0) {
                    Ok(mut group) => {
                        if let Some(lane) = self.core.heir_of_flows(held.listener) {
                            // It has the socket of the table, so that none is bound.
                            let _of_table = group.give(lane.0, listener, held, now.0);
                        }
                        flows.refused.remove(&held.key);
                        flows.groups.insert(held.key, group);
                        flows.made.push(held.key);
                        flows.is_changed = true;
                    }
                    Err(error) => {
                        let why = why_not(&error);
                        if flows.refused.get(&held.key) != Some(&why) {
                            log::warn!(
                                "{named}: cannot keep flows with their generation: {why}; the socket is \
                                 shared by old and new instances"
                            );
                        }
                        flows.refused.insert(held.key, why);
                    }
                }
            }
        }
        self.flows = flows;
        let watched = self.flows.watched.keys().copied();
        let quiet: Vec<(WorkerId, Lane)> =
            watched.filter(|(_, lane)| quiet.contains(lane)).collect();
        for (worker, lane) in quiet {
            self.flows_are_quiet(worker, lane);
        }
        self.store.touch();
    }

    /// The table has another socket for this, in another network namespace, where no flow has come yet. It
    /// cannot be in one group with those before, which the processes that have flows keep.
    pub(in crate::shell) fn flows_of_another_socket(&mut self, key: SocketKey) {
        self.forget_flows(key);
        self.follow_flows();
    }

    /// Gives an instance sockets of its own where flows are kept apart.
    pub(in crate::shell) fn give_sockets(
        &mut self,
        instance: InstanceId,
        revision: Revision,
        lane: Lane,
    ) {
        if self.flows.groups.is_empty() {
            return;
        }
        let now = clock::now().0;
        let definition = self.definitions.get(instance.worker, revision);
        let sockets = definition.sockets(&self.plan, &self.sockets);
        let nonblocking = definition.plan.lifecycle.nonblocking;
        let (mut dropped, mut given) = (Vec::new(), Vec::new());
        for HeldSocket { plan, held, .. } in sockets {
            let group = self.flows.groups.get_mut(&held.key);
            let (Some(group), Some(plan)) = (group, plan) else {
                continue;
            };
            let had = group.has(lane.0);
            match group.give(lane.0, plan, held, now) {
                Ok(other) => dropped.extend(other.map(Lane)),
                Err(error) => log::warn!(
                    "listener {}: no socket of its own for a new instance, which shares the one before: {}",
                    plan.name,
                    why_not(&error)
                ),
            }
            if !had {
                given.push((held.key, held.listener));
                self.flows.is_changed = true;
                self.store.touch();
            }
            let mode = match nonblocking {
                true => IoMode::NonBlocking,
                false => IoMode::Blocking,
            };
            let own = group.own_socket(lane.0);
            if let Some(Err(error)) = own.map(|own| listener::set_mode(own, mode)) {
                log::warn!("cannot set O_NONBLOCK on {}: {error}", held.address);
            }
        }
        for (key, listener) in given {
            let present = self.flows.groups.get(&key);
            let present = present.and_then(|group| group.present().0).map(Lane);
            if present.is_some_and(|one| self.core.takes_flows_at_once(listener, instance, one)) {
                self.take_flows_at(key, lane);
            }
        }
        for lane in dropped {
            log::warn!(
                "too many generations have flows: the oldest loses its flows and is asked to stop"
            );
            self.flows_are_quiet(instance.worker, lane);
        }
    }

    /// The sockets that an instance has, or gets.
    pub(in crate::shell) fn sockets_of(
        &self,
        instance: InstanceId,
        revision: Revision,
        lane: Option<Lane>,
    ) -> Vec<HeldSocket<'_>> {
        let definition = self.definitions.get(instance.worker, revision);
        let sockets = definition.sockets_of(instance.index, &self.plan, &self.sockets);
        self.flows.put_own(sockets, lane)
    }

    /// New flows go to this instance from now on.
    pub(in crate::shell) fn take_flows(&mut self, worker: WorkerId, lane: Lane) {
        let takes = |(key, group): (&SocketKey, &FlowGroup)| {
            let listener = self.sockets.get(*key)?.listener;
            let takes = self.core.takes_flows(listener, worker, group.has(lane.0));
            takes.then_some(*key)
        };
        let keys: Vec<SocketKey> = self.flows.groups.iter().filter_map(takes).collect();
        keys.into_iter()
            .for_each(|key| self.take_flows_at(key, lane));
    }

    fn take_flows_at(&mut self, key: SocketKey, lane: Lane) {
        let Some(group) = self.flows.groups.get_mut(&key) else {
            return;
        };
        match group.promote(lane.0, clock::now().0) {
            Ok(None) => {}
            Ok(Some((socket, before))) => {
                let is_parked = self.watch.is_parked(key);
                if let Some(held) = self.sockets.get(key) {
                    self.watch.unwatch(&self.epoll, held);
                }
                let Some(old) = self.sockets.exchange(socket) else {
                    return;
                };
                group.demoted(lane.0, (old, before));
                if let Some(held) = self.sockets.get(key) {
                    self.watch.socket(&self.epoll, held);
                    if is_parked {
                        self.watch.clients(&self.epoll, held, false);
                    }
                }
            }
            Err(error) => {
                log::warn!("new flows still go to the instance before: {error}");
                return;
            }
        }
        self.flows.is_changed = true;
        self.store.touch();
    }

    /// A socket was closed: so are those that its flows had.
    pub(in crate::shell) fn forget_flows(&mut self, key: SocketKey) {
        self.flows.refused.remove(&key);
        if let Some(group) = self.flows.groups.remove(&key) {
            group.dissolve(None);
            self.flows.is_changed = true;
        }
    }

    /// Waits for the last flow of an instance that was replaced.
    pub(in crate::shell) fn watch_flows(&mut self, worker: WorkerId, lane: Lane) {
        match self.flows.quiet_at(lane) {
            Some(at) => {
                self.flows.watched.insert((worker, lane), at);
            }
            // It shares its socket with what has replaced it.
            None => self.flows_are_quiet(worker, lane),
        }
    }

    /// Looks at the generations whose last flow may be over.
    pub(in crate::shell) fn look_at_flows(&mut self) {
        if self.flows.watched.is_empty() {
            return;
        }
        let now = clock::now();
        let due = self.flows.watched.iter().filter(|(_, at)| **at <= now);
        let due: Vec<(WorkerId, Lane)> = due.map(|(of, _)| *of).collect();
        for (worker, lane) in due {
            match self.flows.quiet_at(lane) {
                Some(at) if at > now => {
                    self.flows.watched.insert((worker, lane), at);
                }
                Some(_) | None => {
                    let groups = self.flows.groups.values();
                    groups.for_each(|group| group.close(lane.0));
                    self.flows_are_quiet(worker, lane);
                }
            }
        }
    }

    /// The flows of each instance at a socket, the present one first; `None` where they are not steered.
    pub(in crate::shell) fn flow_status(&self, key: SocketKey) -> Option<Vec<control::Flows>> {
        let group = self.flows.groups.get(&key)?;
        let counts = group.count(clock::now().0).ok();
        let (present, ..) = group.present();
        let flows_of = |(lane, member): (u64, &Member)| {
            let mut processes = self.processes.iter().map(|(_, process)| process);
            let is_it = |one: &&Process| one.lane == Some(Lane(lane)) && one.has_listeners();
            let instance = processes.find(is_it).map(|process| process.instance);
            let name = |instance| event_text::instance_name(&self.definitions, instance);
            control::Flows {
                instance: instance.map(name),
                generation: instance.map(|instance| instance.generation),
                present: present == Some(lane),
                count: counts.as_ref().map(|counts| {
                    let count = counts.get(&member.generation);
                    count.copied().unwrap_or(0)
                }),
            }
        };
        let mut all: Vec<control::Flows> = group.members().map(flows_of).collect();
        all.sort_by_key(|flows| !flows.present);
        Some(all)
    }

    fn flows_are_quiet(&mut self, worker: WorkerId, lane: Lane) {
        self.flows.watched.remove(&(worker, lane));
        self.feed(Input::FlowsQuiet { worker, lane });
    }

    /// Nothing is started with these sockets any more.
    pub(in crate::shell) fn end_flows(&mut self, worker: WorkerId, lane: Lane) {
        let Flows {
            groups,
            watched,
            is_changed,
            ..
        } = &mut self.flows;
        watched.remove(&(worker, lane));
        let (mut is_over, mut left) = (false, Vec::new());
        for (key, group) in groups.iter_mut().filter(|(_, group)| group.has(lane.0)) {
            group.end(lane.0);
            left.extend(group.present().0.is_none().then_some(*key));
            is_over |= group.is_ending() && group.begin_to_end();
            *is_changed = true;
            self.store.touch();
        }
        for key in left {
            self.give_flows_to_who_is_left(key);
        }
        if is_over {
            self.follow_flows();
        }
    }

    /// Whoever had the present flows has ended, and no rollout tells who has them now.
    fn give_flows_to_who_is_left(&mut self, key: SocketKey) {
        let held = self.sockets.get(key);
        let lane = held.and_then(|held| self.core.heir_of_flows(held.listener));
        let group = self.flows.groups.get(&key);
        if let (Some(lane), Some(group)) = (lane, group)
            && group.has(lane.0)
        {
            self.take_flows_at(key, lane);
        }
    }
}

/// Why, and what this machine lacks.
fn why_not(error: &FlowError) -> String {
    match error {
        FlowError::Bpf(error) => diagnose::why_no_bpf(error),
        FlowError::Bind(_) | FlowError::Option(_) => error.to_string(),
    }
}
