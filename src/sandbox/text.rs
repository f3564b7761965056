//! A sandbox in words.

use super::families::Families;
use super::flag::Flag;
use super::model::{Preset, Sandbox};
use std::collections::BTreeSet;
use std::fmt;

/// The sandbox in one line: the preset, then what differs from it.
impl fmt::Display for Sandbox {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.preset.map(Preset::sandbox).unwrap_or_default();
        let mut parts: Vec<String> = self
            .preset
            .iter()
            .map(|one| one.word().to_owned())
            .collect();
        for flag in Flag::ALL {
            match (base.has(*flag), self.has(*flag)) {
                (false, true) => parts.push(flag.key().to_owned()),
                (true, false) => parts.push(format!("{}: false", flag.key())),
                _ => {}
            }
        }
        let mut say = |key: &str, before: String, after: String| {
            if before != after {
                parts.push(format!("{key}: {after}"));
            }
        };
        let capabilities = |one: &Sandbox| capabilities_text(one.capabilities.as_ref());
        say("capabilities", capabilities(&base), capabilities(self));
        let word = |one: &Sandbox| one.protect_system.word().to_owned();
        say("protect_system", word(&base), word(self));
        let word = |one: &Sandbox| one.protect_home.word().to_owned();
        say("protect_home", word(&base), word(self));
        let word = |one: &Sandbox| one.protect_proc.word().to_owned();
        say("protect_proc", word(&base), word(self));
        say(
            "read_only_paths",
            list(&base.read_only_paths),
            list(&self.read_only_paths),
        );
        say(
            "read_write_paths",
            list(&base.read_write_paths),
            list(&self.read_write_paths),
        );
        let hidden = (
            list(&base.inaccessible_paths),
            list(&self.inaccessible_paths),
        );
        say("inaccessible_paths", hidden.0, hidden.1);
        let families = |one: &Sandbox| {
            one.families
                .as_ref()
                .map_or("any".to_owned(), Families::to_string)
        };
        say("restrict_address_families", families(&base), families(self));
        say(
            "system_calls",
            list(&base.system_calls),
            list(&self.system_calls),
        );
        if !self.limits.is_empty() {
            parts.push(self.limits.to_string());
        }
        match parts.is_empty() {
            true => to.write_str("nothing"),
            false => to.write_str(&parts.join(", ")),
        }
    }
}

pub(super) fn list<Item: fmt::Display>(items: &[Item]) -> String {
    let items: Vec<String> = items.iter().map(Item::to_string).collect();
    format!("[{}]", items.join(" "))
}

/// Capabilities by their names, which [`caps`] has.
pub(super) fn capabilities_text(kept: Option<&BTreeSet<u8>>) -> String {
    let Some(kept) = kept else {
        return "all".to_owned();
    };
    let names = caps::all()
        .into_iter()
        .filter(|one| kept.contains(&one.index()));
    let mut names: Vec<String> = names.map(|one| one.to_string()).collect();
    names.sort();
    format!("[{}]", names.join(" "))
}
