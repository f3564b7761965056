//! What one listend has written, the next writes again.

use super::facts::Fact;
use super::{Past, Store, boot};
use crate::store::Journal;
use serde_json::Value;
use std::os::fd::OwnedFd;

const WHOLE: &str = include_str!("../../../tests/it/snapshot/format-1-whole.jsonl");

fn past(text: &str) -> Past {
    let mut journal = Journal::create().expect("a journal");
    journal.write_base(text.lines()).expect("a base");
    Past::of(OwnedFd::from(journal)).expect("it is whole")
}

#[test]
fn facts_are_written_as_they_were_read_with_fields_that_are_not_known() {
    let text = WHOLE.replace("BOOT", &boot());
    let past = past(&text);
    let mut store = Store {
        unknown_fields: past.unknown_fields,
        ..Store::default()
    };
    let sockets = past.sockets.into_iter().map(Fact::Socket);
    let processes = past.processes.into_iter();
    let processes = processes.map(|process| Fact::Process(Box::new(process)));
    let definitions = past.definitions.into_iter().map(Fact::Definition);
    let facts: Vec<Fact> = [Fact::Snapshot(Box::new(past.head))]
        .into_iter()
        .chain(sockets)
        .chain(processes)
        .chain(definitions)
        .chain(past.connections.into_iter().map(Fact::Connection))
        .chain(past.stored.into_iter().map(Fact::Stored))
        .collect();
    let value = |line: &str| -> Value { serde_json::from_str(line).expect("JSON") };
    let lines: Vec<Value> = text.lines().map(value).collect();
    for fact in &facts {
        let written = value(&store.text(fact));
        assert!(lines.contains(&written), "{written}");
    }
    assert_eq!(value(&store.text(&facts[0]))["colour"], "red");
    assert_eq!(
        past.unknown,
        [r#"{"kind":"weather","key":"tomorrow","rain":true}"#]
    );
    // What is gone is told of no other.
    store.gone(facts[0].key());
    assert_eq!(value(&store.text(&facts[0]))["colour"], Value::Null);
}
