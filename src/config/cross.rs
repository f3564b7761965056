//! Checks that need all files: the names of listeners in workers and templates.

use super::cross_activation;
use super::draft::{Draft, DraftListener, DraftWorker};
use super::flows;
use super::model::{Activation, Endpoint};
use super::value_error::ValueError;
use super::values::SocketRef;
use crate::report::{Kind, Place, Report, did_you_mean, nearest};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use std::cell::Cell;

/// The listeners by name, and the names in the order of the files: of two names that are equally
/// near to a mistake, the first is suggested, every time.
struct Names<'d> {
    by_name: HashMap<&'d str, &'d DraftListener>,
    ordered: Vec<&'d str>,
    /// The number of names that may still be compared with a misspelt one: thousands of mistakes among
    /// thousands of names would take minutes, and nobody reads that many suggestions.
    comparisons: Cell<usize>,
}

/// The known name that is nearest to a misspelt one.
#[derive(Default)]
struct Suggestion<'d> {
    meant: Option<&'d str>,
    hint: Option<String>,
}

impl<'d> Names<'d> {
    fn suggest(&self, name: &str) -> Suggestion<'d> {
        let Some(left) = self.comparisons.get().checked_sub(self.ordered.len()) else {
            self.comparisons.set(0);
            return Suggestion::default();
        };
        self.comparisons.set(left);
        let meant = nearest(name, self.ordered.iter().copied());
        let hint = match meant {
            Some(meant) => Some(format!("did you mean `{meant}`?")),
            None if self.ordered.is_empty() => Some(format!("add `{name}` to `listeners:`")),
            None => did_you_mean(name, self.ordered.iter().copied().take(41)),
        };
        Suggestion { meant, hint }
    }
}

/// Files every problem between listeners and workers.
pub(super) fn check(draft: &Draft, report: &mut Report) {
    let kept = || draft.listeners.iter().filter(|draft| !draft.duplicate);
    let names = Names {
        by_name: kept()
            .map(|draft| (draft.listener.name.value.as_str(), draft))
            .collect(),
        ordered: kept()
            .map(|draft| draft.listener.name.value.as_str())
            .collect(),
        comparisons: Cell::new(200_000),
    };
    let mut used = HashSet::new();
    for worker in &draft.workers {
        listeners_of(worker, &names, draft.incomplete, &mut used, report);
        mentions_of(worker, &names, draft.incomplete, report);
    }
    nonblocking(draft, &names, report);
    runtime_directories(draft, report);
    cross_activation::check(&draft.workers, &names.by_name, report);
    flows::check(&draft.workers, &names.by_name, report);
    // A file or a list that could not be read may well use the listener, and so may a mistake
    // that was not compared with all names.
    let certain = !draft.incomplete && names.comparisons.get() > 0;
    if certain
        && !draft
            .workers
            .iter()
            .any(|worker| worker.listeners.is_broken())
    {
        unused(draft, &used, report);
    }
}

fn listeners_of<'d>(
    draft: &'d DraftWorker,
    names: &Names<'d>,
    incomplete: bool,
    used: &mut HashSet<&'d str>,
    report: &mut Report,
) {
    let worker = &draft.worker;
    // A worker that waits for clients is refused without a listener, by `cross_activation`.
    let eager = worker.activation.value == Activation::Eager || draft.activation.is_broken();
    if eager && worker.listeners.is_empty() && !draft.listeners.is_broken() && !draft.duplicate {
        let value_error = ValueError::new(
            Kind::NoListeners,
            format!("worker `{}` has no listeners", worker.name.value),
        )
        .hint("add `listeners: [NAME]`, or run it under another supervisor");
        report.add(
            value_error
                .at(worker.name.place)
                .of_worker(&worker.name.value),
        );
    }
    for wanted in &worker.listeners {
        used.insert(&wanted.value);
        if names.by_name.contains_key(wanted.value.as_str()) || incomplete {
            continue;
        }
        let suggestion = names.suggest(&wanted.value);
        // The listener that was probably meant is not called unused on top of it.
        used.extend(suggestion.meant);
        let value_error = ValueError::new(
            Kind::UnknownListener,
            format!("there is no listener `{}`", wanted.value),
        )
        .maybe_hint(suggestion.hint);
        report.add(value_error.at(wanted.place).of_worker(&worker.name.value));
    }
}

fn mentions_of(draft: &DraftWorker, names: &Names, incomplete: bool, report: &mut Report) {
    let worker = &draft.worker;
    let listeners = worker.listeners.iter();
    let all: HashSet<&str> = listeners.map(|listener| listener.value.as_str()).collect();
    for (place, mention) in &draft.mentions {
        let Some(named) = &mention.socket else {
            // One that is not there has been reported.
            if worker.listeners.is_empty() && !draft.listeners.is_broken() {
                let message = format!(
                    "worker `{}` has no listeners, so `{{{}}}` is empty",
                    worker.name.value, mention.what
                );
                let value_error = ValueError::new(Kind::BadTemplate, message)
                    .hint("name its listeners in the worker's `listeners`");
                report.add(value_error.at(*place).of_worker(&worker.name.value));
            }
            continue;
        };
        let name = named.listener.as_str();
        let listed = all.contains(name);
        let value_error = match names.by_name.get(name) {
            // An unknown listener in the worker's list has been reported there.
            None if listed || incomplete => continue,
            None => ValueError::new(
                Kind::UnknownListener,
                format!("there is no listener `{name}`"),
            )
            .maybe_hint(names.suggest(name).hint),
            Some(_) if !listed && draft.listeners.is_broken() => continue,
            Some(_) if !listed => ValueError::new(
                Kind::BadTemplate,
                format!(
                    "worker `{}` does not use listener `{name}`",
                    worker.name.value
                ),
            )
            .hint(format!("add `{name}` to the worker's `listeners`")),
            Some(listener) if listener.broken => continue,
            // All of its sockets, of whatever kind.
            Some(_) if mention.what == "fds" => continue,
            Some(listener) => match socket(mention.what, named, listener) {
                Ok(()) => continue,
                Err(value_error) => value_error,
            },
        };
        let mut problem = value_error.at(*place).of_worker(&worker.name.value);
        problem.listener = names.by_name.get(name).map(|_| name.to_owned());
        report.add(problem);
    }
}

/// Whether the listener has the socket, and the socket what is asked of it.
fn socket(what: &str, named: &SocketRef, draft: &DraftListener) -> Result<(), ValueError> {
    let name = &named.listener;
    let sockets: Vec<&Endpoint> = draft
        .listener
        .addresses
        .iter()
        .flat_map(|address| &address.value.endpoints)
        .collect();
    let index = named.index.unwrap_or(0);
    let Some(endpoint) = usize::try_from(index)
        .ok()
        .and_then(|index| sockets.get(index))
    else {
        let hint = match sockets.len() {
            1 => format!("it has one; write `{{{what}:{name}}}`"),
            many => format!(
                "it has {many}; write `{{{what}:{name}:0}}` to `{{{what}:{name}:{}}}`",
                many - 1
            ),
        };
        return Err(ValueError::new(
            Kind::BadTemplate,
            format!("listener `{name}` has no socket {index}"),
        )
        .hint(hint));
    };
    if matches!(what, "port" | "host") && !matches!(endpoint, Endpoint::Inet { .. }) {
        let message = match endpoint {
            Endpoint::Unix { .. } => {
                format!("listener `{name}` is a unix socket and has no {what}")
            }
            other => format!(
                "listener `{name}` is {}, whose {what} is not passed on alone",
                other.kind().word()
            ),
        };
        return Err(
            ValueError::new(Kind::BadTemplate, message).hint(format!("write `{{address:{name}}}`"))
        );
    }
    if named.index.is_none() && sockets.len() > 1 {
        return Err(ValueError::new(
            Kind::SeveralSockets,
            format!(
                "listener `{name}` has {} sockets; this is the first, `{endpoint}`",
                sockets.len()
            ),
        )
        .hint(match what {
            "fd" => format!(
                "write `{{fd:{name}:0}}` to say so, or `{{fds:{name}}}` for the numbers of all"
            ),
            _ => format!("write `{{{what}:{name}:0}}` to say so"),
        }));
    }
    Ok(())
}

/// O_NONBLOCK belongs to the socket, which all workers of a listener share. A per-connection worker
/// shares with nobody, and means its connections.
fn nonblocking(draft: &Draft, names: &Names, report: &mut Report) {
    let mut first: HashMap<&str, (&DraftWorker, Place)> = HashMap::new();
    let mut pairs = HashSet::new();
    for this in draft
        .workers
        .iter()
        .filter(|worker| !worker.duplicate && !worker.nonblocking.is_broken())
        .filter(|worker| !worker.activation.is_broken() && !worker.handoff.is_broken())
        .filter(|worker| worker.worker.activation.value != Activation::PerConnection)
    {
        for wanted in &this.worker.listeners {
            let Some(name) = names
                .by_name
                .get(wanted.value.as_str())
                .map(|_| wanted.value.as_str())
            else {
                continue;
            };
            let place = this
                .worker
                .nonblocking
                .as_ref()
                .map_or(wanted.place, |value| value.place);
            let (other, other_place) = *first.entry(name).or_insert((this, place));
            let wants = |draft: &DraftWorker| {
                let worker = &draft.worker;
                let default = worker.handoff.value.default_nonblocking();
                worker.nonblocking.as_ref().map_or(default, |one| one.value)
            };
            if wants(this) == wants(other) {
                continue;
            }
            let (this_name, other_name) = (&this.worker.name.value, &other.worker.name.value);
            if !pairs.insert((this_name, other_name)) {
                continue;
            }
            let says = |draft: &DraftWorker| {
                if wants(draft) {
                    "non-blocking"
                } else {
                    "blocking"
                }
            };
            let value_error = ValueError::new(
                Kind::NonblockingConflict,
                format!(
                    "workers `{other_name}` and `{this_name}` share listener `{name}`, which cannot be both {} and {}",
                    says(other),
                    says(this)
                ),
            )
            .hint("give both the same `nonblocking`, or each its own listener; the default is `false`, and `true` with `handoff: nginx`");
            let problem = value_error.at(place).with_related(
                other_place,
                format!("`{other_name}` needs it {}", says(other)),
            );
            report.add(problem.of_worker(this_name).of_listener(name));
        }
    }
}

/// Each is removed when its worker stops, whatever is in it.
fn runtime_directories(draft: &Draft, report: &mut Report) {
    let kept = draft.workers.iter().filter(|worker| !worker.duplicate);
    let written = kept.filter_map(|draft| {
        let directory = draft.worker.runtime_directory.as_ref()?;
        Some((directory, &draft.worker.name.value))
    });
    let mut written: Vec<_> = written.collect();
    // Part by part, so that what is in a folder follows it.
    written.sort_by(|(one, _), (other, _)| one.value.cmp(&other.value));
    let mut outer = None;
    for (directory, name) in written {
        let Some((around, of)) = outer else {
            outer = Some((directory, name));
            continue;
        };
        if !directory.value.starts_with(&around.value) {
            outer = Some((directory, name));
            continue;
        }
        let value_error = ValueError::bad(format!(
            "the runtime directory of worker `{name}` is that of worker `{of}`, or is in it"
        ))
        .hint("give each worker its own");
        let problem = value_error.at(directory.place).of_worker(name);
        report.add(problem.with_related(around.place, format!("that of `{of}`")));
    }
}

fn unused(draft: &Draft, used: &HashSet<&str>, report: &mut Report) {
    for DraftListener {
        listener,
        duplicate,
        ..
    } in &draft.listeners
    {
        let name = &listener.name;
        if *duplicate || used.contains(name.value.as_str()) {
            continue;
        }
        report.advise(Kind::UnusedListener, || {
            let value_error = ValueError::new(
                Kind::UnusedListener,
                format!("no worker uses listener `{}`", name.value),
            )
            .hint(format!(
                "add `{}` to the `listeners` of a worker",
                name.value
            ));
            value_error.at(name.place).of_listener(&name.value)
        });
    }
}
