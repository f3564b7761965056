//! What workers of einhorn(1) write to its command socket: lines, each a mapping in YAML or JSON in which
//! newlines and percent signs are encoded.

use percent_encoding::percent_decode;
use serde_json::Value;

/// What a worker says when it is up.
pub const ACK: &str = "worker:ack";
/// What it says from time to time; nothing follows from it.
pub const PING: &str = "worker:ping";

/// The command in a line. What else it says is not believed: the kernel knows who it is from.
///
/// Ruby and Go write a block of YAML, Python, PHP and shell JSON, and node encodes as for a URI.
pub fn command(line: &[u8]) -> Option<String> {
    let text = percent_decode(line).decode_utf8().ok()?;
    if text.trim_start().starts_with('{') {
        let all: Value = serde_json::from_str(&text).ok()?;
        return all.get("command")?.as_str().map(str::to_owned);
    }
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    let mut commands = pairs.filter(|(key, _)| bare(key) == "command");
    commands.next().map(|(_, value)| bare(value).to_owned())
}

/// Without blanks around it, and without quotes.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let quoted = ['"', '\''].iter().find_map(|quote| {
        let inner = text.strip_prefix(*quote)?;
        inner.strip_suffix(*quote)
    });
    quoted.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clients_of_each_language_write_is_understood() {
        for line in [
            // Ruby: YAML.dump
            "---%0Acommand: worker:ack%0Apid: 4711%0A",
            // Go: gopkg.in/yaml.v2
            "command: worker:ack%0Apid: 4711%0A",
            // node: encodeURI
            "---%0Acommand:%20worker:ack%0Apid:%204711",
            // Python: json.dumps
            r#"{"command": "worker:ack", "pid": 4711}"#,
            // JSON.generate, and in another order
            r#"{"pid":4711,"command":"worker:ack"}"#,
            "--- %0A\"command\": 'worker:ack'%0A",
            " {\"command\":\"worker:ack\"}\r",
        ] {
            assert_eq!(command(line.as_bytes()).as_deref(), Some(ACK), "{line}");
        }
        let ping = "---%0Acommand: worker:ping%0Apid: 1%0Arequest_id: 100%25%0A";
        assert_eq!(command(ping.as_bytes()).as_deref(), Some(PING));
    }

    #[test]
    fn what_has_no_command_is_none() {
        for line in [
            "",
            "READY=1",
            "worker:ack",
            "{",
            r#"{"command": 1}"#,
            r#"[{"command": "worker:ack"}]"#,
            "%",
            "%f",
            "pid: 1",
            "no command: worker:ack",
        ] {
            assert_eq!(command(line.as_bytes()), None, "{line}");
        }
        assert_eq!(command(b"command: \xff"), None);
        assert_eq!(command(&[b'{'; 4096]), None);
    }

    #[test]
    fn only_what_is_encoded_is_decoded() {
        let told = command(b"command: a%25%zz%2%0apid: 1");
        assert_eq!(told.as_deref(), Some("a%%zz%2"));
    }
}
