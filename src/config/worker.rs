//! Reads the entries of `workers:` into [`Worker`]s.

use super::activation;
use super::by_preset;
use super::command;
use super::decode::{
    Entry, Fields, account, default, entries, read_template, silence, text, texts,
};
use super::draft::{DraftWorker, Field};
use super::forward;
use super::idle;
use super::keys;
use super::life::{Hooks, Restart, Rollout};
use super::lifecycle;
use super::model::{
    Activation, ConnectionLimits, EnvironmentFile, Listener, Output, WATCH, WEB, Worker,
};
use super::readiness;
use super::sandbox;
use super::scalar;
use super::template::Mention;
use super::value_error::{Diagnostics, ValueError};
use super::values::{Located, Piece, Template};
use super::yaml::{Content, Node};
use crate::launch_spec::{LaunchSpec, Limit, Resource};
use crate::report::{Kind, Place, Report, did_you_mean};
use foldhash::{HashMap, HashMapExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// A worker without a command and with everything else at its default.
pub(super) fn plain(name: &str, place: Place) -> DraftWorker {
    fn of<T>(key: &str, parse: impl FnOnce(&str, &str) -> Result<T, ValueError>) -> T {
        default(keys::WORKER, key, parse)
    }
    let flag = |key| of(key, scalar::boolean);
    let number = |key| of(key, |key, text| scalar::integer(key, text, 0, 1024));
    let worker = Worker {
        name: Located {
            value: name.to_owned(),
            place,
        },
        preset: None,
        command: Vec::new(),
        argv0: None,
        expand_environment: flag("expand_environment"),
        forward: None,
        listeners: Vec::new(),
        instances: number("instances"),
        distribute: Located {
            value: of("distribute", activation::distribute),
            place,
        },
        scaling: None,
        handoff: Located {
            value: of("handoff", activation::handoff).into(),
            place,
        },
        listen_pid: flag("listen_pid"),
        activation: Located {
            value: of("activation", activation::activation),
            place,
        },
        trigger_limit: of("trigger_limit", scalar::rate),
        idle_timeout: of("idle_timeout", idle::idle_timeout),
        idle_unless: None,
        connections: ConnectionLimits::default(),
        nonblocking: None,
        user: None,
        group: None,
        supplementary_groups: None,
        runtime_directory: None,
        runtime_directory_mode: of("runtime_directory_mode", scalar::mode),
        runtime_directory_preserve: flag("runtime_directory_preserve"),
        environment: Vec::new(),
        environment_files: Vec::new(),
        launch: LaunchSpec {
            credentials: None,
            limits: Vec::new(),
            umask: None,
            nice: None,
            oom_score_adjust: None,
            ignore_sigpipe: flag("ignore_sigpipe"),
            working_directory: None,
        },
        resolve: of("resolve", lifecycle::resolve),
        sandbox: None,
        output: Output::Inherit,
        restart: Restart::default(),
        stop_signal: of("stop_signal", |_, text| scalar::signal(text)),
        kill_mode: of("kill_mode", lifecycle::kill_mode),
        stop_timeout: of("stop_timeout", scalar::duration_or_infinity),
        ready: Located {
            value: of("ready", readiness::ready),
            place,
        },
        start_timeout: of("start_timeout", readiness::start_timeout),
        watchdog: of("watchdog", readiness::watchdog),
        notify_access: None,
        fd_store: number("fd_store"),
        rollout: Rollout::default(),
        reload: None,
        watch: Vec::new(),
        on_failure: of("on_failure", lifecycle::on_failure),
        hooks: Hooks::default(),
        silence: Vec::new(),
    };
    DraftWorker {
        worker,
        mentions: Vec::new(),
        listeners: Field::Absent,
        nonblocking: Field::Absent,
        handoff: Field::Absent,
        activation: Field::Absent,
        trigger_limit: Field::Absent,
        scaling: None,
        of_connections: Vec::new(),
        of_demand: Vec::new(),
        of_instances: Vec::new(),
        duplicate: false,
    }
}

/// The worker that watches files for another, as the same user; `None` if it has none to watch.
pub fn watch_worker(worker: &Worker) -> Option<Worker> {
    let place = worker.watch.first()?.place;
    let name = &worker.name.value;
    let mut helper = plain(&format!("{WATCH}{name}"), place).worker;
    let word = |piece| Located {
        value: Template {
            pieces: vec![piece],
        },
        place,
    };
    let text = |text: &str| word(Piece::Text(text.to_owned()));
    helper.command = vec![
        word(Piece::Listend),
        text("__watch"),
        text(name),
        text("--"),
    ];
    let paths = worker.watch.iter().map(|path| path.value.to_string_lossy());
    helper.command.extend(paths.map(|path| text(&path)));
    helper.user.clone_from(&worker.user);
    helper.group.clone_from(&worker.group);
    helper
        .supplementary_groups
        .clone_from(&worker.supplementary_groups);
    helper.restart.limit = None;
    helper.restart.backoff_min = Duration::from_secs(1);
    Some(helper)
}

/// The worker that answers at the listener of `web:` or `metrics:`, with every setting that is not named here at
/// its default.
pub fn web_worker(listener: &Listener) -> Worker {
    let name = &listener.name;
    let mut worker = plain(&name.value, name.place).worker;
    let word = |piece| Located {
        value: Template {
            pieces: vec![piece],
        },
        place: name.place,
    };
    worker.command = vec![word(Piece::Listend), word(Piece::Text("web".to_owned()))];
    if name.value == WEB {
        let all = Piece::Text("--page".to_owned());
        worker.command.push(word(all));
    }
    worker.listeners = vec![name.clone()];
    worker.activation.value = Activation::OnDemand;
    worker.restart.limit = None;
    worker.restart.backoff_min = Duration::from_secs(1);
    worker.nonblocking = Some(Located {
        value: true,
        place: name.place,
    });
    worker
}

/// Reads one entry of `workers:`; relative paths are resolved against `folder`.
pub(super) fn decode(entry: &Entry, folder: &Path, report: &mut Report) -> DraftWorker {
    let mut out = Diagnostics {
        report,
        listener: None,
        worker: Some(entry.name),
    };
    out.check(entry.place, scalar::name(entry.name));
    let mut draft = plain(entry.name, entry.place);
    if let Content::Null { .. } = entry.value.content {
        no_command(entry, &mut out);
        draft.listeners = Field::Broken(entry.value.place);
        return draft;
    }
    let filled;
    match open(entry, &mut out) {
        None => draft.listeners = Field::Broken(entry.value.place),
        Some(mut fields) => {
            draft.worker.preset = fields.read("preset", &mut out, by_preset::find).into_set();
            if let Some(preset) = &mut draft.worker.preset {
                preset.value = by_preset::in_mode(preset.value, fields.peek("command"));
            }
            filled = by_preset::nodes(draft.worker.preset.as_ref());
            fields.fill(&filled);
            let expand = &mut draft.worker.expand_environment;
            fields.set("expand_environment", expand, &mut out, scalar::boolean);
            let written = forward::written(&fields);
            match fields.take("command") {
                // The server may run elsewhere.
                None if written.forwards() => {}
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
            forward::decode(&mut fields, &mut draft, &mut out);
            sockets(&mut fields, &mut draft, &mut out);
            readiness::decode(&mut fields, &mut draft, &mut out);
            activation::decode(&mut fields, &mut draft, &mut out);
            launch_settings(&mut fields, folder, &mut draft, &mut out);
            lifecycle::decode(&mut fields, &mut draft, &mut out);
            draft.worker.silence = silence(fields.take("silence"), &mut out);
            fields.finish();
            forward::fits(&mut draft, &written, &mut out);
            runtime_dir_fits(&draft.worker, &mut out);
            activation::instances_fit(&draft, &mut out);
            readiness::handoff_fits(&draft, &mut out);
            readiness::variables_fit(&draft, &mut out);
        }
    }
    draft
}

/// The keys of a worker.
pub(super) fn open<'n>(entry: &Entry<'n>, out: &mut Diagnostics) -> Option<Fields<'n>> {
    let what = format!("worker `{}`", entry.name);
    Fields::open(entry.value, keys::WORKER, &what, &["output"], out)
}

fn no_command(entry: &Entry, out: &mut Diagnostics) {
    let value_error = ValueError::new(
        Kind::MissingKey,
        format!("worker `{}` has no `command`", entry.name),
    );
    out.add(
        value_error
            .hint("add `command: [/path/to/program, argument]`")
            .at(entry.place),
    );
}

fn sockets(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    if let Some(node) = fields.take("listeners") {
        let listeners = texts(node, "listeners", out);
        let is_broken = match &node.content {
            Content::List(items) => items.len() != listeners.len(),
            _ => listeners.is_empty(),
        };
        if is_broken {
            draft.listeners = Field::Broken(node.place);
        }
        let mut seen = HashMap::with_capacity(listeners.len());
        for name in listeners {
            match seen.get(&name.value).copied() {
                None => {
                    seen.insert(name.value.clone(), name.place);
                    draft.worker.listeners.push(name);
                }
                Some(first) => {
                    let value_error = ValueError::bad(format!(
                        "listener `{}` occurs twice in the list",
                        name.value
                    ))
                    .hint("delete one of them");
                    out.add(
                        value_error
                            .at(name.place)
                            .with_related(first, "first written here"),
                    );
                }
            }
        }
    }
    draft.nonblocking = fields.read("nonblocking", out, scalar::boolean);
    draft.worker.nonblocking = draft.nonblocking.as_set().cloned();
}

/// Reads the keys that set up the process of a worker.
fn launch_settings(
    fields: &mut Fields,
    folder: &Path,
    draft: &mut DraftWorker,
    out: &mut Diagnostics,
) {
    let worker = &mut draft.worker;
    worker.user = fields.read("user", out, account).into_set();
    worker.group = fields.read("group", out, account).into_set();
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
        worker.launch.working_directory = Some(Located {
            value: template,
            place: node.place,
        });
    }
    fields.set("resolve", &mut worker.resolve, out, lifecycle::resolve);
    runtime_directory(fields, worker, out);
    let umask = fields.read("umask", out, scalar::mode);
    worker.launch.umask = umask.into_set().map(|umask| umask.value);
    if let Some(node) = fields.take("environment") {
        environment(node, worker, &mut draft.mentions, out);
    }
    if let Some(node) = fields.take("environment_file") {
        worker.environment_files = environment_files(node, folder, out);
    }
    if let Some(node) = fields.take("watch") {
        worker.watch = watched(node, folder, out);
    }
    if let Some(node) = fields.take("limits") {
        worker.launch.limits = limits(node, out);
    }
    let launch = &mut worker.launch;
    fields.set("nice", &mut launch.nice, out, |key, text| {
        scalar::integer(key, text, -20, 19).map(Some)
    });
    fields.set(
        "oom_score_adjust",
        &mut launch.oom_score_adjust,
        out,
        |key, text| scalar::integer(key, text, -1000, 1000).map(Some),
    );
    let ignore_sigpipe = &mut worker.launch.ignore_sigpipe;
    fields.set("ignore_sigpipe", ignore_sigpipe, out, scalar::boolean);
    let sandbox = fields.take("sandbox");
    worker.sandbox = sandbox.and_then(|node| sandbox::decode(node, out));
    if let Some(node) = fields.take("output") {
        worker.output = output(node, &mut draft.mentions, out);
    }
}

fn runtime_directory(fields: &mut Fields, worker: &mut Worker, out: &mut Diagnostics) {
    let folder = fields.read("runtime_directory", out, |_, text| {
        let path = PathBuf::from(text);
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if text.is_empty() || text.contains('\0') || !path.components().all(is_plain) {
            return Err(ValueError::bad(format!(
                "`runtime_directory`: `{text}` is not a path below /run"
            ))
            .hint("write a name, like `app`, or a relative path without `..`"));
        }
        Ok(path.components().collect())
    });
    worker.runtime_directory = folder.into_set();
    let key = "runtime_directory_mode";
    let mode = fields.set(key, &mut worker.runtime_directory_mode, out, scalar::mode);
    let preserve = &mut worker.runtime_directory_preserve;
    let preserve = fields.set("runtime_directory_preserve", preserve, out, scalar::boolean);
    if worker.runtime_directory.is_none() {
        for (key, place) in mode.into_iter().chain(preserve) {
            let value_error = ValueError::bad(format!("`{key}` without a `runtime_directory`"));
            out.add(
                value_error
                    .hint("add `runtime_directory: NAME`, or delete it")
                    .at(place),
            );
        }
    }
}

/// Refuses `{runtime_dir}` in a worker that has none.
fn runtime_dir_fits(worker: &Worker, out: &mut Diagnostics) {
    if worker.runtime_directory.is_some() {
        return;
    }
    let to = worker.forward.iter().map(|forward| &forward.to);
    let command = worker.command.iter().chain(&worker.argv0).chain(to);
    let variables = worker.environment.iter().map(|(_, value)| value);
    let written = command
        .chain(variables)
        .chain(&worker.launch.working_directory);
    let written = written.map(|template| (&template.value, template.place));
    let output = match &worker.output {
        Output::File(path) => Some(path),
        Output::Inherit | Output::Null | Output::Tag | Output::TagJson | Output::Journal => None,
    };
    let others = worker
        .commands()
        .flat_map(|hook| &hook.command)
        .chain(output);
    let others = others.map(|template| (template, worker.name.place));
    for (template, place) in written.chain(others) {
        if template.pieces.contains(&Piece::RuntimeDir) {
            let message = "`{runtime_dir}` in a worker without a `runtime_directory`";
            let value_error = ValueError::new(Kind::BadTemplate, message);
            out.add(
                value_error
                    .hint("add `runtime_directory: NAME` to the worker")
                    .at(place),
            );
        }
    }
}

fn absolute(key: &str, template: &Template, text: &str) -> Result<(), ValueError> {
    match template.pieces.first() {
        Some(Piece::Text(start)) if start.starts_with('/') => Ok(()),
        Some(Piece::RuntimeDir) => Ok(()),
        _ => Err(
            ValueError::bad(format!("`{key}`: `{text}` is not an absolute path"))
                .hint("write the path from `/`"),
        ),
    }
}

fn environment(
    node: &Node,
    worker: &mut Worker,
    mentions: &mut Vec<(Place, Mention)>,
    out: &mut Diagnostics,
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

fn watched(node: &Node, folder: &Path, out: &mut Diagnostics) -> Vec<Located<PathBuf>> {
    let mut paths = Vec::new();
    for path in texts(node, "watch", out) {
        if path.value.is_empty() || path.value.contains('\0') {
            let value_error = ValueError::bad("`watch`: it is no path");
            out.add(
                value_error
                    .hint("write the path of a file or directory")
                    .at(path.place),
            );
            continue;
        }
        paths.push(Located {
            value: folder.join(&path.value),
            place: path.place,
        });
    }
    paths
}

fn environment_files(node: &Node, folder: &Path, out: &mut Diagnostics) -> Vec<EnvironmentFile> {
    let mut files = Vec::new();
    for file in texts(node, "environment_file", out) {
        let (path, optional) = match file.value.strip_prefix('-') {
            Some(path) => (path, true),
            None => (file.value.as_str(), false),
        };
        if path.is_empty() {
            let value_error = ValueError::bad("`environment_file`: the path is empty");
            out.add(
                value_error
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

/// What to write for a limit that is not one of setrlimit(2), but of a control group.
fn limit_of_a_group(name: &str) -> Option<String> {
    keys::hint(keys::WORKER, name).filter(|hint| hint.contains("`sandbox"))
}

fn limits(node: &Node, out: &mut Diagnostics) -> Vec<Limit> {
    let mut limits = Vec::new();
    for entry in entries(node, "`limits`", out).unwrap_or_default() {
        let known = Resource::ALL
            .iter()
            .find(|resource| resource.key() == entry.name);
        let Some(resource) = known else {
            let names = Resource::ALL.iter().map(|resource| resource.key());
            // `LimitNOFILE`, as systemd has it.
            let name = entry.name.strip_prefix("Limit").unwrap_or(entry.name);
            let value_error = ValueError::new(
                Kind::UnknownKey,
                format!("there is no resource `{}`", entry.name),
            )
            .maybe_hint(limit_of_a_group(entry.name).or_else(|| did_you_mean(name, names)));
            out.add(value_error.at(entry.place));
            continue;
        };
        let Some(text) = text(entry.value, entry.name, out) else {
            continue;
        };
        limits.extend(out.check(entry.value.place, scalar::limit(*resource, text)));
    }
    limits
}

fn output(node: &Node, mentions: &mut Vec<(Place, Mention)>, out: &mut Diagnostics) -> Output {
    let usage = "write `inherit`, `null`, `tag`, `tag-json`, `journal` or `file:/path`";
    if let Content::Null { written } = node.content {
        if !written {
            let value_error = ValueError::new(Kind::WrongType, "`output` has no value");
            out.add(value_error.hint(usage).at(node.place));
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
            let value_error = ValueError::bad(format!("`output`: unknown value `{text}`"));
            // `append:/path`, as systemd has it.
            let path = text.strip_prefix("append:").unwrap_or(text);
            let value_error = if path.starts_with('/') {
                value_error.hint(format!("write `file:{path}`"))
            } else {
                value_error.hint(usage)
            };
            out.add(value_error.at(node.place));
            Output::Inherit
        }
    }
}
