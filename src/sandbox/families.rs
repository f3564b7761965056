//! `restrict_address_families:` → the kinds of sockets that may be made.

use nix::libc;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// A kind of socket (address_families(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// The families of the worker's listeners. A resolved plan has none left.
    Inherited,
    /// By its number.
    Number(i32),
}

/// The families that servers and attackers use; others are written as numbers.
const NAMES: &[(&str, i32)] = &[
    ("AF_UNIX", libc::AF_UNIX),
    ("AF_INET", libc::AF_INET),
    ("AF_INET6", libc::AF_INET6),
    ("AF_NETLINK", libc::AF_NETLINK),
    ("AF_PACKET", libc::AF_PACKET),
    ("AF_KEY", libc::AF_KEY),
    ("AF_RDS", libc::AF_RDS),
    ("AF_PPPOX", libc::AF_PPPOX),
    ("AF_CAN", libc::AF_CAN),
    ("AF_TIPC", libc::AF_TIPC),
    ("AF_BLUETOOTH", libc::AF_BLUETOOTH),
    ("AF_ALG", libc::AF_ALG),
    ("AF_VSOCK", libc::AF_VSOCK),
    ("AF_QIPCRTR", 42),
    ("AF_SMC", 43),
    ("AF_XDP", libc::AF_XDP),
];

/// The word for what is inherited.
const INHERITED: &str = "inherited";

impl Family {
    /// Every word that can be written.
    pub fn words() -> impl Iterator<Item = &'static str> + Clone {
        std::iter::once(INHERITED).chain(NAMES.iter().map(|(name, _)| *name))
    }

    /// The family of this word.
    pub fn from_word(word: &str) -> Option<Family> {
        if word == INHERITED {
            return Some(Family::Inherited);
        }
        let known = NAMES.iter().find(|(name, _)| *name == word);
        let number = known.map(|(_, number)| *number);
        number.or_else(|| word.parse().ok()).map(Family::Number)
    }

    pub(crate) fn of(word: &str) -> Family {
        Family::from_word(word).unwrap_or(Family::Inherited)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Family::Inherited => to.write_str(INHERITED),
            Family::Number(number) => match NAMES.iter().find(|(_, one)| one == number) {
                Some((name, _)) => to.write_str(name),
                None => write!(to, "{number}"),
            },
        }
    }
}

/// The families that socket(2) takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Families {
    /// No others.
    Only(BTreeSet<Family>),
    /// All others.
    AllBut(BTreeSet<Family>),
}

impl Families {
    /// Puts these numbers in the place of what is inherited.
    pub fn settle(&mut self, inherited: &BTreeSet<i32>) {
        let (Families::Only(named) | Families::AllBut(named)) = self;
        if named.remove(&Family::Inherited) {
            named.extend(inherited.iter().copied().map(Family::Number));
        }
    }

    /// Whether a socket of this family can be made.
    pub fn permits(&self, number: i32) -> bool {
        match self {
            Families::Only(named) => named.contains(&Family::Number(number)),
            Families::AllBut(named) => !named.contains(&Family::Number(number)),
        }
    }
}

impl fmt::Display for Families {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tilde, named) = match self {
            Families::Only(named) => ("", named),
            Families::AllBut(named) => ("~", named),
        };
        if named.is_empty() {
            return to.write_str("none");
        }
        let words: Vec<String> = named.iter().map(|one| format!("{tilde}{one}")).collect();
        to.write_str(&words.join(" "))
    }
}
