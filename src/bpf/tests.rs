//! Byte by byte, against encodings that llvm-mc and the kernel's own macros (`linux/filter.h`) make.

use super::*;
use Condition::*;
use Instruction::*;
use Register::*;
use Source::{Number, Register as Reg};
use Width::*;

fn bytes(of: impl IntoIterator<Item = Instruction>) -> String {
    let bytes = Program::new(of).assemble().expect("a whole program");
    let slots: Vec<String> = bytes
        .chunks(8)
        .map(|slot| slot.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    slots.join(" ")
}

#[cfg(target_endian = "little")]
#[test]
fn each_instruction_has_the_bytes_that_the_kernel_expects() {
    for (instruction, text, expected) in [
        // mov64 r0, 0; mov64 r6, r1; mov32 w0, 1
        (
            Compute(Bits64, Operation::Move, R0, Number(0)),
            "r0 = 0",
            "b700000000000000",
        ),
        (
            Compute(Bits64, Operation::Move, R6, Reg(R1)),
            "r6 = r1",
            "bf16000000000000",
        ),
        (
            Compute(Bits32, Operation::Move, R0, Number(1)),
            "w0 = 1",
            "b400000001000000",
        ),
        (
            Compute(Bits64, Operation::Add, R2, Number(-4)),
            "r2 += -4",
            "07020000fcffffff",
        ),
        (
            Compute(Bits64, Operation::Subtract, R3, Reg(R2)),
            "r3 -= r2",
            "1f23000000000000",
        ),
        (
            Compute(Bits64, Operation::Or, R1, Reg(R2)),
            "r1 |= r2",
            "4f21000000000000",
        ),
        (
            Compute(Bits32, Operation::And, R1, Number(0x3f)),
            "w1 &= 63",
            "540100003f000000",
        ),
        (
            Compute(Bits64, Operation::ShiftLeft, R1, Number(32)),
            "r1 <<= 32",
            "6701000020000000",
        ),
        (
            Compute(Bits64, Operation::ShiftRight, R7, Number(30)),
            "r7 >>= 30",
            "770700001e000000",
        ),
        (
            Load(Size::Byte, R1, R10, -1),
            "r1 = *(u8 *)(r10 - 1)",
            "71a1ffff00000000",
        ),
        (
            Load(Size::Word, R1, R6, 32),
            "r1 = *(u32 *)(r6 + 32)",
            "6161200000000000",
        ),
        (
            Load(Size::Double, R1, R6, 8),
            "r1 = *(u64 *)(r6 + 8)",
            "7961080000000000",
        ),
        (
            Store(Size::Word, R10, -4, R1),
            "*(u32 *)(r10 - 4) = r1",
            "631afcff00000000",
        ),
        (
            Store(Size::Double, R10, -8, R0),
            "*(u64 *)(r10 - 8) = r0",
            "7b0af8ff00000000",
        ),
        (
            StoreNumber(Size::Word, R10, -8, 7),
            "*(u32 *)(r10 - 8) = 7",
            "620af8ff07000000",
        ),
        (
            StoreNumber(Size::Double, R10, -16, 0),
            "*(u64 *)(r10 - 16) = 0",
            "7a0af0ff00000000",
        ),
        (
            LoadMap(R1, 5),
            "r1 = map[5]",
            "1811000005000000 0000000000000000",
        ),
        (
            LoadMapValue(R2, 6, 8),
            "r2 = map[6][0] + 8",
            "1822000006000000 0000000008000000",
        ),
        (
            Call(Helper::MapLookup),
            "call MapLookup",
            "8500000001000000",
        ),
        (
            Call(Helper::SelectReuseport),
            "call SelectReuseport",
            "8500000052000000",
        ),
        (Call(Helper::Jiffies), "call Jiffies", "8500000076000000"),
        (
            Call(Helper::NowCoarse),
            "call NowCoarse",
            "85000000a0000000",
        ),
        (Exit, "exit", "9500000000000000"),
    ] {
        assert_eq!(bytes([instruction]), expected, "{instruction}");
        assert_eq!(instruction.to_string(), text);
    }
}

#[cfg(target_endian = "little")]
#[test]
fn jumps_go_to_their_labels_forth_and_back() {
    let (top, end) = (Label(1), Label(2));
    let program = [
        Here(top),
        JumpIf(Bits64, R0, Equal, Number(0), end),
        JumpIf(Bits32, R1, Greater, Reg(R2), top),
        // Two slots.
        LoadMap(R1, 3),
        Jump(top),
        JumpIf(Bits64, R0, NotEqual, Number(0), end),
        JumpIf(Bits64, R0, Both, Number(0x80), end),
        Here(end),
        Exit,
    ];
    assert_eq!(
        bytes(program),
        "1500060000000000 2e21feff00000000 1811000003000000 0000000000000000 0500fbff00000000 \
         5500010000000000 4500000080000000 9500000000000000"
    );
    let text = Program::new(program).to_string();
    assert!(
        text.starts_with("L1:\n    if r0 == 0 goto L2\n    if w1 > w2 goto L1\n"),
        "{text}"
    );
}

#[test]
fn labels_have_one_place_within_reach() {
    let assemble = |of: &[Instruction]| Program::new(of.iter().copied()).assemble();
    let label = Label(1);
    let error = assemble(&[Jump(label), Exit]);
    assert_eq!(error, Err(AssembleError::NoSuchLabel(label)));
    let error = assemble(&[Here(label), Exit, Here(label)]);
    assert_eq!(error, Err(AssembleError::TwoPlaces(label)));
    let mut far = vec![Jump(label)];
    far.extend(std::iter::repeat_n(Exit, 32_768));
    far.push(Here(label));
    assert_eq!(assemble(&far), Err(AssembleError::TooFar(label)));
    far.remove(1);
    assert!(assemble(&far).is_ok());
}

/// What stands in the comment of a program, without remarks.
fn commented(source: &str, function: &str) -> String {
    let end = source
        .find(&format!("pub fn {function}("))
        .expect("the function");
    let text: Vec<&str> = source[..end].lines().collect();
    let is_comment = |line: &&&str| line.starts_with("///");
    let comment: Vec<&str> = text.iter().rev().take_while(is_comment).copied().collect();
    let mut lines: Vec<String> = comment
        .iter()
        .map(|line| line.trim_start_matches("///"))
        .skip_while(|line| line.trim() != "```")
        .skip(1)
        .take_while(|line| line.trim() != "```text")
        .map(|line| {
            let code = line.strip_prefix(' ').unwrap_or(line);
            let (indent, code) = code.split_at(code.len() - code.trim_start().len());
            let code = code.split("  ").next().unwrap_or("");
            format!("{indent}{code}\n")
        })
        .collect();
    lines.reverse();
    lines.concat()
}

#[test]
fn the_comment_of_a_program_shows_its_instructions() {
    let maps = flows::FlowMaps {
        flows: 3,
        present: 4,
        generations: 5,
        sockets: 6,
    };
    let program = flows::by_tuple(maps);
    assert_eq!(
        program.to_string(),
        commented(include_str!("flows.rs"), "by_tuple")
    );
    for length in [0, 1, 8, 20, 255] {
        let program = flows::by_connection_id(maps, length);
        program.assemble().expect("labels are all there, once");
    }
}

#[test]
fn times_are_compared_around_the_ends_of_their_words() {
    assert_eq!(flows::age(5, 3), 2);
    assert_eq!(flows::age(3, 5), 0, "seen by another processor since");
    assert_eq!(flows::age(1, u32::MAX), 2);
    assert_eq!(flows::ticks(1), 1);
    assert_eq!(flows::ticks(u64::MAX), i32::MAX as u32);
    assert!(flows::end_of(flows::tick(7 << 30)) > 7 << 30);
    let value = [flows::generation(7, 9), [0, 0, 0, 0, 1, 0, 0, 0]].concat();
    if cfg!(target_endian = "little") {
        let flow = flows::Flow::read(&value).expect("a flow");
        assert_eq!((flow.generation, flow.seen, flow.is_tuple), (7, 9, true));
        assert!(flow.is_alive(12, 3) && !flow.is_alive(13, 3));
    }
    assert_eq!(flows::Flow::read(&value[..12]), None);
}
