//! Where clients and signals come from.

use super::signal_name;
use crate::connection::{End, Source};
use crate::shell::signals::Arrived;
use crate::sys::Origin;
use std::fs;

/// Where a client is, as it is shown elsewhere: `127.0.0.1:4711`, `/run/x.sock`, `@name`.
pub(in crate::shell) fn end(end: &End) -> String {
    match end {
        End::Inet(address) => address.to_string(),
        // A client chooses its own name, and may not write lines of its own here.
        End::Path(path) => {
            let path = path.to_string_lossy();
            path.replace(char::is_control, "\u{fffd}")
        }
        End::Abstract(name) => {
            let name = String::from_utf8_lossy(name);
            format!("@{}", name.replace(char::is_control, "@"))
        }
        End::Vsock { cid, port } => format!("vsock:{cid}:{port}"),
        End::Unnamed => "an unnamed client".to_owned(),
    }
}

/// What connections are counted by.
pub(super) fn source(source: Source) -> String {
    match source {
        Source::Ip(address) => address.to_string(),
        Source::User(uid) => format!("uid {uid}"),
        Source::Cid(cid) => format!("vsock cid {cid}"),
        Source::Unknown => "unnamed clients".to_owned(),
    }
}

/// `SIGTERM from pid 4711 (systemd)`.
pub(in crate::shell) fn arrival(arrived: Arrived) -> String {
    let name = signal_name(arrived.number);
    match arrived.origin {
        Origin::Kernel => format!("{name} from the terminal"),
        Origin::Process { pid: 0, uid } => format!("{name} from outside this container, uid {uid}"),
        Origin::Process { pid, uid } => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(command) => {
                let command = command.trim_end().replace(char::is_control, "?");
                format!("{name} from pid {pid} ({command}), uid {uid}")
            }
            Err(_) => format!("{name} from pid {pid}, uid {uid}"),
        },
    }
}
