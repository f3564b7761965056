//! What a client of a load asks, and which answer is whole and right.

use super::PATIENCE;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// More than any head.
const HEAD_MAX: usize = 64 * 1024;
/// A datagram may be lost with the process that has received it, and is sent again after this time.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(3);

/// A request and its answer.
#[derive(Debug, Clone)]
pub struct Question {
    /// What is sent. Nothing to a server that speaks first.
    pub send: Vec<u8>,
    pub answer: Answer,
    /// Between an answer and the next question, for a load that leaves the processor to others.
    pub pause: Duration,
}

/// Which answer is whole and right.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A response of HTTP with status 200, as long as it says; the server closes the connection.
    Http,
    /// These bytes are in it, and what follows them does not matter.
    Bytes(Vec<u8>),
    /// A datagram with these bytes in it.
    Datagram(Vec<u8>),
}

impl Question {
    pub fn http() -> Question {
        Question {
            send: b"GET / HTTP/1.0\r\nHost: load\r\n\r\n".to_vec(),
            answer: Answer::Http,
            pause: Duration::ZERO,
        }
    }

    /// Asks once; the first word of the answer's body, if it has one.
    pub fn ask(&self, address: &SockAddr) -> io::Result<String> {
        let domain = Domain::from(i32::from(address.family()));
        let (kind, patience) = match self.answer {
            Answer::Datagram(_) => (Type::DGRAM, DATAGRAM_PATIENCE),
            Answer::Http | Answer::Bytes(_) => (Type::STREAM, PATIENCE),
        };
        let mut socket = Socket::new(domain, kind, None)?;
        socket.set_read_timeout(Some(patience))?;
        // This is for connect as well, also where a unix socket's queue is full (unix(7)).
        socket.set_write_timeout(Some(patience))?;
        if let Answer::Datagram(wanted) = &self.answer {
            // Not connected: a server of TFTP answers from another port.
            socket.send_to(&self.send, address)?;
            let mut answer = [0; 2048];
            let (count, _) = UdpSocket::from(OwnedFd::from(socket)).recv_from(&mut answer)?;
            return match found(&answer[..count], wanted) {
                true => Ok(String::new()),
                false => Err(wrong("another datagram")),
            };
        }
        match socket.connect(address) {
            // connect(2): EINPROGRESS, when SO_SNDTIMEO is over (socket(7)).
            Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {
                return Err(ErrorKind::TimedOut.into());
            }
            result => result?,
        }
        socket.write_all(&self.send)?;
        let mut answer = Vec::new();
        let word = match &self.answer {
            Answer::Bytes(wanted) => {
                read_until(&mut socket, &mut answer, wanted)?;
                String::new()
            }
            Answer::Http | Answer::Datagram(_) => {
                socket.read_to_end(&mut answer)?;
                check(&answer)?
            }
        };
        if domain != Domain::UNIX {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        Ok(word)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

fn found(answer: &[u8], wanted: &[u8]) -> bool {
    answer.windows(wanted.len()).any(|some| some == wanted)
}

fn read_until(socket: &mut Socket, answer: &mut Vec<u8>, wanted: &[u8]) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while !found(answer, wanted) {
        let count = socket.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..count]);
        let text = || String::from_utf8_lossy(answer).into_owned();
        match count {
            0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, text())),
            _ if answer.len() > HEAD_MAX => return Err(wrong("more than is expected")),
            _ => {}
        }
    }
    Ok(())
}

/// The first word of the body of a whole answer.
fn check(answer: &[u8]) -> io::Result<String> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return match answer.len() {
            0..HEAD_MAX => Err(ErrorKind::UnexpectedEof.into()),
            _ => Err(wrong("no end of the head")),
        };
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let body = &answer[end + 4..];
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1") || status.split(' ').nth(1) != Some("200") {
        return Err(wrong(status));
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        None => Err(wrong("no Content-Length")),
        Some(length) if body.len() < length => Err(ErrorKind::UnexpectedEof.into()),
        Some(length) if body.len() > length => Err(wrong("more than its Content-Length")),
        Some(_) => {
            let text = String::from_utf8_lossy(body);
            let word = text.split_whitespace().next().unwrap_or_default();
            Ok(word.to_owned())
        }
    }
}
