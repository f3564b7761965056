//! Every option of the table, on every kind of socket that may have it.

use crate::fixture::*;
use listend::config::options::{How, OPTIONS, OptionSpec, OptionValue, ValueKind, by_key};
use listend::config::{Endpoint, SocketKind, Transport, UnixKind};
use listend::listener::{
    Adopted, BindStep, BoundSocket, Effective, Note, NoteKind, Purpose, bind_all, effective,
    put_options_back,
};
use listend::plan::ListenerId;
use listend::sys::{queue_limits, sockopt};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use socket2::SockRef;
use std::os::fd::OwnedFd;

/// What is neither the default nor cut on an ordinary machine.
fn sample(spec: &OptionSpec) -> OptionValue {
    let number = match (spec.key, spec.value) {
        ("accept_file_descriptors", _) => return OptionValue::Flag(false),
        ("bind_to_device", _) => return OptionValue::Text("lo".to_owned()),
        ("tcp_congestion", _) => return OptionValue::Text("reno".to_owned()),
        (_, ValueKind::Flag) => return OptionValue::Flag(true),
        ("ip_tos", _) => 0x10,
        ("mark", _) => 0xF000_0001,
        ("tcp_max_segment", _) => 1000,
        ("message_queue_message_size", _) => 1024,
        (_, ValueKind::Size(..)) => 65_536,
        (_, ValueKind::Choice(choices)) => choices.last().unwrap().1,
        // defer_accept comes in steps of 1, 3, 7 … seconds.
        (_, ValueKind::Seconds(..)) => 7,
        _ => 5,
    };
    OptionValue::Number(number)
}

/// One of each kind; for inet one of each family.
fn endpoints(kind: SocketKind, folder: &Folder) -> Vec<Endpoint> {
    let families = |transport| {
        vec![
            inet(transport, "127.0.0.1:0"),
            inet(transport, "[::1]:0"),
            flags(inet(transport, "[::]:0"), false, false),
        ]
    };
    let path = folder.join(&unique("o"));
    let vsock = |kind| {
        vec![Endpoint::Vsock {
            kind,
            cid: u32::MAX,
            port: u32::MAX,
        }]
    };
    match kind {
        SocketKind::Tcp => families(Transport::Tcp),
        SocketKind::Udp => families(Transport::Udp),
        SocketKind::Mptcp => families(Transport::Mptcp),
        SocketKind::Sctp => families(Transport::Sctp),
        SocketKind::UdpLite => families(Transport::UdpLite),
        SocketKind::UnixStream => vec![stream(&path), abstract_name(&unique("o"))],
        SocketKind::UnixDatagram => vec![unix(UnixKind::Datagram, &path)],
        SocketKind::UnixSeqPacket => vec![unix(UnixKind::SeqPacket, &path)],
        SocketKind::VsockStream => vsock(UnixKind::Stream),
        SocketKind::VsockDatagram => vsock(UnixKind::Datagram),
        SocketKind::VsockSeqPacket => vsock(UnixKind::SeqPacket),
        SocketKind::Netlink => vec![Endpoint::Netlink {
            family: "route".to_owned(),
            protocol: libc::NETLINK_ROUTE,
            group: 1,
            mask: 0,
        }],
        SocketKind::Fifo => vec![Endpoint::Fifo { path }],
        SocketKind::MessageQueue => vec![Endpoint::MessageQueue {
            name: format!("/{}", unique("o")),
        }],
        SocketKind::Special => Vec::new(),
    }
}

/// What the bound descriptor itself says, asked without listend's own reading.
fn asked_again(spec: &OptionSpec, endpoint: &Endpoint, fd: &OwnedFd) -> Vec<i64> {
    let int = |(level, name)| i64::from(sockopt::get_int(fd, level, name).unwrap());
    let by_family = |v4, v6| match endpoint {
        Endpoint::Inet { address, .. } if address.is_ipv4() => vec![int(v4)],
        Endpoint::Inet { v6_only: true, .. } => vec![int(v6)],
        _ => vec![int(v6), int(v4)],
    };
    match spec.how {
        How::Int(level, name) => vec![int((level, name))],
        How::IntByFamily { v4, v6 } => by_family(v4, v6),
        How::IntByFamilyOrNetlink { netlink, .. }
            if matches!(endpoint, Endpoint::Netlink { .. }) =>
        {
            vec![int(netlink)]
        }
        How::IntByFamilyOrNetlink { v4, v6, .. } => by_family(v4, v6),
        How::Buffer { plain, .. } => vec![int((libc::SOL_SOCKET, plain)) / 2],
        How::OneOf(level) => {
            // The last choice is the sample.
            let on = int((level, libc::SO_TIMESTAMPNS));
            vec![on * i64::from(libc::SO_TIMESTAMPNS)]
        }
        How::Text(level, name) => {
            let text = sockopt::get_bytes(fd, level, name).unwrap();
            let OptionValue::Text(wanted) = sample(spec) else {
                panic!("{}", spec.key);
            };
            assert!(text.starts_with(wanted.as_bytes()), "{}", spec.key);
            Vec::new()
        }
        How::PipeSize => vec![fcntl(fd, FcntlArg::F_GETPIPE_SZ).unwrap().into()],
        How::QueueMaxMessages => vec![queue_limits(fd).unwrap().messages],
        How::QueueMessageSize => vec![queue_limits(fd).unwrap().message_size],
    }
}

fn only_effective(socket: &BoundSocket) -> &Effective {
    assert_eq!(socket.effective.len(), 1, "{:?}", socket.effective);
    &socket.effective[0]
}

/// Whether a kernel or a user that is not root may say so of a kind or an option.
fn is_a_lack(step: BindStep, errno: i32) -> bool {
    match step {
        BindStep::Socket => [
            libc::EPROTONOSUPPORT,
            libc::ESOCKTNOSUPPORT,
            libc::EAFNOSUPPORT,
            libc::ENODEV,
        ]
        .contains(&errno),
        BindStep::SetOption(_) => {
            [libc::EPERM, libc::ENOPROTOOPT, libc::EOPNOTSUPP].contains(&errno)
        }
        BindStep::Bind => errno == libc::EOPNOTSUPP,
        _ => false,
    }
}

#[test]
fn every_option_is_set_on_every_kind_that_may_have_it() {
    let folder = Folder::new();
    let mut done = 0;
    for spec in OPTIONS {
        let value = sample(spec);
        let wanted = match &value {
            OptionValue::Flag(on) => i64::from(*on),
            OptionValue::Number(number) => *number,
            OptionValue::Text(_) => 0,
        };
        let mut on_any = false;
        for endpoint in spec.kinds.iter().flat_map(|kind| endpoints(*kind, &folder)) {
            let what = format!("{} on {:?} {endpoint}", spec.key, endpoint.kind());
            let plan = with_options(endpoint.clone(), &[(spec.key, value.clone())]);
            let outcome = keep(&plan);
            if let [error] = &outcome.errors[..] {
                assert!(is_a_lack(error.step, error.errno), "{what}: {error:?}");
                tell(&format!("{what}: {:?} {}", error.step, error.errno));
                continue;
            }
            let socket = first(&outcome);
            let effective = only_effective(socket);
            assert_eq!(effective.key, spec.key);
            if effective.effective == Effective::UNKNOWN {
                tell(&format!("{what}: cannot be read back"));
                assert_eq!(outcome.notes.len(), 1, "{what}");
                continue;
            }
            if spec.key == "tcp_fast_open" && effective.effective == "0" {
                tell(&format!("{what}: this machine has it for clients only"));
                continue;
            }
            assert!(effective.is_as_asked, "{what}: {effective:?}");
            assert_eq!(outcome.notes, [], "{what}");
            for got in asked_again(spec, &endpoint, &socket.fd) {
                let got = if spec.key == "mark" {
                    i64::from(got as u32)
                } else {
                    got
                };
                assert_eq!(got, wanted, "{what}");
            }
            outcome.bound.remove_paths();
            on_any = true;
            done += 1;
        }
        if !on_any {
            skip(&format!("{}: this kernel or user may not", spec.key));
        }
    }
    tell(&format!("{done} combinations"));
}

#[test]
fn what_the_kernel_changes_is_noted() {
    let id = ListenerId(0);
    for (endpoint, key, asked, effective) in [
        (tcp("127.0.0.1:0"), "ip_tos", 0x13, "16"),
        (udp("127.0.0.1:0"), "receive_buffer", 1, "2304"),
        (tcp("127.0.0.1:0"), "tcp_fast_open", i64::from(i32::MAX), ""),
    ] {
        let outcome = bound(&with_options(
            endpoint,
            &[(key, OptionValue::Number(asked))],
        ));
        let got = only_effective(first(&outcome)).clone();
        assert!(
            !got.is_as_asked && got.asked == asked.to_string(),
            "{got:?}"
        );
        assert!(
            effective.is_empty() || got.effective == effective,
            "{got:?}"
        );
        let note = Note {
            listener: id,
            socket: 0,
            kind: NoteKind::OptionChanged(got),
        };
        assert_eq!(outcome.notes, [note]);
    }
}

#[test]
fn what_the_kernel_rounds_up_is_not() {
    let folder = Folder::new();
    for (endpoint, key, asked, text, effective) in [
        (tcp("127.0.0.1:0"), "defer_accept", 5, "5s", "7s"),
        (
            Endpoint::Fifo {
                path: folder.join("fifo"),
            },
            "pipe_size",
            5000,
            "5000",
            "8192",
        ),
        (udp("127.0.0.1:0"), "send_buffer", 65_536, "65536", "131072"),
    ] {
        let outcome = bound(&with_options(
            endpoint,
            &[(key, OptionValue::Number(asked))],
        ));
        let got = only_effective(first(&outcome));
        assert_eq!(
            (got.asked.as_str(), got.effective.as_str()),
            (text, effective)
        );
        assert!(got.is_as_asked);
        assert_eq!(outcome.notes, []);
    }
}

#[test]
fn what_the_kernel_refuses_is_an_error_with_the_calls_name() {
    for (endpoint, key, value, call, errno) in [
        (
            tcp("127.0.0.1:0"),
            "tcp_congestion",
            "no-such",
            "TCP_CONGESTION",
            libc::ENOENT,
        ),
        (
            udp("[::1]:0"),
            "bind_to_device",
            "nosuch0",
            "SO_BINDTODEVICE",
            libc::ENODEV,
        ),
    ] {
        let value = OptionValue::Text(value.to_owned());
        let outcome = keep(&with_options(endpoint, &[(key, value)]));
        let error = only_error(&outcome);
        assert_eq!(
            (error.step, error.errno),
            (BindStep::SetOption(call), errno)
        );
        assert_eq!(outcome.bound.at(0).len(), 0);
    }
}

#[test]
fn several_options_are_all_there_and_none_that_nobody_asked_for() {
    let options = [
        ("free_bind", OptionValue::Flag(true)),
        ("reuse_port", OptionValue::Flag(true)),
        ("keep_alive", OptionValue::Flag(true)),
        ("keep_alive_time", OptionValue::Number(60)),
        ("no_delay", OptionValue::Flag(false)),
    ];
    // Not an address of this machine: only free_bind lets it be bound.
    let outcome = bound(&with_options(tcp("203.0.113.1:0"), &options));
    let keys: Vec<_> = first(&outcome)
        .effective
        .iter()
        .map(|one| one.key)
        .collect();
    // Those before bind(2) come first, then those before listen(2).
    assert_eq!(keys, options.each_ref().map(|(key, _)| *key));
    let raw = SockRef::from(&first(&outcome).fd);
    assert!(raw.keepalive().unwrap() && raw.reuse_port().unwrap());
    assert!(raw.is_listener().unwrap());
    assert_eq!(outcome.tried, []);
    let plan = with_options(tcp("203.0.113.1:0"), &options);
    let tried = bind_all(&plan, Purpose::Try, Adopted::default()).tried;
    let tried: Vec<_> = tried.into_iter().map(|(_, _, one)| one).collect();
    assert_eq!(tried, first(&outcome).effective);
    let outcome = bound(&single(tcp("127.0.0.1:0")));
    assert_eq!(first(&outcome).effective, []);
}

// ip(7), socket(7): to set IP_TOS is to set the priority as well.
#[test]
fn the_priority_that_was_asked_for_survives_the_type_of_service() {
    let options = [
        ("priority", OptionValue::Number(5)),
        ("ip_tos", OptionValue::Number(184)),
    ];
    for options in [&options[..], &[options[1].clone(), options[0].clone()]] {
        let outcome = bound(&with_options(tcp("127.0.0.1:0"), options));
        let raw = &first(&outcome).fd;
        let priority = sockopt::get_int(raw, libc::SOL_SOCKET, libc::SO_PRIORITY);
        assert_eq!(priority.unwrap(), 5);
        let tos = sockopt::get_int(raw, libc::IPPROTO_IP, libc::IP_TOS);
        assert_eq!(tos.unwrap(), 184);
        let told = first(&outcome).effective.iter();
        let told: Vec<_> = told.map(|one| (one.key, one.effective.as_str())).collect();
        let asked: Vec<_> = options.iter().map(|(key, _)| *key).collect();
        assert_eq!(told.iter().map(|(key, _)| *key).collect::<Vec<_>>(), asked);
        assert!(told.contains(&("priority", "5")) && told.contains(&("ip_tos", "184")));
    }
}

#[test]
fn what_a_worker_changed_is_seen_and_put_back() {
    let plan = with_options(
        tcp("127.0.0.1:0"),
        &[
            ("keep_alive", OptionValue::Flag(true)),
            ("priority", OptionValue::Number(5)),
            ("ip_tos", OptionValue::Number(184)),
            ("receive_buffer", OptionValue::Number(100_000)),
        ],
    );
    let outcome = bound(&plan);
    let socket = first(&outcome);
    let entry = plan.listener(ListenerId(0));
    assert_eq!(effective(entry, socket), socket.effective);
    assert_eq!(put_options_back(entry, socket), []);
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 0),
        (libc::IPPROTO_IP, libc::IP_TOS, 0x10),
        (libc::SOL_SOCKET, libc::SO_RCVBUF, 4096),
    ] {
        sockopt::set_int(&socket.fd, level, name, value).unwrap();
    }
    let now = effective(entry, socket);
    let now: Vec<_> = now
        .iter()
        .map(|one| (one.key, one.effective.as_str(), one.is_as_asked))
        .collect();
    let expected = [
        ("keep_alive", "false", false),
        ("priority", "6", false),
        ("ip_tos", "16", false),
        ("receive_buffer", "8192", false),
    ];
    assert_eq!(now, expected);
    let changed = put_options_back(entry, socket);
    assert!(changed.iter().all(|one| one.is_put_back), "{changed:?}");
    let found: Vec<_> = changed
        .iter()
        .map(|one| (one.key, one.found.as_str()))
        .collect();
    assert_eq!(found, expected.map(|(key, found, _)| (key, found)));
    assert_eq!(effective(entry, socket), socket.effective);
}

// TFO_SERVER_ENABLE is 2 and the default 1: the kernel keeps the number and does nothing with it.
#[test]
fn fast_open_without_the_bit_for_servers_is_told_to_be_void() {
    let path = "/proc/sys/net/ipv4/tcp_fastopen";
    // In a network namespace of this thread alone, which ends with the test.
    std::thread::spawn(move || {
        let fresh = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
        if fresh.is_err() || std::fs::write(path, "1").is_err() {
            return skip("no network namespace to be had");
        }
        let socket = with_options(
            tcp("0.0.0.0:0"),
            &[("tcp_fast_open", OptionValue::Number(100))],
        );
        let outcome = bound(&socket);
        let got = only_effective(first(&outcome));
        assert_eq!((got.effective.as_str(), got.is_as_asked), ("0", false));
        assert_eq!(outcome.notes.len(), 1);
        std::fs::write(path, "3").unwrap();
        let now = effective(socket.listener(ListenerId(0)), first(&outcome));
        assert_eq!(now[0].effective, "100");
    })
    .join()
    .unwrap();
}

#[test]
fn a_listener_with_several_kinds_gives_each_what_it_can_have() {
    let folder = Folder::new();
    let mut plan = plan(&[&[tcp("127.0.0.1:0"), stream(&folder.join("s"))]], ACCESS);
    let setting = |key: &str| listend::config::options::OptionSetting {
        spec: by_key(key).unwrap(),
        value: OptionValue::Flag(true),
    };
    listener(&mut plan, 0).settings_mut().options =
        vec![setting("no_delay"), setting("pass_credentials")];
    let outcome = bound(&plan);
    let sockets = outcome.bound.at(0);
    assert_eq!(only_effective(sockets[0]).key, "no_delay");
    assert_eq!(only_effective(sockets[1]).key, "pass_credentials");
}
