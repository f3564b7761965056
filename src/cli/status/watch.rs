//! `listend status --watch`: the status again whenever it has changed, until the daemon ends.

use super::answer::{StatusAnswer, as_text, ask, print_json};
use crate::cli::args::Status as Arguments;
use crate::cli::check::finish;
use crate::cli::client::{Client, Failure, Wait};
use crate::cli::exit::Exit;
use crate::cli::output::{print, shown};
use crate::cli::pretty::Layout;
use crate::control::{Status, rfc3339, troubles};
use crate::shell::clock;
use crate::sys::{self, How};
use crate::usage;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

/// The time from one answer to the next question, in milliseconds.
const PERIOD: u16 = 1_000;
/// How often it is tried to reach a daemon that has hung up and still runs, as it does while it is upgraded,
/// and the time between two tries, in milliseconds.
const TRIES: u32 = 100;
const PAUSE: u16 = 100;

/// Shows until the daemon ends, or nobody reads any more.
pub fn watch(mut client: Client, arguments: &Arguments) -> Exit {
    let rewrites = io::stdout().is_terminal();
    let mut shown_last: Option<Status> = None;
    let mut daemon = None;
    loop {
        let answer = match ask(&mut client, arguments) {
            Ok(answer) => answer,
            Err(failure @ Failure::Broken(..)) => {
                match again(arguments, daemon.as_ref(), &failure) {
                    Ok(again) => client = again,
                    Err(exit) => return exit,
                }
                continue;
            }
            Err(failure) => return failure.tell(None),
        };
        if daemon.is_none() {
            daemon = process(&answer.status);
        }
        let lasting = lasting(&answer.status);
        if rewrites || shown_last.as_ref() != Some(&lasting) {
            let is_first = shown_last.is_none();
            let text = match text(&mut client, &answer, arguments) {
                Ok(text) if rewrites => screen(&text, is_first),
                Ok(text) => text,
                Err(failure @ Failure::Broken(..)) => {
                    match again(arguments, daemon.as_ref(), &failure) {
                        Ok(again) => client = again,
                        Err(exit) => return exit,
                    }
                    continue;
                }
                Err(failure) => return failure.tell(None),
            };
            let printed = print(&text);
            if printed.is_err() {
                return finish(printed, Exit::Done);
            }
            shown_last = Some(lasting);
        }
        wait(client.as_fd(), PERIOD);
    }
}

/// Waits until there is something to read, or it has hung up, and not for longer. Whether there is.
fn wait(from: impl AsFd, milliseconds: u16) -> bool {
    let mut polled = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut polled, PollTimeout::from(milliseconds)), Ok(1..))
}

fn text(
    client: &mut Client,
    answer: &StatusAnswer,
    arguments: &Arguments,
) -> Result<String, Failure> {
    if arguments.json {
        let mut json = Vec::new();
        // Memory has no end.
        let _always = print_json(answer, Layout::OneLine, &mut json);
        return Ok(String::from_utf8_lossy(&json).into_owned());
    }
    let mut text = rfc3339(clock::wall().as_secs()) + "\n";
    text.push_str(&as_text(client, &answer.status, arguments)?);
    for trouble in troubles(&answer.status) {
        text.push_str(&format!("{}\n", shown(&trouble)));
    }
    text.push('\n');
    Ok(text)
}

/// What is shown in place of what was there before, as far as the terminal has lines.
fn screen(text: &str, is_first: bool) -> String {
    let rows = crossterm::terminal::size().map_or(24, |(_, rows)| usize::from(rows));
    let before = if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" };
    let lines = text.trim_end().lines().take(rows.saturating_sub(1).max(1));
    let lines: String = lines.map(|line| format!("{line}\x1b[K\n")).collect();
    format!("{before}{lines}\x1b[J")
}

/// A status without what changes all the time.
fn lasting(status: &Status) -> Status {
    let mut status = status.clone();
    let instances = status.workers.iter_mut().flat_map(|one| &mut one.instances);
    instances.for_each(|one| one.usage = None);
    status
}

/// The process of the daemon, if it can be seen from here.
fn process(status: &Status) -> Option<OwnedFd> {
    let daemon = status.daemon.as_ref().filter(|one| usage::is_here(one))?;
    sys::open_pidfd(i32::try_from(daemon.pid).ok()?).ok()
}

/// Another connection to a daemon that has hung up and still runs; or what to end with.
fn again(
    arguments: &Arguments,
    daemon: Option<&OwnedFd>,
    failure: &Failure,
) -> Result<Client, Exit> {
    let Some(daemon) = daemon else {
        return Err(failure.tell(None));
    };
    for _ in 0..TRIES {
        if wait(daemon, PAUSE) {
            return Err(exit_of(daemon, failure));
        }
        let path = arguments.control.control.as_deref();
        if let Ok(client) = Client::connect(path, Wait::Patiently) {
            return Ok(client);
        }
    }
    Err(failure.tell(None))
}

/// The exit code of a daemon that has ended, as a shell would have it; where the kernel does not tell, there
/// is none any more.
fn exit_of(daemon: &OwnedFd, failure: &Failure) -> Exit {
    for _ in 0..TRIES {
        let code = match sys::exit_info(daemon) {
            Some(How::Exited(code)) => code,
            Some(How::Killed(signal) | How::Dumped(signal)) => 128 + signal,
            None => {
                // It is told only when its parent has heard of it.
                let _time = poll(&mut [], PollTimeout::from(PAUSE));
                continue;
            }
        };
        return match u8::try_from(code) {
            Ok(0) => Exit::Done,
            code => Exit::Code(code.unwrap_or(u8::MAX)),
        };
    }
    failure.tell(None)
}
