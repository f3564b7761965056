//! All files together: reads each, joins them, and checks what they say about one another.

use super::decode::{Entry, Fields, entries, silence};
use super::draft::Draft;
use super::listener;
use super::model::{Config, Listener, METRICS, WEB};
use super::silence::Silence;
use super::socket_kind::SocketKind;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use super::worker;
use super::yaml::{self, Content, Node};
use super::{by_preset, conflict, cross, defaults, keys};
use crate::report::{Kind, Place, Problem, Report, Sources, shortened};
use foldhash::{HashMap, HashMapExt};
use std::path::{Path, PathBuf};

/// A file as read by the caller; in bytes, because it may not be UTF-8.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// The name of the file in messages.
    pub name: String,
    /// The content of the file.
    pub bytes: Vec<u8>,
    /// The absolute folder that relative paths in it start from.
    pub folder: PathBuf,
}

/// The configuration of all files, with every problem found in them.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Complete if the report has no errors; otherwise without what could not be read.
    pub config: Config,
    /// Every problem, in the order of the files.
    pub report: Report,
    /// The texts that the places point into.
    pub sources: Sources,
    /// The folder of each of those files.
    pub folders: Vec<PathBuf>,
}

/// Reads all files: the main file first, then the drop-ins in their order. Never panics.
pub fn read(files: Vec<SourceFile>) -> Loaded {
    let mut draft = Draft {
        is_one_file: files.len() == 1,
        ..Draft::default()
    };
    let mut report = Report::default();
    let mut sources = Sources::default();
    let folders = files.iter().map(|file| file.folder.clone()).collect();
    for file in files {
        let parsed = yaml::parse(&file.name, &file.bytes, &mut sources);
        // The sources keep the text; of a large file one copy is enough.
        drop(file.bytes);
        match parsed {
            Ok((_, Some(root))) => one_file(&root, &file.folder, &mut draft, &mut report),
            Ok((_, None)) => {}
            Err(problem) => {
                report.add(*problem);
                draft.incomplete = true;
            }
        }
    }
    Loaded {
        folders,
        ..finish(draft, report, sources)
    }
}

/// Checks what is between the parts, and takes the drafts' covers off.
pub(super) fn finish(mut draft: Draft, mut report: Report, sources: Sources) -> Loaded {
    if !draft.is_one_file {
        names_once(&mut draft, &mut report);
    }
    conflict::find(draft.listeners.iter().chain(&draft.web), &mut report);
    cross::check(&draft, &mut report);
    let presets = draft.workers.iter();
    let presets = presets.filter_map(|draft| draft.worker.preset.as_ref());
    by_preset::name_in_problems(presets, &mut report);
    let is_empty = draft.listeners.is_empty() && draft.workers.is_empty() && draft.web.is_none();
    if is_empty && !draft.incomplete && report.is_ok() {
        let message = "the configuration names neither a listener nor a worker";
        let problem = Problem::new(Kind::NothingConfigured, message);
        let hint = "listend starts with it and does nothing; a reload refuses it, because a file \
                    that is just being written is empty";
        report.add(problem.with_hint(hint));
    }
    let listeners = draft.listeners.into_iter().filter(|draft| !draft.duplicate);
    let workers = draft.workers.into_iter().filter(|draft| !draft.duplicate);
    let config = Config {
        listeners: listeners.map(|draft| draft.listener).collect(),
        workers: workers.map(|draft| draft.worker).collect(),
        web: draft.web.map(|draft| draft.listener),
        silence: draft.silence,
    };
    Silence::of(&config).apply(&mut report);
    report.sort();
    Loaded {
        config,
        report,
        sources,
        folders: Vec::new(),
    }
}

fn one_file(root: &Node, folder: &Path, draft: &mut Draft, report: &mut Report) {
    if let Content::Null { .. } = root.content {
        return;
    }
    let mut out = Diagnostics {
        report,
        listener: None,
        worker: None,
    };
    let may_be_null = ["listeners", "workers", "silence"];
    let Some(mut fields) = Fields::open(root, keys::TOP, "the file", &may_be_null, &mut out) else {
        draft.incomplete = true;
        return;
    };
    let listeners = fields.take("listeners");
    let workers = fields.take("workers");
    if let Some(node) = fields.take("defaults") {
        defaults::declare(node, draft, &mut out);
    }
    let served = [(WEB, "web"), (METRICS, "metrics")].map(|(name, key)| (name, fields.take(key)));
    let codes = fields.take("silence").filter(|node| !is_null(node));
    draft.silence.extend(silence(codes, &mut out));
    fields.finish();
    // `lisners:` hides listeners and workers that are there.
    draft.incomplete |= (listeners.is_none() || workers.is_none()) && hides(root);
    // Growing by doubling would copy, and for a moment hold, thousands of listeners twice.
    if let Some(Content::Map(pairs)) = listeners.map(|node| &node.content) {
        draft.listeners.reserve_exact(pairs.len());
    }
    each(
        listeners,
        "listeners",
        draft,
        report,
        |entry, draft, report| {
            draft.listeners.push(listener::decode(entry, report));
        },
    );
    for (name, node) in served {
        if let Some(node) = node {
            web(name, node, draft, report);
        }
    }
    each(workers, "workers", draft, report, |entry, draft, report| {
        let merged = defaults::merged(entry.value, draft.defaults.as_ref());
        let value = merged.as_ref().unwrap_or(entry.value);
        let entry = &Entry { value, ..*entry };
        draft.workers.push(worker::decode(entry, folder, report));
    });
}

/// Reads `web:`, or its older name `metrics:`, which are written like a listener.
fn web(name: &str, node: &Node, draft: &mut Draft, report: &mut Report) {
    if let Some(first) = &draft.web {
        let twice = match (first.listener.name.value.as_str(), name) {
            (WEB, WEB) => "`web` occurs in two files",
            (METRICS, METRICS) => "`metrics` occurs in two files",
            _ => "`web` serves the metrics as well, so there cannot be `metrics`",
        };
        let value_error = ValueError::new(Kind::DuplicateKey, twice);
        let problem = value_error.hint("delete one of them").at(node.place);
        report.add(problem.with_related(first.listener.name.place, "first written here"));
        return;
    }
    let name = Located {
        value: name.to_owned(),
        place: node.place,
    };
    let decoded = listener::decode_value(name, node, report);
    can_speak_http(&decoded.listener, report);
    draft.web = Some(decoded);
}

/// HTTP wants a stream.
fn can_speak_http(listener: &Listener, report: &mut Report) {
    for address in &listener.addresses {
        let mut kinds = address
            .value
            .endpoints
            .iter()
            .map(|endpoint| endpoint.kind());
        if kinds.all(|kind| {
            matches!(
                kind,
                SocketKind::Tcp
                    | SocketKind::Mptcp
                    | SocketKind::UnixStream
                    | SocketKind::VsockStream
            )
        }) {
            continue;
        }
        let text = &address.value.text;
        let value_error = ValueError::bad(format!("HTTP cannot be served at `{text}`"));
        let value_error =
            value_error.hint("write `HOST:PORT` or `unix:/path`; HTTP needs a stream");
        let problem = value_error.at(address.place).with_address(shortened(text));
        report.add(problem.of_listener(&listener.name.value));
    }
}

/// Whether a mapping stands under a key that means nothing at the top of a file.
fn hides(root: &Node) -> bool {
    let Content::Map(pairs) = &root.content else {
        return false;
    };
    pairs.iter().any(|(key, value)| {
        let known = match &key.content {
            Content::Scalar(scalar) => keys::TOP.iter().any(|key| key.name == scalar.text),
            _ => false,
        };
        !known && matches!(value.content, Content::Map(_))
    })
}

fn is_null(node: &Node) -> bool {
    matches!(node.content, Content::Null { .. })
}

fn each(
    node: Option<&Node>,
    what: &str,
    draft: &mut Draft,
    report: &mut Report,
    mut decode: impl FnMut(&Entry, &mut Draft, &mut Report),
) {
    let Some(node) = node.filter(|node| !is_null(node)) else {
        return;
    };
    let mut out = Diagnostics {
        report,
        listener: None,
        worker: None,
    };
    match entries(node, &format!("`{what}`"), &mut out) {
        None => draft.incomplete = true,
        Some(entries) => {
            for entry in entries {
                decode(&entry, draft, report);
            }
        }
    }
}

/// A name may stand in one file only; within a file it has been reported as a duplicate key.
fn names_once(draft: &mut Draft, report: &mut Report) {
    let mut seen: HashMap<&str, Place> = HashMap::with_capacity(draft.listeners.len());
    for one in &mut draft.listeners {
        let name = &one.listener.name;
        match seen.get(name.value.as_str()) {
            Some(first) => {
                report.add(
                    twice("listener", &name.value, name.place, *first).of_listener(&name.value),
                );
                one.duplicate = true;
            }
            None => _ = seen.insert(&name.value, name.place),
        }
    }
    let mut seen: HashMap<&str, Place> = HashMap::new();
    for one in &mut draft.workers {
        let name = &one.worker.name;
        match seen.get(name.value.as_str()) {
            Some(first) => {
                report.add(twice("worker", &name.value, name.place, *first).of_worker(&name.value));
                one.duplicate = true;
            }
            None => _ = seen.insert(&name.value, name.place),
        }
    }
}

fn twice(what: &str, name: &str, place: Place, first: Place) -> Problem {
    ValueError::new(
        Kind::DuplicateName,
        format!("{what} `{name}` is defined twice"),
    )
    .hint("rename or delete one of them")
    .at(place)
    .with_related(first, "first defined here")
}
