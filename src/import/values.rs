//! Values as others write them: words with quotes, time spans, permission bits.

use std::time::Duration;

/// The words of a line, with quotes and backslashes as a shell has them; where they do not match, what stands
/// between blanks.
pub(super) fn words(line: &str) -> Vec<String> {
    shlex::split(line).unwrap_or_else(|| line.split_whitespace().map(str::to_owned).collect())
}

/// `45`, `1min 30s` and `infinity` (systemd.time(7)) as a duration of the configuration.
pub(super) fn span(text: &str) -> Option<String> {
    let text = text.trim();
    if text == "infinity" {
        return Some(text.to_owned());
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds_text(seconds));
    }
    let span: jiff::SignedDuration = text.parse().ok()?;
    let span = Duration::try_from(span).ok()?;
    Some(match (span.as_secs(), span.subsec_millis()) {
        (seconds, 0) => seconds_text(seconds),
        (0, millis) => format!("{millis}ms"),
        (seconds, millis) => format!("{seconds}s{millis}ms"),
    })
}

/// Seconds as a duration of the configuration.
pub(super) fn seconds_text(seconds: u64) -> String {
    match seconds {
        0 => "0".to_owned(),
        seconds => format!("{seconds}s"),
    }
}

/// Permission bits with four digits.
pub(super) fn octal(text: &str) -> String {
    let digits = text.trim_start_matches("0o").trim_start_matches('0');
    format!("0{digits:0>3}")
}

/// The port of a service by its number, or by its name in the registry.
pub(super) fn port(name: &str, protocol: &str) -> Option<u16> {
    name.parse()
        .ok()
        .or_else(|| crate::diagnose::port_of(name, protocol))
}
