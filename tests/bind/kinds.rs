//! What is neither TCP, UDP nor a unix socket: each kind is bound and then used by a client.

use crate::fixture::*;
use listend::config::{Endpoint, Transport, UnixKind};
use listend::listener::{
    Adopted, BindStep, BoundSocket, IoMode, Obstacle, Purpose, bind_all, prepare_for_spawn,
};
use listend::plan::{Access, ListenerId};
use listend::sys::sockopt;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::mqueue::{MQ_OFlag, MqAttr, mq_open, mq_send, mq_unlink};
use nix::sys::socket::{NetlinkAddr, getsockname};
use nix::sys::stat::Mode;
use nix::unistd::read;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

fn is_close_on_exec(socket: &BoundSocket) -> bool {
    let flags = fcntl(&socket.fd, FcntlArg::F_GETFD).unwrap();
    FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC)
}

fn is_nonblocking(socket: &BoundSocket) -> bool {
    let flags = fcntl(&socket.fd, FcntlArg::F_GETFL).unwrap();
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

/// Whatever it is, it can be put back in order before a spawn.
fn check_modes(socket: &BoundSocket) {
    for nonblocking in [true, false] {
        prepare_for_spawn(
            socket,
            16,
            if nonblocking {
                IoMode::NonBlocking
            } else {
                IoMode::Blocking
            },
        )
        .unwrap();
        assert_eq!(is_nonblocking(socket), nonblocking);
    }
    assert!(is_close_on_exec(socket));
}

fn fifo(path: &Path) -> Endpoint {
    Endpoint::Fifo {
        path: path.to_owned(),
    }
}

#[test]
fn a_fifo_is_made_written_to_and_removed() {
    let folder = Folder::new();
    let path = folder.join("deep/fifo");
    let access = Access {
        mode: 0o620,
        ..ACCESS
    };
    let plan = plan(&[&[fifo(&path)]], access);
    let tried = bind_all(&plan, Purpose::Try, Adopted::default());
    assert_eq!((tried.errors.len(), folder.names().len()), (0, 0));

    let outcome = bound(&plan);
    let socket = first(&outcome);
    let file = std::fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_fifo());
    // With the mark of what listend made.
    assert_eq!(mode(&path), 0o1620);
    assert_eq!(socket.identity.unwrap().ino, file.ino());
    assert!(socket.created && socket.backlog.is_none());
    check_modes(socket);

    let mut client = std::fs::File::options().write(true).open(&path).unwrap();
    client.write_all(b"hello").unwrap();
    drop(client);
    let mut buffer = [0; 16];
    assert_eq!(read(&socket.fd, &mut buffer).unwrap(), 5);
    // Our own side keeps it open, so that a reader waits for the next client.
    prepare_for_spawn(socket, 16, IoMode::NonBlocking).unwrap();
    let empty = read(&socket.fd, &mut buffer);
    assert_eq!(empty, Err(nix::errno::Errno::EAGAIN));

    assert!(outcome.bound.remove_paths().is_empty());
    assert!(!path.exists());
}

#[test]
fn a_fifo_that_is_there_is_taken_if_it_is_as_asked_and_left_there() {
    let folder = Folder::new();
    let path = folder.join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let before = std::fs::symlink_metadata(&path).unwrap().ino();
    for purpose in [Purpose::Try, Purpose::Keep] {
        let outcome = bind_all(&single(fifo(&path)), purpose, Adopted::default());
        assert_eq!(outcome.errors, []);
        if purpose == Purpose::Keep {
            assert!(!first(&outcome).created);
            assert_eq!(first(&outcome).identity.unwrap().ino, before);
        }
        assert!(outcome.bound.remove_paths().is_empty());
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().ino(), before);
    }
    std::fs::write(folder.join("file"), "").unwrap();
    leave_stale(&folder.join("socket"));
    let wider = Access {
        mode: 0o666,
        ..ACCESS
    };
    for (name, access, words) in [
        ("fifo", wider, "a fifo with another owner or mode"),
        ("file", ACCESS, "a regular file"),
        ("socket", ACCESS, "a socket"),
    ] {
        for purpose in [Purpose::Try, Purpose::Keep] {
            let plan = plan(&[&[fifo(&folder.join(name))]], access);
            let outcome = bind_all(&plan, purpose, Adopted::default());
            let error = only_error(&outcome);
            assert_eq!(error.obstacle, Some(Obstacle::NotASocket(words)));
            assert_eq!((error.step, error.errno), (BindStep::Open, libc::EEXIST));
            assert!(folder.join(name).symlink_metadata().is_ok());
        }
    }
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_fifo_that_a_killed_listend_left_is_removed_in_the_end() {
    let folder = Folder::new();
    let path = folder.join("fifo");
    let plan = single(fifo(&path));
    // Closed as the kernel does it: what was made stays.
    drop(bound(&plan));
    assert!(path.exists());
    let outcome = bound(&plan);
    // While another has it, it is no one's to remove but theirs.
    let second = bound(&plan);
    assert!(first(&outcome).created && !first(&second).created);
    assert!(second.bound.remove_paths().is_empty());
    assert!(path.exists());
    drop(second);
    assert!(outcome.bound.remove_paths().is_empty());
    assert!(!path.exists());
    // Killed before it had its rights.
    nix::unistd::mkfifo(&path, Mode::S_ISVTX).unwrap();
    for purpose in [Purpose::Try, Purpose::Keep] {
        let outcome = bind_all(&plan, purpose, Adopted::default());
        assert_eq!(outcome.errors, []);
        let expected = [0o1000, 0o1600][usize::from(purpose == Purpose::Keep)];
        assert_eq!(mode(&path), expected);
        outcome.bound.withdraw();
    }
    assert!(!path.exists());
}

#[test]
fn a_fifo_never_has_more_rights_than_asked() {
    let folder = Folder::new();
    let path = folder.join("fifo");
    let access = Access {
        owner: Some(nix::unistd::geteuid().as_raw()),
        mode: 0o640,
        ..ACCESS
    };
    let before = nix::sys::stat::umask(Mode::empty());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let mut seen = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let file = std::fs::symlink_metadata(&path);
                seen |= file.map_or(0, |file| file.mode() & 0o7777);
            }
            seen
        });
        for _ in 0..300 {
            let outcome = bound(&plan(&[&[fifo(&path)]], access));
            assert_eq!(mode(&path), 0o1640);
            outcome.bound.remove_paths();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(observer.join().unwrap() & !0o1640, 0);
    });
    nix::sys::stat::umask(before);
}

#[test]
fn a_message_queue_is_made_sent_to_and_removed() {
    let name = format!("/{}", unique("queue"));
    let queue = Endpoint::MessageQueue { name: name.clone() };
    let access = Access {
        mode: 0o620,
        ..ACCESS
    };
    let plan = plan(&[&[queue]], access);
    let gone = |name: &str| mq_open(name, MQ_OFlag::O_WRONLY, Mode::empty(), None).is_err();
    let tried = bind_all(&plan, Purpose::Try, Adopted::default());
    assert_eq!(tried.errors, []);
    assert!(gone(&name), "trying leaves no queue");
    let outcome = bound(&plan);
    let socket = first(&outcome);
    check_modes(socket);
    assert!(socket.created);
    let file = nix::sys::stat::fstat(&socket.fd).unwrap();
    assert_eq!(file.st_mode & 0o7777, 0o620);
    let client = mq_open(name.as_str(), MQ_OFlag::O_WRONLY, Mode::empty(), None).unwrap();
    mq_send(&client, b"hello", 1).unwrap();
    // What a queue's descriptor tells to read(2) (mq_overview(7)).
    let mut text = [0; 128];
    let length = read(&socket.fd, &mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..length]);
    assert!(text.starts_with("QSIZE:5 "), "{text}");

    // A second time it is there, and stays when the one that did not make it ends.
    let again = bound(&plan);
    assert!(!first(&again).created);
    assert!(again.bound.remove_paths().is_empty());
    assert!(!gone(&name));
    let mut other = plan.clone();
    listener(&mut other, 0).settings_mut().access.mode = 0o600;
    let words = "a message queue with another owner or mode";
    let refused = keep(&other);
    let obstacle = only_error(&refused).obstacle;
    assert_eq!(obstacle, Some(Obstacle::NotASocket(words)));
    let mut other = plan.clone();
    let option = ("message_queue_max_messages", 3);
    listener(&mut other, 0).settings_mut().options = numbers(&[option]);
    let words = "a message queue with other limits";
    let refused = keep(&other);
    let obstacle = only_error(&refused).obstacle;
    assert_eq!(obstacle, Some(Obstacle::NotASocket(words)));

    assert!(outcome.bound.remove_paths().is_empty());
    assert!(gone(&name));
    // What has its name now is somebody else's.
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_RDWR;
    let limits = MqAttr::new(0, 4, 64, 0);
    mq_open(name.as_str(), flags, Mode::S_IRWXU, Some(&limits)).unwrap();
    assert_eq!(nix::sys::stat::fstat(&socket.fd).unwrap().st_nlink, 0);
    assert!(outcome.bound.remove_paths().is_empty());
    mq_unlink(name.as_str()).expect("it is still there");
}

fn numbers(options: &[(&str, i64)]) -> Vec<listend::config::options::OptionSetting> {
    use listend::config::options::OptionValue;
    let options: Vec<_> = options
        .iter()
        .map(|(key, number)| (*key, OptionValue::Number(*number)))
        .collect();
    let plan = with_options(tcp("127.0.0.1:0"), &options);
    plan.listener(ListenerId(0)).settings.options.clone()
}

fn special(path: &Path, writable: bool) -> Endpoint {
    Endpoint::Special {
        path: path.to_owned(),
        writable,
    }
}

#[test]
fn special_files_are_opened_and_nothing_else_is() {
    let folder = Folder::new();
    for (path, writable) in [
        ("/dev/null", false),
        ("/dev/null", true),
        ("/proc/self/mounts", false),
    ] {
        let plan = single(special(Path::new(path), writable));
        let tried = bind_all(&plan, Purpose::Try, Adopted::default());
        assert_eq!(tried.errors, [], "{path}");
        let outcome = bound(&plan);
        let socket = first(&outcome);
        check_modes(socket);
        let wrote = nix::unistd::write(&socket.fd, b"x");
        assert_eq!(wrote.is_ok(), writable, "{path}");
        assert!(outcome.bound.remove_paths().is_empty());
        assert!(Path::new(path).exists());
    }
    std::fs::write(folder.join("file"), "").unwrap();
    nix::unistd::mkfifo(&folder.join("fifo"), Mode::S_IRWXU).unwrap();
    leave_stale(&folder.join("socket"));
    for (name, errno, obstacle) in [
        ("file", libc::EEXIST, Some("a regular file")),
        ("fifo", libc::EEXIST, Some("a fifo")),
        ("socket", libc::EEXIST, Some("a socket")),
        ("", libc::EEXIST, Some("a folder")),
        ("missing", libc::ENOENT, None),
    ] {
        let path = folder.join(name);
        let outcome = keep(&single(special(&path, false)));
        let error = only_error(&outcome);
        assert_eq!((error.step, error.errno), (BindStep::Open, errno), "{name}");
        assert_eq!(error.obstacle, obstacle.map(Obstacle::NotASocket));
        assert_eq!(error.path.as_deref(), Some(path.as_path()));
    }
}

fn netlink(family: &str, protocol: i32, group: u32) -> Endpoint {
    Endpoint::Netlink {
        family: family.to_owned(),
        protocol,
        group,
        mask: 0,
    }
}

// ListenNetlink=route 1361 of systemd-networkd.socket.
#[test]
fn a_netlink_socket_joins_the_groups_of_a_mask() {
    let Endpoint::Netlink {
        family, protocol, ..
    } = netlink("route", libc::NETLINK_ROUTE, 0)
    else {
        panic!("netlink")
    };
    let outcome = bound(&single(Endpoint::Netlink {
        family,
        protocol,
        group: 0,
        mask: 0x551,
    }));
    use std::os::fd::AsRawFd;
    let address: NetlinkAddr = getsockname(first(&outcome).fd.as_raw_fd()).unwrap();
    assert_eq!(address.groups(), 1361);
}

#[test]
fn a_netlink_socket_joins_its_group_and_hears_the_kernel() {
    let plan = plan(
        &[
            &[netlink("kobject-uevent", libc::NETLINK_KOBJECT_UEVENT, 1)],
            &[netlink("route", libc::NETLINK_ROUTE, 5)],
            &[netlink("route", libc::NETLINK_ROUTE, 33)],
            &[netlink("route", libc::NETLINK_ROUTE, 0)],
        ],
        ACCESS,
    );
    let outcome = bound(&plan);
    let sockets = outcome.bound.iter();
    for (socket, groups) in sockets.zip([1, 0b1_0000, 0, 0]) {
        check_modes(socket);
        use std::os::fd::AsRawFd;
        let address: NetlinkAddr = getsockname(socket.fd.as_raw_fd()).unwrap();
        assert_eq!(address.groups(), groups);
    }
    let beyond = outcome.bound.at(2)[0];
    let list = libc::NETLINK_LIST_MEMBERSHIPS;
    let groups = sockopt::get_bytes(&beyond.fd, libc::SOL_NETLINK, list).unwrap();
    assert_eq!(groups[4..8], 1_u32.to_ne_bytes());

    // RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP; an rtgenmsg with AF_UNSPEC behind the header.
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend(18_u16.to_ne_bytes());
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 12]);
    let raw = SockRef::from(&outcome.bound.at(3)[0].fd);
    raw.send(&request).unwrap();
    let mut answer = [0; 8192];
    let length = read(&outcome.bound.at(3)[0].fd, &mut answer).unwrap();
    // RTM_NEWLINK: the first interface.
    assert!(length > 20);
    assert_eq!(answer[4..6], 16_u16.to_ne_bytes());
}

#[test]
fn a_vsock_is_bound_and_its_port_read_back() {
    let of_kind = |kind| Endpoint::Vsock {
        kind,
        cid: u32::MAX,
        port: u32::MAX,
    };
    for kind in [UnixKind::Stream, UnixKind::SeqPacket] {
        let outcome = keep(&single(of_kind(kind)));
        if let [error] = &outcome.errors[..] {
            assert_eq!(error.step, BindStep::Socket);
            skip("the kernel has no vsock");
            continue;
        }
        let socket = first(&outcome);
        check_modes(socket);
        assert_eq!(socket.backlog, Some(16));
        let Endpoint::Vsock { cid, port, .. } = socket.address else {
            panic!("{:?}", socket.address);
        };
        assert_eq!(cid, u32::MAX);
        assert_ne!(port, u32::MAX);
        let of_type = match kind {
            UnixKind::SeqPacket => Type::SEQPACKET,
            _ => Type::STREAM,
        };
        let client = Socket::new(Domain::VSOCK, of_type, None).unwrap();
        match client.connect(&SockAddr::vsock(libc::VMADDR_CID_LOCAL, port)) {
            Ok(()) => drop(SockRef::from(&socket.fd).accept().unwrap()),
            Err(error) => skip(&format!(
                "no vsock loopback (module vsock_loopback): {error}"
            )),
        }
        // The port is taken now.
        let taken = Endpoint::Vsock { kind, cid, port };
        let second = keep(&single(taken));
        assert_eq!(only_error(&second).errno, libc::EADDRINUSE);
    }
    // Nobody has to be able to send datagrams; but it is never silent.
    let outcome = keep(&single(of_kind(UnixKind::Datagram)));
    let sockets = outcome.bound.at(0).len();
    assert_eq!(outcome.errors.len() + sockets, 1);
}

#[test]
fn mptcp_takes_tcp_clients() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let outcome = keep(&single(inet(Transport::Mptcp, address)));
        if let [error] = &outcome.errors[..] {
            assert_eq!(error.step, BindStep::Socket);
            return skip("the kernel has no MPTCP");
        }
        let socket = first(&outcome);
        check_modes(socket);
        let raw = SockRef::from(&socket.fd);
        assert_eq!(raw.protocol().unwrap(), Some(Protocol::MPTCP));
        assert!(raw.reuse_address().unwrap());
        let host = address.trim_end_matches(":0").trim_matches(['[', ']']);
        TcpStream::connect((host, port(socket))).unwrap();
        raw.accept().unwrap();
    }
}

#[test]
fn udp_lite_takes_datagrams() {
    let outcome = keep(&single(inet(Transport::UdpLite, "127.0.0.1:0")));
    if let [error] = &outcome.errors[..] {
        assert_eq!(error.step, BindStep::Socket);
        return skip("the kernel has no UDP-Lite");
    }
    let socket = first(&outcome);
    check_modes(socket);
    let client = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDPLITE)).unwrap();
    let there: std::net::SocketAddr = ([127, 0, 0, 1], port(socket)).into();
    client.send_to(b"hello", &there.into()).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(read(&socket.fd, &mut buffer).unwrap(), 5);
    assert!(!SockRef::from(&socket.fd).reuse_address().unwrap());
}

#[test]
fn sctp_is_bound_or_the_kernel_says_that_it_lacks_it() {
    let outcome = keep(&single(inet(Transport::Sctp, "127.0.0.1:0")));
    let Some(error) = outcome.errors.first() else {
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)).unwrap();
        let there: std::net::SocketAddr = ([127, 0, 0, 1], port(first(&outcome))).into();
        return client.connect(&there.into()).unwrap();
    };
    assert_eq!(error.step, BindStep::Socket);
    assert!([libc::EPROTONOSUPPORT, libc::ESOCKTNOSUPPORT].contains(&error.errno));
    skip("the kernel has no SCTP: only its error was seen");
}
