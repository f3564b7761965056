//! inetd.conf and the files of xinetd.

use super::document::{Document, Entry, Value, literal};
use super::values::{octal, port, words};
use std::collections::HashMap;

/// The address of a service: scheme, host and port.
fn address(protocol: &str, host: Option<&str>, port: u16, v6_by_default: bool) -> Option<String> {
    let family = protocol.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
    let scheme = match protocol.trim_end_matches(|letter: char| letter.is_ascii_digit()) {
        "tcp" => "",
        "udp" => "udp://",
        "sctp" => "sctp://",
        _ => return None,
    };
    let host = match (host.unwrap_or("*"), family) {
        // A program that waits takes one socket.
        ("localhost", "6") => "[::1]".to_owned(),
        ("localhost", _) => "127.0.0.1".to_owned(),
        ("*", "6") => "[::]".to_owned(),
        ("*", "46") => String::new(),
        ("*", "") if v6_by_default => String::new(),
        ("*", _) => "0.0.0.0".to_owned(),
        (host, _) if host.contains(':') => format!("[{}]", host.trim_matches(['[', ']'])),
        (host, _) => host.to_owned(),
    };
    Some(format!("{scheme}{host}:{port}"))
}

/// Sets the command, and what `argv[0]` is where it is not the program.
fn command(worker: &mut Entry, program: &str, arguments: &[String]) {
    let mut words = vec![literal(program)];
    if let Some((first, rest)) = arguments.split_first() {
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        if base(first) != base(program) {
            worker.set("argv0", literal(first));
        }
        words.extend(rest.iter().map(|word| literal(word)));
    }
    worker.set("command", words);
}

/// inetd.conf(5): a service in each line.
pub(super) fn inetd(text: &str) -> Document {
    let mut document = Document::default();
    let mut host: Option<String> = None;
    for line in text.lines() {
        let line = line.trim();
        let fields = words(line);
        match fields.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            [only] if only.ends_with(':') => {
                let address = only.trim_end_matches(':');
                host = (address != "*").then(|| address.to_owned());
            }
            [service, kind, protocol, wait, user, program, arguments @ ..] => {
                let of = Service {
                    service,
                    kind,
                    protocol,
                    wait,
                    user,
                    program,
                };
                of.add(&mut document, line, host.as_deref(), arguments);
            }
            _ => document.note(line, "it has fewer than six fields"),
        }
    }
    document
}

/// The first fields of a line.
struct Service<'a> {
    service: &'a str,
    kind: &'a str,
    protocol: &'a str,
    wait: &'a str,
    user: &'a str,
    program: &'a str,
}

impl Service<'_> {
    fn add(&self, document: &mut Document, line: &str, host: Option<&str>, arguments: &[String]) {
        if self.program == "internal" {
            return document.note(line, "listend has no services of its own");
        }
        if self.service.starts_with("tcpmux/") {
            return document.note(line, "listend has no tcpmux");
        }
        if self.protocol.starts_with("rpc/")
            || self.service.contains('/') && !self.service.starts_with('/')
        {
            return document.note(line, "listend does not register services with rpcbind");
        }
        let (wait, rate) = match self.wait.split_once(['.', ':']) {
            Some((wait, rate)) => (wait, Some(rate)),
            None => (self.wait, None),
        };
        // WAIT/MAX-CHILD/MAX-CONNECTIONS-PER-IP-PER-MINUTE/MAX-CHILD-PER-IP of FreeBSD.
        let mut limits = wait.split('/');
        let wait = limits.next().unwrap_or_default();
        if !["wait", "nowait"].contains(&wait) {
            return document.note(line, "its fourth field is neither `wait` nor `nowait`");
        }
        // HOST:SERVICE is for one address, or several.
        let (host, service) = match self.service.rsplit_once(':') {
            Some((host, service)) => (Some(host), service),
            None => (host, self.service),
        };
        let (protocol, options) = match self.protocol.split_once(',') {
            Some((protocol, options)) => (protocol, Some(options)),
            None => (self.protocol, None),
        };
        let is_unix = protocol == "unix";
        let addresses: Option<Vec<String>> = match (is_unix, self.kind) {
            (true, "dgram") => Some(vec![format!("unix-dgram:{service}")]),
            (true, "stream") => Some(vec![format!("unix:{service}")]),
            (false, "stream" | "dgram") => port(service, protocol).and_then(|port| {
                let hosts = host.unwrap_or("*").split(',');
                hosts
                    .map(|host| address(protocol, Some(host), port, false))
                    .collect()
            }),
            _ => return document.note(line, "listend has no such socket for it"),
        };
        let Some(addresses) = addresses else {
            return document.note(
                line,
                "the port of this service is not known: write its number",
            );
        };
        let stem = service.rsplit('/').next().unwrap_or(service);
        let name = if self.kind == "dgram" && !is_unix && document.has(stem) {
            format!("{stem}-udp")
        } else {
            stem.to_owned()
        };
        let mut listener = Entry::new(&name);
        match addresses.as_slice() {
            [address] => listener.set("address", address.as_str()),
            _ => listener.set("address", addresses),
        }
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            match option.split_once('=') {
                Some(("rcvbuf", size)) => listener.set("receive_buffer", size.to_ascii_uppercase()),
                Some(("sndbuf", size)) => listener.set("send_buffer", size.to_ascii_uppercase()),
                _ => listener.note(option, "it is not known here"),
            }
        }
        let mut worker = Entry::new(&name);
        command(&mut worker, self.program, arguments);
        worker.set("listeners", vec![listener.name.clone()]);
        started_by_client(&mut worker, wait == "wait");
        match self.user.split_once(['.', ':']) {
            Some((user, group)) => {
                let (group, class) = group.split_once('/').unwrap_or((group, ""));
                worker.set("user", user);
                worker.set("group", group);
                if !class.is_empty() {
                    worker.note(&format!("login class {class}"), "Linux has none");
                }
            }
            None => worker.set("user", self.user),
        }
        if wait == "nowait" {
            let mut limit = || limits.next().filter(|limit| *limit != "0");
            worker.set("max_connections", limit().unwrap_or("none"));
            if let Some(per_minute) = limit() {
                worker.note(
                    &format!("{per_minute} connections of an address in a minute"),
                    "`accept_rate` is for all addresses together",
                );
            }
            if let Some(per_source) = limit() {
                worker.set("max_connections_per_source", per_source);
            }
        }
        if let Some(rate) = rate {
            worker.set(rate_key(wait == "wait"), format!("{rate} in 1m"));
        }
        document.listeners.push(listener);
        document.workers.push(worker);
    }
}

fn started_by_client(worker: &mut Entry, waits: bool) {
    worker.set(
        "activation",
        if waits { "on-demand" } else { "per-connection" },
    );
    worker.set("handoff", "inetd");
    // inetd and xinetd give it its default action, which ends some programs when their client is gone: they
    // look at no result of write(2).
    worker.set("ignore_sigpipe", "false");
}

fn rate_key(waits: bool) -> &'static str {
    if waits {
        "trigger_limit"
    } else {
        "accept_rate"
    }
}

/// A `service` or `defaults` of xinetd.conf(5).
type Attributes = HashMap<String, Vec<String>>;

/// What the defaults can have, and what adds up in them.
const OF_ALL: [&str; 12] = [
    "log_type",
    "bind",
    "interface",
    "per_source",
    "umask",
    "instances",
    "groups",
    "cps",
    "max_load",
    "banner",
    "banner_success",
    "banner_fail",
];
const CUMULATIVE: [&str; 7] = [
    "log_on_success",
    "log_on_failure",
    "only_from",
    "no_access",
    "passenv",
    "disabled",
    "enabled",
];

/// Files of xinetd: those of /etc/xinetd.d and xinetd.conf.
pub(super) fn xinetd(text: &str) -> Document {
    let mut document = Document::default();
    let mut defaults = Attributes::new();
    let mut services: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut current: Option<(&str, Vec<&str>)> = None;
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line == "{" {
            continue;
        }
        if line == "}" {
            services.extend(current.take());
        } else if let Some((_, lines)) = &mut current {
            lines.push(line);
        } else if line.trim_end_matches('{').trim() == "defaults" {
            current = Some(("", Vec::new()));
        } else if let Some(name) = line.strip_prefix("service") {
            current = Some((name.trim_end_matches('{').trim(), Vec::new()));
        } else {
            document.note(line, "give the files themselves to `listend import`");
        }
    }
    // They are for the services in front of them as well.
    let (all, services): (Vec<_>, Vec<_>) = services.into_iter().partition(|one| one.0.is_empty());
    for line in all.iter().flat_map(|(_, lines)| lines) {
        let name = line.split(['=', '+', '-']).next().unwrap_or_default();
        let name = name.trim();
        let is_set = !line.contains("+=") && !line.contains("-=");
        if CUMULATIVE.contains(&name) && is_set {
            // It adds to what is there, as `+=` does.
            let adds = line.replacen('=', "+=", 1);
            assign(&adds, &mut defaults, &Attributes::new());
        } else if CUMULATIVE.contains(&name) || OF_ALL.contains(&name) {
            assign(line, &mut defaults, &Attributes::new());
        } else {
            document.note(&format!("{line} of the defaults"), "only a service has it");
        }
    }
    for (name, lines) in services {
        let mut of = Attributes::new();
        for line in lines {
            assign(line, &mut of, &defaults);
        }
        service(name, of, &defaults, &mut document);
    }
    document
}

fn assign(line: &str, attributes: &mut Attributes, defaults: &Attributes) {
    let Some((name, value)) = line.split_once('=') else {
        return;
    };
    // There are no quotes.
    let values: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
    let (name, sign) = match name.trim_end() {
        name if name.ends_with('+') => (name.trim_end_matches('+'), '+'),
        name if name.ends_with('-') => (name.trim_end_matches('-'), '-'),
        name => (name, '='),
    };
    let name = name.trim().to_owned();
    let before = defaults.get(&name).cloned();
    let held = attributes
        .entry(name)
        .or_insert_with(|| before.unwrap_or_default());
    match sign {
        '+' => held.extend(values),
        '-' => held.retain(|value| !values.contains(value)),
        _ => *held = values,
    }
}

fn service(name: &str, mut of: Attributes, defaults: &Attributes, document: &mut Document) {
    for (key, values) in defaults {
        of.entry(key.clone()).or_insert_with(|| values.clone());
    }
    let first = |key: &str| {
        of.get(key)
            .and_then(|values| values.first())
            .map(String::as_str)
    };
    let has = |key: &str, word: &str| {
        of.get(key)
            .is_some_and(|values| values.iter().any(|value| value == word))
    };
    let what = format!("service {name}");
    let id = first("id").unwrap_or(name);
    let is_named = |key: &str| has(key, name) || has(key, id);
    if first("disable") == Some("yes")
        || is_named("disabled")
        || of.contains_key("enabled") && !is_named("enabled")
        || has("flags", "DISABLE")
    {
        return document.note(&what, "it is disabled");
    }
    if has("type", "TCPMUX") || has("type", "TCPMUXPLUS") {
        return document.note(&what, "listend has no tcpmux");
    }
    if !matches!(first("socket_type"), None | Some("stream" | "dgram")) {
        return document.note(&what, "listend has no such socket for it");
    }
    if has("type", "INTERNAL") || first("server").is_none() && first("redirect").is_none() {
        return document.note(&what, "listend has no services of its own");
    }
    if has("type", "RPC") {
        return document.note(&what, "listend does not register services with rpcbind");
    }
    let is_datagram = first("socket_type") == Some("dgram");
    let protocol = first("protocol").unwrap_or(if is_datagram { "udp" } else { "tcp" });
    let number = first("port").and_then(|port| port.parse().ok());
    let host = first("bind").or(first("interface"));
    let is_v6 = has("flags", "IPv6");
    let host = match (host, first("v6only")) {
        (Some("localhost"), _) if is_v6 => Some("::1"),
        (None, Some("yes")) if is_v6 => Some("::"),
        (host, _) => host,
    };
    // Without a flag it takes clients of both families.
    let is_both = !has("flags", "IPv4");
    let address = number
        .or_else(|| port(name, protocol))
        .and_then(|port| address(protocol, host, port, is_both));
    let Some(address) = address else {
        return document.note(&what, "the port of this service is not known: write `port`");
    };
    let mut listener = Entry::new(id);
    listener.set("address", address);
    let mut worker = Entry::new(&listener.name);
    worker.set("listeners", vec![listener.name.clone()]);
    if let Some(target) = of.get("redirect") {
        let target = target.join(" ");
        worker.set("forward", target.replace(' ', ":"));
    }
    let waits = first("wait").map_or(is_datagram, |wait| wait == "yes");
    if let Some(server) = first("server") {
        let mut arguments = of.get("server_args").cloned().unwrap_or_default();
        if !has("flags", "NAMEINARGS") {
            arguments.insert(0, server.to_owned());
        }
        command(&mut worker, server, &arguments);
        started_by_client(&mut worker, waits);
        if !waits {
            worker.set("max_connections", "none");
        }
        if of.contains_key("user") && first("groups") != Some("yes") {
            worker.set("supplementary_groups", Vec::<String>::new());
        }
    }
    let mut keys: Vec<(&String, &Vec<String>)> = of.iter().collect();
    keys.sort();
    for (key, values) in keys {
        let value = values.join(" ");
        attribute(key, values, &value, waits, &mut listener, &mut worker);
    }
    document.listeners.push(listener);
    document.workers.push(worker);
}

fn attribute(
    key: &str,
    values: &[String],
    value: &str,
    waits: bool,
    listener: &mut Entry,
    worker: &mut Entry,
) {
    match key {
        "user" | "group" | "nice" => worker.set(key, value),
        "umask" => worker.set(key, octal(value)),
        "instances" if !waits && value != "UNLIMITED" => {
            worker.set("max_connections", value);
            worker.set("overflow", "close");
        }
        "per_source" if !waits && value != "UNLIMITED" => {
            worker.set("max_connections_per_source", value);
        }
        "cps" => {
            let rate = values.first().map(String::as_str).unwrap_or_default();
            worker.set(rate_key(waits), format!("{rate} in 1s"));
            if values.len() > 1 {
                let why = "what is beyond waits; the service is not disabled for a time";
                worker.note(&format!("{key} = {value}"), why);
            }
        }
        "env" => {
            for pair in values {
                if let Some((name, value)) = pair.split_once('=') {
                    worker.add(
                        "environment",
                        Value::Map(vec![(name.to_owned(), literal(value))]),
                    );
                }
            }
        }
        "rlimit_as" | "rlimit_cpu" | "rlimit_data" | "rlimit_rss" | "rlimit_stack"
        | "rlimit_files" => {
            let name = match key {
                "rlimit_files" => "nofile",
                key => key.trim_start_matches("rlimit_"),
            };
            let value = value.replace("UNLIMITED", "unlimited");
            worker.add("limits", Value::Map(vec![(name.to_owned(), value)]));
        }
        "flags" => {
            for flag in values {
                match flag.as_str() {
                    "NODELAY" => listener.set("no_delay", "true"),
                    "KEEPALIVE" => listener.set("keep_alive", "true"),
                    "NAMEINARGS" | "IPv6" | "IPv4" | "REUSE" | "NOLIBWRAP" => {}
                    other => listener.note(&format!("flags = {other}"), "it has no equivalent"),
                }
            }
        }
        "socket_type" | "protocol" | "wait" | "server" | "server_args" | "port" | "bind"
        | "interface" | "disable" | "id" | "type" | "redirect" | "per_source" | "instances"
        | "v6only" | "groups" | "enabled" | "disabled" => {}
        "only_from" | "no_access" | "access_times" => {
            listener.note(
                &format!("{key} = {value}"),
                "use a firewall, or the server's own rules",
            );
        }
        key if key.starts_with("log_") => {
            worker.note(
                &format!("{key} = {value}"),
                "the log has starts and ends of processes",
            );
        }
        "passenv" => worker.note(
            &format!("{key} = {value}"),
            "a worker has the environment of listend",
        ),
        _ => worker.note(&format!("{key} = {value}"), "it has no equivalent"),
    }
}
