//! What a reload would change: from two configurations to one plan and the differences in it.

use listend::config::{SourceFile, read};
use listend::host::Facts;
use listend::plan::fingerprint::Known;
use listend::plan::{
    ListenerId, Merge, Origin, OriginFile, Plan, PlanTransfer, SocketKey, Tense, WorkerChange,
    WorkerId, WorkerPlan, resolve,
};
use listend::report::{Kind, Problem, Report, Sources, Style, render};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

fn planned(text: &str) -> (Plan, Sources) {
    let mut loaded = read(vec![SourceFile {
        name: "listend.yaml".to_owned(),
        bytes: text.as_bytes().to_vec(),
        folder: PathBuf::from("/etc/listend"),
    }]);
    let shown = render(&loaded.report, &loaded.sources, Style::Plain);
    assert!(loaded.report.is_ok(), "{shown}\n{text}");
    let facts = Facts {
        somaxconn: 4096,
        ..Facts::default()
    };
    let (plan, report) = resolve(loaded.config, &facts, &mut loaded.sources);
    assert!(report.is_ok());
    (plan, loaded.sources)
}

fn plan(text: &str) -> Plan {
    planned(text).0
}

/// Nothing is held but what the running plan has.
fn merge(running: &Plan, wanted: Plan) -> Merge {
    listend::plan::merge(running, &BTreeMap::new(), wanted)
}

fn keys(plan: &Plan) -> Vec<SocketKey> {
    let listeners = plan.listeners();
    listeners.flat_map(|(_, one)| one.keys()).collect()
}

/// The differences between two configurations.
fn lines(before: &str, after: &str) -> Vec<String> {
    let merged = merge(&plan(before), plan(after));
    merged
        .changes
        .lines(Tense::Present, |_| None)
        .collect::<Vec<_>>()
}

const BASE: &str = "\
listeners:
  web: { address: '127.0.0.1:80', backlog: 128 }
  local: { address: 'unix:/run/x', mode: '0600' }
workers:
  app: { command: serve, listeners: [web] }
";

fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(BASE.contains(from));
    lines(BASE, &BASE.replace(from, to))
}

#[test]
fn the_families_of_an_address_that_stays_are_told() {
    let with =
        |only: bool| format!("listeners: {{ web: {{ address: '[::]:80', ipv6_only: {only} }} }}");
    let told = lines(&with(true), &with(false));
    assert_eq!(
        told,
        [
            "listener `web`: [::]:80 (tcp, IPv6 and IPv4) is bound",
            "listener `web`: [::]:80 (tcp, IPv6 only) is closed once no process, nor a rollback, can need it",
        ]
    );
}

// A listener was removed and another one added, and the address of both was called the same.
#[test]
fn addresses_of_two_listeners_that_are_written_alike_are_told_apart() {
    for (from, to, closed, bound) in [
        (
            "unix:/run/a",
            "fifo:/run/a",
            "/run/a (unix)",
            "/run/a (fifo)",
        ),
        (
            "unix:/run/a",
            "unix-dgram:/run/a",
            "/run/a (unix)",
            "/run/a (unix-dgram)",
        ),
        (
            "udp://127.0.0.1:80",
            "127.0.0.1:80",
            "127.0.0.1:80 (udp)",
            "127.0.0.1:80 (tcp)",
        ),
        (
            "127.0.0.1:80",
            "127.0.0.1:81",
            "127.0.0.1:80",
            "127.0.0.1:81",
        ),
    ] {
        let of = |name: &str, address: &str| format!("listeners: {{ {name}: '{address}' }}");
        let wanted = [
            format!(
                "listener `a`: removed; {closed} is closed once no process, nor a rollback, can \
                 need it"
            ),
            "listener `b`: added".to_owned(),
            format!("listener `b`: {bound} is bound"),
        ];
        assert_eq!(lines(&of("a", from), &of("b", to)), wanted);
    }
    // Only how it is opened is different.
    let special = |writable: bool| {
        format!("listeners: {{ a: {{ address: 'special:/dev/null', writable: {writable} }} }}")
    };
    let told = lines(&special(false), &special(true));
    assert_eq!(
        told,
        [
            "listener `a`: /dev/null (special, writable) is bound",
            "listener `a`: /dev/null (special, read-only) is closed once no process, nor a \
             rollback, can need it",
        ]
    );
}

#[test]
fn each_difference_is_named() {
    for (from, to, wanted) in [
        (
            "backlog: 128",
            "backlog: 1024",
            &["listener `web`: backlog 128 → 1024, live"][..],
        ),
        (
            "backlog: 128",
            "backlog: 128, no_delay: true",
            &["listener `web`: no_delay the default → true, live"],
        ),
        (
            "'0600'",
            "'0660'",
            &["listener `local`: mode 0600 → 0660, live"],
        ),
        (
            "address: '127.0.0.1:80'",
            "address: ['127.0.0.1:80', '127.0.0.1:8080']",
            &[
                "listener `web`: 127.0.0.1:8080 is bound",
                "worker `app`: rolls (sockets of `web`)",
            ],
        ),
        (
            "'127.0.0.1:80'",
            "'127.0.0.1:81'",
            &[
                "listener `web`: 127.0.0.1:81 is bound",
                "listener `web`: 127.0.0.1:80 is closed once no process, nor a rollback, can need \
                 it",
                "worker `app`: rolls (sockets of `web`)",
            ],
        ),
        // It was bound and closed, and both were called the same.
        (
            "'127.0.0.1:80'",
            "'mptcp://127.0.0.1:80'",
            &[
                "listener `web`: 127.0.0.1:80 (mptcp) is bound",
                "listener `web`: 127.0.0.1:80 (tcp) is closed once no process, nor a rollback, can \
                 need it",
                "worker `app`: rolls (sockets of `web`)",
            ],
        ),
        (
            "'127.0.0.1:80'",
            "'127.0.0.1:80', network_namespace: /run/netns/blue",
            &[
                "listener `web`: 127.0.0.1:80 (tcp, /run/netns/blue) is bound",
                "listener `web`: 127.0.0.1:80 (tcp) is closed once no process, nor a rollback, can \
                 need it",
                "worker `app`: rolls (sockets of `web`)",
            ],
        ),
        (
            "command: serve",
            "command: other",
            &["worker `app`: rolls (command serve → other)"],
        ),
        (
            "command: serve",
            "command: serve, environment: { A: b }",
            &["worker `app`: rolls (environment A added)"],
        ),
        (
            "command: serve",
            "command: serve, instances: 3",
            &["worker `app`: instances 1 → 3"],
        ),
        (
            "command: serve",
            "command: serve, nice: 5, umask: '0027'",
            &["worker `app`: rolls (umask the default → 0027, nice the default → 5)"],
        ),
        (
            "command: serve",
            "command: serve, stop_signal: INT, kill_mode: group, on_failure: refuse",
            &[
                "worker `app`: stop_signal SIGTERM → SIGINT, kill_mode process → group, on_failure \
                 hold → refuse apply without a rollout",
            ],
        ),
        (
            "command: serve",
            "command: serve, rollout: { parallel: 2, watch: 1500ms }",
            &[
                "worker `app`: rollout.parallel 1 → 2, rollout.watch 30s → 1s500ms apply without a \
                 rollout",
            ],
        ),
        (
            "command: serve",
            "command: serve, stop_timeout: 5s, restart: never",
            &[
                "worker `app`: restart.policy always → never, stop_timeout 30s → 5s apply without a rollout",
            ],
        ),
        (
            "  local: { address: 'unix:/run/x', mode: '0600' }\n",
            "",
            &[
                "listener `local`: removed; /run/x is closed once no process, nor a rollback, can \
               need it",
            ],
        ),
        (
            "  app:",
            "  new:",
            &["worker `app`: removed", "worker `new`: added"],
        ),
    ] {
        assert_eq!(changed(from, to), wanted, "{from} → {to}");
    }
    assert_eq!(lines(BASE, BASE), Vec::<String>::new());
    let with_comment = format!("# only moved\n\n{BASE}");
    assert_eq!(lines(BASE, &with_comment), Vec::<String>::new());
}

#[test]
fn a_dry_run_tells_what_would_happen() {
    let after = BASE.replace("127.0.0.1:80", "127.0.0.1:81");
    let after = after.replace("command: serve", "command: other, stop_timeout: 5s");
    let merged = merge(&plan(BASE), plan(&after));
    let told: Vec<String> = merged.changes.lines(Tense::Conditional, |_| None).collect();
    assert_eq!(
        told,
        [
            "listener `web`: 127.0.0.1:81 would be bound",
            "listener `web`: 127.0.0.1:80 would be closed once no process, nor a rollback, can \
             need it",
            "worker `app`: would roll (command serve → other, sockets of `web`)",
            "worker `app`: stop_timeout 30s → 5s would apply without a rollout",
        ]
    );
}

/// Of two versions of a worker.
fn worker_changed(from: &str, to: &str) -> String {
    let with = |keys: &str| {
        let listeners = match keys.contains("listeners:") {
            true => "",
            false => "listeners: [local], ",
        };
        format!("{BASE}  it: {{ {listeners}{keys} }}\n")
    };
    let lines = lines(&with(from), &with(to));
    let [line] = lines.as_slice() else {
        panic!("one line: {lines:?}");
    };
    let words = line.strip_prefix("worker `it`: ").expect("about it");
    words.to_owned()
}

#[test]
fn each_value_is_told_as_it_was_and_as_it_is() {
    for (from, to, told) in [
        (
            "command: [sh, -c, 'exec a']",
            "command: [sh, -c, 'exec {fd:local}']",
            "rolls (command sh -c 'exec a' → sh -c 'exec {fd:local}')",
        ),
        (
            "command: a, listeners: [local]",
            "command: a, listeners: [web, local]",
            "rolls (listeners local → web local)",
        ),
        (
            "command: a, environment: { A: secret, B: b, C: c, D: d, E: e }",
            "command: a, environment: { A: hidden, C: c, D: x, E: y, F: z }",
            "rolls (environment A changed B removed D changed and 2 more)",
        ),
        (
            "command: a, limits: { nofile: 1024 }",
            "command: a, limits: { nofile: '2048:4096', core: 0 }",
            "rolls (limits.core listend's own → 0, limits.nofile 1024 → 2048:4096)",
        ),
        (
            "command: a, output: 'file:/var/log/a'",
            "command: a, output: tag, ready: notify",
            "rolls (output file:/var/log/a → tag, notify_access none → main, ready started → notify)",
        ),
        (
            "command: a, before_start: { command: b, timeout: 3s }",
            "command: a, before_start: { command: b, timeout: 1m }",
            "before_start.timeout 3s → 1m applies without a rollout",
        ),
        (
            "command: a, reload_signal: HUP",
            "command: a, reload_command: [b, c]",
            "reload_signal SIGHUP → none, reload_command none → b c apply without a rollout",
        ),
        (
            "command: a, restart: { success_exit_status: [3, TERM] }",
            "command: a",
            "restart.success_exit_status 3 SIGTERM → none applies without a rollout",
        ),
        (
            "command: a, activation: per-connection, max_connections: 5",
            "command: a, activation: per-connection, max_connections_per_source: 2, connection_timeout: 90s",
            "max_connections 5 → 64, max_connections_per_source none → 2, connection_timeout \
             infinity → 1m30s apply without a rollout",
        ),
        (
            "command: a",
            "command: a, activation: on-demand",
            "rolls (activation eager → on-demand)",
        ),
    ] {
        assert_eq!(worker_changed(from, to), told, "{from} → {to}");
    }
    // What both begin with would hide what is different.
    let long = "a".repeat(70);
    let command = |end: &str| format!("command: [run, --all, {long}, '{end}']");
    let told = worker_changed(&command("one"), &command("two"));
    assert_eq!(told, "rolls (command … one → … two)");
    // What is written alike is different all the same.
    let told = worker_changed("command: ['{{instance}}']", "command: ['{instance}']");
    assert!(told.starts_with("rolls (command"), "{told}");
}

#[test]
fn each_attribute_of_a_listener_is_told_as_it_was_and_as_it_is() {
    for (from, to, told) in [
        (
            "mode: '0600'",
            "mode: '0600', directory_mode: '0750'",
            "directory_mode 0755 → 0750, for directories created from now on",
        ),
        (
            "mode: '0600'",
            "mode: '0600', symlinks: [/run/y]",
            "symlinks none → /run/y, live",
        ),
        (
            "mode: '0600'",
            "mode: '0600', optional: true",
            "if missing: required → optional",
        ),
    ] {
        let told = format!("listener `local`: {told}");
        assert_eq!(changed(from, to), [told], "{from} → {to}");
    }
}

#[test]
fn a_watchdog_that_is_stricter_takes_another_generation_and_a_milder_one_does_not() {
    let with = |seconds: Option<u64>| {
        let mut plan = plan(BASE);
        let worker = plan.workers.get_mut(&WorkerId(0)).unwrap();
        let life = &mut Arc::make_mut(worker).lifecycle;
        Arc::make_mut(life).watchdog = seconds.map(Duration::from_secs);
        plan
    };
    let words = |before, after| {
        let merged = merge(&with(before), with(after));
        merged
            .changes
            .lines(Tense::Present, |_| None)
            .collect::<Vec<_>>()
    };
    for (before, after, told) in [
        (Some(20), Some(10), "rolls (watchdog 20s → 10s)"),
        (None, Some(10), "rolls (watchdog none → 10s)"),
        (
            Some(10),
            Some(90),
            "watchdog 10s → 1m30s applies without a rollout",
        ),
        (
            Some(10),
            None,
            "watchdog 10s → none applies without a rollout",
        ),
    ] {
        assert_eq!(words(before, after), [format!("worker `app`: {told}")]);
    }
}

#[test]
fn a_renamed_listener_keeps_its_sockets() {
    let renamed = BASE.replace("web", "www");
    let before = plan(BASE);
    let Merge { plan, changes } = merge(&before, plan(&renamed));
    let (old, new) = (ListenerId(0), ListenerId(2));
    assert_eq!(plan.listener(new).name, "www");
    let (was, is) = (before.listener(old), plan.listener(new));
    assert!(was.keys().eq(is.keys()));
    assert_eq!(
        changes.lines(Tense::Present, |_| None).collect::<Vec<_>>(),
        [
            "listener `web`: removed",
            "listener `www`: added",
            "listener `www`: 127.0.0.1:80 is moved here from listener `web`",
            "worker `app`: rolls (listeners web → www, sockets of `www`)",
        ]
    );
    let Some(WorkerChange::Changed(diff)) = changes.workers.get(&WorkerId(0)) else {
        panic!("{changes:?}");
    };
    assert!(diff.rolls());
    let live: Vec<_> = plan.listeners().map(|(id, _)| id).collect();
    assert_eq!(live, [ListenerId(1), new]);
}

#[test]
fn sockets_that_trade_listeners_are_all_kept() {
    let base = "listeners: { a: '127.0.0.1:80', b: '127.0.0.1:81' }\nworkers: {}\nsilence: unused-listener\n";
    let swapped = base
        .replace(":80", ":0x")
        .replace(":81", ":80")
        .replace(":0x", ":81");
    let merged = merge(&plan(base), plan(&swapped));
    let before = plan(base);
    let trades = |id, with| {
        let (after, before) = (merged.plan.listener(id), before.listener(with));
        assert!(after.keys().eq(before.keys()));
    };
    trades(ListenerId(0), ListenerId(1));
    trades(ListenerId(1), ListenerId(0));
}

#[test]
fn no_id_is_given_twice() {
    let one = |name: &str| {
        plan(&format!(
            "listeners: {{ {name}: 'unix:/run/{name}' }}\nworkers: {{ {name}: {{ command: x, listeners: [{name}] }} }}\n"
        ))
    };
    let mut running = one("a");
    for (number, name) in [(1, "b"), (2, "a"), (3, "b")] {
        running = merge(&running, one(name)).plan;
        assert_eq!(running.listener(ListenerId(number)).name, name);
        assert_eq!(running.worker(WorkerId(number)).name, name);
        assert_eq!(keys(&running), [SocketKey(number)]);
    }
}

#[test]
fn a_socket_that_is_still_held_is_taken_up_again() {
    let one = |port: u16| {
        plan(&format!(
            "listeners: {{ web: '127.0.0.1:{port}' }}\nworkers: {{ app: {{ command: x, listeners: [web] }} }}\n"
        ))
    };
    let first = one(80);
    let second = merge(&first, one(81)).plan;
    let former = BTreeMap::from([(SocketKey(0), first.listener(ListenerId(0)))]);
    let third = listend::plan::merge(&second, &former, one(80));
    assert_eq!(keys(&third.plan), [SocketKey(0)]);
    assert_eq!(
        third
            .changes
            .lines(Tense::Present, |_| None)
            .next()
            .as_deref(),
        Some("listener `web`: 127.0.0.1:80 is held already")
    );
}

#[test]
fn a_transfer_keeps_the_places_and_the_lines_they_are_on() {
    let text = "\
listeners:
  web: { address: ['127.0.0.1:80', '[::1]:80'], no_delay: true, bind_to_device: lo, keep_alive_time: 5s }
  wait: { address: 'fifo:/run/f', wait_for_address: 5s }
workers:
  app: { command: 'x {port:web}', listeners: [web], limits: { nofile: 5 }, restart: { limit: 3 in 5s } }
";
    let text = text.replace("'fifo:/run/f'", "'udp://127.0.0.9:5'");
    let (mut plan, sources) = planned(&text);
    plan.origin = Arc::new(Origin {
        files: vec![OriginFile {
            name: "listend.yaml".to_owned(),
            folder: PathBuf::from("/etc/listend"),
            text: text.clone(),
        }],
        ..Origin::default()
    });
    let running = Plan::default();
    let (arrived, lines) = transferred(plan.clone(), &running).expect("all of it");
    assert_eq!(merge(&running, arrived), merge(&running, plan.clone()));
    let show = |sources: &Sources| {
        let mut report = Report::default();
        for socket in &plan.listener(ListenerId(0)).sockets {
            report.add(Problem::new(Kind::LiveSocket, "taken").at(socket.place));
        }
        report.add(Problem::new(Kind::LiveSocket, "there").at(plan.worker(WorkerId(0)).place));
        render(&report, sources, Style::Plain)
    };
    assert_eq!(show(&lines), show(&sources));
    assert!(show(&lines).contains("listend.yaml:2:"), "{}", show(&lines));
    // All that the daemon has stands elsewhere in its file.
    let running = self::plan(&format!("# moved\n\n{text}"));
    let (arrived, lines) = transferred(plan.clone(), &running).expect("all of it");
    assert_eq!(merge(&running, arrived), merge(&running, plan.clone()));
    assert_eq!(show(&lines), show(&sources));
}

#[test]
fn what_the_daemon_has_is_not_sent_again() {
    let yaml = |port: u16| -> String {
        let many = (0..50).map(|at| format!("  l{at}: 127.0.0.1:{}\n", 1000 + at));
        let many: String = many.collect();
        format!(
            "silence: unused-listener\nworkers: {{}}\nlisteners:\n{many}  z: 127.0.0.1:{port}\n"
        )
    };
    let (running, wanted) = (plan(&yaml(80)), plan(&yaml(81)));
    let known = Known::heard(&Known::told(&running));
    let json = serde_json::to_value(PlanTransfer::pack(wanted.clone(), &known)).unwrap();
    let sent = json["plan"]["listeners"].as_array().unwrap();
    let names: Vec<&str> = sent.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["z"]);
    assert_eq!(json["placed"], serde_json::json!([50]));
    let (arrived, _) = transferred(wanted.clone(), &running).expect("all of it");
    let objects = |plan: &Plan| plan.listeners.values().map(Arc::as_ptr).collect::<Vec<_>>();
    let (before, after) = (objects(&running), objects(&merge(&running, arrived).plan));
    assert_eq!(before[..50], after[..50]);
    assert_ne!(before[50], after[50]);
    // A daemon that has changed meanwhile cannot know what is meant.
    let transfer: PlanTransfer = serde_json::from_value(json).unwrap();
    assert!(transfer.unpack(&Plan::default()).is_none());
}

/// Listeners and workers by the numbers of their names, with something about each that may differ.
type Shape = (BTreeMap<u8, u8>, BTreeMap<u8, (u8, Vec<u8>)>);

fn shape() -> impl Strategy<Value = Shape> {
    let listeners = prop::collection::btree_map(0..8u8, 0..12u8, 0..6);
    let taken = prop::collection::vec(0..8u8, 0..3);
    let workers = prop::collection::btree_map(0..6u8, (0..3u8, taken), 0..4);
    (listeners, workers)
}

fn yaml((listeners, workers): &Shape) -> String {
    let mut text = "silence: [unused-listener, no-listeners]\nlisteners:\n".to_owned();
    let mut ports = std::collections::BTreeSet::new();
    let mut there = Vec::new();
    for (name, port) in listeners {
        if ports.insert(port) {
            text += &format!(
                "  l{name}: {{ address: '127.0.0.1:{}' }}\n",
                1000 + u32::from(*port)
            );
            there.push(*name);
        }
    }
    if there.is_empty() {
        text += "  l9: { address: '127.0.0.1:999' }\n";
    }
    text += "workers:\n  w9: { command: last }\n";
    for (name, (command, taken)) in workers {
        let mut taken: Vec<u8> = taken
            .iter()
            .copied()
            .filter(|id| there.contains(id))
            .collect();
        taken.dedup();
        let unique: std::collections::BTreeSet<_> = taken.into_iter().collect();
        let list: Vec<String> = unique.iter().map(|id| format!("l{id}")).collect();
        text += &format!(
            "  w{name}: {{ command: c{command}, listeners: [{}] }}\n",
            list.join(", ")
        );
    }
    text
}

fn listeners(plan: &Plan) -> BTreeMap<&str, ListenerId> {
    plan.listeners()
        .map(|(id, one)| (one.name.as_str(), id))
        .collect()
}

fn workers(plan: &Plan) -> BTreeMap<&str, WorkerId> {
    plan.workers()
        .map(|(id, one)| (one.name.as_str(), id))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_keep_their_numbers_and_nothing_else_changes(
        shapes in prop::collection::vec(shape(), 2..6)
    ) {
        let mut running = plan(&yaml(&shapes[0]));
        for shape in &shapes[1..] {
            let wanted = plan(&yaml(shape));
            let merged = merge(&running, wanted.clone());
            prop_assert_eq!(&merged, &merge(&running, wanted.clone()));
            prop_assert_eq!(content(&merged.plan), content(&wanted));
            // Whatever the daemon has of it already.
            let arrived = transferred(wanted.clone(), &running).map(|(plan, _)| merge(&running, plan));
            prop_assert_eq!(arrived.as_ref(), Some(&merged));
            let (before, after) = (listeners(&running), listeners(&merged.plan));
            for (name, id) in &before {
                prop_assert!(after.get(name).is_none_or(|now| now == id));
            }
            for (name, id) in &workers(&running) {
                prop_assert!(workers(&merged.plan).get(name).is_none_or(|now| now == id));
            }
            // Nobody else has the id of one that has just gone.
            for id in before.iter().filter(|(name, _)| !after.contains_key(*name)).map(|(_, id)| id) {
                prop_assert!(!merged.plan.listeners.contains_key(id));
            }
            check_sockets(&running, &merged)?;
            // Once more is nothing at all.
            let again = merge(&merged.plan, wanted);
            prop_assert_eq!(&again.plan, &merged.plan);
            prop_assert!(again.changes.is_empty() && again.changes.lines(Tense::Present, |_| None).next().is_none());
            running = merged.plan;
        }
    }
}

/// What is in a plan, whatever the numbers.
fn content(plan: &Plan) -> Vec<serde_json::Value> {
    let listeners = plan.listeners.values().map(|one| serde_json::json!(one));
    let workers = plan.workers().map(|(_, one)| {
        let names = one.listeners.iter().map(|id| &plan.listener(*id).name);
        let without = WorkerPlan {
            listeners: Vec::new(),
            ..one.clone()
        };
        serde_json::json!([names.collect::<Vec<_>>(), without])
    });
    let mut content: Vec<_> = listeners.chain(workers).collect();
    content.sort_by_key(ToString::to_string);
    content
}

/// A plan as it arrives at a daemon that runs another one.
fn transferred(plan: Plan, running: &Plan) -> Option<(Plan, Sources)> {
    let known = Known::heard(&Known::told(running));
    let json = serde_json::to_string(&PlanTransfer::pack(plan, &known)).unwrap();
    let transfer: PlanTransfer = serde_json::from_str(&json).unwrap();
    transfer.unpack(running)
}

/// Every socket that both plans have is kept, and each only once.
fn check_sockets(running: &Plan, merged: &Merge) -> Result<(), TestCaseError> {
    let before = running.listeners.values().flat_map(|one| &one.sockets);
    let mut seen = Vec::new();
    for socket in merged.plan.listeners.values().flat_map(|one| &one.sockets) {
        let same = before.clone().find(|one| one.key == socket.key);
        match same {
            Some(same) => prop_assert_eq!(&same.endpoint, &socket.endpoint),
            None => prop_assert!(before.clone().all(|one| one.endpoint != socket.endpoint)),
        }
        prop_assert!(!seen.contains(&socket.key));
        seen.push(socket.key);
    }
    Ok(())
}
