//! When an instance counts as ready.

mod einhorn;
mod evidence;
mod instances;
mod notify;
mod servers;

use crate::harness::{Daemon, World};

/// A worker `app` of this command, with these further lines, and a daemon that says everything.
fn run(world: &World, command: &str, lines: &str) -> Daemon {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: {command}
{lines}"
    );
    world.run_with(&yaml, |start| {
        start.words_behind(["--control", "$DIR/control.sock", "--log-level", "debug"]);
    })
}
