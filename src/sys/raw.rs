//! System calls without the C library.
//!
//! A child that shares its parent's memory until exec also shares the parent's thread-local
//! storage, and with it errno: a C library wrapper that failed in the child would overwrite the
//! errno that the parent is about to read. These answer the kernel's own `-errno` and touch nothing.

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

/// clone3(2), for which the C library has no function. The child calls `enter` with `work`.
///
/// # Safety
///
/// As for clone(2): the stack, and where the kernel stores something, is memory that outlives the child's use
/// of it. `enter` must not return.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn clone3(
    arguments: &CloneArguments,
    enter: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    work: *mut libc::c_void,
) -> isize {
    let answer: isize;
    // SAFETY: as in `call`. The child, to which the kernel answers 0, has the registers of its parent but for
    // the stack pointer: it never uses what is on the stack here, and never leaves `enter`. Its frame is the
    // outermost (rbp), and the end of its stack is aligned, as the ABI wants it before a call.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => answer,
            in("rdi") std::ptr::from_ref(arguments),
            in("rsi") size_of::<CloneArguments>(),
            in("r12") work,
            in("r13") enter,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    answer
}

/// Not written for this architecture: answers as a kernel that does not have it.
///
/// # Safety
///
/// None is needed.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn clone3(
    _arguments: &CloneArguments,
    _enter: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    _work: *mut libc::c_void,
) -> isize {
    -(libc::ENOSYS as isize)
}

use nix::libc;
