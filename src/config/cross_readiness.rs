//! Checks a worker's `ready` against its listeners.

use super::draft::{DraftWorker, Sockets, Taken};
use super::life::{Every, Ready};
use super::model::Activation;
use super::value_error::ValueError;
use super::values::Located;
use crate::report::Report;

/// The first descriptor of a worker's own (SD_LISTEN_FDS_START, sd_listen_fds(3)).
const FIRST_FD: u64 = crate::handoff::FIRST_FD as u64;

/// Files a `ready` that the worker's sockets have no room for, or cannot show.
pub(super) fn check(
    draft: &DraftWorker,
    listeners: &[Taken],
    sockets: &Sockets,
    report: &mut Report,
) {
    // There nothing but `started` has a meaning, which has been said.
    if draft.worker.activation.value == Activation::PerConnection {
        return;
    }
    match draft.worker.ready.value {
        Ready::Started | Ready::Notify => {}
        Ready::Accepting(every) => can_be_seen(draft, every, listeners, sockets, report),
        Ready::Fd(number) => is_free(draft, number, sockets, report),
        Ready::Einhorn => knows_where(draft, report),
    }
}

fn can_be_seen(
    draft: &DraftWorker,
    every: Every,
    listeners: &[Taken],
    sockets: &Sockets,
    report: &mut Report,
) {
    let Located { place, .. } = draft.worker.ready;
    let name = &draft.worker.name.value;
    let Some((first, listener)) = listeners.first() else {
        let value_error = ValueError::bad(format!(
            "`ready: accepting`: worker `{name}` has no listeners to accept from"
        ))
        .hint("add `listeners: [NAME]`, or write `ready: notify` or `started`");
        return report.add(value_error.at(place).of_worker(name));
    };
    if sockets.accepting.is_none() {
        let value_error = ValueError::bad(format!(
            "`ready: accepting`: no socket of worker `{name}` has connections to accept"
        ))
        .hint("write `ready: notify`, `fd N` or `started`");
        let problem = value_error.at(place).of_worker(name);
        return report.add(match sockets.others {
            Some((_, endpoint)) => problem.with_related(
                first.place,
                format!("its first socket is {}", endpoint.kind().word()),
            ),
            None => problem,
        });
    }
    match every {
        Every::All => {}
        Every::First => {
            let addresses = listener.listener.addresses.iter();
            let mut endpoints = addresses.flat_map(|address| &address.value.endpoints);
            if endpoints.any(|endpoint| endpoint.accepts()) {
                return;
            }
            let value_error = ValueError::bad(format!(
                "`ready: accepting first`: `{}`, the first listener of worker `{name}`, has no \
                 connections to accept",
                first.value
            ))
            .hint("put one with connections first, or write `ready: accepting`");
            let problem = value_error.at(place).of_worker(name);
            report.add(problem.with_related(first.place, "the first listener"));
        }
    }
}

/// Whether the handoff names the socket at which it says that it is up.
fn knows_where(draft: &DraftWorker, report: &mut Report) {
    let worker = &draft.worker;
    let handoff = &worker.handoff;
    if draft.handoff.is_broken() || handoff.value.acknowledges() {
        return;
    }
    let name = &worker.name.value;
    let value_error = ValueError::bad(format!(
        "`ready: einhorn`: the handoff of worker `{name}` is {}, which does not say where",
        handoff.value
    ))
    .hint("write `handoff: einhorn`, or a list with it");
    let problem = value_error.at(worker.ready.place).of_worker(name);
    report.add(problem.with_related(handoff.place, "the handoff"));
}

/// Whether a descriptor number is free: with the handoff of systemd, sockets and stored descriptors
/// have the numbers from 3 on.
fn is_free(draft: &DraftWorker, number: i32, sockets: &Sockets, report: &mut Report) {
    let worker = &draft.worker;
    if draft.handoff.is_broken() || worker.handoff.value.is_one_socket() {
        return;
    }
    let taken = sockets.count as u64 + u64::from(worker.fd_store);
    let free = FIRST_FD + taken;
    // Numbers below 3 have been refused.
    let number = u64::try_from(number).unwrap_or(FIRST_FD);
    if number >= free {
        return;
    }
    let name = &worker.name.value;
    let whose = match (worker.fd_store, taken) {
        (0, 1) => "its socket",
        (0, _) => "its sockets",
        _ => "its sockets and for what it stores",
    };
    let which = match taken {
        1 => "descriptor 3 is".to_owned(),
        _ => format!("descriptors 3 to {} are", free - 1),
    };
    let value_error = ValueError::bad(format!(
        "`ready: fd {number}`: in worker `{name}` {which} for {whose}"
    ))
    .hint(format!(
        "write `fd {free}`; every number from there on is free"
    ));
    report.add(value_error.at(worker.ready.place).of_worker(name));
}
