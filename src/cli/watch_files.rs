//! `listend __watch`: restarts a worker when files change. The daemon starts it for `watch:`, and gives it a
//! connection that may do nothing else.

use super::args::WatchFiles;
use super::client::{Client, Failure, Wait};
use super::exit::Exit;
use crate::control::Status;
use crate::file_watch::FileWatch;
use crate::report::reason;
use crate::shell::clock;
use crate::sys;
use crate::verb::RESTART;
use listenfd::ListenFd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::IgnoredAny;
use serde_json::json;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// So many files are named when they have changed.
const NAMED: usize = 3;

/// Watches until the daemon has gone.
pub fn watch_files(arguments: WatchFiles) -> Exit {
    match watch(arguments) {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::error!("cannot watch files: {}", reason(&error));
            Exit::Unavailable
        }
    }
}

fn watch(arguments: WatchFiles) -> io::Result<()> {
    let WatchFiles { worker, paths } = arguments;
    let mut client = connection()?;
    let mut files = FileWatch::new(paths)?;
    match files.count() {
        1 => log::info!("{worker}: it is restarted when a file changes"),
        count => log::info!("{worker}: it is restarted when one of {count} files changes"),
    }
    let mut changed = changed_unseen(&mut client, &worker, &files);
    if !changed.is_empty() {
        // It may be under way.
        changed.extend(files.changed()?);
        changed.sort();
        changed.dedup();
    }
    loop {
        if changed.is_empty() {
            if !wait(&client, &files)? {
                break;
            }
            changed = files.changed()?;
            continue;
        }
        log::info!("{worker}: {}; restarting it", names(&changed));
        let parameters = json!({ "worker": worker, "no_wait": true });
        match client.ask::<IgnoredAny>(RESTART.method, &parameters) {
            Ok(_) => {}
            Err(Failure::Broken(..)) => break,
            Err(failure) => log::warn!("{worker}: not restarted: {}", failure.words().0),
        }
        changed.clear();
    }
    Ok(())
}

/// The files that are newer than the oldest instance: a process that watched before this one may have ended
/// before it saw them change, as it does when listend dies or is upgraded.
fn changed_unseen(client: &mut Client, worker: &str, files: &FileWatch) -> Vec<PathBuf> {
    let status = client.ask::<Status>("Status", &json!({ "name": worker }));
    // A connection that has ended is noticed with the next wait.
    let workers = status.map_or(Vec::new(), |status| status.workers);
    let instances = workers.iter().flat_map(|worker| &worker.instances);
    let oldest = instances.filter_map(|one| started(one.pid?)).min();
    oldest.map_or(Vec::new(), |oldest| files.changed_since(oldest))
}

/// When a process was started, since 1970; not before it was.
fn started(pid: u32) -> Option<Duration> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let started = clock::at_ticks(process.stat().ok()?.starttime + 1);
    let age = clock::now().0.saturating_sub(started.0);
    clock::wall().checked_sub(Duration::from_nanos(age))
}

/// The connection to the daemon is the only descriptor that is passed.
fn connection() -> io::Result<Client> {
    let mut inherited = ListenFd::from_env();
    let number = inherited.take_raw_fd(0).ok().flatten();
    let missing = || io::Error::other("nothing was inherited; the daemon starts this for `watch`");
    let control: OwnedFd = sys::take_descriptor(number.ok_or_else(missing)?)?;
    let client = Client::inherited(control, Wait::Patiently);
    client.map_err(|failure| io::Error::other(failure.words().0))
}

/// Waits for a change. Whether the daemon is still there.
fn wait(client: &Client, files: &FileWatch) -> io::Result<bool> {
    loop {
        let mut polled = [
            PollFd::new(client.as_fd(), PollFlags::POLLIN),
            PollFd::new(files.fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let is_ready = |polled: &PollFd| polled.any().unwrap_or(true);
        // It says nothing unasked, so that this is its end.
        if polled.first().is_some_and(is_ready) {
            return Ok(false);
        }
        return Ok(true);
    }
}

fn names(changed: &[PathBuf]) -> String {
    let named: Vec<String> = changed
        .iter()
        .take(NAMED)
        .map(|path| path.display().to_string())
        .collect();
    let more = match changed.len().saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let have = if changed.len() == 1 { "has" } else { "have" };
    format!("{}{more} {have} changed", named.join(", "))
}
