//! The rules of the house, read off the source text: who may use whom, and what may be used where.
//!
//! Comments and strings do not count, and neither do tests, which may use what they like.

mod circles;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms each room may use, besides itself. `src/lib.rs` is the map they are on.
const MAY_USE: &[(&str, &[&str])] = &[
    ("report", &[]),
    ("bpf", &[]),
    ("stage", &[]),
    ("launch_spec", &[]),
    ("sandbox", &[]),
    ("cgroup", &["sandbox", "sys"]),
    (
        "confine",
        &["cgroup", "launch_spec", "sandbox", "stage", "sys", "walk"],
    ),
    ("connection", &[]),
    ("verb", &[]),
    ("control", &["report", "verb"]),
    ("notify", &[]),
    ("output", &[]),
    ("sample", &[]),
    ("walk", &["sys"]),
    ("store", &["sys"]),
    ("config", &["handoff", "launch_spec", "report", "sandbox"]),
    ("host", &["config", "report", "sys", "walk"]),
    ("import", &["config", "diagnose", "report", "sandbox"]),
    ("export", &["config", "launch_spec", "sandbox"]),
    ("file_watch", &[]),
    (
        "plan",
        &[
            "config",
            "handoff",
            "host",
            "launch_spec",
            "report",
            "sandbox",
        ],
    ),
    ("handoff", &["connection"]),
    ("core", &["config", "connection", "plan", "stage", "verb"]),
    ("metrics", &["config", "core", "plan"]),
    ("forward", &["handoff", "sys"]),
    ("web", &["control", "metrics", "sys", "usage"]),
    ("usage", &["cgroup", "control", "sys"]),
    ("writer", &["output", "report", "walk"]),
    ("evidence", &["config"]),
    ("guard", &["notify", "sys"]),
    ("sys", &["launch_spec", "stage"]),
    (
        "listener",
        &[
            "bpf",
            "config",
            "connection",
            "host",
            "plan",
            "report",
            "sys",
            "walk",
        ],
    ),
    (
        "diagnose",
        &[
            "config",
            "connection",
            "handoff",
            "host",
            "listener",
            "plan",
            "report",
            "sandbox",
            "walk",
        ],
    ),
    (
        "worker",
        &[
            "cgroup",
            "config",
            "confine",
            "connection",
            "handoff",
            "launch_spec",
            "listener",
            "plan",
            "report",
            "sandbox",
            "stage",
            "sys",
        ],
    ),
    (
        "shell",
        &[
            "cgroup",
            "config",
            "connection",
            "control",
            "core",
            "diagnose",
            "evidence",
            "handoff",
            "host",
            "launch_spec",
            "listener",
            "metrics",
            "notify",
            "output",
            "plan",
            "report",
            "sample",
            "stage",
            "store",
            "sys",
            "verb",
            "worker",
        ],
    ),
    (
        "cli",
        &[
            "cgroup",
            "config",
            "confine",
            "control",
            "core",
            "diagnose",
            "export",
            "file_watch",
            "forward",
            "guard",
            "handoff",
            "host",
            "import",
            "launch_spec",
            "listener",
            "notify",
            "plan",
            "report",
            "sample",
            "sandbox",
            "shell",
            "stage",
            "store",
            "sys",
            "usage",
            "verb",
            "web",
            "worker",
            "writer",
        ],
    ),
];

/// The files of the shell that know all of it, because they carry out what takes several of its parts. Every
/// other file is a part, and gets what it needs as arguments.
const KNOW_THE_SHELL: &[&str] = &[
    "clients/serve",
    "control/answer",
    "control/events",
    "control/give",
    "control/helper_query",
    "control/lines",
    "control/reload",
    "control/status",
    "control/take",
    "control/upgrade",
    "definitions/close",
    "flows/serve",
    "listeners",
    "looks/serve",
    "looks/use_of_worker",
    "manager/manager_status",
    "metrics/sample",
    "mod",
    "notify/ack_serve",
    "notify/serve",
    "queues/look",
    "reap",
    "reload",
    "repair_own",
    "rollback_reasons/note",
    "shards/serve",
    "spawn",
    "store/found",
    "store/history",
    "store/readopt",
    "store/record",
    "store/resume",
    "store/take_over",
    "turn",
];

/// No file is longer, tests included.
const LONGEST_FILE: usize = 800;

struct Source {
    /// Relative to the project.
    path: String,
    /// The file or folder under `src` that it belongs to.
    room: String,
    /// As it stands.
    text: String,
    /// Without comments, strings and tests.
    code: String,
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources(top: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    files(&root.join(top), &mut found);
    found.sort();
    let read = |path: &PathBuf| {
        let relative = path.strip_prefix(root).expect("under the project");
        let text = fs::read_to_string(path).expect("read a source file");
        let room = relative.components().nth(1).expect("a room").as_os_str();
        let room = room
            .to_str()
            .expect("UTF-8")
            .trim_end_matches(".rs")
            .to_owned();
        let is_test = relative.components().any(|part| {
            matches!(
                part.as_os_str().to_str(),
                Some("tests" | "tests.rs" | "sim.rs")
            )
        });
        let code = if is_test && top == "src" {
            String::new()
        } else {
            without_tests(&bare(&text))
        };
        Source {
            path: relative.to_str().expect("UTF-8").to_owned(),
            room,
            text,
            code,
        }
    };
    found.iter().map(read).collect()
}

/// Blanks comments and the insides of strings and characters; line numbers stay.
fn bare(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    let starts = |at: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(i, c)| bytes.get(at + i) == Some(&c))
    };
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while at < bytes.len() {
        let end = if starts(at, "//") {
            (at..bytes.len())
                .find(|i| bytes[*i] == '\n')
                .unwrap_or(bytes.len())
        } else if starts(at, "/*") {
            let close = (at + 2..bytes.len()).find(|i| starts(*i, "*/"));
            close.map_or(bytes.len(), |i| i + 2)
        } else if bytes[at] == 'r' && (at == 0 || !is_word(bytes[at - 1]) || bytes[at - 1] == 'b') {
            let hashes = bytes[at + 1..].iter().take_while(|c| **c == '#').count();
            if bytes.get(at + 1 + hashes) == Some(&'"') {
                let close = format!("\"{}", "#".repeat(hashes));
                let from = at + 2 + hashes;
                let found = (from..bytes.len()).find(|i| starts(*i, &close));
                found.map_or(bytes.len(), |i| i + close.len())
            } else {
                at
            }
        } else if bytes[at] == '"' {
            let mut i = at + 1;
            while i < bytes.len() && bytes[i] != '"' {
                i += if bytes[i] == '\\' { 2 } else { 1 };
            }
            (i + 1).min(bytes.len())
        } else if bytes[at] == '\'' && bytes.get(at + 1) == Some(&'\\') {
            let close = (at + 3..bytes.len()).find(|i| bytes[*i] == '\'');
            close.map_or(bytes.len(), |i| i + 1)
        } else if bytes[at] == '\'' && bytes.get(at + 2) == Some(&'\'') {
            at + 3
        } else {
            at
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(
                bytes[at..end]
                    .iter()
                    .map(|c| if *c == '\n' { '\n' } else { ' ' }),
            );
            at = end;
        }
    }
    out
}

/// Cuts out what stands behind `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    let next = |code: &str| {
        let attributes = ["#[cfg(test)]", "#[cfg(all(test,"];
        let starts = attributes
            .into_iter()
            .filter_map(|attribute| code.find(attribute));
        starts.min()
    };
    while let Some(start) = next(rest) {
        out.push_str(&rest[..start]);
        let item = &rest[start..];
        let body = item.find(['{', ';']).unwrap_or(item.len());
        let end = if item[body..].starts_with('{') {
            let mut depth = 0;
            let close = item[body..].char_indices().find(|(_, c)| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                depth == 0
            });
            close.map_or(item.len(), |(at, _)| body + at + 1)
        } else {
            (body + 1).min(item.len())
        };
        out.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    out.push_str(rest);
    out
}

/// The first segments behind every `crate::`, with their lines.
fn rooms_used(code: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = code[at + found.len()..].trim_start();
        let word = |text: &str| -> String {
            text.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item_starts = true;
            for (index, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => item_starts = true,
                    c if depth == 0 && item_starts && !c.is_whitespace() => {
                        used.push((line, word(&group[index..])));
                        item_starts = false;
                    }
                    _ => {}
                }
            }
        } else {
            used.push((line, word(rest)));
        }
    }
    used
}

/// The lines with this in them, where it does not go on as part of a longer word.
fn lines_with(code: &str, what: &str) -> Vec<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let first = what.chars().next().expect("something");
    let last = what.chars().next_back().expect("something");
    let whole = |at: usize| {
        let before = code[..at].chars().next_back();
        let after = code[at + what.len()..].chars().next();
        let starts_inside = is_word(first) && before.is_some_and(is_word);
        let ends_inside = is_word(last) && after.is_some_and(is_word);
        !starts_inside && !ends_inside
    };
    let hits = code.match_indices(what).filter(|(at, _)| whole(*at));
    hits.map(|(at, _)| code[..at].matches('\n').count() + 1)
        .collect()
}

/// Fails with all offences at once.
#[track_caller]
fn expect_none(offences: &[String], rule: &str) {
    assert!(offences.is_empty(), "{rule}\n  {}", offences.join("\n  "));
}

#[track_caller]
fn forbid(what: &[&str], rule: &str, is_allowed: impl Fn(&Source) -> bool) {
    let mut offences = Vec::new();
    for source in sources("src").iter().filter(|source| !is_allowed(source)) {
        for word in what {
            for line in lines_with(&source.code, word) {
                offences.push(format!("{}:{line}: {word}", source.path));
            }
        }
    }
    expect_none(&offences, rule);
}

#[test]
fn rooms_use_only_the_rooms_they_may() {
    let mut offences = Vec::new();
    for source in sources("src") {
        if ["lib", "main"].contains(&source.room.as_str()) {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(room, _)| *room == source.room) else {
            offences.push(format!(
                "{}: `{}` is not in the table",
                source.path, source.room
            ));
            continue;
        };
        for (line, used) in rooms_used(&source.code) {
            let exported = !MAY_USE.iter().any(|(room, _)| *room == used);
            if used != source.room && !allowed.contains(&used.as_str()) && !exported {
                offences.push(format!("{}:{line}: crate::{used}", source.path));
            }
        }
    }
    expect_none(&offences, "a room uses one that it may not use");
}

#[test]
fn unsafe_code_is_in_sys_only() {
    forbid(
        &["unsafe", "allow(unsafe_code"],
        "only src/sys may",
        |source| source.room == "sys",
    );
}

#[test]
fn only_the_command_line_prints() {
    let macros = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    forbid(&macros, "print in src/cli, log elsewhere", |source| {
        source.room == "cli"
    });
}

#[test]
fn only_the_shells_clock_asks_for_the_time() {
    let calls = ["Instant::now", "SystemTime::now", "thread::sleep"];
    forbid(
        &calls,
        "time comes from src/shell/clock.rs, and nothing sleeps",
        |source| {
            source.path == "src/shell/clock.rs"
                || ["forward", "sample", "web"].contains(&source.room.as_str())
        },
    );
}

#[test]
fn the_core_touches_nothing() {
    let paths = [
        "std::fs",
        "std::net",
        "std::process",
        "std::thread",
        "std::env",
        "std::io",
        "std::os",
        "Instant",
        "SystemTime",
        "log::",
        "nix::",
        "libc::",
        "socket2::",
        "procfs::",
        "signal_hook::",
    ];
    forbid(&paths, "src/core decides, and does nothing", |source| {
        source.room != "core"
    });
    let mut offences = Vec::new();
    for source in sources("src").iter().filter(|source| source.room == "core") {
        for (at, _) in source.code.match_indices("use std::{") {
            let group = &source.code[at..at + source.code[at..].find(';').unwrap_or(0)];
            for word in ["fs", "net", "process", "thread", "env", "io", "os"] {
                if !lines_with(group, word).is_empty() {
                    offences.push(format!("{}: std::{word}", source.path));
                }
            }
        }
    }
    expect_none(&offences, "src/core decides, and does nothing");
}

#[test]
fn the_parts_of_the_shell_do_not_know_it() {
    let sources = sources("src");
    let of_shell = sources.iter().filter(|source| source.room == "shell");
    let name = |source: &Source| {
        let path = source.path.trim_start_matches("src/shell/");
        path.trim_end_matches(".rs").to_owned()
    };
    let know_it = of_shell.filter(|source| !lines_with(&source.code, "Shell").is_empty());
    let mut found: Vec<String> = know_it.map(name).collect();
    found.sort();
    assert_eq!(
        found, KNOW_THE_SHELL,
        "give a part what it needs as arguments"
    );
}

#[test]
fn a_name_of_a_type_means_one_thing_in_a_room() {
    let mut declared: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for source in sources("src") {
        let words: Vec<&str> = source
            .code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(2) {
            let is_type = ["struct", "enum", "trait"].contains(&pair[0]);
            if is_type && pair[1].starts_with(|c: char| c.is_ascii_uppercase()) {
                let key = (source.room.clone(), pair[1].to_owned());
                declared.entry(key).or_default().push(source.path.clone());
            }
        }
    }
    declared.retain(|_, paths| paths.len() > 1);
    let offences = declared
        .into_iter()
        .map(|((_, name), paths)| format!("{name}: {}", paths.join(", ")));
    expect_none(
        &offences.collect::<Vec<_>>(),
        "a type has the name of another",
    );
}

#[test]
fn files_are_short_enough_to_read() {
    let mut all = sources("src");
    all.extend(sources("tests"));
    let long = all.iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LONGEST_FILE).then(|| format!("{}: {lines} lines", source.path))
    });
    expect_none(&long.collect::<Vec<_>>(), "split it");
}

// Each is linked after every change of the library. One more for what cannot share a process.
#[test]
fn tests_are_modules_of_one_program() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = fs::read_dir(top).expect("list tests");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_program = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "rs") || path.join("main.rs").exists()
    };
    let name = |path: PathBuf| path.file_name().map(|name| name.to_os_string());
    let mut programs: Vec<_> = paths.filter(is_program).filter_map(name).collect();
    programs.sort();
    assert_eq!(programs, ["bind", "it"]);
}

#[test]
fn ignored_tests_say_why() {
    let mut all = sources("src");
    all.extend(sources("tests"));
    let mut offences = Vec::new();
    all.retain(|source| source.text.contains("#[ignore]"));
    for source in &all {
        for line in lines_with(&bare(&source.text), "#[ignore]") {
            offences.push(format!("{}:{line}", source.path));
        }
    }
    expect_none(&offences, "write #[ignore = \"reason\"]");
}

// `doctest = false` in Cargo.toml.
#[test]
fn no_doc_comment_has_a_test() {
    let mut offences = Vec::new();
    for source in sources("src") {
        let mut is_open = false;
        for (number, line) in source.text.lines().enumerate() {
            let line = line.trim_start();
            let comment = line.strip_prefix("///").or(line.strip_prefix("//!"));
            let Some(kind) = comment.and_then(|text| text.trim_start().strip_prefix("```")) else {
                continue;
            };
            if !is_open && kind.trim() != "text" {
                offences.push(format!("{}:{}", source.path, number + 1));
            }
            is_open = !is_open;
        }
    }
    expect_none(
        &offences,
        "write ```text, or let documentation be tested again",
    );
}

#[test]
fn the_scanner_itself_sees_what_it_should() {
    let text = "use crate::{a::B, c::{D, e}, f}; // crate::no\nlet s = \"crate::no\";\n\
        /* crate::no */ crate::g::h(); let q = '\"'; crate::i; r#\"crate::no \"x\" \"#; &'a crate::j\n\
        #[cfg(test)]\nmod tests { fn x() { crate::no } }\ncrate::k";
    let code = without_tests(&bare(text));
    let used: Vec<_> = rooms_used(&code);
    let wanted = [
        (1, "a"),
        (1, "c"),
        (1, "f"),
        (3, "g"),
        (3, "i"),
        (3, "j"),
        (6, "k"),
    ];
    assert_eq!(used, wanted.map(|(line, room)| (line, room.to_owned())));
    assert_eq!(
        lines_with("unsafe_code\nunsafe {}\nnot_unsafe", "unsafe"),
        [2]
    );
}
