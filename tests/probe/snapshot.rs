//! Collects the [`Report`]: descriptors first, before anything else is opened.

use crate::options;
use crate::report::{Fd, Keyring, Report, Socket};
use nix::libc;
use socket2::{Domain, SockRef, Type};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{BorrowedFd, RawFd};

/// Everything about this process. The first thing the probe does.
pub fn take(argv: Vec<String>) -> Report {
    let fds = descriptors();
    let status = fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let field = |name: &str| -> &str {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .unwrap_or_else(|| panic!("{name} is missing in /proc/self/status"))
    };
    let numbers = |name: &str| -> Vec<u32> {
        let words = field(name).split_whitespace();
        words.map(|word| word.parse().expect("a number")).collect()
    };
    let ids = |name: &str| -> [u32; 4] { numbers(name).try_into().expect("four ids") };
    let mut groups = numbers("Groups");
    groups.sort_unstable();
    Report {
        argv,
        pid: nix::unistd::getpid().as_raw(),
        ppid: nix::unistd::getppid().as_raw(),
        pgid: nix::unistd::getpgrp().as_raw(),
        sid: nix::unistd::getsid(None).expect("getsid").as_raw(),
        uids: ids("Uid"),
        gids: ids("Gid"),
        groups,
        cwd: std::env::current_dir().map_or_else(
            |error| format!("({error})"),
            |path| path.to_string_lossy().into_owned(),
        ),
        umask: u32::from_str_radix(field("Umask"), 8).expect("an octal umask"),
        nice: nice(),
        oom_score_adj: fs::read_to_string("/proc/self/oom_score_adj")
            .expect("read oom_score_adj")
            .trim()
            .parse()
            .expect("a number"),
        limits: limits(),
        env: std::env::vars_os()
            .map(|(name, value)| {
                let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
                (text(name), text(value))
            })
            .collect(),
        blocked: signals(field("SigBlk")),
        ignored: signals(field("SigIgn")),
        caught: signals(field("SigCgt")),
        fds,
        status: status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect(),
        session_keyring: session_keyring(),
        pidfd_inode: pidfd_inode(),
    }
}

/// The keyring that is searched first. Asked for as one that need not exist: with 1 the kernel would
/// make one of a process that has none.
fn session_keyring() -> Option<Keyring> {
    const LENGTH: usize = 256;
    let mut text = [0_u8; LENGTH];
    // SAFETY: keyctl(2) writes at most the length that it is given; its second call is given none.
    let (length, bytes) = unsafe {
        let keyring = libc::KEY_SPEC_SESSION_KEYRING;
        let id = libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, keyring, 0);
        if id < 0 {
            return None;
        }
        let describe = libc::KEYCTL_DESCRIBE;
        let length = libc::syscall(libc::SYS_keyctl, describe, id, text.as_mut_ptr(), LENGTH);
        let nowhere = std::ptr::null::<u8>();
        let bytes = libc::syscall(libc::SYS_keyctl, libc::KEYCTL_READ, id, nowhere, 0);
        (length, bytes)
    };
    let length = usize::try_from(length).expect("KEYCTL_DESCRIBE");
    let description = text.get(..length - 1).expect("a short description");
    Some(Keyring {
        description: String::from_utf8_lossy(description).into_owned(),
        // Four bytes for each key.
        keys: usize::try_from(bytes).expect("KEYCTL_READ") / 4,
    })
}

fn nice() -> i32 {
    let stat = fs::read_to_string("/proc/self/stat").expect("read /proc/self/stat");
    // proc_pid_stat(5): the command in parentheses may hold anything; nice is field 19, and the
    // first field behind the parenthesis is field 3.
    let (_, rest) = stat.rsplit_once(')').expect("a parenthesis");
    let field = rest.split_whitespace().nth(16).expect("19 fields");
    field.parse().expect("a number")
}

/// The numbers of the bits in a mask of /proc/PID/status.
fn signals(mask: &str) -> Vec<i32> {
    let mask = u64::from_str_radix(mask, 16).expect("a hexadecimal mask");
    (1..=64)
        .filter(|number| mask & (1 << (number - 1)) != 0)
        .collect()
}

fn limits() -> BTreeMap<String, [Option<u64>; 2]> {
    let names = [
        ("as", libc::RLIMIT_AS),
        ("core", libc::RLIMIT_CORE),
        ("cpu", libc::RLIMIT_CPU),
        ("data", libc::RLIMIT_DATA),
        ("fsize", libc::RLIMIT_FSIZE),
        ("locks", libc::RLIMIT_LOCKS),
        ("memlock", libc::RLIMIT_MEMLOCK),
        ("msgqueue", libc::RLIMIT_MSGQUEUE),
        ("nice", libc::RLIMIT_NICE),
        ("nofile", libc::RLIMIT_NOFILE),
        ("nproc", libc::RLIMIT_NPROC),
        ("rss", libc::RLIMIT_RSS),
        ("rtprio", libc::RLIMIT_RTPRIO),
        ("rttime", libc::RLIMIT_RTTIME),
        ("sigpending", libc::RLIMIT_SIGPENDING),
        ("stack", libc::RLIMIT_STACK),
    ];
    let value = |limit: libc::rlim_t| (limit != libc::RLIM_INFINITY).then_some(limit);
    let one = |(name, number): (&str, _)| {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is a valid place for one struct rlimit.
        let result = unsafe { libc::getrlimit(number, &raw mut limit) };
        assert_eq!(result, 0, "getrlimit {name}");
        (
            name.to_owned(),
            [value(limit.rlim_cur), value(limit.rlim_max)],
        )
    };
    names.into_iter().map(one).collect()
}

fn descriptors() -> Vec<Fd> {
    let mut numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .expect("list /proc/self/fd")
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_str()
                .and_then(|s| s.parse().ok())
                .expect("a number")
        })
        .collect();
    numbers.sort_unstable();
    // The folder's own descriptor is in the list and closed by now, so it answers EBADF.
    numbers.into_iter().filter_map(descriptor).collect()
}

fn descriptor(number: RawFd) -> Option<Fd> {
    // SAFETY: F_GETFD takes no argument and works on any number.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return None;
    }
    // SAFETY: F_GETFL takes no argument, and the descriptor is open.
    let status = unsafe { libc::fcntl(number, libc::F_GETFL) };
    let target = fs::read_link(format!("/proc/self/fd/{number}")).map_or_else(
        |error| format!("({error})"),
        |path| path.to_string_lossy().into_owned(),
    );
    let socket = target.starts_with("socket:").then(|| socket(number));
    let options = if number > libc::STDERR_FILENO {
        options::of(number, socket.as_ref())
    } else {
        BTreeMap::new()
    };
    Some(Fd {
        number,
        cloexec: flags & libc::FD_CLOEXEC != 0,
        nonblocking: status & libc::O_NONBLOCK != 0,
        target,
        socket,
        options,
    })
}

fn socket(number: RawFd) -> Socket {
    // SAFETY: the descriptor is open, and nothing in this process closes it.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = SockRef::from(&fd);
    let domain = socket.domain().expect("SO_DOMAIN");
    let address = socket.local_addr().expect("getsockname");
    let name = if let Some(inet) = address.as_socket() {
        inet.to_string()
    } else if let Some(path) = address.as_pathname() {
        path.to_string_lossy().into_owned()
    } else if let Some(name) = address.as_abstract_namespace() {
        format!("@{}", String::from_utf8_lossy(name))
    } else if let Some((cid, port)) = address.as_vsock_address() {
        format!("vsock:{cid}:{port}")
    } else if domain == Domain::from(libc::AF_NETLINK) {
        format!("netlink:{}", netlink_groups(number))
    } else {
        String::new()
    };
    let kind = socket.r#type().expect("SO_TYPE");
    let listening = socket.is_listener().expect("SO_ACCEPTCONN");
    let inet = domain == Domain::IPV4 || domain == Domain::IPV6;
    Socket {
        family: match domain {
            Domain::IPV4 => "inet".to_owned(),
            Domain::IPV6 => "inet6".to_owned(),
            Domain::UNIX => "unix".to_owned(),
            Domain::VSOCK => "vsock".to_owned(),
            _ if domain == Domain::from(libc::AF_NETLINK) => "netlink".to_owned(),
            other => format!("{other:?}"),
        },
        kind: match kind {
            Type::STREAM => "stream".to_owned(),
            Type::DGRAM => "dgram".to_owned(),
            Type::SEQPACKET => "seqpacket".to_owned(),
            other => format!("{other:?}"),
        },
        protocol: socket.protocol().expect("SO_PROTOCOL").map_or(0, i32::from),
        listening,
        name,
        v6_only: (domain == Domain::IPV6).then(|| socket.only_v6().expect("IPV6_V6ONLY")),
        reuse_address: socket.reuse_address().expect("SO_REUSEADDR"),
        backlog: (inet && listening && kind == Type::STREAM)
            .then(|| queue_limit(number))
            .flatten(),
    }
}

/// The limit of the accept queue: in TCP_INFO of a listener, `tcpi_sacked` is `sk_max_ack_backlog`
/// (net/ipv4/tcp.c, tcp_get_info).
fn queue_limit(number: RawFd) -> Option<u32> {
    // SAFETY: every field of tcp_info is an integer, for which zero is valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointers are to `info` and its length.
    let result = unsafe {
        libc::getsockopt(
            number,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(info.tcpi_sacked)
}

/// The multicast groups of a netlink socket, as getsockname(2) has them: a bit for each.
fn netlink_groups(number: RawFd) -> u32 {
    // SAFETY: every field of sockaddr_nl is an integer, for which zero is valid.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: the pointers are to `address` and its length.
    let result = unsafe { libc::getsockname(number, (&raw mut address).cast(), &raw mut length) };
    assert_eq!(result, 0, "getsockname");
    address.nl_groups
}

fn pidfd_inode() -> Option<u64> {
    /// PID_FS_MAGIC of linux/magic.h; before 6.9 every pidfd shares one anonymous inode.
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    // SAFETY: pidfd_open(2) takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    let fd = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    let system = nix::sys::statfs::fstatfs(&fd).ok()?;
    if system.filesystem_type().0 as i64 != PID_FS_MAGIC {
        return None;
    }
    nix::sys::stat::fstat(&fd).ok().map(|stat| stat.st_ino)
}
