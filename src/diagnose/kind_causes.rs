//! Why a message queue, a special file or a vsock could not be opened.

use super::machine::Machine;
use crate::plan::ListenerPlan;
use crate::report::Problem;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use std::path::Path;

/// Adds why mq_open(3) failed, with the limits of mq_overview(7).
pub(super) fn message_queue(
    problem: Problem,
    errno: Errno,
    name: &str,
    listener: &ListenerPlan,
    machine: &Machine,
) -> Problem {
    let limit = |what: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/mqueue/{what}"));
        text.map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
    };
    let us = machine.user(machine.process().uid);
    match errno {
        Errno::EACCES => {
            let path = Path::new("/dev/mqueue").join(name.trim_start_matches('/'));
            let owner = path.symlink_metadata().map_or_else(
                |_| "the queue exists and belongs to another user".to_owned(),
                |file| format!("the queue is there already and {}", machine.owner(&file)),
            );
            problem
                .with_cause(format!("{owner}; listend runs as {us}"))
                .with_hint("choose another name, or remove the queue as its owner")
        }
        Errno::EINVAL => {
            let asked: Vec<String> = listener
                .settings
                .options
                .iter()
                .map(|set| format!("{} {:?}", set.spec.key, set.value))
                .collect();
            let asked = match asked.len() {
                0 => String::new(),
                _ => format!("; asked for: {}", asked.join(", ")),
            };
            problem
                .with_cause(format!(
                    "without CAP_SYS_RESOURCE a queue holds at most {} messages \
                     (fs.mqueue.msg_max) of {} bytes (fs.mqueue.msgsize_max){asked}",
                    limit("msg_max"),
                    limit("msgsize_max")
                ))
                .with_hint("ask for less, or raise the limit with sysctl -w")
        }
        Errno::ENOSPC => problem
            .with_cause(format!(
                "there are {} message queues already (fs.mqueue.queues_max), or memory is short",
                limit("queues_max")
            ))
            .with_hint("remove some (ls /dev/mqueue), or sysctl -w fs.mqueue.queues_max=NUMBER"),
        Errno::EMFILE => {
            let bytes = getrlimit(Resource::RLIMIT_MSGQUEUE).map_or(0, |(soft, _)| soft);
            problem
                .with_cause(format!(
                    "all message queues of user {us} together may have {bytes} bytes \
                     (RLIMIT_MSGQUEUE), or listend has too many descriptors open"
                ))
                .with_hint(
                    "LimitMSGQUEUE= in the systemd unit, or ask for fewer or smaller messages",
                )
        }
        _ => problem,
    }
}

/// Adds why a special file could not be opened.
pub(super) fn special(problem: Problem, errno: Errno, path: &Path, machine: &Machine) -> Problem {
    let shown = path.display();
    match errno {
        Errno::ENXIO | Errno::ENODEV => problem
            .with_cause(format!("there is no device behind {shown}"))
            .with_hint("load its driver, or correct the path"),
        Errno::EBUSY => problem
            .with_cause(format!("another process has {shown} open exclusively"))
            .with_hint(format!("fuser -v {shown} shows who")),
        Errno::EISDIR => problem
            .with_cause(format!("{shown} is a directory"))
            .with_hint("choose a file"),
        Errno::EACCES | Errno::EPERM if path.symlink_metadata().is_ok() => {
            let us = machine.user(machine.process().uid);
            let owner = path.metadata().map_or_else(
                |_| format!("{shown} cannot be examined"),
                |file| format!("{shown} {}", machine.owner(&file)),
            );
            problem
                .with_cause(format!("{owner}; listend runs as {us}"))
                .with_hint(
                    "run listend as a user who may open it; under systemd DeviceAllow= and \
                     PrivateDevices= decide as well",
                )
        }
        _ => problem,
    }
}

/// Adds why a vsock could not be bound to this context id.
pub(super) fn vsock_not_here(problem: Problem) -> Problem {
    problem
        .with_cause("a vsock can be bound to this machine's own context id only (vsock(7))")
        .with_hint(
            "write `vsock::PORT` for any; inside a virtual machine the module \
             vmw_vsock_virtio_transport gives it an id, on a host vhost_vsock does, and \
             vsock_loopback is for this machine alone",
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Process, Settings};
    use crate::report::Kind;

    #[test]
    fn a_special_file_has_its_own_causes() {
        let process = Process {
            uid: 65534,
            may_bind_low_ports: false,
        };
        let machine = Machine::with(Settings::default(), Vec::new(), process);
        let said = |errno: Errno, path: &str| {
            let problem = Problem::new(Kind::Errno(errno as i32), "x");
            special(problem, errno, Path::new(path), &machine)
        };
        assert!(said(Errno::EACCES, "/dev/null").causes[0].contains("0666"));
        assert!(said(Errno::ENXIO, "/dev/x").causes[0].contains("no device"));
        assert!(said(Errno::EISDIR, "/").hint.is_some());
        assert!(vsock_not_here(said(Errno::EIO, "/")).hint.is_some());
    }
}
