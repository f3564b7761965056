//! A filter for seccomp(2): a search in ranges of the numbers of calls, and behind it what is asked of arguments.
//!
//! One that compares one number after the other makes 1,500 steps of the hundreds of calls of a set, which cost the
//! kernel 0.6 ms when it translates them, for every start; and each call of the worker goes through all of them.

use nix::libc;
use seccompiler::{BpfProgram, TargetArch, sock_filter};
use std::collections::BTreeMap;

/// The numbers from here on are of the x32 ABI: the others with a bit, which would pass by their filters.
const X32: u32 = 0x4000_0000;
/// Where the number, the architecture and the lower half of the first argument are in struct seccomp_data, with
/// little-endian numbers.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What is answered to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It passes.
    Pass,
    /// It fails with this errno.
    Errno(u16),
    /// It passes unless one of these holds.
    Unless(Vec<Refusal>),
}

/// Conditions that hold together, each with the index of its argument, and the errno with which the call fails then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) when: Vec<(u8, Condition)>,
    pub(super) errno: u16,
}

/// What an argument is like, of which the lower 32 bits count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// It has one of these bits.
    Any(u32),
    /// Of these bits, it has exactly those.
    Exactly { of: u32, bits: u32 },
    /// It is none of these numbers.
    NoneOf(Vec<u32>),
}

/// The filter with these answers, and this one to all other calls.
pub(super) fn program(
    answers: &BTreeMap<i64, Answer>,
    others: &Answer,
    target: TargetArch,
) -> BpfProgram {
    let mut ranges = ranges(answers, others);
    let enosys = Answer::Errno(libc::ENOSYS.unsigned_abs() as u16);
    if target == TargetArch::x86_64 {
        ranges.retain(|(first, _)| *first < X32);
        ranges.push((X32, &enosys));
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
fn ranges<'a>(answers: &'a BTreeMap<i64, Answer>, others: &'a Answer) -> Vec<(u32, &'a Answer)> {
    let mut ranges = vec![(0, others)];
    for (number, answer) in answers {
        let Ok(number) = u32::try_from(*number) else {
            continue;
        };
        // What comes behind it may have its own answer.
        for (first, answer) in [(number, answer), (number.saturating_add(1), others)] {
            ranges.pop_if(|(other, _)| *other == first);
            ranges.push((first, answer));
        }
    }
    ranges.dedup_by_key(|(_, answer)| *answer);
    ranges
}

/// Halves the ranges until one is left.
fn search(ranges: &[(u32, &Answer)]) -> BpfProgram {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let [(first, answer), ..] = upper else {
        return Vec::new();
    };
    if lower.is_empty() {
        return give(answer);
    }
    let mut below = search(lower);
    let mut steps = unless(libc::BPF_JGE, *first, below.len());
    steps.append(&mut below);
    steps.append(&mut search(upper));
    steps
}

fn give(answer: &Answer) -> BpfProgram {
    let pass = step(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW);
    match answer {
        Answer::Pass => vec![pass],
        Answer::Errno(errno) => vec![fail(*errno)],
        Answer::Unless(refusals) => refusals.iter().flat_map(refuse).chain([pass]).collect(),
    }
}

fn fail(errno: u16) -> sock_filter {
    let action = libc::SECCOMP_RET_ERRNO | u32::from(errno);
    step(libc::BPF_RET, 0, 0, action)
}

/// Goes on behind it unless all conditions hold.
fn refuse(refusal: &Refusal) -> BpfProgram {
    let mut steps = vec![fail(refusal.errno)];
    for (argument, condition) in refusal.when.iter().rev() {
        let mut all = vec![load(ARGUMENTS + 8 * u32::from(*argument))];
        match condition {
            Condition::Any(bits) => {
                all.append(&mut skip_unless(libc::BPF_JSET, *bits, steps.len()))
            }
            Condition::Exactly { of, bits } => {
                all.push(step(libc::BPF_ALU | libc::BPF_AND, 0, 0, *of));
                all.append(&mut skip_unless(libc::BPF_JEQ, *bits, steps.len()));
            }
            Condition::NoneOf(numbers) => {
                let mut tests = Vec::new();
                for number in numbers.iter().rev() {
                    let mut one = unless(libc::BPF_JEQ, *number, tests.len() + steps.len());
                    one.append(&mut tests);
                    tests = one;
                }
                all.append(&mut tests);
            }
        }
        all.append(&mut steps);
        steps = all;
    }
    steps
}

/// Goes on unless the comparison holds, and skips so many steps otherwise.
fn unless(comparison: u32, value: u32, steps: usize) -> BpfProgram {
    let comparison = libc::BPF_JMP | comparison;
    // A condition jumps over 255 steps at most, a jump without one over any number.
    match u8::try_from(steps) {
        Ok(near) => vec![step(comparison, near, 0, value)],
        Err(_) => vec![step(comparison, 0, 1, value), jump(steps)],
    }
}

/// Goes on if the comparison holds, and skips so many steps otherwise.
fn skip_unless(comparison: u32, value: u32, steps: usize) -> BpfProgram {
    let comparison = libc::BPF_JMP | comparison;
    match u8::try_from(steps) {
        Ok(near) => vec![step(comparison, 0, near, value)],
        Err(_) => vec![step(comparison, 1, 0, value), jump(steps)],
    }
}

fn jump(steps: usize) -> sock_filter {
    // The kernel takes 4,096 at most.
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    step(libc::BPF_JMP | libc::BPF_JA, 0, 0, steps)
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
pub(super) mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const X86_64: u32 = 0xc000_003e;

    /// What the kernel would answer, for the few instructions that there are.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u32; 6]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let code = u32::from(step.code);
            if code == libc::BPF_RET {
                return step.k;
            } else if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                value = match step.k {
                    NUMBER => number,
                    ARCHITECTURE => architecture,
                    offset => {
                        assert_eq!((offset - ARGUMENTS) % 8, 0, "the lower half");
                        arguments[(offset - ARGUMENTS) as usize / 8]
                    }
                };
            } else if code == libc::BPF_ALU | libc::BPF_AND {
                value &= step.k;
            } else if code == libc::BPF_JMP | libc::BPF_JA {
                at += step.k as usize;
            } else {
                let holds = match code & !libc::BPF_JMP {
                    libc::BPF_JEQ => value == step.k,
                    libc::BPF_JGE => value >= step.k,
                    libc::BPF_JSET => value & step.k != 0,
                    other => panic!("{other}"),
                };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
        }
    }

    /// What it would answer to a call of this machine.
    pub(in super::super) fn answer(program: &[sock_filter], call: i64, arguments: [u32; 6]) -> u32 {
        let number = u32::try_from(call).expect("a number");
        run(program, X86_64, number, arguments)
    }

    fn action(answer: &Answer) -> u32 {
        match answer {
            Answer::Pass => ALLOW,
            Answer::Errno(errno) => 0x0005_0000 | u32::from(*errno),
            Answer::Unless(_) => panic!("that depends"),
        }
    }

    #[test]
    fn every_number_has_its_own_answer() {
        // Alone, in a row, at the beginning, and so many that jumps get long.
        let some: Vec<i64> = vec![0, 1, 2, 7, 8, 100, 334, 424, 425];
        let many: Vec<i64> = (0..1200).filter(|number| number % 2 == 1).collect();
        for numbers in [Vec::new(), some, many] {
            let [pass, fail] = [Answer::Pass, Answer::Errno(1)];
            for (these, others) in [(&pass, &fail), (&fail, &pass), (&Answer::Errno(38), &fail)] {
                let mut answers: BTreeMap<i64, Answer> = numbers
                    .iter()
                    .map(|number| (*number, these.clone()))
                    .collect();
                answers.insert(435, Answer::Errno(38));
                let target = TargetArch::x86_64;
                let program = program(&answers, others, target);
                assert_eq!(audited(target), X86_64);
                for number in (0..1300).chain([X32 - 1]) {
                    let answer = answers.get(&i64::from(number)).unwrap_or(others);
                    let said = run(&program, X86_64, number, [0; 6]);
                    assert_eq!(said, action(answer), "{number}");
                }
                for number in [X32, X32 + 1, u32::MAX] {
                    let said = run(&program, X86_64, number, [0; 6]);
                    assert_eq!(said, 0x0005_0026, "{number}");
                }
                assert_eq!(run(&program, 0x4000_0003, 0, [0; 6]), 0x8000_0000);
            }
        }
    }

    #[test]
    fn a_call_is_refused_for_its_arguments() {
        use Condition::{Any, Exactly, NoneOf};
        let many: Vec<u32> = (100..700).collect();
        let refusals = [
            // Both, and one after the other.
            (vec![(1, Any(0b101)), (3, Exactly { of: 6, bits: 2 })], 1),
            (vec![(0, NoneOf(vec![0, 7]))], 97),
            // So many that jumps get long.
            (vec![(2, Any(8)), (2, NoneOf(many.clone()))], 38),
        ];
        let holds = |when: &[(u8, Condition)], arguments: &[u32; 6]| {
            when.iter().all(|(index, condition)| {
                let value = arguments[usize::from(*index)];
                match condition {
                    Any(bits) => value & bits != 0,
                    Exactly { of, bits } => value & of == *bits,
                    NoneOf(numbers) => !numbers.contains(&value),
                }
            })
        };
        let unless = Answer::Unless(
            refusals
                .iter()
                .map(|(when, errno)| Refusal {
                    when: when.clone(),
                    errno: *errno,
                })
                .collect(),
        );
        let answers = BTreeMap::from([(5, unless), (6, Answer::Errno(1))]);
        let program = program(&answers, &Answer::Pass, TargetArch::x86_64);
        let values = [0, 1, 2, 4, 6, 7, 8, 99, 100, 104, 699, 700, u32::MAX];
        for first in [0, 3, 7] {
            for second in values {
                for third in values {
                    for fourth in values {
                        let arguments = [first, second, third, fourth, 0, 0];
                        let reason = refusals.iter().find(|(when, _)| holds(when, &arguments));
                        let wanted =
                            reason.map_or(ALLOW, |(_, errno)| 0x0005_0000 | u32::from(*errno));
                        let said = run(&program, X86_64, 5, arguments);
                        assert_eq!(said, wanted, "{arguments:?}");
                        assert_eq!(run(&program, X86_64, 4, arguments), ALLOW);
                    }
                }
            }
        }
    }
}
