//! The facts about a process: command, user, unit or container, start time.

use crate::report::Holder;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A process, and the one it comes from.
#[derive(Debug, Clone)]
pub(super) struct ProcessInfo {
    pub(super) holder: Holder,
    /// The start time and age of the process; `None` where they cannot be read.
    pub(super) started: Option<Started>,
    pub(super) parent: i32,
}

/// The start of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Started {
    /// Seconds since 1970.
    pub(super) at: u64,
    /// Seconds until now.
    pub(super) ago: u64,
}

impl Started {
    /// The start from the ticks since boot of proc_pid_stat(5), by the clocks of the kernel, so that
    /// the time of day is not read.
    fn from_ticks(ticks: u64) -> Option<Started> {
        use procfs::Current;
        let since_boot = ticks.checked_div(procfs::ticks_per_second())?;
        // Seconds of a machine that has been up for less than ages.
        let up = procfs::Uptime::current().ok()?.uptime as u64;
        Some(Started {
            at: procfs::boot_time_secs().ok()? + since_boot,
            ago: up.saturating_sub(since_boot),
        })
    }
}

/// The facts about a process; `None` if it has ended.
pub(super) fn process_info(pid: i32, user_name: impl Fn(u32) -> String) -> Option<ProcessInfo> {
    let process = procfs::process::Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    let uid = process.status().ok()?.euid;
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let arguments = std::fs::read(folder.join("cmdline")).unwrap_or_default();
    let cgroup = std::fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
    Some(ProcessInfo {
        holder: Holder {
            pid,
            // A process calls itself what it likes, and this goes to somebody's terminal: a line
            // end would let it add lines of its own to what listend says.
            command: command(stat.comm, &arguments).replace(char::is_control, "?"),
            user: user_name(uid),
            unit: unit(&cgroup),
            user_unit: is_of_user_manager(&cgroup),
        },
        started: Started::from_ticks(stat.starttime),
        parent: stat.ppid,
    })
}

/// The unit or container that a process is in: `unit nginx.service`, `docker container 0123456789ab`.
pub fn unit_of(pid: i32) -> Option<String> {
    let unit = unit(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)?;
    match unit.contains("container ") {
        true => Some(unit),
        false => Some(format!("unit {unit}")),
    }
}

/// The kernel keeps 15 bytes of a program's name; where the first argument goes on from there, it
/// has the whole of it.
fn command(comm: String, arguments: &[u8]) -> String {
    let first = arguments.split(|byte| *byte == 0).next().unwrap_or(&[]);
    match Path::new(OsStr::from_bytes(first)).file_name() {
        Some(name) if comm.len() >= 15 && name.as_bytes().starts_with(comm.as_bytes()) => {
            name.to_string_lossy().into_owned()
        }
        _ => comm,
    }
}

/// The innermost systemd unit or container in the text of /proc/PID/cgroup (cgroups(7)).
fn unit(cgroup: &str) -> Option<String> {
    const RUNTIMES: &[(&str, &str)] = &[
        ("docker-", "docker"),
        ("libpod-", "podman"),
        ("cri-containerd-", "containerd"),
        ("crio-", "cri-o"),
    ];
    let paths = || cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let id = |text: &str| -> Option<String> {
        let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| text[..12].to_owned())
    };
    let container = |path: &str| {
        path.split('/').rev().find_map(|part| {
            let bare = part.strip_suffix(".scope").unwrap_or(part);
            let named = RUNTIMES.iter().find_map(|(prefix, runtime)| {
                let id = id(bare.strip_prefix(prefix)?)?;
                Some(format!("{runtime} container {id}"))
            });
            named.or_else(|| {
                let id = id(bare)?;
                let docker = path.contains("/docker/");
                Some(format!(
                    "{}container {id}",
                    if docker { "docker " } else { "" }
                ))
            })
        })
    };
    let service = |path: &str| {
        let mut parts = path.split('/').rev();
        parts
            .find(|part| part.ends_with(".service") || part.ends_with(".scope"))
            .map(str::to_owned)
    };
    paths()
        .find_map(container)
        .or_else(|| paths().find_map(service))
}

/// Whether the unit in the text of /proc/PID/cgroup is one of `systemd --user`, which runs in the
/// unit `user@UID.service` of the system (user@.service(5)).
fn is_of_user_manager(cgroup: &str) -> bool {
    let is_manager = |part: &str| part.starts_with("user@") && part.ends_with(".service");
    cgroup.lines().any(|line| {
        let mut parts = line.split('/');
        parts.any(is_manager)
            && parts.any(|part| part.ends_with(".service") || part.ends_with(".scope"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_containers_are_read_from_the_cgroup() {
        let id = "0123456789abcdef".repeat(4);
        for (text, expected) in [
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/dev.service\n",
                Some("dev.service"),
            ),
            (
                "0::/user.slice/user-0.slice/session-3.scope\n",
                Some("session-3.scope"),
            ),
            (
                "9:name=systemd:/system.slice/ssh.service\n0::/\n",
                Some("ssh.service"),
            ),
            (
                &format!("0::/system.slice/docker-{id}.scope\n"),
                Some("docker container 0123456789ab"),
            ),
            (
                &format!("4:cpu:/docker/{id}\n"),
                Some("docker container 0123456789ab"),
            ),
            (
                &format!("0::/machine.slice/libpod-{id}.scope/container\n"),
                Some("podman container 0123456789ab"),
            ),
            (
                &format!("0::/kubepods/pod1/{id}\n"),
                Some("container 0123456789ab"),
            ),
            ("0::/\n", None),
        ] {
            assert_eq!(unit(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_long_name_comes_from_the_arguments() {
        assert_eq!(
            command(
                "prometheus-node".into(),
                b"/usr/bin/prometheus-node-exporter\0--x\0"
            ),
            "prometheus-node-exporter"
        );
        assert_eq!(command("nginx".into(), b"nginx: master process\0"), "nginx");
    }
}
