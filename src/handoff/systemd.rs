//! The protocol of sd_listen_fds(3).

use super::dialect::{Descriptors, Dialect, FdLayout, PidfdInode};
use super::{FIRST_FD, Value};
use std::borrow::Cow;

/// The name of an accepted connection in LISTEN_FDNAMES (systemd.socket(5), FileDescriptorName=).
pub const CONNECTION: &str = "connection";

/// Listeners, then stored descriptors, from 3 on without a gap (SD_LISTEN_FDS_START); or the one
/// connection.
pub static DIALECT: Dialect = Dialect {
    keyword: "systemd",
    synonyms: &["LISTEN_FDS", "fd", "listen_fds", "sd_listen_fds"],
    first_fd: FIRST_FD,
    default_nonblocking: false,
    one_socket: false,
    layout,
};

impl Default for &'static Dialect {
    fn default() -> Self {
        &DIALECT
    }
}

fn layout(inputs: &Descriptors<'_>) -> FdLayout {
    let sockets = inputs.sockets.iter();
    let first = DIALECT.first_fd;
    let (mut passed, numbers): (Vec<(&str, i32)>, _) = match inputs.connection {
        Some(fd) => (vec![(CONNECTION, fd)], vec![first; sockets.len()]),
        None => {
            let numbers = (first..).take(sockets.len()).collect();
            (
                sockets.map(|socket| (socket.listener, socket.fd)).collect(),
                numbers,
            )
        }
    };
    // A connection is nobody's successor. LISTEN_FDS counts without a gap: stored descriptors that
    // do not fit below what is taken otherwise stay behind.
    if inputs.connection.is_none() {
        let end = first + passed.len() as i32;
        let room = inputs.below.map_or(i32::MAX, |below| below - end);
        let stored = inputs
            .stored
            .iter()
            .take(usize::try_from(room).unwrap_or(0));
        passed.extend(stored.map(|stored| (stored.name, stored.fd)));
    }
    let (names, fds): (Vec<&str>, Vec<i32>) = passed.into_iter().unzip();
    FdLayout {
        targets: (first..).take(fds.len()).collect(),
        fds,
        numbers,
        variables: variables(&names, inputs.inode),
    }
}

/// The variables for these descriptors, one name each, in their order.
///
/// No sockets, no variables: LISTEN_FDS=0 is an error to sd_listen_fds(3). There are always exactly
/// as many names as descriptors; several sockets of one listener share its name. A colon, which only
/// the names of listend's own listeners have, would make two of one. LISTEN_PIDFDID
/// comes last (see [`crate::sys::EnvSlot`]).
fn variables(names: &[&str], inode: PidfdInode) -> Vec<(Cow<'static, str>, Value)> {
    if names.is_empty() {
        return Vec::new();
    }
    let listed: Vec<String> = names.iter().map(|name| name.replace(':', ".")).collect();
    let mut variables = vec![
        ("LISTEN_FDS".into(), Value::Text(names.len().to_string())),
        ("LISTEN_FDNAMES".into(), Value::Text(listed.join(":"))),
        ("LISTEN_PID".into(), Value::OwnPid),
    ];
    if inode == PidfdInode::Tell {
        variables.push(("LISTEN_PIDFDID".into(), Value::OwnPidfdInode));
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
                ("LISTEN_FDS".into(), Value::Text("3".to_owned())),
                (
                    "LISTEN_FDNAMES".into(),
                    Value::Text("web:web:admin".to_owned())
                ),
                ("LISTEN_PID".into(), Value::OwnPid),
                ("LISTEN_PIDFDID".into(), Value::OwnPidfdInode),
            ]
        );
    }

    #[test]
    fn no_sockets_no_variables() {
        assert_eq!(variables(&[], PidfdInode::Tell), []);
    }
}
