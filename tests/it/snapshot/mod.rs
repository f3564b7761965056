//! Snapshots that a released listend has written are read for ever, and what cannot be true is refused.

mod whole;

use listend::config::{ConnectionLimits, Presence};
use listend::core::{
    Change, Core, Effect, ExitStatus, Input, InstanceId, Known, ListenerCondition, ListenerLife,
    Mono, ProcessId, Reading, Revision, Snapshot, State, WhenDone,
};
use listend::plan::{Activation, Lifecycle, ListenerId, WorkerId};
use serde_json::Value;
use std::collections::BTreeSet;

const FORMAT_1: &str = include_str!("format-1.jsonl");

/// What has to be known besides the snapshot: definitions as they come.
fn known(snapshot: &Snapshot) -> Known {
    let life = |worker: WorkerId| Lifecycle {
        activation: match worker.0 {
            1 => Activation::PerConnection(ConnectionLimits::NONE),
            2 => Activation::OnDemand { limit: None },
            _ => Activation::Eager,
        },
        ..Lifecycle::default()
    };
    let definitions = snapshot.definitions().into_iter();
    let listener = |id| {
        let users = vec![WorkerId(id)];
        let presence = Presence::Optional;
        (ListenerId(id), ListenerLife { presence, users })
    };
    Known {
        definitions: definitions.map(|of| (of, life(of.0).into())).collect(),
        listeners: (0..4).map(listener).collect(),
        former: Vec::new(),
        when_done: WhenDone::Hold,
    }
}

fn read(text: &str) -> Reading {
    Snapshot::read(text.lines()).expect("it is whole")
}

fn values<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
    let lines = lines.into_iter();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn instance(worker: u32, index: u32, generation: u32) -> InstanceId {
    InstanceId {
        worker: WorkerId(worker),
        index,
        generation,
    }
}

#[test]
fn a_snapshot_of_format_1_is_read() {
    let Reading { snapshot, others } = read(FORMAT_1);
    let kinds: Vec<&str> = others.iter().map(|(kind, _)| &**kind).collect();
    assert_eq!(kinds, ["snapshot", "name", "weather"]);
    let mut core = Core::thaw(&snapshot, known(&snapshot)).expect("it is thawed");

    assert!(core.is_up());
    assert!(core.is_rolling(WorkerId(0)));
    assert_eq!(core.generation(WorkerId(0)), 4);
    assert!(core.is_stopped(WorkerId(5)));
    assert!(core.degraded(WorkerId(2)).is_some());
    let counts = core.connections(WorkerId(1));
    assert_eq!((counts.live, counts.accepted, counts.refused), (3, 9, 2));
    assert_eq!(core.open_connections().count(), 2);
    let promoted = core.state(instance(0, 0, 4));
    let since = Mono(7_500_000_000);
    let until = None;
    let process = ProcessId(31);
    assert_eq!(
        promoted,
        Some(State::Running {
            process,
            since,
            until
        })
    );
    let conditions = [0, 2, 3].map(|id| core.listener_state(ListenerId(id)));
    use ListenerCondition::{Damaged, Listening, Missing};
    assert_eq!(conditions, [Missing, Damaged, Listening]);
    let processes: BTreeSet<u64> = core.processes().map(|process| process.0).collect();
    let expected = [20, 21, 30, 31, 32, 33, 34, 35, 36];
    assert_eq!(processes, expected.into());

    // What is known and what is not is written again.
    let written: Vec<String> = core.take_changes().iter().map(Change::text).collect();
    let mut written = values(written.iter().map(String::as_str));
    written.extend(values(others.iter().map(|(_, line)| &**line)));
    let mut all = values(FORMAT_1.lines());
    for list in [&mut written, &mut all] {
        list.sort_by_key(|one| format!("{} {}", one["kind"], one["key"]));
    }
    assert_eq!(written, all);

    // And it goes on.
    let now = Mono(9_000_000_000);
    core.handle(now, Input::Resumed);
    let wanted: Vec<Effect> = std::iter::from_fn(|| core.next_effect()).collect();
    let listener = ListenerId(1);
    assert!(wanted.contains(&Effect::Bind { listener }), "{wanted:?}");
    assert!(wanted.contains(&Effect::WatchAddresses { wanted: true }));
    core.handle(now, Input::Stop);
    core.handle(now, Input::Stop);
    for _ in 0..3 {
        while core.next_effect().is_some_and(|effect| match effect {
            Effect::Exit { .. } => panic!("not yet"),
            _ => true,
        }) {}
        let processes: Vec<ProcessId> = core.processes().collect();
        let Some((last, rest)) = processes.split_last() else {
            break;
        };
        for process in rest.iter().chain([last]).copied() {
            core.handle(now, Input::ExecSucceeded { process });
            let status = ExitStatus::Unknown;
            core.handle(now, Input::Exited { process, status });
        }
        let wanted: Vec<Effect> = std::iter::from_fn(|| core.next_effect()).collect();
        if wanted.contains(&Effect::Exit { code: 0 }) {
            return;
        }
    }
    panic!("it never ends: {core:#?}");
}

/// A fact that is known by then is not told again.
#[test]
fn a_later_fact_replaces_an_earlier_one_and_gone_takes_it_away() {
    let more = concat!(
        r#"{"kind":"run","key":18,"gone":true}"#,
        "\n",
        r#"{"kind":"run","key":19,"gone":true}"#,
        "\n",
        r#"{"kind":"weather","key":"tomorrow","rain":false}"#,
        "\n",
        r#"{"kind":"name","key":"worker 0","gone":true}"#,
    );
    let Reading { snapshot, others } = read(&format!("{FORMAT_1}{more}"));
    let kinds: Vec<&str> = others.iter().map(|(kind, _)| &**kind).collect();
    assert_eq!(kinds, ["snapshot", "weather"]);
    assert_eq!(values([&*others[1].1])[0]["rain"], false);
    let core = Core::thaw(&snapshot, known(&snapshot)).expect("it is thawed");
    assert_eq!(core.instances_of(WorkerId(5)).count(), 0);
}

/// One line of the snapshot with something replaced in it: why it is refused.
#[track_caller]
fn refused(line: &str, what: &str, by: &str) -> String {
    let found = FORMAT_1.lines().find(|one| one.starts_with(line));
    let found = found.unwrap_or_else(|| panic!("no line starts with {line}"));
    assert!(found.contains(what), "{found} has no {what}");
    let text = FORMAT_1.replace(found, &found.replace(what, by));
    let why = match Snapshot::read(text.lines()) {
        Err(why) => why,
        Ok(Reading { snapshot, .. }) => {
            let known = known(&snapshot);
            Core::thaw(&snapshot, known).expect_err("it cannot be true")
        }
    };
    why.to_string()
}

#[test]
fn what_cannot_be_true_is_refused_with_the_reason() {
    let run = |key: u32| format!(r#"{{"kind":"run","key":{key},"#);
    let worker = r#"{"kind":"worker","key":0,"#;
    let daemon = r#"{"kind":"daemon","#;
    let head = r#"{"kind":"snapshot","#;
    for (line, what, by, why) in [
        (
            &*run(18),
            r#""index":0"#,
            r#""index":1"#,
            "run 19: place 1 of worker 5 is another's as well",
        ),
        (
            &run(19),
            r#""index":1"#,
            r#""index":2"#,
            "run 19: it has place 2 of worker 5, and nothing has place 1",
        ),
        (
            &run(18),
            r#""worker":5"#,
            r#""worker":6"#,
            "run 18: worker 6 is not known",
        ),
        (
            &run(10),
            r#""process":31"#,
            r#""process":21"#,
            "run 10: process 21 is another's as well",
        ),
        (
            &run(10),
            r#""process":31,"#,
            "",
            "run 10: missing field `process`",
        ),
        (
            &run(10),
            r#""running""#,
            r#""flying""#,
            "run 10: unknown variant `flying`",
        ),
        (
            &run(13),
            r#""connection":{"id":8"#,
            r#""connection":{"id":7"#,
            "connection 7 was never given out, or is another's as well",
        ),
        (
            &run(13),
            r#""connection":{"id":8"#,
            r#""friend":{"id":8"#,
            "run 13: no connection is said",
        ),
        (
            &run(5),
            r#""hook":30"#,
            r#""hook":35"#,
            "run 5: it waits for the command 35, which is not there",
        ),
        (
            &run(11),
            r#""candidate""#,
            r#""leaving""#,
            "rollout of worker 0: run 11 is no instance of it",
        ),
        (
            &run(17),
            r#""name":"stopping","process":36,"since":1000000000,"ending":{"name":"killed"}"#,
            r#""name":"stopped""#,
            "is one more of WorkerId(3)",
        ),
        (
            worker,
            r#""generation":4,"last_generation":4"#,
            r#""generation":4,"last_generation":3"#,
            "worker 0: generation 4 of 3",
        ),
        (
            worker,
            r#""latest":3"#,
            r#""latest":2"#,
            "worker 0: definition 3 of 2",
        ),
        (
            worker,
            r#""wanted":3"#,
            r#""wanted":4294967295"#,
            "worker 0: 4294967295 instances are wanted",
        ),
        // What would wrap round in the next years, or take all memory.
        (
            worker,
            r#""last_generation":4"#,
            r#""last_generation":2147483648"#,
            "worker 0: generation 4 of 2147483648",
        ),
        (
            worker,
            r#""latest":3"#,
            r#""latest":2147483648"#,
            "worker 0: definition 3 of 2147483648",
        ),
        (
            worker,
            r#""from_generation":3"#,
            r#""from_generation":2147483648"#,
            "rollout of worker 0: 0 of 3 are done",
        ),
        (
            worker,
            r#""done":0,"of":3"#,
            r#""done":0,"of":4294967295"#,
            "rollout of worker 0: 0 of 4294967295 are done",
        ),
        (
            worker,
            r#""done":0,"of":3"#,
            r#""done":4294967295,"of":3"#,
            "rollout of worker 0: 4294967295 of 3 are done",
        ),
        (
            &run(10),
            r#""generation":4"#,
            r#""generation":2147483648"#,
            "run 10: generation 2147483648",
        ),
        (
            r#"{"kind":"connections","#,
            r#""accepted":9"#,
            r#""accepted":18446744073709551615"#,
            "connections 1: more than there can have been",
        ),
        (
            r#"{"kind":"connections","#,
            r#""refused":2"#,
            r#""refused":18446744073709551615"#,
            "connections 1: more than there can have been",
        ),
        (
            worker,
            r#""key":0"#,
            r#""key":"app""#,
            r#"worker "app": no such key"#,
        ),
        (
            daemon,
            r#""next_process":41"#,
            r#""next_process":36"#,
            "run 17: process 36 was never given out",
        ),
        (
            daemon,
            r#""next_run":20"#,
            r#""next_run":19"#,
            "run 19 was never given out",
        ),
        (
            daemon,
            r#""running""#,
            r#""exited""#,
            "it is of a listend that had ended",
        ),
        (
            daemon,
            r#""daemon""#,
            r#""demon""#,
            "it says nothing of listend itself (daemon)",
        ),
        (
            head,
            r#""format":1"#,
            r#""format":2"#,
            "it has format 2, written by listend 0.9.0, and this listend reads formats up to 1",
        ),
        (
            head,
            r#""format":1"#,
            r#""format":"new""#,
            "it does not say which format it has",
        ),
        (
            head,
            r#""snapshot""#,
            r#""shot""#,
            "it does not say which format it has",
        ),
        (head, "}", "", "a fact is not JSON"),
    ] {
        let said = refused(line, what, by);
        assert!(said.contains(why), "{said}: not {why}");
    }
}

#[test]
fn a_definition_that_nobody_knows_is_refused() {
    let Reading { snapshot, .. } = read(FORMAT_1);
    let mut known = known(&snapshot);
    known.definitions.remove(&(WorkerId(2), Revision(3)));
    let why = Core::thaw(&snapshot, known).expect_err("it is needed to try it again");
    assert_eq!(
        why.to_string(),
        "worker 2: definition 3 of worker 2 is not known"
    );
}
