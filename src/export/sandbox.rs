//! `sandbox:` as the directives that have its meaning (systemd.exec(5)).

use super::unit::{SERVICE, Unit, plain, quoted};
use crate::config::{Listener, Worker};
use crate::sandbox::{DIRECTIVES, Families, Family, Flag, Named, ProtectHome, Sandbox, Term};
use std::collections::BTreeSet;
use std::path::Path;

pub(super) fn sandbox(unit: &mut Unit, worker: &Worker, listeners: &[&Listener]) {
    let Some(sandbox) = &worker.sandbox else {
        return;
    };
    let sandbox = &sandbox.value;
    for flag in Flag::ALL.iter().filter(|flag| sandbox.has(**flag)) {
        match flag.directive() {
            "" if *flag == Flag::BestEffort => unit.remark(
                "What the kernel cannot enforce of the sandbox is left out by systemd, too.",
            ),
            "" => unit.lacks(flag.key(), "systemd has no such setting"),
            directive => unit.set(SERVICE, directive, "yes"),
        }
    }
    for (key, directive) in DIRECTIVES {
        match *key {
            "capabilities" => {
                if let Some(kept) = &sandbox.capabilities {
                    let names = caps::all().into_iter();
                    let names = names.filter(|one| kept.contains(&one.index()));
                    let names: Vec<String> = names.map(|one| one.to_string()).collect();
                    unit.set(SERVICE, directive, names.join(" "));
                }
            }
            "protect_system" => word(unit, directive, sandbox.protect_system.word()),
            "protect_home" => word(unit, directive, sandbox.protect_home.word()),
            "protect_proc" => word(unit, directive, sandbox.protect_proc.word()),
            "read_only_paths" => paths(unit, directive, &sandbox.read_only_paths),
            "read_write_paths" => paths(unit, directive, &sandbox.read_write_paths),
            "inaccessible_paths" => {
                paths(unit, directive, &sandbox.inaccessible_paths);
                hidden(unit, sandbox);
            }
            "restrict_address_families" => {
                if let Some(families) = &sandbox.families {
                    let endpoints = listeners.iter().flat_map(|one| &one.addresses);
                    let endpoints = endpoints.flat_map(|address| &address.value.endpoints);
                    let inherited = endpoints.filter_map(|one| one.family()).collect();
                    restrict(unit, directive, families.clone(), &inherited);
                }
            }
            "system_calls" => system_calls(unit, directive, &sandbox.system_calls),
            limit => match sandbox.limits.value(limit) {
                // There an empty value is no limit.
                Some(none) if limit == "cpu_quota" && none == "infinity" => {
                    unit.set(SERVICE, directive, "");
                }
                Some(value) => unit.set(SERVICE, directive, value),
                None => {}
            },
        }
    }
}

fn word(unit: &mut Unit, directive: &str, word: &str) {
    match word {
        "false" | "default" => {}
        "true" => unit.set(SERVICE, directive, "yes"),
        word => unit.set(SERVICE, directive, word),
    }
}

fn paths(unit: &mut Unit, directive: &str, paths: &[Named]) {
    for path in paths {
        unit.set(SERVICE, directive, quoted(&path.to_string()));
    }
}

/// What stays visible in a hidden directory.
fn hidden(unit: &mut Unit, sandbox: &Sandbox) {
    let is_hidden = |path: &Path| {
        let homes = ["/home", "/root", "/run/user"];
        let of_home = matches!(
            sandbox.protect_home,
            ProtectHome::Hidden | ProtectHome::Tmpfs
        );
        let mut named = sandbox.inaccessible_paths.iter();
        of_home && homes.iter().any(|home| path.starts_with(home))
            || named.any(|one| path.starts_with(&one.path))
    };
    for Named { path, .. } in &sandbox.read_write_paths {
        if is_hidden(path) {
            unit.lacks(
                &format!("read_write_paths: {} in a hidden directory", path.display()),
                "systemd hides it as well; see BindPaths=",
            );
        }
    }
}

fn restrict(unit: &mut Unit, directive: &str, mut families: Families, inherited: &BTreeSet<i32>) {
    families.settle(inherited);
    let (tilde, named) = match &families {
        Families::Only(named) => ("", named),
        Families::AllBut(named) => ("~", named),
    };
    let mut words = Vec::new();
    for family in named {
        match family.to_string() {
            word if word.starts_with("AF_") => words.push(word),
            number => unit.lacks(
                &format!("restrict_address_families: {number}"),
                "systemd takes the names of families only",
            ),
        }
    }
    match (tilde, words.is_empty()) {
        ("", true) => unit.set(SERVICE, directive, "none"),
        (_, true) => {}
        (tilde, false) => {
            let value = format!("{tilde}{}", words.join(" "));
            unit.set(SERVICE, directive, value);
        }
    }
    debug_assert!(!named.contains(&Family::Inherited));
}

/// A line for each run of words that permit, or forbid.
fn system_calls(unit: &mut Unit, directive: &str, terms: &[Term]) {
    for run in terms.chunk_by(|one, next| one.is_denied == next.is_denied) {
        let names: Vec<&str> = run.iter().map(|term| term.name.as_str()).collect();
        let tilde = if run[0].is_denied { "~" } else { "" };
        let value = plain(&format!("{tilde}{}", names.join(" ")));
        unit.set(SERVICE, directive, value);
    }
    if !terms.is_empty() {
        unit.set(SERVICE, "SystemCallErrorNumber", "EPERM");
        unit.set(SERVICE, "SystemCallArchitectures", "native");
    }
}
