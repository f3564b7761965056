//! Network namespaces of a test's own, so that nothing it does to addresses is seen elsewhere.

use super::{DEADLINE, is_root, probe_path, require_tool, skip};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A network namespace with a name (ip-netns(8)), gone when it is dropped.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// A new one, its loopback up; if there is none to be had, the test is skipped.
    pub fn new() -> Option<Namespace> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            skip("needs root, for network namespaces");
            return None;
        }
        require_tool("ip")?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("listend-{}-{number}", std::process::id());
        let made = ip(&["netns", "add", &name]);
        if !made.status.success() {
            let reason = String::from_utf8_lossy(&made.stderr).into_owned();
            skip(&format!("no network namespace to be had: {reason}"));
            return None;
        }
        let namespace = Namespace(name);
        namespace.ip(&["link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Where it can be opened.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    /// `ip …` inside; it has to succeed.
    #[track_caller]
    pub fn ip(&self, words: &[&str]) {
        let all: Vec<&str> = ["-n", &self.0].iter().chain(words).copied().collect();
        let output = ip(&all);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {words:?}: {complained}");
    }

    /// Puts another namespace in its place, with its name, and with its loopback down.
    #[track_caller]
    pub fn renew(&self) {
        for what in ["del", "add"] {
            let output = ip(&["netns", what, &self.0]);
            let complained = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "ip netns {what}: {complained}");
        }
    }

    /// The words that run what follows them inside.
    pub fn words(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.0]
    }

    /// A pair of interfaces inside, both up.
    #[track_caller]
    pub fn veth(&self, one: &str, other: &str) {
        self.ip(&["link", "add", one, "type", "veth", "peer", "name", other]);
        self.ip(&["link", "set", one, "up"]);
        self.ip(&["link", "set", other, "up"]);
    }

    /// `probe send` inside: what came back.
    pub fn send(&self, scheme: &str, address: &str, text: &str) -> Result<String, String> {
        send_through(&self.words(), scheme, address, text)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(words: &[&str]) -> Output {
    let output = Command::new("ip").args(words).output();
    output.unwrap_or_else(|error| panic!("start ip {words:?}: {error}"))
}

/// `probe send`, a client for every kind of listener: what came back, or its complaint.
pub fn send(scheme: &str, address: &str, text: &str) -> Result<String, String> {
    send_through(&[], scheme, address, text)
}

fn send_through(
    through: &[&str],
    scheme: &str,
    address: &str,
    text: &str,
) -> Result<String, String> {
    let probe = probe_path().to_str().expect("UTF-8");
    let seconds = DEADLINE.as_secs().to_string();
    let own = [probe, "send", scheme, address, text, &seconds];
    let words: Vec<&str> = through.iter().chain(&own).copied().collect();
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("start {words:?}: {error}"));
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
