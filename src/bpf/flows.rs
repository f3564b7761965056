//! The programs that keep each flow of a UDP socket with the generation of the worker that it was seen by.
//!
//! Each generation has a socket of its own in one SO_REUSEPORT group. A flow that is known goes to its
//! generation, as long as that is there and the flow was seen within `flow_timeout`; any other goes to the
//! present one, and is known from then on. Four maps say which:
//!
//! - `flows`, an LRU hash: what a flow is known by → [`Flow`]. When it is full, the kernel forgets what was
//!   not seen for longest.
//! - `present`, an array of one: [`present`]. Behind it the programs keep the time for each other.
//! - `generations`, an array: number of a generation modulo [`MOST`] → its number, and when a packet for it
//!   was seen last ([`generation`]), which is noted once it is not the present one any more.
//! - `sockets`, the sockets of the group by the same index.
//!
//! Time is in ticks of 2³⁰ ns of CLOCK_MONOTONIC, so that a word has 145 years of it and no division is
//! needed; it is written only when it has changed, so that processors do not take a cache line from each
//! other with each packet. The clock is the coarse one (Linux 5.11), and is called once in each tick of the
//! kernel: a call is a fifth of what a packet costs here, and the number of that tick a load.
//!
//! The context is `struct sk_reuseport_md`: at 32 it has the hash of both addresses and ports, which is keyed
//! by a secret of the kernel. Its data begin with the UDP header, and so QUIC at 8.

use super::instruction::{
    Condition::*, Helper, Instruction, Instruction::*, Label, Operation::*, Register, Register::*,
    Size::*, Source::Number, Source::Register as Reg, Width::*,
};
use super::program::Program;

/// How many generations can be there at once.
pub const MOST: u32 = 64;
/// The length of a key of `flows` with [`by_tuple`].
pub const TUPLE_KEY: u32 = 4;
/// The same with [`by_connection_id`]: hash, kind, length, and 20 bytes of an id.
pub const ID_KEY: u32 = 28;
/// The length of a [`Flow`].
pub const FLOW: u32 = 16;
/// The length of the value of `present`.
pub const PRESENT: u32 = 16;
/// The length of a value of `generations`.
pub const GENERATION: u32 = 8;
/// The longest connection id (RFC 9000, 17.2).
pub const LONGEST_ID: u8 = 20;

/// 2³⁰ nanoseconds are a tick.
const TICK: i32 = 30;

/// The maps, by their descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct FlowMaps {
    pub flows: i32,
    pub present: i32,
    pub generations: i32,
    pub sockets: i32,
}

/// What is known of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The generation that has it.
    pub generation: u32,
    /// The tick when it was seen last.
    pub seen: u32,
    /// Whether it is known by its addresses here, and not by one of its ids: each flow is so once.
    pub is_tuple: bool,
}

impl Flow {
    /// From a value of `flows`.
    pub fn read(value: &[u8]) -> Option<Flow> {
        Some(Flow {
            generation: word(value, 0)?,
            seen: word(value, 4)?,
            is_tuple: word(value, 12)? == TUPLE as u32,
        })
    }

    /// Whether it was seen within `timeout` ticks before `now`.
    pub fn is_alive(&self, now: u32, timeout: u32) -> bool {
        age(now, self.seen) <= timeout
    }
}

/// How many ticks ago this was; 0 for what another processor has seen since.
pub fn age(now: u32, seen: u32) -> u32 {
    let age = now.wrapping_sub(seen);
    if age > i32::MAX as u32 { 0 } else { age }
}

/// The tick of a time of CLOCK_MONOTONIC in nanoseconds.
pub fn tick(nanoseconds: u64) -> u32 {
    // A word has 145 years.
    (nanoseconds >> TICK) as u32
}

/// The time, in nanoseconds, when a tick is over.
pub fn end_of(tick: u32) -> u64 {
    (u64::from(tick) + 1) << TICK
}

/// So many nanoseconds in ticks, rounded up.
pub fn ticks(nanoseconds: u64) -> u32 {
    let ticks = nanoseconds.div_ceil(1 << TICK);
    u32::try_from(ticks).map_or(i32::MAX as u32, |ticks| ticks.min(i32::MAX as u32))
}

/// The value of `present`: the generation that new flows go to, and after how many ticks a flow is over.
pub fn present(generation: u32, timeout: u32) -> [u8; PRESENT as usize] {
    let mut bytes = [0; PRESENT as usize];
    bytes[..8].copy_from_slice(&two(generation, timeout));
    bytes
}

/// A value of `generations`: the number, and when it was seen last.
pub fn generation(number: u32, seen: u32) -> [u8; GENERATION as usize] {
    two(number, seen)
}

/// The two numbers of such a value.
pub fn read_generation(value: &[u8]) -> Option<(u32, u32)> {
    Some((word(value, 0)?, word(value, 4)?))
}

/// The index of a generation in `generations` and `sockets`.
pub fn slot(generation: u32) -> u32 {
    generation % MOST
}

fn two(first: u32, second: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

// Offsets in the stack frame.
/// The index of the generation.
const SLOT: i16 = -8;
/// What is to be known of a flow.
const VALUE: i16 = -24;
/// What a flow is known by: its addresses.
const TUPLE_AT: i16 = -56;
/// What a flow is known by: an id. Its first word is a hash or 0, its second kind and length.
const ID_AT: i16 = -88;
const ID_KIND: i16 = ID_AT + 4;
const ID_BYTES: i16 = ID_AT + 8;
/// A length that was just read.
const LENGTH: i16 = -96;
/// The first byte of a long header, and the length of its destination id.
const FIRST_BYTE: i16 = -95;
const ID_LENGTH: i16 = -94;

// What a key is of.
/// The addresses.
const TUPLE: i32 = 1;
/// The id that the client has chosen for itself, with its addresses: the same until the handshake is over.
const CLIENTS: i32 = 2;
/// The id that the server has chosen, whatever the addresses.
const SERVERS: i32 = 3;

/// The offset of the time in `present`.
const TIME: u32 = 8;
/// The offset of the hash in the context.
const HASH: i16 = 32;
/// Where QUIC begins in the data of the context.
const QUIC: i32 = 8;
/// The bits of a long header's first byte that are its type, and that of a Handshake (RFC 9000, 17.2.4).
const TYPE: i32 = 0x30;
const HANDSHAKE: i32 = 0x20;

/// `r2 = r10 + offset`, or another register.
fn address(to: Register, offset: i16) -> [Instruction; 2] {
    [
        Compute(Bits64, Move, to, Reg(R10)),
        Compute(Bits64, Add, to, Number(i32::from(offset))),
    ]
}

/// `r7 =` the tick of now; `r6 =` the context. It stands in `present`, in one word with the number of the
/// kernel's tick that it was read in.
fn begin(maps: FlowMaps, known: Label) -> [Instruction; 15] {
    [
        Compute(Bits64, Move, R6, Reg(R1)),
        LoadMapValue(R8, maps.present, TIME),
        Call(Helper::Jiffies),
        Load(Double, R7, R8, 0),
        Compute(Bits32, Move, R1, Reg(R7)),
        Compute(Bits64, ShiftRight, R7, Number(32)),
        JumpIf(Bits32, R1, Equal, Reg(R0), known),
        Compute(Bits32, Move, R9, Reg(R0)),
        Call(Helper::NowCoarse),
        Compute(Bits64, ShiftRight, R0, Number(TICK)),
        Compute(Bits32, Move, R7, Reg(R0)),
        Compute(Bits64, ShiftLeft, R0, Number(32)),
        Compute(Bits64, Or, R0, Reg(R9)),
        Store(Double, R8, 0, R0),
        Here(known),
    ]
}

/// `r0 =` the value of this key, or 0.
fn look_up(map: i32, key: i16) -> Vec<Instruction> {
    let mut code = vec![LoadMap(R1, map)];
    code.extend(address(R2, key));
    code.push(Call(Helper::MapLookup));
    code
}

/// Sets the value of this key to that in the stack.
fn learn(map: i32, key: i16) -> Vec<Instruction> {
    let mut code = vec![LoadMap(R1, map)];
    code.extend(address(R2, key));
    code.extend(address(R3, VALUE));
    code.push(Compute(Bits64, Move, R4, Number(0)));
    // What there is no memory for is not known, and is new the next time.
    code.push(Call(Helper::MapUpdate));
    code
}

/// Writes what is to be known of a flow of the generation in R9, by an id.
fn known_by_id() -> [Instruction; 5] {
    [
        Store(Word, R10, VALUE, R9),
        Store(Word, R10, VALUE + 4, R7),
        Load(Word, R1, R6, HASH),
        Store(Word, R10, VALUE + 8, R1),
        StoreNumber(Word, R10, VALUE + 12, 0),
    ]
}

/// `SLOT` of the generation in R9.
fn find_slot() -> [Instruction; 3] {
    [
        Compute(Bits32, Move, R1, Reg(R9)),
        Compute(Bits32, And, R1, Number(MOST as i32 - 1)),
        Store(Word, R10, SLOT, R1),
    ]
}

/// With a known flow in R0: `r8 =` what is known of it, `r9 =` its generation, which is noted to be seen. To
/// `dead` if it is over, or its generation is.
fn touch(maps: FlowMaps, (fresh, done): (Label, Label), dead: Label) -> Vec<Instruction> {
    let mut code = vec![
        Compute(Bits64, Move, R8, Reg(R0)),
        Load(Word, R9, R8, 0),
        LoadMapValue(R3, maps.present, 0),
        Load(Word, R5, R3, 0),
        Load(Word, R1, R8, 4),
        JumpIf(Bits32, R1, Equal, Reg(R7), fresh),
        Compute(Bits32, Move, R2, Reg(R7)),
        Compute(Bits32, Subtract, R2, Reg(R1)),
        // Another processor has seen it in a later tick.
        JumpIf(Bits32, R2, Greater, Number(i32::MAX), fresh),
        Load(Word, R3, R3, 4),
        JumpIf(Bits32, R2, Greater, Reg(R3), dead),
        Store(Word, R8, 4, R7),
        Here(fresh),
    ];
    code.extend(find_slot());
    // The present generation is there, and of it nobody asks when it was seen.
    code.push(JumpIf(Bits32, R9, Equal, Reg(R5), done));
    code.extend(look_up(maps.generations, SLOT));
    code.extend([
        JumpIf(Bits64, R0, Equal, Number(0), dead),
        Load(Word, R1, R0, 0),
        JumpIf(Bits32, R1, NotEqual, Reg(R9), dead),
        Load(Word, R1, R0, 4),
        JumpIf(Bits32, R1, Equal, Reg(R7), done),
        Store(Word, R0, 4, R7),
        Here(done),
    ]);
    code
}

/// `r0 =` 0 if the socket of `SLOT` is chosen.
fn select(maps: FlowMaps) -> Vec<Instruction> {
    let mut code = vec![
        Compute(Bits64, Move, R1, Reg(R6)),
        LoadMap(R2, maps.sockets),
    ];
    code.extend(address(R3, SLOT));
    code.push(Compute(Bits64, Move, R4, Number(0)));
    code.push(Call(Helper::SelectReuseport));
    code
}

/// SK_PASS. Where no socket was chosen, the kernel takes one of the group by its hash.
const PASS: [Instruction; 2] = [Compute(Bits64, Move, R0, Number(1)), Exit];

/// Flows by their addresses and ports.
///
/// ```text
///     r6 = r1
///     r8 = map[4][0] + 8                          present: the time
///     call Jiffies
///     r7 = *(u64 *)(r8 + 0)
///     w1 = w7
///     r7 >>= 32
///     if w1 == w0 goto L3
///     w9 = w0                                     the first packet in this tick of the kernel
///     call NowCoarse
///     r0 >>= 30
///     w7 = w0
///     r0 <<= 32
///     r0 |= r9
///     *(u64 *)(r8 + 0) = r0
/// L3:
///     r1 = *(u32 *)(r6 + 32)                      the hash
///     *(u32 *)(r10 - 4) = r1
///     r1 = map[3]                                 flows
///     r2 = r10
///     r2 += -4
///     call MapLookup
///     if r0 == 0 goto L1
///     r8 = r0
///     r9 = *(u32 *)(r8 + 0)                       its generation
///     r3 = map[4][0] + 0                          present
///     r5 = *(u32 *)(r3 + 0)                       the generation
///     r1 = *(u32 *)(r8 + 4)                       when it was seen
///     if w1 == w7 goto L10
///     w2 = w7
///     w2 -= w1
///     if w2 > 2147483647 goto L10
///     r3 = *(u32 *)(r3 + 4)                       the timeout
///     if w2 > w3 goto L1
///     *(u32 *)(r8 + 4) = r7
/// L10:
///     w1 = w9
///     w1 &= 63
///     *(u32 *)(r10 - 8) = r1
///     if w9 == w5 goto L11
///     r1 = map[5]                                 generations
///     r2 = r10
///     r2 += -8
///     call MapLookup
///     if r0 == 0 goto L1
///     r1 = *(u32 *)(r0 + 0)
///     if w1 != w9 goto L1                         that generation is gone
///     r1 = *(u32 *)(r0 + 4)
///     if w1 == w7 goto L11
///     *(u32 *)(r0 + 4) = r7
/// L11:
///     r1 = r6
///     r2 = map[6]                                 sockets
///     r3 = r10
///     r3 += -8
///     r4 = 0
///     call SelectReuseport
///     if r0 == 0 goto L2
/// L1:                                             a new flow
///     r1 = map[4][0] + 0                          present: the generation
///     r9 = *(u32 *)(r1 + 0)
///     *(u32 *)(r10 - 24) = r9
///     *(u32 *)(r10 - 20) = r7
///     *(u32 *)(r10 - 16) = 0
///     *(u32 *)(r10 - 12) = 1
///     r1 = map[3]
///     r2 = r10
///     r2 += -4
///     r3 = r10
///     r3 += -24
///     r4 = 0
///     call MapUpdate
///     w1 = w9
///     w1 &= 63
///     *(u32 *)(r10 - 8) = r1
///     r1 = r6
///     r2 = map[6]
///     r3 = r10
///     r3 += -8
///     r4 = 0
///     call SelectReuseport
/// L2:
///     r0 = 1
///     exit
/// ```
pub fn by_tuple(maps: FlowMaps) -> Program {
    let (new, pass, known) = (Label(1), Label(2), Label(3));
    let key = -4;
    let mut code = begin(maps, known).to_vec();
    code.extend([Load(Word, R1, R6, HASH), Store(Word, R10, key, R1)]);
    code.extend(look_up(maps.flows, key));
    code.push(JumpIf(Bits64, R0, Equal, Number(0), new));
    code.extend(touch(maps, (Label(10), Label(11)), new));
    code.extend(select(maps));
    code.push(JumpIf(Bits64, R0, Equal, Number(0), pass));
    code.extend([
        Here(new),
        LoadMapValue(R1, maps.present, 0),
        Load(Word, R9, R1, 0),
        Store(Word, R10, VALUE, R9),
        Store(Word, R10, VALUE + 4, R7),
        StoreNumber(Word, R10, VALUE + 8, 0),
        StoreNumber(Word, R10, VALUE + 12, TUPLE),
    ]);
    code.extend(learn(maps.flows, key));
    code.extend(find_slot());
    code.extend(select(maps));
    code.push(Here(pass));
    code.extend(PASS);
    Program::new(code)
}

/// Zeros for a key.
fn clear(key: i16) -> [Instruction; 4] {
    [
        StoreNumber(Double, R10, key, 0),
        StoreNumber(Double, R10, key + 8, 0),
        StoreNumber(Double, R10, key + 16, 0),
        StoreNumber(Word, R10, key + 24, 0),
    ]
}

/// Copies from the packet to the stack; to `failed` if it is too short.
fn load(
    from: Option<Register>,
    offset: i32,
    to: i16,
    length: super::instruction::Source,
    failed: Label,
) -> Vec<Instruction> {
    let mut code = vec![Compute(Bits64, Move, R1, Reg(R6))];
    match from {
        None => code.push(Compute(Bits64, Move, R2, Number(offset))),
        Some(from) => code.extend([
            Compute(Bits64, Move, R2, Reg(from)),
            Compute(Bits64, Add, R2, Number(offset)),
        ]),
    }
    code.extend(address(R3, to));
    code.push(Compute(Bits64, Move, R4, length));
    code.push(Call(Helper::LoadBytes));
    code.push(JumpIf(Bits64, R0, NotEqual, Number(0), failed));
    code
}

/// Flows of QUIC by the id that the server has chosen, of `length` bytes, and by their addresses until that
/// is known or when it changes.
///
/// What a packet with a short header is for says its destination id, and the addresses where that is not
/// known: it is learned then. One whose addresses are new is learned with those as well, so that a client
/// that changes first its address and then its id stays where it is. What a packet with a long header is for
/// says the client's own id together with the addresses; an Initial that is not known begins a connection,
/// also where the addresses are: a client may have several. A Handshake has the server's id, of which the
/// length is in the packet, and is learned if it is that which short headers are read by.
///
/// ```text
///     key of the addresses, key of an id = zeros
///     first byte and `length` more → the id
///     short header: the id is the server's
///         known → its generation; with other addresses than before: learn those
///     long header: the id is the client's, with the addresses
///         known → its generation; of a Handshake: learn the server's id
///         not known, and no Handshake → new
///     not known, or there is no id: by the addresses
///         known → their generation; learn the id
///     new → the present generation; learn addresses and id
/// ```
pub fn by_connection_id(maps: FlowMaps, length: u8) -> Program {
    let length = i32::from(length.clamp(1, LONGEST_ID));
    let (new, select_it, pass) = (Label(1), Label(2), Label(3));
    let (by_tuple, bare, long, first) = (Label(4), Label(5), Label(6), Label(7));
    let (known_client, learn_id, without_id) = (Label(8), Label(9), Label(20));
    let servers = SERVERS | length << 8;
    let mut code = begin(maps, Label(21)).to_vec();
    code.extend(clear(TUPLE_AT));
    code.extend([
        Load(Word, R1, R6, HASH),
        Store(Word, R10, TUPLE_AT, R1),
        StoreNumber(Word, R10, TUPLE_AT + 4, TUPLE),
    ]);
    code.extend(clear(ID_AT));
    // The first byte lands right before the id, where kind and length are written next.
    code.extend(load(None, QUIC, ID_BYTES - 1, Number(1 + length), bare));
    code.extend([
        Load(Byte, R1, R10, ID_BYTES - 1),
        JumpIf(Bits64, R1, Both, Number(0x80), long),
        StoreNumber(Word, R10, ID_KIND, servers),
    ]);
    code.extend(look_up(maps.flows, ID_AT));
    code.push(JumpIf(Bits64, R0, Equal, Number(0), by_tuple));
    code.extend(touch(maps, (Label(10), Label(11)), by_tuple));
    code.extend([
        Load(Word, R1, R8, 8),
        Load(Word, R2, R6, HASH),
        JumpIf(Bits32, R1, Equal, Reg(R2), select_it),
        Store(Word, R8, 8, R2),
    ]);
    code.extend(known_by_id());
    code.push(StoreNumber(Word, R10, VALUE + 12, TUPLE));
    code.extend(learn(maps.flows, TUPLE_AT));
    code.push(Jump(select_it));

    code.push(Here(long));
    code.push(Store(Byte, R10, FIRST_BYTE, R1));
    code.extend(load(None, QUIC + 5, LENGTH, Number(1), bare));
    code.extend([
        Load(Byte, R9, R10, LENGTH),
        JumpIf(Bits64, R9, Greater, Number(i32::from(LONGEST_ID)), bare),
        Store(Byte, R10, ID_LENGTH, R9),
    ]);
    code.extend(load(Some(R9), QUIC + 6, LENGTH, Number(1), bare));
    code.extend([
        Load(Byte, R8, R10, LENGTH),
        JumpIf(Bits64, R8, Equal, Number(0), bare),
        JumpIf(Bits64, R8, Greater, Number(i32::from(LONGEST_ID)), bare),
    ]);
    code.extend(clear(ID_AT));
    code.extend(load(Some(R9), QUIC + 7, ID_BYTES, Reg(R8), bare));
    code.extend([
        Load(Word, R1, R6, HASH),
        Store(Word, R10, ID_AT, R1),
        Compute(Bits64, ShiftLeft, R8, Number(8)),
        Compute(Bits64, Or, R8, Number(CLIENTS)),
        Store(Word, R10, ID_KIND, R8),
    ]);
    code.extend(look_up(maps.flows, ID_AT));
    code.push(JumpIf(Bits64, R0, Equal, Number(0), first));
    code.extend(touch(maps, (Label(12), Label(13)), first));
    code.push(Jump(known_client));

    code.extend([
        Here(first),
        Load(Byte, R1, R10, FIRST_BYTE),
        Compute(Bits64, And, R1, Number(TYPE)),
        JumpIf(Bits64, R1, Equal, Number(HANDSHAKE), by_tuple),
        Jump(new),
    ]);

    code.extend([
        Here(known_client),
        Load(Byte, R1, R10, FIRST_BYTE),
        Compute(Bits64, And, R1, Number(TYPE)),
        JumpIf(Bits64, R1, NotEqual, Number(HANDSHAKE), select_it),
        Load(Byte, R1, R10, ID_LENGTH),
        JumpIf(Bits64, R1, NotEqual, Number(length), select_it),
    ]);
    code.extend(clear(ID_AT));
    code.push(StoreNumber(Word, R10, ID_KIND, servers));
    code.extend(load(None, QUIC + 6, ID_BYTES, Number(length), select_it));
    code.push(Jump(learn_id));

    code.push(Here(bare));
    code.extend(clear(ID_AT));
    code.push(Here(by_tuple));
    code.extend(look_up(maps.flows, TUPLE_AT));
    code.push(JumpIf(Bits64, R0, Equal, Number(0), new));
    code.extend(touch(maps, (Label(14), Label(15)), new));
    code.extend([
        Load(Word, R1, R10, ID_KIND),
        JumpIf(Bits64, R1, Equal, Number(0), select_it),
    ]);
    code.push(Here(learn_id));
    code.extend(known_by_id());
    code.extend(learn(maps.flows, ID_AT));
    code.push(Jump(select_it));

    code.extend([
        Here(new),
        LoadMapValue(R1, maps.present, 0),
        Load(Word, R9, R1, 0),
    ]);
    code.extend(known_by_id());
    code.extend([
        Load(Word, R1, R10, ID_KIND),
        JumpIf(Bits64, R1, Equal, Number(0), without_id),
    ]);
    code.extend(learn(maps.flows, ID_AT));
    code.push(Here(without_id));
    code.push(StoreNumber(Word, R10, VALUE + 12, TUPLE));
    code.extend(learn(maps.flows, TUPLE_AT));
    code.extend(find_slot());
    code.push(Here(select_it));
    code.extend(select(maps));
    code.push(Here(pass));
    code.extend(PASS);
    Program::new(code)
}
