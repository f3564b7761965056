//! The tables of keys.

use super::reading::{load, shown};
use listend::config::keys;
use listend::report::Kind;

/// The decoder reads every key of the tables: a value that fits nothing is refused at each.
#[test]
fn the_tables_of_keys_and_the_decoder_agree() {
    for (table, path) in [
        (keys::TOP, "{KEY}: [[x]]\n"),
        (keys::LISTENER, "listeners: {a: {KEY: [[x]]}}\n"),
        (keys::WORKER, "workers: {a: {KEY: [[x]]}}\n"),
        (keys::RESTART, "workers: {a: {restart: {KEY: [[x]]}}}\n"),
        (keys::ROLLOUT, "workers: {a: {rollout: {KEY: [[x]]}}}\n"),
        (keys::SANDBOX, "workers: {a: {sandbox: {KEY: [[x]]}}}\n"),
        (
            keys::IDLE_UNLESS,
            "workers: {a: {idle_unless: {KEY: [[x]]}}}\n",
        ),
        (keys::FORWARD, "workers: {a: {forward: {KEY: [[x]]}}}\n"),
        (keys::INSTANCES, "workers: {a: {instances: {KEY: [[x]]}}}\n"),
        (keys::HOOK, "workers: {a: {after_stop: {KEY: [[x]]}}}\n"),
    ] {
        for key in table {
            let text = path.replace("{KEY}", "KEY").replace("KEY", key.name);
            let loaded = load(&text);
            let column = text.find("[[").unwrap() + 1;
            let hit = loaded.report.errors.iter().any(|problem| {
                let at = problem.place.unwrap().column as usize;
                problem.kind == Kind::WrongType && (column..column + 3).contains(&at)
            });
            assert!(hit, "{}: {}", key.name, shown(&loaded));
        }
    }
}
