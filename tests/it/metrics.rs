//! The metrics: what they say, who may take them down, and whether Prometheus reads them.

use crate::harness::varlink::{self, Varlink};
use crate::harness::{Daemon, World, client, eventually, free_port, require_tool};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const RULES: &str = "packaging/prometheus/listend.rules.yml";
const DASHBOARD: &str = "packaging/grafana/listend.json";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Workers of each kind, with metrics.
const ALL: &str = "
listeners: { web: '127.0.0.1:0', each: '127.0.0.1:0', late: 'unix:$DIR/late', data: 'udp://127.0.0.1:0' }
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web, data], restart: { backoff: 10ms..50ms } }
  each: { command: [cat], listeners: [each], activation: per-connection, handoff: inetd, max_connections: 1, overflow: close }
  late: { command: [$PROBE, puppet, $EVENTS], listeners: [late], activation: on-demand }
metrics: '127.0.0.1:0'
";

fn address(daemon: &Daemon) -> SocketAddr {
    daemon.address("listend:metrics")
}

/// The body of a scrape that accepts this.
fn scrape_as(address: SocketAddr, accept: &str) -> String {
    let request = format!("GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
    let answer = client::say_tcp(address, &request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = format!("Content-Length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}: {}", body.len());
    body.to_owned()
}

fn scrape(address: SocketAddr) -> String {
    scrape_as(address, "*/*")
}

/// The value of a series, written as it is in the text.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(series));
    let mut values = values.by_ref().filter_map(|rest| rest.strip_prefix(' '));
    let value = values
        .next()
        .unwrap_or_else(|| panic!("no {series} in\n{text}"));
    assert_eq!(values.next(), None, "{series} twice");
    value.parse().expect("a number")
}

/// Waits until a series has this value.
fn becomes(address: SocketAddr, series: &str, wanted: f64) {
    eventually(series, || value(&scrape(address), series) == wanted);
}

#[test]
fn values_follow_what_happens() {
    let world = World::new();
    let daemon = world.run(ALL);
    let metrics = address(&daemon);
    let mut app = world.puppet();
    becomes(
        metrics,
        "listend_worker_ready_instances{worker=\"app\"}",
        1.0,
    );
    let text = scrape(metrics);
    for listener in ["web", "each", "late", "data", "listend:metrics"] {
        let up = format!("listend_listener_up{{listener=\"{listener}\"}}");
        assert_eq!(value(&text, &up), 1.0);
    }
    assert_eq!(
        value(
            &text,
            "listend_worker_instances{worker=\"late\",state=\"waiting\"}"
        ),
        1.0
    );
    assert!(!text.contains("connections{worker=\"app\"}"), "{text}");

    // Two clients that nobody accepts.
    let web = daemon.address("web");
    let _waiting = (
        client::tcp(web).expect("wait"),
        client::tcp(web).expect("wait"),
    );
    let of_web = format!("{{listener=\"web\",socket=\"0\",address=\"{web}\"}}");
    becomes(
        metrics,
        &format!("listend_listener_queue_depth{of_web}"),
        2.0,
    );
    let text = scrape(metrics);
    assert!(value(&text, &format!("listend_listener_queue_limit{of_web}")) > 2.0);
    assert_eq!(
        value(
            &text,
            &format!("listend_listener_queue_drops_total{of_web}")
        ),
        0.0
    );

    app.tell("exit 3");
    let mut app = world.puppet();
    let exits = |reason: &str, result: &str| {
        format!(
            "listend_worker_exits_total{{worker=\"app\",reason=\"{reason}\",result=\"{result}\"}}"
        )
    };
    becomes(metrics, "listend_worker_starts_total{worker=\"app\"}", 2.0);
    assert_eq!(value(&scrape(metrics), &exits("exit", "error")), 1.0);
    app.tell("exit 0");
    let app = world.puppet();
    becomes(metrics, &exits("exit", "ok"), 1.0);
    crate::harness::kill(app.pid(), nix::sys::signal::Signal::SIGKILL);
    let _app = world.puppet();
    becomes(metrics, &exits("signal", "error"), 1.0);

    let _client = client::unix(&world.path("late")).expect("connect");
    let _late = world.puppet();
    becomes(
        metrics,
        "listend_worker_activations_total{worker=\"late\"}",
        1.0,
    );

    let each = daemon.address("each");
    let held = client::tcp(each).expect("connect");
    becomes(metrics, "listend_worker_connections{worker=\"each\"}", 1.0);
    client::sees_the_end(client::tcp(each).expect("connect"));
    let refused =
        "listend_worker_connections_refused_total{worker=\"each\",reason=\"max_connections\"}";
    becomes(metrics, refused, 1.0);
    drop(held);
    becomes(metrics, "listend_worker_connections{worker=\"each\"}", 0.0);
    let accepted = "listend_worker_connections_accepted_total{worker=\"each\"}";
    assert_eq!(value(&scrape(metrics), accepted), 2.0);
    daemon.stop();
}

#[test]
fn a_launch_that_failed_and_a_listener_that_is_missing_are_counted() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("an address").port();
    let daemon = world.run(&format!(
        "
listeners: {{ web: '127.0.0.1:0', gone: {{ address: '127.0.0.1:{port}', optional: true }} }}
workers:
  app:
    command: [$DIR/no-such-program]
    listeners: [web, gone]
    restart: {{ policy: on-failure, backoff: 1ms..1ms, limit: 2 in 60s }}
metrics: 127.0.0.1:0
"
    ));
    let metrics = address(&daemon);
    becomes(
        metrics,
        "listend_worker_failed_instances{worker=\"app\"}",
        1.0,
    );
    let text = scrape(metrics);
    let launch = "listend_worker_exits_total{worker=\"app\",reason=\"launch\",result=\"error\"}";
    assert_eq!(value(&text, launch), 3.0);
    assert_eq!(
        value(&text, "listend_worker_starts_total{worker=\"app\"}"),
        0.0
    );
    assert_eq!(value(&text, "listend_listener_up{listener=\"gone\"}"), 0.0);
    drop(taken);
    becomes(metrics, "listend_listener_up{listener=\"gone\"}", 1.0);
    daemon.stop();
}

#[test]
fn each_format_is_whole_and_only_get_of_metrics_is_answered() {
    let world = World::new();
    let daemon = world.run(ALL);
    let metrics = address(&daemon);
    let open = scrape_as(metrics, "application/openmetrics-text; version=1.0.0");
    assert!(open.ends_with("\n# EOF\n"), "{open}");
    assert!(
        open.contains("\n# UNIT listend_start_time_seconds seconds\n"),
        "{open}"
    );
    assert!(
        open.contains("\n# TYPE listend_worker_starts counter\n"),
        "{open}"
    );
    let plain = scrape(metrics);
    assert!(
        plain.contains("\n# TYPE listend_worker_starts_total counter\n"),
        "{plain}"
    );
    assert!(
        !plain.contains("# UNIT") && !plain.contains("# EOF"),
        "{plain}"
    );
    assert!(
        plain.contains("\n# TYPE listend_build_info gauge\n"),
        "{plain}"
    );

    let head = client::say_tcp(metrics, "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.ends_with("\r\n\r\n") && !head.contains("Content-Length: 0"),
        "{head}"
    );
    let long = format!(
        "GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n",
        "y".repeat(64 * 1024)
    );
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        (
            "PUT /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "405",
        ),
        ("hello\r\n\r\n", "400"),
        (long.as_str(), "431"),
    ] {
        let answer = client::say_tcp(metrics, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    daemon.stop();
}

#[test]
fn scrapers_that_say_nothing_or_half_or_leave_disturb_nobody() {
    let world = World::new();
    let daemon = world.run(ALL);
    let metrics = address(&daemon);
    let _app = world.puppet();
    becomes(
        metrics,
        "listend_worker_ready_instances{worker=\"app\"}",
        1.0,
    );
    crate::harness::settled(daemon.pid());
    let before = crate::harness::settled_descriptors(daemon.pid());
    let silent: Vec<TcpStream> = (0..100)
        .map(|number| {
            let mut stream = client::tcp(metrics).expect("connect");
            if number % 2 == 1 {
                stream
                    .write_all(b"GET /metrics HTTP/1.1\r\n")
                    .expect("write");
            }
            stream
        })
        .collect();
    // More than there is room for: the first of them have made room.
    assert!(scrape(metrics).contains("listend_build_info"));
    client::sees_the_end(&silent[0]);
    for _ in 0..50 {
        let mut stream = client::tcp(metrics).expect("connect");
        let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).expect("write");
        client::reset(stream);
    }
    drop(silent);
    // Nothing is left of them, and nothing is made for those who do not wait for it any more.
    eventually("scrapers to be gone", || {
        crate::harness::descriptors(daemon.pid()) == before
    });
    crate::harness::settled(daemon.pid());
    assert!(scrape(metrics).contains("listend_build_info"));
    daemon.stop();
}

// Nobody has to call `status`: whoever scrapes looks at the queues as well.
#[test]
fn a_queue_that_stays_full_is_logged_where_only_scrapers_look() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { deaf: { address: 'unix:$DIR/deaf.sock', backlog: 1 } }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [deaf] } }
metrics: 'unix:$DIR/metrics'
",
    );
    let _puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let look = || {
        let stream = client::unix(&world.path("metrics")).expect("connect");
        client::http(stream, "/metrics").expect("an answer")
    };
    let told = || daemon.lines_so_far(&["listener deaf", "the queue is full"]);
    let connect = || client::unix(&world.path("deaf.sock")).expect("connect");
    let _waiting = [connect(), connect()];
    assert!(look().contains("listend_listener_queue_depth{listener=\"deaf\""));
    eventually("it is told", || {
        look();
        !told().is_empty()
    });
    let line = told().remove(0);
    assert!(line.contains("clients waiting: 2, limit 1"), "{line}");
    daemon.stop();
}

/// What `Status` has of the built-in worker.
fn built_in(control: &mut Varlink, parameters: serde_json::Value) -> serde_json::Value {
    let status = control.ask("Status", parameters);
    let workers = status["workers"].as_array().expect("workers");
    let mut workers = workers.iter();
    let found = workers.find(|worker| worker["name"] == "listend:metrics");
    found.cloned().unwrap_or_default()
}

// The configuration has no such worker; one that fails is no secret all the same.
#[test]
fn the_built_in_worker_is_shown_by_name_and_when_it_fails() {
    let world = World::new();
    let daemon = varlink::run(&world, ALL);
    let mut control = Varlink::connect(&world);
    let text = scrape(address(&daemon));
    assert!(!text.contains("worker=\"listend:metrics\""), "{text}");
    assert!(built_in(&mut control, json!({})).is_null());
    let by_name = json!({ "name": "listend:metrics" });
    let pid =
        |control: &mut Varlink| built_in(control, by_name.clone())["instances"][0]["pid"].as_i64();
    let first = pid(&mut control).expect("a pid");
    let listener = &control.ask("Status", by_name.clone())["listeners"][0];
    assert_eq!(listener["workers"], json!([]), "{listener}");
    let status = fs::read_to_string(format!("/proc/{first}/status")).expect("a status");
    let line = |name: &str| {
        let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
        lines.next().map(str::to_owned).expect(name)
    };
    assert_eq!(line("NoNewPrivs:"), "\t1");
    if crate::harness::is_root() {
        assert_eq!(line("Uid:"), "\t65534\t65534\t65534\t65534");
        assert_eq!(line("Groups:").trim(), "");
        assert_eq!(line("CapEff:"), "\t0000000000000000");
    }

    crate::harness::kill(first as i32, nix::sys::signal::Signal::SIGABRT);
    eventually("it is told", || {
        built_in(&mut control, json!({}))["state"] == "backoff"
    });
    // Whoever comes meanwhile waits for the next one.
    assert!(scrape(address(&daemon)).contains("listend_build_info"));
    assert!(pid(&mut control).is_some_and(|second| second != first));
    assert!(built_in(&mut control, json!({})).is_null());
    daemon.stop();
}

// It has a connection of its own, so that the path of the control socket does not matter.
#[test]
fn scrapes_need_no_control_socket_and_end_with_the_daemon() {
    let world = World::new();
    let daemon = varlink::run(&world, ALL);
    let metrics = address(&daemon);
    let _app = world.puppet();
    fs::remove_file(varlink::path(&world)).expect("unlink");
    assert!(scrape(metrics).contains("listend_build_info"));
    let children = crate::harness::children(daemon.pid());
    let is_it = |pid: &&i32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0web\0"))
    };
    let web = *children.iter().find(is_it).expect("the worker");
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    eventually("it is gone", || !crate::harness::exists(web));
}

#[test]
fn a_page_of_thousands_of_listeners_is_complete_for_all_who_want_it() {
    let world = World::new();
    let mut yaml = "listeners:\n".to_owned();
    let mut names = Vec::new();
    for number in 0..2000 {
        yaml += &format!("  l{number}: 'unix:@$DIR/{number}'\n");
        names.push(format!("l{number}"));
    }
    yaml += &format!(
        "workers:\n  app: {{ command: [$PROBE, serve], listeners: [{}], activation: on-demand }}\n",
        names.join(", ")
    );
    yaml += "metrics: unix:$DIR/metrics\n";
    let daemon = world.run(&yaml);
    daemon.line(&["bound in"]);
    let path = world.path("metrics");
    let scrapers: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let stream = client::unix(&path).expect("connect");
                client::http(stream, "/metrics").expect("an answer")
            })
        })
        .collect();
    for scraper in scrapers {
        let text = scraper.join().expect("a scraper");
        let of = |metric: &str| text.lines().filter(|line| line.starts_with(metric)).count();
        assert_eq!(of("listend_listener_up{"), 2001);
        assert_eq!(of("listend_listener_queue_depth{"), 2001);
        // However many pieces a family came in, it has one heading.
        assert_eq!(of("# TYPE listend_listener_queue_depth "), 1);
        assert_eq!(of("# HELP listend_listener_queue_depth "), 1);
    }
    daemon.stop();
}

#[test]
fn the_address_is_checked_like_that_of_a_listener() {
    let world = World::new();
    let worker = "workers: { app: { command: [$PROBE, serve], listeners: [web] } }\n";
    for (yaml, wanted) in [
        (
            "listeners: { web: '127.0.0.1:80' }\nmetrics: 127.0.0.1:80\n",
            "listend.yaml:2:10",
        ),
        (
            "listeners: { web: '127.0.0.1:81' }\nmetrics: udp://127.0.0.1:80\n",
            "HTTP needs a stream",
        ),
        (
            "listeners: { web: '127.0.0.1:81' }\nmetrics: 9464\n",
            "listend.yaml:2:10",
        ),
    ] {
        let finished = world.check(&format!("{yaml}{worker}"), &["--no-bind"]);
        assert_eq!(finished.code, Some(78), "{yaml}: {}", finished.text());
        assert!(
            finished.text().contains(wanted),
            "{yaml}: {}",
            finished.text()
        );
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("an address").port();
    let daemon = world.run(&format!(
        "listeners: {{ web: '127.0.0.1:0' }}\nmetrics: 127.0.0.1:{port}\n{worker}"
    ));
    let finished = daemon.finish();
    assert!(
        finished.text().contains("listend.yaml:2:10"),
        "{}",
        finished.text()
    );
    assert!(
        finished.text().contains("nothing was started"),
        "{}",
        finished.text()
    );
}

/// The words that can be names of ours.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("listend_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

fn known(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect()
}

#[test]
fn manual_rules_and_dashboard_name_what_there_is() {
    let world = World::new();
    let daemon = world.run(ALL);
    let shown = known(&scrape(address(&daemon)));
    daemon.stop();
    let manual = read("docs/metrics.md");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `"));
    let in_manual: BTreeSet<String> = rows
        .filter_map(|row| Some(row.split_once('`')?.0.to_owned()))
        .collect();
    // Shown of workers with limits, where control groups of version 2 count them.
    let of_groups = ["memory_peak_bytes", "oom_kills_total"];
    let of_groups = of_groups.map(|name| format!("listend_instance_{name}"));
    assert!(of_groups.iter().all(|name| in_manual.contains(name)));
    let shown = &shown | &BTreeSet::from(of_groups);
    assert_eq!(in_manual, shown);

    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let expressions = expressions(&dashboard).join("\n");
    let used = names(&expressions);
    let unknown: Vec<_> = used.difference(&shown).collect();
    assert!(unknown.is_empty(), "the dashboard: {unknown:?}");
    let unseen: Vec<_> = shown.difference(&used).collect();
    assert!(unseen.is_empty(), "not on the dashboard: {unseen:?}");
    let rules = read(RULES);
    let unknown: Vec<_> = names(&rules).difference(&shown).cloned().collect();
    assert!(unknown.is_empty(), "the rules: {unknown:?}");
    assert!(rules.contains("listend_listener_up"), "{rules}");
}

/// Every query of a dashboard.
fn expressions(dashboard: &serde_json::Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let queries = targets
        .flatten()
        .filter_map(|target| target["expr"].as_str());
    queries.map(str::to_owned).collect()
}

#[test]
fn promtool_finds_nothing_wrong() {
    let Some(promtool) = require_tool("promtool") else {
        return;
    };
    let world = World::new();
    let daemon = world.run(ALL);
    let mut check = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    let mut stdin = check.stdin.take().expect("a pipe");
    stdin
        .write_all(scrape(address(&daemon)).as_bytes())
        .expect("write");
    drop(stdin);
    let said = check.wait_with_output().expect("wait for promtool");
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    daemon.stop();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES);
    let said = Command::new(&promtool)
        .args(["check", "rules"])
        .arg(&rules)
        .output();
    let said = said.expect("start promtool");
    assert!(said.status.success(), "{said:?}");
}

/// Prometheus, killed at the end.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// What the query API answers.
fn query(api: SocketAddr, expression: &str) -> Option<serde_json::Value> {
    let escaped: String = expression
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let request = format!("GET /api/v1/query?query={escaped} HTTP/1.0\r\nHost: {api}\r\n\r\n");
    let mut stream = client::tcp(api).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

#[test]
fn prometheus_scrapes_and_answers_every_query_of_the_dashboard() {
    let Some(prometheus) = require_tool("prometheus") else {
        return;
    };
    let world = World::new();
    let daemon = world.run(ALL);
    let metrics = address(&daemon);
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join(RULES);
    let file = world.write(
        "prometheus.yml",
        &format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ['{}']
scrape_configs: [{{ job_name: listend, static_configs: [{{ targets: ['{metrics}'] }}] }}]
",
            rules.display()
        ),
    );
    let api: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
    let log = fs::File::create(world.path("prometheus.log")).expect("a log");
    let child = Command::new(prometheus)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            world.path("data").display()
        ))
        .arg(format!("--web.listen-address={api}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("start prometheus");
    let _prometheus = Prometheus(child);
    let has = |expression: &str, wanted: &str| {
        let answer = query(api, expression)?;
        let value = &answer["data"]["result"][0]["value"][1];
        Some(value.as_str()? == wanted)
    };
    eventually("a scrape", || {
        has("sum(listend_listener_up{job=\"listend\"})", "5") == Some(true)
    });
    for (expression, wanted) in [
        ("up{job=\"listend\"}", "1"),
        ("count(listend_worker_instances{worker=\"app\"})", "7"),
        ("listend_build_info", "1"),
        ("count(listend_listener_queue_limit)", "4"),
    ] {
        assert_eq!(
            has(expression, wanted),
            Some(true),
            "{expression}: {:?}",
            query(api, expression)
        );
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    for expression in expressions(&dashboard) {
        let filled = expression.replace("$job", ".*").replace("$instance", ".*");
        let filled = filled.replace("$__rate_interval", "1m");
        let answer = query(api, &filled).expect("an answer");
        assert_eq!(answer["status"], "success", "{filled}: {answer}");
    }
    daemon.stop();
}
