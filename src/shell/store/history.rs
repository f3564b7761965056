//! What has been, for whoever asks: lines of workers, events, counters, and why something is as it is.
//!
//! Nothing depends on it. It goes into the snapshot when another listend is about to go on in this process,
//! and only the reasons of workers, which change seldom, also in each turn.

use super::facts::{self, Fact};
use crate::core::{InstanceId, Revision};
use crate::output::Line;
use crate::plan::WorkerId;
use crate::shell::rollback_reasons::Lasting;
use crate::shell::turn::Shell;
use std::time::Duration;

/// What the listend before has told.
#[derive(Debug, Default)]
pub(super) struct History {
    reasons: Vec<facts::Reason>,
    ends: Vec<facts::End>,
    lines: Vec<facts::Line>,
    events: Vec<facts::Event>,
    counters: Vec<facts::Counters>,
    totals: Option<facts::Totals>,
}

/// Whether facts of a kind are history: what cannot be read of it is left out.
pub(super) fn is_history(kind: &str) -> bool {
    matches!(
        kind,
        "reason" | "end" | "line" | "event" | "counters" | "totals"
    )
}

impl History {
    /// Adds a fact, or gives it back if it is of another kind.
    pub(super) fn add(&mut self, fact: Fact) -> Option<Fact> {
        match fact {
            Fact::Reason(fact) => self.reasons.push(fact),
            Fact::End(fact) => self.ends.push(fact),
            Fact::Line(fact) => self.lines.push(fact),
            Fact::Event(fact) => self.events.push(fact),
            Fact::Counters(fact) => self.counters.push(fact),
            Fact::Totals(fact) => self.totals = Some(fact),
            other => return Some(other),
        }
        None
    }
}

impl Shell {
    /// Why a worker is in its state; `None` where there is nothing to say.
    pub(super) fn reason_fact(&self, worker: WorkerId) -> Option<Fact> {
        let of: Lasting = self.rollback_reasons.lasting(worker);
        (!of.is_empty()).then_some(Fact::Reason(facts::Reason { key: worker.0, of }))
    }

    /// Why workers are in their states.
    pub(super) fn reason_facts(&self) -> impl Iterator<Item = Fact> {
        let workers = self.rollback_reasons.workers().into_iter();
        workers.filter_map(|worker| self.reason_fact(worker))
    }

    /// Everything else that has been.
    pub(in crate::shell) fn history(&self) -> Vec<String> {
        let ends = (0..).zip(self.rollback_reasons.ends());
        let ends = ends.map(|(key, (instance, words))| {
            Fact::End(facts::End {
                key,
                worker: instance.worker.0,
                index: instance.index,
                generation: instance.generation,
                words: words.to_owned(),
            })
        });
        let lines = self.logs.all().into_iter().map(|(worker, line)| {
            Fact::Line(facts::Line {
                key: line.number,
                worker: u32::try_from(worker).unwrap_or(u32::MAX),
                index: line.instance,
                process: line.process,
                time: nanoseconds(line.time),
                continued: !line.is_start,
                text: String::from_utf8_lossy(&line.text).into_owned(),
            })
        });
        let events = (0..).zip(self.control.past_events());
        let events = events.map(|(key, event)| {
            let event = event.clone();
            Fact::Event(facts::Event { key, event })
        });
        let counters = self.metrics.counters.workers();
        let counters =
            counters.map(|(worker, of)| Fact::Counters(facts::Counters { key: worker.0, of }));
        let totals = Fact::Totals(facts::Totals {
            since: nanoseconds(self.metrics.started),
            reloads: self.metrics.counters.reloads,
            notifications: self.notify.counters,
        });
        let all = ends.chain(lines).chain(events).chain(counters);
        all.chain([totals]).map(|fact| fact.text()).collect()
    }

    /// Goes on with what the listend before has told, before anything happens.
    pub(super) fn recall(&mut self, history: History) {
        let History {
            reasons,
            ends,
            mut lines,
            mut events,
            counters,
            totals,
        } = history;
        for fact in reasons {
            self.rollback_reasons.restore(WorkerId(fact.key), fact.of);
        }
        for fact in ends {
            let instance = InstanceId {
                worker: WorkerId(fact.worker),
                index: fact.index,
                generation: fact.generation,
            };
            self.rollback_reasons.restore_end(instance, fact.words);
        }
        lines.sort_unstable_by_key(|fact| fact.key);
        for fact in lines {
            let worker = WorkerId(fact.worker);
            if self.definitions.latest(worker) == Revision(0) {
                continue;
            }
            let line = Line {
                number: fact.key,
                time: Duration::from_nanos(fact.time),
                instance: fact.index,
                process: fact.process,
                is_start: !fact.continued,
                text: fact.text.into_bytes(),
            };
            self.logs.keep(worker, line);
        }
        events.sort_unstable_by_key(|fact| fact.key);
        for fact in events {
            self.control.keep_event(fact.event);
        }
        for fact in counters {
            self.metrics.counters.restore(WorkerId(fact.key), fact.of);
        }
        if let Some(totals) = totals {
            self.metrics.started = Duration::from_nanos(totals.since);
            self.metrics.counters.reloads = totals.reloads;
            self.notify.counters = totals.notifications;
        }
    }
}

/// Nanoseconds since 1970. Saturates in the year 2554.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
