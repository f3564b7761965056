//! The instructions, as data and as bytes.

use std::fmt;

/// A register. R1 to R5 are arguments and lost at each call, R0 is the answer, R6 to R9 are kept, and
/// R10 is the end of the stack frame of 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How much a load or a store moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// One byte.
    Byte,
    /// Four bytes.
    Word,
    /// Eight bytes.
    Double,
}

/// Whether an operation works on the whole register, or on its lower half and clears the upper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// The lower half.
    Bits32,
    /// All of it.
    Bits64,
}

/// An arithmetic operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Add,
    Subtract,
    Or,
    And,
    ShiftLeft,
    /// With zeros.
    ShiftRight,
    Move,
}

/// When a jump is taken; numbers are unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Condition {
    Equal,
    NotEqual,
    Greater,
    /// Some bit is set in both.
    Both,
}

/// The other operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A register.
    Register(Register),
    /// A number, whose sign is extended.
    Number(i32),
}

/// A function of the kernel, by its number in `enum bpf_func_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Helper {
    /// `void *bpf_map_lookup_elem(map, key)`: NULL without such an element.
    MapLookup = 1,
    /// `long bpf_map_update_elem(map, key, value, flags)`.
    MapUpdate = 2,
    /// `long bpf_skb_load_bytes(ctx, offset, to, len)`.
    LoadBytes = 26,
    /// `long bpf_sk_select_reuseport(ctx, map, key, flags)`: 0, or an error such as -ENOENT.
    SelectReuseport = 82,
    /// `u64 bpf_jiffies64()`: the ticks of the kernel, of a length of its own. No call, but a load.
    Jiffies = 118,
    /// `u64 bpf_ktime_get_coarse_ns()`: CLOCK_MONOTONIC as of the last tick of the kernel. Linux 5.11.
    NowCoarse = 160,
}

/// A place in a program, by a number that its author chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(pub u16);

/// An instruction, or a place between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// Nothing: here is what a jump goes to.
    Here(Label),
    /// `to = to OPERATION by`.
    Compute(Width, Operation, Register, Source),
    /// `to = *(size *)(from + offset)`.
    Load(Size, Register, Register, i16),
    /// `*(size *)(to + offset) = from`.
    Store(Size, Register, i16, Register),
    /// `*(size *)(to + offset) = number`.
    StoreNumber(Size, Register, i16, i32),
    /// `to = ` the map with this descriptor.
    LoadMap(Register, i32),
    /// `to = ` the address of this byte of the first value of the array map with this descriptor.
    LoadMapValue(Register, i32, u32),
    /// Goes on elsewhere.
    Jump(Label),
    /// Goes on elsewhere if the condition holds.
    JumpIf(Width, Register, Condition, Source, Label),
    /// Calls the kernel.
    Call(Helper),
    /// Ends with what R0 has.
    Exit,
}

/// Eight bytes of code: opcode, registers, offset, immediate.
pub(super) struct Slot {
    pub(super) opcode: u8,
    pub(super) to: u8,
    pub(super) from: u8,
    pub(super) offset: i16,
    pub(super) number: i32,
}

// Classes and modes: `linux/bpf_common.h` and `linux/bpf.h`.
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
const IMM: u8 = 0x00;
const MEM: u8 = 0x60;
/// The operand is a register (BPF_X).
const REGISTER: u8 = 0x08;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// The source registers of a 64-bit load whose number is a map: BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE.
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;

impl Register {
    fn number(self) -> u8 {
        self as u8
    }
}

impl Size {
    fn code(self) -> u8 {
        match self {
            Size::Word => 0x00,
            Size::Byte => 0x10,
            Size::Double => 0x18,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Size::Byte => 8,
            Size::Word => 32,
            Size::Double => 64,
        }
    }
}

impl Operation {
    fn code(self) -> u8 {
        match self {
            Operation::Add => 0x00,
            Operation::Subtract => 0x10,
            Operation::Or => 0x40,
            Operation::And => 0x50,
            Operation::ShiftLeft => 0x60,
            Operation::ShiftRight => 0x70,
            Operation::Move => 0xb0,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Operation::Add => "+=",
            Operation::Subtract => "-=",
            Operation::Or => "|=",
            Operation::And => "&=",
            Operation::ShiftLeft => "<<=",
            Operation::ShiftRight => ">>=",
            Operation::Move => "=",
        }
    }
}

impl Condition {
    fn code(self) -> u8 {
        match self {
            Condition::Equal => 0x10,
            Condition::Greater => 0x20,
            Condition::Both => 0x40,
            Condition::NotEqual => 0x50,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Condition::Equal => "==",
            Condition::Greater => ">",
            Condition::Both => "&",
            Condition::NotEqual => "!=",
        }
    }
}

impl Source {
    fn bit(self) -> u8 {
        match self {
            Source::Register(_) => REGISTER,
            Source::Number(_) => 0,
        }
    }

    fn parts(self) -> (u8, i32) {
        match self {
            Source::Register(register) => (register.number(), 0),
            Source::Number(number) => (0, number),
        }
    }
}

impl Instruction {
    /// How many slots of eight bytes it takes.
    pub(super) fn length(&self) -> usize {
        match self {
            Instruction::Here(_) => 0,
            Instruction::LoadMap(..) | Instruction::LoadMapValue(..) => 2,
            _ => 1,
        }
    }

    /// Where it may jump to.
    pub(super) fn target(&self) -> Option<Label> {
        match self {
            Instruction::Jump(label) | Instruction::JumpIf(.., label) => Some(*label),
            _ => None,
        }
    }

    /// Its slots; `distance` is that of the jump, from the next instruction on.
    pub(super) fn encode(&self, distance: i16) -> Vec<Slot> {
        let slot = |opcode, to: u8, from: u8, offset, number| Slot {
            opcode,
            to,
            from,
            offset,
            number,
        };
        let wide = |to: Register, from, map: i32, at: u32| {
            let opcode = LD | IMM | Size::Double.code();
            vec![
                slot(opcode, to.number(), from, 0, map),
                slot(0, 0, 0, 0, at.cast_signed()),
            ]
        };
        let one = match *self {
            Instruction::Here(_) => return Vec::new(),
            Instruction::LoadMap(to, map) => return wide(to, PSEUDO_MAP_FD, map, 0),
            Instruction::LoadMapValue(to, map, at) => return wide(to, PSEUDO_MAP_VALUE, map, at),
            Instruction::Compute(width, operation, to, by) => {
                let class = match width {
                    Width::Bits32 => ALU,
                    Width::Bits64 => ALU64,
                };
                let (from, number) = by.parts();
                let opcode = class | by.bit() | operation.code();
                slot(opcode, to.number(), from, 0, number)
            }
            Instruction::Load(size, to, from, offset) => {
                let opcode = LDX | MEM | size.code();
                slot(opcode, to.number(), from.number(), offset, 0)
            }
            Instruction::Store(size, to, offset, from) => {
                let opcode = STX | MEM | size.code();
                slot(opcode, to.number(), from.number(), offset, 0)
            }
            Instruction::StoreNumber(size, to, offset, number) => {
                slot(ST | MEM | size.code(), to.number(), 0, offset, number)
            }
            Instruction::Jump(_) => slot(JMP, 0, 0, distance, 0),
            Instruction::JumpIf(width, left, condition, right, _) => {
                let class = match width {
                    Width::Bits32 => JMP32,
                    Width::Bits64 => JMP,
                };
                let (from, number) = right.parts();
                let opcode = class | right.bit() | condition.code();
                slot(opcode, left.number(), from, distance, number)
            }
            Instruction::Call(helper) => slot(JMP | CALL, 0, 0, 0, helper as i32),
            Instruction::Exit => slot(JMP | EXIT, 0, 0, 0, 0),
        };
        vec![one]
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.number())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u{}", self.bits())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Register(register) => register.fmt(f),
            Source::Number(number) => number.fmt(f),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}", self.0)
    }
}

/// A place in memory: `*(u32 *)(r10 - 4)`.
struct At(Size, Register, i16);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let At(size, register, offset) = self;
        let sign = if *offset < 0 { '-' } else { '+' };
        write!(
            f,
            "*({size} *)({register} {sign} {})",
            offset.unsigned_abs()
        )
    }
}

/// As bpftool(8) and the verifier write it, but for maps, which have no names here, and labels.
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The lower half is called w0, w1 …
        fn name(width: Width, source: Source) -> String {
            match (width, source) {
                (Width::Bits32, Source::Register(register)) => format!("w{}", register.number()),
                (_, source) => source.to_string(),
            }
        }
        match *self {
            Instruction::Here(label) => write!(f, "{label}:"),
            Instruction::Compute(width, operation, to, by) => {
                let to = name(width, Source::Register(to));
                write!(f, "{to} {} {}", operation.sign(), name(width, by))
            }
            Instruction::Load(size, to, from, offset) => {
                write!(f, "{to} = {}", At(size, from, offset))
            }
            Instruction::Store(size, to, offset, from) => {
                write!(f, "{} = {from}", At(size, to, offset))
            }
            Instruction::StoreNumber(size, to, offset, number) => {
                write!(f, "{} = {number}", At(size, to, offset))
            }
            Instruction::LoadMap(to, map) => write!(f, "{to} = map[{map}]"),
            Instruction::LoadMapValue(to, map, at) => write!(f, "{to} = map[{map}][0] + {at}"),
            Instruction::Jump(label) => write!(f, "goto {label}"),
            Instruction::JumpIf(width, left, condition, right, label) => {
                let left = name(width, Source::Register(left));
                let right = name(width, right);
                write!(f, "if {left} {} {right} goto {label}", condition.sign())
            }
            Instruction::Call(helper) => write!(f, "call {helper:?}"),
            Instruction::Exit => write!(f, "exit"),
        }
    }
}
