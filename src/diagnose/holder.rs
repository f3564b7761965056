//! Who a process is: command, user, unit or container; and whether it is a listend of ours.

use super::machine::Machine;
use crate::host;
use crate::report::Holder;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A process, and the one it comes from.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) holder: Holder,
    /// When it was started, and for how long it has run; `None` where that cannot be told.
    pub(super) started: Option<Started>,
    parent: i32,
}

/// When a process was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Started {
    /// Seconds since 1970.
    pub(super) at: u64,
    /// Seconds until now.
    pub(super) ago: u64,
}

impl Started {
    /// From the ticks since boot of proc_pid_stat(5). By the kernel's own clocks, so that nobody
    /// has to ask for the time.
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

/// The process that others in the list come from, and how many others there are: a server's
/// workers share its sockets, and stopping one of them helps nobody.
pub(super) fn master(pids: &[i32], machine: &Machine) -> Option<(Person, usize)> {
    let people = pids.iter().filter_map(|pid| machine.person(*pid));
    let first = people.min_by_key(|person| {
        let comes_from_another = pids.contains(&person.parent);
        (comes_from_another, person.holder.pid)
    })?;
    Some((first, pids.len() - 1))
}

/// What is known about a process; `None` if it has gone.
pub(super) fn describe(pid: i32, machine: &Machine) -> Option<Person> {
    let process = procfs::process::Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    let uid = process.status().ok()?.euid;
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let arguments = std::fs::read(folder.join("cmdline")).unwrap_or_default();
    let cgroup = std::fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
    Some(Person {
        holder: Holder {
            pid,
            // A process calls itself what it likes, and this goes to somebody's terminal: a line
            // end would let it add lines of its own to what listend says.
            command: command(stat.comm, &arguments).replace(char::is_control, "?"),
            user: machine.user(uid),
            unit: unit(&cgroup),
            user_unit: is_of_user_manager(&cgroup),
        },
        started: Started::from_ticks(stat.starttime),
        parent: stat.ppid,
    })
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

/// Whether the process is a `listend run` of this very configuration file.
///
/// It is one if its program is called `listend` or is the program that runs now, if `run` is
/// among its arguments, and if the configuration they name is the same file (device and inode).
/// `false` also where /proc does not let us see.
pub fn held_by_listend(pid: i32, config: &Path) -> bool {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let Ok(arguments) = std::fs::read(folder.join("cmdline")) else {
        return false;
    };
    let arguments: Vec<OsString> = arguments
        .split(|byte| *byte == 0)
        .map(|argument| OsString::from_vec(argument.to_vec()))
        .collect();
    is_listend(&folder)
        && configurations(&arguments).is_some_and(|named| {
            named.iter().any(|path| {
                // Its own root and working directory count, not ours.
                let theirs = if path.is_absolute() {
                    folder
                        .join("root")
                        .join(path.strip_prefix("/").unwrap_or(path))
                } else {
                    folder.join("cwd").join(path)
                };
                same_file(&theirs, config)
            })
        })
}

fn is_listend(folder: &Path) -> bool {
    let link = folder.join("exe");
    let named = std::fs::read_link(&link).is_ok_and(|target| {
        // After an update the program is another file, and the link says so.
        let name = target.file_name().unwrap_or_default().as_bytes();
        name.strip_suffix(b" (deleted)").unwrap_or(name) == b"listend"
    });
    named || same_file(&link, Path::new("/proc/self/exe"))
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => one.dev() == other.dev() && one.ino() == other.ino(),
        _ => false,
    }
}

/// The files that the arguments of a listend may name as its configuration; `None` if they do
/// not say `run`.
fn configurations(arguments: &[OsString]) -> Option<Vec<PathBuf>> {
    let arguments = &without_control(arguments);
    let run = arguments.iter().skip(1).position(|word| word == "run")? + 1;
    let mut named = Vec::new();
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if word == "-c" || word == "--config" {
            named.extend(words.next().map(PathBuf::from));
        } else if let Some(value) = bytes
            .strip_prefix(b"--config=")
            .or_else(|| bytes.strip_prefix(b"-c"))
        {
            named.push(PathBuf::from(OsStr::from_bytes(value)));
        }
    }
    if !named.is_empty() {
        return Some(named);
    }
    let bare = |word: &&OsString| !word.is_empty() && !word.as_bytes().starts_with(b"-");
    named.extend(arguments[run + 1..].iter().filter(bare).map(PathBuf::from));
    // A bare word may also be the value of an option; then the default is what it runs.
    if !named.iter().any(|path| path.extension().is_some()) {
        named.push(host::default_config());
    }
    Some(named)
}

/// The arguments without those that say where the control socket is, which is a path as well.
fn without_control(arguments: &[OsString]) -> Vec<OsString> {
    let mut words = arguments.iter();
    let mut left = Vec::new();
    while let Some(word) = words.next() {
        if word == "--control" || word == "--control-group" {
            words.next();
        } else {
            left.push(word.clone());
        }
    }
    left
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

    #[test]
    fn the_configuration_is_found_among_the_arguments() {
        let of = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            configurations(&words)
        };
        let one = |path: &str| Some(vec![PathBuf::from(path)]);
        assert_eq!(of("listend run -c a.yaml"), one("a.yaml"));
        assert_eq!(of("listend -c a.yaml run"), one("a.yaml"));
        assert_eq!(of("listend run --config=/b.yaml"), one("/b.yaml"));
        assert_eq!(of("listend run --config /b.yaml"), one("/b.yaml"));
        assert_eq!(of("listend run b.yaml"), one("b.yaml"));
        assert_eq!(of("listend run"), Some(vec![host::default_config()]));
        let default = of("listend --control /x.sock run --control-group adm");
        assert_eq!(default, Some(vec![host::default_config()]));
        assert_eq!(of("listend check -c a.yaml"), None);
    }
}
