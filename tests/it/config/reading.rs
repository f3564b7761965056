//! The configuration reader from outside: whole files in, messages or values out.

use listend::config::options::{OPTIONS, OptionValue, ValueKind};
use listend::config::{
    Endpoint, Loaded, Output, Presence, SocketKind, SourceFile, from_arguments, read, to_yaml,
};
use listend::report::{Kind, Style, render};
use proptest::prelude::*;
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn load_bytes(files: &[(&str, &[u8])]) -> Loaded {
    let files = files.iter().map(|(name, bytes)| SourceFile {
        name: (*name).to_owned(),
        bytes: bytes.to_vec(),
        folder: PathBuf::from("/etc/listend"),
    });
    read(files.collect())
}

pub(super) fn load(text: &str) -> Loaded {
    load_bytes(&[("listend.yaml", text.as_bytes())])
}

pub(super) fn shown(loaded: &Loaded) -> String {
    render(&loaded.report, &loaded.sources, Style::Plain)
}

pub(super) fn kinds(loaded: &Loaded) -> Vec<String> {
    let all = loaded.report.errors.iter().chain(&loaded.report.advice);
    all.map(|problem| problem.kind.code()).collect()
}

/// Every example of the design in one file.
const DESIGN: &str = include_str!("../../golden/design.yaml");

/// Every kind of address, and keys that fit them.
const KINDS_AND_KEYS: &str = r#"
silence: unused-listener
listeners:
  a: "[fe80::1%eth0]:80"
  b: ["127.0.0.1:9000-9003", "localhost:9004-9005", "mptcp://:1", "sctp://:1"]
  c: {address: "udp://:5353", multicast: [239.1.2.3%eth0, "ff02::fb%2"], ip_ttl: 255, broadcast: true}
  d: {address: "udplite://10.0.0.1:5", wait_for_address: 30s, timestamping: ns, receive_buffer: 1M}
  e: {address: "tcp://[::]:7", optional: true, network_namespace: /run/netns/blue, no_delay: true}
  f: {address: "fifo:/run/f", owner: root, pipe_size: 64K, symlinks: [/run/g, /run/h], remove_on_stop: false}
  g: {address: "mqueue:/q", mode: 0620, message_queue_max_messages: 5, message_queue_message_size: 1K}
  h: {address: "special:/dev/null", writable: true}
  i: ["netlink:kobject-uevent 1", "netlink:route", "netlink:16 2"]
  j: ["vsock:2:80", "vsock::81", "vsock-dgram:local:82", "vsock-seqpacket:any:83"]
  k: {address: "unix:/run/k", directory_owner: "root:root", keep_alive_time: 5s, bind_to_device: eth0}
"#;

const CORPUS: &[&str] = &[
    DESIGN,
    "listeners: {a: \":80\"}\nworkers: {w: {command: x y, listeners: a}}\n",
    "listeners:\r\n  a: &x 127.0.0.1:80\r\n  b: *x\r\nworkers:\r\n  w:\r\n    command: [a, \"{fd:a}\"]\r\n",
    "listeners:\n  é: 'unix:/run/é.sock'\nworkers:\n  w:\n    command: |\n      /bin/sh -c\n      'x'\n    environment: {A: ~, B: \"\\u00e9\"}\n",
    KINDS_AND_KEYS,
    include_str!("../../golden/activation.yaml"),
    include_str!("../../golden/lifecycle.yaml"),
    "silence: [unused-listener]\nlisteners:\n- a\n- - b\n  - c: [d, {e: f}]\n",
];

#[test]
fn every_mistake_is_reported_at_once() {
    let loaded = load(include_str!("../../golden/mistakes.yaml"));
    let got = shown(&loaded);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mistakes.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &got).unwrap();
    }
    assert_eq!(got, std::fs::read_to_string(path).unwrap());
    assert!(loaded.report.errors.len() >= 15);
}

#[test]
fn the_example_of_the_design_is_understood() {
    let loaded = load(DESIGN);
    assert_eq!(
        shown(&loaded),
        "listend.yaml:8:3: advice: no worker uses listener `app` [unused-listener]\n  8 |   app:\n    |   ^^^\n  hint: add `app` to the `listeners` of a worker\n\n"
    );
    let config = &loaded.config;
    assert_eq!(config.listeners[1].addresses.len(), 2);
    assert_eq!(config.listeners[2].mode, 0o660);
    let worker = &config.workers[0];
    assert_eq!(worker.instances, 2);
    assert_eq!(worker.environment[0].0, "RUST_LOG");
    assert!(to_yaml(config).unwrap().contains("RUST_LOG"));
}

#[test]
fn values_arrive_as_they_were_meant() {
    let loaded = load(
        "listeners: {w: 127.0.0.1:0}\n\
         workers:\n  a:\n    command: [/bin/x, 8080, true]\n    listeners: w\n    output: null\n    \
         stop_timeout: infinity\n    supplementary_groups: []\n    umask: 027\n    user: 1000\n    \
         environment: {N: 1, E: }\n    environment_file: [-a.env, /b.env]\n    \
         restart: {limit: none, backoff: 1s}\n    limits: {nofile: 1K:unlimited}\n    \
         working_directory: /srv/{instance}\n",
    );
    assert_eq!(shown(&loaded), "");
    let worker = &loaded.config.workers[0];
    let words: Vec<_> = worker
        .command
        .iter()
        .map(|word| word.value.as_literal().unwrap())
        .collect();
    assert_eq!(words, ["/bin/x", "8080", "true"]);
    assert_eq!(worker.output, Output::Null);
    assert_eq!(worker.stop_timeout, None);
    assert_eq!(worker.supplementary_groups, Some(Vec::new()));
    assert_eq!(worker.launch.umask, Some(0o027));
    assert_eq!(worker.user.as_ref().unwrap().value, "1000");
    assert_eq!(worker.restart.limit, None);
    let files = &worker.environment_files;
    assert!(files[0].optional && files[0].path.value == Path::new("/etc/listend/a.env"));
    assert!(!files[1].optional && files[1].path.value == Path::new("/b.env"));
    let limit = worker.launch.limits[0];
    assert_eq!((limit.soft, limit.hard), (Some(1024), None));
}

#[test]
fn files_are_joined_and_a_broken_one_hides_only_itself() {
    let main: &[u8] =
        b"listeners: {a: 127.0.0.1:80}\nworkers: {w: {command: x, listeners: [a, b]}}\n";
    let loaded = load_bytes(&[("main", main), ("two", b"listeners: {b: 127.0.0.1:81}\n")]);
    assert!(kinds(&loaded).is_empty(), "{}", shown(&loaded));
    // The broken file may define `b`, so `b` is not called unknown; `z` is wrong on its own.
    let loaded = load_bytes(&[("main", main), ("two", b"a: [\n"), ("three", b"z: 1\n")]);
    assert_eq!(kinds(&loaded), ["yaml-syntax", "unknown-key"]);
    let twice: &[u8] =
        b"listeners: {a: 127.0.0.1:80, b: 127.0.0.1:82}\nworkers: {w: {command: x}}\n";
    let loaded = load_bytes(&[("main", main), ("two", twice)]);
    assert_eq!(kinds(&loaded), ["duplicate-name", "duplicate-name"]);
    let problem = &loaded.report.errors[0];
    assert_eq!(loaded.sources.position(problem.place.unwrap()), "two:1:13");
    assert_eq!(loaded.sources.position(problem.related[0].0), "main:1:13");
}

#[test]
fn one_kind_of_mistake_each() {
    let worker = |rest: &str| {
        format!(
            "listeners: {{a: 127.0.0.1:80}}\nworkers:\n  w: {{command: x, listeners: a}}\n{rest}"
        )
    };
    for (text, want) in [
        ("", "nothing-configured"),
        ("# only a comment\n", "nothing-configured"),
        ("\u{feff}listeners:\n", "nothing-configured"),
        ("- a\n", "wrong-type"),
        ("listeners: []\n", "wrong-type"),
        ("a: 1\n---\nb: 2\n", "yaml-syntax"),
        ("listeners: !x {}\n", "yaml-syntax"),
        ("listeners: \u{1}\n", "yaml-syntax"),
        ("listeners:\r  a: 127.0.0.1:80\n", "yaml-syntax"),
        ("listeners: {a: [::1]:80}\n", "yaml-syntax"),
        ("listeners: {[a]: b}\n", "wrong-type"),
        ("listeners: {a: }\n", "missing-key unused-listener"),
        ("listeners: {a: []}\n", "missing-key unused-listener"),
        (
            "listeners: {a: {backlog: 5}}\n",
            "missing-key unused-listener",
        ),
        (
            "listeners: {a: {address: }}\n",
            "wrong-type unused-listener",
        ),
        ("silence: [unused-listener]\nlisteners: {a: ':80'}\n", ""),
        (
            "listeners: {a: {address: ':80', silence: unused-listener}}\n",
            "",
        ),
        ("silence: bad-value\n", "bad-value"),
        (&worker("  v: {command: x}\n"), "no-listeners"),
        (&worker("  v: {command: x, silence: [no-listeners]}\n"), ""),
        (
            &worker("  v: {command: x, listeners: a, nonblocking: true}\n"),
            "nonblocking-conflict",
        ),
        (
            &worker("  v: {command: 'x \"', listeners: a}\n"),
            "bad-value",
        ),
        (
            &worker("  v: {command: [], listeners: a}\n"),
            "empty-command",
        ),
        (
            &worker("  v: {command: ['', b], listeners: a}\n"),
            "empty-command",
        ),
        (&worker("  v:\n"), "missing-key"),
        (
            &worker("  v: {command: \"x\\0\", listeners: a}\n"),
            "bad-value",
        ),
        (
            &worker("  v: {command: x, listeners: [a, a]}\n"),
            "bad-value",
        ),
        (
            &worker("  v: {command: 'x {fd:a:1}', listeners: [a]}\n"),
            "bad-template",
        ),
        (
            &worker("  v: {command: 'x {fd:a}'}\n"),
            "bad-template no-listeners",
        ),
        (
            &worker("  v: {command: x, listeners: a, handoff: [nginx, none]}\n"),
            "bad-value",
        ),
        (
            &worker("  v: {command: x, listeners: a, handoff: systemdd}\n"),
            "bad-value",
        ),
        (
            &worker("  v: {command: x, listeners: a, environment: {A: [b]}}\n"),
            "wrong-type",
        ),
        (
            &worker("  v: {command: x, listeners: a, output: }\n"),
            "wrong-type",
        ),
    ] {
        let loaded = load(text);
        assert_eq!(kinds(&loaded).join(" "), want, "{text}\n{}", shown(&loaded));
    }
    let listener = |fields: &str| {
        kinds(&load(&format!(
            "silence: unused-listener\nlisteners: {{a: {{{fields}}}}}\n"
        )))
        .join(" ")
    };
    assert_eq!(listener("address: 127.0.0.1:80, mode: 0600"), "bad-value");
    assert_eq!(listener("address: 'unix:@a', owner: 0"), "bad-value");
    assert_eq!(
        listener("address: 127.0.0.1:80, ipv6_only: true"),
        "bad-value"
    );
    assert_eq!(listener("address: ':80', ipv6_only: true"), "bad-value");
    assert_eq!(listener("address: ':80', ipv6_only: false"), "");
    assert_eq!(listener("address: 'udp://:80', backlog: 5"), "bad-value");
    assert_eq!(listener("address: nohost, mode: 0600"), "bad-address");
}

#[test]
fn invalid_utf8_is_shown_where_it_is() {
    let loaded = load_bytes(&[("f", b"a: 1\n\xc3\xa9\xff: 2\n")]);
    let problem = &loaded.report.errors[0];
    assert_eq!(problem.kind, Kind::YamlSyntax);
    assert_eq!(loaded.sources.position(problem.place.unwrap()), "f:2:2");
}

#[test]
fn depth_and_aliases_are_limited() {
    let deep = "[".repeat(100_000);
    assert_eq!(kinds(&load(&deep)), ["yaml-syntax"]);
    assert_eq!(kinds(&load(&"- ".repeat(10_000))), ["yaml-syntax"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..40 {
        let alias = format!("*a{}", level - 1);
        let _ = writeln!(bomb, "a{level}: &a{level} [{}]", vec![alias; 8].join(", "));
    }
    let loaded = load(&bomb);
    assert_eq!(kinds(&loaded), ["yaml-syntax"]);
    assert!(shown(&loaded).contains("16 MiB"), "{}", shown(&loaded));
    assert_eq!(kinds(&load("a: &a [*a]\n")), ["yaml-syntax"]);
}

/// An address of each kind of socket.
const KINDS: &[(SocketKind, &str)] = &[
    (SocketKind::Tcp, "127.0.0.1:80"),
    (SocketKind::Udp, "udp://127.0.0.1:80"),
    (SocketKind::Mptcp, "mptcp://127.0.0.1:80"),
    (SocketKind::Sctp, "sctp://127.0.0.1:80"),
    (SocketKind::UdpLite, "udplite://127.0.0.1:80"),
    (SocketKind::UnixStream, "unix:/run/a"),
    (SocketKind::UnixDatagram, "unix-dgram:/run/a"),
    (SocketKind::UnixSeqPacket, "unix-seqpacket:/run/a"),
    (SocketKind::VsockStream, "vsock::80"),
    (SocketKind::VsockDatagram, "vsock-dgram::80"),
    (SocketKind::VsockSeqPacket, "vsock-seqpacket::80"),
    (SocketKind::Netlink, "netlink:route 1"),
    (SocketKind::Fifo, "fifo:/run/a"),
    (SocketKind::MessageQueue, "mqueue:/a"),
    (SocketKind::Special, "special:/dev/null"),
];

fn address_of(kind: SocketKind) -> &'static str {
    let found = KINDS.iter().find(|(other, _)| *other == kind);
    found.unwrap().1
}

/// A listener with this key on line 5, behind its address.
fn with_key(address: &str, key: &str, value: &str) -> (Loaded, String) {
    let text = format!(
        "silence: unused-listener\nlisteners:\n  a:\n    address: \"{address}\"\n    {key}: {value}\n"
    );
    (load(&text), text)
}

/// Exactly one error, at the key's value; its message and hint.
#[track_caller]
fn one_error(address: &str, key: &str, value: &str) -> (Kind, String) {
    let (loaded, text) = with_key(address, key, value);
    assert_eq!(loaded.report.errors.len(), 1, "{text}{}", shown(&loaded));
    let problem = &loaded.report.errors[0];
    let column = 4 + key.len() + 3;
    assert_eq!(
        loaded.sources.position(problem.place.unwrap()),
        format!("listend.yaml:5:{column}"),
        "{text}{}",
        shown(&loaded)
    );
    let hint = problem.hint.as_deref().unwrap_or("");
    assert!(!hint.is_empty() || problem.kind == Kind::BadValue, "{text}");
    (problem.kind, format!("{}: {hint}", problem.message))
}

/// The smallest and the greatest value, values that are not allowed, and a part of what the
/// message about them has to say.
fn values(value: ValueKind) -> (Vec<String>, Vec<String>, String) {
    let range = |min: i64, max: i64, unit: &str| {
        let good = vec![format!("{min}{unit}"), format!("{max}{unit}")];
        let mut bad = vec![
            format!("{}{unit}", max + 1),
            "x".to_owned(),
            "1.5".to_owned(),
        ];
        if min > 0 {
            bad.push(format!("{}{unit}", min - 1));
        }
        bad.push("99999999999999999999".to_owned() + unit);
        (good, bad, max.to_string())
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match value {
        ValueKind::Flag => (
            words(&["true", "false"]),
            words(&["yes", "1", "x"]),
            "`true` or `false`".to_owned(),
        ),
        ValueKind::Number(min, max) => range(min, max, ""),
        ValueKind::Size(min, max) => range(min, max, ""),
        ValueKind::Seconds(min, max) => {
            let (good, mut bad, says) = range(min, max, "s");
            bad.extend(words(&["1500ms", "5"]));
            (good, bad, says)
        }
        ValueKind::Milliseconds(min, max) => range(min, max, "ms"),
        ValueKind::Text(most) => {
            let mut bad = words(&["''", "a b", "a/b", "..", "\"a\\nb\""]);
            bad.push("x".repeat(most + 1));
            (
                vec!["x".to_owned(), "x".repeat(most)],
                bad,
                most.to_string(),
            )
        }
        ValueKind::Choice(choices) => {
            let good = choices.iter().map(|(word, _)| (*word).to_owned());
            let says = format!("`{}`", choices[0].0);
            (good.collect(), words(&["nothing", "0", "''"]), says)
        }
    }
}

#[test]
fn every_option_takes_its_values_on_every_kind_that_has_it() {
    for spec in OPTIONS {
        for kind in spec.kinds {
            for value in values(spec.value).0 {
                let (loaded, text) = with_key(address_of(*kind), spec.key, &value);
                assert_eq!(shown(&loaded), "", "{text}");
                let options = &loaded.config.listeners[0].options;
                assert_eq!(options.len(), 1);
                assert_eq!(options[0].value.spec.key, spec.key);
            }
        }
    }
}

#[test]
fn every_option_refuses_what_is_no_value_of_it() {
    for spec in OPTIONS {
        let address = address_of(spec.kinds[0]);
        let (_, bad, says) = values(spec.value);
        for value in ["[x, y]", "{x: y}", "[]"] {
            let (kind, words) = one_error(address, spec.key, value);
            assert_eq!(kind, Kind::WrongType, "{}", spec.key);
            assert!(words.contains(&says), "{}: {words}", spec.key);
        }
        for value in bad {
            let (kind, words) = one_error(address, spec.key, &value);
            assert_eq!(kind, Kind::BadValue, "{}", spec.key);
            assert!(words.contains(&says), "{}: {words}", spec.key);
        }
    }
}

#[test]
fn every_option_refuses_every_other_kind_of_socket() {
    for spec in OPTIONS {
        let value = values(spec.value).0.remove(0);
        for (kind, address) in KINDS.iter().filter(|(kind, _)| !spec.kinds.contains(kind)) {
            let (code, words) = one_error(address, spec.key, &value);
            assert_eq!(code, Kind::BadValue, "{}", spec.key);
            let own = spec.kinds[0].word();
            assert!(
                words.contains(&format!("`{}` is for {own}", spec.key)),
                "{words}"
            );
            assert!(
                words.contains(&format!("`a` is {}", kind.word())),
                "{words}"
            );
        }
    }
    let mixed = "[\"127.0.0.1:80\", \"udp://127.0.0.1:81\"]";
    let text = format!(
        "silence: unused-listener\nlisteners: {{a: {{address: {mixed}, no_delay: true}}}}\n"
    );
    let words = shown(&load(&text));
    assert!(
        words.contains("`udp://127.0.0.1:81` of `a` is udp"),
        "{words}"
    );
}

#[test]
fn options_are_kept_in_the_order_of_the_table() {
    let mut text = "silence: unused-listener\nlisteners:\n  a:\n".to_owned();
    for spec in OPTIONS.iter().rev() {
        if spec.kinds.contains(&SocketKind::Tcp) {
            let _ = writeln!(text, "    {}: {}", spec.key, values(spec.value).0[0]);
        }
    }
    text.push_str("    address: 127.0.0.1:80\n");
    let loaded = load(&text);
    assert_eq!(shown(&loaded), "");
    let kept = &loaded.config.listeners[0].options;
    let kept: Vec<&str> = kept.iter().map(|option| option.value.spec.key).collect();
    let table = OPTIONS.iter().map(|spec| spec.key);
    let want: Vec<&str> = table.filter(|key| kept.contains(key)).collect();
    assert_eq!(kept, want);
    assert!(kept.len() > 10);
}

#[test]
fn every_kind_of_listener_and_its_keys_are_understood() {
    let loaded = load(KINDS_AND_KEYS);
    // `k` alone is wrong: neither of its options is for unix sockets.
    assert_eq!(
        kinds(&loaded),
        ["bad-value", "bad-value"],
        "{}",
        shown(&loaded)
    );
    let listeners = &loaded.config.listeners;
    let sockets = |index: usize| {
        let addresses: &[listend::config::Located<listend::config::Address>] =
            &listeners[index].addresses;
        addresses
            .iter()
            .map(|address| address.value.endpoints.len())
            .sum::<usize>()
    };
    assert_eq!(sockets(1), 4 + 4 + 1 + 1);
    assert_eq!(
        listeners[2].multicast[1].value.interface.as_deref(),
        Some("2")
    );
    let wait = std::time::Duration::from_secs(30);
    assert_eq!(listeners[3].presence, Presence::WaitFor(wait));
    let buffer = &listeners[3].options[0].value;
    assert_eq!(
        (buffer.spec.key, &buffer.value),
        ("receive_buffer", &OptionValue::Number(1 << 20))
    );
    assert_eq!(listeners[4].presence, Presence::Optional);
    let namespace = listeners[4].network_namespace.as_ref().unwrap();
    assert_eq!(namespace.value, Path::new("/run/netns/blue"));
    assert_eq!(listeners[5].symlinks.len(), 2);
    assert!(!listeners[5].remove_on_stop);
    assert_eq!(listeners[6].mode, 0o620);
    let special = &listeners[7].addresses[0].value.endpoints[0];
    assert!(matches!(special, Endpoint::Special { writable: true, .. }));
    let owner =
        |name: &Option<Box<listend::config::Located<String>>>| name.as_ref().unwrap().value.clone();
    assert_eq!(owner(&listeners[10].directory_owner), "root");
    assert_eq!(owner(&listeners[10].directory_group), "root");
}

#[test]
fn keys_that_do_not_fit_are_refused_where_they_stand() {
    let tcp = "127.0.0.1:80";
    for (address, key, value, says) in [
        (tcp, "writable", "true", "is for special; `a` is tcp"),
        (tcp, "symlinks", "/run/x", "no path"),
        (tcp, "remove_on_stop", "true", "only a unix path"),
        (tcp, "directory_owner", "root", "only a unix path or FIFO"),
        (tcp, "multicast", "239.1.2.3", "is for udp and udplite"),
        (
            "mqueue:/a",
            "directory_mode",
            "0755",
            "only a unix path or FIFO",
        ),
        (
            "mqueue:/a",
            "backlog",
            "5",
            "nothing here has an accept queue",
        ),
        (
            "special:/dev/null",
            "owner",
            "root",
            "only a unix path, FIFO or",
        ),
        (
            "fifo:/run/a",
            "network_namespace",
            "/run/netns/a",
            "`a` is fifo",
        ),
        ("fifo:/run/a", "symlinks", "/run//a", "the path itself"),
        ("fifo:/run/a", "symlinks", "run/b", "not absolute"),
        ("fifo:/run/a", "symlinks", "/run/b/", "is a directory"),
        (
            "fifo:/run/a",
            "directory_owner",
            "a:b:c",
            "cannot be a name",
        ),
        (
            "udp://:80",
            "multicast",
            "10.0.0.1",
            "not a multicast address",
        ),
        ("udp://:80", "multicast", "mdns", "not an address"),
        ("udp://:80", "multicast", "239.1.2.3%", "not an interface"),
        ("udp://0.0.0.0:80", "multicast", "ff02::1", "no IPv6 socket"),
        ("udp://[::]:80", "multicast", "239.1.2.3", "no IPv4 socket"),
        (tcp, "network_namespace", "blue", "`/run/netns/blue`"),
        (tcp, "wait_for_address", "30", "no unit"),
        (tcp, "wait_for_address", "0", "cannot be 0"),
        (":80", "wait_for_address", "30s", "every interface"),
        ("unix:/a", "wait_for_address", "30s", "`a` is unix"),
        (tcp, "optional", "maybe", "`true` or `false`"),
    ] {
        let (kind, words) = one_error(address, key, value);
        assert_eq!(kind, Kind::BadValue, "{key}: {words}");
        assert!(words.contains(says), "{key}: {value}: {words}");
    }
    for (address, keys) in [
        (tcp, "optional: true, wait_for_address: 5s"),
        ("unix:/a", "directory_owner: 'a:b', directory_group: c"),
        ("unix:/a", "symlinks: [/b, //b]"),
        ("udp://:80", "multicast: [239.1.2.3, 239.1.2.3]"),
    ] {
        let loaded = load(&format!(
            "silence: unused-listener\nlisteners: {{a: {{address: '{address}', {keys}}}}}\n"
        ));
        assert_eq!(kinds(&loaded), ["bad-value"], "{keys}: {}", shown(&loaded));
        assert_eq!(loaded.report.errors[0].related.len(), 1, "{keys}");
    }
}

#[test]
fn only_sockets_of_the_internet_pass_on_a_port() {
    for (_, address) in KINDS {
        let loaded = load(&format!(
            "listeners: {{a: '{address}'}}\nworkers:\n  w: {{command: 'x {{port:a}} {{address:a}}', listeners: a}}\n"
        ));
        let has_port = address.contains("127.0.0.1");
        let want: &[&str] = if has_port { &[] } else { &["bad-template"] };
        assert_eq!(kinds(&loaded), want, "{}", shown(&loaded));
    }
}

/// Every place is in its file: the line exists and the caret stands on it, or just behind it.
fn check_places(loaded: &Loaded) {
    let all = loaded.report.errors.iter().chain(&loaded.report.advice);
    for problem in all {
        let related = problem.related.iter().map(|(place, _)| *place);
        for place in problem.place.into_iter().chain(related) {
            let line = loaded.sources.line(place);
            let empty = loaded.sources.text(place.file).is_empty();
            assert!(line.is_some() || (empty && place.line == 1), "{problem:?}");
            let width = line.unwrap_or("").chars().count() as u32;
            assert!((1..=width + 1).contains(&place.column), "{problem:?}");
            assert!(place.length >= 1, "{problem:?}");
        }
    }
    let _ = shown(loaded);
}

/// `count` listeners in the short form, shared out to a hundred workers.
fn many_listeners(count: usize) -> String {
    let mut text = "listeners:\n".to_owned();
    for index in 0..count {
        let (net, port) = (index / 5000, 20_000 + index % 5000);
        let _ = writeln!(text, "  listener-{index}: 127.0.{net}.1:{port}");
    }
    text.push_str("workers:\n");
    for worker in 0..100 {
        let _ = writeln!(
            text,
            "  worker-{worker}:\n    command: [/usr/bin/app]\n    listeners:"
        );
        for index in (worker..count).step_by(100) {
            let _ = writeln!(text, "      - listener-{index}");
        }
    }
    text
}

#[test]
fn ten_thousand_listeners_are_read() {
    let loaded = load(&many_listeners(10_000));
    assert_eq!(shown(&loaded), "");
    assert_eq!(loaded.config.listeners.len(), 10_000);
}

#[test]
fn ten_thousand_listeners_with_options_are_read() {
    let mut text = "silence: unused-listener\nlisteners:\n".to_owned();
    for index in 0..10_000 {
        let (net, port) = (index / 5000, 20_000 + index % 5000);
        let _ = writeln!(
            text,
            "  listener-{index}:\n    address: 127.0.{net}.1:{port}\n    keep_alive: true\n    \
             no_delay: true\n    receive_buffer: 64K\n    keep_alive_time: 60s\n    ip_tos: 16"
        );
    }
    let loaded = load(&text);
    assert_eq!(shown(&loaded), "");
    let listeners = &loaded.config.listeners;
    assert!(listeners.iter().all(|listener| listener.options.len() == 5));
}

#[derive(Debug, Clone)]
enum Edit {
    Delete(usize, usize),
    Duplicate(usize, usize, usize),
    Swap(usize, usize),
    Insert(usize, &'static [u8]),
    Byte(usize, u8),
}

const SPLICES: &[&[u8]] = &[
    b"- ",
    b": ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\n",
    b"\r",
    b"\t",
    b"'",
    b"\"",
    b"#",
    b"&a ",
    b"*a",
    b"!t ",
    b"|\n",
    b">-\n",
    b"---\n",
    b"...\n",
    b"%YAML 1.2\n",
    b"%TAG ! x\n",
    b"? ",
    b"<<: ",
    b"\\x",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\xff",
    b",",
    b"@",
    b"~",
    b"{fd:",
    b"localhost:80",
    b"127.0.0.1:1-9",
    b"%eth0",
    b"fifo:/",
    b"mqueue:/",
    b"netlink:",
    b"vsock:",
    b"special:/",
    b"no_delay: true",
    b"symlinks: ",
    b"multicast: ",
    b"  ",
];

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = 0..2000_usize;
    prop::collection::vec(
        prop_oneof![
            (at.clone(), 1..40_usize).prop_map(|(a, n)| Edit::Delete(a, n)),
            (at.clone(), 1..40_usize, at.clone()).prop_map(|(a, n, b)| Edit::Duplicate(a, n, b)),
            (at.clone(), at.clone()).prop_map(|(a, b)| Edit::Swap(a, b)),
            (at.clone(), prop::sample::select(SPLICES)).prop_map(|(a, text)| Edit::Insert(a, text)),
            (at, any::<u8>()).prop_map(|(a, byte)| Edit::Byte(a, byte)),
        ],
        0..12,
    )
}

fn apply(base: &str, edits: Vec<Edit>) -> Vec<u8> {
    let mut bytes = base.as_bytes().to_vec();
    for edit in edits {
        let len = bytes.len();
        if len == 0 {
            break;
        }
        match edit {
            Edit::Delete(a, n) => drop(bytes.drain(a % len..(a % len + n).min(len))),
            Edit::Duplicate(a, n, b) => {
                let piece = bytes[a % len..(a % len + n).min(len)].to_vec();
                bytes.splice(b % len..b % len, piece);
            }
            Edit::Swap(a, b) => bytes.swap(a % len, b % len),
            Edit::Insert(a, text) => drop(bytes.splice(a % len..a % len, text.iter().copied())),
            Edit::Byte(a, byte) => bytes[a % len] = byte,
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_places(&load_bytes(&[("f", &bytes)]));
    }

    #[test]
    fn random_text_never_panics(text in "(?s).{0,200}") {
        check_places(&load(&text));
    }

    #[test]
    fn random_yaml_signs_never_panic(text in r#"[-:?,\[\]{}#&*!|>'"%@` \n\t~a0.é]{0,120}"#) {
        check_places(&load(&text));
    }

    #[test]
    fn mutated_files_never_panic(base in prop::sample::select(CORPUS), edits in edits()) {
        check_places(&load_bytes(&[("f", &apply(base, edits)), ("g", DESIGN.as_bytes())]));
    }

    #[test]
    fn random_arguments_never_panic(
        listen in prop::collection::vec("(?s)(a=)?(unix:|udp://|\\[|fifo:|mqueue:|netlink:|vsock:|[0-9]-|\\[fe80::1%)?.{0,20}", 0..5),
        command in prop::collection::vec("(?s).{0,8}(\\{fd:a)?.{0,9}", 0..4),
    ) {
        check_places(&from_arguments(&listen, &command));
    }
}
