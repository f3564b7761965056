//! The variables that tell a worker where to send notifications (sd_notify(3), sd_watchdog_enabled(3)).

use super::Value;
use std::time::Duration;

/// The instance's main process, for a command that runs beside it (systemd.exec(5)).
pub const MAIN_PID: &str = "MAINPID";

/// The notifications that a worker may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The notify socket: a path, or `@` and an abstract name.
    pub socket: &'a str,
    /// The longest time between two keep-alives.
    pub watchdog: Option<Duration>,
    /// The number of descriptors that the worker may store for its successor.
    pub store: u32,
}

/// The variables. WATCHDOG_PID keeps its children from taking the watchdog for theirs; FDSTORE is
/// left out where nothing is kept (systemd.exec(5)).
pub fn variables(asked: Asked<'_>) -> Vec<(&'static str, Value)> {
    let mut variables = vec![("NOTIFY_SOCKET", Value::Text(asked.socket.to_owned()))];
    if let Some(interval) = asked.watchdog {
        let microseconds = interval.as_micros().to_string();
        variables.push(("WATCHDOG_USEC", Value::Text(microseconds)));
        variables.push(("WATCHDOG_PID", Value::OwnPid));
    }
    if asked.store > 0 {
        variables.push(("FDSTORE", Value::Text(asked.store.to_string())));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::belongs_to_a_handoff;

    #[test]
    fn only_what_is_asked_for_is_told() {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut asked = Asked {
            socket: "/run/listend/control.notify",
            watchdog: None,
            store: 0,
        };
        let socket = ("NOTIFY_SOCKET", text("/run/listend/control.notify"));
        assert_eq!(variables(asked), std::slice::from_ref(&socket));
        asked.watchdog = Some(Duration::from_millis(1500));
        asked.store = 7;
        let all = variables(asked);
        let expected = [
            socket,
            ("WATCHDOG_USEC", text("1500000")),
            ("WATCHDOG_PID", Value::OwnPid),
            ("FDSTORE", text("7")),
        ];
        assert_eq!(all, expected);
        for (name, _) in all {
            assert!(belongs_to_a_handoff(name), "{name} is not scrubbed");
        }
        assert!(belongs_to_a_handoff(MAIN_PID));
    }
}
