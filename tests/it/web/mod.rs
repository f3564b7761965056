//! The page of `web:`: what it is told and by whom, who may not see it, and that watching it disturbs
//! nobody.

mod browser;

use crate::harness::varlink::{self, Varlink};
use crate::harness::{Daemon, World, children, client, eventually, kill};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

const APP: &str = "
listeners: { web: '127.0.0.1:0', data: 'udp://127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web, data]
    restart: { backoff: 10ms..50ms }
  talker:
    command: [sh, -c, 'echo one; echo two; exec sleep 1000', hush-argument]
    environment: { TOKEN: hush-variable }
    output: tag
web: '127.0.0.1:0'
";

fn address(daemon: &Daemon) -> SocketAddr {
    daemon.address("listend:web")
}

fn get(address: SocketAddr, path: &str) -> String {
    client::say_tcp(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    )
}

fn body(answer: &str) -> &str {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body
}

/// One who watches.
struct Watcher {
    stream: BufReader<TcpStream>,
    /// The number of the last message.
    id: String,
}

impl Watcher {
    fn new(address: SocketAddr, query: &str) -> Watcher {
        let mut stream = client::tcp(address).expect("connect");
        let request = format!("GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("write");
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).expect("a head") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains("Content-Type: text/event-stream\r\n"),
            "{head}"
        );
        let id = String::new();
        Watcher { stream, id }
    }

    /// The next state.
    fn next(&mut self) -> Value {
        loop {
            let (mut event, mut data) = (String::new(), String::new());
            loop {
                let mut line = String::new();
                assert!(
                    self.stream.read_line(&mut line).expect("a line") > 0,
                    "the end"
                );
                let line = line.trim_end_matches('\n');
                match line.split_once(": ") {
                    Some(("id", id)) => self.id = id.to_owned(),
                    Some(("event", name)) => event = name.to_owned(),
                    Some(("data", text)) => data = text.to_owned(),
                    _ => assert_eq!(line, ""),
                }
                if line.is_empty() {
                    break;
                }
            }
            if event == "state" {
                return serde_json::from_str(&data).expect("JSON");
            }
            assert_eq!(event, "alive");
        }
    }

    /// Waits for a state of which this is true.
    fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let state = self.next();
            if is_it(&state) {
                return state;
            }
        }
    }
}

fn texts<'a>(list: &'a Value, member: &str) -> Vec<&'a str> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(|one| one[member].as_str()).collect()
}

#[test]
fn the_page_and_what_it_shows_are_served_beside_the_metrics() {
    let world = World::new();
    let daemon = world.run(APP);
    let web = address(&daemon);
    let page = get(web, "/");
    assert!(body(&page).starts_with("<!doctype html>"), "{page}");
    assert!(page.contains("\r\nContent-Security-Policy: default-src 'none';"));
    let head = client::say_tcp(web, "HEAD / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(body(&get(web, "/metrics")).contains("listend_build_info"));
    let status: Value = serde_json::from_str(body(&get(web, "/status.json"))).expect("JSON");
    assert_eq!(texts(&status["workers"], "name"), ["app", "talker"]);
    for (request, code) in [
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        ("GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n", "421"),
        (
            "GET /events HTTP/1.1\r\nHost: rebound.example\r\n\r\n",
            "421",
        ),
        (
            "GET /status.json HTTP/1.1\r\nHost: rebound.example:80\r\n\r\n",
            "421",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: node7.example\r\n\r\n",
            "200",
        ),
        (
            "GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "404",
        ),
        ("HEAD /events HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
    ] {
        let answer = client::say_tcp(web, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{request}: {answer}"
        );
    }
    daemon.stop();
}

#[test]
fn the_older_name_serves_the_metrics_and_no_page() {
    let world = World::new();
    let daemon = world.run(&APP.replace("\nweb: ", "\nmetrics: "));
    let metrics = daemon.address("listend:metrics");
    assert!(body(&get(metrics, "/metrics")).contains("listend_build_info"));
    for path in ["/", "/status.json", "/events"] {
        let answer = get(metrics, path);
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        assert!(
            answer.contains("write `web` in place of `metrics`"),
            "{answer}"
        );
    }
    // Nothing is lost by changing to the new name: the socket is the same.
    let port = metrics.port();
    let yaml = APP.replace("\nweb: '127.0.0.1:0'", &format!("\nweb: 127.0.0.1:{port}"));
    world.write("listend.yaml", &yaml);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("the page is served", || {
        let Ok(stream) = client::tcp(metrics) else {
            return false;
        };
        client::http(stream, "/").is_ok_and(|answer| answer.contains("<!doctype html>"))
    });
    daemon.stop();
}

#[test]
fn only_one_of_the_two_names_is_written_once() {
    let world = World::new();
    let app = "listeners: { web: '127.0.0.1:81' }\nworkers: { app: { command: [$PROBE, serve], listeners: [web] } }\n";
    let both = format!("{app}web: 127.0.0.1:82\nmetrics: 127.0.0.1:83\n");
    let finished = world.check(&both, &["--no-bind"]).expect_code(78);
    let text = finished.text();
    assert!(
        text.contains("listend.yaml:4:10") && text.contains("listend.yaml:3:6"),
        "{text}"
    );
    assert!(text.contains("`web` serves the metrics as well"), "{text}");
    let udp = format!("{app}web: udp://127.0.0.1:80\n");
    let finished = world.check(&udp, &["--no-bind"]).expect_code(78);
    assert!(
        finished.text().contains("HTTP needs a stream"),
        "{}",
        finished.text()
    );
}

#[test]
fn who_watches_is_told_everything_once_and_then_what_changes() {
    let world = World::new();
    let daemon = world.run(APP);
    let web = address(&daemon);
    let mut app = world.puppet();
    let mut watcher = Watcher::new(web, "lines=talker");
    let first = watcher.next();
    assert_eq!(first["whole"], true);
    assert_eq!(first["daemon"]["pid"], daemon.pid());
    assert_eq!(first["listeners"]["n"], 3);
    assert_eq!(texts(&first["workers"]["is"], "name"), ["app", "talker"]);
    assert!(first["troubles"].is_null(), "{first}");
    assert!(
        texts(&first["events"], "kind").contains(&"instance-started"),
        "{first}"
    );
    let lines = match first["lines"].is_null() {
        true => watcher.until(|state| !state["lines"].is_null()),
        false => first,
    };
    let lines = match texts(&lines["lines"]["is"], "text").len() {
        2 => lines,
        _ => watcher.until(|state| texts(&state["lines"]["is"], "text").contains(&"two")),
    };
    assert_eq!(lines["lines"]["worker"], "talker");

    let mut other = Watcher::new(web, "lines=nobody");
    let refused = other.until(|state| !state["lines"].is_null());
    assert_eq!(refused["lines"]["is"], json!([]));
    assert!(
        refused["lines"]["refused"]
            .as_str()
            .is_some_and(|why| why.contains("`nobody`"))
    );

    // All who watch are told what has changed, and nothing else.
    app.tell("exit 3");
    let mut app = world.puppet();
    let is_back = |state: &Value| {
        let rows = state["workers"]["is"].as_array().into_iter().flatten();
        let mut instances = rows.map(|row| &row["instances"][0]);
        instances.any(|one| one["restarts"] == 1 && one["state"] == "running")
    };
    for watcher in [&mut watcher, &mut other] {
        let told = watcher.until(is_back);
        assert_eq!(texts(&told["workers"]["is"], "name"), ["app"]);
        assert!(
            told["whole"].is_null() && told["daemon"].is_null(),
            "{told}"
        );
        assert!(told["listeners"].is_null(), "{told}");
    }

    // One that comes back goes on where it was.
    let mut again = Watcher::new(web, &format!("since={}", watcher.id));
    drop(watcher);
    app.tell("exit 4");
    let _app = world.puppet();
    let told = again.until(|state| !state["events"].is_null());
    assert!(
        told["whole"].is_null() && told["listeners"].is_null(),
        "{told}"
    );
    let messages = texts(&told["events"], "message").join("\n");
    assert!(
        messages.contains("exit status 4") && !messages.contains("exit status 3"),
        "{messages}"
    );
    // With a number of another process it begins from the start.
    let told = Watcher::new(web, "since=1-2:3").next();
    assert_eq!(told["whole"], true);
    daemon.stop();
}

#[test]
fn what_is_wrong_is_told_with_why() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0', gone: { address: 'unix:$DIR/no/gone', optional: true } }
workers:
  app:
    command: [sh, -c, 'exit 7']
    listeners: [web]
    restart: { policy: on-failure, backoff: 1ms..1ms, limit: 2 in 60s }
web: '127.0.0.1:0'
",
    );
    let mut watcher = Watcher::new(address(&daemon), "");
    let is_failed = |state: &Value| {
        let troubles = state["troubles"].as_array().into_iter().flatten();
        let mut troubles = troubles.map(|one| (&one["name"], &one["word"], &one["why"]));
        troubles.any(|(name, word, why)| {
            let why = why.as_str().expect("text");
            name == "app" && word == "failed" && why.starts_with("app.0 failed: exit status 7")
        })
    };
    watcher.until(is_failed);
    daemon.stop();
}

// Whoever reaches the address reads it.
#[test]
fn environment_and_arguments_of_workers_are_not_told() {
    let world = World::new();
    let daemon = world.run(APP);
    let web = address(&daemon);
    let _app = world.puppet();
    let told = Watcher::new(web, "lines=talker").next().to_string();
    for answer in [
        get(web, "/"),
        get(web, "/status.json"),
        get(web, "/metrics"),
        told,
    ] {
        assert!(!answer.contains("hush"), "{answer}");
    }
    daemon.stop();
}

#[test]
fn many_who_watch_and_do_not_read_keep_nobody_from_an_answer() {
    let world = World::new();
    let daemon = varlink::run(&world, APP);
    let web = address(&daemon);
    let _app = world.puppet();
    let silent: Vec<TcpStream> = (0..32)
        .map(|_| {
            let mut stream = client::tcp(web).expect("connect");
            let request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request).expect("write");
            stream.read_exact(&mut [0; 12]).expect("a head");
            stream
        })
        .collect();
    let refused = get(web, "/events");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\r\nRetry-After: "), "{refused}");
    assert!(body(&get(web, "/metrics")).contains("listend_build_info"));
    let status = Varlink::connect(&world).ask("Status", json!({}));
    assert_eq!(texts(&status["workers"], "name"), ["app", "talker"]);
    // Their places are free as soon as they have gone.
    drop(silent);
    eventually("there is room again", || {
        let mut stream = client::tcp(web).expect("connect");
        let request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).expect("write");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("a head");
        head == *b"HTTP/1.1 200"
    });
    daemon.stop();
}

#[test]
fn when_nobody_watches_the_daemon_is_not_asked() {
    let world = World::new();
    let daemon = varlink::run(&world, APP);
    let web = address(&daemon);
    let _app = world.puppet();
    Watcher::new(web, "").next();
    // Two looks would come in that time.
    let switched = || crate::harness::context_switches(daemon.pid());
    eventually("the daemon rests", || {
        let before = switched();
        std::thread::sleep(std::time::Duration::from_secs(2));
        switched() == before
    });
    daemon.stop();
}

#[test]
fn at_a_unix_socket_any_name_will_do() {
    let world = World::new();
    let daemon = world.run(
        &APP.replace("web: '127.0.0.1:0'\n", "web: 'unix:$DIR/page'\n")
            .replace("{ web: 'unix:$DIR/page'", "{ web: '127.0.0.1:0'"),
    );
    daemon.line(&["bound in"]);
    let mut stream = client::unix(&world.path("page")).expect("connect");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: whatever\r\n\r\n")
        .expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(body(&answer).starts_with("<!doctype html>"), "{answer}");
    daemon.stop();
}

// Rule: a page that is asked to stop answers those who are there, and those who watch come again.
#[test]
fn who_is_there_is_answered_before_it_stops() {
    let world = World::new();
    let daemon = world.run(APP);
    let address = address(&daemon);
    let mut watcher = Watcher::new(address, "");
    let mut half = client::tcp(address).expect("connect");
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc")
        .expect("write");
    // Accepted in order, it has that one now.
    body(&get(address, "/metrics"));
    let all = children(daemon.pid()).into_iter();
    let pages = all.filter(|pid| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split('\0').any(|word| word == "web")
    });
    let pages: Vec<i32> = pages.collect();
    assert_eq!(pages.len(), 1);
    kill(pages[0], Signal::SIGTERM);
    let mut rest = String::new();
    watcher.stream.read_to_string(&mut rest).expect("the end");
    half.write_all(b"alhost\r\n\r\n").expect("write");
    let mut answer = String::new();
    half.read_to_string(&mut answer).expect("an answer");
    body(&answer);
    daemon.line(&["listend:web.0", "exited with exit status 0"]);
    body(&get(address, "/metrics"));
}
