//! Socket units of systemd (systemd.socket(5)).

use super::document::{Document, Entry, Value};
use super::unit::{Unit, assignments, is_true, last, notes_of_unit, specifiers, stem, unresolved};
use super::values::{octal, span, unit_words};
use crate::config::options::{OPTIONS, OptionSpec, ValueKind};

/// Where a service gets its sockets from.
pub(super) struct Socket {
    pub unit: String,
    pub service: Option<String>,
    pub accept: bool,
    pub listeners: Vec<String>,
    /// Keys of the worker.
    pub keys: Vec<(String, Value)>,
}

impl Socket {
    /// The unit that it starts.
    pub fn service_name(&self) -> String {
        service_name(&self.unit, self.service.as_deref(), self.accept)
    }
}

/// The unit that a socket unit starts (systemd.socket(5)).
fn service_name(unit: &str, service: Option<&str>, accept: bool) -> String {
    match (service, stem(unit)) {
        (Some(name), _) => name.to_owned(),
        // Those of an instance are instances of the same template as those of its template.
        (None, stem) if accept => {
            let prefix = stem.split('@').next().unwrap_or(stem);
            format!("{prefix}@.service")
        }
        (None, stem) => format!("{stem}.service"),
    }
}

/// The unit that a socket unit starts.
pub(super) fn service_of(unit: &Unit) -> String {
    let keys = assignments(unit, "Socket");
    let accept = last(&keys, "Accept").is_some_and(is_true);
    service_name(&unit.name, last(&keys, "Service"), accept)
}

pub(super) fn is_served_by(socket: &Socket, service: &str) -> bool {
    let wanted = socket.service_name();
    // An instance of a template is not a file.
    let template = wanted
        .split_once('@')
        .map(|(name, _)| format!("{name}@.service"));
    wanted == service || template.as_deref() == Some(service)
}

pub(super) fn socket(unit: &Unit, document: &mut Document) -> Socket {
    let keys = assignments(unit, "Socket");
    let name = last(&keys, "FileDescriptorName").unwrap_or(stem(&unit.name));
    let mut listener = Entry::new(name.trim_end_matches('@'));
    let mut socket = Socket {
        unit: unit.name.clone(),
        service: last(&keys, "Service").map(str::to_owned),
        accept: last(&keys, "Accept").is_some_and(is_true),
        listeners: vec![listener.name.clone()],
        keys: Vec::new(),
    };
    notes_of_unit(unit, &mut listener);
    let addresses = addresses(&keys, unit, &mut listener);
    if addresses.is_empty() {
        document.note(&unit.name, "it has no address that listend can bind");
        socket.listeners.clear();
        return socket;
    }
    let has_path = addresses.iter().any(|address| is_path(address));
    listener.set("address", addresses);
    for (key, value) in &keys {
        let written = format!("{key}={value}");
        match key.as_str() {
            key if key.starts_with("Listen") => {}
            "Accept" | "Service" | "FileDescriptorName" | "BindIPv6Only" | "SocketProtocol" => {}
            "SocketUser" => listener.set("owner", value.as_str()),
            "SocketGroup" => listener.set("group", value.as_str()),
            "SocketMode" => listener.set("mode", octal(value)),
            "DirectoryMode" => listener.set("directory_mode", octal(value)),
            "Backlog" => listener.set("backlog", value.as_str()),
            "Writable" => listener.set("writable", is_true(value).to_string()),
            "RemoveOnStop" => listener.set("remove_on_stop", is_true(value).to_string()),
            "Symlinks" => {
                let links = unit_words(value)
                    .into_iter()
                    .map(|link| specifiers(&link, unit))
                    .collect();
                listener.add("symlinks", Value::List(links));
            }
            "MaxConnections" if socket.accept => socket.key("max_connections", value),
            "MaxConnectionsPerSource" if socket.accept => {
                socket.key("max_connections_per_source", value);
            }
            "TriggerLimitIntervalSec" | "TriggerLimitBurst" => {}
            _ => match OPTIONS
                .iter()
                .find(|option| option.systemd == Some(&format!("{key}=")))
            {
                Some(option) => match of_option(option, value) {
                    Some(value) => listener.set(option.key, value),
                    None => listener.note(&written, "its value is not known here"),
                },
                None => listener.note(&written, of_socket(key)),
            },
        }
    }
    if has_path {
        if listener.get("mode").is_none() {
            // The default of systemd; that of listend is 0600.
            listener.set("mode", "0666");
        }
        if listener.get("remove_on_stop").is_none() {
            listener.set("remove_on_stop", "false");
        }
    }
    if socket.accept && last(&keys, "MaxConnections").is_none() {
        socket.key("max_connections", "64");
    }
    if socket.accept {
        // systemd closes what is too much.
        socket.key("overflow", "close");
    }
    let burst = last(&keys, "TriggerLimitBurst");
    let interval = last(&keys, "TriggerLimitIntervalSec");
    if burst.is_some() || interval.is_some() {
        let default = if socket.accept { "200" } else { "20" };
        let interval = interval.and_then(span).unwrap_or("2s".to_owned());
        let limit = match burst.unwrap_or(default) {
            "0" => "none".to_owned(),
            _ if interval == "0" => "none".to_owned(),
            burst => format!("{burst} in {interval}"),
        };
        let key = if socket.accept {
            "accept_rate"
        } else {
            "trigger_limit"
        };
        socket.key(key, &limit);
    }
    unresolved(&mut listener);
    document.listeners.push(listener);
    socket
}

impl Socket {
    fn key(&mut self, key: &str, value: &str) {
        self.keys.push((key.to_owned(), value.into()));
    }
}

/// Why an assignment of a socket unit has no equivalent.
fn of_socket(key: &str) -> &'static str {
    match key {
        "ExecStartPre" | "ExecStartPost" | "ExecStopPre" | "ExecStopPost" => {
            "a listener runs no commands; see `before_start` of a worker"
        }
        "PollLimitIntervalSec" | "PollLimitBurst" => "see `trigger_limit` and `accept_rate`",
        "FlushPending" => "clients that wait are always served by the next worker",
        "PassFileDescriptorsToExec" => "a listener runs no commands",
        "SmackLabel" | "SmackLabelIPIn" | "SmackLabelIPOut" | "SELinuxContextFromNet" => {
            "listend sets no security labels"
        }
        "TimeoutSec" => "a bind does not take time",
        "KeyringMode" | "PrivateNetwork" | "PrivateUsers" => "see `network_namespace`",
        _ => "there is no such setting of a listener",
    }
}

fn is_path(address: &str) -> bool {
    [
        "unix:/",
        "unix-dgram:/",
        "unix-seqpacket:/",
        "fifo:",
        "mqueue:",
    ]
    .iter()
    .any(|scheme| address.starts_with(scheme))
}

/// Every `Listen…=` as an address.
fn addresses(keys: &[(String, String)], unit: &Unit, listener: &mut Entry) -> Vec<String> {
    let protocol = last(keys, "SocketProtocol").unwrap_or_default();
    let v6_only = match last(keys, "BindIPv6Only").unwrap_or("default") {
        "ipv6-only" => V6::Only,
        "both" => V6::Both,
        _ => V6::Default,
    };
    let mut addresses = Vec::new();
    for (key, value) in keys {
        let value = specifiers(value, unit);
        let stream = match protocol {
            "sctp" => "sctp://",
            "mptcp" => "mptcp://",
            _ => "",
        };
        let datagram = if protocol == "udplite" {
            "udplite://"
        } else {
            "udp://"
        };
        let address = match key.as_str() {
            "ListenStream" => inet_or_unix(&value, stream, "unix:", "vsock:", v6_only),
            "ListenDatagram" => {
                inet_or_unix(&value, datagram, "unix-dgram:", "vsock-dgram:", v6_only)
            }
            "ListenSequentialPacket" => inet_or_unix(
                &value,
                "sctp://",
                "unix-seqpacket:",
                "vsock-seqpacket:",
                v6_only,
            ),
            "ListenFIFO" => Some(format!("fifo:{value}")),
            "ListenSpecial" => Some(format!("special:{value}")),
            "ListenMessageQueue" => Some(format!("mqueue:{value}")),
            "ListenNetlink" => {
                let mut parts = value.split_whitespace();
                let family = parts.next().unwrap_or_default();
                match parts.next().and_then(|mask| mask.parse::<u32>().ok()) {
                    None | Some(0) => Some(format!("netlink:{family}")),
                    Some(mask) => Some(format!("netlink:{family} {mask:#x}")),
                }
            }
            "ListenUSBFunction" => None,
            _ => continue,
        };
        match address {
            Some(address) => addresses.push(address),
            None => listener.note(&format!("{key}={value}"), "listend cannot bind it"),
        }
    }
    if v6_only == V6::Both && addresses.iter().any(|address| address.contains("[::]")) {
        listener.set("ipv6_only", "false");
    }
    addresses
}

#[derive(Clone, Copy, PartialEq)]
enum V6 {
    Only,
    Both,
    Default,
}

fn inet_or_unix(value: &str, inet: &str, unix: &str, vsock: &str, v6: V6) -> Option<String> {
    if value.starts_with(['/', '@']) {
        return Some(format!("{unix}{value}"));
    }
    if let Some((_, rest)) = value
        .split_once(':')
        .filter(|(scheme, _)| scheme.starts_with("vsock"))
    {
        return Some(format!("{vsock}{rest}"));
    }
    if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        let host = if v6 == V6::Only { "[::]" } else { "" };
        return Some(format!("{inet}{host}:{value}"));
    }
    let (host, port) = value.rsplit_once(':')?;
    // The kernel's default for `[::]` is both families.
    let host = if host == "[::]" && v6 == V6::Default {
        ""
    } else {
        host
    };
    Some(format!("{inet}{host}:{port}"))
}

/// The value of a socket option.
fn of_option(option: &OptionSpec, value: &str) -> Option<String> {
    Some(match option.value {
        ValueKind::Flag => is_true(value).to_string(),
        ValueKind::Seconds(..) | ValueKind::Milliseconds(..) => span(value)?,
        ValueKind::Size(..) => value.replace(' ', ""),
        ValueKind::Number(..) if option.key == "ip_tos" => match value {
            "low-delay" => "16",
            "throughput" => "8",
            "reliability" => "4",
            "low-cost" => "2",
            number => number,
        }
        .to_owned(),
        ValueKind::Choice(_) => match value {
            "us" | "usec" | "µs" => "us",
            "ns" | "nsec" => "ns",
            "off" => "off",
            _ => return None,
        }
        .to_owned(),
        ValueKind::Number(..) | ValueKind::Text(_) => value.to_owned(),
    })
}
