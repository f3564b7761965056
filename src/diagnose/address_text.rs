//! An address, with what it is where that does not go without saying.

use crate::config::{Endpoint, Transport};

/// `127.0.0.1:80`, `udp 127.0.0.1:53`, `FIFO /run/in`.
pub(super) fn address_text(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Inet { transport, .. } => match transport {
            Transport::Tcp => endpoint.to_string(),
            Transport::Udp => format!("udp {endpoint}"),
            Transport::Mptcp => format!("mptcp {endpoint}"),
            Transport::Sctp => format!("sctp {endpoint}"),
            Transport::UdpLite => format!("udplite {endpoint}"),
        },
        Endpoint::Fifo { .. } => format!("FIFO {endpoint}"),
        Endpoint::MessageQueue { .. } => format!("message queue {endpoint}"),
        Endpoint::Netlink { .. } => format!("netlink {endpoint}"),
        Endpoint::Unix { .. } | Endpoint::Special { .. } | Endpoint::Vsock { .. } => {
            endpoint.to_string()
        }
    }
}
