//! Binding everything a plan names, and collecting every failure.

use super::ahead::Ahead;
use super::bind_error::{BindError, BindStep, Failure, Note, NoteKind, Purpose};
use super::bound::BoundSocket;
use super::inherited;
use super::namespace::Namespaces;
use super::paths::TriedAt;
use super::read_back::Effective;
use super::table::{Adopted, SocketTable};
use super::{overlap, shards};
use crate::config::{Endpoint, Presence, Transport};
use crate::host::somaxconn;
use crate::plan::{ListenerId, ListenerPlan, Plan, SocketKey};
use std::collections::HashSet;
use std::net::SocketAddr;

/// The result of binding.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The sockets that were bound, also if there are errors; empty listeners when only tried.
    pub bound: SocketTable,
    /// Every failure, in the order of the plan.
    pub errors: Vec<BindError>,
    /// Successes that differ from the configuration.
    pub notes: Vec<Note>,
    /// The effective options, when binding was only tried: by listener, and by index into
    /// [`crate::plan::ListenerPlan::sockets`]. Otherwise the sockets have them.
    pub tried: Vec<(ListenerId, usize, Effective)>,
}

/// The number of tries in which `localhost:0` looks for a port that is free on both loopbacks.
const PORT_ATTEMPTS: u32 = 16;

/// Binds every socket of the plan and listens on those where clients queue. Goes on after a
/// failure, so that one run shows them all.
///
/// What is in `adopted` is not bound again: it gets the options that a live socket can be given,
/// and listen(2) with our backlog.
///
/// The sockets that could be bound are in the outcome also if others failed; a caller that gives
/// up calls [`SocketTable::withdraw`]. But a listener that the plan can do without
/// ([`BindError::is_tolerated`]) is bound in whole or not at all: if one of its sockets fails, the
/// others are taken back, so that no worker gets half of it; those that were adopted are set aside
/// for [`bind_missing`]. Its errors are in the outcome too.
pub fn bind_all(plan: &Plan, purpose: Purpose, adopted: Adopted) -> Outcome {
    let mut binder = Binder::new(purpose, adopted);
    binder.ahead = Ahead::of(plan, &binder.adopted);
    for (id, listener) in plan.listeners() {
        let sockets = binder.listener(id, listener, Vec::with_capacity(listener.sockets.len()));
        binder.outcome.bound.extend(sockets);
        binder.outcome.bound.note_slots(plan, id);
    }
    let mut outcome = binder.outcome;
    if purpose == Purpose::Try {
        // Held until here, so that two sockets of one plan are seen to collide. What cannot be
        // removed again is something that somebody else put there meanwhile.
        let _ = outcome.bound.remove_everything();
        let bound = std::mem::take(&mut outcome.bound);
        for (id, listener) in plan.listeners() {
            for (index, key) in listener.addresses().iter().map(|one| one.key).enumerate() {
                let effective = bound.get(key).map(|socket| &socket.effective);
                let effective = effective.into_iter().flatten().cloned();
                outcome.tried.extend(effective.map(|one| (id, index, one)));
            }
        }
    }
    outcome
}

/// Binds those sockets of one listener that are not bound yet: all of them, or none if one fails.
/// What it held before, it keeps.
///
/// After an error at [`BindStep::LeaveNamespace`] the process is in a network namespace that is not
/// its own; it should end.
pub fn bind_missing(
    plan: &Plan,
    listener: ListenerId,
    bound: &mut SocketTable,
) -> (Vec<BindError>, Vec<Note>) {
    let mut binder = Binder::new(Purpose::Keep, std::mem::take(&mut bound.set_aside));
    binder.is_late = true;
    let entry = plan.listener(listener);
    let has_shards = entry.shards() > 1;
    if has_shards {
        bound.share_with_former(entry, true);
    }
    let held = entry.keys().filter_map(|key| bound.take(key)).collect();
    let sockets = binder.listener(listener, entry, held);
    bound.extend(sockets);
    if has_shards {
        bound.share_with_former(entry, false);
    }
    bound.note_slots(plan, listener);
    bound.set_aside = binder.adopted;
    let mut outcome = binder.outcome;
    bound.set_aside.extend(outcome.bound.set_aside.drain());
    bound
        .created_folders
        .append(&mut outcome.bound.created_folders);
    (outcome.errors, outcome.notes)
}

/// Binds one socket of the plan once more, for one that is damaged beyond repair. `endpoint` is the
/// planned one, or has the port that it had.
pub(super) fn bind_again(
    plan: &Plan,
    listener: ListenerId,
    socket: usize,
    endpoint: &Endpoint,
) -> Result<BoundSocket, BindError> {
    let mut binder = Binder::new(Purpose::Keep, Adopted::default());
    let listener_plan = plan.listener(listener);
    let failed = |failure: Failure| failure.of(listener, socket);
    let inside = match &listener_plan.settings.network_namespace {
        None => None,
        Some(path) => Some(binder.namespaces.enter(path).map_err(failed)?),
    };
    // The other shards have the address.
    let beside = (listener_plan.shards() > 1).then(|| overlap::shared(listener_plan));
    let beside = beside.flatten();
    let listener_plan = beside.as_ref().unwrap_or(listener_plan);
    let mut result = binder.socket(listener, listener_plan, socket, endpoint);
    if let (Ok(Some(bound)), Some(_)) = (&mut result, &beside) {
        overlap::leave_unsaid(bound);
    }
    drop(inside);
    let missing = Failure::new(BindStep::Bind, nix::errno::Errno::EADDRNOTAVAIL);
    let result = result.and_then(|bound| bound.ok_or(missing));
    result.map_err(failed)
}

/// Binds listener after listener; [`super::bind_socket`] has what it does for a single socket.
pub(super) struct Binder {
    pub(super) purpose: Purpose,
    /// Whether sockets are bound after the start, for one listener.
    is_late: bool,
    adopted: Adopted,
    namespaces: Namespaces,
    /// What was bound before its turn.
    pub(super) ahead: Ahead,
    /// The places of paths that were only tried.
    pub(super) tried: HashSet<TriedAt>,
    /// The net.core.somaxconn of the current network namespace.
    pub(super) somaxconn: Option<u32>,
    /// The ports that sockets of the present listener have which are held already, by their index.
    pub(super) held_ports: Vec<Option<u16>>,
    pub(super) outcome: Outcome,
}

impl Binder {
    pub(super) fn new(purpose: Purpose, adopted: Adopted) -> Binder {
        Binder {
            purpose,
            is_late: false,
            adopted,
            namespaces: Namespaces::default(),
            ahead: Ahead::default(),
            tried: HashSet::new(),
            somaxconn: somaxconn(),
            held_ports: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Binds what is not in `held`, and answers with all of it.
    fn listener(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        held: Vec<BoundSocket>,
    ) -> Vec<BoundSocket> {
        let (errors, notes) = (self.outcome.errors.len(), self.outcome.notes.len());
        let kept: Vec<SocketKey> = held.iter().map(|socket| socket.key).collect();
        let all_or_none = self.is_late || listener.settings.presence != Presence::Required;
        let mut sockets = self.sockets(id, listener, held);
        if all_or_none && self.outcome.errors.len() > errors {
            self.take_back(
                notes,
                sockets.extract_if(.., |socket| !kept.contains(&socket.key)),
            );
        }
        sockets
    }

    /// Binds those sockets of a running listener that are not held yet. Of a listener that the plan can
    /// do without: all of them, or none if one fails.
    pub(super) fn add(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        is_held: impl Fn(usize) -> bool,
    ) -> Vec<BoundSocket> {
        let (errors, notes) = (self.outcome.errors.len(), self.outcome.notes.len());
        let mut sockets = Vec::new();
        self.bind_inside(id, listener, is_held, &mut sockets);
        if listener.settings.presence != Presence::Required && self.outcome.errors.len() > errors {
            self.take_back(notes, sockets.drain(..));
        }
        sockets
    }

    /// Gives up sockets of a listener that is not bound after all; `notes` is how many there were
    /// before it.
    fn take_back(&mut self, notes: usize, sockets: impl Iterator<Item = BoundSocket>) {
        for socket in sockets {
            // What cannot be removed will be in the way of the next try, which says so.
            let _ = socket.remove_path();
            if socket.is_adopted {
                let set_aside = &mut self.outcome.bound.set_aside;
                set_aside.insert(socket.key, socket.fd.into_owned());
            }
        }
        // About sockets that there are not; that a stale path has gone stays true.
        let mut index = 0;
        self.outcome.notes.retain(|note| {
            index += 1;
            index <= notes || note.kind == NoteKind::StaleReplaced
        });
    }

    fn sockets(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        held: Vec<BoundSocket>,
    ) -> Vec<BoundSocket> {
        let errors = self.outcome.errors.len();
        let mut sockets = held;
        let done = self.adopt(id, listener, &mut sockets);
        let is_done = |index: usize| done.get(index).is_some_and(|done| *done);
        if (0..listener.sockets.len()).all(is_done) {
            return sockets;
        }
        self.bind_inside(id, listener, is_done, &mut sockets);
        if !done.is_empty() {
            self.outcome.errors[errors..].sort_by_key(|error| error.socket);
        }
        sockets
    }

    /// Binds what is not done yet, in the network namespace of the listener.
    fn bind_inside(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        is_done: impl Fn(usize) -> bool,
        sockets: &mut Vec<BoundSocket>,
    ) {
        let inside = match &listener.settings.network_namespace {
            None => self.namespaces.at_home().map(|()| None),
            Some(path) => self.namespaces.enter(path).map(Some),
        };
        let inside = match inside {
            Ok(inside) => inside,
            Err(failure) => {
                let missing = (0..listener.sockets.len()).filter(|index| !is_done(*index));
                let failures = missing.map(|index| failure.clone().of(id, index));
                self.outcome.errors.extend(failures);
                return;
            }
        };
        let at_home = self.somaxconn;
        if inside.is_some() {
            self.somaxconn = somaxconn();
        }
        self.bind_rest(id, listener, is_done, sockets);
        drop(inside);
        self.somaxconn = at_home;
    }

    /// Adopts what there is to adopt. Answers, by index, which sockets are settled, and with nothing
    /// where none is: that is the rule, and costs nothing.
    fn adopt(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        sockets: &mut Vec<BoundSocket>,
    ) -> Vec<bool> {
        if sockets.is_empty() && self.adopted.is_empty() {
            return Vec::new();
        }
        let mut done = vec![false; listener.sockets.len()];
        for (done, planned) in done.iter_mut().zip(&listener.sockets) {
            *done = sockets.iter().any(|socket| socket.key == planned.key);
        }
        for (index, planned) in listener.sockets.iter().enumerate() {
            let Some(fd) = self.adopted.remove(&planned.key) else {
                continue;
            };
            done[index] = true;
            if self.purpose == Purpose::Try {
                // It is in use, and trying changes nothing.
                continue;
            }
            let result = match inherited::adopt(fd, &planned.endpoint, listener) {
                Ok(ready) => Ok(Some(self.bound(id, listener, index, ready))),
                Err((fd, failure)) => {
                    let set_aside = &mut self.outcome.bound.set_aside;
                    set_aside.insert(planned.key, fd);
                    Err(failure)
                }
            };
            self.file(id, index, result, sockets);
        }
        done
    }

    fn bind_rest(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        is_done: impl Fn(usize) -> bool,
        sockets: &mut Vec<BoundSocket>,
    ) {
        let mut index = 0;
        while index < listener.sockets.len() {
            if listener.sockets[index].shard > 0 {
                if !is_done(index) {
                    self.another_shard(id, listener, index, sockets);
                }
                index += 1;
                continue;
            }
            if is_localhost_pair(listener, index) {
                match (is_done(index), is_done(index + 1)) {
                    (false, false) => self.loopback_pair(id, listener, index, sockets),
                    (true, false) => self.other_half(id, listener, (index, index + 1), sockets),
                    (false, true) => self.other_half(id, listener, (index + 1, index), sockets),
                    (true, true) => {}
                }
                index += 2;
                continue;
            }
            if !is_done(index) {
                self.bind_and_file(id, listener, index, sockets);
            }
            index += 1;
        }
    }

    fn bind_and_file(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        index: usize,
        sockets: &mut Vec<BoundSocket>,
    ) {
        let result = self.socket(id, listener, index, &listener.sockets[index].endpoint);
        self.file(id, index, result, sockets);
    }

    /// One more socket at the address of a first one, with the port of that. The first was bound without
    /// SO_REUSEPORT, so that nobody else is there; where it failed, that is all there is to say.
    fn another_shard(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        index: usize,
        sockets: &mut Vec<BoundSocket>,
    ) {
        let first = listener.first_of(index);
        let key = listener.sockets[first].key;
        let bound = sockets.iter().find(|socket| socket.key == key);
        let port = match bound {
            Some(bound) => {
                shards::share(bound);
                bound.address.port()
            }
            None => self.held_ports.get(first).copied().flatten(),
        };
        let Some(port) = port else { return };
        let wanted = with_port(&listener.sockets[index].endpoint, port);
        let beside = overlap::shared(listener);
        let mut result = self.socket(id, beside.as_ref().unwrap_or(listener), index, &wanted);
        if let (Ok(Some(bound)), Some(_)) = (&mut result, &beside) {
            overlap::leave_unsaid(bound);
        }
        self.file(id, index, result, sockets);
    }

    /// The half of `localhost:0` that is missing gets the port of the one that is there.
    fn other_half(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        (there, missing): (usize, usize),
        sockets: &mut Vec<BoundSocket>,
    ) {
        let there = sockets
            .iter()
            .find(|socket| socket.key == listener.sockets[there].key);
        let port = there.and_then(|socket| socket.address.port());
        let wanted = with_port(&listener.sockets[missing].endpoint, port.unwrap_or(0));
        let result = self.socket(id, listener, missing, &wanted);
        self.file(id, missing, result, sockets);
    }

    /// `localhost:0`: both loopbacks get one and the same port.
    fn loopback_pair(
        &mut self,
        id: ListenerId,
        listener: &ListenerPlan,
        index: usize,
        sockets: &mut Vec<BoundSocket>,
    ) {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let first = self.socket(id, listener, index, &listener.sockets[index].endpoint);
            let port = match &first {
                Ok(Some(socket)) => socket.address.port(),
                _ => None,
            };
            let Some(port) = port else {
                // The first is missing or failed: the second stands alone.
                self.file(id, index, first, sockets);
                return self.bind_and_file(id, listener, index + 1, sockets);
            };
            let wanted = with_port(&listener.sockets[index + 1].endpoint, port);
            let second = self.socket(id, listener, index + 1, &wanted);
            if matches!(&second, Err(failure) if failure.errno == nix::libc::EADDRINUSE)
                && attempts < PORT_ATTEMPTS
            {
                // Dropping `first` frees its port; the kernel chooses ports at random.
                continue;
            }
            self.file(id, index, first, sockets);
            self.file(id, index + 1, second, sockets);
            return;
        }
    }

    fn file(
        &mut self,
        listener: ListenerId,
        socket: usize,
        result: Result<Option<BoundSocket>, Failure>,
        sockets: &mut Vec<BoundSocket>,
    ) {
        match result {
            Ok(Some(bound)) => {
                let changed = bound.effective.iter().filter(|one| !one.is_as_asked);
                let notes = changed.map(|one| Note {
                    listener,
                    socket,
                    kind: NoteKind::OptionChanged(one.clone()),
                });
                self.outcome.notes.extend(notes);
                sockets.push(bound);
            }
            Ok(None) => {}
            Err(failure) => self.outcome.errors.push(failure.of(listener, socket)),
        }
    }
}

/// Whether the sockets at `index` and behind it are the two halves of `localhost:0`. Only the
/// IPv6 half of `localhost` is both optional and V6ONLY.
fn is_localhost_pair(listener: &ListenerPlan, index: usize) -> bool {
    let half = |index: usize| -> Option<(Transport, SocketAddr, bool)> {
        match &listener.sockets.get(index)?.endpoint {
            Endpoint::Inet {
                transport,
                address,
                v6_only,
                optional,
                ..
            } => Some((
                *transport,
                *address,
                address.is_ipv6() && *optional && *v6_only,
            )),
            _ => None,
        }
    };
    let (Some(first), Some(second)) = (half(index), half(index + 1)) else {
        return false;
    };
    let loopback_zero = |address: SocketAddr| address.ip().is_loopback() && address.port() == 0;
    first.0 == second.0
        && first.1.is_ipv4() != second.1.is_ipv4()
        && loopback_zero(first.1)
        && loopback_zero(second.1)
        && (first.2 || second.2)
}

fn with_port(endpoint: &Endpoint, port: u16) -> Endpoint {
    let mut endpoint = endpoint.clone();
    if let Endpoint::Inet { address, .. } = &mut endpoint {
        address.set_port(port);
    }
    endpoint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Access, SocketPlan};
    use crate::report::{FileId, Place};

    fn is_pair(first: Endpoint, second: Endpoint) -> bool {
        let place = Place {
            file: FileId(0),
            line: 1,
            column: 1,
            length: 1,
        };
        let sockets = [first, second].into_iter().zip(0..);
        let sockets = sockets.map(|(endpoint, key)| SocketPlan {
            key: SocketKey(key),
            endpoint,
            shard: 0,
            place,
        });
        let listener = ListenerPlan::new("web".to_owned(), sockets.collect(), 16, Access::PRIVATE);
        is_localhost_pair(&listener, 0)
    }

    #[test]
    fn only_the_halves_of_localhost_get_one_port() {
        let end = |transport, address: &str, is_half| Endpoint::Inet {
            transport,
            address: address.parse().expect("an address"),
            v6_only: is_half,
            optional: is_half,
            scope: None,
        };
        let tcp = |address, is_half| end(Transport::Tcp, address, is_half);
        let (four, six) = (tcp("127.0.0.1:0", false), tcp("[::1]:0", true));
        assert!(is_pair(four.clone(), six.clone()));
        assert!(is_pair(six.clone(), four.clone()));
        for other in [
            tcp("127.0.0.1:80", false),
            tcp("192.0.2.1:0", false),
            tcp("[::1]:0", true),
            end(Transport::Udp, "127.0.0.1:0", false),
            Endpoint::MessageQueue { name: "/q".into() },
        ] {
            assert!(!is_pair(other.clone(), six.clone()), "{other:?}");
            assert!(!is_pair(six.clone(), other.clone()), "{other:?}");
        }
        // As somebody has written them, each for itself.
        assert!(!is_pair(four.clone(), tcp("[::1]:0", false)));
        for (v6_only, optional) in [(true, false), (false, true)] {
            let mut six = six.clone();
            if let Endpoint::Inet {
                v6_only: only,
                optional: may_lack,
                ..
            } = &mut six
            {
                (*only, *may_lack) = (v6_only, optional);
            }
            assert!(!is_pair(four.clone(), six));
        }
    }
}
