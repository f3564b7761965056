//! Reloads, from the request to the answer. The file is read by a process of its own
//! ([`super::errand`]), one at a time and in the order of the requests, so that what is in force in
//! the end is what was read last.

use super::WaitsFor;
use super::client::ClientId;
use super::errand::{Fetched, Question};
use crate::control::{Error, Progress, Reply};
use crate::core::Ticket;
use crate::report::{self, Report, Sources, Style};
use crate::shell::reload::Reloaded;
use crate::shell::turn::Shell;
use std::collections::VecDeque;

/// So many wait at most; the others are refused.
const MOST_WAITING: usize = 8;

/// The reload that is being read, and those that wait.
#[derive(Debug, Default)]
pub(in crate::shell) struct Reloads {
    under_way: bool,
    /// `None` is a signal.
    waiting: VecDeque<Option<ClientId>>,
}

impl Shell {
    /// SIGHUP.
    pub(in crate::shell) fn reload_by_signal(&mut self) {
        if self.control.config.as_os_str().is_empty() {
            return log::info!("there is no file to read again: nothing changes");
        }
        self.request_reload(None);
    }

    /// Reads the configuration again as soon as nobody else does.
    pub(super) fn request_reload(&mut self, client: Option<ClientId>) {
        if self.reloads.under_way {
            if self.reloads.waiting.len() < MOST_WAITING {
                return self.reloads.waiting.push_back(client);
            }
            let reason = format!("{MOST_WAITING} other reloads wait; try again in a moment");
            return self.tell(client, &Reply::error(&Error::Refused { reason }));
        }
        self.manager_reloading();
        self.reloads.under_way = self.send_out(client, Question::Reload, "");
    }

    /// The configuration was read again, for a client or, without one, for a signal.
    pub(super) fn reload_with(&mut self, client: Option<ClientId>, fetched: Fetched) {
        self.reloads.under_way = false;
        match fetched {
            Fetched::Plan(wanted, sources) => {
                let ticket = client.map(|client| self.ticket_for(client));
                match self.take_over(*wanted, &sources, ticket) {
                    Reloaded::InForce(changes) => self.is_in_force(client, ticket, changes),
                    Reloaded::NotBound(report) => self.is_not_bound(client, &report, &sources),
                }
            }
            Fetched::Bad { errors, rendered } => {
                let reason = "the configuration is bad; nothing has changed";
                self.is_refused(client, reason, rendered, errors);
            }
            Fetched::Failed(reason) => {
                if client.is_none() {
                    log::error!("cannot read the configuration again: {reason}");
                }
                self.tell(client, &Reply::error(&Error::Failed { reason }));
            }
        }
        self.perform_effects();
        self.manager_reloaded();
        if let Some(next) = self.reloads.waiting.pop_front() {
            self.request_reload(next);
        }
    }

    fn ticket_for(&mut self, client: ClientId) -> Ticket {
        let ticket = Ticket(self.control.new_id());
        self.control.tickets.insert(ticket, client);
        self.control.waits(
            client,
            WaitsFor::Operation {
                ticket,
                done: "in force".to_owned(),
                progress: (0, 0),
            },
        );
        ticket
    }

    fn is_in_force(
        &mut self,
        client: Option<ClientId>,
        ticket: Option<Ticket>,
        changes: Vec<String>,
    ) {
        let (Some(client), Some(ticket)) = (client, ticket) else {
            return;
        };
        self.control.changes.insert(ticket, changes);
        // It may be over already, or somebody does not want to wait for the end.
        self.perform_effects();
        let no_wait = self.control.no_wait.remove(&client) || self.control.takes_no_reply(client);
        if no_wait && self.control.tickets.contains_key(&ticket) {
            let message = Some("in force; workers follow".to_owned());
            let changes = self.control.changes.remove(&ticket);
            let progress = Progress {
                message,
                changes,
                ..Progress::default()
            };
            self.succeed(client, &Reply::last(&progress));
        }
    }

    fn is_not_bound(&mut self, client: Option<ClientId>, report: &Report, sources: &Sources) {
        let rendered = report::render(report, sources, Style::Plain);
        let whole = report::to_json(report, sources);
        let errors = whole["errors"].as_array().cloned().unwrap_or_default();
        let reason = "not every listener could be bound; nothing has changed";
        self.is_refused(client, reason, rendered, errors);
    }

    fn is_refused(
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
