//! Commands: a worker's own, and those around the life of its instances.

use super::complaint::{Complaint, Out};
use super::decode::{Fields, read_template, text, texts};
use super::keys;
use super::life::Hook;
use super::model::{Located, Template};
use super::scalar;
use super::template::Mention;
use super::worker::DraftWorker;
use super::yaml::{Content, Node};
use crate::report::{Kind, Place};
use std::time::Duration;

/// How long a command around an instance's life may take, unless it says otherwise.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a worker's `command:`.
pub(super) fn of_worker(node: &Node, draft: &mut DraftWorker, out: &mut Out) {
    let whose = format!("worker `{}`", draft.worker.name.value);
    let Some(words) = words(node, "command", &whose, out) else {
        return;
    };
    for word in &words {
        let (value, mentions) = whole_or_part(word, node, out);
        draft.mentions.extend(mentions);
        let place = word.place;
        draft.worker.command.push(Located { value, place });
    }
}

/// Reads a command that runs beside an instance: the words alone, or a mapping of them and a
/// timeout. What is wrong is filed.
pub(super) fn hook(
    node: &Node,
    key: &'static str,
    mentions: &mut Vec<(Place, Mention)>,
    out: &mut Out,
) -> Option<Hook> {
    let whose = format!("`{key}`");
    let Content::Map(_) = &node.content else {
        let command = hook_words(node, key, &whose, mentions, out)?;
        let timeout = HOOK_TIMEOUT;
        return Some(Hook { command, timeout });
    };
    let mut fields = Fields::open(node, keys::HOOK, &whose, &[], out)?;
    let command = match fields.take("command") {
        Some(node) => hook_words(node, key, &whose, mentions, out),
        None => {
            let complaint = Complaint::new(Kind::MissingKey, format!("{whose} has no `command`"));
            let complaint = complaint.hint("add `command: [/path/to/program, argument]`");
            out.add(complaint.at(node.place));
            None
        }
    };
    let timeout = fields.read("timeout", out, |text| timeout(key, text));
    fields.finish();
    Some(Hook {
        command: command?,
        timeout: timeout.map_or(HOOK_TIMEOUT, |timeout| timeout.value),
    })
}

fn timeout(key: &str, text: &str) -> Result<Duration, Complaint> {
    let usage = "write the longest time that it may take, like `5m`; the default is `30s`";
    let waits = match key {
        "before_start" => "a start",
        "after_stop" => "the next start",
        "reload_command" => "a reload",
        _ => "the end of listend",
    };
    match text {
        "infinity" | "unlimited" | "never" | "none" | "forever" | "inf" | "off" => {
            Err(Complaint::bad(format!(
                "`timeout` of `{key}` cannot be `{text}`: {waits} could hang for ever"
            ))
            .hint(usage))
        }
        _ => match scalar::duration("timeout", text)? {
            Duration::ZERO => Err(Complaint::bad(format!(
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
    whose: &str,
    mentions: &mut Vec<(Place, Mention)>,
    out: &mut Out,
) -> Option<Vec<Template>> {
    let words = words(node, key, whose, out)?;
    let mut command = Vec::with_capacity(words.len());
    for word in &words {
        // What units of systemd have there.
        if key == "reload_command" && word.value == "$MAINPID" {
            let complaint = Complaint::bad("`reload_command`: `$MAINPID` means nothing here");
            let complaint = complaint.hint("write `reload_signal: SIGHUP` instead of a command");
            out.add(complaint.at(word.place));
        }
        let (template, found) = whole_or_part(word, node, out);
        for (place, mention) in found {
            if mention.what == "fd" {
                out.add(no_descriptor(whose, &mention).at(place));
            } else {
                mentions.push((place, mention));
            }
        }
        command.push(template);
    }
    Some(command)
}

fn no_descriptor(whose: &str, mention: &Mention) -> Complaint {
    let name = &mention.socket.listener;
    Complaint::new(
        Kind::BadTemplate,
        format!("{whose} gets no listeners, so `{name}` has no descriptor in it"),
    )
    .hint(format!(
        "write `{{address:{name}}}` for what it is bound to"
    ))
}

/// The words of a command: a list, or a string that is split as a shell would. `None` is filed.
fn words(node: &Node, key: &str, whose: &str, out: &mut Out) -> Option<Vec<Located<String>>> {
    let mut complete = true;
    let words: Vec<Located<String>> = match &node.content {
        Content::Null { .. } => return None, // Reported as a key without a value.
        Content::List(items) => {
            let words = texts(node, key, out);
            complete = words.len() == items.len();
            words
        }
        _ => split(text(node, key, out)?, node, key, out)?,
    };
    if complete && words.first().is_none_or(|word| word.value.is_empty()) {
        let place = words.first().map_or(node.place, |word| word.place);
        let complaint = Complaint::new(
            Kind::EmptyCommand,
            format!("the command of {whose} is empty"),
        );
        let complaint = complaint.hint("write the program first, like `[/usr/bin/app, --serve]`");
        out.add(complaint.at(place));
        return None;
    }
    Some(words)
}

fn split(text: &str, node: &Node, key: &str, out: &mut Out) -> Option<Vec<Located<String>>> {
    let place = node.place;
    let Some(words) = shlex::split(text) else {
        let complaint = Complaint::bad(format!(
            "`{key}` ends inside of quotes or behind a backslash"
        ));
        let complaint = complaint.hint("close the quotes, or write the command as a list of words");
        out.add(complaint.at(place));
        return None;
    };
    let words = words.into_iter().map(|value| Located { value, place });
    Some(words.collect())
}

/// A word's template, and where it names listeners. Words that were split out of one string are
/// shown by the whole string.
fn whole_or_part(
    word: &Located<String>,
    node: &Node,
    out: &mut Out,
) -> (Template, Vec<(Place, Mention)>) {
    let mut found = Vec::new();
    let template = read_template(&word.value, word.place, &mut found, out);
    if !matches!(node.content, Content::List(_)) {
        for (place, _) in &mut found {
            *place = word.place;
        }
    }
    (template, found)
}
