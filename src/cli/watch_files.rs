//! `listend __watch`: restarts a worker when files change. The daemon starts it for `watch:`, and gives it a
//! connection that may do nothing else.

use super::args::WatchFiles;
use super::client::{Client, Failure, Wait};
use super::exit::Exit;
use super::output::reason;
use crate::file_watch::FileWatch;
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
    log::info!(
        "{worker}: it is restarted when one of {} files changes",
        files.count()
    );
    while wait(&client, &files)? {
        let changed = files.changed()?;
        if changed.is_empty() {
            continue;
        }
        log::info!("{worker}: {}; restarting it", names(&changed));
        let parameters = json!({ "worker": worker, "no_wait": true });
        match client.ask::<IgnoredAny>(RESTART.method, &parameters) {
            Ok(_) => {}
            Err(Failure::Broken(..)) => break,
            Err(failure) => log::warn!("{worker}: not restarted: {}", failure.words().0),
        }
    }
    Ok(())
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
