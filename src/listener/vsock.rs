//! Sockets between virtual machines and their host (vsock(7)).

use super::backlog::as_backlog;
use super::option::{Act, Options};
use super::outcome::{BindStep, Failure};
use super::read_back::Effective;
use crate::config::options::Phase;
use crate::config::{Endpoint, UnixKind};
use crate::plan::ListenerPlan;
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::fd::AsFd;

/// VMADDR_PORT_ANY.
pub(super) const ANY_PORT: u32 = u32::MAX;

/// socket, options, bind, listen.
pub(super) fn bind(
    endpoint: &Endpoint,
    (kind, cid, port): (UnixKind, u32, u32),
    plan: &ListenerPlan,
) -> Result<(Socket, Vec<Effective>), Failure> {
    let of_type = match kind {
        UnixKind::Stream => Type::STREAM,
        UnixKind::Datagram => Type::DGRAM,
        UnixKind::SeqPacket => Type::SEQPACKET,
    };
    let socket = Socket::new(Domain::VSOCK, of_type, None)
        .map_err(|error| Failure::new(BindStep::Socket, error))?;
    let options = Options::new(&plan.options, endpoint);
    let mut effective = Vec::new();
    options.apply(socket.as_fd(), Phase::BeforeBind, Act::Set, &mut effective)?;
    socket
        .bind(&SockAddr::vsock(cid, port))
        .map_err(|error| Failure::new(BindStep::Bind, error))?;
    options.apply(
        socket.as_fd(),
        Phase::BeforeListen,
        Act::Set,
        &mut effective,
    )?;
    if endpoint.accepts() {
        socket
            .listen(as_backlog(plan.backlog))
            .map_err(|error| Failure::new(BindStep::Listen, error))?;
    }
    Ok((socket, effective))
}
