//! Socket options by their table, and the other keys of a listener that are not plain values.

use super::address_local::normalise;
use super::decode::{Fields, account, text, texts, wrong_type};
use super::model::{Grantee, Listener, Multicast, Presence};
use super::options::{OPTIONS, OptionSetting, OptionSpec, OptionValue, ValueKind};
use super::scalar;
use super::value_error::{Diagnostics, ValueError};
use super::values::Located;
use super::yaml::Content;
use crate::report::{Place, nearest};
use foldhash::{HashMap, HashMapExt};
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Reads every option of the table that is there.
pub(super) fn options(fields: &mut Fields, listener: &mut Listener, out: &mut Diagnostics) {
    for spec in OPTIONS {
        let Some(node) = fields.take(spec.key) else {
            continue;
        };
        if !matches!(node.content, Content::Scalar(_)) {
            let value_error = wrong_type(&format!("`{}`", spec.key), "a single value", node);
            out.add(with_accepted(value_error, spec).at(node.place));
            continue;
        }
        let Some(text) = text(node, spec.key, out) else {
            continue;
        };
        let value = value(spec, text).map_err(|value_error| with_accepted(value_error, spec));
        if let Some(value) = out.check(node.place, value) {
            listener.options.push(Located {
                value: OptionSetting { spec, value },
                place: node.place,
            });
        }
    }
}

fn value(spec: &OptionSpec, text: &str) -> Result<OptionValue, ValueError> {
    let key = spec.key;
    let within = |number: Option<i64>, min: i64, max: i64| {
        number
            .filter(|number| (min..=max).contains(number))
            .map(OptionValue::Number)
            .ok_or_else(|| ValueError::bad(format!("`{key}`: `{text}` is not allowed")))
    };
    match spec.value {
        ValueKind::Flag => scalar::boolean(key, text).map(OptionValue::Flag),
        ValueKind::Number(min, max) => {
            scalar::integer(key, text, min, max).map(OptionValue::Number)
        }
        ValueKind::Size(min, max) => {
            let bytes = scalar::size(key, text).ok();
            within(bytes.and_then(|bytes| i64::try_from(bytes).ok()), min, max)
        }
        ValueKind::Seconds(min, max) => {
            let time = scalar::duration(key, text)?;
            let whole = time.subsec_nanos() == 0;
            within(
                i64::try_from(time.as_secs()).ok().filter(|_| whole),
                min,
                max,
            )
        }
        ValueKind::Milliseconds(min, max) => {
            let time = scalar::duration(key, text)?;
            within(i64::try_from(time.as_millis()).ok(), min, max)
        }
        ValueKind::Text(most) if is_word(text, most) => Ok(OptionValue::Text(text.to_owned())),
        ValueKind::Text(_) => Err(ValueError::bad(format!(
            "`{key}`: `{text}` cannot be a name"
        ))),
        ValueKind::Choice(words) => match words.iter().find(|(word, _)| *word == text) {
            Some((_, number)) => Ok(OptionValue::Number(*number)),
            None => {
                let meant = nearest(text, words.iter().map(|(word, _)| *word));
                let hint = meant.map(|word| format!("did you mean `{word}`?"));
                Err(ValueError::bad(format!("`{key}`: unknown value `{text}`")).maybe_hint(hint))
            }
        },
    }
}

/// Whether the kernel can take the text as the name of an interface or of an algorithm.
fn is_word(text: &str, most: usize) -> bool {
    !text.is_empty()
        && text.len() <= most
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "/:".contains(c))
}

/// Adds which values the option takes, unless the message says it already.
fn with_accepted(mut value_error: ValueError, spec: &OptionSpec) -> ValueError {
    let accepted = accepted(spec.value);
    if !value_error.message.contains(&accepted) {
        value_error.hint = Some(match value_error.hint {
            Some(hint) if hint.ends_with('?') => format!("{hint} It takes {accepted}"),
            Some(hint) => format!("{hint}; it takes {accepted}"),
            None => format!("it takes {accepted}"),
        });
    }
    value_error
}

/// The values of an option in words.
fn accepted(value: ValueKind) -> String {
    match value {
        ValueKind::Flag => "`true` or `false`".to_owned(),
        ValueKind::Number(min, max) => format!("a whole number from {min} to {max}"),
        ValueKind::Size(min, max) => format!(
            "a size from {min} to {max} bytes; `K`, `M` and `G` are powers of 1024, like `64K`"
        ),
        ValueKind::Seconds(min, max) => {
            format!("a duration in whole seconds, from `{min}s` to `{max}s`")
        }
        ValueKind::Milliseconds(min, max) => format!("a duration from `{min}ms` to `{max}ms`"),
        ValueKind::Text(most) => {
            format!("a name of 1 to {most} bytes, without blanks, `/` and `:`")
        }
        ValueKind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            super::fitting::listed(&words, "or")
        }
    }
}

/// Reads the owner and group of created directories: two keys, one of which may have both.
pub(super) fn directory(fields: &mut Fields, listener: &mut Listener, out: &mut Diagnostics) {
    let owner = fields.read("directory_owner", out, |key, text| {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = account(key, user)?;
        let group = group.map(|group| account(key, group));
        Ok((user, group.transpose()?))
    });
    listener.directory_group = fields.read("directory_group", out, account).into_boxed();
    let Some(Located { value, place }) = owner.into_set() else {
        return;
    };
    let (user, group) = value;
    listener.directory_owner = Some(Box::new(Located { value: user, place }));
    match (group, &listener.directory_group) {
        (Some(_), Some(other)) => {
            let value_error =
                ValueError::bad("`directory_owner` and `directory_group` both set a group")
                    .hint("delete one of them");
            out.add(value_error.at(other.place).with_related(place, "the other"));
        }
        (Some(value), None) => {
            listener.directory_group = Some(Box::new(Located { value, place }));
        }
        (None, _) => {}
    }
}

/// An absolute path that is not a folder's.
fn absolute(key: &str, text: &str, example: &str) -> Result<PathBuf, ValueError> {
    let complain = |why: &str| {
        ValueError::bad(format!("`{key}`: `{text}` {why}"))
            .hint(format!("write an absolute path, like `{example}`"))
    };
    if !text.starts_with('/') {
        return Err(complain("is not absolute"));
    }
    if text.ends_with('/') || text.ends_with("/.") || text.ends_with("/..") {
        return Err(complain("is a directory"));
    }
    if text.len() > 4095 {
        return Err(complain("is longer than 4095 bytes"));
    }
    Ok(PathBuf::from(normalise(text)))
}

/// `symlinks:`, each once.
pub(super) fn symlinks(fields: &mut Fields, listener: &mut Listener, out: &mut Diagnostics) {
    listener.symlinks = each_once(fields, "symlinks", out, |text| {
        absolute("symlinks", text, "/run/app/other.sock")
    });
}

/// `multicast:`, each group once.
pub(super) fn multicast(fields: &mut Fields, listener: &mut Listener, out: &mut Diagnostics) {
    listener.multicast = each_once(fields, "multicast", out, group);
}

/// `grant:`, each once.
pub(super) fn grant(fields: &mut Fields, listener: &mut Listener, out: &mut Diagnostics) {
    listener.grant = each_once(fields, "grant", out, |text| {
        match text.strip_prefix("group:") {
            Some(group) => account("grant", group).map(Grantee::Group),
            None => account("grant", text).map(Grantee::User),
        }
        .map_err(|wrong| wrong.hint("write a user, like `deploy`, or a group, like `group:web`"))
    });
}

/// The values of a list, of which each may stand there once.
fn each_once<T: Clone + Eq + Hash>(
    fields: &mut Fields,
    key: &'static str,
    out: &mut Diagnostics,
    parse: impl Fn(&str) -> Result<T, ValueError>,
) -> Vec<Located<T>> {
    let Some(node) = fields.take(key) else {
        return Vec::new();
    };
    let mut values = Vec::new();
    let mut seen = HashMap::new();
    for Located { value: text, place } in texts(node, key, out) {
        let Some(value) = out.check(place, parse(&text)) else {
            continue;
        };
        match seen.entry(value.clone()) {
            Entry::Vacant(free) => {
                free.insert(place);
                values.push(Located { value, place });
            }
            Entry::Occupied(first) => {
                let value_error = ValueError::bad(format!("`{text}` occurs twice in `{key}`"));
                let problem = value_error.hint("delete one of them").at(place);
                out.add(problem.with_related(*first.get(), "first written here"));
            }
        }
    }
    values
}

fn group(text: &str) -> Result<Multicast, ValueError> {
    let usage = "write a group, like `239.1.2.3`, `239.1.2.3%eth0` or `ff02::1%eth0`";
    let (address, interface) = match text.split_once('%') {
        Some((address, interface)) => (address, Some(interface)),
        None => (text, None),
    };
    let Ok(group) = address.parse::<IpAddr>() else {
        return Err(
            ValueError::bad(format!("`multicast`: `{address}` is not an address")).hint(usage),
        );
    };
    if !group.is_multicast() {
        return Err(ValueError::bad(format!(
            "`multicast`: `{address}` is not a multicast address"
        ))
        .hint(format!(
            "{usage}; groups are 224.0.0.0 to 239.255.255.255, and ff00::/8"
        )));
    }
    if let Some(interface) = interface
        && let Err(why) = scalar::interface(interface)
    {
        return Err(ValueError::bad(format!(
            "`multicast`: `{interface}` is not an interface: {why}"
        ))
        .hint(usage));
    }
    Ok(Multicast {
        group,
        interface: interface.map(str::to_owned),
    })
}

/// Reads `network_namespace:`.
pub(super) fn network_namespace(
    fields: &mut Fields,
    listener: &mut Listener,
    out: &mut Diagnostics,
) {
    let namespace = fields.read("network_namespace", out, |key, text| {
        let example = match text {
            "" => "/run/netns/blue".to_owned(),
            name if name.contains('/') => "/run/netns/blue".to_owned(),
            name => format!("/run/netns/{name}"),
        };
        absolute(key, text, &example)
    });
    listener.network_namespace = namespace.into_boxed();
}

/// `optional:` and `wait_for_address:`; the place of the latter, if it is in force.
pub(super) fn presence(
    fields: &mut Fields,
    listener: &mut Listener,
    out: &mut Diagnostics,
) -> Option<Place> {
    let optional = fields.read("optional", out, scalar::boolean);
    let wait = fields.read(
        "wait_for_address",
        out,
        |key, text| match scalar::duration(key, text)? {
            Duration::ZERO => Err(ValueError::bad("`wait_for_address` cannot be 0")
                .hint("write a duration, like `30s`, or delete the key")),
            time => Ok(time),
        },
    );
    let optional = optional.into_set().filter(|optional| optional.value);
    let wait = wait.into_set();
    match (&optional, &wait) {
        (Some(optional), Some(wait)) => {
            let value_error = ValueError::bad(
                "`wait_for_address` and `optional` both say what happens without the address",
            );
            let value_error = value_error.hint("delete one of them; `optional` retries as well");
            out.add(
                value_error
                    .at(wait.place)
                    .with_related(optional.place, "the other"),
            );
            return None;
        }
        (Some(_), None) => listener.presence = Presence::Optional,
        (None, Some(wait)) => listener.presence = Presence::WaitFor(wait.value),
        (None, None) => {}
    }
    wait.map(|wait| wait.place)
}
