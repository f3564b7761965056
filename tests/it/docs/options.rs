//! docs/listeners.md against the table of options: what the tests iterate over is what it says.
//!
//! `LISTEND_BLESS=1 cargo test --test it docs::options` writes the tables anew.

use crate::harness::World;
use listend::config::SocketKind;
use listend::config::options::{OPTIONS, OptionSpec, Phase, ValueKind};
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/listeners.md";

/// A kind, what it is called, how it is written, and what there is to know about it.
const KINDS: &[(SocketKind, &str, &[&str], &str)] = &[
    (
        SocketKind::Tcp,
        "TCP",
        &[
            "127.0.0.1:80",
            "tcp://[::1]:80",
            ":80",
            "localhost:80",
            "127.0.0.1:9000-9003",
            "[fe80::1%eth0]:80",
        ],
        "`:80` is one socket for IPv4 and IPv6, `localhost:80` is two, a range is one for each port; `%` names the interface of a link-local address",
    ),
    (
        SocketKind::Udp,
        "UDP",
        &["udp://0.0.0.0:53"],
        "written like TCP; a port is shared with others only for `multicast` or with `reuse_port`",
    ),
    (
        SocketKind::Mptcp,
        "MPTCP",
        &["mptcp://0.0.0.0:80"],
        "Linux 5.6; clients with plain TCP are served as well",
    ),
    (
        SocketKind::Sctp,
        "SCTP",
        &["sctp://0.0.0.0:2905"],
        "one-to-one style; needs the module `sctp`",
    ),
    (
        SocketKind::UdpLite,
        "UDP-Lite",
        &["udplite://0.0.0.0:5000"],
        "UDP with partial checksums",
    ),
    (
        SocketKind::UnixStream,
        "unix stream",
        &["unix:/run/app.sock", "unix:@name"],
        "`@` is the abstract namespace; a path may be longer than 107 bytes",
    ),
    (
        SocketKind::UnixDatagram,
        "unix datagram",
        &["unix-dgram:/run/log.sock"],
        "written like a unix stream",
    ),
    (
        SocketKind::UnixSeqPacket,
        "unix seqpacket",
        &["unix-seqpacket:/run/control.sock"],
        "written like a unix stream",
    ),
    (
        SocketKind::VsockStream,
        "vsock stream",
        &["vsock:2:5000", "vsock::5000"],
        "CID and port; without a CID, any; CID 1 needs the module `vsock_loopback`",
    ),
    (
        SocketKind::VsockDatagram,
        "vsock datagram",
        &["vsock-dgram:2:5000"],
        "where the transport has it",
    ),
    (
        SocketKind::VsockSeqPacket,
        "vsock seqpacket",
        &["vsock-seqpacket:2:5000"],
        "Linux 5.14",
    ),
    (
        SocketKind::Netlink,
        "netlink",
        &["netlink:kobject-uevent 1", "netlink:route 0x551"],
        "family and the number of a multicast group, or with `0x` the bit mask that systemd.socket(5) has as a decimal number",
    ),
    (
        SocketKind::Fifo,
        "FIFO",
        &["fifo:/run/app.fifo"],
        "opened for reading and writing, so that it never ends",
    ),
    (
        SocketKind::MessageQueue,
        "message queue",
        &["mqueue:/name"],
        "POSIX, mq_overview(7)",
    ),
    (
        SocketKind::Special,
        "special file",
        &["special:/dev/kmsg"],
        "a device or another special file; read-only unless `writable: true`",
    ),
];

fn name_of(kind: SocketKind) -> &'static str {
    let row = KINDS.iter().find(|(known, ..)| *known == kind);
    row.unwrap_or_else(|| panic!("{kind:?} is not in the table of kinds"))
        .1
}

/// The kinds of an option, briefly where it is many.
fn kinds(option: &OptionSpec) -> String {
    use SocketKind::*;
    let groups: &[(&str, &[SocketKind])] = &[
        (
            "sockets",
            &[
                Tcp,
                Mptcp,
                Sctp,
                Udp,
                UdpLite,
                UnixStream,
                UnixDatagram,
                UnixSeqPacket,
                VsockStream,
                VsockDatagram,
                VsockSeqPacket,
                Netlink,
            ],
        ),
        ("inet", &[Tcp, Mptcp, Sctp, Udp, UdpLite]),
        ("unix", &[UnixStream, UnixDatagram, UnixSeqPacket]),
        ("vsock", &[VsockStream, VsockDatagram, VsockSeqPacket]),
    ];
    let mut left: Vec<SocketKind> = option.kinds.to_vec();
    let mut words: Vec<&str> = Vec::new();
    for (word, group) in groups {
        if group.iter().all(|kind| left.contains(kind)) {
            words.push(word);
            left.retain(|kind| !group.contains(kind));
        }
    }
    words.extend(left.into_iter().map(name_of));
    words.join(", ")
}

fn value(option: &OptionSpec) -> String {
    const MAX: i64 = i32::MAX as i64;
    let range = |low: i64, high: i64| match high {
        MAX => format!("from {low}"),
        _ => format!("{low} to {high}"),
    };
    match option.value {
        ValueKind::Flag => "`true` or `false`".to_owned(),
        ValueKind::Number(low, high) => format!("number, {}", range(low, high)),
        ValueKind::Size(..) => "size, such as `64K`".to_owned(),
        ValueKind::Seconds(low, high) => format!("duration, {} s", range(low, high)),
        ValueKind::Milliseconds(..) => "duration, in ms".to_owned(),
        ValueKind::Text(length) => format!("name, up to {length} bytes"),
        ValueKind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            words.join(", ")
        }
    }
}

fn set(option: &OptionSpec) -> &'static str {
    match option.phase {
        Phase::BeforeBind => "before bind",
        Phase::BeforeListen => "before listen",
        Phase::AtOpen => "at open",
    }
}

fn table<const N: usize>(heading: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", heading.join(" | "), "---|".repeat(N));
    for row in rows {
        text += &format!(
            "| {} |\n",
            row.map(|cell| cell.replace('|', "\\|")).join(" | ")
        );
    }
    text
}

fn options() -> String {
    table(
        [
            "key",
            "what it does",
            "on",
            "value",
            "systemd",
            "kernel",
            "since Linux",
            "set",
        ],
        OPTIONS.iter().map(|option| {
            let systemd = option
                .systemd
                .map_or("–".to_owned(), |name| format!("`{name}`"));
            [
                format!("`{}`", option.key),
                option.doc.to_owned(),
                kinds(option),
                value(option),
                systemd,
                option.call.to_owned(),
                option.since.to_owned(),
                set(option).to_owned(),
            ]
        }),
    )
}

fn addresses() -> String {
    table(
        ["kind", "address", "to know"],
        KINDS.iter().map(|(_, name, addresses, notes)| {
            let addresses: Vec<String> = addresses.iter().map(|a| format!("`{a}`")).collect();
            [
                (*name).to_owned(),
                addresses.join(", "),
                (*notes).to_owned(),
            ]
        }),
    )
}

/// The page with the text between its marks replaced.
fn with(page: &str, mark: &str, text: &str) -> String {
    let (begin, end) = (
        format!("<!-- {mark} -->\n"),
        format!("<!-- end of {mark} -->\n"),
    );
    let (before, rest) = page
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{PAGE} has no {begin}"));
    let (_, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("{PAGE} has no {end}"));
    format!("{before}{begin}\n{text}\n{end}{after}")
}

#[test]
fn the_tables_of_the_manual_are_those_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{PAGE}: {error}"));
    let wanted = with(&with(&page, "kinds", &addresses()), "options", &options());
    if page != wanted && std::env::var_os("LISTEND_BLESS").is_some() {
        fs::write(&path, &wanted).expect("write");
        return;
    }
    let line = page
        .lines()
        .zip(wanted.lines())
        .find(|(is, should)| is != should);
    assert!(
        page == wanted,
        "{PAGE} is not up to date, write it with LISTEND_BLESS=1: {line:#?}"
    );
}

// What is written there is understood, whether or not this kernel has it.
#[test]
fn every_address_of_the_manual_is_understood() {
    let world = World::new();
    let mut yaml = "listeners:\n".to_owned();
    // One by one: some would collide.
    for (kind, _, addresses, _) in KINDS {
        for address in *addresses {
            yaml.truncate("listeners:\n".len());
            yaml += &format!("  it: '{address}'\n");
            let finished = world.check(&yaml, &["--no-bind"]);
            assert_eq!(finished.code, Some(0), "{kind:?} {address}: {finished:#?}");
        }
    }
}
