//! A client for every kind of listener, to be run in any namespace.

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::time::Duration;

/// Linux: include/uapi/linux/in.h.
const IPPROTO_UDPLITE: i32 = 136;

/// `SCHEME ADDRESS TEXT SECONDS`: sends the text, prints the answer where there is one.
pub fn run(words: &[String]) -> i32 {
    let [scheme, address, text, seconds] = words else {
        panic!("SCHEME ADDRESS TEXT SECONDS");
    };
    let patience = Duration::from_secs(seconds.parse().expect("seconds"));
    nix::unistd::alarm::set(patience.as_secs() as u32 + 1);
    match send(scheme, address, text.as_bytes(), patience) {
        Ok(answer) => {
            // Nobody flushes it at the end: this program has no `main` of Rust's.
            let mut stdout = io::stdout();
            let _ = stdout.write_all(&answer).and_then(|()| stdout.flush());
            0
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "{scheme} {address}: {error}");
            1
        }
    }
}

/// `SCHEME ADDRESS [FROM]`: connects, from a unix address if one is given, and prints in one line
/// each the port or name of this end, and all that comes until the end.
pub fn hear(words: &[String]) -> i32 {
    let (scheme, address) = (words[0].as_str(), words[1].as_str());
    nix::unistd::alarm::set(30);
    let listen = || -> io::Result<(String, String)> {
        let socket = match words.get(2) {
            Some(from) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&SockAddr::unix(from.replacen('@', "\0", 1))?)?;
                socket.connect(&SockAddr::unix(address)?)?;
                socket
            }
            None => connected(scheme, address)?,
        };
        let here = socket.local_addr()?.as_socket();
        let here = here.map_or_else(String::new, |here| here.port().to_string());
        let mut text = String::new();
        (&socket).read_to_string(&mut text)?;
        Ok((here, text))
    };
    let (here, text) = listen().unwrap_or_else(|error| panic!("{scheme} {address}: {error}"));
    let mut stdout = io::stdout();
    let _ = write!(stdout, "{here}\n{text}").and_then(|()| stdout.flush());
    0
}

fn send(scheme: &str, address: &str, text: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    match scheme {
        "fifo" | "special" => {
            let mut file = OpenOptions::new().write(true).open(address)?;
            file.write_all(text)?;
            return Ok(Vec::new());
        }
        "mqueue-unlink" => {
            let name = CString::new(address)?;
            // SAFETY: the name is ended by NUL.
            unsafe { libc::mq_unlink(name.as_ptr()) };
            return Ok(Vec::new());
        }
        "mqueue" => return enqueue(address, text).map(|()| Vec::new()),
        _ => {}
    }
    let socket = connected(scheme, address)?;
    socket.set_read_timeout(Some(patience))?;
    (&socket).write_all(text)?;
    let mut answer = vec![0; 64 * 1024];
    let length = (&socket).read(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn connected(scheme: &str, address: &str) -> io::Result<Socket> {
    if let Some(kind) = scheme.strip_prefix("unix") {
        return unix(kind.trim_start_matches('-'), address);
    }
    if let Some(kind) = scheme.strip_prefix("vsock") {
        let (cid, port) = address.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let number = |word: &str| word.parse::<u32>().map_err(io::Error::other);
        let socket = Socket::new(Domain::VSOCK, of_unix(kind.trim_start_matches('-')), None)?;
        socket.connect(&SockAddr::vsock(number(cid)?, number(port)?))?;
        return Ok(socket);
    }
    let (kind, protocol) = match scheme {
        "tcp" => (Type::STREAM, None),
        "mptcp" => (Type::STREAM, Some(Protocol::MPTCP)),
        "udp" => (Type::DGRAM, None),
        "udplite" => (Type::DGRAM, Some(Protocol::from(IPPROTO_UDPLITE))),
        _ => return Err(io::Error::other("no such scheme")),
    };
    let address = inet(address)?;
    let socket = Socket::new(Domain::for_address(address), kind, protocol)?;
    if kind == Type::DGRAM {
        // Bound, so that a shared one is not answered from elsewhere.
        let any = if address.is_ipv4() {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        socket.bind(&any.into())?;
    }
    socket.connect(&address.into())?;
    Ok(socket)
}

/// `[fe80::1%eth0]:80` has a scope, whose number the system knows.
fn inet(text: &str) -> io::Result<SocketAddr> {
    let parts = text.split_once('%').and_then(|(ip, rest)| {
        let (scope, port) = rest.split_once("]:")?;
        Some((ip.trim_start_matches('['), scope, port))
    });
    let Some((ip, scope, port)) = parts else {
        return text.parse().map_err(io::Error::other);
    };
    let name = CString::new(scope)?;
    // SAFETY: the pointer is to a string ended by NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let ip: Ipv6Addr = ip.parse().map_err(io::Error::other)?;
    let port = port.parse().map_err(io::Error::other)?;
    Ok(SocketAddrV6::new(ip, port, 0, index).into())
}

fn of_unix(kind: &str) -> Type {
    match kind {
        "dgram" => Type::DGRAM,
        "seqpacket" => Type::SEQPACKET,
        _ => Type::STREAM,
    }
}

fn unix(kind: &str, address: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, of_unix(kind), None)?;
    if kind == "dgram" {
        // unix(7): a bind with the family alone gets a name of the kernel's choice, to which the
        // answer can go.
        let family = libc::sa_family_t::try_from(libc::AF_UNIX).map_err(io::Error::other)?;
        // SAFETY: the pointer and length are those of `family`, the first member of sockaddr.
        let result = unsafe {
            libc::bind(
                std::os::fd::AsRawFd::as_raw_fd(&socket),
                (&raw const family).cast(),
                size_of::<libc::sa_family_t>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    if let Some(name) = address.strip_prefix('@') {
        // As socket2 takes it: with its leading NUL.
        socket.connect(&SockAddr::unix(format!("\0{name}"))?)?;
        return Ok(socket);
    }
    // A path may be longer than an address of 107 bytes.
    let path = Path::new(address);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    std::env::set_current_dir(folder)?;
    socket.connect(&SockAddr::unix(name)?)?;
    Ok(socket)
}

fn enqueue(name: &str, text: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name is ended by NUL; without O_CREAT nothing else is read.
    let queue = unsafe { libc::mq_open(name.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if queue < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the pointer and the length are those of `text`.
    let result = unsafe { libc::mq_send(queue, text.as_ptr().cast(), text.len(), 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
