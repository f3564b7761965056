//! Several sockets at one address, of which each instance of a worker has one (`distribute: shards`).
//!
//! The sockets of one address are a group of the kernel (SO_REUSEPORT, socket(7)), which chooses one of them
//! for each new connection: by a hash of its addresses, or by a program. The program here chooses at random
//! among the shards that an instance serves, so that no client is sent to one that nobody serves. It is of
//! the classic kind, which needs no privilege, no map and nothing that would have to be kept; it is attached
//! anew whenever the set is another, which the kernel does in one step. Whoever is in the queue of a shard
//! by then stays there. At random, and not by the hash of the packet: a network card need not have computed
//! one, and a client that was dropped at a full queue gets another one when it tries again.
//!
//! To the program a socket is its *slot* in the group, and no call tells that number. Sockets are given one
//! in the order in which they listen; where one leaves, the last gets its number (reuseport_add_sock and
//! __reuseport_detach_sock in net/core/sock_reuseport.c). All that is followed here. Where it was not seen,
//! as of sockets that somebody else has kept, all shards get clients.

use super::bound::BoundSocket;
use super::overlap;
use super::table::SocketTable;
use crate::config::{Endpoint, Transport};
use crate::plan::{ListenerId, ListenerPlan, Plan, SocketKey};
use crate::sys;
use nix::libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, BPF_W, sock_filter,
};
use socket2::SockRef;
use std::collections::BTreeSet;
use std::io;

/// SKF_AD_OFF + SKF_AD_RANDOM of linux/filter.h: the load of a random number.
const RANDOM: u32 = (-0x1000_i32 + 56) as u32;

/// The program that chooses one of these slots at random:
///
/// ```text
///     ld  rand
///     mod #N              N slots; what is below N and not one of them stands for one that is not below N
///     jeq #a, +0, +1      for each of those
///     ret #b
///     ret a
/// ```
fn program(slots: &BTreeSet<u32>) -> Vec<sock_filter> {
    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    let mut program = vec![
        instruction(BPF_LD | BPF_W | BPF_ABS, (0, 0), RANDOM),
        instruction(BPF_ALU | BPF_MOD | BPF_K, (0, 0), count),
    ];
    let absent = (0..count).filter(|slot| !slots.contains(slot));
    for (absent, instead) in absent.zip(slots.range(count..)) {
        program.push(instruction(BPF_JMP | BPF_JEQ | BPF_K, (0, 1), absent));
        program.push(instruction(BPF_RET | BPF_K, (0, 0), *instead));
    }
    program.push(instruction(BPF_RET | BPF_A, (0, 0), 0));
    program
}

fn instruction(code: u32, (jt, jf): (u8, u8), k: u32) -> sock_filter {
    // All codes are below 2⁸.
    let code = code as u16;
    sock_filter { code, jt, jf, k }
}

/// Has a socket that listens share its address with those that are bound from now on.
pub(super) fn share(first: &BoundSocket) {
    // If it cannot be set, bind(2) of the next says EADDRINUSE.
    let _bind_tells = overlap::set(first, true);
}

impl SocketTable {
    /// Has the kernel send the new clients of a listener to these shards. A number beyond the last stands for
    /// one of those that there are, as it does for who gets them ([`shard_of`]).
    ///
    /// # Errors
    ///
    /// The errors of setsockopt(2): clients go where they did.
    pub fn steer(&self, listener: ListenerId, shards: &BTreeSet<u32>) -> io::Result<()> {
        for group in self.groups(listener) {
            let count = group.iter().map(|one| one.shard).max().unwrap_or(0) + 1;
            let wanted: BTreeSet<u32> = shards.iter().map(|one| shard_of(*one, count)).collect();
            let known: Option<Vec<(u32, u32)>> = group
                .iter()
                .map(|one| Some((one.shard, one.slot.get()?)))
                .collect();
            let chosen: BTreeSet<u32> = match known {
                Some(known) => known
                    .iter()
                    .filter(|(shard, _)| wanted.contains(shard))
                    .map(|(_, slot)| *slot)
                    .collect(),
                None => BTreeSet::new(),
            };
            let all = || (0..u32::try_from(group.len()).unwrap_or(u32::MAX)).collect();
            let chosen = match chosen.is_empty() {
                true => all(),
                false => chosen,
            };
            if let [first, _, ..] = group.as_slice() {
                sys::attach_to_group(&first.fd, &mut program(&chosen))?;
            }
        }
        Ok(())
    }

    /// The sockets of a listener that are in one group, in the order of their shards.
    fn groups(&self, listener: ListenerId) -> Vec<Vec<&BoundSocket>> {
        let mut groups: Vec<Vec<&BoundSocket>> = Vec::new();
        let of_it = self.iter().filter(|one| one.listener == listener);
        for socket in of_it.filter(|one| is_tcp(&one.address)) {
            let same = |group: &&mut Vec<&BoundSocket>| {
                group.iter().any(|one| one.address == socket.address)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(socket),
                None => groups.push(vec![socket]),
            }
        }
        for group in &mut groups {
            group.sort_by_key(|one| one.shard);
        }
        groups
    }

    /// Sockets of a listener were bound: notes which slots they have.
    pub(super) fn note_slots(&self, plan: &Plan, listener: ListenerId) {
        let planned = plan.find_listener(listener);
        if planned.map_or(0, ListenerPlan::shards) < 2 {
            return;
        }
        for group in self.groups(listener) {
            let (mut next, mut adopted) = (0, 0);
            for socket in &group {
                match socket.slot.get() {
                    Some(_) => next += 1,
                    None => adopted += u32::from(socket.is_adopted),
                }
            }
            // One that was adopted alone was there when the others came. Of several nobody knows.
            if adopted > u32::from(next == 0) {
                continue;
            }
            let mut new: Vec<_> = group
                .iter()
                .filter(|one| one.slot.get().is_none())
                .collect();
            new.sort_by_key(|one| !one.is_adopted);
            for socket in new {
                socket.slot.set(Some(next));
                next += 1;
            }
        }
    }

    /// A socket has left its group, and listens again: it is the last one now, and the one that was has
    /// its slot.
    pub fn listens_again(&self, key: SocketKey) {
        let Some(socket) = self.get(key) else { return };
        let group = self.groups(socket.listener).into_iter();
        let mut group = group.filter(|group| group.iter().any(|one| one.key == key));
        let (Some(group), Some(left)) = (group.next(), socket.slot.get()) else {
            return;
        };
        let listens = |one: &&BoundSocket| {
            one.key == key || SockRef::from(&one.fd).is_listener().unwrap_or(false)
        };
        if !group.iter().all(listens) {
            // Several have left: in which order is not known.
            group.iter().for_each(|one| one.slot.set(None));
            return;
        }
        let last = u32::try_from(group.len() - 1).unwrap_or(u32::MAX);
        let moved = group.iter().find(|one| one.slot.get() == Some(last));
        if let Some(moved) = moved {
            moved.slot.set(Some(left));
            socket.slot.set(Some(last));
        }
    }

    /// A socket has left its group for another, in which are those that `is_there` has moved before it.
    pub(super) fn listens_elsewhere(
        &self,
        key: SocketKey,
        is_there: impl Fn(&BoundSocket) -> bool,
    ) {
        let Some(socket) = self.get(key) else { return };
        let groups = self.groups(socket.listener).into_iter();
        let mut with_it = groups.filter(|group| group.iter().any(|one| one.key == key));
        if let (Some(group), Some(_)) = (with_it.next(), socket.slot.get()) {
            let moved = group.iter().filter(|one| one.key != key && is_there(one));
            socket.slot.set(u32::try_from(moved.count()).ok());
        }
    }

    /// Has sockets that the plan has no more, and with which the shards of a listener overlap, share their address, or
    /// has it over. The kernel wants it at bind(2) and listen(2) alone ([`overlap`]).
    pub(super) fn share_with_former(&self, listener: &ListenerPlan, on: bool) {
        for (of, former) in self.former() {
            let mut held = self.of(listener);
            if of.settings.network_namespace == listener.settings.network_namespace
                && !self.is_given(former.key)
                && held.any(|one| one.address.overlaps(&former.address))
            {
                let _bind_tells = match on {
                    true => overlap::set(former, true),
                    false => overlap::give_back(former, Some(of)),
                };
            }
        }
    }

    /// Ends the sharing of addresses of a listener of which each instance had a socket, and does not any more.
    pub(super) fn unshare(&self, listener: &ListenerPlan) {
        let of_it = self.of(listener).filter(|one| is_tcp(&one.address));
        for socket in of_it.filter(|_| !overlap::reuses_port(listener)) {
            let _it_is_alone = overlap::set(socket, false);
        }
    }
}

/// The shard of the instance with this number, where there are so many shards.
pub fn shard_of(instance: u32, shards: u32) -> u32 {
    instance % shards.max(1)
}

fn is_tcp(endpoint: &Endpoint) -> bool {
    let tcp = Transport::Tcp;
    matches!(endpoint, Endpoint::Inet { transport, .. } if *transport == tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program answers for each number below some.
    fn run(slots: &[u32], random: u32) -> u32 {
        let program = program(&slots.iter().copied().collect());
        let mut a = 0;
        let mut at = 0;
        loop {
            let one = program[at];
            at += 1;
            match u32::from(one.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    assert_eq!(one.k, 0xffff_f038);
                    a = random;
                }
                code if code == BPF_ALU | BPF_MOD | BPF_K => a %= one.k,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if a == one.k { one.jt } else { one.jf });
                }
                code if code == BPF_RET | BPF_K => return one.k,
                code if code == BPF_RET | BPF_A => return a,
                code => unreachable!("{code:x}"),
            }
        }
    }

    #[test]
    fn the_program_chooses_each_slot_equally_often_and_no_other() {
        for set in 1_u32..64 {
            let slots: Vec<u32> = (0..6).filter(|slot| set >> slot & 1 == 1).collect();
            let count = u32::try_from(slots.len()).unwrap();
            let mut chosen: Vec<u32> = (0..count).map(|random| run(&slots, random)).collect();
            chosen.sort_unstable();
            assert_eq!(chosen, slots);
            assert_eq!(run(&slots, count), run(&slots, 0));
        }
    }
}
