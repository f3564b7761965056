//! Short values in the notation of the configuration, for lines that say old → new.

use super::model::RuntimeDirectory;
use crate::config::{Output, Rate, Success, Template, signal_name};
use crate::launch_spec::{Credentials, Limit, Resource};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// `key old → new` where the two differ.
pub(super) fn changed<T: PartialEq>(
    key: &str,
    before: &T,
    after: &T,
    shown: impl Fn(&T) -> String,
) -> Option<String> {
    (before != after).then(|| format!("{key} {} → {}", shown(before), shown(after)))
}

/// So much of a long value is shown, in characters.
const LONGEST: usize = 60;

/// As [`changed`], for texts that may be long: a common beginning is left out.
pub(super) fn changed_text<T: PartialEq + ?Sized>(
    key: &str,
    before: &T,
    after: &T,
    text: impl Fn(&T) -> String,
) -> Option<String> {
    if before == after {
        return None;
    }
    let (before, after) = (&*text(before), &*text(after));
    // A placeholder, and text that looks like one.
    if before == after {
        return Some(key.to_owned());
    }
    let is_long = |text: &str| text.chars().count() > LONGEST;
    let same = match is_long(before) || is_long(after) {
        true => common_words(before, after),
        false => 0,
    };
    let shown = |text: &str| {
        let rest = text.get(same..).unwrap_or_default();
        let mut shown: String = rest.chars().take(LONGEST).collect();
        if rest.chars().count() > LONGEST {
            shown.push('…');
        }
        let start = if same > 0 { "… " } else { "" };
        format!("{start}{}", shown.replace(char::is_control, " "))
    };
    Some(format!("{key} {} → {}", shown(before), shown(after)))
}

/// The length of the common words at the start of both texts, in bytes, with the space behind them.
fn common_words(one: &str, other: &str) -> usize {
    let mut end = 0;
    for ((at, letter), other) in one.char_indices().zip(other.chars()) {
        match letter == other {
            true if letter == ' ' => end = at + 1,
            true => {}
            false => break,
        }
    }
    end
}

/// The words of a command, those with spaces in quotes.
pub(super) fn command(words: &[Template]) -> String {
    let quoted = |word: &Template| {
        let word = word.to_string();
        match word.is_empty() || word.contains(char::is_whitespace) {
            true => format!("'{word}'"),
            false => word,
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// `a b c`, or `none`.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items = items.into_iter().map(|item| item.to_string());
    let list = items.collect::<Vec<_>>().join(" ");
    match list.is_empty() {
        true => "none".to_owned(),
        false => list,
    }
}

/// Shows an optional value by `shown`, and one that is not set as `word`.
pub(super) fn or<T>(word: &str, shown: impl Fn(&T) -> String) -> impl Fn(&Option<T>) -> String {
    move |value| value.as_ref().map_or_else(|| word.to_owned(), &shown)
}

/// `1h30m`, `45s`, `500ms`, `0`.
pub(super) fn duration(value: &Duration) -> String {
    let mut left = value.as_millis();
    let mut text = String::new();
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ] {
        if left >= size {
            text.push_str(&format!("{}{unit}", left / size));
            left %= size;
        }
    }
    match text.is_empty() {
        true => "0".to_owned(),
        false => text,
    }
}

/// `10 in 3m`.
pub(super) fn rate(rate: &Rate) -> String {
    format!("{} in {}", rate.count, duration(&rate.interval))
}

/// A value that is one word in the configuration, where serde has the same word.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        // Only values that are one word come here.
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}

pub(super) fn output(output: &Output) -> String {
    match output {
        Output::File(path) => format!("file:{path}"),
        output => word(output),
    }
}

pub(super) fn success(ends: &[Success]) -> String {
    list(ends.iter().map(|end| match end {
        Success::Code(code) => code.to_string(),
        Success::Signal(number) => signal_name(*number),
    }))
}

pub(super) fn runtime_directory(folder: &RuntimeDirectory) -> String {
    let preserved = if folder.preserve { ", preserved" } else { "" };
    let path = folder.path();
    format!("{} (mode {:04o}{preserved})", path.display(), folder.mode)
}

/// The differences in user, group and supplementary groups.
pub(super) fn credentials(
    before: Option<&Credentials>,
    after: Option<&Credentials>,
) -> impl Iterator<Item = String> {
    const OWN: &str = "listend's own";
    let user = |one: Option<&Credentials>| match one {
        Some(one) if one.uid.is_some() => one.user.clone(),
        _ => OWN.to_owned(),
    };
    let id = |one: Option<&Credentials>| one.and_then(|one| one.uid);
    let group = |one: Option<&Credentials>| one.and_then(|one| one.gid);
    let groups = |one: Option<&Credentials>| one.and_then(|one| one.groups.clone());
    let other_user = (user(before), id(before)) != (user(after), id(after));
    let uid = |one| match (user(before) == user(after), id(one)) {
        (true, Some(uid)) => format!("{} (uid {uid})", user(one)),
        (true, None) | (false, _) => user(one),
    };
    let parts = [
        other_user.then(|| format!("user {} → {}", uid(before), uid(after))),
        changed(
            "group",
            &group(before),
            &group(after),
            or(OWN, u32::to_string),
        ),
        changed(
            "groups",
            &groups(before),
            &groups(after),
            or(OWN, |groups: &Vec<u32>| list(groups)),
        ),
    ];
    parts.into_iter().flatten()
}

/// The limits that differ, each with its old and its new value.
pub(super) fn limits(before: &[Limit], after: &[Limit]) -> impl Iterator<Item = String> {
    let of = |limits: &[Limit], resource| {
        let mut limits = limits.iter();
        limits.find(|limit| limit.resource == resource).copied()
    };
    let number =
        |value: Option<u64>| value.map_or("infinity".to_owned(), |value| value.to_string());
    let shown = move |limit: &Limit| match limit.soft == limit.hard {
        true => number(limit.soft),
        false => format!("{}:{}", number(limit.soft), number(limit.hard)),
    };
    let all = Resource::ALL.iter().copied();
    let parts = all.filter_map(move |resource| {
        let key = format!("limits.{}", resource.key());
        let (before, after) = (of(before, resource), of(after, resource));
        changed(&key, &before, &after, or("listend's own", shown))
    });
    parts.collect::<Vec<_>>().into_iter()
}
