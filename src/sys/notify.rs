//! The calls that a socket for sd_notify(3) needs: a message with everything that comes with it, and
//! whether two descriptors are the same open file.

use super::SharedFd;
use super::sockopt;
use nix::libc::{self, c_int, c_long, c_void};
use std::cmp::Ordering;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Linux 6.5 (asm-generic/socket.h); the same on every architecture that Rust's Linux targets have,
/// but for these two.
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_PASSPIDFD: c_int = 76;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_PASSPIDFD: c_int = 0x55;
/// SO_PASSRIGHTS, since Linux 6.16.
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_PASSRIGHTS: c_int = 83;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_PASSRIGHTS: c_int = 0x5c;
/// linux/socket.h (Linux 6.5).
const SCM_PIDFD: c_int = 4;
/// linux/fcntl.h (Linux 6.10).
const F_DUPFD_QUERY: c_int = 1027;
/// linux/kcmp.h: kcmp(2) compares open files.
const KCMP_FILE: c_long = 0;

/// The most descriptors that one message can carry (SCM_MAX_FD, unix(7)).
pub const MOST_DESCRIPTORS: usize = 253;

/// Room for the credentials, one pidfd and as many descriptors as there can be, in words, so that it
/// is aligned as cmsg(3) wants it. Each of the three has a header and is padded to a word.
const CONTROL_WORDS: usize =
    (3 * (size_of::<libc::cmsghdr>() + 8) + size_of::<libc::ucred>() + 4 * (MOST_DESCRIPTORS + 1))
        .div_ceil(8);

/// Room for the credentials alone: descriptors come next, and the pidfd last.
const CONTROL_WITHOUT: usize =
    size_of::<libc::cmsghdr>() + size_of::<libc::ucred>().next_multiple_of(size_of::<usize>());

/// The sender of a message, as the kernel vouches for it (SCM_CREDENTIALS, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// The process; 0 for one that has no number here (another pid namespace).
    pub pid: i32,
    /// The user of the sender.
    pub uid: u32,
}

/// Who a message or a connection is from.
#[derive(Debug, Default)]
pub struct PeerProcess {
    /// The sender.
    pub sender: Option<Sender>,
    /// Pins the sender's number (Linux 6.5).
    pub pidfd: Option<OwnedFd>,
    /// Whether the kernel could give no pidfd although it knows them: the sender is gone and reaped.
    pub is_gone: bool,
}

/// A message.
#[derive(Debug)]
pub struct Datagram {
    /// The length of the message in the buffer.
    pub length: usize,
    /// Who it is from.
    pub from: PeerProcess,
    /// The descriptors that came with it, CLOEXEC.
    pub descriptors: Vec<SharedFd>,
    /// Whether a part of it is lost: it was longer than the buffer, or no numbers were free for its
    /// descriptors.
    pub is_truncated: bool,
}

/// Asks for the credentials of every sender, and for its pidfd where the kernel has that (Linux 6.5).
///
/// # Errors
///
/// The errors of setsockopt(2), but not for the pidfd.
pub fn ask_for_senders(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    let _before_linux_6_5 = sockopt::set_int(socket, libc::SOL_SOCKET, SO_PASSPIDFD, 1);
    sockopt::set_int(socket, libc::SOL_SOCKET, libc::SO_PASSCRED, 1)
}

/// The next message; never waits. Once what came with it is dropped, [`super::close_foreign`] has to
/// be called before anything else is opened or started. Without room for descriptors the kernel drops
/// them, without asking the servers of files.
///
/// # Errors
///
/// The errors of recvmsg(2); EAGAIN: there is none.
pub fn receive_datagram(
    socket: impl AsFd,
    buffer: &mut [u8],
    takes_descriptors: bool,
) -> io::Result<Datagram> {
    let mut control = [MaybeUninit::<u64>::uninit(); CONTROL_WORDS];
    let mut piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast::<c_void>(),
        iov_len: buffer.len(),
    };
    // SAFETY: all zero is a message without a name or anything else.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast::<c_void>();
    // The type differs between C libraries.
    header.msg_controllen = match takes_descriptors {
        true => size_of_val(&control),
        false => CONTROL_WITHOUT,
    } as _;
    let cut = match takes_descriptors {
        true => libc::MSG_TRUNC | libc::MSG_CTRUNC,
        // The pidfd at least has no room.
        false => libc::MSG_TRUNC,
    };
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the descriptor is borrowed and open; the header points to locals that outlive the call,
    // with their lengths.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut datagram = Datagram {
        length,
        from: PeerProcess::default(),
        descriptors: Vec::new(),
        is_truncated: header.msg_flags & cut != 0,
    };
    // SAFETY: the kernel has just filled `header` and what it points to.
    unsafe { take_control(&header, &mut datagram) };
    Ok(datagram)
}

/// Bytes of a connection; never waits. Descriptors that come with them are closed apart
/// ([`SharedFd`]): recv(2) would have the kernel close them in here.
///
/// # Errors
///
/// The errors of recvmsg(2); EAGAIN: there are none yet.
pub fn receive_bytes(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let received = receive_datagram(socket, buffer, true).map(|received| received.length);
    super::close_foreign();
    received
}

/// Has the kernel refuse descriptors (SCM_RIGHTS) that are sent to a socket, or to a connection that
/// comes to it from now on: EPERM for the sender. From Linux 6.16 on; before, and of what is no unix
/// socket, this does nothing.
pub fn refuse_descriptors(socket: impl AsFd) {
    take_descriptors(socket, false);
}

/// Sets whether a socket accepts descriptors from senders; see [`refuse_descriptors`].
pub fn take_descriptors(socket: impl AsFd, wanted: bool) {
    let value = c_int::from(wanted);
    let _before_linux_6_16 = sockopt::set_int(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, value);
}

/// Takes over what came beside the bytes.
///
/// # Safety
///
/// `header` is as recvmsg(2) left it, its buffers are alive, and nobody else takes the descriptors.
unsafe fn take_control(header: &libc::msghdr, datagram: &mut Datagram) {
    // SAFETY: cmsg(3): the macros stay inside the control buffer; the kernel wrote whole entries.
    // Each descriptor is new and nobody else's. Reads are unaligned, since the data may be.
    unsafe {
        let mut entry = libc::CMSG_FIRSTHDR(header);
        while let Some(cmsg) = entry.as_ref() {
            let data = libc::CMSG_DATA(entry);
            // The type of the member differs between C libraries.
            #[allow(clippy::unnecessary_cast)]
            let length = (cmsg.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            if cmsg.cmsg_level == libc::SOL_SOCKET {
                match cmsg.cmsg_type {
                    libc::SCM_RIGHTS => {
                        for index in 0..length / size_of::<RawFd>() {
                            let fd = data.cast::<RawFd>().add(index).read_unaligned();
                            let fd = OwnedFd::from_raw_fd(fd);
                            datagram.descriptors.push(SharedFd::foreign(fd));
                        }
                    }
                    libc::SCM_CREDENTIALS if length >= size_of::<libc::ucred>() => {
                        let from = data.cast::<libc::ucred>().read_unaligned();
                        datagram.from.sender = Some(Sender {
                            pid: from.pid,
                            uid: from.uid,
                        });
                    }
                    SCM_PIDFD if length >= size_of::<RawFd>() => {
                        // Instead of the descriptor it may be an error.
                        match data.cast::<RawFd>().read_unaligned() {
                            fd if fd >= 0 => datagram.from.pidfd = Some(OwnedFd::from_raw_fd(fd)),
                            error => datagram.from.is_gone = error == -libc::ESRCH,
                        }
                    }
                    _ => {}
                }
            }
            entry = libc::CMSG_NXTHDR(header, entry);
        }
    }
}

/// Whether two descriptors are the same open file: not only the same file, but duplicates of each
/// other (F_DUPFD_QUERY of Linux 6.10, or kcmp(2), which not every kernel has). Where nobody knows,
/// they count as different.
pub fn is_same_open_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    // SAFETY: both descriptors are borrowed and open, and the call changes nothing.
    match unsafe { libc::fcntl(one.as_raw_fd(), F_DUPFD_QUERY, other.as_raw_fd()) } {
        0 => false,
        1 => true,
        _ => order_of_open_files(one, other) == Some(Ordering::Equal),
    }
}

/// An order of open files, in which duplicates of each other are equal (kcmp(2)). It means nothing, and stays
/// the same as long as both are open. `None` where the kernel does not tell.
pub fn order_of_open_files(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Option<Ordering> {
    let (one, other) = (one.as_raw_fd(), other.as_raw_fd());
    let (one, other) = (c_long::from(one), c_long::from(other));
    // SAFETY: both descriptors are borrowed and open, and neither call changes anything.
    let order = unsafe {
        let own = libc::getpid();
        libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one, other)
    };
    match order {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::cmsg_space;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::fs::File;
    use std::io::{IoSlice, Read, Write};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn send(socket: &UnixDatagram, text: &[u8], fds: &[RawFd]) {
        let _room = cmsg_space!([RawFd; 2]);
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights };
        let data = [IoSlice::new(text)];
        sendmsg::<()>(socket.as_raw_fd(), &data, control, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn a_message_comes_with_its_sender_and_its_descriptors() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ask_for_senders(&ours).unwrap();
        let (one, two) = (File::open("/dev/null").unwrap(), File::open("/").unwrap());
        send(&theirs, b"READY=1", &[one.as_raw_fd(), two.as_raw_fd()]);
        let mut buffer = [0; 16];
        let datagram = receive_datagram(&ours, &mut buffer, true).unwrap();
        assert_eq!(&buffer[..datagram.length], b"READY=1");
        assert!(!datagram.is_truncated);
        assert_eq!(
            datagram.from.sender.map(|sender| sender.pid),
            Some(std::process::id() as i32)
        );
        assert!(!datagram.from.is_gone);
        let same = |at: usize, file: &File| {
            is_same_open_file(datagram.descriptors[at].as_fd(), file.as_fd())
        };
        assert_eq!(datagram.descriptors.len(), 2);
        assert!(same(0, &one) && same(1, &two) && !same(0, &two));
        // The same file, opened again, is another open file.
        assert!(!same(0, &File::open("/dev/null").unwrap()));
        let none = receive_datagram(&ours, &mut buffer, true).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_does_not_fit_is_called_truncated_and_keeps_no_descriptor_open() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        send(&theirs, b"0123456789", &[file.as_raw_fd()]);
        let datagram = receive_datagram(&ours, &mut [0; 4], true).unwrap();
        assert!(datagram.is_truncated);
        assert_eq!(datagram.length, 4);
        assert_eq!(datagram.descriptors.len(), 1, "it is there to be closed");
    }

    #[test]
    fn without_room_the_sender_is_known_and_no_descriptor_comes() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ask_for_senders(&ours).unwrap();
        let file = File::open("/dev/null").unwrap();
        send(&theirs, b"READY=1", &[file.as_raw_fd(); 3]);
        let datagram = receive_datagram(&ours, &mut [0; 16], false).unwrap();
        assert!(datagram.from.sender.is_some() && !datagram.is_truncated);
        assert!(datagram.descriptors.is_empty() && datagram.from.pidfd.is_none());
    }

    #[test]
    fn descriptors_that_come_with_bytes_are_not_kept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (kept, file) = UnixStream::pair().unwrap();
        let rights = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        let data = [IoSlice::new(b"call")];
        let none = MsgFlags::empty();
        sendmsg::<()>(theirs.as_raw_fd(), &data, &rights, none, None).unwrap();
        drop(file);
        let mut buffer = [0; 16];
        assert_eq!(receive_bytes(&ours, &mut buffer).unwrap(), 4);
        // Nobody has its other end any more.
        kept.set_read_timeout(Some(std::time::Duration::from_secs(60)))
            .unwrap();
        assert_eq!((&kept).read(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn a_socket_that_takes_no_descriptors_still_takes_bytes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        refuse_descriptors(&ours);
        let rights = [theirs.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        let data = [IoSlice::new(b"call")];
        let none = MsgFlags::empty();
        match sendmsg::<()>(theirs.as_raw_fd(), &data, &rights, none, None) {
            Err(errno) => assert_eq!(errno, nix::errno::Errno::EPERM),
            // Linux before 6.16.
            Ok(_) => drop(receive_bytes(&ours, &mut [0; 16])),
        }
        (&theirs).write_all(b"bytes").unwrap();
        assert_eq!(receive_bytes(&ours, &mut [0; 16]).unwrap(), 5);
    }

    #[test]
    fn open_files_have_an_order_in_which_duplicates_are_equal() {
        let (one, two) = (File::open("/").unwrap(), File::open("/").unwrap());
        let order = |one: &File, other: &File| order_of_open_files(one.as_fd(), other.as_fd());
        let Some(between) = order(&one, &two) else {
            return;
        };
        assert_ne!(between, Ordering::Equal);
        assert_eq!(order(&two, &one), Some(between.reverse()));
        let again = one.try_clone().unwrap();
        assert_eq!(order(&one, &again), Some(Ordering::Equal));
        assert_eq!(order(&again, &two), Some(between));
    }

    #[test]
    fn there_is_room_for_as_many_descriptors_as_can_come() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ask_for_senders(&ours).unwrap();
        let file = File::open("/dev/null").unwrap();
        send(&theirs, b"FDSTORE=1", &[file.as_raw_fd(); MOST_DESCRIPTORS]);
        let datagram = receive_datagram(&ours, &mut [0; 16], true).unwrap();
        assert!(!datagram.is_truncated);
        assert_eq!(datagram.descriptors.len(), MOST_DESCRIPTORS);
        assert!(datagram.from.sender.is_some());
    }
}
