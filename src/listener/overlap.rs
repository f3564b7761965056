//! Binding a socket beside one that goes away, though the kernel would not let both stand.
//!
//! `0.0.0.0:80` and `127.0.0.1:80` cannot both be bound, so that a change from one to the other
//! seems to need a moment with neither. But the kernel lets sockets of one user overlap if all have
//! SO_REUSEPORT, and looks at that flag of live sockets at the moment of bind(2) and listen(2)
//! (`inet_csk_bind_conflict`, `udp_lib_lport_inuse`). So it is set on the old socket for that moment
//! and cleared on both afterwards. The more specific address gets the connections; what waits in the
//! old queue stays there.
//!
//! For TCP the kernel remembers, as long as the port is in use, that it was shared: another process
//! of the same user that asks for SO_REUSEPORT could still bind the same address. A socket of the
//! other family at the same port, bound without the flag, makes it forget.

use super::bound::BoundSocket;
use super::diag::{Diag, InetBound};
use crate::config::options::{OptionSetting, OptionValue, by_key};
use crate::config::{Coverage, Endpoint, Transport};
use crate::plan::ListenerPlan;
use crate::sys::sockopt;
use nix::libc;
use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) const REUSE_PORT: &str = "reuse_port";

/// An address that belongs to the loopback and that hardly anybody listens on.
const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254));
/// The discard prefix (RFC 6666), which no machine has.
const OTHER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// Whether a socket that is none of these has the address, or one that overlaps with it, in the
/// network namespace that the process is in: it would go on having it when these have gone.
///
/// # Errors
///
/// The errors of sock_diag(7): then it is not known.
pub(super) fn is_taken_by_others(wanted: &Endpoint, ours: &[&BoundSocket]) -> io::Result<bool> {
    let Some(((transport, port), wanted)) = wanted.coverage() else {
        return Ok(false);
    };
    let protocol = protocol(transport).ok_or(io::ErrorKind::Unsupported)?;
    let mut inodes = Vec::with_capacity(ours.len());
    for socket in ours {
        // The type differs between architectures; the conversion loses nothing.
        #[allow(clippy::unnecessary_cast)]
        inodes.push(fstat(&socket.fd)?.st_ino as u64);
    }
    let there = Diag::new()?.inet_bound(protocol, port)?;
    let mut there = there.iter();
    Ok(there.any(|one| covers(one, wanted) && !inodes.contains(&one.inode)))
}

/// What sock_diag(7) calls the protocol, where it tells who is bound.
pub(super) fn protocol(transport: Transport) -> Option<libc::c_int> {
    match transport {
        Transport::Tcp | Transport::Mptcp => Some(libc::IPPROTO_TCP),
        Transport::Sctp => Some(libc::IPPROTO_SCTP),
        Transport::Udp | Transport::UdpLite => None,
    }
}

/// Whether a socket of the kernel's list overlaps with an address.
pub(super) fn covers(there: &InetBound, wanted: Coverage) -> bool {
    Coverage::of(there.ip, there.v6_only).overlaps(wanted)
}

/// The listener with SO_REUSEPORT added; `None` if it has that anyway.
pub(super) fn shared(listener: &ListenerPlan) -> Option<ListenerPlan> {
    let spec = by_key(REUSE_PORT)?;
    if reuses_port(listener) {
        return None;
    }
    let mut listener = listener.clone();
    let options = &mut listener.settings_mut().options;
    options.retain(|option| option.spec.key != REUSE_PORT);
    options.push(OptionSetting {
        spec,
        value: OptionValue::Flag(true),
    });
    Some(listener)
}

/// Whether the listener shares its addresses (`reuse_port`).
pub fn reuses_port(listener: &ListenerPlan) -> bool {
    let mut options = listener.settings.options.iter();
    options.any(|one| one.spec.key == REUSE_PORT && one.value == OptionValue::Flag(true))
}

/// Sets or clears SO_REUSEPORT on a live socket.
///
/// # Errors
///
/// The errors of setsockopt(2).
pub(super) fn set(socket: &BoundSocket, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    sockopt::set_int(&socket.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, value)
}

/// Sets or clears it as it was before it was shared for a moment, by what the configuration that bound it says.
///
/// # Errors
///
/// The errors of setsockopt(2).
pub(super) fn give_back(socket: &BoundSocket, configured: Option<&ListenerPlan>) -> io::Result<()> {
    let asks = configured.is_some_and(reuses_port) || socket.slot.get().is_some();
    set(socket, asks)
}

/// Clears it on a socket that was bound with the plan of [`shared`], and forgets that it was set.
pub(super) fn end(socket: &mut BoundSocket, listener: &ListenerPlan) -> io::Result<()> {
    set(socket, false)?;
    let asked = listener
        .settings
        .options
        .iter()
        .any(|one| one.spec.key == REUSE_PORT);
    leave_unsaid(socket);
    if asked && let Some(spec) = by_key(REUSE_PORT) {
        let is_off = super::read_back::Effective::of_number(spec, 0, Some(0));
        socket.effective.push(is_off);
    }
    Ok(())
}

/// Leaves SO_REUSEPORT out of the effective options: nobody has asked for it.
pub(super) fn leave_unsaid(socket: &mut BoundSocket) {
    socket.effective.retain(|one| one.key != REUSE_PORT);
}

/// Has the kernel forget that a TCP port was shared. Where another listener has the port on all
/// addresses of the other family, it cannot, and only the same user could make use of it. In the
/// network namespace of the socket.
pub(super) fn forget(socket: &BoundSocket) {
    let Endpoint::Inet { address, .. } = &socket.address else {
        return;
    };
    if !socket.address.accepts() {
        return;
    }
    let ip = if address.is_ipv4() {
        OTHER_V6
    } else {
        OTHER_V4
    };
    let _best_effort = bind_and_close(SocketAddr::new(ip, address.port()));
}

fn bind_and_close(address: SocketAddr) -> io::Result<()> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&address.into())
}

/// Frees the port of a listener without closing it, which would not free it while a worker has it.
/// Who waits in its queue is lost. [`super::repair::listen_again`] takes it back.
///
/// # Errors
///
/// The errors of shutdown(2).
pub(super) fn stop_listening(socket: &BoundSocket) -> io::Result<()> {
    SockRef::from(&socket.fd).shutdown(std::net::Shutdown::Both)
}
