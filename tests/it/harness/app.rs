//! Configurations with one worker, `app`.

/// A command that does what the test tells it.
pub const PUPPET: &str = "[$PROBE, puppet, $EVENTS]";

/// A worker `app` of this command on a port of 127.0.0.1, with these further lines.
pub fn yaml(command: &str, lines: &str) -> String {
    yaml_at("'127.0.0.1:0'", command, lines)
}

/// The same at this address; its listener is called `web`.
pub fn yaml_at(address: &str, command: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "
listeners: {{ web: {address} }}
workers:
  app:
    command: {command}
    listeners: [web]
{lines}"
    )
}
