//! Why a socket option could not be set, or is not what was asked for; and the same for message
//! queues and namespaces.

use super::machine::Machine;
use crate::config::options::{OPTIONS, OptionSpec, OptionValue};
use crate::config::{Endpoint, SocketKind};
use crate::plan::ListenerPlan;
use crate::report::{Kind, Place, Problem, did_you_mean};
use nix::errno::Errno;
use std::path::Path;

/// The key of an option of which this is the kernel's name.
pub(super) fn key(call: &str) -> &str {
    spec_of(call).map_or(call, |spec| spec.key)
}

/// Adds why the kernel refused the option, and what to do. `call` is the kernel's name for it or
/// its key.
pub(super) fn explain(
    problem: Problem,
    call: &str,
    errno: Errno,
    listener: &ListenerPlan,
    machine: &Machine,
) -> Problem {
    let spec = spec_of(call);
    let name = spec.map_or(call, |spec| spec.key);
    let of_spec = |spec: &OptionSpec| {
        let setting = listener
            .settings
            .options
            .iter()
            .find(|set| set.spec.key == spec.key);
        setting.map(|set| set.value.clone())
    };
    let text = match spec.and_then(of_spec) {
        Some(OptionValue::Text(text)) => text,
        _ => String::new(),
    };
    match errno {
        Errno::EPERM | Errno::EACCES => forbidden(problem, call, name, machine),
        Errno::ENOPROTOOPT | Errno::EOPNOTSUPP => {
            let since = spec.map_or_else(String::new, |spec| format!(" (since {})", spec.since));
            let release = &machine.kernel().release;
            let mut sockets = listener.sockets.iter();
            if sockets.any(|socket| socket.endpoint.kind() == SocketKind::Mptcp) {
                return problem
                    .with_cause(format!(
                        "the kernel ({release}) has no {call} for MPTCP sockets"
                    ))
                    .with_hint(format!(
                        "leave out `{name}:`, or write the address with tcp://, where the kernel \
                         has it"
                    ));
            }
            problem
                .with_cause(format!(
                    "the kernel ({release}) lacks {call}{since}, or does not have it for this kind \
                     of socket",
                ))
                .with_hint(format!("leave out `{name}:`, or use a newer kernel"))
        }
        Errno::ENODEV => {
            let mut names: Vec<&str> = Vec::new();
            for interface in machine.interfaces() {
                if !names.contains(&interface.name.as_str()) {
                    names.push(&interface.name);
                }
            }
            problem
                .with_cause(format!(
                    "{} has the interfaces {}",
                    machine.place(),
                    names.join(", ")
                ))
                .with_hint(
                    did_you_mean(&text, names.iter().copied())
                        .unwrap_or_else(|| "correct the interface's name".to_owned()),
                )
        }
        Errno::ENOENT if call == "TCP_CONGESTION" || name == "tcp_congestion" => {
            congestion(problem, &text)
        }
        Errno::EINVAL => problem.with_hint(match netlink_group(call, listener) {
            Some(group) => format!(
                "this family has no group of that number; a bit mask of groups, as systemd has it, \
                 is written in hexadecimal: {group:#x}"
            ),
            None => format!(
                "the kernel does not accept this value of `{name}:`; it may depend on the machine's \
                 settings (ip(7), socket(7), tcp(7))"
            ),
        }),
        _ => problem,
    }
}

fn spec_of(call: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| {
        spec.key == call || spec.call == call || spec.call.split(", ").any(|one| one == call)
    })
}

/// Explains a missing privilege by the capability that the option needs (capabilities(7)).
fn forbidden(problem: Problem, call: &str, name: &str, machine: &Machine) -> Problem {
    let has = |what: &str| call.split(", ").any(|one| one == what) || name == what;
    let capability = if has("SO_MARK") || has("mark") {
        "CAP_NET_ADMIN (or CAP_NET_RAW since Linux 5.17)"
    } else if has("IP_TRANSPARENT") || has("IPV6_TRANSPARENT") {
        "CAP_NET_ADMIN or CAP_NET_RAW"
    } else if has("SO_PRIORITY") {
        "CAP_NET_ADMIN for priorities above 6"
    } else if has("SO_BINDTODEVICE") {
        "CAP_NET_RAW before Linux 5.7"
    } else if has("TCP_CONGESTION") {
        "CAP_NET_ADMIN for algorithms that are not in net.ipv4.tcp_allowed_congestion_control"
    } else if has("F_SETPIPE_SZ") {
        "CAP_SYS_RESOURCE for more than fs.pipe-max-size"
    } else {
        "CAP_NET_ADMIN"
    };
    let first = capability.split(' ').next().unwrap_or(capability);
    problem
        .with_cause(format!(
            "`{name}:` needs {capability}, which user {} does not have here",
            machine.user(machine.process().uid)
        ))
        .with_hint(format!(
            "AmbientCapabilities={first} in the systemd unit of listend, or leave out `{name}:`"
        ))
}

fn congestion(problem: Problem, asked: &str) -> Problem {
    let path = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let known: Vec<&str> = text.split_whitespace().collect();
    problem
        .with_cause(format!("available are: {}", known.join(", ")))
        .with_hint(format!(
            "use one of them, or load the module: modprobe tcp_{asked}"
        ))
}

/// Advice that an option is not what was asked for, because the kernel changed it.
pub fn option_changed(
    listener: &str,
    place: Option<Place>,
    spec: &OptionSpec,
    asked: &str,
    effective: &str,
) -> Problem {
    let message = format!(
        "listener `{listener}`: `{}: {asked}` was asked for, and the kernel made it {effective}",
        spec.key
    );
    let hint = match spec.key {
        "receive_buffer" => "sysctl -w net.core.rmem_max=BYTES, or give listend CAP_NET_ADMIN",
        "send_buffer" => "sysctl -w net.core.wmem_max=BYTES, or give listend CAP_NET_ADMIN",
        "pipe_size" => {
            "the kernel rounds up to a power of two of pages; sysctl fs.pipe-max-size \
                        is the limit"
        }
        "tcp_fast_open" if effective == "0" => {
            "sysctl -w net.ipv4.tcp_fastopen=3 lets servers use it (in the network namespace of \
             the listener)"
        }
        "tcp_fast_open" => "net.core.somaxconn is the maximum; sysctl -w net.core.somaxconn=NUMBER",
        _ => "ask for a value that the kernel keeps",
    };
    let problem = Problem::new(Kind::OptionChanged, message).of_listener(listener);
    Problem { place, ..problem }
        .with_cause(match spec.key {
            "tcp_fast_open" if effective == "0" => {
                "net.ipv4.tcp_fastopen lacks 2, the bit for servers".to_owned()
            }
            _ => format!("{} was read back", spec.call),
        })
        .with_hint(hint)
}

/// Adds why the network namespace could not be entered (setns(2)), and what to do.
pub fn namespace(problem: Problem, errno: i32, path: &Path, machine: &Machine) -> Problem {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match Errno::from_raw(errno) {
        Errno::ENOENT => {
            let names = |folder: &Path| -> Vec<String> {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let mut names: Vec<String> = entries
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect();
                names.sort_unstable();
                names
            };
            let there = names(path.parent().unwrap_or(path));
            let cause = match there.len() {
                0 => format!("there is no namespace at {}", path.display()),
                _ => format!("the namespaces there are: {}", there.join(", ")),
            };
            problem.with_cause(cause).with_hint(
                crate::report::nearest(&name, there.iter().map(String::as_str))
                    .map(|near| format!("did you mean `{near}`?"))
                    .unwrap_or_else(|| format!("create it: ip netns add {name}")),
            )
        }
        Errno::EPERM | Errno::EACCES => problem
            .with_cause(format!(
                "entering a network namespace needs CAP_SYS_ADMIN, which user {} does not have \
                 here",
                machine.user(machine.process().uid)
            ))
            .with_hint("run listend as root, or start it in the namespace: ip netns exec"),
        Errno::EINVAL => problem
            .with_cause(format!("{} is not a network namespace", path.display()))
            .with_hint(
                "after `ip netns add` it is a file under /run/netns; of a process it is \
                 /proc/PID/ns/net",
            ),
        _ => problem,
    }
}

/// The group that could not be joined, if `call` is that.
fn netlink_group(call: &str, listener: &ListenerPlan) -> Option<u32> {
    let mut endpoints = listener.sockets.iter().map(|socket| &socket.endpoint);
    endpoints.find_map(|endpoint| match endpoint {
        Endpoint::Netlink { group, .. } if call == "NETLINK_ADD_MEMBERSHIP" => Some(*group),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::{OptionSetting, by_key};
    use crate::diagnose::{Interface, Process, Settings};
    use crate::plan::Access;

    fn machine() -> Machine {
        let interface = |name: &str| Interface {
            name: name.to_owned(),
            address: "192.0.2.7".parse().unwrap(),
            prefix: 24,
        };
        let process = Process {
            uid: 65534,
            may_bind_low_ports: false,
        };
        Machine::with(
            Settings::default(),
            vec![interface("eth0"), interface("wlan0")],
            process,
        )
    }

    fn listener(key: &str, value: OptionValue) -> ListenerPlan {
        let access = Access::PRIVATE;
        let spec = by_key(key).unwrap();
        let mut listener = ListenerPlan::new("web".to_owned(), Vec::new(), 1, access);
        listener.settings_mut().options = vec![OptionSetting { spec, value }];
        listener
    }

    fn said(call: &str, errno: Errno, listener: &ListenerPlan) -> (String, String) {
        let problem = Problem::new(Kind::Errno(errno as i32), "x");
        let problem = explain(problem, call, errno, listener, &machine());
        (problem.causes.join("; "), problem.hint.unwrap())
    }

    #[test]
    fn the_capability_is_named() {
        let plan = listener("mark", OptionValue::Number(1));
        for (call, capability) in [
            ("SO_MARK", "CAP_NET_ADMIN"),
            ("IPV6_TRANSPARENT", "CAP_NET_ADMIN or CAP_NET_RAW"),
            ("SO_BINDTODEVICE", "CAP_NET_RAW"),
            ("F_SETPIPE_SZ", "CAP_SYS_RESOURCE"),
        ] {
            let (cause, hint) = said(call, Errno::EPERM, &plan);
            assert!(cause.contains(capability), "{cause}");
            assert!(hint.contains("AmbientCapabilities=CAP_"), "{hint}");
        }
    }

    #[test]
    fn what_the_machine_has_is_listed() {
        let plan = listener("bind_to_device", OptionValue::Text("eth1".to_owned()));
        let (cause, hint) = said("SO_BINDTODEVICE", Errno::ENODEV, &plan);
        assert!(cause.contains("eth0, wlan0"), "{cause}");
        assert_eq!(hint, "did you mean `eth0`?");
        let (cause, _) = said("SO_PASSPIDFD", Errno::ENOPROTOOPT, &plan);
        assert!(cause.contains("SO_PASSPIDFD (since 6.5)"), "{cause}");
    }

    #[test]
    fn a_changed_option_is_advice() {
        let spec = by_key("receive_buffer").unwrap();
        let problem = option_changed("web", None, spec, "16M", "425984");
        assert!(!problem.is_error());
        assert!(problem.message.contains("425984"), "{}", problem.message);
        assert!(problem.hint.unwrap().contains("rmem_max"));
    }

    #[test]
    fn a_namespace_that_is_not_there_is_told_from_one_that_may_not_be_entered() {
        let problem = || Problem::new(Kind::Errno(1), "x");
        let path = Path::new("/nonexistent/netns/blue");
        let hint = |errno: Errno| {
            namespace(problem(), errno as i32, path, &machine())
                .hint
                .unwrap()
        };
        assert!(hint(Errno::ENOENT).contains("ip netns add blue"));
        assert!(hint(Errno::EPERM).contains("root"));
        assert!(hint(Errno::EINVAL).contains("/run/netns"));
    }
}
