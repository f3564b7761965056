//! The servers that `preset:` knows, and the settings of a worker that runs one.

use serde::{Serialize, Serializer};
use std::fmt;

/// A server, and the keys of a worker that runs it.
pub struct Preset {
    /// The word of `preset:`.
    pub name: &'static str,
    /// The names of servers that are configured alike.
    pub synonyms: &'static [&'static str],
    /// The settings, each where its key is not written.
    pub settings: &'static [(&'static str, &'static str)],
    /// What can be read to see whether the server takes the listeners.
    pub evidence: Evidence,
    /// The words of its command that make it so; none of [`ALL`] has any.
    pub with_words: &'static [&'static str],
}

/// What shows before a start whether a server takes its listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing; the server's own code decides.
    None,
    /// A word of the command has to hold the number of a descriptor, written like this.
    Number(&'static str),
    /// nginx.conf.
    Nginx,
    /// The options of gunicorn.
    Gunicorn,
    /// php-fpm.conf and its pools.
    PhpFpm,
    /// lighttpd.conf.
    Lighttpd,
    /// The modules of Apache.
    Apache,
    /// The release of Caddy that is installed.
    Caddy,
    /// The mode of HAProxy, and its `bind` lines.
    Haproxy,
    /// The options of puma.
    Puma,
}

macro_rules! presets {
    ($($name:literal $(($($synonym:literal),*))? $(with $word:literal)?, $evidence:expr, {
        $($key:ident: $value:literal),* $(,)?
    };)*) => {
        &[$(Preset {
            name: $name,
            synonyms: &[$($($synonym),*)?],
            settings: &[$((stringify!($key), $value)),*],
            evidence: $evidence,
            with_words: &[$($word)?],
        },)*]
    };
}

/// Every preset. A stop signal is the one that lets requests end; a reload signal is there only where the
/// server keeps inherited sockets over it; `accepting` is for servers that do not tell when they are
/// ready, or only as some builds or modes of them do.
pub const ALL: &[Preset] = presets! {
    // An inherited socket without O_NONBLOCK leaves workers stuck in accept(2).
    "nginx" ("freenginx", "openresty", "tengine"), Evidence::Nginx, {
        handoff: "nginx", nonblocking: "true", ready: "accepting",
        stop_signal: "SIGQUIT", reload_signal: "SIGHUP",
    };
    "angie", Evidence::Nginx, {
        handoff: "nginx", nonblocking: "true", ready: "accepting",
        stop_signal: "SIGQUIT", reload_signal: "SIGHUP",
    };
    "apache" ("apache2", "httpd"), Evidence::Apache, {
        handoff: "systemd", ready: "notify", stop_signal: "SIGWINCH",
    };
    // It reloads by a command, which needs the path of its configuration.
    "caddy", Evidence::Caddy, { handoff: "none", ready: "notify" };
    "haproxy", Evidence::Haproxy, {
        handoff: "none", ready: "accepting", stop_signal: "SIGUSR1", reload_signal: "SIGUSR2",
    };
    "lighttpd", Evidence::Lighttpd, {
        handoff: "systemd", ready: "accepting", stop_signal: "SIGINT", reload_signal: "SIGUSR1",
    };
    "h2o", Evidence::None, { handoff: "server-starter", ready: "accepting" };
    // gunicorn itself allows requests 30 s (its --graceful-timeout).
    "gunicorn", Evidence::Gunicorn, {
        handoff: "systemd", ready: "notify", reload_signal: "SIGHUP", stop_timeout: "35s",
    };
    "uvicorn", Evidence::Number("--fd {fd:web}"), { handoff: "none", ready: "accepting" };
    "hypercorn", Evidence::Number("--bind fd://{fd:web}"), { handoff: "none", ready: "accepting" };
    "daphne", Evidence::Number("--fd {fd:web}"), { handoff: "none", ready: "accepting" };
    // SIGINT: it stops in both cases, and with the hook of the manual it lets requests end. SIGTERM is a
    // reload unless it is configured otherwise.
    "uwsgi" ("uwsgi-core"), Evidence::Number("--http-socket fd://{fd:web}"), {
        handoff: "none", ready: "notify", stop_signal: "SIGINT", reload_signal: "SIGHUP",
    };
    // Programs that call waitress.serve(sockets=…); SIGTERM ends them at once.
    "waitress", Evidence::None, {
        handoff: "systemd", ready: "accepting", stop_signal: "SIGINT",
    };
    "twisted" ("twist", "twistd"), Evidence::None, { handoff: "systemd", ready: "accepting" };
    // Before version 6 it does not tell when it is ready.
    "puma", Evidence::Puma, {
        handoff: "systemd", ready: "accepting", reload_signal: "SIGUSR2",
    };
    "unicorn", Evidence::None, {
        handoff: "systemd", ready: "accepting", stop_signal: "SIGQUIT", reload_signal: "SIGHUP",
    };
    "node" ("nodejs", "deno"), Evidence::None, { handoff: "systemd", ready: "accepting" };
    "starman", Evidence::None, {
        handoff: "server-starter", ready: "accepting", stop_signal: "SIGQUIT",
        reload_signal: "SIGHUP",
    };
    "starlet", Evidence::None, {
        handoff: "server-starter", ready: "accepting", reload_signal: "SIGHUP",
    };
    // With O_NONBLOCK each idle child exits at once. Not every build tells when it is ready.
    "php-fpm" ("fpm", "php", "phpfpm"), Evidence::PhpFpm, {
        handoff: "php-fpm", nonblocking: "false", ready: "accepting",
        stop_signal: "SIGQUIT", reload_signal: "SIGUSR2",
    };
    "php-cgi", Evidence::None, { handoff: "fd0", nonblocking: "false", ready: "accepting" };
    "fcgiwrap", Evidence::None, { handoff: "fd0", nonblocking: "false", ready: "accepting" };
};

/// Variants of a preset that a word of the command selects.
pub const MODES: &[Preset] = presets! {
    // Its master tells when its workers are ready. With `-W` alone it does not.
    "haproxy" with "-Ws", Evidence::Haproxy, {
        handoff: "none", ready: "notify", stop_signal: "SIGUSR1", reload_signal: "SIGUSR2",
    };
};

/// Servers that have no way to take a socket.
pub(super) const NO_WAY: &[&str] = &[
    "bun",
    "feersum",
    "granian",
    "memcached",
    "postgres",
    "postgresql",
    "redis",
    "thin",
    "waitress-serve",
];

impl fmt::Debug for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Preset {
    fn eq(&self, other: &Preset) -> bool {
        self.name == other.name
    }
}

impl Eq for Preset {}

impl Serialize for Preset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}
