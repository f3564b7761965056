//! Limits that nothing enforces where listend runs.

use crate::cgroup::{Obstacle, Whose, obstacles};
use crate::plan::{Plan, WorkerPlan};
use crate::report::{Kind, Problem};

/// An error for each obstacle of each worker, unless its sandbox does without what is missing.
pub fn limits(plan: &Plan, whose: Whose) -> Vec<Problem> {
    let workers = plan.workers().map(|(_, worker)| worker);
    workers.flat_map(|worker| of(worker, whose)).collect()
}

fn of(worker: &WorkerPlan, whose: Whose) -> Vec<Problem> {
    let sandbox = worker.sandbox.as_ref();
    let Some(sandbox) = sandbox.filter(|one| !one.limits.is_empty() && !one.is_best_effort())
    else {
        return Vec::new();
    };
    let mut found: Vec<(Obstacle, Vec<String>)> = Vec::new();
    for (key, obstacle) in obstacles(&sandbox.limits, whose) {
        let key = format!("`{key}`");
        match found.iter_mut().find(|(known, _)| *known == obstacle) {
            Some((_, keys)) => keys.push(key),
            None => found.push((obstacle, vec![key])),
        }
    }
    let problems = found.into_iter().map(|(obstacle, keys)| {
        let (name, keys) = (&worker.name, keys.join(", "));
        let message =
            format!("worker `{name}`: {keys} of its sandbox cannot be enforced: {obstacle}");
        let hint = format!("{}; `best_effort: true` starts without", obstacle.remedy());
        let problem = Problem::new(Kind::LimitNotEnforced, message).at(worker.place);
        problem.of_worker(name).with_hint(hint)
    });
    problems.collect()
}
