//! The documentation against the program: nothing in one that is not in the other, and every
//! example works.
//!
//! A fenced block of README.md that says `sh run` is run by sh and has to succeed; each line of a
//! block that says `sh daemon` is a listend that has to start its workers, and to stop when asked;
//! a block that says `yaml check` has to be a good configuration. Other blocks are left alone.

use crate::harness::{Start, World, client, listend_path, require_tool, skip};
use listend::config::options::OPTIONS;
use listend::config::preset::ALL;
use listend::config::{SocketKind, keys};
use listend::handoff::belongs_to_a_handoff;
use listend::launch_spec::Resource;
use listend::report::{Kind, Severity};
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the examples listen.
const EXAMPLES: &str = "127.0.0.1:8080";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

type Words = BTreeSet<String>;

fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Words {
    words.into_iter().map(str::to_owned).collect()
}

#[track_caller]
fn same(what: &str, program: &Words, manual: &Words) {
    let undocumented: Vec<_> = program.difference(manual).collect();
    let invented: Vec<_> = manual.difference(program).collect();
    assert!(
        undocumented.is_empty() && invented.is_empty(),
        "{what}: only in the program {undocumented:?}, only in the manual {invented:?}"
    );
}

/// The lines of a section or subsection of a man page.
#[track_caller]
fn section<'a>(page: &'a str, title: &str) -> Vec<&'a str> {
    let is_end: fn(&str) -> bool = if page.lines().any(|line| line == format!(".Sh {title}")) {
        |line| line.starts_with(".Sh ")
    } else {
        |line| line.starts_with(".Sh ") || line.starts_with(".Ss ")
    };
    let titles = [format!(".Sh {title}"), format!(".Ss {title}")];
    let mut lines = page.lines();
    assert!(
        lines.any(|line| titles.iter().any(|title| title == line)),
        "no section {title}"
    );
    lines.take_while(|line| !is_end(line)).collect()
}

/// The tags of the lists in some lines of a man page, with this macro in front.
fn tags(lines: &[&str], name: &str) -> Words {
    let start = format!(".It {name} ");
    let tags = lines.iter().filter_map(|line| line.strip_prefix(&start));
    words(tags)
}

/// Standard output of `listend` with these words.
fn output(of: &[&str]) -> String {
    let output = Command::new(listend_path()).args(of).output();
    let output = output.expect("start listend");
    assert!(output.status.success(), "{of:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The part of a help text under a heading.
fn under<'a>(help: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = help.lines().skip_while(|line| *line != heading).skip(1);
    let indented = |line: &&str| line.is_empty() || line.starts_with(' ');
    lines.take_while(indented).collect()
}

/// `-c` and `--config` from a help text, together where they are one.
fn options_of_help(help: &str) -> Vec<Words> {
    let mut options = Vec::new();
    for line in under(help, "Options:") {
        let line = line.trim_start();
        // `- always: …` is one of the values of the flag above.
        if line.starts_with('-') && !line.starts_with("- ") {
            let (names, _) = line.split_once("  ").unwrap_or((line, ""));
            let found = names.split([' ', ',']).filter(|word| word.starts_with('-'));
            options.push(words(found));
        }
    }
    options
}

/// All of them.
fn flags_of_help(help: &str) -> Words {
    options_of_help(help).into_iter().flatten().collect()
}

/// The same from a line of a man page: `.It Fl c , Fl Fl config Ar FILE`.
fn flags_in(line: &str) -> Words {
    let mut flags = Words::new();
    let mut words = line.split(' ').peekable();
    while let Some(word) = words.next() {
        if matches!(word, "Fl" | ".Fl") {
            let long = words.next_if_eq(&"Fl").is_some();
            let dashes = if long { "--" } else { "-" };
            if let Some(name) = words.next_if(|word| *word != "Fl") {
                flags.insert(format!("{dashes}{name}"));
            }
        }
    }
    flags
}

/// Those of all tags in some lines of a man page.
fn flags_of_manual(lines: &[&str]) -> Words {
    let tags = lines.iter().filter(|line| line.starts_with(".It Fl "));
    tags.flat_map(|line| flags_in(line)).collect()
}

#[test]
fn the_manual_says_which_sockets_of_the_internet_an_option_is_for() {
    let page = read("man/listend.yaml.5");
    let lines = section(&page, "LISTENERS");
    for option in OPTIONS {
        let tag = format!(".It Ic {}", option.key);
        let at = lines.iter().position(|line| *line == tag).expect("found");
        let said = lines[at + 1..].iter().find(|line| line.starts_with("For "));
        let said = said.expect("what it is for").trim_end_matches('.');
        // What follows a semicolon is about the kernel.
        let said = said.split(';').next().unwrap_or_default();
        let is_for = |kind: &SocketKind| match said {
            "For sockets of every kind" => true,
            _ => said.split([' ', ',']).any(|word| word == kind.word()),
        };
        let inet = [
            SocketKind::Tcp,
            SocketKind::Mptcp,
            SocketKind::Sctp,
            SocketKind::Udp,
            SocketKind::UdpLite,
        ];
        for kind in inet {
            let has = option.kinds.contains(&kind);
            assert_eq!(is_for(&kind), has, "{}: {}", option.key, kind.word());
        }
    }
}

#[test]
fn every_key_is_in_the_manual_with_its_default() {
    let page = read("man/listend.yaml.5");
    for (title, keys) in [
        ("FILE", keys::TOP),
        ("LISTENERS", keys::LISTENER),
        ("WORKERS", keys::WORKER),
        ("FORWARD", keys::FORWARD),
        ("RESTART", keys::RESTART),
        ("ROLLOUT", keys::ROLLOUT),
        ("SANDBOX", keys::SANDBOX),
        ("HOOKS", keys::HOOK),
    ] {
        let lines = section(&page, title);
        let program = words(keys.iter().map(|key| key.name));
        same(title, &program, &tags(&lines, "Ic"));
        for key in keys {
            let tag = format!(".It Ic {}", key.name);
            let at = lines.iter().position(|line| *line == tag).expect("found");
            let default = match key.default {
                "" => "Required.".to_owned(),
                default => format!("Default: {default}."),
            };
            assert_eq!(lines[at + 1], default, "{title}: {}", key.name);
        }
    }
    let limits = section(&page, "WORKERS").join(" ");
    for resource in Resource::ALL {
        let name = format!(" {} ", resource.key());
        assert!(limits.contains(&name), "limits: {name}");
    }
}

#[test]
fn what_a_reload_does_is_said_of_every_key_of_a_worker() {
    let page = read("man/listend.yaml.5");
    let lines = section(&page, "RELOAD");
    let lists = lines.iter().filter_map(|line| line.strip_prefix(".Ic "));
    let said = lists.flat_map(|line| line.split([' ', ',', '.']).filter(|word| !word.is_empty()));
    let mut said: Vec<String> = said.map(str::to_owned).collect();
    let all = said.len();
    // A tag of its own.
    said.push("instances".to_owned());
    let said: Words = said.into_iter().collect();
    assert_eq!(said.len(), all + 1, "a key stands there twice: {said:?}");
    same(
        "reload",
        &words(keys::WORKER.iter().map(|key| key.name)),
        &said,
    );
}

#[test]
fn every_key_is_in_the_full_example() {
    let example = read("examples/full.yaml");
    let lines = example
        .lines()
        .map(|line| line.trim_start_matches([' ', '#']));
    let there: Words = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(key, _)| key.to_owned())
        .collect();
    for table in [
        keys::WORKER,
        keys::FORWARD,
        keys::RESTART,
        keys::ROLLOUT,
        keys::SANDBOX,
    ] {
        for key in table {
            assert!(there.contains(key.name), "{}", key.name);
        }
    }
}

#[test]
fn every_preset_is_in_the_manual_with_its_settings() {
    let page = read("man/listend.yaml.5");
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in section(&page, "PRESETS") {
        if let Some(name) = line.strip_prefix(".It Cm ") {
            said.push((name, Vec::new()));
        } else if let Some((_, settings)) = said.last_mut()
            && let Some(setting) = line.strip_prefix(".Li ")
            && let Some((key, _)) = setting.split_once(": ")
            && keys::WORKER
                .iter()
                .any(|known| known.name == key && key != "environment")
        {
            settings.push(setting.trim_end_matches([' ', ',', '.']));
        }
    }
    let settings = ALL.iter().map(|preset| {
        let settings = preset.settings.iter();
        let settings = settings.map(|(key, value)| format!("{key}: {value}"));
        (preset.name, settings.collect::<Vec<_>>())
    });
    for ((name, settings), (said_name, said)) in settings.zip(&said) {
        assert_eq!(name, *said_name);
        // What follows the settings are hints, which may name others.
        let first = said.get(..settings.len()).unwrap_or_default();
        assert_eq!(first, settings, "{name}");
    }
    assert_eq!(said.len(), ALL.len());
}

#[test]
fn every_verb_and_flag_is_in_the_manual() {
    let page = read("man/listend.8");
    let help = output(&["--help"]);
    let verbs = under(&help, "Commands:");
    let verbs = verbs
        .iter()
        .filter_map(|line| line.split_whitespace().next());
    let verbs = words(verbs);
    let lines = section(&page, "Verbs");
    same("verbs", &verbs, &tags(&lines, "Cm"));

    let everywhere = flags_of_manual(&section(&page, "Flags of every verb"));
    same("flags of every verb", &flags_of_help(&help), &everywhere);
    for verb in verbs.iter().filter(|verb| *verb != "help") {
        let mut program = flags_of_help(&output(&[verb, "--help"]));
        program.retain(|flag| !everywhere.contains(flag));
        let behind = lines
            .iter()
            .skip_while(|line| **line != format!(".It Cm {verb}"));
        let entry = behind
            .skip(1)
            .take_while(|line| !line.starts_with(".It Cm "));
        let manual = flags_of_manual(&entry.copied().collect::<Vec<_>>());
        same(&format!("flags of {verb}"), &program, &manual);
    }
}

#[test]
fn every_verb_and_flag_is_in_the_synopsis() {
    let page = read("man/listend.8");
    let lines = section(&page, "SYNOPSIS");
    let mut verbs = Words::new();
    for usage in lines.split(|line| *line == ".Nm listend").skip(1) {
        let verb = usage.iter().find_map(|line| line.strip_prefix(".Cm "));
        let verb = verb.expect("a verb");
        let shown: Words = usage.iter().flat_map(|line| flags_in(line)).collect();
        for verb in verb.split(" | ") {
            verbs.insert(verb.to_owned());
            if verb == "help" {
                continue;
            }
            let options = options_of_help(&output(&[verb, "--help"]));
            for flag in &shown {
                let known = options.iter().any(|names| names.contains(flag));
                assert!(
                    known || flag == "--",
                    "{verb}: {flag} is in the synopsis only"
                );
            }
            // Every verb has these; the synopsis would be long.
            let everywhere = ["--log-level", "--log-to", "--help"];
            for names in options {
                let common = everywhere.iter().any(|name| names.contains(*name));
                let is_shown = names.iter().any(|name| shown.contains(name));
                assert!(
                    common || is_shown,
                    "{verb}: {names:?} is not in the synopsis"
                );
            }
        }
    }
    let help = output(&["--help"]);
    let program = under(&help, "Commands:");
    let program = program
        .iter()
        .filter_map(|line| line.split_whitespace().next());
    same("verbs of the synopsis", &words(program), &verbs);
}

/// Every code has a tag in the section of its severity, and every tag is a code.
#[track_caller]
fn codes_are_all_in(page: &str) {
    let codes = |title: &str| tags(&section(page, title), "Cm");
    let kinds = |severity: Severity| -> Words {
        let kinds = Kind::ALL.iter().filter(|kind| kind.severity() == severity);
        kinds.map(|kind| kind.code()).collect()
    };
    let mut errors = codes("Errors in the configuration");
    errors.extend(codes("Errors in binding"));
    same("errors", &kinds(Severity::Error), &errors);
    same("advice", &kinds(Severity::Advice), &codes("Advice"));
}

#[test]
fn every_code_is_in_the_manual_and_in_its_place() {
    codes_are_all_in(&read("man/listend.8"));
}

#[test]
fn every_code_has_its_cause_and_cure() {
    let page = read("man/listend-diagnostics.7");
    codes_are_all_in(&page);
    let errnos = tags(&section(&page, "Errors in binding"), "Er");
    for errno in errnos.iter().flat_map(|tag| tag.split(" , ")) {
        let known = nix::errno::Errno::EPERM as i32..=nix::errno::Errno::EHWPOISON as i32;
        let known = known
            .into_iter()
            .any(|number| Kind::Errno(number).code() == errno);
        assert!(known, "{errno}");
    }
    let launch = section(&page, "When a worker does not start");
    let steps = launch
        .iter()
        .filter_map(|line| line.strip_prefix(".It Em "));
    let steps: Vec<&str> = steps.flat_map(|line| line.split(" , ")).collect();
    let stages = listend::stage::Stage::ALL
        .iter()
        .map(|stage| stage.phrase());
    same("steps of a launch", &words(stages), &words(steps));
}

#[test]
fn every_exit_code_is_in_the_manual_and_in_the_readme() {
    let help = output(&["--help"]);
    let lines = under(&help, "Exit codes:");
    let program = words(
        lines
            .iter()
            .filter_map(|line| line.split_whitespace().next()),
    );
    let page = read("man/listend.8");
    let tags = section(&page, "EXIT STATUS");
    let tags = tags.iter().filter_map(|line| line.strip_prefix(".It "));
    same("exit codes", &program, &words(tags));
    let page = read("man/listend-diagnostics.7");
    let tags = section(&page, "EXIT STATUS");
    let tags = tags.iter().filter_map(|line| line.strip_prefix(".It "));
    same("exit codes with their causes", &program, &words(tags));

    let readme = read("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| "));
    let first = rows.filter_map(|row| row.split(" |").next());
    let codes = first.filter(|cell| cell.parse::<u8>().is_ok());
    same("exit codes of the README", &program, &words(codes));
}

#[test]
fn every_method_and_error_of_the_control_socket_is_in_the_manual() {
    let page = read("man/listend-control.7");
    let definition = listend::control::description(listend::control::INTERFACE);
    let definition = definition.expect("it is described");
    let defined = |keyword: &str| -> Words {
        let lines = definition
            .lines()
            .filter_map(|line| line.strip_prefix(keyword));
        words(lines.filter_map(|line| line.split([' ', '(']).next()))
    };
    let tagged = |title: &str| -> Words {
        let tags = tags(&section(&page, title), "Ic");
        words(tags.iter().filter_map(|tag| tag.split(' ').next()))
    };
    same("methods", &defined("method "), &tagged("Methods"));
    same("errors", &defined("error "), &tagged("Errors"));
    for (method, parameters) in parameters_of_definition(definition) {
        let tag = format!(".It Ic {method} Ns Pq");
        let lines = section(&page, "Methods");
        let line = lines.iter().find_map(|line| line.strip_prefix(&tag));
        let line = line.unwrap_or_else(|| panic!("{method}"));
        let is_name = |word: &&str| {
            !word.is_empty() && word.bytes().all(|c| c == b'_' || c.is_ascii_lowercase())
        };
        let manual = words(line.split(' ').filter(is_name));
        same(&format!("parameters of {method}"), &parameters, &manual);
    }
    let standard = listend::control::description("org.varlink.service");
    let standard = standard.expect("it is described").lines();
    let standard = standard.filter_map(|line| line.strip_prefix("error "));
    let lines = section(&page, "Errors").join(" ");
    for error in standard.filter_map(|line| line.split([' ', '(']).next()) {
        assert!(lines.contains(error), "{error}");
    }
    // The fields and the words for a state, wherever they stand.
    let text = page.replace('"', " ");
    for field in [
        "depth",
        "limit",
        "drops",
        "generation",
        "degraded",
        "damaged",
        "effective",
    ] {
        assert!(text.contains(field), "{field}");
    }
}

/// The methods of an interface with the names of what they take.
fn parameters_of_definition(definition: &str) -> Vec<(&str, Words)> {
    let lines = definition.lines();
    let methods = lines.filter_map(|line| line.strip_prefix("method "));
    let mut found = Vec::new();
    for line in methods {
        let (name, rest) = line.split_once('(').expect("parameters");
        let (parameters, _) = rest.split_once(')').expect("an end");
        let parameters = parameters
            .split(", ")
            .filter_map(|one| one.split(':').next());
        let parameters = parameters.filter(|name| !name.is_empty());
        found.push((name, words(parameters)));
    }
    found
}

/// What stands in double quotes in a source file, its tests left out, and is made of such bytes.
fn literals(source: &str, is_part: fn(u8) -> bool) -> Words {
    let text = read(source);
    let code = text.split("#[cfg(test)]").next().expect("a first part");
    let code = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect();
    let quoted = code.split('"').skip(1).step_by(2);
    words(quoted.filter(|text| !text.is_empty() && text.bytes().all(is_part)))
}

#[test]
fn every_event_is_in_the_manual() {
    let is_part = |byte: u8| byte == b'-' || byte.is_ascii_lowercase();
    let program = literals("src/shell/control/events.rs", is_part);
    assert!(program.contains("instance-started"), "{program:?}");
    let page = read("man/listend-control.7");
    same("events", &program, &tags(&section(&page, "Events"), "Ic"));
}

#[test]
fn every_variable_of_a_handoff_is_in_the_manual() {
    let is_part = |byte: u8| byte == b'_' || byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let scrubbed = literals("src/handoff/scrub.rs", is_part);
    assert!(scrubbed.contains("LISTEN_FDS"), "{scrubbed:?}");
    let ends = literals("src/handoff/connection.rs", is_part);
    let ends = ends.into_iter().filter(|name| belongs_to_a_handoff(name));
    let page = read("man/listend-handoff.7");
    let mut named = Words::new();
    for line in page.lines() {
        let behind = line.split(' ').skip_while(|word| !word.ends_with("Ev"));
        let is_named = |word: &&str| *word == "," || word.bytes().all(is_part);
        let names = behind
            .skip(1)
            .take_while(is_named)
            .filter(|word| *word != ",");
        named.extend(names.map(str::to_owned));
    }
    for name in scrubbed.iter().cloned().chain(ends) {
        assert!(named.contains(&name), "{name} is not in the manual");
    }
    for name in named {
        // Prefixes count as names of their own.
        let known = belongs_to_a_handoff(&name) || name == "JOURNAL_STREAM" || name == "PATH";
        assert!(known, "{name} is in the manual only");
    }
}

#[test]
fn every_step_of_a_launch_is_in_the_manual() {
    let page = read("man/listend.8");
    let text = section(&page, "When a worker does not start").join(" ");
    for stage in listend::stage::Stage::ALL {
        assert!(text.contains(stage.phrase()), "{}", stage.phrase());
    }
}

/// What stands in backticks behind `known here:` when listend is given this.
fn known_here(yaml: &str) -> Words {
    let finished = World::new().check(yaml, &["--no-bind", "--json"]);
    let json = finished.json();
    let hint = json["errors"][0]["hint"].as_str().expect("a hint");
    let (_, known) = hint.split_once("known here: ").expect("known here");
    let known = known.split(';').next().expect("a first part");
    words(known.split('`').skip(1).step_by(2))
}

#[test]
fn every_placeholder_is_in_the_manual() {
    let program = known_here(
        "listeners: {a: '127.0.0.1:80'}\n\
         workers: {w: {command: 'x {qqqqqqqq}', listeners: a}}\n",
    );
    let page = read("man/listend.yaml.5");
    let lines = section(&page, "PLACEHOLDERS");
    same("placeholders", &program, &tags(&lines, "Ic"));
}

#[test]
fn every_kind_of_address_is_in_the_manual() {
    let page = read("man/listend.yaml.5");
    let text = section(&page, "ADDRESSES").join("\n");
    for scheme in known_here("listeners: {a: 'qqqqqqqq://x:80'}\n") {
        assert!(text.contains(&scheme), "{scheme}");
    }
}

/// Blocks of README.md with this behind the three backticks, and the lines they start in.
fn blocks(info: &str) -> Vec<(usize, String)> {
    let readme = read("README.md");
    let mut blocks = Vec::new();
    let mut lines = readme.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(found) = line.strip_prefix("```") {
            let body = lines.by_ref().take_while(|(_, line)| *line != "```");
            let body: String = body.map(|(_, line)| line.to_owned() + "\n").collect();
            if found == info {
                blocks.push((number + 1, body));
            }
        }
    }
    assert!(!blocks.is_empty(), "no `{info}` in README.md");
    blocks
}

/// The literal displays of a man page.
fn displays(page: &str) -> Vec<String> {
    let text = read(page);
    let displays = text.split(".Bd -literal").skip(1);
    let bodies = displays.map(|rest| {
        let (_, body) = rest.split_once('\n').expect("a line");
        body.split("\n.Ed").next().expect("an end").to_owned()
    });
    bodies.collect()
}

// groff_char(7): \(aq, \(ga, \(ha and \(ti.
#[test]
fn what_is_copied_from_a_manual_has_no_quotes_of_typographers() {
    let mut count = 0;
    for page in fs::read_dir(root().join("man")).expect("the manuals") {
        let page = page.expect("a page").file_name();
        for body in displays(&format!("man/{}", page.display())) {
            assert!(!body.contains(['\'', '`', '^', '~']), "{page:?}: {body}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn every_yaml_in_the_documentation_is_a_good_configuration() {
    let world = World::new();
    let mut all = blocks("yaml check");
    for page in [
        "man/listend.8",
        "man/listend.yaml.5",
        "man/listend-diagnostics.7",
        "man/listend-handoff.7",
    ] {
        let mut displays = displays(page);
        displays.retain(|body| body.starts_with("listeners:"));
        assert!(!displays.is_empty(), "no YAML in {page}");
        all.extend(displays.into_iter().map(|text| (0, text)));
    }
    for (line, yaml) in all {
        let finished = world.check(&yaml, &["--no-bind"]);
        assert_eq!(finished.code, Some(0), "line {line}: {}", finished.text());
    }
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut documents = vec![
        root().join("README.md"),
        root().join("CONTRIBUTING.md"),
        root().join("SECURITY.md"),
    ];
    let folder = fs::read_dir(root().join("docs")).expect("list docs");
    documents.extend(folder.map(|entry| entry.expect("an entry").path()));
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut count = 0;
    for document in documents {
        let text = fs::read_to_string(&document).expect("read a document");
        let folder = document.parent().expect("a folder");
        for rest in text.split("](").skip(1) {
            let (target, _) = rest.split_once(')').expect("an end");
            let (file, _) = target.split_once('#').unwrap_or((target, ""));
            if !file.is_empty() && !file.contains("://") {
                let exists = folder.join(file).exists();
                assert!(exists, "{}: {target}", document.display());
                count += 1;
            }
        }
    }
    assert!(count > 0);
}

/// The recipes of CONTRIBUTING.md: how many files each says it takes, and the files that it names.
fn recipes() -> Vec<(String, usize, Words)> {
    let text = read("CONTRIBUTING.md");
    let (_, text) = text.split_once("\n## Recipes\n").expect("recipes");
    let text = text.split("\n## ").next().expect("a first part");
    let recipes = text.split("\n\n**").skip(1);
    let parsed = recipes.map(|recipe| {
        let (name, rest) = recipe.split_once("** (").expect("a name and a number");
        let (count, body) = rest.split_once(" files). ").expect("`N files`");
        let quoted = body.split('`').skip(1).step_by(2);
        let paths = quoted.filter(|quoted| quoted.contains('/'));
        let count = count.parse().expect("a number");
        (name.to_owned(), count, words(paths))
    });
    parsed.collect()
}

#[test]
fn recipes_name_files_that_exist_and_count_them() {
    let recipes = recipes();
    for wanted in [
        "A key of the YAML",
        "A launch setting",
        "A verb",
        "A socket option",
        "A dialect of socket passing",
    ] {
        assert!(recipes.iter().any(|(name, ..)| name == wanted), "{wanted}");
    }
    for (name, count, files) in recipes {
        assert_eq!(files.len(), count, "{name}: {files:?}");
        for file in files {
            assert!(root().join(&file).is_file(), "{name}: no {file}");
        }
    }
}

#[test]
fn every_example_is_a_good_configuration() {
    let mut count = 0;
    let folders = ["examples", "examples/workers"].map(|folder| root().join(folder));
    let entries = folders.map(|folder| fs::read_dir(folder).expect("list examples"));
    for entry in entries.into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let path = path.to_str().expect("UTF-8");
            World::new()
                .finish(["check", "--no-bind", path])
                .expect_code(0);
            count += 1;
        }
    }
    assert!(count > 0);
}

/// A folder for PATH in which `listend` is the program under test.
fn bin(world: &World) -> PathBuf {
    let bin = world.path("bin");
    fs::create_dir(&bin).expect("create a folder");
    std::os::unix::fs::symlink(listend_path(), bin.join("listend")).expect("link listend");
    bin
}

#[test]
fn commands_of_the_readme_succeed() {
    let world = World::new();
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(bin(&world)).chain(std::env::split_paths(&folders));
    let path = std::env::join_paths(path).expect("a PATH");
    for (line, script) in blocks("sh run") {
        let mut run = Command::new("sh");
        run.args(["-euc", &script]).current_dir(root());
        let run = run.env("PATH", &path).output();
        let run = run.expect("start sh");
        assert!(run.status.success(), "README.md:{line}: {run:?}");
    }
}

#[test]
fn daemons_of_the_readme_serve_and_stop() {
    // They all listen here, so they run one after the other.
    if TcpListener::bind(EXAMPLES).is_err() {
        return skip(&format!("{EXAMPLES} is in use"));
    }
    let address: SocketAddr = EXAMPLES.parse().expect("an address");
    let world = World::new();
    let bin = bin(&world);
    for (line, script) in blocks("sh daemon") {
        for command in script.lines() {
            let command = command.replace("cargo run --profile quick --", "listend");
            let mut words = command.split_whitespace();
            assert_eq!(words.next(), Some("listend"), "README.md:{line}: {command}");
            let mut start = Start::new(words);
            start.directory(root());
            let folders = std::env::var("PATH").unwrap_or_default();
            start.env("PATH", &format!("{}:{folders}", bin.display()));
            let daemon = world.start(start);
            daemon.line(&["started, pid"]);
            let stream = client::tcp(address).expect("connect");
            let answer = client::http(stream, "/").expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200"), "{command}: {answer}");
            daemon.stop();
        }
    }
}

#[test]
fn man_pages_are_clean() {
    let Some(mandoc) = require_tool("mandoc") else {
        return;
    };
    for page in fs::read_dir(root().join("man")).expect("list man") {
        let page = page.expect("an entry").path();
        let mut lint = Command::new(&mandoc);
        lint.args(["-T", "lint", "-W", "warning"]).arg(page);
        let lint = lint.current_dir(root()).output().expect("start mandoc");
        // What it says about its own database of installed pages goes to standard error.
        let said = String::from_utf8_lossy(&lint.stdout).into_owned();
        assert!(lint.status.success(), "{said}");
    }
}

#[test]
fn the_unit_is_clean_and_gives_up_only_where_trying_again_is_no_use() {
    let unit = read("units/listend.service");
    let line = unit
        .lines()
        .find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    assert_eq!(line, Some("64 69 78"));
    let Some(analyze) = require_tool("systemd-analyze") else {
        return;
    };
    let world = World::new();
    let listend = listend_path().to_str().expect("UTF-8");
    // The pages need not be installed, and neither needs the program.
    let unit = unit.replace("/usr/bin/listend", listend);
    let unit: String = unit
        .lines()
        .filter(|line| !line.starts_with("Documentation="))
        .map(|line| line.to_owned() + "\n")
        .collect();
    let path = world.write("listend.service", &unit);
    let verify = Command::new(analyze).arg("verify").arg(&path).output();
    let verify = verify.expect("start systemd-analyze");
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    assert!(verify.status.success(), "{said}");
    let about_us = said.lines().find(|line| line.contains("listend.service"));
    assert_eq!(about_us, None);
}
