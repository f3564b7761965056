//! Finding something out in a process of its own: what `listend check` and `listend explain` look
//! at may take long, and the loop cannot wait for a slow disk or name server.

use super::client::ClientId;
use super::{Control, Part};
use crate::control::{Error, ExplainReply, Progress, Reply};
use crate::plan::{self, Free, Parcel, Plan};
use crate::report::Sources;
use crate::shell::turn::{Shell, Token};
use crate::sys::{self, How, Then, Whom};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Which: never used again.
pub(super) type ErrandId = u64;

/// So many at once; the others are refused.
const MAX_ERRANDS: usize = 4;
/// No answer is longer, in bytes: a plan takes about half a kilobyte for each listener.
const LONGEST: usize = 256 << 20;
/// How much is read in a turn.
const READ: usize = 64 << 10;
/// The exit statuses of a `listend` that could not answer: usage, internal, configuration.
const NO_ANSWER: [i32; 3] = [64, 70, 78];

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
}

/// A process that finds something out for a client. Dropped, it is killed if it still runs.
#[derive(Debug)]
pub(super) struct Errand {
    /// `None` if nobody waits for it: a signal asked.
    client: Option<ClientId>,
    question: Question,
    /// Not reaped as long as this is here.
    pid: i32,
    pidfd: OwnedFd,
    output: io::PipeReader,
    said: Vec<u8>,
}

impl Errand {
    /// Ends it if it is for a client that has gone. It is reaped like any other.
    pub(super) fn abandon(&self, client: ClientId) {
        if self.client == Some(client) {
            self.kill();
        }
    }

    fn kill(&self) {
        let _gone_already = sys::send_signal(&self.pidfd, Signal::SIGKILL as i32);
    }

    /// Takes what has been said, some of it or, after its end, all. Whether more may come.
    fn listen(&mut self, all: bool) -> bool {
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

impl Drop for Errand {
    fn drop(&mut self) {
        // It would outlive listend.
        self.kill();
    }
}

/// What `check --json --for-daemon --with-plan` prints.
#[derive(Deserialize)]
struct Arrived {
    errors: Vec<serde_json::Value>,
    /// The errors as text.
    #[serde(default)]
    rendered: String,
    plan: Option<Box<Parcel>>,
}

/// What has become of a configuration that was read again.
#[derive(Debug)]
pub(super) enum Fetched {
    /// It is whole.
    Plan(Box<Plan>, Sources),
    /// It is bad, and nothing may change.
    Bad {
        /// The errors, as `check --json` has them.
        errors: Vec<serde_json::Value>,
        /// The errors as text, with places and source lines, as at the start.
        rendered: String,
    },
    /// The process that was to read it could not; why, in words.
    Failed(String),
}

impl Control {
    /// Whose process this is, if it is one that finds something out.
    pub(in crate::shell) fn errand_of(&self, pid: i32) -> Option<ErrandId> {
        let mut errands = self.errands.iter();
        errands
            .find(|(_, errand)| errand.pid == pid)
            .map(|(id, _)| *id)
    }
}

impl Shell {
    /// Starts a process that finds something out. `about` is the listener to explain. Whether it was
    /// started; if not, whoever asked was told.
    pub(super) fn send_out(
        &mut self,
        client: Option<ClientId>,
        question: Question,
        about: &str,
    ) -> bool {
        // There is only one of those at a time, and it is not to be lost to questions.
        let is_reload = question == Question::Reload;
        if self.control.errands.len() >= MAX_ERRANDS && !is_reload {
            let reason = format!(
                "{MAX_ERRANDS} others wait for an answer of this kind; try again in a moment"
            );
            let refused = Reply::error(&Error::Refused { reason });
            self.tell(client, &refused);
            return false;
        }
        let id = self.control.new_id();
        match start(&self.control, client, question, about).and_then(|errand| {
            let event = |part| EpollEvent::new(EpollFlags::EPOLLIN, Token::Control(part).pack());
            self.epoll
                .add(&errand.output, event(Part::ErrandOutput(id)))?;
            self.epoll.add(&errand.pidfd, event(Part::ErrandEnd(id)))?;
            Ok(errand)
        }) {
            Ok(errand) => {
                self.control.errands.insert(id, errand);
                true
            }
            Err(error) => {
                let reason = format!("cannot start a process for it: {error}");
                log::warn!("cannot start a process to look something up: {error}");
                let failed = Reply::error(&Error::Failed { reason });
                self.tell(client, &failed);
                false
            }
        }
    }

    /// Answers whoever asked, or the log.
    pub(super) fn tell(&mut self, client: Option<ClientId>, reply: &Reply) {
        // What there is to say to a signal is in the log.
        if let Some(client) = client {
            self.control.reply(&self.epoll, client, reply);
        }
    }

    /// The process has said something.
    pub(super) fn errand_output(&mut self, id: ErrandId) {
        let Some(errand) = self.control.errands.get_mut(&id) else {
            return;
        };
        if !errand.listen(false) {
            // Its end comes on its own.
            let _not_watched = self.epoll.delete(&errand.output);
        }
        if errand.said.len() > LONGEST {
            errand.kill();
        }
    }

    /// The process has ended.
    pub(in crate::shell) fn errand_end(&mut self, id: ErrandId) {
        let Some(mut errand) = self.control.errands.remove(&id) else {
            return;
        };
        errand.listen(true);
        let _not_watched = self.epoll.delete(&errand.output);
        let _not_watched = self.epoll.delete(&errand.pidfd);
        let status = status_of(&errand);
        let said = &errand.said;
        let reply = match errand.question {
            Question::DryRun => self.what_would_change(fetched(said)),
            Question::Reload => return self.reload_with(errand.client, fetched(said)),
            Question::Explain if status.is_some_and(|code| NO_ANSWER.contains(&code)) => {
                failed(said)
            }
            Question::Explain => Reply::last(&ExplainReply {
                text: String::from_utf8_lossy(said).into_owned(),
            }),
            // As it is: to take it apart could take longer than the loop has.
            Question::Check if is_object(said) => Reply::rendered(said),
            Question::Check => failed(said),
        };
        self.tell(errand.client, &reply);
    }

    fn what_would_change(&self, fetched: Fetched) -> Reply {
        let (wanted, _) = match fetched {
            Fetched::Plan(plan, sources) => (plan, sources),
            Fetched::Bad { errors, rendered } => {
                return Reply::error(&Error::NotReloaded {
                    reason: "the configuration is bad, and would not be taken".to_owned(),
                    rendered,
                    errors,
                });
            }
            Fetched::Failed(reason) => return Reply::error(&Error::Failed { reason }),
        };
        let changes = plan::merge(&self.plan, *wanted, &Free::default()).changes;
        let again = self.tried_again(&self.rolled_back(&changes));
        let changes: Vec<String> = changes.lines().iter().cloned().chain(again).collect();
        let message = match changes.len() {
            0 => "nothing would change".to_owned(),
            1 => "1 change".to_owned(),
            more => format!("{more} changes"),
        };
        Reply::last(&Progress {
            message: Some(message),
            changes: Some(changes),
            ..Progress::default()
        })
    }
}

fn fetched(said: &[u8]) -> Fetched {
    let Ok(arrived) = serde_json::from_slice::<Arrived>(said) else {
        return Fetched::Failed(last_words(said));
    };
    match arrived.plan {
        Some(parcel) => {
            let (plan, sources) = parcel.unpack();
            Fetched::Plan(Box::new(plan), sources)
        }
        None => Fetched::Bad {
            errors: arrived.errors,
            rendered: arrived.rendered,
        },
    }
}

/// Whether the process got to the end of what it had to say: it says it all at once.
fn is_object(said: &[u8]) -> bool {
    said.starts_with(b"{") && said.ends_with(b"}") && !said.contains(&0)
}

/// The exit status; `None` if a signal ended it, or somebody else has reaped it.
fn status_of(errand: &Errand) -> Option<i32> {
    use std::os::fd::AsFd;
    match sys::wait(Whom::Process(errand.pidfd.as_fd()), Then::Reap) {
        Ok(Some(ended)) => match ended.how {
            How::Exited(code) => Some(code),
            How::Killed(_) | How::Dumped(_) => None,
        },
        Ok(None) | Err(_) => None,
    }
}

fn failed(said: &[u8]) -> Reply {
    let reason = last_words(said);
    Reply::error(&Error::Failed { reason })
}

fn last_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    match said.trim() {
        "" => "the process that was to find out died".to_owned(),
        words => words.to_owned(),
    }
}

fn start(
    control: &Control,
    client: Option<ClientId>,
    question: Question,
    about: &str,
) -> io::Result<Errand> {
    let (output, theirs) = io::pipe()?;
    let flags = OFlag::from_bits_retain(fcntl(&output, FcntlArg::F_GETFL)?);
    fcntl(&output, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // This very program, also when another has been installed in its place.
    let mut command = Command::new("/proc/self/exe");
    command.args(["--log-level", "off"]);
    match question {
        Question::Check => command.args(["check", "--json", "--for-daemon"]),
        // What can be bound, the daemon finds out: much of it is bound by the daemon itself.
        Question::DryRun | Question::Reload => command.args([
            "check",
            "--json",
            "--for-daemon",
            "--with-plan",
            "--no-bind",
        ]),
        Question::Explain => command.args(["explain", about]),
    };
    let errors = match question {
        Question::Check | Question::DryRun | Question::Reload => Stdio::null(),
        Question::Explain => Stdio::from(theirs.try_clone()?),
    };
    command.arg("-c").arg(&control.config);
    command.stdin(Stdio::null()).stdout(theirs).stderr(errors);
    let child = command.spawn()?;
    // It has not been waited for, so the number is its own.
    let pidfd = sys::open_pidfd(child.id() as i32)?;
    Ok(Errand {
        client,
        question,
        pid: child.id() as i32,
        pidfd,
        output,
        said: Vec::new(),
    })
}
