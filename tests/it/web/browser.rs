//! The page in a browser: headless Chromium, driven by chromedriver (W3C WebDriver) without anything else.

use super::{APP, address};
use crate::harness::{Daemon, World, client, eventually, require_tool, tool};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

/// What Chromium needs to neither ask the network for anything nor want rights.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one page. It ends with the test.
struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// `None`, and the test is skipped, where there is none.
    fn new(world: &World, width: u32) -> Option<Browser> {
        let driver = require_tool("chromedriver")?;
        let chromium = tool("chromium").or_else(|| require_tool("google-chrome"))?;
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .env("HOME", world.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines();
        let port = lines.find_map(|line| {
            let line = line.expect("a line");
            let rest = line.split_once("started successfully on port ")?.1;
            rest.trim_end_matches('.').parse::<u16>().ok()
        });
        // Whatever else it says is not wanted, and must not make it wait.
        std::thread::spawn(move || lines.for_each(drop));
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
        let mut browser = Browser {
            driver,
            address,
            session: String::new(),
        };
        let profile = world.dir().join(format!("browser-{width}"));
        let mut flags: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("--window-size={width},900"));
        flags.push(format!("--user-data-dir={}", profile.display()));
        let options = json!({"binary": chromium, "args": flags});
        let wanted = json!({"alwaysMatch": {"goog:chromeOptions": options}});
        let session = browser.post("/session", &json!({ "capabilities": wanted }));
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        // A window is no narrower than 500 pixels; its page can be.
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        let command = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size});
        browser.tell("goog/cdp/execute", &command);
        Some(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.send("POST", path, &body.to_string())
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = client::tcp(self.address).expect("connect");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .expect("write");
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).expect("a line");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).expect("an answer");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{path}: {value}");
        value
    }

    fn tell(&self, what: &str, body: &Value) -> Value {
        self.post(&format!("/session/{}/{what}", self.session), body)
    }

    fn open(&self, daemon: &Daemon) {
        self.open_at(address(daemon));
    }

    fn open_at(&self, address: SocketAddr) {
        let url = format!("http://{address}/");
        self.tell("url", &json!({ "url": url }));
    }

    /// The value of an expression in the page.
    fn value(&self, expression: &str) -> Value {
        let script = format!("return {expression};");
        self.tell("execute/sync", &json!({"script": script, "args": []}))
    }

    #[track_caller]
    fn becomes(&self, expression: &str, wanted: impl Into<Value>) {
        let wanted = wanted.into();
        eventually(expression, || self.value(expression) == wanted);
    }

    /// Types into what has the focus.
    fn keys(&self, text: &str) {
        let keys = text.chars().flat_map(|key| {
            let key = key.to_string();
            [
                json!({"type": "keyDown", "value": key}),
                json!({"type": "keyUp", "value": key}),
            ]
        });
        let keys: Vec<Value> = keys.collect();
        let actions = json!([{"type": "key", "id": "keys", "actions": keys}]);
        self.tell("actions", &json!({ "actions": actions }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            self.send("DELETE", &path, "");
        }
        let _gone = self.driver.kill();
        let _gone = self.driver.wait();
    }
}

const SUMMARY: &str = "document.getElementById('summary').textContent";
/// Whether anything is wider than the page.
const FITS: &str = "document.documentElement.scrollWidth <= innerWidth";

#[test]
fn what_is_wrong_stands_first_at_every_width() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    restart: { policy: on-failure, backoff: 1ms..1ms, limit: 1 in 60s }
web: '127.0.0.1:0'
",
    );
    let mut app = world.puppet();
    let mut browsers = Vec::new();
    for width in [400, 1600] {
        let Some(browser) = Browser::new(&world, width) else {
            return;
        };
        browser.open(&daemon);
        browser.becomes("innerWidth", width);
        browser.becomes(SUMMARY, "All is well");
        browser.becomes(
            "document.querySelectorAll('#worker-list .row.worker').length",
            1,
        );
        browser.becomes(
            "document.querySelectorAll('#listener-list .row.listener').length",
            2,
        );
        browser.becomes(FITS, true);
        browsers.push(browser);
    }
    app.tell("exit 3");
    app = world.puppet();
    app.tell("exit 3");
    for browser in &browsers {
        browser.becomes(SUMMARY, "worker app failed");
        browser.becomes("document.title", "✗ 1 · listend");
        let why = "document.querySelector('#trouble-list .why').textContent.slice(0, 27)";
        browser.becomes(why, "app.0 failed: exit status 3");
        // It is in sight without scrolling.
        browser.becomes(
            "document.querySelector('#trouble-list .why').getBoundingClientRect().bottom < 400",
            true,
        );
        browser.becomes(FITS, true);
    }
    daemon.signal(Signal::SIGKILL);
    for browser in &browsers {
        let gone = format!("{SUMMARY}.startsWith('Not reachable since ')");
        browser.becomes(&gone, true);
        browser.becomes(
            "document.getElementById('main').classList.contains('stale')",
            true,
        );
    }
}

/// Where the page of a daemon is, with what it does not know of the usage of instances.
fn told(daemon: &Daemon, usage: Value) -> SocketAddr {
    let page = address(daemon);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("an address");
    let news = format!(
        "event: state\ndata: {}\n\n",
        json!({"now": 0, "usage": usage})
    );
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) =
                (client.expect("accept"), client::tcp(page).expect("connect"));
            let news = news.clone();
            std::thread::spawn(move || -> io::Result<()> {
                let mut buffer = vec![0; 65536];
                let length = client.read(&mut buffer)?;
                server.write_all(&buffer[..length])?;
                let is_stream = buffer.starts_with(b"GET /events");
                loop {
                    let length = server.read(&mut buffer)?;
                    if length == 0 {
                        return client.shutdown(Shutdown::Both);
                    }
                    client.write_all(&buffer[..length])?;
                    if is_stream && buffer[..length].ends_with(b"\n\n") {
                        client.write_all(news.as_bytes())?;
                    }
                }
            });
        }
    });
    address
}

// The figures of control groups are told by the kernel; where it does not, there are no columns for them.
#[test]
fn memory_peaks_and_oom_kills_have_columns_where_there_are_some() {
    let world = World::new();
    let daemon = world.run(
        "
workers: { app: { command: [$PROBE, puppet, $EVENTS] } }
web: '127.0.0.1:0'
",
    );
    let app = world.puppet();
    for width in [400, 1000, 1600] {
        let Some(browser) = Browser::new(&world, width) else {
            return;
        };
        browser.open(&daemon);
        browser.becomes("innerWidth", width);
        browser.becomes(SUMMARY, "All is well");
        let cell = |name: &str| format!("document.querySelector('#worker-list .worker .{name}')");
        let is_shown = |name: &str| format!("{}?.offsetWidth > 0", cell(name));
        browser.becomes(&is_shown("c-memory"), true);
        browser.becomes(&is_shown("c-oom"), false);
        browser.open_at(told(
            &daemon,
            json!({app.pid().to_string(): [10, 1024, 20480, 3]}),
        ));
        browser.becomes(&is_shown("c-oom"), true);
        browser.becomes(&format!("{}?.textContent", cell("c-oom")), "3");
        browser.becomes(&is_shown("c-peak"), width == 1600);
        browser.becomes(&format!("{}?.textContent", cell("c-peak")), "20 MiB");
        browser.becomes(FITS, true);
        let list = "document.getElementById('worker-list')";
        browser.becomes(&format!("{list}.scrollWidth <= {list}.clientWidth"), true);
    }
}

#[test]
fn thousands_of_listeners_are_there_and_few_of_them_in_the_document() {
    let world = World::new();
    let mut yaml = "listeners:\n".to_owned();
    let mut names = Vec::new();
    for number in 0..3000 {
        yaml += &format!("  l{number}: 'unix:@$DIR/{number}'\n");
        names.push(format!("l{number}"));
    }
    yaml += &format!(
        "workers:\n  app: {{ command: [$PROBE, serve], listeners: [{}], activation: on-demand }}\n",
        names.join(", ")
    );
    yaml += "web: '127.0.0.1:0'\n";
    let Some(browser) = Browser::new(&world, 1600) else {
        return;
    };
    let daemon = world.run(&yaml);
    daemon.line(&["bound in"]);
    browser.open(&daemon);
    let list = "document.getElementById('listener-list')";
    // One of the page itself, and one for the headings.
    browser.becomes(&format!("{list}.getAttribute('aria-rowcount')"), "3002");
    browser.becomes(
        &format!("{list}.querySelectorAll('.row').length < 100"),
        true,
    );
    browser.becomes(
        &format!("{list}.scrollTop = 1e7, {list}.scrollTop > 10000"),
        true,
    );
    let last = format!(
        "[...{list}.querySelectorAll('.name')].some((name) => name.textContent === 'l2999')"
    );
    browser.becomes(&last, true);
    // By keyboard alone.
    browser.keys("/l2718");
    browser.becomes(&format!("{list}.getAttribute('aria-rowcount')"), "2");
    browser.becomes("document.activeElement.id", "filter");
    // Escape empties the filter, then Tab leads on.
    browser.keys("\u{e00c}");
    browser.becomes(&format!("{list}.getAttribute('aria-rowcount')"), "3002");
    browser.keys("\u{e004}");
    browser.becomes("document.activeElement.id", "ill");
    daemon.stop();
}

#[test]
fn a_page_comes_back_after_the_daemon_did() {
    let world = World::new();
    let Some(browser) = Browser::new(&world, 400) else {
        return;
    };
    let daemon = world.run(APP);
    let port = address(&daemon).port();
    let _app = world.puppet();
    browser.open(&daemon);
    browser.becomes(SUMMARY, "All is well");
    browser.becomes("location.hash", "#app");
    // Out of sight it does not ask.
    let hide = |hidden| {
        browser.value(&format!(
            "Object.defineProperty(document, 'hidden', {{configurable: true, get: () => {hidden}}}), \
             document.dispatchEvent(new Event('visibilitychange'))"
        ))
    };
    hide(true);
    browser.becomes(
        "document.getElementById('link').textContent",
        "paused while hidden",
    );
    hide(false);
    browser.becomes(
        "document.getElementById('link').textContent.startsWith('live')",
        true,
    );
    daemon.stop();
    browser.becomes(
        &format!("{SUMMARY}.startsWith('Not reachable since ')"),
        true,
    );
    let again = APP.replace("\nweb: '127.0.0.1:0'", &format!("\nweb: 127.0.0.1:{port}"));
    let daemon = world.run(&again);
    let _app = world.puppet();
    browser.becomes(SUMMARY, "All is well");
    browser.becomes(
        "document.getElementById('link').textContent.startsWith('live')",
        true,
    );
    let pid = format!(
        "document.getElementById('about').textContent.includes('pid {} ')",
        daemon.pid()
    );
    browser.becomes(&pid, true);
    daemon.stop();
}
