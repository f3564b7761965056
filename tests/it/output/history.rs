//! What was, told over the control socket: `logs`, `events`, `signal --reopen`, `metrics`.

use crate::harness::varlink::{self, Varlink};
use crate::harness::{Daemon, Finished, Start, World, eventually};
use serde_json::{Value, json};
use std::fs;

const YAML: &str = "
workers:
  app: { command: [$PROBE, puppet, $EVENTS], output: tag }
  silent: { command: [sleep, infinity], output: tag }
";

/// A verb that asks the daemon of this world.
fn ask(world: &World, words: &[&str]) -> Finished {
    let control = varlink::words(world);
    let all = words.iter().copied();
    world.finish(all.chain(control.iter().map(String::as_str)))
}

/// The text of the line in a reply; `None` if it has no line.
fn text(reply: &Value) -> Option<&str> {
    reply["parameters"]["line"]["text"].as_str()
}

/// The texts of all lines that are told.
fn last(client: &mut Varlink, parameters: Value) -> Vec<String> {
    let replies = client.more("Logs", parameters);
    replies.iter().filter_map(text).map(str::to_owned).collect()
}

#[test]
fn the_last_lines_of_a_worker_are_told() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut puppet = world.puppet();
    for number in 1..=6 {
        puppet.ask(&format!("line 1 {number}"));
    }
    let mut client = Varlink::connect(&world);
    eventually("all are there", || last(&mut client, json!({})).len() == 6);
    assert_eq!(last(&mut client, json!({ "lines": 2 })), ["5", "6"]);
    assert_eq!(last(&mut client, json!({ "lines": 0 })), [""; 0]);
    let silent = client.more("Logs", json!({ "worker": "silent" }));
    assert_eq!(silent, [json!({ "parameters": { "line": null } })]);
    let (error, about) = {
        client.call_with("Logs", json!({ "worker": "ap" }), json!({ "more": true }));
        let reply = client.next().expect("a reply");
        (reply["error"].clone(), reply["parameters"].clone())
    };
    assert_eq!(error, "io.listend.Manager.NoSuchThing");
    assert_eq!(about, json!({ "name": "ap", "suggestion": "app" }));
    let shown = ask(&world, &["logs", "app", "-n", "2"]).expect_code(0);
    let ends: Vec<_> = shown.stdout.lines().map(|line| &line[20..]).collect();
    assert_eq!(ends, [" app.0 5", " app.0 6"]);
    daemon.stop();
}

#[test]
fn everyone_who_follows_hears_every_line_to_the_end() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut puppet = world.puppet();
    puppet.ask("line 1 before");
    let mut clients: Vec<_> = (0..3).map(|_| Varlink::connect(&world)).collect();
    for client in &mut clients {
        eventually("it is there", || last(client, json!({})) == ["before"]);
        let parameters = json!({ "worker": "app", "follow": true });
        client.call_with("Logs", parameters, json!({ "more": true }));
        assert_eq!(text(&client.next().expect("a reply")), Some("before"));
    }
    drop(clients.pop());
    for number in 0..20 {
        puppet.ask(&format!("line 1 {number}"));
    }
    // Half a line is told when its writer has ended.
    puppet.ask("write 1 the end");
    let mut other = Varlink::connect(&world);
    other.ask("Stop", json!({ "worker": "app" }));
    daemon.stop();
    let mut wanted: Vec<String> = (0..20).map(|number: u32| number.to_string()).collect();
    wanted.push("the end".to_owned());
    for client in &mut clients {
        let replies = client.end();
        assert!(replies.iter().all(|reply| reply["continues"] == true));
        let told: Vec<_> = replies.iter().filter_map(text).collect();
        assert_eq!(told, wanted);
    }
}

#[test]
fn files_are_opened_again_on_request() {
    let world = World::new();
    let daemon = varlink::run(&world, &YAML.replace("tag", "file:$DIR/log"));
    let read = |name: &str| fs::read_to_string(world.path(name)).unwrap_or_default();
    let mut puppet = world.puppet();
    puppet.ask("line 1 one");
    eventually("it is written", || read("log") == "one\n");
    fs::rename(world.path("log"), world.path("log.1")).expect("rename");
    let done = ask(&world, &["signal", "--reopen"]).expect_code(0);
    assert_eq!(done.stderr, "");
    puppet.ask("line 1 two");
    eventually("the new one is written", || read("log") == "two\n");
    assert_eq!(read("log.1"), "one\n");
    let mut client = Varlink::connect(&world);
    let told = last(&mut client, json!({ "worker": "app" }));
    assert_eq!(told, ["one", "two"], "what goes to a file is kept as well");
    fs::remove_file(world.path("log")).expect("remove");
    fs::create_dir(world.path("log")).expect("create a folder");
    let (error, why) = client.error("Reopen", json!({}));
    assert_eq!(error, "Failed");
    assert!(why.to_string().contains("EISDIR"), "{why}");
    daemon.stop();
}

#[test]
fn metrics_are_printed() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let _puppet = world.puppet();
    let shown = ask(&world, &["metrics"]).expect_code(0);
    assert!(shown.stdout.contains("{worker=\"app\""), "{shown:#?}");
    assert!(shown.stdout.ends_with("# EOF\n"), "{shown:#?}");
    // Whoever leaves before the end leaves nothing behind that others wait for.
    let mut gone = Varlink::connect(&world);
    gone.call_with("Metrics", json!({}), json!({}));
    drop(gone);
    let mut client = Varlink::connect(&world);
    let text = &client.ask("Metrics", json!({}))["text"];
    assert!(text.as_str().is_some_and(|text| text.ends_with("# EOF\n")));
    daemon.stop();
}

/// The events of the past, the last so many of them.
fn past(client: &mut Varlink, last: Option<u32>) -> Vec<Value> {
    let mut replies = client.more("Watch", json!({ "last": last, "no_follow": true }));
    let events = replies.iter_mut();
    let events = events.map(|reply| reply["parameters"]["event"].take());
    events.filter(|event| !event.is_null()).collect()
}

#[test]
fn events_of_the_past_are_told_to_those_who_come_later() {
    let world = World::new();
    let daemon = varlink::run(&world, YAML);
    let mut puppet = world.puppet();
    daemon.line(&["every eager worker"]);
    puppet.tell("exit 3");
    let next = world.puppet();
    daemon.lines(&["app.0", "started"], 2);
    let mut client = Varlink::connect(&world);
    let all = past(&mut client, None);
    let [.., crash, start] = all.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(crash["kind"], "instance-exited");
    assert_eq!(
        (&crash["instance"], &crash["exit_status"]),
        (&json!("app.0"), &json!(3))
    );
    assert_eq!(start["kind"], "instance-started");
    assert_eq!(start["pid"], next.pid());
    // So many of them; the same connection goes on.
    assert_eq!(past(&mut client, Some(2)), [crash.clone(), start.clone()]);
    assert_eq!(past(&mut client, Some(0)), [Value::Null; 0]);
    let printed = ask(&world, &["events", "--last", "2", "--no-follow"]).expect_code(0);
    let lines: Vec<_> = printed.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (time, message) = (&crash["time"], &crash["message"]);
    let (time, message) = (
        time.as_str().expect("text"),
        message.as_str().expect("text"),
    );
    assert_eq!(lines[0], format!("{time} instance-exited: {message}"));

    // Those to come are told behind them.
    let mut watcher = Varlink::connect(&world);
    watcher.call_with("Watch", json!({ "last": 1 }), json!({ "more": true }));
    let mut event = || watcher.next().expect("a reply")["parameters"]["event"].take();
    assert_eq!(event(), Value::Null);
    assert_eq!(&event(), start);
    client.ask("Stop", json!({ "worker": "silent" }));
    assert_eq!(event()["kind"], "instance-stopping");

    // The last hundred are kept, and no more.
    let scale = |client: &mut Varlink, instances: u32| {
        client.ask(
            "Scale",
            json!({ "worker": "silent", "instances": instances }),
        );
    };
    client.ask("Start", json!({ "worker": "silent" }));
    for instances in [40, 1] {
        scale(&mut client, instances);
    }
    let kept = past(&mut client, Some(1000));
    assert_eq!(kept.len(), 100);
    assert!(!kept.contains(crash), "{kept:?}");
    assert_eq!(kept[99]["kind"], "instance-exited");
    daemon.stop();
}

#[test]
fn lines_that_are_in_the_journal_are_asked_for_there() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app: { command: [sleep, 1h], instances: 2, output: journal }
  other: { command: [sleep, 1h] }
";
    let daemon = varlink::run(&world, yaml);
    daemon.line(&["every eager worker"]);
    world.write_script("journalctl", "#!/bin/sh\necho \"$@\"\n");
    let asked = |words: &[&str]| {
        let control = varlink::words(&world);
        let words = words
            .iter()
            .copied()
            .chain(control.iter().map(String::as_str));
        let mut start = Start::new(words);
        let path = std::env::var("PATH").unwrap_or_default();
        start.env("PATH", &format!("{}:{path}", world.dir().display()));
        Daemon::start(start).finish().expect_code(0)
    };
    let named = asked(&["logs", "app", "-n", "7", "-f"]);
    let wanted = "--no-pager --quiet --identifier=app.0 --identifier=app.1 -n 7 -o short-iso -f\n";
    assert_eq!(named.stdout, wanted);
    let all = asked(&["logs"]);
    assert_eq!(all.stdout, "");
    assert_eq!(
        all.stderr,
        "  hint: `app` writes to the journal: journalctl -t app.0 -t app.1"
    );
    let other = asked(&["logs", "other"]);
    assert!(
        other
            .stderr
            .contains("with `output: tag` its last lines are kept"),
        "{other:?}"
    );
    daemon.stop();
}
