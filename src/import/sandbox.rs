//! The directives of systemd.exec(5) that are keys of `sandbox:`.

use super::document::{Entry, Value};
use super::unit::{Unit, is_emptied, is_false, is_true, last, specifiers};
use super::values::unit_words;
use crate::sandbox::{DIRECTIVES, Family, Flag, Term};

/// Whether an assignment is about what `sandbox:` is about; it may still have no equivalent.
pub(super) fn is_key(directive: &str) -> bool {
    let directive = of_now(directive);
    let of_calls = ["SystemCallErrorNumber", "SystemCallArchitectures"];
    flag(directive).is_some()
        || DIRECTIVES.iter().any(|(_, one)| *one == directive)
        || of_calls.contains(&directive)
}

/// The name that an older one has now.
fn of_now(directive: &str) -> &str {
    match directive {
        "ReadOnlyDirectories" => "ReadOnlyPaths",
        "ReadWriteDirectories" => "ReadWritePaths",
        "InaccessibleDirectories" => "InaccessiblePaths",
        "MemoryLimit" => "MemoryMax",
        other => other,
    }
}

fn flag(directive: &str) -> Option<Flag> {
    let mut flags = Flag::ALL.iter().copied();
    flags.find(|flag| !directive.is_empty() && flag.directive() == directive)
}

/// Sets `sandbox` to what the assignments say.
pub(super) fn sandbox(keys: &[(String, String)], unit: &Unit, worker: &mut Entry) {
    let mut found = Found::default();
    for (directive, value) in keys {
        found.take(of_now(directive), &specifiers(value, unit), worker);
    }
    if is_emptied(unit, "Service", "CapabilityBoundingSet") {
        found.capabilities = Some(Named::default());
    }
    let mut sandbox: Vec<(&str, Value)> = Vec::new();
    for flag in Flag::ALL.iter().filter(|flag| found.flags.contains(flag)) {
        sandbox.push((flag.key(), "true".into()));
    }
    for (key, value) in [
        ("capabilities", found.capabilities.map(Named::into_words)),
        (
            "restrict_address_families",
            found.families.map(|named| match named.into_words() {
                words if words.is_empty() => vec!["none".to_owned()],
                words => words,
            }),
        ),
    ] {
        if let Some(words) = value {
            sandbox.push((key, words.into()));
        }
    }
    for (key, word) in found.words {
        sandbox.push((key, word.into()));
    }
    for (key, paths) in found.paths {
        sandbox.push((key, paths.into()));
    }
    if !found.calls.is_empty() {
        sandbox.push(("system_calls", found.calls.into()));
    }
    about_calls(keys, &sandbox, worker);
    if !sandbox.is_empty() {
        let sandbox = sandbox.into_iter();
        let sandbox = sandbox.map(|(key, value)| (key.to_owned(), value));
        worker.set("sandbox", Value::Block(sandbox.collect()));
    }
}

/// What becomes of a forbidden call.
fn about_calls(keys: &[(String, String)], sandbox: &[(&str, Value)], worker: &mut Entry) {
    let filters = sandbox.iter().any(|(key, _)| *key == "system_calls");
    let number = last(keys, "SystemCallErrorNumber");
    match number {
        Some("EPERM") => {}
        Some(other) => worker.note(
            &format!("SystemCallErrorNumber={other}"),
            "a forbidden call fails with EPERM",
        ),
        None if filters => {
            worker.remark("A forbidden system call fails with EPERM; systemd ends the process.");
        }
        None => {}
    }
    if let Some(machines) = last(keys, "SystemCallArchitectures") {
        let written = format!("SystemCallArchitectures={machines}");
        match machines {
            "native" if filters => {}
            "native" => worker.note(&written, "only `system_calls` forbids those of others"),
            _ => worker.note(&written, "only calls of the machine itself are permitted"),
        }
    }
}

/// What several assignments have added up to.
#[derive(Default)]
struct Found {
    flags: Vec<Flag>,
    capabilities: Option<Named>,
    families: Option<Named>,
    words: Vec<(&'static str, String)>,
    paths: Vec<(&'static str, Vec<String>)>,
    calls: Vec<String>,
}

impl Found {
    fn take(&mut self, directive: &str, value: &str, worker: &mut Entry) {
        if let Some(flag) = flag(directive) {
            return self.flag(flag, directive, value, worker);
        }
        let key = DIRECTIVES.iter().find(|(_, one)| *one == directive);
        let Some((key, _)) = key else {
            return;
        };
        match *key {
            "capabilities" => {
                // systemd takes them in either case.
                let upper = value.to_ascii_uppercase();
                let all = caps::all();
                let known = |word: &str| all.iter().any(|one| one.to_string() == word);
                Named::add(&mut self.capabilities, directive, &upper, known, worker);
            }
            "restrict_address_families" if value == "none" => {
                self.families = Some(Named::default());
            }
            "restrict_address_families" => {
                let known =
                    |word: &str| word.starts_with("AF_") && Family::from_word(word).is_some();
                Named::add(&mut self.families, directive, value, known, worker);
            }
            "system_calls" => self.calls(directive, value, worker),
            "memory_max" | "tasks_max" | "cpu_quota" | "io_weight" => {
                self.words.retain(|(one, _)| one != key);
                // An empty value is no limit.
                if !value.is_empty() {
                    self.words.push((key, value.to_owned()));
                }
            }
            "read_only_paths" | "read_write_paths" | "inaccessible_paths" => {
                for path in unit_words(value) {
                    if path.contains('%') {
                        let why = "what stands for the specifier is not known";
                        worker.note(&format!("{directive}={path}"), why);
                        continue;
                    }
                    // `+` is for a root directory, which a worker has not.
                    let dash = if path.starts_with('-') { "-" } else { "" };
                    let path = format!("{dash}{}", path.trim_start_matches(['-', '+']));
                    match self.paths.iter_mut().find(|(one, _)| one == key) {
                        Some((_, paths)) => paths.push(path),
                        None => self.paths.push((key, vec![path])),
                    }
                }
            }
            key => {
                let word = match value {
                    value if is_true(value) => "true".to_owned(),
                    value if is_false(value) => "false".to_owned(),
                    word => word.to_owned(),
                };
                self.words.retain(|(one, _)| *one != key);
                if word != "false" && word != "default" {
                    self.words.push((key, word));
                }
            }
        }
    }

    fn flag(&mut self, flag: Flag, directive: &str, value: &str, worker: &mut Entry) {
        self.flags.retain(|one| *one != flag);
        let is_on = match (flag, value) {
            (_, value) if is_true(value) => true,
            (_, value) if is_false(value) => false,
            // What it is here.
            (Flag::PrivateTmp, "disconnected") => true,
            (Flag::ProtectControlGroups, "private" | "strict")
            | (Flag::ProtectHostname, _)
            | (Flag::RestrictNamespaces, _) => {
                let why = format!("`{}` is `true` or `false`", flag.key());
                worker.note(&format!("{directive}={value}"), &why);
                false
            }
            _ => {
                worker.note(
                    &format!("{directive}={value}"),
                    "its value is not known here",
                );
                false
            }
        };
        if is_on {
            self.flags.push(flag);
        }
    }

    /// A leading `~` is for all words of a line.
    fn calls(&mut self, directive: &str, value: &str, worker: &mut Entry) {
        let (tilde, rest) = match value.strip_prefix('~') {
            Some(rest) => ("~", rest),
            None => ("", value),
        };
        for word in unit_words(rest) {
            // `NAME:ERRNO`.
            let name = word.split(':').next().unwrap_or(&word);
            match Term::read(name) {
                Ok(_) => self.calls.push(format!("{tilde}{name}")),
                Err(_) => worker.note(
                    &format!("{directive}={tilde}{word}"),
                    "there is no such system call or set on this machine",
                ),
            }
        }
    }
}

/// Names that are left, or with `~` names that are taken away.
#[derive(Default)]
struct Named {
    is_less: bool,
    names: Vec<String>,
}

impl Named {
    /// What one line adds: the first says which of both it is, another of the other kind takes from it.
    fn add(
        old: &mut Option<Named>,
        directive: &str,
        value: &str,
        is_known: impl Fn(&str) -> bool,
        worker: &mut Entry,
    ) {
        let (is_less, rest) = match value.strip_prefix('~') {
            Some(rest) => (true, rest),
            None => (false, value),
        };
        let named = old.get_or_insert_with(|| Named {
            is_less,
            names: Vec::new(),
        });
        for word in unit_words(rest) {
            if !is_known(&word) {
                worker.note(&format!("{directive}={word}"), "it is not known here");
                continue;
            }
            named.names.retain(|name| *name != word);
            if named.is_less == is_less {
                named.names.push(word);
            }
        }
    }

    fn into_words(self) -> Vec<String> {
        let tilde = if self.is_less { "~" } else { "" };
        let names = self.names.iter();
        names.map(|name| format!("{tilde}{name}")).collect()
    }
}
