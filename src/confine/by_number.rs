//! A filter that decides by the number of a call alone: a search in ranges of numbers.
//!
//! The crate that compiles the other filter compares one number after the other. For the hundreds of calls of a set
//! that makes 1,500 steps, which cost the kernel 0.6 ms when it translates them, for every start.

use nix::libc;
use seccompiler::{BpfProgram, TargetArch, sock_filter};
use std::collections::BTreeMap;

/// The numbers from here on are of the x32 ABI: the others with a bit, which would pass by their filters.
const X32: u32 = 0x4000_0000;
/// Where the number and the architecture are in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// What is answered to a call: an errno, or `None` to let it pass.
pub(super) type Answer = Option<u16>;

/// The filter with these answers, and this one to all other calls.
pub(super) fn program(
    answers: &BTreeMap<i64, Answer>,
    others: Answer,
    target: TargetArch,
) -> BpfProgram {
    let mut ranges = ranges(answers, others);
    if target == TargetArch::x86_64 {
        ranges.retain(|(first, _)| *first < X32);
        ranges.push((X32, Some(libc::ENOSYS.unsigned_abs() as u16)));
    }
    let mut steps = vec![
        load(ARCHITECTURE),
        step(libc::BPF_JMP | libc::BPF_JEQ, 1, 0, audited(target)),
        step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    steps.append(&mut search(&ranges));
    steps
}

/// The first number of each range of calls with the same answer.
fn ranges(answers: &BTreeMap<i64, Answer>, others: Answer) -> Vec<(u32, Answer)> {
    let mut ranges = vec![(0, others)];
    for (number, answer) in answers {
        let Ok(number) = u32::try_from(*number) else {
            continue;
        };
        // What comes behind it may have its own answer.
        for (first, answer) in [(number, *answer), (number.saturating_add(1), others)] {
            ranges.pop_if(|(other, _)| *other == first);
            ranges.push((first, answer));
        }
    }
    ranges.dedup_by_key(|(_, answer)| *answer);
    ranges
}

/// Halves the ranges until one is left.
fn search(ranges: &[(u32, Answer)]) -> BpfProgram {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let [(first, answer), ..] = upper else {
        return Vec::new();
    };
    if lower.is_empty() {
        let errno = |errno: u16| libc::SECCOMP_RET_ERRNO | u32::from(errno);
        let action = answer.map_or(libc::SECCOMP_RET_ALLOW, errno);
        return vec![step(libc::BPF_RET, 0, 0, action)];
    }
    let mut below = search(lower);
    // A condition jumps over 255 steps at most, a jump without one over any number.
    let length = u32::try_from(below.len()).unwrap_or(u32::MAX);
    let is_lower = libc::BPF_JMP | libc::BPF_JGE;
    let mut steps = match u8::try_from(length) {
        Ok(near) => vec![step(is_lower, near, 0, *first)],
        Err(_) => vec![
            step(is_lower, 0, 1, *first),
            step(libc::BPF_JMP | libc::BPF_JA, 0, 0, length),
        ],
    };
    steps.append(&mut below);
    steps.append(&mut search(upper));
    steps
}

fn load(offset: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        // All codes are below 256, and BPF_K is 0.
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// The architecture as the kernel names it (AUDIT_ARCH_…): the machine of ELF, 64 bits, little-endian.
fn audited(target: TargetArch) -> u32 {
    const SIXTY_FOUR_LITTLE: u32 = 0xc000_0000;
    let machine = match target {
        TargetArch::x86_64 => libc::EM_X86_64,
        TargetArch::aarch64 => libc::EM_AARCH64,
        // EM_RISCV of <elf.h>.
        TargetArch::riscv64 => 243,
    };
    SIXTY_FOUR_LITTLE | u32::from(machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer, for the few instructions that there are.
    fn run(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let code = u32::from(step.code);
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            if code == libc::BPF_RET {
                return step.k;
            } else if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                value = if step.k == NUMBER {
                    number
                } else {
                    architecture
                };
            } else if code == libc::BPF_JMP | libc::BPF_JEQ {
                at += jump(value == step.k);
            } else if code == libc::BPF_JMP | libc::BPF_JGE {
                at += jump(value >= step.k);
            } else {
                assert_eq!(code, libc::BPF_JMP | libc::BPF_JA);
                at += step.k as usize;
            }
        }
    }

    #[test]
    fn every_number_has_its_own_answer() {
        // Alone, in a row, at the beginning, and so many that jumps get long.
        let some: Vec<i64> = vec![0, 1, 2, 7, 8, 100, 334, 424, 425];
        let many: Vec<i64> = (0..1200).filter(|number| number % 2 == 1).collect();
        for numbers in [Vec::new(), some, many] {
            for (these, others) in [(None, Some(1)), (Some(1), None), (Some(38), Some(1))] {
                let mut answers: BTreeMap<i64, Answer> =
                    numbers.iter().map(|number| (*number, these)).collect();
                answers.insert(435, Some(38));
                let target = TargetArch::x86_64;
                let program = program(&answers, others, target);
                let architecture = audited(target);
                assert_eq!(architecture, 0xc000_003e);
                for number in (0..1300).chain([X32 - 1]) {
                    let answer = *answers.get(&i64::from(number)).unwrap_or(&others);
                    let action = answer.map_or(0x7fff_0000, |errno| 0x0005_0000 | u32::from(errno));
                    assert_eq!(run(&program, architecture, number), action, "{number}");
                }
                for number in [X32, X32 + 1, u32::MAX] {
                    assert_eq!(run(&program, architecture, number), 0x0005_0026, "{number}");
                }
                assert_eq!(run(&program, 0x4000_0003, 0), 0x8000_0000);
            }
        }
    }
}
