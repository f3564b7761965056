//! Descriptors that come back from children.

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The receiving and the sending end of a socket that keeps messages apart.
///
/// # Errors
///
/// socketpair(2): no descriptors are left.
pub fn passing_pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

/// The next descriptor that a child has sent back, and what it calls it; `None` if there is none.
/// The descriptor is CLOEXEC. If no descriptor number was free it is lost, and comes as `None` with its name.
pub fn receive_descriptor(socket: &OwnedFd) -> Option<(u64, Option<OwnedFd>)> {
    let mut number = [0_u8; 8];
    let (_, descriptor) =
        receive_with_descriptor(socket, &mut number, MsgFlags::MSG_DONTWAIT).ok()?;
    Some((u64::from_ne_bytes(number), descriptor))
}

/// The next message, how long it is, and the descriptor that came with it, if any, which is CLOEXEC.
///
/// # Errors
///
/// The errors of recvmsg(2).
pub fn receive_with_descriptor(
    socket: &OwnedFd,
    bytes: &mut [u8],
    flags: MsgFlags,
) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut data = [IoSliceMut::new(bytes)];
    let mut control = nix::cmsg_space!(RawFd);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut control), flags)?;
    // It answers with an error when some were lost (MSG_CTRUNC, recvmsg(2)).
    let descriptor = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| match one {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        })
    });
    // SAFETY: the kernel has just made this descriptor for the message; nobody else knows of it,
    // and there is room for one only.
    let descriptor = descriptor.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) });
    Ok((message.bytes, descriptor))
}
