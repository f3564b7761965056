//! Clients of every kind of socket, each with a deadline.

use super::{DEADLINE, Report};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

/// The largest report as one datagram or record.
const RECORD: usize = 512 * 1024;

/// Connects.
pub fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Sends this; the whole answer.
#[track_caller]
pub fn say_tcp(address: SocketAddr, request: &str) -> String {
    let mut stream = tcp(address).expect("connect");
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Connects.
pub fn unix(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Connects to a socket of packets.
pub fn unix_packets(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    Ok(socket)
}

/// Connects to a name in the abstract namespace.
pub fn abstract_unix(name: &str) -> io::Result<UnixStream> {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let stream = UnixStream::connect_addr(&address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Connects from this address of the machine's own.
pub fn tcp_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&address.into(), DEADLINE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Connects from a unix socket that has this address.
pub fn unix_from(source: &SockAddr, path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(source)?;
    socket.connect(&SockAddr::unix(path)?)?;
    let stream = UnixStream::from(OwnedFd::from(socket));
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

/// Goes away without a farewell: the other side gets a reset (SO_LINGER of socket(7), with no time).
pub fn reset(stream: TcpStream) {
    let socket = SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Says something, and waits for exactly this answer.
#[track_caller]
pub fn converse(mut stream: impl Read + Write, text: &str, wanted: &str) {
    stream.write_all(text.as_bytes()).expect("write");
    hear(stream, wanted);
}

/// Waits for exactly this.
#[track_caller]
pub fn hear(mut stream: impl Read, wanted: &str) {
    let mut answer = vec![0; wanted.len()];
    stream.read_exact(&mut answer).expect("read");
    assert_eq!(String::from_utf8_lossy(&answer), wanted);
}

/// Waits until the other side has closed without a word, or reset the connection.
#[track_caller]
pub fn sees_the_end(mut stream: impl Read) {
    match stream.read(&mut [0; 64]) {
        Ok(0) => {}
        Ok(length) => panic!("{length} bytes instead of the end"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("no end: {error}"),
    }
}

/// Reads a report until the end.
pub fn read_report(mut stream: impl Read) -> io::Result<Report> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// The report of whoever serves this address.
#[track_caller]
pub fn ask_tcp(address: SocketAddr) -> Report {
    let stream = tcp(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"));
    read_report(stream).unwrap_or_else(|error| panic!("read from {address}: {error}"))
}

/// The report of whoever serves this path.
#[track_caller]
pub fn ask_unix(path: &Path) -> Report {
    let stream = unix(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    read_report(stream).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The report of whoever serves this path with SOCK_SEQPACKET.
#[track_caller]
pub fn ask_seqpacket(path: &Path) -> Report {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("socket");
    let address = SockAddr::unix(path).expect("an address");
    socket.connect(&address).expect("connect");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let mut record = vec![0; RECORD];
    let length = (&socket).read(&mut record).expect("read");
    serde_json::from_slice(&record[..length]).expect("a report")
}

/// The report of whoever serves this UDP address.
#[track_caller]
pub fn ask_udp(address: SocketAddr) -> Report {
    let here = if address.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    };
    let socket = UdpSocket::bind(here).expect("bind");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    socket.send_to(b"?", address).expect("send");
    let mut record = vec![0; RECORD];
    let length = socket.recv(&mut record).expect("receive");
    serde_json::from_slice(&record[..length]).expect("a report")
}

/// The report of whoever serves this path with SOCK_DGRAM, answered to a socket at `here`.
#[track_caller]
pub fn ask_unix_datagram(path: &Path, here: &Path) -> Report {
    let socket = UnixDatagram::bind(here).expect("bind");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    socket.send_to(b"?", path).expect("send");
    let mut record = vec![0; RECORD];
    let length = socket.recv(&mut record).expect("receive");
    serde_json::from_slice(&record[..length]).expect("a report")
}

/// One HTTP request; the whole answer, head included.
pub fn http(mut stream: impl Read + Write, path: &str) -> io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    // At once: a server that reads once, answers and closes would reset what comes later.
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
