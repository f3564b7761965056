//! `docs/servers.md`: a row for each recipe, of which a run replaces those that it has seen, and what follows
//! from the recipes.

use super::recipe::{Kind, Places, Recipe, others, recipes};
use super::trial::{Losses, Outcome};
use nix::fcntl::{Flock, FlockArg};
use serde_yaml::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const SERVERS: &str = "\
| server | from | version | preset | handoff | tcp | unix | udp | ready | stop signal | lost in restarts | lost in kills | last passed |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
";
const OTHERS: &str = "\
| server | from | tried | seen | why, and what to do |
|---|---|---|---|---|
";
/// The column with the losses in restarts, as `split('|')` counts.
const LOST: usize = 11;
const END: &str = "<!-- end -->\n";

pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/servers.md")
}

/// What is before, in and after the part of this name.
fn parts<'a>(text: &'a str, name: &str) -> (&'a str, &'a str, &'a str) {
    let begin = format!("<!-- {name} -->\n");
    let at = text.find(&begin).expect("where the part begins") + begin.len();
    let (before, rest) = text.split_at(at);
    let at = rest.find(END).expect("where the part ends");
    let (part, after) = rest.split_at(at);
    (before, part, after)
}

/// The rows that there are, by the name of the server.
pub fn rows() -> BTreeMap<String, String> {
    let text = fs::read_to_string(path()).expect("docs/servers.md");
    let (_, table, _) = parts(&text, "servers");
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
    let mut rows = rows();
    rows.insert(name.to_owned(), row.to_owned());
    // In place: the lock is on the file.
    fs::write(path(), written(&text, &rows)).expect("write docs/servers.md");
}

/// As a reader looks for them.
fn in_order<T>(all: &BTreeMap<String, T>) -> Vec<(&String, &T)> {
    let mut all: Vec<_> = all.iter().collect();
    all.sort_by_key(|(name, _)| name.to_lowercase());
    all
}

/// The page with these rows.
pub fn written(text: &str, rows: &BTreeMap<String, String>) -> String {
    let recipes = recipes();
    let mut rows = rows.clone();
    rows.retain(|name, _| recipes.contains_key(name));
    let table: String = in_order(&rows)
        .into_iter()
        .map(|(_, row)| row.as_str())
        .collect();
    let losses = in_order(&rows).into_iter().filter_map(|(name, row)| {
        let lost = row.split('|').nth(LOST)?.trim();
        let why = recipes[name].loses.as_ref()?;
        (!lost.starts_with("0 in ")).then(|| format!("- {name}: {why}\n"))
    });
    let workers: Vec<String> = in_order(&recipes)
        .into_iter()
        .map(|(name, recipe)| worker(name, recipe))
        .collect();
    let others = others();
    let others = in_order(&others).into_iter().map(|(name, other)| {
        let cells = [
            name,
            &other.from.words(),
            &other.tried,
            &other.seen,
            &other.why,
        ];
        format!("| {} |\n", cells.map(|cell| cell.as_str()).join(" | "))
    });
    let all = [
        ("servers", format!("{SERVERS}{table}")),
        ("losses", losses.collect()),
        ("workers", format!("```yaml\n{}```\n", workers.join("\n"))),
        ("others", format!("{OTHERS}{}", others.collect::<String>())),
    ];
    let put = |text: String, (name, part): (&str, String)| {
        let (before, _, after) = parts(&text, name);
        format!("{before}{part}{after}")
    };
    all.into_iter().fold(text.to_owned(), put)
}

/// The row of a server that has passed.
pub fn row(name: &str, version: &str, recipe: &Recipe, outcome: &Outcome) -> String {
    let has = |kind| match recipe.sockets.contains(&kind) {
        true => "yes",
        false => "–",
    };
    let setting = |name: &str| outcome.settings.get(name).cloned().unwrap_or_default();
    let of_instances = |name: &str| match recipe.is_per_connection() {
        true => "–".to_owned(),
        false => setting(name).replace("started", "–"),
    };
    let handoff = match setting("handoff").as_str() {
        _ if recipe.key("forward").is_some() => "forward".to_owned(),
        "systemd" | "none" if recipe.takes_numbers() => "number".to_owned(),
        other if recipe.is_per_connection() => format!("{other}, per connection"),
        other => other.to_owned(),
    };
    let cells = [
        name.to_owned(),
        recipe.from.words(),
        version.to_owned(),
        recipe.key("preset").unwrap_or_else(|| "–".to_owned()),
        handoff,
        has(Kind::Tcp).to_owned(),
        has(Kind::Unix).to_owned(),
        has(Kind::Udp).to_owned(),
        of_instances("ready"),
        of_instances("stop_signal"),
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

/// The worker of a recipe, a line for each key.
fn worker(name: &str, recipe: &Recipe) -> String {
    let Value::Mapping(worker) =
        Places::of_page(recipe).fill_value(&Value::Mapping(recipe.worker.clone()))
    else {
        unreachable!("a mapping is filled in as a mapping");
    };
    let keys = worker
        .iter()
        .map(|(key, value)| format!("  {}: {}\n", flow(key), flow(value)));
    let text: String = std::iter::once(format!("{}:\n", flow(&name.into())))
        .chain(keys)
        .collect();
    let read: BTreeMap<String, Value> = serde_yaml::from_str(&text).expect("YAML");
    assert_eq!(read[name], Value::Mapping(worker), "{text}");
    text
}

/// A value as people write it.
fn flow(value: &Value) -> String {
    match value {
        Value::Sequence(all) => {
            let all: Vec<String> = all.iter().map(flow).collect();
            format!("[{}]", all.join(", "))
        }
        Value::Mapping(all) => {
            let pair = |(key, value): (&Value, &Value)| format!("{}: {}", flow(key), flow(value));
            let all: Vec<String> = all.iter().map(pair).collect();
            format!("{{ {} }}", all.join(", "))
        }
        Value::String(text) => {
            let is_plain = serde_yaml::to_string(text).is_ok_and(|yaml| yaml.trim() == text)
                && !text.contains(['[', ']', '{', '}', ',', '#']);
            match is_plain {
                true => text.clone(),
                // A string of JSON is one of YAML.
                false => serde_json::to_string(text).expect("a string"),
            }
        }
        other => serde_yaml::to_string(other)
            .expect("YAML")
            .trim()
            .to_owned(),
    }
}
