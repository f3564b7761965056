//! `forward:`: a server that cannot inherit a socket, behind `listend forward`, which is the main process of
//! the worker in its place.

use super::address;
use super::address_local::UNIX_NAME_MAX;
use super::address_parsed::V6;
use super::decode::{Fields, Words, choice, default, read_template, text, words, wrong_type};
use super::draft::{DraftWorker, Taken};
use super::keys;
use super::life::{Order, Ready};
use super::model::{Activation, Endpoint, Forward, ProxyProtocol, Worker};
use super::scalar;
use super::socket_kind::SocketKind;
use super::value_error::{Diagnostics, ValueError};
use super::values::{Located, Piece, Template};
use super::yaml::{Content, Node};
use crate::report::{Kind, Place, Report};
use std::borrow::Cow;
use std::time::Duration;

const VERSIONS: &Words<Option<ProxyProtocol>> = words! {
    "none" = None, "false", "no", "off";
    "v1" = Some(ProxyProtocol::V1), "1", "text";
    "v2" = Some(ProxyProtocol::V2), "2", "binary", "true";
};

/// Keys that have no meaning beside `forward`, each with the reason.
const CONTRADICTIONS: &[(&str, &str)] = &[
    (
        "preset",
        "a preset says how a server takes listeners, and this one takes none",
    ),
    ("handoff", "the server gets no descriptors"),
    (
        "nonblocking",
        "`listend forward` has the listeners, and needs them non-blocking",
    ),
    ("listen_pid", "the server gets no descriptors"),
    (
        "fd_store",
        "the server is no direct child of listend, and cannot store descriptors",
    ),
    (
        "notify_access",
        "it is `listend forward` that tells when the server answers",
    ),
];

/// The keys of a worker that are written in the file.
pub(super) struct WrittenKeys(Vec<(&'static str, Place)>);

impl WrittenKeys {
    fn place(&self, name: &str) -> Option<Place> {
        let mut keys = self.0.iter();
        keys.find(|(key, _)| *key == name).map(|(_, place)| *place)
    }

    /// Whether the worker forwards.
    pub fn forwards(&self) -> bool {
        self.place("forward").is_some()
    }
}

/// The keys that are written. `rollout.order` is one of them.
pub(super) fn written(fields: &Fields) -> WrittenKeys {
    let mut keys = Vec::new();
    for (key, node, is_filled) in fields.each() {
        let Some(node) = node.filter(|_| !is_filled) else {
            continue;
        };
        keys.push((key.name, node.place));
        if key.name == "rollout"
            && let Content::Map(pairs) = &node.content
        {
            let is_order =
                |key: &Node| matches!(&key.content, Content::Scalar(word) if word.text == "order");
            let order = pairs.iter().find(|(key, _)| is_order(key));
            keys.extend(order.map(|(_, value)| ("rollout.order", value.place)));
        }
    }
    WrittenKeys(keys)
}

/// Reads `forward`, an address or a mapping.
pub(super) fn decode(fields: &mut Fields, draft: &mut DraftWorker, out: &mut Diagnostics) {
    let Some(node) = fields.take("forward") else {
        return;
    };
    let mut forward = Forward {
        to: Located {
            value: Template::default(),
            place: node.place,
        },
        connect_timeout: of("connect_timeout", time),
        idle: of("idle", idle),
        keep_alive: of("keep_alive", keep_alive),
        proxy_protocol: of("proxy_protocol", version),
        drain: of("drain", scalar::duration),
    };
    let to = match &node.content {
        Content::Scalar(_) => Some(node),
        Content::Map(_) => {
            let Some(mut fields) = Fields::open(node, keys::FORWARD, "`forward`", &[], out) else {
                return;
            };
            let to = fields.take("to");
            let Forward {
                connect_timeout,
                idle: longest,
                keep_alive: silence,
                proxy_protocol,
                drain,
                to: _,
            } = &mut forward;
            fields.set("connect_timeout", connect_timeout, out, time);
            fields.set("idle", longest, out, idle);
            fields.set("keep_alive", silence, out, keep_alive);
            fields.set("proxy_protocol", proxy_protocol, out, version);
            fields.set("drain", drain, out, scalar::duration);
            fields.finish();
            if to.is_none() {
                let value_error = ValueError::new(Kind::MissingKey, "`forward` has no `to`");
                let value_error = value_error.hint("add `to: 127.0.0.1:PORT`");
                out.add(value_error.at(node.place));
            }
            to
        }
        Content::Null { .. } | Content::List(_) => {
            let value_error = wrong_type("`forward`", "an address or a mapping", node);
            return out.add(value_error.at(node.place));
        }
    };
    let Some(node) = to else { return };
    let Some(text) = text(node, "forward", out) else {
        return;
    };
    let value = read_template(text, node.place, &mut draft.mentions, out);
    if out
        .check(node.place, address_of_server(&value, text))
        .is_none()
    {
        return;
    }
    forward.to = Located {
        value,
        place: node.place,
    };
    let worker = &mut draft.worker;
    let place = forward.to.place;
    worker.nonblocking = Some(Located { value: true, place });
    worker.ready = Located {
        value: Ready::Notify,
        place,
    };
    worker.forward = Some(forward);
}

fn of<T>(key: &str, parse: impl FnOnce(&str, &str) -> Result<T, ValueError>) -> T {
    default(keys::FORWARD, key, parse)
}

fn time(key: &str, text: &str) -> Result<Duration, ValueError> {
    match scalar::duration(key, text)? {
        Duration::ZERO => Err(
            ValueError::bad(format!("`{key}`: 0 would refuse every client"))
                .hint("write a duration, like `10s`"),
        ),
        time => Ok(time),
    }
}

fn idle(key: &str, text: &str) -> Result<Option<Duration>, ValueError> {
    match scalar::duration_or_infinity(key, text)? {
        Some(Duration::ZERO) => Err(ValueError::bad(format!(
            "`{key}`: 0 would end every connection at once"
        ))
        .hint("write `infinity` for no limit")),
        time => Ok(time),
    }
}

/// The kernel counts in seconds, up to MAX_TCP_KEEPIDLE (tcp(7)).
fn keep_alive(key: &str, text: &str) -> Result<Option<Duration>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    let time = scalar::duration(key, text)?;
    if time.as_secs() < 1 || time.as_secs() > 32_767 || time.subsec_nanos() != 0 {
        let value_error = ValueError::bad(format!(
            "`{key}` takes whole seconds from `1s` to `32767s`, not `{text}`"
        ));
        return Err(value_error.hint("write it like `1m`, or `off`"));
    }
    Ok(Some(time))
}

fn version(key: &str, text: &str) -> Result<Option<ProxyProtocol>, ValueError> {
    choice(key, text, VERSIONS)
}

/// Checks the address, with something in the place of what is known only at the start.
fn address_of_server(template: &Template, text: &str) -> Result<(), ValueError> {
    let mut sample = String::new();
    for piece in &template.pieces {
        match piece {
            Piece::Text(text) => sample.push_str(text),
            Piece::ServerPort | Piece::Generation => sample.push('1'),
            Piece::Instance => sample.push('0'),
            Piece::RuntimeDir => sample.push_str("/run"),
            _ => {
                let value_error = ValueError::new(
                    Kind::BadTemplate,
                    format!("`forward`: `{text}` has a placeholder that is not of the server"),
                );
                return Err(value_error
                    .hint("known here: `{port}`, `{runtime_dir}`, `{instance}`, `{generation}`"));
            }
        }
    }
    let endpoints = address::parse(&sample, V6::Only).map_err(|value_error| {
        // A server is at one address, and not at every one of the machine.
        match scalar::is_digits(text) {
            true => value_error.hint(format!("write `127.0.0.1:{text}`")),
            false => value_error,
        }
    })?;
    let is_one = endpoints.iter().all(|endpoint| match endpoint {
        Endpoint::Inet { address, .. } => {
            address.port() == endpoint_port(&endpoints) && !address.ip().is_unspecified()
        }
        _ => true,
    });
    let is_long = |one: &Endpoint| {
        let path = one.path();
        path.is_some_and(|path| path.as_os_str().len() > UNIX_NAME_MAX)
    };
    let is_stream = |one: &Endpoint| matches!(one.kind(), SocketKind::Tcp | SocketKind::UnixStream);
    let wrong = if !endpoints.iter().all(is_stream) {
        "is no TCP or unix stream address"
    } else if !is_one {
        "is not the address of one server"
    } else if endpoints.iter().any(is_long) {
        "has a path of more than 107 bytes, which connect(2) does not take"
    } else if endpoint_port(&endpoints) == 0 && endpoints[0].path().is_none() {
        match &endpoints[0] {
            Endpoint::Inet { .. } => "has port 0",
            _ => return Ok(()),
        }
    } else {
        return Ok(());
    };
    Err(
        ValueError::new(Kind::BadAddress, format!("`forward`: `{text}` {wrong}"))
            .hint("write `127.0.0.1:PORT`, `127.0.0.1:{port}` for a free port, or `unix:/path`"),
    )
}

/// The port of the first; 0 if it has none. There is always a first.
fn endpoint_port(endpoints: &[Endpoint]) -> u16 {
    match endpoints.first() {
        Some(Endpoint::Inet { address, .. }) => address.port(),
        _ => 0,
    }
}

/// The addresses that `listend forward` is given; `{port}` is port 0.
///
/// # Errors
///
/// In words: it is no address.
pub fn target(text: &str) -> Result<Vec<Endpoint>, String> {
    let text = text.replace(super::values::SERVER_PORT, "0");
    let words = |wrong: ValueError| match wrong.hint {
        Some(hint) => format!("{}; {hint}", wrong.message),
        None => wrong.message,
    };
    address::parse(&text, V6::Only).map_err(words)
}

fn has(template: &Template, piece: &Piece) -> bool {
    template.pieces.contains(piece)
}

/// Files what contradicts `forward`, and `{port}` where none is chosen.
pub(super) fn fits(draft: &mut DraftWorker, written: &WrittenKeys, out: &mut Diagnostics) {
    ports_fit(&draft.worker, out);
    let Some(forward) = &draft.worker.forward else {
        return;
    };
    let at = forward.to.place;
    let mut refuse = |place: Place, message: String, hint: &str| {
        let problem = ValueError::bad(message).hint(hint).at(place);
        out.add(problem.with_related(at, "`forward`"));
    };
    for (key, why) in CONTRADICTIONS {
        if let Some(place) = written.place(key) {
            let message = format!("`{key}` beside `forward`: {why}");
            refuse(place, message, "delete one of them");
        }
    }
    let worker = &draft.worker;
    if worker.activation.value == Activation::PerConnection && !draft.activation.is_broken() {
        let message = "`activation: per-connection` beside `forward`: one process forwards all \
                       connections";
        let hint = "write `activation: eager` or `on-demand`";
        refuse(worker.activation.place, message.to_owned(), hint);
    }
    if let Ready::Accepting(_) | Ready::Fd(_) | Ready::Einhorn = worker.ready.value {
        let message = format!(
            "`ready: {}` beside `forward`: `listend forward` sends READY=1 when the server answers",
            worker.ready.value
        );
        refuse(
            worker.ready.place,
            message,
            "delete the key, or write `notify` or `started`",
        );
    }
    if worker.command.is_empty() {
        for key in ["argv0", "expand_environment"] {
            if let Some(place) = written.place(key) {
                let message = format!("`{key}` without a `command`");
                refuse(
                    place,
                    message,
                    "add the command of the server, or delete the key",
                );
            }
        }
        return;
    }
    let differs =
        |by: &Piece| has(&forward.to.value, &Piece::ServerPort) || has(&forward.to.value, by);
    if worker.most_instances() > 1 && !differs(&Piece::Instance) {
        let place = written.place("instances").unwrap_or(at);
        let message = "`instances`: each instance has a server of its own, and only one of them can \
                       have the address of `forward`";
        let hint = "write `{port}` or `{instance}` in the address, or one instance";
        refuse(place, message.to_owned(), hint);
    }
    if !differs(&Piece::Generation) {
        // The new server cannot have the address before the old one has given it up.
        match written.place("rollout.order") {
            Some(place) if worker.rollout.order == Order::StartFirst => {
                let message = "`order: start-first`: two servers cannot have the address of `forward` \
                               at a time";
                let hint =
                    "write `{port}` or `{generation}` in the address, or `order: stop-first`";
                refuse(place, message.to_owned(), hint);
            }
            _ => draft.worker.rollout.order = Order::StopFirst,
        }
    }
}

/// Files `{port}` where nobody chooses one, and a port that nobody is told.
fn ports_fit(worker: &Worker, out: &mut Diagnostics) {
    let variables = worker.environment.iter().map(|(_, value)| value);
    let mut used = worker.command.iter().chain(&worker.argv0).chain(variables);
    let is_used = used.find(|template| has(&template.value, &Piece::ServerPort));
    let chosen = worker.forward.as_ref().map(|forward| &forward.to);
    let chosen = chosen.filter(|to| has(&to.value, &Piece::ServerPort));
    let output = match &worker.output {
        super::model::Output::File(path) => Some(path),
        _ => None,
    };
    let folder = worker
        .launch
        .working_directory
        .as_ref()
        .map(|one| &one.value);
    let hooks = worker.commands().flat_map(|hook| &hook.command);
    let mut others = hooks.chain(output).chain(folder);
    let (place, message, hint) = match (is_used, chosen) {
        (Some(used), None) => (
            used.place,
            "`{port}` does not name a listener",
            "write `{port:NAME}`; alone it is the port of `forward: HOST:{port}`",
        ),
        (None, Some(chosen)) => (
            chosen.place,
            "nothing tells the server which port `{port}` is",
            "write `{port}` in `command` or `environment`, too",
        ),
        _ if others.any(|template| has(template, &Piece::ServerPort)) => (
            worker.name.place,
            "`{port}` is known only to `command` and `environment`",
            "write `{port:NAME}` for the port of a listener",
        ),
        _ => return,
    };
    out.add(
        ValueError::new(Kind::BadTemplate, message)
            .hint(hint)
            .at(place),
    );
}

/// Files listeners whose clients cannot be forwarded.
pub(super) fn listeners_fit(draft: &DraftWorker, listeners: &[Taken], report: &mut Report) {
    let Some(forward) = &draft.worker.forward else {
        return;
    };
    let name = &draft.worker.name.value;
    for (wanted, listener) in listeners {
        let addresses = listener.listener.addresses.iter();
        let mut endpoints = addresses.flat_map(|address| &address.value.endpoints);
        let carries = |endpoint: &&Endpoint| {
            use SocketKind::{Mptcp, Tcp, UnixStream, VsockStream};
            matches!(endpoint.kind(), Tcp | Mptcp | UnixStream | VsockStream)
        };
        let Some(endpoint) = endpoints.find(|endpoint| !carries(endpoint)) else {
            continue;
        };
        let word = endpoint.kind().word();
        let why = match endpoint.accepts() {
            true => "whose messages have bounds that a stream of bytes does not keep",
            false => "which has no connections to forward",
        };
        let value_error = ValueError::bad(format!(
            "`forward`: `{endpoint}` of `{}` is {word}, {why}",
            wanted.value
        ))
        .hint("let the server bind that address itself, or inherit the socket");
        let problem = value_error.at(wanted.place).of_worker(name);
        let problem = problem.of_listener(&wanted.value);
        report.add(problem.with_related(forward.to.place, "`forward`"));
    }
}

/// The worker that listend runs for this one: where it forwards, its main process is `listend forward`.
pub fn forwarded(worker: &Worker) -> Cow<'_, Worker> {
    let Some(forward) = &worker.forward else {
        return Cow::Borrowed(worker);
    };
    let place = forward.to.place;
    let mut words: Vec<Located<Template>> = Vec::new();
    let mut add = |value: Template| words.push(Located { value, place });
    let literal = |text: &str| Template::literal(text);
    add(Template {
        pieces: vec![Piece::Listend],
    });
    add(literal("forward"));
    let mut option = |name: &str, value: Template| {
        add(literal(name));
        add(value);
    };
    let time = |time: Duration| {
        literal(&match time.subsec_millis() {
            0 => format!("{}s", time.as_secs()),
            _ => format!("{}ms", time.as_millis()),
        })
    };
    option("--connect-timeout", time(forward.connect_timeout));
    option("--drain", time(forward.drain));
    if let Some(idle) = forward.idle {
        option("--idle", time(idle));
    }
    if let Some(silence) = forward.keep_alive {
        option("--keep-alive", time(silence));
    }
    if let Some(version) = forward.proxy_protocol {
        let word = match version {
            ProxyProtocol::V1 => "v1",
            ProxyProtocol::V2 => "v2",
        };
        option("--proxy-protocol", literal(word));
    }
    option(
        "--stop-signal",
        literal(&scalar::signal_name(worker.stop_signal)),
    );
    if let Some(argv0) = &worker.argv0 {
        option("--argv0", argv0.value.clone());
    }
    for (name, value) in &worker.environment {
        if has(&value.value, &Piece::ServerPort) {
            option("--port-variable", literal(name));
        }
    }
    if worker.launch.ignore_sigpipe {
        add(literal("--ignore-sigpipe"));
    }
    add(forward.to.value.clone());
    if !worker.command.is_empty() {
        add(literal("--"));
        words.extend(worker.command.iter().cloned());
    }
    Cow::Owned(Worker {
        command: words,
        argv0: None,
        ..worker.clone()
    })
}
