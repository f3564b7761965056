//! The variables that a worker must not inherit.

/// What listend tells one process about itself alone. A program that this one starts must not take it for its own.
pub const OF_ONE_PROCESS: &[&str] = &[
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "FDSTORE",
];

/// Exact names, besides those. Every dialect by which some server takes sockets, readiness or a watchdog: one that
/// leaks through from listend's own manager makes a worker take descriptors that are not its own,
/// refuse its listeners, or signal the wrong process. And what systemd.exec(5), "Environment variables
/// in spawned processes", has about listend's own unit, its folders and its start: a worker that
/// believes it writes into listend's folders, or reads secrets that are not meant for it.
const NAMES: &[&str] = &[
    // listend's own.
    "LISTEND_FDSTORE",
    "LISTEND_LEFT",
    "LISTEND_STORE",
    "LISTEND_WORKER_NOFILE",
    // systemd: the process itself, and the connection that it serves.
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "INVOCATION_ID",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SO_COOKIE",
    // systemd: the unit, its folders, its secrets and limits, and how it was started or ended before.
    "SYSTEMD_EXEC_PID",
    "SYSTEMD_ACTIVATION_UNIT",
    "SYSTEMD_ACTIVATION_SCOPE",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "PIDFILE",
    "SERVICE_RESULT",
    "EXIT_CODE",
    "EXIT_STATUS",
    // listend.
    "LISTEND_INSTANCE",
    "LISTEND_PID",
    // systemfd.
    "LISTEN_FDS_FIRST_FD",
    // upstart, nginx and its fork, Server::Starter.
    "UPSTART_FDS",
    "UPSTART_EVENTS",
    "NGINX",
    "ANGIE",
    "SERVER_STARTER_PORT",
    "SERVER_STARTER_GENERATION",
    // Servers that hand over to themselves.
    "UNICORN_FD",
    "GUNICORN_FD",
    "GUNICORN_PID",
    "WERKZEUG_SERVER_FD",
    "WERKZEUG_RUN_MAIN",
    "MOJO_REUSE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "TABLEFLIP_HAS_PARENT_7DIU3",
    // UCSPI; under PREFIXES the others.
    "PROTO",
    "TCPLOCALHOST",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "TCPREMOTEHOST",
    "TCPREMOTEINFO",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
];

/// Families of names.
const PREFIXES: &[&str] = &[
    // systemd: the memory pressure of listend's own unit, and which unit or timer started it.
    "MEMORY_PRESSURE_",
    "MONITOR_SERVICE_RESULT",
    "MONITOR_EXIT_",
    "MONITOR_INVOCATION_ID",
    "MONITOR_UNIT",
    "TRIGGER_UNIT",
    "TRIGGER_PATH",
    "TRIGGER_TIMER_",
    "EINHORN_",
    "FPM_SOCKETS",
    "PUMA_INHERIT_",
    "ENDLESS_",
    "UNIXLOCAL",
    "UNIXREMOTE",
    "SCTPLOCAL",
    "SCTPREMOTE",
    "VSOCKLOCAL",
    "VSOCKREMOTE",
];

/// Whether the variable belongs to some handoff, and so must not be passed on by accident.
pub fn belongs_to_a_handoff(name: &str) -> bool {
    let mut exact = OF_ONE_PROCESS.iter().chain(NAMES);
    exact.any(|one| *one == name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_scrubbed_and_ordinary_variables_are_not() {
        for name in [
            "LISTEN_FDS",
            "EINHORN_FD_0",
            "FPM_SOCKETS_1",
            "PUMA_INHERIT_3",
        ] {
            assert!(belongs_to_a_handoff(name), "{name}");
        }
        for name in ["PATH", "HOME", "LISTEN_ADDRESS", "TCP_PORT", "NGINX_CONF"] {
            assert!(!belongs_to_a_handoff(name), "{name}");
        }
    }
}
