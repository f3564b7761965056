//! Serves every inherited socket in one poll loop: each client gets the report.

use crate::report::Report;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::time::TimeSpec;
use socket2::SockRef;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

/// SD_LISTEN_FDS_START of sd_listen_fds(3).
const FIRST: RawFd = 3;

/// The sockets that `LISTEN_FDS` promises, taken at its word: what it says is what is tested.
pub fn inherited() -> Vec<RawFd> {
    let count = std::env::var("LISTEN_FDS").map_or(0, |n| n.parse().expect("LISTEN_FDS"));
    (FIRST..FIRST + count).collect()
}

/// Answers clients until `clients` of them have been served; `None` is for ever.
pub fn serve(report: &Report, fds: &[RawFd], clients: Option<usize>) {
    wake_up_from_accept();
    let json = serde_json::to_vec(report).expect("JSON");
    let mut served = 0;
    // SAFETY: nothing in this process closes an inherited descriptor.
    let borrowed = fds.iter().map(|fd| unsafe { BorrowedFd::borrow_raw(*fd) });
    let mut polled: Vec<PollFd> = borrowed
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    while clients.is_none_or(|limit| served < limit) {
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
        for (fd, entry) in fds.iter().zip(&polled) {
            if entry.revents().is_some_and(|events| !events.is_empty()) && one(*fd, &json) {
                served += 1;
            }
        }
    }
}

/// Tells every client the pid, and returns when none has come for a time between nothing and so
/// many microseconds, another one in each process.
pub fn serve_until_idle(fds: &[RawFd], longest: u32) {
    let pid = std::process::id();
    // Knuth's multiplicative hash: pids that follow one another are far apart.
    let patience = pid.wrapping_mul(2_654_435_761) % (longest + 1);
    let patience = TimeSpec::from(Duration::from_micros(patience.into()));
    // SAFETY: nothing in this process closes an inherited descriptor.
    let borrowed = fds.iter().map(|fd| unsafe { BorrowedFd::borrow_raw(*fd) });
    let mut polled: Vec<PollFd> = borrowed
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    while ppoll(&mut polled, Some(patience), None).expect("ppoll") > 0 {
        for (fd, entry) in fds.iter().zip(&polled) {
            if entry.revents().is_some_and(|events| !events.is_empty()) {
                // SAFETY: as above.
                let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
                let (client, _) = SockRef::from(&fd).accept().expect("accept");
                let _ = writeln!(&client, "{pid}");
            }
        }
    }
}

/// Serves one client; `false` if another process was faster.
fn one(fd: RawFd, json: &[u8]) -> bool {
    // SAFETY: nothing in this process closes an inherited descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let socket = SockRef::from(&fd);
    if !socket.is_listener().expect("SO_ACCEPTCONN") {
        return datagram(&socket, json);
    }
    arm(Duration::from_millis(20));
    let accepted = socket.accept();
    arm(Duration::ZERO);
    let Ok((client, _)) = accepted else {
        return false;
    };
    let _ = client.set_write_timeout(Some(Duration::from_secs(5)));
    // One record for seqpacket; a client that has gone away is its own affair.
    let _ = (&client).write_all(json);
    let _ = client.shutdown(Shutdown::Write);
    true
}

fn datagram(socket: &SockRef<'_>, json: &[u8]) -> bool {
    let mut request = [MaybeUninit::uninit(); 2048];
    let Ok((_, client)) = socket.recv_from_with_flags(&mut request, libc::MSG_DONTWAIT) else {
        return false;
    };
    let _ = socket.send_to(json, &client);
    true
}

/// Several processes may wait for one client on a blocking listener, and all but one of them
/// would be stuck in accept(2), deaf for their other listeners. O_NONBLOCK is no way out, being
/// shared by all of them (fcntl(2)), so a timer interrupts the call.
fn arm(after: Duration) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: after.subsec_micros().into(),
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: `timer` is valid, and the old value is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

extern "C" fn nothing(_: i32) {}

fn wake_up_from_accept() {
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGALRM, &action) }.expect("sigaction");
}

/// Shuts every listener down, for everybody who has it.
pub fn shut_down(fds: &[RawFd]) -> io::Result<()> {
    for fd in fds {
        // SAFETY: nothing in this process closes an inherited descriptor.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        match SockRef::from(&fd).shutdown(std::net::Shutdown::Both) {
            // What a second one answers, and does it all the same.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            done => done?,
        }
    }
    Ok(())
}

/// Turns O_NONBLOCK of the listeners the other way round.
pub fn flip(fds: &[RawFd]) -> io::Result<()> {
    for fd in fds {
        // SAFETY: nothing in this process closes an inherited descriptor.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(!socket.nonblocking()?)?;
    }
    Ok(())
}

/// Leaves the listeners as a careless worker would: O_NONBLOCK the other way round, and an accept
/// queue of one.
pub fn disturb(fds: &[RawFd]) -> io::Result<()> {
    for fd in fds {
        // SAFETY: nothing in this process closes an inherited descriptor.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(!socket.nonblocking()?)?;
        if socket.is_listener()? {
            socket.listen(1)?;
        }
    }
    Ok(())
}
