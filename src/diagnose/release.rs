//! Hints for getting an address from the processes that hold it.

use super::find::Finding;
use super::machine::Machine;
use super::unit::UNIT_FOLDERS;
use crate::config::{Endpoint, SocketKind};
use crate::report::Holder;
use std::collections::BTreeSet;
use std::path::Path;

/// More holders than this are not named one by one.
const NAMED: usize = 4;

/// Programs that hold a port of the machine for a container.
const PROXIES: &[(&str, &str)] = &[
    ("docker-proxy", "docker"),
    ("rootlesskit", "docker"),
    ("rootlessport", "podman"),
    ("slirp4netns", "podman"),
    ("pasta", "podman"),
    ("conmon", "podman"),
];

/// The hint for sockets that are in the way and not listend's own.
pub(super) fn hint(finding: &Finding, endpoint: &Endpoint, machine: &Machine) -> String {
    let hint = match finding.again {
        Some(again) => again.to_owned(),
        None => stop(&finding.holders, endpoint),
    };
    if finding.only_connections {
        reserve(&hint, endpoint, machine)
    } else {
        hint
    }
}

fn stop(holders: &[Holder], endpoint: &Endpoint) -> String {
    let actions: BTreeSet<String> = holders
        .iter()
        .map(|holder| action(holder, endpoint))
        .collect();
    let actions: Vec<String> = actions.into_iter().take(NAMED).collect();
    let stop = match actions.as_slice() {
        [] => "stop the process that holds it".to_owned(),
        [one] => one.clone(),
        several => format!("stop all of them: {}", several.join("; ")),
    };
    format!("{stop}, or choose another address")
}

/// Adds to the hint how to keep outgoing connections off a port that they may get.
fn reserve(hint: &str, endpoint: &Endpoint, machine: &Machine) -> String {
    match endpoint {
        Endpoint::Inet { address, .. } if machine.settings().is_ephemeral(address.port()) => {
            format!(
                "{hint}; to keep outgoing connections off this port: {} \
                 net.ipv4.ip_local_reserved_ports={}",
                machine.sysctl(),
                machine.settings().reserved().with([address.port()])
            )
        }
        _ => hint.to_owned(),
    }
}

fn action(holder: &Holder, endpoint: &Endpoint) -> String {
    if let Some((_, engine)) = PROXIES.iter().find(|(name, _)| *name == holder.command) {
        let port = match endpoint {
            Endpoint::Inet { address, .. } => format!(" --filter publish={}", address.port()),
            _ => String::new(),
        };
        return format!(
            "stop the container that publishes it (`{engine} ps{port}` names it) or publish it \
             elsewhere"
        );
    }
    let systemctl = if holder.user_unit {
        format!("systemctl --user, as user {},", holder.user)
    } else {
        "systemctl".to_owned()
    };
    let unit = holder.unit.as_deref();
    if holder.pid == 1 || (holder.command == "systemd" && unit == Some("init.scope")) {
        // A unit of a user is not looked for: its files are in that user's folders.
        let names = if holder.user_unit {
            Vec::new()
        } else {
            socket_units(endpoint)
        };
        let what = match names.as_slice() {
            [] => format!("stop its socket unit (`{systemctl} list-sockets` names it)"),
            [name] => format!("stop its socket unit ({systemctl} stop {name})"),
            several => format!(
                "stop its socket unit ({systemctl} stop, of {})",
                several.join(", ")
            ),
        };
        return format!(
            "{what}, or make it start listend (Service=listend.service), which adopts \
                        it"
        );
    }
    match unit {
        Some(unit) if unit.contains("container ") => format!("stop that {unit}"),
        // It has other listeners, whose clients need not suffer.
        _ if holder.command == "listend" => format!(
            "remove it from the configuration of that listend (pid {}) and reload that; `listend exec` has none: end it",
            holder.pid
        ),
        Some(unit) if unit.ends_with(".service") => {
            format!("stop it ({systemctl} stop {unit})")
        }
        _ => format!("stop process {}", holder.pid),
    }
}

/// The names of the system's socket units that listen on this address, as far as their files say.
fn socket_units(endpoint: &Endpoint) -> Vec<String> {
    let mut names = BTreeSet::new();
    for folder in UNIT_FOLDERS
        .iter()
        .map(|folder| Path::new("/").join(folder))
    {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".socket") && listens_on(&entry.path(), endpoint) {
                names.insert(name);
            }
        }
    }
    names.into_iter().collect()
}

fn listens_on(unit: &Path, endpoint: &Endpoint) -> bool {
    let text = std::fs::read_to_string(unit).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .any(|(key, value)| {
            key.trim_end().starts_with("Listen") && is_address(value.trim(), endpoint)
        })
}

/// Whether an address of systemd.socket(5) is in the way of this one: roughly, since the kernel has
/// said already that something is.
fn is_address(text: &str, endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Inet { address, .. } => {
            let port = address.port().to_string();
            text == port || text.rsplit_once(':').is_some_and(|(_, end)| end == port)
        }
        _ if endpoint.kind() == SocketKind::Netlink => false,
        _ => {
            let own = endpoint.to_string();
            own.strip_prefix("unix:").unwrap_or(&own) == text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transport;

    fn tcp(port: u16) -> Endpoint {
        Endpoint::Inet {
            transport: Transport::Tcp,
            address: ([127, 0, 0, 1], port).into(),
            v6_only: true,
            optional: false,
            scope: None,
        }
    }

    fn holder(pid: i32, command: &str, unit: Option<&str>, user_unit: bool) -> Holder {
        Holder {
            pid,
            command: command.to_owned(),
            user: "alice".to_owned(),
            unit: unit.map(str::to_owned),
            user_unit,
        }
    }

    #[test]
    fn nobody_is_told_to_stop_what_other_things_depend_on() {
        let of = |holder: &Holder| action(holder, &tcp(8080));
        // No unit of this machine listens there.
        let systemd = action(&holder(1, "systemd", Some("init.scope"), false), &tcp(0));
        assert!(systemd.contains("list-sockets"), "{systemd}");
        assert!(!systemd.contains("process 1"), "{systemd}");
        let proxy = of(&holder(7, "docker-proxy", Some("docker.service"), false));
        assert!(proxy.contains("docker ps --filter publish=8080"), "{proxy}");
        assert!(!proxy.contains("docker.service"), "{proxy}");
        let listend = of(&holder(7, "listend", Some("listend.service"), false));
        assert!(listend.contains("(pid 7) and reload"), "{listend}");
        assert!(!listend.contains("stop"), "{listend}");
        assert_eq!(
            of(&holder(7, "node", Some("app.service"), true)),
            "stop it (systemctl --user, as user alice, stop app.service)"
        );
        assert_eq!(
            of(&holder(7, "node", Some("app.service"), false)),
            "stop it (systemctl stop app.service)"
        );
        assert_eq!(
            of(&holder(7, "node", Some("session-2.scope"), false)),
            "stop process 7"
        );
    }

    #[test]
    fn a_socket_unit_is_known_by_its_port_or_path() {
        for (text, is_it) in [
            ("8080", true),
            ("127.0.0.1:8080", true),
            ("[::]:8080", true),
            ("18080", false),
            ("127.0.0.1:80", false),
        ] {
            assert_eq!(is_address(text, &tcp(8080)), is_it, "{text}");
        }
    }

    #[test]
    fn each_of_several_holders_is_named() {
        let finding = Finding {
            holders: vec![
                holder(7, "a", Some("a.service"), false),
                holder(8, "b", None, false),
            ],
            ..Finding::default()
        };
        assert_eq!(
            hint(&finding, &tcp(8080), &Machine::new()),
            "stop all of them: stop it (systemctl stop a.service); stop process 8, or choose \
             another address"
        );
    }
}
