//! A process of its own that finds something out, and what it says.

use crate::control::{Error, Reply};
use crate::core::Mono;
use crate::plan::fingerprint::Known;
use crate::plan::{Plan, PlanTransfer};
use crate::report::Sources;
use crate::shell::looks::Look;
use crate::shell::token::ClientId;
use crate::sys::{self, Forked, How, Then, Whom};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

/// No answer is longer, in bytes: a plan takes about half a kilobyte for each listener.
pub(super) const LONGEST: usize = 64 << 20;

/// So much of what is no answer is told, in characters.
const LAST_WORDS: usize = 2000;

/// How much is read in a turn.
const READ: usize = 64 << 10;

/// What is to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// What `Check` answers.
    Check,
    /// What a reload would change.
    DryRun,
    /// What is to run from now on.
    Reload,
    /// What `Explain` answers.
    Explain,
    /// Whether another binary could go on.
    Upgrade,
}

/// What for.
#[derive(Debug)]
pub(in crate::shell) enum Purpose {
    /// A client asked.
    Asked(Asked),
    /// listend itself asked.
    Look(Look),
}

/// Who asks what.
#[derive(Debug, Clone, Copy)]
pub(in crate::shell) struct Asked {
    /// `None` if nobody waits for it: a signal asked.
    pub(super) client: Option<ClientId>,
    /// Who may only look, and whose user this is.
    pub(super) reader: Option<u32>,
    pub(super) question: Question,
}

/// A process that finds something out. Dropped, it is killed if it still runs.
#[derive(Debug)]
pub(in crate::shell) struct HelperQuery {
    pub(in crate::shell) purpose: Purpose,
    /// Not reaped as long as this is here.
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) said: Vec<u8>,
    /// The plan that it was told of.
    pub(super) told: Rc<Plan>,
    pub(super) until: Mono,
    /// The helper did not answer in time, and its answer is dropped.
    pub(in crate::shell) is_late: bool,
}

impl HelperQuery {
    /// Ends it if it is for a client that has gone. It is reaped like any other.
    pub(super) fn abandon(&self, client: ClientId) {
        if let Purpose::Asked(asked) = &self.purpose
            && asked.client == Some(client)
        {
            self.kill();
        }
    }

    pub(super) fn kill(&self) {
        let _gone_already = sys::send_signal(&self.pidfd, Signal::SIGKILL as i32);
    }

    /// Takes what has been said, some of it or, after its end, all. Whether more may come.
    pub(super) fn listen(&mut self, all: bool) -> bool {
        let mut bytes = vec![0; READ];
        loop {
            match nix::unistd::read(&self.output, &mut bytes) {
                Ok(0) => return false,
                Ok(count) => self.said.extend_from_slice(&bytes[..count]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return true,
                Err(_) => return false,
            }
            if self.said.len() > LONGEST {
                return false;
            }
            if !all {
                return true;
            }
        }
    }
}

impl Drop for HelperQuery {
    fn drop(&mut self) {
        // It would outlive listend.
        self.kill();
    }
}

/// What `check --json --for-daemon --with-plan` prints.
#[derive(Deserialize)]
struct CheckOutput {
    errors: Vec<serde_json::Value>,
    /// The errors as text.
    #[serde(default)]
    rendered: String,
    plan: Option<Box<PlanTransfer>>,
}

/// What has become of a configuration that was read again.
#[derive(Debug)]
pub(super) enum Fetched {
    /// A valid configuration.
    Plan(Box<Plan>, Sources),
    /// An invalid configuration; nothing changes.
    Bad {
        /// The errors, as `check --json` has them.
        errors: Vec<serde_json::Value>,
        /// The errors as text, with places and source lines, as at the start.
        rendered: String,
    },
    /// The process that was to read it could not; why, in words.
    Failed(String),
}

/// `told` is the plan that the process was told of.
pub(super) fn fetched(said: &[u8], told: &Plan) -> Fetched {
    let Ok(arrived) = serde_json::from_slice::<CheckOutput>(said) else {
        return Fetched::Failed(last_words(said));
    };
    match arrived.plan {
        Some(transfer) => match transfer.unpack(told) {
            Some((plan, sources)) => Fetched::Plan(Box::new(plan), sources),
            None => Fetched::Failed("the helper process knows another configuration".to_owned()),
        },
        None => Fetched::Bad {
            errors: arrived.errors,
            rendered: arrived.rendered,
        },
    }
}

/// Whether the process got to the end of what it had to say: it says it all at once.
pub(super) fn is_object(said: &[u8]) -> bool {
    said.starts_with(b"{") && said.ends_with(b"}") && !said.contains(&0)
}

/// The exit status; `None` if a signal ended it, or somebody else has reaped it.
pub(super) fn status_of(query: &HelperQuery) -> Option<i32> {
    use std::os::fd::AsFd;
    match sys::wait(Whom::Process(query.pidfd.as_fd()), Then::Reap) {
        Ok(Some(ended)) => match ended.how {
            How::Exited(code) => Some(code),
            How::Killed(_) | How::Dumped(_) => None,
        },
        Ok(None) | Err(_) => None,
    }
}

pub(super) fn failed(said: &[u8]) -> Reply {
    let reason = last_words(said);
    Reply::error(&Error::Failed { reason })
}

fn last_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    match said.trim() {
        "" => "the helper process died".to_owned(),
        _ if said.len() > LONGEST => {
            format!("the configuration is too large: its plan takes more than {LONGEST} bytes")
        }
        words => {
            let count = words.chars().count();
            words
                .chars()
                .skip(count.saturating_sub(LAST_WORDS))
                .collect()
        }
    }
}

pub(super) fn start(
    config: &Path,
    question: Question,
    about: &str,
    running: &Plan,
) -> io::Result<Forked> {
    let (output, theirs) = io::pipe()?;
    let flags = OFlag::from_bits_retain(fcntl(&output, FcntlArg::F_GETFL)?);
    fcntl(&output, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // This very program, also when another has been installed in its place.
    let mut command = Command::new("/proc/self/exe");
    command.args(["--log-level", "off"]);
    // Nobody else knows of it, and a file that it waits for may never come. It sees to that itself: what is
    // done between fork(2) and exec would have std copy the memory for it.
    command
        .arg("--depend-on")
        .arg(std::process::id().to_string());
    match question {
        Question::Check => command.args(["check", "--json", "--for-daemon"]),
        Question::DryRun => command.args(["check", "--json", "--for-daemon", "--with-plan"]),
        // What can be bound, the daemon finds out: much of it is bound by the daemon itself.
        Question::Reload => command.args([
            "check",
            "--json",
            "--for-daemon",
            "--with-plan",
            "--no-bind",
        ]),
        Question::Explain => command.args(["explain", about]),
        // Started by itself.
        Question::Upgrade => &mut command,
    };
    let errors = match question {
        Question::Check | Question::DryRun | Question::Reload => Stdio::null(),
        Question::Explain | Question::Upgrade => Stdio::from(theirs.try_clone()?),
    };
    let input = match question {
        Question::DryRun | Question::Reload => Stdio::from(listeners_of(running)?),
        Question::Check | Question::Explain | Question::Upgrade => Stdio::null(),
    };
    command.arg("-c").arg(config);
    command.stdin(input).stdout(theirs).stderr(errors);
    let child = command.spawn()?;
    let pid = child.id() as i32;
    Ok(Forked {
        pid,
        // It has not been waited for, so the number is its own.
        pidfd: sys::open_pidfd(pid)?,
        output: output.into(),
    })
}

/// A file that tells of the listeners of a plan. A pipe would not take all of it at once.
fn listeners_of(running: &Plan) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"listend-listeners", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&Known::told(running))?;
    file.rewind()?;
    Ok(file)
}
