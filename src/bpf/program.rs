//! A program: instructions with labels, and its bytes.

use super::instruction::{Instruction, Label};
use std::fmt;

/// A list of instructions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
}

/// Why a program has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssembleError {
    /// A jump names a label that is nowhere.
    NoSuchLabel(Label),
    /// A label is at two places.
    TwoPlaces(Label),
    /// A jump is longer than 32,767 slots.
    TooFar(Label),
}

impl fmt::Display for AssembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AssembleError::NoSuchLabel(label) => write!(f, "no instruction has the label {label}"),
            AssembleError::TwoPlaces(label) => write!(f, "two places have the label {label}"),
            AssembleError::TooFar(label) => write!(f, "the label {label} is too far from a jump"),
        }
    }
}

impl Program {
    /// One of these.
    pub fn new(instructions: impl IntoIterator<Item = Instruction>) -> Program {
        Program {
            instructions: instructions.into_iter().collect(),
        }
    }

    /// The bytes, as bpf(2) takes them on this machine.
    ///
    /// # Errors
    ///
    /// Labels that lead nowhere, or to two places.
    pub fn assemble(&self) -> Result<Vec<u8>, AssembleError> {
        let mut places: Vec<(Label, usize)> = Vec::new();
        let mut at = 0;
        for instruction in &self.instructions {
            if let Instruction::Here(label) = instruction {
                if places.iter().any(|(known, _)| known == label) {
                    return Err(AssembleError::TwoPlaces(*label));
                }
                places.push((*label, at));
            }
            at += instruction.length();
        }
        let mut bytes = Vec::with_capacity(at * 8);
        let mut at = 0;
        for instruction in &self.instructions {
            at += instruction.length();
            let distance = match instruction.target() {
                None => 0,
                Some(label) => {
                    let place = places.iter().find(|(known, _)| *known == label);
                    let (_, place) = place.ok_or(AssembleError::NoSuchLabel(label))?;
                    let forward = i16::try_from(place.saturating_sub(at));
                    let back = i16::try_from(at.saturating_sub(*place));
                    let (forward, back) = forward
                        .and_then(|forward| Ok((forward, back?)))
                        .map_err(|_| AssembleError::TooFar(label))?;
                    forward - back
                }
            };
            for slot in instruction.encode(distance) {
                // The order of the two registers follows that of the bytes (`struct bpf_insn`).
                let registers = match cfg!(target_endian = "little") {
                    true => slot.from << 4 | slot.to,
                    false => slot.to << 4 | slot.from,
                };
                bytes.extend([slot.opcode, registers]);
                bytes.extend(slot.offset.to_ne_bytes());
                bytes.extend(slot.number.to_ne_bytes());
            }
        }
        Ok(bytes)
    }
}

/// A line for each instruction, those with labels before them at the margin.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for instruction in &self.instructions {
            match instruction {
                Instruction::Here(_) => writeln!(f, "{instruction}")?,
                _ => writeln!(f, "    {instruction}")?,
            }
        }
        Ok(())
    }
}
