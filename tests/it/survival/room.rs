//! A keeper that has no room for everything, as systemd with a small `FileDescriptorStoreMax=`.

use crate::harness::left::{Left, kill_daemon};
use crate::harness::reloading::state_of;
use crate::harness::{
    Daemon, Start, World, children, client, eventually, exists, free_port, require_root,
    require_tool,
};
use nix::cmsg_space;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::close;
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};

/// What it keeps, as systemd: what is more is closed, and nobody is told.
struct Keeper {
    socket: UnixDatagram,
    most: usize,
    kept: Vec<(String, RawFd)>,
    closed: usize,
    /// What it has been told to close, and has not yet, where it is late: as systemd, which has a thread do that.
    late: Option<Vec<RawFd>>,
    /// What else it was told.
    heard: String,
}

impl Keeper {
    fn new(world: &World, most: usize) -> Keeper {
        let socket = UnixDatagram::bind(world.path("keeper")).expect("bind");
        socket.set_nonblocking(true).expect("fcntl");
        Keeper {
            socket,
            most,
            kept: Vec::new(),
            closed: 0,
            late: None,
            heard: String::new(),
        }
    }

    /// Takes what there is. How many it keeps then under a name.
    fn count(&mut self, name: &str) -> usize {
        let mut bytes = [0; 4096];
        let mut space = cmsg_space!([RawFd; 253]);
        loop {
            let mut buffers = [IoSliceMut::new(&mut bytes)];
            let number = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let Ok(got) = recvmsg::<()>(number, &mut buffers, Some(&mut space), flags) else {
                break;
            };
            let mut fds = Vec::new();
            for message in got.cmsgs().expect("whole messages") {
                if let ControlMessageOwned::ScmRights(numbers) = message {
                    fds.extend(numbers);
                }
            }
            let length = got.bytes;
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let named = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
            if text.starts_with("FDSTOREREMOVE=1") {
                let gone = self.kept.extract_if(.., |(one, _)| Some(&**one) == named);
                let gone = gone.map(|(_, fd)| fd);
                match &mut self.late {
                    Some(late) => late.extend(gone),
                    None => gone.for_each(|fd| close(fd).expect("close")),
                }
            } else if text.starts_with("FDSTORE=1") {
                for fd in fds {
                    match self.kept.len() < self.most {
                        true => self.kept.push((named.expect("a name").to_owned(), fd)),
                        false => {
                            close(fd).expect("close");
                            self.closed += 1;
                        }
                    }
                }
            } else {
                self.heard.push_str(&text);
                // A barrier is answered so.
                fds.into_iter().for_each(|fd| close(fd).expect("close"));
            }
        }
        self.kept.iter().filter(|(one, _)| one == name).count()
    }

    fn all(&mut self) -> BTreeMap<String, usize> {
        self.count("");
        let mut all = BTreeMap::new();
        for (name, _) in &self.kept {
            *all.entry(name.clone()).or_default() += 1;
        }
        all
    }

    /// Reads while listend is asked something: an answer waits until it has.
    fn answers(&mut self, world: &World, words: &str) {
        let control = ["--control", "$DIR/control.sock"];
        let asks = world.start(Start::new(words.split(' ').chain(control)));
        eventually(words, || {
            self.count("");
            !asks.is_running()
        });
        asks.finish().expect_code(0);
    }

    /// Starts the next listend with everything, through the words of another command that executes it.
    fn starts_next(&mut self, world: &World, most: usize, through: &[&str]) -> Daemon {
        let (path, mut start) = (
            world.path("hand"),
            Start::new(["run", "-c", "$DIR/listend.yaml"]),
        );
        let hand = UnixListener::bind(&path).expect("bind");
        told(&mut start, most);
        let mut words = vec!["python3", "-c", TAKES, "$DIR/hand"];
        words.extend(through);
        start.through(words);
        let names: Vec<&str> = self.kept.iter().map(|(name, _)| &**name).collect();
        start.env("LISTEN_FDNAMES", &names.join(":"));
        start.env("LISTEN_FDS", &names.len().to_string());
        let daemon = world.start(start);
        let (taker, _) = hand.accept().expect("it takes them");
        let numbers: Vec<RawFd> = self.kept.iter().map(|(_, fd)| *fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let bytes = [IoSlice::new(b"x")];
        let to = taker.as_raw_fd();
        sendmsg::<()>(to, &bytes, &rights, MsgFlags::empty(), None).expect("send");
        std::fs::remove_file(path).expect("remove");
        daemon
    }
}

/// Takes descriptors from a socket, gives them the numbers from 3 on, and executes the other words.
const TAKES: &str = "
import fcntl, os, socket, sys
taker = socket.socket(socket.AF_UNIX)
taker.connect(sys.argv[1])
fds = socket.recv_fds(taker, 1, 253)[1]
for fd in fds:
    os.set_inheritable(fd, False)
# They are in the way of each other.
far = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 300) for fd in fds]
for at, fd in enumerate(far):
    os.dup2(fd, 3 + at)
os.environ['LISTEN_PID'] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
";

fn told(start: &mut Start, most: usize) {
    start.env("NOTIFY_SOCKET", "$DIR/keeper");
    start.env("FDSTORE", &most.to_string());
    start.words_behind(["--control", "$DIR/control.sock"]);
}

fn answers(port: u16) {
    let stream = client::tcp(SocketAddr::from(([127, 0, 0, 1], port))).expect("connect");
    let answer = client::http(stream, "/").expect("an answer");
    assert!(answer.contains("one"), "{answer}");
}

fn configuration(ports: [u16; 2], lines: &str) -> String {
    format!(
        "
listeners: {{ web: '127.0.0.1:{}', beside: '127.0.0.1:{}' }}
workers:
  app:
    command: [$PROBE, serve-app, --outlive, --version, one]
    listeners: [web, beside]
    nonblocking: true
    instances: 2
{lines}",
        ports[0], ports[1]
    )
}

// Rule: a socket is never what is not kept; what is lost is said at the start, with the numbers.
#[test]
fn what_is_more_than_there_is_room_for_is_of_processes() {
    if require_tool("python3").is_none() {
        return;
    }
    let world = World::new();
    let mut keeper = Keeper::new(&world, 5);
    let ports = [free_port(), free_port()];
    let yaml = configuration(ports, "    output: tag\n    rollout: { min_ready: 0s }\n");
    let daemon = world.run_with(&yaml, |start| told(start, 5));
    // Three of its own, two sockets, a pidfd and a pipe of each instance.
    let warned = ["only 5 descriptors are kept", "needs 9"];
    eventually("it is ready", || {
        keeper.count("");
        keeper.heard.contains("READY=1")
    });
    let said = daemon.line(&warned);
    assert!(said.contains("FileDescriptorStoreMax="), "{said}");
    let expected = |one: usize| {
        let all = [
            ("l.0", 2),
            ("listend-control", 1),
            ("listend-snapshot", 1),
            ("p.0", one),
        ];
        let all = all.into_iter().filter(|(_, count)| *count > 0);
        all.map(|(name, count)| (name.to_owned(), count))
            .collect::<BTreeMap<_, _>>()
    };
    eventually("it keeps what it can", || keeper.all() == expected(1));
    // One more socket is worth more than a process.
    let third = free_port();
    let more = yaml.replace(
        "listeners: {",
        &format!("listeners: {{ more: '127.0.0.1:{third}',"),
    );
    world.write("listend.yaml", &more.replace("[web,", "[more, web,"));
    keeper.answers(&world, "reload");
    let mut wanted = expected(0);
    wanted.insert("l.1".to_owned(), 1);
    eventually("the socket is kept", || keeper.all() == wanted);
    assert_eq!(
        keeper.closed, 0,
        "nothing is sent that there is no room for"
    );
    assert_eq!(
        daemon
            .lines_so_far(&["are kept for the next listend"])
            .len(),
        1
    );

    let _left = kill_daemon(&daemon);
    let daemon = keeper.starts_next(&world, 5, &[]);
    eventually("the next goes on", || {
        keeper.count("");
        !daemon
            .lines_so_far(&["going on where listend", "3 sockets"])
            .is_empty()
    });
    // Nobody would read what they write.
    eventually("the workers are replaced", || {
        keeper.count("");
        !daemon
            .lines_so_far(&["replacing the processes of app"])
            .is_empty()
            && children(daemon.pid()).len() == 2
            && state_of(&world, "workers", "app") == "running"
    });
    for port in [ports[0], ports[1], third] {
        answers(port);
    }
    assert_eq!(keeper.closed, 0);
    daemon.stop();
}

/// A daemon of which the keeper has lost every socket, and its workers.
fn without_sockets(world: &World, ports: [u16; 2], through: &[&str]) -> (Keeper, Daemon, Left) {
    let mut keeper = Keeper::new(world, 1);
    let daemon = world.run_with(&configuration(ports, ""), |start| told(start, 100));
    eventually("it is ready", || {
        keeper.count("listend-snapshot") == 1 && keeper.heard.contains("READY=1")
    });
    assert!(keeper.closed > 0);
    let left = kill_daemon(&daemon);
    assert_eq!(left.0.len(), 2);
    keeper.most = 100;
    keeper.heard.clear();
    let daemon = keeper.starts_next(world, 100, through);
    (keeper, daemon, left)
}

// Rule: what the keeper has lost is with the workers.
#[test]
fn sockets_that_were_not_kept_are_taken_from_the_workers() {
    // Who may take what is another's (ptrace(2)).
    if !require_root() || require_tool("python3").is_none() {
        return;
    }
    let world = World::new();
    let ports = [free_port(), free_port()];
    let (mut keeper, daemon, left) = without_sockets(&world, ports, &[]);
    eventually("it is ready, and the sockets are kept", || {
        keeper.count("l.0") == 2 && keeper.heard.contains("READY=1")
    });
    daemon.line(&["taken from the workers: 2"]);
    assert!(left.0.iter().all(|pid| exists(*pid)));
    keeper.answers(&world, "scale app 3");
    ports.into_iter().for_each(answers);
    eventually("there is one more, and no other", || {
        children(daemon.pid()).len() == 1
    });
    assert!(left.0.iter().all(|pid| exists(*pid)));
    daemon.stop();
    assert!(!left.0.iter().any(|pid| exists(*pid)));
}

// Rule: where that is not allowed, the workers serve on, and what helps is said, and helps.
#[test]
fn sockets_that_cannot_be_taken_leave_the_workers_in_peace() {
    if !require_root()
        || ["python3", "setpriv"]
            .iter()
            .any(|one| require_tool(one).is_none())
    {
        return;
    }
    let world = World::new();
    let ports = [free_port(), free_port()];
    let less = [
        "setpriv",
        "--bounding-set=-sys_ptrace",
        "--inh-caps=-sys_ptrace",
        "--",
    ];
    let (mut keeper, daemon, left) = without_sockets(&world, ports, &less);
    eventually("it is ready", || {
        keeper.count("");
        keeper.heard.contains("READY=1")
    });
    let said = daemon.line(&["listener web: its socket was not kept", "pidfd_getfd(2)"]);
    assert!(said.contains("`listend stop app`"), "{said}");
    assert!(left.0.iter().all(|pid| exists(*pid)));
    ports.into_iter().for_each(answers);
    keeper.answers(&world, "stop app");
    // It is tried to bind them every now and then.
    eventually("they are bound again", || {
        keeper.count("");
        let bound = ["listener web: listening", "listener beside: listening"];
        bound
            .iter()
            .all(|words| !daemon.lines_so_far(&[words]).is_empty())
    });
    keeper.answers(&world, "start app");
    eventually("the sockets are kept again", || {
        keeper
            .all()
            .iter()
            .any(|(name, count)| name.starts_with("l.") && *count == 2)
            || keeper
                .all()
                .keys()
                .filter(|name| name.starts_with("l."))
                .count()
                == 2
    });
    ports.into_iter().for_each(answers);
    assert!(!left.0.iter().any(|pid| exists(*pid)));
    daemon.stop();
}

// Rule: a port that the kernel has chosen stays, as long as something tells whose it is.
#[test]
fn a_chosen_port_stays_over_a_restart_and_without_a_snapshot() {
    if require_tool("python3").is_none() {
        return;
    }
    let both = "listeners: { web: '127.0.0.1:0', other: '127.0.0.1:0' }";
    let one = "listeners: { web: '127.0.0.1:0', other: 'udp://127.0.0.1:0' }";
    // The snapshot tells the listeners; without it there is one socket for one listener.
    for (listeners, has_snapshot) in [(both, true), (one, true), (one, false)] {
        let world = World::new();
        let mut keeper = Keeper::new(&world, 100);
        let daemon = world.run_with(listeners, |start| told(start, 100));
        eventually("it is ready", || {
            keeper.count("l.0") == 2 && keeper.heard.contains("READY=1")
        });
        let before = ["web", "other"].map(|name| daemon.address(name));
        daemon.signal(Signal::SIGTERM);
        eventually("it has ended", || {
            keeper.count("");
            !daemon.is_running()
        });
        if !has_snapshot {
            keeper.kept.retain(|(name, fd)| {
                let is_socket = name.starts_with("l.");
                if !is_socket {
                    close(*fd).expect("close");
                }
                is_socket
            });
        }
        keeper.heard.clear();
        let daemon = keeper.starts_next(&world, 100, &[]);
        eventually("the next is ready", || {
            keeper.count("");
            keeper.heard.contains("READY=1")
        });
        let after = ["web", "other"].map(|name| daemon.address(name));
        assert_eq!(after, before, "{listeners} {has_snapshot}");
        daemon.stop();
    }
}

/// A daemon that has stopped, and of which the keeper has sockets, which it closes late.
fn stopped(world: &World, listeners: &str, signal: Signal) -> Keeper {
    let mut keeper = Keeper::new(world, 100);
    let daemon = world.run_with(listeners, |start| told(start, 100));
    eventually("it is ready", || {
        keeper.count("l.0") > 0 && keeper.heard.contains("READY=1")
    });
    daemon.signal(signal);
    eventually("it has ended", || {
        keeper.count("");
        !daemon.is_running()
    });
    let _status = daemon.status();
    keeper.heard.clear();
    keeper.late = Some(Vec::new());
    keeper
}

// Rule: what is given up may be in the way for a while, and not for good.
#[test]
fn an_address_is_taken_that_overlaps_with_one_that_is_closed_late() {
    if require_tool("python3").is_none() {
        return;
    }
    for kind in ["", "udp://"] {
        let world = World::new();
        let port = free_port();
        let listeners = |ip: &str| format!("listeners: {{ web: '{kind}{ip}:{port}' }}");
        let mut keeper = stopped(&world, &listeners("0.0.0.0"), Signal::SIGTERM);
        world.write("listend.yaml", &listeners("127.0.0.1"));
        let daemon = keeper.starts_next(&world, 100, &[]);
        let waiting = ["waiting until sockets are closed", "web"];
        eventually("it waits", || {
            keeper.count("");
            !daemon.lines_so_far(&waiting).is_empty() || !daemon.is_running()
        });
        let late = keeper.late.take().expect("it is late");
        assert!(
            !late.is_empty(),
            "{}",
            daemon.lines_so_far(&[""]).join("\n")
        );
        late.into_iter().for_each(|fd| close(fd).expect("close"));
        eventually("the next is ready", || {
            keeper.count("");
            keeper.heard.contains("READY=1") || !daemon.is_running()
        });
        assert_eq!(
            daemon.address("web").to_string(),
            format!("127.0.0.1:{port}")
        );
        daemon.stop();
    }
}

// Rule: nor is a control socket that nobody answers at.
#[test]
fn a_control_socket_that_is_closed_late_is_no_listend() {
    if require_tool("python3").is_none() {
        return;
    }
    let world = World::new();
    let listeners = "listeners: { web: '127.0.0.1:0' }";
    let mut keeper = stopped(&world, listeners, Signal::SIGKILL);
    // Nothing tells how to go on.
    keeper.kept.retain(|(name, fd)| {
        let is_kept = name != "listend-snapshot";
        if !is_kept {
            close(*fd).expect("close");
        }
        is_kept
    });
    let daemon = keeper.starts_next(&world, 100, &[]);
    eventually("the next is ready", || {
        keeper.count("");
        keeper.heard.contains("READY=1") || !daemon.is_running()
    });
    keeper.answers(&world, "status");
    let late = keeper.late.take().expect("it is late");
    assert!(!late.is_empty());
    late.into_iter().for_each(|fd| close(fd).expect("close"));
    daemon.stop();
}
