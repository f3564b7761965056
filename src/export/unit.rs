//! A unit file in the making, and how values stand in one (systemd.syntax(7)).

use crate::config::Rate;
use std::fmt::Write;
use std::time::Duration;

/// The section of what a service is started with.
pub(super) const SERVICE: &str = "Service";

/// A unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The name of the file.
    pub name: String,
    remarks: Vec<String>,
    sections: Vec<(&'static str, Vec<(String, String)>)>,
}

impl Unit {
    pub(super) fn new(name: String) -> Unit {
        Unit {
            name,
            remarks: Vec::new(),
            sections: Vec::new(),
        }
    }

    /// Adds an assignment.
    pub(super) fn set(&mut self, section: &'static str, key: &str, value: impl Into<String>) {
        let entry = (key.to_owned(), value.into());
        match self.sections.iter_mut().find(|(name, _)| *name == section) {
            Some((_, entries)) => entries.push(entry),
            None => self.sections.push((section, vec![entry])),
        }
    }

    /// Says what has no directive, and why.
    pub(super) fn lacks(&mut self, what: &str, why: &str) {
        self.remark(&format!("not translated: {what}: {why}"));
    }

    /// Adds a comment.
    pub(super) fn remark(&mut self, text: &str) {
        // A line break would end the comment.
        let text = text.replace(['\n', '\r'], " ");
        if !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }

    /// The content of the file.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for remark in &self.remarks {
            // Writing to a String does not fail.
            let _written = writeln!(out, "# {remark}");
        }
        for (section, entries) in &self.sections {
            let _written = write!(out, "\n[{section}]\n");
            for (key, value) in entries {
                let _written = writeln!(out, "{key}={value}");
            }
        }
        out
    }
}

/// A time: `45`, `1500ms`, `infinity`.
pub(super) fn span(time: Option<Duration>) -> String {
    match time {
        None => "infinity".to_owned(),
        Some(time) if time.subsec_millis() == 0 => time.as_secs().to_string(),
        Some(time) => format!("{}ms", time.as_millis()),
    }
}

pub(super) fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// A limit of events as two directives: interval and burst.
pub(super) fn rate(limit: Option<Rate>) -> [String; 2] {
    match limit {
        None => ["0".to_owned(), "0".to_owned()],
        Some(rate) => [span(Some(rate.interval)), rate.count.to_string()],
    }
}

/// A `%` that is no specifier.
pub(super) fn plain(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word, in quotes where it needs some.
pub(super) fn quoted(text: &str) -> String {
    let text = plain(text);
    let is_bare =
        |letter: char| letter.is_alphanumeric() || "-_./:=@+,%~[]{}^!*?&|<>()$".contains(letter);
    if !text.is_empty() && text.chars().all(is_bare) {
        return text;
    }
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            letter if letter.is_ascii_control() => {
                let _written = write!(out, "\\x{:02x}", u32::from(letter));
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}
