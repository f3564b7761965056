//! `listend stop-post`: `ExecStopPost=` of the units.
//!
//! With `KillMode=process` systemd ends listend and nobody else. So workers survive a listend that has died, and
//! the next one goes on with them. Where none comes, this ends what is left.

use super::args::StopPost;
use super::exit::Exit;
use crate::core::Mono;
use crate::listener;
use crate::shell::{clock, left_files};
use crate::sys;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long processes may take after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the kernel may take after SIGKILL.
const KILLED: Duration = Duration::from_secs(5);
/// How often it is looked who is left, at least.
const LOOK: Duration = Duration::from_millis(100);
/// A listend that dies again and again is started so often, at most. The units have no other limit.
const PAUSE: Duration = Duration::from_millis(200);
/// `RestartPreventExitStatus=` of the units.
const FINAL: [Exit; 3] = [Exit::Usage, Exit::Unavailable, Exit::Configuration];

/// How the unit has ended (`$SERVICE_RESULT` and its kind, systemd.exec(5)).
struct Ended {
    result: String,
    /// The exit status of the main process, if it has exited.
    status: Option<u8>,
}

/// Who is to find what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Successor {
    /// systemd starts listend again, which goes on with everything.
    OfAll,
    /// Somebody has asked for a restart: the sockets are kept.
    OfSockets,
    Nobody,
}

/// Ends what is left of a unit, unless systemd starts it again by itself.
pub fn stop_post(arguments: &StopPost) -> Exit {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let has_exited = variable("EXIT_CODE") == "exited";
    let ended = Ended {
        result: variable("SERVICE_RESULT"),
        status: has_exited
            .then(|| variable("EXIT_STATUS").parse().ok())
            .flatten(),
    };
    if ended.is_failure() {
        pause();
    }
    let successor = successor(&ended, &jobs(&arguments.unit));
    if successor == Successor::OfAll {
        log::info!("workers and sockets are left to the next listend");
        return Exit::Done;
    }
    let mut exit = Exit::Done;
    if let Err(error) = end_all() {
        log::error!("cannot end what is left of {}: {error}", arguments.unit);
        exit = Exit::Unavailable;
    }
    if successor == Successor::Nobody
        && let Some(list) = left_files()
    {
        for (path, error) in listener::remove_left_files(&list, &HashSet::new()) {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
    exit
}

impl Ended {
    /// systemd.service(5), `Restart=on-failure`.
    fn is_failure(&self) -> bool {
        !matches!(self.result.as_str(), "" | "success" | "exec-condition")
    }

    fn is_final(&self) -> bool {
        let is = |exit: &Exit| self.status == Some(exit.number());
        FINAL.iter().any(is)
    }
}

/// `jobs` are the kinds of those of the unit that wait or run. A start is that of systemd's own restart.
fn successor(ended: &Ended, jobs: &[String]) -> Successor {
    let has = |kind: &str| jobs.iter().any(|job| job == kind);
    if has("stop") {
        Successor::Nobody
    } else if has("restart") || has("try-restart") {
        Successor::OfSockets
    } else if ended.is_failure() && !ended.is_final() {
        Successor::OfAll
    } else {
        Successor::Nobody
    }
}

/// What systemd is about to do with the unit. It has no variable for that.
#[allow(
    clippy::disallowed_methods,
    reason = "nobody waits for this process but systemd"
)]
fn jobs(unit: &str) -> Vec<String> {
    let mut command = Command::new("systemctl");
    // Of a user's manager.
    if std::env::var_os("MANAGERPID").is_some() {
        command.arg("--user");
    }
    command.args(["list-jobs", "--no-legend", "--no-pager", "--plain", unit]);
    let output = command.stdin(Stdio::null()).output();
    let text = match output {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            log::warn!("systemctl list-jobs: {}: {said}", output.status);
            return Vec::new();
        }
        Err(error) => {
            log::warn!("systemctl list-jobs: {error}");
            return Vec::new();
        }
    };
    kinds(&String::from_utf8_lossy(&text), unit)
}

/// `JOB UNIT TYPE STATE`, a line each; there may be other text.
fn kinds(text: &str, unit: &str) -> Vec<String> {
    let fields = text.lines().map(|line| line.split_whitespace());
    let of_unit = fields.filter_map(|mut fields| {
        let (_number, name, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (name == unit).then(|| kind.to_owned())
    });
    of_unit.collect()
}

/// Waits until enough time has passed since the last that died.
fn pause() {
    let stamp = left_files().map(|list| list.with_extension("died"));
    let before = stamp.as_ref().and_then(|stamp| {
        let text = fs::read_to_string(stamp).ok()?;
        Some(Mono(text.trim().parse().ok()?))
    });
    let since = before.map(|before| clock::now().since(before));
    if let Some(since) = since.filter(|since| *since < PAUSE) {
        wait_for(&mut [], PAUSE.saturating_sub(since));
    }
    if let Some(stamp) = stamp
        && let Err(error) = fs::write(&stamp, clock::now().0.to_string())
    {
        log::debug!("{}: {error}", stamp.display());
    }
}

/// Ends every other process of the unit: first as it should, then by force.
fn end_all() -> io::Result<()> {
    let group = own_cgroup()?;
    let own = std::process::id() as i32;
    let begun = clock::now();
    let (mut known, mut forced) = (HashMap::<i32, OwnedFd>::new(), false);
    loop {
        let waited = clock::now().since(begun);
        if waited > PATIENCE + KILLED {
            return Err(io::Error::other(format!(
                "processes do not end: {:?}",
                known.keys().collect::<Vec<_>>()
            )));
        }
        known.retain(|_, pidfd| !has_ended(pidfd, Duration::ZERO));
        let mut new = HashMap::new();
        for pid in members(&group)? {
            if pid != own && pid > 0 && !known.contains_key(&pid) {
                // It may have ended meanwhile.
                new.extend(sys::open_pidfd(pid).ok().map(|pidfd| (pid, pidfd)));
            }
        }
        // Who is in it now was so when its descriptor was opened, or has its number from one that is.
        let still: HashSet<i32> = members(&group)?.into_iter().collect();
        new.retain(|pid, pidfd| still.contains(pid) && !has_ended(pidfd, Duration::ZERO));
        if known.is_empty() && new.is_empty() {
            return Ok(());
        }
        let is_time = waited >= PATIENCE;
        if is_time && !forced {
            forced = true;
            known
                .values()
                .for_each(|pidfd| signal(pidfd, libc::SIGKILL));
        }
        for pidfd in new.values() {
            signal(
                pidfd,
                if is_time {
                    libc::SIGKILL
                } else {
                    libc::SIGTERM
                },
            );
            // A stopped one would not hear it.
            signal(pidfd, libc::SIGCONT);
        }
        known.extend(new);
        if let Some(any) = known.values().next() {
            has_ended(any, LOOK);
        }
    }
}

fn signal(pidfd: &OwnedFd, signal: i32) {
    if let Err(error) = sys::send_signal(pidfd, signal) {
        log::debug!("cannot send signal {signal}: {error}");
    }
}

fn has_ended(pidfd: &OwnedFd, patience: Duration) -> bool {
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    wait_for(&mut ended, patience)
}

fn wait_for(any: &mut [PollFd<'_>], patience: Duration) -> bool {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    poll(any, patience).is_ok_and(|count| count > 0)
}

/// Where the cgroup of this process is, which is that of the unit.
fn own_cgroup() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let places = cgroups(&text);
    let mut places = places.filter(|place| place.join("cgroup.procs").exists());
    let found = places.next();
    found.ok_or_else(|| io::Error::other("its cgroup is not found below /sys/fs/cgroup"))
}

/// Where the text of /proc/PID/cgroup says that systemd has a unit: version 2, alone or beside version 1,
/// then version 1.
fn cgroups(text: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let path = |start: &'static str| {
        let mut lines = text.lines();
        let path = lines.find_map(|line| line.split_once(start).map(|(_, path)| path))?;
        let path = path.trim_start_matches('/');
        // Control processes of a delegated unit have one of their own in it.
        Some(path.strip_suffix("/.control").unwrap_or(path).to_owned())
    };
    let places = [
        ("/sys/fs/cgroup", "0::"),
        ("/sys/fs/cgroup/unified", "0::"),
        ("/sys/fs/cgroup/systemd", ":name=systemd:"),
    ];
    places.into_iter().filter_map(move |(mount, start)| {
        let path = path(start).filter(|path| !path.is_empty())?;
        Some(Path::new(mount).join(path))
    })
}

/// The processes of a cgroup and of those in it.
fn members(group: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type().is_ok_and(|is| is.is_dir()) {
            // It may be removed meanwhile.
            pids.extend(members(&entry.path()).unwrap_or_default());
        }
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(result: &str, status: Option<u8>, jobs: &[&str]) -> Successor {
        let result = result.to_owned();
        let jobs: Vec<String> = jobs.iter().map(|job| (*job).to_owned()).collect();
        successor(&Ended { result, status }, &jobs)
    }

    #[test]
    fn workers_are_left_only_to_a_listend_that_systemd_starts_by_itself() {
        for result in ["signal", "core-dump", "watchdog", "oom-kill", "timeout"] {
            assert_eq!(of(result, None, &[]), Successor::OfAll, "{result}");
            // It has died while it was being started again.
            assert_eq!(of(result, None, &["start"]), Successor::OfAll, "{result}");
            assert_eq!(of(result, None, &["stop"]), Successor::Nobody, "{result}");
            let restarted = of(result, None, &["restart"]);
            assert_eq!(restarted, Successor::OfSockets, "{result}");
        }
        assert_eq!(of("exit-code", Some(70), &[]), Successor::OfAll);
        for status in [64, 69, 78] {
            assert_eq!(of("exit-code", Some(status), &[]), Successor::Nobody);
        }
        assert_eq!(of("success", Some(0), &[]), Successor::Nobody);
        assert_eq!(of("success", Some(0), &["restart"]), Successor::OfSockets);
        assert_eq!(of("", None, &[]), Successor::Nobody);
    }

    #[test]
    fn the_jobs_of_other_units_do_not_count() {
        let text = "12 listend.service restart running\n13 listend@a.service stop waiting\nNo jobs running.\n";
        assert_eq!(kinds(text, "listend.service"), ["restart"]);
        assert!(kinds("No jobs running.", "listend.service").is_empty());
    }

    #[test]
    fn the_cgroup_of_the_unit_is_looked_for_where_systemd_has_it() {
        let found = |text| cgroups(text).collect::<Vec<_>>();
        assert_eq!(
            found("0::/system.slice/listend.service\n")[0],
            Path::new("/sys/fs/cgroup/system.slice/listend.service")
        );
        let both = "5:pids:/a\n1:name=systemd:/system.slice/x.service/.control\n0::/\n";
        assert_eq!(
            found(both),
            [Path::new("/sys/fs/cgroup/systemd/system.slice/x.service")]
        );
    }

    // What the units say has to be what is decided here.
    #[test]
    fn the_units_name_the_same_exit_codes() {
        let line = format!(
            "RestartPreventExitStatus={}\n",
            FINAL.map(|exit| exit.number().to_string()).join(" ")
        );
        for unit in [
            include_str!("../../units/listend.service"),
            include_str!("../../units/listend@.service"),
            include_str!("../../units/user/listend.service"),
        ] {
            assert!(unit.contains(&line), "{line}");
        }
    }
}
