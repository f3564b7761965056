//! Commands: a worker's own, and those around the life of its instances.

use super::decode::{Fields, default, read_with_dollars, text, texts};
use super::draft::DraftWorker;
use super::keys;
use super::life::Hook;
use super::scalar;
use super::template::{Dollar, Mention, is_variable};
use super::value_error::{Diagnostics, ValueError};
use super::values::{Located, Template};
use super::yaml::{Content, Node};
use crate::report::{Kind, Place};
use std::time::Duration;

/// Reads a worker's `command:`.
pub(super) fn of_worker(node: &Node, draft: &mut DraftWorker, out: &mut Diagnostics) {
    let whose = format!("worker `{}`", draft.worker.name.value);
    let Some(words) = words(node, "command", &whose, out) else {
        return;
    };
    let dollar = dollar(draft.worker.expand_environment);
    for (index, word) in words.iter().enumerate() {
        let (value, mentions) = whole_or_part(word, index, dollar, node, out);
        draft.mentions.extend(mentions);
        let place = word.place;
        draft.worker.command.push(Located { value, place });
    }
}

/// The meaning of a dollar in the commands of a worker.
pub(super) fn dollar(expand_environment: bool) -> Dollar {
    if expand_environment {
        Dollar::Variable
    } else {
        Dollar::Plain
    }
}

/// Reads a command that runs beside an instance: the words alone, or a mapping of them and a
/// timeout. What is wrong is filed.
pub(super) fn hook(
    node: &Node,
    key: &'static str,
    dollar: Dollar,
    mentions: &mut Vec<(Place, Mention)>,
    out: &mut Diagnostics,
) -> Option<Hook> {
    let whose = format!("`{key}`");
    let Content::Map(_) = &node.content else {
        let command = hook_words(node, key, dollar, mentions, out)?;
        let timeout = default_timeout(key);
        return Some(Hook { command, timeout });
    };
    let mut fields = Fields::open(node, keys::HOOK, &whose, &[], out)?;
    let command = match fields.take("command") {
        Some(node) => hook_words(node, key, dollar, mentions, out),
        None => {
            let value_error =
                ValueError::new(Kind::MissingKey, format!("{whose} has no `command`"));
            let value_error = value_error.hint("add `command: [/path/to/program, argument]`");
            out.add(value_error.at(node.place));
            None
        }
    };
    let timeout = fields.read("timeout", out, |_, text| timeout(key, text));
    fields.finish();
    Some(Hook {
        command: command?,
        timeout: timeout.value_or(default_timeout(key)),
    })
}

impl Hook {
    /// Whether it has the timeout of one that says nothing about it.
    pub fn has_default_timeout(&self) -> bool {
        self.timeout == default_timeout("timeout")
    }
}

fn default_timeout(key: &str) -> Duration {
    default(keys::HOOK, "timeout", |_, text| timeout(key, text))
}

fn timeout(key: &str, text: &str) -> Result<Duration, ValueError> {
    let usage = "write the longest time that it may take, like `5m`; the default is `30s`";
    let waits = match key {
        "before_start" => "a start",
        "after_stop" => "the next start",
        "reload_command" => "a reload",
        _ => "the end of listend",
    };
    match text {
        "infinity" | "unlimited" | "never" | "none" | "forever" | "inf" | "off" => {
            Err(ValueError::bad(format!(
                "`timeout` of `{key}` cannot be `{text}`: {waits} could hang for ever"
            ))
            .hint(usage))
        }
        _ => match scalar::duration("timeout", text)? {
            Duration::ZERO => Err(ValueError::bad(format!(
                "a `timeout` of 0 would kill the command of `{key}` at once"
            ))
            .hint(usage)),
            timeout => Ok(timeout),
        },
    }
}

fn hook_words(
    node: &Node,
    key: &str,
    dollar: Dollar,
    mentions: &mut Vec<(Place, Mention)>,
    out: &mut Diagnostics,
) -> Option<Vec<Template>> {
    let whose = format!("`{key}`");
    let words = words(node, key, &whose, out)?;
    let mut command = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        // What units of systemd have there.
        let is_plain = dollar == Dollar::Plain;
        if key == "reload_command" && word.value == "$MAINPID" && is_plain {
            let value_error = ValueError::bad("`reload_command`: `$MAINPID` means nothing here");
            let value_error = value_error.hint(
                "write `reload_signal: SIGHUP` instead of a command, or add \
                 `expand_environment: true`",
            );
            out.add(value_error.at(word.place));
        }
        let (template, found) = whole_or_part(word, index, dollar, node, out);
        for (place, mention) in found {
            if matches!(mention.what, "fd" | "fds") {
                out.add(no_descriptor(&whose, &mention).at(place));
            } else {
                mentions.push((place, mention));
            }
        }
        command.push(template);
    }
    Some(command)
}

fn no_descriptor(whose: &str, mention: &Mention) -> ValueError {
    let (named, name) = match &mention.socket {
        Some(socket) => (format!("`{}` has", socket.listener), &*socket.listener),
        None => ("there is".to_owned(), "NAME"),
    };
    ValueError::new(
        Kind::BadTemplate,
        format!("{whose} gets no listeners, so {named} no descriptor in it"),
    )
    .hint(format!(
        "write `{{address:{name}}}` for what it is bound to"
    ))
}

/// The words of a command: a list, or a string that is split as a shell would. `None` is filed.
fn words(
    node: &Node,
    key: &str,
    whose: &str,
    out: &mut Diagnostics,
) -> Option<Vec<Located<String>>> {
    let mut complete = true;
    let words: Vec<Located<String>> = match &node.content {
        Content::Null { .. } => return None, // Reported as a key without a value.
        Content::List(items) => {
            let words = texts(node, key, out);
            complete = words.len() == items.len();
            words
        }
        Content::Map(_) => {
            texts(node, key, out); // Files what it should be.
            return None;
        }
        _ => split(text(node, key, out)?, node, key, out)?,
    };
    if complete && words.first().is_none_or(|word| word.value.is_empty()) {
        let place = words.first().map_or(node.place, |word| word.place);
        let value_error = ValueError::new(
            Kind::EmptyCommand,
            format!("the command of {whose} is empty"),
        );
        let value_error =
            value_error.hint("write the program first, like `[/usr/bin/app, --serve]`");
        out.add(value_error.at(place));
        return None;
    }
    Some(words)
}

fn split(
    text: &str,
    node: &Node,
    key: &str,
    out: &mut Diagnostics,
) -> Option<Vec<Located<String>>> {
    let place = node.place;
    let Some(words) = shlex::split(text) else {
        let value_error =
            ValueError::bad(format!("`{key}` ends inside quotes or after a backslash"));
        let value_error =
            value_error.hint("close the quotes, or write the command as a list of words");
        out.add(value_error.at(place));
        return None;
    };
    if let Some(word) = words.iter().find(|word| is_for_a_shell(word)) {
        let value_error = ValueError::new(
            Kind::NoShell,
            format!("`{key}`: `{word}` is passed as an argument: no shell runs this"),
        );
        let value_error = value_error.hint(
            "write `[sh, -c, '…']` to use a shell; `before_start` runs another command first, and \
             `output` says where the output goes",
        );
        out.add(value_error.at(place));
    }
    let words = words.into_iter().map(|value| Located { value, place });
    Some(words.collect())
}

/// Whether a word of a command line means something to shells, and hardly anything to programs.
fn is_for_a_shell(word: &str) -> bool {
    let redirection = word.trim_start_matches(|letter: char| letter.is_ascii_digit());
    matches!(word, "&&" | "||" | "|" | ";" | "&" | "<")
        || word.starts_with("&>")
        || redirection.starts_with('>')
}

/// Advises on a variable that stays as it is written.
fn unexpanded(word: &Located<String>, out: &mut Diagnostics) {
    let name = word
        .value
        .strip_prefix('$')
        .filter(|name| is_variable(name));
    if let Some(name) = name
        && name != "MAINPID"
    {
        let value_error = ValueError::new(
            Kind::NoShell,
            format!("`${name}` is passed as an argument: no shell runs this"),
        );
        let value_error = value_error.hint(
            "write `expand_environment: true` to expand it as systemd does, or `[sh, -c, '…']`",
        );
        out.add(value_error.at(word.place));
    }
}

/// A word's template, and where it names listeners. Words that were split out of one string are
/// shown by the whole string.
fn whole_or_part(
    word: &Located<String>,
    index: usize,
    dollar: Dollar,
    node: &Node,
    out: &mut Diagnostics,
) -> (Template, Vec<(Place, Mention)>) {
    let mut found = Vec::new();
    // The program is what it is called, as systemd has it.
    let dollar = if index == 0 { Dollar::Plain } else { dollar };
    if dollar == Dollar::Plain && index > 0 {
        unexpanded(word, out);
    }
    let template = read_with_dollars(&word.value, dollar, word.place, &mut found, out);
    if !matches!(node.content, Content::List(_)) {
        for (place, _) in &mut found {
            *place = word.place;
        }
    }
    (template, found)
}
