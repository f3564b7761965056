//! System calls without the C library.
//!
//! A child that shares its parent's memory until exec also shares the parent's thread-local
//! storage, and with it errno: a C library wrapper that failed in the child would overwrite the
//! errno that the parent is about to read. These answer the kernel's own `-errno` and touch nothing.

use nix::libc::{self, c_int, c_void};
use std::ptr;

/// Whether this architecture has [`call`] in terms of the bare instruction, so that a child may
/// share its parent's memory.
pub(super) const BARE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Makes a system call; a negative answer is `-errno`.
///
/// # Safety
///
/// As the system call itself: pointers must be valid for what it does with them.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) unsafe fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let answer: isize;
    // SAFETY: the x86-64 system call convention (syscall(2)): arguments in rdi, rsi, rdx, r10; rcx
    // and r11 are lost. What the call does with memory is the caller's contract.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// Makes a system call; a negative answer is `-errno`.
///
/// # Safety
///
/// As the system call itself: pointers must be valid for what it does with them.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(super) unsafe fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let answer: isize;
    // SAFETY: the arm64 system call convention (syscall(2)): number in x8, arguments from x0. What
    // the call does with memory is the caller's contract.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => answer,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            options(nostack),
        );
    }
    answer
}

/// Makes a system call; a negative answer is `-errno`. Through the C library, whose errno is the
/// child's own here: without [`BARE`] no memory is shared.
///
/// # Safety
///
/// As the system call itself: pointers must be valid for what it does with them.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    // SAFETY: the caller's contract; errno is this thread's own.
    unsafe {
        match libc::syscall(number, a, b, c, d) {
            -1 => -(*libc::__errno_location() as isize),
            answer => answer as isize,
        }
    }
}

/// struct clone_args, as it was in its first version.
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArguments {
    pub(super) flags: u64,
    pub(super) pidfd: u64,
    pub(super) child_tid: u64,
    pub(super) parent_tid: u64,
    pub(super) exit_signal: u64,
    /// The lowest address of the child's stack.
    pub(super) stack: u64,
    pub(super) stack_size: u64,
    pub(super) tls: u64,
}

/// The first function of a child, which ends with what that returns.
pub(super) type Enter = extern "C" fn(*mut c_void) -> c_int;

/// clone3(2), for which the C library has no function. The child calls `enter` with `work`.
///
/// # Safety
///
/// As for clone(2): the stack, and where the kernel stores something, is memory that outlives the child's use
/// of it.
pub(super) unsafe fn clone3(arguments: &CloneArguments, enter: Enter, work: *mut c_void) -> isize {
    let size = size_of::<CloneArguments>();
    let arguments = [ptr::from_ref(arguments) as usize, size, 0, 0, 0];
    // SAFETY: the caller's contract.
    unsafe { create(libc::SYS_clone3, arguments, enter, work) }
}

/// clone(2) with a stack that ends at `top`. With CLONE_PIDFD the kernel stores a descriptor at `pidfd`; with
/// CLONE_CHILD_CLEARTID it clears `running` when the child leaves its memory.
///
/// # Safety
///
/// As for [`clone3`].
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) unsafe fn clone(
    flags: c_int,
    top: *mut c_void,
    pidfd: *mut c_int,
    running: *mut u32,
    enter: Enter,
    work: *mut c_void,
) -> isize {
    let no_tls = 0;
    let (fourth, fifth) = match cfg!(target_arch = "x86_64") {
        true => (running as usize, no_tls),
        // CONFIG_CLONE_BACKWARDS.
        false => (no_tls, running as usize),
    };
    let flags = flags.cast_unsigned() as usize;
    let arguments = [flags, top as usize, pidfd as usize, fourth, fifth];
    // SAFETY: the caller's contract.
    unsafe { create(libc::SYS_clone, arguments, enter, work) }
}

/// The same through the C library, without CLONE_CHILD_CLEARTID: without [`BARE`] the child has a copy of the
/// memory, and musl's clone() refuses it.
///
/// # Safety
///
/// As for [`clone3`].
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn clone(
    flags: c_int,
    top: *mut c_void,
    pidfd: *mut c_int,
    _running: *mut u32,
    enter: Enter,
    work: *mut c_void,
) -> isize {
    let flags = flags & !libc::CLONE_CHILD_CLEARTID;
    // SAFETY: the caller's contract; errno is this thread's own.
    unsafe {
        match libc::clone(enter, top, flags, work, pidfd) {
            -1 => -(*libc::__errno_location() as isize),
            pid => pid as isize,
        }
    }
}

/// Makes a system call that makes a child on a stack of its own.
///
/// # Safety
///
/// As for [`clone3`].
#[cfg(target_arch = "x86_64")]
unsafe fn create(
    number: libc::c_long,
    arguments: [usize; 5],
    enter: Enter,
    work: *mut c_void,
) -> isize {
    let answer: isize;
    // SAFETY: as in `call`. The child, to which the kernel answers 0, has the registers of its parent but for
    // the stack pointer: it never uses what is on the stack here, and never leaves this. Its frame is the
    // outermost (rbp), and the end of its stack is aligned, as the ABI wants it before a call.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "mov edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit_group,
            inlateout("rax") number as isize => answer,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r12") work,
            in("r13") enter,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

/// Makes a system call that makes a child on a stack of its own.
///
/// # Safety
///
/// As for [`clone3`].
#[cfg(target_arch = "aarch64")]
unsafe fn create(
    number: libc::c_long,
    arguments: [usize; 5],
    enter: Enter,
    work: *mut c_void,
) -> isize {
    let answer: isize;
    // SAFETY: as on x86-64. Its frame is the outermost (x29), from which nothing returns (x30).
    unsafe {
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "mov x8, {exit}",
            "svc 0",
            "brk 1",
            "2:",
            exit = const libc::SYS_exit_group,
            in("x8") number,
            inlateout("x0") arguments[0] => answer,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x20") work,
            in("x21") enter,
        );
    }
    answer
}

/// Not written for this architecture: answers as a kernel that does not have the call.
///
/// # Safety
///
/// None is needed.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn create(_: libc::c_long, _: [usize; 5], _: Enter, _: *mut c_void) -> isize {
    -(libc::ENOSYS as isize)
}
