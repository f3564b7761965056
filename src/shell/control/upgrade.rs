//! `listend upgrade`: another binary goes on in this very process.
//!
//! It is tried before it is trusted. As an ordinary child it reads a copy of the snapshot, resolves the
//! configuration that it carries and thaws a core, and says which version it is. Only then is it executed here: pid,
//! children, sockets and their queues stay. Whatever goes wrong before that changes nothing.

use super::GONE;
use super::helper::{Asked, Purpose, Question};
use super::pending_upgrade::Upgrade;
use crate::control::{Error, Progress, Reply};
use crate::core::{Mono, Refused};
use crate::shell::clock;
use crate::shell::control::answer::refusal;
use crate::shell::logging;
use crate::shell::token::ClientId;
use crate::shell::turn::Shell;
use crate::store::{Journal, hand_over};
use crate::sys::{self, Forked};
use crate::worker;
use serde::Deserialize;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long a binary may take to show what it understands.
const PREFLIGHT: Duration = Duration::from_secs(30);
/// How long what is half done may take before nothing is executed.
const HALF_DONE: Duration = Duration::from_secs(5);
/// So much of what is no answer is told, in characters.
const LAST_WORDS: usize = 500;

/// What `upgrade --preflight` says.
#[derive(Debug, Deserialize)]
struct Preflight {
    version: String,
}

impl Shell {
    /// Has a binary tried, for a client or, without one, for a signal. Without a path it is the one that
    /// listend was started from, as it is now.
    pub(in crate::shell) fn request_upgrade(
        &mut self,
        client: Option<ClientId>,
        binary: Option<PathBuf>,
        now: bool,
    ) {
        if let Some(reason) = self.no_upgrade(now) {
            return self.refuse_upgrade(client, reason);
        }
        let binary = binary.unwrap_or_else(|| PathBuf::from(&self.daemon_context.listend));
        let started = self.preflight(&binary);
        let purpose = Purpose::Asked(Asked {
            client,
            reader: None,
            question: Question::Upgrade,
        });
        let awaited = started.and_then(|started| {
            let awaited = self.await_query(started, purpose, PREFLIGHT);
            awaited.map_err(|(error, _)| error)
        });
        match awaited {
            Ok(()) => {
                log::info!("upgrade: trying {}", binary.display());
                self.upgrade = Some(Upgrade {
                    client,
                    binary,
                    understood: None,
                });
            }
            Err(error) => {
                let why = worker::explain_fork(&error);
                let reason = format!("cannot start {}: {why}", binary.display());
                self.refuse_upgrade(client, reason);
            }
        }
    }

    /// Why there can be no upgrade at the moment.
    fn no_upgrade(&self, now: bool) -> Option<String> {
        if self.core.is_stopping() {
            return Some(refusal(Refused::NotRunning).to_owned());
        }
        if self.plan.origin.files.is_empty() {
            return Some(
                "`listend exec` has no configuration file, and cannot be upgraded".to_owned(),
            );
        }
        if self.upgrade.is_some() {
            return Some("an upgrade is under way".to_owned());
        }
        if self.reloads.is_under_way() {
            return Some("a reload is under way; try again when it is over".to_owned());
        }
        let mut rolling = self
            .plan
            .workers()
            .filter(|(id, _)| self.core.is_rolling(*id));
        match rolling.next() {
            Some((_, worker)) if !now => Some(format!(
                "a rollout of {} is under way; try again when it is over, or use --now: it goes on \
                 after the upgrade",
                worker.name
            )),
            _ => None,
        }
    }

    fn refuse_upgrade(&mut self, client: Option<ClientId>, reason: String) {
        log::warn!("upgrade: {reason}; nothing has changed");
        self.tell(client, &Reply::error(&Error::Refused { reason }));
    }

    /// Starts a binary on a copy of the snapshot.
    fn preflight(&mut self, binary: &std::path::Path) -> io::Result<Forked> {
        let mut store = std::mem::take(&mut self.store);
        let lines = self.everything(&mut store);
        self.store = store;
        let _lent = self.reserve.lend();
        sys::fork_and_execute(|| {
            let mut snapshot = Journal::create()?;
            snapshot.write_base(lines.iter().map(String::as_str))?;
            let mut command = Command::new(binary);
            command.args(["--log-level", "off", "upgrade", "--preflight"]);
            command.stdin(OwnedFd::from(snapshot));
            Ok(command)
        })
    }

    /// The binary has said what it understands, or has ended without; `None` is that it took too long.
    pub(super) fn preflight_ended(&mut self, status: Option<i32>, said: Option<&[u8]>) {
        let Some(upgrade) = &mut self.upgrade else {
            return;
        };
        let binary = upgrade.binary.display();
        let why = match (status, said) {
            // It was killed because of that.
            (None, Some(_)) if self.control.has_gone(upgrade.client) => GONE.to_owned(),
            (Some(0), Some(said)) => match serde_json::from_slice::<Preflight>(said) {
                Ok(preflight) => {
                    log::info!(
                        "upgrade: {binary} is listend {}, and understands the snapshot",
                        preflight.version
                    );
                    upgrade.understood = Some((preflight.version, clock::now() + HALF_DONE));
                    return;
                }
                Err(_) => format!("{binary} is not a listend: it says {}", quoted(said)),
            },
            (Some(sys::NOT_EXECUTED), Some(said)) => {
                format!("cannot start {binary}: {}", words(said))
            }
            (Some(code), Some(said)) => {
                format!("{binary} exited with status {code}: {}", quoted(said))
            }
            (None, Some(said)) => format!("{binary} was killed by a signal: {}", quoted(said)),
            (_, None) => format!(
                "{binary} took longer than {} seconds to read the snapshot",
                PREFLIGHT.as_secs()
            ),
        };
        let client = upgrade.client;
        self.upgrade = None;
        self.refuse_upgrade(client, why);
    }

    /// Executes the binary, as soon as nothing is half done that the next listend could not go on with, such as
    /// a process between clone(2) and its program: what that comes to is told on pipes that it does not have.
    pub(in crate::shell) fn upgrade_turn(&mut self) {
        let Some(upgrade) = &self.upgrade else { return };
        let Some((version, until)) = &upgrade.understood else {
            return;
        };
        let (client, until, version) = (upgrade.client, *until, version.clone());
        if self.core.is_stopping() {
            self.upgrade = None;
            return self.refuse_upgrade(client, refusal(Refused::NotRunning).to_owned());
        }
        let held_up = self.holds_upgrade_up();
        let is_to_wait = held_up.is_some() || !self.logs.is_written();
        if is_to_wait && clock::now() < until {
            return;
        }
        if let Some(reason) = held_up {
            self.upgrade = None;
            return self.refuse_upgrade(client, reason.to_owned());
        }
        let own = env!("CARGO_PKG_VERSION");
        let message = format!("upgrading listend {own} to {version}");
        log::info!("{message}");
        let told = Reply::continues(&Progress {
            message: Some(message),
            ..Progress::default()
        });
        self.tell(client, &told);
        // Everything is written, and nobody could send it later.
        self.control.send_withheld(&self.epoll);
        let why = self.execute();
        let client = self.upgrade.take().and_then(|upgrade| upgrade.client);
        self.refuse_upgrade(client, why);
    }

    /// What the next listend could not go on with. It may have begun since the upgrade was asked for.
    fn holds_upgrade_up(&self) -> Option<&'static str> {
        if self.processes.are_launching() {
            Some("a process does not get to its program; see `listend status`")
        } else if self.reloads.is_under_way() {
            Some("a reload is under way; try again when it is over")
        } else if self.store.is_behind() {
            Some("the process that keeps the descriptors does not take them; try again later")
        } else {
            None
        }
    }

    /// The deadline of that wait.
    pub(in crate::shell) fn upgrade_deadline(&self) -> Option<Mono> {
        let understood = self.upgrade.as_ref()?.understood.as_ref()?;
        Some(understood.1)
    }

    /// Returns only where it failed: why, in words.
    fn execute(&mut self) -> String {
        let binary = self.upgrade.as_ref().map(|upgrade| upgrade.binary.clone());
        let binary: OsString = binary.unwrap_or_default().into();
        let Ok(binary) = CString::new(binary.into_vec()) else {
            return "its path has a NUL byte".to_owned();
        };
        self.control.kill_queries();
        self.logs.hand_over(&self.epoll);
        let mut store = std::mem::take(&mut self.store);
        let mut lines = self.everything(&mut store);
        lines.extend(self.history());
        let written = store.write_at_once(&lines);
        sys::end_closers();
        logging::flush();
        let why = match written {
            Ok(()) => hand_over(&binary, &self.all_kept(&store)).to_string(),
            Err(error) => format!("cannot write the snapshot: {error}"),
        };
        self.store = store;
        // What it has written of connections is not noted as written.
        self.store.begin_anew();
        why
    }
}

/// What a program has said, in one line.
fn quoted(said: &[u8]) -> String {
    match words(said).as_str() {
        "" => "nothing".to_owned(),
        words => format!("\"{words}\""),
    }
}

fn words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(LAST_WORDS).collect()
}
