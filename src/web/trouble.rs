//! What is wrong, the worst first: an operator reads it before anything else. Pure.

use crate::control::{Instance, Listener, ListenerState, Status, Worker, WorkerState};
use serde::Serialize;

/// Something that is not well: a listener, or a worker with all its instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// `listener` or `worker`.
    pub of: &'static str,
    /// The name in the configuration.
    pub name: String,
    /// The state in a word, or what has happened.
    pub word: String,
    /// Why, as far as it is known.
    pub why: String,
}

/// Everything that is not well.
pub fn of(status: &Status) -> Vec<Trouble> {
    let listeners = status.listeners.iter().filter(|one| !one.is_well());
    let workers = status.workers.iter().filter(|one| !one.is_well());
    let mut all: Vec<(u8, Trouble)> = listeners.map(of_listener).collect();
    all.extend(workers.map(of_worker));
    // Equals stay in the order of the configuration.
    all.sort_by_key(|(rank, _)| *rank);
    all.into_iter().map(|(_, trouble)| trouble).collect()
}

fn of_listener(listener: &Listener) -> (u8, Trouble) {
    let queues = listener.sockets.iter().filter_map(|socket| socket.queue);
    let drops: u64 = queues.clone().filter_map(|queue| queue.drops).sum();
    let depth: u64 = queues.filter_map(|queue| queue.depth).sum();
    let addresses: Vec<String> = listener
        .sockets
        .iter()
        .take(3)
        .map(|one| one.name())
        .collect();
    let place = addresses.join(", ");
    let (rank, why) = match listener.state {
        ListenerState::Missing => (1, format!("{place} is not bound; binding is retried")),
        ListenerState::Full => (
            2,
            format!("the queue of {place} is full: clients are turned away"),
        ),
        ListenerState::Dropping => (
            2,
            format!(
                "the kernel has dropped clients or messages at {place} within the last minute, {drops} in all"
            ),
        ),
        ListenerState::Unserved => (
            2,
            format!("no worker accepts its clients; {depth} wait at {place}"),
        ),
        ListenerState::Damaged => (
            3,
            format!("{place} accepts no clients; it is being repaired"),
        ),
        ListenerState::Listening
        | ListenerState::Former
        | ListenerState::Given
        | ListenerState::Other(_) => (4, place),
    };
    let trouble = Trouble {
        of: "listener",
        name: listener.name.clone(),
        word: listener.state.word().to_owned(),
        why,
    };
    (rank, trouble)
}

fn of_worker(worker: &Worker) -> (u8, Trouble) {
    let ill: Vec<&Instance> = worker
        .instances
        .iter()
        .filter(|one| !one.is_well())
        .collect();
    let failed = |one: &&&Instance| one.state == WorkerState::Failed;
    let retries = ill.iter().any(|one| one.retrying);
    let (rank, word) = match (&worker.setback, &worker.state) {
        (_, WorkerState::Failed) => (0, worker.state.word()),
        (Some(_), _) => (0, worker.setback_word()),
        (None, WorkerState::Backoff) => (3, worker.state.word()),
        (None, WorkerState::Starting) if retries => (3, "retrying"),
        (None, _) => (1, worker.state.word()),
    };
    let mut why: Vec<String> = worker.setback.iter().cloned().collect();
    // One speaks for all: there may be a thousand.
    if let Some(one) = ill.iter().find(failed).or(ill.first()) {
        let count = match worker.instances.len() {
            1 => String::new(),
            all => format!("{} of {all} instances: ", ill.len()),
        };
        let last = one
            .last_exit
            .as_deref()
            .unwrap_or("no process has ended yet");
        let (name, state) = (&one.name, one.word());
        let restarts = match one.restarts {
            0 => String::new(),
            1 => ", 1 restart".to_owned(),
            many => format!(", {many} restarts"),
        };
        why.push(format!("{count}{name} {state}: {last}{restarts}"));
    }
    if why.is_empty()
        && let Some(connections) = worker.connections.filter(|some| some.failures > 0)
    {
        let failures = connections.failures;
        why.push(format!(
            "the processes of the last {failures} connections failed"
        ));
    }
    let trouble = Trouble {
        of: "worker",
        name: worker.name.clone(),
        word: word.to_owned(),
        why: why.join("; "),
    };
    (rank, trouble)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn troubles(listeners: Value, workers: Value) -> Vec<(String, String, String)> {
        let status = json!({"listeners": listeners, "workers": workers});
        let status: Status = serde_json::from_value(status).unwrap();
        let all = of(&status).into_iter();
        all.map(|one| (one.name, one.word, one.why)).collect()
    }

    fn listener(name: &str, state: &str) -> Value {
        let queue = json!({"depth": 9, "limit": 8, "drops": 4});
        let socket = json!({"address": "127.0.0.1:80", "kind": "tcp", "queue": queue});
        json!({"name": name, "sockets": [socket], "state": state, "workers": []})
    }

    fn worker(name: &str, state: &str, setback: Option<&str>, states: &[&str]) -> Value {
        let instances = states.iter().enumerate().map(|(at, state)| {
            json!({"name": format!("{name}.{at}"), "pid": null, "state": state, "restarts": at,
                "since": "2026-01-31T12:00:00Z", "last_exit": format!("status {at}")})
        });
        json!({"name": name, "activation": "eager", "generation": 1, "state": state,
            "setback": setback, "instances": instances.collect::<Vec<_>>(), "listeners": []})
    }

    #[test]
    fn the_worst_is_first_and_each_is_told_once() {
        let listeners = json!([
            listener("fine", "listening"),
            listener("odd", "melted"),
            listener("drops", "dropping"),
            listener("gone", "missing"),
        ]);
        let workers = json!([
            worker("well", "running", None, &["running", "waiting"]),
            worker("again", "backoff", None, &["backoff"]),
            worker(
                "back",
                "degraded",
                Some("back.0: exit status 3"),
                &["running"]
            ),
            worker("dead", "failed", None, &["failed"]),
            worker(
                "half",
                "degraded",
                None,
                &["running", "backoff", "failed", "failed"]
            ),
        ]);
        let all = troubles(listeners, workers);
        let names: Vec<_> = all.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            ["back", "dead", "gone", "half", "drops", "again", "odd"]
        );
        let of = |name: &str| {
            let (_, word, why) = all.iter().find(|one| one.0 == name).unwrap();
            format!("{word}: {why}")
        };
        assert_eq!(of("back"), "rolled back: back.0: exit status 3");
        assert_eq!(of("dead"), "failed: dead.0 failed: status 0");
        assert_eq!(
            of("half"),
            "degraded: 3 of 4 instances: half.2 failed: status 2, 2 restarts"
        );
        assert!(of("drops").ends_with("at 127.0.0.1:80 within the last minute, 4 in all"));
        assert_eq!(of("odd"), "melted: 127.0.0.1:80");
    }

    #[test]
    fn what_is_well_is_no_trouble() {
        let workers = json!([worker("app", "stopped", None, &["stopped"])]);
        assert_eq!(troubles(json!([listener("web", "former")]), workers), []);
    }
}
