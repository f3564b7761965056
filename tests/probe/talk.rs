//! Uses one inherited descriptor of any kind, as a worker of that kind would.

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

/// No client of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST: usize = 64 * 1024;

/// What a test is told, in one line.
pub fn answer(result: io::Result<String>) -> String {
    result.unwrap_or_else(|error| format!("error: {error}"))
}

/// Accepts a client, and does nothing more about it.
pub fn hold(number: RawFd) -> io::Result<String> {
    // SAFETY: nothing in this process closes an inherited descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let (client, _) = SockRef::from(&fd).accept()?;
    std::mem::forget(client);
    Ok("hold".to_owned())
}

/// Waits for a client, a datagram, a message or bytes, and returns what they say. Who can be
/// answered is sent the same in capitals.
pub fn read(number: RawFd) -> io::Result<String> {
    // SAFETY: nothing in this process closes an inherited descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut polled, timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let socket = SockRef::from(&fd);
    let bytes = match socket.is_listener() {
        Ok(true) => {
            let (client, _) = socket.accept()?;
            client.set_read_timeout(Some(PATIENCE))?;
            let mut bytes = vec![0; LONGEST];
            let length = (&client).read(&mut bytes)?;
            bytes.truncate(length);
            (&client).write_all(&bytes.to_ascii_uppercase())?;
            bytes
        }
        Ok(false) => {
            let mut bytes = [MaybeUninit::uninit(); LONGEST];
            let (length, sender) = socket.recv_from(&mut bytes)?;
            // SAFETY: recv_from has filled in the first `length` bytes.
            let bytes = unsafe { &*(&raw const bytes[..length] as *const [u8]) }.to_vec();
            // A unix sender may have no name, and netlink's is the kernel.
            let _ = socket.send_to(&bytes.to_ascii_uppercase(), &sender);
            bytes
        }
        // No socket.
        Err(_) => read_or_receive(number)?,
    };
    Ok(String::from_utf8_lossy(&bytes).replace(['\n', '\0'], " "))
}

/// Takes what is there, without waiting. A datagram is sent the answer; what came from anything else is returned,
/// of netlink that something did.
pub fn take(number: RawFd, answer: &[u8]) -> io::Result<Option<Vec<u8>>> {
    // SAFETY: nothing in this process closes an inherited descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = SockRef::from(&fd);
    if socket.is_listener().is_err() {
        return read_or_receive(number).map(Some);
    }
    let mut bytes = [MaybeUninit::uninit(); 2048];
    let (_, sender) = socket.recv_from_with_flags(&mut bytes, libc::MSG_DONTWAIT)?;
    if i32::from(sender.family()) == libc::AF_NETLINK {
        return Ok(Some(b"netlink\n".to_vec()));
    }
    // A client that has gone away is its own affair.
    let _ = socket.send_to(answer, &sender);
    Ok(None)
}

/// A message queue is read with its own call only.
fn read_or_receive(number: RawFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; LONGEST];
    // SAFETY: the pointer and the length are those of `bytes`.
    let mut length = unsafe {
        libc::mq_receive(
            number,
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            std::ptr::null_mut(),
        )
    };
    if length < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EBADF) {
        // SAFETY: as above. A device may give as much as is asked for, so it is little.
        length = unsafe { libc::read(number, bytes.as_mut_ptr().cast(), 64) };
    }
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Writes to what is no socket; how many bytes it took.
pub fn write(number: RawFd, text: &str) -> io::Result<String> {
    // SAFETY: the pointer and the length are those of `text`.
    let length = unsafe { libc::write(number, text.as_ptr().cast(), text.len()) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(length.to_string())
}

/// Asks a NETLINK_ROUTE socket for all interfaces (rtnetlink(7)): the type of the first answer,
/// which is RTM_NEWLINK, 16.
pub fn links(number: RawFd) -> io::Result<String> {
    const RTM_GETLINK: u16 = 18;
    const NLM_F_REQUEST_DUMP: u16 = 0x301;
    let mut request = Vec::new();
    // struct nlmsghdr and struct rtgenmsg, padded.
    request.extend(20_u32.to_ne_bytes());
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend(7_u32.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend([0; 4]);
    // SAFETY: nothing in this process closes an inherited descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let socket = SockRef::from(&fd);
    socket.send(&request)?;
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut polled, timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut header = [0; 16];
    (&*socket).read_exact(&mut header)?;
    Ok(u16::from_ne_bytes([header[4], header[5]]).to_string())
}

/// Shuts a socket down for reading only, for everybody who has it.
pub fn shut_for_reading(number: RawFd) -> io::Result<String> {
    // SAFETY: nothing in this process closes an inherited descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    SockRef::from(&fd).shutdown(Shutdown::Read)?;
    Ok("half".to_owned())
}

/// Connects a datagram socket, so that it hears nobody else.
pub fn connect(number: RawFd, address: &str) -> io::Result<String> {
    // SAFETY: nothing in this process closes an inherited descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    SockRef::from(&fd).connect(&address.into())?;
    Ok("connect".to_owned())
}

/// Sets a socket option: level, name and value.
pub fn set_option(number: RawFd, text: &str) -> io::Result<String> {
    let words = text
        .split(' ')
        .map(str::parse)
        .collect::<Result<Vec<i32>, _>>();
    let [level, name, value] = words.map_err(io::Error::other)?[..] else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: the pointer and the length are those of `value`.
    let done = unsafe {
        let length = size_of::<i32>() as libc::socklen_t;
        libc::setsockopt(number, level, name, (&raw const value).cast(), length)
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok("option".to_owned())
}

/// Asks for the errors of a UDP socket (IP_RECVERR, ip(7)), causes one and does not read it.
pub fn complain(number: RawFd) -> io::Result<String> {
    // SAFETY: nothing in this process closes an inherited descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::Ipv4RecvErr, &true)?;
    // Nobody has this port once the socket is closed again.
    let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    SockRef::from(&fd).send_to(b"hello", &nobody.into())?;
    let mut polled = [PollFd::new(fd, PollFlags::empty())];
    let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut polled, timeout)? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok("complain".to_owned())
}
