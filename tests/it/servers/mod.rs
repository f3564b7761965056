//! Real servers below listend, as docs/servers.md has them: a recipe for each in tests/servers/recipes.
//!
//! What is installed is tried with LISTEND_TEST_LONG; scripts/server-setup installs. Further variables:
//! LISTEND_SERVERS=NAME,… tries these alone, LISTEND_SERVERS_AT_ONCE=N so many at a time,
//! LISTEND_SERVERS_ROUNDS=N restarts each N times, LISTEND_SERVERS_SECONDS=N not longer than this, and
//! LISTEND_SERVERS_MD=write replaces the rows of docs/servers.md of those that have passed.

mod page;
mod recipe;
pub(crate) mod source;
mod trial;

use crate::harness::skip;
use recipe::{Recipe, recipes};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

/// They run beside each other: most of the time each waits.
const AT_ONCE: usize = 6;

#[expect(clippy::print_stdout, reason = "shown by make test-all")]
fn told(text: &str) {
    println!("{text}");
}

/// Whether it is done as it should; skips what is not installed.
fn is_right(name: &str, recipe: &Recipe) -> bool {
    let Some(version) = recipe.version() else {
        let row = page::rows().remove(name);
        let last = row.as_deref().and_then(|row| row.trim().rsplit('|').nth(1));
        let last = last.map_or("never", str::trim);
        skip(&format!("{name} is not installed; it last passed: {last}"));
        return true;
    };
    let since = Instant::now();
    let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| trial::trial(recipe))) else {
        told(&format!("FAILED: {name} {version}"));
        return false;
    };
    let row = page::row(name, &version, recipe, &outcome);
    told(&format!(
        "{}   {:.1} s",
        row.trim(),
        since.elapsed().as_secs_f64()
    ));
    let lost = outcome.restarts.counts.failed();
    if lost > 0 && recipe.loses.is_none() {
        told(&format!(
            "FAILED: {name} {version}: {lost} lost in restarts"
        ));
        return false;
    }
    if std::env::var("LISTEND_SERVERS_MD").is_ok_and(|word| word == "write") {
        page::put(name, &row);
    }
    true
}

#[test]
fn servers_take_their_sockets() {
    if std::env::var_os("LISTEND_TEST_LONG").is_none() {
        return;
    }
    let wanted = std::env::var("LISTEND_SERVERS").ok();
    let is_wanted = |name: &str| {
        let wanted = wanted.as_deref();
        wanted.is_none_or(|names| names.split(',').any(|one| one == name))
    };
    let mut all = recipes();
    all.retain(|name, _| is_wanted(name));
    let at_once = std::env::var("LISTEND_SERVERS_AT_ONCE").ok();
    let at_once = at_once.and_then(|text| text.parse().ok());
    let queue = Mutex::new(all.into_iter());
    let failed = Mutex::new(Vec::new());
    let next = || queue.lock().expect("nobody panics with it").next();
    std::thread::scope(|scope| {
        for _ in 0..at_once.unwrap_or(AT_ONCE) {
            scope.spawn(|| {
                while let Some((name, recipe)) = next() {
                    if !is_right(&name, &recipe) {
                        failed.lock().expect("nobody panics with it").push(name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    assert!(failed.is_empty(), "{failed:?}");
}

// A recipe that nobody has seen to pass is not a recipe.
#[test]
fn the_page_is_that_of_the_recipes() {
    let rows: Vec<String> = page::rows().into_keys().collect();
    let recipes: Vec<String> = recipes().into_keys().collect();
    assert_eq!(rows, recipes, "run with LISTEND_SERVERS_MD=write");
    assert!(recipes.len() >= 60, "{}", recipes.len());
    let text = std::fs::read_to_string(page::path()).expect("docs/servers.md");
    assert_eq!(
        text,
        page::written(&text, &page::rows()),
        "run with LISTEND_SERVERS_MD=write"
    );
}
