//! `workers:` → [`Worker`].

use super::activation::{self, TRIGGER_LIMIT, Written};
use super::command;
use super::complaint::{Complaint, Out};
use super::decode::{Entry, Fields, account, entries, read_template, silence, text, texts};
use super::keys;
use super::life::{Hooks, KillMode, OnFailure, Ready, Reload, Restart, Rollout};
use super::lifecycle;
use super::model::{
    Activation, ConnectionLimits, EnvironmentFile, Limit, Located, Output, Piece, Resource,
    Template, Worker,
};
use super::readiness;
use super::scalar;
use super::template::Mention;
use super::yaml::{Content, Node};
use crate::report::{Kind, Place, Report, did_you_mean};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// A worker, and what the checks across the whole configuration must know about it.
pub(super) struct DraftWorker {
    pub worker: Worker,
    /// Where its templates name listeners.
    pub mentions: Vec<(Place, Mention)>,
    /// `listeners:` could not be read in full, so it is not known which it takes.
    pub listeners_broken: bool,
    /// Whether it wants O_NONBLOCK could not be read.
    pub nonblocking_broken: bool,
    /// What it says about how it runs.
    pub written: Written,
    /// The name was taken before; it is left out of the configuration.
    pub duplicate: bool,
}

/// How long a worker may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an instance may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// A worker without a command and with everything else at its default.
pub(super) fn plain(name: &str, place: Place) -> Worker {
    Worker {
        name: Located {
            value: name.to_owned(),
            place,
        },
        command: Vec::new(),
        argv0: None,
        expand_environment: false,
        listeners: Vec::new(),
        instances: 1,
        handoff: Located {
            value: crate::handoff::ALL[0],
            place,
        },
        activation: Located {
            value: Activation::Eager,
            place,
        },
        trigger_limit: Some(TRIGGER_LIMIT),
        connections: ConnectionLimits::DEFAULT,
        nonblocking: None,
        user: None,
        group: None,
        supplementary_groups: None,
        working_directory: None,
        runtime_directory: None,
        runtime_directory_mode: 0o755,
        runtime_directory_preserve: false,
        umask: None,
        environment: Vec::new(),
        environment_files: Vec::new(),
        limits: Vec::new(),
        nice: None,
        ignore_sigpipe: true,
        oom_score_adjust: None,
        output: Output::Inherit,
        restart: Restart::default(),
        stop_signal: nix::libc::SIGTERM,
        kill_mode: KillMode::Process,
        stop_timeout: Some(STOP_TIMEOUT),
        ready: Located {
            value: Ready::Started,
            place,
        },
        start_timeout: Some(START_TIMEOUT),
        watchdog: None,
        notify_access: None,
        fd_store: 0,
        rollout: Rollout::default(),
        reload: None,
        on_failure: OnFailure::Hold,
        hooks: Hooks::default(),
        silence: Vec::new(),
    }
}

/// Reads one entry of `workers:`; relative paths are resolved against `folder`.
pub(super) fn decode(entry: &Entry, folder: &Path, report: &mut Report) -> DraftWorker {
    let mut out = Out {
        report,
        listener: None,
        worker: Some(entry.name),
    };
    out.check(entry.place, scalar::name(entry.name));
    let mut draft = DraftWorker {
        worker: plain(entry.name, entry.place),
        mentions: Vec::new(),
        listeners_broken: false,
        nonblocking_broken: false,
        written: Written::default(),
        duplicate: false,
    };
    if let Content::Null { .. } = entry.value.content {
        no_command(entry, &mut out);
        draft.listeners_broken = true;
        return draft;
    }
    let what = format!("worker `{}`", entry.name);
    match Fields::open(entry.value, keys::WORKER, &what, &["output"], &mut out) {
        None => draft.listeners_broken = true,
        Some(mut fields) => {
            let flag = |text: &str| scalar::boolean("expand_environment", text);
            let expand = fields.read("expand_environment", &mut out, flag);
            draft.worker.expand_environment = expand.is_some_and(|expand| expand.value);
            match fields.take("command") {
                None => no_command(entry, &mut out),
                Some(node) => command::of_worker(node, &mut draft, &mut out),
            }
            if let Some(node) = fields.take("argv0")
                && let Some(text) = text(node, "argv0", &mut out)
            {
                let value = read_template(text, node.place, &mut draft.mentions, &mut out);
                let place = node.place;
                draft.worker.argv0 = Some(Located { value, place });
            }
            sockets(&mut fields, &mut draft, &mut out);
            readiness::decode(&mut fields, &mut draft, &mut out);
            activation::decode(&mut fields, &mut draft, &mut out);
            launch(&mut fields, folder, &mut draft, &mut out);
            lifecycle::decode(&mut fields, &mut draft, &mut out);
            draft.worker.silence = silence(fields.take("silence"), &mut out);
            fields.finish();
            runtime_dir_fits(&draft.worker, &mut out);
            activation::instances_fit(&draft, &mut out);
            readiness::handoff_fits(&draft, &mut out);
            readiness::variables_fit(&draft, &mut out);
        }
    }
    draft
}

fn no_command(entry: &Entry, out: &mut Out) {
    let complaint = Complaint::new(
        Kind::MissingKey,
        format!("worker `{}` has no `command`", entry.name),
    );
    out.add(
        complaint
            .hint("add `command: [/path/to/program, argument]`")
            .at(entry.place),
    );
}

fn sockets(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Out) {
    if let Some(node) = fields.take("listeners") {
        let listeners = texts(node, "listeners", out);
        draft.listeners_broken = match &node.content {
            Content::List(items) => items.len() != listeners.len(),
            _ => listeners.is_empty(),
        };
        let mut seen = HashMap::with_capacity(listeners.len());
        for name in listeners {
            match seen.get(&name.value).copied() {
                None => {
                    seen.insert(name.value.clone(), name.place);
                    draft.worker.listeners.push(name);
                }
                Some(first) => {
                    let complaint = Complaint::bad(format!(
                        "listener `{}` stands twice in the list",
                        name.value
                    ))
                    .hint("delete one of them");
                    out.add(
                        complaint
                            .at(name.place)
                            .with_related(first, "first written here"),
                    );
                }
            }
        }
    }
    let errors = out.report.error_count();
    let nonblocking = fields.read("nonblocking", out, |text| {
        scalar::boolean("nonblocking", text)
    });
    draft.nonblocking_broken = nonblocking.is_none() && out.report.error_count() > errors;
    draft.worker.nonblocking = nonblocking;
}

/// What is done to the process before it runs.
fn launch(fields: &mut Fields, folder: &Path, draft: &mut DraftWorker, out: &mut Out) {
    let worker = &mut draft.worker;
    worker.user = fields.read("user", out, |text| account("user", text));
    worker.group = fields.read("group", out, |text| account("group", text));
    worker.supplementary_groups = fields.take("supplementary_groups").map(|node| {
        let mut groups = texts(node, "supplementary_groups", out);
        groups.retain(|group| {
            out.check(group.place, account("supplementary_groups", &group.value))
                .is_some()
        });
        groups
    });
    if let Some(node) = fields.take("working_directory")
        && let Some(text) = text(node, "working_directory", out)
    {
        let template = read_template(text, node.place, &mut draft.mentions, out);
        out.check(node.place, absolute("working_directory", &template, text));
        worker.working_directory = Some(Located {
            value: template,
            place: node.place,
        });
    }
    runtime_directory(fields, worker, out);
    let umask = fields.read("umask", out, |text| scalar::mode("umask", text));
    worker.umask = umask.map(|umask| umask.value);
    if let Some(node) = fields.take("environment") {
        environment(node, worker, &mut draft.mentions, out);
    }
    if let Some(node) = fields.take("environment_file") {
        worker.environment_files = environment_files(node, folder, out);
    }
    if let Some(node) = fields.take("limits") {
        worker.limits = limits(node, out);
    }
    worker.nice = small(fields, "nice", -20, 19, out);
    worker.oom_score_adjust = small(fields, "oom_score_adjust", -1000, 1000, out);
    let ignored = fields.read("ignore_sigpipe", out, |text| {
        scalar::boolean("ignore_sigpipe", text)
    });
    worker.ignore_sigpipe = ignored.is_none_or(|ignored| ignored.value);
    if let Some(node) = fields.take("output") {
        worker.output = output(node, &mut draft.mentions, out);
    }
}

fn runtime_directory(fields: &mut Fields, worker: &mut Worker, out: &mut Out) {
    worker.runtime_directory = fields.read("runtime_directory", out, |text| {
        let path = PathBuf::from(text);
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if text.is_empty() || text.contains('\0') || !path.components().all(is_plain) {
            return Err(Complaint::bad(format!(
                "`runtime_directory`: `{text}` is not a path below /run"
            ))
            .hint("write a name, like `app`, or a relative path without `..`"));
        }
        Ok(path.components().collect())
    });
    let key = "runtime_directory_mode";
    let mode = fields.read(key, out, |text| scalar::mode(key, text));
    let key = "runtime_directory_preserve";
    let preserve = fields.read(key, out, |text| scalar::boolean(key, text));
    if worker.runtime_directory.is_none() {
        let mode = mode
            .as_ref()
            .map(|mode| ("runtime_directory_mode", mode.place));
        let preserve = preserve.as_ref().map(|preserve| (key, preserve.place));
        for (key, place) in mode.into_iter().chain(preserve) {
            let complaint = Complaint::bad(format!("`{key}` without a `runtime_directory`"));
            out.add(
                complaint
                    .hint("add `runtime_directory: NAME`, or delete it")
                    .at(place),
            );
        }
    }
    worker.runtime_directory_mode = mode.map_or(0o755, |mode| mode.value);
    worker.runtime_directory_preserve = preserve.is_some_and(|preserve| preserve.value);
}

/// Refuses `{runtime_dir}` in a worker that has none.
fn runtime_dir_fits(worker: &Worker, out: &mut Out) {
    if worker.runtime_directory.is_some() {
        return;
    }
    let command = worker.command.iter().chain(&worker.argv0);
    let variables = worker.environment.iter().map(|(_, value)| value);
    let written = command.chain(variables).chain(&worker.working_directory);
    let written = written.map(|template| (&template.value, template.place));
    let hooks = &worker.hooks;
    let reload = match &worker.reload {
        Some(Reload::Command(hook)) => Some(hook),
        Some(Reload::Signal(_)) | None => None,
    };
    let hooks = [&hooks.before_start, &hooks.after_ready, &hooks.after_stop];
    let hooks = hooks.into_iter().flatten().chain(reload);
    let output = match &worker.output {
        Output::File(path) => Some(path),
        Output::Inherit | Output::Null | Output::Tag | Output::TagJson | Output::Journal => None,
    };
    let others = hooks.flat_map(|hook| &hook.command).chain(output);
    let others = others.map(|template| (template, worker.name.place));
    for (template, place) in written.chain(others) {
        if template.pieces.contains(&Piece::RuntimeDir) {
            let message = "`{runtime_dir}` in a worker without a `runtime_directory`";
            let complaint = Complaint::new(Kind::BadTemplate, message);
            out.add(
                complaint
                    .hint("add `runtime_directory: NAME` to the worker")
                    .at(place),
            );
        }
    }
}

fn small(
    fields: &mut Fields,
    key: &'static str,
    min: i32,
    max: i32,
    out: &mut Out,
) -> Option<Located<i32>> {
    let number = fields.read(key, out, |text| {
        scalar::integer(key, text, i64::from(min), i64::from(max))
    })?;
    Some(Located {
        value: i32::try_from(number.value).ok()?, // The bounds are i32.
        place: number.place,
    })
}

fn absolute(key: &str, template: &Template, text: &str) -> Result<(), Complaint> {
    match template.pieces.first() {
        Some(Piece::Text(start)) if start.starts_with('/') => Ok(()),
        Some(Piece::RuntimeDir) => Ok(()),
        _ => Err(
            Complaint::bad(format!("`{key}`: `{text}` is not an absolute path"))
                .hint("write the path from `/` on"),
        ),
    }
}

fn environment(
    node: &Node,
    worker: &mut Worker,
    mentions: &mut Vec<(Place, Mention)>,
    out: &mut Out,
) {
    for entry in entries(node, "`environment`", out).unwrap_or_default() {
        out.check(entry.place, scalar::variable(entry.name));
        let value = match &entry.value.content {
            Content::Null { .. } => Template::literal(""),
            _ => match text(entry.value, entry.name, out) {
                Some(text) => read_template(text, entry.value.place, mentions, out),
                None => continue,
            },
        };
        let place = entry.value.place;
        worker
            .environment
            .push((entry.name.to_owned(), Located { value, place }));
    }
}

fn environment_files(node: &Node, folder: &Path, out: &mut Out) -> Vec<EnvironmentFile> {
    let mut files = Vec::new();
    for file in texts(node, "environment_file", out) {
        let (path, optional) = match file.value.strip_prefix('-') {
            Some(path) => (path, true),
            None => (file.value.as_str(), false),
        };
        if path.is_empty() {
            let complaint = Complaint::bad("`environment_file`: the path is empty");
            out.add(
                complaint
                    .hint("write a path, or delete the line")
                    .at(file.place),
            );
            continue;
        }
        files.push(EnvironmentFile {
            path: Located {
                value: PathBuf::from(folder).join(path),
                place: file.place,
            },
            optional,
        });
    }
    files
}

fn limits(node: &Node, out: &mut Out) -> Vec<Located<Limit>> {
    let mut limits = Vec::new();
    for entry in entries(node, "`limits`", out).unwrap_or_default() {
        let known = Resource::ALL
            .iter()
            .find(|resource| resource.key() == entry.name);
        let Some(resource) = known else {
            let names = Resource::ALL.iter().map(|resource| resource.key());
            let complaint = Complaint::new(
                Kind::UnknownKey,
                format!("there is no resource `{}`", entry.name),
            )
            .maybe_hint(did_you_mean(entry.name, names));
            out.add(complaint.at(entry.place));
            continue;
        };
        let Some(text) = text(entry.value, entry.name, out) else {
            continue;
        };
        if let Some(value) = out.check(entry.value.place, scalar::limit(*resource, text)) {
            let place = entry.value.place;
            limits.push(Located { value, place });
        }
    }
    limits
}

fn output(node: &Node, mentions: &mut Vec<(Place, Mention)>, out: &mut Out) -> Output {
    let usage = "write `inherit`, `null`, `tag`, `tag-json`, `journal` or `file:/path`";
    if let Content::Null { written } = node.content {
        if !written {
            let complaint = Complaint::new(Kind::WrongType, "`output` has no value");
            out.add(complaint.hint(usage).at(node.place));
        }
        return Output::Null;
    }
    let Some(text) = text(node, "output", out) else {
        return Output::Inherit;
    };
    if let Some(path) = text.strip_prefix("file:") {
        let whole = read_template(text, node.place, mentions, out);
        let mut template = whole;
        // The prefix holds no placeholder, so it is at the start of the first piece.
        if let Some(Piece::Text(first)) = template.pieces.first_mut() {
            first.drain(.."file:".len());
        }
        template
            .pieces
            .retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        out.check(node.place, absolute("output", &template, path));
        return Output::File(template);
    }
    match text {
        "inherit" => Output::Inherit,
        "null" => Output::Null,
        "tag" => Output::Tag,
        "tag-json" => Output::TagJson,
        "journal" => Output::Journal,
        _ => {
            let complaint = Complaint::bad(format!("`output` does not know `{text}`"));
            let complaint = if text.starts_with('/') {
                complaint.hint(format!("write `file:{text}`"))
            } else {
                complaint.hint(usage)
            };
            out.add(complaint.at(node.place));
            Output::Inherit
        }
    }
}
