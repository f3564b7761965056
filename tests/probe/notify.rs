//! What a worker can say with sd_notify(3), byte by byte.

use crate::children;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pause};
use std::ffi::CString;
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Sends a text, in which each `|` is a newline, with descriptors.
pub fn send(text: &str, fds: &[RawFd]) -> io::Result<String> {
    let name = std::env::var("NOTIFY_SOCKET").map_err(io::Error::other)?;
    let address = match name.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
        None => UnixAddr::new(name.as_str())?,
    };
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    let text = text.replace('|', "\n");
    let data = [IoSlice::new(text.as_bytes())];
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    sendmsg(
        socket.as_raw_fd(),
        &data,
        control,
        MsgFlags::empty(),
        Some(&address),
    )?;
    Ok("notify".to_owned())
}

/// Says something at the socket of einhorn, in a line; nothing is nothing, not even a line.
pub fn acknowledge(line: &str) -> io::Result<String> {
    let path = std::env::var("EINHORN_SOCK_PATH").map_err(io::Error::other)?;
    let mut stream = UnixStream::connect(path)?;
    match line {
        "" => std::mem::forget(stream),
        line => stream.write_all(format!("{line}\n").as_bytes())?,
    }
    Ok("ack".to_owned())
}

/// Says that it is ready with the crate that workers in Rust have for it, and leaves a file.
pub fn by_crate(status: &str) -> io::Result<String> {
    use sd_notify::NotifyState;
    sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])?;
    let file = memfd_create(c"by-crate", MFdFlags::MFD_CLOEXEC)?;
    let state = [NotifyState::FdStore, NotifyState::FdName("by-crate")];
    sd_notify::notify_with_fds(&state, &[file.as_fd()])?;
    Ok("crate".to_owned())
}

/// As sd_notify_barrier(3): the other side closes a pipe.
pub fn barrier() -> io::Result<String> {
    let (ours, theirs) = io::pipe()?;
    send("BARRIER=1", &[theirs.as_raw_fd()])?;
    drop(theirs);
    let mut polled = [PollFd::new(ours.as_fd(), PollFlags::empty())];
    match poll(&mut polled, PollTimeout::from(10_000_u16))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok("barrier".to_owned()),
    }
}

/// Leaves a file in memory.
pub fn store(name: &str) -> io::Result<String> {
    let file = memfd_create(&*CString::new(name)?, MFdFlags::MFD_CLOEXEC)?;
    send(&format!("FDSTORE=1|FDNAME={name}"), &[file.as_raw_fd()])?;
    Ok("store".to_owned())
}

/// Leaves many files in memory at once.
pub fn keep(count: i32, name: &str) -> io::Result<String> {
    let name_of_file = CString::new(name)?;
    let files: nix::Result<Vec<_>> = (0..count)
        .map(|_| memfd_create(&*name_of_file, MFdFlags::MFD_CLOEXEC))
        .collect();
    let files = files?;
    let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    send(&format!("FDSTORE=1|FDNAME={name}"), &numbers)?;
    Ok("keep".to_owned())
}

/// Leaves a descriptor that it was given.
pub fn again(number: RawFd, name: &str) -> io::Result<String> {
    send(&format!("FDSTORE=1|FDNAME={name}"), &[number])?;
    Ok("again".to_owned())
}

/// Binds a socket and leaves it: `tcp:`, `udp:` or `unix:` and an address, then its name. Answers
/// with the address and the number of the descriptor.
pub fn bind(text: &str) -> io::Result<String> {
    let (address, name) = text.split_once(' ').ok_or(io::ErrorKind::InvalidInput)?;
    let (scheme, address) = address.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    let (fd, address): (OwnedFd, String) = match scheme {
        "tcp" => {
            let socket = TcpListener::bind(address)?;
            let address = socket.local_addr()?.to_string();
            (socket.into(), address)
        }
        "udp" => {
            let socket = UdpSocket::bind(address)?;
            let address = socket.local_addr()?.to_string();
            (socket.into(), address)
        }
        "unix" => (UnixListener::bind(address)?.into(), address.to_owned()),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let number = fd.into_raw_fd();
    send(&format!("FDSTORE=1|FDNAME={name}"), &[number])?;
    Ok(format!("{address} {number}"))
}

/// Leaves a socket whose other end lives as long as this process.
pub fn store_socket(text: &str) -> io::Result<String> {
    let (ours, theirs) = UnixStream::pair()?;
    send(text, &[theirs.as_raw_fd()])?;
    let _kept_open = ours.into_raw_fd();
    Ok("store-socket".to_owned())
}

/// Leaves a connection to this address that has SO_LINGER and more to send than anybody reads: its
/// last close(2) waits for an hour.
pub fn store_bomb(address: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_nonblocking(true)?;
    while connection.write(&[b'x'; 65_536]).is_ok() {}
    let linger = Some(Duration::from_secs(3600));
    socket2::SockRef::from(&connection).set_linger(linger)?;
    send("FDSTORE=1|FDNAME=bomb", &[connection.as_raw_fd()])?;
    Ok("store-bomb".to_owned())
}

const ORPHAN: &str = "orphan ";

/// Goes on in a child whose parent has ended.
fn become_an_orphan() {
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    // SAFETY: there is one thread, so the child may do what any process may.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { .. } => {
            drop(ours);
            // SAFETY: it runs nothing of what the puppet has registered, and closes `theirs`, the last end.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Child => {
            drop(theirs);
            // End of file: the descriptors of the parent are closed, and soon it has another one.
            let _ = ours.read(&mut [0]);
            children::outlive_its_parent(None);
        }
    }
}

/// Forks a child that sends the text and stays; its pid. After `orphan` that child has a child which does so
/// as soon as its parent has ended.
pub fn child(text: &str, strings: &UnixStream) -> i32 {
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    // SAFETY: there is one thread, so the child may do what any process may.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            drop(theirs);
            if text.starts_with(ORPHAN) {
                waitpid(child, None).expect("the parent of the orphan");
            }
            ours.read_exact(&mut [0]).expect("the child has sent it");
            child.as_raw()
        }
        ForkResult::Child => {
            // The test takes end of file on the strings for the death of the puppet.
            // SAFETY: the child uses neither this descriptor nor `strings` again.
            unsafe { libc::close(strings.as_raw_fd()) };
            children::outlive_its_parent(None);
            let text = match text.strip_prefix(ORPHAN) {
                Some(text) => {
                    become_an_orphan();
                    text
                }
                None => text,
            };
            match text.strip_prefix("ack ") {
                Some(line) => acknowledge(line).expect("ack"),
                None => send(text, &[]).expect("notify"),
            };
            let _ = (&theirs).write(b"x");
            drop((ours, theirs));
            loop {
                pause();
            }
        }
    }
}

/// Starts another puppet on the same strings; its pid.
pub fn heir(path: &str, detached: bool) -> i32 {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["heir", path]);
    let leave = move || {
        if detached {
            nix::unistd::setsid()?;
        }
        // What this process ignores, the next would.
        // SAFETY: no handler is installed.
        unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) }?;
        Ok(())
    };
    // SAFETY: the closure makes two system calls.
    unsafe { command.pre_exec(leave) };
    command.spawn().expect("start an heir").id() as i32
}

/// Closes one of the descriptors that the process was given.
pub fn close(number: i32) -> io::Result<String> {
    // SAFETY: nothing else in this process uses it.
    if unsafe { libc::close(number) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok("close".to_owned())
}
