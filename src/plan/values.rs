//! Short values in the notation of the configuration, for lines that say old → new.

use crate::config::{KillMode, OnFailure, Order, Rate, RestartPolicy};
use std::time::Duration;

/// `key old → new` where the two differ.
pub(super) fn changed<T: PartialEq>(
    key: &str,
    before: &T,
    after: &T,
    shown: impl Fn(&T) -> String,
) -> Option<String> {
    let (old, new) = (shown(before), shown(after));
    (before != after).then(|| format!("{key} {old} → {new}"))
}

/// What is not set, as `word`.
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

pub(super) fn policy(policy: &RestartPolicy) -> String {
    let word = match policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "never",
    };
    word.to_owned()
}

pub(super) fn kill_mode(mode: &KillMode) -> String {
    let word = match mode {
        KillMode::Process => "process",
        KillMode::Group => "group",
    };
    word.to_owned()
}

pub(super) fn on_failure(what: &OnFailure) -> String {
    let word = match what {
        OnFailure::Hold => "hold",
        OnFailure::Refuse => "refuse",
    };
    word.to_owned()
}

pub(super) fn order(order: &Order) -> String {
    let word = match order {
        Order::StartFirst => "start-first",
        Order::StopFirst => "stop-first",
    };
    word.to_owned()
}
