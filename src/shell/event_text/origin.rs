//! Where signals come from.

use crate::config::signal_name;
use crate::shell::signals::Arrived;
use crate::sys::Origin;
use std::fs;

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
