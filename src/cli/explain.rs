//! `listend explain`: everything about one address, listener or worker on this machine.

mod facts;
mod text;

use super::args::Explain;
use super::check::{finish, try_all};
use super::exit::Exit;
use super::load::{self, Planned};
use super::output::{print, print_report};
use crate::config::{self, Endpoint, Setting, Source};
use crate::diagnose::{self, Machine, Tried};
use crate::plan::{ListenerId, ListenerPlan, Plan, SocketPlan, WorkerId, WorkerPlan};
use crate::report::{Kind, Problem, Report, Sources, did_you_mean, to_json};
use crate::sandbox::{self, Preset, Sandbox};
use crate::shell::logging::Sink;
use facts::{Configured, ConfiguredWorker, Explanation};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use text::text;

/// Explains and prints.
pub fn explain(arguments: &Explain, sink: Sink) -> Exit {
    let path = &arguments.config.path();
    let Found {
        plan,
        configured,
        worker,
        sources,
    } = match target(arguments, path) {
        Ok(found) => found,
        Err((report, sources)) => {
            if arguments.json {
                let text = format!("{:#}\n", to_json(&report, &sources));
                return finish(print(&text), Exit::Configuration);
            }
            print_report(&report, &sources, sink);
            return Exit::Configuration;
        }
    };
    // What is bound for a moment here is bound without the others: a listener is explained alone.
    let outcome = try_all(&plan);
    let machine = Machine::new();
    let mut findings = Report::default();
    // None where a worker alone is explained.
    let listener = plan.listeners.values().next();
    let mut held = vec![false; listener.map_or(0, |listener| listener.sockets.len())];
    let addresses = listener.map_or(0, |listener| listener.addresses().len());
    for error in &outcome.errors {
        let problem = diagnose::explain_for_check(error, &plan, &machine, path);
        held[error.socket] |= problem.kind == Kind::HeldByListend;
        findings.add(problem);
    }
    for note in &outcome.notes {
        findings.add(diagnose::note(note, &plan));
    }
    findings.extend(diagnose::advise(&plan, &machine, Tried::Yes));
    if configured.is_none() {
        findings.errors.iter_mut().for_each(unnamed);
        findings.advice.iter_mut().for_each(unnamed);
    }
    let facts = |(index, held): (usize, &bool)| {
        Some(diagnose::facts(listener?, index, &outcome, *held, &machine))
    };
    let explanation = Explanation {
        target: arguments.target.clone(),
        configured,
        worker,
        sockets: held
            .iter()
            .enumerate()
            .take(addresses)
            .filter_map(facts)
            .collect(),
        findings,
    };
    let exit = if explanation.findings.is_ok() {
        Exit::Done
    } else {
        Exit::Refused
    };
    let printed = if arguments.json {
        print(&format!("{:#}\n", as_json(&explanation, &sources)))
    } else {
        print(&text(&explanation, &sources))
    };
    finish(printed, exit)
}

/// Removes name and place from a problem with an address that was given on the command line.
fn unnamed(problem: &mut Problem) {
    if let Some(name) = problem.listener.take() {
        for words in [
            format!("listener `{name}` to "),
            format!("for listener `{name}` "),
            format!("listener `{name}`: "),
        ] {
            problem.message = problem.message.replace(&words, "");
        }
    }
    problem.place = None;
}

/// What is to be explained.
struct Found {
    /// A plan of one listener, or of none.
    plan: Plan,
    configured: Option<Configured>,
    worker: Option<ConfiguredWorker>,
    sources: Sources,
}

/// The listener and the worker of the configuration with this name, or a listener with the address.
fn target(arguments: &Explain, path: &Path) -> Result<Found, (Report, Sources)> {
    // Every address has a colon, but for those that lack their scheme and get a hint for it.
    let text = &arguments.target;
    if text.contains(':') || text.starts_with(['/', '@', '.', '~']) {
        address(arguments, path)
    } else if !arguments.config.is_given() && !path.exists() {
        // Nothing has a name.
        let report = nothing_of_name(text, path, &Plan::default());
        Err((report, Sources::default()))
    } else {
        let Planned {
            plan,
            report,
            sources,
            ..
        } = load::resolve(load::read_files(path));
        if !report.is_ok() {
            return Err((report, sources));
        }
        let worker = plan.workers().find(|(_, one)| one.name == *text);
        let worker = worker.map(|(id, _)| configured_worker(&plan, id, &sources));
        match plan.listeners().find(|(_, one)| one.name == *text) {
            Some((id, _)) => {
                let (plan, configured) = only(&plan, id);
                Ok(Found {
                    plan,
                    configured: Some(configured),
                    worker,
                    sources,
                })
            }
            None if worker.is_some() => Ok(Found {
                plan: Plan::default(),
                configured: None,
                worker,
                sources,
            }),
            None => Err((nothing_of_name(text, path, &plan), sources)),
        }
    }
}

fn configured_worker(plan: &Plan, id: WorkerId, sources: &Sources) -> ConfiguredWorker {
    let worker = plan.worker(id);
    let about_it = |problem: &Problem| problem.worker.as_ref() == Some(&worker.name);
    let advice = diagnose::servers(plan).into_iter();
    let advice = advice.chain(crate::worker::advise(plan));
    ConfiguredWorker {
        name: worker.name.clone(),
        place: worker.place,
        preset: worker.preset.as_ref().map(|preset| preset.value.name),
        settings: config::settings(sources, &worker.name),
        sandbox: worker.sandbox.as_deref().cloned(),
        advice: advice.filter(about_it).collect(),
    }
}

fn nothing_of_name(name: &str, path: &Path, plan: &Plan) -> Report {
    let listeners = plan.listeners.values().map(|one| one.name.as_str());
    let names = listeners.chain(plan.workers.values().map(|one| one.name.as_str()));
    let place = match path.exists() {
        true => format!(" in {}", path.display()),
        false => format!(": there is no {}", path.display()),
    };
    let message = format!("no listener or worker `{name}`{place}");
    let hint = match name.parse::<u16>() {
        Ok(port) => format!("write `:{port}` for the port"),
        Err(_) => did_you_mean(name, names).unwrap_or_else(|| {
            "an address contains a colon, like 127.0.0.1:8080 or :8080".to_owned()
        }),
    };
    let mut report = Report::default();
    report.add(Problem::new(Kind::UnknownListener, message).with_hint(hint));
    report
}

/// The plan with nothing but this listener and the workers that take it.
fn only(plan: &Plan, id: ListenerId) -> (Plan, Configured) {
    let listener = plan.listener(id);
    let takers = plan.workers();
    let takers = takers.filter(|(_, worker)| worker.listeners.contains(&id));
    let workers: Vec<WorkerPlan> = takers
        .map(|(_, worker)| WorkerPlan {
            listeners: vec![ListenerId(0)],
            ..worker.clone()
        })
        .collect();
    let configured = Configured {
        name: listener.name.clone(),
        place: listener.sockets.first().map(|socket| socket.place),
        workers: workers.iter().map(|worker| worker.name.clone()).collect(),
    };
    (Plan::new([listener.clone()], workers), configured)
}

/// An address as it could stand in a configuration; if it does stand there, that listener's
/// settings count.
fn address(arguments: &Explain, path: &Path) -> Result<Found, (Report, Sources)> {
    let mut loaded =
        config::from_arguments(std::slice::from_ref(&arguments.target), &["-".to_owned()]);
    loaded.config.workers.clear();
    let Planned {
        plan,
        report,
        sources,
        ..
    } = load::resolve(loaded);
    if !report.is_ok() || plan.listeners.is_empty() {
        return Err((report, sources));
    }
    // There need not be one at the usual place.
    if !arguments.config.is_given() && !path.exists() {
        return Ok(unconfigured(plan, sources));
    }
    let configured = load::resolve(load::read_files(path));
    if !configured.report.is_ok() {
        if arguments.config.is_given() {
            return Err((configured.report, configured.sources));
        }
        return Ok(unconfigured(plan, sources));
    }
    let wanted = plan.listeners.values().flat_map(|one| &one.sockets);
    let wanted: Vec<&SocketPlan> = wanted.collect();
    let is_it = |listener: &ListenerPlan| {
        let has = |endpoint: &Endpoint| {
            listener
                .sockets
                .iter()
                .any(|socket| socket.endpoint == *endpoint)
        };
        wanted.iter().all(|socket| has(&socket.endpoint))
    };
    match configured.plan.listeners().find(|(_, one)| is_it(one)) {
        Some((id, _)) => {
            let (mut whole, found) = only(&configured.plan, id);
            // Only what was asked about: the listener may have other addresses.
            for listener in whole.listeners.values_mut() {
                Arc::make_mut(listener)
                    .sockets
                    .retain(|socket| wanted.iter().any(|one| one.endpoint == socket.endpoint));
            }
            Ok(Found {
                plan: whole,
                configured: Some(found),
                worker: None,
                sources: configured.sources,
            })
        }
        None => Ok(unconfigured(plan, sources)),
    }
}

fn unconfigured(plan: Plan, sources: Sources) -> Found {
    Found {
        plan,
        configured: None,
        worker: None,
        sources,
    }
}

/// An explanation as JSON:
/// `{"target":…,"listener":{…},"worker":{…},"sockets":[…],"errors":[…],"advice":[…]}`.
fn as_json(explanation: &Explanation, sources: &Sources) -> Value {
    let mut out = json!({ "target": explanation.target });
    if let Some(configured) = &explanation.configured {
        out["listener"] = json!({ "name": configured.name, "workers": configured.workers });
        if let Some(place) = configured.place {
            out["listener"]["file"] = json!(sources.name(place.file));
            out["listener"]["line"] = json!(place.line);
            out["listener"]["column"] = json!(place.column);
        }
    }
    out["sockets"] = json!(explanation.sockets);
    let mut findings = explanation.findings.clone();
    if let Some(worker) = &explanation.worker {
        let settings: Vec<Value> = worker
            .settings
            .iter()
            .map(|one| setting(one, sources))
            .collect();
        out["worker"] = json!({
            "name": worker.name, "preset": worker.preset, "settings": settings,
            "sandbox": sandbox(worker.sandbox.as_ref()),
        });
        worker
            .advice
            .iter()
            .cloned()
            .for_each(|one| findings.add(one));
    }
    let problems = to_json(&findings, sources);
    out["errors"] = problems["errors"].clone();
    out["advice"] = problems["advice"].clone();
    out
}

/// `{"preset":…,"score":…,"keys":[{"key":…,"value":…,"closed":…,"enforced_by":…}],"next":…}`
fn sandbox(sandbox: Option<&Sandbox>) -> Value {
    let lines = sandbox::lines(sandbox);
    let keys = lines.iter().map(|line| {
        json!({
            "key": line.key, "value": line.value, "closed": line.closed,
            "enforced_by": line.enforced_by,
        })
    });
    json!({
        "preset": sandbox.and_then(|one| one.preset).map(Preset::word),
        "score": f64::from(sandbox::score(&lines).0) / 10.0,
        "keys": keys.collect::<Vec<Value>>(),
        "next": sandbox::next_step(&lines).map(|line| line.key),
    })
}

fn setting(setting: &Setting, sources: &Sources) -> Value {
    let mut out = json!({ "key": setting.key, "value": setting.value });
    out["source"] = json!(match setting.source {
        Source::Written(_) => "written",
        Source::Preset(_) => "preset",
        Source::Default => "default",
    });
    if let Source::Written(place) = setting.source {
        out["file"] = json!(sources.name(place.file));
        out["line"] = json!(place.line);
        out["column"] = json!(place.column);
    }
    out
}
