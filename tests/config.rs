//! The configuration reader from outside: whole files in, messages or values out.

use listend::config::{Loaded, Output, SourceFile, from_arguments, keys, read, to_yaml};
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

fn load(text: &str) -> Loaded {
    load_bytes(&[("listend.yaml", text.as_bytes())])
}

fn shown(loaded: &Loaded) -> String {
    render(&loaded.report, &loaded.sources, Style::Plain)
}

fn kinds(loaded: &Loaded) -> Vec<String> {
    let all = loaded.report.errors.iter().chain(&loaded.report.advice);
    all.map(|problem| problem.kind.code()).collect()
}

/// Every example of the design in one file.
const DESIGN: &str = include_str!("golden/design.yaml");

const CORPUS: &[&str] = &[
    DESIGN,
    "listeners: {a: \":80\"}\nworkers: {w: {command: x y, listeners: a}}\n",
    "listeners:\r\n  a: &x 127.0.0.1:80\r\n  b: *x\r\nworkers:\r\n  w:\r\n    command: [a, \"{fd:a}\"]\r\n",
    "listeners:\n  é: 'unix:/run/é.sock'\nworkers:\n  w:\n    command: |\n      /bin/sh -c\n      'x'\n    environment: {A: ~, B: \"\\u00e9\"}\n",
    "silence: [unused-listener]\nlisteners:\n- a\n- - b\n  - c: [d, {e: f}]\n",
];

#[test]
fn every_mistake_is_reported_at_once() {
    let loaded = load(include_str!("golden/mistakes.yaml"));
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
        "listend.yaml:8:3: advice: no worker takes listener `app` [unused-listener]\n  8 |   app:\n    |   ^^^\n  hint: add `app` to the `listeners` of a worker\n\n"
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
    assert_eq!(worker.umask, Some(0o027));
    assert_eq!(worker.user.as_ref().unwrap().value, "1000");
    assert_eq!(worker.restart.limit, None);
    let files = &worker.environment_files;
    assert!(files[0].optional && files[0].path.value == Path::new("/etc/listend/a.env"));
    assert!(!files[1].optional && files[1].path.value == Path::new("/b.env"));
    let limit = worker.limits[0].value;
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
        ("", ""),
        ("# only a comment\n", ""),
        ("\u{feff}listeners:\n", ""),
        ("- a\n", "wrong-type"),
        ("listeners: []\n", "wrong-type"),
        ("a: 1\n---\nb: 2\n", "yaml-syntax"),
        ("listeners: !x {}\n", "yaml-syntax"),
        ("listeners: \u{1}\n", "yaml-syntax"),
        ("listeners:\r  a: 127.0.0.1:80\n", "yaml-syntax"),
        ("listeners: {<<: {a: b}}\n", "unsupported"),
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
            &worker("  v: {command: x, listeners: a, handoff: inetd}\n"),
            "unsupported",
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

/// The decoder reads every key of the tables: a value that fits nothing is refused at each.
#[test]
fn the_tables_of_keys_and_the_decoder_agree() {
    for (table, path) in [
        (keys::TOP, "{KEY}: [[x]]\n"),
        (keys::LISTENER, "listeners: {a: {KEY: [[x]]}}\n"),
        (keys::WORKER, "workers: {a: {KEY: [[x]]}}\n"),
        (keys::RESTART, "workers: {a: {restart: {KEY: [[x]]}}}\n"),
    ] {
        for key in table {
            let text = path.replace("{KEY}", "KEY").replace("KEY", key.name);
            let loaded = load(&text);
            let column = text.find("[[").unwrap() + 1;
            let hit = loaded.report.errors.iter().any(|problem| {
                let at = problem.place.unwrap().column as usize;
                problem.kind == Kind::WrongType && (column..column + 3).contains(&at)
            });
            assert!(hit, "{}: {}", key.name, shown(&loaded));
        }
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
        listen in prop::collection::vec("(?s)(a=)?(unix:|udp://|\\[)?.{0,20}", 0..5),
        command in prop::collection::vec("(?s).{0,8}(\\{fd:a)?.{0,9}", 0..4),
    ) {
        check_places(&from_arguments(&listen, &command));
    }
}
