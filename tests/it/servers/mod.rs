//! Real servers below listend, as docs/servers.md has them: a recipe for each in tests/servers/recipes.
//!
//! What is installed is tried with LISTEND_TEST_LONG; scripts/server-setup installs. Further variables:
//! LISTEND_SERVERS=NAME,… tries these alone, LISTEND_SERVERS_SECONDS=N is for how long each is restarted,
//! and LISTEND_SERVERS_MD=write replaces the rows of docs/servers.md of those that have passed.

mod page;
mod recipe;
mod trial;

use crate::harness::skip;
use recipe::{Recipe, recipes};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// They run beside each other.
const SHARDS: usize = 4;

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

fn shard(number: usize) {
    if std::env::var_os("LISTEND_TEST_LONG").is_none() {
        return;
    }
    let wanted = std::env::var("LISTEND_SERVERS").ok();
    let is_wanted = |name: &str| {
        let wanted = wanted.as_deref();
        wanted.is_none_or(|names| names.split(',').any(|one| one == name))
    };
    let all = recipes().into_iter().filter(|(name, _)| is_wanted(name));
    let ours = all.skip(number).step_by(SHARDS);
    let failed: Vec<String> = ours
        .filter(|(name, recipe)| !is_right(name, recipe))
        .map(|(name, _)| name)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn servers_take_their_sockets_0() {
    shard(0);
}

#[test]
fn servers_take_their_sockets_1() {
    shard(1);
}

#[test]
fn servers_take_their_sockets_2() {
    shard(2);
}

#[test]
fn servers_take_their_sockets_3() {
    shard(3);
}

// A recipe that nobody has seen to pass is not a recipe.
#[test]
fn the_page_has_a_row_for_each_recipe() {
    let rows: Vec<String> = page::rows().into_keys().collect();
    let recipes: Vec<String> = recipes().into_keys().collect();
    assert_eq!(rows, recipes, "run with LISTEND_SERVERS_MD=write");
    assert!(recipes.len() >= 60, "{}", recipes.len());
}
