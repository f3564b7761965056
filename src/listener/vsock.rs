//! Sockets between virtual machines and their host (vsock(7)).

use super::bind_error::{BindStep, Failure};
use super::inet::bind_and_listen;
use super::read_back::Effective;
use crate::config::{Endpoint, UnixKind};
use crate::plan::ListenerPlan;
use socket2::{Domain, SockAddr, Socket, Type};

/// VMADDR_PORT_ANY: a port of the kernel's choice.
pub(super) const ANY_PORT: u32 = u32::MAX;

/// socket, options, bind, listen.
pub(super) fn bind(
    endpoint: &Endpoint,
    (kind, cid, port): (UnixKind, u32, u32),
    listener: &ListenerPlan,
) -> Result<(Socket, Vec<Effective>), Failure> {
    let of_type = match kind {
        UnixKind::Stream => Type::STREAM,
        UnixKind::Datagram => Type::DGRAM,
        UnixKind::SeqPacket => Type::SEQPACKET,
    };
    let socket = Socket::new(Domain::VSOCK, of_type, None)
        .map_err(|error| Failure::new(BindStep::Socket, error))?;
    let address = SockAddr::vsock(cid, port);
    let effective = bind_and_listen(&socket, &address, endpoint, listener)?;
    Ok((socket, effective))
}
