//! What tests of reloads need: another configuration in the place of the one that runs, and a look at
//! what is left as it was.

use super::varlink::{self, Varlink};
use super::{Daemon, Finished, Puppet, Start, World, client, require_tool};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

/// A worker that is replaced as fast as can be.
pub const APP: &str = "command: [$PROBE, puppet, $EVENTS]\n    rollout: { min_ready: 0s }";

/// `$APP` stands for a worker's command and rollout.
pub fn filled(yaml: &str) -> String {
    yaml.replace("$APP", APP)
}

/// `listend run` with this YAML, and a control socket.
pub fn run(world: &World, yaml: &str) -> Daemon {
    varlink::run(world, &filled(yaml))
}

/// Puts another configuration in the place of the one that runs.
pub fn rewrite(world: &World, yaml: &str) {
    world.write("listend.yaml", &filled(yaml));
}

/// `listend` with these words, asking the daemon of this world.
pub fn ask(world: &World, words: &str) -> Finished {
    let words = words.split(' ').chain(["--control", "$DIR/control.sock"]);
    world.finish(words)
}

/// `listend reload`, while the test goes on.
pub fn begin(world: &World) -> Daemon {
    let words = ["reload", "--control", "$DIR/control.sock"];
    world.start(Start::new(words))
}

/// Rewrites and reloads, and waits until the workers have followed.
#[track_caller]
pub fn reload(world: &World, yaml: &str) -> Finished {
    rewrite(world, yaml);
    ask(world, "reload").expect_code(0)
}

/// The sockets that a process has, by inode.
pub fn sockets(pid: i32) -> BTreeSet<String> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let targets = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let targets = targets.map(|path| path.to_string_lossy().into_owned());
    targets.filter(|path| path.starts_with("socket:")).collect()
}

/// A port of 127.0.0.1.
pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Names in the folder, without those that the test has put there.
pub fn files(world: &World) -> BTreeSet<String> {
    let entries = fs::read_dir(world.dir()).expect("a folder").map(|entry| {
        let name = entry.expect("an entry").file_name();
        name.into_string().expect("UTF-8")
    });
    entries.filter(|name| name != "listend.yaml").collect()
}

/// The first line in the state of a worker or listener.
pub fn state_of(world: &World, list: &str, name: &str) -> String {
    let status = Varlink::connect(world).ask("Status", json!({}));
    let mut all = status[list].as_array().expect("a list").iter();
    let one = all.find(|one| one["name"] == name);
    let one = one.unwrap_or_else(|| panic!("no {name} in {status}"));
    one["state"].as_str().expect("a state").to_owned()
}

/// How many clients may wait at a TCP listener, as the kernel has it.
pub fn limit_of(port: u16) -> Option<String> {
    let words = ["-Hltn".to_owned(), format!("sport = :{port}")];
    let output = Command::new(require_tool("ss")?).args(words).output();
    let table = String::from_utf8(output.expect("start ss").stdout).expect("UTF-8");
    let limit = table.split_whitespace().nth(2);
    Some(limit.expect("somebody listens").to_owned())
}

/// Has a puppet serve, and asks it.
#[track_caller]
pub fn serves(puppet: &mut Puppet, address: SocketAddr) {
    puppet.tell("serve");
    assert_eq!(client::ask_tcp(address).pid, puppet.pid());
}

/// Whether this process serves there.
#[track_caller]
pub fn serves_too(port: u16, pid: i32) {
    assert_eq!(client::ask_tcp(address(port)).pid, pid);
}

/// Its new generation ends at once, if it is bad.
pub fn good_or_bad(address: &str, is_good: bool) -> String {
    let command = match is_good {
        true => "[$PROBE, puppet, $EVENTS]",
        false => "[$PROBE, exit, '3']",
    };
    format!(
        "listeners: {{ web: '{address}' }}\nworkers:\n  app:\n    command: {command}\n    listeners: [web]\n    rollout: {{ min_ready: 200ms }}\n"
    )
}

/// A worker with two listeners.
pub const TWO: &str = "
listeners:
  one: { address: '127.0.0.1:0', reuse_port: true }
  two: { address: 'unix:$DIR/two.sock', mode: '0660' }
workers:
  app:
    $APP
    listeners: [one, two]
";
