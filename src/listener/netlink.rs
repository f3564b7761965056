//! Netlink sockets: messages from the kernel (netlink(7)).

use super::bind_error::{BindStep, Failure};
use super::option::{Act, Options};
use super::read_back::Effective;
use crate::config::Endpoint;
use crate::config::options::Phase;
use crate::plan::ListenerPlan;
use crate::sys::sockopt;
use nix::libc;
use nix::sys::socket::{NetlinkAddr, bind as bind_address};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::{AsFd, AsRawFd};

/// So many groups have a bit in the address.
const GROUPS_IN_ADDRESS: u32 = 32;

/// socket, options, bind. Buffers are set before the bind, because messages come from then on.
pub(super) fn bind(
    endpoint: &Endpoint,
    protocol: i32,
    (group, mask): (u32, u32),
    listener: &ListenerPlan,
) -> Result<(Socket, Vec<Effective>), Failure> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(protocol)),
    )
    .map_err(|error| Failure::new(BindStep::Socket, error))?;
    let options = Options::new(&listener.settings.options, endpoint);
    let mut effective = Vec::new();
    for phase in [Phase::BeforeBind, Phase::BeforeListen] {
        options.apply(socket.as_fd(), phase, Act::Set, &mut effective)?;
    }
    // The kernel chooses the port id: the first socket of a process gets its pid.
    bind_address(socket.as_raw_fd(), &NetlinkAddr::new(0, bits(group, mask)))
        .map_err(|errno| Failure::new(BindStep::Bind, errno))?;
    if group > GROUPS_IN_ADDRESS {
        let name = libc::NETLINK_ADD_MEMBERSHIP;
        // Group numbers are small; the kernel refuses what it does not know.
        let group = i32::try_from(group).unwrap_or(i32::MAX);
        sockopt::set_int(&socket, libc::SOL_NETLINK, name, group)
            .map_err(|error| Failure::new(BindStep::SetOption("NETLINK_ADD_MEMBERSHIP"), error))?;
    }
    Ok((socket, effective))
}

/// The groups that are part of the address: the bits, or the one of a group that has one.
pub(super) fn bits(group: u32, mask: u32) -> u32 {
    match group {
        1..=GROUPS_IN_ADDRESS => mask | 1 << (group - 1),
        _ => mask,
    }
}
