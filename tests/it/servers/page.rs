//! `docs/servers.md`: a row for each recipe, of which a run replaces those that it has seen.

use super::recipe::{Kind, Recipe, others, recipes};
use super::trial::{Losses, Outcome};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const HEAD: &str = "| server | from | version | handoff | tcp | unix | udp | ready | stop signal | lost in rolling restarts | lost in kills | last passed |
|---|---|---|---|---|---|---|---|---|---|---|---|
";
const BEGIN: &str = "<!-- servers -->\n";
const END: &str = "<!-- end -->\n";

pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/servers.md")
}

fn parts(text: &str) -> (&str, &str, &str) {
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (table, after) = rest.split_once(END).expect("where the table ends");
    (before, table, after)
}

/// The rows that there are, by the name of the server.
pub fn rows() -> BTreeMap<String, String> {
    let text = fs::read_to_string(path()).expect("docs/servers.md");
    let (_, table, _) = parts(&text);
    let rows = table.lines().skip(2).filter_map(|line| {
        let name = line.split('|').nth(1)?.trim();
        Some((name.to_owned(), format!("{line}\n")))
    });
    rows.collect()
}

/// Puts this row in, and takes those out that have no recipe. Several processes may do so at a time.
pub fn put(name: &str, row: &str) {
    let lock = fs::File::open(path()).expect("docs/servers.md");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("flock");
    let text = fs::read_to_string(path()).expect("docs/servers.md");
    let (before, _, after) = parts(&text);
    let mut rows = rows();
    rows.insert(name.to_owned(), row.to_owned());
    let recipes = recipes();
    rows.retain(|name, _| recipes.contains_key(name));
    let rows: String = rows.into_values().collect();
    let (first, _) = after
        .split_once("<!-- others -->\n")
        .expect("where the others are");
    let others: String = others()
        .iter()
        .map(|(name, why)| format!("- {name}: {why}\n"))
        .collect();
    let text = format!("{before}{BEGIN}{HEAD}{rows}{END}{first}<!-- others -->\n{others}");
    // In place: the lock is on the file.
    fs::write(path(), text).expect("write docs/servers.md");
}

/// The row of a server that has passed.
pub fn row(name: &str, version: &str, recipe: &Recipe, outcome: &Outcome) -> String {
    let has = |kind| match recipe.sockets.contains(&kind) {
        true => "yes",
        false => "–",
    };
    let ready = match recipe.is_per_connection() {
        true => "–".to_owned(),
        false => recipe
            .key("ready")
            .unwrap_or_else(|| "accepting".to_owned()),
    };
    let ready = if ready == "started" {
        "–".to_owned()
    } else {
        ready
    };
    let signal = match recipe.is_per_connection() {
        true => "–".to_owned(),
        false => recipe
            .key("stop_signal")
            .unwrap_or_else(|| "SIGTERM".to_owned()),
    };
    let cells = [
        name.to_owned(),
        recipe.from.words(),
        version.to_owned(),
        recipe.dialect(),
        has(Kind::Tcp).to_owned(),
        has(Kind::Unix).to_owned(),
        has(Kind::Udp).to_owned(),
        ready,
        signal,
        lost(&outcome.restarts),
        lost(&outcome.kills),
        today(),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn lost(losses: &Losses) -> String {
    let counts = &losses.counts;
    let kinds = [
        (counts.refused, "refused"),
        (counts.reset, "reset"),
        (counts.short, "short"),
        (counts.timed_out, "timed out"),
        (counts.wrong, "wrong"),
        (counts.others, "others"),
    ];
    let words = kinds.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = words
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    match words.is_empty() {
        true => format!("0 in {}", losses.rounds),
        false => format!("{} in {}", words.join(", "), losses.rounds),
    }
}

fn today() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}
