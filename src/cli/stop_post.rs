//! `listend stop-post`: `ExecStopPost=` of the units.
//!
//! With `KillMode=process` systemd ends listend and nobody else. So workers survive a listend that has died, and
//! the next one goes on with them. Where none comes, this ends what is left.

use super::args::StopPost;
use super::exit::Exit;
use crate::cgroup::DAEMON;
use crate::core::Mono;
use crate::listener;
use crate::shell::{clock, left_files};
use crate::sys;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long processes may take after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the kernel may take after SIGKILL.
const KILLED: Duration = Duration::from_secs(5);
/// How often it is looked who is left, at least.
const LOOK: Duration = Duration::from_millis(100);
/// When it is looked for the first time whether there is another listend, and how often later.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How often systemd may fail to say so.
const MOST_UNKNOWN: u32 = 30;
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
    /// A restart was requested: the sockets are kept.
    OfSockets,
    Nobody,
}

/// Ends what is left of a unit, unless systemd starts it again by itself.
pub fn stop_post(arguments: &StopPost) -> Exit {
    if arguments.watch {
        return watch(&arguments.unit);
    }
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
        if let Err(error) = begin_to_watch(&arguments.unit) {
            log::warn!("if systemd does not start it, its workers go on: {error}");
        }
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

/// Leaves a process behind that sees whether systemd starts listend again: it runs no command when the unit is
/// stopped before that, or when it gives up.
#[allow(
    clippy::disallowed_methods,
    reason = "nobody waits for this process but systemd"
)]
fn begin_to_watch(unit: &str) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("listend").args(["stop-post", "--watch", unit]);
    // systemd removes the folder of the list when it gives the unit up.
    let list = left_files().and_then(|list| fs::File::open(list).ok());
    command.stdin(list.map_or_else(Stdio::null, Stdio::from));
    command.process_group(0).spawn()?;
    Ok(())
}

/// Waits until there is another listend, or there will be none: then ends what is left. Its standard input is the
/// list of paths.
fn watch(unit: &str) -> Exit {
    let mut list = String::new();
    if let Err(error) = io::stdin().read_to_string(&mut list) {
        log::warn!("cannot read which paths are left: {error}");
    }
    let (mut pause, mut unknown) = (FIRST_LOOK, 0);
    loop {
        match outlook(unit) {
            Outlook::Started => return Exit::Done,
            Outlook::Over => match end_if_over(unit, &list) {
                Ok(true) => return Exit::Done,
                Ok(false) => {}
                Err(error) => {
                    log::error!("cannot end what is left of {unit}: {error}");
                    return Exit::Unavailable;
                }
            },
            Outlook::Open => {}
            Outlook::Unknown if unknown < MOST_UNKNOWN => unknown += 1,
            Outlook::Unknown => return Exit::Unavailable,
        }
        wait_for(&mut [], pause);
        pause = LAST_LOOK.min(pause * 2);
    }
}

/// Whether it was over. Who is ended is there before it is looked again: the processes of a listend that is started
/// now are not among them.
fn end_if_over(unit: &str, list: &str) -> io::Result<bool> {
    let mut left = others(&own_cgroup()?, &HashMap::new())?;
    if !jobs(unit).is_empty() || outlook(unit) != Outlook::Over {
        return Ok(false);
    }
    log::info!("{unit} is not started again: ending the workers that are left");
    for (path, error) in listener::remove_listed_files(list, &HashSet::new()) {
        log::warn!("cannot remove {}: {error}", path.display());
    }
    end(|_| Ok(std::mem::take(&mut left)))?;
    Ok(true)
}

/// What becomes of the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// There is a listend.
    Started,
    /// The unit is being stopped or started, or will be started.
    Open,
    Over,
    Unknown,
}

fn outlook(unit: &str) -> Outlook {
    let words = ["show", "--property=ActiveState,MainPID", unit];
    systemctl(&words).map_or(Outlook::Unknown, |text| outlook_of(&text))
}

/// `PROPERTY=VALUE`, a line each.
fn outlook_of(text: &str) -> Outlook {
    let value = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    match (value("ActiveState"), value("MainPID")) {
        (Some("inactive" | "failed"), Some("0")) => Outlook::Over,
        (Some(_), Some("0")) => Outlook::Open,
        (Some(_), Some(_)) => Outlook::Started,
        _ => Outlook::Unknown,
    }
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
fn jobs(unit: &str) -> Vec<String> {
    let words = ["list-jobs", "--no-legend", "--no-pager", "--plain", unit];
    systemctl(&words).map_or_else(Vec::new, |text| kinds(&text, unit))
}

/// What systemctl(1) says; `None` if it fails.
#[allow(
    clippy::disallowed_methods,
    reason = "nobody waits for this process but systemd"
)]
fn systemctl(words: &[&str]) -> Option<String> {
    let mut command = Command::new("systemctl");
    // Of a user's manager.
    if std::env::var_os("MANAGERPID").is_some() {
        command.arg("--user");
    }
    let output = command.args(words).stdin(Stdio::null()).output();
    let word = words.first().unwrap_or(&"");
    match output {
        Ok(output) if output.status.success() => {
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            log::warn!("systemctl {word}: {}: {said}", output.status);
            None
        }
        Err(error) => {
            log::warn!("systemctl {word}: {error}");
            None
        }
    }
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

/// The processes of a cgroup but this one, and but those that are known.
fn others(group: &Path, known: &HashMap<i32, OwnedFd>) -> io::Result<HashMap<i32, OwnedFd>> {
    let own = std::process::id() as i32;
    let mut new = HashMap::new();
    for pid in members(group)? {
        if pid != own && pid > 0 && !known.contains_key(&pid) {
            // It may have ended meanwhile.
            new.extend(sys::open_pidfd(pid).ok().map(|pidfd| (pid, pidfd)));
        }
    }
    // Who is in it now was so when its descriptor was opened, or has its number from one that is.
    let still: HashSet<i32> = members(group)?.into_iter().collect();
    new.retain(|pid, pidfd| still.contains(pid) && !has_ended(pidfd, Duration::ZERO));
    Ok(new)
}

/// Ends every other process of the unit.
fn end_all() -> io::Result<()> {
    let group = own_cgroup()?;
    end(|known| others(&group, known))
}

/// Ends processes, first as it should be done, then by force. `find` answers with those that are not known yet.
fn end(
    mut find: impl FnMut(&HashMap<i32, OwnedFd>) -> io::Result<HashMap<i32, OwnedFd>>,
) -> io::Result<()> {
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
        let new = find(&known)?;
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
        // Control processes of a delegated unit have one of their own in it, and so has listend.
        let own = ["/.control", DAEMON].into_iter();
        let above = own.map(|own| {
            path.strip_suffix(own)
                .map(|path| path.trim_end_matches('/'))
        });
        Some(above.flatten().next().unwrap_or(path).to_owned())
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
    fn what_is_left_is_ended_only_where_no_listend_is_to_come() {
        for (text, outlook) in [
            ("ActiveState=inactive\nMainPID=0\n", Outlook::Over),
            ("MainPID=0\nActiveState=failed\n", Outlook::Over),
            ("MainPID=0\nActiveState=activating\n", Outlook::Open),
            ("MainPID=0\nActiveState=deactivating\n", Outlook::Open),
            ("MainPID=7\nActiveState=activating\n", Outlook::Started),
            ("MainPID=7\nActiveState=active\n", Outlook::Started),
            ("MainPID=7\nActiveState=failed\n", Outlook::Started),
            ("ActiveState=failed\n", Outlook::Unknown),
            ("", Outlook::Unknown),
        ] {
            assert_eq!(outlook_of(text), outlook, "{text}");
        }
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
        for text in [
            "0::/system.slice/listend.service/.control\n",
            "0::/system.slice/listend.service/listend.daemon\n",
        ] {
            assert_eq!(
                found(text)[0],
                Path::new("/sys/fs/cgroup/system.slice/listend.service")
            );
        }
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
