//! The advice that nobody wants to hear.

use super::Config;
use crate::report::{Problem, Report};
use std::collections::HashMap;

/// The codes of `silence:`, kept apart so that the configuration can be dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Silence {
    everywhere: Vec<String>,
    listeners: HashMap<String, Vec<String>>,
    workers: HashMap<String, Vec<String>>,
}

impl Silence {
    /// Collects the codes of the configuration, its listeners and its workers.
    pub fn of(config: &Config) -> Silence {
        let listeners = config.every_listener();
        let workers = config.workers.iter();
        Silence {
            everywhere: config.silence.clone(),
            listeners: named(listeners.map(|one| (&one.name.value, &one.silence))),
            workers: named(workers.map(|one| (&one.name.value, &one.silence))),
        }
    }

    /// Drops the advice that is not wanted. Errors stay.
    pub fn apply(&self, report: &mut Report) {
        if *self != Silence::default() {
            report.advice.retain(|problem| !self.covers(problem));
            report
                .omitted
                .retain(|(kind, _)| !self.everywhere.contains(&kind.code()));
        }
    }

    fn covers(&self, problem: &Problem) -> bool {
        let code = problem.kind.code();
        let silenced = |codes: &Vec<String>| codes.contains(&code);
        let of = |map: &HashMap<String, Vec<String>>, name: &Option<String>| {
            let codes = name.as_ref().and_then(|name| map.get(name));
            codes.is_some_and(silenced)
        };
        silenced(&self.everywhere)
            || of(&self.listeners, &problem.listener)
            || of(&self.workers, &problem.worker)
    }
}

fn named<'a>(
    all: impl Iterator<Item = (&'a String, &'a Vec<String>)>,
) -> HashMap<String, Vec<String>> {
    all.filter(|(_, codes)| !codes.is_empty())
        .map(|(name, codes)| (name.clone(), codes.clone()))
        .collect()
}
