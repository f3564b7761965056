//! Reads `sandbox:` into a [`Sandbox`].

use super::decode::{Fields, choice, text, texts, wrong_type};
use super::keys;
use super::scalar;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use super::yaml::{Content, Node};
use crate::report::did_you_mean;
use crate::sandbox::{
    Families, Family, Flag, Most, Named, Permyriad, Preset, ProtectHome, ProtectProc,
    ProtectSystem, Quota, Sandbox, Term, WHOLE,
};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// The value of `sandbox:`: the name of a preset, or the keys. `None` is none, or one with a mistake.
pub(super) fn decode(node: &Node, out: &mut Diagnostics) -> Option<Located<Sandbox>> {
    let located = |value| Located {
        value,
        place: node.place,
    };
    match &node.content {
        Content::Map(_) => {}
        Content::Scalar(word) => {
            let text = text(node, "sandbox", out)?;
            if word.plain && text == "none" {
                return None;
            }
            let preset = out.check(node.place, preset("sandbox", text))?;
            return Some(located(preset.sandbox()));
        }
        Content::Null { .. } | Content::List(_) => {
            out.add(wrong_type("`sandbox`", "a preset or a mapping", node).at(node.place));
            return None;
        }
    }
    let mut fields = Fields::open(node, keys::SANDBOX, "`sandbox`", &[], out)?;
    let preset = fields.read("preset", out, |key, text| match text {
        "none" => Ok(None),
        _ => preset(key, text).map(Some),
    });
    let preset = preset.into_set().and_then(|preset| preset.value);
    let mut sandbox = preset.map(Preset::sandbox).unwrap_or_default();
    for flag in Flag::ALL {
        let mut is_on = sandbox.has(*flag);
        fields.set(flag.key(), &mut is_on, out, scalar::boolean);
        match is_on {
            true => sandbox.flags.insert(*flag),
            false => sandbox.flags.remove(flag),
        };
    }
    if let Some(node) = fields.take("capabilities") {
        sandbox.capabilities = capabilities(node, out);
    }
    let system = &mut sandbox.protect_system;
    fields.set("protect_system", system, out, |key, text| {
        choice(key, text, &words(ProtectSystem::ALL))
    });
    let home = &mut sandbox.protect_home;
    fields.set("protect_home", home, out, |key, text| {
        choice(key, text, &words(ProtectHome::ALL))
    });
    let proc = &mut sandbox.protect_proc;
    fields.set("protect_proc", proc, out, |key, text| {
        choice(key, text, &words(ProtectProc::ALL))
    });
    for (key, to) in [
        ("read_only_paths", &mut sandbox.read_only_paths),
        ("read_write_paths", &mut sandbox.read_write_paths),
        ("inaccessible_paths", &mut sandbox.inaccessible_paths),
    ] {
        if let Some(node) = fields.take(key) {
            *to = paths(key, node, out);
        }
    }
    if let Some(node) = fields.take("restrict_address_families") {
        sandbox.families = families(node, out);
    }
    if let Some(node) = fields.take("system_calls") {
        // They add to those of the preset, and take from them, as lists of systemd do.
        sandbox.system_calls.extend(system_calls(node, out));
    }
    let limits = &mut sandbox.limits;
    let tasks = |key: &str, text: &str| scalar::integer(key, text, 1, i64::MAX);
    fields.set("memory_max", &mut limits.memory_max, out, |key, text| {
        most(key, text, scalar::size).map(Some)
    });
    fields.set("tasks_max", &mut limits.tasks_max, out, |key, text| {
        most(key, text, tasks).map(Some)
    });
    fields.set("cpu_quota", &mut limits.cpu_quota, out, |key, text| {
        quota(key, text).map(Some)
    });
    fields.set("io_weight", &mut limits.io_weight, out, |key, text| {
        scalar::integer(key, text, 1, 10_000).map(Some)
    });
    fields.finish();
    Some(located(sandbox))
}

fn preset(key: &str, text: &str) -> Result<Preset, ValueError> {
    choice(key, text, &words(Preset::ALL))
}

/// A number, a part of what the machine has, or `infinity`.
fn most(
    key: &str,
    text: &str,
    number: impl FnOnce(&str, &str) -> Result<u64, ValueError>,
) -> Result<Most, ValueError> {
    match text {
        INFINITY => return Ok(Most::Infinity),
        "unlimited" | "none" | "max" => {
            let error = ValueError::bad(format!("`{key}`: `{text}` is not a limit"));
            return Err(error.hint("write `infinity` for no limit"));
        }
        _ => {}
    }
    if text.ends_with('%') {
        return permyriad(key, text, WHOLE).map(Most::Part);
    }
    match number(key, text)? {
        0 => {
            let error = ValueError::bad(format!("`{key}`: nothing can run with 0"));
            Err(error.hint("write the most that it needs, or `infinity` for no limit"))
        }
        count => Ok(Most::Count(count)),
    }
}

fn quota(key: &str, text: &str) -> Result<Quota, ValueError> {
    match text {
        INFINITY => Ok(Quota::Infinity),
        // As many processors as no machine has.
        _ => permyriad(key, text, WHOLE * 10_000).map(Quota::Part),
    }
}

const INFINITY: &str = "infinity";

/// `50%`, with two decimals at most.
fn permyriad(key: &str, text: &str, most: Permyriad) -> Result<Permyriad, ValueError> {
    let parts = text.strip_suffix('%').and_then(|number| {
        let (whole, rest) = number.split_once('.').unwrap_or((number, "0"));
        (scalar::is_digits(whole) && scalar::is_digits(rest) && rest.len() <= 2)
            .then_some((whole, rest))
    });
    let Some((whole, rest)) = parts else {
        let error = ValueError::bad(format!("`{key}`: `{text}` is not a percentage"));
        return Err(error.hint("write it like `50%`, or `infinity` for no limit"));
    };
    let value = format!("{whole}{rest:0<2}").parse().unwrap_or(u64::MAX);
    match u32::try_from(value) {
        Ok(value) if (1..=most).contains(&value) => Ok(value),
        _ => {
            let most = most / 100;
            let error =
                ValueError::bad(format!("`{key}`: `{text}` is not within 0.01% to {most}%"));
            Err(error.hint("`infinity` is no limit"))
        }
    }
}

fn words<T: Copy>(all: &[(&'static str, T)]) -> Vec<(&'static str, T, &'static [&'static str])> {
    let synonyms = |word| match word {
        "true" => &["yes", "on"][..],
        "false" => &["no", "off"],
        _ => &[],
    };
    let rows = all.iter();
    rows.map(|(word, value)| (*word, *value, synonyms(*word)))
        .collect()
}

fn capabilities(node: &Node, out: &mut Diagnostics) -> Option<BTreeSet<u8>> {
    let all = caps::all();
    let words = texts(node, "capabilities", out);
    let is_less = words
        .first()
        .is_some_and(|word| word.value.starts_with('~'));
    let mut named = BTreeSet::new();
    for word in words {
        let name = word.value.strip_prefix('~').unwrap_or(&word.value);
        let upper = caps::to_canonical(name);
        match all.iter().find(|one| one.to_string() == upper) {
            Some(one) if word.value.starts_with('~') == is_less => _ = named.insert(one.index()),
            Some(_) => {
                let error =
                    ValueError::bad("`capabilities`: some words have a `~` and some have none");
                out.add(
                    error
                        .hint("write what is left, or what is taken away")
                        .at(word.place),
                );
            }
            None => {
                let names: Vec<String> = all.iter().map(ToString::to_string).collect();
                let error = ValueError::bad(format!("`capabilities`: unknown value `{name}`"));
                let hint = did_you_mean(&upper, names.iter().map(String::as_str));
                out.add(error.maybe_hint(hint).at(word.place));
            }
        }
    }
    Some(match is_less {
        false => named,
        true => {
            let all = all.iter().map(|one| one.index());
            all.filter(|one| !named.contains(one)).collect()
        }
    })
}

fn paths(key: &str, node: &Node, out: &mut Diagnostics) -> Vec<Named> {
    let words = texts(node, key, out).into_iter();
    let read = words.filter_map(|word| {
        let optional = word.value.starts_with('-');
        let path = word.value.strip_prefix('-').unwrap_or(&word.value);
        let path = Path::new(path);
        let is_plain =
            |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !path.is_absolute() || !path.components().all(is_plain) {
            let error =
                ValueError::bad(format!("`{key}`: `{}` is not an absolute path", word.value));
            let error =
                error.hint("write the path from `/`, without `..`; `-/path` may be missing");
            out.add(error.at(word.place));
            return None;
        }
        Some(Named {
            path: path.components().collect::<PathBuf>(),
            optional,
        })
    });
    read.collect()
}

fn families(node: &Node, out: &mut Diagnostics) -> Option<Families> {
    let words = texts(node, "restrict_address_families", out);
    if let [only] = words.as_slice() {
        match only.value.as_str() {
            "none" => return Some(Families::Only(BTreeSet::new())),
            "any" => return None,
            _ => {}
        }
    }
    let is_less = words
        .first()
        .is_some_and(|word| word.value.starts_with('~'));
    let mut named = BTreeSet::new();
    for word in words {
        let name = word.value.strip_prefix('~').unwrap_or(&word.value);
        match Family::from_word(name) {
            Some(one) if word.value.starts_with('~') == is_less => _ = named.insert(one),
            Some(_) => {
                let message =
                    "`restrict_address_families`: some words have a `~` and some have none";
                let error = ValueError::bad(message);
                out.add(
                    error
                        .hint("write what is permitted, or what is not")
                        .at(word.place),
                );
            }
            None => {
                let message = format!("`restrict_address_families`: unknown value `{name}`");
                let hint = did_you_mean(name, Family::words());
                out.add(ValueError::bad(message).maybe_hint(hint).at(word.place));
            }
        }
    }
    Some(match is_less {
        true => Families::AllBut(named),
        false => Families::Only(named),
    })
}

fn system_calls(node: &Node, out: &mut Diagnostics) -> Vec<Term> {
    let words = texts(node, "system_calls", out).into_iter();
    let read = words.filter_map(|word| match Term::read(&word.value) {
        Ok(term) => Some(term),
        Err(known) => {
            let name = word.value.strip_prefix('~').unwrap_or(&word.value);
            let message = format!("`system_calls`: there is no system call or set `{name}`");
            let hint = did_you_mean(name, known);
            out.add(ValueError::bad(message).maybe_hint(hint).at(word.place));
            None
        }
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::super::read::{Loaded, SourceFile, read};
    use super::*;

    fn load(sandbox: &str) -> Loaded {
        let yaml = format!("workers:\n  app:\n    command: [x]\n    sandbox: {sandbox}\n");
        read(vec![SourceFile {
            name: "test.yaml".to_owned(),
            bytes: yaml.into_bytes(),
            folder: "/".into(),
        }])
    }

    fn sandbox(text: &str) -> Sandbox {
        let loaded = load(text);
        assert_eq!(loaded.report.errors, [], "{text}");
        let mut workers = loaded.config.workers.into_iter();
        workers
            .next()
            .and_then(|worker| worker.sandbox)
            .unwrap_or_else(|| panic!("{text}"))
            .value
    }

    #[test]
    fn a_preset_is_a_word_or_a_key_and_what_is_written_wins() {
        assert_eq!(sandbox("strict"), Preset::Strict.sandbox());
        let changed = sandbox(
            "{preset: strict, protect_home: false, private_devices: false, capabilities: \
             [CAP_NET_RAW], system_calls: ['~@chown'], read_write_paths: [/srv/, -/opt]}",
        );
        assert_eq!(changed.protect_home, ProtectHome::No);
        assert!(!changed.has(Flag::PrivateDevices) && changed.has(Flag::PrivateIpc));
        assert_eq!(changed.capabilities, Some([13].into()));
        let calls = changed.system_calls.iter().map(Term::to_string);
        let calls: Vec<String> = calls.collect();
        assert_eq!(
            (calls[0].as_str(), calls.last().unwrap().as_str()),
            ("@system-service", "~@chown")
        );
        let paths: Vec<String> = changed
            .read_write_paths
            .iter()
            .map(Named::to_string)
            .collect();
        assert_eq!(paths, ["/srv", "-/opt"]);
        assert!(load("none").config.workers[0].sandbox.is_none());
    }

    #[test]
    fn lists_are_of_what_is_left_or_of_what_is_taken() {
        let kept = sandbox("{capabilities: ['~CAP_SYS_ADMIN']}")
            .capabilities
            .unwrap();
        assert!(!kept.contains(&21) && kept.contains(&0));
        let families = |text: &str| {
            let of = sandbox(&format!("{{restrict_address_families: {text}}}"));
            of.families.map(|families| families.to_string())
        };
        assert_eq!(families("none").unwrap(), "none");
        assert_eq!(families("any"), None);
        assert_eq!(families("['~AF_PACKET']").unwrap(), "~AF_PACKET");
        assert_eq!(
            families("[AF_UNIX, inherited]").unwrap(),
            "inherited AF_UNIX"
        );
    }

    #[test]
    fn limits_are_numbers_parts_or_none() {
        use crate::sandbox::Limits;
        let of = |text: &str| sandbox(text).limits;
        let limits = of("{memory_max: 512M, tasks_max: 100, cpu_quota: 150%, io_weight: 10000}");
        let expected = Limits {
            memory_max: Some(Most::Count(512 << 20)),
            tasks_max: Some(Most::Count(100)),
            cpu_quota: Some(Quota::Part(15_000)),
            io_weight: Some(10_000),
        };
        assert_eq!(limits, expected);
        let limits =
            of("{preset: strict, memory_max: 33.5%, tasks_max: infinity, cpu_quota: 0.01%}");
        let expected = Limits {
            memory_max: Some(Most::Part(3_350)),
            tasks_max: Some(Most::Infinity),
            cpu_quota: Some(Quota::Part(1)),
            io_weight: None,
        };
        assert_eq!(limits, expected);
        assert!(of("sealed").is_empty());
        for text in [
            "memory_max: 0",
            "memory_max: 101%",
            "memory_max: 0%",
            "memory_max: 1.5G",
            "memory_max: unlimited",
            "tasks_max: 10K",
            "tasks_max: -1",
            "cpu_quota: 50",
            "cpu_quota: .5%",
            "cpu_quota: 1.234%",
            "cpu_quota: 1000001%",
            "io_weight: 0",
            "io_weight: 10001",
        ] {
            let errors = load(&format!("{{{text}}}")).report.errors;
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
        }
    }

    #[test]
    fn mistakes_are_found_with_what_was_meant() {
        for (text, hint) in [
            ("{tasks_max: unlimited}", "write `infinity` for no limit"),
            ("strikt", "did you mean `strict`?"),
            ("{private_tmpp: true}", "did you mean `private_tmp`?"),
            ("{protect_home: yes}", "did you mean `true`?"),
            (
                "{capabilities: [CAP_NET_RAV]}",
                "did you mean `CAP_NET_RAW`?",
            ),
            (
                "{system_calls: ['@system-servic']}",
                "did you mean `@system-service`?",
            ),
            (
                "{restrict_address_families: [AF_INET5]}",
                "did you mean `AF_INET`?",
            ),
            (
                "{read_only_paths: [srv]}",
                "write the path from `/`, without `..`; `-/path` may be missing",
            ),
        ] {
            let errors = load(text).report.errors;
            let hints: Vec<_> = errors
                .iter()
                .map(|one| one.hint.as_deref().unwrap_or(""))
                .collect();
            assert!(
                matches!(hints.as_slice(), [one] if one.starts_with(hint)),
                "{text}: {errors:?}"
            );
        }
    }
}
