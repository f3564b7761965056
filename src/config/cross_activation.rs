//! Checks a worker's activation and handoff against its listeners and their other workers.

use super::cross_readiness;
use super::cross_shards;
use super::draft::{DraftListener, DraftWorker, Sockets, Taken};
use super::fitting::listed;
use super::forward;
use super::idle;
use super::model::{Activation, Endpoint};
use super::scaling;
use super::value_error::ValueError;
use super::values::Located;
use crate::handoff::{self, Dialect};
use crate::report::{Kind, Place, Problem, Report};
use foldhash::{HashMap, HashMapExt};

/// Files every problem between a worker's activation or handoff and its listeners.
pub(super) fn check(
    workers: &[DraftWorker],
    by_name: &HashMap<&str, &DraftListener>,
    report: &mut Report,
) {
    for draft in workers.iter().filter(|draft| is_known(draft)) {
        let worker = &draft.worker;
        if worker.listeners.is_empty() {
            nothing_starts_it(draft, report);
        }
        let Some(listeners) = all_of(draft, by_name) else {
            continue;
        };
        let sockets = Sockets::of(&listeners);
        forward::listeners_fit(draft, &listeners, report);
        if worker.activation.value == Activation::PerConnection {
            if let (Some(with), Some(without)) = (sockets.accepting, sockets.others) {
                // Which of its limits mean something depends on how this is solved.
                report.add(mixed(draft, with, without));
                continue;
            }
            limits_fit(draft, &sockets, report);
        }
        idle::fits(draft, &listeners, report);
        scaling::fits(draft, &listeners, report);
        cross_readiness::check(draft, &listeners, &sockets, report);
        let other = |listener: &str| {
            let mut others = workers.iter().filter(|one| !std::ptr::eq(*one, draft));
            others.find(|one| {
                let mut taken = one.worker.listeners.iter();
                is_known(one) && taken.any(|taken| taken.value == listener)
            })
        };
        cross_shards::check(draft, &listeners, other, report);
        if draft.handoff.is_broken() {
            continue;
        }
        if worker.handoff.value.is_one_socket() {
            one_socket(draft, &sockets, report);
        }
        carried(draft, &listeners, &sockets, report);
        overridden(draft, &sockets, report);
    }
    shared(workers, by_name, report);
}

/// Whether the worker stays in the configuration, and its activation could be read.
fn is_known(draft: &DraftWorker) -> bool {
    !draft.duplicate && !draft.activation.is_broken()
}

/// The listeners of a worker; `None` if something about them is not known, which has been reported.
fn all_of<'d>(
    draft: &'d DraftWorker,
    by_name: &HashMap<&str, &'d DraftListener>,
) -> Option<Vec<Taken<'d>>> {
    if draft.listeners.is_broken() {
        return None;
    }
    let listeners = draft.worker.listeners.iter().map(|wanted| {
        let listener = by_name.get(wanted.value.as_str()).copied()?;
        (!listener.broken).then_some((wanted, listener))
    });
    listeners.collect()
}

fn nothing_starts_it(draft: &DraftWorker, report: &mut Report) {
    let worker = &draft.worker;
    if draft.listeners.is_broken() || worker.activation.value == Activation::Eager {
        return;
    }
    let name = &worker.name.value;
    let value_error = ValueError::bad(format!(
        "worker `{name}` has no listeners, so no client ever starts it"
    ))
    .hint("add `listeners: [NAME]`");
    report.add(value_error.at(worker.activation.place).of_worker(name));
}

type First<'d> = (Taken<'d>, &'d Endpoint);

fn mixed(draft: &DraftWorker, with: First, without: First) -> Problem {
    let name = &draft.worker.name.value;
    let said = |((wanted, _), endpoint): First| {
        let word = endpoint.kind().word();
        format!("`{endpoint}` of `{}` ({word})", wanted.value)
    };
    let value_error = ValueError::bad(format!(
        "worker `{name}` is per-connection and mixes sockets: {} has connections, {} has none",
        said(with),
        said(without),
    ))
    .hint("write one worker for each");
    let problem = value_error
        .at(draft.worker.activation.place)
        .of_worker(name)
        .with_related(with.0.0.place, "with connections");
    if with.0.0.place == without.0.0.place {
        return problem;
    }
    problem.with_related(without.0.0.place, "without")
}

/// A per-connection worker's limits are those of connections, or those of starts by a datagram.
fn limits_fit(draft: &DraftWorker, sockets: &Sockets, report: &mut Report) {
    let name = &draft.worker.name.value;
    if let (Some(((wanted, _), endpoint)), None) = (sockets.others, sockets.accepting) {
        for (key, place) in &draft.of_connections {
            let value_error = ValueError::bad(format!(
                "`{key}`: `{}` is {}, which has no connections; one process at a time gets it",
                wanted.value,
                endpoint.kind().word()
            ));
            let value_error = value_error.hint(match *key {
                "accept_rate" => "delete the key; `trigger_limit` is how often it may be started",
                _ => "delete the key",
            });
            let problem = value_error.at(*place).of_worker(name);
            report.add(problem.with_related(wanted.place, "the listener"));
        }
    }
    if let (Some(_), None, Some(place)) = (
        sockets.accepting,
        sockets.others,
        draft.trigger_limit.place(),
    ) {
        let value_error = ValueError::bad(
            "`trigger_limit`: with `activation: per-connection` listend accepts the clients itself",
        )
        .hint("write `accept_rate` instead");
        report.add(value_error.at(place).of_worker(name));
    }
}

/// inetd has one descriptor for what it passes on.
fn one_socket(draft: &DraftWorker, sockets: &Sockets, report: &mut Report) {
    let worker = &draft.worker;
    let accepts = worker.activation.value == Activation::PerConnection && sockets.others.is_none();
    // That no client starts it has been said.
    let none_is_known = sockets.count == 0 && worker.activation.value != Activation::Eager;
    if sockets.count == 1 || accepts || none_is_known {
        return;
    }
    let name = &worker.name.value;
    let (has, hint) = match sockets.count {
        0 => ("none".to_owned(), "add `listeners: [NAME]`"),
        many => (
            many.to_string(),
            "write one worker for each, or `handoff: systemd`; `localhost:PORT` is two sockets",
        ),
    };
    let value_error = ValueError::bad(format!(
        "`handoff: {}` passes on one socket; worker `{name}` has {has}",
        worker.handoff.value
    ))
    .hint(hint);
    let problem = value_error.at(worker.handoff.place).of_worker(name);
    report.add(match worker.listeners.get(1) {
        Some(second) => problem.with_related(second.place, "the second listener"),
        None => problem,
    });
}

/// The dialects of a worker, each with its place.
fn dialects(draft: &DraftWorker) -> Vec<Located<&'static Dialect>> {
    if let Some(written) = draft.handoff.as_set() {
        return written.value.clone();
    }
    let Located { value, place } = &draft.worker.handoff;
    let dialects = value.dialects().iter();
    let located = dialects.map(|dialect| Located {
        value: *dialect,
        place: *place,
    });
    located.collect()
}

/// Files what a dialect cannot pass: connections, or one of the sockets.
fn carried(draft: &DraftWorker, listeners: &[Taken], sockets: &Sockets, report: &mut Report) {
    let worker = &draft.worker;
    let name = &worker.name.value;
    let accepts =
        worker.activation.value == Activation::PerConnection && sockets.accepting.is_some();
    for Located {
        value: dialect,
        place,
    } in dialects(draft)
    {
        if accepts && !dialect.connections {
            let value_error = ValueError::bad(format!(
                "`handoff: {}` passes listeners; with `activation: per-connection` worker `{name}` \
                 gets a connection",
                dialect.keyword
            ));
            let can = that_can(|dialect| dialect.connections);
            let hint =
                format!("write `activation: eager` or `on-demand`; {can} can pass connections");
            report.add(value_error.hint(hint).at(place).of_worker(name));
            continue;
        }
        let all = listeners.iter().flat_map(|(wanted, listener)| {
            let addresses = listener.listener.addresses.iter();
            let endpoints = addresses.flat_map(|address| &address.value.endpoints);
            endpoints.map(move |endpoint| (wanted, endpoint))
        });
        // One of each is enough.
        let refused = all.into_iter().find_map(|(wanted, endpoint)| {
            let socket = endpoint.as_socket(&wanted.value, -1);
            let reason = (dialect.check)(&socket).err()?;
            Some((wanted, endpoint, socket, reason))
        });
        let Some((wanted, endpoint, socket, reason)) = refused else {
            continue;
        };
        let value_error = ValueError::bad(format!(
            "`handoff: {}` cannot pass `{endpoint}` of `{}` to worker `{name}`: {reason}",
            dialect.keyword, wanted.value
        ));
        let can = that_can(|dialect| (dialect.check)(&socket).is_ok());
        let problem = value_error.hint(format!("{can} can")).at(place);
        let problem = problem.of_worker(name).of_listener(&wanted.value);
        report.add(problem.with_related(wanted.place, "the listener"));
    }
}

/// Variables that the handoff sets over those of `environment`.
fn overridden(draft: &DraftWorker, sockets: &Sockets, report: &mut Report) {
    let worker = &draft.worker;
    if worker.activation.value == Activation::PerConnection && sockets.accepting.is_some() {
        return;
    }
    for (name, value) in &worker.environment {
        let Some(dialect) = worker.handoff.value.that_sets(name, sockets.count) else {
            continue;
        };
        let value_error = ValueError::bad(format!(
            "`{name}` is set by `handoff: {}`, for the sockets that it passes",
            dialect.keyword
        ))
        .hint("delete it, or write `handoff: none` to set it here with `{fd:NAME}`");
        let problem = value_error.at(value.place).of_worker(&worker.name.value);
        report.add(problem.with_related(worker.handoff.place, "the handoff"));
    }
}

/// The dialects that can do something, in words.
fn that_can(test: impl Fn(&Dialect) -> bool) -> String {
    let able = handoff::ALL.iter().filter(|dialect| test(dialect));
    let words: Vec<String> = able.map(|one| format!("`{}`", one.keyword)).collect();
    listed(&words, "and")
}

/// A worker that takes a listener, and where it says so.
type Taker<'d> = (&'d DraftWorker, Place);

/// Workers on the same listener, of which clients start at least one.
fn shared(workers: &[DraftWorker], by_name: &HashMap<&str, &DraftListener>, report: &mut Report) {
    let mut takers: HashMap<&str, Vec<Taker>> = HashMap::new();
    let mut ordered = Vec::new();
    for draft in workers.iter().filter(|draft| is_known(draft)) {
        for wanted in &draft.worker.listeners {
            let name = wanted.value.as_str();
            if by_name.contains_key(name) {
                let these = takers.entry(name).or_default();
                these.push((draft, wanted.place));
                // Once for each listener that has several.
                if these.len() == 2 {
                    ordered.push(name);
                }
            }
        }
    }
    for name in ordered {
        let these = takers.get(name).map_or(&[][..], Vec::as_slice);
        competing(name, these, report);
        also_eager(name, these, report);
    }
}

fn runs(taker: &Taker, when: Activation) -> bool {
    taker.0.worker.activation.value == when
}

/// Refuses a second worker at a listener whose connections listend accepts for one: which connections
/// it would get is a matter of luck.
fn competing(listener: &str, takers: &[Taker], report: &mut Report) {
    let at = takers
        .iter()
        .position(|taker| runs(taker, Activation::PerConnection));
    let Some(at) = at else { return };
    let other = usize::from(at == 0);
    let (Some((this, place)), Some((other, other_place))) = (takers.get(at), takers.get(other))
    else {
        return;
    };
    let (name, other) = (&this.worker.name.value, &other.worker.name.value);
    let value_error = ValueError::new(
        Kind::SharedPerConnection,
        format!(
            "listener `{listener}` of the per-connection worker `{name}` is used by `{other}` as \
             well: they would compete for its clients"
        ),
    )
    .hint("give each worker its own listener");
    let problem = value_error
        .at(*place)
        .with_related(*other_place, format!("`{other}` uses it here"));
    report.add(problem.of_worker(name).of_listener(listener));
}

/// A client wakes up everybody who waits for it.
fn also_eager(listener: &str, takers: &[Taker], report: &mut Report) {
    let Some((eager, eager_place)) = takers.iter().find(|taker| runs(taker, Activation::Eager))
    else {
        return;
    };
    let eager = &eager.worker.name.value;
    for (draft, place) in takers
        .iter()
        .filter(|taker| runs(taker, Activation::OnDemand))
    {
        let name = &draft.worker.name.value;
        let value_error = ValueError::new(
            Kind::SharedOnDemand,
            format!(
                "listener `{listener}` of the on-demand worker `{name}` is used by `{eager}` as \
                 well, which always runs: clients start `{name}`, even those that `{eager}` serves"
            ),
        )
        .hint("give each worker its own listener, or make both `on-demand`");
        let problem = value_error
            .at(*place)
            .with_related(*eager_place, format!("`{eager}` uses it here"));
        report.add(problem.of_worker(name).of_listener(listener));
    }
}
