//! Finding something out in a process of its own: what `listend check` and `listend explain` look
//! at may take long, and the loop cannot wait for a slow disk or name server.

use super::client::ClientId;
use super::{Control, Part};
use crate::control::{CheckReply, Error, ExplainReply, Progress, Reply};
use crate::shell::turn::{Shell, Token};
use crate::sys::{self, How, Then, Whom};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// Which: never used again.
pub(super) type ErrandId = u64;

/// So many at once; the others are refused.
const MAX_ERRANDS: usize = 4;
/// No answer is longer, in bytes.
const LONGEST: usize = 16 << 20;
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
    /// What `Explain` answers.
    Explain,
}

/// A process that finds something out for a client. Dropped, it is killed if it still runs.
#[derive(Debug)]
pub(super) struct Errand {
    client: ClientId,
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
        if self.client == client {
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

/// What `check --json` prints when it has something to compare with.
#[derive(Deserialize)]
struct Compared {
    #[serde(flatten)]
    reply: CheckReply,
    changes: Option<Vec<String>>,
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
    /// Starts a process that finds something out. `about` is the listener to explain, or the
    /// fingerprints of what runs.
    pub(super) fn send_out(&mut self, client: ClientId, question: Question, about: &str) {
        if self.control.errands.len() >= MAX_ERRANDS {
            let reason = format!(
                "{MAX_ERRANDS} others wait for an answer of this kind; try again in a moment"
            );
            let refused = Reply::error(&Error::Refused { reason });
            return self.control.reply(&self.epoll, client, &refused);
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
            }
            Err(error) => {
                let reason = format!("cannot start a process for it: {error}");
                let failed = Reply::error(&Error::Failed { reason });
                self.control.reply(&self.epoll, client, &failed);
            }
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
        let reply = match status_of(&errand) {
            Some(status) if NO_ANSWER.contains(&status) && errand.question == Question::Explain => {
                failed(&errand.said)
            }
            _ => match errand.question {
                Question::Explain => Reply::last(&ExplainReply {
                    text: String::from_utf8_lossy(&errand.said).into_owned(),
                }),
                // As it is: to take it apart could take longer than the loop has.
                Question::Check if is_object(&errand.said) => Reply::rendered(&errand.said),
                Question::Check => failed(&errand.said),
                Question::DryRun => match serde_json::from_slice(&errand.said) {
                    Ok(compared) => what_would_change(compared),
                    Err(_) => failed(&errand.said),
                },
            },
        };
        self.control.reply(&self.epoll, errand.client, &reply);
    }
}

/// Whether the process got to the end of what it had to say: it says it all at once.
fn is_object(said: &[u8]) -> bool {
    said.starts_with(b"{") && said.ends_with(b"}") && !said.contains(&0)
}

fn what_would_change(compared: Compared) -> Reply {
    let Some(changes) = compared.changes else {
        let first = compared.reply.errors.first();
        let first = first.and_then(|error| error["message"].as_str());
        return Reply::error(&Error::Failed {
            reason: format!(
                "the configuration is bad, and would not be taken: {} (`listend check` has more)",
                first.unwrap_or("nobody knows why")
            ),
        });
    };
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
    let said = String::from_utf8_lossy(said);
    let reason = match said.trim() {
        "" => "the process that was to find out died",
        words => words,
    };
    Reply::error(&Error::Failed {
        reason: reason.to_owned(),
    })
}

fn start(
    control: &Control,
    client: ClientId,
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
        Question::Check | Question::DryRun => command.args(["check", "--json", "--for-daemon"]),
        Question::Explain => command.args(["explain", about]),
    };
    let errors = match question {
        Question::Check | Question::DryRun => Stdio::null(),
        Question::Explain => Stdio::from(theirs.try_clone()?),
    };
    command.arg("-c").arg(&control.config);
    let input = match question {
        Question::Check | Question::Explain => Stdio::null(),
        Question::DryRun => Stdio::from(in_memory(about)?),
    };
    command.stdin(input).stdout(theirs).stderr(errors);
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

/// A file that is nowhere, to be read from its start: however much it is, nobody waits for a pipe.
fn in_memory(text: &str) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC;
    let mut file = File::from(memfd_create(c"fingerprints", flags)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}
