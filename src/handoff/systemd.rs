//! The protocol of sd_listen_fds(3).

use super::Value;

/// The name of an accepted connection in LISTEN_FDNAMES (systemd.socket(5), FileDescriptorName=).
pub const CONNECTION: &str = "connection";

/// Whether to tell the inode of the worker's pidfd (systemd 259; kernel 6.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PidfdInode {
    /// LISTEN_PIDFDID is set.
    Tell,
    /// It is left out; libsystemd then checks LISTEN_PID alone.
    Leave,
}

/// The variables for these descriptors, one name each, in their order.
///
/// No sockets, no variables: LISTEN_FDS=0 is an error to sd_listen_fds(3). There are always exactly
/// as many names as descriptors; several sockets of one listener share its name. LISTEN_PIDFDID
/// comes last (see [`crate::sys::EnvSlot`]).
pub fn variables(names: &[&str], inode: PidfdInode) -> Vec<(&'static str, Value)> {
    if names.is_empty() {
        return Vec::new();
    }
    let mut variables = vec![
        ("LISTEN_FDS", Value::Text(names.len().to_string())),
        ("LISTEN_FDNAMES", Value::Text(names.join(":"))),
        ("LISTEN_PID", Value::OwnPid),
    ];
    if inode == PidfdInode::Tell {
        variables.push(("LISTEN_PIDFDID", Value::OwnPidfdInode));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_many_as_descriptors_and_repeat_for_one_listener() {
        let names = ["web", "web", "admin"];
        let variables = variables(&names, PidfdInode::Tell);
        assert_eq!(
            variables,
            [
                ("LISTEN_FDS", Value::Text("3".to_owned())),
                ("LISTEN_FDNAMES", Value::Text("web:web:admin".to_owned())),
                ("LISTEN_PID", Value::OwnPid),
                ("LISTEN_PIDFDID", Value::OwnPidfdInode),
            ]
        );
    }

    #[test]
    fn no_sockets_no_variables() {
        assert_eq!(variables(&[], PidfdInode::Tell), []);
    }
}
