//! Reloads, from the request to the answer. The file is read by a process of its own
//! ([`super::helper_query`]), one at a time and in the order of the requests, so that what is in force in
//! the end is what was read last.

use super::answer::refusal;
use super::helper::{Fetched, Question};
use super::{GONE, WaitsFor};
use crate::control::{Error, Progress, Reply};
use crate::core::{Input, Refused, Ticket};
use crate::plan::Plan;
use crate::shell::looks::{Diagnosis, Tell};
use crate::shell::reload::Reloaded;
use crate::shell::token::ClientId;
use crate::shell::turn::Shell;

/// So many wait at most; the others are refused.
const MOST_WAITING: usize = 8;

/// Why a configuration is refused that [`Shell::is_emptied`] tells of.
pub(super) const EMPTIED: &str = "the configuration names neither a listener nor a worker";
/// And what does that on purpose.
pub(super) const HOW_TO_STOP: &str = "`listend stop` stops workers, and SIGTERM stops listend";

impl Shell {
    /// SIGHUP.
    pub(in crate::shell) fn reload_by_signal(&mut self) {
        if self.control.config.as_os_str().is_empty() {
            return log::info!("there is no file to reload: nothing changes");
        }
        self.request_reload(None);
    }

    /// Reads the configuration again as soon as nobody else does.
    pub(super) fn request_reload(&mut self, client: Option<ClientId>) {
        if self.core.is_stopping() {
            let reason = refusal(Refused::NotRunning).to_owned();
            return self.tell(client, &Reply::error(&Error::Refused { reason }));
        }
        if self.reloads.under_way {
            return self.wait_for_reload(client);
        }
        self.manager_reloading();
        self.reloads.under_way = self.send_out(client, Question::Reload, "");
        if !self.reloads.under_way {
            self.manager_reloaded();
        }
    }

    fn wait_for_reload(&mut self, client: Option<ClientId>) {
        let waiting = &mut self.reloads.waiting;
        match client {
            // What is read for the one signal is what the other is about, too.
            None if waiting.contains(&None) => {}
            Some(client) if waiting.len() >= MOST_WAITING => {
                let reason = format!("{MOST_WAITING} other reloads are pending; retry in a moment");
                self.tell(Some(client), &Reply::error(&Error::Refused { reason }));
            }
            Some(_) | None => waiting.push_back(client),
        }
    }

    /// The configuration was read again, for a client or, without one, for a signal.
    pub(super) fn reload_with(&mut self, client: Option<ClientId>, fetched: Fetched) {
        self.reloads.under_way = false;
        match fetched {
            Fetched::Plan(wanted, _) if self.is_emptied(&wanted) => {
                let reason = format!("{EMPTIED}; nothing has changed. {HOW_TO_STOP}");
                log::error!("{reason}");
                self.tell(client, &Reply::error(&Error::Refused { reason }));
            }
            Fetched::Plan(wanted, sources) => {
                let ticket = client.map(|client| self.ticket_for(client));
                match self.apply_plan(*wanted, &sources, ticket) {
                    Reloaded::InForce => self.accept_reload(client, ticket),
                    // What counts is what the file says when the address is free.
                    Reloaded::NotBound(plan, errors)
                        if self.reloads.is_free_soon(&plan, &errors) =>
                    {
                        ticket.map(|ticket| self.control.tickets.remove(&ticket));
                        self.reloads.under_way = true;
                        self.reloads.blocked = Some(client);
                        return self.feed(Input::ReloadBlocked);
                    }
                    // It is over when it is known why.
                    Reloaded::NotBound(plan, errors) => {
                        self.reloads.under_way = true;
                        let tell = Tell::Reload(client, Box::new(sources));
                        return self.diagnose(&plan, errors, tell);
                    }
                    Reloaded::Ending => {
                        let reason = refusal(Refused::NotRunning).to_owned();
                        self.tell(client, &Reply::error(&Error::Refused { reason }));
                    }
                }
            }
            Fetched::Bad { errors, rendered } => {
                let reason = "the configuration is invalid; nothing has changed";
                self.refuse_reload(client, reason, rendered, errors);
            }
            // The process that read the configuration was killed because of that.
            Fetched::Failed(_) if self.control.has_gone(client) => {
                log::warn!("cannot reload the configuration: {GONE}");
            }
            Fetched::Failed(reason) => {
                if client.is_none() {
                    log::error!("cannot reload the configuration: {reason}");
                }
                self.tell(client, &Reply::error(&Error::Failed { reason }));
            }
        }
        self.finish_reload();
    }

    /// Goes on with the reload that waits for an address.
    pub(in crate::shell) fn read_again(&mut self) {
        let Some(client) = self.reloads.blocked.take() else {
            return;
        };
        self.reloads.under_way = self.send_out(client, Question::Reload, "");
        if !self.reloads.under_way {
            self.finish_reload();
        }
    }

    fn finish_reload(&mut self) {
        // What it took to read a plan is a multiple of what it takes to have one.
        crate::sys::return_free_memory();
        self.manager_reloaded();
        while let Some(next) = self.next_reload() {
            self.request_reload(next);
        }
    }

    /// Who is to be served next: nobody, as long as a reload is under way. Who has gone meanwhile
    /// wants nothing any more.
    fn next_reload(&mut self) -> Option<Option<ClientId>> {
        if self.reloads.under_way {
            return None;
        }
        loop {
            let next = self.reloads.waiting.pop_front()?;
            if next.is_none_or(|client| self.control.waits_for(client).is_some()) {
                return Some(next);
            }
        }
    }

    fn ticket_for(&mut self, client: ClientId) -> Ticket {
        let ticket = Ticket(self.control.new_id());
        self.control.tickets.insert(ticket, client);
        self.control.waits(
            client,
            WaitsFor::Operation {
                ticket,
                done: "in effect".to_owned(),
                progress: (0, 0),
            },
        );
        ticket
    }

    fn accept_reload(&mut self, client: Option<ClientId>, ticket: Option<Ticket>) {
        let (Some(client), Some(ticket)) = (client, ticket) else {
            return;
        };
        // It may be over already, or somebody does not want to wait for the end.
        let no_wait = self.control.no_wait.remove(&client) || self.control.takes_no_reply(client);
        if no_wait && self.control.tickets.contains_key(&ticket) {
            let message = Some("in effect; workers follow".to_owned());
            let changes = self.control.changes.remove(&ticket);
            let progress = Progress {
                message,
                changes,
                ..Progress::default()
            };
            self.succeed(client, &Reply::last(&progress));
        }
    }

    /// Listeners could not be bound, and this is why.
    pub(in crate::shell) fn refuse_unbound(&mut self, client: Option<ClientId>, why: Diagnosis) {
        self.reloads.under_way = false;
        let reason = "not every listener could be bound; nothing has changed";
        self.refuse_reload(client, reason, why.rendered, why.errors);
        self.finish_reload();
    }

    fn refuse_reload(
        &mut self,
        client: Option<ClientId>,
        reason: &str,
        rendered: String,
        errors: Vec<serde_json::Value>,
    ) {
        log::error!("{reason}:\n{}", rendered.trim_end());
        let error = Error::NotReloaded {
            reason: reason.to_owned(),
            rendered,
            errors,
        };
        self.tell(client, &Reply::error(&error));
    }
}

impl Shell {
    /// Whether a configuration would take everything away from a daemon that runs something. It is
    /// refused: a file that is just being written is empty for a moment.
    pub(super) fn is_emptied(&self, wanted: &Plan) -> bool {
        is_empty(wanted) && !is_empty(&self.plan)
    }
}

fn is_empty(plan: &Plan) -> bool {
    plan.listeners.is_empty() && plan.workers.is_empty()
}
