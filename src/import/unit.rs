//! A unit of systemd with its drop-ins (systemd.unit(5)).

use super::document::Entry;
use super::ini::{self, Section};

/// A file to import.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// The name of the file, without its directory.
    pub name: String,
    /// Its content.
    pub text: String,
    /// The contents of its drop-ins, in order.
    pub drop_ins: Vec<String>,
}

pub(super) fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// The file of the template of which this unit is an instance: `app@.service` of `app@blog.service`.
pub fn template_of(name: &str) -> Option<String> {
    let (prefix, instance) = stem(name).split_once('@')?;
    let kind = &name[stem(name).len()..];
    (!instance.is_empty()).then(|| format!("{prefix}@{kind}"))
}

/// The name of an instance as a path has it: what `systemd-escape --unescape` makes of it.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name;
    while let Some(letter) = rest.chars().next() {
        let code = rest.strip_prefix("\\x").and_then(|code| code.get(..2));
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            bytes.push(byte);
            rest = &rest[4..];
            continue;
        }
        let plain = if letter == '-' { '/' } else { letter };
        bytes.extend(plain.to_string().bytes());
        rest = &rest[letter.len_utf8()..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The assignments of a section, those of drop-ins behind it. An empty one forgets what was assigned before.
pub(super) fn assignments(unit: &Unit, section: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let texts = std::iter::once(&unit.text).chain(&unit.drop_ins);
    let sections = texts.flat_map(|text| ini::unit(text));
    for Section { keys, .. } in sections.filter(|found| found.name == section) {
        for (key, value) in keys {
            if value.is_empty() {
                found.retain(|(name, _)| *name != key);
            } else {
                found.push((key, instantiated(value, unit)));
            }
        }
    }
    found
}

/// A value with the name of the instance in it, if the unit is one.
fn instantiated(value: String, unit: &Unit) -> String {
    let instance = stem(&unit.name).split_once('@');
    let Some((_, instance)) = instance.filter(|(_, instance)| !instance.is_empty()) else {
        return value;
    };
    let mut out = String::new();
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        out.push(letter);
        if letter != '%' {
            continue;
        }
        let name = match letters.next() {
            Some('i') => instance.to_owned(),
            Some('I') => unescaped(instance),
            other => {
                out.extend(other);
                continue;
            }
        };
        out.pop();
        out.push_str(&name.replace('%', "%%"));
    }
    out
}

/// Whether the last assignment is an empty one.
pub(super) fn is_emptied(unit: &Unit, section: &str, key: &str) -> bool {
    let texts = std::iter::once(&unit.text).chain(&unit.drop_ins);
    let sections = texts.flat_map(|text| ini::unit(text));
    let mut keys = sections
        .filter(|found| found.name == section)
        .flat_map(|found| found.keys);
    let last = keys.rfind(|(name, _)| name == key);
    last.is_some_and(|(_, value)| value.is_empty())
}

pub(super) fn is_false(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "0" | "no" | "n" | "false" | "f" | "off"
    )
}

pub(super) fn is_true(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "1" | "yes" | "y" | "true" | "t" | "on"
    )
}

pub(super) fn last<'a>(keys: &'a [(String, String)], key: &str) -> Option<&'a str> {
    let found = keys.iter().rev().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_str())
}

/// What stands in the sections `Unit` and `Install`.
pub(super) fn notes_of_unit(unit: &Unit, entry: &mut Entry) {
    for (key, value) in assignments(unit, "Unit") {
        let why = match key.as_str() {
            "Description" => {
                entry.remark(&value);
                continue;
            }
            "Documentation" => continue,
            "StartLimitIntervalSec" | "StartLimitInterval" | "StartLimitBurst" => {
                if unit.name.ends_with(".socket") {
                    entry.note(&format!("{key}={value}"), "a listener is bound once");
                }
                continue;
            }
            "DefaultDependencies"
            | "IgnoreOnIsolate"
            | "RefuseManualStart"
            | "RefuseManualStop"
            | "AllowIsolate"
            | "CollectMode"
            | "StopWhenUnneeded" => "listend has no units",
            key if key.starts_with("Condition") || key.starts_with("Assert") => {
                "listend starts what is in its configuration"
            }
            "OnFailure" | "OnSuccess" => "see `listend events` and `after_stop`",
            "StartLimitAction" | "FailureAction" | "SuccessAction" | "JobTimeoutSec" => {
                "listend does not act on the machine"
            }
            _ => "listend does not order its workers: their listeners are there before them",
        };
        entry.note(&format!("{key}={value}"), why);
    }
    for (key, value) in assignments(unit, "Install") {
        let why = match key.as_str() {
            "Also" => "every worker in the configuration is enabled",
            "Alias" => "it has one name",
            "DefaultInstance" => "a worker has no instances by name",
            _ => continue,
        };
        entry.note(&format!("{key}={value}"), why);
    }
}

/// Why something with a specifier is left out.
pub(super) const UNKNOWN: &str = "what stands for the specifier is not known";

/// Whether there is a specifier that depends on the instance or on the machine.
pub(super) fn has_specifier(text: &str) -> bool {
    let mut letters = text.chars();
    while letters.by_ref().any(|letter| letter == '%') {
        let specifier = letters.next();
        if specifier.is_some_and(|letter| "aAbBdDfgGhHiIjJlmMoqsuUvwWyY".contains(letter)) {
            return true;
        }
    }
    false
}

/// Leaves out what depends on the instance or on the machine. Variables of the environment are looked at one
/// by one, before.
pub(super) fn unresolved(entry: &mut Entry) {
    for key in entry.keys() {
        match key.as_str() {
            "environment" => {}
            "command" | "address" => {
                if entry
                    .get(&key)
                    .is_some_and(|value| has_specifier(&value.written()))
                {
                    entry.remark(&format!(
                        "Replace the specifiers (systemd.unit(5)) in `{key}`."
                    ));
                }
            }
            key => {
                for value in entry.take_out(key, has_specifier) {
                    entry.note(&format!("{key}: {value}"), UNKNOWN);
                }
            }
        }
    }
}

/// Replaces what systemd replaces (systemd.unit(5)) and is the same on each machine.
pub(super) fn specifiers(text: &str, unit: &Unit) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let name = &unit.name;
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        match letters.next() {
            Some('%') => out.push('%'),
            Some('n') => out.push_str(name),
            Some('N') => out.push_str(stem(name)),
            Some('p' | 'P') => out.push_str(stem(name).split('@').next().unwrap_or(name)),
            Some('t') => out.push_str("/run"),
            Some('S') => out.push_str("/var/lib"),
            Some('C') => out.push_str("/var/cache"),
            Some('L') => out.push_str("/var/log"),
            Some('E') => out.push_str("/etc"),
            Some('T') => out.push_str("/tmp"),
            Some('V') => out.push_str("/var/tmp"),
            // The rest depends on the machine, or on the instance.
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}
