//! When workers run and how they get their sockets: from the YAML to the plan.

use super::reading::{load, shown};
use listend::config::{Activation, Loaded, Overflow, Rate, to_yaml};
use listend::handoff::{Handoff, inetd};
use listend::host::Facts;
use listend::plan::{self, Lifecycle, WorkerPlan, resolve};
use listend::report::{Kind, Sources};
use std::sync::Arc;
use std::time::Duration;

const LISTENERS: &str = "\
silence: unused-listener
listeners:
  tcp: 127.0.0.1:80
  more: 127.0.0.1:81
  both: localhost:82
  wild: ':83'
  stream: unix:/run/a
  packets: unix-seqpacket:/run/b
  guest: vsock::84
  udp: udp://127.0.0.1:80
  datagrams: unix-dgram:/run/c
  fifo: fifo:/run/d
  queue: mqueue:/e
  device: special:/dev/null
  route: netlink:route 1
  mixed: [127.0.0.1:85, udp://127.0.0.1:85]
workers:
";

/// These workers, each without its `command: x`, beside the listeners above.
fn workers(workers: &[&str]) -> Loaded {
    let lines = workers.iter().enumerate().map(|(index, keys)| {
        let name = char::from(b'a' + u8::try_from(index).expect("few workers"));
        format!("  {name}: {{command: x, {keys}}}\n")
    });
    load(&(LISTENERS.to_owned() + &lines.collect::<String>()))
}

/// The only problem that there is: its code, its message and hint in one, and what it stands at.
#[track_caller]
fn only_problem(loaded: &Loaded) -> (String, String, String) {
    let mut all = loaded.report.errors.iter().chain(&loaded.report.advice);
    let (Some(problem), None) = (all.next(), all.next()) else {
        panic!("not one problem: {}", shown(loaded));
    };
    let said = [Some(&problem.message), problem.hint.as_ref()];
    let said = said.into_iter().flatten().cloned().collect::<Vec<_>>();
    let place = problem.place.expect("a place");
    let position = loaded.sources.position(place);
    (problem.kind.code(), said.join("\n"), position)
}

#[track_caller]
fn fine(loaded: Loaded) -> Loaded {
    assert_eq!(shown(&loaded), "");
    loaded
}

#[track_caller]
fn planned(loaded: Loaded) -> Vec<(Handoff, Arc<Lifecycle>)> {
    let loaded = fine(loaded);
    let (plan, report) = resolve(loaded.config, &Facts::default(), &mut Sources::default());
    assert!(report.is_ok(), "{:?}", report.errors);
    // What `check --dump` prints.
    to_yaml(&plan).expect("YAML of the plan");
    let workers = plan.workers.into_values();
    workers
        .map(|worker| (worker.handoff.clone(), worker.lifecycle.clone()))
        .collect()
}

fn rate(count: u32, seconds: u64) -> Option<Rate> {
    Some(Rate {
        count,
        interval: Duration::from_secs(seconds),
    })
}

#[test]
fn every_mistake_is_reported_at_once() {
    let loaded = load(include_str!("../../golden/activation.yaml"));
    let got = shown(&loaded);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/activation.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &got).expect("write the golden file");
    }
    let want = std::fs::read_to_string(path).expect("read the golden file");
    assert_eq!(got, want);
    assert!(loaded.report.errors.len() >= 20);
}

#[test]
fn a_worker_that_says_nothing_runs_from_the_start() {
    let loaded = fine(workers(&["listeners: tcp"]));
    let worker = &loaded.config.workers[0];
    assert_eq!(worker.activation.value, Activation::Eager);
    assert_eq!(worker.handoff.value, Handoff::default());
    assert_eq!(worker.trigger_limit, rate(20, 2));
    let limits = &worker.connections;
    assert_eq!((limits.max, limits.max_per_source), (Some(64), None));
    assert_eq!(limits.overflow, Overflow::Wait);
    assert_eq!((limits.rate, limits.timeout), (rate(150, 2), None));
    let lifecycle = &planned(loaded)[0].1;
    assert_eq!(lifecycle.activation, plan::Activation::Eager);
    assert_eq!(lifecycle.instances, 1);
}

#[test]
fn limits_of_connections_arrive_as_they_were_meant() {
    let loaded = fine(workers(&[
        "listeners: tcp, activation: per-connection, handoff: inetd, max_connections: 7, \
         max_connections_per_source: 2, overflow: close, accept_rate: 3 in 500ms, \
         connection_timeout: 10m",
        "listeners: more, activation: per-connection, max_connections: none, \
         max_connections_per_source: none, overflow: wait, accept_rate: none, \
         connection_timeout: infinity",
    ]));
    let given = &loaded.config.workers[0].connections;
    assert_eq!((given.max, given.max_per_source), (Some(7), Some(2)));
    assert_eq!(given.overflow, Overflow::Close);
    let half = Some(Rate {
        count: 3,
        interval: Duration::from_millis(500),
    });
    assert_eq!(given.rate, half);
    assert_eq!(given.timeout, Some(Duration::from_secs(600)));
    let none = &loaded.config.workers[1].connections;
    assert_eq!((none.max, none.max_per_source), (None, None));
    assert_eq!((none.overflow, none.rate), (Overflow::Wait, None));
    assert_eq!(none.timeout, None);
    let wanted = [given.clone(), none.clone()];
    let planned = planned(loaded);
    assert_eq!(planned[0].0, Handoff::from(&inetd::DIALECT));
    assert_eq!(planned[1].0, Handoff::default());
    for ((_, lifecycle), limits) in planned.iter().zip(wanted) {
        let activation = plan::Activation::PerConnection(limits);
        assert_eq!(lifecycle.activation, activation);
        assert_eq!(lifecycle.instances, 0);
    }
}

#[test]
fn on_demand_keeps_its_instances_and_its_limit() {
    for (key, limit) in [
        ("", rate(20, 2)),
        (", trigger_limit: 3 in 1m", rate(3, 60)),
        (", trigger_limit: none", None),
    ] {
        let worker = format!("listeners: [tcp, udp], activation: on-demand, instances: 4{key}");
        let lifecycle = &planned(workers(&[&worker]))[0].1;
        let activation = plan::Activation::OnDemand { limit };
        assert_eq!(lifecycle.activation, activation);
        assert_eq!(lifecycle.instances, 4);
    }
}

#[test]
fn one_for_each_connection_of_every_kind_that_has_some() {
    for listener in ["tcp", "both", "wild", "stream", "packets", "guest"] {
        for handoff in ["systemd", "inetd"] {
            let worker = format!(
                "listeners: [{listener}, more], activation: per-connection, handoff: {handoff}"
            );
            let lifecycle = &planned(workers(&[&worker]))[0].1;
            let is = matches!(lifecycle.activation, plan::Activation::PerConnection(_));
            assert!(is && lifecycle.instances == 0, "{listener}: {lifecycle:?}");
        }
    }
}

#[test]
fn what_has_no_connections_is_passed_on_to_one_process_at_a_time() {
    for listener in ["udp", "datagrams", "fifo", "queue", "device", "route"] {
        for handoff in ["systemd", "inetd"] {
            let worker = format!(
                "listeners: {listener}, activation: per-connection, handoff: {handoff}, \
                 trigger_limit: 3 in 1s"
            );
            let lifecycle = &planned(workers(&[&worker]))[0].1;
            let activation = plan::Activation::OnDemand { limit: rate(3, 1) };
            assert_eq!(lifecycle.activation, activation, "{listener}");
            assert_eq!(lifecycle.instances, 1);
        }
    }
    // Only inetd has no room for a second.
    let worker = "listeners: [udp, fifo], activation: per-connection";
    assert_eq!(planned(workers(&[worker]))[0].1.instances, 1);
}

#[test]
fn a_value_that_is_wrong_is_told_what_was_meant() {
    for (key, value, said) in [
        ("activation", "eeger", "did you mean `eager`?"),
        ("activation", "always", "did you mean `eager`?"),
        ("activation", "on_demand", "did you mean `on-demand`?"),
        ("activation", "lazy", "did you mean `on-demand`?"),
        ("activation", "accept", "did you mean `per-connection`?"),
        (
            "activation",
            "per_connection",
            "did you mean `per-connection`?",
        ),
        ("activation", "qqqqqqqq", "known here: `eager`"),
        ("handoff", "systemdd", "did you mean `systemd`?"),
        ("handoff", "stdin", "did you mean `inetd`?"),
        ("handoff", "inetd-wait", "write `activation: on-demand`"),
        (
            "handoff",
            "inetd-nowait",
            "write `activation: per-connection`",
        ),
        ("overflow", "drop", "did you mean `close`?"),
        ("overflow", "reject", "did you mean `close`?"),
        ("overflow", "queue", "did you mean `wait`?"),
        ("max_connections", "0", "write `none` for no limit"),
        ("max_connections", "unlimited", "write `none` for no limit"),
        ("max_connections", "1000001", "from 1 to 1000000"),
        ("max_connections", "many", "write decimal digits only"),
        (
            "max_connections_per_source",
            "-1",
            "write `none` for no limit",
        ),
        ("max_connections_per_source", "08", "write `8` without"),
        ("accept_rate", "150", "`accept_rate`: `150` is not a rate"),
        (
            "accept_rate",
            "0 in 2s",
            "`accept_rate` takes a whole number",
        ),
        (
            "accept_rate",
            "1 in 0",
            "`accept_rate` needs an interval above 0",
        ),
        ("connection_timeout", "none", "write `infinity`"),
        ("connection_timeout", "0", "write `infinity` for no limit"),
        ("connection_timeout", "5", "write `5s` for seconds"),
    ] {
        let activation = if key == "activation" {
            ""
        } else {
            "activation: per-connection, "
        };
        let worker = format!("listeners: tcp, {activation}{key}: {value}");
        let (kind, text, _) = only_problem(&workers(&[&worker]));
        assert_eq!(kind, "bad-value", "{key}: {value}");
        assert!(text.contains(said), "{key}: {value}: {text}");
    }
    let worker = "listeners: tcp, activation: on-demand, trigger_limit: 20/2s";
    let (_, text, _) = only_problem(&workers(&[worker]));
    assert!(
        text.contains("`trigger_limit`: `20/2s` is not a rate"),
        "{text}"
    );
}

#[test]
fn every_protocol_is_read_and_several_are_combined() {
    let all = listend::handoff::ALL.iter();
    for dialect in all.clone() {
        let worker = format!("listeners: tcp, handoff: {}", dialect.keyword);
        let planned = planned(workers(&[&worker]));
        assert_eq!(planned[0].0, Handoff::from(*dialect));
        assert_eq!(planned[0].1.nonblocking, dialect.keyword == "nginx");
    }
    let list = "listeners: [tcp, more], handoff: [systemd, server-starter]";
    assert_eq!(
        planned(workers(&[list]))[0].0.to_string(),
        "systemd, server-starter"
    );
    // The programs of FastCGI are told what the word is here.
    let (_, text, _) = only_problem(&workers(&["listeners: tcp, handoff: fastcgi"]));
    assert!(text.contains("did you mean `fd0`?"), "{text}");
}

#[test]
fn protocols_that_exclude_each_other_are_refused() {
    for (handoff, words) in [
        (
            "[systemd, fd0]",
            "`handoff: fd0` stands alone: its socket is standard input",
        ),
        ("[inetd, nginx]", "`handoff: inetd` stands alone"),
        ("[none, einhorn]", "no variable is set"),
        ("[systemd, puma, puma]", "`puma` occurs twice"),
        ("[systemd, nginx]", "write `nonblocking: true` or `false`"),
        ("[]", "names no protocol"),
    ] {
        let worker = format!("listeners: tcp, handoff: {handoff}");
        let (kind, text, _) = only_problem(&workers(&[&worker]));
        assert_eq!(kind, "bad-value");
        assert!(text.contains(words), "{handoff}: {text}");
    }
    fine(workers(&[
        "listeners: tcp, handoff: [systemd, nginx], nonblocking: true",
    ]));
}

#[test]
fn a_list_of_descriptors_is_of_listeners_that_the_worker_has() {
    for (keys, kind, words) in [
        (
            "command: 'x {fds:tpc}', listeners: [tcp]",
            "unknown-listener",
            "`tpc`",
        ),
        (
            "command: 'x {fds:more}', listeners: [tcp]",
            "bad-template",
            "does not use listener `more`",
        ),
        (
            "command: 'x {fds:tcp:1}', listeners: [tcp]",
            "bad-template",
            "does not name a listener",
        ),
        (
            "command: x, listeners: [tcp], after_ready: 'x {fds}'",
            "bad-template",
            "gets no listeners, so there is no descriptor",
        ),
    ] {
        let (found, text, position) = only_problem(&load(&format!("{LISTENERS}  a: {{{keys}}}\n")));
        assert_eq!(found, kind, "{text}");
        assert!(text.contains(words), "{keys}: {text}");
        let line = format!("  a: {{{keys}}}");
        // That of the text, for it is in quotes.
        let column = line.find("'x").expect("it is there") + 1;
        assert!(position.ends_with(&format!(":{column}")), "{position}");
    }
    let without = load(&format!("{LISTENERS}  a: {{command: 'x {{fds}}'}}\n"));
    assert!(shown(&without).contains("has no listeners, so `{fds}` is empty"));
    fine(load(&format!(
        "{LISTENERS}  a: {{command: 'x {{fds}} {{fds:both|;}}', listeners: [both]}}\n"
    )));
}

#[test]
fn a_plan_that_says_nothing_of_listen_pid_has_it() {
    for (key, told) in [("", true), (", listen_pid: false", false)] {
        let loaded = fine(workers(&[&format!("listeners: tcp{key}")]));
        let (plan, _) = resolve(loaded.config, &Facts::default(), &mut Sources::default());
        let worker: &WorkerPlan = plan.workers.values().next().expect("a worker");
        assert_eq!(worker.listen_pid, told);
        let mut json = serde_json::to_value(worker).expect("JSON");
        let same: WorkerPlan = serde_json::from_value(json.clone()).expect("a plan");
        assert_eq!(same.listen_pid, told);
        json.as_object_mut()
            .expect("an object")
            .remove("listen_pid");
        let older: WorkerPlan = serde_json::from_value(json).expect("a plan of an older version");
        assert!(older.listen_pid);
    }
}

#[test]
fn variables_that_the_handoff_sets_are_not_set_by_others() {
    for (handoff, name) in [
        ("nginx", "ANGIE"),
        ("server-starter", "SERVER_STARTER_GENERATION"),
        ("[systemd, puma]", "PUMA_INHERIT_0"),
        ("einhorn", "EINHORN_FD_0"),
        ("php-fpm", "FPM_SOCKETS"),
    ] {
        let keys = format!(
            "listeners: tcp, handoff: {handoff}, nonblocking: true, environment: {{{name}: here}}"
        );
        let (kind, text, position) = only_problem(&workers(&[&keys]));
        assert_eq!(kind, "bad-value", "{text}");
        assert!(text.contains(&format!("`{name}` is set by")), "{text}");
        let line = format!("  a: {{command: x, {keys}}}");
        let column = line.rfind("here").expect("it is there") + 1;
        assert!(position.ends_with(&format!(":{column}")), "{position}");
    }
    for keys in [
        "handoff: none, environment: {NGINX: '{fd:tcp};'}",
        "handoff: puma, environment: {PUMA_INHERIT_1: x}",
        "handoff: php-fpm, environment: {FPM_SOCKETS_1: x}",
    ] {
        fine(workers(&[&format!("listeners: tcp, {keys}")]));
    }
}

#[test]
fn what_a_protocol_cannot_pass_is_refused_with_the_one_that_can() {
    for (keys, at, words) in [
        ("listeners: [tcp, udp], handoff: nginx", "nginx", "not udp"),
        (
            "listeners: fifo, handoff: [systemd, server-starter]",
            "server-starter",
            "not fifo",
        ),
        (
            "listeners: datagrams, handoff: php-fpm",
            "php-fpm",
            "not unix-dgram",
        ),
        (
            "listeners: tcp, handoff: einhorn, activation: per-connection",
            "einhorn",
            "`systemd`, `inetd` and `none` can pass connections",
        ),
        (
            "listeners: tcp, handoff: nginx, listen_pid: false",
            "false",
            "`handoff: systemd`",
        ),
        (
            "listeners: tcp, handoff: nginx, fd_store: 3",
            "3",
            "`handoff: systemd`",
        ),
    ] {
        let loaded = workers(&[keys]);
        let (kind, text, position) = only_problem(&loaded);
        assert_eq!(kind, "bad-value", "{text}");
        assert!(text.contains(words), "{keys}: {text}");
        let line = format!("  a: {{command: x, {keys}}}");
        let column = line.rfind(&format!(" {at}")).expect("it is there") + 2;
        assert!(
            position.ends_with(&format!(":{column}")),
            "{keys}: {position}"
        );
    }
    let (_, text, _) = only_problem(&workers(&["listeners: udp, handoff: puma"]));
    assert!(
        text.contains("`systemd`, `inetd`, `fd0` and `none` can"),
        "{text}"
    );
}

#[test]
fn protocols_of_opposite_needs_do_not_share_a_listener() {
    let loaded = workers(&[
        "listeners: tcp, handoff: nginx",
        "listeners: tcp, handoff: server-starter",
    ]);
    let (kind, ..) = only_problem(&loaded);
    assert_eq!(kind, "nonblocking-conflict");
    fine(workers(&[
        "listeners: tcp, handoff: nginx",
        "listeners: tcp, handoff: server-starter, nonblocking: true",
    ]));
}

const OF_CONNECTIONS: &[&str] = &[
    "max_connections: 64",
    "max_connections_per_source: none",
    "overflow: wait",
    "accept_rate: none",
    "connection_timeout: infinity",
];

#[test]
fn keys_that_mean_nothing_are_refused_whatever_they_say() {
    for key in OF_CONNECTIONS {
        for activation in ["eager", "on-demand"] {
            let worker = format!("listeners: tcp, activation: {activation}, {key}");
            let (kind, text, _) = only_problem(&workers(&[&worker]));
            assert_eq!(kind, "bad-value", "{key}");
            assert!(
                text.contains("or write `activation: per-connection`"),
                "{text}"
            );
        }
        let worker = format!("listeners: udp, activation: per-connection, {key}");
        let (kind, text, _) = only_problem(&workers(&[&worker]));
        assert_eq!(kind, "bad-value", "{key}");
        assert!(
            text.contains("`udp` is udp, which has no connections"),
            "{text}"
        );
    }
    let (_, text, _) = only_problem(&workers(&["listeners: tcp, trigger_limit: none"]));
    assert!(text.contains("write `activation: on-demand` or"), "{text}");
    let worker = "listeners: tcp, activation: per-connection, trigger_limit: none";
    let (_, text, _) = only_problem(&workers(&[worker]));
    assert!(text.contains("write `accept_rate` instead"), "{text}");
    let worker = "listeners: tcp, activation: per-connection, instances: 2";
    let (_, text, _) = only_problem(&workers(&[worker]));
    assert!(text.contains("every connection is an instance"), "{text}");
    // What cannot do harm is no error.
    fine(workers(&[
        "listeners: tcp, activation: per-connection, instances: 1, restart: never",
    ]));
}

/// An activation that could not be read says nothing about the keys beside it.
#[test]
fn a_mistake_brings_no_other_with_it() {
    let worker = "listeners: [tcp, udp], activation: lazy, max_connections: 5, instances: 2";
    let (_, text, _) = only_problem(&workers(&[worker, "listeners: tcp"]));
    assert!(text.contains("`lazy`"), "{text}");
    let worker = "listeners: tcp, activation: accept, nonblocking: true";
    let (_, text, _) = only_problem(&workers(&["listeners: tcp", worker]));
    assert!(text.contains("`accept`"), "{text}");
    let worker = "listeners: [tcp, udp], handoff: stdio";
    let (_, text, _) = only_problem(&workers(&[worker]));
    assert!(text.contains("`stdio`"), "{text}");
    let worker = "listeners: [tpc, udp], activation: per-connection, handoff: inetd";
    let (kind, ..) = only_problem(&workers(&[worker]));
    assert_eq!(kind, "unknown-listener");
}

#[test]
fn sockets_with_and_without_connections_do_not_mix_where_connections_are_accepted() {
    for listeners in ["[tcp, udp]", "[fifo, stream]", "mixed"] {
        let worker = format!("activation: per-connection, listeners: {listeners}");
        let (kind, text, position) = only_problem(&workers(&[&worker]));
        assert_eq!(kind, "bad-value");
        assert!(
            text.contains("has connections, ") && text.contains("has none"),
            "{text}"
        );
        assert_eq!(position, "listend.yaml:18:31");
        fine(workers(&[&format!(
            "activation: on-demand, listeners: {listeners}"
        )]));
    }
}

#[test]
fn inetd_has_one_descriptor() {
    for (worker, has) in [
        ("listeners: [tcp, more], handoff: inetd", "2"),
        ("listeners: both, handoff: inetd", "2"),
        (
            "listeners: mixed, handoff: inetd, activation: on-demand",
            "2",
        ),
        (
            "listeners: [udp, fifo, queue], handoff: inetd, activation: per-connection",
            "3",
        ),
    ] {
        let (kind, text, _) = only_problem(&workers(&[worker]));
        assert_eq!(kind, "bad-value");
        assert!(text.contains(&format!("worker `a` has {has}\n")), "{text}");
    }
    fine(workers(&["listeners: wild, handoff: inetd"]));
    fine(workers(&[
        "listeners: tcp, handoff: inetd, activation: on-demand",
    ]));
    // A placeholder for its number is no mistake.
    fine(load(&format!(
        "{LISTENERS}  a: {{command: 'x {{fd:tcp}}', listeners: tcp, handoff: inetd}}\n  \
         b: {{command: 'x {{fd:both:1}}', listeners: [both], activation: per-connection}}\n"
    )));
}

#[test]
fn a_worker_that_waits_for_clients_needs_a_listener() {
    for activation in ["on-demand", "per-connection"] {
        for handoff in ["systemd", "inetd"] {
            let worker = format!("activation: {activation}, handoff: {handoff}");
            let (kind, text, _) = only_problem(&workers(&[&worker]));
            assert_eq!(kind, "bad-value");
            assert!(text.contains("no client ever starts it"), "{text}");
        }
    }
}

#[test]
fn nobody_else_takes_the_listener_whose_connections_are_accepted() {
    let each = "listeners: [more, tcp], activation: per-connection";
    for other in ["eager", "on-demand", "per-connection"] {
        let other = format!("listeners: [tcp, stream], activation: {other}");
        for (order, line) in [([each, &other], 18), ([&other, each], 19)] {
            let loaded = workers(&order);
            let (kind, text, position) = only_problem(&loaded);
            assert_eq!(kind, "shared-per-connection");
            assert!(
                text.contains("they would compete for its clients"),
                "{text}"
            );
            assert_eq!(loaded.report.errors[0].related.len(), 1);
            let line = if other.ends_with("connection") {
                18
            } else {
                line
            };
            assert!(
                position.starts_with(&format!("listend.yaml:{line}:")),
                "{position}"
            );
        }
    }
}

#[test]
fn a_worker_that_always_runs_beside_one_on_demand_is_worth_a_word() {
    let lazy = "listeners: tcp, activation: on-demand";
    let loaded = workers(&["listeners: [tcp]", lazy, lazy]);
    assert!(loaded.report.is_ok());
    let advice = &loaded.report.advice;
    let about: Vec<_> = advice
        .iter()
        .map(|one| (one.kind, one.worker.as_deref()))
        .collect();
    let kind = Kind::SharedOnDemand;
    assert_eq!(
        about,
        [(kind, Some("b")), (kind, Some("c"))],
        "{}",
        shown(&loaded)
    );
    fine(workers(&[lazy, lazy]));
    let silenced = "listeners: tcp, activation: on-demand, silence: shared-on-demand";
    fine(workers(&[silenced, "listeners: tcp"]));
}

/// The flag is the connection's, and no other worker has that.
#[test]
fn nonblocking_connections_are_in_nobodys_way() {
    fine(workers(&[
        "listeners: tcp, activation: per-connection, nonblocking: true",
        "listeners: more",
    ]));
    let shared = [
        "listeners: tcp, activation: per-connection, nonblocking: true",
        "listeners: tcp",
    ];
    assert_eq!(only_problem(&workers(&shared)).0, "shared-per-connection");
    let on_demand = "listeners: tcp, activation: on-demand, nonblocking: true";
    let kind = only_problem(&workers(&[
        on_demand,
        "listeners: tcp, activation: on-demand",
    ]))
    .0;
    assert_eq!(kind, "nonblocking-conflict");
}

#[test]
fn idle_timeout_arrives_as_it_was_meant() {
    for (key, wanted) in [
        ("", None),
        (", idle_timeout: 5m", Some(Duration::from_secs(300))),
        (", idle_timeout: infinity", None),
    ] {
        let worker = format!("listeners: [tcp, udp], activation: on-demand{key}");
        let lifecycle = &planned(workers(&[&worker]))[0].1;
        assert_eq!(lifecycle.idle_timeout, wanted);
    }
    let worker = "listeners: tcp, activation: on-demand, idle_timeout: 1s, \
                  idle_unless: {path: /run/app/busy}";
    let loaded = fine(workers(&[worker]));
    let path = loaded.config.workers[0].idle_unless.clone();
    assert_eq!(path, Some("/run/app/busy".into()));
}

#[test]
fn idle_timeout_says_where_it_means_nothing() {
    let demand = "activation: on-demand, idle_timeout: 5m";
    for (worker, said) in [
        (
            "listeners: tcp, idle_timeout: 5m",
            "the worker is eager, so no client would start it again",
        ),
        (
            "listeners: tcp, activation: per-connection, idle_timeout: 5m",
            "each process ends with its connection",
        ),
        (
            "listeners: tcp, activation: on-demand, idle_timeout: 10ms",
            "10ms is too short",
        ),
        (
            "listeners: tcp, activation: on-demand, idle_unless: {path: /x}",
            "`idle_unless` without an `idle_timeout`",
        ),
        (
            &format!("listeners: tcp, {demand}, idle_unless: {{path: x}}"),
            "`x` is not an absolute path",
        ),
        (
            &format!("listeners: [tcp, queue], {demand}"),
            "whether a client uses `queue` cannot be detected: it is mqueue",
        ),
        (
            &format!("listeners: fifo, {demand}"),
            "the kernel does not tell when something is written to it",
        ),
        (
            &format!("listeners: [guest], {demand}"),
            "whose connections are in no table that listend reads",
        ),
    ] {
        let (_, text, _) = only_problem(&workers(&[worker]));
        assert!(text.contains(said), "{worker}: {text}");
    }
}

#[test]
fn instances_that_follow_the_queues_are_a_range() {
    let lifecycle = &planned(workers(&["listeners: tcp, instances: {min: 2, max: 8}"]))[0].1;
    let scaling = lifecycle.scaling.expect("it follows");
    assert_eq!(
        (lifecycle.instances, scaling.max, scaling.scale_up_at),
        (2, 8, 10)
    );
    for (worker, said) in [
        (
            "listeners: tcp, instances: {min: 2}",
            "`instances` has no `max`",
        ),
        (
            "listeners: tcp, instances: {min: 3, max: 2}",
            "`max` is 2, less than `min`, 3",
        ),
        (
            "listeners: tcp, activation: per-connection, instances: {max: 2}",
            "every connection is an instance",
        ),
        (
            "listeners: udp, instances: {max: 2}",
            "no listener whose waiting clients listend can count (`udp` is none)",
        ),
    ] {
        let (_, text, _) = only_problem(&workers(&[worker]));
        assert!(text.contains(said), "{worker}: {text}");
    }
}
