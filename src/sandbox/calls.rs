//! `system_calls:` → the calls that are permitted.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

/// The sets, as text: a paragraph each.
const SETS: &str = include_str!("system_calls.txt");

/// A word of `system_calls:`: a call or a set of them, permitted, or with `~` forbidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Whether it is forbidden.
    pub is_denied: bool,
    /// The name of a call, or of a set with its `@`.
    pub name: String,
}

impl Term {
    pub(super) fn only(name: &str) -> Term {
        Term {
            is_denied: false,
            name: name.to_owned(),
        }
    }

    pub(super) fn without(name: &str) -> Term {
        Term {
            is_denied: true,
            ..Term::only(name)
        }
    }

    /// Reads a word; an unknown name is answered with those that come nearest.
    ///
    /// # Errors
    ///
    /// The names that there are.
    pub fn read(text: &str) -> Result<Term, Vec<&'static str>> {
        let name = text.strip_prefix('~').unwrap_or(text);
        let is_known = match name.strip_prefix('@') {
            Some(_) => sets().any(|(set, _)| *set == name),
            None => sets().any(|(_, calls)| calls.contains(&name)) || number(name).is_some(),
        };
        match is_known {
            true => Ok(Term {
                is_denied: text.starts_with('~'),
                name: name.to_owned(),
            }),
            false => {
                let sets = sets();
                Err(sets
                    .flat_map(|(set, calls)| std::iter::once(set).chain(calls))
                    .copied()
                    .collect())
            }
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tilde = if self.is_denied { "~" } else { "" };
        write!(to, "{tilde}{}", self.name)
    }
}

/// The number of a call on this machine.
fn number(name: &str) -> Option<i64> {
    let call: syscalls::Sysno = name.parse().ok()?;
    Some(i64::from(call.id()))
}

fn sets() -> impl Iterator<Item = &'static (&'static str, Vec<&'static str>)> {
    static READ: LazyLock<Vec<(&str, Vec<&str>)>> = LazyLock::new(|| {
        let sets = SETS.split("\n\n").filter_map(|paragraph| {
            let mut words = paragraph.split_whitespace();
            let name = words.next().filter(|name| name.starts_with('@'))?;
            Some((name, words.collect()))
        });
        sets.collect()
    });
    READ.iter()
}

/// Calls by their numbers on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calls {
    /// No others are permitted.
    Only(BTreeSet<i64>),
    /// All others are permitted.
    AllBut(BTreeSet<i64>),
}

/// The calls that these words come to, as systemd has it for SystemCallFilter=: the first says whether it is
/// a list of what is permitted or of what is forbidden, those after it add and remove. Where only some
/// are permitted, those of `@default` are, too: no program runs without them. `None` if there are no words.
pub fn resolve(terms: &[Term]) -> Option<Calls> {
    let first = terms.first()?;
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for term in terms {
        let mut calls = BTreeSet::new();
        collect(&term.name, &mut calls);
        match term.is_denied == first.is_denied {
            true => named.append(&mut calls),
            false => named.retain(|call| !calls.contains(call)),
        }
    }
    if !first.is_denied {
        collect("@default", &mut named);
    }
    let numbers = named.into_iter().filter_map(number).collect();
    Some(match first.is_denied {
        true => Calls::AllBut(numbers),
        false => Calls::Only(numbers),
    })
}

/// Whether this call is permitted by its own name, and not in a set. The last word about it counts.
pub fn permits_by_name(terms: &[Term], call: &str) -> bool {
    let last = terms.iter().rfind(|term| term.name == call);
    last.is_some_and(|term| !term.is_denied)
}

/// The numbers of the calls of a set.
pub fn numbers_of(set: &str) -> BTreeSet<i64> {
    let mut calls = BTreeSet::new();
    collect(set, &mut calls);
    calls.into_iter().filter_map(number).collect()
}

fn collect<'t>(name: &'t str, calls: &mut BTreeSet<&'t str>) {
    if !name.starts_with('@') {
        calls.insert(name);
        return;
    }
    // No set has itself in it, which a test holds.
    for (_, members) in sets().filter(|(set, _)| *set == name) {
        for member in members {
            collect(member, calls);
        }
    }
}
