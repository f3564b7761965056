//! The socket that workers send their messages to.

use crate::config::UnixKind;
use crate::listener::{BoundSocket, SocketRecord};
use crate::plan::Plan;
use crate::report::describe;
use crate::shell::clock;
use crate::shell::own_socket::{OwnRepair, OwnSocket};
use crate::sys::{self, Datagram, Room};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, setsockopt, socket, sockopt,
};
use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Room for messages that have not been read, in bytes, as systemd has it.
const BUFFER: usize = 8 * 1024 * 1024;
/// The longest path that an address can hold (unix(7)): one byte is the NUL.
const LONGEST_PATH: usize = 107;
/// What abstract names begin with.
const NAMES: &str = "listend/notify/";
/// What messages call it.
const NAME: &str = "notify socket";
/// Workers of every user write to it.
pub(super) const MODE: u32 = 0o666;
/// No more messages are read before a child is reaped, whatever the system allows.
const MOST_WAITING: usize = 10_000;

/// One for all workers: the kernel vouches for who sent what. Dropped, its path is removed.
#[derive(Debug)]
pub(in crate::shell) struct NotifySocket {
    way: SocketPlace,
    address: String,
    most_waiting: usize,
    /// Whether no descriptors are taken for now ([`Room::None`]).
    is_full: bool,
}

#[derive(Debug)]
enum SocketPlace {
    Path(OwnSocket),
    /// An abstract name.
    Name(OwnedFd),
}

impl NotifySocket {
    /// The next message. Whoever drops it calls [`sys::close_foreign`] next.
    ///
    /// # Errors
    ///
    /// The errors of recvmsg(2); EAGAIN: there is none, or none can be taken now.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Datagram> {
        let takes_descriptors = match sys::room_for_foreign(clock::now().0) {
            Room::Free => true,
            Room::Soon => return Err(io::ErrorKind::WouldBlock.into()),
            Room::None => false,
        };
        let is_full = std::mem::replace(&mut self.is_full, !takes_descriptors);
        let socket = self.fd().ok_or(io::ErrorKind::NotConnected)?;
        if is_full == takes_descriptors {
            sys::take_descriptors(socket, takes_descriptors);
            if !takes_descriptors {
                log::error!(
                    "closing files received at the notify socket blocks: their file system does \
                     not answer; until it does, further descriptors are dropped, and `fd_store` \
                     stores nothing"
                );
            }
        }
        sys::receive_datagram(socket, buffer, takes_descriptors)
    }

    /// Makes it beside the control socket, if there is one that every worker can get at, and with an
    /// abstract name (unix(7)) otherwise.
    ///
    /// # Errors
    ///
    /// No descriptors or no memory are left.
    pub(super) fn new(control: Option<&Path>, plan: &Plan) -> io::Result<NotifySocket> {
        let path = control.and_then(|control| beside(control, plan, "notify"));
        let bound = path.and_then(|path| match at_path(&path) {
            // It was made of text.
            Ok(own) => Some((SocketPlace::Path(own), path.to_string_lossy().into_owned())),
            Err(error) => {
                log::warn!(
                    "cannot receive notifications at {}: {error}; using an abstract name",
                    path.display()
                );
                None
            }
        });
        let (way, address) = match bound {
            Some(bound) => bound,
            None => {
                let (fd, address) = at_name()?;
                (SocketPlace::Name(fd), address)
            }
        };
        Ok(NotifySocket {
            is_full: false,
            way,
            address,
            most_waiting: most_waiting(),
        })
    }

    /// With the abstract name that the socket of another listend had, which is gone.
    ///
    /// # Errors
    ///
    /// The name is not one of listend's, or is in use.
    pub(super) fn again(name: &str) -> io::Result<NotifySocket> {
        if !name.starts_with(NAMES) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (fd, address) = bind_name(name)?;
        Ok(NotifySocket {
            is_full: false,
            way: SocketPlace::Name(fd),
            address,
            most_waiting: most_waiting(),
        })
    }

    /// The socket that another listend had at this address: its descriptor, and what is known of its file if
    /// it has a path.
    pub(in crate::shell) fn restore(
        address: String,
        record: Option<SocketRecord>,
        fd: OwnedFd,
    ) -> Result<NotifySocket, String> {
        let way = match record {
            None => SocketPlace::Name(fd),
            Some(record) => {
                let path = Path::new(&address);
                let own =
                    OwnSocket::restore(NAME, UnixKind::Datagram, path, (None, MODE), (fd, record));
                SocketPlace::Path(own.map_err(|failed| describe(failed.0.errno))?)
            }
        };
        Ok(NotifySocket {
            is_full: false,
            way,
            address,
            most_waiting: most_waiting(),
        })
    }

    /// What is known of its file.
    pub(super) fn record(&self) -> Option<SocketRecord> {
        match &self.way {
            SocketPlace::Path(own) => own.socket().map(BoundSocket::record),
            SocketPlace::Name(_) => None,
        }
    }

    /// Puts its path right, if something is wrong with it.
    pub(super) fn repair(&mut self) -> Option<OwnRepair> {
        let SocketPlace::Path(own) = &mut self.way else {
            return None;
        };
        own.repair(set_up)
    }

    /// Where it is in the file system.
    pub(in crate::shell) fn files(&self) -> Vec<Cow<'_, Path>> {
        match &self.way {
            SocketPlace::Path(own) => own.socket().map(BoundSocket::files).unwrap_or_default(),
            SocketPlace::Name(_) => Vec::new(),
        }
    }

    /// The value of NOTIFY_SOCKET.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The socket; `None` when it could not be had again.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.way {
            SocketPlace::Path(own) => own.socket().map(|socket| socket.fd.as_fd()),
            SocketPlace::Name(fd) => Some(fd.as_fd()),
        }
    }

    /// No more messages than this were sent before a moment and have not been read: the kernel makes
    /// senders wait (net.unix.max_dgram_qlen, unix(7)).
    pub(super) fn most_waiting(&self) -> usize {
        self.most_waiting
    }
}

/// The path beside the control socket's with this extension; `None` if not every worker could use it.
pub(super) fn beside(control: &Path, plan: &Plan, extension: &str) -> Option<PathBuf> {
    let path = control.with_extension(extension);
    let is_text = path.to_str().is_some();
    if !is_text || path.as_os_str().len() > LONGEST_PATH || path == control {
        return None;
    }
    let has_user = |credentials: &crate::launch_spec::Credentials| credentials.uid.is_some();
    let others = plan
        .workers
        .values()
        .any(|worker| worker.launch.credentials.as_ref().is_some_and(has_user));
    (!others || can_be_entered(&path)).then_some(path)
}

/// Whether everybody can get to what is in the folder of a path. Access control lists are not seen.
fn can_be_entered(path: &Path) -> bool {
    let mut folders = path.ancestors().skip(1);
    folders.all(|folder| {
        let mode = fs::metadata(folder).map(|metadata| metadata.mode());
        mode.is_ok_and(|mode| mode & 0o001 != 0)
    })
}

/// Who may tell what is decided by the credentials.
fn at_path(path: &Path) -> Result<OwnSocket, String> {
    let bound = OwnSocket::bind(NAME, UnixKind::Datagram, path, (None, MODE));
    let own = bound.map_err(|failed| describe(failed.0.errno))?;
    match own.socket().map(set_up) {
        Some(Err(error)) => {
            own.withdraw();
            Err(error.to_string())
        }
        Some(Ok(())) | None => Ok(own),
    }
}

/// A part of the name is random, so that no other process can take it first.
fn at_name() -> io::Result<(OwnedFd, String)> {
    let random = RandomState::new().build_hasher().finish();
    bind_name(&format!("{NAMES}{}-{random:016x}", std::process::id()))
}

fn bind_name(name: &str) -> io::Result<(OwnedFd, String)> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    set_up_fd(&fd)?;
    bind(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    Ok((fd, format!("@{name}")))
}

fn set_up(socket: &BoundSocket) -> io::Result<()> {
    set_up_fd(&socket.fd)
}

/// Non-blocking, with the senders' credentials, and with room.
fn set_up_fd(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    sys::ask_for_senders(fd)?;
    if setsockopt(fd, sockopt::RcvBufForce, &BUFFER).is_err() {
        // Without CAP_NET_ADMIN it is as much as net.core.rmem_max allows.
        let _as_it_is = setsockopt(fd, sockopt::RcvBuf, &BUFFER);
    }
    Ok(())
}

/// The setting was in force when the socket was made a moment ago.
fn most_waiting() -> usize {
    let text = fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen");
    let length = text.ok().and_then(|text| text.trim().parse::<usize>().ok());
    // The queue is full when it is longer than that.
    length.map_or(MOST_WAITING, |length| {
        length.saturating_add(2).min(MOST_WAITING)
    })
}
