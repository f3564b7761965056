//! A start with what a service manager has kept, but not as it was: a restart.

use super::output::count;
use crate::config::Endpoint;
use crate::listener::{
    self, Adopted, Going, Inherited, Outcome, PathIdentity, Purpose, SocketRecord, UnknownPorts,
};
use crate::plan::{ListenerPlan, Plan, SocketKey, SocketPlan};
use crate::shell::clock::now;
use crate::shell::{KnownSocket, left_files};
use crate::store::{self, Identity, Keeper, Name};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// How long the keeper may take to give up what is needed no longer.
const SETTLED: Duration = Duration::from_secs(5);

/// What there is where listend cannot go on.
#[derive(Default)]
pub(super) struct Leftover {
    /// The sockets, with the numbers of their names.
    sockets: Vec<(u32, OwnedFd)>,
    /// What is known of them.
    records: HashMap<Identity, SocketRecord>,
    /// The names of the listeners whose they were.
    listeners: HashMap<Identity, String>,
    /// Everything else that the keeper has.
    others: BTreeSet<Name>,
}

impl Leftover {
    /// Of what was kept nothing but sockets is of use.
    pub(super) fn of(kept: Vec<store::Kept>, known: Vec<KnownSocket>) -> Leftover {
        let (mut records, mut listeners) = (HashMap::new(), HashMap::new());
        for KnownSocket {
            identity,
            listener,
            record,
        } in known
        {
            listeners.extend(listener.map(|name| (identity.clone(), name)));
            records.insert(identity, record);
        }
        let mut left = Leftover {
            records,
            listeners,
            ..Leftover::default()
        };
        left.others.insert(Name::Snapshot);
        for store::Kept { name, fd } in kept {
            match name {
                Name::Sockets(group) => left.sockets.push((group, fd)),
                name => {
                    if name == Name::Control
                        && let Err(error) = listener::hide(&fd)
                    {
                        log::warn!("cannot remove the path of the control socket: {error}");
                    }
                    left.others.insert(name);
                }
            }
        }
        left
    }
}

/// The sockets that go on.
pub(super) struct Kept {
    pub(super) sockets: Adopted,
    /// The numbers of the names under which the keeper has them.
    pub(super) names: Vec<(u32, SocketKey, Identity)>,
    pub(super) records: Vec<(SocketKey, SocketRecord)>,
    /// Those that do not.
    pub(super) going: Going,
}

/// Gives kept sockets to their listeners, and gives up those that no listener has any more.
pub(super) fn adopt(plan: &Plan, left: Leftover, keeper: Option<&mut Keeper>) -> Kept {
    let before = left.sockets.len();
    let groups: HashMap<RawFd, u32> = left
        .sockets
        .iter()
        .map(|(group, fd)| (fd.as_raw_fd(), *group))
        .collect();
    let mut addresses: HashMap<RawFd, Endpoint> = left
        .sockets
        .iter()
        .filter_map(|(_, fd)| Some((fd.as_raw_fd(), listener::endpoint_of(fd)?)))
        .collect();
    let mut lost: HashMap<u32, usize> = HashMap::new();
    for group in groups.values() {
        *lost.entry(*group).or_default() += 1;
    }
    let mut kept = sort(plan, left.sockets, left.records, &left.listeners, &groups);
    for fd in kept.sockets.values() {
        addresses.remove(&fd.as_raw_fd());
    }
    kept.going = Going::new(addresses.into_values().collect());
    for (group, ..) in &kept.names {
        if let Some(left) = lost.get_mut(group) {
            *left -= 1;
        }
    }
    let in_use: HashSet<PathIdentity> = kept
        .records
        .iter()
        .filter_map(|(_, record)| record.identity())
        .collect();
    if let Some(list) = left_files() {
        for (path, error) in listener::remove_left_files(&list, &in_use) {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
    // A name is given up as a whole; what is left of it gets another.
    lost.retain(|_, lost| *lost > 0);
    let names = kept.names.into_iter();
    let names = names.filter(|(group, ..)| !lost.contains_key(group));
    let kept = Kept {
        names: names.collect(),
        ..kept
    };
    if let Some(keeper) = keeper {
        // As long as another has the control socket, a listend seems to be there.
        let are_in_the_way = !lost.is_empty() || left.others.contains(&Name::Control);
        let sockets = lost.keys().map(|group| Name::Sockets(*group));
        for name in left.others.into_iter().chain(sockets) {
            keeper.remove(name);
        }
        if are_in_the_way && let Err(errno) = keeper.settle(SETTLED) {
            log::warn!(
                "sockets that are needed no longer may still be open: {}",
                errno.desc()
            );
        }
    }
    if before > 0 {
        log::info!(
            "{} kept over the restart, {} closed that the configuration does not have",
            count(kept.sockets.len(), "socket"),
            before - kept.sockets.len()
        );
    }
    kept
}

/// Whose each socket is, by what it is. The others are closed.
fn sort(
    plan: &Plan,
    sockets: Vec<(u32, OwnedFd)>,
    mut records: HashMap<Identity, SocketRecord>,
    listeners: &HashMap<Identity, String>,
    groups: &HashMap<RawFd, u32>,
) -> Kept {
    if sockets.is_empty() {
        return Kept {
            sockets: Adopted::default(),
            names: Vec::new(),
            records: Vec::new(),
            going: Going::default(),
        };
    }
    let by_name = plan.listeners().map(|(_, one)| (one.name.as_str(), one));
    let by_name: HashMap<&str, &ListenerPlan> = by_name.collect();
    let inherited = sockets.into_iter().map(|(group, fd)| {
        // Where the kernel chooses the port, nothing else tells whose it is.
        let known = Identity::of(&fd).and_then(|identity| listeners.get(&identity));
        let known = known.filter(|name| {
            let listener = by_name.get(name.as_str());
            let is_chosen = |of: &SocketPlan| matches!(&of.endpoint, Endpoint::Inet { address, .. } if address.port() == 0);
            listener.is_some_and(|one| one.sockets.iter().any(is_chosen))
        });
        let name = known.cloned();
        Inherited {
            fd,
            name: name.unwrap_or_else(|| Name::Sockets(group).to_string()),
        }
    });
    let how = UnknownPorts::ByElimination;
    let (mut adopted, _closed) = listener::match_up(plan, inherited.collect(), how);
    let places: HashMap<SocketKey, (&ListenerPlan, usize)> = plan
        .listeners()
        .flat_map(|(_, listener)| {
            let sockets = listener.sockets.iter().enumerate();
            sockets.map(move |(index, socket)| (socket.key, (listener, index)))
        })
        .collect();
    let (mut names, mut found) = (Vec::new(), Vec::new());
    adopted.retain(|key, fd| {
        let (Some(identity), Some(group)) = (Identity::of(&*fd), groups.get(&fd.as_raw_fd()))
        else {
            return false;
        };
        if let Some(mut record) = records.remove(&identity)
            && let Some((listener, index)) = places.get(key)
        {
            if !record.fits(listener, *index) {
                return false;
            }
            record.stays = !listener.settings.remove_on_stop;
            found.push((*key, record));
        }
        names.push((*group, *key, identity));
        true
    });
    Kept {
        sockets: adopted,
        names,
        records: found,
        going: Going::default(),
    }
}

/// Binds everything. systemd says that it has closed sockets before it does, so what they are in the way of is tried
/// again until they are gone.
pub(super) fn bind_all(plan: &Plan, adopted: Adopted, going: &Going) -> Outcome {
    let mut outcome = listener::bind_all(plan, Purpose::Keep, adopted);
    let until = now() + SETTLED;
    let mut is_said = false;
    loop {
        let blocked = going.blocked(plan, &outcome.errors);
        if blocked.is_empty() || now() >= until {
            return outcome;
        }
        if !is_said {
            let names = blocked.iter().map(|id| plan.listener(*id).name.as_str());
            let names: Vec<&str> = names.collect();
            log::info!(
                "waiting until sockets are closed that overlap with listeners of now: {}",
                names.join(", ")
            );
            is_said = true;
        }
        going.wait();
        listener::bind_again(plan, blocked, &mut outcome);
    }
}
