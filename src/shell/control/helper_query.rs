//! Finding something out in a process of its own: what `listend check` and `listend explain` look
//! at may take long, and the loop cannot wait for a slow disk or name server. The same is true of
//! whatever lies in other processes ([`crate::shell::looks`]).
//!
//! Each has its time. One that has not answered by then is killed, and not waited for: it may hang in
//! the kernel for as long as a file server likes.

use super::Control;
use super::helper::{
    Asked, Fetched, HelperQuery, LONGEST, Purpose, Question, failed, fetched, is_object, start,
    status_of,
};
use super::reload::{EMPTIED, HOW_TO_STOP};
use crate::control::{Access, Error, ExplainReply, Progress, Reply};
use crate::core::Mono;
use crate::plan::{self, Merge, Tense};
use crate::shell::clock;
use crate::shell::event_text::duration;
use crate::shell::looks::Look;
use crate::shell::token::{ClientId, ControlPart, QueryId, Token};
use crate::shell::turn::Shell;
use crate::sys::Forked;
use crate::worker;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// So many at once for those who may act, and as many for all who may only look; the others are
/// refused.
const MAX_QUERIES: usize = 4;
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
    pub(in crate::shell) fn late_queries(&self) -> usize {
        let is_readers = |purpose: &Purpose| match purpose {
            Purpose::Asked(asked) => asked.reader.is_some(),
            Purpose::Look(_) => false,
        };
        let queries = self.queries.values();
        let late = queries.filter(|query| query.is_late && !is_readers(&query.purpose));
        late.count()
    }

    /// Ends all of them: who waits for an answer loses its connection, and the next listend does not know them.
    pub(super) fn kill_queries(&self) {
        self.queries.values().for_each(HelperQuery::kill);
    }

    /// When the first has to have answered.
    pub(super) fn query_due(&self) -> Option<Mono> {
        let waited_for = self.queries.values().filter(|query| !query.is_late);
        waited_for.map(|query| query.until).min()
    }

    /// The user behind a client who may only look.
    fn reader(&self, client: ClientId) -> Option<u32> {
        let peer = &self.clients.get(&client)?.peer;
        let may_act = peer.access(self.owner()) == Access::Act;
        (!may_act).then_some(peer.uid)
    }

    /// Whose process this is, if it is one that finds something out.
    pub(in crate::shell) fn query_of(&self, pid: i32) -> Option<QueryId> {
        let mut queries = self.queries.iter();
        queries
            .find(|(_, query)| query.pid == pid)
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
        // A reload may be what makes room.
        let lent = (question == Question::Reload).then(|| self.reserve.lend());
        let started = start(&self.control.config, question, about, &self.plan);
        let waited_for = started.and_then(|started| {
            let waited_for = self.await_query(started, Purpose::Asked(asked), TIME);
            waited_for.map_err(|(error, _)| error)
        });
        drop(lent);
        match waited_for {
            Ok(()) => true,
            Err(error) => {
                let why = worker::explain_fork(&error);
                let reason = format!("cannot start a helper process: {why}");
                log::warn!("{reason}");
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
        if asked.reader.is_none() && self.control.late_queries() >= MAX_LATE {
            return Some(format!(
                "{MAX_LATE} helper processes were killed and do not exit: they wait for a file \
                 system that does not answer"
            ));
        }
        let queries = self.control.queries.values();
        let readers = queries.filter_map(|query| match &query.purpose {
            Purpose::Asked(other) if other.question == Question::Reload => None,
            // What a reader asked stays the reader's until it has ended.
            Purpose::Asked(other) if !query.is_late || other.reader.is_some() => Some(other.reader),
            Purpose::Asked(_) | Purpose::Look(_) => None,
        });
        let alike = readers.filter(|reader| reader.is_some() == asked.reader.is_some());
        let alike: Vec<Option<u32>> = alike.collect();
        let own = alike.iter().filter(|reader| **reader == asked.reader);
        let (count, whose) = match asked.reader {
            Some(_) if own.count() >= MAX_OF_USER => (MAX_OF_USER, "of your user "),
            _ if alike.len() >= MAX_QUERIES => (MAX_QUERIES, ""),
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
    /// The helper cannot be watched, and is killed. Returns its purpose, because nothing else answers.
    pub(in crate::shell) fn await_query(
        &mut self,
        started: Forked,
        purpose: Purpose,
        time: Duration,
    ) -> Result<(), (io::Error, Option<Purpose>)> {
        let id = self.control.new_id();
        let query = HelperQuery {
            purpose,
            pid: started.pid,
            pidfd: started.pidfd,
            output: started.output,
            said: Vec::new(),
            told: Rc::clone(&self.plan),
            until: clock::now() + time,
            is_late: false,
        };
        let event = |part| EpollEvent::new(EpollFlags::EPOLLIN, Token::Control(part).pack());
        let output = event(ControlPart::QueryOutput(id));
        let end = event(ControlPart::QueryEnd(id));
        let watched = self.epoll.add(&query.output, output);
        let watched = watched.and_then(|()| self.epoll.add(&query.pidfd, end));
        // Also one that cannot be watched, so that it is reaped as a child of its kind.
        self.control.queries.insert(id, query);
        if let Err(errno) = watched {
            return Err((errno.into(), self.give_up_query(id)));
        }
        Ok(())
    }

    /// Kills those who have not answered in time. Nobody waits for them any more.
    pub(in crate::shell) fn queries_turn(&mut self) {
        if self.control.queries.is_empty() {
            return;
        }
        let now = clock::now();
        let all = self.control.queries.iter();
        let late = all.filter(|(_, query)| !query.is_late && query.until <= now);
        let late: Vec<QueryId> = late.map(|(id, _)| *id).collect();
        for id in late {
            let Some(purpose) = self.give_up_query(id) else {
                continue;
            };
            match purpose {
                Purpose::Asked(asked) => self.has_no_answer(asked),
                Purpose::Look(look) => self.looked(look, None),
            }
        }
    }

    /// Gives one up. What it was for.
    fn give_up_query(&mut self, id: QueryId) -> Option<Purpose> {
        let query = self.control.queries.get_mut(&id)?;
        query.kill();
        query.is_late = true;
        query.said = Vec::new();
        let _not_watched = self.epoll.delete(&query.output);
        let rest = match &query.purpose {
            Purpose::Asked(asked) => Purpose::Asked(*asked),
            Purpose::Look(look) => Purpose::Look(look.trace()),
        };
        Some(std::mem::replace(&mut query.purpose, rest))
    }

    /// Answers whoever asked, or the log.
    pub(super) fn tell(&mut self, client: Option<ClientId>, reply: &Reply) {
        // What there is to say to a signal is in the log.
        if let Some(client) = client {
            self.control.reply(&self.epoll, client, reply);
        }
    }

    /// The process has said something.
    pub(super) fn query_output(&mut self, id: QueryId) {
        let Some(query) = self.control.queries.get_mut(&id) else {
            return;
        };
        if !query.listen(false) {
            // Its end comes on its own.
            let _not_watched = self.epoll.delete(&query.output);
        }
        if query.said.len() > LONGEST {
            query.kill();
        }
    }

    /// The process has ended.
    pub(in crate::shell) fn query_end(&mut self, id: QueryId) {
        let Some(mut query) = self.control.queries.remove(&id) else {
            return;
        };
        query.listen(true);
        let _not_watched = self.epoll.delete(&query.output);
        let _not_watched = self.epoll.delete(&query.pidfd);
        let status = status_of(&query);
        if query.is_late {
            return log::debug!("helper process {} has exited", query.pid);
        }
        let purpose = std::mem::replace(&mut query.purpose, Purpose::Look(Look::Nothing));
        match purpose {
            Purpose::Asked(asked) => self.handle_answer(asked, status, &query),
            Purpose::Look(look) => self.looked(look, Some(&query.said)),
        }
    }

    fn handle_answer(&mut self, asked: Asked, status: Option<i32>, query: &HelperQuery) {
        let said = query.said.as_slice();
        let reply = match asked.question {
            Question::Upgrade => return self.preflight_ended(status, Some(said)),
            Question::DryRun => self.what_would_change(fetched(said, &query.told)),
            Question::Reload => {
                let fetched = fetched(said, &query.told);
                return self.reload_with(asked.client, fetched);
            }
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
            Question::Upgrade => self.preflight_ended(None, None),
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
        let Merge { plan, changes } = plan::merge(&self.plan, &self.sound_former(), *wanted);
        let tense = Tense::Conditional;
        let again = self.tried_again(&changes, tense).into_iter();
        let again = again.chain(self.bound_again(&plan, tense));
        let bound = |key| Some(&self.sockets.get(key)?.address);
        let changes: Vec<String> = changes.lines(tense, bound).chain(again).collect();
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
