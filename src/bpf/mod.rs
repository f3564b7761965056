//! eBPF programs without a compiler: instructions as values, labels, and the bytes that bpf(2) takes.
//!
//! A [`Program`] is a list of [`Instruction`]s. Jumps name a [`Label`], maps are named by their
//! descriptors, and [`Program::assemble`] answers the bytes, or what is wrong with the program. As text
//! (`Program::to_string`) it is the disassembly that the comments of the programs show.
//!
//! The encoding is that of the kernel's `Documentation/bpf/standardization/instruction-set.rst`. What
//! loads it is `sys::bpf`.

pub mod flows;
mod instruction;
mod program;

pub use instruction::{
    Condition, Helper, Instruction, Label, Operation, Register, Size, Source, Width,
};
pub use program::{AssembleError, Program};

#[cfg(test)]
mod tests;
