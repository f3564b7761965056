//! Whether a process takes clients, as /proc shows it: each way of waiting for them, and what only
//! looks like it.

use crate::harness::{World, eventually, probe_path, skip};
use listend::config::Every;
use listend::evidence::{Sight, SocketInode, Why, look};
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::stat::Mode;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

/// A probe that waits for clients; see tests/probe/wait.rs.
struct Waiter {
    child: Child,
    control: UnixStream,
}

impl Waiter {
    /// It is up, and has done nothing.
    fn start(how: &str, listener: impl AsFd) -> Waiter {
        let listener = listener.as_fd().try_clone_to_owned().expect("dup");
        let (control, theirs) = UnixStream::pair().expect("socketpair");
        control
            .set_read_timeout(Some(crate::harness::DEADLINE))
            .expect("set a timeout");
        let mut command = Command::new(probe_path());
        // Its standard output is the listener.
        command.args(["wait", how, "1"]).stdout(listener);
        let child = command.stdin(OwnedFd::from(theirs)).spawn();
        let mut waiter = Waiter {
            child: child.expect("start the probe"),
            control,
        };
        waiter.done();
        waiter
    }

    /// Waits until it has done a step.
    fn done(&mut self) {
        let read = self.control.read_exact(&mut [0]);
        read.expect("the probe goes on");
    }

    /// Lets it do the next one.
    fn go(&mut self) {
        self.control.write_all(b".").expect("tell the probe");
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn sight(&self, listener: impl AsFd) -> Sight {
        look(self.pid(), &[[inode(listener)]], Every::All)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn inode(listener: impl AsFd) -> SocketInode {
    SocketInode::of(listener).expect("fstat")
}

fn tcp() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("bind")
}

/// It is not seen before it waits, and is seen when it does.
#[track_caller]
fn is_seen(how: &str, listener: impl AsFd) {
    let mut waiter = Waiter::start(how, &listener);
    assert_eq!(waiter.sight(&listener), Sight::NotYet, "{how}");
    waiter.go();
    eventually(how, || waiter.sight(&listener) == Sight::Seen);
    // Not because of something that every process has.
    assert_eq!(waiter.sight(tcp()), Sight::NotYet, "{how}");
}

#[test]
fn epoll() {
    is_seen("epoll", tcp());
}

#[test]
fn epoll_under_another_number() {
    is_seen("epoll-dup", tcp());
}

#[test]
fn poll() {
    is_seen("poll", tcp());
}

#[test]
fn ppoll() {
    is_seen("ppoll", tcp());
}

#[test]
fn select() {
    is_seen("select", tcp());
}

#[test]
fn select_under_a_high_number() {
    is_seen("select-dup", tcp());
}

#[test]
fn pselect() {
    is_seen("pselect", tcp());
}

#[test]
fn accept() {
    is_seen("accept", tcp());
}

#[test]
fn accept_in_another_thread() {
    is_seen("thread", tcp());
}

#[test]
fn accept_in_a_child() {
    is_seen("child", tcp());
}

#[test]
fn accept_in_a_child_of_a_child() {
    is_seen("grandchild", tcp());
}

#[test]
fn a_listener_without_connections() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    is_seen("receive", &socket);
    is_seen("epoll", &socket);
    is_seen("poll", &socket);
}

#[test]
fn a_listener_that_is_no_socket() {
    let world = World::new();
    let path = world.path("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("mkfifo");
    // Both ends, so that nobody waits for the other and there is no end of file.
    let fifo = nix::fcntl::open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
    let fifo = fifo.expect("open");
    is_seen("read", &fifo);
    is_seen("epoll", &fifo);
}

#[test]
fn what_epoll_watches_counts_while_it_does() {
    let listener = tcp();
    let mut waiter = Waiter::start("epoll-elsewhere", &listener);
    waiter.go();
    waiter.done();
    // It has read its step and sleeps in read(2), with the listener watched.
    assert_eq!(waiter.sight(&listener), Sight::Seen);
    waiter.go();
    waiter.done();
    assert_eq!(waiter.sight(&listener), Sight::NotYet);
}

#[test]
fn to_wait_for_something_else_of_the_listener_is_not_to_take_clients() {
    let listener = tcp();
    let mut waiter = Waiter::start("epoll-output", &listener);
    waiter.go();
    waiter.done();
    assert_eq!(waiter.sight(&listener), Sight::NotYet);
    let mut waiter = Waiter::start("poll-output", &listener);
    waiter.go();
    crate::harness::settled(waiter.pid());
    assert_eq!(waiter.sight(&listener), Sight::NotYet);
}

#[test]
fn every_socket_of_every_listener_that_is_wanted_has_to_be_seen() {
    let (listener, other) = (tcp(), tcp());
    let mut waiter = Waiter::start("epoll", &listener);
    waiter.go();
    eventually("epoll", || waiter.sight(&listener) == Sight::Seen);
    let (seen, not) = (inode(&listener), inode(&other));
    let sight = |listeners: &[Vec<SocketInode>], wanted| look(waiter.pid(), listeners, wanted);
    let two = [vec![seen], vec![not]];
    assert_eq!(sight(&two, Every::First), Sight::Seen);
    assert_eq!(sight(&two, Every::All), Sight::NotYet);
    let both = [vec![seen, not]];
    assert_eq!(sight(&both, Every::First), Sight::NotYet);
    assert_eq!(sight(&[], Every::All), Sight::Seen);
    assert_eq!(sight(&[], Every::First), Sight::Seen);
}

#[test]
fn who_waits_through_io_uring_is_hidden() {
    let listener = tcp();
    let mut waiter = Waiter::start("io_uring", &listener);
    waiter.go();
    if waiter.control.read_exact(&mut [0]).is_err() {
        return skip("no io_uring here");
    }
    // Event loops have one and do not use it for this.
    assert_eq!(waiter.sight(&listener), Sight::NotYet);
    waiter.go();
    waiter.done();
    let pid = waiter.pid();
    assert_eq!(waiter.sight(&listener), Sight::Hidden(Why::IoUring { pid }));
}

// Access is checked with the file system user, which each thread has of its own (setfsuid(2)).
#[test]
fn a_process_of_another_user_is_hidden() {
    if !crate::harness::require_root() {
        return;
    }
    let listener = tcp();
    let mut waiter = Waiter::start("epoll", &listener);
    waiter.go();
    eventually("epoll", || waiter.sight(&listener) == Sight::Seen);
    let sight = std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            waiter.sight(&listener)
        });
        look.join().expect("the thread")
    });
    let why = Why::Unreadable {
        pid: waiter.pid(),
        file: "syscall",
        errno: libc::EACCES,
    };
    assert_eq!(sight, Sight::Hidden(why));
    let text = format!("cannot read /proc/{}/syscall: ", waiter.pid());
    assert!(why.to_string().starts_with(&text), "{why}");
}

#[test]
fn a_process_that_proc_does_not_have_is_hidden() {
    let mut child = Command::new("true").spawn().expect("start true");
    child.wait().expect("wait for it");
    let pid = child.id() as i32;
    let why = Why::Unreadable {
        pid,
        file: "task",
        errno: libc::ENOENT,
    };
    let sight = look(pid, &[[inode(tcp())]], Every::All);
    assert_eq!(sight, Sight::Hidden(why));
}

#[test]
fn a_process_that_has_ended_takes_nobody() {
    let listener = tcp();
    let mut waiter = Waiter::start("accept", &listener);
    waiter.child.kill().expect("kill it");
    eventually("it is a zombie", || {
        crate::harness::state(waiter.pid()) == Some('Z')
    });
    assert_eq!(waiter.sight(&listener), Sight::NotYet);
}
