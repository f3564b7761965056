//! `listend run --take-over`: the sockets and workers that a killed listend has left behind.

use super::output::count;
use crate::diagnose::{LeftBehind, Machine, Orphan, OrphanedSocket, left_behind};
use crate::listener::{self, Adopted, Inherited, SocketTable, UnknownPorts};
use crate::plan::{Plan, SocketKey};
use crate::shell::{LeftWorker, clock};
use crate::store::{Holder, not_taken};
use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::unistd::geteuid;
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A name that no listener has (sd_listen_fds_with_names(3)): the address decides.
const NAMELESS: &str = "unknown";
/// The time of a file is as exact as the kernel's tick, and so is that of a process.
const TICKS: Duration = Duration::from_millis(50);

/// What was taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The sockets.
    pub(super) adopted: Adopted,
    /// The processes that had them.
    pub(super) workers: Vec<LeftWorker>,
}

/// Takes what a listend of this configuration has left behind, if there is anything. The processes have it as
/// well from then on.
///
/// # Errors
///
/// Why it cannot be taken, in words. Nothing has changed.
pub(super) fn take(
    plan: &Plan,
    machine: &Machine,
    changed: Option<SystemTime>,
    control: Option<&Path>,
) -> Result<Taken, String> {
    if let Some(path) = control
        && answers(path)
    {
        return Err(format!(
            "--take-over takes nothing from a listend that runs, and one answers at {}; if it runs another \
             configuration, give this one another --control PATH",
            path.display()
        ));
    }
    let LeftBehind { sockets, orphans } = left_behind(plan, machine);
    if sockets.is_empty() {
        log::info!("--take-over: no listend has left anything of this configuration behind");
        return Ok(Taken::default());
    }
    let (mut inherited, mut holders) = (Vec::new(), HashMap::new());
    for socket in &sockets {
        inherited.push(Inherited {
            fd: take_socket(socket, machine, &mut holders)?,
            name: NAMELESS.to_owned(),
        });
    }
    let (adopted, problems) = listener::match_up(plan, inherited, UnknownPorts::NeedAName);
    if !problems.is_empty() {
        log::warn!(
            "--take-over: left alone, because no listener wants them as they are: {}",
            count(problems.len(), "socket")
        );
    }
    let listend = orphans.first().map_or(0, |orphan| orphan.listend);
    let workers = orphans
        .into_iter()
        .filter_map(|orphan| open(orphan, changed));
    let workers: Vec<LeftWorker> = workers.collect();
    log::info!(
        "taking over from a listend that has ended (pid {listend}): {}; processes: {}",
        count(adopted.len(), "socket"),
        workers.len()
    );
    Ok(Taken { adopted, workers })
}

/// Whether a listend is at a control socket, also one that does not get to its clients.
fn answers(path: &Path) -> bool {
    let connect = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        listener::connect_to(&socket, path)
    };
    match connect() {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// A copy of the socket, from one of the processes that have it.
fn take_socket(
    socket: &OrphanedSocket,
    machine: &Machine,
    holders: &mut HashMap<i32, io::Result<Holder>>,
) -> Result<OwnedFd, String> {
    let mut why = String::from("the processes that had it have ended");
    for pid in &socket.pids {
        let holder = holders.entry(*pid).or_insert_with(|| Holder::of(*pid));
        let taken = match holder {
            Ok(holder) => holder.take(socket.inode),
            // It has ended.
            Err(_) => Ok(None),
        };
        match taken {
            Ok(Some(fd)) => {
                let owner = fstat(&fd).map_or(u32::MAX, |file| file.st_uid);
                if owner != geteuid().as_raw() {
                    return Err(format!(
                        "cannot take {}: the socket belongs to user {}; run listend as that user",
                        socket.address,
                        machine.user(owner)
                    ));
                }
                return Ok(fd);
            }
            Ok(None) => {}
            Err(error) => why = not_taken(*pid, &error, "listend run --take-over"),
        }
    }
    Err(format!("cannot take {}: {why}", socket.address))
}

/// The process, pinned, if it still is what it was.
fn open(orphan: Orphan, changed: Option<SystemTime>) -> Option<LeftWorker> {
    let pidfd = sys::open_pidfd(orphan.pid).ok()?;
    if has_ended(&pidfd) || Orphan::of(orphan.pid).as_ref() != Some(&orphan) {
        return None;
    }
    let age = age_of(&orphan);
    let started = (SystemTime::UNIX_EPOCH + clock::wall()).checked_sub(age)?;
    Some(LeftWorker {
        is_outdated: changed.is_some_and(|changed| changed > started + TICKS),
        age,
        pidfd,
        orphan,
    })
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ended| ended > 0)
}

fn age_of(orphan: &Orphan) -> Duration {
    use nix::time::{ClockId, clock_gettime};
    let ticks = procfs::ticks_per_second().max(1);
    let started = Duration::from_millis(orphan.started.saturating_mul(1000) / ticks);
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(started, Duration::from);
    now.saturating_sub(started)
}

/// When the configuration was changed last, as far as its files say: also by taking one away.
pub(super) fn last_change(files: &[String]) -> Option<SystemTime> {
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let files: Vec<&Path> = files.iter().map(Path::new).collect();
    let folders: BTreeSet<&Path> = files
        .iter()
        .skip(1)
        .filter_map(|file| file.parent())
        .collect();
    files.into_iter().chain(folders).filter_map(changed).max()
}

/// Makes the sockets that were taken listend's own. Nothing can fail any more that would give them back.
pub(super) fn make_own(plan: &Plan, bound: &mut SocketTable, taken: &[SocketKey]) {
    for listener in plan.listeners.values() {
        for key in listener.keys().filter(|key| taken.contains(key)) {
            let Some(socket) = bound.get_mut(key) else {
                continue;
            };
            log::info!("listener {}: took {}", listener.name, socket.address);
            if let Err(why) = socket.make_own(listener) {
                log::warn!("listener {}: symbolic links: {why}", listener.name);
            }
        }
    }
}
