//! Checks `distribute: shards` against the worker's activation, and its listeners and their other workers.

use super::draft::{DraftWorker, Taken};
use super::model::{Activation, Distribute, Endpoint, Transport};
use super::value_error::ValueError;
use crate::report::{Kind, Report};

/// More shards than any machine has processors for; the program that chooses among so many is as long as the
/// kernel takes one.
const MOST_SHARDS: u32 = 1024;

/// Files every problem of a worker that is to have a socket for each instance. `other` says by which other
/// worker a listener is taken.
pub(super) fn check<'d>(
    draft: &DraftWorker,
    listeners: &[Taken<'d>],
    other: impl Fn(&str) -> Option<&'d DraftWorker>,
    report: &mut Report,
) {
    let worker = &draft.worker;
    let (name, place) = (&worker.name.value, worker.distribute.place);
    if worker.distribute.value != Distribute::Shards {
        return;
    }
    let why_not = match worker.activation.value {
        Activation::Eager => None,
        Activation::OnDemand => Some((
            "on-demand",
            "a client in the shard of an instance that has exited would wait, although others run",
        )),
        Activation::PerConnection => {
            Some(("per-connection", "listend accepts, and distributes nothing"))
        }
    };
    if let Some((activation, why)) = why_not {
        let value_error = ValueError::bad(format!(
            "`distribute: shards` is for `activation: eager`; worker `{name}` is {activation}: {why}"
        ))
        .hint("delete the key, or write `activation: eager`");
        report.add(value_error.at(place).of_worker(name));
        return;
    }
    for (wanted, listener) in listeners {
        one_listener(draft, (wanted, listener), &other, report);
    }
    let most = worker.most_instances();
    if most > MOST_SHARDS {
        let value_error = ValueError::bad(format!(
            "`distribute: shards` takes at most {MOST_SHARDS} instances, and worker `{name}` has {most}"
        ))
        .hint("delete the key, or lower `instances`");
        report.add(value_error.at(place).of_worker(name));
    }
    if most == 1 && !listeners.is_empty() {
        let value_error = ValueError::new(
            Kind::OneShard,
            format!(
                "worker `{name}` has one instance, so that `distribute: shards` makes no difference \
                 until it is scaled"
            ),
        )
        .hint("add `instances: N`, or delete `distribute`");
        report.add(value_error.at(place).of_worker(name));
    }
}

fn one_listener<'d>(
    draft: &DraftWorker,
    (wanted, listener): Taken<'d>,
    other: impl Fn(&str) -> Option<&'d DraftWorker>,
    report: &mut Report,
) {
    let name = &draft.worker.name.value;
    let listener = &listener.listener;
    let place = draft.worker.distribute.place;
    let addresses = listener.addresses.iter();
    let endpoints = addresses.flat_map(|address| &address.value.endpoints);
    let mut unfit = endpoints.filter(|endpoint| !is_tcp(endpoint));
    if let Some(endpoint) = unfit.next() {
        let value_error = ValueError::bad(format!(
            "`distribute: shards` is for TCP; `{endpoint}` of listener `{}` is {}",
            wanted.value,
            endpoint.kind().word()
        ))
        .hint("delete the key, or write a worker of its own for that listener");
        let problem = value_error.at(place).of_worker(name);
        report.add(problem.with_related(wanted.place, "the listener"));
    }
    let mut options = listener.options.iter();
    if let Some(option) = options.find(|option| option.value.spec.key == "reuse_port") {
        let value_error = ValueError::bad(format!(
            "listener `{}` has `reuse_port`, and worker `{name}` has `distribute: shards`, which sets \
             SO_REUSEPORT itself: sockets of other processes would be among the shards",
            wanted.value
        ))
        .hint("delete `reuse_port`");
        let problem = value_error.at(option.place).of_worker(name);
        report.add(problem.with_related(place, "the shards"));
    }
    if let Some(other) = other(&wanted.value) {
        let value_error = ValueError::bad(format!(
            "listener `{}` is taken by worker `{}` as well, and `distribute: shards` gives each instance \
             of `{name}` a socket of its own",
            wanted.value, other.worker.name.value
        ))
        .hint("delete the key, or write a listener of its own for each worker");
        let problem = value_error.at(place).of_worker(name);
        report.add(problem.with_related(wanted.place, "the listener"));
    }
}

fn is_tcp(endpoint: &Endpoint) -> bool {
    let tcp = Transport::Tcp;
    matches!(endpoint, Endpoint::Inet { transport, .. } if *transport == tcp)
}
