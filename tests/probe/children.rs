//! Processes that a worker leaves behind, and what all of them have in common.

use nix::libc;
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork, pause, setsid};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// No test takes longer, so nothing that outlives its test lives longer either.
const LIFETIME_SECONDS: u32 = 60;
/// Long enough that its parent is gone before an orphan exits.
const ORPHAN_LIFETIME: Duration = Duration::from_millis(100);

/// Ignores a signal.
pub fn ignore(number: Signal) {
    // SAFETY: no handler is installed.
    unsafe { signal(number, SigHandler::SigIgn) }.expect("ignore a signal");
}

/// Sends this process a signal that has its default effect.
pub fn raise(number: Signal) {
    // SAFETY: no handler is installed. SIGKILL has its default effect anyway.
    let _ = unsafe { signal(number, SigHandler::SigDfl) };
    nix::sys::signal::raise(number).expect("raise");
}

/// Makes children of this process's parent that have ended, as many as there may be and for as long as this runs,
/// in so many threads. What is written first tells that they begin.
pub fn litter(threads: usize) -> ! {
    let all_are_there = Arc::new(Barrier::new(threads + 1));
    let litter = |all_are_there: Arc<Barrier>| {
        all_are_there.wait();
        let mut stack = vec![0; 64 * 1024];
        let flags = CloneFlags::CLONE_PARENT | CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
        loop {
            // SAFETY: this thread waits until the child has ended, which does nothing else.
            let _none_is_free =
                unsafe { clone(Box::new(|| 0), &mut stack, flags, Some(libc::SIGCHLD)) };
        }
    };
    for _ in 0..threads {
        let all_are_there = Arc::clone(&all_are_there);
        std::thread::spawn(move || litter(all_are_there));
    }
    let _told = std::io::stderr().write_all(b"litters\n");
    all_are_there.wait();
    loop {
        pause();
    }
}

/// Forks a child in the same process group that ignores SIGTERM and stays; its pid.
pub fn stubborn(strings: &UnixStream) -> i32 {
    // The test must not see it live before it is deaf.
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    // SAFETY: there is one thread, so the child may do what any process may.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            drop(theirs);
            let _ = ours.read(&mut [0]);
            child.as_raw()
        }
        ForkResult::Child => {
            ignore(Signal::SIGTERM);
            // The test takes end of file on the strings for the death of the puppet.
            // SAFETY: the child uses neither this descriptor nor `strings` again.
            unsafe { libc::close(strings.as_raw_fd()) };
            nix::unistd::alarm::set(LIFETIME_SECONDS);
            let _ = (&theirs).write(b"x");
            drop((ours, theirs));
            loop {
                pause();
            }
        }
    }
}

/// Forks twice: a child in a process group of its own, which reaps nobody, and a child of that in the
/// process group of this process; the pid of the first.
pub fn neglected(strings: &UnixStream) -> i32 {
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    let group = nix::unistd::getpgrp();
    let stay = |ours: UnixStream, theirs: UnixStream| -> ! {
        // SAFETY: as in `stubborn`.
        unsafe { libc::close(strings.as_raw_fd()) };
        nix::unistd::alarm::set(LIFETIME_SECONDS);
        let _ = (&theirs).write(b"x");
        drop((ours, theirs));
        loop {
            pause();
        }
    };
    // SAFETY: there is one thread, so the child may do what any process may.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            drop(theirs);
            ours.read_exact(&mut [0; 2]).expect("both are there");
            child.as_raw()
        }
        ForkResult::Child => {
            let itself = nix::unistd::Pid::from_raw(0);
            nix::unistd::setpgid(itself, itself).expect("setpgid");
            // SAFETY: as above.
            if let ForkResult::Child = unsafe { fork() }.expect("fork") {
                nix::unistd::setpgid(itself, group).expect("setpgid");
            }
            stay(ours, theirs)
        }
    }
}

/// Forks twice: a process in a session of its own whose parent exits, so that it falls to PID 1
/// of the namespace; its pid. It exits soon.
pub fn orphan(strings: &UnixStream) -> i32 {
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    // SAFETY: there is one thread, so the child may do what any process may.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut pid = [0; 4];
            ours.read_exact(&mut pid).expect("the orphan's pid");
            nix::sys::wait::waitpid(child, None).expect("waitpid");
            i32::from_ne_bytes(pid)
        }
        ForkResult::Child => {
            // SAFETY: as above, and as in `stubborn`.
            unsafe { libc::close(strings.as_raw_fd()) };
            setsid().expect("setsid");
            // SAFETY: as above.
            if let ForkResult::Child = unsafe { fork() }.expect("fork") {
                let pid = std::process::id() as i32;
                let _ = (&theirs).write(&pid.to_ne_bytes());
                drop((ours, theirs));
                std::thread::sleep(ORPHAN_LIFETIME);
            }
            // SAFETY: _exit(2) takes an integer. The buffers of the parent stay its own.
            unsafe { libc::_exit(0) }
        }
    }
}

/// For a puppet that is not tied to its parent: it ends some time all the same.
pub fn outlive_its_parent(seconds: Option<&str>) {
    let seconds = seconds.map(|seconds| seconds.parse().expect("a number"));
    nix::unistd::alarm::set(seconds.unwrap_or(LIFETIME_SECONDS));
}

/// Ties the life of the probe to its parent's, so that a test that fails leaves nothing running.
pub fn die_with_parent() {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}
