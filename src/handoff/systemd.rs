//! The protocol of sd_listen_fds(3).

use super::dialect::{Dialect, Passed, PidfdInode, Variable, any};
use super::{FIRST_FD, Value};

/// Listeners, then stored descriptors, from 3 on without a gap (SD_LISTEN_FDS_START); or the one
/// connection.
pub static DIALECT: Dialect = Dialect {
    keyword: "systemd",
    synonyms: &["LISTEN_FDS", "fd", "listen_fds", "sd_listen_fds"],
    first_fd: FIRST_FD,
    default_nonblocking: false,
    connections: true,
    stores: true,
    acknowledges: false,
    combines: true,
    check: any,
    variables,
};

/// The variables for these descriptors, one name each, in their order.
///
/// No sockets, no variables: LISTEN_FDS=0 is an error to sd_listen_fds(3). There are always exactly
/// as many names as descriptors; several sockets of one listener share its name. A colon, which only
/// the names of listend's own listeners have, would make two of one. LISTEN_PIDFDID
/// comes last (see [`crate::sys::EnvSlot`]).
fn variables(passed: &Passed<'_>) -> Vec<Variable> {
    let names = passed.names;
    if names.is_empty() {
        return Vec::new();
    }
    let listed: Vec<String> = names.iter().map(|name| name.replace(':', ".")).collect();
    let mut variables = vec![
        ("LISTEN_FDS".into(), Value::Text(names.len().to_string())),
        ("LISTEN_FDNAMES".into(), Value::Text(listed.join(":"))),
    ];
    if !passed.to.listen_pid {
        return variables;
    }
    variables.push(("LISTEN_PID".into(), Value::OwnPid));
    if passed.to.inode == PidfdInode::Tell {
        variables.push(("LISTEN_PIDFDID".into(), Value::OwnPidfdInode));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::super::dialect::Recipient;
    use super::*;

    fn of(names: &[&str], listen_pid: bool) -> Vec<Variable> {
        let to = Recipient {
            instance: 0,
            generation: 1,
            listend: 7,
            listen_pid,
            inode: PidfdInode::Tell,
            acknowledge_at: None,
        };
        variables(&Passed {
            sockets: &[],
            names,
            to,
        })
    }

    #[test]
    fn names_are_as_many_as_descriptors_and_repeat_for_one_listener() {
        let text = |text: &str| Value::Text(text.to_owned());
        let expected = [
            ("LISTEN_FDS".into(), text("3")),
            ("LISTEN_FDNAMES".into(), text("web:web:admin")),
            ("LISTEN_PID".into(), Value::OwnPid),
            ("LISTEN_PIDFDID".into(), Value::OwnPidfdInode),
        ];
        assert_eq!(of(&["web", "web", "admin"], true), expected);
        assert_eq!(of(&["web", "web", "admin"], false), expected[..2]);
    }

    #[test]
    fn no_sockets_no_variables() {
        assert_eq!(of(&[], true), []);
    }
}
