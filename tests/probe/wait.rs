//! Waits for clients in each way that there is, step by step: it tells the test on standard input,
//! a socket, what it is about to do, and goes on when it is told to.

use crate::children;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::{FdSet, pselect, select};
use nix::sys::socket::{MsgFlags, accept, recv};
use nix::unistd::{ForkResult, dup, fork, read, write};
use std::ffi::c_int;
use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};

/// `wait HOW FD`
pub fn run(words: &[String]) -> c_int {
    let [how, fd] = words else {
        panic!("wait HOW FD");
    };
    children::die_with_parent();
    let number: RawFd = fd.parse().expect("a number");
    // SAFETY: nothing in this process closes an inherited descriptor.
    let listener = unsafe { BorrowedFd::borrow_raw(number) };
    step();
    match how.as_str() {
        "epoll" => epoll(listener, EpollFlags::EPOLLIN),
        "epoll-output" => epoll(listener, EpollFlags::EPOLLOUT),
        "epoll-elsewhere" => epoll_elsewhere(listener),
        "epoll-dup" => {
            let copy = dup(listener).expect("dup").into_raw_fd();
            // SAFETY: it was opened a line above, and nobody closes it.
            epoll(unsafe { BorrowedFd::borrow_raw(copy) }, EpollFlags::EPOLLIN);
        }
        "poll" => {
            let mut fds = [PollFd::new(listener, PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE).expect("poll");
        }
        "poll-output" => {
            let mut fds = [PollFd::new(listener, PollFlags::POLLPRI)];
            poll(&mut fds, PollTimeout::NONE).expect("poll");
        }
        "ppoll" => {
            let mut fds = [PollFd::new(listener, PollFlags::POLLIN)];
            ppoll(&mut fds, None, None).expect("ppoll");
        }
        "select" => {
            let mut set = FdSet::new();
            set.insert(listener);
            select(None, &mut set, None, None, None).expect("select");
        }
        "pselect" => {
            let mut set = FdSet::new();
            set.insert(listener);
            pselect(None, &mut set, None, None, None, None).expect("pselect");
        }
        "select-dup" => {
            // Far up in the set, behind the first of its words.
            let copy = fcntl(listener, FcntlArg::F_DUPFD(100)).expect("F_DUPFD");
            // SAFETY: it was opened a line above, and nobody closes it.
            let copy = unsafe { BorrowedFd::borrow_raw(copy) };
            let mut set = FdSet::new();
            set.insert(copy);
            select(None, &mut set, None, None, None).expect("select");
        }
        "accept" => wait_in_accept(number),
        "thread" => {
            std::thread::spawn(move || wait_in_accept(number));
            step();
        }
        "child" => in_child(|| wait_in_accept(number)),
        "grandchild" => in_child(|| in_child(|| wait_in_accept(number))),
        "receive" => drop(recv(number, &mut [0; 64], MsgFlags::empty())),
        "read" => drop(read(listener, &mut [0; 64])),
        "io_uring" => io_uring(number),
        other => panic!("{other}: no such way"),
    }
    0
}

/// Tells that a step is done, and waits until the next may be.
fn step() {
    let control = std::io::stdin();
    write(&control, b".").expect("write to the test");
    // The end of the file is the end of the test.
    if read(&control, &mut [0]).expect("read from the test") == 0 {
        std::process::exit(0);
    }
}

fn wait_in_accept(listener: RawFd) {
    accept(listener).expect("accept");
}

fn added(listener: BorrowedFd, events: EpollFlags) -> Epoll {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll_create");
    epoll
        .add(listener, EpollEvent::new(events, 0))
        .expect("epoll_ctl");
    epoll
}

/// One added for output only is reported at once for its want of any connection (EPOLLHUP), so it
/// waits for the test instead.
fn epoll(listener: BorrowedFd, events: EpollFlags) {
    let epoll = added(listener, events);
    if !events.contains(EpollFlags::EPOLLIN) {
        return step();
    }
    let mut found = [EpollEvent::empty()];
    epoll
        .wait(&mut found, EpollTimeout::NONE)
        .expect("epoll_wait");
}

/// It is busy with something else while the listener is watched, and then watches it no more.
fn epoll_elsewhere(listener: BorrowedFd) {
    let epoll = added(listener, EpollFlags::EPOLLIN);
    step();
    epoll.delete(listener).expect("epoll_ctl");
    step();
    drop(epoll);
}

fn in_child(serve: impl FnOnce()) {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            children::die_with_parent();
            serve();
        }
        ForkResult::Parent { .. } => drop(nix::sys::wait::wait()),
    }
}

/// A ring that does nothing, then one that accepts (io_uring_setup(2)); the end with status 77
/// where there is none.
fn io_uring(listener: RawFd) {
    // Offsets in struct io_uring_params of the ones of the ring's tail and array, and the fixed
    // ones for mmap(2).
    const TAIL: usize = 44;
    const ARRAY: usize = 64;
    const ENTRIES_AT: libc::off_t = 0x1000_0000;
    const PAGE: usize = 4096;
    const ENTRY: usize = 64;
    const IORING_OP_ACCEPT: u8 = 13;
    let mut parameters = [0_u32; 30];
    // SAFETY: struct io_uring_params has 120 bytes, and all zero is a valid one.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if ring == -1 {
        std::process::exit(77);
    }
    step();
    let map = |offset| {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, and what is mapped has a page at least.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                protection,
                libc::MAP_SHARED,
                ring as c_int,
                offset,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "mmap");
        at.cast::<u8>()
    };
    let (queue, entries) = (map(0), map(ENTRIES_AT));
    let mut entry = [0; ENTRY];
    entry[0] = IORING_OP_ACCEPT;
    entry[4..8].copy_from_slice(&listener.to_ne_bytes());
    let offset = |at: usize| parameters[at / 4] as usize;
    // SAFETY: the kernel says that the fields are there, inside of the first page since the ring
    // has one entry, and nobody else has the ring.
    let submitted = unsafe {
        entries.cast::<[u8; ENTRY]>().write(entry);
        queue.add(offset(ARRAY)).cast::<u32>().write(0);
        queue.add(offset(TAIL)).cast::<u32>().write(1);
        libc::syscall(libc::SYS_io_uring_enter, ring, 1, 0, 0, 0, 0)
    };
    assert_eq!(submitted, 1, "io_uring_enter");
    step();
}
