//! From the sockets of one plan to those of another, on real sockets.

use crate::fixture::*;
use crate::namespaces::{Namespace, current};
use crate::ports::free_port;
use listend::config::options::{OptionValue, by_key};
use listend::config::{Endpoint, Multicast, Presence, UnixKind};
use listend::listener::{
    Adopted, BindError, BoundSocket, Damage, Note, NoteKind, Purpose, SocketTable, bind_all, depth,
    inspect, prepare_reload,
};
use listend::plan::{Access, ListenerId, Merge, Plan, SocketKey, merge};
use nix::libc;
use nix::sys::socket::getsockopt;
use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::Arc;

/// A daemon of nothing but its listeners.
pub(crate) struct Running {
    plan: Plan,
    pub(crate) bound: SocketTable,
    lost: Vec<SocketKey>,
    missing: Vec<BindError>,
    notes: Vec<Note>,
}

impl Running {
    pub(crate) fn start(plan: Plan) -> Running {
        let bound = bound(&plan).bound;
        Running::with(plan, bound)
    }

    fn with(plan: Plan, bound: SocketTable) -> Running {
        Running {
            plan,
            bound,
            lost: Vec::new(),
            missing: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Answers with the sockets that the plan has no more.
    pub(crate) fn reload(&mut self, wanted: Plan) -> Result<Vec<BoundSocket>, Vec<BindError>> {
        let Merge { plan, changes } = merge(&self.plan, &BTreeMap::new(), wanted);
        let mut prepared = prepare_reload(&self.bound, &self.plan, &plan, &changes)?;
        self.lost = std::mem::take(&mut prepared.lost);
        self.missing = std::mem::take(&mut prepared.missing);
        self.notes = std::mem::take(&mut prepared.notes);
        prepared.commit(&mut self.bound);
        self.plan = plan;
        let former = self.bound.former().map(|(_, socket)| socket.key);
        let former: Vec<SocketKey> = former.collect();
        let former = former.into_iter().filter_map(|key| self.bound.take(key));
        Ok(former.collect())
    }

    /// Prepares a reload and takes it back.
    pub(crate) fn change_mind(&self, wanted: Plan) {
        let Merge { plan, changes } = merge(&self.plan, &BTreeMap::new(), wanted);
        let prepared = prepare_reload(&self.bound, &self.plan, &plan, &changes).unwrap();
        prepared.undo(&self.bound);
    }

    /// The first socket of the listener with this name.
    fn socket(&self, name: &str) -> &BoundSocket {
        let mut all = self.plan.listeners();
        let (id, _) = all.find(|(_, one)| one.name == name).unwrap();
        self.bound.at(id.0)[0]
    }
}

fn inode(socket: &BoundSocket) -> u64 {
    fstat(&socket.fd).unwrap().st_ino
}

fn limit(socket: &BoundSocket) -> u64 {
    depth(socket).unwrap().limit.unwrap()
}

pub(crate) fn accepted(socket: &BoundSocket) -> usize {
    let raw = SockRef::from(&socket.fd);
    raw.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| raw.accept().ok()).count()
}

fn set(plan: &mut Plan, number: u32, key: &str, value: OptionValue) {
    listener(plan, number).settings_mut().options =
        with_options(tcp("127.0.0.1:0"), &[(key, value)])
            .listener(ListenerId(0))
            .settings
            .options
            .clone();
    assert!(by_key(key).is_some());
}

#[test]
fn a_socket_of_which_nothing_is_different_is_not_touched() {
    let (one, other) = (free_port(), free_port());
    let kept = tcp(&format!("127.0.0.1:{one}"));
    let wanted = single(kept.clone());
    let mut running = Running::start(wanted);
    let socket = running.socket("l0");
    let raw = SockRef::from(&socket.fd);
    // listen(2) and setsockopt(2) would set these back.
    raw.listen(7).unwrap();
    raw.set_keepalive(true).unwrap();
    let before = (socket.fd.as_raw_fd(), inode(socket));
    let waiting = TcpStream::connect(("127.0.0.1", one)).unwrap();

    let more = plan(&[&[kept], &[tcp(&format!("127.0.0.1:{other}"))]], ACCESS);
    assert!(running.reload(more).unwrap().is_empty());
    let socket = running.socket("l0");
    assert_eq!((socket.fd.as_raw_fd(), inode(socket)), before);
    assert_eq!(limit(socket), 7);
    assert!(SockRef::from(&socket.fd).keepalive().unwrap());
    assert_eq!(accepted(socket), 1);
    TcpStream::connect(("127.0.0.1", other)).unwrap();
    drop(waiting);
}

#[test]
fn a_renamed_listener_keeps_its_socket_and_what_is_gone_is_closed_later() {
    let (one, other) = (free_port(), free_port());
    let endpoint = |port| tcp(&format!("127.0.0.1:{port}"));
    let mut running = Running::start(plan(&[&[endpoint(one)], &[endpoint(other)]], ACCESS));
    let before = inode(running.socket("l0"));
    let mut wanted = plan(&[&[endpoint(one)]], ACCESS);
    listener(&mut wanted, 0).name = "new".to_owned();
    listener(&mut wanted, 0).settings_mut().backlog = 9;
    let retired = running.reload(wanted).unwrap();
    let socket = running.socket("new");
    assert_eq!((inode(socket), socket.key), (before, SocketKey(0)));
    assert_eq!((limit(socket), socket.backlog), (9, Some(9)));
    assert_eq!(retired.len(), 1);
    // Until it is closed, clients find it.
    TcpStream::connect(("127.0.0.1", other)).unwrap();
    assert!(retired.into_iter().all(|one| one.remove_files().is_empty()));
    let refused = TcpStream::connect(("127.0.0.1", other)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn attributes_are_changed_on_the_live_socket_and_taken_back_if_something_fails() {
    let folder = Folder::new();
    let path = folder.join("s");
    let port = free_port();
    let base = || {
        let mut plan = plan(
            &[&[tcp(&format!("127.0.0.1:{port}"))], &[stream(&path)]],
            ACCESS,
        );
        set(&mut plan, 0, "keep_alive", OptionValue::Flag(true));
        plan
    };
    let mut running = Running::start(base());
    let other = || {
        let mut plan = base();
        listener(&mut plan, 0).settings_mut().backlog = 5;
        set(&mut plan, 0, "no_delay", OptionValue::Flag(true));
        listener(&mut plan, 1).settings_mut().access.mode = 0o666;
        listener(&mut plan, 1).settings_mut().symlinks = vec![folder.join("link")];
        plan
    };
    let look = |running: &Running| {
        let socket = running.socket("l0");
        let raw = SockRef::from(&socket.fd);
        (
            limit(socket),
            raw.keepalive().unwrap(),
            raw.tcp_nodelay().unwrap(),
            mode(&path),
            folder.join("link").exists(),
        )
    };
    let before = look(&running);
    assert_eq!(before, (16, true, false, 0o600, false));

    running.change_mind(other());
    assert_eq!(look(&running), before);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bad = other();
    let blocked = plan(&[&[tcp(&taken.local_addr().unwrap().to_string())]], ACCESS);
    let blocked = blocked.listener(ListenerId(0)).clone();
    bad.listeners.insert(ListenerId(2), Arc::new(blocked));
    listener(&mut bad, 2).name = "blocked".to_owned();
    let errors = running.reload(bad).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].listener, ListenerId(2));
    assert_eq!(errors[0].errno, libc::EADDRINUSE);
    assert_eq!(look(&running), before);

    assert!(running.reload(other()).unwrap().is_empty());
    assert_eq!(look(&running), (5, false, true, 0o666, true));
    let keys = running.socket("l0").effective.iter().map(|one| one.key);
    assert_eq!(keys.collect::<Vec<_>>(), ["no_delay"]);
    // And back again: the link goes.
    assert!(running.reload(base()).unwrap().is_empty());
    assert_eq!(look(&running), before);
    running.bound.remove_paths();
    assert!(folder.names().is_empty());
}

#[test]
fn an_option_that_is_taken_back_has_the_kernels_default_again() {
    for (endpoint, key, value) in [
        (
            tcp("127.0.0.1:0"),
            "keep_alive_time",
            OptionValue::Number(5),
        ),
        (
            tcp("127.0.0.1:0"),
            "receive_buffer",
            OptionValue::Number(5000),
        ),
        (
            tcp("127.0.0.1:0"),
            "tcp_max_segment",
            OptionValue::Number(600),
        ),
        (tcp("127.0.0.1:0"), "ip_ttl", OptionValue::Number(7)),
        (tcp("127.0.0.1:0"), "ip_tos", OptionValue::Number(8)),
        (udp("127.0.0.1:0"), "broadcast", OptionValue::Flag(true)),
        (
            udp("127.0.0.1:0"),
            "timestamping",
            OptionValue::Number(i64::from(libc::SO_TIMESTAMP)),
        ),
        (tcp("[::1]:0"), "ip_ttl", OptionValue::Number(7)),
    ] {
        let read = |running: &Running| kernel_has(running.socket("l0"), key);
        let bare = || single(endpoint.clone());
        let fresh = read(&Running::start(bare()));
        let mut running = Running::start(with_options(endpoint.clone(), &[(key, value.clone())]));
        let set = read(&running);
        assert_ne!(set, fresh, "{key}");
        assert!(running.reload(bare()).unwrap().is_empty());
        assert_eq!(read(&running), fresh, "{key}");
        // And set on the live socket.
        let again = with_options(endpoint.clone(), &[(key, value.clone())]);
        assert!(running.reload(again).unwrap().is_empty());
        assert_eq!(read(&running), set, "{key}");
    }
}

#[test]
fn what_the_kernel_changes_is_noted_by_the_reload_that_asks_for_it() {
    let wanted = |tos: i64, backlog| {
        let value = OptionValue::Number(tos);
        let mut plan = with_options(tcp("127.0.0.1:0"), &[("ip_tos", value)]);
        listener(&mut plan, 0).settings_mut().backlog = backlog;
        plan
    };
    let mut running = Running::start(wanted(8, 16));
    let notes = |running: &mut Running, wanted| {
        running.reload(wanted).unwrap();
        let of_l0 = |note: &Note| (note.listener, note.socket) == (ListenerId(0), 0);
        assert!(running.notes.iter().all(of_l0));
        let kinds = running.notes.drain(..).map(|note| note.kind);
        kinds.collect::<Vec<_>>()
    };
    let noted = notes(&mut running, wanted(0x13, 16));
    let [NoteKind::OptionChanged(changed)] = &noted[..] else {
        panic!("{noted:?}");
    };
    assert_eq!((changed.key, changed.effective.as_str()), ("ip_tos", "16"));
    // It is known by now, or as it was asked for.
    assert_eq!(notes(&mut running, wanted(0x13, 17)), []);
    assert_eq!(notes(&mut running, wanted(8, 17)), []);
}

/// What the kernel says of an option.
fn kernel_has(socket: &BoundSocket, key: &str) -> u64 {
    let raw = SockRef::from(&socket.fd);
    let is_v6 = raw.domain().unwrap() == Domain::IPV6;
    match key {
        "keep_alive_time" => raw.tcp_keepalive_time().unwrap().as_secs(),
        "receive_buffer" => raw.recv_buffer_size().unwrap() as u64,
        "tcp_max_segment" => raw.tcp_mss().unwrap().into(),
        "ip_ttl" if is_v6 => raw.unicast_hops_v6().unwrap().into(),
        "ip_ttl" => raw.ttl_v4().unwrap().into(),
        "ip_tos" => raw.tos_v4().unwrap().into(),
        "broadcast" => raw.broadcast().unwrap().into(),
        "timestamping" => {
            let name = nix::sys::socket::sockopt::ReceiveTimestamp;
            getsockopt(&socket.fd, name).unwrap().into()
        }
        other => panic!("{other}"),
    }
}

/// Whether a socket of the same user, with SO_REUSEPORT or without, could have the address too.
fn others_can_bind(address: SocketAddr, v6_only: bool, shared: bool) -> bool {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(v6_only).unwrap();
    }
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(shared).unwrap();
    socket.bind(&address.into()).is_ok() && socket.listen(1).is_ok()
}

#[test]
fn addresses_that_overlap_are_exchanged_without_losing_anybody() {
    for (old, new, client, goes_to_new) in [
        ("0.0.0.0", "127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1", "0.0.0.0", "127.0.0.2", true),
        ("127.0.0.1", "0.0.0.0", "127.0.0.1", false),
        ("[::]", "[::1]", "[::1]", true),
        ("[::1]", "[::]", "[::1]", false),
    ] {
        let port = free_port();
        let endpoint = |host: &str| tcp(&format!("{host}:{port}"));
        let mut running = Running::start(single(endpoint(old)));
        let client = format!("{client}:{port}");
        let old_client = if old.starts_with('[') {
            "[::1]"
        } else {
            "127.0.0.1"
        };
        let queued = TcpStream::connect(format!("{old_client}:{port}")).unwrap();
        let retired = running.reload(single(endpoint(new))).unwrap();
        assert_eq!(running.lost, []);
        let later = TcpStream::connect(&client).unwrap();
        let old_socket = &retired[0];
        let counts = (accepted(old_socket), accepted(running.socket("l0")));
        let wanted = if goes_to_new { (1, 1) } else { (2, 0) };
        assert_eq!(counts, wanted, "{old} → {new}");
        for socket in [old_socket, running.socket("l0")] {
            assert!(!SockRef::from(&socket.fd).reuse_port().unwrap());
            assert_eq!(socket.effective, []);
        }
        let address: SocketAddr = format!("{new}:{port}").parse().unwrap();
        for shared in [false, true] {
            assert!(!others_can_bind(address, true, shared), "{old} → {new}");
        }
        assert!(retired.into_iter().all(|one| one.remove_files().is_empty()));
        let now = TcpStream::connect(&client).unwrap();
        assert_eq!(accepted(running.socket("l0")), 1);
        for shared in [false, true] {
            assert!(!others_can_bind(address, true, shared), "{old} → {new}");
        }
        drop((queued, later, now));
    }
}

#[test]
fn ipv4_joins_and_leaves_a_dual_stack_socket_without_losing_anybody() {
    for (before, after) in [(true, false), (false, true)] {
        let port = free_port();
        let endpoint = |only| flags(tcp(&format!("[::]:{port}")), only, false);
        let mut running = Running::start(single(endpoint(before)));
        let queued = TcpStream::connect(format!("[::1]:{port}")).unwrap();
        let retired = running.reload(single(endpoint(after))).unwrap();
        assert_eq!(accepted(&retired[0]), 1);
        assert!(retired.into_iter().all(|one| one.remove_files().is_empty()));
        let now = TcpStream::connect(format!("[::1]:{port}")).unwrap();
        assert_eq!(accepted(running.socket("l0")), 1);
        assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), !after);
        drop((queued, now));
    }
}

#[test]
fn datagrams_that_wait_survive_an_exchange_of_addresses() {
    for (old, new) in [("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")] {
        let port = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut running = Running::start(single(udp(&format!("{old}:{port}"))));
        let to = if old == "[::]" { "[::1]" } else { "127.0.0.1" };
        let client = UdpSocket::bind(format!("{to}:0")).unwrap();
        client.send_to(b"old", format!("{to}:{port}")).unwrap();
        let retired = running
            .reload(single(udp(&format!("{new}:{port}"))))
            .unwrap();
        client.send_to(b"new", format!("{to}:{port}")).unwrap();
        let receive = |socket: &BoundSocket| {
            let socket = UdpSocket::from(socket.fd.try_clone().unwrap());
            let mut bytes = [0; 8];
            socket.set_nonblocking(true).unwrap();
            let count = socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..count].to_vec()).unwrap()
        };
        assert_eq!(receive(&retired[0]), "old");
        assert_eq!(receive(running.socket("l0")), "new");
        assert!(UdpSocket::bind(format!("{new}:{port}")).is_err());
    }
}

/// A socket that another user has bound: the kernel does not let ours stand beside it.
#[test]
fn what_cannot_stand_side_by_side_is_shut_down_first_and_listens_again_after_a_failure() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root, to bind as another user");
    }
    let port = free_port();
    let theirs = of_another_user(SocketAddr::from(([0, 0, 0, 0], port)));
    let first = single(tcp(&format!("0.0.0.0:{port}")));
    let mut adopted = Adopted::default();
    adopted.insert(SocketKey(0), theirs.into());
    let outcome = bind_all(&first, Purpose::Keep, adopted);
    let mut running = Running::with(first, outcome.bound);
    let before = inode(running.socket("l0"));
    let wanted = || single(tcp(&format!("127.0.0.1:{port}")));

    running.change_mind(wanted());
    assert_eq!(inode(running.socket("l0")), before);
    TcpStream::connect(("127.0.0.2", port)).unwrap();

    let retired = running.reload(wanted()).unwrap();
    assert_eq!(running.lost, [SocketKey(0)]);
    assert_eq!(retired.len(), 1);
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(accepted(running.socket("l0")), 1);
    assert!(TcpStream::connect(("127.0.0.2", port)).is_err());
    drop(client);
}

/// What the clients in a queue see of a reload that does not come to anything: nothing.
#[track_caller]
fn check_that_nobody_is_reset(running: &mut Running, wanted: Plan, client: &TcpStream) {
    let before = inode(running.socket("l0"));
    let errors = running.reload(wanted).unwrap_err();
    assert!(errors.iter().any(|error| error.errno == libc::EADDRINUSE));
    assert_eq!(inode(running.socket("l0")), before);
    client.set_nonblocking(true).unwrap();
    let answer = (&*client).read(&mut [0]).unwrap_err();
    assert_eq!(answer.kind(), ErrorKind::WouldBlock, "{answer}");
    assert_eq!(accepted(running.socket("l0")), 1);
}

#[test]
fn a_reload_that_is_refused_resets_nobody_in_a_queue() {
    // Listening, only bound, and with an address of the other family.
    for (third, listens) in [
        ("127.0.0.2", true),
        ("127.0.0.2", false),
        ("[::ffff:127.0.0.2]", true),
    ] {
        let port = free_port();
        let theirs: SocketAddr = format!("{third}:{port}").parse().unwrap();
        let domain = Domain::for_address(theirs);
        let holder = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
        holder.set_reuse_address(listens).unwrap();
        holder.bind(&theirs.into()).unwrap();
        if listens {
            holder.listen(1).unwrap();
        }
        let mut running = Running::start(single(tcp(&format!("127.0.0.1:{port}"))));
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let wanted = single(tcp(&format!("0.0.0.0:{port}")));
        check_that_nobody_is_reset(&mut running, wanted, &client);
    }
}

/// A listener of another user, as a service manager passes it on: ours cannot stand beside it.
fn of_another_user(address: SocketAddr) -> Socket {
    // The file system user id belongs to a thread, and a socket is its maker's.
    let theirs = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(5).unwrap();
        socket
    });
    theirs.join().unwrap()
}

#[test]
fn nothing_is_shut_down_while_another_process_has_the_address_or_anything_else_fails() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root, to bind as another user");
    }
    let port = free_port();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp(&elsewhere.local_addr().unwrap().to_string());
    let third = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let start = || {
        let theirs = of_another_user(SocketAddr::from(([127, 0, 0, 1], port)));
        let first = single(tcp(&format!("127.0.0.1:{port}")));
        let mut adopted = Adopted::default();
        adopted.insert(SocketKey(0), theirs.into());
        let outcome = bind_all(&first, Purpose::Keep, adopted);
        Running::with(first, outcome.bound)
    };
    let wide = || tcp(&format!("0.0.0.0:{port}"));

    let mut running = start();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    check_that_nobody_is_reset(&mut running, single(wide()), &client);

    // It could be had, but another listener of the same reload cannot.
    drop(third);
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let wanted = plan(&[&[wide()], &[taken]], ACCESS);
    check_that_nobody_is_reset(&mut running, wanted, &client);
    let _retired = running.reload(single(wide())).unwrap();
    assert_eq!(running.lost.len(), 1);
    TcpStream::connect(("127.0.0.2", port)).unwrap();
}

#[test]
fn a_path_that_gets_another_kind_of_socket_can_be_put_back() {
    let folder = Folder::new();
    let path = folder.join("s");
    let datagram = || single(unix(UnixKind::Datagram, &path));
    let mut running = Running::start(single(stream(&path)));
    let file = |path: &Path| std::fs::symlink_metadata(path).unwrap().ino();
    let before = file(&path);

    running.change_mind(datagram());
    assert_eq!(file(&path), before);
    UnixStream::connect(&path).unwrap();
    assert_eq!(folder.names().len(), 2, "with its second name");

    let retired = running.reload(datagram()).unwrap();
    assert_ne!(file(&path), before);
    assert!(retired.into_iter().all(|one| one.remove_files().is_empty()));
    UnixDatagram::unbound().unwrap().connect(&path).unwrap();
    assert_eq!(folder.names(), [".s.listend", "s"]);
    assert_eq!(file(&folder.join(".s.listend")), file(&path));
    running.bound.remove_paths();
    assert!(folder.names().is_empty());
}

#[test]
fn a_path_that_somebody_has_taken_meanwhile_stays_theirs() {
    let folder = Folder::new();
    let path = folder.join("s");
    let mut running = Running::start(single(stream(&path)));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "theirs").unwrap();
    let wanted = single(unix(UnixKind::Datagram, &path));
    let errors = running.reload(wanted).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
}

#[test]
fn a_link_becomes_a_socket_unless_it_is_another_by_now() {
    let folder = Folder::new();
    let (path, link, elsewhere) = (folder.join("s"), folder.join("link"), folder.join("other"));
    let mut before = single(stream(&path));
    listener(&mut before, 0).settings_mut().symlinks = vec![link.clone()];
    let wanted = || single(stream(&link));
    let mut running = Running::start(before);
    running.change_mind(wanted());
    assert_eq!(std::fs::read_link(&link).unwrap(), path);

    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
    let errors = running.reload(wanted()).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(std::fs::read_link(&link).unwrap(), elsewhere);

    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let retired = running.reload(wanted()).unwrap();
    assert!(retired.into_iter().all(|one| one.remove_files().is_empty()));
    UnixStream::connect(&link).unwrap();
    assert!(!path.exists());
    running.bound.remove_paths();
    assert!(folder.names().is_empty());
}

#[test]
fn a_path_becomes_a_link_to_another_and_the_old_socket_goes() {
    let folder = Folder::new();
    let (old, new) = (folder.join("old"), folder.join("new"));
    let mut running = Running::start(single(stream(&old)));
    let mut wanted = single(stream(&new));
    listener(&mut wanted, 0).settings_mut().symlinks = vec![old.clone()];
    running.change_mind(wanted.clone());
    UnixStream::connect(&old).unwrap();
    assert!(!new.exists());
    let retired = running.reload(wanted).unwrap();
    assert!(retired.into_iter().all(|one| one.remove_files().is_empty()));
    assert_eq!(std::fs::read_link(&old).unwrap(), new);
    UnixStream::connect(&old).unwrap();
    assert_eq!(accepted(running.socket("l0")), 1);
    running.bound.remove_paths();
    assert!(folder.names().is_empty());
}

#[test]
fn a_reload_that_fails_leaves_nothing_behind_and_one_that_can_do_without_goes_on() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = || tcp(&taken.local_addr().unwrap().to_string());
    let kept = || stream(&folder.join("kept"));
    let mut running = Running::start(plan(&[&[kept()]], ACCESS));
    let wanted = || {
        plan(
            &[
                &[kept()],
                &[stream(&folder.join("deep/new"))],
                &[stream(&folder.join("half")), taken()],
            ],
            ACCESS,
        )
    };
    let before = folder.names();
    let errors = running.reload(wanted()).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(folder.names(), before);
    UnixStream::connect(folder.join("kept")).unwrap();

    let mut wanted = wanted();
    listener(&mut wanted, 2).settings_mut().presence = Presence::Optional;
    assert!(running.reload(wanted).unwrap().is_empty());
    assert_eq!(running.missing.len(), 1);
    assert_eq!(running.missing[0].listener, ListenerId(2));
    UnixStream::connect(folder.join("deep/new")).unwrap();
    // All of its sockets, or none.
    assert!(running.bound.at(2).is_empty() && !folder.join("half").exists());
    let endpoint: &Endpoint = &running.socket("l1").address;
    assert_eq!(endpoint, &stream(&folder.join("deep/new")));
    running.bound.remove_paths();
}

#[test]
fn a_reload_reaches_into_network_namespaces_and_comes_back() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let (here, port) = (current(), free_port());
    let endpoint = |host: &str| tcp(&format!("{host}:{port}"));
    let connect = || TcpStream::connect(("127.0.0.1", port));
    let mut running = Running::start(namespace.plan(&[endpoint("0.0.0.0")]));
    let queued = namespace.inside(connect).unwrap();
    // Overlapping inside.
    let retired = running
        .reload(namespace.plan(&[endpoint("127.0.0.1")]))
        .unwrap();
    assert_eq!(accepted(&retired[0]), 1);
    assert!(retired.into_iter().all(|one| one.remove_files().is_empty()));
    let inside = inode(running.socket("l0"));
    namespace.inside(connect).unwrap();
    assert_eq!((running.lost.len(), current()), (0, here.clone()));
    // The same address outside is another socket.
    let retired = running.reload(single(endpoint("127.0.0.1"))).unwrap();
    assert_eq!(inode(&retired[0]), inside);
    assert!(retired.into_iter().all(|one| one.remove_files().is_empty()));
    connect().unwrap();
    assert!(namespace.inside(connect).is_err());
    assert_eq!(current(), here);
    drop(queued);
}

#[test]
fn a_multicast_group_is_joined_and_left_on_the_live_socket() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let plan = |groups: &[&str]| {
        let mut plan = namespace.plan(&[udp("0.0.0.0:5353")]);
        let group = |text: &&str| Multicast {
            group: text.parse().unwrap(),
            interface: Some("va".to_owned()),
        };
        listener(&mut plan, 0).settings_mut().multicast = groups.iter().map(group).collect();
        plan
    };
    let joined = || {
        namespace.inside(|| {
            let table = std::fs::read_to_string("/proc/thread-self/net/igmp").unwrap();
            // As the kernel prints them: in the order of this machine's bytes.
            let there =
                |group: [u8; 4]| table.contains(&format!("{:08X}", u32::from_ne_bytes(group)));
            (there([239, 1, 2, 3]), there([239, 4, 5, 6]))
        })
    };
    let mut running = Running::start(plan(&["239.1.2.3"]));
    assert_eq!(joined(), (true, false));
    running.change_mind(plan(&["239.4.5.6"]));
    assert_eq!(joined(), (true, false));
    assert!(running.reload(plan(&["239.4.5.6"])).unwrap().is_empty());
    assert_eq!(joined(), (false, true));
}

// What somebody else made of them before the reload was in effect was taken for what was declared.
#[test]
fn rights_that_somebody_changes_during_a_reload_are_damage() {
    let folder = Folder::new();
    let path = folder.join("s");
    let of = |mode| plan(&[&[stream(&path)]], Access { mode, ..ACCESS });
    let mut running = Running::start(of(0o666));
    let wanted = of(0o600);
    let Merge { plan, changes } = merge(&running.plan, &BTreeMap::new(), wanted);
    let prepared = prepare_reload(&running.bound, &running.plan, &plan, &changes).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    prepared.commit(&mut running.bound);
    running.plan = plan;
    assert_eq!(inspect(running.socket("l0")), Some(Damage::RightsChanged));
}
