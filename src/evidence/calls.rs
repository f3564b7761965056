//! The system call in which a thread sleeps: /proc/PID/task/TID/syscall (proc_pid_syscall(5)).

use nix::libc::{self, c_long};

/// The system call in which a thread sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    number: c_long,
    arguments: [u64; 6],
    is_32_bit: bool,
}

/// The event that a thread sleeps for, as far as it may be a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// One descriptor: accept(2), recvmsg(2) and the like.
    Descriptor(i32),
    /// An epoll instance.
    Epoll(i32),
    /// An array of `struct pollfd` (poll(2)).
    Poll { array: u64, count: u64 },
    /// The descriptors below `count` that are in a `fd_set` (select(2)).
    Select { readable: u64, count: u64 },
    /// The number means another call in the program's architecture.
    Foreign,
    /// Another event.
    Other,
}

/// Reads the line: number, six arguments, stack pointer, program counter. None for a thread that
/// is `running`, or that sleeps outside of any call (`-1 …`).
pub fn parse(line: &str) -> Option<Call> {
    let mut words = line.split_ascii_whitespace();
    let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let mut hexadecimal = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = hexadecimal()?;
    }
    let (stack, program) = (hexadecimal()?, hexadecimal()?);
    // Nothing tells what a number means but where the program is: a 64-bit one may be linked to a
    // low address, but has its stack high up.
    let low = |address| u32::try_from(address).is_ok();
    Some(Call {
        number,
        arguments,
        is_32_bit: cfg!(target_pointer_width = "64") && low(stack) && low(program),
    })
}

/// The event that a thread in this call sleeps for.
pub fn wait(call: &Call) -> Wait {
    if call.is_32_bit || !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Wait::Foreign;
    }
    let [first, second, ..] = call.arguments;
    // The kernel takes the lower half of the register, and so does this.
    let descriptor = first as i32;
    if DESCRIPTOR.contains(&call.number) {
        Wait::Descriptor(descriptor)
    } else if EPOLL.contains(&call.number) {
        Wait::Epoll(descriptor)
    } else if POLL.contains(&call.number) {
        let count = u64::from(second as u32);
        Wait::Poll {
            array: first,
            count,
        }
    } else if SELECT.contains(&call.number) {
        let count = u64::try_from(descriptor).unwrap_or(0);
        Wait::Select {
            readable: second,
            count,
        }
    } else {
        Wait::Other
    }
}

/// Calls that wait for the descriptor that is their first argument. The last ones are for
/// listeners that have no connections.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const DESCRIPTOR: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_mq_timedreceive,
];

#[cfg(target_arch = "x86_64")]
const EPOLL: &[c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
];
#[cfg(target_arch = "x86_64")]
const POLL: &[c_long] = &[libc::SYS_poll, libc::SYS_ppoll];
#[cfg(target_arch = "x86_64")]
const SELECT: &[c_long] = &[libc::SYS_select, libc::SYS_pselect6];

// A younger architecture has only the calls that the others are special cases of.
#[cfg(target_arch = "aarch64")]
const EPOLL: &[c_long] = &[libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];
#[cfg(target_arch = "aarch64")]
const POLL: &[c_long] = &[libc::SYS_ppoll];
#[cfg(target_arch = "aarch64")]
const SELECT: &[c_long] = &[libc::SYS_pselect6];

// `wait` does not get so far on the others.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const DESCRIPTOR: &[c_long] = &[];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const EPOLL: &[c_long] = &[];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const POLL: &[c_long] = &[];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const SELECT: &[c_long] = &[];

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;

    fn line(number: c_long, arguments: &str) -> String {
        format!("{number} {arguments} 0x7ffe354c7498 0x7fb024bc42ad\n")
    }

    #[test]
    fn a_thread_that_sleeps_in_no_call_waits_for_nothing() {
        for text in [
            "running\n",
            "-1 0x7ffe354c7498 0x7fb024bc42ad\n",
            "",
            "0 0x1",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_arguments_are_those_of_the_call() {
        let arguments = "0xffffffff00000003 0x7f00 0x1 0x0 0x0 0x0";
        let wait = |number| wait(&parse(&line(number, arguments)).expect("a call"));
        assert_eq!(wait(libc::SYS_accept4), Wait::Descriptor(3));
        assert_eq!(wait(libc::SYS_epoll_pwait), Wait::Epoll(3));
        let (array, count) = (0xffff_ffff_0000_0003, 0x7f00);
        assert_eq!(wait(libc::SYS_ppoll), Wait::Poll { array, count });
        let (readable, count) = (0x7f00, 3);
        assert_eq!(wait(libc::SYS_pselect6), Wait::Select { readable, count });
        assert_eq!(wait(libc::SYS_futex), Wait::Other);
    }

    // int 0x80 has other numbers, and nothing says which numbers these are.
    #[test]
    fn a_32_bit_program_is_not_understood() {
        let text = "7 0x1 0x2 0x3 0x4 0x5 0x6 0xffe354c8 0xf7fc4579\n";
        assert_eq!(wait(&parse(text).expect("a call")), Wait::Foreign);
    }
}
