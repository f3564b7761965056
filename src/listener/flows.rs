//! The sockets of a UDP listener of which each generation has its own (`flows: sticky`).
//!
//! All of them are in one SO_REUSEPORT group, and a program ([`crate::bpf::flows`]) says which gets a packet.
//! The first was bound without the option, so that an address that is taken is an error as ever; it gets it
//! afterwards, and a second socket, which is closed again, makes the two a group. The table of sockets has the
//! present one; the others are here.

use super::bind::bind_again;
use super::bind_error::BindError;
use super::bound::{Artifacts, BoundSocket, KnownFlag, Slot};
use super::overlap;
use crate::bpf::flows::{self, Flow, FlowMaps};
use crate::config::{FlowKey, Flows};
use crate::plan::{ListenerPlan, Plan};
use crate::sys::bpf::{
    BpfError, Map, MapKind, attach_reuseport_program, detach_reuseport_program,
    load_reuseport_program,
};
use crate::sys::sockopt;
use nix::libc;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The only key of the array `present`.
const PRESENT: [u8; 4] = [0; 4];

/// Why flows cannot be kept apart.
#[derive(Debug)]
pub enum FlowError {
    /// The kernel refuses maps or the program.
    Bpf(BpfError),
    /// A second socket cannot have the address.
    Bind(Box<BindError>),
    /// The socket refuses an option.
    Option(io::Error),
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowError::Bpf(error) => error.fmt(f),
            FlowError::Bind(error) => write!(
                f,
                "cannot bind a second socket to the address: {}",
                io::Error::from_raw_os_error(error.errno)
            ),
            FlowError::Option(error) => write!(f, "cannot set SO_REUSEPORT: {error}"),
        }
    }
}

impl From<BpfError> for FlowError {
    fn from(error: BpfError) -> FlowError {
        FlowError::Bpf(error)
    }
}

/// The maps and the program, before any socket has to do with them.
struct Kernel {
    flows: Map,
    present: Map,
    generations: Map,
    sockets: Map,
    program: OwnedFd,
}

fn load(settings: &Flows) -> Result<Kernel, BpfError> {
    let key = key_length(settings);
    let word = 4;
    let map = |kind, name, key, value, elements| Map::create(kind, name, key, value, elements);
    let all = MapKind::LruHash;
    let flows_map = map(all, "listend_flows", key, flows::FLOW, settings.max)?;
    let array = MapKind::Array;
    let present = map(array, "listend_present", word, flows::PRESENT, 1)?;
    let length = flows::GENERATION;
    let generations = map(array, "listend_gens", word, length, flows::MOST)?;
    let sockets = MapKind::ReuseportSockets;
    let sockets = map(sockets, "listend_sockets", word, 8, flows::MOST)?;
    let maps = [&flows_map, &present, &generations, &sockets];
    Ok(Kernel {
        program: load_program(settings, maps)?,
        flows: flows_map,
        present,
        generations,
        sockets,
    })
}

fn load_program(settings: &Flows, maps: [&Map; 4]) -> Result<OwnedFd, BpfError> {
    let [flows, present, generations, sockets] = maps.map(Map::number);
    let maps = FlowMaps {
        flows,
        present,
        generations,
        sockets,
    };
    let program = match settings.key {
        FlowKey::Tuple => flows::by_tuple(maps),
        FlowKey::Quic(length) => flows::by_connection_id(maps, length),
    };
    // Labels are those of the program itself, which its tests assemble.
    let code = program.assemble().unwrap_or_default();
    load_reuseport_program(&code, "listend_flows")
}

fn key_length(settings: &Flows) -> u32 {
    match settings.key {
        FlowKey::Tuple => flows::TUPLE_KEY,
        FlowKey::Quic(_) => flows::ID_KEY,
    }
}

/// Whether this kernel lets this process keep flows apart: maps are made and the program is loaded, and
/// dropped again.
///
/// # Errors
///
/// Why not.
pub fn try_flows(settings: &Flows) -> Result<(), BpfError> {
    let tried = Flows {
        max: 1 << 10,
        ..*settings
    };
    load(&tried).map(drop)
}

/// A generation with a socket in the group.
#[derive(Debug)]
pub struct Member {
    /// Its number in the group, never used twice.
    pub generation: u32,
    /// Its socket; `None` of the present one, which the table has.
    pub socket: Option<BoundSocket>,
}

/// A generation as it stands in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownMember {
    /// Whose it is.
    pub lane: u64,
    /// Its number in the group.
    pub generation: u32,
}

/// The sockets of one address of a listener.
#[derive(Debug)]
pub struct FlowGroup {
    settings: Flows,
    flows: Map,
    present: Map,
    generations: Map,
    sockets: Map,
    /// The generations, by whose they are.
    members: BTreeMap<u64, Member>,
    /// Whose socket the table has; of nobody, if who had it has ended and nobody has come.
    now: Option<u64>,
    /// The generation of that socket.
    now_generation: u32,
    last: u32,
    /// No further socket is added to the group.
    is_ending: bool,
}

impl FlowGroup {
    /// Makes a group of a socket that is bound. `since` is the time, here and in the following in
    /// nanoseconds of CLOCK_MONOTONIC.
    ///
    /// # Errors
    ///
    /// Why not; the socket is as it was then, but for SO_REUSEPORT.
    pub fn new(
        listener: &ListenerPlan,
        socket: &BoundSocket,
        settings: &Flows,
        since: u64,
    ) -> Result<FlowGroup, FlowError> {
        let kernel = load(settings)?;
        share_port(&socket.fd, true).map_err(FlowError::Option)?;
        let anchor = bind_beside(listener, socket);
        let anchor = anchor.inspect_err(|_| {
            let _alone_again = share_port(&socket.fd, false);
        })?;
        let group = FlowGroup {
            settings: *settings,
            flows: kernel.flows,
            present: kernel.present,
            generations: kernel.generations,
            sockets: kernel.sockets,
            members: BTreeMap::new(),
            now: None,
            now_generation: 1,
            last: 1,
            is_ending: false,
        };
        let steered = group
            .put(1, socket, since)
            .and_then(|()| group.show_present())
            .and_then(|()| attach_reuseport_program(&anchor.fd, &kernel.program));
        if let Err(error) = steered {
            drop(anchor);
            let _alone_again = share_port(&socket.fd, false);
            return Err(error.into());
        }
        Ok(group)
    }

    /// A group that was kept: its maps among `fds`, and the sockets of its generations by whose they are. What
    /// has lost its socket is left out. `None` if a map is missing.
    pub fn restore(
        settings: Flows,
        fds: Vec<OwnedFd>,
        members: impl IntoIterator<Item = (KnownMember, Option<BoundSocket>)>,
        (now, now_generation, last): (Option<u64>, u32, u32),
    ) -> Option<FlowGroup> {
        let mut maps: Vec<Map> = fds
            .into_iter()
            .filter_map(|fd| Map::adopt(fd).ok())
            .collect();
        let mut take = |kind, key: u32, value: u32| {
            let is_it = |map: &Map| map.is(kind, key as usize, value as usize);
            let at = maps.iter().position(is_it)?;
            Some(maps.swap_remove(at))
        };
        let flows = take(MapKind::LruHash, key_length(&settings), flows::FLOW)?;
        let sockets = take(MapKind::ReuseportSockets, 4, 8)?;
        let present = take(MapKind::Array, 4, flows::PRESENT)?;
        let generations = take(MapKind::Array, 4, flows::GENERATION)?;
        let members = members.into_iter();
        let mut members: BTreeMap<u64, Member> = members
            .filter(|(known, socket)| Some(known.lane) == now || socket.is_some())
            .map(|(known, socket)| {
                let generation = known.generation;
                (known.lane, Member { generation, socket })
            })
            .collect();
        if let Some(of_table) = now.and_then(|now| members.get_mut(&now)) {
            of_table.socket = None;
        }
        Some(FlowGroup {
            settings,
            flows,
            present,
            generations,
            sockets,
            members,
            now,
            now_generation,
            last,
            is_ending: false,
        })
    }

    /// Gives nobody a socket of its own any more. Whether all that had one have ended; until then packets are
    /// steered as before, since the kernel would spread them over all sockets.
    pub fn begin_to_end(&mut self) -> bool {
        self.is_ending = true;
        self.members.keys().all(|lane| Some(*lane) == self.now)
    }

    /// Whether nobody gets a socket any more.
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// By what flows are told apart.
    pub fn settings(&self) -> &Flows {
        &self.settings
    }

    /// Takes over what can be changed: the timeout. Whether nothing else is different.
    pub fn set(&mut self, settings: &Flows) -> bool {
        let same = Flows {
            timeout: settings.timeout,
            ..self.settings
        };
        if same != *settings {
            return false;
        }
        self.settings = same;
        self.show_present().is_ok()
    }

    /// The generations, by whose they are.
    pub fn members(&self) -> impl Iterator<Item = (u64, &Member)> {
        self.members.iter().map(|(lane, member)| (*lane, member))
    }

    /// Whose the present one is, its number, and the last number that was given out.
    pub fn present(&self) -> (Option<u64>, u32, u32) {
        (self.now, self.now_generation, self.last)
    }

    /// Whether these have a socket here.
    pub fn has(&self, lane: u64) -> bool {
        self.members.contains_key(&lane)
    }

    /// The socket of a generation; `None` if the table has it.
    pub fn own_socket(&self, lane: u64) -> Option<&BoundSocket> {
        self.members.get(&lane)?.socket.as_ref()
    }

    /// The descriptors of the maps, to be kept.
    pub fn maps(&self) -> [BorrowedFd<'_>; 4] {
        let Self {
            flows,
            present,
            generations,
            sockets,
            ..
        } = self;
        [flows, present, generations, sockets].map(AsFd::as_fd)
    }

    /// Gives these a socket: the present one if nobody has it, or one of their own. Answers whose socket had to
    /// be taken away for that, because there are too many.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn give(
        &mut self,
        lane: u64,
        listener: &ListenerPlan,
        of_table: &BoundSocket,
        since: u64,
    ) -> Result<Option<u64>, FlowError> {
        if self.has(lane) {
            return Ok(None);
        }
        if self.now.is_none() {
            self.now = Some(lane);
            let generation = self.now_generation;
            let socket = None;
            self.members.insert(lane, Member { generation, socket });
            return Ok(None);
        }
        if self.is_ending {
            return Ok(None);
        }
        let socket = bind_beside(listener, of_table)?;
        // Whoever has a socket of the group, as every worker has, can put another program there or none.
        let maps = [&self.flows, &self.present, &self.generations, &self.sockets];
        attach_reuseport_program(&socket.fd, load_program(&self.settings, maps)?)?;
        let mut dropped = None;
        // The number of generations is that of the places, and one is free unless all are taken.
        if self.members.len() >= flows::MOST as usize {
            let others = self.members.iter().filter(|(of, _)| Some(**of) != self.now);
            dropped = others
                .min_by_key(|(_, one)| one.generation)
                .map(|(of, _)| *of);
            dropped.into_iter().for_each(|of| self.end(of));
        }
        let is_taken = |generation: u32| {
            let mut members = self.members.values().map(|one| one.generation);
            let slot = flows::slot(generation);
            slot == flows::slot(self.now_generation) || members.any(|one| flows::slot(one) == slot)
        };
        let generation = (1..=flows::MOST)
            .map(|more| self.last.wrapping_add(more))
            .find(|generation| !is_taken(*generation));
        let generation = generation.unwrap_or_else(|| self.last.wrapping_add(1));
        self.put(generation, &socket, since)?;
        self.last = generation;
        let socket = Some(socket);
        self.members.insert(lane, Member { generation, socket });
        Ok(dropped)
    }

    /// New flows go to these from now on: their socket goes to the table, for the one that it has, of which this
    /// is the generation. `None` if that is so, or they were started with the one of the table.
    ///
    /// # Errors
    ///
    /// Why they do not; nothing has changed then.
    pub fn promote(&mut self, lane: u64, now: u64) -> Result<Option<(BoundSocket, u32)>, BpfError> {
        let Some(member) = self.members.get_mut(&lane) else {
            if !self.is_ending {
                let shared = self.now.replace(lane);
                shared.map(|shared| self.members.remove(&shared));
                let generation = self.now_generation;
                let socket = None;
                self.members.insert(lane, Member { generation, socket });
            }
            return Ok(None);
        };
        let (generation, socket) = (member.generation, member.socket.take());
        let Some(socket) = socket else {
            return Ok(None);
        };
        let before = std::mem::replace(&mut self.now_generation, generation);
        // Of the present one it was not noted when it was seen.
        let slot = flows::slot(before).to_ne_bytes();
        let seen = flows::generation(before, flows::tick(now));
        let shown = self.generations.set(&slot, &seen);
        if let Err(error) = shown.and_then(|()| self.show_present()) {
            self.now_generation = before;
            if let Some(member) = self.members.get_mut(&lane) {
                member.socket = Some(socket);
            }
            return Err(error);
        }
        Ok(Some((socket, before)))
    }

    /// The socket that the table had before [`FlowGroup::promote`].
    pub fn demoted(&mut self, lane: u64, (socket, generation): (BoundSocket, u32)) {
        let before = self.now.replace(lane);
        match before.and_then(|before| self.members.get_mut(&before)) {
            Some(member) => member.socket = Some(socket),
            // Of nobody: what waits in its queue is lost with it.
            None => self.vacate(generation),
        }
    }

    /// These are about to end, and their flows are over: what comes of them is new. Without it, one that comes
    /// again before they have ended would go to them, where the clock of the program is behind.
    pub fn close(&self, lane: u64) {
        if let Some(member) = self.members.get(&lane).filter(|_| self.now != Some(lane)) {
            self.vacate(member.generation);
        }
    }

    /// No further process is started with this socket.
    pub fn end(&mut self, lane: u64) {
        if self.now == Some(lane) {
            // Who comes next gets it, and all flows that it has.
            self.now = None;
            self.members.remove(&lane);
            return;
        }
        let Some(member) = self.members.remove(&lane) else {
            return;
        };
        self.vacate(member.generation);
    }

    /// The flows of a generation are new ones from now on.
    fn vacate(&self, generation: u32) {
        let slot = flows::slot(generation).to_ne_bytes();
        // What cannot be changed is as good as closed when the socket is.
        let _its_flows_are_new = self.generations.set(&slot, &flows::generation(0, 0));
        let _nobody_chooses_it = self.sockets.remove(&slot);
    }

    /// When these have had no flow for the timeout; in the past if that is so. `None` if they are not here.
    pub fn quiet_at(&self, lane: u64) -> Option<u64> {
        let member = self.members.get(&lane)?;
        let slot = flows::slot(member.generation).to_ne_bytes();
        let value = self.generations.get(&slot).ok().flatten();
        let (generation, seen) = value.and_then(|value| flows::read_generation(&value))?;
        if generation != member.generation {
            return Some(0);
        }
        Some(flows::end_of(seen.saturating_add(self.timeout())))
    }

    /// How many flows each generation has.
    ///
    /// # Errors
    ///
    /// The kernel does not tell (before Linux 5.6).
    pub fn count(&self, now: u64) -> io::Result<HashMap<u32, u64>> {
        let (now, timeout) = (flows::tick(now), self.timeout());
        let mut counts = HashMap::new();
        self.flows.for_each_value(|value| {
            let flow =
                Flow::read(value).filter(|flow| flow.is_tuple && flow.is_alive(now, timeout));
            if let Some(flow) = flow {
                *counts.entry(flow.generation).or_default() += 1;
            }
        })?;
        Ok(counts)
    }

    /// Leaves the socket of the table to itself again, as its listener has it.
    pub fn dissolve(self, of_table: Option<(&BoundSocket, Option<&ListenerPlan>)>) {
        if let Some((socket, listener)) = of_table {
            // Without it, nothing steers.
            let _is_none = detach_reuseport_program(&socket.fd);
            let asks = listener.is_some_and(overlap::reuses_port);
            let _others_may_come = share_port(&socket.fd, asks);
        }
    }

    fn timeout(&self) -> u32 {
        let nanoseconds = self.settings.timeout.as_nanos();
        flows::ticks(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    fn show_present(&self) -> Result<(), BpfError> {
        let value = flows::present(self.now_generation, self.timeout());
        self.present.set(&PRESENT, &value)
    }

    fn put(&self, generation: u32, socket: &BoundSocket, since: u64) -> Result<(), BpfError> {
        let slot = flows::slot(generation);
        self.sockets.set_socket(slot, &socket.fd)?;
        let value = flows::generation(generation, flows::tick(since));
        self.generations.set(&slot.to_ne_bytes(), &value)
    }
}

/// A socket like this one, for a descriptor that was kept.
pub fn member_like(socket: &BoundSocket, fd: OwnedFd) -> BoundSocket {
    BoundSocket {
        fd: fd.into(),
        key: socket.key,
        shard: socket.shard,
        slot: Slot::unknown(),
        nonblocking: KnownFlag::unknown(),
        listener: socket.listener,
        address: socket.address.clone(),
        port_chosen: socket.port_chosen,
        backlog: socket.backlog,
        identity: None,
        created: false,
        is_adopted: socket.is_adopted,
        effective: socket.effective.clone(),
        artifacts: Artifacts::default(),
    }
}

fn share_port(socket: impl AsFd, shared: bool) -> io::Result<()> {
    let shared = i32::from(shared);
    sockopt::set_int(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, shared)
}

/// One more socket at the address of a listener's socket, in its group.
fn bind_beside(listener: &ListenerPlan, socket: &BoundSocket) -> Result<BoundSocket, FlowError> {
    let beside = overlap::shared(listener).unwrap_or_else(|| listener.clone());
    let index = listener.position(socket.key).unwrap_or(0);
    let plan = Plan::of_listeners(BTreeMap::from([(socket.listener, Arc::new(beside))]));
    let bound = bind_again(&plan, socket.listener, index, &socket.address);
    bound.map_err(|error| FlowError::Bind(Box::new(error)))
}
