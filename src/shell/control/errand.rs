//! Finding something out in a process of its own: what `listend check` and `listend explain` look
//! at may take long, and the loop cannot wait for a slow disk or name server. The same is true of
//! whatever lies in other processes ([`crate::shell::looks`]).
//!
//! Each has its time. One that has not answered by then is killed, and not waited for: it may hang in
//! the kernel for as long as a file server likes.

use super::Control;
use super::helper::{
    Asked, Errand, Fetched, LONGEST, Purpose, Question, failed, fetched, is_object, start,
    status_of,
};
use super::reload::{EMPTIED, HOW_TO_STOP};
use crate::control::{Access, Error, ExplainReply, Progress, Reply};
use crate::core::Mono;
use crate::plan::{self, Tense};
use crate::shell::clock;
use crate::shell::looks::Look;
use crate::shell::token::{ClientId, ControlPart, ErrandId, Token};
use crate::shell::turn::Shell;
use crate::shell::words::duration;
use crate::sys::Forked;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::io;
use std::time::Duration;

/// So many at once for those who may act, and as many for all who may only look; the others are
/// refused.
const MAX_ERRANDS: usize = 4;
/// So many of these for one user who may only look.
const MAX_OF_USER: usize = 2;
/// How long `listend check` and `listend explain` may take: a name server has its own limits.
const TIME: Duration = Duration::from_secs(120);
/// So many that were killed and have not ended; with more, nobody is sent out any more.
pub(in crate::shell) const MAX_LATE: usize = 16;
/// The exit statuses of a `listend` that could not answer: usage, internal, configuration.
const NO_ANSWER: [i32; 3] = [64, 70, 78];

impl Control {
    /// How many were killed and have not ended, but for those of readers.
    pub(in crate::shell) fn late_errands(&self) -> usize {
        let is_readers = |purpose: &Purpose| match purpose {
            Purpose::Asked(asked) => asked.reader.is_some(),
            Purpose::Look(_) => false,
        };
        let errands = self.errands.values();
        let late = errands.filter(|errand| errand.is_late && !is_readers(&errand.purpose));
        late.count()
    }

    /// When the first has to have answered.
    pub(super) fn errand_due(&self) -> Option<Mono> {
        let waited_for = self.errands.values().filter(|errand| !errand.is_late);
        waited_for.map(|errand| errand.until).min()
    }

    /// The user behind a client who may only look.
    fn reader(&self, client: ClientId) -> Option<u32> {
        let peer = &self.clients.get(&client)?.peer;
        let may_act = peer.access(self.owner()) == Access::Act;
        (!may_act).then_some(peer.uid)
    }

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
        let asked = Asked {
            client,
            reader: client.and_then(|client| self.control.reader(client)),
            question,
        };
        if let Some(reason) = self.is_too_much(&asked) {
            let refused = Reply::error(&Error::Refused { reason });
            self.tell(client, &refused);
            return false;
        }
        let started = start(&self.control.config, question, about);
        let waited_for = started.and_then(|started| {
            let waited_for = self.await_errand(started, Purpose::Asked(asked), TIME);
            waited_for.map_err(|(error, _)| error)
        });
        match waited_for {
            Ok(()) => true,
            Err(error) => {
                let reason = format!("cannot start a helper process: {error}");
                log::warn!("cannot start a helper process: {error}");
                let failed = Reply::error(&Error::Failed { reason });
                self.tell(client, &failed);
                false
            }
        }
    }

    /// Why nobody is sent out for this. Who may only look is in the way neither of those who may act
    /// nor of other users.
    fn is_too_much(&self, asked: &Asked) -> Option<String> {
        // There is only one of those at a time, and it is not to be lost to questions.
        if asked.question == Question::Reload {
            return None;
        }
        if asked.reader.is_none() && self.control.late_errands() >= MAX_LATE {
            return Some(format!(
                "{MAX_LATE} helper processes were killed and do not exit: they wait for a file \
                 system that does not answer"
            ));
        }
        let errands = self.control.errands.values();
        let readers = errands.filter_map(|errand| match &errand.purpose {
            Purpose::Asked(other) if other.question == Question::Reload => None,
            // What a reader asked stays the reader's until it has ended.
            Purpose::Asked(other) if !errand.is_late || other.reader.is_some() => {
                Some(other.reader)
            }
            Purpose::Asked(_) | Purpose::Look(_) => None,
        });
        let alike = readers.filter(|reader| reader.is_some() == asked.reader.is_some());
        let alike: Vec<Option<u32>> = alike.collect();
        let own = alike.iter().filter(|reader| **reader == asked.reader);
        let (count, whose) = match asked.reader {
            Some(_) if own.count() >= MAX_OF_USER => (MAX_OF_USER, "of your user "),
            _ if alike.len() >= MAX_ERRANDS => (MAX_ERRANDS, ""),
            _ => return None,
        };
        Some(format!(
            "{count} other requests {whose}of this kind are pending; retry in a moment"
        ))
    }

    /// Waits so long for what a process finds out.
    ///
    /// # Errors
    ///
    /// It cannot be watched, and is killed. What it was for comes back, because nothing else answers.
    pub(in crate::shell) fn await_errand(
        &mut self,
        started: Forked,
        purpose: Purpose,
        time: Duration,
    ) -> Result<(), (io::Error, Option<Purpose>)> {
        let id = self.control.new_id();
        let errand = Errand {
            purpose,
            pid: started.pid,
            pidfd: started.pidfd,
            output: started.output,
            said: Vec::new(),
            until: clock::now() + time,
            is_late: false,
        };
        let event = |part| EpollEvent::new(EpollFlags::EPOLLIN, Token::Control(part).pack());
        let output = event(ControlPart::ErrandOutput(id));
        let end = event(ControlPart::ErrandEnd(id));
        let watched = self.epoll.add(&errand.output, output);
        let watched = watched.and_then(|()| self.epoll.add(&errand.pidfd, end));
        // Also one that cannot be watched, so that it is reaped as a child of its kind.
        self.control.errands.insert(id, errand);
        if let Err(errno) = watched {
            return Err((errno.into(), self.is_late(id)));
        }
        Ok(())
    }

    /// Kills those who have not answered in time. Nobody waits for them any more.
    pub(in crate::shell) fn errands_turn(&mut self) {
        let now = clock::now();
        let all = self.control.errands.iter();
        let late = all.filter(|(_, errand)| !errand.is_late && errand.until <= now);
        let late: Vec<ErrandId> = late.map(|(id, _)| *id).collect();
        for id in late {
            let Some(purpose) = self.is_late(id) else {
                continue;
            };
            match purpose {
                Purpose::Asked(asked) => self.has_no_answer(asked),
                Purpose::Look(look) => self.looked(look, None),
            }
        }
    }

    /// Gives one up. What it was for.
    fn is_late(&mut self, id: ErrandId) -> Option<Purpose> {
        let errand = self.control.errands.get_mut(&id)?;
        errand.kill();
        errand.is_late = true;
        errand.said = Vec::new();
        let _not_watched = self.epoll.delete(&errand.output);
        let rest = match &errand.purpose {
            Purpose::Asked(asked) => Purpose::Asked(*asked),
            Purpose::Look(look) => Purpose::Look(look.trace()),
        };
        Some(std::mem::replace(&mut errand.purpose, rest))
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
        if errand.is_late {
            return log::debug!("helper process {} has exited", errand.pid);
        }
        let purpose = std::mem::replace(&mut errand.purpose, Purpose::Look(Look::Nothing));
        match purpose {
            Purpose::Asked(asked) => self.is_answered(asked, status, &errand.said),
            Purpose::Look(look) => self.looked(look, Some(&errand.said)),
        }
    }

    fn is_answered(&mut self, asked: Asked, status: Option<i32>, said: &[u8]) {
        let reply = match asked.question {
            Question::DryRun => self.what_would_change(fetched(said)),
            Question::Reload => return self.reload_with(asked.client, fetched(said)),
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
        self.tell(asked.client, &reply);
    }

    fn has_no_answer(&mut self, asked: Asked) {
        let reason = format!(
            "no answer within {}: the helper process that reads the configuration waits for a \
             file system or a name server",
            duration(TIME)
        );
        match asked.question {
            Question::Reload => self.reload_with(asked.client, Fetched::Failed(reason)),
            Question::Check | Question::DryRun | Question::Explain => {
                self.tell(asked.client, &Reply::error(&Error::Failed { reason }));
            }
        }
    }

    fn what_would_change(&self, fetched: Fetched) -> Reply {
        let (wanted, _) = match fetched {
            Fetched::Plan(plan, sources) => (plan, sources),
            Fetched::Bad { errors, rendered } => {
                return Reply::error(&Error::NotReloaded {
                    reason: "this configuration would be refused".to_owned(),
                    rendered,
                    errors,
                });
            }
            Fetched::Failed(reason) => return Reply::error(&Error::Failed { reason }),
        };
        if self.is_emptied(&wanted) {
            let reason = format!("{EMPTIED}; it would be refused. {HOW_TO_STOP}");
            return Reply::error(&Error::Refused { reason });
        }
        let changes = plan::merge(&self.plan, &self.sound_former(), *wanted).changes;
        let tense = Tense::Conditional;
        let again = self.tried_again(&self.rolled_back(&changes), tense);
        let changes: Vec<String> = changes.lines(tense).chain(again).collect();
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
